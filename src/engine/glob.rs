//! Redis's glob patterns, for `SCAN`, `KEYS` and `CONFIG GET`: `*`, `?`, `[a-z]`, `[^a]`, `\x`.
//!
//! A pattern is compiled once for a request, into a table of which of its elements each byte matches.
//! Matching then walks through the text once and keeps the set of all places of the pattern that the
//! text so far may have come to, as bits (shift-and: Baeza-Yates and Gonnet 1992; `*` is a place that
//! stays, as in Navarro and Raffinot's extended patterns). It never goes back, so a text costs its
//! length times the words of 64 bits that the set takes: one up to 63 elements, five for the longest
//! pattern that a request may have ([`crate::limits::PATTERN_BYTES_MAX`]). Going back to the last `*`
//! cost the product of both lengths: 11 s for 5,000 keys of 8 KiB.

/// Bits of a word.
const WORD: usize = u64::BITS as usize;

/// A compiled pattern.
#[derive(Clone, Debug)]
pub struct Glob {
    /// For each byte, `words` words: the places that it leads to, each from the one before.
    leads_to: Vec<u64>,
    /// The places that any byte leaves as they are: those before a `*`.
    stays: Vec<u64>,
    /// Places, less one: the last is the pattern's end.
    elements: usize,
    words: usize,
}

/// One element of a pattern.
enum Element<'p> {
    Star,
    Any,
    Byte(u8),
    /// What stands between the brackets.
    Set(&'p [u8]),
}

impl Glob {
    /// Compiles a pattern; any bytes are one.
    pub fn new(pattern: &[u8]) -> Self {
        let (mut elements, mut rest) = (0, pattern);
        while let Some(element) = take(&mut rest) {
            elements += usize::from(!matches!(element, Element::Star));
        }
        let words = elements / WORD + 1;
        let mut glob = Self {
            leads_to: vec![0; words << 8],
            stays: vec![0; words],
            elements,
            words,
        };
        let (mut place, mut rest) = (0, pattern);
        while let Some(element) = take(&mut rest) {
            match element {
                Element::Star => {
                    glob.stays[place / WORD] |= 1 << (place % WORD);
                    continue;
                }
                Element::Any => (0..=u8::MAX).for_each(|byte| glob.lead(byte, place + 1)),
                Element::Byte(byte) => glob.lead(byte, place + 1),
                Element::Set(set) => (0..=u8::MAX)
                    .filter(|&byte| is_in(set, byte))
                    .for_each(|byte| glob.lead(byte, place + 1)),
            }
            place += 1;
        }
        glob
    }

    fn lead(&mut self, byte: u8, to: usize) {
        self.leads_to[usize::from(byte) * self.words + to / WORD] |= 1 << (to % WORD);
    }

    /// What to match a text of so many bytes costs at most, in the units of a slice.
    pub(super) fn units(&self, text_bytes: usize) -> usize {
        const UNIT_STEPS: usize = 8;
        text_bytes * self.words / UNIT_STEPS
    }

    /// Whether the whole text matches.
    pub fn matches(&self, text: &[u8]) -> bool {
        if self.words == 1 {
            self.matches_in_one(text)
        } else {
            self.matches_in_many(text)
        }
    }

    /// The usual case: all places are in one word.
    fn matches_in_one(&self, text: &[u8]) -> bool {
        let (stays, end) = (self.stays[0], 1_u64 << self.elements);
        let mut places = 1_u64;
        for &byte in text {
            places = (places << 1) & self.leads_to[usize::from(byte)] | places & stays;
            if places == 0 {
                return false;
            }
        }
        places & end != 0
    }

    fn matches_in_many(&self, text: &[u8]) -> bool {
        let mut places = vec![0_u64; self.words];
        places[0] = 1;
        for &byte in text {
            let begins = usize::from(byte) * self.words;
            let leads_to = &self.leads_to[begins..begins + self.words];
            let (mut carried, mut any) = (0, 0);
            for ((word, leads_to), stays) in places.iter_mut().zip(leads_to).zip(&self.stays) {
                let before = *word;
                *word = (before << 1 | carried) & leads_to | before & stays;
                carried = before >> (WORD - 1);
                any |= *word;
            }
            if any == 0 {
                return false;
            }
        }
        places[self.elements / WORD] >> (self.elements % WORD) & 1 != 0
    }
}

/// Whether the whole text matches; for who asks a pattern once.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    Glob::new(pattern).matches(text)
}

/// Takes the first element off a pattern.
fn take<'p>(pattern: &mut &'p [u8]) -> Option<Element<'p>> {
    let (element, len) = match **pattern {
        [] => return None,
        [b'*', ..] => (Element::Star, 1),
        [b'?', ..] => (Element::Any, 1),
        [b'\\', escaped, ..] => (Element::Byte(escaped), 2),
        [b'[', ref set @ ..] => {
            let len = set_len(set);
            (Element::Set(&set[..len]), (2 + len).min(pattern.len()))
        }
        [plain, ..] => (Element::Byte(plain), 1),
    };
    *pattern = &pattern[len..];
    Some(element)
}

/// Bytes of a set before its closing bracket, or to the pattern's end where it has none.
fn set_len(set: &[u8]) -> usize {
    let mut items = Items::of(set);
    items.by_ref().for_each(drop);
    items.at
}

/// Whether a set holds the byte.
fn is_in(set: &[u8], byte: u8) -> bool {
    let is_negated = set.first() == Some(&b'^');
    let mut items = Items::of(set);
    items.any(|(low, high)| (low..=high).contains(&byte)) != is_negated
}

/// The ranges of a set, up to its closing bracket or its end.
struct Items<'p> {
    set: &'p [u8],
    at: usize,
}

impl<'p> Items<'p> {
    fn of(set: &'p [u8]) -> Self {
        let at = usize::from(set.first() == Some(&b'^'));
        Self { set, at }
    }
}

impl Iterator for Items<'_> {
    type Item = (u8, u8);

    fn next(&mut self) -> Option<(u8, u8)> {
        let (set, at) = (self.set, self.at);
        let first = *set.get(at).filter(|&&byte| byte != b']')?;
        let is_escaped = first == b'\\' && at + 1 < set.len();
        let at = at + usize::from(is_escaped);
        let low = set[at];
        let high = set.get(at + 2).filter(|&&high| high != b']');
        let high = high.filter(|_| set.get(at + 1) == Some(&b'-'));
        self.at = at + if high.is_some() { 3 } else { 1 };
        let high = high.copied().unwrap_or(low);
        Some((low.min(high), low.max(high)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::limits::PATTERN_BYTES_MAX;

    /// How patterns were matched before they were compiled: as the words say, going back to the last `*`.
    mod reference {
        pub(super) fn matches(pattern: &[u8], text: &[u8]) -> bool {
            let (mut p, mut t) = (0, 0);
            let mut retry: Option<(usize, usize)> = None;
            loop {
                if pattern.get(p) == Some(&b'*') {
                    retry = Some((p + 1, t));
                    p += 1;
                    continue;
                }
                let step = match text.get(t) {
                    Some(&byte) if p < pattern.len() => matches_one(&pattern[p..], byte),
                    None if p == pattern.len() => return true,
                    _ => None,
                };
                match (step, retry) {
                    (Some(taken), _) => {
                        p += taken;
                        t += 1;
                    }
                    (None, Some((star, from))) if from < text.len() => {
                        retry = Some((star, from + 1));
                        (p, t) = (star, from + 1);
                    }
                    _ => return false,
                }
            }
        }

        fn matches_one(pattern: &[u8], byte: u8) -> Option<usize> {
            match pattern {
                [b'?', ..] => Some(1),
                [b'\\', escaped, ..] => (*escaped == byte).then_some(2),
                [b'[', set @ ..] => {
                    let (hit, len) = matches_set(set, byte);
                    hit.then_some(1 + len)
                }
                [plain, ..] => (*plain == byte).then_some(1),
                [] => None,
            }
        }

        fn matches_set(set: &[u8], byte: u8) -> (bool, usize) {
            let negated = set.first() == Some(&b'^');
            let mut at = usize::from(negated);
            let mut hit = false;
            while at < set.len() && set[at] != b']' {
                let escaped = usize::from(set[at] == b'\\' && at + 1 < set.len());
                let low = set[at + escaped];
                at += escaped;
                if set.get(at + 1) == Some(&b'-') && set.get(at + 2).is_some_and(|&h| h != b']') {
                    let high = set[at + 2];
                    hit |= (low.min(high)..=low.max(high)).contains(&byte);
                    at += 3;
                } else {
                    hit |= low == byte;
                    at += 1;
                }
            }
            (hit != negated, (at + 1).min(set.len()))
        }
    }

    #[test]
    fn globs_match_as_in_redis() {
        for (pattern, text, want) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("*", "anything", true),
            ("a*", "abc", true),
            ("a*c", "abcbc", true),
            ("a*d", "abcbc", false),
            ("*:*:x", "a:b:c:x", true),
            ("?", "a", true),
            ("?", "", false),
            ("h[ae]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[^e]llo", "hallo", true),
            ("[a-c]x", "bx", true),
            ("[a-c]x", "dx", false),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("[", "[", false),
            ("a\\", "a\\", true),
            ("**a**", "bab", true),
        ] {
            assert_eq!(
                matches(pattern.as_bytes(), text.as_bytes()),
                want,
                "{pattern} {text}"
            );
        }
    }

    #[test]
    fn places_go_over_the_ends_of_words() {
        for len in [62, 63, 64, 65, 127, 128, 129, PATTERN_BYTES_MAX] {
            let text = vec![b'a'; len];
            assert!(matches(&text, &text), "{len}");
            assert!(!matches(&text, &text[1..]), "{len}");
            let mut other = text.clone();
            *other.last_mut().unwrap() = b'b';
            assert!(!matches(&text, &other), "{len}");
            // A star behind the last place of a word, and before the first of the next.
            other = [&text[1..], b"*".as_slice(), b"b".as_slice()].concat();
            assert!(matches(&other, &[&text[..], b"xyb"].concat()), "{len}");
            assert!(!matches(&other, &[&text[..], b"xyc"].concat()), "{len}");
        }
    }

    #[test]
    fn a_hostile_pattern_takes_time_in_proportion_to_the_text() {
        // 5,000 keys of 8 KiB took 11 s in a release, one by one some 2 ms; this is a tenth of a millisecond.
        let text = vec![b'a'; 8 << 10];
        let pattern = ["*", &"a".repeat(PATTERN_BYTES_MAX - 2), "b"].concat();
        let glob = Glob::new(pattern.as_bytes());
        assert!((0..100).all(|_| !glob.matches(&text)));
        let pattern = "a*".repeat(1_000) + "b";
        assert!(!matches(pattern.as_bytes(), &[b'a'; 5_000]));
    }

    proptest! {
        #[test]
        fn what_is_compiled_matches_what_is_read(
            pattern in "[ab*?\\[\\]^\\\\-]{0,12}",
            long in "[ab]{0,140}",
            text in "[ab\\[\\]^\\\\*-]{0,12}",
        ) {
            for (pattern, text) in [
                (pattern.clone(), text.clone()),
                (format!("{long}{pattern}"), format!("{long}{text}")),
                (format!("*{long}{pattern}"), format!("{text}{long}{text}")),
                (format!("{pattern}{long}*"), format!("{text}{long}")),
            ] {
                let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
                prop_assert_eq!(matches(pattern, text), reference::matches(pattern, text));
            }
        }
    }
}
