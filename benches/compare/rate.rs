//! Rate: latency when all servers are asked for the same, and none for its utmost.
//!
//! As fast as it answers, a server's latency is only the length of its queue. So here requests
//! follow a fixed schedule, at two shares of what the slowest peer can do, and a latency counts
//! from the moment a request was due.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::load::{Form, Latency, Length, Load};
use crate::report::{Bench, Table, median, medians_of, microseconds, thousands};
use crate::server::{Kind, Server};

/// Percent of the slowest peer's requests per second.
const SHARES: [u64; 2] = [30, 70];
/// The most requests in flight per connection; it only matters to a server that falls behind.
const PIPELINE: u64 = 128;

/// One run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    round: u32,
    server: Kind,
    form: Form,
    share_percent: u64,
    rate_per_s: u64,
    latency_us: Latency,
    /// Requests that the load generator could not send within a millisecond of their time.
    late_percent: f64,
}

/// What the slowest peer can do, or onced where there is no peer.
pub(crate) fn slowest_per_s(capacities: &BTreeMap<Kind, f64>) -> f64 {
    let slowest = |peers_only: bool| {
        capacities
            .iter()
            .filter(|(kind, _)| !peers_only || kind.is_peer())
            .map(|(_, per_s)| *per_s)
            .min_by(f64::total_cmp)
    };
    slowest(true)
        .or_else(|| slowest(false))
        .unwrap_or(100_000.0)
}

/// All runs of this part.
pub(crate) fn measure(
    bench: &Bench,
    capacities: &BTreeMap<Kind, f64>,
) -> anyhow::Result<Vec<Figure>> {
    let slowest_per_s = slowest_per_s(capacities);
    let mut figures = Vec::new();
    for round in 1..=bench.scale.rounds {
        for share_percent in SHARES {
            let rate_per_s = share_of(slowest_per_s, share_percent);
            for (server, form) in bench.series().filter(|(_, form)| form.keys() == 1) {
                let load = Load {
                    rate_per_s: Some(rate_per_s),
                    warmup_ms: bench.scale.warmup_ms,
                    ..Load::usual(
                        form,
                        Length::Milliseconds(bench.scale.rate_ms),
                        PIPELINE,
                        u64::from(round),
                    )
                };
                let figure = run(bench, server, &load, round, share_percent, rate_per_s)?;
                bench.progress(&format!(
                    "rate, round {round} of {}: {server} {}, {}/s: p99 {} µs",
                    bench.scale.rounds,
                    form.title(),
                    thousands(rate_per_s as f64),
                    microseconds(figure.latency_us.p99)
                ));
                figures.push(figure);
            }
        }
    }
    Ok(figures)
}

/// In whole thousands.
#[allow(clippy::cast_sign_loss)] // rates are not negative
pub(crate) fn share_of(per_s: f64, percent: u64) -> u64 {
    ((per_s * percent as f64 / 1e5).round() as u64).max(1) * 1_000
}

fn run(
    bench: &Bench,
    server: &Server,
    load: &Load,
    round: u32,
    share_percent: u64,
    rate_per_s: u64,
) -> anyhow::Result<Figure> {
    let running = server.start(bench.cores.server)?;
    let outcome = load.run(&running, bench.cores.load)?;
    Ok(Figure {
        round,
        server: server.kind,
        form: load.form,
        share_percent,
        rate_per_s,
        latency_us: outcome.latency_us,
        late_percent: outcome.late_percent(),
    })
}

/// The part of the report.
pub(crate) fn print(bench: &Bench, figures: &[Figure]) {
    println!("## Fixed rate\n");
    println!(
        "Requests of one key on a fixed schedule, on 50 connections, at {}% and {}% of what the \
         slowest peer answers with 16 in flight. Latency counts from the moment a request was \
         due; \"late\" is the share of requests that the load generator sent more than a \
         millisecond after it. {}.\n",
        SHARES[0],
        SHARES[1],
        medians_of(bench.scale.rounds)
    );
    let columns = SHARES.iter().map(|&share| {
        let figure = figures.iter().find(|figure| figure.share_percent == share);
        let rate = figure.map_or(0, |figure| figure.rate_per_s);
        format!("{share}%: {}/s", thousands(rate as f64))
    });
    let mut table = Table::new("latency in µs: p99, p99.9 (late)", columns);
    for (server, form) in bench.series().filter(|(_, form)| form.keys() == 1) {
        let cells = SHARES.iter().map(|&share| {
            let at = |field: fn(&Figure) -> f64| {
                let values: Vec<_> = figures
                    .iter()
                    .filter(|figure| {
                        (figure.server, figure.form) == (server.kind, form)
                            && figure.share_percent == share
                    })
                    .map(field)
                    .collect();
                median(&values)
            };
            let p99 = microseconds(at(|figure| figure.latency_us.p99)?);
            let p99_9 = microseconds(at(|figure| figure.latency_us.p99_9)?);
            let late = at(|figure| figure.late_percent)?;
            Some(format!("{p99}, {p99_9} ({late:.2}%)"))
        });
        table.row(&format!("{server}, {}", form.title()), cells);
    }
    println!("{table}");
}
