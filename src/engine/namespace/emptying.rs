//! How a namespace is emptied: for good, or so that records in progress stay.
//!
//! In the log it gets another number, and what was stored under the one before is gone. All of that happens
//! under all locks, so that every key is either in what was taken out or stored under the new number.

use std::sync::atomic::Ordering;

use super::{Namespace, Spared};
use crate::store::{Secret, Shard};
use crate::time::Millis;

/// Why a namespace was not emptied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Kept {
    /// The log has no space to say so.
    NoSpace,
    /// There are records in progress.
    InProgress,
}

impl Namespace {
    /// Takes all keys out, so that all of this moment and before may be missing; their bytes stay counted
    /// until the shards that are returned are dropped. Where records in progress are spared, those stay.
    pub(in crate::engine) fn clear(
        &self,
        secret: &Secret,
        spares: bool,
        now: Millis,
    ) -> Result<Vec<Shard>, Kept> {
        let _no_other_policy_meanwhile = self.policy_change.lock();
        let mut shards: Vec<_> = self.shards.iter().map(|shard| shard.lock()).collect();
        if self.is_closed() {
            // It has no key, and by now the log may know another by its name.
            return Ok(Vec::new());
        }
        if let Some(log) = self.log() {
            let mut staying = Spared::new(log);
            for shard in shards.iter().filter(|_| spares) {
                if self.keeps_digests && shard.running() > 0 {
                    // The log would have to know keys of which nobody else does.
                    return Err(Kept::InProgress);
                }
                shard.each_running(secret, now, |key, entry| staying.push(key, &entry));
            }
            let logged = self.log_with(staying, |space| {
                space.id = 0;
                space.covered_since = space.covered_since.max(now.after(1));
            });
            logged.map_err(|_no_space| Kept::NoSpace)?;
        }
        self.raise_lost_until(now);
        let taken = shards.iter_mut().filter_map(|shard| {
            let taken = self.take_all(shard)?;
            if spares && taken.running() > 0 {
                self.change(shard, |shard| {
                    taken.each_running(secret, now, |key, entry| {
                        shard.keep_record(key, &entry, now);
                    });
                });
            }
            Some(taken)
        });
        Ok(taken.collect())
    }

    /// Takes all keys out and no more in, since it is to be gone; once `log` says that the log knows.
    pub(in crate::engine) fn close_for_good(
        &self,
        spares: bool,
        is_logged: impl FnOnce() -> bool,
        now: Millis,
    ) -> Result<Vec<Shard>, Kept> {
        let mut shards: Vec<_> = self.shards.iter().map(|shard| shard.lock()).collect();
        if spares && shards.iter().any(|shard| shard.has_running(now)) {
            return Err(Kept::InProgress);
        }
        if !is_logged() {
            return Err(Kept::NoSpace);
        }
        // Who is under way finds it closed, and goes to one that is made anew.
        self.closed.store(true, Ordering::Relaxed);
        self.mark_dropped();
        self.raise_lost_until(now);
        let taken = shards.iter_mut().filter_map(|shard| self.take_all(shard));
        Ok(taken.collect())
    }

    /// Takes all keys out of what nobody looks at any more.
    pub(in crate::engine) fn take_out(&self) -> Vec<Shard> {
        let shards = self.shards.iter();
        shards
            .filter_map(|shard| self.take_all(&mut shard.lock()))
            .collect()
    }

    fn take_all(&self, shard: &mut Shard) -> Option<Shard> {
        if shard.is_empty() {
            return None;
        }
        let old = shard.clear();
        self.keys.fetch_sub(old.len() as i64, Ordering::Relaxed);
        Some(old)
    }
}
