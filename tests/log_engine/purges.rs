//! `NS PURGE` spares records in progress, wherever its way into the log is cut short, and however little space
//! the log has for them.

use onced::command::{Reply, lookup_line};
use onced::engine::Executed;
use onced::limits::Limits;
use onced::log::segment;
use onced::log::storage::Storage;
use onced::time::Millis;
use onced::wire::{Decoded, Decoder};

use crate::frames;
use crate::run::{Options, Run};
use crate::simulated_disk::SimulatedDisk;

/// Records in progress: as many as take several frames, and most of a segment.
const RUNNING: usize = 200;

fn at(seconds: u64) -> Millis {
    Millis(1_790_000_000_000 + seconds * 1_000)
}

fn key(n: usize) -> String {
    format!("{n:05}{}", "k".repeat(200))
}

/// A server with a marker and records in progress in `orders`, all of it in its log behind so many segments,
/// and with so little left of the newest that not all records fit it once more.
fn at_work(segments: usize) -> Run {
    let run = Run::start(SimulatedDisk::new(1), &Options::at(at(0))).unwrap();
    fill_until(&run, at(0), || run.log.segments() > segments);
    run.execute_in("orders", "SEEN marker 1h", at(0));
    for n in 0..RUNNING {
        let request = format!("BEGIN {} LEASE 10m OWNER worker-{n}", key(n));
        run.execute_in("orders", &request, at(0));
        run.log.write(at(0));
    }
    settle(&run, at(0));
    fill_until(&run, at(0), || {
        let sealed: u64 = run.log.sealed().iter().map(|sealed| sealed.bytes).sum();
        run.log.bytes() - sealed > (40 << 10)
    });
    settle(&run, at(0));
    run
}

/// Fills the log with what ends soon.
fn fill_until(run: &Run, now: Millis, is_enough: impl Fn() -> bool) {
    let value = "much".repeat(500);
    let mut ms = 5_000;
    while !is_enough() {
        run.execute_in("filler", &format!("SET key {value} PX {ms}"), now);
        run.log.write(now);
        run.log.tend(now).unwrap();
        ms += 1;
    }
}

/// All is written and durable, and there is a segment to come.
fn settle(run: &Run, now: Millis) {
    while run.log.sync(now) {}
    run.log.tend(now).unwrap();
}

/// What is told of `orders`: first of the marker, then of the records.
fn orders(run: &Run, now: Millis) -> String {
    let keys: Vec<_> = (0..RUNNING).map(key).collect();
    let mut told = run.execute_in("orders", &format!("PEEK marker {}", keys.join(" ")), now);
    for key in &keys {
        told += &run.execute_in("orders", &format!("INSPECT {key}"), now);
    }
    told
}

/// The marker is gone, and all records are there.
fn is_purged(told: &str) -> bool {
    let letters = format!("Letters([78{}])", ", 66".repeat(RUNNING));
    told.starts_with(&letters)
}

fn segments(disk: &SimulatedDisk) -> Vec<String> {
    let mut names = disk.names();
    names.retain(|name| segment::number(name).is_some());
    names.sort();
    names
}

/// Where each frame in a log ends, in order.
fn frame_ends(disk: &SimulatedDisk) -> Vec<(String, usize)> {
    let mut ends = Vec::new();
    for name in segments(disk) {
        let bytes = disk.read(&name);
        let found = frames::frames(&bytes).into_iter();
        ends.extend(found.map(|frame| (name.clone(), frame.range.end)));
    }
    ends
}

/// What a disk has if nothing behind a place was written.
fn cut(disk: &SimulatedDisk, (name, len): &(String, usize)) -> SimulatedDisk {
    let cut = disk.kill();
    cut.cut(name, *len);
    cut.forget_begun();
    for later in segments(disk).iter().filter(|later| *later > name) {
        cut.remove(later).unwrap();
    }
    cut
}

#[test]
fn a_purge_that_is_cut_short_was_not_or_is_whole() {
    // The number of segments before decides what of the log is read together.
    for segments_before in 0..4 {
        let run = at_work(segments_before);
        let before = orders(&run, at(1));
        let first = frame_ends(&run.disk).len();
        let segments = run.log.segments();
        run.execute("NS PURGE orders", at(1));
        settle(&run, at(1));
        let after = orders(&run, at(1));
        assert!(before != after && is_purged(&after));
        assert!(run.log.segments() > segments, "another is begun in between");
        let ends = &frame_ends(&run.disk)[first - 1..];
        assert!(ends.len() > 8, "{} frames", ends.len());
        let mut found = Vec::new();
        for end in ends {
            let next = Run::start(cut(&run.disk, end), &Options::at(at(1))).unwrap();
            let told = orders(&next, at(1));
            assert!(told == before || told == after, "cut at {end:?}");
            found.push(told == after);
            // What is left of the purge is nobody's from here on, under whatever number another is.
            next.execute_in("others", "SEEN marker 1h", at(1));
            settle(&next, at(1));
            let last = Run::start(next.disk.kill(), &Options::at(at(1))).unwrap();
            assert_eq!(told, orders(&last, at(1)), "cut at {end:?}");
            assert_eq!(last.engine.find("others").unwrap().keys(), 1);
        }
        assert!(found.is_sorted() && found.contains(&false) && found.contains(&true));
    }
}

/// The segment that says that it was purged goes before those with what stayed, as nothing in it has a
/// deadline; and what is in those counts when they are compacted.
#[test]
fn what_a_purge_spared_outlives_the_segment_that_says_so() {
    let mut run = at_work(0);
    let before = run.log.segments();
    run.execute("NS PURGE orders", at(1));
    settle(&run, at(1));
    assert!(run.log.segments() > before);
    let purged = orders(&run, at(1));
    for round in 0..3 {
        let newest = || run.log.sealed().last().unwrap().number;
        let enough = newest() + 2;
        fill_until(&run, at(1), || newest() >= enough);
        settle(&run, at(10));
        if round == 1 {
            run.compactor.begin(&run.log);
            while run.compact(1, at(10)).unwrap() {}
        }
        run = Run::start(run.disk.kill(), &Options::at(at(10))).unwrap();
        assert_eq!(orders(&run, at(1)), purged);
        if round == 1 {
            run.execute("NS PURGE orders", at(10));
            assert_eq!(orders(&run, at(1)), purged);
        }
    }
    run.execute("NS DROP orders FORCE", at(10));
    settle(&run, at(10));
    let run = Run::start(run.disk.kill(), &Options::at(at(10))).unwrap();
    assert!(run.engine.find("orders").is_none());
}

/// What is answered, errors too.
fn reply(run: &Run, request: &str, now: Millis) -> String {
    let line = request.to_owned() + "\n";
    let mut decoder = Decoder::default();
    let Decoded::Request { args, .. } = decoder.next(line.as_bytes(), &Limits::DEFAULT) else {
        panic!("{request} is no request");
    };
    let spec = lookup_line(args.verb()).unwrap().spec();
    let command = spec.parse(&args, &Limits::DEFAULT).unwrap();
    match run.engine.execute(&mut run.engine.session(), &command, now) {
        Reply::Error(error) => error.to_string(),
        reply => format!("{reply:?}"),
    }
}

/// Whatever is left of what was promised ahead: all is purged, or nothing is.
#[test]
fn a_purge_for_which_the_log_has_no_space_changes_nothing() {
    let mut refused = 0;
    let mut done = 0;
    for filled in 0..90 {
        let run = at_work(0);
        run.disk.set_capacity(run.disk.space_taken());
        let value = "v".repeat(900);
        for n in 0..filled {
            let told = reply(&run, &format!("BEGIN filler-{n}{value}"), at(1));
            assert!(told.contains("RUN") || told.contains("FULL"), "{told}");
            if told.contains("FULL") {
                break;
            }
            run.log.write(at(1));
        }
        let before = orders(&run, at(1));
        let told = reply(&run, "NS PURGE orders", at(1));
        let after = orders(&run, at(1));
        if told == "Word(\"OK\")" {
            done += 1;
            assert!(is_purged(&after), "{filled}");
        } else {
            refused += 1;
            assert!(told.contains("FULL"), "{filled}: {told}");
            assert_eq!(before, after, "{filled}");
        }
        run.disk.set_capacity(u64::MAX);
        settle(&run, at(1));
        let next = Run::start(run.disk.kill(), &Options::at(at(1))).unwrap();
        assert_eq!(after, orders(&next, at(1)), "{filled}");
        // What was promised for it and not taken was given back.
        assert_eq!(reply(&run, "NS PURGE orders", at(2)), "Word(\"OK\")");
    }
    assert!(refused > 0 && done > 0, "{refused} refused, {done} done");
}

/// Executes a request a slice at a time, and something else in between; what it is told, and in how many.
fn in_slices(
    run: &Run,
    request: &str,
    now: Millis,
    mut between: impl FnMut(usize),
) -> (String, usize) {
    let line = request.to_owned() + "\n";
    let mut decoder = Decoder::default();
    let Decoded::Request { args, .. } = decoder.next(line.as_bytes(), &Limits::DEFAULT) else {
        panic!("{request} is no request");
    };
    let spec = lookup_line(args.verb()).unwrap().spec();
    let command = spec.parse(&args, &Limits::DEFAULT).unwrap();
    let mut session = run.engine.session();
    for slice in 1.. {
        match run.engine.execute_slice(&mut session, &command, None, now) {
            Executed::Unfinished => between(slice),
            Executed::Told(reply) => return (format!("{reply:?}"), slice),
            Executed::Held => panic!("nobody can wait here"),
        }
    }
    unreachable!("it ends")
}

/// Records are begun, renewed, settled, given up and forgotten while they are copied; and somebody makes a
/// namespace meanwhile, whose number is that of the copies. What is in progress at the moment stays, as it is
/// then; wherever the log ends, it has that or the namespace as it was.
#[test]
fn what_changes_while_a_namespace_is_purged_is_as_it_became() {
    const KEYS: usize = 3_000;
    for others in [0, 2] {
        let run = Run::start(SimulatedDisk::new(1), &Options::at(at(0))).unwrap();
        run.execute_in("orders", "SEEN marker 1h", at(0));
        let begin = |n: usize, lease: &str| {
            let request = format!("BEGIN r{n} LEASE {lease} OWNER o{n}");
            let told = run.execute_in("orders", &request, at(0));
            run.log.write(at(0));
            // What was completed is not begun again.
            told.split(['(', ')'])
                .nth(2)
                .and_then(|token| token.parse::<u64>().ok())
        };
        let mut tokens: Vec<_> = (0..KEYS).map(|n| begin(n, "10m").unwrap()).collect();
        settle(&run, at(0));
        let first = frame_ends(&run.disk).len();
        let mut stays = vec![true; KEYS];
        let mut random = 1_u64;
        let between = |slice: usize| {
            for _ in 0..200 {
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                let n = (random >> 33) as usize % tokens.len();
                let (token, kind) = (tokens[n], (random >> 60) % 6);
                let request = match kind {
                    0 => format!("COMPLETE r{n} {token}"),
                    1 => format!("FAIL r{n} {token} RETRY"),
                    2 => format!("FORGET r{n}"),
                    3 => format!("RENEW r{n} {token} LEASE 1m"),
                    4 => format!("RENEW r{n} {token} LEASE 1h"),
                    _ => format!("r{}", tokens.len()),
                };
                if kind == 5 {
                    tokens.push(begin(tokens.len(), "5m").unwrap());
                    stays.push(true);
                } else if stays[n] || kind == 2 {
                    run.execute_in("orders", &request, at(0));
                    stays[n] &= kind > 2;
                } else if let Some(token) = begin(n, "5m") {
                    (tokens[n], stays[n]) = (token, true);
                }
                run.log.write(at(0));
            }
            if slice == others {
                run.execute_in("meanwhile", "SEEN marker 1h", at(0));
            }
        };
        let (told, slices) = in_slices(&run, "NS PURGE orders", at(0), between);
        assert_eq!(told, "Word(\"OK\")");
        assert!(slices > 4, "{slices}");
        settle(&run, at(0));
        let state = |run: &Run| {
            let mut told = run.execute_in("orders", "PEEK marker", at(1));
            for n in 0..tokens.len() {
                told += &run.execute_in("orders", &format!("INSPECT r{n}"), at(1));
            }
            told
        };
        let after = state(&run);
        assert!(after.starts_with("Letters([78])"));
        let is_there =
            |n: usize| run.execute_in("orders", &format!("PEEK r{n}"), at(1)) == "Letters([66])";
        for (n, stays) in stays.iter().enumerate() {
            assert!(is_there(n) == *stays, "r{n} stays: {stays}");
        }
        let ends = &frame_ends(&run.disk)[first..];
        for end in ends.iter().step_by(ends.len() / 30).chain(ends.last()) {
            let next = Run::start(cut(&run.disk, end), &Options::at(at(1))).unwrap();
            let is_before = next.execute_in("orders", "PEEK marker", at(1)) == "Letters([68])";
            assert!(is_before || state(&next) == after, "cut at {end:?}");
            assert!(!is_before || Some(end) != ends.last());
        }
    }
}
