//! The end: what is to be said of work, also if its caller goes away before.

use std::time::Duration;

use super::RunOnce;
use crate::client::answers::{CompleteOptions, Done, Ending};
use crate::client::{Client, ClientError};

/// What is still to be said for work, if its caller goes away.
#[derive(Clone)]
pub(super) enum Last {
    Release,
    Complete(Done, CompleteOptions),
    Fail(Done, Option<Duration>),
    Nothing,
}

impl Last {
    pub(super) fn store(done: Done, is_failure: bool, options: &RunOnce) -> Self {
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
pub(super) struct Will<'a> {
    pub(super) client: &'a Client,
    pub(super) key: &'a [u8],
    pub(super) token: u64,
    pub(super) last: Last,
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

impl Client {
    pub(super) async fn store(
        &self,
        key: &[u8],
        token: u64,
        last: &Last,
    ) -> Result<Ending, ClientError> {
        match last {
            Last::Complete(done, options) => self.complete(key, token, done, options).await,
            Last::Fail(done, ttl) => self.fail_final(key, token, done, *ttl).await,
            Last::Release | Last::Nothing => self.fail_retry(key, token).await,
        }
    }
}
