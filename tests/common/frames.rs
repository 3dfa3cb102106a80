//! The frames of a segment's file as tests look at them, and secrets for segments that follow from a seed.

#![allow(dead_code, reason = "each test uses its part")]
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a test fails by panicking"
)]

use std::ops::Range;
use std::sync::Mutex;

use onced::log::format::Format;
use onced::log::segment::{Begin, Header, Secrets};

/// A whole frame: where it is in the file, its namespace's number and its payload.
pub struct Frame<'a> {
    pub range: Range<usize>,
    pub space: u32,
    pub payload: &'a [u8],
}

/// The header of a segment.
pub fn header(file: &[u8]) -> Header {
    match Header::of(file) {
        Begin::Segment(header) => header,
        other => panic!("no segment: {other:?}"),
    }
}

/// The whole frames of a segment from its first on, up to the first place where there is none.
pub fn frames(file: &[u8]) -> Vec<Frame<'_>> {
    let header = header(file);
    let format = Format::of(&header);
    let mut at = header.frames_at() as usize;
    let mut frames = Vec::new();
    while let Some((header, payload)) = format.read(&file[at..], at as u64) {
        let end = at + format.frame_bytes(&header);
        frames.push(Frame {
            range: at..end,
            space: header.space,
            payload,
        });
        at = end;
    }
    frames
}

/// Secrets, another each time, that follow from a seed.
pub fn secrets(seed: u64) -> Secrets {
    let state = Mutex::new(seed);
    Secrets::new(move || {
        let mut state = state.lock().unwrap();
        let mut secret = [0; 16];
        for half in secret.chunks_mut(8) {
            // splitmix64
            *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = *state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            half.copy_from_slice(&(z ^ (z >> 31)).to_le_bytes());
        }
        Ok(secret)
    })
}
