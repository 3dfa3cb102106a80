//! How words become commands on the connection and the server, in Redis's manner.

#![allow(
    clippy::unnecessary_wraps,
    reason = "the build functions share one signature"
)]

use super::containers::wrong_words_when_executed;
use super::native::key;
use super::redis::{integer, is, pattern, shown, syntax};
use super::{
    Args, ClientCommand, ClientFilter, Command, CommandsQuery, Error, Fact, Plain, SessionCommand,
    Words, containers,
};
use crate::limits::{
    CLIENT_NAME_BYTES_MAX, CONFIG_PATTERNS_MAX, INFO_SECTIONS_MAX, Limits, SELECT_MAX,
};

type Built<'a> = Result<Command<'a>, Error>;

pub(super) fn echo<'a>(args: &Args<'a>, _: &Limits) -> Built<'a> {
    session(SessionCommand::Echo { word: args.get(0) })
}

pub(super) fn ping<'a>(args: &Args<'a>, _: &Limits) -> Built<'a> {
    if args.len() > 1 {
        return Err(wrong_words_when_executed("ping"));
    }
    let word = args.find(0);
    session(SessionCommand::Ping { word })
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

/// `AUTH [user] secret`; nobody compares the secret, since there are no users but `default`, who needs none.
pub(super) fn auth<'a>(args: &Args<'a>, _: &Limits) -> Built<'a> {
    if args.len() > 2 {
        return Err(syntax());
    }
    let user = args.find(0).filter(|_| args.len() == 2);
    session(SessionCommand::Auth { user })
}

pub(super) fn hello<'a>(args: &Args<'a>, _: &Limits) -> Built<'a> {
    let version = match args.find(0).map(integer) {
        None => None,
        Some(Ok(2)) => Some(2),
        Some(Ok(3)) => Some(3),
        Some(Ok(_)) => return Err(Error::redis("NOPROTO unsupported protocol version")),
        Some(Err(_)) => {
            let text = "ERR Protocol version is not an integer or out of range";
            return Err(Error::redis(text));
        }
    };
    let (mut user, mut name) = (None, None);
    let mut words = args.rest(1).iter();
    while let Some(word) = words.next() {
        let (first, second) = if is(word, "AUTH") {
            (words.next(), words.next())
        } else {
            (words.next(), None)
        };
        match (first, second) {
            (Some(named), Some(_)) => user = Some(named),
            (Some(named), None) if is(word, "SETNAME") => name = Some(client_name(named)?),
            _ => {
                let option = shown(word);
                return Err(Error::redis(format!(
                    "ERR Syntax error in HELLO option '{option}'"
                )));
            }
        }
    }
    session(SessionCommand::Hello {
        version,
        user,
        name,
    })
}

pub(super) fn client<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    containers::CLIENT.build(args, limits)
}

pub(super) fn client_id<'a>(_: &Args<'a>, _: &Limits) -> Built<'a> {
    on_client(ClientCommand::Id)
}

pub(super) fn client_getname<'a>(_: &Args<'a>, _: &Limits) -> Built<'a> {
    on_client(ClientCommand::GetName)
}

pub(super) fn client_setname<'a>(args: &Args<'a>, _: &Limits) -> Built<'a> {
    on_client(ClientCommand::SetName(client_name(args.get(0))?))
}

pub(super) fn client_info<'a>(_: &Args<'a>, _: &Limits) -> Built<'a> {
    on_client(ClientCommand::Info)
}

pub(super) fn client_list<'a>(args: &Args<'a>, _: &Limits) -> Built<'a> {
    let mut filter = ClientFilter::default();
    match (args.find(0), args.find(1)) {
        (None, _) => {}
        (Some(word), Some(kind)) if is(word, "TYPE") && args.len() == 2 => {
            filter.never = !is_normal(kind)?;
        }
        (Some(word), Some(_)) if is(word, "ID") => {
            let ids = args.rest(1);
            if ids.iter().any(|id| integer(id).is_err()) {
                return Err(Error::redis("ERR Invalid client ID"));
            }
            filter.ids = Some(ids);
        }
        _ => return Err(syntax()),
    }
    on_client(ClientCommand::List(filter))
}

pub(super) fn client_kill<'a>(args: &Args<'a>, _: &Limits) -> Built<'a> {
    if args.len() == 1 {
        return on_client(ClientCommand::Kill(ClientFilter {
            address: args.find(0),
            is_one: true,
            ..ClientFilter::default()
        }));
    }
    let mut filter = ClientFilter {
        skips_me: true,
        ..ClientFilter::default()
    };
    for at in (0..args.len()).step_by(2) {
        let name = args.get(at);
        let value = args.find(at + 1).ok_or_else(syntax)?;
        match () {
            () if is(name, "ID") => {
                let id = integer(value).unwrap_or(0);
                if id < 1 {
                    return Err(Error::redis("ERR client-id should be greater than 0"));
                }
                filter.ids = Some(args.rest(at + 1).first(1));
            }
            () if is(name, "TYPE") => filter.never |= !is_normal(value)?,
            () if is(name, "ADDR") => filter.address = Some(value),
            () if is(name, "LADDR") => filter.local_address = Some(value),
            () if is(name, "USER") => {
                if value != b"default" {
                    let user = shown(value);
                    return Err(Error::redis(format!("ERR No such user '{user}'")));
                }
            }
            () if is(name, "MAXAGE") => {
                let age = integer(value).ok().and_then(|age| u64::try_from(age).ok());
                let text = "ERR maxage is not an integer or out of range";
                filter.age_s_min = Some(age.ok_or_else(|| Error::redis(text))?);
            }
            () if is(name, "SKIPME") && is(value, "YES") => filter.skips_me = true,
            () if is(name, "SKIPME") && is(value, "NO") => filter.skips_me = false,
            () => return Err(syntax()),
        }
    }
    on_client(ClientCommand::Kill(filter))
}

/// Whether clients of this type are those that there are here.
fn is_normal(kind: &[u8]) -> Result<bool, Error> {
    const OTHERS: [&str; 4] = ["MASTER", "REPLICA", "SLAVE", "PUBSUB"];
    if is(kind, "NORMAL") {
        return Ok(true);
    }
    if OTHERS.iter().any(|other| is(kind, other)) {
        return Ok(false);
    }
    let kind = shown(kind);
    Err(Error::redis(format!("ERR Unknown client type '{kind}'")))
}

pub(super) fn client_no_evict<'a>(args: &Args<'a>, _: &Limits) -> Built<'a> {
    on_or_off(args.get(0))?;
    on_client(ClientCommand::NoEvict)
}

pub(super) fn client_no_touch<'a>(args: &Args<'a>, _: &Limits) -> Built<'a> {
    on_or_off(args.get(0))?;
    on_client(ClientCommand::NoTouch)
}

fn on_or_off(word: &[u8]) -> Result<(), Error> {
    if is(word, "ON") || is(word, "OFF") {
        return Ok(());
    }
    Err(syntax())
}

pub(super) fn client_reply<'a>(args: &Args<'a>, _: &Limits) -> Built<'a> {
    let mode = args.get(0);
    on_client(match () {
        () if is(mode, "ON") => ClientCommand::ReplyOn,
        () if is(mode, "OFF") => ClientCommand::ReplyOff,
        () if is(mode, "SKIP") => ClientCommand::ReplySkip,
        () => return Err(syntax()),
    })
}

pub(super) fn client_setinfo<'a>(args: &Args<'a>, _: &Limits) -> Built<'a> {
    let attribute = args.get(0);
    let library = match () {
        () if is(attribute, "LIB-NAME") => true,
        () if is(attribute, "LIB-VER") => false,
        () => {
            let shown = shown(attribute);
            return Err(Error::redis(format!("ERR Unrecognized option '{shown}'")));
        }
    };
    let value = client_name(args.get(1))?;
    on_client(ClientCommand::SetInfo { library, value })
}

fn on_client(command: ClientCommand<'_>) -> Built<'_> {
    session(SessionCommand::Client(command))
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

pub(super) fn command<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    if args.is_empty() {
        return session(SessionCommand::Commands(CommandsQuery::Info(args.rest(0))));
    }
    containers::COMMAND.build(args, limits)
}

pub(super) fn command_count<'a>(_: &Args<'a>, _: &Limits) -> Built<'a> {
    session(SessionCommand::Commands(CommandsQuery::Count))
}

pub(super) fn command_list<'a>(_: &Args<'a>, _: &Limits) -> Built<'a> {
    session(SessionCommand::Commands(CommandsQuery::List))
}

pub(super) fn command_info<'a>(args: &Args<'a>, _: &Limits) -> Built<'a> {
    let names = command_names(args)?;
    session(SessionCommand::Commands(CommandsQuery::Info(names)))
}

pub(super) fn command_docs<'a>(args: &Args<'a>, _: &Limits) -> Built<'a> {
    let names = command_names(args)?;
    session(SessionCommand::Commands(CommandsQuery::Docs(names)))
}

/// Nobody needs a command twice; without a bound, one request could ask for a reply a hundred times its size.
fn command_names<'a>(args: &Args<'a>) -> Result<Words<'a>, Error> {
    if args.len() > super::spec::verbs().len() {
        return Err(Error::too_big("more names than there are commands"));
    }
    Ok(args.rest(0))
}

pub(super) fn config<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    containers::CONFIG.build(args, limits)
}

pub(super) fn config_get<'a>(args: &Args<'a>, _: &Limits) -> Built<'a> {
    if args.len() > CONFIG_PATTERNS_MAX {
        return Err(Error::too_big(format!(
            "at most {CONFIG_PATTERNS_MAX} patterns at a time"
        )));
    }
    for word in args.rest(0).iter() {
        pattern(word)?;
    }
    session(SessionCommand::ConfigGet {
        patterns: args.rest(0),
    })
}

pub(super) fn config_set<'a>(args: &Args<'a>, _: &Limits) -> Built<'a> {
    if !args.len().is_multiple_of(2) {
        return Err(wrong_words_when_executed("config|set"));
    }
    session(SessionCommand::ConfigSet {
        pairs: args.rest(0),
    })
}

pub(super) fn cluster<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    containers::CLUSTER.build(args, limits)
}

pub(super) fn no_cluster<'a>(_: &Args<'a>, _: &Limits) -> Built<'a> {
    Err(Error::redis(
        "ERR This instance has cluster support disabled",
    ))
}

pub(super) fn module<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    containers::MODULE.build(args, limits)
}

pub(super) fn slowlog<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    containers::SLOWLOG.build(args, limits)
}

pub(super) fn slowlog_get<'a>(args: &Args<'a>, _: &Limits) -> Built<'a> {
    if args.len() > 1 {
        let shown = shown(args.verb());
        return Err(Error::redis(format!(
            "ERR unknown subcommand or wrong number of arguments for '{shown}'. Try SLOWLOG HELP."
        )));
    }
    match args.find(0).map(integer) {
        None | Some(Ok(-1..)) => session(SessionCommand::Plain(Plain::Nothing)),
        Some(_) => Err(Error::redis(
            "ERR count should be greater than or equal to -1",
        )),
    }
}

pub(super) fn latency<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    containers::LATENCY.build(args, limits)
}

pub(super) fn latency_graph<'a>(args: &Args<'a>, _: &Limits) -> Built<'a> {
    let event = shown(args.get(0));
    Err(Error::redis(format!(
        "ERR No samples available for event '{event}'"
    )))
}

pub(super) fn latency_doctor<'a>(_: &Args<'a>, _: &Limits) -> Built<'a> {
    session(SessionCommand::Plain(Plain::LatencyDoctor))
}

pub(super) fn memory<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    containers::MEMORY.build(args, limits)
}

pub(super) fn memory_usage<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    let mut words = args.rest(1).iter();
    while let Some(word) = words.next() {
        let samples = words.next().filter(|_| is(word, "SAMPLES"));
        if integer(samples.ok_or_else(syntax)?)? < 0 {
            return Err(syntax());
        }
    }
    fact_of(args, limits, Fact::Memory)
}

pub(super) fn memory_doctor<'a>(_: &Args<'a>, _: &Limits) -> Built<'a> {
    session(SessionCommand::Plain(Plain::MemoryDoctor))
}

pub(super) fn object<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    containers::OBJECT.build(args, limits)
}

pub(super) fn object_encoding<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    fact_of(args, limits, Fact::Encoding)
}

pub(super) fn object_idletime<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    fact_of(args, limits, Fact::IdleTime)
}

pub(super) fn object_freq<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    fact_of(args, limits, Fact::Frequency)
}

pub(super) fn object_refcount<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    fact_of(args, limits, Fact::References)
}

fn fact_of<'a>(args: &Args<'a>, limits: &Limits, fact: Fact) -> Built<'a> {
    let key = key(args.get(0), limits)?;
    Ok(Command::FactOf { key, fact })
}

pub(super) fn role<'a>(_: &Args<'a>, _: &Limits) -> Built<'a> {
    session(SessionCommand::Plain(Plain::Role))
}

pub(super) fn nothing<'a>(_: &Args<'a>, _: &Limits) -> Built<'a> {
    session(SessionCommand::Plain(Plain::Nothing))
}

pub(super) fn no_pairs<'a>(_: &Args<'a>, _: &Limits) -> Built<'a> {
    session(SessionCommand::Plain(Plain::NoPairs))
}

pub(super) fn zero<'a>(_: &Args<'a>, _: &Limits) -> Built<'a> {
    session(SessionCommand::Plain(Plain::Zero))
}

pub(super) fn done<'a>(_: &Args<'a>, _: &Limits) -> Built<'a> {
    session(SessionCommand::Plain(Plain::Ok))
}

pub(super) fn info<'a>(args: &Args<'a>, _: &Limits) -> Built<'a> {
    if args.len() > INFO_SECTIONS_MAX {
        return Err(Error::too_big(format!(
            "at most {INFO_SECTIONS_MAX} sections at a time"
        )));
    }
    session(SessionCommand::Info {
        sections: args.rest(0),
    })
}

pub(super) fn wait<'a>(args: &Args<'a>, _: &Limits) -> Built<'a> {
    integer(args.get(0))?;
    match integer(args.get(1)) {
        Ok(0..) => session(SessionCommand::WaitReplicas),
        Ok(_) => Err(Error::redis("ERR timeout is negative")),
        Err(_) => {
            let text = "ERR timeout is not an integer or out of range";
            Err(Error::redis(text))
        }
    }
}

pub(super) fn select<'a>(args: &Args<'a>, _: &Limits) -> Built<'a> {
    let db = integer(args.get(0))?;
    if i32::try_from(db).is_err() {
        let (min, max) = (i32::MIN, i32::MAX);
        return Err(Error::redis(format!(
            "ERR value is out of range, value must between {min} and {max}"
        )));
    }
    match u64::try_from(db) {
        Ok(db) if db <= SELECT_MAX => Ok(Command::Select { db }),
        _ => Err(Error::redis("ERR DB index is out of range")),
    }
}

/// What Redis says of a command that it does not know.
pub(crate) fn unknown_command(args: &Args<'_>) -> Error {
    const SHOWN_MAX: usize = 128;
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

fn session(command: SessionCommand<'_>) -> Built<'_> {
    Ok(Command::Session(command))
}
