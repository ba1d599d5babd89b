//! Which linear modules inside the layers are adapted, and how: by name, range and rank, before any tensor exists.

use std::fmt;
use std::str::FromStr;

use chameleon_hypernet::{AdaptedLayersConfig, LayerCores, LayerModule};
use serde::{Deserialize, Serialize};

use crate::families::causal_lm::{CausalLm, LinearModule};

/// Adapted modules inside the layers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerAdaptation {
    /// Names of linear modules, such as `q_proj`, or with their parent, such as `attn.c_proj`.
    pub targets: Vec<String>,
    /// Which layers.
    #[serde(default)]
    pub layers: LayerRange,
    /// What is trained in a module.
    #[serde(default)]
    pub kind: LayerKind,
    /// LoRA rank.
    pub rank: usize,
    /// The multiplier of the factors.
    pub scale: f64,
}

/// What is trained in an adapted module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum LayerKind {
    /// Plain LoRA, the same for every group.
    #[default]
    Lora,
    /// LoRA with a core between its factors, which the head's hypernetwork generates for each group.
    Core,
}

/// Some of the layers, written `all` or `20..30`: from the first one on, up to but not including the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum LayerRange {
    /// Every layer.
    #[default]
    All,
    /// Consecutive layers.
    Between {
        /// The lowest one.
        first: usize,
        /// The one after the highest.
        end: usize,
    },
}

/// A string that is not a valid [`LayerRange`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{found}` is not a layer range, expected `all` or two numbers such as `20..30`")]
pub struct NotALayerRange {
    /// The text.
    pub found: String,
}

/// A target that is not the name of a linear module.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the model has no module `{name}`; its linear modules are: {known}")]
pub struct UnknownTarget {
    /// The name that was given.
    pub name: String,
    /// The names that exist, comma-separated.
    pub known: String,
}

impl LayerAdaptation {
    /// The modules of `model` that are adapted, by layer.
    ///
    /// # Errors
    ///
    /// Names the first target that is not the name of a linear module of the layers.
    pub fn modules(&self, model: &impl CausalLm) -> Result<Vec<LayerModule>, UnknownTarget> {
        check_targets(model, &self.targets)?;
        let num_layers = model.sizes().num_layers;
        let (first, end) = match self.layers {
            LayerRange::All => (0, num_layers),
            LayerRange::Between { first, end } => (first, end.min(num_layers)),
        };
        let modules = model.linear_modules();
        Ok((first..end)
            .flat_map(|layer_idx| {
                modules
                    .iter()
                    .filter(|module| self.targets.iter().any(|target| module.is_named(target)))
                    .map(move |module| LayerModule {
                        layer_idx,
                        path: module.path.to_owned(),
                        in_size: module.in_size,
                        out_size: module.out_size,
                    })
            })
            .collect())
    }

    /// The configuration of the adapted modules of `model`; `num_features` is that of the head's hypernetwork.
    ///
    /// # Errors
    ///
    /// As [`modules`](Self::modules).
    ///
    /// # Panics
    ///
    /// When cores are generated and there is no hypernetwork.
    pub fn config(
        &self,
        model: &impl CausalLm,
        num_features: Option<usize>,
    ) -> Result<AdaptedLayersConfig, UnknownTarget> {
        let cores = match self.kind {
            LayerKind::Lora => LayerCores::None,
            LayerKind::Core => LayerCores::Generated {
                num_features: num_features.expect("a hypernetwork writes the cores"),
            },
        };
        Ok(AdaptedLayersConfig {
            modules: self.modules(model)?,
            rank: self.rank,
            scale: self.scale,
            cores,
        })
    }

    /// The lowest layer that is adapted.
    pub fn first_layer(&self) -> usize {
        match self.layers {
            LayerRange::All => 0,
            LayerRange::Between { first, .. } => first,
        }
    }
}

/// Rejects targets that are not linear modules of the transformer layers.
///
/// # Errors
///
/// Names the first one.
pub(crate) fn check_targets(
    model: &impl CausalLm,
    targets: &[String],
) -> Result<(), UnknownTarget> {
    let modules = model.linear_modules();
    let is_known = |target: &String| modules.iter().any(|module| module.is_named(target));
    match targets.iter().find(|target| !is_known(target)) {
        None => Ok(()),
        Some(target) => {
            let mut known: Vec<&str> = modules.iter().map(LinearModule::name).collect();
            known.dedup();
            Err(UnknownTarget {
                name: target.clone(),
                known: known.join(", "),
            })
        }
    }
}

impl fmt::Display for LayerRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Between { first, end } => write!(f, "{first}..{end}"),
        }
    }
}

impl FromStr for LayerRange {
    type Err = NotALayerRange;

    fn from_str(text: &str) -> Result<Self, NotALayerRange> {
        if text == "all" {
            return Ok(Self::All);
        }
        let parsed = text.split_once("..").and_then(|(first, end)| {
            let (first, end) = (first.parse().ok()?, end.parse().ok()?);
            (first < end).then_some(Self::Between { first, end })
        });
        parsed.ok_or_else(|| NotALayerRange {
            found: text.to_owned(),
        })
    }
}

impl TryFrom<String> for LayerRange {
    type Error = NotALayerRange;

    fn try_from(text: String) -> Result<Self, NotALayerRange> {
        text.parse()
    }
}

impl From<LayerRange> for String {
    fn from(range: LayerRange) -> Self {
        range.to_string()
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::families::DecoderConfig;

    #[test]
    fn ranges_survive_the_round_trip_and_others_are_refused() {
        for text in ["all", "0..1", "20..30"] {
            let range: LayerRange = text.parse().unwrap();
            assert_eq!(range.to_string(), text);
            let json = serde_json::to_string(&range).unwrap();
            assert_eq!(serde_json::from_str::<LayerRange>(&json).unwrap(), range);
        }
        for text in ["", "5", "5..5", "6..5", "-1..2", "a..b", "1..2..3", ".."] {
            let error = text.parse::<LayerRange>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{text}`")), "{error}");
        }
    }

    #[test]
    fn a_target_may_say_what_it_is_part_of() {
        let model = DecoderConfig::tiny_gpt2().init(&Device::flex()).unwrap();
        let paths = |target: &str| -> Vec<String> {
            let layers = LayerAdaptation {
                targets: vec![target.to_owned()],
                layers: LayerRange::Between { first: 1, end: 2 },
                kind: LayerKind::Lora,
                rank: 1,
                scale: 1.0,
            };
            let modules = layers.modules(&model).unwrap();
            assert!(modules.iter().all(|module| module.layer_idx == 1));
            modules.into_iter().map(|module| module.path).collect()
        };
        assert_eq!(paths("c_proj"), ["attn.c_proj", "mlp.c_proj"]);
        assert_eq!(paths("mlp.c_proj"), ["mlp.c_proj"]);
    }
}
