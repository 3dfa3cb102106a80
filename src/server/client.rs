//! One connection's conversation: its dialect, namespace, transaction and name.
//!
//! Takes a decoded request to its encoded reply. Commands on the store go to the engine; those
//! on the connection itself are answered here. No I/O: the bytes come from and go to `connection`.

use std::sync::Arc;
use std::task::Waker;

use super::batch::{self, Batch};
use super::held::Slot;
use super::output::Output;
use super::shared::{ClientInfo, Ends, Listing, Shared};
use super::transaction::{self, Executing, Transaction};
use crate::command::spec::{Effect, Verb};
use crate::command::{
    Args, ClientCommand, Code, Command, Error, Reply, SessionCommand, lookup_line, lookup_resp,
    printable, unknown_command,
};
use crate::engine::waiters::Place;
use crate::engine::{Budget, Engine, Executed, Session, Wait};
use crate::limits::REPLY_BYTES_SMALL;
use crate::metrics::Tally;
use crate::time::Millis;
use crate::wire::{Dialect, line};

/// What is to happen after a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// The next request.
    GoOn,
    /// The next request; this one may have taken long, so look at the clock first.
    LookUp,
    /// The next request, but a body that came with this one is to be thrown away.
    Refused,
    /// Send what there is, then close.
    Close,
    /// Nothing yet: the request has a place in a line, and is asked again once that is due.
    Hold,
    /// Nothing yet: it may grant a lease, and a reply before it is held.
    Defer,
    /// Nothing yet: it is not executed while a reply before it is held, and ends that.
    EndWaiting,
    /// Nothing yet: so much waits to be written that no more is changed before some of it is.
    Unwritten,
    /// Nothing yet: others are to have their turn first, then the same request is answered again and goes on
    /// where it was. Nothing else of this connection is answered before.
    Unfinished,
}

impl After {
    /// Whether the request was not answered yet.
    pub(super) fn is_unanswered(self) -> bool {
        matches!(
            self,
            Self::Hold | Self::Defer | Self::EndWaiting | Self::Unwritten | Self::Unfinished
        )
    }
}

/// What surrounds one request: all that was received, what waits to be asked, the moment, the replies.
#[derive(Debug)]
pub(super) struct Exchange<'e> {
    pub(super) input: &'e [u8],
    pub(super) batch: &'e mut Batch,
    pub(super) now: Millis,
    pub(super) out: &'e mut Output,
    /// Wakes the connection.
    pub(super) waker: &'e Waker,
    /// Whether what rests on the log waits until more of that is written.
    pub(super) is_log_behind: bool,
    /// Whether a reply before this one is held.
    pub(super) is_behind_held: bool,
}

/// Whose replies are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum ReplyMode {
    #[default]
    On,
    Off,
    /// The next reply is not sent.
    Skip,
}

/// One connection's conversation.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) shared: Arc<Shared>,
    pub(super) info: Arc<ClientInfo>,
    pub(super) dialect: Dialect,
    pub(super) session: Session,
    pub(super) transaction: Option<Transaction>,
    /// What `EXEC` goes on with.
    pub(super) executing: Option<Executing>,
    /// What `CLIENT LIST` goes on with.
    pub(super) listing: Option<Listing>,
    pub(super) replies: ReplyMode,
    /// The place in line of the request that is being executed.
    place: Option<Place>,
    /// A reply is to wait until all is on the disk.
    pub(super) wants_sync: bool,
    /// A reply rests on what the log has so far.
    pub(super) rests_on_log: bool,
    pub(super) tally: Tally,
}

impl Client {
    /// Holds less while it waits for its client.
    pub(super) fn rest(&mut self) {
        self.session.rest();
    }

    /// Goes on after it [rested](Self::rest).
    pub(super) fn go_on(&mut self) {
        self.session.go_on();
    }

    pub(super) fn new(shared: Arc<Shared>, ends: Ends, now: Millis) -> Self {
        let session = shared.engine.session();
        let info = shared.register(ends, now);
        Self {
            shared,
            info,
            dialect: Dialect::Line,
            session,
            transaction: None,
            executing: None,
            listing: None,
            replies: ReplyMode::On,
            place: None,
            wants_sync: false,
            rests_on_log: false,
            tally: Tally::default(),
        }
    }

    /// Takes up RESP, as the first byte said.
    pub(super) fn speak_resp(&mut self) {
        if self.dialect == Dialect::Line {
            self.dialect = Dialect::Resp(2);
        }
    }

    /// Bytes that a transaction holds, and what is not finished.
    pub(super) fn queued_bytes(&self) -> usize {
        let queued = self.transaction.as_ref().map_or(0, Transaction::held_bytes);
        let executing = self.executing.as_ref().map_or(0, Executing::held_bytes);
        let listing = self.listing.as_ref().map_or(0, Listing::held_bytes);
        queued + executing + listing + self.session.held_bytes()
    }

    /// Bytes that were copied for a reply that is not finished.
    pub(super) fn copied_bytes(&self) -> usize {
        self.session.copied_bytes()
    }

    /// Appends a refusal's bytes.
    pub(super) fn refuse(&self, error: Error, out: &mut Output) {
        self.dialect.encode(&Reply::Error(error), out);
    }

    /// Appends the refusal of bytes that never became a request. In a transaction one request is
    /// missing then, so none of it will be executed.
    pub(super) fn refuse_bytes(&mut self, error: Error, out: &mut Output) {
        self.break_transaction();
        out.count_reply();
        self.refuse(error, out);
    }

    /// Answers one request, or keeps it for its batch; `request` are its bytes, `args` its words.
    pub(super) fn answer(
        &mut self,
        request: &[u8],
        args: &Args<'_>,
        exchange: &mut Exchange<'_>,
    ) -> After {
        let Some(verb) = self.verb(args) else {
            return self.answer_alone(exchange, |client, _, out| client.answer_unknown(args, out));
        };
        if self.shared.is_loading() && !verb.spec().while_loading {
            return self.answer_alone(exchange, |client, _, out| client.answer_loading(verb, out));
        }
        if verb.spec().rests_on_log {
            if exchange.is_log_behind {
                return After::Unwritten;
            }
            self.rests_on_log = true;
        }
        // Some hundred bytes, which stay where they are made.
        let parsed = verb.spec().parse(args, self.shared.engine.limits());
        if exchange.is_behind_held
            && let Ok(command) = &parsed
            && let Some(after) = self.waits_behind_held(verb, command)
        {
            return self.answer_alone(exchange, |_, _, _| after);
        }
        if let Ok(command) = &parsed
            && self.transaction.is_none()
            && self.replies == ReplyMode::On
            && !self.shared.has_doubts()
            && exchange.batch.take(
                verb,
                command,
                exchange.input,
                &self.shared.engine,
                self.session.namespace(),
            )
        {
            exchange.out.count_reply();
            if exchange.batch.is_full() {
                self.ask(exchange.input, exchange.batch, exchange.now, exchange.out);
            }
            return After::GoOn;
        }
        let waker = exchange.waker;
        self.answer_alone(exchange, |client, now, out| {
            client.answer_sure((verb, args), parsed, (request, Some(waker)), now, out)
        })
    }

    /// What is not executed while a reply before it is held.
    fn waits_behind_held(&self, verb: Verb, command: &Command<'_>) -> Option<After> {
        let grants_lease = match command {
            Command::Session(SessionCommand::Quit | SessionCommand::Reset) => {
                return Some(After::EndWaiting);
            }
            Command::Session(SessionCommand::Exec) => self
                .transaction
                .as_ref()
                .is_some_and(Transaction::grants_lease),
            _ => self.transaction.is_none() && verb.spec().grants_lease,
        };
        grants_lease.then_some(After::Defer)
    }

    /// A slot for the request that was just answered so: its reply is held, or it was not executed.
    pub(super) fn slot(&mut self, request: &[u8], args: &Args<'_>, after: After) -> Slot {
        let arrival = (self.dialect, self.session.namespace());
        let mut slot = Slot::new(request, self.verb(args), arrival);
        slot.place = self.place.take();
        slot.replies = self.replies;
        if self.replies == ReplyMode::Skip {
            self.replies = ReplyMode::On;
        }
        if after == After::Defer {
            slot.transaction = self.transaction.take();
        }
        slot
    }

    /// Executes the request of a slot as if it came now, but in the state of its arrival.
    pub(super) fn answer_slot(
        &mut self,
        slot: &mut Slot,
        (request, args): (&[u8], &Args<'_>),
        now: Millis,
        waker: Option<&Waker>,
    ) -> After {
        let Some(verb) = slot.verb else {
            return After::GoOn;
        };
        self.change_places(slot);
        let parsed = verb.spec().parse(args, self.shared.engine.limits());
        let request = (request, waker);
        let after = self.answer_sure((verb, args), parsed, request, now, &mut slot.reply);
        self.change_places(slot);
        // It may have been in another one meanwhile.
        self.tell_namespace();
        if !after.is_unanswered() {
            slot.has_replied();
        }
        after
    }

    /// Takes up a slot's state, and leaves its own there; the second time, the other way round.
    fn change_places(&mut self, slot: &mut Slot) {
        std::mem::swap(&mut self.dialect, &mut slot.dialect);
        std::mem::swap(&mut self.transaction, &mut slot.transaction);
        std::mem::swap(&mut self.place, &mut slot.place);
        slot.namespace = self.session.enter(Arc::clone(&slot.namespace));
    }

    /// Answers a request whose reply is held without waiting any longer.
    pub(super) fn give_up(&mut self, slot: &mut Slot, now: Millis) {
        let Some(place) = slot.place.take() else {
            return;
        };
        if let Some(verb) = slot.verb {
            self.tally.count(verb, false);
        }
        let reply = self.shared.engine.give_up(&place, now);
        slot.dialect.encode(&reply, &mut slot.reply);
        slot.has_replied();
    }

    /// Appends refusals in the place of so many replies that rest on what may not be on the disk.
    pub(super) fn take_back(&self, replies: usize, out: &mut Output) {
        for _ in 0..replies {
            self.refuse(self.shared.engine.doubt(), out);
        }
    }

    fn answer_loading(&mut self, verb: Verb, out: &mut Output) -> After {
        self.tally.count_rejected(verb);
        self.break_transaction();
        let text = "the log is being read; try again in a moment";
        self.refuse(Error::new(Code::Loading, text), out);
        After::Refused
    }

    /// Answers, but where changes are in doubt, nothing about keys that these concern: nobody knows what
    /// becomes of those.
    fn answer_sure(
        &mut self,
        (verb, args): (Verb, &Args<'_>),
        parsed: Result<Command<'_>, Error>,
        request: (&[u8], Option<&Waker>),
        now: Millis,
        out: &mut Output,
    ) -> After {
        let begins = out.mark();
        let after = self.answer_parsed(verb, parsed, request, now, out);
        let shared = &self.shared;
        // Looked at afterwards: what is in doubt was marked so before anybody could see it.
        if !after.is_unanswered()
            && let Some(log) = shared.engine.log()
            && shared.has_doubts()
            && args.rest(0).iter().any(|word| log.is_in_doubt(word))
        {
            out.truncate(begins);
            self.refuse(self.shared.engine.doubt(), out);
        }
        after
    }

    /// Asks what waits in the batch, then answers what is not to be asked with it.
    fn answer_alone(
        &mut self,
        exchange: &mut Exchange<'_>,
        answer: impl FnOnce(&mut Self, Millis, &mut Output) -> After,
    ) -> After {
        let Exchange {
            input,
            batch,
            now,
            out,
            waker: _,
            is_log_behind: _,
            is_behind_held: _,
        } = exchange;
        self.ask(input, batch, *now, out);
        let begins = out.mark();
        let skip = self.replies == ReplyMode::Skip;
        let after = answer(self, *now, out);
        if after.is_unanswered() {
            return after;
        }
        if skip && self.replies == ReplyMode::Skip {
            self.replies = ReplyMode::On;
            out.truncate(begins);
        } else if self.replies != ReplyMode::On {
            out.truncate(begins);
        }
        if out.mark() != begins {
            out.count_reply();
        }
        after
    }

    /// Asks the questions that wait in the batch, and appends the answers.
    pub(super) fn ask(&mut self, input: &[u8], batch: &mut Batch, now: Millis, out: &mut Output) {
        if !batch.is_empty() {
            let mut to = batch::Answers {
                dialect: self.dialect,
                tally: &mut self.tally,
                out,
            };
            batch.ask(
                input,
                &self.shared.engine,
                self.session.namespace(),
                now,
                &mut to,
            );
        }
    }

    #[inline]
    fn verb(&self, args: &Args<'_>) -> Option<Verb> {
        if self.dialect == Dialect::Line {
            lookup_line(args.verb())
        } else {
            lookup_resp(args.verb())
        }
    }

    /// Answers a request of a transaction.
    pub(super) fn answer_one(
        &mut self,
        request: &[u8],
        args: &Args<'_>,
        now: Millis,
        out: &mut Output,
    ) -> After {
        let Some(verb) = self.verb(args) else {
            return self.answer_unknown(args, out);
        };
        let parsed = verb.spec().parse(args, self.shared.engine.limits());
        // All replies of a transaction come at once, so none of them is held.
        self.answer_sure((verb, args), parsed, (request, None), now, out)
    }

    fn answer_parsed(
        &mut self,
        verb: Verb,
        parsed: Result<Command<'_>, Error>,
        (request, waker): (&[u8], Option<&Waker>),
        now: Millis,
        out: &mut Output,
    ) -> After {
        if let Some(transaction) = &mut self.transaction
            && match &parsed {
                Ok(command) => !transaction::is_control(command),
                // As in Redis: it is refused when it is executed, and the others are executed all the same.
                Err(error) => error.code == Code::Redis,
            }
        {
            let queued = transaction.queue((verb, request), self.shared.engine.budget());
            self.dialect.encode(&queued, out);
            return After::GoOn;
        }
        let command = match parsed {
            Ok(command) => command,
            Err(error) => {
                if error.code == Code::Redis {
                    self.tally.count(verb, true);
                } else {
                    self.tally.count_rejected(verb);
                }
                let error = if verb.spec().name == "EXEC" {
                    self.transaction = None;
                    transaction::aborted_by(&error)
                } else {
                    self.break_transaction();
                    error
                };
                self.refuse(error, out);
                return After::Refused;
            }
        };
        let after = self.execute(verb, &command, waker, now, out);
        if matches!(command, Command::Use { .. } | Command::Select { .. }) {
            self.tell_namespace();
        }
        after
    }

    fn answer_unknown(&mut self, args: &Args<'_>, out: &mut Output) -> After {
        self.shared.engine.metrics().malformed.add(1);
        self.break_transaction();
        if self.dialect != Dialect::Line {
            self.refuse(unknown_command(args), out);
            return After::GoOn;
        }
        if line::is_http(args.verb()) {
            let text = "no HTTP here; closing, so that nothing of a request runs as a command (Redis commands are spoken in RESP)";
            self.refuse(Error::new(Code::Unknown, text), out);
            return After::Close;
        }
        let shown = printable(args.verb());
        self.refuse(
            Error::new(
                Code::Unknown,
                format!("unknown verb {shown}; HELP lists the verbs"),
            ),
            out,
        );
        After::Refused
    }

    fn execute(
        &mut self,
        verb: Verb,
        command: &Command<'_>,
        waker: Option<&Waker>,
        now: Millis,
        out: &mut Output,
    ) -> After {
        // What names no key may concern all of them.
        let done = if verb.spec().keys.first == 0 {
            After::LookUp
        } else {
            After::GoOn
        };
        let reply = match command {
            Command::Session(SessionCommand::Exec) => return self.exec(verb, out),
            Command::Session(SessionCommand::Info { sections }) => self.info(*sections, now),
            Command::Session(SessionCommand::Client(ClientCommand::List(filter))) => {
                self.list(filter, now)
            }
            Command::Session(command) => {
                let (reply, after) = self.on_connection(command, now);
                let telling = (verb, self.dialect, &mut self.tally);
                tell(&reply, telling, (self.shared.engine.budget(), 0), out);
                return if after == After::GoOn { done } else { after };
            }
            _ => {
                let place = &mut self.place;
                let wait = waker.map(|waker| Wait { place, waker });
                let engine = &self.shared.engine;
                let bytes = (reply_bytes_of(command) + out.copied_bytes()) as isize;
                if bytes > REPLY_BYTES_SMALL as isize
                    && !self.session.is_under_way()
                    && !engine.budget().admits_reply(bytes)
                {
                    self.tally.count_rejected(verb);
                    let error = Engine::no_room_for_reply();
                    self.dialect.encode(&Reply::Error(error), out);
                    return done;
                }
                if command.has_moment() {
                    self.shared.look_at_wall_clock();
                }
                let counted = self.session.copied_bytes();
                match engine.execute_slice(&mut self.session, command, wait, now) {
                    Executed::Told(reply) => {
                        self.place = None;
                        let telling = (verb, self.dialect, &mut self.tally);
                        tell(&reply, telling, (engine.budget(), counted), out);
                        return done;
                    }
                    Executed::Held => return After::Hold,
                    Executed::Unfinished => None,
                }
            }
        };
        let Some(reply) = reply else {
            return After::Unfinished;
        };
        let telling = (verb, self.dialect, &mut self.tally);
        tell(&reply, telling, (self.shared.engine.budget(), 0), out);
        done
    }

    /// Lets others know which namespace this connection is in.
    fn tell_namespace(&self) {
        self.info.set_namespace(self.session.namespace().name());
    }

    fn break_transaction(&mut self) {
        if let Some(transaction) = &mut self.transaction {
            transaction.give_up();
        }
    }
}

/// Encodes a reply if there is memory for it; else, where nothing was changed, a refusal. What a change
/// answers has its room from [before](reply_bytes_of), or is small; of what a slice before has copied, so many bytes are
/// counted.
fn tell(
    reply: &Reply<'_>,
    (verb, dialect, tally): (Verb, Dialect, &mut Tally),
    (budget, counted): (&Budget, usize),
    out: &mut Output,
) {
    let bytes = reply.bytes_max();
    if bytes > REPLY_BYTES_SMALL {
        let together = (bytes + out.copied_bytes()).saturating_sub(counted);
        if verb.spec().effect != Effect::Write && !budget.admits_reply(together as isize) {
            tally.count(verb, true);
            dialect.encode(&Reply::Error(Engine::no_room_for_reply()), out);
            return;
        }
        out.make_room(bytes);
    }
    tally.count(verb, matches!(reply, Reply::Error(_)));
    dialect.encode(reply, out);
}

/// Bytes that the reply of a change of many keys takes at most, where that is more than a few for each.
fn reply_bytes_of(command: &Command<'_>) -> usize {
    /// `N:` and a token, as an element of an array.
    const ITEM_BYTES: usize = 32;
    /// A refusal in the place of an answer.
    const REFUSAL_BYTES: usize = 128;
    match command {
        Command::MBegin { keys, .. } => keys.len() * ITEM_BYTES,
        Command::BfInsert(insert) => insert.items.len() * REFUSAL_BYTES,
        _ => 0,
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.shared.unregister(self.info.id);
    }
}
