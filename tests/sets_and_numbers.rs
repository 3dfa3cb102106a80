//! Redis's sets and numbers, and many values at once, against plain maps under virtual time; and `MSETNX` raced.
//!
//! Of a set's members the model knows bounds: until when each must be there, and from when on it must not be.
//! Where `EXPIRE` moves an end on, members may stay for an eighth of the time longer; in between, either answer
//! is right, and is what counts from then on.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "common/caller.rs"]
mod caller;
#[path = "common/cases.rs"]
mod cases;

use std::collections::BTreeMap;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use caller::{Caller, resp_request, sweep_all};
use onced::engine::{Engine, EngineConfig};
use onced::limits::{Limits, WHEEL_TICK_MS};
use onced::time::Millis;
use onced::wire::Dialect;
use proptest::prelude::*;

const START: Millis = Millis(1_790_000_000_000);
const HOUR_MS: u64 = 3_600_000;
/// The most keys where they are bounded.
const KEYS_MAX: usize = 5;
const NAMES: [&str; 7] = [
    "a",
    "b",
    "c",
    "d",
    "e",
    "f",
    "a key that is too long for its entry",
];
const SETS: [&str; 2] = ["s:1", "s:2"];

/// What a request of these words is answered, errors by their first word.
fn ask(engine: &Engine, caller: &mut Caller, words: &[&str], now: Millis) -> String {
    let reply = caller.ask(engine, &resp_request(words), now);
    reply.trim_end().replace("\r\n", " ")
}

#[derive(Clone, Debug)]
enum Op {
    IncrBy(usize, i64),
    MSet(Vec<(usize, i64)>),
    MSetNx(Vec<(usize, i64)>),
    Get(usize),
    Pttl(usize),
    Seen(usize, u64),
    SetFor(usize, u64),
    Del(usize),
    Advance(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let key = 0..NAMES.len();
    let amount = prop_oneof![-3_i64..4, Just(i64::MAX), Just(i64::MIN + 1)];
    let pairs = proptest::collection::vec((key.clone(), -2_i64..3), 1..6);
    let ms = (1_u64..200).prop_map(|ticks| ticks * WHEEL_TICK_MS);
    prop_oneof![
        6 => (key.clone(), amount).prop_map(|(key, amount)| Op::IncrBy(key, amount)),
        2 => pairs.clone().prop_map(Op::MSet),
        4 => pairs.prop_map(Op::MSetNx),
        3 => key.clone().prop_map(Op::Get),
        2 => key.clone().prop_map(Op::Pttl),
        2 => (key.clone(), ms.clone()).prop_map(|(key, ms)| Op::Seen(key, ms)),
        2 => (key.clone(), ms.clone()).prop_map(|(key, ms)| Op::SetFor(key, ms)),
        3 => key.prop_map(Op::Del),
        2 => ms.prop_map(Op::Advance),
    ]
}

/// Values and when they end.
#[derive(Default)]
struct Values {
    keys: BTreeMap<&'static str, (i64, Millis)>,
    keys_max: usize,
}

impl Values {
    fn put(&mut self, key: &'static str, value: i64, end: Millis) -> bool {
        let has_room = self.keys.contains_key(key) || self.keys.len() < self.keys_max;
        if has_room {
            self.keys.insert(key, (value, end));
        }
        has_room
    }

    /// The request, and what it is answered.
    fn answer(&mut self, op: &Op, now: Millis) -> (Vec<String>, String) {
        let default = now.after(HOUR_MS);
        let number = |n: i64| format!(":{n}");
        let request = |verb: &str, key: usize| vec![verb.to_owned(), NAMES[key].to_owned()];
        match *op {
            Op::IncrBy(key, amount) => {
                let mut words = request("INCRBY", key);
                words.push(amount.to_string());
                let held = self.keys.get(NAMES[key]).copied();
                let (before, end) = held.unwrap_or((0, default));
                let answer = match before.checked_add(amount) {
                    None => "-ERR".to_owned(),
                    Some(sum) if self.put(NAMES[key], sum, end) => number(sum),
                    Some(_) => "-OOM".to_owned(),
                };
                (words, answer)
            }
            Op::MSet(ref pairs) => {
                let is_set = |&(key, value): &(usize, i64)| self.put(NAMES[key], value, default);
                let answer = if pairs.iter().all(is_set) {
                    "+OK"
                } else {
                    "-OOM"
                };
                (with_pairs("MSET", pairs), answer.to_owned())
            }
            Op::MSetNx(ref pairs) => {
                let before = self.keys.clone();
                let is_there = |&(key, _): &(usize, i64)| before.contains_key(NAMES[key]);
                let mut answer = ":0";
                if !pairs.iter().any(is_there) {
                    let is_set =
                        |&(key, value): &(usize, i64)| self.put(NAMES[key], value, default);
                    answer = ":1";
                    if !pairs.iter().all(is_set) {
                        self.keys = before;
                        answer = "-OOM";
                    }
                }
                (with_pairs("MSETNX", pairs), answer.to_owned())
            }
            Op::Get(key) => {
                let value = self
                    .keys
                    .get(NAMES[key])
                    .map(|(value, _)| value.to_string());
                let answer = value.map_or("$-1".to_owned(), |it| format!("${} {it}", it.len()));
                (request("GET", key), answer)
            }
            Op::Pttl(key) => {
                let left = self.keys.get(NAMES[key]);
                let left = left.map_or(-2, |(_, end)| end.since(now).cast_signed());
                (request("PTTL", key), number(left))
            }
            Op::Seen(key, ms) => {
                let mut words = request("ONCE.SEEN", key);
                words.push(format!("{ms}ms"));
                let answer = if self.keys.contains_key(NAMES[key]) {
                    "+DUP"
                } else if self.put(NAMES[key], 1, now.after(ms)) {
                    "+NEW"
                } else {
                    "-OOM"
                };
                (words, answer.to_owned())
            }
            Op::SetFor(key, ms) => {
                let mut words = request("PSETEX", key);
                words.extend([ms.to_string(), "1".to_owned()]);
                let is_set = self.put(NAMES[key], 1, now.after(ms));
                (words, if is_set { "+OK" } else { "-OOM" }.to_owned())
            }
            Op::Del(key) => {
                let was_there = self.keys.remove(NAMES[key]).is_some();
                (request("DEL", key), number(i64::from(was_there)))
            }
            Op::Advance(_) => unreachable!("no request"),
        }
    }
}

fn with_pairs(verb: &str, pairs: &[(usize, i64)]) -> Vec<String> {
    let pairs = pairs.iter();
    let words = pairs.flat_map(|(key, value)| [NAMES[*key].to_owned(), value.to_string()]);
    std::iter::once(verb.to_owned()).chain(words).collect()
}

proptest! {
    #![proptest_config(cases::config(200))]

    #[test]
    fn numbers_and_many_values_are_as_in_plain_maps(
        ops in proptest::collection::vec(op(), 1..300),
        is_bounded in any::<bool>(),
    ) {
        let engine = Engine::new(EngineConfig {
            // What lapsed is given back per shard: exact with one.
            shards: if is_bounded { 1 } else { 8 },
            ..EngineConfig::default()
        });
        let mut caller = Caller::new(&engine, Dialect::Resp(2));
        let mut model = Values { keys_max: usize::MAX, ..Values::default() };
        if is_bounded {
            model.keys_max = KEYS_MAX;
            let bound = ["NS", "SET", "default", "MAXKEYS", &KEYS_MAX.to_string()];
            prop_assert_eq!(ask(&engine, &mut caller, &bound, START), "+OK");
        }
        let mut now = START;
        for op in &ops {
            if let Op::Advance(ms) = op {
                // Into a tick of its own: what lapsed before is swept.
                now = now.after(*ms);
                sweep_all(&engine, now);
                model.keys.retain(|_, (_, end)| now <= *end);
                continue;
            }
            let (words, wanted) = model.answer(op, now);
            let words: Vec<_> = words.iter().map(String::as_str).collect();
            let told = ask(&engine, &mut caller, &words, now);
            prop_assert_eq!(told, wanted, "{:?}", words);
        }
    }
}

#[derive(Clone, Debug)]
enum SetOp {
    Add(usize, Vec<usize>),
    Remove(usize, usize),
    End(usize, u64, Option<&'static str>),
    Persist(usize),
    Ttl(usize),
    Del(usize),
    Advance(u64),
}

fn set_op() -> impl Strategy<Value = SetOp> {
    let (set, key) = (0..SETS.len(), 0..NAMES.len());
    let ms = (1_u64..2_000).prop_map(|ticks| ticks * WHEEL_TICK_MS);
    let condition = proptest::option::of(proptest::sample::select(vec!["NX", "XX", "GT", "LT"]));
    prop_oneof![
        6 => (set.clone(), proptest::collection::vec(key.clone(), 1..5)).prop_map(|(set, keys)| SetOp::Add(set, keys)),
        2 => (set.clone(), key).prop_map(|(set, key)| SetOp::Remove(set, key)),
        5 => (set.clone(), ms.clone(), condition).prop_map(|(set, ms, only)| SetOp::End(set, ms, only)),
        1 => set.clone().prop_map(SetOp::Persist),
        2 => set.clone().prop_map(SetOp::Ttl),
        1 => set.prop_map(SetOp::Del),
        5 => prop_oneof![Just(WHEEL_TICK_MS), ms, Just(HOUR_MS)].prop_map(SetOp::Advance),
    ]
}

/// A set: of each member until when it is there at least, and at most.
#[derive(Default)]
struct Members {
    bounds: BTreeMap<&'static str, (Millis, Millis)>,
    /// When the whole ends, and its members at most.
    end: Option<(Millis, Millis)>,
}

impl Members {
    /// Asks of each member that may be there or not.
    fn settle(&mut self, name: &str, asking: &mut impl FnMut(&[&str]) -> String, now: Millis) {
        self.bounds.retain(|member, (least, _)| {
            let told = asking(&["SISMEMBER", name, member]);
            assert!(
                now > *least || told == ":1",
                "{member} of {name} is forgotten early"
            );
            told == ":1"
        });
        for member in NAMES {
            let told = asking(&["SISMEMBER", name, member]);
            assert_eq!(told == ":1", self.bounds.contains_key(member), "{member}");
        }
        self.end = self.end.filter(|_| !self.bounds.is_empty());
    }

    fn end_at(&mut self, least: Millis, most: Millis) {
        for bounds in self.bounds.values_mut() {
            *bounds = (least, most);
        }
    }

    /// Does an operation on the set of this name, whose members are settled, and holds the reply against the model.
    fn check(
        &mut self,
        name: &str,
        op: &SetOp,
        asking: &mut impl FnMut(&[&str]) -> String,
        now: Millis,
    ) {
        let held = self.end.filter(|(asked, _)| now <= *asked);
        match *op {
            SetOp::Add(_, ref members) => {
                let members: Vec<_> = members.iter().map(|&at| NAMES[at]).collect();
                // Behind an end it begins anew, whoever is still there.
                self.end = held;
                let alone = now.after(HOUR_MS);
                let (least, most) = self.end.unwrap_or((alone, alone));
                let mut new = 0;
                for member in &members {
                    if !self.bounds.contains_key(member) {
                        new += 1;
                        self.bounds.insert(member, (least, most));
                    }
                }
                let words = [&["SADD", name][..], &members].concat();
                assert_eq!(asking(&words), format!(":{new}"));
            }
            SetOp::Remove(_, at) => {
                let was_there = self.bounds.remove(NAMES[at]).is_some();
                self.end = self.end.filter(|_| !self.bounds.is_empty());
                assert_eq!(
                    asking(&["SREM", name, NAMES[at]]),
                    format!(":{}", u8::from(was_there))
                );
            }
            SetOp::End(_, ms, only) => {
                let asked = now.after(ms);
                let goes_ahead = !self.bounds.is_empty()
                    && match (only, held) {
                        (None, _) | (Some("NX" | "LT"), None) | (Some("XX"), Some(_)) => true,
                        (Some("GT"), Some((before, _))) => asked > before,
                        (Some("LT"), Some((before, _))) => asked < before,
                        _ => false,
                    };
                let ms_word = ms.to_string();
                let mut words = vec!["PEXPIRE", name, &ms_word];
                words.extend(only);
                assert_eq!(asking(&words), format!(":{}", u8::from(goes_ahead)));
                if goes_ahead {
                    let most = asked.after(ms / 8 + WHEEL_TICK_MS);
                    self.end = Some((asked, most));
                    self.end_at(asked, most);
                }
            }
            SetOp::Persist(_) => {
                let goes_ahead = !self.bounds.is_empty() && held.is_some();
                assert_eq!(
                    asking(&["PERSIST", name]),
                    format!(":{}", u8::from(goes_ahead))
                );
                if goes_ahead {
                    let latest = now.after(Limits::DEFAULT.ttl_max_ms);
                    self.end = None;
                    self.end_at(latest, latest);
                }
            }
            SetOp::Ttl(_) => {
                let left = match held {
                    _ if self.bounds.is_empty() => -2,
                    None => -1,
                    Some((asked, _)) => asked.since(now).cast_signed(),
                };
                assert_eq!(asking(&["PTTL", name]), format!(":{left}"));
            }
            SetOp::Del(_) => {
                let was_there = !self.bounds.is_empty();
                assert_eq!(asking(&["DEL", name]), format!(":{}", u8::from(was_there)));
                *self = Self::default();
            }
            SetOp::Advance(_) => unreachable!("no request"),
        }
    }
}

proptest! {
    #![proptest_config(cases::config(200))]

    #[test]
    fn sets_are_as_plain_maps_and_forget_no_member_early(
        ops in proptest::collection::vec(set_op(), 1..150),
    ) {
        let engine = Engine::new(EngineConfig { shards: 4, ..EngineConfig::default() });
        let mut caller = Caller::new(&engine, Dialect::Resp(2));
        let mut model = SETS.map(|_| Members::default());
        let mut now = START;
        for op in &ops {
            match *op {
                SetOp::Advance(ms) => {
                    now = now.after(ms);
                    // What lapsed within this tick is not swept yet, and counts.
                    while (0..SETS.len()).any(|set| {
                        sweep_all(&engine, now);
                        let mut asking = |words: &[&str]| ask(&engine, &mut caller, words, now);
                        model[set].settle(SETS[set], &mut asking, now);
                        let keys = engine.find(SETS[set]).map_or(0, |set| set.keys());
                        keys > model[set].bounds.len() as u64
                    }) {
                        now = now.after(WHEEL_TICK_MS);
                    }
                }
                SetOp::Add(set, _) | SetOp::Remove(set, _) | SetOp::End(set, ..) | SetOp::Persist(set) | SetOp::Ttl(set) | SetOp::Del(set) => {
                    let mut asking = |words: &[&str]| ask(&engine, &mut caller, words, now);
                    model[set].check(SETS[set], op, &mut asking, now);
                }
            }
        }
    }
}

const THREADS: usize = 4;
const ROUNDS: usize = 2_000;

/// One of all who store the same keys, in any order, stores them all; whoever locks every shard, or has the
/// namespace made anew, waits for none of them for ever.
#[test]
fn one_of_those_who_race_stores_all_keys() {
    let engine = Engine::new(EngineConfig {
        shards: 8,
        ..EngineConfig::default()
    });
    let barrier = Barrier::new(THREADS);
    let (won, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    // What was wrong, told at the end: whoever stops halfway leaves the others at the barrier.
    let race = |me: usize| {
        let mut caller = Caller::new(&engine, Dialect::Resp(2));
        let mut wrong = Vec::new();
        let mut expect = |holds: bool, round: usize, what: &str| {
            if !holds {
                wrong.push(format!("round {round}: {what}"));
            }
        };
        let chosen = ask(&engine, &mut caller, &["USE", "race"], START);
        expect(chosen == "+OK", 0, &chosen);
        let id = me.to_string();
        let mut words = vec!["MSETNX"];
        for at in 0..NAMES.len() {
            // Each begins with another key.
            words.extend([NAMES[(at + 2 * me) % NAMES.len()], &id]);
        }
        for round in 0..ROUNDS {
            barrier.wait();
            let told = ask(&engine, &mut caller, &words, START);
            if told == ":1" {
                won.fetch_add(1, Ordering::Relaxed);
            } else {
                expect(told == ":0", round, &told);
            }
            barrier.wait();
            let winners = won.load(Ordering::Relaxed);
            expect(winners == round + 1, round, &format!("{winners} have won"));
            let values = ask(
                &engine,
                &mut caller,
                &[&["MGET"][..], &NAMES].concat(),
                START,
            );
            let values: Vec<_> = values.split(' ').skip(1).step_by(2).collect();
            let are_there = values.iter().all(|value| *value == "$1");
            expect(are_there, round, &values.join(" "));
            let first = ask(&engine, &mut caller, &["GET", NAMES[0]], START);
            for key in NAMES {
                let value = ask(&engine, &mut caller, &["GET", key], START);
                expect(
                    value == first,
                    round,
                    &format!("{key} is {value}, not {first}"),
                );
            }
            barrier.wait();
            ask(
                &engine,
                &mut caller,
                &[&["DEL"][..], &NAMES].concat(),
                START,
            );
        }
        wrong
    };
    thread::scope(|scope| {
        let racers: Vec<_> = (0..THREADS)
            .map(|me| scope.spawn(move || race(me)))
            .collect();
        scope.spawn(|| {
            let mut caller = Caller::new(&engine, Dialect::Resp(2));
            let forms = ["DIGEST", "EXACT"];
            for form in forms.iter().cycle() {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                // Refused where there are keys.
                ask(
                    &engine,
                    &mut caller,
                    &["NS", "SET", "race", "KEYS", form],
                    START,
                );
                thread::yield_now();
            }
        });
        let outcomes: Vec<_> = racers
            .into_iter()
            .map(thread::ScopedJoinHandle::join)
            .collect();
        is_over.store(true, Ordering::Relaxed);
        for outcome in outcomes {
            let wrong = outcome.unwrap();
            assert!(wrong.is_empty(), "{:#?}", &wrong[..wrong.len().min(10)]);
        }
    });
}
