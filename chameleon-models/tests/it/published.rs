//! The recipe `as-published` against an implementation of its description in PyTorch.

use std::path::PathBuf;

use burn::module::{Module as _, Param};
use burn::tensor::{Device, Tensor, TensorData};
use chameleon_cluster::{BatchPlan, PlannedBatch};
use chameleon_core::{FactorShape, RunSeed};
use chameleon_hypernet::{
    ConditionControl, Generator, GeneratorConfig, GeneratorKind, HyperLoraHeadConfig, LoraConfig,
};
use chameleon_models::adapter::{AdapterModule, HeadAdapter};
use chameleon_models::training::recipes::{
    PublishedData, PublishedLoss, PublishedObjective, PublishedRow, PublishedScorer,
    PublishedStates, PublishedText, Quirk, Quirks, RowOptions, StateIndex, cache_published_states,
    embed_rows, published_fingerprint, published_rows,
};
use chameleon_models::training::{HiddenCache, LearningRate, Proceed, Schedule, Trainer};
use chameleon_models::{Architecture, CausalLm as _, LanguageModel};
use serde::Deserialize;
use serde_json::Value;

use crate::fixture::{Array, checkpoint, read_arrays};

/// The largest difference allowed, relative to the loss.
const TOLERANCE: f64 = 1e-4;

#[derive(Deserialize)]
struct Expected {
    seq_len: usize,
    prefix: usize,
    pad_id: u32,
    rank: usize,
    alpha: f64,
    learning_rate: f64,
    weight_decay: f64,
    hidden_sizes: Vec<usize>,
    train_texts: Vec<Vec<u32>>,
    valid_texts: Vec<Vec<u32>>,
    train_batches: Vec<Vec<usize>>,
    valid_batches: Vec<Vec<usize>>,
    config: Value,
    variants: std::collections::BTreeMap<String, Variant>,
}

#[derive(Deserialize)]
struct Variant {
    loss: PublishedLoss,
    off: Vec<Quirk>,
    frozen: f64,
    lora: Run,
    dense: Run,
}

#[derive(Deserialize)]
struct Run {
    before: f64,
    train: Vec<f64>,
    after: f64,
}

fn fixture(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/fixtures/published", name]
        .iter()
        .collect()
}

struct Bench {
    expected: Expected,
    model: LanguageModel,
    weights: std::collections::HashMap<String, Array>,
    /// Holds the caches.
    folder: tempfile::TempDir,
}

struct Side {
    data: PublishedData,
    cache: HiddenCache,
    index: StateIndex,
}

impl Bench {
    fn new() -> Self {
        let json = std::fs::read_to_string(fixture("expected.json")).unwrap();
        let expected: Expected = serde_json::from_str(&json).unwrap();
        let config = Architecture::Gpt2.config(&expected.config).unwrap();
        let mut model = config.init(&Device::flex()).unwrap();
        let weights = read_arrays(&fixture("base.safetensors"));
        let report = model.import(&checkpoint(&expected.config, &weights));
        assert!(report.is_complete(), "{report:?}");
        Self {
            expected,
            model: model.no_grad(),
            weights: read_arrays(&fixture("weights.safetensors")),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn side(
        &self,
        texts: &[Vec<u32>],
        batches: &[Vec<usize>],
        options: &RowOptions,
        name: &str,
    ) -> Side {
        let prefix = self.expected.prefix;
        let texts: Vec<PublishedText> = texts
            .iter()
            .map(|text| PublishedText::of_prefix(text.clone(), prefix))
            .collect();
        let rows = published_rows(&texts, options);
        let row_of = |source_idx: &usize| {
            rows.iter()
                .position(|row: &PublishedRow| row.source_idx() == *source_idx)
        };
        let plan = BatchPlan {
            batches: batches
                .iter()
                .map(|batch| batch.iter().filter_map(row_of).collect::<Vec<_>>())
                .filter(|rows| !rows.is_empty())
                .enumerate()
                .map(|(cluster_idx, rows)| PlannedBatch { cluster_idx, rows })
                .collect(),
        };
        let index = StateIndex::of(&rows);
        let fingerprint = published_fingerprint("tiny", &rows, &index, options);
        let path = self.folder.path().join(name);
        let cache = cache_published_states(
            &self.model,
            fingerprint,
            &rows,
            &index,
            options,
            &path,
            |_| Proceed::Continue,
        );
        let embeddings = embed_rows(&self.model, &rows);
        Side {
            data: PublishedData::new(rows, &embeddings, plan),
            cache: cache.unwrap().unwrap(),
            index,
        }
    }

    fn tensor<const D: usize>(&self, name: &str, device: &Device) -> Param<Tensor<D>> {
        let array = &self.weights[name];
        let data = TensorData::new(array.values.clone(), array.shape.clone());
        Param::from_tensor(Tensor::from_data(data, device).require_grad())
    }

    fn shape(&self) -> FactorShape {
        let sizes = self.model.sizes();
        FactorShape {
            in_size: sizes.hidden_size,
            out_size: sizes.vocab_size,
            rank: self.expected.rank,
        }
    }

    fn lora(&self, scale: f64, device: &Device) -> HeadAdapter {
        let config = LoraConfig::new(self.shape()).with_scale(scale);
        let mut head = config.init(RunSeed(1), device);
        head.a = self.tensor("lora.a", device);
        head.b = self.tensor("lora.b", device);
        HeadAdapter::Lora(head)
    }

    fn dense(&self, scale: f64, device: &Device) -> HeadAdapter {
        let hidden_size = self.model.sizes().hidden_size;
        let kind = GeneratorKind::DenseAsPublished;
        let mut config = HyperLoraHeadConfig::preset(kind, hidden_size, self.shape());
        if let GeneratorConfig::Dense(dense) = &mut config.generator {
            dense.hidden_sizes.clone_from(&self.expected.hidden_sizes);
            dense.dropout = 0.0;
            dense.scale = scale;
        }
        let mut head = config.init(RunSeed(1), device);
        if let Generator::Dense(dense) = &mut head.generator {
            for (layer_idx, layer) in dense.network.layers.iter_mut().enumerate() {
                layer.weight = self.tensor(&format!("layers.{layer_idx}.weight"), device);
                layer.bias = Some(self.tensor(&format!("layers.{layer_idx}.bias"), device));
            }
        }
        HeadAdapter::Hyper(head)
    }

    fn check(&self, name: &str) {
        let expected = &self.expected;
        let variant = &expected.variants[name];
        let options = RowOptions {
            loss: variant.loss,
            quirks: Quirks::published().without(&variant.off),
            seq_len: expected.seq_len,
            pad_id: expected.pad_id,
        };
        let side =
            |texts, batches, side| self.side(texts, batches, &options, &format!("{name}-{side}"));
        let train = side(&expected.train_texts, &expected.train_batches, "train");
        let valid = side(&expected.valid_texts, &expected.valid_batches, "valid");
        let score = |module: Option<&AdapterModule>| {
            let scorer = PublishedScorer {
                module,
                states: valid.states(&self.model, &options),
                head: self.model.head(),
                control: valid.control(),
                quirks: &options.quirks,
            };
            scorer.score(&valid.data).loss
        };
        let frozen = PublishedScorer {
            module: None,
            states: valid.cached(),
            head: self.model.head(),
            control: valid.control(),
            quirks: &options.quirks,
        };
        let frozen = frozen.score(&valid.data).loss;
        // Many states for each row are kept in half precision.
        let rounding = match options.loss {
            PublishedLoss::Last => TOLERANCE,
            PublishedLoss::Full => 1e-3,
        };
        assert_near(&format!("{name} frozen"), frozen, variant.frozen, rounding);

        let device = Device::flex().autodiff();
        let scale = if options.quirks.has(Quirk::DirectAlpha) {
            expected.alpha
        } else {
            expected.alpha / expected.rank as f64
        };
        for (method, head, run) in [
            ("lora", self.lora(scale, &device), &variant.lora),
            ("dense", self.dense(scale, &device), &variant.dense),
        ] {
            let what = format!("{name} {method}");
            let module = AdapterModule::head_only(head);
            let before = score(Some(&module.valid()));
            assert_near(&format!("{what} before"), before, run.before, TOLERANCE);
            let objective = PublishedObjective {
                data: &train.data,
                states: train.states(&self.model, &options),
                head: self.model.head(),
                control: train.control(),
                quirks: options.quirks.clone(),
                seed: RunSeed(1),
            };
            let schedule = Schedule {
                num_epochs: run.train.len(),
                learning_rate: LearningRate::Constant(expected.learning_rate),
                weight_decay: expected.weight_decay,
                max_grad_norm: f64::INFINITY,
                seed: RunSeed(1),
            };
            let mut trainer = Trainer::new(Box::new(objective), schedule, module);
            for (step, &expected) in run.train.iter().enumerate() {
                let loss = trainer.next_step().unwrap().unwrap().loss;
                assert_near(&format!("{what} step {step}"), loss, expected, TOLERANCE);
            }
            let after = score(Some(&trainer.module().valid()));
            assert_near(&format!("{what} after"), after, run.after, TOLERANCE);
        }
    }
}

impl Side {
    fn cached(&self) -> PublishedStates<'_> {
        PublishedStates::Cached {
            cache: &self.cache,
            index: &self.index,
        }
    }

    fn states<'a>(&'a self, model: &'a LanguageModel, options: &RowOptions) -> PublishedStates<'a> {
        match options.loss {
            PublishedLoss::Last => self.cached(),
            PublishedLoss::Full => PublishedStates::Layers {
                model,
                visibility: options.visibility(),
            },
        }
    }

    fn control(&self) -> chameleon_hypernet::ControlPlan {
        ConditionControl::None
            .plan(self.data.plan.batches.len(), RunSeed(1))
            .unwrap()
    }
}

fn assert_near(what: &str, found: f64, expected: f64, tolerance: f64) {
    assert!(
        (found - expected).abs() <= tolerance * expected.abs(),
        "{what}: found {found}, expected {expected}"
    );
}

#[test]
fn steps_and_validation_are_those_of_pytorch_with_every_quirk_on_and_off() {
    let bench = Bench::new();
    for name in bench.expected.variants.keys() {
        bench.check(name);
    }
}
