//! Redis's sets, each of which is the namespace of its name: its members, and what commands on keys do to one.
//!
//! A command on keys means a set where the connection's namespace has no key of that name. A namespace that no
//! command on sets or filters made or filled is none, so that a `DEL` or an `EXPIRE` that means a key cannot hurt
//! it.

use std::sync::Arc;

use super::batch::{BATCH_MAX, Question};
use super::journal::Refused;
use super::keys::FORGOTTEN_KEYS;
use super::namespace::{Kept, Search};
use super::slice::{Progress, READ_UNITS, Slice, WRITE_UNITS};
use super::spaces::name;
use super::values::{List, NO_SUCH_KEY};
use super::{Engine, Here, HowFar, Namespace, Policy, Session};
use crate::command::{Error, ExpireIf, Expiry, Reply, Scan, TtlForm, Words};
use crate::limits::{WHEEL_TICK_MS, is_database_name, is_namespace_name};
use crate::log::control::SetEnds;
use crate::store::{Ask, Verdict};
use crate::time::Millis;

/// How much longer than asked members may live whose set's end is moved on and on: this part of the time.
const SLACK_PART: u64 = 8;
/// Places that one lock is held for while members are gone through.
const WALK_PLACES: u32 = 768;

impl Engine {
    /// The set of this name, if there is one.
    pub(super) fn find_set(&self, name: &[u8]) -> Option<Arc<Namespace>> {
        let is_name = is_namespace_name(name);
        let found = is_name.then(|| self.find(self::name(name)))?;
        found.filter(|found| found.is_set())
    }

    /// The namespace of this name, for a filter: a set too, if it is made for that.
    pub(super) fn open_filter(&self, name: &str, now: Millis) -> Result<Arc<Namespace>, Error> {
        match self.find(name) {
            Some(found) => self.as_filter(found, now),
            None => self.open_set(name, now),
        }
    }

    /// The same of one that was found.
    pub(super) fn as_filter(
        &self,
        found: Arc<Namespace>,
        now: Millis,
    ) -> Result<Arc<Namespace>, Error> {
        if found.is_set() {
            self.as_set(found, now)
        } else {
            Ok(found)
        }
    }

    /// The namespace of this name, which is a set from here on, unless it is a database.
    pub(super) fn open_set(&self, name: &str, now: Millis) -> Result<Arc<Namespace>, Error> {
        self.as_set(self.open(name)?, now)
    }

    fn as_set(&self, set: Arc<Namespace>, now: Millis) -> Result<Arc<Namespace>, Error> {
        if !is_database_name(set.name().as_bytes()) {
            let marked = set.become_set(now);
            marked.map_err(|refused| self.refusal(refused))?;
        }
        Ok(set)
    }
}

impl Here<'_> {
    pub(super) fn sadd(
        &self,
        session: &mut Session,
        (set, members): (&[u8], Words<'_>),
        slice: &mut Slice,
    ) -> Result<bool, Error> {
        let progress = &mut session.progress;
        let open = || self.engine.open_set(name(set), self.now);
        let mut into = match progress.filter.take() {
            // It may have been removed since the last slice.
            Some(found) if !found.is_closed() => found,
            _ => open()?,
        };
        while progress.next < members.len() {
            if slice.is_over() {
                break;
            }
            let begins = progress.next;
            let count = BATCH_MAX.min(members.len() - begins);
            let (new, full) = self.add_members(&into, members, begins..begins + count, slice);
            if into.is_closed() {
                // What came too late for it is where the next one is.
                into = open()?;
            }
            progress.count += new as i64;
            progress.next += count;
            if full > 0 {
                let how_far = HowFar {
                    done: progress.count.unsigned_abs() as usize,
                    of: members.len(),
                    parts: "members were added",
                };
                return Err(self.engine.no_room_after(&into, how_far));
            }
        }
        progress.filter = Some(into);
        Ok(progress.next == members.len())
    }

    /// Asks for some members; how many were new, and for how many there was no room.
    fn add_members(
        &self,
        set: &Namespace,
        members: Words<'_>,
        range: std::ops::Range<usize>,
        slice: &mut Slice,
    ) -> (usize, usize) {
        let begins = range.start;
        if range.len() == 1 {
            let member = members.get(begins);
            slice.spend(WRITE_UNITS);
            slice.spend_bytes(member.len());
            let verdict = self.add_member(set, member);
            return (
                usize::from(is_new(verdict)),
                usize::from(verdict == Verdict::Full),
            );
        }
        let policy = set.policy();
        let nothing = Question {
            key: self.engine.hashed(set, b""),
            ttl_ms: set.member_ttl_ms(&policy, self.now),
            mode: policy.mode,
            verdict: Verdict::Full,
        };
        let mut questions = [nothing; BATCH_MAX];
        let questions = &mut questions[..range.len()];
        self.ask_some(set, (members, begins), questions, slice);
        let (mut new, mut full) = (0, 0);
        for (at, question) in (begins..).zip(&*questions) {
            if is_new(question.verdict) {
                new += 1;
                self.end_newcomer(set, members.get(at), (&policy, question.ttl_ms));
            }
            full += usize::from(question.verdict == Verdict::Full);
        }
        (new, full)
    }

    /// Asks for a member.
    pub(super) fn add_member(&self, set: &Namespace, member: &[u8]) -> Verdict {
        let policy = set.policy();
        let ask = Ask {
            ttl_ms: set.member_ttl_ms(&policy, self.now),
            mode: policy.mode,
            ..Ask::default()
        };
        let verdict = self.engine.seen(set, member, &ask, self.now);
        if set.is_closed() && set.is_set() {
            // It was removed meanwhile, and the member is in the one that was made anew.
            let _it_is_one_at_the_next = self.engine.open_set(set.name(), self.now);
        }
        if is_new(verdict) {
            self.end_newcomer(set, member, (&policy, ask.ttl_ms));
        }
        verdict
    }

    /// Lets a new member live as long as the others of its set, where `EXPIRE` has gone through these since it was
    /// looked how long that is.
    fn end_newcomer(&self, set: &Namespace, member: &[u8], (policy, ttl_ms): (&Policy, u64)) {
        let end = set.members_end(self.now);
        if let Some(end) = end.filter(|end| end.since(self.now) > ttl_ms) {
            // Where the log has no space for that, it is as if it had come before.
            let _is_refused = self.end_member_at(set, member, policy, end);
        }
    }

    pub(super) fn srem(
        &self,
        session: &mut Session,
        (set, members): (&[u8], Words<'_>),
        slice: &mut Slice,
    ) -> Result<bool, Error> {
        let progress = &mut session.progress;
        if progress.next == 0 {
            progress.filter = self.engine.find(name(set));
        }
        let Some(set) = progress.filter.clone() else {
            return Ok(true);
        };
        let members = (members, "members are forgotten, the first ones");
        self.forget_each((progress, &set), members, slice, |_, _| Ok(false))
    }

    pub(super) fn smembers(
        &self,
        session: &mut Session,
        set: &[u8],
        slice: &mut Slice,
    ) -> Result<bool, Error> {
        let progress = &mut session.progress;
        if progress.filter.is_none() {
            progress.filter = self.engine.find(name(set));
        }
        match progress.filter.clone() {
            Some(set) => self.list_all(&set, progress, (b"*", "SMEMBERS", "SSCAN"), slice),
            None => Ok(true),
        }
    }

    pub(super) fn sscan<'s>(&self, set: &[u8], scan: &Scan<'_>) -> Reply<'s> {
        match self.engine.find(name(set)) {
            Some(set) => self.scan(&set, scan),
            None => Reply::Array(vec![Reply::text("0"), Reply::Array(Vec::new())]),
        }
    }

    pub(super) fn scard<'s>(&self, set: &[u8]) -> Reply<'s> {
        let set = self.engine.find(name(set));
        Reply::Number(set.map_or(0, |set| set.keys() as i64))
    }

    /// The set that a word means where no key has that name.
    fn set_with_members(&self, name: &[u8]) -> Option<Arc<Namespace>> {
        let set = self.engine.find_set(name);
        set.filter(|set| set.keys() > 0)
    }

    pub(super) fn exists(
        &self,
        session: &mut Session,
        keys: Words<'_>,
        slice: &mut Slice,
    ) -> Result<bool, Error> {
        let here = &*session.namespace;
        session
            .progress
            .each(keys, (READ_UNITS, slice), |progress, key| {
                let is_there = self.is_live(here, key) || self.set_with_members(key).is_some();
                progress.count += i64::from(is_there);
                Ok(())
            })
    }

    pub(super) fn kind<'s>(&self, here: &Namespace, key: &[u8]) -> Reply<'s> {
        Reply::Word(if self.is_live(here, key) {
            "string"
        } else if self.set_with_members(key).is_some() {
            "set"
        } else {
            "none"
        })
    }

    pub(super) fn ttl_of<'s>(&self, here: &Namespace, key: &[u8], form: TtlForm) -> Reply<'s> {
        const NO_END: i64 = -1;
        let kept = self.key(here, key);
        let deadline = here.read(&kept, |shard| {
            shard.get(&kept, self.now).map(|entry| entry.deadline)
        });
        let end = deadline.map(Some).or_else(|| {
            let set = self.set_with_members(key);
            set.map(|set| set.set_end(self.now))
        });
        let Some(Some(end)) = end else {
            return Reply::Number(end.map_or(NO_SUCH_KEY, |_| NO_END));
        };
        let left_ms = end.since(self.now);
        let number = match form {
            TtlForm::Millis => left_ms,
            TtlForm::Seconds => (left_ms + 500) / 1_000,
            TtlForm::AtMillis => self.engine.by_wall_clock(end).0,
            TtlForm::AtSeconds => (self.engine.by_wall_clock(end).0 + 500) / 1_000,
        };
        Reply::Number(number as i64)
    }

    pub(super) fn del(
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
            |key, how_far| self.remove_set(key, how_far),
        )
    }

    /// Removes a set: the namespace too, if it has nothing else to it. Whether it had members.
    fn remove_set(&self, name: &[u8], how_far: HowFar) -> Result<bool, Error> {
        let engine = self.engine;
        let Some(set) = engine.find_set(name) else {
            return Ok(false);
        };
        let had_members = set.keys() > 0;
        let is_plain = set.policy() == Policy::default_of(&engine.limits)
            && !set.keeps_digests()
            && !engine.is_configured(set.name());
        let removed = if is_plain {
            self.drop_unless_busy(&set)
        } else {
            set.empty_at_once(self.now).map(|emptied| {
                engine.garbage.lock().extend(emptied);
                engine.waiters.wake_all(&set);
            })
        };
        removed.map_err(|kept| self.not_emptied(set.name(), kept, how_far))?;
        Ok(had_members)
    }

    /// A slice of `EXPIRE` and its relatives.
    pub(super) fn expire(
        &self,
        session: &mut Session,
        (key, expiry, condition): (&[u8], Expiry, ExpireIf),
        slice: &mut Slice,
    ) -> Result<bool, Error> {
        let Session {
            namespace,
            progress,
            ..
        } = session;
        if progress.filter.is_none() {
            if let Some(is_moved) = self.expire_key(namespace, key, expiry, condition)? {
                progress.count = i64::from(is_moved);
                return Ok(true);
            }
            let Some(set) = self.set_with_members(key) else {
                return Ok(true);
            };
            let policy = set.policy();
            let held = set.set_end(self.now);
            let asked = self.deadline(expiry, held, &policy);
            let goes_ahead = condition.holds(held, asked);
            if !goes_ahead || expiry == Expiry::Longest && held.is_none() {
                return Ok(true);
            }
            progress.count = 1;
            if asked < self.now {
                self.remove_set(key, HowFar::NOTHING)?;
                return Ok(true);
            }
            let Some(until) = self.change_set_end(&set, &policy, (expiry, held, asked))? else {
                return Ok(true);
            };
            progress.until = until;
            progress.filter = Some(set);
        }
        self.end_members(progress, expiry == Expiry::Longest, slice)
    }

    /// Gives a set another end; the one that its members are to get, if that takes going through them.
    fn change_set_end(
        &self,
        set: &Namespace,
        policy: &Policy,
        (expiry, held, asked): (Expiry, Option<Millis>, Millis),
    ) -> Result<Option<Millis>, Error> {
        if set.keeps_digests() {
            return Err(Error::args(
                "members of which only digests are kept cannot be gone through: NS SET with TTL says how long each lives",
            ));
        }
        let is_persisted = expiry == Expiry::Longest;
        let slack_ms = asked.since(self.now) / SLACK_PART;
        if !is_persisted && self.unless_refused(set.end_set_within(asked, slack_ms))? {
            return Ok(None);
        }
        let latest = self.now.after(policy.ttl_max_ms);
        let until = match held {
            Some(held) if held < asked => asked.after(slack_ms).min(latest),
            _ => asked,
        };
        let ends = if is_persisted {
            SetEnds::default()
        } else {
            SetEnds {
                asked,
                members: until,
            }
        };
        self.unless_refused(set.end_set_at(ends))?;
        Ok(Some(until))
    }

    /// A slice of giving all members of a set their end: its own, or a late one if it is to have none.
    fn end_members(
        &self,
        progress: &mut Progress,
        is_persisted: bool,
        slice: &mut Slice,
    ) -> Result<bool, Error> {
        let Some(set) = progress.filter.clone() else {
            return Ok(true);
        };
        let policy = set.policy();
        let mut list = List::of(None);
        loop {
            // Another may have moved it meanwhile. Where it has passed, members that came since have ends of
            // their own, and nothing may shorten these.
            let late = is_persisted.then_some(progress.until);
            let Some(until) = set.members_end(self.now).or(late) else {
                return Ok(true);
            };
            let (mut refused, mut moved, mut bytes) = (None, 0, 0);
            let lists = (&mut list, &mut *slice);
            self.list(&set, &mut progress.cursor, WALK_PLACES, lists, |member| {
                let ended = self.end_member_at(&set, member, &policy, until);
                refused = refused.or(ended.err());
                moved += 1;
                bytes += member.len();
            });
            slice.spend(moved * WRITE_UNITS);
            slice.spend_bytes(bytes);
            progress.next += moved;
            if let Some(refused) = refused {
                return Err(self.engine.refusal_after(
                    refused,
                    HowFar {
                        done: progress.next,
                        of: set.keys() as usize,
                        parts: "members were gone through, some of which may have the end before; later ones get the new one",
                    },
                ));
            }
            if progress.cursor == 0 {
                set.assure_members_end(progress.until);
                return Ok(true);
            }
            if slice.is_over() {
                return Ok(false);
            }
        }
    }

    /// Gives a member its set's end, unless it has it or is an idempotency record.
    fn end_member_at(
        &self,
        set: &Namespace,
        member: &[u8],
        policy: &Policy,
        until: Millis,
    ) -> Result<(), Refused> {
        let member = self.key(set, member);
        set.write(&member, None, policy, |shard, _| {
            let held = shard.get(&member, self.now);
            let is_to_move = held.is_some_and(|held| {
                let has_it = held.deadline >= until && held.deadline.since(until) < WHEEL_TICK_MS;
                held.record().is_none() && !has_it
            });
            if is_to_move {
                shard.set_deadline(&member, until, self.now)?;
            }
            Ok(())
        })
    }

    /// Drops a set, unless records are in progress there.
    fn drop_unless_busy(&self, set: &Namespace) -> Result<(), Kept> {
        let _one_at_a_time = self.engine.making.lock();
        let again = self.engine.find(set.name());
        if again.is_none_or(|again| again.id() != set.id()) {
            // Another did so.
            return Ok(());
        }
        self.drop_now(set, Some(&Search::default()))
    }
}

/// Whether a key was not there.
pub(super) fn is_new(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::New | Verdict::Unsure)
}
