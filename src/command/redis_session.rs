//! How words become commands on the connection and the server, in Redis's manner.

#![allow(
    clippy::unnecessary_wraps,
    reason = "the build functions share one signature"
)]

use super::native::printable;
use super::redis::{integer, is, pattern, syntax};
use super::{Args, ClientCommand, Command, CommandsQuery, Error, SessionCommand};
use crate::limits::{
    CLIENT_NAME_BYTES_MAX, CONFIG_PATTERNS_MAX, INFO_SECTIONS_MAX, Limits, SELECT_MAX,
};

type Built<'a> = Result<Command<'a>, Error>;

/// What Redis says where no password is set.
const NO_PASSWORD: &str = "ERR AUTH called without any password configured for the default user. \
                           Are you sure your configuration is correct?";

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
    if args.len() - 1 > CONFIG_PATTERNS_MAX {
        return Err(Error::too_big(format!(
            "at most {CONFIG_PATTERNS_MAX} patterns at a time"
        )));
    }
    for word in args.rest(1).iter() {
        pattern(word)?;
    }
    session(SessionCommand::ConfigGet {
        patterns: args.rest(1),
    })
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

fn session(command: SessionCommand<'_>) -> Built<'_> {
    Ok(Command::Session(command))
}

fn unknown_subcommand(command: &str, word: &[u8]) -> Error {
    let word = word.escape_ascii();
    Error::redis(format!(
        "ERR unknown subcommand or wrong number of arguments for '{command}|{word}'"
    ))
}
