//! One connection's bytes, received whole and in pieces: the same requests must be found, and
//! each, executed on a small engine of its own under virtual time, must be answered the same.

use onced::command::{Code, Error, Reply, lookup_line, lookup_resp};
use onced::engine::{Engine, EngineConfig, Session};
use onced::limits::Limits;
use onced::time::Millis;
use onced::wire::{Decoded, Decoder, Dialect};

/// Small enough that a fuzzer gets beyond them.
const LIMITS: Limits = Limits {
    key_bytes_max: 64,
    request_bytes_max: 256,
    batch_keys_max: 16,
    body_bytes_max: 128,
    namespaces_max: 4,
    ..Limits::DEFAULT
};
/// Memory that a few dozen keys fill.
const MEMORY_BYTES_MAX: usize = 16 << 10;
const START: Millis = Millis(1_790_000_000_000);
/// How far time moves with every request.
const REQUEST_MS: u64 = 7;

/// What became of a stretch of bytes.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Request { words: Vec<Vec<u8>>, reply: Vec<u8> },
    Refused(Error, bool),
}

/// Receives `bytes` whole, byte by byte, and in pieces of `piece` bytes, and compares.
pub(crate) fn agree(bytes: &[u8], piece: usize) {
    let whole = found(bytes, bytes.len().max(1));
    for piece in [1, piece.max(1)] {
        assert_eq!(whole, found(bytes, piece), "in pieces of {piece} bytes");
    }
}

/// All that a connection receiving `piece` bytes at a time would find, until it closes.
fn found(bytes: &[u8], piece: usize) -> Vec<Found> {
    let engine = Engine::new(EngineConfig {
        limits: LIMITS,
        memory_bytes_max: MEMORY_BYTES_MAX,
        shards: 1,
        ..EngineConfig::default()
    });
    let mut session = engine.session();
    let mut found = Vec::new();
    let mut decoder = Decoder::default();
    let (mut at, mut received, mut calls) = (0, 0, 0);
    loop {
        calls += 1;
        assert!(calls <= 2 * bytes.len() + 2, "every call gets somewhere");
        let input = &bytes[at..received];
        let is_resp = bytes.first() == Some(&b'*');
        let consumed = match decoder.next(input, &LIMITS) {
            Decoded::Incomplete if received == bytes.len() => return found,
            Decoded::Incomplete => {
                received = bytes.len().min(received + piece);
                continue;
            }
            Decoded::Skip { consumed } => consumed,
            Decoded::Request { consumed, args } => {
                let words = (0..args.len()).map(|i| args.get(i).to_vec());
                let words = [args.verb().to_vec()].into_iter().chain(words).collect();
                let now = START.after(REQUEST_MS * found.len() as u64);
                let verb = if is_resp {
                    lookup_resp(args.verb())
                } else {
                    lookup_line(args.verb())
                };
                let command = verb
                    .ok_or(Error::new(Code::Unknown, "unknown"))
                    .and_then(|verb| verb.spec().parse(&args, &LIMITS));
                // What came with the request is consumed with it.
                let is_refused = command.is_err() && args.body().is_none();
                let reply = match command {
                    Ok(command) => encoded(&engine.execute(&mut session, &command, now), is_resp),
                    Err(error) => encoded(&Reply::Error(error), is_resp),
                };
                check_session(&engine, &session);
                found.push(Found::Request { words, reply });
                // As the server does with what it cannot execute.
                if is_refused && decoder.refuse(&input[..consumed]) {
                    return found;
                }
                consumed
            }
            Decoded::Refused {
                consumed,
                error,
                close,
            } => {
                found.push(Found::Refused(error, close));
                if close {
                    return found;
                }
                consumed
            }
        };
        assert!(consumed > 0, "a decoder that consumes nothing never ends");
        assert!(
            consumed <= input.len(),
            "only what was received is consumed"
        );
        at += consumed;
    }
}

/// A reply in its dialect; in RESP in both versions, one behind the other.
fn encoded(reply: &Reply<'_>, is_resp: bool) -> Vec<u8> {
    let mut out = Vec::new();
    if is_resp {
        Dialect::Resp(2).encode(reply, &mut out);
        Dialect::Resp(3).encode(reply, &mut out);
        assert!(out.ends_with(b"\r\n"));
    } else {
        Dialect::Line.encode(reply, &mut out);
        let lines = 1 + match reply {
            Reply::Rows(rows) => rows.len(),
            Reply::Outcome { body, .. } => 1 + body.iter().filter(|&&b| b == b'\n').count(),
            _ => 0,
        };
        let ends = out.iter().filter(|&&b| b == b'\n').count();
        assert_eq!(ends, lines, "the first line tells the reply's whole shape");
        assert!(out.ends_with(b"\n"));
    }
    out
}

fn check_session(engine: &Engine, session: &Session) {
    // Ending work that was begun may take a twentieth more, and a few bytes for each record.
    let totals = engine.totals();
    let reserve = MEMORY_BYTES_MAX / 20 + 40 * totals.keys as usize;
    assert!(engine.budget().used() <= MEMORY_BYTES_MAX + reserve);
    assert!(totals.namespaces <= LIMITS.namespaces_max);
    assert!(!session.namespace().name().is_empty());
}
