//! Rotary embedding: wavelengths, their scaling for long contexts, and the angles of a pass.
#![expect(
    clippy::cast_possible_truncation,
    reason = "angles are f32, as they are in PyTorch, so that long positions round alike"
)]

use burn::tensor::{Device, Tensor, TensorData};
use chameleon_core::fused::RotaryHalves;

/// Scaling of the wavelengths for contexts longer than those of the first training.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// Every wavelength becomes `factor` times longer.
    Linear {
        /// How much longer.
        factor: f64,
    },
    /// Long wavelengths are stretched, short ones are not, with a ramp between (Llama 3.1).
    Llama3(Llama3Scaling),
}

/// The parameters of Llama 3.1's scaling.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Llama3Scaling {
    /// How much longer the long wavelengths become.
    pub factor: f64,
    /// Wavelengths above `original_max_seq_len / low_freq_factor` are stretched in full.
    pub low_freq_factor: f64,
    /// Wavelengths below `original_max_seq_len / high_freq_factor` stay as they are.
    pub high_freq_factor: f64,
    /// The length the model was first trained for.
    pub original_max_seq_len: usize,
}

/// One angular speed for each pair of dimensions of a head.
#[derive(Debug, Clone)]
pub(crate) struct RotaryFrequencies {
    inverse: Vec<f32>,
}

impl RotaryFrequencies {
    /// The angular speeds of a head of width `head_dim`.
    pub(crate) fn new(head_dim: usize, base: f64, scaling: RopeScaling) -> Self {
        // f32 as in PyTorch, so that long positions round to the same angles.
        let inverse = (0..head_dim)
            .step_by(2)
            .map(|dim| {
                let exponent = dim as f32 / head_dim as f32;
                let speed = 1.0 / (base as f32).powf(exponent);
                scaling.stretch(speed)
            })
            .collect();
        Self { inverse }
    }

    /// The rotation for positions `[batch or 1, seq]`, given row by row; shared by all layers of a pass. The first half
    /// of each head is rotated with the second one, as Hugging Face's weights expect.
    pub(crate) fn at(&self, positions: &[Vec<usize>], device: &Device) -> RotaryHalves {
        let seq_len = positions.first().map_or(0, Vec::len);
        let angles: Vec<f32> = positions
            .iter()
            .flatten()
            .flat_map(|&position| {
                self.inverse
                    .iter()
                    .map(move |speed| position as f32 * speed)
            })
            .collect();
        let shape = [positions.len(), 1, seq_len, self.inverse.len()];
        let table = |function: fn(f32) -> f32| {
            let values: Vec<f32> = angles.iter().map(|&angle| function(angle)).collect();
            Tensor::from_data(TensorData::new(values, shape), device)
        };
        RotaryHalves {
            cos: table(f32::cos),
            sin: table(f32::sin),
        }
    }
}

impl RopeScaling {
    /// The angular speed after stretching.
    fn stretch(self, speed: f32) -> f32 {
        match self {
            Self::None => speed,
            Self::Linear { factor } => speed / factor as f32,
            Self::Llama3(scaling) => scaling.stretch(speed),
        }
    }
}

impl Llama3Scaling {
    fn stretch(self, speed: f32) -> f32 {
        let original = self.original_max_seq_len as f64;
        let wavelength = std::f64::consts::TAU / f64::from(speed);
        if wavelength < original / self.high_freq_factor {
            return speed;
        }
        if wavelength > original / self.low_freq_factor {
            return speed / self.factor as f32;
        }
        let ramp = (original / wavelength - self.low_freq_factor)
            / (self.high_freq_factor - self.low_freq_factor);
        ((1.0 - ramp) * f64::from(speed) / self.factor + ramp * f64::from(speed)) as f32
    }
}
