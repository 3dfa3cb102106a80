//! Bugs that were, each with its story.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::time::Duration;

use common::{TestServer, eventually, resp_request};
use onced::command::PolicyChange;
use onced::engine::{Engine, EngineConfig};
use onced::limits::{Limits, PATTERN_BYTES_MAX};
use onced::store::{Ask, Verdict};
use onced::time::Millis;
use onced::wire::{Decoded, Decoder};

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

/// Words behind a command are repeated in some errors, as Redis does. Behind `AUTH` they are secrets, and
/// errors end up in logs.
#[test]
fn a_password_is_not_repeated() {
    let server = TestServer::start();
    let mut client = server.connect();
    for request in [
        &["AUTH", "hunter2"][..],
        &["auth", "user", "hunter2"],
        &["AUTH", "user", "hunter2", "hunter2"],
        &["HELLO", "3", "AUTH", "user", "hunter2"],
        &["HELLO", "3", "AUTH", "hunter2"],
    ] {
        let error = client.call(request);
        assert!(
            error.starts_with('-') && !error.contains("hunter2"),
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
    // One that is copied, as larger ones are not.
    const VALUE_BYTES: usize = 4_000;
    const REPLIES: usize = 25_000;
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
    for reply in 0..REPLIES {
        assert_eq!(client.resp().len(), VALUE_BYTES + 1);
        if reply % 50 == 0 {
            most = most.max(watcher.gauge("memory_bytes"));
        }
    }
    // The limit of 8 MiB, in a buffer that doubles as it grows, and half of it sent already.
    assert!(most <= 32 << 20, "{most}");
}

/// A pattern could be as long as a request, and an unclosed set in it was read to its end for
/// every byte of every key, with the shard locked.
#[test]
fn patterns_are_bounded() {
    let server = TestServer::start();
    let mut client = server.connect();
    assert_eq!(client.call(&["SET", "k", "1"]), "+OK");
    let longest = format!("k{}", "*".repeat(PATTERN_BYTES_MAX - 1));
    assert_eq!(client.call(&["KEYS", &longest]), "[$k]");
    let longer = format!("{longest}*");
    for request in [
        &["KEYS", &longer][..],
        &["SCAN", "0", "MATCH", &longer],
        &["CONFIG", "GET", &longer],
    ] {
        assert!(client.call(request).starts_with("-ERR TOOBIG the pattern"));
    }
}

/// A read's requests were all executed before the worker looked after anybody else, so a few
/// kilobytes of KEYS kept it for tens of seconds, and a drain had to wait for them.
#[test]
fn a_connection_has_its_turn_and_no_more() {
    const REQUESTS: usize = 500;
    let server = TestServer::with(|settings| settings.workers = Some(1));
    let mut client = server.connect();
    for batch in 0..20 {
        let keys: Vec<_> = (0..5_000).map(|n| format!("k{batch}-{n}")).collect();
        assert!(
            client
                .ask(&format!("MSEEN 1h {}", keys.join(" ")))
                .starts_with('N')
        );
    }
    let mut busy = server.connect();
    busy.send(resp_request(&["KEYS", "x"]).repeat(REQUESTS));
    eventually("it has begun", || client.gauge("verb_keys_calls") > 0);
    let done = client.gauge("verb_keys_calls");
    assert!(
        done < REQUESTS as u64,
        "others were answered only after all of them"
    );
    for _ in 0..REQUESTS {
        assert_eq!(busy.resp(), "[]");
    }
}

/// The time of a stall was forgotten only if nothing was left to execute, so a client that read
/// without pause, but slower than it was answered, was closed as one that did not read.
#[test]
fn a_client_that_reads_steadily_is_not_closed() {
    const VALUE_BYTES: usize = 100_000;
    const REPLIES: usize = 150;
    let server = TestServer::with(|settings| {
        settings.max_unread = Some("256KiB".to_owned());
        settings.unread_timeout = Some("300ms".to_owned());
    });
    let mut client = server.connect();
    assert_eq!(
        client.call(&["SET", "big", &"v".repeat(VALUE_BYTES)]),
        "+OK"
    );
    client.send(resp_request(&["GET", "big"]).repeat(REPLIES));
    for _ in 0..REPLIES {
        std::thread::sleep(Duration::from_millis(8));
        assert_eq!(client.resp().len(), VALUE_BYTES + 1);
    }
    assert_eq!(server.connect().gauge("connections_timed_out"), 0);
}

/// When memory was full, a read that ended within a request had to find room for the whole next
/// read, so a client that pipelined was closed although each of its requests was small.
#[test]
fn full_memory_closes_nobody_whose_requests_are_small() {
    const REQUESTS: usize = 20_000;
    let server = TestServer::with(|settings| settings.max_memory = Some("1MiB".to_owned()));
    let mut client = server.connect();
    let mut n = 0;
    while client.ask(&format!("SEEN {n}-{} 1h", "p".repeat(200))) == "NEW" {
        n += 1;
    }
    let known = format!("SEEN 0-{} 1h\n", "p".repeat(200));
    let mut sending = client.stream.try_clone().unwrap();
    let writer = std::thread::spawn(move || {
        std::io::Write::write_all(&mut sending, known.repeat(REQUESTS).as_bytes()).unwrap();
    });
    for _ in 0..REQUESTS {
        assert_eq!(client.line(), "DUP");
    }
    writer.join().unwrap();
}

/// One SCAN could gather a hundred thousand keys of 8 KiB, twice.
#[test]
fn a_scan_answers_with_little_at_a_time() {
    let server = TestServer::start();
    let mut client = server.connect();
    for n in 0..200 {
        assert_eq!(client.call(&["SET", &format!("{n:0>8000}"), "1"]), "+OK");
    }
    let (mut cursor, mut found, mut calls) = ("0".to_owned(), 0, 0);
    loop {
        let reply = client.call(&["SCAN", &cursor, "COUNT", "100000"]);
        assert!(reply.len() < 2 << 20, "{}", reply.len());
        found += reply.matches('$').count() - 1;
        calls += 1;
        cursor = reply
            .trim_start_matches("[$")
            .split(',')
            .next()
            .unwrap()
            .to_owned();
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(found, 200);
    assert!(calls > 2);
}

/// The words of a request were kept until the next one came, which may be never, and were
/// counted nowhere: a thousand idle connections could hold gigabytes.
#[test]
fn the_words_of_a_request_go_with_it() {
    let limits = Limits::DEFAULT;
    let line = [&b"PEEK"[..], &b" a".repeat(500_000), b"\n"].concat();
    let array = [&b"*100000\r\n"[..], &b"$1\r\na\r\n".repeat(100_000)].concat();
    for request in [line, array] {
        let mut decoder = Decoder::default();
        assert!(matches!(
            decoder.next(&request, &limits),
            Decoded::Request { .. }
        ));
        assert!(decoder.held_bytes() > 500_000);
        decoder.rest();
        assert_eq!(decoder.held_bytes(), 0);
    }
}

/// Keys that had lapsed counted against MAXKEYS until somebody swept, if they lay in another shard.
#[test]
fn what_has_lapsed_makes_room_in_every_shard() {
    let small = PolicyChange {
        keys_max: Some(100),
        ..PolicyChange::default()
    };
    let engine = Engine::new(EngineConfig {
        namespaces: vec![("small".to_owned(), small)],
        ..EngineConfig::default()
    });
    let small = engine.open("small").unwrap();
    let ask = Ask {
        ttl_ms: 30,
        ..Ask::default()
    };
    for round in 0..20_u64 {
        let now = Millis(1_790_000_000_000 + round * 100);
        for n in 0..100_u64 {
            let key = [round.to_le_bytes(), n.to_le_bytes()].concat();
            assert_eq!(
                engine.seen(&small, &key, &ask, now),
                Verdict::New,
                "{round} {n}"
            );
        }
        assert_eq!(engine.seen(&small, b"one more", &ask, now), Verdict::Full);
    }
}

/// Whenever little was unread, the time of a stall was forgotten, also of a connection that was
/// only waiting for its last replies to be taken: after `QUIT`, one that never reads stayed for ever.
#[test]
fn a_closing_connection_that_never_reads_is_closed() {
    const REPLIES: usize = 50;
    let server = TestServer::with(|settings| settings.unread_timeout = Some("200ms".to_owned()));
    let mut watcher = server.connect();
    let mut deaf = server.connect();
    assert_eq!(deaf.call(&["SET", "big", &"v".repeat(200_000)]), "+OK");
    deaf.send(resp_request(&["GET", "big"]).repeat(REPLIES));
    deaf.send(resp_request(&["QUIT"]));
    eventually("all is executed", || {
        watcher.gauge("verb_get_calls") == REPLIES as u64
    });
    eventually("it is closed", || watcher.gauge("connections") == 1);
}

/// Replies are not held back any more once the log has failed, since nothing would ever set them free. So
/// `SYNC` was answered `OK`, whatever had been lost.
#[test]
fn sync_is_no_promise_of_a_log_that_failed() {
    let directory = std::env::temp_dir().join(format!("onced-sync-{}", std::process::id()));
    let server = TestServer::with(|settings| {
        settings.data_dir = Some(directory.clone());
        settings.log_segment = Some("64KiB".to_owned());
    });
    eventually("the log is read", || server.connect().ask("PING") == "PONG");
    let mut client = server.connect();
    assert_eq!(client.ask("SEEN known 24h"), "NEW");
    assert_eq!(client.ask("SYNC"), "OK");
    // No other segment can be made from here on.
    std::fs::remove_dir_all(&directory).unwrap();
    let mut number = 0;
    eventually("the log fails", || {
        number += 1;
        let keys: Vec<_> = (0..1_000).map(|key| format!("{number}-{key}")).collect();
        client.ask(&format!("MSEEN 24h {}", keys.join(" ")));
        let another = client.ask(&format!("SEEN another-{number} 1h"));
        another.starts_with("ERR READONLY")
    });
    assert!(client.ask("SYNC").starts_with("ERR READONLY"));
    assert_eq!(client.ask("SEEN known 1h"), "DUP");
}

#[test]
fn a_dropped_namespace_is_given_back_though_connections_idle_in_it() {
    // It lived on for as long as anybody's last request had been in it, uncounted: 689 MiB with
    // `memory_bytes 0`.
    const NAMESPACES: u64 = 50;
    let server = TestServer::start();
    let mut other = server.connect();
    let before = other.gauge("memory_bytes");
    let mut idle: Vec<_> = (0..NAMESPACES).map(|_| server.connect()).collect();
    for (n, client) in idle.iter_mut().enumerate() {
        assert_eq!(client.ask(&format!("USE idle-{n}")), "OK");
    }
    let empty = other.gauge("memory_bytes") - before;
    assert!(empty > NAMESPACES << 10, "{empty} bytes for {NAMESPACES}");
    for client in &mut idle {
        assert_eq!(client.ask("SEEN k 1h"), "NEW");
    }
    for n in 0..NAMESPACES {
        assert_eq!(other.ask(&format!("NS DROP idle-{n}")), "OK");
    }
    eventually("all is given back", || {
        other.gauge("memory_bytes") <= before + 1_000
    });
    for client in &mut idle {
        assert_eq!(client.ask("SEEN k 1h"), "NEW");
        assert_eq!(client.ask("SEEN k 1h"), "DUP");
    }
    assert_eq!(other.gauge("namespaces"), NAMESPACES + 1);
}
