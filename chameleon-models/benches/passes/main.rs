//! A small Llama on the CPU, with f32 and quantised weights: prefill, decoding, training, and the preparation of tokens
//! and windows: `cargo bench -p chameleon-models`.

mod small_model;

use std::fmt;
use std::path::Path;
use std::time::Duration;

use burn::tensor::{Device, Tensor};
use chameleon_cluster::{BatchPlan, PlannedBatch};
use chameleon_core::{RunSeed, SplitSequence, TokenBatch};
use chameleon_hypernet::{Condition, ConditionControl, GeneratorKind, HyperLoraHeadConfig};
use chameleon_models::adapter::{
    AdapterModule, HeadAdaptation, LayerAdaptation, LayerKind, LayerRange, head_shape,
};
use chameleon_models::data::{Document, Example, Origin, WindowOptions, tokenise_documents};
use chameleon_models::families::{CacheRow, KvCache, Segment};
use chameleon_models::training::{
    GroupedExamples, HiddenStates, TrainOptions, TrainSetup, embed_examples,
};
use chameleon_models::{CausalLm as _, LanguageModel, LoadedModel, WeightStorage};
use divan::{Bencher, Divan};

fn main() {
    Divan::default()
        .max_time(Duration::from_secs(1))
        .config_with_args()
        .main();
}

const STREAMS: [Streams; 4] = [
    Streams {
        storage: WeightStorage::F32,
        num_rows: 1,
    },
    Streams {
        storage: WeightStorage::F32,
        num_rows: 8,
    },
    Streams {
        storage: WeightStorage::Stored,
        num_rows: 1,
    },
    Streams {
        storage: WeightStorage::Stored,
        num_rows: 8,
    },
];

/// Tokens of every prompt.
const PROMPT_LEN: usize = 64;

#[divan::bench(args = STREAMS)]
fn read_prompts(bencher: Bencher, streams: Streams) {
    let loaded = small_model::load(streams.storage);
    let prompts = streams.prompts();
    bencher.bench_local(|| Decoding::of(&loaded, &prompts));
}

#[divan::bench(args = STREAMS)]
fn decode_one_token(bencher: Bencher, streams: Streams) {
    let loaded = small_model::load(streams.storage);
    let prompts = streams.prompts();
    bencher
        .with_inputs(|| Decoding::of(&loaded, &prompts))
        .bench_local_refs(|decoding| decoding.step(&loaded));
}

const BATCH_SIZES: [BatchSize; 2] = [BatchSize(1), BatchSize(4)];

/// Tokens of every training text, and those of them that are its prompt.
const SEQ_LEN: usize = 128;
const PREFIX: usize = 32;

#[divan::bench(args = BATCH_SIZES)]
fn frozen_pass(bencher: Bencher, BatchSize(batch_size): BatchSize) {
    let loaded = small_model::load(WeightStorage::F32);
    let rows: Vec<Vec<u32>> = (0..batch_size)
        .map(|row| small_model::token_ids(SEQ_LEN, &format!("row {row}")))
        .collect();
    let rows: Vec<&[u32]> = rows.iter().map(Vec::as_slice).collect();
    let batch = TokenBatch::from_rows(&rows, 0, &Device::flex());
    bencher.bench_local(|| loaded.model.hidden_states(batch.token_ids.clone()));
}

/// A core at the head and in every layer, so that the whole model is run forward and backward.
#[divan::bench(args = BATCH_SIZES)]
fn train_step(bencher: Bencher, BatchSize(batch_size): BatchSize) {
    let LoadedModel { model, .. } = small_model::load(WeightStorage::F32);
    let data = training_data(&model, batch_size);
    let setup = TrainSetup {
        centroids: data.prompt_embeddings.clone().slice([0..1]),
        data: &data,
        hidden_states: HiddenStates::Layers(&model),
        head: model.head(),
        condition: Condition::Centroid,
        control: ConditionControl::None
            .plan(1, RunSeed(1))
            .expect("one group needs no other"),
        exemplars: None,
        options: TrainOptions {
            // More than any bench takes.
            num_epochs: 1 << 20,
            learning_rate: 1e-4,
            warmup: 0.0,
            weight_decay: 0.01,
            max_grad_norm: 1.0,
        },
        seed: RunSeed(1),
    };
    let mut trainer = setup
        .trainer(module(&model))
        .expect("a training without keys");
    bencher.bench_local(|| trainer.next_step().expect("the loss is a number"));
}

const NUM_WORDS: [Words; 2] = [Words(100), Words(1000)];

#[divan::bench(args = NUM_WORDS)]
fn tokenise(bencher: Bencher, Words(num_words): Words) {
    let tokenizer = small_model::load(WeightStorage::F32).tokenizer;
    let text = small_model::text(num_words, "text");
    bencher.bench_local(|| tokenizer.encode(&text));
}

#[divan::bench(args = NUM_WORDS)]
fn cut_windows_of_16_texts(bencher: Bencher, Words(num_words): Words) {
    let tokenizer = small_model::load(WeightStorage::F32).tokenizer;
    let documents = documents(16, num_words);
    let options = WindowOptions::new(SEQ_LEN, PREFIX).expect("a prompt and a rest");
    bencher
        .with_inputs(|| documents.clone())
        .bench_local_values(|documents| {
            tokenise_documents(documents, options, RunSeed(1), &|text| {
                Ok(tokenizer.encode_with_ends(text)?)
            })
        });
}

#[derive(Clone, Copy)]
struct Streams {
    storage: WeightStorage,
    num_rows: usize,
}

impl Streams {
    fn prompts(self) -> Vec<Vec<u32>> {
        (0..self.num_rows)
            .map(|row| small_model::token_ids(PROMPT_LEN, &format!("prompt {row}")))
            .collect()
    }
}

impl fmt::Display for Streams {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let weights = match self.storage {
            WeightStorage::F32 => "f32",
            WeightStorage::Stored => "stored",
        };
        write!(formatter, "{weights} streams={}", self.num_rows)
    }
}

#[derive(Clone, Copy)]
struct BatchSize(usize);

impl fmt::Display for BatchSize {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "batch={} seq={SEQ_LEN}", self.0)
    }
}

#[derive(Clone, Copy)]
struct Words(usize);

impl fmt::Display for Words {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "words={}", self.0)
    }
}

/// Prompts that were read.
struct Decoding {
    cache: KvCache,
    rows: Vec<CacheRow>,
}

impl Decoding {
    fn of(loaded: &LoadedModel, prompts: &[Vec<u32>]) -> Self {
        let mut cache = KvCache::new(loaded.model.sizes(), &Device::flex());
        let rows: Vec<CacheRow> = prompts.iter().map(|_| cache.add_row()).collect();
        let mut decoding = Self { cache, rows };
        let prompts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
        decoding.pass(loaded, &prompts);
        decoding
    }

    /// `[rows, vocab]`: one more token of every row.
    fn step(&mut self, loaded: &LoadedModel) -> Tensor<2> {
        let token: &[u32] = &[7];
        let hidden = self.pass(loaded, &vec![token; self.rows.len()]);
        loaded.model.logits(hidden)
    }

    /// `[tokens, hidden]`
    fn pass(&mut self, loaded: &LoadedModel, tokens: &[&[u32]]) -> Tensor<2> {
        let segments: Vec<Segment<'_>> = self
            .rows
            .iter()
            .zip(tokens)
            .map(|(&row, &token_ids)| Segment {
                row,
                token_ids,
                layers: None,
            })
            .collect();
        loaded
            .model
            .hidden_states_with_cache(&segments, &mut self.cache)
    }
}

/// One batch of one group.
fn training_data(model: &LanguageModel, batch_size: usize) -> GroupedExamples {
    let examples: Vec<Example> = (0..batch_size)
        .map(|idx| {
            let token_ids = small_model::token_ids(SEQ_LEN, &format!("example {idx}"));
            let sequence = SplitSequence::new(token_ids, PREFIX).expect("a prompt and a rest");
            Example::of_prefix(sequence, idx, None, SEQ_LEN)
        })
        .collect();
    GroupedExamples {
        prompt_embeddings: embed_examples(model, &examples),
        examples,
        assignments: vec![0; batch_size],
        plan: BatchPlan {
            batches: vec![PlannedBatch {
                cluster_idx: 0,
                rows: (0..batch_size).collect(),
            }],
        },
    }
}

fn module(model: &LanguageModel) -> AdapterModule {
    let device = Device::flex().autodiff();
    let hidden_size = model.sizes().hidden_size;
    let head = HeadAdaptation::Hyper {
        config: HyperLoraHeadConfig::preset(GeneratorKind::Core, hidden_size, head_shape(model, 4)),
    };
    let layers = LayerAdaptation {
        targets: ["q_proj", "v_proj", "down_proj"]
            .map(str::to_owned)
            .to_vec(),
        layers: LayerRange::All,
        kind: LayerKind::Core,
        rank: 4,
        scale: 1.0,
    };
    let layers = layers
        .config(model, head.num_features())
        .expect("a Llama has these modules");
    AdapterModule::new(
        head.init(RunSeed(1), &device),
        Some(layers.init(RunSeed(2), &device)),
        None,
    )
}

fn documents(num_texts: usize, num_words: usize) -> Vec<Document> {
    let document = |idx| {
        Document::prose(
            small_model::text(num_words, &format!("text {idx}")),
            Origin::new(Path::new("memory"), idx),
        )
    };
    (0..num_texts).map(document).collect()
}
