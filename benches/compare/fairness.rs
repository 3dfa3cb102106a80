//! Fairness: what a client with single requests notices of others that ask without a pause, and
//! what those get done.
//!
//! One, two and four loaders (see [`loader`]) each keep their sockets full and read every answer;
//! beside them a prober (see [`prober`]) has one request in flight. Redis and Valkey know one of
//! what is asked, `SET NX PX`; they get it for every row, a pipeline of it for `MSEEN`. All keys are
//! new.
//!
//! What a latency contains: two ways through the kernel, and the server's turns for all who asked
//! before. What the server that does nothing is measured at is the first of these. What it does not
//! contain is the loaders' time on the core that they share with the prober: that goes first there
//! where the system allows it, and otherwise the loaders yield. How late it woke from its timers
//! under that load is told, so that nobody has to believe it.
//!
//! Pairs: all servers are measured one after another with the same load before the next load; a
//! ratio is of two that stood side by side, and what is printed is the median of the rounds' ratios.

pub(crate) mod loader;
pub(crate) mod prober;
mod wire;

use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use self::wire::{Address, Verb};
use crate::folder::Folder;
use crate::hold::{self, Priority};
use crate::report::{Bench, Table, median, medians_of, microseconds, thousands};
use crate::server::{Kind, Server, Setup};

/// How loaders and prober are connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Transport {
    Tcp,
    Unix,
}

/// What one row of the tables is measured at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Load {
    transport: Transport,
    verb: Verb,
    /// None: the prober is alone, and the verb is the prober's own.
    loaders: usize,
}

impl Load {
    fn title(self) -> String {
        let transport = match self.transport {
            Transport::Tcp => "TCP",
            Transport::Unix => "Unix",
        };
        match self.loaders {
            0 => format!("{transport}, no loader"),
            1 => format!("{transport}, 1 loader, {}", self.verb.title()),
            n => format!("{transport}, {n} loaders, {}", self.verb.title()),
        }
    }
}

/// One server under one load.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    round: u32,
    server: String,
    load: Load,
    prober_us: prober::Outcome,
    loaders: Option<loader::Outcome>,
}

/// The names that the tables have columns for.
const THIS: &str = "onced";
const BEFORE: &str = "before";

/// The servers that are measured, and what the tables call them.
fn contenders(bench: &Bench) -> Vec<(String, &Server)> {
    let before = bench
        .before
        .iter()
        .map(|server| (BEFORE.to_owned(), server));
    let others = bench
        .servers
        .iter()
        .filter(|server| server.kind != Kind::Memcached)
        .map(|server| (server.to_string(), server));
    before.chain(others).collect()
}

fn loads(bench: &Bench) -> Vec<Load> {
    let mut loads = Vec::new();
    for transport in [Transport::Tcp, Transport::Unix] {
        loads.push(Load {
            transport,
            verb: Verb::Seen,
            loaders: 0,
        });
        for verb in Verb::ALL {
            loads.extend(bench.scale.loaders.iter().map(|&loaders| Load {
                transport,
                verb,
                loaders,
            }));
        }
    }
    loads
}

/// Who goes first on the core of the load: the prober's priority, and the loaders'.
fn priorities() -> [Priority; 2] {
    if hold::first_is_allowed() {
        [Priority::First, Priority::Usual]
    } else {
        [Priority::Usual, Priority::Low]
    }
}

/// All runs of this part.
pub(crate) fn measure(bench: &Bench) -> anyhow::Result<Vec<Figure>> {
    // A path of a socket has at most a hundred characters.
    let folder = Folder::make(&std::env::temp_dir())?;
    let priorities = priorities();
    let mut figures = Vec::new();
    for round in 1..=bench.scale.rounds {
        for load in loads(bench) {
            for (name, server) in contenders(bench) {
                // It answers a `BEGIN` as it does a `SEEN`, which would not be a claim.
                if server.kind == Kind::Floor && load.verb == Verb::Begin {
                    continue;
                }
                let (prober_us, loaders) = run(bench, (server, load), folder.path(), priorities)?;
                bench.progress(&format!(
                    "fairness, round {round} of {}: {name}, {}: p99 {} µs, {} keys/s",
                    bench.scale.rounds,
                    load.title(),
                    microseconds(prober_us.p99),
                    thousands(loaders.map_or(0.0, |loaders| loaders.keys_per_s))
                ));
                figures.push(Figure {
                    round,
                    server: name,
                    load,
                    prober_us,
                    loaders,
                });
            }
        }
    }
    Ok(figures)
}

/// A fresh server under a load; loaders ask before the prober does and until it is through.
fn run(
    bench: &Bench,
    (server, load): (&Server, Load),
    folder: &Path,
    [first, usual]: [Priority; 2],
) -> anyhow::Result<(prober::Outcome, Option<loader::Outcome>)> {
    let path = folder.join("server.sock");
    // A server that was killed has left it.
    let _absent = std::fs::remove_file(&path);
    let running = server.start_with(&Setup {
        cores: &[bench.cores.server],
        log: None,
        unix: Some(&path),
    })?;
    let address = match load.transport {
        Transport::Tcp => Address::Tcp(running.port),
        Transport::Unix => Address::Unix(path),
    };
    let worded = |verb| match server.kind {
        Kind::Redis | Kind::Valkey => Verb::Set,
        _ => verb,
    };
    let core = bench.cores.load;
    let warmup = Duration::from_millis(bench.scale.warmup_ms.min(500));
    let lasts = Duration::from_millis(bench.scale.fairness_ms);
    let loaders = (load.loaders > 0)
        .then(|| {
            let asked = (&address, worded(load.verb), load.loaders);
            loader::Started::start(asked, warmup, (core, usual))
        })
        .transpose()?;
    let probed = prober::run(
        (&address, worded(Verb::Seen)),
        (warmup, lasts),
        (core, first),
    )?;
    let loaded = loaders.map(loader::Started::finish).transpose()?;
    Ok((probed, loaded))
}

/// The part of the report.
pub(crate) fn print(bench: &Bench, figures: &[Figure]) {
    let scale = &bench.scale;
    println!("## Fairness\n");
    println!(
        "Loaders ask for new keys without a pause and read every answer; beside them, on a connection \
         of its own, a prober has one `SEEN` in flight (`SET NX PX` with Redis), at most 500 a second, \
         for {} s. Redis's loaders send `SET NX PX` in every row. The prober shares the loaders' core \
         and {}; \"woke late\" is how late it did from its own timers, p99, and is in the latency. \
         Each on a fresh server; all servers in turns under one load, then the next. {}.\n",
        scale.fairness_ms as f64 / 1e3,
        match priorities() {
            [Priority::First, _] => "goes first there (SCHED_FIFO)",
            _ => "the loaders yield to it (nice)",
        },
        medians_of(scale.rounds)
    );
    print_latency(bench, figures);
    print_loaders(bench, figures);
}

/// Of all rounds of a server under a load, the median of `field`.
fn of(
    figures: &[Figure],
    server: &str,
    load: Load,
    field: impl Fn(&Figure) -> Option<f64>,
) -> Option<f64> {
    let figures = figures.iter();
    let chosen = figures.filter(|figure| figure.server == server && figure.load == load);
    median(&chosen.filter_map(field).collect::<Vec<_>>())
}

/// The median of the rounds' ratios of this server's `field` to that of `other`.
fn ratio(
    figures: &[Figure],
    other: &str,
    load: Load,
    field: impl Fn(&Figure) -> Option<f64>,
) -> Option<f64> {
    of(figures, THIS, load, |this| {
        let mut others = figures.iter();
        let other = others.find(|figure| {
            figure.server == other && (figure.load, figure.round) == (load, this.round)
        })?;
        Some(field(this)? / field(other)?)
    })
}

/// Whom this server is set against, where they were measured.
fn rivals(bench: &Bench) -> Vec<String> {
    let contenders = contenders(bench).into_iter();
    contenders
        .filter(|(name, server)| server.kind != Kind::Floor && name != THIS)
        .map(|(name, _)| name)
        .collect()
}

fn print_latency(bench: &Bench, figures: &[Figure]) {
    let names = contenders(bench).into_iter().map(|(name, _)| name);
    let rivals = rivals(bench);
    let columns = names
        .clone()
        .chain(rivals.iter().map(|rival| format!("p99 over {rival}'s")));
    let title = "the prober's latency in µs: p50, p99, max (woke late)";
    let mut table = Table::new(title, columns);
    for load in loads(bench) {
        let latency = names.clone().map(|name| {
            let at = |field: fn(&prober::Outcome) -> f64| {
                of(figures, &name, load, |figure| {
                    Some(field(&figure.prober_us))
                })
                .map(microseconds)
            };
            let [p50, p99] = [at(|us| us.p50)?, at(|us| us.p99)?];
            let [max, late] = [at(|us| us.max)?, at(|us| us.woke_late_p99)?];
            Some(format!("{p50}, {p99}, {max} ({late})"))
        });
        let ratios = rivals.iter().map(|rival| {
            let ratio = ratio(figures, rival, load, |figure| Some(figure.prober_us.p99))?;
            Some(format!("{ratio:.2}"))
        });
        table.row(&load.title(), latency.chain(ratios).collect::<Vec<_>>());
    }
    println!("{table}");
}

fn print_loaders(bench: &Bench, figures: &[Figure]) {
    let names = contenders(bench).into_iter().map(|(name, _)| name);
    let rivals = rivals(bench);
    let columns = names
        .clone()
        .chain(rivals.iter().map(|rival| format!("keys over {rival}'s")));
    let title = "thousands of keys per second of all loaders (of the one with the fewest)";
    let mut table = Table::new(title, columns);
    for load in loads(bench).into_iter().filter(|load| load.loaders > 0) {
        let keys = names.clone().map(|name| {
            let at = |field: fn(&loader::Outcome) -> f64| {
                of(figures, &name, load, |figure| {
                    figure.loaders.as_ref().map(field)
                })
            };
            let [all, fewest] = [
                at(|keys| keys.keys_per_s)?,
                at(|keys| keys.fewest_keys_per_s)?,
            ];
            let [all, fewest] = [all, fewest].map(|keys| thousands(keys / 1e3));
            Some(format!("{all} ({fewest})"))
        });
        let ratios = rivals.iter().map(|rival| {
            let keys = |figure: &Figure| figure.loaders.map(|loaders| loaders.keys_per_s);
            Some(format!("{:.2}", ratio(figures, rival, load, keys)?))
        });
        table.row(&load.title(), keys.chain(ratios).collect::<Vec<_>>());
    }
    println!("{table}");
}
