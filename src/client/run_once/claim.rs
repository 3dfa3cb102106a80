//! The beginning: work is claimed, over lost replies and while another is at it.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::grant::Grant;
use super::work::renew_at;
use super::{RETRY_PAUSE, RunOnce};
use crate::client::answers::{Begin, BeginOptions, Held, Outcome};
use crate::client::pipeline::{Sent, from_now, jittered};
use crate::client::{Client, ClientError};

/// The longest that one request waits in line: servers allow 60 s unless set otherwise.
const WAIT_ONCE_MAX: Duration = Duration::from_secs(30);
/// A server that lets nobody wait for longer than this is asked now and then instead.
const WAIT_ONCE_MIN: Duration = Duration::from_millis(100);

/// What a claim came to.
pub(crate) enum Claim {
    /// The work is to be done.
    Run(Grant),
    /// It was done before.
    Settled(Outcome),
    /// Another is at it; when it is of use to come again.
    Busy(Duration),
    /// The key came with another fingerprint.
    Mismatch,
}

impl Client {
    /// `BEGIN`, again and again while another is at work, for as long as is to be waited.
    ///
    /// Once another is known to be at work, that is the answer, whatever fails afterwards.
    pub(crate) async fn claim(&self, key: &[u8], options: &RunOnce) -> Result<Claim, ClientError> {
        let until = from_now(options.wait);
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
            sent: Sent::default(),
            may_be_granted: false,
        };
        let mut busy = None;
        let mut failing_until = None;
        let mut wait_max = WAIT_ONCE_MAX;
        loop {
            // At first it goes with all other calls: mostly nobody else is at work. Neither does it wait where
            // that failed, or there is no connection for it: then it asks now and then.
            let left = until.saturating_duration_since(Instant::now());
            let may_wait = busy.is_some() && failing_until.is_none() && self.lanes.has_place();
            let wait = left.min(wait_max);
            claiming.ask.wait = (may_wait && wait >= WAIT_ONCE_MIN).then_some(wait);
            let asked = Instant::now();
            let held = claiming.ask.wait.unwrap_or_default();
            let limit =
                failing_until.unwrap_or_else(|| from_now(options.patience.saturating_add(held)));
            claiming.may_be_granted |= claiming.sent.get();
            claiming.sent = Sent::default();
            let begun = self.begin_seen(key, &claiming.ask, &claiming.sent);
            let begun = timeout_at(limit, begun).await.unwrap_or_else(|_| {
                // Nothing more is waited for.
                failing_until = Some(asked);
                Err(self.pipeline.too_late())
            });
            match begun {
                Ok(begun) => {
                    claiming.sent.set(false);
                    claiming.may_be_granted = false;
                    failing_until = None;
                    match begun {
                        Begin::Run(held) => {
                            let grant = Grant::new(self, key, held);
                            if let Some(at) = self.make_sure(key, options, held, asked).await? {
                                return Ok(Claim::Run(grant.under(at)));
                            }
                        }
                        Begin::Settled(outcome) => return Ok(Claim::Settled(outcome)),
                        Begin::Mismatch => return Ok(Claim::Mismatch),
                        Begin::Busy(retry_after) if Instant::now() >= until => {
                            return Ok(Claim::Busy(retry_after));
                        }
                        // The first time, it waits from here on.
                        Begin::Busy(retry_after) if busy.replace(retry_after).is_none() => continue,
                        Begin::Busy(_) => {}
                    }
                }
                // Not the lease or the TTL, which it had nothing against before, unless it has now: that the
                // next one tells, which does not wait.
                Err(error) if claiming.ask.wait.is_some() && is_out_of_range(&error) => {
                    wait_max = if wait_max > WAIT_ONCE_MIN {
                        wait_max / 4
                    } else {
                        Duration::ZERO
                    };
                }
                Err(error) => {
                    if let ClientError::Refused { .. } = error {
                        claiming.sent.set(false);
                    }
                    let failing_until =
                        *failing_until.get_or_insert_with(|| from_now(options.patience));
                    let is_over = !error.is_transient() || Instant::now() >= failing_until;
                    match busy {
                        Some(retry_after) if is_over || Instant::now() >= until => {
                            return Ok(Claim::Busy(retry_after));
                        }
                        None if is_over => return Err(error),
                        _ => {}
                    }
                }
            }
            sleep(jittered(RETRY_PAUSE)).await;
        }
    }

    /// When the lease of who was told to run is to be renewed, where it is sure that enough of it is left; `None` if
    /// it is another's by now.
    async fn make_sure(
        &self,
        key: &[u8],
        options: &RunOnce,
        held: Held,
        asked: Instant,
    ) -> Result<Option<Instant>, ClientError> {
        let at = renew_at(asked, held.lease);
        if Instant::now() < at {
            return Ok(Some(at));
        }
        // The answer took its time, so some of the lease may have passed: as much as it took.
        let renew = || self.renew(key, held.token, Some(options.lease));
        let (asked, renewed) = self
            .repeat(options.patience, ClientError::is_transient, renew)
            .await?;
        Ok(renewed.ok().map(|lease| renew_at(asked, lease)))
    }
}

/// A claim that is being made: if it is dropped, nobody reads whether it was granted.
struct Claiming<'a> {
    client: &'a Client,
    key: &'a [u8],
    ask: BeginOptions,
    /// Whether the last request for it was sent, and not answered.
    sent: Sent,
    /// Whether one before was.
    may_be_granted: bool,
}

impl Drop for Claiming<'_> {
    fn drop(&mut self) {
        if self.may_be_granted || self.sent.get() {
            self.ask.wait = None;
            self.client.give_back(self.key, &self.ask);
        }
    }
}

fn is_out_of_range(error: &ClientError) -> bool {
    matches!(error, ClientError::Refused { code, .. } if code == "RANGE")
}

/// A name for one attempt.
fn owner() -> Result<Vec<u8>, ClientError> {
    let mut random = [0; 16];
    getrandom::fill(&mut random)
        .map_err(|error| ClientError::Protocol(format!("the system gives no chance: {error}")))?;
    Ok(format!("{:032x}", u128::from_ne_bytes(random)).into_bytes())
}
