//! `MSET`, which is as many `SET`s, and `MSETNX`, which stores all or nothing.
//!
//! `MSETNX` has the shards of all its keys locked from the look whether they are there to the last change, and
//! its changes are one frame of the log. So nobody sees some of them without the others, nor does a server that
//! is started after a crash.

use super::namespace::Together;
use super::slice::{Slice, WRITE_UNITS};
use super::waiters::Concerns;
use super::{Answer, Here, HowFar, Namespace, Session};
use crate::command::{Code, Error, Expiry, Reply, Set, SetAnswer, SetIf, Words, stored_value};
use crate::log::record;
use crate::store::{Ask, Key, Verdict, WindowMode};

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
        let keys: Vec<_> = pairs(words).map(|(key, _)| self.key(here, key)).collect();
        // The space for it is found before anything is locked.
        let changes_bytes = |at: usize| {
            let (key, value) = (words.get(2 * at).len(), words.get(2 * at + 1).len());
            record::bytes_max(key, value) + record::bytes_max(key, 0)
        };
        let Ok(mut together) = here.lock_together(&keys, changes_bytes) else {
            return Err(self.engine.no_frame(here));
        };
        let is_there = |key| together.shard(key).get(key, self.now).is_some();
        if keys.iter().any(is_there) {
            return Ok(Reply::Number(0));
        }
        let values = pairs(words).map(|(_, value)| value);
        let mut stored = keys.iter().zip(values);
        let unstored = stored.position(|(key, value)| !self.store_new(&mut together, key, value));
        if let Some(stored) = unstored {
            together.take_back(&keys[..stored], self.now);
            return match self.engine.successor(here) {
                Some(next) => self.msetnx(&next, words),
                None => Err(self.engine.no_room(here)),
            };
        }
        together.finish();
        for (key, _) in pairs(words) {
            self.engine.waiters.wake(here, key, Concerns::All);
        }
        Ok(Reply::Number(1))
    }

    /// Stores one of them; false if there is no room.
    fn store_new(&self, together: &mut Together<'_>, key: &Key<'_>, value: &[u8]) -> bool {
        let ttl_ms = together.policy().ttl_ms;
        let value = stored_value(value);
        together.write(key, |shard, room| {
            let ask = Ask {
                ttl_ms,
                value,
                mode: WindowMode::Fixed,
                ..Ask::default()
            };
            match shard.seen(key, &ask, room, self.now) {
                Verdict::New | Verdict::Unsure => true,
                // It was named before, in the same request: the last value counts.
                Verdict::Dup | Verdict::Mismatch => {
                    let deadline = self.now.after(ttl_ms);
                    shard.set(key, value, deadline, room, self.now)
                }
                Verdict::Full => false,
            }
        })
    }
}
