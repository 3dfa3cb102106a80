//! Idempotency records through a server: held replies, races, lost replies, kills.
//!
//! What each verb does in each state is in `record_model.rs`, what it says in `verbs_line.rs` and
//! `verbs_resp.rs`.

#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a test fails by panicking"
)]

mod common;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::process::{Dice, Process, Scratch};
use common::{Client, PATIENCE, TestServer, eventually, token};

/// The reply of the line protocol, with its body behind it.
fn reply(client: &mut Client) -> String {
    let head = client.line();
    if head.starts_with("DONE ") || head.starts_with("FAILED ") {
        return format!("{head} | {}", client.line());
    }
    head
}

/// Has a new connection wait; returns once it does.
fn wait_with(server: &TestServer, request: &str) -> Client {
    let waiting = server.gauge("waiters");
    let mut client = server.connect();
    client.send(format!("{request}\n"));
    eventually("the reply is held", || server.gauge("waiters") > waiting);
    client
}

#[test]
fn who_waits_hears_what_came_of_it() {
    let server = TestServer::start();
    let mut holder = server.connect();
    for (ending, told) in [
        ("COMPLETE k {token} CODE 5 BODY x", "DONE 5 1 | x"),
        ("FAIL k {token} FINAL CODE 6 BODY y", "FAILED 6 1 | y"),
    ] {
        let run = token(&holder.ask("BEGIN k"));
        let mut begins = wait_with(&server, "BEGIN k WAIT 20s");
        let mut waits = wait_with(&server, "WAIT k");
        let ending = ending.replace("{token}", &run.to_string());
        assert_eq!(holder.ask(&ending), "OK");
        assert_eq!(reply(&mut begins), told);
        assert_eq!(reply(&mut waits), told);
        assert_eq!(server.gauge("waiters"), 0);
        assert_eq!(holder.ask("FORGET k"), "OK 1");
    }
}

#[test]
fn one_at_a_time_is_told_to_run_in_the_order_of_arrival() {
    const WAITERS: usize = 6;
    let server = TestServer::start();
    let mut holder = server.connect();
    let mut run = token(&holder.ask("BEGIN k"));
    let mut waiters: Vec<_> = (0..WAITERS)
        .map(|_| wait_with(&server, "BEGIN k WAIT 20s"))
        .collect();
    let mut listener = wait_with(&server, "WAIT k TIMEOUT 20s");
    for (n, waiter) in waiters.iter_mut().enumerate() {
        // In turns: given up, forgotten.
        let (request, attempt) = if n % 2 == 0 {
            (format!("FAIL k {run} RETRY"), 2)
        } else {
            ("FORGET k".to_owned(), 1)
        };
        assert!(holder.ask(&request).starts_with("OK"));
        let told = waiter.line();
        assert!(told.ends_with(&format!(" 30000 {attempt}")), "{told}");
        let next = token(&told);
        assert!(next > run);
        run = next;
        if n == 0 {
            assert_eq!(listener.line(), "FREE");
        }
        // Who only listened may be on its way out.
        eventually("the others wait", || {
            server.gauge("waiters") == (WAITERS - n - 1) as u64
        });
    }
    assert!(holder.ask("BEGIN k").starts_with("BUSY "));
}

#[test]
fn a_lease_that_lapses_is_the_next_ones() {
    let server = TestServer::start();
    let mut holder = server.connect();
    let began = Instant::now();
    let first = token(&holder.ask("BEGIN k LEASE 400ms"));
    let mut waits = wait_with(&server, "WAIT k");
    let mut next = wait_with(&server, "BEGIN k WAIT 20s LEASE 300ms");
    let mut last = wait_with(&server, "BEGIN k WAIT 20s");
    // Renewed once: it lapses later than those who wait were told first.
    thread::sleep(Duration::from_millis(200));
    assert_eq!(holder.ask(&format!("RENEW k {first}")), "OK 400");
    let told = next.line();
    assert!(began.elapsed() >= Duration::from_millis(600), "{told}");
    assert!(told.ends_with(" 300 2"), "{told}");
    assert_eq!(waits.line(), "FREE");
    assert_eq!(holder.ask(&format!("COMPLETE k {first}")), "STALE");
    assert!(last.line().ends_with(" 30000 3"));
    assert!(began.elapsed() < PATIENCE);
}

#[test]
fn waiting_ends_in_its_time() {
    let server = TestServer::start();
    let mut holder = server.connect();
    token(&holder.ask("BEGIN k"));
    let began = Instant::now();
    let mut client = server.connect();
    assert!(client.ask("BEGIN k WAIT 200ms").starts_with("BUSY "));
    assert!(began.elapsed() >= Duration::from_millis(200));
    assert_eq!(client.ask("WAIT k TIMEOUT 200ms"), "TIMEOUT");
    assert!(began.elapsed() >= Duration::from_millis(400));
    assert!(client.ask("BEGIN k WAIT 0s").starts_with("BUSY "));
    assert_eq!(client.ask("WAIT k TIMEOUT 0s"), "TIMEOUT");
    assert_eq!(server.gauge("waiters"), 0);
}

#[test]
fn who_sends_no_more_is_never_told_to_run() {
    let server = TestServer::start();
    let mut holder = server.connect();
    let run = token(&holder.ask("BEGIN k"));
    let mut closed = wait_with(&server, "BEGIN k WAIT 20s");
    closed.half_close();
    let told = closed.rest();
    assert!(
        told.starts_with("BUSY ") && told.lines().count() == 1,
        "{told}"
    );
    let mut listener = wait_with(&server, "WAIT k");
    listener.half_close();
    assert_eq!(listener.rest(), "TIMEOUT\n");
    let gone = wait_with(&server, "BEGIN k WAIT 20s");
    let mut next = wait_with(&server, "BEGIN k WAIT 20s");
    drop(gone);
    eventually("the place is given back", || server.gauge("waiters") == 1);
    assert_eq!(holder.ask(&format!("FAIL k {run} RETRY")), "OK");
    assert!(token(&next.line()) > run);
    assert_eq!(server.gauge("waiters"), 0);
}

#[test]
fn only_so_many_replies_are_held() {
    let server = TestServer::with(|raw| raw.max_waiters = Some(2));
    let mut holder = server.connect();
    let run = token(&holder.ask("BEGIN k"));
    let _first = wait_with(&server, "BEGIN k WAIT 20s");
    let second = wait_with(&server, "WAIT k");
    let mut third = server.connect();
    assert!(third.ask("BEGIN k WAIT 20s").starts_with("BUSY "));
    assert_eq!(third.ask("WAIT k"), "TIMEOUT");
    drop(second);
    eventually("there is a place again", || server.gauge("waiters") == 1);
    let mut fourth = wait_with(&server, "WAIT k");
    assert_eq!(holder.ask(&format!("COMPLETE k {run}")), "OK");
    assert_eq!(reply(&mut fourth), "DONE 0 0 | ");
}

#[test]
fn a_namespace_that_goes_leaves_nobody_waiting() {
    let server = TestServer::start();
    let mut admin = server.connect();
    for end in ["NS PURGE jobs FORCE", "NS DROP jobs FORCE"] {
        let mut holder = server.connect();
        assert_eq!(holder.ask("USE jobs"), "OK");
        let run = token(&holder.ask("BEGIN k"));
        let mut next = server.connect();
        assert_eq!(next.ask("USE jobs"), "OK");
        next.send("BEGIN k WAIT 20s\n");
        let mut listener = server.connect();
        assert_eq!(listener.ask("USE jobs"), "OK");
        listener.send("WAIT k\n");
        eventually("both wait", || server.gauge("waiters") == 2);
        assert_eq!(admin.ask(end), "OK");
        assert!(token(&next.line()) > run, "{end}");
        assert_eq!(listener.line(), "FREE", "{end}");
        assert_eq!(holder.ask(&format!("COMPLETE k {run}")), "STALE");
        assert_eq!(server.gauge("waiters"), 0);
        assert_eq!(admin.ask("NS DROP jobs FORCE"), "OK");
    }
}

#[test]
fn a_server_that_stops_lets_go_of_who_waits() {
    let mut server = TestServer::start();
    let mut holder = server.connect();
    token(&holder.ask("BEGIN k"));
    let mut begins = wait_with(&server, "BEGIN k WAIT 60s");
    let mut waits = wait_with(&server, "WAIT k");
    let began = Instant::now();
    server.tell_to_stop();
    assert!(begins.line().starts_with("BUSY "));
    assert_eq!(waits.line(), "TIMEOUT");
    drop(server);
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[test]
fn replies_are_held_in_resp_too() {
    let server = TestServer::start();
    let mut holder = server.connect();
    let run = token(&holder.ask("BEGIN k"));
    let mut client = server.connect();
    client.send(common::resp_request(&["BEGIN", "k", "WAIT", "20s"]));
    client.send(common::resp_request(&["PING"]));
    eventually("the reply is held", || server.gauge("waiters") == 1);
    assert_eq!(
        holder.ask(&format!("FAIL k {run} FINAL CODE 9 BODY z")),
        "OK"
    );
    assert_eq!(client.resp(), "[+FAILED, :9, $z]");
    assert_eq!(client.resp(), "+PONG");
    // One that is not to be sent at all.
    client.send(common::resp_request(&["CLIENT", "REPLY", "SKIP"]));
    let run = token(&holder.ask("BEGIN j"));
    client.send(common::resp_request(&["ONCE.WAIT", "j"]));
    client.send(common::resp_request(&["PING"]));
    eventually("the reply is held", || server.gauge("waiters") == 1);
    assert_eq!(holder.ask(&format!("COMPLETE j {run}")), "OK");
    assert_eq!(client.resp(), "+PONG");
}

/// A thousand callers, a hundred keys, and 30 in 100 of those that are told to run fail, hang beyond
/// their lease, or die with their connection.
#[test]
fn a_thousand_callers_see_each_work_done_once() {
    const CALLERS: u64 = 1_000;
    const KEYS: u64 = 100;
    let server = TestServer::start();
    let done: Mutex<BTreeMap<u64, Vec<String>>> = Mutex::default();
    let heard: Mutex<Vec<(u64, String)>> = Mutex::default();
    let ran = AtomicU64::new(0);
    let call = |caller: u64| {
        let key = caller % KEYS;
        let mut dice = Dice::new(caller);
        let mut client = server.connect();
        loop {
            client.send(format!("BEGIN job-{key} LEASE 250ms WAIT 30s\n"));
            let told = reply(&mut client);
            if let Some(outcome) = told.strip_prefix("DONE ") {
                heard.lock().unwrap().push((key, outcome.to_owned()));
                return;
            }
            let run = token(&told);
            ran.fetch_add(1, Ordering::Relaxed);
            match dice.below(10) {
                0 => assert_eq!(client.ask(&format!("FAIL job-{key} {run} RETRY")), "OK"),
                // It hangs, and does not notice that it was given up.
                1 => thread::sleep(Duration::from_millis(300)),
                2 => {
                    client = server.connect();
                    continue;
                }
                _ => {}
            }
            let body = format!("done-by-{caller}-as-{run}");
            let len = body.len();
            let request = format!("COMPLETE job-{key} {run} CODE 1 LEN {len}\n{body}");
            match &client.ask(&request)[..] {
                "OK" => done
                    .lock()
                    .unwrap()
                    .entry(key)
                    .or_default()
                    .push(format!("1 {len} | {body}")),
                told => assert_eq!(told, "STALE"),
            }
        }
    };
    let began = Instant::now();
    thread::scope(|scope| {
        for caller in 0..CALLERS {
            let call = &call;
            thread::Builder::new()
                .stack_size(256 << 10)
                .spawn_scoped(scope, move || call(caller))
                .unwrap();
        }
    });
    assert!(began.elapsed() < Duration::from_mins(1));
    let (done, heard) = (done.into_inner().unwrap(), heard.into_inner().unwrap());
    assert_eq!((done.len() as u64, heard.len() as u64), (KEYS, CALLERS));
    assert!(done.values().all(|completions| completions.len() == 1));
    for (key, outcome) in heard {
        assert_eq!(outcome, done[&key][0], "job-{key}");
    }
    let ran = ran.into_inner();
    assert!(ran > KEYS, "some had to be tried again: {ran}");
    assert_eq!(server.gauge("records_completed"), KEYS);
    assert_eq!(server.gauge("waiters"), 0);
}

/// One caller's work, whose connection is cut after the server has executed the request of each step
/// that `lost` says; it comes again on another, as the same owner.
fn work(connect: &dyn Fn() -> Client, key: &str, lost: u32) -> String {
    let mut step = 0;
    let mut ask = |request: String| {
        let mut client = connect();
        client.send(format!("{request}\n"));
        let is_lost = lost >> step & 1 == 1;
        step += 1;
        if is_lost {
            // What comes back is not read: the connection is reset.
            assert!(client.stream.peek(&mut [0]).unwrap() > 0);
            drop(client);
            client = connect();
            client.send(format!("{request}\n"));
        }
        reply(&mut client)
    };
    let run = token(&ask(format!("BEGIN {key} OWNER me")));
    assert_eq!(ask(format!("RENEW {key} {run}")), "OK 30000");
    assert_eq!(ask(format!("FAIL {key} {run} RETRY")), "OK");
    let again = token(&ask(format!("BEGIN {key} OWNER me")));
    assert!(again > run);
    assert_eq!(ask(format!("RENEW {key} {again} LEASE 1m")), "OK 60000");
    assert_eq!(
        ask(format!("COMPLETE {key} {again} CODE 200 BODY {again}")),
        "OK"
    );
    let told = ask(format!("BEGIN {key} OWNER me"));
    assert_eq!(
        told,
        format!("DONE 200 {} | {again}", again.to_string().len())
    );
    told
}

#[test]
fn a_lost_reply_at_any_step_leads_to_one_completion() {
    let server = TestServer::start();
    for lost in 0..1 << 7 {
        work(&|| server.connect(), &format!("job-{lost}"), lost);
    }
    let mut client = server.connect();
    assert_eq!(client.gauge("records_completed"), 1 << 7);
    assert_eq!(client.gauge("records_begun"), 2 << 7);
    assert_eq!(client.gauge("records_released"), 1 << 7);
}

/// `kill -9` between any two steps keeps the record, its lease and the order of tokens.
#[test]
fn a_killed_server_goes_on_with_its_records() {
    for fsync in ["always", "everysec", "never"] {
        let directory = Scratch::new("records");
        let data = directory.join("data");
        let arguments = ["--fsync", fsync];
        let server = Process::start(&data, &arguments);
        let mut client = server.connect();
        let mut server = Some(server);
        let mut last = 0;
        let mut restart = |client: &mut Client| {
            server.take().unwrap().kill();
            let again = Process::start(&data, &arguments);
            *client = again.connect();
            server = Some(again);
        };
        let told = client.ask("BEGIN k LEASE 1h TTL 2h FP a1 OWNER me");
        assert!(told.ends_with(" 3600000 1"), "{told}");
        let mut newer = |told: &str| {
            let run = token(told);
            assert!(run > last, "tokens rise: {told}");
            last = run;
            run
        };
        let run = newer(&told);
        restart(&mut client);
        assert_eq!(client.ask("PEEK k"), "B");
        assert_eq!(client.ask("BEGIN k FP b2"), "MISMATCH");
        assert!(client.ask("BEGIN k FP a1").starts_with("BUSY 35"));
        assert_eq!(token(&client.ask("BEGIN k OWNER me")), run);
        assert_eq!(
            client.ask(&format!("RENEW k {run} LEASE 30m")),
            "OK 1800000"
        );
        restart(&mut client);
        assert!(client.ask("BEGIN k").starts_with("BUSY 1"));
        assert!(
            client
                .ask_all("INSPECT k")
                .contains(&"attempt 1".to_owned())
        );
        assert_eq!(client.ask(&format!("FAIL k {run} RETRY")), "OK");
        restart(&mut client);
        assert_eq!(client.ask("PEEK k"), "R");
        assert_eq!(client.ask(&format!("FAIL k {run} RETRY")), "OK");
        let told = client.ask("BEGIN k TTL 10m");
        assert!(told.ends_with(" 30000 2"), "{told}");
        let second = newer(&told);
        restart(&mut client);
        assert_eq!(client.ask(&format!("COMPLETE k {run} BODY old")), "STALE");
        let request = format!("COMPLETE k {second} CODE 200 BODY charged");
        assert_eq!(client.ask(&request), "OK");
        restart(&mut client);
        assert_eq!(client.ask(&request), "OK");
        client.send("BEGIN k\n");
        assert_eq!(reply(&mut client), "DONE 200 7 | charged");
        let left: u64 = client.ask("TTL k").parse().unwrap();
        assert!((400_000..=600_020).contains(&left), "{left}");
        assert_eq!(client.ask("BEGIN k FP b2"), "MISMATCH");
        // All others are forgotten, and their tokens are not given again.
        assert_eq!(client.ask("FORGET k"), "OK 1");
        assert_eq!(client.ask("SYNC"), "OK");
        restart(&mut client);
        let run = newer(&client.ask("BEGIN k"));
        assert_eq!(client.ask("SEEN other"), "NEW");
        assert_eq!(client.ask("NS PURGE default"), "OK");
        restart(&mut client);
        assert_eq!(client.ask("PEEK k other"), "BN");
        assert_eq!(
            client.ask(&format!("FAIL k {run} FINAL CODE 1 LEN 0\n")),
            "OK"
        );
        restart(&mut client);
        client.send("WAIT k\n");
        assert_eq!(reply(&mut client), "FAILED 1 0 | ");
    }
}
