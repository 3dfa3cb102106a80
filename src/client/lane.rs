//! Connections of held calls: each has one to itself, so that nobody waits behind it.
//!
//! One whose reply has come is kept for the next call. One whose caller went away is closed: the server
//! then gives its place in line to the next. There are only so many; a further call waits for one.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncWriteExt, ReadBuf};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::config::ClientConfig;
use super::pipeline::{Backoff, Sent};
use super::reply::{ClientError, Value, lost, push_request};
use super::stream::{Stream, connect, receive};

/// Connections that wait for a call, and places for those that have one.
pub(super) struct Lanes {
    config: Arc<ClientConfig>,
    places: Semaphore,
    idle: Mutex<Vec<Box<dyn Stream>>>,
}

impl std::fmt::Debug for Lanes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lanes").finish_non_exhaustive()
    }
}

impl Lanes {
    pub(super) fn new(config: Arc<ClientConfig>) -> Self {
        Self {
            places: Semaphore::new(config.held_max.max(1)),
            config,
            idle: Mutex::default(),
        }
    }

    /// Whether another call would find a place now.
    pub(super) fn has_place(&self) -> bool {
        self.places.available_permits() > 0
    }

    /// Sends a request whose reply may be held for so long, and waits for it; whoever drops this call can see
    /// whether it was sent.
    pub(super) async fn call(
        &self,
        words: &[&[u8]],
        held: Duration,
        sent: &Sent,
    ) -> Result<Value, ClientError> {
        let mut request = Vec::new();
        push_request(words, &mut request);
        let patience = self.config.timeout.saturating_add(held);
        let failure = Mutex::new(None);
        let called = timeout(patience, async {
            let _place = self
                .places
                .acquire()
                .await
                .map_err(|_| ClientError::Ended)?;
            let mut stream = self.lane(&failure).await?;
            sent.set(true);
            let written = stream.write_all(&request).await;
            written.map_err(|error| lost(&error))?;
            let value = receive(&mut *stream).await?;
            Ok((value, stream))
        });
        let too_late = || failure.lock().take().unwrap_or(ClientError::Timeout);
        let (value, stream) = called.await.unwrap_or_else(|_| Err(too_late()))?;
        let mut idle = self.idle.lock();
        if idle.len() < self.config.idle_lanes_max {
            idle.push(stream);
        }
        drop(idle);
        value.refused()
    }

    /// A connection; where none comes about, `failure` says why until one does.
    async fn lane(
        &self,
        failure: &Mutex<Option<ClientError>>,
    ) -> Result<Box<dyn Stream>, ClientError> {
        loop {
            let idle = self.idle.lock().pop();
            let Some(mut stream) = idle else { break };
            if is_open(&mut *stream) {
                return Ok(stream);
            }
        }
        let mut backoff = Backoff::new(&self.config);
        loop {
            match connect(&self.config).await {
                Err(error) if error.is_transient() => *failure.lock() = Some(error),
                connected => {
                    failure.lock().take();
                    return connected;
                }
            }
            sleep(backoff.next()).await;
        }
    }
}

/// Whether an idle connection is still one: neither its end has come, nor anything that nobody asked for.
fn is_open(stream: &mut dyn Stream) -> bool {
    let mut byte = [0];
    let mut buffer = ReadBuf::new(&mut byte);
    let mut context = Context::from_waker(Waker::noop());
    matches!(
        Pin::new(stream).poll_read(&mut context, &mut buffer),
        Poll::Pending
    )
}
