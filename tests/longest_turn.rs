//! No request holds a worker for longer than a slice: all rows of the command table, with the largest
//! arguments, over many keys and records, measured from inside; and a server that is told to stop in the
//! middle of the longest of them stops in time.
//!
//! In `cargo test` over some keys, in an unoptimized build, with a bound that many times as high. The long
//! form is for a release:
//!
//! ```sh
//! ONCED_TURN_KEYS=10000000 ONCED_TURN_RECORDS=1500000 cargo test --release --test longest_turn -- --nocapture
//! ```

mod common;

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use common::lock_scripts::lock_script;
use common::{Client, PATIENCE, TestServer, resp_request};
use onced::command::spec::{Home, Spec, verbs};
use onced::limits::{DRAIN_MS, Limits, PATTERN_BYTES_MAX, SCRIPT_BYTES_MAX, TOGETHER_KEYS_MAX};
use onced::server::longest;

/// As in the binary, since much of what is long is freeing.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: onced::allocator::Jemalloc = onced::allocator::JEMALLOC;

/// What a worker may be held for, in milliseconds of its own time.
const BOUND_MS: f64 = 5.0;
/// How much slower an unoptimized build is, generously: ten to twenty times for what is measured here.
const UNOPTIMIZED: f64 = 25.0;
const KEYS: usize = Limits::DEFAULT.batch_keys_max;
const LONG_BYTES: usize = Limits::DEFAULT.key_bytes_max;
const VALUE_BYTES: usize = Limits::DEFAULT.body_bytes_max;

fn from_environment(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

fn bound_ms() -> f64 {
    if cfg!(debug_assertions) {
        BOUND_MS * UNOPTIMIZED
    } else {
        BOUND_MS
    }
}

fn words(count: usize, prefix: &str) -> Vec<String> {
    (0..count).map(|n| format!("{prefix}{n}")).collect()
}

/// Requests of a row, in RESP, with the largest arguments that it takes.
#[allow(clippy::too_many_lines, reason = "a table of requests")]
fn largest(spec: &Spec) -> Vec<Vec<String>> {
    let name = match spec.home {
        Home::Native => format!("ONCE.{}", spec.name),
        Home::Redis => spec.name.to_owned(),
    };
    let many = || words(KEYS, "marker");
    let long = format!("L{}", "k".repeat(LONG_BYTES - 1));
    let value = "v".repeat(VALUE_BYTES);
    // As many long keys as a request has room for.
    let long_keys = || -> Vec<String> {
        (0..100)
            .map(|n| format!("{n:03}{}", "k".repeat(LONG_BYTES - 3)))
            .collect()
    };
    let pattern = format!("*{}b", "k".repeat(PATTERN_BYTES_MAX - 2));
    let of = |rest: &[&str]| -> Vec<String> {
        let rest = rest.iter().map(|word| (*word).to_owned());
        std::iter::once(name.clone()).chain(rest).collect()
    };
    let with = |head: &[&str], keys: Vec<String>| [of(head), keys].concat();
    let pairs = |prefix| -> Vec<String> {
        words(KEYS, prefix)
            .into_iter()
            .flat_map(|key| [key, "1".to_owned()])
            .collect()
    };
    match name.as_str() {
        "ONCE.MSEEN" => vec![
            with(&["1h"], many()),
            with(&["1h"], words(KEYS, "new")),
            with(&["1h"], long_keys()),
        ],
        "ONCE.PEEK" | "EXISTS" | "TOUCH" | "MGET" => {
            vec![with(&[], many()), with(&[], long_keys())]
        }
        "ONCE.FORGET" | "DEL" | "UNLINK" => {
            vec![with(&[], words(KEYS, "new")), with(&[], long_keys())]
        }
        "ONCE.MBEGIN" => vec![
            with(&["1h", "1h"], words(KEYS, "job")),
            with(&["1h", "1h"], many()),
        ],
        "ONCE.MCOMPLETE" | "ONCE.MFAIL" => {
            vec![with(&[], pairs("job")), with(&[], pairs("record"))]
        }
        "MSET" => vec![
            with(&[], pairs("item")),
            with(
                &[],
                words(3, "item")
                    .into_iter()
                    .flat_map(|key| [key, value.clone()])
                    .collect(),
            ),
        ],
        "MSETNX" => vec![with(
            &[],
            pairs("together")[..2 * TOGETHER_KEYS_MAX].to_vec(),
        )],
        "BF.MADD" | "BF.MEXISTS" | "SADD" | "SMISMEMBER" => vec![
            with(&["filter"], words(KEYS, "item")),
            with(&["filter"], long_keys()),
        ],
        "BF.INSERT" => vec![with(&["filter", "ITEMS"], words(KEYS, "other"))],
        "SSCAN" => vec![of(&["filter", "0", "MATCH", &pattern, "COUNT", "100000"])],
        "SREM" => vec![with(&["filter"], words(KEYS, "item"))],
        "ONCE.NS" => vec![
            of(&["LIST"]),
            of(&["INFO", "default"]),
            of(&["SET", "default", "TTL", "1h"]),
            of(&["SET", "digests", "KEYS", "DIGEST"]),
            of(&["PURGE", "sixteen"]),
            of(&["DROP", "default"]),
        ],
        "ONCE.COMPLETE" => vec![of(&["record1", "1", "BODY", &value])],
        "ONCE.FAIL" => vec![of(&["record1", "1", "RETRY"])],
        "ONCE.RENEW" => vec![of(&["record1", "1"])],
        "ONCE.BEGIN" => vec![of(&[&long]), of(&["record1"])],
        "ONCE.WAIT" => vec![of(&["record1", "TIMEOUT", "1ms"])],
        "ONCE.SEEN" | "ONCE.TTL" | "ONCE.INSPECT" | "GETDEL" | "DELEX" => vec![of(&[&long])],
        "ONCE.TOUCH" => vec![of(&[&long, "1h"])],
        "ONCE.USE" => vec![of(&["default"])],
        "ONCE.STATS" | "ONCE.HELP" | "ONCE.VERSION" | "ONCE.TIME" | "ONCE.PING" | "ONCE.SYNC"
        | "PING" | "TIME" | "ROLE" | "DBSIZE" | "DISCARD" | "EXEC" | "RESET" | "HELLO" | "INFO" => {
            vec![of(&[])]
        }
        "GET" | "GETEX" | "STRLEN" | "TYPE" | "TTL" | "PTTL" | "EXPIRETIME" | "PEXPIRETIME"
        | "PERSIST" => {
            vec![of(&["big"]), of(&[&long])]
        }
        "DELIFEQ" => vec![of(&["big", &value])],
        "EXPIRE" | "PEXPIRE" => vec![of(&[&long, "3600000"]), of(&["filter", "3600000"])],
        "CONFIG" => vec![with(&["GET"], vec![pattern; 256])],
        "SCAN" => vec![
            of(&["0", "MATCH", &pattern, "COUNT", "100000"]),
            of(&["0", "COUNT", "100000"]),
        ],
        "KEYS" => vec![of(&[&pattern]), of(&["*9999*"])],
        "EVAL" | "EVALSHA" | "SCRIPT" => largest_of_scripts(&name, long_keys()),
        // They end the connection or what follows, or empty all; they come last.
        "MULTI" | "QUIT" | "ONCE.QUIT" | "FLUSHDB" | "FLUSHALL" => Vec::new(),
        other => largest_of_few_words(other, &long, &value)
            .unwrap_or_else(|| panic!("what is the largest {other}?")),
    }
}

/// The same of the commands on scripts.
fn largest_of_scripts(name: &str, long_keys: Vec<String>) -> Vec<Vec<String>> {
    let of = |rest: &[&str], keys: &[String]| -> Vec<String> {
        let rest = rest.iter().map(|word| (*word).to_owned());
        let words = std::iter::once(name.to_owned()).chain(rest);
        words.chain(keys.iter().cloned()).collect()
    };
    match name {
        "EVAL" => {
            let mut requests = vec![
                of(&[&"-- ".repeat(SCRIPT_BYTES_MAX / 3), "0"], &[]),
                of(&[&"v".repeat(VALUE_BYTES), "0"], &[]),
            ];
            for keys in [words(TOGETHER_KEYS_MAX, "lock"), long_keys] {
                for step in ["acquire", "release"] {
                    let text = lock_script("redlock 5", step);
                    let request = of(&[text, &keys.len().to_string()], &keys);
                    let owner = ["me".to_owned(), "3600000".to_owned()];
                    requests.push([&request[..], &owner].concat());
                }
            }
            requests
        }
        "EVALSHA" => vec![of(&[&"0".repeat(40), "1"], &long_keys)],
        _ => vec![
            of(&["EXISTS"], &vec!["0".repeat(40); KEYS]),
            of(&["LOAD", &"v".repeat(VALUE_BYTES)], &[]),
            of(&["FLUSH"], &[]),
        ],
    }
}

/// The same of commands that take few words.
fn largest_of_few_words(name: &str, long: &str, value: &str) -> Option<Vec<Vec<String>>> {
    let of = |rest: &[&str]| -> Vec<String> {
        let words = std::iter::once(name).chain(rest.iter().copied());
        words.map(str::to_owned).collect()
    };
    Some(match name {
        "ECHO" | "AUTH" => vec![of(&[value])],
        "BF.ADD" | "BF.EXISTS" | "SISMEMBER" => vec![of(&["filter", long])],
        "BF.RESERVE" => vec![of(&["reserved", "0.01", "1000000"])],
        "BF.CARD" | "BF.INFO" | "SCARD" | "SMEMBERS" => vec![of(&["filter"])],
        "SET" => vec![of(&[long, value]), of(&["big", value, "GET"])],
        "SETNX" | "GETSET" => vec![of(&[long, value])],
        "SETEX" | "PSETEX" => vec![of(&[long, "3600000", value])],
        "EXPIREAT" | "PEXPIREAT" => vec![of(&[long, "4000000000"])],
        "SELECT" => vec![of(&["0"])],
        "INCR" | "DECR" => vec![of(&["count"])],
        "INCRBY" | "DECRBY" => vec![of(&["count", "7"])],
        "WAIT" => vec![of(&["0", "1"])],
        "CLIENT" => vec![
            of(&["LIST"]),
            of(&["ID"]),
            of(&["KILL", "ID", "1000000"]),
            of(&["KILL", "ADDR", "none"]),
        ],
        "CLUSTER" => vec![of(&["INFO"]), of(&["HELP"])],
        "MODULE" => vec![of(&["LIST"])],
        "SLOWLOG" => vec![of(&["GET"])],
        "LATENCY" => vec![of(&["LATEST"])],
        "MEMORY" => vec![of(&["USAGE", long])],
        "OBJECT" => vec![of(&["ENCODING", long]), of(&["ENCODING", "big"])],
        "COMMAND" => vec![of(&[]), of(&["DOCS"])],
        _ => return None,
    })
}

/// Sends a request and reads its reply; the longest turn, in milliseconds.
fn longest_ms(client: &mut Client, requests: &[Vec<String>]) -> f64 {
    let mut bytes = Vec::new();
    for request in requests {
        let words: Vec<_> = request.iter().map(String::as_str).collect();
        bytes.extend(resp_request(&words));
    }
    longest::take_longest();
    client.send(bytes);
    for _ in requests {
        client.resp();
    }
    longest::take_longest().turn_ns as f64 / 1e6
}

/// Stores markers and records, some of each settled and some in progress, and keys as long as may be.
fn fill(client: &mut Client, keys: usize, records: usize) {
    let in_batches = |client: &mut Client, count: usize, head: &[&str], prefix: &str| {
        let mut done = 0;
        while done < count {
            let upto = count.min(done + KEYS);
            let batch: Vec<_> = (done..upto).map(|n| format!("{prefix}{n}")).collect();
            let words: Vec<_> = head
                .iter()
                .copied()
                .chain(batch.iter().map(String::as_str))
                .collect();
            client.send(resp_request(&words));
            client.resp();
            done = upto;
        }
    };
    in_batches(client, keys, &["ONCE.MSEEN", "10h"], "marker");
    in_batches(client, records, &["ONCE.MBEGIN", "10h", "10h"], "record");
    let mut long = String::new();
    for n in 0..2_000 {
        let _infallible = write!(long, "{n:05}{}", "k".repeat(LONG_BYTES - 5));
        client.send(resp_request(&["ONCE.SEEN", &long, "10h"]));
        client.resp();
        long.clear();
    }
}

#[test]
fn nothing_holds_a_worker_for_longer_than_a_slice() {
    let keys = from_environment("ONCED_TURN_KEYS", 200_000);
    let records = from_environment("ONCED_TURN_RECORDS", 20_000);
    #[cfg(feature = "jemalloc")]
    onced::allocator::settle();
    longest::measure();
    let mut server = TestServer::with(|raw| {
        raw.workers = Some(1);
        raw.max_memory = Some("8GiB".to_owned());
    });
    let mut client = server.connect();
    // What takes many slices takes long where the machine is busy.
    let patience = Some(PATIENCE * 30);
    client.stream.set_read_timeout(patience).expect("a socket");
    let others: Vec<_> = (0..500).map(|_| server.connect()).collect();
    fill(&mut client, keys, records);
    for n in 0..1_000 {
        client.call(&["ONCE.USE", &format!("space{n}")]);
    }
    client.call(&["ONCE.USE", "default"]);
    let mut table = Vec::new();
    for verb in verbs() {
        let spec = verb.spec();
        let requests = largest(spec);
        for request in requests {
            let shown = format!("{} ({} words)", request[0], request.len());
            table.push((longest_ms(&mut client, &[request]), shown));
            client.call(&["RESET"]);
        }
    }
    table.push((exec_ms(&mut client), "EXEC".to_owned()));
    for words in [
        &["ONCE.NS", "PURGE", "default"][..],
        &["FLUSHDB"],
        &["FLUSHALL"],
        &["ONCE.NS", "PURGE", "default", "FORCE"],
        &["QUIT"],
    ] {
        let request = words.iter().map(|word| (*word).to_owned()).collect();
        let began = Instant::now();
        let longest = longest_ms(&mut client, &[request]);
        let whole = began.elapsed();
        table.push((longest, format!("{} (whole: {whole:?})", words.join(" "))));
    }
    table.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    for (ms, request) in table.iter().take(25) {
        println!("{ms:8.3} ms  {request}");
    }
    let (longest, request) = &table[0];
    assert!(
        *longest <= bound_ms(),
        "{request} holds a worker for {longest} ms"
    );
    drop(others);
    server.tell_to_stop();
}

/// The longest turn of a transaction of everything that is long.
fn exec_ms(client: &mut Client) -> f64 {
    let head = |words: &[&str]| {
        words
            .iter()
            .map(|word| (*word).to_owned())
            .collect::<Vec<_>>()
    };
    let mut requests = vec![head(&["MULTI"])];
    for n in 0..10 {
        requests.push(
            [
                head(&["ONCE.MBEGIN", "1h", "1h"]),
                words(KEYS, &format!("exec{n}-")),
            ]
            .concat(),
        );
    }
    for _ in 0..10_000 {
        requests.push(head(&["GET", "marker1"]));
    }
    requests.push(head(&["KEYS", "*9999*"]));
    requests.push(head(&["EXEC"]));
    longest_ms(client, &requests)
}

#[test]
fn a_server_stops_in_the_middle_of_what_is_long() {
    let keys = from_environment("ONCED_TURN_KEYS", 200_000);
    let records = from_environment("ONCED_TURN_RECORDS", 20_000);
    let mut server = TestServer::with(|raw| {
        raw.workers = Some(1);
        raw.max_memory = Some("8GiB".to_owned());
    });
    let mut client = server.connect();
    fill(&mut client, keys, records);
    // A pipeline of the worst of all, on several connections.
    let pattern = format!("*{}b", "k".repeat(PATTERN_BYTES_MAX - 2));
    let mut busy: Vec<_> = (0..4).map(|_| server.connect()).collect();
    for client in &mut busy {
        let mut bytes = Vec::new();
        for _ in 0..200 {
            bytes.extend(resp_request(&["KEYS", &pattern]));
            bytes.extend(resp_request(&[
                "SCAN", "0", "MATCH", &pattern, "COUNT", "100000",
            ]));
            bytes.extend(resp_request(&["ONCE.NS", "PURGE", "default"]));
        }
        client.send(bytes);
    }
    std::thread::sleep(Duration::from_millis(50));
    let began = Instant::now();
    server.tell_to_stop();
    drop(server);
    let took = began.elapsed();
    println!("stopped after {took:?}");
    let most = Duration::from_millis(DRAIN_MS) + PATIENCE / 4;
    assert!(took < most, "it took {took:?} to stop");
}
