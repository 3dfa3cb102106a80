//! Numbers: written canonically by their exact decimal value.
//!
//! A value other than 0 is digits, of which the first and the last are not 0, and the place of the point
//! among them: `0.0150` is `15` with the point one place before its first digit. Both are written by the
//! rules of ECMAScript's `Number::toString`, which RFC 8785 takes over for the digits of doubles. So equal
//! values are written alike, however they were spelled, and others never.

/// The most significant digits that the shortest form of a double has.
const DOUBLE_DIGITS_MAX: i64 = 17;
/// The most digits before the point, and the most zeros after the last significant digit, that are
/// written without an exponent.
const PLAIN_DIGITS_MAX: i64 = 21;
/// The most zeros behind a point before the first significant digit.
const PLAIN_ZEROS_MAX: i64 = 5;
/// Digits of an exponent that can be computed with.
const EXPONENT_DIGITS_MAX: usize = 18;

/// Whether a number is written canonically already, as far as that can be seen at a glance: a whole one, in
/// so many digits that all of its kind are written plainly.
pub(super) fn is_canonical(number: &str) -> bool {
    let digits = number.strip_prefix('-').unwrap_or(number).as_bytes();
    digits.len() as i64 <= PLAIN_DIGITS_MAX
        && number != "-0"
        && digits.iter().all(u8::is_ascii_digit)
}

/// Appends the canonical form of a number of the grammar.
pub(super) fn write(number: &str, out: &mut Vec<u8>) {
    if is_canonical(number) {
        return out.extend_from_slice(number.as_bytes());
    }
    let begin = out.len();
    let (sign, unsigned) = match number.strip_prefix('-') {
        Some(unsigned) => ("-", unsigned),
        None => ("", number),
    };
    out.extend_from_slice(sign.as_bytes());
    let first = out.len();
    let (decimal, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    let (whole, fraction) = decimal.split_once('.').unwrap_or((decimal, ""));
    out.extend_from_slice(whole.as_bytes());
    out.extend_from_slice(fraction.as_bytes());
    let digits = &out[first..];
    let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
    if zeros == digits.len() {
        out.truncate(begin);
        return out.push(b'0');
    }
    let zeros_behind = digits.iter().rev().take_while(|digit| **digit == b'0');
    let last = out.len() - zeros_behind.count();
    out.truncate(last);
    out.drain(first..first + zeros);
    place_point(out, first, whole.len() as i64 - zeros as i64, exponent);
}

/// Places the point in the digits from `first` on: `before` of them stand before it, and as many more as the
/// exponent says.
fn place_point(out: &mut Vec<u8>, first: usize, before: i64, exponent: &str) {
    let exponent = Exponent::of(exponent);
    let Some(small) = exponent.small() else {
        return write_exponent(out, first, |out| exponent.write_plus(before - 1, out));
    };
    let before = before + small;
    let count = (out.len() - first) as i64;
    let zeros = before - count;
    let is_long_whole = count > DOUBLE_DIGITS_MAX && (0..=PLAIN_DIGITS_MAX).contains(&zeros);
    if before < -PLAIN_ZEROS_MAX || before > PLAIN_DIGITS_MAX && !is_long_whole {
        let power = before - 1;
        write_exponent(out, first, |out| {
            let sign = if power < 0 { '-' } else { '+' };
            out.extend_from_slice(format!("{sign}{}", power.unsigned_abs()).as_bytes());
        });
    } else if zeros >= 0 {
        out.resize(out.len() + zeros.unsigned_abs() as usize, b'0');
    } else if before > 0 {
        out.insert(first + before.unsigned_abs() as usize, b'.');
    } else {
        let zeros = b"0.00000";
        let zeros = &zeros[..2 + before.unsigned_abs() as usize];
        out.splice(first..first, zeros.iter().copied());
    }
}

/// A point behind the first digit, if it is not the only one, and the exponent.
fn write_exponent(out: &mut Vec<u8>, first: usize, exponent: impl FnOnce(&mut Vec<u8>)) {
    if out.len() > first + 1 {
        out.insert(first + 1, b'.');
    }
    out.push(b'e');
    exponent(out);
}

/// An exponent that may have any number of digits.
struct Exponent<'t> {
    is_negative: bool,
    /// Without leading zeros.
    digits: &'t str,
}

impl<'t> Exponent<'t> {
    fn of(text: &'t str) -> Self {
        let unsigned = text.trim_start_matches(['+', '-']);
        Self {
            is_negative: text.starts_with('-'),
            digits: unsigned.trim_start_matches('0'),
        }
    }

    /// Itself, unless it is far beyond what is added to it, which is within the length of a text.
    fn small(&self) -> Option<i64> {
        if self.digits.len() > EXPONENT_DIGITS_MAX {
            return None;
        }
        // Without digits it is 0.
        let absolute = self.digits.parse().unwrap_or(0);
        Some(if self.is_negative {
            -absolute
        } else {
            absolute
        })
    }

    /// Appends the sum of one that is not small, and this.
    fn write_plus(&self, addend: i64, out: &mut Vec<u8>) {
        out.push(if self.is_negative { b'-' } else { b'+' });
        let first = out.len();
        out.extend_from_slice(self.digits.as_bytes());
        let mut carry = if self.is_negative { -addend } else { addend };
        for digit in out[first..].iter_mut().rev() {
            carry += i64::from(*digit - b'0');
            *digit = b'0' + carry.rem_euclid(10) as u8;
            carry = carry.div_euclid(10);
        }
        // At most one digit more, or one less.
        if carry > 0 {
            out.insert(first, b'0' + carry.unsigned_abs() as u8);
        } else if out[first] == b'0' {
            out.remove(first);
        }
    }
}
