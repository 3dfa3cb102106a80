//! `onced filter --server` ended at random moments, in every way there is, and then run again: over
//! both runs every first line comes out, whatever ended the first run.
//!
//! Only killing the filter itself may lose lines, at most those in flight, and not even that with
//! `--ack`. `ONCED_FILTER_ENDS` says how many ends of each kind, `ONCED_SEED` repeats a run's choices
//! (not its timing).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    clippy::missing_panics_doc,
    reason = "`tests/common` is of the tests alone"
)]

mod common;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::process::{Dice, Process, Scratch, signal};

/// Ends of each kind where nothing else is asked for.
const ENDS: u64 = 4;
const LINES: u64 = 30_000;
/// Lines that a killed filter may have asked about and not written: eight batches of a thousand.
const IN_FLIGHT_LINES_MAX: usize = 8_000;

/// How often each kind of end is tried, and the dice of this run.
fn ends() -> (u64, Dice) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().unwrap());
    let seed = number("ONCED_SEED").unwrap_or(7);
    (number("ONCED_FILTER_ENDS").unwrap_or(ENDS), Dice::new(seed))
}

/// A server with a log, an input, and how long filtering it takes.
struct Stage {
    scratch: Scratch,
    server: Process,
    input: String,
    firsts: BTreeSet<String>,
    takes: Duration,
}

impl Stage {
    fn new(name: &str) -> Self {
        let scratch = Scratch::new(name);
        let mut dice = Dice::new(17);
        let mut lines = String::new();
        let mut firsts = BTreeSet::new();
        for _ in 0..LINES {
            let line = format!("event {}", dice.below(LINES));
            writeln!(lines, "{line}").unwrap();
            firsts.insert(line);
        }
        let input = scratch.join("input");
        fs::write(&input, lines).unwrap();
        let mut stage = Self {
            server: Process::start(&scratch.join("data"), &[]),
            input: input.to_str().unwrap().to_owned(),
            scratch,
            firsts,
            takes: Duration::ZERO,
        };
        let since = Instant::now();
        let whole = stage.again("calibration", &[]);
        stage.takes = since.elapsed();
        assert!(whole.status.success());
        assert_eq!(lines_of(&whole.stdout).count(), stage.firsts.len());
        stage
    }

    fn filter(&self, namespace: &str, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_onced"));
        command
            .args([
                "filter",
                "--server",
                &self.server.address,
                "--ns",
                namespace,
            ])
            .args(["--ttl", "1h"])
            .args(more)
            .arg(&self.input)
            .stderr(Stdio::piped());
        command
    }

    /// Runs the filter to its end.
    fn again(&self, namespace: &str, more: &[&str]) -> Output {
        self.filter(namespace, more).output().unwrap()
    }

    /// Starts the filter with a file as its output, anew.
    fn to_file(&self, namespace: &str, more: &[&str]) -> (Child, PathBuf) {
        let path = self.scratch.join("out");
        let file = File::create(&path).unwrap();
        let child = self.filter(namespace, more).stdout(file).spawn();
        (child.unwrap(), path)
    }

    /// Another run brings what the first did not, and nothing else.
    fn rest_comes_once(&self, namespace: &str, first: &[u8]) {
        let second = self.again(namespace, &[]).stdout;
        assert_eq!(self.missing(first, &second), 0);
        let lines = lines_of(first).count() + lines_of(&second).count();
        assert_eq!(lines, self.firsts.len(), "lines came twice");
    }

    /// A moment within a run.
    fn wait(&self, dice: &mut Dice) {
        thread::sleep(Duration::from_micros(
            dice.below(self.takes.as_micros() as u64),
        ));
    }

    /// How many first lines are in neither output; no line is in there that was not read.
    fn missing(&self, first: &[u8], second: &[u8]) -> usize {
        let mut missing = self.firsts.clone();
        for line in lines_of(first).chain(lines_of(second)) {
            assert!(self.firsts.contains(line), "'{line}' was never read");
            missing.remove(line);
        }
        missing.len()
    }
}

/// The complete lines of an output.
fn lines_of(output: &[u8]) -> impl Iterator<Item = &str> {
    let complete = output
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |end| end + 1);
    str::from_utf8(&output[..complete]).unwrap().lines()
}

/// Ends a filter by a signal while it writes to a file; tells what it wrote.
fn end_by(stage: &Stage, name: &str, more: &[&str], signal_name: &str, dice: &mut Dice) -> Vec<u8> {
    let (mut child, path) = stage.to_file(name, more);
    stage.wait(dice);
    signal(signal_name, child.id());
    child.wait().unwrap();
    fs::read(path).unwrap()
}

#[test]
fn a_killed_filter_loses_no_more_than_is_in_flight() {
    let stage = Stage::new("filter-killed");
    let (ends, mut dice) = ends();
    for round in 0..ends {
        let name = format!("kill-{round}");
        let first = end_by(&stage, &name, &[], "KILL", &mut dice);
        let second = stage.again(&name, &[]);
        let missing = stage.missing(&first, &second.stdout);
        assert!(missing <= IN_FLIGHT_LINES_MAX, "{missing} lines are lost");
    }
}

#[test]
fn a_killed_filter_that_acknowledges_loses_nothing() {
    let stage = Stage::new("filter-killed-ack");
    let (ends, mut dice) = ends();
    let ack = ["--ack", "--lease", "2s"];
    for round in 0..ends {
        let name = format!("ack-{round}");
        let first = end_by(&stage, &name, &ack, "KILL", &mut dice);
        let second = stage.again(&name, &ack);
        assert!(second.status.success(), "{second:?}");
        assert_eq!(stage.missing(&first, &second.stdout), 0);
        let twice =
            lines_of(&first).count() + lines_of(&second.stdout).count() - stage.firsts.len();
        assert!(twice <= IN_FLIGHT_LINES_MAX, "{twice} lines came twice");
    }
}

#[test]
fn a_killed_server_costs_no_line() {
    let mut stage = Stage::new("filter-server-killed");
    let (ends, mut dice) = ends();
    for round in 0..ends {
        let name = format!("server-{round}");
        let (mut child, path) = stage.to_file(&name, &[]);
        stage.wait(&mut dice);
        let data = stage.scratch.join("data");
        // What is put into its place is dropped with the stage.
        let restarted = {
            signal("KILL", stage.server.id());
            stage.server.wait();
            child.wait().unwrap();
            Process::start(&data, &[])
        };
        stage.server = restarted;
        let second = stage.again(&name, &[]);
        assert!(second.status.success(), "{second:?}");
        assert_eq!(stage.missing(&fs::read(path).unwrap(), &second.stdout), 0);
    }
}

/// A filter whose output is read, slowly at first, through a pipe of its own.
fn piped(mut child: Child) -> thread::JoinHandle<(Vec<u8>, Child)> {
    let mut pipe = child.stdout.take().unwrap();
    thread::spawn(move || {
        let mut output = Vec::new();
        pipe.read_to_end(&mut output).unwrap();
        (output, child)
    })
}

#[test]
fn signals_lose_no_line_and_repeat_none() {
    let stage = Stage::new("filter-signals");
    let (ends, mut dice) = ends();
    for round in 0..ends {
        for (number, name) in [(15, "TERM"), (2, "INT")] {
            let namespace = format!("{name}-{round}");
            let child = stage
                .filter(&namespace, &[])
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let id = child.id();
            let reader = piped(child);
            stage.wait(&mut dice);
            signal(name, id);
            let (first, mut child) = reader.join().unwrap();
            let status = child.wait().unwrap();
            assert!(
                status.success() || status.signal() == Some(number),
                "{status:?}"
            );
            assert!(first.is_empty() || first.ends_with(b"\n"));
            stage.rest_comes_once(&namespace, &first);
        }
    }
}

#[test]
fn a_signal_ends_a_filter_whose_output_nobody_reads() {
    let stage = Stage::new("filter-stuck");
    let mut child = stage
        .filter("stuck", &[])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Full once it holds what a pipe holds; the filter waits in the middle of a line.
    let mut pipe = child.stdout.take().unwrap();
    thread::sleep(stage.takes.min(Duration::from_secs(1)));
    signal("TERM", child.id());
    let status = child.wait().unwrap();
    assert_eq!(status.signal(), Some(15));
    let mut first = Vec::new();
    pipe.read_to_end(&mut first).unwrap();
    stage.rest_comes_once("stuck", &first);
}

#[test]
fn a_signal_that_it_was_started_to_ignore_does_not_end_it() {
    let mut child = Command::new("bash")
        .args([
            "-c",
            "trap '' HUP; exec \"$0\" filter",
            env!("CARGO_BIN_EXE_onced"),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut output = child.stdout.take().unwrap();
    let mut answer = [0; 2];
    input.write_all(b"a\n").unwrap();
    output.read_exact(&mut answer).unwrap();
    signal("HUP", child.id());
    input.write_all(b"b\n").unwrap();
    output.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"b\n");
    drop(input);
    assert!(child.wait().unwrap().success());
}

#[test]
fn an_output_that_is_closed_loses_no_line() {
    let stage = Stage::new("filter-closed");
    let (ends, mut dice) = ends();
    for round in 0..ends {
        let name = format!("closed-{round}");
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut child = stage
            .filter(&name, &[])
            .stdout(OwnedFd::from(theirs))
            .spawn()
            .unwrap();
        // What a socket has taken can still be read once it takes no more, other than a pipe.
        let mut first = vec![0; dice.below(300_000) as usize];
        let mut taken = 0;
        while taken < first.len() {
            match (&ours).read(&mut first[taken..]).unwrap() {
                0 => break,
                count => taken += count,
            }
        }
        first.truncate(taken);
        ours.shutdown(Shutdown::Read).unwrap();
        (&ours).read_to_end(&mut first).unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.code(), Some(0), "{status:?}");
        let second = stage.again(&name, &[]).stdout;
        assert_eq!(stage.missing(&first, &second), 0);
    }
}

#[test]
fn a_full_disk_loses_no_line_and_repeats_none() {
    let stage = Stage::new("filter-full-disk");
    let (ends, mut dice) = ends();
    for round in 0..ends {
        let name = format!("full-{round}");
        let path = stage.scratch.join("out");
        let filter = stage.filter(&name, &[]);
        // A file that may not grow any more refuses a write as a full disk does: in the middle.
        // The whole output is some 220 KiB.
        let limited = format!("trap '' XFSZ; ulimit -f {}; exec \"$@\"", dice.below(200));
        let status = Command::new("bash")
            .args(["-c", &limited, "-"])
            .arg(filter.get_program())
            .args(filter.get_args())
            .stdout(File::create(&path).unwrap())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert_eq!(status.code(), Some(1));
        stage.rest_comes_once(&name, &fs::read(&path).unwrap());
    }
}
