//! Loading: keys become pipelined RESP requests, and replies become counts.
//!
//! A key is one `SET key value NX PXAT deadline`, or `ONCE.SEEN` where it has a fingerprint, and behind it
//! `PEXPIREAT key deadline GT`: whoever has the key already keeps it for the later of both deadlines, so
//! that nothing lapses early. A request never depends on the reply to one before it, but for the first of
//! each namespace: keys must not land in another one.

use std::collections::{HashMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::time::Instant;

use anyhow::{anyhow, bail};

use super::Tally;
use super::lines::{Problem, Put, Space};
use crate::address::Address;
use crate::cli::ServerArgs;
use crate::cli::remote::{Stream, lost, unreachable_server};
use crate::engine::DEFAULT_NAMESPACE;
use crate::time::{Millis, parse_duration_ms, parse_u64};

/// Requests that are sent together.
const SEND_BYTES: usize = 64 << 10;
/// Requests without a reply. Were each of them an error, their replies would still be less than what a
/// server keeps for a client that does not read: neither side waits for the other.
const IN_FLIGHT_MAX: usize = 4_096;
/// The longest line of a reply, and the longest text in one.
const REPLY_BYTES_MAX: u64 = 1 << 20;
/// How deep replies are nested at most: `NS INFO` is one array.
const DEPTH_MAX: u32 = 4;
/// The value of a marker.
const MARKER_VALUE: &[u8] = b"1";

/// A connection that keys are loaded through.
pub(super) struct Loader {
    address: Address,
    stream: Stream,
    replies: BufReader<Stream>,
    /// Requests to be sent.
    requests: Vec<u8>,
    /// What was asked and not answered, with the line it was for.
    asked: VecDeque<(u64, Asked)>,
    /// Whether the last key answered for was there before.
    was_present: bool,
    /// Where keys go whose line names no namespace, and how long they are kept.
    default_namespace: String,
    ttl_ms: Option<u64>,
    /// The namespace that the connection is in.
    here: Option<String>,
    namespaces: HashMap<String, Entered>,
    /// The server's clock when it was asked, and when that was.
    server_ms: u64,
    server_asked: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Use,
    Set,
    Seen,
    Later,
}

/// What is known of a namespace.
enum Entered {
    /// It is there, and keeps keys for so long at most.
    TtlMax(u64),
    /// The server does not let us in, in its words.
    Refused(String),
}

enum Reply {
    Word(Vec<u8>),
    Error(String),
    Number(i64),
    Bulk(Option<Vec<u8>>),
    Array(Vec<Reply>),
}

impl Loader {
    pub(super) fn connect(
        at: &ServerArgs,
        namespace: Option<&str>,
        ttl_ms: Option<u64>,
    ) -> anyhow::Result<Self> {
        let address = &at.server;
        let stream = Stream::connect(address, at.timeout)
            .map_err(|err| unreachable_server(address, &err))?;
        let replies = stream.try_clone().map_err(|err| lost(address, &err))?;
        let mut loader = Self {
            address: address.clone(),
            stream,
            replies: BufReader::new(replies),
            requests: Vec::new(),
            asked: VecDeque::new(),
            was_present: false,
            default_namespace: namespace.unwrap_or(DEFAULT_NAMESPACE).to_owned(),
            ttl_ms,
            here: None,
            namespaces: HashMap::new(),
            server_ms: 0,
            server_asked: Instant::now(),
        };
        loader.read_clock()?;
        Ok(loader)
    }

    /// Deadlines are compared with the clock that will be asked about them.
    fn read_clock(&mut self) -> anyhow::Result<()> {
        let reply = self.ask(&[b"TIME"])?;
        let number = |reply: &Reply| match reply {
            Reply::Bulk(Some(digits)) => parse_u64(digits),
            _ => None,
        };
        match &reply {
            Reply::Array(items) if items.len() == 2 => {
                let (seconds, micros) = (number(&items[0]), number(&items[1]));
                let (Some(seconds), Some(micros)) = (seconds, micros) else {
                    return Err(self.not_onced());
                };
                self.server_ms = seconds.saturating_mul(1_000).saturating_add(micros / 1_000);
                self.server_asked = Instant::now();
                Ok(())
            }
            Reply::Error(text) => bail!("the server answered '{text}'"),
            _ => Err(self.not_onced()),
        }
    }

    fn now(&self) -> Millis {
        Millis(self.server_ms).after(self.server_asked.elapsed().as_millis() as u64)
    }

    /// Loads a key.
    pub(super) fn put(&mut self, line: u64, put: Put, tally: &mut Tally) -> anyhow::Result<()> {
        let now = self.now();
        let deadline = put.deadline.or(self.ttl_ms.map(|ms| now.after(ms)));
        if deadline.is_some_and(|deadline| deadline < now) {
            tally.lapsed += 1;
            return Ok(());
        }
        let namespace = match put.namespace {
            Some(named) => named,
            None => self.default_namespace.clone(),
        };
        let Some(ttl_max_ms) = self.enter(line, &namespace, tally)? else {
            return Ok(());
        };
        tally.cut += u64::from(deadline.is_some_and(|deadline| deadline > now.after(ttl_max_ms)));
        let key = &put.key[..];
        let at = deadline.map(|deadline| deadline.0.to_string());
        if let Some(fingerprint) = &put.fingerprint {
            let ttl = match deadline {
                Some(deadline) => format!("{}ms", deadline.since(now).clamp(1, ttl_max_ms)),
                None => "-".to_owned(),
            };
            let (ttl, digits) = (ttl.as_bytes(), fingerprint.as_bytes());
            let words: [&[u8]; 6] = [b"ONCE.SEEN", key, ttl, b"FIXED", b"FP", digits];
            self.push(line, Asked::Seen, &words);
        } else {
            let value = put.value.as_deref().unwrap_or(MARKER_VALUE);
            match &at {
                Some(at) => {
                    let words: [&[u8]; 6] = [b"SET", key, value, b"NX", b"PXAT", at.as_bytes()];
                    self.push(line, Asked::Set, &words);
                }
                None => self.push(line, Asked::Set, &[b"SET", key, value, b"NX"]),
            }
        }
        if let Some(at) = &at {
            let words: [&[u8]; 4] = [b"PEXPIREAT", key, at.as_bytes(), b"GT"];
            self.push(line, Asked::Later, &words);
        }
        if self.requests.len() >= SEND_BYTES {
            self.send()?;
        }
        while self.asked.len() > IN_FLIGHT_MAX {
            self.send()?;
            self.take_reply(tally)?;
        }
        Ok(())
    }

    /// Makes a namespace, unless there is one of that name.
    pub(super) fn space(
        &mut self,
        line: u64,
        space: &Space,
        tally: &mut Tally,
    ) -> anyhow::Result<()> {
        self.settle(tally)?;
        let name = space.name.as_bytes();
        match self.ask(&[b"ONCE.NS", b"INFO", name])? {
            Reply::Array(rows) => {
                let differs = |(option, value): &&(&str, String)| differs(&rows, option, value);
                let differing: Vec<_> = space.options.iter().filter(differs).collect();
                if !differing.is_empty() {
                    let options = differing.iter().map(|(name, _)| *name);
                    let options: Vec<_> = options.collect();
                    let text = format!(
                        "namespace {} is there already and keeps its {}",
                        space.name,
                        options.join(", ")
                    );
                    tally.say(&text);
                }
                return Ok(());
            }
            Reply::Error(text) if text.contains("NONS") => {}
            Reply::Error(text) => {
                tally.refuse(line, &Problem::Refused(text));
                return Ok(());
            }
            _ => return Err(self.not_onced()),
        }
        let mut words: Vec<&[u8]> = vec![b"ONCE.NS", b"SET", name];
        for (option, value) in &space.options {
            words.extend([option.as_bytes(), value.as_bytes()]);
        }
        match self.ask(&words)? {
            Reply::Error(text) => tally.refuse(line, &Problem::Refused(text)),
            _ => tally.namespaces += 1,
        }
        Ok(())
    }

    /// Sees to it that the next key lands in this namespace; its longest ttl, or `None` if the line was
    /// refused for it.
    fn enter(&mut self, line: u64, name: &str, tally: &mut Tally) -> anyhow::Result<Option<u64>> {
        if !self.namespaces.contains_key(name) {
            self.settle(tally)?;
            let entered = self.enter_first(name)?;
            self.namespaces.insert(name.to_owned(), entered);
        }
        let ttl_max_ms = match &self.namespaces[name] {
            Entered::TtlMax(ms) => *ms,
            Entered::Refused(text) => {
                tally.refuse(line, &Problem::Refused(text.clone()));
                return Ok(None);
            }
        };
        if self.here.as_deref() != Some(name) {
            self.push(line, Asked::Use, &[b"ONCE.USE", name.as_bytes()]);
            self.here = Some(name.to_owned());
        }
        Ok(Some(ttl_max_ms))
    }

    fn enter_first(&mut self, name: &str) -> anyhow::Result<Entered> {
        if let Reply::Error(text) = self.ask(&[b"ONCE.USE", name.as_bytes()])? {
            return Ok(Entered::Refused(text));
        }
        self.here = Some(name.to_owned());
        match self.ask(&[b"ONCE.NS", b"INFO", name.as_bytes()])? {
            Reply::Array(rows) => {
                let longest = row(&rows, "maxttl").and_then(|word| parse_duration_ms(word).ok());
                Ok(Entered::TtlMax(longest.ok_or_else(|| self.not_onced())?))
            }
            Reply::Error(text) => Ok(Entered::Refused(text)),
            _ => Err(self.not_onced()),
        }
    }

    /// Waits for all replies.
    pub(super) fn finish(&mut self, tally: &mut Tally) -> anyhow::Result<()> {
        self.settle(tally)
    }

    fn settle(&mut self, tally: &mut Tally) -> anyhow::Result<()> {
        self.send()?;
        while !self.asked.is_empty() {
            self.take_reply(tally)?;
        }
        Ok(())
    }

    fn take_reply(&mut self, tally: &mut Tally) -> anyhow::Result<()> {
        let Some((line, asked)) = self.asked.pop_front() else {
            return Ok(());
        };
        let reply = match self.receive(0) {
            Ok(reply) => reply,
            Err(error) => bail!("{error:#}; the lines before line {line} are loaded"),
        };
        match (asked, reply) {
            // Where its key was refused, the line is counted already; else its key is where it should be.
            (Asked::Later, Reply::Error(_)) | (Asked::Use, Reply::Word(_)) => {}
            (Asked::Later, Reply::Number(changed)) => {
                tally.extended += u64::from(changed == 1 && self.was_present);
            }
            // Keys behind it are in another namespace: that is not to go on.
            (Asked::Use, Reply::Error(text)) => bail!("line {line}: the server answered '{text}'"),
            (Asked::Set | Asked::Seen, Reply::Error(text)) => {
                self.was_present = false;
                tally.refuse(line, &Problem::Refused(text));
            }
            (Asked::Set, Reply::Word(_)) => self.count(false, tally),
            (Asked::Set, Reply::Bulk(None)) => self.count(true, tally),
            (Asked::Seen, Reply::Word(verdict)) => match &verdict[..] {
                b"NEW" | b"UNSURE" => self.count(false, tally),
                b"DUP" | b"MISMATCH" => self.count(true, tally),
                _ => return Err(self.not_onced()),
            },
            _ => return Err(self.not_onced()),
        }
        Ok(())
    }

    fn count(&mut self, was_present: bool, tally: &mut Tally) {
        self.was_present = was_present;
        if was_present {
            tally.present += 1;
        } else {
            tally.new += 1;
        }
    }

    /// Sends a request and waits for its reply; nothing else is on its way.
    fn ask(&mut self, words: &[&[u8]]) -> anyhow::Result<Reply> {
        push_request(words, &mut self.requests);
        self.send()?;
        self.receive(0)
    }

    fn push(&mut self, line: u64, asked: Asked, words: &[&[u8]]) {
        push_request(words, &mut self.requests);
        self.asked.push_back((line, asked));
    }

    fn send(&mut self) -> anyhow::Result<()> {
        let sent = self.stream.write_all(&self.requests);
        self.requests.clear();
        sent.map_err(|err| lost(&self.address, &err))
    }

    fn receive(&mut self, depth: u32) -> anyhow::Result<Reply> {
        let line = self.receive_line()?;
        let Some((kind, rest)) = line.split_first() else {
            return Err(self.not_onced());
        };
        let number = || {
            let number = str::from_utf8(rest).ok()?.parse::<i64>();
            number.ok()
        };
        match kind {
            b'+' => Ok(Reply::Word(rest.to_vec())),
            b'-' => Ok(Reply::Error(String::from_utf8_lossy(rest).into_owned())),
            b':' => number().map(Reply::Number).ok_or_else(|| self.not_onced()),
            b'$' | b'*' if rest == b"-1" => Ok(Reply::Bulk(None)),
            b'$' => {
                let len = parse_u64(rest).filter(|len| *len <= REPLY_BYTES_MAX);
                let len = len.ok_or_else(|| self.not_onced())? as usize;
                let mut bulk = vec![0; len + 2];
                let read = self.replies.read_exact(&mut bulk);
                read.map_err(|err| lost(&self.address, &err))?;
                bulk.truncate(len);
                Ok(Reply::Bulk(Some(bulk)))
            }
            b'*' if depth < DEPTH_MAX => {
                let count = parse_u64(rest).ok_or_else(|| self.not_onced())?;
                let mut items = Vec::new();
                for _ in 0..count {
                    items.push(self.receive(depth + 1)?);
                }
                Ok(Reply::Array(items))
            }
            _ => Err(self.not_onced()),
        }
    }

    fn receive_line(&mut self) -> anyhow::Result<Vec<u8>> {
        let mut line = Vec::new();
        let read = (&mut self.replies)
            .take(REPLY_BYTES_MAX)
            .read_until(b'\n', &mut line);
        read.map_err(|err| lost(&self.address, &err))?;
        if line.is_empty() {
            bail!("the server at {} closed the connection", self.address);
        }
        match line.strip_suffix(b"\r\n") {
            Some(line) => Ok(line.to_vec()),
            None => Err(self.not_onced()),
        }
    }

    fn not_onced(&self) -> anyhow::Error {
        anyhow!(
            "{} is not onced, or another version of it: it answered something unknown",
            self.address
        )
    }
}

/// Whether a namespace's row says something else than an option of `NS SET` would make it say.
fn differs(rows: &[Reply], option: &str, value: &str) -> bool {
    let name = match option {
        "KEYS" => "key_form".to_owned(),
        "UNSURE" => "unsure_policy".to_owned(),
        option => option.to_ascii_lowercase(),
    };
    let there = row(rows, &name);
    let is_same = there.is_some_and(|there| {
        there.eq_ignore_ascii_case(value.as_bytes())
            || parse_duration_ms(there)
                .is_ok_and(|ms| parse_duration_ms(value.as_bytes()) == Ok(ms))
    });
    !is_same
}

/// The value of a row of `NS INFO`.
fn row<'a>(rows: &'a [Reply], name: &str) -> Option<&'a [u8]> {
    rows.chunks(2).find_map(|pair| match pair {
        [Reply::Bulk(Some(row)), Reply::Bulk(Some(value))] if row == name.as_bytes() => {
            Some(&value[..])
        }
        _ => None,
    })
}

fn push_request(words: &[&[u8]], out: &mut Vec<u8>) {
    let head = |kind: char, count: usize, out: &mut Vec<u8>| {
        out.extend_from_slice(format!("{kind}{count}\r\n").as_bytes());
    };
    head('*', words.len(), out);
    for word in words {
        head('$', word.len(), out);
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}
