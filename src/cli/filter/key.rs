//! Where in a line its key is.
//!
//! A rule finds a key of at least one byte or none; a line that does not fit the rule (not
//! JSON, too few fields) has none, it is never an error. Nothing here knows about line ends: a
//! line comes without them.

use std::borrow::Cow;
use std::num::NonZeroUsize;

use super::csv::Csv;
use super::pattern::Pattern;
use crate::json::{self, Pointer};

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
            Self::Json(pointer) => at_pointer(pointer, line),
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

/// The key of a line whose value at this place is the key; `None` where there is none, or null.
///
/// Types stay apart: what is no string is its canonical JSON text, and so is a string that could be taken for
/// one, or has a lone surrogate and so no bytes of its own. All other strings, which is nearly all, are
/// their bare bytes.
fn at_pointer<'a>(pointer: &Pointer, line: &'a [u8]) -> Option<Cow<'a, [u8]>> {
    let value = pointer.find(line)?;
    match value.as_bytes().first()? {
        b'n' => None,
        b'"' => match json::unescaped(value) {
            Some(Cow::Borrowed(bare)) if !json::is_text(bare) => {
                Some(Cow::Borrowed(bare.as_bytes()))
            }
            Some(Cow::Owned(bare)) if !json::is_text(&bare) => Some(Cow::Owned(bare.into_bytes())),
            _ => json::canonical(value.as_bytes()),
        },
        _ => json::canonical(value.as_bytes()),
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
                (br#"{"id":1.50}"#, Some("1.5")),
                (
                    br#"{"id":12345678901234567890123}"#,
                    Some("12345678901234567890123"),
                ),
                (br#"{"id":true}"#, Some("true")),
                (br#"{"\u0069d":1}"#, Some("1")),
                (br#"{"id":1,"id":2}"#, Some("2")),
                (
                    br#"{"id":{"b": [1, "x \" y"], "a" :{} }}"#,
                    Some(r#"{\"a\":{},\"b\":[1,\"x \\\" y\"]}"#),
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
    }

    /// Keys that were one though their values are not, and keys that were none.
    #[test]
    fn types_stay_apart_in_keys() {
        check(
            &mut by_pointer("/id"),
            &[
                (br#"{"id":"order-17"}"#, Some("order-17")),
                (br#"{"id":17}"#, Some("17")),
                (br#"{"id":"17"}"#, Some(r#"\"17\""#)),
                (br#"{"id":"\u0031\u0037"}"#, Some(r#"\"17\""#)),
                (br#"{"id":" 17"}"#, Some(r#"\" 17\""#)),
                (br#"{"id":"17 a"}"#, Some("17 a")),
                (br#"{"id":"1e5"}"#, Some(r#"\"1e5\""#)),
                (br#"{"id":"8e03978e"}"#, Some("8e03978e")),
                (br#"{"id":true}"#, Some("true")),
                (br#"{"id":"true"}"#, Some(r#"\"true\""#)),
                (br#"{"id":"truex"}"#, Some("truex")),
                (br#"{"id":"null"}"#, Some(r#"\"null\""#)),
                (br#"{"id":[1]}"#, Some("[1]")),
                (br#"{"id":"[1]"}"#, Some(r#"\"[1]\""#)),
                (br#"{"id":"[1"}"#, Some("[1")),
                (br#"{"id":"\"x\""}"#, Some(r#"\"\\\"x\\\"\""#)),
                (br#"{"id":{"a":1}}"#, Some(r#"{\"a\":1}"#)),
                (br#"{"id":"{\"a\":1}"}"#, Some(r#"\"{\\\"a\\\":1}\""#)),
            ],
        );
    }

    #[test]
    fn values_that_are_equal_are_one_key_at_every_depth() {
        for (pointer, lines) in [
            ("/id", &[&br#"{"id":"a\/b"}"#[..], br#"{"id":"a/b"}"#][..]),
            ("", &[br#"["a\/b"]"#, br#"[ "a/b"]"#, br#"["\u0061/b"]"#]),
            ("", &[br#"{"a":1,"b":[2]}"#, br#"{"b":[2.0], "a":1e0}"#]),
            (
                "/id",
                &[br#"{"id":1}"#, br#"{"id":1.0}"#, br#"{"id":10e-1}"#],
            ),
            ("", &[br#"[{"x":[1.0]}]"#, br#"[{"x":[1]}]"#]),
        ] {
            let mut rule = by_pointer(pointer);
            let first = key(&mut rule, lines[0]);
            assert!(first.is_some());
            for line in lines {
                assert_eq!(key(&mut rule, line), first, "{}", line.escape_ascii());
            }
        }
    }

    #[test]
    fn lone_surrogates_and_deep_nesting_cost_no_key() {
        let deep = [
            &b"{\"x\":"[..],
            &b"[".repeat(200),
            &b"]".repeat(200),
            b",\"id\":7}",
        ]
        .concat();
        check(
            &mut by_pointer("/id"),
            &[
                (br#"{"id":"\ud83d"}"#, Some(r#"\"\\ud83d\""#)),
                (br#"{"id":"a\uD83D"}"#, Some(r#"\"a\\ud83d\""#)),
                (br#"{"id":"\ud83d\ude00"}"#, Some(r"\xf0\x9f\x98\x80")),
                (br#"{"x":"\ud83d","id":7}"#, Some("7")),
                (br#"{"\ud83d":1,"id":7}"#, Some("7")),
                (&deep, Some("7")),
            ],
        );
    }

    #[test]
    fn what_a_name_says_last_counts_and_ways_do_not_cross() {
        for (pointer, line, want) in [
            ("/a/b", &br#"{"a":{"b":1},"a":{"b":2}}"#[..], Some("2")),
            ("/a/b", br#"{"a":{"b":1},"a":2}"#, None),
            ("/a/b", br#"{"a":{"b":1,"c":{"b":3}},"b":4}"#, Some("1")),
            ("/a/b", br#"{"a":[{"b":3}],"b":4}"#, None),
            ("/0/1", b"[[[0],[1,2],[3]],[4,5]]", Some("[1,2]")),
            ("/1/0", br#"[{"0":9},{"0":8},{"0":7}]"#, Some("8")),
            ("/1", br#"[[7,8],"x",9]"#, Some("x")),
            ("/a", br#"{"b":{"a":1},"a":{"a":2}}"#, Some(r#"{\"a\":2}"#)),
            ("/a", br#"{"a":{"x":[]},"a":null}"#, None),
            ("/a\\nb", br#"{"a\\nb":1,"a\nb":2}"#, Some("1")),
        ] {
            check(&mut by_pointer(pointer), &[(line, want)]);
        }
    }
}
