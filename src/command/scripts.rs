//! The scripts of lock libraries: which texts are recognised, and what each of them does.
//!
//! A lock that is taken but not given back is the worst that can happen to its users, and most libraries give
//! locks back by a script. Their scripts do few things: they compare a key's value with the owner's, and then
//! remove the key, move its end or store it. So what each does stands here as data, and is executed as such.
//! Recognised is a text whose whole normal form (`lua.rs`) is that of one of these; no other is run at all.
//!
//! Not here: the texts' digests and the keys, which are the engine's.

#![allow(
    clippy::unnecessary_wraps,
    reason = "the build functions share one signature"
)]

use std::collections::HashMap;
use std::sync::LazyLock;

use super::containers::SCRIPT;
use super::lua::normal_form;
use super::native::keys;
use super::redis::{Unit, expire_end, flush_mode, integer, not_integer, value};
use super::{Args, BadExpiry, Command, Error, Expiry, Reply, Words};
use crate::limits::{Limits, SCRIPT_BYTES_MAX, TOGETHER_KEYS_MAX};

/// Hex digits of a text's digest, a SHA-1.
pub const DIGEST_DIGITS: usize = 40;

/// Where a word of a script is, counted as in Lua.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// `KEYS[n]`.
    Key(usize),
    /// `ARGV[n]`.
    Arg(usize),
}

/// What a script's amount counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// Milliseconds: `PEXPIRE`, `PX`.
    Ms,
    /// Seconds: `EXPIRE`, `EX`.
    Seconds,
}

/// What becomes of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    Keep,
    /// It is removed.
    Delete,
    /// It ends so long from now.
    Expire(Span),
    /// It ends so many milliseconds later than it would.
    Extend,
    /// It gets the owner's value, and ends so long from now, which has to be in the future.
    Set(Span),
    /// The same, but an end that is not in the future removes it.
    SetAndExpire(Span),
    /// Nothing, since `SET … NX` found it; what is wrong with that one's words is told all the same.
    NotSet(Span),
}

/// What a script returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A number.
    Number(i64),
    /// Nil.
    Nil,
    /// `OK`.
    Ok,
    /// An error, as `redis.error_reply` makes it of this word.
    Error(&'static str),
    /// How many milliseconds the key still lives; of many, the least number that is not 0.
    LeftMs,
    /// The same in seconds.
    LeftSeconds,
    /// How many keys there were.
    Keys,
}

/// What is done to a key in one of its states, and what is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// This.
    Do(Change, Answer),
    /// The first if that argument is this word, else the second.
    If(usize, &'static [u8], &'static [(Change, Answer); 2]),
}

/// What a script does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// One key that is not there, has the owner's value, or another.
    One {
        /// It is not there.
        absent: Step,
        /// It has the owner's value.
        owned: Step,
        /// It has another, or none that can be told.
        other: Step,
    },
    /// All keys get the owner's value if none of them is there: how many that are, or 0.
    SetAllAbsent,
    /// All keys, if all of them have the owner's value.
    AllOwned(Change, Answer, Answer),
    /// Each key that has the owner's value is removed: how many those are.
    DeleteOwned,
    /// All keys, the first so many, get the owner's value if none of them is there, or if the values of all begin
    /// as the owner's, up to as many bytes as the second argument says: `OK` or nil.
    SetAllAbsentOrAlike(usize, Change),
    /// A key's value, and how many milliseconds it still lives.
    ValueAndLeft,
}

/// A script that is recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Script {
    /// What it does.
    pub rule: Rule,
    owner: Place,
    amount: Place,
}

/// The words that a script is called with.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// `KEYS`.
    pub keys: Words<'a>,
    /// `ARGV`.
    pub args: Words<'a>,
}

/// How a request names a script.
#[derive(Clone, Copy, Debug)]
pub enum Named<'a> {
    /// By its text.
    Text(&'a [u8]),
    /// By the digest of a text that was sent before, as hex digits.
    Digest(&'a [u8]),
}

/// `SCRIPT`.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "each variant is the subcommand of its name")]
pub enum ScriptCommand<'a> {
    Load { text: &'a [u8] },
    Exists { digests: Words<'a> },
    Flush,
}

impl<'a> Call<'a> {
    fn word(&self, place: Place) -> Option<&'a [u8]> {
        let (words, number) = match place {
            Place::Key(number) => (self.keys, number),
            Place::Arg(number) => (self.args, number),
        };
        (number <= words.len()).then(|| words.get(number - 1))
    }

    fn needed(&self, place: Place) -> Result<&'a [u8], Error> {
        self.word(place).ok_or_else(missing_word)
    }

    /// The argument of this number.
    pub fn arg(&self, number: usize) -> Option<&'a [u8]> {
        self.word(Place::Arg(number))
    }

    /// The key of a script that has one.
    pub fn key(&self) -> Result<&'a [u8], Error> {
        self.needed(Place::Key(1))
    }
}

impl Script {
    /// The script that a text is, if it is one of those here.
    pub fn of(text: &[u8]) -> Option<&'static Self> {
        if text.len() > SCRIPT_BYTES_MAX {
            return None;
        }
        let known = &*KNOWN;
        known
            .by_form
            .get(&*normal_form(text, known.form_bytes_max)?)
    }

    /// What a script of many keys answers without one.
    pub fn without_keys<'s>(&self) -> Result<Reply<'s>, Error> {
        match self.rule {
            Rule::SetAllAbsent | Rule::DeleteOwned | Rule::AllOwned(_, Answer::Keys, _) => {
                Ok(Reply::Number(0))
            }
            Rule::SetAllAbsentOrAlike(1, _) => Err(missing_word()),
            _ => Err(Error::redis(
                "ERR Wrong number of args calling Redis command from script",
            )),
        }
    }

    /// The owner's value; nobody is the owner where there is none.
    pub fn owner<'a>(&self, call: &Call<'a>) -> Option<&'a [u8]> {
        call.word(self.owner)
    }

    /// The owner's value where it is to be stored.
    pub fn value<'a>(&self, call: &Call<'a>, limits: &Limits) -> Result<&'a [u8], Error> {
        value(call.needed(self.owner)?, limits)
    }

    /// When a key ends that is changed so, of which `left_ms` are left if it is there.
    pub fn end(&self, change: Change, call: &Call<'_>, left_ms: u64) -> Result<Expiry, Error> {
        let amount = || call.needed(self.amount);
        match change {
            Change::Keep | Change::Delete => Ok(Expiry::Keep),
            Change::Set(span) | Change::NotSet(span) => {
                let end = span.unit().expiry(amount()?);
                end.map_err(|bad| bad.error("set"))
            }
            Change::Expire(span) | Change::SetAndExpire(span) => {
                expire_end(span.unit(), integer(amount()?)?, span.command())
            }
            Change::Extend => {
                let span = Span::Ms;
                let left_ms = i64::try_from(left_ms).unwrap_or(i64::MAX);
                let sum = left_ms.checked_add(integer(amount()?)?);
                let out_of_range = || BadExpiry::OutOfRange.error(span.command());
                expire_end(span.unit(), sum.ok_or_else(out_of_range)?, span.command())
            }
        }
    }
}

impl Change {
    /// Whether the key gets a value.
    pub fn stores(self) -> bool {
        matches!(self, Self::Set(_) | Self::SetAndExpire(_))
    }

    /// What is done instead where its condition does not hold.
    #[must_use]
    pub fn not_done(self) -> Self {
        match self {
            Self::Set(span) => Self::NotSet(span),
            _ => Self::Keep,
        }
    }
}

impl Span {
    fn unit(self) -> Unit {
        match self {
            Self::Ms => Unit::Px,
            Self::Seconds => Unit::Ex,
        }
    }

    fn command(self) -> &'static str {
        match self {
            Self::Ms => "pexpire",
            Self::Seconds => "expire",
        }
    }
}

impl Step {
    /// What is done in a call with these words.
    pub fn of(self, call: &Call<'_>) -> (Change, Answer) {
        match self {
            Self::Do(change, answer) => (change, answer),
            Self::If(number, word, [then, _]) if call.arg(number) == Some(word) => *then,
            Self::If(.., [_, or]) => *or,
        }
    }
}

/// `EVAL`.
pub(super) fn eval<'a>(args: &Args<'a>, limits: &Limits) -> Result<Command<'a>, Error> {
    call(Named::Text(args.get(0)), args, limits)
}

/// `EVALSHA`.
pub(super) fn evalsha<'a>(args: &Args<'a>, limits: &Limits) -> Result<Command<'a>, Error> {
    let digest = args.get(0);
    if digest.len() != DIGEST_DIGITS {
        return Err(no_script());
    }
    call(Named::Digest(digest), args, limits)
}

fn call<'a>(script: Named<'a>, args: &Args<'a>, limits: &Limits) -> Result<Command<'a>, Error> {
    let count = integer(args.get(1))?;
    let words = args.rest(2);
    if count > words.len() as i64 {
        let text = "ERR Number of keys can't be greater than number of args";
        return Err(Error::redis(text));
    }
    let Ok(count) = usize::try_from(count) else {
        return Err(Error::redis("ERR Number of keys can't be negative"));
    };
    if count > TOGETHER_KEYS_MAX {
        return Err(Error::too_big(format!(
            "{count} keys of one script; the most are {TOGETHER_KEYS_MAX}"
        )));
    }
    let call = Call {
        keys: keys(words.first(count), limits)?,
        args: words.behind(count),
    };
    Ok(Command::Eval { script, call })
}

/// `SCRIPT`.
pub(super) fn script_command<'a>(args: &Args<'a>, limits: &Limits) -> Result<Command<'a>, Error> {
    SCRIPT.build(args, limits)
}

pub(super) fn load<'a>(args: &Args<'a>, _: &Limits) -> Result<Command<'a>, Error> {
    let text = args.get(0);
    Ok(Command::Script(ScriptCommand::Load { text }))
}

pub(super) fn exists<'a>(args: &Args<'a>, limits: &Limits) -> Result<Command<'a>, Error> {
    let digests = keys(args.rest(0), limits)?;
    Ok(Command::Script(ScriptCommand::Exists { digests }))
}

pub(super) fn flush<'a>(args: &Args<'a>, _: &Limits) -> Result<Command<'a>, Error> {
    let unknown = |_| Error::redis("ERR SCRIPT FLUSH only support SYNC|ASYNC option");
    flush_mode(args).map_err(unknown)?;
    Ok(Command::Script(ScriptCommand::Flush))
}

pub(super) fn kill<'a>(_: &Args<'a>, _: &Limits) -> Result<Command<'a>, Error> {
    Err(Error::redis("NOTBUSY No scripts in execution right now."))
}

/// What is said of a digest that no known text has.
pub(crate) fn no_script() -> Error {
    Error::redis("NOSCRIPT No matching script. Please use EVAL.")
}

/// What is said of a text that is not recognised.
pub(crate) fn unknown_script() -> Error {
    Error::redis(
        "ERR scripts are recognised here, not run, and this is none of them: a lock is released by its owner with DELEX key IFEQ value",
    )
}

/// The number that an argument is.
pub(crate) fn number(word: Option<&[u8]>) -> Result<i64, Error> {
    integer(word.ok_or_else(not_integer)?)
}

/// What is said where a script wants a key or an argument that it was not given.
fn missing_word() -> Error {
    Error::redis("ERR Lua redis lib command arguments must be strings or integers")
}

/// The scripts by their normal forms.
struct Known {
    by_form: HashMap<Box<[u8]>, Script>,
    form_bytes_max: usize,
}

static KNOWN: LazyLock<Known> = LazyLock::new(|| {
    let mut by_form = HashMap::<Box<[u8]>, Script>::new();
    for (texts, script) in ROWS {
        for text in *texts {
            let form = normal_form(text.as_bytes(), SCRIPT_BYTES_MAX);
            debug_assert!(form.is_some(), "a known script has a form: {text}");
            let before = form.and_then(|form| by_form.insert(form.into(), *script));
            debug_assert!(before.is_none(), "a known script is listed once: {text}");
        }
    }
    let longest = by_form.keys().map(|form| form.len()).max();
    Known {
        by_form,
        form_bytes_max: longest.unwrap_or(0),
    }
});

const NOTHING: (Change, Answer) = (Change::Keep, Answer::Number(0));

const fn one(absent: (Change, Answer), owned: (Change, Answer), other: (Change, Answer)) -> Rule {
    Rule::One {
        absent: Step::Do(absent.0, absent.1),
        owned: Step::Do(owned.0, owned.1),
        other: Step::Do(other.0, other.1),
    }
}

/// Something that is done for the owner alone, and answered with 1, else with 0.
const fn for_owner(change: Change) -> Rule {
    one(NOTHING, (change, Answer::Number(1)), NOTHING)
}

const fn script(rule: Rule) -> Script {
    Script {
        rule,
        owner: Place::Arg(1),
        amount: Place::Arg(2),
    }
}

/// What the scripts do, and their texts. protocol.md has the table for readers; the texts as libraries send them
/// are in the test.
#[rustfmt::skip] // a table is read by its columns
static ROWS: &[(&[&str], Script)] = &[
    // Released by the owner.
    (&["if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) else return 0 end",
       "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0",
       "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('UNLINK', KEYS[1]) else return 0 end",
       "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) return 1 else return 0 end",
       "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) return 1 end return 0",
       "local v = redis.call('GET', KEYS[1]) if not v or v ~= ARGV[1] then return 0 end redis.call('DEL', KEYS[1]) return 1",
       "local v = redis.call('GET', KEYS[1]) if v == ARGV[1] then return redis.call('DEL', KEYS[1]) else return 0 end",
       "local v = redis.call('GET', KEYS[1]) if v == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0",
       "local k = KEYS[1] local o = ARGV[1] if redis.call('GET', k) == o then return redis.call('DEL', k) end return 0",
       "local k = KEYS[1] local o = ARGV[1] local v = redis.call('GET', k) if v == o then return redis.call('DEL', k) end return 0",
       "local r = 0 if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) r = 1 end return r",
     ], script(for_owner(Change::Delete))),
    (&["local v = redis.call('GET', KEYS[1]) if v == ARGV[1] then return redis.call('DEL', KEYS[1]) elseif v == false then return -1 else return 0 end",
     ], script(one((Change::Keep, Answer::Number(-1)), (Change::Delete, Answer::Number(1)), NOTHING))),
    (&["local v = redis.call('GET', KEYS[1]) if v == ARGV[1] then redis.call('UNLINK', KEYS[1]) return true end return false",
       "local v = redis.call('GET', KEYS[1]) if v == ARGV[1] then redis.call('DEL', KEYS[1]) return true end return false",
     ], script(one((Change::Keep, Answer::Nil), (Change::Delete, Answer::Number(1)), (Change::Keep, Answer::Nil)))),
    (&["local v = redis.call('GET', KEYS[1]) if not v then return redis.status_reply('OK') elseif v == ARGV[1] then return redis.call('DEL', KEYS[1]) else return redis.error_reply('ERROR') end",
     ], script(one((Change::Keep, Answer::Ok), (Change::Delete, Answer::Number(1)), (Change::Keep, Answer::Error("ERROR"))))),

    // Extended by the owner.
    (&["if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) else return 0 end",
       "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end return 0",
       "local v = redis.call('GET', KEYS[1]) if not v or v ~= ARGV[1] then return 0 end redis.call('PEXPIRE', KEYS[1], ARGV[2]) return 1",
       "local k = KEYS[1] local o = ARGV[1] local t = ARGV[2] local v = redis.call('GET', k) if v == o then redis.call('PEXPIRE', k, t) return 1 end return 0",
     ], script(for_owner(Change::Expire(Span::Ms)))),
    (&["if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('EXPIRE', KEYS[1], ARGV[2]) else return 0 end",
       "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('EXPIRE', KEYS[1], ARGV[2]) end return 0",
       // ARGV has strings, which are never -1.
       "local r = 0 if redis.call('GET', KEYS[1]) == ARGV[1] then if ARGV[2] ~= -1 then redis.call('EXPIRE', KEYS[1], ARGV[2]) else redis.call('PERSIST', KEYS[1]) end r = 1 end return r",
     ], script(for_owner(Change::Expire(Span::Seconds)))),
    (&["if (redis.call('GET', KEYS[1]) == ARGV[1]) then redis.call('PEXPIRE', KEYS[1], ARGV[2]) return true end return false",
     ], script(one((Change::Keep, Answer::Nil), (Change::Expire(Span::Ms), Answer::Number(1)), (Change::Keep, Answer::Nil)))),
    (&["local v = redis.call('GET', KEYS[1]) if not v or v ~= ARGV[1] then return 0 end local e = redis.call('PTTL', KEYS[1]) if not e then e = 0 end if e < 0 then return 0 end local n = ARGV[2] if ARGV[3] == '0' then n = ARGV[2] + e end redis.call('PEXPIRE', KEYS[1], n) return 1",
     ], script(Rule::One {
        absent: Step::Do(Change::Keep, Answer::Number(0)),
        owned: Step::If(3, b"0", &[(Change::Extend, Answer::Number(1)), (Change::Expire(Span::Ms), Answer::Number(1))]),
        other: Step::Do(Change::Keep, Answer::Number(0)),
    })),
    (&["local v = redis.call('GET', KEYS[1]) if not v or v ~= ARGV[1] then return 0 end local e = redis.call('PTTL', KEYS[1]) if not e then e = 0 end if e < 0 then return 0 end redis.call('PEXPIRE', KEYS[1], e + ARGV[2]) return 1",
     ], script(for_owner(Change::Extend))),
    (&["local k = KEYS[1] local t = KEYS[2] local o = KEYS[3] local v = redis.call('GET', k) if v == o then return redis.call('SET', k, o, 'PX', t, 'XX') else return 0 end",
     ], Script {
        rule: one(NOTHING, (Change::Set(Span::Ms), Answer::Ok), NOTHING),
        owner: Place::Key(3),
        amount: Place::Key(2),
    }),

    // Taken if nobody has it.
    (&["return redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2])",
       "return redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2], 'NX')",
     ], script(one((Change::Set(Span::Ms), Answer::Ok), (Change::NotSet(Span::Ms), Answer::Nil), (Change::NotSet(Span::Ms), Answer::Nil)))),
    (&["return redis.call('SET', KEYS[1], ARGV[1], 'NX', 'EX', ARGV[2])",
       "return redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2], 'NX')",
     ], script(one((Change::Set(Span::Seconds), Answer::Ok), (Change::NotSet(Span::Seconds), Answer::Nil), (Change::NotSet(Span::Seconds), Answer::Nil)))),
    (&["if redis.call('SETNX', KEYS[1], ARGV[1]) == 1 then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) else return 0 end",
     ], script(one((Change::SetAndExpire(Span::Ms), Answer::Number(1)), NOTHING, NOTHING))),
    (&["if redis.call('SETNX', KEYS[1], ARGV[1]) == 1 then return redis.call('EXPIRE', KEYS[1], ARGV[2]) else return 0 end",
       "local r = redis.call('SETNX', KEYS[1], ARGV[1]) if r == 1 and ARGV[2] ~= -1 then redis.call('EXPIRE', KEYS[1], ARGV[2]) end return r",
     ], script(one((Change::SetAndExpire(Span::Seconds), Answer::Number(1)), NOTHING, NOTHING))),

    // Taken, or extended by the owner.
    (&["if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) elseif redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2], 'NX') then return 1 else return 0 end",
       "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) elseif redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 else return 0 end",
     ], script(one((Change::Set(Span::Ms), Answer::Number(1)), (Change::Expire(Span::Ms), Answer::Number(1)), (Change::NotSet(Span::Ms), Answer::Number(0))))),
    (&["if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) else return redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) end",
     ], script(one((Change::Set(Span::Ms), Answer::Ok), (Change::Expire(Span::Ms), Answer::Number(1)), (Change::NotSet(Span::Ms), Answer::Nil)))),
    (&["local v = redis.call('GET', KEYS[1]) if v == ARGV[1] then redis.call('PEXPIRE', KEYS[1], ARGV[2]) return true elseif not v then redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) return true end return false",
     ], script(one((Change::Set(Span::Ms), Answer::Number(1)), (Change::Expire(Span::Ms), Answer::Number(1)), (Change::Keep, Answer::Nil)))),
    (&["local v = redis.call('GET', KEYS[1]) if (v == false) then return redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) and 1 or 0 elseif (v == ARGV[1]) then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) else return -1 end",
     ], script(one((Change::Set(Span::Ms), Answer::Number(1)), (Change::Expire(Span::Ms), Answer::Number(1)), (Change::Keep, Answer::Number(-1))))),
    (&["local k = KEYS[1] local o = ARGV[1] local t = ARGV[2] local v = redis.call('GET', k) if v == o then redis.call('PEXPIRE', k, t) return 1 elseif v == false then redis.call('SET', k, o) redis.call('PEXPIRE', k, t) return 1 end return 0",
     ], script(one((Change::SetAndExpire(Span::Ms), Answer::Number(1)), (Change::Expire(Span::Ms), Answer::Number(1)), NOTHING))),
    (&["local v = redis.call('GET', KEYS[1]) if not v then redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2]) return 1 elseif v == ARGV[1] then redis.call('EXPIRE', KEYS[1], ARGV[2]) return 2 end return 0",
     ], script(one((Change::Set(Span::Seconds), Answer::Number(1)), (Change::Expire(Span::Seconds), Answer::Number(2)), NOTHING))),
    (&["local v = redis.call('GET', KEYS[1]) if not v or v == ARGV[1] then return redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) else return redis.error_reply('ERROR') end",
     ], script(one((Change::Set(Span::Ms), Answer::Ok), (Change::Set(Span::Ms), Answer::Ok), (Change::Keep, Answer::Error("ERROR"))))),
    (&["if (redis.call('EXISTS', KEYS[1]) == 0 and ARGV[3] == 'yes') or redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) end",
     ], script(Rule::One {
        absent: Step::If(3, b"yes", &[(Change::Set(Span::Ms), Answer::Ok), (Change::Keep, Answer::Nil)]),
        owned: Step::Do(Change::Set(Span::Ms), Answer::Ok),
        other: Step::Do(Change::Keep, Answer::Nil),
    })),
    (&["if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[3]) then return redis.status_reply('OK') end local n = tonumber(ARGV[2]) if redis.call('GETRANGE', KEYS[1], 0, n-1) == string.sub(ARGV[1], 1, n) then return redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3]) end",
     ], Script { rule: Rule::SetAllAbsentOrAlike(1, Change::Set(Span::Ms)), owner: Place::Arg(1), amount: Place::Arg(3) }),
    (&["local function p(t) for _, k in ipairs(KEYS) do redis.call('PEXPIRE', k, t) end end local function c() local n = tonumber(ARGV[2]) for _, k in ipairs(KEYS) do if redis.call('GETRANGE', k, 0, n-1) ~= string.sub(ARGV[1], 1, n) then return false end end return true end local a = {} for _, k in ipairs(KEYS) do table.insert(a, k) table.insert(a, ARGV[1]) end if redis.call('MSETNX', unpack(a)) ~= 1 then if c() == false then return false end redis.call('MSET', unpack(a)) end p(ARGV[3]) return redis.status_reply('OK')",
     ], Script { rule: Rule::SetAllAbsentOrAlike(usize::MAX, Change::SetAndExpire(Span::Ms)), owner: Place::Arg(1), amount: Place::Arg(3) }),

    // Many at once.
    (&["for i, k in ipairs(KEYS) do if redis.call('EXISTS', k) == 1 then return 0 end end for i, k in ipairs(KEYS) do redis.call('SET', k, ARGV[1], 'PX', ARGV[2]) end return #KEYS",
     ], script(Rule::SetAllAbsent)),
    (&["for i, k in ipairs(KEYS) do if redis.call('GET', k) ~= ARGV[1] then return 0 end end for i, k in ipairs(KEYS) do redis.call('SET', k, ARGV[1], 'PX', ARGV[2]) end return #KEYS",
     ], script(Rule::AllOwned(Change::Set(Span::Ms), Answer::Keys, Answer::Number(0)))),
    (&["local n = 0 for i, k in ipairs(KEYS) do if redis.call('GET', k) == ARGV[1] then redis.pcall('DEL', k) n = n + 1 end end return n",
     ], script(Rule::DeleteOwned)),
    (&["local v = redis.call('MGET', unpack(KEYS)) for i, _ in ipairs(KEYS) do if v[i] ~= ARGV[1] then return false end end redis.call('DEL', unpack(KEYS)) return redis.status_reply('OK')",
     ], script(Rule::AllOwned(Change::Delete, Answer::Ok, Answer::Nil))),
    (&["local v = redis.call('MGET', unpack(KEYS)) for i, _ in ipairs(KEYS) do if v[i] ~= ARGV[1] then return false end end for _, k in ipairs(KEYS) do redis.call('PEXPIRE', k, ARGV[2]) end return redis.status_reply('OK')",
     ], script(Rule::AllOwned(Change::Expire(Span::Ms), Answer::Ok, Answer::Nil))),
    (&["local v = redis.call('MGET', unpack(KEYS)) for i, _ in ipairs(KEYS) do if v[i] ~= ARGV[1] then return false end end local m = 0 for _, k in ipairs(KEYS) do local t = redis.call('PTTL', k) if t > 0 and (m == 0 or t < m) then m = t end end return m",
     ], script(Rule::AllOwned(Change::Keep, Answer::LeftMs, Answer::Nil))),

    // Looked at.
    (&["if redis.call('GET', KEYS[1]) == ARGV[1] then local t = redis.call('PTTL', KEYS[1]) return (t > 0) and t or 0 else return 0 end",
     ], script(one(NOTHING, (Change::Keep, Answer::LeftMs), NOTHING))),
    (&["if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PTTL', KEYS[1]) else return -3 end",
     ], script(one((Change::Keep, Answer::Number(-3)), (Change::Keep, Answer::LeftMs), (Change::Keep, Answer::Number(-3))))),
    (&["local v = redis.call('GET', KEYS[1]) if not v then return redis.error_reply('ERROR') elseif v == ARGV[1] then return redis.call('TTL', KEYS[1]) else return redis.error_reply('ERROR') end",
     ], script(one((Change::Keep, Answer::Error("ERROR")), (Change::Keep, Answer::LeftSeconds), (Change::Keep, Answer::Error("ERROR"))))),
    (&["return { redis.call('GET', KEYS[1]), redis.call('PTTL', KEYS[1]) }",
     ], script(Rule::ValueAndLeft)),
];
