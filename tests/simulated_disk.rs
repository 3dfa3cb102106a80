//! The disk of the crash tests, held to its own word: what it loses, what it never loses, how it fails.
//!
//! Where something may happen or not, many seeds must show both, and nothing besides.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "common/simulated_disk/mod.rs"]
mod simulated_disk;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use onced::log::storage::{File, Storage, is_lack_of_space, read_full_at, write_all_at};
use simulated_disk::{BytesLost, Failure, Faults, Loss, NamesLost, SECTOR_BYTES, SimulatedDisk};

const SEEDS: u64 = 300;

/// A disk with an empty file `a`, durably there.
fn disk_with_file() -> (SimulatedDisk, Arc<dyn File>) {
    let disk = SimulatedDisk::new(1);
    let file = disk.create("a").unwrap();
    file.sync().unwrap();
    disk.sync_names().unwrap();
    (disk, file)
}

fn write(file: &Arc<dyn File>, bytes: &[u8], offset: u64) {
    write_all_at(&**file, bytes, offset).unwrap();
}

fn half(bytes: BytesLost) -> Loss {
    Loss {
        kept_per_mille: 500,
        bytes,
        names: NamesLost::Latest,
    }
}

/// What `a` holds after each of many crashes.
fn after_crashes(disk: &SimulatedDisk, loss: Loss) -> BTreeSet<Vec<u8>> {
    (0..SEEDS)
        .map(|seed| disk.crash_with(loss, seed).read("a"))
        .collect()
}

/// The names left after each of many crashes.
fn names_after_crashes(disk: &SimulatedDisk, names: NamesLost) -> BTreeSet<Vec<String>> {
    let loss = Loss {
        names,
        ..half(BytesLost::Pieces)
    };
    (0..SEEDS)
        .map(|seed| disk.crash_with(loss, seed).names())
        .collect()
}

fn sets(names: &[&[&str]]) -> BTreeSet<Vec<String>> {
    names
        .iter()
        .map(|set| set.iter().map(|&name| name.to_owned()).collect())
        .collect()
}

#[test]
fn bytes_are_durable_once_synced() {
    let (disk, file) = disk_with_file();
    write(&file, b"first", 0);
    assert_eq!(disk.read("a"), b"first");
    assert_eq!(disk.crash_with(Loss::of_all(), 1).read("a"), b"");
    file.sync().unwrap();
    write(&file, b"second", 3);
    assert_eq!(disk.read("a"), b"firsecond");
    assert_eq!(disk.crash_with(Loss::of_all(), 1).read("a"), b"first");
    let all = Loss {
        kept_per_mille: 1000,
        ..Loss::of_all()
    };
    assert_eq!(disk.crash_with(all, 1).read("a"), b"firsecond");
}

#[test]
fn what_is_synced_survives_every_crash() {
    let (disk, file) = disk_with_file();
    write(&file, &[7; 3000], 0);
    file.sync().unwrap();
    write(&file, &[8; 3000], 3000);
    for seed in 0..SEEDS {
        let left = disk.crash(seed).read("a");
        assert!(left.len() >= 3000 && left[..3000].iter().all(|byte| *byte == 7));
    }
}

#[test]
fn sectors_stay_or_go_each_by_itself() {
    let (disk, file) = disk_with_file();
    file.reserve(64 * SECTOR_BYTES as u64, true).unwrap();
    write(&file, &vec![7; 64 * SECTOR_BYTES], 0);
    for seed in 0..20 {
        let left = disk
            .crash_with(half(BytesLost::Pieces), seed)
            .read("a")
            .chunks(SECTOR_BYTES)
            .map(|sector| {
                assert!(sector.iter().all(|byte| *byte == sector[0]));
                sector[0] == 7
            })
            .collect::<Vec<_>>();
        assert!(left.windows(2).any(|pair| pair == [true, false]));
        assert!(left.windows(2).any(|pair| pair == [false, true]));
    }
}

#[test]
fn sectors_tear_where_asked() {
    let (disk, file) = disk_with_file();
    file.reserve(SECTOR_BYTES as u64, true).unwrap();
    write(&file, &[7; SECTOR_BYTES], 0);
    assert_eq!(after_crashes(&disk, half(BytesLost::Pieces)).len(), 2);
    let torn = after_crashes(&disk, half(BytesLost::Torn));
    let shape = |left: &Vec<u8>| (left[0] == 7, left[SECTOR_BYTES - 1] == 7);
    let shapes: BTreeSet<_> = torn.iter().map(shape).collect();
    assert_eq!(shapes.len(), 4, "the beginning, the end, both or a middle");
    assert!(torn.len() > 20, "any byte may be the last");
}

#[test]
fn a_page_cache_writes_sectors_as_they_were_at_some_moment() {
    let (disk, file) = disk_with_file();
    file.reserve(10, true).unwrap();
    write(&file, b"one", 0);
    write(&file, b"two", 3);
    write(&file, b"six", 0);
    let versions = after_crashes(&disk, half(BytesLost::Versions));
    assert_eq!(
        versions,
        [
            b"\0\0\0\0\0\0\0\0\0\0",
            b"one\0\0\0\0\0\0\0",
            b"onetwo\0\0\0\0",
            b"sixtwo\0\0\0\0"
        ]
        .map(|bytes| bytes.to_vec())
        .into()
    );
    let pieces = after_crashes(&disk, half(BytesLost::Pieces));
    assert!(pieces.is_superset(&versions));
    assert!(pieces.contains(b"\0\0\0two\0\0\0\0".as_slice()));
}

#[test]
fn a_length_not_synced_is_any_that_the_file_had_or_passed() {
    let (disk, file) = disk_with_file();
    write(&file, &[7; 100], 0);
    file.sync().unwrap();
    write(&file, &[8; 900], 100);
    let left = after_crashes(&disk, half(BytesLost::Pieces));
    let lengths: BTreeSet<_> = left.iter().map(Vec::len).collect();
    assert!(lengths.contains(&100) && lengths.contains(&1000));
    assert!(lengths.len() > 20 && lengths.iter().all(|len| (100..=1000).contains(len)));
    assert!(
        left.iter()
            .any(|left| left.len() == 1000 && left[100..].iter().all(|byte| *byte == 0)),
        "longer by zeros"
    );
    for left in left {
        assert!(left[..100].iter().all(|byte| *byte == 7));
        assert!(left[100..].iter().all(|byte| [0, 8].contains(byte)));
    }
}

#[test]
fn a_cut_not_synced_may_not_have_happened_and_brings_nothing_back() {
    let (disk, file) = disk_with_file();
    write(&file, b"firstsecond", 0);
    file.sync().unwrap();
    file.truncate(5).unwrap();
    assert_eq!(disk.read("a"), b"first");
    let cut_only: BTreeSet<_> = [b"first".to_vec(), b"firstsecond".to_vec()].into();
    assert_eq!(after_crashes(&disk, half(BytesLost::Pieces)), cut_only);
    file.truncate(8).unwrap();
    assert_eq!(disk.read("a"), b"first\0\0\0");
    for left in after_crashes(&disk, half(BytesLost::Torn)) {
        assert!(left == b"firstsecond" || b"first\0\0\0".starts_with(&left[..]));
    }
    file.sync().unwrap();
    assert_eq!(disk.crash_with(Loss::of_all(), 1).read("a"), b"first\0\0\0");
}

#[test]
fn names_are_durable_once_synced() {
    let disk = SimulatedDisk::new(1);
    let file = disk.create("a").unwrap();
    write(&file, b"text", 0);
    file.sync().unwrap();
    assert!(disk.crash_with(Loss::of_all(), 1).names().is_empty());
    disk.sync_names().unwrap();
    disk.rename("a", "b").unwrap();
    disk.create("c").unwrap();
    assert_eq!(disk.names(), ["b", "c"]);
    assert_eq!(disk.crash_with(Loss::of_all(), 1).names(), ["a"]);
    disk.sync_names().unwrap();
    disk.remove("b").unwrap();
    assert_eq!(disk.crash_with(Loss::of_all(), 1).names(), ["b", "c"]);
    assert_eq!(disk.crash_with(Loss::of_all(), 1).read("b"), b"text");
    disk.sync_names().unwrap();
    assert_eq!(disk.crash_with(Loss::of_all(), 1).names(), ["c"]);
}

#[test]
fn a_journal_keeps_the_first_changes_and_a_worse_disk_any() {
    let disk = SimulatedDisk::new(1);
    disk.put("a", b"old");
    disk.create("b").unwrap();
    disk.rename("a", "c").unwrap();
    disk.remove("b").unwrap();
    assert_eq!(
        names_after_crashes(&disk, NamesLost::Latest),
        sets(&[&["a"], &["a", "b"], &["b", "c"], &["c"]])
    );
    assert_eq!(
        names_after_crashes(&disk, NamesLost::Any),
        sets(&[&["a"], &["a", "b"], &["b", "c"], &["c"]])
    );
    disk.create("d").unwrap();
    let latest = names_after_crashes(&disk, NamesLost::Latest);
    let any = names_after_crashes(&disk, NamesLost::Any);
    assert!(!latest.contains(&vec!["a".to_owned(), "d".to_owned()]));
    assert!(any.contains(&vec!["a".to_owned(), "d".to_owned()]));
}

#[test]
fn a_file_has_one_name_whichever_changes_were_lost() {
    let disk = SimulatedDisk::new(1);
    disk.put("a", b"text");
    disk.rename("a", "b").unwrap();
    disk.rename("b", "c").unwrap();
    let left = names_after_crashes(&disk, NamesLost::Any);
    assert_eq!(left, sets(&[&["a"], &["b"], &["c"]]));
}

#[test]
fn a_rename_replaces_in_one_step() {
    let disk = SimulatedDisk::new(1);
    disk.put("a", b"old");
    let file = disk.create("a.tmp").unwrap();
    write(&file, b"new", 0);
    file.sync().unwrap();
    disk.rename("a.tmp", "a").unwrap();
    let mut seen = BTreeSet::new();
    for seed in 0..SEEDS {
        let after = disk.crash(seed);
        let old = after.read("a") == b"old";
        assert!(old || after.read("a") == b"new");
        assert!(old || after.names() == ["a"]);
        seen.insert(old);
    }
    assert_eq!(seen.len(), 2);
}

#[test]
fn a_new_name_may_outlive_the_bytes_that_were_not_synced() {
    let disk = SimulatedDisk::new(1);
    write(&disk.create("a").unwrap(), b"text", 0);
    disk.sync_names().unwrap();
    assert_eq!(disk.crash_with(Loss::of_all(), 1).read("a"), b"");
}

#[test]
fn a_killed_process_loses_nothing_yet() {
    let (disk, file) = disk_with_file();
    write(&file, b"text", 0);
    disk.create("b").unwrap();
    disk.set_faults(Faults::once(0, Failure::Broken));
    let next = disk.kill();
    assert_eq!(next.names(), ["a", "b"]);
    assert_eq!(next.read("a"), b"text");
    assert_eq!(next.crash_with(Loss::of_all(), 1).read("a"), b"");
    assert_eq!(next.crash_with(Loss::of_all(), 1).names(), ["a"]);
    next.open("a").unwrap().sync().unwrap();
    assert_eq!(next.crash_with(Loss::of_all(), 1).read("a"), b"text");
    next.remove("a").unwrap();
    assert_eq!(
        next.space_taken(),
        0,
        "no handle is left of the old process"
    );
    assert_eq!(disk.crash_with(Loss::of_all(), 1).read("a"), b"");
}

#[test]
fn handles_stay_with_their_disk() {
    let (disk, file) = disk_with_file();
    write(&file, b"text", 0);
    file.sync().unwrap();
    let (crashed, killed) = (disk.crash(1), disk.kill());
    write(&file, b"more", 4);
    file.sync().unwrap();
    disk.remove("a").unwrap();
    assert_eq!(
        (crashed.read("a"), killed.read("a")),
        (b"text".to_vec(), b"text".to_vec())
    );
    write(&crashed.open("a").unwrap(), b"else", 0);
    let mut read = [0; 8];
    assert_eq!(read_full_at(&*file, &mut read, 0).unwrap(), 8);
    assert_eq!(&read, b"textmore");
}

#[test]
fn bytes_of_a_failed_sync_are_in_no_later_one() {
    for failure in [Failure::Broken, Failure::Full] {
        let (disk, file) = disk_with_file();
        file.reserve(9, true).unwrap();
        write(&file, b"onetwosix", 0);
        disk.set_faults(Faults::once(0, failure));
        file.sync().unwrap_err();
        assert_eq!(disk.read("a"), b"onetwosix");
        file.sync().unwrap();
        let zeros = vec![0; 9];
        assert_eq!(disk.crash_with(Loss::of_all(), 1).read("a"), zeros);
        let left = after_crashes(&disk, half(BytesLost::Pieces));
        assert_eq!(left, [zeros, b"onetwosix".to_vec()].into());

        write(&file, b"TWO", 3);
        file.sync().unwrap();
        let left = after_crashes(&disk, half(BytesLost::Pieces));
        assert!(left.iter().all(|left| &left[3..6] == b"TWO"));
        let whole = left.iter().map(|left| (left[0], left[8]));
        let parts: BTreeSet<_> = whole.collect();
        assert_eq!(parts.len(), 4, "the rest is still open, on both sides");

        write(&file, b"onetwosix", 0);
        file.sync().unwrap();
        let after = disk.crash_with(Loss::of_all(), 1).read("a");
        assert_eq!(after, b"onetwosix");
    }
}

#[test]
fn a_cut_makes_an_end_of_forsaken_bytes_beyond_it() {
    let (disk, file) = disk_with_file();
    write(&file, b"firstsecond", 0);
    disk.set_faults(Faults::once(0, Failure::Broken));
    file.sync().unwrap_err();
    file.truncate(5).unwrap();
    file.sync().unwrap();
    file.truncate(11).unwrap();
    file.sync().unwrap();
    for left in after_crashes(&disk, half(BytesLost::Torn)) {
        assert_eq!(left[5..], [0; 6]);
    }
}

/// Calls an operation until it would have failed; returns how it did and after how many calls.
fn failure_of(disk: &SimulatedDisk, mut call: impl FnMut() -> io::Result<()>) -> io::Error {
    let n = disk.operations() + 3;
    disk.set_faults(Faults::once(n, Failure::Broken));
    call().unwrap();
    call().unwrap();
    assert_eq!(call().unwrap_err().raw_os_error(), Some(5));
    assert_eq!(disk.operations(), n);
    call().unwrap();
    disk.set_faults(Faults::once(n, Failure::Full));
    let full = call().unwrap_err();
    call().unwrap();
    full
}

#[test]
fn any_change_fails_when_it_is_its_turn() {
    let (disk, file) = disk_with_file();
    let mut count = 0;
    let failures = [
        failure_of(&disk, || file.write_at(b"text", 0).map(drop)),
        failure_of(&disk, || file.reserve(10, false)),
        failure_of(&disk, || file.truncate(10)),
        failure_of(&disk, || file.sync()),
        failure_of(&disk, || disk.sync_names()),
        failure_of(&disk, || disk.rename("a", "a")),
        failure_of(&disk, || {
            count += 1;
            disk.create(&format!("b{count}")).map(drop)
        }),
    ];
    for failure in failures {
        assert_eq!(failure.raw_os_error(), Some(28));
        assert!(is_lack_of_space(&failure));
    }
    assert_eq!(disk.names(), ["a", "b1", "b2", "b4", "b6"]);
    disk.set_faults(Faults::once(0, Failure::Broken));
    disk.remove("a").unwrap_err();
    assert!(disk.names().contains(&"a".to_owned()));
}

#[test]
fn a_fault_waits_for_the_next_change() {
    let (disk, file) = disk_with_file();
    disk.set_faults(Faults::once(0, Failure::Broken));
    disk.list().unwrap();
    disk.open("a").unwrap();
    file.size().unwrap();
    file.read_at(&mut [0; 4], 0).unwrap();
    file.sync().unwrap_err();
    file.sync().unwrap();
}

#[test]
fn a_broken_write_may_have_happened_in_part_and_a_full_one_has_not() {
    let mut lengths = BTreeMap::from([(Failure::Broken as u8, BTreeSet::new())]);
    for seed in 0..SEEDS {
        for failure in [Failure::Broken, Failure::Full] {
            let disk = SimulatedDisk::new(seed);
            let file = disk.create("a").unwrap();
            disk.set_faults(Faults::once(0, failure));
            file.write_at(b"text", 0).unwrap_err();
            let seen = lengths.entry(failure as u8).or_default();
            seen.insert(disk.read("a").len());
        }
    }
    assert_eq!(lengths[&(Failure::Broken as u8)], (0..=4).collect());
    assert_eq!(lengths[&(Failure::Full as u8)], [0].into());
}

#[test]
fn a_failed_reserve_promises_nothing_and_may_lengthen() {
    let mut lengths = BTreeSet::new();
    for seed in 0..SEEDS {
        let disk = SimulatedDisk::new(seed);
        let file = disk.create("a").unwrap();
        disk.set_faults(Faults::once(0, Failure::Full));
        assert!(is_lack_of_space(&file.reserve(10, true).unwrap_err()));
        lengths.insert(file.size().unwrap());
        assert_eq!(disk.space_taken(), 0);
        disk.set_capacity(0);
        assert!(is_lack_of_space(&file.write_at(b"text", 0).unwrap_err()));
    }
    assert_eq!(lengths, (0..=10).collect());
}

#[test]
fn faults_come_at_their_rates() {
    let disk = SimulatedDisk::new(3);
    let file = disk.create("a").unwrap();
    disk.set_faults(Faults {
        broken_per_mille: 200,
        full_per_mille: 200,
        interrupted_per_mille: 200,
        ..Faults::default()
    });
    let mut codes = BTreeMap::<_, u32>::new();
    for _ in 0..1000 {
        let code = file
            .write_at(b"text", 0)
            .err()
            .map(|error| error.raw_os_error());
        *codes.entry(code.flatten()).or_default() += 1;
    }
    assert_eq!(
        codes.keys().copied().collect::<Vec<_>>(),
        [None, Some(4), Some(5), Some(28)]
    );
    assert!(codes.values().all(|count| *count > 50));
    let interrupted = (0..1000).filter(|_| {
        file.read_at(&mut [0; 4], 0)
            .is_err_and(|error| error.kind() == io::ErrorKind::Interrupted)
    });
    assert!((100..300).contains(&interrupted.count()));
}

#[test]
fn short_and_interrupted_transfers_are_got_over() {
    let disk = SimulatedDisk::new(4);
    let file = disk.create("a").unwrap();
    let bytes: Vec<u8> = (0..=255).collect();
    disk.set_faults(Faults {
        interrupted_per_mille: 300,
        short_per_mille: 900,
        ..Faults::default()
    });
    let mut counts = BTreeSet::new();
    for _ in 0..SEEDS {
        write_all_at(&*file, &bytes, 0).unwrap();
        let mut read = [0; 300];
        assert_eq!(read_full_at(&*file, &mut read, 0).unwrap(), 256);
        assert_eq!(read[..256], bytes);
        counts.extend(file.write_at(&bytes[..4], 0));
        counts.extend(file.read_at(&mut [0; 4], 0));
    }
    assert_eq!(counts, (1..=4).collect());
    assert!(disk.operations() > 4 * SEEDS);
}

#[test]
fn space_ends_and_comes_back() {
    let disk = SimulatedDisk::new(1);
    disk.set_capacity(10);
    let a = disk.create("a").unwrap();
    a.reserve(6, false).unwrap();
    assert_eq!(disk.space_taken(), 6);
    let b = disk.create("b").unwrap();
    assert!(is_lack_of_space(&b.reserve(5, false).unwrap_err()));
    assert_eq!(
        b.write_at(b"12345", 0).unwrap(),
        4,
        "what there is room for"
    );
    assert!(is_lack_of_space(&b.write_at(b"5", 4).unwrap_err()));
    assert_eq!(a.write_at(b"123456", 0).unwrap(), 6, "set aside");
    assert!(is_lack_of_space(&a.write_at(b"7", 6).unwrap_err()));
    assert_eq!(b.write_at(b"4321", 0).unwrap(), 4, "taken already");
    disk.set_capacity(11);
    assert_eq!(b.write_at(b"56", 4).unwrap(), 1);
    disk.set_capacity(2);
    assert_eq!(a.write_at(b"654321", 0).unwrap(), 6);
    assert!(is_lack_of_space(&a.write_at(b"7", 6).unwrap_err()));
    disk.set_capacity(11);
    a.truncate(2).unwrap();
    assert_eq!(disk.space_taken(), 7);
    disk.remove("b").unwrap();
    assert_eq!(disk.space_taken(), 7, "who has it open may go on");
    drop(b);
    assert_eq!(disk.space_taken(), 2);
    assert_eq!(disk.kill().space_taken(), 2);
    a.reserve(11, false).unwrap();
}

#[test]
fn space_set_aside_with_zeros_is_durable() {
    let (disk, file) = disk_with_file();
    write(&file, b"text", 0);
    file.reserve(10, true).unwrap();
    assert_eq!(disk.read("a"), b"text\0\0\0\0\0\0");
    let left = disk.crash_with(Loss::of_all(), 1).read("a");
    assert_eq!(left, [0; 10], "what was written before waits for its sync");
    file.sync().unwrap();
    let left = disk.crash_with(Loss::of_all(), 1).read("a");
    assert_eq!(left, b"text\0\0\0\0\0\0");
    file.reserve(20, false).unwrap();
    file.reserve(5, false).unwrap();
    assert_eq!(file.size().unwrap(), 20);
    assert_eq!(disk.crash_with(Loss::of_all(), 1).read("a").len(), 10);
}

#[test]
fn names_are_used_as_a_directory_has_them() {
    let (disk, file) = disk_with_file();
    let kind = |result: io::Result<Arc<dyn File>>| result.unwrap_err().kind();
    assert_eq!(kind(disk.create("a")), io::ErrorKind::AlreadyExists);
    assert_eq!(kind(disk.open("b")), io::ErrorKind::NotFound);
    let missing = disk.rename("b", "c").unwrap_err();
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    let missing = disk.remove("b").unwrap_err();
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    disk.create("b").unwrap();
    assert_eq!(disk.list().unwrap(), ["a", "b"]);
    disk.rename("b", "a").unwrap();
    write(&file, b"text", 0);
    assert_eq!(disk.read("a"), b"", "the old file goes on without its name");
    let mut read = [0; 9];
    assert_eq!(file.read_at(&mut read, 1).unwrap(), 3);
    assert_eq!(file.read_at(&mut read, 4).unwrap(), 0);
    assert_eq!(file.read_at(&mut read, 99).unwrap(), 0);
}

#[test]
fn what_tests_do_to_a_disk_is_done_for_good() {
    let disk = SimulatedDisk::new(1);
    disk.put("a", b"old");
    disk.put("a", b"text");
    disk.flip_bit("a", 8 + 5);
    assert_eq!(disk.read("a"), b"tExt");
    write(&disk.open("a").unwrap(), b"Tex", 0);
    disk.flip_bit("a", 5);
    disk.cut("a", 2);
    assert_eq!(disk.read("a"), b"te");
    assert_eq!(disk.crash_with(Loss::of_all(), 1).read("a"), b"TE");
    let all = Loss {
        kept_per_mille: 1000,
        ..Loss::of_all()
    };
    assert_eq!(disk.crash_with(all, 1).read("a"), b"te");
    assert_eq!((disk.operations(), disk.space_taken()), (2, 2));
}

#[test]
fn without_power_nothing_changes() {
    let (disk, file) = disk_with_file();
    write(&file, b"text", 0);
    disk.power_off_at(disk.operations() + 2);
    file.size().unwrap();
    assert_eq!(
        file.write_at(b"more", 0).unwrap_err().raw_os_error(),
        Some(5)
    );
    file.sync().unwrap_err();
    file.reserve(10, true).unwrap_err();
    disk.list().unwrap_err();
    disk.remove("a").unwrap_err();
    assert_eq!(disk.read("a"), b"text");
    let after = disk.crash_with(Loss::of_all(), 1);
    assert_eq!(after.read("a"), b"");
    after.open("a").unwrap();
}

#[test]
fn a_seed_says_all() {
    let run = |seed| {
        let disk = SimulatedDisk::new(seed);
        let file = disk.create("a").unwrap();
        disk.set_faults(Faults {
            broken_per_mille: 100,
            short_per_mille: 500,
            ..Faults::default()
        });
        for n in 0..200_u64 {
            let _ = file.write_at(&[n as u8; 700], n * 100);
            if n % 10 == 0 {
                let _ = (file.sync(), disk.sync_names());
            }
        }
        disk.crash(seed).read("a")
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}

#[test]
fn a_report_names_the_seeds() {
    fn shared(_: &(impl Storage + 'static)) {}
    let (disk, file) = disk_with_file();
    shared(&disk);
    assert_eq!(format!("{disk:?}"), "SimulatedDisk(seed 1)");
    assert_eq!(format!("{file:?}"), "file 0 of SimulatedDisk(seed 1)");
    let next = disk.kill().crash_with(Loss::of_all(), 9);
    assert_eq!(
        format!("{next:?}"),
        "SimulatedDisk(seed 1, kill, crash 9 Loss { kept_per_mille: 0, bytes: Pieces, names: Latest })"
    );
}
