//! What does not fit a slot: long keys, values, fingerprints, ends beyond a slot's reach.
//!
//! A slot that refers to something kept here holds the key's hash and the number of its place
//! here. A long key that has nothing else costs 24 bytes and its own length beside the slot.

use bytes::Bytes;

use super::key::{Id, Key, Kind, Packed};
use super::model::Fingerprint;
use super::slab::Slab;
use crate::time::Millis;

/// No place.
const NONE: u32 = u32::MAX;
/// Places that are made at a time.
const CHUNK: usize = 32;
/// What an allocator adds to a block, roughly; counted so that the memory bound is honest.
const ALLOCATION_BYTES: usize = 16;

/// What few keys have and most do not.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Extra {
    pub(super) fingerprint: Option<Fingerprint>,
    pub(super) value: Option<Bytes>,
}

impl Extra {
    pub(super) fn is_nothing(&self) -> bool {
        self.fingerprint.is_none() && self.value.is_none()
    }
}

/// One thing that is kept aside.
#[derive(Debug)]
enum Aside {
    /// Nothing; the number of the next vacant place.
    Vacant(u32),
    /// A long key, with nothing else to say of it.
    Long(Box<[u8]>),
    Rich(Box<Rich>),
}

impl Default for Aside {
    fn default() -> Self {
        Self::Vacant(NONE)
    }
}

#[derive(Debug)]
struct Rich {
    key: RichKey,
    /// When it ends, where the slot cannot say.
    end: Option<Millis>,
    extra: Extra,
}

/// A key, where the slot does not hold it.
#[derive(Debug)]
pub(super) enum RichKey {
    Packed(Packed),
    Long(Box<[u8]>),
}

impl RichKey {
    fn of(key: &Key<'_>) -> Self {
        if key.is_long() {
            Self::Long(key.bytes().into())
        } else {
            Self::Packed(key.packed)
        }
    }
}

/// Bytes on the heap that keeping this aside takes, beside its place.
pub(super) fn heap_bytes(key: &Key<'_>, has_end: bool, extra: &Extra) -> usize {
    let rich = (has_end || !extra.is_nothing()).then_some(extra);
    heap_bytes_of(key.is_long().then(|| key.bytes().len()), rich)
}

/// The same of a long key's length and of what else there is to say.
fn heap_bytes_of(long: Option<usize>, rich: Option<&Extra>) -> usize {
    let allocated = |len: usize| len + ALLOCATION_BYTES;
    let rich = rich.map_or(0, |extra| {
        let value = extra.value.as_ref();
        let value = value.map_or(0, |value| allocated(value.len() + ALLOCATION_BYTES));
        allocated(size_of::<Rich>()) + value
    });
    long.map_or(0, allocated) + rich
}

impl Aside {
    fn heap_bytes(&self) -> usize {
        match self {
            Self::Vacant(_) => 0,
            Self::Long(key) => heap_bytes_of(Some(key.len()), None),
            Self::Rich(rich) => {
                let long = match &rich.key {
                    RichKey::Long(key) => Some(key.len()),
                    RichKey::Packed(_) => None,
                };
                heap_bytes_of(long, Some(&rich.extra))
            }
        }
    }
}

/// All that one table keeps aside.
#[derive(Debug)]
pub(super) struct Asides {
    places: Slab<Aside, CHUNK>,
    vacant: u32,
    heap_bytes: usize,
}

impl Default for Asides {
    fn default() -> Self {
        Self {
            places: Slab::default(),
            vacant: NONE,
            heap_bytes: 0,
        }
    }
}

/// The number of the place that a slot refers to.
#[inline]
pub(super) fn number(packed: Packed) -> u32 {
    debug_assert_eq!(packed.kind, Kind::Aside);
    packed.id[1] as u32
}

impl Asides {
    /// Whether nothing has been kept aside since the table was empty.
    #[inline]
    pub(super) fn were_none(&self) -> bool {
        self.places.len() == 0
    }

    pub(super) fn bytes(&self) -> usize {
        self.places.bytes() + self.heap_bytes
    }

    /// Bytes that one more place would add.
    pub(super) fn growth(&self) -> usize {
        if self.vacant == NONE {
            Slab::<Aside, CHUNK>::CHUNK_BYTES
        } else {
            0
        }
    }

    /// Keeps something aside; returns what the slot is to hold.
    pub(super) fn insert(&mut self, key: &Key<'_>, end: Option<Millis>, extra: Extra) -> Packed {
        if self.vacant == NONE {
            self.add_places();
        }
        let at = self.vacant;
        let aside = if extra.is_nothing() && end.is_none() && key.is_long() {
            Aside::Long(key.bytes().into())
        } else {
            let key = RichKey::of(key);
            Aside::Rich(Box::new(Rich { key, end, extra }))
        };
        self.heap_bytes += aside.heap_bytes();
        let place = self.places.get_mut(at);
        if let Aside::Vacant(next) = std::mem::replace(place, aside) {
            self.vacant = next;
        }
        let id: Id = [key.hash, u64::from(at)];
        Packed {
            id,
            kind: Kind::Aside,
        }
    }

    fn add_places(&mut self) {
        let first = self.places.len() as u32;
        self.places.grow();
        for at in (first..self.places.len() as u32).rev() {
            *self.places.get_mut(at) = Aside::Vacant(self.vacant);
            self.vacant = at;
        }
    }

    /// Takes out what a slot refers to: the key, and what else there was to say of it.
    pub(super) fn take(&mut self, packed: Packed) -> (Option<RichKey>, Extra) {
        match self.remove(packed) {
            Aside::Vacant(_) => (None, Extra::default()),
            Aside::Long(key) => (Some(RichKey::Long(key)), Extra::default()),
            Aside::Rich(rich) => (Some(rich.key), rich.extra),
        }
    }

    /// Forgets what a slot refers to.
    pub(super) fn forget(&mut self, packed: Packed) {
        drop(self.remove(packed));
    }

    fn remove(&mut self, packed: Packed) -> Aside {
        let at = number(packed);
        let place = self.places.get_mut(at);
        let removed = std::mem::replace(place, Aside::Vacant(self.vacant));
        self.vacant = at;
        self.heap_bytes -= removed.heap_bytes();
        removed
    }

    /// Whether a slot refers to this key.
    pub(super) fn is(&self, packed: Packed, key: &Key<'_>) -> bool {
        match self.places.get(number(packed)) {
            Aside::Vacant(_) => false,
            Aside::Long(held) => key.is_long() && **held == *key.bytes(),
            Aside::Rich(rich) => match &rich.key {
                RichKey::Packed(held) => *held == key.packed,
                RichKey::Long(held) => key.is_long() && **held == *key.bytes(),
            },
        }
    }

    /// What else there is to say of what a slot refers to.
    pub(super) fn extra(&self, packed: Packed) -> Option<&Extra> {
        match self.places.get(number(packed)) {
            Aside::Rich(rich) => Some(&rich.extra),
            Aside::Vacant(_) | Aside::Long(_) => None,
        }
    }

    /// When it ends, where the slot cannot say.
    pub(super) fn end(&self, packed: Packed) -> Option<Millis> {
        match self.places.get(number(packed)) {
            Aside::Rich(rich) => rich.end,
            Aside::Vacant(_) | Aside::Long(_) => None,
        }
    }

    /// Asserts that just these places are in use, and that their bytes add up.
    #[cfg(test)]
    pub(super) fn check(&self, used: &std::collections::BTreeSet<u32>) {
        let numbers = 0..self.places.len() as u32;
        let is_used = |&at: &u32| !matches!(self.places.get(at), Aside::Vacant(_));
        assert!(numbers.clone().filter(is_used).eq(used.iter().copied()));
        let bytes: usize = numbers.map(|at| self.places.get(at).heap_bytes()).sum();
        assert_eq!(self.heap_bytes, bytes);
        let mut vacant = 0;
        let mut at = self.vacant;
        while at != NONE {
            let Aside::Vacant(next) = *self.places.get(at) else {
                panic!("place {at} is said to be vacant");
            };
            (at, vacant) = (next, vacant + 1);
        }
        assert_eq!(vacant + used.len(), self.places.len());
    }

    /// Appends the key's original bytes; false if only a digest of them is known.
    pub(super) fn write_key(&self, packed: Packed, out: &mut Vec<u8>) -> bool {
        match self.places.get(number(packed)) {
            Aside::Vacant(_) => return false,
            Aside::Long(key) => out.extend_from_slice(key),
            Aside::Rich(rich) => match &rich.key {
                RichKey::Packed(packed) => return packed.write_to(out),
                RichKey::Long(key) => out.extend_from_slice(key),
            },
        }
        true
    }
}
