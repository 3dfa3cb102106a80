//! What a restart must not change, case by case.

use onced::log::control::{COVERED_SINCE_NEXT_START, Control};
use onced::log::storage::Storage;
use onced::log::{frame, segment};
use onced::time::Millis;

use crate::frames;
use crate::run::{Options, Run};
use crate::simulated_disk::SimulatedDisk;

const START: Millis = Millis(1_790_000_000_000);

fn at(seconds: u64) -> Millis {
    START.after(seconds * 1_000)
}

fn first_run() -> Run {
    Run::start(SimulatedDisk::new(1), &Options::at(START)).unwrap()
}

/// The server is killed and started again, with all that was executed in its log.
fn again(run: &Run, options: &Options) -> Run {
    while run.log.sync(options.now) {}
    Run::start(run.disk.kill(), options).unwrap()
}

fn is_there(run: &Run, space: &str, key: &str, now: Millis) -> bool {
    let told = run.execute_in(space, &format!("PEEK {key}"), now);
    match &told[..] {
        "Letters([68])" => true,
        "Letters([78])" => false,
        other => panic!("{other}"),
    }
}

/// Fills the segment that is written with what ends soon, so that another is begun.
fn fill_segment(run: &Run, now: Millis) {
    let value = "much".repeat(500);
    let before = run.log.segments();
    let mut ms = 5_000;
    while run.log.segments() == before {
        run.execute_in("filler", &format!("SET key {value} PX {ms}"), now);
        run.log.write(now);
        ms += 1;
    }
}

/// Fills more segments than are read in one go.
fn fill_segments(run: &Run, now: Millis) {
    for _ in 0..6 {
        fill_segment(run, now);
        run.log.tend(now).unwrap();
    }
}

/// Leaves only what counts in all that is in the log now.
fn compact(run: &mut Run, now: Millis) {
    fill_segment(run, now);
    run.compactor.begin(&run.log);
    while run.compact(1, now).unwrap() {}
}

/// Between two records a crash would leave one that knows of nothing before it.
#[test]
fn a_namespace_that_is_made_as_covered_is_so_from_its_first_record() {
    let run = first_run();
    let bytes_of = |request: &str| {
        let before = run.log.appended();
        run.execute(request, START);
        run.log.appended() - before
    };
    let one = bytes_of("NS SET space-1 TTL 1h");
    assert!(one > 0);
    assert_eq!(bytes_of("NS SET space-2 TTL 1h COVERED"), one);
    assert_eq!(bytes_of("NS SET space-2 KEYS DIGEST COVERED"), one);
}

/// What was evicted is in the log until it is compacted, and would be there again.
#[test]
fn what_was_forgotten_after_it_was_evicted_stays_forgotten() {
    let run = first_run();
    run.execute("NS SET small MAXKEYS 2 FULL EVICT", at(0));
    for (key, ttl) in [("a", 100), ("b", 200), ("c", 300)] {
        run.execute_in("small", &format!("SEEN {key} {ttl}s"), at(0));
    }
    let small = run.engine.find("small").unwrap();
    assert_eq!(small.counters().evicted, 1);
    for key in ["a", "b", "c"] {
        run.execute_in("small", &format!("FORGET {key}"), at(1));
    }
    // Later there is room for all that the log has.
    run.execute("NS SET small MAXKEYS 100", at(1));
    let run = again(&run, &Options::at(at(2)));
    for key in ["a", "b", "c"] {
        assert!(!is_there(&run, "small", key, at(2)), "{key}");
    }
}

/// As a cache uses it: a value of long ago must not come back once the newer one has ended.
#[test]
fn what_was_evicted_does_not_come_back_behind_a_newer_value() {
    let run = first_run();
    run.execute("NS SET small MAXKEYS 2 FULL EVICT", at(0));
    for (key, ttl) in [("a", 1_000), ("b", 2_000), ("c", 3_000)] {
        run.execute_in("small", &format!("SET {key} old EX {ttl}"), at(0));
    }
    run.execute("NS SET small MAXKEYS 100 COVERED", at(1));
    run.execute_in("small", "SET a new EX 10", at(1));
    // What is needed for that outlives the segment that says so.
    fill_segment(&run, at(1));
    run.log.tend(at(30)).unwrap();
    let run = again(&run, &Options::at(at(31)));
    assert!(!is_there(&run, "small", "a", at(31)));
    assert!(is_there(&run, "small", "b", at(31)));
}

/// The log says for a minute more than is so; what it says later must not be less.
#[test]
fn a_change_of_policy_takes_nothing_back_that_is_in_the_log() {
    let mut run = first_run();
    run.execute(
        "NS SET small MAXKEYS 1 FULL EVICT UNSURE REPORT COVERED",
        at(0),
    );
    run.execute_in("small", "SEEN a 100s", at(0));
    run.execute_in("small", "SEEN b 130s", at(0));
    run.execute("NS SET small TTL 1h", at(0));
    run.execute_in("small", "SEEN c 160s", at(0));
    let before = run.engine.find("small").unwrap().unsure_until();
    assert_eq!(before, at(130).after(1));
    // Then the log itself knows no more of them.
    compact(&mut run, at(1));
    let run = again(&run, &Options::at(at(2)));
    let after = run.engine.find("small").unwrap().unsure_until();
    assert!(after >= before, "{after:?} {before:?}");
}

/// Letting the log say so again and again, behind records that go beyond a bound, takes nothing back.
#[test]
fn what_is_evicted_while_a_log_is_read_is_unsure() {
    let run = first_run();
    run.execute("NS SET small FULL EVICT UNSURE REPORT COVERED", at(0));
    let keys: Vec<_> = (0..200).map(|n| format!("key-{n}")).collect();
    for (key, ttl) in keys.iter().zip(1_000..) {
        run.execute_in("small", &format!("SEEN {key} {ttl}s"), at(0));
    }
    run.execute("NS SET small MAXKEYS 100", at(1));
    fill_segments(&run, at(1));
    let run = again(&run, &Options::at(at(2)));
    assert_eq!(run.engine.find("small").unwrap().keys(), 100);
    let there: Vec<_> = keys
        .iter()
        .map(|key| is_there(&run, "small", key, at(2)))
        .collect();
    assert!(
        there[150..].iter().all(|there| *there),
        "those that end last stay: {there:?}"
    );
    for (key, there) in keys.iter().zip(there) {
        let told = run.execute_in("small", &format!("SEEN {key} 1h"), at(2));
        assert!(there || told.contains("UNSURE"), "{key}: {told}");
    }
}

/// What was dropped is gone, also where the configuration has the namespace made anew.
#[test]
fn a_namespace_that_was_dropped_comes_back_empty_and_unsure() {
    let options = |seconds| Options {
        namespaces: vec!["orders".to_owned()],
        ..Options::at(at(seconds))
    };
    let run = Run::start(SimulatedDisk::new(1), &options(0)).unwrap();
    run.execute("NS SET orders MODE SLIDE UNSURE REPORT COVERED", at(0));
    run.execute_in("orders", "SEEN a 1h", at(0));
    run.execute("NS DROP orders", at(1));
    let run = again(&run, &options(2));
    let number = |run: &Run| run.engine.find("orders").unwrap().covered_since();
    assert_eq!(number(&run), at(1).after(1));
    run.execute_in("orders", "SEEN b 1h", at(2));
    let run = again(&run, &options(3));
    assert!(!is_there(&run, "orders", "a", at(3)));
    assert!(is_there(&run, "orders", "b", at(3)));
    assert_eq!(number(&run), at(1).after(1));
}

/// A segment begins with what is true where it begins, whatever is on its way behind that.
#[test]
fn a_namespace_that_was_just_purged_is_not_taken_for_a_new_one() {
    let run = first_run();
    run.execute("NS SET orders UNSURE REPORT COVERED", at(0));
    run.execute_in("orders", "SEEN a 1h", at(0));
    let number = run.engine.find("orders").unwrap().covered_since();
    assert_eq!(number, Millis(0));
    fill_segments(&run, at(0));
    // All on its way together: the rest of a segment, and two namespaces behind it.
    let value = "much".repeat(500);
    for ms in 0..32 {
        run.execute_in(
            "filler",
            &format!("SET key {value} PX {}", 5_000 + ms),
            at(0),
        );
    }
    run.execute("NS SET orders TTL 2h", at(0));
    run.execute("NS PURGE orders", at(0));
    while run.log.sync(at(0)) {}
    let disk = run.disk.kill();
    cut_before_last_space(&disk);
    let run = Run::start(disk, &Options::at(at(1))).unwrap();
    let told = run.execute_in("orders", "SEEN a 1h", at(1));
    assert!(!told.contains("NEW"), "{told}");
}

/// As if the last `Space` of the newest segment had not been written.
fn cut_before_last_space(disk: &SimulatedDisk) {
    let file = disk.open(segments(disk).last().unwrap()).unwrap();
    let mut bytes = vec![0; file.size().unwrap() as usize];
    file.read_at(&mut bytes, 0).unwrap();
    let mut spaces = Vec::new();
    for found in frames::frames(&bytes) {
        let control = Control::of(found.payload);
        if found.space == frame::CONTROL && matches!(control, Some(Control::Space(_))) {
            spaces.push(found.range.start);
        }
    }
    assert_eq!(spaces.len(), 2);
    file.truncate(spaces[1] as u64).unwrap();
}

/// All log files but for the header, in order.
fn segments(disk: &SimulatedDisk) -> Vec<String> {
    let mut names = disk.list().unwrap();
    names.retain(|name| segment::number(name).is_some());
    names.sort();
    names
}

/// Wherever the first start is cut short that is to leave damage out, and whatever is left of that: the
/// next one refuses the damage, or knows of it.
#[test]
fn what_was_lost_is_remembered_by_whatever_start_comes_next() {
    let keys: Vec<_> = (0..60).map(|n| format!("key-{n}")).collect();
    let run = first_run();
    run.execute("NS SET orders UNSURE REPORT COVERED", at(0));
    for key in &keys {
        run.execute_in("orders", &format!("SEEN {key} 1h"), at(0));
        if key == "key-30" {
            fill_segment(&run, at(0));
        }
    }
    while run.log.sync(at(0)) {}
    let [first, second] = &segments(&run.disk)[..] else {
        panic!("two segments");
    };
    let (header, secret, middle, begin) = (10 * 8, 70 * 8, 600 * 8, 130 * 8);
    for (name, bit) in [
        (first, middle),
        (second, middle),
        (second, header),
        (second, secret),
        (second, begin),
    ] {
        let damaged = run.disk.kill();
        damaged.flip_bit(name, bit);
        let what = format!("{name}, bit {bit}");
        let refused = Run::start(damaged.kill(), &Options::at(at(1)));
        assert!(refused.is_err(), "{what}: unnoticed");
        let recovering = Options {
            recovers: true,
            ..Options::at(at(1))
        };
        let mut starts = 0;
        for operations in 0.. {
            let disk = damaged.kill();
            disk.power_off_at(disk.operations() + operations);
            let is_done = Run::start(disk.clone(), &recovering).is_ok();
            for left in [disk.kill(), disk.crash(operations)] {
                let Ok(next) = Run::start(left, &Options::at(at(2))) else {
                    continue;
                };
                starts += 1;
                for key in &keys {
                    let told = next.execute_in("orders", &format!("SEEN {key} 1h"), at(2));
                    assert!(!told.contains("NEW"), "{what}, {operations}: {key} {told}");
                }
            }
            if is_done {
                break;
            }
        }
        assert!(starts > 0, "{what}: nothing came of it");
    }
}

/// A run's first frame is durable before it answers anything; a machine that was started again since an
/// earlier run makes no tail of it.
#[test]
fn what_a_run_began_with_is_no_tail() {
    let first = first_run();
    first.log.close(at(0)).unwrap();
    let options = |boot, seconds| Options {
        boot,
        ..Options::at(at(seconds))
    };
    let run = Run::start(first.disk.kill(), &options(1, 1)).unwrap();
    run.execute("NS SET orders UNSURE REPORT COVERED", at(1));
    run.execute_in("orders", "SEEN a 1h", at(1));
    run.log.sync(at(1));
    let disk = run.disk.kill();
    disk.flip_bit(segments(&disk).last().unwrap(), 70 * 8);
    assert!(Run::start(disk.kill(), &options(2, 2)).is_err());
    let recovering = Options {
        recovers: true,
        ..options(2, 2)
    };
    let run = Run::start(disk, &recovering).unwrap();
    run.execute("NS SET orders UNSURE REPORT", at(2));
    let told = run.execute_in("orders", "SEEN a 1h", at(2));
    assert!(!told.contains("NEW"), "{told}");
}

/// No disk does that; but a start that leaves damage out is to leave this out as well.
#[test]
fn a_frame_that_says_nothing_is_left_out_like_damage() {
    let run = first_run();
    run.execute("NS SET orders UNSURE REPORT COVERED", at(0));
    run.execute_in("orders", "SEEN a 1h", at(0));
    let space = 2;
    let mut nonsense = Vec::new();
    let begins = frame::begin(&mut nonsense);
    nonsense.extend_from_slice(&[0xff; 20]);
    frame::finish(&mut nonsense, begins, space);
    assert!(run.log.promise(nonsense.len()));
    // Each of them in a frame of its own.
    run.log.write(at(0));
    run.log.append(&nonsense, at(3_600));
    run.log.write(at(0));
    run.execute_in("orders", "SEEN b 1h", at(0));
    while run.log.sync(at(0)) {}
    let disk = run.disk.kill();
    assert!(Run::start(disk.kill(), &Options::at(at(1))).is_err());
    let recovering = Options {
        recovers: true,
        ..Options::at(at(1))
    };
    let run = Run::start(disk, &recovering).unwrap();
    for key in ["a", "b"] {
        assert!(is_there(&run, "orders", key, at(1)), "{key}");
    }
    let told = run.execute_in("orders", "SEEN c 1h", at(1));
    assert!(told.contains("UNSURE"), "{told}");
    let run = again(&run, &Options::at(at(2)));
    assert!(is_there(&run, "orders", "b", at(2)));
}

/// A run whose clock was found to be behind is killed before it can say when it ended.
#[test]
fn a_run_that_is_killed_after_its_clock_was_found_behind_is_doubted_by_the_next() {
    let run = first_run();
    run.execute("NS SET old UNSURE REPORT COVERED", at(0));
    run.execute("NS SET dropped UNSURE REPORT COVERED", at(0));
    while run.log.sync(at(0)) {}
    assert!(run.log.append_covered(COVERED_SINCE_NEXT_START));
    // What is said later says no less, of namespaces that are made, changed and dropped.
    run.execute("NS SET made UNSURE REPORT COVERED", at(1));
    run.execute("NS SET old MAXTTL 2h", at(1));
    run.execute("NS DROP dropped", at(1));
    while run.log.sync(at(1)) {}
    let run = Run::start(run.disk.kill(), &Options::at(at(3_600))).unwrap();
    for name in ["old", "made", "never-there"] {
        let told = match name {
            "never-there" => run.engine.covered_since().0.to_string(),
            name => run.execute(&format!("NS INFO {name}"), at(3_600)),
        };
        let covered = at(3_600).after(1).0.to_string();
        assert!(told.contains(&covered), "{name}: {told}");
    }
    // One that comes to its end says when that was, which is what counts.
    assert!(run.log.append_covered(COVERED_SINCE_NEXT_START));
    assert!(run.log.append_covered(at(7_200)));
    run.log.close(at(7_200)).unwrap();
    let run = Run::start(run.disk.kill(), &Options::at(at(9_000))).unwrap();
    assert_eq!(run.engine.covered_since(), at(7_200));
    let told = run.execute("NS INFO old", at(9_000));
    assert!(told.contains(&at(7_200).0.to_string()), "{told}");
}
