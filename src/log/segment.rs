//! Segments: the files of a log, their names and their headers.
//!
//! A file begins with a header; frames follow, and then zeros, as far as space was set aside. A segment
//! that is complete ends with its last frame.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `oncedlog` |
//! | 4 | version of the format: 2 |
//! | 4 | bit 0: the first segment of a run; others 0 |
//! | 8 | the segment's number, as in the file's name |
//! | 8 | when it was made: Unix milliseconds |
//! | 16 | the log's identity: the same in all its segments |
//! | 12 | 0 |
//! | 4 | CRC-32C of the 60 bytes before |
//! | 16 | the secret under which this segment's frames are tagged: random, of this file alone |
//! | 12 | 0 |
//! | 4 | CRC-32C of the 28 bytes before |
//!
//! Version 1 ends with the first checksum: its frames have no tags. It is read, and not written.

use std::fmt;
use std::io;
use std::sync::Arc;

use crate::time::Millis;

/// Bytes of the header of version 2.
pub const HEADER_BYTES: usize = 96;
/// Bytes of the header of version 1.
pub const HEADER_BYTES_V1: usize = 64;
/// The version that is written, and the latest that is read.
pub const VERSION: u32 = 2;

const MAGIC: &[u8; 8] = b"oncedlog";
const CRC_AT: usize = 60;
const SECRET_AT: usize = HEADER_BYTES_V1;
const SECRET_CRC_AT: usize = 92;
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

/// What the frames of one segment are tagged under. Who knows it can write what passes for a frame, so it is
/// in the file and nowhere else: it is never printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Secret(pub [u8; 16]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Where the secrets of new segments come from: unpredictable bytes, others each time.
#[derive(Clone)]
pub struct Secrets(Arc<dyn Fn() -> io::Result<[u8; 16]> + Send + Sync>);

impl Secrets {
    /// Those that `draw` returns.
    pub fn new(draw: impl Fn() -> io::Result<[u8; 16]> + Send + Sync + 'static) -> Self {
        Self(Arc::new(draw))
    }

    /// Another secret.
    pub fn draw(&self) -> io::Result<Secret> {
        (self.0)().map(Secret)
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(…)")
    }
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
    /// What its frames are tagged under; `None` in version 1.
    pub secret: Option<Secret>,
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
    pub fn bytes(&self) -> Vec<u8> {
        let version: u32 = if self.secret.is_some() { VERSION } else { 1 };
        let mut bytes = vec![0; HEADER_BYTES_V1];
        bytes[0..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&version.to_le_bytes());
        bytes[12..16].copy_from_slice(&u32::from(self.is_first).to_le_bytes());
        bytes[16..24].copy_from_slice(&self.number.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.created.0.to_le_bytes());
        bytes[32..48].copy_from_slice(&self.log);
        let crc = crc32c::crc32c(&bytes[..CRC_AT]);
        bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        if let Some(Secret(secret)) = self.secret {
            bytes.extend_from_slice(&secret);
            bytes.resize(SECRET_CRC_AT, 0);
            let crc = crc32c::crc32c(&bytes[SECRET_AT..]);
            bytes.extend_from_slice(&crc.to_le_bytes());
        }
        bytes
    }

    /// What a file begins with; of a longer one, the first [`HEADER_BYTES`] are enough.
    pub fn of(bytes: &[u8]) -> Begin {
        let bytes = &bytes[..bytes.len().min(HEADER_BYTES)];
        if super::frame::is_blank(bytes) {
            return Begin::Blank;
        }
        let Some(header) = bytes.first_chunk::<HEADER_BYTES_V1>() else {
            return Begin::Damaged;
        };
        let wide = |at: usize| u64::from(word(header, at)) | u64::from(word(header, at + 4)) << 32;
        if header[..8] != *MAGIC || crc32c::crc32c(&header[..CRC_AT]) != word(header, CRC_AT) {
            return Begin::Damaged;
        }
        let secret = match word(header, 8) {
            0 => return Begin::Damaged,
            1 => None,
            VERSION => match secret(bytes) {
                None => return Begin::Damaged,
                known => known,
            },
            version => return Begin::Newer(version),
        };
        let mut log = [0; 16];
        log.copy_from_slice(&header[32..48]);
        Begin::Segment(Self {
            number: wide(16),
            created: Millis(wide(24)),
            log,
            is_first: word(header, 12) & 1 != 0,
            secret,
        })
    }

    /// Where the first frame is.
    pub fn frames_at(&self) -> u64 {
        match self.secret {
            Some(_) => HEADER_BYTES as u64,
            None => HEADER_BYTES_V1 as u64,
        }
    }
}

/// The secret in the first bytes of a file, if its own checksum holds, whatever the others before it say.
pub fn secret(bytes: &[u8]) -> Option<Secret> {
    let bytes = bytes.get(SECRET_AT..HEADER_BYTES)?;
    let (covered, _) = bytes.split_at(SECRET_CRC_AT - SECRET_AT);
    let is_whole = crc32c::crc32c(covered) == word(bytes, covered.len());
    is_whole.then(|| {
        let mut secret = [0; 16];
        secret.copy_from_slice(&covered[..16]);
        Secret(secret)
    })
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
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

    fn headers() -> [Header; 2] {
        [None, Some(Secret([9; 16]))].map(|secret| Header {
            number: 5,
            created: Millis(6),
            log: [7; 16],
            is_first: true,
            secret,
        })
    }

    #[test]
    fn a_header_is_read_back_and_no_flipped_bit_goes_unnoticed() {
        for header in headers() {
            let bytes = header.bytes();
            assert_eq!(bytes.len() as u64, header.frames_at());
            assert_eq!(Header::of(&bytes), Begin::Segment(header));
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Header::of(&flipped), Begin::Damaged, "bit {bit}");
            }
            for len in 1..bytes.len() {
                assert_eq!(Header::of(&bytes[..len]), Begin::Damaged, "{len}");
            }
        }
        assert_eq!(Header::of(&[]), Begin::Blank);
    }

    #[test]
    fn a_newer_format_is_told_from_damage() {
        for header in headers() {
            let mut bytes = header.bytes();
            bytes[8] = 3;
            let crc = crc32c::crc32c(&bytes[..CRC_AT]);
            bytes[CRC_AT..HEADER_BYTES_V1].copy_from_slice(&crc.to_le_bytes());
            assert_eq!(Header::of(&bytes), Begin::Newer(3));
            assert_eq!(Header::of(&bytes[..HEADER_BYTES_V1]), Begin::Newer(3));
        }
    }

    #[test]
    fn a_secret_is_found_without_the_header_before_it_and_never_printed() {
        let [old, new] = headers();
        let mut bytes = new.bytes();
        bytes[..HEADER_BYTES_V1].fill(0);
        assert_eq!(secret(&bytes), new.secret);
        assert_eq!(Header::of(&bytes), Begin::Damaged);
        bytes[SECRET_AT] ^= 1;
        assert_eq!(secret(&bytes), None);
        assert_eq!(secret(&[0; HEADER_BYTES]), None);
        assert_eq!(secret(&old.bytes()), None);
        let printed = format!("{new:?} {:?}", Secrets::new(|| Ok([9; 16])));
        assert!(
            !printed.contains('9') && !printed.contains("09"),
            "{printed}"
        );
    }
}
