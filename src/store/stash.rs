//! Keys for which no growth would make a place: many that share their buckets, by bad luck or
//! because somebody can steer hashes.
//!
//! An ordered map, so that nobody can make a look slow; ordered by hash, so that a scan finds them in
//! its order. A segment counts its own, and where there is none, nobody looks here.

use std::collections::BTreeMap;

use super::aside::{Content, RichKey};
use super::key::{Id, Key, Kind, Packed};
use super::pin::Address;
use super::segment::Homeless;
use super::table::Table;
use crate::time::Millis;

/// Bytes of a stashed key, roughly, beside its content.
pub(super) const STASHED_BYTES: usize = 128;

/// The stash of one table.
pub(super) type Stash = BTreeMap<StashKey, Stashed>;

/// A stashed key: its hash first, so that a scan finds it in order, then what it is.
pub(super) type StashKey = (u64, Id, u8, Box<[u8]>);

/// What is known of a stashed key.
#[derive(Debug)]
pub(super) struct Stashed {
    pub(super) deadline: Millis,
    pub(super) content: Content,
}

impl Stashed {
    /// Bytes that it takes under this key.
    pub(super) fn bytes(&self, key: &StashKey) -> usize {
        let content = match &self.content {
            Content::Marker(extra) => extra.value.as_ref().map_or(0, bytes::Bytes::len),
            Content::Record(record) => record.heap_bytes(),
        };
        STASHED_BYTES + key.3.len() + content
    }

    /// Whether it is a record, which is never evicted.
    pub(super) fn is_record(&self) -> bool {
        matches!(self.content, Content::Record(_))
    }
}

impl Table {
    /// Takes in what found no place when a segment was rearranged.
    pub(super) fn stash_homeless(&mut self, homeless: Homeless) {
        for (hash, entry) in homeless {
            let deadline = self.deadline_of(entry);
            let (mut key, mut content) = (None, Content::default());
            if entry.packed.kind == Kind::Aside {
                let (held, rest) = self.asides.take(entry.packed);
                (key, content) = (held, rest);
            }
            let key = match key {
                Some(RichKey::Long(bytes)) => (hash, [0; 2], Kind::Aside as u8, bytes),
                Some(RichKey::Packed(packed)) => stash_key_of(hash, packed),
                None => stash_key_of(hash, entry.packed),
            };
            self.len -= 1;
            self.put_in_stash(key, Stashed { deadline, content });
        }
    }

    /// Puts a key into the stash, and counts it.
    pub(super) fn put_in_stash(&mut self, key: StashKey, stashed: Stashed) {
        if let Some(number) = self.segment_of(key.0) {
            self.segments.get_mut(number).stashed += 1;
        }
        self.stash_bytes += stashed.bytes(&key);
        self.len += 1;
        self.stash.insert(key, stashed);
    }

    /// Takes a key out of the stash; returns where lies what replies may hold of it.
    pub(super) fn unstash(&mut self, key: &StashKey) -> Option<Address> {
        let stashed = self.stash.remove(key)?;
        if let Some(number) = self.segment_of(key.0) {
            self.segments.get_mut(number).stashed -= 1;
        }
        self.stash_bytes -= stashed.bytes(key);
        self.len -= 1;
        stashed.content.address()
    }
}

/// A key as the stash knows it.
pub(super) fn stash_key(key: &Key<'_>) -> StashKey {
    if key.is_long() {
        (key.hash, [0; 2], Kind::Aside as u8, key.bytes().into())
    } else {
        stash_key_of(key.hash, key.packed)
    }
}

/// The same, of a key that fits.
fn stash_key_of(hash: u64, packed: Packed) -> StashKey {
    (hash, packed.id, packed.kind as u8, Box::default())
}
