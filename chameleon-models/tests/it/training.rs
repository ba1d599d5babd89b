//! Training, interrupting, saving and scoring an adapter of a tiny model.

use std::path::Path;

use burn::module::Module as _;
use burn::tensor::{Device, Tensor};
use chameleon_cluster::{BatchPlan, PlannedBatch};
use chameleon_core::{FactorShape, RunSeed, SplitSequence};
use chameleon_hypernet::{
    Condition, ConditionControl, ConditionScaling, GeneratorKind, HyperLoraHeadConfig, LoraConfig,
};
use chameleon_models::adapter::{
    Adapter, AdapterConfig, AdapterError, AdapterModule, HeadAdaptation, LayerAdaptation,
    LayerKind, LayerRange, ModelIdentity, PromptEncoding, Recipe, Representation,
};
use chameleon_models::data::Example;
use chameleon_models::families::DecoderConfig;
use chameleon_models::training::training_state::{self, TrainingParts, TrainingState};
use chameleon_models::training::{
    Cursor, GroupedExamples, HiddenCache, HiddenStates, Proceed, ScoreSummary, Scorer, StepReport,
    TrainError, TrainOptions, TrainSetup, Trainer, TrainingError, cache_entering_states,
    cache_hidden_states, embed_examples,
};
use chameleon_models::{CausalLm as _, LanguageModel, adapter};
use rand::RngExt as _;

const NUM_EXAMPLES: usize = 12;
const NUM_CLUSTERS: usize = 2;
const SEED: RunSeed = RunSeed(5);

struct Bench {
    model: LanguageModel,
    identity: ModelIdentity,
    data: GroupedExamples,
    centroids: Tensor<2>,
    device: Device,
}

impl Bench {
    fn new() -> Self {
        let device = Device::flex();
        device.seed(1);
        let model = DecoderConfig::tiny_llama().init(&device).unwrap().no_grad();
        let vocab = u32::try_from(model.sizes().vocab_size).unwrap();
        let mut rng = SEED.stream("examples");
        let examples: Vec<Example> = (0..NUM_EXAMPLES)
            .map(|idx| {
                // The two groups use different halves of the vocabulary.
                let offset = if idx % NUM_CLUSTERS == 0 {
                    0
                } else {
                    vocab / 2
                };
                let token_ids = (0..10 + idx % 3)
                    .map(|_| offset + rng.random_range(0..6))
                    .collect();
                let sequence = SplitSequence::new(token_ids, 4).unwrap();
                Example::of_prefix(sequence, idx, Some(idx % NUM_CLUSTERS), 20)
            })
            .collect();
        let prompt_embeddings = embed_examples(&model, &examples);
        let cluster_rows = |cluster_idx: usize| -> Vec<usize> {
            (0..NUM_EXAMPLES)
                .filter(|row| row % NUM_CLUSTERS == cluster_idx)
                .collect()
        };
        let plan = BatchPlan {
            batches: (0..NUM_CLUSTERS)
                .flat_map(|cluster_idx| {
                    cluster_rows(cluster_idx)
                        .chunks(3)
                        .map(|rows| PlannedBatch {
                            cluster_idx,
                            rows: rows.to_vec(),
                        })
                        .collect::<Vec<_>>()
                })
                .collect(),
        };
        let centroids = Tensor::cat(
            (0..NUM_CLUSTERS)
                .map(|cluster_idx| {
                    prompt_embeddings
                        .clone()
                        .slice([cluster_idx..cluster_idx + 1])
                })
                .collect(),
            0,
        );
        Self {
            identity: ModelIdentity::of(&model),
            data: GroupedExamples {
                assignments: (0..NUM_EXAMPLES).map(|row| row % NUM_CLUSTERS).collect(),
                examples,
                prompt_embeddings,
                plan,
            },
            model,
            centroids,
            device,
        }
    }

    fn shape(&self) -> FactorShape {
        FactorShape {
            in_size: self.model.sizes().hidden_size,
            out_size: self.model.sizes().vocab_size,
            rank: 2,
        }
    }

    fn core(&self) -> HeadAdaptation {
        let mut config = HyperLoraHeadConfig::preset(
            GeneratorKind::Core,
            self.model.sizes().hidden_size,
            self.shape(),
        );
        if let chameleon_hypernet::GeneratorConfig::Core(core) = &mut config.generator {
            // Dropout draws from the process-wide generator, which tests running beside this one move.
            core.dropout = 0.0;
        }
        HeadAdaptation::Hyper { config }
    }

    fn lora(&self) -> HeadAdaptation {
        HeadAdaptation::Lora {
            config: LoraConfig::new(self.shape()),
        }
    }

    fn config(&self, head: HeadAdaptation, layers: Option<LayerAdaptation>) -> AdapterConfig {
        AdapterConfig {
            format_version: adapter::FORMAT_VERSION,
            base: self.identity.clone(),
            recipe: Recipe::Causal {
                prefix: 4,
                seq_len: 12,
            },
            head,
            layers,
            prompts: PromptEncoding::default(),
            condition: Condition::Batch,
            num_clusters: NUM_CLUSTERS,
            training: TrainOptions {
                num_epochs: 6,
                learning_rate: 0.02,
                warmup: 0.1,
                weight_decay: 0.01,
                max_grad_norm: 1.0,
            },
            seed: SEED,
            memory: None,
            exemplars: None,
        }
    }

    fn setup<'a>(&'a self, config: &AdapterConfig, states: HiddenStates<'a>) -> TrainSetup<'a> {
        TrainSetup {
            data: &self.data,
            hidden_states: states,
            head: self.model.head(),
            centroids: self.centroids.clone(),
            condition: config.condition,
            control: ConditionControl::None.plan(NUM_CLUSTERS, SEED).unwrap(),
            exemplars: None,
            options: config.training.clone(),
            seed: config.seed,
        }
    }

    fn cache(&self, folder: &Path) -> HiddenCache {
        cache_hidden_states(
            &self.model,
            &self.identity.fingerprint,
            &self.data.examples,
            &folder.join("states"),
            |_| Proceed::Continue,
        )
        .unwrap()
        .unwrap()
    }

    fn scores(&self, module: Option<&AdapterModule>, states: HiddenStates<'_>) -> ScoreSummary {
        let scorer = Scorer {
            module,
            hidden_states: states,
            head: self.model.head(),
            centroids: self.centroids.clone(),
            condition: Condition::Batch,
            control: ConditionControl::None.plan(NUM_CLUSTERS, SEED).unwrap(),
        };
        scorer.score(&self.data, |_| {}).iter().collect()
    }

    fn untrained(&self, config: &AdapterConfig) -> AdapterModule {
        let device = self.device.clone().autodiff();
        adapter::empty_module(config, &self.model, &device).unwrap()
    }
}

fn finish(trainer: &mut Trainer<'_>) -> Vec<u64> {
    std::iter::from_fn(|| trainer.next_step().unwrap())
        .map(|report: StepReport| report.loss.to_bits())
        .collect()
}

/// Trains to the end at once, then once more with a save, a load and a new trainer in the middle.
fn interruption_changes_nothing(
    bench: &Bench,
    config: &AdapterConfig,
    states: HiddenStates<'_>,
) -> Adapter {
    let folder = tempfile::tempdir().unwrap();
    let mut straight = bench
        .setup(config, states)
        .trainer(bench.untrained(config))
        .unwrap();
    let expected = finish(&mut straight);
    assert_eq!(expected.len(), straight.num_steps());

    let mut first = bench
        .setup(config, states)
        .trainer(bench.untrained(config))
        .unwrap();
    let mut losses: Vec<u64> = (0..9)
        .map(|_| first.next_step().unwrap().unwrap().loss.to_bits())
        .collect();
    training_state::save(
        folder.path(),
        TrainingParts {
            config,
            module: first.module(),
            centroids: &bench.centroids,
            optimizer_state: &first.optimizer_state().unwrap(),
            state: &TrainingState {
                cursor: first.cursor(),
                run_fingerprint: "same".to_owned(),
                best_valid_nll: None,
            },
        },
    )
    .unwrap();
    drop(first);
    let device = bench.device.clone().autodiff();
    let found = training_state::load(folder.path(), &bench.model, &bench.identity, &device)
        .unwrap()
        .unwrap();
    let mut second = bench
        .setup(config, states)
        .resume(
            found.adapter.module,
            found.optimizer_state,
            found.state.cursor,
        )
        .unwrap();
    losses.extend(finish(&mut second));
    assert_eq!(losses, expected, "the resumed losses differ");

    Adapter {
        config: config.clone(),
        module: second.module().valid(),
        centroids: bench.centroids.clone(),
        memory: None,
    }
}

#[test]
fn a_core_head_learns_and_resumes_bit_for_bit_and_reads_back() {
    let bench = Bench::new();
    let folder = tempfile::tempdir().unwrap();
    let cache = bench.cache(folder.path());
    let states = HiddenStates::Cached(&cache);
    let config = bench.config(bench.core(), None);
    let adapter = interruption_changes_nothing(&bench, &config, states);
    let frozen = bench.scores(None, states);
    let trained = bench.scores(Some(&adapter.module), states);
    assert!(
        trained.mean_nll() < frozen.mean_nll() - 0.1,
        "{} is not well below {}",
        trained.mean_nll(),
        frozen.mean_nll()
    );

    let path = folder.path().join("adapter");
    adapter.save(&path).unwrap();
    let loaded = Adapter::load(&path, &bench.model, &bench.identity, &bench.device).unwrap();
    assert_eq!(loaded.config, adapter.config);
    assert_eq!(bench.scores(Some(&loaded.module), states), trained);
}

#[test]
fn lora_inside_the_layers_learns_and_resumes_bit_for_bit() {
    let bench = Bench::new();
    let layers = LayerAdaptation {
        targets: vec!["q_proj".to_owned(), "down_proj".to_owned()],
        layers: LayerRange::All,
        kind: LayerKind::Lora,
        rank: 2,
        scale: 1.0,
    };
    let config = bench.config(bench.lora(), Some(layers));
    let adapter = interruption_changes_nothing(&bench, &config, HiddenStates::Layers(&bench.model));
    for factors in &adapter.module.layers.as_ref().unwrap().factors {
        let largest: f32 = factors.b.val().abs().max().into_scalar();
        assert!(largest > 0.0, "the layers learn, not the head alone");
    }
    let untrained = bench.untrained(&config).valid();
    let before = bench.scores(Some(&untrained), HiddenStates::Layers(&bench.model));
    let after = bench.scores(Some(&adapter.module), HiddenStates::Layers(&bench.model));
    assert!(after.mean_nll() < before.mean_nll() - 0.1);
    let folder = tempfile::tempdir().unwrap();
    adapter.save(folder.path()).unwrap();
    let loaded =
        Adapter::load(folder.path(), &bench.model, &bench.identity, &bench.device).unwrap();
    assert_eq!(
        bench.scores(Some(&loaded.module), HiddenStates::Layers(&bench.model)),
        after
    );
}

fn core_layers() -> LayerAdaptation {
    LayerAdaptation {
        targets: vec!["v_proj".to_owned(), "gate_proj".to_owned()],
        layers: LayerRange::Between { first: 1, end: 2 },
        kind: LayerKind::Core,
        rank: 2,
        scale: 1.0,
    }
}

#[test]
fn cores_inside_the_layers_learn_and_resume_bit_for_bit() {
    let bench = Bench::new();
    for condition in [Condition::Centroid, Condition::Prompt] {
        let mut config = bench.config(bench.core(), Some(core_layers()));
        config.condition = condition;
        config.prompts = PromptEncoding {
            representation: Representation::Hidden { num_layers: 1 },
            scaling: ConditionScaling::Standardised,
        };
        let states = HiddenStates::Layers(&bench.model);
        let adapter = interruption_changes_nothing(&bench, &config, states);
        let untrained = bench.untrained(&config);
        let layers = config.layers.as_ref().unwrap();
        let layers = layers.config(&bench.model, config.head.num_features());
        assert_eq!(
            untrained.num_trainable_params(),
            config.head.num_trainable_params() + layers.unwrap().num_trainable_params()
        );
        let frozen = bench.scores(None, states);
        let before = bench.scores(Some(&untrained.valid()), states);
        assert_eq!(before, frozen, "the first forward is the base model's");
        let after = bench.scores(Some(&adapter.module), states);
        assert!(after.mean_nll() < before.mean_nll() - 0.1);

        let folder = tempfile::tempdir().unwrap();
        adapter.save(folder.path()).unwrap();
        let (model, identity) = (&bench.model, &bench.identity);
        let loaded = Adapter::load(folder.path(), model, identity, &bench.device).unwrap();
        assert_eq!(loaded.config, config);
        assert_eq!(bench.scores(Some(&loaded.module), states), after);
        let prompts: [&[u32]; 1] = [&[1, 2, 3]];
        assert_eq!(
            loaded.embed_prompts(model, &prompts).into_data(),
            adapter.embed_prompts(model, &prompts).into_data()
        );
    }
}

#[test]
fn steps_from_cached_states_below_the_adapted_layer_are_those_of_all_layers() {
    let bench = Bench::new();
    let folder = tempfile::tempdir().unwrap();
    let entering = cache_entering_states(
        &bench.model,
        &bench.identity.fingerprint,
        &bench.data.examples,
        1,
        &folder.path().join("entering"),
        |_| Proceed::Continue,
    );
    let entering = entering.unwrap().unwrap();
    let config = bench.config(bench.core(), Some(core_layers()));
    let losses = |states| -> Vec<f64> {
        let mut trainer = bench
            .setup(&config, states)
            .trainer(bench.untrained(&config))
            .unwrap();
        std::iter::from_fn(|| trainer.next_step().unwrap())
            .map(|report| report.loss)
            .collect()
    };
    let whole = losses(HiddenStates::Layers(&bench.model));
    let upper = losses(HiddenStates::UpperLayers {
        model: &bench.model,
        entering: &entering,
        first_layer: 1,
    });
    for (whole, upper) in whole.iter().zip(&upper) {
        // The cache keeps half precision.
        assert!((whole - upper).abs() < 2e-2, "{whole} {upper}");
    }
}

#[test]
fn cached_states_score_like_the_trunk() {
    let bench = Bench::new();
    let folder = tempfile::tempdir().unwrap();
    let cache = bench.cache(folder.path());
    let layers = LayerAdaptation {
        targets: vec!["q_proj".to_owned()],
        layers: LayerRange::All,
        kind: LayerKind::Lora,
        rank: 1,
        scale: 1.0,
    };
    let config = bench.config(bench.lora(), Some(layers));
    let untrained = bench.untrained(&config).valid();
    let trunk = bench.scores(Some(&untrained), HiddenStates::Layers(&bench.model));
    let cached = bench.scores(None, HiddenStates::Cached(&cache));
    // The cache keeps half precision.
    assert!((trunk.mean_nll() - cached.mean_nll()).abs() < 1e-3);
}

#[test]
fn an_unknown_target_is_named_with_those_that_exist() {
    let bench = Bench::new();
    let layers = LayerAdaptation {
        targets: vec!["c_attn".to_owned()],
        layers: LayerRange::All,
        kind: LayerKind::Lora,
        rank: 1,
        scale: 1.0,
    };
    let config = bench.config(bench.lora(), Some(layers));
    let error = adapter::empty_module(&config, &bench.model, &bench.device).unwrap_err();
    let message = error.to_string();
    assert!(
        message.contains("c_attn") && message.contains("q_proj, k_proj"),
        "{message}"
    );
}

#[test]
fn only_the_adapter_is_trained() {
    let bench = Bench::new();
    let config = bench.config(bench.lora(), None);
    assert_eq!(
        bench.untrained(&config).num_trainable_params(),
        config.head.num_trainable_params()
    );
}

/// An adapter folder with one thing wrong, and a word of the error that must follow.
fn refused(word: &str, spoil: impl FnOnce(&Path)) {
    let bench = Bench::new();
    let folder = tempfile::tempdir().unwrap();
    let config = bench.config(bench.core(), None);
    let module = adapter::empty_module(&config, &bench.model, &bench.device).unwrap();
    adapter::save(folder.path(), &config, &module, &bench.centroids).unwrap();
    Adapter::load(folder.path(), &bench.model, &bench.identity, &bench.device).unwrap();
    spoil(folder.path());
    let error = Adapter::load(folder.path(), &bench.model, &bench.identity, &bench.device)
        .expect_err("a spoilt folder is refused");
    let cause = std::error::Error::source(&error).map(ToString::to_string);
    let message = format!("{error}: {}", cause.unwrap_or_default());
    assert!(message.contains(word), "{message}");
}

fn rewrite(path: &Path, change: impl FnOnce(String) -> String) {
    let text = std::fs::read_to_string(path).unwrap();
    chameleon_models::files::atomic_file::write(path, change(text).as_bytes()).unwrap();
}

#[test]
fn spoilt_adapter_folders_are_refused_by_name() {
    let config = "adapter_config.json";
    refused("cannot read", |folder| {
        std::fs::remove_file(folder.join(config)).unwrap();
    });
    refused("not an adapter configuration", |folder| {
        rewrite(&folder.join(config), |text| text[..40].to_owned());
    });
    refused("format version 99", |folder| {
        rewrite(&folder.join(config), |text| {
            text.replace("\"format_version\": 5", "\"format_version\": 99")
        });
    });
    refused("impossible adapter", |folder| {
        rewrite(&folder.join(config), |text| {
            text.replace("\"num_clusters\": 2", "\"num_clusters\": 0")
        });
    });
    refused("rank 0 is not between", |folder| {
        rewrite(&folder.join(config), |text| {
            text.replace("\"rank\": 2", "\"rank\": 0")
        });
    });
    refused("hidden layers", |folder| {
        rewrite(&folder.join(config), |text| {
            let at = text.find("\"hidden_sizes\": [").unwrap() + 17;
            format!("{}4000000000, {}", &text[..at], &text[at..])
        });
    });
    refused("after 9 layers of a model", |folder| {
        rewrite(&folder.join(config), |text| {
            text.replace("token-embeddings", "hidden:9")
        });
    });
    let with_layers = |layers: &'static str| {
        move |folder: &Path| {
            rewrite(&folder.join(config), |text| {
                text.replace("\"layers\": null", &format!("\"layers\": {layers}"))
            });
        }
    };
    refused(
        "layers 1..9 of a model",
        with_layers(r#"{"targets": ["q_proj"], "layers": "1..9", "rank": 1, "scale": 1}"#),
    );
    refused(
        "not an adapter configuration",
        with_layers(r#"{"targets": ["q_proj"], "layers": "2..1", "rank": 1, "scale": 1}"#),
    );
    refused(
        "modules [] of each layer",
        with_layers(r#"{"targets": [], "rank": 1, "scale": 1}"#),
    );
    refused(
        "no module `nothing`",
        with_layers(r#"{"targets": ["nothing"], "rank": 1, "scale": 1}"#),
    );
    refused(
        "missing `layers.0.self_attn.q_proj.a`",
        with_layers(r#"{"targets": ["q_proj"], "rank": 1, "scale": 1}"#),
    );
    refused(
        "the configuration has",
        with_layers(r#"{"targets": ["q_proj"], "kind": "core", "rank": 16, "scale": 1}"#),
    );
    refused("prefix of 0", |folder| {
        rewrite(&folder.join(config), |text| {
            text.replace("\"prefix\": 4", "\"prefix\": 0")
        });
    });
    refused("does not fit its configuration", |folder| {
        rewrite(&folder.join(config), |text| {
            text.replace("\"rank\": 2", "\"rank\": 3")
        });
    });
    refused("was trained on", |folder| {
        rewrite(&folder.join(config), |text| {
            let at = text.find("\"fingerprint\": \"").unwrap() + 16;
            let mut text = text;
            text.replace_range(at..at + 4, "0000");
            text
        });
    });
    refused("not a safetensors file", |folder| {
        let path = folder.join("adapter.safetensors");
        let bytes = std::fs::read(&path).unwrap();
        chameleon_models::files::atomic_file::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    });
    refused("not finite", |folder| {
        let path = folder.join("adapter.safetensors");
        let mut bytes = std::fs::read(&path).unwrap();
        let end = bytes.len();
        bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
        chameleon_models::files::atomic_file::write(&path, &bytes).unwrap();
    });
}

#[test]
fn a_folder_without_a_training_state_has_none() {
    let bench = Bench::new();
    let folder = tempfile::tempdir().unwrap();
    let found = training_state::load(folder.path(), &bench.model, &bench.identity, &bench.device);
    assert!(matches!(found, Ok(None)));
}

#[test]
fn a_position_outside_the_training_is_refused() {
    let bench = Bench::new();
    let folder = tempfile::tempdir().unwrap();
    let cache = bench.cache(folder.path());
    let config = bench.config(bench.core(), None);
    let fresh = || {
        let setup = bench.setup(&config, HiddenStates::Cached(&cache));
        setup.trainer(bench.untrained(&config)).unwrap()
    };
    let state = fresh().optimizer_state().unwrap();
    for (epoch, batch, step) in [(7, 0, 28), (0, 4, 4), (1, 0, 3), (usize::MAX, 0, 0)] {
        let cursor = Cursor { epoch, batch, step };
        let setup = bench.setup(&config, HiddenStates::Cached(&cache));
        let resumed = setup.resume(bench.untrained(&config), state.clone(), cursor);
        assert!(
            matches!(
                resumed,
                Err(TrainingError::Train(TrainError::NoSuchPosition { .. }))
            ),
            "{cursor:?}"
        );
    }
}

#[test]
fn training_that_blows_up_is_an_error_and_not_an_adapter() {
    let bench = Bench::new();
    let folder = tempfile::tempdir().unwrap();
    let cache = bench.cache(folder.path());
    let mut config = bench.config(bench.core(), None);
    config.training.learning_rate = f64::from(f32::MAX);
    config.training.warmup = 0.0;
    let setup = bench.setup(&config, HiddenStates::Cached(&cache));
    let mut trainer = setup.trainer(bench.untrained(&config)).unwrap();
    let error = loop {
        match trainer.next_step() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ended as if nothing had happened"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, TrainError::Diverged { .. }), "{error}");
}

#[test]
fn errors_name_both_models() {
    let bench = Bench::new();
    let error = AdapterError::OtherBase {
        expected: bench.identity.to_string(),
        found: "x".to_owned(),
    };
    assert!(error.to_string().contains(&bench.identity.fingerprint));
}
