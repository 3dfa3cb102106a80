//! Room for one long request per worker, whatever memory is left.
//!
//! The bytes of a request that has not come whole are counted with those of keys, and keys may have
//! taken all there is. Then only one connection of a worker at a time goes on reading a request
//! that is longer than a few KiB; the others wait, and nothing is read from them meanwhile. Who has
//! the room gives it up once its request is executed. Who is slow loses it to those who wait.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::time::Instant;

use crate::limits::INTAKE_MS;

/// How long to wait for a room that was lost, before looking again.
const AGAIN: Duration = Duration::from_millis(100);

/// Who has the room of a worker, and behind it who waits for it.
#[derive(Debug, Default)]
struct Line {
    numbers: u64,
    askers: VecDeque<(u64, Waker)>,
    /// Since when the first one has the room; one that was woken has it once it asks.
    since: Option<Instant>,
    /// Whether somebody has waited for the first one for too long.
    is_late: bool,
}

thread_local! {
    static LINE: RefCell<Line> = RefCell::default();
}

/// A connection's right to the room, or its place among those who wait. It is given up with this.
#[derive(Debug, Default)]
pub(super) struct Intake {
    number: Option<u64>,
}

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The connection may go on reading.
    Room,
    /// It had the room for long, and others wait: its request is to be refused.
    Late,
    /// Another has it. The connection is woken when it gets it, and is to ask again at this moment.
    Taken(Instant),
}

impl Intake {
    /// Takes the room if it is free.
    pub(super) fn ask(&mut self, cx: &Context<'_>, now: Instant) -> Found {
        LINE.with_borrow_mut(|line| {
            let number = *self.number.get_or_insert_with(|| {
                line.numbers += 1;
                line.numbers
            });
            line.ask(number, cx.waker(), now)
        })
    }

    pub(super) fn give_up(&mut self) {
        if let Some(number) = self.number.take() {
            LINE.with_borrow_mut(|line| line.leave(number));
        }
    }
}

impl Drop for Intake {
    fn drop(&mut self) {
        self.give_up();
    }
}

impl Line {
    fn place_of(&self, number: u64) -> Option<usize> {
        self.askers.iter().position(|(asker, _)| *asker == number)
    }

    fn ask(&mut self, number: u64, waker: &Waker, now: Instant) -> Found {
        let at = self.place_of(number);
        match at {
            Some(at) => self.askers[at].1.clone_from(waker),
            None => self.askers.push_back((number, waker.clone())),
        }
        let (first, first_waker) = &self.askers[0];
        if *first == number {
            self.since.get_or_insert(now);
            return if self.is_late {
                Found::Late
            } else {
                Found::Room
            };
        }
        let late = self.since.unwrap_or(now) + Duration::from_millis(INTAKE_MS);
        if late <= now {
            self.is_late = true;
            first_waker.wake_by_ref();
        }
        Found::Taken(late.max(now + AGAIN))
    }

    fn leave(&mut self, number: u64) {
        let Some(at) = self.place_of(number) else {
            return;
        };
        self.askers.remove(at);
        if at == 0 {
            (self.since, self.is_late) = (None, false);
            if let Some((_, next)) = self.askers.front() {
                next.wake_by_ref();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    struct Asker {
        intake: Intake,
        woken: Arc<Woken>,
    }

    impl Asker {
        fn new() -> Self {
            Self {
                intake: Intake::default(),
                woken: Arc::default(),
            }
        }

        fn ask(&mut self, now: Instant) -> Found {
            let waker = Waker::from(Arc::clone(&self.woken));
            self.intake.ask(&Context::from_waker(&waker), now)
        }

        fn times_woken(&self) -> usize {
            self.woken.0.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn one_has_the_room_and_the_others_get_it_in_order() {
        let now = Instant::now();
        let (mut a, mut b, mut c) = (Asker::new(), Asker::new(), Asker::new());
        let late = now + Duration::from_millis(INTAKE_MS);
        assert_eq!(a.ask(now), Found::Room);
        assert_eq!(b.ask(now), Found::Taken(late));
        assert_eq!(c.ask(now), Found::Taken(late));
        assert_eq!(a.ask(now), Found::Room);
        a.intake.give_up();
        assert_eq!((b.times_woken(), c.times_woken()), (1, 0));
        // Who comes now does not get in front of who was woken.
        assert!(matches!(a.ask(now), Found::Taken(_)));
        assert_eq!(b.ask(now), Found::Room);
        drop(c);
        b.intake.give_up();
        assert_eq!(a.times_woken(), 1);
        assert_eq!(a.ask(now), Found::Room);
    }

    #[test]
    fn who_is_late_loses_the_room_to_those_who_wait() {
        let now = Instant::now();
        let (mut a, mut b) = (Asker::new(), Asker::new());
        assert_eq!(a.ask(now), Found::Room);
        let late = now + Duration::from_millis(INTAKE_MS);
        assert_eq!(a.ask(late + AGAIN), Found::Room, "nobody waits");
        assert_eq!(b.ask(late - AGAIN), Found::Taken(late));
        assert_eq!((a.ask(late - AGAIN), a.times_woken()), (Found::Room, 0));
        assert_eq!(b.ask(late), Found::Taken(late + AGAIN));
        assert_eq!((a.ask(late), a.times_woken()), (Found::Late, 1));
        a.intake.give_up();
        assert_eq!(b.times_woken(), 1);
        assert_eq!(b.ask(late), Found::Room);
    }
}
