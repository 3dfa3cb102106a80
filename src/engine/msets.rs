//! `MSET`, which is as many `SET`s, and `MSETNX`, which stores all or nothing.
//!
//! `MSETNX` has the shards of all its keys locked from the look whether they are there to the last change, and
//! its changes are one frame of the log. So nobody sees some of them without the others, nor does a server that
//! is started after a crash.

use super::journal::{Joint, Promise};
use super::namespace::LockedShards;
use super::slice::{Slice, WRITE_UNITS};
use super::waiters::Concerns;
use super::{Answer, Here, HowFar, Namespace, Policy, Session};
use crate::command::{Code, Error, Expiry, Reply, Set, SetAnswer, SetIf, Words, stored_value};
use crate::log::{frame, record};
use crate::store::{Ask, Verdict, WindowMode};

/// The keys and values of such a request.
fn pairs(words: Words<'_>) -> impl Iterator<Item = (&[u8], &[u8])> + Clone {
    (0..words.len() / 2).map(move |at| (words.get(2 * at), words.get(2 * at + 1)))
}

impl Here<'_> {
    pub(super) fn mset(
        &self,
        session: &mut Session,
        words: Words<'_>,
        slice: &mut Slice,
    ) -> Result<bool, Error> {
        let Session {
            namespace,
            progress,
            ..
        } = session;
        let keys = words.len() / 2;
        while progress.next < keys {
            if slice.is_over() {
                return Ok(false);
            }
            let (key, value) = (
                words.get(2 * progress.next),
                words.get(2 * progress.next + 1),
            );
            let set = Set {
                key,
                value,
                expiry: Expiry::Default,
                condition: SetIf::Always,
                answer: SetAnswer::OkOrNil,
            };
            let how_far = HowFar {
                done: progress.next,
                of: keys,
                parts: "keys are set, the first ones",
            };
            self.set(namespace, &set)
                .map_err(|error| self.set_so_far(namespace, error, how_far))?;
            progress.next += 1;
            slice.spend(WRITE_UNITS);
            slice.spend_bytes(key.len() + value.len());
        }
        Ok(true)
    }

    /// Why not all keys of a request were set.
    fn set_so_far(&self, namespace: &Namespace, error: Error, how_far: HowFar) -> Error {
        match error.code {
            Code::Full => self.engine.no_room_after(namespace, how_far),
            Code::Redis => Error::redis(format!("{}; {how_far}", error.text)),
            _ => error,
        }
    }

    pub(super) fn msetnx<'s>(&self, here: &Namespace, words: Words<'_>) -> Answer<'s> {
        let policy = here.policy();
        // The space for it is found before anything is locked.
        let mut joint = Joint::new(self.promise_for(words));
        let hashed = pairs(words).map(|(key, _)| self.engine.hashed(here, key));
        let mut shards = here.lock_ascending(hashed);
        let is_there = |shards: &mut LockedShards<'_>, key| {
            let key = self.key(here, key);
            shards.read(&key, |shard| shard.get(&key, self.now).is_some())
        };
        if pairs(words).any(|(key, _)| is_there(&mut shards, key)) {
            joint.give_up();
            return Ok(Reply::Number(0));
        }
        let unstored = pairs(words)
            .position(|pair| !self.store_new(here, &mut shards, (&mut joint, &policy), pair));
        if let Some(stored) = unstored {
            for (key, _) in pairs(words).take(stored) {
                let key = self.key(here, key);
                shards.write(&key, &mut joint, &policy, |shard, _| {
                    shard.take_back(&key, self.now);
                });
            }
            joint.give_up();
            drop(shards);
            return match self.engine.successor(here) {
                Some(next) => self.msetnx(&next, words),
                None => Err(self.engine.no_room(here)),
            };
        }
        joint.finish(here);
        drop(shards);
        for (key, _) in pairs(words) {
            self.engine.waiters.wake(here, key, Concerns::All);
        }
        Ok(Reply::Number(1))
    }

    /// Space in the log for all of them, if there is a log.
    fn promise_for(&self, words: Words<'_>) -> Promise<'_> {
        let Some(log) = self.engine.log() else {
            return Promise::of(None, 0);
        };
        let bytes = pairs(words).map(|(key, value)| {
            record::bytes_max(key.len(), value.len()) + record::bytes_max(key.len(), 0)
        });
        Promise::of(Some(log), frame::HEADER_BYTES + bytes.sum::<usize>())
    }

    /// Stores one of them; false if there is no room.
    fn store_new(
        &self,
        here: &Namespace,
        shards: &mut LockedShards<'_>,
        (joint, policy): (&mut Joint<'_>, &Policy),
        (key, value): (&[u8], &[u8]),
    ) -> bool {
        let kept = self.key(here, key);
        let value = stored_value(value);
        shards.write(&kept, joint, policy, |shard, room| {
            let ask = Ask {
                ttl_ms: policy.ttl_ms,
                value,
                mode: WindowMode::Fixed,
                ..Ask::default()
            };
            match shard.seen(&kept, &ask, room, self.now) {
                Verdict::New | Verdict::Unsure => true,
                // It was named before, in the same request: the last value counts.
                Verdict::Dup | Verdict::Mismatch => {
                    let deadline = self.now.after(policy.ttl_ms);
                    shard.set(&kept, value, deadline, room, self.now)
                }
                Verdict::Full => false,
            }
        })
    }
}
