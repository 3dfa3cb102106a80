//! Folders that servers keep their logs in, removed when they are done with.
//!
//! A folder goes when its owner does, after an error or a panic too. What an interrupted run has
//! left behind, the next one removes: the name of a folder tells whose it is.

use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Context;

/// What the names begin with; the process id and a number follow.
const PREFIX: &str = "onced-compare-";

/// A folder, removed when dropped. Its owner stops what writes into it first.
#[derive(Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// Makes an empty one in `parent`.
    pub(crate) fn make(parent: &Path) -> anyhow::Result<Self> {
        static MADE: AtomicU64 = AtomicU64::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("{PREFIX}{}-{number}", std::process::id()));
        let mut builder = DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(&path);
        made.with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The lengths of all files in it, as `du --apparent-size` adds them up without the folders.
    pub(crate) fn bytes(&self) -> anyhow::Result<u64> {
        bytes_in(&self.0).with_context(|| format!("cannot look into {}", self.0.display()))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A server that was killed may leave a child that writes for a moment longer.
        for _ in 0..50 {
            match fs::remove_dir_all(&self.0) {
                Ok(()) => return,
                Err(error) if error.kind() == ErrorKind::NotFound => return,
                Err(_) => thread::sleep(Duration::from_millis(100)),
            }
        }
        eprintln!("compare: cannot remove {}", self.0.display());
    }
}

/// A file may go between its name being read and its length.
fn bytes_in(folder: &Path) -> io::Result<u64> {
    let there = |outcome: io::Result<u64>| match outcome {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
        outcome => outcome,
    };
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        bytes += there(entry.metadata().and_then(|metadata| {
            if metadata.is_dir() {
                bytes_in(&entry.path())
            } else {
                Ok(metadata.len())
            }
        }))?;
    }
    Ok(bytes)
}

/// Removes the folders in `parent` whose process is no more.
pub(crate) fn remove_leftovers(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else {
        return; // nothing was ever made there
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            drop(Folder(entry.path()));
        }
    }
}
