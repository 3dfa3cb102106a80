//! What Redis's tools ask about a key rather than of it: `OBJECT` and `MEMORY USAGE`.

use super::values::value_of;
use super::{Answer, Here, Namespace};
use crate::command::{Error, Fact, Reply, integer, stored_value};
use crate::store::Key;

/// What a key takes in its table, about: a slot, and its share of those that are empty.
const PLACE_BYTES: usize = 32;
/// What is kept beside the table takes as much besides its bytes, about.
const ASIDE_BYTES: usize = 64;
/// The longest value that Redis stores together with what says what it is.
const EMBEDDED_BYTES_MAX: usize = 44;

impl Here<'_> {
    pub(super) fn fact_of<'s>(&self, here: &Namespace, key: &[u8], fact: Fact) -> Answer<'s> {
        let key = self.key(here, key);
        let value = here.read(&key, |shard| {
            let entry = shard.get(&key, self.now)?;
            Some(value_of(&entry, false).unwrap_or_default())
        });
        let Some(value) = value else {
            return Ok(Reply::Nil);
        };
        match fact {
            Fact::Encoding => Ok(Reply::text(encoding(&value))),
            // Nobody counts when a key was asked for.
            Fact::IdleTime => Ok(Reply::Number(0)),
            Fact::Frequency => Err(Error::redis(
                "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when \
                 switching between policies at runtime LRU and LFU data will take some time to adjust.",
            )),
            Fact::References => Ok(Reply::Number(1)),
            Fact::Memory => Ok(Reply::Number(bytes_of(&key, &value) as i64)),
        }
    }
}

/// How Redis would store such a value.
fn encoding(value: &[u8]) -> &'static str {
    if integer(value).is_ok() {
        "int"
    } else if value.len() <= EMBEDDED_BYTES_MAX {
        "embstr"
    } else {
        "raw"
    }
}

/// Bytes that a key with this value takes, about.
fn bytes_of(key: &Key<'_>, value: &[u8]) -> usize {
    let value_bytes = stored_value(value).map_or(0, <[u8]>::len);
    let key_bytes = if key.is_long() { key.bytes().len() } else { 0 };
    let aside_bytes = key_bytes + value_bytes;
    match aside_bytes {
        0 => PLACE_BYTES,
        bytes => PLACE_BYTES + ASIDE_BYTES + bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_encoded_as_in_redis() {
        for (value, told) in [
            ("12", "int"),
            ("-9223372036854775808", "int"),
            ("9223372036854775808", "embstr"),
            ("012", "embstr"),
            ("+1", "embstr"),
            ("-0", "embstr"),
            ("", "embstr"),
            (&"a".repeat(44), "embstr"),
            (&"a".repeat(45), "raw"),
        ] {
            assert_eq!(encoding(value.as_bytes()), told, "{value}");
        }
    }
}
