//! The middle: work runs, while its lease is renewed.

use std::time::Duration;

use tokio::time::Instant;

use super::RunOnce;
use super::grant::Grant;
use crate::client::renewals::RENEWALS_PER_LEASE;

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
    /// Runs the work; `None` once another was told to run, unless the work has ended by the time that this is
    /// noticed. Its lease is renewed from now until this grant is dropped: what came of the work may have to
    /// wait too, for a server or for other work that blocks the thread.
    pub(crate) async fn work<T>(
        &mut self,
        options: &RunOnce,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        let after = self
            .lease
            .renew_at()
            .saturating_duration_since(Instant::now());
        let renewals = &self.client.renewals;
        let renewal = renewals.hold(&self.key, self.held.token, options.lease, after);
        let renewal = self.renewal.insert(Box::new(renewal));
        tokio::select! {
            biased;
            done = work => Some(done),
            () = renewal.lost() => None,
        }
    }
}
