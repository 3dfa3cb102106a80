//! `onced log repair`: a new data directory with all that is whole in an old one.
//!
//! What a start could read is copied as it is. Segments that only lack their header are given a new one
//! and their frames after all. A segment is written behind them that says what there is now: without it
//! the next start would miss what is gone, and would not know that something is.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};

use super::{control, is_empty, look, present, read, unproven_words};
use crate::config::segment_secrets;
use crate::log::control::{Control, Opened};
use crate::log::disk::Disk;
use crate::log::format::Format;
use crate::log::mend::Copy;
use crate::log::reader::{Findings, Loss, Present, is_readable};
use crate::log::segment::{HEADER_BYTES, HEADER_BYTES_V1, Header, Position};
use crate::log::spaces::Spaces;
use crate::log::storage::{Note, Storage, read_full_at};
use crate::log::{frame, mend, record, segment};
use crate::time::Millis;

/// Write all that is whole in a data directory to a new one
///
/// The old directory is only read, and stays as it is. The new one must be empty or not there yet; a
/// server started on it finds no damage. What was lost is printed, place by place.
///
/// A server takes what is lost for never seen. If anything is, all namespaces in the new directory
/// remember it: one that is set to UNSURE REPORT answers UNSURE instead of NEW until its window has
/// passed.
///
/// This saves more than 'onced serve --recover' does: segments whose header is damaged are kept. Stop the
/// server first, or its latest changes are not in the copy. Exit status 0, whatever was lost; 2 if there
/// is nothing to copy from or to.
#[derive(Debug, clap::Args)]
pub(super) struct RepairArgs {
    /// The data directory with the damage
    #[arg(value_name = "DIR")]
    directory: PathBuf,

    /// The data directory to be written
    #[arg(long, value_name = "NEWDIR")]
    to: PathBuf,
}

pub(super) fn run(args: &RepairArgs) -> anyhow::Result<ExitCode> {
    let old = look(&args.directory)?;
    refuse_taken(&args.directory, &args.to)?;
    let present = present();
    let findings = read(&old, present, |_| Ok(()))?;
    let new = Arc::new(Disk::take(&args.to)?);
    let cannot_copy = || format!("cannot copy to {}", args.to.display());
    // What is there before the last segment is looks whole, and does not know what was lost.
    new.begin().with_context(cannot_copy)?;
    let copied = copy(&old, &new, &findings).with_context(cannot_copy)?;
    // That the newest is missing only the old directory knows; others were saved in spite of their headers.
    let saved = new.list().with_context(cannot_copy)?;
    let missing = findings.missing.iter().filter(|name| !saved.contains(name));
    let missing: Vec<_> = missing.cloned().collect();
    let has_lost = !(copied.lost.is_empty() && missing.is_empty());
    let mut repaired = finish(&new, present, &findings, has_lost)?;
    new.finish().with_context(cannot_copy)?;
    if let Some(newest) = repaired.newest {
        new.note(Note::Begun, newest).with_context(cannot_copy)?;
    }
    if let Some(moment) = old.noted(Note::DeletedUntil).with_context(cannot_copy)? {
        new.note(Note::DeletedUntil, moment)
            .with_context(cannot_copy)?;
    }
    repaired.missing.extend(missing);
    repaired.missing.sort();
    repaired.missing.dedup();
    let mut out = io::stdout().lock();
    for lost in &copied.lost {
        writeln!(out, "lost: {lost}")?;
    }
    for name in &repaired.missing {
        writeln!(
            out,
            "lost: {name} is missing, though keys in it have not lapsed"
        )?;
    }
    if let Some(tail) = &findings.tail {
        let (name, offset, bytes) = (&tail.name, tail.offset, tail.bytes);
        writeln!(
            out,
            "left out: the torn tail of {name}, {bytes} bytes at byte {offset} that were promised to nobody"
        )?;
    }
    writeln!(
        out,
        "{}: {} segments, {} records",
        args.to.display(),
        repaired.segments,
        repaired.records
    )?;
    Ok(ExitCode::SUCCESS)
}

fn refuse_taken(old: &Path, new: &Path) -> anyhow::Result<()> {
    let absolute = |path: &Path| path.canonicalize().or_else(|_| std::path::absolute(path));
    if absolute(new)?.starts_with(absolute(old)?) {
        bail!("{} is within {}", new.display(), old.display());
    }
    if new.exists() && !is_empty(new) {
        bail!("{} is not an empty directory", new.display());
    }
    Ok(())
}

struct Copied {
    /// What is gone, in words.
    lost: Vec<String>,
}

fn copy(old: &Disk, new: &Disk, findings: &Findings) -> io::Result<Copied> {
    let mut lost = Vec::new();
    for sealed in &findings.segments {
        let name = segment::name(sealed.number);
        mend::copy_whole_frames(findings, (old, &name), (new, &name), &segment_secrets())?;
    }
    let mut log = findings.log;
    for loss in &findings.losses {
        if findings.unused.contains(&loss.name) {
            lost.extend(rescue(old, new, &loss.name, &mut log)?);
        } else {
            lost.push(words(loss));
        }
    }
    new.sync_names()?;
    Ok(Copied { lost })
}

fn words(loss: &Loss) -> String {
    let (name, offset, bytes) = (&loss.name, loss.offset, loss.bytes);
    format!(
        "{name}, {bytes} bytes at byte {offset}{}",
        unproven_words(loss)
    )
}

/// Copies the whole frames of a segment whose header is damaged behind a new header; returns what is lost
/// beside the header. `log` is the log's identity, if it is known.
fn rescue(old: &Disk, new: &Disk, name: &str, log: &mut [u8; 16]) -> io::Result<Vec<String>> {
    let file = old.open(name)?;
    let mut bytes = vec![0; file.size()? as usize];
    let read = read_full_at(&*file, &mut bytes, 0)?;
    bytes.truncate(read);
    let number = segment::number(name).expect("only segments have headers");
    if is_of_another_log(&bytes, number, log) {
        return Ok(vec![format!("{name}, which is of another log")]);
    }
    let (format, begins) = format_of(&bytes, number);
    let (frames, lost) = whole_frames(name, &bytes, &format, begins);
    let Some((header, payload)) = frames.last() else {
        return Ok(lost);
    };
    let is_ended = is_end(header, payload);
    if *log == [0; 16]
        && let Some(identity) = bytes.get(32..48)
    {
        log.copy_from_slice(identity);
    }
    if *log == [0; 16] {
        // Nothing is left of it, and any will do that no other log has.
        getrandom::fill(log).map_err(|error| io::Error::other(error.to_string()))?;
    }
    let header = Header {
        number,
        created: Millis(0),
        log: *log,
        is_first: false,
        secret: Some(segment_secrets().draw()?),
    };
    let mut copy = Copy::begin(new.create(name)?, &header)?;
    for (header, payload) in frames {
        copy.push(header.space, payload)?;
    }
    if !is_ended {
        // Others follow, and it is to end where it does.
        copy.push(frame::CONTROL, &payload_of(&Control::Sealed))?;
    }
    copy.finish()?;
    Ok(lost)
}

/// How frames stand in a segment whose header is damaged, and where they begin: in version 2 if there is a
/// secret.
fn format_of(bytes: &[u8], number: u64) -> (Format, usize) {
    match segment::secret(bytes) {
        Some(secret) => (Format::v2(number, secret), HEADER_BYTES),
        None => (Format::v1(), HEADER_BYTES_V1),
    }
}

/// The whole frames of a segment from the first on, and what lies between them, in words. In version 1 that is
/// all behind the first gap.
fn whole_frames<'a>(
    name: &str,
    bytes: &'a [u8],
    format: &Format,
    begins: usize,
) -> (Vec<(frame::Header, &'a [u8])>, Vec<String>) {
    let (mut frames, mut lost) = (Vec::new(), Vec::new());
    let mut at = begins.min(bytes.len());
    while !frame::is_blank(&bytes[at..]) {
        let found = format.read(&bytes[at..], at as u64);
        if let Some((header, payload)) =
            found.filter(|(header, payload)| is_readable(header, payload))
        {
            frames.push((header, payload));
            at += format.frame_bytes(&header);
            continue;
        }
        let (next, unproven) = match format.find_behind(bytes, 0, at) {
            Some(next) if format.is_tagged() => (next, 0),
            Some(next) => (bytes.len(), format.count(bytes, 0, next)),
            None => (bytes.len(), 0),
        };
        lost.push(words(&Loss {
            name: name.to_owned(),
            offset: at as u64,
            bytes: (next - at) as u64,
            is_unreadable: found.is_some(),
            unproven,
        }));
        at = next;
    }
    (frames, lost)
}

/// Whether a damaged header tells, in spite of the damage, that its segment does not belong here.
fn is_of_another_log(bytes: &[u8], number: u64, log: &[u8; 16]) -> bool {
    /// No flipped bit or two, but another identity.
    const BITS: u32 = 8;
    let Some(header) = bytes.first_chunk::<HEADER_BYTES_V1>() else {
        return false;
    };
    let ours = Header {
        number,
        created: Millis(0),
        log: *log,
        is_first: false,
        secret: None,
    }
    .bytes();
    let is_header = header[..8] == ours[..8] && header[16..24] == ours[16..24];
    let differing = header[32..48].iter().zip(log);
    let bits: u32 = differing.map(|(a, b)| (a ^ b).count_ones()).sum();
    is_header && *log != [0; 16] && bits > BITS
}

/// Whether a frame says that the segment ends with it.
fn is_end(header: &frame::Header, payload: &[u8]) -> bool {
    let control = Control::of(payload);
    header.space == frame::CONTROL && matches!(control, Some(Control::Sealed | Control::Closed))
}

fn payload_of(control: &Control) -> Vec<u8> {
    let mut payload = Vec::new();
    control.push(&mut payload);
    payload
}

struct Repaired {
    missing: Vec<String>,
    /// The segment that says what there is.
    newest: Option<u64>,
    segments: usize,
    records: u64,
}

/// Reads the new directory, and ends its log with a segment that says what there is.
fn finish(
    new: &Arc<Disk>,
    present: Present,
    old: &Findings,
    has_lost: bool,
) -> anyhow::Result<Repaired> {
    let mut spaces = Spaces::default();
    let mut last = BTreeMap::new();
    let mut records = 0;
    let findings = read(new, present, |frame| {
        let last: &mut Millis = last.entry(frame.at.segment).or_default();
        if let Some(control) = control(frame) {
            spaces.hear(&control, |_| {});
            return Ok(());
        }
        // Whatever is gone, no number is given out twice.
        spaces.note_records(frame.space);
        let mut rest = frame.payload;
        while let Some(record) = record::take(&mut rest) {
            records += 1;
            *last = record.deadline.max(*last);
            spaces.last_token = spaces.last_token.max(record.token());
        }
        Ok(())
    })?;
    let newest =
        (!findings.segments.is_empty()).then(|| old.next_segment.max(findings.next_segment));
    if let Some(number) = newest {
        if has_lost || !findings.missing.is_empty() {
            // What was lost may have come in this very millisecond.
            let from = present.now.after(1);
            spaces.covered_since = spaces.covered_since.max(Some(from));
            for space in spaces.present.values_mut() {
                space.covered_since = space.covered_since.max(from);
            }
        }
        let newest = findings.newest.as_deref();
        let opened = Opened {
            at: present.now,
            // As if the server that wrote the old directory had begun it: it depends on that whether
            // something may be gone that is not missed here.
            boot: newest.map_or([0; 16], |newest| newest.boot),
            always_synced: newest.is_some_and(|newest| newest.always_synced),
            synced: Position {
                segment: number,
                offset: 0,
            },
            earlier: last.into_iter().collect(),
            next_space: spaces.next_unused(),
            covered_since: spaces.covered_since.unwrap_or_default(),
            last_token: spaces.last_token,
            spaces: spaces.present.into_values().collect(),
        };
        let header = Header {
            number,
            created: present.now,
            log: findings.log,
            is_first: true,
            secret: Some(segment_secrets().draw()?),
        };
        let is_closed = old.was_closed && findings.was_closed;
        write_last(new, &header, opened, is_closed).context("cannot write the last segment")?;
    }
    Ok(Repaired {
        missing: findings.missing,
        newest,
        segments: new.list()?.len(),
        records,
    })
}

fn write_last(new: &Disk, header: &Header, opened: Opened, is_closed: bool) -> io::Result<()> {
    let mut copy = Copy::begin(new.create(&segment::name(header.number))?, header)?;
    copy.push(
        frame::CONTROL,
        &payload_of(&Control::Opened(Box::new(opened))),
    )?;
    if is_closed {
        copy.push(frame::CONTROL, &payload_of(&Control::Closed))?;
    }
    copy.finish()?;
    new.sync_names()
}
