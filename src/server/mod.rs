//! The server: listeners, workers, connections, and the only clock.
//!
//! One thread accepts and hands each connection to the worker with the fewest; a worker is a
//! thread with its own runtime, and a request runs to completion where it arrived. Another
//! thread gives memory back. A server that is told to stop accepts no more, answers what it has
//! received, and ends.
//!
//! - [`clock`]: the only place that reads time
//! - `listen`: sockets; `connection`: one connection's bytes; `client`: its conversation; `on_connection`:
//!   the commands on that; `batch`: its questions that are asked together; `turn`: what it may do before others; `queue`: who goes
//!   on after that; `held`: its replies that are held
//! - [`keeper`]: the log's life beside the workers; `acks`: replies that wait for it
//! - [`descriptors`]: how many connections the system has descriptors for; `threads`: the server's end
//!   where one of its threads panics
//! - `intake`: who reads a long request while memory is short
//! - `sweeper`: the thread that gives memory back, and looks after the clocks; `episodes`: what it says of refusals
//! - `info`: `INFO` and `HELLO`; `catalog`: `COMMAND`; `settings`: `CONFIG`; `gauges`: what `INFO` tells
//!   that nobody counts as it happens; `shared`: what all connections share

mod acks;
mod batch;
mod catalog;
mod client;
pub mod clock;
mod connection;
pub mod descriptors;
mod episodes;
mod gauges;
mod held;
mod info;
mod intake;
pub mod keeper;
mod listen;
#[doc(hidden)]
pub mod longest;
mod on_connection;
mod output;
mod queue;
mod settings;
mod shared;
mod spares;
mod sweeper;
mod threads;
mod transaction;
mod turn;

use std::future::pending;
use std::io;
use std::net::{SocketAddr, TcpStream as StdTcpStream};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;

use self::clock::Clock;
use self::keeper::{DataConfig, Keeper, KeeperError, Unread};
use self::listen::Listener;
use self::shared::{Ends, OnProgress, Shared};
use self::sweeper::Sweeper;
pub use self::threads::{Allocator, allocator_gives_back};
use crate::address::Address;
use crate::engine::{Engine, EngineConfig, Progress};
use crate::limits::DRAIN_MS;

/// How long a connection over the limit is waited for to show its dialect.
const REFUSAL_WAIT: Duration = Duration::from_millis(200);

/// What a server is made of.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Where it listens.
    pub listen: Vec<Address>,
    /// Whether it may listen where others than this machine can reach it.
    pub insecure: bool,
    /// Worker threads.
    pub workers: usize,
    /// The store.
    pub engine: EngineConfig,
    /// Settings as `CONFIG GET` tells them: names and values.
    pub settings: Vec<(String, String)>,
    /// Where the log is, if there is to be one.
    pub data: Option<DataConfig>,
}

/// Why a server cannot run.
#[derive(Debug, Error)]
pub enum ServerError {
    /// An address that cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: String,
        /// What the system says.
        source: io::Error,
    },
    /// An address that strangers can reach, without `--insecure`.
    #[error(
        "{address} can be reached from other machines, and there is no authentication yet: listen on a loopback address or a Unix socket, or say --insecure"
    )]
    Open {
        /// The address.
        address: String,
    },
    /// No address at all.
    #[error("nothing to listen on: give --listen an address")]
    Nowhere,
    /// The data directory cannot be used.
    #[error(transparent)]
    Data(#[from] KeeperError),
    /// One of its threads is gone. What is left of them may go on until the process ends, which is to be
    /// soon: the log was not ended in order, and nothing more may be acknowledged.
    #[error("{thread} panicked, which is a fault of ours: the server cannot go on")]
    Thread {
        /// Which.
        thread: String,
    },
    /// The system gives no threads, timers or sockets.
    #[error("cannot start")]
    Start(#[from] io::Error),
}

/// A server whose sockets are bound.
#[derive(Debug)]
pub struct Server {
    listeners: Vec<Listener>,
    addresses: Vec<Address>,
    shared: Arc<Shared>,
    workers: usize,
    unread: Option<Unread>,
}

/// A connection on its way to a worker.
#[derive(Debug)]
enum Accepted {
    Tcp(StdTcpStream, SocketAddr),
    Unix(StdUnixStream),
}

impl Server {
    /// Binds the sockets; connections wait from here on, until [`Server::run`].
    pub fn bind(config: ServerConfig) -> Result<Self, ServerError> {
        Self::bind_by(Clock::start(), config)
    }

    /// The same, by a clock that was just started.
    pub fn bind_by(mut clock: Clock, config: ServerConfig) -> Result<Self, ServerError> {
        let mut listeners = Vec::new();
        for address in &config.listen {
            listeners.extend(Listener::bind(address, config.insecure)?);
        }
        if listeners.is_empty() {
            return Err(ServerError::Nowhere);
        }
        let addresses = listeners
            .iter()
            .map(Listener::address)
            .collect::<io::Result<Vec<_>>>()?;
        let tcp_port = addresses.iter().find_map(port_of).unwrap_or(0);
        let workers = config.workers.max(1);
        let unread = match &config.data {
            Some(data) => Some(Unread::open(data, &mut clock)?),
            None => None,
        };
        let started = clock.read().now;
        let engine = Engine::new(EngineConfig {
            workers,
            // What an earlier run of it remembered is gone.
            covered_since: started,
            started,
            ..config.engine
        });
        // Where the clock goes on from the last run's, the wall clock is behind it from the beginning.
        let _nobody_has_said_so_before = engine.set_wall_ahead(0, clock.drift_ms(0));
        let shared = Shared::new(engine, clock, config.settings, tcp_port, workers);
        let shared = Arc::new(shared);
        shared.set_loading(unread.is_some());
        Ok(Self {
            listeners,
            addresses,
            shared,
            workers,
            unread,
        })
    }

    /// Has `told` told how far the reading of the log has come, many times a second, and when all is read.
    pub fn on_progress(&self, told: impl Fn(&Progress) + Send + Sync + 'static) {
        self.shared.on_progress(OnProgress(Box::new(told)));
    }

    /// Where it listens; port 0 has become a real one.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// The store behind it.
    pub fn engine(&self) -> &Engine {
        &self.shared.engine
    }

    /// Has the store stay in memory for as long as the process: where that ends with the server, freeing millions of
    /// keys one by one would only take time.
    pub fn keep_store(&self) {
        std::mem::forget(Arc::clone(&self.shared));
    }

    /// Serves until `stop` is ready and the conversations are finished, or for ten seconds more.
    pub fn run(self, stop: impl Future<Output = ()>) -> Result<(), ServerError> {
        let (drain, draining) = watch::channel(false);
        let pool = Pool::start(self.workers, &self.shared, &draining)?;
        let sweeper = Sweeper::start(Arc::clone(&self.shared), self.workers)?;
        let is_stopping = Arc::new(AtomicBool::new(false));
        let mut reading = Reading::start(self.unread, &self.shared, self.workers, &is_stopping)?;
        let runtime = current_thread().build()?;
        // All that is to be open beside connections is, but for what the log opens later.
        let allowance = descriptors::allowance(self.shared.connections_max())?;
        self.shared.set_connections_ceiling(allowance.connections);
        let ended = runtime.block_on(async {
            let mut accepting = JoinSet::new();
            let refusals = Arc::new(Semaphore::new(allowance.refusals));
            for listener in self.listeners {
                let (pool, shared, refusals) = (
                    pool.clone(),
                    Arc::clone(&self.shared),
                    Arc::clone(&refusals),
                );
                accepting.spawn(
                    listener.accept(move |accepted| hand_on(accepted, &pool, &shared, &refusals)),
                );
            }
            tokio::select! {
                () = stop => Ok(()),
                Some(ended) = accepting.join_next() => Err(why_none_is_accepted(ended)),
                thread = self.shared.faults.told() => Err(ServerError::Thread { thread }),
                error = reading.failed() => Err(error.into()),
            }
        });
        if ended.is_ok() {
            tracing::info!("draining: no new connections");
        }
        is_stopping.store(self.shared.is_loading(), Ordering::Relaxed);
        let _every_worker_may_be_idle = drain.send(true);
        if matches!(ended, Err(ServerError::Thread { .. })) {
            // Others may wait for that thread, or for what it holds.
            return ended;
        }
        pool.finish();
        sweeper.stop();
        if let Some(keeper) = reading.finish() {
            keeper.stop();
        }
        match self.shared.faults.first() {
            Some(thread) => ended.and(Err(ServerError::Thread { thread })),
            None => ended,
        }
    }
}

fn why_none_is_accepted(ended: Result<io::Result<()>, JoinError>) -> ServerError {
    match ended {
        Ok(Err(error)) => error.into(),
        Ok(Ok(())) | Err(_) => ServerError::Thread {
            thread: "what accepts connections".to_owned(),
        },
    }
}

fn port_of(address: &Address) -> Option<u16> {
    match address {
        Address::Tcp(host_port) => host_port.rsplit_once(':')?.1.parse().ok(),
        Address::Unix(_) => None,
    }
}

fn current_thread() -> Builder {
    let mut builder = Builder::new_current_thread();
    builder.enable_all();
    builder
}

/// What this worker's connections run in.
fn runtime_of(worker: usize, shared: &Arc<Shared>) -> io::Result<Runtime> {
    let shared = Arc::clone(shared);
    current_thread()
        .on_thread_park(move || acks::end_turn(&shared, worker))
        .build()
}

/// Gives a connection to a worker, or tells it that there are too many.
fn hand_on(accepted: Accepted, pool: &Pool, shared: &Arc<Shared>, refusals: &Arc<Semaphore>) {
    let metrics = shared.engine.metrics();
    let max = shared.connections_max() as u64;
    if metrics.connections.get() >= max {
        metrics.connections_refused.add(1);
        if let Ok(place) = Arc::clone(refusals).try_acquire_owned() {
            tokio::spawn(async move {
                let _it_may_be_gone = refuse(accepted, max).await;
                drop(place);
            });
        }
        return;
    }
    metrics.connections.add(1);
    metrics.connections_total.add(1);
    pool.give(accepted);
}

/// Says in its own dialect that there are too many connections.
async fn refuse(accepted: Accepted, max: u64) -> io::Result<()> {
    match accepted {
        Accepted::Tcp(stream, _) => refuse_stream(TcpStream::from_std(stream)?, max).await,
        Accepted::Unix(stream) => refuse_stream(UnixStream::from_std(stream)?, max).await,
    }
}

async fn refuse_stream<S>(mut stream: S, max: u64) -> io::Result<()>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let mut first = [0];
    let is_resp =
        matches!(timeout(REFUSAL_WAIT, stream.read(&mut first)).await, Ok(Ok(1)) if first == *b"*");
    let text = if is_resp {
        "-ERR max number of clients reached\r\n".to_owned()
    } else {
        format!("ERR FULL there are {max} connections, the most there may be\n")
    };
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await
}

/// The workers, and how to reach them.
#[derive(Clone, Debug)]
struct Pool(Arc<[Worker]>);

#[derive(Debug)]
struct Worker {
    /// `None` once no more connections are handed out.
    connections: Mutex<Option<mpsc::UnboundedSender<Accepted>>>,
    active: Arc<AtomicUsize>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Pool {
    fn start(
        workers: usize,
        shared: &Arc<Shared>,
        draining: &watch::Receiver<bool>,
    ) -> io::Result<Self> {
        (0..workers)
            .map(|index| Worker::start(index, Arc::clone(shared), draining.clone()))
            .collect::<io::Result<_>>()
            .map(Self)
    }

    /// Hands a connection to the worker with the fewest. At most `connections_max` are on
    /// their way or served, so the channel needs no bound of its own.
    fn give(&self, accepted: Accepted) {
        let Some(worker) = self
            .0
            .iter()
            .min_by_key(|worker| worker.active.load(Ordering::Relaxed))
        else {
            return;
        };
        worker.active.fetch_add(1, Ordering::Relaxed);
        if let Some(connections) = &*worker.connections.lock() {
            let _a_worker_outlives_its_channel = connections.send(accepted);
        }
    }

    fn finish(self) {
        for worker in self.0.iter() {
            worker.connections.lock().take();
        }
        for worker in self.0.iter() {
            if let Some(thread) = worker.thread.lock().take() {
                let _its_panic_was_told = thread.join();
            }
        }
    }
}

impl Worker {
    fn start(
        index: usize,
        shared: Arc<Shared>,
        draining: watch::Receiver<bool>,
    ) -> io::Result<Self> {
        let (connections, handed) = mpsc::unbounded_channel();
        let active = Arc::new(AtomicUsize::new(0));
        let runtime = runtime_of(index, &shared)?;
        let counting = Arc::clone(&active);
        let faults = Arc::clone(&shared.faults);
        let thread = threads::spawn(&format!("onced-worker-{index}"), &faults, move || {
            runtime.block_on(work(index, handed, shared, counting, draining));
        })?;
        Ok(Self {
            connections: Mutex::new(Some(connections)),
            active,
            thread: Mutex::new(Some(thread)),
        })
    }
}

/// Serves every connection that is handed to this worker; ends when no more will be and all
/// have ended, or some time after.
async fn work(
    index: usize,
    mut handed: mpsc::UnboundedReceiver<Accepted>,
    shared: Arc<Shared>,
    active: Arc<AtomicUsize>,
    draining: watch::Receiver<bool>,
) {
    let mut conversations = JoinSet::new();
    let acknowledging = Arc::clone(&shared);
    let mut acknowledging = tokio::spawn(async move { acks::wake(&acknowledging, index).await });
    loop {
        tokio::select! {
            // Without it all who wait for the log wait for ever.
            ended = &mut acknowledging => {
                ended.expect("what wakes those who wait for the log never ends");
            }
            accepted = handed.recv() => match accepted {
                Some(accepted) => {
                    let (shared, draining) = (Arc::clone(&shared), draining.clone());
                    let place = Place { shared: Arc::clone(&shared), active: Arc::clone(&active) };
                    conversations.spawn(converse(accepted, shared, index, draining, place));
                }
                None => break,
            },
            Some(ended) = conversations.join_next() => log_panic(ended),
        }
    }
    let finished = timeout(Duration::from_millis(DRAIN_MS), async {
        while let Some(ended) = conversations.join_next().await {
            log_panic(ended);
        }
    });
    if finished.await.is_err() {
        tracing::warn!(
            left = conversations.len(),
            "connections were still busy and are closed"
        );
    }
}

fn log_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection ended in a fault of ours");
    }
}

/// A connection's place among those that are counted; given back when dropped, whatever happened.
struct Place {
    shared: Arc<Shared>,
    active: Arc<AtomicUsize>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.engine.metrics().connections.sub(1);
        self.active.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn converse(
    accepted: Accepted,
    shared: Arc<Shared>,
    worker: usize,
    draining: watch::Receiver<bool>,
    place: Place,
) {
    let _held_until_the_end = place;
    match accepted {
        Accepted::Tcp(stream, peer) => match TcpStream::from_std(stream) {
            Ok(stream) => {
                let local = stream.local_addr();
                let ends = Ends {
                    peer: peer.to_string(),
                    local: local.map_or(String::new(), |local| local.to_string()),
                };
                connection::serve(stream, ends, shared, worker, draining).await;
            }
            Err(error) => tracing::warn!(%error, "cannot serve a connection"),
        },
        Accepted::Unix(stream) => match UnixStream::from_std(stream) {
            Ok(stream) => {
                let [peer, local] = ["unix"; 2].map(str::to_owned);
                connection::serve(stream, Ends { peer, local }, shared, worker, draining).await;
            }
            Err(error) => tracing::warn!(%error, "cannot serve a connection"),
        },
    }
}

/// The log that is being read, and then what keeps it.
struct Reading {
    thread: Option<JoinHandle<Option<Keeper>>>,
    failure: oneshot::Receiver<KeeperError>,
}

impl Reading {
    fn start(
        unread: Option<Unread>,
        shared: &Arc<Shared>,
        threads: usize,
        is_stopping: &Arc<AtomicBool>,
    ) -> io::Result<Self> {
        let (failed, failure) = oneshot::channel();
        let Some(unread) = unread else {
            return Ok(Self {
                thread: None,
                failure,
            });
        };
        let faults = Arc::clone(&shared.faults);
        let (shared, is_stopping) = (Arc::clone(shared), Arc::clone(is_stopping));
        let read = move || match unread.read(&shared, threads, &is_stopping) {
            Ok(keeper) => {
                if keeper.is_some() {
                    shared.set_loading(false);
                }
                keeper
            }
            Err(error) => {
                let _the_server_may_have_ended = failed.send(error);
                None
            }
        };
        let thread = threads::spawn("onced-log-read", &faults, read)?;
        Ok(Self {
            thread: Some(thread),
            failure,
        })
    }

    /// Ready if the log cannot be read.
    async fn failed(&mut self) -> KeeperError {
        match (&mut self.failure).await {
            Ok(error) => error,
            Err(_) => pending().await,
        }
    }

    /// What keeps the log, if it was read.
    fn finish(self) -> Option<Keeper> {
        self.thread?.join().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_panics_ends_the_server() {
        let server = Server::bind(ServerConfig {
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            insecure: false,
            workers: 1,
            engine: EngineConfig::default(),
            settings: Vec::new(),
            data: None,
        });
        let server = server.unwrap();
        let faults = Arc::clone(&server.shared.faults);
        let _panics = threads::spawn("of-a-test", &faults, || panic!("of a test"));
        let ended = server.run(pending());
        let told = ended.unwrap_err().to_string();
        assert!(told.contains("of-a-test panicked"), "{told}");
    }
}
