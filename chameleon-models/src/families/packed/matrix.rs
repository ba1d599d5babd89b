//! One packed weight.

use burn::tensor::{Tensor, TensorData};
use half::f16;
use rayon::prelude::*;
use sha2::{Digest as _, Sha256};

use super::kernel::{self, Quants, WeightRow};
use super::rows::{BLOCK, PADDED, PackedRows};
use crate::files::tensor_dtype::TensorDtype;

/// A weight, output by output, in blocks along its input.
#[derive(Debug)]
pub(crate) struct PackedMatrix {
    quants: Blocks,
    /// `[out, padded blocks]`
    scales: Vec<f16>,
    /// `[out, padded blocks]`, empty if blocks have no offset.
    mins: Vec<f16>,
    in_size: usize,
    out_size: usize,
}

/// Integers, `[out, blocks]`.
#[derive(Debug)]
enum Blocks {
    Nibbles(Vec<[u8; BLOCK / 2]>),
    Bytes(Vec<[u8; BLOCK]>),
}

/// A part of the outputs that one thread computes at a time.
const MAX_OUTPUTS: usize = 1024;
/// Products of blocks below which one thread is as fast as several.
const PARALLEL_FROM: usize = 4096;

impl PackedMatrix {
    /// Whether weights of a format can stay packed.
    pub(crate) fn takes(dtype: TensorDtype) -> bool {
        matches!(
            dtype,
            TensorDtype::Q4_0 | TensorDtype::Q4_1 | TensorDtype::Q5_0 | TensorDtype::Q8_0
        )
    }

    /// Reads a weight `[out, in]` from the bytes of a file; its output `idx` is the stored row `row_of(idx)`. `None` if
    /// the format is not one that it [`takes`](Self::takes), if the bytes are not of this shape, or if a scale is not
    /// finite.
    pub(crate) fn read(
        dtype: TensorDtype,
        stored: &[u8],
        [out_size, in_size]: [usize; 2],
        row_of: impl Fn(usize) -> usize,
    ) -> Option<Self> {
        let num_blocks = in_size / BLOCK;
        let block_bytes = dtype.block_bytes();
        let is_whole = in_size.is_multiple_of(BLOCK)
            && num_blocks > 0
            && stored.len() == out_size * num_blocks * block_bytes;
        if !(is_whole && Self::takes(dtype)) {
            return None;
        }
        let num_padded = num_blocks.next_multiple_of(PADDED);
        let has_mins = matches!(dtype, TensorDtype::Q4_0 | TensorDtype::Q4_1);
        let mut matrix = Self {
            quants: if has_mins {
                Blocks::Nibbles(Vec::with_capacity(out_size * num_blocks))
            } else {
                Blocks::Bytes(Vec::with_capacity(out_size * num_blocks))
            },
            scales: vec![f16::ZERO; out_size * num_padded],
            mins: vec![f16::ZERO; if has_mins { out_size * num_padded } else { 0 }],
            in_size,
            out_size,
        };
        for out_idx in 0..out_size {
            let row =
                &stored[row_of(out_idx) * num_blocks * block_bytes..][..num_blocks * block_bytes];
            for (block_idx, block) in row.chunks_exact(block_bytes).enumerate() {
                let idx = out_idx * num_padded + block_idx;
                matrix.scales[idx] = half(block, 0)?;
                if has_mins {
                    matrix.mins[idx] = match dtype {
                        // Integers are offset by 8, which adding -8 times the scale corrects exactly.
                        TensorDtype::Q4_0 => f16::from_f32(-8.0 * matrix.scales[idx].to_f32()),
                        _ => half(block, 1)?,
                    };
                }
                matrix.quants.push(dtype, block)?;
            }
        }
        let numbers = matrix.scales.iter().chain(&matrix.mins);
        numbers.copied().all(f16::is_finite).then_some(matrix)
    }

    /// Rows through the weight, each by itself.
    ///
    /// # Shapes
    ///
    /// - `x`: `[rows, in]`
    /// - output: `[rows, out]`
    ///
    /// # Panics
    ///
    /// When the width is another.
    pub(crate) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let [num_rows, in_size] = x.dims();
        assert_eq!(in_size, self.in_size, "the width of rows");
        let device = x.device();
        let rows: Vec<f32> = x
            .into_data()
            .convert::<f32>()
            .try_into_vec()
            .expect("the data was just converted to f32");
        // A lone row comes doubled where other products need two rows: computed once, it is the same twice.
        let first = &rows[..in_size];
        let are_equal = rows.chunks_exact(in_size).skip(1).all(|row| row == first);
        let values = if are_equal {
            self.products(first).repeat(num_rows)
        } else {
            self.products(&rows)
        };
        Tensor::from_data(TensorData::new(values, [num_rows, self.out_size]), &device)
    }

    /// `[rows, in]` -> `[rows, out]`
    fn products(&self, rows: &[f32]) -> Vec<f32> {
        let num_rows = rows.len() / self.in_size;
        let rows = PackedRows::new(rows, self.in_size);
        let num_threads = if num_rows * self.out_size * self.in_size < PARALLEL_FROM * BLOCK {
            1
        } else {
            rayon::current_num_threads()
        };
        let num_parts = num_threads * self.out_size.div_ceil(num_threads * MAX_OUTPUTS);
        let part_size = self.out_size.div_ceil(num_parts).max(1);
        let parts: Vec<Vec<f32>> = (0..self.out_size.div_ceil(part_size))
            .into_par_iter()
            .map(|part_idx| {
                let first = part_idx * part_size;
                let end = self.out_size.min(first + part_size);
                let mut output = Vec::with_capacity((end - first) * num_rows);
                match &self.quants {
                    Blocks::Nibbles(quants) => {
                        kernel::products(self.weights(quants, first..end), &rows, &mut output);
                    }
                    Blocks::Bytes(quants) => {
                        kernel::products(self.weights(quants, first..end), &rows, &mut output);
                    }
                }
                output
            })
            .collect();
        let by_output = parts.concat(); // [out, rows]
        if num_rows == 1 {
            return by_output;
        }
        (0..num_rows)
            .flat_map(|row_idx| by_output.iter().skip(row_idx).step_by(num_rows))
            .copied()
            .collect()
    }

    fn weights<'a, Q: Quants>(
        &'a self,
        quants: &'a [Q],
        outputs: std::ops::Range<usize>,
    ) -> impl Iterator<Item = WeightRow<'a, Q>> {
        let num_blocks = self.in_size / BLOCK;
        let num_padded = num_blocks.next_multiple_of(PADDED);
        outputs.map(move |out_idx| WeightRow {
            quants: &quants[out_idx * num_blocks..][..num_blocks],
            scales: &self.scales[out_idx * num_padded..][..num_padded],
            mins: if self.mins.is_empty() {
                &[]
            } else {
                &self.mins[out_idx * num_padded..][..num_padded]
            },
        })
    }

    /// Adds its contents to a digest.
    pub(super) fn update(&self, digest: &mut Sha256) {
        match &self.quants {
            Blocks::Nibbles(quants) => digest.update(quants.as_flattened()),
            Blocks::Bytes(quants) => digest.update(quants.as_flattened()),
        }
        for number in self.scales.iter().chain(&self.mins) {
            digest.update(number.to_le_bytes());
        }
    }
}

impl Blocks {
    /// Copies the integers of a block.
    fn push(&mut self, dtype: TensorDtype, block: &[u8]) -> Option<()> {
        match self {
            Self::Nibbles(quants) => quants.push(*block.last_chunk()?),
            Self::Bytes(quants) if dtype == TensorDtype::Q8_0 => quants.push(*block.last_chunk()?),
            Self::Bytes(quants) => {
                // Four bits as in the others, the fifth of each in four bytes of their own; they count from -16.
                let fifths = u32::from_le_bytes(*block.get(2..)?.first_chunk()?);
                let low: [u8; BLOCK / 2] = *block.last_chunk()?;
                let low = low.unpack();
                quants.push(std::array::from_fn(|idx| {
                    let fifth = i8::from(fifths >> idx & 1 == 1) << 4;
                    (low[idx] + fifth - 16).cast_unsigned()
                }));
            }
        }
        Some(())
    }
}

/// A number of 16 bits among those at the beginning of a block.
fn half(block: &[u8], idx: usize) -> Option<f16> {
    Some(f16::from_le_bytes(*block.get(2 * idx..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tolerance};

    use super::*;

    /// Blocks with scales that are small numbers, everything else as it falls.
    fn stored(dtype: TensorDtype, num_blocks: usize) -> Vec<u8> {
        (0..num_blocks)
            .flat_map(|block_idx| {
                let mut block: Vec<u8> = (0..dtype.block_bytes())
                    .map(|idx| u8::try_from((idx * 37 + block_idx * 91) % 256).unwrap())
                    .collect();
                let scale = f16::from_f32(0.01 + (block_idx % 7) as f32 * 0.001);
                block[..2].copy_from_slice(&scale.to_le_bytes());
                if dtype == TensorDtype::Q4_1 {
                    let min = f16::from_f32(-0.05);
                    block[2..4].copy_from_slice(&min.to_le_bytes());
                }
                block
            })
            .collect()
    }

    fn rows(num_rows: usize, in_size: usize) -> Tensor<2> {
        let values: Vec<f32> = (0..num_rows * in_size)
            .map(|idx| (idx as f32 * 0.61).sin())
            .collect();
        Tensor::from_data(
            TensorData::new(values, [num_rows, in_size]),
            &Device::flex(),
        )
    }

    const ALL: [TensorDtype; 4] = [
        TensorDtype::Q4_0,
        TensorDtype::Q4_1,
        TensorDtype::Q5_0,
        TensorDtype::Q8_0,
    ];

    #[test]
    fn products_are_near_those_of_the_decoded_weight() {
        let (out_size, in_size) = (37, 320);
        for dtype in ALL {
            let stored = stored(dtype, out_size * in_size / BLOCK);
            let decoded = dtype.decode(&stored).unwrap();
            let decoded = TensorData::new(decoded, [out_size, in_size]);
            let weight = Tensor::<2>::from_data(decoded, &Device::flex());
            let turned_round = |idx: usize| out_size - 1 - idx;
            let packed = PackedMatrix::read(dtype, &stored, [out_size, in_size], turned_round);
            let found = packed.unwrap().forward(rows(6, in_size)).into_data();
            let expected = rows(6, in_size).matmul(weight.flip([0]).transpose());
            let largest: f32 = expected.clone().abs().max().into_scalar();
            found.assert_approx_eq::<f32>(
                &expected.into_data(),
                Tolerance::absolute(0.02 * largest),
            );
        }
    }

    #[test]
    fn the_last_bits_of_a_row_do_not_depend_on_the_others() {
        for dtype in ALL {
            let stored = stored(dtype, 37 * 10);
            let packed = PackedMatrix::read(dtype, &stored, [37, 320], |idx| idx).unwrap();
            let all = packed.forward(rows(9, 320));
            for num_rows in [1, 2, 4, 7] {
                let some = packed.forward(rows(9, 320).narrow(0, 0, num_rows));
                let among = all.clone().narrow(0, 0, num_rows).into_data();
                some.into_data().assert_eq(&among, true);
            }
            let twice = packed.forward(rows(1, 320).repeat_dim(0, 2));
            let once = all.clone().narrow(0, 0, 1).repeat_dim(0, 2).into_data();
            twice.into_data().assert_eq(&once, true);
        }
    }

    #[test]
    fn what_does_not_fit_is_not_taken() {
        let stored = stored(TensorDtype::Q4_1, 10);
        let read = |dtype, bytes: &[u8], shape| PackedMatrix::read(dtype, bytes, shape, |idx| idx);
        assert!(read(TensorDtype::Q4_1, &stored, [1, 320]).is_some());
        assert!(read(TensorDtype::Q4_1, &stored, [2, 320]).is_none());
        assert!(read(TensorDtype::Q4_1, &stored[1..], [1, 320]).is_none());
        assert!(read(TensorDtype::Q6K, &stored, [1, 320]).is_none());
        let mut infinite = stored;
        infinite[..2].copy_from_slice(&f16::INFINITY.to_le_bytes());
        assert!(read(TensorDtype::Q4_1, &infinite, [1, 320]).is_none());
    }
}
