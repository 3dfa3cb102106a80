//! Loads: runs of `onced bench`, described, made and read.
//!
//! A load that got an error reply, or that a fresh server answered `NEW` to more or fewer keys
//! than there were, is an error: such a server was not measured at doing its work.

use std::process::{Child, Stdio};

use anyhow::{Context, ensure};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::floor::MSEEN_KEYS;
use crate::hold::{self, KilledOnDrop, Priority};
use crate::server::Running;

/// What is asked, and how it is worded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Form {
    /// `SET key 1 NX PX ms`, in RESP.
    Set,
    /// `SEEN key ttl`, in a line.
    Seen,
    /// `MSEEN ttl key…` of a hundred keys, in a line.
    Mseen,
    /// memcached's `add`.
    Add,
}

impl Form {
    /// Keys in a request.
    pub(crate) const fn keys(self) -> u64 {
        match self {
            Self::Mseen => MSEEN_KEYS as u64,
            _ => 1,
        }
    }

    /// How a table's row names it.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Set => "`SET k 1 NX PX` (RESP)",
            Self::Seen => "`SEEN` (line)",
            Self::Mseen => "`MSEEN` of 100 (line)",
            Self::Add => "`add`",
        }
    }

    const fn words(self) -> [&'static str; 2] {
        match self {
            Self::Set => ["resp", "set"],
            Self::Seen => ["line", "seen"],
            Self::Mseen => ["line", "mseen"],
            Self::Add => ["memcached", "add"],
        }
    }
}

/// How long a load lasts.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Length {
    Requests(u64),
    Milliseconds(u64),
}

/// A load; all of them ask for keys that live long unless it says otherwise.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) form: Form,
    pub(crate) length: Length,
    /// Decides the keys.
    pub(crate) seed: u64,
    /// Requests in flight per connection; with a rate, at most.
    pub(crate) pipeline: u64,
    pub(crate) connections: u64,
    /// Percent of the keys that were asked for before.
    pub(crate) repeat: u64,
    /// The keys' shape, as `onced bench --keys` names it.
    pub(crate) keys: &'static str,
    pub(crate) ttl_ms: u64,
    pub(crate) rate_per_s: Option<u64>,
    pub(crate) warmup_ms: u64,
    pub(crate) priority: Priority,
}

impl Load {
    /// The usual load: 50 connections, UUIDs of which 30% are repeats, an hour to live, as fast
    /// as the server answers.
    pub(crate) fn usual(form: Form, length: Length, pipeline: u64, seed: u64) -> Self {
        Self {
            form,
            length,
            seed,
            pipeline,
            connections: 50,
            repeat: 30,
            keys: "uuid",
            ttl_ms: 3_600_000,
            rate_per_s: None,
            warmup_ms: 0,
            priority: Priority::Usual,
        }
    }

    /// A load of `keys` different keys, to fill a server with.
    pub(crate) fn filling(form: Form, keys: u64, seed: u64) -> Self {
        Self {
            repeat: 0,
            ..Self::usual(form, Length::Requests(keys / form.keys()), 64, seed)
        }
    }

    /// The first `keys` keys of this load once more, as fast as the server answers.
    pub(crate) fn first(&self, keys: u64) -> Self {
        Self {
            length: Length::Requests(keys / self.form.keys()),
            rate_per_s: None,
            ..self.clone()
        }
    }

    /// Makes the load, and returns when it is over.
    pub(crate) fn run(&self, server: &Running, core: usize) -> anyhow::Result<Outcome> {
        self.start(server, core)?.finish()
    }

    /// Begins the load.
    pub(crate) fn start(&self, server: &Running, core: usize) -> anyhow::Result<Started> {
        let mut command = hold::command(&[core], self.priority, env!("CARGO_BIN_EXE_onced"))?;
        let [protocol, verb] = self.form.words();
        command
            .args(["bench", "--json", "--protocol", protocol, "--command", verb])
            .arg(format!("--server=127.0.0.1:{}", server.port))
            // What it fills is looked at afterwards.
            .arg("--keep")
            .arg(format!("--seed={}", self.seed))
            .arg(format!("--pipeline={}", self.pipeline))
            .arg(format!("--connections={}", self.connections))
            .arg(format!("--repeat={}", self.repeat))
            .arg(format!("--keys={}", self.keys))
            .arg(format!("--ttl={}ms", self.ttl_ms))
            .arg(format!("--warmup={}ms", self.warmup_ms));
        match self.length {
            Length::Requests(requests) => command.arg(format!("--requests={requests}")),
            Length::Milliseconds(ms) => command.arg(format!("--duration={ms}ms")),
        };
        if let Some(rate) = self.rate_per_s {
            command.arg(format!("--rate={rate}"));
        }
        if self.form == Form::Mseen {
            command.arg(format!("--batch={MSEEN_KEYS}"));
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start onced bench")?;
        Ok(Started {
            load: self.clone(),
            child: KilledOnDrop(child),
        })
    }
}

/// A load under way; it is killed when dropped.
#[derive(Debug)]
pub(crate) struct Started {
    load: Load,
    child: KilledOnDrop,
}

impl Started {
    /// Waits for its end and reads its report.
    pub(crate) fn finish(mut self) -> anyhow::Result<Outcome> {
        let (said, complaint) = read_all(&mut self.child.0)?;
        let status = self.child.0.wait()?;
        ensure!(
            status.success(),
            "the load failed, with {status}: {}{said}; it was {:?}",
            complaint.trim_end(),
            self.load
        );
        let outcome: Outcome =
            serde_json::from_str(&said).context("onced bench --json is not what was expected")?;
        ensure!(
            outcome.replies > 0,
            "a load without replies: {:?}",
            self.load
        );
        Ok(outcome)
    }
}

/// Both streams to their ends. Neither is longer than a pipe holds, so one after the other is fine.
fn read_all(child: &mut Child) -> anyhow::Result<(String, String)> {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let said = stdout.map(std::io::read_to_string).transpose()?;
    let complaint = stderr.map(std::io::read_to_string).transpose()?;
    Ok((said.unwrap_or_default(), complaint.unwrap_or_default()))
}

/// What a load found: the fields of `onced bench --json` that are used here.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) requests: u64,
    pub(crate) replies: u64,
    pub(crate) elapsed_s: f64,
    pub(crate) keys_per_s: f64,
    new: u64,
    expected_new: Option<u64>,
    pub(crate) latency_us: Latency,
    schedule: Option<Kept>,
}

/// Latencies in microseconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    #[serde(rename = "p99.9")]
    pub(crate) p99_9: f64,
    #[serde(rename = "p99.99")]
    pub(crate) p99_99: f64,
    pub(crate) max: f64,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct Kept {
    sent_late: u64,
}

impl Outcome {
    /// That a server which stores, and was empty, knew each key exactly from its first time on.
    pub(crate) fn check_fresh(&self) -> anyhow::Result<()> {
        ensure!(
            self.expected_new == Some(self.new),
            "a fresh server owed NEW to {:?} keys and gave it to {}",
            self.expected_new,
            self.new
        );
        Ok(())
    }

    /// That a server which has all of these keys knew every one.
    pub(crate) fn check_known(&self) -> anyhow::Result<()> {
        ensure!(
            self.new == 0,
            "of {} keys that were there, the server did not know {}",
            self.replies,
            self.new
        );
        Ok(())
    }

    /// How many keys were new to the server.
    pub(crate) fn new_keys(&self) -> u64 {
        self.new
    }

    /// The share of requests that could not be sent within a millisecond of their time, in percent.
    pub(crate) fn late_percent(&self) -> f64 {
        let late = self.schedule.map_or(0, |kept| kept.sent_late);
        late as f64 * 100.0 / self.requests.max(1) as f64
    }
}
