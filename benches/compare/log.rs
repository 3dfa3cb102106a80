//! Log: what it costs a server to write down what it is asked.
//!
//! Server CPU per key with a log beside the same server's without one, at the depth where a key
//! costs least and a log shows most; and what a server still does that syncs before each reply.
//! Series go in turns, and in every other round the other way round. Each run begins when what was
//! written before has reached the disk. What else the machine does to its disk cannot be kept out:
//! how often a second a bare append can be synced stands beside each run that waits for syncs, and
//! rounds in which that differs much between servers tell little.
//!
//! The peers' logs stay as they are appended here: what their rewriting costs comes on top. What
//! the kernel's own threads do for a disk is in no server's figure.

use std::fs::File;
use std::io::Write;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde::Serialize;

use crate::folder::Folder;
use crate::load::{Latency, Length, Load, Outcome};
use crate::persistence::{Fsync, Log};
use crate::report::{Bench, Table, median, medians_of, microseconds, thousands};
use crate::server::{Kind, Running, Server, Setup};

/// Requests in flight per connection where a log's cost is measured.
const DEPTH: u64 = 128;
/// No key's record is shorter: a random UUID has 122 bits of its own.
const BYTES_PER_KEY_MIN: u64 = 15;
/// How much a bare disk is given at a time.
const BARE_BYTES: usize = 4_096;

/// All runs of this part.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Figures {
    cost: Vec<Cost>,
    always: Vec<Always>,
}

/// A run as fast as the server answers, with this log or none.
#[derive(Clone, Debug, Serialize)]
struct Cost {
    round: u32,
    server: Kind,
    fsync: Option<Fsync>,
    requests: u64,
    keys_per_s: f64,
    server_cpu_us_per_key: f64,
    log_bytes_per_new_key: Option<f64>,
}

/// A run of one request at a time on each connection, synced before each reply.
#[derive(Clone, Debug, Serialize)]
struct Always {
    round: u32,
    server: Kind,
    keys_per_s: f64,
    server_cpu_us_per_key: f64,
    latency_us: Latency,
    /// What the disk did just before, for one process that appends and syncs.
    disk_syncs_per_s: f64,
}

/// All runs of this part.
pub(crate) fn measure(bench: &Bench) -> anyhow::Result<Figures> {
    let mut figures = Figures::default();
    for round in 1..=bench.scale.rounds {
        for server in in_turns(round, bench.log_keepers().collect()) {
            let figure = always(bench, server, round)?;
            bench.progress(&format!(
                "log, round {round} of {}: {server}, always: {} keys/s; the disk alone {} syncs/s",
                bench.scale.rounds,
                thousands(figure.keys_per_s),
                thousands(figure.disk_syncs_per_s)
            ));
            figures.always.push(figure);
        }
        for (server, fsync) in in_turns(round, cost_series(bench)) {
            let figure = cost(bench, server, fsync, round)?;
            bench.progress(&format!(
                "log, round {round} of {}: {server}, {}: {:.3} µs, {} keys/s",
                bench.scale.rounds,
                title(fsync),
                figure.server_cpu_us_per_key,
                thousands(figure.keys_per_s)
            ));
            figures.cost.push(figure);
        }
    }
    Ok(figures)
}

/// Every server with every log whose cost is measured; onced without one too where it is too old
/// to keep one.
fn cost_series(bench: &Bench) -> Vec<(&Server, Option<Fsync>)> {
    let mut series = Vec::new();
    for server in &bench.servers {
        if server.kind == Kind::Onced || server.keeps_log {
            series.push((server, None));
        }
        if server.keeps_log {
            series.push((server, Some(Fsync::Everysec)));
        }
        if server.keeps_log && server.kind == Kind::Onced {
            series.push((server, Some(Fsync::Never)));
        }
    }
    series
}

fn in_turns<T>(round: u32, mut series: Vec<T>) -> Vec<T> {
    if round.is_multiple_of(2) {
        series.reverse();
    }
    series
}

const fn title(fsync: Option<Fsync>) -> &'static str {
    match fsync {
        None => "no log",
        Some(fsync) => fsync.word(),
    }
}

fn cost(bench: &Bench, server: &Server, fsync: Option<Fsync>, round: u32) -> anyhow::Result<Cost> {
    let requests = bench.scale.requests_min[2];
    let load = Load::usual(
        server.kind.forms()[0],
        Length::Requests(requests),
        DEPTH,
        u64::from(round),
    );
    let folder = bench.folder()?;
    let run = Run::start(bench, server, fsync, &folder)?;
    let (outcome, cpu_us_per_key) = run.load(&load)?;
    let new_keys = outcome.new_keys();
    Ok(Cost {
        round,
        server: server.kind,
        fsync,
        requests,
        keys_per_s: outcome.keys_per_s,
        server_cpu_us_per_key: cpu_us_per_key,
        log_bytes_per_new_key: run.check_log(new_keys)?,
    })
}

fn always(bench: &Bench, server: &Server, round: u32) -> anyhow::Result<Always> {
    let length = Length::Milliseconds(bench.scale.always_ms);
    let load = Load::usual(server.kind.forms()[0], length, 1, u64::from(round));
    let disk_syncs_per_s = disk_syncs_per_s(bench)?;
    let folder = bench.folder()?;
    let run = Run::start(bench, server, Some(Fsync::Always), &folder)?;
    let (outcome, cpu_us_per_key) = run.load(&load)?;
    run.check_log(outcome.new_keys())?;
    Ok(Always {
        round,
        server: server.kind,
        keys_per_s: outcome.keys_per_s,
        server_cpu_us_per_key: cpu_us_per_key,
        latency_us: outcome.latency_us,
        disk_syncs_per_s,
    })
}

/// A fresh server with its log, if it has one, and a fresh folder.
struct Run<'a> {
    bench: &'a Bench,
    running: Running,
    folder: &'a Folder,
    has_log: bool,
}

impl<'a> Run<'a> {
    fn start(
        bench: &'a Bench,
        server: &Server,
        fsync: Option<Fsync>,
        folder: &'a Folder,
    ) -> anyhow::Result<Self> {
        quiet_the_disk()?;
        let log = fsync.map(|fsync| Log::appended(folder.path(), fsync));
        let cores = &[bench.cores.server];
        Ok(Self {
            bench,
            running: server.start_with(&Setup {
                cores,
                log,
                unix: None,
            })?,
            folder,
            has_log: log.is_some(),
        })
    }

    /// Makes the load; returns what it found and the server's CPU time for each key, with what is
    /// left to do when the last reply is out.
    fn load(&self, load: &Load) -> anyhow::Result<(Outcome, f64)> {
        let before = self.running.cpu_time()?;
        let outcome = load.run(&self.running, self.bench.cores.load)?;
        thread::sleep(Duration::from_millis(self.bench.scale.log_settle_ms));
        let cpu_ns = self.running.cpu_time()?.since(&before);
        outcome.check_fresh()?;
        let keys = outcome.replies * load.form.keys();
        Ok((outcome, cpu_ns as f64 / 1e3 / keys as f64))
    }

    /// Stops the server, which gives up what it has reserved of the disk. That the log, if there
    /// is one, can hold as many keys; its bytes for each.
    fn check_log(self, keys: u64) -> anyhow::Result<Option<f64>> {
        self.running.stop()?;
        let bytes = self.folder.bytes()?;
        if !self.has_log {
            ensure!(bytes == 0, "a server without a log wrote {bytes} bytes");
            return Ok(None);
        }
        ensure!(
            bytes >= keys * BYTES_PER_KEY_MIN,
            "{keys} keys cannot be in a log of {bytes} bytes"
        );
        Ok(Some(bytes as f64 / keys.max(1) as f64))
    }
}

/// Returns when everything that was written and removed so far has reached the disk.
fn quiet_the_disk() -> anyhow::Result<()> {
    let status = Command::new("sync").status().context("cannot run sync")?;
    ensure!(status.success(), "sync ended with {status}");
    Ok(())
}

fn disk_syncs_per_s(bench: &Bench) -> anyhow::Result<f64> {
    quiet_the_disk()?;
    let folder = bench.folder()?;
    let mut file = File::create(folder.path().join("bare"))?;
    let lasts = Duration::from_millis(bench.scale.always_ms / 5);
    let began = Instant::now();
    let mut syncs = 0_u64;
    while began.elapsed() < lasts {
        file.write_all(&[b'x'; BARE_BYTES])?;
        file.sync_data()?;
        syncs += 1;
    }
    Ok(syncs as f64 / began.elapsed().as_secs_f64())
}

/// The part of the report.
pub(crate) fn print(bench: &Bench, figures: &Figures) {
    let requests = figures.cost.first().map_or(0, |figure| figure.requests);
    println!("## Log\n");
    println!(
        "Each server fresh for each run, 50 connections, 36-character UUID keys of which 30% are \
         repeats, one hour to live. {}. What a log costs: {} requests, {DEPTH} in flight per \
         connection, with the CPU time of the {} s after the last reply; in brackets how much more \
         that is than without a log, in the same round.\n",
        medians_of(bench.scale.rounds),
        thousands(requests as f64),
        bench.scale.log_settle_ms as f64 / 1e3,
    );
    print_cost(bench, &figures.cost);
    print_throughput(bench, &figures.cost);
    println!(
        "Synced before each reply (`always`): one request in flight on each of the 50 \
         connections, for {} s. Beside it, how often a second one process could append {} KiB and \
         sync them (`fdatasync`) just before.\n",
        bench.scale.always_ms as f64 / 1e3,
        BARE_BYTES / 1_024,
    );
    print_always(bench, figures);
}

const POLICIES: [Option<Fsync>; 3] = [None, Some(Fsync::Everysec), Some(Fsync::Never)];

fn print_cost(bench: &Bench, figures: &[Cost]) {
    let columns = POLICIES.map(|fsync| title(fsync).to_owned());
    let mut table = Table::new("µs of server CPU per key", columns);
    print_rows(bench, &mut table, |server, fsync| {
        let us = of(figures, server, fsync, |figure| {
            figure.server_cpu_us_per_key
        });
        let cell = format!("{:.3}", median(&us)?);
        let Some(more) = more(figures, server, fsync) else {
            return Some(cell);
        };
        Some(format!("{cell} ({more:+.3})"))
    });
    println!("{table}");
}

fn print_throughput(bench: &Bench, figures: &[Cost]) {
    let columns = POLICIES.map(|fsync| title(fsync).to_owned());
    let mut table = Table::new(
        "keys per second (bytes of log per key that was new)",
        columns,
    );
    print_rows(bench, &mut table, |server, fsync| {
        let per_s = of(figures, server, fsync, |figure| figure.keys_per_s);
        let cell = thousands(median(&per_s)?);
        let bytes: Vec<_> = select(figures, server, fsync)
            .filter_map(|figure| figure.log_bytes_per_new_key)
            .collect();
        match median(&bytes) {
            None => Some(cell),
            Some(bytes) => Some(format!("{cell} ({bytes:.0})")),
        }
    });
    println!("{table}");
}

fn print_rows(
    bench: &Bench,
    table: &mut Table,
    cell: impl Fn(Kind, Option<Fsync>) -> Option<String>,
) {
    for server in &bench.servers {
        if server.kind == Kind::Onced || server.keeps_log {
            let cells = POLICIES.map(|fsync| cell(server.kind, fsync));
            table.row(&server.to_string(), cells);
        }
    }
}

fn select(figures: &[Cost], server: Kind, fsync: Option<Fsync>) -> impl Iterator<Item = &Cost> {
    figures
        .iter()
        .filter(move |figure| figure.server == server && figure.fsync == fsync)
}

fn of(figures: &[Cost], server: Kind, fsync: Option<Fsync>, field: fn(&Cost) -> f64) -> Vec<f64> {
    select(figures, server, fsync).map(field).collect()
}

/// What a log adds, round by round.
fn more(figures: &[Cost], server: Kind, fsync: Option<Fsync>) -> Option<f64> {
    fsync?;
    let differences: Vec<_> = select(figures, server, fsync)
        .filter_map(|with| {
            let without = select(figures, server, None).find(|other| other.round == with.round)?;
            Some(with.server_cpu_us_per_key - without.server_cpu_us_per_key)
        })
        .collect();
    median(&differences)
}

fn print_always(bench: &Bench, figures: &Figures) {
    let columns = [
        "keys per second",
        "µs of server CPU per key",
        "latency in µs: p50, p99, p99.9",
        "the disk alone, syncs/s",
    ];
    let mut table = Table::new("`always`", columns.map(str::to_owned));
    for server in bench.log_keepers() {
        let of = |field: fn(&Always) -> f64| {
            let values: Vec<_> = figures
                .always
                .iter()
                .filter(|figure| figure.server == server.kind)
                .map(field)
                .collect();
            median(&values)
        };
        let latency = || {
            let p50 = microseconds(of(|figure| figure.latency_us.p50)?);
            let p99 = microseconds(of(|figure| figure.latency_us.p99)?);
            let p99_9 = microseconds(of(|figure| figure.latency_us.p99_9)?);
            Some(format!("{p50}, {p99}, {p99_9}"))
        };
        let row = [
            of(|figure| figure.keys_per_s).map(thousands),
            of(|figure| figure.server_cpu_us_per_key).map(|us| format!("{us:.2}")),
            latency(),
            of(|figure| figure.disk_syncs_per_s).map(thousands),
        ];
        table.row(&server.to_string(), row);
    }
    println!("{table}");
    if let Some(times) = times_the_best_peer(&figures.always) {
        println!("onced does {times:.2} times as many as the better peer (round by round).\n");
    }
}

fn times_the_best_peer(figures: &[Always]) -> Option<f64> {
    let ratios: Vec<_> = figures
        .iter()
        .filter(|figure| figure.server == Kind::Onced)
        .filter_map(|onced| {
            let best = figures
                .iter()
                .filter(|other| other.server.is_peer() && other.round == onced.round)
                .map(|other| other.keys_per_s)
                .max_by(f64::total_cmp)?;
            Some(onced.keys_per_s / best)
        })
        .collect();
    median(&ratios)
}
