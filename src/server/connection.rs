//! One connection's bytes: read, decode all, execute all, one write.
//!
//! A worker's connections share one read buffer, borrowed only while a connection is being polled,
//! and a few write buffers, borrowed while there are replies; an idle connection holds neither. Bytes
//! of an unfinished request and replies that the client has not taken yet are the connection's own,
//! bounded and counted in the server's budget.
//!
//! While a client leaves more replies unread than the limit, nothing more is read from it or
//! executed for it; after the timeout it is closed. The same holds for a request that stays
//! unfinished. Where the server ends a conversation it first sends what it has to say, then
//! stops sending, and reads on for a moment, so that the last reply is not lost to a reset.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use super::acks::{self, Rest};
use super::batch::Batch;
use super::client::{After, Client, Exchange};
use super::clock::Reading;
use super::held::{Asked, Held};
use super::intake::{Found, Intake};
use super::longest;
use super::output::Output;
use super::queue::{self, Place};
use super::shared::{Ends, Shared};
use super::spares::Spares;
use super::turn::{SinceLook, Turn};
use crate::command::spec::ends_work;
use crate::command::{Code, Error};
use crate::limits::REPLY_BYTES_SMALL;
use crate::wire::{Decoded, Decoder};

/// Bytes that one read takes at most.
const READ_BYTES: usize = 64 << 10;
/// Bytes of an unfinished request that are kept while memory is short.
const UNFINISHED_WHEN_SHORT: usize = 16 << 10;
/// Unread replies that are allowed while memory is short.
const UNREAD_WHEN_SHORT: usize = 64 << 10;
/// Bytes of replies after which others' memory is looked at again.
const UNREAD_AT_ONCE: usize = 256 << 10;
/// Replies that are sent whether the turn is over or not: who is told little is told with its turn.
const SENT_AT_ONCE: usize = 16 << 10;
/// Bytes that one write takes at most: the system would take megabytes, and others wait meanwhile.
const WRITE_BYTES_MAX: usize = 256 << 10;
/// The same where others are known to wait: to a client of this machine that reads little at a time, these are half a
/// millisecond.
const WRITE_BYTES_WHILE_OTHERS_WAIT: usize = 64 << 10;
/// How long a closing connection is read from, so that its last reply arrives.
const LINGER: Duration = Duration::from_secs(1);

/// What a worker's connections share.
struct Scratch {
    read: Box<[u8]>,
    write: Spares,
    batch: Batch,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch { read: vec![0; READ_BYTES].into(), write: Spares::default(), batch: Batch::default() });
}

/// How a conversation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The client went away, or the connection broke.
    Gone,
    /// The server has said all it has to say.
    Finished,
}

/// Why a connection is not waiting for requests as usual.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// The client sends no more; what it sent is answered.
    HalfClosed,
    /// Nothing more is executed.
    Closing,
}

/// Why whole requests may be left in `input`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// There are none.
    Nothing,
    /// The turn was over, or the client had too many replies unread, or those that are held come first.
    Requests,
    /// The turn was over within the first one; nothing else is executed before it is done.
    Unfinished,
    /// More changes wait to be written than may; within the first one, perhaps.
    Unwritten { is_under_way: bool },
}

impl Left {
    /// Whether nothing else is executed before the first one is done.
    fn is_under_way(self) -> bool {
        matches!(
            self,
            Self::Unfinished | Self::Unwritten { is_under_way: true }
        )
    }

    /// Why a request that was answered so is left; there is no reason if it is not.
    fn of(after: After, is_under_way: bool) -> Self {
        match after {
            After::Unwritten => Self::Unwritten { is_under_way },
            After::Unfinished => Self::Unfinished,
            After::EndWaiting => Self::Requests,
            _ => Self::Nothing,
        }
    }
}

struct Connection<S> {
    stream: S,
    shared: Arc<Shared>,
    worker: usize,
    client: Client,
    decoder: Decoder,
    /// Received and not executed yet.
    input: Vec<u8>,
    /// Encoded and not sent yet; of that, what is not released waits for the log.
    output: Output,
    /// What that waits for.
    rest: Rest,
    /// Requests whose replies are held, and the replies behind them.
    held: Held,
    left: Left,
    /// What this poll may still do.
    turn: Turn,
    /// Where it waits, if its turn was too short.
    place: Place,
    /// Whether it was.
    waits_for_turn: bool,
    phase: Phase,
    draining: bool,
    /// Wakes this connection.
    waker: Waker,
    /// Whether the last execution came to the end of a request.
    progressed: bool,
    /// Since when a request has been unfinished.
    unfinished_since: Option<Instant>,
    /// Since when the client has left too many replies unread.
    stalled_since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    /// What lets it read on while memory is short.
    intake: Intake,
    /// Bytes of buffers that are counted in the budget.
    counted_bytes: usize,
    /// The same of replies, and of queued commands.
    counted_replies: usize,
    counted_queued: usize,
}

/// Converses with a client until either side ends it.
pub(super) async fn serve<S>(
    stream: S,
    ends: Ends,
    shared: Arc<Shared>,
    worker: usize,
    mut drain: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut connection = Connection::new(stream, ends, shared, worker);
    let end = tokio::select! {
        biased;
        end = poll_fn(|cx| connection.poll(cx)) => Some(end),
        _ = drain.wait_for(|drain| *drain) => None,
    };
    let end = match end {
        Some(end) => end,
        None => connection.drain().await,
    };
    if end == End::Finished && connection.phase == Phase::Closing {
        connection.linger().await;
    }
}

impl<S> Connection<S> {
    fn new(stream: S, ends: Ends, shared: Arc<Shared>, worker: usize) -> Self {
        let client = Client::new(Arc::clone(&shared), ends, shared.clock.read().now);
        Self {
            stream,
            shared,
            worker,
            client,
            decoder: Decoder::default(),
            input: Vec::new(),
            output: Output::default(),
            rest: Rest::default(),
            held: Held::default(),
            left: Left::Nothing,
            phase: Phase::Open,
            draining: false,
            waker: Waker::noop().clone(),
            turn: Turn::default(),
            place: Place::default(),
            waits_for_turn: false,
            progressed: false,
            unfinished_since: None,
            stalled_since: None,
            timer: None,
            intake: Intake::default(),
            counted_bytes: 0,
            counted_replies: 0,
            counted_queued: 0,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Answers what has come, and waits for nothing more.
    async fn drain(&mut self) -> End {
        self.draining = true;
        poll_fn(|cx| self.poll(cx)).await
    }

    /// Does all that can be done without waiting.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.client.go_on();
        let result =
            longest::turn(|| SCRATCH.with_borrow_mut(|scratch| self.poll_with(scratch, cx)));
        self.client.rest();
        self.count_buffers();
        result
    }

    /// Goes on later.
    fn wait_for_turn<T>(&mut self) -> Poll<T> {
        self.waits_for_turn = true;
        Poll::Pending
    }

    fn poll_with(&mut self, scratch: &mut Scratch, cx: &mut Context<'_>) -> Poll<End> {
        if !self.output.has_buffer() {
            self.output.lend(scratch.write.take());
        }
        let result = self.poll_exchange(&mut scratch.read, &mut scratch.batch, cx);
        if self.output.is_empty() {
            scratch.write.keep(self.output.give_back());
        }
        result
    }

    fn poll_exchange(
        &mut self,
        read: &mut [u8],
        batch: &mut Batch,
        cx: &mut Context<'_>,
    ) -> Poll<End> {
        if !self.waker.will_wake(cx.waker()) {
            self.waker = cx.waker().clone();
            self.client.info.set_waker(&self.waker);
        }
        let has_waited = self.place.is_taken();
        let Some(turn) = self.place.turn(cx) else {
            return Poll::Pending;
        };
        let before = std::mem::replace(&mut self.turn, turn);
        if before.is_over() || has_waited && !self.turn.is_short() {
            // The others have had theirs since, but the worker does not rest while one always goes on.
            acks::end_turn(&self.shared, self.worker);
        }
        let result = self.poll_turn(read, batch, cx);
        let is_done = !std::mem::take(&mut self.waits_for_turn);
        self.place.took(&self.turn, is_done, cx);
        result
    }

    /// Does what can be done, until the turn is over.
    fn poll_turn(&mut self, read: &mut [u8], batch: &mut Batch, cx: &mut Context<'_>) -> Poll<End> {
        if self.client.info.is_killed() {
            return Poll::Ready(End::Gone);
        }
        loop {
            match self.poll_send(cx) {
                Poll::Ready(Err(_)) => return Poll::Ready(End::Gone),
                Poll::Ready(Ok(())) if !self.output.is_released_sent() => {
                    return self.wait_for_turn();
                }
                Poll::Ready(Ok(())) if self.unread() > 0 => {
                    ready!(self.poll_released(cx));
                    continue;
                }
                Poll::Ready(Ok(())) if self.phase == Phase::Closing && self.held.is_empty() => {
                    return Poll::Ready(End::Finished);
                }
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
            if !self.held.is_empty() && !self.left.is_under_way() && ready!(self.poll_settled(cx)) {
                continue;
            }
            if self.phase == Phase::Closing || self.unread() > self.unread_max() {
                return self.poll_stalled(cx);
            }
            self.stalled_since = None;
            if self.turn.is_over() {
                return self.wait_for_turn();
            }
            match self.left {
                Left::Nothing => {}
                Left::Requests | Left::Unfinished => {
                    self.take_in(&[], batch);
                    continue;
                }
                Left::Unwritten { .. } => {
                    ready!(self.poll_log_room(cx));
                    self.take_in(&[], batch);
                    continue;
                }
            }
            if self.phase == Phase::HalfClosed {
                self.finish_input();
                continue;
            }
            let bytes_max = ready!(self.poll_intake(cx));
            if self.phase != Phase::Open {
                continue;
            }
            match self.poll_read(&mut read[..bytes_max], cx) {
                Poll::Ready(Err(_)) => return Poll::Ready(End::Gone),
                Poll::Ready(Ok(0)) => self.phase = Phase::HalfClosed,
                Poll::Ready(Ok(n)) => {
                    self.shared.engine.metrics().bytes_in.add(n as u64);
                    self.turn.moved(n, 0);
                    self.take_in(&read[..n], batch);
                }
                Poll::Pending if self.draining => self.finish_input(),
                Poll::Pending => return self.poll_unfinished(cx),
            }
        }
    }

    /// Asks those whose replies are held once they are due, or for the last time, and appends what is settled;
    /// whether there was any.
    fn poll_settled(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        ready!(self.poll_log_room(cx));
        let nobody_may_hear = self.draining || self.phase != Phase::Open;
        if nobody_may_hear || self.waiting_bytes() > self.waiting_max() {
            self.held.end();
        }
        let began = self.shared.clock.read();
        let time = (&began, self.turn.left_ns());
        let asked = self.held.ask(&mut self.client, time, &self.waker);
        let has_settled = self.held.append_settled(&mut self.output, &mut self.rest);
        self.executed(&began);
        if has_settled {
            self.write_soon();
        }
        if asked == Asked::Unfinished {
            return self.wait_for_turn();
        }
        let is_due = self.held.poll_due(began.now, cx).is_ready();
        Poll::Ready(has_settled || is_due)
    }

    /// Sends until all that may be is sent, or the turn is over (ready), or the client takes no more.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.output.is_released_sent() {
            let is_small = self.unread() <= SENT_AT_ONCE;
            if self.turn.is_over() && !is_small {
                break;
            }
            // What it takes depends on how the client takes it.
            let began = (!is_small).then(|| self.shared.clock.read());
            let bytes_max = if !is_small && queue::others_wait() {
                WRITE_BYTES_WHILE_OTHERS_WAIT
            } else {
                WRITE_BYTES_MAX
            };
            let n = ready!(self.output.poll_write(&mut self.stream, bytes_max, cx))?;
            self.turn
                .moved(n, began.map_or(0, |began| began.elapsed_ns()));
            self.shared.engine.metrics().bytes_out.add(n as u64);
        }
        Poll::Ready(Ok(()))
    }

    /// Waits until the log has what the replies rest on that are held back; what will never be there is
    /// taken back.
    fn poll_released(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(log) = self.shared.engine.log() {
            let rest = self.rest;
            if !rest.is_settled(log) {
                if rest.is_synced {
                    log.want_sync();
                }
                let signal = &self.shared.signals[self.worker];
                if !signal.wait(rest, log, cx.waker()) {
                    return Poll::Pending;
                }
            }
            if !rest.is_good(log) {
                let replies = self.output.truncate_to_released();
                self.client.take_back(replies, &mut self.output);
            }
        }
        self.output.release();
        self.rest = Rest::default();
        Poll::Ready(())
    }

    /// Waits while more changes wait to be written than may.
    fn poll_log_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(log) = self.shared.engine.log()
            && let Some(position) = log.behind()
        {
            let rest = Rest {
                position,
                is_synced: false,
            };
            if !self.shared.signals[self.worker].wait(rest, log, cx.waker()) {
                return Poll::Pending;
            }
        }
        Poll::Ready(())
    }

    fn poll_read(&mut self, read: &mut [u8], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(read);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }

    fn unread(&self) -> usize {
        self.output.unread()
    }

    /// Bytes that the client has not read, and those that wait behind a held reply.
    fn waiting_bytes(&self) -> usize {
        self.unread() + self.held.waiting_bytes()
    }

    /// How much that may be. Where not even one may stay unread, those of a few requests are sent together all
    /// the same.
    fn waiting_max(&self) -> usize {
        self.unread_max().max(REPLY_BYTES_SMALL)
    }

    fn unread_max(&self) -> usize {
        let max = self.shared.engine.limits().unread_bytes_max;
        let budget = self.shared.engine.budget();
        if budget.admits(max as isize) {
            max
        } else if budget.admits_reply(UNREAD_WHEN_SHORT as isize) {
            UNREAD_WHEN_SHORT.min(max)
        } else {
            0
        }
    }

    /// Executes what was received; what is left of it waits for more.
    fn take_in(&mut self, received: &[u8], batch: &mut Batch) {
        if self.input.is_empty() {
            let consumed = self.execute(received, batch);
            self.input.extend_from_slice(&received[consumed..]);
        } else {
            let mut input = std::mem::take(&mut self.input);
            self.make_room(&mut input, received.len());
            input.extend_from_slice(received);
            let consumed = self.execute(&input, batch);
            input.drain(..consumed);
            self.input = input;
        }
        self.decoder.rest();
        self.input_changed();
        if self.input.len() <= UNFINISHED_WHEN_SHORT {
            self.intake.give_up();
        }
        if self.unread() > UNREAD_WHEN_SHORT || self.left.is_under_way() {
            // What others may take of the memory is less from here on.
            self.count_buffers();
        }
    }

    /// Makes room as a buffer that grows does, but none that a request cannot come to need.
    fn make_room(&self, input: &mut Vec<u8>, more: usize) {
        let needed = input.len() + more;
        if needed > input.capacity() {
            let max = self.shared.engine.limits().request_bytes_max + READ_BYTES;
            let room = needed.max((2 * input.capacity()).min(max));
            input.reserve_exact(room - input.len());
        }
    }

    /// How many bytes may be read. While there is no memory for more of an unfinished request that is waited for,
    /// but not for ever.
    fn poll_intake(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        let budget = self.shared.engine.budget();
        let unfinished = self.input.len();
        let all = READ_BYTES as isize;
        let free = if budget.admits(all) {
            Some(READ_BYTES)
        } else if unfinished <= UNFINISHED_WHEN_SHORT {
            Some(UNFINISHED_WHEN_SHORT + 1 - unfinished)
        } else if budget.admits_of_reserve(all) && ends_work(self.decoder.verb_of(&self.input)) {
            // What ends work that was begun may take of what is kept back for that.
            Some(READ_BYTES)
        } else {
            None
        };
        if let Some(bytes) = free {
            self.intake.give_up();
            return Poll::Ready(bytes);
        }
        let found = self.intake.ask(cx, Instant::now());
        if found == Found::Room {
            return Poll::Ready(READ_BYTES);
        }
        if let Found::Taken(ask_again) = found {
            if self.draining {
                self.finish_input();
                return Poll::Ready(0);
            }
            let timeout = Duration::from_millis(self.shared.engine.limits().request_timeout_ms);
            let since = *self.unfinished_since.get_or_insert_with(Instant::now);
            ready!(self.poll_timer(ask_again.min(since + timeout), cx));
            if since + timeout > Instant::now() {
                return self.poll_intake(cx);
            }
        }
        self.close_with(Error::new(
            Code::Full,
            "no memory for more of this request; closing",
        ));
        Poll::Ready(0)
    }

    fn input_changed(&mut self) {
        if self.input.is_empty() {
            self.input = Vec::new();
        }
        if self.input.is_empty() && !self.decoder.is_discarding() {
            self.unfinished_since = None;
        } else if self.progressed || self.unfinished_since.is_none() {
            self.unfinished_since = Some(Instant::now());
        }
    }

    /// Executes the whole requests at the beginning of `input`; returns how many bytes they are.
    fn execute(&mut self, input: &[u8], batch: &mut Batch) -> usize {
        let began = self.shared.clock.read();
        let had_doubts = self.shared.has_doubts();
        let mut reading = began;
        let mut since_look = SinceLook::default();
        let waiting = self.waiting_bytes();
        let waiting_max = self.waiting_max().min(waiting + UNREAD_AT_ONCE);
        let shared = Arc::clone(&self.shared);
        let limits = shared.engine.limits();
        let is_log_behind = shared
            .engine
            .log()
            .is_some_and(|log| log.behind().is_some());
        let mut at = 0;
        let mut goes_on = self.left.is_under_way();
        self.left = Left::Nothing;
        self.progressed = false;
        // Only a connection that broke off in the middle leaves something behind.
        batch.clear();
        while self.phase != Phase::Closing {
            if self.waiting_bytes() > waiting_max && !goes_on {
                self.left = Left::Requests;
                break;
            }
            // The decoder settles the dialect when it sees the first byte.
            if at < input.len() && self.decoder.is_resp().is_none() && input[at] == b'*' {
                self.client.speak_resp();
            }
            match self.decoder.next(&input[at..], limits) {
                Decoded::Incomplete => break,
                Decoded::Skip { consumed } => {
                    at += consumed;
                    // What is thrown away piece by piece wins no time.
                    self.progressed |= !self.decoder.is_discarding();
                }
                Decoded::Request { consumed, args } => {
                    self.progressed = true;
                    let is_behind_held = !self.held.is_empty();
                    let request = &input[at..at + consumed];
                    let out = self.held.out(&mut self.output);
                    let unread = out.unread();
                    // What came with the request is consumed with it.
                    let has_body = args.body().is_some();
                    let is_under_way = std::mem::take(&mut goes_on);
                    let mut exchange = Exchange {
                        input,
                        batch,
                        now: reading.now,
                        is_behind_held,
                        out,
                        waker: &self.waker,
                        is_log_behind,
                    };
                    let after = self.client.answer(request, &args, &mut exchange);
                    if after == After::EndWaiting {
                        self.held.end();
                    }
                    self.left = Left::of(after, is_under_way);
                    if self.left != Left::Nothing {
                        break;
                    }
                    at += consumed;
                    if after.is_unanswered() {
                        let slot = self.client.slot(request, &args, after);
                        self.rest_on_log(had_doubts);
                        self.held.push(slot);
                        continue;
                    }
                    if after == After::Close
                        || after == After::Refused && !has_body && self.decoder.refuse(request)
                    {
                        self.phase = Phase::Closing;
                    }
                    let grown = self.held.out(&mut self.output).unread() - unread;
                    let bytes = consumed + grown;
                    if since_look.is_due(bytes) || after == After::LookUp {
                        reading = shared.clock.read();
                        if reading.ns_since(&began) >= self.turn.left_ns() {
                            self.left = Left::Requests;
                            break;
                        }
                    }
                }
                Decoded::Refused {
                    consumed,
                    error,
                    close,
                } => {
                    at += consumed;
                    self.progressed = true;
                    let out = self.held.out(&mut self.output);
                    self.client.ask(input, batch, reading.now, out);
                    self.refuse_input(error);
                    if close {
                        self.phase = Phase::Closing;
                    }
                }
            }
        }
        let out = self.held.out(&mut self.output);
        self.client.ask(input, batch, reading.now, out);
        self.rest_on_log(had_doubts);
        self.held.count_last();
        self.executed(&began);
        at
    }

    /// Holds back what was executed until the log has what it may rest on: all that was appended so far, by
    /// whoever.
    fn rest_on_log(&mut self, had_doubts: bool) {
        let rests_on_log = std::mem::take(&mut self.client.rests_on_log);
        // Where there are doubts, each reply was looked at. They may have ended meanwhile, or have begun.
        if rests_on_log
            && !(had_doubts && self.shared.has_doubts())
            && let Some(log) = self.shared.engine.log()
        {
            let rest = self.held.rest(&mut self.rest);
            rest.position = log.appended();
            rest.is_synced |= std::mem::take(&mut self.client.wants_sync);
            if log.acknowledged() < rest.position {
                acks::write_soon(&self.shared, self.worker);
            }
        }
    }

    /// The same for what was executed before, and waits only now.
    fn write_soon(&self) {
        if let Some(log) = self.shared.engine.log()
            && log.acknowledged() < self.rest.position
        {
            acks::write_soon(&self.shared, self.worker);
        }
    }

    /// Answers what never became a request.
    fn refuse_input(&mut self, error: Error) {
        self.shared.engine.metrics().malformed.add(1);
        let out = self.held.out(&mut self.output);
        self.client.refuse_bytes(error, out);
    }

    /// Counts what was executed since then.
    fn executed(&mut self, began: &Reading) {
        let ns = began.elapsed_ns();
        self.turn.executed(ns);
        let metrics = self.shared.engine.metrics();
        metrics.record(self.worker, &mut self.client.tally, ns);
    }

    /// The client sends no more, or the server wants no more: an unfinished request is refused,
    /// since nobody can tell what it would have been.
    fn finish_input(&mut self) {
        if !self.input.is_empty() && self.phase == Phase::HalfClosed {
            self.client.refuse_bytes(
                Error::new(
                    Code::Syntax,
                    "the last request was not finished and was not executed",
                ),
                self.held.out(&mut self.output),
            );
        }
        self.end_input();
    }

    fn close_with(&mut self, error: Error) {
        let out = self.held.out(&mut self.output);
        self.client.refuse_bytes(error, out);
        self.held.count_last();
        self.end_input();
    }

    /// Nothing more is read, and what was is dropped: others may have its room.
    fn end_input(&mut self) {
        self.intake.give_up();
        self.input = Vec::new();
        self.phase = Phase::Closing;
    }

    /// Waits for the client to take replies, but not for ever. Nothing is read meanwhile, so an
    /// unfinished request cannot be finished and is not waited for.
    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.intake.give_up();
        let since = *self.stalled_since.get_or_insert_with(Instant::now);
        let timeout_ms = self.shared.engine.limits().unread_timeout_ms;
        ready!(self.poll_timeout(since, timeout_ms, cx));
        Poll::Ready(End::Gone)
    }

    /// Waits for the client to send, but not for ever for the rest of a request.
    fn poll_unfinished(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let Some(since) = self.unfinished_since else {
            self.timer = None;
            return Poll::Pending;
        };
        let timeout_ms = self.shared.engine.limits().request_timeout_ms;
        ready!(self.poll_timeout(since, timeout_ms, cx));
        let seconds = timeout_ms as f64 / 1_000.0;
        self.close_with(Error::new(
            Code::Syntax,
            format!("the request was not finished within {seconds} s; closing"),
        ));
        // What was just said is sent by the next poll.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Ready, and counted, once so much time has passed.
    fn poll_timeout(&mut self, since: Instant, ms: u64, cx: &mut Context<'_>) -> Poll<()> {
        ready!(self.poll_timer(since + Duration::from_millis(ms), cx));
        self.shared.engine.metrics().connections_timed_out.add(1);
        Poll::Ready(())
    }

    fn poll_timer(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        ready!(timer.as_mut().poll(cx));
        self.timer = None;
        Poll::Ready(())
    }

    /// Says that no more comes, and reads what the client still sends: a socket that is closed
    /// with unread bytes resets the connection, and the client may lose the last reply.
    async fn linger(&mut self) {
        let _the_client_may_be_gone = self.stream.shutdown().await;
        // On the heap, or every connection's task would have this much more from its beginning.
        let mut sink = vec![0; 4 << 10];
        let _either_way_it_ends = timeout(LINGER, async {
            while matches!(self.stream.read(&mut sink).await, Ok(n) if n > 0) {}
        })
        .await;
    }

    /// Keeps the budget's count of this connection's buffers.
    fn count_buffers(&mut self) {
        let bytes = self.input.capacity() + self.held.held_bytes() + self.decoder.held_bytes();
        let budget = self.shared.engine.budget();
        if bytes != self.counted_bytes {
            budget.change(bytes as isize - self.counted_bytes as isize);
            self.counted_bytes = bytes;
        }
        let replies = self.output.held_bytes() + self.client.copied_bytes();
        if replies != self.counted_replies {
            budget.change_replies(replies as isize - self.counted_replies as isize);
            self.counted_replies = replies;
        }
        let queued = self.client.queued_bytes();
        if queued != self.counted_queued {
            budget.change_queued(queued as isize - self.counted_queued as isize);
            self.counted_queued = queued;
        }
    }
}

impl<S> Drop for Connection<S> {
    fn drop(&mut self) {
        let budget = self.shared.engine.budget();
        budget.change(-(self.counted_bytes as isize));
        budget.change_replies(-(self.counted_replies as isize));
        budget.change_queued(-(self.counted_queued as isize));
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use tokio::io::{DuplexStream, duplex};

    use super::super::acks::tests::worker;
    use super::super::runtime_of;
    use super::*;
    use crate::wire::Sink;

    /// A connection that is polled by hand, and its client's end.
    struct Talk {
        connection: Connection<DuplexStream>,
        far: DuplexStream,
    }

    impl Talk {
        fn begin(shared: &Arc<Shared>) -> Self {
            let (far, near) = duplex(1 << 20);
            let connection = Connection::new(near, Ends::default(), Arc::clone(shared), 0);
            Self { connection, far }
        }

        async fn send(&mut self, request: &str) {
            self.far.write_all(request.as_bytes()).await.unwrap();
        }

        /// One turn, whatever was waited for.
        async fn turn(&mut self) {
            let mut cx = Context::from_waker(Waker::noop());
            assert!(self.connection.poll(&mut cx).is_pending());
            tokio::task::yield_now().await;
        }

        /// Turns until one leaves the connection so.
        async fn turns_until(&mut self, left: Left) {
            for _ in 0..1_000 {
                if self.connection.left == left {
                    return;
                }
                self.turn().await;
            }
            panic!("{:?}", self.connection.left);
        }

        /// What has come.
        fn take(&mut self, got: &mut Vec<u8>) {
            let mut piece = [0; 4 << 10];
            let mut buffer = ReadBuf::new(&mut piece);
            let mut cx = Context::from_waker(Waker::noop());
            while pin!(&mut self.far)
                .poll_read(&mut cx, &mut buffer)
                .is_ready()
            {
                got.extend_from_slice(buffer.filled());
                buffer.clear();
            }
        }

        /// Turns until so many lines have come, with all written to the log in between.
        async fn lines(&mut self, lines: usize) -> Vec<String> {
            let mut got = Vec::new();
            for _ in 0..10_000 {
                let shared = Arc::clone(&self.connection.shared);
                shared.engine.log().unwrap().write(shared.clock.read().now);
                self.turn().await;
                self.take(&mut got);
                let text = str::from_utf8(&got).unwrap();
                if text.lines().count() >= lines && text.ends_with('\n') {
                    break;
                }
            }
            let text = str::from_utf8(&got).unwrap();
            text.lines().map(str::to_owned).collect()
        }
    }

    /// The requests whose replies are held were asked meanwhile, and went on with what the long one had begun.
    #[test]
    fn nothing_else_goes_on_with_a_long_request_while_the_log_is_behind() {
        const KEYS: usize = 10_000;
        let shared = Arc::new(worker("long").0);
        let runtime = runtime_of(0, &shared).unwrap();
        runtime.block_on(async {
            let (mut talk, mut other) = (Talk::begin(&shared), Talk::begin(&shared));
            other.send("BEGIN work LEASE 60s\n").await;
            let run = other.lines(1).await;
            let token = run[0].split(' ').nth(1).unwrap().to_owned();
            talk.send("WAIT work TIMEOUT 60s\nMBEGIN 1h 1m a b c\nMSEEN 1h")
                .await;
            let keys = (0..KEYS).fold(String::new(), |keys, n| keys + &format!(" k{n:05}"));
            talk.send(&keys).await;
            talk.send("\n").await;
            talk.turns_until(Left::Unfinished).await;
            // As if the log had come to be behind.
            talk.connection.left = Left::of(After::Unwritten, true);
            // It is not polled meanwhile, so it must not be the next in line: on a busy machine the other's turn
            // takes long, and it waits there too.
            talk.connection.place = Place::default();
            other.send(&format!("COMPLETE work {token}\n")).await;
            assert_eq!(other.lines(1).await, ["OK"]);
            let told = talk.lines(4).await;
            assert_eq!(told[..3], ["DONE 0 0", "", "N:2 N:3 N:4"]);
            assert!(told[3..] == ["N".repeat(KEYS)], "not all are new");
        });
    }

    /// It waited for another turn, behind all that take much.
    #[test]
    fn a_small_reply_is_sent_though_the_turn_is_over() {
        let shared = Arc::new(worker("small").0);
        let runtime = runtime_of(0, &shared).unwrap();
        runtime.block_on(async {
            let mut talk = Talk::begin(&shared);
            let keys = (0..2_000).fold(String::new(), |keys, n| keys + &format!(" k{n:05}"));
            // As if the request had taken long.
            talk.connection.turn.executed(u64::MAX);
            let input = format!("PEEK{keys}\n");
            SCRATCH.with_borrow_mut(|scratch| {
                talk.connection
                    .take_in(input.as_bytes(), &mut scratch.batch);
            });
            talk.connection.output.release();
            let mut cx = Context::from_waker(Waker::noop());
            assert!(matches!(
                talk.connection.poll_send(&mut cx),
                Poll::Ready(Ok(()))
            ));
            let mut got = Vec::new();
            talk.take(&mut got);
            assert_eq!(got, [&vec![b'N'; 2_000][..], b"\n"].concat());
        });
    }

    /// A client that takes a millisecond for whatever is sent, and sends nothing.
    #[derive(Default)]
    struct Slow {
        writes: usize,
    }

    impl AsyncRead for Slow {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Slow {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            std::thread::sleep(Duration::from_millis(1));
            self.writes += 1;
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// It was reckoned by its bytes: a megabyte as half a millisecond.
    #[test]
    fn what_sending_takes_is_of_the_turn() {
        let shared = Arc::new(worker("slow").0);
        let mut slow = Connection::new(Slow::default(), Ends::default(), shared, 0);
        slow.output.bytes().resize(1 << 20, b'x');
        slow.output.release();
        let mut cx = Context::from_waker(Waker::noop());
        for turn in 1..=4 {
            slow.turn = Turn::default();
            assert!(slow.poll_send(&mut cx).is_ready());
            assert_eq!(
                slow.stream.writes, turn,
                "one is all that a turn has time for"
            );
        }
        assert!(slow.output.is_released_sent());
    }
}
