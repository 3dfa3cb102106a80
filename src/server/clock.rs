//! The only place that reads time: the wall clock once at start, monotonic time from then on.
//!
//! So a stepped system clock changes nothing until the next start. A reading is taken once per
//! batch of requests and passed down. Monotonic time is the kind that goes on while the machine is suspended,
//! where the system has it.
//!
//! The wall clock is looked at again only to notice that it was set since: what that means for windows tells
//! [`Clock::is_behind`], and for moments that clients name or are told [`Clock::drift_ms`].

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use crate::limits::CLOCK_BEHIND_MS;
use crate::time::Millis;

#[cfg(target_os = "linux")]
const MONOTONIC: ClockId = ClockId::Boottime;
#[cfg(not(target_os = "linux"))]
const MONOTONIC: ClockId = ClockId::Monotonic;

/// Wall-clock time that never steps.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Monotonic time at the start.
    started_ns: u64,
    started_unix_ns: u64,
    /// What tells the wall clock: the time since 1970.
    wall: fn() -> Duration,
}

/// One look at the clock.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// The moment, rounded down to a millisecond.
    pub now: Millis,
    monotonic_ns: u64,
}

impl Reading {
    /// Milliseconds from an earlier reading to this one.
    pub fn ms_since(&self, earlier: &Self) -> u64 {
        self.ns_since(earlier) / NS_PER_MS
    }

    /// Nanoseconds from an earlier reading to this one.
    pub fn ns_since(&self, earlier: &Self) -> u64 {
        self.monotonic_ns.saturating_sub(earlier.monotonic_ns)
    }

    /// Nanoseconds from this reading to the present.
    pub fn elapsed_ns(&self) -> u64 {
        monotonic_ns().saturating_sub(self.monotonic_ns)
    }
}

const NS_PER_MS: u64 = 1_000_000;

impl Clock {
    /// A clock that starts from the system's wall clock; one from before 1970 counts as 1970.
    pub fn start() -> Self {
        Self::start_from(system_wall)
    }

    /// A clock that starts from another wall clock, which tells the time since 1970: for tests.
    pub fn start_from(wall: fn() -> Duration) -> Self {
        Self {
            started_ns: monotonic_ns(),
            started_unix_ns: u64::try_from(wall().as_nanos()).unwrap_or(u64::MAX / 2),
            wall,
        }
    }

    /// Reads it.
    pub fn read(&self) -> Reading {
        let monotonic_ns = monotonic_ns();
        let since_start = monotonic_ns.saturating_sub(self.started_ns);
        Reading {
            now: Millis(self.started_unix_ns.saturating_add(since_start) / NS_PER_MS),
            monotonic_ns,
        }
    }

    /// Whether the wall clock is ahead of this one by so much that it was behind at the start, and was set
    /// right since: windows that were begun meanwhile end too early by the clock of the next run.
    ///
    /// The other way round they end too late, which promises nothing false.
    pub fn is_behind(&self) -> bool {
        self.wall_now().since(self.read().now) > CLOCK_BEHIND_MS
    }

    /// Goes on from this moment, if it is later than the present one.
    pub fn go_on_from(&mut self, moment: Millis) {
        let gap_ms = moment.since(self.read().now);
        let start = &mut self.started_unix_ns;
        *start = start.saturating_add(gap_ms.saturating_mul(NS_PER_MS));
    }

    /// How far the wall clock is ahead of this one, in milliseconds; negative where it is behind.
    fn wall_ahead_ms(&self) -> i64 {
        let (wall, now) = (self.wall_now(), self.read().now);
        wall.0.cast_signed().wrapping_sub(now.0.cast_signed())
    }

    /// How far the wall clock was set ahead of this one since the start, or back, in milliseconds, where that was
    /// `known_ms` at the last look.
    ///
    /// Clients name moments by the present wall clock, and are told moments by it. Below [`CLOCK_BEHIND_MS`] the two
    /// clocks count as one, and a difference that was found counts until it is wrong by more than that: a moment
    /// that a client named is told again as it was named, whatever fractions of milliseconds lie between the clocks.
    pub fn drift_ms(&self, known_ms: i64) -> i64 {
        let ahead = self.wall_ahead_ms();
        if ahead.unsigned_abs() <= CLOCK_BEHIND_MS {
            0
        } else if ahead.abs_diff(known_ms) <= CLOCK_BEHIND_MS {
            known_ms
        } else {
            ahead
        }
    }

    /// The wall clock as it is now, or this one where it is ahead of that.
    pub fn latest(&self) -> Millis {
        self.wall_now().max(self.read().now)
    }

    fn wall_now(&self) -> Millis {
        Millis(u64::try_from((self.wall)().as_millis()).unwrap_or(u64::MAX))
    }

    /// Seconds since the start.
    pub fn uptime_s(&self) -> u64 {
        monotonic_ns().saturating_sub(self.started_ns) / (1_000 * NS_PER_MS)
    }
}

fn system_wall() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

fn monotonic_ns() -> u64 {
    let time = clock_gettime(MONOTONIC);
    // It counts from the start of the machine.
    time.tv_sec.cast_unsigned() * (1_000 * NS_PER_MS) + time.tv_nsec.cast_unsigned()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn it_agrees_with_the_wall_clock_and_never_goes_back() {
        let wall_ms = || {
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap()
                .as_millis() as u64
        };
        let clock = Clock::start();
        let mut last = Millis(0);
        for _ in 0..1_000 {
            let now = clock.read().now;
            assert!(now >= last && now.0.abs_diff(wall_ms()) < 1_000);
            last = now;
        }
    }

    #[test]
    fn a_wall_clock_that_is_set_is_noticed_and_small_differences_are_none() {
        static WALL_MS: AtomicU64 = AtomicU64::new(10_000_000);
        let clock = Clock::start_from(|| Duration::from_millis(WALL_MS.load(Ordering::Relaxed)));
        let set = |ms| WALL_MS.store(ms, Ordering::Relaxed);
        assert_eq!(clock.drift_ms(0), 0);
        // The wall clock stands still in between, so the server's is a little ahead each time.
        set(10_000_000 + CLOCK_BEHIND_MS / 2);
        assert_eq!(clock.drift_ms(0), 0);
        set(10_000_000 - 3_600_000);
        let back = clock.drift_ms(0);
        assert!((-3_660_000..=-3_600_000).contains(&back), "{back}");
        set(10_000_000 - 3_600_000 + CLOCK_BEHIND_MS / 2);
        assert_eq!(clock.drift_ms(back), back);
        set(10_000_000 + 60_000);
        let ahead = clock.drift_ms(back);
        assert!((0..=60_000).contains(&ahead), "{ahead}");
    }

    #[test]
    fn it_goes_on_from_a_later_moment_and_never_goes_back_to_an_earlier_one() {
        let mut clock = Clock::start_from(|| Duration::from_secs(1_000));
        clock.go_on_from(Millis(900_000));
        assert!((1_000_000..1_060_000).contains(&clock.read().now.0));
        clock.go_on_from(Millis(1_500_000));
        assert!((1_500_000..1_560_000).contains(&clock.read().now.0));
        assert!(!clock.is_behind());
        assert!(clock.wall_ahead_ms() <= -500_000);
    }

    #[test]
    fn a_wall_clock_that_was_behind_and_set_right_is_noticed_and_one_that_was_ahead_is_not() {
        static WALL_MS: AtomicU64 = AtomicU64::new(1_000_000);
        let clock = Clock::start_from(|| Duration::from_millis(WALL_MS.load(Ordering::Relaxed)));
        assert!(!clock.is_behind());
        let set = |ms| WALL_MS.store(ms, Ordering::Relaxed);
        set(1_000_000 - 60_000);
        assert!(!clock.is_behind());
        assert!(clock.latest() >= Millis(1_000_000));
        set(1_000_000 + CLOCK_BEHIND_MS + 60_000);
        assert!(clock.is_behind());
        assert_eq!(clock.latest(), Millis(1_000_000 + CLOCK_BEHIND_MS + 60_000));
        // What the server's clock is told never depends on it.
        assert!(clock.read().now < Millis(1_060_000));
    }
}
