//! A worker's connections whose turn was over before they were done: one of them goes on between two looks at
//! the sockets, in the order in which they came.
//!
//! A connection that takes little has its turn at once whenever something comes. So a client that asks once waits for
//! one turn of whoever moves much at the moment, and not for one of each: a thousand of those would be half a second.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::pin::pin;
use std::task::{Context, Waker};

use tokio::task::yield_now;

use super::turn::Turn;
use crate::limits::TURN_US;

/// What short turns may take before a whole one, so that those who wait get a fifth of the worker at least.
const SHORT_TURNS_NS: u64 = 4 * TURN_US * 1_000;

/// The first one is woken as soon as the worker has looked which sockets are ready; the others are not.
#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<(u64, Waker)>,
    places: u64,
    /// What short turns have taken since the last whole one.
    short_ns: u64,
}

thread_local! {
    static QUEUE: RefCell<Queue> = RefCell::default();
}

/// A connection's place in the queue of its worker, if it has one. It is given up with this.
#[derive(Debug, Default)]
pub(super) struct Place {
    number: Option<u64>,
    /// Whether the last turn in which it did something was no longer than a short one. Of who has just come nobody
    /// knows.
    takes_little: bool,
}

impl Queue {
    /// Takes this one out; whether it was the first.
    fn remove(&mut self, place: u64) -> bool {
        let at = self.waiting.iter().position(|(at, _)| *at == place);
        at.is_some_and(|at| {
            self.waiting.remove(at);
            at == 0
        })
    }

    fn first(&self) -> Option<Waker> {
        self.waiting.front().map(|(_, waker)| waker.clone())
    }
}

impl Place {
    pub(super) fn is_taken(&self) -> bool {
        self.number.is_some()
    }

    /// The turn that comes now, if one does: a whole one where nobody else waits or this is the first, which leaves
    /// the queue. Where others wait, who took little lately has a short one, up to what these may take together, and
    /// all others queue.
    pub(super) fn turn(&mut self, cx: &Context<'_>) -> Option<Turn> {
        let (first, short_ns) = QUEUE.with_borrow(|queue| {
            let first = queue.waiting.front().map(|(first, _)| *first);
            (first, queue.short_ns)
        });
        match first {
            None => Some(Turn::default()),
            Some(_) if self.number.is_none() => {
                let has_short_one = self.takes_little && short_ns < SHORT_TURNS_NS;
                if !has_short_one {
                    self.wait(cx);
                }
                has_short_one.then(Turn::short)
            }
            _ if first == self.number => {
                self.leave();
                Some(Turn::default())
            }
            Some(_) => None,
        }
    }

    /// What came of a turn.
    pub(super) fn took(&mut self, turn: &Turn) {
        if turn.used_ns() > 0 {
            self.takes_little = self.number.is_none() && turn.was_short();
        }
        QUEUE.with_borrow_mut(|queue| {
            queue.short_ns = if turn.is_short() {
                queue.short_ns + turn.used_ns()
            } else {
                0
            };
        });
    }

    /// Has this connection go on when all others that wait have.
    pub(super) fn wait(&mut self, cx: &Context<'_>) {
        self.leave();
        let is_first = QUEUE.with_borrow_mut(|queue| {
            queue.places += 1;
            let waker = cx.waker().clone();
            queue.waiting.push_back((queue.places, waker));
            self.number = Some(queue.places);
            queue.waiting.len() == 1
        });
        if is_first {
            wake_after_the_sockets(cx.waker());
        }
    }

    fn leave(&mut self) {
        let Some(place) = self.number.take() else {
            return;
        };
        // A worker that ends drops its connections after this was dropped, perhaps.
        let next = QUEUE.try_with(|queue| {
            let mut queue = queue.borrow_mut();
            queue.remove(place).then(|| queue.first()).flatten()
        });
        if let Ok(Some(next)) = next {
            wake_after_the_sockets(&next);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Wakes a task once the runtime has polled the others that are ready, and has looked which sockets are. Woken at
/// once, it would be polled before up to 61 tasks' sockets are looked at.
fn wake_after_the_sockets(waker: &Waker) {
    // Polled once and dropped: the waker is kept by the runtime, and nothing is allocated.
    let _always_pending = pin!(yield_now()).poll(&mut Context::from_waker(waker));
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

    /// Outside of a runtime, who comes first is woken at once.
    #[test]
    fn one_goes_on_at_a_time_in_the_order_in_which_they_came() {
        let woken: Vec<_> = (0..3).map(|_| Arc::new(Woken::default())).collect();
        let wakers: Vec<Waker> = woken.iter().map(|woken| Arc::clone(woken).into()).collect();
        let cx: Vec<_> = wakers.iter().map(Context::from_waker).collect();
        let mut places: Vec<_> = (0..3).map(|_| Place::default()).collect();
        let counts = || -> Vec<_> { woken.iter().map(|w| w.0.load(Ordering::Relaxed)).collect() };
        let whole = Some(Turn::default());
        assert_eq!(places[0].turn(&cx[0]), whole, "nobody else waits");
        places[0].wait(&cx[0]);
        assert_eq!(counts(), [1, 0, 0]);
        for at in 1..3 {
            assert_eq!(places[at].turn(&cx[at]), None, "it queues");
            assert_eq!(places[at].turn(&cx[at]), None, "in its place");
        }
        assert_eq!(counts(), [1, 0, 0]);
        assert_eq!(places[0].turn(&cx[0]), whole);
        assert_eq!(counts(), [1, 1, 0]);
        places[0].wait(&cx[0]);
        assert_eq!(places[0].turn(&cx[0]), None, "behind the others");
        // One that ends lets the next one go on, whether it was first or not.
        places.remove(2);
        places.remove(1);
        assert_eq!(counts(), [2, 1, 0]);
        assert_eq!(places[0].turn(&cx[0]), whole);
        assert_eq!(places[0].turn(&cx[0]), whole, "nobody else waits");
        assert_eq!(counts(), [2, 1, 0]);
    }

    #[test]
    fn who_took_little_comes_before_those_who_wait() {
        let cx = Context::from_waker(Waker::noop());
        let (mut large, mut small) = (Place::default(), Place::default());
        let mut turn = small.turn(&cx).unwrap();
        turn.executed(1_000);
        small.took(&turn);
        large.wait(&cx);
        let mut turn = small.turn(&cx).unwrap();
        assert_eq!(turn, Turn::short());
        turn.executed(turn.left_ns());
        small.took(&turn);
        assert_eq!(small.turn(&cx), None, "it took more");
        drop(large);
        assert_eq!(small.turn(&cx), Some(Turn::default()));
    }

    #[test]
    fn who_has_asked_for_nothing_yet_is_not_known_to_take_little() {
        let cx = Context::from_waker(Waker::noop());
        let (mut large, mut new) = (Place::default(), Place::default());
        let turn = new.turn(&cx).unwrap();
        new.took(&turn);
        large.wait(&cx);
        assert_eq!(new.turn(&cx), None, "it queues");
        drop(large);
        drop(new);
    }

    #[test]
    fn a_short_turn_counts_as_long_as_it_was() {
        let cx = Context::from_waker(Waker::noop());
        let (mut large, mut quick, mut slow) =
            (Place::default(), Place::default(), Place::default());
        for small in [&mut quick, &mut slow] {
            let mut turn = small.turn(&cx).unwrap();
            turn.executed(1);
            small.took(&turn);
        }
        large.wait(&cx);
        let mut turn = slow.turn(&cx).unwrap();
        // One request, which took much.
        turn.executed(SHORT_TURNS_NS);
        assert!(turn.is_over() && !turn.was_short());
        slow.took(&turn);
        assert_eq!(quick.turn(&cx), None, "those who wait are next");
        drop(large);
        drop(quick);
    }

    #[test]
    fn those_who_wait_have_their_part() {
        let cx = Context::from_waker(Waker::noop());
        let (mut large, mut other) = (Place::default(), Place::default());
        let mut small: Vec<_> = (0..1_000).map(|_| Place::default()).collect();
        let mut turn = Turn::default();
        turn.executed(1);
        for small in &mut small {
            small.took(&turn);
        }
        large.wait(&cx);
        other.wait(&cx);
        let mut spend = || {
            let before_whole = small.iter_mut().filter_map(|small| {
                let mut turn = small.turn(&cx)?;
                turn.executed(SHORT_TURNS_NS / 100);
                small.took(&turn);
                Some(())
            });
            before_whole.count()
        };
        assert_eq!(spend(), 100);
        let turn = large.turn(&cx).unwrap();
        assert_eq!(turn, Turn::default());
        large.took(&turn);
        drop(other);
        drop(small);
    }
}
