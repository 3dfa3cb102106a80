//! Real files: a data directory, and the lock that keeps a second server out of it.
//!
//! A data directory is told by its file `onced.lock`, which says so in one line and is locked while a
//! server runs. A directory that holds anything else than that file and a log is not touched.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock};
use rustix::io::{Errno, retry_on_intr};
use thiserror::Error;

use super::directory::Directory;
use super::notes;
use super::segment;
use super::storage::{File, Note, Storage, write_all_at};

/// The file that tells a data directory.
pub const LOCK_NAME: &str = "onced.lock";

/// Made and removed at a start, to see whether files can be made.
const PROBE_NAME: &str = "probe.tmp";

/// What some file systems have at their top.
const LOST_AND_FOUND: &str = "lost+found";

const WORDS: &str = "onced data directory, format ";
/// The version that is written, and the latest that is known. In version 1 it was not noted which segment is the
/// newest.
const FORMAT: u32 = 2;
/// Bytes of the lock file that its line takes, with spaces behind it.
const LINE_BYTES: usize = 128;
/// What the lock file says of a directory that is being written and is not to be used before that is done.
const UNFINISHED: &str = "onced data directory, unfinished";
/// How often, and how long apart, a directory that is locked is tried again before it counts as in use.
const LOCK_ATTEMPTS: u32 = 10;
const LOCK_PAUSE: Duration = Duration::from_millis(20);
/// Bytes of zeros that are written at a time.
const ZEROS: usize = 1 << 20;

/// Why a directory is not to be used.
#[derive(Debug, Error)]
pub enum DirectoryError {
    /// It cannot be made, read or written.
    #[error("{what} {path}", path = path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It has other things in it.
    #[error("{path} is not a data directory of onced: it has no {LOCK_NAME} and is not empty (found {found})", path = path.display())]
    Other {
        /// The directory.
        path: PathBuf,
        /// Something in it.
        found: String,
    },
    /// Its lock file says something else.
    #[error("{path} is not what onced writes: is this a data directory?", path = path.display())]
    Words {
        /// The lock file.
        path: PathBuf,
    },
    /// A later version made it.
    #[error("{path} has format {format}; this version knows {FORMAT}: it was made by a newer onced", path = path.display())]
    Newer {
        /// The directory.
        path: PathBuf,
        /// Its format.
        format: u32,
    },
    /// What writes it did not come to its end.
    #[error("{path} is what `onced log repair` had written when it was stopped: remove it, and repair again", path = path.display())]
    Unfinished {
        /// The directory.
        path: PathBuf,
    },
    /// Another server has it.
    #[error("{path} is in use by another onced", path = path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
}

/// A directory of real files.
#[derive(Debug)]
pub struct Disk {
    /// Open as long as this is, so that its names can be made durable whatever else is open.
    directory: Directory,
    /// Held as long as this is; `None` for who only reads.
    lock: Option<fs::File>,
    /// The same file, for who only reads.
    looked_at: Option<fs::File>,
}

impl Disk {
    /// Takes a data directory for this process alone; an empty one, or one that is not there, becomes one.
    pub fn take(path: &Path) -> Result<Self, DirectoryError> {
        let io = |what, path: &Path| {
            let path = path.to_owned();
            move |source| DirectoryError::Io { what, path, source }
        };
        let is_made = Directory::make(path).map_err(io("cannot make the data directory", path))?;
        let directory =
            Directory::open(path).map_err(io("cannot open the data directory", path))?;
        let lock_path = path.join(LOCK_NAME);
        let lock = match directory.open_file(LOCK_NAME, true) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                refuse_other(path)?;
                let made = directory.create_file(LOCK_NAME).or_else(|error| {
                    if error.kind() == io::ErrorKind::AlreadyExists {
                        // By another start, just now.
                        return directory.open_file(LOCK_NAME, true);
                    }
                    Err(error)
                });
                made.map_err(io("cannot write to the data directory", path))?
            }
            opened => opened.map_err(io("cannot open", &lock_path))?,
        };
        let mut locked = flock(&lock, FlockOperation::NonBlockingLockExclusive);
        for _ in 0..LOCK_ATTEMPTS {
            if locked != Err(Errno::WOULDBLOCK) {
                break;
            }
            // Perhaps only somebody who looks whether a server runs here.
            std::thread::sleep(LOCK_PAUSE);
            locked = flock(&lock, FlockOperation::NonBlockingLockExclusive);
        }
        match locked {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(DirectoryError::InUse {
                    path: path.to_owned(),
                });
            }
            Err(errno) => return Err(io("cannot lock", &lock_path)(errno.into())),
        }
        // Just made, or by a start that came no further.
        let words = format!("{WORDS}{FORMAT}\n").into_bytes();
        let found = read_words(&lock, &lock_path)?;
        if found.len() < words.len() && words.starts_with(&found) && first_name(path).is_none() {
            lock.write_all_at(&words, 0)
                .and_then(|()| lock.sync_all())
                .map_err(io("cannot write", &lock_path))?;
        }
        check_words(path, &lock, &lock_path)?;
        probe(&directory).map_err(io("cannot write to the data directory", path))?;
        let disk = Self {
            directory,
            lock: Some(lock),
            looked_at: None,
        };
        if !is_made {
            disk.see_to_rights(path)
                .map_err(io("cannot read the data directory", path))?;
        }
        Ok(disk)
    }

    /// Takes the rights of others from files that an earlier version, or a copy, left them: values are in
    /// there. The directory's own rights are the operator's.
    fn see_to_rights(&self, path: &Path) -> io::Result<()> {
        if let Some(mode) = self.directory.rights_of_others()? {
            tracing::warn!(
                "others than its owner have rights to {path} (mode {mode:03o}): `chmod 700 {path}`",
                path = path.display()
            );
        }
        let names = self.directory.names(|name| !is_ours(name))?;
        let mut files = 0;
        for name in names {
            match self.directory.make_private(&name) {
                Ok(was_open) => files += u32::from(was_open),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::warn!(file = name, %error, "others can read it, and that could not be changed");
                }
            }
        }
        if files > 0 {
            tracing::info!(files, "took the rights of others from files of the log");
        }
        Ok(())
    }

    /// Says that this directory is not to be used before [`Disk::finish`], durably.
    pub fn begin(&self) -> io::Result<()> {
        self.say(UNFINISHED)
    }

    /// Says that this is a data directory, durably.
    pub fn finish(&self) -> io::Result<()> {
        self.say(&format!("{WORDS}{FORMAT}"))
    }

    fn say(&self, words: &str) -> io::Result<()> {
        let Some(lock) = &self.lock else {
            return Err(io::ErrorKind::PermissionDenied.into());
        };
        lock.set_len(0)?;
        lock.write_all_at(format!("{words}\n").as_bytes(), 0)?;
        lock.sync_all()
    }

    /// Looks at a data directory without a claim to it; for reading only.
    pub fn look(path: &Path) -> Result<Self, DirectoryError> {
        let lock_path = path.join(LOCK_NAME);
        let io = |what, path: &Path| {
            let path = path.to_owned();
            move |source| DirectoryError::Io { what, path, source }
        };
        let directory =
            Directory::open(path).map_err(io("cannot read the data directory", path))?;
        let lock = match directory.open_file(LOCK_NAME, false) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(DirectoryError::Other {
                    path: path.to_owned(),
                    found: first_name(path).unwrap_or_else(|| "nothing".to_owned()),
                });
            }
            opened => opened.map_err(io("cannot open", &lock_path))?,
        };
        check_words(path, &lock, &lock_path)?;
        Ok(Self {
            directory,
            lock: None,
            looked_at: Some(lock),
        })
    }

    /// Whether a server runs on this directory, for who only reads it.
    pub fn is_in_use(&self) -> io::Result<bool> {
        let Some(lock) = &self.looked_at else {
            return Ok(true);
        };
        match flock(lock, FlockOperation::NonBlockingLockShared) {
            Ok(()) => {
                flock(lock, FlockOperation::Unlock)?;
                Ok(false)
            }
            Err(Errno::WOULDBLOCK) => Ok(true),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// A directory that takes no new file would fail later.
fn probe(directory: &Directory) -> io::Result<()> {
    // Left there by a start that was killed right here.
    match directory.open_file(PROBE_NAME, false) {
        Ok(_) => directory.remove(PROBE_NAME)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    directory.create_file(PROBE_NAME)?;
    directory.remove(PROBE_NAME)
}

/// Whether a file of this name may be the log's.
fn is_ours(name: &str) -> bool {
    name == LOCK_NAME || segment::number(name).is_some() || name.ends_with(segment::TEMPORARY)
}

/// Something that is in a directory beside what tells a data directory.
fn first_name(path: &Path) -> Option<String> {
    let names = fs::read_dir(path)
        .ok()?
        .flatten()
        .map(|entry| entry.file_name());
    let mut names = names.map(|name| name.to_string_lossy().into_owned());
    names.find(|name| name != LOST_AND_FOUND && name != LOCK_NAME)
}

fn refuse_other(path: &Path) -> Result<(), DirectoryError> {
    match first_name(path) {
        None => Ok(()),
        Some(found) => Err(DirectoryError::Other {
            path: path.to_owned(),
            found,
        }),
    }
}

/// What the lock file says, or the beginning of that.
fn read_words(lock: &fs::File, lock_path: &Path) -> Result<Vec<u8>, DirectoryError> {
    let mut text = vec![0; LINE_BYTES];
    let read = lock
        .read_at(&mut text, 0)
        .map_err(|source| DirectoryError::Io {
            what: "cannot read",
            path: lock_path.to_owned(),
            source,
        })?;
    text.truncate(read);
    Ok(text)
}

fn check_words(path: &Path, lock: &fs::File, lock_path: &Path) -> Result<(), DirectoryError> {
    let text = read_words(lock, lock_path)?;
    let text = String::from_utf8_lossy(&text);
    let format = text
        .trim_end()
        .strip_prefix(WORDS)
        .and_then(|format| format.parse().ok());
    match format {
        Some(1..=FORMAT) => Ok(()),
        Some(format) if format > FORMAT => Err(DirectoryError::Newer {
            path: path.to_owned(),
            format,
        }),
        _ if text.trim_end() == UNFINISHED => Err(DirectoryError::Unfinished {
            path: path.to_owned(),
        }),
        _ => Err(DirectoryError::Words {
            path: lock_path.to_owned(),
        }),
    }
}

impl Storage for Disk {
    fn list(&self) -> io::Result<Vec<String>> {
        self.directory
            .names(|name| name == LOCK_NAME || name == LOST_AND_FOUND)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let may_write = self.lock.is_some();
        let file = self.directory.open_file(name, may_write)?;
        Ok(Arc::new(RealFile(file)))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let file = self.directory.create_file(name)?;
        Ok(Arc::new(RealFile(file)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.directory.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.directory.remove(name)
    }

    fn sync_names(&self) -> io::Result<()> {
        self.directory.sync()
    }

    fn noted(&self, note: Note) -> io::Result<Option<u64>> {
        match &self.lock {
            Some(lock) => notes::read(lock, note),
            None => notes::read(&self.directory.open_file(LOCK_NAME, false)?, note),
        }
    }

    fn note(&self, note: Note, number: u64) -> io::Result<()> {
        let Some(lock) = &self.lock else {
            return Err(io::ErrorKind::PermissionDenied.into());
        };
        // Version 1 becomes version 2 by this.
        let line = format!("{WORDS}{FORMAT}");
        let line = format!("{line:<width$}\n", width = LINE_BYTES - 1);
        lock.write_all_at(line.as_bytes(), 0)?;
        notes::write(lock, note, number)
    }
}

#[derive(Debug)]
struct RealFile(fs::File);

impl File for RealFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(into, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.0.write_at(bytes, offset)
    }

    fn reserve(&self, len: u64, zeroed: bool) -> io::Result<()> {
        let before = self.size()?;
        let reserved = retry_on_intr(|| fallocate(&self.0, FallocateFlags::empty(), 0, len));
        let is_unknown = matches!(reserved, Err(Errno::OPNOTSUPP | Errno::NOSYS));
        if !is_unknown {
            reserved?;
        }
        if zeroed || is_unknown {
            // A file whose blocks were written once needs no change of its metadata later, and where space
            // cannot be set aside, taking it is the next best.
            let zeros = vec![0; ZEROS];
            let mut at = before;
            while at < len {
                let piece = (len - at).min(ZEROS as u64);
                write_all_at(self, &zeros[..piece as usize], at)?;
                at += piece;
            }
            self.sync()?;
        }
        Ok(())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

/// This run of the machine: other bytes after it was started again. Where the system does not say, it is
/// as if it had been.
pub fn boot_id(random: [u8; 16]) -> [u8; 16] {
    let Ok(text) = fs::read_to_string("/proc/sys/kernel/random/boot_id") else {
        return random;
    };
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let mut id = random;
    if digits.len() == 2 * id.len() {
        for (byte, pair) in id.iter_mut().zip(digits.chunks(2)) {
            let pair = str::from_utf8(pair).unwrap_or_default();
            *byte = u8::from_str_radix(pair, 16).unwrap_or_default();
        }
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("onced-disk-{name}-{}", std::process::id()));
        let _there_may_be_none = fs::remove_dir_all(&path);
        path
    }

    #[test]
    fn an_empty_directory_becomes_a_data_directory_for_one() {
        let path = scratch("one");
        let disk = Disk::take(&path).unwrap();
        assert!(disk.list().unwrap().is_empty());
        assert!(matches!(
            Disk::take(&path),
            Err(DirectoryError::InUse { .. })
        ));
        drop(disk);
        Disk::take(&path).unwrap();
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn a_directory_whose_making_was_cut_off_is_made_whole() {
        let path = scratch("cut-off");
        fs::create_dir_all(&path).unwrap();
        let words = format!("{WORDS}{FORMAT}\n");
        for len in 0..=words.len() {
            fs::write(path.join(LOCK_NAME), &words[..len]).unwrap();
            Disk::take(&path).unwrap();
            Disk::look(&path).unwrap();
            assert_eq!(fs::read_to_string(path.join(LOCK_NAME)).unwrap(), words);
        }
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn what_is_no_data_directory_is_refused_and_left_as_it_was() {
        let path = scratch("other");
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("letter.txt"), b"dear").unwrap();
        let refusal = Disk::take(&path).unwrap_err().to_string();
        assert!(refusal.contains("letter.txt"), "{refusal}");
        assert_eq!(fs::read_dir(&path).unwrap().count(), 1);
        fs::write(path.join(LOCK_NAME), format!("{WORDS}3\n")).unwrap();
        assert!(matches!(
            Disk::take(&path),
            Err(DirectoryError::Newer { format: 3, .. })
        ));
        for words in ["", "onced data directory, format x", "pid 17"] {
            fs::write(path.join(LOCK_NAME), words).unwrap();
            assert!(
                matches!(Disk::take(&path), Err(DirectoryError::Words { .. })),
                "{words}"
            );
        }
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn reserved_space_is_zeros_and_written_bytes_stay() {
        let path = scratch("reserve");
        let disk = Disk::take(&path).unwrap();
        for zeroed in [false, true] {
            let file = disk.create("a").unwrap();
            file.reserve(3 << 20, zeroed).unwrap();
            assert_eq!(file.size().unwrap(), 3 << 20);
            assert_eq!(file.write_at(b"xyz", 5).unwrap(), 3);
            file.reserve(4 << 20, zeroed).unwrap();
            let mut begin = [9; 9];
            assert_eq!(file.read_at(&mut begin, 0).unwrap(), 9);
            assert_eq!(&begin, b"\0\0\0\0\0xyz\0");
            disk.remove("a").unwrap();
        }
        fs::remove_dir_all(path).unwrap();
    }
}
