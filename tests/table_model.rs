//! The shard's table at size: memory, bounded steps, listing and far deadlines, under virtual time.
//!
//! What a few keys can show is in `store_model`; here are as many as it takes for segments to split
//! and to shrink back. No proptest: the numbers are large and the keys are well mixed as they are.

#![allow(missing_docs)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{HashMap, HashSet};

use onced::store::{
    Ask, EXPIRE_STEP_SLOTS_MAX, INSERT_SLOTS_MAX, Key, Room, Secret, Shard, Unbounded, Verdict,
    WindowMode,
};
use onced::time::Millis;

const SECRET: Secret = Secret::new([0x5a; 192]);
const START: Millis = Millis(1_790_000_000_000);
const SECOND_MS: u64 = 1_000;
const DAY_MS: u64 = 86_400_000;
const YEAR_MS: u64 = 365 * DAY_MS;
/// The latest end that a slot says itself, counted from 2^20 ms before the table's first key.
const FAR: u64 = (1 << 38) - 1;
const BEFORE_FIRST_MS: u64 = 1 << 20;

fn mix(n: u64) -> u64 {
    let n = (n ^ (n >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    n ^ (n >> 29)
}

fn uuid(n: u64) -> String {
    let (high, low) = (mix(n), mix(n ^ 1 << 60));
    let digits = format!("{high:016x}{low:016x}");
    [(0, 8), (8, 12), (12, 16), (16, 20), (20, 32)]
        .map(|(from, to)| &digits[from..to])
        .join("-")
}

fn see(
    shard: &mut Shard,
    key: &Key<'_>,
    ttl_ms: u64,
    room: &mut impl Room,
    now: Millis,
) -> Verdict {
    let ask = Ask {
        ttl_ms,
        ..Ask::default()
    };
    shard.seen(key, &ask, room, now).0
}

/// Runs expiry to its end; returns its steps, each of which is held to its bound.
fn expire_all(shard: &mut Shard, now: Millis) -> u64 {
    for steps in 1..10_000_000 {
        let before = shard.work_slots();
        let more = shard.expire(now, 1);
        assert!(shard.work_slots() - before <= EXPIRE_STEP_SLOTS_MAX);
        if !more {
            return steps;
        }
    }
    panic!("expiry comes to an end");
}

/// Room for so many more keys; what is in the way is evicted.
struct KeysMax(usize);

impl KeysMax {
    fn of(shard: &Shard, keys_max: usize) -> Self {
        Self(keys_max.saturating_sub(shard.len()))
    }
}

impl Room for KeysMax {
    fn admits(&self, keys: isize, _bytes: isize) -> bool {
        keys <= 0 || keys.unsigned_abs() <= self.0
    }

    fn evicts(&self) -> bool {
        true
    }
}

#[test]
fn every_step_is_bounded() {
    const KEYS: u64 = 300_000;
    let mut shard = Shard::default();
    let insert = |shard: &mut Shard, n: u64, ttl_ms, keys_max, now| {
        let before = shard.work_slots();
        let mut room = KeysMax::of(shard, keys_max);
        let key = uuid(n);
        let verdict = see(shard, &SECRET.key(key.as_bytes()), ttl_ms, &mut room, now);
        assert_eq!(verdict, Verdict::New, "key {n}");
        let work = shard.work_slots() - before;
        assert!(work <= INSERT_SLOTS_MAX, "{work} slots for key {n}");
    };
    // Random lives, with expiry going on; then all that is left ends within a second.
    let mut now = START;
    for n in 0..KEYS {
        now = Millis(START.0 + n / 10);
        insert(
            &mut shard,
            n,
            1 + mix(n) % (60 * SECOND_MS),
            usize::MAX,
            now,
        );
        if n % 50 == 0 {
            let before = shard.work_slots();
            shard.expire(now, 1);
            assert!(shard.work_slots() - before <= EXPIRE_STEP_SLOTS_MAX);
        }
    }
    now = now.after(DAY_MS);
    expire_all(&mut shard, now);
    assert!(shard.is_empty());
    for n in 0..KEYS {
        insert(&mut shard, n, SECOND_MS - n % 2, usize::MAX, now);
    }
    // At 70 % of 768 slots in each block; a block takes a sweep, some steps back, and one of the wheel's.
    let blocks = shard.bytes() as u64 / (16 << 10) + 1;
    now = now.after(SECOND_MS + 17);
    let steps = expire_all(&mut shard, now);
    assert!(steps < 8 * blocks, "{steps} steps for {blocks} blocks");
    assert!(shard.is_empty() && shard.bytes() < 16 << 10);
    // At a bound, each that comes makes one go.
    for n in 0..KEYS {
        insert(&mut shard, n, DAY_MS + n, 50_000, now);
        assert!(shard.len() <= 50_000);
    }
    assert_eq!(shard.counters().evicted, KEYS - 50_000);
}

/// 16 shards as an engine has them.
fn shards() -> Vec<Shard> {
    (0..16).map(|_| Shard::default()).collect()
}

fn shard_of<'a>(shards: &'a mut [Shard], key: &Key<'_>) -> &'a mut Shard {
    let at = key.shard_bits() as usize % shards.len();
    &mut shards[at]
}

fn bytes(shards: &[Shard]) -> usize {
    shards.iter().map(Shard::bytes).sum()
}

#[test]
fn memory_grows_and_shrinks_with_the_keys() {
    const KEYS: u64 = 2_000_000;
    /// What a shard takes for its first key: the wheel's slots, and some places for segments.
    const FIXED_BYTES: usize = 4_500;
    let mut shards = shards();
    for n in 0..KEYS {
        let key = uuid(n);
        let key = SECRET.key(key.as_bytes());
        // A tenth stays when the others lapse.
        let ttl_ms = if n % 10 == 0 { 3 * DAY_MS } else { DAY_MS };
        see(
            shard_of(&mut shards, &key),
            &key,
            ttl_ms,
            &mut Unbounded,
            START,
        );
        if n + 1 >= 100_000 && (n + 1) % 20_000 == 0 {
            let per_key = (bytes(&shards) - 16 * FIXED_BYTES) as f64 / (n + 1) as f64;
            assert!(per_key <= 31.5, "{per_key} bytes a key at {}", n + 1);
        }
    }
    let most = bytes(&shards);
    for shard in &mut shards {
        expire_all(shard, START.after(2 * DAY_MS));
    }
    let left: usize = shards.iter().map(Shard::len).sum();
    assert_eq!(left as u64, KEYS / 10);
    assert!(bytes(&shards) < most / 3, "{} of {most}", bytes(&shards));
    for shard in &mut shards {
        expire_all(shard, START.after(4 * DAY_MS));
    }
    assert!(bytes(&shards) < 16 * (8 << 10), "{}", bytes(&shards));
}

/// Memory was once given back only when a segment's next key lapsed: days after its keys were removed.
#[test]
fn removed_keys_give_their_memory_back_at_once() {
    const KEYS: u64 = 200_000;
    let mut shard = Shard::default();
    for n in 0..KEYS {
        let key = uuid(n);
        let key = SECRET.key(key.as_bytes());
        see(&mut shard, &key, DAY_MS, &mut Unbounded, START);
    }
    let most = shard.bytes();
    for n in (0..KEYS).filter(|n| n % 10 != 0) {
        let key = uuid(n);
        let before = shard.work_slots();
        assert!(shard.remove(&SECRET.key(key.as_bytes()), START).is_some());
        assert!(shard.work_slots() - before <= EXPIRE_STEP_SLOTS_MAX);
    }
    assert!(shard.bytes() < most / 3, "{} of {most}", shard.bytes());
    for n in (0..KEYS).filter(|n| n % 10 == 0) {
        let key = uuid(n);
        assert!(shard.remove(&SECRET.key(key.as_bytes()), START).is_some());
    }
    assert!(shard.is_empty() && shard.bytes() < 8 << 10);
}

#[test]
fn a_scan_visits_what_stays_once_whatever_comes_and_goes() {
    const STAY: u64 = 8_000;
    for slots in [100_u32, 1_000, 7_000, 100_000] {
        let mut shard = Shard::default();
        let mut now = START;
        let see_uuid = |shard: &mut Shard, n, ttl_ms, now| {
            let key = uuid(n);
            let key = SECRET.key(key.as_bytes());
            see(shard, &key, ttl_ms, &mut Unbounded, now)
        };
        for n in 0..STAY {
            see_uuid(&mut shard, n, 30 * DAY_MS, now);
        }
        let mut visited: HashMap<Vec<u8>, u32> = HashMap::new();
        let (mut cursor, mut came) = (Some(0), STAY);
        while let Some(at) = cursor {
            let step = shard.scan(at, slots, now, |key| {
                let mut bytes = Vec::new();
                assert!(key.write_to(&mut bytes));
                *visited.entry(bytes).or_default() += 1;
            });
            cursor = step.next;
            assert!(cursor.is_none_or(|next| next > at));
            // Growth in one half of the time; in the other, all that came lapses or is removed.
            now = now.after(SECOND_MS);
            let grows = now.0 / SECOND_MS % 32 < 16;
            for _ in 0..if grows { 600 } else { 0 } {
                see_uuid(&mut shard, came, 10 * SECOND_MS, now);
                came += 1;
            }
            for n in came.saturating_sub(50).max(STAY)..came {
                shard.remove(&SECRET.key(uuid(n).as_bytes()), now);
            }
            shard.expire(now, 200);
        }
        let stayed: HashSet<Vec<u8>> = (0..STAY).map(|n| uuid(n).into_bytes()).collect();
        assert!(stayed.iter().all(|key| visited.get(key) == Some(&1)));
        assert!(visited.values().all(|&times| times == 1));
    }
}

/// That a key lives for so long, and no longer, whether or not it was swept.
fn lives_until(shard: &mut Shard, key: &[u8], deadline: Millis) {
    let key = SECRET.key(key);
    expire_all(shard, deadline);
    assert_eq!(shard.get(&key, deadline).unwrap().deadline, deadline);
    assert!(shard.get(&key, deadline.after(1)).is_none());
}

#[test]
fn ends_at_the_reach_of_a_slot_are_exact() {
    let reach = FAR - BEFORE_FIRST_MS;
    for ttl_ms in [
        reach - 2,
        reach - 1,
        reach,
        reach + 1,
        reach + 2,
        50 * YEAR_MS,
    ] {
        let mut shard = Shard::default();
        see(&mut shard, &SECRET.key(b"a"), ttl_ms, &mut Unbounded, START);
        let deadline = START.after(ttl_ms);
        lives_until(&mut shard, b"a", deadline);
        // Back and forth over the border.
        let key = SECRET.key(b"a");
        for ahead_ms in [1, reach - 1, reach, reach + 1, 5, reach + 9, ttl_ms] {
            let change = shard.set_deadline(&key, START.after(ahead_ms), START);
            assert!(change.is_some());
            assert_eq!(
                shard.get(&key, START).unwrap().deadline,
                START.after(ahead_ms)
            );
        }
        lives_until(&mut shard, b"a", deadline);
        expire_all(&mut shard, deadline.after(17));
        assert!(shard.is_empty() && shard.bytes() < 8 << 10);
    }
}

#[test]
fn an_end_before_the_first_key_has_passed() {
    let mut shard = Shard::default();
    see(&mut shard, &SECRET.key(b"a"), DAY_MS, &mut Unbounded, START);
    for deadline in [
        Millis(0),
        Millis(1),
        Millis(START.0 - DAY_MS),
        Millis(START.0 - 1),
    ] {
        let key = SECRET.key(b"b");
        assert!(
            shard
                .set(&key, None, deadline, &mut Unbounded, START)
                .is_some()
        );
        assert!(shard.get(&key, START).is_none());
        assert_eq!(
            see(&mut shard, &key, 5, &mut Unbounded, START),
            Verdict::New
        );
        assert!(shard.set_deadline(&key, deadline, START).is_some());
        assert!(shard.get(&key, START).is_none());
        expire_all(&mut shard, START.after(17));
        assert_eq!(shard.len(), 1);
    }
    // From a shard's first moment on, at the beginning of all time.
    let mut shard = Shard::default();
    see(&mut shard, &SECRET.key(b"a"), 5, &mut Unbounded, Millis(0));
    lives_until(&mut shard, b"a", Millis(5));
}

/// A table that is never empty goes on counting from its first key, beyond what slots can say.
#[test]
fn a_table_may_be_older_than_slots_can_say() {
    let mut shard = Shard::default();
    let slide = |ttl_ms| Ask {
        ttl_ms,
        mode: WindowMode::Slide,
        ..Ask::default()
    };
    let (month_ms, key) = (YEAR_MS / 12, SECRET.key(b"the one that stays"));
    shard.seen(&key, &slide(2 * month_ms), &mut Unbounded, START);
    for month in 1..12 * 20_u64 {
        let now = START.after(month * month_ms);
        let verdict = shard
            .seen(&key, &slide(2 * month_ms), &mut Unbounded, now)
            .0;
        assert_eq!(verdict, Verdict::Dup);
        for n in 0..100 {
            let name = uuid(month << 32 | n);
            let other = SECRET.key(name.as_bytes());
            let ttl_ms = 1 + n * month_ms / 100;
            assert_eq!(
                see(&mut shard, &other, ttl_ms, &mut Unbounded, now),
                Verdict::New
            );
            assert_eq!(
                see(&mut shard, &other, ttl_ms, &mut Unbounded, now),
                Verdict::Dup
            );
            assert_eq!(shard.get(&other, now).unwrap().deadline, now.after(ttl_ms));
        }
        expire_all(&mut shard, now.after(month_ms));
        assert_eq!(shard.len(), 1, "in month {month}");
    }
    expire_all(&mut shard, START.after(21 * YEAR_MS));
    assert!(shard.is_empty() && shard.bytes() < 8 << 10);
}
