//! The whole life of a record around a piece of work: begun, renewed while the work runs, ended.
//!
//! ```no_run
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use onced::client::{Client, Done, Failure, RunOnce};
//! # async fn charge(_fence: u64) -> Result<String, std::io::Error> { Ok(String::new()) }
//!
//! let client = Client::new("127.0.0.1:6623".parse()?);
//! let ran = client
//!     .run_once("charge-17", &RunOnce::default(), |held| async move {
//!         match charge(held.token).await {
//!             Ok(receipt) => Ok(Done { code: 201, body: receipt.into() }),
//!             Err(error) => Err(Failure::Retry(error)), // anybody may try again
//!         }
//!     })
//!     .await?;
//! println!("{:?}: {} {:?}", ran.origin, ran.outcome.code, ran.outcome.body);
//! # Ok(()) }
//! ```
//!
//! What is lost on the way is repeated where that is safe, and it is safe here: a `BEGIN` carries a
//! random owner, so that the repetition is told the same token, and an ending may come twice.
//!
//! - `claim`: the beginning; `work`: the middle; `grant`: what a claim gives, and the end
//!
//! The lease is reckoned from when it was asked for, never from when the answer came. While the server
//! cannot be reached the work goes on, past its lease too: whether another took it over is known when
//! it ends, and the systems behind it are protected by its token.

mod claim;
mod grant;
mod work;

use std::future::Future;
use std::time::Duration;

use thiserror::Error;
use tokio::time::{Instant, sleep, timeout_at};

pub(crate) use self::claim::Claim;
#[cfg(feature = "http")]
pub(crate) use self::grant::Grant;
use super::Client;
use super::answers::{Done, Ending, Held, Outcome};
use super::pipeline::{from_now, jittered};
use super::reply::ClientError;

/// The lease unless chosen otherwise.
const LEASE: Duration = Duration::from_secs(30);
/// Between two tries of a request that may be repeated; by chance, up to this.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// How work is run once.
#[derive(Clone, Debug)]
pub struct RunOnce {
    /// How long nobody else is told to run if this caller dies; renewed while the work runs. Default 30 s.
    pub lease: Duration,
    /// How long the outcome is kept; the server's default, 24 h, if absent.
    pub ttl: Option<Duration>,
    /// Up to 32 hex digits: a digest of what the work is about. Another one under the same key is
    /// [`RunOnceError::Mismatch`].
    pub fingerprint: Option<String>,
    /// How long to wait while another does the work. Default 60 s.
    pub wait: Duration,
    /// How long the server may be out of reach, or refuse for the moment, before that is the answer; an outcome
    /// is kept for it at least as long as the lease. Default 10 s.
    pub patience: Duration,
}

impl Default for RunOnce {
    fn default() -> Self {
        Self {
            lease: LEASE,
            ttl: None,
            fingerprint: None,
            wait: Duration::from_mins(1),
            patience: Duration::from_secs(10),
        }
    }
}

/// What work comes to that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure<E> {
    /// It may be tried again, by anybody.
    Retry(E),
    /// It is not to be tried again: this is the answer to everyone.
    Final(Done),
}

/// Where an outcome comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This call did the work.
    Fresh,
    /// It was done before, or by another meanwhile.
    Replayed,
}

/// The outcome of work that ran once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// What came of it.
    pub outcome: Outcome,
    /// Whether that is of this call.
    pub origin: Origin,
}

/// Why there is no outcome.
#[derive(Debug, Error)]
pub enum RunOnceError<E> {
    /// The work failed, and was released for others to try.
    #[error("the work failed and may be tried again: {0}")]
    Work(E),
    /// Another is still at work.
    #[error("another is still at work; come again in {} ms", retry_after.as_millis())]
    Busy {
        /// When that is of use.
        retry_after: Duration,
    },
    /// The key was used for other work.
    #[error("the key came with another fingerprint before")]
    Mismatch,
    /// The lease lapsed while the work ran, and another was told to run: what this one did may be done
    /// again. The work was stopped, if it had not ended.
    #[error("the lease was lost while the work ran, and another took it over")]
    LeaseLost {
        /// The token that is of no use any more.
        held: Held,
        /// What came of the work, if it had ended.
        outcome: Option<Outcome>,
    },
    /// The work was done, and its outcome could not be stored: others may do it again once the lease has
    /// lapsed.
    #[error("the work was done, but its outcome could not be stored: {source}")]
    NotStored {
        /// The token, to try once more with: see [`Client::complete`].
        held: Held,
        /// What came of it.
        outcome: Outcome,
        /// Why it is not stored.
        source: StoreError,
    },
    /// It was not begun.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// Why an outcome is not stored.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StoreError {
    /// The server refused, or could not be reached.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The record is gone, and cannot be stored anew: the work failed for good, which is not adopted, or
    /// the key was seen since.
    #[error("the record is gone")]
    Gone,
    /// The record is gone, and there is one of other work in its place.
    #[error("the key has another fingerprint by now")]
    Mismatch,
}

impl Client {
    /// Does the work behind a key, if nobody has done it or is doing it; else gets what came of it.
    ///
    /// `work` is given its token and runs while its lease is renewed, by a thread of the client's: also work
    /// that blocks its own thread keeps its lease, and work that never ends, for as long as its process
    /// lives. If this future is dropped, the work stops and is released for others, or what came of it is
    /// stored, as far as the server can be reached.
    ///
    /// A lease can be lost all the same, to a server out of reach or a process that was stopped for longer
    /// than it, and then another is told to run. Work that has ended by then is not said not to be done: its
    /// outcome comes with [`RunOnceError::LeaseLost`].
    pub async fn run_once<E, F>(
        &self,
        key: impl AsRef<[u8]>,
        options: &RunOnce,
        work: impl FnOnce(Held) -> F,
    ) -> Result<Ran, RunOnceError<E>>
    where
        F: Future<Output = Result<Done, Failure<E>>>,
    {
        let mut grant = match self.claim(key.as_ref(), options).await? {
            Claim::Run(grant) => grant,
            Claim::Settled(outcome) => {
                return Ok(Ran {
                    outcome,
                    origin: Origin::Replayed,
                });
            }
            Claim::Busy(retry_after) => return Err(RunOnceError::Busy { retry_after }),
            Claim::Mismatch => return Err(RunOnceError::Mismatch),
        };
        let held = grant.held;
        let Some(worked) = grant.work(options, work(held)).await else {
            grant.forfeit();
            return Err(RunOnceError::LeaseLost {
                held,
                outcome: None,
            });
        };
        let (done, is_failure) = match worked {
            Ok(done) => (done, false),
            Err(Failure::Final(done)) => (done, true),
            Err(Failure::Retry(error)) => {
                grant.release().await;
                return Err(RunOnceError::Work(error));
            }
        };
        let outcome = Outcome {
            is_failure,
            code: done.code,
            body: done.body.clone(),
        };
        grant.settle(done, is_failure, options);
        // As long as nobody else can have been told to run, at least.
        let patience = options.patience.max(options.lease);
        let stored = grant.store(patience, ClientError::is_transient).await;
        let source = match stored {
            Ok(Ending::Ok) => {
                return Ok(Ran {
                    outcome,
                    origin: Origin::Fresh,
                });
            }
            Ok(Ending::Stale) => {
                return Err(RunOnceError::LeaseLost {
                    held,
                    outcome: Some(outcome),
                });
            }
            Ok(Ending::Mismatch) => StoreError::Mismatch,
            Ok(Ending::Gone | Ending::NotStored) => StoreError::Gone,
            Err(error) => StoreError::Client(error),
        };
        Err(RunOnceError::NotStored {
            held,
            outcome,
            source,
        })
    }

    /// Makes a call that may be repeated, until it gets an answer that lasts, or one after which it is not worth
    /// it; also tells when that one was made.
    async fn repeat<T, C: Future<Output = Result<T, ClientError>>>(
        &self,
        patience: Duration,
        is_worth: impl Fn(&ClientError) -> bool,
        call: impl Fn() -> C,
    ) -> Result<(Instant, T), ClientError> {
        let until = from_now(patience);
        loop {
            let asked = Instant::now();
            let error = match timeout_at(until, call()).await {
                Ok(Ok(answer)) => return Ok((asked, answer)),
                Ok(Err(error)) if is_worth(&error) => error,
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(self.pipeline.too_late()),
            };
            if Instant::now() >= until {
                return Err(error);
            }
            sleep(jittered(RETRY_PAUSE)).await;
        }
    }
}
