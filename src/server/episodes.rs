//! What is refused for a while is said when that begins and when it has ended, with how often it happened.
//!
//! A server that is full is not broken, so nothing else in its log would tell; and a line for each refusal would
//! be millions. Nothing is said of a second beginning within the quiet time of the first.

use super::shared::Shared;
use crate::store::Denial;
use crate::time::{DurationWord, Millis};

/// An episode has ended once nothing was refused for so long.
const QUIET_MS: u64 = 10_000;
/// Namespaces that are named in a message.
const NAMED_MAX: usize = 5;

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Episodes([Episode; KINDS.len()]);

/// What is refused, in the words of its messages.
const KINDS: [(Kind, &str); 5] = [
    (
        Kind::Memory,
        "memory is full: new keys are refused; max-memory, shorter windows or FULL EVICT help",
    ),
    (
        Kind::Keys,
        "a namespace is full: new keys are refused; MAXKEYS bounds it",
    ),
    (
        Kind::Waiters,
        "too many replies are held: who would wait is told BUSY; max-waiters bounds them",
    ),
    (
        Kind::Connections,
        "too many connections: further ones are refused; max-connections bounds them",
    ),
    (
        Kind::Timeouts,
        "connections are closed: they left a request unfinished, or replies unread, for too long",
    ),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Memory,
    Keys,
    Waiters,
    Connections,
    Timeouts,
}

/// One kind, as it was at the last look.
#[derive(Clone, Copy, Debug, Default)]
struct Episode {
    /// How often it happened since the start of the server.
    count: u64,
    /// When it began and how often it had happened before, if it has not ended.
    began: Option<(Millis, u64)>,
    /// When it happened last, as far as was looked.
    last: Millis,
}

/// What is to be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    Began { count: u64 },
    Ended { count: u64, ms: u64 },
}

impl Episodes {
    /// Looks at the counts, and says what is new.
    pub(super) fn look(&mut self, shared: &Shared, now: Millis) {
        let engine = &shared.engine;
        let metrics = engine.metrics();
        for (episode, (kind, text)) in self.0.iter_mut().zip(KINDS) {
            let count = match kind {
                Kind::Memory => engine.budget().refused(Denial::Memory),
                Kind::Keys => engine.budget().refused(Denial::Keys),
                Kind::Waiters => engine.waiters_refused(),
                Kind::Connections => metrics.connections_refused.get(),
                Kind::Timeouts => metrics.connections_timed_out.get(),
            };
            match episode.look(count, now) {
                None => {}
                Some(News::Began { count }) => {
                    if kind == Kind::Keys {
                        let full = engine.full_namespaces(NAMED_MAX).join(", ");
                        tracing::warn!(count, namespaces = full, "{text}");
                    } else {
                        tracing::warn!(count, "{text}");
                    }
                }
                Some(News::Ended { count, ms }) => {
                    let lasted = DurationWord(ms / 1_000 * 1_000);
                    let (what, _) = text.split_once(':').unwrap_or((text, ""));
                    tracing::info!(count, %lasted, "no longer, for {QUIET_MS} ms: {what}");
                }
            }
            if kind == Kind::Memory {
                engine.budget().set_full(episode.began.is_some());
            }
        }
    }
}

impl Episode {
    fn look(&mut self, count: u64, now: Millis) -> Option<News> {
        let before = std::mem::replace(&mut self.count, count);
        if count > before {
            self.last = now;
            if self.began.is_none() {
                self.began = Some((now, before));
                return Some(News::Began {
                    count: count - before,
                });
            }
            return None;
        }
        let (began, before) = self.began?;
        if now.since(self.last) < QUIET_MS {
            return None;
        }
        self.began = None;
        Some(News::Ended {
            count: count - before,
            ms: self.last.since(began),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_when_it_begins_and_once_it_is_over() {
        let mut episode = Episode::default();
        let mut look = |count, ms| episode.look(count, Millis(1_000_000 + ms));
        assert_eq!(look(0, 0), None);
        assert_eq!(look(3, 1_000), Some(News::Began { count: 3 }));
        assert_eq!(look(7, 2_000), None);
        assert_eq!(look(7, 2_000 + QUIET_MS - 1), None);
        assert_eq!(look(9, 2_000 + QUIET_MS), None, "it goes on");
        let over = 2_000 + 2 * QUIET_MS;
        assert_eq!(
            look(9, over),
            Some(News::Ended {
                count: 9,
                ms: 1_000 + QUIET_MS
            })
        );
        assert_eq!(look(9, over + 60_000), None);
        assert_eq!(look(10, over + 61_000), Some(News::Began { count: 1 }));
    }
}
