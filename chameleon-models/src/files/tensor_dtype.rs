//! The types of stored tensors in model files, and their conversion to `f32`.
//!
//! Plain formats are decoded here; blocks of quantised values go through candle's kernels.

use std::fmt;

use candle_core::quantized::{GgmlDType, ggml_file};
use half::{bf16, f16};
use rayon::prelude::*;

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
    /// Blocks of 256 4-bit values with eight quantised scales and offsets.
    Q4K,
    /// Blocks of 256 5-bit values with eight quantised scales and offsets.
    Q5K,
    /// Blocks of 256 6-bit values with sixteen quantised scales.
    Q6K,
}

/// What a tensor of a checkpoint looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Outermost axis first; of a linear layer `[in, out]`.
    pub shape: Vec<usize>,
    /// How the values are stored; reading always gives `f32`.
    pub dtype: TensorDtype,
}

impl TensorDtype {
    /// All that can be read, for messages.
    pub const NAMES: &'static str =
        "F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K and Q6_K";

    /// How many values share a block; 1 for plain formats.
    pub fn block_len(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q8_0 | Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 => 32,
            Self::Q4K | Self::Q5K | Self::Q6K => 256,
        }
    }

    /// How many bytes a block takes.
    pub fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q8_0 => 34,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
    }

    /// The format with this number in a GGUF file.
    pub(crate) fn from_gguf(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            6 => Self::Q5_0,
            7 => Self::Q5_1,
            8 => Self::Q8_0,
            12 => Self::Q4K,
            13 => Self::Q5K,
            14 => Self::Q6K,
            30 => Self::Bf16,
            _ => return None,
        })
    }

    fn to_candle(self) -> GgmlDType {
        match self {
            Self::F32 => GgmlDType::F32,
            Self::F16 => GgmlDType::F16,
            Self::Bf16 => GgmlDType::BF16,
            Self::Q8_0 => GgmlDType::Q8_0,
            Self::Q4_0 => GgmlDType::Q4_0,
            Self::Q4_1 => GgmlDType::Q4_1,
            Self::Q5_0 => GgmlDType::Q5_0,
            Self::Q5_1 => GgmlDType::Q5_1,
            Self::Q4K => GgmlDType::Q4K,
            Self::Q5K => GgmlDType::Q5K,
            Self::Q6K => GgmlDType::Q6K,
        }
    }

    /// Decodes whole blocks.
    ///
    /// # Panics
    /// When `bytes` is not a whole number of blocks: the file readers check that first.
    pub(crate) fn decode(self, bytes: &[u8]) -> candle_core::Result<Vec<f32>> {
        assert!(
            bytes.len().is_multiple_of(self.block_bytes()),
            "{} bytes are not whole blocks of {self}",
            bytes.len()
        );
        let num_values = bytes.len() / self.block_bytes() * self.block_len();
        let mut values = vec![0.0; num_values];
        let chunk_blocks = BLOCKS_PER_CHUNK / self.block_len();
        values
            .par_chunks_mut(chunk_blocks * self.block_len())
            .zip(bytes.par_chunks(chunk_blocks * self.block_bytes()))
            .try_for_each(|(values, bytes)| self.decode_chunk(bytes, values))?;
        Ok(values)
    }

    fn decode_chunk(self, bytes: &[u8], values: &mut [f32]) -> candle_core::Result<()> {
        match self {
            Self::F32 => decode_plain(bytes, values, f32::from_le_bytes),
            Self::F16 => decode_plain(bytes, values, |bytes| f16::from_le_bytes(bytes).to_f32()),
            Self::Bf16 => decode_plain(bytes, values, |bytes| bf16::from_le_bytes(bytes).to_f32()),
            _ => {
                let aligned = Aligned::new(bytes);
                let blocks = ggml_file::qtensor_from_ggml(
                    self.to_candle(),
                    aligned.bytes(),
                    vec![values.len()],
                    &candle_core::Device::Cpu,
                )?;
                let decoded = blocks.dequantize(&candle_core::Device::Cpu)?;
                values.copy_from_slice(&decoded.to_vec1::<f32>()?);
            }
        }
        Ok(())
    }
}

impl fmt::Display for TensorDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::Q8_0 => "Q8_0",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q4K => "Q4_K",
            Self::Q5K => "Q5_K",
            Self::Q6K => "Q6_K",
        })
    }
}

/// Values decoded by one thread at a time; a multiple of every block length.
const BLOCKS_PER_CHUNK: usize = 1 << 16;

fn decode_plain<const N: usize>(bytes: &[u8], values: &mut [f32], decode: fn([u8; N]) -> f32) {
    let (stored, _) = bytes.as_chunks::<N>();
    for (value, stored) in values.iter_mut().zip(stored) {
        *value = decode(*stored);
    }
}

/// Bytes at an even address, which candle's blocks (they begin with a 16-bit scale) need.
/// Bytes from a file are already there; only a caller with a slice of its own pays for a copy.
enum Aligned<'a> {
    AsIs(&'a [u8]),
    Copied { buffer: Vec<u8>, start: usize },
}

impl<'a> Aligned<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        if bytes.as_ptr().addr().is_multiple_of(2) {
            return Self::AsIs(bytes);
        }
        let mut buffer: Vec<u8> = Vec::with_capacity(bytes.len() + 1);
        let start = buffer.as_ptr().addr() % 2;
        buffer.resize(start, 0);
        buffer.extend_from_slice(bytes);
        Self::Copied { buffer, start }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::AsIs(bytes) => bytes,
            Self::Copied { buffer, start } => &buffer[*start..],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_sizes_agree_with_candle() {
        for number in 0..=64 {
            if let Some(dtype) = TensorDtype::from_gguf(number) {
                assert_eq!(dtype.block_len(), dtype.to_candle().block_size(), "{dtype}");
                assert_eq!(
                    dtype.block_bytes(),
                    dtype.to_candle().type_size(),
                    "{dtype}"
                );
                assert!(TensorDtype::NAMES.contains(&dtype.to_string()));
            }
        }
    }

    #[test]
    fn odd_addresses_decode_like_even_ones() {
        let block: Vec<u8> = (0..2 * 18_u8).collect();
        let shifted: Vec<u8> = std::iter::once(0).chain(block.iter().copied()).collect();
        assert_eq!(
            TensorDtype::Q4_0.decode(&block).unwrap(),
            TensorDtype::Q4_0.decode(&shifted[1..]).unwrap()
        );
    }

    #[test]
    fn plain_formats_keep_their_values() {
        let numbers = [0.0_f32, -1.5, 1024.0, 0.25];
        let f32_bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
        let f16_bytes: Vec<u8> = numbers
            .iter()
            .flat_map(|&x| f16::from_f32(x).to_le_bytes())
            .collect();
        let bf16_bytes: Vec<u8> = numbers
            .iter()
            .flat_map(|&x| bf16::from_f32(x).to_le_bytes())
            .collect();
        assert_eq!(TensorDtype::F32.decode(&f32_bytes).unwrap(), numbers);
        assert_eq!(TensorDtype::F16.decode(&f16_bytes).unwrap(), numbers);
        assert_eq!(TensorDtype::Bf16.decode(&bf16_bytes).unwrap(), numbers);
    }
}
