//! The memory that keys and buffers share.

use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicU64, Ordering};

use crossbeam::utils::CachePadded;

use crate::store::{Denial, Ledger};

/// What ending work that was begun may take beyond the bound, in percent of it.
const RESERVE_PERCENT: isize = 5;

/// What replies may take where keys have taken all there is, in percent of the bound; at least
/// [`SHARE_BYTES_MIN`]. A full server that evicts goes on answering.
const REPLIES_PERCENT: isize = 6;
/// The same for commands that are queued for `EXEC`.
const QUEUED_PERCENT: isize = 2;
/// Either in bytes, where the bound is small.
const SHARE_BYTES_MIN: isize = 1 << 20;

/// Bytes in use against their bound; one for a whole server.
#[derive(Debug)]
pub struct Budget {
    used: CachePadded<AtomicIsize>,
    /// Those of them that replies take which were not sent yet.
    replies: CachePadded<AtomicIsize>,
    /// Those of them that commands take which wait for `EXEC`.
    queued: AtomicIsize,
    max: AtomicIsize,
    overhead: AtomicIsize,
    /// How often something was refused, by reason.
    refused: [AtomicU64; 4],
    /// Whether memory is refused at the moment.
    is_full: AtomicBool,
}

impl Budget {
    /// So many bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            used: CachePadded::new(AtomicIsize::new(0)),
            replies: CachePadded::new(AtomicIsize::new(0)),
            queued: AtomicIsize::new(0),
            max: AtomicIsize::new(isize::try_from(bytes_max).unwrap_or(isize::MAX)),
            overhead: AtomicIsize::new(0),
            refused: Default::default(),
            is_full: AtomicBool::new(false),
        }
    }

    /// Bytes in use.
    pub fn used(&self) -> usize {
        // Threads add and subtract in any order; for a moment the sum may be below nothing.
        self.used.load(Ordering::Relaxed).max(0).unsigned_abs()
    }

    /// The bound.
    pub fn max(&self) -> usize {
        self.bound().unsigned_abs()
    }

    /// Sets another bound. What is beyond it stays, and nothing is added to it.
    pub fn set_max(&self, bytes_max: usize) {
        let max = isize::try_from(bytes_max).unwrap_or(isize::MAX);
        self.max.store(max, Ordering::Relaxed);
    }

    fn bound(&self) -> isize {
        self.max.load(Ordering::Relaxed)
    }

    /// Takes note of a refusal.
    pub fn note_refusal(&self, denial: Denial) {
        self.refused[denial as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many there were for this reason.
    pub fn refused(&self, denial: Denial) -> u64 {
        self.refused[denial as usize].load(Ordering::Relaxed)
    }

    /// Says whether memory is refused at the moment.
    pub fn set_full(&self, is_full: bool) {
        self.is_full.store(is_full, Ordering::Relaxed);
    }

    /// What was said so.
    pub fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }

    /// Bytes of the bound that are not given out, since the process holds more than is counted.
    pub fn overhead(&self) -> usize {
        self.overhead.load(Ordering::Relaxed).unsigned_abs()
    }

    /// Says how many bytes of the bound are not to be given out.
    pub fn set_overhead(&self, bytes: usize) {
        let bytes = isize::try_from(bytes).unwrap_or(isize::MAX);
        self.overhead.store(bytes, Ordering::Relaxed);
    }

    /// What is used, and what is not given out.
    fn taken(&self) -> isize {
        let used = self.used.load(Ordering::Relaxed);
        used.saturating_add(self.overhead.load(Ordering::Relaxed))
    }

    /// Whether so many more bytes may be used. Threads that ask at the same time may both be
    /// admitted to the last place: the bound is exceeded by at most one insertion per thread.
    pub fn admits(&self, bytes: isize) -> bool {
        bytes <= 0 || self.taken().saturating_add(bytes) <= self.bound()
    }

    /// The same where there is a reserve beyond the bound: so that work that was begun can be ended.
    pub fn admits_of_reserve(&self, bytes: isize) -> bool {
        let bound = self.bound();
        let reserve = bound / 100 * RESERVE_PERCENT;
        let max = bound.saturating_add(reserve);
        // What is not given out is not taken of the reserve.
        let taken = self
            .taken()
            .min(bound)
            .max(self.used.load(Ordering::Relaxed));
        bytes <= 0 || taken.saturating_add(bytes) <= max
    }

    /// Whether replies may take so many more bytes: of what is left, or else of what is theirs.
    pub fn admits_reply(&self, bytes: isize) -> bool {
        self.admits(bytes) || self.admits_of_share(&self.replies, REPLIES_PERCENT, bytes)
    }

    /// The same for commands that are queued for `EXEC`.
    pub fn admits_queued(&self, bytes: isize) -> bool {
        self.admits(bytes) || self.admits_of_share(&self.queued, QUEUED_PERCENT, bytes)
    }

    /// Whether there is so much left of a share of the bound that keys cannot take.
    fn admits_of_share(&self, taken: &AtomicIsize, percent: isize, bytes: isize) -> bool {
        let share = (self.bound() / 100 * percent).max(SHARE_BYTES_MIN);
        taken.load(Ordering::Relaxed).saturating_add(bytes) <= share
    }

    /// Counts bytes of replies that came into use, or went out of it.
    pub fn change_replies(&self, bytes: isize) {
        self.change_share(&self.replies, bytes);
    }

    /// The same of queued commands.
    pub fn change_queued(&self, bytes: isize) {
        self.change_share(&self.queued, bytes);
    }

    fn change_share(&self, taken: &AtomicIsize, bytes: isize) {
        if bytes != 0 {
            taken.fetch_add(bytes, Ordering::Relaxed);
            self.change(bytes);
        }
    }

    /// Counts bytes that came into use, or went out of it.
    pub fn change(&self, bytes: isize) {
        if bytes != 0 {
            self.used.fetch_add(bytes, Ordering::Relaxed);
        }
    }
}

impl Ledger for Budget {
    fn change(&self, bytes: isize) {
        Self::change(self, bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_given_out_leaves_the_reserve() {
        const MAX: isize = 100 << 20;
        const RESERVE: isize = MAX / 100 * RESERVE_PERCENT;
        let budget = Budget::new(MAX.unsigned_abs());
        budget.change(MAX / 2);
        budget.set_overhead(MAX.unsigned_abs());
        assert!(!budget.admits(1));
        assert!(budget.admits_of_reserve(RESERVE) && !budget.admits_of_reserve(RESERVE + 1));
        budget.change(MAX / 2 + RESERVE);
        assert!(!budget.admits_of_reserve(1));
        budget.set_overhead(0);
        budget.change(-RESERVE - 1);
        assert!(budget.admits(1) && !budget.admits(2));
    }

    #[test]
    fn queued_commands_have_a_share_of_their_own() {
        let budget = Budget::new(100 << 20);
        budget.change(100 << 20);
        budget.change_replies(50 << 20);
        assert!(budget.admits_queued(2 << 20) && !budget.admits_queued((2 << 20) + 1));
        budget.change_queued(2 << 20);
        assert!(!budget.admits_queued(1));
        budget.change_queued(-(2 << 20));
        assert_eq!(budget.used(), 150 << 20);
    }

    #[test]
    fn replies_have_a_share_that_keys_cannot_take() {
        const MAX: isize = 100 << 20;
        const THEIRS: isize = MAX / 100 * REPLIES_PERCENT;
        let budget = Budget::new(MAX.unsigned_abs());
        assert!(budget.admits_reply(MAX) && !budget.admits_reply(MAX + 1));
        budget.change(MAX);
        assert!(!budget.admits(1));
        assert!(budget.admits_reply(THEIRS) && !budget.admits_reply(THEIRS + 1));
        budget.change_replies(THEIRS);
        assert_eq!(budget.used(), (MAX + THEIRS).unsigned_abs());
        assert!(budget.admits_reply(0) && !budget.admits_reply(1));
        budget.change_replies(-THEIRS);
        budget.change(-MAX);
        assert_eq!(budget.used(), 0);
        assert!(Budget::new(1).admits_reply(SHARE_BYTES_MIN));
    }
}
