//! The command line: arguments to actions, one file per subcommand.
//!
//! Only here, and in `main`, are errors of any kind gathered (`anyhow`): each ends as one line on
//! standard error and exit status 2.

mod bench;
mod completions;
mod config;
mod filter;
mod import;
mod input;
mod log;
mod ping;
mod progress;
mod remote;
mod repl;
mod seen;
mod serve;
mod signals;
mod startup;
mod stats;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::address::Address;
use crate::limits::PORT;
use crate::time::parse_duration_ms;

/// Tells whether something was seen before: a deduplication server and its tools.
#[derive(Debug, Parser)]
#[command(name = "onced", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Run the server
    Serve(Box<serve::ServeArgs>),
    /// Ask whether keys are seen for the first time: exit status 0 if all are, or that is unsure, 1 if not
    Seen(seen::SeenArgs),
    /// Copy lines, dropping those whose key was already seen
    Filter(filter::FilterArgs),
    Import(import::ImportArgs),
    Log(log::LogArgs),
    /// Load a server and measure it, this one or any that speaks Redis's or memcached's protocol
    Bench(bench::BenchArgs),
    /// Talk to a server line by line
    Repl(repl::ReplArgs),
    /// Ask whether a server answers: exit status 0 if it does
    Ping(ping::PingArgs),
    /// Show a server's counters
    Stats(stats::StatsArgs),
    /// Check or show settings
    Config(config::ConfigArgs),
    /// Print a completion script for a shell
    Completions(completions::CompletionsArgs),
    /// Print the manual page of onced or of a subcommand, in roff
    Man(completions::ManArgs),
}

/// Where the server is.
#[derive(Args, Debug)]
pub(crate) struct ServerArgs {
    /// The server, HOST:PORT or unix:PATH
    #[arg(long, value_name = "ADDR", env = "ONCED_SERVER", default_value_t = default_address())]
    pub(crate) server: Address,

    /// How long to wait for the server: to connect, to send, and for each answer
    #[arg(long, value_name = "D", default_value = SERVER_TIMEOUT, value_parser = parse_timeout)]
    pub(crate) timeout: Duration,
}

/// How long to wait for a server that says nothing.
pub(crate) const SERVER_TIMEOUT: &str = "10s";

/// A time to wait, as words on the command line have it.
pub(crate) fn parse_timeout(word: &str) -> Result<Duration, String> {
    parse_span(word, "a time to wait is longer than that").map(Duration::from_millis)
}

/// A span of time that has to be longer than nothing, in milliseconds; `if_zero` says why.
fn parse_span(word: &str, if_zero: &str) -> Result<u64, String> {
    match parse_duration_ms(word.as_bytes()) {
        Ok(0) => Err(if_zero.to_owned()),
        Ok(ms) => Ok(ms),
        Err(error) => Err(error.to_string()),
    }
}

fn default_address() -> Address {
    Address::Tcp(format!("127.0.0.1:{PORT}"))
}

/// Exit status of an error.
const FAILED: u8 = 2;

impl Action {
    /// The exit status where there is no standard output, for what is of no use without.
    fn status_without_stdout(&self) -> Option<u8> {
        match self {
            Self::Serve(_) => None,
            Self::Seen(args) if args.is_quiet() => None,
            Self::Ping(args) if args.is_quiet() => None,
            Self::Filter(_) => Some(filter::OUTPUT_FAILED),
            _ => Some(FAILED),
        }
    }
}

/// Does what the arguments say, where the process was started with a standard output or without;
/// tells the exit status.
pub fn run(cli: Cli, has_stdout: bool) -> ExitCode {
    if let Some(status) = cli.action.status_without_stdout()
        && !has_stdout
    {
        eprintln!("onced: cannot write to standard output: it is closed");
        return ExitCode::from(status);
    }
    let outcome = match cli.action {
        Action::Serve(args) => serve::run(*args),
        Action::Seen(args) => seen::run(&args),
        Action::Filter(args) => filter::run(&args),
        Action::Import(args) => import::run(&args),
        Action::Log(args) => log::run(&args),
        Action::Bench(args) => bench::run(&args),
        Action::Repl(args) => repl::run(&args),
        Action::Ping(args) => ping::run(&args),
        Action::Stats(args) => stats::run(&args),
        Action::Config(args) => config::run(args),
        Action::Completions(args) => completions::run(&args),
        Action::Man(args) => completions::man(&args),
    };
    outcome.unwrap_or_else(|error| {
        // Whoever read the output has enough of it.
        let is_closed_pipe = |io: &std::io::Error| io.kind() == std::io::ErrorKind::BrokenPipe;
        if error.downcast_ref().is_some_and(is_closed_pipe) {
            return ExitCode::SUCCESS;
        }
        // Errors of other crates may have several lines; ours are one.
        let text = format!("{error:#}").replace('\n', " ");
        eprintln!("onced: {text}");
        ExitCode::from(FAILED)
    })
}

fn command() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        command().debug_assert();
    }
}
