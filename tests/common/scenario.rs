//! Scenarios as data: requests and the replies they must get, in order, on one connection.
//!
//! In a request and in a reply, `{now+60000}` is Unix milliseconds, `{at}` a whole Unix second
//! an hour after the scenario began, `{a*65}` a letter so many times, `{token}` the token of the last
//! `RUN`, and `{older}` the one before. In a reply, `…` stands for
//! any text, and `~60000` for a number that was that a moment ago: up to a third less.
//! A reply of several lines is written as one, `a | b`; [`CLOSED`] is the end of the connection.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use super::{Client, TestServer};

/// A request and its reply.
pub type Step = (&'static str, &'static str);

/// The reply of a connection that the server has closed; an empty request asks nothing more.
pub const CLOSED: &str = "(closed)";

/// Makes every scenario a test, and all of them a list.
#[allow(unused_macros, reason = "for the tests that are scenarios")]
macro_rules! scenarios {
    ($run:path; $($name:ident: $steps:expr;)+) => {
        const SCENARIOS: &[&[$crate::common::scenario::Step]] = &[$($steps),+];
        $(
            #[test]
            fn $name() {
                $run(&$crate::common::TestServer::start(), $steps);
            }
        )+
    };
}
#[allow(unused_imports, reason = "for the tests that are scenarios")]
pub(crate) use scenarios;

/// Plays a scenario of the line protocol.
pub fn play_lines(server: &TestServer, steps: &[Step]) {
    play(server, steps, |client, request| {
        client.send(format!("{request}\n"));
        let head = client.try_line()?;
        let has_body = head.starts_with("DONE ") || head.starts_with("FAILED ");
        let rows = head.strip_prefix("ROWS ").map_or(0, |n| n.parse().unwrap());
        let rows = if has_body { 1 } else { rows };
        let rows: Vec<_> = (0..rows).map(|_| client.line()).collect();
        Some(
            std::iter::once(head)
                .chain(rows)
                .collect::<Vec<_>>()
                .join(" | "),
        )
    });
}

/// Plays a scenario of RESP; a request's words stand between spaces, or in quotes.
pub fn play_resp(server: &TestServer, steps: &[Step]) {
    play(server, steps, |client, request| {
        let words = words(request);
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        Some(client.call(&words))
    });
}

fn play(server: &TestServer, steps: &[Step], ask: impl Fn(&mut Client, &str) -> Option<String>) {
    let mut marks = Marks {
        at: unix_ms() / 1_000 + 3_600,
        tokens: [0; 2],
    };
    let mut client = server.connect();
    for (request, expected) in steps {
        if request.is_empty() && *expected == CLOSED {
            assert!(client.is_closed(), "the connection is still open");
            continue;
        }
        let reply = ask(&mut client, &fill(request, &marks)).unwrap_or(CLOSED.to_owned());
        marks.note(&reply);
        let expected = fill(expected, &marks);
        assert!(
            matches(&expected, &reply),
            "{request}\n    answers: {reply}\n   expected: {expected}"
        );
    }
}

/// What the placeholders of one scenario stand for.
struct Marks {
    at: u64,
    /// Of the last two `RUN`s, the last one first.
    tokens: [u64; 2],
}

impl Marks {
    /// Takes a token from a reply that tells one, in either dialect.
    fn note(&mut self, reply: &str) {
        let told = ["RUN ", "UNSURE ", "[+RUN, :", "[+UNSURE, :", "N:", "[$N:"]
            .iter()
            .find_map(|head| reply.strip_prefix(head));
        let Some((Some(token), _)) = told.map(leading_number) else {
            return;
        };
        if token != self.tokens[0] {
            assert!(token > self.tokens[0], "tokens rise: {reply}");
            self.tokens = [token, self.tokens[0]];
        }
    }
}

/// A request's words.
pub fn words(request: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (i, part) in request.split('"').enumerate() {
        if i % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_ascii_whitespace().map(str::to_owned));
        }
    }
    words
}

/// Replaces what stands in braces.
fn fill(text: &str, marks: &Marks) -> String {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('{') {
        filled.push_str(before);
        let Some((name, behind_name)) = behind.split_once('}') else {
            break;
        };
        if let Some(value) = placeholder(name, marks) {
            filled.push_str(&value);
            rest = behind_name;
        } else {
            filled.push('{');
            rest = behind;
        }
    }
    filled + rest
}

fn placeholder(name: &str, marks: &Marks) -> Option<String> {
    if let Some((letter, times)) = name.split_once('*') {
        return Some(letter.repeat(times.parse().ok()?));
    }
    match name {
        "at" => return Some(marks.at.to_string()),
        "token" => return Some(marks.tokens[0].to_string()),
        "older" => return Some(marks.tokens[1].to_string()),
        _ => {}
    }
    let shift = name.strip_prefix("now")?;
    let shift: i64 = if shift.is_empty() {
        0
    } else {
        shift.parse().ok()?
    };
    let mut text = String::new();
    write!(text, "{}", unix_ms().saturating_add_signed(shift)).unwrap();
    Some(text)
}

pub fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_millis() as u64
}

/// Whether a reply is what a pattern says.
fn matches(pattern: &str, reply: &str) -> bool {
    let Some(first) = pattern.chars().next() else {
        return reply.is_empty();
    };
    let behind = &pattern[first.len_utf8()..];
    match first {
        '…' => (0..=reply.len())
            .filter(|&skipped| reply.is_char_boundary(skipped))
            .any(|skipped| matches(behind, &reply[skipped..])),
        '~' => {
            let (most, pattern) = leading_number(behind);
            let (number, reply) = leading_number(reply);
            most.zip(number)
                .is_some_and(|(most, number)| number <= most && number >= most * 2 / 3)
                && matches(pattern, reply)
        }
        _ => reply
            .strip_prefix(first)
            .is_some_and(|reply| matches(behind, reply)),
    }
}

fn leading_number(text: &str) -> (Option<u64>, &str) {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, behind) = text.split_at(digits);
    (number.parse().ok(), behind)
}
