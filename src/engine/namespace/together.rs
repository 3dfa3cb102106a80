//! The shards of several keys, locked at a time: what is to happen to all of the keys or to none.
//!
//! Nobody sees a part of it, since all shards are locked until the end, in the order of their numbers, as
//! everybody does who waits for one while another is locked. And no crash leaves a part of it, since all
//! changes are one frame of the log, which is read whole or not at all.

use parking_lot::MutexGuard;

use super::{Namespace, NamespaceRoom, Policy};
use crate::engine::journal::{OpenFrame, Promise, Refused, Writing};
use crate::store::{Key, Shard};
use crate::time::Millis;

/// The locked shards of several keys, and what was changed in them so far.
#[derive(Debug)]
pub(in crate::engine) struct Together<'n> {
    namespace: &'n Namespace,
    policy: Policy,
    /// By their numbers, which rise.
    shards: Vec<(usize, MutexGuard<'n, Shard>)>,
    promise: Promise<'n>,
    frame: OpenFrame,
}

impl Namespace {
    /// Locks the shards of these keys, whose changes take so many bytes in the log at most, each by its place; not
    /// if the log has no space for all of them in one frame.
    pub(in crate::engine) fn lock_together(
        &self,
        keys: &[Key<'_>],
        changes_bytes: impl Fn(usize) -> usize,
    ) -> Result<Together<'_>, Refused> {
        let changes = (0..keys.len()).map(changes_bytes);
        let promise = Promise::of_one_frame(self.log(), changes)?;
        let mut numbers: Vec<_> = keys.iter().map(|key| self.index(key)).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let shards = numbers.into_iter().map(|at| (at, self.shards[at].lock()));
        Ok(Together {
            namespace: self,
            policy: self.policy(),
            shards: shards.collect(),
            promise,
            frame: OpenFrame::default(),
        })
    }
}

impl Together<'_> {
    /// The policy as it was when they were locked.
    pub(in crate::engine) fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The shard of one of the keys.
    pub(in crate::engine) fn shard(&self, key: &Key<'_>) -> &Shard {
        &self.shards[self.place(key)].1
    }

    /// Changes the shard of one of the keys.
    pub(in crate::engine) fn write<R>(
        &mut self,
        key: &Key<'_>,
        change: impl FnOnce(&mut Writing<'_, '_>, &mut NamespaceRoom<'_>) -> R,
    ) -> R {
        let place = self.place(key);
        let Self {
            namespace,
            policy,
            shards,
            promise,
            frame,
        } = self;
        let (index, shard) = &mut shards[place];
        let mut room = NamespaceRoom::new(namespace, *index, policy);
        namespace.change(shard, |shard| {
            let open = std::mem::take(frame);
            let mut writing = Writing::going_on(shard, promise, namespace, open);
            let result = change(&mut writing, &mut room);
            *frame = writing.into_frame();
            result
        })
    }

    /// Has the log have all changes, and unlocks the shards.
    pub(in crate::engine) fn finish(mut self) {
        let Some((_, shard)) = self.shards.first_mut() else {
            return;
        };
        let frame = std::mem::take(&mut self.frame);
        Writing::going_on(shard, &mut self.promise, self.namespace, frame).finish();
    }

    /// Removes keys that were not there before, and unlocks the shards: nothing was changed.
    pub(in crate::engine) fn take_back(mut self, keys: &[Key<'_>], now: Millis) {
        for key in keys {
            let place = self.place(key);
            let shard = &mut self.shards[place].1;
            self.namespace.change(shard, |shard| {
                shard.remove(key, now);
                self.namespace.follow(shard, key, now);
            });
        }
        self.frame.discard(&mut self.promise);
    }

    fn place(&self, key: &Key<'_>) -> usize {
        let index = self.namespace.index(key);
        let place = self.shards.binary_search_by_key(&index, |(at, _)| *at);
        place.expect("the shards of all keys were locked")
    }
}
