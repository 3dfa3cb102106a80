//! The command set, once: every verb with its words, effect, help and build function.
//!
//! Lookup, usage errors, `HELP`, RESP's `COMMAND`, metric names and the tables of protocol.md
//! all come from these rows or are compared with them in a test. The rows stand in
//! `native.rs` (this protocol's verbs, `ONCE.<VERB>` in RESP) and `redis.rs`.

mod native;
mod redis;

use super::containers::wrong_words;
use super::keyword::Keyword;
use super::{Args, Command, Error};
use crate::limits::Limits;

/// What a command does to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Changes no key.
    Read,
    /// May change keys.
    Write,
    /// Changes namespaces or tells of the whole server.
    Admin,
    /// Concerns its connection alone.
    Connection,
}

/// Which words are keys, as Redis's `COMMAND` tells it: first, last (-1: the last word), step; all 0 for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyWords {
    /// The first key's position; the verb is 0.
    pub first: i8,
    /// The last key's position, from the end if negative.
    pub last: i8,
    /// From one key to the next.
    pub step: i8,
}

const NO_KEY: KeyWords = KeyWords {
    first: 0,
    last: 0,
    step: 0,
};
const ONE_KEY: KeyWords = KeyWords {
    first: 1,
    last: 1,
    step: 1,
};
const ALL_KEYS: KeyWords = KeyWords {
    first: 1,
    last: -1,
    step: 1,
};
const KEYS_FROM_2: KeyWords = KeyWords {
    first: 2,
    last: -1,
    step: 1,
};

const KEYS_FROM_3: KeyWords = KeyWords {
    first: 3,
    last: -1,
    step: 1,
};
const KEYS_IN_PAIRS: KeyWords = KeyWords {
    first: 1,
    last: -1,
    step: 2,
};

/// How words become a command.
pub type Build = for<'a> fn(&Args<'a>, &Limits) -> Result<Command<'a>, Error>;

/// Where a verb is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    /// The line protocol, and RESP as `ONCE.<VERB>` and, where Redis has no such command, `<VERB>`.
    Native,
    /// RESP only, as Redis has it.
    Redis,
}

/// One verb.
#[derive(Debug)]
pub struct Spec {
    /// Its name, in capitals.
    pub name: &'static str,
    /// Where it is known.
    pub home: Home,
    /// The words behind it, as a usage line shows them.
    pub usage: &'static str,
    /// The least words behind the verb.
    pub words_min: usize,
    /// The most words behind the verb.
    pub words_max: usize,
    /// What it does to the server.
    pub effect: Effect,
    /// Which words are keys.
    pub keys: KeyWords,
    /// Whether its reply may tell of a change, so that it waits until the log has all that was changed
    /// before. What tells of the server or of its connection alone waits for nothing.
    pub rests_on_log: bool,
    /// Whether it is answered while the log is still being read.
    pub while_loading: bool,
    /// Whether it may tell its client to do work, within a lease that begins to run then: behind a held reply
    /// it is not executed before its own can be sent.
    pub grants_lease: bool,
    /// What it may answer.
    pub replies: &'static str,
    /// What it does, in a sentence.
    pub summary: &'static str,
    /// A request and its reply on a fresh server; empty where RESP is needed.
    pub example: (&'static str, &'static str),
    /// How its words become a command.
    pub build: Build,
}

impl Spec {
    /// The same, of a verb whose reply rests on nothing in the log.
    const fn without_log(self) -> Self {
        Self {
            rests_on_log: false,
            ..self
        }
    }

    /// The same, of a verb that is answered while the log is still being read.
    const fn while_loading(self) -> Self {
        Self {
            while_loading: true,
            ..self
        }
    }

    /// The command that these words make, or why they make none.
    pub fn parse<'a>(&self, args: &Args<'a>, limits: &Limits) -> Result<Command<'a>, Error> {
        if args.len() < self.words_min || args.len() > self.words_max {
            return Err(self.usage_error());
        }
        (self.build)(args, limits)
    }

    /// Says how the verb is used; for Redis's commands in Redis's words.
    pub fn usage_error(&self) -> Error {
        match self.home {
            Home::Native => Error::args(format!("usage: {}", self.usage_line())),
            Home::Redis => wrong_words(&self.name.to_ascii_lowercase()),
        }
    }

    /// The verb and its words.
    pub fn usage_line(&self) -> String {
        format!("{} {}", self.name, self.usage)
            .trim_end()
            .to_owned()
    }
}

/// A verb's number: its place among all rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Verb(u16);

impl Verb {
    /// Its place, from 0 to below [`verbs`]' count.
    pub fn index(self) -> usize {
        self.0 as usize
    }

    /// Its row.
    pub fn spec(self) -> &'static Spec {
        row(self.index())
    }
}

/// Every verb, this protocol's own first.
pub fn verbs() -> impl ExactSizeIterator<Item = Verb> {
    (0..(native::ROWS.len() + redis::ROWS.len()) as u16).map(Verb)
}

fn row(index: usize) -> &'static Spec {
    index
        .checked_sub(native::ROWS.len())
        .map_or_else(|| &native::ROWS[index], |i| &redis::ROWS[i])
}

/// Finds a verb of the line protocol, in any case.
pub fn lookup_line(name: &[u8]) -> Option<Verb> {
    LINE_NAMES.find(name)
}

/// Whether a verb of the line protocol takes a body behind its line.
pub fn takes_body(name: &[u8]) -> bool {
    const VERBS: [Keyword; 2] = [Keyword::name("COMPLETE"), Keyword::name("FAIL")];
    VERBS.contains(&Keyword::of(name))
}

/// Whether a verb, in either dialect, ends work that was begun, and may have a body for that.
pub fn ends_work(name: &[u8]) -> bool {
    takes_body(without_prefix(name).unwrap_or(name))
}

/// Finds a RESP command, in any case.
pub fn lookup_resp(name: &[u8]) -> Option<Verb> {
    match without_prefix(name) {
        Some(verb) => lookup_line(verb),
        // Redis's own means that a replica wants to follow.
        None if name.eq_ignore_ascii_case(b"SYNC") => None,
        None => RESP_NAMES.find(name),
    }
}

/// What stands behind [`RESP_PREFIX`], if the name begins with that.
fn without_prefix(name: &[u8]) -> Option<&[u8]> {
    let (prefix, verb) = name.split_at_checked(RESP_PREFIX.len())?;
    let is_ours = prefix.eq_ignore_ascii_case(RESP_PREFIX.as_bytes());
    is_ours.then_some(verb)
}

/// Stands before a verb of this protocol's own in RESP.
pub const RESP_PREFIX: &str = "ONCE.";

static LINE_NAMES: Names = Names::EMPTY.with(native::ROWS, 0);

/// Where both have a name, RESP means the one of Redis, which therefore comes first.
static RESP_NAMES: Names = Names::EMPTY
    .with(redis::ROWS, native::ROWS.len())
    .with(native::ROWS, 0);

/// The names of a dialect: a table with open addressing, made when this is compiled.
///
/// Every request comes through here. A binary search over sorted names lost: it takes up to six
/// calls of `memcmp`, whose outcomes no branch predictor knows.
struct Names {
    slots: [Slot; SLOTS],
}

/// A name and its verb; an empty slot has neither.
#[derive(Clone, Copy)]
struct Slot {
    name: Keyword,
    verb: Option<Verb>,
}

/// Several times as many as there are names, so that nearly all are where they are looked for first.
const SLOTS: usize = 256;

impl Names {
    const EMPTY: Self = Self {
        slots: [Slot {
            name: Keyword::NONE,
            verb: None,
        }; SLOTS],
    };

    /// Adds the names of these rows that are not there yet; the first row is verb number `first`.
    const fn with(mut self, rows: &[Spec], first: usize) -> Self {
        let mut i = 0;
        while i < rows.len() {
            let name = Keyword::name(rows[i].name);
            let slot = &mut self.slots[self.place(name)];
            if slot.verb.is_none() {
                let verb = Some(Verb((first + i) as u16));
                *slot = Slot { name, verb };
            }
            i += 1;
        }
        self
    }

    #[inline]
    fn find(&self, name: &[u8]) -> Option<Verb> {
        self.slots[self.place(Keyword::of(name))].verb
    }

    /// The slot that a name has, or would have.
    #[inline]
    const fn place(&self, name: Keyword) -> usize {
        let mut at = (name.hash() >> (u64::BITS - SLOTS.ilog2())) as usize;
        loop {
            let slot = &self.slots[at % SLOTS];
            if slot.name.is(name) || slot.verb.is_none() {
                return at % SLOTS;
            }
            at += 1;
        }
    }
}

const _: () = assert!(
    SLOTS.is_power_of_two() && (native::ROWS.len() + redis::ROWS.len()) * 2 < SLOTS,
    "a search ends at an empty slot"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_in_any_case_and_nothing_else_is() {
        for verb in verbs() {
            let spec = verb.spec();
            let lower = spec.name.to_ascii_lowercase();
            assert!(spec.name == spec.name.to_ascii_uppercase());
            match spec.home {
                Home::Native => {
                    assert_eq!(lookup_line(lower.as_bytes()), Some(verb));
                    assert_eq!(lookup_resp(format!("once.{lower}").as_bytes()), Some(verb));
                }
                Home::Redis => assert_eq!(lookup_resp(lower.as_bytes()), Some(verb), "{lower}"),
            }
        }
        assert_eq!(lookup_line(b"GET"), None);
        assert_eq!(lookup_line(b""), None);
        assert_eq!(lookup_resp(b"ONCE."), None);
        assert_eq!(lookup_resp(b"ONCE.GET"), None);
        assert_eq!(lookup_line(&[b'X'; 1_000]), None);
    }

    /// Whoever looks after a server whose disk hangs asks it these.
    #[test]
    fn only_what_tells_of_no_key_rests_on_no_log() {
        let without: Vec<_> = verbs()
            .map(Verb::spec)
            .filter(|spec| !spec.rests_on_log)
            .collect();
        assert!(without.iter().all(|spec| spec.keys == NO_KEY));
        let mut names: Vec<_> = without.iter().map(|spec| spec.name).collect();
        names.sort_unstable();
        let told = "AUTH CLIENT CLUSTER COMMAND CONFIG DISCARD ECHO HELLO HELP INFO LATENCY MODULE MULTI PING PING QUIT QUIT RESET ROLE SCRIPT SLOWLOG STATS TIME TIME VERSION WAIT";
        assert_eq!(names.join(" "), told);
    }

    #[test]
    fn while_the_log_is_read_what_tells_of_the_server_or_its_connection_is_answered() {
        let mut names: Vec<_> = verbs()
            .map(Verb::spec)
            .filter(|spec| spec.while_loading)
            .map(|spec| spec.name)
            .collect();
        names.sort_unstable();
        let told = "AUTH CLIENT COMMAND HELLO INFO QUIT QUIT RESET";
        assert_eq!(names.join(" "), told);
    }

    #[test]
    fn where_both_have_a_name_resp_means_the_one_of_redis() {
        for name in ["TTL", "TOUCH", "TIME", "PING", "QUIT"] {
            assert_eq!(
                lookup_resp(name.as_bytes()).unwrap().spec().home,
                Home::Redis,
                "{name}"
            );
            assert_eq!(
                lookup_line(name.as_bytes()).unwrap().spec().home,
                Home::Native,
                "{name}"
            );
        }
        assert_eq!(lookup_resp(b"seen"), lookup_line(b"SEEN"));
    }
}
