//! Next-token loss, fused with the language-model head.
//!
//! The head maps `[rows, hidden]` to `[rows, vocab]`, by far the largest tensor of a step. Here it
//! exists for one chunk of rows at a time: loss and gradients of a chunk are computed together and
//! the logits are dropped before the next chunk begins. The head's weight is frozen, so it gets
//! no gradient; hidden states get one only when something below them trains.
//!
//! The caller selects the rows that are scored before the head, so that other rows cost nothing.

use std::ops::Range;

use burn::tensor::{Bool, Int, Tensor, assert_shape};

use crate::factors::LoraFactors;
use crate::frozen_weight::FrozenWeight;
use crate::fused::{
    add_product, cross_entropy, cross_entropy_losses, frozen_product, input_gradient, product,
};

/// Rows of logits that exist at a time. 96 are as fast as 128 in our measurements on CPUs and need a quarter less
/// memory: 19 MB of logits for 49,152 tokens.
const CHUNK_ROWS: usize = 96;

/// What the head is applied to.
#[derive(Debug, Clone)]
pub struct HeadInput {
    /// `[rows, hidden]`, final hidden states of the scored rows.
    pub hidden: Tensor<2>,
    /// The head itself.
    pub head: FrozenHead,
    /// The change of the head, if it is adapted.
    pub factors: Option<LoraFactors>,
}

/// The head of a model, frozen.
#[derive(Debug, Clone)]
pub struct FrozenHead {
    /// `[hidden, vocab]`
    pub weight: FrozenWeight,
    /// Logits, those of a change included, are held between plus and minus this cap by `cap * tanh(logit / cap)`.
    pub soft_cap: Option<f64>,
}

impl FrozenHead {
    /// A head without a cap.
    pub fn uncapped(weight: impl Into<FrozenWeight>) -> Self {
        Self {
            weight: weight.into(),
            soft_cap: None,
        }
    }

    /// Logits under the cap.
    pub fn cap<const D: usize>(&self, logits: Tensor<D>) -> Tensor<D> {
        match self.soft_cap {
            Some(cap) => (logits / cap).tanh() * cap,
            None => logits,
        }
    }

    fn without_autodiff(self) -> Self {
        Self {
            weight: self.weight.without_autodiff(),
            ..self
        }
    }
}

/// Cross-entropy of the head's predictions.
#[derive(Debug, Clone)]
pub struct LinearCrossEntropy {
    /// `[rows]`, negative log-likelihood of each target in nats; carries no gradient.
    pub row_losses: Tensor<1>,
    /// `[1]`, the mean of `row_losses`, with gradients: call `backward` on this.
    pub mean_loss: Tensor<1>,
}

/// Cross-entropy of `hidden · weight + scale · (hidden · a) · b` against `targets`, with gradients
/// for the factors and, where hidden states are tracked, for them.
///
/// # Shapes
///
/// - `input.hidden`: `[rows, hidden]`, `input.head.weight`: `[hidden, vocab]`
/// - `targets`: `[rows]`
///
/// # Panics
///
/// When the shapes disagree or there is no row.
pub fn linear_cross_entropy(input: HeadInput, targets: Tensor<1, Int>) -> LinearCrossEntropy {
    cross_entropy_in_chunks(input, targets, CHUNK_ROWS)
}

/// Negative log-likelihood of each target in nats, without gradients.
///
/// # Shapes
///
/// - `input.hidden`: `[rows, hidden]`, `input.head.weight`: `[hidden, vocab]`
/// - `targets`: `[rows]`
/// - output: `[rows]`
///
/// # Panics
///
/// When the shapes disagree or there is no row.
pub fn score_rows(input: HeadInput, targets: Tensor<1, Int>) -> Tensor<1> {
    score_in_chunks(input, targets, CHUNK_ROWS)
}

/// Scores of rows, and whether greedy decoding would find them.
#[derive(Debug, Clone)]
pub struct RowMatches {
    /// `[rows]`, negative log-likelihood of each target in nats.
    pub losses: Tensor<1>,
    /// `[rows]`, whether the target is the likeliest token.
    pub matches: Tensor<1, Bool>,
}

/// Like [`score_rows`], and whether each target is the likeliest token.
///
/// # Shapes
///
/// As [`score_rows`].
///
/// # Panics
///
/// When the shapes disagree or there is no row.
pub fn score_rows_with_matches(input: HeadInput, targets: Tensor<1, Int>) -> RowMatches {
    let scored = map_chunks(input, targets, CHUNK_ROWS, |logits, targets| RowMatches {
        matches: logits
            .clone()
            .argmax(1)
            .squeeze_dim::<1>(1)
            .equal(targets.clone()),
        losses: cross_entropy_losses(logits, targets),
    });
    let (losses, matches) = scored
        .into_iter()
        .map(|chunk| (chunk.losses, chunk.matches))
        .unzip();
    RowMatches {
        losses: Tensor::cat(losses, 0),
        matches: Tensor::cat(matches, 0),
    }
}

/// `exp` of a mean negative log-likelihood in nats.
pub fn perplexity(mean_nll: f64) -> f64 {
    mean_nll.exp()
}

fn cross_entropy_in_chunks(
    input: HeadInput,
    targets: Tensor<1, Int>,
    chunk_rows: usize,
) -> LinearCrossEntropy {
    let [num_rows, _] = input.hidden.dims();
    let hidden_is_tracked = input.hidden.is_tracked();
    let HeadInput {
        hidden,
        head,
        factors,
    } = input;
    // The narrow product stays on the autodiff graph: it is small and carries the gradient of `a`.
    let tracked = factors.map(|factors| Narrow {
        rows: factors.project(hidden.clone()),
        b: factors.b,
    });
    let plain = PlainHead {
        hidden: hidden.clone().without_autodiff(),
        head: head.without_autodiff(),
        narrow: tracked.as_ref().map(|narrow| Narrow {
            rows: narrow.rows.clone().without_autodiff(),
            b: narrow.b.clone().without_autodiff(),
        }),
    };
    let targets = targets.without_autodiff();
    assert_shape!(targets, [num_rows]);

    let share = 1.0 / num_rows as f64;
    let weights = Tensor::full([num_rows], share, &plain.hidden.device());
    let mut row_losses = Vec::new();
    let mut hidden_grads = Vec::new();
    let mut narrow_grads = Vec::new();
    let mut b_grad: Option<Tensor<2>> = None;
    for range in chunks(num_rows, chunk_rows) {
        let logits = plain.logits(range.clone()); // [chunk, vocab]
        // The derivative of the cap.
        let slope = plain.head.soft_cap.map(|cap| {
            let share = logits.clone() / cap;
            -(share.clone() * share) + 1.0
        });
        let scored = cross_entropy(
            logits,
            targets.clone().slice([range.clone()]),
            weights.clone().slice([range.clone()]),
        );
        row_losses.push(scored.losses);
        let logit_grad = match slope {
            Some(slope) => scored.gradient * slope,
            None => scored.gradient,
        };
        if let Some(narrow) = &plain.narrow {
            let rows = narrow.rows.clone().slice([range]).transpose(); // [rank, chunk]
            b_grad = Some(match b_grad.take() {
                Some(sum) => add_product(sum, rows, logit_grad.clone()),
                None => product(rows, logit_grad.clone()),
            });
            narrow_grads.push(product(logit_grad.clone(), narrow.b.clone().transpose()));
        }
        if hidden_is_tracked {
            hidden_grads.push(input_gradient(logit_grad, &plain.head.weight));
        }
    }

    // `sum(x * constant)` has the gradient `constant`: this hands the gradients to autodiff.
    let mut carrier = Tensor::<1>::zeros([1], &hidden.device());
    if let (Some(narrow), Some(b_grad)) = (tracked, b_grad) {
        carrier = carrier
            + (narrow.rows * Tensor::cat(narrow_grads, 0).autodiff_as(&hidden)).sum()
            + (narrow.b * b_grad.autodiff_as(&hidden)).sum();
    }
    if hidden_is_tracked {
        let hidden_grad = Tensor::cat(hidden_grads, 0).autodiff_as(&hidden);
        carrier = carrier + (hidden.clone() * hidden_grad).sum();
    }
    let row_losses = Tensor::cat(row_losses, 0);
    // A constant makes the value the mean loss and leaves the gradients as they are.
    let value = row_losses.clone().mean() - carrier.clone().without_autodiff();
    LinearCrossEntropy {
        mean_loss: carrier + value.autodiff_as(&hidden),
        row_losses,
    }
}

fn score_in_chunks(input: HeadInput, targets: Tensor<1, Int>, chunk_rows: usize) -> Tensor<1> {
    Tensor::cat(
        map_chunks(input, targets, chunk_rows, cross_entropy_losses),
        0,
    )
}

/// What `score` makes of the logits and targets of each chunk of rows, without gradients.
fn map_chunks<T>(
    input: HeadInput,
    targets: Tensor<1, Int>,
    chunk_rows: usize,
    score: impl Fn(Tensor<2>, Tensor<1, Int>) -> T,
) -> Vec<T> {
    let [num_rows, _] = input.hidden.dims();
    assert_shape!(targets, [num_rows]);
    let HeadInput {
        hidden,
        head,
        factors,
    } = input;
    let hidden = hidden.without_autodiff();
    let targets = targets.without_autodiff();
    let plain = PlainHead {
        narrow: factors.map(|factors| Narrow {
            rows: factors.project(hidden.clone()).without_autodiff(),
            b: factors.b.without_autodiff(),
        }),
        head: head.without_autodiff(),
        hidden,
    };
    chunks(num_rows, chunk_rows)
        .map(|range| {
            let targets = targets.clone().slice([range.clone()]);
            score(plain.logits(range), targets)
        })
        .collect()
}

/// The narrow product of the factors and what it is multiplied with.
struct Narrow {
    /// `[rows, rank]`, `scale * hidden·a`
    rows: Tensor<2>,
    /// `[rank, vocab]`
    b: Tensor<2>,
}

/// A head without autodiff.
struct PlainHead {
    hidden: Tensor<2>,
    head: FrozenHead,
    narrow: Option<Narrow>,
}

impl PlainHead {
    /// `[chunk, vocab]`
    fn logits(&self, range: Range<usize>) -> Tensor<2> {
        let hidden = self.hidden.clone().slice([range.clone()]);
        let base = frozen_product(hidden, &self.head.weight);
        let logits = match &self.narrow {
            Some(narrow) => {
                let rows = narrow.rows.clone().slice([range]);
                add_product(base, rows, narrow.b.clone())
            }
            None => base,
        };
        self.head.cap(logits)
    }
}

/// Chunks as even as can be: a last one of another size would not fit into the memory of the one before it.
fn chunks(num_rows: usize, chunk_rows: usize) -> impl Iterator<Item = Range<usize>> {
    let num_chunks = num_rows.div_ceil(chunk_rows).max(1);
    let size = num_rows.div_ceil(num_chunks).max(1);
    (0..num_rows)
        .step_by(size)
        .map(move |start| start..(start + size).min(num_rows))
}

/// Moves a plain tensor to the autodiff device of another one, as a constant.
trait AutodiffAs {
    fn autodiff_as<const D: usize>(self, other: &Tensor<D>) -> Self;
}

impl<const N: usize> AutodiffAs for Tensor<N> {
    fn autodiff_as<const D: usize>(self, other: &Tensor<D>) -> Self {
        if other.is_autodiff() {
            self.autodiff()
        } else {
            self
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::{
        nn::loss::CrossEntropyLossConfig,
        tensor::{Device, Distribution, TensorData, Tolerance},
    };
    use proptest::prelude::*;

    use super::*;
    use crate::stored::{StoredMatrix, TensorDtype};

    const HIDDEN: usize = 6;
    const VOCAB: usize = 11;
    const RANK: usize = 2;

    #[test]
    fn chunks_cover_all_rows_once_and_are_even() {
        let of = |num_rows: usize, size: usize| -> Vec<Range<usize>> {
            chunks(num_rows, size).collect()
        };
        assert!(of(0, 4).is_empty());
        assert_eq!(of(9, 4), [0..3, 3..6, 6..9]);
        assert_eq!(of(1024, 96).len(), 11);
        assert!(of(1024, 96).iter().all(|chunk| chunk.len() > 80));
    }

    struct Case {
        hidden: Tensor<2>,
        weight: Tensor<2>,
        factors: LoraFactors,
        targets: Tensor<1, Int>,
    }

    fn case(num_rows: usize) -> Case {
        let device = Device::flex().autodiff();
        let random = |shape| Tensor::<2>::random(shape, Distribution::Normal(0.0, 1.0), &device);
        let targets: Vec<i64> = (0..num_rows).map(|row| (row * 7 % VOCAB) as i64).collect();
        Case {
            hidden: random([num_rows, HIDDEN]).require_grad(),
            weight: random([HIDDEN, VOCAB]),
            factors: LoraFactors {
                a: random([HIDDEN, RANK]).require_grad(),
                b: random([RANK, VOCAB]).require_grad(),
                scale: 0.8,
            },
            targets: Tensor::from_data(TensorData::new(targets, [num_rows]), &device),
        }
    }

    #[test]
    fn a_stored_head_is_as_the_same_head_in_f32() {
        let device = Device::flex().autodiff();
        let matrix = StoredMatrix::of_pattern(TensorDtype::Q5_0, [VOCAB, 32]);
        let stored = FrozenWeight::Stored {
            matrix,
            device: device.clone(),
        };
        let dense = FrozenWeight::Dense(stored.to_dense());
        let random = |shape| Tensor::<2>::random(shape, Distribution::Normal(0.0, 1.0), &device);
        let hidden = random([7, 32]).require_grad();
        let factors = LoraFactors {
            a: random([32, RANK]).require_grad(),
            b: random([RANK, VOCAB]).require_grad(),
            scale: 0.8,
        };
        let [found, expected] = [stored, dense].map(|weight| {
            let input = HeadInput {
                hidden: hidden.clone(),
                head: FrozenHead::uncapped(weight),
                factors: Some(factors.clone()),
            };
            let targets = Tensor::from_data([3, 1, 0, 10, 2, 2, 9], &device);
            let losses = cross_entropy_in_chunks(input, targets, 3);
            let grads = losses.mean_loss.backward();
            let of = |tensor: &Tensor<2>| tensor.grad(&grads).unwrap().into_data();
            [
                losses.row_losses.into_data(),
                of(&hidden),
                of(&factors.a),
                of(&factors.b),
            ]
        });
        for (found, expected) in found.iter().zip(&expected) {
            found.assert_approx_eq::<f32>(expected, Tolerance::absolute(1e-4));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn chunked_loss_and_gradients_equal_plain_cross_entropy(
            num_rows in 1usize..9, chunk_rows in 1usize..10, is_capped: bool
        ) {
            let case = case(num_rows);
            let logits = case.hidden.clone().matmul(case.weight.clone())
                + case.factors.apply(case.hidden.clone());
            let head = FrozenHead {
                weight: case.weight.clone().into(),
                soft_cap: is_capped.then_some(1.5),
            };
            let expected = CrossEntropyLossConfig::new()
                .init(&logits.device())
                .forward(head.cap(logits), case.targets.clone());
            let expected_grads = expected.backward();

            let input = HeadInput {
                hidden: case.hidden.clone(),
                head,
                factors: Some(case.factors.clone()),
            };
            let loss = cross_entropy_in_chunks(input.clone(), case.targets.clone(), chunk_rows);
            let grads = loss.mean_loss.backward();

            let tolerance = Tolerance::<f32>::rel_abs(1e-5, 1e-6);
            let mean = loss.row_losses.clone().mean().into_data();
            let expected = expected.inner().into_data();
            mean.assert_approx_eq(&expected, tolerance);
            loss.mean_loss.inner().into_data().assert_approx_eq(&expected, tolerance);
            for tensor in [&case.hidden, &case.factors.a, &case.factors.b] {
                tensor.grad(&grads).unwrap().into_data()
                    .assert_approx_eq(&tensor.grad(&expected_grads).unwrap().into_data(), tolerance);
            }
            let scored = score_in_chunks(input, case.targets, chunk_rows);
            scored.into_data().assert_approx_eq(&loss.row_losses.into_data(), tolerance);
        }
    }

    #[test]
    fn an_unadapted_head_scores_like_zero_factors() {
        let case = case(5);
        let input = |factors| HeadInput {
            hidden: case.hidden.clone(),
            head: FrozenHead::uncapped(case.weight.clone()),
            factors,
        };
        let zero = LoraFactors {
            b: case.factors.b.zeros_like(),
            ..case.factors.clone()
        };
        let bare = score_in_chunks(input(None), case.targets.clone(), 2);
        let zeroed = score_in_chunks(input(Some(zero)), case.targets.clone(), 3);
        bare.into_data()
            .assert_approx_eq::<f32>(&zeroed.into_data(), Tolerance::absolute(1e-6));
    }

    #[test]
    fn frozen_hidden_states_get_no_gradient() {
        let case = case(4);
        let input = HeadInput {
            hidden: case.hidden.clone().detach(),
            head: FrozenHead::uncapped(case.weight),
            factors: Some(case.factors.clone()),
        };
        let grads = linear_cross_entropy(input, case.targets)
            .mean_loss
            .backward();
        assert!(case.hidden.grad(&grads).is_none());
        assert!(case.factors.a.grad(&grads).is_some());
    }

    #[test]
    fn huge_logits_do_not_overflow() {
        let device = Device::flex();
        let input = HeadInput {
            hidden: Tensor::from_floats([[1000.0, 0.0]], &device),
            head: FrozenHead::uncapped(Tensor::from_floats([[1.0, -1.0], [0.0, 0.0]], &device)),
            factors: None,
        };
        let targets = Tensor::from_ints([1], &device);
        let loss: f32 = score_rows(input, targets).into_scalar();
        assert!((loss - 2000.0).abs() < 1e-2);
    }
}
