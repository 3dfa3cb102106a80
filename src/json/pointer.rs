//! JSON pointers (RFC 6901).

use std::str::FromStr;

use super::read::{Reader, Token};
use super::string;

/// The way from the root of a JSON text to a value in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pointer {
    steps: Vec<Step>,
}

/// The name of a member, which may also be the index of an element.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Step {
    name: String,
    index: Option<usize>,
}

impl FromStr for Pointer {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Ok(Self { steps: Vec::new() });
        }
        let steps = text
            .strip_prefix('/')
            .ok_or("a JSON pointer starts with '/', such as /request/id")?;
        let steps = steps.split('/').map(Step::of).collect::<Result<_, _>>()?;
        Ok(Self { steps })
    }
}

impl Step {
    fn of(token: &str) -> Result<Self, &'static str> {
        let name = unescape_token(token)?;
        let index = array_index(&name);
        Ok(Self { name, index })
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

/// Digits without leading zeros.
fn array_index(name: &str) -> Option<usize> {
    let canonical = name == "0" || !name.starts_with(['0', '+']);
    name.parse().ok().filter(|_| canonical)
}

impl Pointer {
    /// What this points to, as it is written; `None` where there is nothing, or the text is no JSON.
    pub(crate) fn find<'t>(&self, text: &'t [u8]) -> Option<&'t str> {
        let text = str::from_utf8(text).ok()?;
        let mut reader = Reader::new(text);
        let mut way = Way {
            steps: &self.steps,
            followed: 0,
            is_named: false,
            elements_before: None,
        };
        let mut found = None;
        // Where the value begins that is being read and pointed to, and what is open around it.
        let mut begun = None;
        loop {
            let token = reader.next()?;
            let span = reader.span();
            match token {
                Token::Name => {
                    if way.name(reader.depth(), &text[span]) {
                        // Of members with one name the last counts.
                        found = None;
                    } else {
                        reader.skip_scalar()?;
                    }
                }
                Token::Scalar => {
                    if way.leads_to(reader.depth()) && way.is_at_its_end() {
                        found = Some(span);
                    }
                }
                Token::Open => {
                    let outside = reader.depth() - 1;
                    if way.leads_to(outside) {
                        if way.is_at_its_end() {
                            begun = Some((span.start, outside));
                        } else {
                            way.go_into(reader.is_in_object());
                        }
                    }
                }
                Token::Close => {
                    if let Some((begin, outside)) = begun
                        && outside == reader.depth()
                    {
                        found = Some(begin..span.end);
                        begun = None;
                    }
                    way.leave(reader.depth());
                }
                Token::End => return found.map(|span| &text[span]),
            }
        }
    }
}

/// How far along a pointer's way a reader is.
struct Way<'p> {
    steps: &'p [Step],
    /// How many of the objects and arrays that are open, from the outermost on, are on it.
    followed: usize,
    /// Whether the last name in the innermost of these is the one that the way goes on with.
    is_named: bool,
    /// If the innermost of these is an array: elements before the one that the way goes on with, while that is
    /// to come.
    elements_before: Option<usize>,
}

impl Way<'_> {
    /// Sees a name; whether the way goes on with it.
    #[inline]
    fn name(&mut self, depth: usize, name: &str) -> bool {
        if depth != self.followed {
            return false;
        }
        let step = &self.steps[depth - 1].name;
        self.is_named = string::is(name, step);
        self.is_named
    }

    /// Sees a value in what is open; whether the way goes on with it.
    #[inline]
    fn leads_to(&mut self, depth: usize) -> bool {
        if depth != self.followed {
            return false;
        }
        let is_element = self.elements_before == Some(0);
        self.elements_before = self
            .elements_before
            .and_then(|before| before.checked_sub(1));
        depth == 0 || self.is_named || is_element
    }

    fn is_at_its_end(&self) -> bool {
        self.followed == self.steps.len()
    }

    /// The value that the way goes on with is an object or an array.
    fn go_into(&mut self, is_object: bool) {
        let index = self.steps[self.followed].index;
        self.is_named = false;
        self.elements_before = index.filter(|_| !is_object);
        self.followed += 1;
    }

    /// Only so much is open now.
    fn leave(&mut self, depth: usize) {
        if depth < self.followed {
            self.followed = depth;
            // An array goes on, but there is one value behind each index.
            self.is_named = false;
            self.elements_before = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_unescaped_once() {
        assert_eq!(unescape_token("~01").as_deref(), Ok("~1"));
        for text in ["id", "/a~", "/a~2", "a/b"] {
            assert!(text.parse::<Pointer>().is_err(), "{text}");
        }
        for (name, index) in [
            ("0", Some(0)),
            ("10", Some(10)),
            ("00", None),
            ("+0", None),
            ("-", None),
        ] {
            assert_eq!(array_index(name), index, "{name}");
        }
    }
}
