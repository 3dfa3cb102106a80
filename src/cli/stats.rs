//! `onced stats`: a server's counters, once or every second.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::bail;

use super::ServerArgs;
use super::remote::Remote;
use crate::wire::line::push_word;

/// How often `--watch` looks.
const WATCH_EVERY: Duration = Duration::from_secs(1);
/// The counters that `--watch` shows as rates.
const RATES: [&str; 7] = [
    "new", "dup", "mismatch", "refused", "expired", "evicted", "bytes_in",
];

/// Show a server's counters
#[derive(Debug, clap::Args)]
pub(crate) struct StatsArgs {
    /// Only this namespace
    #[arg(value_name = "NAMESPACE")]
    namespace: Option<String>,

    /// Show gauges and rates once a second, until interrupted
    #[arg(short, long)]
    watch: bool,

    /// How often to look with --watch; 0 is without end
    #[arg(long, value_name = "N", default_value_t = 0, requires = "watch")]
    count: u64,

    #[command(flatten)]
    at: ServerArgs,
}

pub(crate) fn run(args: &StatsArgs) -> anyhow::Result<ExitCode> {
    let mut remote = Remote::connect(&args.at)?;
    let mut request = b"STATS".to_vec();
    if let Some(namespace) = &args.namespace {
        request.push(b' ');
        push_word(namespace.as_bytes(), &mut request);
    }
    if args.watch {
        return watch(&mut remote, &request, args.count);
    }
    let mut out = std::io::stdout().lock();
    for (name, value) in ask(&mut remote, &request)? {
        writeln!(out, "{name:<28} {value}")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn ask(remote: &mut Remote, request: &[u8]) -> anyhow::Result<Vec<(String, String)>> {
    let reply = remote.request(request)?;
    if !reply.head.starts_with(b"ROWS ") {
        bail!(
            "the server answered '{}'",
            String::from_utf8_lossy(&reply.head)
        );
    }
    let rows = reply.rows.iter().map(|row| {
        let row = String::from_utf8_lossy(row);
        let (name, value) = row.split_once(' ').unwrap_or((&row, ""));
        (name.to_owned(), value.to_owned())
    });
    Ok(rows.collect())
}

fn watch(remote: &mut Remote, request: &[u8], count: u64) -> anyhow::Result<ExitCode> {
    let is_terminal = std::io::stdout().is_terminal();
    let mut before: Option<(Instant, BTreeMap<String, String>)> = None;
    let mut shown = 0;
    loop {
        let now: BTreeMap<_, _> = ask(remote, request)?.into_iter().collect();
        let looked = Instant::now();
        let line = watch_line(&now, before.as_ref().map(|(at, rows)| (looked - *at, rows)));
        let mut out = std::io::stdout().lock();
        // A heading now and then, where somebody scrolls.
        if shown == 0 || is_terminal && shown % 20 == 0 {
            writeln!(out, "{}", heading())?;
        }
        writeln!(out, "{line}")?;
        out.flush()?;
        shown += 1;
        if shown == count {
            return Ok(ExitCode::SUCCESS);
        }
        before = Some((looked, now));
        sleep(WATCH_EVERY);
    }
}

fn heading() -> String {
    columns(
        "keys",
        "bytes",
        "hit_rate",
        RATES.map(|name| format!("{name}/s")),
    )
}

fn watch_line(
    now: &BTreeMap<String, String>,
    before: Option<(Duration, &BTreeMap<String, String>)>,
) -> String {
    let text = |name: &str| now.get(name).map(String::as_str);
    let number = |rows: &BTreeMap<String, String>, name: &str| {
        rows.get(name).and_then(|value| value.parse::<u64>().ok())
    };
    let rate = |name: &str| {
        let (passed, rows) = before?;
        let grown = number(now, name)?.saturating_sub(number(rows, name)?);
        let rate = grown as f64 / passed.as_secs_f64().max(0.001);
        Some(format!("{rate:.0}"))
    };
    let rates = RATES.map(|name| rate(name).unwrap_or_else(|| "-".to_owned()));
    let bytes = text("memory_bytes").or(text("bytes")).unwrap_or("-");
    columns(
        text("keys").unwrap_or("-"),
        bytes,
        text("hit_rate").unwrap_or("-"),
        rates,
    )
}

fn columns(keys: &str, bytes: &str, hit_rate: &str, rates: [String; RATES.len()]) -> String {
    let rates = rates.map(|rate| format!("{rate:>11}")).join(" ");
    format!("{keys:>12} {bytes:>14} {hit_rate:>9} {rates}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_what_was_counted_per_second() {
        let rows = |new: u64| {
            BTreeMap::from(
                [("keys", 5), ("new", new)].map(|(k, v): (&str, u64)| (k.into(), v.to_string())),
            )
        };
        let line = watch_line(&rows(300), Some((Duration::from_secs(2), &rows(100))));
        let words: Vec<_> = line.split_whitespace().collect();
        assert_eq!(words, ["5", "-", "-", "100", "-", "-", "-", "-", "-", "-"]);
        assert_eq!(heading().split_whitespace().count(), words.len());
    }
}
