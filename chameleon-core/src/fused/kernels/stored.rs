//! Products with weights as they are stored: some outputs at a time are decoded to f32 and multiplied in f32.
//!
//! Each product of a row and an output is one sum in the lanes of one register, whatever the number of rows: a row's
//! result does not depend, not even in its last bit, on the others.
#![expect(
    unsafe_code,
    reason = "threads write different columns of the same rows"
)]

use std::borrow::Cow;
use std::marker::PhantomData;
use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::product::{Matrix, Product};
use super::vectorised;
use crate::stored::StoredMatrix;

/// Rows are filled up with zeros to a multiple of this, which every register divides.
const LANES: usize = 16;

/// Rows and outputs of a tile: as many sums as fit into the registers.
const TILE_ROWS: usize = 4;
const TILE_OUTPUTS: usize = 4;

/// Outputs that are decoded at a time: few for few rows, so that they stay in the nearest cache.
const FEW_OUTPUTS: usize = 2 * TILE_OUTPUTS;
const MANY_OUTPUTS: usize = 8 * TILE_OUTPUTS;

/// Rows from which on many outputs are decoded at a time.
const MANY_ROWS: usize = 24;

/// Values of a block of rows, and its rows at least: each block decodes the weight once more.
const BLOCK_VALUES: usize = 1 << 18;
const MIN_BLOCK_ROWS: usize = 16 * TILE_ROWS;

/// Outputs of a task at most.
const TASK_OUTPUTS: usize = 1024;

/// Multiplications below which one thread is faster.
const PARALLEL_FROM: usize = 1 << 17;

/// Outputs that are decoded at a time for gradients.
const GRADIENT_OUTPUTS: usize = 256;

/// Rows through a weight, `[rows, in]` -> `[rows, out]`.
///
/// # Panics
///
/// When the rows have another width.
pub(in crate::fused) fn multiply(x: &[f32], weight: &StoredMatrix) -> Vec<f32> {
    let (in_size, out_size) = (weight.in_size(), weight.out_size());
    assert!(x.len().is_multiple_of(in_size), "the width of rows");
    let num_rows = x.len() / in_size;
    // A lone row comes doubled where other products need two rows.
    if num_rows == 2 && x[..in_size] == x[in_size..] {
        return multiply(&x[..in_size], weight).repeat(2);
    }
    let mut output = vec![0.0; num_rows * out_size];
    let x = filled_up(x, in_size);
    let columns = Columns {
        first: output.as_mut_ptr(),
        num_rows,
        width: out_size,
        of: PhantomData,
    };
    let num_tasks = if num_rows * out_size * in_size < PARALLEL_FROM {
        1
    } else {
        let num_threads = rayon::current_num_threads();
        num_threads * out_size.div_ceil(num_threads * TASK_OUTPUTS)
    };
    let size = out_size.div_ceil(num_tasks).next_multiple_of(FEW_OUTPUTS);
    (0..out_size.div_ceil(size))
        .into_par_iter()
        .for_each(|task_idx| {
            let outputs = task_idx * size..out_size.min((task_idx + 1) * size);
            multiply_some(&x, weight, outputs, &columns);
        });
    output
}

/// Gradients of outputs to those of inputs, `[rows, out]` -> `[rows, in]`.
///
/// # Panics
///
/// When the gradients have another width.
pub(in crate::fused) fn multiply_transposed(grad: Matrix<'_>, weight: &StoredMatrix) -> Vec<f32> {
    let (in_size, out_size) = (weight.in_size(), weight.out_size());
    let [num_rows, width] = grad.shape;
    assert_eq!(width, out_size, "the width of gradients");
    let mut sum = vec![0.0; num_rows * in_size];
    let mut decoded = vec![0.0; GRADIENT_OUTPUTS.min(out_size) * in_size];
    for first in (0..out_size).step_by(GRADIENT_OUTPUTS) {
        let outputs = first..out_size.min(first + GRADIENT_OUTPUTS);
        let decoded = &mut decoded[..outputs.len() * in_size];
        decoded
            .par_chunks_mut(MANY_OUTPUTS * in_size)
            .enumerate()
            .for_each(|(idx, values)| {
                let first = outputs.start + idx * MANY_OUTPUTS;
                let end = outputs.end.min(first + MANY_OUTPUTS);
                weight.decode_rows(first..end, in_size, values);
            });
        let grad = grad.columns(outputs);
        Product::of(grad, Matrix::from_rows(decoded, in_size)).add_to(&mut sum);
    }
    sum
}

/// Rows whose width is a multiple of [`LANES`].
fn filled_up(x: &[f32], in_size: usize) -> Cow<'_, [f32]> {
    let width = in_size.next_multiple_of(LANES);
    if width == in_size {
        return Cow::Borrowed(x);
    }
    let mut filled = vec![0.0; x.len() / in_size * width];
    for (filled, row) in filled.chunks_exact_mut(width).zip(x.chunks_exact(in_size)) {
        filled[..in_size].copy_from_slice(row);
    }
    Cow::Owned(filled)
}

/// Rows that several threads write, each its own columns.
struct Columns<'a> {
    first: *mut f32,
    num_rows: usize,
    width: usize,
    of: PhantomData<&'a mut [f32]>,
}

// SAFETY: whoever calls `write` vouches that no other thread writes the same columns.
unsafe impl Sync for Columns<'_> {}

impl Columns<'_> {
    /// # Safety
    ///
    /// No other thread reads or writes these columns meanwhile.
    #[inline(always)]
    unsafe fn write<const SIZE: usize>(&self, row_idx: usize, column: usize, values: [f32; SIZE]) {
        assert!(row_idx < self.num_rows && column < self.width);
        let size = SIZE.min(self.width - column);
        for (offset, value) in values.into_iter().take(size).enumerate() {
            // SAFETY: row and column are within the slice, and nobody else has the column.
            unsafe {
                *self.first.add(row_idx * self.width + column + offset) = value;
            }
        }
    }
}

/// The products of all rows with some outputs, in blocks of rows that stay in the second cache.
fn multiply_some(x: &[f32], weight: &StoredMatrix, outputs: Range<usize>, columns: &Columns<'_>) {
    let width = weight.in_size().next_multiple_of(LANES);
    let panel_size = if columns.num_rows < MANY_ROWS {
        FEW_OUTPUTS
    } else {
        MANY_OUTPUTS
    };
    // What follows the last output of a panel stays of the one before, or zero, and is not written.
    let mut panel = vec![0.0; panel_size.min(outputs.len().next_multiple_of(FEW_OUTPUTS)) * width];
    let block_rows = (BLOCK_VALUES / width)
        .next_multiple_of(TILE_ROWS)
        .max(MIN_BLOCK_ROWS);
    for (block_idx, x) in x.chunks(block_rows * width).enumerate() {
        for first in outputs.clone().step_by(panel_size) {
            let decoded = first..outputs.end.min(first + panel_size);
            weight.decode_rows(decoded.clone(), width, &mut panel);
            vectorised(MultiplyPanel {
                x,
                panel: &panel[..decoded.len().next_multiple_of(TILE_OUTPUTS) * width],
                width,
                first_row: block_idx * block_rows,
                first,
                columns,
            });
        }
    }
}

struct MultiplyPanel<'a> {
    /// `[rows, width]`
    x: &'a [f32],
    /// `[outputs, width]`
    panel: &'a [f32],
    width: usize,
    first_row: usize,
    /// The first output.
    first: usize,
    columns: &'a Columns<'a>,
}

impl WithSimd for MultiplyPanel<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let num_rows = self.x.len() / self.width;
        // Processors with shorter registers have half as many.
        let tile_rows = if S::F32_LANES >= 16 {
            TILE_ROWS
        } else {
            TILE_ROWS / 2
        };
        for row in (0..num_rows).step_by(tile_rows) {
            match (num_rows - row).min(tile_rows) {
                1 => self.rows::<S, 1>(simd, row),
                2 => self.rows::<S, 2>(simd, row),
                3 => self.rows::<S, 3>(simd, row),
                _ => self.rows::<S, 4>(simd, row),
            }
        }
    }
}

impl MultiplyPanel<'_> {
    /// Some rows with all outputs of the panel.
    #[inline(always)]
    fn rows<S: Simd, const ROWS: usize>(&self, simd: S, row: usize) {
        let width = self.width;
        let mut x: [&[S::f32s]; ROWS] = [&[]; ROWS];
        for (offset, x) in x.iter_mut().enumerate() {
            *x = S::as_simd_f32s(&self.x[(row + offset) * width..][..width]).0;
        }
        let (columns, first_row) = (self.columns, self.first_row + row);
        let tiles = self.panel.chunks_exact(TILE_OUTPUTS * width);
        for (tile_idx, tile) in tiles.enumerate() {
            let mut weights: [&[S::f32s]; TILE_OUTPUTS] = [&[]; TILE_OUTPUTS];
            for (out, weights) in weights.iter_mut().enumerate() {
                *weights = S::as_simd_f32s(&tile[out * width..][..width]).0;
            }
            let sums = tile_sums(simd, x, weights);
            for (offset, sums) in sums.into_iter().enumerate() {
                let column = self.first + tile_idx * TILE_OUTPUTS;
                // SAFETY: the outputs of a task are its own.
                unsafe { columns.write(first_row + offset, column, sums) };
            }
        }
    }
}

/// Loops and no closures: these are not always inlined, and then compiled for the oldest processor.
#[inline(always)]
fn tile_sums<S: Simd, const ROWS: usize>(
    simd: S,
    mut x: [&[S::f32s]; ROWS],
    mut weights: [&[S::f32s]; TILE_OUTPUTS],
) -> [[f32; TILE_OUTPUTS]; ROWS] {
    let len = x[0].len();
    for x in &mut x {
        *x = &x[..len];
    }
    for weights in &mut weights {
        *weights = &weights[..len];
    }
    let mut sums = [[simd.splat_f32s(0.0); TILE_OUTPUTS]; ROWS];
    for idx in 0..len {
        for row in 0..ROWS {
            for out in 0..TILE_OUTPUTS {
                sums[row][out] =
                    simd.mul_add_e_f32s(x[row][idx], weights[out][idx], sums[row][out]);
            }
        }
    }
    let mut totals = [[0.0; TILE_OUTPUTS]; ROWS];
    for row in 0..ROWS {
        for out in 0..TILE_OUTPUTS {
            totals[row][out] = simd.reduce_sum_f32s(sums[row][out]);
        }
    }
    totals
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stored::TensorDtype;

    fn rows(num_rows: usize, width: usize) -> Vec<f32> {
        (0..num_rows * width)
            .map(|idx| (idx as f32 * 0.61).sin())
            .collect()
    }

    fn assert_close(found: &[f32], expected: &[f64], what: impl std::fmt::Display) {
        let largest = expected.iter().fold(1e-9_f64, |a, &b| a.max(b.abs()));
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            let error = (f64::from(*found) - expected).abs();
            assert!(error <= 1e-5 * largest, "{what}: {found} for {expected}");
        }
    }

    /// Sums of products in f64: the plain twin.
    fn plain(x: &[f32], weight: &StoredMatrix) -> Vec<f64> {
        let values = weight.rows(0..weight.out_size());
        x.chunks(weight.in_size())
            .flat_map(|row| {
                values.chunks(weight.in_size()).map(move |weights| {
                    let products = row.iter().zip(weights);
                    products.map(|(&x, &w)| f64::from(x) * f64::from(w)).sum()
                })
            })
            .collect()
    }

    #[test]
    fn products_are_those_of_the_decoded_weight_in_every_format() {
        for dtype in TensorDtype::ALL {
            let weight = StoredMatrix::of_pattern(dtype, [37, 512]);
            for num_rows in [1, 2, 3, 7, 31] {
                let x = rows(num_rows, 512);
                assert_close(&multiply(&x, &weight), &plain(&x, &weight), dtype);
            }
        }
        for in_size in [1, 15, 40] {
            let weight = StoredMatrix::of_pattern(TensorDtype::Bf16, [9, in_size]);
            let x = rows(5, in_size);
            assert_close(&multiply(&x, &weight), &plain(&x, &weight), in_size);
        }
    }

    #[test]
    fn gradients_are_those_of_the_decoded_weight_in_every_format() {
        for dtype in TensorDtype::ALL {
            let (out_size, in_size) = (300, 256);
            let weight = StoredMatrix::of_pattern(dtype, [out_size, in_size]);
            let grad = rows(3, out_size);
            let values = weight.rows(0..out_size);
            let expected: Vec<f64> = grad
                .chunks(out_size)
                .flat_map(|grad| {
                    (0..in_size).map(|idx| {
                        let column = values.iter().skip(idx).step_by(in_size);
                        let products = grad.iter().zip(column);
                        products.map(|(&g, &w)| f64::from(g) * f64::from(w)).sum()
                    })
                })
                .collect();
            let found = multiply_transposed(Matrix::from_rows(&grad, out_size), &weight);
            assert_close(&found, &expected, dtype);
        }
    }

    #[test]
    fn the_last_bits_of_a_row_do_not_depend_on_the_others() {
        let weight = StoredMatrix::of_pattern(TensorDtype::Q4_1, [2100, 96]);
        let x = rows(40, 96);
        let all = multiply(&x, &weight);
        for num_rows in [1, 2, 4, 7, 23, 25] {
            let some = multiply(&x[..num_rows * 96], &weight);
            assert!(some == all[..num_rows * 2100], "{num_rows} rows");
        }
        let twice = multiply(&x[..96].repeat(2), &weight);
        assert!(twice[..2100] == all[..2100] && twice[2100..] == all[..2100]);
    }

    #[test]
    fn every_kind_of_processor_finds_the_same_products() {
        let weight = StoredMatrix::of_pattern(TensorDtype::Q6K, [8, 256]);
        let (x, panel) = (rows(7, 256), weight.rows(0..8));
        let mut output = vec![0.0; 7 * 8];
        let columns = Columns {
            first: output.as_mut_ptr(),
            num_rows: 7,
            width: 8,
            of: PhantomData,
        };
        pulp::Scalar::new().vectorize(MultiplyAs(MultiplyPanel {
            x: &x,
            panel: &panel,
            width: 256,
            first_row: 0,
            first: 0,
            columns: &columns,
        }));
        assert_close(&output, &plain(&x, &weight), "scalar");
    }

    /// A kernel for the plainest processor.
    struct MultiplyAs<'a>(MultiplyPanel<'a>);

    impl pulp::NullaryFnOnce for MultiplyAs<'_> {
        type Output = ();

        fn call(self) {
            self.0.with_simd(pulp::Scalar::new());
        }
    }
}
