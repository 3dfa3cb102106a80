//! What happens when handlers, clients, processes and onced itself fail.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::http::Method;
use onced::client::{Begin, BeginOptions, Client, ClientConfig, CompleteOptions, Done};
use onced::http::{Idempotency, Scope};
use tokio::time::{sleep, timeout};

use crate::common::asynchronous::{client_of, run};
use crate::common::process::{Process, Scratch};
use crate::common::{TestServer, fill};
use crate::service::{Service, Till};

#[test]
fn a_response_that_breaks_off_is_none() {
    let server = TestServer::start();
    run(async {
        let service = Service::with(&server, |layer| layer).await;
        service.charge("a", "break").await.assert_problem(500);
        service.charge("a", "break").await.assert_problem(500);
        assert_eq!(service.till.charges(), 2);
        assert_eq!(service.counts().released, 2);
    });
}

#[test]
fn a_handler_that_panics_leaves_its_key_free() {
    let server = TestServer::start();
    run(async {
        let service = Service::with(&server, |layer| layer.wait(Duration::from_secs(5))).await;
        let request = service
            .request(Method::POST, "/charges")
            .header("idempotency-key", "\"a\"");
        let broken = request.body("panic").send().await;
        assert!(broken.is_err(), "{broken:?}");
        let began = Instant::now();
        assert_eq!(service.charge("a", "panic").await.status, 201);
        assert!(
            began.elapsed() < Duration::from_secs(3),
            "no lease was waited for"
        );
    });
}

#[test]
fn a_client_that_hangs_up_does_not_stop_its_request() {
    let server = TestServer::start();
    run(async {
        let service = Service::with(&server, |layer| layer).await;
        let hung_up = timeout(Duration::from_millis(200), service.charge("a", "wait")).await;
        assert!(hung_up.is_err());
        assert_eq!(service.till.charges(), 1);
        let idle = service.layer.clone();
        let idle = tokio::spawn(async move { idle.idle().await });
        sleep(Duration::from_millis(50)).await;
        assert!(!idle.is_finished());
        service.till.0.go_on.notify_one();
        idle.await.unwrap();
        let retry = service.charge("a", "wait").await;
        assert!(retry.is_replayed());
        assert_eq!(
            (&retry.body[..], service.till.charges()),
            (&b"charge 1"[..], 1)
        );
    });
}

#[test]
fn a_key_that_stands_for_something_else_is_no_response() {
    let server = TestServer::start();
    run(async {
        let service = Service::with(&server, |layer| layer).await;
        let client = client_of(&server.address);
        client.seen("/seen", None).await.unwrap();
        service.charge("seen", "{}").await.assert_problem(500);
        let Begin::Run(held) = client
            .begin("/done", &BeginOptions::default())
            .await
            .unwrap()
        else {
            panic!("the key is new");
        };
        let said = Done {
            code: 200,
            body: "not a response".into(),
        };
        client
            .complete("/done", held.token, &said, &CompleteOptions::default())
            .await
            .unwrap();
        service.charge("done", "{}").await.assert_problem(500);
        assert_eq!(service.till.charges(), 0);
    });
}

#[test]
fn a_request_whose_process_died_is_handled_by_its_retry() {
    let server = TestServer::start();
    run(async {
        let service = Service::with(&server, |layer| layer).await;
        let dead = BeginOptions {
            lease: Some(Duration::from_millis(300)),
            ..BeginOptions::default()
        };
        client_of(&server.address).begin("/a", &dead).await.unwrap();
        let told = service.charge("a", "held").await;
        told.assert_problem(409);
        assert_eq!(told.header("retry-after"), Some("1"));
        sleep(Duration::from_millis(350)).await;
        assert_eq!(&service.charge("a", "held").await.body[..], b"2 true");
    });
}

/// A handler that blocks the only thread of its runtime for longer than its lease: the other replica is not
/// told to handle the request meanwhile.
#[test]
fn a_handler_that_blocks_its_thread_keeps_its_key() {
    const LEASE: Duration = Duration::from_secs(3);
    let server = TestServer::start();
    let till = Till::default();
    let address = server.address.clone();
    let layer_of =
        |address: &str| Idempotency::new(client_of(address), Scope::shared()).lease(LEASE);
    let charges = till.clone();
    let replica = std::thread::spawn(move || {
        run(async {
            let replica = Service::start(layer_of(&address)).await;
            // What is handled here after all does not block.
            replica.till.0.unblock.store(true, Ordering::SeqCst);
            charges.begun(1).await;
            let unblocks = Unblocks(charges);
            let began = Instant::now();
            let mut told = Vec::new();
            while began.elapsed() < LEASE * 2 {
                told.push(replica.charge("a", "block").await.status);
                sleep(Duration::from_millis(50)).await;
            }
            drop(unblocks);
            told.dedup();
            assert_eq!(told, [409]);
            let began = Instant::now();
            while !replica.charge("a", "block").await.is_replayed() {
                assert!(began.elapsed() < Duration::from_secs(20));
                sleep(Duration::from_millis(20)).await;
            }
            assert_eq!(replica.till.charges(), 0);
        });
    });
    run(async {
        let layer = layer_of(&server.address);
        let service = Service::start_with(layer, till.clone()).await;
        let told = service.charge("a", "block").await;
        assert_eq!((told.status, &told.body[..]), (200, &b"charge 1"[..]));
        assert_eq!(told.header("idempotency-not-stored"), None);
        assert_eq!((service.counts().fresh, till.charges()), (1, 1));
    });
    replica.join().unwrap();
}

/// Lets blocked handlers go on when it is dropped, also by a test that fails.
struct Unblocks(Till);

impl Drop for Unblocks {
    fn drop(&mut self) {
        self.0.0.unblock.store(true, Ordering::SeqCst);
    }
}

/// The key is taken from under a request that is being handled, as when its lease was lost.
fn take_over(server: &TestServer, key: &str) {
    let mut raw = server.connect();
    assert_eq!(raw.ask(&format!("FORGET {key}")), "OK 1");
    assert!(raw.ask(&format!("BEGIN {key}")).starts_with("RUN "));
}

#[test]
fn a_request_that_was_handled_is_not_said_not_to_be_when_another_took_over() {
    let server = TestServer::start();
    run(async {
        let service = Service::with(&server, |layer| layer).await;
        let (told, ()) = tokio::join!(service.charge("a", "wait"), async {
            service.till.begun(1).await;
            take_over(&server, "/a");
            service.till.0.go_on.notify_one();
        });
        assert_eq!((told.status, &told.body[..]), (200, &b"charge 1"[..]));
        assert_eq!(told.header("idempotency-not-stored"), Some("true"));
        let counts = service.counts();
        assert_eq!((counts.not_stored, counts.fresh, counts.busy), (1, 0, 0));
        // The other is at it still.
        service.charge("a", "wait").await.assert_problem(409);
    });
}

#[test]
fn a_handler_that_waits_is_stopped_when_another_took_over() {
    let server = TestServer::start();
    run(async {
        let lease = Duration::from_millis(600);
        let service = Service::with(&server, |layer| layer.lease(lease)).await;
        let (told, ()) = tokio::join!(service.charge("a", "wait"), async {
            service.till.begun(1).await;
            take_over(&server, "/a");
        });
        let problem = told.assert_problem(409);
        let said = problem["detail"].as_str().unwrap();
        assert!(said.contains("was stopped"), "{said}");
        assert_eq!((service.counts().busy, service.counts().not_stored), (1, 0));
    });
}

#[test]
fn without_onced_requests_are_refused_or_handled_as_was_chosen() {
    let directory = Scratch::new("http-down");
    let data = directory.join("data");
    let socket = format!("unix:{}", directory.join("onced.sock").display());
    run(async {
        let client = || {
            Client::with(ClientConfig {
                backoff_max: Duration::from_millis(100),
                ..ClientConfig::new(socket.parse().unwrap())
            })
        };
        let layer =
            || Idempotency::new(client(), Scope::shared()).patience(Duration::from_millis(300));
        let closed = Service::start(layer()).await;
        let open = Service::start(layer().fail_open()).await;
        let began = Instant::now();
        let told = closed.charge("a", "{}").await;
        told.assert_problem(503);
        assert_eq!(told.header("retry-after"), Some("1"));
        assert!(
            began.elapsed() < Duration::from_secs(3),
            "{:?}",
            began.elapsed()
        );
        assert_eq!(
            (closed.till.charges(), closed.counts().failed_closed),
            (0, 1)
        );
        assert_eq!(open.charge("a", "held").await.body, "0 false");
        assert_eq!((open.till.charges(), open.counts().failed_open), (1, 1));
        // Once it is there, everything is as it should be.
        let _server = Process::start(&data, &["--listen", &socket]);
        assert_eq!(closed.charge("a", "{}").await.status, 201);
        assert!(closed.charge("a", "{}").await.is_replayed());
        assert_eq!(open.charge("b", "{}").await.status, 201);
        assert!(open.charge("b", "{}").await.is_replayed());
    });
}

/// A server that is killed while a request is handled, and one that comes back, or does not.
#[test]
fn a_response_that_cannot_be_stored_reaches_its_client_and_is_stored_later() {
    let directory = Scratch::new("http-lost");
    let data = directory.join("data");
    let socket = format!("unix:{}", directory.join("onced.sock").display());
    let start = || Process::start(&data, &["--listen", &socket]);
    let patience = Duration::from_millis(300);
    let layer = || Idempotency::new(client_of(&socket), Scope::shared()).patience(patience);
    let answered = async |service: &Service, server: Process, key| {
        let (told, ()) = tokio::join!(service.charge(key, "wait"), async {
            service.till.begun(1).await;
            server.kill();
            service.till.0.go_on.notify_one();
        });
        assert_eq!((told.status, &told.body[..]), (200, &b"charge 1"[..]));
        assert_eq!(told.header("idempotency-not-stored"), Some("true"));
    };
    run(async {
        let service = Service::start(layer()).await;
        answered(&service, start(), "a").await;
        let _again = start();
        service.layer.idle().await;
        assert!(service.charge("a", "wait").await.is_replayed());
        assert_eq!((service.till.charges(), service.counts().fresh), (1, 1));
    });
    run(async {
        let service = Service::start(layer().lease(Duration::from_millis(200))).await;
        answered(&service, start(), "b").await;
        while service.counts().not_stored == 0 {
            sleep(Duration::from_millis(20)).await;
        }
    });
}

/// Retries whose clients hang up take no place from others, and are not handled when it is their turn.
#[test]
fn who_hangs_up_waits_no_longer() {
    let server = TestServer::start();
    run(async {
        let service = Service::with(&server, |layer| layer.wait(Duration::from_secs(30))).await;
        let (first, ()) = tokio::join!(service.charge("a", "wait"), async {
            service.till.begun(1).await;
            for _ in 0..5 {
                let retry = timeout(Duration::from_millis(50), service.charge("a", "wait")).await;
                assert!(retry.is_err());
            }
            while server.gauge("waiters") > 0 {
                sleep(Duration::from_millis(5)).await;
            }
            service.till.0.go_on.notify_one();
        });
        assert_eq!((first.status, service.till.charges()), (200, 1));
    });
}

/// A request that is known to be handled by another is not handled without protection.
#[test]
fn failing_open_is_not_for_what_is_known_to_be_a_retry() {
    let directory = Scratch::new("http-open");
    let data = directory.join("data");
    let socket = format!("unix:{}", directory.join("onced.sock").display());
    let server = Process::start(&data, &["--listen", &socket]);
    run(async {
        let layer = Idempotency::new(client_of(&socket), Scope::shared())
            .patience(Duration::from_millis(300))
            .wait(Duration::from_secs(20))
            .fail_open();
        let service = Service::start(layer).await;
        let (first, retry, ()) = tokio::join!(
            service.charge("a", "wait"),
            service.charge("a", "wait"),
            async {
                while server.connect().gauge("waiters") == 0 {
                    sleep(Duration::from_millis(5)).await;
                }
                server.kill();
                sleep(Duration::from_millis(1_500)).await;
                service.till.0.go_on.notify_one();
            }
        );
        let (first, retry) = if first.status == 200 {
            (first, retry)
        } else {
            (retry, first)
        };
        assert_eq!(first.status, 200);
        retry.assert_problem(409);
        assert_eq!(
            (service.till.charges(), service.counts().failed_open),
            (1, 0)
        );
    });
}

/// What onced refuses is no outage: neither is it handled without protection, nor to be tried again.
#[test]
fn what_is_misconfigured_or_too_long_is_said_to_be() {
    let server = TestServer::start();
    run(async {
        let service = Service::with(&server, |layer| {
            layer.lease(Duration::from_hours(25)).fail_open()
        })
        .await;
        service.charge("a", "{}").await.assert_problem(500);
        let service_of_long =
            Service::with(&server, |layer| layer.key_bytes_max(20_000).fail_open()).await;
        let long = "x".repeat(9_000);
        service_of_long
            .charge(&long, "{}")
            .await
            .assert_problem(400);
        assert_eq!(service.till.charges() + service_of_long.till.charges(), 0);
        assert_eq!(service.counts().misconfigured, 1);
        assert_eq!(service_of_long.counts().refused, 1);
    });
}

/// Work that was begun when there was room is stored when there is none any more, with less if need be.
#[test]
fn with_memory_full_less_is_stored_and_nothing_is_handled_again() {
    const REQUESTS: u64 = 30;
    let server = TestServer::with(|raw| raw.max_memory = Some("64MiB".to_owned()));
    run(async {
        let service = Arc::new(Service::with(&server, |layer| layer).await);
        let mut callers = tokio::task::JoinSet::new();
        for number in 0..REQUESTS {
            let service = Arc::clone(&service);
            callers
                .spawn(async move { service.charge(&format!("k{number}"), "wait 250000").await });
        }
        service.till.begun(REQUESTS).await;
        fill(&server);
        service.till.0.go_on.notify_waiters();
        while let Some(told) = callers.join_next().await {
            assert_eq!(told.unwrap().body.len(), 250_000);
        }
        let mut omitted = 0;
        for number in 0..REQUESTS {
            let retry = service.charge(&format!("k{number}"), "wait 250000").await;
            assert!(retry.is_replayed(), "{}", retry.status);
            let is_omitted = retry.header("idempotency-body-omitted").is_some();
            assert_eq!(retry.body.len(), if is_omitted { 0 } else { 250_000 });
            omitted += u64::from(is_omitted);
        }
        assert!(omitted > 0 && omitted < REQUESTS, "{omitted}");
        assert_eq!(
            (service.till.charges(), service.counts().not_stored),
            (REQUESTS, 0)
        );
        assert_eq!(service.counts().body_omitted, omitted);
    });
}
