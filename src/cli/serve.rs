//! `onced serve`: the server in the foreground, until it is told to stop.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use rustix::process;
use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::filter::LevelFilter;

use super::startup::Terminal;
use crate::config::{RawSettings, Settings};
use crate::server::{Server, ServerError, descriptors};

/// Run the server
#[derive(Debug, clap::Args)]
pub(crate) struct ServeArgs {
    /// Read settings from this TOML file; flags and variables go over it
    #[arg(long, value_name = "FILE", env = "ONCED_CONFIG")]
    config: Option<PathBuf>,

    #[command(flatten)]
    settings: RawSettings,
}

impl ServeArgs {
    /// The settings that hold, from flags, variables and the file.
    pub(crate) fn check(self) -> anyhow::Result<Settings> {
        let file = self
            .config
            .as_deref()
            .map(RawSettings::from_file)
            .transpose()?
            .unwrap_or_default();
        Ok(self.settings.over(file).check()?)
    }
}

pub(crate) fn run(args: ServeArgs) -> anyhow::Result<ExitCode> {
    let settings = args.check()?;
    let terminal = Terminal::default();
    let level = LevelFilter::from_level(settings.log);
    tracing_subscriber::fmt()
        .with_writer(terminal.clone())
        .with_ansi(std::io::stderr().is_terminal())
        .with_max_level(level)
        .with_target(false)
        // Whoever read the log may be gone; that is no reason to fall.
        .log_internal_errors(false)
        .init();
    // Before anybody can know that the server is there: from here on a signal drains it.
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let stop = {
        let _context = runtime.enter();
        // A limit on the size of files is a full disk, not an end.
        let outgrown = SignalKind::from_raw(process::Signal::XFSZ.as_raw());
        signal(outgrown)
            .and_then(|_handled_from_here_on| StopSignals::install())
            .context("cannot wait for signals")?
    };
    let server = Server::bind(settings.server().context("cannot get random bytes")?)?;
    descriptors::raise_limit(settings.limits.connections_max, settings.workers);
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        workers = settings.workers,
        max_memory_mib = settings.memory_bytes_max >> 20,
        "starting"
    );
    for address in server.addresses() {
        tracing::info!("listening on {address}");
    }
    let reading = terminal.clone();
    server.on_progress(move |progress| reading.show(progress));
    server.keep_store();
    let ended = server.run(stop.told());
    terminal.clear();
    if let Err(error @ ServerError::Thread { .. }) = &ended {
        // Not what a setting could mend, and whatever is left of its threads ends with the process.
        tracing::error!("{error}");
        return Ok(ExitCode::FAILURE);
    }
    ended?;
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// `SIGTERM` and `SIGINT`.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    fn install() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Ready when the process gets either.
    async fn told(mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
