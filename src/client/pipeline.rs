//! The shared connection: calls go out as they come, replies come back in their order.
//!
//! One task owns it. It connects when there is something to send, and after a failure again, with
//! pauses that grow and vary by chance, so that many clients of a server that was restarted do not come
//! all at once. A connection on which nothing comes back in time is given up. What of a call was not
//! sent yet waits for the next connection, if its caller still does; one that was sent is lost with its
//! connection.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::config::ClientConfig;
use super::reply::{ClientError, Value, lost, push_request};
use super::stream::{Stream, connect};

/// Bytes of requests that are put together before they are sent.
const SEND_BYTES: usize = 64 << 10;
/// Bytes of replies that there is always room for.
const RECEIVE_BYTES: usize = 16 << 10;

/// The longest pause after a server that is there took no requests.
const REFUSAL_PAUSE: Duration = Duration::from_millis(200);

/// Between two tries of what nobody waits for; by chance, up to this.
const INSIST_PAUSE: Duration = Duration::from_millis(200);

/// Whether anything of a request may have reached the server.
#[derive(Clone, Debug, Default)]
pub(super) struct Sent(Arc<AtomicBool>);

impl Sent {
    pub(super) fn set(&self, is_sent: bool) {
        self.0.store(is_sent, Ordering::SeqCst);
    }

    pub(super) fn get(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// A call on its way.
#[derive(Debug)]
struct Call {
    request: Vec<u8>,
    sent: Sent,
    reply: oneshot::Sender<Result<Value, ClientError>>,
    /// Its place among those that may be under way; the last words of work that was dropped need none.
    _place: Option<OwnedSemaphorePermit>,
    /// Nobody waits for the reply, and it is to be sent all the same, until then.
    unheard_until: Option<Instant>,
}

impl Call {
    /// Whether it is still to be sent: a caller that was told that there is no connection must not find
    /// later that its request was executed.
    fn is_wanted(&self) -> bool {
        match self.unheard_until {
            Some(until) => Instant::now() < until,
            None => !self.reply.is_closed(),
        }
    }

    fn fail(self, error: ClientError) {
        let _the_caller_may_be_gone = self.reply.send(Err(error));
    }
}

/// The way to the task that owns the connection.
#[derive(Clone, Debug)]
pub(super) struct Pipeline {
    config: Arc<ClientConfig>,
    calls: mpsc::UnboundedSender<Call>,
    places: Arc<Semaphore>,
    /// Why there is no connection, while there is none.
    failure: Arc<Mutex<Option<ClientError>>>,
    runtime: Handle,
}

impl Pipeline {
    pub(super) fn start(config: Arc<ClientConfig>) -> Self {
        let (calls, called) = mpsc::unbounded_channel();
        let failure = Arc::default();
        let runtime = Handle::current();
        runtime.spawn(
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
            runtime,
        }
    }

    /// Sends a request and waits for its reply.
    pub(super) async fn call(&self, words: &[&[u8]]) -> Result<Value, ClientError> {
        self.call_seen(words, &Sent::default()).await
    }

    /// The same; whoever drops this call can see whether it was sent.
    pub(super) async fn call_seen(
        &self,
        words: &[&[u8]],
        sent: &Sent,
    ) -> Result<Value, ClientError> {
        let mut request = Vec::new();
        push_request(words, &mut request);
        let answered = timeout(self.config.timeout, self.ask(request, sent)).await;
        answered.unwrap_or_else(|_| Err(self.too_late()))?.refused()
    }

    /// Sends a request behind those that were made before, within the time that a call may take, and asks for
    /// no reply.
    pub(super) fn tell(&self, words: &[&[u8]]) {
        let _nobody_waits = self.send_unheard(words, from_now(self.config.timeout));
    }

    /// The same again and again until there is a reply, within that time.
    pub(super) async fn insist(&self, words: &[&[u8]]) -> Option<Value> {
        let until = from_now(self.config.timeout);
        loop {
            if let Ok(Ok(told)) = self.send_unheard(words, until).await {
                return Some(told);
            }
            if Instant::now() >= until {
                return None;
            }
            sleep(jittered(INSIST_PAUSE)).await;
        }
    }

    /// Sends a request that takes no place among those that may be under way.
    fn send_unheard(
        &self,
        words: &[&[u8]],
        until: Instant,
    ) -> oneshot::Receiver<Result<Value, ClientError>> {
        let mut request = Vec::new();
        push_request(words, &mut request);
        let (reply, replied) = oneshot::channel();
        let _the_runtime_may_have_ended = self.calls.send(Call {
            request,
            sent: Sent::default(),
            reply,
            _place: None,
            unheard_until: Some(until),
        });
        replied
    }

    /// The runtime that the client lives in.
    pub(super) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    async fn ask(&self, request: Vec<u8>, sent: &Sent) -> Result<Value, ClientError> {
        let place = Arc::clone(&self.places).acquire_owned().await;
        let place = place.map_err(|_| ClientError::Ended)?;
        let (reply, replied) = oneshot::channel();
        let call = Call {
            request,
            sent: sent.clone(),
            reply,
            _place: Some(place),
            unheard_until: None,
        };
        self.calls.send(call).map_err(|_| ClientError::Ended)?;
        replied.await.map_err(|_| ClientError::Ended)?
    }

    /// Why there is no reply yet.
    pub(super) fn too_late(&self) -> ClientError {
        let failure = self.failure.lock().clone();
        failure.unwrap_or(ClientError::Timeout)
    }
}

/// The task.
struct Driver {
    config: Arc<ClientConfig>,
    called: mpsc::UnboundedReceiver<Call>,
    /// Calls that wait for a connection.
    unsent: VecDeque<Call>,
    failure: Arc<Mutex<Option<ClientError>>>,
}

impl Driver {
    /// Ends when no client is left.
    async fn drive(mut self) {
        let mut backoff = Backoff::new(&self.config);
        loop {
            while let Ok(call) = self.called.try_recv() {
                self.unsent.push_back(call);
            }
            // Who gave up is not waited for.
            self.unsent.retain(Call::is_wanted);
            if self.unsent.is_empty() {
                match self.called.recv().await {
                    None => return,
                    Some(call) => self.unsent.push_back(call),
                }
            }
            match connect(&self.config).await {
                Ok(stream) => {
                    *self.failure.lock() = None;
                    if Conversation::new(&mut self)
                        .hold(stream, &mut backoff)
                        .await
                    {
                        return;
                    }
                }
                Err(error) => {
                    if let ClientError::Refused { .. } = &error {
                        // It is there, and loads its log or has no place yet.
                        backoff.stay_below(REFUSAL_PAUSE);
                    }
                    if !error.is_transient() {
                        // To wait is of no use, so nobody does.
                        for call in self.unsent.drain(..) {
                            call.fail(error.clone());
                        }
                    }
                    *self.failure.lock() = Some(error);
                }
            }
            sleep(backoff.next()).await;
        }
    }

    /// The next call that is to be sent, if there is one.
    fn next(&mut self) -> Option<Call> {
        loop {
            let next = self.unsent.pop_front();
            let call = next.or_else(|| self.called.try_recv().ok())?;
            // In this order: who goes away now either finds it sent, or is found to be gone.
            call.sent.set(true);
            if call.is_wanted() {
                return Some(call);
            }
        }
    }
}

/// What is said on one connection.
struct Conversation<'a> {
    driver: &'a mut Driver,
    /// Calls whose requests were put into `output`, and where in the stream each begins.
    sent: VecDeque<(Call, u64)>,
    input: BytesMut,
    output: BytesMut,
    /// Bytes of requests that were written, and that were put into `output`, since it began.
    written: u64,
    put: u64,
    /// Since when a reply is due and nothing has come.
    silent_since: Instant,
}

impl<'a> Conversation<'a> {
    fn new(driver: &'a mut Driver) -> Self {
        Self {
            driver,
            sent: VecDeque::new(),
            input: BytesMut::with_capacity(RECEIVE_BYTES),
            output: BytesMut::new(),
            written: 0,
            put: 0,
            silent_since: Instant::now(),
        }
    }

    /// Sends and receives until the connection breaks (false) or no client is left.
    async fn hold(mut self, stream: Box<dyn Stream>, backoff: &mut Backoff) -> bool {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut is_open = true;
        let error = loop {
            self.put_together();
            if !is_open && self.sent.is_empty() {
                return true;
            }
            self.input.reserve(RECEIVE_BYTES);
            let due = self.silent_since + self.driver.config.timeout.min(FAR);
            tokio::select! {
                read = reader.read_buf(&mut self.input) => match read {
                    Ok(0) => break ClientError::Lost("the server closed it".to_owned()),
                    Ok(_) => match self.answer() {
                        Ok(()) => backoff.begin_anew(),
                        Err(error) => break error,
                    },
                    Err(error) => break lost(&error),
                },
                written = writer.write_buf(&mut self.output), if !self.output.is_empty() => match written {
                    Ok(bytes) => self.written += bytes as u64,
                    Err(error) => break lost(&error),
                },
                call = self.driver.called.recv(), if is_open && self.output.len() < SEND_BYTES => match call {
                    Some(call) => self.driver.unsent.push_back(call),
                    None => is_open = false,
                },
                () = sleep_until(due), if !self.sent.is_empty() => {
                    break ClientError::Lost("the server is silent".to_owned());
                }
            }
        };
        self.end(&error);
        false
    }

    /// Puts requests together that wait to be sent.
    fn put_together(&mut self) {
        while self.output.len() < SEND_BYTES {
            let Some(call) = self.driver.next() else {
                return;
            };
            if self.sent.is_empty() {
                self.silent_since = Instant::now();
            }
            self.output.extend_from_slice(&call.request);
            let begins = self.put;
            self.put += call.request.len() as u64;
            self.sent.push_back((call, begins));
        }
    }

    /// Hands whole replies to those who wait for them, in order.
    fn answer(&mut self) -> Result<(), ClientError> {
        self.silent_since = Instant::now();
        while let Some(value) = Value::take(&mut self.input)? {
            let (call, _) = self
                .sent
                .pop_front()
                .ok_or_else(|| ClientError::Protocol("a reply to nothing".to_owned()))?;
            let _the_caller_may_be_gone = call.reply.send(Ok(value));
        }
        Ok(())
    }

    /// The connection broke: calls of which something was sent fail, the others wait for the next one.
    fn end(self, error: &ClientError) {
        for (call, begins) in self.sent.into_iter().rev() {
            if begins >= self.written {
                call.sent.set(false);
                self.driver.unsent.push_front(call);
            } else {
                call.fail(error.clone());
            }
        }
    }
}

/// Longer than anything is waited for.
const FAR: Duration = Duration::from_hours(24 * 365);

/// The moment so long from now, or one that is as good as never.
pub(super) fn from_now(after: Duration) -> Instant {
    Instant::now() + after.min(FAR)
}

/// Pauses that grow.
pub(super) struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    pub(super) fn new(config: &ClientConfig) -> Self {
        Self {
            min: config.backoff_min,
            max: config.backoff_max,
            next: config.backoff_min,
        }
    }

    fn begin_anew(&mut self) {
        self.next = self.min;
    }

    fn stay_below(&mut self, most: Duration) {
        self.next = self.next.min(most);
    }

    /// Between half and all of what its turn is.
    pub(super) fn next(&mut self) -> Duration {
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
