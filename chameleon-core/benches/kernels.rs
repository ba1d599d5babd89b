//! Kernels of a layer and the loss at the head on the CPU: `cargo bench -p chameleon-core`.
//!
//! Sizes are those of a small model's layer, but for the vocabulary. What trains is timed forward, and once more with
//! its backward pass.

use std::fmt;
use std::time::Duration;

use burn::tensor::{Device, Int, Tensor, TensorData};
use chameleon_core::fused::{self, CausalAttention, LinearInput, RotaryHalves};
use chameleon_core::{
    HeadInput, LoraFactors, LowRankChange, RankMix, RunSeed, linear_cross_entropy, score_rows,
};
use divan::{Bencher, Divan};
use rand::RngExt as _;

const HIDDEN: usize = 256;
const INTERMEDIATE: usize = 768;
const VOCAB: usize = 4096;
const RANK: usize = 8;
const HEAD_DIM: usize = 32;
const NUM_KV_HEADS: usize = 4;

fn main() {
    Divan::default()
        .max_time(Duration::from_secs(1))
        .config_with_args()
        .main();
}

const BATCHES: [Batch; 2] = [
    Batch {
        batch_size: 1,
        seq_len: 128,
    },
    Batch {
        batch_size: 4,
        seq_len: 128,
    },
];

const ROWS: [Rows; 2] = [Rows(128), Rows(512)];

#[divan::bench(args = ROWS)]
fn score_rows_of_an_adapted_head(bencher: Bencher, Rows(num_rows): Rows) {
    let (head, targets) = head(num_rows, Recording::Off);
    bencher.bench_local(|| score_rows(head.clone(), targets.clone()));
}

#[divan::bench(args = ROWS)]
fn loss_of_an_adapted_head_with_backward(bencher: Bencher, Rows(num_rows): Rows) {
    let (head, targets) = head(num_rows, Recording::On);
    bencher.bench_local(|| {
        linear_cross_entropy(head.clone(), targets.clone())
            .mean_loss
            .backward()
    });
}

#[divan::bench(args = BATCHES)]
fn adapted_linear(bencher: Bencher, batch: Batch) {
    let input = linear_input(batch, Recording::Off);
    bencher.bench_local(|| fused::linear(input.clone()));
}

#[divan::bench(args = BATCHES)]
fn adapted_linear_with_backward(bencher: Bencher, batch: Batch) {
    let input = linear_input(batch, Recording::On);
    bencher.bench_local(|| fused::linear(input.clone()).sum().backward());
}

#[divan::bench(args = BATCHES)]
fn swiglu(bencher: Bencher, batch: Batch) {
    let [gate, up] = ["gate", "up"].map(|name| batch.states(INTERMEDIATE, name, Recording::Off));
    bencher.bench_local(|| fused::swiglu(gate.clone(), up.clone()));
}

#[divan::bench(args = BATCHES)]
fn swiglu_with_backward(bencher: Bencher, batch: Batch) {
    let [gate, up] = ["gate", "up"].map(|name| batch.states(INTERMEDIATE, name, Recording::On));
    bencher.bench_local(|| fused::swiglu(gate.clone(), up.clone()).sum().backward());
}

#[divan::bench(args = BATCHES)]
fn rms_norm(bencher: Bencher, batch: Batch) {
    let x = batch.states(HIDDEN, "x", Recording::Off);
    let scale = random([HIDDEN], "scale", Recording::Off);
    bencher.bench_local(|| fused::rms_norm(x.clone(), scale.clone(), 1e-5));
}

#[divan::bench(args = BATCHES)]
fn rms_norm_with_backward(bencher: Bencher, batch: Batch) {
    let x = batch.states(HIDDEN, "x", Recording::On);
    let scale = random([HIDDEN], "scale", Recording::Off);
    bencher.bench_local(|| {
        fused::rms_norm(x.clone(), scale.clone(), 1e-5)
            .sum()
            .backward()
    });
}

#[divan::bench(args = BATCHES)]
fn causal_attention(bencher: Bencher, batch: Batch) {
    let input = attention_input(batch, Recording::Off);
    bencher.bench_local(|| fused::causal_attention(input.clone()));
}

#[divan::bench(args = BATCHES)]
fn causal_attention_with_backward(bencher: Bencher, batch: Batch) {
    let input = attention_input(batch, Recording::On);
    bencher.bench_local(|| fused::causal_attention(input.clone()).sum().backward());
}

/// Whether a computation is recorded for its backward pass.
#[derive(Clone, Copy)]
enum Recording {
    Off,
    On,
}

#[derive(Clone, Copy)]
struct Batch {
    batch_size: usize,
    seq_len: usize,
}

impl Batch {
    /// `[batch, seq, width]`
    fn states(self, width: usize, name: &str, recording: Recording) -> Tensor<3> {
        random([self.batch_size, self.seq_len, width], name, recording)
    }
}

impl fmt::Display for Batch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "batch={} seq={}", self.batch_size, self.seq_len)
    }
}

/// Scored rows.
#[derive(Clone, Copy)]
struct Rows(usize);

impl fmt::Display for Rows {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "rows={}", self.0)
    }
}

fn random<const D: usize>(shape: [usize; D], name: &str, recording: Recording) -> Tensor<D> {
    let mut rng = RunSeed(1).stream(name);
    let num_values = shape.iter().product();
    let values: Vec<f32> = (0..num_values)
        .map(|_| rng.random_range(-1.0..1.0))
        .collect();
    let tensor = Tensor::from_data(TensorData::new(values, shape), &Device::flex());
    match recording {
        Recording::Off => tensor,
        Recording::On => tensor.autodiff().require_grad(),
    }
}

/// What does not train, among things that do.
fn frozen<const D: usize>(shape: [usize; D], name: &str, recording: Recording) -> Tensor<D> {
    let tensor = random(shape, name, Recording::Off);
    match recording {
        Recording::Off => tensor,
        Recording::On => tensor.autodiff(),
    }
}

fn head(num_rows: usize, recording: Recording) -> (HeadInput, Tensor<1, Int>) {
    let head = HeadInput {
        hidden: random([num_rows, HIDDEN], "hidden", recording),
        weight: frozen([HIDDEN, VOCAB], "weight", recording),
        factors: Some(LoraFactors {
            a: random([HIDDEN, RANK], "a", recording),
            b: random([RANK, VOCAB], "b", recording),
            scale: 1.0,
        }),
    };
    let mut rng = RunSeed(1).stream("targets");
    let num_tokens = i32::try_from(VOCAB).expect("the vocabulary is small");
    let targets: Vec<i32> = (0..num_rows)
        .map(|_| rng.random_range(0..num_tokens))
        .collect();
    let targets = Tensor::from_data(TensorData::new(targets, [num_rows]), &head.hidden.device());
    (head, targets)
}

/// States, a frozen weight and its change.
fn linear_input(batch: Batch, recording: Recording) -> LinearInput {
    let change = LowRankChange {
        a: random([HIDDEN, RANK], "a", recording),
        mix: RankMix::Scale(1.0),
        b: random([RANK, INTERMEDIATE], "b", recording),
    };
    LinearInput {
        x: batch.states(HIDDEN, "x", recording),
        weight: frozen([HIDDEN, INTERMEDIATE], "weight", recording),
        bias: None,
        change: Some(change),
    }
}

fn attention_input(batch: Batch, recording: Recording) -> CausalAttention {
    let angles: Tensor<4> = random(
        [1, 1, batch.seq_len, HEAD_DIM / 2],
        "angles",
        Recording::Off,
    );
    let rotary = RotaryHalves {
        cos: angles.clone().cos(),
        sin: angles.sin(),
    };
    CausalAttention {
        query: batch.states(HIDDEN, "query", recording),
        key: batch.states(NUM_KV_HEADS * HEAD_DIM, "key", recording),
        value: batch.states(NUM_KV_HEADS * HEAD_DIM, "value", recording),
        head_dim: HEAD_DIM,
        rotary: Some(rotary),
    }
}
