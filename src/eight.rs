//! Eight bytes in a register, judged together: a byte's top bit says what became of it.

/// The top bit of each byte.
pub(crate) const TOPS: u64 = all(0x80);

/// In each of eight bytes, this one.
#[inline]
pub(crate) const fn all(byte: u8) -> u64 {
    byte as u64 * (u64::MAX / 0xff)
}

/// Sets the top bits of some of the bytes if any of the eight is no decimal digit: of each that is
/// none, up to one that is no ASCII, whose sum may carry into the next byte.
#[inline]
pub(crate) const fn not_decimal(word: u64) -> u64 {
    let beyond_9 = (word ^ all(b'0')).wrapping_add(all(0x80 - 10));
    (beyond_9 | word) & TOPS
}
