//! What expiry costs: a million keys with spread TTLs stored, then all given back, in the order
//! and the step sizes of the sweeper.

#![allow(missing_docs)]

use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use onced::store::{Ask, Secret, Shard, Unbounded, Verdict};
use onced::time::Millis;

const SECRET: Secret = Secret::new([0x5a; 192]);
const START: Millis = Millis(1_790_000_000_000);
const KEYS: u64 = 1_000_000;
/// Steps per lock, as in the engine.
const STEPS: usize = 128;

/// A shard with so many keys, the lives of which spread over `spread_ms`.
fn filled(spread_ms: u64) -> Shard {
    let mut shard = Shard::default();
    for n in 0..KEYS {
        let ask = Ask {
            ttl_ms: 1 + n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % spread_ms,
            ..Ask::default()
        };
        let verdict = shard
            .seen(&SECRET.key(&n.to_le_bytes()), &ask, &mut Unbounded, START)
            .0;
        assert_eq!(verdict, Verdict::New);
    }
    shard
}

/// Sweeps until all is gone, at `sweeps` moments.
fn drain(shard: &mut Shard, spread_ms: u64, sweeps: u64) {
    let until_ms = spread_ms + 32;
    for sweep in 1..=sweeps {
        let now = START.after(until_ms * sweep / sweeps);
        while shard.expire(now, STEPS) {}
    }
    assert_eq!((shard.len(), shard.counters().expired), (0, KEYS));
}

fn wheel(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wheel");
    group
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3))
        .throughput(Throughput::Elements(KEYS));
    for (name, spread_ms) in [("1s", 1_000), ("1h", 3_600_000), ("30d", 30 * 86_400_000)] {
        group.bench_function(format!("schedule/{name}"), |bencher| {
            bencher.iter_with_large_drop(|| filled(spread_ms));
        });
        for (how, sweeps) in [("at-once", 1), ("in-1000-sweeps", 1_000)] {
            group.bench_function(format!("expire/{name}/{how}"), |bencher| {
                bencher.iter_custom(|passes| {
                    let mut sum = Duration::ZERO;
                    for _ in 0..passes {
                        let mut shard = filled(spread_ms);
                        let begins = Instant::now();
                        drain(&mut shard, spread_ms, sweeps);
                        sum += begins.elapsed();
                    }
                    sum
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, wheel);
criterion_main!(benches);
