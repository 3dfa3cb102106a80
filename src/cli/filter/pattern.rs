//! A regular expression over lines of any bytes.
//!
//! Expressions are about characters: `.`, `\S` or `[^,]` match one, also where it has several
//! bytes. A byte that is of no character (the line is not UTF-8) counts as one that is no letter,
//! digit or space, so that what is around it is matched as if it were a strange letter. An
//! expression that asks for bytes itself, `(?-u:\xff)`, sees the line as it is.

use std::ops::Range;

use anyhow::anyhow;
use regex::{Regex, bytes};

/// What stands for a byte of no character, while its line is searched: of private use, so in no
/// class that is not a negated one.
const STAND_IN: char = '\u{10fffd}';

/// A regular expression whose first match, or group 1 of it, is a key.
#[derive(Debug)]
pub(super) enum Pattern {
    Characters {
        regex: Regex,
        /// Room for the groups, where there are any.
        groups: Option<regex::CaptureLocations>,
        /// A line that is not UTF-8, made so.
        stood_in: String,
    },
    Bytes {
        regex: bytes::Regex,
        groups: Option<bytes::CaptureLocations>,
    },
}

impl Pattern {
    /// Compiles `text`; the error is one line.
    pub(super) fn new(text: &str) -> anyhow::Result<Self> {
        if let Ok(regex) = Regex::new(text) {
            let groups = (regex.captures_len() > 1).then(|| regex.capture_locations());
            return Ok(Self::Characters {
                regex,
                groups,
                stood_in: String::new(),
            });
        }
        let regex = bytes::Regex::new(text).map_err(|err| {
            // The crate draws the pattern with a caret below it; the last line says what is wrong.
            let drawing = err.to_string();
            let reason = drawing.lines().next_back().unwrap_or_default();
            let reason = reason.strip_prefix("error: ").unwrap_or(reason);
            anyhow!("--key-regex '{}': {reason}", text.escape_debug())
        })?;
        let groups = (regex.captures_len() > 1).then(|| regex.capture_locations());
        Ok(Self::Bytes { regex, groups })
    }

    /// Where in `line` the match is, or its group 1 if the expression has one.
    pub(super) fn find(&mut self, line: &[u8]) -> Option<Range<usize>> {
        match self {
            Self::Bytes { regex, groups } => match groups {
                None => regex.find(line).map(|found| found.range()),
                Some(groups) => {
                    regex.captures_read(groups, line)?;
                    groups.get(1).map(|(start, end)| start..end)
                }
            },
            Self::Characters {
                regex,
                groups,
                stood_in,
            } => {
                let is_utf8 = str::from_utf8(line);
                let text = is_utf8.unwrap_or_else(|_| {
                    stand_in(line, stood_in);
                    stood_in
                });
                let found = match groups {
                    None => regex.find(text)?.range(),
                    Some(groups) => {
                        regex.captures_read(groups, text)?;
                        let (start, end) = groups.get(1)?;
                        start..end
                    }
                };
                Some(if is_utf8.is_ok() {
                    found
                } else {
                    original(line, found.start)..original(line, found.end)
                })
            }
        }
    }
}

/// The line, with a character in the place of each byte that is of none.
fn stand_in(line: &[u8], text: &mut String) {
    text.clear();
    for chunk in line.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| STAND_IN));
    }
}

/// Where in the line a place in the text is that [`stand_in`] made of it.
fn original(line: &[u8], place: usize) -> usize {
    let (mut in_line, mut left) = (0, place);
    for chunk in line.utf8_chunks() {
        for (bytes, width) in [
            (chunk.valid().len(), 1),
            (chunk.invalid().len(), STAND_IN.len_utf8()),
        ] {
            let in_text = bytes * width;
            if left <= in_text {
                return in_line + left / width;
            }
            in_line += bytes;
            left -= in_text;
        }
    }
    in_line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, cases: &[(&[u8], Option<&str>)]) {
        let mut regex = Pattern::new(pattern).unwrap();
        for (line, want) in cases {
            let found = regex
                .find(line)
                .map(|found| line[found].escape_ascii().to_string());
            assert_eq!(
                found.as_deref(),
                *want,
                "{} in {}",
                pattern,
                line.escape_ascii()
            );
        }
    }

    #[test]
    fn a_match_or_its_first_group_is_found() {
        check(
            "req-[0-9]+",
            &[
                (b"x req-12 req-13", Some("req-12")),
                (b"\xff\0req-1\xfe", Some("req-1")),
                (b"none", None),
                (b"", None),
            ],
        );
        check(
            "id=([0-9]*)(;?)",
            &[(b"id=7;", Some("7")), (b"id=;", Some("")), (b"x", None)],
        );
        // The group took no part in the match.
        check("a|b(c)", &[(b"a", None), (b"bc", Some("c"))]);
        check("x*", &[(b"abc", Some("")), (b"xx", Some("xx"))]);
    }

    #[test]
    fn a_byte_of_no_character_is_a_strange_one() {
        check(
            r"u=(\S+)",
            &[
                (b"u=J\xf6rg x", Some(r"J\xf6rg")),
                (b"u=J\xfcrg x", Some(r"J\xfcrg")),
                ("u=J\u{f6}rg x".as_bytes(), Some(r"J\xc3\xb6rg")),
                (b"u=\xff\xfe\xe2\x82", Some(r"\xff\xfe\xe2\x82")),
            ],
        );
        check("[^,]+", &[(b",\xff\xc3\xa9,x", Some(r"\xff\xc3\xa9"))]);
        check(
            "a.b",
            &[(b"a\xffb", Some(r"a\xffb")), (b"a\xff\xffb", None)],
        );
        // What is a character stays one, beside bytes that are none.
        check("[^\u{e9}]+", &[(b"\xff\xc3\xa9", Some(r"\xff"))]);
        check(r"\w+", &[(b"\xffJ\xc3\xb6rg\xff", Some(r"J\xc3\xb6rg"))]);
        check("$", &[(b"\xff", Some(""))]);
    }

    #[test]
    fn who_asks_for_bytes_gets_them() {
        check(
            r"(?-u:\xff)(?-u:.)",
            &[(b"a\xff\xc3\xa9", Some(r"\xff\xc3"))],
        );
        check(
            r"(?-u:([\x80-\xff]+))",
            &[(b"a\xff\xc3b", Some(r"\xff\xc3"))],
        );
    }

    #[test]
    fn a_bad_pattern_is_told_in_one_line() {
        for (text, want) in [
            ("(a", "--key-regex '(a': unclosed group"),
            ("a\n[", "--key-regex 'a\\n[': unclosed character class"),
        ] {
            assert_eq!(Pattern::new(text).unwrap_err().to_string(), want);
        }
        let too_big = Pattern::new(r"\w{10000}").unwrap_err().to_string();
        assert!(!too_big.contains('\n'), "{too_big}");
    }
}
