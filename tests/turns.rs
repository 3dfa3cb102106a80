//! Requests that take long are executed a slice at a time: in order, whole, and with others in between.

mod common;

use std::fmt::Write;

use common::{TestServer, resp_request};

const KEYS: usize = 10_000;

fn keys(prefix: &str) -> String {
    (0..KEYS).fold(String::new(), |mut keys, n| {
        let _infallible = write!(keys, " {prefix}{n}");
        keys
    })
}

#[test]
fn requests_behind_a_long_one_wait_for_it_and_see_what_it_did() {
    let server = TestServer::start();
    let mut client = server.connect();
    let all = keys("k");
    // All of it before the first reply is read; and the connection says that no more comes.
    client.send(format!(
        "MSEEN 1h{all}\nPEEK k{}\nMSEEN 1h{all}\nFORGET{all}\nMBEGIN 1h 1m{all}\nPEEK{all}\nPING\n",
        KEYS - 1
    ));
    client.half_close();
    assert_eq!(client.line(), "N".repeat(KEYS));
    assert_eq!(client.line(), "D");
    assert_eq!(client.line(), "D".repeat(KEYS));
    assert_eq!(client.line(), format!("OK {KEYS}"));
    let begun = client.line();
    assert_eq!(begun.matches("N:").count(), KEYS);
    assert_eq!(client.line(), "B".repeat(KEYS));
    assert_eq!(client.line(), "PONG");
    assert!(client.is_closed());
}

#[test]
fn a_transaction_of_long_requests_is_executed_in_order() {
    let server = TestServer::start();
    let mut client = server.connect();
    let all = keys("t");
    let long = |verb: &str| {
        let words: Vec<_> = verb.split(' ').chain(all.split_whitespace()).collect();
        resp_request(&words)
    };
    let mut sent = resp_request(&["MULTI"]);
    for verb in ["MSEEN 1h", "EXISTS", "MSEEN 1h", "DEL", "EXISTS"] {
        sent.extend(long(verb));
    }
    sent.extend(resp_request(&["KEYS", "*"]));
    sent.extend(resp_request(&["CLIENT", "LIST"]));
    sent.extend(resp_request(&["INFO", "stats"]));
    sent.extend(resp_request(&["EXEC"]));
    sent.extend(resp_request(&["PING"]));
    client.send(sent);
    assert_eq!(client.resp(), "+OK");
    for _ in 0..8 {
        assert_eq!(client.resp(), "+QUEUED");
    }
    let replies = client.resp();
    let (new, dup) = ("N".repeat(KEYS), "D".repeat(KEYS));
    let want = format!("[${new}, :{KEYS}, ${dup}, :{KEYS}, :0, [], $id=");
    assert!(replies.starts_with(&want), "not in order");
    assert!(
        replies.contains("onced_new:10000"),
        "{}",
        &replies[want.len()..]
    );
    assert_eq!(client.resp(), "+PONG");
}

#[test]
fn others_are_served_between_the_slices_of_a_request() {
    let server = TestServer::with(|raw| raw.workers = Some(1));
    let (mut long, mut other) = (server.connect(), server.connect());
    assert_eq!(other.ask("PING"), "PONG");
    let all = keys("o");
    // One request, which another connection of the same worker sees half done.
    let mut seen_half_done = false;
    for round in 0..50 {
        let lease = if round % 2 == 0 {
            "MBEGIN 1h 1h"
        } else {
            "FORGET"
        };
        long.send(format!("{lease}{all}\n"));
        for _ in 0..20 {
            let told = other.ask(&format!("PEEK o0 o{}", KEYS - 1));
            seen_half_done |= told == "BN" || told == "NB";
        }
        long.line();
    }
    assert!(seen_half_done, "a request of {KEYS} keys is one turn");
}
