//! A contiguous part of the hash space: up to four blocks that share it evenly.
//!
//! A segment begins with one small block that doubles until it is a full one, then grows by one
//! block at a time up to four, and with the next is split into two of two. Hash space is divided
//! evenly and in order: a key's block is its fraction of the segment times the number of blocks. So
//! splitting only hands two blocks over, and when a block is put in the middle, a key moves at most
//! to the neighbouring block.
//!
//! Segments of unlike density ([`super::key`]'s hashes see to that) are at unlike stages, so the
//! table as a whole has between 70 and 75 % of its slots in use at any size: 28 to 30 bytes a key.
//! Each step touches one segment of at most 64 KiB; [`STEP_SLOTS_MAX`] bounds it, and nothing else
//! in the table is ever moved. Up to eight blocks (a quarter more memory at most with each step)
//! were tried: 3 bytes a key less, but each insertion then pays for twice as many looks and moves
//! in steps of growth.

use super::block;
use super::bucket::{Entry, SLOTS};
use super::key::Secret;
use super::memory::{BLOCK_BUCKETS, Buckets};

/// Blocks of a segment at most.
pub(super) const BLOCKS_MAX: usize = 4;
/// Slots that one step of growth or of giving back looks at, at most.
pub(super) const STEP_SLOTS_MAX: usize = BLOCKS_MAX * BLOCK_SLOTS;
/// Slots of a full block.
pub(super) const BLOCK_SLOTS: usize = BLOCK_BUCKETS * SLOTS;
/// Buckets of the smallest block.
const BUCKETS_MIN: usize = 4;
/// The earliest end of an empty block.
pub(super) const NEVER: u64 = u64::MAX;
/// A segment with a smaller share of its slots in use does not grow when a key finds no place:
/// that many keys share two buckets, and no growth would part them.
const GROWS_FROM_PERCENT: usize = 40;
/// A full block of which more is in use asks for another although a key could still be put in: from
/// there on, most keys would have to move others.
const BLOCK_FULL_PERCENT: usize = 89;
/// A segment shrinks if at most this share of the slots would be in use afterwards.
const SHRINKS_TO_PERCENT: usize = 60;

/// Buckets that a rearrangement fetches ahead of where it is.
const FETCHED_AHEAD: usize = 48;

/// How a segment grows next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Growth {
    /// Its only block becomes one of so many buckets.
    Resize(usize),
    /// It gets one more full block.
    Block,
    /// It becomes two.
    Split,
    /// It would not help.
    Useless,
}

/// Keys whose hash begins with the same `depth` bits.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Segment {
    /// In the order of the hash space; the first `used` are there.
    blocks: [Option<Buckets>; BLOCKS_MAX],
    /// For each block, a time at or before its earliest end.
    dues: [u64; BLOCKS_MAX],
    counts: [u16; BLOCKS_MAX],
    used: u8,
    pub(super) depth: u8,
    /// Whether the wheel knows it.
    pub(super) waits: bool,
    /// Keys that found no place, and are in the table's stash.
    pub(super) stashed: u32,
    /// What it was scheduled for.
    pub(super) scheduled: u64,
}

impl Default for Segment {
    fn default() -> Self {
        Self {
            blocks: Default::default(),
            dues: [NEVER; BLOCKS_MAX],
            counts: [0; BLOCKS_MAX],
            used: 0,
            depth: 0,
            waits: false,
            stashed: 0,
            scheduled: NEVER,
        }
    }
}

/// The block of so many that keys of this hash are in, in a segment of this depth.
#[inline]
fn block_of(hash: u64, depth: u8, used: u64) -> usize {
    let fraction = hash << depth >> 32;
    ((fraction * used) >> 32) as usize
}

/// An entry that belongs to another block.
#[derive(Clone, Copy, Default)]
struct Leaving {
    hash: u64,
    /// Its slot's, counted through the block.
    number: u16,
}

/// What found no place when a segment was rearranged.
pub(super) type Homeless = Vec<(u64, Entry)>;

impl Segment {
    /// How many blocks there are.
    #[inline]
    pub(super) fn used(&self) -> usize {
        usize::from(self.used)
    }

    /// Keys in its blocks.
    pub(super) fn len(&self) -> usize {
        self.counts.iter().map(|&count| usize::from(count)).sum()
    }

    /// Keys in one block.
    pub(super) fn count(&self, block: usize) -> usize {
        self.counts[block].into()
    }

    /// Bytes of its blocks.
    pub(super) fn bytes(&self) -> usize {
        self.blocks
            .iter()
            .flatten()
            .map(|buckets| Buckets::bytes_of(buckets.len()))
            .sum()
    }

    /// The block that keys of this hash are in; there must be one.
    #[inline]
    pub(super) fn block_of(&self, hash: u64) -> usize {
        block_of(hash, self.depth, u64::from(self.used))
    }

    #[inline]
    pub(super) fn block(&self, block: usize) -> &Buckets {
        self.blocks[block]
            .as_ref()
            .expect("the first `used` blocks are there")
    }

    #[inline]
    fn block_mut(&mut self, block: usize) -> &mut Buckets {
        self.blocks[block]
            .as_mut()
            .expect("the first `used` blocks are there")
    }

    /// A time at or before the earliest end in a block.
    #[inline]
    pub(super) fn due(&self, block: usize) -> u64 {
        self.dues[block]
    }

    /// The block with the earliest such time, and that time.
    pub(super) fn earliest(&self) -> (usize, u64) {
        let dues = self.dues.iter().copied().enumerate();
        dues.min_by_key(|&(_, due)| due).unwrap_or((0, NEVER))
    }

    /// Says that something in a block ends at this time.
    #[inline]
    pub(super) fn ends_at(&mut self, block: usize, end: u64) {
        self.dues[block] = self.dues[block].min(end);
    }

    /// Says when the earliest end in a block is.
    pub(super) fn set_due(&mut self, block: usize, due: u64) {
        self.dues[block] = due;
    }

    /// Sets when the window of an entry ends.
    pub(super) fn set_end(&mut self, block: usize, place: block::Place, end: u64) {
        self.block_mut(block)[place.bucket()].set_end(place.slot(), end);
    }

    /// Finds a vacant slot for a key of this hash, moving others if it must.
    #[inline]
    pub(super) fn make_place(
        &mut self,
        block: usize,
        hash: u64,
        secret: &Secret,
    ) -> Option<block::Place> {
        block::make_place(self.block_mut(block), hash, secret)
    }

    /// Puts an entry into a vacant slot.
    #[inline]
    pub(super) fn fill(&mut self, block: usize, place: block::Place, hash: u64, entry: Entry) {
        block::fill(self.block_mut(block), place, hash, entry);
        self.counts[block] += 1;
        self.ends_at(block, entry.end);
    }

    /// Takes an entry out of its slot.
    #[inline]
    pub(super) fn clear(&mut self, block: usize, place: block::Place, hash: u64) {
        block::clear(self.block_mut(block), place, hash);
        self.counts[block] -= 1;
        if self.counts[block] == 0 {
            self.dues[block] = NEVER;
        }
    }

    /// Overwrites the entry in a slot by one of the same hash.
    pub(super) fn replace(&mut self, block: usize, place: block::Place, entry: Entry) {
        self.block_mut(block)[place.bucket()].set(place.slot(), entry);
    }

    /// Whether a block is so full that the segment should grow first.
    #[inline]
    pub(super) fn is_full(&self, block: usize) -> bool {
        usize::from(self.counts[block]) > BLOCK_SLOTS * BLOCK_FULL_PERCENT / 100
    }

    /// How to make room where a key found none.
    pub(super) fn growth(&self) -> Growth {
        if self.used == 0 {
            return Growth::Resize(BUCKETS_MIN);
        }
        let buckets = self.block(0).len();
        let slots = self.used() * buckets * SLOTS;
        if buckets > BUCKETS_MIN && self.len() * 100 < slots * GROWS_FROM_PERCENT {
            return Growth::Useless;
        }
        match self.used() {
            1 if buckets < BLOCK_BUCKETS => Growth::Resize(2 * buckets),
            BLOCKS_MAX => Growth::Split,
            _ => Growth::Block,
        }
    }

    /// Gives the segment one block of so many buckets in place of the one it has, if any.
    pub(super) fn resize(&mut self, buckets: usize, secret: &Secret, homeless: &mut Homeless) {
        debug_assert!(self.used <= 1);
        let old = self.blocks[0].replace(Buckets::new(buckets));
        self.used = 1;
        self.counts[0] = 0;
        if let Some(old) = old {
            self.take_in(&old, secret, homeless);
        }
    }

    /// Adds a full block in the middle of the hash space.
    pub(super) fn add_block(&mut self, secret: &Secret, homeless: &mut Homeless) {
        let (used, middle) = (self.used(), self.used().div_ceil(2));
        self.blocks[used] = Some(Buckets::new(BLOCK_BUCKETS));
        self.counts[used] = 0;
        self.dues[used] = NEVER;
        self.blocks[middle..=used].rotate_right(1);
        self.counts[middle..=used].rotate_right(1);
        self.dues[middle..=used].rotate_right(1);
        self.used += 1;
        // From the middle outwards: every block has given some away before it is given any.
        for block in (0..middle).rev() {
            self.move_neighbours(block, block + 1, secret, homeless);
        }
        for block in middle + 1..=used {
            self.move_neighbours(block, block - 1, secret, homeless);
        }
    }

    /// Gives up a block, and hands what is in it to the others.
    fn remove_block(&mut self, secret: &Secret, homeless: &mut Homeless) {
        let (last, middle) = (self.used() - 1, self.used() / 2);
        self.blocks[middle..=last].rotate_left(1);
        self.counts[middle..=last].rotate_left(1);
        self.dues[middle..=last].rotate_left(1);
        self.used -= 1;
        self.counts[last] = 0;
        self.dues[last] = NEVER;
        let removed = self.blocks[last].take();
        // From the ends inwards, then the middle's: the reverse of how it came.
        for block in 1..middle {
            self.move_neighbours(block, block - 1, secret, homeless);
        }
        for block in (middle..last - 1).rev() {
            self.move_neighbours(block, block + 1, secret, homeless);
        }
        if let Some(removed) = removed {
            self.take_in(&removed, secret, homeless);
        }
    }

    /// Moves the entries that are not in their block to where they belong: all in the same neighbour.
    fn move_neighbours(
        &mut self,
        from: usize,
        to: usize,
        secret: &Secret,
        homeless: &mut Homeless,
    ) {
        let (used, depth) = (u64::from(self.used), self.depth);
        let [Some(from_buckets), Some(to_buckets)] = self
            .blocks
            .get_disjoint_mut([from, to])
            .expect("a block's neighbour is another one")
        else {
            return;
        };
        // First all are judged, without a branch, then those that leave are moved: whether one does cannot
        // be foretold, and moving each at once took a fifth longer.
        let mut leaving = [Leaving::default(); BLOCK_SLOTS];
        let mut count = 0;
        for at in 0..from_buckets.len() {
            // Neither block has been looked at for long: without this, each line is waited for.
            for buckets in [&*from_buckets, &*to_buckets] {
                buckets.prefetch(at + FETCHED_AHEAD);
            }
            let bucket = &from_buckets[at];
            for slot in 0..SLOTS {
                let entry = bucket.entry(slot);
                let hash = block::hash_of(entry.packed, secret);
                let number = (at * SLOTS + slot) as u16;
                leaving[count] = Leaving { hash, number };
                let leaves = entry.end != 0 && block_of(hash, depth, used) != from;
                count += usize::from(leaves);
            }
        }
        for &Leaving { hash, number } in &leaving[..count] {
            let place = block::place(number.into());
            let entry = from_buckets[place.bucket()].entry(place.slot());
            block::clear(from_buckets, place, hash);
            match block::make_place_like(to_buckets, place, hash, secret) {
                Some(place) => {
                    block::fill(to_buckets, place, hash, entry);
                    self.counts[to] += 1;
                }
                None => homeless.push((hash, entry)),
            }
        }
        self.counts[from] -= count as u16;
        if count > 0 {
            self.dues[to] = self.dues[to].min(self.dues[from]);
        }
        if self.counts[from] == 0 {
            self.dues[from] = NEVER;
        }
    }

    /// Takes in all entries of buckets that are no longer its own.
    fn take_in(&mut self, old: &Buckets, secret: &Secret, homeless: &mut Homeless) {
        for (_, entry) in block::entries(old) {
            let hash = block::hash_of(entry.packed, secret);
            self.house(hash, entry, secret, homeless);
        }
    }

    /// Finds a place for an entry in the block that its hash names.
    fn house(&mut self, hash: u64, entry: Entry, secret: &Secret, homeless: &mut Homeless) {
        let block = self.block_of(hash);
        match self.make_place(block, hash, secret) {
            // What is kept aside may end later than its entry says, never earlier.
            Some(place) => self.fill(block, place, hash, entry),
            None => homeless.push((hash, entry)),
        }
    }

    /// The upper half of the hash space, taken off a segment of four blocks.
    #[must_use]
    pub(super) fn split(&mut self) -> Self {
        const HALF: usize = BLOCKS_MAX / 2;
        debug_assert_eq!(self.used(), BLOCKS_MAX);
        self.depth += 1;
        self.used = HALF as u8;
        let mut upper = Self {
            depth: self.depth,
            used: HALF as u8,
            ..Self::default()
        };
        for block in 0..HALF {
            upper.blocks[block] = self.blocks[HALF + block].take();
            upper.counts[block] = std::mem::take(&mut self.counts[HALF + block]);
            upper.dues[block] = std::mem::replace(&mut self.dues[HALF + block], NEVER);
        }
        upper
    }

    /// Gives memory back, one step of it, if there is much more than needed; returns whether it did.
    pub(super) fn shrink(&mut self, secret: &Secret, homeless: &mut Homeless) -> bool {
        if self.len() > self.shrinks_at() || self.used == 0 {
            return false;
        }
        if self.len() == 0 {
            *self = Self {
                depth: self.depth,
                waits: self.waits,
                stashed: self.stashed,
                scheduled: self.scheduled,
                ..Self::default()
            };
            return true;
        }
        if self.used > 1 {
            self.remove_block(secret, homeless);
        } else {
            self.resize(self.block(0).len() / 2, secret, homeless);
        }
        true
    }

    /// How many keys are left when it becomes smaller.
    pub(super) fn shrinks_at(&self) -> usize {
        let slots = match self.used() {
            0 => 0,
            1 => {
                let half = self.block(0).len() / 2;
                if half >= BUCKETS_MIN {
                    half * SLOTS / 2
                } else {
                    0
                }
            }
            used => (used - 1) * BLOCK_SLOTS,
        };
        slots * SHRINKS_TO_PERCENT / 100
    }

    /// Where a block's part of the hash space ends, as a fraction of the segment in 2^-32; the whole
    /// segment's where there is no such block.
    pub(super) fn block_end(&self, block: usize) -> u64 {
        const WHOLE: u64 = 1 << 32;
        if block < self.used() {
            ((block as u64 + 1) * WHOLE).div_ceil(u64::from(self.used))
        } else {
            WHOLE
        }
    }
}
