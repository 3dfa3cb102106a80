//! How words become commands in this protocol's own manner.
//!
//! Fixed words come first; options follow in any order, as `NAME value` or as a flag.

#![allow(
    clippy::unnecessary_wraps,
    reason = "the build functions share one signature"
)]

use super::{Args, Command, Error, PolicyChange, Seen, SessionCommand, Single, Ttl, Words};
use crate::limits::{FINGERPRINT_DIGITS_MAX, Limits, NAMESPACE_NAME_FORM, is_namespace_name};
use crate::store::{Fingerprint, WindowMode};
use crate::time::{DurationError, DurationWord, Millis, parse_duration_ms, parse_u64};

type Built<'a> = Result<Command<'a>, Error>;

pub(super) fn seen<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    let mut seen = Seen {
        key: key(args.get(0), limits)?,
        ttl: Ttl::Default,
        mode: None,
        fingerprint: None,
        event_at: None,
        namespace: None,
    };
    let mut fixed = 1;
    if let Some(word) = args.find(1).filter(|word| !is_seen_option(word)) {
        seen.ttl = ttl(word)?;
        fixed = 2;
    }
    let mut options = Options::after(args, fixed);
    while let Some(name) = options.next() {
        if name.is("SLIDE") || name.is("FIXED") {
            once(seen.mode.is_none(), &name)?;
            seen.mode = Some(if name.is("SLIDE") {
                WindowMode::Slide
            } else {
                WindowMode::Fixed
            });
        } else if name.is("FP") {
            once(seen.fingerprint.is_none(), &name)?;
            seen.fingerprint = Some(fingerprint(options.value(&name)?)?);
        } else if name.is("AT") {
            once(seen.event_at.is_none(), &name)?;
            seen.event_at = Some(unix_ms(options.value(&name)?)?);
        } else if name.is("NS") {
            once(seen.namespace.is_none(), &name)?;
            seen.namespace = Some(namespace_name(options.value(&name)?)?);
        } else {
            return Err(name.unknown("SLIDE, FIXED, FP hex, AT unixms or NS name"));
        }
    }
    Ok(Command::Seen(seen))
}

fn is_seen_option(word: &[u8]) -> bool {
    // What stands there as a rule is a ttl.
    !word.first().is_some_and(u8::is_ascii_digit)
        && ["SLIDE", "FIXED", "FP", "AT", "NS"]
            .iter()
            .any(|name| word.eq_ignore_ascii_case(name.as_bytes()))
}

pub(super) fn mseen<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    let ttl = ttl(args.get(0))?;
    Ok(Command::MSeen {
        ttl,
        keys: keys(args.rest(1), limits)?,
    })
}

pub(super) fn peek<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    Ok(Command::Peek {
        keys: keys(args.rest(0), limits)?,
    })
}

pub(super) fn forget<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    Ok(Command::Forget {
        keys: keys(args.rest(0), limits)?,
    })
}

pub(super) fn touch<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    let ttl = ttl(args.get(1))?;
    let mut later_only = false;
    let mut namespace = None;
    let mut options = Options::after(args, 2);
    while let Some(name) = options.next() {
        if name.is("GT") {
            once(!later_only, &name)?;
            later_only = true;
        } else if name.is("NS") {
            once(namespace.is_none(), &name)?;
            namespace = Some(namespace_name(options.value(&name)?)?);
        } else {
            return Err(name.unknown("GT or NS name"));
        }
    }
    Ok(Command::Touch {
        at: Single {
            key: key(args.get(0), limits)?,
            namespace,
        },
        ttl,
        later_only,
    })
}

/// A key and its namespace, as every verb with a single key takes them.
fn single<'a>(args: &Args<'a>, limits: &Limits) -> Result<Single<'a>, Error> {
    let mut namespace = None;
    let mut options = Options::after(args, 1);
    while let Some(name) = options.next() {
        if !name.is("NS") {
            return Err(name.unknown("NS name"));
        }
        once(namespace.is_none(), &name)?;
        namespace = Some(namespace_name(options.value(&name)?)?);
    }
    Ok(Single {
        key: key(args.get(0), limits)?,
        namespace,
    })
}

pub(super) fn inspect<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    Ok(Command::Inspect {
        at: single(args, limits)?,
    })
}

pub(super) fn use_namespace<'a>(args: &Args<'a>, _: &Limits) -> Built<'a> {
    Ok(Command::Use {
        name: namespace_name(args.get(0))?,
    })
}

pub(super) fn namespace<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    let what = Name(args.get(0));
    let words = args.len() - 1;
    if what.is("LIST") && words == 0 {
        return Ok(Command::NsList);
    }
    let usage = "usage: NS LIST, NS INFO name, NS SET name [options], NS PURGE name [FORCE], NS DROP name [FORCE]";
    if words == 0 {
        return Err(Error::args(usage));
    }
    let name = namespace_name(args.get(1))?;
    if what.is("SET") {
        let (change, covered) = ns_options(args, limits)?;
        return Ok(Command::NsSet {
            name,
            change,
            covered,
        });
    }
    match words {
        1 if what.is("INFO") => Ok(Command::NsInfo { name }),
        1 | 2 if what.is("PURGE") || what.is("DROP") => {
            let force = match args.find(2).map(Name) {
                None => false,
                Some(word) if word.is("FORCE") => true,
                Some(word) => return Err(word.unknown("FORCE")),
            };
            Ok(if what.is("PURGE") {
                Command::NsPurge { name, force }
            } else {
                Command::NsDrop { name, force }
            })
        }
        _ => Err(Error::args(usage)),
    }
}

/// The options of `NS SET`: what changes of the policy, and whether `COVERED` was among them.
fn ns_options(args: &Args<'_>, limits: &Limits) -> Result<(PolicyChange, bool), Error> {
    let mut change = PolicyChange::default();
    let mut covered = false;
    let mut options = Options::after(args, 2);
    while let Some(name) = options.next() {
        if name.is("COVERED") {
            once(!covered, &name)?;
            covered = true;
            continue;
        }
        if !["TTL", "MAXTTL", "MODE", "MAXKEYS", "FULL", "KEYS", "UNSURE"]
            .iter()
            .any(|known| name.is(known))
        {
            return Err(name.unknown(
                "TTL d, MAXTTL d, MODE FIXED|SLIDE, MAXKEYS n, FULL REJECT|EVICT, KEYS EXACT|DIGEST, UNSURE NEW|REPORT or COVERED",
            ));
        }
        let value = options.value(&name)?;
        if name.is("TTL") {
            once(change.ttl_ms.is_none(), &name)?;
            change.ttl_ms = Some(bounded_ms(value, limits)?);
        } else if name.is("MAXTTL") {
            once(change.ttl_max_ms.is_none(), &name)?;
            change.ttl_max_ms = Some(bounded_ms(value, limits)?);
        } else if name.is("MODE") {
            once(change.mode.is_none(), &name)?;
            let slides = choice(value, "MODE", ["FIXED", "SLIDE"])?;
            change.mode = Some(if slides {
                WindowMode::Slide
            } else {
                WindowMode::Fixed
            });
        } else if name.is("MAXKEYS") {
            once(change.keys_max.is_none(), &name)?;
            let n = parse_u64(value)
                .ok_or_else(|| Error::args("MAXKEYS takes a number of keys, 0 for no limit"))?;
            change.keys_max = Some(n);
        } else if name.is("FULL") {
            once(change.evict.is_none(), &name)?;
            change.evict = Some(choice(value, "FULL", ["REJECT", "EVICT"])?);
        } else if name.is("KEYS") {
            once(change.keeps_digests.is_none(), &name)?;
            change.keeps_digests = Some(choice(value, "KEYS", ["EXACT", "DIGEST"])?);
        } else {
            once(change.reports_unsure.is_none(), &name)?;
            change.reports_unsure = Some(choice(value, "UNSURE", ["NEW", "REPORT"])?);
        }
    }
    Ok((change, covered))
}

fn bounded_ms(word: &[u8], limits: &Limits) -> Result<u64, Error> {
    match ttl_word(word)? {
        ms if ms > limits.ttl_max_ms => Err(Error::range(format!(
            "the server's longest ttl is {}",
            DurationWord(limits.ttl_max_ms)
        ))),
        ms => Ok(ms),
    }
}

/// Whether the second of two words was chosen.
fn choice(value: &[u8], option: &str, [no, yes]: [&str; 2]) -> Result<bool, Error> {
    match Name(value) {
        name if name.is(no) => Ok(false),
        name if name.is(yes) => Ok(true),
        _ => Err(Error::args(format!("{option} is {no} or {yes}"))),
    }
}

pub(super) fn stats<'a>(args: &Args<'a>, _: &Limits) -> Built<'a> {
    Ok(Command::Stats {
        name: args.find(0).map(namespace_name).transpose()?,
    })
}

pub(super) fn ping<'a>(args: &Args<'a>, _: &Limits) -> Built<'a> {
    Ok(Command::Session(SessionCommand::Ping {
        word: args.find(0),
    }))
}

pub(super) fn ttl_left<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    Ok(Command::TtlLeft {
        at: single(args, limits)?,
    })
}

pub(super) fn time<'a>(_: &Args<'a>, _: &Limits) -> Built<'a> {
    Ok(Command::UnixMs)
}

pub(super) fn version<'a>(_: &Args<'a>, _: &Limits) -> Built<'a> {
    Ok(Command::Version)
}

pub(super) fn help<'a>(args: &Args<'a>, _: &Limits) -> Built<'a> {
    Ok(Command::Help { verb: args.find(0) })
}

pub(super) fn quit<'a>(_: &Args<'a>, _: &Limits) -> Built<'a> {
    Ok(Command::Session(SessionCommand::Quit))
}

/// A key within its bounds.
pub(super) fn key<'a>(word: &'a [u8], limits: &Limits) -> Result<&'a [u8], Error> {
    if word.is_empty() {
        return Err(Error::args("a key has at least one byte"));
    }
    if word.len() > limits.key_bytes_max {
        return Err(Error::too_big(format!(
            "the key has {} bytes; the longest is {}",
            word.len(),
            limits.key_bytes_max
        )));
    }
    Ok(word)
}

/// A batch of keys within its bounds, each of them checked before the first is executed.
pub(super) fn keys<'a>(words: Words<'a>, limits: &Limits) -> Result<Words<'a>, Error> {
    if words.len() > limits.batch_keys_max {
        let (n, max) = (words.len(), limits.batch_keys_max);
        return Err(Error::too_big(format!(
            "{n} keys in one request; the most are {max}"
        )));
    }
    let fits = |len| (1..=limits.key_bytes_max).contains(&len);
    if !words.lengths().all(fits) {
        // Once more, to say which rule is broken first.
        for word in words.iter() {
            key(word, limits)?;
        }
    }
    Ok(words)
}

/// A namespace's name.
pub(super) fn namespace_name(word: &[u8]) -> Result<&[u8], Error> {
    if !is_namespace_name(word) {
        return Err(Error::args(format!(
            "a namespace's name is {NAMESPACE_NAME_FORM}"
        )));
    }
    Ok(word)
}

pub(super) fn ttl_word(word: &[u8]) -> Result<u64, Error> {
    match parse_duration_ms(word) {
        Ok(0) => Err(Error::range("a ttl is at least 1ms")),
        Ok(ms) => Ok(ms),
        Err(error @ DurationError::Overflow) => Err(Error::range(error.to_string())),
        Err(_) if word.starts_with(b"-") => Err(Error::range("a ttl is not negative")),
        Err(error) => Err(Error::args(error.to_string())),
    }
}

pub(super) fn ttl(word: &[u8]) -> Result<Ttl, Error> {
    if word == b"-" {
        Ok(Ttl::Default)
    } else {
        ttl_word(word).map(Ttl::Ms)
    }
}

pub(super) fn sync<'a>(_: &Args<'a>, _: &Limits) -> Built<'a> {
    Ok(Command::Session(SessionCommand::Sync))
}

pub(super) fn fingerprint(word: &[u8]) -> Result<Fingerprint, Error> {
    let refused = || Error::args(format!("FP takes 1 to {FINGERPRINT_DIGITS_MAX} hex digits"));
    if word.is_empty() || word.len() > FINGERPRINT_DIGITS_MAX {
        return Err(refused());
    }
    let mut value = 0;
    for &digit in word {
        let digit = char::from(digit).to_digit(16).ok_or_else(refused)?;
        value = value << 4 | u128::from(digit);
    }
    Ok(Fingerprint {
        value,
        digits: word.len() as u8,
    })
}

fn unix_ms(word: &[u8]) -> Result<Millis, Error> {
    parse_u64(word)
        .map(Millis)
        .ok_or_else(|| Error::args("AT takes a moment in Unix milliseconds"))
}

/// The name of an option, and how to say that it is none.
pub(super) struct Name<'a>(pub(super) &'a [u8]);

impl Name<'_> {
    pub(super) fn is(&self, name: &str) -> bool {
        self.0.eq_ignore_ascii_case(name.as_bytes())
    }

    pub(super) fn unknown(&self, expected: &str) -> Error {
        Error::args(format!(
            "unknown option {}; expected {expected}",
            printable(self.0)
        ))
    }
}

/// Options behind the fixed words.
pub(super) struct Options<'a> {
    words: Args<'a>,
    next: usize,
}

impl<'a> Options<'a> {
    pub(super) fn after(args: &Args<'a>, fixed: usize) -> Self {
        Self {
            words: *args,
            next: fixed,
        }
    }

    pub(super) fn next(&mut self) -> Option<Name<'a>> {
        self.word().map(Name)
    }

    pub(super) fn value(&mut self, name: &Name<'_>) -> Result<&'a [u8], Error> {
        self.word()
            .ok_or_else(|| Error::args(format!("{} needs a value", printable(name.0))))
    }

    fn word(&mut self) -> Option<&'a [u8]> {
        let word = self.words.find(self.next)?;
        self.next += 1;
        Some(word)
    }
}

pub(super) fn once(first: bool, name: &Name<'_>) -> Result<(), Error> {
    if first {
        Ok(())
    } else {
        Err(Error::args(format!(
            "{} is given twice, or contradicts another option",
            printable(name.0)
        )))
    }
}

/// A client's word as it may stand in an error: printable, short, on one line.
pub(crate) fn printable(word: &[u8]) -> String {
    const SHOWN_MAX: usize = 40;
    let shown = &word[..word.len().min(SHOWN_MAX)];
    let dots = if word.len() > SHOWN_MAX { "..." } else { "" };
    format!("'{}'{dots}", shown.escape_ascii())
}
