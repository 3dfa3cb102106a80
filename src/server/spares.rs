//! Write buffers that no connection uses at the moment.
//!
//! A worker's connections borrow them while they have replies to send. Usually one is enough; where
//! replies wait for the log, as many as connections have some.

/// Buffers to be used again, up to so many bytes.
#[derive(Debug, Default)]
pub(super) struct Spares {
    buffers: Vec<Vec<u8>>,
    bytes: usize,
}

/// Bytes that are kept for the next replies.
const KEPT_BYTES: usize = 256 << 10;

impl Spares {
    /// An empty buffer.
    #[inline]
    pub(super) fn take(&mut self) -> Vec<u8> {
        let buffer = self.buffers.pop().unwrap_or_default();
        self.bytes -= buffer.capacity();
        buffer
    }

    /// Keeps an empty buffer, unless there is enough.
    #[inline]
    pub(super) fn keep(&mut self, buffer: Vec<u8>) {
        debug_assert!(buffer.is_empty());
        if buffer.capacity() > 0 && self.bytes + buffer.capacity() <= KEPT_BYTES {
            self.bytes += buffer.capacity();
            self.buffers.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_used_again_up_to_its_bound() {
        let mut spares = Spares::default();
        let buffers: Vec<Vec<u8>> = (0..5).map(|_| Vec::with_capacity(KEPT_BYTES / 4)).collect();
        for buffer in buffers {
            spares.keep(buffer);
        }
        assert_eq!(spares.bytes, KEPT_BYTES);
        for _ in 0..4 {
            assert_eq!(spares.take().capacity(), KEPT_BYTES / 4);
        }
        assert_eq!((spares.take().capacity(), spares.bytes), (0, 0));
        spares.keep(Vec::with_capacity(KEPT_BYTES + 1));
        assert_eq!(spares.take().capacity(), 0, "one that is too large");
    }
}
