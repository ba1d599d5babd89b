//! Points as k-means works on them: checked, moved to a frame in which f32 products are accurate,
//! and held on the host (means, exact distances) and, where the device is not the CPU, on the
//! device (products).
//!
//! `|x|² - 2x·c + |c|²` cancels badly when all points share a large offset, and prompt embeddings
//! do. Distances do not change when everything is moved by the same vector, so points are moved to
//! their mean; and a power of two, which is exact, brings the largest coordinate near one, so that
//! no square overflows or vanishes.

use std::sync::OnceLock;

use burn::tensor::{DType, Device, Tensor, TensorData};
use rayon::prelude::*;

use crate::error::ClusterError;

/// Rows summed by one task. Fixed, so that sums do not depend on the number of threads.
const ROWS_PER_TASK: usize = 256;

/// The shift and scale between a caller's coordinates and ours.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    /// `[hidden]`
    shift: Vec<f64>,
    scale: f64,
}

impl Frame {
    /// The frame in which `rows` have mean zero and no coordinate above one.
    pub(crate) fn around(rows: &[f32], hidden_size: usize) -> Self {
        let num_rows = rows.len() / hidden_size;
        let partial_sums: Vec<Vec<f64>> = rows
            .par_chunks(ROWS_PER_TASK * hidden_size)
            .map(|task| {
                let mut sum = vec![0.0; hidden_size];
                task.chunks_exact(hidden_size)
                    .for_each(|row| add_row(&mut sum, row));
                sum
            })
            .collect();
        let mut shift = vec![0.0; hidden_size];
        for partial in partial_sums {
            shift
                .iter_mut()
                .zip(partial)
                .for_each(|(to, from)| *to += from);
        }
        for value in &mut shift {
            *value /= num_rows as f64;
        }

        let largest = rows
            .par_chunks(hidden_size)
            .map(|row| {
                row.iter()
                    .zip(&shift)
                    .map(|(&value, &mean)| (f64::from(value) - mean).abs())
                    .fold(0.0, f64::max)
            })
            .reduce(|| 0.0, f64::max);
        let scale = if largest > 0.0 {
            largest.log2().ceil().exp2()
        } else {
            1.0
        };
        Self { shift, scale }
    }

    /// Caller's coordinates to ours.
    pub(crate) fn enter(&self, mut rows: Vec<f32>) -> Vec<f32> {
        let shrink = self.scale.recip();
        rows.par_chunks_mut(self.shift.len()).for_each(|row| {
            for (value, mean) in row.iter_mut().zip(&self.shift) {
                *value = narrow((f64::from(*value) - mean) * shrink);
            }
        });
        rows
    }

    /// Our coordinates to the caller's.
    pub(crate) fn leave(&self, rows: &[f32]) -> Vec<f32> {
        rows.chunks_exact(self.shift.len())
            .flat_map(|row| row.iter().zip(&self.shift))
            .map(|(&value, mean)| narrow(f64::from(value).mul_add(self.scale, *mean)))
            .collect()
    }

    /// A squared distance in our coordinates to the caller's.
    pub(crate) fn square_distance(&self, ours: f64) -> f64 {
        ours * self.scale * self.scale
    }

    pub(crate) fn hidden_size(&self) -> usize {
        self.shift.len()
    }
}

/// Finite points, centred, on host and device.
#[derive(Debug)]
pub(crate) struct PointSet {
    /// `[points, hidden]`, row after row.
    rows: Vec<f32>,
    /// `[points, hidden]`, the same values on the device, once they are needed.
    tensor: OnceLock<Tensor<2>>,
    device: Device,
    frame: Frame,
}

impl PointSet {
    /// Points in the frame around themselves.
    pub(crate) fn new(points: &Tensor<2>) -> Result<Self, ClusterError> {
        let rows = read_points(points)?;
        let frame = Frame::around(&rows, points.dims()[1]);
        Ok(Self::in_frame(rows, frame, &points.device()))
    }

    /// Points in the frame of centroids found earlier.
    pub(crate) fn entering(points: &Tensor<2>, frame: &Frame) -> Result<Self, ClusterError> {
        let rows = read_points(points)?;
        let found = points.dims()[1];
        let expected = frame.hidden_size();
        if found != expected {
            return Err(ClusterError::HiddenSizeMismatch { found, expected });
        }
        Ok(Self::in_frame(rows, frame.clone(), &points.device()))
    }

    fn in_frame(rows: Vec<f32>, frame: Frame, device: &Device) -> Self {
        Self {
            rows: frame.enter(rows),
            tensor: OnceLock::new(),
            device: device.clone().inner(),
            frame,
        }
    }

    pub(crate) fn num_points(&self) -> usize {
        self.rows.len() / self.hidden_size()
    }

    pub(crate) fn hidden_size(&self) -> usize {
        self.frame.hidden_size()
    }

    pub(crate) fn frame(&self) -> &Frame {
        &self.frame
    }

    /// Where the points came from, without autodiff.
    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    /// `[points, hidden]`
    pub(crate) fn tensor(&self) -> &Tensor<2> {
        self.tensor
            .get_or_init(|| upload(self.rows.clone(), self.hidden_size(), &self.device))
    }

    /// `[points, hidden]`, row after row.
    pub(crate) fn rows(&self) -> &[f32] {
        &self.rows
    }

    pub(crate) fn row(&self, row_idx: usize) -> &[f32] {
        let hidden_size = self.hidden_size();
        &self.rows[row_idx * hidden_size..][..hidden_size]
    }

    /// `[selected, hidden]`, row after row.
    pub(crate) fn gather(&self, row_indices: &[usize]) -> Vec<f32> {
        row_indices
            .iter()
            .flat_map(|&row_idx| self.row(row_idx))
            .copied()
            .collect()
    }

    /// `|x|²` of every point.
    pub(crate) fn square_norms(&self) -> Vec<f64> {
        self.rows
            .par_chunks(self.hidden_size())
            .map(square_norm)
            .collect()
    }

    /// Exact squared distance of every point to its own centroid, in our coordinates.
    pub(crate) fn square_distances(&self, centroids: &[f32], assignments: &[usize]) -> Vec<f64> {
        let hidden_size = self.hidden_size();
        self.rows
            .par_chunks(hidden_size)
            .zip(assignments)
            .map(|(row, &cluster_idx)| {
                square_distance(row, &centroids[cluster_idx * hidden_size..][..hidden_size])
            })
            .collect()
    }
}

/// Rows on a device, as f32 whatever the device's default is.
pub(crate) fn upload(rows: Vec<f32>, hidden_size: usize, device: &Device) -> Tensor<2> {
    let shape = [rows.len() / hidden_size, hidden_size];
    let device = device.clone().inner();
    Tensor::from_data(TensorData::new(rows, shape), (&device, DType::F32))
}

/// Finite rows of a tensor of centroids.
pub(crate) fn read_centroids(centroids: &Tensor<2>) -> Result<Vec<f32>, ClusterError> {
    let shape = centroids.dims();
    if shape.contains(&0) {
        return Err(ClusterError::NoCentroids { shape });
    }
    let rows = read(centroids);
    match first_non_finite(&rows) {
        None => Ok(rows),
        Some(flat_idx) => Err(ClusterError::NonFiniteCentroid {
            cluster_idx: flat_idx / shape[1],
            column_idx: flat_idx % shape[1],
            value: rows[flat_idx],
        }),
    }
}

/// Names the first point that is not finite.
pub(crate) fn check_finite(points: &Tensor<2>) -> Result<(), ClusterError> {
    read_points(points).map(drop)
}

fn read_points(points: &Tensor<2>) -> Result<Vec<f32>, ClusterError> {
    let shape = points.dims();
    if shape.contains(&0) {
        return Err(ClusterError::NoPoints { shape });
    }
    let rows = read(points);
    match first_non_finite(&rows) {
        None => Ok(rows),
        Some(flat_idx) => Err(ClusterError::NonFinitePoint {
            row_idx: flat_idx / shape[1],
            column_idx: flat_idx % shape[1],
            value: rows[flat_idx],
        }),
    }
}

fn read(tensor: &Tensor<2>) -> Vec<f32> {
    let data = tensor.to_data().convert_dtype(DType::F32);
    data.try_into_vec().expect("data was just converted to f32")
}

fn first_non_finite(rows: &[f32]) -> Option<usize> {
    rows.par_iter().position_first(|value| !value.is_finite())
}

/// `sum += row`
pub(crate) fn add_row(sum: &mut [f64], row: &[f32]) {
    sum.iter_mut()
        .zip(row)
        .for_each(|(total, &value)| *total += f64::from(value));
}

/// `|row|²`
pub(crate) fn square_norm(row: &[f32]) -> f64 {
    row.iter().map(|&value| f64::from(value).powi(2)).sum()
}

/// `|row|²` of every row, in f32.
pub(crate) fn narrow_square_norms(rows: &[f32], hidden_size: usize) -> Vec<f32> {
    rows.chunks_exact(hidden_size)
        .map(|row| narrow(square_norm(row)))
        .collect()
}

/// `|left - right|²` without cancellation.
pub(crate) fn square_distance(left: &[f32], right: &[f32]) -> f64 {
    left.iter()
        .zip(right)
        .map(|(&left, &right)| (f64::from(left) - f64::from(right)).powi(2))
        .sum()
}

/// The nearest f32; every caller's value fits.
#[expect(
    clippy::cast_possible_truncation,
    reason = "rounding to f32 is the purpose"
)]
pub(crate) fn narrow(value: f64) -> f32 {
    value as f32
}
