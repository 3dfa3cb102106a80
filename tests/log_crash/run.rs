//! One run from a seed: rounds of changes, each ended by a crash, a kill or in order, on one disk.

use std::sync::Arc;

use onced::log::control::{SetEnds, Space};
use onced::log::frame;
use onced::log::mend::resume;
use onced::log::reader::Present;
use onced::log::record::{self, Content};
use onced::log::storage::Storage;
use onced::log::writer::{Fsync, Health, Log, LogConfig};
use onced::store::{Fingerprint, Secret};
use onced::time::Millis;

use crate::frames;
use crate::model::Model;
use crate::restore::{self, Entry, Place, Restored};
use crate::simulated_disk::{Failure, Faults, Random, SimulatedDisk};

const SECRET: Secret = Secret::new([0x5a; 192]);
const START: Millis = Millis(1_790_000_000_000);
const KEYS: usize = 20;

/// What a run is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// A good disk, until the power goes.
    None,
    /// A disk that is full at times.
    Full,
    /// Operations that fail.
    Faults,
}

/// A server's log, its disk and what must be on it.
pub struct Run {
    disk: SimulatedDisk,
    random: Random,
    config: LogConfig,
    identity: [u8; 16],
    trouble: Trouble,
    now: Millis,
    model: Model,
    /// Counts what is written, so that no two states are the same by chance.
    serial: u64,
    /// Whether the disk has space without end, and the log has seen so.
    is_roomy: bool,
    /// Whether an operation may have failed since the start.
    is_faulty: bool,
    /// Where replies could be sent up to, when that was looked at last.
    acknowledged: u64,
    /// Since it failed.
    has_failed: bool,
}

/// Changes of one namespace that space was promised for.
struct Planned {
    space: u32,
    records: Vec<Wanted>,
    promised: usize,
}

/// What is to become of a key.
struct Wanted {
    key: Vec<u8>,
    /// How long it is to live, and what it is to hold; `None` if it is to go.
    put: Option<(u64, Option<Fingerprint>, Option<Vec<u8>>)>,
}

/// How a round ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Kill,
    PowerLoss,
    /// In the middle of something.
    PowerLossWithin,
    KillAndPowerLoss,
    Close,
}

/// Key number `n`; the shapes that are packed differently take turns.
fn key(n: usize) -> Vec<u8> {
    match n % 6 {
        0 => format!("38101a0b-2096-447d-96ea-a6921624{n:04x}").into_bytes(),
        1 => format!("k{n}").into_bytes(),
        2 => format!("{n:0>200}").into_bytes(),
        3 => format!("d41d8cd98f00b204e9800998ecf8{n:04x}").into_bytes(),
        4 => format!("38101A0B-2096-447D-96EA-A6921624{n:04X}").into_bytes(),
        _ => format!("customer {n} / order \0\r\n\u{fe}").into_bytes(),
    }
}

/// Plays a seed to its end.
pub fn play(seed: u64, fsync: Fsync, trouble: Trouble) {
    let mut random = Random::new(seed);
    let segment_bytes = random.one_of(&[16 << 10, 64 << 10, 200 << 10]);
    let mut identity = [7; 16];
    identity[..8].copy_from_slice(&seed.to_le_bytes());
    let mut run = Run {
        disk: SimulatedDisk::new(random.draw()),
        config: LogConfig {
            fsync,
            segment_bytes,
            frame_bytes_max: (segment_bytes as usize / 4).min(16 << 10),
            boot: [1; 16],
            secrets: frames::secrets(seed),
        },
        random,
        identity,
        trouble,
        now: START,
        model: Model::default(),
        serial: 0,
        is_roomy: true,
        is_faulty: false,
        acknowledged: 0,
        has_failed: false,
    };
    let mut log = run.start(&Restored {
        findings: onced::log::reader::Findings {
            next_segment: 1,
            ..Default::default()
        },
        ..Restored::default()
    });
    for _ in 0..run.random.between(1, 4) {
        let Some(next) = run.round(log.expect("a disk without trouble")) else {
            return;
        };
        log = Some(next);
    }
}

impl Run {
    fn storage(&self) -> Arc<dyn Storage> {
        Arc::new(self.disk.clone())
    }

    fn start(&mut self, restored: &Restored) -> Option<Log> {
        let start = restored.start(self.identity);
        let (config, now) = (self.config.clone(), self.now);
        let log = resume(&self.storage(), &restored.findings, config, start, now).ok()?;
        self.acknowledged = 0;
        self.has_failed = false;
        Some(log)
    }

    /// Changes and an end of them, and the start after that; `None` if there is none to follow.
    fn round(&mut self, log: Log) -> Option<Log> {
        self.begin_trouble();
        let end = self.random.one_of(&[
            End::Kill,
            End::PowerLoss,
            End::PowerLoss,
            End::PowerLossWithin,
            End::PowerLossWithin,
            End::KillAndPowerLoss,
            End::Close,
        ]);
        let steps = self.random.between(1, 120);
        for step in 0..steps {
            if step == steps / 2 && end == End::PowerLossWithin {
                let soon = self.random.between(1, 60) as u64;
                self.disk.power_off_at(self.disk.operations() + soon);
                self.is_faulty = true;
            }
            self.step(&log);
            self.observe(&log);
        }
        if end != End::PowerLossWithin && self.random.chance(300) {
            self.end_trouble(&log);
        }
        let mut was_closed = false;
        if end == End::Close {
            was_closed = self.close(&log);
            self.observe(&log);
        }
        if self.has_failed {
            self.check_doubt(&log);
        }
        let acknowledged = self.model.upto(log.acknowledged());
        let synced = match self.config.fsync {
            Fsync::Always => acknowledged,
            Fsync::EverySec | Fsync::Never => self.model.upto(log.synced()),
        };
        let sealed = log.sealed();
        // Bytes that a sync gave up are in no later one: who goes on from what a killed process left
        // cannot know.
        let is_last = log.failure().starts_with("cannot sync") || end == End::Close && !was_closed;
        drop(log);
        let is_killed = end == End::Kill || end == End::Close && self.random.chance(500);
        if is_killed || end == End::KillAndPowerLoss {
            self.disk = self.disk.kill();
        }
        if !is_killed {
            self.lose_power_otherwise(synced);
            self.lose_power();
        }
        let required = if is_killed { acknowledged } else { synced };
        let restored = self.read();
        restore::assert_lasts_cover(&sealed, &restored.findings.segments);
        let left = self.model.check(&restored, required, self.now);
        assert!(
            left >= acknowledged || restored.findings.may_lack_unsynced(&self.config.boot),
            "{left} of {acknowledged} changes are left, and nobody says so"
        );
        if was_closed {
            assert!(restored.findings.was_closed, "its end is not there");
            assert_eq!(restored.findings.tail, None);
        }
        if is_last && is_killed {
            return None;
        }
        let log = self.restart(restored, synced)?;
        // It is all durable now.
        if self.random.chance(100) {
            drop(log);
            self.lose_power();
            let restored = self.read();
            self.model.check(&restored, 0, self.now);
            return None;
        }
        Some(log)
    }

    fn lose_power(&mut self) {
        self.disk = self.disk.crash(self.random.draw());
        self.config.boot[0] += 1;
    }

    /// Looks at what else a loss of power could have left.
    fn lose_power_otherwise(&mut self, synced: usize) {
        let (disk, boot) = (self.disk.clone(), self.config.boot);
        for _ in 0..5 {
            self.lose_power();
            let restored = self.read();
            self.model.check(&restored, synced, self.now);
            (self.disk, self.config.boot) = (disk.clone(), boot);
        }
    }

    fn read(&mut self) -> Restored {
        if self.random.chance(300) {
            self.disk.set_faults(Faults {
                interrupted_per_mille: 50,
                short_per_mille: 200,
                ..Faults::default()
            });
        }
        let present = Present {
            now: self.now,
            boot: self.config.boot,
            recovers: false,
            is_copy: false,
        };
        let restored = restore::read(&self.disk, present);
        restored.unwrap_or_else(|error| panic!("{error}, on {:?}", self.disk))
    }

    /// Mends and starts, cut short a few times perhaps.
    fn restart(&mut self, mut restored: Restored, synced: usize) -> Option<Log> {
        let mut is_settled = false;
        loop {
            let is_cut_short = self.random.chance(300);
            if is_cut_short {
                let soon = self.random.between(1, 25) as u64;
                self.disk.power_off_at(self.disk.operations() + soon);
            }
            if let Some(log) = self.start(&restored) {
                self.disk.power_off_at(u64::MAX);
                self.model = Model::of(&restored);
                self.is_faulty = false;
                self.is_roomy = self.trouble != Trouble::Full;
                return Some(log);
            }
            if !is_cut_short {
                assert_eq!(self.trouble, Trouble::Full, "a good disk lets it start");
                self.disk.set_capacity(u64::MAX);
            }
            if self.random.chance(500) {
                self.disk = self.disk.kill();
            } else {
                self.lose_power();
                let before = is_settled.then(|| std::mem::take(&mut restored.keys));
                restored = self.read();
                self.model.check(&restored, synced, self.now);
                if let Some(before) = before {
                    assert_eq!(restored.keys, before, "what was durable is another");
                }
                is_settled = true;
                continue;
            }
            restored = self.read();
            self.model.check(&restored, synced, self.now);
        }
    }

    fn begin_trouble(&mut self) {
        let mut faults = Faults::default();
        if self.random.chance(300) {
            faults.interrupted_per_mille = 50;
            faults.short_per_mille = 100;
        }
        if self.trouble == Trouble::Faults {
            let at = self.disk.operations() + self.random.between(1, 150) as u64;
            let failure = self.random.one_of(&[Failure::Broken, Failure::Full]);
            faults.at.insert(at, failure);
            self.is_faulty = true;
        }
        self.disk.set_faults(faults);
    }

    /// The disk is good again: what was held is written, unless the log has failed.
    fn end_trouble(&mut self, log: &Log) {
        self.disk.set_faults(Faults::default());
        self.disk.set_capacity(u64::MAX);
        log.tend(self.now).expect("a good disk");
        log.sync(self.now);
        self.observe(log);
        if log.health() == Health::Failed {
            return;
        }
        assert_eq!(log.acknowledged(), log.appended());
        assert_eq!(log.synced(), log.appended());
        log.tend(self.now).expect("a good disk");
        assert_eq!(log.health(), Health::Good);
        self.is_faulty = false;
        self.is_roomy = true;
        self.change(log);
    }

    fn close(&mut self, log: &Log) -> bool {
        let closed = log.close(self.now);
        if !self.is_faulty && self.is_roomy {
            closed.as_ref().expect("a good disk");
        }
        if closed.is_ok() {
            assert_eq!(log.synced(), log.appended());
        }
        closed.is_ok()
    }

    fn step(&mut self, log: &Log) {
        match self.random.between(0, 99) {
            0..45 => self.change(log),
            45..52 => self.burst(log),
            52..60 => self.change_space(log),
            60..74 => {
                log.write(self.now);
                self.check_written(log, self.config.fsync != Fsync::Always);
            }
            74..84 => {
                log.sync(self.now);
                self.check_written(log, true);
            }
            84..92 => self.tend(log),
            92..98 => {
                let ms = self.random.one_of(&[1, 10, 200, 1_000, 20_000]);
                self.now = self.now.after(self.random.between(0, ms) as u64);
            }
            _ if self.trouble == Trouble::Full => {
                let more = self
                    .random
                    .between(0, 3 * self.config.segment_bytes as usize);
                let more = self.random.one_of(&[0, more as u64, u64::MAX]);
                let taken = self.disk.space_taken();
                self.disk.set_capacity(taken.saturating_add(more));
                self.is_roomy = false;
            }
            _ => {}
        }
    }

    fn tend(&mut self, log: &Log) {
        if let Err(error) = log.tend(self.now) {
            assert!(self.is_faulty, "{error}");
        }
        let is_endless = self.trouble != Trouble::Full;
        self.is_roomy |= is_endless;
    }

    /// What is promised fits, so there is never a rest.
    fn check_written(&self, log: &Log, is_due: bool) {
        if is_due && !self.is_faulty {
            assert_eq!(log.acknowledged(), log.appended(), "a promise was not kept");
        }
    }

    /// What holds after each step.
    fn observe(&mut self, log: &Log) {
        let acknowledged = log.acknowledged();
        assert!(acknowledged >= self.acknowledged && acknowledged <= log.appended());
        assert!(log.synced() <= log.appended());
        if self.has_failed {
            assert_eq!(acknowledged, self.acknowledged, "after it failed");
        }
        self.acknowledged = acknowledged;
        if log.health() == Health::Failed {
            assert!(self.is_faulty, "{}", log.failure());
            assert!(!log.failure().is_empty() && !log.promise(1));
            self.has_failed = true;
        }
    }

    /// After a failure: whose changes were in flight, and who else.
    fn check_doubt(&self, log: &Log) {
        let acknowledged = self.model.upto(log.acknowledged());
        let doubtful: Vec<_> = self.model.touched_after(acknowledged).collect();
        for n in 0..KEYS {
            let key = key(n);
            assert_eq!(
                log.is_in_doubt(&key),
                doubtful.contains(&&key),
                "key {n}, {acknowledged} of {} acknowledged, {}",
                self.model.changes(),
                log.failure()
            );
        }
    }

    fn change(&mut self, log: &Log) {
        if let Some(planned) = self.plan(log) {
            self.append(log, planned);
        } else if self.is_roomy && !self.is_faulty {
            assert!(self.model.spaces().is_empty(), "a good disk refused");
        }
    }

    /// As if by many threads: all ask for space before the first changes anything.
    fn burst(&mut self, log: &Log) {
        let count = self.random.between(2, 12);
        let mut all: Vec<_> = (0..count).filter_map(|_| self.plan(log)).collect();
        while !all.is_empty() {
            let planned = all.swap_remove(self.random.between(0, all.len() - 1));
            self.append(log, planned);
            if self.random.chance(100) {
                log.write(self.now);
            }
        }
    }

    /// Asks for the space of a change, as one request has it: at most so many keys, of one namespace.
    fn plan(&mut self, log: &Log) -> Option<Planned> {
        let spaces = self.model.spaces();
        if spaces.is_empty() {
            return None;
        }
        let space = spaces[self.random.between(0, spaces.len() - 1)].id;
        let count = self.random.one_of(&[1, 1, 1, 2, 5]);
        let mut promised = frame::HEADER_BYTES;
        let mut records = Vec::new();
        for _ in 0..count {
            let key = key(self.random.between(0, KEYS - 1));
            let put = self.random.chance(750).then(|| self.content());
            let value = put.as_ref().and_then(|(_, _, value)| value.as_ref());
            // Removed and stored again perhaps.
            let bytes = record::bytes_max(key.len(), 0)
                + record::bytes_max(key.len(), value.map_or(0, Vec::len));
            if promised + bytes > self.config.frame_bytes_max {
                break;
            }
            promised += bytes;
            records.push(Wanted { key, put });
        }
        log.promise(promised).then_some(Planned {
            space,
            records,
            promised,
        })
    }

    fn content(&mut self) -> (u64, Option<Fingerprint>, Option<Vec<u8>>) {
        self.serial += 1;
        let ttl_ms = self.random.one_of(&[50, 2_000, 10_000, 100_000]);
        let ttl_ms = self.random.between(1, ttl_ms) as u64;
        let fingerprint = self.random.chance(300).then_some(Fingerprint {
            value: u128::from(self.serial),
            digits: 8,
        });
        let value_bytes = self.random.one_of(&[8, 40, 700, 3_000]);
        let value = self.random.chance(600).then(|| {
            let mut value = vec![self.serial as u8; value_bytes];
            value[..8].copy_from_slice(&self.serial.to_le_bytes());
            value
        });
        (ttl_ms, fingerprint, value)
    }

    fn append(&mut self, log: &Log, planned: Planned) {
        let mut bytes = Vec::new();
        let mut last = Millis(0);
        let mut states: Vec<(Place, Option<Entry>)> = Vec::new();
        let begins = frame::begin(&mut bytes);
        for wanted in planned.records {
            let place = (planned.space, wanted.key);
            if states.iter().any(|(other, _)| *other == place) {
                continue;
            }
            let key = SECRET.key(&place.1);
            let before = self.model.entry(&place, self.now).cloned();
            let deadline = wanted.put.as_ref().map(|(ttl, _, _)| self.now.after(*ttl));
            if let Some(before) = &before
                && deadline.is_none_or(|deadline| deadline < before.deadline)
            {
                record::push_removal(&mut bytes, &key, before.deadline);
                last = last.max(before.deadline);
            }
            let after = wanted.put.map(|(ttl_ms, fingerprint, value)| Entry {
                deadline: self.now.after(ttl_ms),
                fingerprint,
                value,
            });
            if let Some(after) = &after {
                let content = Content {
                    fingerprint: after.fingerprint,
                    value: after.value.as_deref(),
                    record: None,
                };
                record::push_put(&mut bytes, &key, after.deadline, &content);
                last = last.max(after.deadline);
            }
            if before.is_some() || after.is_some() {
                states.push((place, after));
            }
        }
        // It may have been dropped since.
        let is_there = self
            .model
            .spaces()
            .iter()
            .any(|one| one.id == planned.space);
        if states.is_empty() || !is_there {
            log.give_back(planned.promised);
            return;
        }
        frame::finish(&mut bytes, begins, planned.space);
        assert!(bytes.len() <= planned.promised);
        log.append(&bytes, last);
        log.give_back(planned.promised - bytes.len());
        self.model.change(states, log.appended());
    }

    fn change_space(&mut self, log: &Log) {
        let spaces = self.model.spaces();
        self.serial += 1;
        let drawn = self.random.between(0, 9);
        if drawn < 5 || spaces.is_empty() {
            let mut space = Space {
                id: 0,
                name: format!("s{}", self.serial),
                keeps_digests: false,
                ttl_ms: self.serial,
                ttl_max_ms: 0,
                slides: false,
                keys_max: 0,
                evicts: true,
                reports_unsure: false,
                covered_since: self.now,
                unsure_until: Millis(0),
                set: drawn.is_multiple_of(2).then(|| SetEnds {
                    asked: self.now,
                    members: self.now.after(self.serial),
                }),
            };
            if drawn < 2 && !spaces.is_empty() {
                space = spaces[self.random.between(0, spaces.len() - 1)].clone();
                space.ttl_ms = self.serial;
            }
            if log.append_space(&mut space) {
                self.model
                    .change_space(space.id, Some(space), log.appended());
            } else {
                assert!(!self.is_roomy || self.is_faulty, "a good disk refused");
            }
        } else if drawn < 7 {
            let id = spaces[self.random.between(0, spaces.len() - 1)].id;
            if log.append_dropped(id, Millis(0)) {
                self.model.change_space(id, None, log.appended());
            }
        }
    }
}
