//! Low-rank changes of linear modules inside transformer layers, as one batch needs them.
//!
//! A value of [`LayerFactors`] is passed down a forward pass; each linear module asks it for what is to be added to
//! its output. What is trained, and how cores are generated, is [`layers`](crate::layers)'s business.

use std::collections::BTreeMap;

use burn::tensor::{Tensor, assert_shape};
use chameleon_core::{LowRankChange, RankMix};

/// How the ranks of static factors are mixed.
#[derive(Debug, Clone)]
pub enum Mix {
    /// Not at all, only multiplied: plain LoRA.
    Scale(f64),
    /// The same for every row, scale included; `[rank, rank]`.
    Shared(Tensor<2>),
    /// One for each row of the batch, or for each token where sequences lie one after the other in one row; scale
    /// included; `[batch or tokens, rank, rank]`.
    PerRow(Tensor<3>),
}

/// The change of one module: `(x·a)·mix·b`.
#[derive(Debug, Clone)]
pub struct ModuleChange {
    /// `[in, rank]`
    pub a: Tensor<2>,
    /// What stands between the factors.
    pub mix: Mix,
    /// `[rank, out]`
    pub b: Tensor<2>,
}

impl ModuleChange {
    /// The change where it is the same for all rows, to be made together with the frozen product.
    pub fn for_all_rows(&self) -> Option<LowRankChange> {
        let mix = match &self.mix {
            Mix::Scale(scale) => RankMix::Scale(*scale),
            Mix::Shared(mix) => RankMix::Matrix(mix.clone()),
            Mix::PerRow(_) => return None,
        };
        Some(LowRankChange {
            a: self.a.clone(),
            mix,
            b: self.b.clone(),
        })
    }

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
            Mix::Scale(scale) => x.matmul(self.a.clone()) * *scale,
            Mix::Shared(mix) => x.matmul(self.a.clone()).matmul(mix.clone()),
            Mix::PerRow(mix) => {
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

/// Matrix kernels choose how to add up by whether a product is small in both directions. In blocks of at most so many
/// rows, a narrow one always is, and no row's last bits depend on how many others there are.
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

/// The changes of all adapted modules, for the rows of one batch.
///
/// A module may carry several changes: rows of a batch may belong to different adapters.
#[derive(Debug, Clone, Default)]
pub struct LayerFactors {
    by_layer: BTreeMap<usize, Vec<(String, Vec<ModuleChange>)>>,
}

impl LayerFactors {
    /// No module is changed.
    pub const fn none() -> Self {
        Self {
            by_layer: BTreeMap::new(),
        }
    }

    /// Adds a change of the module `path`, such as `self_attn.q_proj`, of one layer.
    pub fn push(&mut self, layer_idx: usize, path: &str, change: ModuleChange) {
        let modules = self.by_layer.entry(layer_idx).or_default();
        match modules.iter_mut().find(|(name, _)| name == path) {
            Some((_, changes)) => changes.push(change),
            None => modules.push((path.to_owned(), vec![change])),
        }
    }

    /// The changes of one module, none if it is not adapted.
    pub fn changes(&self, layer_idx: usize, path: &str) -> &[ModuleChange] {
        self.by_layer
            .get(&layer_idx)
            .and_then(|modules| modules.iter().find(|(name, _)| name == path))
            .map_or(&[], |(_, changes)| changes)
    }

    /// The lowest layer with a change: below it, states are the frozen model's.
    pub fn first_layer(&self) -> Option<usize> {
        self.by_layer.keys().next().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, normal, values};

    fn change(mix: Mix) -> ModuleChange {
        ModuleChange {
            a: normal([6, 3], 1),
            mix,
            b: normal([3, 5], 2),
        }
    }

    #[test]
    fn a_row_gets_its_own_mix() {
        let (x, mixes) = (normal([4, 2, 6], 3), normal([4, 3, 3], 4));
        let together = change(Mix::PerRow(mixes.clone())).apply(x.clone());
        for row in 0..4 {
            let mix = mixes.clone().slice([row..=row]).squeeze_dim(0);
            let alone = change(Mix::Shared(mix)).apply(x.clone().slice([row..=row]));
            assert_close(&together.clone().slice([row..=row]), &alone);
        }
    }

    #[test]
    fn the_last_bits_of_a_row_do_not_depend_on_the_number_of_rows() {
        // Wide enough for kernels to add up in parts.
        let in_size = 1100;
        let change = |num_rows| ModuleChange {
            a: normal([in_size, 3], 1),
            mix: Mix::PerRow(normal([3, 3], 5).unsqueeze::<3>().repeat_dim(0, num_rows)),
            b: normal([3, 200], 2),
        };
        let x = normal([200, in_size], 3);
        let all = values(change(200).apply(x.clone().unsqueeze()));
        for num_rows in [2, 3, 64, 65, 129] {
            let some = x.clone().slice([0..num_rows]).unsqueeze();
            let some = values(change(num_rows).apply(some));
            assert!(some == all[..some.len()], "{num_rows} rows");
        }
    }

    #[test]
    fn a_scale_is_a_multiple_of_the_identity() {
        let x = normal([2, 3, 6], 3);
        let identity = Tensor::eye(3, &x.device()) * 0.7;
        assert_close(
            &change(Mix::Scale(0.7)).apply(x.clone()),
            &change(Mix::Shared(identity)).apply(x),
        );
    }

    #[test]
    fn changes_are_found_by_layer_and_name() {
        let mut factors = LayerFactors::none();
        assert_eq!(factors.first_layer(), None);
        factors.push(5, "mlp.up_proj", change(Mix::Scale(1.0)));
        factors.push(3, "mlp.up_proj", change(Mix::Scale(1.0)));
        factors.push(5, "mlp.up_proj", change(Mix::Scale(2.0)));
        assert_eq!(factors.first_layer(), Some(3));
        assert_eq!(factors.changes(5, "mlp.up_proj").len(), 2);
        assert!(factors.changes(5, "mlp.down_proj").is_empty());
        assert!(factors.changes(4, "mlp.up_proj").is_empty());
    }
}
