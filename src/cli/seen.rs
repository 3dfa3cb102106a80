//! `onced seen`: one question from a shell script.

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

use anyhow::bail;

use super::ServerArgs;
use super::remote::Remote;
use crate::wire::line::push_word;

/// Ask whether keys are seen for the first time: exit status 0 if all are, or that is unsure, 1 if not
#[derive(Debug, clap::Args)]
pub(crate) struct SeenArgs {
    /// The keys, of any bytes
    #[arg(value_name = "KEY", required = true)]
    keys: Vec<OsString>,

    /// How long to remember a new key, such as 10s, 5m or 24h; without it, the namespace's default
    #[arg(long, value_name = "D")]
    ttl: Option<String>,

    /// The namespace
    #[arg(long, value_name = "NAME")]
    ns: Option<String>,

    /// Say nothing, only exit with 0 or 1
    #[arg(short, long)]
    quiet: bool,

    #[command(flatten)]
    at: ServerArgs,
}

impl SeenArgs {
    /// Whether nothing is to be written.
    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet
    }
}

pub(crate) fn run(args: &SeenArgs) -> anyhow::Result<ExitCode> {
    let mut remote = Remote::connect(&args.at)?;
    if let Some(namespace) = &args.ns {
        let mut request = b"USE ".to_vec();
        push_word(namespace.as_bytes(), &mut request);
        expect_ok(&remote.request(&request)?.head)?;
    }
    let mut all_new = true;
    for key in &args.keys {
        let mut request = b"SEEN ".to_vec();
        push_word(key.as_bytes(), &mut request);
        request.push(b' ');
        push_word(args.ttl.as_deref().unwrap_or("-").as_bytes(), &mut request);
        let verdict = remote.request(&request)?.head;
        match &verdict[..] {
            // Not known to have been seen; the word on standard output says so.
            b"NEW" | b"UNSURE" => {}
            b"DUP" | b"MISMATCH" => all_new = false,
            _ => expect_ok(&verdict)?,
        }
        if !args.quiet {
            let mut out = std::io::stdout().lock();
            writeln!(out, "{}", String::from_utf8_lossy(&verdict))?;
        }
    }
    Ok(ExitCode::from(u8::from(!all_new)))
}

fn expect_ok(reply: &[u8]) -> anyhow::Result<()> {
    if reply != b"OK" {
        bail!("the server answered '{}'", String::from_utf8_lossy(reply));
    }
    Ok(())
}
