//! Stalls: what a client notices while the server has something big to do.
//!
//! A prober asks 4,000 times a second on a fixed schedule, of a quiet server, of one that takes
//! ten million keys in, and of one whose ten million keys all end within about a second. Between
//! its requests the server has time enough; what the prober waits for is work that cannot be
//! interrupted.
//!
//! Prober and load share a core. So the load that brings the keys follows a fixed rate too, below
//! what the slowest server can do, and yields to the prober (`nice`); and the prober's latency on
//! a quiet server, which is mostly timers and scheduling, stands beside the others.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::bail;
use serde::Serialize;

use crate::hold::Priority;
use crate::load::{Form, Latency, Length, Load, Outcome};
use crate::options::Scale;
use crate::rate::{share_of, slowest_per_s};
use crate::report::{Bench, Table, median, medians_of, microseconds, thousands};
use crate::server::{Kind, Running, Server};

/// Of the prober.
pub(crate) const PROBES_PER_S: u64 = 4_000;
/// Percent of what the slowest server can do at which keys come in.
const LOAD_PERCENT: u64 = 60;
/// The prober's seed, that of the first load, and on from there.
const PROBER_SEED: u64 = 1;
const LOAD_SEED: u64 = 1_000;

/// What the server is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Phase {
    Quiet,
    Inserting,
    Ending,
}

const PHASES: [Phase; 3] = [Phase::Quiet, Phase::Inserting, Phase::Ending];

/// One phase of one server.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    round: u32,
    server: Kind,
    phase: Phase,
    load_rate_per_s: Option<u64>,
    /// How much of its rate the load has reached.
    load_kept_rate_percent: Option<f64>,
    latency_us: Latency,
    /// From the read that brought a probe to its reply; onced's own count.
    server_p9999_us: Option<f64>,
    late_percent: f64,
    memory: Option<Memory>,
}

/// Memory and keys around the end of the keys' time.
#[derive(Clone, Copy, Debug, Serialize)]
struct Memory {
    empty_bytes: u64,
    full_bytes: u64,
    full_keys: u64,
    /// When the prober was through.
    probed_bytes: u64,
    probed_keys: u64,
    /// When there had been more time.
    settled_bytes: u64,
    settled_keys: u64,
}

/// All runs of this part.
pub(crate) fn measure(
    bench: &Bench,
    capacities: &BTreeMap<Kind, f64>,
) -> anyhow::Result<Vec<Figure>> {
    let load_rate_per_s = share_of(slowest_per_s(capacities), LOAD_PERCENT);
    let mut figures = Vec::new();
    for round in 1..=bench.scale.stall_rounds {
        for phase in PHASES {
            for server in bench.servers.iter().filter(|server| server.kind.stores()) {
                let run = || Run::start(bench, server, round);
                let figure = match phase {
                    Phase::Quiet => run()?.quiet()?,
                    Phase::Inserting => run()?.inserting(load_rate_per_s)?,
                    Phase::Ending => ending(run, capacities.get(&server.kind).copied())?,
                };
                bench.progress(&format!(
                    "stalls, round {round} of {}: {server}, {}: p99.99 {} µs",
                    bench.scale.stall_rounds,
                    phase.title(),
                    microseconds(figure.latency_us.p99_99)
                ));
                figures.push(figure);
            }
        }
    }
    Ok(figures)
}

/// A run whose keys end together. When they all have to be there is reckoned from
/// `capacity_per_s`; should the machine have become too busy for that, another run gets more time.
fn ending<'a>(
    run: impl Fn() -> anyhow::Result<Run<'a>>,
    capacity_per_s: Option<f64>,
) -> anyhow::Result<Figure> {
    for times_longer in [1, 2, 4] {
        if let Some(figure) = run()?.ending(capacity_per_s.unwrap_or(100_000.0), times_longer)? {
            return Ok(figure);
        }
    }
    bail!("keys came too slowly to end together, in three runs: is the machine busy?")
}

/// A fresh server and what is done to it.
struct Run<'a> {
    bench: &'a Bench,
    server: &'a Server,
    running: Running,
    round: u32,
}

impl<'a> Run<'a> {
    fn start(bench: &'a Bench, server: &'a Server, round: u32) -> anyhow::Result<Self> {
        Ok(Self {
            bench,
            server,
            running: server.start(bench.cores.server)?,
            round,
        })
    }

    fn quiet(&self) -> anyhow::Result<Figure> {
        let probed = prober(self.bench, self.server.kind, self.bench.scale.stall_ms);
        let outcome = probed.run(&self.running, self.bench.cores.load)?;
        self.figure(Phase::Quiet, &outcome)
    }

    fn inserting(&self, rate_per_s: u64) -> anyhow::Result<Figure> {
        let Bench { scale, cores, .. } = self.bench;
        let lasts_ms = scale.stall_keys * 1_000 / rate_per_s;
        let load = Load {
            rate_per_s: Some(rate_per_s),
            priority: Priority::Low,
            ..Load::filling(self.load_form(), scale.stall_keys, LOAD_SEED)
        };
        let load = load.start(&self.running, cores.load)?;
        // Warm-up and asking take as long as the keys take to come.
        let probing_ms = lasts_ms.saturating_sub(scale.warmup_ms).max(100);
        let prober = prober(self.bench, self.server.kind, probing_ms);
        let outcome = prober.run(&self.running, cores.load)?;
        let loaded = load.finish()?;
        loaded.check_fresh()?;
        Ok(Figure {
            load_rate_per_s: Some(rate_per_s),
            load_kept_rate_percent: Some(loaded.keys_per_s * 100.0 / rate_per_s as f64),
            ..self.figure(Phase::Inserting, &outcome)?
        })
    }

    /// `None` when the keys were not all there in time.
    fn ending(&self, capacity_per_s: f64, times_longer: u32) -> anyhow::Result<Option<Figure>> {
        let Bench { scale, cores, .. } = self.bench;
        let empty_bytes = self.running.resident()?.bytes;
        let window = filling_window(scale, capacity_per_s) * times_longer;
        let ends = Instant::now() + window;
        if !self.fill_until(ends)? {
            return Ok(None);
        }
        let full_bytes = self.running.resident()?.bytes;
        let full_keys = self.running.keys()?;
        let warmup = Duration::from_millis(scale.warmup_ms);
        sleep_until(ends.checked_sub(warmup).unwrap_or(ends));
        let prober = prober(self.bench, self.server.kind, scale.stall_ms);
        let outcome = prober.run(&self.running, cores.load)?;
        let probed_bytes = self.running.resident()?.bytes;
        let probed_keys = self.running.keys()?;
        let figure = self.figure(Phase::Ending, &outcome)?;
        sleep_until(ends + Duration::from_millis(scale.stall_settled_ms));
        Ok(Some(Figure {
            memory: Some(Memory {
                empty_bytes,
                full_bytes,
                full_keys,
                probed_bytes,
                probed_keys,
                settled_bytes: self.running.resident()?.bytes,
                settled_keys: self.running.keys()?,
            }),
            ..figure
        }))
    }

    /// Brings keys that all end at `ends`, or as long after it as their part took to come: each
    /// part lives shorter than the one before. Whether they are all there in time for the prober.
    fn fill_until(&self, ends: Instant) -> anyhow::Result<bool> {
        let Bench { scale, cores, .. } = self.bench;
        let warmup = Duration::from_millis(scale.warmup_ms);
        let too_late = Duration::from_millis(500) + warmup;
        for part in 0..scale.stall_parts {
            let left = ends.saturating_duration_since(Instant::now());
            if left < too_late {
                return Ok(false);
            }
            let keys = scale.stall_keys / scale.stall_parts;
            let load = Load {
                ttl_ms: left.as_millis() as u64,
                ..Load::filling(self.load_form(), keys, LOAD_SEED + part)
            };
            load.run(&self.running, cores.load)?.check_fresh()?;
        }
        Ok(Instant::now() + warmup < ends)
    }

    /// The form of the loads: not the prober's where that is onced, which counts each verb's
    /// latency by itself.
    fn load_form(&self) -> Form {
        self.server.kind.forms()[0]
    }

    fn figure(&self, phase: Phase, outcome: &Outcome) -> anyhow::Result<Figure> {
        Ok(Figure {
            round: self.round,
            server: self.server.kind,
            phase,
            load_rate_per_s: None,
            load_kept_rate_percent: None,
            latency_us: outcome.latency_us,
            server_p9999_us: self.running.seen_p9999_us()?,
            late_percent: outcome.late_percent(),
            memory: None,
        })
    }
}

/// The load that asks while something else goes on.
pub(crate) fn prober(bench: &Bench, server: Kind, lasts_ms: u64) -> Load {
    let form = match server {
        Kind::Onced => Form::Seen,
        other => other.forms()[0],
    };
    Load {
        connections: 4,
        rate_per_s: Some(PROBES_PER_S),
        warmup_ms: bench.scale.warmup_ms,
        // More than come due in a second: a stalled server owes what it owes.
        ..Load::usual(form, Length::Milliseconds(lasts_ms), 4_096, PROBER_SEED)
    }
}

/// How long keys that are to end together may take to come to a server that takes
/// `capacity_per_s`.
pub(crate) fn filling_window(scale: &Scale, capacity_per_s: f64) -> Duration {
    // Growing tables slow the last keys down, and every part starts a process.
    let filling_s = scale.stall_keys as f64 / capacity_per_s * 1.8;
    let starting_s = scale.stall_parts as f64 * 0.05;
    Duration::from_secs_f64(filling_s + starting_s) + Duration::from_millis(scale.stall_slack_ms)
}

/// Waits for `moment`, if it is still to come.
pub(crate) fn sleep_until(moment: Instant) {
    thread::sleep(moment.saturating_duration_since(Instant::now()));
}

impl Phase {
    const fn title(self) -> &'static str {
        match self {
            Self::Quiet => "quiet",
            Self::Inserting => "keys come in",
            Self::Ending => "keys end together",
        }
    }
}

/// The part of the report.
pub(crate) fn print(bench: &Bench, figures: &[Figure]) {
    let keys = thousands(bench.scale.stall_keys as f64);
    let rate = figures.iter().find_map(|figure| figure.load_rate_per_s);
    let kept_percent = figures
        .iter()
        .filter_map(|figure| figure.load_kept_rate_percent)
        .fold(100.0, f64::min);
    println!("## Stalls\n");
    println!(
        "A prober on 4 connections asks {} times a second on a fixed schedule, latency counted \
         from the moment a request was due. Quiet: nothing else for {} s. Keys come in: {keys} \
         different keys into an empty server, on 50 connections at a fixed rate of {}/s (of which \
         {kept_percent:.0}% or more was reached), by a second load generator on the prober's core \
         that yields to it. Keys end together: {keys} keys came before the prober, with times to \
         live that end within about a second (in whole seconds with memcached), and the prober \
         asks during that second and until {} s after its beginning. {}, each on a fresh server.\n",
        thousands(PROBES_PER_S as f64),
        seconds(bench.scale.stall_ms),
        thousands(rate.unwrap_or(0) as f64),
        seconds(bench.scale.stall_ms),
        medians_of(bench.scale.stall_rounds)
    );
    print_latency(bench, figures);
    print_memory(bench, figures);
}

fn print_latency(bench: &Bench, figures: &[Figure]) {
    let columns = PHASES.map(|phase| phase.title().to_owned());
    let mut table = Table::new("the prober's latency in µs: p99.9, p99.99 (late)", columns);
    for server in bench.servers.iter().filter(|server| server.kind.stores()) {
        let at = |phase: Phase, field: fn(&Figure) -> Option<f64>| {
            let values: Vec<_> = figures
                .iter()
                .filter(|figure| figure.server == server.kind && figure.phase == phase)
                .filter_map(field)
                .collect();
            median(&values)
        };
        let row = PHASES.map(|phase| {
            let p99_9 = microseconds(at(phase, |figure| Some(figure.latency_us.p99_9))?);
            let p99_99 = microseconds(at(phase, |figure| Some(figure.latency_us.p99_99))?);
            let late = at(phase, |figure| Some(figure.late_percent))?;
            Some(format!("{p99_9}, {p99_99} ({late:.2}%)"))
        });
        table.row(&server.to_string(), row);
        if server.kind == Kind::Onced {
            let row =
                PHASES.map(|phase| at(phase, |figure| figure.server_p9999_us).map(microseconds));
            table.row("onced's own count of it, p99.99", row);
        }
    }
    println!("{table}");
}

fn print_memory(bench: &Bench, figures: &[Figure]) {
    let moments = [
        "before the keys end".to_owned(),
        format!("after {} s", seconds(bench.scale.stall_ms)),
        format!("after {} s", seconds(bench.scale.stall_settled_ms)),
    ];
    let mut table = Table::new(
        "resident MiB beyond the empty server's (keys held)",
        moments,
    );
    for server in bench.servers.iter().filter(|server| server.kind.stores()) {
        let memories: Vec<Memory> = figures
            .iter()
            .filter(|figure| figure.server == server.kind)
            .filter_map(|figure| figure.memory)
            .collect();
        let cell = |bytes: fn(&Memory) -> u64, keys: fn(&Memory) -> u64| {
            let more = |memory: &Memory| bytes(memory).saturating_sub(memory.empty_bytes);
            let mib: Vec<_> = memories
                .iter()
                .map(|memory| more(memory) as f64 / 1_048_576.0)
                .collect();
            let keys: Vec<_> = memories.iter().map(|memory| keys(memory) as f64).collect();
            Some(format!(
                "{:.0} ({})",
                median(&mib)?,
                thousands(median(&keys)?)
            ))
        };
        let row = [
            cell(|memory| memory.full_bytes, |memory| memory.full_keys),
            cell(|memory| memory.probed_bytes, |memory| memory.probed_keys),
            cell(|memory| memory.settled_bytes, |memory| memory.settled_keys),
        ];
        table.row(&server.to_string(), row);
    }
    println!("{table}");
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1e3
}
