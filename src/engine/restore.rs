//! From a log to memory: what the records say, applied by all cores.
//!
//! Records are read in order, some megabytes at a time. First every thread takes some of these pieces
//! apart, into a list of records for each shard; then every thread applies the lists of some shards,
//! piece after piece. So each key's records are applied in the order in which they were written, and
//! nobody waits for anybody in between. Numbers of shards and hashes are this run's own.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::namespace::{Namespace, Policy};
use super::{DEFAULT_NAMESPACE, Engine};
use crate::log::control::{COVERED_SINCE_NEXT_START, Control, Space};
use crate::log::reader::{Findings, Frame, LogError, Piece, Present, Reader};
use crate::log::record::{self, Record};
use crate::log::spaces::Spaces;
use crate::log::writer::{Log, Start};
use crate::log::{frame, segment};
use crate::store::{self, Hashed, Room, Shard, Unbounded, Verdict};
use crate::time::Millis;

/// Pieces that are read before they are applied, for each thread.
const PIECES_PER_THREAD: usize = 2;
/// Records that are fetched from memory together.
const AHEAD: usize = 96;
/// The number that a new log's first namespace gets; 0 is none.
const FIRST_SPACE: u32 = 1;

/// What becomes of keys for which there is no room, where their namespace evicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excess {
    /// They are evicted again, as they may have been before: the log holds them for a while.
    Evicted,
    /// They stay, beyond all bounds.
    Kept,
}

/// How far the reading of a log has come.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// Bytes read.
    pub bytes: u64,
    /// Bytes there are.
    pub bytes_total: u64,
    /// Records applied.
    pub records: u64,
}

/// A log that was read.
#[derive(Debug)]
pub struct Restored {
    /// What it was like.
    pub findings: Findings,
    /// Records that were applied or had lapsed.
    pub records: u64,
    /// What a [`Log`] needs to go on.
    pub start: Start,
    /// Whether answers may be unsure from now on that were sure before.
    pub is_uncertain: bool,
}

/// Where a record is, and which shard's it is.
#[derive(Clone, Copy)]
struct Place {
    hash: Hashed,
    /// From the beginning of the piece.
    at: u32,
    /// Its namespace, as a place in the list.
    space: u32,
}

/// A piece taken apart.
struct Parsed {
    /// The records of each shard, in order.
    shards: Vec<Vec<Place>>,
    last: Millis,
    records: u64,
    /// The last token in it.
    token: u64,
    /// The highest number that records are under.
    space_max: u32,
    /// Frames of records under numbers of which nothing was said yet.
    to_come: Vec<u8>,
    /// Where something is that no version wrote.
    damage: Option<u64>,
}

struct Restoring<'e> {
    engine: &'e Engine,
    now: Millis,
    /// Namespaces that records are applied to, by number.
    spaces: HashMap<u32, Arc<Namespace>>,
    /// What the log says of them.
    known: Spaces,
    excess: Excess,
    /// Records that wait for what will be said of their numbers.
    to_come: Vec<Piece>,
    lasts: HashMap<u64, Millis>,
    records: u64,
}

impl Engine {
    /// Fills this engine with what a log holds. `told` is told how far it has come and answers whether to
    /// go on. `None` if it was not to.
    ///
    /// For an engine that nobody uses yet.
    pub fn restore(
        &self,
        mut reader: Reader,
        excess: Excess,
        threads: usize,
        told: impl Fn(&Progress) -> bool,
    ) -> Result<Option<Restored>, LogError> {
        let present = reader.present();
        let mut restoring = Restoring {
            engine: self,
            now: present.now,
            spaces: HashMap::new(),
            known: Spaces::default(),
            excess,
            to_come: Vec::new(),
            lasts: HashMap::new(),
            records: 0,
        };
        let threads = threads.max(1);
        loop {
            let mut pieces = Vec::new();
            while pieces.len() < threads * PIECES_PER_THREAD
                && let Some(piece) = reader.next_piece()?
            {
                pieces.push(piece);
            }
            if pieces.is_empty() {
                break;
            }
            restoring.round(pieces, threads)?;
            let progress = Progress {
                bytes: reader.bytes_read(),
                bytes_total: reader.bytes_total(),
                records: restoring.records,
            };
            if !told(&progress) {
                return Ok(None);
            }
        }
        let mut findings = reader.finish();
        for sealed in &mut findings.segments {
            sealed.last = restoring
                .lasts
                .get(&sealed.number)
                .copied()
                .unwrap_or_default();
        }
        Ok(Some(restoring.finish(findings, &present)))
    }

    /// Logs all changes from here on. Called once, before anything is changed.
    pub fn attach(&self, log: Log) -> &Arc<Log> {
        self.log.get_or_init(|| Arc::new(log))
    }
}

impl Engine {
    /// For each of these records of one namespace, whether it is what memory has: `alive` gets the answers.
    pub fn survive(&self, space: u32, records: &[Record<'_>], alive: &mut Vec<bool>, now: Millis) {
        let namespace = self
            .namespaces
            .iter()
            .find(|found| found.logged_as() == space);
        let Some(namespace) = namespace.map(|found| Arc::clone(&found)) else {
            alive.resize(records.len(), false);
            return;
        };
        let asked = alive.len();
        for record in records {
            // Removals must outlive what they removed, wherever that is; and of a lease that a clock which was
            // ahead granted, memory has less.
            let is_alive = record.content.is_none() || is_bounded(record, now) || {
                let hash = record.key.hashed(&self.secret, namespace.keeps_digests());
                let key = hash.of(record.key.long_bytes(), &self.secret);
                namespace.read(&key, |shard| {
                    shard
                        .get(&key, now)
                        .is_some_and(|entry| entry.deadline == record.deadline)
                })
            };
            alive.push(is_alive);
        }
        // Without their records nobody would know of keys that were evicted but the log.
        if !namespace.is_unsure_logged() {
            alive[asked..].fill(true);
        }
    }
}

impl Restoring<'_> {
    fn round(&mut self, read: Vec<Piece>, threads: usize) -> Result<(), LogError> {
        // What has waited comes before all else that is under its number.
        let mut pieces = std::mem::take(&mut self.to_come);
        pieces.extend(read);
        for piece in &pieces {
            for control in &piece.controls {
                self.obey(control);
            }
        }
        // By place in a list rather than by number: found once for a frame instead of once for a record.
        let spaces: Vec<_> = self
            .spaces
            .iter()
            .map(|(&id, space)| (id, Arc::clone(space)))
            .collect();
        let places: HashMap<u32, u32> = spaces
            .iter()
            .zip(0..)
            .map(|((id, _), at)| (*id, at))
            .collect();
        let mut parsed = self.parse_all(&pieces, &spaces, &places, threads);
        for (piece, parsed) in pieces.iter().zip(&mut parsed) {
            if let Some(at) = parsed.damage {
                return Err(LogError::Damaged {
                    name: segment::name(piece.at.segment),
                    offset: piece.at.offset + at,
                });
            }
            let last = self.lasts.entry(piece.at.segment).or_default();
            *last = parsed.last.max(*last);
            self.records += parsed.records;
            self.known.last_token = self.known.last_token.max(parsed.token);
            self.known.note_records(parsed.space_max);
            if !parsed.to_come.is_empty() {
                self.to_come.push(Piece {
                    at: piece.at,
                    layout: piece.layout,
                    bytes: std::mem::take(&mut parsed.to_come),
                    controls: Vec::new(),
                });
            }
        }
        self.apply_all(&pieces, &parsed, &spaces, threads);
        if self.excess == Excess::Evicted {
            for (_, namespace) in &spaces {
                self.evict_what_is_over(namespace);
            }
        }
        Ok(())
    }

    /// Evicts what a namespace has beyond its own bound, the same share of each shard.
    fn evict_what_is_over(&self, namespace: &Namespace) {
        let policy = namespace.policy();
        let keys = namespace.keys();
        if !policy.evict || policy.keys_max == 0 || keys <= policy.keys_max {
            return;
        }
        let over = u128::from(keys - policy.keys_max);
        let mut before = 0;
        for index in 0..self.engine.shards {
            namespace.fill(index, |shard, room| {
                let upto = before + shard.len() as u128;
                let share = over * upto / u128::from(keys) - over * before / u128::from(keys);
                before = upto;
                for _ in 0..share {
                    if let Some(deadline) = shard.evict_soonest(self.now) {
                        room.evicted(deadline);
                    }
                }
            });
        }
    }

    fn parse_all(
        &self,
        pieces: &[Piece],
        spaces: &[(u32, Arc<Namespace>)],
        places: &HashMap<u32, u32>,
        threads: usize,
    ) -> Vec<Parsed> {
        let next = AtomicUsize::new(0);
        let work = || {
            let mut done = Vec::new();
            while let at = next.fetch_add(1, Ordering::Relaxed)
                && let Some(piece) = pieces.get(at)
            {
                done.push((at, self.parse(piece, spaces, places)));
            }
            done
        };
        let mut parsed: Vec<_> = on_threads(threads, |_| work())
            .into_iter()
            .flatten()
            .collect();
        parsed.sort_unstable_by_key(|(at, _)| *at);
        parsed.into_iter().map(|(_, parsed)| parsed).collect()
    }

    fn parse(
        &self,
        piece: &Piece,
        spaces: &[(u32, Arc<Namespace>)],
        places: &HashMap<u32, u32>,
    ) -> Parsed {
        let mut parsed = Parsed {
            shards: vec![Vec::new(); self.engine.shards],
            last: Millis(0),
            records: 0,
            token: 0,
            space_max: 0,
            to_come: Vec::new(),
            damage: None,
        };
        for frame in piece.frames() {
            let is_control = frame.space == frame::CONTROL;
            if !is_control && !self.parse_frame(&frame, spaces, places, &mut parsed) {
                parsed.damage = Some(frame.range.start as u64);
                return parsed;
            }
            if !is_control && self.known.is_to_come(frame.space) {
                parsed.to_come.extend_from_slice(&piece.bytes[frame.range]);
            }
        }
        parsed
    }

    fn parse_frame(
        &self,
        frame: &Frame<'_>,
        spaces: &[(u32, Arc<Namespace>)],
        places: &HashMap<u32, u32>,
        parsed: &mut Parsed,
    ) -> bool {
        let id = frame.space;
        let space = places.get(&id).copied();
        let is_to_come = self.known.is_to_come(id);
        parsed.space_max = parsed.space_max.max(id);
        let mut rest = frame.payload;
        while !rest.is_empty() {
            let at = frame.range.end - rest.len();
            let Some(record) = record::take(&mut rest) else {
                return false;
            };
            parsed.last = parsed.last.max(record.deadline);
            parsed.records += u64::from(!is_to_come);
            parsed.token = parsed.token.max(record.token());
            // What has lapsed is not there, and what it stood in for has lapsed as well. What is of a
            // namespace that is gone is gone too.
            let Some(space) = space.filter(|_| record.deadline >= self.now) else {
                continue;
            };
            let namespace = &spaces[space as usize].1;
            let hash = record
                .key
                .hashed(&self.engine.secret, namespace.keeps_digests());
            let place = Place {
                hash,
                at: at as u32,
                space,
            };
            parsed.shards[namespace.index_of(&hash)].push(place);
        }
        true
    }

    fn apply_all(
        &self,
        pieces: &[Piece],
        parsed: &[Parsed],
        spaces: &[(u32, Arc<Namespace>)],
        threads: usize,
    ) {
        let next = AtomicUsize::new(0);
        on_threads(threads, |_| {
            while let shard = next.fetch_add(1, Ordering::Relaxed)
                && shard < self.engine.shards
            {
                for (piece, parsed) in pieces.iter().zip(parsed) {
                    let mut places = &parsed.shards[shard][..];
                    while let Some(first) = places.first() {
                        let run = places
                            .iter()
                            .take_while(|place| place.space == first.space)
                            .count();
                        let (run, rest) = places.split_at(run);
                        places = rest;
                        self.apply(&spaces[first.space as usize].1, shard, piece, run);
                    }
                }
            }
        });
    }

    /// Applies records of one shard, in order.
    fn apply(&self, namespace: &Namespace, index: usize, piece: &Piece, places: &[Place]) {
        let policy = namespace.policy();
        let evicts = policy.evict && self.excess == Excess::Evicted;
        for places in places.chunks(AHEAD) {
            namespace.fill(index, |shard, memory| {
                for place in places {
                    shard.prefetch(&place.hash);
                }
                for place in places {
                    if evicts {
                        self.apply_one(namespace, shard, piece, place, memory);
                        memory.count(shard, Verdict::New);
                    } else {
                        self.apply_one(namespace, shard, piece, place, &mut Unbounded);
                    }
                }
            });
        }
    }

    fn apply_one(
        &self,
        namespace: &Namespace,
        shard: &mut Shard,
        piece: &Piece,
        place: &Place,
        room: &mut impl Room,
    ) {
        let mut rest = &piece.bytes[place.at as usize..];
        let Some(record) = record::take(&mut rest) else {
            return;
        };
        let key = place.hash.of(record.key.long_bytes(), &self.engine.secret);
        let Some(content) = record.content else {
            shard.remove(&key, self.now);
            return;
        };
        let (loaded, deadline) = match content.record {
            Some(loaded) => {
                let (loaded, deadline) = loaded.loaded(record.deadline, self.now);
                (Some(loaded), deadline)
            }
            None => (None, record.deadline),
        };
        let content = store::Restored {
            fingerprint: content.fingerprint,
            value: content.value,
            record: loaded,
        };
        let is_record = content.record.is_some();
        let replaced = |before: Millis| {
            // Only of a key that had been evicted there is no removal in between.
            if before > deadline {
                namespace.note_in_log(before.after(1));
            }
        };
        let now = self.now;
        // An idempotency record is never evicted, whatever room there is.
        let is_stored = if is_record {
            shard.restore(key, deadline, content, &mut Unbounded, now, replaced)
        } else {
            shard.restore(key, deadline, content, room, now, replaced)
        };
        if !is_stored {
            room.evicted(deadline);
        }
    }

    /// Lets a control have its effect on the list of namespaces.
    fn obey(&mut self, control: &Control) {
        let mut gone = Vec::new();
        self.known.hear(control, |space| gone.push(space.id));
        for id in gone {
            self.forget(id);
        }
        match control {
            Control::Opened(opened) => {
                for space in &opened.spaces {
                    self.know(space);
                }
            }
            Control::Space(space) if self.known.present.contains_key(&space.id) => self.know(space),
            _ => {}
        }
    }

    /// A namespace is gone: nothing that was known of it is so of another of its name.
    fn forget(&mut self, id: u32) {
        let Some(namespace) = self.spaces.remove(&id) else {
            return;
        };
        for shard in namespace.take_out() {
            self.engine.drop_shard(shard);
        }
        if self.engine.is_configured(namespace.name()) {
            namespace.begin_anew(&Policy::default_of(&self.engine.limits));
        } else {
            self.engine.namespaces.remove(namespace.name());
        }
    }

    fn know(&mut self, space: &Space) {
        let namespace = match self.spaces.get(&space.id) {
            Some(namespace) => Arc::clone(namespace),
            None => self.namespace_for(space),
        };
        namespace.become_as(space);
        self.spaces.insert(space.id, namespace);
    }

    /// The namespace of this name, made anew where its keys have another form.
    fn namespace_for(&self, space: &Space) -> Arc<Namespace> {
        match self.engine.find(&space.name) {
            Some(found) if found.keeps_digests() == space.keeps_digests => found,
            // Sessions begin in it, and its form is the configuration's: long keys are digests or not as
            // that says, from here on.
            Some(found) if space.name == DEFAULT_NAMESPACE => found,
            _ => {
                let policy = Policy::default_of(&self.engine.limits);
                let made = self
                    .engine
                    .new_namespace(&space.name, &policy, space.keeps_digests);
                let made = Arc::new(made);
                self.engine
                    .namespaces
                    .insert(space.name.as_str().into(), Arc::clone(&made));
                made
            }
        }
    }

    /// What is to be done once all is applied: namespaces that are gone go, those of the configuration
    /// are as it says, and where something may be missing that is said.
    fn finish(self, findings: Findings, present: &Present) -> Restored {
        let engine = self.engine;
        let now = self.now;
        let is_uncertain = findings.may_lack_unsynced(&present.boot)
            || present.is_copy
            || !findings.losses.is_empty()
            || !findings.missing.is_empty();
        // A run whose clock was behind did not come to say when it ended.
        let is_told = |covered_since| covered_since != COVERED_SINCE_NEXT_START;
        if let Some(covered_since) = self.known.covered_since {
            engine.set_covered_since(if is_told(covered_since) {
                covered_since
            } else {
                now.after(1)
            });
        }
        if is_uncertain {
            engine.set_covered_since(now.after(1));
        }
        for (id, namespace) in &self.spaces {
            let space = &self.known.present[id];
            // Beside what is missing since the reading began.
            namespace.raise_unsure_until(space.unsure_until);
        }
        for (name, change) in &engine.configured {
            if let Some(namespace) = engine.find(name) {
                let _there_is_no_log_yet = namespace.change_policy(change, false);
            }
        }
        // What waits until now is what a purge left that was cut short: all is as it was before that.
        let mut next_space = self.known.next_unused().max(FIRST_SPACE);
        let mut spaces = Vec::new();
        for namespace in engine.all_namespaces() {
            if namespace.logged_as() == 0 {
                namespace.set_logged_as(next_space);
                next_space += 1;
                namespace.set_covered_since(engine.covered_since());
            }
            if is_uncertain {
                namespace.set_covered_since(namespace.covered_since().max(now.after(1)));
            }
            if !is_told(namespace.covered_since()) {
                namespace.set_covered_since(now.after(1));
            }
            let space = namespace.space(&namespace.policy());
            namespace.set_unsure_logged(space.unsure_until);
            spaces.push(space);
        }
        let start = Start {
            log: findings.log,
            sealed: findings.segments.clone(),
            next_segment: findings.next_segment,
            spaces,
            next_space,
            covered_since: engine.covered_since(),
            tokens: engine.tokens.go_on_after(self.known.last_token),
        };
        Restored {
            findings,
            records: self.records,
            start,
            is_uncertain,
        }
    }
}

/// Whether the record is loaded with a lease that ends sooner than the log says.
fn is_bounded(record: &Record<'_>, now: Millis) -> bool {
    let content = record.content.as_ref();
    content
        .and_then(|content| content.record)
        .is_some_and(|loaded| loaded.loaded(record.deadline, now).1 != record.deadline)
}

/// Does something on so many threads, of which this is one.
fn on_threads<T: Send>(threads: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let work = &work;
    thread::scope(|scope| {
        let others: Vec<_> = (1..threads)
            .map(|number| scope.spawn(move || work(number)))
            .collect();
        let mut done = vec![work(0)];
        for other in others {
            match other.join() {
                Ok(result) => done.push(result),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        done
    })
}
