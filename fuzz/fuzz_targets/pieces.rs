//! One stream of bytes, decoded whole and in pieces: the same requests must be found.

use onced::command::{Error, lookup_line, lookup_resp};
use onced::limits::Limits;
use onced::wire::{Decoded, Decoder};

/// Small enough that a fuzzer gets beyond them.
const LIMITS: Limits = Limits {
    key_bytes_max: 64,
    request_bytes_max: 256,
    batch_keys_max: 16,
    body_bytes_max: 128,
    ..Limits::DEFAULT
};

/// What a decoder made of a stretch of bytes.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Request(Vec<Vec<u8>>),
    Refused(Error, bool),
}

/// Decodes `bytes` whole, byte by byte, and in pieces of `piece` bytes, and compares.
pub(crate) fn agree(bytes: &[u8], piece: usize) {
    let whole = found(bytes, bytes.len().max(1));
    for piece in [1, piece.max(1)] {
        assert_eq!(whole, found(bytes, piece), "in pieces of {piece} bytes");
    }
}

/// All that a connection receiving `piece` bytes at a time would find, until it closes.
fn found(bytes: &[u8], piece: usize) -> Vec<Found> {
    let mut found = Vec::new();
    let mut decoder = Decoder::default();
    let (mut at, mut received, mut idle) = (0, 0, 0);
    loop {
        let input = &bytes[at..received];
        let consumed = match decoder.next(input, &LIMITS) {
            Decoded::Incomplete if received == bytes.len() => return found,
            Decoded::Incomplete => {
                received = bytes.len().min(received + piece);
                continue;
            }
            Decoded::Skip { consumed } => consumed,
            Decoded::Request { consumed, args } => {
                let words = (0..args.len()).map(|i| args.get(i).to_vec());
                found.push(Found::Request(
                    [args.verb().to_vec()].into_iter().chain(words).collect(),
                ));
                let known = lookup_line(args.verb()).or_else(|| lookup_resp(args.verb()));
                // As the server does with what it cannot execute.
                if known.is_none() && decoder.refuse(&input[..consumed]) {
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
        // An announced body of no bytes is skipped without consuming anything, once.
        idle = if consumed == 0 { idle + 1 } else { 0 };
        assert!(idle < 2, "a decoder that consumes nothing never ends");
        assert!(
            consumed <= input.len(),
            "only what was received is consumed"
        );
        at += consumed;
    }
}
