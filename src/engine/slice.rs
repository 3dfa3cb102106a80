//! How much one request does before others have their turn.
//!
//! What a request costs is counted as it is done, in units, never measured: the engine reads no clock.
//! The units were chosen so that a slice is about a millisecond where keys are not in the processor's
//! caches, and the log is on.

/// Units that a slice has: of about 10 ns on a core of 2026.
pub(super) const SLICE_UNITS: usize = 100_000;
/// A place of a table that is looked at.
pub(super) const PLACE_UNITS: usize = 2;
/// A key that is listed.
pub(super) const LISTED_UNITS: usize = 10;
/// Bytes that cost a unit: of keys that are copied, hashed or logged.
const UNIT_BYTES: usize = 16;

/// What is left of a slice.
#[derive(Debug)]
pub(super) struct Slice {
    left: usize,
}

impl Slice {
    pub(super) fn new() -> Self {
        Self { left: SLICE_UNITS }
    }

    /// Takes note of work that was done.
    pub(super) fn spend(&mut self, units: usize) {
        self.left = self.left.saturating_sub(units);
    }

    /// Takes note of bytes that were gone through.
    pub(super) fn spend_bytes(&mut self, bytes: usize) {
        self.spend(bytes / UNIT_BYTES);
    }

    /// Whether others are to have their turn.
    pub(super) fn is_over(&self) -> bool {
        self.left == 0
    }
}
