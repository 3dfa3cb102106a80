//! The `onced` binary: arguments in, exit status out, and the allocator.

use std::process::ExitCode;

use clap::Parser;
use onced::cli::{Cli, run};

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: onced::allocator::Jemalloc = onced::allocator::JEMALLOC;

fn main() -> ExitCode {
    #[cfg(feature = "jemalloc")]
    onced::allocator::settle();
    run(Cli::parse())
}
