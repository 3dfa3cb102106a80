//! What Redis's clients ask about commands: `COMMAND` and the `HELP` of those that are several.
//!
//! All of it comes from the command table. An entry has the ten fields of Redis 7.

use crate::command::containers::{Container, Subcommand};
use crate::command::spec::{Effect, Home, KeyWords, RESP_PREFIX, Spec, Verb, lookup_resp, verbs};
use crate::command::{CommandsQuery, Reply};

/// `HELP` of a command that is several.
pub(super) fn help<'a>(container: &Container) -> Reply<'a> {
    let lines = container.help();
    Reply::Array(lines.into_iter().map(Reply::text).collect())
}

/// `COMMAND` and its subcommands.
pub(super) fn commands<'a>(query: &CommandsQuery<'_>) -> Reply<'a> {
    let all = || verbs().map(Verb::spec);
    match query {
        CommandsQuery::Count => Reply::Number(verbs().len() as i64),
        CommandsQuery::List => {
            Reply::Array(all().map(|spec| Reply::text(resp_name(spec))).collect())
        }
        CommandsQuery::Info(names) if names.is_empty() => Reply::Array(all().map(entry).collect()),
        CommandsQuery::Info(names) => Reply::Array(names.iter().map(entry_named).collect()),
        CommandsQuery::Docs(names) if names.is_empty() => Reply::Map(all().map(docs).collect()),
        CommandsQuery::Docs(names) => Reply::Map(
            names
                .iter()
                .filter_map(lookup_resp)
                .map(|verb| docs(verb.spec()))
                .collect(),
        ),
    }
}

/// The name that always means this command in RESP.
fn resp_name(spec: &Spec) -> String {
    let name = spec.name.to_ascii_lowercase();
    match spec.home {
        Home::Native => RESP_PREFIX.to_ascii_lowercase() + &name,
        Home::Redis => name,
    }
}

/// The entry of a command, or of a subcommand, whose name has a bar in it.
fn entry_named<'a>(name: &[u8]) -> Reply<'a> {
    let mut names = name.splitn(2, |byte| *byte == b'|');
    let verb = names.next().and_then(lookup_resp);
    let Some(spec) = verb.map(Verb::spec) else {
        return Reply::Nil;
    };
    let Some(below) = names.next() else {
        return entry(spec);
    };
    let is_it = |sub: &&Subcommand| sub.name.as_bytes().eq_ignore_ascii_case(below);
    let sub =
        Container::named(spec.name).and_then(|container| container.subcommands.iter().find(is_it));
    sub.map_or(Reply::Nil, |sub| subcommand_entry(spec, sub))
}

fn entry<'a>(spec: &Spec) -> Reply<'a> {
    let container = Container::named(spec.name).filter(|_| spec.home == Home::Redis);
    let below = container.map_or(&[][..], |container| container.subcommands);
    let below = below
        .iter()
        .map(|sub| subcommand_entry(spec, sub))
        .collect();
    let words = (spec.words_min, spec.words_max);
    fields(&resp_name(spec), spec, words, spec.keys, below)
}

fn subcommand_entry<'a>(spec: &Spec, sub: &Subcommand) -> Reply<'a> {
    let name = format!("{}|{}", resp_name(spec), sub.name.to_ascii_lowercase());
    // The container's own name is one more word.
    let words = (sub.words_min + 1, sub.words_max.saturating_add(1));
    fields(&name, spec, words, sub.keys, Vec::new())
}

/// An entry: name, arity, flags, the keys' places, ACL categories, tips, the keys' places once more as
/// specifications, subcommands.
fn fields<'a>(
    name: &str,
    spec: &Spec,
    (words_min, words_max): (usize, usize),
    keys: KeyWords,
    below: Vec<Reply<'a>>,
) -> Reply<'a> {
    // Redis counts the verb; a negative number is a least one.
    let least = words_min as i64 + 1;
    let arity = if words_max == words_min {
        least
    } else {
        -least
    };
    let (mut flags, categories): (Vec<_>, &[_]) = match spec.effect {
        Effect::Read => (vec!["readonly"], &["@read"]),
        Effect::Write => (vec!["write"], &["@write"]),
        Effect::Admin => (vec!["admin"], &["@admin", "@dangerous"]),
        Effect::Connection => (vec!["fast"], &["@connection"]),
    };
    if spec.while_loading {
        flags.extend(["loading", "stale"]);
    }
    let words = |words: &[&'static str]| words.iter().map(|word| Reply::Word(word)).collect();
    Reply::Array(vec![
        Reply::text(name),
        Reply::Number(arity),
        Reply::Set(words(&flags)),
        Reply::Number(i64::from(keys.first)),
        Reply::Number(i64::from(keys.last)),
        Reply::Number(i64::from(keys.step)),
        Reply::Set(words(categories)),
        Reply::Set(Vec::new()),
        Reply::Set(key_specification(spec.effect, keys)),
        Reply::Array(below),
    ])
}

/// Where the keys are, as Redis 7 tells it: at first from the front, then a range from there.
fn key_specification<'a>(effect: Effect, keys: KeyWords) -> Vec<Reply<'a>> {
    if keys.first == 0 {
        return Vec::new();
    }
    let number = |number: i8| Reply::Number(i64::from(number));
    let map = |pairs: Vec<(&str, Reply<'a>)>| {
        let pairs = pairs.into_iter();
        Reply::Map(
            pairs
                .map(|(name, value)| (Reply::text(name), value))
                .collect(),
        )
    };
    let flags = if effect == Effect::Read {
        vec![Reply::Word("RO"), Reply::Word("access")]
    } else {
        vec![
            Reply::Word("RW"),
            Reply::Word("access"),
            Reply::Word("update"),
        ]
    };
    // From the first key if it is one, from the end of the request if it is not.
    let last = if keys.last < 0 {
        keys.last
    } else {
        keys.last - keys.first
    };
    let begins = map(vec![
        ("type", Reply::text("index")),
        ("spec", map(vec![("index", number(keys.first))])),
    ]);
    let range = map(vec![
        ("lastkey", number(last)),
        ("keystep", number(keys.step)),
        ("limit", number(0)),
    ]);
    let found = map(vec![("type", Reply::text("range")), ("spec", range)]);
    vec![map(vec![
        ("flags", Reply::Set(flags)),
        ("begin_search", begins),
        ("find_keys", found),
    ])]
}

fn docs<'a>(spec: &Spec) -> (Reply<'a>, Reply<'a>) {
    let docs = vec![
        (Reply::text("summary"), Reply::text(spec.summary)),
        (Reply::text("since"), Reply::text("0.1.0")),
        (
            Reply::text("group"),
            Reply::text(if spec.home == Home::Native {
                "onced"
            } else {
                "redis"
            }),
        ),
        (Reply::text("syntax"), Reply::text(spec.usage_line())),
    ];
    (Reply::text(resp_name(spec)), Reply::Map(docs))
}
