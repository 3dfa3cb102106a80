//! The core: a deterministic state machine without I/O, clock, locks or randomness.
//!
//! A [`Shard`] holds keys with their deadlines. Whoever owns it passes the present in, so a
//! year passes in a test in a microsecond and a failing seed replays. Floors above put shards
//! behind locks (`engine`) and give them a clock (`server`).
//!
//! - [`key`]: what a key is, packed and compared exactly
//! - [`model`]: what a shard is asked, answers and changes
//! - `bucket`, `block`, `segment`, `table`: where keys live: 3 in a cache line, 768 in a block, up to
//!   four blocks in a segment, as many segments as it takes; `growth` adds them; `aside` is for what does not fit a
//!   place, `stash` for what finds none
//! - `memory`: the chunks that blocks are cut out of
//! - `wheel`, `expiry`: which segments are due, and giving back what has lapsed in them; `scan` lists
//! - [`record`]: what may become of an idempotency record; `kept`: the bytes that one is kept as
//! - [`shard`]: all of that together, and the only way to change it; `records`: its part for records
//!
//! ```
//! use onced::store::{Ask, Secret, Shard, Unbounded, Verdict};
//! use onced::time::Millis;
//!
//! let secret = Secret::new([1; 192]);
//! let mut shard = Shard::default();
//! let ask = Ask { ttl_ms: 1_000, ..Ask::default() };
//! let key = secret.key(b"order-17");
//! assert_eq!(shard.seen(&key, &ask, &mut Unbounded, Millis(0)).0, Verdict::New);
//! assert_eq!(shard.seen(&key, &ask, &mut Unbounded, Millis(1_000)).0, Verdict::Dup);
//! assert_eq!(shard.seen(&key, &ask, &mut Unbounded, Millis(1_001)).0, Verdict::New);
//! ```

mod aside;
mod block;
mod bucket;
#[cfg(test)]
mod check;
mod expiry;
mod growth;
mod kept;
pub mod key;
mod memory;
pub mod model;
mod pin;
pub mod record;
mod records;
mod scan;
mod segment;
pub mod shard;
mod slab;
mod stash;
mod table;
mod wheel;

pub use kept::{STATE_BYTES_MAX, TOKENS_MAX, push_record, read_record};
pub use key::{Hashed, Key, Secret};
pub use model::{Ask, Change, Counters, Denial, Fingerprint, Room, Unbounded, Verdict, WindowMode};
pub use pin::Ledger;
pub use record::{Begin, Held, Outcome, Record, Settle, State};
pub use records::{Claim, Holding, Settled};
pub use scan::{Scanned, StoredKeyRef};
pub use shard::{EXPIRE_STEP_SLOTS_MAX, Entry, INSERT_SLOTS_MAX, Restored, Shard};

/// Gives some of the memory that no shard uses back to the system; returns whether there may be more.
/// For a thread that has time, now and then.
pub fn tend_memory() -> bool {
    memory::tend()
}
