//! From memory to the file, from the file to the disk, and what a failure on the way means.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::maker::Active;
use super::{FAILED, Fsync, GOOD, Log, STALLED, STUCK, Writer};
use crate::limits::{LOG_STUCK_MS, LOG_SYNC_LATE_MS};
use crate::log::control::Control;
use crate::log::storage::{Note, may_pass, sync_whole};
use crate::log::{frame, record, segment};
use crate::time::Millis;

/// How often the log says how far it is durable, at most, in milliseconds.
const MARK_EVERY_MS: u64 = 100;

impl Log {
    /// Writes what was appended, unless a sync beside it has been late for so long that writers wait for
    /// it. Not under [`Fsync::Always`], where who syncs writes: there it is only asked for.
    #[inline]
    pub fn write(&self, now: Millis) {
        if self.maker.config.fsync == Fsync::Always {
            self.want_sync();
            return;
        }
        let began = self.sync_began.load(Ordering::Relaxed);
        if began != 0 && now.since(Millis(began)) > LOG_SYNC_LATE_MS {
            return;
        }
        self.write_all();
    }

    fn write_all(&self) {
        let upto = self.appended();
        if self.written.load(Ordering::Acquire) >= upto || self.has_failed() {
            return;
        }
        let mut writer = self.writer.lock();
        if self.written.load(Ordering::Acquire) < upto {
            self.write_locked(&mut writer);
        }
    }

    pub(super) fn write_locked(&self, writer: &mut Writer) {
        if self.write_pending(writer) {
            // Whoever waited for space may wait on any thread.
            self.tell();
        }
    }

    /// Writes what was appended, as far as there is space; returns whether there was none before.
    fn write_pending(&self, writer: &mut Writer) -> bool {
        let mut was_stuck = false;
        loop {
            if writer.chunk_at == writer.chunk.len() {
                writer.chunk.clear();
                writer.chunk_at = 0;
                let mut pending = self.pending.lock();
                std::mem::swap(&mut pending.frames, &mut writer.chunk);
                pending.open = None;
                writer.chunk_last = std::mem::take(&mut pending.last);
                writer.controls.extend(pending.controls.drain(..));
                if writer.chunk.is_empty() {
                    was_stuck |= self.end_doubts();
                }
            }
            if writer.chunk.is_empty() || self.has_failed() {
                return was_stuck;
            }
            match self.write_some(writer) {
                Ok(()) => was_stuck |= self.change_state(STUCK, GOOD),
                Err(error) if may_pass(&error) => {
                    if self.change_state(GOOD, STUCK) {
                        tracing::warn!(
                            %error,
                            "no space for the log: changes are refused until there is some"
                        );
                    }
                    return was_stuck;
                }
                Err(error) => {
                    self.fail(writer, &[], &format!("cannot write to the log: {error}"));
                    return was_stuck;
                }
            }
        }
    }

    /// Lets nobody wait any longer for what there has been no space to write for so long: whose changes that
    /// concerns is remembered until they are written.
    pub(super) fn leave_open(&self, now: Millis) {
        if self.state.load(Ordering::Acquire) != STUCK {
            self.stuck_since.store(0, Ordering::Relaxed);
            return;
        }
        let since = self.stuck_since.load(Ordering::Relaxed);
        if since == 0 {
            self.stuck_since.store(now.0.max(1), Ordering::Relaxed);
        }
        if since == 0 || now.since(Millis(since)) < LOG_STUCK_MS {
            return;
        }
        // What is being synced now is known soon.
        let Some(_none_is) = self.syncing.try_lock() else {
            return;
        };
        let writer = self.writer.lock();
        let pending = self.pending.lock();
        self.doubt(&writer.unacknowledged);
        self.doubt(&writer.chunk[writer.chunk_at..]);
        self.doubt(&pending.frames);
        // As for a failure: only now, and what is appended behind this is looked at by who appends it.
        let is_stalled = self.change_state(STUCK, STALLED);
        drop((pending, writer));
        if is_stalled {
            tracing::error!(
                "there has been no space for what was changed already: it may last or not, until there is some"
            );
            self.tell();
        }
    }

    /// All that was appended is written, which nobody appends to meanwhile; returns whether that was in doubt.
    fn end_doubts(&self) -> bool {
        if !self.change_state(STALLED, GOOD) {
            return false;
        }
        self.in_doubt.lock().keys.clear();
        tracing::info!("there is space for the log again, and what was changed is written");
        true
    }

    /// Writes as many frames as the active segment takes, or begins the next segment.
    fn write_some(&self, writer: &mut Writer) -> io::Result<()> {
        let left = writer.active.left() as usize;
        let marker = writer.marker();
        let chunk = &writer.chunk[writer.chunk_at..];
        let fits = whole_frames(chunk, left);
        if fits == 0 {
            let bytes = frame::sizes(chunk).next().unwrap_or_default();
            // Empty segments in a row would not end; the next one, where it has room, is set aside already.
            return if writer.active.is_empty() && !self.next_has_room(bytes) {
                self.stretch(&mut writer.active, bytes)
            } else {
                self.rotate(writer)
            };
        }
        // It takes space like any frame, and stays away where all is promised.
        if marker.len() + fits <= left && !marker.is_empty() && self.take_free(marker.len() as i64)
        {
            writer.active.at += self.write_marker(writer, marker)?;
            writer.marker_due = false;
        }
        let chunk = &mut writer.chunk[writer.chunk_at..][..fits];
        writer.active.write(chunk)?;
        if self.maker.config.fsync == Fsync::Always {
            writer.unacknowledged.extend_from_slice(chunk);
        }
        writer.active.at += fits as u64;
        writer.active.last = writer.active.last.max(writer.chunk_last);
        writer.chunk_at += fits;
        let written = self.written.fetch_add(fits as u64, Ordering::Release) + fits as u64;
        writer.hear_upto(written);
        Ok(())
    }

    /// Makes the active segment long enough for a frame that was promised of it and does not fit.
    fn stretch(&self, active: &mut Active, bytes: usize) -> io::Result<()> {
        let before = active.left();
        active.stretch(bytes)?;
        let more = active.left() - before;
        self.free.fetch_add(more as i64, Ordering::Relaxed);
        Ok(())
    }

    fn write_marker(&self, writer: &Writer, mut marker: Vec<u8>) -> io::Result<u64> {
        let written = writer.active.write(&mut marker);
        if written.is_err() {
            self.give_back(marker.len());
        }
        written.map(|()| marker.len() as u64)
    }

    fn change_state(&self, from: u8, to: u8) -> bool {
        let order = Ordering::AcqRel;
        self.state
            .compare_exchange(from, to, order, Ordering::Acquire)
            .is_ok()
    }

    /// Syncs what was written, and under [`Fsync::Always`] writes it first. Returns false if there was
    /// nothing to do or the log has failed.
    pub fn sync(&self, now: Millis) -> bool {
        let _one_at_a_time = self.syncing.lock();
        if self.has_failed() {
            return false;
        }
        self.write_all();
        let (files, is_name_unsynced, upto, position, unacknowledged) = {
            let mut writer = self.writer.lock();
            let upto = self.written.load(Ordering::Acquire);
            // What was written before a write that failed is in doubt already.
            if self.has_failed() || upto == self.synced() && writer.unsynced.is_empty() {
                return false;
            }
            let mut files = std::mem::take(&mut writer.unsynced);
            files.push(Arc::clone(&writer.active.file));
            let is_name_unsynced = std::mem::take(&mut writer.is_name_unsynced);
            let unacknowledged = std::mem::take(&mut writer.unacknowledged);
            let position = writer.active.position();
            (files, is_name_unsynced, upto, position, unacknowledged)
        };
        self.sync_began.store(now.0.max(1), Ordering::Relaxed);
        let mut result = files.iter().try_for_each(|file| sync_whole(&**file));
        if is_name_unsynced {
            result = result.and_then(|()| self.maker.storage.sync_names());
        }
        self.sync_began.store(0, Ordering::Relaxed);
        let is_begun = is_name_unsynced && result.is_ok();
        let mut writer = self.writer.lock();
        match result {
            Ok(()) => {
                writer.synced = position;
                // Under `Always` there may be thousands a second.
                if now.since(writer.marked) >= MARK_EVERY_MS {
                    writer.marker_due = true;
                    writer.marked = now;
                }
                if writer.unacknowledged.is_empty() {
                    // Its memory again, for the next ones.
                    writer.unacknowledged = unacknowledged;
                    writer.unacknowledged.clear();
                }
                self.synced.store(upto, Ordering::Release);
            }
            Err(error) => self.fail(
                &mut writer,
                &unacknowledged,
                &format!("cannot sync the log: {error}"),
            ),
        }
        // Writers may have waited for a late sync.
        if self.maker.config.fsync != Fsync::Always {
            self.write_locked(&mut writer);
        }
        drop(writer);
        self.tell();
        if is_begun && !self.note_begun(position.segment) {
            self.writer.lock().is_name_unsynced = true;
        }
        true
    }

    /// Notes that a segment was begun, which is durable with what it begins with; once for each. Whether that
    /// was done: no change rests on it.
    fn note_begun(&self, number: u64) -> bool {
        let noted = self.maker.storage.note(Note::Begun, number);
        if let Err(error) = &noted {
            tracing::warn!(%error, "cannot note which segment is the newest; it will be tried again");
        }
        noted.is_ok()
    }

    /// Ends the writing. What is on its way is in doubt.
    pub(super) fn fail(&self, writer: &mut Writer, synced_in_vain: &[u8], reason: &str) {
        {
            let mut in_doubt = self.in_doubt.lock();
            if in_doubt.reason.is_empty() {
                reason.clone_into(&mut in_doubt.reason);
                tracing::error!(
                    "{reason}; no changes are taken from here on, restart when it is mended"
                );
            }
        }
        let pending = self.pending.lock();
        self.doubt(synced_in_vain);
        self.doubt(&std::mem::take(&mut writer.unacknowledged));
        self.doubt(&writer.chunk[writer.chunk_at..]);
        self.doubt(&pending.frames);
        // Only now, or who sees the failure might ask for a key whose doubt is not known yet. What is
        // appended behind this is looked at by who appends it.
        self.state.store(FAILED, Ordering::Release);
        drop(pending);
        self.tell();
    }

    pub(super) fn doubt(&self, frames: &[u8]) {
        let mut in_doubt = self.in_doubt.lock();
        let records = frame::payloads(frames).filter(|(space, _)| *space != frame::CONTROL);
        for (_, mut payload) in records {
            while let Some(record) = record::take(&mut payload) {
                let mut key = Vec::new();
                record.key.write_to(&mut key);
                in_doubt.keys.insert(key.into());
            }
        }
    }

    /// Ends the log in order: all is written and durable, and the log says that it was ended.
    pub fn close(&self, now: Millis) -> io::Result<()> {
        let failed = || io::Error::other(self.failure());
        while self.sync(now) {}
        if self.has_failed() {
            return Err(failed());
        }
        let mut writer = self.writer.lock();
        if self.written.load(Ordering::Acquire) < self.appended() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        // Its space may be what the end needs, where the disk is full.
        if let Some(unused) = self.next.lock().prepared.take() {
            let name = segment::temporary_name(unused.number);
            self.maker.storage.remove(&name)?;
        }
        let mut end = writer.marker();
        Control::Closed.push_frame(&mut end);
        let active = &mut writer.active;
        if end.len() as u64 > active.reserved - active.at {
            // Beyond what was set aside: where there is no space, the next start is told of no end.
            active.file.reserve(active.at + end.len() as u64, false)?;
        }
        active.write(&mut end)?;
        active.at += end.len() as u64;
        active.file.truncate(active.at)?;
        sync_whole(&*active.file)?;
        self.maker.storage.sync_names()
    }
}

impl Writer {
    /// Takes note of what is written of namespaces.
    fn hear_upto(&mut self, written: u64) {
        while let Some((_, control)) = self.controls.pop_front_if(|(end, _)| *end <= written) {
            self.spaces.hear(&control, |_| {});
        }
    }

    /// The frame that says how far the log is durable, if that is to be said.
    fn marker(&self) -> Vec<u8> {
        let mut marker = Vec::new();
        if self.marker_due {
            Control::Synced(self.synced).push_frame(&mut marker);
        }
        marker
    }
}

/// Bytes of the whole frames that fit into `left`.
fn whole_frames(chunk: &[u8], left: usize) -> usize {
    if chunk.len() <= left {
        return chunk.len();
    }
    let mut fits = 0;
    for bytes in frame::sizes(chunk) {
        if fits + bytes > left {
            break;
        }
        fits += bytes;
    }
    fits
}
