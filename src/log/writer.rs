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
//! fails for lack of space all the same (some file systems cannot reserve) is tried again until there
//! is some; what waits for it waits.
//!
//! Any other failed write, and any failed sync, ends the writing for good: nobody can tell what of it
//! is on the disk. The keys whose changes were in flight are [remembered](Log::is_in_doubt).
//!
//! Not here: threads and clocks. [`Log::sync`] and [`Log::tend`] are called by whoever has time.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering};

use crossbeam::utils::CachePadded;
use parking_lot::{Condvar, Mutex};

use super::control::{Control, Opened, Space};
use super::segment::{self, Position};
use super::storage::{File, Storage, is_lack_of_space, write_all_at};
use super::{frame, record};
use crate::limits::{LOG_PENDING_BYTES_MAX, LOG_SEGMENT_BYTES_MIN, LOG_SYNC_LATE_MS};
use crate::time::Millis;

const GOOD: u8 = 0;
/// A write lacked space, and is to be tried again.
const STUCK: u8 = 1;
const FAILED: u8 = 2;

/// Bytes of zeros that are written at a time, and how long the disk is then left to others: written in one
/// go, 64 MiB of them held up the syncs beside it for 20 ms each.
const ZEROS_BYTES: u64 = 512 << 10;
const ZEROS_PAUSE: std::time::Duration = std::time::Duration::from_millis(5);

/// How often the log says how far it is durable, at most, in milliseconds.
const MARK_EVERY_MS: u64 = 100;
/// Bytes that a segment begins with beside its namespaces: where there are more segments before it than
/// fit here, it takes some of what is left over at a segment's end.
const BEGIN_BYTES: usize = 4 << 10;
/// Bytes of the frame that ends a segment.
pub(super) const SEAL_BYTES: u64 = frame::HEADER_BYTES as u64 + 1;
/// Bytes of a namespace in what a segment begins with.
const SPACE_BYTES_MAX: usize = 4 + 1 + 64 + 1 + 5 * 8;

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
    /// [`GOOD`], [`STUCK`] or [`FAILED`].
    state: AtomicU8,
    /// There was no space for another segment.
    is_full: AtomicBool,
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
    /// The last deadline in them.
    last: Millis,
    /// All namespaces, as of the end of `frames`.
    spaces: BTreeMap<u32, Space>,
    next_space: u32,
    covered_since: Millis,
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
    /// Frames written and not synced, where nobody was told of them yet.
    unacknowledged: Vec<u8>,
    /// All before is durable.
    synced: Position,
    /// Whether the log does not say so yet, and is to.
    marker_due: bool,
    /// When it was to say so last.
    marked: Millis,
}

#[derive(Debug)]
struct Active {
    file: Arc<dyn File>,
    number: u64,
    /// Where the next frame goes.
    at: u64,
    reserved: u64,
    last: Millis,
}

#[derive(Debug, Default)]
struct Next {
    prepared: Option<Prepared>,
    number: u64,
}

/// A segment that frames can be written to once it is begun.
#[derive(Debug)]
struct Prepared {
    file: Arc<dyn File>,
    number: u64,
    reserved: u64,
    /// Bytes that frames may leave unused at the end of the segment before.
    margin: i64,
    /// Bytes of it that were added to what may be promised.
    counted: i64,
}

/// Makes segments.
#[derive(Debug)]
struct Maker {
    storage: Arc<dyn Storage>,
    identity: [u8; 16],
    config: LogConfig,
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
        let pending = Pending {
            next_space: start.next_space.max(1),
            covered_since: start.covered_since,
            spaces: start
                .spaces
                .into_iter()
                .map(|space| (space.id, space))
                .collect(),
            ..Pending::default()
        };
        let maker = Maker {
            storage,
            identity: start.log,
            config,
        };
        maker.sync_sealed(&start.sealed)?;
        let number = start.next_segment;
        let first = maker.make(number, pending.spaces.len(), Zeros::AtOnce, now)?;
        let begins = Position {
            segment: number,
            offset: 0,
        };
        let opened = opened(&maker.config, &pending, &start.sealed, begins, now);
        let (promise_max, active) = (first.margin, maker.begin(&first, &opened)?);
        sync_whole(&*active.file)?;
        maker.storage.sync_names()?;
        let free = active.left() as i64;
        let synced = active.position();
        Ok(Self {
            maker,
            pending: CachePadded::new(Mutex::new(pending)),
            appended: CachePadded::new(AtomicU64::new(0)),
            written: CachePadded::new(AtomicU64::new(0)),
            synced: AtomicU64::new(0),
            free: CachePadded::new(AtomicI64::new(free)),
            promise_max: AtomicI64::new(promise_max),
            state: AtomicU8::new(GOOD),
            is_full: AtomicBool::new(false),
            writer: Mutex::new(Writer {
                active,
                sealed: start.sealed,
                unsynced: Vec::new(),
                is_name_unsynced: false,
                chunk: Vec::new(),
                chunk_at: 0,
                chunk_last: Millis(0),
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

    /// Promises space for frames of so many bytes, headers included. What is not used of it is to be
    /// [given back](Log::give_back).
    #[inline]
    pub fn promise(&self, bytes: usize) -> bool {
        self.promise_free(bytes as i64) || self.promise_more(bytes as i64)
    }

    /// Promises what is free.
    #[inline]
    fn promise_free(&self, bytes: i64) -> bool {
        bytes <= self.promise_max.load(Ordering::Relaxed)
            && self.state.load(Ordering::Acquire) == GOOD
            && self.take_free(bytes)
    }

    /// Takes so many of the bytes that are promised to nobody; false, and none, if there are not as many.
    #[inline]
    fn take_free(&self, bytes: i64) -> bool {
        let is_free = self.free.fetch_sub(bytes, Ordering::Relaxed) >= bytes;
        if !is_free {
            self.free.fetch_add(bytes, Ordering::Relaxed);
        }
        is_free
    }

    /// Takes back a promise of so many bytes.
    #[inline]
    pub fn give_back(&self, bytes: usize) {
        self.free.fetch_add(bytes as i64, Ordering::Relaxed);
    }

    /// Reserves another segment, if there is space for it, and promises that.
    #[cold]
    fn promise_more(&self, bytes: i64) -> bool {
        if self.health() != Health::Good {
            return false;
        }
        for _ in 0..2 {
            {
                let mut next = self.next.lock();
                if next.prepared.is_none()
                    && self.prepare(&mut next, Zeros::Never, Millis(0)).is_err()
                {
                    return false;
                }
            }
            if self.promise_free(bytes) {
                return true;
            }
            // All that is reserved is promised, but for what segments keep back for their ends: once all is
            // written, the next one may have that, and there may be one more.
            if self.begin_next_for(bytes).is_err() {
                return false;
            }
        }
        false
    }

    /// Appends a whole frame, for which space was promised; `last` is the last deadline in it.
    ///
    /// For who has the shard locked whose change this is.
    #[inline]
    pub fn append(&self, frame: &[u8], last: Millis) {
        let mut pending = self.pending.lock();
        pending.last = pending.last.max(last);
        self.append_to(&mut pending, frame);
        // Whoever latched the failure has looked at what was pending before that.
        if self.has_failed() {
            self.doubt(frame);
        }
    }

    /// Gives a new namespace its number and appends that it is there, in the place of any other of its
    /// name; or that it has other properties, if it has a number. False, and nothing, if there is no space.
    #[must_use]
    pub fn append_space(&self, space: &mut Space) -> bool {
        let mut frame = Vec::new();
        // The number takes the same space whatever it is.
        push_control(&mut frame, &Control::Space(space.clone()));
        if !self.promise(frame.len()) {
            return false;
        }
        let mut pending = self.pending.lock();
        if space.id == 0 {
            space.id = pending.next_space;
            pending.next_space += 1;
            // One that had the name before is gone, with all that is in it.
            pending.spaces.retain(|_, before| before.name != space.name);
        }
        frame.clear();
        push_control(&mut frame, &Control::Space(space.clone()));
        pending.spaces.insert(space.id, space.clone());
        self.append_to(&mut pending, &frame);
        true
    }

    /// Appends that a namespace is gone, and from when on nothing was lost of namespaces that are not
    /// there; false, and nothing, if there is no space.
    #[must_use]
    pub fn append_dropped(&self, id: u32, covered_since: Millis) -> bool {
        let mut frame = Vec::new();
        push_control(&mut frame, &Control::Dropped { id, covered_since });
        if !self.promise(frame.len()) {
            return false;
        }
        let mut pending = self.pending.lock();
        pending.spaces.remove(&id);
        pending.covered_since = covered_since;
        self.append_to(&mut pending, &frame);
        true
    }

    fn append_to(&self, pending: &mut Pending, frame: &[u8]) {
        pending.frames.extend_from_slice(frame);
        self.appended
            .fetch_add(frame.len() as u64, Ordering::Release);
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
        let is_behind = appended - self.acknowledged().min(appended) > most && !self.has_failed();
        is_behind.then(|| appended - most / 2)
    }

    /// Writes what was appended, unless a sync beside it has been late for so long that writers wait for
    /// it. Not under [`Fsync::Always`], where who syncs writes: there it is only asked for.
    #[inline]
    pub fn write(&self, now: Millis) {
        if self.maker.config.fsync == Fsync::Always {
            self.want_sync();
            return;
        }
        let began = self.sync_began.load(Ordering::Relaxed);
        if began != 0 && now.since(Millis(began)) > LOG_SYNC_LATE_MS {
            return;
        }
        self.write_all();
    }

    fn write_all(&self) {
        let upto = self.appended();
        if self.written.load(Ordering::Acquire) >= upto || self.has_failed() {
            return;
        }
        let mut writer = self.writer.lock();
        if self.written.load(Ordering::Acquire) < upto {
            self.write_locked(&mut writer);
        }
    }

    fn write_locked(&self, writer: &mut Writer) {
        loop {
            if writer.chunk_at == writer.chunk.len() {
                writer.chunk.clear();
                writer.chunk_at = 0;
                let mut pending = self.pending.lock();
                std::mem::swap(&mut pending.frames, &mut writer.chunk);
                writer.chunk_last = std::mem::take(&mut pending.last);
            }
            if writer.chunk.is_empty() || self.has_failed() {
                return;
            }
            match self.write_some(writer) {
                Ok(()) => {
                    let _now_it_is_good = self.change_state(STUCK, GOOD);
                }
                Err(error) if is_lack_of_space(&error) => {
                    if self.change_state(GOOD, STUCK) {
                        tracing::warn!(
                            "no space for the log: changes are refused until there is some"
                        );
                    }
                    return;
                }
                Err(error) => {
                    self.fail(writer, &[], &format!("cannot write to the log: {error}"));
                    return;
                }
            }
        }
    }

    fn change_state(&self, from: u8, to: u8) -> bool {
        let order = Ordering::AcqRel;
        self.state
            .compare_exchange(from, to, order, Ordering::Acquire)
            .is_ok()
    }

    /// Writes as many frames as the active segment takes, or begins the next segment.
    fn write_some(&self, writer: &mut Writer) -> io::Result<()> {
        let left = writer.active.left() as usize;
        let marker = writer.marker();
        let chunk = &writer.chunk[writer.chunk_at..];
        let fits = whole_frames(chunk, left);
        if fits == 0 {
            return self.rotate(writer);
        }
        // It takes space like any frame, and stays away where all is promised.
        if marker.len() + fits <= left && !marker.is_empty() && self.take_free(marker.len() as i64)
        {
            writer.active.at += self.write_marker(writer, &marker)?;
            writer.marker_due = false;
        }
        let chunk = &writer.chunk[writer.chunk_at..][..fits];
        write_all_at(&*writer.active.file, chunk, writer.active.at)?;
        if self.maker.config.fsync == Fsync::Always {
            writer.unacknowledged.extend_from_slice(chunk);
        }
        writer.active.at += fits as u64;
        writer.active.last = writer.active.last.max(writer.chunk_last);
        writer.chunk_at += fits;
        self.written.fetch_add(fits as u64, Ordering::Release);
        Ok(())
    }

    fn write_marker(&self, writer: &Writer, marker: &[u8]) -> io::Result<u64> {
        let written = write_all_at(&*writer.active.file, marker, writer.active.at);
        if written.is_err() {
            self.give_back(marker.len());
        }
        written.map(|()| marker.len() as u64)
    }

    /// Seals the active segment and begins the next.
    fn rotate(&self, writer: &mut Writer) -> io::Result<()> {
        let prepared = {
            let mut next = self.next.lock();
            if next.prepared.is_none() {
                self.prepare(&mut next, Zeros::Never, Millis(0))?;
            }
            next.prepared
                .take()
                .expect("there is one, or it was just prepared")
        };
        let old = &writer.active;
        let end = seal();
        if let Err(error) = write_all_at(&*old.file, &end, old.at) {
            self.next.lock().prepared = Some(prepared);
            return Err(error);
        }
        let ends = old.at + end.len() as u64;
        writer.sealed.push(Sealed {
            number: old.number,
            last: old.last,
            bytes: ends,
        });
        let lost = old.left() as i64 + prepared.counted;
        let opened = {
            let pending = self.pending.lock();
            opened(
                &self.maker.config,
                &pending,
                &writer.sealed,
                writer.synced,
                Millis(0),
            )
        };
        let active = match self.maker.begin(&prepared, &opened) {
            Ok(active) => active,
            Err(error) => {
                // Nothing has happened yet. Where there was no space, it is tried again.
                self.next.lock().prepared = Some(prepared);
                writer.sealed.pop();
                return Err(error);
            }
        };
        let old = std::mem::replace(&mut writer.active, active);
        writer.is_name_unsynced = true;
        // Only gives space back; a segment with zeros at its end is as good.
        let _or_zeros_stay = old.file.truncate(ends);
        writer.unsynced.push(old.file);
        let gained = writer.active.left() as i64;
        self.free.fetch_add(gained - lost, Ordering::Relaxed);
        Ok(())
    }

    /// Makes the segment after the active one, as large as there is space for.
    fn prepare(&self, next: &mut Next, zeros: Zeros, now: Millis) -> io::Result<()> {
        let spaces = self.pending.lock().spaces.len();
        match self.maker.make(next.number, spaces, zeros, now) {
            Ok(mut prepared) => {
                // What was promised so far may leave more unused than what is promised from here on.
                let before = self.promise_max.swap(prepared.margin, Ordering::Relaxed);
                let larger = (before - prepared.margin).max(0);
                prepared.counted = (prepared.counted - larger).max(0);
                self.free.fetch_add(prepared.counted, Ordering::Relaxed);
                next.number += 1;
                next.prepared = Some(prepared);
                if self.is_full.swap(false, Ordering::Relaxed) {
                    tracing::info!("there is space for the log again");
                }
                Ok(())
            }
            Err(error) => {
                if is_lack_of_space(&error) && !self.is_full.swap(true, Ordering::Relaxed) {
                    tracing::warn!("no space for another segment of the log");
                }
                Err(error)
            }
        }
    }

    /// Makes the segment after the active one as large as it is to be, where there is space for that now.
    fn lengthen(&self, prepared: &mut Prepared) -> io::Result<()> {
        if prepared.reserved >= self.maker.config.segment_bytes {
            return Ok(());
        }
        let spaces = self.pending.lock().spaces.len();
        let before = prepared.counted;
        if self.maker.lengthen(prepared, spaces)? {
            self.promise_max.store(prepared.margin, Ordering::Relaxed);
            let more = prepared.counted - before;
            self.free.fetch_add(more, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Syncs what was written, and under [`Fsync::Always`] writes it first. Returns false if there was
    /// nothing to do or the log has failed.
    pub fn sync(&self, now: Millis) -> bool {
        let _one_at_a_time = self.syncing.lock();
        if self.has_failed() {
            return false;
        }
        self.write_all();
        let (files, is_name_unsynced, upto, position, unacknowledged) = {
            let mut writer = self.writer.lock();
            let upto = self.written.load(Ordering::Acquire);
            // What was written before a write that failed is in doubt already.
            if self.has_failed() || upto == self.synced() && writer.unsynced.is_empty() {
                return false;
            }
            let mut files = std::mem::take(&mut writer.unsynced);
            files.push(Arc::clone(&writer.active.file));
            let is_name_unsynced = std::mem::take(&mut writer.is_name_unsynced);
            let unacknowledged = std::mem::take(&mut writer.unacknowledged);
            let position = writer.active.position();
            (files, is_name_unsynced, upto, position, unacknowledged)
        };
        self.sync_began.store(now.0.max(1), Ordering::Relaxed);
        let mut result = files.iter().try_for_each(|file| sync_whole(&**file));
        if is_name_unsynced {
            result = result.and_then(|()| self.maker.storage.sync_names());
        }
        self.sync_began.store(0, Ordering::Relaxed);
        let mut writer = self.writer.lock();
        match result {
            Ok(()) => {
                writer.synced = position;
                // Under `Always` there may be thousands a second.
                if now.since(writer.marked) >= MARK_EVERY_MS {
                    writer.marker_due = true;
                    writer.marked = now;
                }
                if writer.unacknowledged.is_empty() {
                    // Its memory again, for the next ones.
                    writer.unacknowledged = unacknowledged;
                    writer.unacknowledged.clear();
                }
                self.synced.store(upto, Ordering::Release);
            }
            Err(error) => self.fail(
                &mut writer,
                &unacknowledged,
                &format!("cannot sync the log: {error}"),
            ),
        }
        // Writers may have waited for a late sync.
        if self.maker.config.fsync != Fsync::Always {
            self.write_locked(&mut writer);
        }
        drop(writer);
        self.tell();
        true
    }

    /// Ends the writing. What is on its way is in doubt.
    fn fail(&self, writer: &mut Writer, synced_in_vain: &[u8], reason: &str) {
        {
            let mut in_doubt = self.in_doubt.lock();
            if in_doubt.reason.is_empty() {
                reason.clone_into(&mut in_doubt.reason);
                tracing::error!(
                    "{reason}; no changes are taken from here on, restart when it is mended"
                );
            }
        }
        let pending = self.pending.lock();
        self.doubt(synced_in_vain);
        self.doubt(&std::mem::take(&mut writer.unacknowledged));
        self.doubt(&writer.chunk[writer.chunk_at..]);
        self.doubt(&pending.frames);
        // Only now, or who sees the failure might ask for a key whose doubt is not known yet. What is
        // appended behind this is looked at by who appends it.
        self.state.store(FAILED, Ordering::Release);
        drop(pending);
        self.tell();
    }

    fn doubt(&self, frames: &[u8]) {
        let mut in_doubt = self.in_doubt.lock();
        let mut rest = frames;
        while let Some((header, mut payload)) = frame::read(rest) {
            rest = &rest[header.frame_bytes()..];
            while header.space != frame::CONTROL
                && let Some(record) = record::take(&mut payload)
            {
                let mut key = Vec::new();
                record.key.write_to(&mut key);
                in_doubt.keys.insert(key.into());
            }
        }
    }

    /// Ends the log in order: all is written and durable, and the log says that it was ended.
    pub fn close(&self, now: Millis) -> io::Result<()> {
        let failed = || io::Error::other(self.failure());
        while self.sync(now) {}
        if self.has_failed() {
            return Err(failed());
        }
        let mut writer = self.writer.lock();
        if self.written.load(Ordering::Acquire) < self.appended() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        // Its space may be what the end needs, where the disk is full.
        if let Some(unused) = self.next.lock().prepared.take() {
            let name = segment::temporary_name(unused.number);
            self.maker.storage.remove(&name)?;
        }
        let mut end = writer.marker();
        push_control(&mut end, &Control::Closed);
        let active = &mut writer.active;
        if end.len() as u64 > active.reserved - active.at {
            // Beyond what was set aside: where there is no space, the next start is told of no end.
            active.file.reserve(active.at + end.len() as u64, false)?;
        }
        write_all_at(&*active.file, &end, active.at)?;
        active.at += end.len() as u64;
        active.file.truncate(active.at)?;
        sync_whole(&*active.file)?;
        self.maker.storage.sync_names()
    }

    /// Prepares the next segment, tries again what lacked space, and deletes segments whose last deadline
    /// has passed. For a thread that has time.
    pub fn tend(&self, now: Millis) -> io::Result<()> {
        if self.has_failed() {
            return Ok(());
        }
        if let Err(error) = self.make_ahead(now)
            && !is_lack_of_space(&error)
        {
            let reason = format!("cannot make a segment of the log: {error}");
            self.fail(&mut self.writer.lock(), &[], &reason);
            return Ok(());
        }
        if self.written.load(Ordering::Acquire) < self.appended() {
            self.write(now);
            self.tell();
        }
        self.delete_lapsed(now)
    }

    /// Sees to it that there is a segment after the active one, as large as the disk lets it be.
    fn make_ahead(&self, now: Millis) -> io::Result<()> {
        {
            let mut next = self.next.lock();
            let Some(prepared) = &mut next.prepared else {
                return self.prepare(&mut next, Zeros::Slowly, now);
            };
            self.lengthen(prepared)?;
            let is_short = prepared.reserved < self.maker.config.segment_bytes
                && self.free.load(Ordering::Relaxed) < self.promise_max.load(Ordering::Relaxed);
            self.is_full.store(is_short, Ordering::Relaxed);
            if !is_short {
                return Ok(());
            }
        }
        self.begin_next_for(self.promise_max.load(Ordering::Relaxed))
    }

    /// Begins the next segment if there is one, and not so many bytes are left of the active one: the next
    /// has more than was promised of it.
    fn begin_next_for(&self, bytes: i64) -> io::Result<()> {
        let mut writer = self.writer.lock();
        self.write_locked(&mut writer);
        let is_all_written = writer.chunk_at == writer.chunk.len() && !self.has_failed();
        let is_short = (writer.active.left() as i64) < bytes;
        if is_all_written && is_short && self.next.lock().prepared.is_some() {
            self.rotate(&mut writer)?;
        }
        Ok(())
    }

    /// A segment goes only once a later one is durable, which repeats what it says of namespaces.
    fn delete_lapsed(&self, now: Millis) -> io::Result<()> {
        let is_due = |writer: &Writer| {
            let mut sealed = writer.sealed.iter();
            sealed.any(|sealed| sealed.last < now && sealed.number >= writer.synced.segment)
        };
        // Where nobody syncs, this does: at most once in a segment.
        if self.fsync() == Fsync::Never && is_due(&self.writer.lock()) {
            self.sync(now);
        }
        let lapsed: Vec<_> = {
            let mut writer = self.writer.lock();
            let synced = writer.synced.segment;
            let (lapsed, kept) = writer
                .sealed
                .iter()
                .partition(|sealed| sealed.last < now && sealed.number < synced);
            writer.sealed = kept;
            lapsed
        };
        for sealed in lapsed {
            self.maker.storage.remove(&segment::name(sealed.number))?;
        }
        Ok(())
    }

    /// Complete segments, in order.
    pub fn sealed(&self) -> Vec<Sealed> {
        self.writer.lock().sealed.clone()
    }

    /// Says what a sealed segment has become by compaction.
    pub(super) fn reseal(&self, compacted: Sealed) {
        let mut writer = self.writer.lock();
        let found = writer
            .sealed
            .iter_mut()
            .find(|sealed| sealed.number == compacted.number);
        if let Some(sealed) = found {
            *sealed = compacted;
        }
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

    /// The storage below.
    pub(super) fn storage(&self) -> &Arc<dyn Storage> {
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

    /// Waits until all up to `position` is durable; false if it will not be.
    #[must_use]
    pub fn wait_synced(&self, position: u64) -> bool {
        self.want_sync();
        let mut waiting = self.progress.0.lock();
        while self.synced() < position {
            if self.has_failed() {
                return false;
            }
            self.progress.1.wait(&mut waiting);
        }
        true
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

impl Writer {
    /// The frame that says how far the log is durable, if that is to be said.
    fn marker(&self) -> Vec<u8> {
        let mut marker = Vec::new();
        if self.marker_due {
            push_control(&mut marker, &Control::Synced(self.synced));
        }
        marker
    }
}

impl Active {
    fn position(&self) -> Position {
        Position {
            segment: self.number,
            offset: self.at,
        }
    }

    /// Bytes for frames: what says that the segment ends has its place behind them.
    fn left(&self) -> u64 {
        self.reserved.saturating_sub(self.at + SEAL_BYTES)
    }
}

impl Maker {
    /// Makes durable what is there: whoever wrote it may have been killed before it was.
    fn sync_sealed(&self, sealed: &[Sealed]) -> io::Result<()> {
        for sealed in sealed {
            sync_whole(&*self.storage.open(&segment::name(sealed.number))?)?;
        }
        self.storage.sync_names()
    }

    /// Makes a segment as large as there is space for, durable with its name.
    fn make(&self, number: u64, spaces: usize, zeros: Zeros, now: Millis) -> io::Result<Prepared> {
        let name = segment::temporary_name(number);
        let file = self.storage.create(&name)?;
        let made = self.fill(file, number, spaces, zeros, now);
        if made.is_err() {
            let _the_first_error_counts = self.storage.remove(&name);
        }
        made
    }

    fn fill(
        &self,
        file: Arc<dyn File>,
        number: u64,
        spaces: usize,
        zeros: Zeros,
        now: Millis,
    ) -> io::Result<Prepared> {
        // Many namespaces make small segments longer, or nothing could be promised of them.
        let mut bytes = self.config.segment_bytes.max(4 * begin_bytes(spaces));
        while let Err(error) = self.reserve(&*file, bytes, zeros) {
            if !is_lack_of_space(&error) || bytes <= LOG_SEGMENT_BYTES_MIN {
                return Err(error);
            }
            file.truncate(0)?;
            bytes = (bytes / 2).max(LOG_SEGMENT_BYTES_MIN);
        }
        let header = segment::Header {
            number,
            created: now,
            log: self.identity,
        };
        write_all_at(&*file, &header.bytes(), 0)?;
        // Under `Fsync::Never` too, as it is once in a segment: a file that is lost as a whole, with later
        // ones there, looks like a missing segment. This makes the name of the one before durable as well.
        sync_whole(&*file)?;
        self.storage.sync_names()?;
        let (margin, counted) = self.room(bytes, spaces);
        Ok(Prepared {
            file,
            number,
            reserved: bytes,
            margin,
            counted,
        })
    }

    /// Writes what a segment begins with, and only then gives it its name: who copies the directory while
    /// the log is written finds a segment or does not, and none behind one that may go on.
    fn begin(&self, prepared: &Prepared, opened: &Control) -> io::Result<Active> {
        let mut begin = Vec::new();
        push_control(&mut begin, opened);
        let at = segment::HEADER_BYTES as u64;
        write_all_at(&*prepared.file, &begin, at)?;
        let at = at + begin.len() as u64;
        let mut reserved = prepared.reserved;
        // With thousands of segments or namespaces, so long that little or nothing else would fit: a
        // segment in which no frame fits is followed by another one like it, for ever.
        if at > reserved / 2 && prepared.file.reserve(at + reserved, false).is_ok() {
            reserved += at;
        }
        let number = prepared.number;
        self.storage
            .rename(&segment::temporary_name(number), &segment::name(number))?;
        Ok(Active {
            file: Arc::clone(&prepared.file),
            number,
            at,
            // What does not fit what was set aside has made the file longer.
            reserved: reserved.max(at + SEAL_BYTES),
            last: Millis(0),
        })
    }

    /// Sets space aside; only where each change is synced are zeros worth writing.
    fn reserve(&self, file: &dyn File, bytes: u64, zeros: Zeros) -> io::Result<()> {
        if self.config.fsync != Fsync::Always || zeros == Zeros::Never {
            return file.reserve(bytes, false);
        }
        let mut reserved = 0;
        while reserved < bytes {
            reserved = (reserved + ZEROS_BYTES).min(bytes);
            file.reserve(reserved, true)?;
            if zeros == Zeros::Slowly {
                std::thread::sleep(ZEROS_PAUSE);
            }
        }
        Ok(())
    }

    /// A segment's margin, and what of so many bytes may be promised.
    fn room(&self, bytes: u64, spaces: usize) -> (i64, i64) {
        let margin = (self.config.frame_bytes_max as u64).min(bytes / 2);
        let counted = bytes.saturating_sub(margin + begin_bytes(spaces));
        (margin as i64, counted as i64)
    }

    /// Makes a segment longer that the disk had not enough space for; false if it still has not.
    fn lengthen(&self, prepared: &mut Prepared, spaces: usize) -> io::Result<bool> {
        let bytes = self.config.segment_bytes;
        match self.reserve(&*prepared.file, bytes, Zeros::Never) {
            Ok(()) => {}
            Err(error) if is_lack_of_space(&error) => return Ok(false),
            Err(error) => return Err(error),
        }
        sync_whole(&*prepared.file)?;
        prepared.reserved = bytes;
        (prepared.margin, prepared.counted) = self.room(bytes, spaces);
        Ok(true)
    }
}

/// Bytes that a segment begins with where there are so many namespaces.
fn begin_bytes(spaces: usize) -> u64 {
    (segment::HEADER_BYTES + BEGIN_BYTES + spaces * SPACE_BYTES_MAX) as u64
}

/// Whether a new segment is filled with zeros, which makes every sync of it cheaper later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Zeros {
    AtOnce,
    /// Leaving the disk to others in between.
    Slowly,
    /// Somebody waits for the segment.
    Never,
}

fn opened(
    config: &LogConfig,
    pending: &Pending,
    sealed: &[Sealed],
    synced: Position,
    now: Millis,
) -> Control {
    Control::Opened(Box::new(Opened {
        at: now,
        boot: config.boot,
        always_synced: config.fsync == Fsync::Always,
        synced,
        earlier: sealed
            .iter()
            .map(|sealed| (sealed.number, sealed.last))
            .collect(),
        next_space: pending.next_space,
        covered_since: pending.covered_since,
        spaces: pending.spaces.values().cloned().collect(),
    }))
}

/// The frame that ends a segment.
pub(super) fn seal() -> Vec<u8> {
    let mut end = Vec::new();
    push_control(&mut end, &Control::Sealed);
    debug_assert_eq!(end.len() as u64, SEAL_BYTES);
    end
}

fn push_control(out: &mut Vec<u8>, control: &Control) {
    let begins = frame::begin(out);
    control.push(out);
    frame::finish(out, begins, frame::CONTROL);
}

/// Bytes of the whole frames that fit into `left`.
fn whole_frames(chunk: &[u8], left: usize) -> usize {
    if chunk.len() <= left {
        return chunk.len();
    }
    let mut fits = 0;
    while let Some(header) = frame::Header::of(&chunk[fits..])
        && fits + header.frame_bytes() <= left
    {
        fits += header.frame_bytes();
    }
    fits
}

fn sync_whole(file: &dyn File) -> io::Result<()> {
    loop {
        match file.sync() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}
