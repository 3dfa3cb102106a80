//! A key's identity: how its bytes are kept, compared and hashed.
//!
//! Keys are compared exactly, never by hash. Most real keys have a shape that fits 16 bytes
//! without loss (short words, UUID text, ULIDs, hex digests, 16 raw bytes, decimal ids), so a
//! UUID of 36 characters costs what a 16-byte id costs; everything else is kept on the heap.
//!
//! Packing is a function of the bytes alone, and the kind is part of the identity: two keys
//! are equal exactly when their kinds and packed forms are. A spelling that a kind cannot give
//! back (a UUID of mixed case, a number with leading zeros) is another kind or goes to the heap.
//!
//! A namespace may choose to keep only a keyed 128-bit digest of the keys that do not fit
//! ([`Secret::key_or_digest`]): then, and only then, two keys can be mistaken for one another.

use siphasher::sip128::SipHasher24;
use xxhash_rust::xxh3::xxh3_64_with_secret;

use crate::eight::{TOPS, all, not_decimal};

/// Bytes of the secret that hashing takes; xxh3 asks for at least 136.
pub const SECRET_BYTES: usize = 192;
/// Those of them that choose places. Where a key lies can be told from outside, by the cursors of a
/// scan, and xxh3 is no cipher; so the others, which key the digests, have no part in it.
const PLACE_BYTES: usize = SECRET_BYTES - DIGEST_KEY_BYTES;
const DIGEST_KEY_BYTES: usize = 16;

/// The random bytes that keep an outsider from steering keys into one shard or slot, or from
/// finding two keys with one digest.
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
    #[inline]
    pub fn key<'a>(&'a self, bytes: &'a [u8]) -> Key<'a> {
        self.hashed(bytes, false).of(bytes, self)
    }

    /// The same, but a key that does not fit 16 bytes is its digest from here on.
    ///
    /// The digest is SipHash-2-4 with 128 bits of output under a secret key. Among n such keys
    /// the odds that any two share one are about n² / 2^129: one in 6.8 * 10^18 for 10 billion.
    #[inline]
    pub fn key_or_digest<'a>(&'a self, bytes: &'a [u8]) -> Key<'a> {
        self.hashed(bytes, true).of(bytes, self)
    }

    /// What remains of either key without its bytes: with `digests`, of that which may be a digest.
    pub fn hashed(&self, bytes: &[u8], digests: bool) -> Hashed {
        let packed = match Packed::of(bytes) {
            Some(packed) => packed,
            None if digests => self.digest(bytes),
            None => {
                return Hashed {
                    hash: spread(xxh3_64_with_secret(bytes, self.places())),
                    packed: Packed::ASIDE,
                };
            }
        };
        Hashed {
            hash: self.hash(packed.id),
            packed,
        }
    }

    /// A key that does not fit 16 bytes, under a hash of one's choice: as if it had been steered there.
    #[cfg(test)]
    pub(super) fn steered_key<'a>(&'a self, bytes: &'a [u8], hash: u64) -> Key<'a> {
        assert!(self.key(bytes).is_long());
        Key {
            hash,
            ..self.key(bytes)
        }
    }

    /// The hash of a key that fits 16 bytes, from those.
    #[inline]
    pub(super) fn hash(&self, id: Id) -> u64 {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&id[0].to_le_bytes());
        bytes[8..].copy_from_slice(&id[1].to_le_bytes());
        spread(xxh3_64_with_secret(&bytes, self.places()))
    }

    #[inline]
    fn places(&self) -> &[u8] {
        &self.0[..PLACE_BYTES]
    }

    fn digest(&self, bytes: &[u8]) -> Packed {
        let mut key = [0; DIGEST_KEY_BYTES];
        key.copy_from_slice(&self.0[PLACE_BYTES..]);
        let digest = SipHasher24::new_with_key(&key).hash(bytes);
        Packed {
            id: [digest.h1, digest.h2],
            kind: Kind::Digest,
        }
    }
}

/// Makes the upper half of a hash, which chooses a segment, twice as dense at its end as at its
/// beginning, with all densities between.
///
/// Segments are equal parts of that space, and grow when they are full. Evenly filled, they would all
/// do so at about the same time, and the whole table would be nearly full or a third empty; so they
/// do it one after the other, and its memory grows in proportion to its keys. As in G. Martin,
/// "Spiral Storage" (1979); the logarithm there is a parabola here, and near enough: the
/// densities' ratio is 2.05.
#[inline]
fn spread(hash: u64) -> u64 {
    const ONE: u64 = 1 << 32;
    /// How far the parabola leaves the diagonal: log2(1 + x) is about x + 0.344 x (1 - x).
    const BEND: u64 = ONE * 344 / 1_000;
    let even = hash >> 32;
    let bent = even + ((((even * (ONE - 1 - even)) >> 32) * BEND) >> 32);
    bent << 32 | hash & (ONE - 1)
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// A key of a request: borrowed, packed and hashed once.
#[derive(Clone, Copy, Debug)]
pub struct Key<'a> {
    pub(super) hash: u64,
    /// Of kind [`Kind::Aside`] if the key does not fit.
    pub(super) packed: Packed,
    bytes: &'a [u8],
    pub(super) secret: &'a Secret,
}

/// A key as a log keeps it: without anything that depends on a run's secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoggedKey<'a> {
    /// A key that fits 16 bytes.
    Packed {
        /// How they are to be read: the number of a `Kind`, below [`PACKED_FORMS`].
        form: u8,
        /// Those bytes.
        id: [u8; 16],
    },
    /// Any other key as it was sent.
    Bytes(&'a [u8]),
}

/// Forms of keys that fit 16 bytes.
pub const PACKED_FORMS: u8 = 6;

impl<'a> LoggedKey<'a> {
    /// A packed key as it was read; `None` if no key looks like that.
    #[inline]
    pub fn packed(form: u8, id: [u8; 16]) -> Option<Self> {
        (form < PACKED_FORMS && (form != Kind::Short as u8 || is_short(&id)))
            .then_some(Self::Packed { form, id })
    }

    /// Appends the key's bytes as they were sent.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Packed { form, id } => {
                let is_known = Packed::new(id, Kind::of(form.into())).write_to(out);
                debug_assert!(is_known, "forms below PACKED_FORMS hold the whole key");
            }
            Self::Bytes(bytes) => out.extend_from_slice(bytes),
        }
    }

    /// What remains of the key without its bytes, where long keys are digests if `digests` says so.
    #[inline]
    pub fn hashed(&self, secret: &Secret, digests: bool) -> Hashed {
        match *self {
            Self::Packed { form, id } => {
                Hashed::of_packed(Packed::new(id, Kind::of(form.into())), secret)
            }
            Self::Bytes(bytes) => secret.hashed(bytes, digests),
        }
    }

    /// The bytes that a [`Hashed`] of this key needs to be a [`Key`] again, beside itself.
    #[inline]
    pub fn long_bytes(&self) -> &'a [u8] {
        match *self {
            Self::Packed { .. } => &[],
            Self::Bytes(bytes) => bytes,
        }
    }
}

/// Whether 16 bytes can be a [`Kind::Short`].
fn is_short(id: &[u8; 16]) -> bool {
    let (form, len) = (id[SHORT_AT] & 0xf0, usize::from(id[SHORT_AT] & 0x0f));
    let used = match form {
        SHORT_RAW | SHORT_HEX => len,
        SHORT_DECIMAL if len == 0 => size_of::<u64>(),
        _ => return false,
    };
    id[used..SHORT_AT].iter().all(|&byte| byte == 0)
}

/// The lowest hash bit that chooses a shard; those below choose a bucket, those above a segment.
const SHARD_SHIFT: u32 = 16;

impl<'a> Key<'a> {
    /// The key as it was sent.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The hash bits that choose a shard; the table inside uses others.
    #[inline]
    pub fn shard_bits(&self) -> u32 {
        self.hashed().shard_bits()
    }

    /// The key as a log keeps it.
    #[inline]
    pub fn logged(&self) -> LoggedKey<'a> {
        match self.packed.kind {
            Kind::Digest | Kind::Aside => LoggedKey::Bytes(self.bytes),
            kind => LoggedKey::Packed {
                form: kind as u8,
                id: self.packed.bytes(),
            },
        }
    }

    /// What remains of the key without its bytes.
    #[inline]
    pub fn hashed(&self) -> Hashed {
        Hashed {
            hash: self.hash,
            packed: self.packed,
        }
    }

    /// Whether the key does not fit 16 bytes.
    pub fn is_long(&self) -> bool {
        self.packed.kind == Kind::Aside
    }
}

/// A key's identity and hash, while its bytes lie elsewhere.
#[derive(Clone, Copy, Debug)]
pub struct Hashed {
    pub(super) hash: u64,
    packed: Packed,
}

impl Hashed {
    /// Of a key that fits 16 bytes.
    pub(super) fn of_packed(packed: Packed, secret: &Secret) -> Self {
        Self {
            hash: secret.hash(packed.id),
            packed,
        }
    }

    /// The key again, with the bytes and the secret that this came from.
    #[inline]
    pub fn of<'a>(&self, bytes: &'a [u8], secret: &'a Secret) -> Key<'a> {
        Key {
            hash: self.hash,
            packed: self.packed,
            bytes,
            secret,
        }
    }

    /// The hash bits that choose a shard; the table inside uses others.
    #[inline]
    pub fn shard_bits(&self) -> u32 {
        (self.hash >> SHARD_SHIFT) as u32
    }
}

/// A key within 16 bytes, as two numbers: compared as such.
pub(super) type Id = [u64; 2];

/// How 16 bytes are to be read back. The numbers below [`PACKED_FORMS`], and what they mean, are part of
/// the log's format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// Less than 16 bytes of content; the last byte says what it is (see [`SHORT_AT`]).
    Short,
    /// 16 bytes as they are.
    Raw16,
    /// 32 lower-case hex digits.
    Hex32,
    /// A hyphenated UUID in small letters.
    UuidLower,
    /// The same in capitals.
    UuidUpper,
    /// A ULID: 26 characters of Crockford's base 32, in capitals.
    Ulid,
    /// The digest of a key that cannot be given back.
    Digest,
    /// Not the key: its hash and where it is kept.
    Aside,
}

impl Kind {
    /// The kind of this number.
    #[inline]
    pub(super) fn of(number: u32) -> Self {
        match number & 7 {
            0 => Self::Short,
            1 => Self::Raw16,
            2 => Self::Hex32,
            3 => Self::UuidLower,
            4 => Self::UuidUpper,
            5 => Self::Ulid,
            6 => Self::Digest,
            _ => Self::Aside,
        }
    }
}

/// 16 bytes and how to read them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packed {
    pub(super) id: Id,
    pub(super) kind: Kind,
}

/// The byte of a [`Kind::Short`] that says what the others are: with [`SHORT_RAW`], that many bytes
/// as they are; with [`SHORT_HEX`], as hex digits; [`SHORT_DECIMAL`], a number of 8 bytes. It is
/// never 0, so that no key has the identity and kind of a vacant slot.
const SHORT_AT: usize = 15;
const SHORT_RAW: u8 = 0x30;
const SHORT_HEX: u8 = 0x10;
const SHORT_DECIMAL: u8 = 0x20;

const UUID_CHARS: usize = 36;
const UUID_DIGITS: usize = 32;
const UUID_HYPHENS: [usize; 4] = [8, 13, 18, 23];
const ULID_CHARS: usize = 26;
const LOWER: &[u8; 16] = b"0123456789abcdef";
const UPPER: &[u8; 16] = b"0123456789ABCDEF";
const CROCKFORD: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

impl Packed {
    /// What stands for a key that does not fit.
    const ASIDE: Self = Self {
        id: [0; 2],
        kind: Kind::Aside,
    };

    #[inline]
    fn of(bytes: &[u8]) -> Option<Self> {
        match bytes.len() {
            UUID_CHARS => Self::uuid(bytes),
            0..16 => Some(Self::short(bytes, SHORT_RAW | bytes.len() as u8)),
            16 => Some(Self::new(bytes.try_into().ok()?, Kind::Raw16)),
            17..=32 => Self::hex(bytes)
                .or_else(|| Self::decimal(bytes))
                .or_else(|| Self::ulid(bytes)),
            _ => None,
        }
    }

    #[inline]
    pub(super) fn new(bytes: [u8; 16], kind: Kind) -> Self {
        let wide = u128::from_le_bytes(bytes);
        Self {
            id: [wide as u64, (wide >> 64) as u64],
            kind,
        }
    }

    pub(super) fn bytes(&self) -> [u8; 16] {
        (u128::from(self.id[0]) | u128::from(self.id[1]) << 64).to_le_bytes()
    }

    /// Up to 15 bytes and what they are.
    #[inline]
    fn short(content: &[u8], form: u8) -> Self {
        let mut bytes = [0; 16];
        bytes[..content.len()].copy_from_slice(content);
        bytes[SHORT_AT] = form;
        Self::new(bytes, Kind::Short)
    }

    fn hex(key: &[u8]) -> Option<Self> {
        if !key.len().is_multiple_of(2) {
            return None;
        }
        // Eight digits at a time, the last eight from the end; some of them twice where that is no step of eight.
        let last = key.len().checked_sub(8)?;
        let mut bytes = [0; 16];
        for at in [0, 8.min(last), 16.min(last), last] {
            let digits = eight(key, at);
            if not_hex(digits) != 0 {
                return None;
            }
            bytes[at / 2..at / 2 + 4].copy_from_slice(&hex_bytes(digits));
        }
        Some(match key.len() / 2 {
            16 => Self::new(bytes, Kind::Hex32),
            used => {
                bytes[SHORT_AT] = SHORT_HEX | used as u8;
                Self::new(bytes, Kind::Short)
            }
        })
    }

    fn decimal(key: &[u8]) -> Option<Self> {
        if key[0] == b'0' {
            return None;
        }
        let number = crate::time::parse_u64(key)?;
        Some(Self::short(&number.to_le_bytes(), SHORT_DECIMAL))
    }

    fn ulid(key: &[u8]) -> Option<Self> {
        // 26 digits of 5 bits are 130: the first is at most 7.
        if key.len() != ULID_CHARS || key[0] > b'7' {
            return None;
        }
        let mut wide = 0_u128;
        let mut bad = 0;
        for &digit in key {
            let value = BASE32[usize::from(digit)];
            bad |= value;
            wide = wide << 5 | u128::from(value & 0x1f);
        }
        (bad & NOT_A_DIGIT == 0).then(|| Self::new(wide.to_le_bytes(), Kind::Ulid))
    }

    #[inline]
    fn uuid(key: &[u8]) -> Option<Self> {
        let key: &[u8; UUID_CHARS] = key.try_into().ok()?;
        if UUID_HYPHENS.iter().any(|&at| key[at] != b'-') {
            return None;
        }
        // The two parts of four digits on either side of the middle make eight with a neighbour.
        let digits = [
            eight(key, 0),
            four(key, 9) | four(key, 14) << 32,
            four(key, 19) | four(key, 24) << 32,
            eight(key, 28),
        ];
        // A UUID without any letter would fit both cases: small letters are tried first, so it has one form.
        let (id, kind) = match hex_id(digits) {
            Some(id) => (id, Kind::UuidLower),
            None => (hex_id(digits.map(other_case))?, Kind::UuidUpper),
        };
        Some(Self { id, kind })
    }

    /// Appends the key's original bytes; false, and nothing, if only a digest of them is known.
    pub(super) fn write_to(&self, out: &mut Vec<u8>) -> bool {
        let bytes = self.bytes();
        match self.kind {
            Kind::Short => write_short(&bytes, out),
            Kind::Raw16 => out.extend_from_slice(&bytes),
            Kind::Hex32 => push_hex(&bytes, LOWER, out),
            Kind::UuidLower => push_uuid(&hex_digits(self.id, LOWER), out),
            Kind::UuidUpper => push_uuid(&hex_digits(self.id, UPPER), out),
            Kind::Ulid => {
                let wide = u128::from_le_bytes(bytes);
                let digit = |i| CROCKFORD[(wide >> (5 * i)) as usize & 0x1f];
                out.extend((0..ULID_CHARS).rev().map(digit));
            }
            Kind::Digest | Kind::Aside => return false,
        }
        true
    }
}

fn write_short(bytes: &[u8; 16], out: &mut Vec<u8>) {
    let (form, len) = (bytes[SHORT_AT] & 0xf0, usize::from(bytes[SHORT_AT] & 0x0f));
    match form {
        SHORT_HEX => push_hex(&bytes[..len], LOWER, out),
        SHORT_DECIMAL => {
            let mut number = [0; 8];
            number.copy_from_slice(&bytes[..8]);
            out.extend_from_slice(u64::from_le_bytes(number).to_string().as_bytes());
        }
        _ => out.extend_from_slice(&bytes[..len]),
    }
}

/// Marks a byte that is no digit; a digit's value never has this bit.
const NOT_A_DIGIT: u8 = 0x80;

const fn digit_values(digits: &[u8]) -> [u8; 256] {
    let mut values = [NOT_A_DIGIT; 256];
    let mut i = 0;
    while i < digits.len() {
        values[digits[i] as usize] = i as u8;
        i += 1;
    }
    values
}

static BASE32: [u8; 256] = digit_values(CROCKFORD);

fn push_hex(bytes: &[u8], digits: &[u8; 16], out: &mut Vec<u8>) {
    for byte in bytes {
        out.push(digits[(byte >> 4) as usize]);
        out.push(digits[(byte & 0x0f) as usize]);
    }
}

fn push_uuid(digits: &[u8; UUID_DIGITS], out: &mut Vec<u8>) {
    for (i, part) in [0..8, 8..12, 12..16, 16..20, 20..32]
        .into_iter()
        .enumerate()
    {
        if i > 0 {
            out.push(b'-');
        }
        out.extend_from_slice(&digits[part]);
    }
}

/// 32 hex digits in small letters, eight to a word, as 16 bytes; `None` if one is none.
///
/// The digits of the first two words, and those of the other two, share bytes: the first of one and
/// the first of the other, and so on. Nothing has to be moved together for that.
#[inline]
fn hex_id(words: [u64; 4]) -> Option<Id> {
    let mut bad = 0;
    let values = words.map(|word| {
        bad |= not_hex(word);
        hex_values(word)
    });
    (bad == 0).then_some([values[0] << 4 | values[1], values[2] << 4 | values[3]])
}

/// The digits that [`hex_id`] made these 16 bytes of.
fn hex_digits(id: Id, digits: &[u8; 16]) -> [u8; UUID_DIGITS] {
    std::array::from_fn(|i| {
        let byte = id[i / 16].to_le_bytes()[i % 8];
        let value = if i % 16 < 8 { byte >> 4 } else { byte & 0x0f };
        digits[usize::from(value)]
    })
}

/// Sets the top bits of some of the bytes if any of the eight is no hex digit in small letters.
#[inline]
fn not_hex(word: u64) -> u64 {
    // Each sum sets its byte's top bit from `a` on, beyond `f`; what is no ASCII may carry into the
    // next byte, but is bad enough by itself.
    let from_a = word.wrapping_add(all(0x80 - b'a'));
    let beyond_f = word.wrapping_add(all(0x7f - b'f'));
    (not_decimal(word) & !(from_a & !beyond_f) | word) & TOPS
}

/// What eight hex digits stand for, in either case.
#[inline]
fn hex_values(word: u64) -> u64 {
    (word & all(0x0f)) + (word >> 6 & all(1)) * 9
}

/// The four bytes that eight hex digits spell.
#[inline]
fn hex_bytes(word: u64) -> [u8; 4] {
    let values = hex_values(word);
    // Neighbours make bytes, every other of which is moved to the one before.
    let bytes = (values << 4 | values >> 8) & 0x00ff_00ff_00ff_00ff;
    let pairs = (bytes | bytes >> 8) & 0x0000_ffff_0000_ffff;
    ((pairs | pairs >> 16) as u32).to_le_bytes()
}

/// Small letters for capitals and the other way round; nothing else becomes a hex digit.
#[inline]
fn other_case(word: u64) -> u64 {
    word ^ (word >> 1) & all(0x20)
}

/// Eight bytes in a register, the first one lowest.
#[inline]
fn eight(key: &[u8], at: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&key[at..at + 8]);
    u64::from_le_bytes(bytes)
}

/// The same with four.
#[inline]
fn four(key: &[u8], at: usize) -> u64 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&key[at..at + 4]);
    u64::from(u32::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECRET: Secret = Secret::new([7; SECRET_BYTES]);

    fn round_trip(bytes: &[u8]) -> (bool, Vec<u8>) {
        let key = SECRET.key(bytes);
        let mut out = Vec::new();
        let packs = key.packed.write_to(&mut out);
        assert_eq!(packs, !key.is_long());
        (packs, if packs { out } else { bytes.to_vec() })
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
            ("01ARZ3NDEKTSV4RRFFQ69G5FAV", true),
            ("7ZZZZZZZZZZZZZZZZZZZZZZZZZ", true),
            ("8ZZZZZZZZZZZZZZZZZZZZZZZZZ", false),
            ("01arz3ndektsv4rrffq69g5fav", false),
            ("01ARZ3NDEKTSV4RRFFQ69G5FAU", false),
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
            "[0-8][0-9A-TV-Z]{25}".prop_map(String::into_bytes),
        ]
    }

    proptest! {
        #[test]
        fn every_key_comes_back(bytes in lookalike()) {
            prop_assert_eq!(round_trip(&bytes).1, bytes);
        }

        #[test]
        fn uuids_and_digests_are_read_as_digit_by_digit(
            key in prop_oneof![
                "[0-9a-gA-G@`:/-]{32}",
                "([0-9a-f]{2}){9,16}",
                "[0-9a-gA-G]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
                "[0-9a-f]{8}(-[0-9a-gA-G@`:/-]{4}){3}-[0-9a-f]{12}",
                "[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9a-gA-G@`:/-]{12}",
            ]
        ) {
            let kind = Packed::of(key.as_bytes()).map(|packed| packed.kind);
            prop_assert_eq!(kind, kind_of_hex(key.as_bytes()));
        }

        #[test]
        fn two_keys_are_one_only_if_their_bytes_are(a in lookalike(), b in lookalike()) {
            let (a_key, b_key) = (SECRET.key(&a), SECRET.key(&b));
            let are_one = a_key.packed == b_key.packed && (!a_key.is_long() || a == b);
            prop_assert_eq!(are_one, a == b);
        }
    }

    /// What a UUID or an even number of hex digits is kept as, digit by digit; `None` if the key is neither.
    fn kind_of_hex(key: &[u8]) -> Option<Kind> {
        let small = |b: &u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        let capital = |b: &u8| matches!(b, b'0'..=b'9' | b'A'..=b'F');
        if key.len() != UUID_CHARS {
            let kind = if key.len() == 32 {
                Kind::Hex32
            } else {
                Kind::Short
            };
            return key.iter().all(small).then_some(kind);
        }
        let (hyphens, digits): (Vec<_>, Vec<_>) =
            (0..UUID_CHARS).partition(|at| UUID_HYPHENS.contains(at));
        if !hyphens.iter().all(|&at| key[at] == b'-') {
            return None;
        }
        if digits.iter().all(|&at| small(&key[at])) {
            Some(Kind::UuidLower)
        } else if digits.iter().all(|&at| capital(&key[at])) {
            Some(Kind::UuidUpper)
        } else {
            None
        }
    }

    #[test]
    fn a_hex_digit_is_told_from_every_other_byte_at_every_place() {
        for text in [
            "38101a0b-2096-447d-96ea-a692162415ae",
            "38101A0B-2096-447D-96EA-A692162415AE",
            "38101a0b-2096-447D-96ea-a692162415ae",
            "11111111-2222-3333-4444-555555555555",
            "d41d8cd98f00b204e9800998ecf8427e",
            "11111111222233334444555555555555",
            "507f1f77bcf86cd799439011ab",
            "507f1f77bcf86cd799439011",
            "507f1f77bcf86cd799",
        ] {
            for at in 0..text.len() {
                for byte in 0..=u8::MAX {
                    let mut key = text.as_bytes().to_vec();
                    key[at] = byte;
                    let packed = Packed::of(&key);
                    let kind = packed.map(|packed| packed.kind);
                    assert_eq!(kind, kind_of_hex(&key), "{}", key.escape_ascii());
                    assert_eq!(round_trip(&key).1, key);
                }
            }
        }
    }

    #[test]
    fn a_digest_stands_for_long_keys_alone_and_depends_on_the_secret() {
        let long = [b'x'; 100];
        let digest = SECRET.key_or_digest(&long).packed;
        assert_eq!(digest.kind, Kind::Digest);
        assert!(!digest.write_to(&mut Vec::new()));
        assert_ne!(digest, SECRET.key_or_digest(&[b'x'; 101]).packed);
        let other = Secret::new([8; SECRET_BYTES]);
        assert_ne!(digest, other.key_or_digest(&long).packed);
        let short = SECRET.key_or_digest(b"order-17").packed;
        assert_eq!(short, SECRET.key(b"order-17").packed);
    }

    #[test]
    fn places_and_digests_have_secrets_of_their_own() {
        let secret = |places: u8, digests: u8| {
            // Not all alike: for short keys, equal parts of a secret cancel each other out.
            let places = std::array::from_fn(|i| (i as u8).wrapping_mul(places));
            let mut bytes: [u8; SECRET_BYTES] = places;
            bytes[PLACE_BYTES..].fill(digests);
            Secret::new(bytes)
        };
        let (a, b, c) = (secret(1, 2), secret(3, 2), secret(1, 4));
        // So long that xxh3 takes in all of its secret.
        for len in [10, 100, 200, 5_000] {
            let key = vec![b'x'; len];
            assert_ne!(a.key(&key).hash, b.key(&key).hash, "{len}");
            assert_eq!(a.key(&key).hash, c.key(&key).hash, "{len}");
            assert_eq!(a.digest(&key), b.digest(&key), "{len}");
            assert_ne!(a.digest(&key), c.digest(&key), "{len}");
        }
    }
}
