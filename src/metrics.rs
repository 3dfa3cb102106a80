//! What the server counts about itself: connections, bytes, and every verb's calls and latency.
//!
//! Each worker counts in its own cache-padded place, locked once per batch of requests, so
//! counting costs the hot path no shared cache line; places are merged when somebody asks.
//! Counts about keys are kept by the shards themselves.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::utils::CachePadded;
use hdrhistogram::Histogram;
use parking_lot::Mutex;

use crate::command::spec::{Verb, verbs};

/// The longest latency that is told apart, in nanoseconds: one minute.
const LATENCY_NS_MAX: u64 = 60_000_000_000;
/// Significant digits of a latency.
const LATENCY_DIGITS: u8 = 2;
/// The percentiles that are reported, those that Redis's INFO has too.
const PERCENTILES: [(&str, f64); 3] = [("p50", 50.0), ("p99", 99.0), ("p999", 99.9)];
/// One more for `STATS`: a stall that is over in milliseconds hides behind the 99.9th.
const PERCENTILE_TAIL: (&str, f64) = ("p9999", 99.99);

/// A counter that many threads add to.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds to it.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Takes away from it, for gauges.
    pub fn sub(&self, n: u64) {
        self.0.fetch_sub(n, Ordering::Relaxed);
    }

    /// Its value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counters of one server.
#[derive(Debug)]
pub struct Metrics {
    /// Connections that are open.
    pub connections: Count,
    /// Connections that were accepted since the start.
    pub connections_total: Count,
    /// Connections that were refused because there were too many.
    pub connections_refused: Count,
    /// Connections that were closed because their client did not read or finish in time.
    pub connections_timed_out: Count,
    /// Bytes received.
    pub bytes_in: Count,
    /// Bytes sent.
    pub bytes_out: Count,
    /// Requests refused before they had a verb.
    pub malformed: Count,
    workers: Box<[CachePadded<Mutex<WorkerVerbs>>]>,
}

/// One worker's calls, a place per verb.
#[derive(Debug)]
struct WorkerVerbs(Box<[VerbMetrics]>);

#[derive(Clone, Debug, Default)]
struct VerbMetrics {
    calls: u64,
    errors: u64,
    /// Those of the errors that were refused before they were executed.
    rejected: u64,
    /// What they took together.
    latency_sum_ns: u64,
    /// Made at the first call: most verbs are never used.
    latency_ns: Option<Histogram<u64>>,
}

impl VerbMetrics {
    fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.errors += other.errors;
        self.rejected += other.rejected;
        self.latency_sum_ns += other.latency_sum_ns;
        if let Some(latency) = &other.latency_ns {
            self.latency_ns()
                .add(latency)
                .expect("all histograms have the same bounds");
        }
    }

    fn latency_ns(&mut self) -> &mut Histogram<u64> {
        self.latency_ns.get_or_insert_with(|| {
            Histogram::new_with_bounds(1, LATENCY_NS_MAX, LATENCY_DIGITS)
                .expect("the bounds are constants that fit")
        })
    }
}

impl Metrics {
    /// Counters for so many workers.
    pub fn new(workers: usize) -> Self {
        let verbs = || WorkerVerbs(vec![VerbMetrics::default(); verbs().len()].into());
        Self {
            connections: Count::default(),
            connections_total: Count::default(),
            connections_refused: Count::default(),
            connections_timed_out: Count::default(),
            bytes_in: Count::default(),
            bytes_out: Count::default(),
            malformed: Count::default(),
            workers: (0..workers.max(1))
                .map(|_| CachePadded::new(Mutex::new(verbs())))
                .collect(),
        }
    }

    /// Adds a batch's calls, each of which took `latency_ns` from the read that brought it to the
    /// end of the batch's execution, which is when its reply is on its way.
    pub fn record(&self, worker: usize, tally: &mut Tally, latency_ns: u64) {
        if tally.touched.is_empty() {
            return;
        }
        let mut verbs = self.workers[worker % self.workers.len()].lock();
        for verb in tally.touched.drain(..) {
            let counted = std::mem::take(&mut tally.verbs[verb.index()]);
            let metrics = &mut verbs.0[verb.index()];
            metrics.calls += u64::from(counted.calls);
            metrics.errors += u64::from(counted.errors);
            metrics.rejected += u64::from(counted.rejected);
            metrics.latency_sum_ns += latency_ns * u64::from(counted.calls);
            metrics
                .latency_ns()
                .saturating_record_n(latency_ns, u64::from(counted.calls));
        }
    }

    /// How many calls there were, of all verbs.
    pub fn calls(&self) -> u64 {
        let workers = self.workers.iter();
        workers
            .map(|worker| worker.lock().0.iter().map(|verb| verb.calls).sum::<u64>())
            .sum()
    }

    /// Every verb that was called: its calls, its errors, its percentiles in nanoseconds.
    ///
    /// # Panics
    ///
    /// Never: all histograms have the same bounds.
    pub fn verbs(&self) -> Vec<VerbReport> {
        let mut merged = vec![VerbMetrics::default(); verbs().len()];
        for worker in &self.workers {
            for (sum, one) in merged.iter_mut().zip(&worker.lock().0) {
                sum.add(one);
            }
        }
        let mut reports: BTreeMap<&str, VerbMetrics> = BTreeMap::new();
        for (verb, metrics) in verbs().zip(merged).filter(|(_, metrics)| metrics.calls > 0) {
            // A few names mean one thing on a line and another in RESP: they are counted together.
            reports.entry(verb.spec().name).or_default().add(&metrics);
        }
        reports
            .iter()
            .filter_map(|(name, metrics)| VerbReport::of(name, metrics))
            .collect()
    }

    /// All of it as rows of name and value.
    pub fn rows(&self) -> Vec<(Cow<'static, str>, String)> {
        let mut rows: Vec<(Cow<'static, str>, String)> = [
            ("connections", &self.connections),
            ("connections_total", &self.connections_total),
            ("connections_refused", &self.connections_refused),
            ("connections_timed_out", &self.connections_timed_out),
            ("bytes_in", &self.bytes_in),
            ("bytes_out", &self.bytes_out),
            ("malformed", &self.malformed),
        ]
        .map(|(name, count)| (name.into(), count.get().to_string()))
        .into();
        for verb in self.verbs() {
            let name = verb.name.to_ascii_lowercase();
            rows.push((format!("verb_{name}_calls").into(), verb.calls.to_string()));
            rows.push((
                format!("verb_{name}_errors").into(),
                verb.errors.to_string(),
            ));
            for (percentile, ns) in verb.percentiles_ns.into_iter().chain([verb.tail_ns]) {
                rows.push((
                    format!("verb_{name}_{percentile}_us").into(),
                    microseconds(ns),
                ));
            }
        }
        rows
    }
}

/// What was counted of one verb.
#[derive(Clone, Debug)]
pub struct VerbReport {
    /// Its name, in capitals.
    pub name: &'static str,
    /// How often it was called.
    pub calls: u64,
    /// How often it was refused.
    pub errors: u64,
    /// How often of these before it was executed.
    pub rejected: u64,
    /// What all calls took together, in nanoseconds, each from the read that brought it to the end of its batch.
    pub latency_sum_ns: u64,
    /// Latencies: the percentile's name and nanoseconds.
    pub percentiles_ns: [(&'static str, u64); 3],
    /// The last percentile of `STATS`, which `INFO` goes without as Redis's does.
    pub tail_ns: (&'static str, u64),
}

impl VerbReport {
    fn of(name: &'static str, metrics: &VerbMetrics) -> Option<Self> {
        let latency = metrics.latency_ns.as_ref()?;
        let at = |(name, percentile)| (name, latency.value_at_percentile(percentile));
        Some(Self {
            name,
            calls: metrics.calls,
            errors: metrics.errors,
            rejected: metrics.rejected,
            latency_sum_ns: metrics.latency_sum_ns,
            percentiles_ns: PERCENTILES.map(at),
            tail_ns: at(PERCENTILE_TAIL),
        })
    }
}

/// Nanoseconds as microseconds with one decimal.
pub fn microseconds(ns: u64) -> String {
    format!("{:.1}", ns as f64 / 1_000.0)
}

/// The calls of one batch, before they are added to the worker's.
#[derive(Debug)]
pub struct Tally {
    verbs: Box<[Counted]>,
    touched: Vec<Verb>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    calls: u32,
    errors: u32,
    rejected: u32,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            verbs: vec![Counted::default(); verbs().len()].into(),
            touched: Vec::new(),
        }
    }
}

impl Tally {
    /// Counts one call.
    pub fn count(&mut self, verb: Verb, is_error: bool) {
        let counted = &mut self.verbs[verb.index()];
        if counted.calls == 0 {
            self.touched.push(verb);
        }
        counted.calls += 1;
        counted.errors += u32::from(is_error);
    }

    /// Counts one call that was refused before it was executed.
    pub fn count_rejected(&mut self, verb: Verb) {
        self.count(verb, true);
        self.verbs[verb.index()].rejected += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::lookup_line;

    #[test]
    fn one_slow_request_in_five_thousand_shows_in_the_last_percentile_only() {
        let metrics = Metrics::new(1);
        let seen = lookup_line(b"SEEN").unwrap();
        for n in 0..5_000 {
            let mut tally = Tally::default();
            tally.count(seen, false);
            metrics.record(0, &mut tally, if n == 0 { 30_000_000 } else { 1_000 });
        }
        let verbs = metrics.verbs();
        let [.., (_, p999)] = verbs[0].percentiles_ns;
        let (name, p9999) = verbs[0].tail_ns;
        assert!(p999 < 1_100, "{p999}");
        assert!(name == "p9999" && p9999 >= 29_000_000, "{p9999}");
        let rows = metrics.rows();
        assert_eq!(rows.last().unwrap().0, "verb_seen_p9999_us");
    }

    #[test]
    fn batches_of_all_workers_are_merged() {
        let metrics = Metrics::new(2);
        let (seen, ping) = (lookup_line(b"SEEN").unwrap(), lookup_line(b"PING").unwrap());
        for worker in 0..2 {
            let mut tally = Tally::default();
            for n in 0..50 {
                tally.count(seen, n == 0);
            }
            tally.count(ping, false);
            metrics.record(worker, &mut tally, 1_000 * (worker as u64 + 1));
            metrics.record(worker, &mut tally, 9_000_000);
        }
        let verbs = metrics.verbs();
        let report = verbs.iter().find(|verb| verb.name == "SEEN").unwrap();
        assert_eq!((report.calls, report.errors), (100, 2));
        let [p50, p99, _] = report.percentiles_ns.map(|(_, ns)| ns);
        assert!(
            (1_000..1_100).contains(&p50) && (1_980..2_050).contains(&p99),
            "{p50} {p99}"
        );
        assert_eq!(verbs.len(), 2);
        assert!(
            metrics
                .rows()
                .iter()
                .any(|(name, value)| name == "verb_ping_calls" && value == "2")
        );
    }
}
