//! The shard against a plain map, under virtual time.
//!
//! The map keeps what lapsed until the shard must have given it back, so beside every verdict the
//! number of keys in memory is bounded from both sides, and the counters must add up. Under eviction the
//! map follows the shard, and what may be missing is checked instead.

#![allow(missing_docs)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "common/cases.rs"]
mod cases;

use std::cell::Cell;
use std::collections::{HashMap, HashSet};

use onced::limits::WHEEL_TICK_MS;
use onced::store::{
    Ask, Change, Counters, Fingerprint, Room, Secret, Shard, Unbounded, Verdict, WindowMode,
};
use onced::time::Millis;
use proptest::prelude::*;

const SECRET: Secret = Secret::new([0x5a; 192]);
const START: Millis = Millis(1_790_000_000_000);
const DAY_MS: u64 = 86_400_000;
const YEAR_MS: u64 = 365 * DAY_MS;
/// Keys that a sequence is about: few, so that they meet often.
const KEYS: usize = 27;

/// Key number `n`; the shapes that are packed differently take turns.
fn name(n: usize) -> Vec<u8> {
    let uuid = format!("38101a0b-2096-447d-96ea-a6921624{n:04x}");
    match n % 9 {
        0 => uuid.into_bytes(),
        1 => uuid.to_uppercase().into_bytes(),
        2 => format!("d41d8cd98f00b204e9800998ecf8{n:04x}").into_bytes(),
        3 => format!("184467440737095{n:05}").into_bytes(),
        4 => format!("k{n}").into_bytes(),
        5 => (n as u128 * 0x0123_4567_89ab_cdef).to_be_bytes().to_vec(),
        6 => format!("{n:0>200}").into_bytes(),
        7 => format!("38101a0b-2096-447D-96ea-a6921624{n:04x}").into_bytes(),
        _ => format!("customer {n} / order \0\r\n\u{fe}").into_bytes(),
    }
}

#[derive(Clone, Debug)]
enum Op {
    Seen {
        key: usize,
        ttl_ms: u64,
        slide: bool,
        fingerprint: Option<u8>,
        /// The event's own time, relative to now.
        event_at: Option<i64>,
        value: Option<u8>,
    },
    Set {
        key: usize,
        ttl_ms: u64,
        value: Option<u8>,
    },
    SetDeadline {
        key: usize,
        ttl_ms: u64,
    },
    Remove(usize),
    Get(usize),
    /// To the last millisecond of a key's window, and one beyond.
    ToTheEndOf(usize),
    Advance(u64),
    ExpireSome(usize),
    ExpireAll,
    Scan(u32),
    Clear,
}

fn ttl_ms() -> impl Strategy<Value = u64> {
    prop_oneof![
        1_u64..40,
        1_u64..5_000,
        1_u64..10 * DAY_MS,
        DAY_MS..5 * YEAR_MS,
        // Beyond the wheel's horizon of 34 years.
        Just(50 * YEAR_MS),
    ]
}

/// Within what a key's place says without taking more memory: eight years.
fn ttl_in_reach_ms() -> impl Strategy<Value = u64> {
    ttl_ms().prop_map(|ttl_ms| ttl_ms.min(8 * YEAR_MS))
}

fn op() -> impl Strategy<Value = Op> {
    let event_at = prop_oneof![-5_000_i64..5_000, -(DAY_MS as i64)..DAY_MS as i64];
    let seen = (
        0..KEYS,
        ttl_ms(),
        any::<bool>(),
        proptest::option::weighted(0.3, 0_u8..3),
        proptest::option::weighted(0.2, event_at),
        proptest::option::weighted(0.3, any::<u8>()),
    )
        .prop_map(
            |(key, ttl_ms, slide, fingerprint, event_at, value)| Op::Seen {
                key,
                ttl_ms,
                slide,
                fingerprint,
                event_at,
                value,
            },
        );
    let set = (0..KEYS, ttl_ms(), proptest::option::of(any::<u8>()))
        .prop_map(|(key, ttl_ms, value)| Op::Set { key, ttl_ms, value });
    prop_oneof![
        24 => seen,
        5 => set,
        4 => (0..KEYS, prop_oneof![1 => Just(0), 6 => ttl_ms()])
            .prop_map(|(key, ttl_ms)| Op::SetDeadline { key, ttl_ms }),
        5 => (0..KEYS).prop_map(Op::Remove),
        5 => (0..KEYS).prop_map(Op::Get),
        4 => (0..KEYS).prop_map(Op::ToTheEndOf),
        8 => prop_oneof![1_u64..20, 1_u64..5_000, 1_u64..DAY_MS, 1_u64..3 * YEAR_MS].prop_map(Op::Advance),
        6 => (1_usize..12).prop_map(Op::ExpireSome),
        2 => Just(Op::ExpireAll),
        2 => (1_u32..200).prop_map(Op::Scan),
        1 => proptest::bool::weighted(0.1).prop_map(|really| if really { Op::Clear } else { Op::ExpireAll }),
    ]
}

fn fingerprint(value: u8) -> Fingerprint {
    Fingerprint {
        value: u128::from(value),
        digits: 2,
    }
}

/// A value that differs in length from others.
fn value(n: u8) -> Vec<u8> {
    vec![n; usize::from(n) * 3]
}

/// What a key has, in the model and as it is read from a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    deadline: Millis,
    fingerprint: Option<Fingerprint>,
    value: Option<Vec<u8>>,
}

impl Held {
    /// Whether the shard's wheel has been there: from the tick behind the deadline on.
    fn is_due(&self, now: Millis) -> bool {
        self.deadline.0 / WHEEL_TICK_MS < now.0 / WHEEL_TICK_MS
    }
}

/// A [`Change`] that borrows nothing.
#[derive(Debug)]
enum Logged {
    Put(Vec<u8>, Held),
    Deadline(Vec<u8>, Millis),
    Remove(Vec<u8>),
}

impl Logged {
    fn of(change: &Change<'_>) -> Self {
        match *change {
            Change::Put {
                key,
                deadline,
                fingerprint,
                value,
            } => Self::Put(
                key.bytes().to_vec(),
                Held {
                    deadline,
                    fingerprint,
                    value: value.map(<[u8]>::to_vec),
                },
            ),
            Change::Deadline { key, deadline } => Self::Deadline(key.bytes().to_vec(), deadline),
            Change::Remove { key } => Self::Remove(key.bytes().to_vec()),
        }
    }

    fn replay(&self, shard: &mut Shard, now: Millis) {
        let change = match self {
            Self::Put(key, held) => Change::Put {
                key: SECRET.key(key),
                deadline: held.deadline,
                fingerprint: held.fingerprint,
                value: held.value.as_deref(),
            },
            Self::Deadline(key, deadline) => Change::Deadline {
                key: SECRET.key(key),
                deadline: *deadline,
            },
            Self::Remove(key) => Change::Remove {
                key: SECRET.key(key),
            },
        };
        shard.apply(&change, now);
    }
}

/// Every live key, found by a scan in pieces of `places`; each is met once.
fn live(shard: &Shard, places: u32, now: Millis) -> HashMap<Vec<u8>, Held> {
    let mut found = HashMap::new();
    let mut cursor = Some(0);
    while let Some(from) = cursor {
        let step = shard.scan(from, places, now, |key| {
            let mut bytes = Vec::new();
            key.write_to(&mut bytes);
            let held = read(shard, &bytes, now).expect("a scanned key is live");
            assert!(found.insert(bytes, held).is_none(), "a key is visited once");
        });
        cursor = step.next;
        assert!(
            cursor.is_none_or(|next| next > from),
            "a scan gets somewhere"
        );
    }
    found
}

fn read(shard: &Shard, key: &[u8], now: Millis) -> Option<Held> {
    shard.get(&SECRET.key(key), now).map(|entry| Held {
        deadline: entry.deadline,
        fingerprint: entry.fingerprint(),
        value: entry.value().map(|value| value.to_vec()),
    })
}

/// The shard and the map beside it.
struct Run {
    shard: Shard,
    /// Live keys, and lapsed ones that the shard may still hold.
    model: HashMap<Vec<u8>, Held>,
    now: Millis,
    counters: Counters,
    /// Puts of keys that were not live; keys that went by request.
    came: u64,
    left: u64,
    log: Vec<Logged>,
}

impl Run {
    fn new() -> Self {
        Self {
            shard: Shard::default(),
            model: HashMap::new(),
            now: START,
            counters: Counters::default(),
            came: 0,
            left: 0,
            log: Vec::new(),
        }
    }

    fn live(&self, key: &[u8]) -> Option<&Held> {
        self.model.get(key).filter(|held| self.now <= held.deadline)
    }

    fn step(&mut self, op: &Op) {
        match *op {
            Op::Seen {
                key,
                ttl_ms,
                slide,
                fingerprint: digest,
                event_at,
                value: content,
            } => {
                let content = content.map(value);
                let ask = Ask {
                    ttl_ms,
                    mode: if slide {
                        WindowMode::Slide
                    } else {
                        WindowMode::Fixed
                    },
                    fingerprint: digest.map(fingerprint),
                    event_at: event_at.map(|ahead| Millis(self.now.0.saturating_add_signed(ahead))),
                    value: content.as_deref(),
                };
                self.seen(&name(key), &ask);
            }
            Op::Set {
                key,
                ttl_ms,
                value: content,
            } => self.set(
                &name(key),
                content.map(value).as_deref(),
                self.now.after(ttl_ms),
            ),
            Op::SetDeadline { key, ttl_ms } => {
                let (key, deadline) = (name(key), self.now.after(ttl_ms));
                let is_live = self.live(&key).is_some();
                let key_of = SECRET.key(&key);
                let change = self.shard.set_deadline(&key_of, deadline, self.now);
                assert_eq!(change.is_some(), is_live);
                self.log.extend(change.as_ref().map(Logged::of));
                if is_live {
                    self.model.get_mut(&key).unwrap().deadline = deadline;
                }
            }
            Op::Remove(key) => {
                let key = name(key);
                let is_live = self.live(&key).is_some();
                let key_of = SECRET.key(&key);
                let change = self.shard.remove(&key_of, self.now);
                assert_eq!(change.is_some(), is_live);
                self.log.extend(change.as_ref().map(Logged::of));
                if is_live {
                    self.left += 1;
                    self.model.remove(&key);
                }
            }
            Op::Get(key) => {
                let key = name(key);
                assert_eq!(read(&self.shard, &key, self.now).as_ref(), self.live(&key));
            }
            Op::ToTheEndOf(key) => self.jump_to_the_end_of(&name(key)),
            Op::Advance(ms) => self.now = self.now.after(ms),
            Op::ExpireSome(steps) => {
                if !self.shard.expire(self.now, steps) {
                    self.all_is_expired();
                }
            }
            Op::ExpireAll => self.expire_all(),
            Op::Scan(places) => {
                let mut expected = self.model.clone();
                expected.retain(|_, held| self.now <= held.deadline);
                assert_eq!(live(&self.shard, places, self.now), expected);
            }
            Op::Clear => {
                let taken = self.shard.clear();
                self.left += taken.len() as u64;
                assert!(self.shard.is_empty() && self.shard.bytes() == 0);
                self.model.clear();
                self.log.clear();
            }
        }
    }

    fn seen(&mut self, key: &[u8], ask: &Ask<'_>) {
        let key_of = SECRET.key(key);
        let (verdict, change) = self.shard.seen(&key_of, ask, &mut Unbounded, self.now);
        self.log.extend(change.as_ref().map(Logged::of));
        let deadline = ask
            .event_at
            .map_or(self.now, |at| at.max(self.now))
            .after(ask.ttl_ms);
        let now = self.now;
        let Some(held) = self.model.get_mut(key).filter(|held| now <= held.deadline) else {
            let is_unsure = ask.is_too_old(now);
            assert_eq!(
                verdict,
                [Verdict::New, Verdict::Unsure][usize::from(is_unsure)]
            );
            self.counters.new += 1;
            self.counters.unsure += u64::from(is_unsure);
            return self.put(
                key,
                Held {
                    deadline,
                    fingerprint: ask.fingerprint,
                    value: ask.value.map(<[u8]>::to_vec),
                },
            );
        };
        if let (Some(held), Some(asked)) = (held.fingerprint, ask.fingerprint)
            && held != asked
        {
            assert_eq!(verdict, Verdict::Mismatch);
            assert!(change.is_none());
            self.counters.mismatch += 1;
            return;
        }
        assert_eq!(verdict, Verdict::Dup);
        self.counters.dup += 1;
        let slides = ask.mode == WindowMode::Slide && deadline > held.deadline;
        assert_eq!(change.is_some(), slides);
        if slides {
            held.deadline = deadline;
        }
    }

    fn set(&mut self, key: &[u8], value: Option<&[u8]>, deadline: Millis) {
        let key_of = SECRET.key(key);
        let change = self
            .shard
            .set(&key_of, value, deadline, &mut Unbounded, self.now);
        self.log
            .push(Logged::of(&change.expect("there is room without end")));
        let held = Held {
            deadline,
            fingerprint: None,
            value: value.map(<[u8]>::to_vec),
        };
        self.put(key, held);
    }

    fn put(&mut self, key: &[u8], held: Held) {
        self.came += u64::from(self.live(key).is_none());
        self.model.insert(key.to_vec(), held);
    }

    fn jump_to_the_end_of(&mut self, key: &[u8]) {
        let Some(deadline) = self.live(key).map(|held| held.deadline) else {
            return;
        };
        let ask = Ask {
            ttl_ms: 1,
            ..Ask::default()
        };
        self.now = deadline;
        self.seen(key, &ask);
        assert_eq!(read(&self.shard, key, self.now).as_ref(), self.live(key));
        self.expire_all();
        assert!(
            read(&self.shard, key, deadline).is_some(),
            "expiry leaves what is live"
        );
        self.now = deadline.after(1);
        assert_eq!(read(&self.shard, key, self.now), None);
    }

    fn expire_all(&mut self) {
        let mut rounds = 0;
        while self.shard.expire(self.now, 3) {
            rounds += 1;
            assert!(rounds < 1_000, "a few keys take a few steps");
        }
        self.all_is_expired();
    }

    /// What must be gone is gone. What lapsed within this tick may be there or not: an entry whose
    /// window slid is looked at when its first window ends.
    fn all_is_expired(&mut self) {
        let now = self.now;
        self.model
            .retain(|_, held| now <= held.deadline || !held.is_due(now));
        let live = self.model.values().filter(|held| now <= held.deadline);
        assert!((live.count()..=self.model.len()).contains(&self.shard.len()));
    }

    /// What holds after every step.
    fn check(&mut self) {
        let found = *self.shard.counters();
        self.counters.expired = found.expired; // held against the sum below
        assert_eq!(found, self.counters);
        let gone = found.expired + self.left;
        assert_eq!(
            self.came,
            self.shard.len() as u64 + gone,
            "every key is here or left"
        );
        assert!(self.shard.len() <= self.model.len());
    }

    /// A shard that is told only the changes holds the same.
    fn check_replay(&self) {
        let mut replica = Shard::default();
        for logged in &self.log {
            logged.replay(&mut replica, self.now);
        }
        assert_eq!(
            live(&replica, 64, self.now),
            live(&self.shard, 64, self.now)
        );
    }

    /// When everything has lapsed, next to nothing is left.
    fn check_end(&mut self) {
        self.now = self.now.after(60 * YEAR_MS);
        self.expire_all();
        assert_eq!(self.shard.len(), 0);
        assert!(
            self.shard.bytes() < 16 << 10,
            "{} bytes are left",
            self.shard.bytes()
        );
    }
}

proptest! {
    #![proptest_config(cases::config(200))]

    #[test]
    fn a_shard_answers_as_a_plain_map_would(ops in proptest::collection::vec(op(), 1..400)) {
        let mut run = Run::new();
        for op in &ops {
            run.step(op);
            run.check();
        }
        run.check_replay();
        run.check_end();
    }
}

/// Room for so many keys and bytes in one shard.
#[derive(Debug)]
struct Bounded {
    keys: usize,
    bytes: usize,
    keys_max: usize,
    bytes_max: usize,
    evict: bool,
    /// The latest deadline of what was evicted.
    evicted_until: Cell<Millis>,
}

impl Bounded {
    fn new(shard: &Shard, (keys_max, bytes_max, evict): (usize, usize, bool)) -> Self {
        Self {
            keys: shard.len(),
            bytes: shard.bytes(),
            keys_max,
            bytes_max,
            evict,
            evicted_until: Cell::new(Millis(0)),
        }
    }
}

impl Room for Bounded {
    fn admits(&self, keys: isize, bytes: isize) -> bool {
        let keys_fit = keys <= 0 || self.keys + keys.unsigned_abs() <= self.keys_max;
        keys_fit && (bytes <= 0 || self.bytes + bytes.unsigned_abs() <= self.bytes_max)
    }

    fn evicts(&self) -> bool {
        self.evict
    }

    fn evicted(&self, deadline: Millis) {
        self.evicted_until
            .set(self.evicted_until.get().max(deadline));
    }
}

/// Bytes that the first key takes: an index, 64 places, the wheel.
const BYTES_FIRST: usize = 8 << 10;

#[derive(Clone, Debug)]
enum Squeeze {
    Seen {
        key: usize,
        ttl_ms: u64,
        slide: bool,
    },
    Set {
        key: usize,
        ttl_ms: u64,
        value: u8,
    },
    Advance(u64),
    Expire(usize),
}

fn squeeze() -> impl Strategy<Value = Squeeze> {
    prop_oneof![
        12 => (0..300_usize, ttl_in_reach_ms(), any::<bool>())
            .prop_map(|(key, ttl_ms, slide)| Squeeze::Seen { key, ttl_ms, slide }),
        3 => (0..300_usize, ttl_in_reach_ms(), any::<u8>())
            .prop_map(|(key, ttl_ms, value)| Squeeze::Set { key, ttl_ms, value }),
        3 => prop_oneof![1_u64..20, 1_u64..DAY_MS].prop_map(Squeeze::Advance),
        1 => (1_usize..200).prop_map(Squeeze::Expire),
    ]
}

proptest! {
    #![proptest_config(cases::config(150))]

    #[test]
    fn bounds_hold_and_only_what_was_evicted_is_missing(
        ops in proptest::collection::vec(squeeze(), 1..600),
        bounds in (1_usize..120, BYTES_FIRST..60 << 10, any::<bool>()),
    ) {
        let mut shard = Shard::default();
        let mut model: HashMap<Vec<u8>, Held> = HashMap::new();
        let mut now = START;
        for op in &ops {
            let before = *shard.counters();
            let mut room = Bounded::new(&shard, bounds);
            match *op {
                Squeeze::Seen { key, ttl_ms, slide } => {
                    let key = name(key);
                    let mode = if slide { WindowMode::Slide } else { WindowMode::Fixed };
                    let ask = Ask { ttl_ms, mode, ..Ask::default() };
                    let key_of = SECRET.key(&key);
                    let verdict = shard.seen(&key_of, &ask, &mut room, now).0;
                    let held = model.get_mut(&key).filter(|held| now <= held.deadline);
                    prop_assert_eq!(verdict == Verdict::Dup, held.is_some());
                    let deadline = now.after(ttl_ms);
                    match (verdict, held) {
                        (Verdict::New, _) => {
                            model.insert(key, Held { deadline, fingerprint: None, value: None });
                        }
                        (Verdict::Dup, Some(held)) if slide => held.deadline = held.deadline.max(deadline),
                        _ => {}
                    }
                }
                Squeeze::Set { key, ttl_ms, value: content } => {
                    let (key, content) = (name(key), value(content));
                    let key_of = SECRET.key(&key);
                    let deadline = now.after(ttl_ms);
                    if shard.set(&key_of, Some(&content), deadline, &mut room, now).is_some() {
                        model.insert(key, Held { deadline, fingerprint: None, value: Some(content) });
                    }
                }
                Squeeze::Advance(ms) => now = now.after(ms),
                Squeeze::Expire(steps) => {
                    shard.expire(now, steps);
                }
            }
            let after = *shard.counters();
            prop_assert!(shard.len() <= bounds.0 && shard.bytes() <= bounds.1);
            model.retain(|_, held| now <= held.deadline);
            let found = live(&shard, 64, now);
            let missing = model.iter().filter(|(key, _)| !found.contains_key(*key));
            let latest = missing.clone().map(|(_, held)| held.deadline).max();
            prop_assert_eq!(latest.unwrap_or_default(), room.evicted_until.get(), "the owner is told of it");
            let missing = missing.count() as u64;
            prop_assert_eq!(missing, after.evicted - before.evicted, "only live keys are evicted, and each is counted");
            prop_assert!(bounds.2 || after.evicted == 0);
            prop_assert_eq!(after.full - before.full <= 1, true);
            model.retain(|key, _| found.contains_key(key));
            prop_assert_eq!(&found, &model);
        }
    }

    #[test]
    fn of_equal_windows_the_oldest_are_evicted_and_the_newest_always_fits(
        keys in proptest::collection::vec((0..400_usize, 0_u64..40_000), 1..1_500),
        ttl_ms in prop_oneof![1_000_u64..100_000, DAY_MS..YEAR_MS],
        keys_max in 2_usize..100,
        bytes_max in prop_oneof![Just(usize::MAX), 20_000_usize..60_000],
        expire in any::<bool>(),
    ) {
        let mut shard = Shard::default();
        // When each key was first seen in its window.
        let mut model: HashMap<Vec<u8>, (usize, Millis)> = HashMap::new();
        let mut now = START;
        for (at, &(key, wait_ms)) in keys.iter().enumerate() {
            now = now.after(wait_ms % (ttl_ms / 20 + 1));
            let key = key.to_string().into_bytes();
            let ask = Ask { ttl_ms, ..Ask::default() };
            let key_of = SECRET.key(&key);
            let mut room = Bounded::new(&shard, (keys_max, bytes_max, true));
            model.retain(|_, &mut (_, deadline)| now <= deadline);
            let verdict = shard.seen(&key_of, &ask, &mut room, now).0;
            let expected = if model.contains_key(&key) { Verdict::Dup } else { Verdict::New };
            prop_assert_eq!(verdict, expected, "key {} at step {}", key.escape_ascii(), at);
            if verdict == Verdict::New {
                model.insert(key.clone(), (at, now.after(ttl_ms)));
            }
            if expire {
                while shard.expire(now, 10) {}
            }
            let found = live(&shard, 64, now);
            let oldest_kept = model.iter().filter(|(key, _)| found.contains_key(*key)).map(|(_, &(_, end))| end).min();
            let newest_gone = model.iter().filter(|(key, _)| !found.contains_key(*key)).map(|(_, &(_, end))| end).max();
            // Keys that end in the same millisecond are equally old.
            prop_assert!(newest_gone.is_none() || newest_gone <= oldest_kept, "{newest_gone:?} went before {oldest_kept:?}");
            prop_assert!(found.contains_key(&key), "the newest is kept");
            model.retain(|key, _| found.contains_key(key));
            prop_assert!(shard.len() <= keys_max && shard.bytes() <= bytes_max);
        }
        let evicted = shard.counters().evicted;
        prop_assert_eq!(shard.counters().new, evicted + shard.counters().expired + shard.len() as u64);
    }
}

#[test]
fn every_shape_of_key_comes_back_byte_for_byte() {
    let mut shard = Shard::default();
    let mut names: HashSet<Vec<u8>> = (0..9_000).map(name).collect();
    // What packs into nothing but zeroes, as an unused place of the table does.
    names.extend([
        vec![0; 16],
        b"00000000-0000-0000-0000-000000000000".to_vec(),
        b"00000000000000000000000000000000".to_vec(),
        b"00000000000000000000000000".to_vec(),
        vec![0; 15],
        vec![0],
    ]);
    assert_eq!(names.len(), 9_006);
    let ask = Ask {
        ttl_ms: 1_000,
        ..Ask::default()
    };
    for key in &names {
        let verdict = shard.seen(&SECRET.key(key), &ask, &mut Unbounded, START).0;
        assert_eq!(verdict, Verdict::New);
    }
    let found: HashSet<Vec<u8>> = live(&shard, 1_000, START).into_keys().collect();
    assert_eq!(found, names);
}

#[test]
fn a_million_keys_leave_next_to_nothing_behind() {
    let mut shard = Shard::default();
    for n in 0..1_000_000_u64 {
        let ask = Ask {
            ttl_ms: 1 + n % 100_000,
            ..Ask::default()
        };
        shard.seen(&SECRET.key(&n.to_le_bytes()), &ask, &mut Unbounded, START);
    }
    assert!(shard.bytes() > 20_000_000);
    while shard.expire(START.after(100_016), 1_000) {}
    assert_eq!(shard.counters().expired, 1_000_000);
    assert!(shard.bytes() < 16 << 10, "{} bytes are left", shard.bytes());
}

/// A shard was once full of keys that had lapsed but were not swept, and refused new ones.
#[test]
fn what_has_lapsed_makes_room_without_a_sweep() {
    let mut shard = Shard::default();
    let ask = Ask {
        ttl_ms: 1_000,
        ..Ask::default()
    };
    for (n, now) in (0..100).map(|n| (n, START.after(2_000 * n))) {
        let mut room = Bounded::new(&shard, (1, usize::MAX, false));
        let verdict = shard
            .seen(&SECRET.key(&name(n as usize)), &ask, &mut room, now)
            .0;
        assert_eq!(verdict, Verdict::New);
    }
    assert_eq!((shard.len(), shard.counters().expired), (1, 99));
}

/// A bound on bytes that left less than a chunk of the wheel's links once made every insertion
/// evict 64 keys and then be refused: evicting a packed key frees its place, not bytes.
#[test]
fn at_a_bound_on_bytes_one_key_goes_for_one_that_comes() {
    let ask = Ask {
        ttl_ms: DAY_MS,
        ..Ask::default()
    };
    for bytes_max in (9_000..20_000).step_by(64) {
        let mut shard = Shard::default();
        for n in 0..1_000_u64 {
            let mut room = Bounded::new(&shard, (usize::MAX, bytes_max, true));
            let verdict = shard
                .seen(&SECRET.key(&n.to_le_bytes()), &ask, &mut room, START)
                .0;
            assert_eq!(verdict, Verdict::New, "key {n} within {bytes_max} bytes");
        }
        assert_eq!(shard.counters().evicted, 1_000 - shard.len() as u64);
        assert!(shard.len() >= 64 && shard.bytes() <= bytes_max);
    }
}

/// A key that slides was once evicted as if its first window were its last. (Within one slot of
/// the wheel it still is: a day ahead, a slot spans 70 minutes, and three days where the day
/// crosses one of the coarsest slots' bounds; this run keeps clear of those.)
#[test]
fn a_window_that_slid_is_not_evicted_as_if_it_had_not() {
    let mut shard = Shard::default();
    let ask = Ask {
        ttl_ms: DAY_MS,
        mode: WindowMode::Slide,
        ..Ask::default()
    };
    let mut now = Millis((6_669 << 24) * WHEEL_TICK_MS);
    for n in 0..400_usize {
        now = now.after(400_000);
        let mut room = Bounded::new(&shard, (100, usize::MAX, true));
        shard.seen(&SECRET.key(n.to_string().as_bytes()), &ask, &mut room, now);
        if n % 20 == 0 {
            let verdict = shard.seen(&SECRET.key(b"0"), &ask, &mut room, now).0;
            assert_eq!(verdict, Verdict::Dup, "the busiest key is kept at step {n}");
        }
    }
}

/// A window that ends later than a key's place can say takes memory, so sliding it there may be
/// refused; the key is as it was then.
#[test]
fn a_window_that_slides_out_of_reach_may_find_no_room() {
    let mut shard = Shard::default();
    let ask = |ttl_ms| Ask {
        ttl_ms,
        mode: WindowMode::Slide,
        ..Ask::default()
    };
    let key = SECRET.key(b"order-17");
    shard.seen(&key, &ask(DAY_MS), &mut Unbounded, START);
    let bytes = shard.bytes();
    let mut room = Bounded::new(&shard, (1, bytes, false));
    let far = ask(50 * YEAR_MS);
    assert_eq!(shard.seen(&key, &far, &mut room, START).0, Verdict::Full);
    assert_eq!(
        shard.get(&key, START).unwrap().deadline,
        START.after(DAY_MS)
    );
    assert_eq!((shard.len(), shard.bytes()), (1, bytes));
    assert_eq!(
        shard.seen(&key, &far, &mut Unbounded, START).0,
        Verdict::Dup
    );
    let end = START.after(50 * YEAR_MS);
    assert_eq!(shard.get(&key, end).unwrap().deadline, end);
    assert_eq!(
        shard.get(&key, end.after(1)).map(|entry| entry.deadline),
        None
    );
}

/// Where packed keys have to go, which free no bytes one by one, a whole segment is looked through for those
/// that end first.
#[test]
fn a_key_that_is_to_hold_more_is_not_evicted_for_it() {
    let bounds = (usize::MAX, 200 << 10, true);
    let mut shard = Shard::default();
    let ask = Ask {
        ttl_ms: DAY_MS,
        ..Ask::default()
    };
    let mut now = START;
    for n in 0..20_000_u64 {
        now = now.after(1);
        let mut room = Bounded::new(&shard, bounds);
        let name = n.to_le_bytes();
        let verdict = shard.seen(&SECRET.key(&name), &ask, &mut room, now).0;
        assert_eq!(verdict, Verdict::New);
    }
    for n in 0..20_000_u64 {
        let name = n.to_le_bytes();
        let key = SECRET.key(&name);
        let Some(entry) = shard.get(&key, now) else {
            continue;
        };
        let (deadline, mut room) = (entry.deadline, Bounded::new(&shard, bounds));
        let set = shard.set(&key, Some(&[7; 100]), deadline, &mut room, now);
        assert!(set.is_some() && shard.get(&key, now).is_some(), "{n}");
        assert!(shard.bytes() <= bounds.1);
    }
    assert!(shard.counters().evicted < 19_900 && shard.len() > 100);
}
