//! Mending: makes a directory what its reading said it is, so that the next start finds no damage, and goes
//! on from there.
//!
//! All of it follows from [`Findings`]; nothing is judged a second time. It may be cut short at any point
//! and begun again with another reading: what is not to be read goes away before what it hangs on, and
//! the highest segment first, so that no stop in between leaves a gap that looks like a missing segment.
//! Damage stays until a new segment says what may be missing: until then nothing else says so.
//!
//! It does not decide whether damage may be left out: there are [losses](Findings::losses) only if the
//! reader was told to go on.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::control::{Control, seal};
use super::format::Format;
use super::frame;
use super::reader::Findings;
use super::segment::{self, Secrets};
use super::storage::{File, Storage, write_all_at};
use super::walk::{Walk, header_of};
use super::writer::{Log, LogConfig, Start};
use crate::time::Millis;

/// Bytes that are written at a time.
const PIECE_BYTES: usize = 1 << 20;

/// Mends a directory and begins a new segment behind what there is. Durable when this returns.
///
/// Segments that lack their end or have damage in them become longer or shorter than `start` says.
pub fn resume(
    storage: &Arc<dyn Storage>,
    findings: &Findings,
    config: LogConfig,
    mut start: Start,
    now: Millis,
) -> io::Result<Log> {
    if let Some((number, bytes)) = end_in_order(&**storage, findings)? {
        let mut sealed = start.sealed.iter_mut();
        if let Some(last) = sealed.find(|sealed| sealed.number == number) {
            last.bytes = bytes;
        }
    }
    let secrets = config.secrets.clone();
    let log = Log::start(Arc::clone(storage), config, start, now)?;
    for (number, bytes) in leave_losses_out(&**storage, findings, &secrets)? {
        log.became(number, bytes);
    }
    Ok(log)
}

/// Removes what was never used, cuts the tail off and says where the last segment ends. Durable when this
/// returns; returns which one that is and how long it is now, unless it is one with damage.
pub fn end_in_order(storage: &dyn Storage, findings: &Findings) -> io::Result<Option<(u64, u64)>> {
    remove_unused(storage, findings, false)?;
    cut_tail(storage, findings)?;
    end_last(storage, findings)
}

/// Writes segments that have damage in them anew with only their whole frames, and removes those of which
/// nothing can be read. Durable when this returns; returns what was written, and how long it is.
pub fn leave_losses_out(
    storage: &dyn Storage,
    findings: &Findings,
    secrets: &Secrets,
) -> io::Result<Vec<(u64, u64)>> {
    let mut names: Vec<_> = findings.losses.iter().map(|loss| &loss.name).collect();
    names.dedup();
    names.retain(|name| !findings.unused.contains(name));
    let mut written = Vec::new();
    for name in names {
        let temporary = format!("{name}{}", segment::TEMPORARY);
        let bytes = copy_whole_frames(findings, (storage, name), (storage, &temporary), secrets)?;
        storage.rename(&temporary, name)?;
        storage.sync_names()?;
        written.extend(segment::number(name).map(|number| (number, bytes)));
    }
    remove_unused(storage, findings, true)?;
    Ok(written)
}

/// Copies a segment's whole frames to a file that is not there yet, under a secret of its own and with an end
/// if there is none; returns how many bytes that are. The copy's bytes are durable when this returns, its
/// name is not.
pub fn copy_whole_frames(
    findings: &Findings,
    (from, name): (&dyn Storage, &str),
    (to, new_name): (&dyn Storage, &str),
    secrets: &Secrets,
) -> io::Result<u64> {
    let source = from.open(name)?;
    let old = header_of(&*source)?;
    let header = segment::Header {
        secret: Some(secrets.draw()?),
        ..old
    };
    let mut copy = Copy::begin(to.create(new_name)?, &header)?;
    let read = findings
        .segments
        .iter()
        .find(|sealed| sealed.number == old.number);
    let end = read.map_or(0, |sealed| sealed.bytes);
    for range in kept(findings, name, old.frames_at()..end) {
        let format = Format::of(&old);
        let mut frames = Walk::new(Arc::clone(&source), format, range.start, range.end);
        while let Some((header, payload)) = frames.next()? {
            copy.push(header.space, payload)?;
        }
    }
    if findings.unended.contains(&old.number) {
        copy.push(frame::CONTROL, &sealed())?;
    }
    copy.finish()
}

/// A segment that is written anew, frame by frame.
#[derive(Debug)]
pub struct Copy {
    file: Arc<dyn File>,
    format: Format,
    /// What is not written yet, and where it goes.
    out: Vec<u8>,
    at: u64,
}

impl Copy {
    /// One that begins with this header, which is of version 2.
    pub fn begin(file: Arc<dyn File>, header: &segment::Header) -> io::Result<Self> {
        write_all_at(&*file, &header.bytes(), 0)?;
        Ok(Self {
            file,
            format: Format::of(header),
            out: Vec::new(),
            at: header.frames_at(),
        })
    }

    /// Appends a frame.
    pub fn push(&mut self, space: u32, payload: &[u8]) -> io::Result<()> {
        let at = self.at + self.out.len() as u64;
        self.format.push(&mut self.out, at, space, payload);
        if self.out.len() >= PIECE_BYTES {
            self.write()?;
        }
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        write_all_at(&*self.file, &self.out, self.at)?;
        self.at += self.out.len() as u64;
        self.out.clear();
        Ok(())
    }

    /// Makes it durable, but for its name; returns its length.
    pub fn finish(mut self) -> io::Result<u64> {
        self.write()?;
        self.file.sync()?;
        Ok(self.at)
    }
}

/// What says that a segment ends.
fn sealed() -> Vec<u8> {
    let mut payload = Vec::new();
    Control::Sealed.push(&mut payload);
    payload
}

/// The parts of a segment's frames that were read.
fn kept(findings: &Findings, name: &str, frames: Range<u64>) -> Vec<Range<u64>> {
    let mut kept = Vec::new();
    let mut from = frames.start;
    for loss in findings.losses.iter().filter(|loss| loss.name == name) {
        if loss.offset.min(frames.end) > from {
            kept.push(from..loss.offset.min(frames.end));
        }
        from = loss.offset + loss.bytes;
    }
    if frames.end > from {
        kept.push(from..frames.end);
    }
    kept
}

fn remove_unused(storage: &dyn Storage, findings: &Findings, damaged: bool) -> io::Result<()> {
    let is_damaged = |name: &str| findings.losses.iter().any(|loss| loss.name == name);
    let unused = findings.unused.iter();
    let mut unused: Vec<_> = unused.filter(|name| is_damaged(name) == damaged).collect();
    // Files that are no segments sort before all that are: in reverse they come last.
    unused.sort_by_key(|name| std::cmp::Reverse(segment::number(name)));
    for name in unused {
        storage.remove(name)?;
        storage.sync_names()?;
    }
    Ok(())
}

/// Only once the segments behind it are gone: else a stop in between would have them follow a segment that
/// ends as if nothing were missing.
fn cut_tail(storage: &dyn Storage, findings: &Findings) -> io::Result<()> {
    let Some(tail) = &findings.tail else {
        return Ok(());
    };
    if findings.unused.contains(&tail.name) {
        return Ok(());
    }
    let file = storage.open(&tail.name)?;
    file.truncate(tail.offset)?;
    file.sync()
}

/// Cuts off the zeros behind the last segment, whose space was set aside and not used any more, and says that
/// it ends there: others will follow.
fn end_last(storage: &dyn Storage, findings: &Findings) -> io::Result<Option<(u64, u64)>> {
    let Some(last) = findings.segments.last() else {
        return Ok(None);
    };
    let name = segment::name(last.number);
    if findings.unused.contains(&name) || findings.losses.iter().any(|loss| loss.name == name) {
        return Ok(None);
    }
    let file = storage.open(&name)?;
    let end = if findings.unended.contains(&last.number) {
        seal(&Format::of(&header_of(&*file)?), last.bytes)
    } else {
        Vec::new()
    };
    let ends = last.bytes + end.len() as u64;
    // A mending that was cut short may have left the length without the bytes.
    if !end.is_empty() || file.size()? != ends {
        file.truncate(last.bytes)?;
        write_all_at(&*file, &end, last.bytes)?;
        file.sync()?;
    }
    Ok(Some((last.number, ends)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::reader::Loss;

    #[test]
    fn what_is_kept_is_what_lies_around_the_losses() {
        let loss = |offset, bytes| Loss::gap(segment::name(1), offset, bytes);
        for (losses, ranges) in [
            (&[][..], std::slice::from_ref(&(96..1_000))),
            (&[loss(96, 4), loss(500, 1)], &[100..500, 501..1_000]),
            (&[loss(200, 36)], &[96..200, 236..1_000]),
            (&[loss(200, 36), loss(236, 10)], &[96..200, 246..1_000]),
            // Nothing whole follows: the segment ends where the damage begins.
            (&[loss(200, 10), loss(1_000, 77)], &[96..200, 210..1_000]),
        ] {
            let findings = Findings {
                losses: losses.to_vec(),
                ..Findings::default()
            };
            let kept = |number| kept(&findings, &segment::name(number), 96..1_000);
            assert_eq!(kept(1), ranges, "{losses:?}");
            assert_eq!(kept(2).len(), 1);
        }
    }
}
