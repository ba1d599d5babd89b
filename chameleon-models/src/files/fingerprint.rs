//! What something was computed from, in 32 bytes.

use std::fmt::{self, Write as _};

use chameleon_core::SplitSequence;
use sha2::{Digest, Sha256};

/// SHA-256 over everything that a stored result depends on.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// A builder without parts.
    pub fn builder() -> FingerprintBuilder {
        FingerprintBuilder {
            hasher: Sha256::new(),
        }
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hexadecimal(&self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// Takes the parts of a [`Fingerprint`] in order. Each is hashed with its name and lengths, so that no two lists of
/// parts run into the same bytes.
#[derive(Debug, Clone)]
pub struct FingerprintBuilder {
    hasher: Sha256,
}

impl FingerprintBuilder {
    /// Adds named bytes: a model's identity, an option.
    #[must_use]
    pub fn part(mut self, name: &str, bytes: &[u8]) -> Self {
        self.framed(name.as_bytes());
        self.framed(bytes);
        self
    }

    /// Adds the tokens and boundaries of the sequences whose states are kept.
    #[must_use]
    pub fn sequences<'a>(self, sequences: impl IntoIterator<Item = &'a SplitSequence>) -> Self {
        let sequences = sequences.into_iter();
        let parts = sequences.map(|sequence| (sequence.boundary(), sequence.token_ids()));
        self.bounded(b"sequences", parts)
    }

    /// Adds the tokens alone, for states that are kept of all of them, wherever the prompt ends.
    #[must_use]
    pub fn whole_sequences<'a>(
        self,
        sequences: impl IntoIterator<Item = &'a SplitSequence>,
    ) -> Self {
        let sequences = sequences.into_iter();
        self.bounded(
            b"whole sequences",
            sequences.map(|sequence| (0, sequence.token_ids())),
        )
    }

    fn bounded<'a>(
        mut self,
        name: &[u8],
        sequences: impl Iterator<Item = (usize, &'a [u32])>,
    ) -> Self {
        self.framed(name);
        let mut bytes = Vec::new();
        let mut num_sequences = 0_u64;
        for (boundary, token_ids) in sequences {
            num_sequences += 1;
            bytes.clear();
            bytes.extend((boundary as u64).to_le_bytes());
            bytes.extend(token_ids.iter().flat_map(|id| id.to_le_bytes()));
            self.framed(&bytes);
        }
        self.hasher.update(num_sequences.to_le_bytes());
        self
    }

    /// The fingerprint of all parts.
    pub fn finish(self) -> Fingerprint {
        Fingerprint(self.hasher.finalize().into())
    }

    fn framed(&mut self, bytes: &[u8]) {
        self.hasher.update((bytes.len() as u64).to_le_bytes());
        self.hasher.update(bytes);
    }
}

/// Two digits for each byte.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string accepts any text");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_run_into_one_another() {
        let of = |parts: &[(&str, &[u8])]| {
            parts
                .iter()
                .fold(Fingerprint::builder(), |builder, (name, bytes)| {
                    builder.part(name, bytes)
                })
                .finish()
        };
        assert_eq!(of(&[("a", b"bc")]), of(&[("a", b"bc")]));
        assert_ne!(of(&[("a", b"bc")]), of(&[("ab", b"c")]));
        assert_ne!(of(&[("a", b""), ("b", b"")]), of(&[("a", b"b")]));
    }

    #[test]
    fn a_moved_boundary_or_another_token_is_another_fingerprint() {
        let of = |token_ids: &[u32], boundary| {
            let sequence = SplitSequence::new(token_ids.to_vec(), boundary).unwrap();
            Fingerprint::builder().sequences([&sequence]).finish()
        };
        assert_eq!(of(&[1, 2, 3], 1), of(&[1, 2, 3], 1));
        assert_ne!(of(&[1, 2, 3], 1), of(&[1, 2, 3], 2));
        assert_ne!(of(&[1, 2, 3], 1), of(&[1, 2, 4], 1));
    }
}
