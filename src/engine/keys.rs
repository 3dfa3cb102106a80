//! This protocol's own commands on keys.

use std::borrow::Cow;

use super::batch::{BATCH_MAX, Question};
use super::journal::Refused;
use super::slice::{BATCHED_UNITS, Progress, READ_UNITS, Slice, WRITE_UNITS};
use super::waiters::Concerns;
use super::{Answer, Here, HowFar, Namespace, Session};
use crate::command::{Code, Error, Reply, Seen, Single, Ttl, Words};
use crate::limits::AT_AHEAD_MAX_MS;
use crate::store::{Ask, Entry, State, Verdict};
use crate::time::{DurationWord, Millis};

/// What is said of keys that were forgotten before one was refused.
pub(super) const FORGOTTEN_KEYS: &str = "keys are forgotten, the first ones";

impl Here<'_> {
    pub(super) fn seen<'s>(&self, here: &Namespace, seen: &Seen<'_>) -> Answer<'s> {
        self.within(here, seen.namespace, |namespace| {
            let policy = namespace.policy();
            let event_at = seen.event_at.map(|at| self.engine.by_server_clock(at));
            if event_at.is_some_and(|at| at.since(self.now) > AT_AHEAD_MAX_MS) {
                let max = DurationWord(AT_AHEAD_MAX_MS);
                return Err(Error::range(format!(
                    "AT lies more than {max} ahead of the server's clock"
                )));
            }
            let ask = Ask {
                ttl_ms: policy.ttl_ms(seen.ttl)?,
                mode: seen.mode.unwrap_or(policy.mode),
                fingerprint: seen.fingerprint,
                event_at,
                value: None,
            };
            match self.engine.seen(namespace, seen.key, &ask, self.now) {
                Verdict::New => Ok(Reply::Word("NEW")),
                Verdict::Unsure => Ok(Reply::Word("UNSURE")),
                Verdict::Dup => Ok(Reply::Word("DUP")),
                Verdict::Mismatch => Ok(Reply::Word("MISMATCH")),
                Verdict::Full => Err(self.engine.no_room(namespace)),
            }
        })
    }

    pub(super) fn mseen(
        &self,
        session: &mut Session,
        ttl: Ttl,
        keys: Words<'_>,
        slice: &mut Slice,
    ) -> Result<bool, Error> {
        let Session {
            namespace,
            letters,
            progress,
        } = session;
        let policy = namespace.policy();
        let ttl_ms = match progress.ttl_ms {
            Some(ms) => ms,
            None => policy.ttl_ms(ttl)?,
        };
        progress.ttl_ms = Some(ttl_ms);
        let mode = policy.mode;
        if progress.next == 0 {
            letters.clear();
        }
        let nothing = Question {
            key: self.engine.hashed(namespace, b""),
            ttl_ms,
            mode,
            verdict: Verdict::Full,
        };
        let mut questions = [nothing; BATCH_MAX];
        while progress.next < keys.len() {
            if slice.is_over() {
                return Ok(false);
            }
            let begins = progress.next;
            let count = BATCH_MAX.min(keys.len() - begins);
            let questions = &mut questions[..count];
            self.ask_some(namespace, (keys, begins), questions, slice);
            letters.extend(questions.iter().map(|question| letter(question.verdict)));
            progress.next += count;
        }
        Ok(true)
    }

    /// Asks for so many keys, from this one on, in questions that lack but these.
    pub(super) fn ask_some(
        &self,
        at: &Namespace,
        (keys, begins): (Words<'_>, usize),
        questions: &mut [Question],
        slice: &mut Slice,
    ) {
        for (number, question) in (begins..).zip(&mut *questions) {
            let word = keys.get(number);
            question.key = self.engine.hashed(at, word);
            slice.spend_bytes(word.len());
        }
        slice.spend(questions.len() * BATCHED_UNITS);
        let content = |number| (keys.get(begins + number), None);
        self.engine.ask(at, questions, content, self.now);
    }

    pub(super) fn peek(
        &self,
        session: &mut Session,
        keys: Words<'_>,
        slice: &mut Slice,
    ) -> Result<bool, Error> {
        let Session {
            namespace,
            letters,
            progress,
        } = session;
        if progress.next == 0 {
            letters.clear();
        }
        progress.each(keys, (READ_UNITS, slice), |_, key| {
            let key = self.key(namespace, key);
            letters.push(namespace.read(&key, |shard| {
                state_letter(shard.get(&key, self.now), self.now)
            }));
            Ok(())
        })
    }

    pub(super) fn forget(
        &self,
        session: &mut Session,
        keys: Words<'_>,
        slice: &mut Slice,
    ) -> Result<bool, Error> {
        let Session {
            namespace,
            progress,
            ..
        } = session;
        self.forget_each(
            (progress, namespace),
            (keys, FORGOTTEN_KEYS),
            slice,
            |_, _| Ok(false),
        )
    }

    /// Forgets a slice of the keys of a request. One counts if it was there, or if `otherwise` says so of one that was
    /// not; `parts` tells what those are that were done before one was refused.
    pub(super) fn forget_each(
        &self,
        (progress, here): (&mut Progress, &Namespace),
        (keys, parts): (Words<'_>, &'static str),
        slice: &mut Slice,
        otherwise: impl Fn(&[u8], HowFar) -> Result<bool, Error>,
    ) -> Result<bool, Error> {
        let policy = here.policy();
        progress.each(keys, (WRITE_UNITS, slice), |progress, word| {
            let key = self.key(here, word);
            let removed = here.write(&key, None, &policy, |shard, _| shard.remove(&key, self.now));
            self.engine.waiters.wake(here, word, Concerns::Next);
            // Those before it are gone. Space for all at once would have been the other way: that refuses
            // what may be had piece by piece, on a disk where forgetting is what makes room.
            let how_far = HowFar {
                done: progress.next,
                of: keys.len(),
                parts,
            };
            let removed = removed.map_err(|refused| self.engine.refusal_after(refused, how_far));
            progress.count += i64::from(removed? || otherwise(word, how_far)?);
            Ok(())
        })
    }

    pub(super) fn touch<'s>(
        &self,
        here: &Namespace,
        at: &Single<'_>,
        ttl: Ttl,
        later_only: bool,
    ) -> Answer<'s> {
        self.within(here, at.namespace, |namespace| {
            let policy = namespace.policy();
            let deadline = self.now.after(policy.ttl_ms(ttl)?);
            let key = self.key(namespace, at.key);
            let was_there = namespace.write(&key, None, &policy, |shard, _| {
                let held = shard.get(&key, self.now);
                let is_running =
                    |entry: &Entry<'_>| entry.record().is_some_and(|record| record.is_running());
                if held.as_ref().is_some_and(is_running) {
                    return Ok(Err(busy()));
                }
                if later_only && held.is_some_and(|held| deadline <= held.deadline) {
                    return Ok(Ok(true));
                }
                shard.set_deadline(&key, deadline, self.now).map(Ok)
            });
            let was_there = self.unless_refused(was_there)??;
            Ok(if was_there { Reply::OK } else { Reply::Nil })
        })
    }

    pub(super) fn ttl_left<'s>(&self, here: &Namespace, at: &Single<'_>) -> Answer<'s> {
        self.within(here, at.namespace, |namespace| {
            let key = self.key(namespace, at.key);
            let left = namespace.read(&key, |shard| {
                shard
                    .get(&key, self.now)
                    .map(|entry| entry.deadline.since(self.now))
            });
            Ok(left.map_or(Reply::Nil, |ms| Reply::Number(ms as i64)))
        })
    }

    pub(super) fn inspect<'s>(&self, here: &Namespace, at: &Single<'_>) -> Answer<'s> {
        self.within(here, at.namespace, |namespace| {
            let key = self.key(namespace, at.key);
            let rows = namespace.read(&key, |shard| {
                let entry = shard.get(&key, self.now)?;
                Some(rows_of(&entry, self.now))
            });
            Ok(rows.map_or(Reply::Nil, Reply::Rows))
        })
    }

    /// What a change came to, unless the log did not take it.
    pub(super) fn unless_refused<T>(&self, done: Result<T, Refused>) -> Result<T, Error> {
        done.map_err(|refused| self.engine.refusal(refused))
    }

    pub(super) fn is_live(&self, namespace: &Namespace, key: &[u8]) -> bool {
        let key = self.key(namespace, key);
        namespace.read(&key, |shard| shard.get(&key, self.now).is_some())
    }

    /// Does something in the namespace that the request names, or in the session's.
    pub(super) fn within<T>(
        &self,
        here: &Namespace,
        named: Option<&[u8]>,
        act: impl FnOnce(&Namespace) -> Result<T, Error>,
    ) -> Result<T, Error> {
        match named.map(super::spaces::name) {
            None => act(here),
            Some(name) => act(&*self
                .engine
                .find(name)
                .ok_or_else(|| self.engine.no_such(name))?),
        }
    }
}

/// What `PEEK` tells of a key.
fn state_letter(entry: Option<Entry<'_>>, now: Millis) -> u8 {
    let Some(entry) = entry else {
        return b'N';
    };
    match entry.record() {
        None => b'D',
        Some(record) if record.is_leased(now) => b'B',
        Some(record) => match record.state {
            State::Running { .. } | State::Released => b'R',
            State::Completed(_) => b'C',
            State::Failed(_) => b'F',
        },
    }
}

/// What `INSPECT` tells of a key.
fn rows_of(entry: &Entry<'_>, now: Millis) -> Vec<(Cow<'static, str>, String)> {
    let record = entry.record();
    let state = match record.map(|record| record.state) {
        None => "seen",
        Some(State::Running { lease_end, .. }) if now <= lease_end => "in_progress",
        Some(State::Running { .. }) => "lapsed",
        Some(State::Released) => "released",
        Some(State::Completed(_)) => "completed",
        Some(State::Failed(_)) => "failed",
    };
    let mut rows = vec![
        ("state".into(), state.to_owned()),
        (
            "expires_in_ms".into(),
            entry.deadline.since(now).to_string(),
        ),
    ];
    if let Some(fingerprint) = entry.fingerprint() {
        let digits = usize::from(fingerprint.digits);
        rows.push((
            "fingerprint".into(),
            format!("{:0digits$x}", fingerprint.value),
        ));
    }
    let Some(record) = record else {
        return rows;
    };
    rows.push(("age_ms".into(), now.since(record.began).to_string()));
    rows.push(("attempt".into(), record.attempt.to_string()));
    if let State::Running { lease_end, .. } = record.state {
        rows.push(("lease_ms".into(), lease_end.since(now).to_string()));
    }
    if let Some(outcome) = record.outcome() {
        rows.push(("code".into(), outcome.code.to_string()));
        rows.push(("size".into(), outcome.body.len().to_string()));
    }
    rows
}

fn busy() -> Error {
    Error::new(
        Code::Busy,
        "the key holds a record in progress, whose window its lease decides: RENEW extends it",
    )
}

fn letter(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::New => b'N',
        Verdict::Unsure => b'U',
        Verdict::Dup => b'D',
        Verdict::Mismatch => b'M',
        Verdict::Full => b'E',
    }
}
