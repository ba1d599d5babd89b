//! From the order in which a file stores a tensor to the order in which the module holds it.

use rayon::prelude::*;

use crate::files::name_table::{Container, Layout};

/// How one stored tensor differs from the module's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StoredLayout {
    /// The two axes are swapped; has no meaning for tensors of other than two axes.
    transposed: bool,
    /// Within each of so many heads, row `i` and row `i + head_dim / 2` are stored as neighbours.
    rotary_heads: Option<usize>,
}

impl StoredLayout {
    /// As the module holds it.
    pub(crate) const SAME: Self = Self {
        transposed: false,
        rotary_heads: None,
    };

    /// `num_heads` is that of the tensor, if its rows belong to heads.
    pub(crate) fn new(layout: Layout, container: Container, num_heads: usize) -> Self {
        let is_gguf = container == Container::Gguf;
        Self {
            transposed: match layout {
                Layout::Same => false,
                Layout::Linear | Layout::Rotary(_) => true,
                Layout::Conv1d => is_gguf,
            },
            rotary_heads: (is_gguf && matches!(layout, Layout::Rotary(_))).then_some(num_heads),
        }
    }

    /// The shape in the module; `None` if a tensor of the stored shape cannot have this layout.
    pub(crate) fn shape(self, stored: &[usize]) -> Option<Vec<usize>> {
        let whole_pairs = |num_heads: usize| {
            num_heads
                .checked_mul(2)
                .is_some_and(|pairs| pairs > 0 && stored[0].is_multiple_of(pairs))
        };
        if !self.rotary_heads.is_none_or(whole_pairs) {
            return None;
        }
        let mut shape = stored.to_vec();
        if self.transposed && shape.len() == 2 {
            shape.reverse();
        }
        Some(shape)
    }

    /// Whether a matrix has its axes swapped.
    pub(crate) fn is_transposed(self) -> bool {
        self.transposed
    }

    /// Where each of the rows is stored, if their order is another.
    pub(crate) fn order(self, num_rows: usize) -> Option<Vec<u32>> {
        self.rotary_heads?;
        let stored_rows = (0..num_rows).map(|row| self.stored_row(row, num_rows));
        Some(
            stored_rows
                .map(|row| u32::try_from(row).expect("a row of a tensor that fits in memory"))
                .collect(),
        )
    }

    /// Where row `row` of `num_rows` is stored.
    fn stored_row(self, row: usize, num_rows: usize) -> usize {
        let Some(num_heads) = self.rotary_heads else {
            return row;
        };
        let head_dim = num_rows / num_heads;
        let half = head_dim / 2;
        let (head, within) = (row / head_dim, row % head_dim);
        head * head_dim + 2 * (within % half) + within / half
    }

    /// The values in the module's order; `shape` is that of the file.
    pub(crate) fn restore(self, stored: Vec<f32>, shape: &[usize]) -> Vec<f32> {
        match *shape {
            [num_rows, num_columns] if self.transposed => {
                self.transpose(&stored, num_rows, num_columns)
            }
            [num_rows, ..] if self.rotary_heads.is_some() => {
                let row_len = stored.len() / num_rows;
                (0..num_rows)
                    .flat_map(|row| &stored[self.stored_row(row, num_rows) * row_len..][..row_len])
                    .copied()
                    .collect()
            }
            _ => stored,
        }
    }

    fn transpose(self, stored: &[f32], num_rows: usize, num_columns: usize) -> Vec<f32> {
        /// Columns of the source go in strips, so that a cache line of it is used whole.
        const STRIP: usize = 16;
        let mut values = vec![0.0; stored.len()];
        values
            .par_chunks_mut(STRIP * num_rows)
            .enumerate()
            .for_each(|(strip_idx, strip)| {
                let first_column = strip_idx * STRIP;
                for row in 0..num_rows {
                    let start = self.stored_row(row, num_rows) * num_columns + first_column;
                    let columns = strip.chunks_exact_mut(num_rows);
                    for (column, &value) in columns.zip(&stored[start..]) {
                        column[row] = value;
                    }
                }
            });
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::name_table::Heads;

    #[test]
    fn rotary_pairs_become_halves_within_each_head() {
        // Two heads of four rows, one value a row; stored as pairs of (i, i + 2).
        let stored = vec![0., 2., 1., 3., 10., 12., 11., 13.];
        let layout = StoredLayout::new(Layout::Rotary(Heads::Query), Container::Gguf, 2);
        let expected = [0., 1., 2., 3., 10., 11., 12., 13.];
        assert_eq!(layout.restore(stored.clone(), &[8]), expected);
        assert_eq!(layout.restore(stored, &[8, 1]), expected);
    }

    #[test]
    fn rows_and_axes_are_restored_at_once() {
        // One head of four rows of two values, stored as pairs of (i, i + 2).
        let stored = vec![0., 1., 20., 21., 10., 11., 30., 31.];
        let layout = StoredLayout::new(Layout::Rotary(Heads::Query), Container::Gguf, 1);
        assert_eq!(layout.shape(&[4, 2]), Some(vec![2, 4]));
        assert_eq!(
            layout.restore(stored, &[4, 2]),
            [0., 10., 20., 30., 1., 11., 21., 31.]
        );
    }

    #[test]
    fn transposing_swaps_the_axes() {
        for (num_rows, num_columns) in [(2, 3), (1, 1), (5, 40), (33, 17)] {
            let stored: Vec<f32> = (0..num_rows * num_columns).map(|idx| idx as f32).collect();
            let layout = StoredLayout::new(Layout::Linear, Container::HuggingFace, 0);
            let found = layout.restore(stored.clone(), &[num_rows, num_columns]);
            for row in 0..num_rows {
                for column in 0..num_columns {
                    let stored = stored[row * num_columns + column].to_bits();
                    assert_eq!(found[column * num_rows + row].to_bits(), stored);
                }
            }
        }
    }
}
