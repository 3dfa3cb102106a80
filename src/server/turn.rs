//! A connection's turn: what it may do in one poll before its worker looks after the others.
//!
//! A client that sends as fast as it is answered always has something to read, to execute and to send,
//! so each of the three is counted, whatever was read: the time that execution takes, and bytes moved
//! either way at about what they cost, or at what it took where many were sent. Who is not done by then
//! [queues](super::queue).

use crate::limits::{SHORT_TURN_US, TURN_US};

/// Bytes that are moved in a nanosecond: to or from a socket of this machine, which is the fastest.
const BYTES_PER_NS: u64 = 2;
/// What a call to read or to send costs beside its bytes.
const CALL_NS: u64 = 2_000;
/// Bytes of requests and replies, and requests, between two looks at the clock.
const BYTES_PER_LOOK: usize = 16 << 10;
/// Requests that are executed between two looks at the clock.
pub(super) const REQUESTS_PER_LOOK: u32 = 32;

/// A turn; by default a whole one, of which nothing is used.
#[derive(Debug, PartialEq)]
pub(super) struct Turn {
    whole_ns: u64,
    /// May be more: a request that has begun is not broken off.
    used_ns: u64,
}

/// What was done since the clock was last looked at.
#[derive(Debug, Default)]
pub(super) struct SinceLook {
    requests: u32,
    bytes: usize,
}

impl Default for Turn {
    fn default() -> Self {
        Self::of_us(TURN_US)
    }
}

impl Turn {
    /// One of those that come before the others' whole ones.
    pub(super) fn short() -> Self {
        Self::of_us(SHORT_TURN_US)
    }

    pub(super) fn is_short(&self) -> bool {
        self.whole_ns <= SHORT_TURN_US * 1_000
    }

    /// Whether a short one would have done.
    pub(super) fn was_short(&self) -> bool {
        self.used_ns < SHORT_TURN_US * 1_000
    }

    pub(super) fn used_ns(&self) -> u64 {
        self.used_ns
    }

    fn of_us(us: u64) -> Self {
        Self {
            whole_ns: us * 1_000,
            used_ns: 0,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.left_ns() == 0
    }

    /// What execution that began with so much left may take at most.
    pub(super) fn left_ns(&self) -> u64 {
        self.whole_ns.saturating_sub(self.used_ns)
    }

    pub(super) fn executed(&mut self, ns: u64) {
        self.used_ns = self.used_ns.saturating_add(ns);
    }

    /// Read or sent, which took at least so long.
    pub(super) fn moved(&mut self, bytes: usize, ns: u64) {
        self.executed(ns.max(CALL_NS + bytes as u64 / BYTES_PER_NS));
    }
}

impl SinceLook {
    /// Counts a request with its reply; true if it is time to look, and then it begins anew.
    #[inline]
    pub(super) fn is_due(&mut self, bytes: usize) -> bool {
        self.requests += 1;
        self.bytes += bytes;
        let is_due = self.requests >= REQUESTS_PER_LOOK || self.bytes >= BYTES_PER_LOOK;
        if is_due {
            *self = Self::default();
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io;
    use std::pin::{Pin, pin};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll, Wake};

    use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
    use tokio::net::UnixStream;
    use tokio::sync::watch;

    use super::super::acks::tests::worker;
    use super::super::clock::Clock;
    use super::super::connection::serve;
    use super::super::runtime_of;
    use super::super::shared::{Ends, Shared};
    use super::*;
    use crate::engine::{Engine, EngineConfig};

    /// A client that sends the same request for ever, and takes whatever comes; up to so many bytes either
    /// way, so that a test of what goes on for ever ends.
    #[derive(Clone)]
    struct Loader {
        request: &'static [u8],
        moved: Arc<AtomicUsize>,
    }

    const LOADER_BYTES_MAX: usize = 256 << 20;

    impl Loader {
        fn new(request: &'static [u8]) -> Self {
            Self {
                request,
                moved: Arc::default(),
            }
        }

        fn moved(&self) -> usize {
            self.moved.load(Ordering::Relaxed)
        }
    }

    impl AsyncRead for Loader {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let whole = buffer.remaining() / self.request.len();
            if self.moved() < LOADER_BYTES_MAX {
                for _ in 0..whole {
                    buffer.put_slice(self.request);
                }
                let bytes = whole * self.request.len();
                self.moved.fetch_add(bytes, Ordering::Relaxed);
            }
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Loader {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.moved.fetch_add(bytes.len(), Ordering::Relaxed);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn shared() -> Arc<Shared> {
        let engine = Engine::new(EngineConfig::default());
        Arc::new(Shared::new(engine, Clock::start(), Vec::new(), 0, 1))
    }

    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Bytes that a turn moves at most, and one more read and write.
    const BYTES_MAX: usize = (TURN_US * 1_000 * BYTES_PER_NS) as usize + (1 << 20);

    #[test]
    fn a_poll_ends_however_much_there_is_to_read_execute_and_send() {
        let shared = shared();
        let value = "v".repeat(32 << 10);
        let mut setter = Loader::new(b"");
        setter.request = Vec::leak(
            format!(
                "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${}\r\n{value}\r\n",
                value.len()
            )
            .into_bytes(),
        );
        let requests = [
            &b"PING\n"[..],
            b"MSEEN 1h a b c d e f g h i j k l m n o p q r s t u v w x y z\n",
            // One of nothing but what is thrown away, and one whose answer has 32 KiB.
            b"\r\n",
            b"COMPLETE k 1 LEN 9\n123456789\n",
            setter.request,
            b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n",
        ];
        for request in requests {
            let bytes_min = 20 * request.len();
            let name = String::from_utf8_lossy(&request[..request.len().min(20)]);
            let loader = Loader::new(request);
            let (_drain, draining) = watch::channel(false);
            let mut conversation = Box::pin(serve(
                loader.clone(),
                Ends::default(),
                Arc::clone(&shared),
                0,
                draining,
            ));
            let woken = Arc::new(Woken(AtomicUsize::new(0)));
            let waker = Arc::clone(&woken).into();
            let mut cx = Context::from_waker(&waker);
            for poll in 1..=20 {
                let before = loader.moved();
                assert!(conversation.as_mut().poll(&mut cx).is_pending());
                let moved = loader.moved() - before;
                assert!(moved <= BYTES_MAX, "{name}: {moved} bytes in one poll");
                let woken = woken.0.load(Ordering::Relaxed);
                assert!(woken >= poll, "{name}: nobody goes on with it");
            }
            assert!(loader.moved() > bytes_min, "{name}: nothing was done");
        }
    }

    const LOADERS: usize = 40;

    /// How many turns of such loaders one client sees between a request and its reply: the median of many.
    ///
    /// The client is a task of the same worker, so that no other thread is waited for and a busy machine
    /// changes nothing.
    fn turns_waited(
        shared: &Arc<Shared>,
        loader: &'static [u8],
        (request, reply): (&str, &str),
    ) -> usize {
        const ROUNDS: usize = 51;
        let turns = Arc::new(AtomicUsize::new(0));
        let runtime = runtime_of(0, shared).unwrap();
        let mut waited = runtime.block_on(async {
            let (_drain, draining) = watch::channel(false);
            for _ in 0..LOADERS {
                let (shared, draining) = (Arc::clone(shared), draining.clone());
                let (loader, turns) = (Loader::new(loader), Arc::clone(&turns));
                tokio::spawn(async move {
                    let mut conversation =
                        pin!(serve(loader, Ends::default(), shared, 0, draining));
                    poll_fn(|cx| {
                        turns.fetch_add(1, Ordering::Relaxed);
                        conversation.as_mut().poll(cx)
                    })
                    .await;
                });
            }
            let (mut far, near) = UnixStream::pair().unwrap();
            tokio::spawn(serve(
                near,
                Ends::default(),
                Arc::clone(shared),
                0,
                draining,
            ));
            let mut waited = Vec::new();
            for round in 0..ROUNDS {
                let request = request.replace("ROUND", &round.to_string());
                let before = turns.load(Ordering::Relaxed);
                far.write_all(request.as_bytes()).await.unwrap();
                let mut answer = vec![0; reply.len()];
                far.read_exact(&mut answer).await.unwrap();
                waited.push(turns.load(Ordering::Relaxed) - before);
                assert_eq!(answer, reply.as_bytes());
            }
            waited
        });
        waited.sort_unstable();
        waited[ROUNDS / 2]
    }

    /// The turn that is under way and one more, and once more the same; not one of each loader.
    const TURNS_MAX: usize = 4;

    #[test]
    fn who_asks_once_does_not_wait_for_each_other() {
        let loader = b"MSEEN 1h a b c d e f g h i j k l m n o p q r s t u v w x y z\n";
        let waited = turns_waited(&shared(), loader, ("PING\n", "PONG\n"));
        assert!(waited <= TURNS_MAX, "{waited} turns");
    }

    /// The log is written when a worker has nothing more to do, and that may never be.
    #[test]
    fn a_worker_that_never_rests_has_the_log_written() {
        let shared = Arc::new(worker("busy").0);
        // Nothing is told to such a client, so it waits for no log.
        let loader = b"*3\r\n$6\r\nCLIENT\r\n$5\r\nREPLY\r\n$3\r\nOFF\r\n";
        let waited = turns_waited(&shared, loader, ("SEEN kROUND 1h\n", "NEW\n"));
        assert!(waited <= TURNS_MAX, "{waited} turns");
    }
}
