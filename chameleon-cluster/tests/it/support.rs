//! Points for the tests, and what counts as equal.

use burn::tensor::{DType, Device, Tensor, TensorData};
use chameleon_core::RunSeed;
use rand::RngExt as _;
use safetensors::SafeTensors;
use serde::Deserialize;

/// Relative difference up to which two f32 inertias are the same.
const TOLERANCE: f64 = 1e-5;

pub(crate) fn assert_close(found: f64, expected: f64) {
    let difference = (found - expected).abs();
    assert!(
        difference <= TOLERANCE * expected.abs().max(1e-3),
        "found {found}, expected {expected}"
    );
}

pub(crate) fn tensor(rows: Vec<f32>, hidden_size: usize) -> Tensor<2> {
    let shape = [rows.len() / hidden_size, hidden_size];
    Tensor::from_data(TensorData::new(rows, shape), &Device::flex())
}

pub(crate) fn host(tensor: &Tensor<2>) -> Vec<f32> {
    tensor.to_data().try_into_vec().unwrap()
}

/// Uniform in the cube of side 2 around the origin.
pub(crate) fn uniform_points(num_points: usize, hidden_size: usize, seed: u64) -> Tensor<2> {
    let mut rng = RunSeed(seed).stream("points");
    let rows = (0..num_points * hidden_size).map(|_| rng.random_range(-1.0..1.0));
    tensor(rows.collect(), hidden_size)
}

/// What scikit-learn found; see `tests/fixtures/kmeans/export.py`.
#[derive(Debug, Deserialize)]
pub(crate) struct Expected {
    pub(crate) labels: Vec<usize>,
    pub(crate) assignments: Vec<usize>,
    pub(crate) inertia: f64,
    pub(crate) num_iterations: usize,
    pub(crate) silhouette: f64,
    pub(crate) purity: f64,
    pub(crate) normalized_mutual_information: f64,
    pub(crate) adjusted_rand: f64,
}

/// A case of the fixture.
pub(crate) struct Case {
    pub(crate) points: Tensor<2>,
    pub(crate) start: Tensor<2>,
    pub(crate) expected: Expected,
}

pub(crate) const CASES: [&str; 3] = ["blobs", "noise", "offset"];

impl Case {
    pub(crate) fn read(name: &str) -> Self {
        let weights =
            SafeTensors::deserialize(include_bytes!("../fixtures/kmeans/weights.safetensors"))
                .unwrap();
        let read = |part: &str| {
            let view = weights.tensor(&format!("{name}.{part}")).unwrap();
            let data =
                TensorData::from_bytes_vec(view.data().to_vec(), view.shape().to_vec(), DType::F32);
            Tensor::from_data(data, &Device::flex())
        };
        let mut cases: std::collections::HashMap<String, Expected> =
            serde_json::from_str(include_str!("../fixtures/kmeans/expected.json")).unwrap();
        Self {
            points: read("points"),
            start: read("start"),
            expected: cases.remove(name).unwrap(),
        }
    }
}
