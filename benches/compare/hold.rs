//! Processes held to a core, or to some, that end when this one does.
//!
//! A program is not started directly but by this executable, which takes its cores, its priority
//! and its death signal first and then becomes that program (`exec`): the process id stays, and
//! nothing needs the `unsafe` of doing so between fork and exec. The death signal comes when the
//! parent is gone for whatever reason, an interrupt or a panic too, so nothing is left running.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, bail, ensure};
use rustix::process::{Signal, getppid, nice, set_parent_process_death_signal};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The first argument with which this executable holds another program.
pub(crate) const ROLE: &str = "held-process";

/// Where servers and load generators run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cores {
    /// The server's.
    pub(crate) server: usize,
    /// The load generators'; the same where there is only one.
    pub(crate) load: usize,
}

impl Cores {
    /// The first two cores that this process may use.
    pub(crate) fn pick() -> anyhow::Result<Self> {
        let allowed = sched_getaffinity(None).context("cannot ask for the allowed cores")?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core));
        let server = cores.next().context("there is no core to run on")?;
        let load = cores.next().unwrap_or(server);
        Ok(Self { server, load })
    }

    /// All of them, for a server that has the machine to itself.
    pub(crate) fn all(self) -> Vec<usize> {
        let mut cores = vec![self.server, self.load];
        cores.dedup();
        cores
    }
}

/// How a process stands against others on its core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Priority {
    /// As usual.
    Usual,
    /// Behind: for a load that makes work while another process takes the time.
    Low,
    /// Ahead of all others (`SCHED_FIFO`), where [`first_is_allowed`].
    First,
}

impl Priority {
    const fn word(self) -> &'static str {
        match self {
            Self::Usual => "usual",
            Self::Low => "low",
            Self::First => "first",
        }
    }
}

/// The program, of util-linux, that makes another one go first.
const GOES_FIRST: [&str; 3] = ["chrt", "--fifo", "1"];

/// Whether this user may have a process go first, and the machine has what it takes.
pub(crate) fn first_is_allowed() -> bool {
    let [program, args @ ..] = GOES_FIRST;
    let mut command = Command::new(program);
    command.args(args).arg("true").stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// How much nicer a process of low priority is: enough to let the other one go first whenever it
/// wakes. The utmost, 19, was tried and starves on a machine that has anything else to do.
const NICE_LOW: i32 = 5;

/// A command that will run `program` on `cores`; arguments and streams are set on what returns.
pub(crate) fn command(
    cores: &[usize],
    priority: Priority,
    program: impl AsRef<OsStr>,
) -> anyhow::Result<Command> {
    let this = std::env::current_exe().context("cannot find this executable")?;
    let mut command = Command::new(this);
    let cores: Vec<_> = cores.iter().map(ToString::to_string).collect();
    command
        .arg(ROLE)
        .arg(cores.join(","))
        .arg(priority.word())
        .arg(std::process::id().to_string())
        .arg(program.as_ref());
    // A server under test takes its settings from here and not from its user's environment.
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"ONCED_") {
            command.env_remove(name);
        }
    }
    Ok(command)
}

/// Becomes the program that the arguments name; returns only if it cannot.
pub(crate) fn exec(mut args: impl Iterator<Item = OsString>) -> anyhow::Result<()> {
    let mut word = || args.next().and_then(|word| word.into_string().ok());
    let (held_to, priority, parent) = (word(), word(), word());
    let (Some(held_to), Some(priority), Some(parent)) = (held_to, priority, parent) else {
        bail!("{ROLE} is for this executable's own use");
    };
    set_parent_process_death_signal(Some(Signal::KILL)).context("cannot set the death signal")?;
    let parent_is_there = getppid().is_some_and(|pid| pid.as_raw_nonzero().to_string() == parent);
    ensure!(parent_is_there, "the process that wanted this one is gone");
    let mut cores = CpuSet::new();
    for core in held_to.split(',') {
        cores.set(core.parse().context("a core is a number")?);
    }
    sched_setaffinity(None, &cores).with_context(|| format!("cannot run on core {held_to}"))?;
    if priority == Priority::Low.word() {
        nice(NICE_LOW).context("cannot lower the priority")?;
    }
    let mut words: Vec<OsString> = args.collect();
    ensure!(!words.is_empty(), "there is no program to become");
    if priority == Priority::First.word() {
        words.splice(0..0, GOES_FIRST.map(OsString::from));
    }
    let program = words.remove(0);
    let error = Command::new(&program).args(words).exec();
    Err(error).with_context(|| format!("cannot start {}", program.display()))
}

/// A child process that is killed when dropped.
#[derive(Debug)]
pub(crate) struct KilledOnDrop(pub(crate) Child);

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        let _killed = self.0.kill();
        let _reaped = self.0.wait();
    }
}
