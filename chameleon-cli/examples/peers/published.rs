//! The published recipe's shape: a dense generator at the head, several epochs, the trunk frozen.
//!
//! A round is a whole run. Here the trunk is passed once and its states are kept; the peer passes it in every epoch,
//! as the reference script does.

use std::error::Error;
use std::path::Path;

use burn::module::Module as _;
use burn::tensor::Device;
use chameleon_core::RunSeed;
use chameleon_hypernet::{Condition, ConditionControl, GeneratorKind, HyperLoraHeadConfig};
use chameleon_models::CausalLm as _;
use chameleon_models::adapter::{AdapterModule, HeadAdaptation, head_shape};
use chameleon_models::training::{
    HiddenStates, Proceed, TrainOptions, TrainSetup, cache_hidden_states,
};
use serde_json::json;

use crate::{inputs, rounds};

const NUM_EPOCHS: usize = 10;
const RANK: usize = 4;
const SEED: RunSeed = RunSeed(1);

/// Returns the mean loss of the last epoch.
pub(crate) fn run(folder: &Path) -> Result<(), Box<dyn Error>> {
    let device = Device::flex();
    let loaded = inputs::model(folder, &device)?;
    let data = inputs::grouped(&loaded, inputs::tokens(folder, "lines.json")?, 8)?;
    let fingerprint = loaded.identity.fingerprint.clone();
    let shape = head_shape(&loaded.model, RANK);
    let head = HeadAdaptation::Hyper {
        config: HyperLoraHeadConfig::preset(GeneratorKind::Dense, shape.in_size, shape),
    };
    let setup = json!({ "trainable": head.num_trainable_params(), "epochs": NUM_EPOCHS });
    let model = loaded.model.no_grad();
    rounds::serve(&setup, || {
        // A new folder, so that nothing is found on disk.
        let folder = tempfile::tempdir()?;
        let states = cache_hidden_states(
            &model,
            &fingerprint,
            &data.examples,
            &folder.path().join("states"),
            |_| Proceed::Continue,
        )?
        .ok_or("the pass was not asked to stop")?;
        let train_setup = TrainSetup {
            data: &data,
            hidden_states: HiddenStates::Cached(&states),
            head: model.head(),
            centroids: data.prompt_embeddings.clone().mean_dim(0),
            condition: Condition::Batch,
            control: ConditionControl::None.plan(1, SEED)?,
            exemplars: None,
            options: TrainOptions {
                num_epochs: NUM_EPOCHS,
                learning_rate: 1e-7,
                warmup: 0.0,
                weight_decay: 0.0,
                max_grad_norm: 1.0,
            },
            seed: SEED,
        };
        let module = head.init(SEED, &device.clone().autodiff());
        let mut trainer = train_setup.trainer(AdapterModule::head_only(module))?;
        let mut losses = Vec::new();
        while let Some(report) = trainer.next_step()? {
            losses.push(report.loss);
        }
        let last = &losses[losses.len() - data.plan.batches.len()..];
        Ok(last.iter().sum::<f64>() / last.len() as f64)
    })
}
