//! Giving memory back, a little at a time: keys whose window has ended, shards that were emptied,
//! memory that no shard uses.
//!
//! One call does about as much as two looks at a block of the table, some 30 µs: where workers and
//! the sweeper share one core, a request may have to wait for that long. With 4,096 looks in a call
//! it had to wait for 20 ms while ten million keys ended at once.

use std::sync::Arc;

use super::Engine;
use super::namespace::Namespace;
use crate::store::Shard;
use crate::store::{EXPIRE_STEP_SLOTS_MAX, tend_memory};
use crate::time::Millis;

/// One call goes on to another shard until it has looked at so many slots.
const SLOTS_ENOUGH: u64 = EXPIRE_STEP_SLOTS_MAX / 2;
/// One call drops shards that were emptied until they were so large. With one shard a call, a thousand small
/// namespaces that were dropped took as many times sixteen calls.
const GARBAGE_BYTES_ENOUGH: usize = 128 << 10;
/// Shards that one call visits at most: of most of them nothing has ended.
const VISITS_MAX: usize = 256;

/// Where the sweeping of all shards, one after the other, has come to.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// The namespaces that are left, the last one next.
    left: Vec<Arc<Namespace>>,
    /// The shard of that one that is next.
    shard: usize,
    /// Whether a shard had more to give back when it was left.
    is_unfinished: bool,
}

/// Where moving what is kept together has come to.
#[derive(Debug, Default)]
pub(super) struct Moving {
    /// The namespaces that are left, the last one next.
    left: Vec<Arc<Namespace>>,
    /// The shard of that one that is next, and where in it.
    shard: usize,
    cursor: u32,
}

impl Engine {
    /// Begins to move what is stored closer together, from the first namespace on; see
    /// [`Engine::move_some_together`].
    pub fn begin_moving_together(&self) {
        *self.moving.lock() = Moving {
            left: self.all_namespaces(),
            ..Moving::default()
        };
    }

    /// Moves some of what is stored elsewhere on the heap, so that pages on which little is left become empty;
    /// returns false once all has been moved. For a thread that has time, where the process holds much more
    /// memory than is [counted](Self::budget). It pays with an allocator that prefers full pages.
    pub fn move_some_together(&self) -> bool {
        let mut moving = self.moving.lock();
        let moving = &mut *moving;
        let Some(namespace) = moving.left.last() else {
            return false;
        };
        let next = namespace.move_together(moving.shard, moving.cursor);
        moving.cursor = next.unwrap_or(0);
        moving.shard += usize::from(next.is_none());
        if moving.shard == namespace.shard_count() {
            moving.left.pop();
            moving.shard = 0;
        }
        !moving.left.is_empty()
    }

    /// Gives some memory back; returns false once all shards were visited and nothing was left in them.
    /// Answers never depend on it: it is for a thread that has time, again soon where there is more to
    /// do, else some 50 ms later. What lapses behind its back is for the next round.
    pub fn sweep(&self, now: Millis) -> bool {
        let more_lapsed = self.sweep_shards(now);
        let more_garbage = self.drop_garbage();
        let more_memory = tend_memory();
        more_lapsed || more_garbage || more_memory
    }

    fn sweep_shards(&self, now: Millis) -> bool {
        let mut round = self.round.lock();
        let round = &mut *round;
        if round.left.is_empty() {
            round.left = self.all_namespaces();
            round.is_unfinished = false;
        }
        let mut slots = 0;
        for _ in 0..VISITS_MAX {
            let Some(namespace) = round.left.last() else {
                break;
            };
            namespace.log_unsure();
            let (looked_at, more) = namespace.expire(round.shard, now);
            slots += looked_at;
            round.is_unfinished |= more;
            round.shard += 1;
            if round.shard == namespace.shard_count() {
                round.left.pop();
                round.shard = 0;
            }
            if slots >= SLOTS_ENOUGH {
                break;
            }
        }
        round.is_unfinished || !round.left.is_empty()
    }

    /// Drops some of the shards that were emptied as a whole; returns whether there are more.
    fn drop_garbage(&self) -> bool {
        let mut bytes = 0;
        while bytes < GARBAGE_BYTES_ENOUGH {
            let shard = self.garbage.lock().pop();
            let Some(shard) = shard else {
                return false;
            };
            bytes += shard.bytes();
            self.drop_shard(shard);
        }
        true
    }

    /// Drops what was taken out of a namespace.
    pub(super) fn drop_shard(&self, shard: Shard) {
        let bytes = shard.bytes() as isize;
        drop(shard);
        self.budget.change(-bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::super::EngineConfig;
    use super::*;
    use crate::store::Ask;

    const KEYS: u64 = 100_000;

    fn full_engine() -> Engine {
        let engine = Engine::new(EngineConfig::default());
        let other = engine.open("other").unwrap();
        let ask = Ask {
            ttl_ms: 1_000,
            ..Ask::default()
        };
        for n in 0..KEYS {
            let namespace = if n % 2 == 0 { &other } else { &engine.default };
            engine.seen(namespace, &n.to_le_bytes(), &ask, Millis(n / 1_000));
        }
        engine
    }

    #[test]
    fn one_call_does_little_and_many_do_all() {
        let engine = full_engine();
        assert!(!engine.sweep(Millis(900)));
        assert_eq!(engine.totals().keys, KEYS);
        let (mut calls, mut before) = (1, KEYS);
        while engine.sweep(Millis(60_000)) {
            let keys = engine.totals().keys;
            assert!(before - keys <= SLOTS_ENOUGH + EXPIRE_STEP_SLOTS_MAX);
            (calls, before) = (calls + 1, keys);
        }
        assert_eq!(engine.totals().keys, 0);
        assert!(calls > KEYS / (SLOTS_ENOUGH + EXPIRE_STEP_SLOTS_MAX));
    }

    #[test]
    fn a_round_visits_every_shard_of_every_namespace() {
        let engine = full_engine();
        // More shards than one call visits.
        for n in 0..30 {
            engine.open(&format!("empty{n}")).unwrap();
        }
        assert!(engine.sweep(Millis(900)));
        // The round that has begun is gone on with; what had not lapsed yet is for the next.
        while engine.sweep(Millis(60_000)) {}
        while engine.sweep(Millis(60_000)) {}
        assert_eq!(engine.totals().keys, 0);
    }

    #[test]
    fn moving_together_ends_and_changes_nothing() {
        let engine = Engine::new(EngineConfig::default());
        let other = engine.open("other").unwrap();
        for n in 0..20_000_u64 {
            let key = format!("a key that does not fit sixteen bytes, number {n}");
            let ask = Ask {
                ttl_ms: 1_000,
                value: Some(key.as_bytes()),
                ..Ask::default()
            };
            engine.seen(&other, key.as_bytes(), &ask, Millis(0));
        }
        let (bytes, used) = (other.bytes(), engine.budget().used());
        engine.begin_moving_together();
        let mut steps = 1;
        while engine.move_some_together() {
            steps += 1;
        }
        assert!(steps > 32, "a step is small: {steps}");
        assert_eq!((other.bytes(), engine.budget().used()), (bytes, used));
        for n in 0..20_000_u64 {
            let text = format!("a key that does not fit sixteen bytes, number {n}");
            let key = other.key(&engine.secret, text.as_bytes());
            other.read(&key, |shard| {
                let entry = shard.get(&key, Millis(1)).unwrap();
                assert_eq!(entry.value().unwrap(), text.as_bytes());
            });
        }
    }
}
