//! A log that was closed, and then cut or flipped somewhere: what its reading says, with and without
//! leaving the damage out.

use std::collections::BTreeSet;

use onced::log::reader::{LogError, Present};
use onced::log::segment;

use crate::restore::{self, Restored};
use crate::simulated_disk::SimulatedDisk;

/// What was done to a file.
#[derive(Clone, Copy, Debug)]
pub enum Damage {
    /// Cut to so many bytes.
    Cut(usize),
    /// This bit is another.
    Flip(usize),
}

/// A closed log, and what it is when nothing happens to it.
pub struct Whole {
    pub disk: SimulatedDisk,
    pub present: Present,
    restored: Restored,
}

impl Whole {
    pub fn new(disk: SimulatedDisk, present: Present) -> Self {
        let restored = restore::read(&disk, present).expect("it is whole");
        assert!(restored.findings.was_closed);
        Self {
            disk,
            present,
            restored,
        }
    }

    pub fn names(&self) -> Vec<String> {
        self.disk.names()
    }

    /// Damages a copy and reads that.
    pub fn check(&self, name: &str, damage: Damage) {
        let disk = self.disk.kill();
        let at = match damage {
            Damage::Cut(len) => {
                disk.cut(name, len);
                len
            }
            Damage::Flip(bit) => {
                disk.flip_bit(name, bit);
                bit / 8
            }
        } as u64;
        let begins = self.frame_of(name, at);
        let what = || format!("{name}: {damage:?}");
        match restore::read(&disk, self.present) {
            Err(LogError::Damaged { name: said, offset }) => {
                assert_eq!(said, name, "{}", what());
                assert!(offset >= begins && offset <= at, "{}: {offset}", what());
            }
            // What a segment begins with was durable before that was noted: it is no tail.
            Err(LogError::NewestMissing { name: said }) => {
                assert_eq!(said, name, "{}", what());
                assert!(begins <= segment::HEADER_BYTES as u64, "{}", what());
            }
            // A header that says something else in its first bytes.
            Err(LogError::Newer { .. } | LogError::Mixed { .. } | LogError::Missing { .. }) => {
                panic!("{}: misjudged", what());
            }
            Err(error) => panic!("{}: {error}", what()),
            Ok(restored) => {
                let is_newest = self.names().last().is_some_and(|newest| newest == name);
                assert!(is_newest, "{}: unnoticed", what());
                assert!(!restored.findings.was_closed, "{}", what());
                let found: Vec<_> = restored.frames.iter().collect();
                let all: Vec<_> = self.restored.frames.iter().collect();
                assert!(all.starts_with(&found), "{}: no prefix", what());
            }
        }
        let recovering = Present {
            recovers: true,
            is_copy: false,
            ..self.present
        };
        let restored = restore::read(&disk, recovering).unwrap_or_else(|error| {
            panic!("{}: {error}, though it is to be left out", what());
        });
        let all: BTreeSet<_> = self.restored.frames.iter().collect();
        assert!(
            restored.frames.iter().all(|frame| all.contains(frame)),
            "{}: something that was never written",
            what()
        );
        let lost = all.len() - restored.frames.len();
        let findings = &restored.findings;
        let is_said = findings.tail.is_some() || !findings.losses.is_empty();
        match damage {
            Damage::Flip(_) => assert!(is_said || lost <= 1, "{}: {lost} lost", what()),
            Damage::Cut(_) => assert!(is_said || begins == at || at < 64, "{}", what()),
        }
    }

    /// Where the frame, or the header, begins that has this byte.
    fn frame_of(&self, name: &str, at: u64) -> u64 {
        self.restored
            .frames
            .iter()
            .filter(|(place, _)| segment::name(place.segment) == name && place.offset <= at)
            .map(|(place, _)| place.offset)
            .max()
            .unwrap_or(0)
    }
}
