//! The command model: what a client can ask, and what it is told.
//!
//! Both dialects decode into [`Command`] and encode from [`Reply`]. The set of commands is one
//! static table, [`spec`]: names, words, effects, help and build functions in one place. A
//! `Command` borrows from the read buffer; nothing is copied until a key is stored.
//!
//! - [`args`]: a request's words; [`containers`]: commands that are several; `keyword`: a name, folded to be compared fast
//! - [`spec`]: the table; its rows are in `spec/native.rs` and `spec/redis.rs`
//! - `native`, `records`, `redis`, `redis_sets`, `redis_values`, `redis_session`: how words become commands, in this protocol's manner and in Redis's
//! - [`scripts`]: those of lock libraries, and what they do; `lua`: when two texts are one script
//! - [`reply`]: answers and refusals

pub mod args;
pub mod containers;
mod keyword;
mod lua;
mod native;
mod records;
mod redis;
mod redis_session;
mod redis_sets;
mod redis_values;
pub mod reply;
pub mod scripts;
pub mod spec;

pub(crate) use native::printable;
pub(crate) use records::{token, too_big};
pub(crate) use redis::integer;
pub(crate) use redis_session::unknown_command;

pub use args::{Args, Span, Words};
pub use reply::{Code, Error, Reply};
pub use scripts::ScriptCommand;
pub use spec::{Spec, lookup_line, lookup_resp};

use crate::store::{Fingerprint, WindowMode};
use crate::time::Millis;

/// A life as a request names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ttl {
    /// The namespace's default.
    Default,
    /// This many milliseconds; beyond the namespace's maximum it is refused.
    Ms(u64),
}

/// When a key set through a Redis command shall end; beyond the namespace's maximum it is clamped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// The namespace's default.
    Default,
    /// What it is now.
    Keep,
    /// This many milliseconds from now.
    In(u64),
    /// At this moment.
    At(Millis),
    /// The namespace's longest life from now.
    Longest,
}

/// Why an amount is no expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadExpiry {
    /// It is no whole number of 64 bits.
    NotInteger,
    /// It is not positive, or its end is no such number of milliseconds.
    OutOfRange,
}

impl BadExpiry {
    /// The refusal of a command with it, whose name is in small letters.
    pub fn error(self, command: &str) -> Error {
        match self {
            Self::NotInteger => redis::not_integer(),
            Self::OutOfRange => {
                Error::redis(format!("ERR invalid expire time in '{command}' command"))
            }
        }
    }
}

/// `SEEN`.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The key.
    pub key: &'a [u8],
    /// Its life.
    pub ttl: Ttl,
    /// What a repeat does; the namespace's mode if absent.
    pub mode: Option<WindowMode>,
    /// The payload's fingerprint.
    pub fingerprint: Option<Fingerprint>,
    /// The event's own time.
    pub event_at: Option<Millis>,
    /// The namespace; the connection's if absent.
    pub namespace: Option<&'a [u8]>,
}

/// One key in one namespace.
#[derive(Clone, Copy, Debug)]
pub struct Single<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The namespace; the connection's if absent.
    pub namespace: Option<&'a [u8]>,
}

/// `BEGIN`.
#[derive(Clone, Copy, Debug)]
pub struct Begin<'a> {
    /// The key, and where.
    pub at: Single<'a>,
    /// How long nobody else is told to run, in milliseconds.
    pub lease_ms: u64,
    /// How long the record lives once it is settled, or given up.
    pub ttl: Ttl,
    /// The payload's fingerprint.
    pub fingerprint: Option<Fingerprint>,
    /// Who begins.
    pub owner: Option<&'a [u8]>,
    /// How long the reply may be held while another is at work, in milliseconds.
    pub wait_ms: u64,
}

/// `COMPLETE`, and `FAIL … FINAL`.
#[derive(Clone, Copy, Debug)]
pub struct Complete<'a> {
    /// The key, and where.
    pub at: Single<'a>,
    /// Proves whose work it was.
    pub token: u64,
    /// Whether it failed.
    pub is_failure: bool,
    /// What is said of it.
    pub code: u32,
    /// What is left for those who ask later.
    pub body: &'a [u8],
    /// How long that is kept; as `BEGIN` said if absent.
    pub ttl: Option<Ttl>,
    /// The payload's fingerprint.
    pub fingerprint: Option<Fingerprint>,
    /// Whether a record that is not there any more is made.
    pub adopts: bool,
}

/// Whether `SET` goes ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetIf<'a> {
    /// Always.
    Always,
    /// The key is not there.
    Absent,
    /// The key is there.
    Present,
    /// The key's value is this.
    Equals(&'a [u8]),
}

/// How `SET` and its relatives answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetAnswer {
    /// `OK`, or nil if the condition did not hold.
    OkOrNil,
    /// The value before, or nil.
    Before,
    /// 1, or 0 if the condition did not hold.
    Number,
}

/// `SET` and its relatives.
#[derive(Clone, Copy, Debug)]
pub struct Set<'a> {
    /// The key.
    pub key: &'a [u8],
    /// Its value.
    pub value: &'a [u8],
    /// When it ends.
    pub expiry: Expiry,
    /// Whether it goes ahead.
    pub condition: SetIf<'a>,
    /// How it answers.
    pub answer: SetAnswer,
}

/// The value of a key for which none is stored.
pub const MARKER_VALUE: &[u8] = b"1";

/// A value as it is stored; `None` if it is the one that every key has without.
pub fn stored_value(value: &[u8]) -> Option<&[u8]> {
    (value != MARKER_VALUE).then_some(value)
}

/// When `EXPIRE` and its relatives go ahead: if all holds that is asked for. Every key here has an end; a set may
/// have none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "four options, each there or not"
)]
pub struct ExpireIf {
    /// There is no end (`NX`).
    pub without_end: bool,
    /// There is one (`XX`).
    pub with_end: bool,
    /// The new end is later (`GT`).
    pub later: bool,
    /// The new end is earlier (`LT`).
    pub earlier: bool,
}

impl ExpireIf {
    /// Whether the end may move from `held` to `to`.
    pub fn holds(self, held: Option<Millis>, to: Millis) -> bool {
        match held {
            None => !self.with_end && !self.later,
            Some(held) => {
                !self.without_end && (!self.later || to > held) && (!self.earlier || to < held)
            }
        }
    }
}

/// How the time that is left is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TtlForm {
    /// Seconds left, rounded.
    Seconds,
    /// Milliseconds left.
    Millis,
    /// The end in Unix seconds.
    AtSeconds,
    /// The end in Unix milliseconds.
    AtMillis,
}

/// What `NS SET` changes; what is absent stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PolicyChange {
    /// The life of keys that name none, in milliseconds.
    pub ttl_ms: Option<u64>,
    /// The longest life, in milliseconds.
    pub ttl_max_ms: Option<u64>,
    /// What a repeat does to a window.
    pub mode: Option<WindowMode>,
    /// How many keys; 0 is without end.
    pub keys_max: Option<u64>,
    /// Whether keys are evicted when there is no room.
    pub evict: Option<bool>,
    /// Whether only a digest is kept of keys that do not fit 16 bytes.
    pub keeps_digests: Option<bool>,
    /// Whether an answer that is unsure is told as that.
    pub reports_unsure: Option<bool>,
}

/// `SCAN`.
#[derive(Clone, Copy, Debug)]
pub struct Scan<'a> {
    /// Where the last call said to go on; 0 at first.
    pub cursor: u64,
    /// Only keys that match this glob.
    pub pattern: Option<&'a [u8]>,
    /// About how many places to look at.
    pub count: u32,
    /// Only keys of this type; all are `string`.
    pub kind: Option<&'a [u8]>,
}

/// `BF.INSERT`, and `BF.MADD` with the defaults.
#[derive(Clone, Copy, Debug)]
pub struct BfInsert<'a> {
    /// The namespace that the filter's name stands for.
    pub namespace: &'a [u8],
    /// What to add.
    pub items: Words<'a>,
    /// Whether a namespace that is not there is made.
    pub create: bool,
    /// The most keys of a namespace that is made here.
    pub keys_max: Option<u64>,
}

/// What a client asks of the store.
#[derive(Clone, Copy, Debug)]
#[allow(
    missing_docs,
    reason = "each variant is the verb of its name; spec says what it does"
)]
pub enum Command<'a> {
    // This protocol's own.
    Seen(Seen<'a>),
    MSeen {
        ttl: Ttl,
        keys: Words<'a>,
    },
    Peek {
        keys: Words<'a>,
    },
    Forget {
        keys: Words<'a>,
    },
    Touch {
        at: Single<'a>,
        ttl: Ttl,
        later_only: bool,
    },
    TtlLeft {
        at: Single<'a>,
    },
    Inspect {
        at: Single<'a>,
    },
    Begin(Begin<'a>),
    Renew {
        at: Single<'a>,
        token: u64,
        /// As long as the one before if absent.
        lease_ms: Option<u64>,
    },
    Complete(Complete<'a>),
    FailRetry {
        at: Single<'a>,
        token: u64,
    },
    WaitFor {
        at: Single<'a>,
        timeout_ms: u64,
    },
    MBegin {
        ttl: Ttl,
        lease_ms: u64,
        keys: Words<'a>,
    },
    /// `MCOMPLETE`, or `MFAIL` if they are to be tried again.
    MEnd {
        /// Keys, each with its token behind it.
        pairs: Words<'a>,
        is_failure: bool,
    },
    Use {
        name: &'a [u8],
    },
    NsList,
    NsInfo {
        name: &'a [u8],
    },
    NsSet {
        name: &'a [u8],
        change: PolicyChange,
        /// Whether its memory is declared complete.
        covered: bool,
    },
    NsPurge {
        name: &'a [u8],
        /// Whether records in progress go as well.
        force: bool,
    },
    NsDrop {
        name: &'a [u8],
        /// Whether records in progress are no hindrance.
        force: bool,
    },
    Stats {
        name: Option<&'a [u8]>,
    },
    UnixMs,
    Version,
    Help {
        verb: Option<&'a [u8]>,
    },

    // Redis's.
    Set(Set<'a>),
    Get {
        key: &'a [u8],
    },
    GetEx {
        key: &'a [u8],
        /// What is wrong with it is told only of a key that is there.
        expiry: Result<Expiry, BadExpiry>,
    },
    GetDel {
        key: &'a [u8],
    },
    DelIf {
        key: &'a [u8],
        equals: Option<&'a [u8]>,
    },
    MGet {
        keys: Words<'a>,
    },
    /// `MSET`.
    MSet {
        /// Keys, each with its value behind it.
        pairs: Words<'a>,
    },
    /// `MSETNX`.
    MSetNx {
        /// The same.
        pairs: Words<'a>,
    },
    /// `INCR` and its relatives.
    Add {
        key: &'a [u8],
        /// What is added to the number that is the key's value.
        amount: i64,
    },
    /// `DEL` and `UNLINK`: as `Forget`, and sets too.
    Del {
        keys: Words<'a>,
    },
    Exists {
        keys: Words<'a>,
    },
    Type {
        key: &'a [u8],
    },
    StrLen {
        key: &'a [u8],
    },
    TtlOf {
        key: &'a [u8],
        form: TtlForm,
    },
    FactOf {
        key: &'a [u8],
        fact: Fact,
    },
    Expire {
        key: &'a [u8],
        expiry: Expiry,
        condition: ExpireIf,
    },
    BfAdd {
        namespace: &'a [u8],
        item: &'a [u8],
    },
    BfInsert(BfInsert<'a>),
    BfExists {
        namespace: &'a [u8],
        items: Words<'a>,
        single: bool,
    },
    BfReserve {
        namespace: &'a [u8],
        keys_max: Option<u64>,
    },
    BfCard {
        namespace: &'a [u8],
    },
    SAdd {
        set: &'a [u8],
        members: Words<'a>,
    },
    SRem {
        set: &'a [u8],
        members: Words<'a>,
    },
    SIsMember {
        set: &'a [u8],
        members: Words<'a>,
        single: bool,
    },
    SCard {
        set: &'a [u8],
    },
    SMembers {
        set: &'a [u8],
    },
    SScan {
        set: &'a [u8],
        scan: Scan<'a>,
    },
    BfInfo {
        namespace: &'a [u8],
        field: Option<&'a [u8]>,
    },
    /// `EVAL` and `EVALSHA`.
    Eval {
        script: scripts::Named<'a>,
        call: scripts::Call<'a>,
    },
    Script(ScriptCommand<'a>),
    DbSize,
    FlushDb,
    FlushAll,
    Scan(Scan<'a>),
    Keys {
        pattern: &'a [u8],
    },
    Time,
    Select {
        db: u64,
    },

    /// What concerns the connection or the process, not the store.
    Session(SessionCommand<'a>),
}

impl Command<'_> {
    /// Whether it names a moment, or asks for one.
    pub fn has_moment(&self) -> bool {
        match self {
            Self::Seen(seen) => seen.event_at.is_some(),
            Self::Set(set) => matches!(set.expiry, Expiry::At(_)),
            Self::GetEx { expiry, .. } => matches!(expiry, Ok(Expiry::At(_))),
            Self::Expire { expiry, .. } => matches!(expiry, Expiry::At(_)),
            Self::TtlOf { form, .. } => matches!(form, TtlForm::AtSeconds | TtlForm::AtMillis),
            Self::NsInfo { .. } | Self::Stats { .. } | Self::UnixMs | Self::Time => true,
            _ => false,
        }
    }
}

/// What a client asks of its connection or of the server around the store.
#[derive(Clone, Copy, Debug)]
#[allow(
    missing_docs,
    reason = "each variant is the verb of its name; spec says what it does"
)]
pub enum SessionCommand<'a> {
    Ping {
        word: Option<&'a [u8]>,
    },
    Echo {
        word: &'a [u8],
    },
    Quit,
    Reset,
    Auth {
        user: Option<&'a [u8]>,
    },
    Hello {
        version: Option<u8>,
        user: Option<&'a [u8]>,
        name: Option<&'a [u8]>,
    },
    /// `HELP` of a command that is several.
    Help(&'static containers::Container),
    Multi,
    Exec,
    Discard,
    Client(ClientCommand<'a>),
    Commands(CommandsQuery<'a>),
    ConfigGet {
        patterns: Words<'a>,
    },
    /// Names and values by turns.
    ConfigSet {
        pairs: Words<'a>,
    },
    Info {
        sections: Words<'a>,
    },
    WaitReplicas,
    /// What is the same for all who ask.
    Plain(Plain),
    /// All answered so far is to be durable before this is.
    Sync,
}

/// An answer to what there is not here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plain {
    /// Done, since there is nothing to do.
    Ok,
    /// None.
    Zero,
    /// An empty list.
    Nothing,
    /// An empty map.
    NoPairs,
    /// `ROLE`.
    Role,
    /// `LATENCY DOCTOR`.
    LatencyDoctor,
    /// `MEMORY DOCTOR`.
    MemoryDoctor,
}

/// What `OBJECT` and `MEMORY USAGE` tell of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact {
    /// How Redis would store its value.
    Encoding,
    /// How long it was not asked for, which nobody counts.
    IdleTime,
    /// How often it is asked for, which nobody counts.
    Frequency,
    /// How many share its value.
    References,
    /// Bytes that it takes, about.
    Memory,
}

/// `CLIENT`.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "each variant is the subcommand of its name")]
pub enum ClientCommand<'a> {
    Id,
    GetName,
    SetName(&'a [u8]),
    SetInfo { library: bool, value: &'a [u8] },
    Info,
    List(ClientFilter<'a>),
    Kill(ClientFilter<'a>),
    NoEvict,
    NoTouch,
    ReplyOn,
    ReplyOff,
    ReplySkip,
}

/// Which connections a request concerns: those that are all that is named here.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClientFilter<'a> {
    /// One of these numbers; each of them is one.
    pub ids: Option<Words<'a>>,
    /// Whether it is none, since no client of that type exists here: all are `normal`.
    pub never: bool,
    /// The other side's address.
    pub address: Option<&'a [u8]>,
    /// This side's address.
    pub local_address: Option<&'a [u8]>,
    /// Connected for at least so many seconds.
    pub age_s_min: Option<u64>,
    /// Not the one that asks.
    pub skips_me: bool,
    /// By its address alone, as Redis had it at first: whether there is such a client is the answer.
    pub is_one: bool,
}

/// `COMMAND`.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "each variant is the subcommand of its name")]
pub enum CommandsQuery<'a> {
    Count,
    List,
    Info(Words<'a>),
    Docs(Words<'a>),
}
