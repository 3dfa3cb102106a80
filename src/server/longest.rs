//! How long a thread was busy in one go: for a test that nothing holds a worker for longer than a slice.
//!
//! In processor time of the thread, so that a busy machine changes nothing. Off unless switched on, since
//! to read that clock is a system call; then a turn costs one look at a flag.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::time::{ClockId, clock_gettime};

static IS_ON: AtomicBool = AtomicBool::new(false);
static LONGEST_TURN_NS: AtomicU64 = AtomicU64::new(0);
static LONGEST_SWEEP_NS: AtomicU64 = AtomicU64::new(0);

/// The longest since it was asked last.
#[derive(Clone, Copy, Debug)]
pub struct Longest {
    /// Of one poll of a connection, in nanoseconds.
    pub turn_ns: u64,
    /// Of one step of the sweeper, in nanoseconds.
    pub sweep_ns: u64,
}

/// Measures from here on, in all servers of this process.
pub fn measure() {
    IS_ON.store(true, Ordering::Relaxed);
}

/// The longest since this was asked last.
pub fn take_longest() -> Longest {
    Longest {
        turn_ns: LONGEST_TURN_NS.swap(0, Ordering::Relaxed),
        sweep_ns: LONGEST_SWEEP_NS.swap(0, Ordering::Relaxed),
    }
}

/// A worker's turn.
#[inline]
pub(super) fn turn<R>(act: impl FnOnce() -> R) -> R {
    measured(&LONGEST_TURN_NS, act)
}

/// A step of the sweeper.
pub(super) fn sweep<R>(act: impl FnOnce() -> R) -> R {
    measured(&LONGEST_SWEEP_NS, act)
}

#[inline]
fn measured<R>(longest_ns: &AtomicU64, act: impl FnOnce() -> R) -> R {
    if !IS_ON.load(Ordering::Relaxed) {
        return act();
    }
    let began = busy_ns();
    let result = act();
    longest_ns.fetch_max(busy_ns() - began, Ordering::Relaxed);
    result
}

/// Processor time of this thread.
fn busy_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}
