//! Scoring text with the frozen model.

use std::error::Error;
use std::path::Path;

use burn::module::Module as _;
use burn::tensor::Device;
use chameleon_core::RunSeed;
use chameleon_hypernet::{Condition, ConditionControl};
use chameleon_models::CausalLm as _;
use chameleon_models::training::{HiddenStates, ScoreSummary, Scorer};
use serde_json::json;

use crate::{inputs, rounds};

/// Rows of the workload `eval-forward`: all there are.
pub(crate) const NUM_ROWS: usize = 4;
/// Tokens of each.
pub(crate) const ROW_LEN: usize = 512;

/// Returns the loss per token.
pub(crate) fn run(folder: &Path, num_rows: usize) -> Result<(), Box<dyn Error>> {
    let loaded = inputs::model(folder, &Device::flex())?;
    let mut rows = inputs::tokens(folder, "eval.json")?;
    rows.truncate(num_rows);
    let data = inputs::grouped(&loaded, rows, num_rows)?;
    let model = loaded.model.no_grad();
    let scorer = Scorer {
        module: None,
        hidden_states: HiddenStates::Layers(&model),
        head: model.head(),
        centroids: data.prompt_embeddings.clone().mean_dim(0),
        condition: Condition::Batch,
        control: ConditionControl::None.plan(1, RunSeed(1))?,
    };
    let num_tokens: usize = data.examples.iter().map(|row| row.sequence.len()).sum();
    rounds::serve(&json!({ "tokens": num_tokens }), || {
        let summary: ScoreSummary = scorer.score(&data, |_| {}).iter().collect();
        Ok(summary.mean_nll())
    })
}
