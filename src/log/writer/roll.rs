//! Segments in their order: made ahead, begun when one is full, deleted when all in them has lapsed.

use std::io;
use std::sync::atomic::Ordering;

use super::maker::{Prepared, Zeros, opened};
use super::{Fsync, Log, Sealed, Writer};
use crate::limits::LOG_UNSYNCED_FILES_MAX;
use crate::log::control::seal;
use crate::log::segment;
use crate::log::storage::{Note, may_pass, sync_whole, write_all_at};
use crate::time::Millis;

/// The segment after the active one, and its number, or what that will be.
#[derive(Debug, Default)]
pub(super) struct Next {
    pub(super) prepared: Option<Prepared>,
    pub(super) number: u64,
}

impl Log {
    /// Prepares the next segment, tries again what lacked space, and deletes segments whose last deadline
    /// has passed. For a thread that has time.
    pub fn tend(&self, now: Millis) -> io::Result<()> {
        if self.has_failed() {
            return Ok(());
        }
        if let Err(error) = self.make_ahead(now)
            && !may_pass(&error)
        {
            let reason = format!("cannot make a segment of the log: {error}");
            self.fail(&mut self.writer.lock(), &[], &reason);
            return Ok(());
        }
        if self.written.load(Ordering::Acquire) < self.appended() {
            self.write(now);
            self.tell();
        }
        self.leave_open(now);
        self.delete_lapsed(now)
    }

    /// Sees to it that there is a segment after the active one, as large as the disk lets it be.
    fn make_ahead(&self, now: Millis) -> io::Result<()> {
        {
            let mut next = self.next.lock();
            let Some(prepared) = &mut next.prepared else {
                return self.prepare(&mut next, Zeros::Slowly, now);
            };
            self.lengthen(prepared)?;
            let is_short = prepared.reserved < self.maker.config.segment_bytes
                && self.free.load(Ordering::Relaxed) < self.promise_max.load(Ordering::Relaxed);
            self.is_full.store(is_short, Ordering::Relaxed);
            if !is_short {
                return Ok(());
            }
        }
        self.begin_next_for(self.promise_max.load(Ordering::Relaxed))
    }

    /// Makes the segment after the active one, as large as there is space for.
    pub(super) fn prepare(&self, next: &mut Next, zeros: Zeros, now: Millis) -> io::Result<()> {
        let spaces = self.pending.lock().spaces.present.len();
        match self.maker.make(next.number, spaces, zeros, now) {
            Ok(mut prepared) => {
                // What was promised so far may leave more unused than what is promised from here on.
                let before = self.promise_max.swap(prepared.margin, Ordering::Relaxed);
                let larger = (before - prepared.margin).max(0);
                prepared.counted = (prepared.counted - larger).max(0);
                self.free.fetch_add(prepared.counted, Ordering::Relaxed);
                next.number += 1;
                next.prepared = Some(prepared);
                if self.is_full.swap(false, Ordering::Relaxed) {
                    tracing::info!("there is space for the log again");
                }
                Ok(())
            }
            Err(error) => {
                if may_pass(&error) && !self.is_full.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "no space for another segment of the log");
                }
                Err(error)
            }
        }
    }

    /// Makes the segment after the active one as large as it is to be, where there is space for that now.
    fn lengthen(&self, prepared: &mut Prepared) -> io::Result<()> {
        if prepared.reserved >= self.maker.config.segment_bytes {
            return Ok(());
        }
        let spaces = self.pending.lock().spaces.present.len();
        let before = prepared.counted;
        if self.maker.lengthen(prepared, spaces)? {
            self.promise_max.store(prepared.margin, Ordering::Relaxed);
            let more = prepared.counted - before;
            self.free.fetch_add(more, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Begins the next segment if there is one, and not so many bytes are left of the active one: the next
    /// has more than was promised of it.
    pub(super) fn begin_next_for(&self, bytes: i64) -> io::Result<()> {
        let mut writer = self.writer.lock();
        self.write_locked(&mut writer);
        let is_all_written = writer.chunk_at == writer.chunk.len() && !self.has_failed();
        let is_short = (writer.active.left() as i64) < bytes;
        if is_all_written && is_short && self.next.lock().prepared.is_some() {
            let begun = self.rotate(&mut writer);
            if let Err(error) = &begun
                && !may_pass(error)
            {
                let reason = format!("cannot begin a segment of the log: {error}");
                self.fail(&mut writer, &[], &reason);
            }
            return begun;
        }
        Ok(())
    }

    /// Whether there is a next segment, with room for a frame of so many bytes.
    pub(super) fn next_has_room(&self, bytes: usize) -> bool {
        let spaces = self.pending.lock().spaces.present.len();
        let next = self.next.lock();
        let prepared = next.prepared.as_ref();
        prepared.is_some_and(|prepared| prepared.left(spaces) >= bytes as u64)
    }

    /// Seals the active segment and begins the next.
    pub(super) fn rotate(&self, writer: &mut Writer) -> io::Result<()> {
        self.bound_unsynced(writer)?;
        let prepared = {
            let mut next = self.next.lock();
            if next.prepared.is_none() {
                self.prepare(&mut next, Zeros::Never, Millis(0))?;
            }
            next.prepared
                .take()
                .expect("there is one, or it was just prepared")
        };
        let old = &writer.active;
        let end = seal(&old.format, old.at);
        if let Err(error) = write_all_at(&*old.file, &end, old.at) {
            self.next.lock().prepared = Some(prepared);
            return Err(error);
        }
        let ends = old.at + end.len() as u64;
        writer.sealed.push(Sealed {
            number: old.number,
            last: old.last,
            bytes: ends,
        });
        let lost = old.left() as i64 + prepared.counted;
        let said = (&writer.spaces, &writer.tokens);
        let (config, synced) = (&self.maker.config, writer.synced);
        let opened = opened(config, said, &writer.sealed, synced, Millis(0));
        let active = match self.maker.begin(&prepared, &opened) {
            Ok(active) => active,
            Err(error) => {
                // Nothing has happened yet. Where there was no space, it is tried again.
                self.next.lock().prepared = Some(prepared);
                writer.sealed.pop();
                return Err(error);
            }
        };
        let old = std::mem::replace(&mut writer.active, active);
        writer.is_name_unsynced = true;
        // Only gives space back; a segment with zeros at its end is as good.
        let _or_zeros_stay = old.file.truncate(ends);
        writer.unsynced.push(old.file);
        let gained = writer.active.left() as i64;
        self.free.fetch_add(gained - lost, Ordering::Relaxed);
        Ok(())
    }

    /// Sees to it that segments that are complete and not synced, whose files are open, do not become many.
    fn bound_unsynced(&self, writer: &mut Writer) -> io::Result<()> {
        if writer.unsynced.len() >= LOG_UNSYNCED_FILES_MAX / 4 {
            self.want_sync();
        }
        if writer.unsynced.len() >= LOG_UNSYNCED_FILES_MAX {
            if let Err(error) = sync_whole(&*writer.unsynced[0]) {
                self.fail(writer, &[], &format!("cannot sync the log: {error}"));
                return Err(error);
            }
            writer.unsynced.remove(0);
        }
        Ok(())
    }

    /// A segment goes only once a later one is durable, which repeats what it says of namespaces.
    fn delete_lapsed(&self, now: Millis) -> io::Result<()> {
        let is_due = |writer: &Writer| {
            let mut sealed = writer.sealed.iter();
            sealed.any(|sealed| sealed.last < now && sealed.number >= writer.synced.segment)
        };
        // Where nobody syncs, this does: at most once in a segment.
        if self.fsync() == Fsync::Never && is_due(&self.writer.lock()) {
            self.sync(now);
        }
        let lapsed: Vec<_> = {
            let mut writer = self.writer.lock();
            let synced = writer.synced.segment;
            let (lapsed, kept) = writer
                .sealed
                .iter()
                .partition(|sealed| sealed.last < now && sealed.number < synced);
            writer.sealed = kept;
            lapsed
        };
        if lapsed.is_empty() {
            return Ok(());
        }
        // First: a start whose clock is behind this one must not miss them.
        let mut result = self.maker.storage.note(Note::DeletedUntil, now.0);
        for sealed in lapsed {
            if result.is_ok() {
                match self.maker.storage.remove(&segment::name(sealed.number)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => result = Err(error),
                    // Somebody else removed it, or this does.
                    _ => continue,
                }
            }
            // It is still there, and tried again.
            let kept = &mut self.writer.lock().sealed;
            let place = kept.partition_point(|other| other.number < sealed.number);
            kept.insert(place, sealed);
        }
        result
    }

    /// Does something while nobody makes a segment or a longer one, who would take what it gives back.
    pub(in crate::log) fn while_no_segment_is_made(&self, act: impl FnOnce()) {
        let _nobody_else_makes_one = self.next.lock();
        act();
    }

    /// Complete segments, in order.
    pub fn sealed(&self) -> Vec<Sealed> {
        self.writer.lock().sealed.clone()
    }

    /// Says how long a sealed segment is without its damage.
    pub(in crate::log) fn became(&self, number: u64, bytes: u64) {
        let mut writer = self.writer.lock();
        let mut sealed = writer.sealed.iter_mut();
        if let Some(sealed) = sealed.find(|sealed| sealed.number == number) {
            sealed.bytes = bytes;
        }
    }

    /// Says what a sealed segment has become by compaction.
    pub(in crate::log) fn reseal(&self, compacted: Sealed) {
        let mut writer = self.writer.lock();
        let found = writer
            .sealed
            .iter_mut()
            .find(|sealed| sealed.number == compacted.number);
        if let Some(sealed) = found {
            *sealed = compacted;
        }
    }
}
