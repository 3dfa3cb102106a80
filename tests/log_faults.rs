//! A disk that fails, and a disk that is full, under the real binary.
//!
//! `strace` lets system calls fail; a small tmpfs is full soon. Where there is neither, the tests say that
//! they are skipped.

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

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::process::{Process, Scratch, SmallDisk, serve};
use common::{Client, eventually};

// --- a disk that fails --------------------------------------------------------------------------

/// A server some of whose system calls fail: `fault` as in `strace -e inject`; `None` without strace.
fn faulty(data: &Path, fault: &str, arguments: &[&str]) -> Option<Process> {
    // That it is there does not say that it may trace.
    let works = Command::new("strace")
        .args(["-f", "-o", "/dev/null", "true"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !works.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: no strace that may trace");
        return None;
    }
    let call = fault.split(':').next().unwrap();
    let serve = serve(arguments);
    let mut command = Command::new("strace");
    // -D: the server is the process that is started, and strace watches beside it.
    command.args(["-D", "-f", "-o", "/dev/null"]);
    command.args([
        "-e",
        &format!("trace={call}"),
        "-e",
        &format!("inject={fault}"),
    ]);
    command.arg(serve.get_program()).args(serve.get_args());
    command.arg("--data-dir").arg(data);
    let server = Process::spawn(command);
    server.wait_until_loaded();
    Some(server)
}

fn is_read_only(reply: &str) -> bool {
    reply.starts_with("ERR READONLY") || reply.starts_with("-READONLY")
}

/// Asks for new keys, some at a time, until the log fails; returns those that were acknowledged and those
/// that were not.
fn until_it_fails(client: &mut Client) -> (Vec<String>, Vec<String>) {
    const AT_A_TIME: usize = 7;
    let (mut told, mut open) = (Vec::new(), Vec::new());
    eventually("the log fails", || {
        let keys: Vec<_> = (told.len()..told.len() + AT_A_TIME)
            .map(|n| format!("key-{n}"))
            .collect();
        client.send(
            keys.iter()
                .map(|key| format!("SEEN {key} 1h\n"))
                .collect::<String>(),
        );
        for key in keys {
            match client.line() {
                new if new == "NEW" => told.push(key),
                refused if is_read_only(&refused) => open.push(key),
                other => panic!("{key}: {other}"),
            }
        }
        !open.is_empty()
    });
    (told, open)
}

/// Returns how many keys are in doubt; those that turn out to be known are added to those that are.
fn check_failed(server: &Process, told: &mut Vec<String>, open: &[String]) -> usize {
    let (mut lines, mut redis) = (server.connect(), server.connect());
    for key in &*told {
        assert_eq!(lines.ask(&format!("SEEN {key} 1h")), "DUP", "{key}");
    }
    let known = &told[0].clone();
    assert_eq!(redis.call(&["SET", known, "v", "NX", "PX", "60000"]), "nil");
    assert_eq!(lines.ask(&format!("PEEK {known}")), "D");
    assert_eq!(lines.ask("PING"), "PONG");
    let mut in_doubt = 0;
    for key in open {
        let is_known = lines.ask(&format!("PEEK {key}"));
        match is_known.as_str() {
            // Of what was sent together, some may have been safe before.
            "D" => {
                told.push(key.clone());
                continue;
            }
            // Refused when the log had failed already.
            "N" => assert_eq!(lines.ask(&format!("TTL {key}")), "NIL", "{key}"),
            _ => {
                assert!(is_read_only(&is_known), "{key}: {is_known}");
                in_doubt += 1;
                for request in ["TTL", "FORGET", "MSEEN 1h", "PEEK other"] {
                    let reply = lines.ask(&format!("{request} {key}"));
                    assert!(is_read_only(&reply), "{request} {key}: {reply}");
                }
            }
        }
        let reply = lines.ask(&format!("SEEN {key} 1h"));
        assert!(is_read_only(&reply), "{key}: {reply}");
        let reply = redis.call(&["SET", key, "v", "NX", "PX", "60000"]);
        assert!(is_read_only(&reply), "{key}: {reply}");
    }
    for request in [
        "SEEN never 1h".to_owned(),
        format!("FORGET {known}"),
        format!("TOUCH {known} 2h"),
        "NS SET other".to_owned(),
        "NS SET default TTL 5m".to_owned(),
        "NS PURGE default".to_owned(),
        "SEEN never 1h NS default".to_owned(),
        "SYNC".to_owned(),
    ] {
        let reply = lines.ask(&request);
        assert!(is_read_only(&reply), "{request}: {reply}");
    }
    // What is known is known, also where its window cannot be extended any more.
    assert_eq!(lines.ask(&format!("SEEN {known} 2h SLIDE")), "DUP");
    for request in [
        &["SET", "never", "v", "NX", "PX", "60000"][..],
        &["SET", known, "v"],
        &["SET", known, "v", "KEEPTTL"],
        &["DEL", known],
        &["GETDEL", known],
        &["PEXPIRE", known, "1000"],
        &["PEXPIRE", known, "99999999"],
        &["FLUSHALL"],
        &["BF.ADD", "default", "never"],
        &["SADD", "never", "never"],
        &["INCR", known],
        &["INCR", "never"],
        &["MSET", "never", "v"],
        &["MSETNX", "never", "v", "either", "v"],
    ] {
        let reply = redis.call(request);
        assert!(is_read_only(&reply), "{request:?}: {reply}");
    }
    assert_eq!(lines.ask(&format!("MSEEN 1h {known} never")), "DE");
    assert_eq!(lines.ask(&format!("PEEK {known} never")), "DN");
    assert_eq!(redis.call(&["GET", known]), "$1");
    let rows = lines.ask_all("STATS");
    for row in ["ready no", "log failed"] {
        assert!(rows.contains(&row.to_owned()), "no {row} in {rows:?}");
    }
    in_doubt
}

fn fails(fsync: &str, segment: &str, fault: &str) {
    let data = Scratch::new("faulty");
    for stops_in_order in [false, true] {
        let path = data.join(if stops_in_order { "stopped" } else { "killed" });
        let arguments = ["--fsync", fsync, "--log-segment", segment];
        let Some(server) = faulty(&path, fault, &arguments) else {
            return;
        };
        let (mut told, open) = until_it_fails(&mut server.connect());
        assert!(!told.is_empty(), "{fault} came too early");
        let in_doubt = check_failed(&server, &mut told, &open);
        let was_under_way = fsync == "always" && !fault.starts_with("fallocate");
        assert!(in_doubt > 0 || !was_under_way, "{fault}");
        let said = if stops_in_order {
            server.stop()
        } else {
            server.kill()
        };
        assert!(said.contains("no changes are taken"), "{said}");

        let server = Process::start(&path, &["--fsync", fsync]);
        let mut client = server.connect();
        for key in &told {
            assert_eq!(client.ask(&format!("SEEN {key} 1h")), "DUP", "{key}");
        }
        assert_eq!(client.ask("SEEN afterwards 1h"), "NEW");
        let rows = client.ask_all("STATS");
        for row in ["ready yes", "log ok"] {
            assert!(rows.contains(&row.to_owned()), "{rows:?}");
        }
    }
}

#[test]
fn a_failed_sync_ends_the_changes_under_always() {
    fails("always", "64KiB", "fdatasync:error=EIO:when=9+");
    // Once is enough: nobody knows what became of the pages.
    fails("always", "64KiB", "fdatasync:error=EIO:when=12");
}

#[test]
fn a_failed_sync_ends_the_changes_under_everysec() {
    fails("everysec", "64MiB", "fdatasync:error=EIO:when=3+");
}

#[test]
fn a_failed_write_ends_the_changes() {
    fails("always", "64KiB", "pwrite64:error=EIO:when=30+");
    fails("everysec", "1MiB", "pwrite64:error=EIO:when=30+");
    fails("never", "1MiB", "pwrite64:error=EIO:when=30");
}

#[test]
fn a_segment_that_cannot_be_made_ends_the_changes() {
    fails("never", "64KiB", "fallocate:error=EIO:when=3+");
}

/// Some file systems cannot set space aside: then a write may lack it, and is tried again.
#[test]
fn a_write_without_space_is_tried_again() {
    for fsync in ["everysec", "always", "never"] {
        let data = Scratch::new("stuck");
        let fault = "pwrite64:error=ENOSPC:when=25..35";
        let arguments = ["--fsync", fsync, "--log-segment", "64KiB"];
        let Some(server) = faulty(data.path(), fault, &arguments) else {
            return;
        };
        let mut client = server.connect();
        let mut told = Vec::new();
        // Waits for a sync of what there may be no space to write for now.
        let mut syncing = server.connect();
        for n in 0..200 {
            if n % 20 == 5 {
                syncing.send("SYNC\n");
            }
            match client.ask(&format!("SEEN key-{n} 1h")) {
                new if new == "NEW" => told.push(n),
                full => assert!(full.starts_with("ERR FULL"), "{full}"),
            }
        }
        eventually("it goes on", || client.ask("SEEN again 1h") == "DUP");
        assert!(told.len() > 20, "{told:?}");
        for _ in 0..10 {
            assert_eq!(syncing.line(), "OK");
        }
        server.kill();
        let server = Process::start(data.path(), &[]);
        let mut client = server.connect();
        for n in 0..200 {
            let letter = if told.contains(&n) { "D" } else { "N" };
            assert_eq!(
                client.ask(&format!("PEEK key-{n}")),
                letter,
                "key-{n}, {fsync}"
            );
        }
    }
}

/// What processes share may run out for a while, which says nothing of the disk.
#[test]
fn a_segment_that_cannot_be_made_for_a_while_is_made_later() {
    let data = Scratch::new("for-a-while");
    // Some of them are of what compaction sets aside.
    let fault = "fallocate:error=EMFILE:when=3..30";
    let Some(server) = faulty(data.path(), fault, &["--log-segment", "64KiB"]) else {
        return;
    };
    let mut client = server.connect();
    let keys: Vec<_> = (0..5_000).map(|n| format!("key-{n}")).collect();
    let mut told = Vec::new();
    for key in keys {
        match client.ask(&format!("SEEN {key} 1h")) {
            new if new == "NEW" => told.push(key),
            full => assert!(full.starts_with("ERR FULL"), "{full}"),
        }
    }
    wait_for_space(&mut client);
    assert_eq!(client.ask("SEEN afterwards 1h"), "NEW");
    assert_eq!(letters(&mut client, &told), "D".repeat(told.len()));
    let said = server.kill();
    assert!(said.contains("Too many open files"), "{said}");
}

/// Where the replies of a batch are taken back, there are as many refusals as there would have been
/// replies: one too many, and every later answer would belong to another question.
#[test]
fn as_many_replies_are_taken_back_as_were_due() {
    let data = Scratch::new("due");
    let fault = "fdatasync:error=EIO:when=9+";
    let arguments = ["--fsync", "always", "--log-segment", "64KiB"];
    let Some(server) = faulty(data.path(), fault, &arguments) else {
        return;
    };
    let mut client = server.connect();
    let mut n = 0;
    eventually("the log fails", || {
        n += 1;
        let (a, b, c) = (format!("a-{n}"), format!("b-{n}"), format!("c-{n}"));
        let mut requests = Vec::new();
        for words in [
            &["CLIENT", "REPLY", "SKIP"][..],
            &["SET", &a, "v"],
            &["SET", &b, "v"],
            &["CLIENT", "REPLY", "OFF"],
            &["SET", &c, "v"],
            &["CLIENT", "REPLY", "ON"],
        ] {
            requests.extend(common::resp_request(words));
        }
        client.send(requests);
        // Those of b and of ON.
        let replies = [client.resp(), client.resp()];
        assert_eq!(client.call(&["PING"]), "+PONG", "{replies:?}");
        is_read_only(&replies[0])
    });
}

/// Whoever looks after a server whose disk hangs is answered.
#[test]
fn what_rests_on_no_log_does_not_wait_for_it() {
    let data = Scratch::new("hangs");
    let fault = "fdatasync:delay_enter=3000000:when=12+";
    let arguments = ["--fsync", "always", "--log-segment", "64KiB"];
    let Some(server) = faulty(data.path(), fault, &arguments) else {
        return;
    };
    let (mut asking, mut looking, mut redis) =
        (server.connect(), server.connect(), server.connect());
    let mut n = 0;
    eventually("a sync takes long", || {
        n += 1;
        let began = Instant::now();
        assert_eq!(asking.ask(&format!("SEEN key-{n} 1h")), "NEW");
        began.elapsed() > Duration::from_secs(2)
    });
    asking.send("SEEN waits 1h\n");
    let began = Instant::now();
    eventually("the change is made", || {
        looking.gauge("log_unsynced_bytes") > 0
    });
    for request in ["PING", "TIME", "VERSION", "HELP PING", "STATS"] {
        looking.ask_all(request);
    }
    for request in [
        &["PING"][..],
        &["ECHO", "a"],
        &["INFO"],
        &["CLIENT", "LIST"],
        &["CONFIG", "GET", "maxmemory"],
        &["COMMAND", "COUNT"],
        &["HELLO", "3"],
        &["TIME"],
    ] {
        redis.call(request);
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!(
        looking.gauge("log_unsynced_bytes") > 0,
        "it came too late to show anything"
    );
    // What tells of a key does wait.
    assert_eq!(looking.ask("PEEK waits"), "D");
    assert!(began.elapsed() > Duration::from_secs(1));
    assert_eq!(asking.line(), "NEW");
}

// --- a disk that is full ------------------------------------------------------------------------

/// Asks for new keys until that many are refused; returns those that were taken, and those that were not.
fn until_full(client: &mut Client, prefix: &str, ttl: &str) -> (Vec<String>, Vec<String>) {
    let (mut told, mut refused) = (Vec::new(), Vec::new());
    eventually("the disk is full", || {
        let first = told.len() + refused.len();
        let keys: Vec<_> = (first..first + 50)
            .map(|n| format!("{prefix}{n}"))
            .collect();
        client.send(
            keys.iter()
                .map(|key| format!("SEEN {key} {ttl}\n"))
                .collect::<String>(),
        );
        for key in keys {
            match client.line() {
                new if new == "NEW" => told.push(key),
                full => {
                    assert!(full.starts_with("ERR FULL no "), "{key}: {full}");
                    refused.push(key);
                }
            }
        }
        refused.len() > 100
    });
    // What does not fit together may fit one by one.
    let (more, refused) = refused.into_iter().partition(|key| {
        let reply = client.ask(&format!("SEEN {key} {ttl}"));
        assert!(reply == "NEW" || reply.starts_with("ERR FULL"), "{reply}");
        reply == "NEW"
    });
    told.extend::<Vec<_>>(more);
    (told, refused)
}

fn wait_for_space(client: &mut Client) {
    eventually("there is space", || {
        client.ask_all("STATS").contains(&"log ok".to_owned())
    });
}

fn letters(client: &mut Client, keys: &[String]) -> String {
    let asked = keys.chunks(1_000);
    asked
        .map(|keys| client.ask(&format!("PEEK {}", keys.join(" "))))
        .collect()
}

#[test]
fn a_full_disk_refuses_and_goes_on_when_there_is_space() {
    for (fsync, segment) in [
        ("everysec", "64KiB"),
        ("always", "64KiB"),
        ("never", "64MiB"),
    ] {
        let Some(disk) = SmallDisk::mount() else {
            return;
        };
        let filler = disk.path().join("filler");
        fs::write(&filler, vec![1; 300 << 10]).unwrap();
        let arguments = ["--fsync", fsync, "--log-segment", segment];
        let server = Process::start(&disk.data(), &arguments);
        let (mut lines, mut redis) = (server.connect(), server.connect());
        assert_eq!(
            redis.call(&["SET", "large", &"v".repeat(5_000), "PX", "3600000"]),
            "+OK"
        );
        let (told, refused) = until_full(&mut lines, "key-", "1h");
        assert!(told.len() > 3_000, "{} fit", told.len());
        assert_eq!(letters(&mut lines, &told), "D".repeat(told.len()));
        assert_eq!(letters(&mut lines, &refused), "N".repeat(refused.len()));
        let rows = lines.ask_all("STATS");
        for row in ["ready yes", "log full"] {
            assert!(rows.contains(&row.to_owned()), "{rows:?}");
        }
        let out_of_memory = redis.call(&["SET", &refused[0], "v", "NX", "PX", "60000"]);
        assert!(out_of_memory.starts_with("-OOM"), "{out_of_memory}");
        // Not there is not there, with or without space; known is known.
        assert_eq!(redis.call(&["DEL", &refused[0]]), ":0");
        assert_eq!(lines.ask(&format!("SEEN {} 1h", told[0])), "DUP");
        for request in [
            "NS SET made-on-a-full-disk".to_owned(),
            format!("SEEN {} 3h SLIDE", told[0]),
            "SEEN large 3h SLIDE".to_owned(),
            format!("TOUCH {} 3h", told[1]),
        ] {
            let reply = lines.ask(&request);
            let is_known = reply.starts_with("ERR FULL") || reply == "OK" || reply == "DUP";
            assert!(is_known, "{request}: {reply}");
        }
        let last = refused.last().unwrap();
        assert!(
            lines
                .ask(&format!("SEEN {last} 1h"))
                .starts_with("ERR FULL")
        );

        fs::remove_file(&filler).unwrap();
        wait_for_space(&mut lines);
        assert_eq!(lines.ask(&format!("SEEN {last} 1h")), "NEW");
        assert_eq!(lines.ask(&format!("SEEN {last} 1h")), "DUP");
        let not_asked_again = &refused[..refused.len() - 1];
        let expires = |client: &mut Client| {
            [&told[0], &told[1], "large"].map(|key| client.call(&["PEXPIRETIME", key]))
        };
        let before = expires(&mut redis);
        server.kill();
        let server = Process::start(&disk.data(), &arguments);
        let mut client = server.connect();
        assert_eq!(letters(&mut client, &told), "D".repeat(told.len()));
        assert_eq!(
            letters(&mut client, not_asked_again),
            "N".repeat(not_asked_again.len())
        );
        assert_eq!(client.ask(&format!("PEEK {last} large")), "DD");
        assert_eq!(expires(&mut server.connect()), before);
    }
}

#[test]
fn a_full_disk_has_space_again_once_keys_have_lapsed() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    let server = Process::start(&disk.data(), &["--log-segment", "64KiB"]);
    let mut client = server.connect();
    for round in 0..3 {
        let prefix = format!("round-{round}-{}", "k".repeat(200));
        let (told, refused) = until_full(&mut client, &prefix, "1500ms");
        assert!(told.len() > 100, "{} fit", told.len());
        wait_for_space(&mut client);
        assert_eq!(client.ask(&format!("SEEN {} 1500ms", refused[0])), "NEW");
    }
}

/// A few keys of each segment live on, so none goes as a whole, and there is no space for what is to make
/// some.
#[test]
fn a_disk_that_its_log_has_filled_has_space_again_and_a_start() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    let arguments = ["--log-segment", "64KiB"];
    let server = Process::start(&disk.data(), &arguments);
    let mut client = server.connect();
    let padding = "k".repeat(200);
    let (mut long, mut n) = (Vec::new(), 0);
    eventually("the disk is full", || {
        n += 1;
        let many = (0..50).map(|i| format!("SEEN {padding}{n}.{i} 3s\n"));
        client.send(format!("SEEN long-{n} 1h\n{}", many.collect::<String>()));
        let replies: Vec<_> = (0..51).map(|_| client.line()).collect();
        if replies[0] == "NEW" {
            long.push(format!("long-{n}"));
        }
        replies[50].starts_with("ERR FULL") && client.gauge("log_bytes") > 700 << 10
    });
    assert!(long.len() > 50, "{} fit", long.len());
    let mut server = server;
    // Before anything lapses, and once it has.
    for round in 0..3 {
        server.kill();
        server = Process::start(&disk.data(), &arguments);
        let mut client = server.connect();
        assert_eq!(letters(&mut client, &long), "D".repeat(long.len()));
        if round == 0 {
            continue;
        }
        // As many again as the disk has room for, and half as many.
        let (mut taken, mut n) = (0, 0);
        eventually("new keys are taken", || {
            n += 1;
            let many = (0..50).map(|i| format!("SEEN {padding}{round}.{n}.{i} 500ms\n"));
            client.send(many.collect::<String>());
            taken += (0..50).filter(|_| client.line() == "NEW").count();
            taken > 6_000
        });
        assert_eq!(letters(&mut client, &long), "D".repeat(long.len()));
    }
}

/// A server that was killed on a full disk starts again.
#[test]
fn a_server_on_a_full_disk_starts_again() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    let filler = disk.path().join("filler");
    fs::write(&filler, vec![1; 300 << 10]).unwrap();
    let arguments = ["--log-segment", "64KiB"];
    let server = Process::start(&disk.data(), &arguments);
    let (told, refused) = until_full(&mut server.connect(), "key-", "1h");
    server.kill();
    fs::remove_file(&filler).unwrap();
    let server = Process::start(&disk.data(), &arguments);
    let mut client = server.connect();
    assert_eq!(letters(&mut client, &told), "D".repeat(told.len()));
    assert_eq!(letters(&mut client, &refused), "N".repeat(refused.len()));
    assert_eq!(client.ask(&format!("SEEN {} 1h", refused[0])), "NEW");
}

/// A window that is extended is logged with the key's value: there may be space for a key and not for that.
#[test]
fn a_window_whose_value_does_not_fit_is_not_extended() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    let filler = disk.path().join("filler");
    fs::write(&filler, vec![1; 300 << 10]).unwrap();
    let server = Process::start(&disk.data(), &["--log-segment", "64KiB"]);
    let (mut lines, mut redis) = (server.connect(), server.connect());
    let large = "v".repeat(5_000);
    let store = |redis: &mut Client, key: &str| redis.call(&["SET", key, &large, "PX", "3600000"]);
    assert_eq!(store(&mut redis, "large"), "+OK");
    let mut n = 0;
    eventually("no large value fits", || {
        n += 1;
        store(&mut redis, &format!("large-{n}")) != "+OK"
    });
    assert_eq!(lines.ask("SEEN small 1h"), "NEW", "there is space for that");
    let expires = redis.call(&["PEXPIRETIME", "large"]);
    let reply = lines.ask("SEEN large 3h SLIDE");
    assert!(reply.starts_with("ERR FULL"), "{reply}");
    assert_eq!(redis.call(&["PEXPIRETIME", "large"]), expires);
}

/// `ulimit -f`, and the signal that comes with it.
#[test]
fn a_limit_on_the_size_of_files_is_no_end() {
    let scratch = Scratch::new("file-size");
    let limited = |segment: &str| {
        let serve = serve(&["--log-segment", segment]);
        let mut command = Command::new("sh");
        // In blocks of 512 bytes.
        command.args(["-c", "ulimit -f 1024; exec \"$@\"", "sh"]);
        command.arg(serve.get_program()).args(serve.get_args());
        command.arg("--data-dir").arg(scratch.path().join(segment));
        Process::spawn(command)
    };
    for segment in ["64KiB", "64MiB"] {
        let server = limited(segment);
        server.wait_until_loaded();
        let mut client = server.connect();
        let keys: Vec<_> = (0..30_000)
            .map(|n| format!("a-key-of-some-length-{n}"))
            .collect();
        for keys in keys.chunks(1_000) {
            let told = client.ask(&format!("MSEEN 1h {}", keys.join(" ")));
            assert_eq!(told, "N".repeat(keys.len()));
        }
        server.kill();
        let server = limited(segment);
        server.wait_until_loaded();
        assert_eq!(
            letters(&mut server.connect(), &keys),
            "D".repeat(keys.len())
        );
    }
}

/// Its keys' form cannot be changed while that cannot be logged; the namespace goes on as it was.
#[test]
fn a_form_that_cannot_be_logged_is_not_changed() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    let filler = disk.path().join("filler");
    fs::write(&filler, vec![1; 300 << 10]).unwrap();
    let server = Process::start(&disk.data(), &["--log-segment", "64KiB"]);
    let mut client = server.connect();
    assert_eq!(client.ask("NS SET empty"), "OK");
    until_full(&mut client, "key-", "1h");
    // Until the last bytes are gone.
    let mut n = 0;
    eventually("no namespace fits", || {
        n += 1;
        client.ask(&format!("NS SET filling-{n}")) != "OK"
    });
    let reply = client.ask("NS SET empty KEYS DIGEST");
    assert!(reply.starts_with("ERR FULL"), "{reply}");
    let reply = client.ask("SEEN a 1h NS empty");
    assert!(reply.starts_with("ERR FULL"), "{reply}");
    fs::remove_file(&filler).unwrap();
    wait_for_space(&mut client);
    assert_eq!(client.ask("SEEN a 1h NS empty"), "NEW");
    assert_eq!(client.ask("NS SET empty-too KEYS DIGEST"), "OK");
}

/// Lets a process write no further than this into any file from now on; `None` lifts that.
fn limit_files(server: &Process, bytes: Option<u64>) {
    let pid = rustix::process::Pid::from_raw(server.id() as i32).unwrap();
    let limit = rustix::process::Rlimit {
        current: bytes,
        maximum: None,
    };
    rustix::process::prlimit(Some(pid), rustix::process::Resource::Fsize, limit).unwrap();
}

/// What was reserved is not there any more, so what was changed cannot be written: nobody waits for ever, what is
/// told is true, and once there is space all goes on.
#[test]
fn what_cannot_be_written_any_more_is_left_open_until_it_can() {
    for fsync in ["everysec", "always"] {
        let data = Scratch::new("left-open");
        let arguments = ["--fsync", fsync, "--log-segment", "1MiB"];
        let server = Process::start(data.path(), &arguments);
        let (mut asking, mut looking, mut redis) =
            (server.connect(), server.connect(), server.connect());
        for key in ["known", "other"] {
            assert_eq!(asking.ask(&format!("SEEN {key} 1h")), "NEW");
        }
        // Nothing is unsynced but what comes now.
        assert_eq!(asking.ask("SYNC"), "OK");
        limit_files(&server, Some(100));
        let began = Instant::now();
        asking.send("SEEN open 1h\n");
        // It is not known yet that there is no space: this waits too, and is told no more.
        let mut reading = server.connect();
        eventually("the change is made", || {
            looking.gauge("log_unsynced_bytes") > 0
        });
        reading.send("PEEK known\n");
        assert_eq!(looking.ask("PING"), "PONG");
        assert!(redis.call(&["INFO"]).contains("uptime"));
        assert!(
            began.elapsed() < Duration::from_millis(1_500),
            "{:?}",
            began.elapsed()
        );
        for client in [&mut asking, &mut reading] {
            let reply = client.line();
            assert!(is_read_only(&reply), "{fsync}: {reply}");
        }
        let took = began.elapsed();
        assert!(took > Duration::from_millis(1_500), "{took:?}");
        assert!(took < Duration::from_secs(8), "{took:?}");

        for _ in 0..2 {
            for request in ["SEEN open 1h", "PEEK open", "FORGET open", "SYNC"] {
                let reply = asking.ask(request);
                assert!(is_read_only(&reply), "{fsync}, {request}: {reply}");
            }
            for request in ["SEEN new 1h", "FORGET known", "NS SET made"] {
                let reply = asking.ask(request);
                assert!(reply.starts_with("ERR FULL"), "{fsync}, {request}: {reply}");
            }
            assert_eq!(asking.ask("SEEN known 1h"), "DUP");
            assert_eq!(asking.ask("PEEK known new other"), "DND");
            assert_eq!(asking.ask("MSEEN 1h known new"), "DE");
            assert_eq!(redis.call(&["GET", "known"]), "$1");
            let rows = looking.ask_all("STATS");
            for row in ["ready yes", "log full"] {
                assert!(rows.contains(&row.to_owned()), "{rows:?}");
            }
        }

        limit_files(&server, None);
        eventually("it goes on", || asking.ask("PEEK open") == "D");
        assert_eq!(asking.ask("SEEN open 1h"), "DUP");
        eventually("changes are taken", || {
            let reply = asking.ask("SEEN new 1h");
            reply == "NEW" || reply == "DUP"
        });
        assert_eq!(asking.ask("SYNC"), "OK");

        // It ends in time too.
        limit_files(&server, Some(100));
        asking.send("SEEN last 1h\n");
        let began = Instant::now();
        server.stop();
        assert!(
            began.elapsed() < Duration::from_secs(9),
            "{:?}",
            began.elapsed()
        );
        let server = Process::start(data.path(), &[]);
        assert_eq!(server.connect().ask("PEEK known other open new"), "DDDD");
    }
}
