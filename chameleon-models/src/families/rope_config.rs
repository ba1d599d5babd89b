//! The rotary embedding that a `config.json` describes, in its older and its newer spelling.

use super::config_error::{ConfigError, check_multiple, check_positive, check_sizes};
use super::config_keys::ConfigKeys;
use super::rope::{Llama3Scaling, LongRopeScaling, RopeScaling, RotaryConfig, YarnScaling};

/// The kinds of scaling that are implemented.
const KINDS: &str = "default, linear, dynamic, yarn, llama3, longrope";

/// What a family determines of a rotary embedding.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RopeDefaults {
    /// Width of a head.
    pub(crate) head_dim: usize,
    /// The longest sequence.
    pub(crate) max_seq_len: usize,
    /// The base where the file has none.
    pub(crate) base: f64,
    /// The share of a head that rotates where the file has none.
    pub(crate) share: f64,
}

/// The rotary embedding of a configuration.
///
/// Newer files have everything in `rope_parameters`; older ones the base in `rope_theta`, the rest in `rope_scaling`.
pub(crate) fn rotary(
    keys: &ConfigKeys<'_>,
    defaults: RopeDefaults,
) -> Result<RotaryConfig, ConfigError> {
    let scaling = match keys.object("rope_parameters")? {
        Some(parameters) => Some(parameters),
        None => keys.object("rope_scaling")?,
    };
    rotary_of(keys, scaling, defaults)
}

/// The rotary embedding of local layers, whose parameters are all in one object; the default one if there is none.
pub(crate) fn local(
    parameters: Option<ConfigKeys<'_>>,
    defaults: RopeDefaults,
) -> Result<RotaryConfig, ConfigError> {
    match parameters {
        Some(parameters) => rotary_of(&parameters, Some(parameters), defaults),
        None => Ok(RotaryConfig {
            rotary_dim: defaults.head_dim,
            base: defaults.base,
            scaling: RopeScaling::None,
        }),
    }
}

/// The rotary embedding that an object of parameters describes, or the default one.
pub(crate) fn rotary_of(
    keys: &ConfigKeys<'_>,
    parameters: Option<ConfigKeys<'_>>,
    defaults: RopeDefaults,
) -> Result<RotaryConfig, ConfigError> {
    let number = |key| match parameters
        .as_ref()
        .map(|inner| inner.number(key))
        .transpose()?
    {
        Some(Some(number)) => Ok(Some(number)),
        _ => keys.number(key),
    };
    let base = number("rope_theta")?.unwrap_or(defaults.base);
    check_positive("rope_theta", base)?;
    let share = number("partial_rotary_factor")?.unwrap_or(defaults.share);
    check_positive("partial_rotary_factor", share)?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a positive share of a width; Hugging Face truncates as well"
    )]
    let rotary_dim = (defaults.head_dim as f64 * share.min(1.0)) as usize;
    check_sizes(&[("values of a head that rotate", rotary_dim)])?;
    check_multiple(("values of a head that rotate", rotary_dim), ("a pair", 2))?;
    let scaling = match parameters {
        Some(parameters) => {
            // A length of the original training may stand beside the parameters.
            let original = match parameters.count("original_max_position_embeddings")? {
                Some(original) => Some(original),
                None => keys.count("original_max_position_embeddings")?,
            };
            let original = original.unwrap_or(defaults.max_seq_len);
            check_sizes(&[("original_max_position_embeddings", original)])?;
            scaling(&parameters, original, rotary_dim, defaults.max_seq_len)?
        }
        None => RopeScaling::None,
    };
    Ok(RotaryConfig {
        rotary_dim,
        base,
        scaling,
    })
}

fn scaling(
    parameters: &ConfigKeys<'_>,
    original_max_seq_len: usize,
    rotary_dim: usize,
    max_seq_len: usize,
) -> Result<RopeScaling, ConfigError> {
    // Files exist with both spellings.
    let kind = match parameters.text("rope_type")? {
        Some(kind) => Some(kind),
        None => parameters.text("type")?,
    };
    // Early files of Phi-3 call its kind `yarn`.
    let kind = kind.map(|kind| match kind {
        "yarn" if parameters.has("short_factor") => "longrope",
        kind => kind,
    });
    // What the extension is when it is not said.
    let extension = max_seq_len as f64 / original_max_seq_len as f64;
    match kind.unwrap_or("default") {
        "default" => Ok(RopeScaling::None),
        "linear" => Ok(RopeScaling::Linear {
            factor: parameters.positive("factor", "rope_type linear")?,
        }),
        "dynamic" => {
            if rotary_dim == 2 {
                return Err(ConfigError::Unsupported {
                    key: "rope_type",
                    found: "dynamic for a single pair".to_owned(),
                    supported: KINDS,
                });
            }
            Ok(RopeScaling::Dynamic {
                factor: parameters.positive("factor", "rope_type dynamic")?,
                original_max_seq_len: max_seq_len,
            })
        }
        "llama3" => {
            let need = |key| parameters.positive(key, "rope_type llama3");
            let scaling = Llama3Scaling {
                factor: need("factor")?,
                low_freq_factor: need("low_freq_factor")?,
                high_freq_factor: need("high_freq_factor")?,
                original_max_seq_len,
            };
            check_positive(
                "high_freq_factor - low_freq_factor",
                scaling.high_freq_factor - scaling.low_freq_factor,
            )?;
            Ok(RopeScaling::Llama3(scaling))
        }
        "yarn" => {
            let factor = parameters.optional_positive("factor")?;
            let factor = factor.unwrap_or(extension);
            let attention_factor = match parameters.optional_positive("attention_factor")? {
                Some(attention_factor) => attention_factor,
                None => yarn_attention_factor(parameters, factor)?,
            };
            Ok(RopeScaling::Yarn(YarnScaling {
                factor,
                beta_fast: parameters.optional_positive("beta_fast")?.unwrap_or(32.0),
                beta_slow: parameters.optional_positive("beta_slow")?.unwrap_or(1.0),
                original_max_seq_len,
                attention_factor,
                truncate: parameters.flag_or("truncate", true)?,
            }))
        }
        // Phi-3's own older names.
        "longrope" | "su" => {
            let factors = |key| {
                let factors = parameters.numbers(key)?.ok_or(ConfigError::Missing {
                    key,
                    because: "rope_type longrope",
                })?;
                factors
                    .iter()
                    .try_for_each(|&factor| check_positive(key, factor))?;
                if factors.len() == rotary_dim / 2 {
                    Ok(factors)
                } else {
                    Err(ConfigError::WrongLength {
                        key,
                        found: factors.len(),
                        expected: rotary_dim / 2,
                    })
                }
            };
            let factor = parameters.optional_positive("factor")?.unwrap_or(extension);
            let grown = if factor > 1.0 {
                (1.0 + factor.ln() / (original_max_seq_len as f64).ln()).sqrt()
            } else {
                1.0
            };
            let attention_factor = parameters.optional_positive("attention_factor")?;
            Ok(RopeScaling::LongRope(LongRopeScaling {
                short_factor: factors("short_factor")?,
                long_factor: factors("long_factor")?,
                original_max_seq_len,
                attention_factor: attention_factor.unwrap_or(grown),
            }))
        }
        other => Err(ConfigError::Unsupported {
            key: "rope_type",
            found: other.to_owned(),
            supported: KINDS,
        }),
    }
}

/// The factor of cosines and sines that the paper suggests for `YaRN`.
fn yarn_attention_factor(parameters: &ConfigKeys<'_>, factor: f64) -> Result<f64, ConfigError> {
    let grown = |scale: f64| {
        if factor <= 1.0 {
            1.0
        } else {
            0.1 * scale * factor.ln() + 1.0
        }
    };
    let scales = (
        parameters.number("mscale")?.filter(|&scale| scale != 0.0),
        parameters
            .number("mscale_all_dim")?
            .filter(|&scale| scale != 0.0),
    );
    Ok(match scales {
        (Some(scale), Some(scale_all_dim)) => grown(scale) / grown(scale_all_dim),
        _ => grown(1.0),
    })
}
