//! Commands that are several under one name, as Redis has them: `CLIENT`, `CONFIG` and their like.
//!
//! A container is a table of subcommands: lookup, errors, `HELP` and what `COMMAND` tells of them come from it.

use super::redis::shown;
use super::redis_session as build;
use super::scripts;
use super::spec::{Build, KeyWords};
use super::{Args, Code, Command, Error, SessionCommand};
use crate::limits::Limits;

/// One of the commands under a name.
#[derive(Clone, Copy, Debug)]
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
        sub("LIST", ("[TYPE normal|master|replica|pubsub] | [ID id...]", 0, ANY), "Tells about connections.", build::client_list),
        sub("KILL", ("address | [ID id] [TYPE type] [USER user] [ADDR address] [LADDR address] [SKIPME yes|no] [MAXAGE seconds]", 1, ANY), "Ends connections.", build::client_kill),
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
        sub("SET", ("name value [name value...]", 2, ANY), "Changes settings that can change while the server runs.", build::config_set),
    ],
};

#[rustfmt::skip]
pub(super) static CLUSTER: Container = Container {
    name: "CLUSTER",
    subcommands: &[
        no_cluster("INFO", ("", 0, 0)), no_cluster("NODES", ("", 0, 0)), no_cluster("SLOTS", ("", 0, 0)),
        no_cluster("SHARDS", ("", 0, 0)), no_cluster("LINKS", ("", 0, 0)), no_cluster("MYID", ("", 0, 0)),
        no_cluster("MYSHARDID", ("", 0, 0)), no_cluster("KEYSLOT", ("key", 1, 1)),
        no_cluster("COUNTKEYSINSLOT", ("slot", 1, 1)), no_cluster("GETKEYSINSLOT", ("slot count", 2, 2)),
        no_cluster("REPLICAS", ("node", 1, 1)), no_cluster("SLAVES", ("node", 1, 1)),
        no_cluster("MEET", ("ip port [bus-port]", 2, ANY)), no_cluster("FORGET", ("node", 1, 1)),
        no_cluster("REPLICATE", ("node", 1, 1)), no_cluster("RESET", ("[HARD|SOFT]", 0, ANY)),
        no_cluster("FAILOVER", ("[FORCE|TAKEOVER]", 0, ANY)), no_cluster("SETSLOT", ("slot state...", 2, ANY)),
        no_cluster("ADDSLOTS", ("slot...", 1, ANY)), no_cluster("ADDSLOTSRANGE", ("first last...", 2, ANY)),
        no_cluster("DELSLOTS", ("slot...", 1, ANY)), no_cluster("DELSLOTSRANGE", ("first last...", 2, ANY)),
        no_cluster("FLUSHSLOTS", ("", 0, 0)), no_cluster("SAVECONFIG", ("", 0, 0)),
        no_cluster("BUMPEPOCH", ("", 0, 0)), no_cluster("SET-CONFIG-EPOCH", ("epoch", 1, 1)),
        no_cluster("COUNT-FAILURE-REPORTS", ("node", 1, 1)),
    ],
};

#[rustfmt::skip]
pub(super) static MODULE: Container = Container {
    name: "MODULE",
    subcommands: &[
        sub("LIST", ("", 0, 0), "Lists no module.", build::nothing),
    ],
};

#[rustfmt::skip]
pub(super) static SLOWLOG: Container = Container {
    name: "SLOWLOG",
    subcommands: &[
        sub("GET", ("[count]", 0, ANY), "Lists no request; INFO latencystats tells what each command takes.", build::slowlog_get),
        sub("LEN", ("", 0, 0), "Answers 0.", build::zero),
        sub("RESET", ("", 0, 0), "Does nothing.", build::done),
    ],
};

#[rustfmt::skip]
pub(super) static LATENCY: Container = Container {
    name: "LATENCY",
    subcommands: &[
        sub("LATEST", ("", 0, 0), "Lists no event; INFO latencystats tells what each command takes.", build::nothing),
        sub("HISTORY", ("event", 1, 1), "Lists no event.", build::nothing),
        sub("HISTOGRAM", ("[command...]", 0, ANY), "Lists no command.", build::no_pairs),
        sub("RESET", ("[event...]", 0, ANY), "Answers 0.", build::zero),
        sub("GRAPH", ("event", 1, 1), "Says that there are no samples.", build::latency_graph),
        sub("DOCTOR", ("", 0, 0), "Says where latencies are told.", build::latency_doctor),
    ],
};

#[rustfmt::skip]
pub(super) static MEMORY: Container = Container {
    name: "MEMORY",
    subcommands: &[
        of_key(sub("USAGE", ("key [SAMPLES count]", 1, ANY), "Tells how many bytes a key takes, about.", build::memory_usage)),
        sub("DOCTOR", ("", 0, 0), "Says where memory is told.", build::memory_doctor),
        sub("PURGE", ("", 0, 0), "Does nothing: what is free is given back anyway.", build::done),
    ],
};

#[rustfmt::skip]
pub(super) static OBJECT: Container = Container {
    name: "OBJECT",
    subcommands: &[
        of_key(sub("ENCODING", ("key", 1, 1), "Tells how Redis would store the value.", build::object_encoding)),
        of_key(sub("IDLETIME", ("key", 1, 1), "Answers 0: nobody counts when a key was asked for.", build::object_idletime)),
        of_key(sub("FREQ", ("key", 1, 1), "Says that nobody counts how often a key is asked for.", build::object_freq)),
        of_key(sub("REFCOUNT", ("key", 1, 1), "Answers 1.", build::object_refcount)),
    ],
};

#[rustfmt::skip]
pub(super) static SCRIPT: Container = Container {
    name: "SCRIPT",
    subcommands: &[
        sub("LOAD", ("script", 1, 1), "Tells a script's SHA-1, if it is recognised.", scripts::load),
        sub("EXISTS", ("sha1...", 1, ANY), "Tells which scripts EVALSHA knows.", scripts::exists),
        sub("FLUSH", ("[SYNC|ASYNC]", 0, ANY), "Forgets which scripts were recognised.", scripts::flush),
        sub("KILL", ("", 0, 0), "Says that no script is run.", scripts::kill),
    ],
};

const fn no_cluster(name: &'static str, words: (&'static str, usize, usize)) -> Subcommand {
    let summary = "Says that there is no cluster.";
    sub(name, words, summary, build::no_cluster)
}

/// A subcommand whose first word is a key.
const fn of_key(sub: Subcommand) -> Subcommand {
    Subcommand {
        keys: KeyWords {
            first: 2,
            last: 2,
            step: 1,
        },
        ..sub
    }
}

/// All of them.
static ALL: [&Container; 10] = [
    &CLIENT, &COMMAND, &CONFIG, &CLUSTER, &MODULE, &SLOWLOG, &LATENCY, &MEMORY, &OBJECT, &SCRIPT,
];

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

/// The same where Redis finds out when it executes it: a transaction with it is executed all the same.
pub(super) fn wrong_words_when_executed(name: &str) -> Error {
    Error {
        code: Code::Redis,
        ..wrong_words(name)
    }
}

/// What Redis says of too few or too many words behind a command.
pub(super) fn wrong_words(name: &str) -> Error {
    Error::redis_shape(format!(
        "ERR wrong number of arguments for '{name}' command"
    ))
}
