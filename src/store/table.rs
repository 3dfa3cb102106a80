//! Key -> deadline: a directory of segments that grow one at a time.
//!
//! The upper bits of a key's hash choose its segment through the directory, the next ones its
//! block there, the lower ones its buckets. A look takes a line of the directory and two of the segment,
//! which stay in the cache, and a pair of buckets, which with many keys does not.
//!
//! The table was compared with what it replaced, an index of 8-byte slots over entries of 48 bytes
//! that an intrusive wheel knew one by one: 64 to 90 bytes a key instead of 27 to 31, and two to
//! three cache misses a look instead of one.
//!
//! `growth` makes it larger, `stash` holds what growth cannot help, `expiry` finds what has lapsed,
//! `scan` lists. What is live, and what growth is allowed, is the shard's business.

use super::aside::{self, Asides, Content, ContentRef};
use super::block::{self, Place};
use super::bucket::{Entry, FAR};
use super::key::{Key, Kind, Packed, Secret};
use super::pin::{Address, Pins};
use super::segment::{Homeless, Segment};
use super::slab::Slab;
use super::stash::{STASHED_BYTES, Stash, StashKey, Stashed, stash_key};
use super::wheel::{Wheel, due_tick};
use crate::time::Millis;

/// Segments that are made at a time.
pub(super) const SEGMENT_CHUNK: usize = 4;
/// Keys of one shard.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// Segment numbers by the upper `depth` hash bits; empty while there is no key.
    pub(super) directory: Vec<u32>,
    pub(super) depth: u8,
    pub(super) segments: Slab<Segment, SEGMENT_CHUNK>,
    pub(super) segment_count: u32,
    pub(super) len: usize,
    pub(super) block_bytes: usize,
    pub(super) asides: Asides,
    /// What replies may hold of that.
    pub(super) pins: Pins,
    pub(super) stash: Stash,
    pub(super) stash_bytes: usize,
    /// The stashed key behind which the stash is swept next; none at its beginning.
    pub(super) stash_cursor: Option<StashKey>,
    /// Segments by the earliest end in them.
    pub(super) wheel: Wheel,
    /// The segment whose turn it is to give back what lapsed; it is not in the wheel.
    pub(super) sweeping: Option<u32>,
    /// The moment that the slots' times are counted from.
    pub(super) began: i64,
    pub(super) secret: Option<Box<Secret>>,
    /// Lapsed keys that were given back since the shard looked.
    pub(super) lapsed: u64,
    /// Slots that growth, expiry and eviction have looked at.
    pub(super) work_slots: u64,
}

/// Where a key was found.
#[derive(Clone, Copy, Debug)]
enum At {
    Slot(Slot),
    Stash,
}

/// A slot of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) segment: u32,
    pub(super) block: u8,
    pub(super) place: Place,
}

/// A stored key, live or not; valid until the next change of the table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    at: At,
    /// As the slot has it: what it refers to, if it refers to something.
    packed: Packed,
    pub(super) deadline: Millis,
}

/// What one pair of buckets tells of a key.
#[derive(Clone, Copy, Debug)]
pub(super) enum Glance {
    /// It is live, and has no other content than its deadline.
    Live(Millis),
    /// It is not there, and could go here.
    Vacant(Slot),
    /// That takes a closer look.
    Unclear,
}

/// Where a new key could go.
#[derive(Clone, Copy, Debug)]
pub(super) enum Space {
    /// Here; valid until the next change of the table.
    Vacant(Slot),
    /// Where [`Table::grow`] makes room, which takes about so many bytes.
    Grows(usize),
    /// Into the stash.
    Stash,
}

impl Found {
    /// Where the key stands, if it is in a slot.
    pub(super) fn slot(&self) -> Option<Slot> {
        match self.at {
            At::Slot(slot) => Some(slot),
            At::Stash => None,
        }
    }
}

impl Table {
    /// Keys that are stored, whether or not their deadline has passed.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn bytes(&self) -> usize {
        self.block_bytes
            + self.segments.bytes()
            + self.directory.capacity() * size_of::<u32>()
            + self.asides.bytes()
            + self.stash_bytes
            + self.wheel.bytes()
    }

    /// Starts to fetch what [`Table::find`] will look at.
    #[inline]
    pub(super) fn prefetch(&self, hash: u64) {
        if let Some(number) = self.segment_of(hash) {
            let segment = self.segments.get(number);
            if segment.used() > 0 {
                block::prefetch(segment.block(segment.block_of(hash)), hash);
            }
        }
    }

    /// Looks for a key that fits a slot, and for a slot for it, where that can be told from one pair
    /// of buckets; the usual questions need no more.
    #[inline]
    pub(super) fn glance(&self, key: &Key<'_>, now: Millis) -> Glance {
        let Some(number) = self.segment_of(key.hash) else {
            return Glance::Unclear;
        };
        let segment = self.segments.get(number);
        if segment.used() == 0 || key.is_long() {
            return Glance::Unclear;
        }
        let block = segment.block_of(key.hash);
        let buckets = segment.block(block);
        match block::glance(buckets, key.hash, key.packed) {
            block::Glance::Held(place) => {
                let end = buckets[place.bucket()].end(place.slot());
                if self.clock(now) <= end && end < FAR {
                    Glance::Live(self.moment(end))
                } else {
                    Glance::Unclear
                }
            }
            block::Glance::Vacant(place)
                if segment.stashed == 0
                    && !segment.is_full(block)
                    && (self.asides.were_none() || !block::has_asides(buckets, key.hash)) =>
            {
                Glance::Vacant(Slot {
                    segment: number,
                    block: block as u8,
                    place,
                })
            }
            block::Glance::Vacant(_) | block::Glance::Unclear => Glance::Unclear,
        }
    }

    /// Stores a key that fits in the slot that a glance found, if the slot can say the deadline.
    #[inline]
    pub(super) fn insert_plain(
        &mut self,
        key: &Key<'_>,
        slot: Slot,
        deadline: Millis,
        now: Millis,
    ) -> bool {
        let Some(end) = self.end_of(deadline) else {
            return false;
        };
        let packed = key.packed;
        let segment = self.segments.get_mut(slot.segment);
        segment.fill(
            slot.block.into(),
            slot.place,
            key.hash,
            Entry { packed, end },
        );
        self.len += 1;
        self.ends_at(slot, end, now);
        true
    }

    /// The entry of this key, live or not.
    #[inline]
    pub(super) fn find(&self, key: &Key<'_>) -> Option<Found> {
        let number = self.segment_of(key.hash)?;
        let segment = self.segments.get(number);
        if segment.used() == 0 {
            return self.find_stashed(segment, key);
        }
        let block = segment.block_of(key.hash);
        let buckets = segment.block(block);
        let is_it = |packed| self.asides.is(packed, key);
        let Some(place) = block::find(buckets, key.hash, key.packed, is_it) else {
            return self.find_stashed(segment, key);
        };
        let entry = buckets[place.bucket()].entry(place.slot());
        Some(Found {
            at: At::Slot(Slot {
                segment: number,
                block: block as u8,
                place,
            }),
            packed: entry.packed,
            deadline: self.deadline_of(entry),
        })
    }

    #[inline]
    fn find_stashed(&self, segment: &Segment, key: &Key<'_>) -> Option<Found> {
        if segment.stashed == 0 {
            return None;
        }
        self.stash.get(&stash_key(key)).map(|stashed| Found {
            at: At::Stash,
            packed: key.packed,
            deadline: stashed.deadline,
        })
    }

    /// What a stored key holds beside its deadline, if that is anything.
    #[inline]
    pub(super) fn content(&self, found: &Found, key: &Key<'_>) -> Option<ContentRef<'_>> {
        match found.at {
            At::Slot(_) if found.packed.kind == Kind::Aside => self.asides.content(found.packed),
            At::Slot(_) => None,
            At::Stash => self
                .stash
                .get(&stash_key(key))
                .map(|stashed| stashed.content.as_ref()),
        }
    }

    /// Sets when a stored key's window ends.
    pub(super) fn set_deadline(
        &mut self,
        found: &Found,
        key: &Key<'_>,
        deadline: Millis,
        now: Millis,
    ) {
        let At::Slot(slot) = found.at else {
            if let Some(stashed) = self.stash.get_mut(&stash_key(key)) {
                stashed.deadline = deadline;
            }
            return;
        };
        let ends_aside =
            || found.packed.kind == Kind::Aside && self.asides.end(found.packed).is_some();
        match self.end_of(deadline) {
            Some(end) if !ends_aside() => {
                let segment = self.segments.get_mut(slot.segment);
                segment.set_end(slot.block.into(), slot.place, end);
                self.ends_at(slot, end, now);
            }
            _ => {
                let content = self.content(found, key).map(ContentRef::to_owned);
                self.replace(found, key, deadline, content.unwrap_or_default(), now);
            }
        }
    }

    /// Gives a stored key other content.
    pub(super) fn replace(
        &mut self,
        found: &Found,
        key: &Key<'_>,
        deadline: Millis,
        content: Content,
        now: Millis,
    ) {
        let At::Slot(slot) = found.at else {
            let held = self.unstash(&stash_key(key));
            self.let_go_unless(held, &content);
            self.put_in_stash(stash_key(key), Stashed { deadline, content });
            return;
        };
        if found.packed.kind == Kind::Aside {
            let held = self.asides.forget(found.packed);
            self.let_go_unless(held, &content);
        }
        let entry = self.make_entry(key, deadline, content);
        let segment = self.segments.get_mut(slot.segment);
        segment.replace(slot.block.into(), slot.place, entry);
        self.ends_at(slot, entry.end, now);
    }

    /// Replies may hold what lay there, and the store does not any more, unless the new content is that again.
    fn let_go_unless(&mut self, held: Option<Address>, content: &Content) {
        if held.is_some() && held != content.address() {
            self.pins.let_go(held);
        }
    }

    /// Removes a stored key.
    pub(super) fn remove(&mut self, found: &Found, key: &Key<'_>) {
        match found.at {
            At::Slot(slot) => self.take_out(slot, key.hash, found.packed),
            At::Stash => {
                let held = self.unstash(&stash_key(key));
                self.pins.let_go(held);
                self.tidy(None);
            }
        }
    }

    /// Where a key that is not there can go. What has lapsed in its way is given back.
    pub(super) fn space(&mut self, key: &Key<'_>, now: Millis) -> Space {
        let Some(number) = self.segment_of(key.hash) else {
            return Space::Grows(self.first_bytes());
        };
        let segment = self.segments.get(number);
        if segment.used() == 0 {
            return self.growth(number);
        }
        let block = segment.block_of(key.hash);
        let vacant = |place| {
            Space::Vacant(Slot {
                segment: number,
                block: block as u8,
                place,
            })
        };
        let end_now = self.clock(now);
        if block::is_clogged(segment.block(block), key.hash, end_now) {
            for bucket in block::candidates(key.hash, segment.block(block).len()) {
                self.give_back_lapsed(number, block, bucket, now, end_now);
            }
        }
        if !self.segments.get(number).is_full(block)
            && let Some(place) = self.make_place(number, block, key)
        {
            return vacant(place);
        }
        if self.segments.get(number).due(block) < end_now {
            self.sweep_block(number, block, now);
        }
        if !self.segments.get(number).is_full(block)
            && let Some(place) = self.make_place(number, block, key)
        {
            return vacant(place);
        }
        self.growth(number)
    }

    fn make_place(&mut self, number: u32, block: usize, key: &Key<'_>) -> Option<Place> {
        let segment = self.segments.get_mut(number);
        segment.make_place(block, key.hash, key.secret)
    }

    /// Bytes that storing this key adds beside the room for it.
    pub(super) fn content_bytes(
        &self,
        key: &Key<'_>,
        deadline: Millis,
        content: &Content,
    ) -> usize {
        let has_end = self.end_of(deadline).is_none();
        if key.is_long() || has_end || !content.is_nothing() {
            self.asides.growth() + aside::heap_bytes(key, has_end, content)
        } else {
            0
        }
    }

    /// Bytes that this deadline takes beside a slot.
    pub(super) fn end_bytes(&self, key: &Key<'_>, deadline: Millis) -> usize {
        if self.end_of(deadline).is_some() {
            return 0;
        }
        self.content_bytes(key, deadline, &Content::default())
    }

    /// Bytes that storing this key in the stash would add.
    pub(super) fn stash_bytes(key: &Key<'_>) -> usize {
        STASHED_BYTES + key.bytes().len()
    }

    /// Gives back a lapsed key.
    pub(super) fn give_back(&mut self, found: &Found, key: &Key<'_>) {
        let At::Slot(slot) = found.at else {
            let held = self.unstash(&stash_key(key));
            self.pins.let_go(held);
            self.lapsed += 1;
            return;
        };
        self.empty_lapsed(slot, key.hash, found.packed);
    }

    /// Empties the slot of a lapsed key.
    pub(super) fn empty_lapsed(&mut self, slot: Slot, hash: u64, packed: Packed) {
        self.empty(slot, hash, packed);
        self.lapsed += 1;
    }

    /// Empties a slot, and forgets what it refers to.
    fn empty(&mut self, slot: Slot, hash: u64, packed: Packed) {
        if packed.kind == Kind::Aside {
            let held = self.asides.forget(packed);
            self.pins.let_go(held);
        }
        let segment = self.segments.get_mut(slot.segment);
        segment.clear(slot.block.into(), slot.place, hash);
        self.len -= 1;
    }

    /// Stores a key that is not there in the space that was found for it.
    pub(super) fn insert(
        &mut self,
        key: &Key<'_>,
        space: Space,
        deadline: Millis,
        content: Content,
        now: Millis,
    ) {
        self.len += 1;
        if let Space::Vacant(slot) = space {
            let entry = self.make_entry(key, deadline, content);
            let segment = self.segments.get_mut(slot.segment);
            segment.fill(slot.block.into(), slot.place, key.hash, entry);
            self.ends_at(slot, entry.end, now);
        } else {
            self.len -= 1; // `put_in_stash` counts
            self.put_in_stash(stash_key(key), Stashed { deadline, content });
        }
    }

    fn make_entry(&mut self, key: &Key<'_>, deadline: Millis, content: Content) -> Entry {
        let end = self.end_of(deadline);
        let packed = if key.is_long() || end.is_none() || !content.is_nothing() {
            self.asides
                .insert(key, end.is_none().then_some(deadline), content)
        } else {
            key.packed
        };
        Entry {
            packed,
            end: end.unwrap_or(FAR),
        }
    }

    /// Takes everything out of a slot.
    pub(super) fn take_out(&mut self, slot: Slot, hash: u64, packed: Packed) {
        self.empty(slot, hash, packed);
        self.tidy(Some(slot.segment));
    }

    /// Gives back what a segment has become too large for by one key less, and what an empty table holds.
    pub(super) fn tidy(&mut self, number: Option<u32>) {
        if let Some(number) = number {
            self.give_room_back(number);
            let segment = self.segments.get_mut(number);
            if segment.len() > 0 {
                return;
            }
            if std::mem::take(&mut segment.waits) {
                self.wheel.cancel(number);
            }
        }
        if self.len == 0 {
            self.wheel.clear();
            *self = Self {
                wheel: std::mem::take(&mut self.wheel),
                pins: std::mem::take(&mut self.pins),
                lapsed: self.lapsed,
                work_slots: self.work_slots,
                ..Self::default()
            };
        }
    }

    /// Makes a segment smaller by one step, if it has much more room than it needs.
    pub(super) fn give_room_back(&mut self, number: u32) -> bool {
        let mut homeless = Homeless::new();
        let Some(secret) = &self.secret else {
            return false;
        };
        let segment = self.segments.get_mut(number);
        let before = segment.bytes();
        let shrunk = segment.shrink(secret, &mut homeless);
        if shrunk {
            self.block_bytes = self.block_bytes - before + segment.bytes();
            self.work_slots += slots_of(before);
            self.stash_homeless(homeless);
        }
        shrunk
    }

    /// The segment that keys of this hash are in.
    #[inline]
    pub(super) fn segment_of(&self, hash: u64) -> Option<u32> {
        // Shifted in two steps: by 64 at once is not a shift.
        let at = hash >> 1 >> (63 - u32::from(self.depth));
        self.directory.get(at as usize).copied()
    }

    /// How a slot says a deadline; `None` if it cannot.
    #[inline]
    fn end_of(&self, deadline: Millis) -> Option<u64> {
        let end = self.clock(deadline);
        (end < FAR).then_some(end)
    }

    /// A moment as slots count time, but without their bound.
    #[inline]
    pub(super) fn clock(&self, moment: Millis) -> u64 {
        // The end of all time is further away than signed milliseconds reach.
        let moment = moment.0.min(i64::MAX.cast_unsigned()).cast_signed();
        moment.saturating_sub(self.began).max(1).cast_unsigned()
    }

    /// The deadline that a slot's time means.
    #[inline]
    pub(super) fn moment(&self, end: u64) -> Millis {
        self.moment_of()(end)
    }

    /// The same, for use while parts of the table are changed.
    pub(super) fn moment_of(&self) -> impl Fn(u64) -> Millis + use<> {
        let began = self.began;
        move |end| Millis(began.saturating_add_unsigned(end).max(0).cast_unsigned())
    }

    #[inline]
    pub(super) fn deadline_of(&self, entry: Entry) -> Millis {
        if entry.end == FAR
            && entry.packed.kind == Kind::Aside
            && let Some(deadline) = self.asides.end(entry.packed)
        {
            return deadline;
        }
        self.moment(entry.end)
    }

    /// Sees to it that a segment's turn comes when this slot's window ends.
    #[inline]
    fn ends_at(&mut self, slot: Slot, end: u64, now: Millis) {
        let segment = self.segments.get_mut(slot.segment);
        segment.ends_at(slot.block.into(), end);
        if !segment.waits || end < segment.scheduled {
            self.schedule(slot.segment, end, now);
        }
    }

    /// Puts a segment into the wheel, unless it is being swept or has nothing that ends.
    pub(super) fn schedule(&mut self, number: u32, due: u64, now: Millis) {
        let tick = due_tick(self.moment(due));
        let segment = self.segments.get_mut(number);
        if self.sweeping == Some(number) || segment.len() == 0 {
            return;
        }
        if segment.waits {
            self.wheel.cancel(number);
        }
        segment.waits = true;
        segment.scheduled = due;
        self.wheel.catch_up(now);
        self.wheel.schedule(number, tick);
    }
}

/// Slots in so many bytes of blocks.
pub(super) fn slots_of(bytes: usize) -> u64 {
    (bytes / size_of::<super::bucket::Bucket>() * super::bucket::SLOTS) as u64
}
