//! `onced log`: a data directory seen without a server.
//!
//! Everything here but `import` and `compact` only reads the directory it is given, and judges it as a start on this
//! machine would ([`crate::log::reader`]), with damage left out and reported. A server may be running on
//! it: what it writes meanwhile is seen or not, and the frame that it is writing looks like a torn tail.

mod compact;
mod dump;
mod import;
mod repair;
mod verify;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::bail;
use clap::Subcommand;

use crate::log::control::{Control, Space};
use crate::log::disk::{self, DirectoryError, Disk};
use crate::log::frame;
use crate::log::reader::{Findings, Piece, Present, Reader};
use crate::log::segment::Position;
use crate::log::spaces::Spaces;
use crate::server::clock::Clock;
use crate::time::Millis;

/// Look at a data directory, save what is whole in it, load what it holds
#[derive(Debug, clap::Args)]
pub(crate) struct LogArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Verify(verify::VerifyArgs),
    Dump(dump::DumpArgs),
    Repair(repair::RepairArgs),
    Compact(compact::CompactArgs),
    Import(import::LogImportArgs),
}

pub(crate) fn run(args: &LogArgs) -> anyhow::Result<ExitCode> {
    match &args.action {
        Action::Verify(args) => verify::run(args),
        Action::Dump(args) => dump::run(args),
        Action::Repair(args) => repair::run(args),
        Action::Compact(args) => compact::run(args),
        Action::Import(args) => import::run(args),
    }
}

/// Opens a data directory for reading only.
fn look(directory: &Path) -> anyhow::Result<Arc<Disk>> {
    match Disk::look(directory) {
        Ok(disk) => Ok(Arc::new(disk)),
        Err(DirectoryError::Other { .. }) if is_empty(directory) => {
            bail!("{} is empty: no server has used it", directory.display())
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether a directory has nothing in it.
fn is_empty(directory: &Path) -> bool {
    std::fs::read_dir(directory).is_ok_and(|mut names| names.next().is_none())
}

/// The present as a start would see it, with damage left out.
fn present() -> Present {
    Present {
        now: Clock::start().read().now,
        // Where the system does not tell its runs apart, each is another one.
        boot: disk::boot_id([0; 16]),
        recovers: true,
        is_copy: false,
    }
}

/// Reads a log to its end, and hands over its frames in order.
fn read(
    disk: &Arc<Disk>,
    present: Present,
    mut visit: impl FnMut(Position, Frame<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<Findings> {
    let storage = Arc::clone(disk);
    let mut reader = Reader::open(storage, present)?;
    while let Some(piece) = reader.next_piece()? {
        for (at, frame) in frames(&piece) {
            visit(at, frame)?;
        }
    }
    Ok(reader.finish())
}

/// A whole frame.
struct Frame<'a> {
    /// The namespace's number.
    space: u32,
    payload: &'a [u8],
}

impl Frame<'_> {
    /// What it says, if it belongs to no namespace.
    fn control(&self) -> Option<Control> {
        let is_control = self.space == frame::CONTROL;
        is_control
            .then(|| Control::of(self.payload).expect("the reader takes no control it cannot read"))
    }

    /// Bytes of the frame.
    fn bytes(&self) -> usize {
        frame::HEADER_BYTES + self.payload.len()
    }
}

fn frames(piece: &Piece) -> impl Iterator<Item = (Position, Frame<'_>)> {
    let mut at = piece.at;
    let mut rest = &piece.frames[..];
    std::iter::from_fn(move || {
        let (header, payload) = frame::read(rest)?;
        let here = at;
        rest = &rest[header.frame_bytes()..];
        at.offset += header.frame_bytes() as u64;
        let space = header.space;
        Some((here, Frame { space, payload }))
    })
}

/// The namespaces of a log, and what is known of those that are not there any more.
#[derive(Debug, Default)]
struct Known {
    here: Spaces,
    past: BTreeMap<u32, Space>,
}

impl Known {
    fn hear(&mut self, control: &Control) {
        let Self { here, past } = self;
        here.hear(control, |space| {
            past.insert(space.id, space);
        });
    }

    /// A namespace, whether or not it is still there.
    fn find(&self, id: u32) -> Option<&Space> {
        self.here.present.get(&id).or_else(|| self.past.get(&id))
    }
}

/// A deadline for people: the moment in Unix milliseconds, and how far away it is.
fn deadline_words(deadline: Millis, now: Millis) -> String {
    let distance = |ms: u64| match ms / 1_000 {
        s @ 0..60 => format!("{s}s"),
        s @ 60..3_600 => format!("{}m", s / 60),
        s @ 3_600..172_800 => format!("{}h", s / 3_600),
        s => format!("{}d", s / 86_400),
    };
    if deadline >= now {
        format!("{} (in {})", deadline.0, distance(deadline.since(now)))
    } else {
        format!("{} ({} ago)", deadline.0, distance(now.since(deadline)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_told_in_the_unit_that_reads_best() {
        let now = Millis(1_000_000_000_000);
        for (ms, words) in [
            (0, "in 0s"),
            (59_999, "in 59s"),
            (3_599_999, "in 59m"),
            (86_400_000, "in 24h"),
            (86_400_000 * 3, "in 3d"),
        ] {
            let text = deadline_words(now.after(ms), now);
            assert!(text.ends_with(&format!("({words})")), "{text}");
        }
        let past = deadline_words(Millis(now.0 - 60_000), now);
        assert_eq!(past, "999999940000 (1m ago)");
    }
}
