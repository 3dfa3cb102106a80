//! Shapes: what a key looks like decides what it costs to keep.
//!
//! Each server is filled with as many keys of each shape, and its memory is read before and after.
//! A table that has just grown is caught at a bad moment here; `memory` has the whole way.

use serde::Serialize;

use crate::load::{Form, Load};
use crate::report::{Bench, Table, thousands};
use crate::server::{Kind, Server};

/// How `onced bench` names a shape, and how the table does.
const SHAPES: [(&str, &str); 8] = [
    ("int8", "8-digit ids"),
    ("binary8", "8 bytes of any value"),
    ("binary16", "16 bytes of any value"),
    ("hex24", "ObjectIds, 24 hex digits"),
    ("ulid", "ULIDs, 26 characters"),
    ("uuid", "UUIDs, 36 characters"),
    ("hex64", "SHA-256, 64 hex digits"),
    ("url100", "URLs of 100 characters"),
];

/// One server filled with keys of one shape.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    server: Kind,
    keys: &'static str,
    count: u64,
    bytes_per_key: f64,
}

/// All runs of this part.
pub(crate) fn measure(bench: &Bench) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (keys, title) in SHAPES {
        for server in bench.servers.iter().filter(|server| server.kind.stores()) {
            let form = server.kind.forms()[0];
            // Only RESP announces a key's length, and so carries every byte.
            if keys.starts_with("binary") && form != Form::Set {
                continue;
            }
            let figure = fill(bench, server, form, keys)?;
            let bytes = figure.bytes_per_key;
            bench.progress(&format!(
                "shapes: {server}, {title}: {bytes:.1} bytes per key"
            ));
            figures.push(figure);
        }
    }
    Ok(figures)
}

fn fill(bench: &Bench, server: &Server, form: Form, keys: &'static str) -> anyhow::Result<Figure> {
    let count = bench.scale.shape_keys;
    let running = server.start(bench.cores.server)?;
    let before = running.resident()?.bytes;
    let load = Load {
        keys,
        ..Load::filling(form, count, 1)
    };
    load.run(&running, bench.cores.load)?.check_fresh()?;
    let bytes = running.resident()?.bytes.saturating_sub(before);
    Ok(Figure {
        server: server.kind,
        keys,
        count,
        bytes_per_key: bytes as f64 / count as f64,
    })
}

/// The part of the report.
pub(crate) fn print(bench: &Bench, figures: &[Figure]) {
    println!("## Shapes\n");
    println!(
        "Resident bytes more than those of the empty server, per key, after {} different keys of \
         each shape.\n",
        thousands(bench.scale.shape_keys as f64)
    );
    let stores: Vec<_> = bench
        .servers
        .iter()
        .filter(|server| server.kind.stores())
        .collect();
    let names = stores.iter().map(ToString::to_string);
    let mut table = Table::new("resident bytes per key", names);
    for (keys, title) in SHAPES {
        let cells = stores.iter().map(|server| {
            let figure = figures
                .iter()
                .find(|figure| figure.server == server.kind && figure.keys == keys)?;
            Some(format!("{:.1}", figure.bytes_per_key))
        });
        table.row(title, cells);
    }
    println!("{table}");
}
