//! The reading end: what a directory holds, frame by frame, and what to make of damage.
//!
//! A place where a frame should begin and none does is one of three things. Nothing but zeros to the
//! end of the segment: its end. A *tail*: what was being written when the machine or the server
//! stopped; nobody was promised that it would last. Or damage to what was promised to last. A tail is:
//!
//! - the end of the newest segment, if no whole frame follows;
//! - after the machine has been started again, also what a disk had not yet written in order: all from
//!   the first gap on, provided that no later frame says that it had been synced, and that it is not what a
//!   run began with, which was synced before anything else.
//!
//! A tail is cut off. Damage ends the reading with an error that names file and offset, unless it is to
//! be left out.
//!
//! What follows a gap was written by the log only if its [tag](super::format) says so. In a segment of
//! version 1 nothing does, and clients may have stored what looks like frames: there, leaving damage out
//! means all that follows it in the file.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use thiserror::Error;

use super::control::{Control, Opened};
use super::format::{Format, Layout};
use super::frame;
use super::record;
use super::segment::{self, Begin, Position};
use super::storage::{File, Note, Storage, read_full_at};
use super::writer::Sealed;
use crate::time::Millis;

/// Bytes that are read at a time.
const PIECE_BYTES: usize = 1 << 20;

/// Why a log cannot be read.
#[derive(Debug, Error)]
pub enum LogError {
    /// The system says no.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system says.
        source: io::Error,
    },
    /// Something that is not of a log.
    #[error("{name} does not belong to a log: is this the right directory?")]
    Foreign {
        /// The file.
        name: String,
    },
    /// A later version wrote it.
    #[error("{name} has format {version}; this version reads {latest}: it was written by a newer onced", latest = segment::VERSION)]
    Newer {
        /// The file.
        name: String,
        /// Its format.
        version: u32,
    },
    /// A file with another segment's name.
    #[error(
        "{name} is segment {number} under another name: it was copied or renamed by hand. Put the file back that belongs there, or move this one out of the directory, and --recover goes on without it"
    )]
    Misplaced {
        /// The file.
        name: String,
        /// Which segment it is.
        number: u64,
    },
    /// Segments of two logs.
    #[error(
        "{name} is of another log than {first}: is this a mixture of two directories? Move the files of one of them out of it"
    )]
    Mixed {
        /// The file.
        name: String,
        /// The first segment.
        first: String,
    },
    /// A segment is missing.
    #[error(
        "{name} is missing; was the directory copied in full, or the clock set back? --recover goes on without it"
    )]
    Missing {
        /// The file.
        name: String,
    },
    /// The newest segment is missing.
    #[error(
        "{name} is missing, or holds nothing, and it was the newest: put it back. If this is a copy that was made before it was begun, --restored says so; --recover goes on without it"
    )]
    NewestMissing {
        /// The file.
        name: String,
    },
    /// What was written and synced is not there any more.
    #[error(
        "{name} is damaged at byte {offset}; `onced log verify` says what survives, --recover goes on without the rest"
    )]
    Damaged {
        /// The file.
        name: String,
        /// Bytes from its beginning.
        offset: u64,
    },
}

impl LogError {
    fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

/// What is known when a log is read.
#[derive(Clone, Copy, Debug)]
pub struct Present {
    /// The moment, or the one up to which segments were deleted, if that is later: segments whose last deadline
    /// has passed may be missing.
    pub now: Millis,
    /// The machine's run.
    pub boot: [u8; 16],
    /// Whether damage is left out instead of ending the reading.
    pub recovers: bool,
    /// Whether the log is a copy that was made some time ago, and what followed is missing.
    pub is_copy: bool,
}

/// Whole frames in a row, of one segment.
#[derive(Debug)]
pub struct Piece {
    /// Where the first of them begins.
    pub at: Position,
    /// How they stand in `bytes`.
    pub layout: Layout,
    /// The frames, which were whole at their place in the file.
    pub bytes: Vec<u8>,
    /// What the controls among them say.
    pub controls: Vec<Control>,
}

/// A whole frame of a [`Piece`].
#[derive(Clone, Debug)]
pub struct Frame<'a> {
    /// Where it is in the log.
    pub at: Position,
    /// Where it is in the piece.
    pub range: Range<usize>,
    /// The namespace's number, or [`frame::CONTROL`].
    pub space: u32,
    /// What it holds: one control, or records.
    pub payload: &'a [u8],
}

impl Piece {
    /// Its frames, in order.
    pub fn frames(&self) -> impl Iterator<Item = Frame<'_>> {
        let frames = self.layout.frames(&self.bytes);
        frames.map(|(space, payload)| {
            let begins = payload.start - self.layout.header_bytes();
            Frame {
                at: Position {
                    offset: self.at.offset + begins as u64,
                    ..self.at
                },
                range: begins..payload.end,
                space,
                payload: &self.bytes[payload],
            }
        })
    }
}

/// What was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The file.
    pub name: String,
    /// Where the damage begins.
    pub offset: u64,
    /// Bytes up to the next whole frame, or the end.
    pub bytes: u64,
    /// Whether it is a frame that is whole and says nothing that is known.
    pub is_unreadable: bool,
    /// Frames among the bytes that look whole and are not applied: behind a gap in a segment of version 1,
    /// anybody may have made them.
    pub unproven: u64,
}

impl Loss {
    /// Bytes that are no frames.
    pub(in crate::log) fn gap(name: String, offset: u64, bytes: u64) -> Self {
        Self {
            name,
            offset,
            bytes,
            is_unreadable: false,
            unproven: 0,
        }
    }
}

/// What the reading found, beside the frames.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// The log's identity; zeros if there is none yet.
    pub log: [u8; 16],
    /// Segments with frames, in order; their last deadlines are for the reader's user to fill in.
    pub segments: Vec<Sealed>,
    /// Files in which nothing was ever written, or whose content is a tail as a whole.
    pub unused: Vec<String>,
    /// The number for the next segment.
    pub next_segment: u64,
    /// Whether the last thing in it says that it was ended in order.
    pub was_closed: bool,
    /// Segments that do not say that they end where they do.
    pub unended: Vec<u64>,
    /// What the newest segment said when it was begun.
    pub newest: Option<Box<Opened>>,
    /// The tail that was left out.
    pub tail: Option<Loss>,
    /// Damage that was left out.
    pub losses: Vec<Loss>,
    /// Segments that are missing and should not be.
    pub missing: Vec<String>,
    /// Bytes of frames.
    pub bytes: u64,
}

impl Findings {
    /// Whether something may be gone that was acknowledged before the machine was started again.
    pub fn may_lack_unsynced(&self, boot: &[u8; 16]) -> bool {
        let newest = self.newest.as_deref();
        !self.was_closed
            && newest.is_some_and(|opened| opened.boot != *boot && !opened.always_synced)
    }
}

/// A segment that is to be read.
#[derive(Debug)]
struct Unread {
    number: u64,
    bytes: u64,
    /// Whether a run begins with it.
    is_first: bool,
    /// Where its first frame is.
    frames_at: u64,
    format: Format,
}

impl Unread {
    fn of(header: &segment::Header, bytes: u64) -> Self {
        Self {
            number: header.number,
            bytes,
            is_first: header.is_first,
            frames_at: header.frames_at(),
            format: Format::of(header),
        }
    }
}

/// Reads a log from its beginning to its end.
#[derive(Debug)]
pub struct Reader {
    storage: Arc<dyn Storage>,
    present: Present,
    segments: Vec<Unread>,
    /// Which of them is read.
    current: usize,
    file: Option<Arc<dyn File>>,
    /// Where the reading is in it.
    offset: u64,
    /// What was read of it, and from where on it was not looked at yet.
    buffer: Vec<u8>,
    begins: usize,
    /// Up to where frames behind the first gap say that all was synced; `None` before that is known.
    synced: Option<Position>,
    /// Whether the last frame says that the segment ends with it.
    is_ended: bool,
    findings: Findings,
    /// Bytes of all segments.
    bytes_total: u64,
    /// How often what is not whole in the newest segment is looked at again, and what passes the time until
    /// then.
    looks: (u32, fn()),
}

impl Reader {
    /// Looks through a directory; an error if it holds anything but a log.
    pub fn open(storage: Arc<dyn Storage>, present: Present) -> Result<Self, LogError> {
        let mut reader = Self {
            storage,
            present,
            segments: Vec::new(),
            current: 0,
            file: None,
            offset: 0,
            buffer: Vec::new(),
            begins: 0,
            synced: None,
            is_ended: false,
            findings: Findings::default(),
            bytes_total: 0,
            looks: (0, || {}),
        };
        // First: who writes meanwhile begins segments, and only then notes that.
        let begun = reader
            .storage
            .noted(Note::Begun)
            .map_err(LogError::io("cannot read which segment is the newest"))?;
        // By a clock that was ahead of the present one, perhaps: time goes on from there.
        let deleted_until = reader
            .storage
            .noted(Note::DeletedUntil)
            .map_err(LogError::io("cannot read when segments were deleted"))?;
        let now = &mut reader.present.now;
        *now = (*now).max(Millis(deleted_until.unwrap_or_default()));
        reader.look_through()?;
        reader.check_newest()?;
        if let Some(begun) = begun {
            reader.check_begun(begun)?;
        }
        Ok(reader)
    }

    fn look_through(&mut self) -> Result<(), LogError> {
        let names = self
            .storage
            .list()
            .map_err(LogError::io("cannot list the directory"))?;
        let mut numbers = BTreeSet::new();
        for name in names {
            match segment::number(&name) {
                Some(number) => {
                    numbers.insert(number);
                }
                None if name.ends_with(segment::TEMPORARY) => self.findings.unused.push(name),
                None => return Err(LogError::Foreign { name }),
            }
        }
        self.findings.next_segment = numbers.last().map_or(1, |last| last + 1);
        let mut first = None;
        let mut blank: Option<String> = None;
        let newest = numbers.last().copied();
        for number in numbers {
            let name = segment::name(number);
            let file = self.open_file(&name)?;
            let cannot_read = || LogError::io(format!("cannot read {name}"));
            let mut begin = [0; segment::HEADER_BYTES];
            let read = read_full_at(&*file, &mut begin, 0).map_err(cannot_read())?;
            let header = match segment::Header::of(&begin[..read]) {
                Begin::Segment(header) if header.number == number => header,
                // It is whole, and was never written there: what it holds is of another time.
                Begin::Segment(header) => {
                    let number = header.number;
                    return Err(LogError::Misplaced { name, number });
                }
                Begin::Newer(version) => return Err(LogError::Newer { name, version }),
                // A header is durable before its file has a name: only where nothing follows may it not have
                // been written.
                Begin::Blank if !has_content(&*file).map_err(cannot_read())? => {
                    blank = Some(name.clone());
                    self.findings.unused.push(name);
                    continue;
                }
                Begin::Damaged
                    if Some(number) == newest
                        && holds_nothing(number, &begin[..read], &*file)
                            .map_err(cannot_read())? =>
                {
                    let bytes = file.size().map_err(cannot_read())?;
                    self.findings.tail = Some(Loss::gap(name.clone(), 0, bytes));
                    self.findings.unused.push(name);
                    continue;
                }
                Begin::Blank | Begin::Damaged => {
                    self.lose_header(name, &*file)?;
                    continue;
                }
            };
            let (log, first_name) = first.get_or_insert_with(|| (header.log, name.clone()));
            if *log != header.log {
                let first = first_name.clone();
                return Err(LogError::Mixed { name, first });
            }
            // One that was being made is the last; but no more than one is made at a time.
            if let Some(name) = blank.take() {
                self.damaged(Loss::gap(name, 0, 0))?;
            }
            let bytes = file.size().map_err(cannot_read())?;
            self.bytes_total += bytes;
            self.segments.push(Unread::of(&header, bytes));
        }
        self.findings.log = first.map(|(log, _)| log).unwrap_or_default();
        Ok(())
    }

    /// A file whose header is not to be read: as a whole it is left out, if that may be.
    fn lose_header(&mut self, name: String, file: &dyn File) -> Result<(), LogError> {
        let bytes = file
            .size()
            .map_err(LogError::io(format!("cannot read {name}")))?;
        self.damaged(Loss::gap(name.clone(), 0, bytes))?;
        self.findings.unused.push(name);
        Ok(())
    }

    /// Notes damage that may be left out; an error if it may not.
    fn damaged(&mut self, loss: Loss) -> Result<(), LogError> {
        if !self.present.recovers {
            let Loss { name, offset, .. } = loss;
            return Err(LogError::Damaged { name, offset });
        }
        self.findings.losses.push(loss);
        Ok(())
    }

    /// Drops segments that were made ahead and never begun, and compares the others with what the newest
    /// one says there must be.
    fn check_newest(&mut self) -> Result<(), LogError> {
        while let Some(last) = self.segments.last() {
            let name = segment::name(last.number);
            let begin = last.frames_at;
            let file = self.open_file(&name)?;
            if is_blank_from(&*file, begin).map_err(LogError::io(format!("cannot read {name}")))? {
                self.findings.unused.push(name);
                self.segments.pop();
                continue;
            }
            let rest = self.read_rest(&name, begin)?;
            if let Some((header, payload)) = last.format.read(&rest, begin)
                && header.space == frame::CONTROL
                && let Some(Control::Opened(opened)) = Control::of(payload)
            {
                return self.check_earlier(&opened);
            }
            if last.format.find(&rest, begin, 0).is_some() {
                // Its beginning is damaged, which the reading will come to.
                return Ok(());
            }
            let tail = Loss::gap(name.clone(), begin, rest.len() as u64);
            self.findings.tail = Some(tail);
            self.findings.unused.push(name);
            self.segments.pop();
        }
        Ok(())
    }

    /// Compares the newest segment with the last of which it was noted that it was begun: what it began with
    /// was durable before that.
    fn check_begun(&mut self, begun: u64) -> Result<(), LogError> {
        let next = &mut self.findings.next_segment;
        *next = begun.saturating_add(1).max(*next);
        let newest = self.segments.last().map_or(0, |newest| newest.number);
        let name = segment::name(begun);
        let is_lost = self.findings.losses.iter().any(|loss| loss.name == name);
        if newest >= begun || self.present.is_copy || is_lost {
            return Ok(());
        }
        if !self.present.recovers {
            return Err(LogError::NewestMissing { name });
        }
        self.findings.missing.push(name);
        Ok(())
    }

    fn check_earlier(&mut self, opened: &Opened) -> Result<(), LogError> {
        for &(number, last) in &opened.earlier {
            let is_there = self.segments.iter().any(|segment| segment.number == number);
            if is_there || last < self.present.now {
                continue;
            }
            let name = segment::name(number);
            if !self.present.recovers {
                return Err(LogError::Missing { name });
            }
            self.findings.missing.push(name);
        }
        Ok(())
    }

    fn open_file(&self, name: &str) -> Result<Arc<dyn File>, LogError> {
        self.storage
            .open(name)
            .map_err(LogError::io(format!("cannot open {name}")))
    }

    fn read_rest(&self, name: &str, offset: u64) -> Result<Vec<u8>, LogError> {
        let file = self.open_file(name)?;
        read_rest(&*file, offset).map_err(LogError::io(format!("cannot read {name}")))
    }

    /// Reads beside a server that writes: what is not whole in the newest segment may be on its way, and is
    /// looked at again before it is judged, so many times in all.
    pub fn beside_a_writer(&mut self, looks: u32, pause: fn()) {
        self.looks = (looks, pause);
    }

    /// What was known when it was opened.
    pub fn present(&self) -> Present {
        self.present
    }

    /// Bytes of all segments together.
    pub fn bytes_total(&self) -> u64 {
        self.bytes_total
    }

    /// Bytes that were read so far.
    pub fn bytes_read(&self) -> u64 {
        let before: u64 = self.segments[..self.current]
            .iter()
            .map(|segment| segment.bytes)
            .sum();
        before + self.offset
    }

    /// The next frames; `None` at the end.
    pub fn next_piece(&mut self) -> Result<Option<Piece>, LogError> {
        while let Some(segment) = self.segments.get(self.current) {
            let (number, layout) = (segment.number, segment.format.layout());
            let name = segment::name(number);
            let file = match &self.file {
                Some(file) => Arc::clone(file),
                None => self.begin_segment(number, &name)?,
            };
            let is_all = self
                .fill(&*file, PIECE_BYTES)
                .map_err(LogError::io(format!("cannot read {name}")))?;
            let mut piece = Piece {
                at: Position {
                    segment: number,
                    offset: self.offset,
                },
                layout,
                bytes: Vec::new(),
                controls: Vec::new(),
            };
            let whole = self.take_frames(&mut piece);
            if whole > 0 {
                piece.bytes.extend_from_slice(&self.unread()[..whole]);
                self.pass(whole);
                self.findings.bytes += whole as u64;
                return Ok(Some(piece));
            }
            if !is_all && self.read_more(&*file, &name)? {
                continue;
            }
            self.come_to_an_end(&*file, &name)?;
        }
        Ok(None)
    }

    fn unread(&self) -> &[u8] {
        &self.buffer[self.begins..]
    }

    /// How the frames stand that are read.
    fn format(&self) -> &Format {
        &self.segments[self.current].format
    }

    fn pass(&mut self, bytes: usize) {
        self.begins += bytes;
        self.offset += bytes as u64;
    }

    fn begin_segment(&mut self, number: u64, name: &str) -> Result<Arc<dyn File>, LogError> {
        let file = self.open_file(name)?;
        self.file = Some(Arc::clone(&file));
        self.is_ended = false;
        self.offset = self.segments[self.current].frames_at;
        self.buffer.clear();
        self.begins = 0;
        self.findings.segments.push(Sealed {
            number,
            last: Millis(0),
            bytes: self.offset,
        });
        Ok(file)
    }

    /// Reads until so many bytes are there to look at; returns whether the file has no more.
    fn fill(&mut self, file: &dyn File, bytes: usize) -> io::Result<bool> {
        if self.unread().len() >= bytes {
            return Ok(false);
        }
        self.buffer.drain(..self.begins);
        self.begins = 0;
        let held = self.buffer.len();
        self.buffer.resize(bytes, 0);
        let read = read_full_at(file, &mut self.buffer[held..], self.offset + held as u64)?;
        self.buffer.truncate(held + read);
        Ok(held + read < bytes)
    }

    /// Reads the rest of a frame that is longer than what is usually read; false if there is none.
    fn read_more(&mut self, file: &dyn File, name: &str) -> Result<bool, LogError> {
        let Some(header) = self.format().header(self.unread(), self.offset) else {
            return Ok(false);
        };
        let bytes = self.format().frame_bytes(&header);
        if bytes <= self.unread().len() {
            return Ok(false);
        }
        self.fill(file, bytes)
            .map_err(LogError::io(format!("cannot read {name}")))?;
        Ok(self.format().read(self.unread(), self.offset).is_some())
    }

    /// Checks the whole frames that come next, about as many as are read at a time; returns how many bytes
    /// they are.
    fn take_frames(&mut self, piece: &mut Piece) -> usize {
        let format = &self.segments[self.current].format;
        let mut at = 0;
        while at < PIECE_BYTES
            && let here = self.offset + at as u64
            && let Some((header, payload)) = format.read(&self.buffer[self.begins + at..], here)
        {
            if header.space == frame::CONTROL {
                let Some(control) = Control::of(payload) else {
                    break;
                };
                self.findings.was_closed = control == Control::Closed;
                self.is_ended = matches!(control, Control::Closed | Control::Sealed);
                if let Control::Opened(opened) = &control {
                    self.findings.newest = Some(opened.clone());
                }
                piece.controls.push(control);
            } else if self.present.recovers && !is_readable(&header, payload) {
                // Else whoever applies them is the first to look at the records.
                break;
            } else {
                self.findings.was_closed = false;
                self.is_ended = false;
            }
            at += format.frame_bytes(&header);
        }
        at
    }

    /// Where no frame begins: the segment's end, a tail, or damage.
    fn come_to_an_end(&mut self, file: &dyn File, name: &str) -> Result<(), LogError> {
        let cannot_read = || LogError::io(format!("cannot read {name}"));
        self.note_end(self.offset);
        let is_last = self.current + 1 == self.segments.len();
        let behind = self.offset + self.unread().len() as u64;
        let is_blank =
            frame::is_blank(self.unread()) && is_blank_from(file, behind).map_err(cannot_read())?;
        if is_blank && (self.is_ended || is_last) {
            self.go_to_next_segment();
            return Ok(());
        }
        if !is_blank && is_last && self.looks.0 > 0 {
            self.looks.0 -= 1;
            (self.looks.1)();
            self.buffer.truncate(self.begins);
            return Ok(());
        }
        // It stays, so that it is read once, however many gaps there are.
        let bytes = file.size().map_err(cannot_read())?;
        let bytes = bytes.saturating_sub(self.offset) as usize;
        self.fill(file, bytes).map_err(cannot_read())?;
        let left = self.unread().len();
        // Where nothing but zeros comes, what should say that the segment ends is missing.
        let (format, unread) = (self.format(), self.unread());
        let is_unreadable = format.read(unread, self.offset).is_some();
        let follows = format.find_behind(unread, self.offset, 0);
        if self.is_tail(is_unreadable, follows)? {
            let tail = Loss::gap(name.to_owned(), self.offset, left as u64);
            self.findings.tail = Some(tail);
            if !is_last || follows.is_some() {
                self.findings.was_closed = false;
            }
            for later in self.segments.drain(self.current + 1..) {
                self.findings.unused.push(segment::name(later.number));
            }
            self.go_to_next_segment();
            return Ok(());
        }
        // What is only found, and has no tag, may be what a client stored.
        let goes_on = follows.filter(|_| self.format().is_tagged());
        let unproven = match follows {
            Some(first) if goes_on.is_none() => {
                self.format().count(self.unread(), self.offset, first)
            }
            _ => 0,
        };
        self.damaged(Loss {
            is_unreadable,
            unproven,
            ..Loss::gap(name.to_owned(), self.offset, goes_on.unwrap_or(left) as u64)
        })?;
        match goes_on {
            Some(at) => self.pass(at),
            None => self.go_to_next_segment(),
        }
        Ok(())
    }

    fn note_end(&mut self, offset: u64) {
        if let Some(segment) = self.findings.segments.last_mut() {
            segment.bytes = offset;
        }
    }

    fn go_to_next_segment(&mut self) {
        if !self.is_ended {
            let number = self.segments[self.current].number;
            self.findings.unended.push(number);
        }
        self.current += 1;
        self.file = None;
        self.offset = 0;
    }

    /// Whether what is not whole here was never promised to last.
    fn is_tail(&mut self, is_unreadable: bool, follows: Option<usize>) -> Result<bool, LogError> {
        let segment = &self.segments[self.current];
        let here = Position {
            segment: segment.number,
            offset: self.offset,
        };
        // Nothing that is written in part has the right sum.
        if is_unreadable {
            return Ok(false);
        }
        let later = &self.segments[self.current + 1..];
        if follows.is_none() && later.is_empty() {
            return Ok(true);
        }
        let is_beginning = self.offset == segment.frames_at;
        if is_beginning && segment.is_first {
            return Ok(false);
        }
        let was_restarted = |boot: &[u8; 16]| *boot != self.present.boot;
        let opened = self.findings.newest.as_deref();
        if !opened.is_some_and(|opened| was_restarted(&opened.boot)) {
            return Ok(false);
        }
        let synced = if let Some(synced) = self.synced {
            synced
        } else {
            let mut synced = Position::default();
            note_synced(
                &segment.format,
                self.unread(),
                self.offset,
                follows,
                &mut synced,
            );
            for segment in later {
                let rest = self.read_rest(&segment::name(segment.number), segment.frames_at)?;
                note_synced(
                    &segment.format,
                    &rest,
                    segment.frames_at,
                    Some(0),
                    &mut synced,
                );
            }
            *self.synced.insert(synced)
        };
        Ok(synced <= here)
    }

    /// What was found.
    pub fn finish(self) -> Findings {
        self.findings
    }
}

/// Whether what a whole frame holds is a control, or records.
pub fn is_readable(header: &frame::Header, payload: &[u8]) -> bool {
    if header.space == frame::CONTROL {
        return Control::of(payload).is_some();
    }
    let mut rest = payload;
    while !rest.is_empty() {
        if record::take(&mut rest).is_none() {
            return false;
        }
    }
    true
}

/// Finds the last position up to which frames say that all was synced, in bytes that are at `at` in a file;
/// `first` is where the first frame may be.
fn note_synced(format: &Format, bytes: &[u8], at: u64, first: Option<usize>, last: &mut Position) {
    let mut search = format.search(bytes, at);
    let mut next = first.and_then(|first| search.next(first));
    while let Some(here) = next {
        let Some((header, payload)) = format.read(&bytes[here..], at + here as u64) else {
            return;
        };
        if header.space == frame::CONTROL {
            match Control::of(payload) {
                Some(Control::Synced(synced)) => *last = synced.max(*last),
                Some(Control::Opened(opened)) => *last = opened.synced.max(*last),
                _ => {}
            }
        }
        next = search.next(here + format.frame_bytes(&header));
    }
}

/// Whether there are only zeros from here to the end: space that was set aside.
fn is_blank_from(file: &dyn File, mut offset: u64) -> io::Result<bool> {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let read = read_full_at(file, &mut piece, offset)?;
        if read == 0 {
            return Ok(true);
        }
        if !frame::is_blank(&piece[..read]) {
            return Ok(false);
        }
        offset += read as u64;
    }
}

/// Whether there is anything behind the header of a file.
fn has_content(file: &dyn File) -> io::Result<bool> {
    Ok(!is_blank_from(file, segment::HEADER_BYTES as u64)?)
}

/// Whether no frame was written to a file whose header, the first of these bytes, does not hold: it was being
/// made when the machine or the server stopped. Without the secret nobody can tell.
fn holds_nothing(number: u64, begin: &[u8], file: &dyn File) -> io::Result<bool> {
    if !has_content(file)? {
        return Ok(true);
    }
    let Some(secret) = segment::secret(begin) else {
        return Ok(false);
    };
    let at = segment::HEADER_BYTES as u64;
    let rest = read_rest(file, at)?;
    Ok(Format::v2(number, secret).find(&rest, at, 0).is_none())
}

fn read_rest(file: &dyn File, offset: u64) -> io::Result<Vec<u8>> {
    let bytes = file.size()?.saturating_sub(offset);
    let mut rest = vec![0; bytes as usize];
    let read = read_full_at(file, &mut rest, offset)?;
    rest.truncate(read);
    Ok(rest)
}
