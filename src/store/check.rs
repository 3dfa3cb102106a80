//! What must hold between a table's parts after every change, checked by walking all of it.
//!
//! The model tests hold the answers against a plain map; a fault in the bookkeeping behind them
//! (a count, a due time, the wheel) may show in no answer for years. [`Table::check`] asserts all of
//! it. The tests here need that, or keys whose hashes are chosen; the others are in `tests/`.

use std::collections::BTreeSet;

use super::aside;
use super::block;
use super::bucket::{Bucket, FAR};
use super::key::Kind;
use super::table::Table;
use super::wheel::due_tick;

impl Table {
    /// Asserts every invariant.
    pub(super) fn check(&self) {
        let Some(secret) = &self.secret else {
            assert_eq!((self.len(), self.block_bytes, self.stash.len()), (0, 0, 0));
            return;
        };
        self.check_directory();
        let (mut len, mut bytes, mut asides) = (self.stash.len(), 0, BTreeSet::new());
        for number in 0..self.segment_count {
            len += self.check_segment(number, secret, &mut asides);
            bytes += self.segments.get(number).bytes();
        }
        assert_eq!((self.len(), self.block_bytes), (len, bytes));
        self.asides.check(&asides);
        self.check_wheel();
        self.check_stash();
    }

    /// Each segment has an aligned span of the directory that is as long as its depth says.
    fn check_directory(&self) {
        assert_eq!(self.directory.len(), 1 << self.depth);
        let mut seen = BTreeSet::new();
        let mut at = 0;
        while at < self.directory.len() {
            let number = self.directory[at];
            assert!(number < self.segment_count && seen.insert(number));
            let span = 1 << (self.depth - self.segments.get(number).depth);
            assert_eq!(at % span, 0);
            assert!(self.directory[at..at + span].iter().all(|&n| n == number));
            at += span;
        }
        assert_eq!(seen.len(), self.segment_count as usize);
    }

    /// Every entry is where a look would find it, and counted; returns how many there are.
    fn check_segment(
        &self,
        number: u32,
        secret: &super::Secret,
        asides: &mut BTreeSet<u32>,
    ) -> usize {
        let segment = self.segments.get(number);
        for at in 0..segment.used() {
            let buckets = segment.block(at);
            let mut far = vec![0; buckets.len()];
            let mut count = 0;
            for (place, entry) in block::entries(buckets) {
                let hash = block::hash_of(entry.packed, secret);
                assert_eq!(self.segment_of(hash), Some(number));
                assert_eq!(segment.block_of(hash), at);
                let candidates = block::candidates(hash, buckets.len());
                let which = candidates.iter().position(|&n| n == place.bucket());
                let which = which.expect("an entry is in one of its buckets");
                far[candidates[0]] += u32::from(which > 1);
                if entry.packed.kind == Kind::Aside {
                    assert!(asides.insert(aside::number(entry.packed)), "one slot each");
                    assert_eq!(entry.end == FAR, self.asides.end(entry.packed).is_some());
                } else {
                    assert!(entry.end < FAR);
                }
                assert!(segment.due(at) <= self.true_end(entry));
                count += 1;
            }
            assert!(buckets.iter().map(Bucket::far).eq(far));
            assert_eq!(segment.count(at), count);
        }
        segment.len()
    }

    /// Every segment with keys is looked at no later than in the tick after the earliest end in it.
    fn check_wheel(&self) {
        let waiting = self.wheel.waiting();
        for &(number, starts) in &waiting {
            let segment = self.segments.get(number);
            assert!(segment.waits && self.sweeping != Some(number));
            let due = due_tick(self.moment(segment.earliest().1));
            let present = self.wheel.waiting_from();
            assert!(
                starts <= due.max(present),
                "segment {number} is due at {due}, and is looked at from {starts} on"
            );
        }
        let waits = (0..self.segment_count).filter(|&n| self.segments.get(n).waits);
        assert_eq!(waits.count(), waiting.len());
        for number in 0..self.segment_count {
            let segment = self.segments.get(number);
            let is_known = segment.waits || self.sweeping == Some(number);
            assert!(is_known || segment.len() == 0, "segment {number} is lost");
        }
    }

    fn check_stash(&self) {
        let mut stashed = vec![0; self.segment_count as usize];
        let mut bytes = 0;
        for (key, held) in &self.stash {
            stashed[self.segment_of(key.0).expect("there are segments") as usize] += 1;
            bytes += held.bytes(key);
        }
        assert_eq!(self.stash_bytes, bytes);
        let counted = (0..self.segment_count).map(|n| self.segments.get(n).stashed);
        assert!(counted.eq(stashed));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::super::key::{Key, SECRET_BYTES, Secret};
    use super::super::model::{Ask, Fingerprint, Room, Unbounded, Verdict, WindowMode};
    use super::super::shard::Shard;
    use crate::time::Millis;

    const SECRET: Secret = Secret::new([0x5a; SECRET_BYTES]);
    const START: Millis = Millis(1_790_000_000_000);
    const HOUR_MS: u64 = 3_600_000;
    const YEAR_MS: u64 = 8_766 * HOUR_MS;

    fn ask(ttl_ms: u64) -> Ask<'static> {
        Ask {
            ttl_ms,
            ..Ask::default()
        }
    }

    fn see(shard: &mut Shard, key: &Key<'_>, ttl_ms: u64, now: Millis) -> Verdict {
        shard.seen(key, &ask(ttl_ms), &mut Unbounded, now).0
    }

    /// Runs expiry to its end; returns how many steps that took.
    fn expire_all(shard: &mut Shard, now: Millis) -> usize {
        for steps in 0..1_000_000 {
            if !shard.expire(now, 1) {
                return steps;
            }
        }
        panic!("expiry comes to an end");
    }

    /// Room for so many keys and bytes; what is in the way is evicted.
    #[derive(Clone, Copy)]
    struct Evicting {
        keys: usize,
        bytes: usize,
    }

    impl Evicting {
        fn left(shard: &Shard, keys_max: usize, bytes_max: usize) -> Self {
            Self {
                keys: keys_max.saturating_sub(shard.len()),
                bytes: bytes_max.saturating_sub(shard.bytes()),
            }
        }
    }

    impl Room for Evicting {
        fn admits(&self, keys: isize, bytes: isize) -> bool {
            (keys <= 0 || keys.unsigned_abs() <= self.keys)
                && (bytes <= 0 || bytes.unsigned_abs() <= self.bytes)
        }

        fn evicts(&self) -> bool {
            true
        }
    }

    /// A deterministic source of choices.
    struct Dice(u64);

    impl Dice {
        fn throw(&mut self, sides: u64) -> u64 {
            self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            (self.0 >> 33) % sides
        }
    }

    /// Key number `n`; most are packed, each ninth is long.
    fn name(n: u64) -> Vec<u8> {
        let uuid = format!("38101a0b-2096-447d-96ea-a692{n:08x}");
        match n % 9 {
            0..3 => uuid.into_bytes(),
            3 => uuid.to_uppercase().into_bytes(),
            4 => format!("d41d8cd98f00b204e980099{n:09x}").into_bytes(),
            5 => format!("18446744073{n:09}").into_bytes(),
            6 => format!("k{n}").into_bytes(),
            7 => u128::from(n).to_be_bytes().to_vec(),
            _ => format!("customer {n:0>40}").into_bytes(),
        }
    }

    /// A shard beside a plain map, and what is done to both.
    struct Churn {
        shard: Shard,
        live: HashMap<u64, Millis>,
        dice: Dice,
        now: Millis,
        evicted: u64,
    }

    impl Churn {
        fn new(seed: u64) -> Self {
            Self {
                shard: Shard::default(),
                live: HashMap::new(),
                dice: Dice(seed),
                now: START,
                evicted: 0,
            }
        }

        fn ttl_ms(&mut self) -> u64 {
            match self.dice.throw(20) {
                0 => 1 + self.dice.throw(40),
                1..5 => 1 + self.dice.throw(20_000),
                5..19 => HOUR_MS + self.dice.throw(20 * HOUR_MS),
                _ => 8 * YEAR_MS + self.dice.throw(2 * YEAR_MS),
            }
        }

        /// One change of about `keys` keys, of which at most `keys_max` are kept.
        fn step(&mut self, keys: u64, keys_max: usize) {
            let n = self.dice.throw(keys);
            let bytes = name(n);
            let key = SECRET.key(&bytes);
            let held = self.live.get(&n).copied().filter(|&end| self.now <= end);
            let ttl_ms = self.ttl_ms();
            let end = self.now.after(ttl_ms);
            let mut room = Evicting::left(&self.shard, keys_max, usize::MAX);
            match self.dice.throw(40) {
                0..28 => {
                    let slide = self.dice.throw(4) == 0;
                    let digest = Fingerprint {
                        value: u128::from(n),
                        digits: 4,
                    };
                    let ask = Ask {
                        mode: [WindowMode::Fixed, WindowMode::Slide][usize::from(slide)],
                        fingerprint: (self.dice.throw(8) == 0).then_some(digest),
                        value: (self.dice.throw(8) == 0).then_some(b"a value"),
                        ..ask(ttl_ms)
                    };
                    let verdict = self.shard.seen(&key, &ask, &mut room, self.now).0;
                    // What is not there any more may have been evicted.
                    let may_be_gone = self.shard.counters().evicted > self.evicted;
                    match (verdict, held) {
                        (Verdict::New, held) => {
                            assert!(held.is_none() || may_be_gone);
                            self.live.insert(n, end);
                        }
                        (Verdict::Dup, Some(held)) if slide => {
                            self.live.insert(n, held.max(end));
                        }
                        (verdict, held) => {
                            assert_eq!((verdict, held.is_some()), (Verdict::Dup, true));
                        }
                    }
                }
                28..31 => {
                    let stored = self
                        .shard
                        .set(&key, Some(b"another"), end, &mut room, self.now);
                    assert!(stored.is_some());
                    self.live.insert(n, end);
                }
                31..34 => {
                    self.shard.remove(&key, self.now);
                    self.live.remove(&n);
                }
                34 => {
                    if self.shard.set_deadline(&key, end, self.now).is_some() {
                        self.live.insert(n, end);
                    }
                }
                35 => _ = self.shard.evict_soonest(self.now),
                36 => self.now = self.now.after(self.dice.throw(30)),
                _ => {
                    let steps = 1 + self.dice.throw(3) as usize;
                    self.shard.expire(self.now, steps);
                }
            }
        }

        /// Holds the shard against the map, and against itself.
        fn check(&mut self) {
            self.shard.table.check();
            let evicted = self.shard.counters().evicted;
            let (shard, now) = (&self.shard, self.now);
            self.live.retain(|_, &mut end| now <= end);
            let before = self.live.len();
            self.live.retain(|&n, &mut end| {
                let held = shard.get(&SECRET.key(&name(n)), now);
                assert!(held.is_none_or(|held| held.deadline == end));
                held.is_some()
            });
            let missing = (before - self.live.len()) as u64;
            assert!(
                missing <= evicted - self.evicted,
                "{missing} keys are missing"
            );
            self.evicted = evicted;
        }

        fn run(&mut self, keys: u64, keys_max: usize, steps: u64) {
            let between = (steps / 12).max(1);
            for step in 0..steps {
                self.step(keys, keys_max);
                if step % between == 0 {
                    self.check();
                }
            }
            self.check();
        }

        /// Lets most lapse, then all, with a little going on meanwhile.
        fn lapse(&mut self, keys: u64) {
            for ahead_ms in [20_000, 10 * HOUR_MS, 12 * HOUR_MS] {
                self.now = self.now.after(ahead_ms);
                self.run(keys, usize::MAX, 200);
                expire_all(&mut self.shard, self.now);
                self.check();
            }
            self.now = self.now.after(20 * YEAR_MS);
            expire_all(&mut self.shard, self.now);
            self.check();
            self.evicted = self.shard.counters().evicted;
            assert!(self.shard.is_empty() && self.live.is_empty());
            assert!(self.shard.bytes() < 16 << 10);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.min(60), failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_small_table_is_in_order_whatever_happens(
            seed in any::<u64>(),
            rounds in proptest::collection::vec((10_u64..3_000, 5_usize..3_000, 1_u64..2_000), 1..4),
        ) {
            let mut churn = Churn::new(seed);
            for (keys, keys_max, steps) in rounds {
                churn.run(keys, usize::MAX, steps);
                churn.run(keys, keys_max, steps);
            }
            churn.lapse(50);
            churn.run(20, 10, 100);
        }
    }

    #[test]
    fn a_table_that_splits_and_shrinks_is_in_order() {
        for seed in 0..2 {
            let mut churn = Churn::new(seed);
            churn.run(40_000, usize::MAX, 60_000);
            assert!(churn.shard.table.segment_count > 8);
            churn.run(40_000, 12_000, 20_000);
            churn.run(3_000, usize::MAX, 10_000);
            churn.lapse(1_000);
            churn.run(10_000, usize::MAX, 10_000);
            churn.shard = Shard::default();
            churn.live.clear();
            churn.evicted = 0;
            churn.run(5_000, 3_000, 6_000);
        }
    }

    /// Keys that were steered to where `hash` says.
    fn steered(keys: u64, hash: impl Fn(u64) -> u64) -> Vec<(Vec<u8>, u64)> {
        (0..keys)
            .map(|n| (format!("steered {n:0>40}").into_bytes(), hash(n)))
            .collect()
    }

    /// Visits every key in steps of a few slots; each once.
    fn scanned(shard: &Shard, now: Millis) -> HashMap<Vec<u8>, u32> {
        let (mut found, mut cursor) = (HashMap::new(), Some(0));
        while let Some(at) = cursor {
            let step = shard.scan(at, 1_000, now, |key| {
                let mut bytes = Vec::new();
                key.write_to(&mut bytes);
                *found.entry(bytes).or_default() += 1;
            });
            cursor = step.next;
        }
        found
    }

    /// They stay exact, are found and listed, cost memory in proportion, and lapse.
    fn steered_keys_do_no_harm(keys: &[(Vec<u8>, u64)]) {
        let mut shard = Shard::default();
        for (n, (bytes, hash)) in keys.iter().enumerate() {
            let key = SECRET.steered_key(bytes, *hash);
            let work = shard.work_slots();
            assert_eq!(
                see(&mut shard, &key, HOUR_MS + n as u64, START),
                Verdict::New
            );
            assert!(shard.work_slots() - work <= super::super::INSERT_SLOTS_MAX);
        }
        shard.table.check();
        let per_key = shard.bytes() / keys.len();
        assert!(per_key < 300, "{per_key} bytes a key");
        for (n, (bytes, hash)) in keys.iter().enumerate() {
            let held = shard.get(&SECRET.steered_key(bytes, *hash), START).unwrap();
            assert_eq!(held.deadline, START.after(HOUR_MS + n as u64));
            let absent = [bytes.as_slice(), b"!"].concat();
            assert!(
                shard
                    .get(&SECRET.steered_key(&absent, *hash), START)
                    .is_none()
            );
        }
        let found = scanned(&shard, START);
        assert_eq!(found.len(), keys.len());
        assert!(found.values().all(|&times| times == 1));
        let half = keys.len() as u64 / 2;
        let now = START.after(HOUR_MS + half);
        let steps = expire_all(&mut shard, now.after(16));
        assert!(steps < 20 + keys.len() / 8, "{steps} steps");
        shard.table.check();
        assert!((keys.len() - half as usize).abs_diff(shard.len()) <= 18);
        let mut evicted = 0;
        while shard.evict_soonest(now).is_some() {
            evicted += 1;
        }
        assert!(evicted >= keys.len() / 2 - 18);
        assert!(shard.is_empty() && shard.bytes() < 16 << 10);
        shard.table.check();
    }

    #[test]
    fn keys_of_one_and_the_same_hash_do_no_harm() {
        steered_keys_do_no_harm(&steered(2_000, |_| 0x0123_4567_89ab_cdef));
        steered_keys_do_no_harm(&steered(2_000, |_| 0));
        steered_keys_do_no_harm(&steered(2_000, |_| u64::MAX));
    }

    #[test]
    fn keys_of_the_same_buckets_do_no_harm() {
        let even = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) & !0xffff;
        steered_keys_do_no_harm(&steered(20_000, |n| even(n) | 0x1234));
    }

    #[test]
    fn keys_of_one_part_of_the_hash_space_do_no_harm() {
        let low = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        steered_keys_do_no_harm(&steered(20_000, |n| 0xabcd_ef01 << 32 | low(n)));
    }

    /// Each part holds as many keys as the half of the part before it, down to parts of one position:
    /// steered so, a few thousand keys once made a directory of 64 MiB, doubled in single steps.
    #[test]
    fn keys_that_make_ever_narrower_segments_do_no_harm() {
        let mixed = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        steered_keys_do_no_harm(&steered(30_000, |n| mixed(n) >> (n / 800 % 30)));
    }

    #[test]
    fn an_end_at_the_end_of_time_is_far_away() {
        for ttl_ms in [
            u64::MAX,
            i64::MAX as u64,
            i64::MAX as u64 - START.0,
            1 << 62,
        ] {
            let mut shard = Shard::default();
            let key = SECRET.key(b"order-17");
            assert_eq!(see(&mut shard, &key, ttl_ms, START), Verdict::New);
            let now = START.after(100 * YEAR_MS);
            assert_eq!(see(&mut shard, &key, ttl_ms, now), Verdict::Dup);
            expire_all(&mut shard, now);
            assert_eq!(shard.get(&key, now).unwrap().deadline, START.after(ttl_ms));
            shard.table.check();
        }
    }

    /// The sweep of the stash once went on behind the hash of the last key that it had looked at, so
    /// of many keys with one hash it saw the first 64 again and again.
    #[test]
    fn lapsed_keys_behind_many_of_the_same_hash_are_given_back() {
        let mut shard = Shard::default();
        for n in 0..500_u64 {
            let bytes = format!("steered {n:0>40}").into_bytes();
            let key = SECRET.steered_key(&bytes, 77);
            let ttl_ms = if n < 200 { HOUR_MS } else { 1_000 };
            see(&mut shard, &key, ttl_ms, START);
        }
        expire_all(&mut shard, START.after(2_000));
        assert_eq!(shard.len(), 200);
    }

    /// A segment that was put off while a victim was looked for once kept the time that it had been
    /// scheduled for first: what came in later, but to end before its new turn, was kept until then.
    #[test]
    fn a_segment_that_was_put_off_still_has_its_turn() {
        let mut shard = Shard::default();
        let seen = |shard: &mut Shard, n: u64, ttl_ms: u64, now| {
            let mut room = Evicting::left(shard, 6_000, usize::MAX);
            let (bytes, ask) = (name(n), ask(ttl_ms));
            shard.seen(&SECRET.key(&bytes), &ask, &mut room, now).0
        };
        // A few that end soon among those that end in a day, then enough to evict those few.
        for n in 0..8_000 {
            let ttl_ms = if n < 200 { 10_000 } else { 24 * HOUR_MS };
            assert_eq!(seen(&mut shard, n, ttl_ms, START), Verdict::New);
            if n % 100 == 0 {
                shard.table.check();
            }
        }
        for n in 8_000..8_300 {
            seen(&mut shard, n, 20_000 + 50 * n, START);
            shard.table.check();
        }
        let now = START.after(HOUR_MS);
        expire_all(&mut shard, now);
        let left = (0..8_300).filter(|&n| shard.get(&SECRET.key(&name(n)), now).is_some());
        assert_eq!(left.count(), shard.len(), "what has lapsed is gone");
    }

    /// The key that is replaced is nobody's victim: one that was alone in its block once made it look
    /// as if there were no victim at all.
    #[test]
    fn a_key_alone_in_its_block_is_not_the_only_victim() {
        let mut shard = Shard::default();
        for n in (0..6_000).rev() {
            let ttl_ms = if n == 0 { 60_000 } else { 20 * HOUR_MS };
            see(&mut shard, &SECRET.key(&name(n)), ttl_ms, START);
        }
        let hash = SECRET.key(&name(0)).hash;
        for n in 1..6_000 {
            let bytes = name(n);
            let key = SECRET.key(&bytes);
            if shard.table.segment_of(key.hash) == shard.table.segment_of(hash) {
                shard.remove(&key, START);
            }
        }
        let (left, bytes) = (shard.len(), name(0));
        assert!(left > 1_000);
        let value = [7; 1_000];
        let key = SECRET.key(&bytes);
        let mut room = Evicting::left(&shard, usize::MAX, shard.bytes() + 700);
        shard.set(&key, Some(&value), START.after(60_000), &mut room, START);
        assert!(shard.counters().evicted > 0);
        shard.table.check();
    }
}
