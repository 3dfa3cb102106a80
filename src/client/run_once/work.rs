//! The middle: work runs, while its lease is renewed.

use std::time::Duration;

use tokio::time::Instant;

use super::RunOnce;
use super::grant::Grant;
use crate::client::renewals::RENEWALS_PER_LEASE;

/// When a lease is to be renewed; this side knows it from when it was asked for.
pub(super) fn renew_at(asked: Instant, lease: Duration) -> Instant {
    asked + lease / RENEWALS_PER_LEASE
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
        let after = self.renew_at.saturating_duration_since(Instant::now());
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
