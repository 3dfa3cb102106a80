//! `onced log`: a data directory seen without a server.
//!
//! Everything here but `import` and `compact` only reads the directory it is given, and judges it as a start on this
//! machine would ([`crate::log::reader`]), with damage left out and reported. A server may be running on
//! it: what it writes meanwhile is seen or not, and what is not whole at the end of its newest segment is what
//! it is writing.

mod compact;
mod dump;
mod import;
mod repair;
mod verify;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Subcommand;

use crate::log::control::{Control, Space};
use crate::log::disk::{self, DirectoryError, Disk};
use crate::log::frame;
use crate::log::held::Held;
use crate::log::reader::{Findings, Frame, Loss, Present, Reader};
use crate::log::spaces::Spaces;
use crate::log::storage::Storage;
use crate::server::clock::Clock;
use crate::server::descriptors;
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

/// How often a log beside whose reading a server runs is read again where segments seem to be missing: they
/// were deleted a moment ago by its clock.
const SURVEYS: u32 = 5;
const SURVEY_PAUSE: Duration = Duration::from_millis(300);

/// How often a place that is not whole, and that a server may be writing, is looked at again.
const LOOKS: u32 = 50;
const LOOK_PAUSE: Duration = Duration::from_millis(10);

/// A directory as it was at one moment, though a server may be running on it.
struct View {
    held: Arc<Held>,
    present: Present,
    /// Whether one does.
    is_in_use: bool,
}

impl View {
    fn of(disk: &Disk) -> anyhow::Result<Self> {
        let is_in_use = disk.is_in_use().context("cannot look at the lock")?;
        // Each segment is open at once.
        descriptors::raise_limit(1 << 20, 0);
        let held = Held::of(disk).context("cannot open the segments")?;
        Ok(Self {
            held: Arc::new(held),
            // Only now: what has lapsed until now may have been deleted.
            present: present(),
            // One that was stopped meanwhile, or has just begun, was running all the same.
            is_in_use: is_in_use || disk.is_in_use().context("cannot look at the lock")?,
        })
    }

    /// Reads the log to its end, and hands over its frames in order.
    fn read(
        &self,
        visit: impl FnMut(&Frame<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<Findings> {
        let storage: Arc<dyn Storage> = Arc::clone(&self.held) as _;
        let mut reader = Reader::open(storage, self.present)?;
        if self.is_in_use {
            reader.beside_a_writer(LOOKS, || thread::sleep(LOOK_PAUSE));
        }
        read_all(reader, visit)
    }
}

/// Reads a log for what `begin` makes and `visit` fills, and again where a server beside it leaves a doubt.
fn survey<T>(
    disk: &Disk,
    begin: impl Fn(&Present) -> T,
    mut visit: impl FnMut(&mut T, &Frame<'_>),
) -> anyhow::Result<(View, T, Findings)> {
    let mut surveys = 0;
    loop {
        let view = View::of(disk)?;
        let mut seen = begin(&view.present);
        let findings = view.read(|frame| {
            visit(&mut seen, frame);
            Ok(())
        })?;
        surveys += 1;
        if findings.missing.is_empty() || !view.is_in_use || surveys == SURVEYS {
            return Ok((view, seen, findings));
        }
        thread::sleep(SURVEY_PAUSE);
    }
}

/// Reads a log to its end, and hands over its frames in order.
fn read(
    disk: &Arc<Disk>,
    present: Present,
    visit: impl FnMut(&Frame<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<Findings> {
    let storage = Arc::clone(disk);
    read_all(Reader::open(storage, present)?, visit)
}

fn read_all(
    mut reader: Reader,
    mut visit: impl FnMut(&Frame<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<Findings> {
    while let Some(piece) = reader.next_piece()? {
        for frame in piece.frames() {
            visit(&frame)?;
        }
    }
    Ok(reader.finish())
}

/// What a frame says, if it belongs to no namespace.
fn control(frame: &Frame<'_>) -> Option<Control> {
    let is_control = frame.space == frame::CONTROL;
    is_control
        .then(|| Control::of(frame.payload).expect("the reader takes no control it cannot read"))
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

/// What to say of frames behind a gap that are not believed.
fn unproven_words(loss: &Loss) -> String {
    match loss.unproven {
        0 => String::new(),
        frames => format!(
            ", {frames} frames among them that look whole: in format 1 anybody may have stored those"
        ),
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
