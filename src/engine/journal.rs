//! What is changed in a shard, on its way to the log.
//!
//! All changes go through [`Writing`], which makes them and puts them into a frame; the frame is
//! appended while the shard is still locked. Space in the log is [promised](Promise) before: where there
//! is none, a change is refused, as where there is no memory. An engine without a log pays a branch.
//! What [stays](Staying) of a namespace that is emptied goes into the log once more, under another number.

use std::cell::Cell;
use std::ops::Deref;

use super::namespace::{Kept, Namespace, NamespaceRoom};
use crate::log::frame;
use crate::log::record::{self, Content};
use crate::log::writer::{Health, Log};
use crate::store::{Ask, Change, Entry, Key, Shard, Verdict, WindowMode};
use crate::time::Millis;

thread_local! {
    /// The memory of the last frame.
    static FRAME: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Bytes of the largest frame that one key's changes make: it may have to be removed and stored again, with
/// a value or a body of so many bytes.
pub const fn largest_frame(value_bytes: usize, key_bytes: usize) -> usize {
    frame::HEADER_BYTES + changes_bytes_max(value_bytes, key_bytes)
}

/// The same without the frame's header.
pub(super) const fn changes_bytes_max(value_bytes: usize, key_bytes: usize) -> usize {
    record::record_bytes_max(key_bytes, value_bytes) + record::bytes_max(key_bytes, 0)
}

/// Space in the log, promised for changes to come; what is left of it goes back.
#[derive(Debug)]
pub(super) struct Promise<'e> {
    log: Option<&'e Log>,
    bytes: usize,
    is_refused: bool,
}

/// A change was refused: there is no space for it in the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refused;

impl<'e> Promise<'e> {
    /// Space for frames of so many bytes, if there is a log.
    #[inline]
    pub(super) fn of(log: Option<&'e Log>, bytes: usize) -> Self {
        let is_given = log.is_some_and(|log| log.promise(bytes));
        Self {
            log,
            bytes: if is_given { bytes } else { 0 },
            // What is too much at once may still be had piece by piece.
            is_refused: !is_given && log.is_some_and(|log| log.health() != Health::Good),
        }
    }

    /// Space for what one marker's changes take.
    #[inline]
    pub(super) fn for_key(log: Option<&'e Log>, key: &[u8], value: Option<&[u8]>) -> Self {
        let value_bytes = value.map_or(0, <[u8]>::len);
        let bytes = frame::HEADER_BYTES
            + record::bytes_max(key.len(), value_bytes)
            + record::bytes_max(key.len(), 0);
        Self::of(log, bytes)
    }

    /// Space for what one idempotency record's changes take.
    pub(super) fn for_record(log: Option<&'e Log>, key: &[u8], body: &[u8]) -> Self {
        Self::of(log, largest_frame(body.len(), key.len()))
    }

    /// Space for one frame with the changes of so many bytes each; `Err` if there is none for all of them together.
    pub(super) fn of_one_frame(
        log: Option<&'e Log>,
        changes: impl Iterator<Item = usize>,
    ) -> Result<Self, Refused> {
        let Some(log) = log else {
            return Ok(Self::of(None, 0));
        };
        let bytes = frame::HEADER_BYTES + changes.sum::<usize>();
        let promise = Self::of(Some(log), bytes);
        let is_given = promise.bytes == bytes && bytes <= log.frame_bytes_max();
        is_given.then_some(promise).ok_or(Refused)
    }

    /// Space for frames in a row, each of which may be had by itself; `None` if there is not enough for all.
    fn of_frames(log: &'e Log, frames: &[u8]) -> Option<Self> {
        let mut promise = Self {
            log: Some(log),
            bytes: 0,
            is_refused: false,
        };
        for bytes in frame::sizes(frames) {
            if !log.promise(bytes) {
                return None;
            }
            promise.bytes += bytes;
        }
        Some(promise)
    }

    /// Takes some of it; more is asked for if there is not enough.
    #[inline]
    fn draw(&mut self, bytes: usize) -> bool {
        if let Some(missing) = bytes.checked_sub(self.bytes).filter(|&missing| missing > 0) {
            if self.is_refused || !self.log.is_some_and(|log| log.promise(missing)) {
                return false;
            }
            self.bytes += missing;
        }
        self.bytes -= bytes;
        true
    }
}

impl Drop for Promise<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(log) = self.log
            && self.bytes > 0
        {
            log.give_back(self.bytes);
        }
    }
}

/// Records that stay when all else of a namespace goes, on their way to the log under the number that it is
/// to have.
#[derive(Debug)]
pub(super) struct Staying<'e> {
    log: &'e Log,
    frames: Vec<u8>,
    /// Where the last frame begins; its header is not written yet.
    begins: usize,
    frame_bytes_max: usize,
    /// The last deadline in them.
    last: Millis,
}

impl<'e> Staying<'e> {
    pub(super) fn new(log: &'e Log) -> Self {
        Self {
            log,
            frames: Vec::new(),
            begins: 0,
            frame_bytes_max: log.frame_bytes_max(),
            last: Millis(0),
        }
    }

    /// One more of them.
    pub(super) fn push(&mut self, key: &Key<'_>, entry: &Entry<'_>) {
        let content = Content {
            record: entry.record(),
            ..Content::default()
        };
        self.push_with(entry.deadline, |frame| {
            record::push_put(frame, key, entry.deadline, &content);
        });
    }

    /// One that stays no longer, or not as long as was said with this deadline.
    pub(super) fn push_removal(&mut self, key: &Key<'_>, until: Millis) {
        self.push_with(until, |frame| record::push_removal(frame, key, until));
    }

    fn push_with(&mut self, last: Millis, push: impl FnOnce(&mut Vec<u8>)) {
        if self.frames.is_empty() {
            self.begins = frame::begin(&mut self.frames);
        }
        let at = self.frames.len();
        push(&mut self.frames);
        let is_first = at == self.begins + frame::HEADER_BYTES;
        if !is_first && self.frames.len() - self.begins > self.frame_bytes_max {
            // It is the first of the next frame, where it may be larger than the others.
            let record = self.frames.split_off(at);
            self.finish_frame();
            self.begins = frame::begin(&mut self.frames);
            self.frames.extend_from_slice(&record);
        }
        self.last = self.last.max(last);
    }

    fn finish_frame(&mut self) {
        frame::finish(&mut self.frames, self.begins, frame::CONTROL);
    }

    /// Appends them under this number, if there is space for them, and it is still kept for them.
    pub(super) fn append(mut self, number: u32) -> Result<(), Kept> {
        if self.frames.is_empty() {
            return Ok(());
        }
        self.finish_frame();
        let Some(mut promise) = Promise::of_frames(self.log, &self.frames) else {
            return Err(Kept::NoSpace);
        };
        let (frames, last) = (&mut self.frames, self.last);
        if !self.log.append_staying(number, frames, last) {
            return Err(Kept::Lost);
        }
        promise.bytes = 0;
        Ok(())
    }
}

/// Changes on their way to the log, which are to be there together or not at all.
#[derive(Debug, Default)]
pub(super) struct OpenFrame {
    bytes: Vec<u8>,
    /// The last deadline in it.
    last: Millis,
}

impl OpenFrame {
    /// Drops the changes, which were undone, and gives back what was drawn for them.
    pub(super) fn discard(self, promise: &mut Promise<'_>) {
        promise.bytes += self.bytes.len();
    }
}

/// A locked shard that is being changed. It can be read as it is; the ways to change it are here.
#[derive(Debug)]
pub(super) struct Writing<'a, 'e> {
    shard: &'a mut Shard,
    promise: &'a mut Promise<'e>,
    namespace: &'a Namespace,
    frame: Vec<u8>,
    /// The last deadline in it.
    last: Millis,
}

impl Deref for Writing<'_, '_> {
    type Target = Shard;

    fn deref(&self) -> &Shard {
        self.shard
    }
}

impl<'a, 'e> Writing<'a, 'e> {
    pub(super) fn new(
        shard: &'a mut Shard,
        promise: &'a mut Promise<'e>,
        namespace: &'a Namespace,
    ) -> Self {
        Self::going_on(shard, promise, namespace, OpenFrame::default())
    }

    /// The same, whose changes go into a frame that has those of other shards.
    pub(super) fn going_on(
        shard: &'a mut Shard,
        promise: &'a mut Promise<'e>,
        namespace: &'a Namespace,
        open: OpenFrame,
    ) -> Self {
        Self {
            shard,
            promise,
            namespace,
            frame: open.bytes,
            last: open.last,
        }
    }

    /// Leaves the frame to the next shard.
    pub(super) fn into_frame(self) -> OpenFrame {
        OpenFrame {
            bytes: self.frame,
            last: self.last,
        }
    }

    /// As [`Shard::seen`].
    #[inline]
    pub(super) fn seen(
        &mut self,
        key: &Key<'_>,
        ask: &Ask<'_>,
        room: &mut NamespaceRoom<'_>,
        now: Millis,
    ) -> Verdict {
        if self.promise.log.is_none() {
            return self.shard.seen(key, ask, room, now).0;
        }
        let mut value_bytes = ask.value.map_or(0, <[u8]>::len);
        if ask.mode == WindowMode::Slide {
            // A window that is extended is logged with all that the key holds.
            value_bytes = value_bytes.max(self.stored_bytes(key, now));
        }
        let most = record::bytes_max(key.bytes().len(), value_bytes);
        let is_drawn = self.draw(most);
        room.refuse_unless(is_drawn);
        let (verdict, change) = self.shard.seen(key, ask, room, now);
        match change {
            _ if !is_drawn => {}
            Some(Change::Put { deadline, .. }) => {
                let content = Content {
                    fingerprint: ask.fingerprint,
                    value: ask.value,
                    record: None,
                };
                self.put(key, deadline, &content, most);
            }
            Some(Change::Deadline { deadline, .. }) => {
                self.promise.bytes += most;
                self.put_again(key, deadline, now);
            }
            Some(Change::Remove { .. }) | None => self.promise.bytes += most,
        }
        let is_known = || self.shard.get(key, now).is_some();
        if !is_drawn && verdict == Verdict::Full && self.will_not_be_drawn(most) && is_known() {
            // It is a duplicate also where its window cannot be extended any more.
            return Verdict::Dup;
        }
        verdict
    }

    /// As [`Shard::set`]; false if there is no room.
    pub(super) fn set(
        &mut self,
        key: &Key<'_>,
        value: Option<&[u8]>,
        deadline: Millis,
        room: &mut NamespaceRoom<'_>,
        now: Millis,
    ) -> bool {
        let most = record::bytes_max(key.bytes().len(), value.map_or(0, <[u8]>::len));
        let removal = record::bytes_max(key.bytes().len(), 0);
        let is_drawn = self.draw(most + removal);
        room.refuse_unless(is_drawn);
        let before = self.latest_logged(key, now);
        let is_set = self.shard.set(key, value, deadline, room, now).is_some();
        self.namespace.follow(self.shard, key, now);
        if !is_drawn {
            return is_set;
        }
        if is_set {
            self.shorten(key, before, deadline, removal);
            let content = Content {
                value,
                ..Content::default()
            };
            self.put(key, deadline, &content, most);
        } else {
            self.promise.bytes += most + removal;
        }
        is_set
    }

    /// As [`Shard::set_deadline`]; whether the key was there.
    pub(super) fn set_deadline(
        &mut self,
        key: &Key<'_>,
        deadline: Millis,
        now: Millis,
    ) -> Result<bool, Refused> {
        if self.shard.get(key, now).is_none() {
            return Ok(false);
        }
        let before = self.latest_logged(key, now);
        let most = record::record_bytes_max(key.bytes().len(), self.stored_bytes(key, now));
        let removal = record::bytes_max(key.bytes().len(), 0);
        if !self.draw(most + removal) {
            return Err(Refused);
        }
        self.shard.set_deadline(key, deadline, now);
        self.namespace.follow(self.shard, key, now);
        if self.promise.log.is_some() {
            self.shorten(key, before, deadline, removal);
            self.promise.bytes += most;
            self.put_again(key, deadline, now);
        }
        Ok(true)
    }

    /// As [`Shard::remove`]; whether the key was there.
    pub(super) fn remove(&mut self, key: &Key<'_>, now: Millis) -> Result<bool, Refused> {
        // One that was evicted is not there either, but would be again after a restart.
        let Some(until) = self.latest_logged(key, now) else {
            return Ok(false);
        };
        let most = record::bytes_max(key.bytes().len(), 0);
        if !self.draw(most) {
            return Err(Refused);
        }
        let was_there = self.shard.remove(key, now).is_some();
        self.namespace.follow(self.shard, key, now);
        if self.promise.log.is_some() {
            self.removal(key, until, most);
        }
        Ok(was_there)
    }

    /// Changes the idempotency record that a key holds, or is to hold, as `change` does, which answers whether
    /// it did; its room is none if the log takes no change. `body_bytes` is what may come to it.
    pub(super) fn change_record<R>(
        &mut self,
        key: &Key<'_>,
        body_bytes: usize,
        room: &mut NamespaceRoom<'_>,
        now: Millis,
        change: impl FnOnce(&mut Shard, &mut NamespaceRoom<'_>) -> (R, bool),
    ) -> R {
        if self.promise.log.is_none() {
            let result = change(self.shard, room).0;
            self.namespace.follow(self.shard, key, now);
            return result;
        }
        let most = record::record_bytes_max(key.bytes().len(), body_bytes);
        let removal = record::bytes_max(key.bytes().len(), 0);
        let is_drawn = self.draw(most + removal);
        room.refuse_unless(is_drawn);
        let before = self.latest_logged(key, now);
        let (result, is_changed) = change(self.shard, room);
        self.namespace.follow(self.shard, key, now);
        if !is_drawn {
            return result;
        }
        let deadline = self.shard.get(key, now).map(|entry| entry.deadline);
        match deadline.filter(|_| is_changed) {
            Some(deadline) => {
                self.shorten(key, before, deadline, removal);
                self.promise.bytes += most;
                self.put_again(key, deadline, now);
            }
            None => self.promise.bytes += most + removal,
        }
        result
    }

    /// The latest deadline that the log may have for a key: what it has in memory, or what it had when it was
    /// evicted, of which it is not known whether or when it was.
    fn latest_logged(&self, key: &Key<'_>, now: Millis) -> Option<Millis> {
        let stored = self.shard.get(key, now).map(|entry| entry.deadline);
        stored.max(self.namespace.evicted_until(now))
    }

    /// Bytes of the value or the body that is stored with a key.
    fn stored_bytes(&self, key: &Key<'_>, now: Millis) -> usize {
        let Some(entry) = self.shard.get(key, now) else {
            return 0;
        };
        let outcome = entry.record().and_then(|record| record.outcome());
        let value = entry.value().map_or(0, bytes::Bytes::len);
        outcome.map_or(value, |outcome| outcome.body.len())
    }

    /// Makes sure of space for so many bytes of records, in one frame; true where there is no log.
    #[inline]
    fn draw(&mut self, bytes: usize) -> bool {
        let Some(log) = self.promise.log else {
            return true;
        };
        let most = log.frame_bytes_max();
        if !self.frame.is_empty() && self.frame.len() + bytes > most {
            self.append();
        }
        if self.frame.is_empty() {
            if frame::HEADER_BYTES + bytes > most || !self.promise.draw(frame::HEADER_BYTES) {
                return false;
            }
            if self.frame.capacity() == 0 {
                self.frame = FRAME.take();
            }
            frame::begin(&mut self.frame);
        }
        self.promise.draw(bytes)
    }

    /// Whether there is no use in trying again what could not be drawn, before the next start at least.
    fn will_not_be_drawn(&self, bytes: usize) -> bool {
        let is_given_up = |log: &Log| {
            log.health() == Health::Failed || log.is_too_large(frame::HEADER_BYTES + bytes)
        };
        self.promise.log.is_some_and(is_given_up)
    }

    /// Logs that a key is there; so much was drawn for it.
    #[inline]
    fn put(&mut self, key: &Key<'_>, deadline: Millis, content: &Content<'_>, drawn: usize) {
        let before = self.frame.len();
        record::push_put(&mut self.frame, key, deadline, content);
        self.promise.bytes += drawn - (self.frame.len() - before);
        self.last = self.last.max(deadline);
    }

    /// Logs a key that has another deadline now, with all it holds.
    fn put_again(&mut self, key: &Key<'_>, deadline: Millis, now: Millis) {
        let Some(entry) = self.shard.get(key, now) else {
            return;
        };
        let record = entry.record();
        let content = Content {
            fingerprint: entry.fingerprint().filter(|_| record.is_none()),
            value: entry.value().map(|value| &value[..]),
            record,
        };
        let before = self.frame.len();
        record::push_put(&mut self.frame, key, deadline, &content);
        let bytes = self.frame.len() - before;
        let is_drawn = self.promise.draw(bytes);
        debug_assert!(is_drawn, "what was drawn for the change was just put back");
        self.last = self.last.max(deadline);
    }

    /// Logs that a key is gone before it is stored again with an earlier deadline, so that the earlier
    /// record does not matter when this one no longer does.
    fn shorten(&mut self, key: &Key<'_>, before: Option<Millis>, deadline: Millis, drawn: usize) {
        match before.filter(|before| *before > deadline) {
            Some(before) => self.removal(key, before, drawn),
            None => self.promise.bytes += drawn,
        }
    }

    fn removal(&mut self, key: &Key<'_>, until: Millis, drawn: usize) {
        let before = self.frame.len();
        record::push_removal(&mut self.frame, key, until);
        self.promise.bytes += drawn - (self.frame.len() - before);
        self.last = self.last.max(until);
    }

    /// Appends what is left to be. The shard is still locked.
    #[inline]
    pub(super) fn finish(mut self) {
        if self.frame.capacity() == 0 {
            return;
        }
        if !self.frame.is_empty() {
            self.append();
        }
        FRAME.set(self.frame);
    }

    /// Appends the frame, if there is something in it.
    fn append(&mut self) {
        if self.frame.len() > frame::HEADER_BYTES {
            frame::finish(&mut self.frame, 0, self.namespace.logged_as());
            if let Some(log) = self.promise.log {
                log.append(&self.frame, self.last);
            }
        } else {
            self.promise.bytes += frame::HEADER_BYTES;
        }
        self.frame.clear();
        self.last = Millis(0);
    }
}
