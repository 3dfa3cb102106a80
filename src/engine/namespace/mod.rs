//! A namespace: a name, a policy, and shards behind locks.
//!
//! A key's hash chooses its shard; one lock is taken per key, and nothing waits while it is
//! held. What a change does to the memory and key counts is published before the lock is
//! released.
//!
//! It also knows how far its memory reaches: from which moment on nothing was lost, and until when
//! something may be missing that was evicted. What is lost is published under the lock under which
//! it goes, and read under the lock under which a key is not found.
//!
//! | file | what |
//! |---|---|
//! | here | its shards and how they are locked, its name, its counts, how far it reaches |
//! | `policy` | what it does where a request does not say |
//! | `emptying` | how all keys are taken out of it, or all but the records in progress |
//! | `room` | whether a shard of it may grow |
//! | `as_set` | what it is as a set of Redis's |
//! | `together` | the shards of several keys, locked at a time |

mod as_set;
mod emptying;
mod policy;
mod room;
mod together;

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crossbeam::utils::CachePadded;
use parking_lot::{Mutex, MutexGuard};

use self::as_set::AsSet;
use self::emptying::Copies;
pub(super) use self::emptying::{Emptying, Garbage, Kept, Search};
pub use self::policy::Policy;
use self::policy::SharedPolicy;
pub(super) use self::room::NamespaceRoom;
pub(super) use self::together::Together;
use super::budget::Budget;
use super::journal::{Promise, Refused, Writing};
use crate::command::{Error, PolicyChange};
use crate::limits::Limits;
use crate::log::control::Space;
use crate::log::writer::Log;
use crate::store::{Counters, Denial, Hashed, Key, Secret, Shard, WindowMode};
use crate::time::Millis;

/// How far a namespace's memory reaches. Beside the policy, which every request reads: both change
/// seldom, since of keys that are evicted only one with a later deadline than all before changes it.
#[derive(Debug)]
struct Reach {
    covered_since: AtomicU64,
    unsure_until: AtomicU64,
}

impl Reach {
    #[inline]
    fn may_have_lost(&self, ttl_ms: u64, now: Millis) -> bool {
        now.0.saturating_sub(ttl_ms) < self.covered_since.load(Ordering::Relaxed)
            || now.0 < self.unsure_until.load(Ordering::Relaxed)
    }
}

/// Lets a moment be no earlier than this; writes to it only where that changes it.
fn raise(moment: &AtomicU64, at: Millis) {
    if moment.load(Ordering::Relaxed) < at.0 {
        moment.fetch_max(at.0, Ordering::Relaxed);
    }
}

/// Keys that have nothing to do with those of other namespaces.
#[derive(Debug)]
pub struct Namespace {
    /// No other has or had it.
    id: u64,
    name: Arc<str>,
    shards: Box<[CachePadded<Mutex<Shard>>]>,
    /// Whether only a digest is kept of long keys. Never changed: keys of both kinds would not know
    /// each other.
    keeps_digests: bool,
    policy: SharedPolicy,
    reach: Reach,
    as_set: AsSet,
    /// Changes of the policy, and of what it is as a set, come one at a time.
    policy_change: Mutex<()>,
    keys: CachePadded<AtomicI64>,
    /// What is counted of it beside its keys.
    own_bytes: usize,
    dropped: AtomicBool,
    /// Set only while all shards are locked, so that who has one locked sees it.
    closed: AtomicBool,
    budget: Arc<Budget>,
    log: LogSlot,
    /// Its number in the log; 0 without one. Changed only while all shards are locked.
    logged_as: AtomicU32,
    /// What the log has as its `unsure_until`.
    unsure_logged: AtomicU64,
    /// The latest `unsure_until` there has been: the log may still hold what was evicted, covered or not.
    evicted_until: AtomicU64,
    /// The records in progress, while all else is about to go. Locked after a shard.
    copies: Mutex<Option<Copies>>,
    /// Whether there are copies; who has a shard locked sees it before that of the shard is begun.
    is_copied: AtomicBool,
    /// Why something was refused last, as a number.
    last_denial: AtomicU8,
}

/// Where a log will be, once what it holds was read.
pub(super) type LogSlot = Arc<OnceLock<Arc<Log>>>;

/// How much further than necessary the log says that answers are unsure, so that it need not say so again
/// for every key that is evicted, in milliseconds.
const UNSURE_AHEAD_MS: u64 = 60_000;

impl Namespace {
    pub(super) fn new(
        name: &str,
        shards: usize,
        policy: &Policy,
        keeps_digests: bool,
        budget: Arc<Budget>,
        log: LogSlot,
    ) -> Self {
        static LAST_ID: AtomicU64 = AtomicU64::new(0);
        debug_assert!(shards.is_power_of_two());
        Self {
            id: LAST_ID.fetch_add(1, Ordering::Relaxed),
            name: name.into(),
            shards: (0..shards)
                .map(|_| {
                    let mut shard = Shard::default();
                    shard.count_in(Arc::clone(&budget) as _);
                    CachePadded::new(Mutex::new(shard))
                })
                .collect(),
            keeps_digests,
            policy: SharedPolicy::new(policy),
            reach: Reach {
                covered_since: AtomicU64::new(0),
                unsure_until: AtomicU64::new(0),
            },
            as_set: AsSet::default(),
            policy_change: Mutex::new(()),
            keys: CachePadded::new(AtomicI64::new(0)),
            own_bytes: 0,
            dropped: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            budget,
            log,
            logged_as: AtomicU32::new(0),
            unsure_logged: AtomicU64::new(0),
            evicted_until: AtomicU64::new(0),
            copies: Mutex::new(None),
            is_copied: AtomicBool::new(false),
            last_denial: AtomicU8::new(Denial::Memory as u8),
        }
    }

    #[inline]
    pub(super) fn log(&self) -> Option<&Log> {
        self.log.get().map(|log| &**log)
    }

    /// Its number in the log.
    #[inline]
    pub(super) fn logged_as(&self) -> u32 {
        self.logged_as.load(Ordering::Acquire)
    }

    /// Takes the number that the log knows it by.
    pub(super) fn set_logged_as(&self, id: u32) {
        // Who finds it here finds in the log that it has it: records under the one before may go then.
        self.logged_as.store(id, Ordering::Release);
    }

    /// What the log says of it, with this policy.
    pub(super) fn space(&self, policy: &Policy) -> Space {
        Space {
            id: self.logged_as(),
            name: self.name().to_owned(),
            keeps_digests: self.keeps_digests,
            ttl_ms: policy.ttl_ms,
            ttl_max_ms: policy.ttl_max_ms,
            slides: policy.mode == WindowMode::Slide,
            keys_max: policy.keys_max,
            evicts: policy.evict,
            reports_unsure: policy.reports_unsure,
            covered_since: self.covered_since(),
            // What the log has already may be ahead, and what it says later goes over it.
            unsure_until: self.unsure_until().max(self.unsure_logged()),
            set: self.as_set.ends(),
        }
    }

    /// Has the log say what it is, changed by `change`, before it is so.
    fn log_space(&self, change: impl FnOnce(&mut Space)) -> Result<(), Refused> {
        let Some(log) = self.log() else {
            return Ok(());
        };
        let mut space = self.space(&self.policy());
        change(&mut space);
        // Before anybody can read what is under it, or a compaction would think that nobody has it.
        if !log.append_named(&mut space, |id| self.set_logged_as(id)) {
            return Err(Refused);
        }
        self.set_unsure_logged(space.unsure_until);
        Ok(())
    }

    /// Has the log say that it is there.
    pub(super) fn log_birth(&self) -> Result<(), Refused> {
        self.log_space(|_| {})
    }

    /// Becomes what the log says it is, but for what it says of evicted keys.
    pub(super) fn become_as(&self, space: &Space) {
        self.policy.store(&Policy::of(space));
        self.set_logged_as(space.id);
        self.set_covered_since(space.covered_since);
        self.as_set.become_as(space.set);
    }

    /// Becomes as if it had just been made, and no log knew it; without its keys, which were taken out.
    pub(super) fn begin_anew(&self, policy: &Policy) {
        self.policy.store(policy);
        self.as_set.become_as(None);
        self.set_logged_as(0);
        for moment in [
            &self.reach.covered_since,
            &self.reach.unsure_until,
            &self.evicted_until,
        ] {
            moment.store(0, Ordering::Relaxed);
        }
    }

    /// Tells it from all others of this process, those of its name included.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// One that was dropped before anybody who has its name looks for it.
    pub(super) fn departed(name: &Arc<str>) -> Self {
        let policy = Policy::default_of(&Limits::DEFAULT);
        let nobodys = Arc::new(Budget::new(0));
        let departed = Self::new(name, 1, &policy, false, nobodys, LogSlot::default());
        departed.closed.store(true, Ordering::Relaxed);
        departed.mark_dropped();
        departed
    }

    /// Bytes that one of so many shards takes without any key.
    pub(super) const fn own_bytes_of(shards: usize) -> usize {
        size_of::<Self>() + shards * size_of::<CachePadded<Mutex<Shard>>>()
    }

    /// Counts what it takes without any key, for as long as anybody has it.
    pub(super) fn count_itself(&mut self) {
        self.own_bytes = Self::own_bytes_of(self.shards.len());
        self.budget.change(self.own_bytes as isize);
    }

    pub(super) fn shared_name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A key as this namespace keeps it.
    #[inline]
    pub fn key<'a>(&self, secret: &'a Secret, bytes: &'a [u8]) -> Key<'a> {
        self.hashed(secret, bytes).of(bytes, secret)
    }

    /// What remains of such a key without its bytes.
    #[inline]
    pub fn hashed(&self, secret: &Secret, bytes: &[u8]) -> Hashed {
        secret.hashed(bytes, self.keeps_digests)
    }

    /// Whether of a key that does not fit 16 bytes only a digest is kept.
    pub fn keeps_digests(&self) -> bool {
        self.keeps_digests
    }

    /// Its policy at this moment.
    pub fn policy(&self) -> Policy {
        self.policy.load()
    }

    /// Changes the policy, and with `covered` says that nothing is missing. A change that is refused for
    /// lack of space in the log changes nothing.
    pub(super) fn change_policy(
        &self,
        change: &PolicyChange,
        covered: bool,
    ) -> Result<Result<(), Refused>, Error> {
        let _one_at_a_time = self.policy_change.lock();
        let policy = self.policy.load().with(change)?;
        let unsure_until = self.unsure_until();
        let logged = self.log_space(|space| {
            *space = self.space(&policy);
            if covered {
                (space.covered_since, space.unsure_until) = (Millis(0), Millis(0));
            }
        });
        if logged.is_ok() {
            self.policy.store(&policy);
            if covered {
                // What is evicted meanwhile is missing again.
                self.cover(unsure_until);
            }
        }
        Ok(logged)
    }

    /// The moment from which on no key was lost; 0 if none ever was.
    pub fn covered_since(&self) -> Millis {
        Millis(self.reach.covered_since.load(Ordering::Relaxed))
    }

    /// Says from when on no key was lost.
    pub fn set_covered_since(&self, at: Millis) {
        self.reach.covered_since.store(at.0, Ordering::Relaxed);
    }

    /// The moment by which the windows of all keys that were evicted have ended; 0 if none was.
    pub fn unsure_until(&self) -> Millis {
        Millis(self.reach.unsure_until.load(Ordering::Relaxed))
    }

    /// Says that a key is missing whose window ends just before `at`.
    pub fn raise_unsure_until(&self, at: Millis) {
        raise(&self.reach.unsure_until, at);
        self.note_in_log(at);
    }

    /// Says that the log may hold a key that is not what memory has, with a window that ends just before
    /// `at`.
    pub(super) fn note_in_log(&self, at: Millis) {
        raise(&self.evicted_until, at);
    }

    /// Says that nothing is missing, whatever was lost or evicted.
    pub fn declare_covered(&self) {
        self.cover(self.unsure_until());
    }

    /// Says that nothing is missing, unless more was evicted than `unsure_until` says.
    fn cover(&self, unsure_until: Millis) {
        self.set_covered_since(Millis(0));
        let order = Ordering::Relaxed;
        let reach = &self.reach.unsure_until;
        let _else_it_stays = reach.compare_exchange(unsure_until.0, 0, order, order);
    }

    /// The latest deadline that the log may have for a key that was evicted; `None` if that has passed.
    #[inline]
    pub(super) fn evicted_until(&self, now: Millis) -> Option<Millis> {
        let until = self.evicted_until.load(Ordering::Relaxed);
        (until > now.0).then(|| Millis(until - 1))
    }

    /// Says that all keys of this moment and before may be lost.
    pub(super) fn raise_lost_until(&self, now: Millis) {
        raise(&self.reach.covered_since, now.after(1));
    }

    /// Reaches as far as one whose place it takes.
    pub(super) fn reach_as(&self, other: &Self) {
        self.set_covered_since(other.covered_since());
        self.raise_unsure_until(other.unsure_until());
    }

    /// Takes note of an evicted key, under the lock of its shard.
    fn note_evicted(&self, deadline: Millis) {
        // It would still be there in the last millisecond of its window.
        self.raise_unsure_until(deadline.after(1));
        self.log_unsure();
    }

    /// Has the log say until when answers are unsure, if it does not say so yet.
    ///
    /// It may be put off: where a policy is just being changed, or the log has no space. The records of keys
    /// that were evicted stay in the log [until then](Self::is_unsure_logged).
    pub(super) fn log_unsure(&self) {
        if self.log.get().is_some()
            && !self.is_unsure_logged()
            && let Some(_no_other_policy_meanwhile) = self.policy_change.try_lock()
        {
            let ahead = self.unsure_until().after(UNSURE_AHEAD_MS);
            let _it_is_tried_again = self.log_space(|space| space.unsure_until = ahead);
        }
    }

    /// Whether the log says of all that was evicted that it is missing.
    pub(super) fn is_unsure_logged(&self) -> bool {
        self.unsure_until() <= self.unsure_logged()
    }

    fn unsure_logged(&self) -> Millis {
        Millis(self.unsure_logged.load(Ordering::Relaxed))
    }

    /// Takes note of what the log says.
    pub(super) fn set_unsure_logged(&self, until: Millis) {
        self.unsure_logged.store(until.0, Ordering::Relaxed);
    }

    /// Takes note of why something was refused.
    fn note_denial(&self, denial: Denial) {
        self.budget.note_refusal(denial);
        self.last_denial.store(denial as u8, Ordering::Relaxed);
    }

    /// Why something was refused last, by whoever asked.
    pub(super) fn last_denial(&self) -> Denial {
        let number = self.last_denial.load(Ordering::Relaxed);
        let known = [Denial::Memory, Denial::Keys, Denial::Disk, Denial::Closed];
        let found = known.into_iter().find(|denial| *denial as u8 == number);
        found.unwrap_or(Denial::Memory)
    }

    /// Keys in memory, those whose window has ended but which were not swept yet included.
    pub fn keys(&self) -> u64 {
        self.keys.load(Ordering::Relaxed).max(0).unsigned_abs()
    }

    /// Bytes that its keys take.
    pub fn bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().bytes()).sum()
    }

    /// What became of its keys.
    pub fn counters(&self) -> Counters {
        let mut sum = Counters::default();
        for shard in &self.shards {
            sum.add(shard.lock().counters());
        }
        sum
    }

    /// Whether it was removed; who still holds it must look its name up again.
    pub fn is_dropped(&self) -> bool {
        self.dropped.load(Ordering::Acquire)
    }

    pub(super) fn mark_dropped(&self) {
        self.dropped.store(true, Ordering::Release);
    }

    /// Takes no new key from here on, if there is none; false, and nothing, if there are keys.
    pub(super) fn close(&self) -> bool {
        // All at once, or a key might be stored behind the look. Whoever else waits for one with another
        // locked takes them in this order too.
        let shards: Vec<_> = self.shards.iter().map(|shard| shard.lock()).collect();
        let is_empty = shards.iter().all(|shard| shard.is_empty());
        self.closed.store(is_empty, Ordering::Relaxed);
        is_empty
    }

    /// Takes new keys again, since no other is to answer for its name after all.
    pub(super) fn reopen(&self) {
        self.closed.store(false, Ordering::Relaxed);
    }

    /// Whether it takes no new key because another is to answer for its name.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    pub(super) fn shard_count(&self) -> usize {
        self.shards.len()
    }

    /// Reads the shard that the key belongs to.
    pub(super) fn read<R>(&self, key: &Key<'_>, read: impl FnOnce(&Shard) -> R) -> R {
        read(&self.shards[self.index(key)].lock())
    }

    /// Changes the shard that the key belongs to; `value` is what may be stored with it.
    pub(super) fn write<R>(
        &self,
        key: &Key<'_>,
        value: Option<&[u8]>,
        policy: &Policy,
        change: impl FnOnce(&mut Writing<'_, '_>, &mut NamespaceRoom<'_>) -> R,
    ) -> R {
        let promise = Promise::for_key(self.log(), key.bytes(), value);
        self.write_as_promised(key, promise, policy, change)
    }

    /// The same for a key that holds an idempotency record, or is to hold one with this body.
    pub(super) fn write_record<R>(
        &self,
        key: &Key<'_>,
        body: &[u8],
        policy: &Policy,
        change: impl FnOnce(&mut Writing<'_, '_>, &mut NamespaceRoom<'_>) -> R,
    ) -> R {
        let promise = Promise::for_record(self.log(), key.bytes(), body);
        self.write_as_promised(key, promise, policy, change)
    }

    #[inline]
    fn write_as_promised<R>(
        &self,
        key: &Key<'_>,
        mut promise: Promise<'_>,
        policy: &Policy,
        change: impl FnOnce(&mut Writing<'_, '_>, &mut NamespaceRoom<'_>) -> R,
    ) -> R {
        let index = self.index(key);
        let mut room = NamespaceRoom::new(self, index, policy);
        self.change(&mut self.shards[index].lock(), |shard| {
            let mut writing = Writing::new(shard, &mut promise, self);
            let result = change(&mut writing, &mut room);
            writing.finish();
            result
        })
    }

    /// Changes several keys of one shard; what that does is published at the end, so each change is
    /// to be [counted](NamespaceRoom::count) before the next asks for room. False, and nothing, if
    /// another thread has the shard and it is not to be waited for.
    pub(super) fn write_many(
        &self,
        index: usize,
        waits: bool,
        policy: &Policy,
        promise: &mut Promise<'_>,
        change: impl FnOnce(&mut Writing<'_, '_>, &mut NamespaceRoom<'_>),
    ) -> bool {
        let lock = &self.shards[index];
        let Some(mut shard) = lock.try_lock().or_else(|| waits.then(|| lock.lock())) else {
            return false;
        };
        let mut room = NamespaceRoom::for_many(self, index, policy, &shard);
        self.change(&mut shard, |shard| {
            let mut writing = Writing::new(shard, promise, self);
            change(&mut writing, &mut room);
            writing.finish();
        });
        true
    }

    /// Changes a shard by its number, in ways that are not logged. The room is the server's memory, and what
    /// has to go for it is evicted; each change is to be [counted](NamespaceRoom::count) before the next.
    pub(super) fn fill(
        &self,
        index: usize,
        change: impl FnOnce(&mut Shard, &mut NamespaceRoom<'_>),
    ) {
        let policy = Policy {
            keys_max: 0,
            evict: true,
            ..self.policy()
        };
        let mut shard = self.shards[index].lock();
        let mut room = NamespaceRoom::for_many(self, index, &policy, &shard);
        self.change(&mut shard, |shard| change(shard, &mut room));
    }

    /// Changes a shard that is locked, and counts what that does to keys and memory.
    fn change<R>(&self, shard: &mut Shard, change: impl FnOnce(&mut Shard) -> R) -> R {
        let (keys, bytes) = (shard.len() as i64, shard.bytes() as isize);
        let result = change(shard);
        let keys = shard.len() as i64 - keys;
        if keys != 0 {
            self.keys.fetch_add(keys, Ordering::Relaxed);
        }
        self.budget.change(shard.bytes() as isize - bytes);
        result
    }

    /// Reads a shard by its number.
    pub(super) fn read_shard<R>(&self, index: usize, read: impl FnOnce(&Shard) -> R) -> R {
        read(&self.shards[index].lock())
    }

    /// Reads a shard by its number, unless another thread has it.
    pub(super) fn read_shard_if_free(&self, index: usize, read: impl FnOnce(&Shard)) {
        if let Some(shard) = self.shards[index].try_lock() {
            read(&shard);
        }
    }

    /// [Moves](Shard::move_together) some of what a shard keeps.
    pub(super) fn move_together(&self, index: usize, cursor: u32) -> Option<u32> {
        let mut shard = self.shards[index].lock();
        let next = shard.move_together(cursor);
        MutexGuard::unlock_fair(shard);
        next
    }

    /// Gives back the memory of keys of one shard whose window has ended, in one step that looks at
    /// slots and a few that need not; returns how many slots that were, and whether there is more to do.
    pub(super) fn expire(&self, index: usize, now: Millis) -> (u64, bool) {
        const STEPS_MAX: usize = 16;
        let mut locked = self.shards[index].lock();
        let expired = self.change(&mut locked, |shard| {
            let before = shard.work_slots();
            let mut more = true;
            for _ in 0..STEPS_MAX {
                more = shard.expire(now, 1);
                if !more || shard.work_slots() > before {
                    break;
                }
            }
            (shard.work_slots() - before, more)
        });
        // Whoever waits for it is next: this thread may be back in a moment.
        MutexGuard::unlock_fair(locked);
        expired
    }

    fn index(&self, key: &Key<'_>) -> usize {
        self.index_of(&key.hashed())
    }

    /// The number of the shard that a key belongs to.
    #[inline]
    pub(super) fn index_of(&self, key: &Hashed) -> usize {
        key.shard_bits() as usize & (self.shards.len() - 1)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let bytes = self.bytes() + self.own_bytes;
        self.budget.change(-(bytes as isize));
    }
}
