//! Commands that are several under one name, as Redis has them: `CLIENT`, `CONFIG` and their like.
//!
//! A container is a table of subcommands: lookup, errors, `HELP` and what `COMMAND` tells of them come from it.

use super::redis::shown;
use super::redis_session as build;
use super::spec::{Build, KeyWords};
use super::{Args, Command, Error, SessionCommand};
use crate::limits::Limits;

/// One of the commands under a name.
#[derive(Debug)]
pub struct Subcommand {
    /// Its name, in capitals.
    pub name: &'static str,
    /// The words behind it, as a usage line shows them.
    pub usage: &'static str,
    /// The least words behind it.
    pub words_min: usize,
    /// The most words behind it.
    pub words_max: usize,
    /// Which words are keys, counted from the container's name.
    pub keys: KeyWords,
    /// What it does, in a few words.
    pub summary: &'static str,
    build: Build,
}

/// A command that is several.
#[derive(Debug)]
pub struct Container {
    /// Its name, in capitals.
    pub name: &'static str,
    /// What there is under it, but for `HELP`, which all have.
    pub subcommands: &'static [Subcommand],
}

const ANY: usize = usize::MAX;

const fn sub(
    name: &'static str,
    (usage, words_min, words_max): (&'static str, usize, usize),
    summary: &'static str,
    build: Build,
) -> Subcommand {
    Subcommand {
        name,
        usage,
        words_min,
        words_max,
        keys: KeyWords {
            first: 0,
            last: 0,
            step: 0,
        },
        summary,
        build,
    }
}

#[rustfmt::skip] // a table is read by its columns
pub(super) static CLIENT: Container = Container {
    name: "CLIENT",
    subcommands: &[
        sub("ID", ("", 0, 0), "Tells this connection's number.", build::client_id),
        sub("GETNAME", ("", 0, 0), "Tells this connection's name.", build::client_getname),
        sub("SETNAME", ("name", 1, 1), "Names this connection.", build::client_setname),
        sub("SETINFO", ("LIB-NAME|LIB-VER value", 2, 2), "Takes note of the client's library.", build::client_setinfo),
        sub("INFO", ("", 0, 0), "Tells about this connection.", build::client_info),
        sub("LIST", ("", 0, ANY), "Tells about all connections.", build::client_list),
        sub("NO-EVICT", ("ON|OFF", 1, 1), "Does nothing.", build::client_no_evict),
        sub("NO-TOUCH", ("ON|OFF", 1, 1), "Does nothing.", build::client_no_touch),
        sub("REPLY", ("ON|OFF|SKIP", 1, 1), "Says which replies are sent.", build::client_reply),
    ],
};

#[rustfmt::skip]
pub(super) static COMMAND: Container = Container {
    name: "COMMAND",
    subcommands: &[
        sub("COUNT", ("", 0, 0), "Counts the commands.", build::command_count),
        sub("LIST", ("", 0, 0), "Tells the commands' names.", build::command_list),
        sub("INFO", ("[name...]", 0, ANY), "Describes commands for programs.", build::command_info),
        sub("DOCS", ("[name...]", 0, ANY), "Describes commands for people.", build::command_docs),
    ],
};

#[rustfmt::skip]
pub(super) static CONFIG: Container = Container {
    name: "CONFIG",
    subcommands: &[
        sub("GET", ("pattern...", 1, ANY), "Tells settings.", build::config_get),
    ],
};

/// All of them.
static ALL: [&Container; 3] = [&CLIENT, &COMMAND, &CONFIG];

impl Container {
    /// The container of this name, in capitals, if there is one.
    pub fn named(name: &str) -> Option<&'static Self> {
        ALL.into_iter().find(|container| container.name == name)
    }

    /// What `HELP` tells, line by line.
    pub fn help(&self) -> Vec<String> {
        let name = self.name;
        let head = format!("{name} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:");
        let lines = self.subcommands.iter().flat_map(|sub| {
            let usage = format!("{} {}", sub.name, sub.usage);
            [usage.trim_end().to_owned(), format!("    {}", sub.summary)]
        });
        let own = ["HELP", "    Print this help."].map(str::to_owned);
        [head].into_iter().chain(lines).chain(own).collect()
    }

    /// The command that these words make; the first one behind the container's name is there.
    pub(super) fn build<'a>(
        &'static self,
        args: &Args<'a>,
        limits: &Limits,
    ) -> Result<Command<'a>, Error> {
        let word = args.get(0);
        let is_it = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
        let words = args.len() - 1;
        let name = match self.subcommands.iter().find(|sub| is_it(sub.name)) {
            Some(sub) if (sub.words_min..=sub.words_max).contains(&words) => {
                return (sub.build)(&args.shift().unwrap_or(*args), limits);
            }
            Some(sub) => sub.name,
            None if is_it("HELP") && words == 0 => {
                return Ok(Command::Session(SessionCommand::Help(self)));
            }
            None if is_it("HELP") => "HELP",
            None => {
                let (shown, name) = (shown(word), self.name);
                return Err(Error::redis_shape(format!(
                    "ERR unknown subcommand '{shown}'. Try {name} HELP."
                )));
            }
        };
        let full = format!("{}|{name}", self.name).to_ascii_lowercase();
        Err(wrong_words(&full))
    }
}

/// What Redis says of too few or too many words behind a command.
pub(super) fn wrong_words(name: &str) -> Error {
    Error::redis_shape(format!(
        "ERR wrong number of arguments for '{name}' command"
    ))
}
