//! Connections of held calls: each has one to itself, so that nobody waits behind it.
//!
//! One whose reply has come is kept for the next call. One whose caller went away is closed: the server
//! then gives its place in line to the next.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncWriteExt, ReadBuf};
use tokio::time::timeout;

use super::config::ClientConfig;
use super::pipeline::{Stream, connect, receive};
use super::reply::{ClientError, Value, lost, push_request};

/// Connections that wait for a call.
pub(super) struct Lanes {
    config: Arc<ClientConfig>,
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
            config,
            idle: Mutex::default(),
        }
    }

    /// Sends a request whose reply may be held for so long, and waits for it.
    pub(super) async fn call(&self, words: &[&[u8]], held: Duration) -> Result<Value, ClientError> {
        let mut request = Vec::new();
        push_request(words, &mut request);
        let patience = self.config.timeout + held;
        let called = timeout(patience, async {
            let mut stream = self.lane().await?;
            let sent = stream.write_all(&request).await;
            sent.map_err(|error| lost(&error))?;
            let value = receive(&mut *stream).await?;
            Ok((value, stream))
        });
        let (value, stream) = called.await.unwrap_or(Err(ClientError::Timeout))?;
        let mut idle = self.idle.lock();
        if idle.len() < self.config.idle_lanes_max {
            idle.push(stream);
        }
        drop(idle);
        value.refused()
    }

    async fn lane(&self) -> Result<Box<dyn Stream>, ClientError> {
        loop {
            let idle = self.idle.lock().pop();
            let Some(mut stream) = idle else { break };
            if is_open(&mut *stream) {
                return Ok(stream);
            }
        }
        let connected = connect(&self.config).await;
        connected.map_err(|error| ClientError::Unreachable {
            address: self.config.address.clone(),
            reason: error.to_string(),
        })
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
