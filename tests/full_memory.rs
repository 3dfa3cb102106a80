//! A server whose memory is full goes on with all that needs none: long requests about keys that are there, or that
//! make room, and those of a namespace that evicts.

#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a test fails by panicking"
)]

mod common;

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use common::process::{Process, Scratch, serve_within};
use common::{Client, TestServer, fill, resp_request};

/// So many keys make a request of some 400 KiB.
const KEYS: usize = 8_000;

/// Words behind a verb: keys of 50 bytes each.
fn keys(name: &str) -> String {
    (0..KEYS).fold(String::new(), |mut words, number| {
        write!(words, " {name}/{}/{number:05}", "k".repeat(38)).unwrap();
        words
    })
}

/// A full server with these keys, each of which is known.
fn full(name: &str) -> (TestServer, String) {
    let server = TestServer::with(|raw| {
        raw.max_memory = Some("8MiB".to_owned());
        raw.workers = Some(1);
    });
    let known = keys(name);
    assert_eq!(
        server.connect().ask(&format!("MSEEN 1h{known}")),
        "N".repeat(KEYS)
    );
    fill(&server);
    (server, known)
}

/// Asks without a word about the request where that fails.
fn answers(client: &mut Client, request: &str, want: &str) {
    let got = client.ask(request);
    let shown = &got[..got.len().min(80)];
    assert!(got == want, "{} was answered {shown}", &request[..6]);
}

#[test]
fn long_requests_that_need_no_memory_are_answered() {
    let (server, known) = full("known");
    let mut client = server.connect();
    for _ in 0..3 {
        answers(&mut client, &format!("PEEK{known}"), &"D".repeat(KEYS));
        answers(&mut client, &format!("MSEEN 1h{known}"), &"D".repeat(KEYS));
    }
    // New ones are refused, one by one, and the connection stays.
    let new = keys("new");
    let letters = client.ask(&format!("MSEEN 1h{new}"));
    let stored = letters.matches('N').count();
    assert_eq!(stored + letters.matches('E').count(), KEYS);
    assert!(
        stored < 100,
        "buffers that were given back made room for {stored}"
    );
    answers(
        &mut client,
        &format!("FORGET{new}"),
        &format!("OK {stored}"),
    );
    answers(
        &mut client,
        &format!("FORGET{known}"),
        &format!("OK {KEYS}"),
    );
}

#[test]
fn commands_of_a_transaction_are_queued() {
    let (server, known) = full("queued");
    let mut client = server.connect();
    assert_eq!(client.call(&["MULTI"]), "+OK");
    let peek: Vec<_> = ["PEEK"]
        .into_iter()
        .chain(known.split_whitespace())
        .collect();
    for _ in 0..2 {
        client.send(resp_request(&peek));
        assert_eq!(client.resp(), "+QUEUED");
    }
    let told = client.call(&["EXEC"]);
    assert_eq!(told.matches('D').count(), 2 * KEYS);
}

/// Sends all but the last word of a request.
fn begin(client: &mut Client, request: &str) {
    client.send(&request[..request.len() - 60]);
}

fn end(client: &mut Client, request: &str) {
    client.send(&request[request.len() - 60..]);
    client.send("\n");
}

#[test]
fn requests_that_come_at_the_same_time_wait_for_one_another() {
    let (server, known) = full("waits");
    let request = format!("PEEK{known}");
    let (mut first, mut second) = (server.connect(), server.connect());
    begin(&mut first, &request);
    begin(&mut second, &request);
    end(&mut second, &request);
    // Whichever of them reads on, the other waits for it.
    end(&mut first, &request);
    for client in [&mut first, &mut second] {
        assert!(client.line() == "D".repeat(KEYS));
    }
}

#[test]
fn who_is_slow_makes_way_for_who_waits() {
    let (server, known) = full("slow");
    let request = format!("PEEK{known}");
    let (mut slow, mut other) = (server.connect(), server.connect());
    begin(&mut slow, &request);
    // It has the room once something of it is counted.
    common::eventually("the slow request is read", || {
        server.gauge("memory_bytes") > 8 << 20
    });
    answers(&mut other, &request, &"D".repeat(KEYS));
    assert!(
        slow.line()
            .starts_with("ERR FULL no memory for more of this request")
    );
    assert!(slow.is_closed());
}

/// It wrote 2,000 lines and ended, the server being full.
#[test]
fn a_filter_over_a_full_server_that_evicts_comes_to_its_end() {
    let server = TestServer::with(|raw| raw.max_memory = Some("4MiB".to_owned()));
    let mut client = server.connect();
    assert_eq!(client.ask("NS SET default FULL EVICT"), "OK");
    let scratch = Scratch::new("filter-full");
    let lines = (0..100_000).fold(String::new(), |mut lines, number| {
        writeln!(lines, "{} {number}", "line".repeat(20)).unwrap();
        lines
    });
    let path = scratch.join("lines");
    fs::write(&path, &lines).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_onced"))
        .args(["filter", "--server", &server.address])
        .arg(&path)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    assert!(
        output.stdout == lines.as_bytes(),
        "{} bytes",
        output.stdout.len()
    );
    assert!(server.gauge("evicted") > 0);
}

/// Nothing told of it but a counter.
#[test]
fn a_full_server_says_so_and_goes_on_once_it_is_given_more() {
    let server = Process::spawn(serve_within("4MiB", &[]));
    let mut client = server.connect();
    let row = |client: &mut Client, name: &str| client.stat(name).unwrap();
    assert_eq!(row(&mut client, "memory"), "ok");
    let padding = "v".repeat(4_000);
    let mut last = String::new();
    for number in 0..2_000 {
        last = client.ask(&format!("SEEN {padding}/{number} 1h"));
        if last != "NEW" {
            break;
        }
    }
    assert_eq!(
        last,
        "ERR FULL no room: max-memory of 4194304 bytes is reached; nothing was stored in namespace 'default'"
    );
    assert_eq!(client.gauge("refused_memory"), 1);
    common::eventually("it is said", || {
        server
            .said()
            .contains("memory is full: new keys are refused")
    });
    assert_eq!(row(&mut client, "memory"), "full");
    // More memory, while it runs.
    assert_eq!(
        server
            .connect()
            .call(&["CONFIG", "SET", "max-memory", "64MiB"]),
        "+OK"
    );
    assert_eq!(client.ask(&format!("SEEN {padding}/more 1h")), "NEW");
    assert_eq!(client.ask("NS SET small MAXKEYS 1"), "OK");
    assert_eq!(client.ask("SEEN a 1h NS small"), "NEW");
    let refused = client.ask("SEEN b 1h NS small");
    assert_eq!(
        refused,
        "ERR FULL no room: namespace 'small' has its MAXKEYS of 1; nothing was stored"
    );
    let rows = client.ask_all("NS INFO small");
    for row in [
        "refused 1",
        "refused_memory 0",
        "refused_keys 1",
        "refused_disk 0",
    ] {
        assert!(rows.iter().any(|told| told == row), "{row}");
    }
    common::eventually("it is said of the namespace too", || {
        let said = server.said();
        said.contains("a namespace is full") && said.contains("small")
    });
    let said = server.stop();
    assert_eq!(
        said.matches("memory is full: new keys are refused").count(),
        1
    );
}
