//! Products of packed weights with packed rows: integers within a block of 32, f32 across blocks.
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

use super::rows::{BLOCK, PADDED, PackedRows};

/// Integers of a block of weights.
pub(super) trait Quants: Copy + Send + Sync {
    /// The integers, one after the other.
    fn unpack(self) -> [i8; BLOCK];

    /// Four bits: the first 16 integers are the lower halves of the bytes.
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
        __m128i, __m256, __m256i, _MM_HINT_T0, _mm_prefetch, _mm_srli_epi16, _mm256_abs_epi8,
        _mm256_and_si256, _mm256_cvtepi32_ps, _mm256_cvtph_ps, _mm256_fmadd_ps, _mm256_madd_epi16,
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
        let mut weights = weights.peekable();
        let Some(num_padded) = weights.peek().map(|weight| weight.scales.len()) else {
            return;
        };
        let mut scales = vec![0.0; MAX_PRODUCTS * num_padded];
        // Additions of one product wait for each other, so a few products go side by side.
        match rows.scales.len() / num_padded {
            1 => tiles::<Q, 4, 1>(weights, rows, &mut scales, output),
            2 => tiles::<Q, 2, 2>(weights, rows, &mut scales, output),
            num_rows => weights.for_each(|weight| {
                for first in (0..num_rows).step_by(4) {
                    match num_rows - first {
                        1 => tile::<Q, 1, 1>([weight], rows, first, &mut scales, output),
                        2 => tile::<Q, 1, 2>([weight], rows, first, &mut scales, output),
                        3 => tile::<Q, 1, 3>([weight], rows, first, &mut scales, output),
                        _ => tile::<Q, 1, 4>([weight], rows, first, &mut scales, output),
                    }
                }
            }),
        }
    }

    const CACHE_LINE: usize = 64;

    /// Prefetch distance in bytes: the latency of memory is high, and the hardware prefetcher stops at the next page.
    /// Behind the last weight it is a hint that nothing follows.
    const PREFETCHED: usize = 4096;

    /// Products of a tile at most.
    const MAX_PRODUCTS: usize = 4;

    /// Tiles of several outputs and all rows, then what is left output by output.
    #[target_feature(enable = "avx2,fma,f16c")]
    fn tiles<'a, Q: Quants + 'a, const OUTPUTS: usize, const ROWS: usize>(
        weights: impl Iterator<Item = WeightRow<'a, Q>>,
        rows: &PackedRows,
        scales: &mut [f32],
        output: &mut Vec<f32>,
    ) {
        let mut waiting = Vec::with_capacity(OUTPUTS);
        for weight in weights {
            waiting.push(weight);
            if let Ok(full) = <[WeightRow<'a, Q>; OUTPUTS]>::try_from(waiting.as_slice()) {
                tile::<Q, OUTPUTS, ROWS>(full, rows, 0, scales, output);
                waiting.clear();
            }
        }
        for weight in waiting {
            tile::<Q, 1, ROWS>([weight], rows, 0, scales, output);
        }
    }

    /// The products of some outputs with the rows from `first` on.
    #[target_feature(enable = "avx2,fma,f16c")]
    fn tile<Q: Quants, const OUTPUTS: usize, const ROWS: usize>(
        weights: [WeightRow<'_, Q>; OUTPUTS],
        rows: &PackedRows,
        first: usize,
        scales: &mut [f32],
        output: &mut Vec<f32>,
    ) {
        let (num_blocks, num_padded) = (weights[0].quants.len(), weights[0].scales.len());
        for weight in &weights {
            let first = weight.quants.as_ptr().cast::<i8>();
            for offset in (0..size_of_val(weight.quants)).step_by(CACHE_LINE) {
                _mm_prefetch::<_MM_HINT_T0>(first.wrapping_add(PREFETCHED + offset));
            }
        }
        for out in 0..OUTPUTS {
            let (own, _) = weights[out].scales.as_chunks::<PADDED>();
            for row in 0..ROWS {
                let others = &rows.scales[(first + row) * num_padded..][..num_padded];
                let both = &mut scales[(out * ROWS + row) * num_padded..][..num_padded];
                let pairs = own.iter().zip(others.as_chunks::<PADDED>().0);
                for (both, (own, others)) in both.as_chunks_mut::<PADDED>().0.iter_mut().zip(pairs)
                {
                    store(both, _mm256_mul_ps(load_halves(own), load(others)));
                }
            }
        }
        // Loops over constant ranges and no closures: these end up as registers, those as calls.
        let mut scales_of: [[&[f32]; ROWS]; OUTPUTS] = [[&[]; ROWS]; OUTPUTS];
        let mut values_of: [&[[u8; BLOCK]]; ROWS] = [&[]; ROWS];
        let mut quants_of: [&[Q]; OUTPUTS] = [&[]; OUTPUTS];
        for row in 0..ROWS {
            values_of[row] = &rows.values[(first + row) * num_blocks..][..num_blocks];
            for out in 0..OUTPUTS {
                scales_of[out][row] = &scales[(out * ROWS + row) * num_padded..][..num_blocks];
                quants_of[out] = &weights[out].quants[..num_blocks];
            }
        }
        let mut lanes = [[_mm256_setzero_ps(); ROWS]; OUTPUTS];
        for block_idx in 0..num_blocks {
            for out in 0..OUTPUTS {
                let quants = load_quants(&quants_of[out][block_idx]);
                for row in 0..ROWS {
                    let values = load_bytes(&values_of[row][block_idx]);
                    let pairs = if Q::ARE_NIBBLES {
                        _mm256_maddubs_epi16(quants, values)
                    } else {
                        _mm256_maddubs_epi16(
                            _mm256_abs_epi8(quants),
                            _mm256_sign_epi8(values, quants),
                        )
                    };
                    let sums = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
                    let scale = _mm256_set1_ps(scales_of[out][row][block_idx]);
                    lanes[out][row] =
                        _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(sums), lanes[out][row]);
                }
            }
        }
        for out in 0..OUTPUTS {
            let (mins, _) = weights[out].mins.as_chunks::<PADDED>();
            for row in 0..ROWS {
                let mut lanes = lanes[out][row];
                let sums = &rows.sums[(first + row) * num_padded..][..num_padded];
                for (mins, sums) in mins.iter().zip(sums.as_chunks::<PADDED>().0) {
                    lanes = _mm256_fmadd_ps(load_halves(mins), load(sums), lanes);
                }
                let mut sums = [0.0; PADDED];
                store(&mut sums, lanes);
                output.push(sum_of_lanes(sums));
            }
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

    /// Five outputs, each with the blocks in another order, so that there are whole tiles and what they leave.
    fn both<Q: Quants>(quants: &[Q], scale: f32, min: f32, rows: &[f32]) -> [Vec<f32>; 2] {
        let num_padded = quants.len().next_multiple_of(PADDED);
        let mut scales = vec![f16::from_f32(scale); quants.len()];
        let mut mins = vec![f16::from_f32(min); quants.len()];
        scales.resize(num_padded, f16::ZERO);
        mins.resize(num_padded, f16::ZERO);
        let outputs: Vec<Vec<Q>> = (0..5)
            .map(|out_idx| {
                let mut rotated = quants.to_vec();
                rotated.rotate_left(out_idx % quants.len());
                rotated
            })
            .collect();
        let weights = outputs.iter().map(|quants| WeightRow {
            quants,
            scales: &scales,
            mins: &mins,
        });
        let rows = PackedRows::new(rows, quants.len() * BLOCK);
        let (mut fast, mut slow) = (Vec::new(), Vec::new());
        products(weights.clone(), &rows, &mut fast);
        plain(weights, &rows, &mut slow);
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
