//! Many dimensions on paper: the two directions in which points differ most.

use burn::tensor::{Tensor, TensorData};
use chameleon_core::RunSeed;
use rand::RngExt as _;

/// The plane through the mean of some points along their first two principal components.
#[derive(Debug, Clone)]
pub(crate) struct Plane {
    /// `[1, hidden]`
    mean: Tensor<2>,
    /// `[hidden, 2]`, of length one and at right angles.
    axes: Tensor<2>,
    /// The part of the variance that the plane shows, 0 to 1.
    pub(crate) share: f64,
}

/// Rounds of power iteration. Two close components may stay mixed, which turns the picture and changes nothing else.
const NUM_ROUNDS: usize = 60;

impl Plane {
    /// Principal components by power iteration, the second at right angles to the first.
    ///
    /// # Shapes
    ///
    /// - `points`: `[points, hidden]`, at least one point
    pub(crate) fn fit(points: &Tensor<2>, seed: RunSeed) -> Self {
        let [_, hidden_size] = points.dims();
        let mean = points.clone().mean_dim(0);
        let centered = points.clone() - mean.clone();
        let mut axes: Vec<Tensor<2>> = Vec::new();
        for name in ["first", "second"] {
            let mut rng = seed.stream(&format!("projection-{name}"));
            let start: Vec<f32> = (0..hidden_size)
                .map(|_| rng.random_range(-1.0..1.0))
                .collect();
            let start = TensorData::new(start, [hidden_size, 1]);
            let mut axis = unit(Tensor::from_data(start, &points.device()));
            for _ in 0..NUM_ROUNDS {
                let turned = centered
                    .clone()
                    .transpose()
                    .matmul(centered.clone().matmul(axis.clone())); // [hidden, 1]
                axis = unit(axes.iter().fold(turned, |axis, other| {
                    let along = (axis.clone() * other.clone()).sum_dim(0);
                    axis - other.clone() * along
                }));
            }
            axes.push(axis);
        }
        let axes = Tensor::cat(axes, 1); // [hidden, 2]
        let total: f32 = centered.clone().powi_scalar(2).sum().into_scalar();
        let shown: f32 = centered
            .matmul(axes.clone())
            .powi_scalar(2)
            .sum()
            .into_scalar();
        Self {
            mean,
            axes,
            share: f64::from(shown / total.max(f32::MIN_POSITIVE)).clamp(0.0, 1.0),
        }
    }

    /// Where points lie in the plane.
    ///
    /// # Shapes
    ///
    /// - `points`: `[points, hidden]`
    pub(crate) fn project(&self, points: &Tensor<2>) -> Vec<[f64; 2]> {
        let flat = (points.clone() - self.mean.clone())
            .matmul(self.axes.clone())
            .into_data();
        let values: Vec<f64> = flat.iter::<f32>().map(f64::from).collect();
        values.chunks_exact(2).map(|at| [at[0], at[1]]).collect()
    }
}

/// A direction; one that is nothing stays nothing.
fn unit(axis: Tensor<2>) -> Tensor<2> {
    let length = axis.clone().powi_scalar(2).sum_dim(0).sqrt();
    axis / length.clamp_min(1e-20)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn points(rows: Vec<[f32; 3]>) -> Tensor<2> {
        let num_points = rows.len();
        let values: Vec<f32> = rows.into_iter().flatten().collect();
        Tensor::from_data(TensorData::new(values, [num_points, 3]), &Device::flex())
    }

    #[test]
    fn the_plane_holds_the_two_widest_directions() {
        // Wide along (1, 1, 0), less so along the third axis, hardly across.
        let rows = (0..40)
            .map(|idx| {
                let wide = (idx % 8) as f32 - 3.5;
                let middle = (idx / 8) as f32 - 2.0;
                let thin = if idx % 2 == 0 { 0.01 } else { -0.01 };
                [4.0 * wide + thin, 4.0 * wide - thin, middle]
            })
            .collect();
        let points = points(rows);
        let plane = Plane::fit(&points, RunSeed(1));
        assert!(plane.share > 0.999, "{}", plane.share);
        let axes: Vec<f32> = plane.axes.to_data().iter::<f32>().collect();
        assert!((axes[0] - axes[2]).abs() < 1e-3, "{axes:?}");
        assert!(
            axes[4].abs() < 1e-3 && (axes[5].abs() - 1.0).abs() < 1e-3,
            "{axes:?}"
        );
        assert_eq!(plane.project(&points).len(), 40);
    }

    #[test]
    fn points_that_do_not_differ_lie_in_one_place() {
        let points = points(vec![[1.0, 2.0, 3.0]; 4]);
        let plane = Plane::fit(&points, RunSeed(1));
        for at in plane.project(&points) {
            assert!(at.iter().all(|value| value.abs() < 1e-6), "{at:?}");
        }
    }
}
