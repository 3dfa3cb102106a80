//! onced beside the other servers on this machine: CPU, latency and memory per key, and the same
//! with a log, measured in one run, in turns.
//!
//! `cargo bench --bench compare -- --help` says what can be chosen. It installs nothing: a peer
//! that is not on the machine is left out, and the report says so. Beside the peers stands a
//! server that does nothing (`floor`): what it costs, the kernel and the protocol's bytes cost,
//! and no server can be below it.
//!
//! Each server is alone while it is measured, held to one core, the load generator (`onced bench`)
//! to another; every server gets the same keys in the same order. Rounds go through all servers
//! before the next begins, so that a noisy minute falls on all of them, and what is printed is the
//! median of the rounds. Only loopback is used, every load ends by its count or its duration, and
//! only processes that were started here are stopped (`hold` sees to it that none outlives this
//! one). It does not judge durability (no power is cut), and it does not set pass marks: figures
//! are for reading.
//!
//! The report is Markdown on standard output, progress goes to standard error.

#[cfg(target_os = "linux")]
mod calm;
#[cfg(target_os = "linux")]
mod fairness;
#[cfg(target_os = "linux")]
mod floor;
#[cfg(target_os = "linux")]
mod folder;
#[cfg(target_os = "linux")]
mod hold;
#[cfg(target_os = "linux")]
mod load;
#[cfg(target_os = "linux")]
mod log;
#[cfg(target_os = "linux")]
mod memory;
#[cfg(target_os = "linux")]
mod options;
#[cfg(target_os = "linux")]
mod persistence;
#[cfg(target_os = "linux")]
mod process;
#[cfg(target_os = "linux")]
mod rate;
#[cfg(target_os = "linux")]
mod records;
#[cfg(target_os = "linux")]
mod reload;
#[cfg(target_os = "linux")]
mod report;
#[cfg(target_os = "linux")]
mod server;
#[cfg(target_os = "linux")]
mod shapes;
#[cfg(target_os = "linux")]
mod speed;
#[cfg(target_os = "linux")]
mod stalls;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    let mut args = std::env::args_os().skip(1);
    let outcome = match args.next() {
        Some(role) if role == hold::ROLE => hold::exec(args),
        Some(role) if role == floor::ROLE => floor::serve(args),
        Some(role) if role == records::ROLE => records::make(args),
        Some(role) if role == fairness::loader::ROLE => fairness::loader::make(args),
        Some(role) if role == fairness::prober::ROLE => fairness::prober::make(args),
        _ => report::run(),
    };
    if let Err(error) = outcome {
        eprintln!("compare: {error:#}");
        return std::process::ExitCode::FAILURE;
    }
    std::process::ExitCode::SUCCESS
}

/// What a process costs is read from Linux's `/proc`.
#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("compare: left out, it runs on Linux only");
}
