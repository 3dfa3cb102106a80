//! A log's files as they were at one moment, for who reads a directory in which a server writes.
//!
//! A server begins, replaces and deletes segments while it runs. All of them are opened here at once, and
//! again from the beginning where the set changed meanwhile; who has a file open goes on reading it, whatever
//! becomes of its name. Only the newest still changes, at its end.
//!
//! Nothing can be written through this.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use super::segment;
use super::storage::{File, Note, Storage};

/// How often a segment may go before it is opened.
const ATTEMPTS: u32 = 100;
/// How often another may be begun while all are opened. If the set never stands still, what is open is as good
/// as a copy, which takes longer to make.
const WHOLE_ATTEMPTS: u32 = 4;

/// The names in a directory, with its segments open.
#[derive(Debug)]
pub struct Held {
    files: Files,
    /// The highest number that was noted, before any file was opened: the newest has it, or a higher one.
    begun: Option<u64>,
    deleted_until: Option<u64>,
}

/// By name; what is no segment is not open.
type Files = BTreeMap<String, Option<Arc<dyn File>>>;

impl Held {
    /// Opens all segments that are there.
    pub fn of(storage: &dyn Storage) -> io::Result<Self> {
        let mut whole = 0;
        for _ in 0..ATTEMPTS {
            let begun = storage.noted(Note::Begun)?;
            let names = storage.list()?;
            let Some(files) = open_all(storage, &names)? else {
                continue;
            };
            whole += 1;
            if whole == WHOLE_ATTEMPTS || segments(&names) == segments(&storage.list()?) {
                // What went until then is not missed.
                let deleted_until = storage.noted(Note::DeletedUntil)?;
                return Ok(Self {
                    files,
                    begun,
                    deleted_until,
                });
            }
        }
        Err(io::Error::other(
            "segments go faster than they can be opened",
        ))
    }
}

/// The segments among these names.
fn segments(names: &[String]) -> Vec<u64> {
    let mut numbers: Vec<_> = names
        .iter()
        .filter_map(|name| segment::number(name))
        .collect();
    numbers.sort_unstable();
    numbers
}

/// Opens the segments among these names, the oldest first: what a replaced one leaves out is in a later one.
/// `None` if one of them is gone.
fn open_all(storage: &dyn Storage, names: &[String]) -> io::Result<Option<Files>> {
    let mut files: Files = names.iter().map(|name| (name.clone(), None)).collect();
    for number in segments(names) {
        let name = segment::name(number);
        match storage.open(&name) {
            Ok(file) => files.insert(name, Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
    }
    Ok(Some(files))
}

fn read_only<T>() -> io::Result<T> {
    Err(io::ErrorKind::PermissionDenied.into())
}

impl Storage for Held {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.files.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let file = self.files.get(name).and_then(Option::as_ref);
        file.map(Arc::clone)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn create(&self, _: &str) -> io::Result<Arc<dyn File>> {
        read_only()
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        read_only()
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        read_only()
    }

    fn sync_names(&self) -> io::Result<()> {
        read_only()
    }

    fn noted(&self, note: Note) -> io::Result<Option<u64>> {
        Ok(match note {
            Note::Begun => self.begun,
            Note::DeletedUntil => self.deleted_until,
        })
    }

    fn note(&self, _: Note, _: u64) -> io::Result<()> {
        read_only()
    }
}
