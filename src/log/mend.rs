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

use super::control::seal;
use super::reader::Findings;
use super::segment;
use super::storage::{File, Storage, read_full_at, write_all_at};
use super::writer::{Log, LogConfig, Start};
use crate::time::Millis;

/// Bytes that are copied at a time.
const PIECE_BYTES: u64 = 1 << 20;

/// Mends a directory and begins a new segment behind what there is. Durable when this returns.
///
/// A segment with damage in it becomes shorter than [`Findings::segments`] says, by what was lost in it; see
/// [`bytes_kept`].
pub fn resume(
    storage: &Arc<dyn Storage>,
    findings: &Findings,
    config: LogConfig,
    start: Start,
    now: Millis,
) -> io::Result<Log> {
    end_in_order(&**storage, findings)?;
    let log = Log::start(Arc::clone(storage), config, start, now)?;
    leave_losses_out(&**storage, findings)?;
    Ok(log)
}

/// Removes what was never used, cuts the tail off and says where the last segment ends. Durable when this
/// returns.
pub fn end_in_order(storage: &dyn Storage, findings: &Findings) -> io::Result<()> {
    remove_unused(storage, findings, false)?;
    cut_tail(storage, findings)?;
    end_last(storage, findings)
}

/// Rewrites segments that have damage in them with only their whole frames, and removes those of which nothing
/// can be read. Durable when this returns.
pub fn leave_losses_out(storage: &dyn Storage, findings: &Findings) -> io::Result<()> {
    let mut names: Vec<_> = findings.losses.iter().map(|loss| &loss.name).collect();
    names.dedup();
    names.retain(|name| !findings.unused.contains(name));
    for name in names {
        let temporary = format!("{name}{}", segment::TEMPORARY);
        copy_whole_frames(findings, (storage, name), (storage, &temporary))?;
        storage.rename(&temporary, name)?;
        storage.sync_names()?;
    }
    remove_unused(storage, findings, true)
}

/// Bytes of a segment's file once all that is not whole is left out of it: its header, its frames, and the
/// one that ends it.
pub fn bytes_kept(findings: &Findings, name: &str) -> u64 {
    let ranges = kept(findings, name);
    let frames: u64 = ranges.iter().map(|range| range.end - range.start).sum();
    frames + missing_end(findings, name).len() as u64
}

/// The frame that says that a segment ends, if it does not say so itself.
fn missing_end(findings: &Findings, name: &str) -> Vec<u8> {
    let is_unended = segment::number(name).is_some_and(|number| findings.unended.contains(&number));
    if is_unended { seal() } else { Vec::new() }
}

/// Copies a segment's header and its whole frames, and says where it ends if it does not, to a file that is not there yet; returns how many bytes
/// that are. The copy's bytes are durable when this returns, its name is not.
pub fn copy_whole_frames(
    findings: &Findings,
    (from, name): (&dyn Storage, &str),
    (to, new_name): (&dyn Storage, &str),
) -> io::Result<u64> {
    let source = from.open(name)?;
    let copy = to.create(new_name)?;
    let mut at = 0;
    for range in kept(findings, name) {
        copy_range(&*source, &range, &*copy, at)?;
        at += range.end - range.start;
    }
    let end = missing_end(findings, name);
    write_all_at(&*copy, &end, at)?;
    copy.sync()?;
    Ok(at + end.len() as u64)
}

/// The parts of a segment that were read, its header among them.
fn kept(findings: &Findings, name: &str) -> Vec<Range<u64>> {
    let read = findings
        .segments
        .iter()
        .find(|sealed| segment::name(sealed.number) == name);
    let end = read.map_or(0, |sealed| sealed.bytes);
    let mut kept = Vec::new();
    let mut from = 0;
    for loss in findings.losses.iter().filter(|loss| loss.name == name) {
        if loss.offset.min(end) > from {
            kept.push(from..loss.offset.min(end));
        }
        from = loss.offset + loss.bytes;
    }
    if end > from {
        kept.push(from..end);
    }
    kept
}

fn copy_range(source: &dyn File, range: &Range<u64>, copy: &dyn File, to: u64) -> io::Result<()> {
    let mut buffer = vec![0; PIECE_BYTES.min(range.end - range.start) as usize];
    let mut from = range.start;
    while from < range.end {
        let piece = (range.end - from).min(PIECE_BYTES) as usize;
        if read_full_at(source, &mut buffer[..piece], from)? < piece {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        write_all_at(copy, &buffer[..piece], to + (from - range.start))?;
        from += piece as u64;
    }
    Ok(())
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
fn end_last(storage: &dyn Storage, findings: &Findings) -> io::Result<()> {
    let Some(last) = findings.segments.last() else {
        return Ok(());
    };
    let name = segment::name(last.number);
    if findings.unused.contains(&name) || findings.losses.iter().any(|loss| loss.name == name) {
        return Ok(());
    }
    let file = storage.open(&name)?;
    let end = missing_end(findings, &name);
    let ends = last.bytes + end.len() as u64;
    // A mending that was cut short may have left the length without the bytes.
    if !end.is_empty() || file.size()? != ends {
        file.truncate(last.bytes)?;
        write_all_at(&*file, &end, last.bytes)?;
        file.sync()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::reader::Loss;
    use crate::log::writer::Sealed;
    use crate::time::Millis;

    #[test]
    fn what_is_kept_is_what_lies_around_the_losses() {
        let loss = |offset, bytes| Loss {
            name: segment::name(1),
            offset,
            bytes,
        };
        let findings = |losses: &[Loss]| Findings {
            segments: vec![Sealed {
                number: 1,
                last: Millis(0),
                bytes: 1_000,
            }],
            losses: losses.to_vec(),
            ..Findings::default()
        };
        for (losses, ranges) in [
            (&[][..], std::slice::from_ref(&(0..1_000))),
            (&[loss(64, 36)], &[0..64, 100..1_000]),
            (&[loss(64, 36), loss(100, 10)], &[0..64, 110..1_000]),
            // Nothing whole follows: the segment ends where the damage begins.
            (&[loss(200, 10), loss(1_000, 77)], &[0..200, 210..1_000]),
        ] {
            let findings = findings(losses);
            assert_eq!(kept(&findings, &segment::name(1)), ranges, "{losses:?}");
            let bytes: u64 = ranges.iter().map(|range| range.end - range.start).sum();
            assert_eq!(bytes_kept(&findings, &segment::name(1)), bytes);
        }
        assert!(kept(&findings(&[]), &segment::name(2)).is_empty());
    }
}
