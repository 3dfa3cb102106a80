//! Requests of many keys or namespaces on a disk that has space for some of them: what the refusal says of
//! what was done is true, at once and after a restart.

use onced::time::Millis;

use crate::run::{Options, Run};
use crate::simulated_disk::SimulatedDisk;

const START: Millis = Millis(1_790_000_000_000);

/// A run that has these keys, on a disk that has no more space than the log has reserved.
fn full(keys: &[String]) -> Run {
    let disk = SimulatedDisk::new(7);
    let run = Run::start(disk, &Options::at(START)).unwrap();
    for key in keys {
        let told = run.execute(&format!("SEEN {key} 1h"), START);
        assert_eq!(told, "Word(\"NEW\")");
    }
    run.log.write(START);
    run.log.sync(START);
    run.disk.set_capacity(run.disk.space_taken());
    run
}

/// How many parts an error says were done, of how many.
fn how_far(told: &str) -> Option<(usize, usize)> {
    let numbers = told.split_once("for the log; ")?.1;
    if numbers.starts_with("nothing was changed") {
        return Some((0, 0));
    }
    let (done, rest) = numbers.split_once(" of ")?;
    Some((done.parse().ok()?, rest.split_once(' ')?.0.parse().ok()?))
}

#[test]
fn a_refused_forgetting_says_how_many_keys_are_gone() {
    let keys: Vec<_> = (0..3_000)
        .map(|n| format!("a-key-that-is-not-packed-{n}"))
        .collect();
    for verb in ["FORGET", "DEL"] {
        let run = full(&keys);
        let told = run.told(&format!("{verb} {}", keys.join(" ")), START);
        assert!(told.contains("Full"), "{told:.200}");
        let (mut done, of) = how_far(&told).unwrap_or_else(|| panic!("{told}"));
        assert!(done > 0 && of == keys.len(), "{told}");
        let check = |run: &Run, done: usize| {
            for (n, key) in keys.iter().enumerate() {
                let letter = if n < done { "N" } else { "D" };
                let told = run.execute(&format!("PEEK {key}"), START);
                assert_eq!(
                    told,
                    format!("Letters({:?})", letter.as_bytes()),
                    "{n} of {done}"
                );
            }
        };
        check(&run, done);
        // Frames that were joined have given space back, which is soon used up.
        for _ in 0..20 {
            let told = run.told(&format!("{verb} {}", keys[done..].join(" ")), START);
            let more = how_far(&told).unwrap_or_else(|| panic!("{told}")).0;
            if more == 0 {
                break;
            }
            done += more;
        }
        // Where nothing was done, that is what it says.
        let told = run.told(&format!("{verb} {}", keys[done..].join(" ")), START);
        assert_eq!(how_far(&told), Some((0, 0)), "{told}");
        check(&run, done);
        run.log.write(START);
        assert_eq!(run.log.acknowledged(), run.log.appended());
        let disk = run.disk.kill();
        disk.set_capacity(u64::MAX);
        drop(run);
        check(&Run::start(disk, &Options::at(START)).unwrap(), done);
    }
}

#[test]
fn a_refused_storing_of_many_says_how_far_it_came() {
    const KEYS: usize = 3_000;
    let names: Vec<_> = (0..KEYS)
        .map(|n| format!("a-name-that-is-not-packed-{n}"))
        .collect();
    let count = |run: &Run, request: &str| -> usize {
        let told = run.execute(request, START);
        told.trim_start_matches("Number(")
            .trim_end_matches(')')
            .parse()
            .unwrap()
    };
    let run = full(&["other".to_owned()]);
    let pairs: Vec<_> = names.iter().map(|name| format!("{name} value")).collect();
    let told = run.told(&format!("MSETNX {}", pairs[..200].join(" ")), START);
    assert!(
        told.contains("too large for a segment") || how_far(&told) == Some((0, 0)),
        "{told}"
    );
    let told = run.told(&format!("MSET {}", pairs.join(" ")), START);
    let (done, of) = how_far(&told).unwrap_or_else(|| panic!("{told}"));
    assert!(done > 0 && of == KEYS, "{told}");
    assert_eq!(count(&run, &format!("EXISTS {}", names.join(" "))), done);
    assert_eq!(
        count(&run, &format!("EXISTS {}", names[..done].join(" "))),
        done
    );

    let run = full(&["other".to_owned()]);
    run.execute("SADD set:1 a", START);
    let told = run.told(&format!("SADD set:1 a {}", names.join(" ")), START);
    let (added, of) = how_far(&told).unwrap_or_else(|| panic!("{told}"));
    assert!(added > 0 && of == KEYS + 1, "{told}");
    assert_eq!(count(&run, "SCARD set:1"), added + 1);
    let told = run.told(&format!("SREM set:1 {}", names.join(" ")), START);
    assert_eq!(how_far(&told), Some((0, 0)), "{told}");
    run.log.write(START);
    let disk = run.disk.kill();
    disk.set_capacity(u64::MAX);
    let run = Run::start(disk, &Options::at(START)).unwrap();
    assert_eq!(count(&run, "SCARD set:1"), added + 1);
}

#[test]
fn a_refused_flushing_says_how_many_namespaces_are_empty() {
    let run = full(&["a".to_owned()]);
    run.disk.set_capacity(u64::MAX);
    let spaces: Vec<_> = (0..60).map(|n| format!("space-{n}")).collect();
    for space in &spaces {
        run.execute_in(space, "SEEN a 1h", START);
        run.execute_in(
            space,
            &format!("BEGIN {} LEASE 1h", "r".repeat(2_000)),
            START,
        );
    }
    run.log.write(START);
    run.disk.set_capacity(run.disk.space_taken());
    let told = run.told("FLUSHALL", START);
    let (done, of) = how_far(&told).unwrap_or_else(|| panic!("{told}"));
    assert!(done > 0 && of == spaces.len() + 1, "{told}");
    let empty = |run: &Run| {
        let all = spaces.iter().map(String::as_str).chain(["default"]);
        let peeked = all.map(|space| run.execute_in(space, "PEEK a", START));
        peeked.filter(|told| told == "Letters([78])").count()
    };
    assert_eq!(empty(&run), done, "{told}");
    run.log.write(START);
    let disk = run.disk.kill();
    disk.set_capacity(u64::MAX);
    drop(run);
    assert_eq!(empty(&Run::start(disk, &Options::at(START)).unwrap()), done);
}

/// One namespace that cannot be emptied keeps none of the others.
#[test]
fn a_flushing_that_one_namespace_hinders_says_so() {
    let disk = SimulatedDisk::new(7);
    let run = Run::start(disk, &Options::at(START)).unwrap();
    run.execute("NS SET digests KEYS DIGEST", START);
    run.execute_in(
        "digests",
        &format!("BEGIN {} LEASE 1h", "r".repeat(100)),
        START,
    );
    for space in ["default", "orders"] {
        run.execute_in(space, "SEEN a 1h", START);
    }
    let told = run.told("FLUSHALL", START);
    assert!(
        told.contains("Busy") && told.contains("2 of 3 namespaces are emptied"),
        "{told}"
    );
    for space in ["default", "orders"] {
        assert_eq!(run.execute_in(space, "PEEK a", START), "Letters([78])");
    }
}
