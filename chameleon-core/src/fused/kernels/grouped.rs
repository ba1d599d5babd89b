//! Low-rank changes of rows, each by the factors of its own group.
//!
//! Few rows share a group's factors, so reading these from memory takes most of the time: they are read where they lie,
//! once for all rows of a task.

use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::math::LANES;
use super::vectorised;

/// Rows of one group that share each value of the factors in a register.
const TILE_ROWS: usize = 4;

/// Rows of one group per task.
const TASK_ROWS: usize = TILE_ROWS;

/// Sums of each column, so that they are added independently of each other.
const STEPS: usize = 4;

/// Columns of the output whose sums are in registers.
const BLOCK: usize = 64;

/// The factors of one group.
#[derive(Debug, Clone, Copy)]
pub(in crate::fused) struct GroupFactors<'a> {
    /// `[in, rank]`
    pub(in crate::fused) a: &'a [f32],
    /// `[rank, out]`
    pub(in crate::fused) b: &'a [f32],
    pub(in crate::fused) rank: usize,
    pub(in crate::fused) scale: f32,
}

/// A row that belongs to a group.
#[derive(Debug)]
pub(in crate::fused) struct GroupRow<'a> {
    pub(in crate::fused) group_idx: usize,
    /// `[in]`
    pub(in crate::fused) x: &'a [f32],
    /// `[out]`
    pub(in crate::fused) output: &'a mut [f32],
}

/// Adds `scale * (x · a) · b` to the output of each row. The order of summation depends on the sizes of the factors
/// alone.
pub(in crate::fused) fn add_changes(mut rows: Vec<GroupRow<'_>>, groups: &[GroupFactors<'_>]) {
    rows.sort_by_key(|row| row.group_idx);
    let tasks: Vec<&mut [GroupRow<'_>]> = rows
        .chunk_by_mut(|left, right| left.group_idx == right.group_idx)
        .flat_map(|rows| rows.chunks_mut(TASK_ROWS))
        .collect();
    tasks.into_par_iter().for_each(|rows| {
        vectorised(AddChanges {
            factors: groups[rows[0].group_idx],
            rows,
        });
    });
}

/// Rows of one group.
struct AddChanges<'t, 'a> {
    factors: GroupFactors<'t>,
    rows: &'t mut [GroupRow<'a>],
}

impl WithSimd for AddChanges<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (tiles, rest) = self.rows.as_chunks_mut::<TILE_ROWS>();
        for rows in tiles {
            self.factors.add_to(simd, rows);
        }
        for row in rest {
            self.factors.add_to(simd, std::array::from_mut(row));
        }
    }
}

impl GroupFactors<'_> {
    #[inline(always)]
    fn add_to<S: Simd, const ROWS: usize>(self, simd: S, rows: &mut [GroupRow<'_>; ROWS]) {
        let mut narrow = [(); ROWS].map(|()| vec![0.0; self.rank]);
        for first in (0..self.rank).step_by(S::F32_LANES) {
            let columns = first..(first + S::F32_LANES).min(self.rank);
            let sums = self.project(simd, rows.each_ref().map(|row| row.x), columns.clone());
            for (narrow, sums) in narrow.iter_mut().zip(sums) {
                let mut lanes = [0.0; LANES];
                S::as_mut_simd_f32s(&mut lanes).0[0] = sums;
                for (value, lane) in narrow[columns.clone()].iter_mut().zip(lanes) {
                    *value = self.scale * lane;
                }
            }
        }
        for (row, narrow) in rows.iter_mut().zip(&narrow) {
            add_widened(row.output, narrow, self.b);
        }
    }

    /// Some columns of `x · a`, at most as many as a register has lanes, side by side in one register for each row. What
    /// the other lanes contain is arbitrary.
    ///
    /// Registers are loaded whole, wherever the columns begin: what follows them are other columns and inputs.
    #[inline(always)]
    fn project<S: Simd, const ROWS: usize>(
        self,
        simd: S,
        x: [&[f32]; ROWS],
        columns: Range<usize>,
    ) -> [S::f32s; ROWS] {
        let Self { a, rank, .. } = self;
        let zero = simd.splat_f32s(0.0);
        let mut sums = [[zero; ROWS]; STEPS];
        // Of the last inputs, a whole register would reach past the end.
        let num_whole = (a.len() + rank).saturating_sub(columns.start + S::F32_LANES) / rank;
        let num_whole = num_whole.min(x[0].len()) / STEPS;
        let steps = x.map(|x| &x.as_chunks::<STEPS>().0[..num_whole]);
        for step_idx in 0..num_whole {
            let a = &a[step_idx * STEPS * rank + columns.start..];
            for (step, sums) in sums.iter_mut().enumerate() {
                let a = first_register::<S>(&a[step * rank..]);
                for (sum, x) in sums.iter_mut().zip(steps) {
                    *sum = simd.mul_add_e_f32s(a, simd.splat_f32s(x[step_idx][step]), *sum);
                }
            }
        }
        for input_idx in num_whole * STEPS..x[0].len() {
            let mut lanes = [0.0; LANES];
            let a = &a[input_idx * rank..][columns.clone()];
            lanes[..a.len()].copy_from_slice(a);
            let a = first_register::<S>(&lanes);
            for (sum, x) in sums[input_idx % STEPS].iter_mut().zip(x) {
                *sum = simd.mul_add_e_f32s(a, simd.splat_f32s(x[input_idx]), *sum);
            }
        }
        let mut total = [zero; ROWS];
        for sums in sums {
            for (total, sum) in total.iter_mut().zip(sums) {
                *total = simd.add_f32s(*total, sum);
            }
        }
        total
    }
}

#[inline(always)]
fn first_register<S: Simd>(values: &[f32]) -> S::f32s {
    S::as_simd_f32s(&values[..S::F32_LANES]).0[0]
}

/// Adds `narrow · b`.
#[inline(always)]
fn add_widened(output: &mut [f32], narrow: &[f32], b: &[f32]) {
    let out_size = output.len();
    let (blocks, rest) = output.as_chunks_mut::<BLOCK>();
    let first_of_rest = blocks.len() * BLOCK;
    for (block_idx, output) in blocks.iter_mut().enumerate() {
        let mut sums = [0.0; BLOCK];
        for (&value, b) in narrow.iter().zip(b.chunks_exact(out_size)) {
            add_multiple(&mut sums, value, block(b, block_idx * BLOCK));
        }
        add_multiple(output, 1.0, &sums);
    }
    let mut sums = [0.0; BLOCK];
    for (&value, b) in narrow.iter().zip(b.chunks_exact(out_size)) {
        for (sum, &b) in sums.iter_mut().zip(&b[first_of_rest..]) {
            *sum += value * b;
        }
    }
    for (output, sum) in rest.iter_mut().zip(sums) {
        *output += sum;
    }
}

/// `sums += factor * values`.
#[inline(always)]
fn add_multiple<const SIZE: usize>(sums: &mut [f32; SIZE], factor: f32, values: &[f32; SIZE]) {
    for (sum, &value) in sums.iter_mut().zip(values) {
        *sum += factor * value;
    }
}

/// The values from `first` on.
#[inline(always)]
fn block<const SIZE: usize>(values: &[f32], first: usize) -> &[f32; SIZE] {
    values[first..]
        .first_chunk()
        .expect("a block is within a row")
}
