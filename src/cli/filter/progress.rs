//! What `filter` tells on standard error: the summary, and a bar while it runs.
//!
//! The bar is drawn only where somebody watches and where it does not mix with the lines: with
//! standard error a terminal and standard output not.

use std::fmt;
use std::io::{self, IsTerminal};
use std::time::Instant;

use indicatif::ProgressBar;

use super::batch::Key;
use super::dedup::Verdict;
use crate::cli::progress::{draw, say};

/// What happened to the lines so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tally {
    /// Lines read and judged.
    pub(super) lines: u64,
    /// Lines written.
    pub(super) kept: u64,
    /// Lines without a key, among the kept or, with `--drop-keyless`, among the dropped.
    pub(super) keyless: u64,
    /// Kept lines whose key the server was not sure about.
    pub(super) unsure: u64,
    /// Kept lines whose key is over the server's limit.
    pub(super) too_long: u64,
    /// Kept lines of which the server's answer never came.
    pub(super) unanswered: u64,
    /// Lines at the end that wait for another who has claimed their key.
    pub(super) held: u64,
    /// Lines that were acknowledged when their claim had ended: another may have them too.
    pub(super) overtaken: u64,
    /// Lines that were not written, and whose keys were given back.
    pub(super) given_back: u64,
    start: Instant,
}

impl Tally {
    pub(super) fn start() -> Self {
        Self {
            lines: 0,
            kept: 0,
            keyless: 0,
            unsure: 0,
            too_long: 0,
            unanswered: 0,
            held: 0,
            overtaken: 0,
            given_back: 0,
            start: Instant::now(),
        }
    }

    /// Counts a line; it has a verdict if it has a key.
    pub(super) fn count(&mut self, key: Key<()>, verdict: Option<Verdict>, is_kept: bool) {
        self.lines += 1;
        self.kept += u64::from(is_kept);
        self.keyless += u64::from(key == Key::None);
        if let Some(count) = verdict.and_then(|verdict| self.kept_with(verdict)) {
            *count += 1;
        }
    }

    /// The output did not take so many lines that were counted as kept.
    pub(super) fn take_back(&mut self, lines: usize) {
        self.kept -= lines as u64;
    }

    /// This is the verdict of one of these lines.
    pub(super) fn take_verdict_back(&mut self, verdict: Verdict) {
        if let Some(count) = self.kept_with(verdict) {
            *count -= 1;
        }
    }

    /// The count of kept lines that have such a verdict, if they are told apart.
    fn kept_with(&mut self, verdict: Verdict) -> Option<&mut u64> {
        match verdict {
            Verdict::Unsure | Verdict::ClaimedUnsure(_) => Some(&mut self.unsure),
            Verdict::TooLong => Some(&mut self.too_long),
            Verdict::Unanswered => Some(&mut self.unanswered),
            _ => None,
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.start.elapsed().as_secs_f64();
        let rate = self.lines as f64 / seconds.max(0.001);
        let dropped = self.lines - self.kept;
        write!(
            f,
            "read {}, kept {}, dropped {dropped}, keyless {}, ",
            self.lines, self.kept, self.keyless
        )?;
        for (name, count) in [
            ("unsure", self.unsure),
            ("key too long", self.too_long),
            ("unanswered", self.unanswered),
            ("held by others", self.held),
            ("acknowledged late", self.overtaken),
            ("given back", self.given_back),
        ] {
            if count > 0 {
                write!(f, "{name} {count}, ")?;
            }
        }
        write!(f, "{seconds:.3} s, {rate:.0} lines/s")
    }
}

/// The bar, or nothing where nobody would see it.
#[derive(Debug)]
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    in_bytes: bool,
}

impl Progress {
    /// A bar over so many bytes or, where that is unknown, a count of lines.
    pub(super) fn start(bytes_total: Option<u64>) -> Self {
        let seen = io::stderr().is_terminal() && !io::stdout().is_terminal();
        Self {
            bar: seen.then(|| draw(bytes_total)),
            in_bytes: bytes_total.is_some(),
        }
    }

    /// So much was judged.
    pub(super) fn advance(&self, lines: usize, bytes: usize) {
        if let Some(bar) = &self.bar {
            bar.inc(if self.in_bytes { bytes } else { lines } as u64);
        }
    }

    /// Says something on standard error, above the bar.
    pub(super) fn say(&self, text: &str) {
        say(self.bar.as_ref(), text);
    }

    /// Removes the bar.
    pub(super) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_adds_up() {
        let mut tally = Tally::start();
        (tally.lines, tally.kept, tally.keyless) = (10, 7, 2);
        let text = tally.to_string();
        assert!(
            text.starts_with("read 10, kept 7, dropped 3, keyless 2, "),
            "{text}"
        );
        tally.count(Key::Is(()), Some(Verdict::Unsure), true);
        tally.count(Key::Is(()), Some(Verdict::TooLong), true);
        let text = tally.to_string();
        assert!(
            text.starts_with("read 12, kept 9, dropped 3, keyless 2, unsure 1, key too long 1, "),
            "{text}"
        );
        // It told of lines that were not written as if they were.
        tally.take_back(2);
        tally.take_verdict_back(Verdict::Unsure);
        tally.take_verdict_back(Verdict::New);
        let text = tally.to_string();
        assert!(
            text.starts_with("read 12, kept 7, dropped 5, keyless 2, key too long 1, "),
            "{text}"
        );
    }
}
