//! The engine and its log together, over a disk that can lose what was not synced, in virtual time.
//!
//! Random commands are executed, some of the log is compacted, the machine loses power or the server is
//! killed, and another engine is made from what is left: it must answer as the one before did.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "common/simulated_disk/mod.rs"]
mod simulated_disk;

use std::fmt::Write;
use std::sync::Arc;

use onced::command::spec::verbs;
use onced::command::{Reply, lookup_line, lookup_resp};
use onced::engine::{Engine, EngineConfig};
use onced::limits::Limits;
use onced::log::compact::Compactor;
use onced::log::mend::mend;
use onced::log::reader::{Present, Reader};
use onced::log::storage::Storage;
use onced::log::writer::{Fsync, Log, LogConfig};
use onced::time::Millis;
use onced::wire::{Decoded, Decoder};
use simulated_disk::SimulatedDisk;

const SEEDS: u64 = 60;
const SPACES: [&str; 3] = ["default", "orders", "urls"];
const KEYS: u64 = 40;

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

/// A server's inside: engine, log, and what compacts it.
struct Run {
    disk: SimulatedDisk,
    engine: Engine,
    log: Arc<Log>,
    compactor: Compactor,
}

impl Run {
    fn start(disk: SimulatedDisk, fsync: Fsync, boot: u8, now: Millis) -> Self {
        let storage: Arc<dyn Storage> = Arc::new(disk.clone());
        let boot = [boot; 16];
        let present = Present {
            now,
            boot,
            recovers: false,
            is_copy: false,
        };
        let reader = Reader::open(Arc::clone(&storage), present).unwrap();
        let engine = Engine::new(EngineConfig {
            covered_since: now,
            shards: 4,
            ..EngineConfig::default()
        });
        let restored = engine.restore(reader, 2, |_| true).unwrap().unwrap();
        mend(&*storage, &restored.findings).unwrap();
        let config = LogConfig {
            fsync,
            segment_bytes: 64 << 10,
            frame_bytes_max: 8 << 10,
            boot,
        };
        let log = Log::start(storage, config, restored.start, now).unwrap();
        let log = Arc::clone(engine.attach(log));
        Self {
            disk,
            engine,
            log,
            compactor: Compactor::new(16 << 10),
        }
    }

    fn execute(&self, request: &str, now: Millis) -> String {
        let mut session = self.engine.session();
        let mut decoder = Decoder::default();
        let line = request.to_owned() + "\n";
        let limits = Limits::DEFAULT;
        let Decoded::Request { args, .. } = decoder.next(line.as_bytes(), &limits) else {
            panic!("{request} is no request");
        };
        // Redis's commands too: what a line is called does not matter here.
        let verb = lookup_resp(args.verb()).or_else(|| lookup_line(args.verb()));
        let verb = verb.unwrap_or_else(|| panic!("{request}: no such verb of {}", verbs().len()));
        let command = verb.spec().parse(&args, &limits).unwrap();
        let reply = self.engine.execute(&mut session, &command, now);
        format!("{reply:?}")
    }

    /// In a namespace: commands that name none are executed in the one that was chosen.
    fn execute_in(&self, space: &str, request: &str, now: Millis) -> String {
        let mut session = self.engine.session();
        let limits = Limits::DEFAULT;
        let mut told = String::new();
        for request in [&format!("USE {space}"), request] {
            let line = request.to_owned() + "\n";
            let mut decoder = Decoder::default();
            let Decoded::Request { args, .. } = decoder.next(line.as_bytes(), &limits) else {
                panic!("{request} is no request");
            };
            let verb = lookup_resp(args.verb()).or_else(|| lookup_line(args.verb()));
            let command = verb.unwrap().spec().parse(&args, &limits).unwrap();
            let reply = self.engine.execute(&mut session, &command, now);
            assert!(!matches!(reply, Reply::Error(_)), "{request}: {reply:?}");
            told = format!("{reply:?}");
        }
        told
    }

    /// All that can be seen of all keys and namespaces.
    fn state(&self, now: Millis) -> String {
        let mut all = String::new();
        let mut spaces = self.engine.keyspace();
        spaces.sort();
        for (space, _) in spaces {
            let found = self.engine.find(&space).unwrap();
            let policy = found.policy();
            let (since, until) = (found.covered_since(), found.unsure_until());
            let digests = found.keeps_digests();
            writeln!(all, "{space} {policy:?} {digests} {since:?} {until:?}").unwrap();
            for number in 0..KEYS {
                let key = key(number);
                for verb in ["GET", "PEXPIRETIME", "ONCE.INSPECT"] {
                    let told = self.execute_in(&space, &format!("{verb} {key}"), now);
                    writeln!(all, "{verb} {key} {told}").unwrap();
                }
            }
        }
        all
    }

    /// Looks through what it will; returns whether anything was done.
    fn compact(&mut self, steps: usize, now: Millis) -> std::io::Result<bool> {
        let Self {
            engine,
            log,
            compactor,
            ..
        } = self;
        let mut done = false;
        for _ in 0..steps {
            // A copy waits for what is in the log; without threads somebody has to see to that.
            log.sync(now);
            let keys = engine.totals().keys;
            let more = compactor.step(log, keys, now, |space, records, alive| {
                engine.survive(space, records, alive, now);
            })?;
            done |= more;
            if !more {
                break;
            }
        }
        Ok(done)
    }
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
    let request = match draw.below(42) {
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
        let mut boot = 0;
        // Under the other policies a start after a power loss does not know as much as it did.
        let fsync = if seed % 3 == 0 {
            Fsync::EverySec
        } else {
            Fsync::Always
        };
        let mut run = Run::start(SimulatedDisk::new(seed), fsync, boot, now);
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
            let disk = if draw.below(2) == 0 && fsync == Fsync::Always {
                boot += 1;
                run.disk.crash(seed)
            } else {
                run.disk.kill()
            };
            run = Run::start(disk, fsync, boot, now);
            let after = run.state(now);
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
    let before = run.state(now);
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

/// Between two records a crash would leave one that knows of nothing before it.
#[test]
fn a_namespace_that_is_made_as_covered_is_so_from_its_first_record() {
    let run = Run::start(
        SimulatedDisk::new(1),
        Fsync::Always,
        1,
        Millis(1_790_000_000_000),
    );
    let bytes_of = |request: &str| {
        let before = run.log.appended();
        run.execute(request, Millis(1_790_000_000_000));
        run.log.appended() - before
    };
    let one = bytes_of("NS SET space-1 TTL 1h");
    assert!(one > 0);
    assert_eq!(bytes_of("NS SET space-2 TTL 1h COVERED"), one);
    assert_eq!(bytes_of("NS SET space-2 KEYS DIGEST COVERED"), one);
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
