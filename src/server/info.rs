//! What Redis's clients ask about a server: `INFO`, `HELLO`, `COMMAND`, `CONFIG GET`.

use std::fmt::Write;

use super::shared::Shared;
use crate::command::containers::Container;
use crate::command::spec::{Effect, Home, RESP_PREFIX, Spec, lookup_resp, verbs};
use crate::command::{CommandsQuery, Reply, Words};
use crate::engine::glob::Glob;
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

/// `CONFIG GET`: settings under their own names, and those that Redis's tools ask for.
pub(super) fn config<'a>(shared: &Shared, patterns: Words<'_>) -> Reply<'a> {
    let redis = [
        ("maxmemory", shared.engine.budget().max().to_string()),
        ("maxclients", shared.connections_max().to_string()),
        ("port", shared.tcp_port.to_string()),
        ("databases", (crate::limits::SELECT_MAX + 1).to_string()),
        ("timeout", "0".to_owned()),
        ("save", String::new()),
        (
            "appendonly",
            if shared.engine.log().is_some() {
                "yes"
            } else {
                "no"
            }
            .to_owned(),
        ),
    ];
    let redis = redis
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value));
    let patterns: Vec<_> = patterns
        .iter()
        .map(|pattern| Glob::new(&pattern.to_ascii_lowercase()))
        .collect();
    let is_asked = |name: &str| patterns.iter().any(|p| p.matches(name.as_bytes()));
    let asked = redis
        .chain(shared.settings.iter().cloned())
        .filter(|(name, _)| is_asked(name));
    Reply::Map(
        asked
            .map(|(name, value)| (Reply::text(name), Reply::text(value)))
            .collect(),
    )
}

/// `COMMAND` and its subcommands, from the command table.
pub(super) fn commands<'a>(query: &CommandsQuery<'_>) -> Reply<'a> {
    let all = || verbs().map(super::super::command::spec::Verb::spec);
    match query {
        CommandsQuery::Count => Reply::Number(verbs().len() as i64),
        CommandsQuery::List => {
            Reply::Array(all().map(|spec| Reply::text(resp_name(spec))).collect())
        }
        CommandsQuery::Info(names) if names.is_empty() => {
            Reply::Array(all().map(command_info).collect())
        }
        CommandsQuery::Info(names) => {
            let info =
                |name| lookup_resp(name).map_or(Reply::Nil, |verb| command_info(verb.spec()));
            Reply::Array(names.iter().map(info).collect())
        }
        CommandsQuery::Docs(names) if names.is_empty() => {
            Reply::Map(all().map(command_docs).collect())
        }
        CommandsQuery::Docs(names) => Reply::Map(
            names
                .iter()
                .filter_map(lookup_resp)
                .map(|verb| command_docs(verb.spec()))
                .collect(),
        ),
    }
}

/// `HELP` of a command that is several.
pub(super) fn help<'a>(container: &Container) -> Reply<'a> {
    let lines = container.help();
    Reply::Array(lines.into_iter().map(Reply::text).collect())
}

/// The name that always means this command in RESP.
fn resp_name(spec: &Spec) -> String {
    let name = spec.name.to_ascii_lowercase();
    match spec.home {
        Home::Native => RESP_PREFIX.to_ascii_lowercase() + &name,
        Home::Redis => name,
    }
}

fn command_info<'a>(spec: &Spec) -> Reply<'a> {
    // Redis counts the verb; a negative number is a least one.
    let least = spec.words_min as i64 + 1;
    let arity = if spec.words_max == spec.words_min {
        least
    } else {
        -least
    };
    let flag = match spec.effect {
        Effect::Read => "readonly",
        Effect::Write => "write",
        Effect::Admin => "admin",
        Effect::Connection => "fast",
    };
    Reply::Array(vec![
        Reply::text(resp_name(spec)),
        Reply::Number(arity),
        Reply::Array(vec![Reply::Word(flag)]),
        Reply::Number(i64::from(spec.keys.first)),
        Reply::Number(i64::from(spec.keys.last)),
        Reply::Number(i64::from(spec.keys.step)),
    ])
}

fn command_docs<'a>(spec: &Spec) -> (Reply<'a>, Reply<'a>) {
    let docs = vec![
        (Reply::text("summary"), Reply::text(spec.summary)),
        (Reply::text("since"), Reply::text("0.1.0")),
        (
            Reply::text("group"),
            Reply::text(if spec.home == Home::Native {
                "onced"
            } else {
                "redis"
            }),
        ),
        (Reply::text("syntax"), Reply::text(spec.usage_line())),
    ];
    (Reply::text(resp_name(spec)), Reply::Map(docs))
}

/// Writes one section's fields.
type Section = fn(&Shared, &Moment) -> String;

/// The sections of `INFO`, in order.
const SECTIONS: [(&str, Section); 9] = [
    ("Server", server),
    ("Clients", clients),
    ("Memory", memory),
    ("Persistence", persistence),
    ("Stats", stats),
    ("Replication", replication),
    ("Commandstats", command_stats),
    ("Latencystats", latency_stats),
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
    fields(&[
        ("redis_version", REDIS_VERSION.to_owned()),
        ("redis_mode", "standalone".to_owned()),
        ("onced_version", env!("CARGO_PKG_VERSION").to_owned()),
        ("process_id", std::process::id().to_string()),
        ("tcp_port", shared.tcp_port.to_string()),
        ("server_time_usec", (moment.now.0 * 1_000).to_string()),
        ("uptime_in_seconds", shared.clock.uptime_s().to_string()),
    ])
}

fn clients(shared: &Shared, _: &Moment) -> String {
    fields(&[
        (
            "connected_clients",
            shared.engine.metrics().connections.get().to_string(),
        ),
        ("maxclients", shared.connections_max().to_string()),
    ])
}

fn memory(shared: &Shared, _: &Moment) -> String {
    fields(&[
        ("used_memory", shared.engine.budget().used().to_string()),
        ("maxmemory", shared.engine.budget().max().to_string()),
    ])
}

fn persistence(shared: &Shared, _: &Moment) -> String {
    let log = shared.engine.log();
    let status = if shared.has_log_failed() { "err" } else { "ok" };
    fields(&[
        ("loading", u8::from(shared.is_loading()).to_string()),
        ("aof_enabled", u8::from(log.is_some()).to_string()),
        ("aof_last_write_status", status.to_owned()),
        (
            "aof_current_size",
            log.map_or(0, |log| log.bytes()).to_string(),
        ),
    ])
}

fn stats(shared: &Shared, moment: &Moment) -> String {
    let metrics = shared.engine.metrics();
    let counters = &moment.counters;
    let calls: u64 = metrics.verbs().iter().map(|verb| verb.calls).sum();
    fields(&[
        (
            "total_connections_received",
            metrics.connections_total.get().to_string(),
        ),
        (
            "rejected_connections",
            metrics.connections_refused.get().to_string(),
        ),
        ("total_commands_processed", calls.to_string()),
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

fn command_stats(shared: &Shared, _: &Moment) -> String {
    line_per_verb(shared, |name, verb| {
        let (calls, errors) = (verb.calls, verb.errors);
        format!("cmdstat_{name}:calls={calls},rejected_calls=0,failed_calls={errors}\r\n")
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
