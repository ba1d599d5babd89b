//! Products of packed weights with packed rows: whole numbers within a block of 32, f32 across blocks.
//!
//! Two kernels: one for processors with AVX2, and a plain one for all others, with which it is compared. Both add up
//! in eight lanes in the same order.
#![cfg_attr(
    target_arch = "x86_64",
    expect(
        unsafe_code,
        reason = "vectors are made of arrays of their size, and the kernel is called where the processor has it"
    )
)]

use half::f16;

use super::rows::{PADDED, PackedRows};

/// Numbers that share a scale.
pub(super) const BLOCK: usize = 32;

/// Whole numbers of a block of weights.
pub(super) trait Quants: Copy + Send + Sync {
    /// The numbers, one after the other.
    fn unpack(self) -> [i8; BLOCK];

    /// Four bits: the first 16 numbers are the lower halves of the bytes.
    const ARE_NIBBLES: bool;

    /// The bytes as they lie; of nibbles only the first half counts.
    fn bytes(&self) -> &[u8];
}

impl Quants for [u8; BLOCK / 2] {
    const ARE_NIBBLES: bool = true;

    fn unpack(self) -> [i8; BLOCK] {
        std::array::from_fn(|idx| {
            let byte = self[idx % (BLOCK / 2)];
            let nibble = if idx < BLOCK / 2 {
                byte & 15
            } else {
                byte >> 4
            };
            nibble.cast_signed()
        })
    }

    fn bytes(&self) -> &[u8] {
        self
    }
}

impl Quants for [u8; BLOCK] {
    const ARE_NIBBLES: bool = false;

    fn unpack(self) -> [i8; BLOCK] {
        self.map(u8::cast_signed)
    }

    fn bytes(&self) -> &[u8] {
        self
    }
}

/// One output: a row of the weight.
#[derive(Debug, Clone, Copy)]
pub(super) struct WeightRow<'a, Q> {
    pub(super) quants: &'a [Q],
    /// Zeros up to a multiple of eight.
    pub(super) scales: &'a [f16],
    /// What is added to each number of a block, none for packings without.
    pub(super) mins: &'a [f16],
}

/// The products of rows of a weight with all packed rows, `[outputs, rows]`.
pub(super) fn products<'a, Q: Quants + 'a>(
    weights: impl Iterator<Item = WeightRow<'a, Q>>,
    rows: &PackedRows,
    output: &mut Vec<f32>,
) {
    #[cfg(target_arch = "x86_64")]
    if avx2::is_there() {
        // SAFETY: the processor has what the kernel is compiled for.
        unsafe { avx2::products(weights, rows, output) };
        return;
    }
    plain(weights, rows, output);
}

fn plain<'a, Q: Quants + 'a>(
    weights: impl Iterator<Item = WeightRow<'a, Q>>,
    rows: &PackedRows,
    output: &mut Vec<f32>,
) {
    for weight in weights {
        let (num_blocks, num_padded) = (weight.quants.len(), weight.scales.len());
        for ((values, scales), sums) in rows
            .values
            .chunks_exact(num_blocks)
            .zip(rows.scales.chunks_exact(num_padded))
            .zip(rows.sums.chunks_exact(num_padded))
        {
            let mut lanes = [0.0_f32; PADDED];
            for (block_idx, (quants, values)) in weight.quants.iter().zip(values).enumerate() {
                let scale = weight.scales[block_idx].to_f32() * scales[block_idx];
                let quants = quants.unpack();
                for (lane_idx, lane) in lanes.iter_mut().enumerate() {
                    let sum: i32 = (4 * lane_idx..4 * lane_idx + 4)
                        .map(|idx| i32::from(quants[idx]) * i32::from(values[idx].cast_signed()))
                        .sum();
                    *lane = scale.mul_add(sum as f32, *lane);
                }
            }
            for (mins, sums) in weight.mins.chunks(PADDED).zip(sums.chunks(PADDED)) {
                for ((lane, min), &sum) in lanes.iter_mut().zip(mins).zip(sums) {
                    *lane = min.to_f32().mul_add(sum, *lane);
                }
            }
            output.push(sum_of_lanes(lanes));
        }
    }
}

fn sum_of_lanes(lanes: [f32; PADDED]) -> f32 {
    let halves: [f32; 4] = std::array::from_fn(|idx| lanes[idx] + lanes[idx + 4]);
    (halves[0] + halves[2]) + (halves[1] + halves[3])
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{
        __m128i, __m256, __m256i, _mm_srli_epi16, _mm256_abs_epi8, _mm256_and_si256,
        _mm256_cvtepi32_ps, _mm256_cvtph_ps, _mm256_fmadd_ps, _mm256_madd_epi16,
        _mm256_maddubs_epi16, _mm256_mul_ps, _mm256_set_m128i, _mm256_set1_epi8, _mm256_set1_epi16,
        _mm256_set1_ps, _mm256_setzero_ps, _mm256_sign_epi8,
    };
    // Vectors become arrays and arrays vectors by value: in a build with checks, loads through pointers are checked one by one.
    use std::mem::transmute;
    use std::sync::LazyLock;

    use super::{BLOCK, PADDED, PackedRows, Quants, WeightRow, f16, sum_of_lanes};

    pub(super) fn is_there() -> bool {
        static IS_THERE: LazyLock<bool> = LazyLock::new(|| {
            is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c")
        });
        *IS_THERE
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn products<'a, Q: Quants + 'a>(
        weights: impl Iterator<Item = WeightRow<'a, Q>>,
        rows: &PackedRows,
        output: &mut Vec<f32>,
    ) {
        let mut scales = Vec::new();
        for weight in weights {
            let (num_blocks, num_padded) = (weight.quants.len(), weight.scales.len());
            scales.resize(4 * num_padded, 0.0);
            let num_rows = rows.scales.len() / num_padded;
            let mut row_idx = 0;
            while row_idx < num_rows {
                let some = Some4 {
                    values: &rows.values[row_idx * num_blocks..],
                    scales: &rows.scales[row_idx * num_padded..],
                    sums: &rows.sums[row_idx * num_padded..],
                };
                match num_rows - row_idx {
                    1 => few::<Q, 1>(weight, some, &mut scales, output),
                    2 => few::<Q, 2>(weight, some, &mut scales, output),
                    3 => few::<Q, 3>(weight, some, &mut scales, output),
                    _ => few::<Q, 4>(weight, some, &mut scales, output),
                }
                row_idx += 4;
            }
        }
    }

    /// Packed rows from some row on.
    #[derive(Clone, Copy)]
    struct Some4<'a> {
        values: &'a [[u8; BLOCK]],
        scales: &'a [f32],
        sums: &'a [f32],
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    fn few<Q: Quants, const ROWS: usize>(
        weight: WeightRow<'_, Q>,
        rows: Some4<'_>,
        scales: &mut [f32],
        output: &mut Vec<f32>,
    ) {
        let (num_blocks, num_padded) = (weight.quants.len(), weight.scales.len());
        let mut lanes = [_mm256_setzero_ps(); ROWS];
        let (own, _) = weight.scales.as_chunks::<PADDED>();
        for row in 0..ROWS {
            let (others, _) = rows.scales[row * num_padded..][..num_padded].as_chunks::<PADDED>();
            let (both, _) = scales[row * num_padded..][..num_padded].as_chunks_mut::<PADDED>();
            for ((both, own), others) in both.iter_mut().zip(own).zip(others) {
                store(both, _mm256_mul_ps(load_halves(own), load(others)));
            }
        }
        // Loops over constant ranges and no closures: these end up as registers, those as calls.
        let mut scales_of: [&[f32]; ROWS] = [&[]; ROWS];
        let mut values_of: [&[[u8; BLOCK]]; ROWS] = [&[]; ROWS];
        for row in 0..ROWS {
            scales_of[row] = &scales[row * num_padded..][..num_blocks];
            values_of[row] = &rows.values[row * num_blocks..][..num_blocks];
        }
        for (block_idx, quants) in weight.quants.iter().enumerate() {
            let quants = load_quants(quants);
            for row in 0..ROWS {
                let values = load_bytes(&values_of[row][block_idx]);
                let pairs = if Q::ARE_NIBBLES {
                    _mm256_maddubs_epi16(quants, values)
                } else {
                    _mm256_maddubs_epi16(_mm256_abs_epi8(quants), _mm256_sign_epi8(values, quants))
                };
                let sums = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
                let scale = _mm256_set1_ps(scales_of[row][block_idx]);
                lanes[row] = _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(sums), lanes[row]);
            }
        }
        let (mins, _) = weight.mins.as_chunks::<PADDED>();
        for row in 0..ROWS {
            let mut lanes = lanes[row];
            let (sums, _) = rows.sums[row * num_padded..][..num_padded].as_chunks::<PADDED>();
            for (mins, sums) in mins.iter().zip(sums) {
                lanes = _mm256_fmadd_ps(load_halves(mins), load(sums), lanes);
            }
            let mut sums = [0.0; PADDED];
            store(&mut sums, lanes);
            output.push(sum_of_lanes(sums));
        }
    }

    #[target_feature(enable = "avx2")]
    fn load_quants<Q: Quants>(quants: &Q) -> __m256i {
        if !Q::ARE_NIBBLES {
            let whole = quants.bytes().first_chunk().expect("a block has 32 bytes");
            return load_bytes(whole);
        }
        let half: &[u8; 16] = quants.bytes().first_chunk().expect("a block has 16 bytes");
        // SAFETY: both are 16 bytes, of which every value is one.
        let half = unsafe { transmute::<[u8; 16], __m128i>(*half) };
        let both = _mm256_set_m128i(_mm_srli_epi16::<4>(half), half);
        _mm256_and_si256(both, _mm256_set1_epi8(15))
    }

    #[target_feature(enable = "avx2")]
    fn load_bytes(bytes: &[u8; BLOCK]) -> __m256i {
        // SAFETY: both are 32 bytes, of which every value is one.
        unsafe { transmute::<[u8; BLOCK], __m256i>(*bytes) }
    }

    #[target_feature(enable = "avx2")]
    fn load(values: &[f32; PADDED]) -> __m256 {
        // SAFETY: both are eight numbers.
        unsafe { transmute::<[f32; PADDED], __m256>(*values) }
    }

    #[target_feature(enable = "avx2")]
    fn store(to: &mut [f32; PADDED], values: __m256) {
        // SAFETY: both are eight numbers.
        *to = unsafe { transmute::<__m256, [f32; PADDED]>(values) };
    }

    #[target_feature(enable = "avx2,f16c")]
    fn load_halves(values: &[f16; PADDED]) -> __m256 {
        // SAFETY: eight numbers of two bytes are 16 bytes.
        _mm256_cvtph_ps(unsafe { transmute::<[f16; PADDED], __m128i>(*values) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn both<Q: Quants>(quants: &[Q], scale: f32, min: f32, rows: &[f32]) -> [Vec<f32>; 2] {
        let num_padded = quants.len().next_multiple_of(PADDED);
        let mut scales = vec![f16::from_f32(scale); quants.len()];
        let mut mins = vec![f16::from_f32(min); quants.len()];
        scales.resize(num_padded, f16::ZERO);
        mins.resize(num_padded, f16::ZERO);
        let weight = WeightRow {
            quants,
            scales: &scales,
            mins: &mins,
        };
        let rows = PackedRows::new(rows, quants.len() * BLOCK);
        let (mut fast, mut slow) = (Vec::new(), Vec::new());
        products(std::iter::once(weight), &rows, &mut fast);
        plain(std::iter::once(weight), &rows, &mut slow);
        [fast, slow]
    }

    proptest! {
        #[test]
        fn the_kernel_of_this_processor_is_the_plain_one_to_the_last_bit(
            nibbles in prop::collection::vec(any::<[u8; 16]>(), 1..12),
            bytes in prop::collection::vec(any::<[u8; 32]>(), 1..12),
            num_rows in 1usize..7,
            scale in -2.0f32..2.0,
            min in -2.0f32..2.0,
        ) {
            let rows = |num_blocks: usize| -> Vec<f32> {
                (0..num_rows * num_blocks * BLOCK).map(|idx| (idx as f32 * 0.37).sin() * 3.0).collect()
            };
            let [fast, slow] = both(&nibbles, scale, min, &rows(nibbles.len()));
            prop_assert_eq!(fast, slow);
            let [fast, slow] = both(&bytes, scale, min, &rows(bytes.len()));
            prop_assert_eq!(fast, slow);
        }
    }
}
