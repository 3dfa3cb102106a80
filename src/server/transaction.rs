//! `MULTI` and `EXEC`: requests that are queued, and then executed in order, a slice at a time.
//!
//! The queue holds requests as they were received. While it is being executed its place in that and the
//! replies so far are kept, so that other connections have their turn in between; the replies go out together
//! at the end. Not isolated: others' requests may come between two of it.

use std::sync::Arc;

use super::client::{After, Client};
use super::clock::Reading;
use super::output::Output;
use super::turn::REQUESTS_PER_LOOK;
use crate::command::spec::Verb;
use crate::command::{Code, Command, Error, Reply, SessionCommand};
use crate::engine::Budget;
use crate::limits::{EXEC_MS_MAX, TRANSACTION_BYTES_MAX, TURN_US};
use crate::wire::{Decoded, Decoder, Sink, resp};

/// Bytes of requests and replies of a transaction that are moved between two looks at the clock.
const BYTES_PER_LOOK: usize = 64 << 10;

/// A transaction that is being queued: requests as they were received.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    requests: Vec<u8>,
    count: usize,
    /// A request was refused, so none will be executed.
    broken: bool,
    /// One of the requests may grant a lease.
    grants_lease: bool,
}

/// A transaction that is being executed, a slice at a time.
#[derive(Debug)]
pub(super) struct Executing {
    transaction: Transaction,
    /// How many bytes of its requests are done.
    done: usize,
    /// The request behind these has begun. It comes to its end whatever that takes: nobody could tell what a part of
    /// it has changed, and the next request would go on where it was left.
    is_under_way: bool,
    /// The replies so far.
    replies: Output,
    /// What its slices took together, in nanoseconds.
    spent_ns: u64,
    after: After,
}

impl Executing {
    /// Bytes of memory that it holds.
    pub(super) fn held_bytes(&self) -> usize {
        self.transaction.held_bytes() + self.replies.held_bytes()
    }
}

impl Client {
    /// Executes what was queued, in order, a slice at a time. Every reply is there; where they grow over the
    /// limit, or the time they take does, the rest is not executed, and each of its replies says so.
    pub(super) fn exec(&mut self, verb: Verb, out: &mut Output) -> After {
        if self.executing.is_none() {
            self.tally.count(verb, false);
        }
        let executing = self
            .executing
            .take()
            .map_or_else(|| self.begin_to_execute(), Ok);
        let mut executing = match executing {
            Ok(executing) => executing,
            Err(error) => {
                self.refuse(error, out);
                return After::GoOn;
            }
        };
        let began = self.shared.clock.read();
        let is_done = self.execute_queued(&mut executing, began);
        executing.spent_ns += began.elapsed_ns();
        if !is_done {
            self.executing = Some(executing);
            return After::Unfinished;
        }
        out.append(executing.replies);
        executing.after
    }

    fn begin_to_execute(&mut self) -> Result<Executing, Error> {
        let transaction = self
            .transaction
            .take()
            .ok_or_else(|| Error::redis("ERR EXEC without MULTI"))?;
        if transaction.broken {
            let text = "EXECABORT Transaction discarded because of previous errors.";
            return Err(Error::redis(text));
        }
        let mut replies = Output::default();
        resp::push_array_head(transaction.count, replies.bytes());
        Ok(Executing {
            transaction,
            done: 0,
            is_under_way: false,
            replies,
            spent_ns: 0,
            after: After::LookUp,
        })
    }

    /// Executes a slice of what was queued; whether that was the last.
    fn execute_queued(&mut self, executing: &mut Executing, began: Reading) -> bool {
        let shared = Arc::clone(&self.shared);
        let limits = shared.engine.limits();
        let mut reading = began;
        let replies = &mut executing.replies;
        let (mut executed, mut looked_at) = (0_u32, executing.done + replies.unread());
        let spent_ms = executing.spent_ns / 1_000_000;
        let mut decoder = Decoder::default();
        while let requests = &executing.transaction.requests[executing.done..]
            && let Decoded::Request { consumed, args } = decoder.next(requests, limits)
        {
            if reading.ns_since(&began) >= TURN_US * 1_000 {
                return false;
            }
            let mut done = After::GoOn;
            let goes_on = std::mem::take(&mut executing.is_under_way);
            if !goes_on && replies.unread() > limits.unread_bytes_max {
                let text = "not executed: the replies of this transaction are over the limit";
                self.refuse(Error::too_big(text), replies);
            } else if !goes_on && spent_ms + reading.ms_since(&began) > EXEC_MS_MAX {
                let text = format!("not executed: this transaction takes over {EXEC_MS_MAX} ms");
                self.refuse(Error::too_big(text), replies);
            } else {
                done = self.answer_one(&requests[..consumed], &args, reading.now, replies);
            }
            match done {
                After::Unfinished => {
                    executing.is_under_way = true;
                    return false;
                }
                After::Close => executing.after = After::Close,
                _ => {}
            }
            executing.done += consumed;
            executed += 1;
            let moved = executing.done + replies.unread();
            if done == After::LookUp
                || executed.is_multiple_of(REQUESTS_PER_LOOK)
                || moved - looked_at > BYTES_PER_LOOK
            {
                (reading, looked_at) = (shared.clock.read(), moved);
            }
        }
        true
    }
}

impl Transaction {
    /// Bytes of memory that it holds.
    pub(super) fn held_bytes(&self) -> usize {
        self.requests.capacity()
    }

    /// Whether its execution may grant a lease.
    pub(super) fn grants_lease(&self) -> bool {
        self.grants_lease && !self.broken
    }

    /// Nothing of it will be executed.
    pub(super) fn give_up(&mut self) {
        self.broken = true;
        self.requests = Vec::new();
    }

    pub(super) fn queue<'a>(
        &mut self,
        (verb, request): (Verb, &[u8]),
        budget: &Budget,
    ) -> Reply<'a> {
        if self.broken {
            // It will never be executed, so there is nothing to keep.
            return Reply::Word("QUEUED");
        }
        if self.requests.len() + request.len() > TRANSACTION_BYTES_MAX {
            self.give_up();
            return Error::too_big(format!(
                "a transaction has at most {TRANSACTION_BYTES_MAX} bytes"
            ))
            .into();
        }
        // A buffer that grows doubles.
        let room = self.requests.capacity();
        let growth = if self.requests.len() + request.len() > room {
            room.max(request.len())
        } else {
            0
        };
        if !budget.admits_queued(growth as isize) {
            self.give_up();
            return Error::new(Code::Full, "no memory for more of this transaction").into();
        }
        self.requests.extend_from_slice(request);
        self.count += 1;
        self.grants_lease |= verb.spec().grants_lease;
        Reply::Word("QUEUED")
    }
}

/// What Redis says of an `EXEC` that is refused itself: the transaction is over.
pub(super) fn aborted_by(error: &Error) -> Error {
    let text = error.text.strip_prefix("ERR ").unwrap_or(&error.text);
    Error::redis(format!(
        "EXECABORT Transaction discarded because of: {text}"
    ))
}

/// Commands that act on a transaction, or end the connection, instead of being queued.
pub(super) fn is_control(command: &Command<'_>) -> bool {
    matches!(
        command,
        Command::Session(
            SessionCommand::Exec
                | SessionCommand::Discard
                | SessionCommand::Multi
                | SessionCommand::Reset
                | SessionCommand::Quit
        )
    )
}

#[cfg(test)]
mod tests {
    use super::super::clock::Clock;
    use super::super::shared::{Ends, Shared};
    use super::*;
    use crate::engine::{Engine, EngineConfig};
    use crate::store::Ask;

    /// More than a slice lists, forgets or adds.
    const KEYS: usize = 30_000;

    /// A client of a server in whose default namespace, and in `other`, are so many keys.
    fn client() -> Client {
        let clock = Clock::start();
        let now = clock.read().now;
        let engine = Engine::new(EngineConfig {
            memory_bytes_max: 64 << 20,
            ..EngineConfig::default()
        });
        let ask = Ask {
            ttl_ms: 3_600_000,
            ..Ask::default()
        };
        for namespace in ["default", "other"].map(|name| engine.open(name).unwrap()) {
            for n in 0..KEYS {
                engine.seen(&namespace, format!("k{n}").as_bytes(), &ask, now);
            }
        }
        let shared = Arc::new(Shared::new(engine, clock, Vec::new(), 0, 1));
        let mut client = Client::new(shared, Ends::default(), now);
        client.speak_resp();
        client
    }

    fn ask(client: &mut Client, words: &str, out: &mut Output) -> After {
        let words: Vec<_> = words.split(' ').collect();
        let mut request = Vec::new();
        resp::push_array_head(words.len(), &mut request);
        for word in words {
            request.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
        }
        let shared = Arc::clone(&client.shared);
        let mut decoder = Decoder::default();
        let Decoded::Request { args, .. } = decoder.next(&request, shared.engine.limits()) else {
            panic!("one request");
        };
        client.answer_one(&request, &args, shared.clock.read().now, out)
    }

    /// What is answered, in however many slices.
    fn told(client: &mut Client, words: &str) -> String {
        let mut out = Output::default();
        while ask(client, words, &mut out) == After::Unfinished {}
        String::from_utf8_lossy(out.bytes()).into_owned()
    }

    /// The time was over in the middle of a request. It was refused, and what it had come to was what the next one
    /// began with: a member went into another set, an `NS PURGE` emptied another namespace.
    #[test]
    fn a_request_that_has_begun_comes_to_its_end_whatever_it_takes() {
        let mut client = client();
        for words in ["MULTI", "SMEMBERS other", "GET k1"] {
            told(&mut client, words);
        }
        let mut out = Output::default();
        assert_eq!(ask(&mut client, "EXEC", &mut out), After::Unfinished);
        client.executing.as_mut().unwrap().spent_ns = 2 * EXEC_MS_MAX * 1_000_000;
        let replies = told(&mut client, "EXEC");
        assert!(replies.contains(&format!("*{KEYS}\r\n")));
        let refused =
            format!("-ERR TOOBIG not executed: this transaction takes over {EXEC_MS_MAX} ms\r\n");
        assert!(
            replies.ends_with(&refused),
            "the one behind it has not begun"
        );
        assert_eq!(told(&mut client, "SADD new member"), ":1\r\n");
        assert_eq!(told(&mut client, "SMEMBERS new"), "*1\r\n$6\r\nmember\r\n");
        assert_eq!(told(&mut client, "SCARD other"), format!(":{KEYS}\r\n"));
    }

    /// The same where there was no more memory for replies.
    #[test]
    fn a_request_that_there_is_no_memory_for_leaves_nothing_to_the_next() {
        let mut client = client();
        told(&mut client, &format!("SET big {}", "v".repeat(3_000)));
        let mut out = Output::default();
        ask(&mut client, "MGET big big big", &mut out);
        assert!(out.copied_bytes() > crate::limits::REPLY_BYTES_SMALL);
        assert_eq!(ask(&mut client, "KEYS *", &mut out), After::Unfinished);
        client.shared.engine.budget().change_replies(64 << 20);
        let before = out.mark();
        while ask(&mut client, "KEYS *", &mut out) == After::Unfinished {}
        assert_ne!(out.mark(), before);
        client.shared.engine.budget().change_replies(-(64 << 20));
        assert_eq!(told(&mut client, "KEYS none"), "*0\r\n");
    }

    /// It is of no namespace, and made one anew that was dropped.
    #[test]
    fn a_script_that_is_sent_makes_no_namespace() {
        let (mut client, mut other) = (client(), client());
        other.shared = Arc::clone(&client.shared);
        other.session = client.shared.engine.session();
        told(&mut client, "USE short");
        assert_eq!(told(&mut other, "NS DROP short"), "+OK\r\n");
        for words in ["SCRIPT FLUSH", "SCRIPT EXISTS 0", "SCRIPT LOAD nonsense"] {
            told(&mut client, words);
            assert!(client.shared.engine.find("short").is_none(), "{words}");
        }
    }
}
