//! What tests of the async client share.

use std::time::Duration;

use onced::client::Client;
use tokio::time::timeout;

/// Runs a test's future; one that hangs fails.
pub fn run<F: Future>(test: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(async { timeout(Duration::from_secs(50), test).await.unwrap() })
}

/// A client with the defaults.
pub fn client_of(address: &str) -> Client {
    Client::new(address.parse().unwrap())
}
