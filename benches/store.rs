//! The shard's operations beside two maps that one might use instead: `dashmap`, and `hashbrown`
//! behind one lock, each with its own default hasher. Each remembers a deadline per key; neither
//! of the two gives the memory of lapsed keys back.
//!
//! `ONCED_BENCH_KEYS` sets the larger table's size, 10 million keys by default (about 1 GiB).

#![allow(missing_docs)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use dashmap::DashMap;
use hashbrown::HashMap;
use onced::store::{Ask, Secret, Shard, Unbounded, Verdict};
use onced::time::Millis;
use parking_lot::Mutex;

const SECRET: Secret = Secret::new([0x5a; 192]);
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
fn scatter(n: u64) -> u64 {
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

criterion_group!(benches, store);
criterion_main!(benches);
