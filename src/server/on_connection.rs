//! The commands on a connection and on the server around the store: `HELLO`, `CLIENT`, `INFO` and their like.

use super::client::{After, Client, ReplyMode};
use super::transaction::Transaction;
use super::{catalog, info, settings};
use crate::command::{ClientCommand, ClientFilter, Code, Error, Reply, SessionCommand, Words};
use crate::store::Counters;
use crate::time::Millis;
use crate::wire::Dialect;

impl Client {
    /// A slice of `INFO`: what it tells of keys, all namespaces are asked for.
    pub(super) fn info(&mut self, sections: Words<'_>, now: Millis) -> Option<Reply<'static>> {
        // While the log is read, nobody can tell what became of keys.
        let counters = if info::needs_counters(sections) && !self.shared.is_loading() {
            let engine = &self.shared.engine;
            engine.totals_slice(&mut self.session)?.counters
        } else {
            Counters::default()
        };
        let moment = info::Moment { now, counters };
        Some(info::info(&self.shared, sections, &moment))
    }

    /// A slice of `CLIENT LIST`.
    pub(super) fn list(
        &mut self,
        filter: &ClientFilter<'_>,
        now: Millis,
    ) -> Option<Reply<'static>> {
        let shared = &self.shared;
        let listing = self
            .listing
            .get_or_insert_with(|| shared.listing(filter, now));
        if !listing.go_on(now) {
            return None;
        }
        self.listing
            .take()
            .map(|listing| Reply::Lines(listing.into_lines()))
    }

    pub(super) fn on_connection<'a>(
        &mut self,
        command: &SessionCommand<'a>,
        now: Millis,
    ) -> (Reply<'a>, After) {
        let reply = match *command {
            SessionCommand::Ping { word: None } => Reply::Word("PONG"),
            SessionCommand::Ping { word: Some(word) } | SessionCommand::Echo { word } => {
                Reply::Text(word.into())
            }
            SessionCommand::Quit => {
                let goodbye = if self.dialect == Dialect::Line {
                    "BYE"
                } else {
                    "OK"
                };
                return (Reply::Word(goodbye), After::Close);
            }
            SessionCommand::Reset => self.reset(),
            SessionCommand::Auth { user } => match authenticated(user) {
                Ok(()) => Reply::OK,
                Err(error) => error.into(),
            },
            SessionCommand::Hello {
                version,
                user,
                name,
            } => match user.map_or(Ok(()), |user| authenticated(Some(user))) {
                Ok(()) => self.hello(version, name),
                Err(error) => error.into(),
            },
            SessionCommand::Help(container) => catalog::help(container),
            SessionCommand::Multi if self.transaction.is_some() => {
                Error::redis("ERR MULTI calls can not be nested").into()
            }
            SessionCommand::Multi => {
                self.transaction = Some(Transaction::default());
                Reply::OK
            }
            SessionCommand::Discard => match self.transaction.take() {
                Some(_) => Reply::OK,
                None => Error::redis("ERR DISCARD without MULTI").into(),
            },
            SessionCommand::Client(ref command) => return self.client(command, now),
            SessionCommand::Commands(ref query) => catalog::commands(query),
            SessionCommand::ConfigGet { patterns } => settings::config(&self.shared, patterns),
            SessionCommand::ConfigSet { pairs } => settings::set(&self.shared, pairs),
            // What takes slices is executed before.
            SessionCommand::Exec | SessionCommand::Info { .. } => Reply::Nil,
            SessionCommand::WaitReplicas => Reply::Number(0),
            SessionCommand::Plain(plain) => info::plain(plain),
            SessionCommand::Sync if self.shared.engine.log().is_none() => {
                let text = "there is no log: start the server with --data-dir";
                Error::new(Code::NoLog, text).into()
            }
            // Nothing will be synced, or not soon, that is not yet.
            SessionCommand::Sync if self.shared.has_doubts() => self.shared.engine.doubt().into(),
            SessionCommand::Sync => {
                self.wants_sync = true;
                Reply::OK
            }
        };
        (reply, After::GoOn)
    }

    fn reset<'a>(&mut self) -> Reply<'a> {
        self.transaction = None;
        self.replies = ReplyMode::On;
        self.shared.engine.reset(&mut self.session);
        self.info.set_namespace(self.session.namespace().name());
        self.info.set_name(b"");
        if self.dialect != Dialect::Line {
            self.dialect = Dialect::Resp(2);
        }
        Reply::Word("RESET")
    }

    fn hello<'a>(&mut self, version: Option<u8>, name: Option<&[u8]>) -> Reply<'a> {
        let version = match (version, self.dialect) {
            (Some(version), _) | (None, Dialect::Resp(version)) => version,
            (None, Dialect::Line) => 2,
        };
        self.dialect = Dialect::Resp(version);
        if let Some(name) = name {
            self.info.set_name(name);
        }
        info::hello(version, self.info.id)
    }

    /// Ends connections. The one that asks is told so before it ends.
    fn kill<'a>(&self, filter: &ClientFilter<'_>, now: Millis) -> (Reply<'a>, After) {
        let clients = self.shared.clients(filter, (self.info.id, now));
        let mut after = After::GoOn;
        for client in &clients {
            if client.id == self.info.id {
                after = After::Close;
            } else {
                client.kill();
            }
        }
        let reply = match clients.len() {
            0 if filter.is_one => Error::redis("ERR No such client").into(),
            _ if filter.is_one => Reply::OK,
            count => Reply::Number(count as i64),
        };
        (reply, after)
    }

    fn client<'a>(&mut self, command: &ClientCommand<'_>, now: Millis) -> (Reply<'a>, After) {
        let reply = match *command {
            ClientCommand::Id => Reply::Number(self.info.id as i64),
            ClientCommand::GetName => match self.info.name() {
                name if name.is_empty() => Reply::Nil,
                name => Reply::text(name),
            },
            ClientCommand::SetName(name) => {
                self.info.set_name(name);
                Reply::OK
            }
            ClientCommand::SetInfo { library, value } => {
                self.info.set_library(library, value);
                Reply::OK
            }
            ClientCommand::Info => Reply::Lines(self.info.line(now) + "\n"),
            // It takes slices, and is executed before.
            ClientCommand::List(_) => Reply::Nil,
            ClientCommand::Kill(ref filter) => return self.kill(filter, now),
            ClientCommand::NoEvict | ClientCommand::NoTouch => Reply::OK,
            ClientCommand::ReplyOn => {
                self.replies = ReplyMode::On;
                Reply::OK
            }
            ClientCommand::ReplyOff => {
                self.replies = ReplyMode::Off;
                Reply::OK
            }
            ClientCommand::ReplySkip => {
                if self.replies == ReplyMode::On {
                    self.replies = ReplyMode::Skip;
                }
                Reply::OK
            }
        };
        (reply, After::GoOn)
    }
}

/// Whether the named user may enter; where no password is set, `default` may with any.
fn authenticated(user: Option<&[u8]>) -> Result<(), Error> {
    match user {
        Some(b"default") => Ok(()),
        Some(_) => Err(Error::redis(
            "WRONGPASS invalid username-password pair or user is disabled.",
        )),
        None => Err(Error::redis(
            "ERR AUTH <password> called without any password configured for the default user. \
             Are you sure your configuration is correct?",
        )),
    }
}
