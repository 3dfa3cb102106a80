//! Segments: the files of a log, their names and their headers.
//!
//! A file begins with a header of 64 bytes; frames follow, and then zeros, as far as space was set
//! aside. A segment that is complete ends with its last frame.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `oncedlog` |
//! | 4 | version of the format: 1 |
//! | 4 | bit 0: the first segment of a run; others 0 |
//! | 8 | the segment's number, as in the file's name |
//! | 8 | when it was made: Unix milliseconds |
//! | 16 | the log's identity: the same in all its segments |
//! | 12 | 0 |
//! | 4 | CRC-32C of the 60 bytes before |

use crate::time::Millis;

/// Bytes of the header.
pub const HEADER_BYTES: usize = 64;
/// The version that is written, and the latest that is read.
pub const VERSION: u32 = 1;

const MAGIC: &[u8; 8] = b"oncedlog";
const CRC_AT: usize = 60;
const SUFFIX: &str = ".log";
/// The end of a file's name while the file is being written.
pub const TEMPORARY: &str = ".tmp";
const NAME_DIGITS: usize = 10;
/// No log comes to more segments than this: one that claims to is not of a log.
const NUMBER_MAX: u64 = 1 << 60;

/// A place in a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The segment's number.
    pub segment: u64,
    /// Bytes from the beginning of its file.
    pub offset: u64,
}

/// A segment's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The segment's number.
    pub number: u64,
    /// When it was made.
    pub created: Millis,
    /// The log's identity.
    pub log: [u8; 16],
    /// Whether a run begins with it: then what it begins with was durable before anything followed.
    pub is_first: bool,
}

/// What the first bytes of a file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// A segment.
    Segment(Header),
    /// A segment of a format that this version cannot read.
    Newer(u32),
    /// Zeros or nothing: a segment that was being made.
    Blank,
    /// Anything else.
    Damaged,
}

impl Header {
    /// Its bytes.
    pub fn bytes(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&u32::from(self.is_first).to_le_bytes());
        bytes[16..24].copy_from_slice(&self.number.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.created.0.to_le_bytes());
        bytes[32..48].copy_from_slice(&self.log);
        let crc = crc32c::crc32c(&bytes[..CRC_AT]);
        bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// What a file begins with.
    pub fn of(bytes: &[u8]) -> Begin {
        if super::frame::is_blank(bytes) {
            return Begin::Blank;
        }
        let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Begin::Damaged;
        };
        let word = |at: usize| {
            u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let wide = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        if header[..8] != *MAGIC || crc32c::crc32c(&header[..CRC_AT]) != word(CRC_AT) {
            return Begin::Damaged;
        }
        if word(8) != VERSION {
            return Begin::Newer(word(8));
        }
        let mut log = [0; 16];
        log.copy_from_slice(&header[32..48]);
        Begin::Segment(Self {
            number: wide(16),
            created: Millis(wide(24)),
            log,
            is_first: word(12) & 1 != 0,
        })
    }
}

/// The file's name of a segment.
pub fn name(number: u64) -> String {
    format!("{number:0NAME_DIGITS$}{SUFFIX}")
}

/// The file's name of a segment that is being made.
pub fn temporary_name(number: u64) -> String {
    name(number) + TEMPORARY
}

/// The number of the segment of this name; `None` if no segment is called so.
pub fn number(file: &str) -> Option<u64> {
    let number = file.strip_suffix(SUFFIX)?.parse().ok()?;
    (number <= NUMBER_MAX && name(number) == file).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_belong_together() {
        for number in [0, 1, 9_999_999_999, 10_000_000_000, NUMBER_MAX] {
            assert_eq!(super::number(&name(number)), Some(number));
        }
        let too_large = [name(NUMBER_MAX + 1), name(u64::MAX)];
        let others = ["1.log", "0000000001.tmp", "+000000001.log", "x.log", ".log"];
        for other in too_large.iter().map(|name| &name[..]).chain(others) {
            assert_eq!(number(other), None, "{other}");
        }
    }

    #[test]
    fn a_header_is_read_back_and_no_flipped_bit_goes_unnoticed() {
        let header = Header {
            number: 5,
            created: Millis(6),
            log: [7; 16],
            is_first: true,
        };
        let bytes = header.bytes();
        assert_eq!(Header::of(&bytes), Begin::Segment(header));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::of(&flipped), Begin::Damaged, "bit {bit}");
        }
        assert_eq!(Header::of(&bytes[..63]), Begin::Damaged);
        assert_eq!(Header::of(&[]), Begin::Blank);
    }

    #[test]
    fn a_newer_format_is_told_from_damage() {
        let mut bytes = Header {
            number: 5,
            created: Millis(6),
            log: [7; 16],
            is_first: true,
        }
        .bytes();
        bytes[8] = 2;
        let crc = crc32c::crc32c(&bytes[..CRC_AT]);
        bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Header::of(&bytes), Begin::Newer(2));
    }
}
