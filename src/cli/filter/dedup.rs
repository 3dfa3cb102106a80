//! Who is asked whether a key was seen: a store in this process, or a [server](super::server).
//!
//! Batches are submitted and their verdicts collected in the same order; up to
//! [`Dedup::in_flight_max`] may lie between the two, which hides a server's round trip. Then it
//! is told which lines were written, and which will never be.
//! Nothing here knows about lines, nor decides what happens to one.

use anyhow::Context;

use super::batch::Spans;
use crate::server::clock::Clock;
use crate::store::key::SECRET_BYTES;
use crate::store::{self, Ask, Secret, Shard, Unbounded};
use crate::time::Millis;

/// What is known about one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nobody asked before; now it is marked as seen.
    New,
    /// Nobody did the work before; now it is ours, under this token.
    Claimed(u64),
    /// Somebody asked before, or did the work.
    Seen,
    /// The server remembers no earlier asker, but not the whole window either.
    Unsure,
    /// The same of a claim.
    ClaimedUnsure(u64),
    /// Another has claimed it, and may succeed or fail.
    Busy,
    /// The server could not store the key, and has not.
    NotStored,
    /// The key is over a limit of the server, which cannot judge it.
    TooLong,
    /// Nobody knows: the answer never came, and the key may be stored.
    Unanswered,
}

impl Verdict {
    /// The token of a claim.
    pub(super) fn token(self) -> Option<u64> {
        match self {
            Self::Claimed(token) | Self::ClaimedUnsure(token) => Some(token),
            _ => None,
        }
    }

    /// Whether the question may have stored the key, so that it is to be given back if its line
    /// is not written.
    pub(super) fn may_be_stored(self) -> bool {
        matches!(self, Self::New | Self::Unsure | Self::Unanswered) || self.token().is_some()
    }
}

/// Judges batches of keys, in order.
pub(super) trait Dedup {
    /// How many batches may be submitted but not collected.
    fn in_flight_max(&self) -> usize;

    /// Hands over a batch; false if none should follow, which [`Dedup::collect`] explains.
    fn submit(&mut self, keys: &Spans) -> bool;

    /// Appends the verdicts of the oldest batch in flight, which is `keys`: one per key, also
    /// where an error says why some of them are [`Verdict::NotStored`] or [`Verdict::Unanswered`].
    fn collect(&mut self, keys: &Spans, verdicts: &mut Vec<Verdict>) -> anyhow::Result<()>;

    /// The lines of these keys are written.
    fn acknowledge<'k>(&mut self, written: impl Iterator<Item = (&'k [u8], Verdict)>);

    /// Waits until all acknowledgements have arrived, with nothing in flight; tells how many came
    /// too late: another may have written those lines too.
    fn finish(&mut self) -> anyhow::Result<u64>;

    /// The lines of these keys, which may be stored by us, are not written and will not be; tells
    /// how many are removed again, and why not all. Comes last.
    fn give_back(&mut self, keys: &Spans, verdicts: &[Verdict]) -> (usize, anyhow::Result<()>);
}

/// A store in this process, gone with it.
#[derive(Debug)]
pub(super) struct Embedded {
    shard: Shard,
    secret: Secret,
    ttl_ms: Option<u64>,
    clock: Clock,
}

/// Entries whose memory may be given back per batch; more than a batch brings, so the store
/// never holds much more than what its window holds.
const EXPIRY_STEPS: usize = 4_096;
/// Five years: no run is as long, and the table keeps such an end in the key's place. One at the end
/// of all time would be kept beside it, in five times the memory.
const NEVER_MS: u64 = 5 * 365 * 86_400_000;

impl Embedded {
    /// A store that forgets a key `ttl_ms` after it was first seen, or never.
    pub(super) fn new(ttl_ms: Option<u64>) -> anyhow::Result<Self> {
        let mut secret = [0; SECRET_BYTES];
        getrandom::fill(&mut secret).context("cannot get random bytes")?;
        Ok(Self {
            shard: Shard::default(),
            secret: Secret::new(secret),
            ttl_ms,
            clock: Clock::start(),
        })
    }

    fn judge(&mut self, keys: &Spans, now: Millis, verdicts: &mut Vec<Verdict>) {
        let ask = Ask {
            ttl_ms: self.ttl_ms.unwrap_or(NEVER_MS),
            ..Ask::default()
        };
        for key in keys.iter() {
            let key = self.secret.key(key);
            let (verdict, _) = self.shard.seen(&key, &ask, &mut Unbounded, now);
            verdicts.push(match verdict {
                store::Verdict::New => Verdict::New,
                store::Verdict::Unsure => Verdict::Unsure,
                store::Verdict::Dup | store::Verdict::Mismatch => Verdict::Seen,
                store::Verdict::Full => Verdict::NotStored,
            });
        }
        self.shard.expire(now, EXPIRY_STEPS);
    }
}

impl Dedup for Embedded {
    fn in_flight_max(&self) -> usize {
        1
    }

    fn submit(&mut self, _: &Spans) -> bool {
        true
    }

    fn collect(&mut self, keys: &Spans, verdicts: &mut Vec<Verdict>) -> anyhow::Result<()> {
        // Without an expiry no time ever passes, so none need be read.
        let now = self.ttl_ms.map_or(Millis(0), |_| self.clock.read().now);
        self.judge(keys, now, verdicts);
        Ok(())
    }

    // Nobody else will ask this store, so nothing has to be told to it.

    fn acknowledge<'k>(&mut self, _: impl Iterator<Item = (&'k [u8], Verdict)>) {}

    fn finish(&mut self) -> anyhow::Result<u64> {
        Ok(0)
    }

    fn give_back(&mut self, _: &Spans, _: &[Verdict]) -> (usize, anyhow::Result<()>) {
        (0, Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(keys: &[&[u8]]) -> Spans {
        let mut spans = Spans::default();
        for key in keys {
            spans.push(key);
        }
        spans
    }

    fn verdicts(dedup: &mut impl Dedup, keys: &[&[u8]]) -> Vec<Verdict> {
        let (keys, mut verdicts) = (spans(keys), Vec::new());
        assert!(dedup.submit(&keys));
        dedup.collect(&keys, &mut verdicts).unwrap();
        verdicts
    }

    #[test]
    fn the_embedded_store_says_new_once() {
        use Verdict::{New, Seen};
        let mut store = Embedded::new(None).unwrap();
        assert_eq!(
            verdicts(&mut store, &[b"a", b"b", b"a", b"\n"]),
            [New, New, Seen, New]
        );
        assert_eq!(verdicts(&mut store, &[b"b"]), [Seen]);
    }

    #[test]
    fn the_embedded_store_forgets_after_the_ttl() {
        use Verdict::{New, Seen};
        let mut store = Embedded::new(Some(60_000)).unwrap();
        let keys = spans(&[b"a", b"a"]);
        let mut verdicts = Vec::new();
        for now in [0, 60_000, 60_001] {
            store.judge(&keys, Millis(now), &mut verdicts);
        }
        assert_eq!(verdicts, [New, Seen, Seen, Seen, New, Seen]);
    }
}
