//! The shared connection: calls go out as they come, replies come back in their order.
//!
//! One task owns it. It connects when there is something to send, and after a failure again, with
//! pauses that grow and vary by chance, so that many clients of a server that was restarted do not come
//! all at once. A call that was not sent yet waits for the next connection; one that was is lost with
//! its connection.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{sleep, timeout};

use super::config::ClientConfig;
use super::reply::{ClientError, Value, lost, push_request};
use crate::address::Address;

/// Bytes of requests that are put together before they are sent.
const SEND_BYTES: usize = 64 << 10;

/// A call on its way.
#[derive(Debug)]
struct Call {
    request: Vec<u8>,
    reply: oneshot::Sender<Result<Value, ClientError>>,
    /// Its place among those that may be under way.
    _place: OwnedSemaphorePermit,
}

/// The way to the task that owns the connection.
#[derive(Clone, Debug)]
pub(super) struct Pipeline {
    config: Arc<ClientConfig>,
    calls: mpsc::UnboundedSender<Call>,
    places: Arc<Semaphore>,
    /// Why there is no connection, while there is none.
    failure: Arc<Mutex<Option<String>>>,
}

/// Either kind of connection.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl Pipeline {
    pub(super) fn start(config: Arc<ClientConfig>) -> Self {
        let (calls, called) = mpsc::unbounded_channel();
        let failure = Arc::default();
        tokio::spawn(
            Driver {
                config: Arc::clone(&config),
                called,
                unsent: VecDeque::new(),
                failure: Arc::clone(&failure),
            }
            .drive(),
        );
        Self {
            places: Arc::new(Semaphore::new(config.in_flight_max.max(1))),
            config,
            calls,
            failure,
        }
    }

    /// Sends a request and waits for its reply.
    pub(super) async fn call(&self, words: &[&[u8]]) -> Result<Value, ClientError> {
        let mut request = Vec::new();
        push_request(words, &mut request);
        let answered = timeout(self.config.timeout, self.ask(request)).await;
        answered.unwrap_or_else(|_| Err(self.too_late()))?.refused()
    }

    /// Sends a request if that can be done at once, and asks for no reply.
    pub(super) fn tell(&self, words: &[&[u8]]) {
        let mut request = Vec::new();
        push_request(words, &mut request);
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            let (reply, _nobody_waits) = oneshot::channel();
            let _the_runtime_may_end = self.calls.send(Call {
                request,
                reply,
                _place: place,
            });
        }
    }

    async fn ask(&self, request: Vec<u8>) -> Result<Value, ClientError> {
        let ended = || ClientError::Lost("the client's runtime ended".to_owned());
        let place = Arc::clone(&self.places).acquire_owned().await;
        let place = place.map_err(|_| ended())?;
        let (reply, replied) = oneshot::channel();
        let call = Call {
            request,
            reply,
            _place: place,
        };
        self.calls.send(call).map_err(|_| ended())?;
        replied.await.map_err(|_| ended())?
    }

    fn too_late(&self) -> ClientError {
        match &*self.failure.lock() {
            None => ClientError::Timeout,
            Some(reason) => ClientError::Unreachable {
                address: self.config.address.clone(),
                reason: reason.clone(),
            },
        }
    }
}

/// The task.
struct Driver {
    config: Arc<ClientConfig>,
    called: mpsc::UnboundedReceiver<Call>,
    /// Calls that wait for a connection.
    unsent: VecDeque<Call>,
    failure: Arc<Mutex<Option<String>>>,
}

impl Driver {
    /// Ends when no client is left.
    async fn drive(mut self) {
        let mut backoff = Backoff::new(&self.config);
        loop {
            // Who gave up is not waited for.
            self.unsent.retain(|call| !call.reply.is_closed());
            if self.unsent.is_empty() {
                match self.called.recv().await {
                    None => return,
                    Some(call) => self.unsent.push_back(call),
                }
            }
            match connect(&self.config).await {
                Ok(stream) => {
                    *self.failure.lock() = None;
                    if self.converse(stream, &mut backoff).await {
                        return;
                    }
                }
                Err(error) => *self.failure.lock() = Some(error.to_string()),
            }
            sleep(backoff.next()).await;
        }
    }

    /// Sends and receives until the connection breaks (false) or no client is left.
    async fn converse(&mut self, stream: Box<dyn Stream>, backoff: &mut Backoff) -> bool {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
        let mut sent: VecDeque<Call> = VecDeque::new();
        let mut is_open = true;
        let error = loop {
            while output.len() < SEND_BYTES {
                let next = self.unsent.pop_front();
                let Some(call) = next.or_else(|| self.called.try_recv().ok()) else {
                    break;
                };
                output.extend_from_slice(&call.request);
                sent.push_back(call);
            }
            if !is_open && sent.is_empty() {
                return true;
            }
            tokio::select! {
                read = reader.read_buf(&mut input) => match read {
                    Ok(0) => break ClientError::Lost("the server closed it".to_owned()),
                    Ok(_) => match answer(&mut input, &mut sent) {
                        Ok(()) => backoff.begin_anew(),
                        Err(error) => break error,
                    },
                    Err(error) => break lost(&error),
                },
                written = writer.write_buf(&mut output), if !output.is_empty() => {
                    if let Err(error) = written {
                        break lost(&error);
                    }
                }
                call = self.called.recv(), if is_open && output.len() < SEND_BYTES => match call {
                    Some(call) => self.unsent.push_back(call),
                    None => is_open = false,
                },
            }
        };
        if !sent.is_empty() {
            let reason = match &error {
                ClientError::Protocol(reason) | ClientError::Lost(reason) => reason.clone(),
                other => other.to_string(),
            };
            for call in sent {
                let error = match &error {
                    ClientError::Protocol(_) => ClientError::Protocol(reason.clone()),
                    _ => ClientError::Lost(reason.clone()),
                };
                let _the_caller_may_be_gone = call.reply.send(Err(error));
            }
        }
        false
    }
}

/// Hands whole replies to those who wait for them, in order.
fn answer(input: &mut BytesMut, sent: &mut VecDeque<Call>) -> Result<(), ClientError> {
    while let Some(value) = Value::take(input)? {
        let call = sent
            .pop_front()
            .ok_or_else(|| ClientError::Protocol("a reply to nothing".to_owned()))?;
        let _the_caller_may_be_gone = call.reply.send(Ok(value));
    }
    Ok(())
}

/// A connection in the namespace that is meant.
pub(super) async fn connect(config: &ClientConfig) -> io::Result<Box<dyn Stream>> {
    let connecting = async {
        let mut stream: Box<dyn Stream> = match &config.address {
            Address::Tcp(host_port) => {
                let stream = TcpStream::connect(host_port).await?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
            Address::Unix(path) => Box::new(UnixStream::connect(path).await?),
        };
        if let Some(namespace) = &config.namespace {
            choose(&mut *stream, namespace).await?;
        }
        Ok(stream)
    };
    let connected = timeout(config.connect_timeout, connecting).await;
    connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn choose(stream: &mut dyn Stream, namespace: &str) -> io::Result<()> {
    let mut request = Vec::new();
    push_request(&[b"USE", namespace.as_bytes()], &mut request);
    stream.write_all(&request).await?;
    let told = receive(stream).await.and_then(Value::refused);
    told.map(drop).map_err(io::Error::other)
}

/// The next reply of a connection that nothing else is read from.
pub(super) async fn receive(stream: &mut dyn Stream) -> Result<Value, ClientError> {
    let mut input = BytesMut::new();
    loop {
        if let Some(value) = Value::take(&mut input)? {
            return Ok(value);
        }
        match stream.read_buf(&mut input).await {
            Ok(0) => return Err(ClientError::Lost("the server closed it".to_owned())),
            Ok(_) => {}
            Err(error) => return Err(lost(&error)),
        }
    }
}

/// Pauses that grow.
struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    fn new(config: &ClientConfig) -> Self {
        Self {
            min: config.backoff_min,
            max: config.backoff_max,
            next: config.backoff_min,
        }
    }

    fn begin_anew(&mut self) {
        self.next = self.min;
    }

    /// Between half and all of what its turn is.
    fn next(&mut self) -> Duration {
        let most = self.next;
        self.next = (2 * most).min(self.max);
        jittered(most)
    }
}

/// Between half of a duration and all of it.
pub(super) fn jittered(most: Duration) -> Duration {
    let chance = getrandom::u32().unwrap_or(u32::MAX);
    most.mul_f64(0.5 + 0.5 * f64::from(chance) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_bound_and_vary() {
        let config = ClientConfig::new("127.0.0.1:1".parse().unwrap());
        let mut backoff = Backoff::new(&config);
        let mut most = config.backoff_min;
        for _ in 0..12 {
            let pause = backoff.next();
            assert!(pause >= most / 2 && pause <= most, "{pause:?} of {most:?}");
            most = (2 * most).min(config.backoff_max);
        }
        assert_eq!(most, config.backoff_max);
        backoff.begin_anew();
        assert!(backoff.next() <= config.backoff_min);
        let pauses: Vec<_> = (0..20).map(|_| jittered(config.backoff_max)).collect();
        assert!(pauses.iter().any(|pause| *pause != pauses[0]));
    }
}
