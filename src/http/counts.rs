//! What happened to the requests of a layer, counted, and how many are being handled.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

/// How many requests ended in which way, since the layer was made. Requests that the layer passed on
/// without looking at them are not among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Were handled, and their response was stored.
    pub fresh: u64,
    /// Got the stored response of an earlier one.
    pub replayed: u64,
    /// Were handled, and their response was not stored: the key is free for a retry.
    pub released: u64,
    /// Were told that another is being handled, or took over before they had been (409).
    pub busy: u64,
    /// Came with the key of another request (422).
    pub mismatched: u64,
    /// Had no key, or one that is none, were from nobody or too large (400, 403, 413).
    pub refused: u64,
    /// Were refused since onced was down (503).
    pub failed_closed: u64,
    /// Were refused since onced refuses what the layer asks for, such as a lease over its limit (500).
    pub misconfigured: u64,
    /// Were handled without protection since onced was down.
    pub failed_open: u64,
    /// Were handled, and their response could not be stored: a retry may be handled again, or was.
    pub not_stored: u64,
    /// Of those whose response was stored: without its body, which was too large.
    pub body_omitted: u64,
}

/// One of the [`Counts`].
#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    Fresh,
    Replayed,
    Released,
    Busy,
    Mismatched,
    Refused,
    FailedClosed,
    Misconfigured,
    FailedOpen,
    NotStored,
    BodyOmitted,
}

/// How many events there are.
const EVENTS: usize = Event::BodyOmitted as usize + 1;

/// The counters of a layer and all its clones.
#[derive(Debug)]
pub(super) struct Counters {
    events: [AtomicU64; EVENTS],
    under_way: watch::Sender<usize>,
}

impl Counters {
    pub(super) fn new() -> Self {
        Self {
            events: [const { AtomicU64::new(0) }; EVENTS],
            under_way: watch::Sender::new(0),
        }
    }

    pub(super) fn add(&self, event: Event) {
        self.events[event as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> Counts {
        let of = |event: Event| self.events[event as usize].load(Ordering::Relaxed);
        Counts {
            fresh: of(Event::Fresh),
            replayed: of(Event::Replayed),
            released: of(Event::Released),
            busy: of(Event::Busy),
            mismatched: of(Event::Mismatched),
            refused: of(Event::Refused),
            failed_closed: of(Event::FailedClosed),
            misconfigured: of(Event::Misconfigured),
            failed_open: of(Event::FailedOpen),
            not_stored: of(Event::NotStored),
            body_omitted: of(Event::BodyOmitted),
        }
    }

    /// Counts one that is being handled, until the answer is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> UnderWay {
        self.under_way.send_modify(|count| *count += 1);
        UnderWay(Arc::clone(self))
    }

    /// Returns once none is being handled.
    pub(super) async fn idle(&self) {
        let mut watched = self.under_way.subscribe();
        let _the_sender_is_ours = watched.wait_for(|count| *count == 0).await;
    }
}

/// One that is being handled.
pub(super) struct UnderWay(Arc<Counters>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.send_modify(|count| *count -= 1);
    }
}
