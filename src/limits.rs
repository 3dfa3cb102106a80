//! Every bound in one place: its name, default, unit and the range a setting may choose.
//!
//! A limit is a field of [`Limits`]; what no operator should change is a constant. The
//! relations between them are asserted when this file is compiled, or, where settings meet,
//! by [`Limits::check`].

use thiserror::Error;

use crate::time::DurationWord;

/// The port that is listened on unless told otherwise.
pub const PORT: u16 = 6623;
/// Bytes of a namespace's name.
pub const NAMESPACE_NAME_BYTES_MAX: usize = 64;
/// What a namespace's name looks like, in words; [`is_namespace_name`] tells.
pub const NAMESPACE_NAME_FORM: &str = "1 to 64 of the characters A-Z a-z 0-9 _ . : -";
/// Hex digits of a fingerprint.
pub const FINGERPRINT_DIGITS_MAX: usize = 32;
/// Bytes of the name of who begins the work behind a record (`OWNER`).
pub const OWNER_BYTES_MAX: usize = 128;
/// How far ahead of the server's clock an event's own time (`AT`) may lie, in milliseconds.
pub const AT_AHEAD_MAX_MS: u64 = 5 * 60 * 1_000;
/// Bytes of a refused body that are read and thrown away to keep the connection; beyond, it closes.
pub const DISCARD_BYTES_MAX: usize = 16 << 20;
/// Elements that a RESP request may announce, as in Redis.
pub const RESP_ELEMENTS_MAX: usize = 1 << 20;
/// Databases that `SELECT` knows.
pub const SELECT_MAX: u64 = 1_023;
/// Bytes of a connection's name (`CLIENT SETNAME`) and of its library's.
pub const CLIENT_NAME_BYTES_MAX: usize = 256;
/// How long after a key's deadline its memory may be given back at the earliest, in milliseconds: the
/// wheel's tick. Answers compare the deadline itself.
pub const WHEEL_TICK_MS: u64 = 16;
/// Bytes of requests that `MULTI` queues for `EXEC`.
pub const TRANSACTION_BYTES_MAX: usize = 8 << 20;
/// Bytes of a glob pattern.
pub const PATTERN_BYTES_MAX: usize = 256;
/// Patterns of one `CONFIG GET`.
pub const CONFIG_PATTERNS_MAX: usize = 256;
/// Sections that one `INFO` may name.
pub const INFO_SECTIONS_MAX: usize = 256;
/// Bytes of a script's text (`EVAL`); a longer one is none that is recognised.
pub const SCRIPT_BYTES_MAX: usize = 8 << 10;
/// Scripts that `EVALSHA` knows; beyond, the one that was used longest ago is to be sent again.
pub const SCRIPTS_KNOWN_MAX: usize = 1_024;
/// Keys of a namespace that `KEYS` will look through; `SCAN` has no such bound.
pub const KEYS_COMMAND_KEYS_MAX: u64 = 1_000_000;
/// Keys that one `MSETNX` or one script names, whose shards are all locked until it is done: as much as takes about a
/// millisecond.
pub const TOGETHER_KEYS_MAX: usize = 1_000;
/// Bytes of a stored value from which on replies share it with the store; one below that is copied for
/// each.
pub const SHARED_VALUE_BYTES_MIN: usize = 4 << 10;
/// Bytes of a reply up to which there is always room for it, where its connection has read those before.
pub const REPLY_BYTES_SMALL: usize = 4 << 10;
/// How long one connection's requests are read, executed and answered before the worker looks after its
/// others, in microseconds: some thousand keys. With 300 a loader's keys cost some 3% more, and with 2,000
/// four loaders make others wait for milliseconds.
pub const TURN_US: u64 = 500;
/// The same while others of its worker wait for another one.
pub const SHORT_TURN_US: u64 = 100;
/// The least memory that a server may be given, in bytes.
pub const MEMORY_BYTES_MIN: u64 = 1 << 20;
/// How long a connection may have its worker's room for a long request, while memory is short and others wait
/// for it, in milliseconds.
pub const INTAKE_MS: u64 = 2_000;
/// How long the commands of one `EXEC` may take together, in milliseconds.
pub const EXEC_MS_MAX: u64 = 1_000;
/// How long a draining server waits for its connections, in milliseconds.
pub const DRAIN_MS: u64 = 10_000;
/// Bytes of a frame's payload in the log: the changes of one request to one shard, or to several that are to
/// last together or not at all.
pub const LOG_PAYLOAD_BYTES_MAX: usize = (1 << 24) - 1;
/// Bytes of a segment of the log unless set otherwise.
pub const LOG_SEGMENT_BYTES: u64 = 64 << 20;
/// Bytes of a segment where the disk has no more.
pub const LOG_SEGMENT_BYTES_MIN: u64 = 64 << 10;
/// The longest that a reply may be held at all, in milliseconds.
pub const WAIT_MS_MAX: u64 = DAY_MS;
/// Bytes of changes that wait to be written, above which no more requests are executed.
pub const LOG_PENDING_BYTES_MAX: usize = 64 << 20;
/// How often the log is synced under `--fsync everysec`, in milliseconds.
pub const LOG_SYNC_EVERY_MS: u64 = 1_000;
/// How long a sync may take under `--fsync everysec` before writers wait for it, in milliseconds.
pub const LOG_SYNC_LATE_MS: u64 = 2_000;
/// How long a change that was made may wait for space to write it before its outcome is left open, in
/// milliseconds.
pub const LOG_STUCK_MS: u64 = 2_000;
/// How often space is looked for again after the disk was full, in milliseconds.
pub const LOG_RETRY_MS: u64 = 100;
/// How far the wall clock may be ahead of the server's, which was read from it at the start, before the
/// difference counts: that is said, and the next run takes for unsure what it concerns. In milliseconds.
pub const CLOCK_BEHIND_MS: u64 = 1_000;
/// How often the two are compared, in milliseconds.
pub const CLOCK_LOOK_EVERY_MS: u64 = 1_000;
/// Bytes of a log that may be dead, beside as many as are live, before it is compacted.
pub const LOG_DEAD_BYTES_MAX: u64 = 64 << 20;
/// Bytes of a settings file, which is read whole: thousands of namespaces fit.
pub const CONFIG_FILE_BYTES_MAX: u64 = 1 << 20;
/// Segments that are complete and not synced yet, each with its file open. The thread that syncs is asked for
/// sooner; with so many, who writes syncs one itself.
pub const LOG_UNSYNCED_FILES_MAX: usize = 16;
/// Descriptors that no connection may take: the unsynced segments of the log, the one that is written, the
/// next, two while one is compacted, and some for what is opened for a moment.
pub const DESCRIPTORS_KEPT: u64 = LOG_UNSYNCED_FILES_MAX as u64 + 4 + 12;
/// Connections over the limit that are told so, at a time; further ones are closed without a word.
pub const REFUSALS_MAX: usize = 64;

/// The bounds that are settings. Each field's doc gives its unit; defaults are in [`Limits::DEFAULT`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A key's life where neither the request nor the namespace names one, in milliseconds. Default 1 h.
    pub ttl_default_ms: u64,
    /// The longest life that may be asked for, in milliseconds. Default 365 days.
    pub ttl_max_ms: u64,
    /// Bytes of one key. Default 8 KiB.
    pub key_bytes_max: usize,
    /// Bytes of one request without its discarded parts. Default 1 MiB.
    pub request_bytes_max: usize,
    /// Keys in one request. Default 10,000.
    pub batch_keys_max: usize,
    /// Bytes of one stored value. Default 256 KiB.
    pub body_bytes_max: usize,
    /// How long nobody else is told to do the work behind a record, unless `LEASE` says, in milliseconds. Default 30 s.
    pub lease_default_ms: u64,
    /// The longest lease that may be asked for, in milliseconds. Default 24 h.
    pub lease_max_ms: u64,
    /// How long a record lives once it is settled or given up, unless `TTL` says, in milliseconds, or as long as its
    /// namespace lets anything live, if that is less. Default 24 h.
    pub record_ttl_default_ms: u64,
    /// The longest that a reply may be held, in milliseconds. Default 60 s.
    pub wait_max_ms: u64,
    /// Replies that may be held at a time. Default 10,000.
    pub waiters_max: usize,
    /// Namespaces, `default` included. Default 1,024.
    pub namespaces_max: usize,
    /// Connections at a time. Default 10,000.
    pub connections_max: usize,
    /// Bytes of replies that a client has not read yet, above which nothing more is read from it. Default 8 MiB.
    pub unread_bytes_max: usize,
    /// How long a client may leave that many replies unread, in milliseconds. Default 30 s.
    pub unread_timeout_ms: u64,
    /// How long a request may stay unfinished, in milliseconds. Default 30 s.
    pub request_timeout_ms: u64,
}

/// A setting that lies outside its range, or contradicts another.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LimitError {
    /// One value out of its range.
    #[error("{name} must lie between {min} and {max}, not {value}")]
    OutOfRange {
        /// The setting.
        name: &'static str,
        /// What was asked for.
        value: String,
        /// The least allowed.
        min: String,
        /// The most allowed.
        max: String,
    },
    /// Two values that do not go together.
    #[error("{small} ({small_value}) must not exceed {large} ({large_value})")]
    Order {
        /// The setting that must be the smaller one.
        small: &'static str,
        /// Its value.
        small_value: String,
        /// The setting that must be the larger one.
        large: &'static str,
        /// Its value.
        large_value: String,
    },
}

const DAY_MS: u64 = 86_400_000;

impl Limits {
    /// What holds where nothing was set.
    pub const DEFAULT: Self = Self {
        ttl_default_ms: 3_600_000,
        ttl_max_ms: 365 * DAY_MS,
        key_bytes_max: 8 << 10,
        request_bytes_max: 1 << 20,
        batch_keys_max: 10_000,
        body_bytes_max: 256 << 10,
        lease_default_ms: 30_000,
        lease_max_ms: DAY_MS,
        record_ttl_default_ms: DAY_MS,
        wait_max_ms: 60_000,
        waiters_max: 10_000,
        namespaces_max: 1_024,
        connections_max: 10_000,
        unread_bytes_max: 8 << 20,
        unread_timeout_ms: 30_000,
        request_timeout_ms: 30_000,
    };

    /// Whether every field lies in its range and they go together.
    pub fn check(&self) -> Result<(), LimitError> {
        let durations = [
            ("default-ttl", self.ttl_default_ms, 1, TTL_CEILING_MS),
            ("max-ttl", self.ttl_max_ms, 1, TTL_CEILING_MS),
            ("default-lease", self.lease_default_ms, 1, LEASE_CEILING_MS),
            ("max-lease", self.lease_max_ms, 1, LEASE_CEILING_MS),
            (
                "default-record-ttl",
                self.record_ttl_default_ms,
                1,
                TTL_CEILING_MS,
            ),
            ("max-wait", self.wait_max_ms, 1, WAIT_MS_MAX),
            ("unread-timeout", self.unread_timeout_ms, 10, DAY_MS),
            ("request-timeout", self.request_timeout_ms, 10, DAY_MS),
        ];
        for (name, value, min, max) in durations {
            if value < min || value > max {
                return Err(out_of_range(
                    name,
                    &DurationWord(value),
                    &DurationWord(min),
                    &DurationWord(max),
                ));
            }
        }
        let counts = [
            ("max-key", self.key_bytes_max, 16, 1 << 20),
            (
                "max-request",
                self.request_bytes_max,
                1 << 10,
                DISCARD_BYTES_MAX,
            ),
            ("max-batch", self.batch_keys_max, 1, RESP_ELEMENTS_MAX / 2),
            ("max-value", self.body_bytes_max, 1, 8 << 20),
            ("max-waiters", self.waiters_max, 0, 1 << 20),
            ("max-namespaces", self.namespaces_max, 1, 65_536),
            ("max-connections", self.connections_max, 1, 1 << 20),
            ("max-unread", self.unread_bytes_max, 64 << 10, 1 << 30),
        ];
        for (name, value, min, max) in counts {
            if value < min || value > max {
                return Err(out_of_range(name, &value, &min, &max));
            }
        }
        let pairs = [
            (
                "default-ttl",
                self.ttl_default_ms,
                "max-ttl",
                self.ttl_max_ms,
            ),
            (
                "default-lease",
                self.lease_default_ms,
                "max-lease",
                self.lease_max_ms,
            ),
            (
                "max-key",
                self.key_bytes_max as u64,
                "max-request",
                self.request_bytes_max as u64,
            ),
            (
                "max-value",
                self.body_bytes_max as u64,
                "max-request",
                self.request_bytes_max as u64,
            ),
            (
                "max-value",
                self.body_bytes_max as u64,
                "max-unread",
                self.unread_bytes_max as u64,
            ),
        ];
        for (small, small_value, large, large_value) in pairs {
            if small_value > large_value {
                return Err(LimitError::Order {
                    small,
                    small_value: small_value.to_string(),
                    large,
                    large_value: large_value.to_string(),
                });
            }
        }
        Ok(())
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Whether a namespace is one that is there whatever clients do, or a database of `SELECT`: no set has such a name.
pub fn is_database_name(name: &[u8]) -> bool {
    let number = name.strip_prefix(b"db").and_then(crate::time::parse_u64);
    name == b"default" || number.is_some_and(|number| number <= SELECT_MAX)
}

/// Whether a word can be a namespace's name.
pub fn is_namespace_name(word: &[u8]) -> bool {
    let is_part = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b':' | b'-');
    (1..=NAMESPACE_NAME_BYTES_MAX).contains(&word.len()) && word.iter().all(is_part)
}

/// The longest life that a setting may allow: 10 years, well within the wheel's horizon of 34.
pub const TTL_CEILING_MS: u64 = 3_650 * DAY_MS;

/// The longest lease that a setting may allow: 30 days.
pub const LEASE_CEILING_MS: u64 = 30 * DAY_MS;

fn out_of_range(
    name: &'static str,
    value: &impl ToString,
    min: &impl ToString,
    max: &impl ToString,
) -> LimitError {
    LimitError::OutOfRange {
        name,
        value: value.to_string(),
        min: min.to_string(),
        max: max.to_string(),
    }
}

const _: () = {
    let d = Limits::DEFAULT;
    assert!(d.ttl_default_ms <= d.ttl_max_ms && d.ttl_max_ms <= TTL_CEILING_MS);
    assert!(d.lease_default_ms <= d.lease_max_ms && d.lease_max_ms <= LEASE_CEILING_MS);
    assert!(d.record_ttl_default_ms <= d.ttl_max_ms);
    assert!(d.key_bytes_max < d.request_bytes_max && d.body_bytes_max < d.request_bytes_max);
    assert!(
        d.request_bytes_max <= DISCARD_BYTES_MAX,
        "a request that fits must not be discarded"
    );
    assert!(
        d.body_bytes_max <= d.unread_bytes_max,
        "one value must fit the reply buffer"
    );
    assert!(d.batch_keys_max * 2 < RESP_ELEMENTS_MAX);
    assert!(
        WHEEL_TICK_MS < 20,
        "contract: a deadline is rounded up by at most 20 ms"
    );
};

#[cfg(test)]
mod tests {
    use super::*;

    type Set = fn(&mut Limits, u64);

    #[test]
    fn the_defaults_pass_and_both_sides_of_each_range_are_held() {
        assert_eq!(Limits::DEFAULT.check(), Ok(()));
        let cases: [(&str, Set, u64, u64); 9] = [
            (
                "max-ttl",
                |l, v| l.ttl_max_ms = v,
                3_600_000,
                TTL_CEILING_MS,
            ),
            ("unread-timeout", |l, v| l.unread_timeout_ms = v, 10, DAY_MS),
            (
                "request-timeout",
                |l, v| l.request_timeout_ms = v,
                10,
                DAY_MS,
            ),
            ("max-key", |l, v| l.key_bytes_max = v as usize, 16, 1 << 20),
            (
                "max-batch",
                |l, v| l.batch_keys_max = v as usize,
                1,
                1 << 19,
            ),
            (
                "max-namespaces",
                |l, v| l.namespaces_max = v as usize,
                1,
                65_536,
            ),
            (
                "max-connections",
                |l, v| l.connections_max = v as usize,
                1,
                1 << 20,
            ),
            (
                "max-value",
                |l, v| l.body_bytes_max = v as usize,
                1,
                1 << 20,
            ),
            (
                "max-request",
                |l, v| l.request_bytes_max = v as usize,
                256 << 10,
                16 << 20,
            ),
        ];
        for (name, set, min, max) in cases {
            for (value, fits) in [(min, true), (max, true), (min - 1, false), (max + 1, false)] {
                let mut limits = Limits::DEFAULT;
                set(&mut limits, value);
                assert_eq!(limits.check().is_ok(), fits, "{name} {value}");
            }
        }
    }
}
