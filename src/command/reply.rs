//! Answers, before a dialect gives them bytes.

use std::borrow::Cow;

use bytes::Bytes;

use crate::limits::SHARED_VALUE_BYTES_MIN;

/// One answer. Both dialects encode every variant; which shape it takes is in `wire`.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply<'a> {
    /// One of the protocol's own words: `NEW`, `OK`, `PONG`.
    Word(&'static str),
    /// A text of the server's or an echo of the client's.
    Text(Cow<'a, [u8]>),
    /// Lines for people and monitors, as `INFO` tells: a verbatim string in RESP3.
    Lines(String),
    /// A letter per key of a batch.
    Letters(&'a [u8]),
    /// A number.
    Number(i64),
    /// How many keys a change met: `OK n` on a line, a number in RESP.
    Count(i64),
    /// Yes or no, as `BF.ADD` answers: 1 or 0, a boolean in RESP3.
    Flag(bool),
    /// A word and the numbers that belong to it, as many as there are: `RUN token lease_ms attempt`.
    Figures(&'static str, [Option<i64>; 3]),
    /// Many short answers in one, with spaces in between; in RESP an array of them.
    Items(&'a [u8]),
    /// A stored value.
    Value(Bytes),
    /// What came of the work behind a record: `DONE` or `FAILED`, with its code and body.
    Outcome {
        /// The word.
        word: &'static str,
        /// What the holder said of it.
        code: u32,
        /// What the holder left.
        body: Bytes,
    },
    /// Nothing there.
    Nil,
    /// Many stored values, one behind the other: less memory and time than as answers of their own.
    Values {
        /// All of them.
        bytes: Vec<u8>,
        /// Where each ends.
        ends: Vec<usize>,
        /// Whether their order means something; if not, they are a set in RESP3.
        have_order: bool,
    },
    /// Several answers in one.
    Array(Vec<Reply<'a>>),
    /// The same where their order means nothing: a set in RESP3.
    Set(Vec<Reply<'a>>),
    /// Names and what they stand for, of any kind; only in RESP.
    Map(Vec<(Reply<'a>, Reply<'a>)>),
    /// Lines of name and value.
    Rows(Vec<(Cow<'static, str>, String)>),
    /// A refusal.
    Error(Error),
}

impl Reply<'_> {
    /// The answer of a change that has nothing else to say.
    pub const OK: Self = Self::Word("OK");

    /// Bytes that its encoding takes at most, roughly, beside values that are shared.
    pub fn bytes_max(&self) -> usize {
        /// Of a number, a head, a line end.
        const BESIDE: usize = 32;
        let of = |bytes: usize| bytes + BESIDE;
        match self {
            Self::Word(_) | Self::Number(_) | Self::Count(_) | Self::Flag(_) | Self::Nil => BESIDE,
            Self::Figures(..) => 4 * BESIDE,
            Self::Text(text) => of(text.len()),
            Self::Lines(lines) => of(lines.len()),
            // In RESP each of them has a head.
            Self::Letters(letters) | Self::Items(letters) => of(2 * letters.len()),
            Self::Value(value) | Self::Outcome { body: value, .. } => of(copied(value) + BESIDE),
            Self::Values { bytes, ends, .. } => of(bytes.len() + BESIDE * ends.len()),
            Self::Array(items) | Self::Set(items) => of(items.iter().map(Self::bytes_max).sum()),
            Self::Map(pairs) => {
                let pairs = pairs.iter();
                of(pairs
                    .map(|(name, value)| name.bytes_max() + value.bytes_max())
                    .sum())
            }
            Self::Rows(rows) => {
                let rows = rows.iter();
                of(rows
                    .map(|(name, value)| of(name.len()) + of(value.len()))
                    .sum())
            }
            Self::Error(error) => of(error.text.len()),
        }
    }

    /// A text that nobody has to keep alive.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(Cow::Owned(text.into().into_bytes()))
    }
}

/// Bytes of a value that are copied for one reply; what is beside a value that is not.
fn copied(value: &Bytes) -> usize {
    const PLACE_BYTES: usize = 128;
    if value.len() < SHARED_VALUE_BYTES_MIN {
        value.len()
    } else {
        PLACE_BYTES
    }
}

impl From<Error> for Reply<'_> {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// What kind of refusal; the contract says which may be retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// A malformed line.
    Syntax,
    /// No such verb.
    Unknown,
    /// Wrong words behind a verb.
    Args,
    /// A value out of its bounds.
    Range,
    /// A line, key, batch, value or reply over its limit.
    TooBig,
    /// No such namespace, and none may be made.
    NoNs,
    /// A limit on memory, keys, namespaces or connections is reached; nothing was changed.
    Full,
    /// The log is being read; everything waits for that.
    Loading,
    /// The log takes no more changes; what became of one that was under way is unknown.
    ReadOnly,
    /// The verb needs a log, and there is none.
    NoLog,
    /// It would hurt a record in progress.
    Busy,
    /// Redis's own words, kept verbatim in `text`; only commands with a Redis name give these.
    Redis,
    /// The same, of what is no command, or has too few or too many words: a transaction with it is not executed.
    RedisShape,
}

impl Code {
    /// The word behind `ERR`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Syntax => "SYNTAX",
            Self::Unknown => "UNKNOWN",
            Self::Args => "ARGS",
            Self::Range => "RANGE",
            Self::TooBig => "TOOBIG",
            Self::NoNs => "NONS",
            Self::Full => "FULL",
            Self::Loading => "LOADING",
            Self::ReadOnly => "READONLY",
            Self::NoLog => "NOLOG",
            Self::Busy => "BUSY",
            Self::Redis | Self::RedisShape => "REDIS",
        }
    }
}

/// A refusal: the code for programs, the text for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} {text}", code.word())]
pub struct Error {
    /// What kind.
    pub code: Code,
    /// What to do about it; one line.
    pub text: Cow<'static, str>,
}

impl Error {
    /// A refusal with this text.
    pub fn new(code: Code, text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            text: text.into(),
        }
    }

    /// Words behind a verb that do not fit it.
    pub fn args(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::Args, text)
    }

    /// A value out of its bounds.
    pub fn range(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::Range, text)
    }

    /// Something over its limit.
    pub fn too_big(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::TooBig, text)
    }

    /// Redis's own words, its error word included.
    pub fn redis(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::Redis, text)
    }

    /// The same, of a request that has not a command's shape.
    pub fn redis_shape(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::RedisShape, text)
    }
}
