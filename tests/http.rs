//! The tower layer in front of an axum service, asked by a real HTTP client: every case of the
//! Idempotency-Key draft with its status, headers and body, and what happens when things fail.

#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a test fails by panicking"
)]

mod common;

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::OriginalUri;
use axum::http::{HeaderMap, HeaderName, Method, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, post};
use axum::{Extension, Router};
use common::asynchronous::{client_of, run};
use common::process::{Process, Scratch};
use common::{TestServer, fill};
use http_body::Frame;
use http_body_util::{BodyExt, Full};
use onced::client::{
    Begin, BeginOptions, Client, ClientConfig, CompleteOptions, Done, Held, Outcome,
};
use onced::http::{Counts, Idempotency, Scope};
use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tower::{Layer, ServiceExt};

/// What the service under the layer has done, and what tests tell it.
#[derive(Clone, Default)]
struct Till(Arc<Drawer>);

#[derive(Default)]
struct Drawer {
    charges: AtomicU64,
    /// A charge that is told to wait does so until this is notified.
    go_on: Notify,
}

impl Till {
    fn charges(&self) -> u64 {
        self.0.charges.load(Ordering::SeqCst)
    }
}

/// Charges; the request's body says what else is to happen, in words.
async fn charge(
    Extension(till): Extension<Till>,
    held: Option<Extension<Held>>,
    body: Bytes,
) -> Response {
    let number = 1 + till.0.charges.fetch_add(1, Ordering::SeqCst);
    let body = String::from_utf8_lossy(&body).into_owned();
    let (word, argument) = body.split_once(' ').unwrap_or((&body, ""));
    let charged = format!("charge {number}");
    match word {
        "wait" => {
            till.0.go_on.notified().await;
            match argument.parse() {
                Ok(bytes) => vec![b'x'; bytes].into_response(),
                Err(_) => charged.into_response(),
            }
        }
        "events" => {
            let events = Events(Some("data: 1\n\n"));
            ([("content-type", "text/event-stream")], Body::new(events)).into_response()
        }
        "status" => (
            StatusCode::from_u16(argument.parse().unwrap()).unwrap(),
            charged,
        )
            .into_response(),
        "bytes" => vec![b'x'; argument.parse().unwrap()].into_response(),
        "break" => {
            let pieces = [Ok("half"), Err(std::io::Error::other("no more"))];
            Body::new(Pieces(pieces.into_iter().collect())).into_response()
        }
        "panic" if number == 1 => panic!("the handler panics, as the test wants"),
        "held" => {
            let held = held.map(|Extension(held)| held);
            let (attempt, is_held) = (held.map_or(0, |held| held.attempt), held.is_some());
            (
                StatusCode::from_u16(if attempt == 1 { 500 } else { 200 }).unwrap(),
                format!("{attempt} {is_held}"),
            )
                .into_response()
        }
        _ => {
            let headers = [
                ("location", format!("/charges/{number}")),
                ("content-type", "application/json".to_owned()),
                ("set-cookie", "session=1".to_owned()),
                ("x-hop", "1".to_owned()),
                ("connection", "x-hop".to_owned()),
                ("x-request-id", number.to_string()),
            ];
            let headers: HeaderMap = headers
                .iter()
                .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap()))
                .collect();
            (
                StatusCode::CREATED,
                headers,
                format!("{{\"charge\":{number}}}"),
            )
                .into_response()
        }
    }
}

/// A body that comes in these pieces, and may break off.
struct Pieces(VecDeque<Result<&'static str, std::io::Error>>);

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        let piece = self.0.pop_front();
        Poll::Ready(piece.map(|piece| piece.map(|piece| Frame::data(piece.into()))))
    }
}

/// A body that never ends.
struct Events(Option<&'static str>);

impl http_body::Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.0.take() {
            Some(event) => Poll::Ready(Some(Ok(Frame::data(event.into())))),
            None => Poll::Pending,
        }
    }
}

/// A service under a layer, on a port.
struct Service {
    url: String,
    till: Till,
    layer: Idempotency,
    http: reqwest::Client,
}

impl Service {
    async fn start(layer: Idempotency) -> Self {
        let till = Till::default();
        let app = Router::new()
            .route("/charges", any(charge))
            .route("/refunds", post(charge))
            .layer(layer.clone())
            .layer(Extension(till.clone()));
        Self::serve(app, till, layer).await
    }

    async fn serve(app: Router, till: Till, layer: Idempotency) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self {
            url,
            till,
            layer,
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
        }
    }

    /// One whose layer is as it comes, but for these choices.
    async fn with(server: &TestServer, choose: impl FnOnce(Idempotency) -> Idempotency) -> Self {
        let layer = Idempotency::new(client_of(&server.address), Scope::shared());
        Self::start(choose(layer)).await
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url))
    }

    /// `POST /charges` with a key, in quotes.
    async fn charge(&self, key: &str, body: impl Into<reqwest::Body>) -> Told {
        let request = self.request(Method::POST, "/charges");
        Told::of(
            request
                .header("idempotency-key", format!("\"{key}\""))
                .body(body),
        )
        .await
    }

    fn counts(&self) -> Counts {
        self.layer.counts()
    }
}

/// A response that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
}

impl Told {
    async fn of(request: reqwest::RequestBuilder) -> Self {
        let response = request.send().await.unwrap();
        Self {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body: response.bytes().await.unwrap(),
        }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    fn is_replayed(&self) -> bool {
        self.header("idempotency-replayed") == Some("true")
    }

    /// That it is a refusal as problem details, with this status.
    #[track_caller]
    fn assert_problem(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json")
        );
        assert_eq!(self.header("content-language"), Some("en"));
        assert!(!self.is_replayed());
        let problem: Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(problem["status"], status);
        for member in ["type", "title", "detail"] {
            assert!(!problem[member].as_str().unwrap().is_empty(), "{problem}");
        }
        let retry_after = matches!(status, 409 | 503);
        assert_eq!(
            self.header("retry-after").is_some(),
            retry_after,
            "{self:?}"
        );
        problem
    }
}

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
            while service.till.charges() == 0 {
                sleep(Duration::from_millis(5)).await;
            }
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
                common_wait(&server).await;
                service.till.0.go_on.notify_one();
            }
        );
        assert_eq!((first.status, &first.body), (retry.status, &retry.body));
        assert!(first.is_replayed() != retry.is_replayed());
        assert_eq!(service.till.charges(), 1);
        // It waits no longer than it was told to.
        let service = Service::with(&server, |layer| layer.wait(Duration::from_millis(50))).await;
        let (_, retry) = tokio::join!(service.charge("b", "wait"), async {
            while service.till.charges() == 0 {
                sleep(Duration::from_millis(5)).await;
            }
            let retry = service.charge("b", "wait").await;
            service.till.0.go_on.notify_one();
            retry
        });
        retry.assert_problem(409);
    });
}

/// Until a request waits in the server.
async fn common_wait(server: &TestServer) {
    while server.gauge("waiters") == 0 {
        sleep(Duration::from_millis(5)).await;
    }
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
            layer.fingerprint(|_, body| body.first().map(u8::to_owned).into_iter().collect())
        })
        .await;
        assert_eq!(service.charge("b", "{}").await.status, 201);
        assert!(service.charge("b", "{ }").await.is_replayed());
        service.charge("b", "[]").await.assert_problem(422);
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
            (422, true),
            (401, false),
            (408, false),
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
        assert_eq!((counts.fresh, counts.replayed, counts.released), (7, 7, 14));
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
            while service.till.charges() == 0 {
                sleep(Duration::from_millis(5)).await;
            }
            server.kill();
            service.till.0.go_on.notify_one();
        });
        assert_eq!((told.status, &told.body[..]), (200, &b"charge 1"[..]));
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
            while service.till.charges() == 0 {
                sleep(Duration::from_millis(5)).await;
            }
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
        while service.till.charges() < REQUESTS {
            sleep(Duration::from_millis(5)).await;
        }
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
            |parts, body| {
                let uri = parts.extensions.get::<OriginalUri>();
                let uri = uri.map_or(parts.uri.to_string(), |OriginalUri(uri)| uri.to_string());
                [uri.as_bytes(), b"\n", body].concat()
            },
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
