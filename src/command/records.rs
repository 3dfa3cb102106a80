//! How words become commands on idempotency records.
//!
//! As in `native`: fixed words first, then options in any order. A body is what came behind the
//! line, as `LEN` announced, or the word behind `BODY`.

#![allow(
    clippy::unnecessary_wraps,
    reason = "the build functions share one signature"
)]

use super::native::{
    Name, Options, fingerprint, key, keys, namespace_name, once, printable, ttl, ttl_word,
};
use super::{Args, Begin, Command, Complete, Error, Single, Ttl, Words};
use crate::limits::{Limits, OWNER_BYTES_MAX};
use crate::store::{Fingerprint, TOKENS_MAX};
use crate::time::{DurationError, DurationWord, parse_duration_ms, parse_u64};

type Built<'a> = Result<Command<'a>, Error>;

/// What options may say, of all these verbs; which of them a verb takes is in [`Takes`].
#[derive(Default)]
struct Said<'a> {
    lease_ms: Option<u64>,
    ttl: Option<Ttl>,
    fingerprint: Option<Fingerprint>,
    owner: Option<&'a [u8]>,
    wait_ms: Option<u64>,
    code: Option<u32>,
    body: Option<&'a [u8]>,
    adopts: bool,
    namespace: Option<&'a [u8]>,
}

/// The options that a verb takes, and how a refusal lists them.
struct Takes {
    names: &'static [&'static str],
    listed: &'static str,
}

const BEGIN: Takes = Takes {
    names: &["LEASE", "TTL", "FP", "OWNER", "WAIT", "NS"],
    listed: "LEASE d, TTL d, FP hex, OWNER id, WAIT d or NS name",
};
const RENEW: Takes = Takes {
    names: &["LEASE", "NS"],
    listed: "LEASE d or NS name",
};
const COMPLETE: Takes = Takes {
    names: &["CODE", "TTL", "FP", "ADOPT", "BODY", "NS"],
    listed: "CODE n, TTL d, FP hex, ADOPT, NS name, and LEN n at the end, or BODY word",
};
const FAIL_RETRY: Takes = Takes {
    names: &["NS"],
    listed: "NS name",
};
const FAIL_FINAL: Takes = Takes {
    names: &["CODE", "TTL", "BODY", "NS"],
    listed: "CODE n, TTL d, NS name, and LEN n at the end, or BODY word",
};
const WAIT: Takes = Takes {
    names: &["TIMEOUT", "NS"],
    listed: "TIMEOUT d or NS name",
};

pub(super) fn begin<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    let said = said(args, 1, &BEGIN, limits)?;
    Ok(Command::Begin(Begin {
        at: said.single(args, limits)?,
        lease_ms: said.lease_ms.unwrap_or(limits.lease_default_ms),
        ttl: said.ttl.unwrap_or(Ttl::Default),
        fingerprint: said.fingerprint,
        owner: said.owner,
        wait_ms: said.wait_ms.unwrap_or(0),
    }))
}

pub(super) fn renew<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    let said = said(args, 2, &RENEW, limits)?;
    Ok(Command::Renew {
        at: said.single(args, limits)?,
        token: token(args.get(1))?,
        lease_ms: said.lease_ms,
    })
}

pub(super) fn complete<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    let said = said(args, 2, &COMPLETE, limits)?;
    settled(args, &said, false, limits)
}

pub(super) fn fail<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    match Name(args.get(2)) {
        name if name.is("RETRY") => {
            if args.body().is_some() {
                return Err(Error::args("FAIL … RETRY takes no body: nothing is stored"));
            }
            let said = said(args, 3, &FAIL_RETRY, limits)?;
            Ok(Command::FailRetry {
                at: said.single(args, limits)?,
                token: token(args.get(1))?,
            })
        }
        name if name.is("FINAL") => {
            let said = said(args, 3, &FAIL_FINAL, limits)?;
            settled(args, &said, true, limits)
        }
        name => Err(Error::args(format!(
            "FAIL key token is followed by RETRY or FINAL, not {}",
            printable(name.0)
        ))),
    }
}

fn settled<'a>(args: &Args<'a>, said: &Said<'a>, is_failure: bool, limits: &Limits) -> Built<'a> {
    if args.body().is_some() && said.body.is_some() {
        return Err(Error::args("there are two bodies: LEN's and BODY's"));
    }
    Ok(Command::Complete(Complete {
        at: said.single(args, limits)?,
        token: token(args.get(1))?,
        is_failure,
        code: said.code.unwrap_or(0),
        body: body(args.body().or(said.body).unwrap_or_default(), limits)?,
        ttl: said.ttl,
        fingerprint: said.fingerprint,
        adopts: said.adopts,
    }))
}

pub(super) fn wait<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    let said = said(args, 1, &WAIT, limits)?;
    Ok(Command::WaitFor {
        at: said.single(args, limits)?,
        timeout_ms: said.wait_ms.unwrap_or(limits.wait_max_ms),
    })
}

pub(super) fn mbegin<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    Ok(Command::MBegin {
        ttl: ttl(args.get(0))?,
        lease_ms: lease(args.get(1), limits)?,
        keys: keys(args.rest(2), limits)?,
    })
}

pub(super) fn mcomplete<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    ends(args, false, limits)
}

pub(super) fn mfail<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    ends(args, true, limits)
}

/// Keys, each with its token behind it; all are checked before the first is executed.
fn ends<'a>(args: &Args<'a>, is_failure: bool, limits: &Limits) -> Built<'a> {
    let pairs = args.rest(0);
    if !pairs.len().is_multiple_of(2) {
        return Err(Error::args("every key is followed by its token"));
    }
    if pairs.len() / 2 > limits.batch_keys_max {
        let (n, max) = (pairs.len() / 2, limits.batch_keys_max);
        return Err(Error::too_big(format!(
            "{n} keys in one request; the most are {max}"
        )));
    }
    for (key_word, token_word) in pairs_of(pairs) {
        key(key_word, limits)?;
        token(token_word)?;
    }
    Ok(Command::MEnd { pairs, is_failure })
}

/// Words two by two.
fn pairs_of(words: Words<'_>) -> impl Iterator<Item = (&[u8], &[u8])> {
    (0..words.len() / 2).map(move |i| (words.get(2 * i), words.get(2 * i + 1)))
}

/// A token.
pub(crate) fn token(word: &[u8]) -> Result<u64, Error> {
    parse_u64(word)
        .filter(|&token| (1..TOKENS_MAX).contains(&token))
        .ok_or_else(|| {
            Error::args(format!(
                "a token is the number that RUN told, not {}",
                printable(word)
            ))
        })
}

fn said<'a>(
    args: &Args<'a>,
    fixed: usize,
    takes: &Takes,
    limits: &Limits,
) -> Result<Said<'a>, Error> {
    let mut said = Said::default();
    let mut options = Options::after(args, fixed);
    while let Some(name) = options.next() {
        let Some(known) = takes.names.iter().find(|known| name.is(known)) else {
            return Err(name.unknown(takes.listed));
        };
        if *known == "ADOPT" {
            once(!said.adopts, &name)?;
            said.adopts = true;
            continue;
        }
        let value = options.value(&name)?;
        match *known {
            "LEASE" => set(&mut said.lease_ms, &name, lease(value, limits)?)?,
            "TTL" => set(&mut said.ttl, &name, ttl(value)?)?,
            "FP" => set(&mut said.fingerprint, &name, fingerprint(value)?)?,
            "OWNER" => set(&mut said.owner, &name, owner(value)?)?,
            "CODE" => set(&mut said.code, &name, code(value)?)?,
            "BODY" => set(&mut said.body, &name, value)?,
            "NS" => set(&mut said.namespace, &name, namespace_name(value)?)?,
            _ => set(&mut said.wait_ms, &name, wait_ms(value, limits)?)?,
        }
    }
    Ok(said)
}

fn set<T>(place: &mut Option<T>, name: &Name<'_>, value: T) -> Result<(), Error> {
    once(place.is_none(), name)?;
    *place = Some(value);
    Ok(())
}

impl<'a> Said<'a> {
    fn single(&self, args: &Args<'a>, limits: &Limits) -> Result<Single<'a>, Error> {
        Ok(Single {
            key: key(args.get(0), limits)?,
            namespace: self.namespace,
        })
    }
}

fn lease(word: &[u8], limits: &Limits) -> Result<u64, Error> {
    if word == b"-" {
        return Ok(limits.lease_default_ms);
    }
    match ttl_word(word)? {
        ms if ms > limits.lease_max_ms => Err(Error::range(format!(
            "the longest lease here is {}",
            DurationWord(limits.lease_max_ms)
        ))),
        ms => Ok(ms),
    }
}

/// How long a reply may be held; not at all is fine too.
fn wait_ms(word: &[u8], limits: &Limits) -> Result<u64, Error> {
    let ms = match parse_duration_ms(word) {
        Ok(ms) => ms,
        Err(DurationError::Overflow) => u64::MAX,
        Err(_) if word.starts_with(b"-") => return Err(Error::range("a wait is not negative")),
        Err(error) => return Err(Error::args(error.to_string())),
    };
    if ms > limits.wait_max_ms {
        return Err(Error::range(format!(
            "the longest wait here is {}",
            DurationWord(limits.wait_max_ms)
        )));
    }
    Ok(ms)
}

fn owner(word: &[u8]) -> Result<&[u8], Error> {
    if word.is_empty() || word.len() > OWNER_BYTES_MAX {
        return Err(Error::args(format!(
            "OWNER takes 1 to {OWNER_BYTES_MAX} bytes"
        )));
    }
    Ok(word)
}

fn code(word: &[u8]) -> Result<u32, Error> {
    parse_u64(word)
        .and_then(|code| u32::try_from(code).ok())
        .ok_or_else(|| Error::args("CODE takes a number from 0 to 4294967295"))
}

fn body<'a>(body: &'a [u8], limits: &Limits) -> Result<&'a [u8], Error> {
    if body.len() > limits.body_bytes_max {
        return Err(too_big(body.len(), limits));
    }
    Ok(body)
}

/// The refusal of a body of so many bytes.
pub(crate) fn too_big(bytes: usize, limits: &Limits) -> Error {
    Error::too_big(format!(
        "the body has {bytes} bytes; the longest is {}",
        limits.body_bytes_max
    ))
}
