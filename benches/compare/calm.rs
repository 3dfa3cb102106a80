//! Calm: what other clients notice of a log that has to be cleared of what is over, and when the
//! disk has its space back.
//!
//! The prober of `stalls` asks of a server that syncs its log once a second: a quiet one; one
//! whose log of several hundred megabytes becomes nine tenths dead within a second, the dead
//! scattered among the living, so that the living must be copied (compaction; the peers rewrite
//! their log when they find it has doubled, as they do by default); and one whose keys all end
//! within a second, so that nothing in its log is left to keep.
//!
//! A server has given its space back when its folder holds no more than when it was empty, twice
//! what the living keys need, and 64 MiB. After a compaction the server is started once more, and
//! must know the living keys and none of the dead.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::bail;
use serde::Serialize;

use crate::folder::Folder;
use crate::load::{Latency, Load, Outcome};
use crate::persistence::{Fsync, Log};
use crate::report::{Bench, Table, median, medians_of, microseconds, thousands};
use crate::server::{Kind, Running, Server, Setup};
use crate::stalls::{PROBES_PER_S, filling_window, prober, sleep_until};

/// The first parts' seeds: of keys that end while the prober asks, and of those that live on.
const SHORT_SEED: u64 = 1_000;
const LONG_SEED: u64 = 2_000;
/// One key in this many lives on where a log is to be compacted.
const LONG_ONE_IN: u64 = 10;
/// What may be left of a log beside twice what lives.
const DEAD_BYTES_MAX: u64 = 64 << 20;
/// How often the folder is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How many keys of a part are asked for after a start.
const SAMPLE: u64 = 1_000;

/// What the server is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Phase {
    Quiet,
    Compacting,
    Ending,
}

const PHASES: [Phase; 3] = [Phase::Quiet, Phase::Compacting, Phase::Ending];

impl Phase {
    const fn title(self) -> &'static str {
        match self {
            Self::Quiet => "quiet",
            Self::Compacting => "log is compacted",
            Self::Ending => "keys end together",
        }
    }
}

/// One phase of one server.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    round: u32,
    server: Kind,
    phase: Phase,
    latency_us: Latency,
    server_p9999_us: Option<f64>,
    late_percent: f64,
    space: Option<Space>,
}

/// The folder's bytes around the end of the keys' time.
#[derive(Clone, Copy, Debug, Serialize)]
struct Space {
    empty_bytes: u64,
    full_bytes: u64,
    /// How few there have to be.
    wanted_bytes: u64,
    /// When there were that few, since the keys began to end; `None` if that was not seen.
    given_back_s: Option<f64>,
    /// At the last look.
    left_bytes: u64,
}

/// All runs of this part.
pub(crate) fn measure(
    bench: &Bench,
    capacities: &BTreeMap<Kind, f64>,
) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for round in 1..=bench.scale.stall_rounds {
        for phase in PHASES {
            for server in bench.log_keepers() {
                let capacity_per_s = capacities.get(&server.kind).copied().unwrap_or(100_000.0);
                let figure = run(bench, server, phase, round, capacity_per_s)?;
                bench.progress(&format!(
                    "calm, round {round} of {}: {server}, {}: p99.9 {} µs{}",
                    bench.scale.stall_rounds,
                    phase.title(),
                    microseconds(figure.latency_us.p99_9),
                    figure.space.map_or(String::new(), |space| format!(
                        ", {:.0} of {:.0} MiB left{}",
                        mib(space.left_bytes),
                        mib(space.full_bytes),
                        space
                            .given_back_s
                            .map_or(String::new(), |s| format!(" after {s:.1} s"))
                    ))
                ));
                figures.push(figure);
            }
        }
    }
    Ok(figures)
}

/// Keys that did not come in time for ending together get more of it in another run.
fn run(
    bench: &Bench,
    server: &Server,
    phase: Phase,
    round: u32,
    capacity_per_s: f64,
) -> anyhow::Result<Figure> {
    for times_longer in [1, 2, 4] {
        let folder = bench.folder()?;
        let run = Run {
            bench,
            server,
            phase,
            round,
            running: start(bench, server, &folder)?,
            folder: &folder,
        };
        if phase == Phase::Quiet {
            return run.quiet();
        }
        let window = filling_window(&bench.scale, capacity_per_s) * times_longer;
        if let Some(figure) = run.ending(window)? {
            return Ok(figure);
        }
    }
    bail!("keys came too slowly to end together, in three runs: is the machine busy?")
}

fn start(bench: &Bench, server: &Server, folder: &Folder) -> anyhow::Result<Running> {
    server.start_with(&Setup {
        cores: &[bench.cores.server],
        log: Some(Log {
            folder: folder.path(),
            fsync: Fsync::Everysec,
            rewritten: true,
        }),
        unix: None,
    })
}

/// A fresh server and what is done to it.
struct Run<'a> {
    bench: &'a Bench,
    server: &'a Server,
    phase: Phase,
    round: u32,
    running: Running,
    folder: &'a Folder,
}

impl Run<'_> {
    fn quiet(&self) -> anyhow::Result<Figure> {
        let outcome = self.probe()?;
        self.figure(&outcome, None)
    }

    /// `None` when the keys were not all there in time.
    fn ending(self, window: Duration) -> anyhow::Result<Option<Figure>> {
        let scale = &self.bench.scale;
        let empty_bytes = self.folder.bytes()?;
        let ends = Instant::now() + window;
        if !self.fill_until(ends)? {
            return Ok(None);
        }
        let full_bytes = self.folder.bytes()?;
        let wanted_bytes = empty_bytes + DEAD_BYTES_MAX + 2 * self.living_bytes();
        let warmup = Duration::from_millis(scale.warmup_ms);
        sleep_until(ends.checked_sub(warmup).unwrap_or(ends));
        let (outcome, space) = thread::scope(|scope| {
            let watch = scope.spawn(|| self.watch(ends, wanted_bytes));
            let outcome = self.probe();
            (
                outcome,
                watch.join().expect("a folder's watch does not panic"),
            )
        });
        let (given_back_s, left_bytes) = space?;
        let space = Space {
            empty_bytes,
            full_bytes,
            wanted_bytes,
            given_back_s,
            left_bytes,
        };
        let figure = self.figure(&outcome?, Some(space))?;
        if self.phase == Phase::Compacting {
            self.check_restarted()?;
        }
        Ok(Some(figure))
    }

    /// Brings keys that end at `ends` or within about a second of it, and in between those that
    /// live on, both in parts. Whether they are all there in time for the prober.
    fn fill_until(&self, ends: Instant) -> anyhow::Result<bool> {
        let Bench { scale, cores, .. } = self.bench;
        let warmup = Duration::from_millis(scale.warmup_ms);
        let too_late = Duration::from_millis(500) + warmup;
        for part in 0..scale.stall_parts {
            let left = ends.saturating_duration_since(Instant::now());
            if left < too_late {
                return Ok(false);
            }
            let living = match self.phase {
                Phase::Compacting => Some(self.long(part).start(&self.running, cores.load)?),
                _ => None,
            };
            let dying = Load {
                ttl_ms: left.as_millis() as u64,
                ..self.short(part)
            };
            dying.run(&self.running, cores.load)?.check_fresh()?;
            if let Some(living) = living {
                living.finish()?.check_fresh()?;
            }
        }
        Ok(Instant::now() + warmup < ends)
    }

    fn short(&self, part: u64) -> Load {
        let keys = self.bench.scale.stall_keys / self.bench.scale.stall_parts;
        let keys = match self.phase {
            Phase::Compacting => keys - keys / LONG_ONE_IN,
            _ => keys,
        };
        Load::filling(self.server.kind.forms()[0], keys, SHORT_SEED + part)
    }

    fn long(&self, part: u64) -> Load {
        let keys = self.bench.scale.stall_keys / self.bench.scale.stall_parts / LONG_ONE_IN;
        Load::filling(self.server.kind.forms()[0], keys, LONG_SEED + part)
    }

    fn probe(&self) -> anyhow::Result<Outcome> {
        let prober = prober(self.bench, self.server.kind, self.bench.scale.stall_ms);
        let outcome = prober.run(&self.running, self.bench.cores.load)?;
        outcome.check_fresh()?;
        Ok(outcome)
    }

    /// What the keys take that still live at the end: those that were to, and the prober's.
    fn living_bytes(&self) -> u64 {
        let scale = &self.bench.scale;
        let long_keys = match self.phase {
            Phase::Compacting => scale.stall_keys / LONG_ONE_IN,
            _ => 0,
        };
        let probed_keys = PROBES_PER_S * (scale.warmup_ms + scale.stall_ms) / 1_000;
        let bytes_per_key = match self.server.kind {
            Kind::Onced => 30,
            _ => 93, // as the peers append a `SET` with its deadline
        };
        (long_keys + probed_keys) * bytes_per_key
    }

    /// Looks at the folder until it has no more than `wanted_bytes`; when that was, in seconds
    /// after `ends`, and how many bytes there are at the last look.
    fn watch(&self, ends: Instant, wanted_bytes: u64) -> anyhow::Result<(Option<f64>, u64)> {
        let until = ends + Duration::from_millis(self.bench.scale.space_ms);
        sleep_until(ends);
        loop {
            let bytes = self.folder.bytes()?;
            if bytes <= wanted_bytes {
                return Ok((Some(ends.elapsed().as_secs_f64()), bytes));
            }
            if Instant::now() >= until {
                return Ok((None, bytes));
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    /// That a server which reads what is left of the log knows what lives, and nothing else.
    fn check_restarted(self) -> anyhow::Result<()> {
        let Bench { scale, cores, .. } = self.bench;
        let loads: Vec<_> = (0..scale.stall_parts)
            .map(|part| {
                (
                    self.long(part).first(SAMPLE),
                    self.short(part).first(SAMPLE),
                )
            })
            .collect();
        self.running.stop()?;
        let running = start(self.bench, self.server, self.folder)?;
        for (living, dead) in loads {
            living.run(&running, cores.load)?.check_known()?;
            dead.run(&running, cores.load)?.check_fresh()?;
        }
        Ok(())
    }

    fn figure(&self, outcome: &Outcome, space: Option<Space>) -> anyhow::Result<Figure> {
        Ok(Figure {
            round: self.round,
            server: self.server.kind,
            phase: self.phase,
            latency_us: outcome.latency_us,
            server_p9999_us: self.running.seen_p9999_us()?,
            late_percent: outcome.late_percent(),
            space,
        })
    }
}

/// The part of the report.
pub(crate) fn print(bench: &Bench, figures: &[Figure]) {
    let scale = &bench.scale;
    let keys = thousands(scale.stall_keys as f64);
    println!("## Calm\n");
    println!(
        "A server with a log, synced once a second, and a prober on 4 connections that asks {} \
         times a second for {} s, as in \"Stalls\". Quiet: nothing else. Log is compacted: {keys} \
         keys came before, all but one in {LONG_ONE_IN} of which end as the prober begins. Keys \
         end together: {keys} came, and all end as the prober begins. Space counts as given back \
         when the folder holds no more than when it was empty, {} MiB, and twice what lives; it \
         was watched for {} s. {}, each on a fresh server.\n",
        thousands(PROBES_PER_S as f64),
        scale.stall_ms as f64 / 1e3,
        DEAD_BYTES_MAX >> 20,
        scale.space_ms as f64 / 1e3,
        medians_of(scale.stall_rounds)
    );
    print_latency(bench, figures);
    print_space(bench, figures);
}

fn print_latency(bench: &Bench, figures: &[Figure]) {
    let columns = PHASES.map(|phase| phase.title().to_owned());
    let title = "the prober's latency in µs: p99.9, p99.99 (p99.9 over the quiet one's)";
    let mut table = Table::new(title, columns);
    for server in bench.log_keepers() {
        let row = PHASES.map(|phase| {
            let p99_9 = of(figures, server, phase, |f| Some(f.latency_us.p99_9))?;
            let p99_99 = of(figures, server, phase, |f| Some(f.latency_us.p99_99))?;
            let quiet = of(figures, server, Phase::Quiet, |f| Some(f.latency_us.p99_9))?;
            let [text, text_99] = [p99_9, p99_99].map(microseconds);
            Some(format!("{text}, {text_99} ({:.2})", p99_9 / quiet))
        });
        table.row(&server.to_string(), row);
        if server.kind == Kind::Onced {
            let row = PHASES
                .map(|phase| of(figures, server, phase, |f| f.server_p9999_us).map(microseconds));
            table.row("onced's own count of it, p99.99", row);
        }
    }
    println!("{table}");
}

fn print_space(bench: &Bench, figures: &[Figure]) {
    let phases = [Phase::Compacting, Phase::Ending];
    let columns = phases.map(|phase| phase.title().to_owned());
    let title = "MiB of log before, and at the last look; seconds until they were given back";
    let mut table = Table::new(title, columns);
    for server in bench.log_keepers() {
        let row = phases.map(|phase| {
            let space = |field: fn(&Space) -> Option<f64>| {
                let of_phase = figures
                    .iter()
                    .filter(|figure| figure.server == server.kind && figure.phase == phase);
                let values: Vec<_> = of_phase
                    .filter_map(|figure| field(figure.space.as_ref()?))
                    .collect();
                median(&values)
            };
            let full = space(|space| Some(mib(space.full_bytes)))?;
            let left = space(|space| Some(mib(space.left_bytes)))?;
            // A run in which they were not counts as endless, so that the median tells of it.
            let after = space(|space| Some(space.given_back_s.unwrap_or(f64::INFINITY)))?;
            let after = if after.is_finite() {
                format!("{after:.1} s")
            } else {
                "not seen".to_owned()
            };
            Some(format!("{full:.0}, {left:.0}; {after}"))
        });
        table.row(&server.to_string(), row);
    }
    println!("{table}");
}

fn of(
    figures: &[Figure],
    server: &Server,
    phase: Phase,
    field: fn(&Figure) -> Option<f64>,
) -> Option<f64> {
    let values: Vec<_> = figures
        .iter()
        .filter(|figure| figure.server == server.kind && figure.phase == phase)
        .filter_map(field)
        .collect();
    median(&values)
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / 1_048_576.0
}
