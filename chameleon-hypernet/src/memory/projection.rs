//! Projection of the model's states to short keys.

use burn::module::{Module, Param};
use burn::tensor::{Tensor, TensorData, assert_shape};

use crate::error::HypernetError;

/// Centres states, projects them onto their principal directions, half-whitens these and scales to length one.
///
/// A few directions of a state carry most of its variance and predict little of what follows. Dividing each principal
/// direction by the root of its standard deviation (half of a whitening) was better than no whitening and than full
/// whitening on SmolLM2: `docs/concepts/method.md`.
#[derive(Module, Debug)]
pub struct KeyProjection {
    /// `[hidden]`, of the training states.
    pub mean: Param<Tensor<1>>,
    /// `[hidden, key]`
    pub map: Param<Tensor<2>>,
}

/// Lower bound of a variance, as a fraction of the average, so that noise is not amplified.
const SMALLEST_VARIANCE: f64 = 1e-3;

/// The principal components of states.
#[derive(Debug, Clone)]
pub struct StateDirections<'a> {
    /// `[hidden]`
    pub mean: Tensor<1>,
    /// One axis for each coordinate of a key, `hidden` values of length one, the one of the largest variance first.
    pub axes: &'a [Vec<f64>],
    /// The variance along each axis.
    pub variances: &'a [f64],
    /// The sum of the variances of all coordinates of a state.
    pub total_variance: f64,
}

impl KeyProjection {
    /// The projection onto these directions. Keys have as many coordinates as there are axes.
    ///
    /// # Errors
    ///
    /// When the states do not differ.
    ///
    /// # Panics
    ///
    /// When there is no axis, or the sizes disagree.
    pub fn along(directions: &StateDirections<'_>) -> Result<Self, HypernetError> {
        let StateDirections {
            mean,
            axes,
            variances,
            total_variance,
        } = directions;
        let [hidden_size] = mean.dims();
        assert!(!axes.is_empty(), "keys need at least one coordinate");
        assert_eq!(axes.len(), variances.len(), "one variance for each axis");
        assert!(axes.iter().all(|axis| axis.len() == hidden_size));
        if !(total_variance.is_finite() && *total_variance > 0.0) {
            return Err(HypernetError::EqualStates);
        }
        let floor = SMALLEST_VARIANCE * total_variance / hidden_size as f64;
        let roots: Vec<f64> = variances
            .iter()
            .map(|variance| variance.max(floor).max(f64::MIN_POSITIVE).powf(0.25))
            .collect();
        let map = (0..hidden_size).flat_map(|row| {
            axes.iter().zip(&roots).map(move |(axis, root)| {
                #[expect(clippy::cast_possible_truncation, reason = "states are f32")]
                let value = (axis[row] / root) as f32;
                value
            })
        });
        let map = TensorData::new(map.collect::<Vec<f32>>(), [hidden_size, axes.len()]);
        let map = Tensor::from_data(map, &mean.device());
        Ok(Self::stored(mean.clone(), map))
    }

    /// A stored projection.
    ///
    /// # Shapes
    ///
    /// - `mean`: `[hidden]`
    /// - `map`: `[hidden, key]`
    ///
    /// # Panics
    ///
    /// When the widths differ.
    pub fn stored(mean: Tensor<1>, map: Tensor<2>) -> Self {
        let [hidden_size, _] = map.dims();
        assert_shape!(mean, [hidden_size]);
        Self {
            mean: Param::from_tensor(mean).set_require_grad(false),
            map: Param::from_tensor(map).set_require_grad(false),
        }
    }

    /// The keys of states.
    ///
    /// # Shapes
    ///
    /// - `states`: `[rows, hidden]`
    /// - output: `[rows, key]`, of length one
    ///
    /// # Panics
    ///
    /// When the states have another width than the fitted ones.
    pub fn keys(&self, states: Tensor<2>) -> Tensor<2> {
        let (mean, map) = (self.mean.val(), self.map.val());
        let [hidden_size, _] = map.dims();
        assert_shape!(states, [_, hidden_size]);
        let keys = (states - mean.unsqueeze()).matmul(map);
        let length = keys.clone().powi_scalar(2).sum_dim(1).sqrt();
        // The mean itself projects to zero.
        keys / length.clamp_min(1e-12)
    }

    /// Width of a key.
    pub fn key_size(&self) -> usize {
        self.map.dims()[1]
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::testing::{assert_close, normal, values};

    /// Independent coordinates of very different variance.
    fn states() -> Tensor<2> {
        let spreads = Tensor::<1>::from_floats([9.0, 3.0, 1.0, 0.1], &Device::flex());
        normal([400, 4], 1) * spreads.unsqueeze() + 5.0
    }

    fn projection(total_variance: f64) -> Result<KeyProjection, HypernetError> {
        let axes: Vec<Vec<f64>> = (0..3)
            .map(|axis| (0..4).map(|row| f64::from(u8::from(row == axis))).collect())
            .collect();
        KeyProjection::along(&StateDirections {
            mean: states().mean_dim(0).squeeze_dim(0),
            axes: &axes,
            variances: &[81.0, 9.0, 1.0],
            total_variance,
        })
    }

    #[test]
    fn keys_have_length_one_and_half_of_the_spread_is_gone() {
        let projection = projection(91.01).unwrap();
        let keys = projection.keys(states());
        let length = keys.powi_scalar(2).sum_dim(1);
        assert_close(&length, &Tensor::ones_like(&length));

        let raw = (states() - states().mean_dim(0)).matmul(projection.map.val());
        let variances = values(raw.var(0));
        // Standard deviations 9, 3 and 1 become their roots: variances 9, 3 and 1.
        for (found, expected) in variances.iter().zip([9.0, 3.0, 1.0]) {
            assert!((found / expected - 1.0).abs() < 0.2, "{variances:?}");
        }
    }

    #[test]
    fn states_that_are_all_equal_have_no_directions() {
        for total_variance in [0.0, f64::NAN, f64::INFINITY] {
            assert_eq!(
                projection(total_variance).unwrap_err(),
                HypernetError::EqualStates
            );
        }
    }
}
