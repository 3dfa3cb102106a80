//! Redis's commands on keys: values, expiry in its units, scans.
//!
//! A key that was only seen has the value `1`, and a stored `1` takes no memory. Everything
//! expires: what names no expiry gets the namespace's TTL, what is beyond the longest is clamped.

use bytes::Bytes;

use super::glob::Glob;
use super::journal::{Refused, Writing};
use super::slice::{LISTED_UNITS, PLACE_UNITS, Progress, READ_UNITS, SHARD_UNITS, Slice};
use super::waiters::Concerns;
use super::{Answer, Engine, Here, Namespace, Policy, Session};
use crate::command::{
    self, BadExpiry, Error, ExpireIf, Expiry, Reply, Scan, Set, SetAnswer, SetIf, Words,
    stored_value,
};
use crate::limits::KEYS_COMMAND_KEYS_MAX;
use crate::store::shard::Entry;
use crate::store::{Ask, Key, State, Verdict, WindowMode};
use crate::time::Millis;

/// Places that one lock is held for while keys are listed: a block of the table.
const SCAN_PLACES: u32 = 768;
/// Bytes of keys that are copied out under one lock, but for the last of them.
const LIST_BYTES: usize = 64 << 10;
/// Bytes of keys after which a `SCAN` answers, however many places are left to look at.
const SCAN_BYTES: usize = 256 << 10;
/// The most keys that one `SCAN` is asked for.
const SCAN_COUNT_MAX: u32 = 100_000;
/// Keys that a `SCAN` looks at for each that it is asked for, where few match: as Redis does.
const SCAN_LOOKS_PER_KEY: usize = 10;

/// What Redis tells of how long a key lives that is not there.
pub(super) const NO_SUCH_KEY: i64 = -2;

/// What became of a `SET`.
enum Outcome {
    Stored,
    ConditionFailed,
    Full,
    /// It is a record, which has no value, or whose work is under way.
    WrongType,
}

/// How keys are listed.
pub(super) struct List<'p> {
    pattern: Option<&'p Glob>,
    /// Places that are looked at under one lock: fewer after long keys.
    at_once: u32,
}

impl<'p> List<'p> {
    pub(super) fn of(pattern: Option<&'p Glob>) -> Self {
        Self {
            pattern,
            at_once: SCAN_PLACES,
        }
    }
}

impl Here<'_> {
    pub(super) fn set<'s>(&self, here: &Namespace, set: &Set<'_>) -> Answer<'s> {
        let policy = here.policy();
        let key = self.key(here, set.key);
        let value = stored_value(set.value);
        let (outcome, before) = here.write(&key, value, &policy, |shard, room| {
            let held = shard.get(&key, self.now);
            let told = set.answer == SetAnswer::Before;
            let value_before = held.and_then(|entry| value_of(&entry, told));
            // Nil would say that nothing was there.
            let cannot_tell = told && value_before.is_none();
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
            let before = value_before.filter(|_| told);
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
                None => Err(self.engine.no_room(here)),
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

    pub(super) fn get_ex<'s>(
        &self,
        here: &Namespace,
        key: &[u8],
        expiry: Result<Expiry, BadExpiry>,
    ) -> Answer<'s> {
        let policy = here.policy();
        let key = self.key(here, key);
        let value = here.write(&key, None, &policy, |shard, _| {
            let Some(entry) = shard.get(&key, self.now) else {
                return Ok(Ok(None));
            };
            let Some(value) = value_of(&entry, true) else {
                return Ok(Err(wrong_type()));
            };
            let expiry = match expiry {
                Ok(expiry) => expiry,
                Err(bad) => return Ok(Err(bad.error("getex"))),
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
            let Some(value) = value_of(&entry, true) else {
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
                equals.is_none_or(|value| value_of(&entry, false).as_deref() == Some(value))
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

    pub(super) fn mget(
        &self,
        session: &mut Session,
        keys: Words<'_>,
        slice: &mut Slice,
    ) -> Result<bool, Error> {
        let max = self.engine.limits.unread_bytes_max;
        let here = &*session.namespace;
        let each = (READ_UNITS, slice);
        let before = session.progress.copied;
        let is_done = session.progress.each(keys, each, |progress, key| {
            let value = self.value(here, key);
            progress.bytes += value.as_ref().map_or(0, Bytes::len);
            if progress.bytes > max {
                return Err(reply_too_big(max));
            }
            let answer = value.map_or(Reply::Nil, Reply::Value);
            progress.copied += answer.bytes_max();
            progress.answers.push(answer);
            Ok(())
        })?;
        // Others have their turn meanwhile, each with as much, perhaps.
        let copied = (session.progress.copied - before) as isize;
        if !is_done && !self.engine.budget.admits_reply(copied) {
            return Err(Engine::no_room_for_reply());
        }
        Ok(is_done)
    }

    pub(super) fn strlen<'s>(&self, here: &Namespace, key: &[u8]) -> Reply<'s> {
        Reply::Number(self.value(here, key).map_or(0, |value| value.len() as i64))
    }

    /// Sets when a key ends; whether that went ahead, or `None` if the key is not there.
    pub(super) fn expire_key(
        &self,
        here: &Namespace,
        key: &[u8],
        expiry: Expiry,
        condition: ExpireIf,
    ) -> Result<Option<bool>, Error> {
        let policy = here.policy();
        let kept = self.key(here, key);
        let done = here.write(&kept, None, &policy, |shard, _| {
            let Some(entry) = shard.get(&kept, self.now) else {
                return Ok(Ok(None));
            };
            if is_running(&entry) {
                return Ok(Err(wrong_type()));
            }
            let held = Some(entry.deadline);
            let deadline = self.deadline(expiry, held, &policy);
            let goes_ahead = condition.holds(held, deadline);
            if goes_ahead {
                self.end_at(shard, &kept, deadline)?;
            }
            Ok(Ok(Some(goes_ahead)))
        });
        self.engine.waiters.wake(here, key, Concerns::Next);
        self.unless_refused(done)?
    }

    pub(super) fn scan<'s>(&self, here: &Namespace, scan: &Scan<'_>) -> Reply<'s> {
        let mut cursor = scan.cursor;
        let mut found = Vec::new();
        let mut bytes = 0;
        let is_string = scan
            .kind
            .is_none_or(|kind| kind.eq_ignore_ascii_case(b"string"));
        let pattern = scan.pattern.map(Glob::new);
        let count = scan.count.min(SCAN_COUNT_MAX) as usize;
        let looked_at_max = count * SCAN_LOOKS_PER_KEY;
        let mut looked_at = 0;
        // About half of the places are in use.
        let mut places = 2 * count;
        // What is left is for the next call, which the cursor allows at any place.
        let mut slice = Slice::new();
        let mut list = List::of(pattern.as_ref());
        while found.len() < count
            && looked_at < looked_at_max
            && bytes < SCAN_BYTES
            && !slice.is_over()
        {
            let (from, found_before) = (cursor, found.len());
            let lists = (&mut list, &mut slice);
            looked_at += self.list(here, &mut cursor, places as u32, lists, |key| {
                if is_string {
                    bytes += key.len();
                    found.push(Reply::Text(key.to_vec().into()));
                }
            });
            debug_assert_ne!(from, cursor, "a scan comes to an end");
            if cursor == 0 {
                break;
            }
            places = if found.len() == found_before {
                2 * places.min(SCAN_PLACES as usize)
            } else {
                2 * count.saturating_sub(found.len())
            };
        }
        Reply::Array(vec![Reply::text(cursor.to_string()), Reply::Array(found)])
    }

    pub(super) fn keys(
        &self,
        session: &mut Session,
        pattern: &[u8],
        slice: &mut Slice,
    ) -> Result<bool, Error> {
        let Session {
            namespace,
            progress,
            ..
        } = session;
        self.list_all(namespace, progress, (pattern, "KEYS", "SCAN"), slice)
    }

    /// A slice of listing all keys of a namespace that match, for a command in whose place another lists many.
    pub(super) fn list_all(
        &self,
        namespace: &Namespace,
        progress: &mut Progress,
        (pattern, command, instead): (&[u8], &str, &str),
        slice: &mut Slice,
    ) -> Result<bool, Error> {
        let max = self.engine.limits.unread_bytes_max;
        if progress.cursor == 0 && namespace.keys() > KEYS_COMMAND_KEYS_MAX {
            return Err(Error::too_big(format!(
                "{command} looks through at most {KEYS_COMMAND_KEYS_MAX} keys; use {instead}"
            )));
        }
        let pattern = Glob::new(pattern);
        let mut list = List::of(Some(&pattern));
        loop {
            let mut cursor = progress.cursor;
            self.list(
                namespace,
                &mut cursor,
                SCAN_PLACES,
                (&mut list, slice),
                |key| {
                    if progress.bytes <= max {
                        // What an item costs in memory until it is sent, roughly.
                        progress.bytes += key.len() + size_of::<Reply<'_>>();
                        progress.listed.extend_from_slice(key);
                        progress.ends.push(progress.listed.len());
                    }
                },
            );
            progress.cursor = cursor;
            if progress.bytes > max {
                return Err(reply_too_big(max));
            }
            let listed = progress.listed.len() as isize;
            if !self.engine.budget.admits_reply(listed) {
                return Err(Engine::no_room_for_reply());
            }
            if cursor == 0 || slice.is_over() {
                return Ok(cursor == 0);
            }
        }
    }

    /// Visits live keys from the cursor on that match, in at most so many places, fewer where keys are long,
    /// and moves the cursor on, to 0 at the end. Returns how many live keys it looked at.
    pub(super) fn list(
        &self,
        here: &Namespace,
        cursor: &mut u64,
        places_max: u32,
        (list, slice): (&mut List<'_>, &mut Slice),
        mut visit: impl FnMut(&[u8]),
    ) -> usize {
        let (shard, place) = ((*cursor >> 32) as usize, *cursor as u32);
        if shard >= here.shard_count() {
            *cursor = 0;
            return 0;
        }
        let mut places = places_max.min(list.at_once);
        // Keys are copied out while the shard is locked, and looked at when it is not.
        let (mut keys, mut ends) = (Vec::new(), Vec::new());
        let next = loop {
            let mut is_too_much = false;
            let scanned = here.read_shard(shard, |shard| {
                shard.scan(place, places, self.now, |stored| {
                    is_too_much |= places > 1 && keys.len() > LIST_BYTES;
                    // Of some keys only a digest is known: they cannot be listed.
                    if !is_too_much && stored.write_to(&mut keys) {
                        ends.push(keys.len());
                    }
                })
            });
            slice.spend(SHARD_UNITS + scanned.slots * PLACE_UNITS);
            slice.spend_bytes(keys.len());
            if !is_too_much {
                break scanned.next;
            }
            // Once more, of fewer places: a cursor stands only behind whole parts.
            places = (places / 4).max(1);
            keys.clear();
            ends.clear();
        };
        list.at_once = SCAN_PLACES.min(places * 2);
        let (mut begins, live) = (0, ends.len());
        for end in ends {
            let key = &keys[begins..end];
            if list.pattern.is_none_or(|pattern| {
                slice.spend(pattern.units(key.len()));
                pattern.matches(key)
            }) {
                slice.spend(LISTED_UNITS);
                visit(key);
            }
            begins = end;
        }
        *cursor = match next {
            Some(place) => (shard as u64) << 32 | u64::from(place),
            None if shard + 1 < here.shard_count() => (shard as u64 + 1) << 32,
            None => 0,
        };
        live
    }

    fn value(&self, here: &Namespace, key: &[u8]) -> Option<Bytes> {
        let key = self.key(here, key);
        here.read(&key, |shard| {
            shard
                .get(&key, self.now)
                .and_then(|entry| value_of(&entry, true))
        })
    }

    /// When a key ends that is set now; in the past for one that is not to be there at all.
    pub(super) fn deadline(&self, expiry: Expiry, held: Option<Millis>, policy: &Policy) -> Millis {
        let latest = self.now.after(policy.ttl_max_ms);
        let default = self.now.after(policy.ttl_ms);
        match expiry {
            Expiry::Default => default,
            Expiry::Keep => held.unwrap_or(default),
            Expiry::Longest => latest,
            Expiry::In(ms) => self.now.after(ms).min(latest),
            Expiry::At(at) => self.engine.by_server_clock(at).min(latest),
        }
    }

    pub(super) fn end_at(
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
///
/// Where it is `sent`, a reply may hold it longer than the store does.
pub(super) fn value_of(entry: &Entry<'_>, sent: bool) -> Option<Bytes> {
    match entry.record() {
        None => {
            let value = if sent {
                entry.value_to_send()
            } else {
                entry.value().cloned()
            };
            Some(value.unwrap_or(Bytes::from_static(command::MARKER_VALUE)))
        }
        Some(record) => matches!(record.state, State::Completed(_)).then(|| entry.body()),
    }
}

fn is_running(entry: &Entry<'_>) -> bool {
    entry.record().is_some_and(|record| record.is_running())
}

pub(super) fn wrong_type() -> Error {
    Error::redis(
        "WRONGTYPE the key holds an idempotency record that is in progress or has no value",
    )
}

fn reply_too_big(max: usize) -> Error {
    Error::too_big(format!(
        "the reply would be over {max} bytes; ask for less at a time"
    ))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::command::Command;
    use crate::engine::slice::SLICE_UNITS;
    use crate::engine::{Engine, EngineConfig, Session};

    const KEYS: usize = 600;
    const KEY_BYTES: usize = 8 << 10;

    fn engine_with_long_keys() -> (Engine, BTreeSet<Vec<u8>>) {
        let engine = Engine::new(EngineConfig::default());
        let namespace = engine.session().namespace().clone();
        let ask = Ask {
            ttl_ms: 60_000,
            ..Ask::default()
        };
        let keys = (0..KEYS)
            .map(|n| [&format!("{n:05}").into_bytes()[..], &[b'a'; KEY_BYTES - 5]].concat());
        let keys: BTreeSet<_> = keys.collect();
        for key in &keys {
            engine.seen(&namespace, key, &ask, Millis(0));
        }
        (engine, keys)
    }

    /// One call; the next cursor, and how many keys it told.
    fn scan(
        engine: &Engine,
        session: &mut Session,
        (cursor, pattern): (u64, &[u8]),
        found: &mut BTreeSet<Vec<u8>>,
    ) -> (u64, usize) {
        let scan = Command::Scan(Scan {
            cursor,
            pattern: Some(pattern),
            count: u32::MAX,
            kind: None,
        });
        let Reply::Array(parts) = engine.execute(session, &scan, Millis(1)) else {
            panic!("a cursor and keys");
        };
        let [Reply::Text(cursor), Reply::Array(keys)] = &parts[..] else {
            panic!("{parts:?}");
        };
        for key in keys {
            let Reply::Text(key) = key else {
                panic!("{key:?}");
            };
            assert!(found.insert(key.to_vec()), "a key is told once");
        }
        let cursor = str::from_utf8(cursor).unwrap().parse().unwrap();
        (cursor, keys.len())
    }

    /// One request held a worker for 11 s.
    #[test]
    fn a_scan_with_a_hostile_pattern_comes_back_early() {
        let (engine, _) = engine_with_long_keys();
        let mut session = engine.session();
        let pattern = [b"*", &[b'a'; 200][..], b"b"].concat();
        let (mut cursor, mut calls) = (0, 0);
        loop {
            (cursor, _) = scan(
                &engine,
                &mut session,
                (cursor, &pattern),
                &mut BTreeSet::new(),
            );
            calls += 1;
            if cursor == 0 {
                break;
            }
        }
        // Each call goes through no more than its slice, and a block of what it copied.
        let bytes_max = SLICE_UNITS / Glob::new(&pattern).units(1 << 10) * (1 << 10);
        assert!(
            calls >= KEYS * KEY_BYTES / (bytes_max + LIST_BYTES + KEY_BYTES),
            "{calls}"
        );
        assert!(calls <= 2 + 2 * KEYS * KEY_BYTES / bytes_max, "{calls}");
    }

    #[test]
    fn a_scan_of_long_keys_tells_each_once() {
        let (engine, keys) = engine_with_long_keys();
        let mut session = engine.session();
        let mut found = BTreeSet::new();
        let mut cursor = 0;
        loop {
            let told;
            (cursor, told) = scan(&engine, &mut session, (cursor, b"*"), &mut found);
            assert!(told <= (SCAN_BYTES + LIST_BYTES) / KEY_BYTES + 1);
            if cursor == 0 {
                break;
            }
        }
        assert_eq!(found, keys);
    }
}
