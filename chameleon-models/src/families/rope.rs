//! Rotary embedding: wavelengths, their scaling for long contexts, and the angles of a pass.
#![expect(
    clippy::cast_possible_truncation,
    reason = "angles are f32, as they are in PyTorch, so that long positions round alike"
)]

use std::f64::consts::TAU;

use burn::tensor::{Device, Tensor, TensorData};
use chameleon_core::fused::RotaryHalves;

/// A rotary embedding that some or all layers of a model share.
#[derive(Debug, Clone, PartialEq)]
pub struct RotaryConfig {
    /// Values of a head that rotate, the first ones; a multiple of two.
    pub rotary_dim: usize,
    /// Base of the wavelengths.
    pub base: f64,
    /// Scaling of the wavelengths.
    pub scaling: RopeScaling,
}

/// Scaling of the wavelengths for contexts longer than those of the first training.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// Every wavelength becomes `factor` times longer.
    Linear {
        /// How much longer.
        factor: f64,
    },
    /// The base grows with sequences that are longer than the first training's.
    Dynamic {
        /// How much longer sequences may become.
        factor: f64,
        /// The length the model was first trained for.
        original_max_seq_len: usize,
    },
    /// Long wavelengths are stretched, short ones are not, with a ramp between (`YaRN`).
    Yarn(YarnScaling),
    /// Long wavelengths are stretched, short ones are not, with a ramp between (Llama 3.1).
    Llama3(Llama3Scaling),
    /// A divisor for each wavelength, of which there are two sets (Phi-3).
    LongRope(LongRopeScaling),
}

/// The parameters of `YaRN`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct YarnScaling {
    /// How much longer the long wavelengths become.
    pub factor: f64,
    /// Wavelengths that turn more often than this within the original length stay as they are.
    pub beta_fast: f64,
    /// Wavelengths that turn less often than this within the original length are stretched in full.
    pub beta_slow: f64,
    /// The length the model was first trained for.
    pub original_max_seq_len: usize,
    /// The factor of cosines and sines.
    pub attention_factor: f64,
    /// Whether the ends of the ramp are whole dimensions.
    pub truncate: bool,
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

/// The parameters of Phi-3's scaling.
#[derive(Debug, Clone, PartialEq)]
pub struct LongRopeScaling {
    /// Divisors for sequences up to the original length.
    pub short_factor: Vec<f64>,
    /// Divisors for longer sequences.
    pub long_factor: Vec<f64>,
    /// The length the model was first trained for.
    pub original_max_seq_len: usize,
    /// The factor of cosines and sines.
    pub attention_factor: f64,
}

impl RopeScaling {
    /// The length above which all angles of a sequence change. The keys of a cache keep the angles with which they were
    /// stored, so sequences may not grow past it.
    pub(crate) fn longest_stable(&self) -> Option<usize> {
        match self {
            Self::Dynamic {
                original_max_seq_len,
                ..
            }
            | Self::LongRope(LongRopeScaling {
                original_max_seq_len,
                ..
            }) => Some(*original_max_seq_len),
            _ => None,
        }
    }

    /// The factor of cosines and sines.
    fn attention_factor(&self) -> f64 {
        match self {
            Self::Yarn(yarn) => yarn.attention_factor,
            Self::LongRope(long) => long.attention_factor,
            _ => 1.0,
        }
    }
}

impl RotaryConfig {
    /// One angular speed for each pair, for a sequence of some length.
    fn speeds(&self, seq_len: usize) -> Vec<f32> {
        let dim = self.rotary_dim;
        let base = match self.scaling {
            RopeScaling::Dynamic {
                factor,
                original_max_seq_len,
            } if seq_len > original_max_seq_len => {
                let growth = factor * seq_len as f64 / original_max_seq_len as f64 - (factor - 1.0);
                self.base * growth.powf(dim as f64 / (dim as f64 - 2.0))
            }
            _ => self.base,
        };
        // f32 as in PyTorch, so that long positions round to the same angles.
        let plain = (0..dim)
            .step_by(2)
            .map(|pair| 1.0 / (base as f32).powf(pair as f32 / dim as f32));
        match &self.scaling {
            RopeScaling::None | RopeScaling::Dynamic { .. } => plain.collect(),
            RopeScaling::Linear { factor } => plain.map(|speed| speed / *factor as f32).collect(),
            RopeScaling::Llama3(scaling) => plain.map(|speed| scaling.stretch(speed)).collect(),
            RopeScaling::Yarn(scaling) => {
                let ramp = scaling.ramp(dim, self.base);
                plain
                    .enumerate()
                    .map(|(idx, speed)| {
                        let kept = 1.0 - ramp(idx) as f32;
                        speed / scaling.factor as f32 * (1.0 - kept) + speed * kept
                    })
                    .collect()
            }
            RopeScaling::LongRope(scaling) => {
                let factors = if seq_len > scaling.original_max_seq_len {
                    &scaling.long_factor
                } else {
                    &scaling.short_factor
                };
                plain
                    .zip(factors)
                    .map(|(speed, &factor)| speed / factor as f32)
                    .collect()
            }
        }
    }

    /// The rotation for positions `[batch or 1, seq]`, given row by row; shared by the layers of a pass. The first half
    /// of what rotates is rotated with the second one, as Hugging Face's weights expect.
    pub(crate) fn at(&self, positions: &[Vec<usize>], device: &Device) -> RotaryHalves {
        let seq_len = positions.first().map_or(0, Vec::len);
        let last = positions.iter().flatten().max().copied().unwrap_or(0);
        let speeds = self.speeds(last + 1);
        let factor = self.scaling.attention_factor() as f32;
        let angles: Vec<f32> = positions
            .iter()
            .flatten()
            .flat_map(|&position| speeds.iter().map(move |speed| position as f32 * speed))
            .collect();
        let shape = [positions.len(), 1, seq_len, speeds.len()];
        let table = |function: fn(f32) -> f32| {
            let values: Vec<f32> = angles
                .iter()
                .map(|&angle| function(angle) * factor)
                .collect();
            Tensor::from_data(TensorData::new(values, shape), device)
        };
        RotaryHalves {
            cos: table(f32::cos),
            sin: table(f32::sin),
        }
    }
}

impl YarnScaling {
    /// How far each pair is stretched, from 0 for not at all to 1 for in full.
    fn ramp(&self, dim: usize, base: f64) -> impl Fn(usize) -> f64 {
        let dim = dim as f64;
        // A base of one would make all wavelengths the same, and the ramp undefined.
        let log_base = base.ln().max(f64::EPSILON);
        let dim_of = |num_turns: f64| {
            dim * (self.original_max_seq_len as f64 / (num_turns * TAU)).ln() / (2.0 * log_base)
        };
        let (mut low, mut high) = (dim_of(self.beta_fast), dim_of(self.beta_slow));
        if self.truncate {
            (low, high) = (low.floor(), high.ceil());
        }
        let (low, mut high) = (low.max(0.0), high.min(dim - 1.0));
        if (high - low).abs() < f64::EPSILON {
            // The ramp may not be vertical.
            high += 0.001;
        }
        move |idx| ((idx as f64 - low) / (high - low)).clamp(0.0, 1.0)
    }
}

impl Llama3Scaling {
    fn stretch(self, speed: f32) -> f32 {
        let original = self.original_max_seq_len as f64;
        let wavelength = TAU / f64::from(speed);
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
