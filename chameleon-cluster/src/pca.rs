//! Principal components: the directions along which points differ most.

use burn::tensor::{Tensor, TensorData, assert_shape};
use linfa_linalg::eigh::{EigSort as _, Eigh as _};
use ndarray::Array2;

use crate::{error::ClusterError, points};

/// What a principal component analysis finds.
///
/// The same points give the same components, signs included: the coordinate of largest magnitude of each axis is
/// positive.
#[derive(Debug, Clone)]
pub struct PrincipalComponents {
    /// `[hidden]`, on the device of the points, without autodiff.
    pub mean: Tensor<1>,
    /// One axis for each component, of `hidden` coordinates and length one; each is at right angles to the others.
    pub axes: Vec<Vec<f64>>,
    /// The variance along each axis, the largest first.
    pub variances: Vec<f64>,
    /// The sum of the variances of all coordinates.
    pub total_variance: f64,
}

/// Finds the `num_components` directions of largest variance.
///
/// The smaller one of the two matrices of products is decomposed, `[hidden, hidden]` or `[points, points]`, so a few
/// points of many coordinates are as cheap as many points of a few. Points that span fewer directions than requested
/// get any further ones, of variance zero.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use chameleon_cluster::principal_components;
///
/// let points = Tensor::<2>::from_data([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], &Device::flex());
/// let components = principal_components(&points, 1)?;
/// assert!((components.explained() - 1.0).abs() < 1e-6);
/// assert!((components.axes[0][0] - components.axes[0][1]).abs() < 1e-6);
/// # Ok::<(), chameleon_cluster::ClusterError>(())
/// ```
///
/// # Shapes
///
/// - points: `[points, hidden]`
///
/// # Errors
///
/// When there are no points or one is not finite, or `num_components` is zero or more than the hidden size.
pub fn principal_components(
    points: &Tensor<2>,
    num_components: usize,
) -> Result<PrincipalComponents, ClusterError> {
    let [num_points, hidden_size] = points.dims();
    if num_points == 0 || hidden_size == 0 {
        return Err(ClusterError::NoPoints {
            shape: [num_points, hidden_size],
        });
    }
    if num_components == 0 || num_components > hidden_size {
        return Err(ClusterError::NumComponents {
            found: num_components,
            hidden_size,
        });
    }
    let points = points.clone().without_autodiff();
    let mean = points.clone().mean_dim(0); // [1, hidden]
    let centred = points.clone() - mean.clone();
    let transposed = centred.clone().transpose();
    let products = if num_points < hidden_size {
        centred.clone().matmul(transposed) // [points, points]
    } else {
        transposed.matmul(centred.clone()) // [hidden, hidden]
    };
    let products = products / num_points as f64;
    let size = products.dims()[0];
    let products: Vec<f64> = products.into_data().iter::<f64>().collect();
    let total_variance: f64 = products.iter().step_by(size + 1).sum();
    if !total_variance.is_finite() {
        // Either a point is not finite, or its square is not.
        points::check_finite(&points)?;
        return Err(ClusterError::VarianceOverflow);
    }
    let candidates = if total_variance > 0.0 {
        let products = Array2::from_shape_vec((size, size), products).expect("products are square");
        let (variances, vectors) = products
            .eigh()
            .expect("a square matrix has eigenvectors")
            .sort_eig_desc();
        let vectors = vectors.columns().into_iter().take(num_components);
        let candidates = variances
            .into_iter()
            .zip(vectors.map(|vector| vector.to_vec()));
        if num_points < hidden_size {
            directions_of_weights(&centred, total_variance, candidates)
        } else {
            candidates.collect()
        }
    } else {
        Vec::new()
    };
    let (variances, axes) = completed(candidates, num_components, hidden_size)
        .into_iter()
        .unzip();
    Ok(PrincipalComponents {
        mean: mean.squeeze_dim(0),
        axes,
        variances,
        total_variance,
    })
}

impl PrincipalComponents {
    /// The part of the variance that lies along the axes, 0 to 1.
    pub fn explained(&self) -> f64 {
        if self.total_variance > 0.0 {
            (self.variances.iter().sum::<f64>() / self.total_variance).clamp(0.0, 1.0)
        } else {
            0.0
        }
    }

    /// The coordinates of points along the axes.
    ///
    /// # Shapes
    ///
    /// - points: `[points, hidden]`
    /// - output: `[points, components]`
    ///
    /// # Panics
    ///
    /// When the points have another width than the analysed ones.
    pub fn project(&self, points: &Tensor<2>) -> Tensor<2> {
        let [hidden_size] = self.mean.dims();
        assert_shape!(points, [_, hidden_size]);
        let axes = self.axes.iter().flatten().copied().map(points::narrow);
        let axes = TensorData::new(axes.collect(), [self.axes.len(), hidden_size]);
        let axes = Tensor::<2>::from_data(axes, &self.mean.device()); // [components, hidden]
        let centred = points.clone().without_autodiff() - self.mean.clone().unsqueeze();
        centred.matmul(axes.transpose())
    }
}

/// Eigenvectors of the products of points weigh points; the weighted sums of points are the directions.
fn directions_of_weights(
    centred: &Tensor<2>,
    total_variance: f64,
    weights: impl Iterator<Item = (f64, Vec<f64>)>,
) -> Vec<(f64, Vec<f64>)> {
    /// Products in f32 do not resolve variances below this part of the total.
    const RESOLUTION: f64 = 1e-7;
    let [_, hidden_size] = centred.dims();
    let rows: Vec<f64> = centred.to_data().iter::<f64>().collect();
    weights
        .take_while(|(variance, _)| *variance > RESOLUTION * total_variance)
        .map(|(variance, weights)| {
            let mut sum = vec![0.0; hidden_size];
            for (row, weight) in rows.chunks_exact(hidden_size).zip(weights) {
                for (sum, value) in sum.iter_mut().zip(row) {
                    *sum += weight * value;
                }
            }
            (variance, sum)
        })
        .collect()
}

/// Exactly `num_components` axes of length one at right angles: the candidates, then any others of variance zero.
fn completed(
    candidates: Vec<(f64, Vec<f64>)>,
    num_components: usize,
    hidden_size: usize,
) -> Vec<(f64, Vec<f64>)> {
    /// A candidate of which less than this part is left has no direction of its own.
    const SMALLEST_PART: f64 = 1e-6;
    let unit_vectors = (0..hidden_size).map(|idx| {
        let mut unit = vec![0.0; hidden_size];
        unit[idx] = 1.0;
        (0.0, unit)
    });
    let mut components: Vec<(f64, Vec<f64>)> = Vec::with_capacity(num_components);
    for (variance, candidate) in candidates.into_iter().chain(unit_vectors) {
        if components.len() == num_components {
            break;
        }
        let length = norm(&candidate);
        let mut axis = candidate;
        // Twice, because the first round leaves rounding behind.
        for _ in 0..2 {
            for (_, other) in &components {
                let along: f64 = axis.iter().zip(other).map(|(l, r)| l * r).sum();
                axis.iter_mut()
                    .zip(other)
                    .for_each(|(value, other)| *value -= along * other);
            }
        }
        let left = norm(&axis);
        if left > SMALLEST_PART * length {
            let largest = axis
                .iter()
                .copied()
                .reduce(|best, value| {
                    if value.abs() > best.abs() {
                        value
                    } else {
                        best
                    }
                })
                .unwrap_or(1.0);
            let divisor = left.copysign(largest);
            axis.iter_mut().for_each(|value| *value /= divisor);
            components.push((variance, axis));
        }
    }
    components
}

fn norm(vector: &[f64]) -> f64 {
    vector.iter().map(|value| value * value).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use chameleon_core::RunSeed;
    use proptest::prelude::*;

    use super::*;

    fn tensor(rows: Vec<f32>, hidden_size: usize) -> Tensor<2> {
        points::upload(rows, hidden_size, &Device::flex())
    }

    fn random(num_points: usize, hidden_size: usize, seed: u64) -> Tensor<2> {
        let mut rng = RunSeed(seed).stream("points");
        let rows = (0..num_points * hidden_size).map(|_| rng.random_range(-1.0..1.0));
        tensor(rows.collect(), hidden_size)
    }

    fn values(tensor: Tensor<2>) -> Vec<f32> {
        tensor.into_data().iter().collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn axes_are_orthonormal_and_their_variances_are_those_of_the_projection(
            num_points in 1usize..12, hidden_size in 1usize..12, seed in any::<u64>(),
        ) {
            let points = random(num_points, hidden_size, seed);
            let found = principal_components(&points, hidden_size).unwrap();
            for (left_idx, left) in found.axes.iter().enumerate() {
                for (right_idx, right) in found.axes.iter().enumerate() {
                    let product: f64 = left.iter().zip(right).map(|(l, r)| l * r).sum();
                    let expected = f64::from(u8::from(left_idx == right_idx));
                    prop_assert!((product - expected).abs() < 1e-9);
                }
            }
            let projected = values(found.project(&points));
            for (idx, variance) in found.variances.iter().enumerate() {
                let squares = projected.iter().skip(idx).step_by(hidden_size).map(|v| v * v);
                let mean = f64::from(squares.sum::<f32>()) / num_points as f64;
                prop_assert!((mean - variance).abs() < 1e-4);
            }
            prop_assert!((found.variances.iter().sum::<f64>() - found.total_variance).abs() < 1e-4);
            prop_assert!(found.variances.is_sorted_by(|left, right| *left >= right - 1e-6));
        }

        #[test]
        fn few_points_have_the_same_components_as_many_copies_of_them(seed in any::<u64>()) {
            // Four points of six coordinates are decomposed by their products, eight by those of the coordinates.
            let points = random(4, 6, seed);
            let twice = Tensor::cat(vec![points.clone(), points.clone()], 0);
            let few = principal_components(&points, 3).unwrap();
            let many = principal_components(&twice, 3).unwrap();
            for (left, right) in few.variances.iter().zip(&many.variances) {
                prop_assert!((left - right).abs() < 1e-5);
            }
            // Close variances may mix their axes.
            let gaps = few.variances.windows(2).map(|pair| pair[0] - pair[1]);
            if gaps.fold(f64::INFINITY, f64::min) > 0.02 {
                for (left, right) in few.axes.iter().zip(&many.axes) {
                    let product: f64 = left.iter().zip(right).map(|(l, r)| l * r).sum();
                    prop_assert!(product.abs() > 0.99, "{product}");
                }
            }
        }
    }

    #[test]
    fn the_widest_directions_come_first_and_have_a_fixed_sign() {
        // Wide along (1, 1, 0), less so along the third axis, hardly across.
        let rows = (0..40)
            .flat_map(|idx| {
                let wide = (idx % 8) as f32 - 3.5;
                let middle = (idx / 8) as f32 - 2.0;
                let thin = if idx % 2 == 0 { 0.01 } else { -0.01 };
                [4.0 * wide + thin, 4.0 * wide - thin, middle]
            })
            .collect();
        let points = tensor(rows, 3);
        let found = principal_components(&points, 2).unwrap();
        assert!(found.explained() > 0.999, "{}", found.explained());
        let axes = &found.axes;
        assert!((axes[0][0] - axes[0][1]).abs() < 1e-3, "{axes:?}");
        assert!(axes[0][0] > 0.7 && axes[1][2] > 0.999, "{axes:?}");
        assert!(principal_components(&(points * -1.0), 2).unwrap().axes[0][0] > 0.7);
    }

    #[test]
    fn points_that_do_not_differ_lie_in_one_place() {
        for hidden_size in [3, 7] {
            let points = tensor(vec![2.5; 5 * hidden_size], hidden_size);
            let found = principal_components(&points, 2).unwrap();
            assert_eq!(found.variances, [0.0; 2]);
            assert!(found.explained().abs() < f64::EPSILON);
            assert!(values(found.project(&points)).iter().all(|&at| at == 0.0));
        }
    }

    #[test]
    fn impossible_requests_and_points_are_named() {
        let points = random(5, 4, 1);
        let message = |points: &Tensor<2>, num| {
            let error = principal_components(points, num).unwrap_err();
            error.to_string()
        };
        for num_components in [0, 5] {
            let message = message(&points, num_components);
            assert!(message.contains("hidden size, 4"), "{message}");
        }
        let mut rows = values(points);
        rows[9] = f32::NAN;
        assert!(message(&tensor(rows, 4), 1).contains("point 2 is not finite"));
        assert!(message(&tensor(vec![1e30, -1e30], 1), 1).contains("overflows"));
        let none = Tensor::empty([0, 4], &Device::flex());
        assert!(message(&none, 1).contains("[0, 4]"));
    }
}
