//! Commands on namespaces, and Bloom-filter commands, whose filters are namespaces.

use std::sync::Arc;

use super::journal::Refused;
use super::namespace::Kept;
use super::slice::{READ_UNITS, Slice, WRITE_UNITS};
use super::{Answer, DEFAULT_NAMESPACE, Here, HowFar, Namespace, Policy, Session};
use crate::command::{BfInsert, Code, Command, Error, PolicyChange, Reply, Words};
use crate::store::{Ask, Verdict};

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
            Command::NsPurge { name: asked, force } => self.purge(&*self.known(asked)?, force),
            Command::NsDrop { name: asked, force } => self.ns_drop(name(asked), force),
            Command::FlushAll => self.purge_all(),
            Command::NsInfo { name: asked } | Command::Stats { name: Some(asked) } => {
                Ok(Reply::Rows(super::report::namespace(&*self.known(asked)?)))
            }
            Command::UnixMs => Ok(Reply::Number(self.now.0 as i64)),
            Command::Time => Ok(self.time()),
            Command::Version => Ok(Reply::Word(env!("CARGO_PKG_VERSION"))),
            Command::Help { verb } => super::report::help(verb),
            Command::BfAdd { namespace, item } => {
                self.bf_add(&*self.engine.open(name(namespace))?, item)
            }
            Command::BfReserve {
                namespace,
                keys_max,
            } => self.bf_reserve(name(namespace), keys_max),
            Command::BfCard { namespace } => Ok(Reply::Number(
                self.engine
                    .find(name(namespace))
                    .map_or(0, |found| found.keys() as i64),
            )),
            Command::BfInfo { namespace, field } => super::report::filter(
                &*self.engine.find(name(namespace)).ok_or_else(bf_not_found)?,
                field,
            ),
            _ => Err(Error::new(Code::Unknown, "this command is not the store's")),
        }
    }

    /// Empties a namespace, but for records in progress unless that is forced; the memory is given back by
    /// the next sweep.
    pub(super) fn purge<'s>(&self, namespace: &Namespace, force: bool) -> Answer<'s> {
        let emptied = self.empty(namespace, force);
        emptied.map_err(|kept| self.not_emptied(namespace, kept, HowFar::NOTHING))?;
        Ok(Reply::OK)
    }

    fn empty(&self, namespace: &Namespace, force: bool) -> Result<(), Kept> {
        let engine = self.engine;
        let cleared = namespace.clear(&engine.secret, !force, self.now)?;
        engine.garbage.lock().extend(cleared);
        engine.waiters.wake_all(namespace);
        Ok(())
    }

    fn not_emptied(&self, namespace: &Namespace, kept: Kept, how_far: HowFar) -> Error {
        match kept {
            Kept::NoSpace => self.engine.refusal_after(Refused, how_far),
            Kept::InProgress => busy(namespace.name(), how_far),
        }
    }

    fn choose<'s>(&self, session: &mut Session, name: &str) -> Answer<'s> {
        session.namespace = self.engine.open(name)?;
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

    fn ns_drop<'s>(&self, name: &str, force: bool) -> Answer<'s> {
        if name == DEFAULT_NAMESPACE {
            return Err(Error::args(
                "the default namespace stays; NS PURGE default empties it",
            ));
        }
        // Nobody opens the name anew between its removal and the mark, or two namespaces would answer for it.
        let _one_at_a_time = self.engine.making.lock();
        let dropped = self
            .engine
            .find(name)
            .ok_or_else(|| self.engine.no_such(name))?;
        // One that is made anew must not pretend to know.
        let engine = self.engine;
        let covered_since = engine.covered_since().max(self.now.after(1));
        let is_logged = || {
            let log = engine.log();
            log.is_none_or(|log| log.append_dropped(dropped.logged_as(), covered_since))
        };
        let emptied = dropped.close_for_good(!force, is_logged, self.now);
        let emptied = emptied.map_err(|kept| match kept {
            Kept::NoSpace => engine.refusal(Refused),
            Kept::InProgress => busy(name, HowFar::NOTHING),
        })?;
        engine.set_covered_since(covered_since);
        engine.namespaces.remove(name);
        engine.garbage.lock().extend(emptied);
        engine.waiters.wake_all(&dropped);
        Ok(Reply::OK)
    }

    /// Empties all that can be emptied, and names one that cannot.
    fn purge_all<'s>(&self) -> Answer<'s> {
        let namespaces = self.engine.all_namespaces();
        let mut kept = Vec::new();
        for namespace in &namespaces {
            kept.extend(
                self.empty(namespace, false)
                    .err()
                    .map(|why| (namespace, why)),
            );
        }
        let how_far = HowFar {
            done: namespaces.len() - kept.len(),
            of: namespaces.len(),
            parts: "namespaces are emptied",
        };
        match kept.first() {
            None => Ok(Reply::OK),
            Some((namespace, why)) => Err(self.not_emptied(namespace, *why, how_far)),
        }
    }

    fn time<'s>(&self) -> Reply<'s> {
        let (seconds, ms) = (self.now.0 / 1_000, self.now.0 % 1_000);
        Reply::Array(vec![
            Reply::text(seconds.to_string()),
            Reply::text((ms * 1_000).to_string()),
        ])
    }

    fn bf_add<'s>(&self, filter: &Namespace, item: &[u8]) -> Answer<'s> {
        let policy = filter.policy();
        let ask = Ask {
            ttl_ms: policy.ttl_ms,
            mode: policy.mode,
            ..Ask::default()
        };
        match self.engine.seen(filter, item, &ask, self.now) {
            Verdict::New | Verdict::Unsure => Ok(Reply::Flag(true)),
            Verdict::Dup | Verdict::Mismatch => Ok(Reply::Flag(false)),
            Verdict::Full => Err(self.engine.no_room()),
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
            Some(found) => Ok(found),
            None if insert.create => {
                let change = PolicyChange {
                    keys_max: insert.keys_max,
                    ..PolicyChange::default()
                };
                self.ns_set(asked, &change, false)?;
                self.engine.open(asked)
            }
            None => Err(bf_not_found()),
        }
    }

    pub(super) fn bf_exists(
        &self,
        session: &mut Session,
        filter: &[u8],
        items: Words<'_>,
        slice: &mut Slice,
    ) -> Result<bool, Error> {
        let progress = &mut session.progress;
        if progress.next == 0 {
            progress.filter = self.engine.find(name(filter));
        }
        let filter = progress.filter.clone();
        let each = (READ_UNITS, slice);
        progress.each(items, each, |progress, item| {
            let is_there = filter
                .as_ref()
                .is_some_and(|found| self.is_live(found, item));
            progress.answers.push(Reply::Flag(is_there));
            Ok(())
        })
    }

    fn bf_reserve<'s>(&self, asked: &str, keys_max: Option<u64>) -> Answer<'s> {
        if self.engine.find(asked).is_some() {
            return Err(Error::redis("ERR item exists"));
        }
        let change = PolicyChange {
            keys_max,
            ..PolicyChange::default()
        };
        self.ns_set(asked, &change, false)
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
