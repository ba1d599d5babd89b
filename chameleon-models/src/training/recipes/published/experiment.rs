//! The recipe `as-published`, with all its quirks or without some.

use std::time::Instant;

use burn::module::Module as _;
use burn::tensor::{Device, Tensor};
use chameleon_cluster::{BatchPlan, KMeansConfig, PlannedBatch, assign};
use chameleon_core::RunSeed;
use chameleon_hypernet::{AdaptedLayers, ConditionControl, ControlPlan};

use crate::adapter::AdapterError;
use crate::adapter::adaptation::{AdapterModule, head_shape};
use crate::adapter::layer_adaptation::{LayerAdaptation, LayerKind, LayerRange};
use crate::data::Example;
use crate::families::causal_lm::CausalLm;
use crate::training::error::TrainingError;
use crate::training::fit::{NoHooks, Selection, fit};
use crate::training::hidden_cache::HiddenCache;
use crate::training::known_states::{cache_path, observed};
use crate::training::method::Method;
use crate::training::new_adapter::autodiff_device;
use crate::training::observer::Observer;
use crate::training::recipes::answers::{PromptBatch, answer};
use crate::training::recipes::base::Base;
use crate::training::recipes::config::ReproductionConfig;
use crate::training::recipes::finished::finished;
use crate::training::recipes::heads;
use crate::training::recipes::quirks::{Quirk, Quirks};
use crate::training::recipes::runs::{Facts, Run, Unit, count_commonest};
use crate::training::recipes::settings::PaperSettings;
use crate::training::recipes::splits::Texts;
use crate::training::train::{LearningRate, Schedule, Trainer};

use super::data::{
    PublishedData, PublishedStates, StateIndex, cache_published_states, embed_rows,
    published_fingerprint,
};
use super::rows::{PublishedRow, RowOptions, published_rows};
use super::score::{PublishedScore, PublishedScorer};
use super::train::PublishedObjective;

/// Rows and groups, ready to train on.
pub(in crate::training::recipes) struct Published<'a> {
    name: String,
    config: &'a ReproductionConfig,
    base: &'a Base,
    options: RowOptions,
    train: Part,
    valid: Part,
    /// Prompts for which answers are generated.
    answered: Vec<Example>,
    facts: Facts,
}

struct Part {
    data: PublishedData,
    index: StateIndex,
    cache: HiddenCache,
}

impl<'a> Published<'a> {
    pub(in crate::training::recipes) fn methods() -> Vec<Method> {
        vec![
            Method::FROZEN,
            Method::LORA,
            Method::DENSE,
            Method::DENSE.redrawn(),
        ]
    }

    /// Groups the rows and fills the caches.
    pub(in crate::training::recipes) fn prepare(
        name: String,
        off: &[Quirk],
        config: &'a ReproductionConfig,
        base: &'a Base,
        texts: &Texts,
        observer: &dyn Observer,
    ) -> Result<Self, TrainingError> {
        let options = row_options(off, config, base);
        let settings = &config.settings;
        let train = published_rows(
            &texts.published_train(config.experiment, &options.quirks),
            &options,
        );
        let valid = published_rows(&texts.valid.rows, &options);
        if train.is_empty() || valid.is_empty() {
            return Err(TrainingError::NothingScored { recipe: name });
        }
        let kmeans = |embeddings: &Tensor<2>| {
            let [num_rows, _] = embeddings.dims();
            KMeansConfig::new(settings.num_clusters(num_rows))
                .with_max_iterations(settings.lloyd_steps)
                .with_tolerance(0.0)
                .fit(embeddings, config.seed.derive("clusters"))
        };
        let train_embeddings = embed_rows(base.model(), &train);
        let groups = kmeans(&train_embeddings)?;
        let train_plan = batches(&groups.assignments, settings.batch_size);
        let valid_embeddings = embed_rows(base.model(), &valid);
        let valid_assignments = if options.quirks.has(Quirk::OwnClusters) {
            kmeans(&valid_embeddings)?.assignments
        } else {
            assign(&valid_embeddings, &groups.centroids)?.assignments
        };
        let valid_plan = batches(&valid_assignments, settings.batch_size);
        let facts = Facts {
            num_train_rows: train.len(),
            num_valid_rows: valid.len(),
            num_test_rows: 0,
            num_clusters: settings.num_clusters(train.len()),
            num_train_batches: train_plan.batches.len(),
            num_scored: valid.iter().map(|row| row.targets().len()).sum(),
            num_commonest: count_commonest(valid.iter().flat_map(PublishedRow::targets)),
            num_scored_padding: valid.iter().map(PublishedRow::num_scored_padding).sum(),
        };
        let part = |rows, embeddings, plan| {
            let data = PublishedData::new(rows, embeddings, plan);
            Part::with_states(data, &options, base, config, observer)
        };
        let train = part(train, &train_embeddings, train_plan)?;
        let valid = part(valid, &valid_embeddings, valid_plan)?;
        Ok(Self {
            name,
            config,
            base,
            options,
            train,
            valid,
            answered: texts
                .valid
                .examples
                .iter()
                .take(config.num_answers)
                .cloned()
                .collect(),
            facts,
        })
    }

    /// Trains and scores a method.
    pub(in crate::training::recipes) fn run(
        &self,
        method: Method,
        seed: RunSeed,
        observer: &dyn Observer,
    ) -> Result<Run, TrainingError> {
        let start = Instant::now();
        let quirks = &self.options.quirks;
        let shape = head_shape(self.base.model(), self.config.settings.rank);
        let control = |part: &Part| control(method, part, seed);
        let mut run = Run::new(&self.name, method, seed, self.facts);
        let valid_control = control(&self.valid)?;
        let score = |module: Option<&AdapterModule>| -> Result<PublishedScore, TrainingError> {
            let scorer = PublishedScorer {
                module,
                states: self.states(&self.valid, module),
                head: self.base.model().head(),
                control: valid_control.clone(),
                quirks,
            };
            Ok(scorer.score(&self.valid.data))
        };
        let head = heads::published(method, &self.config.settings, quirks, shape);
        let mut adapter = None;
        let scored = if let Some(head) = head {
            let device = autodiff_device(self.base.model());
            let head = head.init(seed.derive("adapter"), &device);
            let module = AdapterModule::new(head, self.layers(seed, &device)?, None);
            run.num_trainable_params = module.num_trainable_params();
            let objective = PublishedObjective {
                data: &self.train.data,
                states: self.states(&self.train, Some(&module)),
                head: self.base.model().head(),
                control: control(&self.train)?,
                quirks: quirks.clone(),
                seed: seed.derive("training"),
            };
            let selection = if quirks.has(Quirk::BestEpoch) {
                Selection::BestEpoch
            } else {
                Selection::LastEpoch
            };
            let schedule = schedule(&self.config.settings, seed);
            let trainer = Trainer::new(Box::new(objective), schedule, module);
            let validate = |module: &AdapterModule| Ok(score(Some(&module.valid()))?.loss);
            let label = method.to_string();
            let fitted = fit(&label, trainer, selection, validate, &mut NoHooks, observer)?;
            let fitted = finished(fitted)?;
            run.curve = fitted.curve;
            run.chosen_epoch = Some(fitted.kept.epoch);
            let scored = score(Some(&fitted.module))?;
            adapter = Some(fitted.module);
            scored
        } else {
            score(None)?
        };
        run.valid_loss = scored.loss;
        run.units = units(&scored, quirks);
        if self.config.num_answers > 0
            && adapter
                .as_ref()
                .is_none_or(|module| module.layers.is_none())
        {
            let batches = self.prompt_batches(method, adapter.as_ref());
            run.text = Some(answer(batches, self.base, observer)?);
        }
        run.seconds = start.elapsed().as_secs_f64();
        Ok(run)
    }
}

impl Published<'_> {
    /// Prompts in the order of the rows, and the head factors of each batch of them: LoRA always, the hypernetwork only
    /// if generation has conditions.
    fn prompt_batches(
        &self,
        method: Method,
        module: Option<&AdapterModule>,
    ) -> Vec<PromptBatch<'_>> {
        let is_conditioned = !self.options.quirks.has(Quirk::PlainGeneration);
        let batches: Vec<Vec<&Example>> = self
            .answered
            .chunks(self.config.settings.batch_size)
            .map(|batch| batch.iter().collect())
            .collect();
        (0..batches.len())
            .map(|batch_idx| {
                let shown_idx = match method.control {
                    ConditionControl::None => batch_idx,
                    _ => (batch_idx + 1) % batches.len(),
                };
                let factors = module.filter(|_| is_conditioned || method == Method::LORA);
                PromptBatch {
                    factors: factors.and_then(|module| {
                        let shown = PromptBatch::mean_embedding(&batches[shown_idx], self.base);
                        module.head.factors(0, shown).pop()
                    }),
                    examples: batches[batch_idx].clone(),
                }
            })
            .collect()
    }

    /// LoRA in the layers, if the recipe adapts them.
    fn layers(
        &self,
        seed: RunSeed,
        device: &Device,
    ) -> Result<Option<AdaptedLayers>, TrainingError> {
        if self.options.quirks.has(Quirk::HeadOnly) {
            return Ok(None);
        }
        let model = self.base.model();
        let modules = model.linear_modules();
        let adaptation = LayerAdaptation {
            targets: modules
                .iter()
                .map(|module| module.path.to_owned())
                .collect(),
            layers: LayerRange::All,
            kind: LayerKind::Lora,
            rank: self.config.settings.rank,
            scale: heads::published_scale(&self.config.settings, &self.options.quirks),
        };
        let config = adaptation
            .config(model, None)
            .map_err(AdapterError::Target)?;
        Ok(Some(config.init(seed.derive("layers"), device)))
    }

    /// Cached states, unless adapted layers change them in every step.
    fn states<'s>(&'s self, part: &'s Part, module: Option<&AdapterModule>) -> PublishedStates<'s> {
        if module.is_some_and(|module| module.layers.is_some()) {
            return PublishedStates::Layers {
                model: self.base.model(),
                visibility: self.options.visibility(),
            };
        }
        PublishedStates::Cached {
            cache: &part.cache,
            index: &part.index,
        }
    }
}

impl Part {
    fn with_states(
        data: PublishedData,
        options: &RowOptions,
        base: &Base,
        config: &ReproductionConfig,
        observer: &dyn Observer,
    ) -> Result<Self, TrainingError> {
        let index = StateIndex::of(&data.rows);
        let fingerprint =
            published_fingerprint(&base.states_fingerprint, &data.rows, &index, options);
        let path = cache_path(&config.cache_dir, fingerprint)?;
        let cache = observed("hidden states", index.num_distinct(), observer, |observe| {
            cache_published_states(
                base.model(),
                fingerprint,
                &data.rows,
                &index,
                options,
                &path,
                observe,
            )
        })?;
        Ok(Self { data, index, cache })
    }
}

fn row_options(off: &[Quirk], config: &ReproductionConfig, base: &Base) -> RowOptions {
    RowOptions {
        loss: config.loss,
        quirks: Quirks::published().without(off),
        seq_len: config.settings.seq_len,
        pad_id: base.end_of_text(),
    }
}

/// A constant learning rate and no clipping, as published.
fn schedule(settings: &PaperSettings, seed: RunSeed) -> Schedule {
    Schedule {
        num_epochs: settings.num_epochs,
        learning_rate: LearningRate::Constant(settings.learning_rate),
        weight_decay: settings.weight_decay,
        max_grad_norm: f64::INFINITY,
        seed: seed.derive("training"),
    }
}

fn control(method: Method, part: &Part, seed: RunSeed) -> Result<ControlPlan, TrainingError> {
    let num_batches = part.data.plan.batches.len();
    let control = method.control;
    if control != ConditionControl::None && num_batches < 2 {
        return Err(TrainingError::OneBatch);
    }
    Ok(control.plan(num_batches, seed.derive("control"))?)
}

/// Whole clusters cut into batches, in the order of the rows.
fn batches(assignments: &[usize], batch_size: usize) -> BatchPlan {
    let num_clusters = assignments.iter().max().map_or(0, |last| last + 1);
    let mut clusters = vec![Vec::new(); num_clusters];
    for (row, &cluster_idx) in assignments.iter().enumerate() {
        clusters[cluster_idx].push(row);
    }
    let cut = |(cluster_idx, rows): (usize, Vec<usize>)| {
        rows.chunks(batch_size)
            .map(|rows| PlannedBatch {
                cluster_idx,
                rows: rows.to_vec(),
            })
            .collect::<Vec<_>>()
    };
    BatchPlan {
        batches: clusters.into_iter().enumerate().flat_map(cut).collect(),
    }
}

/// The units whose mean is the loss: with equal batches each batch counts as one unit.
fn units(score: &PublishedScore, quirks: &Quirks) -> Vec<Unit> {
    score
        .batches
        .iter()
        .enumerate()
        .map(|(document_idx, batch)| {
            if quirks.has(Quirk::EqualBatches) {
                Unit {
                    nll: batch.nll / batch.num_tokens as f64,
                    num_tokens: 1,
                    document_idx,
                }
            } else {
                Unit {
                    nll: batch.nll,
                    num_tokens: batch.num_tokens,
                    document_idx,
                }
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_are_cut_in_the_order_of_their_rows() {
        let plan = batches(&[1, 0, 1, 1, 3], 2);
        let rows: Vec<_> = plan
            .batches
            .iter()
            .map(|batch| (batch.cluster_idx, batch.rows.as_slice()))
            .collect();
        assert_eq!(rows, [(0, &[1][..]), (1, &[0, 2]), (1, &[3]), (3, &[4])]);
        assert!(plan.is_partition_of(5));
    }
}
