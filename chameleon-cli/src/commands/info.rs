//! `chameleon info`: the devices and features of this build, and the contents of a model or an adapter.

use std::path::Path;

use chameleon_core::device::BackendKind;
use chameleon_hypernet::{ConditionScaling, GeneratorConfig};
use chameleon_models::adapter::{
    AdapterConfig, HeadAdaptation, LayerKind, LayerRange, MemoryDescription, Recipe,
};
use chameleon_models::families::ModelSizes;
use chameleon_models::{CausalLm, LoadedModel, adapter as adapter_folder};
use serde::Serialize;

use crate::{
    args::InfoArgs,
    commands::{
        Context,
        adapter::{self, memory_size},
    },
    errors::{CliError, ExitStatus},
    output::{Column, Page, Results, Table},
    resolve::MemoryUse,
};

pub(crate) fn run(args: &InfoArgs, context: &Context) -> Result<ExitStatus, CliError> {
    // Opening it checks that it works.
    context.device()?;
    let folder = args.adapter.adapter.as_deref();
    let adapter = folder.map(AdapterInfo::read).transpose()?;
    let model = args
        .model
        .as_deref()
        .map(|text| {
            let loaded = context.load_model(text)?;
            if let Some(folder) = folder {
                // Loading it checks that it fits the model.
                adapter::load(folder, &loaded, MemoryUse::Used)?;
            }
            Ok::<_, CliError>(ModelInfo::of(text, &loaded))
        })
        .transpose()?;
    let info = Info {
        version: env!("CARGO_PKG_VERSION"),
        burn: BURN_VERSION,
        devices: BackendKind::compiled_in()
            .iter()
            .map(ToString::to_string)
            .collect(),
        device: context.settings.device.to_string(),
        model,
        adapter,
    };
    context.output.results(&info)?;
    Ok(ExitStatus::Done)
}

/// The workspace pins Burn exactly; a test compares this with the manifest.
pub(crate) const BURN_VERSION: &str = "0.22.1";

#[derive(Debug, Serialize)]
struct Info {
    version: &'static str,
    burn: &'static str,
    devices: Vec<String>,
    device: String,
    model: Option<ModelInfo>,
    adapter: Option<AdapterInfo>,
}

#[derive(Debug, Serialize)]
struct ModelInfo {
    name: String,
    architecture: String,
    fingerprint: String,
    num_params: usize,
    sizes: ModelSizes,
    tokenizer_vocab_size: usize,
    has_chat_template: bool,
    tensors: TensorCounts,
}

/// How the tensors of the file were used.
#[derive(Debug, Serialize)]
struct TensorCounts {
    loaded: usize,
    unused: Vec<String>,
    ignored: Vec<String>,
}

impl ModelInfo {
    fn of(name: &str, loaded: &LoadedModel) -> Self {
        let identity = &loaded.identity;
        let report = &loaded.report;
        Self {
            name: name.to_owned(),
            architecture: identity.architecture.clone(),
            fingerprint: identity.fingerprint.clone(),
            num_params: loaded.num_params(),
            sizes: *loaded.model.sizes(),
            tokenizer_vocab_size: loaded.tokenizer.vocab_size(),
            has_chat_template: loaded.chat_template.is_some(),
            tensors: TensorCounts {
                loaded: report.loaded.len(),
                unused: report.unused.clone(),
                ignored: report.ignored.clone(),
            },
        }
    }

    fn write_text(&self, page: &mut Page) {
        page.heading(&self.name);
        let mut table = Table::new([Column::text(""), Column::text("")]);
        let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
        let sizes = &self.sizes;
        row("architecture", self.architecture.clone());
        row("parameters", grouped(self.num_params));
        row("layers", sizes.num_layers.to_string());
        row(
            "hidden size",
            format!(
                "{}, feed-forward {}",
                sizes.hidden_size, sizes.intermediate_size
            ),
        );
        row(
            "heads",
            format!(
                "{} of {}, {} for keys and values",
                sizes.num_heads, sizes.head_dim, sizes.num_kv_heads
            ),
        );
        row(
            "vocabulary",
            format!(
                "{}, tokenizer {}",
                sizes.vocab_size, self.tokenizer_vocab_size
            ),
        );
        row("context", format!("{} tokens", sizes.max_seq_len));
        row(
            "chat template",
            if self.has_chat_template { "yes" } else { "no" }.to_owned(),
        );
        row("fingerprint", self.fingerprint.clone());
        let tensors = &self.tensors;
        row(
            "tensors",
            format!(
                "{} loaded, {} ignored, {} unused",
                tensors.loaded,
                tensors.ignored.len(),
                tensors.unused.len()
            ),
        );
        for name in &tensors.unused {
            row("unused", name.clone());
        }
        page.table(&table);
    }
}

/// The description of an adapter folder.
#[derive(Debug, Serialize)]
struct AdapterInfo {
    name: String,
    method: &'static str,
    num_head_params: usize,
    /// Keys and tokens of the memory, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_bytes: Option<usize>,
    #[serde(flatten)]
    config: AdapterConfig,
}

impl AdapterInfo {
    fn read(folder: &Path) -> Result<Self, CliError> {
        let config = adapter_folder::read_config(folder)?;
        Ok(Self {
            name: folder.display().to_string(),
            method: method(&config.head),
            num_head_params: config.head.num_trainable_params(),
            memory_bytes: config.memory.as_ref().map(MemoryDescription::num_bytes),
            config,
        })
    }

    fn write_text(&self, page: &mut Page) {
        page.heading(&self.name);
        let mut table = Table::new([Column::text(""), Column::text("")]);
        let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
        let config = &self.config;
        row("method", self.method.to_owned());
        row("rank", config.head.shape().rank.to_string());
        row(
            "parameters",
            format!("{} in the head", grouped(self.num_head_params)),
        );
        if let Some(layers) = &config.layers {
            row(
                "layers",
                format!(
                    "rank {} on {} of {}, {}",
                    layers.rank,
                    layers.targets.join(", "),
                    match layers.layers {
                        LayerRange::All => "all layers".to_owned(),
                        range => format!("layers {range}"),
                    },
                    match layers.kind {
                        LayerKind::Core => "with generated cores",
                        _ => "the same for all groups",
                    }
                ),
            );
        }
        row("groups", config.num_clusters.to_string());
        if let Some(memory) = &config.memory {
            row("memory", memory_size(&memory.config, memory.num_entries));
        }
        let standardised = match config.prompts.scaling {
            ConditionScaling::Standardised => ", standardised",
            _ => "",
        };
        let representation = config.prompts.representation;
        row("prompts", format!("{representation}{standardised}"));
        row("condition", config.condition.to_string());
        let Recipe::Causal { prefix, seq_len } = config.recipe;
        row(
            "recipe",
            format!("causal, prompts of {prefix} tokens in texts of {seq_len}"),
        );
        let training = &config.training;
        row(
            "training",
            format!(
                "{} epochs at {}, seed {}",
                training.num_epochs, training.learning_rate, config.seed.0
            ),
        );
        row("base", config.base.to_string());
        page.table(&table);
    }
}

fn method(head: &HeadAdaptation) -> &'static str {
    match head {
        HeadAdaptation::Lora { .. } => "lora",
        HeadAdaptation::Experts { .. } => "experts",
        HeadAdaptation::Hyper { config } => match config.generator {
            GeneratorConfig::Dense(_) => "dense",
            GeneratorConfig::Core(_) => "core",
        },
        // The enum is non-exhaustive; reading a folder rejects kinds unknown to this build.
        _ => "unknown",
    }
}

/// A count with separated thousands.
fn grouped(count: usize) -> String {
    let digits = count.to_string();
    let first = digits.len() % 3;
    let mut text = digits[..first].to_owned();
    for group in digits.as_bytes()[first..].chunks(3) {
        if !text.is_empty() {
            text.push(',');
        }
        text.extend(group.iter().copied().map(char::from));
    }
    text
}

impl Results for Info {
    fn write_text(&self, page: &mut Page) {
        let mut table = Table::new([Column::text(""), Column::text("")]);
        let mut row = |name: &str, value: &str| table.row([name.to_owned(), value.to_owned()]);
        row("chameleon", self.version);
        row("burn", self.burn);
        row("devices", &self.devices.join(", "));
        row("device", &self.device);
        page.table(&table);
        if let Some(model) = &self.model {
            model.write_text(page);
        }
        if let Some(adapter) = &self.adapter {
            adapter.write_text(page);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_burn_is_the_one_in_the_manifest() {
        let manifest = include_str!("../../../Cargo.toml");
        assert!(manifest.contains(&format!("burn = {{ version = \"={BURN_VERSION}\"")));
    }

    #[test]
    fn thousands_are_apart() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(134_515_008), "134,515,008");
    }
}
