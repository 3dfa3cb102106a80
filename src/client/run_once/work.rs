//! The middle: work runs, and its lease is renewed meanwhile.

use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};

use super::RunOnce;
use super::grant::Grant;
use crate::client::answers::Ending;
use crate::client::pipeline::jittered;

/// Parts of a lease after which it is renewed.
const RENEWALS_PER_LEASE: u32 = 3;
/// Parts of a lease after which a renewal without an answer has failed, and that pass before the next
/// one: with those above, two may fail.
const RENEWAL_PATIENCE: u32 = 6;
const RENEWAL_PAUSE: u32 = 20;

/// A lease as this side knows it: from when it was asked for.
#[derive(Clone, Copy)]
pub(super) struct Lease {
    pub(super) asked: Instant,
    pub(super) length: Duration,
}

impl Lease {
    pub(super) fn renew_at(self) -> Instant {
        self.asked + self.length / RENEWALS_PER_LEASE
    }
}

impl Grant {
    /// Runs the work, and renews its lease meanwhile; `None` once another was told to run.
    pub(crate) async fn work<T>(
        &self,
        options: &RunOnce,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        let mut work = pin!(work);
        let mut next = self.lease.renew_at();
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Some(done),
                () = sleep_until(next) => {}
            }
            let asked = Instant::now();
            let renew = self
                .client
                .renew(&self.key, self.held.token, Some(options.lease));
            let renewed = timeout(options.lease / RENEWAL_PATIENCE, renew);
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
}
