//! The shard's operations beside two maps that one might use instead: `dashmap`, and `hashbrown`
//! behind one lock, each with its own default hasher. Each remembers a deadline per key; neither
//! of the two gives the memory of lapsed keys back.
//!
//! `store`: one operation at a time on a table of a size. `fill`: from nothing to all keys, growth and
//! the system's clearing of memory included, one at a time and in batches as the server asks, by one
//! thread and by two; then the same keys again. Each is timed as a whole, three times, and printed
//! with the ratio to hashbrown in the same run. Then what sharing costs: a line of memory that goes from
//! core to core.
//!
//! `ONCED_BENCH_KEYS` sets the larger table's size, 10 million keys by default (about 1 GiB).

#![allow(missing_docs)]

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use dashmap::DashMap;
use hashbrown::HashMap;
use onced::engine::{BATCH_MAX, Engine, EngineConfig, Question};
use onced::store::{Ask, Secret, Shard, Unbounded, Verdict, WindowMode};
use onced::time::Millis;
use parking_lot::Mutex;

static SECRET: Secret = Secret::new(secret_bytes());

/// As a run's secret is: equal bytes would cancel each other in the hash.
const fn secret_bytes() -> [u8; 192] {
    let (mut bytes, mut i) = ([0; 192], 0);
    while i < bytes.len() {
        bytes[i] = (scatter(i as u64 + 1) >> 32) as u8;
        i += 1;
    }
    bytes
}
const START: Millis = Millis(1_790_000_000_000);
const TTL_MS: u64 = 3_600_000;
const SMALL: u64 = 10_000;
/// Operations per measured pass.
const PASS: u64 = 10_000;

fn large() -> u64 {
    std::env::var("ONCED_BENCH_KEYS")
        .ok()
        .and_then(|text| text.parse().ok())
        .map_or(10_000_000, |keys: u64| keys.max(PASS))
}

/// A bijection on 64 bits (the finisher of `SplitMix64`), so that numbers become keys in no order.
const fn scatter(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

fn raw(n: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&scatter(n).to_le_bytes());
    key[8..].copy_from_slice(&n.to_le_bytes());
    key
}

fn uuid(n: u64) -> [u8; 36] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let bytes = raw(n);
    let mut text = [b'-'; 36];
    let places = (0..36).filter(|at| ![8, 13, 18, 23].contains(at));
    for (i, at) in places.enumerate() {
        text[at] = DIGITS[usize::from(bytes[i / 2] >> (4 * (1 - i % 2)) & 15)];
    }
    text
}

/// What is compared: remembers a key until a deadline, and says whether it was new.
trait Peer {
    fn first_time(&mut self, key: &[u8], now: Millis) -> bool;
    fn forget(&mut self, key: &[u8], now: Millis);
}

impl Peer for Shard {
    fn first_time(&mut self, key: &[u8], now: Millis) -> bool {
        let ask = Ask {
            ttl_ms: TTL_MS,
            ..Ask::default()
        };
        self.seen(&SECRET.key(key), &ask, &mut Unbounded, now).0 == Verdict::New
    }

    fn forget(&mut self, key: &[u8], now: Millis) {
        self.remove(&SECRET.key(key), now);
    }
}

fn id(key: &[u8]) -> [u8; 16] {
    key.try_into().expect("the maps are given 16-byte keys")
}

fn renew(deadline: &mut u64, now: Millis) -> bool {
    let lapsed = *deadline < now.0;
    if lapsed {
        *deadline = now.0 + TTL_MS;
    }
    lapsed
}

impl Peer for DashMap<[u8; 16], u64> {
    fn first_time(&mut self, key: &[u8], now: Millis) -> bool {
        let mut deadline = self.entry(id(key)).or_insert(0);
        renew(&mut deadline, now)
    }

    fn forget(&mut self, key: &[u8], _: Millis) {
        self.remove(&id(key));
    }
}

impl Peer for Mutex<HashMap<[u8; 16], u64>> {
    fn first_time(&mut self, key: &[u8], now: Millis) -> bool {
        // As if it were shared: `get_mut` would skip the lock.
        renew((*self).lock().entry(id(key)).or_insert(0), now)
    }

    fn forget(&mut self, key: &[u8], _: Millis) {
        (*self).lock().remove(&id(key));
    }
}

/// Measures a peer that holds keys 0 to `held`.
fn operations<const LEN: usize, P: Peer>(
    group: &mut BenchmarkGroup<'_, criterion::measurement::WallTime>,
    name: &str,
    key: fn(u64) -> [u8; LEN],
    held: u64,
    peer: &mut P,
) {
    let mut now = START;
    for n in 0..held {
        assert!(peer.first_time(&key(n), now), "key {n} is new");
    }
    // Keys are prepared before the clock runs, and are others in every pass: spread over the
    // whole table, so that most of a large one are in no cache.
    let stride = held / PASS;
    let held_keys = |pass: u64| -> Vec<_> {
        (0..PASS)
            .map(|n| key((n * stride + pass * 7_919) % held))
            .collect()
    };
    let fresh_keys = |pass: u64| -> Vec<_> {
        let first = held + pass * PASS;
        (first..first + PASS).map(key).collect()
    };
    let mut passes = 0_u64;
    let mut pass = |peer: &mut P, now: Millis, keys: &dyn Fn(u64) -> Vec<[u8; LEN]>, new| {
        let keys = keys(passes);
        passes += 1;
        let begins = Instant::now();
        let told_new = keys
            .iter()
            .filter(|key| black_box(peer.first_time(&key[..], now)))
            .count();
        let took = begins.elapsed();
        assert_eq!(told_new as u64, new);
        (took, keys)
    };

    group.bench_function(format!("new/{name}"), |bencher| {
        bencher.iter_custom(|passes| {
            let mut sum = Duration::ZERO;
            for _ in 0..passes {
                let (took, keys) = pass(peer, now, &fresh_keys, PASS);
                sum += took;
                for key in &keys {
                    peer.forget(key, now);
                }
            }
            sum
        });
    });
    group.bench_function(format!("dup/{name}"), |bencher| {
        bencher.iter_custom(|passes| (0..passes).map(|_| pass(peer, now, &held_keys, 0).0).sum());
    });
    // Nobody sweeps, so every key that is asked for is there and has lapsed.
    group.bench_function(format!("lapsed/{name}"), |bencher| {
        bencher.iter_custom(|passes| {
            let mut sum = Duration::ZERO;
            for _ in 0..passes {
                now = now.after(TTL_MS + 1);
                sum += pass(peer, now, &held_keys, PASS).0;
            }
            sum
        });
    });
}

fn store(criterion: &mut Criterion) {
    for held in [SMALL, large()] {
        let mut group = criterion.benchmark_group(format!("store/{held}"));
        group
            .sample_size(10)
            .warm_up_time(Duration::from_millis(500))
            .measurement_time(Duration::from_secs(1))
            .throughput(Throughput::Elements(PASS));
        // One after the other, so that only one large table is in memory at a time.
        operations(&mut group, "onced-16", raw, held, &mut Shard::default());
        operations(&mut group, "onced-uuid", uuid, held, &mut Shard::default());
        operations(&mut group, "dashmap-16", raw, held, &mut DashMap::new());
        let mut behind_mutex = Mutex::new(HashMap::new());
        operations(
            &mut group,
            "hashbrown-mutex-16",
            raw,
            held,
            &mut behind_mutex,
        );
        group.finish();
    }
}

/// Keys in a batch, as many as the server asks together.
const BATCH: usize = BATCH_MAX;

/// Nanoseconds per key of asking keys `first..first + count` one at a time.
fn one_at_a_time(first: u64, count: u64, peer: &mut impl Peer, new: bool) -> f64 {
    let begins = Instant::now();
    for n in first..first + count {
        assert_eq!(peer.first_time(&raw(n), START), new);
    }
    begins.elapsed().as_nanos() as f64 / count as f64
}

/// Nanoseconds per key of asking the same keys in batches.
fn in_batches(engine: &Engine, first: u64, count: u64, new: bool) -> f64 {
    let namespace = engine.open("default").expect("it is always there");
    let begins = Instant::now();
    let mut told_new = 0;
    let mut questions = Vec::with_capacity(BATCH);
    for batch in (first..first + count).step_by(BATCH) {
        let keys: [[u8; 16]; BATCH] = std::array::from_fn(|at| raw(batch + at as u64));
        questions.clear();
        questions.extend(keys.iter().map(|key| Question {
            key: engine.hashed(&namespace, key),
            ttl_ms: TTL_MS,
            mode: WindowMode::Fixed,
            verdict: Verdict::Full,
        }));
        engine.ask(&namespace, &mut questions, |at| (&keys[at], None), START);
        let is_new = |question: &&Question| question.verdict == Verdict::New;
        told_new += questions.iter().filter(is_new).count();
    }
    assert_eq!(told_new as u64, if new { count } else { 0 });
    begins.elapsed().as_nanos() as f64 / count as f64
}

/// Nanoseconds per key, over all, when each of two threads asks half of the keys.
fn by_two_threads(engine: &Engine, count: u64, new: bool) -> f64 {
    let begins = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| in_batches(engine, 0, count / 2, new));
        in_batches(engine, count / 2, count / 2, new);
    });
    begins.elapsed().as_nanos() as f64 / count as f64
}

fn engine() -> Engine {
    Engine::new(EngineConfig {
        secret: SECRET.clone(),
        ..EngineConfig::default()
    })
}

/// Nanoseconds that a line of memory takes from one core to another: two threads take turns in
/// counting it up.
fn handover() -> f64 {
    const TURNS: u64 = 2_000_000;
    let line = AtomicU64::new(0);
    let begins = Instant::now();
    std::thread::scope(|scope| {
        for first in 0..2 {
            let line = &line;
            scope.spawn(move || {
                for turn in (first..TURNS).step_by(2) {
                    while line.load(Ordering::Acquire) != turn {
                        std::hint::spin_loop();
                    }
                    line.store(turn + 1, Ordering::Release);
                }
            });
        }
    });
    assert_eq!(line.into_inner(), TURNS);
    begins.elapsed().as_nanos() as f64 / TURNS as f64
}

/// Nanoseconds of locking and unlocking what no other core has touched since.
fn own_lock() -> f64 {
    const TURNS: u64 = 20_000_000;
    let lock = Mutex::new(0_u64);
    let begins = Instant::now();
    for _ in 0..TURNS {
        *black_box(&lock).lock() += 1;
    }
    assert_eq!(lock.into_inner(), TURNS);
    begins.elapsed().as_nanos() as f64 / TURNS as f64
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Fills tables from nothing and asks everything again; printed, since each pass is timed as a whole.
fn fill(_: &mut Criterion) {
    const ROUNDS: usize = 3;
    let keys = large() / (2 * BATCH as u64) * (2 * BATCH as u64);
    let mut figures: [Vec<[f64; 2]>; 5] = Default::default();
    for _ in 0..ROUNDS {
        let mut shard = Shard::default();
        figures[0].push([true, false].map(|new| one_at_a_time(0, keys, &mut shard, new)));
        drop(shard);
        let one = engine();
        figures[1].push([true, false].map(|new| in_batches(&one, 0, keys, new)));
        drop(one);
        let two = engine();
        figures[2].push([true, false].map(|new| by_two_threads(&two, keys, new)));
        drop(two);
        let mut hashbrown = Mutex::new(HashMap::new());
        figures[3].push([true, false].map(|new| one_at_a_time(0, keys, &mut hashbrown, new)));
        drop(hashbrown);
        let mut dashmap = DashMap::new();
        figures[4].push([true, false].map(|new| one_at_a_time(0, keys, &mut dashmap, new)));
    }
    let medians = figures
        .map(|rounds| [0, 1].map(|which| median(rounds.iter().map(|pair| pair[which]).collect())));
    println!("fill/{keys}: ns per key when new and when seen again, and as a share of hashbrown's");
    let names = [
        "onced, one at a time",
        "onced, in batches",
        "onced, in batches, two threads together",
        "hashbrown behind a lock",
        "dashmap",
    ];
    for (name, [new, again]) in names.iter().zip(medians) {
        let [peer_new, peer_again] = medians[3];
        println!(
            "  {name:40} {new:7.1} ({:.2})  {again:7.1} ({:.2})",
            new / peer_new,
            again / peer_again
        );
    }
    let [one, two] = [medians[1], medians[2]];
    println!(
        "  two threads against one: {:.2} and {:.2} times as fast",
        one[0] / two[0],
        one[1] / two[1]
    );
    println!(
        "  a line of memory from one core to the other: {:.1} ns; a lock of one's own: {:.1} ns",
        median((0..ROUNDS).map(|_| handover()).collect()),
        median((0..ROUNDS).map(|_| own_lock()).collect())
    );
}

criterion_group!(benches, store, fill);
criterion_main!(benches);
