//! A record as it is kept: one row of bytes, which also holds its key.
//!
//! A record costs its slot, its place aside and these bytes, in one allocation that is shared with the
//! replies that tell of it. As a struct with a `Bytes` for the body it took 104 bytes more.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | head: bits 0 to 2 the key's kind, bits 3 and 4 the state, bit 5 a fingerprint follows, bit 6 an owner follows |
//! | 16, or a number and as many as that says | the key |
//! | 7 | token |
//! | 6 | when it was begun first: Unix milliseconds |
//! | number | attempt |
//! | two numbers | if it is running: how long after `began` its lease ends, and the lease's length, in milliseconds |
//! | number | if it is settled: the code |
//! | 17 | fingerprint: how many digits, and their value |
//! | number and as many as that says | owner |
//! | the rest | if it is settled: the body |
//!
//! Multi-byte fields are little-endian, numbers are LEB128. A log has the same without the key.

use std::sync::Arc;

use bytes::Bytes;

use super::aside::RichKey;
use super::key::{Hashed, Key, Kind, Packed, Secret};
use super::model::Fingerprint;
use super::pin::Pins;
use super::record::{Outcome, Record, State};
use crate::limits::OWNER_BYTES_MAX;
use crate::time::Millis;

const KIND: u8 = 0b111;
const STATE_SHIFT: u32 = 3;
const STATE: u8 = 0b11 << STATE_SHIFT;
const RUNNING: u8 = 0;
const RELEASED: u8 = 1;
const COMPLETED: u8 = 2;
const FAILED: u8 = 3;
const FINGERPRINT: u8 = 1 << 5;
const OWNER: u8 = 1 << 6;

const TOKEN_BYTES: usize = 7;
const BEGAN_BYTES: usize = 6;
const NUMBER_BYTES_MAX: usize = 10;
/// The counts of an `Arc`.
const SHARED_BYTES: usize = 2 * size_of::<usize>();
/// Tokens stay below this: 2^53, so that every language can say them.
pub const TOKENS_MAX: u64 = 1 << 53;
const MOMENT_MAX: u64 = (1 << (8 * BEGAN_BYTES)) - 1;

/// Bytes of a record's state at most, beside its body.
pub const STATE_BYTES_MAX: usize =
    1 + TOKEN_BYTES + BEGAN_BYTES + 4 * NUMBER_BYTES_MAX + 17 + OWNER_BYTES_MAX;

/// A record and its key, kept; cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StoredRecord(Arc<[u8]>);

impl StoredRecord {
    pub(super) fn new(key: &Key<'_>, record: &Record<'_>) -> Self {
        let mut bytes = Vec::with_capacity(
            STATE_BYTES_MAX + size_of::<u64>() * 2 + key.bytes().len() + body_of(record).len(),
        );
        bytes.push(head(record) | key.packed.kind as u8);
        if key.is_long() {
            push_number(&mut bytes, key.bytes().len() as u64);
            bytes.extend_from_slice(key.bytes());
        } else {
            bytes.extend_from_slice(&key.packed.bytes());
        }
        push_rest(&mut bytes, record);
        Self(bytes.into())
    }

    /// Bytes on the heap, beside what an allocator adds.
    pub(super) fn heap_bytes(&self) -> usize {
        SHARED_BYTES + self.0.len()
    }

    /// The same elsewhere on the heap; `None` if it is larger than this, or a reply has it at the moment.
    pub(super) fn moved(&self, bytes_max: usize) -> Option<Self> {
        let is_movable = self.0.len() <= bytes_max && Arc::strong_count(&self.0) == 1;
        is_movable.then(|| Self(Arc::from(&self.0[..])))
    }

    /// Its key, if that does not fit 16 bytes; then what is left.
    fn split(&self) -> (Option<&[u8]>, &[u8]) {
        let mut rest = &self.0[1..];
        let kind = Kind::of(u32::from(self.0[0] & KIND));
        let len = if kind == Kind::Aside {
            take_number(&mut rest).unwrap_or(0) as usize
        } else {
            size_of::<u128>()
        };
        let (key, rest) = rest.split_at(len);
        (Some(key).filter(|_| kind == Kind::Aside), rest)
    }

    fn packed(&self) -> Option<Packed> {
        let kind = Kind::of(u32::from(self.0[0] & KIND));
        let id = self.0[1..].first_chunk().filter(|_| kind != Kind::Aside)?;
        Some(Packed::new(*id, kind))
    }

    /// What remains of the key without its bytes.
    pub(super) fn hashed(&self, secret: &Secret) -> Hashed {
        match (self.packed(), self.split().0) {
            (Some(packed), _) => Hashed::of_packed(packed, secret),
            (None, long) => secret.hashed(long.unwrap_or_default(), false),
        }
    }

    /// Whether this is its key.
    pub(super) fn is(&self, key: &Key<'_>) -> bool {
        match self.packed() {
            Some(packed) => packed == key.packed,
            None => key.is_long() && self.split().0 == Some(key.bytes()),
        }
    }

    pub(super) fn key(&self) -> RichKey {
        match (self.packed(), self.split().0) {
            (Some(packed), _) => RichKey::Packed(packed),
            (None, long) => RichKey::Long(long.unwrap_or_default().into()),
        }
    }

    /// Appends the key's bytes as they were sent; false if only a digest of them is known.
    pub(super) fn write_key(&self, out: &mut Vec<u8>) -> bool {
        match (self.packed(), self.split().0) {
            (Some(packed), _) => packed.write_to(out),
            (None, long) => {
                out.extend_from_slice(long.unwrap_or_default());
                true
            }
        }
    }

    pub(super) fn is_running(&self) -> bool {
        self.0[0] & STATE == RUNNING << STATE_SHIFT
    }

    pub(super) fn record(&self) -> Record<'_> {
        let (_, mut rest) = self.split();
        take_rest(self.0[0], &mut rest).expect("these bytes were made here, from a record")
    }

    /// What came of it, shared and not copied; nothing if it is not settled.
    pub(super) fn body(&self, pins: &Pins) -> Bytes {
        let len = self
            .record()
            .outcome()
            .map_or(0, |outcome| outcome.body.len());
        if len == 0 {
            return Bytes::new();
        }
        pins.end_of(self, len)
    }
}

impl AsRef<[u8]> for StoredRecord {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Appends a record as a log has it.
pub fn push_record(out: &mut Vec<u8>, record: &Record<'_>) {
    out.push(head(record));
    push_rest(out, record);
}

/// The record that these bytes are, as a log has it; `None` if they are none.
pub fn read_record(bytes: &[u8]) -> Option<Record<'_>> {
    let (&head, mut rest) = bytes.split_first()?;
    if head & (KIND | 1 << 7) != 0 {
        return None;
    }
    take_rest(head, &mut rest).filter(|record| record.token != 0)
}

fn body_of<'a>(record: &Record<'a>) -> &'a [u8] {
    record.outcome().map_or(&[], |outcome| outcome.body)
}

fn head(record: &Record<'_>) -> u8 {
    let (state, has_owner) = match record.state {
        State::Running { owner, .. } => (RUNNING, owner.is_some()),
        State::Released => (RELEASED, false),
        State::Completed(_) => (COMPLETED, false),
        State::Failed(_) => (FAILED, false),
    };
    let flag = |is_set: bool, flag| if is_set { flag } else { 0 };
    state << STATE_SHIFT | flag(record.fingerprint.is_some(), FINGERPRINT) | flag(has_owner, OWNER)
}

fn push_rest(out: &mut Vec<u8>, record: &Record<'_>) {
    let began = record.began.0.min(MOMENT_MAX);
    out.extend_from_slice(&record.token.to_le_bytes()[..TOKEN_BYTES]);
    out.extend_from_slice(&began.to_le_bytes()[..BEGAN_BYTES]);
    push_number(out, record.attempt.into());
    match record.state {
        State::Running {
            lease_end,
            lease_ms,
            ..
        } => {
            push_number(out, lease_end.since(Millis(began)));
            push_number(out, lease_ms);
        }
        State::Released => {}
        State::Completed(outcome) | State::Failed(outcome) => {
            push_number(out, outcome.code.into());
        }
    }
    if let Some(fingerprint) = record.fingerprint {
        out.push(fingerprint.digits);
        out.extend_from_slice(&fingerprint.value.to_le_bytes());
    }
    if let State::Running {
        owner: Some(owner), ..
    } = record.state
    {
        push_number(out, owner.len() as u64);
        out.extend_from_slice(owner);
    }
    out.extend_from_slice(body_of(record));
}

fn take_rest<'a>(head: u8, rest: &mut &'a [u8]) -> Option<Record<'a>> {
    let token = take_wide::<TOKEN_BYTES>(rest)?;
    let began = Millis(take_wide::<BEGAN_BYTES>(rest)?);
    let attempt = u32::try_from(take_number(rest)?).ok()?;
    let state = (head & STATE) >> STATE_SHIFT;
    let numbers = match state {
        RUNNING => (take_number(rest)?, take_number(rest)?),
        RELEASED => (0, 0),
        _ => (take_number(rest)?, 0),
    };
    let fingerprint = match head & FINGERPRINT {
        0 => None,
        _ => Some(take_fingerprint(rest)?),
    };
    let owner = match head & OWNER {
        0 => None,
        _ if state != RUNNING => return None,
        _ => {
            let len = take_number(rest).filter(|&len| len <= OWNER_BYTES_MAX as u64)?;
            let (owner, behind) = rest.split_at_checked(len as usize)?;
            *rest = behind;
            Some(owner)
        }
    };
    let outcome = || {
        let code = u32::try_from(numbers.0).ok()?;
        Some(Outcome { code, body: rest })
    };
    let state = match state {
        RUNNING | RELEASED if !rest.is_empty() => return None,
        RUNNING => State::Running {
            lease_end: began.after(numbers.0),
            lease_ms: numbers.1,
            owner,
        },
        RELEASED => State::Released,
        COMPLETED => State::Completed(outcome()?),
        _ => State::Failed(outcome()?),
    };
    (token < TOKENS_MAX).then_some(Record {
        token,
        attempt,
        began,
        fingerprint,
        state,
    })
}

fn take_fingerprint(rest: &mut &[u8]) -> Option<Fingerprint> {
    let (&[digits], behind) = rest.split_first_chunk()?;
    let (&value, behind) = behind.split_first_chunk()?;
    *rest = behind;
    let value = u128::from_le_bytes(value);
    Some(Fingerprint { value, digits })
}

/// A number of so many bytes, fewer than 8.
fn take_wide<const N: usize>(rest: &mut &[u8]) -> Option<u64> {
    let (bytes, behind) = rest.split_first_chunk::<N>()?;
    *rest = behind;
    let mut wide = [0; size_of::<u64>()];
    wide[..N].copy_from_slice(bytes);
    Some(u64::from_le_bytes(wide))
}

/// Appends a number in seven bits a byte, the lowest first.
fn push_number(out: &mut Vec<u8>, number: u64) {
    let mut rest = number;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn take_number(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for at in 0..NUMBER_BYTES_MAX {
        let byte = *rest.get(at)?;
        let bits = u64::from(byte & 0x7f);
        // What does not fit 64 bits, or could be said shorter, was not written here.
        if (bits << (7 * at)) >> (7 * at) != bits || byte == 0 && at > 0 {
            return None;
        }
        number |= bits << (7 * at);
        if byte < 0x80 {
            *rest = &rest[at + 1..];
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_record() -> impl Strategy<Value = (Record<'static>, Vec<u8>, Vec<u8>)> {
        let fingerprint = proptest::option::of((any::<u128>(), 1..=32_u8))
            .prop_map(|some| some.map(|(value, digits)| Fingerprint { value, digits }));
        let bytes = || proptest::collection::vec(any::<u8>(), 0..OWNER_BYTES_MAX);
        (
            (1..TOKENS_MAX, 1..=u32::MAX, 0..MOMENT_MAX),
            fingerprint,
            (0..6_u8, any::<u32>(), 0..1_u64 << 40, 0..1_u64 << 40),
            bytes(),
            bytes(),
        )
            .prop_map(
                |((token, attempt, began), fingerprint, numbers, owner, body)| {
                    let (state, code, after, lease_ms) = numbers;
                    let began = Millis(began);
                    let outcome = Outcome { code, body: &[] };
                    let running = |owner| State::Running {
                        lease_end: began.after(after),
                        lease_ms,
                        owner,
                    };
                    let state = match state {
                        0 => running(None),
                        1 => running(Some(&[][..])),
                        2 => State::Released,
                        3 => State::Failed(outcome),
                        _ => State::Completed(outcome),
                    };
                    let record = Record {
                        token,
                        attempt,
                        began,
                        fingerprint,
                        state,
                    };
                    (record, owner, body)
                },
            )
    }

    /// The record with this owner or body in the place of an empty one.
    fn filled<'a>(record: &Record<'a>, with: &'a [u8], body: &'a [u8]) -> Record<'a> {
        let mut filled = *record;
        match &mut filled.state {
            State::Running {
                owner: Some(owner), ..
            } => *owner = with,
            State::Completed(outcome) | State::Failed(outcome) => outcome.body = body,
            State::Running { .. } | State::Released => {}
        }
        filled
    }

    proptest! {
        #[test]
        fn what_is_kept_is_given_back(
            (record, owner, body) in any_record(),
            key in prop_oneof![
                proptest::collection::vec(any::<u8>(), 1..200),
                "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}".prop_map(String::into_bytes),
            ],
            digests: bool,
        ) {
            let record = filled(&record, &owner, &body);
            let secret = Secret::new([7; 192]);
            let kept = if digests { secret.key_or_digest(&key) } else { secret.key(&key) };
            let stored = StoredRecord::new(&kept, &record);
            prop_assert_eq!(stored.record(), record);
            prop_assert_eq!(stored.is_running(), record.is_running());
            prop_assert!(stored.is(&kept));
            prop_assert!(!stored.is(&secret.key(b"another key, and a long one")));
            let mut written = Vec::new();
            let is_known = stored.write_key(&mut written);
            prop_assert!(is_known == (!digests || kept.packed.kind != Kind::Digest));
            prop_assert!(!is_known || written == key);
            let body = record.outcome().map_or(&[][..], |outcome| outcome.body);
            prop_assert_eq!(&stored.body(&Pins::default())[..], body);
            let mut logged = Vec::new();
            push_record(&mut logged, &record);
            prop_assert!(logged.len() <= STATE_BYTES_MAX + body.len());
            prop_assert_eq!(read_record(&logged), Some(record));
        }

        #[test]
        fn noise_is_refused_or_is_a_record(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(record) = read_record(&bytes) {
                let mut again = Vec::new();
                push_record(&mut again, &record);
                prop_assert_eq!(again, bytes);
            }
        }
    }

    #[test]
    fn a_uuid_and_its_outcome_take_fifty_bytes_beside_the_body() {
        let secret = Secret::new([7; 192]);
        let key = secret.key(b"123e4567-e89b-12d3-a456-426614174000");
        let body = [b'x'; 200];
        let record = Record {
            token: TOKENS_MAX - 1,
            attempt: 1,
            began: Millis(1_790_000_000_000),
            fingerprint: None,
            state: State::Completed(Outcome {
                code: 200,
                body: &body,
            }),
        };
        assert_eq!(
            StoredRecord::new(&key, &record).heap_bytes(),
            49 + body.len()
        );
    }
}
