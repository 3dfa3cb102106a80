//! Records: one key's state each, as it stands in a frame's payload.
//!
//! A record says all there is to say about a key at its place in the log, so that what came before
//! does not matter, and records whose deadline has passed can be left out. All numbers are
//! little-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | tag: bits 0 to 2 the key's form (7: bytes of any length), bit 3 removal, bit 4 a fingerprint follows, bit 5 a value follows, bit 6 an idempotency record follows |
//! | 6 | deadline: Unix milliseconds; of a removal, the latest deadline that an earlier record of the key may have |
//! | 16, or 4 and as many as that says | the key |
//! | 17 | fingerprint: how many digits, and their value |
//! | 4 and as many as that says | value |
//! | 4 and as many as that says | idempotency record: see `store/kept.rs` |
//!
//! A removal has nothing behind its key, and a key with an idempotency record has that alone. A key whose deadline moves to an earlier time is
//! removed and stored again, in one frame: so a record never matters longer than its own deadline
//! says, and a segment whose last deadline has passed can be deleted whatever other segments hold.

use crate::store;
use crate::store::key::{LoggedKey, PACKED_FORMS};
use crate::store::{Fingerprint, Key, STATE_BYTES_MAX, push_record, read_record};
use crate::time::Millis;

const FORM: u8 = 0b111;
const FORM_BYTES: u8 = 7;
const REMOVAL: u8 = 1 << 3;
const FINGERPRINT: u8 = 1 << 4;
const VALUE: u8 = 1 << 5;
const RECORD: u8 = 1 << 6;
const KNOWN: u8 = FORM | REMOVAL | FINGERPRINT | VALUE | RECORD;

const PACKED_BYTES: usize = 16;
const FINGERPRINT_BYTES: usize = 17;
const LEN_BYTES: usize = 4;
/// Bytes of a record beside its key's and its value's.
const FIXED_BYTES_MAX: usize = 1 + 6 + LEN_BYTES + FINGERPRINT_BYTES + LEN_BYTES;
/// The latest deadline that a record can say; the year 10889.
const DEADLINE_MAX: u64 = (1 << 48) - 1;

/// A key's state as the log has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The key.
    pub key: LoggedKey<'a>,
    /// The last millisecond of its window; of a removal, the latest that any earlier record may say.
    pub deadline: Millis,
    /// What it holds; `None` if it was removed.
    pub content: Option<Content<'a>>,
}

impl Record<'_> {
    /// The token that it says was given; 0 if it says nothing of that.
    pub fn token(&self) -> u64 {
        let content = self.content.as_ref();
        let record = content.and_then(|content| content.record.as_ref());
        record.map_or(0, |record| record.token)
    }
}

/// What a stored key holds beside its deadline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Content<'a> {
    /// The fingerprint it came with.
    pub fingerprint: Option<Fingerprint>,
    /// Its value; `None` is `1`.
    pub value: Option<&'a [u8]>,
    /// Its idempotency record; then it has no other content.
    pub record: Option<store::Record<'a>>,
}

/// Bytes that a record takes at most.
pub const fn bytes_max(key_bytes: usize, value_bytes: usize) -> usize {
    let key_bytes = if key_bytes > PACKED_BYTES {
        key_bytes
    } else {
        PACKED_BYTES
    };
    FIXED_BYTES_MAX + key_bytes + value_bytes
}

/// The same of a key that holds an idempotency record with a body of so many bytes.
pub const fn record_bytes_max(key_bytes: usize, body_bytes: usize) -> usize {
    bytes_max(key_bytes, STATE_BYTES_MAX + body_bytes)
}

/// Appends the state of a key that is there.
#[inline]
pub fn push_put(out: &mut Vec<u8>, key: &Key<'_>, deadline: Millis, content: &Content<'_>) {
    push_state(out, key.logged(), deadline, content);
}

/// Appends that a key is gone; `until` is the latest deadline it has had since it was not there.
pub fn push_removal(out: &mut Vec<u8>, key: &Key<'_>, until: Millis) {
    push_key(out, REMOVAL, key.logged(), until);
}

/// Appends a record as it was read.
pub fn push(out: &mut Vec<u8>, record: &Record<'_>) {
    match &record.content {
        Some(content) => push_state(out, record.key, record.deadline, content),
        None => push_key(out, REMOVAL, record.key, record.deadline),
    }
}

#[inline]
fn push_state(out: &mut Vec<u8>, key: LoggedKey<'_>, deadline: Millis, content: &Content<'_>) {
    let follows = if content.fingerprint.is_some() {
        FINGERPRINT
    } else {
        0
    } | if content.value.is_some() { VALUE } else { 0 }
        | if content.record.is_some() { RECORD } else { 0 };
    push_key(out, follows, key, deadline);
    if let Some(fingerprint) = content.fingerprint {
        out.push(fingerprint.digits);
        out.extend_from_slice(&fingerprint.value.to_le_bytes());
    }
    if let Some(value) = content.value {
        push_bytes(out, value);
    }
    if let Some(record) = &content.record {
        let begins = out.len();
        push_bytes(out, &[]);
        push_record(out, record);
        let len = (out.len() - begins - LEN_BYTES) as u32;
        out[begins..begins + LEN_BYTES].copy_from_slice(&len.to_le_bytes());
    }
}

#[inline]
fn push_key(out: &mut Vec<u8>, follows: u8, key: LoggedKey<'_>, deadline: Millis) {
    let deadline = deadline.0.min(DEADLINE_MAX).to_le_bytes();
    match key {
        LoggedKey::Packed { form, id } => {
            // One move of a known length.
            let mut record = [0; 1 + 6 + PACKED_BYTES];
            record[0] = follows | form;
            record[1..7].copy_from_slice(&deadline[..6]);
            record[7..].copy_from_slice(&id);
            out.extend_from_slice(&record);
        }
        LoggedKey::Bytes(bytes) => {
            out.push(follows | FORM_BYTES);
            out.extend_from_slice(&deadline[..6]);
            push_bytes(out, bytes);
        }
    }
}

fn push_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// Takes the first record off a payload; `None` if it does not begin with one.
#[inline]
pub fn take<'a>(payload: &mut &'a [u8]) -> Option<Record<'a>> {
    let mut rest = *payload;
    let [tag] = *take_chunk::<1>(&mut rest)?;
    let deadline = take_chunk::<6>(&mut rest)?;
    let mut wide = [0; 8];
    wide[..6].copy_from_slice(deadline);
    let deadline = Millis(u64::from_le_bytes(wide));
    let key = match tag & FORM {
        FORM_BYTES => LoggedKey::Bytes(take_bytes(&mut rest)?),
        form if form < PACKED_FORMS => {
            let id = *take_chunk::<PACKED_BYTES>(&mut rest)?;
            LoggedKey::packed(form, id)?
        }
        _ => return None,
    };
    let content = if tag & REMOVAL == 0 {
        Some(Content {
            fingerprint: match tag & FINGERPRINT {
                0 => None,
                _ => Some(take_fingerprint(&mut rest)?),
            },
            value: match tag & VALUE {
                0 => None,
                _ => Some(take_bytes(&mut rest)?),
            },
            record: match tag & RECORD {
                0 => None,
                _ => Some(read_record(take_bytes(&mut rest)?)?),
            },
        })
    } else {
        None
    };
    let others = match &content {
        None => FINGERPRINT | VALUE | RECORD,
        Some(content) if content.record.is_some() => FINGERPRINT | VALUE,
        Some(_) => 0,
    };
    if tag & (!KNOWN | others) != 0 {
        return None;
    }
    *payload = rest;
    Some(Record {
        key,
        deadline,
        content,
    })
}

fn take_fingerprint(rest: &mut &[u8]) -> Option<Fingerprint> {
    let [digits] = *take_chunk::<1>(rest)?;
    let value = u128::from_le_bytes(*take_chunk::<16>(rest)?);
    Some(Fingerprint { value, digits })
}

fn take_bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = u32::from_le_bytes(*take_chunk::<4>(rest)?) as usize;
    let (bytes, after) = rest.split_at_checked(len)?;
    *rest = after;
    Some(bytes)
}

#[inline]
fn take_chunk<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (chunk, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(chunk)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::{Outcome, Secret, State, TOKENS_MAX};

    fn read_back(bytes: &[u8]) -> (Record<'_>, &[u8]) {
        let mut rest = bytes;
        let record = take(&mut rest).unwrap();
        (record, rest)
    }

    #[test]
    fn a_uuid_takes_23_bytes() {
        let secret = Secret::new([7; 192]);
        let key = secret.key(b"123e4567-e89b-12d3-a456-426614174000");
        let mut out = Vec::new();
        push_put(&mut out, &key, Millis(5), &Content::default());
        assert_eq!(out.len(), 23);
    }

    proptest! {
        #[test]
        fn what_was_pushed_is_taken(
            key in prop_oneof![
                proptest::collection::vec(any::<u8>(), 1..80),
                "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}".prop_map(String::into_bytes),
                "[0-9]{1,25}".prop_map(String::into_bytes),
                "[0-9A-F]{32}|[0-9a-f]{16,34}".prop_map(String::into_bytes),
            ],
            deadline in 0..=DEADLINE_MAX,
            value in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40)),
            fingerprint in proptest::option::of((any::<u128>(), 1..=32_u8)),
            recorded in proptest::option::of(1..TOKENS_MAX),
            removed: bool,
            digests: bool,
        ) {
            let secret = Secret::new([7; 192]);
            let kept = if digests { secret.key_or_digest(&key) } else { secret.key(&key) };
            let body = value.as_deref().unwrap_or_default();
            let content = match recorded {
                Some(token) => Content {
                    record: Some(store::Record {
                        token,
                        attempt: 3,
                        began: Millis(4),
                        fingerprint: None,
                        state: State::Completed(Outcome { code: 5, body }),
                    }),
                    ..Content::default()
                },
                None => Content {
                    fingerprint: fingerprint.map(|(value, digits)| Fingerprint { value, digits }),
                    value: value.as_deref(),
                    record: None,
                },
            };
            let mut out = Vec::new();
            if removed {
                push_removal(&mut out, &kept, Millis(deadline));
            } else {
                push_put(&mut out, &kept, Millis(deadline), &content);
            }
            prop_assert!(out.len() <= record_bytes_max(key.len(), body.len()));
            prop_assert!(recorded.is_some() || out.len() <= bytes_max(key.len(), body.len()));
            let (record, rest) = read_back(&out);
            prop_assert!(rest.is_empty());
            prop_assert_eq!(record.deadline, Millis(deadline));
            prop_assert_eq!(record.content, (!removed).then_some(content));
            let mut bytes = Vec::new();
            record.key.write_to(&mut bytes);
            prop_assert_eq!(&bytes, &key);
            let mut again = Vec::new();
            push(&mut again, &record);
            prop_assert_eq!(&again, &out);
            for len in 0..out.len() {
                prop_assert_eq!(take(&mut &out[..len]), None);
            }
        }

        #[test]
        fn noise_is_refused_or_read_but_never_more(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut rest = &bytes[..];
            while let Some(record) = take(&mut rest) {
                let mut again = Vec::new();
                push(&mut again, &record);
                let mut key = Vec::new();
                record.key.write_to(&mut key);
            }
            prop_assert!(rest.len() <= bytes.len());
        }
    }
}
