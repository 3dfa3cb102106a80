//! The idempotency record: who may do the work behind a key, and what came of it.
//!
//! A pure state machine. It is told the present and, where it needs one, a new token; what a request
//! does in each state is decided here and nowhere else, and [`super::Shard`] carries it out. A record
//! is in one of four states; a key that holds none is absent or a marker, a key that was only seen.
//!
//! ```text
//!              BEGIN                 COMPLETE
//!   (absent) --------->  running  ------------->  completed
//!                         ^   |  \
//!          BEGIN: a new   |   |   \  FAIL FINAL
//!          token, and an  |   |    +----------->  failed
//!          attempt more   |   |
//!                         |   | FAIL RETRY
//!                        released          and a running record whose lease has
//!                                          lapsed may be begun anew like a released one
//! ```
//!
//! Every state ends by itself: when the key's window does, the record is gone. A token is never
//! given twice, so of all who were ever told to run, only the last one can change the record.

use super::model::Fingerprint;
use crate::limits::LEASE_CEILING_MS;
use crate::time::Millis;

/// A record, borrowed from where it is kept or from the request that makes it so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The token that was given last; never 0.
    pub token: u64,
    /// How often the work was begun.
    pub attempt: u32,
    /// When it was begun first; never after its lease's end, whatever the clock did between two runs.
    pub began: Millis,
    /// The payload's fingerprint.
    pub fingerprint: Option<Fingerprint>,
    /// How far it has come.
    pub state: State<'a>,
}

/// How far a record has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State<'a> {
    /// The holder of the token may be at work.
    Running {
        /// The last millisecond in which nobody else may begin.
        lease_end: Millis,
        /// The lease's length, for a renewal that names none; in milliseconds.
        lease_ms: u64,
        /// Who began it, if that was said.
        owner: Option<&'a [u8]>,
    },
    /// The holder gave up: anybody may begin.
    Released,
    /// The work was done.
    Completed(Outcome<'a>),
    /// The work failed, and is not to be tried again.
    Failed(Outcome<'a>),
}

/// What came of the work, as its holder says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome<'a> {
    /// A number, such as an HTTP status.
    pub code: u32,
    /// Whatever is to be given to those who ask later.
    pub body: &'a [u8],
}

/// What a key holds.
#[derive(Clone, Copy, Debug)]
pub enum Held<'a> {
    /// Nothing: it is not there.
    Nothing,
    /// A marker, and the fingerprint it came with.
    Marker(Option<Fingerprint>),
    /// A record, and the last millisecond of its window.
    Record(Record<'a>, Millis),
}

/// The question of one `BEGIN`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Begin<'a> {
    /// How long nobody else may begin, in milliseconds.
    pub lease_ms: u64,
    /// How long the record lives after it was settled, or after its last lease, in milliseconds.
    pub ttl_ms: u64,
    /// Compared with the one that the key came with; absent on either side it matches.
    pub fingerprint: Option<Fingerprint>,
    /// Names this attempt, so that it is told its token again if it asks again.
    pub owner: Option<&'a [u8]>,
    /// Whether others wait who came earlier: then this one is not to run.
    pub is_behind_others: bool,
    /// Whether there is no token to give: then nobody is to run.
    pub lacks_token: bool,
}

/// What a `BEGIN` comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun<'a> {
    /// The work is to be done, under a new token.
    Run {
        /// The record, but for its token, which is 0.
        record: Record<'a>,
        /// The last millisecond of its window.
        deadline: Millis,
    },
    /// This owner was told to run already.
    Again {
        /// The token that it was given.
        token: u64,
        /// What is left of its lease.
        lease_ms: u64,
        /// Which attempt it is.
        attempt: u32,
        /// When the work was begun first.
        began: Millis,
    },
    /// Somebody else is at work, or is to be next.
    Busy {
        /// The last millisecond of that one's lease; the present, where there is none.
        lease_end: Millis,
        /// The token that was given last; 0 if none was.
        token: u64,
    },
    /// The key was only seen.
    Seen,
    /// The work was done.
    Completed(Outcome<'a>),
    /// The work failed for good.
    Failed(Outcome<'a>),
    /// The payload is another one.
    Mismatch,
}

/// What the holder of a token asks for, or the lack of a reason to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended<'a> {
    /// The record becomes this, until that moment.
    Becomes(Record<'a>, Millis),
    /// It is so already.
    AsItIs,
    /// Another token was given since, or the work was settled or given up.
    Stale,
    /// There is no record.
    Gone,
    /// The payload is another one.
    Mismatch,
}

/// The word of a holder that its work is settled.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settle<'a> {
    /// Whether it failed for good.
    pub is_failure: bool,
    /// What came of it.
    pub outcome: Outcome<'a>,
    /// How long that is kept from now, in milliseconds; as `BEGIN` said if absent.
    pub ttl_ms: Option<u64>,
    /// Compared with the record's, and kept if it has none.
    pub fingerprint: Option<Fingerprint>,
    /// With this many milliseconds to live, where `ttl_ms` says nothing, a record that is not there is
    /// made; absent, it is gone.
    pub adopt_ttl_ms: Option<u64>,
}

impl<'a> Record<'a> {
    /// Whether somebody may be at work whom nobody may take it from.
    pub fn is_leased(&self, now: Millis) -> bool {
        matches!(self.state, State::Running { lease_end, .. } if now <= lease_end)
    }

    /// Whether its holder has neither settled it nor given up.
    pub fn is_running(&self) -> bool {
        matches!(self.state, State::Running { .. })
    }

    /// The record and the last millisecond of its window, as they are to be loaded at a start.
    ///
    /// A lease that ends later than if it were granted now was granted by a clock that was ahead. No
    /// holder was promised more than the lease's length, so that is all that is left of it.
    #[must_use]
    pub fn loaded(self, deadline: Millis, now: Millis) -> (Self, Millis) {
        let State::Running {
            lease_end,
            lease_ms,
            owner,
        } = self.state
        else {
            return (self, deadline);
        };
        let latest = now.after(lease_ms.min(LEASE_CEILING_MS));
        if lease_end <= latest {
            return (self, deadline);
        }
        let state = State::Running {
            lease_end: latest,
            lease_ms,
            owner,
        };
        let record = Self {
            began: self.began.min(now),
            state,
            ..self
        };
        (record, latest.after(deadline.since(lease_end)))
    }

    /// What came of it, if it was settled.
    pub fn outcome(&self) -> Option<Outcome<'a>> {
        match self.state {
            State::Completed(outcome) | State::Failed(outcome) => Some(outcome),
            State::Running { .. } | State::Released => None,
        }
    }

    /// What is to become of its window once it is settled or begun: how long it lives after its lease.
    fn ttl_ms(&self, deadline: Millis) -> u64 {
        match self.state {
            State::Running { lease_end, .. } => deadline.since(lease_end),
            State::Released | State::Completed(_) | State::Failed(_) => 0,
        }
    }
}

impl<'a> Held<'a> {
    fn fingerprint(&self) -> Option<Fingerprint> {
        match self {
            Self::Nothing => None,
            Self::Marker(fingerprint) => *fingerprint,
            Self::Record(record, _) => record.fingerprint,
        }
    }

    fn mismatches(&self, asked: Option<Fingerprint>) -> bool {
        asked
            .zip(self.fingerprint())
            .is_some_and(|(asked, held)| asked != held)
    }

    /// `BEGIN`.
    pub fn begin(&self, ask: &Begin<'a>, now: Millis) -> Begun<'a> {
        if self.mismatches(ask.fingerprint) {
            return Begun::Mismatch;
        }
        let before = match *self {
            Self::Nothing => None,
            Self::Marker(_) => return Begun::Seen,
            Self::Record(record, _) => match record.state {
                State::Completed(outcome) => return Begun::Completed(outcome),
                State::Failed(outcome) => return Begun::Failed(outcome),
                State::Running {
                    lease_end, owner, ..
                } if now <= lease_end => {
                    if owner.is_some() && owner == ask.owner {
                        return Begun::Again {
                            token: record.token,
                            lease_ms: lease_end.since(now),
                            attempt: record.attempt,
                            began: record.began,
                        };
                    }
                    let token = record.token;
                    return Begun::Busy { lease_end, token };
                }
                State::Running { .. } | State::Released => Some(record),
            },
        };
        if ask.is_behind_others {
            return Begun::Busy {
                lease_end: now,
                token: before.map_or(0, |before| before.token),
            };
        }
        let lease_end = now.after(ask.lease_ms);
        let record = Record {
            token: 0,
            attempt: before.map_or(0, |before| before.attempt).saturating_add(1),
            began: before.map_or(now, |before| before.began.min(now)),
            fingerprint: self.fingerprint().or(ask.fingerprint),
            state: State::Running {
                lease_end,
                lease_ms: ask.lease_ms,
                owner: ask.owner,
            },
        };
        Begun::Run {
            record,
            deadline: lease_end.after(ask.ttl_ms),
        }
    }

    /// The record of this token; else why there is none.
    fn of_token(&self, token: u64) -> Result<(Record<'a>, Millis), Ended<'a>> {
        match *self {
            Self::Nothing | Self::Marker(_) => Err(Ended::Gone),
            Self::Record(record, deadline) if record.token == token => Ok((record, deadline)),
            Self::Record(..) => Err(Ended::Stale),
        }
    }

    /// `RENEW`: a lapsed lease too, as long as nobody has taken the work over.
    pub fn renew(&self, token: u64, lease_ms: Option<u64>, now: Millis) -> Ended<'a> {
        let (record, deadline) = match self.of_token(token) {
            Ok(found) => found,
            Err(ended) => return ended,
        };
        let State::Running {
            lease_ms: before,
            owner,
            ..
        } = record.state
        else {
            return Ended::Stale;
        };
        let lease_ms = lease_ms.unwrap_or(before);
        let lease_end = now.after(lease_ms);
        let state = State::Running {
            lease_end,
            lease_ms,
            owner,
        };
        let ttl_ms = record.ttl_ms(deadline);
        let renewed = Record {
            began: record.began.min(now),
            state,
            ..record
        };
        Ended::Becomes(renewed, lease_end.after(ttl_ms))
    }

    /// `COMPLETE`, and `FAIL … FINAL`.
    pub fn settle(&self, token: u64, settle: &Settle<'a>, now: Millis) -> Ended<'a> {
        if self.mismatches(settle.fingerprint) {
            return Ended::Mismatch;
        }
        let state = if settle.is_failure {
            State::Failed(settle.outcome)
        } else {
            State::Completed(settle.outcome)
        };
        if let (Self::Nothing, Some(adopt_ttl_ms)) = (self, settle.adopt_ttl_ms) {
            let record = Record {
                token,
                attempt: 1,
                began: now,
                fingerprint: settle.fingerprint,
                state,
            };
            let ttl_ms = settle.ttl_ms.unwrap_or(adopt_ttl_ms);
            return Ended::Becomes(record, now.after(ttl_ms));
        }
        let (record, deadline) = match self.of_token(token) {
            Ok(found) => found,
            Err(ended) => return ended,
        };
        if record.state == state {
            return Ended::AsItIs;
        }
        if !record.is_running() {
            return Ended::Stale;
        }
        let ttl_ms = settle.ttl_ms.unwrap_or_else(|| record.ttl_ms(deadline));
        let settled = Record {
            fingerprint: record.fingerprint.or(settle.fingerprint),
            state,
            ..record
        };
        Ended::Becomes(settled, now.after(ttl_ms))
    }

    /// `FAIL … RETRY`: the work may be begun again, by anybody.
    pub fn release(&self, token: u64) -> Ended<'a> {
        let (record, deadline) = match self.of_token(token) {
            Ok(found) => found,
            Err(ended) => return ended,
        };
        let state = State::Released;
        match record.state {
            State::Running { .. } => Ended::Becomes(Record { state, ..record }, deadline),
            State::Released => Ended::AsItIs,
            State::Completed(_) | State::Failed(_) => Ended::Stale,
        }
    }
}
