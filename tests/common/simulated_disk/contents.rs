//! One file's bytes: what reads see, what is durable, and the changes in between.
//!
//! Every change since the last sync is an event, in order; `live` is what `durable` becomes when all of
//! them happen. What a power loss leaves is `durable` after only some of them. An event that lengthens
//! or shortens the file comes before the bytes written for it, so bytes always land within the length.
//! Space, names and faults are the disk's; nothing here fails.

use std::collections::BTreeSet;
use std::mem;
use std::ops::Range;

use super::random::Random;
use super::{BytesLost, Loss};

/// What a device writes whole, unless bytes are torn.
pub const SECTOR_BYTES: usize = 512;

#[derive(Clone, Debug, Default)]
pub struct Contents {
    /// What reads see.
    pub live: Vec<u8>,
    /// What stays whatever happens.
    durable: Vec<u8>,
    /// What made `live` out of `durable`.
    events: Vec<Event>,
    /// The first so many bytes have their space, within the file's length or beyond it.
    pub space_bytes: usize,
}

#[derive(Clone, Debug)]
enum Event {
    /// The file's length became this.
    Length(usize),
    Write(Written),
}

#[derive(Clone, Debug)]
struct Written {
    at: usize,
    bytes: Vec<u8>,
    /// A sync that should have made it durable failed. The system takes the bytes for clean now, so no
    /// later sync writes them; they may be on the disk or not.
    forsaken: bool,
}

impl Contents {
    /// A file whose bytes are all durable.
    pub fn durable(bytes: Vec<u8>) -> Self {
        Self {
            space_bytes: bytes.len(),
            live: bytes.clone(),
            durable: bytes,
            events: Vec::new(),
        }
    }

    pub fn write(&mut self, at: usize, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let end = at + bytes.len();
        self.space_bytes = self.space_bytes.max(end);
        if end > self.live.len() {
            self.set_length(end);
        }
        self.live[at..end].copy_from_slice(bytes);
        self.events.push(Event::Write(Written {
            at,
            bytes: bytes.to_vec(),
            forsaken: false,
        }));
    }

    /// Longer by zeros, or cut off; says nothing about space.
    pub fn set_length(&mut self, len: usize) {
        if len != self.live.len() {
            self.live.resize(len, 0);
            self.events.push(Event::Length(len));
        }
    }

    /// All changes become durable, but for those that a failed sync has forsaken.
    pub fn sync(&mut self) {
        self.settle(true);
    }

    /// The length becomes durable; bytes written wait for a sync of their own.
    pub fn sync_length(&mut self) {
        self.settle(false);
    }

    /// What was written and not synced is in no later sync either.
    pub fn fail_sync(&mut self) {
        for event in &mut self.events {
            if let Event::Write(written) = event {
                written.forsaken = true;
            }
        }
    }

    fn settle(&mut self, with_bytes: bool) {
        let mut unsettled: Vec<Written> = Vec::new();
        for event in mem::take(&mut self.events) {
            match event {
                Event::Length(len) => {
                    self.durable.resize(len, 0);
                    unsettled = without(unsettled, len..usize::MAX);
                }
                Event::Write(written) if with_bytes && !written.forsaken => {
                    self.durable[written.range()].copy_from_slice(&written.bytes);
                    unsettled = without(unsettled, written.range());
                }
                Event::Write(written) => unsettled.push(written),
            }
        }
        self.events.extend(unsettled.into_iter().map(Event::Write));
    }

    /// The bit changes on the medium and in memory, written again or not.
    pub fn flip_bit(&mut self, bit: usize) {
        let (at, mask) = (bit / 8, 1 << (bit % 8));
        self.live[at] ^= mask;
        if let Some(byte) = self.durable.get_mut(at) {
            *byte ^= mask;
        }
        for event in &mut self.events {
            if let Event::Write(written) = event
                && written.range().contains(&at)
            {
                written.bytes[at - written.at] ^= mask;
            }
        }
    }

    /// What a power loss leaves.
    ///
    /// Lengths are kept in order up to some event, and the growth after it perhaps in part. Bytes that
    /// stay beyond the length are not seen; bytes lost within it are what was there before, or zeros.
    pub fn after_power_loss(&self, loss: Loss, random: &mut Random) -> Vec<u8> {
        let mut left = self.durable.clone();
        let mut len = left.len();
        let mut lengths_end = false;
        let mut sectors_ended = BTreeSet::new();
        for event in &self.events {
            match event {
                Event::Length(_) if lengths_end => {}
                Event::Length(to) => {
                    if random.chance(loss.kept_per_mille) {
                        if *to < len {
                            // Bytes past a cut do not come back when the file grows again.
                            left.truncate(*to);
                        }
                        len = *to;
                    } else {
                        lengths_end = true;
                        if *to > len && loss.kept_per_mille > 0 && random.chance(500) {
                            len = random.between(len, *to);
                        }
                    }
                }
                Event::Write(written) => {
                    for piece in written.sectors() {
                        let sector = (written.at + piece.start) / SECTOR_BYTES;
                        let kept = random.chance(loss.kept_per_mille)
                            && !(loss.bytes == BytesLost::Versions
                                && sectors_ended.contains(&sector));
                        if !kept {
                            sectors_ended.insert(sector);
                            continue;
                        }
                        let piece = if loss.bytes == BytesLost::Torn && random.chance(300) {
                            torn(piece, random)
                        } else {
                            piece
                        };
                        put(&mut left, written.at + piece.start, &written.bytes[piece]);
                    }
                }
            }
        }
        left.resize(len, 0);
        left
    }
}

impl Written {
    fn range(&self) -> Range<usize> {
        self.at..self.at + self.bytes.len()
    }

    /// Its bytes, as ranges that each lie within one sector of the file.
    fn sectors(&self) -> impl Iterator<Item = Range<usize>> {
        let Range { start, end } = self.range();
        (start / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES)).map(move |sector| {
            let from = start.max(sector * SECTOR_BYTES);
            let to = end.min((sector + 1) * SECTOR_BYTES);
            from - start..to - start
        })
    }
}

/// What is left of these writes when the bytes in `range` are of no more account.
fn without(writes: Vec<Written>, range: Range<usize>) -> Vec<Written> {
    let mut left = Vec::with_capacity(writes.len());
    for mut written in writes {
        let Range { start, end } = written.range();
        if range.end < end {
            let at = start.max(range.end);
            left.push(Written {
                at,
                bytes: written.bytes[at - start..].to_vec(),
                forsaken: written.forsaken,
            });
        }
        if start < range.start {
            written.bytes.truncate(range.start - start);
            left.push(written);
        }
    }
    left
}

/// Some of these bytes, at least one: their beginning, their end or a part between.
fn torn(piece: Range<usize>, random: &mut Random) -> Range<usize> {
    let last = random.between(piece.start, piece.end - 1);
    match random.between(0, 2) {
        0 => piece.start..last + 1,
        1 => last..piece.end,
        _ => random.between(piece.start, last)..last + 1,
    }
}

fn put(into: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    let end = at + bytes.len();
    if into.len() < end {
        into.resize(end, 0);
    }
    into[at..end].copy_from_slice(bytes);
}
