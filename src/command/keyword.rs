//! The name of a verb or an option, in capitals, in two registers.
//!
//! A word is compared with every name that it may be, so a comparison should be one or two
//! instructions. Comparing slices costs a call and a loop for each name; folding the word once,
//! whatever it is then compared with, costs about fifteen instructions in all.

use crate::eight::{TOPS, all};

/// Longer than any name.
const NAME_BYTES_MAX: usize = 15;

/// A word of up to 15 bytes with its ASCII letters in capitals; every other word is
/// [`Keyword::NONE`], which no name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Keyword {
    /// The first eight bytes, the first one lowest.
    low: u64,
    /// The other seven, and above them how many bytes there are.
    high: u64,
}

impl Keyword {
    /// What is no name: an empty word, or one that is too long.
    pub(super) const NONE: Self = Self { low: 0, high: 0 };

    /// Folds a word.
    #[expect(
        clippy::inline_always,
        reason = "its call and its result's way take as much as it does"
    )]
    #[inline(always)]
    pub(super) const fn of(word: &[u8]) -> Self {
        let len = word.len();
        // Loads of a fixed size that may overlap: copying `len` bytes would be a call.
        if let (Some(first), Some(last)) = (word.first_chunk::<4>(), word.last_chunk::<4>())
            && len < 8
        {
            let last = u32::from_le_bytes(*last) as u64;
            return Self::short(
                u32::from_le_bytes(*first) as u64 | last << (8 * (len - 4)),
                len,
            );
        }
        match *word {
            [only] => Self::short(only as u64, len),
            [first, last] => Self::short(u16::from_le_bytes([first, last]) as u64, len),
            [first, second, last] => {
                let word = u32::from_le_bytes([first, second, last, 0]);
                Self::short(word as u64, len)
            }
            _ => Self::long(word),
        }
    }

    #[inline]
    const fn short(low: u64, len: usize) -> Self {
        Self {
            low: capitals(low),
            high: (len as u64) << 56,
        }
    }

    /// A word of eight bytes or more; or none at all.
    const fn long(word: &[u8]) -> Self {
        let len = word.len();
        if let (Some(first), Some(last)) = (word.first_chunk(), word.last_chunk())
            && len <= NAME_BYTES_MAX
        {
            // Of the last eight bytes, those that are not among the first eight are the upper ones.
            let rest = u64::from_le_bytes(*last) >> 8 >> (8 * (NAME_BYTES_MAX - len));
            return Self {
                low: capitals(u64::from_le_bytes(*first)),
                high: capitals(rest) | (len as u64) << 56,
            };
        }
        Self::NONE
    }

    /// A name that a word may be.
    ///
    /// # Panics
    ///
    /// If it is none: empty, too long, or not in capitals. Names are constants, so that is found
    /// when this is compiled.
    pub(super) const fn name(name: &str) -> Self {
        let mut i = 0;
        while i < name.len() {
            assert!(
                !name.as_bytes()[i].is_ascii_lowercase(),
                "a name is in capitals"
            );
            i += 1;
        }
        assert!(
            !name.is_empty() && name.len() <= NAME_BYTES_MAX,
            "a name has 1 to 15 bytes"
        );
        Self::of(name.as_bytes())
    }

    /// Whether both are the same; `==` cannot be used where a constant is made.
    #[inline]
    pub(super) const fn is(self, other: Self) -> bool {
        self.low == other.low && self.high == other.high
    }

    /// A number that few names share.
    #[inline]
    pub(super) const fn hash(self) -> u64 {
        // The multiplier is 2^64 over the golden ratio, as in Knuth's TAOCP 3, 6.4.
        (self.low ^ self.high.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

/// Eight bytes with their ASCII letters in capitals.
const fn capitals(bytes: u64) -> u64 {
    let low_bits = bytes & !TOPS;
    // Each sum sets its byte's top bit from that letter on, and never reaches the next byte.
    let from_a = low_bits + all(0x80 - b'a');
    let beyond_z = low_bits + all(0x7f - b'z');
    let is_lower = from_a & !beyond_z & !bytes & TOPS;
    bytes ^ is_lower >> 2
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn same(a: &[u8], b: &[u8]) -> bool {
        a.eq_ignore_ascii_case(b)
    }

    #[test]
    fn every_byte_is_told_apart_at_every_place() {
        for len in 1..=NAME_BYTES_MAX {
            let word: Vec<u8> = (b'A'..).take(len).collect();
            assert_ne!(Keyword::of(&word), Keyword::NONE);
            for at in 0..len {
                for byte in 0..=u8::MAX {
                    let mut other = word.clone();
                    other[at] = byte;
                    let equal = Keyword::of(&other) == Keyword::of(&word);
                    assert_eq!(equal, same(&other, &word), "{}", other.escape_ascii());
                }
            }
        }
        assert_eq!(Keyword::of(b""), Keyword::NONE);
        assert_eq!(Keyword::of(&[b'A'; NAME_BYTES_MAX + 1]), Keyword::NONE);
        assert_ne!(Keyword::of(b"\0"), Keyword::NONE);
    }

    proptest! {
        #[test]
        fn it_compares_as_words_do(a in any::<Vec<u8>>(), b in any::<Vec<u8>>(), flip: u8) {
            let a = &a[..a.len().min(NAME_BYTES_MAX)];
            prop_assume!(!a.is_empty());
            let equal = Keyword::of(a) == Keyword::of(&b);
            prop_assert_eq!(equal, same(a, &b));
            // Letters in the other case, and what only looks like that.
            let flipped: Vec<u8> = a.iter().map(|byte| byte ^ (flip & 0x20)).collect();
            prop_assert_eq!(Keyword::of(a) == Keyword::of(&flipped), same(a, &flipped));
            let longer = [a, &[0]].concat();
            prop_assert_ne!(Keyword::of(a), Keyword::of(&longer));
        }
    }
}
