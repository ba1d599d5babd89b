//! `adapter.safetensors`: every trained tensor, and the centroids.
//!
//! A trained module numbers its adapted layers; the file names them: `layers.20.self_attn.q_proj.a`.

use std::collections::BTreeSet;
use std::path::Path;

use burn::store::ModuleSnapshot;
use burn::tensor::{Bytes, DType, Device, Tensor, TensorData};
use burn_pack::Tensor as StoredTensor;
use chameleon_hypernet::{AdaptedLayers, LayerModule};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

use super::config::AdapterConfig;
use super::error::AdapterError;
use super::{Adapter, FORMAT_VERSION, empty_module, read};
use crate::adapter::adaptation::AdapterModule;
use crate::adapter::exemplar_use::ExemplarUse;
use crate::families::language_model::LanguageModel;

const CENTROIDS: &str = "centroids";
/// Standard deviations, which are divisors.
const SPREADS: [&str; 2] = ["head.condition_norm.std", "prompt_norm.std"];
/// Before the number of a pair of factors, in the names that the trained module has.
const FACTORS: &str = "layers.factors.";

pub(crate) fn tensor_bytes(module: &AdapterModule, centroids: &Tensor<2>) -> Vec<u8> {
    let names = ModuleNames::of(module);
    let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = module
        .collect(None, None, true)
        .into_iter()
        .map(|tensor| {
            let (name, _, shape, _, bytes) = tensor
                .into_parts()
                .expect("a trained tensor can be read from its device");
            (names.in_file(&name), shape.to_vec(), bytes.to_vec())
        })
        .collect();
    let data = centroids.to_data().convert::<f32>();
    tensors.push((
        CENTROIDS.to_owned(),
        centroids.dims().to_vec(),
        data.as_bytes().to_vec(),
    ));
    let views = tensors.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes)
            .expect("trained tensors are f32 and as long as their shape says");
        (name, view)
    });
    safetensors::serialize(views, None).expect("names are unique")
}

pub(crate) fn load_tensors(
    path: &Path,
    mut config: AdapterConfig,
    model: &LanguageModel,
    device: &Device,
) -> Result<Adapter, AdapterError> {
    let bytes = read(path)?;
    let file = SafeTensors::deserialize(&bytes).map_err(|source| AdapterError::Tensors {
        path: path.to_owned(),
        source,
    })?;
    // Nothing is allocated for a configuration with more parameters than the file can hold.
    let num_params = num_params(&config, model)?;
    if num_params > bytes.len() / size_of::<f32>() {
        return Err(mismatch(
            path,
            format!("the configuration has {num_params} parameters, more than the file can hold"),
        ));
    }
    let mut module = empty_module(&config, model, device)?;
    let names = ModuleNames::of(&module);
    let own_names: Vec<String> = module
        .collect(None, None, true)
        .into_iter()
        .map(|tensor| tensor.name)
        .collect();
    let expected: BTreeSet<String> = own_names.iter().map(|name| names.in_file(name)).collect();
    let mut stored = Vec::new();
    let mut centroids = None;
    let mut found = BTreeSet::new();
    for (name, view) in file.iter() {
        let values = finite_f32(path, name, &view)?;
        if name == CENTROIDS {
            let shape = [config.num_clusters, config.base.sizes.hidden_size];
            if view.shape() != shape {
                return Err(mismatch(
                    path,
                    format!("`{name}` is {:?}, expected {shape:?}", view.shape()),
                ));
            }
            centroids = Some(Tensor::from_data(TensorData::new(values, shape), device));
            continue;
        }
        if SPREADS.contains(&name) && values.iter().any(|&value| value <= 0.0) {
            return Err(mismatch(path, format!("`{name}` is not positive")));
        }
        let name = match config.format_version {
            1 => name_of_version_1(name),
            _ => name.to_owned(),
        };
        stored.push(StoredTensor::new(
            names.in_module(&name),
            DType::F32,
            view.shape().to_vec(),
            None,
            Bytes::from_bytes_vec(view.data().to_vec()),
        ));
        found.insert(name);
    }
    check_names(path, &expected, &found)?;
    let result = module.apply(stored, None, None, true);
    if let Some(error) = result.errors.first() {
        return Err(mismatch(path, error.to_string()));
    }
    let centroids = centroids.ok_or_else(|| mismatch(path, format!("missing `{CENTROIDS}`")))?;
    // It is written again in this version.
    config.format_version = FORMAT_VERSION;
    Ok(Adapter {
        config,
        module,
        centroids,
        memory: None,
    })
}

fn num_params(config: &AdapterConfig, model: &LanguageModel) -> Result<usize, AdapterError> {
    let layers = match &config.layers {
        None => 0,
        Some(layers) => layers
            .config(model, config.head.num_features())?
            .num_trainable_params(),
    };
    let learned = config.exemplars.and_then(ExemplarUse::steps);
    let steps = match (learned, &config.layers) {
        (Some(steps), Some(layers)) => steps.num_steps * 2 * layers.modules(model)?.len(),
        _ => 0,
    };
    Ok(config.head.num_trainable_params() + layers + steps)
}

pub(super) fn check_names(
    path: &Path,
    expected: &BTreeSet<String>,
    found: &BTreeSet<String>,
) -> Result<(), AdapterError> {
    let listed = |names: Vec<&String>| {
        names
            .into_iter()
            .map(|name| format!("`{name}`"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let missing: Vec<_> = expected.difference(found).collect();
    if !missing.is_empty() {
        return Err(mismatch(path, format!("missing {}", listed(missing))));
    }
    let extra: Vec<_> = found.difference(expected).collect();
    if !extra.is_empty() {
        return Err(mismatch(path, format!("unexpected {}", listed(extra))));
    }
    Ok(())
}

/// The names of the adapted modules in a file.
struct ModuleNames(Vec<String>);

impl ModuleNames {
    fn of(module: &AdapterModule) -> Self {
        let modules = module.layers.iter().flat_map(AdaptedLayers::modules);
        let name = |module: &LayerModule| format!("layers.{}.{}", module.layer_idx, module.path);
        Self(modules.map(name).collect())
    }

    /// `layers.factors.3.a` -> `layers.20.self_attn.q_proj.a`
    fn in_file(&self, name: &str) -> String {
        name.strip_prefix(FACTORS)
            .and_then(|rest| rest.split_once('.'))
            .and_then(|(module_idx, factor)| {
                let module = self.0.get(module_idx.parse::<usize>().ok()?)?;
                Some(format!("{module}.{factor}"))
            })
            .unwrap_or_else(|| name.to_owned())
    }

    /// The inverse of [`in_file`](Self::in_file).
    fn in_module(&self, name: &str) -> String {
        name.rsplit_once('.')
            .and_then(|(module, factor)| {
                let module_idx = self.0.iter().position(|own| own == module)?;
                Some(format!("{FACTORS}{module_idx}.{factor}"))
            })
            .unwrap_or_else(|| name.to_owned())
    }
}

/// `trunk.layers.20.self_attn.q_proj.weight.lora.a`, or `trunk.h.` for GPT-2, under its current name.
fn name_of_version_1(name: &str) -> String {
    name.strip_prefix("trunk.")
        .and_then(|rest| rest.split_once('.'))
        .and_then(|(_, rest)| rest.split_once(".weight.lora."))
        .map_or_else(
            || name.to_owned(),
            |(module, factor)| format!("layers.{module}.{factor}"),
        )
}

pub(super) fn mismatch(path: &Path, reason: String) -> AdapterError {
    AdapterError::Mismatch {
        path: path.to_owned(),
        reason,
    }
}

pub(super) fn finite_f32(
    path: &Path,
    name: &str,
    view: &TensorView<'_>,
) -> Result<Vec<f32>, AdapterError> {
    if view.dtype() != Dtype::F32 {
        return Err(mismatch(
            path,
            format!("`{name}` is {:?}, expected F32", view.dtype()),
        ));
    }
    let values: Vec<f32> = view
        .data()
        .chunks_exact(4)
        .map(|bytes| f32::from_le_bytes(bytes.try_into().expect("chunks of four")))
        .collect();
    if values.iter().all(|value| value.is_finite()) {
        Ok(values)
    } else {
        Err(AdapterError::NotFinite {
            path: path.to_owned(),
            name: name.to_owned(),
        })
    }
}
