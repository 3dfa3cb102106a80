//! The engine and its log together, over a disk that can lose what was not synced, in virtual time.
//!
//! Random commands are executed, some of the log is compacted, the machine loses power or the server is
//! killed, and another engine is made from what is left: it must answer as the one before did.

#![allow(missing_docs, unreachable_pub)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "common/frames.rs"]
mod frames;
#[path = "log_engine/full_disk.rs"]
mod full_disk;
#[path = "log_engine/msetnx.rs"]
mod msetnx;
#[path = "log_engine/no_space.rs"]
mod no_space;
#[path = "log_engine/purges.rs"]
mod purges;
#[path = "log_engine/records.rs"]
mod records;
#[path = "log_engine/restarts.rs"]
mod restarts;
#[path = "log_engine/run.rs"]
mod run;
#[path = "common/simulated_disk/mod.rs"]
mod simulated_disk;

use std::fmt::Write;

use onced::log::compact::Compactor;
use onced::log::writer::Fsync;
use onced::time::Millis;
use run::{Options, Run};
use simulated_disk::SimulatedDisk;

const SEEDS: u64 = 60;
const SPACES: [&str; 3] = ["default", "orders", "urls"];
const KEYS: u64 = 40;
const SET: &str = "set:1";

/// Small numbers from a seed; splitmix64.
struct Draw(u64);

impl Draw {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

/// All that can be seen of all keys and namespaces.
fn state(run: &Run, now: Millis) -> String {
    let mut all = String::new();
    let mut spaces = run.engine.keyspace();
    spaces.sort();
    for (space, _) in spaces {
        let found = run.engine.find(&space).unwrap();
        let policy = found.policy();
        let (since, until) = (found.covered_since(), found.unsure_until());
        let digests = found.keeps_digests();
        writeln!(all, "{space} {policy:?} {digests} {since:?} {until:?}").unwrap();
        for verb in ["TYPE", "PEXPIRETIME"] {
            let told = run.execute(&format!("{verb} {space}"), now);
            writeln!(all, "{verb} {space} {told}").unwrap();
        }
        let others = ["b", "c", "n"].map(str::to_owned);
        for key in (0..KEYS).map(key).chain(others) {
            for verb in ["GET", "PEXPIRETIME", "ONCE.INSPECT"] {
                let told = run.execute_in(&space, &format!("{verb} {key}"), now);
                writeln!(all, "{verb} {key} {told}").unwrap();
            }
        }
    }
    all
}

fn key(number: u64) -> String {
    match number % 4 {
        0 => format!("k{number}"),
        1 => format!("00000000-0000-4000-8000-0000000000{number:02x}"),
        2 => format!("https://example.com/a/path/that/is/long/{number}"),
        _ => format!("{number:032x}"),
    }
}

/// One command of those that change something.
fn command(draw: &mut Draw) -> (usize, String) {
    let space = draw.below(SPACES.len() as u64) as usize;
    let key = key(draw.below(KEYS));
    let ms = 1 + draw.below(60_000);
    let word = draw.below(1_000);
    let request = match draw.below(50) {
        0 => "FLUSHDB".to_owned(),
        1 => format!("NS SET {} TTL {ms}ms MAXKEYS 100000", SPACES[space]),
        2 => format!("NS SET {} MODE SLIDE UNSURE REPORT", SPACES[space]),
        3 => format!("NS SET {} MODE FIXED COVERED", SPACES[space]),
        4 if space > 0 => format!("NS DROP {}", SPACES[space]),
        5..12 => format!("SEEN {key} {ms}ms"),
        12..15 => format!("SEEN {key} {ms}ms SLIDE"),
        15..18 => format!("SEEN {key} {ms}ms FP {word:x}"),
        18..21 => format!("MSEEN {ms}ms {key} b c {key}"),
        21..24 => format!("FORGET {key} b"),
        24..27 => format!("PEXPIRE {key} {ms}"),
        27..29 => format!("ONCE.TOUCH {key} {ms}ms GT"),
        29..32 => format!("SET {key} value-{word} PX {ms}"),
        32..34 => format!("SET {key} value-{word} NX PX {ms}"),
        34 => format!("SET {key} other-{word} KEEPTTL"),
        35 => format!("GETDEL {key}"),
        36 => format!("GETEX {key} PX {ms}"),
        37 => format!("BF.ADD {} {key}", SPACES[space]),
        // Together, these are more than a frame may be.
        40 => format!("SET {key} {} PX {ms}", "large".repeat(600)),
        41 => format!(
            "MSEEN {ms}ms {}",
            (0..KEYS).map(self::key).collect::<Vec<_>>().join(" ")
        ),
        42 => format!("INCRBY n {word}"),
        43 => format!("MSET {key} {word} b {word} n {word}"),
        44 | 45 => format!("MSETNX {key} {word} b {word}"),
        46 => format!("SADD {SET} {key} b c"),
        47 => format!("SREM {SET} {key} c"),
        48 => format!("PEXPIRE {SET} {ms} LT"),
        49 => format!("DEL {SET}"),
        _ => format!("DELIFEQ {key} value-{word}"),
    };
    (space, request)
}

#[test]
fn another_engine_made_of_the_log_answers_the_same() {
    let first: u64 = std::env::var("ONCED_SEED").map_or(0, |seed| seed.parse().unwrap());
    let mut runs_compacted = 0;
    for seed in first..first + SEEDS {
        println!("ONCED_SEED={seed}");
        let mut draw = Draw(seed);
        let mut now = Millis(1_000_000);
        let mut options = Options::at(now);
        // Under the other policies a start after a power loss does not know as much as it did.
        if seed % 3 > 0 {
            options.fsync = Fsync::Always;
        }
        let mut run = Run::start(SimulatedDisk::new(seed), &options).unwrap();
        run.execute("NS SET urls KEYS DIGEST", now);
        let mut compacted = false;
        for round in 0..6 {
            for _ in 0..draw.below(2_000) {
                let (space, request) = command(&mut draw);
                run.execute_in(SPACES[space], &request, now);
                now = now.after(draw.below(30));
                if draw.below(50) == 0 {
                    run.log.write(now);
                    run.engine.sweep(now);
                }
                if draw.below(200) == 0 {
                    run.log.tend(now).unwrap();
                }
                if draw.below(100) == 0 {
                    compacted |= run.compact(1 + draw.below(20) as usize, now).unwrap();
                }
            }
            let before = end(&mut run, &mut draw, now, &mut compacted);
            let seed = draw.below(u64::MAX);
            let disk = if draw.below(2) == 0 && options.fsync == Fsync::Always {
                options.boot += 1;
                run.disk.crash(seed)
            } else {
                run.disk.kill()
            };
            options.now = now;
            run = Run::start(disk, &options).unwrap();
            let after = state(&run, now);
            assert!(
                before == after,
                "round {round}: {}",
                first_difference(&before, &after)
            );
        }
        runs_compacted += u64::from(compacted);
    }
    assert!(
        runs_compacted > SEEDS / 2,
        "only {runs_compacted} runs were compacted"
    );
}

/// Brings a run to a point of which everything is known, and then in part through a compaction that loses
/// its power in the middle; returns what it answered before that.
fn end(run: &mut Run, draw: &mut Draw, now: Millis, compacted: &mut bool) -> String {
    while run.log.sync(now) {}
    let before = state(run, now);
    match draw.below(3) {
        0 => run.log.close(now).unwrap(),
        1 => {}
        _ => {
            run.compactor = Compactor::new(0);
            run.disk
                .power_off_at(run.disk.operations() + draw.below(60));
            // With or without an error, in the middle of a copy or behind it.
            *compacted |= run.compact(1_000, now).unwrap_or(true);
        }
    }
    before
}

fn first_difference(before: &str, after: &str) -> String {
    let pairs = before.lines().zip(after.lines());
    let different = pairs.filter(|(before, after)| before != after);
    let shown: Vec<_> = different
        .take(3)
        .map(|(before, after)| format!("{before}\n   became {after}"))
        .collect();
    format!(
        "{} and {} lines\n{}",
        before.lines().count(),
        after.lines().count(),
        shown.join("\n")
    )
}
