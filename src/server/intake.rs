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

/// Who has the room of a worker, and who waits for it.
#[derive(Debug, Default)]
struct Line {
    numbers: u64,
    holder: Option<Holder>,
    waiting: VecDeque<(u64, Waker)>,
}

#[derive(Debug)]
struct Holder {
    number: u64,
    since: Instant,
    waker: Waker,
    /// Whether somebody has waited for too long.
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
    fn ask(&mut self, number: u64, waker: &Waker, now: Instant) -> Found {
        let is_first = self
            .waiting
            .front()
            .is_none_or(|(first, _)| *first == number);
        match &mut self.holder {
            Some(holder) if holder.number == number => {
                holder.waker.clone_from(waker);
                return if holder.is_late {
                    Found::Late
                } else {
                    Found::Room
                };
            }
            None if is_first => {
                self.waiting.pop_front();
                self.holder = Some(Holder {
                    number,
                    since: now,
                    waker: waker.clone(),
                    is_late: false,
                });
                return Found::Room;
            }
            _ => {}
        }
        match self
            .waiting
            .iter_mut()
            .find(|(waiting, _)| *waiting == number)
        {
            Some((_, woken)) => woken.clone_from(waker),
            None => self.waiting.push_back((number, waker.clone())),
        }
        let since = self.holder.as_ref().map_or(now, |holder| holder.since);
        let late = since + Duration::from_millis(INTAKE_MS);
        if let Some(holder) = &mut self.holder
            && late <= now
        {
            holder.is_late = true;
            holder.waker.wake_by_ref();
        }
        Found::Taken(late.max(now + AGAIN))
    }

    fn leave(&mut self, number: u64) {
        self.waiting.retain(|(waiting, _)| *waiting != number);
        self.holder.take_if(|holder| holder.number == number);
        if self.holder.is_none()
            && let Some((_, first)) = self.waiting.front()
        {
            first.wake_by_ref();
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
