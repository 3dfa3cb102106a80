//! Idempotency records in a shard: what [`super::record`] decides is carried out here.
//!
//! A record is stored beside markers, under the same keys, in the same table, with the same windows;
//! only it is never evicted. All that a method changes is one key.

use bytes::Bytes;

use super::aside::{Content, ContentRef};
use super::kept::StoredRecord;
use super::key::{Key, Secret};
use super::model::Room;
use super::record::{Begin, Begun, Ended, Held, Record, Settle, State};
use super::shard::{Entry, Shard};
use crate::time::Millis;

/// The answer to a `BEGIN`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Do the work.
    Run {
        /// Proves it: only with the token that was given last can the record be changed.
        token: u64,
        /// How long nobody else is told to, in milliseconds.
        lease_ms: u64,
        /// How often the work was begun, this time included.
        attempt: u32,
        /// Whether it may have been done before: the memory does not reach back that far.
        is_unsure: bool,
        /// Whether this owner was told so before, and nothing was changed.
        is_repeat: bool,
    },
    /// Somebody else is at work, or is to be next.
    Busy {
        /// The last millisecond of that one's lease.
        lease_end: Millis,
        /// The token that was given last; 0 if none was.
        token: u64,
    },
    /// The key holds no record: it was only seen, which counts as done.
    Seen,
    /// The work was done, or failed for good.
    Settled(Settled),
    /// The key came with another fingerprint.
    Mismatch,
    /// There is no room for a record, or no token to give; nothing was changed.
    Full,
}

/// What came of the work behind a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Whether it failed for good.
    pub is_failure: bool,
    /// What its holder said of it.
    pub code: u32,
    /// What its holder left for those who ask later.
    pub body: Bytes,
}

/// The answer to the holder of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holding {
    /// It is done, or was before.
    Ok,
    /// Another token was given since, or the work was settled or given up.
    Stale,
    /// There is no record.
    Gone,
    /// The record has another fingerprint.
    Mismatch,
    /// There is no room for what it leaves; nothing was changed.
    Full,
}

/// What a changed record may take of the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Growth {
    /// What it needs: that is little, or it frees more.
    Little,
    /// What markers give way for, and beyond that what is kept back for work that was begun.
    Reserve,
}

/// What is to become of a record, with nothing borrowed from where it is kept.
enum Decided {
    Becomes(Content, Millis),
    Told(Holding),
}

impl Decided {
    fn of(ended: &Ended<'_>, key: &Key<'_>) -> Self {
        Self::Told(match ended {
            Ended::Becomes(record, deadline) => {
                return Self::Becomes(Content::Record(StoredRecord::new(key, record)), *deadline);
            }
            Ended::AsItIs => Holding::Ok,
            Ended::Stale => Holding::Stale,
            Ended::Gone => Holding::Gone,
            Ended::Mismatch => Holding::Mismatch,
        })
    }

    fn is_change(&self) -> bool {
        matches!(self, Self::Becomes(..))
    }
}

impl Shard {
    /// Tells whether to do the work behind a key. `token` is asked for a new token, above all that were
    /// given, if the work is to be done.
    pub fn begin(
        &mut self,
        key: &Key<'_>,
        ask: &Begin<'_>,
        token: impl FnOnce() -> u64,
        room: &mut impl Room,
        now: Millis,
    ) -> Claim {
        let held = self.held(key, now);
        let is_absent = matches!(held, Held::Nothing);
        let (record, deadline) = match held.begin(ask, now) {
            Begun::Run { record, deadline } => (record, deadline),
            begun => {
                let claim = self.claim_of(&begun, key, (ask, room), now);
                self.count(&claim);
                return claim;
            }
        };
        // Before anything is evicted for it.
        let is_unsure = is_absent && room.may_have_lost(ask.ttl_ms, now);
        if ask.lacks_token {
            self.counters.full += 1;
            return Claim::Full;
        }
        if !room.admits(0, 0) {
            self.counters.refuse(room.refused());
            return Claim::Full;
        }
        let (token, attempt) = (token(), record.attempt);
        let content = Content::Record(StoredRecord::new(key, &Record { token, ..record }));
        if !self.become_record(key, content, deadline, Growth::Reserve, room, now) {
            self.counters.refuse(room.refused());
            return Claim::Full;
        }
        self.counters.begun += 1;
        self.counters.unsure += u64::from(is_unsure);
        Claim::Run {
            token,
            lease_ms: ask.lease_ms,
            attempt,
            is_unsure,
            is_repeat: false,
        }
    }

    /// What a claim that changes nothing comes to.
    fn claim_of(
        &self,
        begun: &Begun<'_>,
        key: &Key<'_>,
        (ask, room): (&Begin<'_>, &impl Room),
        now: Millis,
    ) -> Claim {
        let settled = |is_failure, code| {
            let body = self.get(key, now).map(|entry| entry.body());
            Claim::Settled(Settled {
                is_failure,
                code,
                body: body.unwrap_or_default(),
            })
        };
        match *begun {
            Begun::Again {
                token,
                lease_ms,
                attempt,
                began,
            } => Claim::Run {
                token,
                lease_ms,
                attempt,
                // As it was told then; only who was the first could not be sure.
                is_unsure: attempt == 1 && room.may_have_lost(ask.ttl_ms, began),
                is_repeat: true,
            },
            Begun::Busy { lease_end, token } => Claim::Busy { lease_end, token },
            Begun::Seen => Claim::Seen,
            Begun::Completed(outcome) => settled(false, outcome.code),
            Begun::Failed(outcome) => settled(true, outcome.code),
            Begun::Mismatch => Claim::Mismatch,
            Begun::Run { .. } => Claim::Full,
        }
    }

    fn count(&mut self, claim: &Claim) {
        match claim {
            Claim::Busy { .. } => self.counters.busy += 1,
            Claim::Settled(_) | Claim::Seen => self.counters.replayed += 1,
            Claim::Mismatch => self.counters.mismatch += 1,
            Claim::Run { .. } | Claim::Full => {}
        }
    }

    /// Extends the lease of who holds this token; also tells how long it lasts from now, in milliseconds.
    pub fn renew(
        &mut self,
        key: &Key<'_>,
        token: u64,
        lease_ms: Option<u64>,
        room: &mut impl Room,
        now: Millis,
    ) -> (Holding, u64) {
        let renewed = self.held(key, now).renew(token, lease_ms, now);
        let lease_ms = match renewed {
            Ended::Becomes(
                Record {
                    state: State::Running { lease_ms, .. },
                    ..
                },
                _,
            ) => lease_ms,
            _ => 0,
        };
        let decided = Decided::of(&renewed, key);
        (
            self.carry_out(decided, key, Growth::Little, room, now),
            lease_ms,
        )
    }

    /// Settles the work of who holds this token: it was done, or failed for good. Also tells whether that
    /// changed anything.
    pub fn settle(
        &mut self,
        key: &Key<'_>,
        token: u64,
        settle: &Settle<'_>,
        room: &mut impl Room,
        now: Millis,
    ) -> (Holding, bool) {
        let decided = Decided::of(&self.held(key, now).settle(token, settle, now), key);
        let growth = if settle.outcome.body.is_empty() {
            Growth::Little
        } else {
            Growth::Reserve
        };
        let is_change = decided.is_change();
        let told = self.carry_out(decided, key, growth, room, now);
        let is_change = is_change && told == Holding::Ok;
        if is_change {
            let counter = if settle.is_failure {
                &mut self.counters.failed
            } else {
                &mut self.counters.completed
            };
            *counter += 1;
        }
        (told, is_change)
    }

    /// Lets anybody begin the work of who holds this token. Also tells whether that changed anything.
    pub fn release(
        &mut self,
        key: &Key<'_>,
        token: u64,
        room: &mut impl Room,
        now: Millis,
    ) -> (Holding, bool) {
        let decided = Decided::of(&self.held(key, now).release(token), key);
        let is_change = decided.is_change();
        let told = self.carry_out(decided, key, Growth::Little, room, now);
        let is_change = is_change && told == Holding::Ok;
        self.counters.released += u64::from(is_change);
        (told, is_change)
    }

    /// How many records are running, whether or not their window has ended.
    pub fn running(&self) -> usize {
        self.table.asides.running() + self.stashed_running().count()
    }

    /// Whether any record is running whose window has not ended.
    pub fn has_running(&self, now: Millis) -> bool {
        let Some(secret) = &self.table.secret else {
            return false;
        };
        let mut any = false;
        self.each_running(secret, now, |_, _| any = true);
        any
    }

    /// Keeps a record that another shard holds, whatever room it takes; false if it is none.
    pub fn keep_record(&mut self, key: &Key<'_>, entry: &Entry<'_>, now: Millis) -> bool {
        let Some(record) = entry.record() else {
            return false;
        };
        let content = Content::Record(StoredRecord::new(key, &record));
        self.store(key, entry.deadline, content, now);
        true
    }

    /// Visits the records that are running, with their keys; those that are kept as digests have no bytes.
    pub fn each_running(
        &self,
        secret: &Secret,
        now: Millis,
        mut visit: impl FnMut(&Key<'_>, Entry<'_>),
    ) {
        let stashed = self.stashed_running();
        for record in self.table.asides.running_records().chain(stashed) {
            let mut bytes = Vec::new();
            record.write_key(&mut bytes);
            let key = record.hashed(secret).of(&bytes, secret);
            if let Some(entry) = self.get(&key, now) {
                visit(&key, entry);
            }
        }
    }

    /// The same from the cursor on, at first 0, in about `slots_max` slots; returns where to go on, or `None`
    /// at the end. A record that stays is visited once, whatever else comes and goes.
    pub fn scan_running(
        &self,
        cursor: u32,
        slots_max: u32,
        secret: &Secret,
        now: Millis,
        mut visit: impl FnMut(&Key<'_>, Entry<'_>),
    ) -> Option<u32> {
        let mut bytes = Vec::new();
        let scanned = self.table.scan(cursor, slots_max, now, |stored| {
            let Some(record) = stored.running() else {
                return;
            };
            bytes.clear();
            record.write_key(&mut bytes);
            let key = record.hashed(secret).of(&bytes, secret);
            if let Some(entry) = self.get(&key, now) {
                visit(&key, entry);
            }
        });
        scanned.next
    }

    fn stashed_running(&self) -> impl Iterator<Item = &StoredRecord> {
        self.table
            .stash
            .values()
            .filter_map(|stashed| match &stashed.content {
                Content::Record(record) if record.is_running() => Some(record),
                Content::Record(_) | Content::Marker(_) => None,
            })
    }

    fn held(&self, key: &Key<'_>, now: Millis) -> Held<'_> {
        self.get(key, now)
            .map_or(Held::Nothing, |entry| entry.held())
    }

    /// Carries out what was decided, and counts what was refused.
    fn carry_out(
        &mut self,
        decided: Decided,
        key: &Key<'_>,
        growth: Growth,
        room: &mut impl Room,
        now: Millis,
    ) -> Holding {
        let told = match decided {
            Decided::Told(told) => told,
            Decided::Becomes(content, deadline) => {
                if self.become_record(key, content, deadline, growth, room, now) {
                    Holding::Ok
                } else {
                    Holding::Full
                }
            }
        };
        match told {
            Holding::Ok => {}
            Holding::Stale | Holding::Gone => self.counters.stale += 1,
            Holding::Mismatch => self.counters.mismatch += 1,
            Holding::Full => self.counters.refuse(room.refused()),
        }
        told
    }

    /// Gives a key this record, in the place of the one that it holds, if any.
    fn become_record(
        &mut self,
        key: &Key<'_>,
        content: Content,
        deadline: Millis,
        growth: Growth,
        room: &mut impl Room,
        now: Millis,
    ) -> bool {
        let found = self.table.find(key);
        let Some(found) = found.filter(|found| now <= found.deadline) else {
            return self.put(found, key, deadline, content, room, now);
        };
        let bytes = |content| match content {
            ContentRef::Record(record) => record.heap_bytes() as isize,
            ContentRef::Marker(_) => 0,
        };
        let before = self.table.content(&found, key).map_or(0, bytes);
        let is_admitted = match growth {
            Growth::Little => room.admits(0, 0),
            Growth::Reserve => {
                let grown = bytes(content.as_ref()) - before;
                let freed = self.give_way(key, grown, room, now);
                room.admits_of_reserve(grown - freed)
            }
        };
        // Found again: what was evicted meanwhile may have moved it.
        let Some(found) = self.table.find(key).filter(|_| is_admitted) else {
            return false;
        };
        self.table.replace(&found, key, deadline, content, now);
        true
    }

    /// Evicts other keys, a bounded number of them, until a record may grow by so many bytes without a
    /// reserve; returns the bytes that this freed here. The reserve is for where nothing can be evicted: drawn
    /// on first, it would be spent for good, and no work could be ended any more beside any number of markers.
    fn give_way(
        &mut self,
        key: &Key<'_>,
        grown: isize,
        room: &mut impl Room,
        now: Millis,
    ) -> isize {
        let before = self.bytes() as isize;
        let mut evictions = 0;
        loop {
            let freed = before - self.bytes() as isize;
            evictions += 1;
            if room.admits(0, grown - freed) || !self.evict_next(evictions, None, key, room, now) {
                return freed;
            }
        }
    }
}
