//! Redis's commands on keys: values, expiry in its units, scans.
//!
//! A key that was only seen has the value `1`, and a stored `1` takes no memory. Everything
//! expires: what names no expiry gets the namespace's TTL, what is beyond the longest is clamped.

use bytes::Bytes;

use super::glob;
use super::journal::{Refused, Writing};
use super::waiters::Concerns;
use super::{Answer, Here, Namespace, Policy};
use crate::command::{
    self, Error, ExpireIf, Expiry, Reply, Scan, Set, SetAnswer, SetIf, TtlForm, Words,
};
use crate::limits::KEYS_COMMAND_KEYS_MAX;
use crate::store::shard::Entry;
use crate::store::{Ask, Key, State, Verdict, WindowMode};
use crate::time::Millis;

/// Places that one lock is held for while keys are listed: a block of the table.
const SCAN_PLACES: u32 = 768;
/// Bytes of keys after which a `SCAN` answers, however many places are left to look at.
const SCAN_BYTES: usize = 256 << 10;
/// The most places that one `SCAN` looks at.
const SCAN_COUNT_MAX: u32 = 100_000;

/// What became of a `SET`.
enum Outcome {
    Stored,
    ConditionFailed,
    Full,
    /// It is a record, which has no value, or whose work is under way.
    WrongType,
}

impl Here<'_> {
    pub(super) fn set<'s>(&self, here: &Namespace, set: &Set<'_>) -> Answer<'s> {
        let policy = here.policy();
        let key = self.key(here, set.key);
        let value = set.stored_value();
        let (outcome, before) = here.write(&key, value, &policy, |shard, room| {
            let held = shard.get(&key, self.now);
            let value_before = held.and_then(|entry| value_of(&entry));
            // Nil would say that nothing was there.
            let cannot_tell = set.answer == SetAnswer::Before && value_before.is_none();
            if held.is_some_and(|entry| {
                cannot_tell || set.condition != SetIf::Absent && is_running(&entry)
            }) {
                return (Outcome::WrongType, None);
            }
            let holds = match set.condition {
                SetIf::Always | SetIf::Absent => true,
                SetIf::Present => held.is_some(),
                SetIf::Equals(value) => value_before.as_deref() == Some(value),
            };
            let before = value_before.filter(|_| set.answer == SetAnswer::Before);
            if !holds {
                return (Outcome::ConditionFailed, before);
            }
            let deadline = self.deadline(set.expiry, held.map(|entry| entry.deadline), &policy);
            if set.condition == SetIf::Absent {
                let ask = Ask {
                    ttl_ms: deadline.since(self.now),
                    value,
                    mode: WindowMode::Fixed,
                    ..Ask::default()
                };
                if deadline < self.now {
                    let outcome = if held.is_some() {
                        Outcome::ConditionFailed
                    } else {
                        Outcome::Stored
                    };
                    return (outcome, before);
                }
                let outcome = match shard.seen(&key, &ask, room, self.now) {
                    Verdict::New | Verdict::Unsure => Outcome::Stored,
                    Verdict::Dup | Verdict::Mismatch => Outcome::ConditionFailed,
                    Verdict::Full => Outcome::Full,
                };
                return (outcome, before);
            }
            if deadline < self.now {
                // As in Redis, a value that ends in the past is gone as soon as it is set.
                let outcome = match shard.remove(&key, self.now) {
                    Ok(_) => Outcome::Stored,
                    Err(Refused) => Outcome::Full,
                };
                return (outcome, before);
            }
            let stored = shard.set(&key, value, deadline, room, self.now);
            (
                if stored {
                    Outcome::Stored
                } else {
                    Outcome::Full
                },
                before,
            )
        });
        self.engine.waiters.wake(here, set.key, Concerns::All);
        match (outcome, set.answer) {
            (Outcome::WrongType, _) => Err(wrong_type()),
            (Outcome::Full, _) => match self.engine.successor(here) {
                Some(next) => self.set(&next, set),
                None => Err(self.engine.no_room()),
            },
            (_, SetAnswer::Before) => Ok(before.map_or(Reply::Nil, Reply::Value)),
            (Outcome::Stored, SetAnswer::OkOrNil) => Ok(Reply::OK),
            (Outcome::ConditionFailed, SetAnswer::OkOrNil) => Ok(Reply::Nil),
            (outcome, SetAnswer::Number) => {
                Ok(Reply::Number(i64::from(matches!(outcome, Outcome::Stored))))
            }
        }
    }

    pub(super) fn get<'s>(&self, here: &Namespace, key: &[u8]) -> Reply<'s> {
        self.value(here, key).map_or(Reply::Nil, Reply::Value)
    }

    pub(super) fn get_ex<'s>(&self, here: &Namespace, key: &[u8], expiry: Expiry) -> Answer<'s> {
        let policy = here.policy();
        let key = self.key(here, key);
        let value = here.write(&key, None, &policy, |shard, _| {
            let Some(entry) = shard.get(&key, self.now) else {
                return Ok(Ok(None));
            };
            let Some(value) = value_of(&entry) else {
                return Ok(Err(wrong_type()));
            };
            let deadline = self.deadline(expiry, Some(entry.deadline), &policy);
            self.end_at(shard, &key, deadline).map(|()| Ok(Some(value)))
        });
        Ok(self
            .unless_refused(value)??
            .map_or(Reply::Nil, Reply::Value))
    }

    pub(super) fn get_del<'s>(&self, here: &Namespace, key: &[u8]) -> Answer<'s> {
        let kept = self.key(here, key);
        let value = here.write(&kept, None, &here.policy(), |shard, _| {
            let Some(entry) = shard.get(&kept, self.now) else {
                return Ok(Ok(None));
            };
            let Some(value) = value_of(&entry) else {
                return Ok(Err(wrong_type()));
            };
            shard.remove(&kept, self.now).map(|_| Ok(Some(value)))
        });
        Ok(self
            .unless_refused(value)??
            .map_or(Reply::Nil, Reply::Value))
    }

    pub(super) fn del_if<'s>(
        &self,
        here: &Namespace,
        key: &[u8],
        equals: Option<&[u8]>,
    ) -> Answer<'s> {
        let kept = self.key(here, key);
        let removed = here.write(&kept, None, &here.policy(), |shard, _| {
            let held = shard.get(&kept, self.now);
            let matches = held.is_some_and(|entry| {
                equals.is_none_or(|value| value_of(&entry).as_deref() == Some(value))
            });
            if matches {
                shard.remove(&kept, self.now)
            } else {
                Ok(false)
            }
        });
        self.engine.waiters.wake(here, key, Concerns::Next);
        Ok(Reply::Number(i64::from(self.unless_refused(removed)?)))
    }

    pub(super) fn mget<'s>(&self, here: &Namespace, keys: Words<'_>) -> Answer<'s> {
        let max = self.engine.limits.unread_bytes_max;
        let mut bytes = 0;
        let mut values = Vec::with_capacity(keys.len());
        for key in keys.iter() {
            let value = self.value(here, key);
            bytes += value.as_ref().map_or(0, Bytes::len);
            if bytes > max {
                return Err(reply_too_big(max));
            }
            values.push(value.map_or(Reply::Nil, Reply::Value));
        }
        Ok(Reply::Array(values))
    }

    pub(super) fn exists<'s>(&self, here: &Namespace, keys: Words<'_>) -> Reply<'s> {
        Reply::Number(keys.iter().filter(|key| self.is_live(here, key)).count() as i64)
    }

    pub(super) fn strlen<'s>(&self, here: &Namespace, key: &[u8]) -> Reply<'s> {
        Reply::Number(self.value(here, key).map_or(0, |value| value.len() as i64))
    }

    pub(super) fn ttl_of<'s>(&self, here: &Namespace, key: &[u8], form: TtlForm) -> Reply<'s> {
        const NO_SUCH_KEY: i64 = -2;
        let key = self.key(here, key);
        let Some(deadline) = here.read(&key, |shard| {
            shard.get(&key, self.now).map(|entry| entry.deadline)
        }) else {
            return Reply::Number(NO_SUCH_KEY);
        };
        let left_ms = deadline.since(self.now);
        let number = match form {
            TtlForm::Millis => left_ms,
            TtlForm::Seconds => (left_ms + 500) / 1_000,
            TtlForm::AtMillis => deadline.0,
            TtlForm::AtSeconds => (deadline.0 + 500) / 1_000,
        };
        Reply::Number(number as i64)
    }

    pub(super) fn expire<'s>(
        &self,
        here: &Namespace,
        key: &[u8],
        expiry: Expiry,
        condition: ExpireIf,
    ) -> Answer<'s> {
        let policy = here.policy();
        let kept = self.key(here, key);
        let done = here.write(&kept, None, &policy, |shard, _| {
            let Some(entry) = shard.get(&kept, self.now) else {
                return Ok(Ok(false));
            };
            if is_running(&entry) {
                return Ok(Err(wrong_type()));
            }
            let held = entry.deadline;
            let deadline = self.deadline(expiry, Some(held), &policy);
            let goes_ahead = match condition {
                ExpireIf::Always => true,
                ExpireIf::Never => false,
                ExpireIf::Later => deadline > held,
                ExpireIf::Earlier => deadline < held,
            };
            if goes_ahead {
                self.end_at(shard, &kept, deadline)?;
            }
            Ok(Ok(goes_ahead))
        });
        self.engine.waiters.wake(here, key, Concerns::Next);
        Ok(Reply::Number(i64::from(self.unless_refused(done)??)))
    }

    pub(super) fn scan<'s>(&self, here: &Namespace, scan: &Scan<'_>) -> Reply<'s> {
        let mut cursor = scan.cursor;
        let mut found = Vec::new();
        let mut bytes = 0;
        let is_string = scan
            .kind
            .is_none_or(|kind| kind.eq_ignore_ascii_case(b"string"));
        let mut left = scan.count.min(SCAN_COUNT_MAX);
        while left > 0 && bytes < SCAN_BYTES {
            let places = left.min(SCAN_PLACES);
            left -= places;
            cursor = self.list(here, cursor, places, |key| {
                if is_string
                    && scan
                        .pattern
                        .is_none_or(|pattern| glob::matches(pattern, key))
                {
                    bytes += key.len();
                    found.push(Reply::Value(Bytes::copy_from_slice(key)));
                }
            });
            if cursor == 0 {
                break;
            }
        }
        Reply::Array(vec![Reply::text(cursor.to_string()), Reply::Array(found)])
    }

    pub(super) fn keys<'s>(&self, here: &Namespace, pattern: &[u8]) -> Answer<'s> {
        let max = self.engine.limits.unread_bytes_max;
        if here.keys() > KEYS_COMMAND_KEYS_MAX {
            return Err(Error::too_big(format!(
                "KEYS looks through at most {KEYS_COMMAND_KEYS_MAX} keys; use SCAN"
            )));
        }
        let (mut cursor, mut bytes) = (0, 0);
        let mut found = Vec::new();
        loop {
            cursor = self.list(here, cursor, SCAN_PLACES, |key| {
                if bytes <= max && glob::matches(pattern, key) {
                    // What an item costs in memory until it is sent, roughly.
                    bytes += key.len() + size_of::<Reply<'_>>();
                    found.push(Reply::Value(Bytes::copy_from_slice(key)));
                }
            });
            if bytes > max {
                return Err(reply_too_big(max));
            }
            if cursor == 0 {
                return Ok(Reply::Array(found));
            }
        }
    }

    /// Visits live keys from the cursor on; returns the next cursor, 0 at the end.
    fn list(
        &self,
        here: &Namespace,
        cursor: u64,
        places: u32,
        mut visit: impl FnMut(&[u8]),
    ) -> u64 {
        let (shard, place) = ((cursor >> 32) as usize, cursor as u32);
        if shard >= here.shard_count() {
            return 0;
        }
        // Keys are copied out while the shard is locked, and looked at when it is not.
        let (mut keys, mut ends) = (Vec::new(), Vec::new());
        let next = here.read_shard(shard, |shard| {
            shard.scan(place, places, self.now, |stored| {
                // Of some keys only a digest is known: they cannot be listed.
                if stored.write_to(&mut keys) {
                    ends.push(keys.len());
                }
            })
        });
        let mut begins = 0;
        for end in ends {
            visit(&keys[begins..end]);
            begins = end;
        }
        match next {
            Some(place) => (shard as u64) << 32 | u64::from(place),
            None if shard + 1 < here.shard_count() => (shard as u64 + 1) << 32,
            None => 0,
        }
    }

    fn value(&self, here: &Namespace, key: &[u8]) -> Option<Bytes> {
        let key = self.key(here, key);
        here.read(&key, |shard| {
            shard.get(&key, self.now).and_then(|entry| value_of(&entry))
        })
    }

    /// When a key ends that is set now; in the past for one that is not to be there at all.
    fn deadline(&self, expiry: Expiry, held: Option<Millis>, policy: &Policy) -> Millis {
        let latest = self.now.after(policy.ttl_max_ms);
        let default = self.now.after(policy.ttl_ms);
        match expiry {
            Expiry::Default => default,
            Expiry::Keep => held.unwrap_or(default),
            Expiry::Longest => latest,
            Expiry::In(ms) => self.now.after(ms).min(latest),
            Expiry::At(at) => at.min(latest),
        }
    }

    fn end_at(
        &self,
        shard: &mut Writing<'_, '_>,
        key: &Key<'_>,
        deadline: Millis,
    ) -> Result<(), Refused> {
        if deadline < self.now {
            shard.remove(key, self.now)?;
        } else {
            shard.set_deadline(key, deadline, self.now)?;
        }
        Ok(())
    }
}

/// What `GET` tells: of a record its body, once it is completed.
fn value_of(entry: &Entry<'_>) -> Option<Bytes> {
    match entry.record() {
        None => Some(
            entry
                .value()
                .cloned()
                .unwrap_or(Bytes::from_static(command::MARKER_VALUE)),
        ),
        Some(record) => matches!(record.state, State::Completed(_)).then(|| entry.body()),
    }
}

fn is_running(entry: &Entry<'_>) -> bool {
    entry.record().is_some_and(|record| record.is_running())
}

fn wrong_type() -> Error {
    Error::redis(
        "WRONGTYPE the key holds an idempotency record that is in progress or has no value",
    )
}

fn reply_too_big(max: usize) -> Error {
    Error::too_big(format!(
        "the reply would be over {max} bytes; ask for less at a time"
    ))
}
