//! What takes long, a slice at a time: commands on many keys, and those that look at all of them.
//!
//! What a command costs is counted as it is done, in units, never measured: the engine reads no clock.
//! The units were chosen so that a slice is about a millisecond where keys are not in the processor's
//! caches and the log is on. A command whose slice is over leaves its [`Progress`] in the session, and the
//! caller executes the same command again once others have had their turn. Between two slices no lock is
//! held, so others' changes come in between, as they always could between two keys.
//!
//! Not here: what is done for one key.

use std::sync::Arc;

use super::namespace::{Emptying, Kept, Search};
use super::report::{self, Totals};
use super::{Answer, Engine, Here, Namespace, Session, Wait, spaces};
use crate::command::{Command, Error, Reply, Words};
use crate::time::Millis;

/// Units that a slice has: of about 10 ns on a core of 2026.
pub(super) const SLICE_UNITS: usize = 100_000;
/// A key of many that are asked for together.
pub(super) const BATCHED_UNITS: usize = 25;
/// A key that is looked up.
pub(super) const READ_UNITS: usize = 40;
/// A key that is stored or removed.
pub(super) const WRITE_UNITS: usize = 80;
/// A key whose record is begun or ended.
pub(super) const RECORD_UNITS: usize = 150;
/// A place of a table that is looked at.
pub(super) const PLACE_UNITS: usize = 2;
/// A key that is listed.
pub(super) const LISTED_UNITS: usize = 10;
/// A shard that is locked for its counts.
pub(super) const SHARD_UNITS: usize = 15;
/// Bytes that cost a unit: of keys that are copied, hashed or logged.
const UNIT_BYTES: usize = 16;

/// What is left of a slice.
#[derive(Debug)]
pub(super) struct Slice {
    left: usize,
}

impl Slice {
    pub(super) fn new() -> Self {
        Self { left: SLICE_UNITS }
    }

    /// Takes note of work that was done.
    pub(super) fn spend(&mut self, units: usize) {
        self.left = self.left.saturating_sub(units);
    }

    /// Takes note of bytes that were gone through.
    pub(super) fn spend_bytes(&mut self, bytes: usize) {
        self.spend(bytes / UNIT_BYTES);
    }

    /// Whether others are to have their turn.
    pub(super) fn is_over(&self) -> bool {
        self.left == 0
    }
}

/// How far a command has come, between two slices of it.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Whether a slice was done, and not the last.
    is_begun: bool,
    /// The number of the next word.
    pub(super) next: usize,
    /// What counts so far.
    pub(super) count: i64,
    /// How long the keys of this command live, as was found when it began.
    pub(super) ttl_ms: Option<u64>,
    /// The tokens that it gave; they rise.
    pub(super) tokens: Vec<u64>,
    /// An answer for each key so far.
    pub(super) answers: Vec<Reply<'static>>,
    /// Bytes of what it will answer, as far as they are bounded.
    pub(super) bytes: usize,
    /// Bytes that were copied for its answers.
    pub(super) copied: usize,
    /// Where a scan goes on.
    pub(super) cursor: u64,
    /// The end that a set's members get.
    pub(super) until: Millis,
    /// The keys that it lists, one behind the other, and where each of them ends.
    pub(super) listed: Vec<u8>,
    pub(super) ends: Vec<usize>,
    /// The namespace that it named, as was found when it began.
    pub(super) filter: Option<Arc<Namespace>>,
    /// The namespace that is being emptied.
    pub(super) emptying: Option<Emptying>,
    /// What is looked for in one that is to be dropped.
    pub(super) search: Search,
    /// The namespaces that are still to be emptied, and those that could not be.
    pub(super) spaces: Option<Vec<Arc<Namespace>>>,
    pub(super) kept: Vec<(Arc<Namespace>, Kept)>,
    /// The namespaces that are still to be added up, and the sum of the others.
    sum: Option<(Vec<Arc<Namespace>>, Totals)>,
}

impl Progress {
    /// Does something for each word that is left, until the slice is over; returns whether all are done.
    pub(super) fn each(
        &mut self,
        words: Words<'_>,
        (units, slice): (usize, &mut Slice),
        mut act: impl FnMut(&mut Self, &[u8]) -> Result<(), Error>,
    ) -> Result<bool, Error> {
        while self.next < words.len() {
            if slice.is_over() {
                return Ok(false);
            }
            let word = words.get(self.next);
            let copied = self.copied;
            act(self, word)?;
            self.next += 1;
            slice.spend(units);
            slice.spend_bytes(word.len() + self.copied - copied);
        }
        Ok(true)
    }

    /// Bytes of memory that it holds, beside what it copied.
    fn held_bytes(&self) -> usize {
        self.tokens.capacity() * size_of::<u64>()
            + self.answers.capacity() * size_of::<Reply<'_>>()
            + self.listed.capacity()
            + self.ends.capacity() * size_of::<usize>()
    }
}

impl Session {
    /// Whether a command has been begun that is not finished.
    pub(crate) fn is_under_way(&self) -> bool {
        self.progress.is_begun
    }

    /// Bytes of memory that a command holds which is not finished, beside what it copied.
    pub(crate) fn held_bytes(&self) -> usize {
        self.progress.held_bytes()
    }

    /// Bytes that such a command copied for its reply.
    pub(crate) fn copied_bytes(&self) -> usize {
        self.progress.copied
    }
}

/// What came of a slice of a command.
#[derive(Debug)]
pub enum Executed<'s> {
    /// It is done.
    Told(Reply<'s>),
    /// Its reply is held: the caller has a place in line.
    Held,
    /// It is to be executed again, by the same session, before any other: it goes on then.
    Unfinished,
}

impl Engine {
    /// As [`Engine::execute_or_wait`], where there is a way to wait, but only a slice of what takes long: some
    /// millisecond of work at a time.
    pub fn execute_slice<'s>(
        &self,
        session: &'s mut Session,
        command: &Command<'_>,
        wait: Option<Wait<'_>>,
        now: Millis,
    ) -> Executed<'s> {
        if let Err(error) = self.find_its_namespace(session, command) {
            return Executed::Told(error.into());
        }
        let here = Here { engine: self, now };
        match here.go_on(session, command) {
            Some(Ok(false)) => {
                session.progress.is_begun = true;
                Executed::Unfinished
            }
            Some(done) => Executed::Told(here.answer_of(session, command, done.map(|_| ()))),
            None => match here.execute_at_once(session, command, wait) {
                Ok(Some(reply)) => Executed::Told(reply),
                Ok(None) => Executed::Held,
                Err(error) => Executed::Told(error.into()),
            },
        }
    }

    /// The same, all slices in a row.
    pub(super) fn execute_whole<'s>(
        &self,
        session: &'s mut Session,
        command: &Command<'_>,
        wait: Option<Wait<'_>>,
        now: Millis,
    ) -> Option<Reply<'s>> {
        if let Err(error) = self.find_its_namespace(session, command) {
            return Some(error.into());
        }
        let here = Here { engine: self, now };
        loop {
            match here.go_on(session, command) {
                Some(Ok(false)) => {}
                Some(done) => return Some(here.answer_of(session, command, done.map(|_| ()))),
                None => break,
            }
        }
        here.execute_at_once(session, command, wait)
            .unwrap_or_else(|error| Some(error.into()))
    }

    /// A slice of adding up all namespaces; `None` if it is to be gone on with.
    pub(crate) fn totals_slice(&self, session: &mut Session) -> Option<Totals> {
        session.progress.add_up(self, &mut Slice::new())?;
        let (_, totals) = session.progress.sum.take()?;
        Some(totals)
    }
}

impl Progress {
    /// Adds up what all namespaces hold, until the slice is over.
    fn add_up(&mut self, engine: &Engine, slice: &mut Slice) -> Option<()> {
        let sum = &mut self.sum;
        let (left, totals) =
            sum.get_or_insert_with(|| (engine.all_namespaces(), Totals::default()));
        while let Some(namespace) = left.last() {
            if slice.is_over() {
                return None;
            }
            totals.add(namespace);
            slice.spend(namespace.shard_count() * SHARD_UNITS);
            left.pop();
        }
        Some(())
    }
}

impl Here<'_> {
    /// A slice of a command that may take long; whether it is done. `None` if it takes none of that kind.
    fn go_on(&self, session: &mut Session, command: &Command<'_>) -> Option<Result<bool, Error>> {
        let slice = &mut Slice::new();
        Some(match *command {
            Command::MSeen { ttl, keys } => self.mseen(session, ttl, keys, slice),
            Command::Peek { keys } => self.peek(session, keys, slice),
            Command::MBegin {
                ttl,
                lease_ms,
                keys,
            } => self.mbegin(session, (ttl, lease_ms), keys, slice),
            Command::MEnd { pairs, is_failure } => self.mend(session, pairs, is_failure, slice),
            Command::Forget { keys } => self.forget(session, keys, slice),
            Command::MGet { keys } => self.mget(session, keys, slice),
            Command::MSet { pairs } => self.mset(session, pairs, slice),
            Command::Del { keys } => self.del(session, keys, slice),
            Command::Exists { keys } => self.exists(session, keys, slice),
            Command::Expire {
                key,
                expiry,
                condition,
            } => self.expire(session, (key, expiry, condition), slice),
            Command::SAdd { set, members } => self.sadd(session, (set, members), slice),
            Command::SRem { set, members } => self.srem(session, (set, members), slice),
            Command::SIsMember { set, members, .. } => {
                self.are_there(session, (set, members), Reply::Number, slice)
            }
            Command::SMembers { set } => self.smembers(session, set, slice),
            Command::Keys { pattern } => self.keys(session, pattern, slice),
            Command::BfInsert(ref insert) => self.bf_insert(session, insert, slice),
            Command::BfExists {
                namespace, items, ..
            } => {
                let flag = |is_there| Reply::Flag(is_there > 0);
                self.are_there(session, (namespace, items), flag, slice)
            }
            Command::NsPurge { name, force } => self.purge(session, (name, force), slice),
            Command::NsDrop { name, force } => {
                self.ns_drop(session, (spaces::name(name), force), slice)
            }
            Command::FlushDb => self.purge_here(session, slice),
            Command::FlushAll => self.purge_all(session, slice),
            Command::Stats { name: None } => {
                Ok(session.progress.add_up(self.engine, slice).is_some())
            }
            _ => return None,
        })
    }

    /// What a command answers that took long, and is done.
    fn answer_of<'s>(
        &self,
        session: &'s mut Session,
        command: &Command<'_>,
        done: Result<(), Error>,
    ) -> Reply<'s> {
        let progress = std::mem::take(&mut session.progress);
        self.reply(&session.letters, command, progress, done)
            .unwrap_or_else(Reply::Error)
    }

    fn reply<'s>(
        &self,
        letters: &'s [u8],
        command: &Command<'_>,
        progress: Progress,
        done: Result<(), Error>,
    ) -> Answer<'s> {
        done?;
        Ok(match *command {
            Command::MBegin { .. } => Reply::Items(letters),
            Command::Forget { .. } => Reply::Count(progress.count),
            Command::Del { .. }
            | Command::Exists { .. }
            | Command::Expire { .. }
            | Command::SAdd { .. }
            | Command::SRem { .. } => Reply::Number(progress.count),
            Command::Keys { .. } | Command::SMembers { .. } => Reply::Values {
                bytes: progress.listed,
                ends: progress.ends,
                have_order: !matches!(command, Command::SMembers { .. }),
            },
            Command::MGet { .. } | Command::BfInsert(_) => Reply::Array(progress.answers),
            Command::BfExists { single, .. } | Command::SIsMember { single, .. } => {
                let mut answers = progress.answers;
                match answers.pop() {
                    Some(only) if single => only,
                    last => {
                        answers.extend(last);
                        Reply::Array(answers)
                    }
                }
            }
            Command::Stats { .. } => {
                let (_, totals) = progress.sum.unwrap_or_default();
                Reply::Rows(report::server(self.engine, &totals, self.now))
            }
            Command::NsPurge { .. }
            | Command::NsDrop { .. }
            | Command::MSet { .. }
            | Command::FlushDb
            | Command::FlushAll => Reply::OK,
            _ => Reply::Letters(letters),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{PolicyChange, lookup_line, lookup_resp};
    use crate::engine::EngineConfig;
    use crate::limits::Limits;
    use crate::wire::{Decoded, Decoder};

    const KEYS: usize = Limits::DEFAULT.batch_keys_max;

    /// What a request is told, and in how many slices; `between` is called after each but the last, and sees the session.
    fn told(
        engine: &Engine,
        session: &mut Session,
        request: &str,
        between: impl FnMut(usize, &Session),
    ) -> (String, usize) {
        told_from(engine, session, (request, 0), between)
    }

    /// The same, where the first slice is a millisecond after `start_ms`.
    fn told_from(
        engine: &Engine,
        session: &mut Session,
        (request, start_ms): (&str, usize),
        mut between: impl FnMut(usize, &Session),
    ) -> (String, usize) {
        let line = format!("{request}\n");
        let mut decoder = Decoder::default();
        let Decoded::Request { args, .. } = decoder.next(line.as_bytes(), engine.limits()) else {
            panic!("{request}");
        };
        let verb = lookup_line(args.verb()).or_else(|| lookup_resp(args.verb()));
        let command = verb.unwrap().spec().parse(&args, engine.limits()).unwrap();
        let mut slices = 1;
        loop {
            let now = Millis((start_ms + slices) as u64);
            match engine.execute_slice(session, &command, None, now) {
                Executed::Unfinished => between(slices, session),
                Executed::Told(reply) => return (format!("{reply:?}"), slices),
                Executed::Held => panic!("nobody can wait here"),
            }
            slices += 1;
        }
    }

    fn keys(from: usize) -> String {
        (from..from + KEYS).fold(String::new(), |keys, n| keys + &format!(" k{n:05}"))
    }

    #[test]
    fn what_takes_long_takes_slices_and_answers_the_same() {
        let engine = Engine::new(EngineConfig::default());
        let mut session = engine.session();
        // Some are there, and some will be.
        let before = keys(KEYS / 2);
        told(
            &engine,
            &mut session,
            &format!("MSEEN 1h{before}"),
            |_, _| {},
        );
        let all = keys(0);
        let pairs = all.replace(' ', " v ").split_off(2) + " v";
        for (request, slices_min) in [
            (format!("SADD s{all}"), KEYS * BATCHED_UNITS / SLICE_UNITS),
            (
                format!("SMISMEMBER none{all}"),
                KEYS * READ_UNITS / SLICE_UNITS,
            ),
            (format!("PEEK{all}"), KEYS * READ_UNITS / SLICE_UNITS),
            (format!("EXISTS{all}"), KEYS * READ_UNITS / SLICE_UNITS),
            (format!("MGET{all}"), KEYS * READ_UNITS / SLICE_UNITS),
            (
                format!("BF.MEXISTS default{all}"),
                KEYS * READ_UNITS / SLICE_UNITS,
            ),
            (format!("MSEEN 1h{all}"), KEYS * BATCHED_UNITS / SLICE_UNITS),
            ("KEYS *".to_owned(), KEYS * LISTED_UNITS / SLICE_UNITS),
            (format!("FORGET{all}"), KEYS * WRITE_UNITS / SLICE_UNITS),
            (
                format!("BF.MADD default{before}"),
                KEYS * WRITE_UNITS / SLICE_UNITS,
            ),
            (format!("DEL{all}"), KEYS * WRITE_UNITS / SLICE_UNITS),
            (format!("MSET{pairs}"), KEYS * WRITE_UNITS / SLICE_UNITS),
            (format!("UNLINK{all}"), KEYS * WRITE_UNITS / SLICE_UNITS),
            (
                format!("MBEGIN 1h 1m{all}"),
                KEYS * RECORD_UNITS / SLICE_UNITS,
            ),
        ] {
            let verb = request.split(' ').next().unwrap();
            let (whole, twin) = twin_of(&engine, &request);
            let (got, slices) = told(&engine, &mut session, &request, |_, _| {});
            assert!(
                slices >= slices_min.max(2) && slices <= 2 * slices_min + 2,
                "{verb}: {slices}, not {slices_min}"
            );
            // Keys are listed in the order of their places, which is that of their coming too.
            let in_order = |text: &str| {
                let mut bytes = text.as_bytes().to_vec();
                if verb == "KEYS" {
                    bytes.sort_unstable();
                }
                bytes
            };
            assert!(in_order(&got) == in_order(&whole), "{verb}");
            drop(twin);
            assert!(
                session.progress.next == 0 && session.held_bytes() == 0,
                "{verb}"
            );
        }
    }

    /// Members that come while the others get their end have it too, and it is not done twice.
    #[test]
    fn a_set_gets_its_end_in_slices() {
        let engine = Engine::new(EngineConfig::default());
        let (mut session, mut other) = (engine.session(), engine.session());
        told(
            &engine,
            &mut session,
            &format!("SADD s{}", keys(0)),
            |_, _| {},
        );
        let mut asked = |request: &str| {
            let between = |slice: usize, _: &Session| {
                if slice <= 2 {
                    told(
                        &engine,
                        &mut other,
                        &format!("SADD s new{slice}"),
                        |_, _| {},
                    );
                }
            };
            let (answer, slices) = told(&engine, &mut session, request, between);
            assert_eq!(answer, "Number(1)");
            slices
        };
        let slices_min = KEYS * WRITE_UNITS / SLICE_UNITS;
        assert!((slices_min..=2 * slices_min + 2).contains(&asked("PEXPIRE s 86400000")));
        // Moved on, it is later by an eighth of the time; until that is used up there is nothing to do.
        assert!(asked("PEXPIRE s 90000000") >= slices_min);
        assert_eq!(asked("PEXPIRE s 101000000"), 1);
        assert_eq!(asked("PEXPIRE s 90000000"), 1);
        assert!(asked("PEXPIRE s 80000000") >= slices_min);
        let set = engine.find("s").unwrap();
        for member in ["k00000", "k09999", "new1", "new2"] {
            let key = set.key(&engine.secret, member.as_bytes());
            let held = set.read(&key, |shard| shard.get(&key, Millis(1)).unwrap().deadline);
            assert!(
                (80_000_000..80_000_100).contains(&held.0),
                "{member}: {held:?}"
            );
        }
        let (answer, slices) = told(
            &engine,
            &mut session,
            &format!("SREM s{}", keys(0)),
            |_, _| {},
        );
        assert_eq!(answer, format!("Number({KEYS})"));
        assert!(slices >= slices_min);
        let (answer, _) = told(&engine, &mut session, "SCARD s", |_, _| {});
        assert_eq!(answer, "Number(2)");
    }

    /// What came behind the end lost its own to who still went through the members.
    #[test]
    fn a_member_that_comes_behind_the_end_has_its_own() {
        let engine = Engine::new(EngineConfig::default());
        let (mut session, mut other) = (engine.session(), engine.session());
        told(
            &engine,
            &mut session,
            &format!("SADD s{}", keys(0)),
            |_, _| {},
        );
        let (answer, slices) = told(&engine, &mut session, "PEXPIRE s 2", |slice, _| {
            if slice == 3 {
                for n in 0..100 {
                    let late = (&*format!("SADD s late{n}"), 3);
                    told_from(&engine, &mut other, late, |_, _| {});
                }
            }
        });
        assert_eq!((&*answer, slices), ("Number(1)", 4));
        for n in 0..100 {
            let late = format!("SISMEMBER s late{n}");
            let (answer, _) = told_from(&engine, &mut session, (&late, 3_000_000), |_, _| {});
            assert_eq!(answer, "Number(1)");
        }
    }

    /// A set that goes away while members are added to it is made anew for the rest, as a set.
    #[test]
    fn a_set_that_is_removed_meanwhile_is_made_anew() {
        let engine = Engine::new(EngineConfig::default());
        let (mut session, mut other) = (engine.session(), engine.session());
        let (answer, slices) = told(
            &engine,
            &mut session,
            &format!("SADD s{}", keys(0)),
            |slice, _| {
                if slice == 1 {
                    let (removed, _) = told(&engine, &mut other, "DEL s", |_, _| {});
                    assert_eq!(removed, "Number(1)");
                }
            },
        );
        assert_eq!(answer, format!("Number({KEYS})"));
        assert!(slices > 1);
        for (request, want) in [
            ("TYPE s", "Word(\"set\")"),
            ("SISMEMBER s k09999", "Number(1)"),
        ] {
            assert_eq!(told(&engine, &mut session, request, |_, _| {}).0, want);
        }
    }

    #[test]
    fn what_is_copied_for_a_reply_is_counted_between_slices_and_has_its_room() {
        const VALUE_BYTES: usize = 4_000;
        let value = "v".repeat(VALUE_BYTES);
        let keys = " k".repeat(1_000);
        for (others, has_room) in [(0, true), (64 << 20, false)] {
            let engine = Engine::new(EngineConfig {
                memory_bytes_max: 64 << 20,
                ..EngineConfig::default()
            });
            let mut session = engine.session();
            told(&engine, &mut session, &format!("SET k {value}"), |_, _| {});
            engine.budget().change_replies(others);
            let mut copied = 0;
            let (answer, _) = told(
                &engine,
                &mut session,
                &format!("MGET{keys}"),
                |_, session| {
                    let before = std::mem::replace(&mut copied, session.copied_bytes());
                    let slice = copied - before;
                    assert!(
                        (VALUE_BYTES * 100..=SLICE_UNITS * UNIT_BYTES + 5_000).contains(&slice)
                    );
                },
            );
            assert_eq!(answer.starts_with("Array("), has_room);
            assert_eq!(copied > 0, has_room, "several slices");
            assert_eq!(session.copied_bytes(), 0);
        }
    }

    /// The namespace of a long request is dropped in the middle, and there is no room for it any more.
    #[test]
    fn what_can_not_go_on_leaves_nothing_to_the_next_request() {
        let mut limits = Limits::DEFAULT;
        limits.namespaces_max = 2;
        let engine = Engine::new(EngineConfig {
            limits,
            ..EngineConfig::default()
        });
        let (mut session, mut other) = (engine.session(), engine.session());
        told(&engine, &mut other, "NS SET here", |_, _| {});
        told(&engine, &mut session, "USE here", |_, _| {});
        let (answer, slices) = told(
            &engine,
            &mut session,
            &format!("MGET{}", keys(0)),
            |slice, _| {
                if slice == 1 {
                    let (dropped, _) = told(&engine, &mut other, "NS DROP here", |_, _| {});
                    assert_eq!(dropped, format!("{:?}", Reply::OK));
                    told(&engine, &mut other, "NS SET another", |_, _| {});
                }
            },
        );
        assert!(slices == 2 && answer.contains("namespaces"), "{answer}");
        assert_eq!(session.copied_bytes() + session.held_bytes(), 0);
        told(&engine, &mut session, "USE another", |_, _| {});
        let (answer, _) = told(&engine, &mut session, "EXISTS k00000 k00001", |_, _| {});
        assert_eq!(answer, format!("{:?}", Reply::Number(0)));
        let (answer, _) = told(&engine, &mut session, "MGET k00000", |_, _| {});
        assert_eq!(answer, format!("{:?}", Reply::Array(vec![Reply::Nil])));
    }

    /// What an engine with the same keys answers at once.
    fn twin_of(engine: &Engine, request: &str) -> (String, Engine) {
        let twin = Engine::new(EngineConfig::default());
        let mut session = twin.session();
        let mut from = engine.session();
        let all = keys(0) + &keys(KEYS);
        let words: Vec<_> = all.split_whitespace().collect();
        for words in words.chunks(KEYS) {
            let words = words.join(" ");
            let (there, _) = told(engine, &mut from, &format!("PEEK {words}"), |_, _| {});
            let letters = there.trim_start_matches("Letters([").trim_end_matches("])");
            let there = letters.split(", ").zip(words.split(' '));
            let there: Vec<_> = there
                .filter(|(letter, _)| *letter == "68")
                .map(|(_, key)| key)
                .collect();
            if !there.is_empty() {
                let there = there.join(" ");
                told(&twin, &mut session, &format!("MSEEN 1h {there}"), |_, _| {});
            }
        }
        let line = format!("{request}\n");
        let mut decoder = Decoder::default();
        let Decoded::Request { args, .. } = decoder.next(line.as_bytes(), twin.limits()) else {
            panic!("{request}");
        };
        let verb = lookup_line(args.verb()).or_else(|| lookup_resp(args.verb()));
        let command = verb.unwrap().spec().parse(&args, twin.limits()).unwrap();
        let whole = format!("{:?}", twin.execute(&mut session, &command, Millis(1)));
        (whole, twin)
    }

    #[test]
    fn what_a_request_promises_holds_over_its_slices() {
        let engine = Engine::new(EngineConfig::default());
        let (mut session, mut other) = (engine.session(), engine.session());
        let namespace = Arc::clone(session.namespace());
        let half = (KEYS / 2, KEYS - KEYS / 2 - 2);
        let words: Vec<_> = (0..half.0).map(|n| format!("a{n}")).collect();
        // A repeat at the end of what the first slice met, one that another stores meanwhile, and the rest.
        let rest: Vec<_> = (0..half.1).map(|n| format!("b{n}")).collect();
        let all = format!("{} meanwhile a0 {}", words.join(" "), rest.join(" "));
        let between = |slice, _: &Session| {
            if slice == 1 {
                told(&engine, &mut other, "SEEN meanwhile 1h", |_, _| {});
                // It does not concern a request that has begun.
                let shorter = PolicyChange {
                    ttl_ms: Some(1_000),
                    ttl_max_ms: Some(1_000),
                    ..PolicyChange::default()
                };
                namespace.change_policy(&shorter, false).unwrap().unwrap();
            }
        };
        let (got, slices) = told(
            &engine,
            &mut session,
            &format!("MBEGIN 1h 1m {all}"),
            between,
        );
        let letters: Vec<_> = got.trim_start_matches("Items([").split(", 32, ").collect();
        assert!(slices > 3 && letters.len() == KEYS);
        let is_run = |item: &&&str| item.starts_with("78, 58, ");
        assert_eq!(letters.iter().filter(is_run).count(), KEYS - 2);
        assert_eq!(letters[half.0..half.0 + 2], ["68", "68"], "D for both");
        assert_eq!(
            told(&engine, &mut session, "TTL b1", |_, _| {}).0.len(),
            "Number(3660000)".len()
        );
    }
}
