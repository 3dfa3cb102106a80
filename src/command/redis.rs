//! How words become commands in Redis's manner: its options, its errors, word for word.
//!
//! Redis names map onto this server's model: `SET NX` asks as `SEEN` does, a Bloom filter is a
//! namespace. Where the model differs (everything expires), protocol.md says so.

#![allow(
    clippy::unnecessary_wraps,
    reason = "the build functions share one signature"
)]

use super::native::{key, keys, namespace_name, printable};
use super::{
    Args, BfInsert, ClientCommand, Command, CommandsQuery, Error, ExpireIf, Expiry, Scan,
    SessionCommand, Set, SetAnswer, SetIf, TtlForm,
};
use crate::limits::{CLIENT_NAME_BYTES_MAX, Limits, SELECT_MAX};
use crate::time::{Millis, parse_u64};

type Built<'a> = Result<Command<'a>, Error>;

/// Places that `SCAN` looks at unless told otherwise.
const SCAN_COUNT: u32 = 10;

pub(super) fn set<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    let mut set = Set {
        key: key(args.get(0), limits)?,
        value: value(args.get(1), limits)?,
        expiry: Expiry::Default,
        condition: SetIf::Always,
        answer: SetAnswer::OkOrNil,
    };
    let mut i = 2;
    while let Some(word) = args.find(i) {
        i += 1;
        let free = set.condition == SetIf::Always;
        if is(word, "NX") && free {
            set.condition = SetIf::Absent;
        } else if is(word, "XX") && free {
            set.condition = SetIf::Present;
        } else if is(word, "IFEQ") && free {
            set.condition = SetIf::Equals(args.find(i).ok_or_else(syntax)?);
            i += 1;
        } else if is(word, "GET") {
            set.answer = SetAnswer::Before;
        } else if set.expiry != Expiry::Default {
            return Err(syntax());
        } else if is(word, "KEEPTTL") {
            set.expiry = Expiry::Keep;
        } else {
            let unit = Unit::of(word).ok_or_else(syntax)?;
            set.expiry = unit.expiry(args.find(i).ok_or_else(syntax)?, "set")?;
            i += 1;
        }
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
        expiry: unit.expiry(args.get(1), name)?,
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
    let expiry = match (args.find(1), args.find(2)) {
        (None, _) => return Ok(Command::Get { key }),
        (Some(word), None) if is(word, "PERSIST") => Expiry::Longest,
        (Some(word), Some(amount)) => Unit::of(word).ok_or_else(syntax)?.expiry(amount, "getex")?,
        _ => return Err(syntax()),
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
    Ok(Command::Forget {
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
    let amount = integer(args.get(1))?;
    // As in Redis, an end that is not in the future removes the key.
    let expiry = if amount <= 0 {
        Expiry::At(Millis(0))
    } else {
        unit.expiry(args.get(1), name)?
    };
    let condition = match args.find(2) {
        None => ExpireIf::Always,
        Some(word) if is(word, "XX") => ExpireIf::Always,
        Some(word) if is(word, "NX") => ExpireIf::Never,
        Some(word) if is(word, "GT") => ExpireIf::Later,
        Some(word) if is(word, "LT") => ExpireIf::Earlier,
        Some(word) => {
            return Err(Error::redis(format!(
                "ERR Unsupported option {}",
                word.escape_ascii()
            )));
        }
    };
    Ok(Command::Expire {
        key: key(args.get(0), limits)?,
        expiry,
        condition,
    })
}

pub(super) fn persist<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    let key = key(args.get(0), limits)?;
    Ok(Command::Expire {
        key,
        expiry: Expiry::Longest,
        condition: ExpireIf::Always,
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
        return Err(Error::redis(
            "ERR wrong number of arguments for 'bf.insert' command",
        ));
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

pub(super) fn echo<'a>(args: &Args<'a>, _: &Limits) -> Built<'a> {
    session(SessionCommand::Echo { word: args.get(0) })
}

pub(super) fn quit<'a>(_: &Args<'a>, _: &Limits) -> Built<'a> {
    session(SessionCommand::Quit)
}

pub(super) fn reset<'a>(_: &Args<'a>, _: &Limits) -> Built<'a> {
    session(SessionCommand::Reset)
}

pub(super) fn multi<'a>(_: &Args<'a>, _: &Limits) -> Built<'a> {
    session(SessionCommand::Multi)
}

pub(super) fn exec<'a>(_: &Args<'a>, _: &Limits) -> Built<'a> {
    session(SessionCommand::Exec)
}

pub(super) fn discard<'a>(_: &Args<'a>, _: &Limits) -> Built<'a> {
    session(SessionCommand::Discard)
}

pub(super) fn hello<'a>(args: &Args<'a>, _: &Limits) -> Built<'a> {
    let mut name = None;
    let mut i = 1;
    while let Some(word) = args.find(i) {
        if is(word, "SETNAME") {
            name = Some(client_name(args.find(i + 1).ok_or_else(syntax)?)?);
            i += 2;
        } else if is(word, "AUTH") {
            return Err(Error::redis(NO_PASSWORD));
        } else {
            return Err(Error::redis(format!(
                "ERR Syntax error in HELLO option {}",
                printable(word)
            )));
        }
    }
    session(SessionCommand::Hello {
        version: args.find(0),
        name,
    })
}

pub(super) fn client<'a>(args: &Args<'a>, _: &Limits) -> Built<'a> {
    let what = args.get(0);
    let one = args.find(1).filter(|_| args.len() == 2);
    let two = args.find(2).filter(|_| args.len() == 3);
    let command = match (args.len(), one, two) {
        (1, ..) if is(what, "ID") => ClientCommand::Id,
        (1, ..) if is(what, "GETNAME") => ClientCommand::GetName,
        (1, ..) if is(what, "INFO") => ClientCommand::Info,
        (1, ..) if is(what, "LIST") => ClientCommand::List,
        (_, Some(name), _) if is(what, "SETNAME") => ClientCommand::SetName(client_name(name)?),
        (_, Some(_), _) if is(what, "NO-EVICT") => ClientCommand::NoEvict,
        (_, Some(_), _) if is(what, "NO-TOUCH") => ClientCommand::NoTouch,
        (_, Some(mode), _) if is(what, "REPLY") => reply_mode(mode)?,
        (_, _, Some(value)) if is(what, "SETINFO") => set_info(args.get(1), client_name(value)?)?,
        _ => return Err(unknown_subcommand("CLIENT", what)),
    };
    session(SessionCommand::Client(command))
}

fn reply_mode(mode: &[u8]) -> Result<ClientCommand<'_>, Error> {
    match () {
        () if is(mode, "ON") => Ok(ClientCommand::ReplyOn),
        () if is(mode, "OFF") => Ok(ClientCommand::ReplyOff),
        () if is(mode, "SKIP") => Ok(ClientCommand::ReplySkip),
        () => Err(syntax()),
    }
}

fn set_info<'a>(attribute: &[u8], value: &'a [u8]) -> Result<ClientCommand<'a>, Error> {
    match () {
        () if is(attribute, "LIB-NAME") => Ok(ClientCommand::SetInfo {
            library: true,
            value,
        }),
        () if is(attribute, "LIB-VER") => Ok(ClientCommand::SetInfo {
            library: false,
            value,
        }),
        () => Err(Error::redis(format!(
            "ERR Unrecognized option '{}'",
            attribute.escape_ascii()
        ))),
    }
}

fn client_name(word: &[u8]) -> Result<&[u8], Error> {
    if word.len() > CLIENT_NAME_BYTES_MAX {
        return Err(Error::too_big(format!(
            "a name has at most {CLIENT_NAME_BYTES_MAX} bytes"
        )));
    }
    if !word.iter().all(u8::is_ascii_graphic) {
        return Err(Error::redis(
            "ERR Client names cannot contain spaces, newlines or special characters.",
        ));
    }
    Ok(word)
}

pub(super) fn command<'a>(args: &Args<'a>, _: &Limits) -> Built<'a> {
    let query = match args.find(0) {
        None => CommandsQuery::Info(args.rest(0)),
        Some(word) if is(word, "COUNT") && args.len() == 1 => CommandsQuery::Count,
        Some(word) if is(word, "LIST") && args.len() == 1 => CommandsQuery::List,
        // Nobody needs a command twice; without a bound, one request could ask for a reply a
        // hundred times its size.
        Some(_) if args.len() > super::spec::verbs().len() => {
            return Err(Error::too_big("more names than there are commands"));
        }
        Some(word) if is(word, "INFO") => CommandsQuery::Info(args.rest(1)),
        Some(word) if is(word, "DOCS") => CommandsQuery::Docs(args.rest(1)),
        Some(word) => return Err(unknown_subcommand("COMMAND", word)),
    };
    session(SessionCommand::Commands(query))
}

pub(super) fn config<'a>(args: &Args<'a>, _: &Limits) -> Built<'a> {
    if !is(args.get(0), "GET") || args.len() < 2 {
        return Err(unknown_subcommand("CONFIG", args.get(0)));
    }
    session(SessionCommand::ConfigGet {
        patterns: args.rest(1),
    })
}

pub(super) fn info<'a>(args: &Args<'a>, _: &Limits) -> Built<'a> {
    session(SessionCommand::Info {
        sections: args.rest(0),
    })
}

pub(super) fn wait<'a>(args: &Args<'a>, _: &Limits) -> Built<'a> {
    integer(args.get(0))?;
    if integer(args.get(1))? < 0 {
        return Err(Error::redis("ERR timeout is negative"));
    }
    session(SessionCommand::WaitReplicas)
}

pub(super) fn select<'a>(args: &Args<'a>, _: &Limits) -> Built<'a> {
    let db = integer(args.get(0)).map_err(|_| Error::redis("ERR invalid DB index"))?;
    match u64::try_from(db) {
        Ok(db) if db <= SELECT_MAX => Ok(Command::Select { db }),
        _ => Err(Error::redis("ERR DB index is out of range")),
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

fn flush_mode(args: &Args<'_>) -> Result<(), Error> {
    // Both mean the same here: keys are gone at once, their memory is returned beside the requests.
    match args.find(0) {
        Some(word) if !is(word, "SYNC") && !is(word, "ASYNC") => Err(syntax()),
        _ => Ok(()),
    }
}

pub(super) fn scan<'a>(args: &Args<'a>, _: &Limits) -> Built<'a> {
    let cursor = parse_u64(args.get(0)).ok_or_else(|| Error::redis("ERR invalid cursor"))?;
    let mut scan = Scan {
        cursor,
        pattern: None,
        count: SCAN_COUNT,
        kind: None,
    };
    let mut i = 1;
    while let Some(word) = args.find(i) {
        let value = args.find(i + 1).ok_or_else(syntax)?;
        i += 2;
        if is(word, "MATCH") {
            scan.pattern = Some(value);
        } else if is(word, "COUNT") {
            let count = integer(value)?;
            if count < 1 {
                return Err(syntax());
            }
            scan.count = u32::try_from(count).unwrap_or(u32::MAX);
        } else if is(word, "TYPE") {
            scan.kind = Some(value);
        } else {
            return Err(syntax());
        }
    }
    Ok(Command::Scan(scan))
}

pub(super) fn keys_glob<'a>(args: &Args<'a>, _: &Limits) -> Built<'a> {
    Ok(Command::Keys {
        pattern: args.get(0),
    })
}

pub(super) fn time<'a>(_: &Args<'a>, _: &Limits) -> Built<'a> {
    Ok(Command::Time)
}

/// What Redis says where no password is set.
const NO_PASSWORD: &str = "ERR AUTH called without any password configured for the default user. \
                           Are you sure your configuration is correct?";

/// What Redis says of a command that it does not know. The words behind `AUTH` are secrets and
/// are not repeated.
pub(crate) fn unknown_command(args: &Args<'_>) -> Error {
    const SHOWN_MAX: usize = 128;
    if is(args.verb(), "AUTH") {
        return Error::redis(NO_PASSWORD);
    }
    let shown = |word: &[u8], room: usize| word[..word.len().min(room)].escape_ascii().to_string();
    let mut behind = String::new();
    for word in args.rest(0).iter() {
        if behind.len() >= SHOWN_MAX {
            break;
        }
        let room = SHOWN_MAX - behind.len();
        behind.extend(["'", &shown(word, room), "' "]);
    }
    let name = shown(args.verb(), SHOWN_MAX);
    Error::redis(format!(
        "ERR unknown command '{name}', with args beginning with: {behind}"
    ))
}

/// The unit of an expiry, and whether it is a moment or a span.
#[derive(Clone, Copy)]
enum Unit {
    Ex,
    Px,
    ExAt,
    PxAt,
}

impl Unit {
    fn of(word: &[u8]) -> Option<Self> {
        [
            ("EX", Self::Ex),
            ("PX", Self::Px),
            ("EXAT", Self::ExAt),
            ("PXAT", Self::PxAt),
        ]
        .into_iter()
        .find_map(|(name, unit)| is(word, name).then_some(unit))
    }

    fn expiry(self, amount: &[u8], command: &str) -> Result<Expiry, Error> {
        let invalid = || Error::redis(format!("ERR invalid expire time in '{command}' command"));
        let amount = integer(amount)?;
        let scale = if matches!(self, Self::Ex | Self::ExAt) {
            1_000
        } else {
            1
        };
        let ms = amount
            .checked_mul(scale)
            .filter(|&ms| ms > 0)
            .ok_or_else(invalid)?
            .unsigned_abs();
        Ok(match self {
            Self::Ex | Self::Px => Expiry::In(ms),
            Self::ExAt | Self::PxAt => Expiry::At(Millis(ms)),
        })
    }
}

fn session(command: SessionCommand<'_>) -> Built<'_> {
    Ok(Command::Session(command))
}

fn value<'a>(word: &'a [u8], limits: &Limits) -> Result<&'a [u8], Error> {
    if word.len() > limits.body_bytes_max {
        let (n, max) = (word.len(), limits.body_bytes_max);
        return Err(Error::too_big(format!(
            "the value has {n} bytes; the longest is {max}"
        )));
    }
    Ok(word)
}

fn is(word: &[u8], name: &str) -> bool {
    word.eq_ignore_ascii_case(name.as_bytes())
}

fn integer(word: &[u8]) -> Result<i64, Error> {
    str::from_utf8(word)
        .ok()
        .filter(|text| !text.starts_with('+'))
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| Error::redis("ERR value is not an integer or out of range"))
}

fn syntax() -> Error {
    Error::redis("ERR syntax error")
}

fn unknown_subcommand(command: &str, word: &[u8]) -> Error {
    let word = word.escape_ascii();
    Error::redis(format!(
        "ERR unknown subcommand or wrong number of arguments for '{command}|{word}'"
    ))
}
