//! The only place that reads time: the wall clock once at start, monotonic time from then on.
//!
//! So a stepped system clock changes nothing until the next start. A reading is taken once per
//! batch of requests and passed down.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::time::Millis;

/// Wall-clock time that never steps.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
    started_unix_ns: u128,
}

/// One look at the clock.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// The moment, rounded down to a millisecond.
    pub now: Millis,
    instant: Instant,
}

impl Reading {
    /// Milliseconds from an earlier reading to this one.
    pub fn ms_since(&self, earlier: &Self) -> u64 {
        self.instant.duration_since(earlier.instant).as_millis() as u64
    }

    /// Nanoseconds from an earlier reading to this one.
    pub fn ns_since(&self, earlier: &Self) -> u64 {
        self.instant.duration_since(earlier.instant).as_nanos() as u64
    }

    /// Nanoseconds from this reading to the present.
    pub fn elapsed_ns(&self) -> u64 {
        u64::try_from(self.instant.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Clock {
    /// A clock that starts from the system's wall clock; one from before 1970 counts as 1970.
    pub fn start() -> Self {
        let unix = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            started: Instant::now(),
            started_unix_ns: unix.as_nanos(),
        }
    }

    /// Reads it.
    pub fn read(&self) -> Reading {
        let instant = Instant::now();
        let unix_ns = self.started_unix_ns + instant.duration_since(self.started).as_nanos();
        Reading {
            now: Millis((unix_ns / 1_000_000) as u64),
            instant,
        }
    }

    /// Seconds since the start.
    pub fn uptime_s(&self) -> u64 {
        self.started.elapsed().as_secs()
    }
}

#[cfg(test)]
mod tests {
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
}
