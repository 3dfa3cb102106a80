//! Loaders: connections that ask without a pause and read every answer.
//!
//! A loader writes whatever its socket takes and reads whatever has come, at once and without a
//! bound on what is in flight but the sockets' buffers: what an honest bulk import does. Each is a
//! thread of this process; the process asks until its standard input ends, and then reads to the
//! last answer.

use std::ffi::OsString;
use std::io::{ErrorKind, Read, Write};
use std::process::{ChildStdin, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::ValueEnum;
use memchr::memchr;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};
use socket2::Socket;

use super::wire::{Address, Keys, Verb};
use crate::hold::{self, KilledOnDrop, Priority};

/// The first argument with which this executable is the loaders.
pub(crate) const ROLE: &str = "fairness-loaders";
/// What is encoded ahead of a write.
const OUT_BYTES: usize = 64 << 10;
const READ_BYTES: usize = 64 << 10;
/// How long nothing may move.
const PATIENCE: Duration = Duration::from_secs(20);
/// The longest that they ask.
const LASTS_MAX: Duration = Duration::from_mins(1);

/// What the loaders did together once they had warmed up.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Outcome {
    pub(super) keys_per_s: f64,
    /// Of the loader that got the fewest.
    pub(super) fewest_keys_per_s: f64,
}

/// Loaders under way; they are killed when dropped.
pub(super) struct Started {
    process: KilledOnDrop,
    stdin: Option<ChildStdin>,
}

impl Started {
    /// Starts `count` of them on `core`.
    pub(super) fn start(
        (address, verb, count): (&Address, Verb, usize),
        warmup: Duration,
        (core, priority): (usize, Priority),
    ) -> anyhow::Result<Self> {
        let mut command = hold::command(&[core], priority, std::env::current_exe()?)?;
        command.args([ROLE, &address.word(), &verb.word()]);
        command.args([count.to_string(), warmup.as_millis().to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().context("cannot start the loaders")?;
        Ok(Self {
            stdin: process.stdin.take(),
            process: KilledOnDrop(process),
        })
    }

    /// Has them stop, and returns when they have every answer.
    pub(super) fn finish(mut self) -> anyhow::Result<Outcome> {
        drop(self.stdin.take());
        let stdout = self.process.0.stdout.take();
        let said = stdout.map(std::io::read_to_string).transpose()?;
        let status = self.process.0.wait()?;
        ensure!(status.success(), "the loaders failed, with {status}");
        serde_json::from_str(&said.unwrap_or_default()).context("the loaders said nothing")
    }
}

/// The loaders, in a process of their own.
pub(crate) fn make(args: impl Iterator<Item = OsString>) -> anyhow::Result<()> {
    let words: Vec<String> = args
        .map(|word| word.into_string().ok())
        .collect::<Option<_>>()
        .context("give words")?;
    let [address, verb, count, warmup_ms] = &words[..] else {
        bail!("give an address, a verb, how many, and how long they warm up");
    };
    let address = Address::parse(address)?;
    let verb = Verb::from_str(verb, false).map_err(anyhow::Error::msg)?;
    let warmup = Duration::from_millis(warmup_ms.parse()?);
    let stop = Arc::new(AtomicBool::new(false));
    let loaders = (1..=count.parse()?)
        .map(|lane| {
            let loader = Loader::new(address.connect()?, verb, lane)?;
            let stop = Arc::clone(&stop);
            Ok(thread::spawn(move || loader.run(warmup, &stop)))
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let until_told = thread::spawn(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
    let began = Instant::now();
    while !until_told.is_finished()
        && began.elapsed() < LASTS_MAX
        && !loaders.iter().any(thread::JoinHandle::is_finished)
    {
        thread::sleep(Duration::from_millis(5));
    }
    stop.store(true, Ordering::Relaxed);
    let mut outcome = Outcome {
        fewest_keys_per_s: f64::INFINITY,
        ..Outcome::default()
    };
    for loader in loaders {
        let keys_per_s = loader.join().expect("a loader does not panic")?;
        outcome.keys_per_s += keys_per_s;
        outcome.fewest_keys_per_s = outcome.fewest_keys_per_s.min(keys_per_s);
    }
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(())
}

struct Loader {
    socket: Socket,
    verb: Verb,
    keys: Keys,
    /// Encoded, and from `sent` on not sent yet.
    out: Vec<u8>,
    sent: usize,
    inbox: Vec<u8>,
    /// The beginning of a reply whose rest has not come.
    partial: Vec<u8>,
    asked: u64,
    answered: u64,
}

impl Loader {
    fn new(socket: Socket, verb: Verb, lane: u32) -> anyhow::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            verb,
            keys: Keys::of_lane(lane),
            out: Vec::with_capacity(OUT_BYTES + (8 << 10)),
            sent: 0,
            inbox: vec![0; READ_BYTES],
            partial: Vec::new(),
            asked: 0,
            answered: 0,
        })
    }

    /// Keys that were answered in a second, between the warm-up and the stop.
    fn run(mut self, warmup: Duration, stop: &AtomicBool) -> anyhow::Result<f64> {
        let counted_from = Instant::now() + warmup;
        let mut answered_before = None;
        let mut counted = None;
        loop {
            let now = Instant::now();
            if now >= counted_from {
                answered_before.get_or_insert(self.answered);
            }
            let stopping = stop.load(Ordering::Relaxed);
            if stopping && counted.is_none() {
                let before = answered_before.context("it was stopped while it warmed up")?;
                let keys = (self.answered - before) * self.verb.keys();
                let seconds = (now - counted_from).as_secs_f64();
                counted = Some(keys as f64 / seconds.max(1e-3));
            }
            if let Some(keys_per_s) = counted
                && self.sent == self.out.len()
                && self.answered == self.asked
            {
                return Ok(keys_per_s);
            }
            let wrote = self.write(stopping)?;
            let read = self.read()?;
            if !wrote && !read {
                self.wait()?;
            }
        }
    }

    /// Whether it could write. What was encoded is sent whatever happens, so that a request is
    /// never left in the middle.
    fn write(&mut self, stopping: bool) -> anyhow::Result<bool> {
        if self.sent == self.out.len() {
            self.out.clear();
            self.sent = 0;
            while !stopping && self.out.len() < OUT_BYTES {
                self.verb.ask(&mut self.keys, &mut self.out);
                self.asked += 1;
            }
        }
        if self.out.is_empty() {
            return Ok(false);
        }
        match self.socket.write(&self.out[self.sent..]) {
            Ok(sent) => {
                self.sent += sent;
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error).context("a loader cannot send"),
        }
    }

    /// Whether there was something.
    fn read(&mut self) -> anyhow::Result<bool> {
        let came = match self.socket.read(&mut self.inbox) {
            Ok(0) => bail!("the server closed a loader's connection"),
            Ok(came) => came,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error).context("a loader cannot read"),
        };
        let mut rest = &self.inbox[..came];
        while let Some(end) = memchr(b'\n', rest) {
            if self.partial.is_empty() {
                self.verb.check(&rest[..end])?;
            } else {
                self.partial.extend_from_slice(&rest[..end]);
                self.verb.check(&self.partial)?;
                self.partial.clear();
            }
            self.answered += 1;
            rest = &rest[end + 1..];
        }
        self.partial.extend_from_slice(rest);
        Ok(true)
    }

    fn wait(&self) -> anyhow::Result<()> {
        let mut events = PollFlags::IN;
        if self.sent < self.out.len() {
            events |= PollFlags::OUT;
        }
        let timeout = Timespec::try_from(PATIENCE).expect("seconds fit");
        let mut fds = [PollFd::new(&self.socket, events)];
        let ready = poll(&mut fds, Some(&timeout)).context("cannot wait")?;
        ensure!(ready > 0, "the server neither reads nor answers");
        Ok(())
    }
}
