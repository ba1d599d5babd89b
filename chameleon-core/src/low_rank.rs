//! A low-rank change of one linear module inside a layer, for the rows of one batch.

use burn::tensor::{Tensor, assert_shape};

/// A low-rank change of a linear module: `(x·a)·mix·b` is added to its output.
#[derive(Debug, Clone)]
pub struct LowRankChange {
    /// `[in, rank]`
    pub a: Tensor<2>,
    /// What stands between the factors.
    pub mix: RankMix,
    /// `[rank, out]`
    pub b: Tensor<2>,
}

/// What stands between two factors.
#[derive(Debug, Clone)]
pub enum RankMix {
    /// A multiplier: plain LoRA.
    Scale(f64),
    /// One matrix for all rows, scale included; `[rank, rank]`.
    Matrix(Tensor<2>),
    /// One for each row of the batch, or for each token where sequences lie one after the other in one row; scale
    /// included; `[batch or tokens, rank, rank]`.
    PerRow(Tensor<3>),
}

impl LowRankChange {
    /// What is added to the frozen module's output.
    ///
    /// # Shapes
    ///
    /// - `x`: `[batch, seq, in]`
    /// - output: `[batch, seq, out]`
    ///
    /// # Panics
    ///
    /// When the shapes do not fit each other.
    pub fn apply(&self, x: Tensor<3>) -> Tensor<3> {
        let [batch, seq_len, in_size] = x.dims();
        let [_, rank] = self.a.dims();
        let [_, out_size] = self.b.dims();
        let num_rows = batch * seq_len;
        let x = x.reshape([num_rows, in_size]);
        let mixed = match &self.mix {
            RankMix::Scale(scale) => x.matmul(self.a.clone()) * *scale,
            RankMix::Matrix(mix) => x.matmul(self.a.clone()).matmul(mix.clone()),
            RankMix::PerRow(mix) => {
                let narrow = narrow_product(x, self.a.clone()); // [batch * seq, rank]
                let [num_mixes, _, _] = mix.dims();
                assert_shape!(mix, [num_mixes, rank, rank]);
                narrow
                    .reshape([num_mixes, num_rows / num_mixes, rank])
                    .matmul(mix.clone())
                    .reshape([num_rows, rank])
            }
        };
        mixed
            .matmul(self.b.clone())
            .reshape([batch, seq_len, out_size])
    }
}

/// Matrix kernels choose the order of summation by whether a product is small in both directions. In blocks of at most
/// this many rows, a narrow one always is, and no row's last bits depend on how many others there are.
const ROW_BLOCK: usize = 64;

/// `x·a`, the same for each row whatever the number of rows, as long as that is not one.
///
/// # Shapes
///
/// - `x`: `[rows, in]`, `a`: `[in, rank]`
/// - output: `[rows, rank]`
fn narrow_product(x: Tensor<2>, a: Tensor<2>) -> Tensor<2> {
    let [num_rows, _] = x.dims();
    if num_rows <= ROW_BLOCK || x.is_tracked() || a.is_tracked() {
        return x.matmul(a);
    }
    // Blocks differ in size by one row at most, so none has a single row.
    let num_blocks = num_rows.div_ceil(ROW_BLOCK);
    let blocks = (0..num_blocks)
        .map(|block_idx| {
            let first = block_idx * num_rows / num_blocks;
            let end = (block_idx + 1) * num_rows / num_blocks;
            x.clone().narrow(0, first, end - first).matmul(a.clone())
        })
        .collect();
    Tensor::cat(blocks, 0)
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution, Tolerance};

    use super::*;

    fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
        Tensor::random(shape, Distribution::Normal(0.0, 1.0), &Device::flex())
    }

    fn assert_close(left: Tensor<3>, right: &Tensor<3>) {
        left.into_data()
            .assert_approx_eq::<f32>(&right.to_data(), Tolerance::absolute(1e-4));
    }

    #[test]
    fn a_row_gets_its_own_mix() {
        let (x, mixes) = (random([4, 2, 6]), random([4, 3, 3]));
        let (a, b) = (random([6, 3]), random([3, 5]));
        let change = |mix| LowRankChange {
            a: a.clone(),
            mix,
            b: b.clone(),
        };
        let together = change(RankMix::PerRow(mixes.clone())).apply(x.clone());
        for row in 0..4 {
            let mix = mixes.clone().slice([row..=row]).squeeze_dim(0);
            let alone = change(RankMix::Matrix(mix)).apply(x.clone().slice([row..=row]));
            assert_close(together.clone().slice([row..=row]), &alone);
        }
    }

    #[test]
    fn the_last_bits_of_a_row_do_not_depend_on_the_number_of_rows() {
        // Wide enough for kernels to add up in parts.
        let in_size = 1100;
        let (a, b, mix) = (random([in_size, 3]), random([3, 200]), random([1, 3, 3]));
        let change = |num_rows| LowRankChange {
            a: a.clone(),
            mix: RankMix::PerRow(mix.clone().repeat_dim(0, num_rows)),
            b: b.clone(),
        };
        let values = |x: Tensor<3>| -> Vec<f32> { x.into_data().iter().collect() };
        let x: Tensor<2> = random([200, in_size]);
        let all = values(change(200).apply(x.clone().unsqueeze()));
        for num_rows in [2, 3, 64, 65, 129] {
            let some = x.clone().slice([0..num_rows]).unsqueeze();
            let some = values(change(num_rows).apply(some));
            assert!(some == all[..some.len()], "{num_rows} rows");
        }
    }

    #[test]
    fn a_scale_is_a_multiple_of_the_identity() {
        let (x, a, b) = (random([2, 3, 6]), random([6, 3]), random([3, 5]));
        let identity = Tensor::eye(3, &x.device()) * 0.7;
        let change = |mix| LowRankChange {
            a: a.clone(),
            mix,
            b: b.clone(),
        };
        assert_close(
            change(RankMix::Scale(0.7)).apply(x.clone()),
            &change(RankMix::Matrix(identity)).apply(x),
        );
    }
}
