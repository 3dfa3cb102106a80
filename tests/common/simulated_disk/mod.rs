//! A disk in memory, for crash tests: the log's `Storage` with a power switch, a seed and bad days.
//!
//! What reads see and what is durable are kept apart: bytes and lengths become durable with a file's
//! `sync`, names with `sync_names`, and nothing else makes them so. `crash` gives a new disk with what a
//! power loss may leave, `kill` one with what the system still holds when only the process has gone.
//! Used from one thread, all of it follows from the seed. It does not age, slow down or lie: what it
//! says is durable is, until a test flips a bit of it.

#![allow(dead_code, unused_imports, reason = "each test uses its part")]
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a test fails by panicking"
)]

mod contents;
mod random;
mod state;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;

use onced::log::storage::{File, Note, Storage};
use parking_lot::Mutex;

use self::contents::Contents;
use self::state::{Kind, Node, Refusal, Renaming, State};

#[allow(unused_imports, reason = "for who tests the disk itself")]
pub use self::contents::SECTOR_BYTES;
pub use self::random::Random;

/// The disk; clones are the same one.
#[derive(Clone)]
pub struct SimulatedDisk {
    state: Arc<Mutex<State>>,
    /// From which seeds it came to be, for the report of a test that fails.
    story: Arc<str>,
}

/// What a power loss does to changes that were not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// In how many of a thousand cases a change stays: 0 leaves only what was durable, 1000 all.
    pub kept_per_mille: u32,
    pub bytes: BytesLost,
    pub names: NamesLost,
}

/// How much of the bytes written stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BytesLost {
    /// Each sector is as it was at some moment since the last sync, as a page cache writes it.
    Versions,
    /// Each write's part of each sector stays or is lost by itself.
    Pieces,
    /// As `Pieces`, and some stay only in part.
    Torn,
}

/// Which of the changes of names stay. Each happens whole or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamesLost {
    /// The first few, as a journal has them.
    Latest,
    /// Any of them.
    Any,
}

/// What goes wrong from now on. Rates are so many in a thousand.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// At this operation, or the first after it that changes anything, this failure, once.
    pub at: BTreeMap<u64, Failure>,
    /// Changes that fail with EIO.
    pub broken_per_mille: u32,
    /// Changes that fail with ENOSPC.
    pub full_per_mille: u32,
    /// Reads and writes that fail with EINTR.
    pub interrupted_per_mille: u32,
    /// Reads and writes that do less than asked, if at least one byte.
    pub short_per_mille: u32,
}

/// How a change fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// EIO. A write may have happened in part; a sync forsakes what it should have made durable.
    Broken,
    /// ENOSPC; a sync forsakes as with EIO.
    Full,
}

impl Loss {
    /// Any kind of loss.
    pub fn drawn(seed: u64) -> Self {
        let mut random = Random::new(!seed);
        Self {
            kept_per_mille: random.one_of(&[0, 100, 500, 900, 1000]),
            bytes: random.one_of(&[BytesLost::Versions, BytesLost::Pieces, BytesLost::Torn]),
            names: random.one_of(&[NamesLost::Latest, NamesLost::Any]),
        }
    }

    /// Nothing stays but what was durable.
    pub fn of_all() -> Self {
        Self {
            kept_per_mille: 0,
            bytes: BytesLost::Pieces,
            names: NamesLost::Latest,
        }
    }
}

impl Faults {
    /// One failure, at the `n`-th operation or the first after it that changes anything.
    pub fn once(n: u64, failure: Failure) -> Self {
        Self {
            at: BTreeMap::from([(n, failure)]),
            ..Self::default()
        }
    }
}

impl SimulatedDisk {
    /// An empty disk without end and without faults.
    pub fn new(seed: u64) -> Self {
        Self::from_state(State::new(Random::new(seed)), format!("seed {seed}"))
    }

    fn from_state(state: State, story: String) -> Self {
        Self {
            state: Arc::new(Mutex::new(state)),
            story: story.into(),
        }
    }

    /// What a power loss may leave, in any of the ways there are.
    #[must_use]
    pub fn crash(&self, seed: u64) -> Self {
        self.crash_with(Loss::drawn(seed), seed)
    }

    /// What a power loss of this kind may leave: a disk where everything is durable, of the same
    /// capacity and without faults. This one is as it was.
    #[must_use]
    pub fn crash_with(&self, loss: Loss, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let state = self.state.lock();
        let names = state.names_after_power_loss(loss, &mut random);
        let left = names
            .values()
            .map(|id| {
                let contents = &state.files[id].contents;
                let bytes = contents.after_power_loss(loss, &mut random);
                (*id, Node::closed(Contents::durable(bytes)))
            })
            .collect();
        let after = State {
            files: left,
            names: names.clone(),
            durable_names: names,
            unsynced_names: Vec::new(),
            ..state.restarted(random)
        };
        Self::from_state(after, format!("{}, crash {seed} {loss:?}", self.story))
    }

    /// What the next process finds when this one is killed: all that was done, synced or not, and what
    /// was not synced can still be lost. Without faults; this one is as it was.
    #[must_use]
    pub fn kill(&self) -> Self {
        let state = self.state.lock();
        let mut after = state.restarted(state.random.clone());
        for node in after.files.values_mut() {
            node.handles = 0;
        }
        after.forget_lost_files();
        Self::from_state(after, format!("{}, kill", self.story))
    }

    /// What goes wrong from now on, in place of what did so far.
    pub fn set_faults(&self, faults: Faults) {
        self.state.lock().faults = faults;
    }

    /// From the `n`-th operation on, all fail with EIO and change nothing: a `crash` afterwards is one
    /// at that moment.
    pub fn power_off_at(&self, n: u64) {
        self.state.lock().powered_until = n;
    }

    /// Forgets which segment is the newest, as a copy that was made before it was begun does not know it.
    pub fn forget_begun(&self) {
        self.state.lock().notes.remove(&Note::Begun);
    }

    /// How many bytes there is room for. Less than is taken leaves what is there.
    pub fn set_capacity(&self, bytes: u64) {
        self.state.lock().capacity_bytes = bytes;
    }

    /// How many bytes are taken, written or set aside.
    pub fn space_taken(&self) -> u64 {
        self.state.lock().space_taken()
    }

    /// How many operations there were, failed ones among them. Calls for tests do not count.
    pub fn operations(&self) -> u64 {
        self.state.lock().operations
    }

    /// All names, in order.
    pub fn names(&self) -> Vec<String> {
        self.state.lock().names.keys().cloned().collect()
    }

    /// A file's bytes as a process would read them.
    pub fn read(&self, name: &str) -> Vec<u8> {
        self.state.lock().named(name).live.clone()
    }

    /// Puts a file there, in place of another perhaps, durably; all names become so.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        let mut state = self.state.lock();
        let id = state.add(Contents::durable(bytes.to_vec()));
        state.change_name(Renaming {
            file: Some(id),
            from: None,
            to: name.to_owned(),
        });
        state.sync_names();
    }

    /// Flips a bit, counted from the least of the first byte, in what is read and what is durable.
    pub fn flip_bit(&self, name: &str, bit: usize) {
        self.state.lock().named(name).flip_bit(bit);
    }

    /// Cuts a file off, durably.
    pub fn cut(&self, name: &str, len: usize) {
        let mut state = self.state.lock();
        let contents = state.named(name);
        assert!(len <= contents.live.len(), "{name} has no {len} bytes");
        contents.set_length(len);
        contents.sync_length();
        contents.space_bytes = contents.space_bytes.min(len);
    }

    fn opened(&self, id: u64, state: &mut State) -> Arc<dyn File> {
        state.node(id).handles += 1;
        Arc::new(Handle {
            disk: self.clone(),
            id,
        })
    }
}

impl fmt::Debug for SimulatedDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimulatedDisk({})", self.story)
    }
}

impl Storage for SimulatedDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut state = self.state.lock();
        state.begin(Kind::Look)?;
        Ok(state.names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let mut state = self.state.lock();
        state.begin(Kind::Look)?;
        let id = *state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.opened(id, &mut state))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let mut state = self.state.lock();
        state.begin(Kind::Change)?;
        if state.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let id = state.add(Contents::default());
        state.change_name(Renaming {
            file: Some(id),
            from: None,
            to: name.to_owned(),
        });
        Ok(self.opened(id, &mut state))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        state.begin(Kind::Change)?;
        let id = *state.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        if from != to {
            state.change_name(Renaming {
                file: Some(id),
                from: Some(from.to_owned()),
                to: to.to_owned(),
            });
        }
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        state.begin(Kind::Change)?;
        if !state.names.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change_name(Renaming {
            file: None,
            from: None,
            to: name.to_owned(),
        });
        Ok(())
    }

    fn noted(&self, note: Note) -> io::Result<Option<u64>> {
        let mut state = self.state.lock();
        state.begin(Kind::Look)?;
        Ok(state.notes.get(&note).copied())
    }

    fn note(&self, note: Note, number: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        state.begin(Kind::Change)?;
        let noted = state.notes.entry(note).or_default();
        *noted = number.max(*noted);
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        state.begin(Kind::Change)?;
        state.sync_names();
        Ok(())
    }
}

/// An open file of one disk.
struct Handle {
    disk: SimulatedDisk,
    id: u64,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "file {} of {:?}", self.id, self.disk)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut state = self.disk.state.lock();
        state.node(self.id).handles -= 1;
        state.forget_lost_files();
    }
}

impl File for Handle {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.state.lock();
        state.begin(Kind::Transfer)?;
        let len = state.contents(self.id).live.len();
        let from = len.min(usize::try_from(offset).unwrap_or(usize::MAX));
        let count = state.cut_short(into.len().min(len - from));
        into[..count].copy_from_slice(&state.contents(self.id).live[from..from + count]);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.state.lock();
        let begun = state
            .begin(Kind::Transfer)
            .and_then(|()| state.begin_change());
        let offset = usize::try_from(offset).expect("a test's file fits into memory");
        let room = state.room_from(self.id, offset);
        let fits = bytes.len().min(room);
        if let Err(refusal) = begun {
            if refusal == Refusal::Failed(Failure::Broken) {
                let written = state.random.between(0, fits);
                state.contents(self.id).write(offset, &bytes[..written]);
            }
            return Err(refusal.into());
        }
        if fits == 0 && !bytes.is_empty() {
            return Err(Refusal::Failed(Failure::Full).into());
        }
        let count = state.cut_short(fits);
        state.contents(self.id).write(offset, &bytes[..count]);
        Ok(count)
    }

    /// Never shortens. When it fails the file may have become longer, as `posix_fallocate` leaves it,
    /// without any space set aside.
    fn reserve(&self, len: u64, zeroed: bool) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        let len = usize::try_from(len).expect("a test's file fits into memory");
        let begun = match state.begin(Kind::Change) {
            Ok(()) if state.room_from(self.id, 0) < len => Err(Refusal::Failed(Failure::Full)),
            begun => begun,
        };
        let size = state.contents(self.id).live.len();
        if let Err(refusal) = begun {
            if matches!(refusal, Refusal::Failed(_)) && len > size && state.random.chance(500) {
                let grown = state.random.between(size, len);
                state.contents(self.id).set_length(grown);
            }
            return Err(refusal.into());
        }
        let contents = state.contents(self.id);
        contents.space_bytes = contents.space_bytes.max(len);
        contents.set_length(size.max(len));
        if zeroed {
            contents.sync_length();
        }
        Ok(())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        state.begin(Kind::Change)?;
        let len = usize::try_from(len).expect("a test's file fits into memory");
        let contents = state.contents(self.id);
        contents.set_length(len);
        contents.space_bytes = contents.space_bytes.min(len);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        let begun = state.begin(Kind::Change);
        match begun {
            Ok(()) => state.contents(self.id).sync(),
            Err(Refusal::Failed(_)) => state.contents(self.id).fail_sync(),
            Err(_) => {}
        }
        Ok(begun?)
    }

    fn size(&self) -> io::Result<u64> {
        let mut state = self.disk.state.lock();
        state.begin(Kind::Look)?;
        Ok(state.contents(self.id).live.len() as u64)
    }
}
