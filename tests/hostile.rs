//! What strangers send: nonsense, half requests, other protocols, announcements without bodies.
//!
//! After each, the server answers another client at once, every connection is gone, and the
//! memory is what it was.

#![allow(
    clippy::format_collect,
    reason = "requests are built for reading, not for speed"
)]

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use common::{Client, TestServer, eventually, resp_request};

const MIB: usize = 1 << 20;
/// What buffers that are shared or kept may make the memory differ by.
const NEAR_BYTES: u64 = 64 << 10;
/// "At once", on a machine that does other things too.
const AT_ONCE: Duration = Duration::from_secs(2);

/// A server under attack, and what its memory was before.
struct Attacked {
    server: TestServer,
    other: Client,
    memory_before: u64,
}

impl Attacked {
    fn start() -> Self {
        let server = TestServer::with(|raw| {
            raw.request_timeout = Some("500ms".to_owned());
            raw.unread_timeout = Some("500ms".to_owned());
        });
        let mut other = server.connect();
        assert_eq!(other.ask("SEEN canary 1h"), "NEW");
        let memory_before = other.gauge("memory_bytes");
        Self {
            server,
            other,
            memory_before,
        }
    }

    /// Sends bytes, and what comes back until the server closes; the sender has no more to say.
    fn send(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut client = self.server.connect();
        client.send(bytes);
        client.half_close();
        client.rest()
    }

    /// Sends bytes and waits, without saying that there is no more.
    fn send_and_hold(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut client = self.server.connect();
        client.send(bytes);
        client.rest()
    }

    /// Nobody else has noticed.
    fn is_unharmed(&mut self) {
        let began = Instant::now();
        assert_eq!(self.other.ask("SEEN canary 1h"), "DUP");
        let took = began.elapsed();
        assert!(took < AT_ONCE, "another client waited for {took:?}");
        let other = &mut self.other;
        eventually("the connections are gone", || {
            other.gauge("connections") == 1
        });
        let before = self.memory_before;
        eventually("the memory is back", || {
            other.gauge("memory_bytes") <= before + NEAR_BYTES
        });
        assert_eq!(other.gauge("keys"), 1, "{:?}", other.ask_all("NS LIST"));
    }
}

/// Sends each and compares all that comes back.
fn conversations(cases: &[(&[u8], &str)]) {
    let mut attacked = Attacked::start();
    for (bytes, answer) in cases {
        assert_eq!(attacked.send(bytes), *answer, "{}", bytes.escape_ascii());
        attacked.is_unharmed();
    }
}

const UNKNOWN: &str = "ERR UNKNOWN unknown verb 'FOO'; HELP lists the verbs\n";
const UNKNOWN_PONG: &str = "ERR UNKNOWN unknown verb 'FOO'; HELP lists the verbs\nPONG\n";

#[test]
fn words_that_are_wrong_cost_the_request() {
    conversations(&[
        (b"FOO\nPING\n", UNKNOWN_PONG),
        (b"FOO bar baz\nPING\n", UNKNOWN_PONG),
        (
            b"SEEN\nPING\n",
            "ERR ARGS usage: SEEN key [ttl] [SLIDE|FIXED] [FP hex] [AT unixms] [NS name]\nPONG\n",
        ),
        (b"PING a b c\nPING\n", "ERR ARGS usage: PING [word]\nPONG\n"),
        (b"SEEN \"a\nPING\n", "ERR SYNTAX unbalanced quotes\nPONG\n"),
        (
            b"\"\"\"\nPING\n",
            "ERR SYNTAX a closing quote ends a word; a space must follow it\nPONG\n",
        ),
        (
            b"\0\nPING\n",
            "ERR UNKNOWN unknown verb '\\x00'; HELP lists the verbs\nPONG\n",
        ),
        (b"\r\n\r\n\n \t \nPING\n", "PONG\n"),
        (
            b"$4\r\nPING\r\n",
            "ERR UNKNOWN unknown verb '$4'; HELP lists the verbs\nPONG\n",
        ),
        (
            b"\n*1\r\n$4\r\nPING\r\n",
            "ERR UNKNOWN unknown verb '*1'; HELP lists the verbs\nERR UNKNOWN unknown verb '$4'; HELP lists the verbs\nPONG\n",
        ),
    ]);
}

#[test]
fn a_body_never_runs_as_a_command() {
    conversations(&[
        // Of an unknown verb, of a refused one, of a malformed line; in both kinds of line ends.
        (b"FOO LEN 14\nSEEN evil 60s\n\nPING\n", UNKNOWN_PONG),
        (b"FOO LEN 13\nSEEN evil 60s\nPING\n", UNKNOWN_PONG),
        (b"FOO LEN 13\r\nSEEN evil 60s\r\nPING\r\n", UNKNOWN_PONG),
        (b"FOO LEN 13\nSEEN evil 60s\r\nPING\n", UNKNOWN_PONG),
        (b"foo a b c len 28\nSEEN evil 60s\nSEEN evil 60s\n\nPING\n", "ERR UNKNOWN unknown verb 'foo'; HELP lists the verbs\nPONG\n"),
        (b"SEEN a 60s LEN 13\nSEEN evil 60s\nPING\n", "ERR ARGS unknown option 'LEN'; expected SLIDE, FIXED, FP hex, AT unixms or NS name\nPONG\n"),
        (b"PING LEN 13\nSEEN evil 60s\nPING\n", "ERR ARGS usage: PING [word]\nPONG\n"),
        (b"FOO \"x LEN 13\nSEEN evil 60s\nPING\n", "ERR SYNTAX unbalanced quotes\nPONG\n"),
        (b"FOO LEN 0\n\nPING\n", UNKNOWN_PONG),
        (b"FOO LEN 1\n\n\nPING\n", UNKNOWN_PONG),
        // It announces what cannot be read or skipped.
        (b"FOO LEN 16777217\nSEEN evil 60s\n", UNKNOWN),
        (b"FOO LEN -1\nSEEN evil 60s\n", UNKNOWN),
        (b"FOO LEN 1e3\nSEEN evil 60s\n", UNKNOWN),
        (b"FOO LEN 18446744073709551616\nSEEN evil 60s\n", UNKNOWN),
        (b"FOO LEN \"5\"\nSEEN evil 60s\n", UNKNOWN),
        (b"FOO \"x LEN x\nSEEN evil 60s\n", "ERR SYNTAX unbalanced quotes\n"),
        // It is longer than was said.
        (b"FOO LEN 3\nSEEN evil 60s\n", "ERR UNKNOWN unknown verb 'FOO'; HELP lists the verbs\nERR SYNTAX the body does not end where LEN said it would\n"),
        (b"FOO LEN 3\nabc\rSEEN evil 60s\n", "ERR UNKNOWN unknown verb 'FOO'; HELP lists the verbs\nERR SYNTAX the body does not end where LEN said it would\n"),
        // It never comes.
        (b"FOO LEN 13\nSEEN evil", UNKNOWN),
        (b"FOO LEN 16777216\n", UNKNOWN),
        // In RESP a body is a word, and a refused request is consumed whole.
        (b"*3\r\n$3\r\nFOO\r\n$4\r\nBODY\r\n$15\r\nSEEN evil 60s\r\n\r\n*1\r\n$4\r\nPING\r\n", "-ERR unknown command 'FOO', with args beginning with: 'BODY' 'SEEN evil 60s\\r\\n' \r\n+PONG\r\n"),
        (b"*2\r\n$4\r\nQUIX\r\n$30\r\n*2\r\n$4\r\nSEEN\r\n$4\r\nevil\r\nabcdef\r\n*1\r\n$4\r\nPING\r\n", "-ERR unknown command 'QUIX', with args beginning with: '*2\\r\\n$4\\r\\nSEEN\\r\\n$4\\r\\nevil\\r\\nabcdef' \r\n+PONG\r\n"),
    ]);
}

#[test]
fn lengths_that_are_none_close() {
    conversations(&[
        (
            b"*2147483647\r\n$4\r\nSEEN\r\n",
            "-ERR Protocol error: invalid multibulk length\r\n",
        ),
        (
            b"*1048577\r\n",
            "-ERR Protocol error: invalid multibulk length\r\n",
        ),
        (
            b"*9223372036854775808\r\n",
            "-ERR Protocol error: invalid multibulk length\r\n",
        ),
        (
            b"*\r\n",
            "-ERR Protocol error: invalid multibulk length\r\n",
        ),
        (
            b"*1x\r\n",
            "-ERR Protocol error: invalid multibulk length\r\n",
        ),
        (
            b"*0000000000000000000000000000000000000000000000001\r\n",
            "-ERR Protocol error: invalid multibulk length\r\n",
        ),
        (
            b"*1\r\n$9223372036854775807\r\n",
            "-ERR Protocol error: invalid bulk length\r\n",
        ),
        (
            b"*1\r\n$9223372036854775808\r\n",
            "-ERR Protocol error: invalid bulk length\r\n",
        ),
        (
            b"*1\r\n$-1\r\n",
            "-ERR Protocol error: invalid bulk length\r\n",
        ),
        (
            b"*1\r\n$-9223372036854775808\r\n",
            "-ERR Protocol error: invalid bulk length\r\n",
        ),
        (
            b"*1\r\n$4294967295\r\n",
            "-ERR Protocol error: invalid bulk length\r\n",
        ),
        (
            b"*1\r\n$16777217\r\n",
            "-ERR Protocol error: invalid bulk length\r\n",
        ),
        (
            b"*1\r\n:4\r\n",
            "-ERR Protocol error: expected '$', got ':'\r\n",
        ),
        (
            b"*1\r\n$4\r\nPINGPING\r\n",
            "-ERR Protocol error: a bulk string does not end where its length says\r\n",
        ),
        (
            b"*1\r\n$4\r\nPING\r\nSEEN evil 60s\r\n",
            "+PONG\r\n-ERR Protocol error: expected '*', got 'S'\r\n",
        ),
        // Arrays of nothing ask for nothing.
        (
            b"*-1\r\n*0\r\n*-2147483648\r\n\r\n*1\r\n$4\r\nPING\r\n",
            "+PONG\r\n",
        ),
    ]);
}

#[test]
fn a_line_that_is_too_long_closes() {
    let mut attacked = Attacked::start();
    let refusal = "ERR TOOBIG the line is over 1048576 bytes\n";
    for line in [
        "x".repeat(MIB + 1),
        "x".repeat(MIB + 1) + "\nSEEN evil 60s\n",
        format!("SEEN {}\nSEEN evil 60s\n", "\"".repeat(MIB)),
        format!("FOO {} LEN 5\nSEEN evil 60s\n", "x".repeat(MIB)),
        " ".repeat(3 * MIB),
    ] {
        assert_eq!(attacked.send(&line), refusal);
        attacked.is_unharmed();
    }
    // Just within, of the most words that fit.
    let words = "PEEK".to_owned() + &" k".repeat((MIB - 4) / 2) + "\n";
    assert!(
        attacked
            .send(words)
            .starts_with("ERR TOOBIG 524286 keys in one request")
    );
    attacked.is_unharmed();
}

#[test]
fn what_never_ends_is_ended() {
    let mut attacked = Attacked::start();
    let late = "SYNTAX the request was not finished within 0.5 s; closing";
    for request in [
        &b"S"[..],
        b"SEEN \"evil",
        b"SEEN evil 60s\r",
        b"SEEN \xf0\x9f",
        b"SEEN \"\\x0",
        b"*",
        b"*2\r\n$4\r\nSEEN\r\n$4\r\nevi",
        b"*2\r\n$4\r\nSEEN\r\n$4\r\nevil\r",
        b"*2\r\n$4\r\nSEEN\r\n$16777216\r\n",
        b"*1048576\r\n",
    ] {
        let answer = attacked.send_and_hold(request);
        assert!(
            answer.contains(late),
            "{}: {answer}",
            request.escape_ascii()
        );
    }
    let answer = attacked.send_and_hold("FOO LEN 16777216\n");
    assert!(
        answer.starts_with(UNKNOWN) && answer.contains(late),
        "{answer}"
    );
    attacked.is_unharmed();
}

#[test]
fn nothing_of_an_http_request_runs() {
    const HTTP: &str = "ERR UNKNOWN no HTTP here; closing, so that nothing of a request runs as a command (Redis commands are spoken in RESP)\n";
    let mut attacked = Attacked::start();
    for start in [
        "GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE",
    ] {
        let request = format!(
            "{start} / HTTP/1.1\r\nHost: localhost:6623\r\nContent-Length: 14\r\n\r\nSEEN evil 60s\n"
        );
        assert_eq!(attacked.send(request), HTTP);
    }
    for request in [
        "Host: localhost\r\nSEEN evil 60s\r\n",
        "host: localhost\r\nSEEN evil 60s\r\n",
        "GET\r\nSEEN evil 60s\r\n",
        "GET / LEN 5\r\nSEEN evil 60s\r\n",
    ] {
        assert_eq!(attacked.send(request), HTTP, "{request}");
    }
    // Quotes that are not balanced make a line malformed, and an HTTP request all the same.
    let quoted = attacked.send("GET \"/a HTTP/1.0\r\nSEEN evil 60s\r\n");
    assert_eq!(quoted, "ERR SYNTAX unbalanced quotes\n");
    // A method that is a verb here: the header behind it closes.
    let verb = attacked.send("PING / HTTP/1.1\r\nHost: localhost\r\n\r\nSEEN evil 60s\r\n");
    assert_eq!(verb, format!("ERR ARGS usage: PING [word]\n{HTTP}"));
    attacked.is_unharmed();
}

#[test]
fn a_tls_hello_is_told_so() {
    let mut attacked = Attacked::start();
    let mut hello = vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    hello.extend((0..501_u32).map(|n| (n * 7) as u8));
    hello.extend_from_slice(b"\nSEEN evil 60s\n");
    for bytes in [&hello[..], &hello[..1]] {
        let answer = attacked.send(bytes);
        assert_eq!(
            answer,
            "ERR SYNTAX this looks like TLS, which is not spoken on this port\n"
        );
    }
    attacked.is_unharmed();
}

/// Marsaglia's xorshift: noise that is the same in every run.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

#[test]
fn noise_hurts_nobody() {
    let mut attacked = Attacked::start();
    let mut noise = Noise(0x006f_6e63_6564);
    for connection in 0..200 {
        let len = noise.next() as usize % 10_000 + 1;
        let mut bytes = noise.bytes(len);
        if connection % 4 == 0 {
            bytes[0] = b'*';
        }
        let mut stream = attacked.server.connect().stream;
        // The server may close before all is sent.
        let sent = stream
            .write_all(&bytes)
            .and_then(|()| stream.shutdown(Shutdown::Write));
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        for result in [sent, read.map(|_| ())] {
            let kind = result.err().map(|error| error.kind());
            let is_fine = matches!(
                kind,
                None | Some(
                    ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::NotConnected
                )
            );
            assert!(is_fine, "{kind:?}");
        }
        let answer = String::from_utf8(answer).expect("replies are text");
        let is_refusal = |line: &str| line.starts_with("ERR ") || line.starts_with("-ERR ");
        assert!(answer.lines().all(is_refusal), "{answer}");
        if connection % 20 == 0 {
            attacked.is_unharmed();
        }
    }
    attacked.is_unharmed();
}

#[test]
fn a_client_that_never_reads_is_closed() {
    let mut attacked = Attacked::start();
    let mut deaf: Vec<_> = (0..4).map(|_| attacked.server.connect()).collect();
    for client in &mut deaf {
        // Each reply is 60 KiB, all of them far more than any buffers hold: sending gets stuck, or breaks.
        let request = format!("PING {}\n", "x".repeat(60_000));
        client
            .stream
            .set_write_timeout(Some(Duration::from_secs(1)))
            .unwrap();
        while client.stream.write_all(request.as_bytes()).is_ok() {}
        assert_eq!(attacked.other.ask("SEEN canary 1h"), "DUP");
    }
    attacked.is_unharmed();
    assert!(attacked.other.gauge("connections_timed_out") > 0);
}

#[test]
fn a_client_may_go_in_the_middle() {
    let mut attacked = Attacked::start();
    let big = resp_request(&["SET", "k", &"v".repeat(200_000)]);
    for round in 0..50 {
        for bytes in [
            &b"SEEN ev"[..],
            b"SEEN \"a",
            b"FOO LEN 100\nabc",
            b"*2\r\n$4\r\nSEEN\r\n$4\r\ne",
            b"*2\r\n$4\r\nSEEN\r\n$2000000\r\nabc",
            b"*1\r\n$5\r\nMULTI\r\n*3\r\n$3\r\nSET\r\n$4\r\nevil\r\n$1\r\nv\r\n",
            &big[..100_000 + round],
            b"",
        ] {
            let mut client = attacked.server.connect();
            client.send(bytes);
            if round % 2 == 0 {
                // With replies unread the system sends a reset instead of an end.
                socket2::SockRef::from(&client.stream)
                    .set_linger(Some(Duration::ZERO))
                    .unwrap();
            }
        }
    }
    attacked.is_unharmed();
}
