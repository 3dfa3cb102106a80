//! How a namespace is emptied: for good, or so that records in progress stay.
//!
//! It is empty from one moment on: all shards are locked, and each gives away its table as a whole. That
//! takes no time for a key. What was taken out is given back a shard at a time, where nobody waits for it.
//!
//! Records in progress that are to stay are copied before that moment, a slice at a time, and a change of one
//! that comes in between is made to the copy too ([`Namespace::follow`]): so at the moment the copies are what
//! was in progress then, and take the place of the tables.
//!
//! In the log a namespace that is emptied gets another number, and what was stored under the one before is
//! gone. The copies are appended as they are made, under that number, of which nothing was said yet; the
//! moment is when it is said. So wherever the log ends, it has the namespace as it was, or all that stays. Who
//! needs a number for a new namespace meanwhile makes that number void, and the copying begins anew.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::{Mutex, MutexGuard};

use super::Namespace;
use crate::engine::journal::Staying;
use crate::engine::slice::{PLACE_UNITS, RECORD_UNITS, Slice};
use crate::log::control::SetEnds;
use crate::log::writer;
use crate::store::{Entry, Key, Secret, Shard};
use crate::time::Millis;

/// Places that one lock is held for while records are copied: a block of the table.
const COPY_PLACES: u32 = 768;

/// Parts of a shard that are copied one after the other, at most.
const PARTS_LOG2_MAX: u32 = 20;

/// Why a namespace was not emptied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Kept {
    /// The log has no space to say so.
    NoSpace,
    /// There are records in progress.
    InProgress,
    /// Something came in between, and it is to be tried again.
    Lost,
}

/// What was emptied, for the sweeper to give back.
pub(in crate::engine) type Garbage = Arc<Mutex<Vec<Shard>>>;

/// Copies of the records in progress of a namespace.
#[derive(Debug)]
pub(super) struct Copies {
    /// Of each shard; those whose copying was not begun are empty.
    shards: Vec<Shard>,
    /// How many shards are copied whole, and up to where the next one is.
    whole: usize,
    walk: Walk,
    /// The number that they are in the log under.
    number: Option<u32>,
    /// Why they are of no use.
    failed: Option<Kept>,
}

/// How far the search for a record in progress has come, in a namespace that is to go if there is none.
#[derive(Debug, Default)]
pub(in crate::engine) struct Search {
    shard: usize,
    cursor: u32,
    /// How many had been begun there ever, when it began: if no more were since, what was not found is not there.
    begun: Option<u64>,
}

/// How many records were ever begun in these shards.
fn begun<'s>(shards: impl IntoIterator<Item = &'s Shard>) -> u64 {
    shards.into_iter().map(|shard| shard.counters().begun).sum()
}

/// A walk through all of a shard's hash space, part after part, in an order that spreads over it.
///
/// A copy that is filled in the order of its hashes grows at one end alone: its table would have to be far
/// deeper there than elsewhere, which it does for nobody, and keys would go to its stash by the thousand.
#[derive(Debug, Default)]
struct Walk {
    /// There are two to the power of so many parts; `None` before it is begun.
    parts_log2: Option<u32>,
    part: u32,
    /// A scan's cursor, within the part or at its beginning.
    cursor: u32,
}

impl Walk {
    /// Chooses the parts for so many keys, if they were not yet: of about a block each.
    fn begin(&mut self, keys: usize) {
        let parts = (keys / COPY_PLACES as usize).max(1).next_power_of_two();
        self.parts_log2
            .get_or_insert(parts.ilog2().min(PARTS_LOG2_MAX));
    }

    /// Goes on where a scan ended; whether there is more.
    fn go_on(&mut self, next: Option<u32>) -> bool {
        let log2 = self.parts_log2.unwrap_or(0);
        let begins = self.part.reverse_bits();
        if let Some(at) = next.filter(|at| (at ^ begins).leading_zeros() >= log2) {
            self.cursor = at;
            return true;
        }
        self.part += 1;
        // The bits of its number from behind are the first ones of its hashes.
        self.cursor = self.part.reverse_bits();
        self.part >> log2 == 0
    }
}

/// A namespace that is being emptied, but for its records in progress. What was copied is given up when this
/// is dropped.
#[derive(Debug)]
pub(in crate::engine) struct Emptying {
    namespace: Arc<Namespace>,
    garbage: Garbage,
}

impl Emptying {
    /// Begins to copy; `None` while another does so.
    fn begin(namespace: &Arc<Namespace>, garbage: &Garbage) -> Option<Self> {
        let mut copies = namespace.copies.lock();
        if copies.is_some() {
            return None;
        }
        let number = match namespace.log() {
            Some(log) => Some(log.keep_number()?),
            None => None,
        };
        *copies = Some(Copies {
            shards: Vec::new(),
            whole: 0,
            walk: Walk::default(),
            number,
            failed: None,
        });
        namespace.is_copied.store(true, Ordering::Release);
        Some(Self {
            namespace: Arc::clone(namespace),
            garbage: Arc::clone(garbage),
        })
    }
}

impl Drop for Emptying {
    fn drop(&mut self) {
        let garbage = self.namespace.give_up_copies();
        self.garbage.lock().extend(garbage);
    }
}

impl Namespace {
    /// Takes all keys out, so that all of this moment and before may be missing, but for records in progress
    /// if these are spared; a slice at a time. Returns whether it is done. The bytes of what was taken out stay
    /// counted until it is dropped as garbage.
    pub(in crate::engine) fn empty(
        self: &Arc<Self>,
        emptying: &mut Option<Emptying>,
        (spares, garbage): (bool, &Garbage),
        secret: &Secret,
        slice: &mut Slice,
        now: Millis,
    ) -> Result<bool, Kept> {
        let has_running = |shard: &Mutex<Shard>| shard.lock().running() > 0;
        if emptying.is_none() && spares && self.shards.iter().any(|shard| has_running(shard)) {
            if self.keeps_digests && self.log().is_some() {
                // The log would have to know keys of which nobody else does.
                return Err(Kept::InProgress);
            }
            *emptying = Emptying::begin(self, garbage);
            if emptying.is_none() {
                // Another is at it.
                return Ok(false);
            }
        }
        let done = match emptying {
            Some(_) if !self.copy(secret, slice, now)? => return Ok(false),
            Some(_) => self.become_copies(now),
            None => self.clear(spares, now),
        };
        match done {
            Ok(taken) => garbage.lock().extend(taken),
            Err(Kept::Lost) => {
                *emptying = None;
                return Ok(false);
            }
            Err(kept) => return Err(kept),
        }
        *emptying = None;
        Ok(true)
    }

    /// Copies records in progress until the slice is over; whether these were the last.
    fn copy(&self, secret: &Secret, slice: &mut Slice, now: Millis) -> Result<bool, Kept> {
        while !slice.is_over() {
            let at = self.copies.lock().as_ref().map(|copies| copies.whole);
            let Some(shard) = at.and_then(|at| self.shards.get(at)) else {
                return Ok(true);
            };
            // In the order in which those who change a record lock them.
            let shard = shard.lock();
            let mut copies = self.copies.lock();
            let Some(copies) = copies.as_mut().filter(|copies| Some(copies.whole) == at) else {
                return Ok(true);
            };
            if let Some(failed) = copies.failed {
                return if failed == Kept::Lost {
                    Ok(true)
                } else {
                    Err(failed)
                };
            }
            self.copy_some(&shard, copies, secret, slice, now);
        }
        Ok(false)
    }

    /// Copies the records in progress of some places of a shard, which is locked.
    fn copy_some(
        &self,
        shard: &MutexGuard<'_, Shard>,
        copies: &mut Copies,
        secret: &Secret,
        slice: &mut Slice,
        now: Millis,
    ) {
        if copies.shards.len() == copies.whole {
            copies.shards.push(Shard::default());
        }
        let mut staying = self.log().map(Staying::new);
        let copy = &mut copies.shards[copies.whole];
        let before = copy.bytes() as isize;
        let is_whole = shard.running() == 0 || {
            let walk = &mut copies.walk;
            walk.begin(shard.len());
            slice.spend(COPY_PLACES as usize * PLACE_UNITS);
            let next = shard.scan_running(walk.cursor, COPY_PLACES, secret, now, |key, entry| {
                slice.spend(RECORD_UNITS);
                // What lies behind the part may come twice, and is the same then.
                copy.keep_record(key, &entry, now);
                if let Some(staying) = &mut staying {
                    staying.push(key, &entry);
                }
            });
            !walk.go_on(next)
        };
        self.budget.change(copy.bytes() as isize - before);
        if let (Some(staying), Some(number)) = (staying, copies.number) {
            copies.failed = staying.append(number).err();
        }
        if is_whole {
            copies.whole += 1;
            copies.walk = Walk::default();
        }
    }

    /// Makes a change that was just made to a key of this shard, which is locked, to the copy of its record.
    #[inline]
    pub(in crate::engine) fn follow(&self, shard: &Shard, key: &Key<'_>, now: Millis) {
        if self.is_copied.load(Ordering::Acquire) {
            self.follow_copied(shard, key, now);
        }
    }

    #[cold]
    fn follow_copied(&self, shard: &Shard, key: &Key<'_>, now: Millis) {
        let mut copies = self.copies.lock();
        let Some(copies) = copies.as_mut() else {
            return;
        };
        let entry = shard.get(key, now);
        let running =
            entry.filter(|entry| entry.record().is_some_and(|record| record.is_running()));
        if running.is_some() && self.keeps_digests && copies.number.is_some() {
            copies.failed = Some(Kept::InProgress);
        }
        // That of a shard whose copying was not begun will find it as it is then.
        let Some(copy) = copies.shards.get_mut(self.index(key)) else {
            return;
        };
        let mut staying = self.log().map(Staying::new);
        let before = copy.get(key, now).map(|entry| entry.deadline);
        let bytes = copy.bytes() as isize;
        if let (Some(before), Some(staying)) = (before, &mut staying)
            && running.is_none_or(|entry| entry.deadline < before)
        {
            staying.push_removal(key, before);
        }
        match running {
            Some(entry) => {
                copy.keep_record(key, &entry, now);
                if let Some(staying) = &mut staying {
                    staying.push(key, &entry);
                }
            }
            None => {
                copy.remove(key, now);
            }
        }
        self.budget.change(copy.bytes() as isize - bytes);
        if let (Some(staying), Some(number)) = (staying, copies.number)
            && let Err(kept) = staying.append(number)
        {
            copies.failed = copies.failed.or(Some(kept));
        }
    }

    /// The moment: the copies take the place of all there is.
    fn become_copies(&self, now: Millis) -> Result<Vec<Shard>, Kept> {
        let _no_other_policy_meanwhile = self.policy_change.lock();
        let mut shards: Vec<_> = self.shards.iter().map(|shard| shard.lock()).collect();
        let mut locked = self.copies.lock();
        let Some(copies) = locked.as_mut() else {
            // All that was to go went, and more with it; or another begins anew.
            return Err(Kept::Lost);
        };
        if let Some(failed) = copies.failed {
            return Err(failed);
        }
        if copies.whole < shards.len() {
            return Err(Kept::Lost);
        }
        if let (Some(log), Some(number)) = (self.log(), copies.number) {
            let mut space = self.space(&self.policy());
            space.id = number;
            space.covered_since = space.covered_since.max(now.after(1));
            space.set = space.set.map(|_| SetEnds::default());
            match log.append_emptied(&space, || self.set_logged_as(number)) {
                writer::Emptied::Said => self.set_unsure_logged(space.unsure_until),
                writer::Emptied::NoSpace => return Err(Kept::NoSpace),
                writer::Emptied::Lost => return Err(Kept::Lost),
            }
        }
        self.raise_lost_until(now);
        self.as_set.begin_anew();
        let copies = std::mem::take(&mut copies.shards);
        let taken = shards.iter_mut().zip(copies).filter_map(|(shard, copy)| {
            let taken = self.take_all(shard);
            self.keys.fetch_add(copy.len() as i64, Ordering::Relaxed);
            shard.take_over(copy);
            taken
        });
        let taken = taken.collect();
        *locked = None;
        self.is_copied.store(false, Ordering::Release);
        Ok(taken)
    }

    /// Takes all keys out at once, if none is in progress or none is spared.
    fn clear(&self, spares: bool, now: Millis) -> Result<Vec<Shard>, Kept> {
        let _no_other_policy_meanwhile = self.policy_change.lock();
        let mut shards: Vec<_> = self.shards.iter().map(|shard| shard.lock()).collect();
        if self.is_closed() {
            // It has no key, and by now the log may know another by its name.
            return Ok(Vec::new());
        }
        if spares && shards.iter().any(|shard| shard.running() > 0) {
            // One was begun since it was looked.
            return Err(Kept::Lost);
        }
        let logged = self.log_space(|space| {
            space.id = 0;
            space.covered_since = space.covered_since.max(now.after(1));
            space.set = space.set.map(|_| SetEnds::default());
        });
        logged.map_err(|_no_space| Kept::NoSpace)?;
        self.raise_lost_until(now);
        self.as_set.begin_anew();
        let mut taken: Vec<_> = shards
            .iter_mut()
            .filter_map(|shard| self.take_all(shard))
            .collect();
        // What another copies is gone.
        taken.extend(self.give_up_copies());
        Ok(taken)
    }

    /// Takes all keys out at once, if none is in progress.
    pub(in crate::engine) fn empty_at_once(&self, now: Millis) -> Result<Vec<Shard>, Kept> {
        self.clear(true, now)
    }

    /// Copies that are of no use any more.
    fn give_up_copies(&self) -> Vec<Shard> {
        let copies = self.copies.lock().take();
        self.is_copied.store(false, Ordering::Release);
        let Some(copies) = copies else {
            return Vec::new();
        };
        if let (Some(log), Some(number)) = (self.log(), copies.number) {
            log.lose_number(number);
        }
        copies.shards
    }

    /// Looks for a record in progress, a slice at a time; whether all was looked through and there is none.
    pub(in crate::engine) fn search(
        &self,
        search: &mut Search,
        secret: &Secret,
        slice: &mut Slice,
        now: Millis,
    ) -> Result<bool, Kept> {
        let count = || {
            self.shards
                .iter()
                .map(|shard| begun([&*shard.lock()]))
                .sum()
        };
        search.begun.get_or_insert_with(count);
        while let Some(shard) = self.shards.get(search.shard) {
            if slice.is_over() {
                return Ok(false);
            }
            let shard = shard.lock();
            let (mut any, mut next) = (false, None);
            if shard.running() > 0 {
                // Those whose window has ended are there until they are swept.
                slice.spend(COPY_PLACES as usize * PLACE_UNITS);
                let found = |_: &Key<'_>, _: Entry<'_>| any = true;
                next = shard.scan_running(search.cursor, COPY_PLACES, secret, now, found);
            }
            if any {
                return Err(Kept::InProgress);
            }
            search.shard += usize::from(next.is_none());
            search.cursor = next.unwrap_or(0);
        }
        Ok(true)
    }

    /// Takes all keys out and no more in, since it is to be gone; once `log` says that the log knows.
    pub(in crate::engine) fn close_for_good(
        &self,
        searched: Option<&Search>,
        is_logged: impl FnOnce() -> bool,
        now: Millis,
    ) -> Result<Vec<Shard>, Kept> {
        let mut shards: Vec<_> = self.shards.iter().map(|shard| shard.lock()).collect();
        if let Some(searched) = searched
            && shards.iter().any(|shard| shard.running() > 0)
            && searched.begun != Some(begun(shards.iter().map(|shard| &**shard)))
        {
            // One was begun since.
            return Err(Kept::Lost);
        }
        if !is_logged() {
            return Err(Kept::NoSpace);
        }
        // Who is under way finds it closed, and goes to one that is made anew.
        self.closed.store(true, Ordering::Relaxed);
        self.mark_dropped();
        self.raise_lost_until(now);
        let taken = shards.iter_mut().filter_map(|shard| self.take_all(shard));
        let mut taken: Vec<_> = taken.collect();
        taken.extend(self.give_up_copies());
        Ok(taken)
    }

    /// Takes all keys out of what nobody looks at any more.
    pub(in crate::engine) fn take_out(&self) -> Vec<Shard> {
        let shards = self.shards.iter();
        shards
            .filter_map(|shard| self.take_all(&mut shard.lock()))
            .collect()
    }

    fn take_all(&self, shard: &mut Shard) -> Option<Shard> {
        if shard.is_empty() {
            return None;
        }
        let old = shard.clear();
        self.keys.fetch_sub(old.len() as i64, Ordering::Relaxed);
        Some(old)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Engine, EngineConfig};
    use crate::store::Begin;

    #[test]
    fn a_walk_comes_through_every_part_once() {
        for keys in [0, 1, 767, 768, 1_536, 100_000] {
            let mut walk = Walk::default();
            walk.begin(keys);
            let log2 = walk.parts_log2.unwrap();
            let mut seen = vec![false; 1 << log2];
            loop {
                let at = if log2 == 0 {
                    0
                } else {
                    walk.cursor >> (32 - log2)
                };
                assert!(!std::mem::replace(&mut seen[at as usize], true), "{keys}");
                if !walk.go_on(None) {
                    break;
                }
            }
            assert!(seen.iter().all(|seen| *seen), "{keys}");
        }
    }

    /// In the order of their hashes most copies went to the stash, which took more memory and was gone
    /// through as a whole for each block that was copied the next time.
    #[test]
    fn what_was_copied_takes_no_more_than_before() {
        const RECORDS: u64 = 60_000;
        let engine = Engine::new(EngineConfig {
            shards: 1,
            ..EngineConfig::default()
        });
        let namespace = engine.open("orders").unwrap();
        let ask = Begin {
            lease_ms: 60_000,
            ttl_ms: 60_000,
            ..Begin::default()
        };
        for n in 0..RECORDS {
            engine.begin(&namespace, &n.to_le_bytes(), &ask, Millis(1));
        }
        let before = namespace.bytes();
        let mut emptying = None;
        let how = (true, &engine.garbage);
        for _ in 0..1_000_000 {
            let slice = &mut Slice::new();
            if namespace.empty(&mut emptying, how, &engine.secret, slice, Millis(2)) == Ok(true) {
                break;
            }
        }
        assert_eq!(namespace.keys(), RECORDS);
        let after = namespace.bytes();
        assert!(after <= before + before / 8, "{before} bytes, then {after}");
    }
}
