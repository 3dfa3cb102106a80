//! `onced ping`: whether a server answers, for health checks and people.

use std::io::Write;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::bail;

use super::ServerArgs;
use super::remote::Remote;

/// Ask whether a server answers: exit status 0 if it does
#[derive(Debug, clap::Args)]
pub(crate) struct PingArgs {
    /// Say nothing, only exit with 0 or 2
    #[arg(short, long)]
    quiet: bool,

    #[command(flatten)]
    at: ServerArgs,
}

pub(crate) fn run(args: &PingArgs) -> anyhow::Result<ExitCode> {
    let mut remote = Remote::connect(&args.at)?;
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
