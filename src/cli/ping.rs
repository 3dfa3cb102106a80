//! `onced ping`: whether a server answers, for health checks and people.

use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::bail;

use super::ServerArgs;
use super::remote::Remote;
use crate::time::parse_duration_ms;

/// Ask whether a server answers: exit status 0 if it does
#[derive(Debug, clap::Args)]
pub(crate) struct PingArgs {
    /// Say nothing, only exit with 0 or 2
    #[arg(short, long)]
    quiet: bool,

    /// How long to wait for the answer
    #[arg(long, value_name = "D", default_value = "5s", value_parser = timeout)]
    timeout: Duration,

    #[command(flatten)]
    at: ServerArgs,
}

fn timeout(word: &str) -> Result<Duration, String> {
    match parse_duration_ms(word.as_bytes()) {
        Ok(0) => Err("a time to wait is longer than that".to_owned()),
        Ok(ms) => Ok(Duration::from_millis(ms)),
        Err(error) => Err(error.to_string()),
    }
}

pub(crate) fn run(args: &PingArgs) -> anyhow::Result<ExitCode> {
    let mut remote = Remote::connect(&args.at.server)?;
    remote.wait_at_most(args.timeout)?;
    let sent = Instant::now();
    let reply = remote.request(b"PING")?.head;
    if reply != b"PONG" {
        bail!("the server answered '{}'", String::from_utf8_lossy(&reply));
    }
    if !args.quiet {
        writeln!(
            std::io::stdout(),
            "PONG from {} in {} us",
            args.at.server,
            sent.elapsed().as_micros()
        )?;
    }
    Ok(ExitCode::SUCCESS)
}
