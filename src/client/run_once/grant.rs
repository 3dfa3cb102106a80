//! The right to do the work behind a key, and its end: what is to be said of the work, also if its caller
//! goes away before.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::RunOnce;
use super::work::renew_at;
use crate::client::answers::{CompleteOptions, Done, Ending, Held};
use crate::client::calls::{Words, completion, failure, release};
use crate::client::renewals::Renewal;
use crate::client::{Client, ClientError};

/// How long a caller whose work failed is kept until it is released.
const RELEASE_PATIENCE: Duration = Duration::from_secs(1);

/// What is still to be said for work.
enum Last {
    Release,
    Complete(Done, CompleteOptions),
    Fail(Done, Option<Duration>),
    Nothing,
}

/// The right to do the work behind a key. What has not been said of it when it is dropped is said then.
pub(crate) struct Grant {
    pub(super) client: Client,
    pub(super) key: Box<[u8]>,
    /// The token, and how it came.
    pub(crate) held: Held,
    /// When its lease is to be renewed.
    pub(super) renew_at: Instant,
    /// Renews the lease, once the work runs.
    pub(super) renewal: Option<Box<Renewal>>,
    last: Last,
}

impl Grant {
    pub(super) fn new(client: &Client, key: &[u8], held: Held) -> Self {
        Self {
            client: client.clone(),
            key: key.into(),
            renew_at: renew_at(Instant::now(), held.lease),
            held,
            renewal: None,
            last: Last::Release,
        }
    }

    pub(super) fn under(mut self, renew_at: Instant) -> Self {
        self.renew_at = renew_at;
        self
    }

    /// Others may do the work; if they cannot be told within a moment, that is done later.
    pub(crate) async fn release(mut self) {
        if let Ok(Ok(_)) = timeout(RELEASE_PATIENCE, self.say()).await {
            self.last = Last::Nothing;
        }
    }

    /// It is another's now.
    pub(crate) fn forfeit(mut self) {
        self.last = Last::Nothing;
    }

    /// The work came to this.
    pub(crate) fn settle(&mut self, done: Done, is_failure: bool, options: &RunOnce) {
        self.last = if is_failure {
            Last::Fail(done, options.ttl)
        } else {
            let options = CompleteOptions {
                ttl: options.ttl,
                fingerprint: options.fingerprint.clone(),
                adopts: true,
            };
            Last::Complete(done, options)
        };
    }

    /// Stores what the work came to, and tries for so long where that fails for what is worth it.
    pub(crate) async fn store(
        &mut self,
        patience: Duration,
        is_worth: impl Fn(&ClientError) -> bool,
    ) -> Result<Ending, ClientError> {
        let said = self.client.repeat(patience, is_worth, || self.say()).await;
        match said {
            Err(error) if error.is_transient() => Err(error),
            said => {
                self.last = Last::Nothing;
                Ok(said?.1)
            }
        }
    }

    async fn say(&self) -> Result<Ending, ClientError> {
        self.client.end(&self.words()).await
    }

    /// The request that says what is still to be said.
    fn words(&self) -> Words<'_> {
        let (key, token) = (&*self.key, self.held.token);
        match &self.last {
            Last::Complete(done, options) => completion(key, token, done, options),
            Last::Fail(done, ttl) => failure(key, token, done, *ttl),
            Last::Release | Last::Nothing => release(key, token),
        }
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        if !matches!(self.last, Last::Nothing) {
            self.client.tell(&self.words());
        }
    }
}
