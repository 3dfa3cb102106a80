//! What a log is for, on the real binary: the same state after a stop and after a crash, loading, bad
//! directories, copies of a running server's directory, torn tails, and space that is given back.

#![allow(
    clippy::format_collect,
    clippy::format_push_string,
    clippy::items_after_statements,
    clippy::unnecessary_wraps,
    clippy::flat_map_option,
    reason = "tests read better so"
)]
#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a test fails by panicking"
)]

mod common;

use std::fs::{self, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use common::process::{
    Dice, Process, Scratch, SmallDisk, contents, copy, refusal, segments, serve, signal,
};
use common::scenario::{unix_ms, words};
use common::{Client, TestServer, eventually, resp_request};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

/// So much later may an answer about what is left of a window come, in milliseconds.
const LATER_MS: u64 = 20_000;

// --- (a) the same state -------------------------------------------------------------------------

/// What changes state in the line protocol, and the replies.
const LINES: &[(&str, &str)] = &[
    ("SEEN seen 1h", "NEW"),
    ("SEEN seen 2h", "DUP"),
    ("SEEN slid 1h", "NEW"),
    ("SEEN slid 3h SLIDE", "DUP"),
    ("SEEN print 1h FP C0FFEE", "NEW"),
    ("SEEN print 1h FP c0ffee", "DUP"),
    ("SEEN print 1h FP 00", "MISMATCH"),
    (
        "SEEN slid-print 1h FP 00000000000000000000000000000abc",
        "NEW",
    ),
    ("SEEN slid-print 4h SLIDE", "DUP"),
    ("SEEN \"two words\" 1h", "NEW"),
    ("SEEN \"nul \\x00 and \\xff\" 1h", "NEW"),
    ("SEEN 123e4567-e89b-12d3-a456-426614174000 1h", "NEW"),
    ("SEEN 00017 1h", "NEW"),
    ("SEEN forgotten 1h", "NEW"),
    ("FORGET forgotten never-there", "OK 1"),
    ("SEEN again 3h", "NEW"),
    ("FORGET again", "OK 1"),
    ("SEEN again 1h", "NEW"),
    ("SEEN later 1h", "NEW"),
    ("TOUCH later 5h", "OK"),
    ("SEEN earlier 5h", "NEW"),
    ("TOUCH earlier 1h", "OK"),
    ("SEEN not-earlier 5h", "NEW"),
    ("TOUCH not-earlier 1h GT", "OK"),
    ("TOUCH nothing 1h", "NIL"),
    ("MSEEN 2h m1 m2 m3 m2", "NNND"),
    ("SEEN day 24h", "NEW"),
    (
        "NS SET policy TTL 10m MAXTTL 2h MODE SLIDE MAXKEYS 1000 FULL EVICT UNSURE REPORT",
        "OK",
    ),
    ("NS SET policy COVERED", "OK"),
    ("SEEN in-policy - NS policy", "NEW"),
    ("NS SET digests KEYS DIGEST COVERED", "OK"),
    (
        "SEEN a-key-that-is-longer-than-sixteen-bytes 1h NS digests",
        "NEW",
    ),
    ("SEEN short 1h NS digests", "NEW"),
    ("NS SET becomes-digests", "OK"),
    ("NS SET becomes-digests KEYS DIGEST", "OK"),
    (
        "SEEN another-key-that-is-longer-than-that 1h NS becomes-digests",
        "NEW",
    ),
    ("NS SET dropped", "OK"),
    ("SEEN a 1h NS dropped", "NEW"),
    ("NS DROP dropped", "OK"),
    ("NS SET dropped-and-made", "OK"),
    ("SEEN a 1h NS dropped-and-made", "NEW"),
    ("NS DROP dropped-and-made", "OK"),
    ("NS SET dropped-and-made TTL 7m", "OK"),
    ("SEEN b 1h NS dropped-and-made", "NEW"),
    ("NS SET purged UNSURE REPORT", "OK"),
    ("SEEN a 1h NS purged", "UNSURE"),
    ("NS PURGE purged", "OK"),
    ("SEEN b 1h NS purged", "UNSURE"),
    ("NS SET evicting MAXKEYS 2 FULL EVICT", "OK"),
    ("SEEN e1 1h NS evicting", "NEW"),
    ("SEEN e2 2h NS evicting", "NEW"),
    ("SEEN e3 3h NS evicting", "NEW"),
    ("SEEN old 1h AT {now-1000}", "NEW"),
];

/// The same in RESP.
const REDIS: &[(&str, &str)] = &[
    ("SET value v PX 3600000", "+OK"),
    ("SET lock owner-1 NX PX 7200000", "+OK"),
    ("SET lock owner-2 NX PX 7200000", "nil"),
    ("SET over first PX 7200000", "+OK"),
    ("SET over second PX 3600000", "+OK"),
    ("SET over-later first PX 3600000", "+OK"),
    ("SET over-later second PX 7200000", "+OK"),
    ("SET kept first PX 7200000", "+OK"),
    ("SET kept second KEEPTTL", "+OK"),
    ("SET one 1 PX 3600000", "+OK"),
    ("SET empty \"\" PX 3600000", "+OK"),
    ("SET unprinted v PX 3600000", "+OK"),
    ("ONCE.SEEN fp-then-value 1h FP abc", "+NEW"),
    ("SET fp-then-value v PX 3600000", "+OK"),
    ("SET value-then-slid v PX 3600000", "+OK"),
    ("ONCE.SEEN value-then-slid 3h SLIDE", "+DUP"),
    ("SETNX setnx v", ":1"),
    ("SETEX setex 3600 v", "+OK"),
    ("PSETEX psetex 3600000 v", "+OK"),
    ("SET swapped old PX 7200000", "+OK"),
    ("GETSET swapped new", "$old"),
    ("SET owned me PX 3600000", "+OK"),
    ("SET owned you IFEQ me PX 7200000", "+OK"),
    ("SET released me PX 3600000", "+OK"),
    ("DELEX released IFEQ me", ":1"),
    ("SET held me PX 3600000", "+OK"),
    ("DELIFEQ held you", ":0"),
    ("SET taken v PX 3600000", "+OK"),
    ("GETDEL taken", "$v"),
    ("SET gone1 v PX 3600000", "+OK"),
    ("SET gone2 v PX 3600000", "+OK"),
    ("DEL gone1 gone2", ":2"),
    ("SET unlinked v PX 3600000", "+OK"),
    ("UNLINK unlinked", ":1"),
    ("SET expires v PX 3600000", "+OK"),
    ("PEXPIRE expires 7200000", ":1"),
    ("EXPIRE expires 1800 LT", ":1"),
    ("SET past v PX 3600000", "+OK"),
    ("PEXPIREAT past 1000", ":1"),
    ("SET past2 v PX 3600000", "+OK"),
    ("SET past2 v PXAT 1000", "+OK"),
    ("SET read v PX 3600000", "+OK"),
    ("GETEX read PX 7200000", "$v"),
    ("SET long v PX 3600000", "+OK"),
    ("PERSIST long", ":1"),
    ("BF.ADD filter a", ":1"),
    ("BF.RESERVE bounded 0.01 5", "+OK"),
    ("BF.MADD bounded a b a", "[:1, :1, :0]"),
    ("SADD set:plain a b", ":2"),
    ("SREM set:plain b", ":1"),
    ("SADD set:ends a", ":1"),
    ("EXPIRE set:ends 7200", ":1"),
    ("EXPIRE set:ends 10000", ":1"),
    ("EXPIRE set:ends 10001", ":1"),
    ("SADD set:ends b", ":1"),
    ("SADD set:removed a", ":1"),
    ("DEL set:removed", ":1"),
    ("NS SET set:emptied TTL 3h", "+OK"),
    ("SADD set:emptied a", ":1"),
    ("EXPIRE set:emptied 60", ":1"),
    ("DEL set:emptied", ":1"),
    ("SADD set:emptied b", ":1"),
    ("SET counted 41 PX 3600000", "+OK"),
    ("INCR counted", ":42"),
    ("DECRBY counted-anew 5", ":-5"),
    ("MSET many1 a many2 b", "+OK"),
    ("MSETNX many3 a many4 b many3 c", ":1"),
    ("MSETNX many5 a many4 b", ":0"),
    ("SELECT 3", "+OK"),
    ("SET in-db3 v PX 3600000", "+OK"),
    ("SELECT 4", "+OK"),
    ("SET in-db4 v PX 3600000", "+OK"),
    ("FLUSHDB", "+OK"),
    ("SET in-db4-after v PX 3600000", "+OK"),
    ("SELECT 0", "+OK"),
    ("MULTI", "+OK"),
    ("SET in-multi v PX 3600000", "+QUEUED"),
    ("DEL in-multi-none", "+QUEUED"),
    ("EXEC", "[+OK, :0]"),
];

fn play_changes(server: &Process) {
    let mut client = server.connect();
    for (request, reply) in LINES {
        let request = request.replace("{now-1000}", &(unix_ms() - 1_000).to_string());
        assert_eq!(client.ask(&request), *reply, "{request}");
    }
    let mut client = server.connect();
    for (request, reply) in REDIS {
        let words = words(request);
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        assert_eq!(client.call(&words), *reply, "{request}");
    }
}

/// All that can be asked about a server's state, a row each; deadlines are exact.
fn state_of(server: &Process) -> Vec<String> {
    let mut client = server.connect();
    let mut state = client.ask_all("NS LIST");
    let names: Vec<_> = state[1..]
        .iter()
        .map(|row| row.split(' ').next().unwrap().to_owned())
        .collect();
    let mut redis = server.connect();
    for name in &names {
        // Counters are of a run, and memory is as it happens to be.
        let policy = client.ask_all(&format!("NS INFO {name}"));
        let is_kept = |row: &&String| !row.starts_with("ROWS") && !row.starts_with("bytes ");
        let upto_keys = policy.iter().take_while(|row| !row.starts_with("new "));
        state.extend(
            upto_keys
                .filter(is_kept)
                .map(|row| format!("{name}: {row}")),
        );
        redis.call(&["SELECT", "0"]);
        let as_set = ["TYPE", "PEXPIRETIME"].map(|verb| redis.call(&[verb, name]));
        state.push(format!("{name} as a set: {as_set:?}"));
        redis.call(&["ONCE.USE", name]);
        let mut keys = redis.call(&["KEYS", "*"]);
        for known in [
            "a",
            "a-key-that-is-longer-than-sixteen-bytes",
            "another-key-that-is-longer-than-that",
            "forgotten",
            "again",
            "nothing",
            "released",
            "taken",
            "past",
            "past2",
            "in-db4",
            "e1",
            "held",
        ] {
            keys += &format!(", ${known}");
        }
        let mut keys: Vec<_> = keys
            .trim_matches(['[', ']'])
            .split(", ")
            .map(|key| key.trim_matches(['[', ']', '$']).to_owned())
            .collect();
        keys.sort();
        keys.dedup();
        for key in keys
            .iter()
            .filter(|key| !key.contains('\u{fffd}') && !key.is_empty())
        {
            let facts = ["ONCE.PEEK", "PEXPIRETIME", "GET"].map(|verb| redis.call(&[verb, key]));
            let rows = redis.call(&["ONCE.INSPECT", key]);
            let print = rows
                .split_once("fingerprint")
                .map_or("none", |(_, print)| print);
            state.push(format!("{name}/{key}: {facts:?} {print}"));
        }
    }
    state
}

#[test]
fn the_state_is_the_same_after_a_stop_and_after_a_crash() {
    for fsync in ["always", "everysec", "never"] {
        let data = Scratch::new("state");
        let start = || Process::start(data.path(), &["--fsync", fsync]);
        let server = start();
        play_changes(&server);
        let state = state_of(&server);
        assert!(state.len() > 150, "{state:#?}");
        server.stop();
        for number in 0..4 {
            let server = start();
            let now = state_of(&server);
            // Which of the soonest goes is not logged, and of the moment somewhat more than was the case.
            let is_exact = |row: &&String| {
                !row.starts_with("evicting/") && !row.starts_with("evicting: unsure_until_ms")
            };
            let lost: Vec<_> = state
                .iter()
                .filter(is_exact)
                .filter(|row| !now.contains(row))
                .collect();
            let came: Vec<_> = now
                .iter()
                .filter(is_exact)
                .filter(|row| !state.contains(row))
                .collect();
            let (before, after) = (unsure_until(&state), unsure_until(&now));
            // By as much as the last that came lives longer than the one that went, and came later.
            let longest = before + 7_200_000 + LATER_MS;
            assert!((before..=longest).contains(&after), "{before} {after}");
            assert!(
                lost.is_empty() && came.is_empty(),
                "--fsync {fsync}, restart {number}\nlost {lost:#?}\ncame {came:#?}"
            );
            let mut client = server.connect();
            // Bytes that RESP's notation here cannot show.
            assert_eq!(
                client.ask("PEEK \"nul \\x00 and \\xff\" \"two words\" 00017 17"),
                "DDDN"
            );
            let ms: u64 = client.ask("TTL slid").parse().unwrap();
            assert!(
                (3 * 3_600_000 - LATER_MS..=3 * 3_600_000 + 20).contains(&ms),
                "{ms}"
            );
            if number % 2 == 0 {
                server.kill();
            } else {
                server.stop();
            }
        }
    }
}

fn unsure_until(state: &[String]) -> u64 {
    let row = state
        .iter()
        .find_map(|row| row.strip_prefix("evicting: unsure_until_ms "));
    row.unwrap().parse().unwrap()
}

#[test]
fn a_first_start_is_unsure_and_later_ones_are_as_sure_as_it_was() {
    let data = Scratch::new("covered");
    let began = unix_ms();
    let server = Process::start(data.path(), &[]);
    let covered_since = covered_since(&server, "default");
    assert!((began - 50..=unix_ms() + 50).contains(&covered_since));
    server.kill();
    let server = Process::start(data.path(), &[]);
    let mut client = server.connect();
    assert_eq!(client.ask("NS SET made-later UNSURE REPORT"), "OK");
    for name in ["default", "made-later"] {
        assert_eq!(self::covered_since(&server, name), covered_since, "{name}");
    }
}

fn covered_since(server: &Process, name: &str) -> u64 {
    let rows = server.connect().ask_all(&format!("NS INFO {name}"));
    let row = rows
        .iter()
        .find_map(|row| row.strip_prefix("covered_since_ms "));
    row.unwrap().parse().unwrap()
}

/// What the configuration says of a namespace goes over what the log says.
#[test]
fn a_log_gives_way_to_the_configuration() {
    let data = Scratch::new("configured");
    let server = Process::start(&data.join("d"), &[]);
    let mut client = server.connect();
    assert_eq!(client.ask("NS SET jobs TTL 5m MAXKEYS 10"), "OK");
    assert_eq!(client.ask("SEEN a 1h NS jobs"), "NEW");
    server.stop();
    let file = data.join("onced.toml");
    fs::write(&file, "[namespace.jobs]\nttl = \"9m\"\n").unwrap();
    let server = Process::start(&data.join("d"), &["--config", file.to_str().unwrap()]);
    let rows = server.connect().ask_all("NS INFO jobs");
    assert!(rows.contains(&"ttl 9m".to_owned()), "{rows:?}");
    assert!(rows.contains(&"maxkeys 10".to_owned()), "{rows:?}");
    assert_eq!(server.connect().ask("SEEN a 1h NS jobs"), "DUP");
}

// --- (b) loading --------------------------------------------------------------------------------

/// Stores so many keys quickly.
fn fill(client: &mut Client, prefix: &str, keys: u64, ttl: &str) {
    const BATCH: u64 = 2_000;
    let mut waiting = 0;
    for first in (0..keys).step_by(BATCH as usize) {
        let last = keys.min(first + BATCH);
        let words: Vec<_> = (first..last).map(|n| format!("{prefix}{n}")).collect();
        client.send(format!("MSEEN {ttl} {}\n", words.join(" ")));
        waiting += 1;
        if waiting == 8 {
            assert!(!client.line().contains(['E', 'D']));
            waiting -= 1;
        }
    }
    for _ in 0..waiting {
        assert!(!client.line().contains(['E', 'D']));
    }
}

#[test]
fn while_the_log_is_read_nothing_else_is_answered() {
    const KEYS: u64 = 400_000;
    let data = Scratch::new("loading");
    let server = Process::start(data.path(), &["--fsync", "never"]);
    fill(&mut server.connect(), "order-", KEYS, "1h");
    server.kill();

    let server = Process::begin(data.path(), &[]);
    let (mut lines, mut redis, mut leaving) =
        (server.connect(), server.connect(), server.connect());
    lines.send("PING\nSEEN order-1 1h\nNOSUCH\nSEEN new 1h LEN 5\nPING\n\n");
    for words in [
        &["PING"][..],
        &["SET", "new", "v", "NX", "PX", "60000"],
        &["ONCE.SYNC"],
    ] {
        redis.send(resp_request(words));
    }
    let mut monitor = server.connect();
    for words in [
        &["HELLO", "2", "AUTH", "default", "x"][..],
        &["CLIENT", "SETNAME", "monitor"],
        &["COMMAND", "COUNT"],
        &["AUTH", "default", "x"],
        &["INFO"],
        &["RESET"],
        &["CLIENT", "GETNAME"],
        &["CONFIG", "GET", "save"],
        &["EXISTS", "order-1"],
    ] {
        monitor.send(resp_request(words));
    }
    leaving.send("QUIT\n");
    let told: Vec<_> = (0..9).map(|_| monitor.resp()).collect();
    let first = lines.line();
    let loaded_at_once = first == "PONG";
    if !loaded_at_once {
        assert!(first.starts_with("ERR LOADING"), "{first}");
        let reply = redis.resp();
        assert!(reply.starts_with("-LOADING") || reply == "+PONG", "{reply}");
    }
    assert_eq!(leaving.rest(), "BYE\n");
    // What tells of the server or of its connection alone is answered meanwhile, and nothing else.
    if !loaded_at_once {
        assert!(told[0].starts_with("[$server, "), "{told:?}");
        assert!(
            told[1] == "+OK" && told[2].starts_with(':') && told[3] == "+OK",
            "{told:?}"
        );
        assert!(
            told[4].contains("loading:1\r\n") || told[4].contains("loading:0\r\n"),
            "{told:?}"
        );
        if told[4].contains("loading:1\r\n") {
            assert!(told[4].contains("loading_eta_seconds:"), "{told:?}");
            assert!(
                told[4].contains("aof_enabled:") && told[4].ends_with("# Keyspace\r\n"),
                "{told:?}"
            );
        }
        assert!(told[5] == "+RESET" && told[6] == "nil", "{told:?}");
        for told in &told[7..] {
            let is_loaded = told == ":1" || told == "[$save, $]";
            assert!(is_loaded || told.starts_with("-LOADING "), "{told}");
        }
    }
    server.wait_until_loaded();
    assert!(
        !loaded_at_once,
        "it was read too fast to be seen; raise KEYS"
    );

    let mut client = server.connect();
    assert_eq!(client.gauge("keys"), KEYS);
    for first in (0..KEYS).step_by(5_000) {
        let words: Vec<_> = (first..first + 5_000)
            .map(|n| format!("order-{n}"))
            .collect();
        assert_eq!(
            client.ask(&format!("PEEK {}", words.join(" "))),
            "D".repeat(5_000)
        );
    }
    let said = server.said();
    assert!(said.contains("read the log"), "{said}");
    server.stop();
}

#[test]
fn a_server_can_be_stopped_while_it_reads() {
    let data = Scratch::new("stopped-loading");
    let server = Process::start(data.path(), &["--fsync", "never"]);
    fill(&mut server.connect(), "order-", 300_000, "1h");
    server.kill();
    let server = Process::begin(data.path(), &[]);
    server.stop();
    let server = Process::start(data.path(), &[]);
    assert_eq!(server.connect().gauge("keys"), 300_000);
}

// --- (c) SYNC -----------------------------------------------------------------------------------

#[test]
fn sync_needs_a_log() {
    let without = TestServer::start();
    assert!(without.connect().ask("SYNC").starts_with("ERR NOLOG"));
    assert!(
        without
            .connect()
            .call(&["ONCE.SYNC"])
            .starts_with("-ERR NOLOG")
    );
    assert_eq!(
        without
            .connect()
            .ask_all("STATS")
            .iter()
            .filter(|row| *row == "log off")
            .count(),
        1
    );
    for fsync in ["always", "everysec", "never"] {
        let data = Scratch::new("sync");
        let server = Process::start(data.path(), &["--fsync", fsync]);
        let mut client = server.connect();
        assert_eq!(client.ask("SYNC"), "OK");
        client.send("SEEN a 1h\nSYNC\nSEEN a 1h\n");
        assert_eq!(
            [client.line(), client.line(), client.line()],
            ["NEW", "OK", "DUP"]
        );
        assert_eq!(server.connect().call(&["ONCE.SYNC"]), "+OK");
        let rows = client.ask_all("STATS");
        for row in ["ready yes", "log ok"] {
            assert!(rows.contains(&row.to_owned()), "{rows:?}");
        }
    }
}

// --- (d) bad directories ------------------------------------------------------------------------

/// Keys `from` to `to` of a directory that was [made]: long ones, so that few fill segments.
fn made_keys(prefix: &str, keys: std::ops::Range<u64>) -> String {
    let words: Vec<_> = keys
        .map(|n| format!("{prefix}-{n}-{}", "k".repeat(40)))
        .collect();
    words.join(" ")
}

/// A directory with several segments of keys.
fn made(path: &Path, prefix: &str) {
    let server = Process::start(path, &["--log-segment", "64KiB"]);
    let mut client = server.connect();
    for part in 0..40 {
        let keys = made_keys(prefix, part * 100..part * 100 + 100);
        let letters = client.ask(&format!("MSEEN 1h {keys}"));
        assert_eq!(letters, "N".repeat(100));
    }
    server.kill();
    assert!(segments(path).len() > 2, "{:?}", segments(path));
}

/// The server refuses to start with one clear line, and leaves the directory as it was.
fn is_refused(path: &Path, arguments: &[&str], because: &[&str]) {
    let before = path.is_dir().then(|| contents(path));
    let (status, said) = refusal(path, arguments);
    let errors: Vec<_> = said
        .lines()
        .filter(|line| line.starts_with("onced: "))
        .collect();
    assert_eq!((status, errors.len()), (Some(2), 1), "{said}");
    let words: Vec<_> = errors[0].split(": ").collect();
    assert!(
        words.windows(2).all(|two| two[0] != two[1]),
        "said twice: {said}"
    );
    for part in because {
        assert!(errors[0].contains(part), "no '{part}' in: {}", errors[0]);
    }
    assert!(!said.contains("panicked"), "{said}");
    let after = path.is_dir().then(|| contents(path));
    assert!(before == after, "{} was changed", path.display());
}

/// With `--recover` it starts, says what is lost, and is sure of nothing from before; after that it starts
/// without.
fn is_recovered(path: &Path, prefix: &str, lost: std::ops::Range<u64>) {
    let began = unix_ms();
    let server = Process::start(path, &["--recover"]);
    let said = server.said();
    assert!(said.contains("WARN"), "{said}");
    assert!(covered_since(&server, "default") >= began, "{said}");
    let missing = missing(&server, prefix);
    assert!(
        lost.contains(&missing),
        "{missing} are missing, not {lost:?}: {said}"
    );
    let covered_since = covered_since(&server, "default");
    server.kill();
    let server = Process::start(path, &[]);
    assert_eq!(self::missing(&server, prefix), missing);
    assert_eq!(self::covered_since(&server, "default"), covered_since);
}

fn missing(server: &Process, prefix: &str) -> u64 {
    let letters = server
        .connect()
        .ask(&format!("PEEK {}", made_keys(prefix, 0..4_000)));
    letters.bytes().filter(|letter| *letter == b'N').count() as u64
}

#[test]
fn what_is_no_data_directory_is_left_alone() {
    let data = Scratch::new("bad");
    let letters = data.join("letters");
    fs::create_dir(&letters).unwrap();
    fs::write(letters.join("letter.txt"), "dear").unwrap();
    is_refused(&letters, &[], &["letter.txt", "not a data directory"]);

    let file = data.join("file");
    fs::write(&file, "a file").unwrap();
    is_refused(&file, &[], &["file"]);
    is_refused(&file.join("below"), &[], &["below"]);
    assert_eq!(fs::read(&file).unwrap(), b"a file");

    let newer = data.join("newer");
    made(&newer, "n");
    let lock = newer.join("onced.lock");
    let words = fs::read_to_string(&lock).unwrap();
    fs::write(&lock, words.replace("format 2", "format 3")).unwrap();
    is_refused(&newer, &[], &["format 3", "newer"]);
    is_refused(&newer, &["--recover"], &["format 3"]);
    fs::write(&lock, "my notes\n").unwrap();
    is_refused(&newer, &[], &["onced.lock"]);
}

#[test]
fn a_newer_segment_is_left_alone() {
    let data = Scratch::new("newer");
    made(data.path(), "n");
    let newest = segments(data.path()).pop().unwrap();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&newest)
        .unwrap();
    let mut header = [0; 64];
    file.read_exact_at(&mut header, 0).unwrap();
    header[8] = 3;
    let crc = crc32c::crc32c(&header[..60]);
    header[60..].copy_from_slice(&crc.to_le_bytes());
    file.write_all_at(&header, 0).unwrap();
    is_refused(data.path(), &[], &["format 3", "newer"]);
    is_refused(data.path(), &["--recover"], &["format 3", "newer"]);
}

#[test]
fn a_directory_that_cannot_be_written_is_refused() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    let path = disk.path().to_str().unwrap();
    disk.make_read_only();
    is_refused(disk.path(), &[], &[path, "ead-only"]);
    is_refused(&disk.data(), &[], &[path, "ead-only"]);
}

#[test]
fn a_directory_has_one_server() {
    let data = Scratch::new("in-use");
    let server = Process::start(data.path(), &[]);
    let (status, said) = refusal(data.path(), &[]);
    assert_eq!(status, Some(2), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("in use"), "{said}");
    assert_eq!(server.connect().ask("SEEN a 1h"), "NEW");
    server.kill();
    let server = Process::start(data.path(), &[]);
    assert_eq!(server.connect().ask("SEEN a 1h"), "DUP");
}

#[test]
fn a_directory_that_was_copied_by_half_is_refused() {
    let data = Scratch::new("half");
    made(data.path(), "h");
    let middle = segments(data.path())[1].clone();
    fs::remove_file(&middle).unwrap();
    let name = middle.file_name().unwrap().to_str().unwrap();
    is_refused(data.path(), &[], &[name, "missing", "--recover"]);
    is_recovered(data.path(), "h", 100..3_900);
}

#[test]
fn a_foreign_file_is_refused() {
    let data = Scratch::new("foreign");
    made(data.path(), "f");
    let note = data.join("notes.txt");
    fs::write(&note, "not a log").unwrap();
    is_refused(data.path(), &[], &["notes.txt"]);
    is_refused(data.path(), &["--recover"], &["notes.txt"]);
    fs::remove_file(&note).unwrap();
    let server = Process::start(data.path(), &[]);
    assert_eq!(missing(&server, "f"), 0);
}

#[test]
fn segments_of_two_logs_are_refused() {
    let data = Scratch::new("mixed");
    let (one, two) = (data.join("one"), data.join("two"));
    made(&one, "a");
    made(&two, "b");
    let other = segments(&two)[1].clone();
    fs::copy(&other, one.join(other.file_name().unwrap())).unwrap();
    is_refused(&one, &[], &["another log", "mixture"]);
    is_refused(&one, &["--recover"], &["another log", "mixture"]);
}

#[test]
fn a_flipped_bit_is_refused_wherever_it_is() {
    let data = Scratch::new("flipped");
    let whole = data.join("whole");
    made(&whole, "k");
    let mut dice = Dice::new(17);
    for at in [100, 160, 4_000, 30_000] {
        let path = data.join(&format!("at-{at}"));
        copy(&whole, &path);
        let damaged = segments(&path)[1].clone();
        let at = at + dice.below(10);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&damaged)
            .unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1 << dice.below(8)], at)
            .unwrap();
        let name = damaged.file_name().unwrap().to_str().unwrap();
        is_refused(&path, &[], &[name, "damaged at byte", "--recover"]);
        // Less than a batch of keys, or what a segment begins with.
        is_recovered(&path, "k", 0..150);
    }
    // The header's beginning, and the secret that vouches for the frames.
    for at in [0, 70] {
        let path = data.join(&format!("header-{at}"));
        copy(&whole, &path);
        let damaged = segments(&path)[1].clone();
        let mut bytes = fs::read(&damaged).unwrap();
        bytes[at] ^= 1;
        fs::write(&damaged, bytes).unwrap();
        is_refused(&path, &[], &["damaged at byte 0"]);
        is_recovered(&path, "k", 100..3_900);
    }
}

/// What a terminal gets from a server that starts, up to these words; the server is stopped then.
fn told_to_a_terminal(path: &Path, until: &str) -> String {
    let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&controller).unwrap();
    unlockpt(&controller).unwrap();
    let name = ptsname(&controller, Vec::new()).unwrap();
    let terminal = OpenOptions::new()
        .write(true)
        .open(name.to_str().unwrap())
        .unwrap();
    let mut server = serve(&[])
        .arg("--data-dir")
        .arg(path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(terminal)
        .spawn()
        .unwrap();
    let mut told = String::new();
    let mut controller = fs::File::from(controller);
    while !told.contains(until) {
        let mut some = [0; 4096];
        let read = controller.read(&mut some).unwrap();
        assert!(read > 0, "{told}");
        told.push_str(&String::from_utf8_lossy(&some[..read]));
    }
    server.kill().unwrap();
    server.wait().unwrap();
    told
}

#[test]
fn a_terminal_shows_how_far_the_reading_has_come() {
    let data = Scratch::new("terminal");
    let path = data.join("live");
    let server = Process::start(&path, &["--fsync", "never"]);
    let mut client = server.connect();
    for first in (0..300_000).step_by(10_000) {
        let keys: String = (first..first + 10_000).map(|n| format!(" k{n}")).collect();
        let letters = client.ask(&format!("MSEEN 1h{keys}"));
        assert_eq!(letters, "N".repeat(10_000));
    }
    server.kill();
    let told = told_to_a_terminal(&path, "keys_per_second");
    let bar = told.find("MiB/").expect("a bar over the log's bytes");
    let (begun, read) = (told.find("listening"), told.find("read the log"));
    assert!(begun < Some(bar) && Some(bar) < read, "{told}");
    let rest = &told[read.unwrap()..];
    assert!(!rest.contains("MiB/"), "the bar is gone by then: {rest}");
}

// --- (e) copies ---------------------------------------------------------------------------------

#[test]
fn a_copy_of_a_running_servers_directory_is_a_backup() {
    const COPIES: usize = 12;
    for (fsync, segment) in [
        ("everysec", "64KiB"),
        ("always", "256KiB"),
        ("never", "1MiB"),
    ] {
        let data = Scratch::new("copied");
        let live = data.join("live");
        let server = Process::start(&live, &["--fsync", fsync, "--log-segment", segment]);
        let is_enough = AtomicBool::new(false);
        let told = [const { AtomicU64::new(0) }; 3];
        let copies: Vec<_> = thread::scope(|scope| {
            for (connection, told) in told.iter().enumerate() {
                let (server, is_enough) = (&server, &is_enough);
                scope.spawn(move || {
                    let mut client = server.connect();
                    let mut n = 0;
                    while !is_enough.load(Ordering::Relaxed) {
                        let requests: String = (n..n + 20)
                            .map(|n| format!("SEEN copied-{connection}-{n} 1h\n"))
                            .collect();
                        client.send(requests);
                        for _ in 0..20 {
                            assert_eq!(client.line(), "NEW");
                        }
                        n += 20;
                        told.store(n, Ordering::Release);
                    }
                });
            }
            let copies = (0..COPIES).map(|number| {
                let before = [0, 1, 2].map(|at| told[at].load(Ordering::Acquire));
                eventually("the load goes on", || {
                    told[0].load(Ordering::Acquire) > before[0] + 200
                });
                let acknowledged = [0, 1, 2].map(|at| told[at].load(Ordering::Acquire));
                let path = data.join(&format!("copy-{number}"));
                copy(&live, &path);
                (path, acknowledged)
            });
            let copies = copies.collect();
            is_enough.store(true, Ordering::Relaxed);
            copies
        });
        server.kill();
        for (path, acknowledged) in copies {
            let server = Process::start(&path, &[]);
            let mut client = server.connect();
            for (connection, &count) in acknowledged.iter().enumerate() {
                for first in (0..count).step_by(1_000) {
                    let last = count.min(first + 1_000);
                    let words: Vec<_> = (first..last)
                        .map(|n| format!("copied-{connection}-{n}"))
                        .collect();
                    let letters = client.ask(&format!("PEEK {}", words.join(" ")));
                    assert_eq!(letters, "D".repeat(words.len()), "{}", path.display());
                }
            }
            server.kill();
            fs::remove_dir_all(&path).unwrap();
        }
    }
}

/// A copy that is restored says by itself that nothing is missing; `--restored` says what was.
#[test]
fn a_restored_copy_is_unsure_of_what_came_after_it() {
    let data = Scratch::new("restored");
    let (live, backup) = (data.join("live"), data.join("backup"));
    let server = Process::start(&live, &[]);
    let mut client = server.connect();
    assert_eq!(client.ask("NS SET default UNSURE REPORT COVERED"), "OK");
    assert_eq!(client.ask("SEEN before-the-copy 1h"), "NEW");
    copy(&live, &backup);
    assert_eq!(client.ask("SEEN after-the-copy 1h"), "NEW");
    server.kill();

    let restored_at = unix_ms();
    let server = Process::start(&backup, &["--restored"]);
    let mut client = server.connect();
    assert_eq!(client.ask("SEEN before-the-copy 1h"), "DUP");
    assert_eq!(client.ask("SEEN after-the-copy 1h"), "UNSURE");
    let unsure_before = covered_since(&server, "default");
    assert!((restored_at..=unix_ms() + 50).contains(&unsure_before));
    assert_eq!(client.ask("NS SET made-later"), "OK");
    assert_eq!(covered_since(&server, "made-later"), unsure_before);
    server.kill();

    // It stays so without being said again.
    let server = Process::start(&backup, &[]);
    assert_eq!(covered_since(&server, "default"), unsure_before);
    assert_eq!(server.connect().ask("SEEN another 1h"), "UNSURE");
}

// --- large changes ------------------------------------------------------------------------------

/// Extends the window of a key with a large value so often in one go that the records of it take `times`
/// times 256 KiB, beside small keys; then a crash.
fn slides(arguments: &[&str], times: usize) {
    const SMALL: usize = 60;
    let data = Scratch::new("slides");
    let server = Process::start(data.path(), arguments);
    let (mut lines, mut redis) = (server.connect(), server.connect());
    let value = "v".repeat(256 << 10);
    assert_eq!(
        redis.call(&["SET", "large", &value, "PX", "3600000"]),
        "+OK"
    );
    let mut requests: String = (0..SMALL).map(|n| format!("SEEN small-{n} 1h\n")).collect();
    requests.extend((0..times).map(|n| format!("SEEN large {}s SLIDE\n", 4_000 + n)));
    lines.send(requests);
    for _ in 0..SMALL {
        assert_eq!(lines.line(), "NEW");
    }
    for _ in 0..times {
        assert_eq!(lines.line(), "DUP");
    }
    let expires = redis.call(&["PEXPIRETIME", "large"]);
    server.kill();
    let server = Process::start(data.path(), arguments);
    let (mut lines, mut redis) = (server.connect(), server.connect());
    for n in 0..SMALL {
        assert_eq!(lines.ask(&format!("SEEN small-{n} 1h")), "DUP");
    }
    assert_eq!(redis.call(&["PEXPIRETIME", "large"]), expires);
    assert_eq!(
        redis.call(&["STRLEN", "large"]),
        format!(":{}", value.len())
    );
}

#[test]
fn changes_that_are_large_together_are_logged() {
    slides(&["--fsync", "always"], 100);
    slides(&["--log-segment", "4MiB"], 20);
}

/// It cannot be logged with its later deadline any more, and is a duplicate all the same.
#[test]
fn a_value_that_segments_have_become_too_small_for_is_known() {
    let data = Scratch::new("smaller-segments");
    let server = Process::start(data.path(), &["--log-segment", "8MiB"]);
    let value = "v".repeat(100 << 10);
    let stored = server
        .connect()
        .call(&["SET", "large", &value, "PX", "3600000"]);
    assert_eq!(stored, "+OK");
    server.kill();
    let server = Process::start(data.path(), &["--log-segment", "64KiB"]);
    let (mut lines, mut redis) = (server.connect(), server.connect());
    let expires = redis.call(&["PEXPIRETIME", "large"]);
    assert_eq!(lines.ask("SEEN large 3h SLIDE"), "DUP");
    assert_eq!(redis.call(&["PEXPIRETIME", "large"]), expires);
    assert!(lines.ask("TOUCH large 3h").starts_with("ERR FULL"));
    assert_eq!(lines.ask("SEEN small 3h SLIDE"), "NEW");
}

#[test]
fn a_batch_that_is_larger_than_a_segment_is_logged() {
    let data = Scratch::new("large-batch");
    let arguments = ["--log-segment", "64KiB"];
    let server = Process::start(data.path(), &arguments);
    let mut client = server.connect();
    let keys: Vec<_> = (0..100)
        .map(|n| format!("{n}-{}", "k".repeat(8_000)))
        .collect();
    let words = keys.join(" ");
    assert_eq!(client.ask(&format!("MSEEN 1h {words}")), "N".repeat(100));
    assert_eq!(client.ask(&format!("MSEEN 1h {words}")), "D".repeat(100));
    let rows = client.ask_all("STATS");
    let segments = rows
        .iter()
        .find_map(|row| row.strip_prefix("log_segments "));
    let segments: u32 = segments.unwrap().parse().unwrap();
    assert!((12..60).contains(&segments), "{segments} for 800 kB");
    server.kill();
    let server = Process::start(data.path(), &arguments);
    assert_eq!(
        server.connect().ask(&format!("MSEEN 1h {words}")),
        "D".repeat(100)
    );
}

// --- (f) torn tails -----------------------------------------------------------------------------

/// The newest segment in which something was written, and where that ends.
fn end_of_log(path: &Path) -> (std::path::PathBuf, u64) {
    for segment in segments(path).into_iter().rev() {
        let bytes = fs::read(&segment).unwrap();
        let end = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) + 1;
        if end > 64 {
            return (segment, end as u64);
        }
    }
    panic!("{} holds nothing", path.display());
}

#[test]
fn a_torn_tail_is_cut_off_and_said() {
    let data = Scratch::new("torn");
    let whole = data.join("whole");
    let server = Process::start(&whole, &[]);
    let mut client = server.connect();
    for n in 0..50 {
        assert_eq!(client.ask(&format!("SEEN torn-{n} 1h")), "NEW");
    }
    server.kill();
    let garbage: Vec<u8> = (0..999_u32).map(|n| (n * 7 + 1) as u8).collect();
    type Tear = fn(&fs::File, u64, &[u8]);
    let tears: [(&str, Tear, u64); 5] = [
        (
            "cut within a frame",
            |file, end, _| file.set_len(end - 5).unwrap(),
            49,
        ),
        (
            "cut within a header",
            |file, end, _| file.set_len(end - 30).unwrap(),
            49,
        ),
        (
            "garbage behind",
            |file, end, garbage| file.write_all_at(garbage, end).unwrap(),
            50,
        ),
        (
            "garbage behind the file's end",
            |mut file, _, garbage| {
                file.seek(SeekFrom::End(0)).unwrap();
                file.write_all(garbage).unwrap();
            },
            50,
        ),
        (
            "garbage over a frame",
            |file, end, garbage| file.write_all_at(garbage, end - 10).unwrap(),
            49,
        ),
    ];
    for (what, tear, left) in tears {
        let path = data.join("torn");
        copy(&whole, &path);
        let (segment, end) = end_of_log(&path);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&segment)
            .unwrap();
        tear(&file, end, &garbage);
        let server = Process::start(&path, &[]);
        let said = server.said();
        let name = segment.file_name().unwrap().to_str().unwrap();
        assert!(
            said.contains("cut off") && said.contains(name),
            "{what}: {said}"
        );
        assert_eq!(server.connect().gauge("keys"), left, "{what}");
        assert_eq!(server.connect().ask("SEEN after 1h"), "NEW", "{what}");
        server.kill();
        let server = Process::start(&path, &[]);
        assert!(!server.said().contains("WARN"), "{what}: {}", server.said());
        assert_eq!(server.connect().gauge("keys"), left + 1, "{what}");
        server.kill();
        fs::remove_dir_all(&path).unwrap();
    }
}

// --- (g) space ----------------------------------------------------------------------------------

#[test]
fn segments_of_lapsed_keys_are_deleted() {
    let data = Scratch::new("lapsed");
    let server = Process::start(data.path(), &["--log-segment", "64KiB"]);
    let mut client = server.connect();
    assert_eq!(client.ask("SEEN stays 1h"), "NEW");
    // Longer than it takes to fill, however busy the machine is.
    fill(&mut client, "lapses-", 20_000, "3s");
    let (most, most_segments) = (client.gauge("log_bytes"), client.gauge("log_segments"));
    assert!(
        most > 400_000 && most_segments > 6,
        "{most} in {most_segments}"
    );
    // The first, with the key that stays, and the one that is written to.
    eventually("segments are deleted", || client.gauge("log_segments") <= 3);
    assert!(client.gauge("log_bytes") < most / 3);
    eventually("their files are gone", || segments(data.path()).len() <= 4);
    server.kill();
    let server = Process::start(data.path(), &[]);
    assert_eq!(server.connect().ask("PEEK stays lapses-1"), "DN");
}

/// Values that are set again and again leave mostly dead bytes, all with long lives.
#[test]
fn a_log_of_mostly_dead_bytes_is_compacted() {
    const ROUNDS: usize = 500;
    let data = Scratch::new("compacted");
    let server = Process::start(data.path(), &["--fsync", "never", "--log-segment", "4MiB"]);
    let mut client = server.connect();
    let mut lines = server.connect();
    fill(&mut lines, "stays-", 20_000, "1h");
    assert_eq!(lines.ask("FORGET stays-7"), "OK 1");
    assert_eq!(lines.ask("TOUCH stays-8 10m"), "OK");
    assert_eq!(lines.ask("TOUCH stays-9 5h"), "OK");
    for round in 0..ROUNDS {
        let value = format!("{round}-").repeat(60_000);
        let key = format!("overwritten-{}", round % 3);
        assert_eq!(client.call(&["SET", &key, &value, "PX", "3600000"]), "+OK");
    }
    eventually("it is compacted", || lines.gauge("log_bytes") < 80 << 20);
    let deadlines = |client: &mut Client| {
        ["stays-1", "stays-8", "stays-9"].map(|key| client.call(&["PEXPIRETIME", key]))
    };
    let before = deadlines(&mut client);
    server.kill();
    let server = Process::start(data.path(), &[]);
    let mut client = server.connect();
    assert_eq!(deadlines(&mut client), before);
    assert_eq!(client.call(&["DBSIZE"]), format!(":{}", 20_000 - 1 + 3));
    for (key, round) in [
        ("overwritten-0", 498),
        ("overwritten-1", 499),
        ("overwritten-2", 497),
    ] {
        let value = client.call(&["GET", key]);
        assert!(
            value == format!("${}", format!("{round}-").repeat(60_000)),
            "{key}"
        );
    }
    server.stop();
}

/// What was set aside for a segment goes back when a server that was killed starts again.
#[test]
fn a_crash_leaves_no_reserved_space_behind() {
    let data = Scratch::new("reserved");
    for _ in 0..4 {
        Process::start(data.path(), &["--log-segment", "8MiB"]).kill();
    }
    let server = Process::start(data.path(), &["--log-segment", "8MiB"]);
    let blocks = |path: &std::path::PathBuf| {
        std::os::unix::fs::MetadataExt::blocks(&fs::metadata(path).unwrap()) * 512
    };
    let bytes: u64 = segments(data.path()).iter().map(blocks).sum();
    assert!(
        bytes <= (8 << 20) * 2 + (1 << 20),
        "{bytes} bytes are taken"
    );
    signal("TERM", server.id());
}

/// What a segment begins with, all namespaces among it, was longer than a segment: nothing fitted behind
/// it, nor into the next one, and segments were made until the disk was full.
#[test]
fn many_namespaces_leave_room_in_a_small_segment() {
    let data = Scratch::new("many");
    let server = Process::start(data.path(), &["--log-segment", "64KiB"]);
    let mut client = server.connect();
    for first in (0..1_000).step_by(100) {
        let numbers = first..first + 100;
        client.send(
            numbers
                .map(|n| format!("NS SET a-namespace-with-a-rather-long-name-{n}\n"))
                .collect::<String>(),
        );
        for _ in 0..100 {
            assert_eq!(client.line(), "OK");
        }
    }
    fill(&mut client, "key-", 20_000, "1h");
    let made = segments(data.path()).len();
    assert!(made < 30, "{made} segments");
    server.kill();
    let server = Process::start(data.path(), &["--log-segment", "64KiB"]);
    assert_eq!(server.connect().gauge("namespaces"), 1_001);
    assert_eq!(server.connect().gauge("keys"), 20_000);
}
