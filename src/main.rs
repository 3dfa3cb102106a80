//! The `onced` binary: arguments in, exit status out.

use std::process::ExitCode;

use clap::Parser;
use onced::cli::{Cli, run};

fn main() -> ExitCode {
    run(Cli::parse())
}
