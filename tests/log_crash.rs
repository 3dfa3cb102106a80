//! The log alone, over a disk that loses, tears and fails: what was acknowledged is there afterwards.
//!
//! Each seed is a run of its own: changes of a few keys, written, synced and tended in any order, a crash
//! or another end, the reading and the next start, several times on one disk. A seed that fails is named;
//! `ONCED_SEED=17 cargo test --test log_crash` plays it alone. `ONCED_SEEDS` says how many are played for
//! each policy; the full form is
//! `ONCED_SEEDS=10000 cargo test --release --test log_crash`.

#![allow(missing_docs, unreachable_pub)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "log_crash/damage.rs"]
mod damage;
#[path = "common/frames.rs"]
mod frames;
#[path = "log_crash/model.rs"]
mod model;
#[path = "log_crash/restore.rs"]
mod restore;
#[path = "log_crash/run.rs"]
mod run;
#[path = "common/simulated_disk/mod.rs"]
mod simulated_disk;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use onced::log::frame;
use onced::log::reader::Present;
use onced::log::record::{self, Content};
use onced::log::writer::{Fsync, Log, LogConfig, Start};
use onced::store::Secret;
use onced::time::Millis;

use damage::{Damage, Whole};
use run::Trouble;
use simulated_disk::{Random, SimulatedDisk};

/// Runs of each policy unless `ONCED_SEEDS` says otherwise.
const SEEDS: u64 = 150;

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().expect("a number"))
}

/// Plays all seeds that are to be played; names the first that fails.
fn play_all(fsync: Fsync, trouble: Trouble, seeds: u64) {
    let seeds = match from_environment("ONCED_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..seeds,
    };
    for seed in seeds {
        let played = catch_unwind(AssertUnwindSafe(|| run::play(seed, fsync, trouble)));
        if let Err(panic) = played {
            eprintln!("failed: ONCED_SEED={seed} ({fsync:?}, trouble: {trouble:?})");
            resume_unwind(panic);
        }
    }
}

/// Half of a policy's runs are on a good disk, a quarter each on a small one and on one that fails.
fn play_policy(fsync: Fsync) {
    let seeds = from_environment("ONCED_SEEDS").unwrap_or(SEEDS);
    play_all(fsync, Trouble::None, seeds.div_ceil(2));
    play_all(fsync, Trouble::Full, seeds.div_ceil(4));
    play_all(fsync, Trouble::Faults, seeds.div_ceil(4));
}

#[test]
fn nothing_acknowledged_is_lost_where_every_change_is_synced() {
    play_policy(Fsync::Always);
}

#[test]
fn nothing_synced_is_lost_where_that_is_once_a_second() {
    play_policy(Fsync::EverySec);
}

#[test]
fn nothing_synced_is_lost_where_the_system_decides() {
    play_policy(Fsync::Never);
}

/// The loss of a segment's last frames leaves zeros, as if it ended there.
#[test]
fn a_segment_that_lost_its_end_is_the_last_that_is_read() {
    let mut shapes = BTreeSet::new();
    for fsync in [Fsync::EverySec, Fsync::Never] {
        let (disk, log, frames) = two_segments(fsync);
        drop(log);
        for seed in 0..300 {
            let present = Present {
                now: START,
                boot: [2; 16],
                recovers: false,
                is_copy: false,
            };
            let restored = restore::read(&disk.crash(seed), present).unwrap();
            let found: Vec<_> = restored
                .frames
                .into_iter()
                .map(|(_, frame)| frame)
                .collect();
            let records: Vec<_> = found
                .into_iter()
                .filter(|(space, _)| *space != frame::CONTROL)
                .map(|(_, payload)| payload)
                .collect();
            let written = frames.iter().map(|frame| &frame[frame::HEADER_BYTES..]);
            assert!(written.take(records.len()).eq(&records), "crash {seed}");
            shapes.insert(records.len());
        }
    }
    assert!(shapes.contains(&SYNCED) && shapes.contains(&frames_of(1 << 14).len()));
}

/// Frames that are synced: all of the first segment but the last.
const SYNCED: usize = 22;
const START: Millis = Millis(1_790_000_000_000);

/// As many frames as fill a segment of so many bytes and half of another.
fn frames_of(segment_bytes: usize) -> Vec<Vec<u8>> {
    let secret = Secret::new([1; 192]);
    (0..3 * segment_bytes / 2 / 700)
        .map(|n| {
            let mut bytes = Vec::new();
            let begins = frame::begin(&mut bytes);
            let content = Content {
                value: Some(&[n as u8; 640]),
                ..Content::default()
            };
            let key = format!("key {n}").into_bytes();
            record::push_put(&mut bytes, &secret.key(&key), START.after(1_000), &content);
            frame::finish(&mut bytes, begins, 1);
            bytes
        })
        .collect()
}

/// A disk with a log of two segments, the end of the first and the second not synced, each frame written by
/// itself; and the frames.
fn two_segments(fsync: Fsync) -> (SimulatedDisk, Log, Vec<Vec<u8>>) {
    let disk = SimulatedDisk::new(1);
    let config = LogConfig {
        fsync,
        segment_bytes: 1 << 14,
        frame_bytes_max: 1 << 12,
        boot: [1; 16],
        secrets: frames::secrets(1),
    };
    let log = Log::start(
        Arc::new(disk.clone()),
        config,
        Start {
            next_segment: 1,
            ..Start::default()
        },
        START,
    )
    .unwrap();
    let frames = frames_of(1 << 14);
    for (n, bytes) in frames.iter().enumerate() {
        if n == SYNCED {
            assert_eq!(log.segments(), 1);
            log.sync(START);
        }
        assert!(log.promise(bytes.len()));
        log.append(bytes, START.after(1_000));
        log.write(START);
        if fsync == Fsync::Always {
            log.sync(START);
        }
    }
    assert_eq!(log.segments(), 2);
    (disk, log, frames)
}

/// A closed log of two segments, the second of few frames.
fn closed() -> Whole {
    let (disk, log, _) = two_segments(Fsync::Always);
    log.close(START).unwrap();
    drop(log);
    let present = Present {
        now: START,
        boot: [1; 16],
        recovers: false,
        is_copy: false,
    };
    Whole::new(disk.kill(), present)
}

#[test]
fn no_cut_and_no_flipped_bit_passes_for_what_was_written() {
    let whole = closed();
    let mut random = Random::new(17);
    for name in whole.names() {
        let bytes = whole.disk.read(&name).len();
        // All of what is about the header and the first frame, the rest here and there.
        let near = 150;
        for len in (0..near).chain((near..bytes).filter(|_| random.chance(5))) {
            whole.check(&name, Damage::Cut(len));
        }
        for bit in (0..near * 8).chain((near * 8..bytes * 8).filter(|_| random.chance(1))) {
            whole.check(&name, Damage::Flip(bit));
        }
    }
}
