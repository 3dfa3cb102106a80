//! Both sides of every limit that a client can meet.
//!
//! Where a default is too large to be reached in a test, a small setting stands for it.

#![allow(
    clippy::format_collect,
    reason = "requests are built for reading, not for speed"
)]

mod common;

use std::io::Write;
use std::time::{Duration, Instant};

use common::scenario::{play_lines, play_resp, unix_ms};
use common::{Client, TestServer, eventually, resp_request};
use onced::limits::{
    AT_AHEAD_MAX_MS, CLIENT_NAME_BYTES_MAX, CONFIG_PATTERNS_MAX, DISCARD_BYTES_MAX, DRAIN_MS,
    FINGERPRINT_DIGITS_MAX, INFO_SECTIONS_MAX, NAMESPACE_NAME_BYTES_MAX, REFUSALS_MAX,
    RESP_ELEMENTS_MAX, SELECT_MAX, TOGETHER_KEYS_MAX, TRANSACTION_BYTES_MAX,
};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// What memory may be over its bound: one insertion of each worker, generously.
const INSERTION_BYTES: u64 = 16 << 10;

#[test]
fn a_key_has_so_many_bytes() {
    let server = TestServer::with(|raw| raw.max_key = Some("32".to_owned()));
    play_lines(
        &server,
        &[
            ("SEEN {k*32} 60s", "NEW"),
            (
                "SEEN {k*33} 60s",
                "ERR TOOBIG the key has 33 bytes; the longest is 32",
            ),
            (
                "MSEEN 60s a {k*33}",
                "ERR TOOBIG the key has 33 bytes; the longest is 32",
            ),
            ("PEEK a {k*32}", "ND"),
            (
                "TOUCH {k*33} 60s",
                "ERR TOOBIG the key has 33 bytes; the longest is 32",
            ),
            (
                "TTL {k*33}",
                "ERR TOOBIG the key has 33 bytes; the longest is 32",
            ),
            // Escapes are counted as the bytes they stand for.
            (r#"SEEN "\x00{k*31}" 60s"#, "NEW"),
        ],
    );
    play_resp(
        &server,
        &[
            ("SET {k*32} v", "+OK"),
            (
                "SET {k*33} v",
                "-ERR TOOBIG the key has 33 bytes; the longest is 32",
            ),
            (
                "MGET a {k*33}",
                "-ERR TOOBIG the key has 33 bytes; the longest is 32",
            ),
            (
                "BF.ADD f {k*33}",
                "-ERR TOOBIG the key has 33 bytes; the longest is 32",
            ),
            (
                "SADD f a {k*33}",
                "-ERR TOOBIG the key has 33 bytes; the longest is 32",
            ),
            (
                "MSETNX a 1 {k*33} 2",
                "-ERR TOOBIG the key has 33 bytes; the longest is 32",
            ),
        ],
    );
}

#[test]
fn a_request_has_so_many_bytes() {
    let server = TestServer::with(|raw| {
        raw.max_request = Some("1KiB".to_owned());
        raw.max_key = Some("1KiB".to_owned());
        raw.max_value = Some("1KiB".to_owned());
    });
    let line = |bytes: usize| format!("PING {}", "x".repeat(bytes - "PING ".len()));
    let mut client = server.connect();
    assert_eq!(client.ask(&line(KIB)).len(), KIB - "PING ".len());
    assert_eq!(client.ask(&(line(KIB) + "\r")).len(), KIB - "PING ".len());
    assert_eq!(
        client.ask(&line(KIB + 1)),
        "ERR TOOBIG the line is over 1024 bytes"
    );
    assert!(
        client.is_closed(),
        "what follows such a line cannot be trusted"
    );
    // Refused as soon as it is over, without its end.
    let mut client = server.connect();
    client.send(line(KIB + 1));
    assert_eq!(client.rest(), "ERR TOOBIG the line is over 1024 bytes\n");

    let sized = |bytes: usize| {
        let word = "x".repeat(bytes - b"*2\r\n$4\r\nPING\r\n$1000\r\n\r\n".len());
        let request = resp_request(&["PING", &word]);
        assert_eq!(request.len(), bytes);
        request
    };
    let mut client = server.connect();
    client.send(sized(KIB));
    assert!(client.resp().starts_with("$xxx"));
    client.send(sized(KIB + 1));
    client.send(resp_request(&["PING"]));
    assert_eq!(client.resp(), "-ERR TOOBIG the request is over 1024 bytes");
    assert_eq!(client.resp(), "+PONG");
}

#[test]
fn a_request_has_so_many_keys() {
    const LINE: &str = "ERR TOOBIG 4 keys in one request; the most are 3";
    const RESP: &str = "-ERR TOOBIG 4 keys in one request; the most are 3";
    let server = TestServer::with(|raw| raw.max_batch = Some(3));
    play_lines(
        &server,
        &[
            ("MSEEN 60s a b c d", LINE),
            ("MSEEN 60s a b c", "NNN"),
            ("PEEK a b c d", LINE),
            ("PEEK a b c", "DDD"),
            ("FORGET a b c d", LINE),
            ("FORGET a b c", "OK 3"),
        ],
    );
    play_resp(
        &server,
        &[
            ("MGET a b c d", RESP),
            ("MGET a b c", "[nil, nil, nil]"),
            ("DEL a b c d", RESP),
            ("EXISTS a b c d", RESP),
            ("TOUCH a b c", ":0"),
            ("BF.MADD f a b c d", RESP),
            ("BF.MEXISTS f a b c d", RESP),
            ("BF.INSERT f ITEMS a b c d", RESP),
            ("BF.INSERT f ITEMS a b c", "[:1, :1, :1]"),
            ("SADD f a b c d", RESP),
            ("SMISMEMBER f a b c d", RESP),
            ("SREM f a b c d", RESP),
            ("SADD f a b c", ":0"),
            ("UNLINK a b c d", RESP),
            ("MSET a 1 b 2 c 3 d 4", RESP),
            ("MSETNX a 1 b 2 c 3 d 4", RESP),
            ("MSET a 1 b 2 c 3", "+OK"),
        ],
    );
}

#[test]
fn so_many_keys_are_stored_together() {
    let server = TestServer::start();
    let mut client = server.connect();
    let mut told = |keys| {
        let pairs = (0..keys).flat_map(|n| [format!("key-{n}"), "v".to_owned()]);
        client.call_with(&["MSETNX"], &pairs.collect::<Vec<_>>(), &[])
    };
    let most = TOGETHER_KEYS_MAX;
    let refused = format!(
        "-ERR TOOBIG {} keys in one request; the most are {most}",
        most + 1
    );
    assert_eq!(told(most + 1), refused);
    assert_eq!(told(most), ":1");
    assert_eq!(told(most), ":0");
}

#[test]
fn a_value_has_so_many_bytes() {
    const REFUSED: &str = "-ERR TOOBIG the value has 9 bytes; the longest is 8";
    let server = TestServer::with(|raw| raw.max_value = Some("8".to_owned()));
    play_resp(
        &server,
        &[
            ("SET k 12345678", "+OK"),
            ("SET k 123456789", REFUSED),
            ("SET k 123456789 NX", REFUSED),
            ("SETNX j 123456789", REFUSED),
            ("SETEX j 60 123456789", REFUSED),
            ("PSETEX j 60000 123456789", REFUSED),
            ("GETSET k 123456789", REFUSED),
            ("MSET j 1 k 123456789", REFUSED),
            ("MSETNX j 123456789", REFUSED),
            ("MGET j k", "[nil, $12345678]"),
            ("INCRBY n 12345678901", ":12345678901"),
        ],
    );
}

#[test]
fn there_are_so_many_namespaces() {
    const LINE: &str = "ERR FULL there are 3 namespaces, the most there may be";
    const RESP: &str = "-OOM there are 3 namespaces, the most there may be";
    let server = TestServer::with(|raw| raw.max_namespaces = Some(3));
    play_lines(
        &server,
        &[
            ("USE a", "OK"),
            ("USE b", "OK"),
            ("USE c", LINE),
            ("NS SET c TTL 1m", LINE),
            ("NS SET b TTL 1m", "OK"),
            ("SEEN k", "NEW"),
            ("TTL k", "~60000"),
        ],
    );
    play_resp(
        &server,
        &[
            ("BF.ADD c x", RESP),
            ("SADD c x", RESP),
            ("SISMEMBER c x", ":0"),
            ("BF.MADD c x", RESP),
            ("BF.RESERVE c 0.1 10", RESP),
            ("SELECT 1", RESP),
            ("SELECT 0", "+OK"),
            ("NS DROP a", "+OK"),
            ("SELECT 1", "+OK"),
            ("BF.ADD c x", RESP),
        ],
    );
}

#[test]
fn a_life_has_a_longest_and_a_default() {
    let server = TestServer::with(|raw| {
        raw.default_ttl = Some("10m".to_owned());
        raw.max_ttl = Some("2h".to_owned());
    });
    play_lines(
        &server,
        &[
            ("SEEN default", "NEW"),
            ("TTL default", "~600000"),
            ("SEEN longest 2h", "NEW"),
            (
                "SEEN longer 7200001ms",
                "ERR RANGE the longest ttl here is 2h",
            ),
            ("NS SET n TTL 2h", "OK"),
            (
                "NS SET n MAXTTL 7200001ms",
                "ERR RANGE the server's longest ttl is 2h",
            ),
        ],
    );
    // Redis's commands are clamped.
    play_resp(
        &server,
        &[
            ("SET k v EX 7200", "+OK"),
            ("TTL k", ":~7200"),
            ("SET k v EX 7201", "+OK"),
            ("TTL k", ":~7200"),
            ("EXPIRE k 99999999", ":1"),
            ("TTL k", ":~7200"),
            ("PERSIST k", ":1"),
            ("TTL k", ":~7200"),
            ("SET k v", "+OK"),
            ("TTL k", ":~600"),
        ],
    );
}

#[test]
fn an_event_lies_so_far_ahead() {
    let server = TestServer::start();
    let mut client = server.connect();
    // The server's clock and this one may differ by some milliseconds.
    let within = unix_ms() + AT_AHEAD_MAX_MS - 1_000;
    assert_eq!(client.ask(&format!("SEEN a 60s AT {within}")), "NEW");
    let beyond = unix_ms() + AT_AHEAD_MAX_MS + 1_000 + 10_000;
    assert!(
        client
            .ask(&format!("SEEN b 60s AT {beyond}"))
            .starts_with("ERR RANGE ")
    );
    assert_eq!(client.ask("PEEK b"), "N");
}

#[test]
fn names_numbers_and_fingerprints_have_their_lengths() {
    let server = TestServer::start();
    let mut client = server.connect();
    let name = "n".repeat(NAMESPACE_NAME_BYTES_MAX);
    assert_eq!(client.ask(&format!("USE {name}")), "OK");
    assert!(client.ask(&format!("USE {name}n")).starts_with("ERR ARGS "));
    let digits = "f".repeat(FINGERPRINT_DIGITS_MAX);
    assert_eq!(client.ask(&format!("SEEN k 60s FP {digits}")), "NEW");
    assert!(
        client
            .ask(&format!("SEEN k 60s FP {digits}f"))
            .starts_with("ERR ARGS ")
    );

    let mut client = server.connect();
    for (head, max) in [
        (&["CONFIG", "GET"][..], CONFIG_PATTERNS_MAX),
        (&["INFO"], INFO_SECTIONS_MAX),
    ] {
        let words = [head, &vec!["nothing"; max]].concat();
        assert!(!client.call(&words).starts_with('-'), "{head:?}");
        let words = [&words[..], &["nothing"]].concat();
        assert!(client.call(&words).starts_with("-ERR TOOBIG "), "{head:?}");
    }
    let name = "n".repeat(CLIENT_NAME_BYTES_MAX);
    assert_eq!(client.call(&["CLIENT", "SETNAME", &name]), "+OK");
    assert!(
        client
            .call(&["CLIENT", "SETNAME", &(name.clone() + "n")])
            .starts_with("-ERR TOOBIG ")
    );
    assert!(
        client
            .call(&["HELLO", "2", "SETNAME", &(name.clone() + "n")])
            .starts_with("-ERR TOOBIG ")
    );
    assert!(
        client
            .call(&["CLIENT", "SETINFO", "LIB-NAME", &(name.clone() + "n")])
            .starts_with("-ERR TOOBIG ")
    );
    assert_eq!(client.call(&["CLIENT", "GETNAME"]), format!("${name}"));
    assert_eq!(client.call(&["SELECT", &SELECT_MAX.to_string()]), "+OK");
    assert!(
        client
            .call(&["SELECT", &(SELECT_MAX + 1).to_string()])
            .starts_with("-ERR ")
    );
}

#[test]
fn a_connection_over_the_limit_is_told_so_in_its_dialect() {
    let server = TestServer::with(|raw| raw.max_connections = Some(2));
    let mut first = server.connect();
    let mut second = server.connect();
    assert_eq!(
        (first.ask("PING"), second.ask("PING")),
        ("PONG".to_owned(), "PONG".to_owned())
    );
    let refusal = "ERR FULL there are 2 connections, the most there may be\n";
    for _ in 0..20 {
        let mut third = server.connect();
        third.send("SEEN k 60s\n");
        assert_eq!(third.rest(), refusal);
        let mut third = server.connect();
        third.send(resp_request(&["SET", "k", "v", "NX"]));
        assert_eq!(third.rest(), "-ERR max number of clients reached\r\n");
    }
    let mut silent = server.connect();
    assert_eq!(silent.rest(), refusal);
    assert_eq!(first.gauge("connections"), 2);
    assert_eq!(first.gauge("connections_refused"), 41);
    drop(second);
    eventually("there is a place again", || first.gauge("connections") == 1);
    assert_eq!(server.connect().ask("SEEN k 60s"), "NEW");
}

#[test]
fn a_flood_of_silent_connections_over_the_limit_hurts_nobody() {
    const FLOOD: usize = REFUSALS_MAX * 4;
    let server = TestServer::with(|raw| raw.max_connections = Some(1));
    let mut first = server.connect();
    assert_eq!(first.ask("PING"), "PONG");
    let mut silent: Vec<_> = (0..FLOOD).map(|_| server.connect()).collect();
    assert_eq!(first.ask("PING"), "PONG");
    // Some are told, the others closed without a word.
    let told = silent.iter_mut().filter_map(Client::try_line).count();
    assert!(told > 0);
    assert_eq!(first.gauge("connections_refused"), FLOOD as u64);
    assert_eq!(first.gauge("connections"), 1);
}

/// Stores a value of 64 KiB, and asks for it so often that no socket buffers hold the replies.
fn ask_for_too_much(client: &mut Client) {
    const GETS: usize = 600;
    let value = "v".repeat(64 * KIB);
    assert_eq!(client.call(&["SET", "big", &value]), "+OK");
    client.send(resp_request(&["GET", "big"]).repeat(GETS));
}

#[test]
fn unread_replies_are_bounded_in_bytes_and_time() {
    const UNREAD_MAX: u64 = 128 << 10;
    let server = TestServer::with(|raw| {
        raw.max_unread = Some("128KiB".to_owned());
        raw.max_value = Some("64KiB".to_owned());
        raw.unread_timeout = Some("400ms".to_owned());
    });
    let mut other = server.connect();
    let mut deaf = server.connect();
    let began = Instant::now();
    ask_for_too_much(&mut deaf);
    // Others are served meanwhile; what is kept for the deaf one is the bound, a reply more, and a buffer's slack.
    let mut executed = 0;
    while other.gauge("connections_timed_out") == 0 {
        assert_eq!(other.ask("PING"), "PONG");
        let memory = other.gauge("memory_bytes");
        assert!(memory < 4 * UNREAD_MAX, "{memory} bytes");
        executed = other.gauge("verb_get_calls");
        assert!(began.elapsed() < common::PATIENCE, "it is not closed");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(began.elapsed() >= Duration::from_millis(400));
    assert!(executed < 600, "all was executed although nothing was read");
    eventually("the place is free again", || {
        other.gauge("connections") == 1
    });
    assert_eq!(
        other.gauge("verb_get_calls"),
        executed,
        "a closed connection's requests are executed"
    );
    drop(deaf);
}

#[test]
fn a_client_that_reads_late_gets_every_reply() {
    let server = TestServer::with(|raw| {
        raw.max_unread = Some("128KiB".to_owned());
        raw.max_value = Some("64KiB".to_owned());
    });
    let mut other = server.connect();
    let mut late = server.connect();
    ask_for_too_much(&mut late);
    let mut before = u64::MAX;
    eventually("nothing more is executed", || {
        std::thread::sleep(Duration::from_millis(50));
        let executed = other.gauge("verb_get_calls");
        std::mem::replace(&mut before, executed) == executed
    });
    assert!(before < 600);
    for _ in 0..600 {
        assert_eq!(late.resp().len(), 64 * KIB + 1);
    }
    assert_eq!(late.call(&["PING"]), "+PONG");
}

#[test]
fn a_reply_is_bounded_too() {
    let server = TestServer::with(|raw| {
        raw.max_unread = Some("64KiB".to_owned());
        raw.max_value = Some("32KiB".to_owned());
    });
    let mut client = server.connect();
    let value = "v".repeat(32 * KIB);
    assert_eq!(client.call(&["SET", "a", &value]), "+OK");
    assert!(client.call(&["MGET", "a", "a"]).starts_with("[$vvv"));
    assert_eq!(
        client.call(&["MGET", "a", "a", "a"]),
        "-ERR TOOBIG the reply would be over 65536 bytes; ask for less at a time"
    );
    assert_eq!(client.call(&["MULTI"]), "+OK");
    for _ in 0..5 {
        assert_eq!(client.call(&["GETEX", "a"]), "+QUEUED");
    }
    assert_eq!(client.call(&["SET", "b", "v"]), "+QUEUED");
    let replies = client.call(&["EXEC"]);
    assert_eq!(replies.matches("$vvv").count(), 2);
    assert_eq!(replies.matches("-ERR TOOBIG not executed").count(), 4);
    assert_eq!(client.call(&["EXISTS", "b"]), ":0");
    let keys = 3_000;
    for n in 0..keys {
        client.send(resp_request(&[
            "SET",
            &format!("{n}-{}", "k".repeat(30)),
            "1",
        ]));
    }
    (0..keys).for_each(|_| assert_eq!(client.resp(), "+OK"));
    assert!(
        client
            .call(&["KEYS", "*"])
            .starts_with("-ERR TOOBIG the reply would be over")
    );
    assert!(client.call(&["KEYS", "1-*"]).starts_with("[$1-kkk"));
}

#[test]
fn an_unfinished_request_has_so_much_time() {
    const TIMEOUT: Duration = Duration::from_millis(300);
    let server = TestServer::with(|raw| raw.request_timeout = Some("300ms".to_owned()));
    let line = "ERR SYNTAX the request was not finished within 0.3 s; closing\n";
    let resp = "-ERR SYNTAX the request was not finished within 0.3 s; closing\r\n";
    let unknown = format!("ERR UNKNOWN unknown verb 'FOO'; HELP lists the verbs\n{line}");
    for (request, answer) in [
        (&b"SEEN order-17 60"[..], line),
        (b"\"", line),
        (b"*1\r\n$4\r\nPI", resp),
        (b"*", resp),
        (b"*1\r\n$10\r\n", resp),
        (b"*1000000\r\n$1\r\na\r\n", resp),
        // The part that is thrown away belongs to the request.
        (b"FOO LEN 16777216\n", &unknown),
        (b"FOO LEN 16777216\nhalf", &unknown),
        (b"*2\r\n$4\r\nECHO\r\n$16000000\r\n", resp),
        (b"*2\r\n$4\r\nECHO\r\n$16000000\r\nhalf", resp),
    ] {
        let began = Instant::now();
        let mut client = server.connect();
        client.send(request);
        assert_eq!(client.rest(), answer, "{}", request.escape_ascii());
        assert!(began.elapsed() >= TIMEOUT);
    }
    assert_eq!(server.gauge("connections_timed_out"), 10);
    // Bytes that finish nothing win no time.
    for request in ["SEEN ", "FOO LEN 16777216\n"] {
        let mut client = server.connect();
        client.send(request);
        let began = Instant::now();
        while client.stream.write_all(b"x").is_ok() {
            assert!(began.elapsed() < TIMEOUT * 20, "{request} is still open");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    // A connection between requests may rest.
    let mut client = server.connect();
    assert_eq!(client.ask("PING"), "PONG");
    std::thread::sleep(TIMEOUT * 2);
    assert_eq!(
        client.ask("FOO LEN 3\nabc"),
        "ERR UNKNOWN unknown verb 'FOO'; HELP lists the verbs"
    );
    std::thread::sleep(TIMEOUT * 2);
    assert_eq!(client.ask("PING"), "PONG");
}

#[test]
fn a_transaction_has_so_many_bytes() {
    let server = TestServer::start();
    let mut client = server.connect();
    let request = |bytes: usize| {
        let word = "x".repeat(bytes - b"*2\r\n$4\r\nECHO\r\n$1000000\r\n\r\n".len());
        let request = resp_request(&["ECHO", &word]);
        assert_eq!(request.len(), bytes);
        request
    };
    assert_eq!(client.call(&["MULTI"]), "+OK");
    for _ in 0..TRANSACTION_BYTES_MAX / MIB {
        client.send(request(MIB));
        assert_eq!(client.resp(), "+QUEUED");
    }
    assert_eq!(client.call(&["EXEC"]).matches("$xxx").count(), 8);

    assert_eq!(client.call(&["MULTI"]), "+OK");
    for _ in 0..TRANSACTION_BYTES_MAX / MIB {
        client.send(request(MIB));
        assert_eq!(client.resp(), "+QUEUED");
    }
    assert_eq!(
        client.call(&["PING"]),
        "-ERR TOOBIG a transaction has at most 8388608 bytes"
    );
    assert_eq!(
        client.call(&["EXEC"]),
        "-EXECABORT Transaction discarded because of previous errors."
    );
    assert_eq!(client.call(&["PING"]), "+PONG");
    eventually("the memory is back", || {
        server.gauge("memory_bytes") < 1_000_000
    });
}

#[test]
fn a_refused_body_has_so_many_bytes() {
    let server = TestServer::start();
    let mut client = server.connect();
    client.send(format!("FOO LEN {DISCARD_BYTES_MAX}\n"));
    client.send(vec![b'\n'; DISCARD_BYTES_MAX]);
    client.send("\nPING\n");
    assert!(client.line().starts_with("ERR UNKNOWN "));
    assert_eq!(client.line(), "PONG");
    client.send(format!("FOO LEN {}\nPING\n", DISCARD_BYTES_MAX + 1));
    assert_eq!(
        client.rest(),
        "ERR UNKNOWN unknown verb 'FOO'; HELP lists the verbs\n"
    );
    // In RESP the whole request counts.
    let mut client = server.connect();
    let word = "x".repeat(DISCARD_BYTES_MAX);
    client.send(resp_request(&["ECHO", &word]));
    assert_eq!(
        client.resp(),
        "-ERR TOOBIG the request is over 1048576 bytes"
    );
    assert_eq!(client.call(&["PING"]), "+PONG");
    client.send(format!(
        "*2\r\n$4\r\nECHO\r\n${}\r\n",
        DISCARD_BYTES_MAX + 1
    ));
    assert_eq!(
        client.rest(),
        "-ERR Protocol error: invalid bulk length\r\n"
    );
}

#[test]
fn a_resp_request_has_so_many_elements() {
    let server = TestServer::start();
    let mut client = server.connect();
    client.send(format!("*{}\r\n", RESP_ELEMENTS_MAX + 1));
    assert_eq!(
        client.rest(),
        "-ERR Protocol error: invalid multibulk length\r\n"
    );
    // As many as that do not fit a request, and are thrown away together.
    let mut client = server.connect();
    client.send(format!("*{RESP_ELEMENTS_MAX}\r\n"));
    client.send(b"$1\r\na\r\n".repeat(RESP_ELEMENTS_MAX));
    assert_eq!(
        client.resp(),
        "-ERR TOOBIG the request is over 1048576 bytes"
    );
    assert_eq!(client.call(&["PING"]), "+PONG");
}

#[test]
fn a_server_that_is_told_to_stop_waits_so_long() {
    let mut server = TestServer::with(|raw| raw.max_value = Some("64KiB".to_owned()));
    let mut deaf = server.connect();
    ask_for_too_much(&mut deaf);
    eventually("it has begun", || server.gauge("verb_get_calls") > 0);
    let began = Instant::now();
    server.tell_to_stop();
    drop(server);
    let took = began.elapsed();
    assert!(took < Duration::from_millis(DRAIN_MS * 2), "{took:?}");
    drop(deaf);
}

/// A server with the least memory there may be.
fn small_server() -> TestServer {
    TestServer::with(|raw| {
        raw.max_memory = Some("1MiB".to_owned());
        raw.max_value = Some("64KiB".to_owned());
    })
}

/// Fills the memory with long keys; returns the answers, and the most memory that was seen.
fn fill(client: &mut Client, keys: usize) -> (String, u64) {
    let padding = "p".repeat(200);
    let (mut answers, mut most) = (String::new(), 0);
    for batch in 0..keys / 100 {
        let words: String = (0..100)
            .map(|n| format!(" {}-{padding}", batch * 100 + n))
            .collect();
        answers.push_str(&client.ask(&format!("MSEEN 10m{words}")));
        most = most.max(client.gauge("memory_bytes"));
    }
    (answers, most)
}

#[test]
fn full_memory_rejects_and_changes_nothing() {
    let server = small_server();
    let mut client = server.connect();
    let (answers, most) = fill(&mut client, 10_000);
    assert!(
        answers.contains('E') && answers.starts_with("NNNN"),
        "{answers}"
    );
    assert!(most > 900_000, "{most} bytes were the most");
    assert!(
        most <= MIB as u64 + INSERTION_BYTES,
        "{most} bytes are over the bound"
    );
    let stored = answers.matches('N').count() as u64;
    assert_eq!(client.gauge("keys"), stored);
    assert_eq!(client.gauge("refused"), 10_000 - stored);
    let refused = format!("{}-{}", answers.rfind('E').unwrap(), "p".repeat(200));
    assert!(
        client
            .ask(&format!("SEEN {refused} 10m"))
            .starts_with("ERR FULL no room")
    );
    assert_eq!(client.ask(&format!("PEEK {refused}")), "N");
    // What is there is still told apart.
    assert_eq!(client.ask(&format!("SEEN 0-{}", "p".repeat(200))), "DUP");
    let mut redis = server.connect();
    let value = "v".repeat(4 * KIB);
    let kept = format!("0-{}", "p".repeat(200));
    assert!(redis.call(&["SET", &kept, &value]).starts_with("-OOM "));
    assert!(
        redis
            .call(&["SET", &refused, "v", "NX"])
            .starts_with("-OOM ")
    );
    assert_eq!(redis.call(&["MGET", &kept, &refused]), "[$1, nil]");
    // Room returns.
    assert_eq!(client.ask("NS PURGE default"), "OK");
    eventually("the memory is back", || {
        client.gauge("memory_bytes") < 500_000
    });
    assert_eq!(client.ask(&format!("SEEN {refused} 10m")), "NEW");
    assert_eq!(client.ask(&format!("SEEN {refused} 10m")), "DUP");
}

#[test]
fn full_memory_evicts_where_a_namespace_says_so() {
    let server = small_server();
    let mut client = server.connect();
    assert_eq!(client.ask("NS SET default FULL EVICT"), "OK");
    let (answers, most) = fill(&mut client, 10_000);
    assert_eq!(answers.matches('N').count(), 10_000, "{answers}");
    assert!(
        most <= MIB as u64 + INSERTION_BYTES,
        "{most} bytes are over the bound"
    );
    let (keys, evicted) = (client.gauge("keys"), client.gauge("evicted"));
    assert!(evicted > 0);
    assert_eq!(keys + evicted, 10_000);
    assert_eq!(client.gauge("refused"), 0);
}

#[test]
fn unfinished_requests_share_the_memory() {
    let server = small_server();
    let mut other = server.connect();
    let mut clients: Vec<_> = (0..40).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send(format!("SEEN {}", "k".repeat(100 * KIB)));
    }
    // Who has the room for a long request and does not finish it makes way for those who wait.
    let mut most = 0;
    eventually("some are closed", || {
        most = most.max(other.gauge("memory_bytes"));
        other.gauge("connections") < 38
    });
    assert!(most <= 2 * MIB as u64, "{most} bytes");
    assert_eq!(other.ask("PING"), "PONG");
    drop(clients);
    eventually("the memory is back", || {
        other.gauge("memory_bytes") < 300_000
    });
    assert_eq!(other.ask("SEEN k 60s"), "NEW");
}

#[test]
fn transactions_share_the_memory() {
    let server = small_server();
    let mut other = server.connect();
    let mut client = server.connect();
    let word = "x".repeat(KIB);
    assert_eq!(client.call(&["MULTI"]), "+OK");
    let (mut answers, mut most) = (Vec::new(), 0);
    for _ in 0..3_000 {
        answers.push(client.call(&["ECHO", &word]));
        most = most.max(other.gauge("memory_bytes"));
    }
    assert!(
        most > 300 * KIB as u64 && most <= MIB as u64,
        "{most} bytes"
    );
    assert_eq!(answers[0], "+QUEUED");
    assert!(
        answers.iter().any(|answer| answer.starts_with("-OOM ")),
        "{answers:?}"
    );
    assert_eq!(
        client.call(&["EXEC"]),
        "-EXECABORT Transaction discarded because of previous errors."
    );
    eventually("the memory is back", || {
        other.gauge("memory_bytes") < 300_000
    });
    assert_eq!(other.ask("SEEN k 60s"), "NEW");
}
