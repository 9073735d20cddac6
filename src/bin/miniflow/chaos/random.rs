//! Random numbers that a seed fixes.

#![forbid(unsafe_code)]

/// `SplitMix64` (Steele, Lea, Flood 2014): one word of state, and every seed is a good one.
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A sequence of its own for the `stream`-th user of a seed.
    pub(super) fn of(seed: u64, stream: u64) -> Self {
        Self(mix(seed ^ mix(stream.wrapping_add(0x9e37_79b9_7f4a_7c15))))
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `bound`; 0 if there is none. Not quite uniform, which nobody here minds.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next().checked_rem(bound).unwrap_or_default()
    }

    /// A number in `low..=high`.
    pub(super) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// An index of a list with `len` items, which is not empty.
    pub(super) fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or_default() // below `len`
    }

    /// True in `permille` of 1000 cases.
    pub(super) fn chance(&mut self, permille: u64) -> bool {
        self.below(1000) < permille
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// Fills `bytes` with what `seed` stands for.
pub(super) fn fill(seed: u64, bytes: &mut [u8]) {
    let mut random = Random::new(seed);
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = random.next().to_le_bytes();
    }
    let last = random.next().to_le_bytes();
    rest.copy_from_slice(&last[..rest.len()]);
}

/// A number that changes when any byte changes, or the length.
pub(super) fn digest(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    words
        .iter()
        .chain([&last])
        .fold(bytes.len() as u64, |sum, word| {
            // An odd factor and a shifted xor can both be undone, so no difference is lost.
            let sum = (sum ^ u64::from_le_bytes(*word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            sum ^ sum >> 29
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers_and_another_stream_others() {
        let take = |mut random: Random| [random.next(), random.next(), random.next()];
        assert_eq!(take(Random::of(1, 2)), take(Random::of(1, 2)));
        assert_ne!(take(Random::of(1, 2)), take(Random::of(1, 3)));
        assert_ne!(take(Random::of(1, 2)), take(Random::of(2, 2)));
    }

    #[test]
    fn numbers_keep_to_their_bounds() {
        let mut random = Random::new(7);
        for bound in 1..100 {
            assert!(random.below(bound) < bound);
            assert!((bound..=bound + 3).contains(&random.between(bound, bound + 3)));
        }
        assert_eq!(random.below(0), 0);
        assert!(!random.chance(0) && random.chance(1000));
    }

    #[test]
    fn every_byte_counts() {
        for len in [0, 1, 7, 8, 9, 100] {
            let mut bytes = vec![0; len];
            fill(3, &mut bytes);
            let whole = digest(&bytes);
            for at in 0..len {
                bytes[at] ^= 1;
                assert_ne!(digest(&bytes), whole, "{at} of {len}");
                bytes[at] ^= 1;
            }
            bytes.push(0);
            assert_ne!(digest(&bytes), whole, "{len} and a zero");
        }
    }
}
