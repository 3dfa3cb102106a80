//! Replies that wait for the log: who waits on a worker, and how it is woken.
//!
//! The log tells each worker once whenever more is acknowledged; the worker then wakes those of its
//! connections whose turn that is. So a sync that sets fifty replies free costs one wake-up from thread
//! to thread and fifty cheap ones.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::task::Waker;

use tokio::sync::Notify;

use super::shared::Shared;
use crate::log::writer::{Health, Log};

thread_local! {
    /// This worker's connections that wait, each until so much is durable or acknowledged.
    static WAITING: RefCell<Vec<Wait>> = const { RefCell::new(Vec::new()) };
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
        self.is_good(log) || log.health() == Health::Failed
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
        WAITING.with_borrow_mut(|waiting| {
            waiting.push(Wait {
                rest,
                waker: waker.clone(),
            });
        });
        false
    }
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
        let still_waiting = WAITING.with_borrow_mut(|waiting| {
            waiting.retain(|wait| {
                let is_settled = wait.rest.is_settled(log);
                if is_settled {
                    wait.waker.wake_by_ref();
                }
                !is_settled
            });
            !waiting.is_empty()
        });
        if still_waiting {
            signal.is_awaited.store(true, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            // What was acknowledged in between was told to nobody.
            if WAITING.with_borrow(|waiting| waiting.iter().any(|wait| wait.rest.is_settled(log))) {
                signal.told.notify_one();
            }
        }
    }
}
