//! One shard: a table of keys, what became of them, and the only way to change them.
//!
//! Every method that depends on time takes `now`. A key is live while `now <= deadline`:
//! clocks are read in whole milliseconds, rounded down, so a key that was stored within a
//! millisecond still lives its full TTL. What a method changes goes through [`Shard::apply`]
//! and is returned as a [`Change`] with an absolute deadline: applying the same changes to an
//! empty shard gives the same keys, which is what a log's replay needs.
//!
//! Not here: locks, namespaces and their policies, memory bounds (the owner answers through
//! [`Room`] whether the shard may grow).

use std::sync::Arc;

use bytes::Bytes;

use super::aside::{Content, ContentRef, Extra};
use super::expiry::LOOK_SLOTS_MAX;
use super::kept::StoredRecord;
use super::key::{Hashed, Key};
use super::model::{Ask, Change, Counters, Fingerprint, Room, Verdict, WindowMode};
use super::pin::{Ledger, Pins};
use super::record::{Held, Record};
use super::scan::{Scanned, StoredKeyRef};
use super::segment::STEP_SLOTS_MAX;
use super::table::{Found, Glance, Space, Table};
use crate::time::Millis;

/// Keys that one change may evict one by one before it has a segment give bytes back.
const EVICTIONS_MAX: usize = 64;
/// Segments that one change may have give bytes back before it gives up and is refused.
const SHRINKS_MAX: usize = 2;
/// Steps of expiry that one insertion may make before it evicts or is refused.
const RECLAIM_STEPS: usize = 16;
/// Steps of growth that one insertion may make; a small segment may have to double more than once.
const GROWTHS_MAX: usize = 8;

/// Slots that one insertion looks at, at most, beside those of its own key: a sweep of its block, and
/// the steps of growth; only where there is no room, and keys are evicted, it may be more.
pub const INSERT_SLOTS_MAX: u64 = LOOK_SLOTS_MAX + 2 * STEP_SLOTS_MAX as u64;
/// Slots that one step of [`Shard::expire`] looks at, at most.
pub const EXPIRE_STEP_SLOTS_MAX: u64 = STEP_SLOTS_MAX as u64;

/// A live key, as reads see it.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// The last millisecond of its window.
    pub deadline: Millis,
    content: Option<ContentRef<'a>>,
    pins: &'a Pins,
}

impl<'a> Entry<'a> {
    /// The fingerprint it came with.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        match self.content? {
            ContentRef::Marker(extra) => extra.fingerprint,
            ContentRef::Record(record) => record.record().fingerprint,
        }
    }

    /// A marker's value for a reply, which may hold it for long; `None` is `1`.
    pub fn value_to_send(&self) -> Option<Bytes> {
        self.value().map(|value| self.pins.value(value))
    }

    /// A marker's value; `None` is `1`.
    pub fn value(&self) -> Option<&'a Bytes> {
        match self.content? {
            ContentRef::Marker(extra) => extra.value.as_ref(),
            ContentRef::Record(_) => None,
        }
    }

    /// The record, if the key holds one.
    pub fn record(&self) -> Option<Record<'a>> {
        match self.content? {
            ContentRef::Marker(_) => None,
            ContentRef::Record(record) => Some(record.record()),
        }
    }

    /// The body of a record that was settled, for a reply: shared and not copied; else nothing.
    pub fn body(&self) -> Bytes {
        match self.content {
            Some(ContentRef::Record(record)) => record.body(self.pins),
            Some(ContentRef::Marker(_)) | None => Bytes::new(),
        }
    }

    pub(super) fn held(&self) -> Held<'a> {
        match self.record() {
            Some(record) => Held::Record(record, self.deadline),
            None => Held::Marker(self.fingerprint()),
        }
    }
}

/// What a key holds that a log gives back, beside its deadline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restored<'a> {
    /// A marker's fingerprint.
    pub fingerprint: Option<Fingerprint>,
    /// A marker's value; `None` is `1`.
    pub value: Option<&'a [u8]>,
    /// The record, if it holds one.
    pub record: Option<Record<'a>>,
}

/// A part of the key space: keys with deadlines, and what they cost.
#[derive(Debug, Default)]
pub struct Shard {
    pub(super) table: Table,
    pub(super) counters: Counters,
}

impl Shard {
    /// Has what replies hold longer than the shard does counted there.
    pub fn count_in(&mut self, ledger: Arc<dyn Ledger>) {
        self.table.pins.count_in(ledger);
    }

    /// Keys in memory, those whose window has ended but which were not swept yet included.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether no key is in memory.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory held, what an allocator adds estimated.
    pub fn bytes(&self) -> usize {
        self.table.bytes()
    }

    /// What became of this shard's keys so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Slots that growth, expiry and eviction have looked at so far: the work that is done beside
    /// answering, in pieces of a bounded size.
    pub fn work_slots(&self) -> u64 {
        self.table.work_slots
    }

    /// Starts to fetch from memory what a question about this key will look at.
    #[inline]
    pub fn prefetch(&self, key: &Hashed) {
        self.table.prefetch(key.hash);
    }

    /// Asks whether a key is there for the first time in its window, and remembers it.
    #[inline]
    pub fn seen<'k>(
        &mut self,
        key: &Key<'k>,
        ask: &Ask<'k>,
        room: &mut impl Room,
        now: Millis,
    ) -> (Verdict, Option<Change<'k>>) {
        if ask.fingerprint.is_none()
            && ask.value.is_none()
            && let Some(told) = self.seen_at_a_glance(key, ask, room, now)
        {
            return told;
        }
        let found = self.table.find(key);
        if let Some(found) = found.filter(|found| now <= found.deadline) {
            return self.seen_again(&found, key, ask, room, now);
        }
        let deadline = ask.deadline(now);
        let change = Change::Put {
            key: *key,
            deadline,
            fingerprint: ask.fingerprint,
            value: ask.value,
        };
        let content = marker(ask.fingerprint, ask.value);
        // Before anything is evicted for it: what goes then is another key.
        let is_unsure = is_unsure(ask, room, now);
        if !self.put(found, key, deadline, content, room, now) {
            self.counters.refuse(room.refused());
            return (Verdict::Full, None);
        }
        (self.count_new(is_unsure), Some(change))
    }

    /// The usual case: a key without other content, which is there or for which there is a slot.
    #[inline]
    fn seen_at_a_glance<'k>(
        &mut self,
        key: &Key<'k>,
        ask: &Ask<'_>,
        room: &impl Room,
        now: Millis,
    ) -> Option<(Verdict, Option<Change<'k>>)> {
        match self.table.glance(key, now) {
            Glance::Live(deadline) => {
                if ask.mode == WindowMode::Slide && ask.deadline(now) > deadline {
                    return None;
                }
                self.counters.dup += 1;
                Some((Verdict::Dup, None))
            }
            Glance::Vacant(slot) => {
                let deadline = ask.deadline(now);
                if !room.admits(1, 0) || !self.table.insert_plain(key, slot, deadline, now) {
                    return None;
                }
                let change = Change::Put {
                    key: *key,
                    deadline,
                    fingerprint: None,
                    value: None,
                };
                Some((self.count_new(is_unsure(ask, room, now)), Some(change)))
            }
            Glance::Unclear => None,
        }
    }

    fn seen_again<'k>(
        &mut self,
        found: &Found,
        key: &Key<'k>,
        ask: &Ask<'_>,
        room: &impl Room,
        now: Millis,
    ) -> (Verdict, Option<Change<'k>>) {
        let entry = self.entry(found, key);
        if let Some(asked) = ask.fingerprint
            && entry.fingerprint().is_some_and(|held| held != asked)
        {
            self.counters.mismatch += 1;
            return (Verdict::Mismatch, None);
        }
        let slid = ask.deadline(now);
        // A record's window is the business of who works on it.
        let is_fixed = ask.mode == WindowMode::Fixed || entry.record().is_some();
        if is_fixed || slid <= found.deadline {
            self.counters.dup += 1;
            return (Verdict::Dup, None);
        }
        // An end beyond a slot's reach takes memory.
        if !room.admits(0, self.table.end_bytes(key, slid) as isize) {
            self.counters.refuse(room.refused());
            return (Verdict::Full, None);
        }
        self.counters.dup += 1;
        let change = Change::Deadline {
            key: *key,
            deadline: slid,
        };
        self.apply(&change, now);
        (Verdict::Dup, Some(change))
    }

    /// Stores a key with just this value until `deadline`, whether or not it was there; `None` if there is no room.
    pub fn set<'k>(
        &mut self,
        key: &Key<'k>,
        value: Option<&'k [u8]>,
        deadline: Millis,
        room: &mut impl Room,
        now: Millis,
    ) -> Option<Change<'k>> {
        let change = Change::Put {
            key: *key,
            deadline,
            fingerprint: None,
            value,
        };
        let found = self.table.find(key);
        let stored = self.put(found, key, deadline, marker(None, value), room, now);
        if !stored {
            self.counters.refuse(room.refused());
            return None;
        }
        Some(change)
    }

    /// A live key.
    pub fn get(&self, key: &Key<'_>, now: Millis) -> Option<Entry<'_>> {
        let found = self.table.find(key)?;
        (now <= found.deadline).then(|| self.entry(&found, key))
    }

    fn entry(&self, found: &Found, key: &Key<'_>) -> Entry<'_> {
        Entry {
            deadline: found.deadline,
            content: self.table.content(found, key),
            pins: &self.table.pins,
        }
    }

    /// Sets when a live key's window ends; `None` if the key is not there.
    pub fn set_deadline<'k>(
        &mut self,
        key: &Key<'k>,
        deadline: Millis,
        now: Millis,
    ) -> Option<Change<'k>> {
        self.get(key, now)?;
        let change = Change::Deadline {
            key: *key,
            deadline,
        };
        self.apply(&change, now);
        Some(change)
    }

    /// Removes a live key; `None` if it is not there.
    pub fn remove<'k>(&mut self, key: &Key<'k>, now: Millis) -> Option<Change<'k>> {
        self.get(key, now)?;
        let change = Change::Remove { key: *key };
        self.apply(&change, now);
        Some(change)
    }

    /// Stores a key as a log has it, in the place of what is known of it, as far as there is room: false, and
    /// the key is not there, where there is none. `replaced` is told the deadline that it had.
    ///
    /// Quick for keys that are not there and have nothing else to them.
    #[inline]
    pub fn restore<'k>(
        &mut self,
        key: Key<'k>,
        deadline: Millis,
        content: Restored<'k>,
        room: &mut impl Room,
        now: Millis,
        replaced: impl FnOnce(Millis),
    ) -> bool {
        if content == Restored::default()
            && let Glance::Vacant(slot) = self.table.glance(&key, now)
            && room.admits(1, 0)
            && self.table.insert_plain(&key, slot, deadline, now)
        {
            return true;
        }
        let found = self.table.find(&key);
        if let Some(found) = &found {
            replaced(found.deadline);
        }
        let content = match content.record {
            None => marker(content.fingerprint, content.value),
            Some(record) => Content::Record(StoredRecord::new(&key, &record)),
        };
        let is_stored = self.put(found, &key, deadline, content, room, now);
        if !is_stored {
            self.apply(&Change::Remove { key }, now);
        }
        is_stored
    }

    /// Makes a change, without asking whether it should be made.
    pub fn apply(&mut self, change: &Change<'_>, now: Millis) {
        match *change {
            Change::Put {
                ref key,
                deadline,
                fingerprint,
                value,
            } => {
                self.store(key, deadline, marker(fingerprint, value), now);
            }
            Change::Deadline { ref key, deadline } => {
                if let Some(found) = self.table.find(key) {
                    self.table.set_deadline(&found, key, deadline, now);
                }
            }
            Change::Remove { ref key } => {
                if let Some(found) = self.table.find(key) {
                    self.table.remove(&found, key);
                }
            }
        }
    }

    /// Stores a key, whether or not it was there, whatever room it takes.
    pub(super) fn store(&mut self, key: &Key<'_>, deadline: Millis, content: Content, now: Millis) {
        match self.table.find(key) {
            Some(found) => self.table.replace(&found, key, deadline, content, now),
            None => self.insert(key, deadline, content, now),
        }
    }

    /// Gives back the memory of keys whose window has ended, in at most `steps_max` steps, each of
    /// which looks at no more than [`EXPIRE_STEP_SLOTS_MAX`] slots; returns whether more is left to do.
    pub fn expire(&mut self, now: Millis, steps_max: usize) -> bool {
        let mut more = true;
        for _ in 0..steps_max {
            more = self.table.expire_step(now);
            if !more {
                break;
            }
        }
        self.count_lapsed();
        more
    }

    /// Moves some of what does not fit its slots elsewhere on the heap, from the cursor on, at first 0; returns
    /// where to go on, or `None` at the end. Changes nothing that can be asked for.
    ///
    /// Where most of what was stored is gone, what is left lies scattered over pages that are otherwise empty.
    /// An allocator that takes the fullest or the lowest place first has it together again afterwards.
    pub fn move_together(&mut self, cursor: u32) -> Option<u32> {
        self.table.asides.move_some(cursor)
    }

    /// Visits live keys from the cursor on, at first 0, in about `slots_max` slots. A key that stays is
    /// visited once, whatever else comes and goes.
    pub fn scan(
        &self,
        cursor: u32,
        slots_max: u32,
        now: Millis,
        visit: impl FnMut(&StoredKeyRef<'_>),
    ) -> Scanned {
        self.table.scan(cursor, slots_max, now, visit)
    }

    /// Drops a key that is among the soonest to expire; `None` if there is none, else its deadline,
    /// which may have passed.
    pub fn evict_soonest(&mut self, now: Millis) -> Option<Millis> {
        let evicted = self.table.evict_soonest(None, now)?;
        self.count_evicted(evicted, now);
        Some(evicted)
    }

    /// Takes all keys out, for the caller to drop where it hurts nobody; the counters stay.
    #[must_use]
    pub fn clear(&mut self) -> Self {
        let mut empty = Self {
            counters: self.counters,
            ..Self::default()
        };
        empty.table.pins = self.table.pins.anew();
        std::mem::replace(self, empty)
    }

    /// Takes over all that another holds, for one that was [cleared](Self::clear).
    pub fn take_over(&mut self, other: Self) {
        debug_assert!(self.is_empty(), "what is there would be lost");
        self.table = other.table;
    }

    /// Stores a key if there is room; `found` is where it was found, live or not.
    pub(super) fn put(
        &mut self,
        found: Option<Found>,
        key: &Key<'_>,
        deadline: Millis,
        content: Content,
        room: &mut impl Room,
        now: Millis,
    ) -> bool {
        let before = (self.len() as isize, self.bytes() as isize);
        let mut found = found;
        if let Some(lapsed) = found.take_if(|found| found.deadline < now) {
            self.table.give_back(&lapsed, key);
            self.count_lapsed();
        }
        let Some(space) = self.make_room(found, key, (deadline, &content), room, before, now)
        else {
            return false;
        };
        match space {
            // Found again: what was given back or evicted meanwhile may have moved it.
            None => match self.table.find(key) {
                Some(found) => self.table.replace(&found, key, deadline, content, now),
                None => return false,
            },
            Some(space) => self.table.insert(key, space, deadline, content, now),
        }
        true
    }

    /// Stores a key that is not there, whatever room it takes. Nothing that has lapsed is given back
    /// for it: a change that was made before that may still be to come.
    fn insert(&mut self, key: &Key<'_>, deadline: Millis, content: Content, now: Millis) {
        let mut space = self.table.space(key, Millis(0));
        for _ in 0..GROWTHS_MAX {
            if !matches!(space, Space::Grows(_)) {
                break;
            }
            self.table.grow(key, now);
            space = self.table.space(key, Millis(0));
        }
        self.table.insert(key, space, deadline, content, now);
    }

    /// Finds space for a key (none is needed for one that is there), growing, giving back what has
    /// lapsed and evicting as the owner admits; `None` if that leads nowhere. Whether a key is
    /// stored must not depend on who swept when.
    #[allow(clippy::option_option, reason = "none is found; none is needed")]
    fn make_room(
        &mut self,
        found: Option<Found>,
        key: &Key<'_>,
        (deadline, content): (Millis, &Content),
        room: &mut impl Room,
        before: (isize, isize),
        now: Millis,
    ) -> Option<Option<Space>> {
        let (mut growths, mut evictions, mut reclaimed) = (0, 0, false);
        loop {
            let space = match found {
                Some(_) => None,
                None => Some(self.table.space(key, now)),
            };
            self.count_lapsed();
            let mut keys = self.len();
            let mut bytes = self.bytes() + self.table.content_bytes(key, deadline, content);
            keys += usize::from(space.is_some());
            match space {
                Some(Space::Grows(growth)) => bytes += growth,
                Some(Space::Stash) => bytes += Table::stash_bytes(key),
                Some(Space::Vacant(_)) | None => {}
            }
            if room.admits(keys as isize - before.0, bytes as isize - before.1) {
                match space {
                    Some(Space::Grows(_)) if growths < GROWTHS_MAX => {
                        growths += 1;
                        self.table.grow(key, now);
                        continue;
                    }
                    _ => return Some(space),
                }
            }
            if !std::mem::replace(&mut reclaimed, true) {
                self.expire(now, RECLAIM_STEPS);
                room.reclaim_elsewhere(now);
                continue;
            }
            evictions += 1;
            if !self.evict_next(evictions, space, key, room, now) {
                return None;
            }
        }
    }

    /// Evicts what comes next, where this is the so manieth time that one change asks for it, from 1: a key,
    /// or, where enough of those did not do, as many as it takes for a segment to become smaller. False if
    /// that cannot be done, or was done often enough.
    pub(super) fn evict_next(
        &mut self,
        evictions: usize,
        space: Option<Space>,
        key: &Key<'_>,
        room: &mut impl Room,
        now: Millis,
    ) -> bool {
        if !room.evicts() {
            return false;
        }
        match evictions {
            ..=EVICTIONS_MAX => self.evict_for(space, key, evictions, room, now),
            _ if evictions <= EVICTIONS_MAX + SHRINKS_MAX => self.evict_to_shrink(key, room, now),
            _ => false,
        }
    }

    /// Evicts a key where that helps: beside the place where this one would go if the table cannot
    /// grow, else the soonest to end.
    fn evict_for(
        &mut self,
        space: Option<Space>,
        key: &Key<'_>,
        evictions: usize,
        room: &mut impl Room,
        now: Millis,
    ) -> bool {
        let evicted = match space {
            Some(Space::Grows(_)) if evictions == 1 => self.table.evict_beside(key.hash),
            Some(Space::Grows(_) | Space::Stash) => self.table.evict_in_the_way(key.hash),
            Some(Space::Vacant(_)) | None => {
                // A key that is to be replaced is nobody's victim.
                let spared = self.table.find(key).and_then(|found| found.slot());
                self.table.evict_soonest(spared, now)
            }
        };
        // Where its own segment is empty, or all is in the stash, any other key does.
        let evicted = match (evicted, space) {
            (None, Some(Space::Grows(_) | Space::Stash)) => self.table.evict_soonest(None, now),
            _ => evicted,
        };
        let Some(deadline) = evicted else {
            return room.evict_elsewhere(now);
        };
        if self.count_evicted(deadline, now) {
            room.evicted(deadline);
        }
        true
    }

    /// Evicts what it takes for a segment to give bytes back, where evicting keys one by one gave too few;
    /// false if that cannot be done.
    fn evict_to_shrink(&mut self, key: &Key<'_>, room: &mut impl Room, now: Millis) -> bool {
        let spared = self.table.find(key).and_then(|found| found.slot());
        let evicted = self.table.evict_to_shrink(spared);
        let live = evicted
            .iter()
            .filter(|&&deadline| self.count_evicted(deadline, now));
        if let Some(last) = live.max() {
            room.evicted(*last);
        }
        !evicted.is_empty()
    }

    /// Counts a key that was dropped; returns whether it was live.
    fn count_evicted(&mut self, deadline: Millis, now: Millis) -> bool {
        let was_live = now <= deadline;
        if was_live {
            self.counters.evicted += 1;
        } else {
            // It had not been given back yet.
            self.counters.expired += 1;
        }
        was_live
    }

    /// Counts a key that was stored as new.
    #[inline]
    pub(super) fn count_new(&mut self, is_unsure: bool) -> Verdict {
        self.counters.new += 1;
        if is_unsure {
            self.counters.unsure += 1;
            return Verdict::Unsure;
        }
        Verdict::New
    }

    fn count_lapsed(&mut self) {
        self.counters.expired += std::mem::take(&mut self.table.lapsed);
    }
}

/// Whether a key that is not there may have been seen in its window all the same.
#[inline]
fn is_unsure(ask: &Ask<'_>, room: &impl Room, now: Millis) -> bool {
    ask.is_too_old(now) || room.may_have_lost(ask.ttl_ms, now)
}

fn marker(fingerprint: Option<Fingerprint>, value: Option<&[u8]>) -> Content {
    Content::Marker(Extra {
        fingerprint,
        value: value.map(Bytes::copy_from_slice),
    })
}
