//! The engine against plain maps, asked in the words of both dialects, under virtual time.
//!
//! Two engines run the same requests, one swept often and one never: both must answer as the
//! model does, so no answer depends on the sweeper. The second keeps digests of long keys in its
//! default namespace, which nothing but `KEYS` can tell. Time moves in whole ticks of the wheel here,
//! or a key that lapsed within this tick might or might not count against `MAXKEYS`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "common/caller.rs"]
mod caller;
#[path = "common/cases.rs"]
mod cases;

use std::collections::{BTreeMap, HashMap};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread;

use caller::{Caller, gist, resp_request, sweep_all};
use onced::command::PolicyChange;
use onced::engine::{Engine, EngineConfig};
use onced::limits::{AT_AHEAD_MAX_MS, Limits, WHEEL_TICK_MS};
use onced::time::Millis;
use onced::wire::Dialect;
use proptest::prelude::*;

const START: Millis = Millis(1_790_000_000_000);
const DAY_MS: u64 = 86_400_000;
const SPACES: [&str; 3] = ["default", "alpha", "small"];
/// The most keys of the namespace `small`.
const SMALL: usize = 6;
const KEYS: usize = 10;
const FINGERPRINTS: [&str; 3] = ["0a", "a", "ffff"];
const VALUES: [&str; 3] = ["1", "worker-7", ""];

fn key(n: usize) -> String {
    match n % 3 {
        0 => format!("38101a0b-2096-447d-96ea-a6921624{n:04x}"),
        1 => format!("order-{n}"),
        _ => format!("a key that is too long for its entry, number {n}"),
    }
}

fn quoted(key: &str) -> String {
    format!("\"{key}\"")
}

fn bulk(value: Option<&str>) -> String {
    value.map_or("$-1\r\n".to_owned(), |value| {
        format!("${}\r\n{value}\r\n", value.len())
    })
}

#[derive(Clone, Copy, Debug)]
enum Condition {
    Always,
    Absent,
    Present,
    Equals(usize),
}

#[derive(Clone, Copy, Debug)]
enum Expiry {
    Default,
    Keep,
    In(u64),
    /// Relative to now.
    At(i64),
}

#[derive(Clone, Debug)]
enum Op {
    Seen {
        key: usize,
        ttl_ms: Option<u64>,
        slide: Option<bool>,
        fingerprint: Option<usize>,
        event_at: Option<i64>,
        space: Option<usize>,
    },
    MSeen(Option<u64>, Vec<usize>),
    Peek(Vec<usize>),
    Forget(Vec<usize>),
    Touch(usize, u64, bool),
    Ttl(usize),
    Inspect(usize),
    Use(usize),
    NsSet(usize, Option<u64>, Option<u64>, Option<bool>),
    NsUnsure(usize, Option<bool>, bool),
    NsPurge(usize),
    NsDrop(usize),
    Set(usize, usize, Condition, Expiry, bool),
    Get(usize),
    GetDel(usize),
    DelIf(usize, usize),
    Expire(usize, i64, Option<&'static str>),
    Persist(usize),
    Pttl(usize),
    MGet(Vec<usize>),
    Keys,
    Select(usize),
    Advance(u64),
    Sweep,
}

fn ttl_ms() -> impl Strategy<Value = u64> {
    // Whole ticks, so that some request comes in a key's last millisecond.
    prop_oneof![
        (1_u64..4).prop_map(|ticks| ticks * WHEEL_TICK_MS),
        1_u64..5_000,
        1_u64..400 * DAY_MS,
    ]
}

fn keys() -> impl Strategy<Value = Vec<usize>> {
    proptest::collection::vec(0..KEYS, 1..6)
}

fn op() -> impl Strategy<Value = Op> {
    use proptest::option::{of, weighted};
    let space = 0..SPACES.len();
    let event_at = prop_oneof![-20_000_i64..20_000, -400_000_i64..400_000];
    let seen = (
        0..KEYS,
        weighted(0.8, ttl_ms()),
        of(any::<bool>()),
        weighted(0.3, 0..FINGERPRINTS.len()),
        weighted(0.2, event_at),
        weighted(0.2, space.clone()),
    )
        .prop_map(
            |(key, ttl_ms, slide, fingerprint, event_at, space)| Op::Seen {
                key,
                ttl_ms,
                slide,
                fingerprint,
                event_at,
                space,
            },
        );
    let condition = prop_oneof![
        Just(Condition::Always),
        Just(Condition::Absent),
        Just(Condition::Present),
        (0..VALUES.len()).prop_map(Condition::Equals),
    ];
    let expiry = prop_oneof![
        Just(Expiry::Default),
        Just(Expiry::Keep),
        ttl_ms().prop_map(Expiry::In),
        (-100_000_i64..1_000_000).prop_map(Expiry::At),
    ];
    let set = (0..KEYS, 0..VALUES.len(), condition, expiry, any::<bool>()).prop_map(
        |(key, value, condition, expiry, get)| Op::Set(key, value, condition, expiry, get),
    );
    let policy = (space.clone(), of(ttl_ms()), of(ttl_ms()), of(any::<bool>()))
        .prop_map(|(space, ttl, max, slide)| Op::NsSet(space, ttl, max, slide));
    let unsure = (space.clone(), of(any::<bool>()), weighted(0.3, Just(())))
        .prop_map(|(space, report, covered)| Op::NsUnsure(space, report, covered.is_some()));
    let expire_if = of(proptest::sample::select(vec!["NX", "XX", "GT", "LT"]));
    let amount = prop_oneof![1 => -5_i64..1, 9 => ttl_ms().prop_map(u64::cast_signed)];
    prop_oneof![
        16 => seen,
        6 => (of(ttl_ms()), keys()).prop_map(|(ttl, keys)| Op::MSeen(ttl, keys)),
        3 => keys().prop_map(Op::Peek),
        2 => keys().prop_map(Op::Forget),
        3 => (0..KEYS, ttl_ms(), any::<bool>()).prop_map(|(key, ttl, gt)| Op::Touch(key, ttl, gt)),
        2 => (0..KEYS).prop_map(Op::Ttl),
        2 => (0..KEYS).prop_map(Op::Inspect),
        2 => space.clone().prop_map(Op::Use),
        2 => policy,
        3 => unsure,
        1 => space.clone().prop_map(Op::NsPurge),
        1 => space.clone().prop_map(Op::NsDrop),
        10 => set,
        3 => (0..KEYS).prop_map(Op::Get),
        1 => (0..KEYS).prop_map(Op::GetDel),
        2 => (0..KEYS, 0..VALUES.len()).prop_map(|(key, value)| Op::DelIf(key, value)),
        4 => (0..KEYS, amount, expire_if).prop_map(|(key, ms, condition)| Op::Expire(key, ms, condition)),
        1 => (0..KEYS).prop_map(Op::Persist),
        2 => (0..KEYS).prop_map(Op::Pttl),
        1 => keys().prop_map(Op::MGet),
        2 => Just(Op::Keys),
        2 => space.prop_map(Op::Select),
        10 => prop_oneof![1_u64..4, 1_u64..500, 1_u64..4_000_000].prop_map(|ticks| Op::Advance(ticks * WHEEL_TICK_MS)),
        6 => Just(Op::Sweep),
    ]
}

#[derive(Clone, Debug)]
struct Held {
    deadline: Millis,
    fingerprint: Option<&'static str>,
    value: &'static str,
}

/// A namespace of the model.
#[derive(Debug)]
struct Space {
    ttl_ms: u64,
    ttl_max_ms: u64,
    slide: bool,
    keys_max: usize,
    keys: HashMap<String, Held>,
    covered_since: Millis,
    reports_unsure: bool,
    unsure: u64,
}

impl Space {
    fn new(covered_since: Millis) -> Self {
        Self {
            ttl_ms: Limits::DEFAULT.ttl_default_ms,
            ttl_max_ms: Limits::DEFAULT.ttl_max_ms,
            slide: false,
            keys_max: usize::MAX,
            keys: HashMap::new(),
            covered_since,
            reports_unsure: false,
            unsure: 0,
        }
    }

    /// Counts a key that was not there as unsure if it is; returns whether it is.
    fn doubt(&mut self, ttl_ms: u64, event_at: Option<Millis>, now: Millis) -> bool {
        let is_too_old = event_at.is_some_and(|at| at.after(ttl_ms) < now);
        let is_unsure = is_too_old || now.0.saturating_sub(ttl_ms) < self.covered_since.0;
        self.unsure += u64::from(is_unsure);
        is_unsure
    }

    fn put(&mut self, key: &str, held: Held) -> bool {
        if !self.keys.contains_key(key) && self.keys.len() >= self.keys_max {
            return false;
        }
        self.keys.insert(key.to_owned(), held);
        true
    }
}

struct Model {
    spaces: BTreeMap<&'static str, Space>,
    now: Millis,
    /// From when on nothing was lost of what is not there.
    covered_since: Millis,
    /// Where the line caller and the RESP caller are.
    line: &'static str,
    resp: &'static str,
}

/// A request in either dialect.
enum Request {
    Line(String),
    Resp(Vec<String>),
}

fn line(request: String) -> Request {
    Request::Line(request)
}

fn resp(words: &[&str]) -> Request {
    Request::Resp(words.iter().map(|&word| word.to_owned()).collect())
}

fn joined(keys: &[usize]) -> String {
    keys.iter()
        .map(|&n| quoted(&key(n)))
        .collect::<Vec<_>>()
        .join(" ")
}

impl Model {
    /// What lapsed is forgotten before anything is asked.
    fn at(&mut self, now: Millis) {
        self.now = now;
        for space in self.spaces.values_mut() {
            space.keys.retain(|_, held| now <= held.deadline);
        }
    }

    fn open(&mut self, name: &'static str) -> &mut Space {
        let since = self.covered_since;
        self.spaces.entry(name).or_insert_with(|| Space::new(since))
    }

    /// The request of an operation and the reply that it must get.
    fn answer(&mut self, op: &Op) -> (Request, String) {
        let now = self.now;
        match *op {
            Op::Use(_)
            | Op::NsSet(..)
            | Op::NsUnsure(..)
            | Op::NsPurge(_)
            | Op::NsDrop(_)
            | Op::Select(_) => {
                return self.on_spaces(op);
            }
            Op::Seen {
                key: n,
                ttl_ms,
                slide,
                fingerprint,
                event_at,
                space,
            } => {
                let event_at = event_at.map(|ahead| Millis(now.0.saturating_add_signed(ahead)));
                let mut request = format!("SEEN {}", quoted(&key(n)));
                for (word, name) in [
                    (ttl_ms.map(|ms| format!("{ms}ms")), ""),
                    (
                        slide.map(|on| if on { "SLIDE" } else { "fixed" }.to_owned()),
                        "",
                    ),
                    (fingerprint.map(|n| FINGERPRINTS[n].to_owned()), "FP "),
                    (event_at.map(|at| at.0.to_string()), "AT "),
                    (space.map(|n| SPACES[n].to_owned()), "NS "),
                ] {
                    request.extend(word.map(|word| format!(" {name}{word}")));
                }
                let asked = (n, ttl_ms, slide, fingerprint, event_at);
                let here = self.line;
                if space.is_none() {
                    self.open(here);
                }
                let reply = match space.map_or(Some(here), |n| {
                    self.spaces.contains_key(SPACES[n]).then_some(SPACES[n])
                }) {
                    Some(name) => seen(self.open(name), asked, now),
                    None => "ERR NONS",
                };
                return (line(request), format!("{reply}\n"));
            }
            _ => {}
        }
        match *op {
            Op::Set(..)
            | Op::Get(_)
            | Op::GetDel(_)
            | Op::DelIf(..)
            | Op::Expire(..)
            | Op::Persist(_)
            | Op::Pttl(_)
            | Op::MGet(_)
            | Op::Keys => {
                let here = self.resp;
                answer_resp(self.open(here), op, now)
            }
            _ => {
                let here = self.line;
                let (request, reply) = answer_line(self.open(here), op, now);
                (line(request), format!("{reply}\n"))
            }
        }
    }

    fn on_spaces(&mut self, op: &Op) -> (Request, String) {
        let (request, reply) = match *op {
            Op::Use(n) => {
                self.line = SPACES[n];
                self.open(SPACES[n]);
                (format!("USE {}", SPACES[n]), "OK")
            }
            Op::Select(n) => {
                // The same namespaces under the names that RESP clients use.
                self.resp = SPACES[n];
                self.open(SPACES[n]);
                return (resp(&["ONCE.USE", SPACES[n]]), "+OK\r\n".to_owned());
            }
            Op::NsSet(n, ttl, max, slide) => {
                let mut request = format!("NS SET {}", SPACES[n]);
                request.extend(ttl.map(|ms| format!(" TTL {ms}ms")));
                request.extend(max.map(|ms| format!(" MAXTTL {ms}ms")));
                request.extend(
                    slide.map(|on| format!(" MODE {}", if on { "SLIDE" } else { "FIXED" })),
                );
                let absent = Space::new(Millis(0));
                let held = self.spaces.get(SPACES[n]).unwrap_or(&absent);
                let new_max = max.unwrap_or(held.ttl_max_ms);
                // A ttl that is not named gives way to a shorter maximum.
                let new_ttl = ttl.unwrap_or(held.ttl_ms.min(new_max));
                if [ttl, max]
                    .iter()
                    .flatten()
                    .any(|&ms| ms > Limits::DEFAULT.ttl_max_ms)
                {
                    unreachable!("the request would not parse");
                }
                if new_ttl > new_max {
                    (request, "ERR RANGE")
                } else {
                    let space = self.open(SPACES[n]);
                    (space.ttl_ms, space.ttl_max_ms) = (new_ttl, new_max);
                    space.slide = slide.unwrap_or(space.slide);
                    (request, "OK")
                }
            }
            Op::NsUnsure(n, report, covered) => {
                let mut request = format!("NS SET {}", SPACES[n]);
                let space = self.open(SPACES[n]);
                if let Some(report) = report {
                    request.push_str(if report {
                        " UNSURE REPORT"
                    } else {
                        " UNSURE NEW"
                    });
                    space.reports_unsure = report;
                }
                if covered {
                    request.push_str(" COVERED");
                    space.covered_since = Millis(0);
                }
                (request, "OK")
            }
            Op::NsPurge(n) => {
                let request = format!("NS PURGE {}", SPACES[n]);
                let lost_until = self.now.after(1);
                let reply = self.spaces.get_mut(SPACES[n]).map_or("ERR NONS", |space| {
                    space.keys.clear();
                    space.covered_since = space.covered_since.max(lost_until);
                    "OK"
                });
                (request, reply)
            }
            Op::NsDrop(n) => {
                let request = format!("NS DROP {}", SPACES[n]);
                let reply = if n == 0 {
                    "ERR ARGS"
                } else if self.spaces.remove(SPACES[n]).is_some() {
                    self.covered_since = self.covered_since.max(self.now.after(1));
                    "OK"
                } else {
                    "ERR NONS"
                };
                (request, reply)
            }
            _ => unreachable!("not on namespaces"),
        };
        (line(request), format!("{reply}\n"))
    }
}

type Asked = (
    usize,
    Option<u64>,
    Option<bool>,
    Option<usize>,
    Option<Millis>,
);

fn seen(
    space: &mut Space,
    (n, ttl_ms, slide, fingerprint, event_at): Asked,
    now: Millis,
) -> &'static str {
    let ttl_ms = ttl_ms.unwrap_or(space.ttl_ms);
    if ttl_ms > space.ttl_max_ms || event_at.is_some_and(|at| at.since(now) > AT_AHEAD_MAX_MS) {
        return "ERR RANGE";
    }
    let deadline = event_at.map_or(now, |at| at.max(now)).after(ttl_ms);
    let fingerprint = fingerprint.map(|n| FINGERPRINTS[n]);
    let slide = slide.unwrap_or(space.slide);
    let key = key(n);
    if let Some(held) = space.keys.get_mut(&key) {
        if held.fingerprint.is_some() && fingerprint.is_some() && held.fingerprint != fingerprint {
            return "MISMATCH";
        }
        if slide {
            held.deadline = held.deadline.max(deadline);
        }
        return "DUP";
    }
    let held = Held {
        deadline,
        fingerprint,
        value: "1",
    };
    if !space.put(&key, held) {
        return "ERR FULL";
    }
    if space.doubt(ttl_ms, event_at, now) && space.reports_unsure {
        "UNSURE"
    } else {
        "NEW"
    }
}

fn answer_line(space: &mut Space, op: &Op, now: Millis) -> (String, String) {
    match *op {
        Op::MSeen(ttl_ms, ref keys) => {
            let word = ttl_ms.map_or("-".to_owned(), |ms| format!("{ms}ms"));
            let request = format!("MSEEN {word} {}", joined(keys));
            if ttl_ms.is_some_and(|ms| ms > space.ttl_max_ms) {
                return (request, "ERR RANGE".to_owned());
            }
            let letters =
                keys.iter()
                    .map(|&n| match seen(space, (n, ttl_ms, None, None, None), now) {
                        "NEW" => 'N',
                        "UNSURE" => 'U',
                        "DUP" => 'D',
                        _ => 'E',
                    });
            (request, letters.collect())
        }
        Op::Peek(ref keys) => {
            let letters = keys.iter().map(|&n| {
                if space.keys.contains_key(&key(n)) {
                    'D'
                } else {
                    'N'
                }
            });
            (format!("PEEK {}", joined(keys)), letters.collect())
        }
        Op::Forget(ref keys) => {
            let gone = keys
                .iter()
                .filter(|&&n| space.keys.remove(&key(n)).is_some())
                .count();
            (format!("FORGET {}", joined(keys)), format!("OK {gone}"))
        }
        Op::Touch(n, ttl_ms, later_only) => {
            let gt = if later_only { " GT" } else { "" };
            let request = format!("TOUCH {} {ttl_ms}ms{gt}", quoted(&key(n)));
            if ttl_ms > space.ttl_max_ms {
                return (request, "ERR RANGE".to_owned());
            }
            let reply = space.keys.get_mut(&key(n)).map_or("NIL", |held| {
                let deadline = now.after(ttl_ms);
                if !later_only || deadline > held.deadline {
                    held.deadline = deadline;
                }
                "OK"
            });
            (request, reply.to_owned())
        }
        Op::Ttl(n) => {
            let left = space
                .keys
                .get(&key(n))
                .map(|held| held.deadline.since(now).to_string());
            (
                format!("TTL {}", quoted(&key(n))),
                left.unwrap_or("NIL".to_owned()),
            )
        }
        Op::Inspect(n) => {
            let reply = space.keys.get(&key(n)).map_or("NIL".to_owned(), |held| {
                let rows = 2 + usize::from(held.fingerprint.is_some());
                let left_ms = held.deadline.since(now);
                let mut reply = format!("ROWS {rows}\nstate seen\nexpires_in_ms {left_ms}");
                reply.extend(
                    held.fingerprint
                        .map(|digits| format!("\nfingerprint {digits}")),
                );
                reply
            });
            (format!("INSPECT {}", quoted(&key(n))), reply)
        }
        _ => unreachable!("not on a line"),
    }
}

fn answer_resp(space: &mut Space, op: &Op, now: Millis) -> (Request, String) {
    match *op {
        Op::Set(n, value, condition, expiry, get) => {
            set(space, (n, VALUES[value], condition, expiry, get), now)
        }
        Op::Get(n) => {
            let value = space.keys.get(&key(n)).map(|held| held.value);
            (resp(&["GET", &key(n)]), bulk(value))
        }
        Op::GetDel(n) => {
            let value = space.keys.remove(&key(n)).map(|held| held.value);
            (resp(&["GETDEL", &key(n)]), bulk(value))
        }
        Op::DelIf(n, value) => {
            let value = VALUES[value];
            let is_it = space
                .keys
                .get(&key(n))
                .is_some_and(|held| held.value == value);
            if is_it {
                space.keys.remove(&key(n));
            }
            let reply = format!(":{}\r\n", u8::from(is_it));
            (resp(&["DELEX", &key(n), "IFEQ", value]), reply)
        }
        Op::Expire(n, ms, condition) => {
            let (key, ms_word) = (key(n), ms.to_string());
            let mut words = vec!["PEXPIRE", &key, &ms_word];
            words.extend(condition);
            let latest = now.after(space.ttl_max_ms);
            let deadline = match u64::try_from(ms) {
                Ok(ms) if ms > 0 => now.after(ms).min(latest),
                _ => Millis(0),
            };
            let done = end_at(space, &key, deadline, condition, now);
            (resp(&words), format!(":{}\r\n", u8::from(done)))
        }
        Op::Persist(n) => {
            let latest = now.after(space.ttl_max_ms);
            let done = end_at(space, &key(n), latest, None, now);
            (
                resp(&["PERSIST", &key(n)]),
                format!(":{}\r\n", u8::from(done)),
            )
        }
        Op::Pttl(n) => {
            let left = space
                .keys
                .get(&key(n))
                .map_or(-2, |held| held.deadline.since(now).cast_signed());
            (resp(&["PTTL", &key(n)]), format!(":{left}\r\n"))
        }
        Op::MGet(ref keys) => {
            let names: Vec<_> = keys.iter().map(|&n| key(n)).collect();
            let words: Vec<_> = std::iter::once("MGET")
                .chain(names.iter().map(String::as_str))
                .collect();
            let values = names
                .iter()
                .map(|key| bulk(space.keys.get(key).map(|held| held.value)));
            let reply = format!("*{}\r\n{}", names.len(), values.collect::<String>());
            (resp(&words), reply)
        }
        Op::Keys => {
            let mut names: Vec<_> = space.keys.keys().map(|key| bulk(Some(key))).collect();
            names.sort_unstable();
            let reply = format!("*{}\r\n{}", names.len(), names.concat());
            (resp(&["KEYS", "*"]), reply)
        }
        _ => unreachable!("not in RESP"),
    }
}

fn end_at(
    space: &mut Space,
    key: &str,
    deadline: Millis,
    condition: Option<&str>,
    now: Millis,
) -> bool {
    let Some(held) = space.keys.get_mut(key) else {
        return false;
    };
    let done = match condition {
        None | Some("XX") => true,
        Some("GT") => deadline > held.deadline,
        Some("LT") => deadline < held.deadline,
        _ => false,
    };
    if done {
        held.deadline = deadline;
        space.keys.retain(|_, held| now <= held.deadline);
    }
    done
}

fn set(
    space: &mut Space,
    (n, value, condition, expiry, get): (usize, &'static str, Condition, Expiry, bool),
    now: Millis,
) -> (Request, String) {
    let key = key(n);
    let held = space.keys.get(&key).cloned();
    let mut words = vec!["SET".to_owned(), key.clone(), value.to_owned()];
    match condition {
        Condition::Always => {}
        Condition::Absent => words.push("NX".to_owned()),
        Condition::Present => words.push("XX".to_owned()),
        Condition::Equals(n) => words.extend(["IFEQ".to_owned(), VALUES[n].to_owned()]),
    }
    words.extend(get.then(|| "GET".to_owned()));
    let (default, latest) = (now.after(space.ttl_ms), now.after(space.ttl_max_ms));
    let deadline = match expiry {
        Expiry::Default => default,
        Expiry::Keep => {
            words.push("KEEPTTL".to_owned());
            held.as_ref().map_or(default, |held| held.deadline)
        }
        Expiry::In(ms) => {
            words.extend(["PX".to_owned(), ms.to_string()]);
            now.after(ms).min(latest)
        }
        Expiry::At(ahead) => {
            let at = Millis(now.0.saturating_add_signed(ahead));
            words.extend(["pxat".to_owned(), at.0.to_string()]);
            at.min(latest)
        }
    };
    let before = held.as_ref().map(|held| held.value);
    let holds = match condition {
        Condition::Always => true,
        Condition::Absent => held.is_none(),
        Condition::Present => held.is_some(),
        Condition::Equals(n) => before == Some(VALUES[n]),
    };
    let mut stored = holds;
    let mut full = false;
    if holds && deadline < now {
        space.keys.remove(&key);
    } else if holds {
        let held = Held {
            deadline,
            fingerprint: None,
            value,
        };
        stored = space.put(&key, held);
        full = !stored;
        if stored && matches!(condition, Condition::Absent) {
            space.doubt(deadline.since(now), None, now);
        }
    }
    let reply = match (full, get) {
        (true, _) => "-OOM".to_owned(),
        (false, true) => bulk(before),
        (false, false) if stored => "+OK\r\n".to_owned(),
        (false, false) => bulk(None),
    };
    (Request::Resp(words), reply)
}

/// An engine with a caller of each dialect.
struct Side {
    engine: Engine,
    line: Caller,
    resp: Caller,
}

impl Side {
    fn new(shards: usize, keeps_digests: bool) -> Self {
        let change = PolicyChange {
            keeps_digests: Some(keeps_digests),
            ..PolicyChange::default()
        };
        let engine = Engine::new(EngineConfig {
            shards,
            namespaces: vec![("default".to_owned(), change)],
            covered_since: START,
            ..EngineConfig::default()
        });
        let line = Caller::new(&engine, Dialect::Line);
        let resp = Caller::new(&engine, Dialect::Resp(2));
        Self { engine, line, resp }
    }

    fn ask(&mut self, request: &Request, now: Millis) -> String {
        match request {
            Request::Line(line) => self
                .line
                .ask(&self.engine, format!("{line}\n").as_bytes(), now),
            Request::Resp(words) => {
                let words: Vec<_> = words.iter().map(String::as_str).collect();
                let reply = self.resp.ask(&self.engine, &resp_request(&words), now);
                if words[0] == "KEYS" {
                    sorted(&reply)
                } else {
                    reply
                }
            }
        }
    }
}

/// An array of bulk strings in order.
fn sorted(reply: &str) -> String {
    let mut items = items(reply);
    items.sort_unstable();
    format!("*{}\r\n{}", items.len(), items.concat())
}

/// The bulk strings of an array, without those of keys that do not fit 16 bytes.
fn without_long(reply: &str) -> String {
    let mut items = items(reply);
    items.retain(|item| !item.contains("too long"));
    format!("*{}\r\n{}", items.len(), items.concat())
}

fn items(reply: &str) -> Vec<String> {
    let (head, items) = reply.split_once("\r\n").expect("an array has a head");
    let lines: Vec<_> = items.split_terminator("\r\n").collect();
    let items: Vec<_> = lines
        .chunks(2)
        .map(|item| format!("{}\r\n{}\r\n", item[0], item[1]))
        .collect();
    assert_eq!(head, format!("*{}", items.len()));
    items
}

/// Asks the model and both engines the same, and holds their replies against each other.
fn ask_all(model: &mut Model, sides: &mut [Side; 2], op: &Op) {
    let now = model.now;
    let (request, expected) = model.answer(op);
    for (side, name) in sides.iter_mut().zip(["swept", "unswept"]) {
        let mut reply = side.ask(&request, now);
        let mut expected = gist(&expected);
        if matches!(op, Op::Keys) && name == "unswept" {
            (reply, expected) = (without_long(&reply), without_long(&expected));
        }
        assert_eq!(reply, expected, "{op:?} on the {name} engine");
    }
}

/// Makes `small` small: at first, and again after it was dropped.
fn bound_small(model: &mut Model, sides: &mut [Side; 2]) {
    model.open("small").keys_max = SMALL;
    for side in sides {
        let request = line(format!("NS SET small MAXKEYS {SMALL} FULL REJECT"));
        assert_eq!(side.ask(&request, model.now), "OK\n");
    }
}

proptest! {
    #![proptest_config(cases::config(200))]

    #[test]
    fn an_engine_answers_as_plain_maps_would_whether_or_not_it_is_swept(
        ops in proptest::collection::vec(op(), 1..400),
        is_bounded in any::<bool>(),
    ) {
        // A key bound is the namespace's, what lapsed is given back per shard: exact with one shard.
        let shards = if is_bounded { 1 } else { 4 };
        let mut sides = [Side::new(shards, false), Side::new(shards, true)];
        let mut model = Model {
            spaces: BTreeMap::new(),
            now: START,
            covered_since: START,
            line: "default",
            resp: "default",
        };
        model.open("default");
        if is_bounded {
            bound_small(&mut model, &mut sides);
        }
        for op in &ops {
            match *op {
                Op::Advance(ms) => model.at(model.now.after(ms)),
                Op::Sweep => {
                    sides[0].engine.sweep(model.now);
                }
                Op::NsSet(_, ttl, max, _) if ttl.max(max) > Some(Limits::DEFAULT.ttl_max_ms) => {}
                _ => ask_all(&mut model, &mut sides, op),
            }
            if is_bounded && matches!(op, Op::NsDrop(2)) {
                bound_small(&mut model, &mut sides);
            }
        }
        for side in &mut sides {
            for (name, space) in &model.spaces {
                let held = side.engine.find(name).unwrap();
                prop_assert_eq!(held.covered_since(), space.covered_since);
                prop_assert_eq!(held.counters().unsure, space.unsure);
            }
            let now = model.now.after(800 * DAY_MS);
            sweep_all(&side.engine, now);
            prop_assert_eq!(side.engine.totals().keys, 0);
        }
    }
}

const THREADS: usize = 6;

/// An engine, and a thread that sweeps it until all others are done.
fn with_sweeper(engine: &Engine, now: Millis, race: impl Fn(usize) + Sync) {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let sweeper = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                engine.sweep(now);
                thread::yield_now();
            }
        });
        let race = &race;
        let racers: Vec<_> = (0..THREADS)
            .map(|me| scope.spawn(move || race(me)))
            .collect();
        let outcomes: Vec<_> = racers
            .into_iter()
            .map(thread::ScopedJoinHandle::join)
            .collect();
        stop.store(true, Ordering::Relaxed);
        sweeper.join().unwrap();
        for outcome in outcomes {
            outcome.unwrap();
        }
    });
}

#[test]
fn per_key_and_epoch_one_thread_is_told_new() {
    const EPOCHS: usize = 60;
    const KEYS: usize = 200;
    let engine = Engine::new(EngineConfig::default());
    let winners: Vec<AtomicI64> = (0..KEYS).map(|_| AtomicI64::new(0)).collect();
    let barrier = Barrier::new(THREADS);
    with_sweeper(&engine, START, |me| {
        let mut caller = Caller::new(&engine, Dialect::Line);
        for epoch in 0..EPOCHS {
            barrier.wait();
            for i in 0..KEYS {
                let n = (i + me * 31) % KEYS;
                let reply = caller.ask(&engine, format!("SEEN k{n} 1h\n").as_bytes(), START);
                winners[n].fetch_add(i64::from(reply == "NEW\n"), Ordering::Relaxed);
            }
            if barrier.wait().is_leader() {
                for (n, winners) in winners.iter().enumerate() {
                    assert_eq!(
                        winners.swap(0, Ordering::Relaxed),
                        1,
                        "key {n}, epoch {epoch}"
                    );
                }
                // An epoch ends with the keys forgotten one by one, or all at once.
                if epoch % 2 == 0 {
                    for n in 0..KEYS {
                        let reply = caller.ask(&engine, format!("FORGET k{n}\n").as_bytes(), START);
                        assert_eq!(reply, "OK 1\n");
                    }
                } else {
                    assert_eq!(caller.ask(&engine, b"NS PURGE default\n", START), "OK\n");
                }
            }
        }
    });
    assert_eq!(engine.totals().counters.new, (EPOCHS * KEYS) as u64);
}

#[test]
fn digests_answer_as_the_keys_would() {
    const KEYS: usize = 10_000;
    const BATCH: usize = 100;
    let engine = Engine::new(EngineConfig::default());
    let mut exact = Caller::new(&engine, Dialect::Line);
    let mut digest = Caller::new(&engine, Dialect::Line);
    assert_eq!(exact.ask(&engine, b"USE exact\n", START), "OK\n");
    let made = digest.ask(&engine, b"NS SET digest KEYS DIGEST\n", START);
    assert_eq!(made, "OK\n");
    assert_eq!(digest.ask(&engine, b"USE digest\n", START), "OK\n");
    // Keys of every length from 33 bytes on, that begin or end alike.
    let key = |n: usize| format!("{n:05}/{}/{:05}", "p".repeat(24 + n % 300), n / 2);
    let asked = |verb: &str, n: usize| {
        let keys: Vec<_> = (n..n + BATCH).map(key).collect();
        format!("{verb} {}\n", keys.join(" "))
    };
    let mut both = |request: String| {
        let answer = exact.ask(&engine, request.as_bytes(), START);
        assert_eq!(digest.ask(&engine, request.as_bytes(), START), answer);
        answer
    };
    for n in (0..KEYS).step_by(BATCH) {
        let (new, seen) = (
            format!("{}\n", "N".repeat(BATCH)),
            format!("{}\n", "D".repeat(BATCH)),
        );
        assert_eq!(both(asked("PEEK", n)), new);
        assert_eq!(both(asked("MSEEN 1h", n)), new);
        if n % 3 == 0 {
            assert_eq!(both(asked("FORGET", n)), format!("OK {BATCH}\n"));
            assert_eq!(both(asked("MSEEN 1h", n)), new);
        }
        assert_eq!(both(asked("MSEEN 1h", n.saturating_sub(BATCH / 2))), seen);
    }
    for n in (0..KEYS).step_by(BATCH) {
        assert_eq!(both(asked("PEEK", n)), format!("{}\n", "D".repeat(BATCH)));
    }
    for name in ["exact", "digest"] {
        assert_eq!(engine.find(name).unwrap().keys(), KEYS as u64);
    }
    let bytes = |name: &str| engine.find(name).unwrap().bytes();
    assert!(bytes("digest") * 3 < bytes("exact"));
}

/// A key that came while the form of keys changed was stored in a namespace that nobody asked any
/// more, and was new once again in the one that took its place.
#[test]
fn a_change_of_form_loses_no_key_that_comes_meanwhile() {
    const ROUNDS: usize = 3_000;
    let engine = Engine::new(EngineConfig::default());
    let winners: Vec<AtomicI64> = (0..ROUNDS).map(|_| AtomicI64::new(0)).collect();
    let changes = AtomicI64::new(0);
    let barrier = Barrier::new(THREADS);
    with_sweeper(&engine, START, |me| {
        let mut caller = Caller::new(&engine, Dialect::Line);
        let mut resp = Caller::new(&engine, Dialect::Resp(2));
        let long = "a key that is too long for its entry";
        for winners in &winners {
            let name = "urls";
            caller.ask(&engine, format!("USE {name}\n").as_bytes(), START);
            resp.ask(&engine, &resp_request(&["ONCE.USE", name]), START);
            barrier.wait();
            let won = match me {
                0 => {
                    let request = format!("NS SET {name} KEYS DIGEST\n");
                    let reply = caller.ask(&engine, request.as_bytes(), START);
                    changes.fetch_add(i64::from(reply == "OK\n"), Ordering::Relaxed);
                    false
                }
                1 => {
                    resp.ask(&engine, &resp_request(&["SET", long, "v", "NX"]), START) == "+OK\r\n"
                }
                2 => resp.ask(&engine, &resp_request(&["BF.ADD", name, long]), START) == ":1\r\n",
                3 => {
                    caller.ask(&engine, format!("MSEEN 1h \"{long}\"\n").as_bytes(), START) == "N\n"
                }
                _ => {
                    caller.ask(&engine, format!("SEEN \"{long}\" 1h\n").as_bytes(), START)
                        == "NEW\n"
                }
            };
            winners.fetch_add(i64::from(won), Ordering::Relaxed);
            if barrier.wait().is_leader() {
                caller.ask(&engine, b"NS DROP urls\n", START);
            }
            barrier.wait();
        }
    });
    assert!(changes.load(Ordering::Relaxed) > 0);
    // Looked at now, since a thread that stops halfway would leave the others at the barrier.
    for (round, winners) in winners.iter().enumerate() {
        assert_eq!(winners.load(Ordering::Relaxed), 1, "round {round}");
    }
}

#[test]
fn news_and_forgets_take_turns_on_every_key() {
    const KEYS: usize = 8;
    const ROUNDS: usize = 20_000;
    let engine = Engine::new(EngineConfig::default());
    let balance: Vec<AtomicI64> = (0..KEYS).map(|_| AtomicI64::new(0)).collect();
    with_sweeper(&engine, START, |me| {
        let mut caller = Caller::new(&engine, Dialect::Line);
        for round in 0..ROUNDS {
            let n = (round * 7 + me) % KEYS;
            let request = if (round + me) % 3 == 0 {
                format!("FORGET k{n}\n")
            } else {
                format!("SEEN k{n} 1h\n")
            };
            let change = match caller.ask(&engine, request.as_bytes(), START).as_str() {
                "NEW\n" => 1,
                "OK 1\n" => -1,
                _ => 0,
            };
            balance[n].fetch_add(change, Ordering::Relaxed);
        }
    });
    let mut caller = Caller::new(&engine, Dialect::Line);
    for (n, balance) in balance.iter().enumerate() {
        let reply = caller.ask(&engine, format!("PEEK k{n}\n").as_bytes(), START);
        let is_there = i64::from(reply == "D\n");
        assert_eq!(balance.load(Ordering::Relaxed), is_there, "key {n}");
    }
}

#[test]
fn a_purge_lets_every_key_be_new_at_most_once_more() {
    const KEYS: usize = 8;
    const ROUNDS: usize = 5_000;
    let engine = Engine::new(EngineConfig::default());
    let news: Vec<AtomicI64> = (0..KEYS).map(|_| AtomicI64::new(0)).collect();
    let purges = AtomicI64::new(0);
    with_sweeper(&engine, START, |me| {
        let mut caller = Caller::new(&engine, Dialect::Line);
        for round in 0..ROUNDS {
            if round % 50 == me {
                purges.fetch_add(1, Ordering::Relaxed);
                assert_eq!(caller.ask(&engine, b"NS PURGE default\n", START), "OK\n");
            }
            let n = (round * 7 + me) % KEYS;
            let reply = caller.ask(&engine, format!("SEEN k{n} 1h\n").as_bytes(), START);
            news[n].fetch_add(i64::from(reply == "NEW\n"), Ordering::Relaxed);
        }
    });
    let most = purges.load(Ordering::Relaxed) + 1;
    for news in &news {
        let news = news.load(Ordering::Relaxed);
        assert!((1..=most).contains(&news), "{news} of at most {most}");
    }
    sweep_all(&engine, START.after(2 * 3_600_000));
    assert_eq!(engine.totals().keys, 0);
}

/// An engine whose small memory is full of markers that give way to what comes, what asks it, and when that was
/// so.
fn full_of_markers(
    memory_bytes_max: usize,
    key: impl Fn(u64) -> String,
) -> (Engine, Caller, Millis) {
    let engine = Engine::new(EngineConfig {
        memory_bytes_max,
        ..EngineConfig::default()
    });
    let mut caller = Caller::new(&engine, Dialect::Line);
    let told = caller.ask(&engine, b"NS SET default FULL EVICT\n", START);
    assert_eq!(told, "OK\n");
    let mut n = 0;
    while engine.totals().counters.evicted < 10_000 {
        let request = format!("SEEN {} 1h\n", key(n));
        caller.ask(&engine, request.as_bytes(), START.after(n / 1_000));
        n += 1;
    }
    (engine, caller, START.after(n / 1_000))
}

/// Begins work and ends it, with a body.
fn work_through(engine: &Engine, caller: &mut Caller, n: u64, now: Millis) {
    let told = caller.ask(engine, format!("BEGIN work-{n}\n").as_bytes(), now);
    let token = told.split(' ').nth(1).unwrap_or_default().to_owned();
    assert!(told.starts_with("RUN "), "{n}: {told}");
    let body = "x".repeat(1_000);
    let request = format!("COMPLETE work-{n} {token} BODY {body}\n");
    let told = caller.ask(engine, request.as_bytes(), now);
    assert_eq!(told, "OK\n", "{n}");
}

/// The reserve is for where nothing can be evicted: the bodies here are far more than that.
#[test]
fn work_can_be_ended_as_long_as_markers_give_way() {
    let long = |n| format!("https://example.com/some/long/path/{n:010}");
    let (engine, mut caller, now) = full_of_markers(16 << 20, long);
    let markers = engine.totals().keys;
    for n in 0..3_000 {
        work_through(&engine, &mut caller, n, now);
    }
    let budget = engine.budget();
    let over = budget.used().saturating_sub(budget.max());
    assert!(over < 4 << 10, "{over} bytes of the reserve are taken");
    // What went is about what came.
    let left = engine.totals().keys - 3_000;
    assert!(left > 0 && left < markers, "{left} of {markers} markers");
    for n in 0..3_000 {
        let told = caller.ask(&engine, format!("PEEK work-{n}\n").as_bytes(), now);
        assert_eq!(told, "C\n", "{n}");
    }
}

/// Keys that have nothing beside their slots free a place each, and no bytes: once, what needs some was refused
/// beside any number of them, and evicted 64 each time.
#[test]
fn markers_without_bytes_of_their_own_give_way_to_what_needs_some() {
    let (engine, mut caller, now) = full_of_markers(4 << 20, |n| format!("{n:012}"));
    let (before, evicted) = (engine.totals().keys, engine.totals().counters.evicted);
    for n in 0..400 {
        work_through(&engine, &mut caller, n, now);
        let told = caller.ask(&engine, format!("SEEN fp-{n} 1h FP a\n").as_bytes(), now);
        assert_eq!(told, "NEW\n", "{n}");
    }
    let budget = engine.budget();
    let over = budget.used().saturating_sub(budget.max());
    assert!(over < 4 << 10, "{over} bytes of the reserve are taken");
    // They take half a million bytes, which is that of some 20,000 markers.
    let went = engine.totals().counters.evicted - evicted;
    assert!(
        went < 60_000 && went < before / 2,
        "{went} of {before} went"
    );
}
