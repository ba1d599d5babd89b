//! From a method's name to an adapter that trains, and its steps with a progress bar.

use std::time::Instant;

use chameleon_core::{FactorShape, RunSeed};
use chameleon_hypernet::{
    ConditionControl, ConditionNorm, FactorGeneratorConfig, GeneratorKind, HyperLoraHeadConfig,
    LoraHeadConfig,
};
use chameleon_models::{
    Adaptation, AdapterConfig, CausalLm as _, ExampleScore, HeadAdapter, HiddenCache, HiddenStates,
    LayerAdaptation, LayerKind, LayerRange, PromptEncoding, Recipe, Scorer, StepReport,
    TokenScores, TrainOptions, TrainSetup, Trainee, Trainer,
    adaptation::head_shape,
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
    let shape = head_shape(prepared.model(), flags.rank);
    let config = AdapterConfig {
        format_version: FORMAT_VERSION,
        base: prepared.loaded.identity.clone(),
        recipe: Recipe::Causal {
            prefix: training.span.prefix,
            seq_len: training.span.seq_len,
        },
        head: head(method, flags, shape, training.num_clusters),
        layers: (!flags.targets.is_empty()).then(|| LayerAdaptation {
            targets: flags.targets.clone(),
            layers: LayerRange::All,
            kind: LayerKind::Lora,
            rank: flags.rank,
            scale: flags.scale,
        }),
        prompts: PromptEncoding::default(),
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
    };
    // What a reader would refuse is not trained.
    config.check()?;
    Ok(config)
}

fn head(
    method: HeadMethod,
    flags: &AdapterFlags,
    shape: FactorShape,
    num_clusters: usize,
) -> Adaptation {
    let lora = LoraHeadConfig::new(shape).with_scale(flags.scale);
    match method {
        HeadMethod::Lora => Adaptation::Lora { config: lora },
        HeadMethod::LoraEqual(kind) => {
            let mut config = lora.sized_to(hyper(kind, flags, shape).num_trainable_params());
            // A rank above the width adds numbers and no change that a lower one could not make.
            config.shape.rank = config.shape.rank.min(shape.in_size);
            Adaptation::Lora { config }
        }
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
    Ok(trainee)
}

/// Where the states of one side come from: the cache, or the model when its layers are adapted.
pub(crate) fn states<'a>(
    config: &AdapterConfig,
    prepared: &'a Prepared,
    cache: Option<&'a HiddenCache>,
) -> HiddenStates<'a> {
    match (&config.layers, cache) {
        (None, Some(cache)) => HiddenStates::Cached(cache),
        _ => HiddenStates::Layers(prepared.model()),
    }
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
    Ok(scores?)
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
