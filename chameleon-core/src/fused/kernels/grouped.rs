//! Low-rank changes of rows, each by the factors of its own group.
//!
//! Few rows share a group's factors, so reading these from memory takes most of the time: they are read where they lie,
//! once for all rows of a task.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::vectorised;

/// Rows of one group per task: enough for them to read the factors from the cache, and few enough to keep all threads
/// busy.
const TASK_ROWS: usize = 4;

/// Columns of the output whose sums are kept in registers.
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
    fn with_simd<S: Simd>(self, _: S) {
        let GroupFactors { a, b, rank, scale } = self.factors;
        let mut narrow = vec![0.0; rank];
        for row in self.rows {
            // The usual ranks once more as constants, with which the compiler unrolls the loops.
            match rank {
                4 => project(row.x, a, 4, &mut narrow),
                8 => project(row.x, a, 8, &mut narrow),
                16 => project(row.x, a, 16, &mut narrow),
                rank => project(row.x, a, rank, &mut narrow),
            }
            for value in &mut narrow {
                *value *= scale;
            }
            add_widened(row.output, &narrow, b);
        }
    }
}

/// `x · a`, in blocks of columns.
#[inline(always)]
fn project(x: &[f32], a: &[f32], rank: usize, narrow: &mut [f32]) {
    let (blocks, rest) = narrow.as_chunks_mut();
    let mut first = 0;
    for block in blocks {
        *block = project_columns::<16, 4>(x, a, rank, first);
        first += 16;
    }
    let (blocks, rest) = rest.as_chunks_mut();
    for block in blocks {
        *block = project_columns::<8, 8>(x, a, rank, first);
        first += 8;
    }
    let (blocks, rest) = rest.as_chunks_mut();
    for block in blocks {
        *block = project_columns::<4, 8>(x, a, rank, first);
        first += 4;
    }
    let (blocks, rest) = rest.as_chunks_mut();
    for block in blocks {
        *block = project_columns::<2, 16>(x, a, rank, first);
        first += 2;
    }
    for value in rest {
        let [sum] = project_columns::<1, 32>(x, a, rank, first);
        *value = sum;
    }
}

/// Columns `first..first + WIDTH` of `x · a`: `STEPS` sums for each of them, which are added at the end.
#[inline(always)]
fn project_columns<const WIDTH: usize, const STEPS: usize>(
    x: &[f32],
    a: &[f32],
    rank: usize,
    first: usize,
) -> [f32; WIDTH] {
    let mut sums = [[0.0; WIDTH]; STEPS];
    let (steps, rest) = x.as_chunks::<STEPS>();
    let mut a_steps = a.chunks_exact(STEPS * rank);
    for (x, a) in steps.iter().zip(&mut a_steps) {
        for ((sums, &x), a) in sums.iter_mut().zip(x).zip(a.chunks_exact(rank)) {
            add_multiple(sums, x, &a[first..first + WIDTH]);
        }
    }
    let a_rest = a_steps.remainder().chunks_exact(rank);
    for ((sums, &x), a) in sums.iter_mut().zip(rest).zip(a_rest) {
        add_multiple(sums, x, &a[first..first + WIDTH]);
    }
    let mut total = [0.0; WIDTH];
    for sums in &sums {
        add_multiple(&mut total, 1.0, sums);
    }
    total
}

/// Adds `narrow · b`.
#[inline(always)]
fn add_widened(output: &mut [f32], narrow: &[f32], b: &[f32]) {
    let out_size = output.len();
    let (blocks, rest) = output.as_chunks_mut::<BLOCK>();
    let mut first = 0;
    for block in blocks {
        let mut sums = [0.0; BLOCK];
        for (&value, b) in narrow.iter().zip(b.chunks_exact(out_size)) {
            add_multiple(&mut sums, value, &b[first..first + BLOCK]);
        }
        add_multiple(block, 1.0, &sums);
        first += BLOCK;
    }
    let mut sums = [0.0; BLOCK];
    for (&value, b) in narrow.iter().zip(b.chunks_exact(out_size)) {
        add_multiple(&mut sums, value, &b[first..]);
    }
    add_multiple(rest, 1.0, &sums);
}

/// `sums += factor * values`, as far as both reach.
#[inline(always)]
fn add_multiple(sums: &mut [f32], factor: f32, values: &[f32]) {
    for (sum, &value) in sums.iter_mut().zip(values) {
        *sum += factor * value;
    }
}
