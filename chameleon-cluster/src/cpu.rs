//! The nearest centroid of many points on the CPU, without a matrix of scores: products are computed in registers and
//! compared at once. Owns packing and the kernel; `assign.rs` holds the plain twin, which runs on any device.
//!
//! A tile is a few points against one panel of centroids, over all columns. A panel's scores are compared lane by
//! lane with the best so far of each point; only at the end are the lanes of a point compared with each other. The
//! result of a point depends neither on its neighbours nor on the number of threads.

#![expect(
    clippy::inline_always,
    reason = "a function that is not inlined into the dispatched one is compiled for the baseline instruction set"
)]

use pulp::{Arch, Simd, WithSimd, bytemuck};
use rayon::prelude::*;

use crate::points;

/// Vectors of centroids in a panel.
const PANEL_VECTORS: usize = 2;
/// Points in a tile on a CPU with 32 vector registers, and with 16: as many sums as fit.
const TILE_ROWS_WIDE: usize = 14;
const TILE_ROWS: usize = 6;
/// Points of one task; a multiple of both.
const TASK_ROWS: usize = 12 * 42;
/// Bytes of panels that stay in the L2 cache during a task.
const PANELS_BYTES: usize = 1 << 19;

/// Centroids laid out for the kernel.
#[derive(Debug, Clone)]
pub(crate) struct PackedCentroids {
    /// `-2c`, panel by panel: `[panels, hidden, width]`
    panels: Vec<f32>,
    /// `|c|²`, infinite where a panel has no centroid: `[panels, width]`
    square_norms: Vec<f32>,
    hidden_size: usize,
}

impl PackedCentroids {
    /// From rows `[clusters, hidden]`.
    pub(crate) fn new(rows: &[f32], hidden_size: usize) -> Self {
        let width = PANEL_VECTORS * Arch::new().dispatch(VectorLen);
        let mut square_norms = points::narrow_square_norms(rows, hidden_size);
        let num_panels = square_norms.len().div_ceil(width);
        square_norms.resize(num_panels * width, f32::INFINITY);
        let mut panels = vec![0.0; num_panels * hidden_size * width];
        panels
            .par_chunks_mut(hidden_size * width)
            .zip(rows.par_chunks(hidden_size * width))
            .for_each(|(panel, rows)| {
                for (lane, row) in rows.chunks_exact(hidden_size).enumerate() {
                    for (packed, &value) in panel.chunks_exact_mut(width).zip(row) {
                        packed[lane] = -2.0 * value;
                    }
                }
            });
        Self {
            panels,
            square_norms,
            hidden_size,
        }
    }

    /// The nearest centroid of each row of `points`, `[points, hidden]`; the lowest index of several equally near.
    pub(crate) fn nearest(&self, points: &[f32]) -> Vec<usize> {
        let arch = Arch::new();
        let mut assignments = vec![0; points.len() / self.hidden_size];
        assignments
            .par_chunks_mut(TASK_ROWS)
            .zip(points.par_chunks(TASK_ROWS * self.hidden_size))
            .for_each(|(assignments, points)| {
                arch.dispatch(Task {
                    centroids: self,
                    points,
                    assignments,
                });
            });
        assignments
    }
}

/// The number of f32 values in a SIMD vector.
struct VectorLen;

impl WithSimd for VectorLen {
    type Output = usize;

    fn with_simd<S: Simd>(self, _simd: S) -> usize {
        S::F32_LANES
    }
}

/// Some points against all centroids.
struct Task<'a> {
    centroids: &'a PackedCentroids,
    /// `[points, hidden]`
    points: &'a [f32],
    assignments: &'a mut [usize],
}

impl WithSimd for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        if S::REGISTER_COUNT >= 32 {
            self.run::<S, TILE_ROWS_WIDE>(simd);
        } else {
            self.run::<S, TILE_ROWS>(simd);
        }
    }
}

/// The best of a point so far, lane by lane.
#[derive(Clone, Copy)]
struct Best<S: Simd> {
    scores: [S::f32s; PANEL_VECTORS],
    panels: [S::u32s; PANEL_VECTORS],
}

impl Task<'_> {
    #[inline(always)]
    fn run<S: Simd, const ROWS: usize>(self, simd: S) {
        let hidden_size = self.centroids.hidden_size;
        let tiles = pack_tiles::<ROWS>(self.points, hidden_size);
        let none = Best::<S> {
            scores: [simd.splat_f32s(f32::INFINITY); PANEL_VECTORS],
            panels: [simd.splat_u32s(0); PANEL_VECTORS],
        };
        let mut best = vec![[none; ROWS]; tiles.len() / hidden_size];

        let (panels, _) = S::as_simd_f32s(&self.centroids.panels);
        let (panels, _) = panels.as_chunks::<PANEL_VECTORS>();
        let (norms, _) = S::as_simd_f32s(&self.centroids.square_norms);
        let (norms, _) = norms.as_chunks::<PANEL_VECTORS>();
        let panel_bytes = hidden_size * PANEL_VECTORS * size_of::<S::f32s>();
        let panels_at_once = (PANELS_BYTES / panel_bytes).max(1);
        let mut first_panel = 0;
        for (panels, norms) in panels
            .chunks(panels_at_once * hidden_size)
            .zip(norms.chunks(panels_at_once))
        {
            for (tile, best) in tiles.chunks_exact(hidden_size).zip(&mut best) {
                for ((panel_idx, panel), norm) in (first_panel..)
                    .zip(panels.chunks_exact(hidden_size))
                    .zip(norms)
                {
                    let products = products::<S, ROWS>(simd, tile, panel);
                    let here = simd.splat_u32s(panel_idx);
                    for (best, products) in best.iter_mut().zip(products) {
                        for vector in 0..PANEL_VECTORS {
                            let score = simd.add_f32s(products[vector], norm[vector]);
                            let nearer = simd.less_than_f32s(score, best.scores[vector]);
                            best.scores[vector] =
                                simd.select_f32s(nearer, score, best.scores[vector]);
                            best.panels[vector] =
                                simd.select_u32s(nearer, here, best.panels[vector]);
                        }
                    }
                }
            }
            first_panel += u32::try_from(norms.len()).expect("panels are far fewer");
        }
        for (assignment, best) in self.assignments.iter_mut().zip(best.as_flattened()) {
            *assignment = best.cluster_idx();
        }
    }
}

impl<S: Simd> Best<S> {
    /// The index of the lowest score, the lowest index of equal ones.
    fn cluster_idx(&self) -> usize {
        let scores: &[f32] = bytemuck::cast_slice(&self.scores);
        let panels: &[u32] = bytemuck::cast_slice(&self.panels);
        let width = scores.len();
        let candidates = scores.iter().zip(panels).enumerate();
        candidates
            .map(|(lane, (&score, &panel_idx))| (score, panel_idx as usize * width + lane))
            .min_by(|left, right| left.0.total_cmp(&right.0).then(left.1.cmp(&right.1)))
            .map_or(0, |(_, cluster_idx)| cluster_idx)
    }
}

/// Points in tiles, column by column, zeros where the last tile has no point: `[tiles, hidden, rows]`
fn pack_tiles<const ROWS: usize>(points: &[f32], hidden_size: usize) -> Vec<[f32; ROWS]> {
    let num_tiles = points.len().div_ceil(ROWS * hidden_size);
    let mut tiles = vec![[0.0; ROWS]; num_tiles * hidden_size];
    for (tile, rows) in tiles
        .chunks_exact_mut(hidden_size)
        .zip(points.chunks(ROWS * hidden_size))
    {
        for (row_idx, row) in rows.chunks_exact(hidden_size).enumerate() {
            for (column, &value) in tile.iter_mut().zip(row) {
                column[row_idx] = value;
            }
        }
    }
    tiles
}

/// `tile · panel`, which all stays in registers.
#[inline(always)]
fn products<S: Simd, const ROWS: usize>(
    simd: S,
    tile: &[[f32; ROWS]],
    panel: &[[S::f32s; PANEL_VECTORS]],
) -> [[S::f32s; PANEL_VECTORS]; ROWS] {
    let mut sums = [[simd.splat_f32s(0.0); PANEL_VECTORS]; ROWS];
    for (column, centroids) in tile.iter().zip(panel) {
        for row in 0..ROWS {
            let value = simd.splat_f32s(column[row]);
            for vector in 0..PANEL_VECTORS {
                sums[row][vector] =
                    simd.mul_add_e_f32s(value, centroids[vector], sums[row][vector]);
            }
        }
    }
    sums
}
