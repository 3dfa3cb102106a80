//! An open directory and the regular files in it, reached by their plain names.
//!
//! No link is followed: whoever may write to the directory, or once could, does not choose which file
//! elsewhere is read, written or cut off. What is made here is for its owner alone, whatever the umask
//! says. The directory itself is found by its path, links and all: that is the operator's to choose.
//!
//! Not here: what the files mean.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, fchmod, fstat, openat, renameat, statat, unlinkat,
};
use rustix::io::Errno;

/// The rights of a directory that is made here.
const DIRECTORY_MODE: u32 = 0o700;
/// The rights of a file that is made here.
const FILE_MODE: u32 = 0o600;
/// The rights of all who are not the owner.
const OF_OTHERS: u32 = 0o077;

/// An open directory.
#[derive(Debug)]
pub(super) struct Directory(fs::File);

impl Directory {
    /// Makes a directory with those above it, durably, if it is not there; returns whether it was made.
    pub(super) fn make(path: &Path) -> io::Result<bool> {
        let is_missing = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
        let missing: Vec<_> = path.ancestors().take_while(is_missing).collect();
        if missing.is_empty() {
            // Or it is a file, which opening it will tell.
            return Ok(false);
        }
        if let Some(above) = path.parent().filter(|above| !above.as_os_str().is_empty()) {
            fs::create_dir_all(above)?;
        }
        match fs::DirBuilder::new().mode(DIRECTORY_MODE).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        // A umask may have taken rights from the owner.
        if fs::metadata(path)?.permissions().mode() & 0o777 != DIRECTORY_MODE {
            fs::set_permissions(path, fs::Permissions::from_mode(DIRECTORY_MODE))?;
        }
        for made in missing {
            let above = made.parent().filter(|above| !above.as_os_str().is_empty());
            // Who may write to a directory need not be allowed to read it.
            if let Ok(above) = fs::File::open(above.unwrap_or(Path::new("."))) {
                above.sync_all()?;
            }
        }
        Ok(true)
    }

    /// Opens a directory that is there.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened: OwnedFd = openat(CWD, path, flags, Mode::empty())?;
        Ok(Self(opened.into()))
    }

    /// The rights of others to it, if they have any.
    pub(super) fn rights_of_others(&self) -> io::Result<Option<u32>> {
        let mode = self.0.metadata()?.permissions().mode() & 0o777;
        Ok((mode & OF_OTHERS != 0).then_some(mode))
    }

    /// The names of all that is in it, in any order; an error if one of them is not a regular file, but for
    /// those that `is_ignored` tells.
    pub(super) fn names(&self, is_ignored: impl Fn(&str) -> bool) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.0)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if matches!(&*name, "." | "..") || is_ignored(&name) {
                continue;
            }
            let kind = match entry.file_type() {
                // Some file systems do not say.
                FileType::Unknown => {
                    match statat(&self.0, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
                        Ok(found) => FileType::from_raw_mode(found.st_mode),
                        // It is gone since.
                        Err(Errno::NOENT) => continue,
                        Err(errno) => return Err(errno.into()),
                    }
                }
                kind => kind,
            };
            if kind != FileType::RegularFile {
                return Err(not_regular(&name));
            }
            names.push(name);
        }
        Ok(names)
    }

    /// Opens a regular file that is there.
    pub(super) fn open_file(&self, name: &str, may_write: bool) -> io::Result<fs::File> {
        let access = if may_write {
            OFlags::RDWR
        } else {
            OFlags::RDONLY
        };
        // A named pipe would be waited for.
        let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = match openat(&self.0, name, flags, Mode::empty()) {
            Ok(opened) => opened,
            Err(Errno::LOOP | Errno::ISDIR | Errno::NXIO) => return Err(not_regular(name)),
            Err(errno) => return Err(errno.into()),
        };
        if FileType::from_raw_mode(fstat(&opened)?.st_mode) != FileType::RegularFile {
            return Err(not_regular(name));
        }
        Ok(opened.into())
    }

    /// Makes an empty file; an error of kind `AlreadyExists` if there is anything of that name.
    pub(super) fn create_file(&self, name: &str) -> io::Result<fs::File> {
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(FILE_MODE);
        let file = openat(&self.0, name, flags, mode)?;
        // A umask may have taken rights from the owner.
        fchmod(&file, mode)?;
        Ok(file.into())
    }

    /// Takes the rights of others from a file that is there; returns whether they had any.
    pub(super) fn make_private(&self, name: &str) -> io::Result<bool> {
        let found = statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if found.st_mode & OF_OTHERS == 0 {
            return Ok(false);
        }
        let file = self.open_file(name, false)?;
        let owners = fstat(&file)?.st_mode & 0o700;
        fchmod(&file, Mode::from_raw_mode(owners))?;
        Ok(true)
    }

    /// Gives a file another name; one that has it already is replaced, in one step.
    pub(super) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(renameat(&self.0, from, &self.0, to)?)
    }

    /// Takes a name away.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        Ok(unlinkat(&self.0, name, AtFlags::empty())?)
    }

    /// Returns once all names are durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.0.sync_all()
    }
}

fn not_regular(name: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        format!(
            "{name} is a symbolic link or not a regular file, and nothing else belongs into a data \
             directory: move it away, or put in its place what it leads to"
        ),
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("onced-dir-{name}-{}", std::process::id()));
        let _there_may_be_none = fs::remove_dir_all(&path);
        path
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_is_made_is_for_its_owner_alone() {
        let path = scratch("made");
        let below = path.join("above/data");
        assert!(Directory::make(&below).unwrap());
        assert_eq!(mode(&below), 0o700);
        let directory = Directory::open(&below).unwrap();
        directory.create_file("a").unwrap();
        assert_eq!(mode(&below.join("a")), 0o600);
        assert_eq!(directory.rights_of_others().unwrap(), None);
        // What was there stays as it is.
        fs::set_permissions(&below, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(!Directory::make(&below).unwrap());
        assert_eq!(directory.rights_of_others().unwrap(), Some(0o755));
        fs::set_permissions(below.join("a"), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(directory.make_private("a").unwrap());
        assert!(!directory.make_private("a").unwrap());
        assert_eq!(mode(&below.join("a")), 0o600);
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn links_and_what_is_no_file_are_refused_by_name() {
        let path = scratch("links");
        Directory::make(&path).unwrap();
        let directory = Directory::open(&path).unwrap();
        let outside = path.with_extension("outside");
        fs::write(&outside, b"letter").unwrap();
        symlink(&outside, path.join("a")).unwrap();
        let pipe = rustix::fs::mknodat(CWD, path.join("b"), FileType::Fifo, Mode::RUSR, 0);
        pipe.unwrap();
        fs::create_dir(path.join("c")).unwrap();
        for name in ["a", "b", "c"] {
            for may_write in [false, true] {
                let refused = directory.open_file(name, may_write).unwrap_err();
                assert!(refused.to_string().starts_with(&format!("{name} is ")));
            }
            let taken = directory.create_file(name).unwrap_err();
            assert_eq!(taken.kind(), io::ErrorKind::AlreadyExists);
            let others = ["a", "b", "c"].map(|other| (other, other != name));
            let listed = directory.names(|name| others.contains(&(name, true)));
            assert!(listed.unwrap_err().to_string().starts_with(name));
        }
        assert_eq!(fs::read(&outside).unwrap(), b"letter");
        fs::remove_file(outside).unwrap();
        fs::remove_dir_all(path).unwrap();
    }
}
