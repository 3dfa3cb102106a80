//! Frames in memory: what was changed at a time, on its way to the file.
//!
//! A frame is a header of 20 bytes and a payload, all numbers little-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 4 | CRC-32C of the payload, together with the tag |
//! | 4 | length of the payload in bytes, at most [`PAYLOAD_BYTES_MAX`] |
//! | 4 | the namespace's number; 0 for a control |
//! | 8 | the tag, which a frame gets together with its place in a file: see [`format`](mod@super::format) |
//!
//! What is here was made by this process: it is gone through by its lengths, and nothing is checked or
//! looked for. What was read from a file is not passed to anything here.

use crate::limits::LOG_PAYLOAD_BYTES_MAX as PAYLOAD_BYTES_MAX;

/// Bytes of a frame's header.
pub const HEADER_BYTES: usize = 20;
/// Bytes of the header before the tag.
pub(in crate::log) const FIELDS_BYTES: usize = 12;
/// The number that stands for no namespace: the frame is a control.
pub const CONTROL: u32 = 0;

/// What a frame's header says of its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    payload_crc: u32,
    pub(in crate::log) payload_bytes: u32,
    /// The namespace's number, or [`CONTROL`].
    pub space: u32,
}

impl Header {
    /// The header of such a payload.
    ///
    /// # Panics
    ///
    /// If the payload is longer than a frame's may be: whoever lets records in bounds them first.
    pub(in crate::log) fn for_payload(payload: &[u8], space: u32) -> Self {
        assert!(
            payload.len() <= PAYLOAD_BYTES_MAX,
            "limits bound keys and values to far less than a frame"
        );
        Self {
            payload_crc: crc32c::crc32c(payload),
            payload_bytes: payload.len() as u32,
            space,
        }
    }

    /// What these bytes say, true or not.
    #[inline]
    pub(in crate::log) fn of(fields: &[u8; FIELDS_BYTES]) -> Self {
        let number = |at: usize| {
            u32::from_le_bytes([fields[at], fields[at + 1], fields[at + 2], fields[at + 3]])
        };
        Self {
            payload_crc: number(0),
            payload_bytes: number(4),
            space: number(8),
        }
    }

    /// Its bytes, but for what vouches for them.
    pub(in crate::log) fn fields(&self) -> [u8; FIELDS_BYTES] {
        let mut fields = [0; FIELDS_BYTES];
        fields[0..4].copy_from_slice(&self.payload_crc.to_le_bytes());
        fields[4..8].copy_from_slice(&self.payload_bytes.to_le_bytes());
        fields[8..12].copy_from_slice(&self.space.to_le_bytes());
        fields
    }

    /// Bytes of the payload.
    pub fn payload_bytes(&self) -> usize {
        self.payload_bytes as usize
    }

    /// The payload's checksum.
    pub(in crate::log) fn payload_crc(&self) -> u32 {
        self.payload_crc
    }

    /// Whether this is the payload that was written.
    pub(in crate::log) fn is_whole(&self, payload: &[u8]) -> bool {
        crc32c::crc32c(payload) == self.payload_crc
    }

    /// Bytes of the frame.
    fn frame_bytes(&self) -> usize {
        HEADER_BYTES + self.payload_bytes()
    }
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

/// Writes the header of the frame that ends with `out`; its checksum and its tag are left to
/// [`Format::stamp`].
///
/// # Panics
///
/// If the payload is longer than a frame's may be: whoever lets records in bounds them first.
///
/// [`Format::stamp`]: super::format::Format::stamp
pub fn finish(out: &mut [u8], begins: usize, space: u32) {
    let (header, payload) = out[begins..].split_at_mut(HEADER_BYTES);
    assert!(
        payload.len() <= PAYLOAD_BYTES_MAX,
        "limits bound keys and values to far less than a frame"
    );
    header[4..8].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    header[8..FIELDS_BYTES].copy_from_slice(&space.to_le_bytes());
}

/// Joins a frame to the last of those in `out`, which begins at `begins`: one header does for both. False, and
/// nothing, if they are of different namespaces, or would be longer than `bytes_max` together.
#[inline]
pub(in crate::log) fn join(
    out: &mut Vec<u8>,
    begins: usize,
    frame: &[u8],
    bytes_max: usize,
) -> bool {
    let bytes = out.len() - begins + frame.len() - HEADER_BYTES;
    if bytes > bytes_max || out[begins + 8..begins + FIELDS_BYTES] != frame[8..FIELDS_BYTES] {
        return false;
    }
    out.extend_from_slice(&frame[HEADER_BYTES..]);
    let payload_bytes = (bytes - HEADER_BYTES) as u32;
    out[begins + 4..begins + 8].copy_from_slice(&payload_bytes.to_le_bytes());
    true
}

/// Gives frames in a row to another namespace; takes time for each frame, not for what is in it.
pub fn readdress(frames: &mut [u8], space: u32) {
    let mut rest = frames;
    while let Some(header) = first(rest) {
        rest[8..FIELDS_BYTES].copy_from_slice(&space.to_le_bytes());
        rest = &mut rest[header.frame_bytes()..];
    }
}

/// Bytes of each of the frames in a row.
pub fn sizes(mut frames: &[u8]) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bytes = first(frames)?.frame_bytes();
        frames = &frames[bytes..];
        Some(bytes)
    })
}

/// The namespace's number and the payload of each of the frames in a row.
pub fn payloads(mut frames: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    std::iter::from_fn(move || {
        let header = first(frames)?;
        let (frame, rest) = frames.split_at(header.frame_bytes());
        frames = rest;
        Some((header.space, &frame[HEADER_BYTES..]))
    })
}

/// The header of the first of frames in a row; `None` if there is none.
fn first(frames: &[u8]) -> Option<Header> {
    let fields = frames.first_chunk()?;
    Some(Header::of(fields))
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

    #[test]
    fn frames_in_a_row_are_gone_through_one_by_one() {
        let mut frames = Vec::new();
        let all = [(7, &b""[..]), (8, b"x"), (9, &[0; 1000])];
        for (space, payload) in all {
            let begins = begin(&mut frames);
            frames.extend_from_slice(payload);
            finish(&mut frames, begins, space);
        }
        assert!(payloads(&frames).eq(all));
        assert!(sizes(&frames).eq(all.map(|(_, payload)| HEADER_BYTES + payload.len())));
        readdress(&mut frames, 3);
        assert!(payloads(&frames).eq(all.map(|(_, payload)| (3, payload))));
    }

    #[test]
    fn frames_of_a_namespace_are_joined_up_to_a_length() {
        let frame_of = |space, payload: &[u8]| {
            let mut frame = vec![0; HEADER_BYTES];
            frame.extend_from_slice(payload);
            finish(&mut frame, 0, space);
            frame
        };
        let mut out = frame_of(3, b"before");
        let begins = out.len();
        out.extend_from_slice(&frame_of(7, b"some"));
        let most = HEADER_BYTES + 8;
        assert!(!join(&mut out, begins, &frame_of(8, b"more"), most));
        assert!(!join(&mut out, begins, &frame_of(7, b"more."), most));
        assert!(join(&mut out, begins, &frame_of(7, b"more"), most));
        assert!(!join(&mut out, begins, &frame_of(7, b"1"), most));
        assert!(payloads(&out).eq([(3, &b"before"[..]), (7, b"somemore")]));
    }

    #[test]
    fn zeros_are_blank() {
        assert!(is_blank(&[0; 1000]) && !is_blank(&[&[0; 999][..], &[1]].concat()));
    }
}
