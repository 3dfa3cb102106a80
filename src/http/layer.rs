//! The layer, and what can be chosen about it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Method, StatusCode, response};

use super::canonical::Canonical;
use super::counts::{Counters, Counts};
use super::key::Scope;
use crate::client::{Client, RunOnce};
use crate::limits::Limits;

/// The most bytes of a request's body, unless chosen otherwise.
const REQUEST_BYTES_MAX: usize = 1 << 20;
/// The most bytes of a key, unless chosen otherwise.
const KEY_BYTES_MAX: usize = 255;
/// How long onced may be out of reach before a request is told so, unless chosen otherwise.
const PATIENCE: Duration = Duration::from_secs(2);
/// The longest that a client is told to wait before it comes again, unless chosen otherwise.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(5);

type KeepIf = dyn Fn(&response::Parts) -> bool + Send + Sync;
type CheckKey = dyn Fn(&str) -> bool + Send + Sync;

/// What all services under one layer share.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) client: Client,
    pub(super) scope: Scope,
    pub(super) methods: Vec<Method>,
    pub(super) is_key_optional: bool,
    pub(super) accepts_bare: bool,
    pub(super) key_bytes_max: usize,
    pub(super) check_key: Option<Arc<CheckKey>>,
    pub(super) canonical: Canonical,
    pub(super) keep_if: Arc<KeepIf>,
    pub(super) never_replayed: Vec<HeaderName>,
    pub(super) request_bytes_max: usize,
    pub(super) stored_bytes_max: usize,
    pub(super) retry_after_max: Duration,
    pub(super) fails_open: bool,
    pub(super) documentation: Option<HeaderValue>,
    /// Lease, TTL, waiting and patience; the fingerprint is of each request.
    pub(super) run: RunOnce,
    pub(super) counters: Arc<Counters>,
}

/// The layer: put it on routes or a service, inside of what finds out who sends a request, outside of
/// what handles it.
///
/// - In axum, put it on routes (`Router::route_layer`), not on all that may come: what is refused before
///   it is stored nowhere. `Router::nest` hides the beginning of the path from the layers of the inner
///   router: put it on the outer one, or give the whole path to [`Idempotency::fingerprint`].
/// - A timeout belongs inside of it: from outside, it ends the waiting, not the work, which holds its key
///   until it ends.
/// - What an inner layer makes of one client's wishes (compression, CORS) is replayed to all: put such
///   layers outside.
/// - The request is handled in a task of its own, within the current span, without task-locals.
/// - A response is read to its end, or to what is stored of it, before its client gets any of it; streams
///   of events are not (they are not stored). Trailers are passed on, but not replayed, and those of
///   requests are dropped.
///
/// Cheap to clone; clones share their counts. Each method that chooses something states the default.
#[derive(Clone)]
pub struct Idempotency {
    pub(super) settings: Arc<Settings>,
}

impl fmt::Debug for Idempotency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Idempotency")
            .field("counts", &self.counts())
            .finish_non_exhaustive()
    }
}

impl Idempotency {
    /// A layer that keeps its records with this client, in its namespace, apart for each scope.
    pub fn new(client: Client, scope: Scope) -> Self {
        Self {
            settings: Arc::new(Settings {
                client,
                scope,
                methods: vec![Method::POST, Method::PATCH],
                is_key_optional: false,
                accepts_bare: false,
                key_bytes_max: KEY_BYTES_MAX,
                check_key: None,
                canonical: Canonical::default(),
                keep_if: Arc::new(keeps),
                never_replayed: Vec::new(),
                request_bytes_max: REQUEST_BYTES_MAX,
                stored_bytes_max: Limits::DEFAULT.body_bytes_max,
                retry_after_max: RETRY_AFTER_MAX,
                fails_open: false,
                documentation: None,
                run: RunOnce {
                    wait: Duration::ZERO,
                    patience: PATIENCE,
                    ..RunOnce::default()
                },
                counters: Arc::new(Counters::new()),
            }),
        }
    }

    /// The methods whose requests are looked at; all others are passed on. Default: `POST`, `PATCH`.
    #[must_use]
    pub fn methods(self, methods: impl IntoIterator<Item = Method>) -> Self {
        self.with(|settings| settings.methods = methods.into_iter().collect())
    }

    /// Requests without a key are passed on, instead of refused with 400. They come without a
    /// [`Held`](crate::client::Held): let handlers take an `Option` of that.
    #[must_use]
    pub fn optional(self) -> Self {
        self.with(|settings| settings.is_key_optional = true)
    }

    /// Keys without quotes are taken as well, as many clients send them: `Idempotency-Key: 8e03978e`.
    /// Default: only quoted ones, as the draft says.
    #[must_use]
    pub fn accept_bare_keys(self) -> Self {
        self.with(|settings| settings.accepts_bare = true)
    }

    /// The most bytes that a key may have. Default 255. (The server's limit is for key and scope together.)
    #[must_use]
    pub fn key_bytes_max(self, bytes: usize) -> Self {
        self.with(|settings| settings.key_bytes_max = bytes)
    }

    /// Keys for which this is false are refused with 400. Default: none.
    #[must_use]
    pub fn check_key(self, check: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        self.with(|settings| settings.check_key = Some(Arc::new(check)))
    }

    /// What must be equal in a retry: [`Canonical::Json`] lets clients write the same value anew,
    /// [`Canonical::of`] is a function's choice. Default: [`Canonical::Bytes`], method, path with query and
    /// the body as it is.
    ///
    /// When a running service changes its choice, retries of requests from before get 422.
    #[must_use]
    pub fn fingerprint(self, canonical: Canonical) -> Self {
        self.with(|settings| settings.canonical = canonical)
    }

    /// Which responses are stored; the key of all others is free for a retry. A handler can tell this
    /// function by the response's extensions. Default: all below 500, but streams of events
    /// (`text/event-stream`) and those that say that nothing was done, and that the same request may succeed
    /// later, over another connection or with another login.
    ///
    /// | not stored | since a retry may find |
    /// |---|---|
    /// | 401, 407 | who it is from |
    /// | 408, 425 | the request whole, and not too early |
    /// | 409, 423, 424 | no conflict, no lock, and done what it depends on |
    /// | 421 | a server that is meant |
    /// | 429, 5xx | the service less busy, or well |
    ///
    /// Stored are verdicts on the request, such as 400, 403, 404, 412 and 422, and 402: another attempt at a
    /// payment is another operation, with another key. A handler whose 409 is a verdict (there is such an
    /// order already) is asked again by each retry, and says the same again.
    #[must_use]
    pub fn keep_if(self, keep: impl Fn(&response::Parts) -> bool + Send + Sync + 'static) -> Self {
        self.with(|settings| settings.keep_if = Arc::new(keep))
    }

    /// A header that is not replayed, beside `Set-Cookie`, `Date` and what is of one connection.
    #[must_use]
    pub fn never_replay(self, header: HeaderName) -> Self {
        self.with(|settings| settings.never_replayed.push(header))
    }

    /// The most bytes that the body of a request with a key may have; it is read as a whole before the
    /// request is handled. Default 1 MiB.
    #[must_use]
    pub fn request_bytes_max(self, bytes: usize) -> Self {
        self.with(|settings| settings.request_bytes_max = bytes)
    }

    /// The most bytes, headers and body together, that are stored of a response. One that is larger
    /// reaches its own client whole, and is replayed without its body, marked
    /// `Idempotency-Body-Omitted: true`. Default 256 KiB, as the server's `max-value`.
    #[must_use]
    pub fn stored_bytes_max(self, bytes: usize) -> Self {
        self.with(|settings| settings.stored_bytes_max = bytes)
    }

    /// How long a request waits while another with its key is being handled, before it is told 409.
    /// Default: not at all.
    #[must_use]
    pub fn wait(self, at_most: Duration) -> Self {
        self.with(|settings| settings.run.wait = at_most)
    }

    /// The most that `Retry-After` says with 409, where the lease of the one that is being handled may
    /// be longer. Default 5 s.
    #[must_use]
    pub fn retry_after_max(self, at_most: Duration) -> Self {
        self.with(|settings| settings.retry_after_max = at_most)
    }

    /// How long a retry is refused after this process died in the middle of a request; renewed while a
    /// request is being handled, also where its handler blocks the thread. Default 30 s.
    #[must_use]
    pub fn lease(self, lease: Duration) -> Self {
        self.with(|settings| settings.run.lease = lease)
    }

    /// How long a response is replayed. Default: as the server says, 24 h.
    #[must_use]
    pub fn ttl(self, ttl: Duration) -> Self {
        self.with(|settings| settings.run.ttl = Some(ttl))
    }

    /// How long onced may be out of reach before it is down. A response that cannot be stored for so long
    /// reaches its client, and it is tried on for some leases to store it. Default 2 s.
    #[must_use]
    pub fn patience(self, patience: Duration) -> Self {
        self.with(|settings| settings.run.patience = patience)
    }

    /// While onced is down, requests are handled without protection, instead of refused with 503:
    /// where a second time does less harm than no time. One that is known to be handled by another is
    /// not. They come without a [`Held`](crate::client::Held): let handlers take an `Option` of that.
    #[must_use]
    pub fn fail_open(self) -> Self {
        self.with(|settings| settings.fails_open = true)
    }

    /// Where the service's documentation says how it uses keys; refusals link to it.
    ///
    /// # Panics
    ///
    /// If it has bytes that no header may have.
    #[must_use]
    pub fn documentation(self, url: &'static str) -> Self {
        self.with(|settings| settings.documentation = Some(HeaderValue::from_static(url)))
    }

    /// What happened so far.
    pub fn counts(&self) -> Counts {
        self.settings.counters.read()
    }

    /// Returns once no request is being handled, those included whose clients have gone, and onced has been
    /// told what came of them, if it can be reached. For a shutdown: after the last response, before
    /// the runtime ends. There is no bound to how long handlers take: put a timeout around it.
    pub async fn idle(&self) {
        self.settings.counters.idle().await;
        let _it_may_be_down = self.settings.client.ping().await;
    }

    fn with(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(Arc::make_mut(&mut self.settings));
        self
    }
}

/// Whether a response is stored, unless chosen otherwise.
fn keeps(parts: &response::Parts) -> bool {
    let again = [
        StatusCode::UNAUTHORIZED,
        StatusCode::PROXY_AUTHENTICATION_REQUIRED,
        StatusCode::REQUEST_TIMEOUT,
        StatusCode::CONFLICT,
        StatusCode::MISDIRECTED_REQUEST,
        StatusCode::LOCKED,
        StatusCode::FAILED_DEPENDENCY,
        StatusCode::TOO_EARLY,
        StatusCode::TOO_MANY_REQUESTS,
    ];
    let status = parts.status;
    let kind = parts.headers.get(CONTENT_TYPE);
    let is_stream = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
    !status.is_informational()
        && !status.is_server_error()
        && !again.contains(&status)
        && !is_stream
}
