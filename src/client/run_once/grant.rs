//! The right to do the work behind a key, and its end: what is to be said of the work, also if its caller
//! goes away before.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::RunOnce;
use super::work::Lease;
use crate::client::answers::{CompleteOptions, Done, Ending, Held};
use crate::client::{Client, ClientError};

/// How long a caller whose work failed is kept until it is released.
const RELEASE_PATIENCE: Duration = Duration::from_secs(1);

/// What is still to be said for work.
#[derive(Clone)]
enum Last {
    Release,
    Complete(Done, CompleteOptions),
    Fail(Done, Option<Duration>),
    Nothing,
}

/// Whether it is of use to try again to store what there is no room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Storing {
    /// There is nothing less to store.
    All,
    /// There is.
    #[cfg_attr(
        not(feature = "http"),
        expect(dead_code, reason = "only responses come in parts")
    )]
    UnlessTooMuch,
}

/// The right to do the work behind a key. What has not been said of it when it is dropped is said then.
pub(crate) struct Grant {
    pub(super) client: Client,
    pub(super) key: Box<[u8]>,
    /// The token, and how it came.
    pub(crate) held: Held,
    pub(super) lease: Lease,
    last: Last,
}

impl Grant {
    pub(super) fn new(client: &Client, key: &[u8], held: Held) -> Self {
        Self {
            client: client.clone(),
            key: key.into(),
            held,
            lease: Lease {
                asked: Instant::now(),
                length: held.lease,
            },
            last: Last::Release,
        }
    }

    pub(super) fn under(mut self, lease: Lease) -> Self {
        self.lease = lease;
        self
    }

    /// Others may do the work; if they cannot be told within a moment, that is done later.
    pub(crate) async fn release(mut self) {
        let released = self.client.fail_retry(&self.key, self.held.token);
        if let Ok(Ok(_)) = timeout(RELEASE_PATIENCE, released).await {
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

    /// Stores what the work came to, and tries for so long where that fails for the moment.
    pub(crate) async fn store(
        &mut self,
        patience: Duration,
        storing: Storing,
    ) -> Result<Ending, ClientError> {
        let last = self.last.clone();
        let is_worth = |error: &ClientError| match storing {
            Storing::All => error.is_transient(),
            Storing::UnlessTooMuch => error.is_transient() && !error.is_about_room(),
        };
        let said = self
            .client
            .repeat(patience, is_worth, || self.say(&last))
            .await;
        match said {
            Err(error) if error.is_transient() => Err(error),
            said => {
                self.last = Last::Nothing;
                Ok(said?.1)
            }
        }
    }

    async fn say(&self, last: &Last) -> Result<Ending, ClientError> {
        let (client, key, token) = (&self.client, &self.key, self.held.token);
        match last {
            Last::Complete(done, options) => client.complete(key, token, done, options).await,
            Last::Fail(done, ttl) => client.fail_final(key, token, done, *ttl).await,
            Last::Release | Last::Nothing => client.fail_retry(key, token).await,
        }
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        let (client, key, token) = (&self.client, &self.key, self.held.token);
        match &self.last {
            Last::Release => client.let_go(key, token),
            Last::Complete(done, options) => client.leave(key, token, done, options),
            Last::Fail(done, ttl) => client.leave_failure(key, token, done, *ttl),
            Last::Nothing => {}
        }
    }
}
