//! What is asked for and answered, in types; and replies as these.

use std::time::Duration;

use bytes::Bytes;

#[cfg(doc)]
use super::Client;
use super::reply::{ClientError, Value};

/// The answer of [`Client::seen`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// The first time; it is remembered now.
    New,
    /// Seen before, and its window has not ended.
    Dup,
    /// Not there, but it may have been seen in its window: the server's memory does not reach back that far.
    Unsure,
    /// Of a batch: there was no room to remember it, or the server takes no changes.
    NotStored,
}

/// What [`Client::begin`] may ask for.
#[derive(Clone, Debug, Default)]
pub struct BeginOptions {
    /// How long nobody else is told to run; the server's default if absent.
    pub lease: Option<Duration>,
    /// How long the record lives once it is settled or given up; the server's default if absent.
    pub ttl: Option<Duration>,
    /// Up to 32 hex digits: a digest of the payload, which every other caller's must equal.
    pub fingerprint: Option<String>,
    /// Names this attempt, so that it is told its token again if it asks again. 1 to 128 bytes.
    pub owner: Option<Vec<u8>>,
    /// How long to wait while another is at work, at most as long as the server lets anybody wait: 60 s
    /// unless set otherwise there.
    pub wait: Option<Duration>,
}

/// The answer of [`Client::begin`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begin {
    /// Do the work.
    Run(Held),
    /// Another is at work; it is of use to come again after this long.
    Busy(Duration),
    /// The work was settled before.
    Settled(Outcome),
    /// The key came with another fingerprint.
    Mismatch,
}

/// The right to do the work behind a key, for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The fencing token: rises with every holder. For the systems that the work writes to.
    pub token: u64,
    /// How long nobody else is told to run.
    pub lease: Duration,
    /// How often the work was begun, this time included.
    pub attempt: u32,
    /// Whether it may have been done before: the server's memory does not reach back that far. Only said in a
    /// namespace that is set to `UNSURE REPORT`.
    pub is_unsure: bool,
}

/// What came of the work behind a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Whether it failed for good.
    pub is_failure: bool,
    /// What its holder said of it, such as an HTTP status.
    pub code: u32,
    /// What its holder left for everyone else.
    pub body: Bytes,
}

/// What work comes to that was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// What to say of it, such as an HTTP status.
    pub code: u32,
    /// What everyone else is to be given.
    pub body: Bytes,
}

/// What [`Client::complete`] may ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CompleteOptions {
    /// How long the outcome is kept; as `begin` said, if absent.
    pub ttl: Option<Duration>,
    /// The fingerprint that the record must have, and gets if it has none.
    pub fingerprint: Option<String>,
    /// Whether it is stored also where there is no record any more.
    pub adopts: bool,
}

/// The answer to the holder of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It is done, or was before.
    Ok,
    /// Another token was given since, or the work was settled or given up.
    Stale,
    /// There is no record any more.
    Gone,
    /// The record has another fingerprint.
    Mismatch,
    /// Of a batch: the server has no room, or takes no changes.
    NotStored,
}

/// The answer of [`Client::wait`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The work was settled.
    Settled(Outcome),
    /// It may be begun.
    Free,
    /// Another is still at work.
    TimedOut,
}

/// The answer of [`Client::mbegin`] for one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// Do the work, under this token.
    Run(u64),
    /// The same, but the work may have been done before.
    Unsure(u64),
    /// Another is at work.
    Busy,
    /// The work was done.
    Completed,
    /// It failed for good.
    Failed,
    /// The key was only seen, or stood in the batch before.
    Dup,
    /// There is no room, or the server takes no changes.
    NotStored,
}

/// A letter per key.
pub(super) fn letters<T>(
    told: &Value,
    keys: usize,
    meaning: impl Fn(u8) -> Option<T>,
) -> Result<Vec<T>, ClientError> {
    let Value::Bulk(letters) = told else {
        return Err(told.unexpected());
    };
    let meanings: Option<Vec<T>> = letters.iter().map(|&letter| meaning(letter)).collect();
    meanings
        .filter(|meanings| meanings.len() == keys)
        .ok_or_else(|| told.unexpected())
}

/// What an array that begins with a word means.
pub(super) fn begun(told: &Value) -> Option<Begin> {
    let Value::Array(items) = told else {
        return None;
    };
    let (Value::Word(word), rest) = items.split_first()? else {
        return None;
    };
    match (word.as_str(), rest) {
        (
            "RUN" | "UNSURE",
            &[
                Value::Number(token),
                Value::Number(lease),
                Value::Number(attempt),
            ],
        ) => Some(Begin::Run(Held {
            token: token.unsigned_abs(),
            lease: Duration::from_millis(lease.unsigned_abs()),
            attempt: u32::try_from(attempt).ok()?,
            is_unsure: word == "UNSURE",
        })),
        ("BUSY", &[Value::Number(ms)]) => {
            Some(Begin::Busy(Duration::from_millis(ms.unsigned_abs())))
        }
        ("DONE" | "FAILED", [Value::Number(code), Value::Bulk(body)]) => {
            Some(Begin::Settled(Outcome {
                is_failure: word == "FAILED",
                code: u32::try_from(*code).ok()?,
                body: body.clone(),
            }))
        }
        _ => None,
    }
}

pub(super) fn ending(told: &Value) -> Result<Ending, ClientError> {
    match told {
        Value::Word(word) if word == "OK" => Ok(Ending::Ok),
        Value::Word(word) if word == "STALE" => Ok(Ending::Stale),
        Value::Word(word) if word == "GONE" => Ok(Ending::Gone),
        Value::Word(word) if word == "MISMATCH" => Ok(Ending::Mismatch),
        _ => Err(told.unexpected()),
    }
}

/// One item of `MBEGIN`.
pub(super) fn claimed(item: &Value) -> Option<Claimed> {
    let Value::Bulk(item) = item else {
        return None;
    };
    let token = || crate::time::parse_u64(item.get(2..)?);
    match &item[..] {
        b"B" => Some(Claimed::Busy),
        b"C" => Some(Claimed::Completed),
        b"F" => Some(Claimed::Failed),
        b"D" => Some(Claimed::Dup),
        b"E" => Some(Claimed::NotStored),
        [b'N', b':', ..] => token().map(Claimed::Run),
        [b'U', b':', ..] => token().map(Claimed::Unsure),
        _ => None,
    }
}
