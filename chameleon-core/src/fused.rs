//! Operations that are one pass over memory instead of many: fast on the CPU, the same everywhere.
//!
//! Each has a plain twin made of Burn's own operations, which any backend runs. On flex, our kernels replace it
//! where tensors are f32: loops that the compiler vectorises for the CPU that runs them, on
//! all threads, with backward passes of their own. Both agree, values and gradients, to rounding.
//!
//! A row's result never depends, not even in its last bit, on how many other rows there are. Nothing here knows a
//! model.

#[cfg(feature = "flex")]
mod flex;
mod inputs;
#[cfg(feature = "flex")]
mod kernels;
mod plain;

use burn::tensor::{Int, Tensor, assert_shape};

pub use self::inputs::{CausalAttention, LinearInput, RotaryHalves, ScoreRule};
pub(crate) use self::inputs::{GroupedRows, RowCrossEntropy};
use crate::factors::LoraFactors;
use crate::frozen_weight::FrozenWeight;
use crate::low_rank::{LowRankChange, RankMix};

/// `lhs · rhs` of plain tensors.
///
/// # Shapes
///
/// - `lhs`: `[rows, inner]`, `rhs`: `[inner, columns]`
/// - output: `[rows, columns]`
pub(crate) fn product(lhs: Tensor<2>, rhs: Tensor<2>) -> Tensor<2> {
    #[cfg(feature = "flex")]
    if flex::runs(&lhs) && flex::runs(&rhs) {
        return flex::product(lhs, rhs);
    }
    lhs.matmul(rhs)
}

/// `sum + lhs · rhs` of plain tensors, in place if no other tensor shares the memory of `sum`.
///
/// # Shapes
///
/// - `lhs`: `[rows, inner]`, `rhs`: `[inner, columns]`
/// - `sum`, output: `[rows, columns]`
pub(crate) fn add_product(sum: Tensor<2>, lhs: Tensor<2>, rhs: Tensor<2>) -> Tensor<2> {
    #[cfg(feature = "flex")]
    if flex::runs(&sum) && flex::runs(&lhs) && flex::runs(&rhs) {
        return flex::add_product(sum, lhs, rhs);
    }
    sum + lhs.matmul(rhs)
}

/// Plain rows through a frozen weight.
///
/// # Shapes
///
/// - `x`: `[rows, in]`
/// - output: `[rows, out]`
///
/// # Panics
///
/// When the width is another.
pub fn frozen_product(x: Tensor<2>, weight: &FrozenWeight) -> Tensor<2> {
    match weight {
        FrozenWeight::Dense(weight) => product(x, weight.clone()),
        #[cfg(feature = "flex")]
        FrozenWeight::Stored { matrix, .. } if flex::runs(&x) => {
            flex::stored_product(x, matrix.clone())
        }
        FrozenWeight::Stored { matrix, .. } => {
            let dense = matrix.to_dense(&x.device());
            product(x, dense)
        }
    }
}

/// What the gradient of a frozen weight's output becomes for its input; plain tensors.
///
/// # Shapes
///
/// - `grad`: `[rows, out]`
/// - output: `[rows, in]`
pub(crate) fn input_gradient(grad: Tensor<2>, weight: &FrozenWeight) -> Tensor<2> {
    match weight {
        FrozenWeight::Dense(weight) => product(grad, weight.clone().transpose()),
        #[cfg(feature = "flex")]
        FrozenWeight::Stored { matrix, .. } if flex::runs(&grad) => {
            flex::stored_input_gradient(grad, matrix.clone())
        }
        FrozenWeight::Stored { matrix, .. } => {
            let dense = matrix.to_dense(&grad.device());
            product(grad, dense.transpose())
        }
    }
}

/// `sum + scale * (x · a) · b`, each row with the factors of its own group; in place if no other tensor shares the
/// memory of `sum`.
///
/// # Shapes
///
/// - `sum`, output: `[rows, out]`
///
/// # Panics
///
/// When the shapes do not fit each other, or a row has a group that does not exist.
pub(crate) fn add_grouped(sum: Tensor<2>, rows: &GroupedRows<'_>) -> Tensor<2> {
    let [num_rows, out_size] = sum.dims();
    let [_, in_size] = rows.x.dims();
    assert_shape!(rows.x, [num_rows, in_size]);
    assert_eq!(rows.row_groups.len(), num_rows, "a group for each row");
    for LoraFactors { a, b, .. } in rows.groups {
        let [_, rank] = a.dims();
        assert_shape!(a, [in_size, rank]);
        assert_shape!(b, [rank, out_size]);
    }
    #[cfg(feature = "flex")]
    {
        let mut factors = rows.groups.iter().flat_map(|group| [&group.a, &group.b]);
        if flex::runs_unrecorded(&sum)
            && flex::runs_unrecorded(&rows.x)
            && factors.all(flex::runs_unrecorded)
        {
            return flex::add_grouped(sum, rows);
        }
    }
    plain::add_grouped(sum, rows)
}

/// Cross-entropy of plain logits and its gradient, in place if no other tensor shares the memory of `logits`.
///
/// # Shapes
///
/// - `logits`: `[rows, vocab]`, `targets`, `weights`: `[rows]`
pub(crate) fn cross_entropy(
    logits: Tensor<2>,
    targets: Tensor<1, Int>,
    weights: Tensor<1>,
) -> RowCrossEntropy {
    let [num_rows, _] = logits.dims();
    assert_shape!(targets, [num_rows]);
    assert_shape!(weights, [num_rows]);
    #[cfg(feature = "flex")]
    if flex::runs(&logits) && flex::runs(&weights) {
        return flex::cross_entropy(logits, targets, weights);
    }
    plain::cross_entropy(logits, targets, weights)
}

/// Cross-entropy of plain logits.
///
/// # Shapes
///
/// - `logits`: `[rows, vocab]`, `targets`: `[rows]`
/// - output: `[rows]`
pub(crate) fn cross_entropy_losses(logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    let [num_rows, _] = logits.dims();
    assert_shape!(targets, [num_rows]);
    #[cfg(feature = "flex")]
    if flex::runs(&logits) {
        return flex::cross_entropy_losses(logits, targets);
    }
    plain::cross_entropy_losses(logits, targets)
}

/// `gate * sigmoid(gate) * up`.
///
/// # Shapes
///
/// - `gate`, `up`, output: `[batch, seq, intermediate]`
///
/// # Panics
///
/// When the shapes differ.
pub fn swiglu(gate: Tensor<3>, up: Tensor<3>) -> Tensor<3> {
    let [batch, seq_len, width] = gate.dims();
    assert_shape!(up, [batch, seq_len, width]);
    #[cfg(feature = "flex")]
    if flex::runs(&gate) && flex::runs(&up) {
        return flex::swiglu(gate, up);
    }
    plain::silu(gate) * up
}

/// GELU by its tanh approximation.
///
/// # Shapes
///
/// - `x`, output: `[batch, seq, intermediate]`
pub fn gelu_tanh(x: Tensor<3>) -> Tensor<3> {
    #[cfg(feature = "flex")]
    if flex::runs(&x) {
        return flex::gelu_tanh(x);
    }
    plain::gelu_tanh(x)
}

/// Rows divided by the root of their mean square, then scaled.
///
/// # Shapes
///
/// - `x`, output: `[batch, seq, hidden]`, `scale`: `[hidden]`
///
/// # Panics
///
/// When the shapes do not fit each other.
pub fn rms_norm(x: Tensor<3>, scale: Tensor<1>, epsilon: f64) -> Tensor<3> {
    let [_, _, hidden_size] = x.dims();
    assert_shape!(scale, [hidden_size]);
    #[cfg(feature = "flex")]
    if flex::runs(&x) && flex::runs(&scale) && !scale.is_tracked() {
        #[expect(clippy::cast_possible_truncation, reason = "the rows are f32")]
        return flex::rms_norm(x, scale, epsilon as f32);
    }
    plain::rms_norm(x, scale, epsilon)
}

/// Softmax of the scaled, causally masked scores times the values, heads side by side.
///
/// # Shapes
///
/// - output: `[batch, seq, heads * head_dim]`
///
/// # Panics
///
/// When the shapes do not fit each other.
pub fn causal_attention(input: CausalAttention) -> Tensor<3> {
    let [batch, seq_len, kv_width] = input.key.dims();
    let [_, _, width] = input.query.dims();
    assert_shape!(input.query, [batch, seq_len, width]);
    assert_shape!(input.value, [batch, seq_len, kv_width]);
    assert!(
        kv_width % input.head_dim == 0 && width % kv_width == 0,
        "heads of {} in {width} and {kv_width}",
        input.head_dim
    );
    if let Some(rotary) = &input.rotary {
        let [num_rows, _, _, half] = rotary.cos.dims();
        assert!(
            half <= input.head_dim / 2,
            "{half} pairs in {}",
            input.head_dim
        );
        assert_shape!(rotary.cos, [num_rows, 1, seq_len, half]);
        assert_shape!(rotary.sin, [num_rows, 1, seq_len, half]);
    }
    #[cfg(feature = "flex")]
    {
        let positions_are_shared = input
            .rotary
            .as_ref()
            .is_none_or(|rotary| rotary.cos.dims()[0] == 1);
        let inputs = [&input.query, &input.key, &input.value];
        if positions_are_shared && inputs.into_iter().all(flex::runs) {
            return flex::causal_attention(input);
        }
    }
    plain::causal_attention(&input)
}

/// `x · weight + bias` of a frozen linear module, with a change if it has one.
///
/// # Shapes
///
/// - output: `[batch, seq, out]`
///
/// # Panics
///
/// When the shapes do not fit each other.
pub fn linear(input: LinearInput) -> Tensor<3> {
    let LinearInput {
        x,
        weight,
        bias,
        change,
    } = input;
    let biased = |output: Tensor<3>| match bias {
        Some(bias) => output + bias.unsqueeze(),
        None => output,
    };
    match change {
        // Not one matrix product for all rows, so it cannot be fused with the frozen one.
        Some(change) if matches!(change.mix, RankMix::PerRow(_)) => {
            let added = change.apply(x.clone());
            biased(product_with_change(x, weight, None)) + added
        }
        change => biased(product_with_change(x, weight, change)),
    }
}

fn product_with_change(
    x: Tensor<3>,
    weight: FrozenWeight,
    change: Option<LowRankChange>,
) -> Tensor<3> {
    let [_, _, in_size] = x.dims();
    let [weight_in_size, out_size] = weight.dims();
    assert_eq!(in_size, weight_in_size, "the input of a linear module");
    if let Some(LowRankChange { a, b, .. }) = &change {
        let [_, rank] = a.dims();
        assert_shape!(a, [in_size, rank]);
        assert_shape!(b, [rank, out_size]);
    }
    #[cfg(feature = "flex")]
    if flex::runs(&x) && flex::is_frozen(&weight) {
        match change {
            None => return flex::linear(x, weight),
            Some(change) if flex::runs(&change.a) && flex::runs(&change.b) => {
                return flex::adapted_linear(x, weight, change);
            }
            change => return plain::linear(x, weight.to_dense(), change),
        }
    }
    plain::linear(x, weight.to_dense(), change)
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution, TensorData, Tolerance};

    use super::*;
    use crate::stored::{StoredMatrix, TensorDtype};

    fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
        Tensor::random(shape, Distribution::Normal(0.0, 2.0), &Device::flex())
    }

    fn targets(num_rows: usize, vocab: usize) -> Tensor<1, Int> {
        let ids: Vec<i64> = (0..num_rows).map(|row| (row * 7 % vocab) as i64).collect();
        Tensor::from_data(TensorData::new(ids, [num_rows]), &Device::flex())
    }

    /// Equal to a share of the largest value: large terms that cancel leave their rounding behind.
    fn assert_close<const D: usize>(found: Tensor<D>, expected: Tensor<D>) {
        let largest: f32 = expected.clone().abs().max().into_scalar();
        found.into_data().assert_approx_eq::<f32>(
            &expected.into_data(),
            Tolerance::absolute(1e-5 * f64::from(largest.max(1.0))),
        );
    }

    /// Values and the gradients of a weighted sum of them.
    fn with_gradients<const N: usize>(
        compute: impl Fn(&[Tensor<3>; N]) -> Tensor<3>,
        inputs: &[Tensor<3>; N],
    ) -> Vec<Tensor<3>> {
        let tracked = inputs.clone().map(|input| input.autodiff().require_grad());
        let output = compute(&tracked);
        let [a, b, c] = output.dims();
        let weights = Tensor::<1, Int>::arange(0..(a * b * c) as i64, &Device::flex())
            .float()
            .sin()
            .reshape([a, b, c]);
        let grads = (output.clone() * weights.autodiff()).sum().backward();
        let mut results = vec![output.inner()];
        results.extend(tracked.iter().map(|input| input.grad(&grads).unwrap()));
        results
    }

    fn assert_twins<const N: usize>(
        inputs: &[Tensor<3>; N],
        fused: impl Fn(&[Tensor<3>; N]) -> Tensor<3>,
        plain: impl Fn(&[Tensor<3>; N]) -> Tensor<3>,
    ) {
        let untracked = fused(inputs);
        let found = with_gradients(fused, inputs);
        for (found, expected) in found.iter().zip(with_gradients(plain, inputs)) {
            assert_close(found.clone(), expected);
        }
        assert_close(untracked, found[0].clone());
    }

    /// `[1, in, out]` as a matrix.
    fn matrix(x: &Tensor<3>) -> Tensor<2> {
        x.clone().squeeze_dim(0)
    }

    #[test]
    fn activations_are_their_plain_twins() {
        let far = Tensor::<1, Int>::arange(-400..400, &Device::flex());
        let far = (far.float() * 0.5).reshape([2, 10, 40]);
        for x in [random([2, 10, 40]), far] {
            let up = random([2, 10, 40]);
            assert_twins(
                &[x.clone(), up],
                |[gate, up]| swiglu(gate.clone(), up.clone()),
                |[gate, up]| plain::silu(gate.clone()) * up.clone(),
            );
            assert_twins(
                &[x],
                |[x]| gelu_tanh(x.clone()),
                |[x]| plain::gelu_tanh(x.clone()),
            );
        }
    }

    #[test]
    fn norms_are_their_plain_twins() {
        let scale = random([37]);
        assert_twins(
            &[random([2, 19, 37])],
            |[x]| rms_norm(x.clone(), scale.clone(), 1e-5),
            |[x]| plain::rms_norm(x.clone(), scale.clone(), 1e-5),
        );
    }

    #[test]
    fn attention_is_its_plain_twin_in_one_block_and_in_several() {
        let head_dim = 6;
        let plain_rule = ScoreRule::of_head(head_dim);
        let rules = [
            plain_rule,
            ScoreRule {
                scale: 0.3,
                soft_cap: Some(2.5),
                window: Some(5),
            },
            ScoreRule {
                window: Some(150),
                ..plain_rule
            },
        ];
        for (batch, seq_len, num_heads, num_kv_heads) in
            [(2, 7, 4, 2), (1, 1, 2, 2), (1, 300, 3, 1)]
        {
            let rotary = |pairs: usize| {
                let angles: Tensor<4> = random([1, 1, seq_len, pairs]);
                Some(RotaryHalves {
                    cos: angles.clone().cos(),
                    sin: angles.sin(),
                })
            };
            let rotaries = [None, rotary(head_dim / 2), rotary(1)];
            for (rotary, rule) in rotaries
                .iter()
                .flat_map(|rotary| rules.map(|rule| (rotary, rule)))
            {
                let input = |[query, key, value]: &[Tensor<3>; 3]| CausalAttention {
                    query: query.clone(),
                    key: key.clone(),
                    value: value.clone(),
                    head_dim,
                    rotary: rotary.clone(),
                    rule,
                };
                let rows = |heads| random([batch, seq_len, heads * head_dim]);
                assert_twins(
                    &[rows(num_heads), rows(num_kv_heads), rows(num_kv_heads)],
                    |inputs| causal_attention(input(inputs)),
                    |inputs| plain::causal_attention(&input(inputs)),
                );
            }
        }
    }

    #[test]
    fn tokens_before_the_window_change_nothing() {
        let rows = || random([1, 9, 6]);
        let [query, key, value] = [rows(), rows(), rows()];
        let attended = |key: Tensor<3>, value: Tensor<3>| {
            let input = CausalAttention {
                query: query.clone(),
                key,
                value,
                head_dim: 6,
                rotary: None,
                rule: ScoreRule {
                    window: Some(3),
                    ..ScoreRule::of_head(6)
                },
            };
            causal_attention(input).narrow(1, 6, 3)
        };
        let other =
            |x: &Tensor<3>| Tensor::cat(vec![random([1, 4, 6]), x.clone().narrow(1, 4, 5)], 1);
        let found = attended(other(&key), other(&value)).into_data();
        found.assert_eq(&attended(key.clone(), value.clone()).into_data(), true);
    }

    #[test]
    fn adapted_linear_modules_are_their_plain_twins() {
        let (x, weight): (_, Tensor<2>) = (random([2, 9, 32]), random([32, 20]));
        let factors = || [random([1, 32, 3]), random([1, 3, 20])];
        let [a, b] = factors();
        let transposed = (weight.clone().transpose() * 1.0).transpose();
        let stored = FrozenWeight::Stored {
            matrix: StoredMatrix::of_pattern(TensorDtype::Q4_1, [20, 32]),
            device: Device::flex(),
        };
        for frozen in [weight.into(), transposed.into(), stored] {
            let weight = frozen.to_dense();
            let adapted = |x, change| {
                linear(LinearInput {
                    x,
                    weight: frozen.clone(),
                    bias: None,
                    change: Some(change),
                })
            };
            let scaled = |[_, a, b]: &[Tensor<3>; 3]| LowRankChange {
                a: matrix(a),
                mix: RankMix::Scale(0.7),
                b: matrix(b),
            };
            assert_twins(
                &[x.clone(), a.clone(), b.clone()],
                |inputs| adapted(inputs[0].clone(), scaled(inputs)),
                |inputs| plain::linear(inputs[0].clone(), weight.clone(), Some(scaled(inputs))),
            );
            let mixed = |[_, a, mix, b]: &[Tensor<3>; 4]| LowRankChange {
                a: matrix(a),
                mix: RankMix::Matrix(matrix(mix)),
                b: matrix(b),
            };
            assert_twins(
                &[x.clone(), a.clone(), random([1, 3, 3]), b.clone()],
                |inputs| adapted(inputs[0].clone(), mixed(inputs)),
                |inputs| plain::linear(inputs[0].clone(), weight.clone(), Some(mixed(inputs))),
            );
            let per_row = LowRankChange {
                a: matrix(&a),
                mix: RankMix::PerRow(random([2, 3, 3])),
                b: matrix(&b),
            };
            assert_close(
                adapted(x.clone(), per_row.clone()),
                plain::linear(x.clone(), weight.clone(), None) + per_row.apply(x.clone()),
            );
            let bias = random([20]);
            assert_twins(
                std::array::from_ref(&x),
                |[x]| {
                    linear(LinearInput {
                        x: x.clone(),
                        weight: frozen.clone(),
                        bias: Some(bias.clone()),
                        change: None,
                    })
                },
                |[x]| plain::linear(x.clone(), weight.clone(), None) + bias.clone().unsqueeze(),
            );
        }
    }

    #[test]
    fn changes_by_groups_are_their_plain_twins_at_any_width_and_rank() {
        let row_groups =
            [0, 0, 2, 1, 0, 0, 9, 2, 2, 0, 9, 0, 1].map(|idx| (idx < 9).then_some(idx));
        for (in_size, out_size) in [(1, 1), (3, 65), (37, 5), (64, 128), (130, 200)] {
            for rank in [1, 2, 3, 4, 7, 8, 16, 19, 40] {
                let groups = [rank, rank, rank + 1].map(|rank| LoraFactors {
                    a: random([in_size, rank]),
                    b: random([rank, out_size]),
                    scale: 0.7,
                });
                let rows = GroupedRows {
                    x: random([row_groups.len(), in_size]),
                    groups: &groups,
                    row_groups: &row_groups,
                };
                let sum = random([row_groups.len(), out_size]);
                let expected = plain::add_grouped(sum.clone(), &rows);
                assert_close(add_grouped(sum, &rows), expected);
                let transposed = groups.clone().map(|group| LoraFactors {
                    a: (group.a.transpose() * 1.0).transpose(),
                    ..group
                });
                let sum = Tensor::zeros([row_groups.len(), out_size], &Device::flex());
                let rows_of_transposed = GroupedRows {
                    groups: &transposed,
                    ..rows.clone()
                };
                let found = add_grouped(sum.clone(), &rows_of_transposed);
                found
                    .into_data()
                    .assert_eq(&add_grouped(sum, &rows).into_data(), true);
            }
        }
    }

    #[test]
    fn a_row_does_not_depend_on_the_other_rows() {
        let (x, scale) = (random([1, 40, 50]), random([50]));
        let all = rms_norm(x.clone(), scale.clone(), 1e-5);
        let gates = swiglu(x.clone(), x.clone());
        for row in [0, 17, 39] {
            let alone = x.clone().narrow(1, row, 1);
            let same = |found: Tensor<3>, all: &Tensor<3>| {
                let expected = all.clone().narrow(1, row, 1).into_data();
                found.into_data().assert_eq(&expected, true);
            };
            same(rms_norm(alone.clone(), scale.clone(), 1e-5), &all);
            same(swiglu(alone.clone(), alone), &gates);
        }
    }

    #[test]
    fn cross_entropy_is_its_plain_twin() {
        for (num_rows, vocab) in [(1, 1), (3, 31), (5, 32), (4, 1000)] {
            let (logits, weights) = (random([num_rows, vocab]) * 20.0, random([num_rows]));
            let targets = targets(num_rows, vocab);
            let found = cross_entropy(logits.clone(), targets.clone(), weights.clone());
            let expected = plain::cross_entropy(logits.clone(), targets.clone(), weights);
            assert_close(found.losses.clone(), expected.losses);
            assert_close(found.gradient, expected.gradient);
            assert_close(cross_entropy_losses(logits, targets), found.losses);
        }
    }

    #[test]
    fn products_are_those_of_burn_whatever_the_layout() {
        let (lhs, rhs) = (random([70, 40]), random([40, 90]));
        let expected = lhs.clone().matmul(rhs.clone());
        let transposed = |x: &Tensor<2>| (x.clone().transpose() * 1.0).transpose();
        for lhs in [lhs.clone(), transposed(&lhs)] {
            for rhs in [rhs.clone(), transposed(&rhs)] {
                let found = product(lhs.clone(), rhs.clone());
                assert_close(found.clone(), expected.clone());
                let twice = add_product(found, lhs.clone(), rhs);
                assert_close(twice, expected.clone() * 2.0);
            }
        }
    }

    #[test]
    fn a_shared_sum_is_not_overwritten() {
        let (sum, lhs, rhs) = (random([2, 3]), random([2, 4]), random([4, 3]));
        let before = sum.to_data();
        let _ = add_product(sum.clone(), lhs, rhs);
        sum.into_data().assert_eq(&before, true);
    }
}
