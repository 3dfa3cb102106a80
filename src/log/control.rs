//! Controls: what the log says about itself and about namespaces, one to a frame.
//!
//! A segment is understood by itself: the first frame of each is [`Opened`], with all namespaces that
//! there were. A payload is a kind byte and fields, numbers little-endian, texts behind a length byte.

use super::format::Format;
use super::frame;
use super::segment::Position;
use crate::store::TOKENS_MAX;
use crate::time::Millis;

/// A frame's payload where it belongs to no namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// A segment is begun.
    Opened(Box<Opened>),
    /// A namespace is there from here on, or has other properties.
    Space(Space),
    /// A namespace is gone, and its keys with it.
    Dropped {
        /// Its number; [`NO_SPACE`] where only the moment is told.
        id: u32,
        /// The moment from which on no key of a namespace that is not there was lost.
        covered_since: Millis,
    },
    /// All before that position is durable.
    Synced(Position),
    /// The server was stopped in order; nothing follows.
    Closed,
    /// The segment ends here and the next one follows: without it, or [`Control::Closed`], the end of a
    /// segment is missing.
    Sealed,
}

/// What is known when a segment is begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// When.
    pub at: Millis,
    /// The machine's run, from its start to its stop; another one after a power loss.
    pub boot: [u8; 16],
    /// Whether every change was synced before it was acknowledged.
    pub always_synced: bool,
    /// All before is durable.
    pub synced: Position,
    /// Segments that there are, each with the last deadline in it: those that are missing later must have
    /// been deleted after that.
    pub earlier: Vec<(u64, Millis)>,
    /// Above the number of every namespace there has been.
    pub next_space: u32,
    /// The moment from which on no key of a namespace that is not there was lost.
    pub covered_since: Millis,
    /// The last token that was given before; 0 if none ever was.
    pub last_token: u64,
    /// All namespaces.
    pub spaces: Vec<Space>,
}

/// A namespace, and what is not in its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "four settings, each yes or no"
)]
pub struct Space {
    /// Its number, given to no other before or after; never 0.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// Whether only digests are kept of long keys.
    pub keeps_digests: bool,
    /// The life of keys that name none, in milliseconds.
    pub ttl_ms: u64,
    /// The longest life, in milliseconds.
    pub ttl_max_ms: u64,
    /// Whether a repeat extends a window.
    pub slides: bool,
    /// How many keys; 0 is without end.
    pub keys_max: u64,
    /// Whether keys are evicted where there is no room.
    pub evicts: bool,
    /// Whether an unsure answer says so.
    pub reports_unsure: bool,
    /// The moment from which nothing was lost.
    pub covered_since: Millis,
    /// The latest deadline of anything evicted.
    pub unsure_until: Millis,
    /// What is known of it if it is a set of Redis's.
    pub set: Option<SetEnds>,
}

/// When a set of Redis's ends; 0 where it has no end, and each member its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetEnds {
    /// As was asked for.
    pub asked: Millis,
    /// The end of its members: no earlier than that.
    pub members: Millis,
}

const OPENED: u8 = 1;
const SPACE: u8 = 2;
const DROPPED: u8 = 3;
const SYNCED: u8 = 4;
const CLOSED: u8 = 5;
const SEALED: u8 = 6;

const ALWAYS_SYNCED: u8 = 1;
const TOKENS: u8 = 1 << 1;

const DIGESTS: u8 = 1;
const SLIDES: u8 = 1 << 1;
const EVICTS: u8 = 1 << 2;
const REPORTS: u8 = 1 << 3;
const SET: u8 = 1 << 4;

/// As the moment from which on nothing was lost: that of the next start, whenever it comes. Said by a run
/// whose clock was found to be behind, until it says at its end when that was.
pub const COVERED_SINCE_NEXT_START: Millis = Millis(u64::MAX);

/// The number of no namespace, in a [`Control::Dropped`] that only tells a moment.
pub const NO_SPACE: u32 = 0;

/// Above the number of every namespace that there will have been: more is not of a log.
pub const SPACE_NUMBERS_MAX: u32 = 1 << 31;

/// Bytes of the frame that ends a segment, at most.
pub const SEAL_BYTES: u64 = frame::HEADER_BYTES as u64 + 1;

impl Control {
    /// Appends it as a frame of its own, whose [place](super::format::Format::stamp) is still to come.
    pub fn push_frame(&self, out: &mut Vec<u8>) {
        let begins = frame::begin(out);
        self.push(out);
        frame::finish(out, begins, frame::CONTROL);
    }

    /// Appends it to a frame's payload.
    pub fn push(&self, out: &mut Vec<u8>) {
        match self {
            Self::Opened(opened) => {
                out.push(OPENED);
                push_u64(out, opened.at.0);
                out.extend_from_slice(&opened.boot);
                out.push(
                    flag(opened.always_synced, ALWAYS_SYNCED) | flag(opened.last_token > 0, TOKENS),
                );
                push_position(out, opened.synced);
                push_u32(out, opened.earlier.len() as u32);
                for &(number, last) in &opened.earlier {
                    push_u64(out, number);
                    push_u64(out, last.0);
                }
                push_u32(out, opened.next_space);
                push_u64(out, opened.covered_since.0);
                push_u32(out, opened.spaces.len() as u32);
                for space in &opened.spaces {
                    push_space(out, space);
                }
                if opened.last_token > 0 {
                    push_u64(out, opened.last_token);
                }
            }
            Self::Space(space) => {
                out.push(SPACE);
                push_space(out, space);
            }
            Self::Dropped { id, covered_since } => {
                out.push(DROPPED);
                push_u32(out, *id);
                push_u64(out, covered_since.0);
            }
            Self::Synced(position) => {
                out.push(SYNCED);
                push_position(out, *position);
            }
            Self::Closed => out.push(CLOSED),
            Self::Sealed => out.push(SEALED),
        }
    }

    /// The control that a payload is; `None` if it is none.
    pub fn of(payload: &[u8]) -> Option<Self> {
        let mut fields = Fields(payload);
        let control = match fields.u8()? {
            OPENED => Self::Opened(Box::new(fields.opened()?)),
            SPACE => Self::Space(fields.space()?),
            DROPPED => Self::Dropped {
                id: fields.u32()?,
                covered_since: Millis(fields.u64()?),
            },
            SYNCED => Self::Synced(fields.position()?),
            CLOSED => Self::Closed,
            SEALED => Self::Sealed,
            _ => return None,
        };
        fields.0.is_empty().then_some(control)
    }
}

fn push_u32(out: &mut Vec<u8>, number: u32) {
    out.extend_from_slice(&number.to_le_bytes());
}

fn push_u64(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_le_bytes());
}

fn push_position(out: &mut Vec<u8>, position: Position) {
    push_u64(out, position.segment);
    push_u64(out, position.offset);
}

fn flag(is_set: bool, flag: u8) -> u8 {
    if is_set { flag } else { 0 }
}

fn push_space(out: &mut Vec<u8>, space: &Space) {
    push_u32(out, space.id);
    out.push(space.name.len() as u8);
    out.extend_from_slice(space.name.as_bytes());
    out.push(
        flag(space.keeps_digests, DIGESTS)
            | flag(space.slides, SLIDES)
            | flag(space.evicts, EVICTS)
            | flag(space.reports_unsure, REPORTS)
            | flag(space.set.is_some(), SET),
    );
    for number in [
        space.ttl_ms,
        space.ttl_max_ms,
        space.keys_max,
        space.covered_since.0,
        space.unsure_until.0,
    ] {
        push_u64(out, number);
    }
    if let Some(ends) = space.set {
        push_u64(out, ends.asked.0);
        push_u64(out, ends.members.0);
    }
}

/// The rest of a payload.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn chunk<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (chunk, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*chunk)
    }

    fn u8(&mut self) -> Option<u8> {
        self.chunk().map(u8::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.chunk().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.chunk().map(u64::from_le_bytes)
    }

    fn position(&mut self) -> Option<Position> {
        Some(Position {
            segment: self.u64()?,
            offset: self.u64()?,
        })
    }

    fn opened(&mut self) -> Option<Opened> {
        let (at, boot) = (Millis(self.u64()?), self.chunk()?);
        let flags = self
            .u8()
            .filter(|flags| flags & !(ALWAYS_SYNCED | TOKENS) == 0)?;
        Some(Opened {
            at,
            boot,
            always_synced: flags & ALWAYS_SYNCED != 0,
            synced: self.position()?,
            earlier: self.many(|fields| Some((fields.u64()?, Millis(fields.u64()?))))?,
            next_space: self.u32().filter(|next| *next <= SPACE_NUMBERS_MAX)?,
            covered_since: Millis(self.u64()?),
            spaces: self.many(Self::space)?,
            last_token: match flags & TOKENS {
                0 => 0,
                _ => self.u64().filter(|token| (1..TOKENS_MAX).contains(token))?,
            },
        })
    }

    /// As many as a number says; what it announces takes no memory before it is there.
    fn many<T>(&mut self, mut one: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.u32()?;
        let mut all = Vec::new();
        for _ in 0..count {
            all.push(one(self)?);
        }
        Some(all)
    }

    fn space(&mut self) -> Option<Space> {
        let id = self.u32()?;
        let name_bytes = usize::from(self.u8()?);
        let (name, rest) = self.0.split_at_checked(name_bytes)?;
        self.0 = rest;
        if id == 0 || id >= SPACE_NUMBERS_MAX || !crate::limits::is_namespace_name(name) {
            return None;
        }
        let name = str::from_utf8(name).ok()?.to_owned();
        let flags = self.u8()?;
        Some(Space {
            id,
            name,
            keeps_digests: flags & DIGESTS != 0,
            slides: flags & SLIDES != 0,
            evicts: flags & EVICTS != 0,
            reports_unsure: flags & REPORTS != 0,
            ttl_ms: self.u64()?,
            ttl_max_ms: self.u64()?,
            keys_max: self.u64()?,
            covered_since: Millis(self.u64()?),
            unsure_until: Millis(self.u64()?),
            set: match flags & SET {
                0 => None,
                _ => Some(SetEnds {
                    asked: Millis(self.u64()?),
                    members: Millis(self.u64()?),
                }),
            },
        })
    }
}

/// The frame that ends a segment, as it is to be at `at` in its file.
pub fn seal(format: &Format, at: u64) -> Vec<u8> {
    let mut payload = Vec::new();
    Control::Sealed.push(&mut payload);
    let mut end = Vec::new();
    format.push(&mut end, at, frame::CONTROL, &payload);
    debug_assert!(end.len() as u64 <= SEAL_BYTES);
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(id: u32) -> Space {
        Space {
            id,
            name: format!("orders:{id}"),
            keeps_digests: id.is_multiple_of(2),
            ttl_ms: 1,
            ttl_max_ms: 2,
            slides: id.is_multiple_of(3),
            keys_max: 3,
            evicts: id.is_multiple_of(5),
            reports_unsure: id.is_multiple_of(7),
            covered_since: Millis(4),
            unsure_until: Millis(5),
            set: id.is_multiple_of(11).then_some(SetEnds {
                asked: Millis(6),
                members: Millis(7),
            }),
        }
    }

    #[test]
    fn what_was_pushed_is_read_and_nothing_shorter_or_longer() {
        let position = Position {
            segment: 8,
            offset: 9,
        };
        let opened = Opened {
            at: Millis(7),
            boot: [3; 16],
            always_synced: true,
            synced: position,
            earlier: vec![(1, Millis(2)), (3, Millis(4))],
            next_space: 77,
            covered_since: Millis(78),
            last_token: 0,
            spaces: (1..40).map(space).collect(),
        };
        let with_token = Opened {
            last_token: TOKENS_MAX - 1,
            ..opened.clone()
        };
        for control in [
            Control::Opened(Box::new(opened)),
            Control::Opened(Box::new(with_token)),
            Control::Space(space(210)),
            Control::Dropped {
                id: 5,
                covered_since: Millis(6),
            },
            Control::Synced(position),
            Control::Closed,
            Control::Sealed,
        ] {
            let mut bytes = Vec::new();
            control.push(&mut bytes);
            assert_eq!(Control::of(&bytes), Some(control));
            for len in 0..bytes.len() {
                assert_eq!(Control::of(&bytes[..len]), None);
            }
            bytes.push(0);
            assert_eq!(Control::of(&bytes), None);
        }
    }

    #[test]
    fn numbers_that_leave_none_for_others_are_refused() {
        for (id, is_read) in [
            (0, false),
            (1, true),
            (SPACE_NUMBERS_MAX - 1, true),
            (SPACE_NUMBERS_MAX, false),
            (u32::MAX, false),
        ] {
            let mut bytes = Vec::new();
            let named = Space { id, ..space(7) };
            Control::Space(named).push(&mut bytes);
            assert_eq!(Control::of(&bytes).is_some(), is_read, "{id}");
        }
    }

    #[test]
    fn numbers_that_announce_too_much_are_refused_without_taking_memory() {
        let mut bytes = vec![OPENED];
        bytes.extend_from_slice(&[0; 8 + 16 + 1 + 16]);
        bytes.extend_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(Control::of(&bytes), None);
    }
}
