//! Commands on namespaces, and Bloom-filter commands, whose filters are namespaces.

use std::sync::Arc;

use super::journal::Refused;
use super::namespace::{Emptying, Kept, Search};
use super::sets::is_new;
use super::slice::{READ_UNITS, SHARD_UNITS, Slice, WRITE_UNITS};
use super::{Answer, DEFAULT_NAMESPACE, Here, HowFar, Namespace, Policy, Session};
use crate::command::{BfInsert, Code, Command, Error, PolicyChange, Reply, Words};
use crate::store::Verdict;

/// A namespace's name as text; the command model lets only ASCII through.
pub(super) fn name(bytes: &[u8]) -> &str {
    str::from_utf8(bytes)
        .expect("a namespace's name is checked to be ASCII when the command is built")
}

impl Here<'_> {
    pub(super) fn execute_on_spaces<'s>(
        &self,
        session: &'s mut Session,
        command: &Command<'_>,
    ) -> Answer<'s> {
        match *command {
            Command::Use { name: used } => self.choose(session, name(used)),
            Command::Select { db: 0 } => self.choose(session, DEFAULT_NAMESPACE),
            Command::Select { db } => self.choose(session, &format!("db{db}")),
            Command::NsList => Ok(self.ns_list()),
            Command::NsSet {
                name: asked,
                ref change,
                covered,
            } => self.ns_set(name(asked), change, covered),
            Command::NsInfo { name: asked } | Command::Stats { name: Some(asked) } => Ok(
                Reply::Rows(super::report::namespace(self.engine, &*self.known(asked)?)),
            ),
            Command::UnixMs => Ok(Reply::Number(self.engine.by_wall_clock(self.now).0 as i64)),
            Command::Time => Ok(self.time()),
            Command::Version => Ok(Reply::Word(env!("CARGO_PKG_VERSION"))),
            Command::Help { verb } => super::report::help(verb),
            Command::BfAdd { namespace, item } => {
                self.bf_add(&*self.engine.open_filter(name(namespace), self.now)?, item)
            }
            Command::BfReserve {
                namespace,
                keys_max,
            } => self.bf_reserve(name(namespace), keys_max),
            Command::BfCard { namespace } => Ok(self.scard(namespace)),
            Command::BfInfo { namespace, field } => super::report::filter(
                &*self.engine.find(name(namespace)).ok_or_else(bf_not_found)?,
                field,
            ),
            _ => Err(Error::new(Code::Unknown, "this command is not the store's")),
        }
    }

    /// A slice of emptying the namespace of this name.
    pub(super) fn purge(
        &self,
        session: &mut Session,
        (asked, force): (&[u8], bool),
        slice: &mut Slice,
    ) -> Result<bool, Error> {
        let progress = &mut session.progress;
        let namespace = match progress.filter.take() {
            Some(found) => found,
            None => self.known(asked)?,
        };
        progress.filter = Some(Arc::clone(&namespace));
        let emptied = self.empty(&namespace, &mut progress.emptying, force, slice);
        emptied.map_err(|kept| self.not_emptied(namespace.name(), kept, HowFar::NOTHING))
    }

    /// A slice of emptying the session's namespace.
    pub(super) fn purge_here(
        &self,
        session: &mut Session,
        slice: &mut Slice,
    ) -> Result<bool, Error> {
        let Session {
            namespace,
            progress,
            ..
        } = session;
        let emptied = self.empty(namespace, &mut progress.emptying, false, slice);
        emptied.map_err(|kept| self.not_emptied(namespace.name(), kept, HowFar::NOTHING))
    }

    /// Empties a namespace, but for records in progress unless that is forced, a slice at a time; the memory is
    /// given back by the next sweeps.
    fn empty(
        &self,
        namespace: &Arc<Namespace>,
        emptying: &mut Option<Emptying>,
        force: bool,
        slice: &mut Slice,
    ) -> Result<bool, Kept> {
        let engine = self.engine;
        let how = (!force, &engine.garbage);
        let is_done = namespace.empty(emptying, how, &engine.secret, slice, self.now)?;
        if is_done {
            slice.spend(namespace.shard_count() * SHARD_UNITS);
            engine.waiters.wake_all(namespace);
        }
        Ok(is_done)
    }

    pub(super) fn not_emptied(&self, name: &str, kept: Kept, how_far: HowFar) -> Error {
        match kept {
            Kept::NoSpace => self.engine.refusal_after(Refused, how_far),
            Kept::InProgress | Kept::Lost => busy(name, how_far),
        }
    }

    fn choose<'s>(&self, session: &mut Session, name: &str) -> Answer<'s> {
        session.namespace.choose(self.engine.open(name)?);
        Ok(Reply::OK)
    }

    fn known(&self, asked: &[u8]) -> Result<Arc<Namespace>, Error> {
        let asked = name(asked);
        self.engine
            .find(asked)
            .ok_or_else(|| self.engine.no_such(asked))
    }

    fn ns_list<'s>(&self) -> Reply<'s> {
        let mut rows: Vec<_> = self
            .engine
            .namespaces
            .iter()
            .map(|entry| {
                (
                    entry.name().to_owned().into(),
                    format!("keys={}", entry.keys()),
                )
            })
            .collect();
        rows.sort_unstable();
        Reply::Rows(rows)
    }

    fn ns_set<'s>(&self, name: &str, change: &PolicyChange, covered: bool) -> Answer<'s> {
        let engine = self.engine;
        // Or a change might go to a namespace that another is just taking the place of.
        let _one_at_a_time = engine.making.lock();
        let set = match (engine.find(name), change.keeps_digests) {
            (None, keeps_digests) => {
                // What cannot hold is refused before a namespace is made for it.
                let policy = Policy::default_of(&engine.limits).with(change)?;
                if !engine.create_namespaces {
                    return Err(engine.no_such(name));
                }
                engine.add(name, &policy, keeps_digests.unwrap_or(false), covered)?;
                return Ok(Reply::OK);
            }
            (Some(found), Some(keeps_digests)) if keeps_digests != found.keeps_digests() => {
                let policy = found.policy().with(change)?;
                engine.change_form(&found, &policy, keeps_digests, covered)?;
                return Ok(Reply::OK);
            }
            (Some(found), _) => found,
        };
        self.unless_refused(set.change_policy(change, covered)?)?;
        Ok(Reply::OK)
    }

    /// A slice of dropping a namespace: whether records are in progress there is looked for first.
    pub(super) fn ns_drop(
        &self,
        session: &mut Session,
        (name, force): (&str, bool),
        slice: &mut Slice,
    ) -> Result<bool, Error> {
        if name == DEFAULT_NAMESPACE {
            return Err(Error::args(
                "the default namespace stays; NS PURGE default empties it",
            ));
        }
        let engine = self.engine;
        let search = &mut session.progress.search;
        let find = || engine.find(name).ok_or_else(|| engine.no_such(name));
        let refused = |kept| self.not_emptied(name, kept, HowFar::NOTHING);
        if !force {
            let searched = find()?.search(search, &engine.secret, slice, self.now);
            if !searched.map_err(refused)? {
                return Ok(false);
            }
        }
        let _one_at_a_time = engine.making.lock();
        match self.drop_now(&*find()?, Some(&*search).filter(|_| !force)) {
            Ok(()) => Ok(true),
            Err(Kept::Lost) => {
                *search = Search::default();
                Ok(false)
            }
            Err(kept) => Err(refused(kept)),
        }
    }

    /// Drops a namespace, for who holds `making`: nobody opens the name anew between its removal and the mark, or
    /// two namespaces would answer for it.
    pub(super) fn drop_now(
        &self,
        dropped: &Namespace,
        searched: Option<&Search>,
    ) -> Result<(), Kept> {
        let engine = self.engine;
        // One that is made anew must not pretend to know.
        let covered_since = engine.covered_since().max(self.now.after(1));
        let is_logged = || {
            let log = engine.log();
            log.is_none_or(|log| log.append_dropped(dropped.logged_as(), covered_since))
        };
        let emptied = dropped.close_for_good(searched, is_logged, self.now)?;
        engine.set_covered_since(covered_since);
        engine.namespaces.remove(dropped.name());
        engine.garbage.lock().extend(emptied);
        engine.waiters.wake_all(dropped);
        Ok(())
    }

    /// A slice of emptying all that can be emptied; at the end one is named that cannot.
    pub(super) fn purge_all(
        &self,
        session: &mut Session,
        slice: &mut Slice,
    ) -> Result<bool, Error> {
        let progress = &mut session.progress;
        let spaces = &mut progress.spaces;
        let left = spaces.get_or_insert_with(|| self.engine.all_namespaces());
        while let Some(namespace) = left.last() {
            if slice.is_over() {
                return Ok(false);
            }
            match self.empty(namespace, &mut progress.emptying, false, slice) {
                Ok(false) => return Ok(false),
                Ok(true) => progress.next += 1,
                Err(why) => progress.kept.push((Arc::clone(namespace), why)),
            }
            progress.emptying = None;
            left.pop();
        }
        let how_far = HowFar {
            done: progress.next,
            of: progress.next + progress.kept.len(),
            parts: "namespaces are emptied",
        };
        match progress.kept.first() {
            None => Ok(true),
            Some((namespace, why)) => Err(self.not_emptied(namespace.name(), *why, how_far)),
        }
    }

    fn time<'s>(&self) -> Reply<'s> {
        let now = self.engine.by_wall_clock(self.now);
        let (seconds, ms) = (now.0 / 1_000, now.0 % 1_000);
        Reply::Array(vec![
            Reply::text(seconds.to_string()),
            Reply::text((ms * 1_000).to_string()),
        ])
    }

    fn bf_add<'s>(&self, filter: &Namespace, item: &[u8]) -> Answer<'s> {
        match self.add_member(filter, item) {
            Verdict::Full => Err(self.engine.no_room(filter)),
            verdict => Ok(Reply::Flag(is_new(verdict))),
        }
    }

    pub(super) fn bf_insert(
        &self,
        session: &mut Session,
        insert: &BfInsert<'_>,
        slice: &mut Slice,
    ) -> Result<bool, Error> {
        let asked = name(insert.namespace);
        let progress = &mut session.progress;
        let filter = match progress.filter.take() {
            Some(found) => found,
            None => self.filter_to_fill(asked, insert)?,
        };
        progress.filter = Some(Arc::clone(&filter));
        progress.each(insert.items, (WRITE_UNITS, slice), |progress, item| {
            let answer = self.bf_add(&filter, item).unwrap_or_else(Reply::Error);
            progress.answers.push(answer);
            Ok(())
        })
    }

    fn filter_to_fill(&self, asked: &str, insert: &BfInsert<'_>) -> Result<Arc<Namespace>, Error> {
        match self.engine.find(asked) {
            Some(found) => self.engine.as_filter(found, self.now),
            None if insert.create => self.make_filter(asked, insert.keys_max),
            None => Err(bf_not_found()),
        }
    }

    fn make_filter(&self, asked: &str, keys_max: Option<u64>) -> Result<Arc<Namespace>, Error> {
        let change = PolicyChange {
            keys_max,
            ..PolicyChange::default()
        };
        self.ns_set(asked, &change, false)?;
        self.engine.open_set(asked, self.now)
    }

    /// A slice of telling which items are there, each told as `answer` has it, of 1 or 0.
    pub(super) fn are_there(
        &self,
        session: &mut Session,
        (asked, items): (&[u8], Words<'_>),
        answer: fn(i64) -> Reply<'static>,
        slice: &mut Slice,
    ) -> Result<bool, Error> {
        let progress = &mut session.progress;
        if progress.next == 0 {
            progress.filter = self.engine.find(name(asked));
        }
        let found = progress.filter.clone();
        progress.each(items, (READ_UNITS, slice), |progress, item| {
            let is_there = found
                .as_ref()
                .is_some_and(|found| self.is_live(found, item));
            progress.answers.push(answer(i64::from(is_there)));
            Ok(())
        })
    }

    fn bf_reserve<'s>(&self, asked: &str, keys_max: Option<u64>) -> Answer<'s> {
        if self.engine.find(asked).is_some() {
            return Err(Error::redis("ERR item exists"));
        }
        self.make_filter(asked, keys_max)?;
        Ok(Reply::OK)
    }
}

fn busy(name: &str, how_far: HowFar) -> Error {
    let mut text = format!("namespace '{name}' has records in progress, which only FORCE removes");
    if how_far.done > 0 {
        text = format!("{text}; {how_far}");
    }
    Error::new(Code::Busy, text)
}

fn bf_not_found() -> Error {
    Error::redis("ERR not found")
}
