//! Groups by key: what a handful of answered requests is worth for tenants that no training has seen.
//!
//! Every method gets the same first exemplars of each test tenant and answers the same last requests. An answer is
//! exact if greedy decoding gives it, the token that ends it included.
//!
//! ```text
//! OUT/runs/lora-seed-S/       LoRA over all training tenants
//! OUT/runs/attention-seed-S/  LoRA with attention to exemplars, over all training tenants
//! OUT/runs/steps-seed-S/      a start and learned steps, over all training tenants
//! ```

mod answers;
mod method;
mod own_lora;

use std::path::{Path, PathBuf};
use std::time::Instant;

use burn::module::Module as _;
use chameleon_core::RunSeed;
use serde::Serialize;

use self::answers::{TenantRequests, TestTexts};
pub use self::method::{Adapted, Exemplars, TenantMethod};
use super::bootstrap::{Interval, PairedSequence, paired_interval};
use crate::adapter::adaptation::AdapterModule;
use crate::adapter::{Adapter, CONFIG_FILE, StepsConfig};
use crate::training::config::TrainingConfig;
use crate::training::error::TrainingError;
use crate::training::exemplar_scores::AnswerScore;
use crate::training::known_states::KnownStates;
use crate::training::method::{Head, Method};
use crate::training::new_adapter::autodiff_device;
use crate::training::observer::Observer;
use crate::training::prepare::{Split, TrainingData};
use crate::training::session::{MemoryStage, Start, TrainingRun};
use crate::training::training_state;

/// Settings of a comparison of tenants.
#[derive(Debug, Clone)]
pub struct TenantConfig {
    /// Adapter, learned steps and optimizer of every training.
    pub training: TrainingConfig,
    /// At least one, each once.
    pub seeds: Vec<RunSeed>,
    /// The methods, in the order of the table.
    pub methods: Vec<TenantMethod>,
    /// Exemplars of a tenant, one table for each number.
    pub num_exemplars: Vec<usize>,
    /// Requests of a tenant that are answered: its last ones.
    pub max_scored: usize,
}

/// The trainings and scores of a comparison of tenants.
pub struct TenantComparison<'a> {
    /// Its settings.
    pub config: &'a TenantConfig,
    /// Training, validation and test tenants.
    pub data: &'a TrainingData,
    /// The folder of its runs.
    pub out: &'a Path,
    /// Receives progress and can interrupt.
    pub observer: &'a dyn Observer,
}

/// The results: one row for each method and number of exemplars.
#[derive(Debug, Clone, Serialize)]
pub struct TenantReport {
    /// Test tenants.
    pub num_tenants: usize,
    /// Answered requests of all tenants together.
    pub num_requests: usize,
    /// Seeds of the trainings.
    pub seeds: Vec<u64>,
    /// Learned steps.
    pub steps: StepsConfig,
    /// The rows.
    pub rows: Vec<TenantRow>,
    /// Seconds of this call.
    pub seconds: f64,
}

/// The results of one method with one number of exemplars.
#[derive(Debug, Clone, Serialize)]
pub struct TenantRow {
    /// The method.
    pub method: TenantMethod,
    /// Exemplars of each tenant.
    pub num_exemplars: usize,
    /// Share of exact answers, 0 to 1, with an interval over tenants and seeds.
    pub exact: Interval,
    /// Of the answers that no exemplar has, so that none can be copied; `None` if every answer can be.
    pub exact_new: Option<Interval>,
    /// Nats per token of the answers; `None` where an answer is copied.
    pub loss: Option<f64>,
    /// Seconds from the exemplars of a tenant to its first answer, without the request itself.
    pub adapt_seconds: f64,
    /// Tokens of a prompt, exemplars included where they are part of it.
    pub prompt_tokens: f64,
    /// Seconds to read a prompt, one at a time.
    pub prompt_seconds: f64,
}

/// The answers of one tenant by one method and seed.
#[derive(Debug)]
struct TenantAnswers {
    scores: Vec<AnswerScore>,
    adapt_seconds: f64,
    num_prompt_tokens: usize,
    prompt_seconds: f64,
}

impl std::fmt::Debug for TenantComparison<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TenantComparison")
            .field("config", self.config)
            .field("out", &self.out)
            .finish_non_exhaustive()
    }
}

impl TenantComparison<'_> {
    /// Trains the adapters that are missing and answers the requests of the test tenants with every method.
    ///
    /// # Errors
    ///
    /// When no test tenant has enough requests, a file cannot be read or written, or the observer interrupts; then the
    /// same call continues it.
    pub fn run(&self) -> Result<TenantReport, TrainingError> {
        let start = Instant::now();
        let test = self.data.test.as_ref().ok_or(TrainingError::NoGroups)?;
        let states = self
            .data
            .known_states(test, &self.config.training, self.observer)?;
        let mut rows = Vec::new();
        let modules = self.modules()?;
        let mut size = (0, 0);
        for &num_exemplars in &self.config.num_exemplars {
            let texts = TestTexts::new(self, test, &states, num_exemplars)?;
            size = (texts.tenants.len(), texts.num_requests());
            for &method in &self.config.methods {
                rows.push(self.row(method, &texts, &modules)?);
            }
        }
        Ok(TenantReport {
            num_tenants: size.0,
            num_requests: size.1,
            seeds: self.config.seeds.iter().map(|seed| seed.0).collect(),
            steps: self.config.training.steps,
            rows,
            seconds: start.elapsed().as_secs_f64(),
        })
    }

    fn row(
        &self,
        method: TenantMethod,
        texts: &TestTexts<'_>,
        modules: &[SeedModules],
    ) -> Result<TenantRow, TrainingError> {
        let num_trainings = if method.is_trained() {
            modules.len()
        } else {
            1
        };
        let mut by_seed = Vec::new();
        for modules in &modules[..num_trainings] {
            let mut answers = Vec::new();
            for tenant_idx in 0..texts.tenants.len() {
                if self.observer.is_interrupted() {
                    return Err(TrainingError::Interrupted);
                }
                answers.push(texts.answers(method, tenant_idx, modules)?);
            }
            by_seed.push(answers);
        }
        let row = summarise(method, texts, &by_seed);
        self.observer.note(&format!(
            "{method}, {} exemplars: {:.1} % exact [{:.1}, {:.1}]",
            row.num_exemplars,
            100.0 * row.exact.mean,
            100.0 * row.exact.low,
            100.0 * row.exact.high
        ));
        Ok(row)
    }

    /// The trained adapters of every seed.
    fn modules(&self) -> Result<Vec<SeedModules>, TrainingError> {
        let needs = |head: Head| {
            self.config
                .methods
                .iter()
                .any(|method| method.needs() == Some(head))
        };
        self.config
            .seeds
            .iter()
            .map(|&seed| {
                Ok(SeedModules {
                    lora: needs(Head::Lora)
                        .then(|| self.trained(Head::Lora, seed))
                        .transpose()?,
                    attention: needs(Head::Attention)
                        .then(|| self.trained(Head::Attention, seed))
                        .transpose()?,
                    steps: needs(Head::Steps)
                        .then(|| self.trained(Head::Steps, seed))
                        .transpose()?,
                    seed,
                })
            })
            .collect()
    }

    /// The adapter of a training, which is run or continued if it is not finished.
    fn trained(&self, head: Head, seed: RunSeed) -> Result<AdapterModule, TrainingError> {
        let name = format!("{}-seed-{}", Method::of(head), seed.0);
        let out: PathBuf = self.out.join("runs").join(name);
        let has_state = training_state::exists(&out);
        if has_state || !out.join(CONFIG_FILE).exists() {
            TrainingRun {
                head,
                config: &self.config.training,
                memory: MemoryStage::Skip,
                out: &out,
                start: if has_state {
                    Start::Resume
                } else {
                    Start::Fresh
                },
                checkpoint_every: Some(50),
                seed,
            }
            .run(self.data, self.observer)?;
        }
        let device = autodiff_device(self.data.model()).without_autodiff();
        let identity = &self.data.loaded.identity;
        Ok(Adapter::load(&out, self.data.model(), identity, &device)?
            .module
            .valid())
    }
}

/// The adapters that were trained with one seed.
struct SeedModules {
    lora: Option<AdapterModule>,
    attention: Option<AdapterModule>,
    steps: Option<AdapterModule>,
    seed: RunSeed,
}

fn summarise(
    method: TenantMethod,
    texts: &TestTexts<'_>,
    by_seed: &[Vec<TenantAnswers>],
) -> TenantRow {
    let is_new = |tenant: &TenantRequests, row: usize| !texts.has_answer(tenant, row);
    let exact = |only_new: bool| -> Vec<PairedSequence> {
        let mut sequences = Vec::new();
        for (tenant_idx, tenant) in texts.tenants.iter().enumerate() {
            for (request_idx, &row) in tenant.split.scored().iter().enumerate() {
                if only_new && !is_new(tenant, row) {
                    continue;
                }
                let of_seed = |answers: &Vec<TenantAnswers>| {
                    f64::from(u8::from(answers[tenant_idx].scores[request_idx].is_exact))
                };
                sequences.push(PairedSequence {
                    differences: by_seed.iter().map(of_seed).collect(),
                    num_tokens: 1,
                    unit_idx: tenant_idx,
                });
            }
        }
        sequences
    };
    let interval = |sequences: Vec<PairedSequence>| paired_interval(&sequences, RunSeed(0));
    let answers = || by_seed.iter().flatten();
    let num_tenants = answers().count() as f64;
    let mean = |value: fn(&TenantAnswers) -> f64| answers().map(value).sum::<f64>() / num_tenants;
    let totals =
        answers()
            .flat_map(|answers| &answers.scores)
            .fold((0.0, 0), |(nll, num_tokens), score| {
                let total = &score.tokens.total;
                (nll + total.nll, num_tokens + total.num_tokens)
            });
    let new = exact(true);
    TenantRow {
        method,
        num_exemplars: texts.num_exemplars,
        exact: interval(exact(false)),
        exact_new: (!new.is_empty()).then(|| interval(new)),
        loss: (method != TenantMethod::Copy).then(|| totals.0 / totals.1 as f64),
        adapt_seconds: mean(|answers| answers.adapt_seconds),
        prompt_tokens: mean(|answers| {
            answers.num_prompt_tokens as f64 / answers.scores.len() as f64
        }),
        prompt_seconds: mean(|answers| answers.prompt_seconds),
    }
}

/// The states of a split.
pub(super) struct SplitStates<'a> {
    pub(super) split: &'a Split,
    pub(super) states: &'a KnownStates,
}
