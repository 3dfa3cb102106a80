//! Who is asked whether a key was seen: a store in this process, or a server.
//!
//! Batches are submitted and their verdicts collected in the same order; up to
//! [`Dedup::in_flight_max`] may lie between the two, which hides a server's round trip.
//! Nothing here knows about lines, nor decides what happens to one.

use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use thiserror::Error;

use super::batch::Spans;
use crate::address::Address;
use crate::cli::remote::Remote;
use crate::server::clock::Clock;
use crate::store::key::SECRET_BYTES;
use crate::store::{self, Ask, Secret, Shard, Unbounded};
use crate::time::{DurationWord, Millis};
use crate::wire::line::push_word;

/// Batches sent to a server before the oldest one's reply is read. Their replies, a byte per
/// key, fit any socket buffer, so neither side can wait for the other to read.
const SERVER_IN_FLIGHT_MAX: usize = 8;

/// What is known about one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nobody asked before.
    New,
    /// Somebody did.
    Seen,
    /// The server remembers no earlier asker, but not the whole window either.
    Unsure,
    /// The server could not store the key.
    NotStored,
}

/// Why a batch has no verdicts.
#[derive(Debug, Error)]
pub(super) enum DedupError {
    /// A key or the batch is over a limit of the server; nothing of the batch was stored.
    #[error("{0}")]
    TooBig(String),
    /// Anything else.
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

/// Judges batches of keys, in order.
pub(super) trait Dedup {
    /// How many batches may be submitted but not collected.
    fn in_flight_max(&self) -> usize;

    /// Hands over a batch.
    fn submit(&mut self, keys: &Spans) -> Result<(), DedupError>;

    /// Appends the verdicts of the oldest batch in flight, which is `keys`, one per key.
    fn collect(&mut self, keys: &Spans, verdicts: &mut Vec<Verdict>) -> Result<(), DedupError>;
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

    fn submit(&mut self, _: &Spans) -> Result<(), DedupError> {
        Ok(())
    }

    fn collect(&mut self, keys: &Spans, verdicts: &mut Vec<Verdict>) -> Result<(), DedupError> {
        // Without an expiry no time ever passes, so none need be read.
        let now = self.ttl_ms.map_or(Millis(0), |_| self.clock.read().now);
        self.judge(keys, now, verdicts);
        Ok(())
    }
}

/// A server, asked with one `MSEEN` per batch.
#[derive(Debug)]
pub(super) struct Server {
    remote: Remote,
    /// The start of every request: the verb and the TTL.
    prefix: Vec<u8>,
    request: Vec<u8>,
}

impl Server {
    /// Connects, and enters the namespace if one is named.
    pub(super) fn connect(
        address: &Address,
        timeout: Duration,
        namespace: Option<&str>,
        ttl_ms: Option<u64>,
    ) -> anyhow::Result<Self> {
        let mut remote = Remote::connect_to(address, timeout)?;
        if let Some(namespace) = namespace {
            let mut request = b"USE ".to_vec();
            push_word(namespace.as_bytes(), &mut request);
            let reply = remote.request(&request)?.head;
            if reply != b"OK" {
                bail!("no namespace '{namespace}': {}", answered(&reply));
            }
        }
        let ttl = ttl_ms.map_or("-".to_owned(), |ms| DurationWord(ms).to_string());
        Ok(Self {
            remote,
            prefix: format!("MSEEN {ttl}").into_bytes(),
            request: Vec::new(),
        })
    }
}

impl Dedup for Server {
    fn in_flight_max(&self) -> usize {
        SERVER_IN_FLIGHT_MAX
    }

    fn submit(&mut self, keys: &Spans) -> Result<(), DedupError> {
        if keys.is_empty() {
            return Ok(());
        }
        self.request.clear();
        self.request.extend_from_slice(&self.prefix);
        for key in keys.iter() {
            self.request.push(b' ');
            push_word(key, &mut self.request);
        }
        self.remote.send(&self.request)?;
        Ok(self.remote.flush()?)
    }

    fn collect(&mut self, keys: &Spans, verdicts: &mut Vec<Verdict>) -> Result<(), DedupError> {
        if keys.is_empty() {
            return Ok(());
        }
        let reply = self.remote.recv()?.head;
        if reply.starts_with(b"ERR TOOBIG") {
            return Err(DedupError::TooBig(answered(&reply)));
        }
        if reply.len() != keys.len() || reply.starts_with(b"ERR ") {
            return Err(anyhow!(answered(&reply)).into());
        }
        for letter in &reply {
            verdicts.push(match letter {
                b'N' => Verdict::New,
                // A mismatch is a key that was seen with a fingerprint; none is sent here.
                b'D' | b'M' => Verdict::Seen,
                b'U' => Verdict::Unsure,
                b'E' => Verdict::NotStored,
                _ => return Err(anyhow!(answered(&reply)).into()),
            });
        }
        Ok(())
    }
}

fn answered(reply: &[u8]) -> String {
    const SHOWN_BYTES_MAX: usize = 200;
    let shown = &reply[..reply.len().min(SHOWN_BYTES_MAX)];
    format!("the server answered '{}'", String::from_utf8_lossy(shown))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::thread::{self, JoinHandle};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn spans(keys: &[&[u8]]) -> Spans {
        let mut spans = Spans::default();
        for key in keys {
            spans.push(key);
        }
        spans
    }

    fn verdicts(dedup: &mut impl Dedup, keys: &[&[u8]]) -> Result<Vec<Verdict>, DedupError> {
        let (keys, mut verdicts) = (spans(keys), Vec::new());
        dedup.submit(&keys)?;
        dedup.collect(&keys, &mut verdicts)?;
        Ok(verdicts)
    }

    #[test]
    fn the_embedded_store_says_new_once() {
        use Verdict::{New, Seen};
        let mut store = Embedded::new(None).unwrap();
        assert_eq!(
            verdicts(&mut store, &[b"a", b"b", b"a", b"\n"]).unwrap(),
            [New, New, Seen, New]
        );
        assert_eq!(verdicts(&mut store, &[b"b"]).unwrap(), [Seen]);
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

    /// A server that answers each line with the next reply; it returns the lines.
    fn scripted(replies: &'static [&str]) -> (Address, JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap().to_string());
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            replies
                .iter()
                .zip(lines)
                .map(|(reply, line)| {
                    writeln!(stream, "{reply}").unwrap();
                    line.unwrap()
                })
                .collect()
        });
        (address, server)
    }

    #[test]
    fn a_server_is_asked_batch_by_batch() {
        use Verdict::{New, NotStored, Seen, Unsure};
        let (address, server) = scripted(&["OK", "NDMUE", "N"]);
        let mut store = Server::connect(&address, PATIENCE, Some("jobs"), Some(90_000)).unwrap();
        assert_eq!(
            verdicts(&mut store, &[b"a", b"a b", b"\n", b"\"", b"-"]).unwrap(),
            [New, Seen, Seen, Unsure, NotStored]
        );
        assert_eq!(verdicts(&mut store, &[]).unwrap(), []);
        assert_eq!(verdicts(&mut store, &[b"z"]).unwrap(), [New]);
        assert_eq!(
            server.join().unwrap(),
            [
                "USE jobs",
                r#"MSEEN 90s a "a b" "\n" "\"" -"#,
                "MSEEN 90s z"
            ]
        );
    }

    #[test]
    fn other_answers_are_errors() {
        let (address, _server) = scripted(&["ERR TOOBIG key", "ERR FULL", "NN", "X"]);
        let mut store = Server::connect(&address, PATIENCE, None, None).unwrap();
        let too_big = verdicts(&mut store, &[b"a"]).unwrap_err();
        assert!(matches!(too_big, DedupError::TooBig(_)), "{too_big:?}");
        for want in ["ERR FULL", "NN", "X"] {
            let other = verdicts(&mut store, &[b"a"]).unwrap_err();
            assert_eq!(other.to_string(), format!("the server answered '{want}'"));
        }
        let closed = verdicts(&mut store, &[b"a"]).unwrap_err();
        assert!(matches!(closed, DedupError::Other(_)), "{closed:?}");

        let (address, _server) = scripted(&["ERR NONS none such"]);
        let unknown = Server::connect(&address, PATIENCE, Some("x"), None).unwrap_err();
        assert_eq!(
            unknown.to_string(),
            "no namespace 'x': the server answered 'ERR NONS none such'"
        );
    }
}
