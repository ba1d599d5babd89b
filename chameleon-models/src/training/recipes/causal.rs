//! The recipe `causal` on the same rows, with the same sizes.

use std::collections::BTreeMap;
use std::time::Instant;

use burn::module::Module as _;
use burn::tensor::Tensor;
use chameleon_cluster::{KMeansConfig, assign};
use chameleon_core::RunSeed;
use chameleon_hypernet::{Condition, ConditionControl, ControlPlan, PromptGroup};

use crate::adapter::adaptation::{AdapterModule, head_shape};
use crate::families::causal_lm::CausalLm;
use crate::training::error::TrainingError;
use crate::training::eval::{ExampleScore, ScoreSummary, Scorer};
use crate::training::fit::{NoHooks, Selection, fit};
use crate::training::grouped_examples::{GroupedExamples, embed_examples};
use crate::training::hidden_cache::HiddenCache;
use crate::training::known_states::final_states;
use crate::training::method::Method;
use crate::training::new_adapter::autodiff_device;
use crate::training::observer::Observer;
use crate::training::setup::TrainSetup;
use crate::training::states::HiddenStates;
use crate::training::train::TrainOptions;

use super::answers::{PromptBatch, answer};
use super::base::Base;
use super::config::ReproductionConfig;
use super::finished::finished;
use super::heads;
use super::runs::{Facts, Run, Unit, count_commonest};
use super::splits::{self, Texts};

/// Examples and groups, ready to train on.
pub(super) struct Causal<'a> {
    config: &'a ReproductionConfig,
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
    pub(super) fn methods() -> Vec<Method> {
        vec![
            Method::FROZEN,
            Method::LORA,
            Method::DENSE,
            Method::DENSE.redrawn(),
            Method::CORE,
            Method::CORE.redrawn(),
        ]
    }

    /// Groups the prompts and fills the caches.
    pub(super) fn prepare(
        config: &'a ReproductionConfig,
        base: &'a Base,
        texts: &Texts,
        observer: &dyn Observer,
    ) -> Result<Self, TrainingError> {
        let settings = &config.settings;
        let train = texts.train.examples.clone();
        let num_clusters = settings.num_clusters(train.len());
        let prompts = embed_examples(base.model(), &train);
        let kmeans = KMeansConfig::new(num_clusters)
            .with_max_iterations(settings.lloyd_steps)
            .fit(&prompts, config.seed.derive("clusters"))?;
        let train = GroupedExamples::plan(train, prompts, kmeans.assignments, settings.batch_size)?;
        let held_out = |part: &splits::Part| -> Result<GroupedExamples, TrainingError> {
            let examples = part.examples.clone();
            let prompts = embed_examples(base.model(), &examples);
            let assignments = assign(&prompts, &kmeans.centroids)?.assignments;
            GroupedExamples::plan(examples, prompts, assignments, settings.batch_size)
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
        let part = |data| Part::with_states(data, base, config, observer);
        let (train, valid, test) = (part(train)?, part(valid)?, part(test)?);
        Ok(Self {
            config,
            base,
            train,
            valid,
            test,
            centroids: kmeans.centroids,
            facts,
        })
    }

    /// Trains and scores a method.
    pub(super) fn run(
        &self,
        method: Method,
        seed: RunSeed,
        observer: &dyn Observer,
    ) -> Result<Run, TrainingError> {
        let start = Instant::now();
        let settings = &self.config.settings;
        let control = self.control(method, seed)?;
        let score = |part: &Part, module: Option<&AdapterModule>| {
            let scorer = Scorer {
                module,
                hidden_states: HiddenStates::Cached(&part.cache),
                head: self.base.model().head(),
                centroids: self.centroids.clone(),
                condition: Condition::Centroid,
                control: control.clone(),
            };
            scorer.score(&part.data, |_| {})
        };
        let valid_loss = |module: Option<&AdapterModule>| mean_nll(&score(&self.valid, module));
        let mut run = Run::new("causal", method, seed, self.facts);
        let head = heads::causal(
            method,
            settings,
            head_shape(self.base.model(), settings.rank),
        );
        let fitted = match head {
            None => None,
            Some(head) => {
                let device = autodiff_device(self.base.model());
                let head = head
                    .init(seed.derive("adapter"), &device)
                    .with_condition_norm_of(&self.train.data.prompt_embeddings);
                let module = AdapterModule::head_only(head);
                run.num_trainable_params = module.num_trainable_params();
                let setup = TrainSetup {
                    data: &self.train.data,
                    hidden_states: HiddenStates::Cached(&self.train.cache),
                    head: self.base.model().head(),
                    centroids: self.centroids.clone(),
                    condition: Condition::Centroid,
                    control: control.clone(),
                    exemplars: None,
                    options: train_options(self.config),
                    seed: seed.derive("training"),
                };
                let validate = |module: &AdapterModule| Ok(valid_loss(Some(&module.valid())));
                let fitted = fit(
                    &method.to_string(),
                    setup.trainer(module)?,
                    Selection::BestEpoch,
                    validate,
                    &mut NoHooks,
                    observer,
                )?;
                Some(finished(fitted)?)
            }
        };
        run.valid_loss = match &fitted {
            Some(fitted) => fitted.kept.valid_loss,
            None => valid_loss(None),
        };
        let module = fitted.as_ref().map(|fitted| &fitted.module);
        let test = score(&self.test, module);
        if self.config.num_answers > 0 {
            let batches = self.prompt_batches(module, &control);
            run.text = Some(answer(batches, self.base, observer)?);
        }
        if let Some(fitted) = fitted {
            run.chosen_epoch = Some(fitted.kept.epoch);
            run.curve = fitted.curve;
        }
        run.test_loss = Some(mean_nll(&test));
        run.units = test.iter().map(unit).collect();
        run.seconds = start.elapsed().as_secs_f64();
        Ok(run)
    }

    /// The first test prompts by group, and the head factors of each group.
    fn prompt_batches(
        &self,
        module: Option<&AdapterModule>,
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
                factors: module.and_then(|module| {
                    let group = PromptGroup {
                        prompt_embeddings: data
                            .prompt_embeddings
                            .clone()
                            .slice([rows[0]..=rows[0]]),
                        centroids: self.centroids.clone(),
                        cluster_idx,
                    };
                    let condition = control.conditions(Condition::Centroid, group, batch_idx);
                    module.head.factors(cluster_idx, condition).pop()
                }),
                examples: rows.iter().map(|&row| &data.examples[row]).collect(),
            })
            .collect()
    }

    fn control(&self, method: Method, seed: RunSeed) -> Result<ControlPlan, TrainingError> {
        let control = method.control;
        let num_clusters = self.facts.num_clusters;
        if control != ConditionControl::None && num_clusters < 2 {
            return Err(TrainingError::OneBatch);
        }
        Ok(control.plan(num_clusters, seed.derive("control"))?)
    }
}

impl Part {
    fn with_states(
        data: GroupedExamples,
        base: &Base,
        config: &ReproductionConfig,
        observer: &dyn Observer,
    ) -> Result<Self, TrainingError> {
        let cache = final_states(
            base.model(),
            &base.states_fingerprint,
            &data.examples,
            &config.cache_dir,
            observer,
        )?;
        Ok(Self { data, cache })
    }
}

/// The paper's settings where it gives them, otherwise our own.
fn train_options(config: &ReproductionConfig) -> TrainOptions {
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
