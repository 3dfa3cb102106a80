//! Keys within one block of buckets: each in one of two pairs of buckets that its hash names.
//!
//! A key goes to its home bucket or the neighbour beside it, or to its other pair if there is more room;
//! where all four are full, a key there is moved to *its* other pair, if need be after one that is in
//! the way of that. Neighbours lie side by side in memory, so most looks read
//! two lines that come together: a bucket counts how many of its own keys stand far, and where there
//! are none, nobody looks there. Placing a key reads [`PAIRS_MAX`] pairs at most.
//!
//! After R. Pagh and F. Rodler, "Cuckoo Hashing" (2001), with buckets as in M. Dietzfelbinger and
//! C. Weidling (2007). Without the neighbour (two single buckets a key) twice as many looks went
//! far and most insertions into a full block moved others, each a row of cache misses: inserting
//! 10 million keys took twice as long. Linear probing over buckets would read a run of lines for
//! every absent key.

use super::bucket::{Bucket, Entry, FAR_KEYS_MAX, SLOTS};
use super::key::{Kind, Packed, Secret};
use super::memory::{BLOCK_BUCKETS, Buckets};

/// Buckets of a pair.
const PAIR: usize = 2;
/// Pairs that placing one key reads at most: its two, the twelve that their keys could move to, and
/// some of those behind them.
const PAIRS_MAX: usize = 48;
/// Stands for where no entry comes from.
const ROOT: u8 = u8::MAX;

/// The lowest hash bit that chooses a key's other bucket.
const OTHER_SHIFT: u32 = BLOCK_BUCKETS.trailing_zeros();

/// A slot of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) bucket: u8,
    pub(super) slot: u8,
}

impl Place {
    #[inline]
    fn new(bucket: usize, slot: usize) -> Self {
        Self {
            bucket: bucket as u8,
            slot: slot as u8,
        }
    }

    #[inline]
    pub(super) fn bucket(self) -> usize {
        usize::from(self.bucket)
    }

    #[inline]
    pub(super) fn slot(self) -> usize {
        usize::from(self.slot)
    }
}

/// The bucket where a key is looked for first, in a block of so many.
#[inline]
pub(super) fn home(hash: u64, buckets: usize) -> usize {
    hash as usize & (buckets - 1)
}

/// The bucket of the other pair that a key prefers.
#[inline]
fn other(hash: u64, buckets: usize) -> usize {
    let (home, other) = (
        home(hash, buckets),
        (hash >> OTHER_SHIFT) as usize & (buckets - 1),
    );
    if other / PAIR == home / PAIR {
        other ^ PAIR
    } else {
        other
    }
}

/// The bucket beside one.
#[inline]
fn beside(bucket: usize) -> usize {
    bucket ^ 1
}

/// An entry's hash: what is kept aside carries it along, of what fits it is made again.
#[inline]
pub(super) fn hash_of(packed: Packed, secret: &Secret) -> u64 {
    if packed.kind == Kind::Aside {
        packed.id[0]
    } else {
        secret.hash(packed.id)
    }
}

/// Starts to fetch the buckets that a key can be in.
#[inline]
pub(super) fn prefetch(buckets: &Buckets, hash: u64) {
    for bucket in candidates(hash, buckets.len()) {
        buckets.prefetch(bucket);
    }
}

/// Finds a key: one that fits by its identity; one that is kept aside if `is_it` says so of the entry.
#[inline]
pub(super) fn find(
    buckets: &[Bucket],
    hash: u64,
    packed: Packed,
    is_it: impl Fn(Packed) -> bool,
) -> Option<Place> {
    let home = home(hash, buckets.len());
    // The neighbour is looked at even where nothing of this bucket's is in it: it costs less than
    // a guess that is often wrong.
    if let Some(found) = find_in_pair(buckets, home, hash, packed, &is_it) {
        return Some(found);
    }
    if buckets[home].far() == 0 {
        return None;
    }
    find_in_pair(buckets, other(hash, buckets.len()), hash, packed, &is_it)
}

#[inline]
fn find_in_pair(
    buckets: &[Bucket],
    preferred: usize,
    hash: u64,
    packed: Packed,
    is_it: impl Fn(Packed) -> bool,
) -> Option<Place> {
    let pair = [&buckets[preferred], &buckets[beside(preferred)]];
    let find = |first: u64, is_it: &dyn Fn(Place) -> bool| {
        let mut slots = in_pair(pair.map(|bucket| bucket.begin_with(first)));
        while slots != 0 {
            let place = place_in_pair(preferred, slots);
            if is_it(place) {
                return Some(place);
            }
            slots &= slots - 1;
        }
        None
    };
    let is_packed = |place: Place| buckets[place.bucket()].is(place.slot(), packed);
    let is_aside = |place: Place| {
        let (bucket, slot) = (&buckets[place.bucket()], place.slot());
        bucket.is_aside(slot) && is_it(bucket.entry(slot).packed)
    };
    (packed.kind != Kind::Aside)
        .then(|| find(packed.id[0], &is_packed))
        .flatten()
        .or_else(|| find(hash, &is_aside))
}

/// What a key's four buckets tell at once.
#[derive(Clone, Copy, Debug)]
pub(super) enum Glance {
    /// It is here.
    Held(Place),
    /// It is nowhere, unless it is kept aside, and this slot is vacant.
    Vacant(Place),
    /// Neither.
    Unclear,
}

/// Looks for a key that fits, and for a slot for it.
///
/// A key that is not in its first pair is looked for in all four buckets, whether or not the first
/// two would tell: so little depends on what is in them but whether the key is there, and the
/// processor, which can foretell that well enough, begins with the next key while this one's lines
/// are still under way.
#[inline]
pub(super) fn glance(buckets: &[Bucket], hash: u64, packed: Packed) -> Glance {
    let numbers = candidates(hash, buckets.len());
    let lines = numbers.map(|number| &buckets[number]);
    let in_place = |place: Place| {
        let is_it = buckets[place.bucket()].is(place.slot(), packed);
        if is_it {
            Glance::Held(place)
        } else {
            Glance::Unclear
        }
    };
    let first = packed.id[0];
    let near = in_pair([lines[0].begin_with(first), lines[1].begin_with(first)]);
    if near != 0 {
        return in_place(place_in_pair(numbers[0], near));
    }
    let far = in_pair([lines[2].begin_with(first), lines[3].begin_with(first)]);
    if far != 0 {
        return in_place(place_in_pair(numbers[PAIR], far));
    }
    let [home, beside, other, beside_other] = lines.map(Bucket::vacant);
    let vacant = [in_pair([home, beside]), in_pair([other, beside_other])];
    if vacant == [0; 2] || lines[0].far() == FAR_KEYS_MAX {
        return Glance::Unclear;
    }
    Glance::Vacant(in_roomier([numbers[0], numbers[PAIR]], vacant))
}

/// The slots of four buckets as one mask.
#[inline]
fn in_four(masks: [u32; 2 * PAIR]) -> u32 {
    in_pair([masks[0], masks[1]]) | in_pair([masks[2], masks[3]]) << (PAIR * SLOTS)
}

/// Whether something may be kept aside under this hash.
#[inline]
pub(super) fn has_asides(buckets: &[Bucket], hash: u64) -> bool {
    let numbers = candidates(hash, buckets.len());
    in_four(numbers.map(|number| buckets[number].begin_with(hash))) != 0
}

/// The slots of two buckets as one mask.
#[inline]
fn in_pair([preferred, beside]: [u32; PAIR]) -> u32 {
    preferred | beside << SLOTS
}

/// The first slot of such a mask.
#[inline]
fn place_in_pair(preferred: usize, mask: u32) -> Place {
    let first = mask.trailing_zeros() as usize;
    Place::new(preferred ^ (first / SLOTS), first % SLOTS)
}

/// The four buckets that a key can be in, in the order in which it prefers them.
#[inline]
pub(super) fn candidates(hash: u64, buckets: usize) -> [usize; 2 * PAIR] {
    let (home, other) = (home(hash, buckets), other(hash, buckets));
    [home, beside(home), other, beside(other)]
}

/// Finds a vacant slot for a key, moving others if it must; `None` if that does not do.
#[inline]
pub(super) fn make_place(buckets: &mut [Bucket], hash: u64, secret: &Secret) -> Option<Place> {
    let home = home(hash, buckets.len());
    vacant_in_pair(buckets, home).or_else(|| {
        let other = other(hash, buckets.len());
        // A bucket counts no further than this; another key of its own must not go far then.
        let may_go = buckets[home].far() < FAR_KEYS_MAX;
        may_go
            .then(|| vacant_in_pair(buckets, other))
            .flatten()
            .or_else(|| make_place_by_moving(buckets, home, may_go.then_some(other), secret))
    })
}

/// The first of the vacant slots of two pairs, given where each begins: of the first pair, unless that
/// is nearly full and the other has more. If keys went to the other pair only when there was no vacancy,
/// 12 of 100 would have to move others, each of which waits for memory; so it is half of them.
#[inline]
fn in_roomier(preferred: [usize; 2], vacant: [u32; 2]) -> Place {
    /// Vacant slots of a pair that is nearly full.
    const FEW: u32 = 2;
    let counts = vacant.map(u32::count_ones);
    let goes_far = counts[0] <= FEW && counts[1] > counts[0];
    let pair = usize::from(goes_far);
    place_in_pair(preferred[pair], vacant[pair])
}

/// Finds a vacant slot for a key that stood at this place of another block of as many buckets: best in
/// the same pair, whose lines are read at the same time.
#[inline]
pub(super) fn make_place_like(
    buckets: &mut [Bucket],
    place: Place,
    hash: u64,
    secret: &Secret,
) -> Option<Place> {
    let home = home(hash, buckets.len());
    let may_stand = is_at_home(place, home) || buckets[home].far() < FAR_KEYS_MAX;
    may_stand
        .then(|| vacant_in_pair(buckets, place.bucket()))
        .flatten()
        .or_else(|| make_place(buckets, hash, secret))
}

/// Whether a place is in the pair where its key is looked for first.
#[inline]
fn is_at_home(place: Place, home: usize) -> bool {
    place.bucket() / PAIR == home / PAIR
}

#[inline]
fn vacant_in_pair(buckets: &[Bucket], preferred: usize) -> Option<Place> {
    let pair = [&buckets[preferred], &buckets[beside(preferred)]];
    let vacant = in_pair(pair.map(Bucket::vacant));
    (vacant != 0).then(|| place_in_pair(preferred, vacant))
}

/// Whether there is something lapsed, and nothing vacant, in the pair where a key is looked for first.
#[inline]
pub(super) fn is_clogged(buckets: &[Bucket], hash: u64, now: u64) -> bool {
    let home = home(hash, buckets.len());
    let pair = [&buckets[home], &buckets[beside(home)]];
    let ended = in_pair(pair.map(|bucket| bucket.ended(now)));
    let vacant = in_pair(pair.map(Bucket::vacant));
    vacant == 0 && ended != 0
}

/// A pair on the way from a key's own to one with a vacant slot.
#[derive(Clone, Copy, Default)]
struct Node {
    /// The bucket of the pair that the entry prefers that would move here.
    preferred: u8,
    /// The node that it would come from, and where it stands there.
    from: u8,
    place: Option<Place>,
}

/// Looks for the shortest row of moves that ends in a vacant slot, breadth first.
#[cold]
fn make_place_by_moving(
    buckets: &mut [Bucket],
    home: usize,
    other: Option<usize>,
    secret: &Secret,
) -> Option<Place> {
    let mut nodes = [Node::default(); PAIRS_MAX];
    let mut visited = [0_u64; BLOCK_BUCKETS.div_ceil(64 * PAIR)];
    let mut visit = |bucket: usize| {
        let (word, bit) = (&mut visited[bucket / PAIR / 64], 1 << (bucket / PAIR % 64));
        let is_first = *word & bit == 0;
        *word |= bit;
        is_first
    };
    let mut count = 0;
    for root in [Some(home), other].into_iter().flatten() {
        visit(root);
        nodes[count] = Node {
            preferred: root as u8,
            from: ROOT,
            place: None,
        };
        count += 1;
    }
    let mut at = 0;
    while at < count && count < PAIRS_MAX {
        let first = usize::from(nodes[at].preferred) & !1;
        for number in first * SLOTS..(first + PAIR) * SLOTS {
            let place = place(number);
            let Some(target) = elsewhere(buckets, place, secret) else {
                continue;
            };
            if !visit(target) {
                continue;
            }
            nodes[count] = Node {
                preferred: target as u8,
                from: at as u8,
                place: Some(place),
            };
            if let Some(vacant) = vacant_in_pair(buckets, target) {
                return Some(shift(buckets, &nodes, count, vacant, secret));
            }
            count += 1;
            if count == PAIRS_MAX {
                break;
            }
        }
        at += 1;
    }
    None
}

/// Moves entries along the row that ends at node `at` with a vacant slot; returns the slot that
/// becomes vacant at its beginning. No pair is twice in a row, so nothing is in the way.
fn shift(
    buckets: &mut [Bucket],
    nodes: &[Node],
    at: usize,
    vacant: Place,
    secret: &Secret,
) -> Place {
    let (mut at, mut vacant) = (at, vacant);
    while let Some(place) = nodes[at].place {
        relocate(buckets, place, vacant, secret);
        (at, vacant) = (usize::from(nodes[at].from), place);
    }
    vacant
}

/// The bucket that the entry at a place prefers in its other pair; `None` if it must stay.
fn elsewhere(buckets: &[Bucket], place: Place, secret: &Secret) -> Option<usize> {
    let hash = hash_of(buckets[place.bucket()].entry(place.slot()).packed, secret);
    let home = home(hash, buckets.len());
    if is_at_home(place, home) {
        (buckets[home].far() < FAR_KEYS_MAX).then(|| other(hash, buckets.len()))
    } else {
        Some(home)
    }
}

/// Moves an entry to a vacant slot of its other pair.
fn relocate(buckets: &mut [Bucket], from: Place, to: Place, secret: &Secret) {
    let entry = buckets[from.bucket()].entry(from.slot());
    let hash = hash_of(entry.packed, secret);
    clear(buckets, from, hash);
    fill(buckets, to, hash, entry);
}

/// Puts an entry of this hash into a vacant slot of one of its buckets.
#[inline]
pub(super) fn fill(buckets: &mut [Bucket], place: Place, hash: u64, entry: Entry) {
    count_far(buckets, place, hash, 1);
    buckets[place.bucket()].set(place.slot(), entry);
}

/// Takes the entry of this hash out of its slot.
#[inline]
pub(super) fn clear(buckets: &mut [Bucket], place: Place, hash: u64) {
    count_far(buckets, place, hash, -1);
    buckets[place.bucket()].vacate(place.slot());
}

#[inline]
fn count_far(buckets: &mut [Bucket], place: Place, hash: u64, by: i32) {
    let home = home(hash, buckets.len());
    if !is_at_home(place, home) {
        debug_assert_eq!(place.bucket() / PAIR, other(hash, buckets.len()) / PAIR);
        buckets[home].change_far(by);
    }
}

/// All entries with their places.
pub(super) fn entries(buckets: &[Bucket]) -> impl Iterator<Item = (Place, Entry)> + '_ {
    buckets.iter().enumerate().flat_map(|(at, bucket)| {
        (0..SLOTS)
            .map(move |slot| (Place::new(at, slot), bucket.entry(slot)))
            .filter(|(_, entry)| entry.end != 0)
    })
}

/// The place with this number, counted through the block.
#[inline]
pub(super) fn place(number: usize) -> Place {
    Place::new(number / SLOTS, number % SLOTS)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::super::key::SECRET_BYTES;
    use super::*;

    static SECRET: Secret = Secret::new(random_like());

    /// Equal bytes would not do: the hash cancels parts of the secret against each other.
    const fn random_like() -> [u8; SECRET_BYTES] {
        let (mut bytes, mut state, mut i) = ([0; SECRET_BYTES], 1_u64, 0);
        while i < SECRET_BYTES {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            bytes[i] = (state >> 56) as u8;
            i += 1;
        }
        bytes
    }

    fn packed(n: u64) -> Packed {
        Packed {
            id: [n.wrapping_mul(0x9e37_79b9_7f4a_7c15), n],
            kind: Kind::Raw16,
        }
    }

    /// Puts keys in until one does not fit; returns how many did.
    fn fill_up(buckets: &mut [Bucket], first: u64) -> u64 {
        for n in 0.. {
            let (packed, hash) = (packed(first + n), SECRET.hash(packed(first + n).id));
            let Some(place) = make_place(buckets, hash, &SECRET) else {
                return n;
            };
            fill(buckets, place, hash, Entry { packed, end: n + 1 });
        }
        unreachable!("a block is full some day")
    }

    #[test]
    fn a_block_fills_to_nine_tenths_and_keeps_every_key() {
        let mut sum = 0;
        for round in 0..50 {
            let mut buckets = vec![Bucket::default(); BLOCK_BUCKETS];
            let count = fill_up(&mut buckets, round << 32);
            sum += count;
            for n in 0..count {
                let packed = packed((round << 32) + n);
                let found = find(&buckets, SECRET.hash(packed.id), packed, |_| false).unwrap();
                assert_eq!(buckets[found.bucket()].end(found.slot()), n + 1);
            }
            let absent = packed((round << 32) + count);
            assert_eq!(
                find(&buckets, SECRET.hash(absent.id), absent, |_| false),
                None
            );
            // Taking all out again leaves no count of keys away behind.
            for n in 0..count {
                let packed = packed((round << 32) + n);
                let hash = SECRET.hash(packed.id);
                let place = find(&buckets, hash, packed, |_| false).unwrap();
                clear(&mut buckets, place, hash);
            }
            assert!(buckets.iter().all(|bucket| bucket.far() == 0));
            assert_eq!(entries(&buckets).count(), 0);
        }
        let share = sum as f64 / (50 * BLOCK_BUCKETS * SLOTS) as f64;
        assert!(share > 0.9, "{share}");
    }

    #[test]
    fn keys_that_come_and_go_are_found_in_blocks_of_every_size() {
        for bits in 2..=BLOCK_BUCKETS.trailing_zeros() {
            let mut buckets = vec![Bucket::default(); 1 << bits];
            let mut model: HashMap<u64, u64> = HashMap::new();
            for step in 0..20_000_u64 {
                let n = step.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 40 & ((4 << bits) - 1);
                let (packed, hash) = (packed(n), SECRET.hash(packed(n).id));
                let found = find(&buckets, hash, packed, |_| false);
                assert_eq!(found.is_some(), model.contains_key(&n));
                if let Some(place) = found {
                    assert_eq!(buckets[place.bucket()].end(place.slot()), model[&n]);
                    clear(&mut buckets, place, hash);
                    model.remove(&n);
                } else if let Some(place) = make_place(&mut buckets, hash, &SECRET) {
                    fill(
                        &mut buckets,
                        place,
                        hash,
                        Entry {
                            packed,
                            end: step + 1,
                        },
                    );
                    model.insert(n, step + 1);
                }
            }
            assert_eq!(entries(&buckets).count(), model.len());
        }
    }
}
