//! `onced stats`: a server's counters, once or every second.
//!
//! Watching, all figures but keys and memory are of the interval between two looks, by namespace, and a line fits
//! 80 columns.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::bail;

use super::ServerArgs;
use super::remote::{Remote, ReplyText};
use crate::wire::line::push_word;

/// How often `--watch` looks.
const WATCH_EVERY: Duration = Duration::from_secs(1);
/// Namespaces that `--watch` shows, the busiest ones.
const NAMESPACES_MAX: usize = 10;
/// Namespaces that are asked about before their replies are read, which a server keeps meanwhile.
const IN_FLIGHT_MAX: usize = 256;
/// Lines after which the heading is repeated where somebody scrolls.
const HEADING_EVERY: usize = 20;
/// What the line of the whole server is called.
const ALL: &str = "(all)";

/// Show a server's counters
#[derive(Debug, clap::Args)]
pub(crate) struct StatsArgs {
    /// Only this namespace
    #[arg(value_name = "NAMESPACE")]
    namespace: Option<String>,

    /// Show what happens once a second, until interrupted: of the server, and of the namespaces that were asked the
    /// most since the last look
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
    if args.watch {
        return watch(&mut remote, args.namespace.as_deref(), args.count);
    }
    let mut out = std::io::stdout().lock();
    let reply = remote.request(&stats_of(args.namespace.as_deref()))?;
    for (name, value) in rows(&reply)? {
        writeln!(out, "{name:<28} {value}")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn stats_of(namespace: Option<&str>) -> Vec<u8> {
    let mut request = b"STATS".to_vec();
    if let Some(namespace) = namespace {
        request.push(b' ');
        push_word(namespace.as_bytes(), &mut request);
    }
    request
}

/// Rows of a reply as names and values.
fn rows(reply: &ReplyText) -> anyhow::Result<Vec<(String, String)>> {
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

/// The counters of one namespace, or of the server.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    keys: u64,
    bytes: u64,
    new: u64,
    dup: u64,
    mismatch: u64,
    /// Answers to `BEGIN` and its like.
    records: u64,
    refused: u64,
    evicted: u64,
}

impl Sample {
    fn of(rows: &[(String, String)]) -> Self {
        let number = |name: &str| {
            let found = rows.iter().find(|(row, _)| row == name);
            found.and_then(|(_, value)| value.parse().ok())
        };
        let count = |name: &str| number(name).unwrap_or(0);
        Self {
            keys: count("keys"),
            bytes: number("memory_bytes").or(number("bytes")).unwrap_or(0),
            new: count("new"),
            dup: count("dup"),
            mismatch: count("mismatch"),
            records: count("records_begun") + count("records_busy") + count("records_replayed"),
            refused: count("refused"),
            evicted: count("evicted"),
        }
    }

    /// What was counted since an earlier one; keys and bytes are of now.
    fn since(&self, earlier: &Self) -> Self {
        let grown = |field: fn(&Self) -> u64| field(self).saturating_sub(field(earlier));
        Self {
            keys: self.keys,
            bytes: self.bytes,
            new: grown(|sample| sample.new),
            dup: grown(|sample| sample.dup),
            mismatch: grown(|sample| sample.mismatch),
            records: grown(|sample| sample.records),
            refused: grown(|sample| sample.refused),
            evicted: grown(|sample| sample.evicted),
        }
    }

    /// How often it was asked.
    fn asked(&self) -> u64 {
        self.new + self.dup + self.mismatch + self.records + self.refused
    }

    /// The share of repeats, in percent; `None` where none was asked about.
    fn hit_percent(&self) -> Option<f64> {
        let all = self.new + self.dup + self.mismatch;
        (all > 0).then(|| 100.0 * self.dup as f64 / all as f64)
    }
}

/// One look: the server, or the one namespace, and then all namespaces.
fn look(
    remote: &mut Remote,
    namespace: Option<&str>,
) -> anyhow::Result<(Sample, BTreeMap<String, Sample>)> {
    let of_all = Sample::of(&rows(&remote.request(&stats_of(namespace))?)?);
    let mut spaces = BTreeMap::new();
    if namespace.is_some() {
        return Ok((of_all, spaces));
    }
    let names: Vec<_> = rows(&remote.request(b"NS LIST")?)?
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    // One namespace is the server.
    if names.len() > 1 {
        for names in names.chunks(IN_FLIGHT_MAX) {
            for name in names {
                remote.send(&stats_of(Some(name)))?;
            }
            remote.flush()?;
            for name in names {
                // One that was dropped meanwhile has none.
                if let Ok(rows) = rows(&remote.recv()?) {
                    spaces.insert(name.clone(), Sample::of(&rows));
                }
            }
        }
    }
    Ok((of_all, spaces))
}

fn watch(remote: &mut Remote, namespace: Option<&str>, count: u64) -> anyhow::Result<ExitCode> {
    let is_terminal = std::io::stdout().is_terminal();
    let mut before: Option<(Instant, Sample, BTreeMap<String, Sample>)> = None;
    let (mut shown, mut lines) = (0, 0);
    loop {
        let looked = Instant::now();
        let (of_all, spaces) = look(remote, namespace)?;
        let passed = before.as_ref().map(|(at, ..)| looked - *at);
        let grown = before
            .as_ref()
            .map_or(of_all, |(_, earlier, _)| of_all.since(earlier));
        let mut block = vec![line(namespace.unwrap_or(ALL), &grown, passed)];
        if let Some((_, _, earlier)) = &before {
            for (name, sample) in busiest(&spaces, earlier) {
                block.push(line(name, &sample, passed));
            }
        }
        let mut out = std::io::stdout().lock();
        if lines == 0 || is_terminal && lines >= HEADING_EVERY {
            writeln!(out, "{}", heading())?;
            lines = 0;
        }
        for line in &block {
            writeln!(out, "{line}")?;
        }
        out.flush()?;
        lines += block.len();
        shown += 1;
        if shown == count {
            return Ok(ExitCode::SUCCESS);
        }
        before = Some((looked, of_all, spaces));
        sleep(WATCH_EVERY);
    }
}

/// Those that were asked since the last look, the busiest first.
fn busiest<'a>(
    spaces: &'a BTreeMap<String, Sample>,
    earlier: &BTreeMap<String, Sample>,
) -> Vec<(&'a str, Sample)> {
    let mut grown: Vec<_> = spaces
        .iter()
        .map(|(name, sample)| {
            let before = earlier.get(name).copied().unwrap_or_default();
            (name.as_str(), sample.since(&before))
        })
        .filter(|(_, sample)| sample.asked() > 0)
        .collect();
    grown.sort_by_key(|(_, sample)| Reverse(sample.asked()));
    grown.truncate(NAMESPACES_MAX);
    grown
}

fn heading() -> String {
    columns(
        "namespace",
        "keys",
        "memory",
        "asked/s",
        "hits %",
        "new/s",
        "refused/s",
        "evicted/s",
    )
}

/// A line of figures; without a span there are no rates yet.
fn line(name: &str, sample: &Sample, passed: Option<Duration>) -> String {
    let rate = |count: u64| match passed {
        None => "-".to_owned(),
        Some(passed) => short(count as f64 / passed.as_secs_f64().max(0.001), 1_000.0, ""),
    };
    let hits = passed.and(sample.hit_percent());
    columns(
        &shortened(name),
        &short(sample.keys as f64, 1_000.0, ""),
        &short(sample.bytes as f64, 1_024.0, "iB"),
        &rate(sample.asked()),
        &hits.map_or_else(|| "-".to_owned(), |percent| format!("{percent:.1}")),
        &rate(sample.new),
        &rate(sample.refused),
        &rate(sample.evicted),
    )
}

#[expect(clippy::too_many_arguments, reason = "a row has as many cells")]
fn columns(
    name: &str,
    keys: &str,
    memory: &str,
    asked: &str,
    hits: &str,
    new: &str,
    refused: &str,
    evicted: &str,
) -> String {
    format!(
        "{name:<NAME_WIDTH$} {keys:>7} {memory:>8} {asked:>8} {hits:>6} {new:>8} {refused:>9} {evicted:>9}"
    )
}

/// Characters of a namespace's name that are shown.
const NAME_WIDTH: usize = 17;

/// A name that may be longer: its end tells more.
fn shortened(name: &str) -> String {
    let chars = name.chars().count();
    if chars <= NAME_WIDTH {
        return name.to_owned();
    }
    let end: String = name.chars().skip(chars - NAME_WIDTH + 1).collect();
    format!("…{end}")
}

/// A number in four characters or so, and a unit: `950`, `12.3k`, `4.56M`, `305MiB`.
fn short(number: f64, step: f64, suffix: &str) -> String {
    const UNITS: [&str; 5] = ["", "k", "M", "G", "T"];
    let mut number = number;
    let mut unit = 0;
    while number >= 999.5 && unit + 1 < UNITS.len() {
        number /= step;
        unit += 1;
    }
    let decimals = match (unit, number) {
        (0, _) | (_, 100.0..) => 0,
        (_, 10.0..) => 1,
        _ => 2,
    };
    let suffix = match (unit, suffix) {
        (0, "iB") => "B",
        _ => suffix,
    };
    format!("{number:.decimals$}{}{suffix}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(new: u64, dup: u64) -> Sample {
        Sample {
            keys: 5,
            bytes: 305 << 20,
            new,
            dup,
            ..Sample::default()
        }
    }

    #[test]
    fn figures_are_of_the_interval_and_fit_80_columns() {
        let grown = sample(400, 1_900).since(&sample(100, 1_000));
        let line = line(&"n".repeat(64), &grown, Some(Duration::from_secs(2)));
        let words: Vec<_> = line.split_whitespace().collect();
        assert_eq!(words[1..], ["5", "305MiB", "600", "75.0", "150", "0", "0"]);
        assert_eq!(words[0].chars().count(), NAME_WIDTH);
        for shown in [line, heading()] {
            assert!(shown.chars().count() <= 80, "{shown}");
        }
        let widest = Sample {
            new: 999_400_000_000,
            keys: 99_940_000_000,
            bytes: 1_018 << 30,
            refused: u64::MAX / 4,
            ..Sample::default()
        };
        let line = super::line("x", &widest, Some(Duration::from_secs(1)));
        assert!(line.chars().count() <= 80, "{line}");
    }

    #[test]
    fn the_busiest_namespaces_come_first() {
        let samples = |figures: [(&str, u64); 3]| -> BTreeMap<String, Sample> {
            let named = figures.map(|(name, new)| (name.to_owned(), sample(new, 0)));
            named.into()
        };
        let earlier = samples([("a", 10), ("b", 10), ("c", 10)]);
        let now = samples([("a", 11), ("b", 10), ("c", 15)]);
        let names: Vec<_> = busiest(&now, &earlier)
            .iter()
            .map(|(name, _)| *name)
            .collect();
        assert_eq!(names, ["c", "a"]);
    }

    #[test]
    fn numbers_are_short() {
        for (number, want) in [
            (0.0, "0"),
            (999.0, "999"),
            (999.7, "1.00k"),
            (12_345.0, "12.3k"),
            (4_560_000.0, "4.56M"),
            (123_000_000.0, "123M"),
        ] {
            assert_eq!(short(number, 1_000.0, ""), want);
        }
        assert_eq!(short(512.0, 1_024.0, "iB"), "512B");
        assert_eq!(short(f64::from(305 << 20), 1_024.0, "iB"), "305MiB");
    }
}
