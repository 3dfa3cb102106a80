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
//! The lease is reckoned from when it was asked for, never from when the answer came. While the server
//! cannot be reached the work goes on, past its lease too: whether another took it over is known when
//! it ends, and the systems behind it are protected by its token.

use std::fmt::Write;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use thiserror::Error;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::Client;
use super::calls::{Begin, BeginOptions, CompleteOptions, Done, Ending, Held, Outcome};
use super::pipeline::{from_now, jittered};
use super::reply::ClientError;

/// The lease unless chosen otherwise.
const LEASE: Duration = Duration::from_secs(30);
/// The longest that one request waits in line: servers allow 60 s unless set otherwise.
const WAIT_ONCE_MAX: Duration = Duration::from_secs(30);
/// Between two tries of a request that may be repeated; by chance, up to this.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// How long a caller whose work failed is kept until it is released.
const RELEASE_PATIENCE: Duration = Duration::from_secs(1);
/// Parts of a lease after which it is renewed.
const RENEWALS_PER_LEASE: u32 = 3;
/// Parts of a lease after which a renewal without an answer has failed, and that pass before the next
/// one: with those above, two may fail.
const RENEWAL_PATIENCE: u32 = 6;
const RENEWAL_PAUSE: u32 = 20;

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

/// A lease as this side knows it: from when it was asked for.
#[derive(Clone, Copy)]
struct Lease {
    asked: Instant,
    length: Duration,
}

impl Lease {
    fn renew_at(self) -> Instant {
        self.asked + self.length / RENEWALS_PER_LEASE
    }
}

impl Client {
    /// Does the work behind a key, if nobody has done it or is doing it; else gets what came of it.
    ///
    /// `work` is given its token and runs while its lease is renewed, which needs this future to be polled:
    /// work that blocks its thread for longer than the lease loses it. If this future is dropped, the work
    /// stops and is released for others, or what came of it is stored, as far as the server can be
    /// reached.
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
        let (held, lease) = match self.claim(key, options).await? {
            Claim::Run(held, lease) => (held, lease),
            Claim::Settled(outcome) => {
                return Ok(Ran {
                    outcome,
                    origin: Origin::Replayed,
                });
            }
            Claim::Busy(retry_after) => return Err(RunOnceError::Busy { retry_after }),
            Claim::Mismatch => return Err(RunOnceError::Mismatch),
        };
        let mut will = Will {
            client: self,
            key,
            token: held.token,
            last: Last::Release,
        };
        let Some(worked) = self.work(key, options, (held, lease), work(held)).await else {
            will.last = Last::Nothing;
            return Err(RunOnceError::LeaseLost {
                held,
                outcome: None,
            });
        };
        let (done, is_failure) = match worked {
            Ok(done) => (done, false),
            Err(Failure::Final(done)) => (done, true),
            Err(Failure::Retry(error)) => {
                // If that fails, it is told once more as the will is dropped, and lapses otherwise.
                let released = timeout(RELEASE_PATIENCE, self.fail_retry(key, held.token)).await;
                if let Ok(Ok(_)) = released {
                    will.last = Last::Nothing;
                }
                return Err(RunOnceError::Work(error));
            }
        };
        let outcome = Outcome {
            is_failure,
            code: done.code,
            body: done.body.clone(),
        };
        let last = Last::store(done, is_failure, options);
        will.last = last.clone();
        let stored = self.repeat(options, Duration::ZERO, || {
            self.store(key, held.token, &last)
        });
        let ending = match stored.await {
            Ok((_, ending)) => Ok(ending),
            Err(error) => Err(error),
        };
        if !matches!(&ending, Err(error) if error.is_transient()) {
            will.last = Last::Nothing;
        }
        let source = match ending {
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

    /// `BEGIN`, again and again while another is at work, for as long as is to be waited.
    async fn claim(&self, key: &[u8], options: &RunOnce) -> Result<Claim, ClientError> {
        let until = from_now(options.wait);
        // The first time it goes with all other calls: mostly nobody else is at work.
        let mut claiming = Claiming {
            client: self,
            key,
            ask: BeginOptions {
                lease: Some(options.lease),
                ttl: options.ttl,
                fingerprint: options.fingerprint.clone(),
                owner: Some(owner()?),
                wait: None,
            },
            is_open: true,
        };
        let mut wait_max = WAIT_ONCE_MAX;
        loop {
            let ask = &claiming.ask;
            let held = ask.wait.unwrap_or_default();
            let begun = self.repeat(options, held, || self.begin(key, ask)).await;
            let is_wait_refused = matches!(&begun, Err(error) if is_out_of_range(error));
            match begun {
                Ok((asked, Begin::Run(held))) => {
                    if let Some(lease) = self.make_sure(key, options, held, asked).await? {
                        claiming.is_open = false;
                        return Ok(Claim::Run(held, lease));
                    }
                }
                Ok((_, Begin::Busy(retry_after))) if Instant::now() >= until => {
                    claiming.is_open = false;
                    return Ok(Claim::Busy(retry_after));
                }
                // A server that holds no more replies, or none for so long, answers at once.
                Ok((_, Begin::Busy(_))) if ask.wait.is_some() => {
                    sleep(jittered(RETRY_PAUSE)).await;
                }
                Ok((_, Begin::Busy(_))) => {}
                Err(_) if ask.wait.is_some() && is_wait_refused => {
                    wait_max /= 2;
                    sleep(jittered(RETRY_PAUSE)).await;
                }
                Ok((_, Begin::Settled(outcome))) => {
                    claiming.is_open = false;
                    return Ok(Claim::Settled(outcome));
                }
                Ok((_, Begin::Mismatch)) => {
                    claiming.is_open = false;
                    return Ok(Claim::Mismatch);
                }
                Err(error) => {
                    claiming.is_open = matches!(error, ClientError::Lost(_) | ClientError::Timeout);
                    return Err(error);
                }
            }
            let left = until.saturating_duration_since(Instant::now());
            claiming.ask.wait = Some(left.min(wait_max));
        }
    }

    /// The lease of who was told to run, where it is sure that enough of it is left; `None` if it is another's
    /// by now.
    async fn make_sure(
        &self,
        key: &[u8],
        options: &RunOnce,
        held: Held,
        asked: Instant,
    ) -> Result<Option<Lease>, ClientError> {
        let lease = Lease {
            asked,
            length: held.lease,
        };
        if Instant::now() < lease.renew_at() {
            return Ok(Some(lease));
        }
        // The answer took its time, so some of the lease may have passed: as much as it took.
        let renew = || self.renew(key, held.token, Some(options.lease));
        let (asked, renewed) = self.repeat(options, Duration::ZERO, renew).await?;
        Ok(renewed.ok().map(|length| Lease { asked, length }))
    }

    /// Runs the work, and renews its lease meanwhile; `None` once another was told to run.
    async fn work<T>(
        &self,
        key: &[u8],
        options: &RunOnce,
        (held, lease): (Held, Lease),
        work: impl Future<Output = T>,
    ) -> Option<T> {
        let mut work = pin!(work);
        let mut next = lease.renew_at();
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Some(done),
                () = sleep_until(next) => {}
            }
            let asked = Instant::now();
            let renewed = timeout(
                options.lease / RENEWAL_PATIENCE,
                self.renew(key, held.token, Some(options.lease)),
            );
            let renewed = tokio::select! {
                biased;
                done = &mut work => return Some(done),
                renewed = renewed => renewed,
            };
            next = match renewed {
                Ok(Ok(Ok(length))) => Lease { asked, length }.renew_at(),
                Ok(Ok(Err(Ending::Stale))) => return None,
                // A record that is gone is adopted at the end.
                Ok(Ok(Err(_))) => asked + options.lease / RENEWALS_PER_LEASE,
                Ok(Err(_)) | Err(_) => Instant::now() + jittered(options.lease / RENEWAL_PAUSE),
            };
        }
    }

    async fn store(&self, key: &[u8], token: u64, last: &Last) -> Result<Ending, ClientError> {
        match last {
            Last::Complete(done, options) => self.complete(key, token, done, options).await,
            Last::Fail(done, ttl) => self.fail_final(key, token, done, *ttl).await,
            Last::Release | Last::Nothing => self.fail_retry(key, token).await,
        }
    }

    /// Makes a call that may be repeated, until it gets an answer that lasts; also tells when that one was
    /// made. `held` is how long the reply may be held.
    async fn repeat<T, C: Future<Output = Result<T, ClientError>>>(
        &self,
        options: &RunOnce,
        held: Duration,
        call: impl Fn() -> C,
    ) -> Result<(Instant, T), ClientError> {
        let mut until = None;
        loop {
            let asked = Instant::now();
            let limit = from_now(options.patience.saturating_add(held));
            let error = match timeout_at(limit, call()).await {
                Ok(Ok(answer)) => return Ok((asked, answer)),
                Ok(Err(error)) if error.is_transient() => error,
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(self.pipeline.too_late()),
            };
            // Patience begins with the first failure, however long the reply was held before.
            if Instant::now() >= *until.get_or_insert_with(|| from_now(options.patience)) {
                return Err(error);
            }
            sleep(jittered(RETRY_PAUSE)).await;
        }
    }
}

/// What a claim came to.
enum Claim {
    Run(Held, Lease),
    Settled(Outcome),
    Busy(Duration),
    Mismatch,
}

/// A claim that is being made: if it is dropped, nobody reads whether it was granted.
struct Claiming<'a> {
    client: &'a Client,
    key: &'a [u8],
    ask: BeginOptions,
    is_open: bool,
}

impl Drop for Claiming<'_> {
    fn drop(&mut self) {
        // Without a connection it was not even asked for.
        if !self.is_open || self.client.pipeline.is_down() {
            return;
        }
        let (client, key) = (self.client.clone(), self.key.to_vec());
        let ask = BeginOptions {
            wait: None,
            ..self.ask.clone()
        };
        // The same owner is told the same token again, and gives it back.
        self.client.pipeline.runtime().spawn(async move {
            if let Ok(Begin::Run(held)) = client.begin(&key, &ask).await {
                client.let_go(&key, held.token);
            }
        });
    }
}

/// What is still to be said for work, if its caller goes away.
#[derive(Clone)]
enum Last {
    Release,
    Complete(Done, CompleteOptions),
    Fail(Done, Option<Duration>),
    Nothing,
}

impl Last {
    fn store(done: Done, is_failure: bool, options: &RunOnce) -> Self {
        if is_failure {
            return Self::Fail(done, options.ttl);
        }
        let options = CompleteOptions {
            ttl: options.ttl,
            fingerprint: options.fingerprint.clone(),
            adopts: true,
        };
        Self::Complete(done, options)
    }
}

/// Says it.
struct Will<'a> {
    client: &'a Client,
    key: &'a [u8],
    token: u64,
    last: Last,
}

impl Drop for Will<'_> {
    fn drop(&mut self) {
        let (client, key, token) = (self.client, self.key, self.token);
        match &self.last {
            Last::Release => client.let_go(key, token),
            Last::Complete(done, options) => client.leave(key, token, done, options),
            Last::Fail(done, ttl) => client.leave_failure(key, token, done, *ttl),
            Last::Nothing => {}
        }
    }
}

/// Of a claim that was made before without waiting, this can only be about its waiting.
fn is_out_of_range(error: &ClientError) -> bool {
    matches!(error, ClientError::Refused { code, .. } if code == "RANGE")
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
