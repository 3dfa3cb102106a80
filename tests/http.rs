//! The tower layer in front of an axum service, asked by a real HTTP client: every case of the
//! Idempotency-Key draft with its status, headers and body; and, in `faults`, what happens when
//! things fail.

#![allow(missing_docs, unreachable_pub)]
#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a test fails by panicking"
)]

mod common;
#[path = "http/faults.rs"]
mod faults;
#[path = "http/service.rs"]
mod service;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::OriginalUri;
use axum::http::{HeaderName, Method, Request, StatusCode};
use axum::response::Response;
use axum::routing::{any, post};
use axum::{Extension, Router};
use common::TestServer;
use common::asynchronous::{client_of, run};
use http_body_util::{BodyExt, Full};
use onced::client::{Begin, BeginOptions, Outcome};
use onced::http::{Canonical, Counts, Idempotency, Scope};
use service::{Pieces, Service, Till, Told, charge};
use tokio::time::sleep;
use tower::{Layer, ServiceExt};

#[test]
fn a_retry_gets_the_response_of_the_first() {
    let server = TestServer::start();
    run(async {
        let service = Service::with(&server, |layer| {
            layer.never_replay(HeaderName::from_static("x-request-id"))
        })
        .await;
        let first = service.charge("a", "{}").await;
        assert_eq!(
            (first.status, &first.body[..]),
            (201, &b"{\"charge\":1}"[..])
        );
        for name in ["set-cookie", "x-hop", "x-request-id", "date"] {
            assert!(first.header(name).is_some(), "{name}");
        }
        assert!(!first.is_replayed());
        for _ in 0..2 {
            let retry = service.charge("a", "{}").await;
            assert_eq!((retry.status, &retry.body), (201, &first.body));
            assert!(retry.is_replayed());
            for name in ["location", "content-type", "content-length"] {
                assert_eq!(retry.header(name), first.header(name), "{name}");
            }
            for name in ["set-cookie", "x-hop", "connection", "x-request-id"] {
                assert_eq!(retry.header(name), None, "{name}");
            }
        }
        assert_eq!(service.till.charges(), 1);
        let other = service.charge("b", "{}").await;
        assert_eq!(
            (other.status, &other.body[..]),
            (201, &b"{\"charge\":2}"[..])
        );
        let counts = Counts {
            fresh: 2,
            replayed: 2,
            ..Counts::default()
        };
        assert_eq!(service.counts(), counts);
    });
}

#[test]
fn a_request_without_a_key_is_refused_where_one_is_needed() {
    let server = TestServer::start();
    run(async {
        let link = "https://developer.example.com/idempotency";
        let service = Service::with(&server, |layer| {
            layer
                .documentation(link)
                .key_bytes_max(9)
                .check_key(|key| key != "forbidden")
        })
        .await;
        let missing = Told::of(service.request(Method::POST, "/charges").body("{}")).await;
        assert_eq!(missing.assert_problem(400)["type"], link);
        let said = format!("<{link}>; rel=\"describedby\"; type=\"text/html\"");
        assert_eq!(missing.header("link"), Some(&said[..]));
        for key in [
            "abc",
            "\"\"",
            "\"abc",
            "17",
            "\"a\", \"b\"",
            "\"forbidden\"",
            "\"0123456789\"",
        ] {
            let request = service
                .request(Method::POST, "/charges")
                .header("idempotency-key", key);
            Told::of(request).await.assert_problem(400);
        }
        let twice = service
            .request(Method::POST, "/charges")
            .header("idempotency-key", "\"a\"");
        Told::of(twice.header("idempotency-key", "\"b\""))
            .await
            .assert_problem(400);
        assert_eq!(service.till.charges(), 0);
        assert_eq!(service.counts().refused, 9);
        assert_eq!(service.charge("012345678", "{}").await.status, 201);
        // Other methods need none, and have none.
        for method in [Method::GET, Method::PUT, Method::DELETE] {
            for _ in 0..2 {
                let request = service.request(method.clone(), "/charges");
                let told = Told::of(request.header("idempotency-key", "\"g\"")).await;
                assert_eq!(told.status, 201);
            }
        }
        assert_eq!(service.till.charges(), 7);
        // No documentation, no link.
        let service = Service::with(&server, |layer| layer).await;
        let missing = Told::of(service.request(Method::PATCH, "/charges").body("{}")).await;
        assert_eq!(missing.assert_problem(400)["type"], "about:blank");
        assert_eq!(missing.header("link"), None);
    });
}

#[test]
fn keys_may_be_optional_bare_and_for_other_methods() {
    let server = TestServer::start();
    run(async {
        let service = Service::with(&server, |layer| {
            layer.optional().accept_bare_keys().methods([Method::PUT])
        })
        .await;
        let put = |key: Option<&str>| {
            let request = service.request(Method::PUT, "/charges").body("{}");
            Told::of(match key {
                Some(key) => request.header("idempotency-key", key),
                None => request,
            })
        };
        assert_eq!(put(None).await.status, 201);
        assert_eq!(put(None).await.status, 201);
        assert!(!put(Some("8e03978e-40d5")).await.is_replayed());
        assert!(put(Some("\"8e03978e-40d5\"")).await.is_replayed());
        put(Some("\"8e03978e-40d5")).await.assert_problem(400);
        assert_eq!(service.till.charges(), 3);
        assert_eq!(service.charge("k", "{}").await.status, 201);
        assert_eq!(service.charge("k", "{}").await.status, 201);
        assert_eq!(service.till.charges(), 5);
    });
}

#[test]
fn while_the_first_is_handled_a_retry_is_told_to_come_again() {
    let server = TestServer::start();
    run(async {
        let service = Service::with(&server, |layer| layer).await;
        let (first, ()) = tokio::join!(service.charge("a", "wait"), async {
            service.till.begun(1).await;
            let retry = service.charge("a", "wait").await;
            retry.assert_problem(409);
            // The lease is 30 s, and most requests are handled sooner.
            assert_eq!(retry.header("retry-after"), Some("5"));
            // A request with another body is told so even now.
            service.charge("a", "other").await.assert_problem(422);
            service.till.0.go_on.notify_one();
        });
        assert_eq!(&first.body[..], b"charge 1");
        assert_eq!(service.charge("a", "wait").await.body, first.body);
        assert_eq!(service.till.charges(), 1);
        assert_eq!(service.counts().busy, 1);
    });
}

#[test]
fn a_retry_may_wait_for_the_first() {
    let server = TestServer::start();
    run(async {
        let service = Service::with(&server, |layer| layer.wait(Duration::from_secs(30))).await;
        let (first, retry, ()) = tokio::join!(
            service.charge("a", "wait"),
            service.charge("a", "wait"),
            async {
                while server.gauge("waiters") == 0 {
                    sleep(Duration::from_millis(5)).await;
                }
                service.till.0.go_on.notify_one();
            }
        );
        assert_eq!((first.status, &first.body), (retry.status, &retry.body));
        assert!(first.is_replayed() != retry.is_replayed());
        assert_eq!(service.till.charges(), 1);
        // It waits no longer than it was told to.
        let service = Service::with(&server, |layer| layer.wait(Duration::from_millis(50))).await;
        let (_, retry) = tokio::join!(service.charge("b", "wait"), async {
            service.till.begun(1).await;
            let retry = service.charge("b", "wait").await;
            service.till.0.go_on.notify_one();
            retry
        });
        retry.assert_problem(409);
    });
}

#[test]
fn the_key_of_another_request_is_refused() {
    let server = TestServer::start();
    run(async {
        let service = Service::with(&server, |layer| layer).await;
        assert_eq!(service.charge("a", "{}").await.status, 201);
        let ask = |method, path: &str, body: &'static str| {
            let request = service
                .request(method, path)
                .header("idempotency-key", "\"a\"");
            Told::of(request.body(body))
        };
        for (method, path, body) in [
            (Method::POST, "/charges", "{ }"),
            (Method::POST, "/charges", ""),
            (Method::POST, "/charges?dry=1", "{}"),
            (Method::POST, "/refunds", "{}"),
            (Method::PATCH, "/charges", "{}"),
        ] {
            ask(method, path, body).await.assert_problem(422);
        }
        assert!(ask(Method::POST, "/charges", "{}").await.is_replayed());
        assert_eq!(service.till.charges(), 1);
        assert_eq!(service.counts().mismatched, 5);
        // What must be equal is the service's choice.
        let service = Service::with(&server, |layer| {
            layer.fingerprint(Canonical::of(|_, body| {
                body.first().map(u8::to_owned).into_iter().collect()
            }))
        })
        .await;
        assert_eq!(service.charge("b", "{}").await.status, 201);
        assert!(service.charge("b", "{ }").await.is_replayed());
        service.charge("b", "[]").await.assert_problem(422);
    });
}

/// A client that builds its request anew for each retry, from a map without an order.
#[test]
fn a_retry_may_write_its_json_another_way_where_that_is_chosen() {
    let server = TestServer::start();
    run(async {
        let service = Service::with(&server, |layer| layer.fingerprint(Canonical::Json)).await;
        let ask = |kind: &'static str, body: &'static str| {
            let request = service.request(Method::POST, "/charges");
            let request = request.header("idempotency-key", "\"a\"");
            Told::of(request.header("content-type", kind).body(body))
        };
        let first = "{\"card\":\"visa\",\"cents\":1250}";
        assert_eq!(ask("application/json", first).await.status, 201);
        for (kind, same) in [
            ("application/json", first),
            (
                "application/json",
                "{ \"cents\": 1250.0, \"card\": \"\\u0076isa\" }\n",
            ),
            (
                "application/vnd.pay+json; v=1",
                "{\"cents\":125e1,\"card\":\"visa\"}",
            ),
        ] {
            assert!(ask(kind, same).await.is_replayed(), "{same}");
        }
        for (kind, other) in [
            ("application/json", "{\"cents\":1251,\"card\":\"visa\"}"),
            ("application/json", "{\"cents\":\"1250\",\"card\":\"visa\"}"),
            ("application/json", "{\"cents\":1250,\"card\":\"visa\",}"),
            ("text/plain", "{\"cents\":1250,\"card\":\"visa\"}"),
        ] {
            ask(kind, other).await.assert_problem(422);
        }
        assert_eq!(service.till.charges(), 1);
    });
}

#[test]
fn callers_do_not_get_each_others_responses() {
    let server = TestServer::start();
    run(async {
        let layer = Idempotency::new(client_of(&server.address), Scope::header("authorization"));
        let service = Service::start(layer).await;
        let ask = |who: Option<&str>| {
            let request = service.request(Method::POST, "/charges").body("{}");
            let request = request.header("idempotency-key", "\"a\"");
            Told::of(match who {
                Some(who) => request.header("authorization", who),
                None => request,
            })
        };
        let one = ask(Some("Bearer one")).await;
        let two = ask(Some("Bearer two")).await;
        assert_ne!(one.body, two.body);
        assert_eq!(ask(Some("Bearer one")).await.body, one.body);
        ask(None).await.assert_problem(403);
        assert_eq!(service.till.charges(), 2);
    });
}

#[test]
fn responses_are_stored_or_the_key_is_free_again() {
    let server = TestServer::start();
    run(async {
        let service = Service::with(&server, |layer| layer).await;
        for (status, is_kept) in [
            (200, true),
            (204, true),
            (303, true),
            (400, true),
            (402, true),
            (404, true),
            (412, true),
            (422, true),
            (401, false),
            (407, false),
            (408, false),
            (409, false),
            (421, false),
            (423, false),
            (424, false),
            (425, false),
            (429, false),
            (500, false),
            (502, false),
            (503, false),
        ] {
            let (key, body) = (format!("k{status}"), format!("status {status}"));
            let before = service.till.charges();
            let first = service.charge(&key, body.clone()).await;
            let retry = service.charge(&key, body).await;
            assert_eq!((first.status, retry.status), (status, status));
            assert_eq!(retry.is_replayed(), is_kept, "{status}");
            let times = if is_kept { 1 } else { 2 };
            assert_eq!(service.till.charges() - before, times, "{status}");
            if is_kept {
                assert_eq!(retry.body, first.body);
            }
        }
        let counts = service.counts();
        assert_eq!((counts.fresh, counts.replayed, counts.released), (8, 8, 24));
        // Success and failure are told apart in onced.
        let mut raw = server.connect();
        assert_eq!(raw.ask("PEEK /k200 /k303 /k402 /k500"), "CCFR");
        // What is stored is the service's choice.
        let service =
            Service::with(&server, |layer| layer.keep_if(|parts| parts.status == 500)).await;
        service.charge("o", "status 500").await;
        assert!(service.charge("o", "status 500").await.is_replayed());
        service.charge("p", "status 200").await;
        assert!(!service.charge("p", "status 200").await.is_replayed());
    });
}

#[test]
fn a_retry_after_a_failure_is_told_of_its_attempt() {
    let server = TestServer::start();
    run(async {
        let service = Service::with(&server, |layer| layer).await;
        assert_eq!(&service.charge("a", "held").await.body[..], b"1 true");
        assert_eq!(&service.charge("a", "held").await.body[..], b"2 true");
        assert_eq!(&service.charge("a", "held").await.body[..], b"2 true");
        assert_eq!(service.till.charges(), 2);
    });
}

#[test]
fn a_request_may_have_so_many_bytes() {
    let server = TestServer::start();
    run(async {
        let service = Service::with(&server, |layer| layer.request_bytes_max(100)).await;
        assert_eq!(service.charge("a", vec![b'x'; 100]).await.status, 201);
        service
            .charge("b", vec![b'x'; 101])
            .await
            .assert_problem(413);
        // One that does not say how long it is.
        let pieces = |count| Body::new(Pieces((0..count).map(|_| Ok("xxxxxxxxxx")).collect()));
        for (count, status) in [
            (10, StatusCode::CREATED),
            (11, StatusCode::PAYLOAD_TOO_LARGE),
        ] {
            let request =
                Request::post("/charges").header("idempotency-key", format!("\"c{count}\""));
            let app = Router::new()
                .route("/charges", any(charge))
                .layer(service.layer.clone());
            let app = app.layer(Extension(service.till.clone()));
            let told = app
                .oneshot(request.body(pieces(count)).unwrap())
                .await
                .unwrap();
            assert_eq!(told.status(), status);
        }
        assert_eq!(service.till.charges(), 2);
    });
}

#[test]
fn a_response_that_is_too_large_is_replayed_without_its_body() {
    let server = TestServer::with(|raw| raw.max_value = Some("2KiB".to_owned()));
    run(async {
        // The layer's own limit, from both sides; the headers count.
        let service = Service::with(&server, |layer| layer.stored_bytes_max(1_000)).await;
        let head = "content-type: application/octet-stream\r\n\r\n".len();
        for (bytes, is_whole) in [
            (1_000 - head, true),
            (1_001 - head, false),
            (100_000, false),
        ] {
            let (key, body) = (format!("k{bytes}"), format!("bytes {bytes}"));
            let first = service.charge(&key, body.clone()).await;
            assert_eq!((first.status, first.body.len()), (200, bytes));
            let retry = service.charge(&key, body).await;
            assert_eq!(retry.status, 200);
            assert!(retry.is_replayed());
            assert_eq!(retry.header("content-type"), first.header("content-type"));
            let omitted = retry.header("idempotency-body-omitted");
            assert_eq!(omitted, (!is_whole).then_some("true"));
            assert_eq!(retry.body.len(), if is_whole { bytes } else { 0 });
        }
        let counts = service.counts();
        assert_eq!(
            (counts.fresh, counts.body_omitted, counts.not_stored),
            (3, 2, 0)
        );
        // The server's, which the layer does not know.
        let service = Service::with(&server, |layer| layer).await;
        for (bytes, is_whole) in [(2_048 - head, true), (2_049 - head, false)] {
            let (key, body) = (format!("s{bytes}"), format!("bytes {bytes}"));
            assert_eq!(service.charge(&key, body.clone()).await.body.len(), bytes);
            let retry = service.charge(&key, body).await;
            assert!(retry.is_replayed());
            assert_eq!(retry.header("idempotency-body-omitted").is_none(), is_whole);
        }
        let counts = service.counts();
        assert_eq!(
            (counts.fresh, counts.body_omitted, counts.not_stored),
            (2, 1, 0)
        );
        assert_eq!(service.till.charges(), 2);
    });
}

#[test]
fn a_stream_of_events_reaches_its_client_at_once() {
    let server = TestServer::start();
    run(async {
        let service = Service::with(&server, |layer| layer).await;
        let request = service
            .request(Method::POST, "/charges")
            .header("idempotency-key", "\"a\"");
        let mut told = request.body("events").send().await.unwrap();
        assert_eq!(told.chunk().await.unwrap().unwrap(), "data: 1\n\n");
        service.layer.idle().await;
        assert_eq!(service.counts().released, 1);
    });
}

/// A limit that an outer layer set is told as that.
#[test]
fn an_outer_limit_on_bodies_is_told() {
    let server = TestServer::start();
    run(async {
        let layer = Idempotency::new(client_of(&server.address), Scope::shared());
        let inner = tower::service_fn(|_: Request<onced::http::Body>| async {
            Ok::<_, Infallible>(Response::new(Body::empty()))
        });
        let request = Request::post("/").header("idempotency-key", "\"a\"");
        let body = http_body_util::Limited::new(Full::new(Bytes::from_static(b"123456")), 5);
        let told = layer
            .layer(inner)
            .oneshot(request.body(body).unwrap())
            .await
            .unwrap();
        assert_eq!(told.status(), StatusCode::PAYLOAD_TOO_LARGE);
    });
}

#[test]
fn retries_that_race_get_one_charge() {
    let server = TestServer::start();
    run(async {
        let waiting = Service::with(&server, |layer| layer.wait(Duration::from_secs(30))).await;
        let waiting = Arc::new(waiting);
        let mut callers = tokio::task::JoinSet::new();
        for number in 0..200 {
            let service = Arc::clone(&waiting);
            callers.spawn(async move {
                let key = format!("k{}", number % 10);
                (key.clone(), service.charge(&key, "{}").await)
            });
        }
        let mut told = BTreeMap::<String, Vec<Told>>::new();
        while let Some(one) = callers.join_next().await {
            let (key, one) = one.unwrap();
            told.entry(key).or_default().push(one);
        }
        assert_eq!((told.len(), waiting.till.charges()), (10, 10));
        for told in told.values() {
            assert_eq!(told.len(), 20);
            assert!(
                told.iter()
                    .all(|one| one.status == 201 && one.body == told[0].body)
            );
            assert_eq!(told.iter().filter(|one| !one.is_replayed()).count(), 1);
        }
        let counts = waiting.counts();
        assert_eq!((counts.fresh, counts.replayed), (10, 190));
    });
}

#[test]
fn a_nested_router_tells_its_paths_apart_by_the_whole_one() {
    let server = TestServer::start();
    run(async {
        let layer = Idempotency::new(client_of(&server.address), Scope::shared()).fingerprint(
            Canonical::of(|parts, body| {
                let uri = parts.extensions.get::<OriginalUri>();
                let uri = uri.map_or(parts.uri.to_string(), |OriginalUri(uri)| uri.to_string());
                [uri.as_bytes(), b"\n", body].concat()
            }),
        );
        let till = Till::default();
        let inner = |layer| Router::new().route("/charges", post(charge)).layer(layer);
        let app = Router::new()
            .nest("/one", inner(layer.clone()))
            .nest("/two", inner(layer.clone()))
            .layer(Extension(till.clone()));
        let service = Service::serve(app, till, layer).await;
        let ask = |path: &str| {
            let request = service.request(Method::POST, path).body("{}");
            Told::of(request.header("idempotency-key", "\"a\""))
        };
        assert_eq!(ask("/one/charges").await.status, 201);
        ask("/two/charges").await.assert_problem(422);
        assert!(ask("/one/charges").await.is_replayed());
    });
}

/// The layer on a service of tower alone, whose bodies are no axum bodies.
#[test]
fn the_layer_is_for_any_service() {
    let server = TestServer::start();
    run(async {
        let layer = Idempotency::new(client_of(&server.address), Scope::shared());
        let inner = tower::service_fn(|request: Request<onced::http::Body>| async move {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            Ok::<_, Infallible>(http::Response::new(Full::new(body)))
        });
        let service = layer.layer(inner);
        for is_replayed in [false, true] {
            let request = Request::post("/").header("idempotency-key", "\"a\"");
            let request = request
                .body(Full::new(Bytes::from_static(b"echo")))
                .unwrap();
            let told = service.clone().oneshot(request).await.unwrap();
            assert_eq!(
                told.headers().contains_key("idempotency-replayed"),
                is_replayed
            );
            let body = told.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(&body[..], b"echo");
        }
        // Without a fingerprint, whoever has the key sees what is stored.
        let client = client_of(&server.address);
        let stored = client.begin("/a", &BeginOptions::default()).await;
        let stored = stored.unwrap();
        let body = Bytes::from_static(b"\r\necho");
        assert_eq!(
            stored,
            Begin::Settled(Outcome {
                is_failure: false,
                code: 200,
                body
            })
        );
    });
}
