//! `CONFIG`: settings under their own names, and those that Redis's clients ask for; and the few that can change
//! while the server runs.

use super::listen::KEEPALIVE;
use super::shared::Shared;
use crate::command::{Error, Reply, Words, printable};
use crate::engine::DEFAULT_NAMESPACE;
use crate::engine::glob::Glob;
use crate::limits::{MEMORY_BYTES_MIN, SELECT_MAX};
use crate::size::{parse_size, size_word};
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
    let own = own.map(|(name, value)| {
        let changeable = CHANGEABLE.iter().find(|changeable| changeable.name == name);
        let value =
            changeable.map_or_else(|| value.clone(), |changeable| (changeable.told)(shared));
        (Reply::text(name.as_str()), Reply::text(value))
    });
    Reply::Map(redis.chain(own).collect())
}

/// A setting that can change while the server runs.
struct Changeable {
    name: &'static str,
    /// What Redis calls it.
    redis_name: &'static str,
    told: Told,
    /// Reads a value; an error says what is right.
    read: fn(&Shared, &str) -> Result<u64, String>,
    change: fn(&Shared, u64),
}

const CHANGEABLE: [Changeable; 2] = [
    Changeable {
        name: "max-memory",
        redis_name: "maxmemory",
        told: |shared| size_word(shared.engine.budget().max() as u64),
        read: |_, text| match parse_size(text)? {
            bytes if bytes < MEMORY_BYTES_MIN => {
                Err(format!("must be at least {}", size_word(MEMORY_BYTES_MIN)))
            }
            bytes => Ok(bytes),
        },
        change: |shared, bytes| shared.engine.budget().set_max(bytes as usize),
    },
    Changeable {
        name: "max-connections",
        redis_name: "maxclients",
        told: |shared| shared.connections_max().to_string(),
        read: |shared, text| {
            let max = shared.connections_ceiling();
            match parse_u64(text.as_bytes()) {
                Some(count) if (1..=max as u64).contains(&count) => Ok(count),
                _ => Err(format!(
                    "must lie between 1 and {max}, which the start had files for"
                )),
            }
        },
        change: |shared, count| shared.set_connections_max(count as usize),
    },
];

/// `CONFIG SET`: all of these, or none.
pub(super) fn set<'a>(shared: &Shared, pairs: Words<'_>) -> Reply<'a> {
    let mut words = pairs.iter();
    let mut changes: Vec<(&Changeable, u64)> = Vec::new();
    while let (Some(name), Some(value)) = (words.next(), words.next()) {
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        let value = String::from_utf8_lossy(value);
        match read(shared, &name, &value) {
            Ok((changeable, _))
                if changes
                    .iter()
                    .any(|(other, _)| other.name == changeable.name) =>
            {
                return refused(&name, "duplicate parameter");
            }
            Ok(change) => changes.push(change),
            Err(refusal) => return refusal,
        }
    }
    for (changeable, value) in changes {
        (changeable.change)(shared, value);
        let (setting, value) = (changeable.name, (changeable.told)(shared));
        tracing::info!(
            setting,
            value,
            "changed while the server runs, until it ends"
        );
    }
    Reply::OK
}

fn read<'a>(
    shared: &Shared,
    name: &str,
    value: &str,
) -> Result<(&'static Changeable, u64), Reply<'a>> {
    let named = CHANGEABLE
        .iter()
        .find(|c| c.name == name || c.redis_name == name);
    if let Some(changeable) = named {
        let text = if name == "maxmemory" {
            redis_size(value)
        } else {
            value.to_owned()
        };
        return match (changeable.read)(shared, &text) {
            Ok(value) => Ok((changeable, value)),
            Err(reason) => Err(refused(name, &reason)),
        };
    }
    let is_known = REDIS.iter().any(|(known, _)| *known == name)
        || shared.settings.iter().any(|(known, _)| known == name);
    Err(if is_known {
        refused(
            name,
            "can't set immutable config: it is changed by a restart",
        )
    } else {
        Error::redis(format!(
            "ERR Unknown option or number of arguments for CONFIG SET - {}",
            printable(name.as_bytes())
        ))
        .into()
    })
}

/// In Redis's words.
fn refused<'a>(name: &str, reason: &str) -> Reply<'a> {
    const REASON_BYTES_MAX: usize = 200;
    // It may repeat a value, of any length.
    let reason = &reason[..reason.floor_char_boundary(REASON_BYTES_MAX)];
    Error::redis(format!(
        "ERR CONFIG SET failed (possibly related to argument '{name}') - {reason}"
    ))
    .into()
}

/// A size as Redis writes it, where `mb` is what is MiB here, and `m` is MB.
fn redis_size(text: &str) -> String {
    let text = text.to_ascii_lowercase();
    for unit in ["k", "m", "g"] {
        if let Some(number) = text.strip_suffix(&format!("{unit}b")) {
            return format!("{number}{unit}ib");
        }
        if let Some(number) = text.strip_suffix(unit) {
            return format!("{number}{unit}b");
        }
    }
    text
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
    fn sizes_are_read_as_redis_writes_them() {
        for (text, want) in [
            ("100mb", 100 << 20),
            ("100M", 100_000_000),
            ("1gb", 1 << 30),
            ("7", 7),
        ] {
            assert_eq!(parse_size(&redis_size(text)), Ok(want), "{text}");
        }
    }

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
