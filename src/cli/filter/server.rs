//! A server as the judge: one request per batch, several of them on their way.
//!
//! Without acknowledgements a batch is an `MSEEN`, and a line that the output refuses is given
//! back by `FORGET`. With them it is an `MBEGIN`, whose claims are completed by `MCOMPLETE` once
//! their lines are out, or given up by `MFAIL`. Nothing here decides what becomes of a line.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{anyhow, bail};

use super::batch::Spans;
use super::dedup::{Dedup, Verdict};
use crate::address::Address;
use crate::cli::remote::Remote;
use crate::time::{DurationWord, parse_u64};
use crate::wire::line::push_word;

/// Batches sent to a server before the oldest one's reply is read. Their replies fit any socket
/// buffer, so neither side can wait for the other to read.
const IN_FLIGHT_MAX: usize = 8;

/// The longest question: half of what a server takes unless it is set otherwise. A longer line
/// than a server takes closes the connection. A batch is below it; a key that stands alone may not be.
const REQUEST_BYTES_MAX: usize = 512 << 10;

/// The most keys of one request that acknowledges or gives back, unless the server takes fewer.
const KEYS_MAX: usize = 1_000;
/// Bytes of keys that are given back together.
const GIVEN_BACK_BYTES_MAX: usize = 64 << 10;

/// How the server is asked.
#[derive(Clone, Debug)]
pub(super) struct Asking {
    pub(super) namespace: Option<String>,
    /// How long a key is remembered; `None` is the namespace's default.
    pub(super) ttl_ms: Option<u64>,
    /// How long a claim holds without an acknowledgement; `None` is to mark keys as seen at once.
    pub(super) lease_ms: Option<u64>,
}

/// A server that judges.
#[derive(Debug)]
pub(super) struct Server {
    address: Address,
    timeout: Duration,
    asking: Asking,
    remote: Remote,
    /// Why nothing more can be asked on this connection. What was asked before may be answered.
    failure: Option<String>,
    /// Whether a reply did not come, or not whole. What comes later is not known to be the next one's.
    is_deaf: bool,
    /// The most keys that are acknowledged or given back together.
    keys_max: usize,
    /// What is still to be told, oldest first.
    expected: VecDeque<Expected>,
    /// Replies that were read ahead of their turn, oldest first.
    read_ahead: VecDeque<Vec<u8>>,
    /// The start of every question: the verb, the TTL and, for claims, the lease.
    prefix: Vec<u8>,
    request: Vec<u8>,
    /// Claims that had been taken over, or were gone, when they were acknowledged.
    overtaken: u64,
    /// An acknowledgement that the server refused.
    unacknowledged: Option<String>,
}

/// What is still to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    /// A reply with verdicts.
    Verdicts,
    /// A reply to an acknowledgement of so many keys.
    Acknowledged(usize),
    /// That the question was too long to be asked.
    TooLong,
}

/// Why keys have no verdicts.
enum Failure {
    /// A key or the batch is over a limit; nothing of it was stored.
    TooBig,
    /// Nothing of it was stored.
    Refused(anyhow::Error),
    /// It may have been stored.
    Unknown(anyhow::Error),
}

impl Server {
    /// Connects, and enters the namespace if one is named.
    pub(super) fn connect(
        address: &Address,
        timeout: Duration,
        asking: Asking,
    ) -> anyhow::Result<Self> {
        let ttl = asking
            .ttl_ms
            .map_or("-".to_owned(), |ms| DurationWord(ms).to_string());
        let prefix = match asking.lease_ms {
            None => format!("MSEEN {ttl}"),
            Some(ms) => format!("MBEGIN {ttl} {}", DurationWord(ms)),
        };
        Ok(Self {
            remote: enter(address, timeout, asking.namespace.as_deref())?,
            address: address.clone(),
            timeout,
            asking,
            failure: None,
            is_deaf: false,
            keys_max: KEYS_MAX,
            expected: VecDeque::new(),
            read_ahead: VecDeque::new(),
            prefix: prefix.into_bytes(),
            request: Vec::new(),
            overtaken: 0,
            unacknowledged: None,
        })
    }

    fn question<'k>(&mut self, keys: impl Iterator<Item = &'k [u8]>) {
        self.request.clone_from(&self.prefix);
        for key in keys {
            self.request.push(b' ');
            push_word(key, &mut self.request);
        }
    }

    /// Sends the request that was put together.
    fn send(&mut self) -> Result<(), Failure> {
        if let Some(failure) = &self.failure {
            return Err(Failure::Refused(anyhow!(failure.clone())));
        }
        let sent = self
            .remote
            .send(&self.request)
            .and_then(|()| self.remote.flush());
        sent.map_err(|err| self.fail(&err))
    }

    fn receive(&mut self) -> Result<Vec<u8>, Failure> {
        if let Some(reply) = self.read_ahead.pop_front() {
            return Ok(reply);
        }
        self.receive_next()
    }

    fn receive_next(&mut self) -> Result<Vec<u8>, Failure> {
        if self.is_deaf {
            let failure = self.failure.clone().unwrap_or_default();
            return Err(Failure::Unknown(anyhow!(failure)));
        }
        let received = self.remote.recv();
        self.is_deaf = received.is_err();
        received
            .map(|reply| reply.head)
            .map_err(|err| self.fail(&err))
    }

    /// What was on its way may have been executed or not.
    fn fail(&mut self, err: &anyhow::Error) -> Failure {
        let failure = self.failure.get_or_insert_with(|| format!("{err:#}"));
        Failure::Unknown(anyhow!(failure.clone()))
    }

    /// The reply to the oldest question; those to acknowledgements before it are read on the way.
    fn next_verdicts(&mut self) -> Result<Vec<u8>, Failure> {
        loop {
            match self.expected.pop_front() {
                Some(Expected::Acknowledged(count)) => self.read_acknowledged(count),
                Some(Expected::Verdicts) => return self.receive(),
                Some(Expected::TooLong) => return Err(Failure::TooBig),
                None => {
                    // It could not be sent.
                    let failure = self.failure.clone().unwrap_or_default();
                    return Err(Failure::Unknown(anyhow!(failure)));
                }
            }
        }
    }

    fn read_acknowledged(&mut self, count: usize) {
        match self.receive() {
            Ok(reply) if reply.len() == count && reply.iter().all(|l| b"OSG".contains(l)) => {
                let overtaken = reply.iter().filter(|letter| **letter != b'O').count();
                self.overtaken += overtaken as u64;
            }
            Ok(reply) => {
                self.unacknowledged.get_or_insert(answered(&reply));
            }
            Err(_) => self.note_unacknowledged(),
        }
    }

    fn note_unacknowledged(&mut self) {
        let failure = self.failure.clone().unwrap_or_default();
        self.unacknowledged.get_or_insert(failure);
    }

    /// Appends what a reply says about these keys, one verdict for each, also on an error.
    fn judge(
        &mut self,
        keys: &[&[u8]],
        reply: Result<Vec<u8>, Failure>,
        verdicts: &mut Vec<Verdict>,
    ) -> anyhow::Result<()> {
        let end = verdicts.len() + keys.len();
        match reply.and_then(|reply| self.read(&reply, keys.len())) {
            Ok(read) => {
                verdicts.extend(read);
                Ok(())
            }
            Err(Failure::TooBig) if keys.len() == 1 => {
                verdicts.push(Verdict::TooLong);
                Ok(())
            }
            Err(Failure::TooBig) => {
                // Some key is too long, or there are too many: the halves are asked about, and
                // theirs. Batches behind this one were asked before; where they have a key of
                // it, it is their line that is kept.
                self.read_what_is_expected();
                let (first, second) = keys.split_at(keys.len() / 2);
                let reply = self.ask(first);
                let first_judged = self.judge(first, reply, verdicts);
                let reply = self.ask(second);
                let second_judged = self.judge(second, reply, verdicts);
                let judged = &verdicts[end - keys.len()..];
                if first_judged.is_ok()
                    && second_judged.is_ok()
                    && !judged.contains(&Verdict::TooLong)
                {
                    // It was their number.
                    self.keys_max = self.keys_max.min(second.len());
                }
                first_judged.and(second_judged)
            }
            Err(Failure::Refused(err)) => {
                verdicts.resize(end, Verdict::NotStored);
                Err(err)
            }
            Err(Failure::Unknown(err)) => {
                verdicts.resize(end, Verdict::Unanswered);
                Err(err)
            }
        }
    }

    /// Asks about these keys at once; no other reply may be on its way.
    fn ask(&mut self, keys: &[&[u8]]) -> Result<Vec<u8>, Failure> {
        self.question(keys.iter().copied());
        self.send()?;
        self.receive_next()
    }

    fn read_what_is_expected(&mut self) {
        let replies = self
            .expected
            .iter()
            .filter(|expected| **expected != Expected::TooLong);
        for _ in self.read_ahead.len()..replies.count() {
            match self.receive_next() {
                Ok(reply) => self.read_ahead.push_back(reply),
                // Whoever waits for that reply is told.
                Err(_) => return,
            }
        }
    }

    /// What a reply says about so many keys, if it says that.
    fn read(&self, reply: &[u8], count: usize) -> Result<Vec<Verdict>, Failure> {
        if let Some(error) = reply.strip_prefix(b"ERR ") {
            let answered = anyhow!(answered(reply));
            return Err(match error.split(|&byte| byte == b' ').next() {
                Some(b"TOOBIG") => Failure::TooBig,
                // What these refuse may have been done before.
                Some(b"READONLY" | b"INTERNAL") => Failure::Unknown(answered),
                _ => Failure::Refused(answered),
            });
        }
        let read: Option<Vec<_>> = match self.asking.lease_ms {
            None => reply.iter().copied().map(mark).collect(),
            Some(_) => reply.split(|&byte| byte == b' ').map(claim).collect(),
        };
        read.filter(|verdicts| verdicts.len() == count)
            .ok_or_else(|| Failure::Unknown(anyhow!(answered(reply))))
    }

    /// Gives these back, on a new connection if this one has failed: what was stored outlives it.
    fn give_back_some(&mut self, keys: &[(&[u8], Verdict)]) -> anyhow::Result<()> {
        if self.failure.is_some() {
            let namespace = self.asking.namespace.as_deref();
            let remote = enter(&self.address, self.timeout, namespace)?;
            // What was not sent whole must not be sent now.
            std::mem::replace(&mut self.remote, remote).abandon();
            (self.failure, self.is_deaf) = (None, false);
        }
        let word: &[u8] = match self.asking.lease_ms {
            None => b"FORGET",
            Some(_) => b"MFAIL",
        };
        self.request.clear();
        self.request.extend_from_slice(word);
        self.push_pairs(keys.iter().copied());
        let reply = self.remote.request(&self.request)?.head;
        if reply.starts_with(b"ERR TOOBIG") && keys.len() > 1 {
            let (first, second) = keys.split_at(keys.len() / 2);
            self.give_back_some(first)?;
            return self.give_back_some(second);
        }
        if reply.starts_with(b"ERR ") {
            bail!(answered(&reply));
        }
        Ok(())
    }

    /// Appends keys to a request, each with its token if it is claimed.
    fn push_pairs<'k>(&mut self, keys: impl Iterator<Item = (&'k [u8], Verdict)>) {
        for (key, verdict) in keys {
            self.request.push(b' ');
            push_word(key, &mut self.request);
            if let Some(token) = verdict.token() {
                self.request
                    .extend_from_slice(format!(" {token}").as_bytes());
            }
        }
    }
}

/// A letter of a reply to `MSEEN`.
fn mark(letter: u8) -> Option<Verdict> {
    Some(match letter {
        b'N' => Verdict::New,
        // A mismatch is a key that was seen with a fingerprint; none is sent here.
        b'D' | b'M' => Verdict::Seen,
        b'U' => Verdict::Unsure,
        b'E' => Verdict::NotStored,
        _ => return None,
    })
}

/// An item of a reply to `MBEGIN`.
fn claim(item: &[u8]) -> Option<Verdict> {
    Some(match item {
        b"B" => Verdict::Busy,
        // Marked, completed, or failed for good.
        b"D" | b"C" | b"F" => Verdict::Seen,
        b"E" => Verdict::NotStored,
        _ => match item.split_at_checked(2)? {
            (b"N:", token) => Verdict::Claimed(parse_u64(token)?),
            (b"U:", token) => Verdict::ClaimedUnsure(parse_u64(token)?),
            _ => return None,
        },
    })
}

impl Dedup for Server {
    fn in_flight_max(&self) -> usize {
        IN_FLIGHT_MAX
    }

    fn submit(&mut self, keys: &Spans) -> bool {
        if keys.is_empty() {
            return true;
        }
        self.question(keys.iter());
        if self.request.len() > REQUEST_BYTES_MAX {
            self.expected.push_back(Expected::TooLong);
            return true;
        }
        // What becomes of a question that cannot be sent is told when it is collected.
        let sent = self.send().is_ok();
        if sent {
            self.expected.push_back(Expected::Verdicts);
        }
        sent
    }

    fn collect(&mut self, keys: &Spans, verdicts: &mut Vec<Verdict>) -> anyhow::Result<()> {
        if keys.is_empty() {
            return Ok(());
        }
        let reply = self.next_verdicts();
        let keys: Vec<_> = keys.iter().collect();
        self.judge(&keys, reply, verdicts)
    }

    fn acknowledge<'k>(&mut self, written: impl Iterator<Item = (&'k [u8], Verdict)>) {
        let claims: Vec<_> = written
            .filter(|(_, verdict)| verdict.token().is_some())
            .collect();
        for claims in claims.chunks(self.keys_max) {
            self.request.clear();
            self.request.extend_from_slice(b"MCOMPLETE");
            self.push_pairs(claims.iter().copied());
            if self.send().is_err() {
                self.note_unacknowledged();
                return;
            }
            self.expected
                .push_back(Expected::Acknowledged(claims.len()));
        }
    }

    fn finish(&mut self) -> anyhow::Result<u64> {
        while let Some(expected) = self.expected.pop_front() {
            if let Expected::Acknowledged(count) = expected {
                self.read_acknowledged(count);
            }
        }
        match &self.unacknowledged {
            None => Ok(self.overtaken),
            Some(why) => bail!(
                "lines that were written could not all be acknowledged, and will be written again: {why}"
            ),
        }
    }

    fn give_back(&mut self, keys: &Spans, verdicts: &[Verdict]) -> (usize, anyhow::Result<()>) {
        let claims = self.asking.lease_ms.is_some();
        // A claim whose token never came ends with its lease.
        let keys: Vec<_> = keys
            .iter()
            .zip(verdicts.iter().copied())
            .filter(|(_, verdict)| !claims || verdict.token().is_some())
            .collect();
        let mut done = 0;
        while done < keys.len() {
            let mut bytes = 0;
            let fit = keys[done..]
                .iter()
                .take(self.keys_max)
                .take_while(|(key, _)| {
                    bytes += key.len();
                    bytes <= GIVEN_BACK_BYTES_MAX
                });
            let end = done + fit.count().max(1);
            if let Err(err) = self.give_back_some(&keys[done..end]) {
                return (done, Err(err));
            }
            done = end;
        }
        (done, Ok(()))
    }
}

fn enter(address: &Address, timeout: Duration, namespace: Option<&str>) -> anyhow::Result<Remote> {
    let mut remote = Remote::connect_to(address, timeout)?;
    if let Some(namespace) = namespace {
        let mut request = b"USE ".to_vec();
        push_word(namespace.as_bytes(), &mut request);
        let reply = remote.request(&request)?.head;
        if reply != b"OK" {
            bail!("no namespace '{namespace}': {}", answered(&reply));
        }
    }
    Ok(remote)
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

    const MARKS: Asking = Asking {
        namespace: None,
        ttl_ms: None,
        lease_ms: None,
    };
    const CLAIMS: Asking = Asking {
        namespace: None,
        ttl_ms: Some(60_000),
        lease_ms: Some(5_000),
    };

    fn spans(keys: &[&[u8]]) -> Spans {
        let mut spans = Spans::default();
        for key in keys {
            spans.push(key);
        }
        spans
    }

    /// The verdicts on one batch, and the error with them.
    fn verdicts(server: &mut Server, keys: &[&[u8]]) -> (Vec<Verdict>, Option<String>) {
        let (keys, mut verdicts) = (spans(keys), Vec::new());
        server.submit(&keys);
        let collected = server.collect(&keys, &mut verdicts);
        (verdicts, collected.err().map(|err| err.to_string()))
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

    fn connect(address: &Address, asking: Asking) -> Server {
        Server::connect(address, PATIENCE, asking).unwrap()
    }

    #[test]
    fn a_server_is_asked_batch_by_batch() {
        use Verdict::{New, NotStored, Seen, Unsure};
        let (address, lines) = scripted(&["OK", "NDMUE", "N", "OK 2"]);
        let asking = Asking {
            namespace: Some("jobs".to_owned()),
            ttl_ms: Some(90_000),
            lease_ms: None,
        };
        let mut server = connect(&address, asking);
        assert_eq!(
            verdicts(&mut server, &[b"a", b"a b", b"\n", b"\"", b"-"]),
            (vec![New, Seen, Seen, Unsure, NotStored], None)
        );
        assert_eq!(verdicts(&mut server, &[]), (vec![], None));
        assert_eq!(verdicts(&mut server, &[b"z"]), (vec![New], None));
        let (given_back, outcome) = server.give_back(&spans(&[b"a", b"\""]), &[New, Unsure]);
        assert_eq!((given_back, outcome.is_ok()), (2, true));
        assert_eq!(
            lines.join().unwrap(),
            [
                "USE jobs",
                r#"MSEEN 90s a "a b" "\n" "\"" -"#,
                "MSEEN 90s z",
                r#"FORGET a "\"""#
            ]
        );
    }

    #[test]
    fn a_claim_is_acknowledged_or_given_up() {
        use Verdict::{Busy, Claimed, ClaimedUnsure, NotStored, Seen};
        let (address, lines) = scripted(&["N:7 B C D F U:8 E N:9", "OS", "C", "O"]);
        let mut server = connect(&address, CLAIMS);
        let keys: [&[u8]; 8] = [b"a", b"b", b"c", b"d", b"e", b"f", b"g", b"h"];
        let (judged, err) = verdicts(&mut server, &keys);
        let want = [
            Claimed(7),
            Busy,
            Seen,
            Seen,
            Seen,
            ClaimedUnsure(8),
            NotStored,
            Claimed(9),
        ];
        assert_eq!((&judged[..], err), (&want[..], None));
        server.acknowledge(keys[..7].iter().copied().zip(judged.iter().copied()));
        assert_eq!(verdicts(&mut server, &[b"b"]), (vec![Seen], None));
        assert_eq!(server.finish().unwrap(), 1, "one was stale");
        let lost = Verdict::Unanswered;
        let (given_back, outcome) = server.give_back(&spans(&[b"x", b"h"]), &[lost, Claimed(9)]);
        assert_eq!((given_back, outcome.is_ok()), (1, true), "one has no token");
        assert_eq!(
            lines.join().unwrap(),
            [
                "MBEGIN 1m 5s a b c d e f g h",
                "MCOMPLETE a 7 f 8",
                "MBEGIN 1m 5s b",
                "MFAIL h 9"
            ]
        );
    }

    #[test]
    fn a_key_over_the_limit_is_found_among_those_around_it() {
        use Verdict::{New, Seen, TooLong};
        let (address, lines) = scripted(&[
            "ERR TOOBIG a key",
            "D", // to the batch behind, which was sent before
            "ND",
            "ERR TOOBIG a key",
            "ERR TOOBIG a key",
            "N",
        ]);
        let mut server = connect(&address, MARKS);
        let (first, second) = (spans(&[b"a", b"b", b"long", b"d"]), spans(&[b"e"]));
        server.submit(&first);
        server.submit(&second);
        let mut judged = Vec::new();
        server.collect(&first, &mut judged).unwrap();
        server.collect(&second, &mut judged).unwrap();
        assert_eq!(judged, [New, Seen, TooLong, New, Seen]);
        assert_eq!(
            lines.join().unwrap(),
            [
                "MSEEN - a b long d",
                "MSEEN - e",
                "MSEEN - a b",
                "MSEEN - long d",
                "MSEEN - long",
                "MSEEN - d"
            ]
        );
    }

    #[test]
    fn a_question_longer_than_a_server_takes_is_not_sent() {
        let (address, lines) = scripted(&["N"]);
        let mut server = connect(&address, MARKS);
        let long = vec![b'x'; REQUEST_BYTES_MAX];
        assert_eq!(
            verdicts(&mut server, &[&long]),
            (vec![Verdict::TooLong], None)
        );
        assert_eq!(verdicts(&mut server, &[b"a"]), (vec![Verdict::New], None));
        assert_eq!(lines.join().unwrap(), ["MSEEN - a"]);
    }

    #[test]
    fn an_error_says_whether_the_keys_may_be_stored() {
        let (address, _lines) = scripted(&[
            "ERR LOADING later",
            "ERR FULL memory",
            "ERR READONLY the log failed",
            "ERR INTERNAL 17",
            "NN",
            "X",
        ]);
        let mut server = connect(&address, MARKS);
        for (reply, verdict) in [
            ("ERR LOADING later", Verdict::NotStored),
            ("ERR FULL memory", Verdict::NotStored),
            ("ERR READONLY the log failed", Verdict::Unanswered),
            ("ERR INTERNAL 17", Verdict::Unanswered),
            ("NN", Verdict::Unanswered),
            ("X", Verdict::Unanswered),
        ] {
            let told = format!("the server answered '{reply}'");
            assert_eq!(
                verdicts(&mut server, &[b"a"]),
                (vec![verdict], Some(told)),
                "{reply}"
            );
        }
    }

    #[test]
    fn replies_that_came_before_the_connection_broke_count() {
        let (address, lines) = scripted(&["N"]);
        let mut server = connect(&address, MARKS);
        let (first, second) = (spans(&[b"a"]), spans(&[b"b"]));
        assert!(server.submit(&first) && server.submit(&second));
        lines.join().unwrap();
        let mut judged = Vec::new();
        server.collect(&first, &mut judged).unwrap();
        server.collect(&second, &mut judged).unwrap_err();
        assert_eq!(judged, [Verdict::New, Verdict::Unanswered]);
        // What is known not to have been sent is not stored.
        assert!(!server.submit(&first));
    }

    #[test]
    fn what_cannot_be_given_back_is_an_error() {
        let (address, lines) = scripted(&["N", "ERR FULL 0 of 1 keys"]);
        let mut server = connect(&address, MARKS);
        verdicts(&mut server, &[b"a"]);
        let (given_back, outcome) = server.give_back(&spans(&[b"a"]), &[Verdict::New]);
        let err = outcome.unwrap_err();
        assert!(
            given_back == 0 && err.to_string().contains("ERR FULL"),
            "{err}"
        );
        lines.join().unwrap();
    }

    /// The reply to the first batch came late, and was taken for that to the second: a line whose key had just
    /// been marked was dropped.
    #[test]
    fn a_reply_that_comes_late_is_nobodys() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap().to_string());
        let patience = Duration::from_millis(200);
        let mut server = Server::connect(&address, patience, MARKS).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        let (first, second) = (spans(&[b"a"]), spans(&[b"b"]));
        assert!(server.submit(&first) && server.submit(&second));
        let mut judged = Vec::new();
        server.collect(&first, &mut judged).unwrap_err();
        stream.write_all(b"D\nN\n").unwrap();
        server.collect(&second, &mut judged).unwrap_err();
        assert_eq!(judged, [Verdict::Unanswered, Verdict::Unanswered]);
    }

    #[test]
    fn a_server_that_takes_few_keys_is_asked_about_few() {
        use Verdict::Claimed;
        let (address, lines) = scripted(&[
            "ERR TOOBIG 4 keys, 2 at most",
            "N:1 N:2",
            "N:3 N:4",
            "OO",
            "OO",
            "OO",
            "ERR TOOBIG 2 pairs, 1 at most",
            "O",
            "O",
        ]);
        let mut server = connect(&address, CLAIMS);
        let keys: [&[u8]; 4] = [b"a", b"b", b"c", b"d"];
        let (judged, err) = verdicts(&mut server, &keys);
        assert_eq!(err, None);
        assert_eq!(judged, [1, 2, 3, 4].map(Claimed));
        server.acknowledge(keys.into_iter().zip(judged.iter().copied()));
        assert_eq!(server.finish().unwrap(), 0);
        let (given_back, outcome) = server.give_back(&spans(&keys), &judged);
        assert_eq!((given_back, outcome.is_ok()), (4, true));
        let lines = lines.join().unwrap();
        let asked: Vec<_> = lines.iter().map(String::as_str).collect();
        assert_eq!(
            asked[3..],
            [
                "MCOMPLETE a 1 b 2",
                "MCOMPLETE c 3 d 4",
                "MFAIL a 1 b 2",
                "MFAIL c 3 d 4",
                "MFAIL c 3",
                "MFAIL d 4"
            ]
        );
    }

    #[test]
    fn an_unknown_namespace_is_told_at_the_start() {
        let (address, _lines) = scripted(&["ERR NONS none such"]);
        let asking = Asking {
            namespace: Some("x".to_owned()),
            ..MARKS
        };
        let unknown = Server::connect(&address, PATIENCE, asking).unwrap_err();
        assert_eq!(
            unknown.to_string(),
            "no namespace 'x': the server answered 'ERR NONS none such'"
        );
    }
}
