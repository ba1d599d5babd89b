//! The checked config of `compare`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use chameleon_core::RunSeed;
use chameleon_hypernet::Condition;

use super::{
    data::{DataConfig, SpanConfig, data},
    training::{HeldOut, Start, TrainingConfig, each_once, held_out, seeds, start, training},
};
use crate::{
    args::{CompareArgs, CompareMethod, Sweep, SweptSetting},
    errors::FlagError,
};

/// `chameleon compare`
#[derive(Debug, Clone)]
pub(crate) struct CompareConfig {
    pub(crate) model: String,
    pub(crate) data: DataConfig,
    pub(crate) valid: HeldOut,
    pub(crate) test: HeldOut,
    pub(crate) out: PathBuf,
    /// In the order of the tables, each once, every hypernetwork with its controls and its LoRA.
    pub(crate) methods: Vec<CompareMethod>,
    /// At least one, each once.
    pub(crate) seeds: Vec<RunSeed>,
    /// Tried by every method; at least one, each once.
    pub(crate) learning_rates: Vec<f64>,
    pub(crate) training: TrainingConfig,
    pub(crate) sweep: Option<Sweep>,
    pub(crate) start: Start,
}

impl CompareMethod {
    /// What has to stand beside this method before one may say that it gained something.
    fn companions(self) -> &'static [Self] {
        match self {
            Self::Core | Self::CoreShuffled | Self::CoreConstant => &[
                Self::Frozen,
                Self::Lora,
                Self::LoraEqual,
                Self::Core,
                Self::CoreShuffled,
                Self::CoreConstant,
            ],
            Self::CoreMemory | Self::CoreMemoryShuffled | Self::CoreMemoryConstant => &[
                Self::Frozen,
                Self::Lora,
                Self::LoraEqual,
                Self::Core,
                Self::CoreMemory,
                Self::CoreMemoryShuffled,
                Self::CoreMemoryConstant,
            ],
            Self::LoraMemory | Self::LoraMemoryShuffled | Self::LoraMemoryConstant => &[
                Self::Frozen,
                Self::Lora,
                Self::LoraMemory,
                Self::LoraMemoryShuffled,
                Self::LoraMemoryConstant,
            ],
            Self::Dense | Self::DenseShuffled | Self::DenseConstant => &[
                Self::Frozen,
                Self::Lora,
                Self::LoraEqualDense,
                Self::Dense,
                Self::DenseShuffled,
                Self::DenseConstant,
            ],
            Self::Frozen | Self::Lora | Self::LoraEqual | Self::LoraEqualDense | Self::Experts => {
                &[]
            }
        }
    }

    /// The name a user types.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Frozen => "frozen",
            Self::Lora => "lora",
            Self::LoraMemory => "lora-memory",
            Self::LoraMemoryShuffled => "lora-memory-shuffled",
            Self::LoraMemoryConstant => "lora-memory-constant",
            Self::LoraEqual => "lora-equal",
            Self::LoraEqualDense => "lora-equal-dense",
            Self::Experts => "experts",
            Self::Dense => "dense",
            Self::DenseShuffled => "dense-shuffled",
            Self::DenseConstant => "dense-constant",
            Self::Core => "core",
            Self::CoreShuffled => "core-shuffled",
            Self::CoreConstant => "core-constant",
            Self::CoreMemory => "core-memory",
            Self::CoreMemoryShuffled => "core-memory-shuffled",
            Self::CoreMemoryConstant => "core-memory-constant",
        }
    }
}

pub(super) fn compare(args: CompareArgs, seed: RunSeed) -> Result<CompareConfig, FlagError> {
    let methods = each_once("methods", args.methods, |method| method.name().to_owned())?;
    let methods: BTreeSet<CompareMethod> = methods
        .into_iter()
        .flat_map(|method| [&[method], method.companions()].concat())
        .collect();
    let learning_rates = each_once("lr", args.lr, ToString::to_string)?;
    let training = training(args.training, learning_rates[0])?;
    if training.num_clusters == 1
        && methods
            .iter()
            .any(|method| method.name().ends_with("-shuffled"))
    {
        return Err(FlagError::NoOtherCluster);
    }
    let sweep = args
        .sweep
        .map(|sweep| checked_sweep(sweep, &training, &methods))
        .transpose()?;
    Ok(CompareConfig {
        model: args.model.model,
        data: data(args.data),
        valid: held_out(args.valid.valid, args.valid.valid_fraction),
        test: held_out(args.test, args.test_fraction),
        out: args.out,
        methods: methods.into_iter().collect(),
        seeds: seeds(args.seeds, args.num_seeds, seed)?,
        learning_rates,
        sweep,
        training,
        start: start(args.resume),
    })
}

fn checked_sweep(
    sweep: Sweep,
    training: &TrainingConfig,
    methods: &BTreeSet<CompareMethod>,
) -> Result<Sweep, FlagError> {
    let mut values = each_once("sweep", sweep.values, ToString::to_string)?;
    values.sort_unstable();
    for &value in &values {
        if sweep.setting == SweptSetting::Prefix {
            SpanConfig::checked(value, training.span.seq_len)?;
        }
    }
    let condition = training.adapter.condition;
    let depends_on_size = matches!(condition, Condition::Batch | Condition::Blend { .. });
    if sweep.setting == SweptSetting::GroupSize && !depends_on_size {
        return Err(FlagError::GroupSizeWithoutEffect {
            condition: condition.to_string(),
        });
    }
    if methods.iter().all(|method| method.companions().is_empty()) {
        return Err(FlagError::NothingToSweep);
    }
    Ok(Sweep { values, ..sweep })
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn names_are_those_a_user_types() {
        for method in CompareMethod::value_variants() {
            let typed = method.to_possible_value().unwrap();
            assert_eq!(method.name(), typed.get_name());
        }
    }
}
