//! What the server process holds: within its bound whatever was stored and deleted, and given back.
//!
//! Each case runs over a server in a process of its own, whose resident memory is watched all the time. It may
//! be 1.15 times `--max-memory`, and [`BASE_BYTES`] and [`WORKER_BYTES`] a worker; ten seconds after everything
//! was deleted, only the latter, and what the allocator keeps of where blocks were. In short with 64 MiB; with the
//! sizes that `ONCED_MEMORY` names, and a seed of `ONCED_SEED`, as CONTRIBUTING.md has it.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use common::process::{Dice, Process, allow_open_files, resident_bytes, serve_within};
use common::{Client, PATIENCE, eventually};

const MIB: usize = 1 << 20;
/// What a server may hold whatever its bound, of code, threads and what the system adds.
const BASE_BYTES: usize = 32 * MIB;
/// The same for each worker.
const WORKER_BYTES: usize = 4 * MIB;
/// The part of the bound that the allocator's map of addresses takes, which it never gives back: 8 bytes a page, and
/// 128 for each run of pages. Those of most sizes are of 64 KiB; those of values of 8 KiB are as long as one, so 128
/// bytes in 8 KiB and 8 in 4 KiB are the most that there are many of.
const MAP_PART: usize = 55;
/// As `serve` has it.
const WORKERS: usize = 2;
/// What an idle connection may hold, whatever it sent before: its task, and what the system's sockets need of us.
const CONNECTION_BYTES: usize = 12 << 10;
/// How long memory may take to come back.
const GIVEN_BACK_WITHIN: Duration = Duration::from_secs(10);
/// Keys of one round trip: few enough that deleting them is taken while memory is short.
const BATCH: u64 = 500;
const BATCH_BYTES: usize = 256 << 10;
/// Times that a fill is tried again, for two seconds.
const REFUSALS_MAX: usize = 40;

/// One server at a time, or they would slow each other down.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A server whose resident memory is watched.
struct Watched {
    server: Process,
    max: usize,
    peak: Arc<AtomicUsize>,
    is_over: Arc<AtomicBool>,
    watching: Option<JoinHandle<()>>,
    _one_at_a_time: MutexGuard<'static, ()>,
}

impl Watched {
    fn start(max: usize) -> Self {
        let one_at_a_time = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let memory = format!("{}MiB", max / MIB);
        let server = Process::spawn(serve_within(&memory, &["--max-connections", "12000"]));
        let (peak, is_over) = (Arc::default(), Arc::default());
        let (peak_seen, over) = (Arc::clone(&peak), Arc::clone(&is_over));
        let process = server.id();
        let watching = std::thread::spawn(move || {
            let over: &AtomicBool = &over;
            let peak: &AtomicUsize = &peak_seen;
            while !over.load(Ordering::Relaxed) {
                let resident = resident_bytes(process).unwrap_or(0);
                peak.fetch_max(resident, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        Self {
            server,
            max,
            peak,
            is_over,
            watching: Some(watching),
            _one_at_a_time: one_at_a_time,
        }
    }

    /// What may be held beside what is stored.
    const BESIDE: usize = BASE_BYTES + WORKERS * WORKER_BYTES;

    /// What may stay when everything was deleted.
    fn rest_max(&self) -> usize {
        Self::BESIDE + self.max / MAP_PART
    }

    fn resident(&self) -> usize {
        resident_bytes(self.server.id()).unwrap()
    }

    /// Asserts that there was never more than there may be since the last time.
    fn check_peak(&self, what: &str) {
        let peak = self.peak.swap(0, Ordering::Relaxed).max(self.resident());
        let counted = self.server.connect().gauge("memory_bytes") as usize;
        eprintln!(
            "{what}: peak {} MiB, now {}, counted {} of {}; {:.2} times",
            peak / MIB,
            self.resident() / MIB,
            counted / MIB,
            self.max / MIB,
            peak as f64 / self.max as f64,
        );
        let bound = self.max + self.max * 15 / 100 + Self::BESIDE;
        assert!(
            peak <= bound || is_only_measured(),
            "{what}: {peak} bytes were resident, {bound} may be"
        );
    }

    /// Asserts that everything comes back in time.
    fn check_rest(&self, what: &str) {
        let since = Instant::now();
        let is_back = || self.resident() <= self.rest_max();
        while !is_back() && since.elapsed() < GIVEN_BACK_WITHIN {
            std::thread::sleep(Duration::from_millis(20));
        }
        eprintln!(
            "{what}: {:.1} MiB after {:.1} s",
            self.resident() as f64 / MIB as f64,
            since.elapsed().as_secs_f64()
        );
        assert!(
            is_back() || is_only_measured(),
            "{what}: {} bytes stay resident, {} may",
            self.resident(),
            self.rest_max()
        );
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let _it_only_looks = self.watching.take().map(JoinHandle::join);
    }
}

/// Whether figures are wanted and no verdict.
fn is_only_measured() -> bool {
    std::env::var_os("ONCED_MEMORY_TABLE").is_some()
}

/// The bounds to run with.
fn sizes() -> Vec<usize> {
    let named = std::env::var("ONCED_MEMORY").unwrap_or("64".to_owned());
    let mib = named.split(',').map(|size| size.trim().parse::<usize>());
    mib.map(|size| size.expect("ONCED_MEMORY names mebibytes: 64,256") * MIB)
        .collect()
}

fn seed() -> u64 {
    let seed = std::env::var("ONCED_SEED").ok();
    seed.map_or(1, |seed| seed.parse().expect("ONCED_SEED is a number"))
}

/// What is stored under a key.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Value,
    Record,
}

/// Keys that one case made: those of these numbers, all but what was deleted.
struct Stored {
    address: String,
    stream: TcpStream,
    next: u64,
    request: Vec<u8>,
    reply: Vec<u8>,
    filler: Vec<u8>,
}

impl Stored {
    fn new(server: &Watched) -> Self {
        let address = server.server.address.clone();
        Self {
            stream: Self::connect(&address),
            address,
            next: 0,
            request: Vec::new(),
            reply: vec![0; 64 << 10],
            filler: vec![b'v'; MIB],
        }
    }

    fn connect(address: &str) -> TcpStream {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn word(&mut self, word: &[u8]) {
        write!(self.request, "${}\r\n", word.len()).unwrap();
        self.request.extend_from_slice(word);
        self.request.extend_from_slice(b"\r\n");
    }

    /// Sends what was written, reads so many lines, and returns how many of them are errors. `None` if the
    /// server closed the connection: while memory is short, it takes no large request.
    fn round_trip(&mut self, lines: u64) -> Option<u64> {
        let replies = self.exchange(lines);
        self.request.clear();
        if replies.is_none() {
            self.stream = Self::connect(&self.address);
        }
        replies
    }

    fn exchange(&mut self, lines: u64) -> Option<u64> {
        self.stream.write_all(&self.request).ok()?;
        let (mut seen, mut errors, mut at_start) = (0, 0, true);
        while seen < lines {
            let n = self.stream.read(&mut self.reply).ok()?;
            if n == 0 {
                return None;
            }
            for &byte in &self.reply[..n] {
                errors += u64::from(at_start && byte == b'-');
                at_start = byte == b'\n';
                seen += u64::from(at_start);
            }
        }
        Some(errors)
    }

    /// Stores keys until nothing more is taken, or so many are there; returns how many.
    fn fill(&mut self, kind: Kind, most: u64, ttl: &str, size: impl Fn(u64) -> usize) -> u64 {
        let (first, mut sent, mut refusals) = (self.next, 0, 0);
        while sent < most {
            let mut count = 0;
            while count < BATCH && self.request.len() < BATCH_BYTES && sent < most {
                let key = format!("key-{:012}", self.next);
                let len = size(self.next).min(self.filler.len());
                let filler = std::mem::take(&mut self.filler);
                let words = match kind {
                    Kind::Value => ["SET", &key, "", "PX", ttl].map(str::as_bytes),
                    Kind::Record => ["COMPLETE", &key, "1", "ADOPT", "BODY"].map(str::as_bytes),
                };
                let is_record = matches!(kind, Kind::Record);
                let head = if is_record { "*6\r\n" } else { "*5\r\n" };
                self.request.extend_from_slice(head.as_bytes());
                for word in words {
                    self.word(if word.is_empty() {
                        &filler[..len]
                    } else {
                        word
                    });
                }
                if is_record {
                    self.word(&filler[..len]);
                }
                self.filler = filler;
                self.next += 1;
                (count, sent) = (count + 1, sent + 1);
            }
            // A large one may be refused where a small one still fits; and more than is counted may be held for
            // a while, until what is left of what was deleted has been moved out of the way.
            match self.round_trip(count) {
                Some(refused) if refused * 2 <= count => refusals = 0,
                _ if refusals < REFUSALS_MAX => {
                    refusals += 1;
                    std::thread::sleep(Duration::from_millis(50));
                }
                _ => break,
            }
        }
        // What was refused last may have had the connection closed.
        self.stream = Self::connect(&self.address);
        self.next - first
    }

    /// Deletes those of the keys that are chosen.
    fn delete(&mut self, chosen: impl Fn(u64) -> bool) {
        let mut keys: Vec<u64> = Vec::new();
        for n in 0..=self.next {
            if n < self.next && chosen(n) {
                keys.push(n);
            }
            if keys.len() as u64 == BATCH || n == self.next && !keys.is_empty() {
                write!(self.request, "*{}\r\n", keys.len() + 1).unwrap();
                self.word(b"DEL");
                for n in keys.drain(..) {
                    self.word(format!("key-{n:012}").as_bytes());
                }
                assert_eq!(self.round_trip(1), Some(0));
            }
        }
    }

    fn flush(&mut self) {
        self.request.extend_from_slice(b"*1\r\n$8\r\nFLUSHALL\r\n");
        assert_eq!(self.round_trip(1), Some(0));
    }
}

/// Whether a key is one of the nine of ten that are deleted, by dice of its own.
fn goes(seed: u64, n: u64) -> bool {
    Dice::new(seed ^ n.wrapping_mul(0x2545_f491_4f6c_dd1d)).below(10) != 0
}

const LONG: &str = "3600000";

/// More keys than fit, where they lapse: a machine that is slow would never have it full.
fn enough(max: usize, value_bytes: usize) -> u64 {
    (max / (value_bytes + 64) * 2) as u64
}

#[test]
fn values_that_grow_after_deletes_stay_within_the_bound() {
    for max in sizes() {
        let server = Watched::start(max);
        let mut stored = Stored::new(&server);
        for (round, size) in [100, 300, 2 << 10, 100 << 10].into_iter().enumerate() {
            stored.fill(Kind::Value, u64::MAX, LONG, |_| size);
            server.check_peak(&format!("values of {size} bytes"));
            stored.delete(|n| goes(round as u64, n));
        }
        stored.flush();
        server.check_rest("after FLUSHALL");
    }
}

#[test]
fn values_that_lapse_give_their_memory_to_larger_ones() {
    for max in sizes() {
        let server = Watched::start(max);
        let mut stored = Stored::new(&server);
        // One of sixteen stays, so that hardly a page is free.
        for size in [70, 1_000, 20_000] {
            stored.fill(Kind::Value, (max / 16 / (size + 100)) as u64, LONG, |_| {
                size
            });
            stored.fill(Kind::Value, enough(max, size), "500", |_| size);
            std::thread::sleep(Duration::from_secs(1));
            server.check_peak(&format!("lapsing values of {size} bytes"));
        }
        stored.flush();
        server.check_rest("after FLUSHALL");
    }
}

#[test]
fn bodies_of_mixed_sizes_stay_within_the_bound() {
    for max in sizes() {
        let server = Watched::start(max);
        let mut stored = Stored::new(&server);
        for round in 0..4_u64 {
            let size = move |n: u64| {
                let largest = [200, 900, 30_000, 250_000][round as usize];
                Dice::new(n).below(largest) as usize
            };
            stored.fill(Kind::Record, u64::MAX, LONG, size);
            server.check_peak(&format!("bodies, round {round}"));
            stored.delete(|n| goes(round, n));
        }
        stored.delete(|_| true);
        server.check_rest("after all were deleted");
    }
}

fn connect(server: &Watched, count: usize) -> Vec<Client> {
    allow_open_files(count as u64 * 2 + 100);
    (0..count).map(|_| server.server.connect()).collect()
}

#[test]
fn namespaces_that_were_dropped_hold_nothing() {
    const NAMESPACES: usize = 300;
    for max in sizes() {
        let server = Watched::start(max);
        // Idle, each in a namespace of its own that another drops.
        let mut idle = connect(&server, 3 * NAMESPACES);
        let mut other = server.server.connect();
        for (round, idle) in idle.chunks_mut(NAMESPACES).enumerate() {
            for (n, client) in idle.iter_mut().enumerate() {
                let mut request = format!("USE idle-{round}-{n}\n");
                for key in 0..64 {
                    writeln!(request, "SEEN key-{key} 1h").unwrap();
                }
                client.send(request);
            }
            for client in &mut *idle {
                assert_eq!(client.line(), "OK");
                for _ in 0..64 {
                    let answer = client.line();
                    assert!(
                        answer == "NEW" || answer.starts_with("ERR FULL"),
                        "{answer}"
                    );
                }
            }
            server.check_peak("namespaces");
            for n in 0..NAMESPACES {
                assert_eq!(other.ask(&format!("NS DROP idle-{round}-{n}")), "OK");
            }
        }
        server.check_peak("dropped namespaces");
        server.check_rest("with connections in dropped namespaces");
        for client in idle.iter_mut().take(NAMESPACES) {
            assert_eq!(client.ask("SEEN again 1h"), "NEW");
        }
    }
}

#[test]
fn connections_that_went_idle_hold_little() {
    for max in sizes() {
        let count = if max > 64 * MIB { 5_000 } else { 2_000 };
        let server = Watched::start(max);
        let mut idle = connect(&server, count);
        let before = server.resident();
        // In groups, each of which has sent most of a request when its others begin theirs.
        let words = "word-word ".repeat(9_000);
        let halves = [
            format!("MSEEN 1s {}", &words[..70_000]),
            format!("{}\n", &words[70_000..]),
        ];
        for group in idle.chunks_mut(100) {
            for half in &halves {
                for client in &mut *group {
                    client.send(half);
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            for client in group {
                let answer = client.line();
                assert!(answer.len() == 9_000, "{answer}");
            }
        }
        server.check_peak("large requests");
        let each = || server.resident().saturating_sub(before) / count;
        eventually("what they held is given back", || {
            each() <= CONNECTION_BYTES
        });
        eprintln!("{} bytes each", each());
    }
}

#[test]
fn a_mix_by_seed_stays_within_the_bound() {
    const STEPS: u64 = 12;
    for max in sizes() {
        let server = Watched::start(max);
        let mut stored = Stored::new(&server);
        let mut dice = Dice::new(seed());
        for step in 0..STEPS {
            let largest = 1 << (5 + dice.below(13));
            let is_even = dice.one_in(2);
            let kind = if dice.one_in(3) {
                Kind::Record
            } else {
                Kind::Value
            };
            let ttl = if dice.one_in(3) { "1500" } else { LONG };
            let size = |n: u64| if is_even { largest } else { Dice::new(n).below(largest) } as usize;
            let mean = if is_even { largest } else { largest / 2 };
            stored.fill(kind, enough(max, mean as usize), ttl, size);
            server.check_peak(&format!(
                "step {step}: {kind:?}, up to {largest} bytes, {ttl} ms"
            ));
            match dice.below(4) {
                0 => stored.flush(),
                1 => stored.delete(|n| n % 2 == 0),
                _ => stored.delete(|n| goes(step, n)),
            }
            if step % 4 == 3 {
                stored.delete(|_| true);
                server.check_rest("after all were deleted");
            }
        }
        stored.flush();
        server.check_rest("after FLUSHALL");
    }
}
