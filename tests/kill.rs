//! `kill -9` at random moments under load: what was acknowledged is there afterwards, as it was, and
//! nothing else is.
//!
//! Every connection works on keys of its own and keeps, for each, all states that the key may be in: one
//! while each request is answered, more once requests were under way when the server was killed. After
//! the restart each key must be in one of its states. Further keys are shared by all connections, for who
//! is told of what another did.
//!
//! `ONCED_KILL_ROUNDS` says how many kills for each policy, `ONCED_KILL_SEED` repeats a run's choices
//! (not its timing).

#![allow(
    clippy::format_collect,
    clippy::format_push_string,
    clippy::items_after_statements,
    clippy::unnecessary_wraps,
    clippy::flat_map_option,
    reason = "tests read better so"
)]
#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a test fails by panicking"
)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::process::{Dice, Process, Scratch, serve};
use common::scenario::unix_ms;
use common::{Client, PATIENCE, resp_request};

/// Kills for each policy where nothing else is asked for.
const ROUNDS: u64 = 8;
/// Kills over one directory, before the next begins.
const ROUNDS_PER_DIRECTORY: u64 = 12;
const CONNECTIONS: usize = 4;
const KEYS_EACH: u64 = 40;
const SHARED_KEYS: u64 = 64;
/// How far this process's clock and the server's may be apart, in milliseconds.
const APART_MS: u64 = 100;
/// A deadline may be so much later than was asked for.
const ROUNDED_MS: u64 = 20;
const HOUR_MS: u64 = 3_600_000;

#[test]
fn nothing_acknowledged_is_lost_under_always() {
    play("always");
}

#[test]
fn nothing_acknowledged_is_lost_under_everysec() {
    play("everysec");
}

#[test]
fn nothing_acknowledged_is_lost_under_never() {
    play("never");
}

fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn play(fsync: &str) {
    let rounds = number_from("ONCED_KILL_ROUNDS").unwrap_or(ROUNDS);
    let seed = number_from("ONCED_KILL_SEED").unwrap_or_else(unix_ms);
    println!("--fsync {fsync}, {rounds} rounds, ONCED_KILL_SEED={seed}");
    let mut dice = Dice::new(seed);
    let (mut acknowledged, mut open, mut left) = (0, 0, rounds);
    while left > 0 {
        let kills = left.min(ROUNDS_PER_DIRECTORY);
        let mut history = History::new(fsync, &mut dice);
        for round in 0..kills {
            println!("round {} of {rounds}", rounds - left + round + 1);
            history.round(&mut dice);
        }
        history.finish();
        left -= kills;
        acknowledged += history.acknowledged;
        open += history.open;
    }
    println!(
        "--fsync {fsync}: {rounds} kills, {acknowledged} requests acknowledged, {open} under way"
    );
}

/// What is asked of one key.
#[derive(Clone, Debug)]
enum Ask {
    Seen {
        ttl_ms: u64,
        slides: bool,
        fingerprint: Option<String>,
    },
    SetNx {
        value: String,
        ttl_ms: u64,
    },
    Set {
        value: String,
        ttl_ms: u64,
    },
    SetKeepTtl {
        value: String,
    },
    Forget,
    GetDel,
    Touch {
        ttl_ms: u64,
        later_only: bool,
    },
    Deadline,
    Get,
    Peek,
    /// The whole namespace is emptied.
    Purge,
}

/// What a key may be: `None` if it is not there.
type State = Option<Held>;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Held {
    /// When its window ends at the earliest, and at the latest.
    from: u64,
    to: u64,
    value: String,
    fingerprint: Option<String>,
}

impl Held {
    fn new(ttl_ms: u64, (sent, told): (u64, u64)) -> Self {
        Self {
            from: sent + ttl_ms - APART_MS,
            to: told + ttl_ms + ROUNDED_MS + APART_MS,
            value: "1".to_owned(),
            fingerprint: None,
        }
    }

    fn ends_no_earlier_than(self, other: &Self) -> Self {
        Self {
            from: self.from.max(other.from),
            to: self.to.max(other.to),
            ..self
        }
    }

    fn with_window_of(self, other: &Self) -> Self {
        Self {
            from: other.from,
            to: other.to,
            ..self
        }
    }
}

/// What a request makes of a key in a state, and what is answered; lapsing is the caller's business.
fn outcome(state: &State, ask: &Ask, when: (u64, u64)) -> (State, String) {
    let held = state.as_ref();
    let yes_or_no = |yes: &str, no: &str| if held.is_some() { yes } else { no }.to_owned();
    match ask {
        Ask::Seen {
            ttl_ms,
            slides,
            fingerprint,
        } => {
            let asked = Held::new(*ttl_ms, when);
            match held {
                None => {
                    let fingerprint = fingerprint.clone();
                    (
                        Some(Held {
                            fingerprint,
                            ..asked
                        }),
                        "NEW".to_owned(),
                    )
                }
                Some(held) => {
                    let differs = |(a, b): (&String, &String)| a != b;
                    let both = fingerprint.as_ref().zip(held.fingerprint.as_ref());
                    if both.is_some_and(differs) {
                        return (state.clone(), "MISMATCH".to_owned());
                    }
                    let next = if *slides {
                        held.clone().ends_no_earlier_than(&asked)
                    } else {
                        held.clone()
                    };
                    (Some(next), "DUP".to_owned())
                }
            }
        }
        Ask::SetNx { value, ttl_ms } => match held {
            None => (valued(value, *ttl_ms, when), "OK".to_owned()),
            Some(_) => (state.clone(), "nil".to_owned()),
        },
        Ask::Set { value, ttl_ms } => (valued(value, *ttl_ms, when), "OK".to_owned()),
        Ask::SetKeepTtl { value } => {
            let next = valued(value, HOUR_MS, when);
            let next = next.map(|next| match held {
                Some(held) => next.with_window_of(held),
                None => next,
            });
            (next, "OK".to_owned())
        }
        Ask::Forget => (None, yes_or_no("1", "0")),
        Ask::GetDel => (
            None,
            held.map_or("nil".to_owned(), |held| held.value.clone()),
        ),
        Ask::Touch { ttl_ms, later_only } => {
            let asked = Held::new(*ttl_ms, when);
            let next = held.map(|held| {
                let next = held.clone();
                if *later_only {
                    next.ends_no_earlier_than(&asked)
                } else {
                    next.with_window_of(&asked)
                }
            });
            (next, yes_or_no("OK", "nil"))
        }
        Ask::Deadline | Ask::Peek => (state.clone(), yes_or_no("D", "N")),
        Ask::Get => (
            state.clone(),
            held.map_or("nil".to_owned(), |held| held.value.clone()),
        ),
        Ask::Purge => (None, "OK".to_owned()),
    }
}

fn valued(value: &str, ttl_ms: u64, when: (u64, u64)) -> State {
    let value = value.to_owned();
    Some(Held {
        value,
        ..Held::new(ttl_ms, when)
    })
}

/// All that a key may be.
#[derive(Clone, Debug)]
struct Possible(BTreeSet<State>);

impl Possible {
    fn nothing() -> Self {
        Self(BTreeSet::from([None]))
    }

    /// The states as they may be seen between two moments: some have lapsed by then, or may have.
    fn seen_at(&self, (sent, told): (u64, u64)) -> BTreeSet<State> {
        let mut seen = BTreeSet::new();
        for state in &self.0 {
            let lapses = state
                .as_ref()
                .is_some_and(|held| held.from <= told + APART_MS);
            let lives = state.as_ref().is_none_or(|held| held.to + APART_MS >= sent);
            if lapses {
                seen.insert(None);
            }
            if lives {
                seen.insert(state.clone());
            }
        }
        seen
    }

    /// A request was answered; false if the answer is impossible.
    fn told(&mut self, ask: &Ask, reply: &str, when: (u64, u64)) -> bool {
        let mut next = BTreeSet::new();
        for state in self.seen_at(when) {
            let (after, expected) = outcome(&state, ask, when);
            if matches!(ask, Ask::Deadline) {
                next.extend(with_deadline(after, reply));
            } else if expected == reply {
                next.insert(after);
            }
        }
        self.0 = next;
        !self.0.is_empty()
    }

    /// A request was under way when the server was killed.
    fn open(&mut self, ask: &Ask, when: (u64, u64)) {
        let after = self.seen_at(when).into_iter();
        let after: Vec<_> = after.map(|state| outcome(&state, ask, when).0).collect();
        self.0.extend(after);
    }

    /// What a restarted server has: a deadline or -2, a value, a fingerprint.
    fn found(&mut self, deadline: &str, value: &str, fingerprint: Option<&str>, now: u64) -> bool {
        let seen = self.seen_at((now, now + APART_MS));
        self.0 = seen
            .into_iter()
            .flat_map(|state| with_deadline(state, deadline))
            .filter(|state| match state {
                None => value == "nil",
                Some(held) => held.value == value && held.fingerprint.as_deref() == fingerprint,
            })
            .collect();
        !self.0.is_empty()
    }
}

/// The state, if this is when it may end.
fn with_deadline(state: State, deadline: &str) -> Option<State> {
    let deadline: i64 = deadline.parse().unwrap();
    match state {
        None => (deadline == -2).then_some(None),
        Some(held) => {
            let deadline = u64::try_from(deadline).ok()?;
            (held.from..=held.to)
                .contains(&deadline)
                .then_some(Some(Held {
                    from: deadline,
                    to: deadline,
                    ..held
                }))
        }
    }
}

/// One connection's requests.
struct Worker {
    number: usize,
    is_resp: bool,
    namespace: &'static str,
    keys: BTreeMap<String, Possible>,
    dice: Dice,
    sent: BTreeSet<String>,
}

/// A request: its words, and what it asks of which keys.
struct Request {
    words: Vec<String>,
    asks: Vec<(String, Ask)>,
}

/// Keys of all forms: packed ones, short ones and long ones.
fn key(connection: usize, n: u64) -> String {
    let number = 1_000_000 * (connection as u64 + 1) + n;
    match n % 5 {
        0 => format!("{n:08x}-0000-4000-8000-{connection:012x}"),
        1 => format!("{number}"),
        2 => format!("c{connection}-{n}"),
        3 => format!("connection-{connection}-key-with-a-longer-name-{n}"),
        _ => format!("{number:032x}"),
    }
}

impl Worker {
    fn new(number: usize, seed: u64) -> Self {
        Self {
            number,
            is_resp: number % 2 == 1,
            namespace: if number == CONNECTIONS {
                "other"
            } else {
                "default"
            },
            keys: (0..KEYS_EACH)
                .map(|n| (key(number, n), Possible::nothing()))
                .collect(),
            dice: Dice::new(seed),
            sent: BTreeSet::new(),
        }
    }

    fn key(&mut self) -> String {
        key(self.number, self.dice.below(KEYS_EACH))
    }

    fn ttl_ms(&mut self) -> u64 {
        match self.dice.below(10) {
            0 => 50 + self.dice.below(1_000),
            1 => 24 * HOUR_MS,
            _ => HOUR_MS + self.dice.below(HOUR_MS),
        }
    }

    fn value(&mut self) -> String {
        let length = *self.dice.pick(&[1, 8, 40, 700]);
        let letter = *self.dice.pick(&["1", "a", "b"]);
        letter.repeat(length)
    }

    fn request(&mut self) -> Request {
        if self.namespace != "default" && self.dice.one_in(40) {
            let all = self.keys.keys().map(|key| (key.clone(), Ask::Purge));
            return Request {
                asks: all.collect(),
                words: split(&format!("NS PURGE {}", self.namespace)),
            };
        }
        let (key, ttl_ms) = (self.key(), self.ttl_ms());
        if self.dice.one_in(5) {
            return self.mseen(ttl_ms);
        }
        if self.is_resp {
            self.redis_request(key, ttl_ms)
        } else {
            self.line_request(key, ttl_ms)
        }
    }

    fn mseen(&mut self, ttl_ms: u64) -> Request {
        let mut keys: Vec<_> = (0..=self.dice.below(6)).map(|_| self.key()).collect();
        keys.dedup();
        let verb = if self.is_resp { "ONCE.MSEEN" } else { "MSEEN" };
        let ask = Ask::Seen {
            ttl_ms,
            slides: false,
            fingerprint: None,
        };
        Request {
            words: [vec![verb.to_owned(), format!("{ttl_ms}ms")], keys.clone()].concat(),
            asks: keys.into_iter().map(|key| (key, ask.clone())).collect(),
        }
    }

    fn line_request(&mut self, key: String, ttl_ms: u64) -> Request {
        let (text, ask) = match self.dice.below(10) {
            0 => (format!("FORGET {key}"), Ask::Forget),
            1 | 2 => {
                let later_only = self.dice.one_in(2);
                let flag = if later_only { " GT" } else { "" };
                let ask = Ask::Touch { ttl_ms, later_only };
                (format!("TOUCH {key} {ttl_ms}ms{flag}"), ask)
            }
            3 => (format!("PEEK {key}"), Ask::Peek),
            _ => {
                let fingerprint = [None, Some("c0ffee"), Some("00beef")];
                let fingerprint = self.dice.pick(&fingerprint).map(str::to_owned);
                let slides = self.dice.one_in(3);
                let mut text = format!("SEEN {key} {ttl_ms}ms");
                if slides {
                    text += " SLIDE";
                }
                if let Some(fingerprint) = &fingerprint {
                    text += &format!(" FP {fingerprint}");
                }
                let ask = Ask::Seen {
                    ttl_ms,
                    slides,
                    fingerprint,
                };
                (text, ask)
            }
        };
        Request {
            words: split(&text),
            asks: vec![(key, ask)],
        }
    }

    fn redis_request(&mut self, key: String, ttl_ms: u64) -> Request {
        let value = self.value();
        let (text, ask) = match self.dice.below(12) {
            0 => (format!("DEL {key}"), Ask::Forget),
            1 => (format!("GETDEL {key}"), Ask::GetDel),
            2 => (format!("GET {key}"), Ask::Get),
            3 | 4 => (format!("PEXPIRETIME {key}"), Ask::Deadline),
            5 => (
                format!("SET {key} {value} PX {ttl_ms}"),
                Ask::Set { value, ttl_ms },
            ),
            6 => (
                format!("SET {key} {value} KEEPTTL"),
                Ask::SetKeepTtl { value },
            ),
            7 => {
                let ask = Ask::Touch {
                    ttl_ms,
                    later_only: false,
                };
                (format!("ONCE.TOUCH {key} {ttl_ms}ms"), ask)
            }
            _ => (
                format!("SET {key} {value} NX PX {ttl_ms}"),
                Ask::SetNx { value, ttl_ms },
            ),
        };
        Request {
            words: split(&text),
            asks: vec![(key, ask)],
        }
    }

    /// Asks until the server is gone; returns how many requests were acknowledged, and how many were not.
    fn load(
        &mut self,
        client: &mut Client,
        shared: &Mutex<Shared>,
        acknowledged: &AtomicU64,
    ) -> (u64, u64) {
        let mut answered = 0;
        loop {
            let most = *self.dice.pick(&[1, 4, 24]);
            let depth = 1 + self.dice.below(most);
            let mut requests: Vec<_> = (0..depth).map(|_| self.request()).collect();
            if self.namespace == "default" {
                requests.push(self.shared_request());
            }
            let mut bytes = Vec::new();
            for request in &requests {
                self.sent
                    .extend(request.asks.iter().map(|(key, _)| key.clone()));
                let words: Vec<_> = request.words.iter().map(String::as_str).collect();
                if self.is_resp {
                    bytes.extend(resp_request(&words));
                } else {
                    bytes.extend_from_slice(words.join(" ").as_bytes());
                    bytes.push(b'\n');
                }
            }
            let began = unix_ms();
            let mut goes_on = client.try_send(&bytes);
            let mut open = 0;
            for request in &requests {
                let reply = if goes_on {
                    client.try_reply(self.is_resp)
                } else {
                    None
                };
                let when = (began, unix_ms());
                if let Some(reply) = reply {
                    self.told(request, &reply, when, shared);
                    answered += 1;
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                } else {
                    goes_on = false;
                    open += 1;
                    for (key, ask) in &request.asks {
                        if let Some(possible) = self.keys.get_mut(key) {
                            possible.open(ask, when);
                        }
                    }
                }
            }
            if !goes_on {
                return (answered, open);
            }
        }
    }

    fn shared_request(&mut self) -> Request {
        let key = format!("shared-{}", self.dice.below(SHARED_KEYS));
        let verb = if self.is_resp { "ONCE.SEEN" } else { "SEEN" };
        let ask = Ask::Seen {
            ttl_ms: 24 * HOUR_MS,
            slides: false,
            fingerprint: None,
        };
        Request {
            words: split(&format!("{verb} {key} 24h")),
            asks: vec![(key, ask)],
        }
    }

    fn told(&mut self, request: &Request, reply: &str, when: (u64, u64), shared: &Mutex<Shared>) {
        let reply = match reply {
            "NIL" => "nil",
            _ if self.is_resp => reply.trim_start_matches(['+', '$', ':']),
            _ => reply,
        };
        let is_count = request.words[0] == "FORGET";
        let reply = reply
            .strip_prefix("OK ")
            .filter(|_| is_count)
            .unwrap_or(reply);
        let verb = request.words[0].trim_start_matches("ONCE.");
        for (at, (key, ask)) in request.asks.iter().enumerate() {
            let mine = match (verb, reply.as_bytes().get(at)) {
                ("MSEEN", Some(b'N')) => "NEW",
                ("MSEEN", Some(b'D')) => "DUP",
                ("MSEEN", _) => panic!("{:?} answers {reply}", request.words),
                _ => reply,
            };
            let Some(possible) = self.keys.get_mut(key) else {
                shared.lock().unwrap().told(key, mine);
                continue;
            };
            let before = possible.clone();
            assert!(
                possible.told(ask, mine, when),
                "{:?} answers {reply} at {when:?}, but {key} is {before:?}",
                request.words
            );
        }
    }

    /// Compares what a restarted server has with what it may have.
    fn check(&mut self, server: &Process) {
        let mut client = server.connect();
        client.call(&["ONCE.USE", self.namespace]);
        for (key, possible) in &mut self.keys {
            for verb in ["PEXPIRETIME", "GET", "ONCE.INSPECT"] {
                client.send(resp_request(&[verb, key]));
            }
            let before = possible.clone();
            let (deadline, value) = (client.resp(), client.resp());
            let rows = client.resp();
            let fingerprint = rows.split_once("fingerprint, ");
            let fingerprint = fingerprint.map(|(_, digits)| digits.trim_matches(['$', ']', '+']));
            let is_there = possible.found(
                deadline.trim_start_matches(':'),
                value.trim_start_matches('$'),
                fingerprint,
                unix_ms(),
            );
            assert!(
                is_there,
                "after the restart {key} of connection {} ends {deadline}, is {value} and {rows}, but may be {before:?}",
                self.number
            );
        }
    }
}

fn split(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

/// Keys that all connections ask for and nobody removes: one of them is told `NEW`, once and for all.
#[derive(Default)]
struct Shared {
    known: BTreeSet<String>,
    winners: BTreeSet<String>,
}

impl Shared {
    fn told(&mut self, key: &str, reply: &str) {
        assert!(matches!(reply, "NEW" | "DUP"), "{key}: {reply}");
        self.known.insert(key.to_owned());
        let is_first = reply == "DUP" || self.winners.insert(key.to_owned());
        assert!(is_first, "{key} has two winners");
    }
}

/// A directory over several lives of a server.
struct History {
    data: Scratch,
    fsync: String,
    workers: Vec<Worker>,
    shared: Mutex<Shared>,
    acknowledged: u64,
    open: u64,
}

impl History {
    fn new(fsync: &str, dice: &mut Dice) -> Self {
        let worker = |number| Worker::new(number, dice.next());
        Self {
            data: Scratch::new("kill"),
            fsync: fsync.to_owned(),
            workers: (0..=CONNECTIONS).map(worker).collect(),
            shared: Mutex::default(),
            acknowledged: 0,
            open: 0,
        }
    }

    fn start(&self, dice: &mut Dice) -> Process {
        let segment = *dice.pick(&["64KiB", "64KiB", "256KiB", "1MiB"]);
        let arguments = ["--fsync", &self.fsync, "--log-segment", segment];
        if dice.one_in(4) {
            // Killed while it starts, at any point from nothing done to all done.
            let mut child = serve(&arguments)
                .arg("--data-dir")
                .arg(self.data.path())
                .stderr(std::process::Stdio::null())
                .spawn()
                .unwrap();
            thread::sleep(Duration::from_micros(dice.below(20_000)));
            child.kill().unwrap();
            child.wait().unwrap();
        }
        Process::start(self.data.path(), &arguments)
    }

    fn round(&mut self, dice: &mut Dice) {
        let server = self.start(dice);
        self.check(&server);
        let most = *dice.pick(&[20, 500, 3_000]);
        let enough = dice.below(most);
        let acknowledged = AtomicU64::new(0);
        let shared = &self.shared;
        let counts: Vec<_> = thread::scope(|scope| {
            let loads: Vec<_> = self
                .workers
                .iter_mut()
                .map(|worker| {
                    let mut client = server.connect();
                    if worker.namespace != "default" {
                        assert_eq!(client.ask(&format!("USE {}", worker.namespace)), "OK");
                    }
                    let acknowledged = &acknowledged;
                    scope.spawn(move || worker.load(&mut client, shared, acknowledged))
                })
                .collect();
            let began = Instant::now();
            while acknowledged.load(Ordering::Relaxed) < enough && began.elapsed() < PATIENCE {
                thread::yield_now();
                if loads.iter().all(thread::ScopedJoinHandle::is_finished) {
                    break;
                }
            }
            server.kill();
            loads.into_iter().map(|load| load.join().unwrap()).collect()
        });
        for (acknowledged, open) in counts {
            self.acknowledged += acknowledged;
            self.open += open;
        }
    }

    fn check(&mut self, server: &Process) {
        for worker in &mut self.workers {
            worker.check(server);
        }
        let mut client = server.connect();
        for key in &self.shared.lock().unwrap().known {
            assert_eq!(client.ask(&format!("PEEK {key}")), "D", "{key}");
        }
        for namespace in ["default", "other"] {
            let sent = self
                .workers
                .iter()
                .filter(|worker| worker.namespace == namespace);
            let sent: BTreeSet<_> = sent.flat_map(|worker| &worker.sent).collect();
            for key in scan(server, namespace) {
                assert!(sent.contains(&key), "nobody sent {key} to {namespace}");
            }
        }
    }

    /// Once more, after a stop in order.
    fn finish(&mut self) {
        for _ in 0..2 {
            let server = Process::start(self.data.path(), &["--fsync", &self.fsync]);
            self.check(&server);
            server.stop();
        }
    }
}

/// All keys of a namespace.
fn scan(server: &Process, namespace: &str) -> Vec<String> {
    let mut client = server.connect();
    client.call(&["ONCE.USE", namespace]);
    let mut keys = Vec::new();
    let mut cursor = "0".to_owned();
    loop {
        let reply = client.call(&["SCAN", &cursor, "COUNT", "100000"]);
        let inner = reply
            .strip_prefix("[$")
            .unwrap()
            .strip_suffix("]]")
            .unwrap();
        let (next, found) = inner.split_once(", [").unwrap();
        let found = found.split(", ").filter(|key| !key.is_empty());
        keys.extend(found.map(|key| key.trim_start_matches('$').to_owned()));
        if next == "0" {
            return keys;
        }
        next.clone_into(&mut cursor);
    }
}
