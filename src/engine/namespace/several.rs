//! Several shards of a namespace, locked together.
//!
//! Whoever locks more than one does so in ascending order, as all of them are locked where a namespace is
//! emptied: so two of them never wait for each other.

use parking_lot::MutexGuard;

use super::{Namespace, NamespaceRoom, Policy};
use crate::engine::batch::SHARDS_MAX;
use crate::engine::journal::{Joint, Writing};
use crate::store::{Hashed, Key, Shard};

/// Shards of a namespace that are locked.
#[derive(Debug)]
pub(in crate::engine) struct LockedShards<'a> {
    namespace: &'a Namespace,
    /// By their numbers.
    shards: Vec<(usize, MutexGuard<'a, Shard>)>,
}

impl Namespace {
    /// Locks the shards that these keys belong to, in ascending order.
    pub(in crate::engine) fn lock_ascending(
        &self,
        keys: impl Iterator<Item = Hashed>,
    ) -> LockedShards<'_> {
        let mut is_asked = [false; SHARDS_MAX];
        for key in keys {
            is_asked[self.index_of(&key)] = true;
        }
        let asked = (0..self.shards.len()).filter(|&index| is_asked[index]);
        LockedShards {
            namespace: self,
            shards: asked
                .map(|index| (index, self.shards[index].lock()))
                .collect(),
        }
    }
}

impl LockedShards<'_> {
    /// Reads the shard of a key, one of those that they were locked for.
    pub(in crate::engine) fn read<R>(
        &mut self,
        key: &Key<'_>,
        read: impl FnOnce(&Shard) -> R,
    ) -> R {
        read(self.of(key).1)
    }

    /// Changes the shard of such a key; the change goes into the log with the others of `joint`.
    pub(in crate::engine) fn write<R>(
        &mut self,
        key: &Key<'_>,
        joint: &mut Joint<'_>,
        policy: &Policy,
        change: impl FnOnce(&mut Writing<'_, '_>, &mut NamespaceRoom<'_>) -> R,
    ) -> R {
        let namespace = self.namespace;
        let (index, shard) = self.of(key);
        let mut room = NamespaceRoom::new(namespace, index, policy);
        namespace.change(shard, |shard| {
            joint.write(shard, namespace, |writing| change(writing, &mut room))
        })
    }

    fn of(&mut self, key: &Key<'_>) -> (usize, &mut Shard) {
        let index = self.namespace.index(key);
        let at = self
            .shards
            .binary_search_by_key(&index, |(index, _)| *index);
        let at = at.expect("the shards were locked for this key");
        (index, &mut self.shards[at].1)
    }
}
