//! The `onced` binary: arguments in, exit status out.
//!
//! It allocates with the system's allocator. Most memory is the store's own pages (`store/memory.rs`),
//! and the hot path allocates nothing, so another one has little to win. mimalloc was measured
//! (2026-11-23, 2 cores of an AMD EPYC under KVM): server CPU per key moved less than from run to run
//! (0.36 to 0.43 against 0.40 to 0.53 µs for UUIDs at 128 in flight, 1.23 to 1.48 against 1.07 to 1.29
//! for 100-byte keys at 16), an idle server took 11.5 MiB instead of 5.9, a 100-byte key 176 bytes
//! instead of 171.

use std::process::ExitCode;

use clap::Parser;
use onced::cli::{Cli, run};

fn main() -> ExitCode {
    run(Cli::parse())
}
