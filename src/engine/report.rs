//! What the engine tells about itself: `STATS`, `NS INFO`, `BF.INFO`, `HELP`.

use std::borrow::Cow;

use super::{Answer, Engine, Namespace};
use crate::command::spec::{Home, verbs};
use crate::command::{Code, Error, Reply, lookup_line};
use crate::log::writer::Health;
use crate::store::{Counters, WindowMode};
use crate::time::{DurationWord, Millis};

type Rows = Vec<(Cow<'static, str>, String)>;

/// A namespace's policy, gauges and counters.
pub(super) fn namespace(engine: &Engine, namespace: &Namespace) -> Rows {
    let policy = namespace.policy();
    let mode = if policy.mode == WindowMode::Slide {
        "SLIDE"
    } else {
        "FIXED"
    };
    let full = if policy.evict { "EVICT" } else { "REJECT" };
    let key_form = if namespace.keeps_digests() {
        "DIGEST"
    } else {
        "EXACT"
    };
    let unsure = if policy.reports_unsure {
        "REPORT"
    } else {
        "NEW"
    };
    let mut rows: Rows = vec![
        ("name".into(), namespace.name().to_owned()),
        ("ttl".into(), DurationWord(policy.ttl_ms).to_string()),
        ("maxttl".into(), DurationWord(policy.ttl_max_ms).to_string()),
        ("mode".into(), mode.to_owned()),
        ("maxkeys".into(), policy.keys_max.to_string()),
        ("full".into(), full.to_owned()),
        ("key_form".into(), key_form.to_owned()),
        ("unsure_policy".into(), unsure.to_owned()),
        (
            "covered_since_ms".into(),
            engine
                .by_wall_clock(namespace.covered_since())
                .0
                .to_string(),
        ),
        (
            "unsure_until_ms".into(),
            engine.by_wall_clock(namespace.unsure_until()).0.to_string(),
        ),
        ("keys".into(), namespace.keys().to_string()),
        ("bytes".into(), namespace.bytes().to_string()),
    ];
    rows.extend(counters(&namespace.counters()));
    rows
}

/// The whole server.
pub(super) fn server(engine: &Engine, totals: &Totals, now: Millis) -> Rows {
    let mut rows: Rows = vec![
        ("version".into(), env!("CARGO_PKG_VERSION").to_owned()),
        ("time_ms".into(), engine.by_wall_clock(now).0.to_string()),
        (
            "clock_ahead_ms".into(),
            engine.wall_ahead_ms().saturating_neg().to_string(),
        ),
        ("namespaces".into(), totals.namespaces.to_string()),
        ("keys".into(), totals.keys.to_string()),
        ("memory_bytes".into(), engine.budget().used().to_string()),
        ("memory_bytes_max".into(), engine.budget().max().to_string()),
        (
            "memory_overhead_bytes".into(),
            engine.budget().overhead().to_string(),
        ),
        (
            "memory".into(),
            if engine.budget().is_full() {
                "full"
            } else {
                "ok"
            }
            .to_owned(),
        ),
        ("waiters".into(), engine.waiting().to_string()),
        (
            "waiters_refused".into(),
            engine.waiters_refused().to_string(),
        ),
    ];
    rows.extend(counters(&totals.counters));
    rows.extend(engine.metrics().rows());
    rows.extend(log(engine));
    rows
}

/// The log, and whether the server is ready for all that may be asked of it.
fn log(engine: &Engine) -> Rows {
    let Some(log) = engine.log() else {
        return vec![
            ("ready".into(), "yes".to_owned()),
            ("log".into(), "off".to_owned()),
        ];
    };
    let (ready, state) = match log.health() {
        Health::Good => ("yes", "ok"),
        Health::Full => ("yes", "full"),
        Health::Failed => ("no", "failed"),
    };
    let mut rows: Rows = vec![
        ("ready".into(), ready.to_owned()),
        ("log".into(), state.to_owned()),
        ("log_bytes".into(), log.bytes().to_string()),
        ("log_segments".into(), log.segments().to_string()),
        (
            "log_unsynced_bytes".into(),
            (log.appended() - log.synced()).to_string(),
        ),
    ];
    if state == "failed" {
        rows.push(("log_failure".into(), log.failure()));
    }
    rows
}

/// What all namespaces hold together.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// Namespaces.
    pub namespaces: usize,
    /// Keys in memory.
    pub keys: u64,
    /// What became of keys, of those in namespaces that are still there.
    pub counters: Counters,
}

impl Totals {
    /// Adds a namespace.
    pub(super) fn add(&mut self, namespace: &Namespace) {
        self.namespaces += 1;
        self.keys += namespace.keys();
        self.counters.add(&namespace.counters());
    }
}

impl Engine {
    /// Sums over all namespaces. Takes each shard's lock for a moment.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for namespace in &self.namespaces {
            totals.add(&namespace);
        }
        totals
    }

    /// Names of namespaces that have as many keys as they may have, so many at most.
    pub fn full_namespaces(&self, max: usize) -> Vec<String> {
        let is_full = |namespace: &Namespace| {
            let keys_max = namespace.policy().keys_max;
            keys_max > 0 && namespace.keys() >= keys_max
        };
        let full = self.namespaces.iter().filter(|found| is_full(found));
        full.take(max)
            .map(|found| found.name().to_owned())
            .collect()
    }

    /// Names and key counts of all namespaces, by name.
    pub fn keyspace(&self) -> Vec<(String, u64)> {
        let mut spaces: Vec<_> = self
            .namespaces
            .iter()
            .map(|found| (found.name().to_owned(), found.keys()))
            .collect();
        spaces.sort_unstable();
        spaces
    }
}

fn counters(counters: &Counters) -> Rows {
    let asked = counters.new + counters.dup + counters.mismatch;
    let hit_rate = if asked == 0 {
        0.0
    } else {
        counters.dup as f64 / asked as f64
    };
    vec![
        ("new".into(), counters.new.to_string()),
        ("dup".into(), counters.dup.to_string()),
        ("mismatch".into(), counters.mismatch.to_string()),
        ("unsure".into(), counters.unsure.to_string()),
        ("refused".into(), counters.full.to_string()),
        ("refused_memory".into(), counters.full_memory.to_string()),
        ("refused_keys".into(), counters.full_keys.to_string()),
        ("refused_disk".into(), counters.full_disk.to_string()),
        ("expired".into(), counters.expired.to_string()),
        ("evicted".into(), counters.evicted.to_string()),
        ("hit_rate".into(), format!("{hit_rate:.4}")),
        ("records_begun".into(), counters.begun.to_string()),
        ("records_busy".into(), counters.busy.to_string()),
        ("records_replayed".into(), counters.replayed.to_string()),
        ("records_completed".into(), counters.completed.to_string()),
        ("records_failed".into(), counters.failed.to_string()),
        ("records_released".into(), counters.released.to_string()),
        ("records_stale".into(), counters.stale.to_string()),
    ]
}

/// A namespace as RedisBloom's clients expect a filter to be described.
pub(super) fn filter<'s>(namespace: &Namespace, field: Option<&[u8]>) -> Answer<'s> {
    let keys = namespace.keys() as i64;
    let capacity = match namespace.policy().keys_max {
        0 => keys,
        max => i64::try_from(max).unwrap_or(i64::MAX),
    };
    let facts = [
        ("CAPACITY", "Capacity", capacity),
        ("SIZE", "Size", namespace.bytes() as i64),
        ("FILTERS", "Number of filters", 1),
        ("ITEMS", "Number of items inserted", keys),
        ("EXPANSION", "Expansion rate", 1),
    ];
    let Some(field) = field else {
        let pairs = facts.map(|(_, name, number)| (Reply::Word(name), Reply::Number(number)));
        return Ok(Reply::Map(pairs.into()));
    };
    let known = facts
        .iter()
        .find(|(short, ..)| field.eq_ignore_ascii_case(short.as_bytes()));
    let (.., number) = known.ok_or_else(|| Error::redis("ERR Invalid information value"))?;
    Ok(Reply::Array(vec![Reply::Number(*number)]))
}

/// A row per verb, or all about one.
pub(super) fn help<'s>(asked: Option<&[u8]>) -> Answer<'s> {
    let Some(asked) = asked else {
        let native = verbs()
            .map(super::super::command::spec::Verb::spec)
            .filter(|spec| spec.home == Home::Native);
        return Ok(Reply::Rows(
            native
                .map(|spec| {
                    let told = format!("{} - {}", spec.usage, spec.summary);
                    (spec.name.into(), told.trim_start().to_owned())
                })
                .collect(),
        ));
    };
    let spec = lookup_line(asked)
        .ok_or_else(|| Error::new(Code::Unknown, "no such verb; HELP lists them"))?
        .spec();
    let mut rows: Rows = vec![
        ("usage".into(), spec.usage_line()),
        ("summary".into(), spec.summary.to_owned()),
        ("replies".into(), spec.replies.to_owned()),
    ];
    if !spec.example.0.is_empty() {
        rows.push((
            "example".into(),
            format!("{} -> {}", spec.example.0, spec.example.1),
        ));
    }
    Ok(Reply::Rows(rows))
}
