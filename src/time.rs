//! Moments and durations: milliseconds as numbers, and the words people write for them.
//!
//! Nothing here reads a clock. A [`Millis`] comes from `server::clock` or from a test, and
//! every function that needs the present takes it as an argument, so the core can run under
//! virtual time and a failing run replays exactly.

use std::fmt;

use thiserror::Error;

use crate::eight::{all, not_decimal};

/// A moment: milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u64);

impl Millis {
    /// The moment `ms` milliseconds later, at most the end of time.
    #[must_use]
    pub const fn after(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// The moment `ms` milliseconds later, or earlier where that is negative.
    #[must_use]
    pub const fn shifted(self, ms: i64) -> Self {
        Self(self.0.saturating_add_signed(ms))
    }

    /// How many milliseconds this moment lies after `earlier`; 0 if it does not.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Why a word is not a duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DurationError {
    /// Digits without a unit: seconds or milliseconds?
    #[error(
        "a duration needs a unit: 250ms, 10s, 5m, 24h or 7d (is a bare number seconds or milliseconds?)"
    )]
    NoUnit,
    /// Not digits followed by a unit.
    #[error("not a duration: write a whole number and a unit, such as 250ms, 10s, 5m, 24h or 7d")]
    Malformed,
    /// More milliseconds than 64 bits hold.
    #[error("the duration is too long to be represented")]
    Overflow,
}

/// The units a duration may carry, shortest first, with their length in milliseconds.
const UNITS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

/// Reads a duration word such as `250ms`, `10s`, `5m`, `24h` or `7d`; returns milliseconds.
///
/// ```
/// use onced::time::{DurationError, parse_duration_ms};
/// assert_eq!(parse_duration_ms(b"5m"), Ok(300_000));
/// assert_eq!(parse_duration_ms(b"60"), Err(DurationError::NoUnit));
/// ```
pub fn parse_duration_ms(word: &[u8]) -> Result<u64, DurationError> {
    let (digits, number) = leading_u64(word);
    let unit = &word[digits..];
    if digits == 0 {
        return Err(DurationError::Malformed);
    }
    if unit.is_empty() {
        return Err(DurationError::NoUnit);
    }
    let unit = unit_code(unit);
    let unit_ms = UNITS
        .iter()
        .find(|(name, _)| unit_code(name.as_bytes()) == unit)
        .map(|&(_, ms)| ms)
        .ok_or(DurationError::Malformed)?;
    number
        .and_then(|n| n.checked_mul(unit_ms))
        .ok_or(DurationError::Overflow)
}

/// A unit's letters in one number, so that units are compared without a loop; 0 for what cannot be one.
fn unit_code(unit: &[u8]) -> u32 {
    let (first, second) = match *unit {
        [only] => (only, 0),
        [first, second] => (first, second),
        _ => return 0,
    };
    let length = unit.len() as u8;
    u32::from_le_bytes([first, second, length, 0].map(|byte| byte.to_ascii_lowercase()))
}

/// Reads plain decimal digits; `None` when empty, when anything else is in it, or beyond 64 bits.
pub fn parse_u64(digits: &[u8]) -> Option<u64> {
    if let Some(eight) = padded(digits) {
        return number_of(eight);
    }
    match leading_u64(digits) {
        (n, number) if n > 0 && n == digits.len() => number,
        _ => None,
    }
}

/// A word of four to eight bytes, as most numbers are, in eight: the last byte uppermost, `0`s in front.
#[inline]
fn padded(word: &[u8]) -> Option<u64> {
    let (first, last) = (word.first_chunk::<4>()?, word.last_chunk::<4>()?);
    let missing = 8_usize.checked_sub(word.len())?;
    // The two may overlap; where they do, they are the same.
    let first = u64::from(u32::from_le_bytes(*first)) << (8 * missing);
    let last = u64::from(u32::from_le_bytes(*last)) << 32;
    let zeros = all(b'0') & !(u64::MAX << (8 * missing));
    Some(first | last | zeros)
}

/// What eight decimal digits stand for; `None` if one of them is none.
#[inline]
fn number_of(eight: u64) -> Option<u64> {
    if not_decimal(eight) != 0 {
        return None;
    }
    let values = eight ^ all(b'0');
    // Neighbours, the first one ten times as much, make numbers of two digits, then of four, then of eight.
    let twos = (values * 10 + (values >> 8)) & 0x00ff_00ff_00ff_00ff;
    let fours = (twos * 100 + (twos >> 16)) & 0x0000_ffff_0000_ffff;
    Some((fours * 10_000 + (fours >> 32)) & 0xffff_ffff)
}

/// How many decimal digits a word begins with, and their number unless it is beyond 64 bits.
#[inline]
fn leading_u64(word: &[u8]) -> (usize, Option<u64>) {
    /// So many digits are never beyond 64 bits, so nothing is checked on the way.
    const DIGITS_SAFE: usize = u64::MAX.ilog10() as usize;
    let mut digits = 0;
    let mut number = 0_u64;
    while let Some(digit) = word.get(digits).map(|byte| byte.wrapping_sub(b'0'))
        && digit <= 9
    {
        number = number.wrapping_mul(10).wrapping_add(u64::from(digit));
        digits += 1;
    }
    let number = if digits <= DIGITS_SAFE {
        Some(number)
    } else {
        word[..digits].iter().try_fold(0_u64, |number, digit| {
            number.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
        })
    };
    (digits, number)
}

/// A duration in milliseconds that prints as the word [`parse_duration_ms`] reads: in the
/// largest unit that loses nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DurationWord(pub u64);

impl fmt::Display for DurationWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, unit_ms) = UNITS
            .iter()
            .rev()
            .find(|&&(_, ms)| self.0 >= ms && self.0.is_multiple_of(ms))
            .unwrap_or(&UNITS[0]);
        write!(f, "{}{unit}", self.0 / unit_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_carry_a_unit() {
        for (word, want) in [
            ("0s", Ok(0)),
            ("250ms", Ok(250)),
            ("10s", Ok(10_000)),
            ("10S", Ok(10_000)),
            ("5m", Ok(300_000)),
            ("24h", Ok(86_400_000)),
            ("7d", Ok(604_800_000)),
            ("60", Err(DurationError::NoUnit)),
            ("", Err(DurationError::Malformed)),
            ("s", Err(DurationError::Malformed)),
            ("-1s", Err(DurationError::Malformed)),
            ("1.5h", Err(DurationError::Malformed)),
            ("1h30m", Err(DurationError::Malformed)),
            ("18446744073709551615ms", Ok(u64::MAX)),
            ("18446744073709551616ms", Err(DurationError::Overflow)),
            ("213503982335d", Err(DurationError::Overflow)),
            ("0000000000000000000000001s", Ok(1_000)),
            ("9999999999999999999ms", Ok(9_999_999_999_999_999_999)),
            ("99999999999999999999x", Err(DurationError::Malformed)),
            ("250Ms", Ok(250)),
            ("1\x13", Err(DurationError::Malformed)),
            ("1m\0", Err(DurationError::Malformed)),
            ("1\0", Err(DurationError::Malformed)),
            ("1\0\0", Err(DurationError::Malformed)),
            ("1mss", Err(DurationError::Malformed)),
        ] {
            assert_eq!(parse_duration_ms(word.as_bytes()), want, "{word}");
        }
    }

    #[test]
    fn numbers_are_digits_within_64_bits() {
        for (word, want) in [
            ("", None),
            ("0", Some(0)),
            ("007", Some(7)),
            ("18446744073709551615", Some(u64::MAX)),
            ("018446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("99999999999999999999", None),
            ("+1", None),
            ("-1", None),
            ("1 ", None),
            ("1:", None),
            ("/1", None),
        ] {
            assert_eq!(parse_u64(word.as_bytes()), want, "{word}");
        }
    }

    #[test]
    fn numbers_are_told_from_every_other_byte_at_every_place() {
        for len in 1..=10 {
            for at in 0..len {
                for byte in 0..=u8::MAX {
                    let mut word = b"9081726354"[..len].to_vec();
                    word[at] = byte;
                    let want = str::from_utf8(&word)
                        .ok()
                        .filter(|text| text.bytes().all(|b| b.is_ascii_digit()))
                        .and_then(|text| text.parse().ok());
                    assert_eq!(parse_u64(&word), want, "{}", word.escape_ascii());
                }
            }
        }
    }

    #[test]
    fn a_printed_duration_reads_back() {
        for (ms, word) in [
            (0, "0ms"),
            (1, "1ms"),
            (1_500, "1500ms"),
            (90_000, "90s"),
            (3_600_000, "1h"),
            (31_536_000_000, "365d"),
        ] {
            assert_eq!(DurationWord(ms).to_string(), word);
            assert_eq!(parse_duration_ms(word.as_bytes()), Ok(ms));
        }
    }

    #[test]
    fn time_saturates_at_both_ends() {
        assert_eq!(Millis(u64::MAX).after(1), Millis(u64::MAX));
        assert_eq!(Millis(1).since(Millis(2)), 0);
    }
}
