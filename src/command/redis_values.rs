//! How words become Redis's commands on numbers, and on many values at once: `INCR`, `MSET` and their like.

#![allow(
    clippy::unnecessary_wraps,
    reason = "the build functions share one signature"
)]

use super::containers::wrong_words_when_executed;
use super::native::key;
use super::redis::{integer, value};
use super::{Args, Command, Error, Words};
use crate::limits::{Limits, TOGETHER_KEYS_MAX};

type Built<'a> = Result<Command<'a>, Error>;

pub(super) fn incr<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    add(args, limits, 1)
}

pub(super) fn decr<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    add(args, limits, -1)
}

pub(super) fn incrby<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    add(args, limits, integer(args.get(1))?)
}

pub(super) fn decrby<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    let amount = integer(args.get(1))?.checked_neg();
    let amount = amount.ok_or_else(|| Error::redis("ERR decrement would overflow"))?;
    add(args, limits, amount)
}

fn add<'a>(args: &Args<'a>, limits: &Limits, amount: i64) -> Built<'a> {
    let key = key(args.get(0), limits)?;
    Ok(Command::Add { key, amount })
}

pub(super) fn mset<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    let pairs = pairs(args, limits, (limits.batch_keys_max, "mset"))?;
    Ok(Command::MSet { pairs })
}

pub(super) fn msetnx<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    let most = limits.batch_keys_max.min(TOGETHER_KEYS_MAX);
    let pairs = pairs(args, limits, (most, "msetnx"))?;
    Ok(Command::MSetNx { pairs })
}

/// Keys, each with its value behind it, all within their bounds.
fn pairs<'a>(
    args: &Args<'a>,
    limits: &Limits,
    (keys_max, name): (usize, &str),
) -> Result<Words<'a>, Error> {
    let words = args.rest(0);
    if !words.len().is_multiple_of(2) {
        return Err(wrong_words_when_executed(name));
    }
    let keys = words.len() / 2;
    if keys > keys_max {
        return Err(Error::too_big(format!(
            "{keys} keys in one request; the most are {keys_max}"
        )));
    }
    let mut iter = words.iter();
    while let (Some(word), Some(content)) = (iter.next(), iter.next()) {
        key(word, limits)?;
        value(content, limits)?;
    }
    Ok(words)
}
