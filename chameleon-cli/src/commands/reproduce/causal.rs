//! The recipe `causal` on the same rows, with the same sizes.

use std::collections::BTreeMap;
use std::time::Instant;

use burn::tensor::Tensor;
use chameleon_cluster::{KMeansConfig, assign};
use chameleon_core::RunSeed;
use chameleon_hypernet::{Condition, ConditionControl, ConditionNorm, ControlPlan, PromptGroup};
use chameleon_models::{
    CausalLm as _, ExampleScore, GroupedExamples, HeadAdapter, HiddenCache, HiddenStates,
    ScoreSummary, Scorer, TrainOptions, TrainSetup, Trainee, Trainer,
    adapter::adaptation::head_shape,
    training::grouped_examples::{embed_examples, states_fingerprint},
};

use crate::{
    commands::{
        Context,
        prepare::{cache_path, fill_cache, grouped},
    },
    errors::CliError,
    resolve::ReproduceConfig,
};

use super::{
    Base,
    answers::{PromptBatch, answer},
    fit::{Selection, fit},
    heads,
    runs::{Facts, Method, Run, Unit, count_commonest},
    texts::{self, Texts},
};

/// Examples and groups, ready to train on.
pub(super) struct Causal<'a> {
    config: &'a ReproduceConfig,
    base: &'a Base,
    train: Part,
    valid: Part,
    test: Part,
    /// `[clusters, hidden]`, of the training prompts.
    centroids: Tensor<2>,
    facts: Facts,
}

struct Part {
    data: GroupedExamples,
    cache: HiddenCache,
}

impl<'a> Causal<'a> {
    pub(super) const METHODS: &'static [Method] = &[
        Method::Frozen,
        Method::Lora,
        Method::Dense,
        Method::DenseShuffled,
        Method::Core,
        Method::CoreShuffled,
    ];

    /// Groups the prompts and fills the caches, or answers `None` if the user asked to stop.
    pub(super) fn prepare(
        config: &'a ReproduceConfig,
        base: &'a Base,
        texts: &Texts,
        context: &Context,
    ) -> Result<Option<Self>, CliError> {
        let settings = &config.settings;
        let train = texts.train.examples.clone();
        let num_clusters = settings.num_clusters(train.len());
        let prompts = embed_examples(base.model(), &train);
        let kmeans = KMeansConfig::new(num_clusters)
            .with_max_iterations(settings.lloyd_steps)
            .fit(&prompts, context.settings.seed.derive("clusters"))?;
        let train = grouped(train, prompts, kmeans.assignments, settings.batch_size)?;
        let held_out = |part: &texts::Part| -> Result<GroupedExamples, CliError> {
            let examples = part.examples.clone();
            let prompts = embed_examples(base.model(), &examples);
            let assignments = assign(&prompts, &kmeans.centroids)?.assignments;
            grouped(examples, prompts, assignments, settings.batch_size)
        };
        let (valid, test) = (held_out(&texts.valid)?, held_out(&texts.test)?);
        let facts = Facts {
            num_train_rows: train.examples.len(),
            num_valid_rows: valid.examples.len(),
            num_test_rows: test.examples.len(),
            num_clusters,
            num_train_batches: train.plan.batches.len(),
            num_scored: valid
                .examples
                .iter()
                .map(|example| example.sequence.scored().len())
                .sum(),
            num_scored_padding: 0,
            num_commonest: count_commonest(
                valid
                    .examples
                    .iter()
                    .flat_map(|example| example.sequence.scored()),
            ),
        };
        let part = |data| Part::with_states(data, base, config, context);
        let (Some(train), Some(valid), Some(test)) = (part(train)?, part(valid)?, part(test)?)
        else {
            return Ok(None);
        };
        Ok(Some(Self {
            config,
            base,
            train,
            valid,
            test,
            centroids: kmeans.centroids,
            facts,
        }))
    }

    /// Trains and scores a method, or answers `None` if the user asked to stop.
    pub(super) fn run(
        &self,
        method: Method,
        seed: RunSeed,
        context: &Context,
    ) -> Result<Option<Run>, CliError> {
        let start = Instant::now();
        let settings = &self.config.settings;
        let control = self.control(method, seed)?;
        let score = |part: &Part, trainee: Option<&Trainee>| {
            let scorer = Scorer {
                trainee,
                hidden_states: HiddenStates::Cached(&part.cache),
                head_weight: self.base.model().head_weight(),
                centroids: self.centroids.clone(),
                condition: Condition::Centroid,
                control: control.clone(),
            };
            scorer.score(&part.data, |_| {})
        };
        let valid_loss = |trainee: Option<&Trainee>| mean_nll(&score(&self.valid, trainee));
        let mut run = Run::new("causal", method, seed, self.facts);
        let head = heads::causal(
            method,
            settings,
            head_shape(self.base.model(), settings.rank),
        );
        let fitted = match head {
            None => None,
            Some(head) => {
                let device = context.device()?.autodiff();
                let mut head = head.init(seed.derive("adapter"), &device);
                if let HeadAdapter::Hyper(hyper) = head {
                    let norm = ConditionNorm::fit(self.train.data.prompt_embeddings.clone());
                    head = HeadAdapter::Hyper(hyper.with_condition_norm(norm));
                }
                let trainee = Trainee::head_only(head);
                run.num_trainable_params = trainee.num_trainable_params();
                let setup = TrainSetup {
                    data: &self.train.data,
                    hidden_states: HiddenStates::Cached(&self.train.cache),
                    head_weight: self.base.model().head_weight(),
                    centroids: self.centroids.clone(),
                    condition: Condition::Centroid,
                    control: control.clone(),
                    options: train_options(self.config),
                    seed: seed.derive("training"),
                };
                let mut trainer = Trainer::new(setup, trainee);
                let selection = Selection::BestEpoch;
                let validate = |trainee: &Trainee| Ok(valid_loss(Some(trainee)));
                match fit(&mut trainer, method.name(), selection, validate, context)? {
                    Some(fitted) => Some(fitted),
                    None => return Ok(None),
                }
            }
        };
        run.valid_loss = match &fitted {
            Some(fitted) => fitted.epoch.valid_loss,
            None => valid_loss(None),
        };
        let trainee = fitted.as_ref().map(|fitted| &fitted.trainee);
        let test = score(&self.test, trainee);
        if self.config.num_answers > 0 {
            let Some(text) = answer(self.prompt_batches(trainee, &control), self.base, context)?
            else {
                return Ok(None);
            };
            run.text = Some(text);
        }
        if let Some(fitted) = fitted {
            run.chosen_epoch = Some(fitted.epoch.number);
            run.curve = fitted.curve;
        }
        run.test_loss = Some(mean_nll(&test));
        run.units = test.iter().map(unit).collect();
        run.seconds = start.elapsed().as_secs_f64();
        Ok(Some(run))
    }

    /// The first test prompts, those of a group together, and what the head adds for their group.
    fn prompt_batches(
        &self,
        trainee: Option<&Trainee>,
        control: &ControlPlan,
    ) -> Vec<PromptBatch<'_>> {
        let data = &self.test.data;
        let mut groups = BTreeMap::<usize, Vec<usize>>::new();
        for (row, &cluster_idx) in data
            .assignments
            .iter()
            .take(self.config.num_answers)
            .enumerate()
        {
            groups.entry(cluster_idx).or_default().push(row);
        }
        groups
            .into_iter()
            .enumerate()
            .map(|(batch_idx, (cluster_idx, rows))| PromptBatch {
                factors: trainee.and_then(|trainee| {
                    let group = PromptGroup {
                        prompt_embeddings: data
                            .prompt_embeddings
                            .clone()
                            .slice([rows[0]..=rows[0]]),
                        centroids: self.centroids.clone(),
                        cluster_idx,
                    };
                    let condition = control.conditions(Condition::Centroid, group, batch_idx);
                    trainee.head.factors(cluster_idx, condition).pop()
                }),
                examples: rows.iter().map(|&row| &data.examples[row]).collect(),
            })
            .collect()
    }

    fn control(&self, method: Method, seed: RunSeed) -> Result<ControlPlan, CliError> {
        let control = method.control();
        let num_clusters = self.facts.num_clusters;
        if control != ConditionControl::None && num_clusters < 2 {
            return Err(CliError::OneBatch);
        }
        Ok(control.plan(num_clusters, seed.derive("control"))?)
    }
}

impl Part {
    fn with_states(
        data: GroupedExamples,
        base: &Base,
        config: &ReproduceConfig,
        context: &Context,
    ) -> Result<Option<Self>, CliError> {
        let fingerprint = &base.states_fingerprint;
        let path = cache_path(
            config.cache_dir.as_ref(),
            states_fingerprint(fingerprint, &data.examples),
        )?;
        let (model, label) = (base.model(), "hidden states");
        let cache = fill_cache(model, fingerprint, &data.examples, &path, label, context)?;
        Ok(cache.map(|cache| Self { data, cache }))
    }
}

/// The paper's settings where it has some, ours elsewhere.
fn train_options(config: &ReproduceConfig) -> TrainOptions {
    TrainOptions {
        num_epochs: config.settings.num_epochs,
        learning_rate: config.settings.learning_rate,
        warmup: 0.05,
        weight_decay: config.settings.weight_decay,
        max_grad_norm: 1.0,
    }
}

fn mean_nll(scores: &[ExampleScore]) -> f64 {
    scores.iter().collect::<ScoreSummary>().mean_nll()
}

fn unit(score: &ExampleScore) -> Unit {
    Unit {
        nll: score.nll,
        num_tokens: score.num_tokens,
        document_idx: score.document_idx,
    }
}
