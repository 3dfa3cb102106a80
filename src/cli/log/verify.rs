//! `onced log verify`: reads every frame, and says what is damaged and what survives.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use serde::Serialize;

use super::{View, control, deadline_words, look, survey};
use crate::log::reader::{Findings, Frame, Loss, Present};
use crate::log::record;
use crate::log::segment;
use crate::log::spaces::Spaces;
use crate::log::storage::Storage;
use crate::time::Millis;

/// Read every byte of a data directory, and say what is damaged and what survives
///
/// Nothing is changed, and a server may be running on the directory: the end of its newest segment is then
/// what it is writing. Damage is judged as a start on this
/// machine would judge it. A torn tail is what was being written when the machine or the server stopped,
/// acknowledged to nobody: a start cuts it off, and a log with nothing worse is clean. Damage is anything
/// else that is not whole: a start refuses it, unless it is told to leave it out with --recover.
///
/// Exit status 0 if the log is clean, 1 if it is damaged or segments are missing, 2 if the directory
/// cannot be read, is no data directory, holds files of something else, of several logs or of a newer
/// version.
#[derive(Debug, clap::Args)]
pub(super) struct VerifyArgs {
    /// The data directory
    #[arg(value_name = "DIR")]
    directory: PathBuf,

    /// Print one JSON object instead of lines
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &VerifyArgs) -> anyhow::Result<ExitCode> {
    let disk = look(&args.directory)?;
    let begin = |present: &Present| Census {
        now: present.now,
        ..Census::default()
    };
    let (view, census, findings) = survey(&disk, begin, Census::count)?;
    let report = census.report(&view, &findings)?;
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer(&mut out, &report).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        print(&report, &mut out)?;
    }
    Ok(ExitCode::from(u8::from(!report.clean)))
}

/// What was found.
#[derive(Debug, Serialize)]
struct Report {
    clean: bool,
    /// The moment that "live" refers to.
    now_ms: u64,
    /// Whether a server was running on it: then its tail is what that was writing.
    in_use: bool,
    /// Whether the server that wrote it was stopped in order.
    closed: bool,
    segments: Vec<Segment>,
    damage: Vec<Damage>,
    tail: Option<Damage>,
    /// Segments that should be there and are not.
    missing: Vec<String>,
    /// Files without content that the next start removes.
    unused: Vec<String>,
    /// Namespaces that are there at the end of the log.
    namespaces: Vec<String>,
    records: u64,
    /// Records whose deadline has not passed, whether or not a later one supersedes them.
    live: u64,
}

/// What is in a file.
#[derive(Debug, Default, Serialize)]
struct Segment {
    name: String,
    /// Its length, with what is only set aside.
    bytes: u64,
    frames: u64,
    puts: u64,
    removals: u64,
    /// How many namespaces its records belong to.
    namespaces: usize,
    last_deadline_ms: Option<u64>,
    #[serde(skip)]
    spaces: BTreeSet<u32>,
}

/// A place that is not whole.
#[derive(Debug, Serialize)]
struct Damage {
    name: String,
    offset: u64,
    /// Bytes to the next whole frame, or to the end of the file.
    bytes: u64,
    /// Whether a whole frame follows in the file.
    followed: bool,
    /// Whether the checksums hold and it is the content that says nothing.
    unreadable: bool,
    /// Frames that look whole and are left out with it, since in format 1 anybody may have stored them.
    unproven: u64,
}

/// Counts while it is read.
#[derive(Debug, Default)]
struct Census {
    now: Millis,
    segments: BTreeMap<u64, Segment>,
    spaces: Spaces,
    live: u64,
}

impl Census {
    fn count(&mut self, frame: &Frame<'_>) {
        let segment = self.segments.entry(frame.at.segment).or_default();
        segment.frames += 1;
        if let Some(control) = control(frame) {
            self.spaces.hear(&control, |_| {});
            return;
        }
        segment.spaces.insert(frame.space);
        let mut rest = frame.payload;
        while let Some(record) = record::take(&mut rest) {
            segment.last_deadline_ms = segment.last_deadline_ms.max(Some(record.deadline.0));
            if record.content.is_some() {
                segment.puts += 1;
                self.live += u64::from(record.deadline >= self.now);
            } else {
                segment.removals += 1;
            }
        }
    }

    fn report(mut self, view: &View, findings: &Findings) -> anyhow::Result<Report> {
        let size = |name: &str| {
            let file = view.held.open(name).and_then(|file| file.size());
            file.with_context(|| format!("cannot read {name}"))
        };
        let mut segments = Vec::new();
        for found in &findings.segments {
            let name = segment::name(found.number);
            let counted = self.segments.remove(&found.number).unwrap_or_default();
            segments.push(Segment {
                bytes: size(&name)?,
                namespaces: counted.spaces.len(),
                name,
                ..counted
            });
        }
        let place = |loss: &Loss| -> anyhow::Result<Damage> {
            Ok(Damage {
                name: loss.name.clone(),
                offset: loss.offset,
                bytes: loss.bytes,
                followed: loss.offset + loss.bytes < size(&loss.name)?,
                unreadable: loss.is_unreadable,
                unproven: loss.unproven,
            })
        };
        let losses = findings.losses.iter().map(place);
        let damage = losses.collect::<anyhow::Result<Vec<_>>>()?;
        let mut unused = findings.unused.clone();
        unused.retain(|name| damage.iter().all(|damage| damage.name != *name));
        let present = self.spaces.present.into_values();
        Ok(Report {
            clean: damage.is_empty() && findings.missing.is_empty(),
            now_ms: self.now.0,
            in_use: view.is_in_use,
            closed: findings.was_closed,
            records: segments.iter().map(|one| one.puts + one.removals).sum(),
            segments,
            damage,
            tail: findings.tail.as_ref().map(place).transpose()?,
            missing: findings.missing.clone(),
            unused,
            namespaces: present.map(|space| space.name).collect(),
            live: self.live,
        })
    }
}

fn print(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let now = Millis(report.now_ms);
    for one in &report.segments {
        write!(
            out,
            "{}: {} bytes, {} frames, {} records ({} puts, {} removals) of {} namespaces",
            one.name,
            one.bytes,
            one.frames,
            one.puts + one.removals,
            one.puts,
            one.removals,
            one.namespaces,
        )?;
        match one.last_deadline_ms {
            Some(last) => writeln!(out, ", last deadline {}", deadline_words(Millis(last), now))?,
            None => writeln!(out)?,
        }
    }
    for name in &report.unused {
        writeln!(out, "{name}: unused, the next start removes it")?;
    }
    for name in &report.missing {
        writeln!(out, "{name}: missing, though keys in it have not lapsed")?;
    }
    for Damage {
        name,
        offset,
        bytes,
        followed,
        unreadable,
        unproven,
    } in &report.damage
    {
        if *unreadable {
            writeln!(
                out,
                "{name}: {bytes} bytes at byte {offset} are under good checksums but say nothing"
            )?;
        } else if *offset == 0 {
            writeln!(
                out,
                "{name}: damaged at byte 0, its header: a start can read nothing of it, 'onced log repair' can"
            )?;
        } else if *unproven > 0 {
            writeln!(
                out,
                "{name}: damaged at byte {offset}; of the {bytes} bytes to its end, {unproven} frames look whole, \
                 but in format 1 anybody may have stored those: they are left out"
            )?;
        } else if *followed {
            writeln!(
                out,
                "{name}: damaged at byte {offset}, {bytes} bytes until the next whole frame"
            )?;
        } else {
            writeln!(
                out,
                "{name}: damaged at byte {offset}, no whole frame in the {bytes} bytes to its end"
            )?;
        }
    }
    if let Some(tail) = report.tail.as_ref().filter(|_| report.in_use) {
        writeln!(
            out,
            "{}: in use: the tail is being written, {} bytes at byte {}",
            tail.name, tail.bytes, tail.offset
        )?;
    } else if let Some(tail) = &report.tail {
        writeln!(
            out,
            "{}: torn tail at byte {}, {} bytes that were promised to nobody; a start cuts them off",
            tail.name, tail.offset, tail.bytes
        )?;
    }
    writeln!(
        out,
        "{} records survive, {} of them live (superseded ones included), in {} namespaces",
        report.records,
        report.live,
        report.namespaces.len()
    )?;
    let verdict = match (report.clean, &report.tail) {
        (true, _) if report.in_use => {
            "clean, and in use by a server that may have written more meanwhile"
        }
        (true, None) => "clean",
        (true, Some(_)) => "clean but for the torn tail",
        (false, _) => {
            "damaged: 'onced log repair' writes what is whole to a new directory, \
             'onced serve --recover' leaves the rest out"
        }
    };
    writeln!(out, "{verdict}")
}
