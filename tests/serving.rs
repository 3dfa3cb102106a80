//! Promises that only a running server can keep: one winner, never early, under load.

#![allow(
    clippy::format_collect,
    clippy::format_push_string,
    reason = "requests are built for reading, not for speed"
)]

mod common;

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::{TestServer, eventually, resp_request};

#[test]
fn a_session_from_netcat() {
    let server = TestServer::start();
    let mut client = server.connect();
    client.send("SEEN a 60s\nSEEN a 60s\nMSEEN 60s a b b\nQUIT\n");
    assert_eq!(client.rest(), "NEW\nDUP\nDND\nBYE\n");

    let mut client = server.connect();
    client.send("SEEN c 60s\nSEEN c 60s\nMSEEN 60s c d d\n");
    client.half_close();
    assert_eq!(client.rest(), "NEW\nDUP\nDND\n");
}

#[test]
fn a_hundred_connections_racing_on_the_same_keys_have_one_winner_each() {
    const CONNECTIONS: usize = 100;
    const KEYS: usize = 10_000;
    let server = TestServer::start();
    let start = Barrier::new(CONNECTIONS);
    let winners: usize = thread::scope(|scope| {
        let racers: Vec<_> = (0..CONNECTIONS)
            .map(|racer| {
                let mut client = server.connect();
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    let mut new = 0;
                    // Each in another order, half of them through Redis's command.
                    for chunk in 0..KEYS / 100 {
                        let mut requests = Vec::new();
                        for i in 0..100 {
                            let key = format!("key-{}", (chunk * 100 + i + racer * 97) % KEYS);
                            if racer % 2 == 0 {
                                requests.extend(format!("SEEN {key} 5m\n").into_bytes());
                            } else {
                                requests.extend(resp_request(&[
                                    "SET", &key, "1", "NX", "PX", "300000",
                                ]));
                            }
                        }
                        client.send(requests);
                        for _ in 0..100 {
                            let won = if racer % 2 == 0 {
                                client.line() == "NEW"
                            } else {
                                client.resp() == "+OK"
                            };
                            new += usize::from(won);
                        }
                    }
                    new
                })
            })
            .collect();
        racers.into_iter().map(|racer| racer.join().unwrap()).sum()
    });
    assert_eq!(winners, KEYS);
}

#[test]
fn a_ttl_is_kept_in_full_and_ends_in_time_under_load() {
    const TRIES: usize = 1_000;
    const TTL: Duration = Duration::from_millis(200);
    const LATEST: Duration = Duration::from_millis(250);
    let server = TestServer::start();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for load in 0..2 {
            let mut client = server.connect();
            let stop = &stop;
            scope.spawn(move || {
                let mut n = 0_u64;
                while !stop.load(Ordering::Relaxed) {
                    let batch: String = (0..64)
                        .map(|i| format!("SEEN load-{load}-{} 1s\n", n + i))
                        .collect();
                    client.send(batch);
                    (0..64).for_each(|_| assert_eq!(client.line(), "NEW"));
                    n += 64;
                }
            });
        }
        let tries: Vec<_> = (0..10)
            .map(|group| {
                let mut client = server.connect();
                scope.spawn(move || {
                    for round in 0..TRIES / 100 {
                        let keys: Vec<_> =
                            (0..10).map(|i| format!("k-{group}-{round}-{i}")).collect();
                        let mut asked = Vec::new();
                        for key in &keys {
                            let before = Instant::now();
                            assert_eq!(client.ask(&format!("SEEN {key} 200ms")), "NEW");
                            asked.push((before, Instant::now()));
                        }
                        // Until the TTL has passed since it was asked for, every answer is DUP.
                        for (key, (before, _)) in keys.iter().zip(&asked) {
                            loop {
                                let answer = client.ask(&format!("SEEN {key} 200ms"));
                                // Only an answer that is here before the TTL is over says anything.
                                if before.elapsed() >= TTL {
                                    break;
                                }
                                assert_eq!(answer, "DUP", "{key} after {:?}", before.elapsed());
                                thread::sleep(Duration::from_millis(5));
                            }
                        }
                        // A key of its own for the other side: asked once, when 250 ms have passed.
                        let fresh: Vec<_> = keys.iter().map(|key| format!("{key}-late")).collect();
                        for key in &fresh {
                            assert_eq!(client.ask(&format!("SEEN {key} 200ms")), "NEW");
                        }
                        thread::sleep(LATEST);
                        for key in &fresh {
                            assert_eq!(client.ask(&format!("SEEN {key} 200ms")), "NEW", "{key}");
                        }
                    }
                })
            })
            .collect();
        for group in tries {
            group.join().unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn memory_of_lapsed_keys_comes_back() {
    let server = TestServer::start();
    let mut client = server.connect();
    let mut batch = String::new();
    for n in 0..20_000 {
        batch.push_str(&format!(
            "SEEN a-key-that-is-too-long-to-be-packed-{n} 1s\n"
        ));
    }
    client.send(&batch);
    (0..20_000).for_each(|_| assert_eq!(client.line(), "NEW"));
    let gauge = |client: &mut common::Client, name: &str| {
        let rows = client.ask_all("STATS");
        let row = rows
            .iter()
            .find_map(|row| row.strip_prefix(&format!("{name} ")))
            .unwrap();
        row.parse::<u64>().unwrap()
    };
    assert!(gauge(&mut client, "memory_bytes") > 1 << 20);
    eventually("the keys are swept", || gauge(&mut client, "keys") == 0);
    eventually("the memory is back", || {
        gauge(&mut client, "memory_bytes") < 300_000
    });
    assert_eq!(gauge(&mut client, "expired"), 20_000);
}

#[test]
fn a_server_that_is_told_to_stop_answers_what_it_has_received() {
    let mut server = TestServer::start();
    let mut idle = server.connect();
    assert_eq!(idle.ask("PING"), "PONG");
    let mut busy = server.connect();
    busy.send("SEEN a 60s\n".repeat(1_000));
    eventually("the requests have arrived", || {
        idle.ask_all("STATS")
            .iter()
            .any(|row| row == "verb_seen_calls 1000")
    });
    server.tell_to_stop();
    assert_eq!(busy.rest().lines().count(), 1_000);
    assert_eq!(idle.rest(), "");
}

#[test]
fn a_transaction_with_a_request_over_the_limit_is_not_executed() {
    let server = TestServer::with(|raw| {
        raw.max_request = Some("64KiB".to_owned());
        raw.max_value = Some("1KiB".to_owned());
    });
    let mut client = server.connect();
    assert_eq!(client.call(&["MULTI"]), "+OK");
    assert_eq!(client.call(&["SET", "a", "1"]), "+QUEUED");
    let refused = client.call(&["SET", "b", &"v".repeat(100_000)]);
    assert_eq!(refused, "-ERR TOOBIG the request is over 65536 bytes");
    let aborted = client.call(&["EXEC"]);
    assert!(aborted.starts_with("-EXECABORT"), "{aborted}");
    assert_eq!(client.call(&["GET", "a"]), "nil");
}

#[test]
fn where_no_namespace_may_be_made_the_refusal_does_not_say_make_it() {
    let server = TestServer::with(|raw| raw.create_namespaces = Some(false));
    let mut client = server.connect();
    for request in ["USE x", "NS SET x TTL 5m"] {
        assert_eq!(
            client.ask(request),
            "ERR NONS no namespace 'x', and this server makes none: create-namespaces is false"
        );
    }
}
