//! From stored blocks to f32, bit for bit as the `gguf` package of Python decodes them.
//!
//! One loop for all processors. It is inlined into the kernels that multiply what it decodes, so that it is compiled for
//! the processor that runs them.
#![expect(
    clippy::inline_always,
    reason = "what is not inlined into a kernel is compiled for the oldest processor"
)]

mod k_quants;
mod small_blocks;

use self::k_quants as k;
use self::small_blocks as small;
use super::dtype::TensorDtype;

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
        #[cfg(feature = "flex")]
        pulp::Arch::new().dispatch(Decode {
            dtype: self,
            bytes,
            values,
        });
        #[cfg(not(feature = "flex"))]
        self.decode_inlined(bytes, values);
    }

    /// The same for callers that are compiled for a processor; bytes and values that are too many are left alone.
    #[inline(always)]
    pub(crate) fn decode_inlined(self, bytes: &[u8], values: &mut [f32]) {
        match self {
            Self::F32 => each(bytes, values, |&bytes, [value]| {
                *value = f32::from_le_bytes(bytes);
            }),
            Self::F16 => each(bytes, values, |&bytes, [value]| *value = from_half(bytes)),
            Self::Bf16 => each(bytes, values, |&bytes, [value]| {
                *value = f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16);
            }),
            Self::Q8_0 => each(bytes, values, small::q8_0),
            Self::Q4_0 => each(bytes, values, small::q4_0),
            Self::Q4_1 => each(bytes, values, small::q4_1),
            Self::Q5_0 => each(bytes, values, small::q5_0),
            Self::Q5_1 => each(bytes, values, small::q5_1),
            Self::Iq4Nl => each(bytes, values, small::iq4_nl),
            Self::Mxfp4 => each(bytes, values, small::mxfp4),
            Self::Q2K => each(bytes, values, k::q2_k),
            Self::Q3K => each(bytes, values, k::q3_k),
            Self::Q4K => each(bytes, values, k::q4_k),
            Self::Q5K => each(bytes, values, k::q5_k),
            Self::Q6K => each(bytes, values, k::q6_k),
            Self::Iq4Xs => each(bytes, values, k::iq4_xs),
            Self::Tq1_0 => each(bytes, values, k::tq1_0),
            Self::Tq2_0 => each(bytes, values, k::tq2_0),
        }
    }
}

#[cfg(feature = "flex")]
struct Decode<'a> {
    dtype: TensorDtype,
    bytes: &'a [u8],
    values: &'a mut [f32],
}

#[cfg(feature = "flex")]
impl pulp::WithSimd for Decode<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        self.dtype.decode_inlined(self.bytes, self.values);
    }
}

#[inline(always)]
fn each<const BYTES: usize, const LEN: usize>(
    bytes: &[u8],
    values: &mut [f32],
    decode: impl Fn(&[u8; BYTES], &mut [f32; LEN]),
) {
    let (blocks, _) = bytes.as_chunks::<BYTES>();
    let (values, _) = values.as_chunks_mut::<LEN>();
    for (block, values) in blocks.iter().zip(values) {
        decode(block, values);
    }
}

/// A 16-bit float, without a branch: every kind of them but NaN and infinity is a product with a power of two.
#[inline(always)]
fn from_half(bytes: [u8; 2]) -> f32 {
    const EXPONENTS: u32 = 0x7f80_0000;
    let bits = u32::from(u16::from_le_bytes(bytes));
    let finite = f32::from_bits((bits & 0x7fff) << 13) * f32::from_bits(239 << 23);
    // From 2^16 on, it stands for infinity or NaN.
    let is_special = finite.to_bits() >= 143 << 23;
    let special = if is_special { EXPONENTS } else { 0 };
    f32::from_bits(finite.to_bits() | special | (bits & 0x8000) << 16)
}

/// The 16-bit float that begins at a place in a block.
#[inline(always)]
fn half_at<const BYTES: usize>(block: &[u8; BYTES], start: usize) -> f32 {
    from_half([block[start], block[start + 1]])
}

/// A part of a block.
#[inline(always)]
fn part<const LEN: usize>(block: &[u8], start: usize) -> &[u8; LEN] {
    block[start..].first_chunk().expect("a part of a block")
}

/// A part of the values of a block.
#[inline(always)]
fn values_at<const LEN: usize>(values: &mut [f32], start: usize) -> &mut [f32; LEN] {
    values[start..]
        .first_chunk_mut()
        .expect("a part of a block")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_is_the_float_of_its_value() {
        for bits in 0..=u16::MAX {
            let found = from_half(bits.to_le_bytes());
            let (exponent, mantissa) = (bits >> 10 & 31, f64::from(bits & 1023));
            let magnitude = match exponent {
                0 => mantissa * 2_f64.powi(-24),
                31 if bits & 1023 == 0 => f64::INFINITY,
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
