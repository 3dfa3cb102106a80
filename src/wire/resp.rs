//! RESP2 and RESP3: requests are arrays of bulk strings, replies are typed.
//!
//! Elements are taken in as they come, so a request that trickles in byte by byte is looked at
//! once. One that is over the limit is read to its end and refused, up to 16 MiB; what is
//! announced beyond that, or is no RESP, closes the connection.

use memchr::memchr;

use super::{Decoded, push_number, recycle};
use crate::command::{Args, Code, Error, Reply, Span};
use crate::limits::{DISCARD_BYTES_MAX, Limits, RESP_ELEMENTS_MAX};

/// Bytes of the longest header worth reading: a sign, 20 digits, the line end.
const HEADER_BYTES_MAX: usize = 32;

/// Finds requests in arrays of bulk strings.
#[derive(Debug, Default)]
pub struct RespDecoder {
    spans: Vec<Span>,
    /// Elements of this request that have not come; `None` before its header.
    elements_left: Option<usize>,
    /// Where in the input the next element begins.
    at: usize,
    /// Set while a request that is over the limit is thrown away.
    oversize: Option<Oversize>,
}

/// A request that is read only to find its end.
#[derive(Clone, Copy, Debug)]
struct Oversize {
    /// Bytes of the current element, its line end included, that are still to come.
    element_bytes_left: usize,
    /// Bytes thrown away so far.
    discarded: usize,
}

/// Why the bytes are no request.
enum Broken {
    /// The rest has not come.
    Incomplete,
    /// They are not RESP.
    Protocol(String),
}

impl RespDecoder {
    pub(super) fn next<'a>(&'a mut self, input: &'a [u8], limits: &Limits) -> Decoded<'a> {
        match self.advance(input, limits) {
            Ok(Some(skipped)) => skipped,
            Ok(None) => {
                let consumed = self.at;
                self.elements_left = None;
                self.at = 0;
                Decoded::Request {
                    consumed,
                    args: Args::new(input, &[], &self.spans),
                }
            }
            Err(Broken::Incomplete) => Decoded::Incomplete,
            Err(Broken::Protocol(text)) => {
                let error = Error::redis(format!("ERR Protocol error: {text}"));
                Decoded::Refused {
                    consumed: input.len(),
                    error,
                    close: true,
                }
            }
        }
    }

    pub(super) fn rest(&mut self) {
        if self.elements_left.is_none() {
            recycle(&mut self.spans);
        }
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.spans.capacity() * size_of::<Span>()
    }

    pub(super) fn is_discarding(&self) -> bool {
        self.oversize.is_some()
    }

    /// Takes in what has come; `None` when a request is complete.
    fn advance<'a>(
        &mut self,
        input: &[u8],
        limits: &Limits,
    ) -> Result<Option<Decoded<'a>>, Broken> {
        if self.oversize.is_some() {
            return self.discard(input, limits).map(Some);
        }
        let mut left = match self.elements_left {
            Some(left) => left,
            None => match self.array_header(input)? {
                0 => {
                    return Ok(Some(Decoded::Skip {
                        consumed: std::mem::take(&mut self.at),
                    }));
                }
                count => count,
            },
        };
        while left > 0 {
            self.elements_left = Some(left);
            let (len, behind) = bulk_header(input, self.at)?;
            if behind + len + 2 > limits.request_bytes_max {
                return self.begin_discard(behind, len, left).map(Some);
            }
            let rest = &input[behind..];
            if rest.len() < len + 2 {
                return Err(Broken::Incomplete);
            }
            if rest[len..len + 2] != *b"\r\n" {
                return Err(Broken::Protocol(
                    "a bulk string does not end where its length says".into(),
                ));
            }
            self.spans.push(Span::input(behind, len));
            self.at = behind + len + 2;
            left -= 1;
        }
        Ok(None)
    }

    fn array_header(&mut self, input: &[u8]) -> Result<usize, Broken> {
        recycle(&mut self.spans);
        if input.starts_with(b"\r\n") {
            self.at = 2;
            return Ok(0);
        }
        let Some(&first) = input.first().filter(|&&b| b != b'\r' || input.len() > 1) else {
            return Err(Broken::Incomplete);
        };
        if first != b'*' {
            return Err(Broken::Protocol(format!(
                "expected '*', got '{}'",
                first.escape_ascii()
            )));
        }
        let (count, behind) = header(input, 0, "invalid multibulk length")?;
        self.at = behind;
        match usize::try_from(count) {
            Ok(count) if count <= RESP_ELEMENTS_MAX => Ok(count),
            Ok(_) => Err(Broken::Protocol("invalid multibulk length".into())),
            // Redis ignores an array of less than nothing.
            Err(_) => Ok(0),
        }
    }

    /// Turns to throwing the request away: `len` bytes from `behind` on, then `left - 1` more elements.
    fn begin_discard<'a>(
        &mut self,
        behind: usize,
        len: usize,
        left: usize,
    ) -> Result<Decoded<'a>, Broken> {
        if len > DISCARD_BYTES_MAX {
            return Err(Broken::Protocol("invalid bulk length".into()));
        }
        self.oversize = Some(Oversize {
            element_bytes_left: len + 2,
            discarded: behind,
        });
        self.elements_left = Some(left);
        self.at = 0;
        recycle(&mut self.spans);
        Ok(Decoded::Skip { consumed: behind })
    }

    /// Throws away what has come of an oversized request, and refuses it at its end.
    fn discard<'a>(&mut self, input: &[u8], limits: &Limits) -> Result<Decoded<'a>, Broken> {
        let (Some(mut oversize), Some(left)) = (self.oversize, self.elements_left) else {
            return Err(Broken::Incomplete);
        };
        if oversize.element_bytes_left > 0 {
            let consumed = oversize.element_bytes_left.min(input.len());
            oversize.element_bytes_left -= consumed;
            oversize.discarded += consumed;
            if oversize.element_bytes_left == 0 {
                self.elements_left = Some(left - 1);
            }
            self.oversize = Some(oversize);
            if self.elements_left != Some(0) {
                return Ok(Decoded::Skip { consumed });
            }
            self.oversize = None;
            self.elements_left = None;
            let max = limits.request_bytes_max;
            let error = Error::new(Code::TooBig, format!("the request is over {max} bytes"));
            return Ok(Decoded::Refused {
                consumed,
                error,
                close: false,
            });
        }
        let (len, behind) = bulk_header(input, 0)?;
        if oversize.discarded.saturating_add(behind + len) > DISCARD_BYTES_MAX {
            return Err(Broken::Protocol("too big multibulk request".into()));
        }
        oversize.element_bytes_left = len + 2;
        oversize.discarded += behind;
        self.oversize = Some(oversize);
        Ok(Decoded::Skip { consumed: behind })
    }
}

/// Reads `$n\r\n` at `at`: how long the string is, and where it begins.
fn bulk_header(input: &[u8], at: usize) -> Result<(usize, usize), Broken> {
    let first = *input.get(at).ok_or(Broken::Incomplete)?;
    if first != b'$' {
        return Err(Broken::Protocol(format!(
            "expected '$', got '{}'",
            first.escape_ascii()
        )));
    }
    let (len, behind) = header(input, at, "invalid bulk length")?;
    let invalid = || Broken::Protocol("invalid bulk length".into());
    // Every length that this accepts can be added to an offset without overflow.
    let len = u32::try_from(len).map_err(|_| invalid())?;
    Ok((len as usize, behind))
}

/// Reads the number behind the type byte at `at`, and where its line ends.
fn header(input: &[u8], at: usize, invalid: &str) -> Result<(i64, usize), Broken> {
    let line = &input[at + 1..input.len().min(at + HEADER_BYTES_MAX)];
    let Some(end) = memchr(b'\n', line) else {
        return Err(if line.len() + 1 < HEADER_BYTES_MAX {
            Broken::Incomplete
        } else {
            Broken::Protocol(invalid.into())
        });
    };
    let digits = line[..end]
        .strip_suffix(b"\r")
        .ok_or_else(|| Broken::Protocol(invalid.into()))?;
    let number = str::from_utf8(digits)
        .ok()
        .filter(|text| !text.starts_with('+'))
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| Broken::Protocol(invalid.into()))?;
    Ok((number, at + 1 + end + 1))
}

/// Appends a reply in RESP2 or RESP3.
pub fn encode(reply: &Reply<'_>, version: u8, out: &mut Vec<u8>) {
    match reply {
        Reply::Word(word) => push_line(b'+', word.as_bytes(), out),
        Reply::Text(text) => push_bulk(text, out),
        Reply::Letters(letters) => push_bulk(letters, out),
        Reply::Value(value) => push_bulk(value, out),
        Reply::Number(number) | Reply::Count(number) => push_head(b':', *number, out),
        Reply::Flag(flag) if version >= 3 => {
            out.extend_from_slice(if *flag { b"#t\r\n" } else { b"#f\r\n" });
        }
        Reply::Flag(flag) => push_head(b':', i64::from(*flag), out),
        Reply::Nil if version >= 3 => out.extend_from_slice(b"_\r\n"),
        Reply::Nil => out.extend_from_slice(b"$-1\r\n"),
        Reply::Array(items) => {
            push_head(b'*', items.len() as i64, out);
            for item in items {
                encode(item, version, out);
            }
        }
        Reply::Map(pairs) => {
            push_map_head(pairs.len(), version, out);
            for (name, value) in pairs {
                encode(name, version, out);
                encode(value, version, out);
            }
        }
        Reply::Rows(rows) => {
            push_map_head(rows.len(), version, out);
            for (name, value) in rows {
                push_bulk(name.as_bytes(), out);
                push_bulk(value.as_bytes(), out);
            }
        }
        Reply::Error(error) => push_error(error, out),
    }
}

fn push_error(error: &Error, out: &mut Vec<u8>) {
    out.push(b'-');
    match error.code {
        Code::Redis => {}
        // Redis's own word where it has one: clients turn it into an exception of its own.
        Code::Full => out.extend_from_slice(b"OOM "),
        code => {
            out.extend_from_slice(b"ERR ");
            out.extend_from_slice(code.word().as_bytes());
            out.push(b' ');
        }
    }
    out.extend_from_slice(error.text.as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn push_map_head(pairs: usize, version: u8, out: &mut Vec<u8>) {
    match version {
        3.. => push_head(b'%', pairs as i64, out),
        _ => push_head(b'*', pairs as i64 * 2, out),
    }
}

/// Appends an array's head; its items follow.
pub fn push_array_head(items: usize, out: &mut Vec<u8>) {
    push_head(b'*', items as i64, out);
}

fn push_bulk(bytes: &[u8], out: &mut Vec<u8>) {
    push_head(b'$', bytes.len() as i64, out);
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

fn push_head(kind: u8, number: i64, out: &mut Vec<u8>) {
    out.push(kind);
    push_number(number, out);
    out.extend_from_slice(b"\r\n");
}

fn push_line(kind: u8, text: &[u8], out: &mut Vec<u8>) {
    out.push(kind);
    out.extend_from_slice(text);
    out.extend_from_slice(b"\r\n");
}
