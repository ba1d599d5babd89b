//! Many prompts decoded together, greedily: by the base model, with the generated heads of several groups, or with
//! what the groups remember as well.
//!
//! Prompts go through the engine, as those of `serve` and `batch` do: grouping is part of a round, and the factors of
//! a group are kept from one round to the next. Those are written to a file, from which peers take them.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;

use burn::module::{Module as _, ModuleMapper, Param};
use burn::tensor::{Device, Int, Tensor, TensorData};
use chameleon_core::LoraFactors;
use chameleon_hypernet::memory::{GroupMemory, KeyProjection, MemoryGate};
use chameleon_hypernet::{Condition, GroupLayers, LayerModule};
use chameleon_models::LoadedModel;
use chameleon_models::adapter::{
    Adapter, AdapterConfig, AdapterMemory, GroupMemories, LayerAdaptation, LayerKind, MemoryConfig,
    Recipe, embed_prompts, empty_module,
};
use chameleon_models::engine::{EndOfText, Engine, EngineOptions, Request};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;

use crate::{inputs, rounds, train_step};

/// Tokens of a prompt.
const PROMPT_LEN: usize = 8;
/// The token that the first prompt begins with; the others follow without a gap.
const FIRST_TOKEN: u32 = 100;
/// Different tokens that follow the entries of a memory, about as many as a text of its length has.
const MEMORY_TOKENS: usize = 8192;
/// The name of the adapter.
const NAME: &str = "groups";

/// The prompts that are decoded together.
#[derive(Debug, Clone, Copy)]
#[expect(
    clippy::struct_field_names,
    reason = "counts begin with `num_` everywhere"
)]
pub(crate) struct Batch {
    pub(crate) num_prompts: usize,
    pub(crate) num_groups: usize,
    /// Tokens that a round adds to each prompt.
    pub(crate) num_tokens: usize,
}

/// The prompts of the workload `decode-groups`.
pub(crate) const BATCH: Batch = Batch {
    num_prompts: 16,
    num_groups: 8,
    num_tokens: 64,
};

/// The adapter that decodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answers {
    /// The base model.
    Base,
    /// An adapter with a generated head.
    Adapted,
    /// The same with generated cores in every linear module of every layer.
    AdaptedThroughout,
    /// The same with a full memory for every group.
    Remembering,
}

/// Returns the sum of the new token ids.
pub(crate) fn run(folder: &Path, batch: Batch, answers: Answers) -> Result<(), Box<dyn Error>> {
    let loaded = inputs::model(folder, &Device::flex())?;
    let prompts = batch.prompts();
    let targets: &[&str] = match answers {
        Answers::AdaptedThroughout => &train_step::LLAMA,
        _ => &[],
    };
    let mut adapter = adapter(&loaded, &prompts, batch.num_groups, targets)?;
    match answers {
        Answers::Base => {}
        Answers::Adapted => write_factors(&folder.join("groups.safetensors"), &adapter)?,
        Answers::AdaptedThroughout => {
            write_factors(&folder.join("groups_throughout.safetensors"), &adapter)?;
        }
        Answers::Remembering => adapter = remembering(adapter),
    }
    let options = EngineOptions {
        max_batch_rows: batch.num_prompts,
        ..EngineOptions::default()
    };
    let engine = Engine::start(loaded, options)?;
    engine.load_adapter(NAME, adapter)?;
    let request = |prompt: &Vec<u32>| Request {
        adapter: (answers != Answers::Base).then(|| NAME.to_owned()),
        end_of_text: EndOfText::Ignored,
        ..Request::new(prompt.clone(), batch.num_tokens)
    };
    let setup = json!({ "prompts": batch.num_prompts, "groups": batch.num_groups, "tokens": batch.num_tokens });
    rounds::serve(&setup, || {
        let tickets = prompts
            .iter()
            .map(|prompt| engine.submit(request(prompt)))
            .collect::<Result<Vec<_>, _>>()?;
        let mut sum = 0.0;
        for ticket in tickets {
            let token_ids = ticket.wait()?.token_ids;
            sum += token_ids.into_iter().map(f64::from).sum::<f64>();
        }
        Ok(sum)
    })
}

impl Batch {
    fn prompts(self) -> Vec<Vec<u32>> {
        let tokens: Vec<u32> = (FIRST_TOKEN..)
            .take(self.num_prompts * PROMPT_LEN)
            .collect();
        tokens.chunks(PROMPT_LEN).map(<[u32]>::to_vec).collect()
    }
}

/// An adapter with every trainable parameter moved, and a centroid between the prompts of each group.
pub(crate) fn adapter(
    loaded: &LoadedModel,
    prompts: &[Vec<u32>],
    num_groups: usize,
    targets: &[&str],
) -> Result<Adapter, Box<dyn Error>> {
    let step = train_step::config(loaded, targets);
    let layers = step.layers.clone().map(|layers| LayerAdaptation {
        kind: LayerKind::Core,
        ..layers
    });
    let config = AdapterConfig {
        recipe: Recipe::Causal {
            prefix: PROMPT_LEN,
            seq_len: 128,
        },
        layers: layers.filter(|_| !targets.is_empty()),
        condition: Condition::Centroid,
        num_clusters: num_groups,
        ..step
    };
    let device = Device::flex().autodiff();
    let module = empty_module(&config, &loaded.model, &device)?;
    let module = module.map(&mut Moved).valid();
    let prompts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
    let embeddings = embed_prompts(&loaded.model, &prompts);
    let [num_prompts, hidden_size] = embeddings.dims();
    // Prompt `i` belongs to group `i % num_groups`.
    let centroids = embeddings
        .reshape([num_prompts / num_groups, num_groups, hidden_size])
        .mean_dim(0)
        .squeeze_dim(0); // [groups, hidden]
    Ok(Adapter {
        config,
        module,
        centroids,
        memory: None,
    })
}

/// A fresh adapter answers as the base model does; this one does not.
struct Moved;

impl ModuleMapper for Moved {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !param.is_require_grad() {
            return param;
        }
        param.map(|values| {
            let shape = values.dims();
            let noise = inputs::noise(shape.iter().product(), 0.2);
            let moved = Tensor::from_data(TensorData::new(noise, shape), &values.device());
            moved.require_grad()
        })
    }
}

/// The same with as much for every group as it remembers at most.
fn remembering(adapter: Adapter) -> Adapter {
    let device = adapter.centroids.device();
    let sizes = &adapter.config.base.sizes;
    let config = MemoryConfig::for_model(sizes);
    let map = inputs::noise(sizes.hidden_size * config.key_size, 1.0);
    let projection = KeyProjection::stored(
        Tensor::zeros([sizes.hidden_size], &device),
        Tensor::from_data(
            TensorData::new(map, [sizes.hidden_size, config.key_size]),
            &device,
        ),
    );
    let states = inputs::noise(config.max_entries * sizes.hidden_size, 1.0);
    let states = TensorData::new(states, [config.max_entries, sizes.hidden_size]);
    let keys = projection.keys(Tensor::from_data(states, &device));
    let next_tokens: Vec<i64> = (0..config.max_entries)
        .map(|entry| (entry * 37 % MEMORY_TOKENS) as i64)
        .collect();
    let next_tokens = TensorData::new(next_tokens, [config.max_entries]);
    let next_tokens = Tensor::<1, Int>::from_data(next_tokens, &device);
    let num_groups = adapter.config.num_clusters;
    let gate = MemoryGate {
        temperature: 20.0,
        weights: vec![0.0; 5],
        group_bias: vec![-2.0; num_groups],
    };
    let groups = vec![GroupMemory::new(keys, next_tokens); num_groups];
    let memories = GroupMemories { projection, groups };
    adapter.with_memory(AdapterMemory::new(config, gate, memories))
}

/// The factors of every group as PEFT orders them, scales included, by group and module: `N.MODULE.a` `[rank, in]`,
/// `N.MODULE.b` `[out, rank]`.
fn write_factors(path: &Path, adapter: &Adapter) -> Result<(), Box<dyn Error>> {
    let mut tensors = BTreeMap::new();
    let mut insert = |module: String, factors: LoraFactors| {
        let a = factors.a.transpose() * factors.scale;
        tensors.insert(format!("{module}.a"), a);
        tensors.insert(format!("{module}.b"), factors.b.transpose());
    };
    let producer = adapter.module.factor_producer();
    for group_idx in 0..adapter.config.num_clusters {
        let condition = adapter.centroids.clone().narrow(0, group_idx, 1);
        for group in producer.groups(group_idx, condition) {
            insert(format!("{group_idx}.lm_head"), group.head);
            for (module, factors) in group.layers.iter().flat_map(GroupLayers::module_factors) {
                let LayerModule {
                    layer_idx, path, ..
                } = module;
                insert(
                    format!("{group_idx}.model.layers.{layer_idx}.{path}"),
                    factors,
                );
            }
        }
    }
    let bytes = tensors.into_iter().map(|(name, tensor)| {
        let shape = tensor.dims().to_vec();
        let values = tensor.into_data();
        let bytes: Vec<u8> = values.iter::<f32>().flat_map(f32::to_le_bytes).collect();
        (name, shape, bytes)
    });
    let bytes: Vec<_> = bytes.collect();
    let views = bytes
        .iter()
        .map(|(name, shape, bytes)| Ok((name, TensorView::new(Dtype::F32, shape.clone(), bytes)?)))
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?;
    chameleon_models::files::atomic_file::write(path, &safetensors::serialize(views, None)?)?;
    Ok(())
}
