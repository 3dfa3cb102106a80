//! What all connections of a server share: the engine, the clock, and who is connected.

use std::cmp::Reverse;
use std::fmt::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::Waker;

use dashmap::DashMap;
use parking_lot::Mutex;

use super::acks::Signal;
use super::clock::Clock;
use super::gauges::Gauges;
use super::settings::number_of;
use super::threads::Faults;
use crate::command::ClientFilter;
use crate::engine::{DEFAULT_NAMESPACE, Engine, Progress};
use crate::log::writer::Health;
use crate::time::{Millis, parse_u64};

/// Connections that `CLIENT LIST` tells before others have their turn: a line costs about a microsecond.
const LINES_PER_SLICE: usize = 1_000;

/// Shared by all workers.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) engine: Engine,
    pub(super) clock: Clock,
    /// Settings as `CONFIG GET` tells them.
    pub(super) settings: Vec<(String, String)>,
    /// The port of the first TCP listener; 0 if there is none.
    pub(super) tcp_port: u16,
    /// How the log reaches each worker.
    pub(super) signals: Box<[Signal]>,
    /// Where a thread's panic is told.
    pub(super) faults: Arc<Faults>,
    /// Connections at a time: as many as are configured, or as the system has descriptors for.
    connections_max: AtomicUsize,
    /// How many may be asked for while the server runs.
    connections_ceiling: AtomicUsize,
    /// Whether the clock was found to be behind the wall clock.
    pub(super) was_clock_behind: AtomicBool,
    /// Whether the log is still being read.
    loading: AtomicBool,
    /// Told how far the reading has come.
    on_progress: Mutex<Option<OnProgress>>,
    /// What `INFO` tells that nobody counts as it happens.
    pub(super) gauges: Gauges,
    clients: DashMap<u64, Arc<ClientInfo>>,
    last_id: AtomicU64,
}

/// Who is told how far the reading of the log has come.
pub(super) struct OnProgress(pub(super) Box<dyn Fn(&Progress) + Send + Sync>);

impl fmt::Debug for OnProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnProgress")
    }
}

/// What others may know of a connection.
#[derive(Debug)]
pub(super) struct ClientInfo {
    pub(super) id: u64,
    ends: Ends,
    since: Millis,
    names: Mutex<Names>,
    /// Whether another connection has asked for this one's end.
    is_killed: AtomicBool,
    /// Wakes its connection.
    waker: Mutex<Option<Waker>>,
}

/// Both ends of a connection, as Redis writes them.
#[derive(Debug, Default)]
pub(super) struct Ends {
    pub(super) peer: String,
    pub(super) local: String,
}

#[derive(Debug, Default)]
struct Names {
    name: String,
    /// The namespace that it has chosen; empty for the default one.
    namespace: String,
    library: String,
    library_version: String,
}

impl Shared {
    pub(super) fn new(
        engine: Engine,
        clock: Clock,
        settings: Vec<(String, String)>,
        tcp_port: u16,
        workers: usize,
    ) -> Self {
        let connections_max = engine.limits().connections_max;
        Self {
            engine,
            clock,
            settings,
            tcp_port,
            faults: Arc::default(),
            connections_ceiling: AtomicUsize::new(connections_max),
            connections_max: AtomicUsize::new(connections_max),
            signals: (0..workers).map(|_| Signal::default()).collect(),
            was_clock_behind: AtomicBool::new(false),
            loading: AtomicBool::new(false),
            on_progress: Mutex::new(None),
            gauges: Gauges::new(clock.read().now),
            clients: DashMap::new(),
            last_id: AtomicU64::new(0),
        }
    }

    /// Compares the clock with the wall clock, for those who name moments and are told them.
    pub(super) fn look_at_wall_clock(&self) {
        let was_ms = self.engine.wall_ahead_ms();
        let ahead_ms = self.clock.drift_ms(was_ms);
        if ahead_ms != was_ms && self.engine.set_wall_ahead(was_ms, ahead_ms) {
            tracing::warn!(
                ahead_ms,
                was_ms,
                "the system's clock was set: windows go on by the server's, which follows it at the next \
                 start; moments that clients name, and are told, are converted"
            );
        }
    }

    /// Whether the log is still being read, and nothing can be answered.
    #[inline]
    pub(super) fn is_loading(&self) -> bool {
        self.loading.load(Ordering::Acquire)
    }

    pub(super) fn set_loading(&self, loading: bool) {
        self.loading.store(loading, Ordering::Release);
    }

    /// Connections at a time.
    pub(super) fn connections_max(&self) -> usize {
        self.connections_max.load(Ordering::Relaxed)
    }

    /// How many may be asked for while the server runs.
    pub(super) fn connections_ceiling(&self) -> usize {
        self.connections_ceiling.load(Ordering::Relaxed)
    }

    /// As many as there are descriptors for.
    pub(super) fn set_connections_ceiling(&self, connections: usize) {
        self.connections_ceiling
            .store(connections, Ordering::Relaxed);
        self.set_connections_max(connections);
    }

    pub(super) fn set_connections_max(&self, connections: usize) {
        self.connections_max.store(connections, Ordering::Relaxed);
    }

    /// Whether the log takes no more changes.
    #[inline]
    pub(super) fn has_log_failed(&self) -> bool {
        self.engine
            .log()
            .is_some_and(|log| log.health() == Health::Failed)
    }

    /// Whether changes are in doubt, which then is asked of each key: see [`Log::has_doubts`](crate::log::writer::Log::has_doubts).
    #[inline]
    pub(super) fn has_doubts(&self) -> bool {
        self.engine.log().is_some_and(|log| log.has_doubts())
    }

    pub(super) fn on_progress(&self, told: OnProgress) {
        *self.on_progress.lock() = Some(told);
    }

    pub(super) fn tell_progress(&self, progress: &Progress) {
        self.gauges.has_read(progress, self.clock.read().now);
        if let Some(told) = &*self.on_progress.lock() {
            told.0(progress);
        }
    }

    pub(super) fn register(&self, ends: Ends, now: Millis) -> Arc<ClientInfo> {
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let info = Arc::new(ClientInfo {
            id,
            ends,
            since: now,
            names: Mutex::default(),
            is_killed: AtomicBool::new(false),
            waker: Mutex::default(),
        });
        self.clients.insert(id, Arc::clone(&info));
        info
    }

    pub(super) fn unregister(&self, id: u64) {
        self.clients.remove(&id);
    }

    /// The connections that a filter lets through, but for the one that asks if it is to be skipped.
    pub(super) fn clients(
        &self,
        filter: &ClientFilter<'_>,
        (me, now): (u64, Millis),
    ) -> Vec<Arc<ClientInfo>> {
        let passes = |client: &ClientInfo| {
            client.passes(filter, now) && !(filter.skips_me && client.id == me)
        };
        let Some(ids) = filter.ids else {
            let clients = self.clients.iter().filter(|client| passes(client));
            return clients.map(|entry| Arc::clone(&entry)).collect();
        };
        let mut clients: Vec<_> = ids
            .iter()
            .filter_map(|id| self.clients.get(&parse_u64(id)?))
            .filter(|client| passes(client))
            .map(|entry| Arc::clone(&entry))
            .collect();
        clients.sort_unstable_by_key(|client| client.id);
        clients.dedup_by_key(|client| client.id);
        clients
    }

    /// Some connections, to be listed from the oldest on.
    pub(super) fn listing(&self, filter: &ClientFilter<'_>, now: Millis) -> Listing {
        let mut left = self.clients(filter, (0, now));
        left.sort_unstable_by_key(|client| Reverse(client.id));
        Listing {
            left,
            lines: String::new(),
        }
    }
}

/// The connections that `CLIENT LIST` tells, a slice at a time.
#[derive(Debug)]
pub(super) struct Listing {
    /// The next one last.
    left: Vec<Arc<ClientInfo>>,
    lines: String,
}

impl Listing {
    /// A line for each of some more of them; whether these were the last.
    pub(super) fn go_on(&mut self, now: Millis) -> bool {
        for client in self
            .left
            .drain(self.left.len().saturating_sub(LINES_PER_SLICE)..)
            .rev()
        {
            let _infallible = writeln!(self.lines, "{}", client.line(now));
        }
        self.left.is_empty()
    }

    /// Bytes of memory that it holds.
    pub(super) fn held_bytes(&self) -> usize {
        self.left.capacity() * size_of::<Arc<ClientInfo>>() + self.lines.capacity()
    }

    pub(super) fn into_lines(self) -> String {
        self.lines
    }
}

impl ClientInfo {
    pub(super) fn name(&self) -> String {
        self.names.lock().name.clone()
    }

    pub(super) fn set_name(&self, name: &[u8]) {
        self.names.lock().name = String::from_utf8_lossy(name).into_owned();
    }

    pub(super) fn set_library(&self, is_name: bool, value: &[u8]) {
        let mut names = self.names.lock();
        let field = if is_name {
            &mut names.library
        } else {
            &mut names.library_version
        };
        *field = String::from_utf8_lossy(value).into_owned();
    }

    /// Takes note of what wakes its connection.
    pub(super) fn set_waker(&self, waker: &Waker) {
        *self.waker.lock() = Some(waker.clone());
    }

    /// Ends its connection; nothing more is executed for it.
    pub(super) fn kill(&self) {
        self.is_killed.store(true, Ordering::Release);
        if let Some(waker) = self.waker.lock().take() {
            waker.wake();
        }
    }

    /// Whether its connection is to end.
    #[inline]
    pub(super) fn is_killed(&self) -> bool {
        self.is_killed.load(Ordering::Acquire)
    }

    /// Takes note of the namespace that it has chosen.
    pub(super) fn set_namespace(&self, name: &str) {
        let name = if name == DEFAULT_NAMESPACE { "" } else { name };
        name.clone_into(&mut self.names.lock().namespace);
    }

    /// Whether it is what a filter names, its number set aside.
    fn passes(&self, filter: &ClientFilter<'_>, now: Millis) -> bool {
        let is_it =
            |asked: Option<&[u8]>, has: &str| asked.is_none_or(|asked| asked == has.as_bytes());
        !filter.never
            && is_it(filter.address, &self.ends.peer)
            && is_it(filter.local_address, &self.ends.local)
            && filter.age_s_min.is_none_or(|min| self.age_s(now) >= min)
    }

    fn age_s(&self, now: Millis) -> u64 {
        now.since(self.since) / 1_000
    }

    /// The connection as Redis's `CLIENT LIST` shows one. A namespace that no `SELECT` chooses is database -1.
    pub(super) fn line(&self, now: Millis) -> String {
        let names = self.names.lock();
        let namespace = match &*names.namespace {
            "" => DEFAULT_NAMESPACE,
            name => name,
        };
        let db = number_of(namespace).map_or(-1, u64::cast_signed);
        format!(
            "id={} addr={} laddr={} name={} age={} flags=N db={db} user=default lib-name={} lib-ver={} ns={namespace}",
            self.id,
            self.ends.peer,
            self.ends.local,
            names.name,
            self.age_s(now),
            names.library,
            names.library_version,
        )
    }
}
