//! The service: one request's way from its key to a response.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Body as HttpBody;
use parking_lot::Mutex;
use tower_layer::Layer;
use tower_service::Service;
use tracing::{Instrument, error, warn};

use super::body::{Beginning, Body, BoxError, boxed, full};
use super::counts::Event;
use super::key::{fingerprint, named};
use super::layer::{Idempotency, Settings};
use super::problem::Problem;
use super::stored::{replay, store};
use crate::client::{
    ClientError, CompleteOptions, Done, Ending, Failure, Held, Origin, RunOnce, RunOnceError,
    StoreError,
};

/// A service under the layer.
#[derive(Clone)]
pub struct IdempotencyService<S> {
    settings: Arc<Settings>,
    inner: S,
}

impl<S: std::fmt::Debug> std::fmt::Debug for IdempotencyService<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IdempotencyService")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

impl<S> Layer<S> for Idempotency {
    type Service = IdempotencyService<S>;

    fn layer(&self, inner: S) -> IdempotencyService<S> {
        IdempotencyService {
            settings: Arc::clone(&self.settings),
            inner,
        }
    }
}

/// What a request will be answered.
type Answer<E> = Pin<Box<dyn Future<Output = Result<Response<Body>, E>> + Send>>;

/// What handles a request.
type Handler<E> = Box<dyn FnOnce(Request<Body>) -> Answer<E> + Send>;

impl<S, F, B, R, E> Service<Request<B>> for IdempotencyService<S>
where
    S: Service<Request<Body>, Response = Response<R>, Error = E, Future = F>
        + Clone
        + Send
        + 'static,
    F: Future<Output = Result<Response<R>, E>> + Send + 'static,
    E: Send + 'static,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    R: HttpBody<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = E;
    type Future = Answer<E>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), E>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Answer<E> {
        // The one that is ready does the work.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        let handler: Handler<E> = Box::new(move |request| {
            let called = inner.call(request);
            Box::pin(async move { Ok(called.await?.map(boxed)) })
        });
        let request = request.map(boxed);
        if !self.settings.methods.contains(request.method()) {
            return handler(request);
        }
        Box::pin(answer(Arc::clone(&self.settings), handler, request))
    }
}

/// A request that is to be handled once.
struct Work<E> {
    handler: Handler<E>,
    parts: Parts,
    body: Bytes,
}

impl<E> Work<E> {
    /// Has the request handled, by the holder of this token or by one who holds none.
    fn handle(mut self, held: Option<Held>) -> Answer<E> {
        if let Some(held) = held {
            self.parts.extensions.insert(held);
        }
        (self.handler)(Request::from_parts(self.parts, full(self.body)))
    }
}

/// What is not to be stored.
enum Unkept<E> {
    Response(Response<Body>),
    Broken(BoxError),
    Error(E),
}

/// Answers a request that may have a key.
async fn answer<E: Send + 'static>(
    settings: Arc<Settings>,
    handler: Handler<E>,
    request: Request<Body>,
) -> Result<Response<Body>, E> {
    let (parts, body) = request.into_parts();
    let key = match settings.key(&parts) {
        Ok(Some(key)) => key,
        Ok(None) => return handler(Request::from_parts(parts, body)).await,
        Err(problem) => return Ok(settings.refuse(Event::Refused, &problem)),
    };
    let body = match settings.read(body).await {
        Ok(body) => body,
        Err(problem) => return Ok(settings.refuse(Event::Refused, &problem)),
    };
    let work = Work {
        handler,
        parts,
        body,
    };
    // A client that hangs up does not stop what was begun: its retry finds the outcome.
    let under_way = settings.counters.begin();
    let worker = async move {
        let _until_it_ends = under_way;
        settings.run_once(&key, work).await
    };
    match tokio::spawn(worker.in_current_span()).await {
        Ok(answer) => answer,
        Err(ended) => match ended.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends, and with it this request.
            Err(_) => std::future::pending().await,
        },
    }
}

impl Settings {
    /// The key of a request in onced, if it names one.
    fn key(&self, parts: &Parts) -> Result<Option<Vec<u8>>, Problem> {
        let named = named(&parts.headers, self.key_bytes_max, self.accepts_bare);
        let Some(key) = named.map_err(Problem::Malformed)? else {
            return if self.is_key_optional {
                Ok(None)
            } else {
                Err(Problem::Missing)
            };
        };
        if self.check_key.as_ref().is_some_and(|check| !check(&key)) {
            return Err(Problem::Malformed("It is none that this service takes"));
        }
        self.scope
            .key(parts, &key)
            .map(Some)
            .ok_or(Problem::NoScope)
    }

    async fn read(&self, body: Body) -> Result<Bytes, Problem> {
        let max = self.request_bytes_max;
        // Nothing is read of a body that says itself that it is too long.
        if body.size_hint().lower() > max as u64 {
            return Err(Problem::TooLarge(max));
        }
        let read = Beginning::read(body, max).await;
        let read = read.map_err(|_| Problem::BrokenRequest)?;
        if !read.is_whole() {
            return Err(Problem::TooLarge(max));
        }
        Ok(read.bytes)
    }

    fn refuse(&self, event: Event, problem: &Problem) -> Response<Body> {
        self.counters.add(event);
        problem.response(self.documentation.as_ref())
    }

    /// The whole life of a request that has a key.
    async fn run_once<E: Send>(&self, key: &[u8], work: Work<E>) -> Result<Response<Body>, E> {
        let options = RunOnce {
            fingerprint: Some(fingerprint(&(self.essence)(&work.parts, &work.body))),
            ..self.run.clone()
        };
        let mut work = Some(work);
        let fresh = Mutex::new(None);
        let ran = self
            .client
            .run_once(key, &options, |held| {
                let work = work.take().expect("work is run once");
                let fresh = &fresh;
                async move {
                    let response = work.handle(Some(held)).await;
                    let response =
                        response.map_err(|error| Failure::Retry(Unkept::Error(error)))?;
                    let (response, done) = self.keep(response).await.map_err(Failure::Retry)?;
                    let is_failure = is_failure(response.status());
                    *fresh.lock() = Some(response);
                    if is_failure {
                        Err(Failure::Final(done))
                    } else {
                        Ok(done)
                    }
                }
            })
            .await;
        let fresh = fresh.into_inner();
        match ran {
            Ok(ran) if ran.origin == Origin::Replayed => Ok(match replay(&ran.outcome) {
                Some(response) => {
                    self.counters.add(Event::Replayed);
                    response
                }
                None => self.refuse(Event::Mismatched, &Problem::NoResponse),
            }),
            Ok(_) => {
                self.counters.add(Event::Fresh);
                Ok(fresh.expect("a fresh outcome is of a response"))
            }
            Err(RunOnceError::Work(Unkept::Response(response))) => {
                self.counters.add(Event::Released);
                Ok(response)
            }
            Err(RunOnceError::Work(Unkept::Broken(error))) => {
                warn!(%error, "a response broke off");
                Ok(self.refuse(Event::Released, &Problem::BrokenResponse))
            }
            Err(RunOnceError::Work(Unkept::Error(error))) => {
                self.counters.add(Event::Released);
                Err(error)
            }
            Err(RunOnceError::Busy { retry_after }) => {
                let retry_after = retry_after.min(self.retry_after_max);
                Ok(self.refuse(Event::Busy, &Problem::Busy(retry_after)))
            }
            Err(RunOnceError::Mismatch) => Ok(self.refuse(Event::Mismatched, &Problem::Mismatch)),
            Err(RunOnceError::LeaseLost { .. }) => {
                Ok(self.refuse(Event::Busy, &Problem::TakenOver))
            }
            Err(RunOnceError::NotStored { held, source, .. }) => {
                let response = fresh.expect("what is not stored is of a response");
                let said = (response.status(), response.headers().clone());
                self.store_less(key, held, said, source).await;
                Ok(response)
            }
            Err(RunOnceError::Client(error)) => match work {
                Some(work) if self.fails_open => {
                    warn!(%error, "onced is down: a request is handled without protection");
                    self.counters.add(Event::FailedOpen);
                    work.handle(None).await
                }
                _ => {
                    warn!(%error, "onced is down: a request is refused");
                    Ok(self.refuse(Event::FailedClosed, &Problem::Down))
                }
            },
        }
    }

    /// A response that is to be stored, and as what.
    async fn keep<E>(&self, response: Response<Body>) -> Result<(Response<Body>, Done), Unkept<E>> {
        let (parts, body) = response.into_parts();
        if !(self.keep_if)(&parts) {
            return Err(Unkept::Response(Response::from_parts(parts, body)));
        }
        let read = Beginning::read(body, self.stored_bytes_max).await;
        let read = read.map_err(Unkept::Broken)?;
        let whole = read.is_whole().then_some(&read.bytes[..]);
        let bounds = (&self.never_replayed[..], self.stored_bytes_max);
        let stored = store(&parts.headers, whole, bounds);
        if stored.is_without_body {
            self.counters.add(Event::BodyOmitted);
        }
        let done = Done {
            code: parts.status.as_u16().into(),
            body: stored.bytes,
        };
        Ok((Response::from_parts(parts, read.into_body()), done))
    }

    /// After a response could not be stored: stores less of it, if that is what the server wants.
    async fn store_less(
        &self,
        key: &[u8],
        held: Held,
        (status, headers): (StatusCode, HeaderMap),
        reason: StoreError,
    ) {
        let is_too_big = matches!(
            &reason,
            StoreError::Client(ClientError::Refused { code, .. }) if code == "TOOBIG"
        );
        let failure = if is_too_big {
            match self.store_head(key, held, status, &headers).await {
                Ok(Ending::Ok) => {
                    warn!("a response is over the server's max-value: its body is not stored");
                    self.counters.add(Event::Fresh);
                    self.counters.add(Event::BodyOmitted);
                    return;
                }
                Ok(ending) => format!("the record is {ending:?}"),
                Err(error) => error.to_string(),
            }
        } else {
            reason.to_string()
        };
        error!(%failure, "a response could not be stored: a retry may be handled again");
        self.counters.add(Event::NotStored);
    }

    /// Stores a response without its body.
    async fn store_head(
        &self,
        key: &[u8],
        held: Held,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> Result<Ending, ClientError> {
        let bounds = (&self.never_replayed[..], self.stored_bytes_max);
        let done = Done {
            code: status.as_u16().into(),
            body: store(headers, None, bounds).bytes,
        };
        let ttl = self.run.ttl;
        if is_failure(status) {
            return self.client.fail_final(key, held.token, &done, ttl).await;
        }
        let options = CompleteOptions {
            ttl,
            ..CompleteOptions::default()
        };
        self.client.complete(key, held.token, &done, &options).await
    }
}

/// Whether a response is stored as a failure for good.
fn is_failure(status: StatusCode) -> bool {
    status.is_client_error() || status.is_server_error()
}
