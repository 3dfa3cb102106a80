//! `onced log compact`: a data directory without what does not count any more.
//!
//! What a server does beside its work, in one go: the log is read into memory as by a start, and each
//! segment is replaced by a copy of what counts.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::available_parallelism;

use anyhow::Context;

use super::look;
use crate::config::segment_secrets;
use crate::engine::{Engine, EngineConfig, Excess};
use crate::limits::{LOG_SEGMENT_BYTES, Limits};
use crate::log::compact::Compactor;
use crate::log::disk::{Disk, boot_id};
use crate::log::mend::resume;
use crate::log::reader::{Present, Reader};
use crate::log::storage::Storage;
use crate::log::writer::{Fsync, LogConfig};
use crate::server::clock::Clock;
use crate::store::Secret;
use crate::store::key::SECRET_BYTES;

/// Give back the disk space of records that do not count any more
///
/// Those of keys whose window has ended, and all but the last of each key. (That a key was removed stays
/// written until its window would have ended.) A server does this
/// by itself once more than half of its log is likely dead; this does it at once, for all of it, with no
/// server running. It takes the memory that a server would take. The directory is locked meanwhile, and
/// readable at every moment: it may be stopped and begun again. A damaged log is refused and left as it
/// is. Exit status 0, 2 if it could not be done.
#[derive(Debug, clap::Args)]
pub(super) struct CompactArgs {
    /// The data directory
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

pub(super) fn run(args: &CompactArgs) -> anyhow::Result<ExitCode> {
    // Not what is empty or not there: nothing is to be made of that.
    look(&args.directory)?;
    let storage: Arc<dyn Storage> = Arc::new(Disk::take(&args.directory)?);
    let mut random = [0; SECRET_BYTES];
    getrandom::fill(&mut random).context("cannot get random bytes")?;
    let now = Clock::start().read().now;
    let boot = boot_id([0; 16]);
    let present = Present {
        now,
        boot,
        recovers: false,
        is_copy: false,
    };
    let engine = Engine::new(EngineConfig {
        secret: Secret::new(random),
        covered_since: now,
        ..EngineConfig::default()
    });
    let threads = available_parallelism().map_or(1, usize::from);
    let reader = Reader::open(Arc::clone(&storage), present)?;
    let before = reader.bytes_total();
    let restored = engine
        .restore(reader, Excess::Kept, threads, |_| true)?
        .expect("it was not told to stop");
    let limits = Limits::DEFAULT;
    let config = LogConfig {
        fsync: Fsync::EverySec,
        segment_bytes: LOG_SEGMENT_BYTES,
        frame_bytes_max: crate::engine::largest_frame(
            limits.request_bytes_max,
            limits.key_bytes_max,
        ),
        boot,
        secrets: segment_secrets(),
    };
    let log = resume(&storage, &restored.findings, config, restored.start, now)
        .context("cannot write to the log")?;
    let log = engine.attach(log);
    // One round, and no other by itself.
    let mut compactor = Compactor::new(u64::MAX);
    compactor.prepare(log);
    compactor.begin(log);
    let keys = engine.totals().keys;
    loop {
        log.sync(now);
        let more = compactor.step(log, keys, now, |space, records, alive| {
            engine.survive(space, records, alive, now);
        });
        if !more.context("cannot compact the log")? {
            break;
        }
    }
    // What was set aside for copies may be what the end needs.
    drop(compactor);
    log.tend(now).context("cannot delete segments")?;
    log.close(now).context("cannot end the log")?;
    writeln!(
        io::stdout(),
        "{}: {keys} keys; {before} bytes before, {} now",
        args.directory.display(),
        log.bytes()
    )?;
    Ok(ExitCode::SUCCESS)
}
