//! The server's own threads, and the end of the server where one of them panics.
//!
//! A worker that is gone answers nobody, and without the thread that syncs all who wait for the log wait for
//! ever: a server that looks alive and is not. So the first thread that ends in a panic ends the server.
//! A connection's panic is its own, and the worker goes on.

use std::io;
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// The name of the thread that gives memory back.
pub(super) const SWEEPER: &str = "onced-sweeper";

/// How the process's allocator is told what to do.
#[derive(Clone, Copy, Debug)]
pub struct Allocator {
    /// What each thread of a server does first; it is told whether it is the one that gives memory back.
    pub begin_thread: fn(sweeps: bool),
    /// Gives back at once what is not used.
    pub purge: fn(),
}

static ALLOCATOR: OnceLock<Allocator> = OnceLock::new();

/// Says that the process's allocator gives back what is not used within a moment, whoever is idle, and prefers
/// pages on which there is much.
///
/// Without that word nothing is refused for what the process holds. An allocator that never gives back (glibc's,
/// from the middle of its heap) would have the server refuse everything for good.
pub fn allocator_gives_back(allocator: Allocator) {
    let _the_first_one_stays = ALLOCATOR.set(allocator);
}

/// Whether the allocator is one that gives back.
pub(super) fn allocator_is_told() -> bool {
    ALLOCATOR.get().is_some()
}

/// Has the allocator give back what is not used, at once.
pub(super) fn purge_allocator() {
    if let Some(allocator) = ALLOCATOR.get() {
        (allocator.purge)();
    }
}

/// The first thread that ended in a panic, and who waits for that.
#[derive(Debug, Default)]
pub(super) struct Faults {
    first: Mutex<Option<String>>,
    told: Notify,
}

impl Faults {
    fn tell(&self, thread: &str) {
        tracing::error!(thread, "a thread panicked: the server ends");
        self.first.lock().get_or_insert_with(|| thread.to_owned());
        self.told.notify_one();
    }

    /// Ready, with the thread's name, once one has panicked.
    pub(super) async fn told(&self) -> String {
        loop {
            let told = self.told.notified();
            if let Some(first) = self.first() {
                return first;
            }
            told.await;
        }
    }

    /// The first thread that panicked, if one has.
    pub(super) fn first(&self) -> Option<String> {
        self.first.lock().clone()
    }
}

/// Starts a thread whose panic is told.
pub(super) fn spawn<T: Send + 'static>(
    name: &str,
    faults: &Arc<Faults>,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    let watch = Watch {
        name: name.to_owned(),
        faults: Arc::clone(faults),
    };
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        if let Some(allocator) = ALLOCATOR.get() {
            (allocator.begin_thread)(watch.name == SWEEPER);
        }
        let _tells_if_this_unwinds = watch;
        work()
    })
}

struct Watch {
    name: String,
    faults: Arc<Faults>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        if thread::panicking() {
            self.faults.tell(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn a_panic_is_told_with_the_threads_name_and_an_end_is_not() {
        let faults = Arc::new(Faults::default());
        let ended = spawn("ends", &faults, || 17).unwrap();
        assert_eq!(ended.join().unwrap(), 17);
        assert_eq!(faults.first(), None);
        let first = spawn("first", &faults, || panic!("of a test")).unwrap();
        assert_eq!(faults.told().await, "first");
        assert!(first.join().is_err());
        let second = spawn("second", &faults, || panic!("of a test")).unwrap();
        assert!(second.join().is_err());
        // Whoever asks later is told too.
        assert_eq!(faults.told().await, "first");
    }
}
