//! The service: one request's way from its key to a response.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body::Body as HttpBody;
use http_body_util::LengthLimitError;
use tokio::sync::oneshot;
use tower_layer::Layer;
use tower_service::Service;
use tracing::{Instrument, error, warn};

use super::body::{Beginning, Body, BoxError, boxed, full};
use super::counts::Event;
use super::key::{fingerprint, named};
use super::layer::{Idempotency, Settings};
use super::problem::Problem;
use super::stored::{IDEMPOTENCY_NOT_STORED, Stored, replay, store};
use crate::client::{Claim, ClientError, Done, Ending, Grant, Held, Outcome, RunOnce};

/// For how many leases it is tried to store a response whose client was answered already.
const STORE_LEASES: u32 = 4;

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

    /// Always ready: what handles a request is waited for once it is known that it is to be handled, so that
    /// retries take nothing away from others.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), E>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Answer<E> {
        let mut inner = self.inner.clone();
        let handler: Handler<E> = Box::new(move |request| {
            Box::pin(async move {
                std::future::poll_fn(|context| inner.poll_ready(context)).await?;
                let called = inner.call(request);
                Ok(called.await?.map(boxed))
            })
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

/// A response that is to be stored.
struct Kept {
    response: Response<Body>,
    /// What to store of it: all, or ever less where the server has no room for that.
    stored: Vec<Stored>,
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
    settings.handle_once(&key, work).await
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
        let read = read.map_err(|error| {
            let cause = error.source().unwrap_or(&*error);
            // A limit that an outer layer set.
            if error.is::<LengthLimitError>() || cause.is::<LengthLimitError>() {
                Problem::TooLarge(max)
            } else {
                Problem::BrokenRequest
            }
        })?;
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
    ///
    /// A client that hangs up while another request with its key is being handled waits no longer. Once its
    /// own is being handled, that goes on without it: its retry finds the outcome.
    async fn handle_once<E: Send + 'static>(
        self: Arc<Self>,
        key: &[u8],
        work: Work<E>,
    ) -> Result<Response<Body>, E> {
        let options = RunOnce {
            fingerprint: Some(fingerprint(&self.canonical.bytes(&work.parts, &work.body))),
            ..self.run.clone()
        };
        let grant = match self.client.claim(key, &options).await {
            Ok(Claim::Run(grant)) => grant,
            Ok(Claim::Settled(outcome)) => return Ok(self.replay(&outcome)),
            Ok(Claim::Busy(retry_after)) => {
                let retry_after = retry_after.min(self.retry_after_max);
                return Ok(self.refuse(Event::Busy, &Problem::Busy(retry_after)));
            }
            Ok(Claim::Mismatch) => return Ok(self.refuse(Event::Mismatched, &Problem::Mismatch)),
            Err(error) => return self.without_claim(error, work).await,
        };
        let under_way = self.counters.begin();
        let (answer, answered) = oneshot::channel();
        let worker = async move {
            let _until_it_ends = under_way;
            self.work(grant, &options, work, answer).await;
        };
        let worker = tokio::spawn(worker.in_current_span());
        match answered.await {
            Ok(answer) => answer,
            Err(_) => match worker.await.map_err(tokio::task::JoinError::try_into_panic) {
                Err(Ok(panic)) => std::panic::resume_unwind(panic),
                // The runtime ends, and with it this request.
                _ => std::future::pending().await,
            },
        }
    }

    /// What another request came to.
    fn replay(&self, outcome: &Outcome) -> Response<Body> {
        match replay(outcome, &self.never_replayed) {
            Some(response) => {
                self.counters.add(Event::Replayed);
                response
            }
            None => self.refuse(Event::Mismatched, &Problem::NoResponse),
        }
    }

    /// What a request comes to of which nobody can tell whether it was handled before.
    async fn without_claim<E>(
        &self,
        error: ClientError,
        work: Work<E>,
    ) -> Result<Response<Body>, E> {
        let code = match &error {
            ClientError::Refused { code, .. } => code.as_str(),
            _ => "",
        };
        if code == "TOOBIG" {
            let too_long = Problem::Malformed("It is too long");
            return Ok(self.refuse(Event::Refused, &too_long));
        }
        if !error.is_transient() && code != "READONLY" {
            error!(%error, "onced refuses what this layer asks for: see its lease, TTL and namespace");
            return Ok(self.refuse(Event::Misconfigured, &Problem::Misconfigured));
        }
        if self.fails_open {
            warn!(%error, "onced is down: a request is handled without protection");
            self.counters.add(Event::FailedOpen);
            return work.handle(None).await;
        }
        warn!(%error, "onced is down: a request is refused");
        Ok(self.refuse(Event::FailedClosed, &Problem::Down))
    }

    /// Has a request handled, stores its response, and answers.
    async fn work<E>(
        &self,
        mut grant: Grant,
        options: &RunOnce,
        work: Work<E>,
        answer: oneshot::Sender<Result<Response<Body>, E>>,
    ) {
        let answer = move |told| {
            let _the_client_may_be_gone = answer.send(told);
        };
        let held = grant.held;
        let handled = async { self.keep(work.handle(Some(held)).await).await };
        let Some(handled) = grant.work(options, handled).await else {
            grant.forfeit();
            return answer(Ok(self.refuse(Event::Busy, &Problem::TakenOver)));
        };
        let kept = match handled {
            Ok(kept) => kept,
            Err(unkept) => {
                grant.release().await;
                self.counters.add(Event::Released);
                return answer(match unkept {
                    Unkept::Response(response) => Ok(response),
                    Unkept::Error(error) => Err(error),
                    Unkept::Broken(error) => {
                        warn!(%error, "a response broke off");
                        Ok(Problem::BrokenResponse.response(self.documentation.as_ref()))
                    }
                });
            }
        };
        let status = kept.response.status();
        let (stored, is_without_body) = self.store(&mut grant, options, status, &kept.stored).await;
        match stored {
            Ok(Ending::Ok) => {
                self.count(stored, is_without_body);
                answer(Ok(kept.response));
            }
            Err(error) if error.is_transient() => {
                // Its client has waited long enough; but a retry must not be handled again.
                warn!(%error, "a response could not be stored yet");
                answer(Ok(not_stored(kept.response)));
                let later = options.lease * STORE_LEASES;
                self.count(
                    grant.store(later, ClientError::is_transient).await,
                    is_without_body,
                );
            }
            // Also where another took over: what was done here is not said not to be.
            unstored => {
                self.count(unstored, is_without_body);
                answer(Ok(not_stored(kept.response)));
            }
        }
    }

    /// Counts a response that was stored, or was not.
    fn count(&self, stored: Result<Ending, ClientError>, is_without_body: bool) {
        let failure = match stored {
            Ok(Ending::Ok) => {
                self.counters.add(Event::Fresh);
                if is_without_body {
                    self.counters.add(Event::BodyOmitted);
                }
                return;
            }
            Ok(Ending::Stale) => "the lease was lost, and another took over".to_owned(),
            Ok(ending) => format!("the record is {ending:?}"),
            Err(error) => error.to_string(),
        };
        error!(%failure, "a response could not be stored: a retry may be handled again");
        self.counters.add(Event::NotStored);
    }

    /// Stores a response, or as much of it as the server takes; also tells whether that is without its body.
    async fn store(
        &self,
        grant: &mut Grant,
        options: &RunOnce,
        status: StatusCode,
        kept: &[Stored],
    ) -> (Result<Ending, ClientError>, bool) {
        let is_failure = status.is_client_error() || status.is_server_error();
        let mut told = (Ok(Ending::NotStored), false);
        for (at, stored) in kept.iter().enumerate() {
            let done = Done {
                code: status.as_u16().into(),
                body: stored.bytes.clone(),
            };
            grant.settle(done, is_failure, options);
            let is_last = at + 1 == kept.len();
            let is_worth =
                |error: &ClientError| error.is_transient() && (is_last || !is_about_room(error));
            let ending = grant.store(options.patience, is_worth).await;
            let is_too_much = matches!(&ending, Err(error) if is_about_room(error));
            told = (ending, stored.is_without_body);
            if !is_too_much {
                break;
            }
        }
        told
    }

    /// What to store of a response, if it is to be stored.
    async fn keep<E>(&self, response: Result<Response<Body>, E>) -> Result<Kept, Unkept<E>> {
        let (parts, body) = response.map_err(Unkept::Error)?.into_parts();
        if !(self.keep_if)(&parts) {
            return Err(Unkept::Response(Response::from_parts(parts, body)));
        }
        let read = Beginning::read(body, self.stored_bytes_max).await;
        let read = read.map_err(Unkept::Broken)?;
        let whole = read.is_whole().then_some(&read.bytes[..]);
        let bounds = (&self.never_replayed[..], self.stored_bytes_max);
        let stored = store(&parts.headers, whole, bounds);
        Ok(Kept {
            response: Response::from_parts(parts, read.into_body()),
            stored,
        })
    }
}

/// Marks a response that is not stored, though it should be.
fn not_stored(mut response: Response<Body>) -> Response<Body> {
    let yes = HeaderValue::from_static("true");
    response.headers_mut().insert(IDEMPOTENCY_NOT_STORED, yes);
    response
}

/// Whether less would have found room, as it seems.
fn is_about_room(error: &ClientError) -> bool {
    matches!(error, ClientError::Refused { code, .. } if matches!(code.as_str(), "TOOBIG" | "FULL"))
}
