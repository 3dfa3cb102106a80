//! Reload: how long a server needs to have its keys back after it was stopped, and how many bytes
//! of disk a key takes until then.
//!
//! Every server is filled with the same keys, is stopped in order, and is then started again, in
//! turns, with all cores, from a log that the page cache still holds; the time runs from the
//! start of the process until it answers `PING` with `PONG`. Nothing is asked of it before that
//! but `PING`.
//!
//! The peers' logs are read as they were appended, and then once more as the peers rewrite them,
//! which is the shortest and the fastest they can be; onced's is the same both times.

use std::fmt::Write;
use std::time::Instant;

use anyhow::ensure;
use serde::Serialize;

use crate::folder::Folder;
use crate::load::Load;
use crate::persistence::{Fsync, Log};
use crate::report::{Bench, Table, median, medians_of, thousands};
use crate::server::{Kind, Running, Server, Setup};

/// In how many parts the keys come; the first part's seed, and the others' from there on.
const PARTS: u64 = 10;
const SEED: u64 = 1;
/// Of keys that nobody has seen.
const SEED_UNSEEN: u64 = 1_000;
/// Of each part, the first in this many are asked for after a start; all are counted.
const SAMPLE_ONE_IN: u64 = 100;

/// In which form the peers' logs are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Form {
    Appended,
    Rewritten,
}

/// One start.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    round: u32,
    server: Kind,
    /// Of the peers' logs in this turn.
    form: Form,
    keys: u64,
    log_bytes: u64,
    ready_s: f64,
}

impl Figure {
    fn keys_per_s(&self) -> f64 {
        self.keys as f64 / self.ready_s
    }
}

/// All runs of this part.
pub(crate) fn measure(bench: &Bench) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let mut stored = Vec::new();
    for server in bench.log_keepers() {
        bench.progress(&format!("reload: {server} is filled"));
        stored.push(Stored::fill(bench, server)?);
    }
    for form in [Form::Appended, Form::Rewritten] {
        if form == Form::Rewritten {
            if !stored.iter().any(|stored| stored.server.kind.is_peer()) {
                break; // nothing would differ
            }
            for stored in &stored {
                stored.rewrite()?;
            }
        }
        for round in 1..=bench.scale.reload_rounds {
            for stored in &stored {
                let figure = stored.read(form, round)?;
                bench.progress(&format!(
                    "reload, {form:?}, round {round} of {}: {}: {:.3} s, {} keys/s, {:.1} bytes per key",
                    bench.scale.reload_rounds,
                    stored.server,
                    figure.ready_s,
                    thousands(figure.keys_per_s()),
                    figure.log_bytes as f64 / figure.keys as f64
                ));
                figures.push(figure);
            }
        }
    }
    for stored in &stored {
        stored.check_unseen()?;
    }
    Ok(figures)
}

/// A server that was filled and stopped.
struct Stored<'a> {
    bench: &'a Bench,
    server: &'a Server,
    folder: Folder,
    parts: Vec<Load>,
}

impl<'a> Stored<'a> {
    fn fill(bench: &'a Bench, server: &'a Server) -> anyhow::Result<Self> {
        let part = |part| Load {
            ttl_ms: 24 * 3_600_000,
            ..Load::filling(
                server.kind.forms()[0],
                bench.scale.reload_keys / PARTS,
                SEED + part,
            )
        };
        let stored = Self {
            bench,
            server,
            folder: bench.folder()?,
            parts: (0..PARTS).map(part).collect(),
        };
        let running = stored.start(&[bench.cores.server])?;
        for part in &stored.parts {
            part.run(&running, bench.cores.load)?.check_fresh()?;
        }
        running.stop()?;
        Ok(stored)
    }

    fn start(&self, cores: &[usize]) -> anyhow::Result<Running> {
        let log = Some(Log::appended(self.folder.path(), Fsync::Everysec));
        self.server.start_with(&Setup {
            cores,
            log,
            unix: None,
        })
    }

    fn rewrite(&self) -> anyhow::Result<()> {
        if self.server.kind.is_peer() {
            let running = self.start(&self.bench.cores.all())?;
            running.rewrite_log()?;
            running.stop()?;
        }
        Ok(())
    }

    /// Starts it, sees that its keys are there, and stops it.
    fn read(&self, form: Form, round: u32) -> anyhow::Result<Figure> {
        let keys = self.bench.scale.reload_keys;
        let log_bytes = self.folder.bytes()?;
        let began = Instant::now();
        let running = self.start(&self.bench.cores.all())?;
        let ready_s = began.elapsed().as_secs_f64();
        let there = running.keys()?;
        ensure!(
            there == keys,
            "{} had {keys} keys and has {there} after a start",
            self.server
        );
        for part in self.samples() {
            part.run(&running, self.bench.cores.load)?.check_known()?;
        }
        running.stop()?;
        Ok(Figure {
            round,
            server: self.server.kind,
            form,
            keys,
            log_bytes,
            ready_s,
        })
    }

    fn samples(&self) -> impl Iterator<Item = Load> {
        let keys = self.bench.scale.reload_keys / PARTS / SAMPLE_ONE_IN;
        self.parts.iter().map(move |part| part.first(keys))
    }

    /// Starts it for the last time, and sees that it does not know what it has never seen.
    fn check_unseen(&self) -> anyhow::Result<()> {
        let running = self.start(&self.bench.cores.all())?;
        for part in self.samples() {
            let unseen = Load {
                seed: SEED_UNSEEN + part.seed,
                ..part
            };
            unseen.run(&running, self.bench.cores.load)?.check_fresh()?;
        }
        Ok(())
    }
}

/// The part of the report.
pub(crate) fn print(bench: &Bench, figures: &[Figure]) {
    println!("## Reload\n");
    println!(
        "{} UUID keys, a day to live, in a log that was synced once a second. The server was \
         stopped (`SIGTERM`); seconds from its start, on cores {:?}, until it answers `PING` with \
         `PONG`, with the log in the page cache. {}. Rewritten: by `BGREWRITEAOF`, which leaves a \
         snapshot; without it, the peers' logs are as they were appended.\n",
        thousands(bench.scale.reload_keys as f64),
        bench.cores.all(),
        medians_of(bench.scale.reload_rounds),
    );
    let mut columns = vec![
        "seconds".to_owned(),
        "keys per second".to_owned(),
        "bytes of disk per key".to_owned(),
    ];
    if bench.has(Kind::Onced) {
        columns.push("onced's speed over it".to_owned());
    }
    let width = columns.len();
    let mut table = Table::new("reading the log", columns);
    for server in bench.log_keepers() {
        for form in [Form::Appended, Form::Rewritten] {
            // onced's own log is the same both times: one row, of all its starts.
            if server.kind == Kind::Onced && form == Form::Rewritten {
                continue;
            }
            let mut name = server.to_string();
            if form == Form::Rewritten {
                write!(name, ", rewritten").expect("a string takes every character");
            }
            let of = |field: &dyn Fn(&Figure) -> f64| {
                let values: Vec<_> = figures
                    .iter()
                    .filter(|figure| figure.server == server.kind)
                    .filter(|figure| figure.form == form || server.kind == Kind::Onced)
                    .map(field)
                    .collect();
                median(&values)
            };
            let row = [
                of(&|figure| figure.ready_s).map(|seconds| format!("{seconds:.2}")),
                of(&Figure::keys_per_s).map(thousands),
                of(&|figure| figure.log_bytes as f64 / figure.keys as f64)
                    .map(|bytes| format!("{bytes:.1}")),
                times_slower(figures, server.kind, form).map(|times| format!("{times:.1}")),
            ];
            table.row(&name, row.into_iter().take(width));
        }
    }
    println!("{table}");
}

/// How many times as long as onced the server needs, round by round.
fn times_slower(figures: &[Figure], server: Kind, form: Form) -> Option<f64> {
    if server == Kind::Onced {
        return None;
    }
    let ratios: Vec<_> = figures
        .iter()
        .filter(|figure| figure.server == server && figure.form == form)
        .filter_map(|this| {
            let onced = figures.iter().find(|other| {
                other.server == Kind::Onced && other.form == form && other.round == this.round
            })?;
            Some(this.ready_s / onced.ready_s)
        })
        .collect();
    median(&ratios)
}
