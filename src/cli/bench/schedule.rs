//! When requests are due, and how long their replies took.
//!
//! Time is a number here, nanoseconds since the run began, and always an argument: nothing reads
//! a clock, so the accounting is tested under virtual time.
//!
//! A closed loop sends whenever a reply made room; a latency counts from the write of the
//! request. A fixed rate follows a [`Schedule`] laid down before the run: request `i` is intended
//! for `i / rate` seconds after the start, whatever the server does, and its latency counts from
//! that moment even when it could not be sent then. A server that stalls is thereby charged for
//! every request that waited ("coordinated omission", as Gil Tene named leaving them out).

use std::collections::VecDeque;

const NS_PER_MS: u64 = 1_000_000;
const NS_PER_S: u128 = 1_000_000_000;

/// Which part of a closed-loop run a moment belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Requests sent now are not counted.
    Warmup,
    /// Requests sent now are counted.
    Measured,
    /// Nothing is sent any more.
    Over,
}

/// The phases of a run, in nanoseconds since its start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeline {
    /// Where warming up ends.
    pub(super) measured_from_ns: u64,
    /// Where sending ends; `None` when a number of requests ends it.
    pub(super) measured_until_ns: Option<u64>,
}

impl Timeline {
    /// A run that warms up for `warmup_ms` and then lasts `duration_ms`.
    pub(super) fn new(warmup_ms: u64, duration_ms: Option<u64>) -> Self {
        let measured_from_ns = warmup_ms.saturating_mul(NS_PER_MS);
        Self {
            measured_from_ns,
            measured_until_ns: duration_ms
                .map(|ms| measured_from_ns.saturating_add(ms.saturating_mul(NS_PER_MS))),
        }
    }

    /// The phase at `now_ns`.
    pub(super) fn phase(&self, now_ns: u64) -> Phase {
        if now_ns < self.measured_from_ns {
            Phase::Warmup
        } else if self.measured_until_ns.is_some_and(|end| now_ns >= end) {
            Phase::Over
        } else {
            Phase::Measured
        }
    }
}

/// A fixed rate: which request is intended for which moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    rate_per_s: u64,
    warmup_requests: u64,
    total_requests: u64,
}

/// A request whose moment has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Due {
    /// When it was meant to be sent.
    pub(super) intended_ns: u64,
    /// Whether it is past the warm-up.
    pub(super) counted: bool,
}

impl Schedule {
    /// `rate_per_s` requests per second (at least 1) over `timeline`, `requests` of them counted
    /// when the timeline has no end.
    pub(super) fn new(rate_per_s: u64, timeline: &Timeline, requests: u64) -> Self {
        let before = |moment_ns: u64| -> u64 {
            let requests = (u128::from(moment_ns) * u128::from(rate_per_s)).div_ceil(NS_PER_S);
            u64::try_from(requests).unwrap_or(u64::MAX)
        };
        let warmup_requests = before(timeline.measured_from_ns);
        Self {
            rate_per_s,
            warmup_requests,
            total_requests: timeline
                .measured_until_ns
                .map_or(warmup_requests.saturating_add(requests), before),
        }
    }

    /// When request number `index` is meant to be sent.
    pub(super) fn intended_ns(&self, index: u64) -> u64 {
        let ns = u128::from(index) * NS_PER_S / u128::from(self.rate_per_s);
        u64::try_from(ns).unwrap_or(u64::MAX)
    }
}

/// One sender's way through a [`Schedule`]: every `step`th request from a first one on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor {
    next: u64,
    step: u64,
}

impl Cursor {
    /// Starts at request `first`.
    pub(super) const fn new(first: u64, step: u64) -> Self {
        Self { next: first, step }
    }

    /// When the next request is intended; `None` once the schedule is through.
    pub(super) fn next_ns(&self, schedule: &Schedule) -> Option<u64> {
        (self.next < schedule.total_requests).then(|| schedule.intended_ns(self.next))
    }

    /// Whether [`Cursor::take_due`] would return a request.
    pub(super) fn is_due(&self, schedule: &Schedule, now_ns: u64) -> bool {
        self.next_ns(schedule)
            .is_some_and(|intended_ns| intended_ns <= now_ns)
    }

    /// The next request, if its moment has come, and steps past it.
    pub(super) fn take_due(&mut self, schedule: &Schedule, now_ns: u64) -> Option<Due> {
        let intended_ns = self.next_ns(schedule)?;
        if intended_ns > now_ns {
            return None;
        }
        let counted = self.next >= schedule.warmup_requests;
        self.next = self.next.saturating_add(self.step);
        Some(Due {
            intended_ns,
            counted,
        })
    }
}

/// A request counts as late when it was sent this long after its moment. Below it lies the noise
/// of timers and schedulers; the latency includes every lag, counted late or not.
pub(super) const LATE_AFTER_NS: u64 = NS_PER_MS;

/// How well the load generator kept to its schedule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Lateness {
    /// Counted requests sent more than [`LATE_AFTER_NS`] after their moment.
    pub(super) sent_late: u64,
    /// The longest any counted request was sent after its moment.
    pub(super) lag_max_ns: u64,
}

impl Lateness {
    /// Notes a request sent at `now_ns`.
    pub(super) fn record(&mut self, due: Due, now_ns: u64) {
        if due.counted {
            let lag_ns = now_ns.saturating_sub(due.intended_ns);
            self.sent_late += u64::from(lag_ns > LATE_AFTER_NS);
            self.lag_max_ns = self.lag_max_ns.max(lag_ns);
        }
    }

    /// Takes in what another sender noted.
    pub(super) fn merge(&mut self, other: Self) {
        self.sent_late += other.sent_late;
        self.lag_max_ns = self.lag_max_ns.max(other.lag_max_ns);
    }
}

/// Requests that share the moment their latency counts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    /// The moment of the write, or the intended one.
    pub(super) since_ns: u64,
    /// How many of them are still unanswered.
    pub(super) requests: usize,
    /// Whether they are past the warm-up.
    pub(super) counted: bool,
}

/// The unanswered requests of one connection, oldest first; replies come in that order.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    groups: VecDeque<Sent>,
    requests: usize,
}

impl InFlight {
    /// How many requests are unanswered.
    pub(super) const fn requests(&self) -> usize {
        self.requests
    }

    /// Adds requests that were just sent.
    pub(super) fn push(&mut self, sent: Sent) {
        self.requests += sent.requests;
        self.groups.push_back(sent);
    }

    /// The oldest unanswered group.
    pub(super) fn oldest(&self) -> Option<Sent> {
        self.groups.front().copied()
    }

    /// Takes `replies` requests off the oldest group, which must have as many.
    pub(super) fn answer_oldest(&mut self, replies: usize) {
        if let Some(oldest) = self.groups.front_mut() {
            assert!(replies <= oldest.requests, "replies belong to requests");
            oldest.requests -= replies;
            self.requests -= replies;
            if oldest.requests == 0 {
                self.groups.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(rate_per_s: u64, warmup_ms: u64, duration_ms: Option<u64>) -> Schedule {
        Schedule::new(rate_per_s, &Timeline::new(warmup_ms, duration_ms), 10)
    }

    fn drain(cursor: &mut Cursor, schedule: &Schedule, now_ns: u64) -> Vec<Due> {
        std::iter::from_fn(|| cursor.take_due(schedule, now_ns)).collect()
    }

    #[test]
    fn phases_follow_one_another() {
        let timeline = Timeline::new(2, Some(3));
        let phases: Vec<_> = [0, 1_999_999, 2_000_000, 4_999_999, 5_000_000]
            .map(|now_ns| timeline.phase(now_ns))
            .into();
        assert_eq!(
            phases,
            [
                Phase::Warmup,
                Phase::Warmup,
                Phase::Measured,
                Phase::Measured,
                Phase::Over
            ]
        );
        assert_eq!(Timeline::new(0, None).phase(u64::MAX), Phase::Measured);
    }

    #[test]
    fn a_schedule_has_the_asked_number_of_requests() {
        for (rate, warmup_ms, duration_ms, warm, total) in [
            (1_000, 0, None, 0, 10),
            (1_000, 5, None, 5, 15),
            (1_000, 5, Some(100), 5, 105),
            (3, 0, Some(1_000), 0, 3),
            (7, 100, Some(900), 1, 7),
            (1, 0, Some(1), 0, 1),
        ] {
            let schedule = schedule(rate, warmup_ms, duration_ms);
            let all = drain(&mut Cursor::new(0, 1), &schedule, u64::MAX);
            assert_eq!(all.len(), total, "rate {rate}");
            assert_eq!(all.iter().filter(|due| !due.counted).count(), warm);
            let end_ns = duration_ms.map_or(u64::MAX, |ms| (warmup_ms + ms) * NS_PER_MS);
            assert!(all.iter().all(|due| due.intended_ns < end_ns));
            assert!(
                all.iter()
                    .all(|due| due.counted == (due.intended_ns >= warmup_ms * NS_PER_MS))
            );
        }
    }

    #[test]
    fn senders_share_a_schedule_without_gaps() {
        let schedule = schedule(1_000, 3, Some(20));
        let mut all: Vec<u64> = (0..4)
            .flat_map(|first| drain(&mut Cursor::new(first, 4), &schedule, u64::MAX))
            .map(|due| due.intended_ns)
            .collect();
        all.sort_unstable();
        let want: Vec<u64> = (0..23).map(|index| index * NS_PER_MS).collect();
        assert_eq!(all, want);
    }

    #[test]
    fn a_request_is_not_due_before_its_moment() {
        let schedule = schedule(1_000, 0, None);
        let mut cursor = Cursor::new(1, 1);
        assert_eq!(cursor.next_ns(&schedule), Some(NS_PER_MS));
        assert_eq!(cursor.take_due(&schedule, NS_PER_MS - 1), None);
        assert!(!cursor.is_due(&schedule, NS_PER_MS - 1));
        assert!(cursor.is_due(&schedule, NS_PER_MS));
        assert!(cursor.take_due(&schedule, NS_PER_MS).is_some());
        assert_eq!(cursor.next_ns(&schedule), Some(2 * NS_PER_MS));
        drain(&mut cursor, &schedule, u64::MAX);
        assert_eq!(cursor.next_ns(&schedule), None);
        assert!(!cursor.is_due(&schedule, u64::MAX));
    }

    /// A server that answers at once, but not between 2 ms and 6 ms; a pipeline of one. Counting
    /// from the write would show one slow request; four were kept waiting.
    #[test]
    fn a_stall_is_charged_to_every_request_that_waited() {
        let schedule = schedule(1_000, 0, None);
        let mut cursor = Cursor::new(0, 1);
        let mut in_flight = InFlight::default();
        let mut late = Lateness::default();
        let mut latencies_ms = Vec::new();
        for now_ms in 0..10 {
            let now_ns = now_ms * NS_PER_MS;
            let stalled = (2..6).contains(&now_ms);
            loop {
                if !stalled && let Some(sent) = in_flight.oldest() {
                    latencies_ms.push((now_ns - sent.since_ns) / NS_PER_MS);
                    in_flight.answer_oldest(1);
                }
                if in_flight.requests() == 1 {
                    break;
                }
                let Some(due) = cursor.take_due(&schedule, now_ns) else {
                    break;
                };
                late.record(due, now_ns);
                in_flight.push(Sent {
                    since_ns: due.intended_ns,
                    requests: 1,
                    counted: due.counted,
                });
            }
        }
        assert_eq!(latencies_ms, [0, 0, 4, 3, 2, 1, 0, 0, 0, 0]);
        // Sent at 6 ms instead of 3, 4 and 5; a lag of exactly 1 ms is not late yet.
        assert_eq!(late.sent_late, 2);
        assert_eq!(late.lag_max_ns, 3 * NS_PER_MS);
    }

    #[test]
    fn warming_up_is_never_late() {
        let mut late = Lateness::default();
        let due = |counted| Due {
            intended_ns: 0,
            counted,
        };
        late.record(due(false), 9 * NS_PER_MS);
        assert_eq!(late, Lateness::default());
        late.record(due(true), LATE_AFTER_NS);
        assert_eq!(late.sent_late, 0);
        let mut sum = Lateness {
            sent_late: 2,
            lag_max_ns: 5,
        };
        sum.merge(late);
        assert_eq!((sum.sent_late, sum.lag_max_ns), (2, LATE_AFTER_NS));
    }

    #[test]
    fn replies_are_taken_off_the_oldest_requests() {
        let group = |since_ns, requests| Sent {
            since_ns,
            requests,
            counted: true,
        };
        let mut in_flight = InFlight::default();
        in_flight.push(group(1, 3));
        in_flight.push(group(2, 1));
        in_flight.answer_oldest(2);
        assert_eq!(in_flight.oldest(), Some(group(1, 1)));
        in_flight.answer_oldest(1);
        assert_eq!(in_flight.oldest(), Some(group(2, 1)));
        assert_eq!(in_flight.requests(), 1);
        in_flight.answer_oldest(1);
        assert_eq!(in_flight.oldest(), None);
        assert_eq!(in_flight.requests(), 0);
    }
}
