//! A log read from its beginning to its end, as a server does when it starts, with plain maps.

use std::collections::BTreeMap;
use std::sync::Arc;

use onced::log::control::{Control, Space};
use onced::log::reader::{Findings, LogError, Present, Reader};
use onced::log::segment;
use onced::log::storage::Storage;
use onced::log::writer::{Sealed, Start};
use onced::log::{frame, record};
use onced::store::Fingerprint;
use onced::time::Millis;

use crate::simulated_disk::SimulatedDisk;

/// A key within a namespace.
pub type Place = (u32, Vec<u8>);

/// What a key holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub deadline: Millis,
    pub fingerprint: Option<Fingerprint>,
    pub value: Option<Vec<u8>>,
}

/// What a log says.
#[derive(Debug, Default)]
pub struct Restored {
    /// Keys that live, of namespaces that are there.
    pub keys: BTreeMap<Place, Entry>,
    pub spaces: BTreeMap<u32, Space>,
    pub next_space: u32,
    /// Each whole frame, with its place: its namespace's number and its payload.
    pub frames: Vec<(segment::Position, (u32, Vec<u8>))>,
    pub findings: Findings,
}

/// Reads all of it.
pub fn read(disk: &SimulatedDisk, present: Present) -> Result<Restored, LogError> {
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let mut reader = Reader::open(storage, present)?;
    let mut restored = Restored::default();
    let mut lasts = BTreeMap::new();
    // Each piece takes at least a byte or is the last: more than that is a loop without end.
    let mut pieces_left = reader.bytes_total() + 2;
    while let Some(piece) = reader.next_piece()? {
        pieces_left = pieces_left.checked_sub(1).expect("the reading comes on");
        for found in piece.frames() {
            let payload = found.payload;
            restored
                .frames
                .push((found.at, (found.space, payload.to_vec())));
            if found.space == frame::CONTROL {
                let control = Control::of(payload).expect("a piece holds known controls");
                restored.apply_control(control, present.recovers);
            } else {
                let last = lasts.entry(found.at.segment).or_default();
                restored.apply_records(found.space, payload, last);
            }
        }
    }
    restored.findings = reader.finish();
    for sealed in &mut restored.findings.segments {
        sealed.last = lasts.get(&sealed.number).copied().unwrap_or_default();
    }
    let Restored { keys, spaces, .. } = &mut restored;
    keys.retain(|(space, _), entry| spaces.contains_key(space) && entry.deadline >= present.now);
    Ok(restored)
}

impl Restored {
    fn apply_control(&mut self, control: Control, recovers: bool) {
        match control {
            Control::Opened(opened) => {
                assert!(
                    recovers || opened.next_space >= self.next_space,
                    "a number would be given twice"
                );
                self.next_space = opened.next_space;
                self.spaces = opened
                    .spaces
                    .into_iter()
                    .map(|space| (space.id, space))
                    .collect();
            }
            Control::Space(space) => {
                self.next_space = self.next_space.max(space.id + 1);
                self.spaces.insert(space.id, space);
            }
            Control::Dropped { id, .. } => {
                self.spaces.remove(&id);
            }
            Control::Synced(_) | Control::Closed | Control::Sealed => {}
        }
    }

    fn apply_records(&mut self, space: u32, mut payload: &[u8], last: &mut Millis) {
        while !payload.is_empty() {
            let record = record::take(&mut payload).expect("a whole frame holds whole records");
            *last = record.deadline.max(*last);
            let mut key = Vec::new();
            record.key.write_to(&mut key);
            match record.content {
                None => {
                    self.keys.remove(&(space, key));
                }
                Some(content) => {
                    let entry = Entry {
                        deadline: record.deadline,
                        fingerprint: content.fingerprint,
                        value: content.value.map(<[u8]>::to_vec),
                    };
                    self.keys.insert((space, key), entry);
                }
            }
        }
    }

    /// What the log goes on from.
    pub fn start(&self, identity: [u8; 16]) -> Start {
        let sealed = self.findings.segments.clone();
        Start {
            log: if sealed.is_empty() {
                identity
            } else {
                self.findings.log
            },
            sealed,
            next_segment: self.findings.next_segment,
            spaces: self.spaces.values().cloned().collect(),
            next_space: self.next_space,
            ..Start::default()
        }
    }
}

/// The last deadline in each segment is never before that of what it holds.
pub fn assert_lasts_cover(said: &[Sealed], found: &[Sealed]) {
    for sealed in said {
        let found = found.iter().find(|found| found.number == sealed.number);
        assert!(found.is_none_or(|found| found.last <= sealed.last));
    }
}
