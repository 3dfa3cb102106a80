//! One line of an import: what it asks for, or what is wrong with it.
//!
//! Nothing here knows a server or a clock.

use serde::Deserialize;
use thiserror::Error;

use super::Format;
use crate::time::{Millis, parse_u64};

/// Below this a number of milliseconds is before 1973, and a number of seconds before 5138.
const MILLIS_MIN: u64 = 100_000_000_000;
/// Above this a number of milliseconds is beyond the year 10889, and one of microseconds after 1978.
const MILLIS_MAX: u64 = (1 << 48) - 1;
/// How much of a wrong word is shown.
const SHOWN_CHARS_MAX: usize = 40;

/// What a line asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    Put(Put),
    Space(Space),
}

/// A key to be remembered.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Put {
    pub(super) namespace: Option<String>,
    pub(super) key: Vec<u8>,
    pub(super) deadline: Option<Millis>,
    /// In hex digits; there is no value then.
    pub(super) fingerprint: Option<String>,
    pub(super) value: Option<Vec<u8>>,
}

/// A namespace to be made.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Space {
    pub(super) name: String,
    /// Names and values as `NS SET` takes them.
    pub(super) options: Vec<(&'static str, String)>,
}

/// Why a line is refused.
#[derive(Debug, Error)]
pub(super) enum Problem {
    #[error(
        "'{0}' behind the tab is no moment in Unix milliseconds; a key with a tab in it is written as a JSON line"
    )]
    NoDeadline(String),
    #[error("{0} looks like seconds; deadlines are in Unix milliseconds")]
    Seconds(u64),
    #[error("{0} is too late for Unix milliseconds; is it in microseconds?")]
    Micros(u64),
    #[error("no key")]
    NoKey,
    #[error("not a JSON line: {0}")]
    Json(String),
    #[error("a {0} cannot be loaded; take the output of 'onced log dump --live', which has none")]
    History(String),
    #[error("it is of a namespace that has a number and no name")]
    Nameless,
    #[error("{0} and {0}_hex exclude each other")]
    Twice(&'static str),
    #[error("{0}_hex is two hex digits for each byte")]
    Hex(&'static str),
    #[error("a key has a fingerprint or a value, not both")]
    FingerprintAndValue,
    #[error("an idempotency record cannot be loaded: its token is the server's that gave it")]
    Record,
    #[error("a namespace has a name")]
    Unnamed,
    /// The server said no.
    #[error("the server answered '{0}'")]
    Refused(String),
}

/// How lines are to be read, going by the first one that is not empty.
pub(super) fn guess(line: &[u8]) -> Format {
    type Fields = serde_json::Map<String, serde_json::Value>;
    let is_ours = serde_json::from_slice::<Fields>(line).is_ok_and(|fields| {
        ["op", "key", "key_hex"]
            .iter()
            .any(|name| fields.contains_key(*name))
    });
    if is_ours { Format::Json } else { Format::Keys }
}

/// What a line asks for.
pub(super) fn parse(line: &[u8], format: Format) -> Result<Line, Problem> {
    match format {
        Format::Keys => key_and_deadline(line).map(Line::Put),
        Format::Json => object(line),
    }
}

fn key_and_deadline(line: &[u8]) -> Result<Put, Problem> {
    let mut put = Put::default();
    let key = match memchr::memrchr(b'\t', line) {
        None => line,
        Some(tab) => {
            let word = &line[tab + 1..];
            let number = parse_u64(word).ok_or_else(|| Problem::NoDeadline(excerpt(word)))?;
            put.deadline = Some(deadline(number)?);
            &line[..tab]
        }
    };
    if key.contains(&b'\t') {
        let at = memchr::memchr(b'\t', key).unwrap_or_default();
        return Err(Problem::NoDeadline(excerpt(&line[at + 1..])));
    }
    if key.is_empty() {
        return Err(Problem::NoKey);
    }
    key.clone_into(&mut put.key);
    Ok(put)
}

fn deadline(number: u64) -> Result<Millis, Problem> {
    match number {
        ..MILLIS_MIN => Err(Problem::Seconds(number)),
        MILLIS_MIN..=MILLIS_MAX => Ok(Millis(number)),
        _ => Err(Problem::Micros(number)),
    }
}

/// All that lines may have; which of it belongs together depends on `op`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Object {
    op: Option<String>,
    namespace: Option<String>,
    namespace_id: Option<u32>,
    key: Option<String>,
    key_hex: Option<String>,
    deadline_ms: Option<u64>,
    fingerprint: Option<String>,
    value: Option<String>,
    value_hex: Option<String>,
    record: Option<serde::de::IgnoredAny>,
    ttl_ms: Option<u64>,
    ttl_max_ms: Option<u64>,
    mode: Option<String>,
    keys_max: Option<u64>,
    full: Option<String>,
    keys: Option<String>,
    unsure: Option<String>,
    /// Of no use here: the server's memory reaches as far as it reaches.
    #[serde(rename = "covered_since_ms")]
    _covered_since_ms: Option<u64>,
    #[serde(rename = "unsure_until_ms")]
    _unsure_until_ms: Option<u64>,
}

fn object(line: &[u8]) -> Result<Line, Problem> {
    let object: Object = serde_json::from_slice(line).map_err(|error| {
        let text = error.to_string();
        // "at line 1 column 7": which line it is is said already.
        let said = text
            .rsplit_once(" at line ")
            .map_or(&text[..], |(said, _)| said);
        Problem::Json(format!("{said} (column {})", error.column()))
    })?;
    match object.op.as_deref() {
        None | Some("put") => put(object).map(Line::Put),
        Some("namespace") => space(object).map(Line::Space),
        Some("remove") => Err(Problem::History("removal".to_owned())),
        Some("drop") => Err(Problem::History("dropped namespace".to_owned())),
        Some(other) => Err(Problem::Json(format!(
            "no op is called '{}'",
            excerpt(other.as_bytes())
        ))),
    }
}

fn put(object: Object) -> Result<Put, Problem> {
    if object.namespace_id.is_some() && object.namespace.is_none() {
        return Err(Problem::Nameless);
    }
    let key = bytes("key", object.key, object.key_hex)?.unwrap_or_default();
    if key.is_empty() {
        return Err(Problem::NoKey);
    }
    if object.record.is_some() {
        return Err(Problem::Record);
    }
    let value = bytes("value", object.value, object.value_hex)?;
    if value.is_some() && object.fingerprint.is_some() {
        return Err(Problem::FingerprintAndValue);
    }
    Ok(Put {
        namespace: object.namespace,
        key,
        deadline: object.deadline_ms.map(deadline).transpose()?,
        fingerprint: object.fingerprint,
        value,
    })
}

fn space(object: Object) -> Result<Space, Problem> {
    let duration = |ms: Option<u64>| ms.map(|ms| format!("{ms}ms"));
    let options = [
        ("TTL", duration(object.ttl_ms)),
        ("MAXTTL", duration(object.ttl_max_ms)),
        ("MODE", object.mode),
        ("MAXKEYS", object.keys_max.map(|keys| keys.to_string())),
        ("FULL", object.full),
        ("KEYS", object.keys),
        ("UNSURE", object.unsure),
    ];
    let given = options.into_iter();
    Ok(Space {
        name: object.namespace.ok_or(Problem::Unnamed)?,
        options: given
            .filter_map(|(name, value)| Some((name, value?)))
            .collect(),
    })
}

fn bytes(
    name: &'static str,
    text: Option<String>,
    hex: Option<String>,
) -> Result<Option<Vec<u8>>, Problem> {
    match (text, hex) {
        (Some(_), Some(_)) => Err(Problem::Twice(name)),
        (text, None) => Ok(text.map(String::into_bytes)),
        (None, Some(hex)) => {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            let pairs = hex.as_bytes().chunks(2).map(|pair| match pair {
                [high, low] => Some((digit(*high)? << 4 | digit(*low)?) as u8),
                _ => None,
            });
            let bytes: Option<Vec<u8>> = pairs.collect();
            bytes.ok_or(Problem::Hex(name)).map(Some)
        }
    }
}

fn excerpt(word: &[u8]) -> String {
    let text = word.escape_ascii().to_string();
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        None => text,
        Some((at, _)) => format!("{}...", &text[..at]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(line: &[u8], format: Format) -> Put {
        match parse(line, format).unwrap() {
            Line::Put(put) => put,
            Line::Space(space) => panic!("{space:?}"),
        }
    }

    fn refusal(line: &[u8], format: Format) -> String {
        parse(line, format).unwrap_err().to_string()
    }

    #[test]
    fn keys_are_any_bytes_and_may_have_a_deadline() {
        for (line, key, deadline) in [
            (&b"a"[..], &b"a"[..], None),
            (b" a b ", b" a b ", None),
            (b"\xff\0", b"\xff\0", None),
            (b"a\t1767225600000", b"a", Some(1_767_225_600_000)),
        ] {
            let read = put(line, Format::Keys);
            assert_eq!(read.key, key);
            assert_eq!(read.deadline, deadline.map(Millis));
        }
    }

    #[test]
    fn what_is_no_deadline_in_milliseconds_is_told_apart() {
        for (line, words) in [
            (&b"a\t1767225600"[..], "1767225600 looks like seconds"),
            (b"a\t1767225600000000", "microseconds"),
            (b"a\tsoon", "'soon' behind the tab"),
            (b"a\tb\t1767225600000", "'b\\t1767225600000' behind the tab"),
            (b"a\t", "'' behind the tab"),
            (b"\t1767225600000", "no key"),
        ] {
            let refusal = refusal(line, Format::Keys);
            assert!(refusal.contains(words), "{refusal}");
        }
    }

    #[test]
    fn json_lines_say_what_dump_says() {
        let read = put(
            br#"{"op":"put","namespace":"orders","key_hex":"00fF","deadline_ms":1767225600000,"value_hex":""}"#,
            Format::Json,
        );
        let expected = Put {
            namespace: Some("orders".to_owned()),
            key: vec![0, 0xff],
            deadline: Some(Millis(1_767_225_600_000)),
            fingerprint: None,
            value: Some(Vec::new()),
        };
        assert_eq!(read, expected);
        let space = br#"{"op":"namespace","namespace":"n","ttl_ms":5,"keys_max":0,"full":"evict"}"#;
        let Line::Space(space) = parse(space, Format::Json).unwrap() else {
            panic!("not a namespace");
        };
        let options = [("TTL", "5ms"), ("MAXKEYS", "0"), ("FULL", "evict")];
        assert_eq!(
            space.options,
            options.map(|(name, value)| (name, value.to_owned()))
        );
        for (line, words) in [
            (&br#"{"key":"a","deadline":1}"#[..], "unknown field"),
            (br#"{"key":"a","key_hex":"61"}"#, "exclude each other"),
            (br#"{"key_hex":"6"}"#, "two hex digits"),
            (br#"{"op":"put"}"#, "no key"),
            (br#"{"op":"remove","key":"a"}"#, "--live"),
            (br#"{"op":"x","key":"a"}"#, "'x'"),
            (br#"{"namespace_id":3,"key":"a"}"#, "no name"),
            (br#"{"key":"a","value":"b","fingerprint":"c"}"#, "not both"),
            (br#"{"key":"a","record":{"state":"released"}}"#, "record"),
            (b"{\"key\":\"\xff\"}", "column"),
            (b"a", "not a JSON line"),
        ] {
            let refusal = refusal(line, Format::Json);
            assert!(refusal.contains(words), "{refusal}");
        }
    }

    #[test]
    fn the_first_line_tells_how_lines_are_to_be_read() {
        for (line, format) in [
            (&br#"{"key":"a"}"#[..], Format::Json),
            (br#"{"op":"namespace"}"#, Format::Json),
            (br#"{"order":17}"#, Format::Keys),
            (b"{", Format::Keys),
            (b"a", Format::Keys),
        ] {
            assert_eq!(guess(line), format);
        }
    }
}
