//! One shard: entries, their index and the wheel, and the only way to change them.
//!
//! Every method that depends on time takes `now`. A key is live while `now <= deadline`:
//! clocks are read in whole milliseconds, rounded down, so a key that was stored within a
//! millisecond still lives its full TTL. What a method changes goes through [`Shard::apply`]
//! and is returned as a [`Change`] with an absolute deadline: applying the same changes to an
//! empty shard gives the same keys, which is what a log's replay needs.
//!
//! Not here: locks, namespaces and their policies, memory bounds (the owner answers through
//! [`Room`] whether the shard may grow).

use bytes::Bytes;

use super::key::{Key, StoredKey};
use super::model::{Ask, Change, Counters, Fingerprint, Room, Verdict, WindowMode};
use super::table::{Extra, Node, Table};
use super::wheel::{Step, Wheel, due_tick};
use crate::time::Millis;

/// Entries that one insertion may evict before it gives up and is refused.
const EVICTIONS_MAX: usize = 64;
/// Steps of the wheel that one insertion may make before it evicts or is refused.
const RECLAIM_STEPS: usize = 128;
/// Entries that one eviction may put where they belong before it takes the next.
const VICTIM_MOVES_MAX: usize = 64;
/// Entries that one shard can hold: the wheel keeps one bit of an entry's number for itself.
const ENTRIES_MAX: usize = 1 << 31;

/// A live key, as reads see it.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// The last millisecond of its window.
    pub deadline: Millis,
    extra: Option<&'a Extra>,
}

impl Entry<'_> {
    /// The fingerprint it came with.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.extra.and_then(|extra| extra.fingerprint)
    }

    /// Its value; `None` is `1`.
    pub fn value(&self) -> Option<&Bytes> {
        self.extra.and_then(|extra| extra.value.as_ref())
    }
}

/// A part of the key space: keys with deadlines, and what they cost.
#[derive(Debug, Default)]
pub struct Shard {
    table: Table,
    wheel: Wheel,
    counters: Counters,
}

impl Shard {
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
        self.table.bytes() + self.wheel.bytes()
    }

    /// What became of this shard's keys so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Asks whether a key is there for the first time in its window, and remembers it.
    pub fn seen<'k>(
        &mut self,
        key: &Key<'k>,
        ask: &Ask<'k>,
        room: &mut impl Room,
        now: Millis,
    ) -> (Verdict, Option<Change<'k>>) {
        let found = self.table.find(key);
        if let Some(node) = found
            .map(|at| self.table.node(at))
            .filter(|node| now <= node.deadline)
        {
            return self.seen_again(&(node.deadline, fingerprint(node)), key, ask, now);
        }
        let deadline = ask.deadline(now);
        let change = Change::Put {
            key: *key,
            deadline,
            fingerprint: ask.fingerprint,
            value: ask.value,
        };
        if !self.put(found, &change, room, now) {
            self.counters.full += 1;
            return (Verdict::Full, None);
        }
        self.counters.new += 1;
        self.counters.unsure += u64::from(ask.is_too_old(now));
        (Verdict::New, Some(change))
    }

    fn seen_again<'k>(
        &mut self,
        held: &(Millis, Option<Fingerprint>),
        key: &Key<'k>,
        ask: &Ask<'_>,
        now: Millis,
    ) -> (Verdict, Option<Change<'k>>) {
        let &(deadline, fingerprint) = held;
        if fingerprint
            .zip(ask.fingerprint)
            .is_some_and(|(held, asked)| held != asked)
        {
            self.counters.mismatch += 1;
            return (Verdict::Mismatch, None);
        }
        self.counters.dup += 1;
        let slid = ask.deadline(now);
        if ask.mode == WindowMode::Fixed || slid <= deadline {
            return (Verdict::Dup, None);
        }
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
        let stored = self.put(found, &change, room, now);
        self.counters.full += u64::from(!stored);
        stored.then_some(change)
    }

    /// A live key.
    pub fn get(&self, key: &Key<'_>, now: Millis) -> Option<Entry<'_>> {
        let node = self.table.node(self.table.find(key)?);
        (now <= node.deadline).then(|| Entry {
            deadline: node.deadline,
            extra: node.extra(),
        })
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

    /// Makes a change, without asking whether it should be made.
    pub fn apply(&mut self, change: &Change<'_>, now: Millis) {
        self.wheel.catch_up(now);
        match *change {
            Change::Put {
                ref key,
                deadline,
                fingerprint,
                value,
            } => {
                let extra = Extra {
                    fingerprint,
                    value: value.map(Bytes::copy_from_slice),
                };
                if let Some(at) = self.table.find(key) {
                    self.table.set_extra(at, extra);
                    self.begin_window(at, deadline, now);
                } else {
                    let at = self.table.insert(key, deadline, extra);
                    self.wheel.schedule(at, due_tick(deadline));
                }
            }
            Change::Deadline { ref key, deadline } => {
                if let Some(at) = self.table.find(key) {
                    self.move_deadline(at, deadline);
                }
            }
            Change::Remove { ref key } => {
                if let Some(at) = self.table.find(key) {
                    self.drop_entry(at);
                }
            }
        }
    }

    /// Gives back the memory of keys whose window has ended, in at most `steps_max` steps of
    /// one entry each; returns whether more is left to do.
    pub fn expire(&mut self, now: Millis, steps_max: usize) -> bool {
        for _ in 0..steps_max {
            match self
                .wheel
                .step(now, |at| due_tick(self.table.node(at).deadline))
            {
                Step::Done => return false,
                Step::Moved => {}
                Step::Due(at) => self.lapse(at, now),
            }
        }
        true
    }

    /// Visits live keys from place `cursor` on, at most `places_max` places; returns where to
    /// go on, or `None` at the end. A key that stays is visited once, whatever else comes and goes.
    pub fn scan(
        &self,
        cursor: u32,
        places_max: u32,
        now: Millis,
        mut visit: impl FnMut(&StoredKeyRef<'_>),
    ) -> Option<u32> {
        let end = (self.table.places() as u32).min(cursor.saturating_add(places_max));
        for at in cursor..end {
            let node = self.table.node(at);
            if !node.is_vacant() && now <= node.deadline {
                visit(&StoredKeyRef(node.key()));
            }
        }
        ((end as usize) < self.table.places()).then_some(end)
    }

    /// Drops a key that is among the soonest to expire; false if there is none.
    pub fn evict_soonest(&mut self, now: Millis) -> bool {
        let due = |at| due_tick(self.table.node(at).deadline);
        let victim = self.wheel.soonest(VICTIM_MOVES_MAX, due);
        if let Some(at) = victim {
            self.evict(at, now);
        }
        victim.is_some()
    }

    /// Takes all keys out, for the caller to drop where it hurts nobody; the counters stay.
    #[must_use]
    pub fn clear(&mut self) -> Self {
        let counters = self.counters;
        std::mem::replace(
            self,
            Self {
                counters,
                ..Self::default()
            },
        )
    }

    /// Stores what `change` (a `Put`) says if there is room; `found` is the key's entry, live or not.
    fn put(
        &mut self,
        found: Option<u32>,
        change: &Change<'_>,
        room: &mut impl Room,
        now: Millis,
    ) -> bool {
        let lapsed = found.filter(|&at| self.table.node(at).deadline < now);
        let before = (self.len() as isize, self.bytes() as isize);
        if self.is_admitted(found.is_none(), change, room, before) {
            self.counters.expired += u64::from(lapsed.is_some());
        } else {
            if let Some(at) = lapsed {
                self.counters.expired += 1;
                self.drop_entry(at);
            }
            if !self.make_room(change, room, before, now) {
                return false;
            }
        }
        self.apply(change, now);
        true
    }

    /// Gives back what has lapsed, then evicts, until the owner admits what `change` adds, or
    /// until that leads nowhere: whether a key is stored must not depend on who swept when.
    fn make_room(
        &mut self,
        change: &Change<'_>,
        room: &mut impl Room,
        before: (isize, isize),
        now: Millis,
    ) -> bool {
        let Change::Put { key, .. } = change else {
            return true;
        };
        self.expire(now, RECLAIM_STEPS);
        room.reclaim_elsewhere(now);
        // An entry that is to be replaced is nobody's victim: it is kept out of the wheel meanwhile.
        let found = self.table.find(key);
        if let Some(at) = found {
            self.wheel.cancel(at);
        }
        let mut evictions = 0;
        let admitted = loop {
            if self.is_admitted(found.is_none(), change, room, before) {
                break true;
            }
            if !room.evicts() || evictions == EVICTIONS_MAX {
                break false;
            }
            if !self.evict_soonest(now) && !room.evict_elsewhere(now) {
                break false;
            }
            evictions += 1;
        };
        if let Some(at) = found {
            self.wheel
                .schedule(at, due_tick(self.table.node(at).deadline));
        }
        admitted
    }

    /// Whether the owner admits what `change` (a `Put`) adds to the keys and bytes there were `before`.
    fn is_admitted(
        &self,
        is_new: bool,
        change: &Change<'_>,
        room: &impl Room,
        before: (isize, isize),
    ) -> bool {
        let Change::Put {
            key,
            fingerprint,
            value,
            ..
        } = change
        else {
            return true;
        };
        let mut keys = self.len();
        let mut bytes =
            self.bytes() + Extra::heap_bytes(fingerprint.is_some(), value.map(<[u8]>::len));
        if is_new {
            keys += 1;
            bytes += self.table.growth(key) + self.wheel.growth(self.table.next_place());
        }
        room.admits(keys as isize - before.0, bytes as isize - before.1) && self.len() < ENTRIES_MAX
    }

    fn evict(&mut self, at: u32, now: Millis) {
        if now <= self.table.node(at).deadline {
            self.counters.evicted += 1;
        } else {
            // It lapsed within this tick, so the wheel has not come to it yet.
            self.counters.expired += 1;
        }
        self.drop_entry(at);
    }

    /// The wheel says that this entry's time may have come; it waits nowhere now.
    fn lapse(&mut self, at: u32, now: Millis) {
        let deadline = self.table.node(at).deadline;
        if now <= deadline {
            // Its window was extended after it was scheduled: see `move_deadline`.
            self.wheel.schedule(at, due_tick(deadline));
        } else {
            self.counters.expired += 1;
            self.take_out(at);
        }
    }

    /// Sets the window of an entry that was stored again.
    fn begin_window(&mut self, at: u32, deadline: Millis, now: Millis) {
        if self.table.node(at).deadline < now {
            // A key that had lapsed begins anew, last in line: left where it waits, it would be
            // the first to be evicted.
            self.wheel.cancel(at);
            self.table.set_deadline(at, deadline);
            self.wheel.schedule(at, due_tick(deadline));
        } else {
            self.move_deadline(at, deadline);
        }
    }

    fn move_deadline(&mut self, at: u32, deadline: Millis) {
        let before = self.table.node(at).deadline;
        self.table.set_deadline(at, deadline);
        // A window that ends later is left where it waits and put back when that time comes: a key
        // that slides a thousand times a second is moved once a window, not a thousand times a second.
        if deadline < before {
            self.wheel.cancel(at);
            self.wheel.schedule(at, due_tick(deadline));
        }
    }

    fn drop_entry(&mut self, at: u32) {
        self.wheel.cancel(at);
        self.take_out(at);
    }

    /// Removes an entry that no longer waits in the wheel.
    fn take_out(&mut self, at: u32) {
        self.table.remove(at);
        if self.table.places() == 0 {
            self.wheel.release();
        }
    }
}

fn fingerprint(node: &Node) -> Option<Fingerprint> {
    node.extra().and_then(|extra| extra.fingerprint)
}

/// A stored key that a scan visits.
#[derive(Debug)]
pub struct StoredKeyRef<'a>(&'a StoredKey);

impl StoredKeyRef<'_> {
    /// Appends the key's bytes, as they were sent.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        self.0.write_to(out);
    }
}
