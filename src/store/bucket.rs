//! Three keys with their deadlines in one cache line of 64 bytes.
//!
//! A slot is 16 bytes of identity, 38 bits of deadline and 3 bits of kind; the five bits that are
//! left count how many keys whose home this bucket is stand far from it (see `block`).
//! Deadlines are milliseconds since the table's own beginning, so 38 bits reach 8 years; what
//! ends later is kept aside and stands here as [`FAR`]. A slot whose deadline is 0 is vacant.
//!
//! Identities are compared whole: they lie in the line that was fetched anyway, so tags of a few
//! hash bits, as other tables keep, would save nothing.

use super::key::{Id, Kind, Packed};

/// Keys in a bucket.
pub(super) const SLOTS: usize = 3;
/// The deadline of a slot whose true deadline is kept aside; also the latest that fits.
pub(super) const FAR: u64 = (1 << END_BITS) - 1;
/// The most keys whose home a bucket is that can stand far from it.
pub(super) const FAR_KEYS_MAX: u32 = (1 << FAR_BITS) - 1;

const END_BITS: u32 = 38;
const LOW_BITS: u32 = 32;
const HIGH_BITS: u32 = END_BITS - LOW_BITS;
const KIND_BITS: u32 = 3;
const FAR_BITS: u32 = 5;
const SLOT_META_BITS: u32 = HIGH_BITS + KIND_BITS;

const _: () = assert!(FAR_BITS + SLOTS as u32 * SLOT_META_BITS == u32::BITS);
const _: () = assert!(size_of::<Bucket>() == 64);

/// One cache line.
#[derive(Clone, Debug, Default)]
#[repr(C, align(64))]
pub(super) struct Bucket {
    ids: [Id; SLOTS],
    /// The lower 32 bits of the deadlines.
    lows: [u32; SLOTS],
    /// From the lowest bit on: keys far; per slot the upper bits of its deadline, its kind.
    meta: u32,
}

/// What a slot holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) packed: Packed,
    pub(super) end: u64,
}

impl Bucket {
    fn meta_shift(slot: usize) -> u32 {
        FAR_BITS + slot as u32 * SLOT_META_BITS
    }

    /// A slot's deadline; 0 if it is vacant.
    #[inline]
    pub(super) fn end(&self, slot: usize) -> u64 {
        let high = self.meta >> Self::meta_shift(slot) & ((1 << HIGH_BITS) - 1);
        u64::from(high) << LOW_BITS | u64::from(self.lows[slot])
    }

    #[inline]
    fn kind_bits(&self, slot: usize) -> u32 {
        self.meta >> (Self::meta_shift(slot) + HIGH_BITS) & ((1 << KIND_BITS) - 1)
    }

    #[inline]
    pub(super) fn entry(&self, slot: usize) -> Entry {
        Entry {
            packed: Packed {
                id: self.ids[slot],
                kind: Kind::of(self.kind_bits(slot)),
            },
            end: self.end(slot),
        }
    }

    #[inline]
    pub(super) fn set(&mut self, slot: usize, entry: Entry) {
        debug_assert!(entry.end <= FAR);
        let meta = (entry.end >> LOW_BITS) as u32 | (entry.packed.kind as u32) << HIGH_BITS;
        let shift = Self::meta_shift(slot);
        let mask = ((1 << SLOT_META_BITS) - 1) << shift;
        self.ids[slot] = entry.packed.id;
        self.lows[slot] = entry.end as u32;
        self.meta = self.meta & !mask | meta << shift;
    }

    /// Sets when a slot's window ends.
    #[inline]
    pub(super) fn set_end(&mut self, slot: usize, end: u64) {
        let packed = self.entry(slot).packed;
        self.set(slot, Entry { packed, end });
    }

    #[inline]
    pub(super) fn vacate(&mut self, slot: usize) {
        let nothing = Packed {
            id: [0; 2],
            kind: Kind::Short,
        };
        self.set(
            slot,
            Entry {
                packed: nothing,
                end: 0,
            },
        );
    }

    /// The slots whose identity begins so, a bit each: those of a key, or by its hash those that refer
    /// to something kept aside; now and then others too.
    ///
    /// Like those below without a branch: which slot it is cannot be foretold, and a branch that is
    /// foretold wrongly waits for the line to come from memory before anything else begins.
    #[inline]
    pub(super) fn begin_with(&self, first: u64) -> u32 {
        Self::mask(|slot| self.ids[slot][0] == first)
    }

    /// Whether a slot has this identity.
    #[inline]
    pub(super) fn is(&self, slot: usize, packed: Packed) -> bool {
        self.ids[slot] == packed.id && self.kind_bits(slot) == packed.kind as u32
    }

    /// Whether a slot refers to something kept aside.
    #[inline]
    pub(super) fn is_aside(&self, slot: usize) -> bool {
        self.kind_bits(slot) == Kind::Aside as u32
    }

    /// The slots that end before this time, vacant ones included.
    #[inline]
    pub(super) fn ended(&self, now: u64) -> u32 {
        Self::mask(|slot| self.end(slot) < now)
    }

    /// The vacant slots.
    #[inline]
    pub(super) fn vacant(&self) -> u32 {
        Self::mask(|slot| self.end(slot) == 0)
    }

    #[inline]
    fn mask(is: impl Fn(usize) -> bool) -> u32 {
        u32::from(is(0)) | u32::from(is(1)) << 1 | u32::from(is(2)) << 2
    }

    /// How many keys whose home this is stand in their other pair of buckets.
    #[inline]
    pub(super) fn far(&self) -> u32 {
        self.meta & FAR_KEYS_MAX
    }

    /// Counts keys that came to stand far, or went.
    #[inline]
    pub(super) fn change_far(&mut self, by: i32) {
        debug_assert!((0..=FAR_KEYS_MAX as i32).contains(&(self.far() as i32 + by)));
        self.meta = self.meta.wrapping_add_signed(by);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn slots_keep_what_they_are_given_and_leave_each_other_alone(
            writes in proptest::collection::vec(
                (0..SLOTS, any::<[u64; 2]>(), 0_u32..8, 1..=FAR, 0..=FAR_KEYS_MAX), 1..50),
        ) {
            let mut bucket = Bucket::default();
            let mut model = [None; SLOTS];
            for (slot, id, kind, end, far) in writes {
                let packed = Packed { id, kind: Kind::of(kind) };
                bucket.set(slot, Entry { packed, end });
                model[slot] = Some((packed, end));
                bucket.change_far(far as i32 - bucket.far() as i32);
                for (slot, held) in model.iter().enumerate() {
                    let entry = bucket.entry(slot);
                    prop_assert_eq!(held.is_none(), entry.end == 0);
                    if let Some((packed, end)) = *held {
                        prop_assert_eq!((entry.packed, entry.end), (packed, end));
                        prop_assert!(bucket.begin_with(packed.id[0]) & 1 << slot != 0);
                        prop_assert!(bucket.is(slot, packed));
                    }
                }
                prop_assert_eq!(bucket.far(), far);
            }
            bucket.vacate(1);
            prop_assert_eq!(bucket.end(1), 0);
            prop_assert!(bucket.vacant() & 2 != 0);
        }
    }
}
