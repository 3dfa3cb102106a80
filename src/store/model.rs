//! What a shard is asked, what it answers, and what it changes.
//!
//! Plain values without behaviour of their own; [`super::Shard`] gives them their meaning.

use super::key::Key;
use crate::time::Millis;

/// A client's digest of the payload behind a key: up to 32 hex digits, compared as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// The digits' value.
    pub value: u128,
    /// How many digits there were, so that `0a` and `a` differ.
    pub digits: u8,
}

/// What a repeat does to a key's window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WindowMode {
    /// Nothing: the window ends as long after the first time as was asked then.
    #[default]
    Fixed,
    /// It extends the window to its own time plus its TTL, if that is later.
    Slide,
}

/// The question of one `SEEN`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ask<'a> {
    /// How long the key lives from now, or from the event's own time if that is later.
    pub ttl_ms: u64,
    /// What a repeat does to the window.
    pub mode: WindowMode,
    /// Compared with the one that came with the key; absent on either side it matches.
    pub fingerprint: Option<Fingerprint>,
    /// The event's own time.
    pub event_at: Option<Millis>,
    /// What `GET` is to answer; `None` is `1`.
    pub value: Option<&'a [u8]>,
}

impl Ask<'_> {
    pub(super) fn deadline(&self, now: Millis) -> Millis {
        self.event_at
            .map_or(now, |at| at.max(now))
            .after(self.ttl_ms)
    }

    /// Whether the event is so old that its window has passed: nobody can say if it was seen in it.
    pub fn is_too_old(&self, now: Millis) -> bool {
        self.event_at.is_some_and(|at| at.after(self.ttl_ms) < now)
    }
}

/// The answer to one `SEEN`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The first time; the key is remembered now.
    New,
    /// Not there, and remembered now; but it may have been seen in its window: the memory does not
    /// reach back that far, or the event is older than its window.
    Unsure,
    /// Seen before, and its window has not ended.
    Dup,
    /// Seen before with another fingerprint; nothing was changed.
    Mismatch,
    /// Not seen before, and there is no room to remember it; nothing was changed.
    Full,
}

/// One change of state, with nothing in it that depends on when or where it is applied.
#[derive(Clone, Copy, Debug)]
pub enum Change<'a> {
    /// The key is there with just this content until the deadline.
    Put {
        /// The key.
        key: Key<'a>,
        /// The last millisecond of its window.
        deadline: Millis,
        /// The fingerprint it came with.
        fingerprint: Option<Fingerprint>,
        /// Its value; `None` is `1`.
        value: Option<&'a [u8]>,
    },
    /// The key's window ends at another time.
    Deadline {
        /// The key.
        key: Key<'a>,
        /// The last millisecond of its window.
        deadline: Millis,
    },
    /// The key is gone.
    Remove {
        /// The key.
        key: Key<'a>,
    },
}

/// Whether a shard may grow, and how far its memory reaches; its owner knows the bounds that many
/// shards share, and what became of their keys.
pub trait Room {
    /// Whether growing by so many keys and bytes (less what was evicted for it) is allowed.
    fn admits(&self, keys: isize, bytes: isize) -> bool;

    /// Whether a record that is there may grow by so many bytes: there is a reserve, so that work that was
    /// begun can be ended where nothing new is taken any more.
    fn admits_of_reserve(&self, bytes: isize) -> bool {
        self.admits(0, bytes)
    }

    /// Takes note that something is refused since the last growth was not allowed; tells why that was.
    fn refused(&self) -> Denial {
        Denial::Memory
    }

    /// Whether keys may be evicted to make room.
    fn evicts(&self) -> bool;

    /// Gives back what has lapsed in other shards, where that stands in the way.
    fn reclaim_elsewhere(&self, _now: Millis) {}

    /// Evicts a key of another shard, where this one has none left to give; false if that cannot be done.
    fn evict_elsewhere(&self, _now: Millis) -> bool {
        false
    }

    /// Takes note that a live key with this deadline was evicted.
    fn evicted(&self, _deadline: Millis) {}

    /// Whether a key that was seen in the last `ttl_ms` may be missing: lost or evicted.
    fn may_have_lost(&self, _ttl_ms: u64, _now: Millis) -> bool {
        false
    }
}

/// Room without end.
#[derive(Clone, Copy, Debug)]
pub struct Unbounded;

impl Room for Unbounded {
    fn admits(&self, _keys: isize, _bytes: isize) -> bool {
        true
    }

    fn evicts(&self) -> bool {
        false
    }
}

/// Why a shard may not grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// The memory that all share is used.
    Memory,
    /// The namespace has as many keys as it may have.
    Keys,
    /// The log takes no change.
    Disk,
    /// The namespace is closed, and another will answer for it.
    Closed,
}

/// What became of the keys of a shard since it was made; survives [`super::Shard::clear`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Answers [`Verdict::New`] and [`Verdict::Unsure`]: keys remembered.
    pub new: u64,
    /// Answers [`Verdict::Dup`].
    pub dup: u64,
    /// Answers [`Verdict::Mismatch`].
    pub mismatch: u64,
    /// Of those, answers [`Verdict::Unsure`].
    pub unsure: u64,
    /// Keys whose window ended.
    pub expired: u64,
    /// Keys dropped before their window ended, to make room.
    pub evicted: u64,
    /// Answers [`Verdict::Full`], and the like for records.
    pub full: u64,
    /// Those of them for want of memory.
    pub full_memory: u64,
    /// Those for the namespace's bound on keys.
    pub full_keys: u64,
    /// Those for want of space in the log.
    pub full_disk: u64,
    /// Of records: how often somebody was told to do the work.
    pub begun: u64,
    /// How often somebody was told that another is at work.
    pub busy: u64,
    /// How often somebody was given what came of the work.
    pub replayed: u64,
    /// Records completed.
    pub completed: u64,
    /// Records that failed for good.
    pub failed: u64,
    /// How often the holder of a token gave up.
    pub released: u64,
    /// How often somebody came with a token that was not the record's any more.
    pub stale: u64,
}

impl Counters {
    /// Counts a refusal for this reason.
    pub(super) fn refuse(&mut self, denial: Denial) {
        self.full += 1;
        match denial {
            Denial::Memory => self.full_memory += 1,
            Denial::Keys => self.full_keys += 1,
            Denial::Disk => self.full_disk += 1,
            Denial::Closed => {}
        }
    }

    /// Adds another shard's counts.
    pub fn add(&mut self, other: &Self) {
        self.new += other.new;
        self.dup += other.dup;
        self.mismatch += other.mismatch;
        self.unsure += other.unsure;
        self.expired += other.expired;
        self.evicted += other.evicted;
        self.full += other.full;
        self.full_memory += other.full_memory;
        self.full_keys += other.full_keys;
        self.full_disk += other.full_disk;
        self.begun += other.begun;
        self.busy += other.busy;
        self.replayed += other.replayed;
        self.completed += other.completed;
        self.failed += other.failed;
        self.released += other.released;
        self.stale += other.stale;
    }
}
