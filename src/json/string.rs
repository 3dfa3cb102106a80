//! Strings: what they stand for, and how they are written canonically.
//!
//! All of these take a string of the grammar as it is written in its text, with its quotes.

use std::borrow::Cow;
use std::cmp::Ordering;

use memchr::memchr;

/// What a string stands for; `None` if there is a lone surrogate in it, which no text has.
pub(crate) fn unescaped(string: &str) -> Option<Cow<'_, str>> {
    let inside = inside(string);
    if !has_escapes(inside) {
        return Some(Cow::Borrowed(inside));
    }
    let mut text = String::with_capacity(inside.len());
    for piece in Pieces(inside) {
        match piece {
            Piece::Plain(plain) => text.push_str(plain),
            Piece::Escaped(point) => text.push(point),
            Piece::Lone(_) => return None,
        }
    }
    Some(Cow::Owned(text))
}

/// Whether a string stands for this text.
#[inline]
pub(super) fn is(string: &str, text: &str) -> bool {
    let inside = inside(string);
    // An escape is longer than what it stands for.
    match inside.len().cmp(&text.len()) {
        Ordering::Less => false,
        Ordering::Equal => inside == text && !has_escapes(inside),
        Ordering::Greater => has_escapes(inside) && Units::of(inside).eq(text.encode_utf16()),
    }
}

/// The order of members: by the UTF-16 code units of their names.
pub(super) fn compare(a: &str, b: &str) -> Ordering {
    Units::of(inside(a)).cmp(Units::of(inside(b)))
}

/// Whether a string is written canonically already. Control characters and quotes stand for themselves in
/// none, so that only escapes can be written otherwise.
pub(super) fn is_canonical(string: &str) -> bool {
    !has_escapes(inside(string))
}

/// Appends the canonical form.
pub(super) fn write(string: &str, out: &mut Vec<u8>) {
    if is_canonical(string) {
        return out.extend_from_slice(string.as_bytes());
    }
    out.push(b'"');
    for piece in Pieces(inside(string)) {
        match piece {
            Piece::Plain(plain) => out.extend_from_slice(plain.as_bytes()),
            Piece::Escaped('"') => out.extend_from_slice(br#"\""#),
            Piece::Escaped('\\') => out.extend_from_slice(br"\\"),
            Piece::Escaped('\u{8}') => out.extend_from_slice(br"\b"),
            Piece::Escaped('\t') => out.extend_from_slice(br"\t"),
            Piece::Escaped('\n') => out.extend_from_slice(br"\n"),
            Piece::Escaped('\u{c}') => out.extend_from_slice(br"\f"),
            Piece::Escaped('\r') => out.extend_from_slice(br"\r"),
            Piece::Escaped(control @ '\0'..' ') => write_unit(control as u16, out),
            Piece::Escaped(point) => {
                out.extend_from_slice(point.encode_utf8(&mut [0; 4]).as_bytes());
            }
            Piece::Lone(unit) => write_unit(unit, out),
        }
    }
    out.push(b'"');
}

fn write_unit(unit: u16, out: &mut Vec<u8>) {
    out.extend_from_slice(br"\u");
    for shift in [12, 8, 4, 0] {
        out.push(b"0123456789abcdef"[usize::from(unit >> shift & 0xf)]);
    }
}

fn inside(string: &str) -> &str {
    &string[1..string.len() - 1]
}

fn has_escapes(inside: &str) -> bool {
    memchr(b'\\', inside.as_bytes()).is_some()
}

/// A part of a string.
enum Piece<'t> {
    /// Characters that stand for themselves.
    Plain(&'t str),
    /// A character that was written as an escape, or as two.
    Escaped(char),
    /// Half of a surrogate pair, the other half of which is not there.
    Lone(u16),
}

/// The parts of the inside of a string.
struct Pieces<'t>(&'t str);

impl<'t> Iterator for Pieces<'t> {
    type Item = Piece<'t>;

    fn next(&mut self) -> Option<Piece<'t>> {
        let plain_len = memchr(b'\\', self.0.as_bytes()).unwrap_or(self.0.len());
        if plain_len > 0 {
            let (plain, rest) = self.0.split_at(plain_len);
            self.0 = rest;
            return Some(Piece::Plain(plain));
        }
        let (unit, rest) = escape(self.0)?;
        self.0 = rest;
        if let Some(point) = char::from_u32(unit.into()) {
            return Some(Piece::Escaped(point));
        }
        if let Some((low, rest)) = escape(rest)
            && let Some(Ok(point)) = char::decode_utf16([unit, low]).next()
        {
            self.0 = rest;
            return Some(Piece::Escaped(point));
        }
        Some(Piece::Lone(unit))
    }
}

/// The code unit that an escape at the beginning of this stands for, and what is behind it; `None` if there is
/// none.
fn escape(text: &str) -> Option<(u16, &str)> {
    let mut chars = text.strip_prefix('\\')?.chars();
    let unit = match chars.next()? {
        'b' => 0x8,
        't' => 0x9,
        'n' => 0xa,
        'f' => 0xc,
        'r' => 0xd,
        'u' => {
            let (digits, rest) = chars.as_str().split_at_checked(4)?;
            return Some((u16::from_str_radix(digits, 16).ok()?, rest));
        }
        itself => itself as u16,
    };
    Some((unit, chars.as_str()))
}

/// The UTF-16 code units that the inside of a string stands for.
struct Units<'t> {
    rest: &'t str,
    /// The second half of a pair whose first is out.
    low: Option<u16>,
}

impl<'t> Units<'t> {
    fn of(inside: &'t str) -> Self {
        Self {
            rest: inside,
            low: None,
        }
    }
}

impl Iterator for Units<'_> {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        if let Some(low) = self.low.take() {
            return Some(low);
        }
        if let Some((unit, rest)) = escape(self.rest) {
            self.rest = rest;
            return Some(unit);
        }
        let mut chars = self.rest.chars();
        let point = chars.next()?;
        self.rest = chars.as_str();
        let mut pair = [0; 2];
        if let [high, low] = *point.encode_utf16(&mut pair) {
            self.low = Some(low);
            return Some(high);
        }
        Some(pair[0])
    }
}
