//! States of the model as short keys.

use burn::module::{Module, Param};
use burn::tensor::{Tensor, TensorData, assert_shape};
use linfa_linalg::eigh::{EigSort as _, Eigh as _};
use ndarray::Array2;

use crate::error::HypernetError;

/// Centres states, keeps their widest directions, evens these out by half and scales to length one.
///
/// A few directions of a state carry most of its variance and say little about what follows. Dividing each principal
/// direction by the root of its standard deviation (half of a whitening) did best of none, half and full on SmolLM2:
/// `docs/method.md`.
#[derive(Module, Debug)]
pub struct KeyProjection {
    /// `[hidden]`, of the training states.
    pub mean: Param<Tensor<1>>,
    /// `[hidden, key]`
    pub map: Param<Tensor<2>>,
}

/// Variance below this part of the average counts as this much, so that noise is not blown up.
const SMALLEST_VARIANCE: f64 = 1e-3;

impl KeyProjection {
    /// The projection for states like these.
    ///
    /// # Shapes
    ///
    /// - `states`: `[states, hidden]`
    ///
    /// # Errors
    ///
    /// When `key_size` is zero or more than the width of a state, or the states are all alike or not finite.
    ///
    /// # Panics
    ///
    /// When there is no state.
    pub fn fit(states: Tensor<2>, key_size: usize) -> Result<Self, HypernetError> {
        let [num_states, hidden_size] = states.dims();
        assert!(num_states > 0, "a projection for no states");
        if key_size == 0 || key_size > hidden_size {
            return Err(HypernetError::KeySize {
                found: key_size,
                hidden_size,
            });
        }
        let device = states.device();
        let mean = states.clone().mean_dim(0); // [1, hidden]
        let centred = states - mean.clone();
        let covariance = centred.clone().transpose().matmul(centred) / num_states as f64;
        let covariance: Vec<f64> = covariance.into_data().iter::<f64>().collect();
        let total: f64 = covariance.iter().step_by(hidden_size + 1).sum();
        if !(total.is_finite() && total > 0.0) {
            return Err(HypernetError::States);
        }
        let covariance = Array2::from_shape_vec((hidden_size, hidden_size), covariance)
            .expect("a covariance is square");
        let (variances, directions) = covariance
            .eigh()
            .map_err(|_| HypernetError::States)?
            .sort_eig_desc();
        let floor = SMALLEST_VARIANCE * variances.sum() / hidden_size as f64;
        let mut map = Vec::with_capacity(hidden_size * key_size);
        for row in directions.rows() {
            map.extend((0..key_size).map(|column| {
                #[expect(clippy::cast_possible_truncation, reason = "states are f32")]
                let value = (row[column]
                    / variances[column]
                        .max(floor)
                        .max(f64::MIN_POSITIVE)
                        .powf(0.25)) as f32;
                value
            }));
        }
        let map = Tensor::from_data(TensorData::new(map, [hidden_size, key_size]), &device);
        Ok(Self::stored(mean.squeeze_dim(0), map))
    }

    /// A projection that was fitted before.
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
        // The mean itself has no direction.
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

    /// States with very different spreads, mixed by a rotation-free shear.
    fn states() -> Tensor<2> {
        let spreads = Tensor::<1>::from_floats([9.0, 3.0, 1.0, 0.1], &Device::flex());
        normal([400, 4], 1) * spreads.unsqueeze() + 5.0
    }

    #[test]
    fn keys_have_length_one_and_half_of_the_spread_is_gone() {
        let projection = KeyProjection::fit(states(), 3).unwrap();
        let keys = projection.keys(states());
        let length = keys.powi_scalar(2).sum_dim(1);
        assert_close(&length, &Tensor::ones_like(&length));

        let raw = (states() - states().mean_dim(0)).matmul(projection.map.val());
        let variances = values(raw.clone().var(0));
        // Standard deviations 9, 3 and 1 become their roots: variances 9, 3 and 1.
        for (found, expected) in variances.iter().zip([9.0, 3.0, 1.0]) {
            assert!((found / expected - 1.0).abs() < 0.2, "{variances:?}");
        }
        // Principal directions do not vary together.
        let shared = raw.clone().transpose().matmul(raw) / 400.0;
        let shared = values(shared);
        assert!(shared[1].abs() < 0.02 * shared[0], "{shared:?}");
    }

    #[test]
    fn impossible_widths_and_states_are_refused() {
        for key_size in [0, 5] {
            let message = KeyProjection::fit(states(), key_size)
                .unwrap_err()
                .to_string();
            assert!(
                message.contains("between 1 and the hidden size 4"),
                "{message}"
            );
        }
        let broken = states() / 0.0;
        assert_eq!(
            KeyProjection::fit(broken, 2).unwrap_err(),
            HypernetError::States
        );
    }

    #[test]
    fn states_that_are_all_alike_have_no_directions() {
        let alike = Tensor::<2>::ones([5, 4], &Device::flex());
        let error = KeyProjection::fit(alike, 2).unwrap_err();
        assert_eq!(error, HypernetError::States);
    }
}
