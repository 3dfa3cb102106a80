//! The process stays small, whatever is announced to it.
//!
//! Alone in its file, since it measures the memory of the whole process.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use common::process::{self, allow_open_files};
use common::{TestServer, eventually};

/// Resident memory of this process, which the server is part of.
fn resident_bytes() -> usize {
    process::resident_bytes(std::process::id()).unwrap()
}

#[test]
fn announced_bytes_take_no_memory() {
    const CONNECTIONS: usize = 1_000;
    /// For each connection: both ends' state, its task, its counters; a thousandth of what it announces.
    const GROWTH_BYTES_MAX: usize = CONNECTIONS * (16 << 10);
    allow_open_files(CONNECTIONS as u64 * 2 + 100);
    let server = TestServer::start();
    let mut other = server.connect();
    assert_eq!(other.ask("PING"), "PONG");
    for announcement in [
        "FOO LEN 16777216\n",
        "*2\r\n$4\r\nECHO\r\n$16777216\r\n",
        "*2\r\n$4\r\nECHO\r\n$1000000\r\n",
        "*1048576\r\n",
    ] {
        let (resident, memory) = (resident_bytes(), other.gauge("memory_bytes"));
        let streams: Vec<_> = (0..CONNECTIONS)
            .map(|_| {
                let mut stream = TcpStream::connect(&server.address).unwrap();
                stream.write_all(announcement.as_bytes()).unwrap();
                stream
            })
            .collect();
        let received = (CONNECTIONS * announcement.len()) as u64;
        eventually("all have arrived", || {
            other.gauge("connections") == CONNECTIONS as u64 + 1
                && other.gauge("bytes_in") >= received
        });
        let growth = resident_bytes().saturating_sub(resident);
        assert!(
            growth < GROWTH_BYTES_MAX,
            "{growth} bytes for {announcement:?}"
        );
        let counted = other.gauge("memory_bytes").saturating_sub(memory);
        assert!(
            counted < CONNECTIONS as u64 * 256,
            "{counted} bytes are counted"
        );
        let began = Instant::now();
        assert_eq!(other.ask("PING"), "PONG");
        assert!(began.elapsed() < Duration::from_secs(2));
        drop(streams);
        eventually("all are gone", || other.gauge("connections") == 1);
    }
}
