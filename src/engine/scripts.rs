//! Scripts of lock libraries: which were sent, and what they do to keys.
//!
//! [`command::scripts`](crate::command::scripts) says what each of them does. A script of one key is a change like
//! any other; one of many keys has the shards of all of them locked until it is done.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use sha1::{Digest, Sha1};

use super::journal::{Refused, Writing, changes_bytes_max};
use super::namespace::{NamespaceRoom, Together};
use super::sets::is_new;
use super::values::{NO_SUCH_KEY, value_of};
use super::waiters::Concerns;
use super::{Answer, Here, Namespace, Policy};
use crate::command::scripts::{
    self, Call, Change, DIGEST_DIGITS, Named, Rule, Script, ScriptCommand, Span, Step,
};
use crate::command::{self, Error, Reply};
use crate::limits::{SCRIPT_BYTES_MAX, SCRIPTS_KNOWN_MAX};
use crate::store::shard::Entry;
use crate::store::{Ask, Key, Shard, WindowMode};
use crate::time::Millis;

const DIGEST_BYTES: usize = DIGEST_DIGITS / 2;
/// The SHA-1 of a text as it was sent.
type TextDigest = [u8; DIGEST_BYTES];

/// The texts that were recognised, by their digests.
#[derive(Debug, Default)]
pub(super) struct KnownTexts {
    known: RwLock<HashMap<TextDigest, KnownText>>,
}

#[derive(Debug)]
struct KnownText {
    script: &'static Script,
    /// When it was last asked for, in milliseconds.
    used: AtomicU64,
}

impl KnownTexts {
    /// The script that a text is, which is known by its digest from here on.
    fn learn(&self, text: &[u8], now: Millis) -> Option<(TextDigest, &'static Script)> {
        // Who has a longer text would wait for its digest.
        if text.len() > SCRIPT_BYTES_MAX {
            return None;
        }
        let digest = Sha1::digest(text).into();
        if let Some(script) = self.find(&digest, now) {
            return Some((digest, script));
        }
        let script = Script::of(text)?;
        let mut known = self.known.write();
        if known.len() >= SCRIPTS_KNOWN_MAX {
            let used = |(_, text): &(&TextDigest, &KnownText)| text.used.load(Ordering::Relaxed);
            let oldest = known.iter().min_by_key(used).map(|(digest, _)| *digest);
            oldest.map(|digest| known.remove(&digest));
        }
        let used = AtomicU64::new(now.0);
        known.insert(digest, KnownText { script, used });
        Some((digest, script))
    }

    fn find(&self, digest: &TextDigest, now: Millis) -> Option<&'static Script> {
        let known = self.known.read();
        let text = known.get(digest)?;
        // Written to only where that changes it: all threads read it.
        if text.used.load(Ordering::Relaxed) < now.0 {
            text.used.store(now.0, Ordering::Relaxed);
        }
        Some(text.script)
    }

    fn find_hex(&self, digits: &[u8], now: Millis) -> Option<&'static Script> {
        self.find(&digest_of(digits)?, now)
    }

    fn forget_all(&self) {
        self.known.write().clear();
    }
}

/// The digest that these digits are, if they are as many as it has.
fn digest_of(digits: &[u8]) -> Option<TextDigest> {
    let mut digest = TextDigest::default();
    if digits.len() != DIGEST_DIGITS {
        return None;
    }
    for (byte, pair) in digest.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16);
        *byte = (digit(0)? << 4 | digit(1)?) as u8;
    }
    Some(digest)
}

fn digits_of(digest: &TextDigest) -> String {
    let digits = digest.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits
        .filter_map(|digit| char::from_digit(u32::from(digit), 16))
        .collect()
}

/// A key as a script sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Absent,
    /// Its value is the owner's.
    Owned,
    /// Its value is another, or none: that of a record in progress is nobody's.
    Other,
}

/// Why a script did not do what it does.
enum Failure {
    Error(Error),
    /// There is no memory.
    Full,
    /// There is no space in the log.
    Refused(Refused),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl Here<'_> {
    /// `SCRIPT`.
    pub(super) fn script<'s>(&self, command: ScriptCommand<'_>) -> Answer<'s> {
        let texts = &self.engine.texts;
        match command {
            ScriptCommand::Load { text } => match texts.learn(text, self.now) {
                Some((digest, _)) => Ok(Reply::text(digits_of(&digest))),
                None => Err(scripts::unknown_script()),
            },
            ScriptCommand::Exists { digests } => {
                let is_known = |digits| texts.find_hex(digits, self.now).is_some();
                let known = digests.iter().map(is_known);
                Ok(Reply::Array(
                    known.map(|is| Reply::Number(i64::from(is))).collect(),
                ))
            }
            ScriptCommand::Flush => {
                texts.forget_all();
                Ok(Reply::OK)
            }
        }
    }

    /// `EVAL` and `EVALSHA`.
    pub(super) fn eval<'s>(
        &self,
        here: &Namespace,
        script: Named<'_>,
        call: &Call<'_>,
    ) -> Answer<'s> {
        let texts = &self.engine.texts;
        let script = match script {
            Named::Text(text) => texts
                .learn(text, self.now)
                .map(|(_, script)| script)
                .ok_or_else(scripts::unknown_script)?,
            Named::Digest(digits) => texts
                .find_hex(digits, self.now)
                .ok_or_else(scripts::no_script)?,
        };
        self.run(here, script, call)
    }

    fn run<'s>(&self, here: &Namespace, script: &Script, call: &Call<'_>) -> Answer<'s> {
        let done = match script.rule {
            Rule::One {
                absent,
                owned,
                other,
            } => self.run_on_one(here, script, call, |state| match state {
                State::Absent => absent,
                State::Owned => owned,
                State::Other => other,
            }),
            Rule::ValueAndLeft => self.value_and_left(here, call).map_err(Failure::Error),
            _ => self.run_on_all(here, script, call),
        };
        match done {
            Ok(reply) => Ok(reply),
            Err(Failure::Error(error)) => Err(error),
            Err(Failure::Refused(_)) => Err(self.engine.no_frame(here)),
            Err(Failure::Full) => match self.engine.successor(here) {
                Some(next) => self.run(&next, script, call),
                None => Err(self.engine.no_room(here)),
            },
        }
    }

    /// Does what a script does to the state that its one key is in.
    fn run_on_one<'s>(
        &self,
        here: &Namespace,
        script: &Script,
        call: &Call<'_>,
        step_of: impl FnOnce(State) -> Step,
    ) -> Result<Reply<'s>, Failure> {
        let name = call.key()?;
        let key = self.key(here, name);
        let owner = script.owner(call);
        let policy = here.policy();
        let done = here.write(&key, owner, &policy, |shard, room| {
            let entry = shard.get(&key, self.now);
            let left_ms = entry.map_or(0, |entry| entry.deadline.since(self.now));
            let state = state_of(entry.as_ref(), owner);
            let (change, answer) = step_of(state).of(call);
            let planned = self.planned(script, change, (call, left_ms), &policy)?;
            self.change(shard, &key, &planned, room)?;
            Ok(reply(answer, call, left_ms))
        });
        self.engine.waiters.wake(here, name, Concerns::Next);
        done
    }

    /// Does what a script does to all of its keys, or to none of them.
    fn run_on_all<'s>(
        &self,
        here: &Namespace,
        script: &Script,
        call: &Call<'_>,
    ) -> Result<Reply<'s>, Failure> {
        let words = match script.rule {
            Rule::SetAllAbsentOrAlike(count, _) => call.keys.first(count),
            _ => call.keys,
        };
        if words.is_empty() {
            return script.without_keys().map_err(Failure::Error);
        }
        let keys: Vec<_> = words.iter().map(|word| self.key(here, word)).collect();
        let owner = script.owner(call);
        let value_bytes = owner.map_or(0, <[u8]>::len);
        let bytes = |at: usize| changes_bytes_max(value_bytes, words.get(at).len());
        let together = here.lock_together(&keys, bytes)?;
        let held;
        let (keys, change, answer) = match self.plan(&together, &keys, script, call)? {
            Plan::Do(change, answer) => (&keys[..], change, answer),
            Plan::DeleteOwned => {
                held = self.owned(&together, &keys, owner);
                let answer = scripts::Answer::Number(held.len() as i64);
                (&held[..], Change::Delete, answer)
            }
        };
        let left_ms = match answer {
            scripts::Answer::LeftMs => self.least_left_ms(&together, keys),
            _ => 0,
        };
        let planned = self.planned(script, change, (call, 0), together.policy())?;
        self.change_all(together, keys, &planned)?;
        for word in words.iter() {
            self.engine.waiters.wake(here, word, Concerns::Next);
        }
        Ok(reply(answer, call, left_ms))
    }

    /// What a script of many keys does to them as they are.
    fn plan(
        &self,
        together: &Together<'_>,
        keys: &[Key<'_>],
        script: &Script,
        call: &Call<'_>,
    ) -> Result<Plan, Error> {
        let owner = script.owner(call);
        let are_all = |state| {
            let state_is = |key| self.state(together, key, owner) == state;
            keys.iter().all(state_is)
        };
        Ok(match script.rule {
            Rule::SetAllAbsent if are_all(State::Absent) => {
                Plan::Do(Change::Set(Span::Ms), scripts::Answer::Keys)
            }
            Rule::AllOwned(change, answer, _) if are_all(State::Owned) => Plan::Do(change, answer),
            Rule::AllOwned(.., otherwise) => Plan::Do(Change::Keep, otherwise),
            Rule::SetAllAbsentOrAlike(_, change) => {
                if are_all(State::Absent) || self.are_alike(together, keys, owner, call)? {
                    Plan::Do(change, scripts::Answer::Ok)
                } else {
                    Plan::Do(change.not_done(), scripts::Answer::Nil)
                }
            }
            Rule::DeleteOwned => Plan::DeleteOwned,
            Rule::SetAllAbsent | Rule::One { .. } | Rule::ValueAndLeft => {
                Plan::Do(Change::Keep, scripts::Answer::Number(0))
            }
        })
    }

    fn state(&self, together: &Together<'_>, key: &Key<'_>, owner: Option<&[u8]>) -> State {
        state_of(together.shard(key).get(key, self.now).as_ref(), owner)
    }

    /// Those keys that have the owner's value, each once.
    fn owned<'k>(
        &self,
        together: &Together<'_>,
        keys: &[Key<'k>],
        owner: Option<&[u8]>,
    ) -> Vec<Key<'k>> {
        let mut known = HashSet::new();
        let mut held = Vec::new();
        for key in keys {
            if self.state(together, key, owner) == State::Owned && known.insert(key.bytes()) {
                held.push(*key);
            }
        }
        held
    }

    /// Whether the values of all keys begin as the owner's does, for as many bytes as the second argument says.
    fn are_alike(
        &self,
        together: &Together<'_>,
        keys: &[Key<'_>],
        owner: Option<&[u8]>,
        call: &Call<'_>,
    ) -> Result<bool, Error> {
        let bytes = usize::try_from(scripts::number(call.arg(2))?).unwrap_or(0);
        let begins = |value: &[u8]| value.len().min(bytes);
        Ok(bytes > 0
            && keys.iter().all(|key| {
                let entry = together.shard(key).get(key, self.now);
                let value = entry.and_then(|entry| value_of(&entry, false));
                match (value, owner) {
                    (Some(value), Some(owner)) => value[..begins(&value)] == owner[..begins(owner)],
                    _ => false,
                }
            }))
    }

    fn least_left_ms(&self, together: &Together<'_>, keys: &[Key<'_>]) -> u64 {
        let left_ms = |key: &Key<'_>| {
            let entry = together.shard(key).get(key, self.now);
            entry.map_or(0, |entry| entry.deadline.since(self.now))
        };
        let left = keys.iter().map(left_ms).filter(|ms| *ms > 0);
        left.min().unwrap_or(0)
    }

    /// A change with what it needs to know: found out before anything is changed.
    fn planned<'a>(
        &self,
        script: &Script,
        change: Change,
        (call, left_ms): (&Call<'a>, u64),
        policy: &Policy,
    ) -> Result<Planned<'a>, Error> {
        let end = script.end(change, call, left_ms)?;
        let value = if change.stores() || matches!(change, Change::NotSet(_)) {
            script.value(call, &self.engine.limits)?
        } else {
            &[]
        };
        Ok(Planned {
            change,
            end: self.deadline(end, None, policy),
            value,
        })
    }

    /// Changes all of these keys; if there is no room for one that is not there yet, none of them.
    fn change_all(
        &self,
        mut together: Together<'_>,
        keys: &[Key<'_>],
        planned: &Planned<'_>,
    ) -> Result<(), Failure> {
        let stores = planned.change.stores() && planned.end >= self.now;
        let is_there = |together: &Together<'_>, key| {
            let shard: &Shard = together.shard(key);
            shard.get(key, self.now).is_some()
        };
        let are_new = stores && !keys.iter().any(|key| is_there(&together, key));
        let mut done = Ok(());
        for key in keys {
            done = together.write(key, |shard, room| self.change(shard, key, planned, room));
            if done.is_err() {
                break;
            }
        }
        // Room for one key may have been another one's.
        let is_undone =
            are_new && (done.is_err() || !keys.iter().all(|key| is_there(&together, key)));
        if is_undone {
            together.take_back(keys, self.now);
            return done.and(Err(Failure::Full));
        }
        // Of an owner who puts other values in the place of his, some may be stored and others not.
        together.finish();
        done
    }

    /// Changes a key.
    fn change(
        &self,
        shard: &mut Writing<'_, '_>,
        key: &Key<'_>,
        planned: &Planned<'_>,
        room: &mut NamespaceRoom<'_>,
    ) -> Result<(), Failure> {
        let Planned { change, end, value } = *planned;
        match change {
            Change::Keep | Change::NotSet(_) => {}
            Change::Delete => drop(shard.remove(key, self.now)?),
            Change::Expire(_) | Change::Extend => self.end_at(shard, key, end)?,
            Change::Set(_) | Change::SetAndExpire(_) => {
                let state = state_of(shard.get(key, self.now).as_ref(), Some(value));
                if state != State::Absent && (state == State::Owned || end < self.now) {
                    self.end_at(shard, key, end)?;
                } else if end >= self.now && !self.store(shard, key, (value, end), state, room) {
                    return Err(Failure::Full);
                }
            }
        }
        Ok(())
    }

    /// Stores a value for a key that is not there, or has another; false if there is no room.
    fn store(
        &self,
        shard: &mut Writing<'_, '_>,
        key: &Key<'_>,
        (value, end): (&[u8], Millis),
        state: State,
        room: &mut NamespaceRoom<'_>,
    ) -> bool {
        let value = command::stored_value(value);
        if state != State::Absent {
            return shard.set(key, value, end, room, self.now);
        }
        let ask = Ask {
            ttl_ms: end.since(self.now),
            value,
            mode: WindowMode::Fixed,
            ..Ask::default()
        };
        is_new(shard.seen(key, &ask, room, self.now))
    }

    fn value_and_left<'s>(&self, here: &Namespace, call: &Call<'_>) -> Answer<'s> {
        let key = self.key(here, call.key()?);
        let told = here.read(&key, |shard| {
            let entry = shard.get(&key, self.now)?;
            Some((value_of(&entry, true), entry.deadline))
        });
        let (value, left) = match told {
            Some((value, deadline)) => (value, deadline.since(self.now) as i64),
            None => (None, NO_SUCH_KEY),
        };
        let value = value.map_or(Reply::Nil, Reply::Value);
        Ok(Reply::Array(vec![value, Reply::Number(left)]))
    }
}

/// What a script of many keys does.
enum Plan {
    /// This, to all of them.
    Do(Change, scripts::Answer),
    /// Those that have the owner's value are removed.
    DeleteOwned,
}

/// A change of a key, when the key ends then, and the value that it gets.
struct Planned<'a> {
    change: Change,
    end: Millis,
    value: &'a [u8],
}

fn state_of(entry: Option<&Entry<'_>>, owner: Option<&[u8]>) -> State {
    match entry {
        None => State::Absent,
        Some(entry) if owner.is_some() && value_of(entry, false).as_deref() == owner => {
            State::Owned
        }
        Some(_) => State::Other,
    }
}

fn reply<'s>(answer: scripts::Answer, call: &Call<'_>, left_ms: u64) -> Reply<'s> {
    match answer {
        scripts::Answer::Number(number) => Reply::Number(number),
        scripts::Answer::Nil => Reply::Nil,
        scripts::Answer::Ok => Reply::OK,
        scripts::Answer::Error(word) => Error::redis(format!("ERR {word}")).into(),
        scripts::Answer::LeftMs => Reply::Number(left_ms as i64),
        scripts::Answer::LeftSeconds => Reply::Number(((left_ms + 500) / 1_000) as i64),
        scripts::Answer::Keys => Reply::Number(call.keys.len() as i64),
    }
}
