//! Idempotency records in a shard against a plain map, under virtual time.
//!
//! The map follows the protocol's table of verbs and states, cell by cell. Beside every answer it is
//! checked that tokens rise, that no key has two holders at a time, that what was refused has changed
//! nothing, and that every state has a way out.

#![allow(missing_docs)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "common/cases.rs"]
mod cases;

use std::collections::{BTreeMap, BTreeSet};

use onced::log::record::{Content, push_put, take};
use onced::store::{
    Ask, Begin, Claim, Entry, Fingerprint, Holding, Outcome, Restored, Room, Secret, Settle, Shard,
    State, Unbounded, Verdict,
};
use onced::time::Millis;
use proptest::prelude::*;

const SECRET: Secret = Secret::new([0x5a; 192]);
const START: Millis = Millis(1_790_000_000_000);
const KEYS: usize = 5;

fn name(n: usize) -> Vec<u8> {
    match n {
        0 => b"38101a0b-2096-447d-96ea-a69216240000".to_vec(),
        1 => b"short".to_vec(),
        2 => vec![b'x'; 200],
        3 => b"customer 3 / order \0\r\n\xfe".to_vec(),
        _ => format!("{n:032x}").into_bytes(),
    }
}

/// Which token a request comes with.
#[derive(Clone, Copy, Debug)]
enum Which {
    /// The one that was given last for its key.
    Last,
    /// One that was given before that.
    Older,
    /// That of another key.
    Others,
    /// One that was never given.
    Unknown,
}

#[derive(Clone, Debug)]
enum Op {
    Begin {
        key: usize,
        lease_ms: u64,
        ttl_ms: u64,
        fingerprint: Option<u8>,
        owner: Option<u8>,
        is_behind_others: bool,
    },
    Renew(usize, Which, Option<u64>),
    Settle {
        key: usize,
        which: Which,
        is_failure: bool,
        code: u32,
        body: u8,
        ttl_ms: Option<u64>,
        fingerprint: Option<u8>,
        adopts: bool,
    },
    Release(usize, Which),
    Seen {
        key: usize,
        fingerprint: Option<u8>,
        slide: bool,
    },
    Remove(usize),
    Advance(u64),
    ToLeaseEnd(usize),
    ToTheEndOf(usize),
    Expire,
}

/// What the map knows of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    deadline: Millis,
    fingerprint: Option<Fingerprint>,
    /// A marker has none.
    record: Option<KnownRecord>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct KnownRecord {
    token: u64,
    attempt: u32,
    began: Millis,
    is: Is,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Is {
    Running {
        lease_end: Millis,
        lease_ms: u64,
        owner: Option<Vec<u8>>,
    },
    Released,
    Completed(u32, Vec<u8>),
    Failed(u32, Vec<u8>),
}

impl Known {
    fn of(entry: &Entry<'_>) -> Self {
        Self {
            deadline: entry.deadline,
            fingerprint: entry.fingerprint(),
            record: entry.record().map(|record| KnownRecord {
                token: record.token,
                attempt: record.attempt,
                began: record.began,
                is: match record.state {
                    State::Running {
                        lease_end,
                        lease_ms,
                        owner,
                    } => Is::Running {
                        lease_end,
                        lease_ms,
                        owner: owner.map(<[u8]>::to_vec),
                    },
                    State::Released => Is::Released,
                    State::Completed(outcome) => Is::Completed(outcome.code, outcome.body.to_vec()),
                    State::Failed(outcome) => Is::Failed(outcome.code, outcome.body.to_vec()),
                },
            }),
        }
    }
}

fn fingerprint(value: u8) -> Fingerprint {
    Fingerprint {
        value: u128::from(value),
        digits: 2,
    }
}

fn body(n: u8) -> Vec<u8> {
    vec![n; usize::from(n) * 40]
}

fn ms() -> impl Strategy<Value = u64> {
    // The last one ends beyond what a slot of the table can say.
    prop_oneof![
        1_u64..40,
        1_u64..60_000,
        1_u64..900_000_000,
        Just(50 * 365 * 86_400_000)
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let few = || proptest::option::weighted(0.3, 0_u8..2);
    let which = || {
        prop_oneof![
            6 => Just(Which::Last),
            1 => Just(Which::Older),
            1 => Just(Which::Others),
            1 => Just(Which::Unknown),
        ]
    };
    let begin = (
        0..KEYS,
        ms(),
        ms(),
        few(),
        few(),
        proptest::bool::weighted(0.1),
    )
        .prop_map(
            |(key, lease_ms, ttl_ms, fingerprint, owner, is_behind_others)| Op::Begin {
                key,
                lease_ms,
                ttl_ms,
                fingerprint,
                owner,
                is_behind_others,
            },
        );
    let settle = (
        (0..KEYS, which(), any::<bool>()),
        (0_u32..2, 0_u8..3, proptest::option::of(ms())),
        (few(), proptest::bool::weighted(0.2)),
    )
        .prop_map(
            |((key, which, is_failure), (code, body, ttl_ms), (fingerprint, adopts))| Op::Settle {
                key,
                which,
                is_failure,
                code,
                body,
                ttl_ms,
                fingerprint,
                adopts,
            },
        );
    prop_oneof![
        12 => begin,
        6 => settle,
        4 => (0..KEYS, which(), proptest::option::of(ms())).prop_map(|(key, which, lease_ms)| Op::Renew(key, which, lease_ms)),
        4 => (0..KEYS, which()).prop_map(|(key, which)| Op::Release(key, which)),
        2 => (0..KEYS, few(), any::<bool>()).prop_map(|(key, fingerprint, slide)| Op::Seen { key, fingerprint, slide }),
        1 => (0..KEYS).prop_map(Op::Remove),
        4 => prop_oneof![1_u64..50, 1_u64..100_000].prop_map(Op::Advance),
        4 => (0..KEYS).prop_map(Op::ToLeaseEnd),
        2 => (0..KEYS).prop_map(Op::ToTheEndOf),
        2 => Just(Op::Expire),
    ]
}

#[derive(Debug)]
struct Run {
    shard: Shard,
    known: BTreeMap<usize, Known>,
    /// The tokens that each key was given, in order.
    given: BTreeMap<usize, Vec<u64>>,
    last: u64,
    now: Millis,
}

impl Run {
    fn new() -> Self {
        Self {
            shard: Shard::default(),
            known: BTreeMap::new(),
            given: BTreeMap::new(),
            last: 0,
            now: START,
        }
    }

    fn token(&self, key: usize, which: Which) -> u64 {
        let given = |key| self.given.get(&key).map_or(&[][..], |given| &given[..]);
        let token = match which {
            Which::Last => given(key).last(),
            Which::Older => given(key).iter().rev().nth(1),
            Which::Others => given((key + 1) % KEYS).last(),
            Which::Unknown => None,
        };
        token.copied().unwrap_or(self.last + 1_000)
    }

    /// What the map has of a key that is there.
    fn live(&self, key: usize) -> Option<Known> {
        let known = self.known.get(&key)?;
        (self.now <= known.deadline).then(|| known.clone())
    }

    fn begin(&mut self, key: usize, ask: &Begin<'_>) {
        let bytes = name(key);
        let last = self.last;
        let (shard, now) = (&mut self.shard, self.now);
        let claim = shard.begin(&SECRET.key(&bytes), ask, || last + 1, &mut Unbounded, now);
        let before = self.live(key);
        let held = before.as_ref().and_then(|known| known.fingerprint);
        let mismatches = ask
            .fingerprint
            .zip(held)
            .is_some_and(|(asked, held)| asked != held);
        let record = before.as_ref().and_then(|known| known.record.clone());
        let wanted = match (&before, &record) {
            _ if mismatches => Claim::Mismatch,
            (Some(_), None) => Claim::Seen,
            (_, Some(record)) if matches!(record.is, Is::Completed(..) | Is::Failed(..)) => {
                let (Is::Completed(code, body) | Is::Failed(code, body)) = &record.is else {
                    unreachable!()
                };
                Claim::Settled(onced::store::Settled {
                    is_failure: matches!(record.is, Is::Failed(..)),
                    code: *code,
                    body: body.clone().into(),
                })
            }
            (_, Some(record)) => match &record.is {
                Is::Running {
                    lease_end, owner, ..
                } if now <= *lease_end => {
                    if owner.is_some() && owner.as_deref() == ask.owner {
                        Claim::Run {
                            token: record.token,
                            lease_ms: lease_end.since(now),
                            attempt: record.attempt,
                            is_unsure: false,
                            is_repeat: true,
                        }
                    } else {
                        Claim::Busy {
                            lease_end: *lease_end,
                            token: record.token,
                        }
                    }
                }
                _ if ask.is_behind_others => Claim::Busy {
                    lease_end: now,
                    token: record.token,
                },
                _ => self.run(key, ask, Some(record.clone()), held),
            },
            (None, None) if ask.is_behind_others => Claim::Busy {
                lease_end: now,
                token: 0,
            },
            (None, None) => self.run(key, ask, None, None),
        };
        assert_eq!(claim, wanted);
    }

    /// What the map has after somebody was told to run.
    fn run(
        &mut self,
        key: usize,
        ask: &Begin<'_>,
        before: Option<KnownRecord>,
        fingerprint: Option<Fingerprint>,
    ) -> Claim {
        self.last += 1;
        let (token, now) = (self.last, self.now);
        self.given.entry(key).or_default().push(token);
        let attempt = before.as_ref().map_or(1, |record| record.attempt + 1);
        let lease_end = now.after(ask.lease_ms);
        self.known.insert(
            key,
            Known {
                deadline: lease_end.after(ask.ttl_ms),
                fingerprint: fingerprint.or(ask.fingerprint),
                record: Some(KnownRecord {
                    token,
                    attempt,
                    began: before.map_or(now, |record| record.began),
                    is: Is::Running {
                        lease_end,
                        lease_ms: ask.lease_ms,
                        owner: ask.owner.map(<[u8]>::to_vec),
                    },
                }),
            },
        );
        Claim::Run {
            token,
            lease_ms: ask.lease_ms,
            attempt,
            is_unsure: false,
            is_repeat: false,
        }
    }

    /// Why the holder of a token is refused, if it is not the record's.
    fn refusal(&self, key: usize, token: u64) -> Result<(Known, KnownRecord), Holding> {
        let known = self.live(key).ok_or(Holding::Gone)?;
        let record = known.record.clone().ok_or(Holding::Gone)?;
        if record.token != token {
            return Err(Holding::Stale);
        }
        Ok((known, record))
    }

    fn renew(&mut self, key: usize, token: u64, lease_ms: Option<u64>) {
        let bytes = name(key);
        let (shard, now) = (&mut self.shard, self.now);
        let told = shard.renew(&SECRET.key(&bytes), token, lease_ms, &mut Unbounded, now);
        let wanted = match self.refusal(key, token) {
            Err(refusal) => (refusal, 0),
            Ok((mut known, mut record)) => match record.is {
                Is::Running {
                    ref mut lease_end,
                    lease_ms: ref mut length,
                    ..
                } => {
                    let ttl_ms = known.deadline.since(*lease_end);
                    *length = lease_ms.unwrap_or(*length);
                    *lease_end = now.after(*length);
                    known.deadline = lease_end.after(ttl_ms);
                    let length = *length;
                    known.record = Some(record);
                    self.known.insert(key, known);
                    (Holding::Ok, length)
                }
                _ => (Holding::Stale, 0),
            },
        };
        assert_eq!(told, wanted);
    }

    fn settle(&mut self, key: usize, token: u64, settle: &Settle<'_>) {
        let bytes = name(key);
        let (shard, now) = (&mut self.shard, self.now);
        let (told, _) = shard.settle(&SECRET.key(&bytes), token, settle, &mut Unbounded, now);
        let outcome = (settle.outcome.code, settle.outcome.body.to_vec());
        let is = if settle.is_failure {
            Is::Failed(outcome.0, outcome.1)
        } else {
            Is::Completed(outcome.0, outcome.1)
        };
        let before = self.live(key);
        let held = before.as_ref().and_then(|known| known.fingerprint);
        let mismatches = settle
            .fingerprint
            .zip(held)
            .is_some_and(|(asked, held)| asked != held);
        let wanted = match self.refusal(key, token) {
            _ if mismatches => Holding::Mismatch,
            Err(Holding::Gone) if before.is_none() && settle.adopt_ttl_ms.is_some() => {
                let ttl_ms = settle.ttl_ms.or(settle.adopt_ttl_ms).unwrap();
                self.known.insert(
                    key,
                    Known {
                        deadline: now.after(ttl_ms),
                        fingerprint: settle.fingerprint,
                        record: Some(KnownRecord {
                            token,
                            attempt: 1,
                            began: now,
                            is,
                        }),
                    },
                );
                Holding::Ok
            }
            Err(refusal) => refusal,
            Ok((known, record)) => match record.is {
                Is::Running { lease_end, .. } => {
                    let ttl_ms = settle.ttl_ms.unwrap_or(known.deadline.since(lease_end));
                    self.known.insert(
                        key,
                        Known {
                            deadline: now.after(ttl_ms),
                            fingerprint: known.fingerprint.or(settle.fingerprint),
                            record: Some(KnownRecord { is, ..record }),
                        },
                    );
                    Holding::Ok
                }
                ref held if *held == is => Holding::Ok,
                _ => Holding::Stale,
            },
        };
        assert_eq!(told, wanted);
    }

    fn release(&mut self, key: usize, token: u64) {
        let bytes = name(key);
        let (shard, now) = (&mut self.shard, self.now);
        let (told, _) = shard.release(&SECRET.key(&bytes), token, &mut Unbounded, now);
        let wanted = match self.refusal(key, token) {
            Err(refusal) => refusal,
            Ok((mut known, mut record)) => match record.is {
                Is::Running { .. } | Is::Released => {
                    record.is = Is::Released;
                    known.record = Some(record);
                    self.known.insert(key, known);
                    Holding::Ok
                }
                _ => Holding::Stale,
            },
        };
        assert_eq!(told, wanted);
    }

    fn seen(&mut self, key: usize, fingerprint: Option<Fingerprint>, slide: bool) {
        const TTL_MS: u64 = 30_000;
        let bytes = name(key);
        let ask = Ask {
            ttl_ms: TTL_MS,
            mode: if slide {
                onced::store::WindowMode::Slide
            } else {
                onced::store::WindowMode::Fixed
            },
            fingerprint,
            ..Ask::default()
        };
        let (shard, now) = (&mut self.shard, self.now);
        let (verdict, _) = shard.seen(&SECRET.key(&bytes), &ask, &mut Unbounded, now);
        let wanted = match self.live(key) {
            None => {
                let marker = Known {
                    deadline: now.after(TTL_MS),
                    fingerprint,
                    record: None,
                };
                self.known.insert(key, marker);
                Verdict::New
            }
            Some(known)
                if fingerprint
                    .zip(known.fingerprint)
                    .is_some_and(|(asked, held)| asked != held) =>
            {
                Verdict::Mismatch
            }
            Some(mut known) => {
                // A record's window is not the business of who asks.
                if known.record.is_none() && slide {
                    known.deadline = known.deadline.max(now.after(TTL_MS));
                    self.known.insert(key, known);
                }
                Verdict::Dup
            }
        };
        assert_eq!(verdict, wanted);
    }

    fn do_one(&mut self, op: &Op) {
        match *op {
            Op::Begin {
                key,
                lease_ms,
                ttl_ms,
                fingerprint: asked,
                owner,
                is_behind_others,
            } => {
                let owner = owner.map(|owner| [b'o', owner]);
                let ask = Begin {
                    lease_ms,
                    ttl_ms,
                    fingerprint: asked.map(fingerprint),
                    owner: owner.as_ref().map(|owner| &owner[..]),
                    is_behind_others,
                    lacks_token: false,
                };
                self.begin(key, &ask);
            }
            Op::Renew(key, which, lease_ms) => self.renew(key, self.token(key, which), lease_ms),
            Op::Settle {
                key,
                which,
                is_failure,
                code,
                body: n,
                ttl_ms,
                fingerprint: asked,
                adopts,
            } => {
                let body = body(n);
                let settle = Settle {
                    is_failure,
                    outcome: Outcome { code, body: &body },
                    ttl_ms,
                    fingerprint: asked.map(fingerprint),
                    adopt_ttl_ms: adopts.then_some(70_000),
                };
                self.settle(key, self.token(key, which), &settle);
            }
            Op::Release(key, which) => self.release(key, self.token(key, which)),
            Op::Seen {
                key,
                fingerprint: asked,
                slide,
            } => self.seen(key, asked.map(fingerprint), slide),
            Op::Remove(key) => {
                let was_there = self
                    .shard
                    .remove(&SECRET.key(&name(key)), self.now)
                    .is_some();
                assert_eq!(was_there, self.live(key).is_some());
                self.known.remove(&key);
            }
            Op::Advance(ms) => self.now = self.now.after(ms),
            Op::ToLeaseEnd(key) => {
                if let Some(KnownRecord {
                    is: Is::Running { lease_end, .. },
                    ..
                }) = self.live(key).and_then(|known| known.record)
                {
                    // The last millisecond of the lease, or the first without.
                    let next = if self.now < lease_end {
                        lease_end
                    } else {
                        lease_end.after(1)
                    };
                    self.now = self.now.max(next);
                }
            }
            Op::ToTheEndOf(key) => {
                if let Some(known) = self.live(key) {
                    let next = if self.now < known.deadline {
                        known.deadline
                    } else {
                        known.deadline.after(1)
                    };
                    // Beyond this the table's time would have to be told anew.
                    if next < START.after(365 * 86_400_000) {
                        self.now = next;
                    }
                }
            }
            Op::Expire => while self.shard.expire(self.now, 100) {},
        }
    }

    fn check(&self) {
        for key in 0..KEYS {
            let bytes = name(key);
            let entry = self.shard.get(&SECRET.key(&bytes), self.now);
            assert_eq!(entry.as_ref().map(Known::of), self.live(key), "key {key}");
        }
        let running = |key| {
            let record = self.live(key).and_then(|known| known.record);
            record.is_some_and(|record| matches!(record.is, Is::Running { .. }))
        };
        assert_eq!(self.shard.has_running(self.now), (0..KEYS).any(running));
        let all: Vec<_> = self.given.values().flatten().collect();
        let unique: BTreeSet<_> = all.iter().collect();
        assert_eq!(all.len(), unique.len(), "a token was given twice");
        assert!(self.given.values().all(|given| given.is_sorted()));
    }

    /// What a log says of every key is the same shard again.
    fn check_replay(&self) {
        let mut again = Shard::default();
        for key in 0..KEYS {
            let bytes = name(key);
            let kept = SECRET.key(&bytes);
            let Some(entry) = self.shard.get(&kept, self.now) else {
                continue;
            };
            let record = entry.record();
            let content = Content {
                fingerprint: entry.fingerprint().filter(|_| record.is_none()),
                value: entry.value().map(|value| &value[..]),
                record,
            };
            let mut logged = Vec::new();
            push_put(&mut logged, &kept, entry.deadline, &content);
            let read = take(&mut &logged[..]).unwrap();
            let content = read.content.unwrap();
            let restored = Restored {
                fingerprint: content.fingerprint,
                value: content.value,
                record: content.record,
            };
            let (deadline, now) = (read.deadline, self.now);
            assert!(again.restore(kept, deadline, restored, &mut Unbounded, now, |_| {}));
            let entry = again.get(&kept, now);
            assert_eq!(entry.as_ref().map(Known::of), self.live(key));
        }
    }

    /// From wherever a key is, somebody is told to run, or what came of it: at once, when the lease has
    /// lapsed, or when the window has.
    fn check_ways_out(&mut self) {
        for key in 0..KEYS {
            let ask = Begin {
                lease_ms: 1_000,
                ttl_ms: 1_000,
                ..Begin::default()
            };
            let until = self.live(key).map_or(self.now, |known| match known.record {
                Some(KnownRecord {
                    is: Is::Running { lease_end, .. },
                    ..
                }) => lease_end.after(1).max(self.now),
                _ => self.now,
            });
            let before = std::mem::replace(&mut self.now, until);
            let bytes = name(key);
            let kept = SECRET.key(&bytes);
            let token = self.last + 1;
            let told = self
                .shard
                .begin(&kept, &ask, || token, &mut Unbounded, until);
            self.last = token;
            let is_out = matches!(told, Claim::Run { .. } | Claim::Settled(_) | Claim::Seen);
            assert!(is_out, "key {key}: {told:?}");
            let end = self.shard.get(&kept, until).unwrap().deadline.after(1);
            let begun = self
                .shard
                .begin(&kept, &ask, || token + 1, &mut Unbounded, end);
            let is_new = matches!(begun, Claim::Run { attempt: 1, .. });
            assert!(is_new, "key {key}: {begun:?}");
            self.last = token + 1;
            self.now = before;
        }
    }
}

proptest! {
    #![proptest_config(cases::config(400))]

    #[test]
    fn a_shard_does_what_the_table_of_verbs_and_states_says(
        ops in proptest::collection::vec(op(), 1..120),
    ) {
        let mut run = Run::new();
        for op in &ops {
            run.do_one(op);
            run.check();
        }
        run.check_replay();
        run.check_ways_out();
    }
}

/// Room for so many keys, beyond which markers are evicted.
struct Cramped {
    keys_max: isize,
    keys: isize,
}

impl Room for Cramped {
    fn admits(&self, keys: isize, _bytes: isize) -> bool {
        keys <= 0 || self.keys + keys <= self.keys_max
    }

    fn evicts(&self) -> bool {
        true
    }
}

/// Asks for a key as one of a shard that is nearly full.
fn cramped(shard: &Shard) -> Cramped {
    Cramped {
        keys_max: 1_000,
        keys: shard.len() as isize,
    }
}

#[test]
fn markers_give_way_to_records_and_records_to_nothing() {
    let mut shard = Shard::default();
    let ask = Begin {
        lease_ms: 1_000,
        ttl_ms: 1_000,
        ..Begin::default()
    };
    let (mut begun, mut refused, mut token) = (Vec::new(), 0, 0);
    for n in 0..4_000_u64 {
        let now = START.after(n / 100);
        let marker = format!("marker {n} that is long enough to be kept aside");
        let seen = Ask {
            ttl_ms: 600_000,
            ..Ask::default()
        };
        let mut room = cramped(&shard);
        let (verdict, _) = shard.seen(&SECRET.key(marker.as_bytes()), &seen, &mut room, now);
        assert!(verdict == Verdict::New || begun.len() >= 990, "{n}");
        // They end before all markers, and still stay.
        let name = format!("record {n}").into_bytes();
        let mut room = cramped(&shard);
        token += 1;
        match shard.begin(&SECRET.key(&name), &ask, || token, &mut room, now) {
            Claim::Run { .. } => begun.push(name),
            Claim::Full => refused += 1,
            other => panic!("{other:?}"),
        }
        assert!(shard.len() <= 1_000);
    }
    let now = START.after(40);
    for name in &begun {
        let entry = shard.get(&SECRET.key(name), now).expect("it was begun");
        assert!(entry.record().is_some_and(|record| record.is_leased(now)));
    }
    assert!(
        begun.len() >= 900 && refused > 0,
        "{} {refused}",
        begun.len()
    );
    // Nothing of that keeps them from ending in their time.
    let end = START.after(2_100);
    while shard.expire(end, 100) {}
    assert!(!shard.has_running(end) && shard.len() <= 1_000 - begun.len());
}
