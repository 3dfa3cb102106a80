//! How a server is told to keep a log, and how hard.

use std::path::Path;

use serde::Serialize;

use crate::server::Kind;

/// When what was appended is synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Fsync {
    /// Before it is acknowledged.
    Always,
    /// Once a second.
    Everysec,
    /// When the system sees fit.
    Never,
}

impl Fsync {
    /// The policy's name, as onced has it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::Everysec => "everysec",
            Self::Never => "never",
        }
    }
}

/// A log to keep.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Log<'a> {
    pub(crate) folder: &'a Path,
    pub(crate) fsync: Fsync,
    /// Whether the peers rewrite it when it has doubled, as they do unless told otherwise, or only
    /// when they are asked to. onced sees to its own in any case.
    pub(crate) rewritten: bool,
}

impl<'a> Log<'a> {
    /// A log in `folder` that stays as it was appended.
    pub(crate) const fn appended(folder: &'a Path, fsync: Fsync) -> Self {
        Self {
            folder,
            fsync,
            rewritten: false,
        }
    }
}

/// The arguments that make a server of `kind` keep `log`, or none.
pub(crate) fn args(kind: Kind, log: Option<Log<'_>>) -> Vec<String> {
    let own = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
    match (kind, log) {
        (Kind::Redis | Kind::Valkey, None) => own(&["--appendonly", "no"]),
        (Kind::Redis | Kind::Valkey, Some(log)) => {
            let word = match log.fsync {
                Fsync::Never => "no",
                other => other.word(),
            };
            let folder = log.folder.to_string_lossy();
            let mut args: Vec<_> = own(&[
                "--appendonly",
                "yes",
                "--appendfsync",
                word,
                "--dir",
                &folder,
            ]);
            if !log.rewritten {
                args.extend(own(&["--auto-aof-rewrite-percentage", "0"]));
            }
            args
        }
        (Kind::Onced, Some(log)) => {
            let folder = log.folder.to_string_lossy();
            own(&["--data-dir", &folder, "--fsync", log.fsync.word()])
        }
        _ => Vec::new(),
    }
}
