//! Commands on idempotency records: claimed, renewed, settled, waited for.
//!
//! What they come to is decided by the store; here they find their shard, their token and their
//! place in line.

use std::io::Write;
use std::task::Waker;

use super::namespace::{Namespace, Policy};
use super::slice::{RECORD_UNITS, Slice};
use super::waiters::{Concerns, Place, Purpose};
use super::{Answer, Engine, Here, Session};
use crate::command::{Begin, Command, Complete, Error, Reply, Ttl, Words, token as token_of};
use crate::store::{self, Claim, Holding, Key, Settle, Settled, Shard, State};
use crate::time::Millis;

/// How a caller waits whose reply is held.
#[derive(Debug)]
pub struct Wait<'a> {
    /// The caller's place in line, once it has one: it asks again with it, and the same command.
    pub place: &'a mut Option<Place>,
    /// Wakes the caller.
    pub waker: &'a Waker,
}

/// What `WAIT` finds.
enum Heard {
    Settled(Settled),
    Free,
    Busy { token: u64, lease_end: Millis },
}

impl Engine {
    /// As [`Engine::execute`], but where the answer is to be waited for there is none yet: the caller has
    /// a place in line then, and executes the command again once that is due.
    pub fn execute_or_wait<'s>(
        &self,
        session: &'s mut Session,
        command: &Command<'_>,
        wait: Wait<'_>,
        now: Millis,
    ) -> Option<Reply<'s>> {
        self.execute_whole(session, command, Some(wait), now)
    }

    /// How many replies are held.
    pub fn waiting(&self) -> usize {
        self.waiters.count()
    }

    /// How many would have waited and found no place, since the start.
    pub fn waiters_refused(&self) -> u64 {
        self.waiters.refused()
    }

    /// The reply of who gives up its place.
    pub fn give_up<'s>(&self, place: &Place, now: Millis) -> Reply<'s> {
        match place.purpose() {
            Purpose::Begin => busy(place.retry_ms(now)),
            Purpose::Hear { .. } => Reply::Word("TIMEOUT"),
        }
    }

    /// Asks whether to do the work behind a key; see [`crate::store::Shard::begin`].
    pub fn begin(
        &self,
        namespace: &Namespace,
        key: &[u8],
        ask: &store::Begin<'_>,
        now: Millis,
    ) -> Claim {
        self.begin_or_wait(namespace, key, ask, (now, None), now)
    }

    /// The same; who is to wait, until that moment, takes a place in line.
    fn begin_or_wait(
        &self,
        namespace: &Namespace,
        key: &[u8],
        ask: &store::Begin<'_>,
        (until, mut wait): (Millis, Option<&mut Wait<'_>>),
        now: Millis,
    ) -> Claim {
        let kept = namespace.key(&self.secret, key);
        if let Some(place) = wait.as_mut().and_then(|wait| wait.place.as_mut()) {
            place.look();
        }
        let policy = namespace.policy();
        let claim = namespace.write_record(&kept, &[], &policy, |shard, room| {
            let place = wait.as_ref().and_then(|wait| wait.place.as_ref());
            let is_behind_others = self.waiters.is_behind(namespace, key, place);
            let ask = store::Begin {
                is_behind_others,
                lacks_token: self.tokens.are_spent(),
                ..*ask
            };
            let claim = shard.change_record(&kept, 0, room, now, |shard, room| {
                let claim = shard.begin(&kept, &ask, || self.tokens.next(), room, now);
                let is_change = matches!(
                    claim,
                    Claim::Run {
                        is_repeat: false,
                        ..
                    }
                );
                (claim, is_change)
            });
            // Under the lock, so that who changes it next finds who waits.
            if let (Claim::Busy { lease_end, .. }, Some(wait)) = (&claim, &mut wait)
                && now < until
            {
                self.stay(namespace, key, Purpose::Begin, (until, *lease_end), wait);
            }
            claim
        });
        if claim == Claim::Full
            && let Some(next) = self.successor(namespace)
        {
            // A place in the line of what the name stood for before is of no use.
            if let Some(wait) = &mut wait {
                *wait.place = None;
            }
            return self.begin_or_wait(&next, key, ask, (until, wait), now);
        }
        claim
    }

    /// Keeps a place in line, or takes one at its end if there are not too many.
    fn stay(
        &self,
        namespace: &Namespace,
        key: &[u8],
        purpose: Purpose,
        (until, lease_end): (Millis, Millis),
        wait: &mut Wait<'_>,
    ) {
        if wait.place.is_none() {
            let bounds = (until, self.limits.waiters_max);
            let waiters = &self.waiters;
            let asked = (purpose, wait.waker);
            *wait.place = waiters.join(&self.budget, namespace, key, asked, bounds);
        }
        if let Some(place) = wait.place {
            let is_behind =
                purpose == Purpose::Begin && self.waiters.is_behind(namespace, key, Some(place));
            place.stay(lease_end, is_behind);
        }
    }

    /// Extends the lease of who holds this token; also tells how long it lasts, in milliseconds.
    pub fn renew(
        &self,
        namespace: &Namespace,
        key: &[u8],
        (token, lease_ms): (u64, Option<u64>),
        now: Millis,
    ) -> (Holding, u64) {
        let kept = namespace.key(&self.secret, key);
        let renewed = namespace.write_record(&kept, &[], &namespace.policy(), |shard, room| {
            shard.change_record(&kept, 0, room, now, |shard, room| {
                let renewed = shard.renew(&kept, token, lease_ms, room, now);
                (renewed, renewed.0 == Holding::Ok)
            })
        });
        // It may end sooner now than who waits for it thinks.
        self.waiters.wake(namespace, key, Concerns::Next);
        renewed
    }

    /// Settles the work of who holds this token.
    pub fn settle(
        &self,
        namespace: &Namespace,
        key: &[u8],
        (token, settle): (u64, &Settle<'_>),
        now: Millis,
    ) -> Holding {
        let kept = namespace.key(&self.secret, key);
        // What was never given is nobody's.
        let adopt_ttl_ms = settle
            .adopt_ttl_ms
            .filter(|_| self.tokens.may_be_given(token));
        let settle = Settle {
            adopt_ttl_ms,
            ..*settle
        };
        let body = settle.outcome.body;
        let told = namespace.write_record(&kept, body, &namespace.policy(), |shard, room| {
            // What is said again is not logged again.
            shard.change_record(&kept, body.len(), room, now, |shard, room| {
                shard.settle(&kept, token, &settle, room, now)
            })
        });
        if told == Holding::Full
            && let Some(next) = self.successor(namespace)
        {
            return self.settle(&next, key, (token, &settle), now);
        }
        self.waiters.wake(namespace, key, Concerns::All);
        told
    }

    /// Lets anybody begin the work of who holds this token.
    pub fn release(&self, namespace: &Namespace, key: &[u8], token: u64, now: Millis) -> Holding {
        let kept = namespace.key(&self.secret, key);
        let told = namespace.write_record(&kept, &[], &namespace.policy(), |shard, room| {
            shard.change_record(&kept, 0, room, now, |shard, room| {
                shard.release(&kept, token, room, now)
            })
        });
        self.waiters.wake(namespace, key, Concerns::Next);
        told
    }

    /// A record's life in milliseconds: as a request names it, or the default, which is never longer than
    /// the namespace allows.
    fn record_ttl_ms(&self, policy: &Policy, ttl: Ttl) -> Result<u64, Error> {
        match ttl {
            Ttl::Default => Ok(self.limits.record_ttl_default_ms.min(policy.ttl_max_ms)),
            Ttl::Ms(_) => policy.ttl_ms(ttl),
        }
    }
}

impl Here<'_> {
    pub(super) fn begin<'s>(
        &self,
        namespace: &Namespace,
        begin: &Begin<'_>,
        wait: Option<&mut Wait<'_>>,
    ) -> Result<Option<Reply<'s>>, Error> {
        let policy = namespace.policy();
        let ask = store::Begin {
            lease_ms: begin.lease_ms,
            ttl_ms: self.engine.record_ttl_ms(&policy, begin.ttl)?,
            fingerprint: begin.fingerprint,
            owner: begin.owner,
            ..store::Begin::default()
        };
        let key = begin.at.key;
        let mut wait = wait;
        let until = self.until(namespace, key, begin.wait_ms, wait.as_deref_mut());
        let engine = self.engine;
        let asked = (until, wait.as_deref_mut());
        let claim = engine.begin_or_wait(namespace, key, &ask, asked, self.now);
        let waits = wait.as_ref().is_some_and(|wait| wait.place.is_some());
        if matches!(claim, Claim::Busy { .. }) && waits && self.now < until {
            return Ok(None);
        }
        if let Some(wait) = wait {
            *wait.place = None;
        }
        match claim {
            Claim::Run {
                token,
                lease_ms,
                attempt,
                is_unsure,
                ..
            } => {
                let word = if is_unsure && policy.reports_unsure {
                    "UNSURE"
                } else {
                    "RUN"
                };
                let figures = [token as i64, lease_ms as i64, attempt.into()];
                Ok(Some(Reply::Figures(word, figures.map(Some))))
            }
            Claim::Busy { lease_end, .. } => Ok(Some(busy(lease_end.since(self.now) + 1))),
            Claim::Seen => Ok(Some(outcome(Settled::default()))),
            Claim::Settled(settled) => Ok(Some(outcome(settled))),
            Claim::Mismatch => Ok(Some(Reply::Word("MISMATCH"))),
            Claim::Full => Err(engine.no_grant(namespace)),
        }
    }

    /// When a wait ends: as was said when it began. A place in the line of another namespace, which had
    /// the name before, is given up.
    fn until(
        &self,
        namespace: &Namespace,
        key: &[u8],
        wait_ms: u64,
        wait: Option<&mut Wait<'_>>,
    ) -> Millis {
        let Some(place) = wait.map(|wait| &mut *wait.place) else {
            return self.now;
        };
        let until = place.as_ref().map(Place::until);
        if place
            .as_ref()
            .is_some_and(|held| !held.is_for(namespace, key))
        {
            *place = None;
        }
        until.unwrap_or_else(|| self.now.after(wait_ms))
    }

    pub(super) fn renew<'s>(
        &self,
        namespace: &Namespace,
        key: &[u8],
        token: u64,
        lease_ms: Option<u64>,
    ) -> Answer<'s> {
        let (told, lease_ms) = self
            .engine
            .renew(namespace, key, (token, lease_ms), self.now);
        match told {
            Holding::Ok => Ok(Reply::Figures("OK", [Some(lease_ms as i64), None, None])),
            told => self.told(namespace, told),
        }
    }

    pub(super) fn complete<'s>(
        &self,
        namespace: &Namespace,
        complete: &Complete<'_>,
    ) -> Answer<'s> {
        let policy = namespace.policy();
        let ttl_ms = complete
            .ttl
            .map(|ttl| self.engine.record_ttl_ms(&policy, ttl));
        let adopt_ttl_ms = if complete.adopts {
            Some(self.engine.record_ttl_ms(&policy, Ttl::Default)?)
        } else {
            None
        };
        let settle = Settle {
            is_failure: complete.is_failure,
            outcome: store::Outcome {
                code: complete.code,
                body: complete.body,
            },
            ttl_ms: ttl_ms.transpose()?,
            fingerprint: complete.fingerprint,
            adopt_ttl_ms,
        };
        let asked = (complete.token, &settle);
        self.told(
            namespace,
            self.engine
                .settle(namespace, complete.at.key, asked, self.now),
        )
    }

    pub(super) fn fail_retry<'s>(
        &self,
        namespace: &Namespace,
        key: &[u8],
        token: u64,
    ) -> Answer<'s> {
        self.told(
            namespace,
            self.engine.release(namespace, key, token, self.now),
        )
    }

    fn told<'s>(&self, namespace: &Namespace, told: Holding) -> Answer<'s> {
        Ok(Reply::Word(match told {
            Holding::Ok => "OK",
            Holding::Stale => "STALE",
            Holding::Gone => "GONE",
            Holding::Mismatch => "MISMATCH",
            Holding::Full => return Err(self.engine.no_room(namespace)),
        }))
    }

    pub(super) fn wait_for<'s>(
        &self,
        namespace: &Namespace,
        key: &[u8],
        timeout_ms: u64,
        wait: Option<&mut Wait<'_>>,
    ) -> Option<Reply<'s>> {
        let mut wait = wait;
        let had_place = wait.as_ref().is_some_and(|wait| wait.place.is_some());
        let until = self.until(namespace, key, timeout_ms, wait.as_deref_mut());
        match wait.as_mut().and_then(|wait| wait.place.as_mut()) {
            Some(place) => place.look(),
            // The record went with its namespace.
            None if had_place => return Some(Reply::Word("FREE")),
            None => {}
        }
        let waited_for = |wait: &Wait<'_>| match wait.place.as_ref()?.purpose() {
            Purpose::Hear { token } => Some(token),
            Purpose::Begin => None,
        };
        let kept = self.key(namespace, key);
        let heard = namespace.read(&kept, |shard| {
            let heard = heard_of(shard, &kept, self.now);
            if let (Heard::Busy { token, lease_end }, Some(wait)) = (&heard, &mut wait)
                && self.now < until
            {
                if waited_for(wait).is_some_and(|before| before != *token) {
                    // Who was at work then gave up, and another took it over.
                    return Heard::Free;
                }
                let purpose = Purpose::Hear { token: *token };
                let moments = (until, *lease_end);
                self.engine.stay(namespace, key, purpose, moments, wait);
            }
            heard
        });
        let waits = wait.as_ref().is_some_and(|wait| wait.place.is_some());
        if matches!(heard, Heard::Busy { .. }) && waits && self.now < until {
            return None;
        }
        if let Some(wait) = wait {
            *wait.place = None;
        }
        Some(match heard {
            Heard::Settled(settled) => outcome(settled),
            Heard::Free => Reply::Word("FREE"),
            Heard::Busy { .. } => Reply::Word("TIMEOUT"),
        })
    }

    pub(super) fn mbegin(
        &self,
        session: &mut Session,
        (ttl, lease_ms): (Ttl, u64),
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
            None => self.engine.record_ttl_ms(&policy, ttl)?,
        };
        progress.ttl_ms = Some(ttl_ms);
        let ask = store::Begin {
            lease_ms,
            ttl_ms,
            ..store::Begin::default()
        };
        if progress.next == 0 {
            letters.clear();
        }
        progress.each(keys, (RECORD_UNITS, slice), |progress, key| {
            if !letters.is_empty() {
                letters.push(b' ');
            }
            match self.engine.begin(namespace, key, &ask, self.now) {
                Claim::Run {
                    token, is_unsure, ..
                } => {
                    let letter = if is_unsure && policy.reports_unsure {
                        'U'
                    } else {
                        'N'
                    };
                    progress.tokens.push(token);
                    let _infallible = write!(letters, "{letter}:{token}");
                }
                Claim::Busy { token, .. } if progress.tokens.binary_search(&token).is_ok() => {
                    letters.push(b'D');
                }
                Claim::Busy { .. } => letters.push(b'B'),
                Claim::Seen => letters.push(b'D'),
                Claim::Settled(settled) if settled.is_failure => letters.push(b'F'),
                Claim::Settled(_) => letters.push(b'C'),
                Claim::Mismatch | Claim::Full => letters.push(b'E'),
            }
            Ok(())
        })
    }

    pub(super) fn mend(
        &self,
        session: &mut Session,
        pairs: Words<'_>,
        is_failure: bool,
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
        while progress.next < pairs.len() {
            if slice.is_over() {
                return Ok(false);
            }
            let (key, token) = (pairs.get(progress.next), pairs.get(progress.next + 1));
            progress.next += 2;
            slice.spend(RECORD_UNITS);
            slice.spend_bytes(key.len());
            let token = token_of(token)?;
            let told = if is_failure {
                self.engine.release(namespace, key, token, self.now)
            } else {
                let done = Settle::default();
                self.engine.settle(namespace, key, (token, &done), self.now)
            };
            letters.push(match told {
                Holding::Ok => b'O',
                Holding::Stale => b'S',
                Holding::Gone => b'G',
                Holding::Mismatch | Holding::Full => b'E',
            });
        }
        Ok(true)
    }
}

/// What there is to hear of a key.
fn heard_of(shard: &Shard, key: &Key<'_>, now: Millis) -> Heard {
    let Some(entry) = shard.get(key, now) else {
        return Heard::Free;
    };
    let Some(record) = entry.record() else {
        return Heard::Settled(Settled::default());
    };
    match record.state {
        State::Running { lease_end, .. } if now <= lease_end => Heard::Busy {
            token: record.token,
            lease_end,
        },
        State::Running { .. } | State::Released => Heard::Free,
        State::Completed(outcome) | State::Failed(outcome) => Heard::Settled(Settled {
            is_failure: matches!(record.state, State::Failed(_)),
            code: outcome.code,
            body: entry.body(),
        }),
    }
}

fn busy<'s>(retry_ms: u64) -> Reply<'s> {
    Reply::Figures("BUSY", [Some(retry_ms as i64), None, None])
}

fn outcome<'s>(settled: Settled) -> Reply<'s> {
    Reply::Outcome {
        word: if settled.is_failure { "FAILED" } else { "DONE" },
        code: settled.code,
        body: settled.body,
    }
}
