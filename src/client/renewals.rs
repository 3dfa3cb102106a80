//! Leases of running work, renewed beside it: by a thread of the client's own, which work that blocks its
//! thread, or all threads of its runtime, does not hold up.
//!
//! A renewal goes over the connection that all calls share. Whoever reads that may be blocked by the work; so
//! where no answer comes in time, it goes once more, over a connection of this thread's own. The thread is
//! started by the first lease, sleeps until one of them is to be renewed, and ends when it then finds none, or
//! with the client; so work that ends soon costs a lock and no switch of threads, and the second connection is
//! opened only where it is needed.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::runtime;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};
use tracing::warn;

use super::answers::Ending;
use super::calls::{renewal, renewed};
use super::config::ClientConfig;
use super::pipeline::{Pipeline, jittered};
use super::reply::ClientError;

/// Parts of a lease after which it is renewed.
pub(super) const RENEWALS_PER_LEASE: u32 = 3;
/// Parts of a lease after which a renewal without an answer has failed on its connection, and that pass before
/// the next one. With those above, both connections are tried twice before the lease ends.
const RENEWAL_PATIENCE: u32 = 8;
const RENEWAL_PAUSE: u32 = 20;
/// How long the thread sleeps while all leases are being renewed.
const IDLE: Duration = Duration::from_secs(1);

/// The leases that are being renewed. When this is dropped, none is.
#[derive(Debug)]
pub(super) struct Renewals {
    shared: Arc<Shared>,
}

/// What the thread and those who hold leases share.
#[derive(Debug)]
struct Shared {
    config: Arc<ClientConfig>,
    pipeline: Pipeline,
    leases: Mutex<Leases>,
    /// There is something to do before the thread wakes.
    wake: Notify,
}

#[derive(Debug, Default)]
struct Leases {
    held: HashMap<u64, Lease>,
    /// Those of them that are not being renewed now, by when they are to be.
    due: BTreeSet<(Instant, u64)>,
    next_id: u64,
    /// When the thread wakes by itself; `None` if there is no thread.
    wakes_at: Option<Instant>,
    /// No client is left.
    is_over: bool,
}

/// A lease that is held.
#[derive(Debug)]
struct Lease {
    what: Arc<What>,
    /// When it is to be renewed next; `None` while it is.
    due: Option<Instant>,
    /// Tells the holder that another was told to run.
    lost: oneshot::Sender<()>,
}

/// What to ask for.
#[derive(Debug)]
struct What {
    key: Box<[u8]>,
    token: u64,
    length: Duration,
}

/// A lease that is renewed until this is dropped.
#[derive(Debug)]
pub(super) struct Renewal {
    shared: Arc<Shared>,
    id: u64,
    lost: oneshot::Receiver<()>,
}

impl Renewals {
    pub(super) fn new(config: Arc<ClientConfig>, pipeline: Pipeline) -> Self {
        Self {
            shared: Arc::new(Shared {
                config,
                pipeline,
                leases: Mutex::default(),
                wake: Notify::new(),
            }),
        }
    }

    /// Renews a lease of this length, which is held now, for the first time after so long and then again and
    /// again.
    pub(super) fn hold(
        &self,
        key: &[u8],
        token: u64,
        length: Duration,
        after: Duration,
    ) -> Renewal {
        let what = Arc::new(What {
            key: key.into(),
            token,
            length,
        });
        // By the system's clock: that of the caller's runtime may be a test's.
        let due = Instant::now() + after;
        let (tells, lost) = oneshot::channel();
        let mut leases = self.shared.leases.lock();
        let id = leases.next_id;
        leases.next_id += 1;
        leases.due.insert((due, id));
        leases.held.insert(
            id,
            Lease {
                what,
                due: Some(due),
                lost: tells,
            },
        );
        let is_asleep = leases.wakes_at.is_some();
        let is_first = leases.wakes_at.is_none_or(|wakes_at| due < wakes_at);
        if is_first {
            leases.wakes_at = Some(due);
        }
        drop(leases);
        if !is_asleep {
            Shared::start(&self.shared);
        } else if is_first {
            self.shared.wake.notify_one();
        }
        Renewal {
            shared: Arc::clone(&self.shared),
            id,
            lost,
        }
    }
}

impl Drop for Renewals {
    fn drop(&mut self) {
        self.shared.leases.lock().is_over = true;
        self.shared.wake.notify_one();
    }
}

impl Renewal {
    /// Returns once another was told to run.
    pub(super) async fn lost(&mut self) {
        if (&mut self.lost).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Renewal {
    fn drop(&mut self) {
        self.shared.leases.lock().remove(self.id);
    }
}

impl Leases {
    fn remove(&mut self, id: u64) -> Option<Lease> {
        let lease = self.held.remove(&id)?;
        if let Some(due) = lease.due {
            self.due.remove(&(due, id));
        }
        Some(lease)
    }

    /// Adds the leases that are to be renewed now; until when there are no others, and `None` once nobody holds
    /// any.
    fn take_due(&mut self, taken: &mut Vec<(u64, Arc<What>)>) -> Option<Instant> {
        self.wakes_at = None;
        if self.is_over || self.held.is_empty() {
            return None;
        }
        let now = Instant::now();
        while let Some(&(due, id)) = self.due.first()
            && due <= now
        {
            self.due.pop_first();
            if let Some(lease) = self.held.get_mut(&id) {
                lease.due = None;
                taken.push((id, Arc::clone(&lease.what)));
            }
        }
        let wakes_at = self.due.first().map_or(now + IDLE, |&(due, _)| due);
        self.wakes_at = Some(wakes_at);
        Some(wakes_at)
    }
}

impl Shared {
    fn start(shared: &Arc<Self>) {
        let own = Arc::clone(shared);
        let spawned = thread::Builder::new()
            .name("onced-renewals".to_owned())
            .spawn(move || {
                let runtime = runtime::Builder::new_current_thread().enable_all().build();
                match runtime {
                    Ok(runtime) => runtime.block_on(own.renew_all()),
                    Err(error) => own.share_runtime(&error),
                }
            });
        if let Err(error) = spawned {
            Arc::clone(shared).share_runtime(&error);
        }
    }

    /// Renews where the client's calls are made, if the system has no thread for it.
    fn share_runtime(self: Arc<Self>, error: &io::Error) {
        warn!(%error, "no thread to renew leases: work that blocks its runtime for longer loses them");
        let runtime = self.pipeline.runtime().clone();
        runtime.spawn(self.renew_all());
    }

    /// Renews all leases when it is time, until nobody holds any.
    async fn renew_all(self: Arc<Self>) {
        let own = Arc::new(OnceLock::new());
        let mut renewing = JoinSet::new();
        let mut due = Vec::new();
        loop {
            let wakes_at = self.leases.lock().take_due(&mut due);
            let Some(wakes_at) = wakes_at else {
                return;
            };
            for (id, what) in due.drain(..) {
                let (shared, own) = (Arc::clone(&self), Arc::clone(&own));
                renewing.spawn(async move { shared.renew(id, &what, &own).await });
            }
            tokio::select! {
                () = sleep_until(wakes_at.into()) => {}
                () = self.wake.notified() => {}
                Some(_) = renewing.join_next() => {}
            }
        }
    }

    /// Renews a lease once, and notes when that is to be done again, or tells that it is lost.
    async fn renew(&self, id: u64, what: &What, own: &OnceLock<Pipeline>) {
        let asked = Instant::now();
        let told = self.ask(id, what, own).await;
        let next = match told {
            Some(Ok(length)) => asked + length / RENEWALS_PER_LEASE,
            Some(Err(Ending::Stale)) => {
                if let Some(lease) = self.leases.lock().remove(id) {
                    let _the_work_may_have_ended = lease.lost.send(());
                }
                return;
            }
            // A record that is gone is adopted at the end.
            Some(Err(_)) => asked + what.length / RENEWALS_PER_LEASE,
            None => Instant::now() + jittered(what.length / RENEWAL_PAUSE),
        };
        let mut leases = self.leases.lock();
        if let Some(lease) = leases.held.get_mut(&id) {
            lease.due = Some(next);
            leases.due.insert((next, id));
        }
    }

    /// The server's answer, if there is one in time.
    async fn ask(
        &self,
        id: u64,
        what: &What,
        own: &OnceLock<Pipeline>,
    ) -> Option<Result<Duration, Ending>> {
        let patience = what.length / RENEWAL_PATIENCE;
        let words = renewal(&what.key, what.token, Some(what.length));
        let words = words.slices();
        match timeout(patience, self.pipeline.call(&words)).await {
            // Nobody reads the connection, or the server is silent.
            Err(_) | Ok(Err(ClientError::Timeout | ClientError::Ended)) => {}
            Ok(told) => return told.and_then(|told| renewed(&told)).ok(),
        }
        if !self.leases.lock().held.contains_key(&id) {
            return None;
        }
        let own = own.get_or_init(|| Pipeline::start(Arc::clone(&self.config)));
        let told = timeout(patience, own.call(&words)).await.ok()?;
        told.and_then(|told| renewed(&told)).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// Within a runtime.
    fn renewals_of(address: &str) -> Renewals {
        let config = Arc::new(ClientConfig::new(address.parse().unwrap()));
        Renewals::new(Arc::clone(&config), Pipeline::start(config))
    }

    fn until(is_so: impl Fn() -> bool) {
        let began = Instant::now();
        while !is_so() {
            assert!(began.elapsed() < Duration::from_secs(20));
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn the_thread_ends_when_nobody_holds_a_lease_and_with_the_client() {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let _within = runtime.enter();
        let renewals = renewals_of("127.0.0.1:1");
        let shared = Arc::clone(&renewals.shared);
        let has_thread = || shared.leases.lock().wakes_at.is_some();
        assert!(!has_thread());
        let soon = Duration::from_millis(30);
        let first = renewals.hold(b"a", 1, 3 * soon, soon);
        let second = renewals.hold(b"b", 2, 3 * soon, soon);
        assert!(has_thread());
        drop(first);
        drop(second);
        until(|| !has_thread());
        assert!(shared.leases.lock().due.is_empty());
        // One that sleeps for long is woken, and is gone with all that it held.
        let far = Duration::from_hours(1);
        let third = renewals.hold(b"c", 3, 3 * far, far);
        drop((third, renewals));
        until(|| Arc::strong_count(&shared) == 1);
    }

    #[test]
    fn a_renewal_goes_over_a_connection_of_its_own_while_nobody_reads_the_shared_one() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap().to_string();
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let _within = runtime.enter();
        let renewals = renewals_of(&address);
        let soon = Duration::from_millis(100);
        let _held = renewals.hold(b"a", 1, 3 * soon, soon);
        // Nothing runs on this runtime, so that it is the thread that connects.
        let _connected = server.accept().unwrap();
    }
}
