//! What `/proc` says about a process and about the machine.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;

use anyhow::Context;

/// A tick of `/proc/PID/stat`: `USER_HZ` is 100 on every architecture that Rust's servers run on.
const TICK_NS: u64 = 10_000_000;

/// The CPU time that a process had used at some moment, user and system.
#[derive(Clone, Debug)]
pub(crate) struct CpuTime {
    /// Per thread, to the nanosecond; threads that ended are missing.
    threads_ns: BTreeMap<String, u64>,
    /// Of all threads, those that ended too, in whole ticks.
    process_ns: u64,
}

impl CpuTime {
    /// Reads it.
    pub(crate) fn of(pid: u32) -> anyhow::Result<Self> {
        let mut threads_ns = BTreeMap::new();
        let tasks = format!("/proc/{pid}/task");
        for task in fs::read_dir(&tasks).with_context(|| format!("cannot read {tasks}"))? {
            let task = task?;
            let text = match fs::read_to_string(task.path().join("schedstat")) {
                // A thread that ended while the list was read, or a kernel without schedstat.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                text => text?,
            };
            let on_cpu_ns = text.split(' ').next().and_then(|word| word.parse().ok());
            let name = task.file_name().to_string_lossy().into_owned();
            threads_ns.insert(name, on_cpu_ns.context("schedstat begins with a number")?);
        }
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The second field is the name in parentheses, and may have spaces.
        let fields = stat.rsplit(") ").next().unwrap_or_default();
        let ticks: Vec<u64> = fields
            .split(' ')
            .skip(11)
            .take(2)
            .filter_map(|field| field.parse().ok())
            .collect();
        Ok(Self {
            threads_ns,
            process_ns: ticks.iter().sum::<u64>() * TICK_NS,
        })
    }

    /// Nanoseconds used since `earlier`: by the threads' exact clocks, or by the process's coarse
    /// one where that has more, which means that threads ended in between.
    pub(crate) fn since(&self, earlier: &Self) -> u64 {
        let threads_ns: u64 = self
            .threads_ns
            .iter()
            .map(|(thread, ns)| {
                ns.saturating_sub(earlier.threads_ns.get(thread).copied().unwrap_or(0))
            })
            .sum();
        let process_ns = self.process_ns.saturating_sub(earlier.process_ns);
        if process_ns > threads_ns + 2 * TICK_NS {
            process_ns
        } else {
            threads_ns
        }
    }
}

/// A process's resident memory, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Resident {
    /// Now.
    pub(crate) bytes: u64,
    /// The most it has been so far.
    pub(crate) peak_bytes: u64,
}

impl Resident {
    /// Reads it.
    pub(crate) fn of(pid: u32) -> anyhow::Result<Self> {
        let path = format!("/proc/{pid}/status");
        let status = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
            kib.map(|kib| kib * 1024)
                .with_context(|| format!("{path} has no {name}"))
        };
        Ok(Self {
            bytes: bytes("VmRSS:")?,
            peak_bytes: bytes("VmHWM:")?,
        })
    }
}

/// The processor's name.
pub(crate) fn cpu_model() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    info.lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or_else(
            || "unnamed processor".to_owned(),
            |(_, name)| name.to_owned(),
        )
}

/// The kernel's release.
pub(crate) fn kernel() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("Linux {}", release.trim())
}
