//! Bugs that were, each with its story.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{TestServer, eventually, resp_request};

/// Eviction looked only at the shard of the new key, so a namespace of a few keys, most of whose
/// shards are empty, refused new ones although it was told to evict.
#[test]
fn a_small_namespace_evicts_from_whichever_shard_has_keys() {
    let server = TestServer::start();
    let mut client = server.connect();
    assert_eq!(client.ask("NS SET small MAXKEYS 2 FULL EVICT"), "OK");
    assert_eq!(client.ask("USE small"), "OK");
    assert_eq!(client.ask("MSEEN 60s a b c d e f g h"), "NNNNNNNN");
    let info = client.ask_all("NS INFO small");
    for row in ["keys 2", "evicted 6", "refused 0"] {
        assert!(info.iter().any(|found| found == row), "{row}: {info:?}");
    }
}

/// Words behind an unknown command are repeated in the error, as Redis does. Behind `AUTH` they
/// are secrets, and errors end up in logs.
#[test]
fn a_password_is_not_repeated() {
    let server = TestServer::start();
    let mut client = server.connect();
    for request in [
        &["AUTH", "hunter2"][..],
        &["auth", "user", "hunter2"],
        &["HELLO", "3", "AUTH", "user", "hunter2"],
    ] {
        let error = client.call(request);
        assert!(
            error.starts_with("-ERR AUTH") && !error.contains("hunter2"),
            "{error}"
        );
    }
}

/// A refused body is consumed as it comes, so the buffer of a connection that never sends it is
/// empty, and it was taken for an idle one.
#[test]
fn a_body_that_never_comes_times_out() {
    let server = TestServer::with(|settings| settings.request_timeout = Some("100ms".to_owned()));
    let mut idle = server.connect();
    assert_eq!(idle.ask("PING"), "PONG");
    let mut client = server.connect();
    client.send("NOSUCH LEN 16000000\n");
    assert!(client.line().starts_with("ERR UNKNOWN"));
    assert!(client.rest().contains("not finished"));
    assert_eq!(idle.ask("PING"), "PONG");
}

/// One request of a mebibyte could ask for the documentation of one command a hundred thousand times.
#[test]
fn the_commands_are_listed_once_per_request() {
    let server = TestServer::start();
    let mut client = server.connect();
    let many: Vec<_> = ["COMMAND", "DOCS"]
        .into_iter()
        .chain(std::iter::repeat_n("get", 100_000))
        .collect();
    assert!(client.call(&many).starts_with("-ERR TOOBIG"));
    assert!(client.call(&["COMMAND", "DOCS", "get"]).contains("value"));
}

/// `TTL` is one verb on a line and another in RESP; both were reported, under one name.
#[test]
fn a_name_is_reported_once() {
    let server = TestServer::start();
    assert_eq!(server.connect().ask("TTL a"), "NIL");
    let mut client = server.connect();
    assert_eq!(client.call(&["TTL", "a"]), ":-2");
    let rows = server.connect().ask_all("STATS");
    let calls: Vec<_> = rows
        .iter()
        .filter(|row| row.starts_with("verb_ttl_calls"))
        .collect();
    assert_eq!(calls, ["verb_ttl_calls 2"]);
}

/// Lowering only the longest life of a namespace was refused because of a default nobody had named.
#[test]
fn a_default_ttl_gives_way_to_a_shorter_maximum() {
    let server = TestServer::start();
    let mut client = server.connect();
    assert_eq!(client.ask("NS SET short MAXTTL 10m"), "OK");
    assert!(
        client
            .ask_all("NS INFO short")
            .contains(&"ttl 10m".to_owned())
    );
    assert!(client.ask("NS SET short TTL 11m").starts_with("ERR RANGE"));
}

/// A connection that had used a namespace made it again, after it was dropped, by any command
/// at all: `NS LIST` showed what `NS DROP` had just removed.
#[test]
fn a_dropped_namespace_comes_back_only_when_it_is_used() {
    let server = TestServer::start();
    let mut client = server.connect();
    for (request, reply) in [
        ("USE gone", "OK"),
        ("SEEN k 60s", "NEW"),
        ("NS DROP gone", "OK"),
        ("TIME", ""),
        ("NS SET other", "OK"),
        ("SEEN k 60s NS other", "NEW"),
        ("TTL k NS other", ""),
        ("NS LIST", "ROWS 2\ndefault keys=0\nother keys=1"),
        ("SEEN k 60s", "NEW"),
        (
            "NS LIST",
            "ROWS 3\ndefault keys=0\ngone keys=1\nother keys=1",
        ),
    ] {
        let answer = client.ask_all(request).join("\n");
        assert!(reply.is_empty() || answer == reply, "{request}: {answer}");
    }
}

/// Replies were dropped from the write buffer only when all of them were sent, so for a client
/// that never quite caught up it grew by everything that was ever sent.
#[test]
fn a_client_that_never_catches_up_does_not_make_the_buffer_grow() {
    const VALUE_BYTES: usize = 200_000;
    const REPLIES: usize = 500;
    let server = TestServer::start();
    let mut client = server.connect();
    assert_eq!(
        client.call(&["SET", "big", &"v".repeat(VALUE_BYTES)]),
        "+OK"
    );
    client.send(resp_request(&["GET", "big"]).repeat(REPLIES));
    let mut watcher = server.connect();
    eventually("replies pile up", || {
        watcher.gauge("memory_bytes") > 8 << 20
    });
    let mut most = 0;
    for _ in 0..REPLIES {
        assert_eq!(client.resp().len(), VALUE_BYTES + 1);
        most = most.max(watcher.gauge("memory_bytes"));
    }
    // The limit of 8 MiB, in a buffer that doubles as it grows, and half of it sent already.
    assert!(most <= 32 << 20, "{most}");
}
