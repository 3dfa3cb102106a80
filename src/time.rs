//! Moments and durations: milliseconds as numbers, and the words people write for them.
//!
//! Nothing here reads a clock. A [`Millis`] comes from `server::clock` or from a test, and
//! every function that needs the present takes it as an argument, so the core can run under
//! virtual time and a failing run replays exactly.

use std::fmt;

use thiserror::Error;

/// A moment: milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u64);

impl Millis {
    /// The moment `ms` milliseconds later, at most the end of time.
    #[must_use]
    pub const fn after(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
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
    let digits = word.iter().take_while(|b| b.is_ascii_digit()).count();
    let (number, unit) = word.split_at(digits);
    if number.is_empty() {
        return Err(DurationError::Malformed);
    }
    if unit.is_empty() {
        return Err(DurationError::NoUnit);
    }
    let unit_ms = UNITS
        .iter()
        .find(|(name, _)| unit.eq_ignore_ascii_case(name.as_bytes()))
        .map(|&(_, ms)| ms)
        .ok_or(DurationError::Malformed)?;
    parse_u64(number)
        .and_then(|n| n.checked_mul(unit_ms))
        .ok_or(DurationError::Overflow)
}

/// Reads plain decimal digits; `None` when empty, when anything else is in it, or beyond 64 bits.
pub fn parse_u64(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, &digit| {
        if !digit.is_ascii_digit() {
            return None;
        }
        value.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
    })
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
        ] {
            assert_eq!(parse_duration_ms(word.as_bytes()), want, "{word}");
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
