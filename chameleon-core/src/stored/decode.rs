//! From stored blocks to f32, bit for bit as the `gguf` package of Python decodes them.
//!
//! One loop for all processors, compiled for several kinds of them, of which one is picked when running.
#![expect(
    clippy::inline_always,
    reason = "what is not inlined into a kernel is compiled for the oldest processor"
)]

mod k_quants;
mod plain;
mod small_blocks;

use pulp::{Arch, Simd, WithSimd};

use self::k_quants as k;
use self::small_blocks as small;
use super::dtype::TensorDtype;

/// Decodes value by value. A macro, as a function that is passed as a value is not inlined.
macro_rules! each {
    ($bytes:expr, $values:expr, $decode:path) => {{
        let (stored, _) = $bytes.as_chunks();
        for (&stored, value) in stored.iter().zip($values) {
            *value = $decode(stored);
        }
    }};
}

/// Decodes block by block.
macro_rules! blocks {
    ($bytes:expr, $values:expr, $decode:path) => {{
        let (blocks, _) = $bytes.as_chunks();
        let (values, _) = $values.as_chunks_mut();
        for (block, values) in blocks.iter().zip(values) {
            // One block at a time: side by side, their values would have to be gathered.
            $decode(std::hint::black_box(block), values);
        }
    }};
}

impl TensorDtype {
    /// Decodes whole blocks.
    ///
    /// # Panics
    ///
    /// When `bytes` are not the whole blocks of `values`.
    pub fn decode(self, bytes: &[u8], values: &mut [f32]) {
        assert_eq!(
            Some(bytes.len()),
            self.num_bytes(values.len()),
            "bytes of {} values in {self}",
            values.len()
        );
        Arch::new().dispatch(Decode {
            dtype: self,
            bytes,
            values,
        });
    }

    /// The same for the processor that the caller is compiled for; bytes and values that are too many are left alone.
    #[inline(always)]
    fn decode_inlined(self, bytes: &[u8], values: &mut [f32]) {
        match self {
            Self::F32 => each!(bytes, values, plain::from_f32),
            Self::F16 => each!(bytes, values, plain::from_f16),
            Self::Bf16 => each!(bytes, values, plain::from_bf16),
            Self::Q8_0 => blocks!(bytes, values, small::q8_0),
            Self::Q4_0 => blocks!(bytes, values, small::q4_0),
            Self::Q4_1 => blocks!(bytes, values, small::q4_1),
            Self::Q5_0 => blocks!(bytes, values, small::q5_0),
            Self::Q5_1 => blocks!(bytes, values, small::q5_1),
            Self::Iq4Nl => blocks!(bytes, values, small::iq4_nl),
            Self::Mxfp4 => blocks!(bytes, values, small::mxfp4),
            Self::Q2K => blocks!(bytes, values, k::q2_k),
            Self::Q3K => blocks!(bytes, values, k::q3_k),
            Self::Q4K => blocks!(bytes, values, k::q4_k),
            Self::Q5K => blocks!(bytes, values, k::q5_k),
            Self::Q6K => blocks!(bytes, values, k::q6_k),
            Self::Iq4Xs => blocks!(bytes, values, k::iq4_xs),
            Self::Tq1_0 => blocks!(bytes, values, k::tq1_0),
            Self::Tq2_0 => blocks!(bytes, values, k::tq2_0),
        }
    }
}

struct Decode<'a> {
    dtype: TensorDtype,
    bytes: &'a [u8],
    values: &'a mut [f32],
}

impl WithSimd for Decode<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        self.dtype.decode_inlined(self.bytes, self.values);
    }
}

/// The 16-bit float that begins at a place in a block.
#[inline(always)]
fn half_at<const BYTES: usize>(block: &[u8; BYTES], start: usize) -> f32 {
    plain::from_f16([block[start], block[start + 1]])
}

/// A part of a block.
#[inline(always)]
fn part<const LEN: usize>(block: &[u8], start: usize) -> &[u8; LEN] {
    block[start..].first_chunk().expect("a part of a block")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_is_the_float_of_its_value() {
        for bits in 0..=u16::MAX {
            let found = plain::from_f16(bits.to_le_bytes());
            let (exponent, mantissa) = (bits >> 10 & 31, f64::from(bits & 1023));
            let magnitude = match exponent {
                0 => mantissa * 2_f64.powi(-24),
                31 if bits.trailing_zeros() >= 10 => f64::INFINITY,
                31 => f64::NAN,
                _ => (1024.0 + mantissa) * 2_f64.powi(i32::from(exponent) - 25),
            };
            let expected = if bits >> 15 == 1 {
                -magnitude
            } else {
                magnitude
            };
            if expected.is_nan() {
                assert!(found.is_nan(), "{bits:#x}");
            } else {
                assert_eq!(f64::from(found).to_bits(), expected.to_bits(), "{bits:#x}");
            }
        }
    }

    #[test]
    fn every_kind_of_processor_decodes_alike() {
        for dtype in TensorDtype::ALL {
            let num_values = 3 * 256;
            let bytes: Vec<u8> = (0..dtype.num_bytes(num_values).unwrap())
                .map(|idx| u8::try_from((idx * 37 + idx / 7) % 120).unwrap())
                .collect();
            let (mut found, mut plain) = (vec![0.0; num_values], vec![0.0; num_values]);
            dtype.decode(&bytes, &mut found);
            dtype.decode_inlined(&bytes, &mut plain);
            let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&found), bits(&plain), "{dtype}");
            assert!(found.iter().any(|&value| value != 0.0), "{dtype}");
        }
    }

    #[test]
    #[should_panic(expected = "bytes of 32 values in Q4_0")]
    fn bytes_that_are_not_whole_blocks_are_a_fault() {
        TensorDtype::Q4_0.decode(&[0; 17], &mut [0.0; 32]);
    }
}
