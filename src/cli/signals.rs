//! Signals that ask a command to end: SIGTERM, SIGINT and SIGHUP, for those that have something to
//! bring to an end first.
//!
//! A thread waits for them, so that nothing runs inside a handler. The first one is told to
//! whoever asks or waits; the second one ends the process at once, as it would have without us.
//! What the process was started to ignore (by `nohup`, or in the background of a script) stays
//! ignored.

use std::fs;
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

/// What asks a command to end.
const ASKING: [i32; 3] = [SIGTERM, SIGINT, SIGHUP];
/// No signal has this number.
const NONE: i32 = 0;

/// Whether the process was asked to end, in the three ways in which that may have to be known.
#[derive(Clone, Debug)]
pub(crate) struct EndRequest {
    signal: Arc<AtomicI32>,
    /// Nothing is ever sent; it is disconnected once asked.
    asked: Receiver<()>,
    /// At its end once asked.
    pipe: Arc<PipeReader>,
}

impl EndRequest {
    /// From here on the signals do not end the process.
    pub(crate) fn watch() -> io::Result<Self> {
        let ignored = ignored_at_start();
        let mut signals = Signals::new(ASKING.into_iter().filter(|signal| !ignored(*signal)))?;
        let (this, asker) = Self::new()?;
        thread::spawn(move || {
            let mut asker = Some(asker);
            for number in signals.forever() {
                match asker.take() {
                    Some(asker) => asker.ask(number),
                    None => end_by(number),
                }
            }
        });
        Ok(this)
    }

    fn new() -> io::Result<(Self, Asker)> {
        let (pipe, pipe_end) = io::pipe()?;
        let (sender, asked) = bounded(0);
        let signal = Arc::new(AtomicI32::new(NONE));
        let ours = Self {
            signal: Arc::clone(&signal),
            asked,
            pipe: Arc::new(pipe),
        };
        let theirs = Asker {
            signal,
            _sender: sender,
            _pipe: pipe_end,
        };
        Ok((ours, theirs))
    }

    /// The signal that asked, if one has.
    pub(crate) fn signal(&self) -> Option<i32> {
        let signal = self.signal.load(Ordering::Acquire);
        (signal != NONE).then_some(signal)
    }

    /// Waits so long, or until asked.
    pub(crate) fn wait(&self, time: Duration) {
        // Either way there is nothing to receive.
        let _ = self.asked.recv_timeout(time);
    }

    /// Disconnected once asked: to be waited for beside other channels.
    pub(crate) fn asked(&self) -> &Receiver<()> {
        &self.asked
    }
}

/// Readable once asked: to be waited for beside other files.
impl AsFd for EndRequest {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

/// The other side of an [`EndRequest`], which asks by being dropped.
struct Asker {
    signal: Arc<AtomicI32>,
    _sender: Sender<()>,
    _pipe: PipeWriter,
}

impl Asker {
    /// The number is there before anybody is woken.
    fn ask(self, signal: i32) {
        self.signal.store(signal, Ordering::Release);
    }
}

/// Ends the process as this signal would have, so that a shell sees how it ended.
pub(crate) fn end_by(signal: i32) -> ! {
    let _ = emulate_default_handler(signal);
    // All of ours end the process by default.
    std::process::exit(128 + signal)
}

/// Tells of a signal whether the process was started to ignore it; where that cannot be known, not.
fn ignored_at_start() -> impl Fn(i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    move |signal| mask & (1 << (signal - 1)) != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_in_every_way() {
        let (request, asker) = EndRequest::new().unwrap();
        assert_eq!(request.signal(), None);
        request.wait(Duration::ZERO);
        let waiting = request.clone();
        let waiter = thread::spawn(move || {
            waiting.wait(Duration::from_mins(1));
            waiting.signal()
        });
        asker.ask(SIGTERM);
        assert_eq!(waiter.join().unwrap(), Some(SIGTERM));
        let mut end = [0];
        assert_eq!(io::Read::read(&mut &*request.pipe, &mut end).unwrap(), 0);
        assert!(request.asked().recv().is_err());
    }

    #[test]
    fn nothing_is_ignored_here() {
        let ignored = ignored_at_start();
        assert!(!ignored(SIGTERM));
    }
}
