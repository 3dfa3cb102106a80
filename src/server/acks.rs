//! Replies that wait for the log: who waits on a worker, and how it is woken.
//!
//! A worker has the log written once for all that its connections changed in a turn: when none of
//! them can go on ([`end_turn`]), or after so many that the first ones have waited long enough. The log
//! tells each worker once whenever more is acknowledged; the worker then wakes those of its connections
//! whose turn that is. So a write or a sync that sets fifty replies free is asked for once, and costs at
//! most one wake-up from thread to thread and fifty cheap ones.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::task::Waker;

use tokio::sync::Notify;

use super::shared::Shared;
use crate::log::writer::Log;

/// Executions of one worker that may share a write: more would hardly make it cheaper, and the first
/// of them wait meanwhile.
const EXECUTIONS_PER_WRITE: u32 = 64;

thread_local! {
    /// This worker's connections that wait, each until so much is durable or acknowledged.
    static WAITING: RefCell<Vec<Wait>> = const { RefCell::new(Vec::new()) };
    /// Executions of this worker since it last had the log written; not 0 where anybody waits since then.
    static UNWRITTEN: Cell<u32> = const { Cell::new(0) };
}

/// What a reply rests on.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rest {
    /// The log's position.
    pub(super) position: u64,
    /// Whether it must be durable, whatever the policy.
    pub(super) is_synced: bool,
}

struct Wait {
    rest: Rest,
    waker: Waker,
}

/// How the log reaches a worker.
#[derive(Debug, Default)]
pub(super) struct Signal {
    told: Notify,
    /// Whether anybody waits there.
    is_awaited: AtomicBool,
}

impl Rest {
    /// Whether a reply that rests on this may be sent, or never will be in good faith.
    #[inline]
    pub(super) fn is_settled(self, log: &Log) -> bool {
        self.is_good(log) || log.has_doubts()
    }

    /// Whether it may be sent.
    #[inline]
    pub(super) fn is_good(self, log: &Log) -> bool {
        let reached = if self.is_synced {
            log.synced()
        } else {
            log.acknowledged()
        };
        reached >= self.position
    }
}

impl Signal {
    /// For the log's threads: something was acknowledged, or the log failed.
    pub(super) fn tell(&self) {
        fence(Ordering::SeqCst);
        if self.is_awaited.load(Ordering::Relaxed) {
            self.told.notify_one();
        }
    }

    /// Has this worker's connection woken once its reply can be dealt with. True if that is now.
    pub(super) fn wait(&self, rest: Rest, log: &Log, waker: &Waker) -> bool {
        self.is_awaited.store(true, Ordering::Relaxed);
        // Either this sees what was acknowledged, or the log sees that somebody waits.
        fence(Ordering::SeqCst);
        if rest.is_settled(log) {
            return true;
        }
        // Nobody tells of what another worker has written, but this one sees it at its turn's end.
        UNWRITTEN.set(UNWRITTEN.get().max(1));
        WAITING.with_borrow_mut(|waiting| {
            waiting.push(Wait {
                rest,
                waker: waker.clone(),
            });
        });
        false
    }
}

/// Has the log written before long, with what else this worker does in this turn: a reply rests on it.
#[inline]
pub(super) fn write_soon(shared: &Shared, worker: usize) {
    UNWRITTEN.set(UNWRITTEN.get() + 1);
    // One that always has something to read could make a turn last for ever.
    if UNWRITTEN.get() >= EXECUTIONS_PER_WRITE {
        end_turn(shared, worker);
    }
}

/// Has the log written if any of this worker's replies waits for that, and wakes whom that sets free.
pub(super) fn end_turn(shared: &Shared, worker: usize) {
    if UNWRITTEN.replace(0) > 0
        && let Some(log) = shared.engine.log()
    {
        log.write(shared.clock.read().now);
        if !wake_settled(log) {
            shared.signals[worker]
                .is_awaited
                .store(false, Ordering::Relaxed);
        }
    }
}

/// Wakes this worker's connections whose turn it is; returns whether any are left.
fn wake_settled(log: &Log) -> bool {
    WAITING.with_borrow_mut(|waiting| {
        waiting.retain(|wait| {
            let is_settled = wait.rest.is_settled(log);
            if is_settled {
                wait.waker.wake_by_ref();
            }
            !is_settled
        });
        !waiting.is_empty()
    })
}

/// Whether any of this worker's connections waits for a sync whatever the policy.
fn is_sync_awaited() -> bool {
    WAITING.with_borrow(|waiting| waiting.iter().any(|wait| wait.rest.is_synced))
}

/// Wakes this worker's connections as the log gets on; never ends.
pub(super) async fn wake(shared: &Shared, worker: usize) {
    let signal = &shared.signals[worker];
    loop {
        signal.told.notified().await;
        let Some(log) = shared.engine.log() else {
            continue;
        };
        signal.is_awaited.store(false, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if wake_settled(log) {
            signal.is_awaited.store(true, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            // What was acknowledged in between was told to nobody.
            if wake_settled(log) && is_sync_awaited() {
                // The last one may have found no space to write to what they wait for.
                log.want_sync();
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;
    use crate::engine::{Engine, EngineConfig};
    use crate::log::disk::Disk;
    use crate::log::segment::Secrets;
    use crate::log::writer::{Fsync, LogConfig, Start};
    use crate::server::clock::Clock;
    use crate::time::Millis;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A worker with a log, and a change of `default` that is not written yet.
    pub(in crate::server) fn worker(name: &str) -> (Shared, Rest) {
        let path = std::env::temp_dir().join(format!("onced-acks-{name}-{}", std::process::id()));
        let config = LogConfig {
            fsync: Fsync::EverySec,
            segment_bytes: 1 << 20,
            frame_bytes_max: 1 << 10,
            boot: [0; 16],
            secrets: Secrets::new(|| Ok([1; 16])),
        };
        let disk = Arc::new(Disk::take(&path).unwrap());
        let log = Log::start(disk, config, Start::default(), Millis(0)).unwrap();
        fs::remove_dir_all(path).unwrap();
        let engine = Engine::new(EngineConfig::default());
        let log = engine.attach(log);
        assert!(log.append_dropped(1, Millis(0)));
        let rest = Rest {
            position: log.appended(),
            is_synced: false,
        };
        let shared = Shared::new(engine, Clock::start(), Vec::new(), 0, 1);
        (shared, rest)
    }

    /// Has a connection wait that rests on this, and returns what counts its being woken.
    fn wait(shared: &Shared, rest: Rest) -> Arc<Woken> {
        let woken = Arc::new(Woken::default());
        let log = shared.engine.log().unwrap();
        let is_ready = shared.signals[0].wait(rest, log, &Arc::clone(&woken).into());
        assert!(!is_ready, "nothing is written yet");
        woken
    }

    #[test]
    fn a_turn_is_written_at_its_end() {
        let (shared, rest) = worker("end");
        let log = shared.engine.log().unwrap();
        end_turn(&shared, 0);
        assert_eq!(log.acknowledged(), 0, "nobody asked for it");
        write_soon(&shared, 0);
        let woken = wait(&shared, rest);
        assert_eq!(log.acknowledged(), 0);
        end_turn(&shared, 0);
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        assert!(rest.is_good(log));
    }

    /// One that waits until others' changes are written may have none of its own.
    #[test]
    fn what_another_worker_has_written_is_seen_at_the_end_of_a_turn() {
        let (shared, rest) = worker("other");
        let woken = wait(&shared, rest);
        shared.engine.log().unwrap().write(Millis(0));
        assert_eq!(woken.0.load(Ordering::Relaxed), 0);
        end_turn(&shared, 0);
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_turn_that_does_not_end_is_written_all_the_same() {
        let (shared, rest) = worker("endless");
        let woken = wait(&shared, rest);
        // Who waits has executed something.
        for _ in 2..EXECUTIONS_PER_WRITE {
            write_soon(&shared, 0);
        }
        assert_eq!(woken.0.load(Ordering::Relaxed), 0);
        write_soon(&shared, 0);
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    }
}
