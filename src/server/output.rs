//! A connection's replies on their way out: encoded, in order, and not copied where they are large.
//!
//! Small replies are bytes in one buffer. Stored values of some KiB and more are held as they are, shared
//! with the store and with every other connection that is told of them, and go between those bytes.
//!
//! What was sent is a prefix of what is released, and that of all: what is not released waits for the log.
//! Nothing here knows what a reply says; no value is dropped before its last byte was sent.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::AsyncWrite;

use crate::limits::SHARED_VALUE_BYTES_MIN;
use crate::wire::Sink;

/// Bytes that a value takes here beside its own, roughly: its place, and what lets go of it.
const BESIDE_VALUE: usize = 128;
/// Bytes of a buffer that need not be used.
const SPARE_BYTES: usize = 4 << 10;
/// Pieces that one write takes at most.
const SLICES_MAX: usize = 64;

/// Replies that were encoded and not sent yet.
#[derive(Debug, Default)]
pub(super) struct Output {
    bytes: Vec<u8>,
    values: VecDeque<Placed>,
    /// Values that were sent whole, and are not held any more.
    values_gone: usize,
    /// Bytes of the values that are held.
    value_bytes: usize,
    /// How much of `bytes` was sent.
    sent: usize,
    /// How much of the first value was sent.
    sent_of_value: usize,
    released: Mark,
    /// How many replies are not released.
    replies: usize,
}

/// A value, and where it goes.
#[derive(Debug)]
struct Placed {
    /// It goes before this one of the `bytes`.
    at: usize,
    value: Bytes,
}

/// A place between two replies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    bytes: usize,
    /// Values before it, those that are gone included.
    values: usize,
}

impl Sink for Output {
    #[inline]
    fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    fn push_value(&mut self, value: &Bytes) {
        if value.len() < SHARED_VALUE_BYTES_MIN {
            self.bytes.extend_from_slice(value);
            return;
        }
        self.value_bytes += value.len();
        self.values.push_back(Placed {
            at: self.bytes.len(),
            value: value.clone(),
        });
    }
}

impl Output {
    /// Whether it has a buffer, empty or not.
    #[inline]
    pub(super) fn has_buffer(&self) -> bool {
        self.bytes.capacity() > 0
    }

    /// Writes into this empty buffer from here on.
    #[inline]
    pub(super) fn lend(&mut self, buffer: Vec<u8>) {
        debug_assert!(buffer.is_empty() && self.is_empty());
        self.bytes = buffer;
    }

    /// Gives the buffer back, where nothing is in it.
    #[inline]
    pub(super) fn give_back(&mut self) -> Vec<u8> {
        debug_assert!(self.is_empty());
        self.clear();
        std::mem::take(&mut self.bytes)
    }

    /// Whether all was sent.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.unread() == 0
    }

    /// Bytes that were not sent yet, released or not.
    #[inline]
    pub(super) fn unread(&self) -> usize {
        self.copied_bytes() + self.shared_bytes()
    }

    /// Bytes of memory that it holds, beside those of shared values: the store counts these.
    #[inline]
    pub(super) fn held_bytes(&self) -> usize {
        self.bytes.capacity() + self.values.len() * BESIDE_VALUE
    }

    /// Bytes of shared values that were not sent yet.
    pub(super) fn shared_bytes(&self) -> usize {
        self.value_bytes - self.sent_of_value
    }

    /// Bytes of replies that are copies of their own and were not sent yet.
    pub(super) fn copied_bytes(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// Makes room for a reply of so many bytes; a buffer that grows by itself takes twice as many.
    pub(super) fn make_room(&mut self, bytes: usize) {
        if self.bytes.is_empty() {
            self.bytes.reserve_exact(bytes);
        }
    }

    /// Where the next reply begins.
    #[inline]
    pub(super) fn mark(&self) -> Mark {
        Mark {
            bytes: self.bytes.len(),
            values: self.values_gone + self.values.len(),
        }
    }

    /// Takes back what was appended since; nothing of it may have been sent.
    pub(super) fn truncate(&mut self, mark: Mark) {
        debug_assert!(mark.bytes >= self.released.bytes && mark.values >= self.released.values);
        self.bytes.truncate(mark.bytes);
        while self.values_gone + self.values.len() > mark.values {
            let Some(placed) = self.values.pop_back() else {
                break;
            };
            self.value_bytes -= placed.value.len();
        }
    }

    /// Counts a reply that was appended, or that will be before anything else is.
    #[inline]
    pub(super) fn count_reply(&mut self) {
        self.replies += 1;
    }

    /// Takes back what is not released; returns how many replies that were.
    pub(super) fn truncate_to_released(&mut self) -> usize {
        self.truncate(self.released);
        std::mem::take(&mut self.replies)
    }

    /// Lets all that is there be sent.
    #[inline]
    pub(super) fn release(&mut self) {
        self.released = self.mark();
        self.replies = 0;
    }

    /// Whether all that may be sent was sent.
    #[inline]
    pub(super) fn is_released_sent(&self) -> bool {
        self.sent == self.released.bytes && self.values_gone == self.released.values
    }

    /// Appends what another holds, of which nothing was sent; here it waits to be released.
    pub(super) fn append(&mut self, other: Self) {
        debug_assert!(other.sent == 0 && other.values_gone == 0 && other.sent_of_value == 0);
        let begins = self.bytes.len();
        self.bytes.extend_from_slice(&other.bytes);
        self.value_bytes += other.value_bytes;
        self.replies += other.replies;
        let values = other.values.into_iter();
        self.values.extend(values.map(|placed| Placed {
            at: begins + placed.at,
            value: placed.value,
        }));
    }

    /// Writes some of what is released, which must not all be sent; returns how many bytes, so many at the most.
    pub(super) fn poll_write<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        bytes_max: usize,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        debug_assert!(!self.is_released_sent());
        let written = if self.values_gone == self.released.values {
            let ends = self.released.bytes.min(self.sent + bytes_max);
            let unsent = &self.bytes[self.sent..ends];
            Pin::new(stream).poll_write(cx, unsent)
        } else {
            self.poll_write_pieces(stream, bytes_max, cx)
        };
        let Poll::Ready(written) = written else {
            self.forget_sent();
            self.give_room_back();
            return Poll::Pending;
        };
        let n = written?;
        if n == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.advance(n);
        Poll::Ready(Ok(n))
    }

    #[cold]
    fn poll_write_pieces<S: AsyncWrite + Unpin>(
        &self,
        stream: &mut S,
        bytes_max: usize,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let (mut count, mut room) = (0, bytes_max);
        let mut push = |piece| {
            let piece = &piece[..<[u8]>::len(piece).min(room)];
            if count < SLICES_MAX && !piece.is_empty() {
                slices[count] = IoSlice::new(piece);
                count += 1;
                room -= piece.len();
            }
        };
        let (mut at, mut skipped) = (self.sent, self.sent_of_value);
        let released = self.released.values - self.values_gone;
        for placed in self.values.iter().take(released.min(SLICES_MAX)) {
            push(&self.bytes[at..placed.at]);
            push(&placed.value[skipped..]);
            (at, skipped) = (placed.at, 0);
        }
        if released <= SLICES_MAX {
            push(&self.bytes[at..self.released.bytes]);
        }
        if stream.is_write_vectored() {
            Pin::new(stream).poll_write_vectored(cx, &slices[..count])
        } else {
            Pin::new(stream).poll_write(cx, &slices[0])
        }
    }

    /// Takes note of bytes that were sent, and lets go of values that were sent whole.
    #[inline]
    fn advance(&mut self, n: usize) {
        if self.values.is_empty() {
            self.sent += n;
        } else {
            self.advance_pieces(n);
        }
        if self.is_empty() {
            self.clear();
        }
    }

    fn advance_pieces(&mut self, n: usize) {
        let mut rest = n;
        while let Some(first) = self.values.front() {
            let before = rest.min(first.at - self.sent);
            self.sent += before;
            rest -= before;
            let len = first.value.len();
            let of_value = rest.min(len - self.sent_of_value);
            self.sent_of_value += of_value;
            rest -= of_value;
            if self.sent_of_value < len {
                return;
            }
            self.values.pop_front();
            self.values_gone += 1;
            self.value_bytes -= len;
            self.sent_of_value = 0;
        }
        self.sent += rest;
    }

    fn clear(&mut self) {
        self.bytes.clear();
        // Most replies have none: their place is not worth a byte of an idle connection.
        self.values = VecDeque::new();
        self.values_gone = 0;
        self.sent = 0;
        self.released = Mark::default();
    }

    /// Gives back what of the buffer is not used, where the client takes its time.
    fn give_room_back(&mut self) {
        if self.bytes.capacity() > 2 * self.bytes.len() + SPARE_BYTES {
            self.bytes.shrink_to_fit();
        }
    }

    /// Drops what was sent from the buffer's front, once that is half of it: a client that always
    /// leaves something unread would make it grow for ever, and each byte is moved once on average.
    fn forget_sent(&mut self) {
        if self.sent > self.bytes.len() / 2 {
            self.bytes.drain(..self.sent);
            for placed in &mut self.values {
                placed.at -= self.sent;
            }
            self.released.bytes -= self.sent;
            self.sent = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use proptest::prelude::*;

    use super::*;

    const BYTES_MAX: usize = 200 << 10;

    /// A client that takes so many bytes at a time.
    #[derive(Debug, Default)]
    struct Taker {
        got: Vec<u8>,
        takes: usize,
        is_vectored: bool,
        is_stuck: bool,
    }

    impl AsyncWrite for Taker {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            if self.is_stuck {
                return Poll::Pending;
            }
            let n = bytes.len().min(self.takes);
            self.got.extend_from_slice(&bytes[..n]);
            Poll::Ready(Ok(n))
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            if self.is_stuck {
                return Poll::Pending;
            }
            let before = self.got.len();
            for slice in slices {
                let n = slice.len().min(self.takes + before - self.got.len());
                self.got.extend_from_slice(&slice[..n]);
            }
            Poll::Ready(Ok(self.got.len() - before))
        }

        fn is_write_vectored(&self) -> bool {
            self.is_vectored
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Small(usize),
        Value(usize),
        /// Appends, and takes it back.
        Undone(Vec<(bool, usize)>),
        Append(Vec<(bool, usize)>),
        Release,
        TakeBack,
        /// Sends what it can, so many bytes a call.
        Send(usize),
        Stuck,
    }

    fn step() -> impl Strategy<Value = Step> {
        let len = || {
            prop_oneof![
                1..9_usize,
                SHARED_VALUE_BYTES_MIN - 1..SHARED_VALUE_BYTES_MIN + 99
            ]
        };
        let pieces = move || proptest::collection::vec((any::<bool>(), len()), 0..5);
        prop_oneof![
            len().prop_map(Step::Small),
            len().prop_map(Step::Value),
            pieces().prop_map(Step::Undone),
            pieces().prop_map(Step::Append),
            Just(Step::Release),
            Just(Step::TakeBack),
            (1..12_000_usize).prop_map(Step::Send),
            Just(Step::Stuck),
        ]
    }

    /// Bytes that nobody said before.
    fn fresh(next: &mut u64, len: usize) -> Vec<u8> {
        let bytes = (0..len).map(|at| (next.wrapping_mul(0x9e37_79b9) >> (at % 24)) as u8);
        let bytes = bytes.collect();
        *next += 1;
        bytes
    }

    proptest! {
        #[test]
        fn what_is_released_arrives_in_order(
            steps in proptest::collection::vec(step(), 1..60),
            is_vectored: bool,
        ) {
            let (mut output, mut next) = (Output::default(), 1);
            let mut taker = Taker { is_vectored, ..Taker::default() };
            let mut cx = Context::from_waker(Waker::noop());
            // What was said, and how much of it is released.
            let (mut said, mut released) = (Vec::new(), 0);
            let mut say = |output: &mut Output, said: &mut Vec<u8>, is_value, len| {
                let bytes = fresh(&mut next, len);
                said.extend_from_slice(&bytes);
                if is_value {
                    output.push_value(&Bytes::from(bytes));
                } else {
                    output.bytes().extend_from_slice(&bytes);
                }
            };
            for step in steps {
                match step {
                    Step::Small(len) => say(&mut output, &mut said, false, len),
                    Step::Value(len) => say(&mut output, &mut said, true, len),
                    Step::Undone(pieces) => {
                        let (mark, unread) = (output.mark(), output.unread());
                        let mut unsaid = Vec::new();
                        for (is_value, len) in pieces {
                            say(&mut output, &mut unsaid, is_value, len);
                            prop_assert_ne!(output.mark(), mark);
                        }
                        prop_assert_eq!(output.unread(), unread + unsaid.len());
                        output.truncate(mark);
                        prop_assert_eq!(output.mark(), mark);
                        prop_assert_eq!(output.unread(), unread);
                    }
                    Step::Append(pieces) => {
                        let mut other = Output::default();
                        for (is_value, len) in pieces {
                            say(&mut other, &mut said, is_value, len);
                        }
                        output.append(other);
                    }
                    Step::Release => {
                        output.release();
                        released = said.len();
                    }
                    Step::TakeBack => {
                        output.truncate_to_released();
                        said.truncate(released);
                    }
                    Step::Send(takes) => {
                        taker.takes = takes;
                        while !output.is_released_sent() {
                            let sent = output.poll_write(&mut taker, BYTES_MAX, &mut cx);
                            prop_assert!(matches!(sent, Poll::Ready(Ok(n)) if n <= takes));
                            prop_assert_eq!(output.unread(), said.len() - taker.got.len());
                        }
                        prop_assert_eq!(taker.got.len(), released);
                    }
                    Step::Stuck => {
                        taker.is_stuck = true;
                        if !output.is_released_sent() {
                            prop_assert!(output.poll_write(&mut taker, BYTES_MAX, &mut cx).is_pending());
                        }
                        taker.is_stuck = false;
                    }
                }
                prop_assert_eq!(output.unread(), said.len() - taker.got.len());
                prop_assert!(output.held_bytes() + output.value_bytes >= output.unread());
            }
            output.release();
            taker.takes = said.len() + 1;
            while !output.is_released_sent() {
                prop_assert!(output.poll_write(&mut taker, BYTES_MAX, &mut cx).is_ready());
            }
            prop_assert!(taker.got == said);
            prop_assert!(output.is_empty() && output.give_back().is_empty());
            prop_assert_eq!(output.held_bytes(), 0);
        }
    }

    #[test]
    fn a_large_value_is_shared_until_its_last_byte_was_sent() {
        let mut output = Output::default();
        let value = Bytes::from(vec![b'v'; SHARED_VALUE_BYTES_MIN]);
        output.push_value(&value.slice(1..));
        assert!(value.is_unique() || output.value_bytes == 0, "a copy");
        output.push_value(&value);
        assert!(!value.is_unique());
        let copied = SHARED_VALUE_BYTES_MIN - 1;
        assert!((copied..2 * copied).contains(&output.held_bytes()));
        output.release();
        let mut cx = Context::from_waker(Waker::noop());
        let mut taker = Taker {
            takes: 2 * SHARED_VALUE_BYTES_MIN - 2,
            is_vectored: true,
            ..Taker::default()
        };
        assert!(output.poll_write(&mut taker, BYTES_MAX, &mut cx).is_ready());
        assert!(!value.is_unique() && output.unread() == 1);
        assert!(output.poll_write(&mut taker, BYTES_MAX, &mut cx).is_ready());
        assert!(value.is_unique() && output.is_empty());
    }

    #[test]
    fn one_write_is_bounded_whatever_it_is_made_of() {
        for is_vectored in [false, true] {
            let mut output = Output::default();
            let value = Bytes::from(vec![b'v'; 100 << 10]);
            for _ in 0..10 {
                output.push_value(&value);
                output.bytes().extend_from_slice(&value);
            }
            output.release();
            let mut cx = Context::from_waker(Waker::noop());
            let all = output.unread();
            let mut taker = Taker {
                takes: all,
                is_vectored,
                ..Taker::default()
            };
            while !output.is_released_sent() {
                let sent = output.poll_write(&mut taker, BYTES_MAX, &mut cx);
                assert!(matches!(sent, Poll::Ready(Ok(n)) if n <= BYTES_MAX));
            }
            assert_eq!(taker.got.len(), all);
        }
    }
}
