//! What Redis's clients and monitors ask about a server: `INFO`, `HELLO`.

use std::fmt::Write;

use super::gauges::Reading;
use super::settings;
use super::shared::Shared;
use crate::command::{Plain, Reply, Words};
use crate::metrics::{VerbReport, microseconds};
use crate::store::Counters;
use crate::time::Millis;

/// The Redis version whose commands are followed; clients choose features by it.
const REDIS_VERSION: &str = "7.4.0";

/// The answer of `HELLO`.
pub(super) fn hello<'a>(version: u8, id: u64) -> Reply<'a> {
    Reply::Map(vec![
        (Reply::text("server"), Reply::text("onced")),
        (
            Reply::text("version"),
            Reply::text(env!("CARGO_PKG_VERSION")),
        ),
        (Reply::text("proto"), Reply::Number(i64::from(version))),
        (Reply::text("id"), Reply::Number(id as i64)),
        (Reply::text("mode"), Reply::text("standalone")),
        (Reply::text("role"), Reply::text("master")),
        (Reply::text("modules"), Reply::Array(Vec::new())),
    ])
}

const LATENCY_DOCTOR: &str =
    "There are no latency events here: INFO latencystats tells what each command takes.\n";
const MEMORY_DOCTOR: &str =
    "INFO memory and STATS tell what is used, and by what; what is free is given back.\n";

/// What is the same for all who ask.
pub(super) fn plain<'a>(plain: Plain) -> Reply<'a> {
    match plain {
        Plain::Ok => Reply::OK,
        Plain::Zero => Reply::Number(0),
        Plain::Nothing => Reply::Array(Vec::new()),
        Plain::NoPairs => Reply::Map(Vec::new()),
        Plain::Role => Reply::Array(vec![
            Reply::text("master"),
            Reply::Number(0),
            Reply::Array(Vec::new()),
        ]),
        Plain::LatencyDoctor => Reply::Lines(LATENCY_DOCTOR.to_owned()),
        Plain::MemoryDoctor => Reply::Lines(MEMORY_DOCTOR.to_owned()),
    }
}

/// Writes one section's fields.
type Section = fn(&Shared, &Moment) -> String;

/// The sections of `INFO`, in order.
const SECTIONS: [(&str, Section); 10] = [
    ("Server", server),
    ("Clients", clients),
    ("Memory", memory),
    ("Persistence", persistence),
    ("Stats", stats),
    ("Replication", replication),
    ("Commandstats", command_stats),
    ("Latencystats", latency_stats),
    ("Cluster", cluster),
    ("Keyspace", keyspace),
];

/// What the sections tell, beside what the server knows at any time.
#[derive(Debug)]
pub(super) struct Moment {
    pub(super) now: Millis,
    /// What became of keys, in all namespaces, if [`needs_counters`] said so.
    pub(super) counters: Counters,
}

/// Whether an `INFO` is to tell what became of keys.
pub(super) fn needs_counters(asked: Words<'_>) -> bool {
    is_asked(asked, "Stats")
}

fn is_asked(asked: Words<'_>, section: &str) -> bool {
    const ALL: [&str; 3] = ["all", "everything", "default"];
    let is_it = |word: &[u8]| {
        let names = ALL.iter().chain([&section]);
        names
            .into_iter()
            .any(|name| word.eq_ignore_ascii_case(name.as_bytes()))
    };
    asked.is_empty() || asked.iter().any(is_it)
}

/// `INFO`: the sections asked for, or all.
pub(super) fn info<'a>(shared: &Shared, asked: Words<'_>, moment: &Moment) -> Reply<'a> {
    let mut text = String::new();
    for (name, section) in SECTIONS.iter().filter(|(name, _)| is_asked(asked, name)) {
        if !text.is_empty() {
            text.push_str("\r\n");
        }
        let _infallible = write!(text, "# {name}\r\n{}", section(shared, moment));
    }
    Reply::Lines(text)
}

fn fields<const N: usize>(fields: &[(&str, String); N]) -> String {
    fields
        .iter()
        .fold(String::new(), |mut text, (name, value)| {
            let _infallible = write!(text, "{name}:{value}\r\n");
            text
        })
}

fn server(shared: &Shared, moment: &Moment) -> String {
    let uptime_s = shared.clock.uptime_s();
    let (os, architecture) = (std::env::consts::OS, std::env::consts::ARCH);
    fields(&[
        ("redis_version", REDIS_VERSION.to_owned()),
        ("redis_mode", "standalone".to_owned()),
        ("onced_version", env!("CARGO_PKG_VERSION").to_owned()),
        ("os", format!("{os} {architecture}")),
        ("arch_bits", usize::BITS.to_string()),
        ("process_id", std::process::id().to_string()),
        ("run_id", shared.gauges.run_id.clone()),
        ("tcp_port", shared.tcp_port.to_string()),
        (
            "server_time_usec",
            (shared.engine.by_wall_clock(moment.now).0 * 1_000).to_string(),
        ),
        ("uptime_in_seconds", uptime_s.to_string()),
        ("uptime_in_days", (uptime_s / 86_400).to_string()),
    ])
}

fn clients(shared: &Shared, _: &Moment) -> String {
    fields(&[
        (
            "connected_clients",
            shared.engine.metrics().connections.get().to_string(),
        ),
        ("maxclients", shared.connections_max().to_string()),
        ("blocked_clients", shared.engine.waiting().to_string()),
    ])
}

fn memory(shared: &Shared, _: &Moment) -> String {
    let budget = shared.engine.budget();
    let (used, max) = (budget.used(), budget.max());
    let peak = shared.gauges.used_bytes_peak(&shared.engine);
    // Where the system tells nothing, what is counted is what is known.
    let resident = shared.gauges.resident.bytes().unwrap_or(used);
    let ratio = resident as f64 / used.max(1) as f64;
    fields(&[
        ("used_memory", used.to_string()),
        ("used_memory_human", human(used)),
        ("used_memory_rss", resident.to_string()),
        ("used_memory_rss_human", human(resident)),
        ("used_memory_peak", peak.to_string()),
        ("used_memory_peak_human", human(peak)),
        ("maxmemory", max.to_string()),
        ("maxmemory_human", human(max)),
        (
            "maxmemory_policy",
            settings::memory_policy(shared).to_owned(),
        ),
        ("mem_fragmentation_ratio", format!("{ratio:.2}")),
    ])
}

/// Bytes as Redis writes them for people.
fn human(bytes: usize) -> String {
    const UNITS: [&str; 5] = ["B", "K", "M", "G", "T"];
    let (mut left, mut unit) = (bytes as f64, 0);
    while left >= 1_024.0 && unit + 1 < UNITS.len() {
        (left, unit) = (left / 1_024.0, unit + 1);
    }
    match unit {
        0 => format!("{bytes}B"),
        _ => format!("{left:.2}{}", UNITS[unit]),
    }
}

fn persistence(shared: &Shared, moment: &Moment) -> String {
    let log = shared.engine.log();
    let status = if shared.has_log_failed() { "err" } else { "ok" };
    let text = fields(&[
        ("loading", u8::from(shared.is_loading()).to_string()),
        (
            "aof_enabled",
            u8::from(shared.is_loading() || log.is_some()).to_string(),
        ),
        ("aof_last_write_status", status.to_owned()),
        (
            "aof_current_size",
            log.map_or(0, |log| log.bytes()).to_string(),
        ),
    ]);
    if !shared.is_loading() {
        return text;
    }
    let reading = shared.gauges.reading(moment.now);
    let began = shared.engine.by_wall_clock(reading.began);
    text + &loading(&reading, began, moment.now)
}

/// How far the log is read.
fn loading(reading: &Reading, began: Millis, now: Millis) -> String {
    fields(&[
        ("loading_start_time", (began.0 / 1_000).to_string()),
        ("loading_total_bytes", reading.bytes_total.to_string()),
        ("loading_loaded_bytes", reading.bytes.to_string()),
        ("loading_loaded_perc", format!("{:.2}", reading.percent())),
        ("loading_eta_seconds", reading.eta_s(now).to_string()),
    ])
}

fn stats(shared: &Shared, moment: &Moment) -> String {
    let metrics = shared.engine.metrics();
    let counters = &moment.counters;
    fields(&[
        (
            "total_connections_received",
            metrics.connections_total.get().to_string(),
        ),
        (
            "rejected_connections",
            metrics.connections_refused.get().to_string(),
        ),
        ("total_commands_processed", metrics.calls().to_string()),
        (
            "instantaneous_ops_per_sec",
            shared.gauges.calls_per_s().to_string(),
        ),
        ("total_net_input_bytes", metrics.bytes_in.get().to_string()),
        (
            "total_net_output_bytes",
            metrics.bytes_out.get().to_string(),
        ),
        ("expired_keys", counters.expired.to_string()),
        ("evicted_keys", counters.evicted.to_string()),
        ("keyspace_hits", counters.dup.to_string()),
        ("keyspace_misses", counters.new.to_string()),
        ("onced_new", counters.new.to_string()),
        ("onced_dup", counters.dup.to_string()),
        ("onced_mismatch", counters.mismatch.to_string()),
        ("onced_unsure", counters.unsure.to_string()),
        ("onced_full", counters.full.to_string()),
    ])
}

fn replication(_: &Shared, _: &Moment) -> String {
    fields(&[
        ("role", "master".to_owned()),
        ("connected_slaves", "0".to_owned()),
    ])
}

fn cluster(_: &Shared, _: &Moment) -> String {
    fields(&[("cluster_enabled", "0".to_owned())])
}

/// Calls as Redis counts them: without those that were refused before they were executed. What they took is
/// from the read that brought them to the end of their batch.
fn command_stats(shared: &Shared, _: &Moment) -> String {
    line_per_verb(shared, |name, verb| {
        let (calls, rejected) = (verb.calls - verb.rejected, verb.rejected);
        let failed = verb.errors - rejected;
        let usec = verb.latency_sum_ns / 1_000;
        let per_call = verb.latency_sum_ns as f64 / 1_000.0 / verb.calls.max(1) as f64;
        format!(
            "cmdstat_{name}:calls={calls},usec={usec},usec_per_call={per_call:.2},\
             rejected_calls={rejected},failed_calls={failed}\r\n"
        )
    })
}

fn latency_stats(shared: &Shared, _: &Moment) -> String {
    line_per_verb(shared, |name, verb| {
        let [p50, p99, p999] = verb.percentiles_ns.map(|(_, ns)| microseconds(ns));
        format!("latency_percentiles_usec_{name}:p50={p50},p99={p99},p99.9={p999}\r\n")
    })
}

/// A line for each verb that was called; `line` is given its name in small letters.
fn line_per_verb(shared: &Shared, line: impl Fn(&str, &VerbReport) -> String) -> String {
    let verbs = shared.engine.metrics().verbs();
    let lines = verbs
        .iter()
        .map(|verb| line(&verb.name.to_ascii_lowercase(), verb));
    lines.collect()
}

fn keyspace(shared: &Shared, _: &Moment) -> String {
    // While the log is read, nobody can tell how many there are.
    if shared.is_loading() {
        return String::new();
    }
    let spaces = shared.engine.keyspace();
    spaces
        .iter()
        .filter(|(_, keys)| *keys > 0)
        .fold(String::new(), |mut text, (name, keys)| {
            let db = match name.as_str() {
                crate::engine::DEFAULT_NAMESPACE => "db0",
                other => other,
            };
            let _infallible = write!(text, "{db}:keys={keys},expires={keys},avg_ttl=0\r\n");
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_written_as_redis_writes_them() {
        for (bytes, text) in [
            (0, "0B"),
            (1_023, "1023B"),
            (1_024, "1.00K"),
            (950_776, "928.49K"),
            (25_276_502_016, "23.54G"),
            (5 << 50, "5120.00T"),
        ] {
            assert_eq!(human(bytes), text);
        }
    }
}
