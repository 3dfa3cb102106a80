//! Key -> entry: a linear-probing index of 8-byte slots over entries that never move.
//!
//! A slot holds 32 bits of the key's hash and the entry's number, so most probes that fail
//! touch no entry, and growing the index reads the slots alone. Removal shifts the following
//! slots back: there are no tombstones, so a table that evicts and inserts for ever keeps its
//! size (hashbrown's, which was tried first, doubles when tombstones use up its spare slots).
//!
//! The table knows deadlines only as something to store. What is live, and what growth is
//! allowed, is the shard's business.

use bytes::Bytes;

use super::key::{Key, StoredKey};
use super::model::Fingerprint;
use super::slab::Slab;
use crate::time::Millis;

/// No entry.
const NONE: u32 = u32::MAX;
/// Slots of the smallest index.
const SLOTS_MIN: usize = 64;
/// Places that an empty table keeps.
const IDLE_PLACES: usize = 64;
/// What an allocator adds to a block, roughly; counted so that the memory bound is honest.
const ALLOCATION_BYTES: usize = 16;

#[derive(Clone, Copy, Debug)]
struct Slot {
    hash: u32,
    at: u32,
}

const EMPTY: Slot = Slot { hash: 0, at: NONE };

/// What few keys have and most do not: kept aside, so that a plain key pays 8 bytes for it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Extra {
    pub(super) fingerprint: Option<Fingerprint>,
    pub(super) value: Option<Bytes>,
}

impl Extra {
    fn boxed(self) -> Option<Box<Self>> {
        (self.fingerprint.is_some() || self.value.is_some()).then(|| Box::new(self))
    }

    /// Bytes on the heap that a fingerprint and a value of this length take.
    pub(super) fn heap_bytes(has_fingerprint: bool, value: Option<usize>) -> usize {
        if !has_fingerprint && value.is_none() {
            return 0;
        }
        size_of::<Self>() + ALLOCATION_BYTES + value.map_or(0, |len| len + 2 * ALLOCATION_BYTES)
    }

    fn own_heap_bytes(&self) -> usize {
        Self::heap_bytes(
            self.fingerprint.is_some(),
            self.value.as_ref().map(Bytes::len),
        )
    }
}

/// One stored key. A vacant entry's `hash` is the number of the next vacant one.
#[derive(Debug, Default)]
pub(super) struct Node {
    key: StoredKey,
    pub(super) deadline: Millis,
    extra: Option<Box<Extra>>,
    hash: u32,
}

impl Node {
    pub(super) fn key(&self) -> &StoredKey {
        &self.key
    }

    pub(super) fn extra(&self) -> Option<&Extra> {
        self.extra.as_deref()
    }

    pub(super) fn is_vacant(&self) -> bool {
        matches!(self.key, StoredKey::Vacant)
    }

    fn heap_bytes(&self) -> usize {
        key_heap_bytes(self.key.heap_bytes())
            + self
                .extra
                .as_ref()
                .map_or(0, |extra| extra.own_heap_bytes())
    }
}

fn key_heap_bytes(len: usize) -> usize {
    if len == 0 { 0 } else { len + ALLOCATION_BYTES }
}

/// The entries of one shard and their index.
#[derive(Debug)]
pub(super) struct Table {
    slots: Vec<Slot>,
    nodes: Slab<Node>,
    vacant: u32,
    len: usize,
    heap_bytes: usize,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            nodes: Slab::default(),
            vacant: NONE,
            len: 0,
            heap_bytes: 0,
        }
    }
}

impl Table {
    /// Keys that are stored, whether or not their deadline has passed.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Numbers from 0 to below this may be entries.
    pub(super) fn places(&self) -> usize {
        self.nodes.len()
    }

    /// The number that the next entry will have.
    pub(super) fn next_place(&self) -> usize {
        if self.vacant == NONE {
            self.places()
        } else {
            self.vacant as usize
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Slot>() + self.nodes.bytes() + self.heap_bytes
    }

    /// Bytes that inserting this key would add.
    pub(super) fn growth(&self, key: &Key<'_>) -> usize {
        let index = if self.is_full() {
            (self.grown_slots() - self.slots.len()) * size_of::<Slot>()
        } else {
            0
        };
        let nodes = if self.vacant == NONE {
            Slab::<Node>::CHUNK_BYTES
        } else {
            0
        };
        index + nodes + key_heap_bytes(key.heap_bytes())
    }

    pub(super) fn node(&self, at: u32) -> &Node {
        self.nodes.get(at)
    }

    pub(super) fn set_deadline(&mut self, at: u32, deadline: Millis) {
        self.nodes.get_mut(at).deadline = deadline;
    }

    pub(super) fn set_extra(&mut self, at: u32, extra: Extra) {
        let node = self.nodes.get_mut(at);
        self.heap_bytes -= node.heap_bytes();
        node.extra = extra.boxed();
        self.heap_bytes += node.heap_bytes();
    }

    /// The entry of this key, live or not.
    pub(super) fn find(&self, key: &Key<'_>) -> Option<u32> {
        let mask = self.slots.len().checked_sub(1)?;
        let hash = key.hash as u32;
        let mut i = hash as usize & mask;
        loop {
            let slot = self.slots[i];
            if slot.at == NONE {
                return None;
            }
            if slot.hash == hash && self.nodes.get(slot.at).key.is(key) {
                return Some(slot.at);
            }
            i = (i + 1) & mask;
        }
    }

    /// Adds a key that is not there yet; returns its entry's number.
    pub(super) fn insert(&mut self, key: &Key<'_>, deadline: Millis, extra: Extra) -> u32 {
        debug_assert!(self.find(key).is_none(), "a key has one entry");
        if self.is_full() {
            self.grow_index();
        }
        let at = self.take_vacant();
        let node = self.nodes.get_mut(at);
        *node = Node {
            key: key.to_stored(),
            deadline,
            extra: extra.boxed(),
            hash: key.hash as u32,
        };
        self.heap_bytes += node.heap_bytes();
        let slot = Slot {
            hash: node.hash,
            at,
        };
        place(&mut self.slots, slot);
        self.len += 1;
        at
    }

    /// Removes an entry and makes its number free for another.
    pub(super) fn remove(&mut self, at: u32) {
        self.unindex(at);
        let next = self.vacant;
        let node = self.nodes.get_mut(at);
        self.heap_bytes -= node.heap_bytes();
        *node = Node {
            hash: next,
            ..Node::default()
        };
        self.vacant = at;
        self.len -= 1;
        if self.len == 0 && self.places() > IDLE_PLACES {
            // Nothing is left to move, so all memory can go back at once; a little is kept for
            // the next key, or a lone key that comes and goes would allocate each time.
            *self = Self::default();
        }
    }

    fn is_full(&self) -> bool {
        // At most three slots in four are used: with linear probing a failed search then looks
        // at about nine neighbouring slots, one or two cache lines.
        (self.len + 1) * 4 > self.slots.len() * 3
    }

    fn grown_slots(&self) -> usize {
        (self.slots.len() * 2).max(SLOTS_MIN)
    }

    fn grow_index(&mut self) {
        let mut grown = vec![EMPTY; self.grown_slots()];
        for slot in self.slots.iter().filter(|slot| slot.at != NONE) {
            place(&mut grown, *slot);
        }
        self.slots = grown;
    }

    fn take_vacant(&mut self) -> u32 {
        if self.vacant == NONE {
            let first = self.nodes.len() as u32;
            self.nodes.grow();
            for at in (first..self.nodes.len() as u32).rev() {
                self.nodes.get_mut(at).hash = self.vacant;
                self.vacant = at;
            }
        }
        let at = self.vacant;
        self.vacant = self.nodes.get(at).hash;
        at
    }

    /// Takes an entry's slot out and moves those behind it back to where a search expects them.
    fn unindex(&mut self, at: u32) {
        let mask = self.slots.len() - 1;
        let mut hole = self.nodes.get(at).hash as usize & mask;
        while self.slots[hole].at != at {
            hole = (hole + 1) & mask;
        }
        let mut i = (hole + 1) & mask;
        while self.slots[i].at != NONE {
            let wanted = self.slots[i].hash as usize & mask;
            // A slot may move into the hole if the place it wants is not between the hole and itself.
            if (i.wrapping_sub(wanted) & mask) >= (i.wrapping_sub(hole) & mask) {
                self.slots[hole] = self.slots[i];
                hole = i;
            }
            i = (i + 1) & mask;
        }
        self.slots[hole] = EMPTY;
    }
}

fn place(slots: &mut [Slot], slot: Slot) {
    let mask = slots.len() - 1;
    let mut i = slot.hash as usize & mask;
    while slots[i].at != NONE {
        i = (i + 1) & mask;
    }
    slots[i] = slot;
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::store::key::{SECRET_BYTES, Secret};

    /// Keys whose hashes agree in their lower 32 bits wherever `clash` says so.
    fn key(secret: &Secret, bytes: &'static [u8], clash: bool) -> Key<'static> {
        let mut key = secret.key(bytes);
        if clash {
            key.hash = 5;
        }
        key
    }

    proptest! {
        #[test]
        fn the_table_is_a_map(steps in proptest::collection::vec((0_u8..120, any::<bool>(), any::<bool>()), 1..600)) {
            let secret = Secret::new([3; SECRET_BYTES]);
            let names: Vec<&'static [u8]> = (0..120_u8).map(|n| &*Box::leak(vec![b'k', n].into_boxed_slice())).collect();
            let mut table = Table::default();
            let mut model: HashMap<u8, u64> = HashMap::new();
            for (i, (name, insert, _)) in steps.iter().enumerate() {
                // Half of all keys share one hash: probing and shifting get long runs to work on.
                let key = key(&secret, names[*name as usize], name % 2 == 0);
                match (table.find(&key), insert) {
                    (None, true) => {
                        table.insert(&key, Millis(i as u64), Extra::default());
                        model.insert(*name, i as u64);
                    }
                    (Some(at), false) => {
                        table.remove(at);
                        model.remove(name);
                    }
                    (found, _) => prop_assert_eq!(found.is_some(), model.contains_key(name)),
                }
                prop_assert_eq!(table.len(), model.len());
            }
            for name in 0..120_u8 {
                let found = table.find(&key(&secret, names[name as usize], name % 2 == 0));
                prop_assert_eq!(found.map(|at| table.node(at).deadline.0), model.get(&name).copied());
            }
        }
    }

    #[test]
    fn bytes_rise_and_fall_by_what_growth_announces() {
        let secret = Secret::new([3; SECRET_BYTES]);
        let mut table = Table::default();
        let long = [b'x'; 1_000];
        for n in 0..1_000_u32 {
            let mut bytes = long.to_vec();
            bytes[..4].copy_from_slice(&n.to_le_bytes());
            let key = secret.key(&bytes);
            let (before, growth) = (table.bytes(), table.growth(&key));
            table.insert(&key, Millis(1), Extra::default());
            assert_eq!(table.bytes(), before + growth, "key {n}");
        }
        for at in 0..1_000 {
            table.remove(at);
        }
        assert_eq!((table.len(), table.bytes()), (0, 0));
    }

    #[test]
    fn evicting_and_inserting_for_ever_keeps_the_size() {
        let secret = Secret::new([3; SECRET_BYTES]);
        let mut table = Table::default();
        let mut held = std::collections::VecDeque::new();
        let mut settled = 0;
        for n in 0..100_000_u64 {
            if held.len() == 1_000 {
                table.remove(held.pop_front().unwrap());
            }
            held.push_back(table.insert(
                &secret.key(&n.to_le_bytes()),
                Millis(1),
                Extra::default(),
            ));
            if n == 2_000 {
                settled = table.bytes();
            }
        }
        assert_eq!(table.bytes(), settled);
    }
}
