//! The formats in which model files store values.

use std::fmt;

/// How the values of a tensor are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TensorDtype {
    /// 32-bit floats.
    F32,
    /// 16-bit floats (IEEE).
    F16,
    /// 16-bit floats with the exponent of a 32-bit one.
    Bf16,
    /// Blocks of 32 8-bit values with one scale.
    Q8_0,
    /// Blocks of 32 4-bit values with one scale.
    Q4_0,
    /// Blocks of 32 4-bit values with scale and offset.
    Q4_1,
    /// Blocks of 32 5-bit values with one scale.
    Q5_0,
    /// Blocks of 32 5-bit values with scale and offset.
    Q5_1,
    /// Blocks of 256 2-bit values with sixteen quantised scales and offsets.
    Q2K,
    /// Blocks of 256 3-bit values with sixteen quantised scales.
    Q3K,
    /// Blocks of 256 4-bit values with eight quantised scales and offsets.
    Q4K,
    /// Blocks of 256 5-bit values with eight quantised scales and offsets.
    Q5K,
    /// Blocks of 256 6-bit values with sixteen quantised scales.
    Q6K,
    /// Blocks of 32 values of a table of 16 with one scale.
    Iq4Nl,
    /// Blocks of 256 values of the same table with eight quantised scales.
    Iq4Xs,
    /// Blocks of 32 4-bit floats with a power of two as their scale.
    Mxfp4,
    /// Blocks of 256 values -1, 0 and 1, five to a byte, with one scale.
    Tq1_0,
    /// Blocks of 256 values -1, 0, 1 and 2, four to a byte, with one scale.
    Tq2_0,
}

/// What is known of a format.
struct Facts {
    name: &'static str,
    /// Its number in GGUF files.
    gguf: u32,
    /// Values and bytes of a block.
    block: [usize; 2],
}

const fn facts(name: &'static str, gguf: u32, block: [usize; 2]) -> Facts {
    Facts { name, gguf, block }
}

impl TensorDtype {
    /// Every format.
    pub const ALL: [Self; 18] = [
        Self::F32,
        Self::F16,
        Self::Bf16,
        Self::Q8_0,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q2K,
        Self::Q3K,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
        Self::Iq4Nl,
        Self::Iq4Xs,
        Self::Mxfp4,
        Self::Tq1_0,
        Self::Tq2_0,
    ];

    /// The names of all of them, for messages.
    pub const NAMES: &'static str = "F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, \
                                     IQ4_NL, IQ4_XS, MXFP4, TQ1_0 and TQ2_0";

    fn facts(self) -> Facts {
        match self {
            Self::F32 => facts("F32", 0, [1, 4]),
            Self::F16 => facts("F16", 1, [1, 2]),
            Self::Bf16 => facts("BF16", 30, [1, 2]),
            Self::Q8_0 => facts("Q8_0", 8, [32, 34]),
            Self::Q4_0 => facts("Q4_0", 2, [32, 18]),
            Self::Q4_1 => facts("Q4_1", 3, [32, 20]),
            Self::Q5_0 => facts("Q5_0", 6, [32, 22]),
            Self::Q5_1 => facts("Q5_1", 7, [32, 24]),
            Self::Q2K => facts("Q2_K", 10, [256, 84]),
            Self::Q3K => facts("Q3_K", 11, [256, 110]),
            Self::Q4K => facts("Q4_K", 12, [256, 144]),
            Self::Q5K => facts("Q5_K", 13, [256, 176]),
            Self::Q6K => facts("Q6_K", 14, [256, 210]),
            Self::Iq4Nl => facts("IQ4_NL", 20, [32, 18]),
            Self::Iq4Xs => facts("IQ4_XS", 23, [256, 136]),
            Self::Mxfp4 => facts("MXFP4", 39, [32, 17]),
            Self::Tq1_0 => facts("TQ1_0", 34, [256, 54]),
            Self::Tq2_0 => facts("TQ2_0", 35, [256, 66]),
        }
    }

    /// How many values share a block; 1 for plain formats.
    pub fn block_len(self) -> usize {
        self.facts().block[0]
    }

    /// How many bytes a block takes.
    pub fn block_bytes(self) -> usize {
        self.facts().block[1]
    }

    /// How many bytes so many values take; `None` if they are not whole blocks, or too many to count.
    pub fn num_bytes(self, num_values: usize) -> Option<usize> {
        let [block_len, block_bytes] = self.facts().block;
        let is_whole = num_values.is_multiple_of(block_len);
        is_whole
            .then(|| (num_values / block_len).checked_mul(block_bytes))
            .flatten()
    }

    /// The format with this number in a GGUF file; `None` if it is not one that is read.
    pub fn from_gguf(number: u32) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|dtype| dtype.facts().gguf == number)
    }
}

impl fmt::Display for TensorDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.facts().name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_is_named_and_found_by_its_number() {
        let mut numbers = std::collections::BTreeSet::new();
        for dtype in TensorDtype::ALL {
            assert_eq!(TensorDtype::from_gguf(dtype.facts().gguf), Some(dtype));
            assert!(numbers.insert(dtype.facts().gguf), "{dtype}");
            assert!(TensorDtype::NAMES.contains(&dtype.to_string()));
        }
        assert_eq!(TensorDtype::from_gguf(99), None);
    }

    #[test]
    fn only_whole_blocks_have_a_size() {
        assert_eq!(TensorDtype::Q4_0.num_bytes(64), Some(36));
        assert_eq!(TensorDtype::Q4_0.num_bytes(63), None);
        assert_eq!(TensorDtype::F32.num_bytes(usize::MAX), None);
    }
}
