//! RESP to values, values to what a call returns, and what can go wrong on the way.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use thiserror::Error;

use crate::address::Address;

/// The longest line that a reply may have.
const LINE_BYTES_MAX: usize = 64 << 10;
/// The longest bulk string.
const BULK_BYTES_MAX: usize = 64 << 20;
/// How many items an array may announce, and how deep arrays may be.
const ITEMS_MAX: usize = 1 << 20;
const DEPTH_MAX: usize = 8;

/// How a server answers that has as many connections as it may have.
const TOO_MANY: &str = "max number of clients";

/// Why there is no reply, or not the one that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ClientError {
    /// There is no connection, and none came about in time.
    #[error("cannot reach onced at {address}: {reason}")]
    Unreachable {
        /// Where.
        address: Address,
        /// The last reason.
        reason: String,
    },
    /// No reply in time; the request may have been executed, or be yet.
    #[error("onced did not answer in time")]
    Timeout,
    /// The runtime in which the client was made has ended, and the client with it.
    #[error("the runtime of this client of onced has ended")]
    Ended,
    /// The connection broke while the reply was still to come: the request may have been executed.
    #[error("the connection to onced broke before the reply came: {0}")]
    Lost(String),
    /// The server refused.
    #[error("onced refused: {code} {text}")]
    Refused {
        /// The word for programs: `FULL`, `READONLY`, `LOADING`, `RANGE` and so on, as the protocol lists
        /// them.
        code: String,
        /// The text for people.
        text: String,
    },
    /// What answered does not speak as onced does.
    #[error("that is not onced, or a later version: {0}")]
    Protocol(String),
}

impl ClientError {
    /// Whether the same request may be made again, somewhat later: it was not executed, or bears repetition
    /// if this one does.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Timeout | Self::Lost(_) => true,
            Self::Refused { code, .. } => matches!(code.as_str(), "LOADING" | "FULL"),
            Self::Protocol(_) | Self::Ended => false,
        }
    }
}

/// A reply as it was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Word(String),
    Error(String),
    Number(i64),
    Bulk(Bytes),
    Nil,
    Array(Vec<Value>),
}

impl Value {
    /// Takes the first reply off what was received; `None` if there is no whole one yet.
    pub(super) fn take(input: &mut BytesMut) -> Result<Option<Self>, ClientError> {
        let Some(end) = whole(input, 0, DEPTH_MAX)? else {
            return Ok(None);
        };
        let mut whole = input.split_to(end).freeze();
        Ok(Some(read(&mut whole)))
    }

    /// The refusal, if it is one.
    pub(super) fn refused(self) -> Result<Self, ClientError> {
        let Self::Error(text) = self else {
            return Ok(self);
        };
        let (first, rest) = text.split_once(' ').unwrap_or((&text, ""));
        let (code, text) = match first {
            "ERR" => rest.split_once(' ').unwrap_or((rest, "")),
            "OOM" => ("FULL", rest),
            other => (other, rest),
        };
        // Redis's own words, which clients know.
        let code = if rest.starts_with(TOO_MANY) {
            "FULL"
        } else {
            code
        };
        Err(ClientError::Refused {
            code: code.to_owned(),
            text: text.to_owned(),
        })
    }

    /// The error of a reply that does not belong to its request.
    pub(super) fn unexpected(&self) -> ClientError {
        let mut shown = format!("{self:?}");
        shown.truncate(shown.floor_char_boundary(200));
        ClientError::Protocol(format!("unexpected reply {shown}"))
    }
}

fn malformed(what: &str) -> ClientError {
    ClientError::Protocol(what.to_owned())
}

/// Where the reply that begins at `at` ends; `None` if that has not come.
fn whole(input: &[u8], at: usize, depth: usize) -> Result<Option<usize>, ClientError> {
    let Some((kind, line, mut end)) = line(input, at)? else {
        return Ok(None);
    };
    match kind {
        b'+' | b'-' | b':' => Ok(Some(end)),
        b'$' => match length(line, BULK_BYTES_MAX)? {
            None => Ok(Some(end)),
            Some(len) => match input.get(end + len..end + len + 2) {
                None => Ok(None),
                Some(b"\r\n") => Ok(Some(end + len + 2)),
                Some(_) => Err(malformed("a bulk string without an end")),
            },
        },
        b'*' if depth == 0 => Err(malformed("arrays in arrays without end")),
        b'*' => {
            for _ in 0..length(line, ITEMS_MAX)?.unwrap_or(0) {
                match whole(input, end, depth - 1)? {
                    None => return Ok(None),
                    Some(behind) => end = behind,
                }
            }
            Ok(Some(end))
        }
        other => Err(malformed(&format!(
            "a reply that begins with '{}'",
            other.escape_ascii()
        ))),
    }
}

/// A line: its type byte, the rest of it, and where the next begins.
type Line<'a> = (u8, &'a [u8], usize);

/// The line at `at`, if it is there.
fn line(input: &[u8], at: usize) -> Result<Option<Line<'_>>, ClientError> {
    let Some((&kind, rest)) = input.get(at..).and_then(<[u8]>::split_first) else {
        return Ok(None);
    };
    match memchr::memchr(b'\n', &rest[..rest.len().min(LINE_BYTES_MAX)]) {
        Some(end) => {
            let line = &rest[..end];
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            Ok(Some((kind, line, at + 1 + end + 1)))
        }
        None if rest.len() >= LINE_BYTES_MAX => Err(malformed("a line without an end")),
        None => Ok(None),
    }
}

/// The length that a line tells; `None` is nil.
fn length(line: &[u8], max: usize) -> Result<Option<usize>, ClientError> {
    if line == b"-1" {
        return Ok(None);
    }
    crate::time::parse_u64(line)
        .and_then(|len| usize::try_from(len).ok())
        .filter(|&len| len <= max)
        .map(Some)
        .ok_or_else(|| malformed("a length that is none"))
}

/// Reads a reply that is there as a whole.
fn read(input: &mut Bytes) -> Value {
    let kind = input.get_u8();
    let end = memchr::memchr(b'\n', input).unwrap_or(input.len().saturating_sub(1));
    let line = input.split_to(end + 1);
    let line = line.strip_suffix(b"\r\n").unwrap_or(&line);
    let text = || String::from_utf8_lossy(line).into_owned();
    let number = || str::from_utf8(line).ok().and_then(|text| text.parse().ok());
    match kind {
        b'+' => Value::Word(text()),
        b'-' => Value::Error(text()),
        b':' => Value::Number(number().unwrap_or_default()),
        b'$' => match length(line, BULK_BYTES_MAX) {
            Ok(Some(len)) => {
                let bulk = input.split_to(len);
                input.advance(2);
                Value::Bulk(bulk)
            }
            _ => Value::Nil,
        },
        _ => match length(line, ITEMS_MAX) {
            Ok(Some(items)) => Value::Array((0..items).map(|_| read(input)).collect()),
            _ => Value::Nil,
        },
    }
}

/// Appends a request.
pub(super) fn push_request(words: &[&[u8]], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

/// The error of a connection that broke.
pub(super) fn lost(error: &io::Error) -> ClientError {
    ClientError::Lost(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_taken_once_it_is_whole() {
        let stream = b"+OK\r\n-ERR FULL no room\r\n:-5\r\n$3\r\na\r\n\r\n$-1\r\n*3\r\n+DONE\r\n:200\r\n$0\r\n\r\n";
        let wanted = [
            Value::Word("OK".to_owned()),
            Value::Error("ERR FULL no room".to_owned()),
            Value::Number(-5),
            Value::Bulk(Bytes::from_static(b"a\r\n")),
            Value::Nil,
            Value::Array(vec![
                Value::Word("DONE".to_owned()),
                Value::Number(200),
                Value::Bulk(Bytes::new()),
            ]),
        ];
        for piece in 1..stream.len() {
            let (mut input, mut got) = (BytesMut::new(), Vec::new());
            for bytes in stream.chunks(piece) {
                input.extend_from_slice(bytes);
                while let Some(value) = Value::take(&mut input).unwrap() {
                    got.push(value);
                }
            }
            assert_eq!(got, wanted, "in pieces of {piece}");
            assert!(input.is_empty());
        }
    }

    #[test]
    fn what_is_no_reply_is_refused_and_takes_no_memory() {
        for bytes in [
            &b"HTTP/1.1 400\r\n"[..],
            b"$x\r\n",
            b"$99999999999\r\n",
            b"*99999999999\r\n",
            b"$1\r\nabc\r\n",
            &b"*1\r\n".repeat(DEPTH_MAX + 1),
            &b"+".repeat(LINE_BYTES_MAX + 1),
        ] {
            let mut input = BytesMut::from(bytes);
            assert!(Value::take(&mut input).is_err(), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn refusals_carry_their_code() {
        for (said, code) in [
            ("ERR RANGE too long", "RANGE"),
            ("OOM no room", "FULL"),
            ("READONLY the log failed", "READONLY"),
            ("WRONGTYPE in progress", "WRONGTYPE"),
        ] {
            let refused = Value::Error(said.to_owned()).refused();
            assert!(matches!(refused, Err(ClientError::Refused { code: got, .. }) if got == code));
        }
    }
}
