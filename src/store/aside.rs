//! What does not fit a slot: long keys, values, fingerprints, records, ends beyond a slot's reach.
//!
//! A slot that refers to something kept here holds the key's hash and the number of its place
//! here. A long key that has nothing else costs 24 bytes and its own length beside the slot.

use bytes::Bytes;

use super::kept::StoredRecord;
use super::key::{Id, Key, Kind, Packed};
use super::model::Fingerprint;
use super::pin::Address;
use super::slab::Slab;
use crate::limits::SHARED_VALUE_BYTES_MIN;
use crate::time::Millis;

/// No place.
const NONE: u32 = u32::MAX;
/// Places that are made at a time.
const CHUNK: usize = 32;
/// Larger ones are not moved: few of them share a page, and replies that share them know them by their place.
const MOVED_BYTES_MAX: usize = SHARED_VALUE_BYTES_MIN - 1;
/// Places that one step of moving looks at, at most.
const MOVE_PLACES_MAX: usize = 512;
/// Bytes after which such a step ends.
const MOVE_BYTES_MAX: usize = 64 << 10;
/// What an allocator adds to a block, roughly; counted so that the memory bound is honest.
const ALLOCATION_BYTES: usize = 16;

/// What few markers have and most do not.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Extra {
    pub(super) fingerprint: Option<Fingerprint>,
    pub(super) value: Option<Bytes>,
}

/// What a key holds beside its deadline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Content {
    /// It is a marker.
    Marker(Extra),
    Record(StoredRecord),
}

/// The same where it is kept; a marker without more to it has none.
#[derive(Debug, Clone, Copy)]
pub(super) enum ContentRef<'a> {
    Marker(&'a Extra),
    Record(&'a StoredRecord),
}

impl Default for Content {
    fn default() -> Self {
        Self::Marker(Extra::default())
    }
}

impl Content {
    pub(super) fn is_nothing(&self) -> bool {
        matches!(self, Self::Marker(extra) if extra.fingerprint.is_none() && extra.value.is_none())
    }

    /// Where what replies may hold of it lies.
    pub(super) fn address(&self) -> Option<Address> {
        self.as_ref().address()
    }

    pub(super) fn as_ref(&self) -> ContentRef<'_> {
        match self {
            Self::Marker(extra) => ContentRef::Marker(extra),
            Self::Record(record) => ContentRef::Record(record),
        }
    }
}

impl ContentRef<'_> {
    /// Where what replies may hold of it lies.
    pub(super) fn address(self) -> Option<Address> {
        match self {
            Self::Marker(extra) => Address::of(extra.value.as_ref()?),
            Self::Record(record) => Address::of(record.as_ref()),
        }
    }

    pub(super) fn to_owned(self) -> Content {
        match self {
            Self::Marker(extra) => Content::Marker(extra.clone()),
            Self::Record(record) => Content::Record(record.clone()),
        }
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
    /// A record, with its key.
    Record(StoredRecord),
    /// A record whose end the slot cannot say.
    FarRecord(Box<(Millis, StoredRecord)>),
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

/// What an allocator takes for so many bytes.
const fn allocated(bytes: usize) -> usize {
    bytes + ALLOCATION_BYTES
}

/// Bytes on the heap that keeping this aside takes, beside its place.
pub(super) fn heap_bytes(key: &Key<'_>, has_end: bool, content: &Content) -> usize {
    let long = key.is_long().then(|| key.bytes().len());
    match content {
        Content::Record(record) => record_bytes(record, has_end),
        Content::Marker(extra) => {
            let rich = (has_end || !content.is_nothing()).then_some(extra);
            marker_bytes(long, rich)
        }
    }
}

/// The same of a long key's length and of what else there is to say of a marker.
fn marker_bytes(long: Option<usize>, rich: Option<&Extra>) -> usize {
    let rich = rich.map_or(0, |extra| {
        let value = extra.value.as_ref();
        let value = value.map_or(0, |value| allocated(value.len() + ALLOCATION_BYTES));
        allocated(size_of::<Rich>()) + value
    });
    long.map_or(0, allocated) + rich
}

fn record_bytes(record: &StoredRecord, has_end: bool) -> usize {
    let end = if has_end {
        allocated(size_of::<(Millis, StoredRecord)>())
    } else {
        0
    };
    allocated(record.heap_bytes()) + end
}

impl Aside {
    fn heap_bytes(&self) -> usize {
        match self {
            Self::Vacant(_) => 0,
            Self::Long(key) => marker_bytes(Some(key.len()), None),
            Self::Rich(rich) => {
                let long = match &rich.key {
                    RichKey::Long(key) => Some(key.len()),
                    RichKey::Packed(_) => None,
                };
                marker_bytes(long, Some(&rich.extra))
            }
            Self::Record(record) => record_bytes(record, false),
            Self::FarRecord(far) => record_bytes(&far.1, true),
        }
    }

    /// The record, if that is what is kept here.
    fn record(&self) -> Option<&StoredRecord> {
        match self {
            Self::Record(record) => Some(record),
            Self::FarRecord(far) => Some(&far.1),
            Self::Vacant(_) | Self::Long(_) | Self::Rich(_) => None,
        }
    }

    fn is_running(&self) -> bool {
        self.record().is_some_and(StoredRecord::is_running)
    }

    /// Puts it elsewhere on the heap, unless it is too large to be in the way or a reply has a part of it.
    #[allow(clippy::replace_box, reason = "another place is what is wanted")]
    fn move_elsewhere(&mut self) {
        match self {
            Self::Vacant(_) => {}
            Self::Long(key) => *key = key.clone(),
            Self::Rich(rich) => {
                if let Some(moved) = rich.moved() {
                    *rich = Box::new(moved);
                }
            }
            Self::Record(record) => {
                if let Some(moved) = record.moved(MOVED_BYTES_MAX) {
                    *record = moved;
                }
            }
            Self::FarRecord(far) => {
                if let Some(moved) = far.1.moved(MOVED_BYTES_MAX) {
                    *far = Box::new((far.0, moved));
                }
            }
        }
    }
}

impl RichKey {
    /// The same bytes elsewhere.
    fn moved(&self) -> Self {
        match self {
            Self::Packed(packed) => Self::Packed(*packed),
            Self::Long(key) => Self::Long(key.clone()),
        }
    }
}

impl Rich {
    /// The same elsewhere; `None` if a reply has its value at the moment, or it is too large to be in the way.
    fn moved(&self) -> Option<Self> {
        let value = match &self.extra.value {
            Some(value) if value.len() > MOVED_BYTES_MAX || !value.is_unique() => return None,
            Some(value) => Some(Bytes::copy_from_slice(value)),
            None => None,
        };
        Some(Self {
            key: self.key.moved(),
            end: self.end,
            extra: Extra {
                fingerprint: self.extra.fingerprint,
                value,
            },
        })
    }
}

/// All that one table keeps aside.
#[derive(Debug)]
pub(super) struct Asides {
    places: Slab<Aside, CHUNK>,
    vacant: u32,
    heap_bytes: usize,
    records: usize,
    /// Those of the records that are running.
    running: usize,
}

impl Default for Asides {
    fn default() -> Self {
        Self {
            places: Slab::default(),
            vacant: NONE,
            heap_bytes: 0,
            records: 0,
            running: 0,
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

    /// How many records are kept.
    pub(super) fn records(&self) -> usize {
        self.records
    }

    /// How many records are running, whether or not their window has ended.
    pub(super) fn running(&self) -> usize {
        self.running
    }

    /// The records that are running.
    pub(super) fn running_records(&self) -> impl Iterator<Item = &StoredRecord> {
        let all = (0..self.places.len() as u32).map(|at| self.places.get(at));
        all.filter(|aside| aside.is_running())
            .filter_map(Aside::record)
    }

    /// Keeps something aside; returns what the slot is to hold.
    pub(super) fn insert(
        &mut self,
        key: &Key<'_>,
        end: Option<Millis>,
        content: Content,
    ) -> Packed {
        if self.vacant == NONE {
            self.add_places();
        }
        let at = self.vacant;
        let is_nothing = content.is_nothing();
        let aside = match (content, end) {
            (Content::Record(record), None) => Aside::Record(record),
            (Content::Record(record), Some(end)) => Aside::FarRecord(Box::new((end, record))),
            (Content::Marker(_), None) if is_nothing && key.is_long() => {
                Aside::Long(key.bytes().into())
            }
            (Content::Marker(extra), end) => {
                let key = RichKey::of(key);
                Aside::Rich(Box::new(Rich { key, end, extra }))
            }
        };
        self.heap_bytes += aside.heap_bytes();
        self.records += usize::from(aside.record().is_some());
        self.running += usize::from(aside.is_running());
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

    /// Takes out what a slot refers to: the key, and what it holds.
    pub(super) fn take(&mut self, packed: Packed) -> (Option<RichKey>, Content) {
        match self.remove(packed) {
            Aside::Vacant(_) => (None, Content::default()),
            Aside::Long(key) => (Some(RichKey::Long(key)), Content::default()),
            Aside::Rich(rich) => (Some(rich.key), Content::Marker(rich.extra)),
            Aside::Record(record) => (Some(record.key()), Content::Record(record)),
            Aside::FarRecord(far) => (Some(far.1.key()), Content::Record(far.1)),
        }
    }

    /// Forgets what a slot refers to; returns where lay what replies may hold of it.
    pub(super) fn forget(&mut self, packed: Packed) -> Option<Address> {
        match self.remove(packed) {
            Aside::Rich(rich) => ContentRef::Marker(&rich.extra).address(),
            Aside::Record(record) => ContentRef::Record(&record).address(),
            Aside::FarRecord(far) => ContentRef::Record(&far.1).address(),
            Aside::Vacant(_) | Aside::Long(_) => None,
        }
    }

    fn remove(&mut self, packed: Packed) -> Aside {
        let at = number(packed);
        let place = self.places.get_mut(at);
        let removed = std::mem::replace(place, Aside::Vacant(self.vacant));
        self.vacant = at;
        self.heap_bytes -= removed.heap_bytes();
        self.records -= usize::from(removed.record().is_some());
        self.running -= usize::from(removed.is_running());
        removed
    }

    /// Moves what is kept from this place on elsewhere on the heap, as much of it as one step does; returns the
    /// place to go on at, if there are more.
    pub(super) fn move_some(&mut self, from: u32) -> Option<u32> {
        let mut bytes = 0;
        let places = (from..self.places.len() as u32).take(MOVE_PLACES_MAX);
        for at in places {
            let place = self.places.get_mut(at);
            place.move_elsewhere();
            bytes += place.heap_bytes();
            if bytes > MOVE_BYTES_MAX {
                return Some(at + 1);
            }
        }
        let next = from.saturating_add(MOVE_PLACES_MAX as u32);
        ((next as usize) < self.places.len()).then_some(next)
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
            Aside::Record(record) => record.is(key),
            Aside::FarRecord(far) => far.1.is(key),
        }
    }

    /// What a slot's key holds, if there is more to it than the key.
    pub(super) fn content(&self, packed: Packed) -> Option<ContentRef<'_>> {
        match self.places.get(number(packed)) {
            Aside::Rich(rich) => Some(ContentRef::Marker(&rich.extra)),
            aside => aside.record().map(ContentRef::Record),
        }
    }

    /// Whether a slot's key holds a record.
    pub(super) fn is_record(&self, packed: Packed) -> bool {
        self.places.get(number(packed)).record().is_some()
    }

    /// When it ends, where the slot cannot say.
    pub(super) fn end(&self, packed: Packed) -> Option<Millis> {
        match self.places.get(number(packed)) {
            Aside::Rich(rich) => rich.end,
            Aside::FarRecord(far) => Some(far.0),
            Aside::Vacant(_) | Aside::Long(_) | Aside::Record(_) => None,
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
        assert_eq!(self.running, self.running_records().count());
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
            Aside::Record(record) => return record.write_key(out),
            Aside::FarRecord(far) => return far.1.write_key(out),
        }
        true
    }
}
