//! A worker's connections whose turn was over before they were done: one of them goes on between two looks at
//! the sockets.
//!
//! Who takes little has its turn at once whenever something comes, up to what all of these may take together; beyond
//! that it waits in a line of its own for one turn of whoever takes much, and not for one of each: a thousand of those
//! would be half a second. Time is what the clock says, and a worker may be interrupted by the system in any turn, so
//! one long turn says little about a client that had many short ones.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::pin::pin;
use std::task::{Context, Waker};

use tokio::task::yield_now;

use super::turn::Turn;
use crate::limits::TURN_US;

/// What short turns may take before a whole one, so that those who take much get a fifth of the worker at least.
const SHORT_TURNS_NS: u64 = 4 * TURN_US * 1_000;
/// How many short turns in a row are remembered: as many long ones are taken for the system's doing.
const TRUST_MAX: u8 = 4;
/// How many may wait in a line before it grows. It has this room from the beginning: whoever the system interrupts
/// waits for a turn, with whatever was asked, and a known key is answered without allocating.
const LINE_ROOM: usize = 64;

/// Who waits, in two lines.
#[derive(Debug)]
struct Queue {
    little: Line,
    much: Line,
    places: u64,
    /// The first one of either line, which goes on next: it is woken as soon as the worker has looked which sockets
    /// are ready, and the others are not. There is one whenever somebody waits.
    next: Option<u64>,
    /// What short turns have taken since the last whole one.
    short_ns: u64,
}

type Line = VecDeque<(u64, Waker)>;

thread_local! {
    static QUEUE: RefCell<Queue> = RefCell::default();
}

/// A connection's place in the queue of its worker, if it has one. It is given up with this.
#[derive(Debug, Default)]
pub(super) struct Place {
    number: Option<u64>,
    /// How many more of its turns were short than long, up to a bound. Where none were it is one of those that take
    /// much: of who has just come nobody knows.
    trust: u8,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            little: Line::with_capacity(LINE_ROOM),
            much: Line::with_capacity(LINE_ROOM),
            places: 0,
            next: None,
            short_ns: 0,
        }
    }
}

impl Queue {
    /// Whether those who take little go before those who take much.
    fn is_littles_turn(&self) -> bool {
        self.short_ns < SHORT_TURNS_NS || self.much.is_empty()
    }

    /// Whether who takes little need not wait, though somebody does.
    fn goes_before(&self) -> bool {
        self.much.is_empty() || self.little.is_empty() && self.is_littles_turn()
    }

    /// Who is to be woken, if that was not settled.
    fn settle_next(&mut self) -> Option<Waker> {
        if self.next.is_some() {
            return None;
        }
        let line = if self.is_littles_turn() && !self.little.is_empty() {
            &self.little
        } else {
            &self.much
        };
        let (next, waker) = line.front()?;
        self.next = Some(*next);
        Some(waker.clone())
    }

    fn push(&mut self, takes_little: bool, waker: Waker) -> u64 {
        self.places += 1;
        let line = if takes_little {
            &mut self.little
        } else {
            &mut self.much
        };
        line.push_back((self.places, waker));
        self.places
    }

    /// Whether the place was among those of who takes little.
    fn remove(&mut self, place: u64) -> bool {
        if self.next == Some(place) {
            self.next = None;
        }
        let take = |line: &mut Line| {
            let at = line.iter().position(|(at, _)| *at == place);
            at.is_some_and(|at| line.remove(at).is_some())
        };
        let was_little = take(&mut self.little);
        if !was_little {
            take(&mut self.much);
        }
        was_little
    }

    /// A whole turn, or a short one where somebody who takes much waits.
    fn turn(&mut self, is_short: bool) -> Turn {
        if is_short && !self.much.is_empty() {
            return Turn::short();
        }
        self.short_ns = 0;
        Turn::default()
    }
}

impl Place {
    pub(super) fn is_taken(&self) -> bool {
        self.number.is_some()
    }

    fn takes_little(&self) -> bool {
        self.trust > 0
    }

    /// The turn that comes now, if one does; who has none waits.
    pub(super) fn turn(&mut self, cx: &Context<'_>) -> Option<Turn> {
        let takes_little = self.takes_little();
        let (turn, next) = QUEUE.with_borrow_mut(|queue| match (queue.next, self.number) {
            (None, _) => (Some(queue.turn(false)), None),
            (Some(_), None) => {
                let is_before = takes_little && queue.goes_before();
                (is_before.then(|| queue.turn(true)), None)
            }
            (next, Some(place)) if next == Some(place) => {
                let is_short = queue.remove(place);
                self.number = None;
                (Some(queue.turn(is_short)), queue.settle_next())
            }
            (Some(_), Some(_)) => (None, None),
        });
        if let Some(next) = next {
            wake_after_the_sockets(&next);
        }
        if turn.is_none() && self.number.is_none() {
            self.wait(cx);
        }
        turn
    }

    /// What came of a turn; who is not done waits for another one.
    pub(super) fn took(&mut self, turn: &Turn, is_done: bool, cx: &Context<'_>) {
        if turn.used_ns() > 0 {
            self.trust = if is_done && turn.was_short() {
                (self.trust + 1).min(TRUST_MAX)
            } else {
                self.trust.saturating_sub(1)
            };
        }
        if turn.is_short() {
            QUEUE.with_borrow_mut(|queue| queue.short_ns += turn.used_ns());
        }
        if !is_done {
            self.wait(cx);
        }
    }

    /// Has this connection go on behind those of its line.
    fn wait(&mut self, cx: &Context<'_>) {
        debug_assert!(self.number.is_none());
        let takes_little = self.takes_little();
        let place = QUEUE.with_borrow_mut(|queue| queue.push(takes_little, cx.waker().clone()));
        self.number = Some(place);
        wake_next();
    }

    fn leave(&mut self) {
        let Some(place) = self.number.take() else {
            return;
        };
        // A worker that ends drops its connections after the queue was dropped, perhaps.
        let is_there = QUEUE.try_with(|queue| queue.borrow_mut().remove(place));
        if is_there.is_ok() {
            wake_next();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Whether a connection of this worker waits for its turn.
pub(super) fn others_wait() -> bool {
    QUEUE.with_borrow(|queue| queue.next.is_some())
}

/// Wakes who goes on next, unless it was woken.
fn wake_next() {
    if let Some(next) = QUEUE.with_borrow_mut(Queue::settle_next) {
        wake_after_the_sockets(&next);
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

    /// One that is known to take little.
    fn little(cx: &Context<'_>) -> Place {
        let mut place = Place::default();
        for _ in 0..TRUST_MAX {
            let mut turn = place.turn(cx).unwrap();
            turn.executed(1);
            place.took(&turn, true, cx);
        }
        place
    }

    #[test]
    fn who_took_little_comes_before_those_who_wait() {
        let cx = Context::from_waker(Waker::noop());
        let (mut large, mut small) = (Place::default(), little(&cx));
        large.wait(&cx);
        // One long turn in four is the system's.
        for round in 0..20 {
            let mut turn = small.turn(&cx).unwrap();
            assert_eq!(turn, Turn::short());
            turn.executed(if round % 4 == 0 { turn.left_ns() } else { 1 });
            small.took(&turn, true, &cx);
        }
        // More of them are its own, whether it asks once in a while or goes on.
        for is_done in [true, true, false] {
            let mut turn = small.turn(&cx).unwrap();
            turn.executed(turn.left_ns());
            small.took(&turn, is_done, &cx);
        }
        assert_eq!(small.turn(&cx), None, "one whole turn comes first");
        let turn = large.turn(&cx).unwrap();
        large.took(&turn, false, &cx);
        let mut turn = small.turn(&cx).unwrap();
        assert_eq!(turn, Turn::short());
        turn.executed(turn.left_ns());
        small.took(&turn, false, &cx);
        assert_eq!(small.turn(&cx), None, "it took more, each time");
        assert_eq!(large.turn(&cx), Some(Turn::default()));
        let mut turn = small.turn(&cx).unwrap();
        assert_eq!(turn, Turn::default());
        turn.executed(1);
        small.took(&turn, true, &cx);
        large.wait(&cx);
        assert_eq!(small.turn(&cx), Some(Turn::short()), "it took little again");
    }

    /// The test of allocations meets this only where its worker is interrupted.
    #[test]
    fn who_waits_first_in_either_line_allocates_nothing() {
        let mut queue = Queue::default();
        let rooms = |queue: &Queue| (queue.little.capacity(), queue.much.capacity());
        let before = rooms(&queue);
        for _ in 0..LINE_ROOM {
            queue.push(true, Waker::noop().clone());
            queue.push(false, Waker::noop().clone());
        }
        assert_eq!(rooms(&queue), before);
    }

    #[test]
    fn who_has_asked_for_nothing_yet_is_not_known_to_take_little() {
        let cx = Context::from_waker(Waker::noop());
        let (mut large, mut new) = (Place::default(), Place::default());
        let turn = new.turn(&cx).unwrap();
        new.took(&turn, true, &cx);
        large.wait(&cx);
        assert_eq!(new.turn(&cx), None, "it queues");
        drop(large);
        drop(new);
    }

    #[test]
    fn those_who_wait_have_their_part() {
        let cx = Context::from_waker(Waker::noop());
        let mut small: Vec<_> = (0..1_000).map(|_| little(&cx)).collect();
        let mut large: Vec<_> = (0..50).map(|_| Place::default()).collect();
        for large in &mut large {
            large.wait(&cx);
        }
        for (round, large) in large.iter_mut().enumerate().take(5) {
            let mut before = 0;
            for small in &mut small {
                if let Some(mut turn) = small.turn(&cx) {
                    assert_eq!(turn, Turn::short());
                    turn.executed(SHORT_TURNS_NS / 100);
                    small.took(&turn, true, &cx);
                    before += 1;
                }
            }
            // And one that was woken already.
            assert!((100..=101).contains(&before), "{before} in round {round}");
            let turn = large.turn(&cx).unwrap();
            assert_eq!(turn, Turn::default());
            large.took(&turn, false, &cx);
        }
    }

    #[test]
    fn a_short_turn_counts_as_long_as_it_was() {
        let cx = Context::from_waker(Waker::noop());
        let (mut slow, mut quick) = (little(&cx), little(&cx));
        let (mut large, mut other) = (Place::default(), Place::default());
        large.wait(&cx);
        other.wait(&cx);
        let mut turn = slow.turn(&cx).unwrap();
        // One request, which took much.
        turn.executed(SHORT_TURNS_NS);
        slow.took(&turn, true, &cx);
        assert_eq!(quick.turn(&cx), None, "those who wait are next");
        let turn = large.turn(&cx).unwrap();
        large.took(&turn, false, &cx);
        assert_eq!(other.turn(&cx), None, "one of them");
        assert_eq!(quick.turn(&cx), Some(Turn::short()));
        assert_eq!(other.turn(&cx), Some(Turn::default()));
    }
}
