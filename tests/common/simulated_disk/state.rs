//! What the disk holds, which of its names are durable, how much room is left, and what fails when.

use std::collections::BTreeMap;
use std::io;

use onced::log::storage::Note;

use super::contents::Contents;
use super::random::Random;
use super::{Failure, Faults, Loss, NamesLost};

#[derive(Clone)]
pub(super) struct State {
    pub(super) random: Random,
    pub(super) operations: u64,
    /// The operation with this number fails, and all after it.
    pub(super) powered_until: u64,
    pub(super) faults: Faults,
    pub(super) capacity_bytes: u64,
    pub(super) files: BTreeMap<u64, Node>,
    pub(super) next_file: u64,
    pub(super) names: BTreeMap<String, u64>,
    pub(super) durable_names: BTreeMap<String, u64>,
    /// What made `names` out of `durable_names`.
    pub(super) unsynced_names: Vec<Renaming>,
    /// What was noted apart from files; durable at once.
    pub(super) notes: BTreeMap<Note, u64>,
}

#[derive(Clone)]
pub(super) struct Node {
    pub(super) contents: Contents,
    pub(super) handles: usize,
}

/// A change of names, of any kind: `to` becomes the name of this file, or of none, and `from` of none.
#[derive(Clone)]
pub(super) struct Renaming {
    pub(super) file: Option<u64>,
    pub(super) from: Option<String>,
    pub(super) to: String,
}

/// What an operation does, as far as it says how it can fail.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Never fails by itself.
    Look,
    /// Can be interrupted.
    Transfer,
    /// Can fail.
    Change,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    PoweredOff,
    Interrupted,
    Failed(Failure),
}

impl From<Refusal> for io::Error {
    fn from(refusal: Refusal) -> Self {
        Self::from_raw_os_error(match refusal {
            Refusal::PoweredOff | Refusal::Failed(Failure::Broken) => 5,
            Refusal::Interrupted => 4,
            Refusal::Failed(Failure::Full) => 28,
        })
    }
}

impl Node {
    pub(super) fn closed(contents: Contents) -> Self {
        Self {
            contents,
            handles: 0,
        }
    }
}

impl Renaming {
    /// A name is what the last change to it says. A file has one name, whatever was lost between.
    pub(super) fn apply(&self, names: &mut BTreeMap<String, u64>) {
        if let Some(from) = &self.from {
            names.remove(from);
        }
        match self.file {
            Some(file) => {
                names.retain(|_, other| *other != file);
                names.insert(self.to.clone(), file);
            }
            None => {
                names.remove(&self.to);
            }
        }
    }
}

impl State {
    pub(super) fn new(random: Random) -> Self {
        Self {
            random,
            operations: 0,
            powered_until: u64::MAX,
            faults: Faults::default(),
            capacity_bytes: u64::MAX,
            files: BTreeMap::new(),
            next_file: 0,
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            unsynced_names: Vec::new(),
            notes: BTreeMap::new(),
        }
    }

    /// Counts an operation, and lets it fail or not.
    pub(super) fn begin(&mut self, kind: Kind) -> Result<(), Refusal> {
        self.operations += 1;
        if self.operations >= self.powered_until {
            return Err(Refusal::PoweredOff);
        }
        match kind {
            Kind::Transfer if self.random.chance(self.faults.interrupted_per_mille) => {
                Err(Refusal::Interrupted)
            }
            Kind::Look | Kind::Transfer => Ok(()),
            Kind::Change => self.begin_change(),
        }
    }

    /// The part of it that a write has besides.
    pub(super) fn begin_change(&mut self) -> Result<(), Refusal> {
        if let Some(due) = self.faults.at.first_entry()
            && *due.key() <= self.operations
        {
            return Err(Refusal::Failed(due.remove()));
        }
        if self.random.chance(self.faults.broken_per_mille) {
            return Err(Refusal::Failed(Failure::Broken));
        }
        if self.random.chance(self.faults.full_per_mille) {
            return Err(Refusal::Failed(Failure::Full));
        }
        Ok(())
    }

    pub(super) fn cut_short(&mut self, count: usize) -> usize {
        if count > 1 && self.random.chance(self.faults.short_per_mille) {
            self.random.between(1, count - 1)
        } else {
            count
        }
    }

    pub(super) fn node(&mut self, id: u64) -> &mut Node {
        self.files
            .get_mut(&id)
            .expect("a file stays while it is open")
    }

    pub(super) fn contents(&mut self, id: u64) -> &mut Contents {
        &mut self.node(id).contents
    }

    pub(super) fn named(&mut self, name: &str) -> &mut Contents {
        let id = *self
            .names
            .get(name)
            .unwrap_or_else(|| panic!("no file named {name}"));
        self.contents(id)
    }

    pub(super) fn add(&mut self, contents: Contents) -> u64 {
        let id = self.next_file;
        self.next_file += 1;
        self.files.insert(id, Node::closed(contents));
        id
    }

    /// What is neither named nor open takes no space, though a power loss may bring it back.
    pub(super) fn space_taken(&self) -> u64 {
        self.files
            .iter()
            .filter(|(id, node)| node.handles > 0 || self.names.values().any(|named| named == *id))
            .map(|(_, node)| node.contents.space_bytes as u64)
            .sum()
    }

    /// How many bytes can be written to a file from this offset on.
    pub(super) fn room_from(&mut self, id: u64, offset: usize) -> usize {
        let free = self.capacity_bytes.saturating_sub(self.space_taken());
        let mine = self.contents(id).space_bytes as u64;
        free.saturating_add(mine).saturating_sub(offset as u64) as usize
    }

    pub(super) fn change_name(&mut self, renaming: Renaming) {
        renaming.apply(&mut self.names);
        self.unsynced_names.push(renaming);
    }

    pub(super) fn sync_names(&mut self) {
        self.durable_names = self.names.clone();
        self.unsynced_names.clear();
        self.forget_lost_files();
    }

    /// Drops what no one can come to see again.
    pub(super) fn forget_lost_files(&mut self) {
        let Self {
            files,
            names,
            durable_names,
            unsynced_names,
            ..
        } = self;
        files.retain(|id, node| {
            node.handles > 0
                || names.values().any(|named| named == id)
                || durable_names.values().any(|named| named == id)
                || unsynced_names.iter().any(|op| op.file == Some(*id))
        });
    }

    pub(super) fn names_after_power_loss(
        &self,
        loss: Loss,
        random: &mut Random,
    ) -> BTreeMap<String, u64> {
        let mut names = self.durable_names.clone();
        for renaming in &self.unsynced_names {
            if random.chance(loss.kept_per_mille) {
                renaming.apply(&mut names);
            } else if loss.names == NamesLost::Latest {
                break;
            }
        }
        names
    }

    /// The same disk for the next process.
    pub(super) fn restarted(&self, random: Random) -> Self {
        Self {
            random,
            operations: 0,
            powered_until: u64::MAX,
            faults: Faults::default(),
            ..self.clone()
        }
    }
}
