//! A caller of an engine without a server: requests as bytes, replies as text.

#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a test fails by panicking"
)]

use onced::command::{lookup_line, lookup_resp};
use onced::engine::{Engine, Session};
use onced::time::Millis;
use onced::wire::{Decoded, Decoder, Dialect};

/// One caller of an engine: what a connection would be.
pub struct Caller {
    decoder: Decoder,
    session: Session,
    dialect: Dialect,
}

impl Caller {
    pub fn new(engine: &Engine, dialect: Dialect) -> Self {
        Self {
            decoder: Decoder::default(),
            session: engine.session(),
            dialect,
        }
    }

    pub fn ask(&mut self, engine: &Engine, request: &[u8], now: Millis) -> String {
        let Decoded::Request { consumed, args } = self.decoder.next(request, engine.limits())
        else {
            panic!("not one request: {}", request.escape_ascii());
        };
        assert_eq!(consumed, request.len());
        let verb = match self.dialect {
            Dialect::Line => lookup_line(args.verb()),
            Dialect::Resp(_) => lookup_resp(args.verb()),
        };
        let command = verb
            .expect("a known verb")
            .spec()
            .parse(&args, engine.limits())
            .unwrap_or_else(|error| panic!("{}: {error}", request.escape_ascii()));
        let mut reply = Vec::new();
        self.dialect.encode(
            &engine.execute(&mut self.session, &command, now),
            &mut reply,
        );
        gist(&String::from_utf8(reply).expect("all words here are text"))
    }
}

/// A reply, of an error only its code.
pub fn gist(reply: &str) -> String {
    let words = match reply.as_bytes() {
        [b'E', b'R', b'R', ..] => 2,
        [b'-', ..] => 1,
        _ => return reply.to_owned(),
    };
    reply
        .trim_end()
        .split(' ')
        .take(words)
        .collect::<Vec<_>>()
        .join(" ")
}

pub fn resp_request(words: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
    bytes
}

/// Gives back all that has lapsed: what is left of a round that has begun, then a round of its own.
pub fn sweep_all(engine: &Engine, now: Millis) {
    for _ in 0..2 {
        while engine.sweep(now) {}
    }
}
