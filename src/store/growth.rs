//! How a table gets larger: the first segment, more room in one, one more segment.
//!
//! Each step is asked for by [`Space::Grows`] with the bytes that it takes, so that the owner can
//! refuse it, and touches one segment. The directory doubles now and then, which copies 4 bytes for
//! some 2,000 keys.

use super::key::{Key, Secret};
use super::memory::{BLOCK_BUCKETS, Buckets};
use super::segment::{Growth, Homeless, Segment};
use super::slab::Slab;
use super::table::{SEGMENT_CHUNK, Space, Table, slots_of};
use crate::time::Millis;

/// Hash bits that choose a segment at most: 16 million segments in one shard.
const DEPTH_MAX: u8 = 24;
/// Places of the directory for each segment beyond which it does not double. The densest part of the
/// hash space is twice as dense as the thinnest, so there are four at most where nobody steers hashes.
const PLACES_PER_SEGMENT_MAX: usize = 16;
/// How far before the first key's coming time is counted from, so that an end in the recent past
/// can be told.
const BEFORE_FIRST_MS: i64 = 1 << 20;
impl Table {
    /// Bytes that an empty table takes for its first key.
    pub(super) fn first_bytes(&self) -> usize {
        let segments = Slab::<Segment, SEGMENT_CHUNK>::CHUNK_BYTES;
        segments + size_of::<u32>() + slots_bytes_min() + self.wheel.growth(0)
    }

    /// How room is made in a segment where a key found no place.
    pub(super) fn growth(&self, number: u32) -> Space {
        let segment = self.segments.get(number);
        match segment.growth() {
            Growth::Resize(buckets) => Space::Grows(Buckets::bytes_of(buckets) - segment.bytes()),
            Growth::Block => Space::Grows(Buckets::bytes_of(BLOCK_BUCKETS)),
            Growth::Split if self.may_split(segment) => {
                let doubles = segment.depth == self.depth;
                let directory = if doubles {
                    size_of::<u32>() << self.depth
                } else {
                    0
                };
                let places = self.segments.len() == self.segment_count as usize;
                let segments = if places {
                    Slab::<Segment, SEGMENT_CHUNK>::CHUNK_BYTES
                } else {
                    0
                };
                Space::Grows(directory + segments + self.wheel.growth(self.segment_count as usize))
            }
            Growth::Split | Growth::Useless => Space::Stash,
        }
    }

    /// Whether a segment may become two: not where the directory would have far more places than there
    /// are segments. Hashes that nobody steers never come near that.
    fn may_split(&self, segment: &Segment) -> bool {
        let doubles = segment.depth == self.depth;
        let places = self.directory.len() / PLACES_PER_SEGMENT_MAX;
        segment.depth < DEPTH_MAX && (!doubles || places < self.segment_count as usize)
    }

    /// Takes the step of growth that [`Table::space`] asked for.
    pub(super) fn grow(&mut self, key: &Key<'_>, now: Millis) {
        self.wheel.catch_up(now);
        let Some(number) = self.segment_of(key.hash) else {
            self.begin(key.secret, now);
            return;
        };
        let mut homeless = Homeless::new();
        let may_split = self.may_split(self.segments.get(number));
        let segment = self.segments.get_mut(number);
        let before = segment.bytes();
        match segment.growth() {
            Growth::Resize(buckets) => segment.resize(buckets, key.secret, &mut homeless),
            Growth::Block => segment.add_block(key.secret, &mut homeless),
            Growth::Split if may_split => self.split(number, key.hash, now),
            Growth::Split | Growth::Useless => {}
        }
        let after = self.segments.get(number).bytes();
        if after > before {
            self.block_bytes += after - before;
            self.work_slots += slots_of(after);
        }
        self.stash_homeless(homeless);
    }

    fn begin(&mut self, secret: &Secret, now: Millis) {
        self.began = now.0.cast_signed() - BEFORE_FIRST_MS;
        self.secret = Some(Box::new(secret.clone()));
        self.segments.grow();
        self.segment_count = 1;
        self.directory.push(0);
        let mut homeless = Homeless::new();
        let segment = self.segments.get_mut(0);
        if let Growth::Resize(buckets) = segment.growth() {
            segment.resize(buckets, secret, &mut homeless);
        }
        self.block_bytes = segment.bytes();
    }

    /// Splits the segment of this number, in which keys of this hash are.
    fn split(&mut self, number: u32, hash: u64, now: Millis) {
        let upper = self.segments.get_mut(number).split();
        let upper_number = self.segment_count;
        if self.segments.len() == upper_number as usize {
            self.segments.grow();
        }
        self.segment_count += 1;
        if upper.depth > self.depth {
            self.directory = self.directory.iter().flat_map(|&n| [n, n]).collect();
            self.depth += 1;
        }
        // The entries of a segment lie side by side; the upper half of them is the new one's.
        let prefix = (hash >> (64 - u32::from(upper.depth))) | 1;
        let span = 1 << (self.depth - upper.depth);
        let first = prefix as usize * span;
        self.directory[first..first + span].fill(upper_number);
        let begins = prefix << (64 - u32::from(upper.depth));
        let (_, due) = upper.earliest();
        *self.segments.get_mut(upper_number) = upper;
        // The stash is ordered by hash.
        let from = (begins, [0; 2], 0, Box::default());
        let ends = begins | (u64::MAX >> self.segments.get(number).depth);
        let stashed = self
            .stash
            .range(from..)
            .take_while(|((hash, ..), _)| *hash <= ends);
        let stashed = stashed.count() as u32;
        self.segments.get_mut(number).stashed -= stashed;
        self.segments.get_mut(upper_number).stashed = stashed;
        self.schedule(upper_number, due, now);
    }
}

fn slots_bytes_min() -> usize {
    // What `Segment::growth` asks for where there is no block.
    match Segment::default().growth() {
        Growth::Resize(buckets) => Buckets::bytes_of(buckets),
        _ => 0,
    }
}
