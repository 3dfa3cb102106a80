//! `onced import`: keys from elsewhere into a running server, so that it does not start cold.
//!
//! A line is read and judged by `lines`, and becomes requests that `load` sends ahead of the replies to
//! those before. Whatever happens to a line, the next one is read: only a file or a server that is gone
//! ends the import early.

mod lines;
mod load;

use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::ValueEnum;
use indicatif::ProgressBar;

use self::lines::{Line, Problem};
use self::load::Loader;
use super::ServerArgs;
use super::input::{Input, text, without_mark};
use super::progress::{draw, say};
use crate::time::parse_duration_ms;

/// The longest line: a value of the largest body, each byte of it escaped, and then some.
const LINE_BYTES_MAX: u64 = 64 << 20;
/// How much is read at once.
const READ_BYTES: usize = 256 << 10;
/// Refused lines that are told one by one.
const REFUSALS_SHOWN: u64 = 10;

/// What lines look like, for `--help`.
const LINES: &str = r#"One key a line, or a key, a tab and the moment its window ends, in Unix milliseconds:

  order-17
  order-18<TAB>1767225600000

A line ends with \n or \r\n, which are no part of a key, and neither is a byte-order mark in front
of the first one. What is compressed with gzip, zstd or bzip2 is read decompressed. A number that
looks like seconds or microseconds is refused. Keys are any bytes; those with tabs
or line ends in them are written as JSON lines, as 'onced log dump --help' describes them, of
which "key" or "key_hex" is enough:

  {"key":"order\t19","deadline_ms":1767225600000,"namespace":"orders"}

A file whose first line is such an object is taken for JSON lines, unless --format says otherwise."#;

/// Load keys from a file into a running server, for a start that is not cold
///
/// The server may be in use: a key that it has already keeps its value, and the later of both deadlines
/// holds. So running an import again changes nothing, and of a key that is there twice the later
/// deadline holds. A key without a deadline is kept for --ttl, or for the namespace's default. What ends
/// in the past is skipped and counted as lapsed; what ends beyond the namespace's longest ttl is cut to
/// that and counted. Once all that was ever seen is loaded, NS SET name COVERED tells the server that its
/// memory is complete.
///
/// Ends with counts on standard output. Exit status 1 if lines were refused, each of the first named on
/// standard error; 2 if the server or the file is not there.
#[derive(Debug, clap::Args)]
#[command(after_long_help = LINES)]
pub(crate) struct ImportArgs {
    /// The keys; - is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// The namespace of keys whose line names none
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,

    /// How long to remember keys whose line names no end, such as 10s, 5m or 24h
    #[arg(long, value_name = "D")]
    ttl: Option<String>,

    /// How lines are to be read; without it, the first one tells
    #[arg(long, value_enum)]
    format: Option<Format>,

    #[command(flatten)]
    at: ServerArgs,
}

/// How lines are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A key, or a key, a tab and a deadline
    Keys,
    /// An object, as `log dump` writes them
    Json,
}

/// What is to be loaded, and where to.
pub(crate) struct Source<'a> {
    /// The file; `None`, or `-`, is standard input.
    pub(crate) file: Option<&'a Path>,
    /// Where the server is.
    pub(crate) server: &'a ServerArgs,
    /// The namespace of keys whose line names none; `None` is `default`.
    pub(crate) namespace: Option<&'a str>,
    /// The life of keys whose line names no end, if not the namespace's default.
    pub(crate) ttl_ms: Option<u64>,
    /// How lines are to be read, if not as the first one tells.
    pub(crate) format: Option<Format>,
}

pub(crate) fn run(args: &ImportArgs) -> anyhow::Result<ExitCode> {
    let ttl_ms = match &args.ttl {
        None => None,
        Some(ttl) => match parse_duration_ms(ttl.as_bytes()).context("--ttl")? {
            0 => bail!("--ttl is at least 1ms"),
            ms => Some(ms),
        },
    };
    load(&Source {
        file: Some(&args.file),
        server: &args.at,
        namespace: args.namespace.as_deref(),
        ttl_ms,
        format: args.format,
    })
}

/// Loads all lines, and tells what became of them.
pub(crate) fn load(source: &Source<'_>) -> anyhow::Result<ExitCode> {
    let from = source.file.map_or(Input::Stdin, Input::named);
    let (name, bytes_total) = (from.name(), from.size()?);
    let mut input = BufReader::with_capacity(READ_BYTES, from.open()?);
    let bar = io::stderr().is_terminal().then(|| draw(bytes_total));
    let mut tally = Tally::new(bar.clone());
    let mut loader = Loader::connect(source.server, source.namespace, source.ttl_ms)?;
    let mut format = source.format;
    let mut line = Vec::new();
    while read_line(&mut input, &mut line).with_context(|| format!("cannot read {name}"))? {
        tally.lines += 1;
        if let Some(bar) = &bar {
            bar.inc(bytes_total.map_or(1, |_| line.len() as u64));
        }
        if line.len() as u64 >= LINE_BYTES_MAX {
            bail!(
                "line {} of {name} is longer than {} MiB: is this a text file?",
                tally.lines,
                LINE_BYTES_MAX >> 20
            );
        }
        let text = match tally.lines {
            1 => without_mark(text(&line)),
            _ => text(&line),
        };
        if text.is_empty() {
            tally.lines_empty += 1;
            continue;
        }
        let format = *format.get_or_insert_with(|| lines::guess(text));
        match lines::parse(text, format) {
            Ok(Line::Put(put)) => loader.put(tally.lines, put, &mut tally)?,
            Ok(Line::Space(space)) => loader.space(tally.lines, &space, &mut tally)?,
            Err(problem) => tally.refuse(tally.lines, &problem),
        }
    }
    loader.finish(&mut tally)?;
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    tally.end()?;
    Ok(ExitCode::from(u8::from(tally.refused > 0)))
}

/// Reads the next line, its end included; false if there is none.
fn read_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    Ok(input.take(LINE_BYTES_MAX).read_until(b'\n', line)? > 0)
}

/// What became of the lines.
#[derive(Debug, Default)]
struct Tally {
    lines: u64,
    lines_empty: u64,
    new: u64,
    /// Keys that were there already.
    present: u64,
    /// Those of them that now end later.
    extended: u64,
    lapsed: u64,
    /// Keys whose deadline was beyond the longest ttl.
    cut: u64,
    namespaces: u64,
    refused: u64,
    bar: Option<ProgressBar>,
}

impl Tally {
    fn new(bar: Option<ProgressBar>) -> Self {
        Self {
            bar,
            ..Self::default()
        }
    }

    fn refuse(&mut self, line: u64, problem: &Problem) {
        self.refused += 1;
        if self.refused <= REFUSALS_SHOWN {
            self.say(&format!("line {line}: {problem}"));
        }
    }

    /// Says something on standard error, above the bar.
    fn say(&self, text: &str) {
        say(self.bar.as_ref(), text);
    }

    fn end(&self) -> io::Result<()> {
        if self.refused > REFUSALS_SHOWN {
            let more = self.refused - REFUSALS_SHOWN;
            eprintln!("onced: {more} more lines were refused");
        }
        let mut out = io::stdout().lock();
        write!(
            out,
            "read {}, new {}, already there {} ({} now end later), lapsed {}, refused {}",
            self.lines - self.lines_empty,
            self.new,
            self.present,
            self.extended,
            self.lapsed,
            self.refused
        )?;
        if self.cut > 0 {
            write!(out, ", cut to the longest ttl {}", self.cut)?;
        }
        if self.namespaces > 0 {
            write!(out, ", namespaces made {}", self.namespaces)?;
        }
        writeln!(out)
    }
}
