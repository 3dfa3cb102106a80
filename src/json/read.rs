//! The grammar: a text's tokens, one after another, without recursion.

use std::ops::Range;

use crate::eight::{TOPS, all};

/// A part of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// `{` or `[`.
    Open,
    /// `}` or `]`.
    Close,
    /// A member's name, with its quotes; its `:` has been read too.
    Name,
    /// A string, number or word that is a value.
    Scalar,
    /// The text is whole.
    End,
}

/// What an object or array may go on with.
#[derive(Clone, Copy)]
enum Expected {
    Value,
    /// The first member or element, or the end.
    First,
    /// A comma or the end.
    Next,
}

/// Reads a text's tokens.
pub(super) struct Reader<'t> {
    text: &'t str,
    at: usize,
    span: Range<usize>,
    has_space: bool,
    expected: Expected,
    kinds: Kinds,
}

impl<'t> Reader<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self {
            text,
            at: 0,
            span: 0..0,
            has_space: false,
            expected: Expected::Value,
            kinds: Kinds::default(),
        }
    }

    /// The next token; `None` where the text is no JSON.
    #[inline]
    pub(super) fn next(&mut self) -> Option<Token> {
        self.skip_space();
        match (self.expected, self.peek()) {
            (Expected::Value, _) => self.value(),
            (_, b'}' | b']') => self.close(),
            (Expected::First, _) => self.item(),
            (Expected::Next, b',') if self.depth() > 0 => {
                self.at += 1;
                self.skip_space();
                self.item()
            }
            (Expected::Next, _) => {
                (self.depth() == 0 && self.at == self.text.len()).then_some(Token::End)
            }
        }
    }

    /// Reads past what a member's name is of, if that is no object or array.
    #[inline]
    pub(super) fn skip_scalar(&mut self) -> Option<()> {
        self.skip_space();
        if !matches!(self.peek(), b'{' | b'[') {
            self.value()?;
        }
        Some(())
    }

    /// Where the last token is.
    pub(super) fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// Where the next token is, or the white space before it.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Whether there was white space between the tokens.
    pub(super) fn has_space(&self) -> bool {
        self.has_space
    }

    /// Objects and arrays that are open.
    pub(super) fn depth(&self) -> usize {
        self.kinds.depth
    }

    /// Whether the innermost that is open is an object.
    pub(super) fn is_in_object(&self) -> bool {
        self.kinds.is_object()
    }

    /// The next byte, or one that no token begins with.
    #[inline]
    fn peek(&self) -> u8 {
        self.text.as_bytes().get(self.at).copied().unwrap_or(0)
    }

    #[inline]
    fn skip_space(&mut self) {
        let end = space_end(self.text.as_bytes(), self.at);
        self.has_space |= end > self.at;
        self.at = end;
    }

    /// A member up to its value, or an element.
    #[inline]
    fn item(&mut self) -> Option<Token> {
        if !self.kinds.is_object() {
            return self.value();
        }
        let end = string_end(self.text.as_bytes(), self.at)?;
        self.span = self.at..end;
        self.at = end;
        self.skip_space();
        if self.peek() != b':' {
            return None;
        }
        self.at += 1;
        self.expected = Expected::Value;
        Some(Token::Name)
    }

    #[inline]
    fn value(&mut self) -> Option<Token> {
        let first = self.peek();
        if matches!(first, b'{' | b'[') {
            self.span = self.at..self.at + 1;
            self.at += 1;
            self.kinds.push(first == b'{');
            self.expected = Expected::First;
            return Some(Token::Open);
        }
        let end = scalar_end(self.text.as_bytes(), self.at)?;
        self.span = self.at..end;
        self.at = end;
        self.expected = Expected::Next;
        Some(Token::Scalar)
    }

    #[inline]
    fn close(&mut self) -> Option<Token> {
        let is_object = self.peek() == b'}';
        if self.depth() == 0 || is_object != self.kinds.is_object() {
            return None;
        }
        self.span = self.at..self.at + 1;
        self.at += 1;
        self.kinds.pop();
        self.expected = Expected::Next;
        Some(Token::Close)
    }
}

/// Whether this is one JSON text.
pub(crate) fn is_text(text: &str) -> bool {
    let mut reader = Reader::new(text);
    loop {
        match reader.next() {
            None => return false,
            Some(Token::End) => return true,
            Some(_) => {}
        }
    }
}

/// Which of the objects and arrays that are open are objects: a bit for each.
#[derive(Default)]
pub(super) struct Kinds {
    depth: usize,
    /// Of the innermost up to 64, the lowest bit that of the innermost.
    last: u64,
    /// Of those around them, in words of 64.
    before: Vec<u64>,
}

impl Kinds {
    pub(super) fn push(&mut self, is_object: bool) {
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.before.push(self.last);
        }
        self.last = self.last << 1 | u64::from(is_object);
        self.depth += 1;
    }

    pub(super) fn pop(&mut self) {
        self.depth -= 1;
        self.last >>= 1;
        if self.depth.is_multiple_of(64) {
            self.last = self.before.pop().unwrap_or(0);
        }
    }

    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    /// Whether the innermost is an object; not if none is open.
    pub(super) fn is_object(&self) -> bool {
        self.last & 1 == 1
    }
}

/// Where the white space ends that may be here.
#[inline]
pub(super) fn space_end(text: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\t' | b'\r' | b'\n') = text.get(at) {
        at += 1;
    }
    at
}

/// Where the string, number or word ends that begins here.
#[inline]
pub(super) fn scalar_end(text: &[u8], at: usize) -> Option<usize> {
    let word: &[u8] = match text.get(at)? {
        b'"' => return string_end(text, at),
        b'-' | b'0'..=b'9' => return number_end(text, at),
        b't' => b"true",
        b'f' => b"false",
        _ => b"null",
    };
    text[at..].starts_with(word).then_some(at + word.len())
}

/// Where the string ends that begins here, its quotes included.
#[inline]
pub(super) fn string_end(text: &[u8], at: usize) -> Option<usize> {
    if text.get(at) != Some(&b'"') {
        return None;
    }
    let mut at = at + 1;
    loop {
        at = plain_end(text, at);
        match text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at = escape_end(text, at)?,
            byte if *byte < b' ' => return None,
            _ => at += 1,
        }
    }
}

/// Skips bytes of a string that mean themselves, eight at a time; the last few are left. (Blocks of 32 first were
/// no faster: most strings are short.)
#[inline]
fn plain_end(text: &[u8], mut at: usize) -> usize {
    while let Some(eight) = text[at..].first_chunk() {
        let word = u64::from_le_bytes(*eight);
        // A byte below a bound borrows its top bit. That may mark the byte above one that is marked rightly,
        // never one below.
        let below = |word: u64, bound: u8| word.wrapping_sub(all(bound));
        let is = |byte: u8| below(word ^ all(byte), 1);
        let marked = (is(b'"') | is(b'\\') | below(word, b' ')) & !word & TOPS;
        if marked != 0 {
            return at + marked.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    at
}

fn escape_end(text: &[u8], at: usize) -> Option<usize> {
    match text.get(at + 1)? {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(at + 2),
        b'u' => {
            let digits = text.get(at + 2..at + 6)?;
            digits.iter().all(u8::is_ascii_hexdigit).then_some(at + 6)
        }
        _ => None,
    }
}

/// Where the number ends that begins here. Whether what follows may follow is not seen here.
#[inline]
fn number_end(text: &[u8], at: usize) -> Option<usize> {
    let at = at + usize::from(text.get(at) == Some(&b'-'));
    let mut at = match text.get(at)? {
        b'0' => at + 1,
        _ => digits_end(text, at)?,
    };
    if text.get(at) == Some(&b'.') {
        at = digits_end(text, at + 1)?;
    }
    if let Some(b'e' | b'E') = text.get(at) {
        let is_signed = matches!(text.get(at + 1), Some(b'+' | b'-'));
        at = digits_end(text, at + 1 + usize::from(is_signed))?;
    }
    Some(at)
}

/// Where the digits end of which there is to be one here at least.
fn digits_end(text: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while text.get(at).is_some_and(u8::is_ascii_digit) {
        at += 1;
    }
    (at > from).then_some(at)
}
