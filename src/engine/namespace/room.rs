//! Whether a shard may grow: a namespace's answer, with its bound, the server's memory and the log in mind.

use std::cell::Cell;

use parking_lot::MutexGuard;

use super::{Namespace, Policy};
use crate::store::{Denial, Room, Shard, Verdict};
use crate::time::Millis;

/// A namespace's answer to a shard that wants to grow.
#[derive(Debug)]
pub(in crate::engine) struct NamespaceRoom<'a> {
    namespace: &'a Namespace,
    /// The number of the shard that asks, which is locked.
    shard: usize,
    keys_max: u64,
    evict: bool,
    /// The log takes no change.
    refuses: bool,
    /// Why the last change was not admitted.
    denial: Cell<Denial>,
    /// What changes under this lock have added to keys and bytes and not yet published.
    keys: isize,
    bytes: isize,
    /// The shard's keys and bytes when it was locked.
    keys_before: isize,
    bytes_before: isize,
}

impl<'a> NamespaceRoom<'a> {
    pub(super) fn new(namespace: &'a Namespace, shard: usize, policy: &Policy) -> Self {
        Self {
            namespace,
            shard,
            keys_max: policy.keys_max,
            evict: policy.evict,
            refuses: false,
            denial: Cell::new(Denial::Memory),
            keys: 0,
            bytes: 0,
            keys_before: 0,
            bytes_before: 0,
        }
    }

    /// For several changes under one lock, of which each is [counted](Self::count).
    pub(super) fn for_many(
        namespace: &'a Namespace,
        index: usize,
        policy: &Policy,
        shard: &Shard,
    ) -> Self {
        Self {
            keys_before: shard.len() as isize,
            bytes_before: shard.bytes() as isize,
            ..Self::new(namespace, index, policy)
        }
    }

    /// Whether the next change has its place in the log; if not, there is no room for it.
    #[inline]
    pub(in crate::engine) fn refuse_unless(&mut self, is_promised: bool) {
        self.refuses = !is_promised;
    }

    /// Takes a question's effect into account, where several are asked under one lock.
    #[inline]
    pub(in crate::engine) fn count(&mut self, shard: &Shard, verdict: Verdict) {
        if verdict != Verdict::Dup {
            self.keys = shard.len() as isize - self.keys_before;
            self.bytes = shard.bytes() as isize - self.bytes_before;
        }
    }

    /// Whether a change is admitted, and if not, why.
    #[inline]
    fn admits_if(&self, memory_fits: bool, keys_fit: bool) -> bool {
        if memory_fits && keys_fit && !self.refuses {
            return true;
        }
        self.denial.set(if self.refuses {
            Denial::Disk
        } else if keys_fit {
            Denial::Memory
        } else {
            Denial::Keys
        });
        false
    }

    /// Another shard, unless it is busy: waiting for it while holding one could wait for ever.
    fn try_lock_other(&self, further: usize) -> Option<MutexGuard<'_, Shard>> {
        let shards = &self.namespace.shards;
        shards[(self.shard + further) % shards.len()].try_lock()
    }
}

impl Room for NamespaceRoom<'_> {
    fn admits(&self, keys: isize, bytes: isize) -> bool {
        let keys_fit = self.keys_max == 0
            || keys <= 0
            || self
                .namespace
                .keys()
                .saturating_add_signed((keys + self.keys) as i64)
                <= self.keys_max;
        if keys > 0 && self.namespace.is_closed() {
            self.denial.set(Denial::Closed);
            return false;
        }
        let memory_fits = self.namespace.budget.admits(bytes + self.bytes);
        self.admits_if(memory_fits, keys_fit)
    }

    fn admits_of_reserve(&self, bytes: isize) -> bool {
        let memory_fits = self.namespace.budget.admits_of_reserve(bytes + self.bytes);
        self.admits_if(memory_fits, true)
    }

    fn refused(&self) -> Denial {
        let denial = self.denial.get();
        self.namespace.note_denial(denial);
        denial
    }

    fn evicts(&self) -> bool {
        self.evict && !self.refuses
    }

    fn reclaim_elsewhere(&self, now: Millis) {
        const STEPS: usize = 32;
        // Memory is the sweeper's business; a namespace's own bound is missed by whoever asks next.
        if self.keys_max == 0 || self.namespace.keys() < self.keys_max {
            return;
        }
        for further in 1..self.namespace.shards.len() {
            if let Some(mut other) = self.try_lock_other(further) {
                self.namespace
                    .change(&mut other, |shard| shard.expire(now, STEPS));
            }
        }
    }

    fn evict_elsewhere(&self, now: Millis) -> bool {
        (1..self.namespace.shards.len()).any(|further| {
            self.try_lock_other(further).is_some_and(|mut other| {
                let evicted = self
                    .namespace
                    .change(&mut other, |shard| shard.evict_soonest(now));
                if let Some(deadline) = evicted.filter(|&deadline| now <= deadline) {
                    self.namespace.note_evicted(deadline);
                }
                evicted.is_some()
            })
        })
    }

    fn evicted(&self, deadline: Millis) {
        self.namespace.note_evicted(deadline);
    }

    #[inline]
    fn may_have_lost(&self, ttl_ms: u64, now: Millis) -> bool {
        self.namespace.reach.may_have_lost(ttl_ms, now)
    }
}
