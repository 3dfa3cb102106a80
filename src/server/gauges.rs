//! What `INFO` tells that nobody counts as it happens: a peak, a rate, how far the log is read.
//!
//! They are looked at once in a while by the sweeper's thread, so that a request pays nothing for them.

use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::engine::{Engine, Progress};
use crate::time::Millis;

/// The span over which a rate is told.
const RATE_OVER_MS: u64 = 1_000;

/// Where the system tells what this process holds, if it does.
#[derive(Debug)]
pub(super) struct Resident(Option<File>);

impl Resident {
    pub(super) fn open() -> Self {
        Self(File::open("/proc/self/statm").ok())
    }

    /// Resident memory of this process.
    pub(super) fn bytes(&self) -> Option<usize> {
        let mut text = [0; 128];
        let len = self.0.as_ref()?.read_at(&mut text, 0).ok()?;
        let mut words = text[..len].split(|byte| *byte == b' ');
        let pages = std::str::from_utf8(words.nth(1)?).ok()?;
        Some(pages.parse::<usize>().ok()? * rustix::param::page_size())
    }
}

/// Of one server.
#[derive(Debug)]
pub(super) struct Gauges {
    /// What tells this run of the server from others: 40 hex digits.
    pub(super) run_id: String,
    pub(super) resident: Resident,
    used_bytes_peak: AtomicUsize,
    calls_per_s: AtomicU64,
    /// When the calls were counted last, and how many there were.
    counted: Mutex<(Millis, u64)>,
    reading: Mutex<Option<Reading>>,
}

/// How far the log is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    pub(super) began: Millis,
    pub(super) bytes: u64,
    pub(super) bytes_total: u64,
}

impl Reading {
    /// The share that is read, in percent.
    pub(super) fn percent(&self) -> f64 {
        self.bytes as f64 * 100.0 / self.bytes_total.max(1) as f64
    }

    /// Seconds that it will still take, if it goes on like this. 1 while nothing is known, as in Redis: clients
    /// wait so long before they ask again.
    pub(super) fn eta_s(&self, now: Millis) -> u64 {
        if self.bytes == 0 {
            return 1;
        }
        let left = self.bytes_total.saturating_sub(self.bytes);
        let took_ms = u128::from(now.since(self.began));
        let left_ms = took_ms * u128::from(left) / u128::from(self.bytes);
        u64::try_from(left_ms.div_ceil(1_000)).unwrap_or(u64::MAX)
    }
}

impl Gauges {
    pub(super) fn new(now: Millis) -> Self {
        // Each hasher has random keys of its own.
        let part = |n: u32| RandomState::new().hash_one(n);
        Self {
            run_id: format!("{:016x}{:016x}{:08x}", part(0), part(1), part(2) as u32),
            resident: Resident::open(),
            used_bytes_peak: AtomicUsize::new(0),
            calls_per_s: AtomicU64::new(0),
            counted: Mutex::new((now, 0)),
            reading: Mutex::new(None),
        }
    }

    /// Looks at what there is to be seen now.
    pub(super) fn look(&self, engine: &Engine, now: Millis) {
        self.used_bytes_peak(engine);
        let mut counted = self.counted.lock();
        let (last, calls_before) = *counted;
        let passed_ms = now.since(last);
        if passed_ms >= RATE_OVER_MS {
            let calls = engine.metrics().calls();
            let rate = (calls - calls_before.min(calls)) * 1_000 / passed_ms;
            self.calls_per_s.store(rate, Ordering::Relaxed);
            *counted = (now, calls);
        }
    }

    /// The most bytes that were seen to be in use.
    pub(super) fn used_bytes_peak(&self, engine: &Engine) -> usize {
        let used = engine.budget().used();
        self.used_bytes_peak
            .fetch_max(used, Ordering::Relaxed)
            .max(used)
    }

    /// Calls a second, over the last second that was looked at.
    pub(super) fn calls_per_s(&self) -> u64 {
        self.calls_per_s.load(Ordering::Relaxed)
    }

    /// Takes note of how far the log is read.
    pub(super) fn has_read(&self, progress: &Progress, now: Millis) {
        let mut reading = self.reading.lock();
        let began = reading.map_or(now, |before| before.began);
        *reading = Some(Reading {
            began,
            bytes: progress.bytes,
            bytes_total: progress.bytes_total,
        });
    }

    /// How far the log is read; not at all before that has begun.
    pub(super) fn reading(&self, now: Millis) -> Reading {
        let nothing = Reading {
            began: now,
            bytes: 0,
            bytes_total: 0,
        };
        self.reading.lock().unwrap_or(nothing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_a_log_takes_as_long_as_its_share() {
        let reading = |bytes| Reading {
            began: Millis(10_000),
            bytes,
            bytes_total: 400,
        };
        assert_eq!(reading(0).eta_s(Millis(12_000)), 1);
        assert_eq!(reading(100).eta_s(Millis(12_000)), 6);
        assert_eq!(reading(400).eta_s(Millis(12_000)), 0);
        assert!((reading(100).percent() - 25.0).abs() < 1e-9);
        let empty = Reading {
            bytes_total: 0,
            ..reading(0)
        };
        assert!(empty.percent() < 1e-9);
    }

    #[test]
    fn two_runs_have_two_names() {
        let [a, b] = [0, 0].map(|_| Gauges::new(Millis(0)).run_id);
        assert!(a != b && a.len() == 40 && a.bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
}
