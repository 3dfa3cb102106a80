//! How words become commands in Redis's manner: its options, its errors, word for word.
//!
//! Redis names map onto this server's model: `SET NX` asks as `SEEN` does, a Bloom filter is a
//! namespace. Where the model differs (everything expires), protocol.md says so.

#![allow(
    clippy::unnecessary_wraps,
    reason = "the build functions share one signature"
)]

use super::containers::wrong_words_when_executed;
use super::keyword::Keyword;
use super::native::{key, keys, namespace_name};
use super::{
    Args, BadExpiry, BfInsert, Command, Error, ExpireIf, Expiry, Scan, Set, SetAnswer, SetIf,
    TtlForm, Words,
};
use crate::limits::{Limits, PATTERN_BYTES_MAX};
use crate::time::{Millis, parse_u64};

type Built<'a> = Result<Command<'a>, Error>;

// The options of the commands that are asked most; those of the others are compared as words.
const NX: Keyword = Keyword::name("NX");
const XX: Keyword = Keyword::name("XX");
const IFEQ: Keyword = Keyword::name("IFEQ");
const GET: Keyword = Keyword::name("GET");
const KEEPTTL: Keyword = Keyword::name("KEEPTTL");
const EX: Keyword = Keyword::name("EX");
const PX: Keyword = Keyword::name("PX");
const EXAT: Keyword = Keyword::name("EXAT");
const PXAT: Keyword = Keyword::name("PXAT");

/// Keys that one `SCAN` tells of, about, unless told otherwise.
const SCAN_COUNT: u32 = 10;

pub(super) fn set<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    let mut set = Set {
        key: key(args.get(0), limits)?,
        value: value(args.get(1), limits)?,
        expiry: Expiry::Default,
        condition: SetIf::Always,
        answer: SetAnswer::OkOrNil,
    };
    let mut ends = None;
    let mut words = args.rest(2).iter();
    while let Some(word) = words.next() {
        match (Keyword::of(word), set.condition) {
            (NX, SetIf::Always | SetIf::Absent) => set.condition = SetIf::Absent,
            (XX, SetIf::Always | SetIf::Present) => set.condition = SetIf::Present,
            (IFEQ, SetIf::Always) => {
                set.condition = SetIf::Equals(words.next().ok_or_else(syntax)?);
            }
            (GET, _) => set.answer = SetAnswer::Before,
            (KEEPTTL, _) if ends.is_none() => set.expiry = Expiry::Keep,
            (name, _) if set.expiry == Expiry::Default => {
                ends = Some(Unit::again(ends, name, words.next())?);
            }
            _ => return Err(syntax()),
        }
    }
    // As in Redis, amounts are looked at once all options are known.
    if let Some((unit, amount)) = ends {
        set.expiry = unit.expiry(amount).map_err(|bad| bad.error("set"))?;
    }
    Ok(Command::Set(set))
}

pub(super) fn setnx<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    let condition = SetIf::Absent;
    let (key, value) = (key(args.get(0), limits)?, value(args.get(1), limits)?);
    Ok(Command::Set(Set {
        key,
        value,
        expiry: Expiry::Default,
        condition,
        answer: SetAnswer::Number,
    }))
}

pub(super) fn setex<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    set_for(args, limits, Unit::Ex, "setex")
}

pub(super) fn psetex<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    set_for(args, limits, Unit::Px, "psetex")
}

fn set_for<'a>(args: &Args<'a>, limits: &Limits, unit: Unit, name: &str) -> Built<'a> {
    Ok(Command::Set(Set {
        key: key(args.get(0), limits)?,
        value: value(args.get(2), limits)?,
        expiry: unit.expiry(args.get(1)).map_err(|bad| bad.error(name))?,
        condition: SetIf::Always,
        answer: SetAnswer::OkOrNil,
    }))
}

pub(super) fn getset<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    let (key, value) = (key(args.get(0), limits)?, value(args.get(1), limits)?);
    let condition = SetIf::Always;
    Ok(Command::Set(Set {
        key,
        value,
        expiry: Expiry::Default,
        condition,
        answer: SetAnswer::Before,
    }))
}

pub(super) fn get<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    Ok(Command::Get {
        key: key(args.get(0), limits)?,
    })
}

pub(super) fn getex<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    let key = key(args.get(0), limits)?;
    let (mut ends, mut persists) = (None, false);
    let mut words = args.rest(1).iter();
    while let Some(word) = words.next() {
        if is(word, "PERSIST") && ends.is_none() {
            persists = true;
        } else if persists {
            return Err(syntax());
        } else {
            ends = Some(Unit::again(ends, Keyword::of(word), words.next())?);
        }
    }
    let expiry = match ends {
        None if persists => Ok(Expiry::Longest),
        None => return Ok(Command::Get { key }),
        Some((unit, amount)) => unit.expiry(amount),
    };
    Ok(Command::GetEx { key, expiry })
}

pub(super) fn getdel<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    Ok(Command::GetDel {
        key: key(args.get(0), limits)?,
    })
}

pub(super) fn delex<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    let key = key(args.get(0), limits)?;
    match (args.find(1), args.find(2)) {
        (None, _) => Ok(Command::DelIf { key, equals: None }),
        (Some(word), Some(value)) if is(word, "IFEQ") => Ok(Command::DelIf {
            key,
            equals: Some(value),
        }),
        _ => Err(syntax()),
    }
}

pub(super) fn delifeq<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    Ok(Command::DelIf {
        key: key(args.get(0), limits)?,
        equals: Some(args.get(1)),
    })
}

pub(super) fn mget<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    Ok(Command::MGet {
        keys: keys(args.rest(0), limits)?,
    })
}

pub(super) fn exists<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    Ok(Command::Exists {
        keys: keys(args.rest(0), limits)?,
    })
}

pub(super) fn del<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    Ok(Command::Del {
        keys: keys(args.rest(0), limits)?,
    })
}

pub(super) fn kind<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    Ok(Command::Type {
        key: key(args.get(0), limits)?,
    })
}

pub(super) fn strlen<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    Ok(Command::StrLen {
        key: key(args.get(0), limits)?,
    })
}

pub(super) fn ttl<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    ttl_of(args, limits, TtlForm::Seconds)
}

pub(super) fn pttl<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    ttl_of(args, limits, TtlForm::Millis)
}

pub(super) fn expiretime<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    ttl_of(args, limits, TtlForm::AtSeconds)
}

pub(super) fn pexpiretime<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    ttl_of(args, limits, TtlForm::AtMillis)
}

fn ttl_of<'a>(args: &Args<'a>, limits: &Limits, form: TtlForm) -> Built<'a> {
    Ok(Command::TtlOf {
        key: key(args.get(0), limits)?,
        form,
    })
}

pub(super) fn expire<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    expire_with(args, limits, Unit::Ex, "expire")
}

pub(super) fn pexpire<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    expire_with(args, limits, Unit::Px, "pexpire")
}

pub(super) fn expireat<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    expire_with(args, limits, Unit::ExAt, "expireat")
}

pub(super) fn pexpireat<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    expire_with(args, limits, Unit::PxAt, "pexpireat")
}

fn expire_with<'a>(args: &Args<'a>, limits: &Limits, unit: Unit, name: &str) -> Built<'a> {
    let key = key(args.get(0), limits)?;
    let condition = expire_if(args.rest(2))?;
    let expiry = expire_end(unit, integer(args.get(1))?, name)?;
    Ok(Command::Expire {
        key,
        expiry,
        condition,
    })
}

/// The end that `EXPIRE` or one of its like sets.
pub(super) fn expire_end(unit: Unit, amount: i64, name: &str) -> Result<Expiry, Error> {
    let ms = unit
        .ms(amount)
        .ok_or_else(|| BadExpiry::OutOfRange.error(name))?;
    // As in Redis, an end that is not in the future removes the key.
    Ok(match u64::try_from(ms) {
        Ok(ms) if ms > 0 => unit.of_ms(ms),
        _ => Expiry::At(Millis(0)),
    })
}

/// When an expiry goes ahead, by all its options together.
fn expire_if(options: Words<'_>) -> Result<ExpireIf, Error> {
    let mut only = ExpireIf::default();
    for word in options.iter() {
        match () {
            () if is(word, "NX") => only.without_end = true,
            () if is(word, "XX") => only.with_end = true,
            () if is(word, "GT") => only.later = true,
            () if is(word, "LT") => only.earlier = true,
            () => {
                let option = shown(word);
                return Err(Error::redis(format!("ERR Unsupported option {option}")));
            }
        }
    }
    if only.without_end && (only.with_end || only.later || only.earlier) {
        return Err(Error::redis(
            "ERR NX and XX, GT or LT options at the same time are not compatible",
        ));
    }
    if only.later && only.earlier {
        return Err(Error::redis(
            "ERR GT and LT options at the same time are not compatible",
        ));
    }
    Ok(only)
}

pub(super) fn persist<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    let key = key(args.get(0), limits)?;
    Ok(Command::Expire {
        key,
        expiry: Expiry::Longest,
        condition: ExpireIf::default(),
    })
}

pub(super) fn bf_add<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    Ok(Command::BfAdd {
        namespace: namespace_name(args.get(0))?,
        item: key(args.get(1), limits)?,
    })
}

pub(super) fn bf_madd<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    let items = keys(args.rest(1), limits)?;
    let namespace = namespace_name(args.get(0))?;
    Ok(Command::BfInsert(BfInsert {
        namespace,
        items,
        create: true,
        keys_max: None,
    }))
}

pub(super) fn bf_exists<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    let items = keys(args.rest(1), limits)?;
    Ok(Command::BfExists {
        namespace: namespace_name(args.get(0))?,
        items,
        single: true,
    })
}

pub(super) fn bf_mexists<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    let items = keys(args.rest(1), limits)?;
    Ok(Command::BfExists {
        namespace: namespace_name(args.get(0))?,
        items,
        single: false,
    })
}

pub(super) fn bf_reserve<'a>(args: &Args<'a>, _: &Limits) -> Built<'a> {
    error_rate(args.get(1))?;
    let capacity = capacity(args.get(2))?;
    let mut keys_max = None;
    let mut i = 3;
    while let Some(word) = args.find(i) {
        i += 1;
        if is(word, "NONSCALING") {
            keys_max = Some(capacity);
        } else if is(word, "EXPANSION") {
            args.find(i)
                .and_then(parse_u64)
                .ok_or_else(|| Error::redis("ERR bad expansion"))?;
            i += 1;
        } else {
            return Err(syntax());
        }
    }
    Ok(Command::BfReserve {
        namespace: namespace_name(args.get(0))?,
        keys_max,
    })
}

pub(super) fn bf_insert<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    let (mut create, mut non_scaling, mut size) = (true, false, None);
    let mut i = 1;
    loop {
        let word = args.find(i).ok_or_else(syntax)?;
        i += 1;
        let amount = || args.find(i).ok_or_else(syntax);
        if is(word, "ITEMS") {
            break;
        } else if is(word, "NOCREATE") {
            create = false;
        } else if is(word, "NONSCALING") {
            non_scaling = true;
        } else if is(word, "CAPACITY") {
            size = Some(capacity(amount()?)?);
            i += 1;
        } else if is(word, "ERROR") {
            error_rate(amount()?)?;
            i += 1;
        } else if is(word, "EXPANSION") {
            parse_u64(amount()?).ok_or_else(|| Error::redis("ERR bad expansion"))?;
            i += 1;
        } else {
            return Err(syntax());
        }
    }
    let items = keys(args.rest(i), limits)?;
    if items.is_empty() {
        return Err(wrong_words_when_executed("bf.insert"));
    }
    let keys_max = size.filter(|_| non_scaling);
    Ok(Command::BfInsert(BfInsert {
        namespace: namespace_name(args.get(0))?,
        items,
        create,
        keys_max,
    }))
}

pub(super) fn bf_card<'a>(args: &Args<'a>, _: &Limits) -> Built<'a> {
    Ok(Command::BfCard {
        namespace: namespace_name(args.get(0))?,
    })
}

pub(super) fn bf_info<'a>(args: &Args<'a>, _: &Limits) -> Built<'a> {
    Ok(Command::BfInfo {
        namespace: namespace_name(args.get(0))?,
        field: args.find(1),
    })
}

/// What a Bloom filter promises at most is promised here exactly, so any sensible rate will do.
fn error_rate(word: &[u8]) -> Result<(), Error> {
    let rate: Option<f64> = str::from_utf8(word).ok().and_then(|text| text.parse().ok());
    match rate {
        Some(rate) if rate > 0.0 && rate < 1.0 => Ok(()),
        Some(_) => Err(Error::redis("ERR (0 < error rate range < 1)")),
        None => Err(Error::redis("ERR bad error rate")),
    }
}

fn capacity(word: &[u8]) -> Result<u64, Error> {
    match parse_u64(word) {
        Some(0) => Err(Error::redis("ERR (capacity should be larger than 0)")),
        Some(n) => Ok(n),
        None => Err(Error::redis("ERR bad capacity")),
    }
}

pub(super) fn dbsize<'a>(_: &Args<'a>, _: &Limits) -> Built<'a> {
    Ok(Command::DbSize)
}

pub(super) fn flushdb<'a>(args: &Args<'a>, _: &Limits) -> Built<'a> {
    flush_mode(args).map(|()| Command::FlushDb)
}

pub(super) fn flushall<'a>(args: &Args<'a>, _: &Limits) -> Built<'a> {
    flush_mode(args).map(|()| Command::FlushAll)
}

pub(super) fn flush_mode(args: &Args<'_>) -> Result<(), Error> {
    // Both mean the same here: keys are gone at once, their memory is returned beside the requests.
    match (args.len(), args.find(0)) {
        (0, _) => Ok(()),
        (1, Some(word)) if is(word, "SYNC") || is(word, "ASYNC") => Ok(()),
        _ => Err(syntax()),
    }
}

pub(super) fn scan<'a>(args: &Args<'a>, _: &Limits) -> Built<'a> {
    scan_of(args.rest(0), true).map(Command::Scan)
}

/// A cursor and options; `has_types` says whether keys are of some type.
pub(super) fn scan_of(words: Words<'_>, has_types: bool) -> Result<Scan<'_>, Error> {
    let cursor = words.get(0);
    let cursor = parse_u64(cursor.strip_prefix(b"+").unwrap_or(cursor));
    let cursor = cursor.ok_or_else(|| Error::redis("ERR invalid cursor"))?;
    let mut scan = Scan {
        cursor,
        pattern: None,
        count: SCAN_COUNT,
        kind: None,
    };
    let mut words = words.iter().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(syntax)?;
        if is(word, "MATCH") {
            scan.pattern = Some(pattern(value)?);
        } else if is(word, "COUNT") {
            let count = integer(value)?;
            if count < 1 {
                return Err(syntax());
            }
            scan.count = u32::try_from(count).unwrap_or(u32::MAX);
        } else if has_types && is(word, "TYPE") {
            scan.kind = Some(value);
        } else {
            return Err(syntax());
        }
    }
    Ok(scan)
}

pub(super) fn keys_glob<'a>(args: &Args<'a>, _: &Limits) -> Built<'a> {
    Ok(Command::Keys {
        pattern: pattern(args.get(0))?,
    })
}

pub(super) fn time<'a>(_: &Args<'a>, _: &Limits) -> Built<'a> {
    Ok(Command::Time)
}

/// The unit of an expiry, and whether it is a moment or a span.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Unit {
    Ex,
    Px,
    ExAt,
    PxAt,
}

/// Milliseconds beyond which a span from now has no end in 64 bits, whatever the present is until the year 2248.
const SPAN_MS_MAX: i64 = i64::MAX - (1 << 43);

impl Unit {
    /// The unit of this name and its amount, which stands behind it; beside another unit it is an error.
    fn again<'a>(
        before: Option<(Self, &'a [u8])>,
        name: Keyword,
        amount: Option<&'a [u8]>,
    ) -> Result<(Self, &'a [u8]), Error> {
        let unit =
            Self::named(name).filter(|unit| before.is_none_or(|(before, _)| before == *unit));
        unit.zip(amount).ok_or_else(syntax)
    }

    fn named(name: Keyword) -> Option<Self> {
        match name {
            EX => Some(Self::Ex),
            PX => Some(Self::Px),
            EXAT => Some(Self::ExAt),
            PXAT => Some(Self::PxAt),
            _ => None,
        }
    }

    /// So many of the unit in milliseconds, if their end can be told in 64 bits.
    fn ms(self, amount: i64) -> Option<i64> {
        let (scale, max) = match self {
            Self::Ex => (1_000, SPAN_MS_MAX),
            Self::Px => (1, SPAN_MS_MAX),
            Self::ExAt => (1_000, i64::MAX),
            Self::PxAt => (1, i64::MAX),
        };
        amount.checked_mul(scale).filter(|&ms| ms <= max)
    }

    fn of_ms(self, ms: u64) -> Expiry {
        match self {
            Self::Ex | Self::Px => Expiry::In(ms),
            Self::ExAt | Self::PxAt => Expiry::At(Millis(ms)),
        }
    }

    /// An expiry that is to lie in the future, as a value's.
    pub(super) fn expiry(self, amount: &[u8]) -> Result<Expiry, BadExpiry> {
        let amount = number(amount).ok_or(BadExpiry::NotInteger)?;
        match self.ms(amount).map(u64::try_from) {
            Some(Ok(ms)) if ms > 0 => Ok(self.of_ms(ms)),
            _ => Err(BadExpiry::OutOfRange),
        }
    }
}

pub(super) fn value<'a>(word: &'a [u8], limits: &Limits) -> Result<&'a [u8], Error> {
    if word.len() > limits.body_bytes_max {
        let (n, max) = (word.len(), limits.body_bytes_max);
        return Err(Error::too_big(format!(
            "the value has {n} bytes; the longest is {max}"
        )));
    }
    Ok(word)
}

/// A glob within its bound: matching takes time in proportion to its length.
pub(super) fn pattern(word: &[u8]) -> Result<&[u8], Error> {
    if word.len() > PATTERN_BYTES_MAX {
        let n = word.len();
        return Err(Error::too_big(format!(
            "the pattern has {n} bytes; the longest is {PATTERN_BYTES_MAX}"
        )));
    }
    Ok(word)
}

pub(super) fn is(word: &[u8], name: &str) -> bool {
    word.eq_ignore_ascii_case(name.as_bytes())
}

pub(crate) fn integer(word: &[u8]) -> Result<i64, Error> {
    number(word).ok_or_else(not_integer)
}

/// A number as Redis reads one: no sign but a minus, no zeros in front.
fn number(word: &[u8]) -> Option<i64> {
    match word {
        [b'1'..=b'9', ..] => i64::try_from(parse_u64(word)?).ok(),
        b"0" => Some(0),
        [b'-', b'1'..=b'9', ..] => str::from_utf8(word).ok()?.parse().ok(),
        _ => None,
    }
}

pub(super) fn not_integer() -> Error {
    Error::redis("ERR value is not an integer or out of range")
}

/// A word of the client's in a refusal of Redis's: up to 128 bytes of it, on one line.
pub(super) fn shown(word: &[u8]) -> String {
    const SHOWN_MAX: usize = 128;
    word[..word.len().min(SHOWN_MAX)].escape_ascii().to_string()
}

pub(super) fn syntax() -> Error {
    Error::redis("ERR syntax error")
}
