//! The same random sequences of requests to a redis-server and to onced: the replies are the same.
//!
//! A sequence has a few keys, options in random combinations, numbers that are none or too large, words too
//! many and too few, transactions; it is sent in RESP2 or RESP3, request by request or as one pipeline.
//! What differs on purpose is one of [`DIFFERENCES`], each a sentence of protocol.md.
//!
//! Redis 7.0 is what Debian has. Its words are those of 7.4 in all that is compared, but for
//! [`is_old_cursor`]. `SET … IFEQ` and `DELIFEQ` are compared with a Valkey of 9.0 or later, and `DELEX`, which
//! only Redis 8.4 has, with nothing.
//!
//! `ONCED_DIFFERENTIAL=20000` compares so many sequences, `ONCED_SEED=7` begins at that seed; a failure says
//! which one to replay, and is cut down before it is shown. Without its server a test is skipped, unless
//! `ONCED_PEERS=required`, as in `.ci/run`. `ONCED_REDIS_SERVER` and `ONCED_VALKEY_SERVER` name other programs.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use common::lock_scripts::{LOCK_SCRIPTS, LockScript};
use common::process::{Dice, Scratch};
use common::scenario::unix_ms;
use common::{PATIENCE, TestServer, eventually};
use onced::command::spec::{Home, Verb, verbs};
use sha1::{Digest, Sha1};

/// Sequences in short.
const SEQUENCES: u64 = 2_000;
/// The longest life of a key, in seconds, and here also the one of keys that name none.
const LONGEST_S: i64 = 3_650 * 86_400;
/// How far apart both clocks' readings may be.
const CLOCKS_APART_MS: u64 = 2_000;

/// What protocol.md says is not as in Redis, as far as these sequences meet it, and what is done about it here.
const DIFFERENCES: &[(&str, &str)] = &[
    (
        "the key lives for the namespace's TTL",
        "Redis is told `EXPIRE key LONGEST LT` behind every request that may leave a key without an end",
    ),
    (
        "An expiry beyond the namespace's longest TTL is clamped to it, without an error.",
        "the same",
    ),
    (
        "A key has at least one byte",
        "no request names an empty key",
    ),
    (
        "`OBJECT REFCOUNT` answers 1, `IDLETIME` 0",
        "any number is as good as another",
    ),
    (
        "Where an error repeats a word, bytes that are not printable are escaped",
        "of a request with such bytes, any error is as good as another",
    ),
    (
        "Cursors are opaque",
        "what is told from any other than 0 is not compared",
    ),
    ("`KEYS` and `SCAN` list in another order", "both are sorted"),
    (
        "A key and a set of the same name do not know each other",
        "sets have names that no string has",
    ),
    (
        "`SCAN`, `KEYS` and `DBSIZE` do not have sets",
        "where there are sets, these are not asked",
    ),
    (
        "the words of `SSCAN` are checked all the same",
        "those that are sent are right",
    ),
    (
        "without the place in the script",
        "what Redis says of the place is cut off",
    ),
    (
        "A script whose amount is no number, or none of use, changes nothing",
        "scripts that store before they look at their amount get one that is of use",
    ),
];

/// Where Redis 7.0 answers otherwise than its successors: a cursor that is empty, has a minus or a NUL is none.
fn is_old_cursor(words: &Words, theirs: &Reply, ours: &Reply) -> bool {
    let is_none = |word: &Vec<u8>| word.is_empty() || word.starts_with(b"-") || word.contains(&0);
    words[0].eq_ignore_ascii_case(b"SCAN")
        && words.get(1).is_some_and(is_none)
        && !theirs.is_error()
        && ours.is("-ERR invalid cursor")
}

/// Commands that are not compared, and why.
const NOT_COMPARED: &[(&str, &str)] = &[
    ("DELEX", "Redis 7 has none"),
    ("DELIFEQ", "Redis 7 has none; Valkey does"),
    ("BF.ADD", "a module"),
    ("BF.MADD", "a module"),
    ("BF.EXISTS", "a module"),
    ("BF.MEXISTS", "a module"),
    ("BF.RESERVE", "a module"),
    ("BF.INSERT", "a module"),
    ("BF.CARD", "a module"),
    ("BF.INFO", "a module"),
];

/// Commands of which only refusals are compared: what they tell is each server's own.
const OWN_TALES: &[&str] = &[
    "HELLO",
    "COMMAND",
    "CONFIG",
    "INFO",
    "TIME",
    "CLIENT ID",
    "CLIENT INFO",
    "CLIENT LIST",
    "CLIENT HELP",
    "SCRIPT HELP",
    "MEMORY",
    "LATENCY",
    "SLOWLOG",
];

/// Whether a request is one of these.
fn is_own_tale(words: &Words) -> bool {
    let line = words.join(&b' ').to_ascii_uppercase();
    let begins = |tale: &&str| line.starts_with(tale.as_bytes());
    OWN_TALES.iter().any(begins)
}

type Words = Vec<Vec<u8>>;

/// One reply; equal where its bytes are.
#[derive(Clone, PartialEq)]
enum Reply {
    /// A simple string, an error, a number, a boolean, a null: the line.
    Line(String),
    Bulk(Vec<u8>),
    /// An array, a map, a set: its first byte, and the items.
    Many(u8, Vec<Reply>),
    Closed,
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => f.write_str(line),
            Self::Bulk(bytes) => write!(f, "\"{}\"", bytes.escape_ascii()),
            Self::Many(kind, items) => write!(f, "{}{items:?}", char::from(*kind)),
            Self::Closed => f.write_str("(closed)"),
        }
    }
}

impl Reply {
    fn number(&self) -> Option<i64> {
        match self {
            Self::Line(line) => line.strip_prefix(':')?.parse().ok(),
            _ => None,
        }
    }

    fn is_error(&self) -> bool {
        matches!(self, Self::Line(line) if line.starts_with('-'))
    }

    fn is(&self, line: &str) -> bool {
        matches!(self, Self::Line(told) if told == line)
    }
}

/// A connection to either server.
struct Peer {
    reader: BufReader<Box<dyn Read>>,
    writer: Box<dyn Write>,
}

impl Peer {
    fn tcp(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream.try_clone().unwrap(), stream)
    }

    fn unix(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self::over(stream.try_clone().unwrap(), stream)
    }

    fn over(writer: impl Write + 'static, reader: impl Read + 'static) -> Self {
        Self {
            reader: BufReader::new(Box::new(reader)),
            writer: Box::new(writer),
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        // The other side may have closed after a QUIT; what is read tells.
        let _may_be_closed = self.writer.write_all(bytes);
    }

    fn reply(&mut self) -> Reply {
        let mut line = Vec::new();
        match self.reader.read_until(b'\n', &mut line) {
            Ok(0) => return Reply::Closed,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {
                return Reply::Closed;
            }
            read => drop(read.unwrap()),
        }
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        let length = line[1..].parse::<usize>().ok();
        match (line.as_bytes()[0], length) {
            (b'$' | b'=', Some(length)) => {
                let mut bytes = vec![0; length + 2];
                self.reader.read_exact(&mut bytes).unwrap();
                bytes.truncate(bytes.len() - 2);
                Reply::Bulk(bytes)
            }
            (kind @ (b'*' | b'~' | b'%'), Some(length)) => {
                let items = length * if kind == b'%' { 2 } else { 1 };
                Reply::Many(kind, (0..items).map(|_| self.reply()).collect())
            }
            _ => Reply::Line(line),
        }
    }

    fn call(&mut self, words: &[&str]) -> Reply {
        let words: Words = words.iter().map(|word| word.as_bytes().to_vec()).collect();
        self.send(&request(&words));
        self.reply()
    }
}

fn request(words: &Words) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        write!(bytes, "${}\r\n", word.len()).unwrap();
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// Says why there is nothing to compare with, which is a failure where there has to be.
fn skipped(why: &str) {
    let is_required = std::env::var("ONCED_PEERS").is_ok_and(|peers| peers == "required");
    assert!(!is_required, "{why}");
    eprintln!("SKIPPED: {why}");
}

/// A redis-server of this test's own, which ends with it.
struct Redis {
    child: Child,
    scratch: Scratch,
}

impl Redis {
    /// `None`, and a word about it, where there is none.
    fn start(variable: &str, name: &str) -> Option<Self> {
        let scratch = Scratch::new("redis");
        let socket = scratch.join("redis.sock");
        let program = std::env::var(variable).unwrap_or_else(|_| name.to_owned());
        let started = Command::new(&program)
            .args([
                "--port",
                "0",
                "--save",
                "",
                "--appendonly",
                "no",
                "--databases",
                "1024",
            ])
            .arg("--dir")
            .arg(scratch.path())
            .arg("--unixsocket")
            .arg(&socket)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(child) = started else {
            skipped(&format!("there is no {program} to compare with"));
            return None;
        };
        let redis = Self { child, scratch };
        eventually("redis-server listens", || {
            UnixStream::connect(&socket).is_ok()
        });
        Some(redis)
    }

    fn connect(&self) -> Peer {
        Peer::unix(UnixStream::connect(self.scratch.join("redis.sock")).unwrap())
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _it_may_have_ended = self.child.kill();
        let _it_was_started = self.child.wait();
    }
}

/// Both servers.
struct Pair {
    redis: Redis,
    onced: TestServer,
}

impl Pair {
    fn with(redis: Redis) -> Self {
        let onced = TestServer::with(|raw| {
            raw.default_ttl = Some("3650d".to_owned());
            raw.max_ttl = Some("3650d".to_owned());
        });
        Self { redis, onced }
    }

    /// Compares sequences, as many as the environment says, and shows those in which they differ.
    fn compare(&self, write: impl Fn(u64) -> Sequence) {
        let number = |name: &str| {
            let number = std::env::var(name).ok();
            number.map(|number| number.parse().unwrap())
        };
        let from = number("ONCED_SEED").unwrap_or(1);
        let sequences = number("ONCED_DIFFERENTIAL").unwrap_or(SEQUENCES);
        let mut failures = Vec::new();
        for seed in from..from + sequences {
            let sequence = write(seed);
            if self.differ(&sequence).is_some() {
                let least = sequence.cut_down(self);
                // A difference that does not come again is one of two moments.
                if let Some(transcript) = self.differ(&least) {
                    let resp = least.resp;
                    failures.push(format!(
                        "ONCED_SEED={seed} ONCED_DIFFERENTIAL=1 (RESP{resp}):\n{transcript}"
                    ));
                }
            }
            if failures.len() >= 10 {
                break;
            }
        }
        assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    }

    /// Sends a sequence to both; where they differ, what was sent and what each said.
    fn differ(&self, sequence: &Sequence) -> Option<String> {
        let (mut redis, mut onced) = (self.redis.connect(), Peer::tcp(&self.onced.address));
        for peer in [&mut redis, &mut onced] {
            assert!(peer.call(&["FLUSHALL"]).is("+OK"));
            assert!(peer.call(&["SCRIPT", "FLUSH"]).is("+OK"));
            if sequence.resp == 3 {
                peer.call(&["HELLO", "3"]);
            }
        }
        let mut transcript = String::new();
        let mut queued = VecDeque::new();
        for pipeline in sequence.requests.chunks(sequence.together) {
            let (mut to_redis, mut to_onced) = (Vec::new(), Vec::new());
            for words in pipeline {
                to_onced.extend(request(words));
                to_redis.extend(request(words));
                to_redis.extend(bounding(words).iter().flat_map(request));
            }
            redis.send(&to_redis);
            onced.send(&to_onced);
            for words in pipeline {
                let (mut theirs, ours) = (redis.reply(), onced.reply());
                if theirs == Reply::Closed && ours == theirs {
                    return None;
                }
                let name = String::from_utf8_lossy(&words[0]).to_ascii_uppercase();
                if theirs.is("+QUEUED") {
                    queued.push_back(Some(words.clone()));
                }
                for _ in bounding(words) {
                    if redis.reply().is("+QUEUED") {
                        queued.push_back(None);
                    }
                }
                let is_same = match &mut theirs {
                    Reply::Many(_, answers) if name == "EXEC" => {
                        // Those to what was added are not of the sequence.
                        let mut asked = queued.iter();
                        answers.retain(|_| asked.next().is_some_and(Option::is_some));
                        let asked: Vec<_> = queued.drain(..).flatten().collect();
                        match &ours {
                            Reply::Many(_, ours) if ours.len() == answers.len() => {
                                let pairs = answers.iter().zip(ours);
                                pairs
                                    .zip(&asked)
                                    .all(|((a, b), words)| are_same(words, a, b))
                            }
                            _ => false,
                        }
                    }
                    theirs => are_same(words, theirs, &ours),
                };
                if ["EXEC", "DISCARD", "RESET"].contains(&&*name) && !theirs.is_error()
                    || matches!(&theirs, Reply::Line(line) if line.starts_with("-EXECABORT"))
                {
                    queued.clear();
                }
                let shown = words
                    .iter()
                    .map(|word| format!("\"{}\"", word.escape_ascii()));
                writeln!(transcript, "{}", shown.collect::<Vec<_>>().join(" ")).unwrap();
                if !is_same {
                    write!(transcript, "  redis: {theirs:?}\n  onced: {ours:?}").unwrap();
                    return Some(transcript);
                }
            }
        }
        None
    }
}

/// What Redis is told behind a request, so that no key lives for longer than onced lets it.
fn bounding(words: &Words) -> Vec<Words> {
    const LEAVE_LONGER: [&[u8]; 15] = [
        b"SET",
        b"SETNX",
        b"SETEX",
        b"PSETEX",
        b"GETSET",
        b"GETEX",
        b"EXPIRE",
        b"PEXPIRE",
        b"EXPIREAT",
        b"PEXPIREAT",
        b"PERSIST",
        b"INCR",
        b"INCRBY",
        b"DECR",
        b"DECRBY",
    ];
    let name = words[0].to_ascii_uppercase();
    let keys: Vec<_> = if name.starts_with(b"MSET") {
        words[1..].iter().step_by(2).collect()
    } else if LEAVE_LONGER.contains(&&name[..]) {
        words.get(1).into_iter().collect()
    } else {
        Vec::new()
    };
    let longest = LONGEST_S.to_string().into_bytes();
    let bound = |key: &Vec<u8>| {
        let mut bound = vec![b"EXPIRE".to_vec(), key.clone(), longest.clone()];
        // A set may have no end.
        if SETS.iter().any(|set| set.as_bytes() == &key[..]) {
            bound.push(b"XX".to_vec());
        }
        bound.push(b"LT".to_vec());
        bound
    };
    keys.into_iter().map(bound).collect()
}

/// Whether two replies to a request are the same, but for what may differ.
fn are_same(words: &Words, theirs: &Reply, ours: &Reply) -> bool {
    if theirs == ours {
        return true;
    }
    let name = String::from_utf8_lossy(&words[0]).to_ascii_uppercase();
    let name = &*name;
    let is_shown = words
        .iter()
        .flatten()
        .all(|byte| byte.is_ascii_graphic() || *byte == b' ');
    if !is_shown && theirs.is_error() && ours.is_error() {
        return true;
    }
    if is_old_cursor(words, theirs, ours) {
        return true;
    }
    if ["EVAL", "EVALSHA"].contains(&name) {
        return say_same_of_script(theirs, ours);
    }
    if is_later_than_longest(words) && theirs.is(":1") && ours.is(":0") {
        return true;
    }
    let tolerance = match name {
        "TTL" | "EXPIRETIME" => CLOCKS_APART_MS / 1_000,
        "PTTL" | "PEXPIRETIME" => CLOCKS_APART_MS,
        _ => 0,
    };
    if tolerance > 0
        && let (Some(theirs), Some(ours)) = (theirs.number(), ours.number())
    {
        return theirs > 1_000 && theirs.abs_diff(ours) <= tolerance;
    }
    match (name, theirs, ours) {
        ("KEYS", Reply::Many(_, theirs), Reply::Many(_, ours)) => sorted(theirs) == sorted(ours),
        ("SMEMBERS", Reply::Many(kind, theirs), Reply::Many(as_ours, ours)) => {
            kind == as_ours && sorted(theirs) == sorted(ours)
        }
        ("SCAN", Reply::Many(..), Reply::Many(..)) if words[1] != b"0" => true,
        ("SCAN" | "SSCAN", Reply::Many(_, theirs), Reply::Many(_, ours)) => {
            theirs.len() == 2
                && ours.len() == 2
                && theirs[0] == ours[0]
                && matches!((&theirs[1], &ours[1]), (Reply::Many(_, theirs), Reply::Many(_, ours))
                    if sorted(theirs) == sorted(ours))
        }
        ("OBJECT", theirs, ours) => theirs.number().is_some() && ours.number().is_some(),
        _ => is_own_tale(words) && !theirs.is_error() && !ours.is_error(),
    }
}

/// Whether a script returned the same; how long a key still lives is told a moment later.
fn say_same_of_script(theirs: &Reply, ours: &Reply) -> bool {
    match (theirs, ours) {
        (Reply::Many(_, theirs), Reply::Many(_, ours)) => {
            let pairs = theirs.iter().zip(ours);
            theirs.len() == ours.len()
                && pairs
                    .into_iter()
                    .all(|(a, b)| a == b || say_same_of_script(a, b))
        }
        (Reply::Line(line), _) if theirs.is_error() => {
            let place = line.find(" script: ").unwrap_or(line.len());
            ours.is(&line[..place])
        }
        _ => matches!((theirs.number(), ours.number()), (Some(theirs), Some(ours))
            if theirs > 1_000 && theirs.abs_diff(ours) <= CLOCKS_APART_MS),
    }
}

/// Whether a request is to move an end that may be the latest there is to a later one, if it is later.
fn is_later_than_longest(words: &Words) -> bool {
    let Some(amount) = words.get(2) else {
        return false;
    };
    let amount = String::from_utf8_lossy(amount).parse::<i64>();
    let beyond = if words[0].to_ascii_uppercase().starts_with(b"P") {
        100_000_000_000_000
    } else {
        99_999_999_999
    };
    amount.is_ok_and(|amount| amount >= beyond)
        && words[3..]
            .iter()
            .any(|word| word.eq_ignore_ascii_case(b"GT"))
}

fn sorted(items: &[Reply]) -> Vec<String> {
    let mut items: Vec<_> = items.iter().map(|item| format!("{item:?}")).collect();
    items.sort();
    items
}

/// What is sent, and how.
#[derive(Clone)]
struct Sequence {
    resp: u8,
    /// Requests of one pipeline.
    together: usize,
    requests: Vec<Words>,
}

impl Sequence {
    fn of(seed: u64, request: impl Fn(&mut Writer) -> Words) -> Self {
        let mut writer = Writer::new(seed);
        let resp = if writer.dice.one_in(2) { 2 } else { 3 };
        let together = *writer.dice.pick(&[1, 1, 5, 100]);
        let count = 4 + writer.dice.below(16);
        let requests = (0..count).map(|_| request(&mut writer)).collect();
        Self {
            resp,
            together,
            requests,
        }
    }

    /// The same without what is not needed for a difference.
    fn cut_down(mut self, pair: &Pair) -> Self {
        let mut at = 0;
        while at < self.requests.len() {
            let mut less = self.clone();
            less.requests.remove(at);
            if pair.differ(&less).is_some() {
                self = less;
            } else {
                at += 1;
            }
        }
        self
    }
}

/// Writes random requests.
struct Writer {
    dice: Dice,
    /// No two spans of a sequence are alike, nor near one another: which of two is longer is a matter of
    /// milliseconds else.
    spans: u64,
    now_s: u64,
    /// A `MULTI` was written, and no `EXEC` behind it.
    is_queueing: bool,
    /// The script that was written last.
    script: Option<&'static LockScript>,
}

const KEYS: [&str; 4] = ["a", "b", "key:c", "k\0d"];
const VALUES: [&str; 5] = ["1", "v", "two words", "10", "\r\n"];
const SETS: [&str; 2] = ["s:1", "s:2"];
/// What is no number, or none that is of use.
const BAD_NUMBERS: [&str; 28] = [
    "abc",
    "",
    "1.5",
    "+5",
    " 5",
    "5 ",
    "05",
    "-0",
    "00",
    "0",
    "-1",
    "-5",
    "1e3",
    "0x10",
    "5\0",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "-9223372036854775809",
    "9223372036854776",
    "9223372036854775",
    "-9223372036854776",
    "99999999999",
    "-99999999999",
    "18446744073709551615",
    "18446744073709551616",
    "99999999999999999999999",
    "--5",
];
/// Commands that move an end, and the unit of each.
const SPANS: [(&str, &str); 4] = [
    ("EXPIRE", "EX"),
    ("PEXPIRE", "PX"),
    ("EXPIREAT", "EXAT"),
    ("PEXPIREAT", "PXAT"),
];
const OPTIONS: [&str; 16] = [
    "NX", "XX", "GT", "LT", "GET", "EX", "PX", "EXAT", "PXAT", "KEEPTTL", "PERSIST", "nx", "Ex",
    "FOO", "SYNC", "ASYNC",
];

impl Writer {
    fn new(seed: u64) -> Self {
        Self {
            dice: Dice::new(seed),
            spans: 0,
            now_s: unix_ms() / 1_000,
            is_queueing: false,
            script: None,
        }
    }

    fn request(&mut self) -> Words {
        let mut words = self.well_formed();
        if self.dice.one_in(10) {
            self.spoil(&mut words);
        }
        // A key has at least one byte.
        let key_at = if [b"OBJECT", b"MEMORY"]
            .iter()
            .any(|name| words[0].eq_ignore_ascii_case(*name))
        {
            2
        } else {
            1
        };
        if let Some(key) = words.get_mut(key_at).filter(|key| key.is_empty()) {
            *key = b"x".to_vec();
        }
        if words[0].to_ascii_uppercase().starts_with(b"MSET") {
            let keys = words[1..].iter_mut().step_by(2);
            keys.filter(|key| key.is_empty())
                .for_each(|key| *key = b"x".to_vec());
        }
        let takes_keys = ["MGET", "DEL", "UNLINK", "EXISTS", "TOUCH"];
        if takes_keys
            .iter()
            .any(|name| words[0].eq_ignore_ascii_case(name.as_bytes()))
        {
            words.retain(|word| !word.is_empty());
        }
        words
    }

    /// A request that has to do with sets. A key is a string or a set in Redis; here both may be there.
    fn on_sets(&mut self) -> Words {
        const MEMBERS: [&str; 7] = ["1", "2", "v", "two words", "10", "\r\n", "a\0b"];
        const OF_ONE: [&str; 9] = [
            "SCARD",
            "SMEMBERS",
            "TYPE",
            "TTL",
            "PTTL",
            "EXPIRETIME",
            "PEXPIRETIME",
            "PERSIST",
            "SSCAN",
        ];
        const CONTROL: [&str; 5] = ["MULTI", "EXEC", "EXEC", "DISCARD", "FLUSHALL"];
        let set = (*self.dice.pick(&SETS)).to_owned();
        let mut words = match self.dice.below(16) {
            0..=5 => {
                let names = ["SADD", "SADD", "SADD", "SMISMEMBER", "SREM", "SISMEMBER"];
                let name = *self.dice.pick(&names);
                let most = if name == "SISMEMBER" { 1 } else { 4 };
                let members = 0..=self.dice.below(most);
                let members = members.map(|_| (*self.dice.pick(&MEMBERS)).to_owned());
                [name.to_owned(), set].into_iter().chain(members).collect()
            }
            6..=8 => {
                let mut words = vec![(*self.dice.pick(&OF_ONE)).to_owned(), set];
                if words[0] == "SSCAN" {
                    words.push("0".to_owned());
                    if self.dice.one_in(2) {
                        let pattern = *self.dice.pick(&["*", "1*", "?", "nobody"]);
                        words.extend(["MATCH".to_owned(), pattern.to_owned()]);
                    }
                }
                words
            }
            9..=11 => {
                let (name, unit) = *self.dice.pick(&SPANS);
                let mut words = vec![name.to_owned(), set, self.amount(unit)];
                self.options(&mut words, &["NX", "XX", "GT", "LT"]);
                words
            }
            12 | 13 => {
                let name = *self.dice.pick(&["DEL", "UNLINK", "EXISTS", "TOUCH"]);
                let sets = 0..=self.dice.below(3);
                let sets = sets.map(|_| (*self.dice.pick(&SETS)).to_owned());
                [name.to_owned()].into_iter().chain(sets).collect()
            }
            _ => vec![(*self.dice.pick(&CONTROL)).to_owned()],
        };
        if words[0] != "SSCAN" && self.dice.one_in(15) {
            if self.dice.one_in(2) && words.len() > 1 {
                words.pop();
            } else {
                words.push(SETS[0].to_owned());
            }
        }
        words.into_iter().map(String::into_bytes).collect()
    }

    /// A request that has to do with conditions on values.
    fn newer(&mut self) -> Words {
        const OPTIONS: [&str; 6] = ["IFEQ", "IFEQ", "GET", "NX", "KEEPTTL", "EX"];
        let (key, value) = (self.key(), self.value());
        let mut words = match self.dice.below(8) {
            0..=3 => {
                let mut words = vec!["SET".to_owned(), key, value];
                self.options(&mut words, &OPTIONS);
                words
            }
            4 | 5 => vec!["DELIFEQ".to_owned(), key, value],
            6 => vec!["GET".to_owned(), key],
            _ => vec![(*self.dice.pick(&["MULTI", "EXEC"])).to_owned()],
        };
        // Valkey has words of its own for one within another.
        if words[0] == "MULTI" && std::mem::replace(&mut self.is_queueing, true) {
            words = vec!["EXEC".to_owned()];
        }
        self.is_queueing &= words[0] != "EXEC";
        if words[0] == "DELIFEQ" && self.dice.one_in(10) {
            words.pop();
        }
        words.into_iter().map(String::into_bytes).collect()
    }

    /// A script of a lock library, with words of the kinds that it takes, and sometimes too few of them.
    fn of_a_script(&mut self) -> Vec<String> {
        let script = match self.script {
            Some(script) if !self.dice.one_in(3) => script,
            _ => self.dice.pick(LOCK_SCRIPTS),
        };
        self.script = Some(script);
        let digest = hex(&Sha1::digest(script.text));
        let mut words: Vec<String> = match self.dice.below(8) {
            0 => return vec!["SCRIPT".into(), "LOAD".into(), script.text.into()],
            1 => {
                let line = *self.dice.pick(&[
                    "SCRIPT EXISTS",
                    "SCRIPT FLUSH",
                    "SCRIPT FLUSH ASYNC",
                    "SCRIPT FLUSH FOO",
                    "SCRIPT KILL",
                    "SCRIPT WHAT",
                    "SCRIPT",
                ]);
                let mut words: Vec<_> = line.split(' ').map(str::to_owned).collect();
                if line.ends_with("EXISTS") {
                    words.extend([digest, "x".to_owned()]);
                }
                return words;
            }
            2 | 3 => vec!["EVALSHA".into(), digest],
            _ => vec!["EVAL".into(), script.text.into()],
        };
        let (mut keys, mut args) = (Vec::new(), Vec::new());
        self.several_keys(&mut keys);
        let owner = self.value();
        let amount = if is_amount_free(script) && self.dice.one_in(6) {
            (*self.dice.pick(&BAD_AMOUNTS)).to_owned()
        } else {
            self.amount_of_use()
        };
        let third = (*self.dice.pick(&["0", "1", "2", "yes", "no"])).to_owned();
        match (script.library, script.name) {
            // A key has at least one byte.
            (_, "parityRelock") if amount.is_empty() => keys.truncate(1),
            (_, "parityRelock") => keys = vec![keys.swap_remove(0), amount, owner],
            (library, "obtain") if library.starts_with("bsm") => {
                let bytes = *self.dice.pick(&["0", "1", "2", "9"]);
                args = vec![owner, bytes.to_owned(), amount];
            }
            _ => args = vec![owner, amount, third],
        }
        let mut count = keys.len().to_string();
        if is_amount_free(script) {
            match self.dice.below(12) {
                0 => (*self.dice.pick(&["0", "1", "-1", "99", "abc", "01"])).clone_into(&mut count),
                1 => args.truncate(self.dice.below(3) as usize),
                _ => {}
            }
        }
        words.push(count);
        words.extend(keys);
        words.extend(args);
        words
    }

    fn amount_of_use(&mut self) -> String {
        loop {
            let amount = self.amount("PX");
            if amount
                .parse()
                .is_ok_and(|ms: i64| (1_000_000..3_000_000).contains(&ms))
            {
                return amount;
            }
        }
    }

    fn spoil(&mut self, words: &mut Words) {
        // A text that is not recognised is refused, whatever it would do in Redis.
        if ["EVAL", "EVALSHA", "SCRIPT"]
            .iter()
            .any(|name| words[0] == name.as_bytes())
        {
            return;
        }
        let at = self.dice.below(words.len() as u64) as usize;
        let word = match self.dice.below(3) {
            0 => *self.dice.pick(&BAD_NUMBERS),
            1 => *self.dice.pick(&OPTIONS),
            _ => *self.dice.pick(&KEYS),
        };
        match self.dice.below(4) {
            0 if words.len() > 1 => {
                words.remove(at.max(1));
            }
            1 if at > 0 => words[at] = word.into(),
            2 => words.insert(at + 1, words[at.max(1).min(words.len() - 1)].clone()),
            _ => words.push(word.into()),
        }
    }

    fn key(&mut self) -> String {
        (*self.dice.pick(&KEYS)).to_owned()
    }

    fn value(&mut self) -> String {
        (*self.dice.pick(&VALUES)).to_owned()
    }

    /// An amount of a unit: mostly one that is of use.
    fn amount(&mut self, unit: &str) -> String {
        if self.dice.one_in(6) {
            return (*self.dice.pick(&BAD_NUMBERS)).to_owned();
        }
        self.spans += 1;
        let span_s = 1_000 + 10 * ((self.spans * 7) % 101);
        // Moments may be the same, and lie beyond all spans.
        let at_s = self.now_s + *self.dice.pick(&[20_000, 30_000, 40_000]);
        match unit {
            "EX" => span_s.to_string(),
            "PX" => (span_s * 1_000 + 5_000).to_string(),
            "EXAT" => at_s.to_string(),
            _ => (at_s * 1_000).to_string(),
        }
    }

    fn options(&mut self, words: &mut Vec<String>, from: &[&str]) {
        while self.dice.one_in(2) {
            let option = *self.dice.pick(from);
            words.push(option.to_owned());
            if option == "IFEQ" && !self.dice.one_in(12) {
                let value = self.value();
                words.push(value);
            }
            if ["EX", "PX", "EXAT", "PXAT"].contains(&option) && !self.dice.one_in(12) {
                let amount = self.amount(option);
                words.push(amount);
            }
        }
    }

    fn several_keys(&mut self, words: &mut Vec<String>) {
        for _ in 0..=self.dice.below(3) {
            let key = self.key();
            words.push(key);
        }
    }

    fn well_formed(&mut self) -> Words {
        const SET: [&str; 8] = ["NX", "XX", "GET", "KEEPTTL", "EX", "PX", "EXAT", "PXAT"];
        const GETEX: [&str; 5] = ["PERSIST", "EX", "PX", "EXAT", "PXAT"];
        const CONTROL: [&str; 12] = [
            "MULTI", "MULTI", "EXEC", "EXEC", "EXEC", "DISCARD", "PING", "DBSIZE", "FLUSHDB",
            "FLUSHALL", "TIME", "RESET",
        ];
        const OF_ONE_KEY: [&str; 9] = [
            "GET",
            "GETDEL",
            "TYPE",
            "STRLEN",
            "TTL",
            "PTTL",
            "EXPIRETIME",
            "PEXPIRETIME",
            "PERSIST",
        ];
        let mut words = Vec::new();
        let key = self.key();
        match self.dice.below(27) {
            20 | 21 => {
                let name = *self.dice.pick(&["INCR", "INCRBY", "DECR", "DECRBY"]);
                words.extend([name.to_owned(), key]);
                if name.ends_with("BY") {
                    let amount = *self.dice.pick(&["1", "7", "-3", "9223372036854775807"]);
                    words.push(amount.to_owned());
                }
            }
            22 => {
                words.push((*self.dice.pick(&["MSET", "MSETNX"])).to_owned());
                for _ in 0..=self.dice.below(3) {
                    let pair = [self.key(), self.value()];
                    words.extend(pair);
                }
            }
            23..=26 => words = self.of_a_script(),
            0..=3 => {
                words.extend(["SET".to_owned(), key, self.value()]);
                self.options(&mut words, &SET);
            }
            4 => {
                let name = *self.dice.pick(&["SETNX", "GETSET"]);
                words.extend([name.to_owned(), key, self.value()]);
            }
            5 => {
                let (name, unit) = *self.dice.pick(&[("SETEX", "EX"), ("PSETEX", "PX")]);
                words.extend([name.to_owned(), key, self.amount(unit), self.value()]);
            }
            6 => {
                words.extend(["GETEX".to_owned(), key]);
                self.options(&mut words, &GETEX);
            }
            7..=9 => {
                let (name, unit) = *self.dice.pick(&SPANS);
                words.extend([name.to_owned(), key, self.amount(unit)]);
                self.options(&mut words, &["NX", "XX", "GT", "LT"]);
            }
            10..=12 => words.extend([(*self.dice.pick(&OF_ONE_KEY)).to_owned(), key]),
            13 => {
                let name = *self
                    .dice
                    .pick(&["MGET", "EXISTS", "TOUCH", "DEL", "UNLINK"]);
                words.push(name.to_owned());
                self.several_keys(&mut words);
            }
            14..=16 => words.push((*self.dice.pick(&CONTROL)).to_owned()),
            17 if self.dice.one_in(2) => words = self.of_a_monitor(),
            17 => words = self.listing(),
            _ => words = self.on_the_connection(),
        }
        words.into_iter().map(String::into_bytes).collect()
    }

    fn listing(&mut self) -> Vec<String> {
        let pattern = *self
            .dice
            .pick(&["*", "a", "k*", "[ab]", "?", "\\a", "[^a]", "x"]);
        if self.dice.one_in(3) {
            return vec!["KEYS".to_owned(), pattern.to_owned()];
        }
        let mut words = vec!["SCAN".to_owned(), "0".to_owned()];
        for option in ["MATCH", "COUNT", "TYPE"] {
            if self.dice.one_in(3) {
                let value = match option {
                    "MATCH" => pattern,
                    "TYPE" => *self.dice.pick(&["string", "STRING", "hash", "foo"]),
                    _ => *self.dice.pick(&[
                        "10",
                        "100",
                        "1000",
                        "0",
                        "-1",
                        "abc",
                        "9223372036854775807",
                    ]),
                };
                words.extend([option.to_owned(), value.to_owned()]);
            }
        }
        words
    }

    fn on_the_connection(&mut self) -> Vec<String> {
        let one = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        let number = *self.dice.pick(&BAD_NUMBERS);
        let value = *self.dice.pick(&VALUES);
        match self.dice.below(12) {
            0 => one(&["PING", value]),
            1 => one(&["PING", value, value]),
            2 => one(&["ECHO", value]),
            3 => one(&[
                "SELECT",
                *self.dice.pick(&["0", "1", "1023", "1024", number]),
            ]),
            4 => one(&["WAIT", "0", *self.dice.pick(&["0", "abc", number])]),
            5 => one(&[
                "FLUSHDB",
                *self.dice.pick(&["SYNC", "async", "FOO", number]),
            ]),
            6 => one(&["FLUSHALL", "SYNC", "ASYNC"]),
            7 => one(&[*self.dice.pick(&["AUTH", "QUIT"])]),
            8 => one(&["AUTH", value]),
            9 => one(&["AUTH", *self.dice.pick(&["default", "someone"]), value]),
            10 => self.of_a_container(),
            _ => one(&["HELLO", *self.dice.pick(&["2", "3", "4", "abc", number])]),
        }
    }

    fn of_a_monitor(&mut self) -> Vec<String> {
        const ASKED: [&str; 12] = [
            "ROLE",
            "CLUSTER INFO",
            "CLUSTER WHAT",
            "CLUSTER",
            "MODULE LIST",
            "MODULE WHAT",
            "SLOWLOG GET",
            "SLOWLOG LEN",
            "SLOWLOG RESET",
            "LATENCY LATEST",
            "LATENCY HISTORY command",
            "LATENCY RESET",
        ];
        const OF_A_KEY: [&str; 6] = [
            "OBJECT ENCODING",
            "OBJECT IDLETIME",
            "OBJECT FREQ",
            "OBJECT REFCOUNT",
            "MEMORY USAGE",
            "OBJECT",
        ];
        const OF_CLIENTS: [&str; 8] = [
            "CLIENT LIST TYPE",
            "CLIENT LIST ID",
            "CLIENT KILL ID",
            "CLIENT KILL TYPE pubsub ADDR",
            "CLIENT KILL SKIPME yes LADDR nobody",
            "CLIENT KILL ADDR",
            "CLIENT KILL ADDR 1.2.3.4:5",
            "CLIENT LIST",
        ];
        let asked = *match self.dice.below(3) {
            0 => self.dice.pick(&ASKED),
            1 => self.dice.pick(&OF_A_KEY),
            _ => self.dice.pick(&OF_CLIENTS),
        };
        let mut words: Vec<_> = asked.split(' ').map(str::to_owned).collect();
        match words[0].as_str() {
            "OBJECT" | "MEMORY" => words.push(self.key()),
            "CLIENT" if self.dice.one_in(2) => {
                // Numbers that no client has: a connection that ends compares nothing.
                let word =
                    *self
                        .dice
                        .pick(&["normal", "what", "99999999", "abc", "-1", "1.2.3.4:6"]);
                words.push(word.to_owned());
            }
            "SLOWLOG" if self.dice.one_in(3) => {
                words.push((*self.dice.pick(&BAD_NUMBERS)).to_owned());
            }
            _ => {}
        }
        words
    }

    fn of_a_container(&mut self) -> Vec<String> {
        const CONTAINERS: [&str; 4] = ["CLIENT", "COMMAND", "CONFIG", "INFO"];
        const WORDS: [&str; 12] = [
            "GETNAME",
            "SETNAME",
            "INFO",
            "COUNT",
            "GET",
            "maxmemory",
            "name",
            "NO-EVICT",
            "on",
            "FOO",
            "REPLY",
            "ID",
        ];
        let mut words = vec![(*self.dice.pick(&CONTAINERS)).to_owned()];
        for _ in 0..self.dice.below(4) {
            words.push((*self.dice.pick(&WORDS)).to_owned());
        }
        words
    }
}

/// Amounts that are none, or not of use; none of them is clamped.
const BAD_AMOUNTS: [&str; 11] = [
    "abc",
    "",
    "1.5",
    " 5",
    "05",
    "0",
    "-1",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "-9223372036854775809",
];

/// Whether a script does the same with any amount, or with none, as Redis: not one that stores before it looks
/// at the amount, nor one that has Lua add to it.
fn is_amount_free(script: &LockScript) -> bool {
    const BOUND: [(&str, &str); 5] = [
        ("sherlock", "acquire"),
        ("redis-semaphore 4", "refresh"),
        ("bsm/redislock", "obtain"),
        ("redis-py", "extend"),
        ("coredis", "extend"),
    ];
    !BOUND
        .iter()
        .any(|(library, name)| script.library.starts_with(library) && script.name == *name)
}

fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits
        .map(|digit| char::from_digit(u32::from(digit), 16).unwrap())
        .collect()
}

#[test]
fn both_answer_alike() {
    if let Some(redis) = Redis::start("ONCED_REDIS_SERVER", "redis-server") {
        Pair::with(redis).compare(|seed| Sequence::of(seed, Writer::request));
    }
}

#[test]
fn sets_answer_alike() {
    if let Some(redis) = Redis::start("ONCED_REDIS_SERVER", "redis-server") {
        Pair::with(redis).compare(|seed| Sequence::of(seed, Writer::on_sets));
    }
}

#[test]
fn a_scan_takes_about_as_many_calls() {
    let Some(redis) = Redis::start("ONCED_REDIS_SERVER", "redis-server") else {
        return;
    };
    let onced = TestServer::start();
    let (mut redis, mut onced) = (redis.connect(), Peer::tcp(&onced.address));
    let mut stored = 0;
    for (keys, options) in [
        (0, &[][..]),
        (7, &[]),
        (100, &[]),
        (3_000, &[]),
        (3_000, &["COUNT", "100"]),
        (3_000, &["MATCH", "key:*9"]),
    ] {
        for n in stored..keys {
            let key = format!("key:{n}");
            for peer in [&mut redis, &mut onced] {
                assert!(peer.call(&["SET", &key, "1"]).is("+OK"));
            }
        }
        stored = keys;
        let [theirs, ours] = [&mut redis, &mut onced].map(|peer| scan_calls(peer, options));
        assert!(
            2 * ours <= 3 * theirs,
            "{keys} keys, {options:?}: {ours} calls, redis takes {theirs}"
        );
    }
}

/// How many calls a whole scan takes.
fn scan_calls(peer: &mut Peer, options: &[&str]) -> usize {
    let (mut cursor, mut calls) = ("0".to_owned(), 0);
    loop {
        let told = peer.call(&[&["SCAN", &cursor][..], options].concat());
        let Reply::Many(_, parts) = told else {
            panic!("{told:?}");
        };
        let Reply::Bulk(next) = &parts[0] else {
            panic!("{parts:?}");
        };
        cursor = String::from_utf8_lossy(next).into_owned();
        calls += 1;
        if cursor == "0" {
            return calls;
        }
    }
}

#[test]
fn newer_conditions_are_those_of_valkey() {
    let Some(valkey) = Redis::start("ONCED_VALKEY_SERVER", "valkey-server") else {
        return;
    };
    let has_it = valkey.connect().call(&["DELIFEQ", "nobody", "v"]);
    if !has_it.is(":0") {
        skipped(&format!("that Valkey is too old: {has_it:?}"));
        return;
    }
    Pair::with(valkey).compare(|seed| Sequence::of(seed, Writer::newer));
}

/// What is not compared is named, so that a new command does not go by in silence.
#[test]
fn every_redis_command_is_compared_or_named() {
    let mut sent = std::collections::BTreeSet::new();
    for seed in 0..SEQUENCES {
        let of = |write: fn(&mut Writer) -> Words| Sequence::of(seed, write).requests;
        for words in [of(Writer::request), of(Writer::on_sets)].concat() {
            sent.insert(String::from_utf8_lossy(&words[0]).to_ascii_uppercase());
        }
    }
    for spec in verbs().map(Verb::spec) {
        let is_named = NOT_COMPARED.iter().any(|(name, _)| *name == spec.name);
        if spec.home == Home::Redis {
            assert_ne!(sent.contains(spec.name), is_named, "{}", spec.name);
        }
    }
}

#[test]
fn every_difference_is_a_sentence_of_the_page() {
    let page = include_str!("../protocol.md");
    for (sentence, _) in DIFFERENCES {
        assert!(
            page.contains(sentence),
            "protocol.md does not say: {sentence}"
        );
    }
}
