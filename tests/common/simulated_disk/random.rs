//! The disk's dice: `SplitMix64` (Steele, Lea, Flood 2014), so that a seed says all and no crate's next
//! version rolls differently. Good enough for what is lost and kept, for nothing else.

/// A stream of numbers, the same for the same seed.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let n = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        n ^ (n >> 31)
    }

    /// One of `from..=to`.
    pub fn between(&mut self, from: usize, to: usize) -> usize {
        assert!(from <= to, "{from}..={to} is empty");
        from + (self.draw() % (to - from + 1) as u64) as usize
    }

    /// True in so many of a thousand cases: never for 0, always for 1000.
    pub fn chance(&mut self, per_mille: u32) -> bool {
        self.draw() % 1000 < u64::from(per_mille)
    }

    /// One of these.
    pub fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.between(0, choices.len() - 1)]
    }
}
