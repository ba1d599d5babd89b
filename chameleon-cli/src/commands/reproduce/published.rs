//! The recipe `as-published`, with all its quirks or without some.

use std::time::Instant;

use burn::tensor::{Device, Tensor};
use chameleon_cluster::{KMeansConfig, assign};
use chameleon_core::{BatchPlan, PlannedBatch, RunSeed};
use chameleon_hypernet::{AdaptedLayers, ConditionControl, ControlPlan};
use chameleon_models::{
    AdapterError, CausalLm as _, Example, HiddenCache, LayerAdaptation, LayerKind, LayerRange,
    Trainee,
    adapter::adaptation::head_shape,
    training::recipes::{
        PaperSettings, PublishedData, PublishedOptions, PublishedRow, PublishedScore,
        PublishedScorer, PublishedSetup, PublishedStates, PublishedTrainer, Quirk, Quirks,
        RowOptions, StateIndex, cache_published_states, embed_rows, published_fingerprint,
        published_rows,
    },
};

use crate::{
    commands::{Context, prepare::cache_path, states::with_states_bar},
    errors::CliError,
    resolve::ReproduceConfig,
};

use super::{
    Base,
    answers::{PromptBatch, answer},
    fit::{Selection, fit},
    heads,
    runs::{Facts, Method, Run, Unit, count_commonest},
    texts::Texts,
};

/// Rows and groups, ready to train on.
pub(super) struct Published<'a> {
    name: String,
    config: &'a ReproduceConfig,
    base: &'a Base,
    options: RowOptions,
    train: Part,
    valid: Part,
    /// Prompts that are answered.
    answered: Vec<Example>,
    facts: Facts,
}

struct Part {
    data: PublishedData,
    index: StateIndex,
    cache: HiddenCache,
}

impl<'a> Published<'a> {
    pub(super) const METHODS: &'static [Method] = &[
        Method::Frozen,
        Method::Lora,
        Method::Dense,
        Method::DenseShuffled,
    ];

    /// Groups the rows and fills the caches, or answers `None` if the user asked to stop.
    pub(super) fn prepare(
        name: String,
        off: &[Quirk],
        config: &'a ReproduceConfig,
        base: &'a Base,
        texts: &Texts,
        context: &Context,
    ) -> Result<Option<Self>, CliError> {
        let options = row_options(off, config, base);
        let settings = &config.settings;
        let train = published_rows(
            &texts.published_train(config.experiment, &options.quirks),
            &options,
        );
        let valid = published_rows(&texts.valid.rows, &options);
        if train.is_empty() || valid.is_empty() {
            return Err(CliError::NothingScored { recipe: name });
        }
        let kmeans = |embeddings: &Tensor<2>| {
            let [num_rows, _] = embeddings.dims();
            KMeansConfig::new(settings.num_clusters(num_rows))
                .with_max_iterations(settings.lloyd_steps)
                .with_tolerance(0.0)
                .fit(embeddings, context.settings.seed.derive("clusters"))
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
            Part::with_states(data, &options, base, config, context)
        };
        let Some(train) = part(train, &train_embeddings, train_plan)? else {
            return Ok(None);
        };
        let Some(valid) = part(valid, &valid_embeddings, valid_plan)? else {
            return Ok(None);
        };
        Ok(Some(Self {
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
        let quirks = &self.options.quirks;
        let shape = head_shape(self.base.model(), self.config.settings.rank);
        let control = |part: &Part| control(method, part, seed);
        let mut run = Run::new(&self.name, method, seed, self.facts);
        let valid_control = control(&self.valid)?;
        let score = |trainee: Option<&Trainee>| -> Result<PublishedScore, CliError> {
            let scorer = PublishedScorer {
                trainee,
                states: self.states(&self.valid, trainee),
                head_weight: self.base.model().head_weight(),
                control: valid_control.clone(),
                quirks,
            };
            Ok(scorer.score(&self.valid.data))
        };
        let head = heads::published(method, &self.config.settings, quirks, shape);
        let mut adapter = None;
        let scored = if let Some(head) = head {
            let device = context.device()?.autodiff();
            let head = head.init(seed.derive("adapter"), &device);
            let trainee = Trainee::new(head, self.layers(seed, &device)?);
            run.num_trainable_params = trainee.num_trainable_params();
            let setup = PublishedSetup {
                data: &self.train.data,
                states: self.states(&self.train, Some(&trainee)),
                head_weight: self.base.model().head_weight(),
                control: control(&self.train)?,
                quirks: quirks.clone(),
                options: published_options(&self.config.settings),
                seed: seed.derive("training"),
            };
            let selection = if quirks.has(Quirk::BestEpoch) {
                Selection::BestEpoch
            } else {
                Selection::LastEpoch
            };
            let mut trainer = PublishedTrainer::new(setup, trainee);
            let validate = |trainee: &Trainee| Ok(score(Some(trainee))?.loss);
            let Some(fitted) = fit(&mut trainer, method.name(), selection, validate, context)?
            else {
                return Ok(None);
            };
            run.curve = fitted.curve;
            run.chosen_epoch = Some(fitted.epoch.number);
            let scored = score(Some(&fitted.trainee))?;
            adapter = Some(fitted.trainee);
            scored
        } else {
            score(None)?
        };
        run.valid_loss = scored.loss;
        run.units = units(&scored, quirks);
        if self.config.num_answers > 0
            && adapter
                .as_ref()
                .is_none_or(|trainee| trainee.layers.is_none())
        {
            let batches = self.prompt_batches(method, adapter.as_ref());
            let Some(text) = answer(batches, self.base, context)? else {
                return Ok(None);
            };
            run.text = Some(text);
        }
        run.seconds = start.elapsed().as_secs_f64();
        Ok(Some(run))
    }
}

impl Published<'_> {
    /// Prompts in the order of the rows, and what the head adds for each batch of them: LoRA always, the hypernetwork
    /// only where generation has conditions.
    fn prompt_batches(&self, method: Method, trainee: Option<&Trainee>) -> Vec<PromptBatch<'_>> {
        let is_conditioned = !self.options.quirks.has(Quirk::PlainGeneration);
        let batches: Vec<Vec<&Example>> = self
            .answered
            .chunks(self.config.settings.batch_size)
            .map(|batch| batch.iter().collect())
            .collect();
        (0..batches.len())
            .map(|batch_idx| {
                let shown_idx = match method.control() {
                    ConditionControl::None => batch_idx,
                    _ => (batch_idx + 1) % batches.len(),
                };
                let factors = trainee.filter(|_| is_conditioned || method == Method::Lora);
                PromptBatch {
                    factors: factors.and_then(|trainee| {
                        let shown = PromptBatch::mean_embedding(&batches[shown_idx], self.base);
                        trainee.head.factors(0, shown).pop()
                    }),
                    examples: batches[batch_idx].clone(),
                }
            })
            .collect()
    }

    /// LoRA in the layers, where the recipe asks for it.
    fn layers(&self, seed: RunSeed, device: &Device) -> Result<Option<AdaptedLayers>, CliError> {
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

    /// From the cache, unless layers change them in every step.
    fn states<'s>(&'s self, part: &'s Part, trainee: Option<&Trainee>) -> PublishedStates<'s> {
        if trainee.is_some_and(|trainee| trainee.layers.is_some()) {
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
        config: &ReproduceConfig,
        context: &Context,
    ) -> Result<Option<Self>, CliError> {
        let index = StateIndex::of(&data.rows);
        let fingerprint =
            published_fingerprint(&base.states_fingerprint, &data.rows, &index, options);
        let path = cache_path(config.cache_dir.as_ref(), fingerprint)?;
        let cache = with_states_bar("hidden states", index.num_distinct(), context, |observe| {
            cache_published_states(
                base.model(),
                fingerprint,
                &data.rows,
                &index,
                options,
                &path,
                observe,
            )
        });
        Ok(cache?.map(|cache| Self { data, index, cache }))
    }
}

fn row_options(off: &[Quirk], config: &ReproduceConfig, base: &Base) -> RowOptions {
    RowOptions {
        loss: config.loss,
        quirks: Quirks::published().without(off),
        seq_len: config.settings.seq_len,
        pad_id: base.end_of_text(),
    }
}

fn published_options(settings: &PaperSettings) -> PublishedOptions {
    PublishedOptions {
        num_epochs: settings.num_epochs,
        learning_rate: settings.learning_rate,
        weight_decay: settings.weight_decay,
    }
}

fn control(method: Method, part: &Part, seed: RunSeed) -> Result<ControlPlan, CliError> {
    let num_batches = part.data.plan.batches.len();
    let control = method.control();
    if control != ConditionControl::None && num_batches < 2 {
        return Err(CliError::OneBatch);
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

/// The units whose mean is the loss: with equal batches each batch is one token, so to say.
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
