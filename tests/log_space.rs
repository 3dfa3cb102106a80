//! The log alone, on a disk that has little space or less than there was: what was promised is written, and
//! what waits for space gets it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "common/frames.rs"]
mod frames;
#[path = "common/simulated_disk/mod.rs"]
mod simulated_disk;

use std::sync::Arc;

use onced::log::compact::Compactor;
use onced::log::frame;
use onced::log::storage::Storage;
use onced::log::writer::{Fsync, Log, LogConfig, Start};
use onced::time::Millis;
use simulated_disk::SimulatedDisk;

const START: Millis = Millis(1_790_000_000_000);

/// A new log with segments of so many bytes, and frames that take up to as many.
fn log(disk: &SimulatedDisk, segment_bytes: u64, frame_bytes_max: usize) -> Log {
    let config = LogConfig {
        fsync: Fsync::EverySec,
        segment_bytes,
        frame_bytes_max,
        boot: [1; 16],
        secrets: frames::secrets(1),
    };
    let start = Start {
        next_segment: 1,
        ..Start::default()
    };
    Log::start(Arc::new(disk.clone()), config, start, START).unwrap()
}

/// A frame of so many bytes, its header included; what is in it does not matter here.
fn frame(bytes: usize) -> Vec<u8> {
    let mut frame = vec![0; bytes];
    frame::finish(&mut frame, 0, 1);
    frame
}

/// Large frames are promised while there is much space, and come to be written when there is little.
#[test]
fn frames_that_were_promised_fit_however_small_the_next_segment_is() {
    let disk = SimulatedDisk::new(1);
    let log = log(&disk, 1 << 20, 100 << 10);
    let (large, small) = (frame(100 << 10), frame(1 << 10));
    assert!(log.promise(large.len()));
    disk.set_capacity(disk.space_taken() + (70 << 10));
    log.tend(START).unwrap();
    while log.promise(small.len()) {
        log.append(&small, START);
    }
    log.append(&large, START);
    log.write(START);
    assert_eq!(log.acknowledged(), log.appended());
    disk.set_capacity(u64::MAX);
    log.tend(START).unwrap();
    assert!(log.promise(large.len()));
    log.append(&large, START);
    log.write(START);
    log.close(START).unwrap();
}

/// The active segment is too small for it and there is no space to make it longer, but the next one was
/// made when there was more.
#[test]
fn a_frame_that_only_the_next_segment_has_room_for_is_written_there() {
    let disk = SimulatedDisk::new(1);
    disk.set_capacity(100 << 10);
    let log = log(&disk, 1 << 20, 200 << 10);
    disk.set_capacity(disk.space_taken() + (1 << 20) + (12 << 10));
    log.tend(START).unwrap();
    let frame = frame(100 << 10);
    assert!(log.promise(frame.len()));
    log.append(&frame, START);
    log.write(START);
    assert_eq!(log.acknowledged(), log.appended());
    assert_eq!(log.segments(), 2);
    log.close(START).unwrap();
}

/// A frame that no segment has room for is written all the same, and none is begun in vain.
#[test]
fn a_frame_that_is_larger_than_a_segment_is_written() {
    let disk = SimulatedDisk::new(1);
    let log = log(&disk, 64 << 10, 32 << 10);
    let frame = frame(100 << 10);
    assert!(!log.promise(frame.len()));
    assert_eq!(log.segments(), 1, "none is begun for what cannot be had");
    for _ in 0..3 {
        log.append(&frame, START);
        log.write(START);
        assert_eq!(log.acknowledged(), log.appended());
    }
    assert!(log.segments() <= 4, "{}", log.segments());
    log.close(START).unwrap();
}

#[test]
fn a_copy_does_not_keep_the_space_that_a_write_waits_for() {
    let disk = SimulatedDisk::new(1);
    let log = log(&disk, 64 << 10, 8 << 10);
    // Frames without a record in them: nothing of them counts.
    let (lapsing, small) = (START.after(3_600_000), frame(frame::HEADER_BYTES));
    while log.segments() < 3 {
        assert!(log.promise(small.len()));
        log.append(&small, lapsing);
        log.write(START);
        log.tend(START).unwrap();
    }
    log.sync(START);
    disk.set_capacity(disk.space_taken() + (20 << 10));
    // Too large for any segment, so that there is no other way to have it wait.
    log.append(&frame(300 << 10), lapsing);
    log.write(START);
    assert!(log.acknowledged() < log.appended());

    let mut compactor = Compactor::new(0);
    compactor.begin(&log);
    let step = |compactor: &mut Compactor| compactor.step(&log, 0, START, |_, _, _| {});
    let ends = (0..200).any(|_| !step(&mut compactor).unwrap());
    assert!(ends, "it goes on for ever");
    let names = disk.names();
    assert!(!names.iter().any(|name| name.contains("tmp")), "{names:?}");

    // And once there is space, all goes on.
    disk.set_capacity(u64::MAX);
    log.tend(START).unwrap();
    assert_eq!(log.acknowledged(), log.appended());
    log.sync(START);
    let before = log.bytes();
    compactor.begin(&log);
    while step(&mut compactor).unwrap() {
        log.sync(START);
    }
    assert!(
        log.bytes() < before / 2 + (300 << 10),
        "{before} bytes, now {}",
        log.bytes()
    );
    log.close(START).unwrap();
}

/// Somebody removed it by hand; the log has nothing left to do there.
#[test]
fn a_lapsed_segment_that_is_gone_already_is_no_error() {
    let disk = SimulatedDisk::new(1);
    let log = log(&disk, 64 << 10, 8 << 10);
    let small = frame(1 << 10);
    while log.segments() < 3 {
        assert!(log.promise(small.len()));
        log.append(&small, START);
        log.write(START);
        log.tend(START).unwrap();
    }
    let first = disk
        .names()
        .into_iter()
        .find(|name| name.ends_with("1.log"));
    disk.remove(&first.unwrap()).unwrap();
    log.sync(START);
    log.tend(START.after(1)).unwrap();
    assert_eq!(log.segments(), 1);
    log.close(START).unwrap();
}
