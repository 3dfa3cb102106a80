//! The line protocol: one request per line, quoted words, bodies announced by `LEN`.
//!
//! A quoted word with escapes is written to the decoder's scratch buffer; every other word
//! stays where it was received.

use memchr::memchr;

use super::{Decoded, Sink, push_number, push_on_one_line, recycle};
use crate::command::spec::takes_body;
use crate::command::{Args, Code, Error, Reply, Span, too_big};
use crate::eight::{TOPS, all};
use crate::limits::{DISCARD_BYTES_MAX, Limits};
use crate::time::parse_u64;

/// Finds requests in lines.
#[derive(Debug, Default)]
pub struct LineDecoder {
    spans: Vec<Span>,
    scratch: Vec<u8>,
    /// Bytes of the unfinished line that hold no line end.
    scanned: usize,
    /// The line is complete, but not the body that it announced.
    awaited: Option<Awaited>,
    discard: Discard,
}

/// A body that is still to come, or part of it.
#[derive(Clone, Copy, Debug)]
struct Awaited {
    /// Where it begins, behind its line.
    begins: usize,
    /// Bytes of it.
    len: usize,
}

/// What of a refused body is still to come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Discard {
    #[default]
    Nothing,
    /// So many bytes, then the line end.
    Bytes(usize),
    /// The line end; a `\r` may come first.
    LineEnd,
    /// The `\n` behind the body's `\r`.
    Newline,
}

impl LineDecoder {
    #[inline(never)]
    pub(super) fn next<'a>(&'a mut self, input: &'a [u8], limits: &Limits) -> Decoded<'a> {
        if self.discard != Discard::Nothing {
            return self.skip_body(input);
        }
        let end = match self.awaited {
            Some(awaited) if input.len() <= awaited.begins + awaited.len => {
                return Decoded::Incomplete;
            }
            Some(awaited) => Some(awaited.begins - 1),
            None => memchr(b'\n', &input[self.scanned..]).map(|at| self.scanned + at),
        };
        let Some(end) = end else {
            self.scanned = input.len();
            // A `\r` may be the first half of the line end.
            let is_over =
                input.len() > limits.request_bytes_max + usize::from(input.ends_with(b"\r"));
            return if is_over {
                self.too_long(input.len(), limits)
            } else {
                Decoded::Incomplete
            };
        };
        self.scanned = 0;
        let line = input[..end].strip_suffix(b"\r").unwrap_or(&input[..end]);
        if line.len() > limits.request_bytes_max {
            return self.too_long(end + 1, limits);
        }
        let consumed = end + 1;
        recycle(&mut self.spans);
        recycle(&mut self.scratch);
        if let Err(reason) = split_words(line, &mut self.spans, &mut self.scratch) {
            let close = self.refuse(line) || is_http(first_word(line));
            return Decoded::Refused {
                consumed,
                error: Error::new(Code::Syntax, reason),
                close,
            };
        }
        let Some(before_last) = self.spans.len().checked_sub(2) else {
            if self.spans.is_empty() {
                return Decoded::Skip { consumed };
            }
            return self.request(input, consumed);
        };
        if self.spans[before_last].len() == LEN.len() && takes_body(first_word(line)) {
            return self.with_body(input, line, consumed, limits);
        }
        self.request(input, consumed)
    }

    #[inline]
    fn request<'a>(&'a self, input: &'a [u8], consumed: usize) -> Decoded<'a> {
        Decoded::Request {
            consumed,
            args: Args::new(input, &self.scratch, &self.spans),
        }
    }

    /// A request whose line may announce a body, which begins where the line ends.
    fn with_body<'a>(
        &'a mut self,
        input: &'a [u8],
        line: &[u8],
        begins: usize,
        limits: &Limits,
    ) -> Decoded<'a> {
        self.awaited = None;
        let len = match announced_body(line) {
            Body::None => return self.request(input, begins),
            Body::Bytes(len) if len <= limits.body_bytes_max => len,
            Body::Bytes(len) => {
                return Decoded::Refused {
                    consumed: begins,
                    error: too_big(len, limits),
                    close: self.refuse(line),
                };
            }
            Body::Unreadable => {
                return Decoded::Refused {
                    consumed: begins,
                    error: Error::args("LEN takes how many bytes the body has; closing"),
                    close: true,
                };
            }
        };
        let end = match input[begins..].get(len..) {
            Some([b'\n', ..]) => begins + len + 1,
            Some([b'\r', b'\n', ..]) => begins + len + 2,
            None | Some([] | [b'\r']) => {
                // A `\r` alone may be half of the line end.
                let is_half = input.len() > begins + len;
                self.awaited = Some(Awaited {
                    begins,
                    len: len + usize::from(is_half),
                });
                return Decoded::Incomplete;
            }
            Some(_) => return body_does_not_end(input.len()),
        };
        // Its length is told by the body itself from here on.
        self.spans.truncate(self.spans.len() - 2);
        let args = Args::new(input, &self.scratch, &self.spans);
        Decoded::Request {
            consumed: end,
            args: args.with_body(Span::input(begins, len)),
        }
    }

    pub(super) fn rest(&mut self) {
        recycle(&mut self.spans);
        recycle(&mut self.scratch);
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.spans.capacity() * size_of::<Span>() + self.scratch.capacity()
    }

    pub(super) fn is_discarding(&self) -> bool {
        self.discard != Discard::Nothing
    }

    /// Arranges that the body which a refused line announces is thrown away; returns whether that cannot be done.
    pub(super) fn refuse(&mut self, line: &[u8]) -> bool {
        match announced_body(line) {
            Body::None => false,
            Body::Bytes(0) => {
                self.discard = Discard::LineEnd;
                false
            }
            Body::Bytes(len) if len <= DISCARD_BYTES_MAX => {
                self.discard = Discard::Bytes(len);
                false
            }
            Body::Bytes(_) | Body::Unreadable => true,
        }
    }

    fn too_long<'a>(&mut self, consumed: usize, limits: &Limits) -> Decoded<'a> {
        self.scanned = 0;
        let error = Error::too_big(format!(
            "the line is over {} bytes",
            limits.request_bytes_max
        ));
        Decoded::Refused {
            consumed,
            error,
            close: true,
        }
    }

    fn skip_body<'a>(&mut self, input: &[u8]) -> Decoded<'a> {
        let first = input.first().copied();
        let consumed = match self.discard {
            Discard::Bytes(left) => {
                let skipped = left.min(input.len());
                self.discard = if skipped == left {
                    Discard::LineEnd
                } else {
                    Discard::Bytes(left - skipped)
                };
                skipped
            }
            Discard::LineEnd if first == Some(b'\r') => {
                self.discard = Discard::Newline;
                1
            }
            Discard::LineEnd | Discard::Newline if first == Some(b'\n') => {
                self.discard = Discard::Nothing;
                1
            }
            _ => return body_does_not_end(input.len()),
        };
        Decoded::Skip { consumed }
    }
}

/// The refusal of a body without a line end behind it; nobody knows what all these bytes are.
fn body_does_not_end<'a>(consumed: usize) -> Decoded<'a> {
    Decoded::Refused {
        consumed,
        error: Error::new(
            Code::Syntax,
            "the body does not end where LEN said it would",
        ),
        close: true,
    }
}

/// Announces a body, with how many bytes it has.
const LEN: &[u8] = b"LEN";

/// What a line says of a body behind it.
#[derive(Debug, PartialEq, Eq)]
enum Body {
    None,
    Bytes(usize),
    Unreadable,
}

/// Whether a line ends in `LEN n`; judged on the line as it was sent, since its words may be what is wrong with it.
fn announced_body(line: &[u8]) -> Body {
    let mut words = line
        .split(|b| matches!(b, b' ' | b'\t' | b'\r' | b'\n'))
        .filter(|word| !word.is_empty())
        .rev();
    let (Some(len), Some(name)) = (words.next(), words.next()) else {
        return Body::None;
    };
    if !name.eq_ignore_ascii_case(LEN) {
        return Body::None;
    }
    parse_u64(len)
        .and_then(|len| usize::try_from(len).ok())
        .map_or(Body::Unreadable, Body::Bytes)
}

/// A line's first word, as it was sent.
fn first_word(line: &[u8]) -> &[u8] {
    line.split(|&b| is_blank(b))
        .find(|word| !word.is_empty())
        .unwrap_or_default()
}

/// Whether a line whose verb nobody knows is of an HTTP request. Such a connection is closed:
/// what follows was written by something that a web page may steer.
pub fn is_http(verb: &[u8]) -> bool {
    const METHODS: [&[u8]; 9] = [
        b"GET", b"POST", b"PUT", b"HEAD", b"DELETE", b"OPTIONS", b"PATCH", b"CONNECT", b"TRACE",
    ];
    METHODS.contains(&verb) || verb.eq_ignore_ascii_case(b"Host:")
}

fn split_words(
    line: &[u8],
    spans: &mut Vec<Span>,
    scratch: &mut Vec<u8>,
) -> Result<(), &'static str> {
    let mut at = 0;
    while let Some(&first) = line.get(at) {
        match first {
            b' ' | b'\t' => at += 1,
            b'"' => at = quoted_word(line, at + 1, spans, scratch)?,
            _ => {
                let end = word_end(line, at);
                spans.push(Span::input(at, end - at));
                // A blank stands there, or nothing.
                at = end + 1;
            }
        }
    }
    Ok(())
}

/// Where the bare word ends that begins at `at`.
///
/// Eight bytes at a time: most words are too short for memchr's vectors to pay for its call.
#[inline]
fn word_end(line: &[u8], at: usize) -> usize {
    let mut rest = &line[at..];
    while let Some((eight, behind)) = rest.split_first_chunk() {
        let lows = low_bytes(u64::from_le_bytes(*eight));
        if lows == 0 {
            rest = behind;
            continue;
        }
        let at = lows.trailing_zeros() as usize / 8;
        if is_blank(eight[at]) {
            return line.len() - rest.len() + at;
        }
        // A control character, which may stand in a word, but seldom does.
        rest = &rest[at + 1..];
    }
    line.len() - rest.len() + short_word_len(line, rest)
}

/// The same for less than eight bytes that a line ends with: how many of them are the word's.
#[inline]
fn short_word_len(line: &[u8], rest: &[u8]) -> usize {
    // With zeros behind them, which look like the word's end.
    if let (Some(last), 1..) = (line.last_chunk(), rest.len()) {
        let lows = low_bytes(u64::from_le_bytes(*last) >> (8 * (8 - rest.len())));
        let at = lows.trailing_zeros() as usize / 8;
        if rest.get(at).is_none_or(|&b| is_blank(b)) {
            return at;
        }
    }
    let at = rest.iter().position(|&b| is_blank(b));
    at.unwrap_or(rest.len())
}

/// Sets the top bit of the first of eight bytes, counted from the lowest, that is a control
/// character or a space; of those above it, perhaps others too.
#[inline]
fn low_bytes(eight: u64) -> u64 {
    // The lowest such byte is the first to borrow: Warren, Hacker's Delight, 6-1.
    eight.wrapping_sub(all(b' ' + 1)) & !eight & TOPS
}

/// Reads a word whose opening quote is just before `start`; returns where it ends.
fn quoted_word(
    line: &[u8],
    start: usize,
    spans: &mut Vec<Span>,
    scratch: &mut Vec<u8>,
) -> Result<usize, &'static str> {
    const UNBALANCED: &str = "unbalanced quotes";
    let plain = line[start..]
        .iter()
        .position(|&b| b == b'"' || b == b'\\')
        .ok_or(UNBALANCED)?;
    let mut at = start + plain;
    if line[at] == b'"' {
        spans.push(Span::input(start, plain));
    } else {
        let begins = scratch.len();
        scratch.extend_from_slice(&line[start..at]);
        while *line.get(at).ok_or(UNBALANCED)? != b'"' {
            if line[at] == b'\\' {
                at = escape(line, at + 1, scratch)?;
            } else {
                scratch.push(line[at]);
                at += 1;
            }
        }
        spans.push(Span::scratch(begins, scratch.len() - begins));
    }
    match line.get(at + 1) {
        Some(&b) if !is_blank(b) => Err("a closing quote ends a word; a space must follow it"),
        _ => Ok(at + 1),
    }
}

/// Reads what stands behind a backslash; returns where to go on.
fn escape(line: &[u8], at: usize, scratch: &mut Vec<u8>) -> Result<usize, &'static str> {
    let byte = match line.get(at) {
        Some(b'"') => b'"',
        Some(b'\\') => b'\\',
        Some(b'n') => b'\n',
        Some(b'r') => b'\r',
        Some(b't') => b'\t',
        Some(b'x') => {
            let digit = |i| line.get(i).and_then(|&b| char::from(b).to_digit(16));
            let (high, low) = digit(at + 1)
                .zip(digit(at + 2))
                .ok_or("\\x needs two hex digits")?;
            scratch.push((high << 4 | low) as u8);
            return Ok(at + 3);
        }
        Some(_) => return Err("unknown escape; known are \\\" \\\\ \\n \\r \\t \\xHH"),
        None => return Err("unbalanced quotes"),
    };
    scratch.push(byte);
    Ok(at + 1)
}

fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// Appends a word as [`LineDecoder`] reads it: bare where possible, quoted where not.
pub fn push_word(word: &[u8], out: &mut Vec<u8>) {
    let is_bare = |b: &u8| b.is_ascii_graphic() && *b != b'"' && *b != b'\\';
    // A bare LEN near the end of a refused line would announce a body.
    if !word.is_empty() && word.iter().all(is_bare) && !word.eq_ignore_ascii_case(LEN) {
        out.extend_from_slice(word);
        return;
    }
    out.push(b'"');
    for &byte in word {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b' ' => out.push(b' '),
            _ if byte.is_ascii_graphic() => out.push(byte),
            _ => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(&[
                    b'\\',
                    b'x',
                    HEX[usize::from(byte >> 4)],
                    HEX[usize::from(byte & 15)],
                ]);
            }
        }
    }
    out.push(b'"');
}

/// Appends a reply as lines.
pub fn encode(reply: &Reply<'_>, sink: &mut impl Sink) {
    let out = sink.bytes();
    match reply {
        Reply::Rows(rows) => {
            out.extend_from_slice(b"ROWS ");
            push_number(rows.len() as i64, out);
            for (name, value) in rows {
                out.push(b'\n');
                out.extend_from_slice(name.as_bytes());
                out.push(b' ');
                out.extend_from_slice(value.as_bytes());
            }
        }
        Reply::Outcome { word, code, body } => {
            out.extend_from_slice(word.as_bytes());
            for number in [i64::from(*code), body.len() as i64] {
                out.push(b' ');
                push_number(number, out);
            }
            out.push(b'\n');
            sink.push_value(body);
        }
        Reply::Error(error) => {
            out.extend_from_slice(b"ERR ");
            out.extend_from_slice(error.code.word().as_bytes());
            out.push(b' ');
            push_on_one_line(error.text.as_bytes(), out);
        }
        other => encode_word(other, out),
    }
    sink.bytes().push(b'\n');
}

fn encode_word(reply: &Reply<'_>, out: &mut Vec<u8>) {
    match reply {
        Reply::Word(word) => out.extend_from_slice(word.as_bytes()),
        Reply::Letters(letters) | Reply::Items(letters) => out.extend_from_slice(letters),
        Reply::Figures(word, numbers) => {
            out.extend_from_slice(word.as_bytes());
            for number in numbers.iter().flatten() {
                out.push(b' ');
                push_number(*number, out);
            }
        }
        Reply::Text(text) => push_word(text, out),
        Reply::Lines(lines) => push_word(lines.as_bytes(), out),
        Reply::Value(value) => push_word(value, out),
        Reply::Number(number) => push_number(*number, out),
        Reply::Count(count) => {
            out.extend_from_slice(b"OK ");
            push_number(*count, out);
        }
        Reply::Flag(flag) => out.push(if *flag { b'1' } else { b'0' }),
        Reply::Nil => out.extend_from_slice(b"NIL"),
        Reply::Array(items) | Reply::Set(items) => {
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(b' ');
                }
                encode_word(item, out);
            }
        }
        Reply::Values { bytes, ends, .. } => {
            let mut begins = 0;
            for &end in ends {
                if begins > 0 {
                    out.push(b' ');
                }
                push_word(&bytes[begins..end], out);
                begins = end;
            }
        }
        Reply::Map(_) | Reply::Rows(_) | Reply::Outcome { .. } | Reply::Error(_) => {
            debug_assert!(
                false,
                "no verb of the line protocol answers with this inside a line"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Words = Result<Vec<Vec<u8>>, &'static str>;

    fn words(line: &[u8]) -> Words {
        let (mut spans, mut scratch) = (Vec::new(), Vec::new());
        split_words(line, &mut spans, &mut scratch)?;
        if spans.is_empty() {
            return Ok(Vec::new());
        }
        let args = Args::new(line, &scratch, &spans);
        Ok(std::iter::once(args.verb())
            .chain(args.rest(0).iter())
            .map(<[u8]>::to_vec)
            .collect())
    }

    #[test]
    fn words_are_bare_or_quoted() {
        let ok = |words: &[&[u8]]| Ok(words.iter().map(|w| w.to_vec()).collect());
        let cases: [(&[u8], Words); 14] = [
            (b"", ok(&[])),
            (b" \t ", ok(&[])),
            (b"SEEN a\t 60s ", ok(&[b"SEEN", b"a", b"60s"])),
            (b"\"a b\" \"\"", ok(&[b"a b", b""])),
            (
                b"\"\\\"\\\\\\n\\r\\t\\x00\\xfF\"",
                ok(&[b"\"\\\n\r\t\x00\xff"]),
            ),
            (b"a\"b c\"", ok(&[b"a\"b", b"c\""])),
            (b"\x00\x01 \xff", ok(&[b"\x00\x01", b"\xff"])),
            (b"\"a", Err("unbalanced quotes")),
            (b"\"", Err("unbalanced quotes")),
            (b"\"a\\\"", Err("unbalanced quotes")),
            (b"\"a\\", Err("unbalanced quotes")),
            (
                b"\"a\"b",
                Err("a closing quote ends a word; a space must follow it"),
            ),
            (
                b"\"\\q\"",
                Err("unknown escape; known are \\\" \\\\ \\n \\r \\t \\xHH"),
            ),
            (b"\"\\x1g\"", Err("\\x needs two hex digits")),
        ];
        for (line, want) in cases {
            assert_eq!(words(line), want, "{}", line.escape_ascii());
        }
    }

    #[test]
    fn a_word_ends_at_its_first_blank() {
        for len in 0..40 {
            for end in 0..=len {
                for blank in *b" \t" {
                    let mut line = vec![b'x'; len];
                    line[end..].fill(blank);
                    for at in 0..=end {
                        assert_eq!(word_end(&line, at), end, "{}", line.escape_ascii());
                    }
                }
            }
        }
        // What a blank might be taken for.
        for byte in (0..=u8::MAX).filter(|&b| !is_blank(b)) {
            assert_eq!(word_end(&[byte; 23], 0), 23);
            assert_eq!(word_end(&[byte; 23], 20), 23);
            for end in 0..23 {
                let mut line = [byte; 23];
                line[end] = b' ';
                assert_eq!(word_end(&line, 0), end, "{}", line.escape_ascii());
            }
        }
    }

    #[test]
    fn a_line_may_announce_a_body() {
        for (line, want) in [
            ("FOO k 1 LEN 5", Body::Bytes(5)),
            ("foo len 0", Body::Bytes(0)),
            ("FOO LEN x", Body::Unreadable),
            ("FOO LEN -1", Body::Unreadable),
            ("FOO LEN 99999999999999999999", Body::Unreadable),
            ("LEN", Body::None),
            ("FOO LEN 5 more", Body::None),
            ("", Body::None),
        ] {
            assert_eq!(announced_body(line.as_bytes()), want, "{line}");
        }
    }

    #[test]
    fn words_are_quoted_only_where_they_must_be() {
        for (word, want) in [
            (&b"user-42"[..], "user-42"),
            (b"-", "-"),
            (b"len", "\"len\""),
            (b"", "\"\""),
            (b"a b", "\"a b\""),
            (b"a\\b", "\"a\\\\b\""),
            (b"a\"b", "\"a\\\"b\""),
            (b"\n\r\t", "\"\\n\\r\\t\""),
            (b"\0\x1f\x7f\x80\xff", "\"\\x00\\x1f\\x7f\\x80\\xff\""),
        ] {
            let mut out = Vec::new();
            push_word(word, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), want);
        }
    }

    proptest! {
        #[test]
        fn a_pushed_word_reads_back(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut line = Vec::new();
            push_word(&bytes, &mut line);
            prop_assert_eq!(words(&line), Ok(vec![bytes]));
        }
    }
}
