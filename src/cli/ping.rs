//! `onced ping`: whether a server answers, for health checks and people.

use std::io::Write;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::bail;

use super::remote::Remote;
use super::{ServerArgs, parse_timeout};

/// How often `--wait` asks again.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// Ask whether a server answers: exit status 0 if it does
#[derive(Debug, clap::Args)]
pub(crate) struct PingArgs {
    /// Say nothing on standard output, only exit with 0 or 2
    #[arg(short, long)]
    quiet: bool,

    /// Wait so long for a server that is starting, or reading its log
    #[arg(long, value_name = "D", value_parser = parse_timeout)]
    wait: Option<Duration>,

    #[command(flatten)]
    at: ServerArgs,
}

impl PingArgs {
    /// Whether nothing is to be written.
    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet
    }
}

pub(crate) fn run(args: &PingArgs) -> anyhow::Result<ExitCode> {
    let wait = args.wait.unwrap_or_default();
    let began = Instant::now();
    let took = loop {
        match ping(args) {
            Err(_) if began.elapsed() < wait => sleep(ASK_AGAIN),
            answered => break answered?,
        }
    };
    if !args.quiet {
        writeln!(
            std::io::stdout(),
            "PONG from {} in {} us",
            args.at.server,
            took.as_micros()
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

fn ping(args: &PingArgs) -> anyhow::Result<Duration> {
    let mut remote = Remote::connect(&args.at)?;
    let sent = Instant::now();
    let reply = remote.request(b"PING")?.head;
    if reply != b"PONG" {
        bail!("the server answered '{}'", String::from_utf8_lossy(&reply));
    }
    Ok(sent.elapsed())
}
