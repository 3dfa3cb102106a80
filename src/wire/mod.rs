//! Bytes to requests, replies to bytes.
//!
//! The first byte of a connection chooses its dialect: `*` is RESP, anything else the line
//! protocol. A [`Decoder`] is fed the bytes that were received and not consumed yet, in any
//! pieces; it tells apart what is incomplete (read on), what is refused (answer, go on) and
//! what is malformed beyond repair (answer, close). It allocates nothing beyond a span per word
//! that has come, and looks at every byte once, however small the pieces.
//!
//! - [`mod@line`]: the line protocol
//! - [`resp`]: RESP2 and RESP3

pub mod line;
pub mod resp;

use bytes::Bytes;

use crate::command::{Args, Code, Error, Reply, Span};
use crate::limits::Limits;

/// How a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// One request per line.
    Line,
    /// Redis's protocol, in this version: 2 or 3.
    Resp(u8),
}

/// Where encoded replies go.
pub trait Sink {
    /// The bytes so far, to append to.
    fn bytes(&mut self) -> &mut Vec<u8>;

    /// Appends a stored value's bytes, which need not be copied for that.
    fn push_value(&mut self, value: &Bytes);
}

impl Sink for Vec<u8> {
    #[inline]
    fn bytes(&mut self) -> &mut Vec<u8> {
        self
    }

    fn push_value(&mut self, value: &Bytes) {
        self.extend_from_slice(value);
    }
}

impl Dialect {
    /// Appends a reply's bytes.
    pub fn encode(self, reply: &Reply<'_>, out: &mut impl Sink) {
        match self {
            Self::Line => line::encode(reply, out),
            Self::Resp(version) => resp::encode(reply, version, out),
        }
    }
}

/// What a decoder made of the bytes it was shown.
#[derive(Debug)]
pub enum Decoded<'a> {
    /// No request is complete; call again with these bytes and more.
    Incomplete,
    /// This many bytes ask for nothing: an empty line, a refused body.
    Skip {
        /// Bytes that are done with.
        consumed: usize,
    },
    /// A request.
    Request {
        /// Bytes that are done with.
        consumed: usize,
        /// Its words.
        args: Args<'a>,
    },
    /// Not a request.
    Refused {
        /// Bytes that are done with.
        consumed: usize,
        /// What to answer.
        error: Error,
        /// Whether what follows cannot be trusted: answer and close.
        close: bool,
    },
}

/// Finds the requests in what one connection received.
#[derive(Debug, Default)]
pub struct Decoder {
    dialect: Option<Framing>,
}

#[derive(Debug)]
enum Framing {
    Line(line::LineDecoder),
    Resp(resp::RespDecoder),
}

/// The first byte of a TLS handshake.
const TLS_HANDSHAKE: u8 = 0x16;

impl Decoder {
    /// Whether the connection speaks RESP; `None` before its first byte.
    pub fn is_resp(&self) -> Option<bool> {
        self.dialect
            .as_ref()
            .map(|framing| matches!(framing, Framing::Resp(_)))
    }

    /// Looks for the next request. `input` begins behind what was consumed before.
    #[inline]
    pub fn next<'a>(&'a mut self, input: &'a [u8], limits: &Limits) -> Decoded<'a> {
        let Some(&first) = input.first() else {
            return Decoded::Incomplete;
        };
        if self.dialect.is_none() && first == TLS_HANDSHAKE {
            let error = Error::new(
                Code::Syntax,
                "this looks like TLS, which is not spoken on this port",
            );
            return Decoded::Refused {
                consumed: input.len(),
                error,
                close: true,
            };
        }
        let framing = self.dialect.get_or_insert_with(|| match first {
            b'*' => Framing::Resp(resp::RespDecoder::default()),
            _ => Framing::Line(line::LineDecoder::default()),
        });
        // Neither is inlined: in one function they would take registers from each other.
        match framing {
            Framing::Line(decoder) => decoder.next(input, limits),
            Framing::Resp(decoder) => decoder.next(input, limits),
        }
    }

    /// Gives back the room that the last request's words took, where no request is under way.
    pub fn rest(&mut self) {
        match &mut self.dialect {
            Some(Framing::Line(decoder)) => decoder.rest(),
            Some(Framing::Resp(decoder)) => decoder.rest(),
            None => {}
        }
    }

    /// Bytes that the words of requests take beside the input, beyond what is always kept.
    pub fn held_bytes(&self) -> usize {
        let held = match &self.dialect {
            Some(Framing::Line(decoder)) => decoder.held_bytes(),
            Some(Framing::Resp(decoder)) => decoder.held_bytes(),
            None => 0,
        };
        held.saturating_sub(SPANS_KEPT * (size_of::<Span>() + 1))
    }

    /// The verb of the request that these bytes are the beginning of, as far as it has come.
    pub fn verb_of<'a>(&self, input: &'a [u8]) -> &'a [u8] {
        let verb = match &self.dialect {
            // Behind how many words there are, and how long the first one is.
            Some(Framing::Resp(_)) => input.split(|&byte| byte == b'\n').nth(2),
            _ => input
                .split(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'))
                .next(),
        };
        verb.unwrap_or_default().trim_ascii_end()
    }

    /// Whether what was consumed last belongs to a request whose end is still to come: a refused
    /// body, or a request over the limit, that is being thrown away.
    pub fn is_discarding(&self) -> bool {
        match &self.dialect {
            Some(Framing::Line(decoder)) => decoder.is_discarding(),
            Some(Framing::Resp(decoder)) => decoder.is_discarding(),
            None => false,
        }
    }

    /// Says that the request of these bytes was refused, so that a body that it announced never
    /// runs as a command; returns whether the connection must close because nobody can tell where the body ends.
    #[must_use]
    pub fn refuse(&mut self, request: &[u8]) -> bool {
        match &mut self.dialect {
            Some(Framing::Line(decoder)) => decoder.refuse(request),
            _ => false,
        }
    }
}

/// Spans that a decoder keeps room for; more than that is given back after the request that needed it.
const SPANS_KEPT: usize = 1_024;

/// Makes a buffer ready for the next request, without keeping the room that one huge request needed.
fn recycle<T>(buffer: &mut Vec<T>) {
    buffer.clear();
    if buffer.capacity() > SPANS_KEPT {
        buffer.shrink_to(SPANS_KEPT);
    }
}

/// A text that must not end its line: what a client sent may be in it.
fn push_on_one_line(text: &[u8], out: &mut Vec<u8>) {
    let begins = out.len();
    out.extend_from_slice(text);
    for byte in &mut out[begins..] {
        if matches!(byte, b'\r' | b'\n') {
            *byte = b' ';
        }
    }
}

/// Appends a number's decimal digits.
fn push_number(number: i64, out: &mut Vec<u8>) {
    const DIGITS_MAX: usize = 20;
    let mut digits = [0; DIGITS_MAX];
    let mut at = DIGITS_MAX;
    let mut rest = number.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if number < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verb_of_what_has_come_so_far_is_known() {
        for (bytes, verb) in [
            (&b"COMPLETE k 7 LEN 5\nab"[..], &b"COMPLETE"[..]),
            (b"fail\tk", b"fail"),
            (b"COMP", b"COMP"),
            (b"*5\r\n$13\r\nONCE.COMPLETE\r\n$1\r\nk", b"ONCE.COMPLETE"),
            (b"*5\r\n$4", b""),
            (b"*5\r\n$4\r\nFA", b"FA"),
        ] {
            let mut decoder = Decoder::default();
            let found = decoder.next(bytes, &Limits::DEFAULT);
            assert!(matches!(found, Decoded::Incomplete), "{found:?}");
            assert_eq!(decoder.verb_of(bytes), verb);
        }
    }

    #[test]
    fn numbers_are_written_as_everyone_writes_them() {
        for number in [0, 1, -1, 9, 10, 1_234_567_890, i64::MAX, i64::MIN] {
            let mut out = Vec::new();
            push_number(number, &mut out);
            assert_eq!(out, number.to_string().into_bytes());
        }
    }
}
