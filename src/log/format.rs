//! Frames on a disk: what vouches for them at their place in a segment's file, and how they are found again.
//!
//! In version 2 the last 8 bytes of a frame's [header](super::frame) are SipHash-2-4, under the segment's secret, of
//!
//! | bytes | what |
//! |---|---|
//! | 8 | the segment's number |
//! | 8 | where the frame begins in the file |
//! | 12 | the header before the tag, the payload's checksum among it |
//!
//! What clients store may look like anything, and stands in frames. Where one is damaged, the search for the
//! next goes through such bytes: so they must not pass for a frame, whoever chose them. A checksum does not
//! prevent that; a tag under a secret that nobody is told does (J.-P. Aumasson, D. J. Bernstein, "`SipHash`: a
//! fast short-input PRF", 2012), and its place keeps a copy of a frame from being taken for one elsewhere. A
//! header whose tag holds is believed, also as to how long its payload is, if that is damaged.
//!
//! In version 1 a header has 14 bytes, the last two of them the lower half of the CRC-32C of the others.
//! Anybody can make these: frames of version 1 are believed one behind the other from the segment's
//! beginning, and nothing that is [found](Format::find) behind a gap is more than a guess.
//!
//! Zeros are no frame in either version.

use std::fmt;
use std::ops::Range;

use siphasher::sip::SipHasher24;

use super::frame::{FIELDS_BYTES, HEADER_BYTES, Header};
use super::segment::{self, Secret};
use crate::limits::LOG_PAYLOAD_BYTES_MAX as PAYLOAD_BYTES_MAX;

/// Bytes of a frame's header in version 1.
const HEADER_BYTES_V1: usize = 14;

/// How long headers are, and no more than that: for frames that were checked where they were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// That of version 1.
    V1,
    /// That of version 2.
    V2,
}

impl Layout {
    /// Bytes of a frame's header.
    pub fn header_bytes(self) -> usize {
        match self {
            Self::V1 => HEADER_BYTES_V1,
            Self::V2 => HEADER_BYTES,
        }
    }

    /// The namespace's number, and where the payload is, of each of the frames in a row; all of them were
    /// whole when they were read.
    pub fn frames(self, frames: &[u8]) -> impl Iterator<Item = (u32, Range<usize>)> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let header = Header::of(frames.get(at..)?.first_chunk()?);
            let begins = at + self.header_bytes();
            at = begins + header.payload_bytes();
            Some((header.space, begins..at))
        })
    }
}

/// How frames stand in the file of one segment.
#[derive(Clone)]
pub struct Format(Kind);

#[derive(Clone)]
enum Kind {
    V1,
    V2 { tags: SipHasher24, segment: u64 },
}

impl fmt::Debug for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the hasher: it knows the secret.
        match &self.0 {
            Kind::V1 => f.write_str("V1"),
            Kind::V2 { segment, .. } => write!(f, "V2 of segment {segment}"),
        }
    }
}

impl Format {
    /// That of a segment that begins with this header.
    pub fn of(header: &segment::Header) -> Self {
        match header.secret {
            None => Self::v1(),
            Some(secret) => Self::v2(header.number, secret),
        }
    }

    /// Version 1.
    pub fn v1() -> Self {
        Self(Kind::V1)
    }

    /// Version 2, of the segment with this number and secret.
    pub fn v2(segment: u64, secret: Secret) -> Self {
        let tags = SipHasher24::new_with_key(&secret.0);
        Self(Kind::V2 { tags, segment })
    }

    /// How long headers are.
    pub fn layout(&self) -> Layout {
        match self.0 {
            Kind::V1 => Layout::V1,
            Kind::V2 { .. } => Layout::V2,
        }
    }

    /// Whether a frame that is found behind a gap is one that was written, whatever clients store.
    pub fn is_tagged(&self) -> bool {
        self.layout() == Layout::V2
    }

    /// Bytes of the frame with this header.
    pub fn frame_bytes(&self, header: &Header) -> usize {
        self.layout().header_bytes() + header.payload_bytes()
    }

    /// The header at `at` in the file, if `bytes`, which are those from there on, begin with one.
    #[inline]
    pub fn header(&self, bytes: &[u8], at: u64) -> Option<Header> {
        let fields = bytes.first_chunk::<FIELDS_BYTES>()?;
        let header = Header::of(fields);
        let holds = header.payload_bytes() <= PAYLOAD_BYTES_MAX
            && match &self.0 {
                Kind::V1 => {
                    let sum = bytes.get(FIELDS_BYTES..HEADER_BYTES_V1)?;
                    sum == header_sum(fields)
                }
                Kind::V2 { tags, segment } => {
                    let tag = bytes.get(FIELDS_BYTES..HEADER_BYTES)?;
                    tag == tag_of(tags, *segment, at, fields)
                }
            };
        holds.then_some(header)
    }

    /// The whole, undamaged frame at `at` in the file, whose bytes from there on are these, and its payload.
    #[inline]
    pub fn read<'a>(&self, bytes: &'a [u8], at: u64) -> Option<(Header, &'a [u8])> {
        let header = self.header(bytes, at)?;
        let payload = bytes.get(self.layout().header_bytes()..self.frame_bytes(&header))?;
        header.is_whole(payload).then_some((header, payload))
    }

    /// Gives frames that were made in memory, one behind the other, their checksums and tags: they will be at
    /// `at` in the file. Again, if they are to be elsewhere.
    ///
    /// # Panics
    ///
    /// For version 1, which has none and is not written.
    pub fn stamp(&self, frames: &mut [u8], mut at: u64) {
        let Kind::V2 { tags, segment } = &self.0 else {
            panic!("version 1 is not written any more");
        };
        let mut rest = frames;
        while let Some(fields) = rest.first_chunk::<FIELDS_BYTES>() {
            let Header {
                payload_bytes,
                space,
                ..
            } = Header::of(fields);
            let bytes = HEADER_BYTES + payload_bytes as usize;
            let fields = Header::for_payload(&rest[HEADER_BYTES..bytes], space).fields();
            rest[..FIELDS_BYTES].copy_from_slice(&fields);
            rest[FIELDS_BYTES..HEADER_BYTES].copy_from_slice(&tag_of(tags, *segment, at, &fields));
            rest = &mut rest[bytes..];
            at += bytes as u64;
        }
    }

    /// Appends a frame as it is to be at `at` in the file. In version 1 that is for the end that a segment
    /// lacks, and for tests.
    pub fn push(&self, out: &mut Vec<u8>, at: u64, space: u32, payload: &[u8]) {
        let fields = Header::for_payload(payload, space).fields();
        out.extend_from_slice(&fields);
        match &self.0 {
            Kind::V1 => out.extend_from_slice(&header_sum(&fields)),
            Kind::V2 { tags, segment } => {
                out.extend_from_slice(&tag_of(tags, *segment, at, &fields));
            }
        }
        out.extend_from_slice(payload);
    }

    /// A search for frames in `bytes`, which are those of the file from `at` on to its end.
    pub fn search<'a>(&'a self, bytes: &'a [u8], at: u64) -> Search<'a> {
        Search {
            format: self,
            bytes,
            at,
            sums: None,
        }
    }

    /// Where the next whole frame begins in `bytes` at or behind `from`.
    pub fn find(&self, bytes: &[u8], at: u64, from: usize) -> Option<usize> {
        self.search(bytes, at).next(from)
    }

    /// Where the next whole frame begins behind `gap`, where there is none that can be used. What is known to
    /// be a frame is passed over as a whole.
    pub fn find_behind(&self, bytes: &[u8], at: u64, gap: usize) -> Option<usize> {
        let (rest, here) = (bytes.get(gap..)?, at + gap as u64);
        let is_certain = self.is_tagged() || self.read(rest, here).is_some();
        let known = self.header(rest, here).filter(|_| is_certain);
        let bytes_passed = known.map_or(1, |header| self.frame_bytes(&header));
        self.find(bytes, at, gap + bytes_passed)
    }

    /// How many whole frames there are in `bytes` from `from` on.
    pub fn count(&self, bytes: &[u8], at: u64, from: usize) -> u64 {
        let mut search = self.search(bytes, at);
        let (mut count, mut from) = (0, from);
        while let Some(found) = search.next(from)
            && let Some(header) = self.header(&bytes[found..], at + found as u64)
        {
            count += 1;
            from = found + self.frame_bytes(&header);
        }
        count
    }
}

#[inline]
fn tag_of(tags: &SipHasher24, segment: u64, at: u64, fields: &[u8; FIELDS_BYTES]) -> [u8; 8] {
    let mut covered = [0; 16 + FIELDS_BYTES];
    covered[..8].copy_from_slice(&segment.to_le_bytes());
    covered[8..16].copy_from_slice(&at.to_le_bytes());
    covered[16..].copy_from_slice(fields);
    tags.hash(&covered).to_le_bytes()
}

fn header_sum(fields: &[u8; FIELDS_BYTES]) -> [u8; 2] {
    (crc32c::crc32c(fields) as u16).to_le_bytes()
}

/// Looks for frames in bytes that may be anything.
#[derive(Debug)]
pub struct Search<'a> {
    format: &'a Format,
    bytes: &'a [u8],
    /// Where they are in the file.
    at: u64,
    sums: Option<Sums>,
}

impl Search<'_> {
    /// Where the next whole frame begins at or behind `from`.
    ///
    /// Takes time in proportion to the bytes, whatever they are: payloads may be full of what looks like
    /// headers of long frames, as clients choose what they store.
    pub fn next(&mut self, from: usize) -> Option<usize> {
        let header_bytes = self.format.layout().header_bytes();
        let mut at = from;
        while let Some(rest) = self.bytes.get(at..)
            && rest.len() >= header_bytes
        {
            // Reserved space is zeros, mile after mile.
            if rest.starts_with(&[0; 64]) {
                at += 64 - header_bytes;
                continue;
            }
            // Most of what is no header says so here, before anything is reckoned.
            let announced = u32::from_le_bytes([rest[4], rest[5], rest[6], rest[7]]) as usize;
            if announced > rest.len() - header_bytes {
                at += 1;
                continue;
            }
            let Some(header) = self.format.header(rest, self.at + at as u64) else {
                at += 1;
                continue;
            };
            let end = at + self.format.frame_bytes(&header);
            if self.crc_of(at + header_bytes..end) == header.payload_crc() {
                return Some(at);
            }
            // Only what has a tag is believed as to its length.
            at = if self.format.is_tagged() { end } else { at + 1 };
        }
        None
    }

    fn crc_of(&mut self, range: Range<usize>) -> u32 {
        if self.format.is_tagged() {
            // Looked at once: what follows is behind it.
            return crc32c::crc32c(&self.bytes[range]);
        }
        let sums = self
            .sums
            .get_or_insert_with(|| Sums::of(self.bytes, range.start));
        sums.of_range(self.bytes, range)
    }
}

/// The checksums of a text's beginnings, of which that of any part follows without reading all of it.
#[derive(Debug)]
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

#[cfg(test)]
mod tests {
    use super::*;

    fn formats() -> [Format; 2] {
        [Format::v1(), Format::v2(5, Secret([9; 16]))]
    }

    fn frame(format: &Format, at: u64, space: u32, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        format.push(&mut out, at, space, payload);
        out
    }

    #[test]
    fn what_was_written_is_read_back() {
        for format in formats() {
            for payload in [&b""[..], b"x", &[0; 1000]] {
                let bytes = frame(&format, 96, 7, payload);
                let (header, read) = format.read(&bytes, 96).unwrap();
                assert_eq!((header.space, read), (7, payload));
                assert_eq!(format.frame_bytes(&header), bytes.len());
                let begins = format.layout().header_bytes();
                let frames: Vec<_> = format.layout().frames(&bytes).collect();
                assert_eq!(frames, [(7, begins..bytes.len())]);
            }
        }
    }

    #[test]
    fn what_is_stamped_is_as_if_it_had_been_written_there() {
        let [_, format] = formats();
        let (mut frames, mut pushed) = (Vec::new(), Vec::new());
        for payload in [&b"some"[..], b"", b"more"] {
            let begins = super::super::frame::begin(&mut frames);
            frames.extend_from_slice(payload);
            super::super::frame::finish(&mut frames, begins, 3);
            let at = 96 + pushed.len() as u64;
            format.push(&mut pushed, at, 3, payload);
        }
        format.stamp(&mut frames, 1_000);
        assert_ne!(frames, pushed);
        format.stamp(&mut frames, 96);
        assert_eq!(frames, pushed);
    }

    #[test]
    fn no_cut_and_no_flipped_bit_goes_unnoticed() {
        for format in formats() {
            let bytes = frame(&format, 96, 3, b"some payload");
            for len in 0..bytes.len() {
                assert_eq!(format.read(&bytes[..len], 96), None, "cut to {len}");
            }
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(format.read(&flipped, 96), None, "bit {bit}");
            }
        }
    }

    #[test]
    fn a_tag_holds_at_its_place_in_its_segment_under_its_secret_and_nowhere_else() {
        let [_, format] = formats();
        let bytes = frame(&format, 96, 3, b"some payload");
        assert!(format.read(&bytes, 96).is_some());
        for at in [0, 95, 97, 96 + 256, 96 + (1 << 32)] {
            assert_eq!(format.read(&bytes, at), None, "{at}");
        }
        for (segment, secret) in [(6, [9; 16]), (5, [8; 16])] {
            let other = Format::v2(segment, Secret(secret));
            assert_eq!(other.read(&bytes, 96), None);
        }
        // The reference implementation's vector for 28 bytes counted up from 0 under a key counted up from 0.
        let tags = SipHasher24::new_with_key(&std::array::from_fn(|i| i as u8));
        let counted: [u8; 28] = std::array::from_fn(|i| i as u8);
        let word = |at: usize| u64::from_le_bytes(counted[at..at + 8].try_into().unwrap());
        let tag = tag_of(&tags, word(0), word(8), counted[16..].try_into().unwrap());
        assert_eq!(u64::from_le_bytes(tag), 0xde4d_aaac_a71d_c9a5);
    }

    #[test]
    fn zeros_are_no_frame() {
        for format in formats() {
            assert_eq!(format.header(&[0; HEADER_BYTES], 96), None);
        }
    }

    #[test]
    fn the_next_frame_is_found_wherever_it_begins() {
        for format in formats() {
            for before in [0, 1, 13, 14, 50, 63, 64, 65, 200, 1_000] {
                for filler in [0, 0xff] {
                    let mut bytes = vec![filler; before];
                    let frame = frame(&format, 7 + before as u64, 3, b"payload");
                    bytes.extend_from_slice(&frame);
                    let found = format.find(&bytes, 7, 0);
                    assert_eq!(found, Some(before), "{before} of {filler}");
                    assert_eq!(format.find(&bytes, 7, before + 1), None);
                }
            }
        }
    }

    #[test]
    fn long_frames_are_found_among_headers_of_long_frames() {
        for format in formats() {
            let header_bytes = format.layout().header_bytes();
            let header_only = frame(&format, 0, 3, &vec![7; 100_000])[..header_bytes].to_vec();
            for len in [4_000, 4_096, 4_097, 50_000] {
                let payload: Vec<u8> = (0..len).map(|n| (n * n % 251) as u8).collect();
                for before in [0, 1, 5_000] {
                    let mut bytes = header_only.repeat(before);
                    let at = bytes.len();
                    bytes.extend_from_slice(&frame(&format, 7 + at as u64, 3, &payload));
                    bytes.extend_from_slice(&vec![1; 200_000]);
                    assert_eq!(format.find(&bytes, 7, 0), Some(at), "{len} behind {before}");
                    bytes[at + header_bytes + len / 2] ^= 1;
                    assert_eq!(format.find(&bytes, 7, 0), None, "{len} behind {before}");
                }
            }
        }
    }

    #[test]
    fn a_header_whose_tag_holds_is_believed_as_to_what_its_payload_covers() {
        let [old, new] = formats();
        for (format, is_found_within) in [(old, true), (new, false)] {
            let header_bytes = format.layout().header_bytes();
            // What a client stored: a frame, with the very tag that it would have there.
            let inner = frame(&format, 2 * header_bytes as u64, 3, b"forged");
            let payload = [&vec![1; header_bytes][..], &inner].concat();
            let mut bytes = frame(&format, 0, 3, &payload);
            let behind = bytes.len();
            let next = frame(&format, behind as u64, 3, b"written");
            bytes.extend_from_slice(&next);
            bytes[header_bytes] ^= 1;
            let expected = if is_found_within {
                2 * header_bytes
            } else {
                behind
            };
            assert_eq!(format.find(&bytes, 0, 0), Some(expected));
        }
    }
}
