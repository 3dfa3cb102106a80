//! Which keys a run asks about: their shape, and which of them are repeats.
//!
//! A key is a number, its id, until it is written; the text follows from the seed and the id
//! alone. So a run holds no table of keys, a repeat costs no memory, and the same seed asks for
//! the same keys again.
//!
//! **How repeats are chosen.** Each thread draws from a [`KeyStream`] that all its connections
//! share. Every draw is a repeat with the asked probability, independently of all others; a
//! repeat takes one of the keys this thread has used before, each with the same chance, whichever
//! connection used it. The first draw of a thread cannot be a repeat. Threads never share keys,
//! so the number of different keys, and with it the number of `NEW` answers a fresh server owes,
//! is known exactly.
//!
//! With a key space instead, every draw takes one of its N keys with the same chance; all threads
//! draw from the same N.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use thiserror::Error;

/// What a key looks like; every key of a shape has the same length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyShape {
    /// A version 4 UUID in its 36-character form.
    Uuid,
    /// A ULID: 26 characters of Crockford's base 32, of which the first ten tell a time that
    /// goes on as keys do.
    Ulid,
    /// This many decimal digits: consecutive numbers from a start that depends on the seed.
    Int(usize),
    /// This many lower-case hex digits.
    Hex(usize),
    /// This many random characters of `A-Z a-z 0-9 - _`.
    Random(usize),
    /// This many random bytes, of all values: for protocols that announce a key's length.
    Binary(usize),
    /// An address of this many characters: the same host and folder, then random characters.
    Url(usize),
}

/// The shapes in words, for help and errors.
pub(super) const SHAPES: &str = "uuid, ulid, int or intN (N digits, ascending, 8 to 19; int is \
    int16), hexN, randomN (letters, digits, - and _), binaryN (bytes of all values, with \
    --protocol resp) or urlN; N from 16 to 8192, for binaryN from 8, for urlN from 48";

/// A text that names no key shape.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("'{0}' is no key shape: write {SHAPES}")]
pub(super) struct KeyShapeError(String);

/// `int` without a number of digits.
const INT_DIGITS_DEFAULT: usize = 16;
/// Fewer digits are soon used up, more do not fit 64 bits.
const INT_DIGITS: RangeInclusive<usize> = 8..=19;
/// Shorter keys could collide by chance: 16 hex digits carry 64 bits, all of them used.
const TEXT_BYTES: RangeInclusive<usize> = 16..=LENGTH_MAX;
/// As many bits, in as few bytes as there can be.
const BINARY_BYTES: RangeInclusive<usize> = 8..=LENGTH_MAX;
/// [`URL_HEAD`] and random characters enough.
const URL_BYTES: RangeInclusive<usize> = 48..=LENGTH_MAX;
/// The server's default limit on a key, in bytes.
const LENGTH_MAX: usize = 8_192;

impl KeyShape {
    /// The length of every key of this shape, in bytes.
    pub(super) const fn key_bytes(self) -> usize {
        match self {
            Self::Uuid => 36,
            Self::Ulid => 26,
            Self::Int(len)
            | Self::Hex(len)
            | Self::Random(len)
            | Self::Binary(len)
            | Self::Url(len) => len,
        }
    }

    /// Whether every key is printable and without spaces, as line protocols want it.
    pub(super) const fn is_text(self) -> bool {
        !matches!(self, Self::Binary(_))
    }

    /// How many different keys there are before they start over; `None` when no run uses them up.
    pub(super) const fn keys_max(self) -> Option<u64> {
        match self {
            Self::Int(digits) => Some(int_span(digits)),
            _ => None,
        }
    }
}

impl FromStr for KeyShape {
    type Err = KeyShapeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || KeyShapeError(text.to_owned());
        match text {
            "uuid" => return Ok(Self::Uuid),
            "ulid" => return Ok(Self::Ulid),
            "int" => return Ok(Self::Int(INT_DIGITS_DEFAULT)),
            _ => {}
        }
        let digits_at = text
            .find(|c: char| !c.is_ascii_lowercase())
            .ok_or_else(refused)?;
        let (name, digits) = text.split_at(digits_at);
        let (shape, allowed): (fn(usize) -> Self, _) = match name {
            "int" => (Self::Int, INT_DIGITS),
            "hex" => (Self::Hex, TEXT_BYTES),
            "random" => (Self::Random, TEXT_BYTES),
            "binary" => (Self::Binary, BINARY_BYTES),
            "url" => (Self::Url, URL_BYTES),
            _ => return Err(refused()),
        };
        let known = digits.bytes().all(|b| b.is_ascii_digit());
        digits
            .parse()
            .ok()
            .filter(|len| known && allowed.contains(len))
            .map(shape)
            .ok_or_else(refused)
    }
}

impl fmt::Display for KeyShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uuid => f.write_str("uuid"),
            Self::Ulid => f.write_str("ulid"),
            Self::Int(INT_DIGITS_DEFAULT) => f.write_str("int"),
            Self::Int(len) => write!(f, "int{len}"),
            Self::Hex(len) => write!(f, "hex{len}"),
            Self::Random(len) => write!(f, "random{len}"),
            Self::Binary(len) => write!(f, "binary{len}"),
            Self::Url(len) => write!(f, "url{len}"),
        }
    }
}

/// Where the next key comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Draw {
    /// A key used before with this probability, in percent (0 to 100), else a fresh one.
    Repeat(f64),
    /// One of this many keys (at least 1), each with the same chance.
    Space(u64),
}

/// The keys one thread asks about, in order.
#[derive(Debug)]
pub(super) struct KeyStream {
    writer: KeyWriter,
    rng: SplitMix64,
    source: Source,
    thread: u64,
    threads: u64,
    fresh: u64,
}

#[derive(Clone, Copy, Debug)]
enum Source {
    /// A repeat when the next random number is below this.
    Repeat(u64),
    Space(u64),
}

impl KeyStream {
    /// The stream of thread number `thread` out of `threads`.
    ///
    /// # Panics
    ///
    /// When `thread` is not below `threads`, or the draw is out of the bounds [`Draw`] names.
    pub(super) fn new(shape: KeyShape, draw: Draw, seed: u64, thread: u64, threads: u64) -> Self {
        assert!(thread < threads, "threads are numbered from 0");
        let source = match draw {
            Draw::Repeat(percent) => {
                assert!((0.0..=100.0).contains(&percent), "a share in percent");
                Source::Repeat(share_of_u64(percent / 100.0))
            }
            Draw::Space(keys) => {
                assert!(keys > 0, "there must be a key to draw");
                Source::Space(keys)
            }
        };
        Self {
            writer: KeyWriter::new(shape, seed),
            rng: SplitMix64(mix(seed ^ mix(thread + 1))),
            source,
            thread,
            threads,
            fresh: 0,
        }
    }

    /// Appends the next key to `out`.
    pub(super) fn write_next(&mut self, out: &mut Vec<u8>) {
        let id = self.next_id();
        self.writer.write(id, out);
    }

    /// How many different keys were drawn so far; `None` with a key space, where that is not
    /// tracked.
    pub(super) fn fresh(&self) -> Option<u64> {
        match self.source {
            Source::Repeat(_) => Some(self.fresh),
            Source::Space(_) => None,
        }
    }

    fn next_id(&mut self) -> u64 {
        let nth = match self.source {
            Source::Space(keys) => return self.rng.below(keys),
            Source::Repeat(share) if self.fresh > 0 && self.rng.next() < share => {
                self.rng.below(self.fresh)
            }
            Source::Repeat(_) => {
                self.fresh += 1;
                self.fresh - 1
            }
        };
        nth * self.threads + self.thread
    }
}

/// Turns ids into keys.
#[derive(Clone, Copy, Debug)]
struct KeyWriter {
    shape: KeyShape,
    seed: u64,
    /// How far above the smallest number of its length an `int` key begins.
    int_offset: u64,
}

/// How many numbers have so many digits.
const fn int_span(digits: usize) -> u64 {
    9 * int_min(digits)
}

/// The smallest number with so many digits.
const fn int_min(digits: usize) -> u64 {
    10_u64.pow(digits as u32 - 1)
}

/// Milliseconds of the Unix time of the first ULID, the start of 2026, and how many have the same.
const ULID_MS: u64 = 1_767_225_600_000;
const ULIDS_PER_MS: u64 = 16;
const CROCKFORD: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// What every address begins with.
const URL_HEAD: &[u8] = b"https://www.example.com/events/";

/// Two hex digits for each byte.
const HEX_PAIRS: [[u8; 2]; 256] = {
    let digits = b"0123456789abcdef";
    let mut pairs = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        pairs[byte] = [digits[byte >> 4], digits[byte & 15]];
        byte += 1;
    }
    pairs
};

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

impl KeyWriter {
    fn new(shape: KeyShape, seed: u64) -> Self {
        let int_offset = match shape {
            // The upper ninth stays free, so that short runs ascend without starting over.
            KeyShape::Int(digits) => mix(seed) % (8 * int_min(digits)),
            _ => 0,
        };
        Self {
            shape,
            seed: mix(seed),
            int_offset,
        }
    }

    fn write(&self, id: u64, out: &mut Vec<u8>) {
        match self.shape {
            KeyShape::Uuid => out.extend_from_slice(&self.uuid(id)),
            KeyShape::Ulid => out.extend_from_slice(&self.ulid(id)),
            KeyShape::Int(len) => self.write_int(id, len, out),
            KeyShape::Hex(len) => self.write_hex(id, len, out),
            KeyShape::Random(len) => self.write_random(id, len, out),
            KeyShape::Binary(len) => self.write_binary(id, len, out),
            KeyShape::Url(len) => {
                out.extend_from_slice(URL_HEAD);
                self.write_random(id, len - URL_HEAD.len(), out);
            }
        }
    }

    /// Number `index` of the words a key is made of. Word 0 differs for any two ids, because
    /// `mix` is a bijection.
    fn word(&self, id: u64, index: u64) -> u64 {
        let start = mix(self.seed.wrapping_add(id.wrapping_mul(GOLDEN_GAMMA)));
        if index == 0 {
            start
        } else {
            mix(start.wrapping_add(index.wrapping_mul(GOLDEN_GAMMA)))
        }
    }

    fn uuid(&self, id: u64) -> [u8; 36] {
        let high = self.word(id, 0) & !0xf000 | 0x4000;
        let low = self.word(id, 1) & !(0b11 << 62) | 0b10 << 62;
        let (high, low) = (hex(high), hex(low));
        let mut text = [b'-'; 36];
        text[..8].copy_from_slice(&high[..8]);
        text[9..13].copy_from_slice(&high[8..12]);
        text[14..18].copy_from_slice(&high[12..]);
        text[19..23].copy_from_slice(&low[..4]);
        text[24..].copy_from_slice(&low[4..]);
        text
    }

    fn ulid(&self, id: u64) -> [u8; 26] {
        let time = u128::from(ULID_MS + id / ULIDS_PER_MS) << 80;
        let random = u128::from(self.word(id, 0)) << 16 | u128::from(self.word(id, 1) >> 48);
        let mut left = time | random;
        let mut text = [b'0'; 26];
        for digit in text.iter_mut().rev() {
            *digit = CROCKFORD[(left & 31) as usize];
            left >>= 5;
        }
        text
    }

    fn write_int(&self, id: u64, len: usize, out: &mut Vec<u8>) {
        let mut number = int_min(len) + (self.int_offset + id) % int_span(len);
        let start = out.len();
        out.resize(start + len, b'0');
        for digit in out[start..].iter_mut().rev() {
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
        }
    }

    fn write_binary(&self, id: u64, len: usize, out: &mut Vec<u8>) {
        let end = out.len() + len;
        for index in 0.. {
            let bytes = self.word(id, index).to_le_bytes();
            out.extend_from_slice(&bytes[..bytes.len().min(end - out.len())]);
            if out.len() == end {
                return;
            }
        }
    }

    fn write_hex(&self, id: u64, len: usize, out: &mut Vec<u8>) {
        let mut left = len;
        for index in 0.. {
            let digits = hex(self.word(id, index));
            let take = left.min(digits.len());
            out.extend_from_slice(&digits[..take]);
            left -= take;
            if left == 0 {
                return;
            }
        }
    }

    fn write_random(&self, id: u64, len: usize, out: &mut Vec<u8>) {
        let end = out.len() + len;
        out.reserve(len);
        for index in 0.. {
            let mut word = self.word(id, index);
            // Ten characters of six bits; the last four bits of each word stay unused.
            for _ in 0..10.min(end - out.len()) {
                out.push(ALPHABET[(word & 63) as usize]);
                word >>= 6;
            }
            if out.len() == end {
                return;
            }
        }
    }
}

fn hex(word: u64) -> [u8; 16] {
    let mut text = [0; 16];
    for (pair, byte) in text
        .as_chunks_mut::<2>()
        .0
        .iter_mut()
        .zip(word.to_be_bytes())
    {
        *pair = HEX_PAIRS[usize::from(byte)];
    }
    text
}

/// Sebastiano Vigna's splitmix64 (public domain, <https://prng.di.unimi.it/splitmix64.c>): one
/// addition and one [`mix`] per number, so that drawing keys never limits a run.
#[derive(Debug)]
struct SplitMix64(u64);

const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN_GAMMA);
        mix(self.0)
    }

    /// A number below `bound`, by multiplication; the bias is at most bound / 2^64.
    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// `share` (0 to 1) of the range of `u64`.
#[allow(clippy::cast_sign_loss)] // the share is not negative; the cast saturates at the top
fn share_of_u64(share: f64) -> u64 {
    (share * 18_446_744_073_709_551_616.0) as u64
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn keys(shape: &str, draw: Draw, seed: u64, count: usize) -> Vec<String> {
        stream_keys(
            &mut KeyStream::new(shape.parse().unwrap(), draw, seed, 0, 1),
            count,
        )
    }

    fn stream_keys(stream: &mut KeyStream, count: usize) -> Vec<String> {
        stream_bytes(stream, count)
            .into_iter()
            .map(|key| String::from_utf8(key).unwrap())
            .collect()
    }

    fn stream_bytes(stream: &mut KeyStream, count: usize) -> Vec<Vec<u8>> {
        (0..count)
            .map(|_| {
                let mut key = Vec::new();
                stream.write_next(&mut key);
                key
            })
            .collect()
    }

    fn distinct(keys: &[String]) -> usize {
        keys.iter().collect::<HashSet<_>>().len()
    }

    #[test]
    fn the_repeat_share_is_what_was_asked() {
        for percent in [0.0, 0.5, 30.0, 50.0, 99.0] {
            let mut stream = KeyStream::new(KeyShape::Uuid, Draw::Repeat(percent), 7, 0, 1);
            let keys = stream_keys(&mut stream, 100_000);
            let repeats = keys.len() - distinct(&keys);
            let share = repeats as f64 / keys.len() as f64 * 100.0;
            // Five standard deviations of the binomial at 50% are 0.8 points.
            assert!((share - percent).abs() < 0.8, "{percent}% gave {share}%");
            assert_eq!(stream.fresh(), Some(distinct(&keys) as u64));
        }
        assert_eq!(distinct(&keys("int", Draw::Repeat(0.0), 1, 50_000)), 50_000);
        assert_eq!(distinct(&keys("int", Draw::Repeat(100.0), 1, 1_000)), 1);
    }

    #[test]
    fn repeats_reach_back_over_the_whole_run() {
        let keys = keys("uuid", Draw::Repeat(50.0), 3, 20_000);
        let early: HashSet<_> = keys[..2_000].iter().collect();
        let late_repeats_of_early = keys[18_000..]
            .iter()
            .filter(|key| early.contains(key))
            .count();
        // Half of 2,000 are repeats, and about a tenth of those reach into the first tenth.
        assert!(
            (50..200).contains(&late_repeats_of_early),
            "{late_repeats_of_early}"
        );
    }

    #[test]
    fn threads_never_share_keys() {
        let mut all = HashSet::new();
        let mut fresh = 0;
        for thread in 0..3 {
            let mut stream = KeyStream::new(KeyShape::Hex(24), Draw::Repeat(20.0), 9, thread, 3);
            all.extend(stream_keys(&mut stream, 5_000));
            fresh += stream.fresh().unwrap();
        }
        assert_eq!(all.len() as u64, fresh);
    }

    #[test]
    fn a_key_space_is_drawn_evenly_and_completely() {
        let keys = keys("int", Draw::Space(10), 5, 10_000);
        assert_eq!(distinct(&keys), 10);
        for key in keys.iter().collect::<HashSet<_>>() {
            let times = keys.iter().filter(|other| *other == key).count();
            assert!((800..1_200).contains(&times), "{key} came {times} times");
        }
        let stream = KeyStream::new(KeyShape::Int(16), Draw::Space(10), 5, 0, 1);
        assert_eq!(stream.fresh(), None);
    }

    #[test]
    fn keys_have_their_shape() {
        let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        for key in keys("uuid", Draw::Repeat(0.0), 11, 1_000) {
            assert_eq!(key.len(), 36);
            for (at, byte) in key.bytes().enumerate() {
                match at {
                    8 | 13 | 18 | 23 => assert_eq!(byte, b'-', "{key}"),
                    14 => assert_eq!(byte, b'4', "{key}"),
                    19 => assert!(b"89ab".contains(&byte), "{key}"),
                    _ => assert!(is_hex(byte), "{key}"),
                }
            }
        }
        for (shape, len) in [("hex24", 24), ("hex64", 64), ("hex17", 17)] {
            for key in keys(shape, Draw::Repeat(0.0), 11, 100) {
                assert!(key.len() == len && key.bytes().all(is_hex), "{key}");
            }
        }
        for (shape, len) in [("random16", 16), ("random8192", 8_192)] {
            for key in keys(shape, Draw::Repeat(0.0), 11, 100) {
                assert_eq!(key.len(), len);
                assert!(key.bytes().all(|b| ALPHABET.contains(&b)), "{key}");
            }
        }
        for key in keys("url100", Draw::Repeat(0.0), 11, 100) {
            let tail = key.strip_prefix("https://www.example.com/events/").unwrap();
            assert!(key.len() == 100 && tail.bytes().all(|b| ALPHABET.contains(&b)));
        }
        for (shape, len) in [("int", 16), ("int8", 8), ("int19", 19)] {
            let keys = keys(shape, Draw::Repeat(0.0), 11, 100);
            assert!(keys.iter().all(|key| key.len() == len), "{keys:?}");
            let numbers: Vec<u64> = keys.iter().map(|key| key.parse().unwrap()).collect();
            assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1));
            assert!(numbers[0] >= int_min(len));
        }
    }

    #[test]
    fn ulids_tell_an_ascending_time() {
        let keys = keys("ulid", Draw::Repeat(0.0), 11, 1_000);
        for key in &keys {
            assert!(key.len() == 26 && key.bytes().all(|b| CROCKFORD.contains(&b)));
            // 130 bits are written, 128 are there.
            assert!(key.as_bytes()[0] <= b'7', "{key}");
        }
        let times: Vec<_> = keys.iter().map(|key| &key[..10]).collect();
        assert!(times.is_sorted() && times[0] < times[999]);
        assert_eq!(times[0], "01KDVDNA00");
        assert_eq!(distinct(&keys), 1_000);
    }

    #[test]
    fn binary_keys_have_all_values_and_differ() {
        for (shape, len) in [(KeyShape::Binary(8), 8), (KeyShape::Binary(21), 21)] {
            let mut stream = KeyStream::new(shape, Draw::Repeat(0.0), 11, 0, 1);
            let keys = stream_bytes(&mut stream, 5_000);
            assert!(keys.iter().all(|key| key.len() == len));
            assert_eq!(keys.iter().collect::<HashSet<_>>().len(), keys.len());
            let values: HashSet<u8> = keys.concat().into_iter().collect();
            assert_eq!(values.len(), 256);
        }
    }

    #[test]
    fn numbers_start_over_only_when_all_were_used() {
        let writer = KeyWriter::new(KeyShape::Int(8), 3);
        let key = |id| {
            let mut key = Vec::new();
            writer.write(id, &mut key);
            key
        };
        let keys_max = KeyShape::Int(8).keys_max().unwrap();
        assert_eq!(keys_max, 90_000_000);
        assert_ne!(key(0), key(keys_max - 1));
        assert_eq!(key(0), key(keys_max));
    }

    #[test]
    fn every_shape_names_its_length_and_reads_back() {
        for shape in [
            "uuid",
            "ulid",
            "int",
            "int8",
            "int19",
            "hex24",
            "hex64",
            "random16",
            "random250",
            "binary8",
            "binary16",
            "url48",
            "url100",
        ] {
            let parsed: KeyShape = shape.parse().unwrap();
            assert_eq!(parsed.to_string(), shape);
            let mut stream = KeyStream::new(parsed, Draw::Repeat(0.0), 1, 0, 1);
            let keys = stream_bytes(&mut stream, 1);
            assert_eq!(keys[0].len(), parsed.key_bytes(), "{shape}");
        }
        assert_eq!("int16".parse(), Ok(KeyShape::Int(16)));
        for text in [
            "",
            "UUID",
            "hex",
            "hex15",
            "hex8193",
            "hex+24",
            "random",
            "random-1",
            "random99999999999999999999",
            "int7",
            "int20",
            "int+8",
            "binary7",
            "url47",
            "ulid26",
            "16",
            "hëx24",
        ] {
            assert!(text.parse::<KeyShape>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_seed_decides_the_keys() {
        let draw = Draw::Repeat(30.0);
        for shape in ["uuid", "ulid", "int", "hex24", "random16", "url64"] {
            assert_eq!(keys(shape, draw, 1, 100), keys(shape, draw, 1, 100));
            let both: HashSet<_> = keys(shape, draw, 1, 100)
                .into_iter()
                .chain(keys(shape, draw, 2, 100))
                .collect();
            assert!(both.len() > 120, "{shape}: seeds share keys");
        }
    }
}
