//! Where in a line its key is.
//!
//! A rule finds a key of at least one byte or none; a line that does not fit the rule (not
//! JSON, too few fields) has none, it is never an error. Nothing here knows about line ends: a
//! line comes without them.

use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::csv::Csv;
use super::pattern::Pattern;

/// How to find a line's key.
#[derive(Debug)]
pub(super) enum KeyRule {
    /// The line itself.
    WholeLine {
        /// The key of an empty line. Keys have at least one byte; what ends a line is not in it,
        /// so that this cannot be another line's key, and processes that share a server agree on
        /// empty lines too.
        if_empty: &'static [u8],
    },
    /// The first match of a pattern, or its group 1.
    Pattern(Pattern),
    /// The value at a place in a JSON text.
    Json(Pointer),
    /// The field with this number, counted from 1, between single `delimiter` bytes or, without
    /// one, between runs of blanks.
    Field {
        number: NonZeroUsize,
        delimiter: Option<u8>,
    },
    /// A field of a CSV record.
    Csv(Box<Csv>),
}

impl KeyRule {
    /// The key of `line`, which comes without its line end.
    pub(super) fn key<'a>(&mut self, line: &'a [u8]) -> Option<Cow<'a, [u8]>> {
        let key = match self {
            Self::WholeLine { if_empty } if line.is_empty() => Some(Cow::Borrowed(*if_empty)),
            Self::WholeLine { .. } => Some(Cow::Borrowed(line)),
            Self::Pattern(pattern) => pattern.find(line).map(|found| Cow::Borrowed(&line[found])),
            Self::Json(pointer) => pointer.key(line),
            Self::Field { number, delimiter } => {
                field(line, *number, *delimiter).map(Cow::Borrowed)
            }
            Self::Csv(csv) => csv.key(line).map(Cow::Owned),
        };
        key.filter(|key| !key.is_empty())
    }

    /// Whether the first line of each input says where keys are, and has none itself.
    pub(super) fn has_header(&self) -> bool {
        matches!(self, Self::Csv(csv) if csv.has_header())
    }

    /// Reads such a line.
    pub(super) fn read_header(&mut self, header: &[u8]) -> Result<(), String> {
        match self {
            Self::Csv(csv) => csv.read_header(header),
            _ => Ok(()),
        }
    }
}

fn field(line: &[u8], number: NonZeroUsize, delimiter: Option<u8>) -> Option<&[u8]> {
    let position = number.get() - 1;
    match delimiter {
        Some(delimiter) => line.split(|&byte| byte == delimiter).nth(position),
        None => line
            .split(|byte| matches!(byte, b' ' | b'\t'))
            .filter(|field| !field.is_empty())
            .nth(position),
    }
}

/// Reads `--delimiter`: one byte, or `\t`.
pub(super) fn parse_delimiter(text: &str) -> Result<u8, &'static str> {
    match text.as_bytes() {
        [byte] => Ok(*byte),
        b"\\t" => Ok(b'\t'),
        _ => Err("a delimiter is a single byte, such as ',' or ';', or '\\t' for a tab"),
    }
}

/// A JSON pointer (RFC 6901): the way from the root of a JSON text to a value in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pointer {
    tokens: Vec<String>,
}

impl FromStr for Pointer {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Ok(Self { tokens: Vec::new() });
        }
        let steps = text
            .strip_prefix('/')
            .ok_or("a JSON pointer starts with '/', such as /request/id")?;
        let tokens = steps
            .split('/')
            .map(unescape_token)
            .collect::<Result<_, _>>()?;
        Ok(Self { tokens })
    }
}

fn unescape_token(token: &str) -> Result<String, &'static str> {
    let mut parts = token.split('~');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (escaped, rest) = match part.as_bytes().first() {
            Some(b'0') => ('~', &part[1..]),
            Some(b'1') => ('/', &part[1..]),
            _ => return Err("in a JSON pointer '~' is written ~0 and '/' within a name ~1"),
        };
        plain.push(escaped);
        plain.push_str(rest);
    }
    Ok(plain)
}

impl Pointer {
    /// The text of the value this points to; `None` where there is none or it is null.
    ///
    /// The value is taken from the line as it is written, not through a parsed number, so that
    /// two long numbers that round to the same double remain two keys.
    fn key<'a>(&self, line: &'a [u8]) -> Option<Cow<'a, [u8]>> {
        let text = str::from_utf8(line).ok()?;
        let mut json = serde_json::Deserializer::from_str(text);
        let found = Seek(&self.tokens).deserialize(&mut json).ok()?;
        json.end().ok()?;
        let raw = found?.get();
        match raw.as_bytes().first()? {
            b'n' => None,
            b'"' if raw.contains('\\') => serde_json::from_str::<String>(raw)
                .ok()
                .map(|text| Cow::Owned(text.into_bytes())),
            b'"' => Some(Cow::Borrowed(&raw.as_bytes()[1..raw.len() - 1])),
            b'{' | b'[' => Some(Cow::Owned(compact(raw.as_bytes()))),
            _ => Some(Cow::Borrowed(raw.as_bytes())),
        }
    }
}

/// Valid JSON without the white space between its tokens.
fn compact(json: &[u8]) -> Vec<u8> {
    let mut dense = Vec::with_capacity(json.len());
    let mut in_string = false;
    let mut escaped = false;
    for &byte in json {
        if !in_string && matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
            continue;
        }
        dense.push(byte);
        if byte == b'"' && !escaped {
            in_string = !in_string;
        }
        escaped = byte == b'\\' && !escaped;
    }
    dense
}

/// Reads one JSON value and keeps the text of what lies at the end of these tokens. The rest
/// is checked and skipped without being built.
struct Seek<'p>(&'p [String]);

impl<'de> DeserializeSeed<'de> for Seek<'_> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        if self.0.is_empty() {
            return serde::Deserialize::deserialize(json).map(Some);
        }
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seek<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(is_next) = members.next_key_seed(IsName(&self.0[0]))? {
            // Of members with one name the last counts, as in most readers.
            if is_next {
                found = members.next_value_seed(Seek(&self.0[1..]))?;
            } else {
                members.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        let index = array_index(&self.0[0]);
        let mut found = None;
        for position in 0_usize.. {
            if index == Some(position) {
                match elements.next_element_seed(Seek(&self.0[1..]))? {
                    Some(value) => found = value,
                    None => break,
                }
            } else if elements.next_element::<IgnoredAny>()?.is_none() {
                break;
            }
        }
        Ok(found)
    }

    // The way goes on but the value has no inside: nothing is there.

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(None)
    }
}

/// RFC 6901 array indices: digits without leading zeros.
fn array_index(token: &str) -> Option<usize> {
    let canonical = token == "0" || !token.starts_with(['0', '+']);
    token.parse().ok().filter(|_| canonical)
}

/// Reads a member's name and says whether it is this one.
struct IsName<'p>(&'p str);

impl<'de> DeserializeSeed<'de> for IsName<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<bool, D::Error> {
        json.deserialize_str(self)
    }
}

impl Visitor<'_> for IsName<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_str<E>(self, name: &str) -> Result<bool, E> {
        Ok(name == self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key as text, `None` if the line has none.
    fn key(rule: &mut KeyRule, line: &[u8]) -> Option<String> {
        rule.key(line).map(|key| key.escape_ascii().to_string())
    }

    fn check(rule: &mut KeyRule, cases: &[(&[u8], Option<&str>)]) {
        for (line, want) in cases {
            let found = key(rule, line);
            assert_eq!(found.as_deref(), *want, "{}", line.escape_ascii());
        }
    }

    #[test]
    fn the_whole_line_is_a_key_even_when_empty() {
        check(
            &mut KeyRule::WholeLine { if_empty: b"\n" },
            &[
                (b"a b", Some("a b")),
                (b"a\r", Some("a\\r")),
                (b"\0\xff", Some("\\x00\\xff")),
                (b"", Some("\\n")),
            ],
        );
    }

    fn by_field(number: usize, delimiter: Option<u8>) -> KeyRule {
        KeyRule::Field {
            number: NonZeroUsize::new(number).unwrap(),
            delimiter,
        }
    }

    #[test]
    fn fields_stand_between_runs_of_blanks() {
        check(
            &mut by_field(2, None),
            &[
                (b"a b c", Some("b")),
                (b" \ta \t b", Some("b")),
                (b"a b\r", Some("b\\r")),
                (b"a\xa0b", None),
                (b"a ", None),
                (b"", None),
            ],
        );
    }

    #[test]
    fn a_delimiter_separates_exactly() {
        check(
            &mut by_field(2, Some(b',')),
            &[
                (b"a,b,c", Some("b")),
                (b"a, b", Some(" b")),
                (b"a,,c", None),
                (b"a,", None),
                (b"a", None),
                (b"", None),
            ],
        );
        check(&mut by_field(1, Some(0)), &[(b"a\0b", Some("a"))]);
        assert_eq!(parse_delimiter(","), Ok(b','));
        assert_eq!(parse_delimiter("\\t"), Ok(b'\t'));
        assert!(parse_delimiter("").is_err());
        assert!(parse_delimiter("ab").is_err());
        assert!(parse_delimiter("\u{e9}").is_err());
    }

    fn by_pointer(text: &str) -> KeyRule {
        KeyRule::Json(text.parse().unwrap())
    }

    #[test]
    fn a_pointer_takes_the_text_of_any_value() {
        check(
            &mut by_pointer("/id"),
            &[
                (br#"{"id":"a b"}"#, Some("a b")),
                (br#"{"id":"a\n\u00e9\"\\"}"#, Some(r#"a\n\xc3\xa9\"\\"#)),
                (br#" {"x":[1,{"id":9}],"id": 7 } "#, Some("7")),
                (b"{\"id\":1}\r", Some("1")),
                (br#"{"id":1.50}"#, Some("1.50")),
                (
                    br#"{"id":12345678901234567890123}"#,
                    Some("12345678901234567890123"),
                ),
                (br#"{"id":true}"#, Some("true")),
                (br#"{"\u0069d":1}"#, Some("1")),
                (br#"{"id":1,"id":2}"#, Some("2")),
                (
                    br#"{"id":{"b": [1, "x \" y"], "a" :{} }}"#,
                    Some(r#"{\"b\":[1,\"x \\\" y\"],\"a\":{}}"#),
                ),
                (br#"{"id":[ ]}"#, Some("[]")),
            ],
        );
    }

    #[test]
    fn nothing_at_the_pointer_is_no_key() {
        check(
            &mut by_pointer("/id"),
            &[
                (br#"{"id":null}"#, None),
                (br#"{"id":""}"#, None),
                (br#"{"ID":1}"#, None),
                (br#"{"id":1} x"#, None),
                (br#"{"id":1"#, None),
                (b"{\"id\":1,\"x\":\"\xff\"}", None),
                (br#"{"id":"\ud800"}"#, None),
                (br#"["id"]"#, None),
                (br#""id""#, None),
                (b"-1", None),
                (b"1.5", None),
                (b"null", None),
                (b"false", None),
                (b"", None),
                (b"plain text", None),
            ],
        );
    }

    #[test]
    fn pointers_walk_objects_and_arrays() {
        let line = br#"{"a":[{"b":1},{"b":[5,6]}],"x/y":2,"m~n":3,"":4,"01":5,"1":{"":6}}"#;
        for (pointer, want) in [
            ("/a/0/b", Some("1")),
            ("/a/1/b/1", Some("6")),
            ("/a/1/b/2", None),
            ("/a/-", None),
            ("/a/00", None),
            ("/a/+0", None),
            ("/a/b", None),
            ("/a/0/b/c", None),
            ("/x~1y", Some("2")),
            ("/m~0n", Some("3")),
            ("/", Some("4")),
            ("/01", Some("5")),
            ("/1/", Some("6")),
        ] {
            check(&mut by_pointer(pointer), &[(line, want)]);
        }
        check(&mut by_pointer(""), &[(b"[1, 2]", Some("[1,2]"))]);
        for text in ["id", "/a~", "/a~2", "a/b"] {
            assert!(text.parse::<Pointer>().is_err(), "{text}");
        }
        assert_eq!(unescape_token("~01").as_deref(), Ok("~1"));
    }
}
