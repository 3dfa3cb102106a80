//! Idempotency records through a server that is short of memory, and waiters that are hard to see.
//!
//! What is waited for when all is well is in `records.rs`.

#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a test fails by panicking"
)]

mod common;

use std::io::Write;
use std::time::{Duration, Instant};

use common::{TestServer, eventually, fill, resp_request, token};

/// What was begun is ended though memory is full, however slowly its body comes; nothing else is.
#[test]
fn bodies_in_pieces_are_taken_of_the_reserve() {
    let server = TestServer::with(|raw| raw.max_memory = Some("64MiB".to_owned()));
    let mut holder = server.connect();
    let tokens = ["a", "b", "c"].map(|key| token(&holder.ask(&format!("BEGIN {key} LEASE 10m"))));
    fill(&server);
    let in_pieces = |head: &[u8], bytes: usize| {
        let mut client = server.connect();
        client.send(head);
        let body = "x".repeat(bytes) + "\r\n";
        for piece in body.as_bytes().chunks(8_000) {
            if !client.try_send(piece) {
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        client.try_line()
    };
    for (key, token, bytes) in [("a", tokens[0], 10_000), ("b", tokens[1], 200_000)] {
        let head = format!("COMPLETE {key} {token} LEN {bytes}\n");
        assert_eq!(
            in_pieces(head.as_bytes(), bytes).as_deref(),
            Some("OK"),
            "{bytes}"
        );
    }
    let head = format!(
        "*5\r\n$9\r\nONCE.FAIL\r\n$1\r\nc\r\n${}\r\n{}\r\n$5\r\nFINAL\r\n",
        tokens[2].to_string().len(),
        tokens[2]
    );
    let head = head.replace("*5", "*6") + "$4\r\nBODY\r\n$200000\r\n";
    assert_eq!(in_pieces(head.as_bytes(), 200_000).as_deref(), Some("+OK"));
    // It is read, since each worker has room for one, and then there is none for what is new.
    let refused = in_pieces(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$200000\r\n", 200_000);
    assert!(refused.is_some_and(|told| told.starts_with("-OOM ")));
    assert_eq!(holder.ask("PEEK a b c"), "CCF");
}

/// A client that is gone behind more than is read ahead is not told to run.
#[test]
fn who_cannot_be_seen_to_be_there_is_not_told_to_run() {
    let server = TestServer::start();
    let mut holder = server.connect();
    let held = token(&holder.ask("BEGIN k"));
    let mut gone = server.connect();
    gone.send("BEGIN k WAIT 20s\n");
    eventually("the reply is held", || server.gauge("waiters") == 1);
    let much = "SEEN some-key 1h\n".repeat((2 << 20) / 17);
    gone.stream.set_nonblocking(true).unwrap();
    let (mut sent, until) = (0, Instant::now() + Duration::from_secs(1));
    while sent < much.len() && Instant::now() < until {
        match gone.stream.write(&much.as_bytes()[sent..]) {
            Ok(bytes) => sent += bytes,
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
    drop(gone);
    eventually("its place is free", || server.gauge("waiters") == 0);
    assert_eq!(holder.ask(&format!("FAIL k {held} RETRY")), "OK");
    assert_eq!(holder.ask("PEEK k"), "R");
}

#[test]
fn a_reply_that_nobody_wants_is_not_sent_when_waiting_ends_early() {
    let server = TestServer::start();
    let mut holder = server.connect();
    token(&holder.ask("BEGIN k"));
    for wait in ["10s", "0s"] {
        let mut client = server.connect();
        client.send(resp_request(&["CLIENT", "REPLY", "SKIP"]));
        client.send(resp_request(&["BEGIN", "k", "WAIT", wait]));
        client.send(resp_request(&["ECHO", "one"]));
        client.send(resp_request(&["ECHO", "two"]));
        if wait != "0s" {
            eventually("the reply is held", || server.gauge("waiters") == 1);
        }
        client.half_close();
        let told = client.rest();
        assert_eq!(told, "$3\r\none\r\n$3\r\ntwo\r\n", "{wait}");
    }
}

/// Waiting takes memory, which is counted, and given back.
#[test]
fn the_keys_of_waiters_are_counted() {
    const WAITERS: u64 = 50;
    let server = TestServer::start();
    let mut holder = server.connect();
    let key = |number: u64| format!("{number:04}{}", "x".repeat(8_000));
    for number in 0..WAITERS {
        token(&holder.ask(&format!("BEGIN {}", key(number))));
    }
    let before = server.gauge("memory_bytes");
    let mut waiting = Vec::new();
    for number in 0..WAITERS {
        let mut client = server.connect();
        client.send(format!("BEGIN {} WAIT 20s\n", key(number)));
        waiting.push(client);
    }
    eventually("they wait", || server.gauge("waiters") == WAITERS);
    // A key each in the buffer of its connection, and in its line.
    let more = server.gauge("memory_bytes") - before;
    assert!(more >= 2 * 8_000 * WAITERS, "{more}");
    drop(waiting);
    eventually("they are gone", || server.gauge("waiters") == 0);
    eventually("so is what they took", || {
        server.gauge("memory_bytes") <= before + (64 << 10)
    });
}
