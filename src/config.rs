//! Settings: read once from flags, variables and a file, checked, and never looked at again.
//!
//! [`RawSettings`] is the only list of settings: clap reads flags and `ONCED_` variables into
//! it, serde the TOML file; a flag goes over a variable, a variable over the file. What comes
//! out is [`Settings`], in which every value holds.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::thread::available_parallelism;

use serde::Deserialize;
use thiserror::Error;

use crate::address::{Address, AddressError};
use crate::command::PolicyChange;
use crate::engine::{EngineConfig, Policy};
use crate::limits::{
    CONFIG_FILE_BYTES_MAX, LOG_SEGMENT_BYTES, LOG_SEGMENT_BYTES_MIN, LimitError, Limits,
    MEMORY_BYTES_MIN, NAMESPACE_NAME_FORM, PORT, TTL_CEILING_MS, is_namespace_name,
};
use crate::log::segment::Secrets;
use crate::log::writer::Fsync;
use crate::server::ServerConfig;
use crate::server::keeper::DataConfig;
use crate::size::{parse_size, size_word};
use crate::small_file;
use crate::store::key::SECRET_BYTES;
use crate::store::{Secret, WindowMode};
use crate::time::{DurationError, DurationWord, parse_duration_ms};

/// Part of the machine's memory that is used unless told otherwise, in percent.
const MEMORY_PERCENT: u64 = 75;
/// The most workers.
const WORKERS_MAX: usize = 1_024;

/// The words for when the log is synced.
const FSYNC_WORDS: [(&str, Fsync); 3] = [
    ("always", Fsync::Always),
    ("everysec", Fsync::EverySec),
    ("never", Fsync::Never),
];

/// Settings as they were written, each where it was given.
#[derive(Clone, Debug, Default, Deserialize, clap::Args)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct RawSettings {
    /// Listen on this address, HOST:PORT or unix:PATH; repeatable. Port 0 picks a free one and says which [default: 127.0.0.1:6623]
    #[arg(long, value_name = "ADDR", env = "ONCED_LISTEN", value_delimiter = ',')]
    pub listen: Option<Vec<String>>,

    /// Listen on addresses that other machines can reach, although there is no authentication yet
    #[arg(long, env = "ONCED_INSECURE", num_args = 0..=1, default_missing_value = "true")]
    pub insecure: Option<bool>,

    /// Worker threads [default: one per core]
    #[arg(long, value_name = "N", env = "ONCED_WORKERS")]
    pub workers: Option<usize>,

    /// Keep an append-only log in this directory, so that a restart forgets nothing
    #[arg(long, value_name = "DIR", env = "ONCED_DATA_DIR", help_heading = "Log")]
    pub data_dir: Option<PathBuf>,

    /// When the log is synced to the disk: always (before a change is acknowledged), everysec or never [default: everysec]
    #[arg(long, value_name = "WHEN", env = "ONCED_FSYNC", help_heading = "Log")]
    pub fsync: Option<String>,

    /// Go on without what is damaged in the log, and answer as unsure what that may concern [default: false]
    #[arg(long, env = "ONCED_RECOVER", num_args = 0..=1, default_missing_value = "true", help_heading = "Log")]
    pub recover: Option<bool>,

    /// The data directory is a copy that was made earlier, such as a backup: answer as unsure what was perhaps seen since [default: false]
    #[arg(long, env = "ONCED_RESTORED", num_args = 0..=1, default_missing_value = "true", help_heading = "Log")]
    pub restored: Option<bool>,

    /// Bytes of a segment of the log [default: 64MiB]
    #[arg(
        long,
        value_name = "SIZE",
        env = "ONCED_LOG_SEGMENT",
        help_heading = "Log"
    )]
    pub log_segment: Option<String>,

    /// Memory for keys and buffers: bytes with a unit such as 512MiB or 4GiB, or a percentage of the machine's or its cgroup's [default: 75%]
    #[arg(long, value_name = "SIZE", env = "ONCED_MAX_MEMORY")]
    pub max_memory: Option<String>,

    /// Connections at a time [default: 10000]
    #[arg(long, value_name = "N", env = "ONCED_MAX_CONNECTIONS")]
    pub max_connections: Option<usize>,

    /// What is logged to standard error: error, warn, info, debug or trace [default: info]
    #[arg(long, value_name = "LEVEL", env = "ONCED_LOG")]
    pub log: Option<String>,

    /// A key's life where neither the request nor its namespace names one [default: 1h]
    #[arg(
        long,
        value_name = "D",
        env = "ONCED_DEFAULT_TTL",
        help_heading = "Limits"
    )]
    pub default_ttl: Option<String>,

    /// The longest life of a key [default: 365d]
    #[arg(long, value_name = "D", env = "ONCED_MAX_TTL", help_heading = "Limits")]
    pub max_ttl: Option<String>,

    /// How long nobody else is told to do the work behind a record, unless its LEASE says [default: 30s]
    #[arg(
        long,
        value_name = "D",
        env = "ONCED_DEFAULT_LEASE",
        help_heading = "Limits"
    )]
    pub default_lease: Option<String>,

    /// The longest lease of a record [default: 1d]
    #[arg(
        long,
        value_name = "D",
        env = "ONCED_MAX_LEASE",
        help_heading = "Limits"
    )]
    pub max_lease: Option<String>,

    /// How long a record is kept once its work is settled or given up, unless its TTL says; at most its namespace's longest life [default: 1d]
    #[arg(
        long,
        value_name = "D",
        env = "ONCED_DEFAULT_RECORD_TTL",
        help_heading = "Limits"
    )]
    pub default_record_ttl: Option<String>,

    /// How long a reply may be held that waits for a record [default: 1m]
    #[arg(
        long,
        value_name = "D",
        env = "ONCED_MAX_WAIT",
        help_heading = "Limits"
    )]
    pub max_wait: Option<String>,

    /// Replies that may be held at a time [default: 10000]
    #[arg(
        long,
        value_name = "N",
        env = "ONCED_MAX_WAITERS",
        help_heading = "Limits"
    )]
    pub max_waiters: Option<usize>,

    /// Bytes of a key [default: 8KiB]
    #[arg(
        long,
        value_name = "SIZE",
        env = "ONCED_MAX_KEY",
        help_heading = "Limits"
    )]
    pub max_key: Option<String>,

    /// Bytes of a request [default: 1MiB]
    #[arg(
        long,
        value_name = "SIZE",
        env = "ONCED_MAX_REQUEST",
        help_heading = "Limits"
    )]
    pub max_request: Option<String>,

    /// Keys in one request [default: 10000]
    #[arg(
        long,
        value_name = "N",
        env = "ONCED_MAX_BATCH",
        help_heading = "Limits"
    )]
    pub max_batch: Option<usize>,

    /// Bytes of a stored value, or of a record's body [default: 256KiB]
    #[arg(
        long,
        value_name = "SIZE",
        env = "ONCED_MAX_VALUE",
        help_heading = "Limits"
    )]
    pub max_value: Option<String>,

    /// Namespaces, 'default' included [default: 1024]
    #[arg(
        long,
        value_name = "N",
        env = "ONCED_MAX_NAMESPACES",
        help_heading = "Limits"
    )]
    pub max_namespaces: Option<usize>,

    /// Bytes of replies that a client may leave unread before nothing more is read from it [default: 8MiB]
    #[arg(
        long,
        value_name = "SIZE",
        env = "ONCED_MAX_UNREAD",
        help_heading = "Limits"
    )]
    pub max_unread: Option<String>,

    /// How long it may leave that many unread before it is closed [default: 30s]
    #[arg(
        long,
        value_name = "D",
        env = "ONCED_UNREAD_TIMEOUT",
        help_heading = "Limits"
    )]
    pub unread_timeout: Option<String>,

    /// How long a request may stay unfinished before its connection is closed [default: 30s]
    #[arg(
        long,
        value_name = "D",
        env = "ONCED_REQUEST_TIMEOUT",
        help_heading = "Limits"
    )]
    pub request_timeout: Option<String>,

    /// Whether a namespace is made when it is first named; if not, only those of the file exist [default: true]
    #[arg(long, value_name = "BOOL", env = "ONCED_CREATE_NAMESPACES")]
    pub create_namespaces: Option<bool>,

    /// Namespaces that exist from the start; only in the file, as `[namespace.NAME]`
    #[arg(skip)]
    pub namespace: BTreeMap<String, RawNamespace>,
}

/// A namespace in the file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct RawNamespace {
    /// The life of keys that name none.
    pub ttl: Option<String>,
    /// The longest life.
    pub max_ttl: Option<String>,
    /// `fixed` or `slide`.
    pub mode: Option<String>,
    /// How many keys; 0 is without end.
    pub max_keys: Option<u64>,
    /// `reject` or `evict`.
    pub full: Option<String>,
    /// `exact` or `digest`: whether keys that do not fit 16 bytes are kept whole.
    pub keys: Option<String>,
    /// `new` or `report`: what is told where the memory does not reach far enough.
    pub unsure: Option<String>,
}

/// Why settings do not hold.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file is not such a file.
    #[error("{path}: {message}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        message: String,
    },
    /// An address that is none.
    #[error("listen")]
    Address(#[from] AddressError),
    /// A value that is no value of this setting.
    #[error("{name}: {message}")]
    Value {
        /// The setting.
        name: String,
        /// What is wrong with it.
        message: String,
    },
    /// A value out of its range, or two that do not go together.
    #[error(transparent)]
    Limit(#[from] LimitError),
}

/// Settings that hold.
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a switch of its own, with a name"
)]
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the server listens.
    pub listen: Vec<Address>,
    /// Whether that may be where others than this machine can reach it.
    pub insecure: bool,
    /// Worker threads.
    pub workers: usize,
    /// Bytes for keys and buffers.
    pub memory_bytes_max: u64,
    /// The directory of the log, if there is to be one.
    pub data_dir: Option<PathBuf>,
    /// When the log is synced.
    pub fsync: Fsync,
    /// Whether what is damaged in the log is left out.
    pub recovers: bool,
    /// Whether the log is a copy that was made some time ago.
    pub is_copy: bool,
    /// Bytes of a segment of the log.
    pub log_segment_bytes: u64,
    /// What is logged.
    pub log: tracing::Level,
    /// Bounds.
    pub limits: Limits,
    /// Whether namespaces are made when they are first named.
    pub create_namespaces: bool,
    /// Namespaces that exist from the start.
    pub namespaces: Vec<(String, PolicyChange)>,
}

impl RawSettings {
    /// Reads a file.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let read = small_file::read_to_string(path, CONFIG_FILE_BYTES_MAX);
        let text = read.map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        toml::from_str(&text).map_err(|error| ConfigError::File {
            path: path.to_owned(),
            message: error.to_string().trim().to_owned(),
        })
    }

    /// These settings, and those of `below` where these say nothing.
    #[must_use]
    pub fn over(self, below: Self) -> Self {
        Self {
            listen: self.listen.or(below.listen),
            insecure: self.insecure.or(below.insecure),
            workers: self.workers.or(below.workers),
            data_dir: self.data_dir.or(below.data_dir),
            fsync: self.fsync.or(below.fsync),
            recover: self.recover.or(below.recover),
            restored: self.restored.or(below.restored),
            log_segment: self.log_segment.or(below.log_segment),
            max_memory: self.max_memory.or(below.max_memory),
            max_connections: self.max_connections.or(below.max_connections),
            log: self.log.or(below.log),
            default_ttl: self.default_ttl.or(below.default_ttl),
            max_ttl: self.max_ttl.or(below.max_ttl),
            default_lease: self.default_lease.or(below.default_lease),
            max_lease: self.max_lease.or(below.max_lease),
            default_record_ttl: self.default_record_ttl.or(below.default_record_ttl),
            max_wait: self.max_wait.or(below.max_wait),
            max_waiters: self.max_waiters.or(below.max_waiters),
            max_key: self.max_key.or(below.max_key),
            max_request: self.max_request.or(below.max_request),
            max_batch: self.max_batch.or(below.max_batch),
            max_value: self.max_value.or(below.max_value),
            max_namespaces: self.max_namespaces.or(below.max_namespaces),
            max_unread: self.max_unread.or(below.max_unread),
            unread_timeout: self.unread_timeout.or(below.unread_timeout),
            request_timeout: self.request_timeout.or(below.request_timeout),
            create_namespaces: self.create_namespaces.or(below.create_namespaces),
            namespace: if self.namespace.is_empty() {
                below.namespace
            } else {
                self.namespace
            },
        }
    }

    /// Checks them all.
    pub fn check(&self) -> Result<Settings, ConfigError> {
        let limits = self.limits()?;
        let listen = match &self.listen {
            None => vec![Address::Tcp(format!("127.0.0.1:{PORT}"))],
            Some(texts) => texts
                .iter()
                .map(|text| text.parse())
                .collect::<Result<_, _>>()?,
        };
        let workers = match self.workers {
            None => available_parallelism()
                .map_or(1, usize::from)
                .min(WORKERS_MAX),
            Some(workers) if (1..=WORKERS_MAX).contains(&workers) => workers,
            Some(workers) => {
                return Err(wrong(
                    "workers",
                    format!("must lie between 1 and {WORKERS_MAX}, not {workers}"),
                ));
            }
        };
        let log = self.log.as_deref().unwrap_or("info");
        let log = tracing::Level::from_str(log).map_err(|_| {
            wrong(
                "log",
                format!("'{log}' is none of error, warn, info, debug and trace"),
            )
        })?;
        let namespaces = self.namespaces(&limits)?;
        Ok(Settings {
            listen,
            insecure: self.insecure.unwrap_or(false),
            workers,
            memory_bytes_max: self.memory()?,
            data_dir: self.data_dir.clone(),
            fsync: self.fsync()?,
            recovers: self.recover.unwrap_or(false),
            is_copy: self.restored.unwrap_or(false),
            log_segment_bytes: self.log_segment()?,
            log,
            create_namespaces: self.create_namespaces.unwrap_or(true),
            namespaces,
            limits,
        })
    }

    fn limits(&self) -> Result<Limits, ConfigError> {
        let d = Limits::DEFAULT;
        let limits = Limits {
            ttl_default_ms: duration("default-ttl", self.default_ttl.as_ref(), d.ttl_default_ms)?,
            ttl_max_ms: duration("max-ttl", self.max_ttl.as_ref(), d.ttl_max_ms)?,
            key_bytes_max: size("max-key", self.max_key.as_ref(), d.key_bytes_max)?,
            request_bytes_max: size(
                "max-request",
                self.max_request.as_ref(),
                d.request_bytes_max,
            )?,
            batch_keys_max: self.max_batch.unwrap_or(d.batch_keys_max),
            body_bytes_max: size("max-value", self.max_value.as_ref(), d.body_bytes_max)?,
            lease_default_ms: duration(
                "default-lease",
                self.default_lease.as_ref(),
                d.lease_default_ms,
            )?,
            lease_max_ms: duration("max-lease", self.max_lease.as_ref(), d.lease_max_ms)?,
            record_ttl_default_ms: duration(
                "default-record-ttl",
                self.default_record_ttl.as_ref(),
                d.record_ttl_default_ms,
            )?,
            wait_max_ms: duration("max-wait", self.max_wait.as_ref(), d.wait_max_ms)?,
            waiters_max: self.max_waiters.unwrap_or(d.waiters_max),
            namespaces_max: self.max_namespaces.unwrap_or(d.namespaces_max),
            connections_max: self.max_connections.unwrap_or(d.connections_max),
            unread_bytes_max: size("max-unread", self.max_unread.as_ref(), d.unread_bytes_max)?,
            unread_timeout_ms: duration(
                "unread-timeout",
                self.unread_timeout.as_ref(),
                d.unread_timeout_ms,
            )?,
            request_timeout_ms: duration(
                "request-timeout",
                self.request_timeout.as_ref(),
                d.request_timeout_ms,
            )?,
        };
        limits.check()?;
        Ok(limits)
    }

    fn fsync(&self) -> Result<Fsync, ConfigError> {
        let Some(text) = self.fsync.as_deref() else {
            return Ok(Fsync::default());
        };
        let found = FSYNC_WORDS
            .iter()
            .find(|(word, _)| text.eq_ignore_ascii_case(word));
        found.map(|&(_, fsync)| fsync).ok_or_else(|| {
            wrong(
                "fsync",
                format!("'{text}' is none of always, everysec and never"),
            )
        })
    }

    fn log_segment(&self) -> Result<u64, ConfigError> {
        const MAX: u64 = 1 << 30;
        let bytes = match &self.log_segment {
            None => LOG_SEGMENT_BYTES,
            Some(text) => parse_size(text).map_err(|message| wrong("log-segment", message))?,
        };
        if !(LOG_SEGMENT_BYTES_MIN..=MAX).contains(&bytes) {
            let (min, max) = (size_word(LOG_SEGMENT_BYTES_MIN), size_word(MAX));
            return Err(wrong(
                "log-segment",
                format!("must lie between {min} and {max}, not {bytes} bytes"),
            ));
        }
        Ok(bytes)
    }

    fn memory(&self) -> Result<u64, ConfigError> {
        let text = self.max_memory.as_deref();
        let bytes = match text.map(|text| (text, text.strip_suffix('%'))) {
            None => share_of_machine(MEMORY_PERCENT)?,
            Some((_, Some(percent))) => match percent.trim().parse() {
                Ok(percent @ 1..=100) => share_of_machine(percent)?,
                _ => return Err(wrong("max-memory", "a percentage lies between 1% and 100%")),
            },
            Some((text, None)) => {
                parse_size(text).map_err(|message| wrong("max-memory", message))?
            }
        };
        if bytes < MEMORY_BYTES_MIN {
            return Err(wrong(
                "max-memory",
                format!("must be at least 1MiB, not {bytes} bytes"),
            ));
        }
        Ok(bytes)
    }

    fn namespaces(&self, limits: &Limits) -> Result<Vec<(String, PolicyChange)>, ConfigError> {
        if self.namespace.len() + 1 > limits.namespaces_max {
            return Err(wrong(
                "namespace",
                format!(
                    "there are more than {} with 'default'",
                    limits.namespaces_max
                ),
            ));
        }
        self.namespace
            .iter()
            .map(|(name, raw)| Ok((name.clone(), raw.check(name, limits)?)))
            .collect()
    }
}

impl RawNamespace {
    fn check(&self, name: &str, limits: &Limits) -> Result<PolicyChange, ConfigError> {
        let at = |field: &str| format!("namespace.{name}.{field}");
        if !is_namespace_name(name.as_bytes()) {
            return Err(wrong(
                format!("namespace.{name}"),
                format!("a name is {NAMESPACE_NAME_FORM}"),
            ));
        }
        let life = |field: &str, text: &Option<String>| match text {
            None => Ok(None),
            Some(text) => match duration(at(field), Some(text), 0)? {
                ms if ms == 0 || ms > limits.ttl_max_ms => Err(wrong(
                    at(field),
                    format!(
                        "must lie between 1ms and {}",
                        DurationWord(limits.ttl_max_ms)
                    ),
                )),
                ms => Ok(Some(ms)),
            },
        };
        let choice = |field: &str, text: &Option<String>, no: &str, yes: &str| match text.as_deref()
        {
            None => Ok(None),
            Some(text) if text.eq_ignore_ascii_case(no) => Ok(Some(false)),
            Some(text) if text.eq_ignore_ascii_case(yes) => Ok(Some(true)),
            Some(text) => Err(wrong(
                at(field),
                format!("'{text}' is neither {no} nor {yes}"),
            )),
        };
        let slides = choice("mode", &self.mode, "fixed", "slide")?;
        let change = PolicyChange {
            ttl_ms: life("ttl", &self.ttl)?,
            ttl_max_ms: life("max-ttl", &self.max_ttl)?,
            mode: slides.map(|slides| {
                if slides {
                    WindowMode::Slide
                } else {
                    WindowMode::Fixed
                }
            }),
            keys_max: self.max_keys,
            evict: choice("full", &self.full, "reject", "evict")?,
            keeps_digests: choice("keys", &self.keys, "exact", "digest")?,
            reports_unsure: choice("unsure", &self.unsure, "new", "report")?,
        };
        Policy::default_of(limits)
            .with(&change)
            .map_err(|error| wrong(format!("namespace.{name}"), error.text))?;
        Ok(change)
    }
}

impl Settings {
    /// Every setting's name and value, as the file would have them.
    pub fn rows(&self) -> Vec<(&'static str, String)> {
        let text = |text: String| toml::Value::String(text).to_string();
        let duration = |ms| text(DurationWord(ms).to_string());
        let listen: Vec<_> = self
            .listen
            .iter()
            .map(|address| text(address.to_string()))
            .collect();
        let limits = &self.limits;
        let fsync = FSYNC_WORDS.iter().find(|(_, fsync)| *fsync == self.fsync);
        let fsync = fsync.map_or("", |(word, _)| *word);
        let data_dir = self
            .data_dir
            .as_ref()
            .map(|path| path.display().to_string());
        let mut rows = vec![
            ("listen", format!("[{}]", listen.join(", "))),
            ("insecure", self.insecure.to_string()),
            ("workers", self.workers.to_string()),
            ("max-memory", text(size_word(self.memory_bytes_max))),
            ("max-connections", limits.connections_max.to_string()),
            ("log", text(self.log.to_string().to_ascii_lowercase())),
            ("default-ttl", duration(limits.ttl_default_ms)),
            ("max-ttl", duration(limits.ttl_max_ms)),
            ("default-lease", duration(limits.lease_default_ms)),
            ("max-lease", duration(limits.lease_max_ms)),
            ("default-record-ttl", duration(limits.record_ttl_default_ms)),
            ("max-wait", duration(limits.wait_max_ms)),
            ("max-waiters", limits.waiters_max.to_string()),
            ("max-key", text(size_word(limits.key_bytes_max as u64))),
            (
                "max-request",
                text(size_word(limits.request_bytes_max as u64)),
            ),
            ("max-batch", limits.batch_keys_max.to_string()),
            ("max-value", text(size_word(limits.body_bytes_max as u64))),
            ("max-namespaces", limits.namespaces_max.to_string()),
            (
                "max-unread",
                text(size_word(limits.unread_bytes_max as u64)),
            ),
            ("unread-timeout", duration(limits.unread_timeout_ms)),
            ("request-timeout", duration(limits.request_timeout_ms)),
            ("create-namespaces", self.create_namespaces.to_string()),
            ("fsync", text(fsync.to_owned())),
            ("recover", self.recovers.to_string()),
            ("restored", self.is_copy.to_string()),
            ("log-segment", text(size_word(self.log_segment_bytes))),
        ];
        rows.extend(data_dir.map(|path| ("data-dir", text(path))));
        rows
    }

    /// All settings as a file that reads back as the same.
    pub fn to_toml(&self) -> String {
        let mut file = String::new();
        for (name, value) in self.rows() {
            file.extend([name, " = ", &value, "\n"]);
        }
        for (name, change) in &self.namespaces {
            let quoted = toml::Value::String(name.clone());
            file.extend(["\n[namespace.", &quoted.to_string(), "]\n"]);
            let word = |ms| format!("\"{}\"", DurationWord(ms));
            let mode = |mode| {
                if mode == WindowMode::Slide {
                    "\"slide\""
                } else {
                    "\"fixed\""
                }
            };
            let full = |evict| if evict { "\"evict\"" } else { "\"reject\"" };
            let keys = |digest| if digest { "\"digest\"" } else { "\"exact\"" };
            let unsure = |report| if report { "\"report\"" } else { "\"new\"" };
            let fields = [
                ("ttl", change.ttl_ms.map(word)),
                ("max-ttl", change.ttl_max_ms.map(word)),
                ("mode", change.mode.map(|chosen| mode(chosen).to_owned())),
                ("max-keys", change.keys_max.map(|keys| keys.to_string())),
                ("full", change.evict.map(|evict| full(evict).to_owned())),
                (
                    "keys",
                    change.keeps_digests.map(|digest| keys(digest).to_owned()),
                ),
                (
                    "unsure",
                    change
                        .reports_unsure
                        .map(|report| unsure(report).to_owned()),
                ),
            ];
            for (field, value) in fields {
                if let Some(value) = value {
                    file.extend([field, " = ", &value, "\n"]);
                }
            }
        }
        file
    }

    /// What the server is made of.
    pub fn server(&self) -> Result<ServerConfig, getrandom::Error> {
        let mut secret = [0; SECRET_BYTES];
        getrandom::fill(&mut secret)?;
        let mut random = [0; 16];
        getrandom::fill(&mut random)?;
        let data = self.data_dir.as_ref().map(|path| DataConfig {
            path: path.clone(),
            fsync: self.fsync,
            recovers: self.recovers,
            is_copy: self.is_copy,
            segment_bytes: self.log_segment_bytes,
            random,
            secrets: segment_secrets(),
        });
        let settings = self
            .rows()
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned()));
        Ok(ServerConfig {
            listen: self.listen.clone(),
            insecure: self.insecure,
            workers: self.workers,
            engine: EngineConfig {
                limits: self.limits.clone(),
                memory_bytes_max: usize::try_from(self.memory_bytes_max).unwrap_or(usize::MAX),
                shards: shards_for(self.workers),
                create_namespaces: self.create_namespaces,
                namespaces: self.namespaces.clone(),
                workers: self.workers,
                secret: Secret::new(secret),
                ..EngineConfig::default()
            },
            settings: settings.collect(),
            data,
        })
    }
}

/// Secrets for the log's segments, from the system.
pub(crate) fn segment_secrets() -> Secrets {
    Secrets::new(|| {
        let mut secret = [0; 16];
        getrandom::fill(&mut secret).map_err(|error| std::io::Error::other(error.to_string()))?;
        Ok(secret)
    })
}

/// Enough shards that two workers seldom want the same one, few enough that an empty namespace stays small.
fn shards_for(workers: usize) -> usize {
    (workers * 8).next_power_of_two().clamp(16, 256)
}

fn wrong(name: impl Into<String>, message: impl Into<String>) -> ConfigError {
    ConfigError::Value {
        name: name.into(),
        message: message.into(),
    }
}

fn duration(
    name: impl Into<String>,
    text: Option<&String>,
    default_ms: u64,
) -> Result<u64, ConfigError> {
    let Some(text) = text else {
        return Ok(default_ms);
    };
    match parse_duration_ms(text.as_bytes()) {
        Ok(ms) if ms <= TTL_CEILING_MS => Ok(ms),
        Ok(_) | Err(DurationError::Overflow) => Err(wrong(
            name,
            format!("'{text}' is over {}", DurationWord(TTL_CEILING_MS)),
        )),
        Err(error) => Err(wrong(name, format!("'{text}': {error}"))),
    }
}

fn size(name: &str, text: Option<&String>, default: usize) -> Result<usize, ConfigError> {
    let Some(text) = text else { return Ok(default) };
    let bytes = parse_size(text).map_err(|message| wrong(name, message))?;
    usize::try_from(bytes).map_err(|_| wrong(name, "too large"))
}

/// So many percent of the memory that this process may use: the machine's, or its cgroup's if that is less.
fn share_of_machine(percent: u64) -> Result<u64, ConfigError> {
    let total = fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| mem_total(&text));
    let total = total.ok_or_else(|| {
        wrong(
            "max-memory",
            "cannot tell this machine's memory; give a size",
        )
    })?;
    let cgroup = cgroup_limits().into_iter().min().unwrap_or(u64::MAX);
    Ok(total.min(cgroup) / 100 * percent)
}

fn mem_total(meminfo: &str) -> Option<u64> {
    let kib: u64 = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?
        .trim()
        .strip_suffix(" kB")?
        .parse()
        .ok()?;
    kib.checked_mul(1 << 10)
}

/// The limits of this process's cgroup and of those it lies in, version 2 and version 1.
fn cgroup_limits() -> Vec<u64> {
    let Ok(memberships) = fs::read_to_string("/proc/self/cgroup") else {
        return Vec::new();
    };
    let mut limits = Vec::new();
    for line in memberships.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
            continue;
        };
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            list if list.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        for folder in Path::new(path.trim_start_matches('/')).ancestors() {
            let text = fs::read_to_string(Path::new(root).join(folder).join(file));
            limits.extend(text.ok().and_then(|text| text.trim().parse::<u64>().ok()));
        }
    }
    limits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(toml: &str) -> Result<Settings, String> {
        let raw: RawSettings = toml::from_str(toml).map_err(|error| error.to_string())?;
        raw.check()
            .map_err(|error| format!("{:#}", anyhow::Error::from(error)))
    }

    #[test]
    fn what_is_shown_reads_back_as_the_same() {
        let settings = RawSettings::default().check().unwrap();
        let again = check(&settings.to_toml()).unwrap();
        assert_eq!(again.rows(), settings.rows());
        assert_eq!(again.limits, Limits::DEFAULT);
    }

    #[test]
    fn values_are_checked_where_they_are_given() {
        for (toml, want) in [
            ("listen = [\"127.0.0.1\"]", "is not an address"),
            ("workers = 0", "workers: must lie between 1 and 1024"),
            ("log = \"loud\"", "log: 'loud'"),
            ("max-memory = \"lots\"", "max-memory: 'lots' is not a size"),
            ("max-memory = \"1KiB\"", "at least 1MiB"),
            ("max-memory = \"0%\"", "between 1% and 100%"),
            ("max-memory = \"99999999999GiB\"", "too large"),
            ("default-ttl = \"60\"", "needs a unit"),
            ("max-ttl = \"9999999d\"", "is over 3650d"),
            ("default-ttl = \"2d\"\nmax-ttl = \"1d\"", "must not exceed"),
            ("max-key = \"8\"", "max-key must lie between 16"),
            ("surprise = 1", "unknown field"),
            ("[namespace.\"a b\"]", "a name is"),
            (
                "[namespace.a]\nttl = \"2d\"\nmax-ttl = \"1d\"",
                "would exceed its longest",
            ),
            (
                "[namespace.a]\nttl = \"0s\"",
                "namespace.a.ttl: must lie between",
            ),
            ("[namespace.a]\nmode = \"both\"", "neither fixed nor slide"),
            (
                "[namespace.a]\nkeys = \"hashed\"",
                "namespace.a.keys: 'hashed' is neither exact nor digest",
            ),
            (
                "[namespace.a]\nunsure = \"maybe\"",
                "namespace.a.unsure: 'maybe' is neither new nor report",
            ),
        ] {
            let error = check(toml).expect_err(toml);
            assert!(error.contains(want), "{toml}: {error}");
        }
    }

    #[test]
    fn a_file_may_say_everything() {
        let settings = check(
            "listen = [\"127.0.0.1:0\", \"unix:/tmp/on\\\"ced\"]\nworkers = 3\nmax-memory = \"2GiB\"\ninsecure = true\n\
             create-namespaces = false\nmax-ttl = \"2h\"\n\
             [namespace.orders]\nttl = \"10m\"\nmode = \"slide\"\nmax-keys = 5\nfull = \"evict\"\nkeys = \"digest\"\n\
             unsure = \"report\"\n[namespace.\"plain:set\"]\nkeys = \"exact\"\nunsure = \"new\"\n",
        )
        .unwrap();
        assert_eq!(
            (
                settings.workers,
                settings.memory_bytes_max,
                settings.listen.len()
            ),
            (3, 2 << 30, 2)
        );
        let change = PolicyChange {
            ttl_ms: Some(600_000),
            ttl_max_ms: None,
            mode: Some(WindowMode::Slide),
            keys_max: Some(5),
            evict: Some(true),
            keeps_digests: Some(true),
            reports_unsure: Some(true),
        };
        let plain = PolicyChange {
            keeps_digests: Some(false),
            reports_unsure: Some(false),
            ..PolicyChange::default()
        };
        assert_eq!(
            settings.namespaces,
            [
                ("orders".to_owned(), change),
                ("plain:set".to_owned(), plain)
            ]
        );
        let again = check(&settings.to_toml()).unwrap();
        assert_eq!(
            (again.rows(), again.namespaces),
            (settings.rows(), settings.namespaces)
        );
    }

    #[test]
    fn a_flag_goes_over_the_file() {
        let file = RawSettings {
            workers: Some(1),
            max_batch: Some(7),
            ..RawSettings::default()
        };
        let flags = RawSettings {
            workers: Some(2),
            ..RawSettings::default()
        };
        let settings = flags.over(file).check().unwrap();
        assert_eq!((settings.workers, settings.limits.batch_keys_max), (2, 7));
    }

    #[test]
    fn the_machine_tells_its_memory() {
        assert_eq!(
            mem_total("MemTotal:       100 kB\nMemFree: 1 kB\n"),
            Some(102_400)
        );
    }
}
