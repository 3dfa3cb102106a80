//! A tower layer for axum and hyper services: a request with an `Idempotency-Key` is handled once.
//!
//! Implements draft-ietf-httpapi-idempotency-key-header-06. The first request with a key is handled,
//! under a lease that is renewed meanwhile, and its response is stored. A retry gets that response,
//! marked `Idempotency-Replayed: true`; while the first is still being handled, it is told to come
//! again, or waits. The same key with another request is refused.
//!
//! | the request | gets |
//! |---|---|
//! | has no key, or one that is no key | 400 |
//! | is from nobody that its [`Scope`] knows | 403 |
//! | is the first with its key | what the service says |
//! | was handled before | the stored response, with `Idempotency-Replayed: true` |
//! | was handled, and its response could not be stored | that response, with `Idempotency-Not-Stored: true` |
//! | was taken over by another before it had been handled | 409 with `Retry-After`; its handling was stopped |
//! | is being handled | 409 with `Retry-After`, at once or after [`Idempotency::wait`] |
//! | has the key of another request ([`Canonical`] says what is the same) | 422 |
//! | has a body over [`Idempotency::request_bytes_max`] | 413 |
//! | comes while onced is down | 503 with `Retry-After`, or [is handled all the same](Idempotency::fail_open) |
//! | asks for what onced never gives, such as a lease over its limit | 500 |
//!
//! Refusals are problem details (RFC 9457). Responses of 5xx, and those that ask to come again as one
//! came (401, 407, 408, 409, 421, 423, 424, 425, 429), are passed on and not stored: the key is free for a
//! retry. All others are stored, [unless chosen otherwise](Idempotency::keep_if). Work goes on when its
//! client hangs up, so that the retry finds its outcome.
//!
//! The lease is renewed by a thread beside the handlers, also while one of them blocks its own: a handler that
//! never ends holds its key for as long as its process lives. The lease can be lost all the same, where onced
//! cannot be reached or the process is stopped for longer than it; then a retry may be handled meanwhile. A
//! handler that finds itself overtaken is stopped where it waits; one that has finished by then is told as
//! it is, to its own client, and what is stored is the other's.
//!
//! ```no_run
//! use axum::{Router, routing::post};
//! use onced::client::Client;
//! use onced::http::{Idempotency, Scope};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # async fn charge() -> &'static str { "charged" }
//! let client = Client::new("127.0.0.1:6623".parse()?);
//! let once = Idempotency::new(client, Scope::header("x-api-key"));
//! let app: Router = Router::new().route("/charges", post(charge)).route_layer(once);
//! # Ok(()) }
//! ```
//!
//! - `layer`: what can be chosen; `service`: one request's way
//! - `key`: the key and its scope; `canonical`: what is fingerprinted; `stored`: responses as they are kept
//! - `body`: bodies within bounds; `problem`: refusals; `counts`: what happened
//!
//! It does not know what a handler did before it died: its retry runs the handler again, with the
//! attempt and the fencing token in the request's extensions ([`Held`](crate::client::Held)).

mod body;
mod canonical;
mod counts;
mod key;
mod layer;
mod problem;
mod service;
mod stored;

pub use body::{Body, BoxError};
pub use canonical::{Canonical, EssenceOf};
pub use counts::Counts;
pub use key::{IDEMPOTENCY_KEY, Scope};
pub use layer::Idempotency;
pub use service::IdempotencyService;
pub use stored::{IDEMPOTENCY_BODY_OMITTED, IDEMPOTENCY_NOT_STORED, IDEMPOTENCY_REPLAYED};
