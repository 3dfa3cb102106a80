//! The core: a deterministic state machine without I/O, clock, locks or randomness.
//!
//! A [`Shard`] holds keys with their deadlines. Whoever owns it passes the present in, so a
//! year passes in a test in a microsecond and a failing seed replays. Floors above put shards
//! behind locks (`engine`) and give them a clock (`server`).
//!
//! - [`key`]: what a key is, packed and compared exactly
//! - [`model`]: what a shard is asked, answers and changes
//! - `slab`, `table`: where entries live and how they are found
//! - `wheel`: which entries are due
//! - [`shard`]: the three together, and the only way to change them
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

pub mod key;
pub mod model;
pub mod shard;
mod slab;
mod table;
mod wheel;

pub use key::{Key, Secret};
pub use model::{Ask, Change, Counters, Fingerprint, Room, Unbounded, Verdict, WindowMode};
pub use shard::{Entry, Shard};
