//! Speed: each server as fast as it answers, with 1, 8, 16 and 128 requests in flight on each of
//! 50 connections.
//!
//! Every run has a fresh server. How many requests a run has depends on its form and depth only,
//! never on the server, so that tables of equal sizes are compared.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::load::{Form, Latency, Length, Load, Outcome};
use crate::report::{Bench, Table, median, medians_of, microseconds, thousands};
use crate::server::{Kind, Server};

/// Requests in flight per connection.
const DEPTHS: [u64; 4] = [1, 8, 16, 128];
/// The depth that tells what a server can do at most, elsewhere in the report.
const DEPTH_USUAL: u64 = 16;

/// One run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    round: u32,
    server: Kind,
    form: Form,
    pipeline: u64,
    requests: u64,
    keys_per_s: f64,
    server_cpu_us_per_key: f64,
    latency_us: Latency,
}

/// Whether `form` is measured at `depth`: 8 is where batches are meant to be sent.
fn is_measured(form: Form, depth: u64) -> bool {
    form == Form::Mseen || depth != 8
}

/// All runs of this part.
pub(crate) fn measure(bench: &Bench) -> anyhow::Result<Vec<Figure>> {
    let mut requests = BTreeMap::new();
    let mut figures = Vec::new();
    for round in 1..=bench.scale.rounds {
        for depth in DEPTHS {
            for (server, form) in bench.series() {
                if !is_measured(form, depth) {
                    continue;
                }
                let key = (form.keys(), depth);
                let requests = match requests.get(&key) {
                    Some(&requests) => requests,
                    None => *requests.entry(key).or_insert(enough(bench, form, depth)?),
                };
                let figure = run(bench, server, form, depth, requests, round)?;
                bench.progress(&format!(
                    "speed, round {round} of {}: {server} {}, {depth} in flight: {:.3} µs, {} keys/s",
                    bench.scale.rounds,
                    form.title(),
                    figure.server_cpu_us_per_key,
                    thousands(figure.keys_per_s)
                ));
                figures.push(figure);
            }
        }
    }
    Ok(figures)
}

/// How many requests a run has: the fewest allowed, or more where even onced, or else the first
/// server that is measured in this form, would be done too soon.
fn enough(bench: &Bench, form: Form, depth: u64) -> anyhow::Result<u64> {
    let scale = &bench.scale;
    let fewest = match (form, depth) {
        (Form::Mseen, _) => scale.batched_keys_min / form.keys(),
        (_, 1) => scale.requests_min[0],
        (_, DEPTH_USUAL) => scale.requests_min[1],
        _ => scale.requests_min[2],
    };
    let alike = || {
        bench
            .series()
            .filter(|(_, other)| other.keys() == form.keys())
    };
    let pilot = alike()
        .find(|(server, _)| server.kind == Kind::Onced)
        .or_else(|| alike().next());
    let Some((server, form)) = pilot.filter(|_| scale.run_s_min > 0.0) else {
        return Ok(fewest);
    };
    let running = server.start(bench.cores.server)?;
    let load = Load::usual(form, Length::Requests(fewest), depth, 0);
    let elapsed_s = load.run(&running, bench.cores.load)?.elapsed_s;
    Ok(fewest * times_longer(scale.run_s_min, elapsed_s))
}

/// By which whole factor a run of `elapsed_s` must grow to last `wanted_s`.
#[allow(clippy::cast_sign_loss)] // times are not negative
fn times_longer(wanted_s: f64, elapsed_s: f64) -> u64 {
    (wanted_s / elapsed_s.max(1e-3)).ceil().clamp(1.0, 100.0) as u64
}

fn run(
    bench: &Bench,
    server: &Server,
    form: Form,
    depth: u64,
    requests: u64,
    round: u32,
) -> anyhow::Result<Figure> {
    let running = server.start(bench.cores.server)?;
    let load = Load::usual(form, Length::Requests(requests), depth, u64::from(round));
    let before = running.cpu_time()?;
    let outcome: Outcome = load.run(&running, bench.cores.load)?;
    let cpu_ns = running.cpu_time()?.since(&before);
    if server.kind.stores() {
        outcome.check_fresh()?;
    }
    Ok(Figure {
        round,
        server: server.kind,
        form,
        pipeline: depth,
        requests,
        keys_per_s: outcome.keys_per_s,
        server_cpu_us_per_key: cpu_ns as f64 / 1e3 / (outcome.replies * form.keys()) as f64,
        latency_us: outcome.latency_us,
    })
}

/// What each server that stores can do with one key per request, in keys per second: from
/// `figures`, or from a short run of its own.
pub(crate) fn capacities(bench: &Bench, figures: &[Figure]) -> anyhow::Result<BTreeMap<Kind, f64>> {
    let mut capacities = BTreeMap::new();
    for server in bench.servers.iter().filter(|server| server.kind.stores()) {
        let form = server.kind.forms()[0];
        let mut rates = rates(figures, server.kind, form);
        if rates.is_empty() {
            let requests = bench.scale.requests_min[1];
            rates.push(run(bench, server, form, DEPTH_USUAL, requests, 0)?.keys_per_s);
        }
        capacities.insert(server.kind, median(&rates).unwrap_or(0.0));
    }
    Ok(capacities)
}

fn rates(figures: &[Figure], server: Kind, form: Form) -> Vec<f64> {
    select(figures, server, form, DEPTH_USUAL)
        .map(|figure| figure.keys_per_s)
        .collect()
}

fn select(
    figures: &[Figure],
    server: Kind,
    form: Form,
    depth: u64,
) -> impl Iterator<Item = &Figure> {
    figures.iter().filter(move |figure| {
        figure.server == server && figure.form == form && figure.pipeline == depth
    })
}

/// The part of the report.
pub(crate) fn print(bench: &Bench, figures: &[Figure]) {
    println!("## Speed\n");
    println!(
        "Each server fresh for each run, 50 connections, 36-character UUID keys of which 30% are \
         repeats, one hour to live. {}. \"In flight\" is per connection. Keys in a run: {}; in \
         batches of 100: {}.\n",
        medians_of(bench.scale.rounds),
        keys_per_run(figures, false),
        keys_per_run(figures, true)
    );
    let by_depth = |title: &str, cell: &dyn Fn(&Figure) -> f64, word: &dyn Fn(f64) -> String| {
        print_by_depth(bench, title, |server, form, depth| {
            let values: Vec<_> = select(figures, server, form, depth).map(cell).collect();
            median(&values).map(word)
        });
    };
    by_depth(
        "µs of server CPU per key",
        &|figure| figure.server_cpu_us_per_key,
        &|us| format!("{us:.3}"),
    );
    print_ratios(bench, figures);
    print_above_floor(bench, figures);
    by_depth("keys per second", &|figure| figure.keys_per_s, &thousands);
    print_by_depth(
        bench,
        "latency of a request in µs: p50, p99, p99.9",
        |server, form, depth| {
            let at = |quantile: fn(&Latency) -> f64| {
                let values: Vec<_> = select(figures, server, form, depth)
                    .map(|figure| quantile(&figure.latency_us))
                    .collect();
                median(&values).map(microseconds)
            };
            let cells = [at(|l| l.p50)?, at(|l| l.p99)?, at(|l| l.p99_9)?];
            Some(cells.join(", "))
        },
    );
}

fn keys_per_run(figures: &[Figure], batched: bool) -> String {
    let runs: Vec<_> = DEPTHS
        .iter()
        .filter_map(|&depth| {
            let figure = figures
                .iter()
                .find(|run| run.pipeline == depth && (run.form.keys() > 1) == batched)?;
            let keys = thousands((figure.requests * figure.form.keys()) as f64);
            Some(format!("{keys} ({depth} in flight)"))
        })
        .collect();
    if runs.is_empty() {
        return "none".to_owned();
    }
    runs.join(", ")
}

fn print_by_depth(bench: &Bench, title: &str, cell: impl Fn(Kind, Form, u64) -> Option<String>) {
    let depths = DEPTHS.iter().map(|depth| format!("{depth} in flight"));
    let mut table = Table::new(title, depths);
    for (server, form) in bench.series() {
        let cells = DEPTHS.iter().map(|&depth| cell(server.kind, form, depth));
        table.row(&format!("{server}, {}", form.title()), cells);
    }
    println!("{table}");
}

/// Each server's CPU per key over that of onced's `SET`, round by round.
fn print_ratios(bench: &Bench, figures: &[Figure]) {
    if !bench.has(Kind::Onced) {
        return;
    }
    let title = "server CPU per key, as a multiple of onced's `SET`";
    print_by_depth(bench, title, |server, form, depth| {
        let pairs = in_pairs(figures, (server, form), (Kind::Onced, Form::Set), depth);
        let ratios: Vec<_> = pairs.iter().map(|(this, onced)| this / onced).collect();
        median(&ratios).map(|ratio| format!("{ratio:.2}"))
    });
}

/// What onced costs beyond the server that does nothing, round by round.
fn print_above_floor(bench: &Bench, figures: &[Figure]) {
    if !bench.has(Kind::Onced) || !bench.has(Kind::Floor) {
        return;
    }
    let title = "onced's CPU per key beside the do-nothing server's: multiple, and µs more";
    let depths = DEPTHS.iter().map(|depth| format!("{depth} in flight"));
    let mut table = Table::new(title, depths);
    for &form in Kind::Onced.forms() {
        let cells = DEPTHS.iter().map(|&depth| {
            let pairs = in_pairs(figures, (Kind::Onced, form), (Kind::Floor, form), depth);
            let ratios: Vec<_> = pairs.iter().map(|(onced, floor)| onced / floor).collect();
            let more: Vec<_> = pairs.iter().map(|(onced, floor)| onced - floor).collect();
            Some(format!("{:.2}, {:+.3}", median(&ratios)?, median(&more)?))
        });
        table.row(form.title(), cells);
    }
    println!("{table}");
}

/// CPU per key of one series and of another, in the same rounds.
fn in_pairs(
    figures: &[Figure],
    this: (Kind, Form),
    other: (Kind, Form),
    depth: u64,
) -> Vec<(f64, f64)> {
    let others: BTreeMap<u32, f64> = select(figures, other.0, other.1, depth)
        .map(|figure| (figure.round, figure.server_cpu_us_per_key))
        .collect();
    select(figures, this.0, this.1, depth)
        .filter_map(|figure| Some((figure.server_cpu_us_per_key, *others.get(&figure.round)?)))
        .collect()
}
