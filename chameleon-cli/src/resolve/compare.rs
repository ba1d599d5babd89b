//! The checked config of `compare`.

use std::path::PathBuf;

use chameleon_core::RunSeed;
use chameleon_hypernet::Condition;
use chameleon_models::adapter::StepsConfig;
use chameleon_models::training::experiment::{ComparisonConfig, TenantConfig, TenantMethod};
use chameleon_models::training::{HeldOut, Method, Start, TextSource, TrainingConfig};

use super::{
    data::{checked_span, data},
    training::{each_once, held_out, seeds, start, training},
};
use crate::{
    args::{CompareArgs, Sweep, SweptSetting, TenantArgs},
    errors::FlagError,
};

/// `chameleon compare`
#[derive(Debug, Clone)]
pub(crate) struct CompareConfig {
    pub(crate) model: String,
    pub(crate) data: TextSource,
    pub(crate) valid: HeldOut,
    pub(crate) test: HeldOut,
    pub(crate) out: PathBuf,
    /// Every hypernetwork comes with its controls and its LoRA.
    pub(crate) comparison: ComparisonConfig,
    pub(crate) sweep: Option<Sweep>,
    /// A comparison of groups by key, in place of the other one.
    pub(crate) tenants: Option<TenantConfig>,
    pub(crate) start: Start,
}

pub(super) fn compare(args: CompareArgs, seed: RunSeed) -> Result<CompareConfig, FlagError> {
    let mut methods: Vec<Method> = each_once("methods", args.methods, Method::to_string)?
        .into_iter()
        .flat_map(|method| [vec![method], method.companions()].concat())
        .collect();
    methods.sort_by_key(|method| method.position());
    methods.dedup();
    let learning_rates = each_once("lr", args.lr, ToString::to_string)?;
    let training = training(args.training, learning_rates[0])?;
    let seeds = seeds(args.seeds, args.num_seeds, seed)?;
    let tenants = match args.data.group_field {
        Some(_) => Some(tenants(args.tenants, &training, &seeds)?),
        None => None,
    };
    let draws = |method: &Method| method.draws_another_group();
    if training.num_clusters == 1 && methods.iter().any(draws) {
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
        comparison: ComparisonConfig {
            methods,
            seeds,
            learning_rates,
            training,
        },
        sweep,
        tenants,
        start: start(args.resume),
    })
}

fn tenants(
    args: TenantArgs,
    training: &TrainingConfig,
    seeds: &[RunSeed],
) -> Result<TenantConfig, FlagError> {
    let steps = StepsConfig {
        num_steps: args.inner_steps,
        num_exemplars: args.exemplars[0],
    };
    let methods = each_once("tenant-methods", args.tenant_methods, ToString::to_string)?;
    Ok(TenantConfig {
        training: TrainingConfig {
            steps,
            ..training.clone()
        },
        seeds: seeds.to_vec(),
        methods: if methods.is_empty() {
            TenantMethod::defaults()
        } else {
            methods
        },
        num_exemplars: each_once("exemplars", args.exemplars, ToString::to_string)?,
        max_scored: args.max_requests,
    })
}

fn checked_sweep(
    sweep: Sweep,
    training: &TrainingConfig,
    methods: &[Method],
) -> Result<Sweep, FlagError> {
    let mut values = each_once("sweep", sweep.values, ToString::to_string)?;
    values.sort_unstable();
    for &value in &values {
        if sweep.setting == SweptSetting::Prefix {
            checked_span(value, training.span.seq_len)?;
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
