//! `onced config`: what settings a server would run with, and whether they hold.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use super::serve::ServeArgs;
use crate::config::RawSettings;

/// Check or show settings
#[derive(Debug, clap::Args)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Check a settings file: exit status 0 if it holds
    Check {
        /// The TOML file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Show the settings that `serve` would run with, as such a file
    Show(Box<ServeArgs>),
}

pub(crate) fn run(args: ConfigArgs) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    match args.action {
        Action::Check { file } => {
            RawSettings::from_file(&file)?.check()?;
            writeln!(out, "{}: ok", file.display())?;
        }
        Action::Show(args) => {
            out.write_all(args.check()?.to_toml().as_bytes())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
