//! From batches to the output: each line is written, dropped, held or refused as its key's
//! verdict says, and whatever ends the copying, no line is lost.
//!
//! The rule: a key that was stored by us is given back unless its line was written, and a line
//! whose key may have been stored is written. Both hold for every end but the process being
//! killed: the end of the input, a signal, an output that is full or that nobody reads, a server
//! that is gone. A batch is written as soon as it is judged, so that what a kill can lose is what
//! is in flight, and one batch.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use crossbeam::channel::{Select, TryRecvError};

use super::batch::{Batch, Key, Spans};
use super::dedup::{Dedup, Verdict};
use super::output::{Output, Refused};
use super::progress::{Progress, Tally};
use super::source::Batches;
use crate::cli::signals::EndRequest;

/// Lines that may wait for others who have claimed their keys; with more, no further input is read.
const HELD_BATCHES_MAX: usize = 8;
/// Bytes of lines that wait together, but for a single longer one.
const HELD_BATCH_BYTES_MAX: usize = 8 << 20;
/// How long to wait before asking again about held lines: at first, and at most.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How long held lines are waited for at the end of the input before that is told.
const SILENCE: Duration = Duration::from_secs(2);

/// Lines with over-long keys that are told of one by one.
const TOO_LONG_SHOWN: u64 = 10;

/// Lines on their way from batches to the output.
pub(super) struct Copy<D> {
    dedup: D,
    output: Output,
    end: EndRequest,
    drop_keyless: bool,
    /// Submitted to the dedup but not collected, oldest first.
    in_flight: VecDeque<Flight>,
    /// Lines whose keys others have claimed, to be asked about again.
    held: Held,
    /// The verdicts of the batch being settled.
    verdicts: Vec<Verdict>,
    /// What is to be written of the batch being settled.
    text: Vec<u8>,
    /// For each of its lines, where in `text` it ends; 0 if it is not there.
    ends: Vec<usize>,
    /// Keys whose lines were not written, and how they were stored.
    refused: (Spans, Vec<Verdict>),
    /// The last line written had no line end.
    owes_line_end: bool,
    line_end: u8,
    /// What went wrong first, with input, keys or server.
    failure: Option<anyhow::Error>,
    /// Why nothing is written any more.
    output_failure: Option<io::Error>,
    tally: Tally,
    progress: Progress,
}

/// A batch that is being asked about.
struct Flight {
    batch: Batch,
    /// Whether its lines were held before.
    again: bool,
}

/// Lines that wait for others. They are asked about in rounds, with a pause between two that grows
/// while nothing is decided.
#[derive(Default)]
struct Held {
    batches: VecDeque<Batch>,
    /// Batches, the first ones, that are still to be asked about in this round.
    round_left: usize,
    /// When the next round begins.
    ask_again_at: Option<Instant>,
    pause: Duration,
}

/// How the copying ended. Whatever it says, what could be written is written.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) tally: Tally,
    /// What went wrong with input, keys or server.
    pub(super) failure: Option<anyhow::Error>,
    /// What went wrong with the output.
    pub(super) output_failure: Option<io::Error>,
    /// The signal that ended it.
    pub(super) signal: Option<i32>,
}

impl<D: Dedup> Copy<D> {
    pub(super) fn new(
        dedup: D,
        output: Output,
        end: EndRequest,
        drop_keyless: bool,
        line_end: u8,
        progress: Progress,
    ) -> Self {
        Self {
            dedup,
            output,
            end,
            drop_keyless,
            in_flight: VecDeque::new(),
            held: Held::default(),
            verdicts: Vec::new(),
            text: Vec::new(),
            ends: Vec::new(),
            refused: Default::default(),
            owes_line_end: false,
            line_end,
            failure: None,
            output_failure: None,
            tally: Tally::start(),
            progress,
        }
    }

    /// Copies all batches, or as many as it can.
    pub(super) fn run(mut self, batches: &Batches) -> Ended {
        while let Some(flight) = self.next(batches) {
            self.submit(flight, batches);
        }
        self.wait_for_held(batches);
        match self.dedup.finish() {
            Ok(overtaken) => self.tally.overtaken = overtaken,
            Err(err) => self.fail(err),
        }
        self.give_back();
        self.progress.end();
        // The process ends with the run; taking millions of keys apart would only take a second.
        std::mem::forget(self.dedup);
        Ended {
            tally: self.tally,
            failure: self.failure,
            output_failure: self.output_failure,
            signal: self.end.signal(),
        }
    }

    /// Whether there is no sense in going on, or no permission.
    fn must_end(&self) -> bool {
        self.failure.is_some() || self.output_failure.is_some() || self.end.signal().is_some()
    }

    fn fail(&mut self, failure: anyhow::Error) {
        self.failure.get_or_insert(failure);
    }

    /// The next batch to be judged, if the copying is to go on. When none is ready, everything
    /// in flight is settled and written first.
    fn next(&mut self, batches: &Batches) -> Option<Flight> {
        loop {
            if self.must_end() {
                return None;
            }
            if let Some(batch) = self.held.due(Instant::now()) {
                return Some(Flight { batch, again: true });
            }
            if self.held.is_full() {
                self.settle_all(batches);
                self.held.wait(&self.end);
                continue;
            }
            match batches.full.try_recv() {
                Ok(Ok(batch)) => {
                    return Some(Flight {
                        batch,
                        again: false,
                    });
                }
                Ok(Err(err)) => self.fail(err),
                Err(TryRecvError::Disconnected) => return None,
                Err(TryRecvError::Empty) if self.in_flight.is_empty() => {
                    self.wait_for_input(batches);
                }
                Err(TryRecvError::Empty) => self.settle_all(batches),
            }
        }
    }

    /// Returns when there may be input, or a reason to end, or held lines to ask about.
    fn wait_for_input(&self, batches: &Batches) {
        let mut ready = Select::new();
        ready.recv(&batches.full);
        ready.recv(self.end.asked());
        match self.held.ask_again_at {
            None => {
                ready.ready();
            }
            Some(at) => {
                // Which of them it was is found by looking.
                let _ = ready.ready_deadline(at);
            }
        }
    }

    /// Asks about a batch, and settles the oldest one if too many are in flight.
    fn submit(&mut self, flight: Flight, batches: &Batches) {
        let submitted = self.dedup.submit(&flight.batch.keys);
        self.in_flight.push_back(flight);
        if !submitted {
            self.settle_all(batches);
        } else if self.in_flight.len() >= self.dedup.in_flight_max() {
            self.settle_oldest(batches);
        }
    }

    fn settle_all(&mut self, batches: &Batches) {
        while !self.in_flight.is_empty() {
            self.settle_oldest(batches);
        }
    }

    /// Collects the verdicts of the oldest batch in flight and writes the lines that stay.
    fn settle_oldest(&mut self, batches: &Batches) {
        let Some(Flight { batch, again }) = self.in_flight.pop_front() else {
            return;
        };
        self.verdicts.clear();
        let collected = self.dedup.collect(&batch.keys, &mut self.verdicts);
        if let Err(err) = collected {
            self.fail(anyhow!("{}: {err:#}", batch.place()));
        }
        self.compose(&batch, again);
        let taken = self.write();
        self.account_for(&batch, taken);
        if !again {
            self.progress
                .advance(batch.lines.len(), batch.lines.bytes_len());
        }
        // The reader has ended when it takes no batches back.
        let _ = batches.spent.send(batch);
    }

    /// Puts together what is to be written of a batch.
    fn compose(&mut self, batch: &Batch, again: bool) {
        self.text.clear();
        self.ends.clear();
        let mut verdicts = self.verdicts.iter().copied();
        let mut keys = batch.keys.iter();
        for (position, (line, kind)) in batch.lines.iter().zip(&batch.kinds).enumerate() {
            let number = batch.number_of(position);
            let (verdict, key) = match kind {
                Key::Is(()) => (verdicts.next(), keys.next()),
                Key::None | Key::NotAsked => (None, None),
            };
            if let (Some(Verdict::Busy), Some(key)) = (verdict, key) {
                self.held.hold(&batch.input, number, line, key);
                self.ends.push(0);
                continue;
            }
            if again {
                self.held.pause = PAUSE_MIN;
            }
            let stays = match verdict {
                None => !self.drop_keyless || *kind == Key::NotAsked,
                Some(Verdict::Seen) => false,
                Some(Verdict::NotStored) => {
                    self.failure
                        .get_or_insert_with(|| not_stored(batch, number));
                    false
                }
                Some(Verdict::TooLong) => {
                    if self.tally.too_long < TOO_LONG_SHOWN {
                        let (input, bytes) = (&batch.input, key.map_or(0, <[u8]>::len));
                        self.progress.say(&format!(
                            "line {number} of {input}: its key of {bytes} bytes is over the server's limit; the line passes"
                        ));
                    }
                    true
                }
                Some(_) => true,
            };
            self.tally.count(*kind, verdict, stays);
            if stays {
                if self.owes_line_end {
                    self.text.push(self.line_end);
                }
                self.text.extend_from_slice(line);
                self.owes_line_end = line.last() != Some(&self.line_end);
            }
            self.ends.push(if stays { self.text.len() } else { 0 });
        }
    }

    /// Writes what was put together; tells how much of it was taken.
    fn write(&mut self) -> usize {
        if self.output_failure.is_some() {
            return 0;
        }
        match self.output.write(&self.text) {
            Ok(()) => self.text.len(),
            Err(Refused { taken, cause }) => {
                self.output_failure = Some(cause);
                taken
            }
        }
    }

    /// Acknowledges the lines of which all was taken, and keeps the keys of the others.
    fn account_for(&mut self, batch: &Batch, taken: usize) {
        let lines = self.ends.iter().copied().zip(&batch.kinds);
        let ends = lines
            .filter(|(_, kind)| **kind == Key::Is(()))
            .map(|(end, _)| end);
        let judged = batch
            .keys
            .iter()
            .zip(self.verdicts.iter().copied())
            .zip(ends);
        let out = judged
            .clone()
            .filter(|(_, end)| *end <= taken)
            .map(|(judged, _)| judged);
        self.dedup.acknowledge(out);
        if taken == self.text.len() {
            return;
        }
        let untaken = self.ends.iter().filter(|end| **end > taken).count();
        self.tally.take_back(untaken);
        for ((key, verdict), _) in judged.filter(|(_, end)| *end > taken) {
            self.tally.take_verdict_back(verdict);
            if verdict.may_be_stored() {
                self.refused.0.push(key);
                self.refused.1.push(verdict);
            }
        }
    }

    /// At the end of the input, asks about the lines that wait for others until all are decided.
    fn wait_for_held(&mut self, batches: &Batches) {
        let since = Instant::now();
        let mut told = false;
        loop {
            if !self.must_end()
                && let Some(batch) = self.held.due(Instant::now())
            {
                self.submit(Flight { batch, again: true }, batches);
                continue;
            }
            // Only then is it known which lines are still held.
            self.settle_all(batches);
            if self.must_end() || self.held.batches.is_empty() {
                break;
            }
            if since.elapsed() >= SILENCE && !told {
                told = true;
                let lines = self.held.lines();
                self.progress.say(&format!(
                    "waiting for {lines} lines whose keys others have claimed"
                ));
            }
            self.held.wait(&self.end);
        }
        self.tally.held = self.held.lines() as u64;
    }

    /// What was stored for lines that are not written is removed again.
    fn give_back(&mut self) {
        let (keys, verdicts) = &self.refused;
        let (given_back, outcome) = self.dedup.give_back(keys, verdicts);
        self.tally.given_back = given_back as u64;
        match outcome {
            Ok(()) => {}
            Err(err) => {
                let count = keys.len() - given_back;
                let lost = anyhow!(
                    "{count} lines are marked as seen and were not written, and could not be given back: {err:#}"
                );
                self.failure = Some(match self.failure.take() {
                    None => lost,
                    Some(first) => anyhow!("{first:#}; {lost:#}"),
                });
            }
        }
    }
}

impl Held {
    fn hold(&mut self, input: &Arc<str>, number: u64, line: &[u8], key: &[u8]) {
        self.ask_again_at
            .get_or_insert_with(|| Instant::now() + self.pause.max(PAUSE_MIN));
        let is_last_of_round = self.round_left == self.batches.len();
        let fits = |last: &&mut Batch| {
            let bytes = last.lines.bytes_len() + line.len();
            last.has_room(key.len()) && bytes <= HELD_BATCH_BYTES_MAX && last.input == *input
        };
        let last = self.batches.back_mut().filter(|_| !is_last_of_round);
        if let Some(last) = last.filter(fits) {
            last.push_apart(number, line, key);
        } else {
            let mut batch = Batch::new(Arc::clone(input), number);
            batch.push_apart(number, line, key);
            self.batches.push_back(batch);
        }
    }

    /// A batch that it is time to ask about again.
    fn due(&mut self, now: Instant) -> Option<Batch> {
        if self.round_left == 0 && self.ask_again_at.is_some_and(|at| at <= now) {
            self.round_left = self.batches.len();
            self.ask_again_at = Some(now + self.pause.max(PAUSE_MIN));
            self.pause = (2 * self.pause).clamp(2 * PAUSE_MIN, PAUSE_MAX);
        }
        self.round_left = self.round_left.checked_sub(1)?;
        let batch = self.batches.pop_front();
        if self.batches.is_empty() {
            self.ask_again_at = None;
        }
        batch
    }

    fn is_full(&self) -> bool {
        self.batches.len() >= HELD_BATCHES_MAX
    }

    fn lines(&self) -> usize {
        self.batches.iter().map(|batch| batch.lines.len()).sum()
    }

    /// Waits until it is time to ask again, or the process is asked to end.
    fn wait(&self, end: &EndRequest) {
        if let Some(at) = self.ask_again_at {
            end.wait(at.saturating_duration_since(Instant::now()));
        }
    }
}

fn not_stored(batch: &Batch, number: u64) -> anyhow::Error {
    anyhow!(
        "line {number} of {}: the server could not store the key (is it full, or read-only?); \
         lines like this one are neither written nor remembered, so that running again takes them up",
        batch.input
    )
}
