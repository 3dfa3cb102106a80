//! The log alone, over a disk that loses, tears and fails: what was acknowledged is there afterwards.
//!
//! Each seed is a run of its own: changes of a few keys, written, synced and tended in any order, a crash
//! or another end, the reading and the next start, several times on one disk. A seed that fails is named;
//! `ONCED_SEED=17 cargo test --test log_crash` plays it alone. `ONCED_SEEDS` says how many are played for
//! each policy; the full form is
//! `ONCED_SEEDS=10000 cargo test --release --test log_crash`.

#![allow(missing_docs)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "log_crash/model.rs"]
mod model;
#[path = "log_crash/restore.rs"]
mod restore;
#[path = "log_crash/run.rs"]
mod run;
#[path = "common/simulated_disk/mod.rs"]
mod simulated_disk;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use onced::log::writer::Fsync;

use run::Trouble;

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
