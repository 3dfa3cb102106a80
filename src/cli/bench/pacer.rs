//! Wakes connections when their next request is due in a fixed-rate run.
//!
//! The runtime's own timers count in milliseconds, which would add up to one to every latency.
//! On Linux a `timerfd` keeps to some 50 µs; elsewhere the runtime's timer has to do, and its
//! lag shows in the report.

use std::io;
use std::time::Duration;

use super::connection::Worker;
use super::schedule::Cursor;

/// The pacer sleeps at least this long, so that a high rate is sent in small batches instead of
/// one wake-up per request. It bounds what pacing itself adds to a latency.
const SLEEP_MIN: Duration = Duration::from_micros(50);

/// Wakes `connections` connections in turn for the requests of `cursor`, until the schedule of
/// `worker` is through.
pub(super) async fn pace(
    worker: &Worker,
    mut cursor: Cursor,
    connections: usize,
) -> io::Result<()> {
    let Some(schedule) = worker.schedule() else {
        return Ok(());
    };
    let mut timer = Timer::new()?;
    let mut turn = 0;
    while let Some(next_ns) = cursor.next_ns(&schedule) {
        let wait_ns = next_ns.saturating_sub(worker.now_ns());
        timer
            .sleep(SLEEP_MIN.max(Duration::from_nanos(wait_ns)))
            .await?;
        let now_ns = worker.now_ns();
        let mut woken = 0;
        while cursor.take_due(&schedule, now_ns).is_some() {
            if woken < connections {
                worker.wake(turn);
                woken += 1;
            }
            turn = (turn + 1) % connections;
        }
    }
    Ok(())
}

#[cfg(target_os = "linux")]
use precise::Timer;

#[cfg(target_os = "linux")]
mod precise {
    use std::io;
    use std::time::Duration;

    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };
    use tokio::io::AsyncReadExt;
    use tokio::net::unix::pipe;

    /// A timer of the kernel, waited for like a pipe: it is readable once it has expired.
    ///
    /// It is no pipe, hence `unchecked` below; tokio's `AsyncFd` is made for this, but can only
    /// be built with `unsafe`.
    pub(super) struct Timer(pipe::Receiver);

    impl Timer {
        pub(super) fn new() -> io::Result<Self> {
            let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
            let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
            pipe::Receiver::from_owned_fd_unchecked(timer).map(Self)
        }

        /// Returns once `duration`, which must not be zero, has passed.
        pub(super) async fn sleep(&mut self, duration: Duration) -> io::Result<()> {
            let once = Itimerspec {
                it_interval: Timespec::default(),
                it_value: Timespec {
                    tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
                    tv_nsec: duration.subsec_nanos().into(),
                },
            };
            timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &once)?;
            let mut expirations = [0; 8];
            self.0.read_exact(&mut expirations).await.map(|_| ())
        }
    }
}

#[cfg(not(target_os = "linux"))]
struct Timer;

#[cfg(not(target_os = "linux"))]
impl Timer {
    fn new() -> io::Result<Self> {
        Ok(Self)
    }

    async fn sleep(&mut self, duration: Duration) -> io::Result<()> {
        tokio::time::sleep(duration).await;
        Ok(())
    }
}
