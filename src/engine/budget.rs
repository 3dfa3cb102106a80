//! The memory that keys and buffers share.

use std::sync::atomic::{AtomicIsize, Ordering};

use crossbeam::utils::CachePadded;

use crate::store::Ledger;

/// What ending work that was begun may take beyond the bound, in percent of it.
const RESERVE_PERCENT: isize = 5;

/// Bytes in use against their bound; one for a whole server.
#[derive(Debug)]
pub struct Budget {
    used: CachePadded<AtomicIsize>,
    max: isize,
}

impl Budget {
    /// So many bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            used: CachePadded::new(AtomicIsize::new(0)),
            max: isize::try_from(bytes_max).unwrap_or(isize::MAX),
        }
    }

    /// Bytes in use.
    pub fn used(&self) -> usize {
        // Threads add and subtract in any order; for a moment the sum may be below nothing.
        self.used.load(Ordering::Relaxed).max(0).unsigned_abs()
    }

    /// The bound.
    pub fn max(&self) -> usize {
        self.max.unsigned_abs()
    }

    /// Whether so many more bytes may be used. Threads that ask at the same time may both be
    /// admitted to the last place: the bound is exceeded by at most one insertion per thread.
    pub fn admits(&self, bytes: isize) -> bool {
        bytes <= 0 || self.used.load(Ordering::Relaxed).saturating_add(bytes) <= self.max
    }

    /// The same where there is a reserve beyond the bound: so that work that was begun can be ended.
    pub fn admits_of_reserve(&self, bytes: isize) -> bool {
        let reserve = self.max / 100 * RESERVE_PERCENT;
        let max = self.max.saturating_add(reserve);
        bytes <= 0 || self.used.load(Ordering::Relaxed).saturating_add(bytes) <= max
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
