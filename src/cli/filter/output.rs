//! Standard output, written so that it is always known how much of it was taken.
//!
//! `write(2)` says how many bytes it took, unless it blocks: whoever is asked to end while a full
//! pipe makes it wait could not tell. So pipes and terminals are only written to when they have
//! room, and the waiting is done in `poll(2)`, which a signal ends.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;

use crate::cli::signals::EndRequest;

/// How long the reader of a full pipe is waited for once the process is asked to end. Supervisors
/// kill after 10 s or more.
const END_GRACE: Duration = Duration::from_secs(3);

/// What any pipe with room takes without blocking (`PIPE_BUF`).
const PIECE_BYTES: usize = 4_096;

/// Standard output, past the standard library's buffer.
#[derive(Debug)]
pub(super) struct Output {
    file: File,
    room: Room,
    end: EndRequest,
    /// Set when the process was asked to end while there was no room.
    give_up_at: Option<Instant>,
}

/// How it is known whether a write would block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    /// It never does for long: a regular file, a device.
    Always,
    /// The write itself says so.
    Told,
    /// By asking before each piece.
    Asked,
}

/// A write that failed, and how many bytes had been taken before.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) taken: usize,
    pub(super) cause: io::Error,
}

impl Output {
    /// Standard output as the process has it; waiting for room ends some time after `end` asks.
    pub(super) fn stdout(end: EndRequest) -> io::Result<Self> {
        Self::new(io::stdout().as_fd().try_clone_to_owned()?.into(), end)
    }

    fn new(file: File, end: EndRequest) -> io::Result<Self> {
        let kind = file.metadata()?.file_type();
        let waits = kind.is_fifo() || kind.is_socket() || file.is_terminal();
        let (file, room) = if waits {
            // O_NONBLOCK belongs to the open file, which others may share; opened anew, it is ours.
            match reopen(&file) {
                Ok(own) => (own, Room::Told),
                Err(_) => (file, Room::Asked),
            }
        } else {
            (file, Room::Always)
        };
        Ok(Self {
            file,
            room,
            end,
            give_up_at: None,
        })
    }

    /// Writes all of it, or says how much was taken.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        let mut taken = 0;
        while taken < bytes.len() {
            match self.write_some(&bytes[taken..]) {
                Ok(count) => taken += count,
                Err(cause) => return Err(Refused { taken, cause }),
            }
        }
        Ok(())
    }

    fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut piece = bytes;
        if self.room == Room::Asked {
            self.wait_for_room()?;
            piece = &bytes[..bytes.len().min(PIECE_BYTES)];
        }
        match self.file.write(piece) {
            Ok(0) => Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => Ok(count),
            Err(err) if err.kind() == io::ErrorKind::Interrupted => Ok(0),
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => {
                self.wait_for_room()?;
                Ok(0)
            }
            Err(err) => Err(err),
        }
    }

    fn wait_for_room(&mut self) -> io::Result<()> {
        loop {
            let mut files = [
                PollFd::new(&self.file, PollFlags::OUT),
                PollFd::new(&self.end, PollFlags::IN),
            ];
            let polled = if self.end.signal().is_none() {
                poll(&mut files, None)
            } else {
                let now = Instant::now();
                let give_up_at = *self.give_up_at.get_or_insert(now + END_GRACE);
                let left = Timespec::try_from(give_up_at.saturating_duration_since(now)).ok();
                poll(&mut files[..1], left.as_ref())
            };
            match polled {
                Err(rustix::io::Errno::INTR) => {}
                Err(err) => return Err(err.into()),
                Ok(0) => {
                    let text = "nobody read it for 3 s after the request to end";
                    return Err(io::Error::new(io::ErrorKind::TimedOut, text));
                }
                // Room, or an error that the write will tell.
                Ok(_) if !files[0].revents().is_empty() => return Ok(()),
                Ok(_) => {}
            }
        }
    }
}

/// The same pipe or terminal, opened for this process alone, that never blocks.
fn reopen(file: &File) -> io::Result<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let flags = i32::try_from(flags.bits()).map_err(io::Error::other)?;
    File::options().write(true).custom_flags(flags).open(path)
}
