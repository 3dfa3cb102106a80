//! The thread that gives memory back, and sees to it that the process holds little more than is counted.
//!
//! What is counted is what keys and buffers take. What the process holds is more where an allocator cannot use
//! what is free for what is wanted: after most of many small values were deleted, nearly each of their pages
//! still has one, and larger values need other pages. Then the survivors are [moved
//! together](crate::engine::Engine::move_some_together); and until that has helped, nothing more is stored than
//! was when too much was held, which the engine is told as an [overhead](crate::engine::Budget::set_overhead).
//!
//! The engine knows nothing of the system: what is held is read here.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::episodes::Episodes;
use super::longest;
use super::shared::Shared;
use super::threads;

/// How often the sweeper looks for memory to give back.
const SWEEP_EVERY: Duration = Duration::from_millis(50);
/// How long it leaves the core to others while there is more to do: it takes a tenth or so of it.
const SWEEP_PAUSE: Duration = Duration::from_micros(250);
/// How often it looks at what is held.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Bytes that may come to be held between two sweeps, at what cores copy.
const FILLED_PER_SWEEP: usize = 256 * MIB;
/// How long what was freed may be held by the allocator.
const SETTLES_WITHIN: Duration = Duration::from_millis(500);

const MIB: usize = 1 << 20;
/// What may be held beside what is counted: code, threads, and what belongs to no key or buffer.
const BASE_BYTES: usize = 16 * MIB;
/// The same for each worker.
const WORKER_BYTES: usize = 2 * MIB;
/// What a connection's task holds, of which nothing is counted.
const CONNECTION_BYTES: usize = 10 << 10;
/// The part of the bound that what is stored may have to shrink by: whatever it is that holds so much, a server that
/// evicts is not emptied for it.
const DRIFT_PART: usize = 8;
/// What may be held beside that, in percent of what is counted.
const SLACK_PERCENT: usize = 10;

/// The thread that gives memory back.
pub(super) struct Sweeper {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: JoinHandle<()>,
}

impl Sweeper {
    pub(super) fn start(shared: Arc<Shared>, workers: usize) -> io::Result<Self> {
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let stopping = Arc::clone(&stop);
        let faults = Arc::clone(&shared.faults);
        let thread = threads::spawn(threads::SWEEPER, &faults, move || {
            let mut held = threads::allocator_is_told().then(|| Held::new(workers));
            let mut episodes = Episodes::default();
            let (stop, changed) = &*stopping;
            let mut more = false;
            let mut swept: Option<Instant> = None;
            loop {
                if more || swept.is_none_or(|swept| swept.elapsed() >= SWEEP_EVERY) {
                    shared.look_at_wall_clock();
                    let now = shared.clock.read().now;
                    more = longest::sweep(|| shared.engine.sweep(now));
                    shared.gauges.look(&shared.engine, now);
                    episodes.look(&shared, now);
                    swept = Some(Instant::now());
                }
                let tended = held.as_mut().map(|held| held.tend(&shared));
                let wait = tended.unwrap_or(SWEEP_EVERY);
                let wait = if more { SWEEP_PAUSE.min(wait) } else { wait };
                let mut stop = stop.lock();
                if *stop || {
                    changed.wait_for(&mut stop, wait);
                    *stop
                } {
                    return;
                }
            }
        })?;
        Ok(Self { stop, thread })
    }

    pub(super) fn stop(self) {
        *self.stop.0.lock() = true;
        self.stop.1.notify_all();
        let _its_panic_was_told = self.thread.join();
    }
}

/// What the process holds, and what is done about it.
struct Held {
    looked: Instant,
    surplus: Surplus,
    /// Since when nothing has been moved, if something was.
    moved: Option<Instant>,
    is_moving: bool,
}

impl Held {
    fn new(workers: usize) -> Self {
        Self {
            looked: Instant::now(),
            surplus: Surplus {
                base: BASE_BYTES + workers * WORKER_BYTES,
                ..Surplus::default()
            },
            moved: None,
            is_moving: false,
        }
    }

    /// Does a little, if there is something to do; returns how soon there may be more.
    fn tend(&mut self, shared: &Shared) -> Duration {
        let engine = &shared.engine;
        if self.looked.elapsed() >= LOOK_EVERY
            && let Some(resident) = shared.gauges.resident.bytes()
        {
            self.looked = Instant::now();
            let budget = engine.budget();
            let connections = engine.metrics().connections.get() as usize;
            // Theirs is not counted, and nothing that could be done here would make it less.
            let resident = resident.saturating_sub(connections * CONNECTION_BYTES);
            let overhead = self.surplus.look(resident, budget.used(), budget.max());
            budget.set_overhead(overhead);
            if self.surplus.is_beyond_max() {
                threads::purge_allocator();
            }
            let settled = |moved: Instant| moved.elapsed() >= SETTLES_WITHIN;
            let has_settled = self.surplus.is_too_much() || self.moved.is_none_or(settled);
            if !self.is_moving && self.surplus.should_move(has_settled) {
                self.is_moving = true;
                engine.begin_moving_together();
            }
        }
        if self.is_moving {
            self.is_moving = engine.move_some_together();
            self.moved = Some(Instant::now());
        }
        match (self.is_moving, self.surplus.is_too_much()) {
            // Nothing more can be stored until this is done.
            (true, true) => Duration::ZERO,
            (true, false) => SWEEP_PAUSE,
            (false, _) if self.surplus.is_near() => LOOK_EVERY,
            (false, _) => SWEEP_EVERY,
        }
    }
}

/// How much more is held than is counted.
#[derive(Debug, Default)]
struct Surplus {
    /// What may be held beside what is counted, whatever that is.
    base: usize,
    resident: usize,
    used: usize,
    max: usize,
    /// What is not given out beyond what is left, while too much is held.
    drift: usize,
    /// What was held beside what was counted when that was last known to be no less.
    least: usize,
}

impl Surplus {
    /// Takes in what is held at the moment and what is counted; returns how much of `max` is not to be given out:
    /// until the next look no more is than may be held in addition, for it may all need other pages.
    fn look(&mut self, resident: usize, used: usize, max: usize) -> usize {
        (self.resident, self.used, self.max) = (resident, used, max);
        let more = self.resident_max().saturating_sub(resident);
        // A little less each time while it is too much, since what takes another's place may need another page.
        self.drift = if more == 0 {
            (self.drift + (resident - self.resident_max()) / 16).min(max / DRIFT_PART)
        } else {
            0
        };
        let left = max.saturating_sub(used);
        (left.saturating_sub(more) + self.drift).min(max)
    }

    /// What may be held.
    fn resident_max(&self) -> usize {
        with_slack(self.max).saturating_add(self.base)
    }

    fn is_too_much(&self) -> bool {
        self.resident > self.resident_max()
    }

    /// Whether it may be too much soon: before the next sweep.
    fn is_near(&self) -> bool {
        self.resident > self.max / 2 || self.max < FILLED_PER_SWEEP
    }

    /// Whether more is held than may be stored, and not for what is counted alone.
    fn is_beyond_max(&self) -> bool {
        self.resident > self.max && self.resident > with_slack(self.used) + self.base
    }

    fn beside(&self) -> usize {
        self.resident.saturating_sub(self.used)
    }

    /// Whether moving may give back something that is worth it. `has_settled` says that what the last time gave
    /// has been given back.
    fn should_move(&mut self, has_settled: bool) -> bool {
        if !has_settled {
            return false;
        }
        let is_worth_it = self.beside() > self.least + (self.max / 32).max(4 * MIB);
        self.least = self.least.min(self.beside());
        if is_worth_it && self.resident > with_slack(self.used) + self.base / 2 {
            // Until something else comes, that is what moving leaves.
            self.least = self.beside();
            return true;
        }
        false
    }
}

fn with_slack(bytes: usize) -> usize {
    bytes.saturating_add(bytes / 100 * SLACK_PERCENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 100 * MIB;

    fn surplus() -> Surplus {
        Surplus {
            base: 20 * MIB,
            ..Surplus::default()
        }
    }

    #[test]
    fn nothing_more_is_given_out_while_too_much_is_held() {
        let mut surplus = surplus();
        assert_eq!(
            surplus.look(90 * MIB, 60 * MIB, MAX),
            0,
            "as much as is left"
        );
        assert_eq!(surplus.look(120 * MIB, 40 * MIB, MAX), 50 * MIB, "ten more");
        assert_eq!(surplus.look(130 * MIB, 40 * MIB, MAX), 60 * MIB, "none");
        let overhead = surplus.look(146 * MIB, 40 * MIB, MAX);
        assert!(overhead > 60 * MIB, "too much is held");
        assert!(surplus.look(146 * MIB, 40 * MIB, MAX) > overhead, "still");
        assert_eq!(surplus.look(120 * MIB, 40 * MIB, MAX), 50 * MIB);
        for _ in 0..100 {
            let overhead = surplus.look(usize::MAX / 2, MAX, MAX);
            assert_eq!(
                overhead,
                MAX / DRIFT_PART,
                "more than that is never taken back"
            );
        }
    }

    #[test]
    fn what_moving_has_left_is_not_moved_again() {
        let mut surplus = surplus();
        surplus.look(105 * MIB, 95 * MIB, MAX);
        assert!(!surplus.should_move(true), "what an allocator adds");
        surplus.look(105 * MIB, 10 * MIB, MAX);
        assert!(!surplus.should_move(false));
        assert!(surplus.should_move(true), "most was deleted");
        assert!(!surplus.should_move(true));
        surplus.look(40 * MIB, 10 * MIB, MAX);
        assert!(!surplus.should_move(true), "what was freed is given back");
        surplus.look(60 * MIB, 10 * MIB, MAX);
        assert!(surplus.should_move(true), "more came since");
    }
}
