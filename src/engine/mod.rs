//! The embedded, thread-safe store: shards behind locks, namespaces, and commands executed on them.
//!
//! An [`Engine`] is shared by all threads; each caller keeps a [`Session`] (its namespace and a
//! scratch buffer) and passes the present in. One command is executed under one shard lock per
//! key; no lock is held when `execute` returns.
//!
//! - [`namespace`]: policy, shards, one key's way to its shard
//! - [`batch`]: many questions at once
//! - [`budget`]: the memory that keys and buffers share
//! - `keys`: the commands on keys of this protocol; `values`: Redis's; `numbers`: `INCR`; `msets`: `MSET`; `facts`: what
//!   Redis's tell about a key
//! - `spaces`: the commands on namespaces; `sets`: Redis's sets, which are some
//! - `records`: the commands on idempotency records; `tokens`: what proves who does the work; [`waiters`]:
//!   who waits for what comes of it
//! - `scripts`: those of lock libraries
//! - `report`: `STATS`, `NS INFO`, `HELP`
//! - `journal`: changes on their way to the log; `restore`: from a log to memory
//! - `session`: one caller's namespace
//! - `sweep`: giving memory back
//! - `slice`: what takes long, a slice at a time
//! - [`glob`]: Redis's patterns
//!
//! Not here: sockets, clocks, and the commands of a connection (`SessionCommand`).
//!
//! ```
//! use onced::engine::{Engine, EngineConfig};
//! use onced::store::{Ask, Verdict};
//! use onced::time::Millis;
//!
//! let engine = Engine::new(EngineConfig::default());
//! let orders = engine.open("orders").unwrap();
//! let ask = Ask { ttl_ms: 60_000, ..Ask::default() };
//! assert_eq!(engine.seen(&orders, b"order-17", &ask, Millis(0)), Verdict::New);
//! assert_eq!(engine.seen(&orders, b"order-17", &ask, Millis(1)), Verdict::Dup);
//! ```

pub mod batch;
pub mod budget;
mod facts;
pub mod glob;
mod journal;
mod keys;
mod msets;
pub mod namespace;
mod numbers;
mod records;
mod report;
mod restore;
mod scripts;
mod session;
mod sets;
mod slice;
mod spaces;
mod sweep;
mod tokens;
mod values;
pub mod waiters;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use dashmap::DashMap;
use parking_lot::Mutex;

use batch::SHARDS_MAX;
pub use batch::{BATCH_MAX, Question};
pub use budget::Budget;
use journal::Refused;
pub use journal::largest_frame;
use namespace::{Garbage, LogSlot};
pub use namespace::{Namespace, Policy};
pub use records::Wait;
pub use restore::{Excess, Progress, Restored};
use scripts::KnownTexts;
pub use session::Session;
pub use slice::Executed;
use slice::Progress as Unfinished;
use sweep::{Moving, Round};
use tokens::Tokens;
use waiters::Waiters;

use crate::command::{Begin, Code, Command, Complete, Error, PolicyChange, Reply, Seen, Single};
use crate::limits::Limits;
use crate::log::writer::{Health, Log};
use crate::metrics::Metrics;
use crate::store::{Ask, Denial, Key, Secret, Verdict};
use crate::time::Millis;

/// The namespace that is always there.
pub const DEFAULT_NAMESPACE: &str = "default";

/// What an engine is made of.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Bounds.
    pub limits: Limits,
    /// Bytes that keys and buffers may take together.
    pub memory_bytes_max: usize,
    /// Shards per namespace; rounded up to a power of two, at most 256.
    pub shards: usize,
    /// Whether namespaces are made when they are first named.
    pub create_namespaces: bool,
    /// Namespaces that are there from the start, with what differs from the default policy.
    pub namespaces: Vec<(String, PolicyChange)>,
    /// How many threads count calls.
    pub workers: usize,
    /// Keeps outsiders from steering keys into one shard or slot, or to one digest: random bytes.
    pub secret: Secret,
    /// The moment from which on no key was lost: that of the start, where what came before it was
    /// forgotten; 0 if nothing was, which is the default.
    pub covered_since: Millis,
    /// When this run began: no later one gives a token of this one again, and no earlier one did. 0 by
    /// default, for who gives none or does not mind.
    pub started: Millis,
}

impl Default for EngineConfig {
    /// Unbounded memory, 16 shards, one worker, and a secret that is none: choose a random one
    /// where keys come from strangers.
    fn default() -> Self {
        Self {
            limits: Limits::DEFAULT,
            memory_bytes_max: isize::MAX.unsigned_abs(),
            shards: 16,
            create_namespaces: true,
            namespaces: Vec::new(),
            workers: 1,
            secret: Secret::new([0x6f; crate::store::key::SECRET_BYTES]),
            covered_since: Millis(0),
            started: Millis(0),
        }
    }
}

/// The store that all connections share.
#[derive(Debug)]
pub struct Engine {
    namespaces: DashMap<Box<str>, Arc<Namespace>>,
    default: Arc<Namespace>,
    /// Makes the check against `namespaces_max` and the insertion one step.
    making: Mutex<()>,
    /// Emptied shards, dropped by [`Engine::sweep`] where nobody waits for it.
    garbage: Garbage,
    /// What [`Engine::sweep`] has come to.
    round: Mutex<Round>,
    /// What [`Engine::move_some_together`] has come to.
    moving: Mutex<Moving>,
    secret: Secret,
    limits: Limits,
    shards: usize,
    create_namespaces: bool,
    /// How far the wall clock is ahead.
    wall_ahead_ms: AtomicI64,
    /// What a namespace that is made has as its own: it may have been there before the start, or
    /// have been dropped since. Changed by who holds `making`.
    covered_since: AtomicU64,
    budget: Arc<Budget>,
    metrics: Metrics,
    log: LogSlot,
    tokens: Tokens,
    waiters: Arc<Waiters>,
    /// The scripts that were sent.
    texts: KnownTexts,
    /// What the configuration says of namespaces; it goes over what a log says.
    configured: Vec<(String, PolicyChange)>,
}

impl Engine {
    /// An engine with its first namespaces.
    ///
    /// # Panics
    ///
    /// If the policy of a configured namespace contradicts itself; `config` checks that first.
    pub fn new(config: EngineConfig) -> Self {
        let budget = Arc::new(Budget::new(config.memory_bytes_max));
        let log = LogSlot::default();
        let shards = config.shards.clamp(1, SHARDS_MAX).next_power_of_two();
        let policy = Policy::default_of(&config.limits);
        let keeps_digests = |change: &PolicyChange| change.keeps_digests.unwrap_or(false);
        let default_keeps_digests = config
            .namespaces
            .iter()
            .any(|(name, change)| name == DEFAULT_NAMESPACE && keeps_digests(change));
        let default = Arc::new(Namespace::new(
            DEFAULT_NAMESPACE,
            shards,
            &policy,
            default_keeps_digests,
            Arc::clone(&budget),
            Arc::clone(&log),
        ));
        let mut engine = Self {
            namespaces: DashMap::new(),
            default: Arc::clone(&default),
            making: Mutex::new(()),
            garbage: Garbage::default(),
            round: Mutex::new(Round::default()),
            moving: Mutex::new(Moving::default()),
            secret: config.secret,
            shards,
            create_namespaces: config.create_namespaces,
            wall_ahead_ms: AtomicI64::new(0),
            covered_since: AtomicU64::new(config.covered_since.0),
            budget,
            metrics: Metrics::new(config.workers),
            limits: config.limits,
            log,
            tokens: Tokens::starting(config.started),
            waiters: Arc::default(),
            texts: KnownTexts::default(),
            configured: Vec::new(),
        };
        engine.default.set_covered_since(config.covered_since);
        engine.namespaces.insert(DEFAULT_NAMESPACE.into(), default);
        for (name, change) in &config.namespaces {
            let namespace = match engine.find(name) {
                Some(found) => found,
                None => engine
                    .add(name, &policy, keeps_digests(change), false)
                    .expect("config checks how many namespaces there are"),
            };
            let _there_is_no_log_yet = namespace
                .change_policy(change, false)
                .expect("config checks the policies");
        }
        engine.configured = config.namespaces;
        engine
    }

    /// The bounds.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Says how far the wall clock, by which clients name moments and are told them, is ahead of the clock that
    /// tells the engine the present, in milliseconds; behind where that is negative.
    ///
    /// False if that is not `known_ms` any more, as it was last [told](Self::wall_ahead_ms): then nothing is changed.
    pub fn set_wall_ahead(&self, known_ms: i64, ms: i64) -> bool {
        let (success, failure) = (Ordering::Relaxed, Ordering::Relaxed);
        let changed = self
            .wall_ahead_ms
            .compare_exchange(known_ms, ms, success, failure);
        changed.is_ok()
    }

    /// What was said so; 0 at first.
    pub fn wall_ahead_ms(&self) -> i64 {
        self.wall_ahead_ms.load(Ordering::Relaxed)
    }

    /// A moment that a client named.
    fn by_server_clock(&self, moment: Millis) -> Millis {
        moment.shifted(self.wall_ahead_ms().saturating_neg())
    }

    /// A moment as a client is told it; 0 is no moment.
    pub(crate) fn by_wall_clock(&self, moment: Millis) -> Millis {
        match moment {
            Millis(0) => moment,
            _ => moment.shifted(self.wall_ahead_ms()),
        }
    }

    /// The memory that keys and buffers share.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// What is counted about the server around the store.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The moment from which on no key of a namespace that is not there was lost; what one that is
    /// made now gets as its own.
    pub fn covered_since(&self) -> Millis {
        Millis(self.covered_since.load(Ordering::Relaxed))
    }

    /// Says from when on no key of a namespace that is not there was lost.
    pub fn set_covered_since(&self, at: Millis) {
        self.covered_since.store(at.0, Ordering::Relaxed);
    }

    /// The log, if there is one.
    #[inline]
    pub fn log(&self) -> Option<&Arc<Log>> {
        self.log.get()
    }

    /// Why a change was refused that would have been made if there were room: the bound that is reached, and whose.
    pub(crate) fn no_room(&self, namespace: &Namespace) -> Error {
        let is_bad = |log: &Arc<Log>| log.health() != Health::Good;
        let denial = namespace.last_denial();
        if denial == Denial::Disk || self.log().is_some_and(is_bad) {
            return self.no_frame(namespace);
        }
        let name = namespace.name();
        let text = match denial {
            Denial::Keys => {
                let max = namespace.policy().keys_max;
                format!("no room: namespace '{name}' has its MAXKEYS of {max}; nothing was stored")
            }
            Denial::Memory | Denial::Closed | Denial::Disk => {
                let max = self.budget.max();
                format!(
                    "no room: max-memory of {max} bytes is reached; nothing was stored in namespace '{name}'"
                )
            }
        };
        Error::new(Code::Full, text)
    }

    /// Why the log takes no change that is to be there as a whole.
    pub(crate) fn no_frame(&self, namespace: &Namespace) -> Error {
        if self.log().is_some_and(|log| log.health() != Health::Good) {
            return self.refusal(Refused);
        }
        let name = namespace.name();
        Error::new(
            Code::Full,
            format!(
                "no room: it is too large for a segment of the log; nothing was stored in namespace '{name}'"
            ),
        )
    }

    /// The same for a request of many parts, some of which were done before there was none.
    fn no_room_after(&self, namespace: &Namespace, how_far: HowFar) -> Error {
        let is_good = |log: &Arc<Log>| log.health() == Health::Good;
        if how_far.done == 0 {
            self.no_room(namespace)
        } else if self.log().is_none_or(is_good) {
            Error::new(Code::Full, format!("no room for more; {how_far}"))
        } else {
            self.refusal_after(Refused, how_far)
        }
    }

    /// Why nobody is told to run who would be if there were room, and a token to give.
    pub(crate) fn no_grant(&self, namespace: &Namespace) -> Error {
        if self.tokens.are_spent() {
            return Error::new(
                Code::Full,
                "no token is left that was never given: set the clock, if it is ahead, and start again; nothing was changed",
            );
        }
        self.no_room(namespace)
    }

    /// Why a reply is not made that there is no memory for.
    pub(crate) fn no_room_for_reply() -> Error {
        let text = "no memory for this reply; nothing was changed: ask for less, or later";
        Error::new(Code::Full, text)
    }

    /// Why nothing is told of a key, or no reply is given that was held back: it rests on a change that may last
    /// or not.
    pub(crate) fn doubt(&self) -> Error {
        match self.log().map(|log| log.health()) {
            Some(Health::Failed) => read_only(),
            _ => Error::new(
                Code::ReadOnly,
                "no space on the disk to write what was under way, which may or may not have happened; that is known, and changes are taken again, once there is space",
            ),
        }
    }

    /// Why the log takes no change.
    fn refusal(&self, refused: Refused) -> Error {
        self.refusal_after(refused, HowFar::NOTHING)
    }

    /// The same for a request of many parts, some of which were done before one was refused: whoever is
    /// told that nothing was changed relies on it.
    fn refusal_after(&self, _: Refused, how_far: HowFar) -> Error {
        match self.log().map(|log| log.health()) {
            Some(Health::Failed) => read_only(),
            _ => Error::new(
                Code::Full,
                format!("no space on the disk for the log; {how_far}"),
            ),
        }
    }

    /// A new caller's place, in the default namespace.
    pub fn session(&self) -> Session {
        Session::new(&self.default)
    }

    /// Puts a session back into the default namespace.
    pub fn reset(&self, session: &mut Session) {
        session.namespace.choose(Arc::clone(&self.default));
    }

    /// The namespace of this name; made if it is not there and may be.
    pub fn open(&self, name: &str) -> Result<Arc<Namespace>, Error> {
        match self.namespaces.get(name) {
            Some(found) => Ok(Arc::clone(&found)),
            None if self.create_namespaces => self.make(name),
            None => Err(self.no_such(name)),
        }
    }

    /// The namespace of this name, if it is there.
    pub fn find(&self, name: &str) -> Option<Arc<Namespace>> {
        self.namespaces.get(name).map(|found| Arc::clone(&found))
    }

    /// Asks whether a key is there for the first time in its window, and remembers it.
    pub fn seen(&self, namespace: &Namespace, key: &[u8], ask: &Ask<'_>, now: Millis) -> Verdict {
        let kept = namespace.key(&self.secret, key);
        let policy = namespace.policy();
        let verdict = namespace.write(&kept, ask.value, &policy, |shard, room| {
            shard.seen(&kept, ask, room, now)
        });
        if verdict == Verdict::Full
            && let Some(next) = self.successor(namespace)
        {
            return self.seen(&next, key, ask, now);
        }
        policy.told(verdict)
    }

    /// Executes a command on the store.
    ///
    /// `Command::Session` is the caller's own business and answered with an error here.
    pub fn execute<'s>(
        &self,
        session: &'s mut Session,
        command: &Command<'_>,
        now: Millis,
    ) -> Reply<'s> {
        let reply = self.execute_whole(session, command, None, now);
        debug_assert!(reply.is_some(), "only who has a way to wait is made to");
        reply.unwrap_or(Reply::Nil)
    }

    /// Brings a namespace that was dropped back for a command that needs it, not for one that looks at others.
    fn find_its_namespace(
        &self,
        session: &mut Session,
        command: &Command<'_>,
    ) -> Result<(), Error> {
        if session.namespace.is_dropped() && !names_its_namespace(command) {
            let again = self.open(session.namespace.name());
            // What was begun there cannot go on, and is not for the next command.
            let again = again.inspect_err(|_| session.progress = Unfinished::default())?;
            session.namespace.choose(again);
        }
        Ok(())
    }

    /// Whether a namespace is there from the start, whatever a log says.
    fn is_configured(&self, name: &str) -> bool {
        name == DEFAULT_NAMESPACE || self.configured.iter().any(|(other, _)| other == name)
    }

    fn all_namespaces(&self) -> Vec<Arc<Namespace>> {
        let entries = self.namespaces.iter();
        entries.map(|entry| Arc::clone(&entry)).collect()
    }

    fn no_such(&self, name: &str) -> Error {
        let text = if self.create_namespaces {
            format!("no namespace '{name}'; make it with NS SET {name}")
        } else {
            format!("no namespace '{name}', and this server makes none: create-namespaces is false")
        };
        Error::new(Code::NoNs, text)
    }

    fn make(&self, name: &str) -> Result<Arc<Namespace>, Error> {
        let _one_at_a_time = self.making.lock();
        if let Some(found) = self.find(name) {
            return Ok(found);
        }
        self.add(name, &Policy::default_of(&self.limits), false, false)
    }

    /// Makes a namespace that is not there, `covered` if it is not to be unsure of what was before; for who
    /// holds `making`.
    fn add(
        &self,
        name: &str,
        policy: &Policy,
        keeps_digests: bool,
        covered: bool,
    ) -> Result<Arc<Namespace>, Error> {
        if self.namespaces.len() >= self.limits.namespaces_max {
            let max = self.limits.namespaces_max;
            return Err(Error::new(
                Code::Full,
                format!("there are {max} namespaces, the most there may be"),
            ));
        }
        if !self
            .budget
            .admits(Namespace::own_bytes_of(self.shards) as isize)
        {
            return Err(Error::new(
                Code::Full,
                "no memory for another namespace; none was made",
            ));
        }
        let made = self.new_namespace(name, policy, keeps_digests);
        if covered {
            made.declare_covered();
        }
        self.put(made)
    }

    fn new_namespace(&self, name: &str, policy: &Policy, keeps_digests: bool) -> Namespace {
        let budget = Arc::clone(&self.budget);
        let log = Arc::clone(&self.log);
        let mut made = Namespace::new(name, self.shards, policy, keeps_digests, budget, log);
        made.count_itself();
        made.set_covered_since(self.covered_since());
        made
    }

    /// Lets a new namespace answer for its name.
    fn put(&self, made: Namespace) -> Result<Arc<Namespace>, Error> {
        made.log_birth().map_err(|refused| self.refusal(refused))?;
        let made = Arc::new(made);
        self.namespaces
            .insert(made.name().into(), Arc::clone(&made));
        Ok(made)
    }

    /// Makes an empty namespace anew with its keys in the other form.
    ///
    /// A request that is under way in the old one finds it closed and goes on in the new one, so
    /// that no key is stored where nobody will look for it.
    fn change_form(
        &self,
        old: &Namespace,
        policy: &Policy,
        keeps_digests: bool,
        covered: bool,
    ) -> Result<Arc<Namespace>, Error> {
        let name = old.name();
        if name == DEFAULT_NAMESPACE {
            return Err(Error::args(
                "KEYS of the default namespace is chosen in the configuration file",
            ));
        }
        if !old.close() {
            return Err(Error::range(format!(
                "namespace '{name}' has keys, whose form cannot change; NS PURGE {name} first"
            )));
        }
        let made = self.new_namespace(name, policy, keeps_digests);
        if covered {
            made.declare_covered();
        } else {
            made.reach_as(old);
        }
        made.be_set_as(old);
        // Where the log has no space for it, the old one goes on.
        let made = self.put(made).inspect_err(|_| old.reopen())?;
        old.mark_dropped();
        Ok(made)
    }

    /// Who answers for a namespace that was closed; `None` if it was not.
    fn successor(&self, closed: &Namespace) -> Option<Arc<Namespace>> {
        if !closed.is_closed() {
            return None;
        }
        // Whoever closed it holds this until the new one is there.
        drop(self.making.lock());
        self.open(closed.name()).ok()
    }
}

/// How far a request of many keys or namespaces came before it was refused.
#[derive(Clone, Copy, Debug)]
struct HowFar {
    /// Parts that were done.
    done: usize,
    /// Parts that there are.
    of: usize,
    /// What they are, and what became of those that were done.
    parts: &'static str,
}

impl HowFar {
    const NOTHING: Self = Self {
        done: 0,
        of: 0,
        parts: "",
    };
}

impl fmt::Display for HowFar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { done, of, parts } = self;
        match done {
            0 => f.write_str("nothing was changed"),
            _ => write!(f, "{done} of {of} {parts}, nothing else was changed"),
        }
    }
}

/// The refusal of a change after the log failed.
fn read_only() -> Error {
    Error::new(
        Code::ReadOnly,
        "the log failed, so no change is taken; what was under way may or may not have happened",
    )
}

/// Whether a command does not depend on the session's namespace.
fn names_its_namespace(command: &Command<'_>) -> bool {
    matches!(
        command,
        Command::Use { .. }
            | Command::Select { .. }
            | Command::NsList
            | Command::NsInfo { .. }
            | Command::NsSet { .. }
            | Command::NsPurge { .. }
            | Command::NsDrop { .. }
            | Command::Stats { .. }
            | Command::UnixMs
            | Command::Time
            | Command::Version
            | Command::Help { .. }
            | Command::Script(_)
            | Command::FlushAll
            | Command::BfAdd { .. }
            | Command::BfInsert(_)
            | Command::BfExists { .. }
            | Command::BfReserve { .. }
            | Command::BfCard { .. }
            | Command::BfInfo { .. }
            | Command::SAdd { .. }
            | Command::SRem { .. }
            | Command::SIsMember { .. }
            | Command::SCard { .. }
            | Command::SMembers { .. }
            | Command::SScan { .. }
            | Command::Seen(Seen {
                namespace: Some(_),
                ..
            })
            | Command::Touch {
                at: Single {
                    namespace: Some(_),
                    ..
                },
                ..
            }
            | Command::TtlLeft {
                at: Single {
                    namespace: Some(_),
                    ..
                },
            }
            | Command::Inspect {
                at: Single {
                    namespace: Some(_),
                    ..
                },
            }
            | Command::Begin(Begin {
                at: Single {
                    namespace: Some(_),
                    ..
                },
                ..
            })
            | Command::Complete(Complete {
                at: Single {
                    namespace: Some(_),
                    ..
                },
                ..
            })
            | Command::Renew {
                at: Single {
                    namespace: Some(_),
                    ..
                },
                ..
            }
            | Command::FailRetry {
                at: Single {
                    namespace: Some(_),
                    ..
                },
                ..
            }
            | Command::WaitFor {
                at: Single {
                    namespace: Some(_),
                    ..
                },
                ..
            }
    )
}

/// The engine at one moment: what the command files add their parts to.
#[derive(Clone, Copy)]
struct Here<'e> {
    engine: &'e Engine,
    now: Millis,
}

type Answer<'s> = Result<Reply<'s>, Error>;

impl Here<'_> {
    /// A key as the namespace keeps it.
    fn key<'a>(&'a self, namespace: &Namespace, bytes: &'a [u8]) -> Key<'a> {
        namespace.key(&self.engine.secret, bytes)
    }

    /// Executes a command that takes a moment; `None` where the reply is to be waited for, if there is a way.
    fn execute_at_once<'s>(
        &self,
        session: &'s mut Session,
        command: &Command<'_>,
        wait: Option<Wait<'_>>,
    ) -> Result<Option<Reply<'s>>, Error> {
        let mut wait = wait;
        match *command {
            Command::Begin(ref begin) => {
                self.within(&session.namespace, begin.at.namespace, |namespace| {
                    self.begin(namespace, begin, wait.as_mut())
                })
            }
            Command::WaitFor { at, timeout_ms } => {
                self.within(&session.namespace, at.namespace, |namespace| {
                    Ok(self.wait_for(namespace, at.key, timeout_ms, wait.as_mut()))
                })
            }
            _ => self.execute_one(session, command).map(Some),
        }
    }

    fn execute_one<'s>(&self, session: &'s mut Session, command: &Command<'_>) -> Answer<'s> {
        let here = &*session.namespace;
        match *command {
            Command::Renew {
                at,
                token,
                lease_ms,
            } => self.within(here, at.namespace, |namespace| {
                self.renew(namespace, at.key, token, lease_ms)
            }),
            Command::Complete(ref complete) => {
                self.within(here, complete.at.namespace, |namespace| {
                    self.complete(namespace, complete)
                })
            }
            Command::FailRetry { at, token } => self.within(here, at.namespace, |namespace| {
                self.fail_retry(namespace, at.key, token)
            }),

            Command::Seen(ref seen) => self.seen(here, seen),
            Command::Touch {
                ref at,
                ttl,
                later_only,
            } => self.touch(here, at, ttl, later_only),
            Command::TtlLeft { ref at } => self.ttl_left(here, at),
            Command::Inspect { ref at } => self.inspect(here, at),

            Command::Set(ref set) => self.set(here, set),
            Command::Get { key } => Ok(self.get(here, key)),
            Command::GetEx { key, expiry } => self.get_ex(here, key, expiry),
            Command::GetDel { key } => self.get_del(here, key),
            Command::DelIf { key, equals } => self.del_if(here, key, equals),
            Command::MSetNx { pairs } => self.msetnx(here, pairs),
            Command::Add { key, amount } => self.add(here, key, amount),
            Command::Type { key } => Ok(self.kind(here, key)),
            Command::StrLen { key } => Ok(self.strlen(here, key)),
            Command::TtlOf { key, form } => Ok(self.ttl_of(here, key, form)),
            Command::FactOf { key, fact } => self.fact_of(here, key, fact),
            Command::Eval { script, ref call } => self.eval(here, script, call),
            Command::Script(command) => self.script(command),
            Command::DbSize => Ok(Reply::Number(here.keys() as i64)),
            Command::Scan(ref scan) => Ok(self.scan(here, scan)),
            Command::SScan { set, ref scan } => Ok(self.sscan(set, scan)),
            Command::SCard { set } => Ok(self.scard(set)),

            Command::Session(_) => {
                Err(Error::new(Code::Unknown, "this command is not the store's"))
            }
            _ => self.execute_on_spaces(session, command),
        }
    }
}
