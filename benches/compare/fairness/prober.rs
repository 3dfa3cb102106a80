//! The prober: one connection, one request in flight, and how long each took.
//!
//! It asks anew [`EVERY`] after it asked, or at once if the reply took longer; so a stall counts as
//! one slow answer and not as many. A latency counts from the write to the reply. Where the prober itself wakes late, on a core that it shares with the
//! loaders, a reply waits in its socket; how late it wakes from its own timer, under the same load,
//! is told beside, and says how much of a latency that can be.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::ValueEnum;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::wire::{Address, Keys, Verb};
use crate::hold::{self, Priority};

/// The first argument with which this executable is the prober.
pub(crate) const ROLE: &str = "fairness-prober";
const EVERY: Duration = Duration::from_millis(2);
/// A reply that takes longer never comes.
const PATIENCE: Duration = Duration::from_secs(20);
/// Its keys' lane, apart from the loaders'.
const LANE: u32 = 1_000;

/// What the prober saw, in microseconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Outcome {
    pub(super) probes: u64,
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) max: f64,
    /// How late it woke from its timer.
    pub(super) woke_late_p99: f64,
}

/// Asks `verb` on `core`, for `warmup` without counting and then for `lasts`.
pub(super) fn run(
    (address, verb): (&Address, Verb),
    (warmup, lasts): (Duration, Duration),
    (core, priority): (usize, Priority),
) -> anyhow::Result<Outcome> {
    let mut command = hold::command(&[core], priority, std::env::current_exe()?)?;
    command.args([ROLE, &address.word(), &verb.word()]);
    command.args([warmup, lasts].map(|time| time.as_millis().to_string()));
    let output = command.stdin(Stdio::null()).output()?;
    ensure!(
        output.status.success(),
        "the prober failed: {}",
        String::from_utf8_lossy(&output.stderr).trim_end()
    );
    serde_json::from_slice(&output.stdout).context("the prober said nothing")
}

/// The prober, in a process of its own.
pub(crate) fn make(args: impl Iterator<Item = OsString>) -> anyhow::Result<()> {
    let words: Vec<String> = args
        .map(|word| word.into_string().ok())
        .collect::<Option<_>>()
        .context("give words")?;
    let [address, verb, warmup_ms, lasts_ms] = &words[..] else {
        bail!("give an address, a verb, how long to warm up, and how long to ask");
    };
    let verb = Verb::from_str(verb, false).map_err(anyhow::Error::msg)?;
    let mut socket = Address::parse(address)?.connect()?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut replies = BufReader::new(socket.try_clone()?);
    let mut keys = Keys::of_lane(LANE);
    let (mut request, mut reply) = (Vec::new(), Vec::new());
    let mut latency_ns = histogram();
    let mut woke_late_ns = histogram();
    let counted_from = Instant::now() + Duration::from_millis(warmup_ms.parse()?);
    let until = counted_from + Duration::from_millis(lasts_ms.parse()?);
    let mut due = Instant::now();
    loop {
        let now = Instant::now();
        if now < due {
            thread::sleep(due - now);
            if due >= counted_from {
                woke_late_ns.saturating_record(due.elapsed().as_nanos() as u64);
            }
        }
        let sent = Instant::now();
        if sent >= until {
            break;
        }
        due = sent + EVERY;
        request.clear();
        reply.clear();
        verb.ask(&mut keys, &mut request);
        socket.write_all(&request)?;
        let read = replies.read_until(b'\n', &mut reply);
        ensure!(read.context("no reply")? > 0, "the server closed");
        let took = sent.elapsed();
        verb.check(reply.strip_suffix(b"\n").unwrap_or(&reply))?;
        // One that was sent in the warm-up counts if it was still out after it.
        if sent + took >= counted_from {
            latency_ns.saturating_record(took.as_nanos() as u64);
        }
    }
    ensure!(!latency_ns.is_empty(), "no probe was counted");
    let us = |ns: u64| ns as f64 / 1e3;
    let outcome = Outcome {
        probes: latency_ns.len(),
        p50: us(latency_ns.value_at_quantile(0.5)),
        p99: us(latency_ns.value_at_quantile(0.99)),
        max: us(latency_ns.max()),
        woke_late_p99: us(woke_late_ns.value_at_quantile(0.99)),
    };
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(())
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, PATIENCE.as_nanos() as u64, 3)
        .expect("20 s in nanoseconds at three digits are within what it can hold")
}
