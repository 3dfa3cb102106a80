//! What all connections of a server share: the engine, the clock, and who is connected.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use parking_lot::Mutex;

use super::clock::Clock;
use crate::engine::Engine;
use crate::time::Millis;

/// Shared by all workers.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) engine: Engine,
    pub(super) clock: Clock,
    /// Settings as `CONFIG GET` tells them.
    pub(super) settings: Vec<(String, String)>,
    /// The port of the first TCP listener; 0 if there is none.
    pub(super) tcp_port: u16,
    clients: DashMap<u64, Arc<ClientInfo>>,
    last_id: AtomicU64,
}

/// What others may know of a connection.
#[derive(Debug)]
pub(super) struct ClientInfo {
    pub(super) id: u64,
    peer: String,
    since: Millis,
    names: Mutex<Names>,
}

#[derive(Debug, Default)]
struct Names {
    name: String,
    library: String,
    library_version: String,
}

impl Shared {
    pub(super) fn new(
        engine: Engine,
        clock: Clock,
        settings: Vec<(String, String)>,
        tcp_port: u16,
    ) -> Self {
        Self {
            engine,
            clock,
            settings,
            tcp_port,
            clients: DashMap::new(),
            last_id: AtomicU64::new(0),
        }
    }

    pub(super) fn register(&self, peer: String, now: Millis) -> Arc<ClientInfo> {
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let info = Arc::new(ClientInfo {
            id,
            peer,
            since: now,
            names: Mutex::default(),
        });
        self.clients.insert(id, Arc::clone(&info));
        info
    }

    pub(super) fn unregister(&self, id: u64) {
        self.clients.remove(&id);
    }

    /// A line per connection, oldest first.
    pub(super) fn client_list(&self, now: Millis) -> String {
        let mut clients: Vec<_> = self
            .clients
            .iter()
            .map(|entry| Arc::clone(&entry))
            .collect();
        clients.sort_unstable_by_key(|client| client.id);
        clients.iter().fold(String::new(), |mut list, client| {
            let _infallible = writeln!(list, "{}", client.line(now));
            list
        })
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

    /// The connection as Redis's `CLIENT LIST` shows one.
    pub(super) fn line(&self, now: Millis) -> String {
        let names = self.names.lock();
        format!(
            "id={} addr={} name={} age={} lib-name={} lib-ver={}",
            self.id,
            self.peer,
            names.name,
            now.since(self.since) / 1_000,
            names.library,
            names.library_version,
        )
    }
}
