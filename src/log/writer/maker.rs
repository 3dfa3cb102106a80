//! Makes segments: their space, their headers, what they begin with and their names.

use std::io;
use std::sync::Arc;

use super::{Fsync, LogConfig, Sealed, TokensGiven};
use crate::limits::LOG_SEGMENT_BYTES_MIN;
use crate::log::control::{Control, Opened, SEAL_BYTES};
use crate::log::format::Format;
use crate::log::segment::{self, Position};
use crate::log::spaces::Spaces;
use crate::log::storage::{File, Storage, is_lack_of_space, sync_whole, write_all_at};
use crate::time::Millis;

/// Bytes of zeros that are written at a time, and how long the disk is then left to others: written in one
/// go, 64 MiB of them held up the syncs beside it for 20 ms each.
const ZEROS_BYTES: u64 = 512 << 10;
const ZEROS_PAUSE: std::time::Duration = std::time::Duration::from_millis(5);

/// Bytes of the segment that a run begins with, where there is no space for more: without it there is no
/// start at all, and nobody is told what was seen.
const FIRST_BYTES_MIN: u64 = 16 << 10;

/// Bytes that a segment begins with beside its namespaces: where there are more segments before it than
/// fit here, it takes some of what is left over at a segment's end.
const BEGIN_BYTES: usize = 4 << 10;

/// Bytes of a namespace in what a segment begins with.
const SPACE_BYTES_MAX: usize = 4 + 1 + 64 + 1 + 5 * 8;

/// Makes segments.
#[derive(Debug)]
pub(super) struct Maker {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) identity: [u8; 16],
    pub(super) config: LogConfig,
}

/// A segment that frames can be written to once it is begun.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) file: Arc<dyn File>,
    pub(super) number: u64,
    pub(super) format: Format,
    pub(super) reserved: u64,
    /// Bytes that frames may leave unused at the end of the segment before.
    pub(super) margin: i64,
    /// Bytes of it that were added to what may be promised.
    pub(super) counted: i64,
}

impl Prepared {
    /// Bytes for frames once it is begun with so many namespaces.
    pub(super) fn left(&self, spaces: usize) -> u64 {
        self.reserved
            .saturating_sub(begin_bytes(spaces) + SEAL_BYTES)
    }
}

/// The segment that is written.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) file: Arc<dyn File>,
    pub(super) number: u64,
    /// How frames stand in it.
    pub(super) format: Format,
    /// Where the first frame is that is not the one it begins with.
    pub(super) begins: u64,
    /// Where the next frame goes.
    pub(super) at: u64,
    pub(super) reserved: u64,
    pub(super) last: Millis,
}

/// Whether a new segment is filled with zeros, which makes every sync of it cheaper later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Zeros {
    AtOnce,
    /// Leaving the disk to others in between.
    Slowly,
    /// Somebody waits for the segment.
    Never,
}

impl Active {
    pub(super) fn position(&self) -> Position {
        Position {
            segment: self.number,
            offset: self.at,
        }
    }

    /// Bytes for frames: what says that the segment ends has its place behind them.
    pub(super) fn left(&self) -> u64 {
        self.reserved.saturating_sub(self.at + SEAL_BYTES)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.at == self.begins
    }

    /// Writes frames where the next ones go, which they are from here on.
    pub(super) fn write(&self, frames: &mut [u8]) -> io::Result<()> {
        self.format.stamp(frames, self.at);
        write_all_at(&*self.file, frames, self.at)
    }

    /// Makes it long enough for so many bytes of frames more.
    pub(super) fn stretch(&mut self, bytes: usize) -> io::Result<()> {
        let reserved = self.at + bytes as u64 + SEAL_BYTES;
        self.file.reserve(reserved, false)?;
        self.reserved = reserved;
        Ok(())
    }
}

impl Maker {
    /// Makes durable what is there: whoever wrote it may have been killed before it was.
    pub(super) fn sync_sealed(&self, sealed: &[Sealed]) -> io::Result<()> {
        for sealed in sealed {
            sync_whole(&*self.storage.open(&segment::name(sealed.number))?)?;
        }
        self.storage.sync_names()
    }

    /// Makes a segment as large as there is space for, durable with its name.
    pub(super) fn make(
        &self,
        number: u64,
        spaces: usize,
        zeros: Zeros,
        now: Millis,
    ) -> io::Result<Prepared> {
        let header = self.header(number, now)?;
        self.make_as(header, spaces, zeros)
    }

    /// Makes the segment that a run begins with.
    pub(super) fn make_first(
        &self,
        number: u64,
        spaces: usize,
        now: Millis,
    ) -> io::Result<Prepared> {
        let header = segment::Header {
            is_first: true,
            ..self.header(number, now)?
        };
        self.make_as(header, spaces, Zeros::AtOnce)
    }

    fn header(&self, number: u64, now: Millis) -> io::Result<segment::Header> {
        Ok(segment::Header {
            number,
            created: now,
            log: self.identity,
            is_first: false,
            secret: Some(self.config.secrets.draw()?),
        })
    }

    fn make_as(
        &self,
        header: segment::Header,
        spaces: usize,
        zeros: Zeros,
    ) -> io::Result<Prepared> {
        let name = segment::temporary_name(header.number);
        let file = self.storage.create(&name)?;
        let made = self.fill(file, &header, spaces, zeros);
        if made.is_err() {
            let _the_first_error_counts = self.storage.remove(&name);
        }
        made
    }

    fn fill(
        &self,
        file: Arc<dyn File>,
        header: &segment::Header,
        spaces: usize,
        zeros: Zeros,
    ) -> io::Result<Prepared> {
        let mut bytes = self.full_bytes(spaces);
        let least = if header.is_first {
            FIRST_BYTES_MIN
        } else {
            LOG_SEGMENT_BYTES_MIN
        };
        while let Err(error) = self.reserve(&*file, bytes, zeros) {
            if !is_lack_of_space(&error) || bytes <= least {
                return Err(error);
            }
            file.truncate(0)?;
            bytes = if header.is_first {
                // A start where there is little space leaves it to compaction, which makes more.
                least
            } else {
                (bytes / 2).max(least)
            };
        }
        write_all_at(&*file, &header.bytes(), 0)?;
        // Under `Fsync::Never` too, as it is once in a segment: a file that is lost as a whole, with later
        // ones there, looks like a missing segment. This makes the name of the one before durable as well.
        sync_whole(&*file)?;
        self.storage.sync_names()?;
        let (margin, counted) = self.room(bytes, spaces);
        Ok(Prepared {
            file,
            number: header.number,
            format: Format::of(header),
            reserved: bytes,
            margin,
            counted,
        })
    }

    /// Writes what a segment begins with, and only then gives it its name: who copies the directory while
    /// the log is written finds a segment or does not, and none behind one that may go on.
    pub(super) fn begin(&self, prepared: &Prepared, opened: &Control) -> io::Result<Active> {
        let mut begin = Vec::new();
        opened.push_frame(&mut begin);
        let at = segment::HEADER_BYTES as u64;
        prepared.format.stamp(&mut begin, at);
        write_all_at(&*prepared.file, &begin, at)?;
        let begins = at + begin.len() as u64;
        let at = begins;
        let mut reserved = prepared.reserved;
        // With thousands of segments or namespaces, so long that little or nothing else would fit: a
        // segment in which no frame fits is followed by another one like it, for ever.
        if at > reserved / 2 && prepared.file.reserve(at + reserved, false).is_ok() {
            reserved += at;
        }
        let number = prepared.number;
        self.storage
            .rename(&segment::temporary_name(number), &segment::name(number))?;
        Ok(Active {
            file: Arc::clone(&prepared.file),
            number,
            format: prepared.format.clone(),
            begins,
            at,
            // What does not fit what was set aside has made the file longer.
            reserved: reserved.max(at + SEAL_BYTES),
            last: Millis(0),
        })
    }

    /// Sets space aside; only where each change is synced are zeros worth writing.
    fn reserve(&self, file: &dyn File, bytes: u64, zeros: Zeros) -> io::Result<()> {
        if self.config.fsync != Fsync::Always || zeros == Zeros::Never {
            return file.reserve(bytes, false);
        }
        let mut reserved = 0;
        while reserved < bytes {
            reserved = (reserved + ZEROS_BYTES).min(bytes);
            file.reserve(reserved, true)?;
            if zeros == Zeros::Slowly {
                std::thread::sleep(ZEROS_PAUSE);
            }
        }
        Ok(())
    }

    /// Bytes of a segment for which there is space.
    fn full_bytes(&self, spaces: usize) -> u64 {
        // Many namespaces make small segments longer, or nothing could be promised of them.
        self.config.segment_bytes.max(4 * begin_bytes(spaces))
    }

    /// The margin of a segment for which there is space.
    pub(super) fn margin_max(&self, spaces: usize) -> i64 {
        self.room(self.full_bytes(spaces), spaces).0
    }

    /// A segment's margin, and what of so many bytes may be promised.
    fn room(&self, bytes: u64, spaces: usize) -> (i64, i64) {
        let margin = (self.config.frame_bytes_max as u64).min(bytes / 2);
        let counted = bytes.saturating_sub(margin + begin_bytes(spaces));
        (margin as i64, counted as i64)
    }

    /// Makes a segment longer that the disk had not enough space for; false if it still has not.
    pub(super) fn lengthen(&self, prepared: &mut Prepared, spaces: usize) -> io::Result<bool> {
        let bytes = self.config.segment_bytes;
        match self.reserve(&*prepared.file, bytes, Zeros::Never) {
            Ok(()) => {}
            Err(error) if is_lack_of_space(&error) => return Ok(false),
            Err(error) => return Err(error),
        }
        sync_whole(&*prepared.file)?;
        prepared.reserved = bytes;
        (prepared.margin, prepared.counted) = self.room(bytes, spaces);
        Ok(true)
    }
}

/// Bytes that a segment begins with where there are so many namespaces.
fn begin_bytes(spaces: usize) -> u64 {
    (segment::HEADER_BYTES + BEGIN_BYTES + spaces * SPACE_BYTES_MAX) as u64
}

/// What a segment begins with: these namespaces, and the last token.
pub(super) fn opened(
    config: &LogConfig,
    (spaces, tokens): (&Spaces, &TokensGiven),
    sealed: &[Sealed],
    synced: Position,
    now: Millis,
) -> Control {
    Control::Opened(Box::new(Opened {
        at: now,
        boot: config.boot,
        always_synced: config.fsync == Fsync::Always,
        synced,
        earlier: sealed
            .iter()
            .map(|sealed| (sealed.number, sealed.last))
            .collect(),
        next_space: spaces.next,
        covered_since: spaces.covered_since.unwrap_or_default(),
        last_token: tokens.last(),
        spaces: spaces.present.values().cloned().collect(),
    }))
}
