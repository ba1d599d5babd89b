//! One LoRA for one tenant: the costly ceiling of everything that is generated.

use burn::module::Module as _;
use chameleon_cluster::{BatchPlan, PlannedBatch};
use chameleon_core::RunSeed;
use chameleon_hypernet::{Condition, ConditionControl};

use super::answers::{TenantRequests, TestTexts};
use crate::adapter::adaptation::AdapterModule;
use crate::families::causal_lm::CausalLm;
use crate::training::error::TrainingError;
use crate::training::eval::ScoreSummary;
use crate::training::exemplar_scores::score_answers;
use crate::training::grouped_examples::GroupedExamples;
use crate::training::setup::TrainSetup;
use crate::training::train::TrainOptions;

/// Optimizer steps at most.
const MAX_STEPS: usize = 40;
/// Optimizer steps between two validations.
const VALIDATE_EVERY: usize = 4;
/// Every so many exemplars, one is held out to choose the number of steps.
const HELD_OUT: usize = 4;
/// The learning rate of the pilot, which was the best of three.
const LEARNING_RATE: f64 = 2e-3;

impl TestTexts<'_> {
    /// The LoRA of all tenants, trained on with the exemplars of one of them; a quarter of these chooses the number of
    /// steps.
    pub(super) fn own_lora(
        &self,
        tenant: &TenantRequests,
        start: &AdapterModule,
        seed: RunSeed,
    ) -> Result<AdapterModule, TrainingError> {
        let data = self.data();
        let exemplars = tenant.split.exemplars();
        let (mut train, mut valid) = (Vec::new(), Vec::new());
        for (idx, &row) in exemplars.iter().enumerate() {
            if idx % HELD_OUT == HELD_OUT - 1 {
                valid.push(row);
            } else {
                train.push(row);
            }
        }
        let model = self.comparison.data.model();
        let own = GroupedExamples {
            plan: BatchPlan {
                batches: vec![PlannedBatch {
                    cluster_idx: 0,
                    rows: train,
                }],
            },
            ..data.clone()
        };
        let setup = TrainSetup {
            data: &own,
            hidden_states: self.states(),
            head: model.head(),
            centroids: self.comparison.data.centroids.clone(),
            condition: Condition::Centroid,
            control: ConditionControl::None.plan(1, seed)?,
            exemplars: None,
            options: TrainOptions {
                num_epochs: MAX_STEPS,
                learning_rate: LEARNING_RATE,
                warmup: 0.1,
                weight_decay: 0.0,
                max_grad_norm: 1.0,
            },
            seed,
        };
        let mut trainer = setup.trainer(start.clone().train())?;
        let mut best = (f64::INFINITY, start.clone());
        while let Some(report) = trainer.next_step()? {
            if !report.step.is_multiple_of(VALIDATE_EVERY) {
                continue;
            }
            let module = trainer.module().clone().valid();
            let loss = if valid.is_empty() {
                report.loss
            } else {
                let layers = module.start_factors();
                let scores = score_answers(&module, model, data, self.states(), &valid, &layers);
                let totals = scores.iter().map(|score| &score.tokens.total);
                totals.collect::<ScoreSummary>().mean_nll()
            };
            if loss < best.0 {
                best = (loss, module);
            }
        }
        Ok(best.1)
    }
}
