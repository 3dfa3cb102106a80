//! Giving lapsed keys back, and evicting those that would lapse next: a block at a time.
//!
//! No key waits anywhere by itself. The wheel knows of each segment a time at or before the
//! earliest end in it, a segment knows the same of each of its blocks; when that time has come,
//! one look at the block's slots gives back whatever has lapsed, and tells the next time. What a
//! request meets before that is reused on the spot ([`Table::space`]). So an expiring key costs no
//! memory beside its slot, and a million that lapse in one second are given back in steps of one
//! block, between requests.

use std::ops::Bound;

use super::block;
use super::bucket::{Entry, FAR, SLOTS};
use super::key::Kind;
use super::segment::{BLOCK_SLOTS, NEVER};
use super::stash::{StashKey, Stashed};
use super::table::{Slot, Table, slots_of};
use super::wheel::{Step, due_tick};
use crate::time::Millis;

/// Stashed keys that one step looks at.
const STASH_STEP: usize = 64;
/// Segments whose earliest end turns out to be later than was known, before one is taken anyway.
const VICTIM_LOOKS_MAX: usize = 4;
/// Segments that are asked for another victim where the first one's only key is spared.
const SEGMENT_LOOKS_MAX: usize = 64;
/// Empty segments that are put away in search of a victim.
const EMPTY_LOOKS_MAX: usize = 64;
/// Moves of the wheel in search of a victim.
const VICTIM_MOVES_MAX: usize = 64;
/// Slots that one step of expiry or one eviction looks at, at most.
pub(super) const LOOK_SLOTS_MAX: u64 = (VICTIM_LOOKS_MAX * BLOCK_SLOTS) as u64;

impl Table {
    /// Does one step of giving lapsed keys back; returns whether there was anything to do.
    pub(super) fn expire_step(&mut self, now: Millis) -> bool {
        if let Some(number) = self.sweeping {
            self.sweep_segment(number, now);
            return true;
        }
        let (segments, moment) = (&self.segments, self.moment_of());
        let due = |number| due_tick(moment(segments.get(number).scheduled));
        match self.wheel.step(now, due) {
            Step::Due(number) => {
                self.segments.get_mut(number).waits = false;
                self.sweeping = Some(number);
                true
            }
            Step::Moved => true,
            Step::Done => self.sweep_stash(now),
        }
    }

    /// Sweeps one block of the segment whose turn it is; if none is due, gives room back and lets
    /// the segment wait again.
    fn sweep_segment(&mut self, number: u32, now: Millis) {
        let (block, due) = self.segments.get(number).earliest();
        if due < self.clock(now) {
            self.sweep_block(number, block, now);
        } else if !self.give_room_back(number) {
            self.sweeping = None;
            self.schedule(number, due, now);
            self.tidy(Some(number));
        }
    }

    /// Gives back what has lapsed in one block, and finds out when the next will.
    pub(super) fn sweep_block(&mut self, number: u32, block: usize, now: Millis) {
        let end_now = self.clock(now);
        let mut next = NEVER;
        let buckets = self.segments.get(number).block(block).len();
        for bucket in 0..buckets {
            self.give_back_lapsed(number, block, bucket, now, end_now);
            let bucket = &self.segments.get(number).block(block)[bucket];
            for slot in 0..SLOTS {
                let end = self.true_end(bucket.entry(slot));
                if end != 0 {
                    next = next.min(end);
                }
            }
        }
        self.segments.get_mut(number).set_due(block, next);
        self.work_slots += (buckets * SLOTS) as u64;
    }

    /// When an entry ends, as slots count time but without their bound.
    pub(super) fn true_end(&self, entry: Entry) -> u64 {
        if entry.end == FAR {
            self.clock(self.deadline_of(entry))
        } else {
            entry.end
        }
    }

    /// Gives back what has lapsed in one bucket.
    #[inline]
    pub(super) fn give_back_lapsed(
        &mut self,
        number: u32,
        block: usize,
        bucket: usize,
        now: Millis,
        end_now: u64,
    ) {
        let line = &self.segments.get(number).block(block)[bucket];
        if line.ended(end_now) & !line.vacant() != 0 {
            self.give_back_lapsed_slots(number, block, bucket, now);
        }
    }

    fn give_back_lapsed_slots(&mut self, number: u32, block: usize, bucket: usize, now: Millis) {
        for slot in 0..SLOTS {
            let entry = self.segments.get(number).block(block)[bucket].entry(slot);
            if entry.end == 0 || now <= self.deadline_of(entry) {
                continue;
            }
            let Some(secret) = &self.secret else { return };
            let hash = block::hash_of(entry.packed, secret);
            let slot = Slot {
                segment: number,
                block: block as u8,
                place: block::place(bucket * SLOTS + slot),
            };
            self.empty_lapsed(slot, hash, entry.packed);
        }
    }

    fn sweep_stash(&mut self, now: Millis) -> bool {
        if self.stash.is_empty() {
            return false;
        }
        let looked = self.stash_in_turn();
        // The key itself, not only its hash: any number of keys may have that.
        let goes_on = looked.len() == STASH_STEP;
        let last = looked.last().filter(|_| goes_on);
        let cursor = last.map(|&(key, _)| key.clone());
        let lapsed = looked.iter().filter(|(_, stashed)| stashed.deadline < now);
        let lapsed: Vec<_> = lapsed.map(|&(key, _)| key.clone()).collect();
        let any = !lapsed.is_empty();
        self.stash_cursor = cursor;
        for key in lapsed {
            let held = self.unstash(&key);
            self.pins.let_go(held);
            self.lapsed += 1;
        }
        if any {
            self.tidy(None);
        }
        any || goes_on
    }

    /// Some stashed keys, from where the last step ended, so that all are looked at in turn.
    fn stash_in_turn(&self) -> Vec<(&StashKey, &Stashed)> {
        let from = match &self.stash_cursor {
            Some(last) => Bound::Excluded(last),
            None => Bound::Unbounded,
        };
        let behind = self.stash.range((from, Bound::Unbounded));
        behind.take(STASH_STEP).collect()
    }

    /// Drops a stashed key: of the next few the one that ends first, that being all that is known of them.
    fn evict_stashed(&mut self) -> Option<Millis> {
        if self.stash_in_turn().is_empty() {
            self.stash_cursor = None;
        }
        let looked = self.stash_in_turn().into_iter();
        let looked = looked.filter(|(_, stashed)| !stashed.is_record());
        let first = looked.min_by_key(|(_, stashed)| stashed.deadline);
        let (key, deadline) = first.map(|(key, stashed)| (key.clone(), stashed.deadline))?;
        let held = self.unstash(&key);
        self.pins.let_go(held);
        self.tidy(None);
        Some(deadline)
    }

    /// Drops a key that is among the soonest to end, but not the spared one; `None` if there is none
    /// in its block, else its deadline, which may have passed.
    pub(super) fn evict_soonest(&mut self, spared: Option<Slot>, now: Millis) -> Option<Millis> {
        for look in 1.. {
            let Some(number) = self.soonest_segment() else {
                return self.evict_stashed();
            };
            let (block, due) = self.segments.get(number).earliest();
            let Some((slot, end, next)) = self.first_to_end(number, block, spared) else {
                return self.evict_elsewhere(number, block);
            };
            // Where a key is spared, the block's earliest end may be that key's.
            if spared.is_none() && !self.has_records() {
                self.segments.get_mut(number).set_due(block, end);
                // What was known of this block was out of date: another may come first.
                if end > due && look < VICTIM_LOOKS_MAX {
                    let (_, due) = self.segments.get(number).earliest();
                    self.schedule(number, due, now);
                    continue;
                }
                self.segments.get_mut(number).set_due(block, next);
            }
            return Some(self.evict(slot));
        }
        None
    }

    /// Drops those keys of one segment that end first, but not the spared one, as many as it takes for the
    /// segment to become smaller; their deadlines, or none where too much is spared.
    ///
    /// A packed key has nothing beside its slot, so evicting one frees a place but no bytes: for those, all
    /// that is left is a smaller segment. That takes a thousand keys at most or so, and gives 16 KiB back
    /// where it takes that many, which is room for a hundred records.
    pub(super) fn evict_to_shrink(&mut self, spared: Option<Slot>) -> Vec<Millis> {
        let Some(soonest) = self.soonest_segment() else {
            return Vec::new();
        };
        let numbers = (soonest..self.segment_count).chain(0..soonest);
        for number in numbers.take(VICTIM_LOOKS_MAX) {
            let victims = self.first_to_end_of(number, spared);
            if !victims.is_empty() {
                // It becomes smaller with the last of them: until then they stay where they were found.
                return victims.into_iter().map(|slot| self.evict(slot)).collect();
            }
        }
        Vec::new()
    }

    /// The keys of a segment that end first, as many as are too many for it to become smaller; none if there
    /// are not as many.
    fn first_to_end_of(&mut self, number: u32, spared: Option<Slot>) -> Vec<Slot> {
        let segment = self.segments.get(number);
        self.work_slots += slots_of(segment.bytes());
        let surplus = segment.len().saturating_sub(segment.shrinks_at());
        let mut found = Vec::with_capacity(segment.len());
        for block in 0..segment.used() {
            let buckets = segment.block(block);
            for place in (0..buckets.len() * SLOTS).map(block::place) {
                let entry = buckets[place.bucket()].entry(place.slot());
                let (segment, block) = (number, block as u8);
                let slot = Slot {
                    segment,
                    block,
                    place,
                };
                if entry.end != 0 && spared != Some(slot) && !self.is_record(entry) {
                    found.push((self.true_end(entry), slot));
                }
            }
        }
        if surplus == 0 || found.len() < surplus {
            return Vec::new();
        }
        found.select_nth_unstable_by_key(surplus - 1, |(end, _)| *end);
        found.truncate(surplus);
        found.into_iter().map(|(_, slot)| slot).collect()
    }

    /// Drops a key outside of a block in which all keys are spared: of the next blocks that have any.
    fn evict_elsewhere(&mut self, number: u32, block: usize) -> Option<Millis> {
        let numbers = (number..self.segment_count).chain(0..number);
        let numbers = numbers.take(SEGMENT_LOOKS_MAX);
        let segments = numbers.map(|number| (number, self.segments.get(number)));
        let blocks = segments.flat_map(|(n, held)| {
            let blocks = (0..held.used()).filter(|&at| held.count(at) > 0);
            blocks.map(move |at| (n, at)).collect::<Vec<_>>()
        });
        let others: Vec<_> = blocks
            .filter(|&at| at != (number, block))
            .take(VICTIM_LOOKS_MAX)
            .collect();
        let mut evicted = others
            .into_iter()
            .filter_map(|(number, block)| self.evict_of_block(number, block));
        evicted.next().or_else(|| self.evict_stashed())
    }

    /// The segment with the earliest end, as far as that is known; `None` if no segment has keys.
    fn soonest_segment(&mut self) -> Option<u32> {
        if let Some(number) = self
            .sweeping
            .filter(|&number| self.segments.get(number).len() > 0)
        {
            return Some(number);
        }
        for _ in 0..EMPTY_LOOKS_MAX {
            let (moment, segments) = (self.moment_of(), &mut self.segments);
            let due = |number| {
                let segment = segments.get_mut(number);
                // An empty one comes in its time, to be put away here.
                if segment.len() > 0 {
                    segment.scheduled = segment.earliest().1;
                }
                due_tick(moment(segment.scheduled))
            };
            let number = self.wheel.soonest(VICTIM_MOVES_MAX, due)?;
            if self.segments.get(number).len() > 0 {
                return Some(number);
            }
            self.tidy(Some(number));
        }
        None
    }

    /// Drops the key that ends first in the block where keys of this hash are; `None` if there is none.
    pub(super) fn evict_beside(&mut self, hash: u64) -> Option<Millis> {
        let number = self.segment_of(hash)?;
        let segment = self.segments.get(number);
        if segment.used() == 0 {
            return None;
        }
        let block = segment.block_of(hash);
        self.evict_of_block(number, block)
    }

    /// Drops the key that ends first in a block.
    fn evict_of_block(&mut self, number: u32, block: usize) -> Option<Millis> {
        let (slot, _, next) = self.first_to_end(number, block, None)?;
        if !self.has_records() {
            self.segments.get_mut(number).set_due(block, next);
        }
        Some(self.evict(slot))
    }

    /// Drops the key that ends first of those in the two buckets of this hash; `None` if there is none.
    pub(super) fn evict_in_the_way(&mut self, hash: u64) -> Option<Millis> {
        let number = self.segment_of(hash)?;
        let segment = self.segments.get(number);
        if segment.used() == 0 {
            return None;
        }
        let block = segment.block_of(hash);
        let buckets = segment.block(block);
        let candidates = block::candidates(hash, buckets.len()).into_iter();
        let numbers = candidates.flat_map(|bucket| bucket * SLOTS..(bucket + 1) * SLOTS);
        let (slot, ..) = self.first_of(number, block, numbers)?;
        Some(self.evict(slot))
    }

    /// The key of a block that ends first, when it does, and when the one after it does.
    fn first_to_end(
        &mut self,
        number: u32,
        block: usize,
        spared: Option<Slot>,
    ) -> Option<(Slot, u64, u64)> {
        let slots = self.segments.get(number).block(block).len() * SLOTS;
        self.work_slots += slots as u64;
        let spared =
            spared.filter(|slot| slot.segment == number && usize::from(slot.block) == block);
        let is_spared = |at| spared.is_some_and(|slot| slot.place == block::place(at));
        self.first_of(number, block, (0..slots).filter(|&at| !is_spared(at)))
    }

    fn first_of(
        &self,
        number: u32,
        block: usize,
        places: impl Iterator<Item = usize>,
    ) -> Option<(Slot, u64, u64)> {
        let buckets = self.segments.get(number).block(block);
        let (mut first, mut end, mut next) = (None, NEVER, NEVER);
        for at in places {
            let place = block::place(at);
            let entry = buckets[place.bucket()].entry(place.slot());
            let ends = self.true_end(entry);
            if ends == 0 || ends >= next || self.is_record(entry) {
                continue;
            }
            if ends < end {
                (first, end, next) = (Some(place), ends, end);
            } else {
                next = ends;
            }
        }
        let block = block as u8;
        first.map(|place| {
            let slot = Slot {
                segment: number,
                block,
                place,
            };
            (slot, end, next)
        })
    }

    /// Whether an entry is a record, which is never evicted.
    fn is_record(&self, entry: Entry) -> bool {
        entry.packed.kind == Kind::Aside && self.asides.is_record(entry.packed)
    }

    /// Whether there may be records, which end unnoticed by who looks for a key to evict.
    fn has_records(&self) -> bool {
        self.asides.records() > 0
    }

    fn evict(&mut self, slot: Slot) -> Millis {
        let buckets = self.segments.get(slot.segment).block(slot.block.into());
        let entry = buckets[slot.place.bucket()].entry(slot.place.slot());
        let deadline = self.deadline_of(entry);
        if let Some(secret) = &self.secret {
            let hash = block::hash_of(entry.packed, secret);
            self.take_out(slot, hash, entry.packed);
        }
        deadline
    }
}
