//! One connection: keeps its share of requests in flight and takes in the replies.
//!
//! Everything a write can carry goes out in one write, everything that has arrived comes in with
//! one read; clocks are read and latencies recorded per batch, not per request. The connections
//! of a thread share a [`Worker`] without locks, because they never run at the same time.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use anyhow::anyhow;
use hdrhistogram::Histogram;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Plan;
use super::protocol::Encoder;
use super::reply::{Decoder, REPLY_BYTES_MAX, Tally, excerpt};
use super::schedule::{Cursor, InFlight, Lateness, Phase, Schedule, Sent, Timeline};
use super::workload::KeyStream;

/// No more is encoded ahead of a write than this (plus one request). Large enough that a write
/// carries a full pipeline of single keys, small enough to stay in the cache.
const OUT_BYTES_MAX: usize = 128 * 1024;

/// What a thread, or a run, has measured.
#[derive(Debug)]
pub(super) struct Outcome {
    /// Requests past the warm-up and their replies.
    pub(super) measured: Tally,
    /// Requests of the warm-up and their replies.
    pub(super) warmup: Tally,
    /// Latencies past the warm-up, in nanoseconds.
    pub(super) latency_ns: Histogram<u64>,
    /// How well a fixed rate was kept.
    pub(super) lateness: Lateness,
    /// When the last counted reply came, since the start of the run.
    pub(super) last_reply_ns: u64,
}

impl Outcome {
    /// Nothing measured yet.
    pub(super) fn new() -> Self {
        const LATENCY_NS_MAX: u64 = 3_600_000_000_000;
        Self {
            measured: Tally::default(),
            warmup: Tally::default(),
            latency_ns: Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3)
                .expect("an hour in nanoseconds at three digits is within what it can hold"),
            lateness: Lateness::default(),
            last_reply_ns: 0,
        }
    }

    /// Takes in what another thread has measured.
    pub(super) fn merge(&mut self, other: Self) {
        self.measured += other.measured;
        self.warmup += other.warmup;
        self.latency_ns
            .add(other.latency_ns)
            .expect("all histograms have the same bounds");
        self.lateness.merge(other.lateness);
        self.last_reply_ns = self.last_reply_ns.max(other.last_reply_ns);
    }

    fn tally(&mut self, counted: bool) -> &mut Tally {
        if counted {
            &mut self.measured
        } else {
            &mut self.warmup
        }
    }
}

/// What the connections of one thread share.
pub(super) struct Worker {
    plan: Arc<Plan>,
    encoder: Encoder,
    decoder: Decoder,
    timeline: Timeline,
    schedule: Option<Schedule>,
    started: Instant,
    state: RefCell<WorkerState>,
    /// Requests unanswered, over all connections of the thread.
    in_flight: Cell<usize>,
    replies: Cell<u64>,
    /// Counted replies of all threads, for the progress bar.
    progress: Arc<AtomicU64>,
    /// Where the pacer finds the task of each connection.
    wakers: RefCell<Vec<Option<Waker>>>,
}

struct WorkerState {
    keys: KeyStream,
    /// Counted requests still to be sent in a closed loop.
    requests_left: u64,
    outcome: Outcome,
}

impl Worker {
    /// The worker of thread number `thread`, which has `connections` connections and begins its
    /// run at `started`.
    pub(super) fn new(
        plan: Arc<Plan>,
        thread: usize,
        connections: usize,
        started: Instant,
        progress: Arc<AtomicU64>,
    ) -> Self {
        let timeline = plan.timeline();
        let (thread, threads) = (thread as u64, plan.threads as u64);
        let requests = plan.requests.unwrap_or(u64::MAX);
        let requests_left = requests / threads + u64::from(thread < requests % threads);
        Self {
            encoder: Encoder::new(&plan.form),
            decoder: Decoder::new(&plan.form),
            schedule: plan.schedule(),
            timeline,
            started,
            state: RefCell::new(WorkerState {
                keys: KeyStream::new(plan.shape, plan.draw, plan.seed, thread, threads),
                requests_left,
                outcome: Outcome::new(),
            }),
            in_flight: Cell::new(0),
            replies: Cell::new(0),
            progress,
            wakers: RefCell::new(vec![None; connections]),
            plan,
        }
    }

    /// Nanoseconds since the start of the run.
    pub(super) fn now_ns(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    /// The schedule, when the run has a fixed rate.
    pub(super) fn schedule(&self) -> Option<Schedule> {
        self.schedule
    }

    /// Requests unanswered, over all connections of the thread.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.get()
    }

    /// Replies so far, over all connections of the thread.
    pub(super) fn replies(&self) -> u64 {
        self.replies.get()
    }

    /// Lets connection number `connection` of the thread look at the clock.
    pub(super) fn wake(&self, connection: usize) {
        if let Some(waker) = &self.wakers.borrow()[connection] {
            waker.wake_by_ref();
        }
    }

    /// Hands over what was measured and leaves nothing behind.
    pub(super) fn take_outcome(&self) -> Outcome {
        std::mem::replace(&mut self.state.borrow_mut().outcome, Outcome::new())
    }

    fn register(&self, connection: usize, waker: &Waker) {
        let slot = &mut self.wakers.borrow_mut()[connection];
        if !slot.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *slot = Some(waker.clone());
        }
    }
}

impl WorkerState {
    /// Appends `requests` requests to `out`, or fewer once it is full; returns how many.
    fn encode(
        &mut self,
        encoder: &Encoder,
        requests: u64,
        counted: bool,
        out: &mut Vec<u8>,
    ) -> u64 {
        let fresh_before = self.keys.fresh();
        let mut done = 0;
        while done < requests && out.len() < OUT_BYTES_MAX {
            encoder.write_request(&mut self.keys, out);
            done += 1;
        }
        let fresh = self.keys.fresh().zip(fresh_before);
        let tally = self.outcome.tally(counted);
        tally.requests += done;
        tally.keys_fresh += fresh.map_or(0, |(after, before)| after - before);
        done
    }
}

/// One connection and the requests on it.
pub(super) struct Connection<S> {
    stream: S,
    worker: Rc<Worker>,
    /// Its number within the thread.
    index: usize,
    /// Its way through the schedule of a fixed rate; `None` in a closed loop.
    cursor: Option<Cursor>,
    out: Vec<u8>,
    out_written: usize,
    /// Something kept the last refill from sending all that it could.
    refill_again: bool,
    inbox: Box<[u8]>,
    inbox_len: usize,
    in_flight: InFlight,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Connection number `index` of the thread; `cursor` is its part in a fixed rate.
    pub(super) fn new(stream: S, worker: Rc<Worker>, index: usize, cursor: Option<Cursor>) -> Self {
        Self {
            stream,
            worker,
            index,
            cursor,
            out: Vec::new(),
            out_written: 0,
            refill_again: false,
            inbox: vec![0; REPLY_BYTES_MAX].into_boxed_slice(),
            inbox_len: 0,
            in_flight: InFlight::default(),
        }
    }

    /// Sends and receives until this connection's part of the run is done.
    pub(super) async fn drive(mut self) -> anyhow::Result<()> {
        loop {
            self.refill();
            if self.is_done() {
                return Ok(());
            }
            poll_fn(|cx| self.poll_step(cx)).await?;
        }
    }

    /// Encodes every request that may be sent now, unless an earlier write is still under way:
    /// a request that cannot be written is not sent, and its clock must not start.
    fn refill(&mut self) {
        if !self.out.is_empty() {
            return;
        }
        self.refill_again = false;
        let room = self.worker.plan.pipeline - self.in_flight.requests();
        if room == 0 {
            return;
        }
        let before = self.in_flight.requests();
        match self.worker.schedule {
            None => self.refill_closed_loop(room as u64),
            Some(schedule) => self.refill_scheduled(&schedule, room),
        }
        let sent = self.in_flight.requests() - before;
        self.worker
            .in_flight
            .set(self.worker.in_flight.get() + sent);
        self.refill_again = self.out.len() >= OUT_BYTES_MAX;
    }

    fn refill_closed_loop(&mut self, room: u64) {
        let worker = &*self.worker;
        let state = &mut *worker.state.borrow_mut();
        let (counted, requests) = match worker.timeline.phase(worker.now_ns()) {
            Phase::Warmup => (false, room),
            Phase::Measured => (true, room.min(state.requests_left)),
            Phase::Over => return,
        };
        let encoded = state.encode(&worker.encoder, requests, counted, &mut self.out);
        if counted {
            state.requests_left -= encoded;
        }
        if encoded > 0 {
            self.in_flight.push(Sent {
                since_ns: worker.now_ns(),
                requests: encoded as usize,
                counted,
            });
        }
    }

    fn refill_scheduled(&mut self, schedule: &Schedule, room: usize) {
        let worker = &*self.worker;
        let Some(cursor) = &mut self.cursor else {
            return;
        };
        let state = &mut *worker.state.borrow_mut();
        let now_ns = worker.now_ns();
        for _ in 0..room {
            if self.out.len() >= OUT_BYTES_MAX {
                return;
            }
            let Some(due) = cursor.take_due(schedule, now_ns) else {
                return;
            };
            state.encode(&worker.encoder, 1, due.counted, &mut self.out);
            state.outcome.lateness.record(due, now_ns);
            self.in_flight.push(Sent {
                since_ns: due.intended_ns,
                requests: 1,
                counted: due.counted,
            });
        }
    }

    /// Right after a refill: nothing unanswered, and nothing that will ever become due.
    fn is_done(&self) -> bool {
        let schedule_is_through = match (&self.cursor, &self.worker.schedule) {
            (Some(cursor), Some(schedule)) => cursor.next_ns(schedule).is_none(),
            _ => true,
        };
        self.in_flight.requests() == 0 && schedule_is_through
    }

    /// Ready when something happened after which a refill may send more.
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<anyhow::Result<()>> {
        self.poll_flush(cx)?;
        if self.out.is_empty() && (self.refill_again || self.has_due()) {
            return Poll::Ready(Ok(()));
        }
        if self.poll_receive(cx)?.is_ready() {
            return Poll::Ready(Ok(()));
        }
        if self.cursor.is_some() {
            self.worker.register(self.index, cx.waker());
        }
        Poll::Pending
    }

    fn has_due(&self) -> bool {
        match (&self.cursor, &self.worker.schedule) {
            (Some(cursor), Some(schedule)) => {
                self.in_flight.requests() < self.worker.plan.pipeline
                    && cursor.is_due(schedule, self.worker.now_ns())
            }
            _ => false,
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Result<(), anyhow::Error> {
        while self.out_written < self.out.len() {
            let rest = &self.out[self.out_written..];
            match Pin::new(&mut self.stream).poll_write(cx, rest) {
                Poll::Ready(Ok(0)) => return Err(self.lost("it takes no more bytes")),
                Poll::Ready(Ok(written)) => self.out_written += written,
                Poll::Ready(Err(error)) => return Err(self.lost(&error.to_string())),
                Poll::Pending => {
                    self.refill_again = true;
                    return Ok(());
                }
            }
        }
        self.out.clear();
        self.out_written = 0;
        Ok(())
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<anyhow::Result<()>> {
        let mut buffer = ReadBuf::new(&mut self.inbox[self.inbox_len..]);
        match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => Poll::Ready(Err(self.lost(&error.to_string()))),
            Poll::Ready(Ok(())) => {
                let received = buffer.filled().len();
                if received == 0 {
                    return Poll::Ready(Err(self.lost("the server closed it")));
                }
                self.inbox_len += received;
                Poll::Ready(self.take_replies())
            }
        }
    }

    /// Counts every complete reply in the inbox and moves the rest to its front.
    fn take_replies(&mut self) -> anyhow::Result<()> {
        let worker = &*self.worker;
        let now_ns = worker.now_ns();
        let outcome = &mut worker.state.borrow_mut().outcome;
        let (mut at, mut replies, mut replies_counted) = (0, 0, 0);
        while let Some(sent) = self.in_flight.oldest() {
            let bytes = &self.inbox[at..self.inbox_len];
            let taken = worker
                .decoder
                .count(bytes, sent.requests, outcome.tally(sent.counted))?;
            at += taken.bytes;
            self.in_flight.answer_oldest(taken.replies);
            replies += taken.replies;
            if sent.counted && taken.replies > 0 {
                replies_counted += taken.replies as u64;
                let latency_ns = now_ns.saturating_sub(sent.since_ns);
                outcome
                    .latency_ns
                    .saturating_record_n(latency_ns, taken.replies as u64);
            }
            if taken.replies < sent.requests {
                break;
            }
        }
        if replies_counted > 0 {
            outcome.last_reply_ns = now_ns;
            worker
                .progress
                .fetch_add(replies_counted, Ordering::Relaxed);
        }
        worker.in_flight.set(worker.in_flight.get() - replies);
        worker.replies.set(worker.replies.get() + replies as u64);
        if self.in_flight.requests() == 0 && at < self.inbox_len {
            let extra = excerpt(&self.inbox[at..self.inbox_len]);
            return Err(anyhow!(
                "{} sent more replies than it got requests: '{extra}'",
                worker.plan.server
            ));
        }
        self.inbox.copy_within(at..self.inbox_len, 0);
        self.inbox_len -= at;
        Ok(())
    }

    fn lost(&self, why: &str) -> anyhow::Error {
        let outcome = &self.worker.state.borrow().outcome;
        let first_error = outcome.warmup.first_error.as_ref();
        let said = first_error
            .or(outcome.measured.first_error.as_ref())
            .map_or(String::new(), |text| format!("; its first error: {text}"));
        anyhow!(
            "lost a connection to {} after {} replies, with {} requests on it unanswered: {why}{said}",
            self.worker.plan.server,
            self.worker.replies.get(),
            self.in_flight.requests(),
        )
    }
}
