//! One run seed, many independent streams.
//!
//! Everything random in a run draws from a stream with a name. Adding a consumer, or calling one
//! more often, never changes what another consumer draws.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// The seed of a whole run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunSeed(pub u64);

impl RunSeed {
    /// A random number generator for the consumer called `name`.
    pub fn stream(self, name: &str) -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(self.derive(name).0)
    }

    /// A seed for a part of the run that itself has several consumers.
    #[must_use]
    pub fn derive(self, name: &str) -> Self {
        let mut mixed = self.0 ^ fnv1a(name.as_bytes());
        // The finaliser of SplitMix64.
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Self(mixed ^ (mixed >> 31))
    }
}

/// FNV-1a, 64 bits: the same on every platform and in every version, which the standard library's
/// hasher does not promise. Not for untrusted keys.
pub fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use rand::RngExt as _;

    use super::*;

    #[test]
    fn streams_repeat_and_differ_by_name_and_seed() {
        let draw = |seed: u64, name: &str| -> u64 { RunSeed(seed).stream(name).random() };
        assert_eq!(draw(1, "data"), draw(1, "data"));
        assert_ne!(draw(1, "data"), draw(1, "dropout"));
        assert_ne!(draw(1, "data"), draw(2, "data"));
    }

    #[test]
    fn derived_seeds_are_pinned_so_old_runs_can_be_repeated() {
        let derived = |seed: u64, name: &str| RunSeed(seed).derive(name).0;
        assert_eq!(derived(0, ""), 0xf52a_15e9_a9b5_e89b);
        assert_eq!(derived(1, "data"), 0x515c_77ee_45c8_bd6f);
        assert_eq!(derived(42, "kmeans/0"), 0x75f0_0936_4a22_bff0);
        assert_eq!(derived(u64::MAX, "layers.3"), 0x3ae5_56e6_39a6_d68b);
    }

    #[test]
    fn streams_are_pinned_so_old_runs_can_be_repeated() {
        let first = |seed: u64, name: &str| -> u64 { RunSeed(seed).stream(name).random() };
        let found = [first(0, ""), first(1, "data"), first(42, "kmeans/0")];
        assert_eq!(
            found,
            [
                7_411_199_224_643_758_861,
                1_949_248_002_051_950_320,
                14_429_321_726_944_127_147,
            ]
        );
    }

    #[test]
    fn the_hash_is_fnv1a() {
        // Test vectors of the algorithm's authors.
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
