//! What a person at a terminal sees while the server starts: a bar while the log is read, and the
//! server's lines above it.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;

use indicatif::ProgressBar;
use parking_lot::Mutex;
use tracing_subscriber::fmt::MakeWriter;

use super::progress::draw;
use crate::engine::Progress;

/// Standard error with a bar on its last line, while there is one.
#[derive(Clone, Debug, Default)]
pub(super) struct Terminal {
    bar: Arc<Mutex<Option<ProgressBar>>>,
}

/// A line on its way to standard error.
pub(super) struct Line<'a>(&'a Terminal);

impl Terminal {
    /// Draws how far the reading has come, if somebody can see it.
    pub(super) fn show(&self, progress: &Progress) {
        if progress.bytes >= progress.bytes_total {
            self.clear();
        } else if io::stderr().is_terminal() {
            let mut bar = self.bar.lock();
            bar.get_or_insert_with(|| draw(Some(progress.bytes_total)))
                .set_position(progress.bytes);
        }
    }

    /// Takes the bar away.
    pub(super) fn clear(&self) {
        if let Some(bar) = self.bar.lock().take() {
            bar.finish_and_clear();
        }
    }
}

impl<'a> MakeWriter<'a> for Terminal {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(self)
    }
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let write = || io::stderr().write(bytes);
        match &*self.0.bar.lock() {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
