//! Where the memory does not reach: both sides of each boundary, under virtual time.
//!
//! `tests/engine_model.rs` holds what is lost against a plain map, `tests/verbs_*.rs` the words.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "common/cases.rs"]
mod cases;

use std::collections::HashMap;
use std::hint;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use onced::command::{PolicyChange, lookup_line, lookup_resp};
use onced::engine::{BATCH_MAX, Engine, EngineConfig, Namespace, Question, Session};
use onced::limits::Limits;
use onced::store::{Ask, Verdict, WindowMode};
use onced::time::Millis;
use onced::wire::{Decoded, Decoder, Dialect};
use proptest::prelude::*;

const START: Millis = Millis(1_790_000_000_000);
const TTL_MS: u64 = 60_000;

fn engine(covered_since: Millis) -> (Engine, Arc<Namespace>) {
    let change = PolicyChange {
        reports_unsure: Some(true),
        ..PolicyChange::default()
    };
    engine_of(covered_since, change)
}

fn engine_of(covered_since: Millis, change: PolicyChange) -> (Engine, Arc<Namespace>) {
    let engine = Engine::new(EngineConfig {
        covered_since,
        shards: 1,
        namespaces: vec![("space".to_owned(), change)],
        ..EngineConfig::default()
    });
    let space = engine.find("space").unwrap();
    (engine, space)
}

fn ask(ttl_ms: u64) -> Ask<'static> {
    Ask {
        ttl_ms,
        ..Ask::default()
    }
}

/// Asks about a key that nobody asked about before, one at a time and in a batch.
fn fresh(engine: &Engine, space: &Namespace, ttl_ms: u64, now: Millis) -> Verdict {
    let mut key = space.counters().new.to_le_bytes();
    let verdict = engine.seen(space, &key, &ask(ttl_ms), now);
    key[7] = 1;
    let mut question = [question(engine, space, &key, ttl_ms)];
    engine.ask(space, &mut question, |_| (&key, None), now);
    assert_eq!(question[0].verdict, verdict);
    verdict
}

fn question(engine: &Engine, space: &Namespace, key: &[u8], ttl_ms: u64) -> Question {
    Question {
        key: engine.hashed(space, key),
        ttl_ms,
        mode: WindowMode::Fixed,
        verdict: Verdict::Full,
    }
}

/// Executes a command of either dialect, written and answered on a line.
fn execute(engine: &Engine, session: &mut Session, request: &str, now: Millis) -> String {
    let line = format!("{request}\n");
    let mut decoder = Decoder::default();
    let Decoded::Request { args, .. } = decoder.next(line.as_bytes(), engine.limits()) else {
        panic!("not one request: {request}");
    };
    let verb = lookup_line(args.verb()).or_else(|| lookup_resp(args.verb()));
    let verb = verb.expect("a known verb");
    let command = verb.spec().parse(&args, engine.limits()).unwrap();
    let mut reply = Vec::new();
    Dialect::Line.encode(&engine.execute(session, &command, now), &mut reply);
    String::from_utf8(reply).unwrap().trim_end().to_owned()
}

#[test]
fn a_window_that_began_before_the_memory_is_unsure() {
    let (engine, space) = engine(START);
    assert_eq!(space.covered_since(), START);
    for (ttl_ms, after_ms, wanted) in [
        (TTL_MS, 0, Verdict::Unsure),
        (TTL_MS, TTL_MS - 1, Verdict::Unsure),
        (TTL_MS, TTL_MS, Verdict::New),
        (TTL_MS, TTL_MS + 1, Verdict::New),
        (TTL_MS + 1, TTL_MS, Verdict::Unsure),
        (1, 0, Verdict::Unsure),
        (1, 1, Verdict::New),
        (1, 2, Verdict::New),
    ] {
        let verdict = fresh(&engine, &space, ttl_ms, START.after(after_ms));
        assert_eq!(verdict, wanted, "ttl {ttl_ms} ms, {after_ms} ms after");
    }
    // A clock that reads earlier than the start knows no more.
    let before = Millis(START.0 - 1);
    assert_eq!(fresh(&engine, &space, 1, before), Verdict::Unsure);
}

#[test]
fn a_complete_memory_is_sure_even_of_windows_that_began_before_all_time() {
    let (engine, space) = engine(Millis(0));
    for now in [Millis(0), Millis(1), Millis(TTL_MS), START] {
        assert_eq!(fresh(&engine, &space, TTL_MS, now), Verdict::New);
    }
    space.set_covered_since(Millis(1));
    let since_ever = Millis(TTL_MS - 1);
    assert_eq!(fresh(&engine, &space, TTL_MS, since_ever), Verdict::Unsure);
    // Nor does a life that reaches beyond the end of time trouble it.
    let end = Millis(u64::MAX);
    assert_eq!(fresh(&engine, &space, u64::MAX, end), Verdict::Unsure);
}

#[test]
fn an_unsure_key_is_remembered_and_told_once() {
    let (engine, space) = engine(START);
    let asked = |now| engine.seen(&space, b"key", &ask(TTL_MS), now);
    assert_eq!(asked(START), Verdict::Unsure);
    assert_eq!(asked(START), Verdict::Dup);
    assert_eq!(asked(START.after(TTL_MS)), Verdict::Dup);
    assert_eq!(asked(START.after(TTL_MS + 1)), Verdict::New);
    let counters = space.counters();
    assert_eq!((counters.new, counters.unsure, counters.dup), (2, 1, 2));
}

#[test]
fn a_namespace_that_does_not_report_answers_new_and_counts() {
    let (engine, space) = engine_of(START, PolicyChange::default());
    for now in [START, START.after(TTL_MS)] {
        assert_eq!(fresh(&engine, &space, TTL_MS, now), Verdict::New);
    }
    let counters = space.counters();
    assert_eq!((counters.new, counters.unsure), (4, 2));
}

#[test]
fn an_event_older_than_its_window_is_unsure() {
    let (engine, space) = engine(Millis(0));
    let asked = |key: &[u8], at| {
        let ask = Ask {
            event_at: Some(at),
            ..ask(TTL_MS)
        };
        engine.seen(&space, key, &ask, START)
    };
    assert_eq!(asked(b"just", Millis(START.0 - TTL_MS)), Verdict::New);
    let too_old = Millis(START.0 - TTL_MS - 1);
    assert_eq!(asked(b"old", too_old), Verdict::Unsure);
    assert_eq!(asked(b"old", too_old), Verdict::Dup);
}

#[test]
fn what_was_evicted_is_missing_until_its_window_has_ended() {
    let change = PolicyChange {
        reports_unsure: Some(true),
        keys_max: Some(2),
        evict: Some(true),
        ..PolicyChange::default()
    };
    let (engine, space) = engine_of(Millis(0), change);
    let asked = |key: &[u8], ttl_ms, now| engine.seen(&space, key, &ask(ttl_ms), now);
    assert_eq!(asked(b"a", TTL_MS, START), Verdict::New);
    assert_eq!(asked(b"b", TTL_MS, START), Verdict::New);
    assert_eq!(space.unsure_until(), Millis(0));
    // The one that displaces it was looked for when it was still there.
    assert_eq!(asked(b"c", 10 * TTL_MS, START), Verdict::New);
    assert_eq!(space.counters().evicted, 1);
    let deadline = START.after(TTL_MS);
    assert_eq!(space.unsure_until(), deadline.after(1));
    // In the last millisecond of its window the evicted key would have been a duplicate, however
    // short the life that is asked now.
    assert_eq!(fresh(&engine, &space, 1, deadline), Verdict::Unsure);
    // Since then those were evicted that had come with the same window, and with that millisecond.
    assert_eq!(space.counters().evicted, 3);
    let until = deadline.after(2);
    assert_eq!(space.unsure_until(), until);
    // What has lapsed when it is displaced is missed by nobody.
    assert_eq!(fresh(&engine, &space, 1, until), Verdict::New);
}

#[test]
fn what_is_evicted_from_another_shard_is_missing_as_well() {
    let change = PolicyChange {
        keys_max: Some(1),
        evict: Some(true),
        ..PolicyChange::default()
    };
    let engine = Engine::new(EngineConfig {
        shards: 64,
        namespaces: vec![("space".to_owned(), change)],
        ..EngineConfig::default()
    });
    let space = engine.find("space").unwrap();
    for n in 0..100_u64 {
        let verdict = engine.seen(&space, &n.to_le_bytes(), &ask(TTL_MS + n), START);
        assert_eq!(verdict, Verdict::New);
        // Each displaces the one before, which nearly always is in another shard.
        assert_eq!(space.counters().evicted, n);
        let until = n.checked_sub(1).map(|last| START.after(TTL_MS + last + 1));
        assert_eq!(space.unsure_until(), until.unwrap_or_default());
    }
}

#[test]
fn an_end_of_time_does_not_overflow() {
    let (engine, space) = engine(Millis(0));
    space.raise_unsure_until(Millis(u64::MAX));
    assert_eq!(fresh(&engine, &space, 1, START), Verdict::Unsure);
    // It is the latest that counts.
    space.raise_unsure_until(START);
    assert_eq!(space.unsure_until(), Millis(u64::MAX));
    space.declare_covered();
    assert_eq!(space.unsure_until(), Millis(0));
    assert_eq!(fresh(&engine, &space, 1, START), Verdict::New);
}

#[test]
fn a_purge_and_a_flush_forget_up_to_their_millisecond() {
    let (engine, space) = engine(Millis(0));
    let mut session = engine.session();
    assert_eq!(execute(&engine, &mut session, "USE space", START), "OK");
    let mut now = START;
    for request in ["NS PURGE space", "FLUSHDB", "FLUSHALL"] {
        assert_eq!(fresh(&engine, &space, TTL_MS, now), Verdict::New);
        assert_eq!(execute(&engine, &mut session, request, now), "OK");
        // A key of the same millisecond is lost as well.
        let covered = now.after(1);
        assert_eq!(space.covered_since(), covered);
        let lasts = covered.after(TTL_MS - 1);
        assert_eq!(fresh(&engine, &space, TTL_MS, lasts), Verdict::Unsure);
        now = covered.after(TTL_MS);
        assert_eq!(fresh(&engine, &space, TTL_MS, now), Verdict::New);
    }
    // One by an earlier reading of the clock takes nothing back.
    let since = space.covered_since();
    execute(&engine, &mut session, "NS PURGE space", START);
    assert_eq!(space.covered_since(), since);
}

#[test]
fn a_namespace_that_is_made_again_does_not_pretend_to_know() {
    let (engine, space) = engine(START);
    let mut session = engine.session();
    let mut told = |request: &str, now| execute(&engine, &mut session, request, now);
    let since = |name: &str| engine.find(name).unwrap().covered_since();
    // One that is made may have been there before the start.
    assert_eq!(told("NS SET made", START.after(500)), "OK");
    assert_eq!(since("made"), START);
    assert_eq!(told("NS SET made COVERED", START.after(500)), "OK");
    assert_eq!(since("made"), Millis(0));
    let dropped = START.after(1_000);
    assert_eq!(told("NS DROP space", dropped), "OK");
    // Who still has it learns no more from it.
    assert_eq!(space.covered_since(), dropped.after(1));
    for request in ["USE space", "NS SET other UNSURE REPORT"] {
        assert_eq!(told(request, dropped.after(1)), "OK");
    }
    for name in ["space", "other"] {
        assert_eq!(since(name), dropped.after(1));
    }
    assert_eq!((since("default"), since("made")), (START, Millis(0)));
    // Nor does one that was declared complete before it was dropped.
    assert_eq!(told("NS DROP made", dropped.after(7)), "OK");
    assert_eq!(told("NS SET made KEYS DIGEST", dropped.after(9)), "OK");
    assert_eq!(since("made"), dropped.after(8));
}

#[test]
fn a_change_of_form_keeps_what_is_known_of_the_memory() {
    let (engine, space) = engine(START);
    let mut session = engine.session();
    space.raise_unsure_until(START.after(TTL_MS));
    space.set_covered_since(START.after(3));
    let changed = execute(&engine, &mut session, "NS SET space KEYS DIGEST", START);
    assert_eq!(changed, "OK");
    let next = engine.find("space").unwrap();
    assert!(next.keeps_digests() && !space.keeps_digests());
    assert_eq!(next.covered_since(), space.covered_since());
    assert_eq!(next.unsure_until(), space.unsure_until());
}

/// Two threads meet at the same moment, as near as they can.
#[derive(Default)]
struct Start(AtomicUsize);

impl Start {
    fn meet(&self, round: usize) {
        self.0.fetch_add(1, Ordering::AcqRel);
        let mut looks = 0_u32;
        while self.0.load(Ordering::Acquire) < 2 * (round + 1) {
            looks += 1;
            if looks.is_multiple_of(1_000) {
                // Where they share a core.
                thread::yield_now();
            }
            hint::spin_loop();
        }
    }
}

/// One thread asks about a key that is there while another makes it go: it is a duplicate or unsure,
/// never new for sure.
fn never_sure_while_it_goes(loses: impl Fn(&Engine, &Namespace) + Sync + Send) {
    const ROUNDS: usize = 20_000;
    let change = PolicyChange {
        reports_unsure: Some(true),
        keys_max: Some(1),
        evict: Some(true),
        ..PolicyChange::default()
    };
    let (engine, space) = engine_of(Millis(0), change);
    let (start, end) = (Start::default(), Start::default());
    // Looked at when both are done, since who stops halfway would leave the other waiting.
    let mut verdicts = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..ROUNDS {
                start.meet(round);
                loses(&engine, &space);
                end.meet(round);
            }
        });
        for round in 0..ROUNDS {
            // Whatever the round before left goes for it.
            engine.seen(&space, b"key", &ask(TTL_MS), START);
            space.declare_covered();
            start.meet(round);
            // A little later each time, so that they meet everywhere.
            for _ in 0..round % 256 {
                hint::spin_loop();
            }
            verdicts.push(engine.seen(&space, b"key", &ask(TTL_MS), START));
            end.meet(round);
        }
    });
    for (round, &verdict) in verdicts.iter().enumerate() {
        let is_honest = matches!(verdict, Verdict::Dup | Verdict::Unsure);
        assert!(is_honest, "{verdict:?} in round {round}");
    }
}

#[test]
fn a_key_that_is_evicted_meanwhile_is_not_new_for_sure() {
    never_sure_while_it_goes(|engine, space| {
        let verdict = engine.seen(space, b"another", &ask(TTL_MS), START);
        assert!(verdict == Verdict::New || verdict == Verdict::Unsure);
    });
}

#[test]
fn a_key_that_is_purged_meanwhile_is_not_new_for_sure() {
    never_sure_while_it_goes(|engine, _| {
        let mut session = engine.session();
        execute(engine, &mut session, "NS PURGE space", START);
    });
}

proptest! {
    #![proptest_config(cases::config(200))]

    /// A key that was evicted within its window is never told to be new for sure, and a batch is told
    /// what each of its keys would have been told by itself.
    #[test]
    fn no_evicted_key_is_new_for_sure_and_batches_are_told_the_same(
        batches in proptest::collection::vec(
            (proptest::collection::vec((0_u8..40, 1_u64..5_000), 1..BATCH_MAX), 0_u64..2_000),
            1..40,
        ),
        keys_max in 1_u64..30,
        covered_before_ms in 0_u64..10_000,
        shards in 0_u32..3,
    ) {
        let change = PolicyChange {
            reports_unsure: Some(true),
            keys_max: Some(keys_max),
            evict: Some(true),
            ..PolicyChange::default()
        };
        let covered_since = Millis(START.0 - covered_before_ms);
        let engines = [(); 2].map(|()| Engine::new(EngineConfig {
            shards: 1 << shards,
            namespaces: vec![("space".to_owned(), change)],
            covered_since,
            ..EngineConfig::default()
        }));
        let [singly, batched] = engines.each_ref().map(|engine| engine.find("space").unwrap());
        let mut deadlines: HashMap<u8, Millis> = HashMap::new();
        let mut now = START;
        for (asked, pause_ms) in &batches {
            now = now.after(*pause_ms);
            let mut questions: Vec<_> = asked
                .iter()
                .map(|(key, ttl_ms)| question(&engines[1], &batched, &[*key], *ttl_ms))
                .collect();
            let content = |at: usize| (std::slice::from_ref(&asked[at].0), None);
            engines[1].ask(&batched, &mut questions, content, now);
            for (&(key, ttl_ms), in_batch) in asked.iter().zip(&questions) {
                let verdict = engines[0].seen(&singly, &[key], &ask(ttl_ms), now);
                prop_assert_eq!(verdict, in_batch.verdict);
                let was_seen = deadlines.get(&key).is_some_and(|&deadline| now <= deadline);
                match verdict {
                    Verdict::Dup => prop_assert!(was_seen),
                    Verdict::New => {
                        prop_assert!(!was_seen, "key {} is missing", key);
                        prop_assert!(now.0 - ttl_ms >= covered_since.0);
                    }
                    Verdict::Unsure => {
                        let is_lost = now.0 - ttl_ms < covered_since.0;
                        prop_assert!(is_lost || now < singly.unsure_until());
                    }
                    Verdict::Mismatch | Verdict::Full => prop_assert!(false, "{:?}", verdict),
                }
                if verdict != Verdict::Dup {
                    deadlines.insert(key, now.after(ttl_ms));
                }
            }
        }
        prop_assert_eq!(singly.unsure_until(), batched.unsure_until());
        prop_assert_eq!(singly.counters(), batched.counters());
    }
}

/// Who asks again after a lost reply is told what it was told before.
#[test]
fn a_claim_that_was_unsure_is_so_when_its_owner_asks_again() {
    let covered_since = START;
    let (engine, _) = engine(covered_since);
    let mut session = engine.session();
    let mut ask = |request: &str, now: Millis| {
        let line = format!("{request}\n");
        let mut decoder = Decoder::default();
        let Decoded::Request { args, .. } = decoder.next(line.as_bytes(), &Limits::DEFAULT) else {
            panic!("{request} is no request");
        };
        let verb = lookup_line(args.verb()).unwrap();
        let command = verb.spec().parse(&args, &Limits::DEFAULT).unwrap();
        let mut out = Vec::new();
        Dialect::Line.encode(&engine.execute(&mut session, &command, now), &mut out);
        String::from_utf8(out).unwrap()
    };
    ask("USE space", START);
    let begin = "BEGIN k OWNER me LEASE 10m TTL 60s";
    let told = ask(begin, START.after(1_000));
    assert!(told.starts_with("UNSURE "), "{told}");
    // Also once the memory reaches back far enough for who would ask anew.
    let again = ask(begin, START.after(120_000));
    assert!(again.starts_with("UNSURE "), "{again}");
    assert_eq!(told.split(' ').nth(1), again.split(' ').nth(1));
    let sure = "BEGIN j OWNER me LEASE 10m TTL 60s";
    assert!(ask(sure, START.after(120_000)).starts_with("RUN "));
    assert!(ask(sure, START.after(121_000)).starts_with("RUN "));
}
