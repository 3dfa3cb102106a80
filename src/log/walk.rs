//! A segment's frames one after the other, for who writes them anew.
//!
//! Where there is no whole frame before the end, that is an error: who copies is not to leave anything out
//! without knowing.

use std::io;
use std::sync::Arc;

use super::format::Format;
use super::frame::Header;
use super::segment::{Begin, HEADER_BYTES, Header as SegmentHeader};
use super::storage::{File, read_full_at};

/// Bytes of a segment that are read at a time.
const READ_BYTES: usize = 256 << 10;

/// Reads the frames of a segment from one place to another.
#[derive(Debug)]
pub(super) struct Walk {
    file: Arc<dyn File>,
    format: Format,
    /// Where the next frame is.
    at: u64,
    upto: u64,
    /// What was read of it, and from where on it was not looked at yet.
    buffer: Vec<u8>,
    looked_at: usize,
}

impl Walk {
    /// Through the frames from `from` to `upto`, both where one begins or ends.
    pub(super) fn new(file: Arc<dyn File>, format: Format, from: u64, upto: u64) -> Self {
        Self {
            file,
            format,
            at: from,
            upto,
            buffer: Vec::new(),
            looked_at: 0,
        }
    }

    /// The next frame's header and payload; `None` at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<(Header, &[u8])>> {
        let bytes = loop {
            let unread = &self.buffer[self.looked_at..];
            if let Some((header, _)) = self.format.read(unread, self.at) {
                break self.format.frame_bytes(&header);
            }
            if !self.read_more()? {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(damaged())
                };
            }
        };
        let frame = &self.buffer[self.looked_at..];
        let found = self.format.read(frame, self.at);
        self.looked_at += bytes;
        self.at += bytes as u64;
        Ok(found)
    }

    /// Reads on, until at least the frame that was begun is there; false at the end.
    fn read_more(&mut self) -> io::Result<bool> {
        self.buffer.drain(..self.looked_at);
        self.looked_at = 0;
        let held = self.buffer.len();
        let wanted = match self.format.header(&self.buffer, self.at) {
            Some(header) => READ_BYTES.max(self.format.frame_bytes(&header)),
            None => READ_BYTES,
        };
        let from = self.at + held as u64;
        let left = self.upto.saturating_sub(from) as usize;
        let bytes = wanted.saturating_sub(held).min(left);
        self.buffer.resize(held + bytes, 0);
        let read = read_full_at(&*self.file, &mut self.buffer[held..], from)?;
        self.buffer.truncate(held + read);
        Ok(read > 0)
    }
}

/// A segment's header, where it is known to be whole.
pub(super) fn header_of(file: &dyn File) -> io::Result<SegmentHeader> {
    let mut begin = [0; HEADER_BYTES];
    let read = read_full_at(file, &mut begin, 0)?;
    match SegmentHeader::of(&begin[..read]) {
        Begin::Segment(header) => Ok(header),
        _ => Err(damaged()),
    }
}

pub(super) fn damaged() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "a segment of the log is damaged",
    )
}
