//! A hierarchical timing wheel: which entries are due, found without looking at the others.
//!
//! Six levels of 64 slots; a slot of level `n` spans 64^n ticks of 16 ms, so the wheel reaches
//! 34 years ahead. An entry waits in the coarsest slot that separates it from the present and
//! moves down a level when that slot's time comes: at most five moves in its life. Every slot
//! is a doubly linked list through the entries' numbers, first in first out, so taking an entry
//! out costs nothing and entries of equal lives keep their order through all levels.
//!
//! Work is done one entry at a time by [`Wheel::step`]: no tick, however many entries fall
//! due in it, is ever a long operation. The wheel gives memory back; it decides nothing (an
//! answer compares the entry's own deadline with the clock).
//!
//! After G. Varghese and T. Lauck, "Hashed and Hierarchical Timing Wheels" (1987), scheme 7.

use super::slab::Slab;
use crate::limits::WHEEL_TICK_MS;
use crate::time::Millis;

const LEVELS: usize = 6;
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
/// Ticks that the wheel reaches ahead; one top slot short of a full turn, so that no entry
/// ever waits in the slot that the present is in.
const HORIZON_TICKS: u64 =
    (1 << (SLOT_BITS * LEVELS as u32)) - (1 << (SLOT_BITS * (LEVELS as u32 - 1)));

/// Links that are made at a time.
const CHUNK: usize = 64;
/// No entry.
const NONE: u32 = u32::MAX;
/// Set in `prev` of a slot's first entry and in `next` of its last; the other bits are the slot's number.
const END: u32 = 1 << 31;
/// Marks an entry that waits nowhere.
const IDLE: u32 = u32::MAX;

#[derive(Debug, Clone, Copy)]
struct Link {
    prev: u32,
    next: u32,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            prev: IDLE,
            next: IDLE,
        }
    }
}

/// What one step of the wheel did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// This entry's time has come; it waits nowhere now.
    Due(u32),
    /// An entry moved to a finer level.
    Moved,
    /// Nothing is left to do before the time that was named.
    Done,
}

/// The ticks at or after `deadline` round up: an entry is due when its deadline has surely passed.
pub(super) fn due_tick(deadline: Millis) -> u64 {
    deadline.0 / WHEEL_TICK_MS + 1
}

#[derive(Debug)]
struct Slots {
    first: [u32; SLOTS * LEVELS],
    last: [u32; SLOTS * LEVELS],
    occupied: [u64; LEVELS],
}

impl Default for Slots {
    fn default() -> Self {
        Self {
            first: [NONE; SLOTS * LEVELS],
            last: [NONE; SLOTS * LEVELS],
            occupied: [0; LEVELS],
        }
    }
}

/// The wheel of one shard. Its memory, beyond 3 KiB, is 8 bytes per entry number.
#[derive(Debug, Default)]
pub(super) struct Wheel {
    /// Every slot before this tick has been emptied.
    tick: u64,
    slots: Option<Box<Slots>>,
    links: Slab<Link, CHUNK>,
    waiting: usize,
}

impl Wheel {
    pub(super) fn bytes(&self) -> usize {
        self.links.bytes()
            + if self.slots.is_some() {
                size_of::<Slots>()
            } else {
                0
            }
    }

    /// Bytes that scheduling the entry of this number would add.
    pub(super) fn growth(&self, at: usize) -> usize {
        let slots = if self.slots.is_some() {
            0
        } else {
            size_of::<Slots>()
        };
        slots
            + if at >= self.links.len() {
                Slab::<Link, CHUNK>::CHUNK_BYTES
            } else {
                0
            }
    }

    /// Takes all entries out, and gives most of the memory back.
    pub(super) fn clear(&mut self) {
        if self.waiting > 0 {
            self.slots = None;
            self.waiting = 0;
        }
        self.links = Slab::default();
    }

    /// Moves an empty wheel to the present; one with entries stays where its work is.
    pub(super) fn catch_up(&mut self, now: Millis) {
        if self.waiting == 0 {
            self.tick = self.tick.max(now.0 / WHEEL_TICK_MS);
        }
    }

    /// Puts an entry that waits nowhere into the slot of its due tick.
    pub(super) fn schedule(&mut self, at: u32, due: u64) {
        while self.links.len() <= at as usize {
            self.links.grow();
        }
        debug_assert_eq!(self.links.get(at).prev, IDLE, "an entry waits in one slot");
        let (level, slot) = self.slot_of(due);
        let number = level * SLOTS + slot;
        let end = END | number as u32;
        let slots = self.slots.get_or_insert_with(Box::default);
        slots.occupied[level] |= 1 << slot;
        let last = std::mem::replace(&mut slots.last[number], at);
        if last == NONE {
            slots.first[number] = at;
            *self.links.get_mut(at) = Link {
                prev: end,
                next: end,
            };
        } else {
            self.links.get_mut(last).next = at;
            *self.links.get_mut(at) = Link {
                prev: last,
                next: end,
            };
        }
        self.waiting += 1;
    }

    /// Takes an entry out, wherever it waits.
    pub(super) fn cancel(&mut self, at: u32) {
        let Link { prev, next } = std::mem::take(self.links.get_mut(at));
        debug_assert_ne!(prev, IDLE, "only a waiting entry is cancelled");
        let slots = self
            .slots
            .as_mut()
            .expect("a waiting entry waits in a slot");
        match (prev & END != 0, next & END != 0) {
            (false, false) => {
                self.links.get_mut(prev).next = next;
                self.links.get_mut(next).prev = prev;
            }
            (false, true) => {
                slots.last[(next & !END) as usize] = prev;
                self.links.get_mut(prev).next = next;
            }
            (true, false) => {
                slots.first[(prev & !END) as usize] = next;
                self.links.get_mut(next).prev = prev;
            }
            (true, true) => {
                let number = (prev & !END) as usize;
                slots.first[number] = NONE;
                slots.last[number] = NONE;
                slots.occupied[number / SLOTS] &= !(1 << (number % SLOTS));
            }
        }
        self.waiting -= 1;
    }

    /// Does one entry's worth of the work that is due by `now`; `due` tells an entry's due tick.
    pub(super) fn step(&mut self, now: Millis, due: impl FnOnce(u32) -> u64) -> Step {
        let now_tick = now.0 / WHEEL_TICK_MS;
        let Some((level, slot, starts)) =
            self.earliest().filter(|&(_, _, starts)| starts <= now_tick)
        else {
            self.tick = self.tick.max(now_tick);
            return Step::Done;
        };
        self.tick = self.tick.max(starts);
        let at = self.first(level, slot);
        self.cancel(at);
        if level == 0 {
            return Step::Due(at);
        }
        self.schedule(at, due(at));
        Step::Moved
    }

    /// An entry that is among the first to fall due: the one that has waited longest in the
    /// first occupied slot. Where all lives are equally long, that is the very first.
    ///
    /// An entry whose time was put off since it was scheduled does not count as soon: it is put
    /// where it belongs on the way, up to `moves_max` of them.
    pub(super) fn soonest(
        &mut self,
        moves_max: usize,
        mut due: impl FnMut(u32) -> u64,
    ) -> Option<u32> {
        for _ in 0..moves_max {
            let (level, slot, _) = self.earliest()?;
            let at = self.first(level, slot);
            let due = due(at);
            if self.slot_of(due) == (level, slot) {
                return Some(at);
            }
            self.cancel(at);
            self.schedule(at, due);
        }
        self.earliest()
            .map(|(level, slot, _)| self.first(level, slot))
    }

    fn first(&self, level: usize, slot: usize) -> u32 {
        self.slots
            .as_ref()
            .map_or(NONE, |slots| slots.first[level * SLOTS + slot])
    }

    /// The occupied slot whose span begins first: its level, its number, and that tick.
    fn earliest(&self) -> Option<(usize, usize, u64)> {
        let slots = self.slots.as_ref()?;
        let mut earliest = None;
        // From coarse to fine: a coarse slot that is being emptied into finer ones goes first.
        for level in (0..LEVELS)
            .rev()
            .filter(|&level| slots.occupied[level] != 0)
        {
            let shift = SLOT_BITS * level as u32;
            let present = (self.tick >> shift) % SLOTS as u64;
            let ahead = u64::from(
                slots.occupied[level]
                    .rotate_right(present as u32)
                    .trailing_zeros(),
            );
            let starts = (((self.tick >> shift) + ahead) << shift).max(self.tick);
            if earliest.is_none_or(|(_, _, first)| starts < first) {
                earliest = Some((level, ((present + ahead) % SLOTS as u64) as usize, starts));
            }
        }
        earliest
    }

    /// The tick before which nothing waits.
    #[cfg(test)]
    pub(super) fn waiting_from(&self) -> u64 {
        self.tick
    }

    /// Every entry that waits, with the tick in which its slot is looked at.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> Vec<(u32, u64)> {
        let mut waiting = Vec::new();
        for number in 0..SLOTS * LEVELS {
            let (level, slot) = (number / SLOTS, number % SLOTS);
            let shift = SLOT_BITS * level as u32;
            let present = self.tick >> shift;
            let ahead = (slot as u64).wrapping_sub(present) % SLOTS as u64;
            let starts = ((present + ahead) << shift).max(self.tick);
            let mut at = self.first(level, slot);
            while at < END {
                waiting.push((at, starts));
                at = self.links.get(at).next;
            }
        }
        assert_eq!(waiting.len(), self.waiting);
        waiting
    }

    fn slot_of(&self, due: u64) -> (usize, usize) {
        let due = due.clamp(self.tick, self.tick + HORIZON_TICKS - 1);
        // The highest bit in which the due tick and the present differ says which level tells them apart.
        let differs = (due ^ self.tick) | (SLOTS as u64 - 1);
        let level = ((differs.ilog2() / SLOT_BITS) as usize).min(LEVELS - 1);
        let slot = (due >> (SLOT_BITS * level as u32)) & (SLOTS as u64 - 1);
        (level, slot as usize)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// More moves than any of these tests needs.
    const MOVES: usize = 1_000;

    /// Runs the wheel to `now`; returns who fell due, with how many single steps it took.
    fn run_to(wheel: &mut Wheel, now: Millis, due: &BTreeMap<u32, u64>) -> (Vec<u32>, usize) {
        let (mut fired, mut steps) = (Vec::new(), 0);
        loop {
            match wheel.step(now, |at| due[&at]) {
                Step::Due(at) => fired.push(at),
                Step::Moved => {}
                Step::Done => return (fired, steps),
            }
            steps += 1;
        }
    }

    proptest! {
        #[test]
        fn every_entry_is_due_in_its_tick_and_never_before(
            start in prop_oneof![Just(0_u64), 1_790_000_000_000_u64..1_800_000_000_000, (1_u64 << 40) - 5_000..(1 << 40) + 5_000],
            entries in proptest::collection::vec((prop_oneof![0_u64..3_000, 0_u64..5_000_000, 0_u64..400_000_000_000], any::<bool>()), 1..80),
            jumps in proptest::collection::vec(prop_oneof![1_u64..100, 1_u64..1_000_000, 1_u64..100_000_000_000], 1..40),
        ) {
            let mut wheel = Wheel::default();
            wheel.catch_up(Millis(start));
            let mut waiting = BTreeMap::new();
            for (at, &(ahead, cancel)) in entries.iter().enumerate() {
                let due = due_tick(Millis(start + ahead));
                wheel.schedule(at as u32, due);
                if cancel {
                    wheel.cancel(at as u32);
                } else {
                    waiting.insert(at as u32, due);
                }
            }
            let mut now = start;
            for jump in jumps.into_iter().chain([500_000_000_000]) {
                now += jump;
                let soonest = waiting.values().min().copied();
                if let (Some(at), Some(soonest)) = (wheel.soonest(MOVES, |at| waiting[&at]), soonest) {
                    prop_assert_eq!(wheel.slot_of(waiting[&at]), wheel.slot_of(soonest));
                }
                let (mut fired, steps) = run_to(&mut wheel, Millis(now), &waiting);
                fired.sort_unstable();
                let expected: Vec<u32> = waiting.iter().filter(|&(_, &due)| due <= now / 16).map(|(&at, _)| at).collect();
                prop_assert_eq!(&fired, &expected);
                prop_assert!(steps <= fired.len() + waiting.len() * LEVELS);
                waiting.retain(|at, _| !expected.contains(at));
            }
            prop_assert_eq!((waiting.len(), wheel.waiting), (0, 0));
        }
    }

    #[test]
    fn an_entry_beyond_the_horizon_waits_until_its_time() {
        let mut wheel = Wheel::default();
        let due = BTreeMap::from([(0, 3 * HORIZON_TICKS)]);
        wheel.schedule(0, due[&0]);
        for tick in (0..).map(|n| n * HORIZON_TICKS / 7) {
            let fired = run_to(&mut wheel, Millis(tick * WHEEL_TICK_MS), &due).0;
            assert_eq!(fired.len(), usize::from(tick >= due[&0]), "tick {tick}");
            if tick >= due[&0] {
                return;
            }
        }
    }

    #[test]
    fn of_equal_lives_the_oldest_is_the_soonest() {
        let mut wheel = Wheel::default();
        let life = 3_600_000;
        let mut now = Millis(1_790_000_000_000);
        wheel.catch_up(now);
        for at in 0..10_000 {
            now = now.after(100);
            wheel.schedule(at, due_tick(now.after(life)));
        }
        let due =
            |at: u32| due_tick(Millis(1_790_000_000_000).after((u64::from(at) + 1) * 100 + life));
        for at in 0..10_000 {
            let soonest = wheel.soonest(MOVES, due).unwrap();
            wheel.cancel(soonest);
            assert_eq!(soonest, at);
        }
    }

    #[test]
    fn what_was_put_off_is_not_the_soonest() {
        let mut wheel = Wheel::default();
        for at in 0..100_u32 {
            wheel.schedule(at, 1_000 + u64::from(at));
        }
        // All but number 50 end an hour later now.
        let due = |at| if at == 50 { 1_050 } else { 226_000 };
        assert_eq!(wheel.soonest(MOVES, due), Some(50));
        wheel.cancel(50);
        assert!(wheel.soonest(MOVES, due).is_some());
    }
}
