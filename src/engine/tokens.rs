//! Fencing tokens: numbers that rise, and that no two holders of any record are ever given.
//!
//! Not even across restarts: with a log, which knows the last one, and without one by the clock, since
//! a run begins with a number that stands for the moment of its start. With a log both hold at once, and the
//! higher one counts; but the clock has no say in the upper half of all numbers, so that one start with a
//! clock that is decades ahead takes none from the runs that follow.
//!
//! A number is never given twice for want of another: where none is left, none is given.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::log::writer::TokensGiven;
use crate::store::TOKENS_MAX;
use crate::time::Millis;

/// Tokens for each millisecond from one start to the next. A run would have to give more than four
/// million a second from beginning to end for the next one to begin below.
const TOKENS_PER_MS: u64 = 1 << 12;
/// The moment of token 0: the beginning of 2025. They last until 2094.
const FIRST_MS: u64 = 1_735_689_600_000;

/// Tokens that may have been given and are not in the log: a power loss takes the last two seconds with it.
const LOST_MAX: u64 = 1 << 28;

/// With a log, a clock makes a run begin no higher than this, whatever it says: its moment is in 2059.
const BY_CLOCK_MAX: u64 = TOKENS_MAX / 2;

/// Of all tokens the last ones, which are not given: many threads may see at once that there is one left.
const KEPT_BACK: u64 = 1 << 20;

/// Where tokens come from.
#[derive(Clone, Debug)]
pub(super) struct Tokens {
    /// The last one that was given; all that will be are above.
    last: Arc<AtomicU64>,
    /// What the clock made of the run's start.
    by_clock: u64,
}

impl Tokens {
    /// Those of a run that begins now.
    pub(super) fn starting(now: Millis) -> Self {
        let by_clock = now.0.saturating_sub(FIRST_MS).saturating_mul(TOKENS_PER_MS);
        // Beyond the last number there is no telling which ones a run before had.
        let by_clock = by_clock.min(TOKENS_MAX - 1);
        Self {
            last: Arc::new(AtomicU64::new(by_clock)),
            by_clock,
        }
    }

    /// Another one; for who has seen that not [all are given](Self::are_spent).
    pub(super) fn next(&self) -> u64 {
        self.last.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Whether there is none left.
    #[inline]
    pub(super) fn are_spent(&self) -> bool {
        self.last.load(Ordering::Relaxed) >= TOKENS_MAX - KEPT_BACK
    }

    /// Whether this one may have been given, by this run or one before.
    pub(super) fn may_be_given(&self, token: u64) -> bool {
        token <= self.last.load(Ordering::Relaxed)
    }

    /// Lets all that come be above those of earlier runs, of which a log knows this one as the last, or 0
    /// for none; returns what a log needs that goes on. For a run that has given none yet.
    pub(super) fn go_on_after(&self, before: u64) -> TokensGiven {
        let after_log = match before {
            0 => 0,
            before => before.saturating_add(LOST_MAX).min(TOKENS_MAX - 1),
        };
        let first = self.by_clock.min(BY_CLOCK_MAX).max(after_log);
        self.last.store(first, Ordering::Relaxed);
        TokensGiven(Arc::clone(&self.last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_rise_within_a_run_and_from_start_to_start() {
        let start = Millis(1_790_000_000_000);
        let first = Tokens::starting(start);
        let given: Vec<u64> = (0..TOKENS_PER_MS - 1).map(|_| first.next()).collect();
        assert!(given.is_sorted() && given[0] > 0);
        let next = Tokens::starting(start.after(1)).next();
        assert!(next > *given.last().unwrap());
        assert!(next < TOKENS_MAX);
    }

    #[test]
    fn a_log_goes_on_above_what_it_knows_whatever_the_clock_says() {
        let tokens = Tokens::starting(Millis(0));
        let reached = tokens.go_on_after(1_000_000).0;
        assert_eq!(reached.load(Ordering::Relaxed), 1_000_000 + LOST_MAX);
        assert_eq!(tokens.next(), 1_000_000 + LOST_MAX + 1);
        // A new log knows of none, and none was given.
        let reached = Tokens::starting(Millis(0)).go_on_after(0).0;
        assert_eq!(reached.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn with_a_log_a_clock_of_any_kind_leaves_tokens_to_give_and_none_is_given_twice() {
        const YEAR_2100_MS: u64 = 4_102_444_800_000;
        let mut last = 0;
        // Wrong clocks in any order, and hundreds of runs by each.
        for now in [
            YEAR_2100_MS,
            FIRST_MS,
            u64::MAX,
            0,
            YEAR_2100_MS,
            1_790_000_000_000,
        ] {
            for _ in 0..300 {
                let tokens = Tokens::starting(Millis(now));
                tokens.go_on_after(last);
                assert!(!tokens.are_spent(), "{now}");
                let token = tokens.next();
                assert!(token > last && token < TOKENS_MAX, "{now}");
                last = token;
            }
        }
    }

    #[test]
    fn where_none_is_left_that_is_known_before_one_is_given() {
        // Without a log, nobody knows which ones a run before had whose clock was past the last as well.
        assert!(Tokens::starting(Millis(u64::MAX)).are_spent());
        assert!(!Tokens::starting(Millis(3_900_000_000_000)).are_spent());
        for before in [TOKENS_MAX - 1, TOKENS_MAX - LOST_MAX, u64::MAX] {
            let tokens = Tokens::starting(Millis(FIRST_MS));
            let reached = tokens.go_on_after(before).0;
            assert!(tokens.are_spent(), "{before}");
            assert!(reached.load(Ordering::Relaxed) < TOKENS_MAX);
        }
        let tokens = Tokens::starting(Millis(FIRST_MS));
        tokens.go_on_after(TOKENS_MAX - LOST_MAX - KEPT_BACK - 1);
        assert!(!tokens.are_spent());
        assert!(tokens.next() < TOKENS_MAX && tokens.are_spent());
    }
}
