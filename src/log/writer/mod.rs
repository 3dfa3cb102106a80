//! The writing end: changes gather in memory, are written together, and synced together.
//!
//! Who changes a shard appends the change as a frame while the shard is locked ([`Log::append`]), so
//! that the log has the changes of each key in the order in which they were made. Before a reply is sent
//! that may rest on any of it, the sender sees to it that all that was appended so far is
//! [acknowledged](Log::acknowledged): written, or under [`Fsync::Always`] synced. Positions are
//! counted in bytes since the start.
//!
//! Space is promised before a change is made ([`Log::promise`]): segments are reserved ahead, so a full
//! disk refuses a change while it can still be refused, and nothing has to be undone. A write that
//! fails for lack of space all the same (some file systems cannot reserve, and a limit may be set later) is
//! tried again until there is some. What waits for it waits, but not for long: then the keys of these changes
//! are [in doubt](Log::is_in_doubt) until they are written.
//!
//! Any other failed write, and any failed sync, ends the writing for good: nobody can tell what of it
//! is on the disk. The keys whose changes were in flight are [remembered](Log::is_in_doubt).
//!
//! | file | what |
//! |---|---|
//! | here | what is appended, how far it has come, who is told and who waits |
//! | `promise` | space, promised before a change is made |
//! | `flush` | writing and syncing what was appended, and what it means when that fails |
//! | `naming` | what is appended of namespaces |
//! | `roll` | segments in their order, from the next one to those that have lapsed |
//! | `maker` | a segment's making |
//!
//! Not here: threads and clocks. [`Log::sync`] and [`Log::tend`] are called by whoever has time.

mod flush;
mod maker;
mod naming;
mod promise;
mod roll;

use std::collections::{HashSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering};

use crossbeam::utils::CachePadded;
use parking_lot::{Condvar, Mutex};

use self::maker::{Active, Maker, opened};
pub use self::naming::Emptied;
use self::roll::Next;
use super::control::{Control, Space};
use super::frame;
use super::segment::{Position, Secret, Secrets};
use super::spaces::Spaces;
use super::storage::{File, Note, Storage, sync_whole};
use crate::limits::{LOG_PENDING_BYTES_MAX, LOG_RETRY_MS};
use crate::time::Millis;

/// Bytes of a frame that is made of several, at most: so long that its header hardly counts, so short that
/// little is lost with it.
const JOINED_BYTES_MAX: usize = 2 << 10;

const GOOD: u8 = 0;

/// A write lacked space, and is to be tried again.
const STUCK: u8 = 1;

/// No more is written until the next start. From here on up some changes are in doubt.
const FAILED: u8 = 2;

/// As [`STUCK`], for so long that nobody waits any more.
const STALLED: u8 = 3;

/// When changes are synced to the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fsync {
    /// Before they are acknowledged.
    Always,
    /// Once a second, beside the writing.
    #[default]
    EverySec,
    /// When the system likes.
    Never,
}

/// What a log is made of.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// When changes are synced.
    pub fsync: Fsync,
    /// Bytes of a segment, where the disk has that much.
    pub segment_bytes: u64,
    /// Bytes of the largest frame that can be expected.
    pub frame_bytes_max: usize,
    /// The machine's run.
    pub boot: [u8; 16],
    /// Where the secrets of segments come from.
    pub secrets: Secrets,
}

/// What was there before, for the log to go on from.
#[derive(Clone, Debug, Default)]
pub struct Start {
    /// The log's identity.
    pub log: [u8; 16],
    /// Segments that are complete, in order.
    pub sealed: Vec<Sealed>,
    /// The number of the segment to begin with.
    pub next_segment: u64,
    /// All namespaces.
    pub spaces: Vec<Space>,
    /// A number above that of every namespace there has been.
    pub next_space: u32,
    /// The moment from which on no key of a namespace that is not there was lost.
    pub covered_since: Millis,
    /// Where tokens come from.
    pub tokens: TokensGiven,
}

/// The last token that was given, or the number below the first that this run will give: what a log says
/// was reached. That is said before any token is given, so that of two runs that lose all that they
/// wrote, the second begins above the first.
#[derive(Clone, Debug, Default)]
pub struct TokensGiven(pub Arc<AtomicU64>);

impl TokensGiven {
    fn last(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A segment that is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Its number.
    pub number: u64,
    /// The last deadline in it.
    pub last: Millis,
    /// Its length.
    pub bytes: u64,
}

/// Whether changes are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// They are.
    Good,
    /// The disk is full; it is looked for space every now and then.
    Full,
    /// No more until the next start.
    Failed,
}

/// The writing end of a log.
#[derive(Debug)]
pub struct Log {
    maker: Maker,
    pending: CachePadded<Mutex<Pending>>,
    appended: CachePadded<AtomicU64>,
    written: CachePadded<AtomicU64>,
    synced: AtomicU64,
    /// Reserved bytes that are promised to nobody.
    free: CachePadded<AtomicI64>,
    /// The most that may be promised at a time.
    promise_max: AtomicI64,
    /// Bytes of the longest frame that several become together; those that were promised may be longer.
    joined_bytes_max: usize,
    /// [`GOOD`], [`STUCK`], [`FAILED`] or [`STALLED`].
    state: AtomicU8,
    /// Since when it has been [`STUCK`], as far as was looked; 0 if it is not.
    stuck_since: AtomicU64,
    /// There was no space for another segment.
    is_full: AtomicBool,
    /// Records are appended under a number that nobody has yet.
    is_emptying: AtomicBool,
    writer: Mutex<Writer>,
    /// The segment after the active one. Locked after `writer`, never the other way round.
    next: Mutex<Next>,
    /// One sync at a time. Locked before `writer`.
    syncing: Mutex<()>,
    /// When the sync that is under way began; 0 if none is.
    sync_began: AtomicU64,
    in_doubt: Mutex<InDoubt>,
    listeners: Mutex<Vec<Listener>>,
    progress: (Mutex<()>, Condvar),
    /// Whether the thread that syncs is wanted.
    wanted: (Mutex<bool>, Condvar),
}

struct Listener(Box<dyn Fn() + Send + Sync>);

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Listener")
    }
}

/// Changes that were made and not written yet.
#[derive(Debug, Default)]
struct Pending {
    frames: Vec<u8>,
    /// Where the last of them begins, if it holds records and more may be joined to it.
    open: Option<usize>,
    /// The last deadline in them.
    last: Millis,
    /// Those of them that say something of namespaces, and where each ends.
    controls: Vec<(u64, Control)>,
    /// The namespaces as of the end of `frames`.
    spaces: Spaces,
    /// The number that is kept for what stays of a namespace that is being emptied.
    reserved: Option<u32>,
    /// The least that is said of a moment from which on nothing was lost.
    covered_since_min: Millis,
}

#[derive(Debug)]
struct Writer {
    active: Active,
    sealed: Vec<Sealed>,
    /// Sealed files that are not synced yet, in order.
    unsynced: Vec<Arc<dyn File>>,
    /// Whether the active segment's name is not durable yet.
    is_name_unsynced: bool,
    /// Frames on their way from `pending` to the file, from `chunk_at` on.
    chunk: Vec<u8>,
    chunk_at: usize,
    chunk_last: Millis,
    /// What is on its way of `Pending::controls`.
    controls: VecDeque<(u64, Control)>,
    /// The namespaces as of what was written. A segment begins with these, and not with what is only on its
    /// way: a log that ends there would have lost a namespace before it has what is to take its place.
    spaces: Spaces,
    tokens: TokensGiven,
    /// Frames written and not synced, where nobody was told of them yet.
    unacknowledged: Vec<u8>,
    /// All before is durable.
    synced: Position,
    /// Whether the log does not say so yet, and is to.
    marker_due: bool,
    /// When it was to say so last.
    marked: Millis,
}

/// Why the log failed, and whose changes were in flight then.
#[derive(Debug, Default)]
struct InDoubt {
    reason: String,
    keys: HashSet<Box<[u8]>>,
}

impl Log {
    /// Begins a new segment behind those that are there. Durable when this returns.
    pub fn start(
        storage: Arc<dyn Storage>,
        config: LogConfig,
        start: Start,
        now: Millis,
    ) -> io::Result<Self> {
        let next_space = start.next_space.max(1);
        let spaces = Spaces::of(start.spaces, next_space, Some(start.covered_since));
        let maker = Maker {
            storage,
            identity: start.log,
            config,
        };
        maker.sync_sealed(&start.sealed)?;
        let number = start.next_segment;
        let first = maker.make_first(number, spaces.present.len(), now)?;
        let begins = Position {
            segment: number,
            offset: 0,
        };
        let said = (&spaces, &start.tokens);
        let opened = opened(&maker.config, said, &start.sealed, begins, now);
        let (promise_max, active) = (first.margin, maker.begin(&first, &opened)?);
        sync_whole(&*active.file)?;
        maker.storage.sync_names()?;
        // What it names is durable by now: so a start that misses it is right.
        maker.storage.note(Note::Begun, number)?;
        // No longer than what a segment may leave unused at its end.
        let joined_bytes_max = maker.config.frame_bytes_max.min(JOINED_BYTES_MAX);
        let free = active.left() as i64;
        let synced = active.position();
        Ok(Self {
            maker,
            pending: CachePadded::new(Mutex::new(Pending {
                spaces: spaces.clone(),
                ..Pending::default()
            })),
            appended: CachePadded::new(AtomicU64::new(0)),
            written: CachePadded::new(AtomicU64::new(0)),
            synced: AtomicU64::new(0),
            free: CachePadded::new(AtomicI64::new(free)),
            promise_max: AtomicI64::new(promise_max),
            joined_bytes_max,
            state: AtomicU8::new(GOOD),
            stuck_since: AtomicU64::new(0),
            is_full: AtomicBool::new(false),
            is_emptying: AtomicBool::new(false),
            writer: Mutex::new(Writer {
                active,
                sealed: start.sealed,
                unsynced: Vec::new(),
                is_name_unsynced: false,
                chunk: Vec::new(),
                chunk_at: 0,
                chunk_last: Millis(0),
                controls: VecDeque::new(),
                spaces,
                tokens: start.tokens,
                unacknowledged: Vec::new(),
                synced,
                marker_due: false,
                marked: now,
            }),
            next: Mutex::new(Next {
                prepared: None,
                number: number + 1,
            }),
            syncing: Mutex::new(()),
            sync_began: AtomicU64::new(0),
            in_doubt: Mutex::default(),
            listeners: Mutex::default(),
            progress: (Mutex::new(()), Condvar::new()),
            wanted: (Mutex::new(false), Condvar::new()),
        })
    }

    /// When changes are synced.
    pub fn fsync(&self) -> Fsync {
        self.maker.config.fsync
    }

    /// Whether changes are taken.
    #[inline]
    pub fn health(&self) -> Health {
        match self.state.load(Ordering::Acquire) {
            FAILED => Health::Failed,
            GOOD if !self.is_full.load(Ordering::Relaxed) => Health::Good,
            _ => Health::Full,
        }
    }

    /// Whether something could not be written for lack of space, and waits for it.
    pub(in crate::log) fn is_stuck(&self) -> bool {
        matches!(self.state.load(Ordering::Acquire), STUCK | STALLED)
    }

    /// Whether there may be changes of which nobody can tell whether they will last: then replies do not wait
    /// for what was appended, but tell nothing of keys that are [in doubt](Self::is_in_doubt). No change is
    /// taken meanwhile.
    #[inline]
    pub fn has_doubts(&self) -> bool {
        self.state.load(Ordering::Acquire) >= FAILED
    }

    #[inline]
    fn has_failed(&self) -> bool {
        self.state.load(Ordering::Acquire) == FAILED
    }

    /// Why it failed; empty if it did not.
    pub fn failure(&self) -> String {
        self.in_doubt.lock().reason.clone()
    }

    /// Whether a change of this key may or may not be on the disk, and nobody was told of it.
    pub fn is_in_doubt(&self, key: &[u8]) -> bool {
        self.in_doubt.lock().keys.contains(key)
    }

    /// Appends a whole frame, for which space was promised; `last` is the last deadline in it.
    ///
    /// For who has the shard locked whose change this is.
    #[inline]
    pub fn append(&self, frame: &[u8], last: Millis) {
        let mut pending = self.pending.lock();
        pending.last = pending.last.max(last);
        let is_joined = self.append_or_join(&mut pending, frame);
        // Whoever said that there are doubts has looked at what was pending before that.
        if self.has_doubts() {
            self.doubt(frame);
        }
        drop(pending);
        if is_joined {
            self.give_back(frame::HEADER_BYTES);
        }
    }

    /// Whether it became a part of the frame before it, and takes no header of its own: a batch of requests
    /// makes a frame for each shard, of few keys each.
    #[inline]
    fn append_or_join(&self, pending: &mut Pending, frame: &[u8]) -> bool {
        if let Some(begins) = pending.open
            && frame::join(&mut pending.frames, begins, frame, self.joined_bytes_max)
        {
            let bytes = (frame.len() - frame::HEADER_BYTES) as u64;
            self.appended.fetch_add(bytes, Ordering::Release);
            return true;
        }
        let begins = pending.frames.len();
        self.append_to(pending, frame);
        pending.open = Some(begins);
        false
    }

    /// Returns where it ends.
    fn append_to(&self, pending: &mut Pending, frames: &[u8]) -> u64 {
        pending.open = None;
        pending.frames.extend_from_slice(frames);
        let bytes = frames.len() as u64;
        self.appended.fetch_add(bytes, Ordering::Release) + bytes
    }

    /// The end of all that was appended so far.
    #[inline]
    pub fn appended(&self) -> u64 {
        self.appended.load(Ordering::Acquire)
    }

    /// Up to where replies may be sent that rest on it.
    #[inline]
    pub fn acknowledged(&self) -> u64 {
        match self.maker.config.fsync {
            Fsync::Always => self.synced(),
            Fsync::EverySec | Fsync::Never => self.written.load(Ordering::Acquire),
        }
    }

    /// Up to where all is durable.
    #[inline]
    pub fn synced(&self) -> u64 {
        self.synced.load(Ordering::Acquire)
    }

    /// If so much waits to be acknowledged that nothing more is to be executed: the position up to which
    /// that must be done first.
    #[inline]
    pub fn behind(&self) -> Option<u64> {
        let most = LOG_PENDING_BYTES_MAX as u64;
        let appended = self.appended();
        let is_behind = appended - self.acknowledged().min(appended) > most && !self.has_doubts();
        is_behind.then(|| appended - most / 2)
    }

    /// Bytes of all segments, what is only reserved left out.
    pub fn bytes(&self) -> u64 {
        let writer = self.writer.lock();
        writer.sealed.iter().map(|sealed| sealed.bytes).sum::<u64>() + writer.active.at
    }

    /// Segments that are there, the active one included.
    pub fn segments(&self) -> usize {
        self.writer.lock().sealed.len() + 1
    }

    /// The secret of a segment that is written anew.
    pub(in crate::log) fn draw_secret(&self) -> io::Result<Secret> {
        self.maker.config.secrets.draw()
    }

    /// The storage below.
    pub(in crate::log) fn storage(&self) -> &Arc<dyn Storage> {
        &self.maker.storage
    }

    /// Calls `listener` whenever more is acknowledged, or no more will be.
    pub fn listen(&self, listener: impl Fn() + Send + Sync + 'static) {
        self.listeners.lock().push(Listener(Box::new(listener)));
    }

    fn tell(&self) {
        for listener in &*self.listeners.lock() {
            listener.0();
        }
        drop(self.progress.0.lock());
        self.progress.1.notify_all();
    }

    /// Whether all up to `position` is durable, for which it waits a while.
    #[must_use]
    pub fn wait_synced(&self, position: u64) -> bool {
        if self.synced() < position && !self.has_failed() {
            self.want_sync();
            let mut waiting = self.progress.0.lock();
            if self.synced() < position && !self.has_failed() {
                let a_while = std::time::Duration::from_millis(LOG_RETRY_MS);
                self.progress.1.wait_for(&mut waiting, a_while);
            }
        }
        self.synced() >= position
    }

    /// Wakes the thread that syncs.
    pub fn want_sync(&self) {
        let mut wanted = self.wanted.0.lock();
        if !std::mem::replace(&mut *wanted, true) {
            self.wanted.1.notify_all();
        }
    }

    /// Waits until a sync is wanted, or for so long; returns whether it is.
    pub fn wait_wanted(&self, timeout: std::time::Duration) -> bool {
        let mut wanted = self.wanted.0.lock();
        if !*wanted {
            self.wanted.1.wait_for(&mut wanted, timeout);
        }
        std::mem::take(&mut *wanted)
    }
}
