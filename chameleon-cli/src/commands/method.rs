//! From a method's name to an adapter that trains, and its steps with a progress bar.

use std::time::Instant;

use burn::module::Module as _;

use chameleon_core::{FactorShape, RunSeed};
use chameleon_hypernet::{
    ConditionControl, ConditionNorm, FactorGeneratorConfig, GeneratorKind, HyperLoraHeadConfig,
    LoraHeadConfig,
};
use chameleon_models::{
    Adaptation, AdapterConfig, AdapterError, CausalLm as _, ExampleScore, HeadAdapter,
    HiddenStates, LanguageModel, LayerAdaptation, LayerKind, Recipe, Scorer, StepReport,
    TokenScores, TrainOptions, TrainSetup, Trainee, Trainer,
    adapter::adaptation::head_shape,
    adapter::{self, FORMAT_VERSION},
};

use crate::{
    commands::{Context, prepare::Prepared},
    errors::CliError,
    resolve::{AdapterConfig as AdapterFlags, TrainingConfig},
};

use super::prepare::Part;

/// How the head is adapted, without its sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeadMethod {
    Lora,
    /// LoRA with as many trained numbers as a generated head.
    LoraEqual(GeneratorKind),
    Experts,
    Dense,
    Core,
}

/// The description of an adapter that is about to be trained.
pub(crate) fn adapter_config(
    method: HeadMethod,
    training: &TrainingConfig,
    prepared: &Prepared,
    seed: RunSeed,
) -> Result<AdapterConfig, CliError> {
    let flags = &training.adapter;
    let parts = parts(method, flags, prepared.model(), training.num_clusters)?;
    let config = AdapterConfig {
        format_version: FORMAT_VERSION,
        base: prepared.loaded.identity.clone(),
        recipe: Recipe::Causal {
            prefix: training.span.prefix,
            seq_len: training.span.seq_len,
        },
        head: parts.head,
        layers: parts.layers,
        prompts: flags.encoding,
        condition: flags.condition,
        num_clusters: training.num_clusters,
        training: TrainOptions {
            num_epochs: training.optimizer.num_epochs,
            learning_rate: training.optimizer.learning_rate,
            warmup: training.optimizer.warmup,
            weight_decay: training.optimizer.weight_decay,
            max_grad_norm: training.optimizer.max_grad_norm,
        },
        seed,
        memory: None,
    };
    // What a reader would refuse is not trained.
    config.check()?;
    Ok(config)
}

/// What is adapted: the head, and layers if any are named.
struct Parts {
    head: Adaptation,
    layers: Option<LayerAdaptation>,
}

fn parts(
    method: HeadMethod,
    flags: &AdapterFlags,
    model: &LanguageModel,
    num_clusters: usize,
) -> Result<Parts, CliError> {
    let shape = head_shape(model, flags.rank);
    let layers = |kind| {
        (!flags.targets.is_empty()).then(|| LayerAdaptation {
            targets: flags.targets.clone(),
            layers: flags.layers,
            kind,
            rank: flags.layer_rank,
            scale: flags.scale,
        })
    };
    Ok(match method {
        HeadMethod::LoraEqual(GeneratorKind::Core) => {
            let core = parts(HeadMethod::Core, flags, model, num_clusters)?;
            equal_lora(core.num_trainable_params(model)?, flags, model)?
        }
        HeadMethod::LoraEqual(_) => {
            let dense = parts(HeadMethod::Dense, flags, model, num_clusters)?;
            equal_lora(dense.num_trainable_params(model)?, flags, model)?
        }
        HeadMethod::Core => Parts {
            head: head(method, flags, shape, num_clusters),
            layers: layers(LayerKind::Core),
        },
        HeadMethod::Lora | HeadMethod::Experts | HeadMethod::Dense => Parts {
            head: head(method, flags, shape, num_clusters),
            layers: layers(LayerKind::Lora),
        },
    })
}

impl Parts {
    fn num_trainable_params(&self, model: &LanguageModel) -> Result<usize, CliError> {
        let layers = match &self.layers {
            None => 0,
            Some(layers) => layers
                .config(model, self.head.num_features())
                .map_err(AdapterError::Target)?
                .num_trainable_params(),
        };
        Ok(self.head.num_trainable_params() + layers)
    }
}

/// Plain LoRA at the same places with about as many trained numbers. Inside layers the rank grows there, and the head
/// makes up for what is left.
fn equal_lora(
    num_params: usize,
    flags: &AdapterFlags,
    model: &LanguageModel,
) -> Result<Parts, CliError> {
    let mut lora = parts(HeadMethod::Lora, flags, model, 1)?;
    let shape = head_shape(model, flags.rank);
    // A rank above the width adds numbers and no change that a lower one could not make.
    let widest = shape.in_size;
    let mut rest = num_params;
    if let Some(layers) = &mut lora.layers {
        layers.rank = 1;
        let per_rank = layers
            .config(model, None)
            .map_err(AdapterError::Target)?
            .num_trainable_params()
            .max(1);
        let room = num_params.saturating_sub(shape.num_params());
        layers.rank = ((room + per_rank / 2) / per_rank).clamp(1, widest);
        rest = num_params.saturating_sub(layers.rank * per_rank);
    }
    let mut config = LoraHeadConfig::new(shape)
        .with_scale(flags.scale)
        .sized_to(rest);
    config.shape.rank = config.shape.rank.min(widest);
    lora.head = Adaptation::Lora { config };
    Ok(lora)
}

fn head(
    method: HeadMethod,
    flags: &AdapterFlags,
    shape: FactorShape,
    num_clusters: usize,
) -> Adaptation {
    let lora = LoraHeadConfig::new(shape).with_scale(flags.scale);
    match method {
        HeadMethod::Lora | HeadMethod::LoraEqual(_) => Adaptation::Lora { config: lora },
        HeadMethod::Experts => Adaptation::Experts {
            config: lora,
            num_clusters,
        },
        HeadMethod::Dense => Adaptation::Hyper {
            config: hyper(GeneratorKind::Dense, flags, shape),
        },
        HeadMethod::Core => Adaptation::Hyper {
            config: hyper(GeneratorKind::Core, flags, shape),
        },
    }
}

fn hyper(kind: GeneratorKind, flags: &AdapterFlags, shape: FactorShape) -> HyperLoraHeadConfig {
    let mut config = HyperLoraHeadConfig::preset(kind, shape.in_size, shape);
    match &mut config.generator {
        FactorGeneratorConfig::Core(core) => {
            core.scale = flags.scale;
            core.hidden_sizes.clone_from(&flags.hidden_sizes);
            core.dropout = flags.dropout;
        }
        FactorGeneratorConfig::Dense(dense) => {
            dense.scale = flags.scale;
            dense.hidden_sizes.clone_from(&flags.hidden_sizes);
            dense.dropout = flags.dropout;
        }
    }
    config
}

/// A trainee before its first step, on the autodiff device.
pub(crate) fn untrained(
    config: &AdapterConfig,
    prepared: &Prepared,
    context: &Context,
) -> Result<Trainee, CliError> {
    let device = context.device()?.autodiff();
    let mut trainee = adapter::empty_trainee(config, prepared.model(), &device)?;
    if let HeadAdapter::Hyper(head) = trainee.head {
        let norm = ConditionNorm::fit(prepared.train.data.prompt_embeddings.clone());
        trainee.head = HeadAdapter::Hyper(head.with_condition_norm(norm));
    }
    let prompt_norm = prepared.prompt_norm.clone();
    Ok(trainee.with_prompt_norm(prompt_norm.map(|norm| norm.to_device(&device))))
}

/// Everything fixed about one training.
pub(crate) fn setup<'a>(
    config: &AdapterConfig,
    prepared: &'a Prepared,
    states: HiddenStates<'a>,
    control: ConditionControl,
) -> Result<TrainSetup<'a>, CliError> {
    Ok(TrainSetup {
        data: &prepared.train.data,
        hidden_states: states,
        head_weight: prepared.model().head_weight(),
        centroids: prepared.centroids.clone(),
        condition: config.condition,
        control: control.plan(config.num_clusters, config.seed.derive("control"))?,
        options: config.training.clone(),
        seed: config.seed.derive("training"),
    })
}

/// Scores one side with an adapter, or with the frozen model.
pub(crate) fn score(
    trainee: Option<&Trainee>,
    config: &AdapterConfig,
    prepared: &Prepared,
    part: &Part,
    states: HiddenStates<'_>,
    control: ConditionControl,
    context: &Context,
) -> Result<Vec<ExampleScore>, CliError> {
    let scores = score_tokens(trainee, config, prepared, part, states, control, context)?;
    Ok(scores.into_iter().map(|score| score.total).collect())
}

/// Like [`score`], token by token.
pub(crate) fn score_tokens(
    trainee: Option<&Trainee>,
    config: &AdapterConfig,
    prepared: &Prepared,
    part: &Part,
    states: HiddenStates<'_>,
    control: ConditionControl,
    context: &Context,
) -> Result<Vec<TokenScores>, CliError> {
    let evaluated = trainee.map(burn::module::Module::valid);
    let scorer = Scorer {
        trainee: evaluated.as_ref(),
        hidden_states: states,
        head_weight: prepared.model().head_weight(),
        centroids: prepared.centroids.clone(),
        condition: config.condition,
        control: control.plan(config.num_clusters, config.seed.derive("control"))?,
    };
    let bar = context
        .output
        .progress("scoring", part.data.plan.batches.len());
    let scores = scorer.score_tokens(&part.data, |num_batches| {
        bar.set_position(num_batches as u64);
    });
    bar.finish_and_clear();
    Ok(scores)
}

/// A progress bar that knows losses and tokens per second.
pub(crate) struct StepBar {
    bar: indicatif::ProgressBar,
    start: Instant,
    num_tokens: usize,
    loss: Option<f64>,
}

impl StepBar {
    pub(crate) fn new(label: &'static str, trainer: &Trainer<'_>, context: &Context) -> Self {
        Self::at(label, trainer.cursor().step, trainer.num_steps(), context)
    }

    /// A bar for any training, of which `step` steps are done.
    pub(crate) fn at(
        label: &'static str,
        step: usize,
        num_steps: usize,
        context: &Context,
    ) -> Self {
        let bar = context.output.progress(label, num_steps);
        bar.set_position(step as u64);
        bar.reset_eta();
        Self {
            bar,
            start: Instant::now(),
            num_tokens: 0,
            loss: None,
        }
    }

    pub(crate) fn step(&mut self, report: &StepReport) {
        self.num_tokens += report.num_tokens;
        // Single batches jump about: the bar shows an average that forgets slowly.
        let loss = self
            .loss
            .map_or(report.loss, |loss| 0.95 * loss + 0.05 * report.loss);
        self.loss = Some(loss);
        let rate = self.num_tokens as f64 / self.start.elapsed().as_secs_f64();
        self.bar
            .set_message(format!("loss {loss:.4}, {rate:.0} tokens/s,"));
        self.bar.set_position(report.step as u64);
    }

    pub(crate) fn finish(self) {
        self.bar.finish_and_clear();
    }
}
