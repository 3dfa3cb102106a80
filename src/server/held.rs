//! Replies that are held, and what waits behind them on their connection.
//!
//! A request whose reply is held, and one that may grant a lease and came behind such a one, keeps a slot: its
//! bytes, and the dialect, namespace and transaction of its arrival. Requests behind it are executed when they
//! come, and their replies wait in the slot until its own was appended before them. So replies go out in the
//! order of requests, whatever was executed first.
//!
//! Slots are asked again here; what that comes to is decided by the engine. Nothing is held in vain: all slots
//! are settled at once, without waiting, when nobody may be there any more to hear it, or when as much waits as
//! replies may be left unread.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use super::acks::Rest;
use super::client::{After, Client, ReplyMode};
use super::clock::Reading;
use super::output::Output;
use super::transaction::Transaction;
use crate::command::spec::Verb;
use crate::engine::Namespace;
use crate::engine::waiters::Place;
use crate::time::Millis;
use crate::wire::{Decoded, Decoder, Dialect};

/// A connection's slots, in the order of their requests.
#[derive(Debug, Default)]
pub(super) struct Held {
    slots: VecDeque<Slot>,
    /// Bytes that they hold together.
    bytes: usize,
    /// Bytes of stored values in the replies that wait, which others may share.
    shared_bytes: usize,
    /// Nothing is waited for any more: all that is here is to be settled.
    is_ending: bool,
    /// When the first of them is to be asked again.
    timer: Option<Pin<Box<Sleep>>>,
}

/// A request whose reply was not appended yet, and the replies behind it.
#[derive(Debug)]
pub(super) struct Slot {
    request: Vec<u8>,
    pub(super) verb: Option<Verb>,
    pub(super) dialect: Dialect,
    pub(super) namespace: Arc<Namespace>,
    /// Of the requests before it, where it is what executes them.
    pub(super) transaction: Option<Transaction>,
    pub(super) replies: ReplyMode,
    /// Where it was executed and waits; one that has none was not executed yet.
    pub(super) place: Option<Place>,
    /// Its own reply, once it is settled.
    pub(super) reply: Output,
    is_settled: bool,
    /// The replies to the requests behind it, up to the next slot.
    behind: Output,
    /// What all these rest on.
    rest: Rest,
    counted_bytes: usize,
    counted_shared_bytes: usize,
}

/// What came of asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// All that can be done was done.
    Done,
    /// Others are to have their turn first.
    Unfinished,
}

impl Slot {
    pub(super) fn new(
        request: &[u8],
        verb: Option<Verb>,
        (dialect, namespace): (Dialect, &Arc<Namespace>),
    ) -> Self {
        Self {
            request: request.to_vec(),
            verb,
            dialect,
            namespace: Arc::clone(namespace),
            transaction: None,
            replies: ReplyMode::On,
            place: None,
            reply: Output::default(),
            is_settled: false,
            behind: Output::default(),
            rest: Rest::default(),
            counted_bytes: 0,
            counted_shared_bytes: 0,
        }
    }

    fn held_bytes(&self) -> usize {
        size_of::<Self>()
            + self.request.capacity()
            + self.transaction.as_ref().map_or(0, Transaction::held_bytes)
            + self.reply.held_bytes()
            + self.behind.held_bytes()
    }

    fn shared_bytes(&self) -> usize {
        self.reply.shared_bytes() + self.behind.shared_bytes()
    }

    /// Executes it, or executes it again; where nothing is to be waited for there is no waker.
    fn ask(&mut self, client: &mut Client, now: Millis, waker: Option<&Waker>) -> After {
        if waker.is_none() && self.place.is_some() {
            client.give_up(self, now);
            self.is_settled = true;
            return After::GoOn;
        }
        let shared = Arc::clone(&client.shared);
        let request = std::mem::take(&mut self.request);
        let (mut decoder, mut at) = (Decoder::default(), 0);
        let after = loop {
            match decoder.next(&request[at..], shared.engine.limits()) {
                Decoded::Skip { consumed } => at += consumed,
                Decoded::Request { args, .. } => {
                    break client.answer_slot(self, (&request[at..], &args), now, waker);
                }
                // It was a request when it came.
                Decoded::Incomplete | Decoded::Refused { .. } => break After::GoOn,
            }
        };
        self.is_settled = !after.is_unanswered();
        if !self.is_settled {
            self.request = request;
        }
        after
    }

    /// Its reply is there: counted, or dropped where the client did not want it.
    pub(super) fn has_replied(&mut self) {
        if self.replies == ReplyMode::On {
            self.reply.count_reply();
        } else {
            self.reply = Output::default();
        }
    }

    /// What it says rests on all that the log has so far.
    fn rest_on_log(&mut self, client: &mut Client) {
        if let Some(log) = client.shared.engine.log() {
            self.rest.position = log.appended();
            self.rest.is_synced |= std::mem::take(&mut client.wants_sync);
        }
    }
}

impl Held {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Bytes of memory that it holds.
    #[inline]
    pub(super) fn held_bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes that wait: those, and of the values that the replies share with the store.
    #[inline]
    pub(super) fn waiting_bytes(&self) -> usize {
        self.bytes + self.shared_bytes
    }

    /// Where the next reply goes: behind the last slot, or where there is none, straight to the client.
    #[inline]
    pub(super) fn out<'o>(&'o mut self, output: &'o mut Output) -> &'o mut Output {
        match self.slots.back_mut() {
            None => output,
            Some(last) => &mut last.behind,
        }
    }

    /// What that reply rests on is told here.
    #[inline]
    pub(super) fn rest<'r>(&'r mut self, rest: &'r mut Rest) -> &'r mut Rest {
        match self.slots.back_mut() {
            None => rest,
            Some(last) => &mut last.rest,
        }
    }

    /// Takes a request in, behind all others.
    pub(super) fn push(&mut self, slot: Slot) {
        self.slots.push_back(slot);
        self.count_last();
    }

    /// Counts what the last slot holds.
    pub(super) fn count_last(&mut self) {
        if let Some(at) = self.slots.len().checked_sub(1) {
            self.count(at);
        }
    }

    fn count(&mut self, at: usize) {
        let slot = &mut self.slots[at];
        let bytes = slot.held_bytes();
        self.bytes = self.bytes + bytes - slot.counted_bytes;
        slot.counted_bytes = bytes;
        let shared = slot.shared_bytes();
        self.shared_bytes = self.shared_bytes + shared - slot.counted_shared_bytes;
        slot.counted_shared_bytes = shared;
    }

    /// Nothing is to be waited for any more.
    pub(super) fn end(&mut self) {
        self.is_ending = !self.is_empty();
    }

    /// Asks those that are due, or all if they are ended; stops early where that takes longer than so many
    /// nanoseconds.
    pub(super) fn ask(
        &mut self,
        client: &mut Client,
        (began, left_ns): (&Reading, u64),
        waker: &Waker,
    ) -> Asked {
        let had_doubts = client.shared.has_doubts();
        let waker = (!self.is_ending).then_some(waker);
        let (mut is_first, mut reading) = (true, *began);
        for at in 0..self.slots.len() {
            let slot = &mut self.slots[at];
            if slot.is_settled {
                continue;
            }
            let is_due = match &slot.place {
                Some(place) => self.is_ending || place.is_due(reading.now),
                // What may grant a lease is not executed before its reply can be sent.
                None => is_first,
            };
            if is_due {
                let after = slot.ask(client, reading.now, waker);
                if slot.is_settled && !(had_doubts && client.shared.has_doubts()) {
                    slot.rest_on_log(client);
                }
                self.count(at);
                reading = client.shared.clock.read();
                if after == After::Unfinished || reading.ns_since(began) >= left_ns {
                    return Asked::Unfinished;
                }
            }
            is_first &= self.slots[at].is_settled;
        }
        Asked::Done
    }

    /// Appends the replies that nothing is waited for any more before; whether there were any.
    pub(super) fn append_settled(&mut self, output: &mut Output, rest: &mut Rest) -> bool {
        let mut appended = false;
        while self.slots.front().is_some_and(|slot| slot.is_settled)
            && let Some(slot) = self.slots.pop_front()
        {
            self.bytes -= slot.counted_bytes;
            self.shared_bytes -= slot.counted_shared_bytes;
            output.append(slot.reply);
            output.append(slot.behind);
            rest.position = rest.position.max(slot.rest.position);
            rest.is_synced |= slot.rest.is_synced;
            appended = true;
        }
        if self.slots.is_empty() {
            // Most connections never hold any again soon.
            *self = Self::default();
        }
        appended
    }

    /// Ready when the first of those that wait is to be asked again.
    pub(super) fn poll_due(&mut self, now: Millis, cx: &mut Context<'_>) -> Poll<()> {
        let places = self.slots.iter().filter_map(|slot| slot.place.as_ref());
        let Some(wake_at) = places.map(Place::wake_at).min() else {
            return Poll::Pending;
        };
        // A millisecond more: both clocks round down.
        let deadline = Instant::now() + Duration::from_millis(wake_at.since(now) + 1);
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        timer.as_mut().reset(deadline);
        timer.as_mut().poll(cx)
    }
}
