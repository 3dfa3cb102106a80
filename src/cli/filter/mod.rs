//! `onced filter`: copies lines, dropping those whose key was already seen.
//!
//! A line's way: `source` reads and cuts it and finds its key (`key`), on a thread of its
//! own; a `batch` carries it here; `dedup` says whether the key is new; it is written or
//! dropped. Kept lines keep their order and their bytes. The one byte ever added is the line
//! end that an input lacked when another line follows it, from the next file. What was decided
//! is on standard output before the filter waits for input, and before it ends with an error.

mod batch;
mod dedup;
mod key;
mod progress;
mod source;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::TryRecvError;
use std::time::Duration;

use anyhow::{Context, anyhow};

use self::batch::Batch;
use self::dedup::{Dedup, DedupError, Embedded, Server, Verdict};
use self::key::{KeyRule, Pattern, Pointer, parse_delimiter};
use self::progress::{Progress, Tally};
use self::source::{Batches, Inputs};
use super::{SERVER_TIMEOUT, parse_timeout};
use crate::address::Address;
use crate::time::parse_duration_ms;

/// Output bytes gathered into one write.
const WRITE_BYTES: usize = 256 << 10;

/// Copies lines to standard output, dropping those whose key was already seen.
///
/// The key is the whole line unless one of --key-regex, --json or --field names a part of it.
/// Lines keep their order and their bytes; lines without a key pass through.
#[derive(clap::Args, Debug)]
pub(crate) struct FilterArgs {
    /// Files to read, in order; '-' is standard input, read also when no file is given
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,

    /// The key is the first match of this regular expression, or its group 1 if it has one
    #[arg(long, value_name = "RE", group = "key", allow_hyphen_values = true)]
    key_regex: Option<String>,

    /// Lines are JSON, the key is the value at this pointer (RFC 6901), such as /request/id
    #[arg(long, value_name = "POINTER", group = "key")]
    json: Option<Pointer>,

    /// The key is the Nth field, counted from 1, between runs of blanks
    #[arg(long, value_name = "N", group = "key")]
    field: Option<NonZeroUsize>,

    /// Fields stand between single bytes C instead ('\t' is a tab); quotes mean nothing
    #[arg(
        short,
        long,
        value_name = "C",
        requires = "field",
        allow_hyphen_values = true
    )]
    #[arg(value_parser = parse_delimiter)]
    delimiter: Option<u8>,

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

    /// Drop lines without a key
    #[arg(long)]
    drop_keyless: bool,

    /// End with a summary on standard error
    #[arg(long)]
    stats: bool,
}

/// Runs the subcommand: exit status 0 also when the reader of the output went away.
pub(crate) fn run(args: &FilterArgs) -> anyhow::Result<ExitCode> {
    let rule = args.key_rule()?;
    let inputs = Inputs::find(&args.files)?;
    match &args.server {
        Some(address) => {
            let server = Server::connect(address, args.timeout, args.ns.as_deref(), args.ttl)?;
            args.filter(inputs, rule, server)
        }
        None => args.filter(inputs, rule, Embedded::new(args.ttl)?),
    }
}

impl FilterArgs {
    fn key_rule(&self) -> anyhow::Result<KeyRule> {
        if let Some(text) = &self.key_regex {
            return Ok(KeyRule::Pattern(Pattern::new(text)?));
        }
        if let Some(pointer) = &self.json {
            return Ok(KeyRule::Json(pointer.clone()));
        }
        let delimiter = self.delimiter;
        Ok(self
            .field
            .map_or(KeyRule::WholeLine, |number| KeyRule::Field {
                number,
                delimiter,
            }))
    }

    fn filter(&self, inputs: Inputs, rule: KeyRule, dedup: impl Dedup) -> anyhow::Result<ExitCode> {
        // Past the standard library's own buffer, which would write line by line.
        let output = io::stdout().as_fd().try_clone_to_owned();
        let output = File::from(output.context("cannot write to standard output")?);
        let progress = Progress::start(inputs.bytes_total);
        let mut copy = Copy {
            dedup,
            output: BufWriter::with_capacity(WRITE_BYTES, output),
            drop_keyless: self.drop_keyless,
            in_flight: VecDeque::new(),
            verdicts: Vec::new(),
            owes_line_end: false,
            tally: Tally::start(),
            progress,
        };
        let outcome = copy.run(&inputs.read(rule));
        copy.progress.end();
        let Copy { dedup, tally, .. } = copy;
        // The process ends with the run; taking millions of keys apart first would only take a second.
        std::mem::forget(dedup);
        match outcome {
            Ok(()) | Err(Stop::OutputClosed) => {}
            Err(Stop::Failed(err)) => return Err(err),
        }
        if self.stats {
            // Standard error may be closed too; the lines are out, which is what counts.
            let _ = writeln!(io::stderr(), "{tally}");
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn parse_ttl(word: &str) -> Result<u64, String> {
    match parse_duration_ms(word.as_bytes()) {
        Ok(0) => Err("a key that is forgotten at once is never seen again".to_owned()),
        Ok(ms) => Ok(ms),
        Err(err) => Err(err.to_string()),
    }
}

/// Why the copying ended early.
#[derive(Debug)]
enum Stop {
    /// Nobody reads the output any more.
    OutputClosed,
    Failed(anyhow::Error),
}

impl Stop {
    fn output(err: &io::Error) -> Self {
        match err.kind() {
            io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::Failed(anyhow!("cannot write the output: {err}")),
        }
    }
}

/// Lines on their way from batches to the output.
struct Copy<D, W: Write> {
    dedup: D,
    output: BufWriter<W>,
    drop_keyless: bool,
    /// Submitted to the dedup but not collected, oldest first.
    in_flight: VecDeque<Batch>,
    /// The verdicts of the batch being settled.
    verdicts: Vec<Verdict>,
    /// The last line written had no line end.
    owes_line_end: bool,
    tally: Tally,
    progress: Progress,
}

impl<D: Dedup, W: Write> Copy<D, W> {
    /// Copies all batches; on an error too, what was decided before it has been written.
    fn run(&mut self, batches: &Batches) -> Result<(), Stop> {
        let copied = self.copy(batches);
        let flushed = self.output.flush().map_err(|err| Stop::output(&err));
        copied.and(flushed)
    }

    fn copy(&mut self, batches: &Batches) -> Result<(), Stop> {
        while let Some(received) = self.next(batches)? {
            let batch = match received {
                Ok(batch) => batch,
                Err(err) => {
                    self.settle_all(batches)?;
                    return Err(Stop::Failed(err));
                }
            };
            let submitted = self.dedup.submit(&batch.keys);
            if let Err(err) = submitted {
                // Replies to earlier batches may have come before the connection broke.
                self.settle_all(batches)?;
                return Err(refused(&batch, &err));
            }
            self.in_flight.push_back(batch);
            if self.in_flight.len() >= self.dedup.in_flight_max() {
                self.settle_oldest(batches)?;
            }
        }
        self.settle_all(batches)
    }

    /// The next batch. When none is ready, everything in flight is settled and written first.
    fn next(&mut self, batches: &Batches) -> Result<Option<anyhow::Result<Batch>>, Stop> {
        match batches.full.try_recv() {
            Ok(received) => return Ok(Some(received)),
            Err(TryRecvError::Disconnected) => return Ok(None),
            Err(TryRecvError::Empty) => {}
        }
        self.settle_all(batches)?;
        self.output.flush().map_err(|err| Stop::output(&err))?;
        Ok(batches.full.recv().ok())
    }

    fn settle_all(&mut self, batches: &Batches) -> Result<(), Stop> {
        while !self.in_flight.is_empty() {
            self.settle_oldest(batches)?;
        }
        Ok(())
    }

    /// Collects the verdicts of the oldest batch in flight and writes the lines that stay.
    fn settle_oldest(&mut self, batches: &Batches) -> Result<(), Stop> {
        let Some(batch) = self.in_flight.pop_front() else {
            return Ok(());
        };
        self.verdicts.clear();
        let collected = self.dedup.collect(&batch.keys, &mut self.verdicts);
        if let Err(err) = collected {
            return Err(refused(&batch, &err));
        }
        self.write(&batch)?;
        self.progress
            .advance(batch.lines.len(), batch.lines.bytes_len());
        // The reader has ended when it takes no batches back.
        let _ = batches.spent.send(batch);
        Ok(())
    }

    fn write(&mut self, batch: &Batch) -> Result<(), Stop> {
        let mut verdicts = self.verdicts.iter();
        let mut keys_before = 0;
        for (line, keyed) in batch.lines.iter().zip(&batch.keyed) {
            let verdict = if *keyed { verdicts.next() } else { None };
            let keeps = match verdict {
                Some(Verdict::NotStored) => return Err(not_stored(batch, keys_before)),
                Some(verdict) => *verdict != Verdict::Seen,
                None => !self.drop_keyless,
            };
            keys_before += usize::from(*keyed);
            self.tally.lines += 1;
            self.tally.keyless += u64::from(!keyed);
            self.tally.unsure += u64::from(verdict == Some(&Verdict::Unsure));
            if !keeps {
                continue;
            }
            self.tally.kept += 1;
            if self.owes_line_end {
                self.output
                    .write_all(b"\n")
                    .map_err(|err| Stop::output(&err))?;
            }
            self.output
                .write_all(line)
                .map_err(|err| Stop::output(&err))?;
            self.owes_line_end = !line.ends_with(b"\n");
        }
        Ok(())
    }
}

fn refused(batch: &Batch, err: &DedupError) -> Stop {
    let place = batch.place();
    Stop::Failed(match err {
        // Which key it was is not said; if it was one, it was the longest.
        DedupError::TooBig(answer) => {
            let longest = batch
                .keys
                .iter()
                .enumerate()
                .max_by_key(|(_, key)| key.len());
            let (position, key) = longest.unwrap_or_default();
            anyhow!(
                "{place}: {answer}; the longest key there is that of line {}, {} bytes",
                batch.line_of_key(position),
                key.len()
            )
        }
        DedupError::Other(err) => anyhow!("{place}: {err:#}"),
    })
}

fn not_stored(batch: &Batch, position: usize) -> Stop {
    Stop::Failed(anyhow!(
        "line {} of {}: the server could not store the key (is it full, or read-only?); \
         keys of later lines may be stored although those lines were not written",
        batch.line_of_key(position),
        batch.input
    ))
}
