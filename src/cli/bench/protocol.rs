//! What is asked and how it is worded: requests written into a buffer.
//!
//! All requests of a run have the same length and differ in their keys only, so an [`Encoder`]
//! formats everything else once. It writes and never reads; `reply.rs` is its counterpart.

use clap::ValueEnum;

use super::workload::KeyStream;
use crate::time::DurationWord;

/// How requests are worded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Protocol {
    /// onced's line protocol.
    Line,
    /// RESP2, Redis's protocol.
    Resp,
    /// memcached's text protocol.
    Memcached,
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Command {
    /// One key per request: SEEN key ttl (over RESP: ONCE.SEEN).
    Seen,
    /// Many keys per request: MSEEN ttl key... (over RESP: ONCE.MSEEN).
    Mseen,
    /// SET key 1 NX PX ms: any Redis-compatible server answers it.
    Set,
    /// add key 0 ttl 1: any memcached-compatible server answers it.
    Add,
    /// PING: the cost of a round trip, without a key.
    Ping,
}

impl Protocol {
    /// The word on the command line.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Line => "line",
            Self::Resp => "resp",
            Self::Memcached => "memcached",
        }
    }

    /// The commands that can be asked this way, the default first.
    pub(super) const fn commands(self) -> &'static [Command] {
        match self {
            Self::Line => &[Command::Seen, Command::Mseen, Command::Ping],
            Self::Resp => &[Command::Seen, Command::Mseen, Command::Set, Command::Ping],
            Self::Memcached => &[Command::Add],
        }
    }
}

impl Command {
    /// The word on the command line.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Seen => "seen",
            Self::Mseen => "mseen",
            Self::Set => "set",
            Self::Add => "add",
            Self::Ping => "ping",
        }
    }
}

/// Everything that decides the bytes of a request but the key itself.
#[derive(Clone, Debug)]
pub(super) struct RequestForm {
    /// How the request is worded.
    pub(super) protocol: Protocol,
    /// What is asked; one of the protocol's [`Protocol::commands`].
    pub(super) command: Command,
    /// Keys in one `mseen`.
    pub(super) batch: usize,
    /// The window asked for, in milliseconds.
    pub(super) ttl_ms: u64,
    /// What every key begins with.
    pub(super) prefix: String,
    /// The length of a key behind its prefix, in bytes.
    pub(super) key_bytes: usize,
}

impl RequestForm {
    /// How many keys one request carries.
    pub(super) const fn keys_per_request(&self) -> usize {
        match self.command {
            Command::Seen | Command::Set | Command::Add => 1,
            Command::Mseen => self.batch,
            Command::Ping => 0,
        }
    }
}

/// Writes requests: fixed bytes around each key.
#[derive(Debug)]
pub(super) struct Encoder {
    head: Vec<u8>,
    before_key: Vec<u8>,
    after_key: Vec<u8>,
    tail: Vec<u8>,
    keys_per_request: usize,
    request_bytes: usize,
}

impl Encoder {
    /// The encoder for one form of request.
    pub(super) fn new(form: &RequestForm) -> Self {
        let [head, before_key, after_key, tail] = match form.protocol {
            Protocol::Line => line_parts(form),
            Protocol::Resp => resp_parts(form),
            Protocol::Memcached => memcached_parts(form),
        };
        let keys_per_request = form.keys_per_request();
        let key_bytes = before_key.len() + form.key_bytes + after_key.len();
        Self {
            request_bytes: head.len() + key_bytes * keys_per_request + tail.len(),
            head: head.into_bytes(),
            before_key: before_key.into_bytes(),
            after_key: after_key.into_bytes(),
            tail: tail.into_bytes(),
            keys_per_request,
        }
    }

    /// Appends one request to `out`, its keys taken from `keys`.
    pub(super) fn write_request(&self, keys: &mut KeyStream, out: &mut Vec<u8>) {
        out.reserve(self.request_bytes);
        out.extend_from_slice(&self.head);
        for _ in 0..self.keys_per_request {
            out.extend_from_slice(&self.before_key);
            keys.write_next(out);
            out.extend_from_slice(&self.after_key);
        }
        out.extend_from_slice(&self.tail);
    }

    /// The length of every request, in bytes.
    pub(super) const fn request_bytes(&self) -> usize {
        self.request_bytes
    }
}

/// A request's fixed parts: head, before each key, after each key, tail.
type Parts = [String; 4];

fn line_parts(form: &RequestForm) -> Parts {
    let prefix = &form.prefix;
    let ttl = DurationWord(form.ttl_ms);
    match form.command {
        Command::Mseen => [
            format!("MSEEN {ttl}"),
            format!(" {prefix}"),
            String::new(),
            "\n".to_owned(),
        ],
        Command::Ping => [
            "PING\n".to_owned(),
            String::new(),
            String::new(),
            String::new(),
        ],
        Command::Seen | Command::Set | Command::Add => [
            "SEEN ".to_owned(),
            prefix.clone(),
            String::new(),
            format!(" {ttl}\n"),
        ],
    }
}

fn resp_parts(form: &RequestForm) -> Parts {
    let bulk = |word: &str| format!("${}\r\n{word}\r\n", word.len());
    let ttl = DurationWord(form.ttl_ms).to_string();
    let before_key = format!("${}\r\n{}", form.prefix.len() + form.key_bytes, form.prefix);
    let after_key = "\r\n".to_owned();
    match form.command {
        Command::Mseen => [
            format!(
                "*{}\r\n{}{}",
                form.batch + 2,
                bulk("ONCE.MSEEN"),
                bulk(&ttl)
            ),
            before_key,
            after_key,
            String::new(),
        ],
        Command::Ping => [
            format!("*1\r\n{}", bulk("PING")),
            String::new(),
            String::new(),
            String::new(),
        ],
        Command::Set => [
            format!("*6\r\n{}", bulk("SET")),
            before_key,
            after_key,
            format!(
                "{}{}{}{}",
                bulk("1"),
                bulk("NX"),
                bulk("PX"),
                bulk(&form.ttl_ms.to_string())
            ),
        ],
        Command::Seen | Command::Add => [
            format!("*3\r\n{}", bulk("ONCE.SEEN")),
            before_key,
            after_key,
            bulk(&ttl),
        ],
    }
}

fn memcached_parts(form: &RequestForm) -> Parts {
    [
        "add ".to_owned(),
        form.prefix.clone(),
        String::new(),
        // memcached counts whole seconds; rounded up, as a window never ends early.
        format!(" 0 {} 1\r\n1\r\n", form.ttl_ms.div_ceil(1_000)),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::workload::{Draw, KeyShape};
    use super::*;

    fn encode(protocol: Protocol, command: Command, prefix: &str) -> String {
        let form = RequestForm {
            protocol,
            command,
            batch: 2,
            ttl_ms: 3_600_000,
            prefix: prefix.to_owned(),
            key_bytes: 16,
        };
        let encoder = Encoder::new(&form);
        let mut keys = KeyStream::new(KeyShape::Int(16), Draw::Repeat(0.0), 1, 0, 1);
        let mut out = Vec::new();
        encoder.write_request(&mut keys, &mut out);
        assert_eq!(out.len(), encoder.request_bytes());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn requests_are_worded_as_each_protocol_wants() {
        let mut keys = KeyStream::new(KeyShape::Int(16), Draw::Repeat(0.0), 1, 0, 1);
        let mut texts = [Vec::new(), Vec::new()];
        for text in &mut texts {
            keys.write_next(text);
        }
        let [a, b] = texts.map(|text| String::from_utf8(text).unwrap());
        let cases = [
            (Protocol::Line, Command::Seen, format!("SEEN p:{a} 1h\n")),
            (
                Protocol::Line,
                Command::Mseen,
                format!("MSEEN 1h p:{a} p:{b}\n"),
            ),
            (Protocol::Line, Command::Ping, "PING\n".to_owned()),
            (
                Protocol::Resp,
                Command::Seen,
                format!("*3\r\n$9\r\nONCE.SEEN\r\n$18\r\np:{a}\r\n$2\r\n1h\r\n"),
            ),
            (
                Protocol::Resp,
                Command::Mseen,
                format!("*4\r\n$10\r\nONCE.MSEEN\r\n$2\r\n1h\r\n$18\r\np:{a}\r\n$18\r\np:{b}\r\n"),
            ),
            (
                Protocol::Resp,
                Command::Set,
                format!(
                    "*6\r\n$3\r\nSET\r\n$18\r\np:{a}\r\n$1\r\n1\r\n$2\r\nNX\r\n$2\r\nPX\r\n$7\r\n3600000\r\n"
                ),
            ),
            (
                Protocol::Resp,
                Command::Ping,
                "*1\r\n$4\r\nPING\r\n".to_owned(),
            ),
            (
                Protocol::Memcached,
                Command::Add,
                format!("add p:{a} 0 3600 1\r\n1\r\n"),
            ),
        ];
        for (protocol, command, want) in cases {
            assert_eq!(encode(protocol, command, "p:"), want);
        }
    }

    #[test]
    fn every_command_a_protocol_offers_can_be_encoded() {
        for protocol in Protocol::value_variants() {
            for command in protocol.commands() {
                assert!(!encode(*protocol, *command, "").is_empty());
            }
        }
    }
}
