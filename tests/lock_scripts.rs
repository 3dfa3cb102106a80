//! Scripts of lock libraries: every text is recognised as these send it, no other text is, and what is to happen to
//! all keys or to none does so: beside other clients, where memory or the log is full, and across a crash.
//! (`redis_differential.rs` compares what each script does with a redis-server.)

#![allow(clippy::unwrap_used, reason = "test code: a panic is the report")]

mod common;

use std::sync::Barrier;
use std::thread;

use common::lock_scripts::{LOCK_SCRIPTS, lock_script};
use common::process::{Process, Scratch, copy, segments};
use common::{Client, TestServer, eventually};
use onced::command::scripts::Script;
use onced::limits::{SCRIPT_BYTES_MAX, SCRIPTS_KNOWN_MAX, TOGETHER_KEYS_MAX};

const UNKNOWN_SCRIPT: &str = "-ERR scripts are recognised here, not run, and this is none of them: a lock is released by its owner with DELEX key IFEQ value";

/// Takes all of these locks for an owner and so many milliseconds, or none.
fn acquire(client: &mut Client, locks: &[String], owner_and_ms: [&str; 2]) -> String {
    let text = lock_script("redlock 5", "acquire");
    let count = locks.len().to_string();
    client.call_with(&["EVAL", text, &count], locks, &owner_and_ms)
}

#[test]
fn every_script_of_a_library_is_recognised() {
    let unknown: Vec<_> = LOCK_SCRIPTS
        .iter()
        .filter(|script| Script::of(script.text.as_bytes()).is_none())
        .map(|script| format!("{}: {}", script.library, script.name))
        .collect();
    assert!(unknown.is_empty(), "{unknown:#?}");
}

/// Less of a text, or another one, is another script or none: never the same, unless only the spelling differs.
#[test]
fn a_text_that_lacks_a_word_is_not_that_script() {
    for script in LOCK_SCRIPTS {
        let recognised = Script::of(script.text.as_bytes()).unwrap();
        let lines: Vec<_> = script
            .text
            .lines()
            .filter(|line| !line.trim_start().starts_with("--"))
            .collect();
        let text = lines.join("\n");
        assert_eq!(Script::of(text.as_bytes()), Some(recognised));
        let words: Vec<_> = text.split_ascii_whitespace().collect();
        for at in 0..words.len() {
            let without = [&words[..at], &words[at + 1..]].concat().join(" ");
            let found = Script::of(without.as_bytes());
            assert_eq!(found, None, "{without} is recognised as {found:?}");
            let twice = [&words[..=at], &words[at..]].concat().join(" ");
            let found = Script::of(twice.as_bytes());
            assert_eq!(found, None, "{twice} is recognised as {found:?}");
        }
        for (from, to) in [
            ("== ", "~= "),
            ("~= ", "== "),
            ("[1]", "[2]"),
            ("0", "1"),
            ("1", "0"),
            ("del", "get"),
        ] {
            if text.contains(from) {
                let other = Script::of(text.replace(from, to).as_bytes());
                assert_ne!(other, Some(recognised), "{}", text.replace(from, to));
            }
        }
        for other in [
            format!("{text} return 1"),
            format!("redis.call('FLUSHALL') {text}"),
            format!("if true then {text} end"),
        ] {
            assert_eq!(Script::of(other.as_bytes()), None, "{other}");
        }
    }
}

#[test]
fn a_script_has_so_many_bytes() {
    let release = lock_script("aiocache", "release");
    let padded = |bytes: usize| format!("{release}{}", " ".repeat(bytes - release.len()));
    let server = TestServer::start();
    let mut client = server.connect();
    let (fits, exceeds) = (padded(SCRIPT_BYTES_MAX), padded(SCRIPT_BYTES_MAX + 1));
    assert_eq!(client.call(&["EVAL", &fits, "1", "lock", "me"]), ":0");
    assert_eq!(
        client.call(&["EVAL", &exceeds, "1", "lock", "me"]),
        UNKNOWN_SCRIPT
    );
    assert_eq!(client.call(&["SCRIPT", "LOAD", &exceeds]), UNKNOWN_SCRIPT);
}

#[test]
fn a_script_has_so_many_keys() {
    let names: Vec<_> = (0..=TOGETHER_KEYS_MAX)
        .map(|n| format!("lock{n}"))
        .collect();
    let server = TestServer::start();
    let mut client = server.connect();
    let mut eval = |count: usize| acquire(&mut client, &names[..count], ["me", "60000"]);
    let refused = format!(
        "-ERR TOOBIG {} keys of one script; the most are {TOGETHER_KEYS_MAX}",
        TOGETHER_KEYS_MAX + 1
    );
    assert_eq!(eval(TOGETHER_KEYS_MAX + 1), refused);
    assert_eq!(eval(TOGETHER_KEYS_MAX), format!(":{TOGETHER_KEYS_MAX}"));
    assert_eq!(eval(1), ":0");
    assert_eq!(client.call(&["DBSIZE"]), format!(":{TOGETHER_KEYS_MAX}"));
}

#[test]
fn so_many_scripts_are_known_and_the_oldest_is_sent_again() {
    let release = lock_script("aiocache", "release");
    let spelling = |n: usize| format!("{release}--{n}");
    let server = TestServer::start();
    let mut client = server.connect();
    let mut load = |n: usize| {
        let digest = client.call(&["SCRIPT", "LOAD", &spelling(n)]);
        digest.trim_start_matches('$').to_owned()
    };
    let first = load(0);
    let later: Vec<_> = (1..SCRIPTS_KNOWN_MAX).map(&mut load).collect();
    let mut other = server.connect();
    assert_eq!(other.call(&["SCRIPT", "EXISTS", &first]), "[:1]");
    // Others are as old as the first was, until it is used at a later moment.
    eventually("the first is used last", || {
        other.call(&["EVALSHA", &first, "1", "lock", "me"]);
        load(0);
        load(SCRIPTS_KNOWN_MAX);
        let known = other.call_with(&["SCRIPT", "EXISTS"], &later, &[]);
        let one_is_gone = known.matches(":0").count() == 1;
        one_is_gone && other.call(&["SCRIPT", "EXISTS", &first]) == "[:1]"
    });
}

/// A lock that nobody has, one that the owner has, one that another has: what each step of each library says.
#[test]
fn what_a_lock_is_not_is_left_alone() {
    let server = TestServer::start();
    let mut client = server.connect();
    let acquire = lock_script("redlock 5", "acquire");
    let obtain = lock_script("bsm/redislock 0.10", "obtain");
    let spring = lock_script("Spring", "obtain");
    assert!(
        client
            .call(&["BEGIN", "job", "LEASE", "1m"])
            .starts_with("[+RUN")
    );
    // A record in progress is there, and nobody's: `GET` tells no value of it.
    for owner in ["", "1", "me"] {
        assert_eq!(
            client.call(&["EVAL", acquire, "2", "free", "job", owner, "60000"]),
            ":0"
        );
        assert_eq!(
            client.call(&["EVAL", spring, "1", "job", owner, "60000"]),
            "nil"
        );
        assert_eq!(
            client.call(&["EVAL", obtain, "1", "job", owner, "1", "60000"]),
            "nil"
        );
        assert_eq!(
            client.call(&["EVAL", obtain, "1", "job", owner, "0", "60000"]),
            "nil"
        );
        for script in ["release", "extend"] {
            let text = lock_script("redlock 5", script);
            assert_eq!(
                client.call(&["EVAL", text, "1", "job", owner, "60000"]),
                ":0"
            );
        }
    }
    assert_eq!(client.call(&["ONCE.PEEK", "job"]), "$B");
    assert_eq!(client.call(&["EXISTS", "free"]), ":0");
    // The value of a key that was only seen is 1.
    let release = lock_script("redlock-py", "release");
    assert_eq!(client.call(&["SEEN", "seen", "1m"]), "+NEW");
    assert_eq!(client.call(&["EVAL", release, "1", "seen", "me"]), ":0");
    assert_eq!(client.call(&["EVAL", release, "1", "seen", "1"]), ":1");
    assert_eq!(client.call(&["SEEN", "seen", "1m"]), "+NEW");
    // An owner that was not named is nobody, as nil is in Lua.
    assert_eq!(client.call(&["EVAL", release, "1", "seen"]), ":0");
    assert_eq!(
        client.call(&["EVAL", spring, "1", "new"]),
        "-ERR Lua redis lib command arguments must be strings or integers"
    );
    assert_eq!(client.call(&["HELLO", "3"]).chars().next(), Some('{'));
    assert_eq!(
        client.call(&["EVAL", spring, "1", "seen", "me", "60000"]),
        "_"
    );
}

/// Two owners who want the same two locks, named in either order: one has both, the other none.
#[test]
fn of_two_who_want_several_locks_one_has_all() {
    const ROUNDS: usize = 300;
    let server = TestServer::start();
    let start = Barrier::new(2);
    let won = |me: &str, is_reversed: bool| {
        let mut client = server.connect();
        let mut won = Vec::new();
        for round in 0..ROUNDS {
            let mut keys: Vec<_> = (0..5).map(|n| format!("lock{n}-{round}")).collect();
            if is_reversed {
                keys.reverse();
            }
            start.wait();
            won.push(acquire(&mut client, &keys, [me, "60000"]));
        }
        won
    };
    let (a, b) = thread::scope(|scope| {
        let other = scope.spawn(|| won("b", true));
        (won("a", false), other.join().unwrap())
    });
    let mut client = server.connect();
    for round in 0..ROUNDS {
        let (winner, loser) = (&a[round], &b[round]);
        let owner = if winner == ":5" { "$a" } else { "$b" };
        assert!(
            matches!((&**winner, &**loser), (":5", ":0") | (":0", ":5")),
            "{winner} {loser}"
        );
        let keys: Vec<_> = (0..5).map(|n| format!("lock{n}-{round}")).collect();
        let held = client.call_with(&["MGET"], &keys, &[]);
        assert_eq!(held, format!("[{}]", [owner; 5].join(", ")));
    }
}

#[test]
fn where_there_is_no_room_for_all_locks_none_is_taken() {
    let acquire = lock_script("redlock 5", "acquire");
    let server = TestServer::start();
    let mut client = server.connect();
    assert_eq!(
        client.call(&["ONCE.NS", "SET", "default", "MAXKEYS", "3"]),
        "+OK"
    );
    assert_eq!(client.call(&["SET", "other", "x"]), "+OK");
    let no_room = client.call(&["EVAL", acquire, "3", "a", "b", "c", "me", "60000"]);
    assert!(no_room.starts_with("-OOM "), "{no_room}");
    assert_eq!(client.call(&["EXISTS", "a", "b", "c"]), ":0");
    assert_eq!(client.call(&["DBSIZE"]), ":1");
    assert_eq!(
        client.call(&["EVAL", acquire, "2", "a", "b", "me", "60000"]),
        ":2"
    );
    // What gives back, or extends, needs no room.
    let (extend, release) = (
        lock_script("redlock 5", "extend"),
        lock_script("redlock 5", "release"),
    );
    assert_eq!(
        client.call(&["EVAL", extend, "2", "a", "b", "me", "90000"]),
        ":2"
    );
    assert_eq!(
        client.call(&["EVAL", extend, "3", "a", "b", "other", "me", "90000"]),
        ":0"
    );
    assert_eq!(
        client.call(&["EVAL", release, "3", "a", "other", "b", "me"]),
        ":2"
    );
    assert_eq!(client.call(&["DBSIZE"]), ":1");
}

/// All of a request's locks are one frame of the log; a segment has room for one of an eighth of it.
#[test]
fn where_the_log_has_no_frame_for_all_locks_none_is_taken() {
    let data = Scratch::new("lock-scripts");
    let server = Process::start(data.path(), &["--log-segment", "64KiB"]);
    let mut client = server.connect();
    let keys: Vec<_> = (0..300)
        .map(|n| format!("a-lock-{n}-{}", "x".repeat(200)))
        .collect();
    let mut eval = |count: usize| acquire(&mut client, &keys[..count], ["me", "60000"]);
    let refused = eval(300);
    assert!(refused.starts_with("-OOM "), "{refused}");
    assert_eq!(eval(10), ":10");
    assert_eq!(client.call(&["DBSIZE"]), ":10");
}

/// What is to last together is one frame of the log, which is read whole or not at all: wherever it is cut,
/// all of the locks are there or none.
#[test]
fn a_crash_leaves_all_locks_of_a_request_or_none() {
    let data = Scratch::new("lock-scripts");
    let server = Process::start(data.path(), &[]);
    let mut client = server.connect();
    // Longer together than what small frames are joined to.
    let keys: Vec<_> = (0..40)
        .map(|n| format!("a-lock-{n}-{}", "x".repeat(200)))
        .collect();
    assert_eq!(client.call(&["SET", "before", "x"]), "+OK");
    assert_eq!(acquire(&mut client, &keys, ["the-owner", "600000"]), ":40");
    server.kill();
    let segment = segments(data.path()).pop().unwrap();
    let whole = std::fs::read(&segment).unwrap();
    let find = |word: &str| {
        let found = whole
            .windows(word.len())
            .position(|bytes| bytes == word.as_bytes());
        found.unwrap()
    };
    let (first, last) = (find(&keys[0]), find(&keys[39]));
    let after = |bytes: &[u8]| {
        let torn = Scratch::new("torn-lock-scripts");
        copy(data.path(), torn.path());
        std::fs::write(torn.path().join(segment.file_name().unwrap()), bytes).unwrap();
        let server = Process::start(torn.path(), &[]);
        let mut client = server.connect();
        let before = client.call(&["GET", "before"]);
        (before, client.call_with(&["EXISTS"], &keys, &[]))
    };
    let begins = first.min(last);
    for at in [begins + 2, first.midpoint(last), first.max(last) + 2] {
        let mut torn = whole.clone();
        torn[at..].fill(0);
        assert_eq!(
            after(&torn),
            ("$x".to_owned(), ":0".to_owned()),
            "cut at {at}"
        );
    }
    assert_eq!(after(&whole), ("$x".to_owned(), ":40".to_owned()));
}

#[test]
fn locks_are_as_they_were_after_a_restart() {
    let data = Scratch::new("lock-scripts");
    let server = Process::start(data.path(), &[]);
    let mut client = server.connect();
    let eval = |client: &mut Client, library: &str, name: &str, words: &[&str]| {
        let text = lock_script(library, name);
        client.call(&[&["EVAL", text][..], words].concat())
    };
    assert_eq!(
        eval(
            &mut client,
            "redlock 5",
            "acquire",
            &["3", "a", "b", "c", "me", "60000"]
        ),
        ":3"
    );
    assert_eq!(
        eval(
            &mut client,
            "redlock 5",
            "extend",
            &["2", "a", "b", "me", "600000"]
        ),
        ":2"
    );
    assert_eq!(
        eval(&mut client, "redlock 5", "release", &["1", "c", "me"]),
        ":1"
    );
    assert_eq!(
        eval(
            &mut client,
            "redis-py",
            "reacquire",
            &["1", "a", "me", "30000"]
        ),
        ":1"
    );
    assert_eq!(
        eval(
            &mut client,
            "bsm/redislock 0.10",
            "obtain",
            &["2", "x", "y", "token-1", "5", "60000"]
        ),
        "+OK"
    );
    assert_eq!(
        eval(
            &mut client,
            "bsm/redislock 0.10",
            "obtain",
            &["2", "x", "y", "token-2", "5", "60000"]
        ),
        "+OK"
    );
    assert_eq!(
        eval(
            &mut client,
            "bsm/redislock 0.10",
            "obtain",
            &["2", "x", "y", "other-3", "5", "60000"]
        ),
        "nil"
    );
    let loaded = client.call(&["SCRIPT", "LOAD", lock_script("redlock 5", "acquire")]);
    let digest = &loaded[1..];
    assert_eq!(client.call(&["SCRIPT", "EXISTS", digest]), "[:1]");
    server.kill();
    let server = Process::start(data.path(), &[]);
    let mut client = server.connect();
    assert_eq!(
        client.call(&["MGET", "a", "b", "c", "x", "y"]),
        "[$me, $me, nil, $token-2, $token-2]"
    );
    let left = |client: &mut Client, key: &str| -> u64 {
        client.call(&["PTTL", key])[1..].parse().unwrap()
    };
    assert!((1..=30_000).contains(&left(&mut client, "a")));
    assert!((60_001..=600_020).contains(&left(&mut client, "b")));
    // What was known by its digest is to be sent again, as after a restart of Redis.
    let forgotten = client.call(&["EVALSHA", digest, "0"]);
    assert!(forgotten.starts_with("-NOSCRIPT"), "{forgotten}");
}
