//! Who waits for what becomes of a record.
//!
//! A request that is to wait takes a place in the line of its key, under the lock under which it
//! found that it has to: so whoever changes the record afterwards sees it there. A change wakes
//! those whom it may concern, and each asks again for itself. So all changes are made by who asks for
//! them, and a place that is given up, however that comes, costs nobody else theirs.
//!
//! Work is begun in the order of arrival: while there is a line, only its first may begin. Of those
//! who wait to begin only the first looks when the lease lapses; who becomes the first is woken.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::Waker;

use dashmap::DashMap;

use super::{Budget, Namespace};
use crate::time::Millis;

/// All who wait.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    lines: DashMap<LineOf, Line>,
    count: AtomicUsize,
    last: AtomicU64,
    /// How many found no place.
    refused: AtomicU64,
}

/// Which key a line is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct LineOf {
    namespace: u64,
    key: Arc<[u8]>,
}

/// Bytes that a place in the line of this key takes: here, in its line and in the map of lines.
fn place_bytes(key: &[u8]) -> isize {
    const BESIDE_KEY: usize = 512;
    (BESIDE_KEY + key.len()) as isize
}

/// Those who wait for one key, in the order of arrival.
#[derive(Debug, Default)]
struct Line {
    to_begin: BTreeMap<u64, Waiting>,
    to_hear: BTreeMap<u64, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    waker: Waker,
    is_woken: Arc<AtomicBool>,
}

impl Waiting {
    fn wake(&self) {
        self.is_woken.store(true, Ordering::Release);
        self.waker.wake_by_ref();
    }
}

/// What somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To begin the work, or to hear what came of it.
    Begin,
    /// Only to hear; this is the token of who is at work.
    Hear {
        /// Another one means that the work was given up.
        token: u64,
    },
}

/// A place in a line; given up when dropped.
#[derive(Debug)]
pub struct Place {
    waiters: Arc<Waiters>,
    budget: Arc<Budget>,
    line: LineOf,
    number: u64,
    purpose: Purpose,
    is_woken: Arc<AtomicBool>,
    /// When the waiting ends, whatever becomes of the record.
    until: Millis,
    /// When to ask again, unless woken before.
    wake_at: Millis,
    /// The last millisecond of the lease that is waited for.
    lease_end: Millis,
}

/// Whom a change concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Concerns {
    /// All: the work is settled.
    All,
    /// Those who only want to hear, and the first of those who would begin.
    Next,
}

impl Waiters {
    /// How many wait.
    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// How many found no place, since the start.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Whether somebody came earlier than who has this place, or than who has none.
    pub(super) fn is_behind(
        &self,
        namespace: &Namespace,
        key: &[u8],
        place: Option<&Place>,
    ) -> bool {
        if self.count() == 0 {
            return false;
        }
        let first = self.lines.get(&LineOf::new(namespace, key));
        let first = first.and_then(|line| line.to_begin.keys().next().copied());
        first.is_some_and(|first| place.is_none_or(|place| place.number != first))
    }

    /// Takes a place at the end of a line; `None` if so many wait already, or there is no memory for it.
    pub(super) fn join(
        self: &Arc<Self>,
        budget: &Arc<Budget>,
        namespace: &Namespace,
        key: &[u8],
        (purpose, waker): (Purpose, &Waker),
        (until, max): (Millis, usize),
    ) -> Option<Place> {
        let bytes = place_bytes(key);
        if !budget.admits(bytes) {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        if self.count.fetch_add(1, Ordering::Relaxed) >= max {
            self.count.fetch_sub(1, Ordering::Relaxed);
            self.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        budget.change(bytes);
        let place = Place {
            waiters: Arc::clone(self),
            budget: Arc::clone(budget),
            line: LineOf::new(namespace, key),
            number: self.last.fetch_add(1, Ordering::Relaxed),
            purpose,
            is_woken: Arc::default(),
            until,
            wake_at: until,
            lease_end: until,
        };
        let waiting = Waiting {
            waker: waker.clone(),
            is_woken: Arc::clone(&place.is_woken),
        };
        let mut line = self.lines.entry(place.line.clone()).or_default();
        let same = match purpose {
            Purpose::Begin => &mut line.to_begin,
            Purpose::Hear { .. } => &mut line.to_hear,
        };
        same.insert(place.number, waiting);
        drop(line);
        Some(place)
    }

    /// Wakes whom a change of this key concerns.
    #[inline]
    pub(super) fn wake(&self, namespace: &Namespace, key: &[u8], concerns: Concerns) {
        if self.count() > 0
            && let Some(line) = self.lines.get(&LineOf::new(namespace, key))
        {
            line.wake(concerns);
        }
    }

    /// Wakes all who wait in a namespace: its records are gone.
    pub(super) fn wake_all(&self, namespace: &Namespace) {
        if self.count() > 0 {
            for line in &self.lines {
                if line.key().namespace == namespace.id() {
                    line.wake(Concerns::All);
                }
            }
        }
    }
}

impl LineOf {
    fn new(namespace: &Namespace, key: &[u8]) -> Self {
        Self {
            namespace: namespace.id(),
            key: key.into(),
        }
    }
}

impl Line {
    fn wake(&self, concerns: Concerns) {
        let begins = match concerns {
            Concerns::All => usize::MAX,
            Concerns::Next => 1,
        };
        let begins = self.to_begin.values().take(begins);
        for waiting in self.to_hear.values().chain(begins) {
            waiting.wake();
        }
    }
}

impl Place {
    /// What it is held for.
    pub fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// When to ask again, unless woken before.
    pub fn wake_at(&self) -> Millis {
        self.wake_at
    }

    /// Whether to ask again now.
    pub fn is_due(&self, now: Millis) -> bool {
        now >= self.wake_at || self.is_woken.load(Ordering::Acquire)
    }

    /// When the waiting ends.
    pub(super) fn until(&self) -> Millis {
        self.until
    }

    /// How long to wait before it is worth to ask again, for who gives up; in milliseconds.
    pub(super) fn retry_ms(&self, now: Millis) -> u64 {
        self.lease_end.since(now) + 1
    }

    /// Whether it is in the line of this key.
    pub(super) fn is_for(&self, namespace: &Namespace, key: &[u8]) -> bool {
        self.line.namespace == namespace.id() && *self.line.key == *key
    }

    /// Is about to look: whatever happens from here on wakes it again.
    pub(super) fn look(&self) {
        self.is_woken.swap(false, Ordering::AcqRel);
    }

    /// Goes on waiting, for a lease with this end.
    pub(super) fn stay(&mut self, lease_end: Millis, is_behind: bool) {
        self.lease_end = lease_end;
        // Who becomes the first is woken.
        self.wake_at = if is_behind {
            self.until
        } else {
            self.until.min(lease_end.after(1))
        };
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Self {
            waiters,
            budget,
            line,
            number,
            ..
        } = self;
        if let Some(mut found) = waiters.lines.get_mut(line) {
            let was_first = found.to_begin.keys().next() == Some(number);
            found.to_begin.remove(number);
            found.to_hear.remove(number);
            if was_first && let Some(next) = found.to_begin.values().next() {
                next.wake();
            }
        }
        waiters.lines.remove_if(line, |_, line| {
            line.to_begin.is_empty() && line.to_hear.is_empty()
        });
        waiters.count.fetch_sub(1, Ordering::Relaxed);
        budget.change(-place_bytes(&line.key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Begin, Command, Reply, Single, Ttl};
    use crate::engine::{Engine, EngineConfig, Session, Wait};

    const LEASE_MS: u64 = 1_000;
    const WAIT_MS: u64 = 10_000;

    /// A caller with its place in line.
    struct Caller {
        session: Session,
        place: Option<Place>,
    }

    impl Caller {
        fn new(engine: &Engine) -> Self {
            let session = engine.session();
            let place = None;
            Self { session, place }
        }

        /// `RUN` with its token, `BUSY`, or nothing yet.
        fn begin(&mut self, engine: &Engine, wait_ms: u64, now: u64) -> Option<Result<u64, u64>> {
            let begin = Command::Begin(Begin {
                at: Single {
                    key: b"k",
                    namespace: None,
                },
                lease_ms: LEASE_MS,
                ttl: Ttl::Default,
                fingerprint: None,
                owner: None,
                wait_ms,
            });
            let wait = Wait {
                place: &mut self.place,
                waker: Waker::noop(),
            };
            match engine.execute_or_wait(&mut self.session, &begin, wait, Millis(now))? {
                Reply::Figures("RUN", [Some(token), ..]) => Some(Ok(token.cast_unsigned())),
                Reply::Figures("BUSY", [Some(ms), ..]) => Some(Err(ms.cast_unsigned())),
                other => panic!("{other:?}"),
            }
        }

        fn is_due(&self, now: u64) -> bool {
            self.place
                .as_ref()
                .is_some_and(|place| place.is_due(Millis(now)))
        }
    }

    fn callers<const N: usize>(engine: &Engine) -> [Caller; N] {
        std::array::from_fn(|_| Caller::new(engine))
    }

    #[test]
    fn who_comes_later_is_not_told_to_run_before_who_waits() {
        let engine = Engine::new(EngineConfig::default());
        let [mut holder, mut first, mut second, mut late] = callers(&engine);
        let namespace = engine.session().namespace().clone();
        let token = holder.begin(&engine, 0, 0).unwrap().unwrap();
        assert_eq!(first.begin(&engine, WAIT_MS, 1), None);
        assert_eq!(second.begin(&engine, WAIT_MS, 2), None);
        assert!(!first.is_due(3) && !second.is_due(3));
        engine.release(&namespace, b"k", token, Millis(3));
        assert!(first.is_due(3) && !second.is_due(3));
        // Neither one that would take what it gets, nor one that would wait.
        assert_eq!(late.begin(&engine, 0, 4), Some(Err(1)));
        assert_eq!(late.begin(&engine, WAIT_MS, 4), None);
        assert_eq!(second.begin(&engine, WAIT_MS, 4), None);
        let token = first.begin(&engine, WAIT_MS, 5).unwrap().unwrap();
        // It left the line, so the next one is the first and looks when the lease ends.
        assert!(second.is_due(5) && !late.is_due(5));
        assert_eq!(second.begin(&engine, WAIT_MS, 5), None);
        assert!(!second.is_due(5 + LEASE_MS) && second.is_due(6 + LEASE_MS));
        let next = second.begin(&engine, WAIT_MS, 6 + LEASE_MS).unwrap();
        assert!(next.unwrap() > token);
        assert_eq!(engine.waiting(), 1);
    }

    #[test]
    fn a_place_that_is_given_up_is_the_next_ones() {
        let engine = Engine::new(EngineConfig::default());
        let [mut holder, mut first, mut second] = callers(&engine);
        let namespace = engine.session().namespace().clone();
        let token = holder.begin(&engine, 0, 0).unwrap().unwrap();
        assert_eq!(first.begin(&engine, WAIT_MS, 1), None);
        assert_eq!(second.begin(&engine, WAIT_MS, 2), None);
        engine.release(&namespace, b"k", token, Millis(3));
        // It was woken, and dies before it looks.
        drop(first);
        assert!(second.is_due(3));
        assert!(second.begin(&engine, WAIT_MS, 3).unwrap().is_ok());
        assert_eq!(engine.waiting(), 0);
    }

    #[test]
    fn a_wait_ends_in_its_time_whatever_happens_to_the_lease() {
        let engine = Engine::new(EngineConfig::default());
        let [mut holder, mut waiter] = callers(&engine);
        let namespace = engine.session().namespace().clone();
        let token = holder.begin(&engine, 0, 0).unwrap().unwrap();
        assert_eq!(waiter.begin(&engine, 1_500, 100), None);
        engine.renew(&namespace, b"k", (token, None), Millis(900));
        assert!(
            waiter.is_due(1_001),
            "it looks when the lease ended at first"
        );
        assert_eq!(waiter.begin(&engine, 1_500, 1_001), None);
        assert!(!waiter.is_due(1_599) && waiter.is_due(1_600));
        assert_eq!(waiter.begin(&engine, 1_500, 1_600), Some(Err(301)));
        assert_eq!(engine.waiting(), 0);
    }
}
