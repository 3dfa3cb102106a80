//! Held replies, and what goes on behind them on their own connection.
//!
//! Who waits for what, on connections of their own, is in `records.rs`.

#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a test fails by panicking"
)]

mod common;

use std::time::{Duration, Instant};

use common::process::Dice;
use common::{Client, PATIENCE, TestServer, eventually, resp_request, token};

fn request(is_resp: bool, words: &str) -> Vec<u8> {
    if is_resp {
        resp_request(&words.split(' ').collect::<Vec<_>>())
    } else {
        format!("{words}\n").into_bytes()
    }
}

/// A reply's words, with what stands behind its line; tokens are left out.
fn reply(client: &mut Client, is_resp: bool) -> String {
    if is_resp {
        let told = client.resp();
        let words = told
            .trim_matches(['[', ']'])
            .replace([',', '+', ':', '$'], "");
        return without_token(&words);
    }
    let head = client.line();
    if head.starts_with("DONE ") || head.starts_with("FAILED ") {
        let (code, _len) = head.rsplit_once(' ').unwrap();
        return format!("{code} {}", client.line());
    }
    without_token(&head)
}

fn without_token(words: &str) -> String {
    let words: Vec<_> = words.split(' ').collect();
    match words[..] {
        ["RUN", _, lease, attempt] => format!("RUN {lease} {attempt}"),
        ["BUSY", _] => "BUSY".to_owned(),
        _ => words.join(" "),
    }
}

fn held(server: &TestServer, replies: u64) {
    eventually("the reply is held", || server.gauge("waiters") == replies);
}

/// Two tasks of a program with one connection: one does the work, the other waits for it. The holder's own
/// RENEW and COMPLETE stood behind the other's BEGIN, so the lease lapsed and the work was done twice.
#[test]
fn a_holder_renews_and_completes_behind_a_held_reply() {
    for is_resp in [false, true] {
        let server = TestServer::start();
        let (mut client, mut watcher) = (server.connect(), server.connect());
        client.send(request(is_resp, "BEGIN k LEASE 2s"));
        let told = if is_resp {
            client.resp()
        } else {
            client.line()
        };
        let run = told
            .split([' ', ',', ':'])
            .find(|word| word.parse::<u64>().is_ok());
        let run = run.unwrap().to_owned();
        client.send(request(is_resp, "BEGIN k WAIT 10s"));
        held(&server, 1);
        let began = Instant::now();
        client.send(request(is_resp, &format!("RENEW k {run} LEASE 1h")));
        eventually("the lease is renewed", || {
            let rows = watcher.ask_all("INSPECT k");
            let lease = rows.iter().find_map(|row| row.strip_prefix("lease_ms "));
            lease.unwrap().parse::<u64>().unwrap() > 60_000
        });
        client.send(request(is_resp, &format!("COMPLETE k {run} BODY paid")));
        assert_eq!(reply(&mut client, is_resp), "DONE 0 paid");
        assert_eq!(reply(&mut client, is_resp), "OK 3600000");
        assert_eq!(reply(&mut client, is_resp), "OK");
        assert!(began.elapsed() < Duration::from_secs(9));
    }
}

#[test]
fn requests_behind_take_effect_when_they_come_and_are_answered_in_order() {
    let server = TestServer::start();
    let (mut holder, mut client) = (server.connect(), server.connect());
    let a = token(&holder.ask("BEGIN a"));
    let b = token(&holder.ask("BEGIN b"));
    client.send(
        "SEEN before\nWAIT a\nSEEN one\nWAIT b\nSEEN two\nUSE other\nSEEN one\nNOSUCH\nSEEN one\n",
    );
    assert_eq!(client.line(), "NEW");
    held(&server, 2);
    eventually("all was executed", || holder.ask("PEEK one two") == "DD");
    // The later one may be settled first.
    assert_eq!(holder.ask(&format!("COMPLETE b {b} BODY y")), "OK");
    held(&server, 1);
    assert_eq!(holder.ask(&format!("COMPLETE a {a} BODY x")), "OK");
    for told in ["DONE 0 x", "NEW", "DONE 0 y", "NEW", "OK", "NEW"] {
        assert_eq!(reply(&mut client, false), told);
    }
    assert!(client.line().starts_with("ERR UNKNOWN"));
    assert_eq!(client.line(), "DUP");
}

#[test]
fn what_may_grant_a_lease_waits_until_its_reply_can_be_sent() {
    let server = TestServer::start();
    let (mut holder, mut client) = (server.connect(), server.connect());
    let run = token(&holder.ask("BEGIN k"));
    for words in [
        "WAIT k",
        "BEGIN free LEASE 1s",
        "MBEGIN 1h 30s many",
        "SEEN seen 1h",
        "MULTI",
        "BEGIN inside",
        "SEEN inside-too",
        "EXEC",
        "MULTI",
        "SEEN harmless",
        "EXEC",
        "BEGIN k WAIT 10s",
    ] {
        let words = if words == "WAIT k" {
            "ONCE.WAIT k"
        } else {
            words
        };
        client.send(request(true, words));
    }
    held(&server, 1);
    eventually("what grants none is executed", || {
        holder.ask("PEEK seen harmless") == "DD"
    });
    assert_eq!(holder.ask("PEEK free many inside inside-too"), "NNNN");
    // Others may take what it will ask for.
    let taken = token(&holder.ask("BEGIN many"));
    assert_eq!(holder.ask(&format!("COMPLETE k {run} BODY x")), "OK");
    assert_eq!(client.resp(), "[+DONE, :0, $x]");
    assert!(client.resp().ends_with(", :1000, :1]"));
    assert_eq!(client.resp(), "[$B]");
    assert_eq!(client.resp(), "+NEW");
    for told in ["+OK", "+QUEUED", "+QUEUED"] {
        assert_eq!(client.resp(), told);
    }
    let told = client.resp();
    assert!(
        told.starts_with("[[+RUN, :") && told.ends_with("], +NEW]"),
        "{told}"
    );
    for told in ["+OK", "+QUEUED", "[+NEW]", "[+DONE, :0, $x]"] {
        assert_eq!(client.resp(), told);
    }
    assert_eq!(holder.ask("PEEK free many inside inside-too"), "BBBD");
    assert_eq!(holder.ask(&format!("RENEW many {taken}")), "OK 30000");
}

/// What is executed behind a held reply is in the namespace of its arrival, and leaves the connection in its own.
#[test]
fn a_namespace_that_was_chosen_behind_a_held_reply_is_not_that_of_the_connection() {
    let server = TestServer::start();
    let (mut holder, mut client) = (server.connect(), server.connect());
    let run = token(&holder.ask("BEGIN k"));
    for words in ["ONCE.WAIT k", "MULTI", "SELECT 3", "BEGIN inside", "EXEC"] {
        client.send(request(true, words));
    }
    held(&server, 1);
    assert_eq!(holder.ask(&format!("COMPLETE k {run}")), "OK");
    for told in ["[+DONE, :0, $]", "+OK", "+QUEUED", "+QUEUED"] {
        assert_eq!(client.resp(), told);
    }
    let told = client.resp();
    assert!(told.starts_with("[+OK, [+RUN, :"), "{told}");
    let info = client.call(&["CLIENT", "INFO"]);
    assert_eq!(client.call(&["EXISTS", "inside"]), ":0");
    assert!(
        info.contains(" db=0 ") && info.contains(" ns=default"),
        "{info}"
    );
}

/// A BEGIN that waits behind another gets in line when its own reply is the next.
#[test]
fn several_that_wait_to_begin_are_told_one_after_the_other() {
    let server = TestServer::start();
    let (mut holder, mut client) = (server.connect(), server.connect());
    let a = token(&holder.ask("BEGIN a"));
    let b = token(&holder.ask("BEGIN b"));
    client.send("BEGIN a WAIT 20s\nBEGIN b WAIT 20s\nSEEN behind\n");
    held(&server, 1);
    assert_eq!(holder.ask(&format!("FAIL a {a} RETRY")), "OK");
    let run = token(&client.line());
    assert!(run > b);
    held(&server, 1);
    assert_eq!(holder.ask(&format!("COMPLETE b {b} BODY y")), "OK");
    assert_eq!(reply(&mut client, false), "DONE 0 y");
    assert_eq!(client.line(), "NEW");
    assert_eq!(client.ask(&format!("COMPLETE a {run}")), "OK");
}

#[test]
fn replies_are_in_the_dialect_of_their_requests() {
    let server = TestServer::start();
    let (mut holder, mut client) = (server.connect(), server.connect());
    let run = token(&holder.ask("BEGIN k"));
    for words in [
        "ONCE.WAIT k",
        "GET none",
        "BEGIN free",
        "HELLO 3",
        "GET none",
        "GET none",
    ] {
        client.send(request(true, words));
    }
    held(&server, 1);
    client.send(request(true, "CLIENT REPLY SKIP"));
    client.send(request(true, "ONCE.WAIT k"));
    client.send(request(true, "GET none"));
    held(&server, 2);
    assert_eq!(holder.ask(&format!("COMPLETE k {run} BODY x")), "OK");
    assert_eq!(client.resp(), "[+DONE, :0, $x]");
    assert_eq!(client.resp(), "nil");
    assert!(client.resp().starts_with("[+RUN, "));
    assert!(client.resp().contains("proto"));
    assert_eq!(client.resp(), "_");
    assert_eq!(client.resp(), "_");
    // One was not to be answered.
    assert_eq!(client.resp(), "_");
    client.send(request(true, "PING"));
    assert_eq!(client.resp(), "+PONG");
}

#[test]
fn what_ends_the_conversation_ends_the_waiting() {
    let server = TestServer::start();
    let mut holder = server.connect();
    token(&holder.ask("BEGIN k"));
    let all = "WAIT k\nBEGIN free WAIT 10s\nSEEN s\nBEGIN k WAIT 20s\nBEGIN k\n";
    for (is_half_closed, end, goodbye) in [(false, "QUIT\n", "BYE"), (true, "", "")] {
        let mut client = server.connect();
        client.send(all);
        held(&server, 1);
        client.send(end);
        if is_half_closed {
            client.half_close();
        }
        assert_eq!(client.line(), "TIMEOUT");
        let run = token(&client.line());
        assert!(["NEW", "DUP"].contains(&client.line().as_str()));
        assert!(client.line().starts_with("BUSY "));
        assert!(client.line().starts_with("BUSY "));
        assert_eq!(client.rest().trim_end(), goodbye);
        held(&server, 0);
        assert_eq!(holder.ask(&format!("COMPLETE free {run}")), "OK");
        assert_eq!(holder.ask("FORGET free"), "OK 1");
    }
    let mut client = server.connect();
    client.send(request(true, "BEGIN k WAIT 20s"));
    held(&server, 1);
    client.send(request(true, "RESET"));
    assert!(client.resp().starts_with("[+BUSY, "));
    assert_eq!(client.resp(), "+RESET");
    assert_eq!(client.call(&["PING"]), "+PONG");
}

#[test]
fn a_server_that_stops_answers_what_waits() {
    let mut server = TestServer::start();
    let (mut holder, mut client) = (server.connect(), server.connect());
    token(&holder.ask("BEGIN k"));
    client.send("WAIT k\nSEEN s\nBEGIN free\nBEGIN k WAIT 20s\n");
    held(&server, 1);
    server.tell_to_stop();
    for told in ["TIMEOUT", "NEW", "RUN 30000 1", "BUSY"] {
        assert_eq!(reply(&mut client, false), told);
    }
    assert_eq!(client.rest(), "");
}

/// Both sides of the bound on what waits, which is that on unread replies: of replies, and of requests.
#[test]
fn so_much_may_wait_and_then_the_waiting_ends() {
    const UNREAD_MAX: usize = 256 << 10;
    let key = "x".repeat(2_000);
    // Its replies share it with the store, so they hold hardly any memory of their own.
    let shared = "v".repeat(20_000);
    for (filler, told, waiting_bytes, sent) in [
        (format!("ECHO {key}"), format!("${key}"), 2_000, 1_000),
        // Not executed before, and then one after the other.
        (
            format!("ONCE.BEGIN k OWNER {}", &key[..128]),
            "[+BUSY".to_owned(),
            2_000,
            1_000,
        ),
        ("GET v".to_owned(), format!("${shared}"), shared.len(), 25),
    ] {
        let server = TestServer::with(|raw| raw.max_unread = Some("256KiB".to_owned()));
        let (mut holder, mut client) = (server.connect(), server.connect());
        let run = token(&holder.ask("BEGIN k"));
        assert_eq!(client.call(&["SET", "v", &shared]), "+OK");
        let one = request(true, &filler);
        let fits = UNREAD_MAX / 3 / one.len().max(waiting_bytes);
        client.send(request(true, "ONCE.WAIT k"));
        client.send(one.repeat(fits));
        held(&server, 1);
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(server.gauge("waiters"), 1, "{fits} fit");
        client.send(one.repeat(sent));
        assert_eq!(client.resp(), "+TIMEOUT");
        for _ in 0..fits + sent {
            assert!(client.resp().starts_with(&told));
        }
        assert_eq!(holder.ask(&format!("COMPLETE k {run}")), "OK");
        assert_eq!(client.call(&["PING"]), "+PONG");
    }
}

#[test]
fn a_client_that_goes_leaves_nothing_behind() {
    let server = TestServer::start();
    let mut holder = server.connect();
    let run = token(&holder.ask("BEGIN k"));
    let mut gone = server.connect();
    gone.send("BEGIN k WAIT 20s\nBEGIN free\nBEGIN k WAIT 20s\n");
    held(&server, 1);
    let mut next = server.connect();
    next.send("BEGIN k WAIT 20s\n");
    held(&server, 2);
    gone.stream.shutdown(std::net::Shutdown::Both).unwrap();
    drop(gone);
    held(&server, 1);
    assert_eq!(holder.ask(&format!("FAIL k {run} RETRY")), "OK");
    assert!(token(&next.line()) > run);
}

/// Whatever is settled in which order, replies come in the order of requests, and what is executed before its
/// turn says what it says in its turn: all keys end completed, so all who ask for one are told that.
#[test]
fn replies_are_those_of_the_promised_order() {
    const KEYS: usize = 4;
    let server = TestServer::start();
    let mut dice = Dice::new(7);
    let began = Instant::now();
    for round in 0..60 {
        let is_resp = dice.below(2) == 0;
        let (mut holder, mut client) = (server.connect(), server.connect());
        let key = |n: usize| format!("r{round}/k{n}");
        let mut open: Vec<(usize, u64)> = (0..KEYS)
            .map(|n| (n, token(&holder.ask(&format!("BEGIN {}", key(n))))))
            .collect();
        let mut expected = Vec::new();
        let mut seen = 0;
        for step in 0..40 {
            let n = dice.below(KEYS as u64) as usize;
            let wait = if is_resp { "ONCE.WAIT" } else { "WAIT" };
            let (words, told) = match dice.below(6) {
                0 => (format!("BEGIN {} WAIT 30s", key(n)), format!("DONE 0 b{n}")),
                1 => (
                    format!("{wait} {} TIMEOUT 30s", key(n)),
                    format!("DONE 0 b{n}"),
                ),
                2 => {
                    seen += 1;
                    (format!("SEEN r{round}/s{seen}"), "NEW".to_owned())
                }
                3 => (format!("SEEN {}", key(n)), "DUP".to_owned()),
                4 => (format!("PEEK r{round}/s{}", seen + 1), "N".to_owned()),
                _ => ("SEEN none 0".to_owned(), String::new()),
            };
            client.send(request(is_resp, &words));
            expected.push(told);
            if step % 10 == 9 && !open.is_empty() {
                let (n, run) = open.swap_remove(dice.below(open.len() as u64) as usize);
                let done = format!("COMPLETE {} {run} BODY b{n}", key(n));
                assert_eq!(holder.ask(&done), "OK");
            }
        }
        for (n, run) in open {
            let done = format!("COMPLETE {} {run} BODY b{n}", key(n));
            assert_eq!(holder.ask(&done), "OK");
        }
        for (at, told) in expected.iter().enumerate() {
            let got = reply(&mut client, is_resp);
            let same = if told.is_empty() {
                got.contains("ERR")
            } else {
                got == *told
            };
            assert!(same, "round {round}, reply {at}: {got}, not {told}");
        }
        held(&server, 0);
    }
    assert!(began.elapsed() < 2 * PATIENCE);
}
