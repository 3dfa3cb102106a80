//! Redis's glob patterns, for `SCAN`, `KEYS` and `CONFIG GET`: `*`, `?`, `[a-z]`, `[^a]`, `\x`.

/// Whether the whole text matches. Takes time proportional to the product of the lengths at
/// most: only the last `*` is ever returned to.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on if the text behind the last `*` does not match: that star takes one byte more.
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

/// How much of the pattern matches this one byte; `None` if it does not.
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

/// Whether a set holds the byte, and how long the set is with its closing bracket.
fn matches_set(set: &[u8], byte: u8) -> (bool, usize) {
    let negated = set.first() == Some(&b'^');
    let mut at = usize::from(negated);
    let mut hit = false;
    while at < set.len() && set[at] != b']' {
        let escaped = usize::from(set[at] == b'\\' && at + 1 < set.len());
        let low = set[at + escaped];
        at += escaped;
        if set.get(at + 1) == Some(&b'-') && set.get(at + 2).is_some_and(|&high| high != b']') {
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

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_hostile_pattern_takes_no_exponential_time() {
        let pattern = "a*".repeat(1_000) + "b";
        assert!(!matches(pattern.as_bytes(), &[b'a'; 5_000]));
    }
}
