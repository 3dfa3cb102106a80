//! Space is promised before a change is made, out of what was reserved ahead.

use std::sync::atomic::Ordering;

use super::maker::Zeros;
use super::{GOOD, Health, Log};
use crate::log::frame;
use crate::time::Millis;

impl Log {
    /// Promises space for frames of so many bytes, headers included. What is not used of it is to be
    /// [given back](Log::give_back).
    #[inline]
    pub fn promise(&self, bytes: usize) -> bool {
        self.promise_free(bytes as i64) || self.promise_more(bytes as i64)
    }

    /// Bytes of the largest frame that may be promised now: one that every segment to come has room for.
    #[inline]
    pub fn frame_bytes_max(&self) -> usize {
        let most = self.promise_max.load(Ordering::Relaxed);
        usize::try_from(most).map_or(0, |most| most.min(frame::BYTES_MAX))
    }

    /// Whether a frame is too large for every segment, however much space there is.
    pub fn is_too_large(&self, bytes: usize) -> bool {
        let spaces = self.pending.lock().spaces.present.len();
        bytes > frame::BYTES_MAX || bytes as i64 > self.maker.margin_max(spaces)
    }

    /// Promises what is free.
    #[inline]
    fn promise_free(&self, bytes: i64) -> bool {
        bytes <= self.promise_max.load(Ordering::Relaxed)
            && self.state.load(Ordering::Acquire) == GOOD
            && self.take_free(bytes)
    }

    /// Takes so many of the bytes that are promised to nobody; false, and none, if there are not as many.
    #[inline]
    pub(super) fn take_free(&self, bytes: i64) -> bool {
        // Never below what there is, even for a moment: who asks for little then would be refused.
        self.free
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |free| {
                (free >= bytes).then(|| free - bytes)
            })
            .is_ok()
    }

    /// Takes back a promise of so many bytes.
    #[inline]
    pub fn give_back(&self, bytes: usize) {
        self.free.fetch_add(bytes as i64, Ordering::Relaxed);
    }

    /// Reserves another segment, if there is space for it, and promises that.
    #[cold]
    fn promise_more(&self, bytes: i64) -> bool {
        // What no segment of full size has room for is not to be had by another one.
        if self.health() != Health::Good || self.is_too_large(bytes.unsigned_abs() as usize) {
            return false;
        }
        for _ in 0..2 {
            {
                let mut next = self.next.lock();
                if next.prepared.is_none()
                    && self.prepare(&mut next, Zeros::Never, Millis(0)).is_err()
                {
                    return false;
                }
            }
            if self.promise_free(bytes) {
                return true;
            }
            // All that is reserved is promised, but for what segments keep back for their ends: once all is
            // written, the next one may have that, and there may be one more.
            if self.begin_next_for(bytes).is_err() {
                return false;
            }
        }
        false
    }
}
