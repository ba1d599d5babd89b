//! Kernels of a layer and the loss at the head on the CPU: `cargo bench -p chameleon-core`.
//!
//! Sizes are those of a small model's layer, but for the vocabulary. What trains is timed forward, and once more with
//! its backward pass. Changes of a module by many groups are those of a decode step of a model with 135 million
//! parameters.

use std::fmt;
use std::hint::black_box;
use std::time::Duration;

use burn::tensor::{Device, Int, Tensor, TensorData};
use chameleon_core::fused::{self, CausalAttention, LinearInput, RotaryHalves, ScoreRule};
use chameleon_core::{
    FrozenHead, GroupedChange, HeadInput, LoraFactors, LowRankChange, ModuleChange, RankMix,
    RunSeed, linear_cross_entropy, score_rows,
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

/// Widths of the modules that are changed, in each of ten layers.
const ADAPTED: [[usize; 2]; 2] = [[576, 576], [1536, 576]];
const NUM_ADAPTED_LAYERS: usize = 10;

const STEPS: [Step; 6] = [
    Step::of(16, 16),
    Step::of(16, 4),
    Step::of(16, 1),
    Step::of(2, 2),
    Step::of(128, 1),
    Step::of(512, 4),
];

/// What changes by groups add to a decode step.
#[divan::bench(args = STEPS)]
fn changes_by_own_factors(bencher: Bencher, step: Step) {
    let row_groups: Vec<_> = (0..step.num_rows)
        .map(|row_idx| Some(row_idx * step.num_groups / step.num_rows))
        .collect();
    step.time_changes(bencher, |[in_size, out_size]| {
        let factors = (0..step.num_groups).map(|_| LoraFactors {
            a: random([in_size, RANK], "a", Recording::Off),
            b: random([RANK, out_size], "b", Recording::Off),
            scale: 1.0,
        });
        GroupedChange::new(factors.collect(), row_groups.clone()).into()
    });
}

/// The same with factors that all groups share, and a matrix between them for each row.
#[divan::bench(args = [Step::of(16, 1), Step::of(128, 1), Step::of(512, 1)])]
fn changes_by_cores(bencher: Bencher, step: Step) {
    step.time_changes(bencher, |[in_size, out_size]| {
        let change = LowRankChange {
            a: random([in_size, RANK], "a", Recording::Off),
            mix: RankMix::PerRow(random([step.num_rows, RANK, RANK], "mix", Recording::Off)),
            b: random([RANK, out_size], "b", Recording::Off),
        };
        change.into()
    });
}

/// The frozen products of the same modules.
#[divan::bench(args = [16, 128, 512])]
fn frozen_modules(bencher: Bencher, num_rows: usize) {
    let step = Step::of(num_rows, 1);
    step.time(bencher, |sizes| {
        let weight = random(sizes, "weight", Recording::Off);
        move |x, _| {
            fused::linear(LinearInput {
                x,
                weight: weight.clone().into(),
                bias: None,
                change: None,
            })
        }
    });
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

/// Rows that are computed at once, and how many groups they belong to.
#[derive(Clone, Copy)]
struct Step {
    num_rows: usize,
    num_groups: usize,
}

impl Step {
    const fn of(num_rows: usize, num_groups: usize) -> Self {
        Self {
            num_rows,
            num_groups,
        }
    }

    fn time_changes(self, bencher: Bencher, change: impl Fn([usize; 2]) -> ModuleChange) {
        self.time(bencher, |sizes| {
            let change = change(sizes);
            move |x, frozen| change.add_to(frozen, x)
        });
    }

    /// Times all modules, one after the other, when none is in a cache.
    fn time<F: Fn(Tensor<3>, Tensor<3>) -> Tensor<3> + Sync>(
        self,
        bencher: Bencher,
        module: impl Fn([usize; 2]) -> F,
    ) {
        let states = |width, name| random([1, self.num_rows, width], name, Recording::Off);
        let modules: Vec<_> = ADAPTED
            .into_iter()
            .map(|[in_size, out_size]| {
                let (x, frozen) = (states(in_size, "x"), states(out_size, "frozen"));
                (x, frozen, [in_size, out_size])
            })
            .cycle()
            .take(NUM_ADAPTED_LAYERS * ADAPTED.len())
            .map(|(x, frozen, sizes)| (x, frozen, module(sizes)))
            .collect();
        let others = vec![1u8; 64 << 20];
        bencher
            .with_inputs(|| {
                black_box(others.iter().fold(0u8, |sum, &x| sum.wrapping_add(x)));
                modules
                    .iter()
                    .map(|(x, frozen, module)| (module, x.clone(), frozen.clone() * 1.0))
                    .collect::<Vec<_>>()
            })
            .bench_local_values(|modules| {
                // On a thread of the pool, as passes of a model run.
                rayon::scope(|_| {
                    let outputs = modules.into_iter();
                    outputs
                        .map(|(module, x, frozen)| module(x, frozen))
                        .collect::<Vec<_>>()
                })
            });
    }
}

impl fmt::Display for Step {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "rows={} groups={}",
            self.num_rows, self.num_groups
        )
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
        head: FrozenHead::uncapped(frozen([HIDDEN, VOCAB], "weight", recording)),
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
        weight: frozen([HIDDEN, INTERMEDIATE], "weight", recording).into(),
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
        rule: ScoreRule::of_head(HEAD_DIM),
    }
}
