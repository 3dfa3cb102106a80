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
use std::str::FromStr;

use thiserror::Error;

/// What a key looks like; every key of a shape has the same length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyShape {
    /// A version 4 UUID in its 36-character form.
    Uuid,
    /// 16 decimal digits: consecutive numbers from a start that depends on the seed.
    Int,
    /// This many lower-case hex digits.
    Hex(usize),
    /// This many random characters of `A-Z a-z 0-9 - _`.
    Random(usize),
}

/// A text that names no key shape.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "'{0}' is no key shape: write uuid, int, hexN or randomN with N from {LENGTH_MIN} to {LENGTH_MAX}, such as hex24, hex64 or random16"
)]
pub(super) struct KeyShapeError(String);

/// Shorter keys could collide by chance: 16 hex digits carry 64 bits, all of them used.
const LENGTH_MIN: usize = 16;
/// The server's default limit on a key, in bytes.
const LENGTH_MAX: usize = 8_192;

impl KeyShape {
    /// The length of every key of this shape, in bytes.
    pub(super) const fn key_bytes(self) -> usize {
        match self {
            Self::Uuid => 36,
            Self::Int => 16,
            Self::Hex(len) | Self::Random(len) => len,
        }
    }
}

impl FromStr for KeyShape {
    type Err = KeyShapeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let length = |digits: &str| {
            let known = digits.bytes().all(|b| b.is_ascii_digit());
            digits
                .parse::<usize>()
                .ok()
                .filter(|len| known && (LENGTH_MIN..=LENGTH_MAX).contains(len))
                .ok_or_else(|| KeyShapeError(text.to_owned()))
        };
        match text {
            "uuid" => Ok(Self::Uuid),
            "int" => Ok(Self::Int),
            _ => {
                if let Some(digits) = text.strip_prefix("hex") {
                    length(digits).map(Self::Hex)
                } else if let Some(digits) = text.strip_prefix("random") {
                    length(digits).map(Self::Random)
                } else {
                    Err(KeyShapeError(text.to_owned()))
                }
            }
        }
    }
}

impl fmt::Display for KeyShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uuid => f.write_str("uuid"),
            Self::Int => f.write_str("int"),
            Self::Hex(len) => write!(f, "hex{len}"),
            Self::Random(len) => write!(f, "random{len}"),
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
    int_start: u64,
}

/// The smallest number with 16 digits.
const INT_MIN: u64 = 1_000_000_000_000_000;

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
        Self {
            shape,
            seed: mix(seed),
            // Leaves room for 10^15 ids before a seventeenth digit.
            int_start: INT_MIN + mix(seed) % (8 * INT_MIN),
        }
    }

    fn write(&self, id: u64, out: &mut Vec<u8>) {
        match self.shape {
            KeyShape::Uuid => out.extend_from_slice(&self.uuid(id)),
            KeyShape::Int => self.write_int(id, out),
            KeyShape::Hex(len) => self.write_hex(id, len, out),
            KeyShape::Random(len) => self.write_random(id, len, out),
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

    fn write_int(&self, id: u64, out: &mut Vec<u8>) {
        let mut number = self.int_start + id % INT_MIN;
        let mut digits = [b'0'; 16];
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
        }
        out.extend_from_slice(&digits);
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
        (0..count)
            .map(|_| {
                let mut key = Vec::new();
                stream.write_next(&mut key);
                String::from_utf8(key).unwrap()
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
        let stream = KeyStream::new(KeyShape::Int, Draw::Space(10), 5, 0, 1);
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
        let numbers: Vec<u64> = keys("int", Draw::Repeat(0.0), 11, 100)
            .iter()
            .map(|key| key.parse().unwrap())
            .collect();
        assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1));
        assert!(numbers[0] >= INT_MIN);
    }

    #[test]
    fn every_shape_names_its_length_and_reads_back() {
        for shape in ["uuid", "int", "hex24", "hex64", "random16", "random250"] {
            let parsed: KeyShape = shape.parse().unwrap();
            assert_eq!(parsed.to_string(), shape);
            assert_eq!(
                keys(shape, Draw::Repeat(0.0), 1, 1)[0].len(),
                parsed.key_bytes(),
                "{shape}"
            );
        }
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
        ] {
            assert!(text.parse::<KeyShape>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_seed_decides_the_keys() {
        let draw = Draw::Repeat(30.0);
        for shape in ["uuid", "int", "hex24", "random16"] {
            assert_eq!(keys(shape, draw, 1, 100), keys(shape, draw, 1, 100));
            let both: HashSet<_> = keys(shape, draw, 1, 100)
                .into_iter()
                .chain(keys(shape, draw, 2, 100))
                .collect();
            assert!(both.len() > 120, "{shape}: seeds share keys");
        }
    }
}
