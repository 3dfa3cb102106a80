//! `MSETNX` is in the log as a whole or not at all, wherever that was torn; `MSET` is there key by key.

use std::collections::BTreeSet;
use std::fmt::Write;

use onced::log::writer::Fsync;
use onced::time::Millis;

use crate::run::{Options, Run};
use crate::simulated_disk::SimulatedDisk;

const START: Millis = Millis(1_790_000_000_000);
/// Of such a length that these take more than a page of the disk, and less than a frame may be.
const KEYS: usize = 10;
const VALUE_BYTES: usize = 550;
/// More than a frame of these logs may be.
const TOO_MANY: usize = 400;

fn request(verb: &str, keys: usize) -> String {
    (0..keys).fold(verb.to_owned(), |mut request, n| {
        write!(request, " key-{n} {n:0VALUE_BYTES$}").unwrap();
        request
    })
}

/// How many of the keys are there after a power loss in the middle of writing.
fn left_of(verb: &str, seed: u64) -> usize {
    let options = Options {
        fsync: Fsync::Never,
        ..Options::at(START)
    };
    let mut run = Run::start(SimulatedDisk::new(seed), &options).unwrap();
    run.execute("SEEN before 1h", START);
    run.execute(&request(verb, KEYS), START);
    run.log.write(START);
    let options = Options { boot: 1, ..options };
    run = Run::start(run.disk.crash(seed), &options).unwrap();
    let exists = (0..KEYS).fold("EXISTS".to_owned(), |words, n| format!("{words} key-{n}"));
    let told = run.execute(&exists, START);
    let count = told.trim_start_matches("Number(").trim_end_matches(')');
    count.parse().unwrap()
}

#[test]
fn a_torn_log_has_all_of_an_msetnx_or_nothing() {
    let left = |verb| (0..300).map(|seed| left_of(verb, seed)).collect();
    let of_msetnx: BTreeSet<_> = left("MSETNX");
    assert_eq!(of_msetnx, BTreeSet::from([0, KEYS]));
    // So these logs are torn in the middle of what one request changed.
    let of_mset: BTreeSet<_> = left("MSET");
    assert!(of_mset.len() > 2, "{of_mset:?}");
}

#[test]
fn an_msetnx_that_no_frame_can_hold_changes_nothing() {
    let run = Run::start(SimulatedDisk::new(1), &Options::at(START)).unwrap();
    let too_large = run.told(&request("MSETNX", TOO_MANY), START);
    assert!(
        too_large.contains("too large for a segment of the log"),
        "{too_large}"
    );
    assert_eq!(run.execute("DBSIZE", START), "Number(0)");
    // The space that was promised for it is there again, as often as it is tried.
    for _ in 0..1_000 {
        assert_eq!(run.told(&request("MSETNX", TOO_MANY), START), too_large);
    }
    assert_eq!(run.execute(&request("MSETNX", KEYS), START), "Number(1)");
    assert_eq!(run.execute(&request("MSETNX", KEYS), START), "Number(0)");
    run.log.write(START);
    let again = Run::start(run.disk.kill(), &Options::at(START)).unwrap();
    assert_eq!(again.execute("DBSIZE", START), format!("Number({KEYS})"));
}
