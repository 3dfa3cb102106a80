//! Frames: what was written at a time, under checksums, and how to find them again.
//!
//! A frame is a header of 14 bytes and a payload, all numbers little-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 4 | CRC-32C of the payload |
//! | 4 | length of the payload in bytes, at most [`PAYLOAD_BYTES_MAX`] |
//! | 4 | the namespace's number; 0 for a control |
//! | 2 | the lower half of the CRC-32C of the 12 bytes before |
//!
//! The header has a checksum of its own so that a flipped bit in a length does not hide all that
//! follows, and so that looking for the next frame after damage seldom has to read a payload in vain.
//! Zeros are no header: their checksum is not 0.

use std::ops::Range;

use crate::limits::LOG_PAYLOAD_BYTES_MAX as PAYLOAD_BYTES_MAX;

/// Bytes of a frame's header.
pub const HEADER_BYTES: usize = 14;
/// The number that stands for no namespace: the frame is a control.
pub const CONTROL: u32 = 0;

/// A frame's header, whose own checksum held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    payload_crc: u32,
    payload_bytes: u32,
    /// The namespace's number, or [`CONTROL`].
    pub space: u32,
}

impl Header {
    /// The header that `bytes` begin with; `None` if they do not begin with one.
    #[inline]
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let header = bytes.first_chunk::<HEADER_BYTES>()?;
        let number = |at: usize| {
            u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let found = Self {
            payload_crc: number(0),
            payload_bytes: number(4),
            space: number(8),
        };
        let crc = u16::from_le_bytes([header[12], header[13]]);
        (crc == header_crc(&header[..12]) && found.payload_bytes() <= PAYLOAD_BYTES_MAX)
            .then_some(found)
    }

    /// Bytes of the payload.
    pub fn payload_bytes(&self) -> usize {
        self.payload_bytes as usize
    }

    /// Bytes of the frame.
    pub fn frame_bytes(&self) -> usize {
        HEADER_BYTES + self.payload_bytes()
    }

    /// Whether this is the payload that was written.
    pub fn is_whole(&self, payload: &[u8]) -> bool {
        crc32c::crc32c(payload) == self.payload_crc
    }
}

fn header_crc(bytes: &[u8]) -> u16 {
    crc32c::crc32c(bytes) as u16
}

/// Bytes of the longest frame.
pub const BYTES_MAX: usize = HEADER_BYTES + PAYLOAD_BYTES_MAX;

/// Begins a frame at the end of `out`; what is appended to `out` from here on is its payload. Returns
/// where it begins, for [`finish`].
pub fn begin(out: &mut Vec<u8>) -> usize {
    let begins = out.len();
    out.extend_from_slice(&[0; HEADER_BYTES]);
    begins
}

/// Writes the header of the frame that ends with `out`.
///
/// # Panics
///
/// If the payload is longer than a frame's may be: whoever lets records in bounds them first.
pub fn finish(out: &mut [u8], begins: usize, space: u32) {
    let (header, payload) = out[begins..].split_at_mut(HEADER_BYTES);
    assert!(
        payload.len() <= PAYLOAD_BYTES_MAX,
        "limits bound keys and values to far less than a frame"
    );
    header[0..4].copy_from_slice(&crc32c::crc32c(payload).to_le_bytes());
    header[4..8].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    address(header, space);
}

/// Writes the namespace's number into a header, and the checksum that ends it.
fn address(header: &mut [u8], space: u32) {
    header[8..12].copy_from_slice(&space.to_le_bytes());
    let crc = header_crc(&header[..12]);
    header[12..14].copy_from_slice(&crc.to_le_bytes());
}

/// Gives frames in a row to another namespace; takes time for each frame, not for what is in it.
pub fn readdress(frames: &mut [u8], space: u32) {
    let mut rest = frames;
    while let Some(header) = Header::of(rest) {
        address(&mut rest[..HEADER_BYTES], space);
        rest = &mut rest[header.frame_bytes()..];
    }
}

/// Bytes of each of the frames in a row.
pub fn sizes(mut frames: &[u8]) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bytes = Header::of(frames)?.frame_bytes();
        frames = &frames[bytes..];
        Some(bytes)
    })
}

/// The whole, undamaged frame that `bytes` begin with, and its payload.
#[inline]
pub fn read(bytes: &[u8]) -> Option<(Header, &[u8])> {
    let header = Header::of(bytes)?;
    let payload = bytes.get(HEADER_BYTES..header.frame_bytes())?;
    header.is_whole(payload).then_some((header, payload))
}

/// Where the next whole frame begins at or after `from`.
///
/// Takes time in proportion to the bytes, whatever they are: payloads may be full of what looks like headers
/// of long frames, as clients choose what they store.
pub fn find(bytes: &[u8], from: usize) -> Option<usize> {
    let mut sums = None;
    let mut at = from;
    while at + HEADER_BYTES <= bytes.len() {
        // Reserved space is zeros, mile after mile.
        if bytes[at..].starts_with(&[0; 64]) {
            at += 64 - HEADER_BYTES;
            continue;
        }
        if let Some(header) = Header::of(&bytes[at..])
            && let end = at + header.frame_bytes()
            && end <= bytes.len()
        {
            let sums = sums.get_or_insert_with(|| Sums::of(bytes, at));
            if sums.of_range(bytes, at + HEADER_BYTES..end) == header.payload_crc {
                return Some(at);
            }
        }
        at += 1;
    }
    None
}

/// The checksums of a text's beginnings, of which that of any part follows without reading all of it.
struct Sums {
    /// Where the first block begins.
    from: usize,
    /// Of all from there to the end of each block.
    blocks: Vec<u32>,
}

impl Sums {
    const BLOCK_BYTES: usize = 4 << 10;

    fn of(bytes: &[u8], from: usize) -> Self {
        let mut sum = 0;
        let blocks = bytes[from..].chunks_exact(Self::BLOCK_BYTES).map(|block| {
            sum = crc32c::crc32c_append(sum, block);
            sum
        });
        Self {
            from,
            blocks: blocks.collect(),
        }
    }

    fn upto(&self, bytes: &[u8], end: usize) -> u32 {
        let whole = (end - self.from) / Self::BLOCK_BYTES;
        let sum = whole.checked_sub(1).map_or(0, |last| self.blocks[last]);
        crc32c::crc32c_append(sum, &bytes[self.from + whole * Self::BLOCK_BYTES..end])
    }

    fn of_range(&self, bytes: &[u8], range: Range<usize>) -> u32 {
        if range.len() <= Self::BLOCK_BYTES {
            return crc32c::crc32c(&bytes[range]);
        }
        // What comes before is as if zeros took its place, but for its sum carried over them.
        let before = self.upto(bytes, range.start);
        self.upto(bytes, range.end) ^ crc32c::crc32c_combine(before, 0, range.len())
    }
}

/// Whether nothing was ever written here: zeros, as space is set aside.
pub fn is_blank(bytes: &[u8]) -> bool {
    // In pieces that the compiler compares many bytes at a time.
    bytes
        .chunks(256)
        .all(|chunk| chunk.iter().fold(0, |any, byte| any | byte) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(space: u32, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![9; 3];
        let begins = begin(&mut out);
        out.extend_from_slice(payload);
        finish(&mut out, begins, space);
        out.split_off(3)
    }

    #[test]
    fn what_was_written_is_read_back() {
        for payload in [&b""[..], b"x", &[0; 1000]] {
            let bytes = frame(7, payload);
            let (header, read) = read(&bytes).unwrap();
            assert_eq!((header.space, read), (7, payload));
            assert_eq!(header.frame_bytes(), bytes.len());
        }
    }

    #[test]
    fn no_cut_and_no_flipped_bit_goes_unnoticed() {
        let bytes = frame(3, b"some payload");
        for len in 0..bytes.len() {
            assert_eq!(read(&bytes[..len]), None, "cut to {len}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&flipped), None, "bit {bit}");
        }
    }

    #[test]
    fn zeros_are_no_frame() {
        assert_eq!(Header::of(&[0; HEADER_BYTES]), None);
        assert!(is_blank(&[0; 1000]) && !is_blank(&[&[0; 999][..], &[1]].concat()));
    }

    #[test]
    fn the_next_frame_is_found_wherever_it_begins() {
        let frame = frame(3, b"payload");
        for before in [0, 1, 13, 14, 50, 63, 64, 65, 200, 1_000] {
            for filler in [0, 0xff] {
                let mut bytes = vec![filler; before];
                bytes.extend_from_slice(&frame);
                assert_eq!(find(&bytes, 0), Some(before), "{before} of {filler}");
                assert_eq!(find(&bytes, before + 1), None);
            }
        }
    }

    #[test]
    fn long_frames_are_found_among_headers_of_long_frames() {
        let header_only = frame(3, &vec![7; 100_000])[..HEADER_BYTES].to_vec();
        for len in [4_000, 4_096, 4_097, 50_000] {
            let payload: Vec<u8> = (0..len).map(|n| (n * n % 251) as u8).collect();
            for before in [0, 1, 5_000] {
                let mut bytes = header_only.repeat(before);
                let at = bytes.len();
                bytes.extend_from_slice(&frame(3, &payload));
                bytes.extend_from_slice(&vec![1; 200_000]);
                assert_eq!(find(&bytes, 0), Some(at), "{len} behind {before}");
                bytes[at + HEADER_BYTES + len / 2] ^= 1;
                assert_eq!(find(&bytes, 0), None, "{len} behind {before}");
            }
        }
    }
}
