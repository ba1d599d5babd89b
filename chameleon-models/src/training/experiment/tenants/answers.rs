//! The requests of the test tenants, and their answers by each method.

use std::time::Instant;

use burn::tensor::Tensor;
use chameleon_core::{RunSeed, SplitSequence};
use chameleon_hypernet::LayerFactors;
use rand::seq::SliceRandom as _;

use super::{
    Adapted, Exemplars, SeedModules, SplitStates, TenantAnswers, TenantComparison, TenantMethod,
};
use crate::adapter::adaptation::{AdapterModule, HeadAdapter};
use crate::adapter::{AttentionConfig, ExemplarStates, ExemplarUse, StepsConfig};
use crate::data::Example;
use crate::families::causal_lm::{CausalLm, PassEnd, PassInput, SequencePass};
use crate::families::indices::index_tensor;
use crate::training::error::TrainingError;
use crate::training::eval::{ExampleScore, TokenScores};
use crate::training::exemplar_scores::{AnswerScore, score_answers};
use crate::training::exemplars::{ExemplarSplit, rows_by_key};
use crate::training::grouped_examples::GroupedExamples;
use crate::training::known_states::KnownStates;
use crate::training::prepare::Split;
use crate::training::states::HiddenStates;

/// The exemplars of the test tenants, and the requests that are answered.
pub(super) struct TestTexts<'a> {
    pub(super) comparison: &'a TenantComparison<'a>,
    pub(super) split: SplitStates<'a>,
    pub(super) tenants: Vec<TenantRequests>,
    pub(super) num_exemplars: usize,
}

/// One tenant.
pub(super) struct TenantRequests {
    pub(super) split: ExemplarSplit,
}

/// Prompts that are timed for each tenant.
const NUM_TIMED: usize = 2;

impl<'a> TestTexts<'a> {
    pub(super) fn new(
        comparison: &'a TenantComparison<'a>,
        split: &'a Split,
        states: &'a KnownStates,
        num_exemplars: usize,
    ) -> Result<Self, TrainingError> {
        let max_scored = comparison.config.max_scored;
        let tenants: Vec<TenantRequests> = rows_by_key(&split.data.examples)?
            .into_iter()
            .filter_map(|rows| {
                // The same requests for every number of exemplars.
                let num_scored = max_scored.min(rows.len() / 2);
                let (known, scored) = rows.split_at(rows.len() - num_scored);
                let exemplars = known.get(..num_exemplars)?;
                let split = ExemplarSplit::first(&[exemplars, scored].concat(), num_exemplars)?;
                Some(TenantRequests { split })
            })
            .collect();
        if tenants.is_empty() {
            return Err(TrainingError::TooFewExemplars { num_exemplars });
        }
        Ok(Self {
            comparison,
            split: SplitStates { split, states },
            tenants,
            num_exemplars,
        })
    }

    pub(super) fn num_requests(&self) -> usize {
        let tenants = self.tenants.iter();
        tenants.map(|tenant| tenant.split.scored().len()).sum()
    }

    pub(super) fn data(&self) -> &'a GroupedExamples {
        &self.split.split.data
    }

    pub(super) fn states(&self) -> HiddenStates<'a> {
        let model = self.comparison.data.model();
        self.split.states.hidden_states(model)
    }

    pub(super) fn example(&self, row: usize) -> &'a Example {
        &self.data().examples[row]
    }

    /// Whether an exemplar of the tenant has the answer of a row.
    pub(super) fn has_answer(&self, tenant: &TenantRequests, row: usize) -> bool {
        let answer = self.example(row).sequence.scored();
        let mut exemplars = tenant.split.exemplars().iter();
        exemplars.any(|&exemplar| self.example(exemplar).sequence.scored() == answer)
    }

    /// The answers to a tenant's requests.
    pub(super) fn answers(
        &self,
        method: TenantMethod,
        tenant_idx: usize,
        modules: &SeedModules,
    ) -> Result<TenantAnswers, TrainingError> {
        let tenant = &self.tenants[tenant_idx];
        let none = LayerFactors::none();
        let lora = || modules.lora.as_ref().expect("a LoRA was trained");
        Ok(match method {
            TenantMethod::Frozen => self.adapted(tenant, &self.untouched(), &none, 0.0),
            TenantMethod::FrozenInContext => self.in_context(tenant, &self.untouched(), &none),
            TenantMethod::Copy => self.copied(tenant),
            TenantMethod::Lora => self.adapted(tenant, lora(), &lora().start_factors(), 0.0),
            TenantMethod::OwnLora => {
                let start = Instant::now();
                let own = self.own_lora(tenant, lora(), modules.seed)?;
                let seconds = start.elapsed().as_secs_f64();
                self.adapted(tenant, &own, &own.start_factors(), seconds)
            }
            TenantMethod::Adapted(adapted, exemplars) => {
                let rows = self.exemplars(tenant_idx, exemplars, modules.seed);
                let num_exemplars = self.num_exemplars;
                let (module, how) = match adapted {
                    Adapted::Attention => {
                        let attention = AttentionConfig { num_exemplars };
                        (
                            modules.attention.as_ref(),
                            ExemplarUse::Attention(attention),
                        )
                    }
                    Adapted::Steps(num_steps) => {
                        let steps = StepsConfig {
                            num_steps,
                            num_exemplars,
                        };
                        (modules.steps.as_ref(), ExemplarUse::Steps(steps))
                    }
                };
                let module = module.expect("the adapter was trained");
                self.with_exemplars(tenant, module, &rows, how)
            }
        })
    }

    /// The exemplars that a tenant's requests are answered by.
    fn exemplars(&self, tenant_idx: usize, exemplars: Exemplars, seed: RunSeed) -> Vec<usize> {
        let of = |idx: usize| self.tenants[idx].split.exemplars().iter().copied();
        match exemplars {
            Exemplars::Own => of(tenant_idx).collect(),
            Exemplars::OtherTenant => of((tenant_idx + 1) % self.tenants.len()).collect(),
            Exemplars::AllTenants => {
                let mut rows: Vec<usize> = (0..self.tenants.len()).flat_map(of).collect();
                rows.shuffle(&mut seed.stream("exemplars of all tenants"));
                rows.truncate(self.num_exemplars);
                rows
            }
        }
    }

    fn with_exemplars(
        &self,
        tenant: &TenantRequests,
        module: &AdapterModule,
        exemplars: &[usize],
        how: ExemplarUse,
    ) -> TenantAnswers {
        let model = self.comparison.data.model();
        let layers = module.layers.as_ref().expect("layers are adapted");
        let sequences: Vec<&SplitSequence> = exemplars
            .iter()
            .map(|&row| &self.example(row).sequence)
            .collect();
        let start = Instant::now();
        // From the tokens on, as a server would, so that the time counts everything.
        let states = ExemplarStates::of(model, layers.first_layer(), &sequences);
        let layers = module.group_layers(model, &states, how);
        let seconds = start.elapsed().as_secs_f64();
        self.adapted(tenant, module, &layers.for_batch(), seconds)
    }

    /// The answers by a head and with factors of the layers.
    fn adapted(
        &self,
        tenant: &TenantRequests,
        module: &AdapterModule,
        layers: &LayerFactors,
        adapt_seconds: f64,
    ) -> TenantAnswers {
        let model = self.comparison.data.model();
        let rows = tenant.split.scored();
        let scores = score_answers(module, model, self.data(), self.states(), rows, layers);
        let prompts: Vec<&[u32]> = rows
            .iter()
            .map(|&row| self.example(row).sequence.conditioning())
            .collect();
        TenantAnswers {
            scores,
            adapt_seconds,
            num_prompt_tokens: prompts.iter().map(|prompt| prompt.len()).sum(),
            prompt_seconds: self.prompt_seconds(&prompts, layers),
        }
    }

    /// The answers by the exemplars before each request.
    fn in_context(
        &self,
        tenant: &TenantRequests,
        module: &AdapterModule,
        layers: &LayerFactors,
    ) -> TenantAnswers {
        let model = self.comparison.data.model();
        let context: Vec<u32> = tenant
            .split
            .exemplars()
            .iter()
            .flat_map(|&row| self.example(row).sequence.token_ids())
            .copied()
            .collect();
        let mut scores = Vec::new();
        let mut prompts = Vec::new();
        for &row in tenant.split.scored() {
            let example = self.example(row);
            let sequence = &example.sequence;
            let prompt = [&context, sequence.conditioning()].concat();
            let whole = [&prompt, sequence.scored()].concat();
            let sequence = SplitSequence::new(whole, prompt.len())
                .expect("a request and its answer have tokens");
            let longer = GroupedExamples {
                examples: vec![Example::of_prefix(
                    sequence,
                    example.document_idx,
                    example.label_idx,
                    example.scored_bytes,
                )],
                prompt_embeddings: self.data().prompt_embeddings.clone().slice([row..=row]),
                assignments: vec![self.data().assignments[row]],
                plan: chameleon_cluster::BatchPlan::default(),
            };
            scores.extend(score_answers(
                module,
                model,
                &longer,
                HiddenStates::Layers(model),
                &[0],
                layers,
            ));
            prompts.push(prompt);
        }
        let prompts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
        TenantAnswers {
            scores,
            adapt_seconds: 0.0,
            num_prompt_tokens: prompts.iter().map(|prompt| prompt.len()).sum(),
            prompt_seconds: self.prompt_seconds(&prompts, layers),
        }
    }

    /// The answers of the exemplars whose prompts have the most similar mean token embedding, all centred by the mean
    /// of the exemplars.
    fn copied(&self, tenant: &TenantRequests) -> TenantAnswers {
        let device = self.comparison.data.device();
        let embeddings = |rows: &[usize]| {
            let rows = index_tensor(rows.iter().copied(), &device);
            self.data().prompt_embeddings.clone().select(0, rows)
        };
        let (exemplars, scored) = (tenant.split.exemplars(), tenant.split.scored());
        let known = embeddings(exemplars);
        let mean = known.clone().mean_dim(0);
        let unit = |rows: Tensor<2>| {
            let length = rows.clone().square().sum_dim(1).sqrt() + 1e-12;
            rows / length
        };
        let similarities =
            unit(embeddings(scored) - mean.clone()).matmul(unit(known - mean).transpose()); // [requests, exemplars]
        let nearest = similarities.argmax(1).into_data();
        let scores = nearest
            .iter::<i64>()
            .zip(scored)
            .map(|(nearest, &row)| {
                let nearest = exemplars[usize::try_from(nearest).expect("an index")];
                let example = self.example(row);
                let answer = example.sequence.scored();
                AnswerScore {
                    tokens: TokenScores {
                        total: ExampleScore {
                            nll: 0.0,
                            num_tokens: answer.len(),
                            num_bytes: example.scored_bytes,
                            document_idx: example.document_idx,
                            cluster_idx: self.data().assignments[row],
                            label_idx: example.label_idx,
                        },
                        token_nlls: Vec::new(),
                    },
                    is_exact: self.example(nearest).sequence.scored() == answer,
                }
            })
            .collect();
        TenantAnswers {
            scores,
            adapt_seconds: 0.0,
            num_prompt_tokens: 0,
            prompt_seconds: 0.0,
        }
    }

    /// A module that changes nothing.
    fn untouched(&self) -> AdapterModule {
        let data = self.comparison.data;
        let shape = crate::adapter::head_shape(data.model(), 1);
        let config = chameleon_hypernet::LoraConfig::new(shape);
        let head = config.init(RunSeed(0), &data.device());
        AdapterModule::head_only(HeadAdapter::Lora(head))
    }

    /// Seconds to read one prompt, alone.
    fn prompt_seconds(&self, prompts: &[&[u32]], layers: &LayerFactors) -> f64 {
        let model = self.comparison.data.model();
        let device = model.head_weight().device();
        let start = Instant::now();
        let timed = prompts.iter().take(NUM_TIMED);
        let num_timed = timed.len();
        for prompt in timed {
            let states = model.forward(SequencePass {
                input: PassInput::TokenIds(
                    chameleon_core::TokenBatch::from_rows(&[prompt], 0, &device).token_ids,
                ),
                end: PassEnd::Head,
                factors: layers,
            });
            let [_, seq_len, hidden_size] = states.dims();
            let last = states
                .slice([0..1, seq_len - 1..seq_len])
                .reshape([1, hidden_size]);
            let _ = model.logits(last.repeat_dim(0, 2)).into_data();
        }
        start.elapsed().as_secs_f64() / num_timed.max(1) as f64
    }
}
