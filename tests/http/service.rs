//! A service of axum under the layer, on a port, and its HTTP client.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, post};
use axum::{Extension, Router};
use http_body::Frame;
use onced::client::Held;
use onced::http::{Counts, Idempotency, Scope};
use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::common::TestServer;
use crate::common::asynchronous::client_of;

/// What the service under the layer has done, and what tests tell it.
#[derive(Clone, Default)]
pub struct Till(pub Arc<Drawer>);

#[derive(Default)]
pub struct Drawer {
    charges: AtomicU64,
    /// A charge that is told to wait does so until this is notified.
    pub go_on: Notify,
    /// A charge that is told to block its thread does so until this is set.
    pub unblock: AtomicBool,
}

impl Till {
    pub fn charges(&self) -> u64 {
        self.0.charges.load(Ordering::SeqCst)
    }

    /// Returns once so many charges were begun.
    pub async fn begun(&self, charges: u64) {
        while self.charges() < charges {
            sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Charges; the request's body says what else is to happen, in words.
pub async fn charge(
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
        "block" => {
            while !till.0.unblock.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(5));
            }
            charged.into_response()
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
pub struct Pieces(pub VecDeque<Result<&'static str, std::io::Error>>);

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
pub struct Service {
    pub url: String,
    pub till: Till,
    pub layer: Idempotency,
    pub http: reqwest::Client,
}

impl Service {
    pub async fn start(layer: Idempotency) -> Self {
        Self::start_with(layer, Till::default()).await
    }

    /// One whose till others look at too.
    pub async fn start_with(layer: Idempotency, till: Till) -> Self {
        let app = Router::new()
            .route("/charges", any(charge))
            .route("/refunds", post(charge))
            .layer(layer.clone())
            .layer(Extension(till.clone()));
        Self::serve(app, till, layer).await
    }

    pub async fn serve(app: Router, till: Till, layer: Idempotency) -> Self {
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
    pub async fn with(
        server: &TestServer,
        choose: impl FnOnce(Idempotency) -> Idempotency,
    ) -> Self {
        let layer = Idempotency::new(client_of(&server.address), Scope::shared());
        Self::start(choose(layer)).await
    }

    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url))
    }

    /// `POST /charges` with a key, in quotes.
    pub async fn charge(&self, key: &str, body: impl Into<reqwest::Body>) -> Told {
        let request = self.request(Method::POST, "/charges");
        Told::of(
            request
                .header("idempotency-key", format!("\"{key}\""))
                .body(body),
        )
        .await
    }

    pub fn counts(&self) -> Counts {
        self.layer.counts()
    }
}

/// A response that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Told {
    pub async fn of(request: reqwest::RequestBuilder) -> Self {
        let response = request.send().await.unwrap();
        Self {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body: response.bytes().await.unwrap(),
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub fn is_replayed(&self) -> bool {
        self.header("idempotency-replayed") == Some("true")
    }

    /// That it is a refusal as problem details, with this status.
    #[track_caller]
    pub fn assert_problem(&self, status: u16) -> Value {
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
