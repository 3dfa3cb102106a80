//! A wall clock that is wrong when a server starts, and set right while it runs.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::process::Scratch;
use common::{TestServer, eventually};
use onced::server::clock::Clock;

/// How far the wall clock of the test below is behind the system's.
static BEHIND_MS: AtomicU64 = AtomicU64::new(0);

fn wall() -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.saturating_sub(Duration::from_millis(BEHIND_MS.load(Ordering::Relaxed)))
}

/// A key that such a run stores for 24 hours is gone an hour early by the clock of the next run, which once
/// answered `NEW` and was sure.
#[test]
fn what_a_run_stored_whose_clock_was_behind_is_doubted_by_the_next() {
    const HOUR_MS: u64 = 3_600_000;
    let scratch = Scratch::new("behind");
    let data = scratch.join("data");
    let start = |behind_ms| {
        BEHIND_MS.store(behind_ms, Ordering::Relaxed);
        let server = TestServer::by(Clock::start_from(wall), |raw| {
            raw.data_dir = Some(data.clone());
        });
        let mut client = server.connect();
        eventually("the log is read", || client.ask("PING") == "PONG");
        (server, client)
    };
    let (server, mut client) = start(HOUR_MS);
    for name in ["reports", "other"] {
        assert_eq!(
            client.ask(&format!("NS SET {name} UNSURE REPORT COVERED")),
            "OK"
        );
        assert_eq!(client.ask(&format!("USE {name}")), "OK");
        assert_eq!(client.ask("SEEN k 24h"), "NEW");
    }
    // All is consistent in the run itself, also once the clock is right.
    BEHIND_MS.store(0, Ordering::Relaxed);
    assert_eq!(client.ask("SEEN l 10m"), "NEW");
    drop((server, client));
    let (server, mut client) = start(0);
    for name in ["reports", "other"] {
        client.ask(&format!("USE {name}"));
        assert_eq!(client.ask("SEEN k 24h"), "DUP");
        assert_eq!(client.ask("SEEN new 30m"), "UNSURE");
    }
    // Also of one that is not there.
    client.ask("NS SET made UNSURE REPORT");
    client.ask("USE made");
    assert_eq!(client.ask("SEEN new 30m"), "UNSURE");
    // What was lost was so before this start, and a window that began since is sure.
    let mut sure = |ttl: &str| client.ask(&format!("SEEN after-{ttl} {ttl}"));
    eventually("a short window has passed since the start", || {
        sure("5ms") == "NEW"
    });
    drop((server, client));
    // A clock that was ahead and was set back since ends windows late, and nothing is doubted for it.
    BEHIND_MS.store(0, Ordering::Relaxed);
    let (server, mut client) = start(0);
    client.ask("NS SET reports COVERED");
    BEHIND_MS.store(HOUR_MS, Ordering::Relaxed);
    drop((server, client));
    let (_server, mut client) = start(0);
    client.ask("USE reports");
    assert_eq!(client.ask("SEEN other 30m"), "NEW");
}
