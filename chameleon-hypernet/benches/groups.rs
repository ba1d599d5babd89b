//! What a group of prompts costs on the CPU: generating its factors, applying those of many groups to one batch, and
//! looking up its memory: `cargo bench -p chameleon-hypernet`.

use std::fmt;
use std::time::Duration;

use burn::tensor::{Device, Int, Tensor, TensorData};
use chameleon_core::{FactorShape, LoraFactors, RunSeed};
use chameleon_hypernet::memory::GroupMemory;
use chameleon_hypernet::{Generator, GeneratorKind, GroupedFactors, RowGroups};
use divan::{Bencher, Divan};
use rand::RngExt as _;

const HIDDEN: usize = 256;
const VOCAB: usize = 4096;
const SHAPE: FactorShape = FactorShape {
    in_size: HIDDEN,
    out_size: VOCAB,
    rank: 4,
};
const KEY: usize = 64;
const TEMPERATURE: f64 = 16.0;

fn main() {
    Divan::default()
        .max_time(Duration::from_secs(1))
        .config_with_args()
        .main();
}

const GENERATIONS: [Generation; 4] = [
    Generation {
        kind: GeneratorKind::Core,
        num_groups: 1,
    },
    Generation {
        kind: GeneratorKind::Core,
        num_groups: 8,
    },
    Generation {
        kind: GeneratorKind::Dense,
        num_groups: 1,
    },
    Generation {
        kind: GeneratorKind::Dense,
        num_groups: 8,
    },
];

#[divan::bench(args = GENERATIONS)]
fn generate(bencher: Bencher, generation: Generation) {
    let generator = generation.generator(&Device::flex());
    let conditions = random([generation.num_groups, HIDDEN], "conditions");
    bencher.bench_local(|| generator.generate(conditions.clone()));
}

#[divan::bench(args = GENERATIONS)]
fn generate_with_backward(bencher: Bencher, generation: Generation) {
    let generator = generation.generator(&Device::flex().autodiff());
    let conditions = random([generation.num_groups, HIDDEN], "conditions").autodiff();
    bencher.bench_local(|| {
        let sums = generator
            .generate(conditions.clone())
            .into_iter()
            .map(|factors| factors.a.sum() + factors.b.sum());
        sums.reduce(|left, right| left + right)
            .expect("there is a group")
            .backward()
    });
}

const MIXED_BATCHES: [MixedBatch; 3] = [
    MixedBatch {
        num_rows: 1,
        num_groups: 1,
    },
    MixedBatch {
        num_rows: 32,
        num_groups: 8,
    },
    MixedBatch {
        num_rows: 32,
        num_groups: 32,
    },
];

#[divan::bench(args = MIXED_BATCHES)]
fn join_factors(bencher: Bencher, batch: MixedBatch) {
    let factors = batch.factors();
    bencher.bench_local(|| GroupedFactors::join(factors.clone()));
}

#[divan::bench(args = MIXED_BATCHES)]
fn apply_joined_factors(bencher: Bencher, batch: MixedBatch) {
    let factors = GroupedFactors::join(batch.factors());
    let (hidden, rows) = batch.rows();
    bencher.bench_local(|| factors.apply(hidden.clone(), rows.clone()));
}

#[divan::bench(args = MIXED_BATCHES)]
fn apply_factors_sharing_b(bencher: Bencher, batch: MixedBatch) {
    let factors = GroupedFactors::join_sharing_b(batch.factors());
    let (hidden, rows) = batch.rows();
    bencher.bench_local(|| factors.apply(hidden.clone(), rows.clone()));
}

const LOOK_UPS: [LookUp; 3] = [
    LookUp {
        num_rows: 1,
        num_entries: 16_384,
    },
    LookUp {
        num_rows: 96,
        num_entries: 2048,
    },
    LookUp {
        num_rows: 96,
        num_entries: 16_384,
    },
];

#[divan::bench(args = LOOK_UPS)]
fn memory_probability_of_targets(bencher: Bencher, look_up: LookUp) {
    let (memory, queries) = (look_up.memory(), look_up.queries());
    let targets = tokens(look_up.num_rows, "targets");
    bencher.bench_local(|| {
        let attention = memory.similarities(queries.clone()).attention(TEMPERATURE);
        (
            attention.prob_of(targets.clone()),
            attention.gate_features(),
        )
    });
}

#[divan::bench(args = LOOK_UPS)]
fn memory_distribution(bencher: Bencher, look_up: LookUp) {
    let (memory, queries) = (look_up.memory(), look_up.queries());
    bencher.bench_local(|| {
        let attention = memory.similarities(queries.clone()).attention(TEMPERATURE);
        (attention.distribution(VOCAB), attention.gate_features())
    });
}

#[derive(Clone, Copy)]
struct Generation {
    kind: GeneratorKind,
    num_groups: usize,
}

impl Generation {
    fn generator(self, device: &Device) -> Generator {
        self.kind.config(HIDDEN, SHAPE).init(RunSeed(1), device)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} groups={}", self.kind, self.num_groups)
    }
}

/// Rows assigned to groups in turn.
#[derive(Clone, Copy)]
struct MixedBatch {
    num_rows: usize,
    num_groups: usize,
}

impl MixedBatch {
    fn factors(self) -> Vec<LoraFactors> {
        let b = random([SHAPE.rank, VOCAB], "b");
        (0..self.num_groups)
            .map(|group_idx| LoraFactors {
                a: random([HIDDEN, SHAPE.rank], &format!("a{group_idx}")),
                b: b.clone(),
                scale: 1.0,
            })
            .collect()
    }

    /// `[rows, hidden]`, and the group of each.
    fn rows(self) -> (Tensor<2>, RowGroups) {
        let device = Device::flex();
        let group_idx = Tensor::<1, Int>::arange(0..index(self.num_rows), &device)
            .remainder_scalar(index(self.num_groups));
        let rows = RowGroups {
            group_idx,
            scale: Tensor::ones([self.num_rows], &device),
        };
        (random([self.num_rows, HIDDEN], "hidden"), rows)
    }
}

impl fmt::Display for MixedBatch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "rows={} groups={}",
            self.num_rows, self.num_groups
        )
    }
}

/// Queries compared with the entries of one group.
#[derive(Clone, Copy)]
struct LookUp {
    num_rows: usize,
    num_entries: usize,
}

impl LookUp {
    fn memory(self) -> GroupMemory {
        GroupMemory::new(
            of_length_one([self.num_entries, KEY], "keys"),
            tokens(self.num_entries, "next tokens"),
        )
    }

    /// `[rows, key]`
    fn queries(self) -> Tensor<2> {
        of_length_one([self.num_rows, KEY], "queries")
    }
}

impl fmt::Display for LookUp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "rows={} entries={}",
            self.num_rows, self.num_entries
        )
    }
}

fn random(shape: [usize; 2], name: &str) -> Tensor<2> {
    let mut rng = RunSeed(1).stream(name);
    let values: Vec<f32> = (0..shape[0] * shape[1])
        .map(|_| rng.random_range(-1.0..1.0))
        .collect();
    Tensor::from_data(TensorData::new(values, shape), &Device::flex())
}

fn of_length_one(shape: [usize; 2], name: &str) -> Tensor<2> {
    let rows = random(shape, name);
    let lengths = rows.clone().powi_scalar(2).sum_dim(1).sqrt();
    rows / lengths
}

fn tokens(count: usize, name: &str) -> Tensor<1, Int> {
    let mut rng = RunSeed(1).stream(name);
    let ids: Vec<i64> = (0..count)
        .map(|_| rng.random_range(0..index(VOCAB)))
        .collect();
    Tensor::from_data(TensorData::new(ids, [count]), &Device::flex())
}

fn index(count: usize) -> i64 {
    i64::try_from(count).expect("sizes here are small")
}
