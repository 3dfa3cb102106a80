//! `onced filter`: copies lines, dropping those whose key was already seen.
//!
//! A line's way: `source` reads and cuts it and finds its key (`key`), on a thread of its
//! own; a `batch` carries it here; `dedup`, or a `server`, says whether the key is new; `copy`
//! writes it to the `output` or drops it. Kept lines keep their order and their bytes. The one
//! byte ever added is the line end that an input lacked when another line follows it, from the
//! next file. What was decided is on standard output before the filter waits for input, and
//! before it ends, however that comes.

mod batch;
mod copy;
mod csv;
mod dedup;
mod key;
mod output;
mod pattern;
mod progress;
mod server;
mod source;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};

use self::copy::{Copy, Ended};
use self::csv::{Column, Csv};
use self::dedup::{Dedup, Embedded};
use self::key::{KeyRule, parse_delimiter};
use self::output::Output;
use self::pattern::Pattern;
use self::progress::Progress;
use self::server::{Asking, Server};
use self::source::{Framing, Inputs};
use super::signals::{self, EndRequest};
use super::{SERVER_TIMEOUT, parse_span, parse_timeout};
use crate::address::Address;
use crate::json::Pointer;

/// Exit status when the output did not take all lines; 2 is for all else.
pub(super) const OUTPUT_FAILED: u8 = 1;

/// How it ends, for `--help`.
const ENDS: &str = "\
With --server, no line is lost however the filter ends: by SIGTERM, SIGINT or SIGHUP, with a full
disk, with a reader that goes away, with a server that is gone. The answers under way are
collected, new lines are written, keys whose lines the output does not take are forgotten again,
and lines whose answer never came are written. A line whose key is over the server's limit
passes. Only a filter that is killed (SIGKILL) can lose lines: those that it has asked about and
not written, 8000 at most.

Where several filters share a server, another one may have dropped the line of a key that is
forgotten again. For them, and against kills, there is --ack: a key counts as seen once its line
is written, and until then others hold their line back, for the lease at most. A killed filter
then writes at most 8000 lines twice, the second time when it is run again. Lines that were held
back come out later than those behind them. All filters over a namespace use --ack, or none, and
what is run again uses what it used before: to one without, a claim that came to nothing is seen.
If the server is lost and the output fails as well, keys are forgotten whose answers never came,
whoever stored them.

Exit status: 0 also when the reader of the output goes away; 1 if the output could not take all
lines; 2 for all other errors; killed by the signal that ended it.";

/// Copies lines to standard output, dropping those whose key was already seen.
///
/// The key is the whole line unless one of --key-regex, --json or --field names a part of it.
/// Lines keep their order and their bytes; lines without a key pass through.
#[derive(clap::Args, Debug)]
#[command(after_long_help = ENDS)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line"
)]
pub(crate) struct FilterArgs {
    /// Files to read, in order; '-' is standard input, read also when no file is given
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,

    /// The key is the first match of this regular expression, or its group 1 if it has one; a
    /// byte that is no UTF-8 counts as a character that is no letter, digit or space
    #[arg(long, value_name = "RE", group = "key", allow_hyphen_values = true)]
    key_regex: Option<String>,

    /// Lines are JSON, the key is the value at this pointer (RFC 6901), such as /request/id
    ///
    /// A string is its bare text. Every other value is its canonical JSON (RFC 8785), with numbers exact:
    /// 1, 1.0 and 1e0 are one key, and so are objects whose members stand in another order. A string
    /// that is JSON itself keeps its quotes, so that "17" is not 17. null and "" are no key.
    #[arg(long, value_name = "POINTER", group = "key")]
    json: Option<Pointer>,

    /// The key is the Nth field, counted from 1, between runs of blanks; with --csv also a
    /// column's name. For fields in quotes there is --csv
    #[arg(long, value_name = "N|NAME", group = "key")]
    field: Option<String>,

    /// Fields stand between single bytes C instead ('\t' is a tab); without --csv, quotes mean
    /// nothing
    #[arg(
        short,
        long,
        value_name = "C",
        requires = "field",
        allow_hyphen_values = true
    )]
    #[arg(value_parser = parse_delimiter)]
    delimiter: Option<u8>,

    /// Lines are CSV records, with fields in quotes and line ends in them. The first record of
    /// each file is its header: it passes, but not again where files have the same one
    #[arg(long, requires = "field")]
    csv: bool,

    /// CSV has no header: the first record is like all others
    #[arg(long, requires = "csv")]
    no_header: bool,

    /// Lines end with a NUL byte, as 'find -print0' writes them
    #[arg(short = 'z', long, conflicts_with = "csv")]
    null: bool,

    /// Ask this server, HOST:PORT or unix:PATH, to share memory between processes; without it
    /// the keys of this run are held in this process
    #[arg(long, value_name = "ADDR")]
    server: Option<Address>,

    /// The server's namespace to use
    #[arg(long, value_name = "NAME", requires = "server")]
    ns: Option<String>,

    /// How long to wait for the server: to connect, to send, and for each answer
    #[arg(long, value_name = "D", default_value = SERVER_TIMEOUT, value_parser = parse_timeout)]
    timeout: Duration,

    /// Forget a key so long after it was first seen, such as 10s, 5m or 24h; without it, the
    /// namespace's default with --server, otherwise never
    #[arg(long, value_name = "D", value_parser = parse_ttl)]
    ttl: Option<u64>,

    /// Claim keys and acknowledge them once their lines are written, so that not even a kill loses
    /// a line: for several filters that share a server
    #[arg(long, requires = "server")]
    ack: bool,

    /// How long a claim holds that is not acknowledged; a line that waits longer for the output
    /// may be written twice
    #[arg(long, value_name = "D", requires = "ack", default_value = "30s", value_parser = parse_lease)]
    lease: u64,

    /// Drop lines without a key
    #[arg(long)]
    drop_keyless: bool,

    /// End with a summary on standard error
    #[arg(long)]
    stats: bool,
}

/// Runs the subcommand: exit status 0 also when the reader of the output went away.
pub(crate) fn run(args: &FilterArgs) -> anyhow::Result<ExitCode> {
    let rules = args.rules()?;
    let inputs = Inputs::find(&args.files)?;
    match &args.server {
        Some(address) => {
            let asking = Asking {
                namespace: args.ns.clone(),
                ttl_ms: args.ttl,
                lease_ms: args.ack.then_some(args.lease),
            };
            let server = Server::connect(address, args.timeout, asking)?;
            args.filter(inputs, rules, server)
        }
        None => args.filter(inputs, rules, Embedded::new(args.ttl)?),
    }
}

impl FilterArgs {
    /// How lines are cut, and where their keys are.
    fn rules(&self) -> anyhow::Result<(Framing, KeyRule)> {
        if self.csv {
            let (delimiter, csv) = self.csv_rule()?;
            return Ok((Framing::Csv { delimiter }, KeyRule::Csv(Box::new(csv))));
        }
        let (framing, if_empty): (_, &[u8]) = if self.null {
            (Framing::Nul, b"\0")
        } else {
            (Framing::Lines, b"\n")
        };
        let rule = if let Some(text) = &self.key_regex {
            KeyRule::Pattern(Pattern::new(text)?)
        } else if let Some(pointer) = &self.json {
            KeyRule::Json(pointer.clone())
        } else if let Some(field) = &self.field {
            let Ok(number) = field.parse() else {
                bail!("--field '{field}' is no number from 1; columns have names with --csv");
            };
            KeyRule::Field {
                number,
                delimiter: self.delimiter,
            }
        } else {
            KeyRule::WholeLine { if_empty }
        };
        Ok((framing, rule))
    }

    /// What separates fields, and which of them is the key.
    fn csv_rule(&self) -> anyhow::Result<(u8, Csv)> {
        let field = self.field.as_deref().unwrap_or_default();
        let column = match field.parse::<usize>() {
            Ok(0) => bail!("--field counts from 1"),
            Ok(number) => Column::Number(number),
            Err(_) if self.no_header => {
                bail!("--field '{field}' is no number, and with --no-header columns have no names")
            }
            Err(_) => Column::Name(field.to_owned()),
        };
        let delimiter = self.delimiter.unwrap_or(b',');
        if matches!(delimiter, b'"' | b'\n' | b'\r') {
            bail!("with --csv a delimiter is neither a quote nor a line end");
        }
        Ok((delimiter, Csv::new(delimiter, column, !self.no_header)))
    }

    fn filter(
        &self,
        inputs: Inputs,
        (framing, rule): (Framing, KeyRule),
        dedup: impl Dedup,
    ) -> anyhow::Result<ExitCode> {
        let end = EndRequest::watch().context("cannot wait for signals")?;
        let output = Output::stdout(end.clone()).context("cannot write to standard output")?;
        let progress = Progress::start(inputs.bytes_total);
        let copy = Copy::new(
            dedup,
            output,
            end,
            self.drop_keyless,
            framing.line_end(),
            progress,
        );
        let ended = copy.run(&inputs.read(framing, rule));
        self.finish(ended)
    }

    /// Says how it ended, and ends so.
    fn finish(&self, ended: Ended) -> anyhow::Result<ExitCode> {
        let Ended {
            tally,
            failure,
            output_failure,
            signal,
        } = ended;
        // A reader that went away is no failure: it has what it wanted.
        let output_failure = output_failure.filter(|err| err.kind() != io::ErrorKind::BrokenPipe);
        let mut told = Vec::new();
        told.extend(failure.as_ref().map(|err| format!("{err:#}")));
        told.extend(
            output_failure
                .as_ref()
                .map(|err| format!("cannot write the output: {err}")),
        );
        if tally.given_back > 0 && !told.is_empty() {
            let count = tally.given_back;
            told.push(format!(
                "{count} lines not written are as if never asked about"
            ));
        }
        if tally.unanswered > 0 {
            let count = tally.unanswered;
            told.push(format!(
                "{count} lines, whose answer never came, are written and may be repeats"
            ));
        }
        if tally.held > 0 {
            let count = tally.held;
            told.push(format!(
                "{count} lines are not written: others have claimed their keys"
            ));
        }
        let told = told.join("; ");
        if failure.is_some() && signal.is_none() {
            bail!(told);
        }
        // Standard error may be closed too; the lines are out, which is what counts.
        if !told.is_empty() {
            let _ = writeln!(io::stderr(), "onced: {told}");
        }
        if self.stats && failure.is_none() {
            let _ = writeln!(io::stderr(), "{tally}");
        }
        match (signal, output_failure) {
            (Some(signal), _) => signals::end_by(signal),
            (None, Some(_)) => Ok(ExitCode::from(OUTPUT_FAILED)),
            (None, None) => Ok(ExitCode::SUCCESS),
        }
    }
}

fn parse_ttl(word: &str) -> Result<u64, String> {
    parse_span(word, "a key that is forgotten at once is never seen again")
}

fn parse_lease(word: &str) -> Result<u64, String> {
    parse_span(word, "a lease lasts longer than that")
}
