//! Training steps: LoRA in every linear module of every layer, and a generated head.

use std::error::Error;
use std::path::Path;

use burn::module::Module as _;
use burn::tensor::Device;
use chameleon_core::RunSeed;
use chameleon_hypernet::{Condition, ConditionControl, GeneratorKind, HyperLoraHeadConfig};
use chameleon_models::adapter::{
    AdapterConfig, FORMAT_VERSION, HeadAdaptation, LayerAdaptation, LayerKind, LayerRange,
    PromptEncoding, Recipe, empty_module, head_shape,
};
use chameleon_models::training::{HiddenStates, TrainOptions, TrainSetup};
use chameleon_models::{CausalLm as _, LoadedModel};
use serde_json::json;

use crate::{inputs, rounds};

/// Linear modules of a layer, all of which are adapted.
pub(crate) const LLAMA: [&str; 7] = [
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "gate_proj",
    "up_proj",
    "down_proj",
];
/// The same of GPT-2.
pub(crate) const GPT2: [&str; 4] = ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"];

const RANK: usize = 8;
const SEED: RunSeed = RunSeed(1);

pub(crate) fn run(folder: &Path, targets: &[&str]) -> Result<(), Box<dyn Error>> {
    let device = Device::flex();
    let loaded = inputs::model(folder, &device)?;
    let data = inputs::grouped(&loaded, inputs::tokens(folder, "batch.json")?, 4)?;
    let config = config(&loaded, targets);
    let module = empty_module(&config, &loaded.model, &device.clone().autodiff())?;
    let setup = json!({ "trainable": module.num_trainable_params() });
    let model = loaded.model.no_grad();
    let train_setup = TrainSetup {
        data: &data,
        hidden_states: HiddenStates::Layers(&model),
        head: model.head(),
        centroids: data.prompt_embeddings.clone().mean_dim(0),
        condition: Condition::Batch,
        control: ConditionControl::None.plan(1, SEED)?,
        exemplars: None,
        options: config.training,
        seed: SEED,
    };
    let mut trainer = train_setup.trainer(module)?;
    rounds::serve(&setup, || {
        let report = trainer.next_step()?.ok_or("more rounds than steps")?;
        Ok(report.loss)
    })
}

/// An adapter of these modules of every layer, with a generated head.
pub(crate) fn config(loaded: &LoadedModel, targets: &[&str]) -> AdapterConfig {
    let shape = head_shape(&loaded.model, RANK);
    AdapterConfig {
        format_version: FORMAT_VERSION,
        base: loaded.identity.clone(),
        recipe: Recipe::Causal {
            prefix: 1,
            seq_len: 128,
        },
        head: HeadAdaptation::Hyper {
            config: HyperLoraHeadConfig::preset(GeneratorKind::Core, shape.in_size, shape),
        },
        layers: Some(LayerAdaptation {
            targets: targets.iter().map(|&name| name.to_owned()).collect(),
            layers: LayerRange::All,
            kind: LayerKind::Lora,
            rank: RANK,
            scale: 1.0,
        }),
        prompts: PromptEncoding::default(),
        condition: Condition::Batch,
        num_clusters: 1,
        // So small a rate that later rounds compute almost what the first one did.
        training: TrainOptions {
            num_epochs: 100_000,
            learning_rate: 1e-6,
            warmup: 0.0,
            weight_decay: 0.0,
            max_grad_norm: 1.0,
        },
        seed: SEED,
        memory: None,
        exemplars: None,
    }
}
