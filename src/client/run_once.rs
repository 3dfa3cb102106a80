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

use std::fmt::Write;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;
use tokio::time::{Instant, sleep, sleep_until};

use super::Client;
use super::calls::{Begin, BeginOptions, Ending, Held, Outcome};
use super::pipeline::jittered;
use super::reply::ClientError;

/// The lease unless chosen otherwise.
const LEASE: Duration = Duration::from_secs(30);
/// The longest that one request waits in line: servers allow 60 s unless set otherwise.
const WAIT_ONCE_MAX: Duration = Duration::from_secs(30);
/// Between two tries of a request that may be repeated; by chance, up to this.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// Parts of a lease after which it is renewed: one may fail.
const RENEWALS_PER_LEASE: u32 = 3;

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
    /// How long the server may be out of reach, or refuse for the moment, before that is the answer. Default 10 s.
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

/// What work comes to that was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// What to say of it, such as an HTTP status.
    pub code: u32,
    /// What everyone else is to be given.
    pub body: Bytes,
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
    #[error("the work failed and may be tried again")]
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
    LeaseLost,
    /// The work was done, and its outcome could not be stored: others may do it again once the lease has lapsed.
    #[error("the work was done, but its outcome could not be stored: {source}")]
    NotStored {
        /// What came of it.
        outcome: Outcome,
        /// Why it is not stored.
        source: ClientError,
    },
    /// It was not begun.
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl Client {
    /// Does the work behind a key, if nobody has done it or is doing it; else gets what came of it.
    ///
    /// `work` is given its token and runs while its lease is renewed. If this future is dropped, the work
    /// stops and is released for others.
    pub async fn run_once<E, F>(
        &self,
        key: impl AsRef<[u8]>,
        options: &RunOnce,
        work: impl FnOnce(Held) -> F,
    ) -> Result<Ran, RunOnceError<E>>
    where
        F: Future<Output = Result<Done, Failure<E>>>,
    {
        let key = key.as_ref();
        let held = match self.claim(key, options).await? {
            Begin::Run(held) => held,
            Begin::Settled(outcome) => {
                return Ok(Ran {
                    outcome,
                    origin: Origin::Replayed,
                });
            }
            Begin::Busy(retry_after) => return Err(RunOnceError::Busy { retry_after }),
            Begin::Mismatch => return Err(RunOnceError::Mismatch),
        };
        let mut release = Release {
            client: self,
            key,
            token: Some(held.token),
        };
        let worked = self.work(key, options, held, work(held)).await;
        release.token = None;
        let (outcome, worked) = match worked? {
            Ok(done) => (outcome(&done, false), done),
            Err(Failure::Final(done)) => (outcome(&done, true), done),
            Err(Failure::Retry(error)) => {
                let released = self
                    .repeat(options, || self.fail_retry(key, held.token))
                    .await;
                // It lapses otherwise.
                drop(released);
                return Err(RunOnceError::Work(error));
            }
        };
        match self
            .store(key, options, held, (&worked, outcome.is_failure))
            .await
        {
            Ok(Ending::Stale) => Err(RunOnceError::LeaseLost),
            Ok(_) => Ok(Ran {
                outcome,
                origin: Origin::Fresh,
            }),
            Err(source) => Err(RunOnceError::NotStored { outcome, source }),
        }
    }

    /// `BEGIN`, again and again while another is at work, for as long as is to be waited.
    async fn claim<E>(&self, key: &[u8], options: &RunOnce) -> Result<Begin, RunOnceError<E>> {
        let owner = owner()?;
        let until = Instant::now() + options.wait;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let ask = BeginOptions {
                lease: Some(options.lease),
                ttl: options.ttl,
                fingerprint: options.fingerprint.clone(),
                owner: Some(owner.clone()),
                wait: Some(left.min(WAIT_ONCE_MAX)),
            };
            let begun = self.repeat(options, || self.begin(key, &ask)).await?;
            match begun {
                Begin::Busy(_) if Instant::now() < until => {
                    // A server that holds no more replies answers at once.
                    sleep(jittered(RETRY_PAUSE)).await;
                }
                begun => return Ok(begun),
            }
        }
    }

    /// Runs the work, and renews its lease meanwhile.
    async fn work<T, E>(
        &self,
        key: &[u8],
        options: &RunOnce,
        held: Held,
        work: impl Future<Output = T>,
    ) -> Result<T, RunOnceError<E>> {
        let mut work = pin!(work);
        let every = options.lease / RENEWALS_PER_LEASE;
        let mut next = Instant::now() + every;
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Ok(done),
                () = sleep_until(next) => {}
            }
            let renewed = async { self.renew(key, held.token, Some(options.lease)).await };
            tokio::select! {
                biased;
                done = &mut work => return Ok(done),
                // A record that is gone is adopted at the end; a renewal that failed is tried again.
                renewed = renewed => if let Ok(Err(Ending::Stale)) = renewed {
                    return Err(RunOnceError::LeaseLost);
                },
            }
            next = Instant::now() + every;
        }
    }

    async fn store(
        &self,
        key: &[u8],
        options: &RunOnce,
        held: Held,
        (done, is_failure): (&Done, bool),
    ) -> Result<Ending, ClientError> {
        let said = (done.code, &done.body[..]);
        if is_failure {
            return self
                .repeat(options, || self.fail_final(key, held.token, said))
                .await;
        }
        self.repeat(options, || self.complete(key, held.token, said, true))
            .await
    }

    /// Makes a call that may be repeated, until it gets an answer that lasts.
    async fn repeat<T, C: Future<Output = Result<T, ClientError>>>(
        &self,
        options: &RunOnce,
        call: impl Fn() -> C,
    ) -> Result<T, ClientError> {
        let until = Instant::now() + options.patience;
        loop {
            match call().await {
                Err(error) if error.is_transient() && Instant::now() < until => {
                    sleep(jittered(RETRY_PAUSE)).await;
                }
                answer => return answer,
            }
        }
    }
}

/// Releases work whose caller went away.
struct Release<'a> {
    client: &'a Client,
    key: &'a [u8],
    token: Option<u64>,
}

impl Drop for Release<'_> {
    fn drop(&mut self) {
        if let Some(token) = self.token {
            self.client.let_go(self.key, token);
        }
    }
}

fn outcome(done: &Done, is_failure: bool) -> Outcome {
    Outcome {
        is_failure,
        code: done.code,
        body: done.body.clone(),
    }
}

/// A name for one attempt.
fn owner() -> Result<Vec<u8>, ClientError> {
    let mut random = [0; 16];
    getrandom::fill(&mut random)
        .map_err(|error| ClientError::Protocol(format!("the system gives no chance: {error}")))?;
    let text = random.iter().fold(String::new(), |mut text, byte| {
        let _infallible = write!(text, "{byte:02x}");
        text
    });
    Ok(text.into_bytes())
}
