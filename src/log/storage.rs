//! What the log asks of a disk: a directory of files, and nothing that a test could not play.
//!
//! Real files are in `disk`; the tests run the same log over a disk that tears, drops, reorders and
//! fails. Names are plain file names within the one directory; nothing here has paths.

use std::fmt::Debug;
use std::io;
use std::sync::Arc;

use rustix::io::Errno;

/// A directory that holds a log.
pub trait Storage: Send + Sync + Debug {
    /// The names of all that is in it, in any order.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Opens a file that is there, to read and write it.
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>>;

    /// Makes an empty file; an error of kind `AlreadyExists` if the name is taken.
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>>;

    /// Gives a file another name; a file that has it already is replaced, in one step.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Takes a file's name away; who has it open may go on reading it.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Returns once all names made, changed and removed so far are durable.
    fn sync_names(&self) -> io::Result<()>;

    /// The highest number that was [noted](Storage::note); `None` if there was none.
    fn noted(&self, note: Note) -> io::Result<Option<u64>>;

    /// Notes a number, apart from all files. Durable when this returns, and a lower number stays if it does not
    /// come so far.
    fn note(&self, note: Note, number: u64) -> io::Result<()>;
}

/// What is noted apart from all files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Note {
    /// The number of the newest segment that was begun, so that it is missed when its file is gone.
    Begun,
    /// The moment, in Unix milliseconds by the server's clock, at which segments were last deleted: what had its
    /// last deadline before is not missed, whatever a later clock says.
    DeletedUntil,
}

/// An open file. Offsets and lengths are in bytes.
pub trait File: Send + Sync + Debug {
    /// Reads some of what is at `offset`; 0 at the end of the file. May read less than asked, or be
    /// interrupted.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes some of `bytes` at `offset`. May write less than asked, or be interrupted.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// Makes the file `len` bytes long, zeros where nothing was written, and sets space for all of them
    /// aside: writing there does not fail for lack of it. With `zeroed`, zeros are written too, and
    /// durable, which makes every later sync of what is written over them cheaper.
    fn reserve(&self, len: u64, zeroed: bool) -> io::Result<()>;

    /// Cuts the file off.
    fn truncate(&self, len: u64) -> io::Result<()>;

    /// Returns once all bytes written so far, and the file's length, are durable.
    fn sync(&self) -> io::Result<()>;

    /// Its length.
    fn size(&self) -> io::Result<u64>;
}

/// Whether a failure says nothing of the disk and may pass by itself: there was no space, or too little
/// of what the machine's processes share.
pub fn may_pass(error: &io::Error) -> bool {
    is_lack_of_space(error)
        || matches!(
            Errno::from_io_error(error),
            Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::AGAIN | Errno::INTR)
        )
}

/// Whether there was no space.
pub fn is_lack_of_space(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

/// Writes all of `bytes`, in as many calls as that takes.
pub fn write_all_at(file: &dyn File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write_at(bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                bytes = &bytes[written..];
                offset += written as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads until `into` is full or the file ends; returns how many bytes that were.
pub fn read_full_at(file: &dyn File, into: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < into.len() {
        match file.read_at(&mut into[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Returns once all that was written is durable, however often that is interrupted.
pub fn sync_whole(file: &dyn File) -> io::Result<()> {
    loop {
        match file.sync() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}
