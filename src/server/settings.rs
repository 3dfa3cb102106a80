//! `CONFIG GET`: settings under their own names, and those that Redis's clients ask for.

use super::listen::KEEPALIVE;
use super::shared::Shared;
use crate::command::{Reply, Words};
use crate::engine::DEFAULT_NAMESPACE;
use crate::engine::glob::Glob;
use crate::limits::SELECT_MAX;
use crate::time::parse_u64;

/// Databases that are told of at least: as many as Redis has unless it is told otherwise.
const DATABASES_MIN: u64 = 16;

/// `CONFIG GET`: those whose names match one of the patterns.
pub(super) fn config<'a>(shared: &Shared, patterns: Words<'_>) -> Reply<'a> {
    let patterns: Vec<_> = patterns
        .iter()
        .map(|pattern| Glob::new(&pattern.to_ascii_lowercase()))
        .collect();
    let is_asked = |name: &str| patterns.iter().any(|p| p.matches(name.as_bytes()));
    let redis = REDIS.iter().filter(|(name, _)| is_asked(name));
    let redis = redis.map(|(name, value)| (Reply::text(*name), Reply::text(value(shared))));
    let own = shared.settings.iter().filter(|(name, _)| is_asked(name));
    let own = own.map(|(name, value)| (Reply::text(name.as_str()), Reply::text(value.as_str())));
    Reply::Map(redis.chain(own).collect())
}

/// What becomes of keys when memory is full, in Redis's words: as the default namespace has it.
pub(super) fn memory_policy(shared: &Shared) -> &'static str {
    let default = shared.engine.find(DEFAULT_NAMESPACE);
    if default.is_some_and(|default| default.policy().evict) {
        "volatile-ttl"
    } else {
        "noeviction"
    }
}

/// Tells one of Redis's settings.
type Told = fn(&Shared) -> String;

#[rustfmt::skip] // a table is read by its columns
const REDIS: [(&str, Told); 18] = [
    ("maxmemory", |shared| shared.engine.budget().max().to_string()),
    ("maxmemory-policy", |shared| memory_policy(shared).to_owned()),
    ("maxclients", |shared| shared.connections_max().to_string()),
    ("port", |shared| shared.tcp_port.to_string()),
    ("databases", |shared| databases(shared).to_string()),
    ("timeout", |_| "0".to_owned()),
    ("tcp-keepalive", |_| KEEPALIVE.as_secs().to_string()),
    ("save", |_| String::new()),
    ("appendonly", |shared| yes_or_no(shared.engine.log().is_some())),
    ("appendfsync", append_fsync),
    ("proto-max-bulk-len", |shared| shared.engine.limits().request_bytes_max.to_string()),
    ("requirepass", |_| String::new()),
    ("cluster-enabled", |_| yes_or_no(false)),
    ("replicaof", |_| String::new()),
    ("notify-keyspace-events", |_| String::new()),
    ("latency-monitor-threshold", |_| "0".to_owned()),
    ("slowlog-log-slower-than", |_| "-1".to_owned()),
    ("slowlog-max-len", |_| "0".to_owned()),
];

fn yes_or_no(holds: bool) -> String {
    if holds { "yes" } else { "no" }.to_owned()
}

fn append_fsync(shared: &Shared) -> String {
    let own = shared.settings.iter().find(|(name, _)| name == "fsync");
    match own {
        Some((_, policy)) if policy != "never" => policy.clone(),
        _ => "no".to_owned(),
    }
}

/// Databases as Redis's clients count them: up to the last one that there is.
///
/// Not up to the last one that may be chosen: monitors list as many, empty ones too.
fn databases(shared: &Shared) -> u64 {
    let spaces = shared.engine.keyspace();
    let numbers = spaces.iter().filter_map(|(name, _)| number_of(name));
    numbers.max().map_or(0, |last| last + 1).max(DATABASES_MIN)
}

/// The number that chooses a namespace by `SELECT`.
pub(super) fn number_of(namespace: &str) -> Option<u64> {
    if namespace == DEFAULT_NAMESPACE {
        return Some(0);
    }
    let digits = namespace.strip_prefix("db")?;
    let number = parse_u64(digits.as_bytes())?;
    // Of the names that read so, one is chosen by the number.
    let is_it = number.to_string() == digits && (1..=SELECT_MAX).contains(&number);
    is_it.then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_has_one_name() {
        for (name, number) in [
            ("default", Some(0)),
            ("db1", Some(1)),
            ("db1023", Some(1_023)),
            ("db1024", None),
            ("db0", None),
            ("db01", None),
            ("db", None),
            ("dbx", None),
            ("payments", None),
        ] {
            assert_eq!(number_of(name), number, "{name}");
        }
    }
}
