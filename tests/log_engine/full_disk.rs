//! A disk that the log has filled with what is dead: compaction makes space there, and a start needs none.

use onced::log::compact::Compactor;
use onced::time::Millis;

use crate::run::{Options, Run};
use crate::simulated_disk::SimulatedDisk;

const START: Millis = Millis(1_790_000_000_000);
const CAPACITY: u64 = 1 << 20;
/// When the short lives have ended.
const LATER: Millis = Millis(START.0 + 120_000);

/// Fills a disk with keys of which one in so many lives long; returns the numbers of those that do.
fn fill(run: &mut Run, one_in: usize) -> Vec<usize> {
    run.disk.set_capacity(CAPACITY);
    let mut long = Vec::new();
    for n in 0.. {
        let ttl = if n % one_in == 0 { "10h" } else { "1m" };
        let told = run.told(&format!("SEEN a-key-that-is-not-packed-{n} {ttl}"), START);
        match &told[..] {
            "Word(\"NEW\")" => long.extend((n % one_in == 0).then_some(n)),
            full => {
                assert!(full.contains("no space on the disk"), "{full}");
                break;
            }
        }
        if n % 100 == 0 {
            work(run, 4, START);
        }
    }
    // Its last bytes are gone too.
    work(run, 400, START);
    long
}

/// What the threads of a server do now and then.
fn work(run: &mut Run, steps: usize, now: Millis) {
    run.log.write(now);
    run.log.tend(now).unwrap();
    run.compact(steps, now).unwrap();
    while run.engine.sweep(now) {}
}

/// Goes on until new keys are taken; fails if that takes longer than it may.
fn until_new_keys_are_taken(run: &mut Run) {
    let mut now = LATER;
    for n in 0..200 {
        if run.told(&format!("SEEN later-{n} 1h"), now) == "Word(\"NEW\")" {
            return;
        }
        work(run, 40, now);
        now = now.after(100);
    }
    panic!("a log of {} bytes stays what it is", run.log.bytes());
}

fn check(run: &Run, long: &[usize]) {
    for n in long {
        let told = run.execute(&format!("PEEK a-key-that-is-not-packed-{n}"), LATER);
        assert_eq!(told, "Letters([68])", "key {n}");
    }
}

#[test]
fn a_log_that_fills_its_disk_shrinks_once_most_of_it_is_dead() {
    // Half of each segment stays, a tenth, and next to nothing.
    for one_in in [3, 10, 1_000] {
        let mut run = Run::start(SimulatedDisk::new(3), &Options::at(START)).unwrap();
        run.compactor = Compactor::new(64 << 20);
        let long = fill(&mut run, one_in);
        assert!(run.log.bytes() > CAPACITY * 7 / 10, "{}", run.log.bytes());
        let before = run.log.bytes();
        until_new_keys_are_taken(&mut run);
        for _ in 0..20 {
            work(&mut run, 400, LATER.after(20_000));
        }
        let after = run.log.bytes();
        assert!(
            after < before * 7 / 10,
            "one in {one_in}: {before}, then {after}"
        );
        check(&run, &long);
        let disk = run.disk.kill();
        drop(run);
        check(&Run::start(disk, &Options::at(LATER)).unwrap(), &long);
    }
}

#[test]
fn a_start_on_a_disk_that_the_log_has_filled_answers_and_makes_space() {
    for stops_in_order in [false, true] {
        let mut run = Run::start(SimulatedDisk::new(4), &Options::at(START)).unwrap();
        let long = fill(&mut run, 50);
        if stops_in_order {
            run.compactor = Compactor::new(0);
            run.log.close(START).unwrap();
        }
        let mut disk = run.disk.kill();
        drop(run);
        // More than once: what one start takes is there for the next.
        for _ in 0..5 {
            let run = Run::start(disk.clone(), &Options::at(LATER)).unwrap();
            check(&run, &long);
            disk = run.disk.kill();
        }
        let mut run = Run::start(disk, &Options::at(LATER)).unwrap();
        let Run { log, compactor, .. } = &mut run;
        compactor.prepare(log);
        until_new_keys_are_taken(&mut run);
        check(&run, &long);
    }
}
