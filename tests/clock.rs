//! A wall clock that is wrong when a server starts, and set right while it runs.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::process::{Process, Scratch, segments};
use common::scenario::unix_ms;
use common::{Client, TestServer, eventually};
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

/// How far the wall clock of the tests below is from the system's.
static SHIFT_MS: AtomicI64 = AtomicI64::new(0);
/// They share it.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn shifted_wall() -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let ms = now.as_millis() as u64;
    Duration::from_millis(ms.saturating_add_signed(SHIFT_MS.load(Ordering::Relaxed)))
}

const HOUR_MS: i64 = 3_600_000;

/// Such a server took `EXAT` of the present for long past, so that every asker was the first, or `AT` for too far
/// ahead, until it was started again.
#[test]
fn moments_are_those_of_the_present_wall_clock_whatever_it_said_at_the_start() {
    let _guard = ONE_AT_A_TIME.lock();
    for wrong_ms in [HOUR_MS, -HOUR_MS] {
        SHIFT_MS.store(wrong_ms, Ordering::Relaxed);
        let server = TestServer::by(Clock::start_from(shifted_wall), |_| {});
        let mut client = server.connect();
        assert_eq!(client.ask("SEEN before 1h"), "NEW");
        SHIFT_MS.store(0, Ordering::Relaxed);
        let mut redis = server.connect();
        let at_s = (unix_ms() / 1_000 + 60).to_string();
        let set = ["SET", "k", "1", "NX", "EXAT", &at_s];
        assert_eq!(redis.call(&set), "+OK", "{wrong_ms}");
        assert_eq!(redis.call(&set), "nil", "{wrong_ms}");
        // As it was named, and as long as it lasts.
        assert_eq!(redis.call(&["EXPIRETIME", "k"]), format!(":{at_s}"));
        let later = unix_ms() + 50_000;
        let pxat = later.to_string();
        assert_eq!(redis.call(&["PEXPIREAT", "k", &pxat]), ":1");
        assert_eq!(redis.call(&["PEXPIRETIME", "k"]), format!(":{pxat}"));
        let left = redis.call(&["PTTL", "k"]);
        let left: u64 = left[1..].parse().unwrap();
        // The difference of the clocks is known to the millisecond, and each of them is rounded down.
        assert!((10_000..=50_002).contains(&left), "{left}");
        assert_eq!(redis.call(&["GETEX", "k", "PXAT", "1"]), "$1");
        assert_eq!(redis.call(&["EXISTS", "k"]), ":0", "that was long ago");

        let event = client.ask(&format!("SEEN event 1h AT {}", unix_ms()));
        assert_eq!(event, "NEW", "{wrong_ms}");
        let left: u64 = client.ask("TTL event").parse().unwrap();
        assert!(left > 3_590_000 && left <= 3_600_020, "{left}");
        let far = client.ask(&format!("SEEN far 1h AT {}", unix_ms() + 400_000));
        assert!(far.starts_with("ERR RANGE"), "{far}");

        // What counts from now is not touched, and what is told is of the wall clock.
        assert_eq!(client.ask("SEEN before 1h"), "DUP");
        let time: u64 = client.ask("TIME").parse().unwrap();
        assert!(time.abs_diff(unix_ms()) < 10_000, "{time}");
        let ahead: i64 = client.stat("clock_ahead_ms").unwrap().parse().unwrap();
        assert!(ahead.abs_diff(wrong_ms) < 10_000, "{ahead}");
    }
}

/// A server by the shifted clock, and a client of it.
fn start(data: &Path) -> (TestServer, Client) {
    let server = TestServer::by(Clock::start_from(shifted_wall), |raw| {
        raw.data_dir = Some(data.to_owned());
        raw.log_segment = Some("64KiB".to_owned());
    });
    let mut client = server.connect();
    eventually("the log is read", || client.ask("PING") == "PONG");
    (server, client)
}

const PADDING: [u8; 500] = [b'p'; 500];

/// A run that ends when segments of its log were deleted, so that the log knows of a later time than its own.
fn run_until_segments_are_deleted(data: &Path) {
    let (_server, mut client) = start(data);
    assert_eq!(client.ask("SEEN stays 1h"), "NEW");
    let padding = str::from_utf8(&PADDING).unwrap();
    for batch in 0..10 {
        let keys = (0..100).map(|key| format!(" {padding}/{batch}/{key}"));
        let keys: String = keys.collect();
        assert_eq!(client.ask(&format!("MSEEN 300ms{keys}")), "N".repeat(100));
    }
    eventually("segments are deleted", || segments(data).len() <= 3);
}

/// It said that a segment is missing, and ended: the last run, whose clock was ahead, had deleted it.
#[test]
fn a_start_whose_clock_is_behind_goes_on_from_where_the_last_run_was() {
    let _guard = ONE_AT_A_TIME.lock();
    SHIFT_MS.store(0, Ordering::Relaxed);
    let scratch = Scratch::new("deleted");
    let data = scratch.join("data");
    run_until_segments_are_deleted(&data);
    SHIFT_MS.store(-5_000, Ordering::Relaxed);
    let (server, mut client) = start(&data);
    assert_eq!(client.ask("SEEN stays 1h"), "DUP");
    let padding = str::from_utf8(&PADDING).unwrap();
    assert_eq!(client.ask(&format!("SEEN {padding}/0/0 1h")), "NEW");
    drop((server, client));
    SHIFT_MS.store(0, Ordering::Relaxed);
}

/// It said twice what is so once: that the log is of a later time, and that somebody had set the clock.
#[test]
fn a_clock_that_is_behind_at_the_start_was_not_set() {
    let _guard = ONE_AT_A_TIME.lock();
    let scratch = Scratch::new("behind-at-the-start");
    let data = scratch.join("data");
    SHIFT_MS.store(HOUR_MS, Ordering::Relaxed);
    run_until_segments_are_deleted(&data);
    SHIFT_MS.store(0, Ordering::Relaxed);
    let server = Process::start(&data, &["--log-segment", "64KiB"]);
    let told: u64 = server.connect().ask("TIME").parse().unwrap();
    assert!(told.abs_diff(unix_ms()) < 10_000, "{told}");
    let said = server.stop();
    assert!(said.contains("clock is behind the last run's"), "{said}");
    assert!(!said.contains("clock was set"), "{said}");
}
