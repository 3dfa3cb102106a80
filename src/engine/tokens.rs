//! Fencing tokens: numbers that rise, and that no two holders of any record are ever given.
//!
//! Not even across restarts: with a log, which knows the last one, and without one by the clock, since
//! a run begins with a number that stands for the moment of its start. Both hold at once, and the
//! higher one counts.

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

/// A run begins below this, whatever its clock says.
const FIRST_MAX: u64 = TOKENS_MAX - (1 << 40);

/// Where tokens come from.
#[derive(Clone, Debug)]
pub(super) struct Tokens {
    /// The last one that was given; all that will be are above.
    last: Arc<AtomicU64>,
}

impl Tokens {
    /// Those of a run that begins now.
    pub(super) fn starting(now: Millis) -> Self {
        let first = now.0.saturating_sub(FIRST_MS).saturating_mul(TOKENS_PER_MS);
        Self {
            last: Arc::new(AtomicU64::new(first.min(FIRST_MAX))),
        }
    }

    /// Another one.
    pub(super) fn next(&self) -> u64 {
        self.last.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Whether this one may have been given, by this run or one before.
    pub(super) fn may_be_given(&self, token: u64) -> bool {
        token <= self.last.load(Ordering::Relaxed)
    }

    /// Lets all that come be above those of earlier runs, of which a log knows this one as the last, or 0
    /// for none; returns what a log needs that goes on.
    pub(super) fn go_on_after(&self, before: u64) -> TokensGiven {
        if before > 0 {
            let first = before.saturating_add(LOST_MAX).min(FIRST_MAX);
            self.last.fetch_max(first, Ordering::Relaxed);
        }
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
    fn a_clock_of_any_kind_leaves_tokens_to_give() {
        for now in [0, 1, FIRST_MS, 4_000_000_000_000, u64::MAX] {
            let tokens = Tokens::starting(Millis(now));
            let token = tokens.next();
            assert!(token > 0 && token < TOKENS_MAX, "{now}");
            tokens.go_on_after(u64::MAX);
            assert!(tokens.next() < TOKENS_MAX, "{now}");
        }
    }
}
