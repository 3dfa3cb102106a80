//! Descriptors: how many connections the system's limit on open files leaves room for.
//!
//! Who is connected holds a descriptor, whether or not it asks anything. If idle clients took the last ones,
//! the log could not begin its next segment and every new key would be refused; so what the server itself
//! needs is kept aside, and connections are refused before it is touched.
//!
//! Not here: what else runs in the same process. What it opens after the server's start is not reckoned
//! with.

use std::fs;
use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::limits::{DESCRIPTORS_KEPT, REFUSALS_MAX};

/// Descriptors that a worker's runtime holds: its poll and what wakes it.
const PER_WORKER: u64 = 4;
/// What is taken for open where the system does not tell.
const OPEN_IF_UNKNOWN: u64 = 64;

/// How many connections there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Allowance {
    /// Connections that are served.
    pub(super) connections: usize,
    /// Connections that are told, at a time, that there are too many.
    pub(super) refusals: usize,
}

/// Lets this process open as many files as so many connections need, as far as the system allows it.
pub fn raise_limit(connections: usize, workers: usize) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // `None` is no limit.
    let Some(now) = current else {
        return;
    };
    let beside = open() + DESCRIPTORS_KEPT + REFUSALS_MAX as u64 + PER_WORKER * workers as u64;
    let wanted = (connections as u64 + beside).min(maximum.unwrap_or(u64::MAX));
    if now < wanted {
        let raised = Rlimit {
            current: Some(wanted),
            maximum,
        };
        // What is left is shared out later, however much it is.
        let _it_may_be_refused = setrlimit(Resource::Nofile, raised);
    }
}

/// What this process's limit leaves for connections, beside all that is open now; an error if that is none.
pub(super) fn allowance(wanted: usize) -> io::Result<Allowance> {
    let Some(limit) = getrlimit(Resource::Nofile).current else {
        return Ok(share_out(wanted, u64::MAX));
    };
    let open = open();
    let allowed = share_out(wanted, limit.saturating_sub(open + DESCRIPTORS_KEPT));
    if allowed.connections == 0 {
        let needed = open + DESCRIPTORS_KEPT + 2;
        return Err(io::Error::other(format!(
            "the system allows {limit} open files, and {needed} are needed for one connection: raise \
             the limit (`ulimit -n`, or LimitNOFILE= of systemd)"
        )));
    }
    if allowed.connections < wanted {
        tracing::warn!(
            max_connections = wanted,
            connections = allowed.connections,
            open_files = limit,
            "the system allows too few open files for max-connections: further connections are refused"
        );
    }
    Ok(allowed)
}

/// Shares descriptors out among those who are served and those who are told that they are not.
fn share_out(wanted: usize, left: u64) -> Allowance {
    let left = usize::try_from(left).unwrap_or(usize::MAX);
    let refusals = (left / 8).clamp(1, REFUSALS_MAX);
    Allowance {
        connections: wanted.min(left.saturating_sub(refusals)),
        refusals,
    }
}

/// Descriptors that this process has open, inherited ones among them.
fn open() -> u64 {
    // The one that lists them is among them.
    fs::read_dir("/dev/fd").map_or(OPEN_IF_UNKNOWN, |all| (all.count() as u64).max(1) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_shared_out_and_no_more() {
        for (wanted, left, connections, refusals) in [
            (10, 0, 0, 1),
            (10, 1, 0, 1),
            (10, 2, 1, 1),
            (10, 11, 10, 1),
            (10, 10, 9, 1),
            (10_000, 10_064, 10_000, 64),
            (10_000, 10_063, 9_999, 64),
            (10_000, u64::MAX, 10_000, 64),
        ] {
            let shared = Allowance {
                connections,
                refusals,
            };
            assert_eq!(share_out(wanted, left), shared, "{wanted} of {left}");
        }
    }

    #[test]
    fn what_is_open_is_counted() {
        let before = open();
        let files: Vec<_> = (0..100)
            .map(|_| fs::File::open("/dev/null").unwrap())
            .collect();
        // Other tests open and close theirs meanwhile.
        assert!(open() >= before + 50, "{} open", files.len());
    }
}
