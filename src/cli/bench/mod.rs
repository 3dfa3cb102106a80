//! `onced bench`: an honest load generator, for this server and for those it is compared with.
//!
//! Honest means: every reply is parsed and counted, a fixed rate charges the server for requests
//! that could not be sent on time, and everything needed to repeat a run is part of its report.
//! It does not start servers, and it does not judge durability.
//!
//! A run's way: [`BenchArgs`] become a validated [`Plan`]; `load` starts threads, each with its
//! connections (`connection`), which draw keys (`workload`), encode requests (`protocol`), count
//! replies (`reply`) and keep time (`schedule`, `pacer`); `report` words what came out.

mod connection;
mod load;
mod pacer;
mod protocol;
mod reply;
mod report;
mod schedule;
mod space;
mod workload;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use self::protocol::{Command, Encoder, Protocol, RequestForm};
use self::report::Report;
use self::schedule::{Schedule, Timeline};
use self::space::OwnSpace;
use self::workload::{Draw, KeyShape, SHAPES};
use crate::address::Address;
use crate::cli::signals::{self, EndRequest};
use crate::limits::{NAMESPACE_NAME_FORM, is_namespace_name};
use crate::time::parse_duration_ms;

/// Measure throughput and latency of a server
///
/// Sends requests over many connections, reads and counts every reply, and reports throughput
/// and latency percentiles. Without --rate each connection keeps --pipeline requests in flight
/// and a latency counts from the write of a request to its reply. With --rate requests follow a
/// fixed schedule and a latency counts from the moment a request was meant to be sent, so that a
/// server that stalls is charged for all requests it kept waiting.
///
/// Exit status: 0 when every request was answered as it should be, 1 when there were error
/// replies, 2 when the run could not be made or finished.
#[derive(clap::Args, Debug)]
pub(crate) struct BenchArgs {
    /// The server: HOST:PORT or unix:PATH
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:6623")]
    server: Address,

    /// How requests are worded
    #[arg(long, value_enum, default_value_t = Protocol::Line)]
    protocol: Protocol,

    /// What is asked; line: seen, mseen, ping; resp: seen, mseen, set, ping; memcached: add
    /// [default: the protocol's first]
    #[arg(long, value_enum)]
    command: Option<Command>,

    /// Keys in one mseen, 1 to 10000 [default: 100]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    batch: Option<u64>,

    /// Connections, over all threads, 1 to 10000
    #[arg(long, short = 'c', value_name = "N", default_value_t = 50,
          value_parser = clap::value_parser!(u64).range(1..=10_000))]
    connections: u64,

    /// Requests in flight per connection, 1 to 65536; with --rate the most there may be
    #[arg(long, short = 'p', value_name = "N", default_value_t = 16,
          value_parser = clap::value_parser!(u64).range(1..=65_536))]
    pipeline: u64,

    /// Threads that make the load, 1 to 256
    #[arg(long, short = 't', value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u64).range(1..=256))]
    threads: u64,

    /// Requests to send, such as 500k or 10M, the warm-up excluded [default: 1M]
    #[arg(long, short = 'n', value_name = "N", value_parser = parse_count, conflicts_with = "duration_ms")]
    requests: Option<u64>,

    /// Send for this long instead, such as 10s
    #[arg(long = "duration", value_name = "D", value_parser = parse_ms)]
    duration_ms: Option<u64>,

    /// Send for this long first, without counting
    #[arg(long = "warmup", value_name = "D", default_value = "0s", value_parser = parse_ms)]
    warmup_ms: u64,

    /// Requests per second over all connections, evenly spaced, such as 50k
    /// [default: as many as are answered]
    #[arg(long, value_name = "N", value_parser = parse_count)]
    rate: Option<u64>,

    /// The window each key is asked for
    #[arg(long = "ttl", value_name = "D", default_value = "1h", value_parser = parse_ms)]
    ttl_ms: u64,

    /// What keys look like
    #[arg(long, value_name = "SHAPE", default_value = "uuid", help = format!("What keys look like: {SHAPES}"))]
    keys: KeyShape,

    /// What every key begins with
    #[arg(long, value_name = "TEXT", default_value = "")]
    prefix: String,

    /// The share of keys, in percent, that were used earlier in the run
    ///
    /// Each key is a repeat with this probability, independently of the others; a repeat takes
    /// any of the keys that the same thread has used before, on whichever of its connections,
    /// each with the same chance.
    #[arg(
        long,
        value_name = "PERCENT",
        default_value_t = 30.0,
        conflicts_with = "key_space"
    )]
    repeat: f64,

    /// Draw every key evenly from this many instead
    #[arg(long, value_name = "N", value_parser = parse_count)]
    key_space: Option<u64>,

    /// Decides the keys and their order; the report names it [default: random]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// Give up when the server owes replies and has sent none for this long
    #[arg(long = "timeout", value_name = "D", default_value = "10s", value_parser = parse_ms)]
    timeout_ms: u64,

    /// Use this namespace, which keeps the keys of the run. Without it, and without --keep, onced is
    /// loaded in a namespace that the run makes and drops at its end; other servers keep the keys
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,

    /// Load the namespace that is there anyway, and leave the keys in it
    #[arg(long, conflicts_with = "namespace")]
    keep: bool,

    /// Load a server on another machine without asking whether that may be
    #[arg(long)]
    yes: bool,

    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// Makes the run that `args` ask for and prints its report to standard output.
///
/// Errors are arguments that contradict each other, a server that cannot be reached, and one
/// that goes away or falls silent during the run.
pub(crate) fn run(args: &BenchArgs) -> anyhow::Result<ExitCode> {
    let mut plan = Plan::new(args)?;
    if !args.yes && !plan.server.is_local() {
        confirm(&plan)?;
    }
    let end = EndRequest::watch().context("cannot wait for signals")?;
    let own = match plan.namespace {
        None if !args.keep && plan.form.protocol != Protocol::Memcached => {
            let timeout = Duration::from_millis(plan.timeout_ms);
            OwnSpace::make(&plan.server, timeout)?
        }
        _ => None,
    };
    if let Some(own) = &own {
        plan.namespace = Some(own.name().to_owned());
    }
    let ran = load::run(plan.clone(), Some(&end));
    let removed = own.map_or(Ok(()), |own| own.remove(ran.is_err()));
    if let Some(signal) = end.signal() {
        removed?;
        signals::end_by(signal);
    }
    let outcome = ran?;
    removed?;
    let report = Report::new(&plan, &outcome);
    ensure!(
        report.replies == report.requests,
        "{} of {} requests were never answered",
        report.requests - report.replies,
        report.requests
    );
    let text = if args.json {
        format!("{}\n", report.to_json()?)
    } else {
        report.to_string()
    };
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            return Err(error).context("cannot write the report");
        }
        _ => {}
    }
    Ok(if report.errors > 0 {
        ExitCode::from(1)
    } else {
        ExitCode::SUCCESS
    })
}

/// Asks whether a server on another machine may be loaded.
fn confirm(plan: &Plan) -> anyhow::Result<()> {
    let server = &plan.server;
    let is_asked = io::stdin().is_terminal() && io::stderr().is_terminal();
    ensure!(
        is_asked,
        "{server} is not on this machine, and whoever uses it will notice the load: --yes says that it may be"
    );
    eprint!(
        "{server} is not on this machine, and whoever uses it will notice the load. Go on? [y/N] "
    );
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    ensure!(
        matches!(answer.trim(), "y" | "Y" | "yes"),
        "nothing was sent to {server}"
    );
    Ok(())
}

/// A run whose settings fit together.
#[derive(Clone, Debug)]
struct Plan {
    server: Address,
    form: RequestForm,
    shape: KeyShape,
    draw: Draw,
    seed: u64,
    connections: usize,
    pipeline: usize,
    threads: usize,
    /// Counted requests; `None` exactly when there is a duration.
    requests: Option<u64>,
    duration_ms: Option<u64>,
    warmup_ms: u64,
    rate_per_s: Option<u64>,
    timeout_ms: u64,
    /// What connections enter, if anything.
    namespace: Option<String>,
}

const REQUESTS_DEFAULT: u64 = 1_000_000;
const REQUESTS_MAX: u64 = 10_000_000_000;
const KEY_SPACE_MAX: u64 = 1_000_000_000_000;
const RATE_PER_S_MAX: u64 = 100_000_000;
const BATCH_DEFAULT: usize = 100;
const DAY_MS: u64 = 86_400_000;
const DURATION_MS_MAX: u64 = 30 * DAY_MS;
const TTL_MS_MAX: u64 = 365 * DAY_MS;
/// memcached takes a longer time for a date.
const MEMCACHED_TTL_MS_MAX: u64 = 30 * DAY_MS;
const MEMCACHED_KEY_BYTES_MAX: usize = 250;
/// The server's default limits.
const KEY_BYTES_MAX: usize = 8_192;
const LINE_BYTES_MAX: usize = 1024 * 1024;

impl Plan {
    fn new(args: &BenchArgs) -> anyhow::Result<Self> {
        let form = request_form(args)?;
        let draw = match args.key_space {
            Some(keys) => Draw::Space(at_most("--key-space", keys, KEY_SPACE_MAX)?),
            None => Draw::Repeat(args.repeat),
        };
        ensure!(
            (0.0..=100.0).contains(&args.repeat),
            "--repeat {} is no share: give a percentage from 0 to 100",
            args.repeat
        );
        ensure!(
            args.threads <= args.connections,
            "--threads {} needs at least as many --connections (there are {})",
            args.threads,
            args.connections
        );
        ensure!(args.timeout_ms > 0, "--timeout must be longer than zero");
        ensure!(
            args.namespace.is_none() || args.protocol != Protocol::Memcached,
            "--protocol memcached has no --namespace"
        );
        if let Some(name) = &args.namespace {
            ensure!(
                is_namespace_name(name.as_bytes()),
                "--namespace '{}' is no name: {NAMESPACE_NAME_FORM}",
                name.escape_debug()
            );
        }
        ensure!(args.warmup_ms <= DURATION_MS_MAX, "--warmup is at most 30d");
        let duration_ms = args.duration_ms;
        if let Some(duration_ms) = duration_ms {
            ensure!(
                (1..=DURATION_MS_MAX).contains(&duration_ms),
                "--duration goes from 1ms to 30d"
            );
        }
        let requests = match (args.requests, duration_ms) {
            (Some(requests), _) => Some(at_most("--requests", requests, REQUESTS_MAX)?),
            (None, None) => Some(REQUESTS_DEFAULT),
            (None, Some(_)) => None,
        };
        let keys_asked = match draw {
            Draw::Space(keys) => Some(keys),
            Draw::Repeat(_) => requests.map(|n| n * form.keys_per_request() as u64),
        };
        if let (Some(asked), Some(keys_max)) = (keys_asked, args.keys.keys_max()) {
            ensure!(
                asked <= keys_max,
                "--keys {} has {keys_max} different keys; {asked} may be asked for",
                args.keys
            );
        }
        let rate_per_s = args
            .rate
            .map(|rate| at_most("--rate", rate, RATE_PER_S_MAX))
            .transpose()?;
        Ok(Self {
            server: args.server.clone(),
            form,
            shape: args.keys,
            draw,
            seed: args.seed.map_or_else(random_seed, Ok)?,
            connections: args.connections as usize,
            pipeline: args.pipeline as usize,
            threads: args.threads as usize,
            requests,
            duration_ms,
            warmup_ms: args.warmup_ms,
            rate_per_s,
            timeout_ms: args.timeout_ms,
            namespace: args.namespace.clone(),
        })
    }

    fn timeline(&self) -> Timeline {
        Timeline::new(self.warmup_ms, self.duration_ms)
    }

    fn schedule(&self) -> Option<Schedule> {
        let requests = self.requests.unwrap_or(0);
        self.rate_per_s
            .map(|rate| Schedule::new(rate, &self.timeline(), requests))
    }
}

fn request_form(args: &BenchArgs) -> anyhow::Result<RequestForm> {
    let protocol = args.protocol;
    let offered = protocol.commands();
    let command = args.command.unwrap_or(offered[0]);
    if !offered.contains(&command) {
        let names: Vec<_> = offered.iter().map(|offer| offer.name()).collect();
        bail!(
            "--protocol {} has no --command {}: choose {}",
            protocol.name(),
            command.name(),
            names.join(", ")
        );
    }
    ensure!(
        args.batch.is_none() || command == Command::Mseen,
        "--batch is for --command mseen; {} carries one key at most",
        command.name()
    );
    let form = RequestForm {
        protocol,
        command,
        batch: args.batch.map_or(BATCH_DEFAULT, |batch| batch as usize),
        ttl_ms: args.ttl_ms,
        prefix: args.prefix.clone(),
        key_bytes: args.keys.key_bytes(),
    };
    let (key_bytes_max, ttl_ms_max) = match protocol {
        Protocol::Line | Protocol::Resp => (KEY_BYTES_MAX, TTL_MS_MAX),
        Protocol::Memcached => (MEMCACHED_KEY_BYTES_MAX, MEMCACHED_TTL_MS_MAX),
    };
    ensure!(
        protocol == Protocol::Resp || args.keys.is_text(),
        "--keys {} makes keys of all bytes, which --protocol {} cannot carry: use --protocol resp",
        args.keys,
        protocol.name()
    );
    ensure!(
        (1..=ttl_ms_max).contains(&form.ttl_ms),
        "--ttl goes from 1ms to {}d with --protocol {}",
        ttl_ms_max / DAY_MS,
        protocol.name()
    );
    ensure!(
        form.prefix
            .bytes()
            .all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\'),
        "--prefix takes visible ASCII characters, without spaces, quotes and backslashes"
    );
    let key_bytes = form.prefix.len() + form.key_bytes;
    ensure!(
        key_bytes <= key_bytes_max,
        "--keys and --prefix make keys of {key_bytes} bytes; --protocol {} allows {key_bytes_max}",
        protocol.name()
    );
    let request_bytes = Encoder::new(&form).request_bytes();
    ensure!(
        request_bytes <= LINE_BYTES_MAX,
        "--batch {} makes requests of {request_bytes} bytes; the server allows {LINE_BYTES_MAX}",
        form.batch
    );
    Ok(form)
}

fn at_most(flag: &str, value: u64, max: u64) -> anyhow::Result<u64> {
    ensure!(value <= max, "{flag} {value} is too much: at most {max}");
    Ok(value)
}

/// A seed that JSON readers with 53-bit numbers can hand back.
fn random_seed() -> anyhow::Result<u64> {
    let seed = getrandom::u64().context("the system has no randomness for a seed; give --seed")?;
    Ok(seed >> 11)
}

fn parse_ms(word: &str) -> Result<u64, crate::time::DurationError> {
    parse_duration_ms(word.as_bytes())
}

/// Reads a count of at least 1, such as `250`, `50k`, `10M` or `1G`.
fn parse_count(word: &str) -> Result<u64, String> {
    let (digits, unit) = match word.as_bytes() {
        [digits @ .., b'k' | b'K'] => (digits, 1_000),
        [digits @ .., b'm' | b'M'] => (digits, 1_000_000),
        [digits @ .., b'g' | b'G'] => (digits, 1_000_000_000),
        digits => (digits, 1),
    };
    crate::time::parse_u64(digits)
        .and_then(|count| count.checked_mul(unit))
        .filter(|&count| count > 0)
        .ok_or_else(|| "write a whole number above 0, such as 250, 50k or 10M".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser, Debug)]
    struct Cli {
        #[command(flatten)]
        bench: BenchArgs,
    }

    pub(super) fn plan(line: &str) -> Result<Plan, String> {
        let words = std::iter::once("bench").chain(line.split_whitespace());
        let cli = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
        Plan::new(&cli.bench).map_err(|error| error.to_string())
    }

    #[test]
    fn the_defaults_are_what_the_help_says() {
        let plan = plan("").unwrap();
        assert_eq!(plan.server.to_string(), "127.0.0.1:6623");
        assert_eq!(plan.form.protocol, Protocol::Line);
        assert_eq!(plan.form.command, Command::Seen);
        assert_eq!(plan.form.ttl_ms, 3_600_000);
        assert_eq!((plan.connections, plan.pipeline, plan.threads), (50, 16, 1));
        assert_eq!((plan.requests, plan.duration_ms), (Some(1_000_000), None));
        assert_eq!(plan.draw, Draw::Repeat(30.0));
        assert_eq!(plan.shape, KeyShape::Uuid);
        assert!(plan.schedule().is_none());
    }

    #[test]
    fn settings_at_their_bounds_are_taken() {
        for line in [
            "--connections 10000 --threads 256 --pipeline 65536",
            "--connections 1 --threads 1 --pipeline 1 --requests 1",
            "--repeat 0",
            "--repeat 100",
            "--repeat 0.1",
            "--ttl 1ms",
            "--ttl 365d",
            "--duration 1ms",
            "--rate 100M --duration 30d --warmup 30d",
            "--key-space 1 --keys int",
            "--key-space 1000G",
            "--command mseen --batch 10000 --keys random100",
            "--command mseen --batch 1",
            "--protocol resp --command set",
            "--protocol resp --command ping",
            "--protocol memcached --ttl 30d --keys random250",
            "--protocol memcached --command add --prefix k: --keys random248",
            "--keys random8192",
            "--keys int8 --requests 90M",
            "--keys binary8 --protocol resp --command set",
            "--keys url100 --protocol memcached",
            "--prefix user:{1}:",
            "--server unix:/run/onced.sock",
            "--seed 18446744073709551615",
        ] {
            plan(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }

    #[test]
    fn settings_beyond_their_bounds_are_refused_with_the_flag_named() {
        for (line, named) in [
            ("--connections 0", "--connections"),
            ("--connections 10001", "--connections"),
            ("--pipeline 0", "--pipeline"),
            ("--pipeline 65537", "--pipeline"),
            ("--threads 0", "--threads"),
            ("--threads 257 --connections 300", "--threads"),
            ("--threads 3 --connections 2", "--threads 3"),
            ("--requests 0", "--requests"),
            ("--requests 11G", "--requests"),
            ("--requests 5 --duration 1s", "--requests"),
            ("--duration 0s", "--duration"),
            ("--duration 31d", "--duration"),
            ("--duration 10", "unit"),
            ("--warmup 31d", "--warmup"),
            ("--rate 0", "--rate"),
            ("--rate 101M", "--rate"),
            ("--repeat 101", "--repeat"),
            ("--repeat=-1", "--repeat"),
            ("--repeat nan", "--repeat"),
            ("--repeat 10 --key-space 5", "--repeat"),
            ("--key-space 0", "--key-space"),
            ("--key-space 1001G", "--key-space"),
            ("--batch 10", "--batch"),
            ("--command mseen --batch 0", "--batch"),
            ("--command mseen --batch 10001", "--batch"),
            ("--command mseen --batch 10000 --keys random200", "--batch"),
            ("--command set", "choose seen, mseen, ping"),
            ("--protocol resp --command add", "seen, mseen, set, ping"),
            ("--protocol memcached --command seen", "choose add"),
            ("--protocol memcached --ttl 31d", "--ttl"),
            ("--protocol memcached --keys random251", "--keys"),
            ("--ttl 0s", "--ttl"),
            ("--ttl 366d", "--ttl"),
            ("--keys hex15", "--keys"),
            ("--keys int8 --requests 90000001", "--keys int8"),
            ("--keys int8 --key-space 100M", "--keys int8"),
            ("--keys int8 --command mseen --requests 10M", "--keys int8"),
            ("--keys binary16", "--protocol resp"),
            ("--keys binary16 --protocol memcached", "--protocol resp"),
            ("--keys random8192 --prefix x", "--prefix"),
            ("--prefix a\"b", "--prefix"),
            ("--prefix a\\b", "--prefix"),
            ("--prefix ä", "--prefix"),
            ("--timeout 0s", "--timeout"),
            ("--server nowhere", "--server"),
        ] {
            let error = plan(line).expect_err(line);
            assert!(error.contains(named), "{line}: {error}");
        }
    }

    #[test]
    fn counts_take_a_unit() {
        for (word, want) in [
            ("1", Some(1)),
            ("50k", Some(50_000)),
            ("10M", Some(10_000_000)),
            ("1G", Some(1_000_000_000)),
            ("0", None),
            ("", None),
            ("k", None),
            ("-1", None),
            ("1.5M", None),
            ("99999999999G", None),
        ] {
            assert_eq!(parse_count(word).ok(), want, "{word}");
        }
    }

    #[test]
    fn a_random_seed_survives_a_json_number() {
        let seed = plan("").unwrap().seed;
        assert!(seed < 1 << 53);
        assert_ne!(seed, plan("").unwrap().seed);
        assert_eq!(plan("--seed 7").unwrap().seed, 7);
    }
}
