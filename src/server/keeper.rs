//! The log's life beside the workers: reading it at the start, syncing it, tending it, closing it.
//!
//! One thread syncs: once a second, or under `--fsync always` as soon as it is wanted, with whatever has
//! come together meanwhile. Another prepares segments, deletes those that have lapsed and compacts.

use std::cell::Cell;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use thiserror::Error;

use super::clock::Clock;
use super::shared::Shared;
use super::threads;
use crate::engine::{Excess, Progress, Restored, largest_frame};
use crate::limits::{
    CLOCK_BEHIND_MS, CLOCK_LOOK_EVERY_MS, LOG_DEAD_BYTES_MAX, LOG_RETRY_MS, LOG_SYNC_EVERY_MS,
};
use crate::log::compact::Compactor;
use crate::log::control::COVERED_SINCE_NEXT_START;
use crate::log::disk::{DirectoryError, Disk, boot_id};
use crate::log::mend::resume;
use crate::log::reader::{LogError, Present, Reader};
use crate::log::segment::Secrets;
use crate::log::storage::Storage;
use crate::log::writer::{Fsync, Log, LogConfig};

/// How often the same thing that failed is said at most.
const COMPLAINT_EVERY: Duration = Duration::from_mins(1);

/// Where the log is, and how it is kept.
#[derive(Clone, Debug)]
pub struct DataConfig {
    /// The data directory.
    pub path: PathBuf,
    /// When changes are synced.
    pub fsync: Fsync,
    /// Whether what is damaged is left out.
    pub recovers: bool,
    /// Whether the log is a copy that was made some time ago.
    pub is_copy: bool,
    /// Bytes of a segment.
    pub segment_bytes: u64,
    /// The log's identity if it is a new one, and this run of the machine where the system does not say.
    pub random: [u8; 16],
    /// Where the secrets of segments come from.
    pub secrets: Secrets,
}

/// Why there is no log to go on with.
#[derive(Debug, Error)]
pub enum KeeperError {
    /// The directory is not to be used.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// What is in it cannot be read.
    #[error("{directory}", directory = directory.display())]
    Log {
        /// The data directory.
        directory: PathBuf,
        /// Why.
        source: LogError,
    },
    /// It cannot be written.
    #[error("{directory}: cannot write to the log", directory = directory.display())]
    Write {
        /// The data directory.
        directory: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// A data directory that is about to be read.
#[derive(Debug)]
pub(super) struct Unread {
    config: DataConfig,
    storage: Arc<dyn Storage>,
    boot: [u8; 16],
    reader: Reader,
}

/// The threads that keep a log.
#[derive(Debug)]
pub(super) struct Keeper {
    shared: Arc<Shared>,
    /// In the order in which they end: what compacts waits for what syncs.
    threads: [Tending; 2],
}

/// A thread, and what tells it to end.
#[derive(Debug)]
struct Tending {
    is_stopping: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Unread {
    /// Takes the directory and looks through it. The clock goes on from the moment that the log knows, if that is
    /// later than its own.
    pub(super) fn open(config: &DataConfig, clock: &mut Clock) -> Result<Self, KeeperError> {
        let storage: Arc<dyn Storage> = Arc::new(Disk::take(&config.path)?);
        let boot = boot_id(config.random);
        let present = Present {
            now: clock.read().now,
            boot,
            recovers: config.recovers,
            is_copy: config.is_copy,
        };
        let reader =
            Reader::open(Arc::clone(&storage), present).map_err(|source| KeeperError::Log {
                directory: config.path.clone(),
                source,
            })?;
        let known = reader.present().now;
        let behind_ms = known.since(present.now);
        if behind_ms > CLOCK_BEHIND_MS {
            tracing::warn!(
                behind_ms,
                "the system's clock is behind the last run's: the server's goes on from there; moments that \
                 clients name, and are told, are converted"
            );
        }
        clock.go_on_from(known);
        Ok(Self {
            config: config.clone(),
            storage,
            boot,
            reader,
        })
    }

    /// Reads the log into the engine and goes on writing it; `None` if that was given up because the server
    /// is to stop.
    pub(super) fn read(
        self,
        shared: &Arc<Shared>,
        threads: usize,
        is_stopping: &Arc<AtomicBool>,
    ) -> Result<Option<Keeper>, KeeperError> {
        let Self {
            config,
            storage,
            boot,
            reader,
        } = self;
        let directory = || config.path.clone();
        let now = shared.clock.read().now;
        let began = Instant::now();
        let last_told = Cell::new(began);
        let bytes_total = reader.bytes_total();
        let restored = shared
            .engine
            .restore(reader, Excess::Evicted, threads, |progress| {
                if last_told.get().elapsed() >= Duration::from_secs(1) {
                    last_told.set(Instant::now());
                    let percent = progress.bytes * 100 / progress.bytes_total.max(1);
                    tracing::info!(percent, records = progress.records, "reading the log");
                }
                shared.tell_progress(progress);
                !is_stopping.load(Ordering::Relaxed)
            })
            .map_err(|source| KeeperError::Log {
                directory: directory(),
                source,
            })?;
        let Some(mut restored) = restored else {
            return Ok(None);
        };
        shared.tell_progress(&Progress {
            bytes: bytes_total,
            bytes_total,
            records: restored.records,
        });
        report(&restored, began, shared);
        let cannot_write = |source| KeeperError::Write {
            directory: directory(),
            source,
        };
        if restored.findings.segments.is_empty() {
            restored.start.log = config.random;
        }
        let limits = shared.engine.limits();
        let log_config = LogConfig {
            fsync: config.fsync,
            segment_bytes: config.segment_bytes,
            frame_bytes_max: largest_frame(limits.request_bytes_max, limits.key_bytes_max),
            boot,
            secrets: config.secrets.clone(),
        };
        let Restored {
            findings, start, ..
        } = restored;
        let log = resume(&storage, &findings, log_config, start, now).map_err(cannot_write)?;
        let log = shared.engine.attach(log);
        for worker in 0..shared.signals.len() {
            let shared = Arc::downgrade(shared);
            log.listen(move || {
                if let Some(shared) = shared.upgrade() {
                    shared.signals[worker].tell();
                }
            });
        }
        Keeper::start(shared).map(Some).map_err(cannot_write)
    }
}

/// Says what was read, and what was lost.
fn report(restored: &Restored, began: Instant, shared: &Shared) {
    let findings = &restored.findings;
    if let Some(tail) = &findings.tail {
        tracing::warn!(
            file = tail.name,
            offset = tail.offset,
            bytes = tail.bytes,
            "cut off what was being written when the log ended"
        );
    }
    for loss in &findings.losses {
        tracing::warn!(
            file = loss.name,
            offset = loss.offset,
            bytes = loss.bytes,
            "left out damage"
        );
        if loss.unproven > 0 {
            tracing::warn!(
                file = loss.name,
                frames = loss.unproven,
                "left out what looks whole behind it, too: in format 1 anybody may have stored that"
            );
        }
    }
    for name in &findings.missing {
        tracing::warn!(file = name, "went on without a segment that is missing");
    }
    if restored.is_uncertain {
        tracing::warn!(
            "changes may be missing that were acknowledged: answers are unsure until each key's window has passed"
        );
    }
    let seconds = began.elapsed().as_secs_f64();
    tracing::info!(
        records = restored.records,
        keys = shared.engine.totals().keys,
        bytes = findings.bytes,
        seconds = format!("{seconds:.3}"),
        keys_per_second = format!("{:.0}", restored.records as f64 / seconds.max(1e-9)),
        "read the log"
    );
}

impl Keeper {
    fn start(shared: &Arc<Shared>) -> io::Result<Self> {
        Ok(Self {
            shared: Arc::clone(shared),
            threads: [
                Tending::start(shared, "onced-log-tend", tend)?,
                Tending::start(shared, "onced-log-sync", sync)?,
            ],
        })
    }

    /// Ends the threads and the log.
    pub(super) fn stop(self) {
        let Some(log) = self.shared.engine.log() else {
            return;
        };
        for Tending {
            is_stopping,
            thread,
        } in self.threads
        {
            is_stopping.store(true, Ordering::Relaxed);
            log.want_sync();
            let _its_panic_was_told = thread.join();
        }
        if self.shared.faults.first().is_some() {
            // What it left half done is for a start to look at: the log does not say that it ended in order.
            return;
        }
        tell_doubt_at_the_end(&self.shared, log);
        if let Err(error) = log.close(self.shared.clock.read().now) {
            tracing::error!(%error, "the log could not be closed in order");
        }
    }
}

impl Tending {
    fn start(
        shared: &Arc<Shared>,
        name: &str,
        work: fn(&Shared, &Log, &AtomicBool),
    ) -> io::Result<Self> {
        let is_stopping = Arc::new(AtomicBool::new(false));
        let (shared, told) = (Arc::clone(shared), Arc::clone(&is_stopping));
        let faults = Arc::clone(&shared.faults);
        let thread = threads::spawn(name, &faults, move || {
            if let Some(log) = shared.engine.log() {
                work(&shared, log, &told);
            }
        })?;
        Ok(Self {
            is_stopping,
            thread,
        })
    }
}

/// Syncs the log until the server stops.
fn sync(shared: &Shared, log: &Log, is_stopping: &AtomicBool) {
    let every = Duration::from_millis(LOG_SYNC_EVERY_MS);
    let mut began = Instant::now();
    while !is_stopping.load(Ordering::Relaxed) {
        // From beginning to beginning: what is written in between is synced within that and the time of one.
        let is_wanted = log.wait_wanted(every.saturating_sub(began.elapsed()));
        began = Instant::now();
        if is_wanted || log.fsync() != Fsync::Never {
            while log.sync(shared.clock.read().now) && log.fsync() == Fsync::Always {}
        }
    }
}

/// Prepares, deletes and compacts segments until the server stops.
fn tend(shared: &Shared, log: &Log, is_stopping: &AtomicBool) {
    let pause = Duration::from_millis(LOG_RETRY_MS);
    let mut compactor = Compactor::new(LOG_DEAD_BYTES_MAX);
    compactor.prepare(log);
    let (mut undeleted, mut uncompacted) = (Rarely::default(), Rarely::default());
    let mut doubt = Doubt::default();
    while !is_stopping.load(Ordering::Relaxed) {
        doubt.look(shared, log);
        let now = shared.clock.read().now;
        if let Err(error) = log.tend(now)
            && undeleted.is_news(&error)
        {
            tracing::warn!(%error, "cannot delete a segment of the log; it will be tried again");
        }
        let keys = shared.engine.totals().keys;
        let step = compactor.step(log, keys, now, |space, records, alive| {
            shared.engine.survive(space, records, alive, now);
        });
        match step {
            // It goes on, but not at the cost of others.
            Ok(true) => thread::sleep(Duration::from_millis(1)),
            Ok(false) => thread::sleep(pause),
            Err(error) => {
                if uncompacted.is_news(&error) {
                    tracing::warn!(%error, "cannot compact the log; it will be tried again");
                }
                thread::sleep(pause);
            }
        }
    }
}

/// Notices that the wall clock was behind when the server started, and has it in the log before the server
/// is killed: windows that were begun since end too early by the clock of the next run.
#[derive(Debug, Default)]
struct Doubt {
    looked: Option<Instant>,
    is_logged: bool,
}

impl Doubt {
    fn look(&mut self, shared: &Shared, log: &Log) {
        let every = Duration::from_millis(CLOCK_LOOK_EVERY_MS);
        if self.is_logged || self.looked.is_some_and(|looked| looked.elapsed() < every) {
            return;
        }
        self.looked = Some(Instant::now());
        if !shared.clock.is_behind() && !shared.was_clock_behind.load(Ordering::Relaxed) {
            return;
        }
        if !shared.was_clock_behind.swap(true, Ordering::Relaxed) {
            let ahead_ms = shared.clock.latest().since(shared.clock.read().now);
            tracing::warn!(
                ahead_ms,
                "the system's clock is ahead of what it said at the start: answers of the next run are \
                 unsure until each key's window has passed; start again soon"
            );
        }
        // Where there is no space, it is tried again.
        self.is_logged = log.append_covered(COVERED_SINCE_NEXT_START);
    }
}

/// Says in a log that is about to end in order from when on the next run may be sure.
fn tell_doubt_at_the_end(shared: &Shared, log: &Log) {
    let clock = &shared.clock;
    if !clock.is_behind() && !shared.was_clock_behind.load(Ordering::Relaxed) {
        return;
    }
    if !log.append_covered(clock.latest().after(1)) {
        tracing::error!(
            "no space to say in the log that the clock was behind: keys that were seen in this run may be \
             new too early in the next"
        );
    }
}

/// What is tried again and again is not complained of each time.
#[derive(Debug, Default)]
struct Rarely {
    said: Option<(String, Instant)>,
}

impl Rarely {
    /// Whether this was not said in the last [`COMPLAINT_EVERY`].
    fn is_news(&mut self, error: &io::Error) -> bool {
        let error = error.to_string();
        let is_known =
            |(said, at): &(String, Instant)| *said == error && at.elapsed() < COMPLAINT_EVERY;
        if self.said.as_ref().is_some_and(is_known) {
            return false;
        }
        self.said = Some((error, Instant::now()));
        true
    }
}
