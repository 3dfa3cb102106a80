//! Memory: resident bytes per key on the way to ten million keys.
//!
//! Keys come in steps, and between two steps `/proc` is read, so that it is known at how many
//! keys memory was what. A table that grows by copying itself needs its most in the middle of a
//! step; the process's peak tells of it, and counts as reached by the end of that step.

use serde::Serialize;

use crate::load::{Form, Load};
use crate::process::Resident;
use crate::report::{Bench, Table, thousands};
use crate::server::{Kind, Server};

/// One server's way with keys of one shape.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    server: Kind,
    keys: &'static str,
    empty_bytes: u64,
    samples: Vec<Sample>,
}

/// A moment between two steps.
#[derive(Clone, Copy, Debug, Serialize)]
struct Sample {
    keys: u64,
    resident_bytes: u64,
    /// The most since the start.
    peak_bytes: u64,
}

/// UUIDs, and 16 bytes of any value; where the protocol carries text only, 16 letters and digits.
fn shapes(form: Form) -> [&'static str; 2] {
    match form {
        Form::Set => ["uuid", "binary16"],
        _ => ["uuid", "random16"],
    }
}

/// All runs of this part.
pub(crate) fn measure(bench: &Bench) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for server in bench.servers.iter().filter(|server| server.kind.stores()) {
        let form = server.kind.forms()[0];
        for keys in shapes(form) {
            bench.progress(&format!("memory: {server}, keys of shape {keys}"));
            figures.push(fill(bench, server, form, keys)?);
        }
    }
    Ok(figures)
}

fn fill(bench: &Bench, server: &Server, form: Form, keys: &'static str) -> anyhow::Result<Figure> {
    let scale = &bench.scale;
    let running = server.start(bench.cores.server)?;
    let empty_bytes = running.resident()?.bytes;
    let [.., keys_max] = scale.memory_marks;
    let mut samples = Vec::new();
    for step in 1..=keys_max / scale.memory_step {
        // Another seed, other keys; `check_fresh` would tell if it were not so.
        let load = Load {
            keys,
            ..Load::filling(form, scale.memory_step, step)
        };
        load.run(&running, bench.cores.load)?.check_fresh()?;
        let Resident { bytes, peak_bytes } = running.resident()?;
        samples.push(Sample {
            keys: step * scale.memory_step,
            resident_bytes: bytes,
            peak_bytes,
        });
    }
    Ok(Figure {
        server: server.kind,
        keys,
        empty_bytes,
        samples,
    })
}

impl Figure {
    fn per_key(&self, bytes: u64, keys: u64) -> f64 {
        bytes.saturating_sub(self.empty_bytes) as f64 / keys as f64
    }

    /// Bytes per key once there were so many.
    fn at(&self, keys: u64) -> Option<String> {
        let sample = self.samples.iter().find(|sample| sample.keys == keys)?;
        let bytes = self.per_key(sample.resident_bytes, keys);
        Some(format!("{bytes:.1}"))
    }

    /// The most bytes per key from so many keys on, and at how many that was.
    fn worst(&self, from_keys: u64) -> Option<(f64, u64)> {
        let mut peak_before = 0;
        let mut worst = None;
        for sample in &self.samples {
            let has_peaked = sample.peak_bytes > peak_before;
            peak_before = sample.peak_bytes;
            let bytes = if has_peaked {
                sample.peak_bytes.max(sample.resident_bytes)
            } else {
                sample.resident_bytes
            };
            let per_key = self.per_key(bytes, sample.keys);
            if sample.keys >= from_keys && worst.is_none_or(|(most, _)| per_key > most) {
                worst = Some((per_key, sample.keys));
            }
        }
        worst
    }
}

/// The part of the report.
pub(crate) fn print(bench: &Bench, figures: &[Figure]) {
    let scale = &bench.scale;
    println!("## Memory\n");
    println!(
        "Resident bytes more than those of the empty server, per key, all keys different, one \
         hour to live. Memory is read every {} keys; the worst point includes what was needed \
         for a moment only.\n",
        thousands(scale.memory_step as f64)
    );
    let marks = scale
        .memory_marks
        .map(|keys| format!("{} keys", thousands(keys as f64)));
    let worst = format!(
        "worst from {} on",
        thousands(scale.memory_worst_from as f64)
    );
    let mut table = Table::new("resident bytes per key", marks.into_iter().chain([worst]));
    for figure in figures {
        let marks = scale.memory_marks.map(|keys| figure.at(keys));
        let worst = figure
            .worst(scale.memory_worst_from)
            .map(|(bytes, keys)| format!("{bytes:.1}, at {}", thousands(keys as f64)));
        let name = bench.name(figure.server);
        let row = format!("{name}, {}", shape_title(figure.keys));
        table.row(&row, marks.into_iter().chain([worst]));
    }
    println!("{table}");
}

fn shape_title(keys: &str) -> &str {
    match keys {
        "uuid" => "36-character UUIDs",
        "binary16" => "16 bytes of any value",
        _ => "16 letters and digits",
    }
}
