//! What came back: replies read out of a buffer, judged and counted.
//!
//! Pure functions over bytes, so that they can be tested without a socket. Every reply is parsed;
//! none is taken on trust for its length. A reply that is complete but wrong is an error in the
//! [`Tally`] and the run goes on; only bytes in which no reply can be made out end it
//! ([`Unframed`]).

use std::ops::AddAssign;

use memchr::memchr;
use thiserror::Error;

use super::protocol::{Command, Protocol, RequestForm};
use crate::time::parse_u64;

/// What the replies said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Requests sent.
    pub(super) requests: u64,
    /// Different keys among those requests that were not used earlier in the run.
    pub(super) keys_fresh: u64,
    /// Replies read, of whatever kind.
    pub(super) replies: u64,
    /// Keys answered as seen for the first time.
    pub(super) new: u64,
    /// Keys answered as seen before.
    pub(super) dup: u64,
    /// Keys answered as seen before with another fingerprint.
    pub(super) mismatch: u64,
    /// Keys the server could not be sure about.
    pub(super) unsure: u64,
    /// Answers to `ping`.
    pub(super) pong: u64,
    /// Error replies, replies that make no sense, and keys that could not be stored.
    pub(super) errors: u64,
    /// The text of the first of those.
    pub(super) first_error: Option<String>,
}

impl Tally {
    const fn add(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::New => self.new += 1,
            Verdict::Dup => self.dup += 1,
            Verdict::Mismatch => self.mismatch += 1,
            Verdict::Unsure => self.unsure += 1,
            Verdict::Pong => self.pong += 1,
        }
    }

    fn add_errors(&mut self, count: u64, text: impl FnOnce() -> String) {
        self.errors += count;
        if self.first_error.is_none() {
            self.first_error = Some(text());
        }
    }

    fn add_unexpected(&mut self, reply: &[u8]) {
        self.add_errors(1, || format!("unexpected reply '{}'", excerpt(reply)));
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.requests += other.requests;
        self.keys_fresh += other.keys_fresh;
        self.replies += other.replies;
        self.new += other.new;
        self.dup += other.dup;
        self.mismatch += other.mismatch;
        self.unsure += other.unsure;
        self.pong += other.pong;
        self.errors += other.errors;
        self.first_error = self.first_error.take().or(other.first_error);
    }
}

/// The longest reply that is read, in bytes. The longest one that can be expected has a letter
/// for each of 10,000 keys.
pub(super) const REPLY_BYTES_MAX: usize = 64 * 1024;

/// Bytes in which no reply can be made out, so that nothing behind them can be trusted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum Unframed {
    /// The bytes are no RESP reply.
    #[error("the server answered '{0}', which is no RESP reply; does it speak RESP on this port?")]
    NotResp(String),
    /// A reply beyond [`REPLY_BYTES_MAX`].
    #[error("the server sent a reply of more than {REPLY_BYTES_MAX} bytes")]
    TooLong,
}

/// Reads and judges replies.
#[derive(Debug)]
pub(super) struct Decoder {
    framing: Framing,
    expected: Expected,
    /// The usual replies, byte by byte; only what differs from them is parsed.
    usual: &'static [(&'static [u8], Verdict)],
}

/// How much [`Decoder::count`] took in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counted {
    /// Replies read.
    pub(super) replies: usize,
    /// Bytes they took.
    pub(super) bytes: usize,
}

#[derive(Clone, Copy, Debug)]
enum Framing {
    Lines,
    Resp,
}

#[derive(Clone, Copy, Debug)]
enum Expected {
    /// One of the named words, or null.
    Word(&'static [(&'static str, Verdict)]),
    /// One letter for each of this many keys.
    Letters(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    New,
    Dup,
    Mismatch,
    Unsure,
    Pong,
}

/// One complete reply.
enum Reply<'a> {
    Text(&'a [u8]),
    Error(&'a [u8]),
    Null,
}

const SEEN_WORDS: &[(&str, Verdict)] = &[
    ("NEW", Verdict::New),
    ("DUP", Verdict::Dup),
    ("MISMATCH", Verdict::Mismatch),
    ("UNSURE", Verdict::Unsure),
];

impl Decoder {
    /// The decoder for the replies to one form of request.
    pub(super) const fn new(form: &RequestForm) -> Self {
        let framing = match form.protocol {
            Protocol::Line | Protocol::Memcached => Framing::Lines,
            Protocol::Resp => Framing::Resp,
        };
        let (expected, usual): (_, &[(&[u8], _)]) = match (form.command, framing) {
            (Command::Mseen, _) => (Expected::Letters(form.batch), &[]),
            (Command::Seen, Framing::Lines) => (
                Expected::Word(SEEN_WORDS),
                &[(b"NEW\n", Verdict::New), (b"DUP\n", Verdict::Dup)],
            ),
            (Command::Seen, Framing::Resp) => (
                Expected::Word(SEEN_WORDS),
                &[(b"+NEW\r\n", Verdict::New), (b"+DUP\r\n", Verdict::Dup)],
            ),
            (Command::Set, _) => (
                Expected::Word(&[("OK", Verdict::New)]),
                &[(b"+OK\r\n", Verdict::New), (b"$-1\r\n", Verdict::Dup)],
            ),
            (Command::Add, _) => (
                Expected::Word(&[("STORED", Verdict::New), ("NOT_STORED", Verdict::Dup)]),
                &[
                    (b"STORED\r\n", Verdict::New),
                    (b"NOT_STORED\r\n", Verdict::Dup),
                ],
            ),
            (Command::Ping, _) => (Expected::Word(&[("PONG", Verdict::Pong)]), &[]),
        };
        Self {
            framing,
            expected,
            usual,
        }
    }

    /// Counts the complete replies at the start of `bytes`, `replies_max` at most, in `tally`.
    pub(super) fn count(
        &self,
        bytes: &[u8],
        replies_max: usize,
        tally: &mut Tally,
    ) -> Result<Counted, Unframed> {
        let mut counted = Counted {
            replies: 0,
            bytes: 0,
        };
        while counted.replies < replies_max {
            let rest = &bytes[counted.bytes..];
            let usual = self.usual.iter().find(|(reply, _)| rest.starts_with(reply));
            counted.bytes += if let Some((reply, verdict)) = usual {
                tally.add(*verdict);
                reply.len()
            } else {
                match self.next_reply(rest)? {
                    Some((reply, len)) => {
                        self.judge(&reply, tally);
                        len
                    }
                    None => break,
                }
            };
            counted.replies += 1;
        }
        tally.replies += counted.replies as u64;
        Ok(counted)
    }

    /// The reply at the start of `bytes` and its length; `None` while it is incomplete.
    fn next_reply<'a>(&self, bytes: &'a [u8]) -> Result<Option<(Reply<'a>, usize)>, Unframed> {
        let Some(end) = memchr(b'\n', bytes) else {
            return match bytes.first() {
                Some(&first) if !self.may_begin(first) => Err(not_resp(bytes)),
                _ if bytes.len() >= REPLY_BYTES_MAX => Err(Unframed::TooLong),
                _ => Ok(None),
            };
        };
        let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
        let after = end + 1;
        match self.framing {
            Framing::Lines if is_error_line(line) => Ok(Some((Reply::Error(line), after))),
            Framing::Lines => Ok(Some((Reply::Text(line), after))),
            Framing::Resp => resp_reply(bytes, line, after),
        }
    }

    /// Whether a reply may begin with this byte; so a peer that does not speak RESP is found out
    /// before it ever sends a line end.
    const fn may_begin(&self, first: u8) -> bool {
        match self.framing {
            Framing::Lines => true,
            Framing::Resp => matches!(first, b'+' | b'-' | b':' | b'$' | b'*' | b'_'),
        }
    }

    fn judge(&self, reply: &Reply<'_>, tally: &mut Tally) {
        match (reply, self.expected) {
            (Reply::Error(text), _) => tally.add_errors(1, || excerpt(text)),
            (Reply::Null, Expected::Word(&[("OK", _)])) => tally.add(Verdict::Dup),
            (Reply::Null, _) => tally.add_unexpected(b"null"),
            (Reply::Text(text), Expected::Word(words)) => {
                match words.iter().find(|(word, _)| word.as_bytes() == *text) {
                    Some(&(_, verdict)) => tally.add(verdict),
                    None => tally.add_unexpected(text),
                }
            }
            (Reply::Text(text), Expected::Letters(keys)) => count_letters(text, keys, tally),
        }
    }
}

/// The RESP reply whose first line is `line` and ends before `after`.
fn resp_reply<'a>(
    bytes: &'a [u8],
    line: &'a [u8],
    after: usize,
) -> Result<Option<(Reply<'a>, usize)>, Unframed> {
    let (kind, rest) = line.split_first().ok_or_else(|| not_resp(bytes))?;
    match (kind, rest) {
        (b'+' | b':', text) => Ok(Some((Reply::Text(text), after))),
        (b'-', text) => Ok(Some((Reply::Error(text), after))),
        (b'$' | b'*', b"-1") | (b'_', b"") => Ok(Some((Reply::Null, after))),
        (b'$', digits) => {
            let len = parse_u64(digits).ok_or_else(|| not_resp(bytes))?;
            if len > REPLY_BYTES_MAX as u64 - 64 {
                return Err(Unframed::TooLong);
            }
            let end = after + len as usize;
            match bytes.get(end..end + 2) {
                Some(b"\r\n") => Ok(Some((Reply::Text(&bytes[after..end]), end + 2))),
                Some(_) => Err(not_resp(bytes)),
                None => Ok(None),
            }
        }
        // No command asked here is answered with an array.
        _ => Err(not_resp(bytes)),
    }
}

fn count_letters(letters: &[u8], keys: usize, tally: &mut Tally) {
    // Without a branch per letter, so that the compiler can count many at a time.
    let count = |letter| letters.iter().map(|&b| u64::from(b == letter)).sum::<u64>();
    let [new, dup] = [b'N', b'D'].map(count);
    let mut known = new + dup;
    let mut rare = [0; 3];
    if known < letters.len() as u64 {
        rare = [b'M', b'U', b'E'].map(count);
        known += rare.iter().sum::<u64>();
    }
    if letters.len() != keys || known != keys as u64 {
        tally.add_unexpected(letters);
        return;
    }
    let [mismatch, unsure, not_stored] = rare;
    tally.new += new;
    tally.dup += dup;
    tally.mismatch += mismatch;
    tally.unsure += unsure;
    if not_stored > 0 {
        tally.add_errors(not_stored, || {
            "E: a key of the batch could not be stored (the server is full or read-only)".to_owned()
        });
    }
}

/// Errors of onced (`ERR`), Redis (`-`, when it is asked in lines) and memcached.
fn is_error_line(line: &[u8]) -> bool {
    let starts: [&[u8]; 5] = [b"ERR ", b"ERROR", b"-", b"CLIENT_ERROR", b"SERVER_ERROR"];
    starts.iter().any(|start| line.starts_with(start))
}

fn not_resp(bytes: &[u8]) -> Unframed {
    let line_end = memchr(b'\n', bytes).unwrap_or(bytes.len());
    Unframed::NotResp(excerpt(&bytes[..line_end]))
}

/// The start of a text from the network, safe to print on a terminal.
pub(super) fn excerpt(text: &[u8]) -> String {
    const SHOWN_MAX: usize = 160;
    let mut shown = String::new();
    for &byte in text.iter().take(SHOWN_MAX) {
        if matches!(byte, b' '..=b'~') {
            shown.push(char::from(byte));
        } else {
            shown.extend(byte.escape_ascii().map(char::from));
        }
    }
    if text.len() > SHOWN_MAX {
        shown.push_str("...");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoder(protocol: Protocol, command: Command) -> Decoder {
        Decoder::new(&RequestForm {
            protocol,
            command,
            batch: 5,
            ttl_ms: 1_000,
            prefix: String::new(),
            key_bytes: 16,
        })
    }

    /// Feeds `pieces` one after another, as a connection does: what was not taken in is offered
    /// again with the next piece.
    fn feed(decoder: &Decoder, pieces: &[&[u8]]) -> Result<(Tally, Vec<u8>), Unframed> {
        let mut tally = Tally::default();
        let mut pending = Vec::new();
        for piece in pieces {
            pending.extend_from_slice(piece);
            let counted = decoder.count(&pending, usize::MAX, &mut tally)?;
            pending.drain(..counted.bytes);
        }
        Ok((tally, pending))
    }

    /// Protocol, command, replies, and what they add up to:
    /// replies, new, dup, mismatch, unsure, pong, errors.
    type Case = (Protocol, Command, &'static [u8], [u64; 7]);

    const CASES: &[Case] = &[
        (
            Protocol::Line,
            Command::Seen,
            b"NEW\nDUP\nDUP\r\nMISMATCH\nUNSURE\nERR FULL no memory\nNEWER\n\nNEW\n",
            [9, 2, 2, 1, 1, 0, 3],
        ),
        (
            Protocol::Line,
            Command::Mseen,
            b"NNDDN\nNDMUE\nNNN\nNNNNX\nERR ARGS nothing\nERRRR\nDDDDD\n",
            [7, 4, 8, 1, 1, 0, 5],
        ),
        (
            Protocol::Line,
            Command::Ping,
            b"PONG\nPONG\r\nDUP\n",
            [3, 0, 0, 0, 0, 2, 1],
        ),
        (
            Protocol::Resp,
            Command::Seen,
            b"+NEW\r\n+DUP\r\n$3\r\nNEW\r\n+MISMATCH\r\n+UNSURE\r\n-ERR no\r\n$-1\r\n:1\r\n",
            [8, 2, 1, 1, 1, 0, 3],
        ),
        (
            Protocol::Resp,
            Command::Mseen,
            b"$5\r\nNNDDN\r\n+NNDDE\r\n$4\r\nNNDD\r\n-OOM full\r\n",
            [4, 5, 4, 0, 0, 0, 3],
        ),
        (
            Protocol::Resp,
            Command::Set,
            b"+OK\r\n$-1\r\n_\r\n*-1\r\n-MOVED 1 x\r\n$1\r\n1\r\n+OK\r\n",
            [7, 2, 3, 0, 0, 0, 2],
        ),
        (
            Protocol::Resp,
            Command::Ping,
            b"+PONG\r\n$4\r\nPONG\r\n-NOAUTH\r\n",
            [3, 0, 0, 0, 0, 2, 1],
        ),
        (
            Protocol::Memcached,
            Command::Add,
            b"STORED\r\nNOT_STORED\r\nERROR\r\nCLIENT_ERROR bad\r\nSERVER_ERROR oom\r\nEXISTS\r\n",
            [6, 1, 1, 0, 0, 0, 4],
        ),
    ];

    fn totals(tally: &Tally) -> [u64; 7] {
        [
            tally.replies,
            tally.new,
            tally.dup,
            tally.mismatch,
            tally.unsure,
            tally.pong,
            tally.errors,
        ]
    }

    #[test]
    fn replies_count_alike_wherever_they_are_split() {
        for &(protocol, command, bytes, want) in CASES {
            let decoder = decoder(protocol, command);
            for split in 0..=bytes.len() {
                let (tally, rest) = feed(&decoder, &[&bytes[..split], &bytes[split..]]).unwrap();
                assert_eq!(totals(&tally), want, "{protocol:?} {command:?} at {split}");
                assert!(rest.is_empty());
            }
            let singly: Vec<_> = bytes.chunks(1).collect();
            let (tally, _) = feed(&decoder, &singly).unwrap();
            assert_eq!(
                totals(&tally),
                want,
                "{protocol:?} {command:?} byte by byte"
            );
        }
    }

    #[test]
    fn an_incomplete_reply_is_not_counted() {
        for &(protocol, command, bytes, want) in CASES {
            let decoder = decoder(protocol, command);
            let (tally, rest) = feed(&decoder, &[&bytes[..bytes.len() - 1]]).unwrap();
            assert_eq!(tally.replies, want[0] - 1, "{protocol:?} {command:?}");
            assert!(!rest.is_empty());
        }
    }

    #[test]
    fn no_more_replies_are_taken_than_asked_for() {
        let decoder = decoder(Protocol::Line, Command::Seen);
        let mut tally = Tally::default();
        let counted = decoder.count(b"NEW\nDUP\nDUP\n", 2, &mut tally).unwrap();
        assert_eq!((counted.replies, counted.bytes), (2, 8));
        assert_eq!((tally.new, tally.dup, tally.replies), (1, 1, 2));
    }

    #[test]
    fn the_first_error_is_kept_and_safe_to_print() {
        let decoder = decoder(Protocol::Line, Command::Seen);
        let (tally, _) = feed(&decoder, &[b"NEW\nno\x1b[2J 'sense'\nERR FULL\n"]).unwrap();
        assert_eq!(tally.errors, 2);
        assert_eq!(
            tally.first_error.as_deref(),
            Some("unexpected reply 'no\\x1b[2J 'sense''")
        );
        assert_eq!(excerpt(&[b'x'; 200]).len(), 163);
    }

    #[test]
    fn a_peer_without_replies_is_found_out() {
        let resp = decoder(Protocol::Resp, Command::Seen);
        for bytes in [
            b"HTTP/1.1 400 Bad Request\r\n".as_slice(),
            b"x",
            b"\r\n",
            b"$x\r\n",
            b"$3\r\nNEWxx",
            b"*1\r\n+NEW\r\n",
        ] {
            let outcome = feed(&resp, &[bytes]);
            assert!(
                matches!(outcome, Err(Unframed::NotResp(_))),
                "{}",
                excerpt(bytes)
            );
        }
        let long = vec![b'x'; REPLY_BYTES_MAX];
        let line = decoder(Protocol::Line, Command::Seen);
        assert_eq!(feed(&line, &[&long]), Err(Unframed::TooLong));
        let announced = format!("${REPLY_BYTES_MAX}\r\n");
        let outcome = feed(&resp, &[announced.as_bytes()]);
        assert_eq!(outcome, Err(Unframed::TooLong));
    }

    #[test]
    fn tallies_add_up_field_by_field() {
        let one = Tally {
            requests: 1,
            keys_fresh: 2,
            replies: 3,
            new: 4,
            dup: 5,
            mismatch: 6,
            unsure: 7,
            pong: 8,
            errors: 9,
            first_error: Some("first".to_owned()),
        };
        let mut sum = Tally::default();
        sum += one.clone();
        assert_eq!(sum, one);
        sum += Tally {
            first_error: Some("second".to_owned()),
            ..one.clone()
        };
        assert_eq!(totals(&sum), [6, 8, 10, 12, 14, 16, 18]);
        assert_eq!((sum.requests, sum.keys_fresh), (2, 4));
        assert_eq!(sum.first_error, one.first_error);
    }
}
