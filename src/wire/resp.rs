//! RESP2 and RESP3: requests are arrays of bulk strings, replies are typed.
//!
//! Elements are taken in as they come, so a request that trickles in byte by byte is looked at
//! once. One that is over the limit is read to its end and refused, up to 16 MiB; what is
//! announced beyond that, or is no RESP, closes the connection.
//!
//! A header is read twice over: `plain_header` knows only those that clients send, and leaves
//! everything else, well formed or not, to `header`, which says what is wrong with it.

use bytes::Bytes;
use memchr::memchr;

use super::{Decoded, Sink, push_number, push_on_one_line, recycle};
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

/// What has been made of the bytes.
enum Step {
    /// A request is complete.
    Request,
    /// So many bytes ask for nothing.
    Skip(usize),
    /// So many bytes are the end of a request that is over the limit.
    TooBig(usize),
}

/// Why the bytes are no request.
enum Broken {
    /// The rest has not come.
    Incomplete,
    /// They are not RESP.
    Protocol(String),
}

impl RespDecoder {
    #[inline(never)]
    pub(super) fn next<'a>(&'a mut self, input: &'a [u8], limits: &Limits) -> Decoded<'a> {
        let step = if self.oversize.is_some() {
            self.discard(input)
        } else {
            self.advance(input, limits)
        };
        match step {
            Ok(Step::Request) => {
                let consumed = self.at;
                self.elements_left = None;
                self.at = 0;
                Decoded::Request {
                    consumed,
                    args: Args::new(input, &[], &self.spans),
                }
            }
            Ok(Step::Skip(consumed)) => Decoded::Skip { consumed },
            Ok(Step::TooBig(consumed)) => {
                let max = limits.request_bytes_max;
                Decoded::Refused {
                    consumed,
                    error: Error::new(Code::TooBig, format!("the request is over {max} bytes")),
                    close: false,
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

    /// Takes in what has come of a request.
    #[inline]
    fn advance(&mut self, input: &[u8], limits: &Limits) -> Result<Step, Broken> {
        let mut left = match self.elements_left {
            Some(left) => left,
            None => match self.array_header(input)? {
                0 => return Ok(Step::Skip(std::mem::take(&mut self.at))),
                count => count,
            },
        };
        while left > 0 {
            self.elements_left = Some(left);
            let (len, behind) = bulk_header(input, self.at)?;
            let end = behind + len + 2;
            if end > limits.request_bytes_max {
                return self.begin_discard(behind, len, left);
            }
            match input.get(end - 2..end) {
                Some(b"\r\n") => {}
                Some(_) => {
                    return Err(Broken::Protocol(
                        "a bulk string does not end where its length says".into(),
                    ));
                }
                None => return Err(Broken::Incomplete),
            }
            self.spans.push(Span::input(behind, len));
            self.at = end;
            left -= 1;
        }
        Ok(Step::Request)
    }

    #[inline]
    fn array_header(&mut self, input: &[u8]) -> Result<usize, Broken> {
        recycle(&mut self.spans);
        if let Some((count, behind)) = plain_header(input, 0, b'*')
            && count <= RESP_ELEMENTS_MAX
        {
            self.at = behind;
            return Ok(count);
        }
        self.any_array_header(input)
    }

    #[cold]
    fn any_array_header(&mut self, input: &[u8]) -> Result<usize, Broken> {
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
    fn begin_discard(&mut self, behind: usize, len: usize, left: usize) -> Result<Step, Broken> {
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
        Ok(Step::Skip(behind))
    }

    /// Throws away what has come of an oversized request, and refuses it at its end.
    fn discard(&mut self, input: &[u8]) -> Result<Step, Broken> {
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
                return Ok(Step::Skip(consumed));
            }
            self.oversize = None;
            self.elements_left = None;
            return Ok(Step::TooBig(consumed));
        }
        let (len, behind) = bulk_header(input, 0)?;
        if oversize.discarded.saturating_add(behind + len) > DISCARD_BYTES_MAX {
            return Err(Broken::Protocol("too big multibulk request".into()));
        }
        oversize.element_bytes_left = len + 2;
        oversize.discarded += behind;
        self.oversize = Some(oversize);
        Ok(Step::Skip(behind))
    }
}

/// Reads `$n\r\n` at `at`: how long the string is, and where it begins.
#[inline]
fn bulk_header(input: &[u8], at: usize) -> Result<(usize, usize), Broken> {
    match plain_header(input, at, b'$') {
        Some(header) => Ok(header),
        None => any_bulk_header(input, at),
    }
}

/// The number behind the type byte at `at`, and where its line ends, where all is there, as it
/// should be, and below a milliard; `None` says nothing about the rest.
#[expect(clippy::inline_always, reason = "it is less than what its call takes")]
#[inline(always)]
fn plain_header(input: &[u8], at: usize, kind: u8) -> Option<(usize, usize)> {
    let rest = input.get(at..)?;
    if let Some(head) = rest.first_chunk() {
        let head = u64::from_le_bytes(*head);
        // All that is as in the pattern becomes 0, a digit its value, anything else more than 9.
        let one = head as u32 ^ u32::from_le_bytes([kind, b'0', b'\r', b'\n']);
        let digit = one.rotate_right(8);
        if digit < 10 {
            return Some((digit as usize, at + 4));
        }
        let two = (head ^ u64::from_le_bytes([kind, b'0', b'0', b'\r', b'\n', 0, 0, 0])) << 24;
        let digits = two.rotate_left(32);
        let (tens, ones) = (digits & 0xff, digits >> 8 & 0xff);
        if digits >> 16 == 0 && tens < 10 && ones < 10 {
            return Some(((tens * 10 + ones) as usize, at + 5));
        }
    }
    longer_header(rest, kind).map(|(number, len)| (number, at + len))
}

/// The same digit by digit: numbers over 99, and what stands at the input's end.
#[inline(never)]
fn longer_header(header: &[u8], kind: u8) -> Option<(usize, usize)> {
    const DIGITS_MAX: usize = 9;
    let (_, digits) = header.split_first().filter(|&(&first, _)| first == kind)?;
    let mut number = 0;
    for (i, &byte) in digits.iter().take(DIGITS_MAX + 1).enumerate() {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            let is_end = i > 0 && digits[i..].starts_with(b"\r\n");
            return is_end.then_some((number, 1 + i + 2));
        }
        number = number * 10 + usize::from(digit);
    }
    None
}

/// The same for whatever else may stand there.
#[cold]
fn any_bulk_header(input: &[u8], at: usize) -> Result<(usize, usize), Broken> {
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
pub fn encode(reply: &Reply<'_>, version: u8, sink: &mut impl Sink) {
    let out = sink.bytes();
    match reply {
        Reply::Word(word) => push_line(b'+', word.as_bytes(), out),
        Reply::Text(text) => push_bulk(text, out),
        Reply::Lines(lines) if version >= 3 => {
            const FORMAT: &str = "txt:";
            push_head(b'=', (FORMAT.len() + lines.len()) as i64, out);
            out.extend_from_slice(FORMAT.as_bytes());
            out.extend_from_slice(lines.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        Reply::Lines(lines) => push_bulk(lines.as_bytes(), out),
        Reply::Letters(letters) => push_bulk(letters, out),
        Reply::Figures(word, numbers) => {
            push_head(b'*', 1 + numbers.iter().flatten().count() as i64, out);
            push_line(b'+', word.as_bytes(), out);
            for number in numbers.iter().flatten() {
                push_head(b':', *number, out);
            }
        }
        Reply::Items(items) => {
            let items = || {
                items
                    .split(|&byte| byte == b' ')
                    .filter(|item| !item.is_empty())
            };
            push_head(b'*', items().count() as i64, out);
            items().for_each(|item| push_bulk(item, out));
        }
        Reply::Value(value) => push_value(value, sink),
        Reply::Outcome { word, code, body } => {
            push_head(b'*', 3, out);
            push_line(b'+', word.as_bytes(), out);
            push_head(b':', i64::from(*code), out);
            push_value(body, sink);
        }
        Reply::Number(number) | Reply::Count(number) => push_head(b':', *number, out),
        Reply::Flag(flag) if version >= 3 => {
            out.extend_from_slice(if *flag { b"#t\r\n" } else { b"#f\r\n" });
        }
        Reply::Flag(flag) => push_head(b':', i64::from(*flag), out),
        Reply::Nil if version >= 3 => out.extend_from_slice(b"_\r\n"),
        Reply::Nil => out.extend_from_slice(b"$-1\r\n"),
        Reply::Set(items) => {
            push_head(set_byte(version), items.len() as i64, out);
            for item in items {
                encode(item, version, sink);
            }
        }
        Reply::Array(items) => {
            push_head(b'*', items.len() as i64, out);
            for item in items {
                encode(item, version, sink);
            }
        }
        Reply::Values {
            bytes,
            ends,
            have_order,
        } => {
            let head = if *have_order { b'*' } else { set_byte(version) };
            push_head(head, ends.len() as i64, out);
            let mut begins = 0;
            for &end in ends {
                push_bulk(&bytes[begins..end], out);
                begins = end;
            }
        }
        Reply::Map(pairs) => {
            push_map_head(pairs.len(), version, out);
            for (name, value) in pairs {
                encode(name, version, sink);
                encode(value, version, sink);
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
        Code::Redis | Code::RedisShape => {}
        // Redis's own word where it has one: clients turn it into an exception of its own.
        Code::Full => out.extend_from_slice(b"OOM "),
        Code::Loading | Code::ReadOnly => {
            out.extend_from_slice(error.code.word().as_bytes());
            out.push(b' ');
        }
        code => {
            out.extend_from_slice(b"ERR ");
            out.extend_from_slice(code.word().as_bytes());
            out.push(b' ');
        }
    }
    push_on_one_line(error.text.as_bytes(), out);
    out.extend_from_slice(b"\r\n");
}

/// What an array begins with whose order means nothing.
fn set_byte(version: u8) -> u8 {
    if version == 2 { b'*' } else { b'~' }
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

fn push_value(value: &Bytes, sink: &mut impl Sink) {
    push_head(b'$', value.len() as i64, sink.bytes());
    sink.push_value(value);
    sink.bytes().extend_from_slice(b"\r\n");
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Whether a plain header means the same to both, and one that is not plain is left alone.
    fn agrees(input: &[u8], at: usize) -> bool {
        match (plain_header(input, at, b'$'), any_bulk_header(input, at)) {
            (Some(plain), any) => any.is_ok_and(|any| any == plain),
            (None, Ok((len, _))) => {
                let digits = input[at + 1..].iter().take_while(|b| b.is_ascii_digit());
                digits.count() > 9 || len == 0
            }
            (None, Err(_)) => true,
        }
    }

    #[test]
    fn plain_headers_are_those_that_clients_send() {
        for number in [0, 1, 9, 10, 36, 99, 100, 8_192, 999_999_999] {
            let header = format!("${number}\r\n").into_bytes();
            for behind in [&b""[..], b"x\r\n", b"0123456789"] {
                let input = [b"\n", &header[..], behind].concat();
                assert_eq!(
                    plain_header(&input, 1, b'$'),
                    Some((number, 1 + header.len()))
                );
                assert_eq!(plain_header(&input, 1, b'*'), None);
                assert!(agrees(&input, 1));
            }
            for end in 0..header.len() {
                assert_eq!(plain_header(&header[..end], 0, b'$'), None);
            }
        }
    }

    #[test]
    fn a_header_that_is_wrong_anywhere_is_not_plain() {
        for header in ["$7\r\n7777777", "$36\r\n77777", "$100\r\n7777"] {
            let header = header.as_bytes();
            let end = header.iter().position(|&b| b == b'\n').unwrap();
            for at in 0..=end {
                for byte in 0..=u8::MAX {
                    let mut other = header.to_vec();
                    other[at] = byte;
                    assert!(agrees(&other, 0), "{}", other.escape_ascii());
                }
            }
        }
    }

    proptest! {
        #[test]
        fn both_readings_agree(header in "\\$?[-+0-9]{0,12}[0-9]{0,3}\r?\n?.{0,9}") {
            prop_assert!(agrees(header.as_bytes(), 0));
        }
    }
}
