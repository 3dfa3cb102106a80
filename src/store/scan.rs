//! Listing keys in the order of their hashes, so that growth between two calls loses none.
//!
//! A cursor is a position among the upper 32 bits of all hashes. Segments and blocks divide the
//! hash space in order, so "everything before the cursor was visited" stays true however they are
//! split or merged meanwhile: a key that stays is visited once.

use super::aside::ContentRef;
use super::block;
use super::bucket::SLOTS;
use super::kept::StoredRecord;
use super::key::{Kind, Packed};
use super::segment::BLOCKS_MAX;
use super::table::Table;
use crate::time::Millis;

/// A stored key that a scan visits.
#[derive(Debug)]
pub struct StoredKeyRef<'a> {
    table: &'a Table,
    packed: Packed,
    long: &'a [u8],
    /// What a key in the stash holds; that of others is found by what is packed.
    stashed: Option<ContentRef<'a>>,
}

impl<'a> StoredKeyRef<'a> {
    /// The record that it holds, if that is running.
    pub(super) fn running(&self) -> Option<&'a StoredRecord> {
        let content = match self.packed.kind {
            _ if self.stashed.is_some() => self.stashed,
            Kind::Aside => self.table.asides.content(self.packed),
            _ => None,
        };
        match content? {
            ContentRef::Record(record) if record.is_running() => Some(record),
            ContentRef::Record(_) | ContentRef::Marker(_) => None,
        }
    }

    /// Appends the key's bytes, as they were sent; false, and nothing, if only its digest is known.
    pub fn write_to(&self, out: &mut Vec<u8>) -> bool {
        if !self.long.is_empty() {
            out.extend_from_slice(self.long);
            return true;
        }
        match self.packed.kind {
            Kind::Aside => self.table.asides.write_key(self.packed, out),
            _ => self.packed.write_to(out),
        }
    }
}

/// The hashes from `begins` on, and before `ends`, by their upper 32 bits.
#[derive(Clone, Copy)]
struct Part {
    begins: u64,
    ends: u64,
}

impl Part {
    fn has(self, hash: u64) -> bool {
        (self.begins..self.ends).contains(&(hash >> 32))
    }
}

/// One more than the last position.
const END: u64 = 1 << 32;

/// What one step of a scan came to.
#[derive(Clone, Copy, Debug)]
pub struct Scanned {
    /// Where to go on; `None` at the end.
    pub next: Option<u32>,
    /// Slots that were looked at: those of whole blocks, however small a part of one was visited.
    pub slots: usize,
}

impl Table {
    /// Visits live keys from the cursor on, in about so many slots.
    pub(super) fn scan(
        &self,
        cursor: u32,
        slots_max: u32,
        now: Millis,
        mut visit: impl FnMut(&StoredKeyRef<'_>),
    ) -> Scanned {
        let begins = u64::from(cursor);
        let Some(first) = self.block_at(begins << 32) else {
            return Scanned {
                next: None,
                slots: 0,
            };
        };
        // A part of the block's hash space, in proportion to the slots that may be looked at. Of the whole
        // block's: a share of what is left would become smaller from call to call.
        let width = first.ends.saturating_sub(first.begins >> 32);
        let share = (width * u64::from(slots_max)).div_ceil(first.slots);
        let left = first.ends.saturating_sub(begins);
        let ends = begins + share.min(left).max(1);
        let part = Part { begins, ends };
        let mut slots = self.scan_block(&first, part, now, &mut visit);
        // A position may lie across the border of two blocks.
        if let Some(last) = self.block_at((ends << 32).wrapping_sub(1))
            && (last.segment, last.block) != (first.segment, first.block)
        {
            slots += self.scan_block(&last, part, now, &mut visit);
        }
        self.scan_stash(part, now, &mut visit);
        Scanned {
            next: (ends < END).then_some(ends as u32),
            slots,
        }
    }

    /// Visits those of a block that are in the part; returns how many slots it looked at.
    fn scan_block(
        &self,
        at: &BlockAt,
        part: Part,
        now: Millis,
        visit: &mut impl FnMut(&StoredKeyRef<'_>),
    ) -> usize {
        let (Some(block), Some(secret)) = (at.block, &self.secret) else {
            return 0;
        };
        let is_whole = at.begins >= part.begins << 32 && at.ends <= part.ends;
        for (_, entry) in block::entries(self.segments.get(at.segment).block(block)) {
            let is_in = is_whole || part.has(block::hash_of(entry.packed, secret));
            if is_in && now <= self.deadline_of(entry) {
                visit(&StoredKeyRef {
                    table: self,
                    packed: entry.packed,
                    long: &[],
                    stashed: None,
                });
            }
        }
        at.slots as usize
    }

    fn scan_stash(&self, part: Part, now: Millis, visit: &mut impl FnMut(&StoredKeyRef<'_>)) {
        let from = (part.begins << 32, [0; 2], 0, Box::default());
        let stashed = self.stash.range(from..);
        for ((_, id, kind, long), stashed) in stashed.take_while(|((hash, ..), _)| part.has(*hash))
        {
            if now <= stashed.deadline {
                visit(&StoredKeyRef {
                    table: self,
                    packed: Packed {
                        id: *id,
                        kind: Kind::of(u32::from(*kind)),
                    },
                    long,
                    stashed: Some(stashed.content.as_ref()),
                });
            }
        }
    }

    /// The block that this hash belongs to; `None` if there is no key at all.
    fn block_at(&self, hash: u64) -> Option<BlockAt> {
        let number = self.segment_of(hash)?;
        let segment = self.segments.get(number);
        let block = (segment.used() > 0).then(|| segment.block_of(hash));
        let depth = u32::from(segment.depth);
        // As a fraction of the segment, then of the whole; 65 bits, since the end of all is 2^64.
        let ends = segment.block_end(block.unwrap_or(BLOCKS_MAX));
        let segment_begins = (hash >> 1 >> (63 - depth)) << (32 - depth);
        let slots = block.map_or(1, |block| segment.block(block).len() * SLOTS);
        let begins = block.and_then(|block| block.checked_sub(1));
        let begins = begins.map_or(0, |before| segment.block_end(before));
        Some(BlockAt {
            segment: number,
            block,
            begins: (segment_begins << 32) + (begins << (32 - depth)),
            ends: segment_begins + (ends >> depth),
            slots: slots as u64,
        })
    }
}

/// A block, and the part of the hash space that it has.
struct BlockAt {
    segment: u32,
    /// None if the segment is empty.
    block: Option<usize>,
    /// The first hash of the block's part.
    begins: u64,
    /// The position in which the block ends, or before which.
    ends: u64,
    slots: u64,
}
