//! Compaction: segments are written anew without what does not count any more.
//!
//! A segment whose last deadline has passed is deleted whole, which is the usual end. But one key with a
//! long life keeps a whole segment, and a key that is stored again and again leaves a record each time.
//! So once more than half of a log is likely dead, its segments are looked through one after the other,
//! a few thousand bytes at a time, and each is replaced, in one step, by a copy of what counts. Nothing
//! else stops for it, and no more than one segment exists twice.
//!
//! A disk that the log has filled is what it is needed on most, so space for a copy is set aside ahead, in a
//! file that becomes the copy: half of the largest segment. Where half of a log is dead there is a segment of
//! which no more than half counts, so one copy fits at least, and what it gives back is set aside for the next
//! one before anybody else can have it. A round in which copies lacked space says nothing of what is live, and
//! is followed by another one, after a pause that grows.
//!
//! A record counts if memory has its key with just its deadline. If memory has another deadline, a later
//! record says so, which must be durable before this one goes; so the log is synced before a copy takes a
//! segment's place. A removal counts until the deadline of what it removed.

use std::io;
use std::sync::Arc;

use super::control::Control;
use super::format::Format;
use super::frame;
use super::record::{self, Record};
use super::segment;
use super::storage::{File, Storage, is_lack_of_space, sync_whole, write_all_at};
use super::walk::{Walk, damaged, header_of};
use super::writer::{Health, Log, Sealed};
use crate::limits::LOG_SEGMENT_BYTES_MIN;
use crate::time::Millis;

/// Bytes that one step looks through, at least; a frame is not divided.
const STEP_BYTES: usize = 32 << 10;
/// Bytes of a copy that are written at a time.
const WRITE_BYTES: usize = 256 << 10;
/// Bytes that a live key takes in a log at least.
const KEY_BYTES_MIN: u64 = 24;
/// A copy that would be larger than so many percent of the segment is not worth it.
const WORTH_PERCENT: u64 = 90;
/// What is called so is no segment, and is removed by the next start.
const RESERVE_NAME: &str = "reserve.tmp";
/// Less than this is not set aside.
const RESERVE_BYTES_MIN: u64 = LOG_SEGMENT_BYTES_MIN / 2;
/// How long after a round that lacked space the next one begins, at first and at most, in milliseconds.
const PAUSE_MS: std::ops::RangeInclusive<u64> = 1_000..=10_000;

/// Goes through a log's segments, again and again.
#[derive(Debug, Default)]
pub struct Compactor {
    /// Bytes that may be dead beside as many as are live.
    dead_bytes_max: u64,
    /// Bytes that were left when all segments had been looked through last, and keys that there were.
    left: u64,
    left_keys: u64,
    /// Segments that are still to be looked through this time, the last one next.
    round: Vec<u64>,
    copying: Option<Copying>,
    /// One that has just come to its end, in either way.
    over: Option<Copying>,
    /// Space for the next copy.
    reserve: Option<Reserve>,
    /// Whether a copy of this round lacked space.
    lacked_space: bool,
    /// No round begins before this, after one that lacked space; and the pause after the next such one.
    not_before: Millis,
    pause_ms: u64,
    /// Room for the answers about a frame's records.
    alive: Vec<bool>,
}

/// A file of zeros that a copy is written over. It goes when this does.
#[derive(Debug)]
struct Reserve {
    storage: Arc<dyn Storage>,
    file: Arc<dyn File>,
    bytes: u64,
}

/// A segment that is being looked through.
#[derive(Debug)]
struct Copying {
    sealed: Sealed,
    source: Walk,
    copy: Arc<dyn File>,
    /// How frames stand in the copy: under a secret of its own.
    format: Format,
    /// What counts, and is not written yet.
    out: Vec<u8>,
    written: u64,
    /// Once all was looked through and the copy is durable: what has to be durable too before it takes the
    /// segment's place.
    rests_on: Option<u64>,
}

impl Compactor {
    /// One that lets so many bytes be dead, beside as many as are live, before it begins.
    pub fn new(dead_bytes_max: u64) -> Self {
        Self {
            dead_bytes_max,
            ..Self::default()
        }
    }

    /// Begins to go through all segments, however little of them may be dead.
    pub fn begin(&mut self, log: &Log) {
        let newest_first = log.sealed().into_iter().rev();
        self.round = newest_first.map(|sealed| sealed.number).collect();
        self.lacked_space = false;
    }

    /// Sets space aside for a copy, as far as there is some. To be called before anything else asks for what
    /// is free; after that [`step`](Self::step) sees to it.
    pub fn prepare(&mut self, log: &Log) {
        let Some(wanted) = reserve_bytes(log) else {
            return;
        };
        match &mut self.reserve {
            Some(reserve) => reserve.lengthen(wanted),
            none => *none = Reserve::make(log.storage(), wanted),
        }
    }

    /// Does a little; returns whether there is more to do. `keys` is how many are in memory. `survives` is
    /// told a namespace's number and records of it, and answers for each whether it counts.
    ///
    /// For one thread, the one that calls [`Log::tend`].
    pub fn step(
        &mut self,
        log: &Log,
        keys: u64,
        now: Millis,
        mut survives: impl FnMut(u32, &[Record<'_>], &mut Vec<bool>),
    ) -> io::Result<bool> {
        if log.is_emptying() {
            // What stays of a namespace is not what anybody has yet.
            return Ok(false);
        }
        let done = self.try_step(log, keys, now, &mut survives);
        if done.is_err()
            && let Some(given_up) = self.copying.take()
        {
            let _it_is_removed_at_the_next_start = log.storage().remove(&given_up.temporary());
            self.over = Some(given_up);
        }
        if let Some(over) = self.over.take() {
            self.keep_what_is_given_back(log, over);
        } else if self.copying.is_none() && log.health() == Health::Good {
            // What others gave back is for the log first.
            self.prepare(log);
        }
        if log.is_stuck() {
            // What was changed already comes before what is to be copied.
            self.reserve = None;
        }
        match done {
            // There was no space for a copy of what is to give space back: the next segment may be smaller.
            Err(error) if is_lack_of_space(&error) => {
                self.lacked_space = true;
                Ok(false)
            }
            done => done,
        }
    }

    /// A copy that is over gives space back: that of the segment in whose place it is, or its own. It is for the
    /// next copy, or there would be none where others wait for all that there is.
    fn keep_what_is_given_back(&mut self, log: &Log, over: Copying) {
        let wanted = reserve_bytes(log);
        log.while_no_segment_is_made(|| {
            drop(over);
            self.reserve = wanted.and_then(|wanted| Reserve::make(log.storage(), wanted));
        });
    }

    fn try_step(
        &mut self,
        log: &Log,
        keys: u64,
        now: Millis,
        survives: &mut impl FnMut(u32, &[Record<'_>], &mut Vec<bool>),
    ) -> io::Result<bool> {
        if let Some(copying) = &mut self.copying {
            if copying.look_through(&mut self.alive, now, survives)? {
                return Ok(true);
            }
            if !copying.take_place(log)? {
                return Ok(true);
            }
            self.over = self.copying.take();
            let is_last = self.round.is_empty();
            if is_last {
                self.end_round(log, keys, now);
            }
            // Space for the next copy is set aside before that begins.
            return Ok(!is_last);
        }
        if self.round.is_empty() {
            // The last copy of it may have been given up.
            if self.lacked_space {
                self.end_round(log, keys, now);
            }
            return Ok(now >= self.not_before && self.begin_round(log, keys));
        }
        while let Some(number) = self.round.pop() {
            let sealed = log
                .sealed()
                .into_iter()
                .find(|sealed| sealed.number == number);
            if let Some(sealed) = sealed {
                self.copying = Some(Copying::begin(log, sealed, &mut self.reserve)?);
                return Ok(true);
            }
        }
        self.end_round(log, keys, now);
        Ok(false)
    }

    fn begin_round(&mut self, log: &Log, keys: u64) -> bool {
        let bytes = log.bytes();
        self.left = self.left.min(bytes);
        let live = self.live(keys);
        // Where there is no space, none is left to the dead.
        let dead_bytes_max = match log.health() {
            Health::Full => 0,
            _ => self.dead_bytes_max,
        };
        if bytes <= dead_bytes_max.saturating_add(2 * live) {
            return false;
        }
        self.begin(log);
        !self.round.is_empty()
    }

    /// Bytes that count, likely: what was left last time, less the part of those keys that are gone since.
    fn live(&self, keys: u64) -> u64 {
        let mut live = self.left;
        if keys < self.left_keys {
            live = (u128::from(live) * u128::from(keys) / u128::from(self.left_keys)) as u64;
        }
        live.max(keys * KEY_BYTES_MIN)
    }

    fn end_round(&mut self, log: &Log, keys: u64, now: Millis) {
        if std::mem::take(&mut self.lacked_space) {
            self.pause_ms = self.pause_ms.clamp(*PAUSE_MS.start(), *PAUSE_MS.end());
            self.not_before = now.after(self.pause_ms);
            self.pause_ms *= 2;
        } else {
            self.left = log.bytes();
            self.left_keys = keys;
            self.pause_ms = 0;
        }
    }
}

/// Bytes that are to be set aside for a copy; `None` if there is nothing to copy.
fn reserve_bytes(log: &Log) -> Option<u64> {
    let largest = log.sealed().iter().map(|sealed| sealed.bytes).max()?;
    Some((largest / 2).max(RESERVE_BYTES_MIN))
}

impl Reserve {
    /// As much as there is, up to what is wanted; `None` if that is too little to be of use.
    fn make(storage: &Arc<dyn Storage>, wanted: u64) -> Option<Self> {
        // One that was given up may be left.
        let _there_may_be_none = storage.remove(RESERVE_NAME);
        let mut reserve = Self {
            storage: Arc::clone(storage),
            file: storage.create(RESERVE_NAME).ok()?,
            bytes: 0,
        };
        let mut bytes = wanted;
        while reserve.file.reserve(bytes, false).is_err() {
            if bytes <= RESERVE_BYTES_MIN {
                return None;
            }
            // One that failed may have made it longer.
            reserve.file.truncate(0).ok()?;
            bytes = (bytes / 2).max(RESERVE_BYTES_MIN);
        }
        reserve.bytes = bytes;
        Some(reserve)
    }

    fn lengthen(&mut self, wanted: u64) {
        if self.bytes < wanted && self.file.reserve(wanted, false).is_ok() {
            self.bytes = wanted;
        }
    }

    /// Makes a file of this name out of it.
    fn named(self, name: &str) -> io::Result<Arc<dyn File>> {
        self.storage.rename(RESERVE_NAME, name)?;
        Ok(Arc::clone(&self.file))
    }
}

impl Drop for Reserve {
    fn drop(&mut self) {
        let _it_may_have_become_a_copy = self.storage.remove(RESERVE_NAME);
    }
}

impl Copying {
    fn begin(log: &Log, sealed: Sealed, reserve: &mut Option<Reserve>) -> io::Result<Self> {
        let source = log.storage().open(&segment::name(sealed.number))?;
        let temporary = segment::temporary_name(sealed.number);
        // One that was given up may be left.
        let _there_may_be_none = log.storage().remove(&temporary);
        let header = header_of(&*source)?;
        let source = Walk::new(
            source,
            Format::of(&header),
            header.frames_at(),
            sealed.bytes,
        );
        let copied = segment::Header {
            secret: Some(log.draw_secret()?),
            ..header
        };
        let copy = match reserve.take() {
            Some(reserve) => reserve.named(&temporary)?,
            None => log.storage().create(&temporary)?,
        };
        write_all_at(&*copy, &copied.bytes(), 0)?;
        Ok(Self {
            sealed,
            source,
            copy,
            format: Format::of(&copied),
            out: Vec::new(),
            written: copied.frames_at(),
            rests_on: None,
        })
    }

    fn temporary(&self) -> String {
        segment::temporary_name(self.sealed.number)
    }

    /// Looks at some frames; false once all are done.
    fn look_through(
        &mut self,
        alive: &mut Vec<bool>,
        now: Millis,
        survives: &mut impl FnMut(u32, &[Record<'_>], &mut Vec<bool>),
    ) -> io::Result<bool> {
        if self.rests_on.is_some() {
            return Ok(false);
        }
        let mut looked = 0;
        while looked < STEP_BYTES {
            let Some((header, payload)) = self.source.next()? else {
                self.write_out()?;
                return Ok(false);
            };
            looked += frame::HEADER_BYTES + payload.len();
            if header.space == frame::CONTROL {
                if !matches!(Control::of(payload), Some(Control::Synced(_))) {
                    let begins = frame::begin(&mut self.out);
                    self.out.extend_from_slice(payload);
                    frame::finish(&mut self.out, begins, frame::CONTROL);
                }
            } else {
                let records = records_of(payload)?;
                alive.clear();
                survives(header.space, &records, alive);
                push_survivors(&mut self.out, header.space, &records, alive, now);
            }
        }
        if self.out.len() >= WRITE_BYTES {
            self.write_out()?;
        }
        Ok(true)
    }

    fn write_out(&mut self) -> io::Result<()> {
        self.format.stamp(&mut self.out, self.written);
        write_all_at(&*self.copy, &self.out, self.written)?;
        self.written += self.out.len() as u64;
        self.out.clear();
        Ok(())
    }

    /// Puts the copy into the segment's place, if it is much smaller; false if it has to be tried again,
    /// after others had their turn.
    fn take_place(&mut self, log: &Log) -> io::Result<bool> {
        let temporary = self.temporary();
        let number = self.sealed.number;
        let is_there = log.sealed().iter().any(|sealed| sealed.number == number);
        if !is_there || self.written * 100 > self.sealed.bytes * WORTH_PERCENT {
            log.storage().remove(&temporary)?;
            return Ok(true);
        }
        // What stands in for what was left out must last before that is gone.
        let rests_on = if let Some(position) = self.rests_on {
            position
        } else {
            // What was set aside for it and is not needed goes back.
            self.copy.truncate(self.written)?;
            sync_whole(&*self.copy)?;
            *self.rests_on.insert(log.appended())
        };
        if !log.wait_synced(rests_on) {
            if log.is_stuck() {
                // What waits for space may wait for the copy's.
                return Err(io::ErrorKind::StorageFull.into());
            }
            let is_in_vain = log.health() == Health::Failed;
            if is_in_vain {
                log.storage().remove(&temporary)?;
            }
            return Ok(is_in_vain);
        }
        log.storage().rename(&temporary, &segment::name(number))?;
        log.storage().sync_names()?;
        log.reseal(Sealed {
            bytes: self.written,
            ..self.sealed
        });
        Ok(true)
    }
}

fn records_of(payload: &[u8]) -> io::Result<Vec<Record<'_>>> {
    let mut records = Vec::new();
    let mut rest = payload;
    while !rest.is_empty() {
        records.push(record::take(&mut rest).ok_or_else(damaged)?);
    }
    Ok(records)
}

/// Appends a frame of the records that count, if there are any.
fn push_survivors(
    out: &mut Vec<u8>,
    space: u32,
    records: &[Record<'_>],
    alive: &[bool],
    now: Millis,
) {
    let begins = frame::begin(out);
    let empty = out.len();
    for (record, &is_alive) in records.iter().zip(alive) {
        if is_alive && record.deadline >= now {
            record::push(out, record);
        }
    }
    if out.len() == empty {
        out.truncate(begins);
    } else {
        frame::finish(out, begins, space);
    }
}
