//! A key's identity: how its bytes are kept, compared and hashed.
//!
//! Keys are compared exactly, never by hash. Most real keys have a shape that fits 17 bytes
//! without loss (short words, UUID text, hex digests, 16 raw bytes, decimal ids), so a UUID
//! of 36 characters costs what a 16-byte id costs; everything else is kept on the heap.
//!
//! Packing is a function of the bytes alone, and the kind is part of the identity: two keys
//! are equal exactly when their packed forms are. A spelling that a kind cannot give back
//! (a UUID in capitals, a number with leading zeros) is another kind or goes to the heap.

use xxhash_rust::xxh3::xxh3_64_with_secret;

/// Bytes of the secret that hashing takes; xxh3 asks for at least 136.
pub const SECRET_BYTES: usize = 192;

/// The random bytes that keep an outsider from steering keys into one shard or slot.
///
/// A hash only chooses a place, so the secret may differ between runs.
#[derive(Clone)]
pub struct Secret([u8; SECRET_BYTES]);

impl Secret {
    /// A secret from random bytes; in tests, from any.
    pub const fn new(random: [u8; SECRET_BYTES]) -> Self {
        Self(random)
    }

    /// The key with its identity and its hash under this secret.
    pub fn key<'a>(&self, bytes: &'a [u8]) -> Key<'a> {
        Key {
            hash: xxh3_64_with_secret(bytes, &self.0),
            id: Identity::of(bytes),
            bytes,
        }
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// A key of a request: borrowed, packed and hashed once.
#[derive(Clone, Copy, Debug)]
pub struct Key<'a> {
    pub(crate) hash: u64,
    pub(crate) id: Identity,
    bytes: &'a [u8],
}

impl<'a> Key<'a> {
    /// The key as it was sent.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The upper hash bits, which choose a shard; the table uses the lower ones.
    pub fn shard_bits(&self) -> u32 {
        (self.hash >> 32) as u32
    }

    pub(crate) fn to_stored(self) -> StoredKey {
        match self.id {
            Identity::Packed(packed) => StoredKey::Packed(packed),
            Identity::Long => StoredKey::Long(self.bytes.into()),
        }
    }

    /// Bytes on the heap that storing this key takes, beside its entry.
    pub(crate) fn heap_bytes(&self) -> usize {
        match self.id {
            Identity::Packed(_) => 0,
            Identity::Long => self.bytes.len(),
        }
    }
}

/// Whether a key fits its entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    Packed(Packed),
    Long,
}

impl Identity {
    fn of(bytes: &[u8]) -> Self {
        match bytes.len() {
            0..=16 => Self::Packed(Packed::raw(bytes)),
            17..=32 => Packed::hex(bytes)
                .or_else(|| Packed::decimal(bytes))
                .map_or(Self::Long, Self::Packed),
            UUID_CHARS => Packed::uuid(bytes).map_or(Self::Long, Self::Packed),
            _ => Self::Long,
        }
    }
}

/// How 16 bytes are to be read back. The number of a kind is stored nowhere but in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    /// The bytes as they are, up to 16.
    Raw,
    /// Lower-case hex digits, an even number of them from 18 to 32.
    Hex,
    /// A decimal number without leading zeros that 64 bits hold.
    Decimal,
    /// A hyphenated UUID in small letters.
    UuidLower,
    /// The same in capitals.
    UuidUpper,
}

/// A key within 18 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Packed {
    bytes: [u8; 16],
    /// Used bytes; what lies behind is zero.
    len: u8,
    kind: Kind,
}

const UUID_CHARS: usize = 36;
const UUID_HYPHENS: [usize; 4] = [8, 13, 18, 23];
const LOWER: &[u8; 16] = b"0123456789abcdef";
const UPPER: &[u8; 16] = b"0123456789ABCDEF";

impl Packed {
    fn raw(key: &[u8]) -> Self {
        let mut bytes = [0; 16];
        bytes[..key.len()].copy_from_slice(key);
        Self {
            bytes,
            len: key.len() as u8,
            kind: Kind::Raw,
        }
    }

    fn hex(key: &[u8]) -> Option<Self> {
        if !key.len().is_multiple_of(2) {
            return None;
        }
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(key.chunks_exact(2)) {
            *byte = pair_value(pair[0], pair[1], &HEX_LOWER)?;
        }
        Some(Self {
            bytes,
            len: (key.len() / 2) as u8,
            kind: Kind::Hex,
        })
    }

    fn decimal(key: &[u8]) -> Option<Self> {
        if key[0] == b'0' {
            return None;
        }
        let number = crate::time::parse_u64(key)?;
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        Some(Self {
            bytes,
            len: 8,
            kind: Kind::Decimal,
        })
    }

    fn uuid(key: &[u8]) -> Option<Self> {
        if UUID_HYPHENS.iter().any(|&at| key[at] != b'-') {
            return None;
        }
        // A UUID without any letter would fit both cases: small letters are tried first, so it has one form.
        Self::uuid_in(key, &HEX_LOWER, Kind::UuidLower)
            .or_else(|| Self::uuid_in(key, &HEX_UPPER, Kind::UuidUpper))
    }

    fn uuid_in(key: &[u8], digits: &[u8; 256], kind: Kind) -> Option<Self> {
        // Where each byte's two digits stand between the hyphens.
        const AT: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];
        let mut bytes = [0; 16];
        // Bad digits are gathered and judged once, so that the loop has no branch.
        let mut bad = 0;
        for (byte, at) in bytes.iter_mut().zip(AT) {
            let (high, low) = (digits[key[at] as usize], digits[key[at + 1] as usize]);
            bad |= high | low;
            *byte = (high << 4) | (low & 0x0f);
        }
        (bad & NOT_HEX_BIT == 0).then_some(Self {
            bytes,
            len: 16,
            kind,
        })
    }

    fn unpack(&self, out: &mut Vec<u8>) {
        let used = &self.bytes[..self.len as usize];
        match self.kind {
            Kind::Raw => out.extend_from_slice(used),
            Kind::Hex => push_hex(used, LOWER, out),
            Kind::Decimal => {
                let mut number = [0; 8];
                number.copy_from_slice(used);
                out.extend_from_slice(u64::from_le_bytes(number).to_string().as_bytes());
            }
            Kind::UuidLower => push_uuid(used, LOWER, out),
            Kind::UuidUpper => push_uuid(used, UPPER, out),
        }
    }
}

/// Marks a byte that is no hex digit; a digit's value never has this bit.
const NOT_HEX_BIT: u8 = 0x80;

const fn hex_values(digits: &[u8; 16]) -> [u8; 256] {
    let mut values = [NOT_HEX_BIT; 256];
    let mut i = 0;
    while i < 16 {
        values[digits[i] as usize] = i as u8;
        i += 1;
    }
    values
}

static HEX_LOWER: [u8; 256] = hex_values(LOWER);
static HEX_UPPER: [u8; 256] = hex_values(UPPER);

fn pair_value(high: u8, low: u8, digits: &[u8; 256]) -> Option<u8> {
    let (high, low) = (digits[high as usize], digits[low as usize]);
    ((high | low) & NOT_HEX_BIT == 0).then_some((high << 4) | low)
}

fn push_hex(bytes: &[u8], digits: &[u8; 16], out: &mut Vec<u8>) {
    for byte in bytes {
        out.push(digits[(byte >> 4) as usize]);
        out.push(digits[(byte & 0x0f) as usize]);
    }
}

fn push_uuid(bytes: &[u8], digits: &[u8; 16], out: &mut Vec<u8>) {
    for (i, part) in [0..4, 4..6, 6..8, 8..10, 10..16].into_iter().enumerate() {
        if i > 0 {
            out.push(b'-');
        }
        push_hex(&bytes[part], digits, out);
    }
}

/// A key as an entry holds it.
#[derive(Debug, Default)]
pub(crate) enum StoredKey {
    /// No key: the entry is free.
    #[default]
    Vacant,
    Packed(Packed),
    Long(Box<[u8]>),
}

impl StoredKey {
    /// Whether this is the key that was asked for.
    pub(crate) fn is(&self, key: &Key<'_>) -> bool {
        match (self, &key.id) {
            (Self::Packed(stored), Identity::Packed(asked)) => stored == asked,
            (Self::Long(stored), Identity::Long) => **stored == *key.bytes,
            _ => false,
        }
    }

    /// Appends the key's original bytes.
    pub(crate) fn write_to(&self, out: &mut Vec<u8>) {
        match self {
            Self::Vacant => {}
            Self::Packed(packed) => packed.unpack(out),
            Self::Long(bytes) => out.extend_from_slice(bytes),
        }
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        match self {
            Self::Long(bytes) => bytes.len(),
            Self::Vacant | Self::Packed(_) => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECRET: Secret = Secret::new([7; SECRET_BYTES]);

    fn round_trip(bytes: &[u8]) -> (bool, Vec<u8>) {
        let key = SECRET.key(bytes);
        let stored = key.to_stored();
        assert!(stored.is(&key));
        let mut out = Vec::new();
        stored.write_to(&mut out);
        (matches!(stored, StoredKey::Packed(_)), out)
    }

    #[test]
    fn usual_shapes_are_packed_and_come_back_as_they_were() {
        for (text, packs) in [
            ("", true),
            ("a", true),
            ("order-123456789", true),
            ("0123456789abcdef", true),
            ("507f1f77bcf86cd799439011", true),
            ("d41d8cd98f00b204e9800998ecf8427e", true),
            ("12345678901234567", true),
            ("18446744073709551615", true),
            ("1844674407370955161", true),
            ("01234567890123456", false),
            ("D41D8CD98F00B204E9800998ECF8427E", false),
            ("38101a0b-2096-447d-96ea-a692162415ae", true),
            ("38101A0B-2096-447D-96EA-A692162415AE", true),
            ("38101a0b-2096-447D-96ea-a692162415ae", false),
            ("11111111-2222-3333-4444-555555555555", true),
            ("38101a0b02096-447d-96ea-a692162415ae", false),
            ("38101a0b-2096-447d-96ea-a692162415ag", false),
            ("01ARZ3NDEKTSV4RRFFQ69G5FAV", false),
        ] {
            assert_eq!(
                round_trip(text.as_bytes()),
                (packs, text.as_bytes().to_vec()),
                "{text}"
            );
        }
    }

    /// Keys that look alike: the shapes above and their neighbours.
    fn lookalike() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..40),
            "[0-9a-f]{14,34}".prop_map(String::into_bytes),
            "[0-9A-Fa-f]{14,34}".prop_map(String::into_bytes),
            "[0-9]{14,22}".prop_map(String::into_bytes),
            "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
                .prop_map(String::into_bytes),
            "[0-9A-F]{8}-[0-9A-F]{4}-[0-9A-F]{4}-[0-9A-F]{4}-[0-9A-F]{12}"
                .prop_map(String::into_bytes),
            "[0-9A-Fa-f-]{36}".prop_map(String::into_bytes),
        ]
    }

    proptest! {
        #[test]
        fn every_key_comes_back(bytes in lookalike()) {
            prop_assert_eq!(round_trip(&bytes).1, bytes);
        }

        #[test]
        fn two_keys_are_one_only_if_their_bytes_are(a in lookalike(), b in lookalike()) {
            prop_assert_eq!(SECRET.key(&a).to_stored().is(&SECRET.key(&b)), a == b);
        }
    }
}
