//! The beginning: work is claimed, over lost replies and while another is at it.

use std::fmt::Write;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::work::Lease;
use super::{RETRY_PAUSE, RunOnce};
use crate::client::answers::{Begin, BeginOptions, Held, Outcome};
use crate::client::pipeline::{from_now, jittered};
use crate::client::{Client, ClientError};

/// The longest that one request waits in line: servers allow 60 s unless set otherwise.
const WAIT_ONCE_MAX: Duration = Duration::from_secs(30);

/// What a claim came to.
pub(super) enum Claim {
    Run(Held, Lease),
    Settled(Outcome),
    Busy(Duration),
    Mismatch,
}

impl Client {
    /// `BEGIN`, again and again while another is at work, for as long as is to be waited.
    pub(super) async fn claim(&self, key: &[u8], options: &RunOnce) -> Result<Claim, ClientError> {
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
