//! From the order in which a file stores a tensor to the order in which the module holds it.

use rayon::prelude::*;

use crate::files::name_table::{Container, Layout};

/// How one stored tensor differs from the module's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StoredLayout {
    /// The two axes are swapped; has no meaning for tensors of other than two axes.
    transposed: bool,
    /// The order in which rows are stored.
    rows: RowOrder,
    /// The values are stored less one.
    one_less: bool,
}

/// The order in which the rows of a tensor are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RowOrder {
    /// That of the module.
    Same,
    /// Within each of so many heads, row `i` and row `i + head_dim / 2` are neighbours.
    RotaryPairs(usize),
    /// The module has query, key and value of each of so many heads side by side; the file all queries first, then all
    /// keys, then all values.
    ByPart(usize),
}

impl StoredLayout {
    /// As the module holds it.
    pub(crate) const SAME: Self = Self {
        transposed: false,
        rows: RowOrder::Same,
        one_less: false,
    };

    /// `num_heads` is that of the tensor, if its rows belong to heads.
    pub(crate) fn new(layout: Layout, container: Container, num_heads: usize) -> Self {
        let is_gguf = container == Container::Gguf;
        Self {
            transposed: match layout {
                Layout::Same | Layout::OneLess => false,
                Layout::Linear | Layout::Rotary(_) | Layout::ByHead => true,
                Layout::Conv1d => is_gguf,
            },
            rows: match layout {
                Layout::Rotary(_) if is_gguf => RowOrder::RotaryPairs(num_heads),
                Layout::ByHead if is_gguf => RowOrder::ByPart(num_heads),
                _ => RowOrder::Same,
            },
            one_less: !is_gguf && layout == Layout::OneLess,
        }
    }

    /// The shape in the module; `None` if a tensor of the stored shape cannot have this layout.
    pub(crate) fn shape(self, stored: &[usize]) -> Option<Vec<usize>> {
        let divisor = match self.rows {
            RowOrder::Same => Some(1),
            RowOrder::RotaryPairs(num_heads) => num_heads.checked_mul(2),
            RowOrder::ByPart(num_heads) => num_heads.checked_mul(3),
        };
        if !divisor.is_some_and(|divisor| divisor > 0 && stored[0].is_multiple_of(divisor)) {
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
        if self.rows == RowOrder::Same {
            return None;
        }
        let stored_rows = (0..num_rows).map(|row| self.stored_row(row, num_rows));
        Some(
            stored_rows
                .map(|row| u32::try_from(row).expect("a row of a tensor that fits in memory"))
                .collect(),
        )
    }

    /// Where row `row` of `num_rows` is stored.
    fn stored_row(self, row: usize, num_rows: usize) -> usize {
        match self.rows {
            RowOrder::Same => row,
            RowOrder::RotaryPairs(num_heads) => {
                let head_dim = num_rows / num_heads;
                let half = head_dim / 2;
                let (head, within) = (row / head_dim, row % head_dim);
                head * head_dim + 2 * (within % half) + within / half
            }
            RowOrder::ByPart(num_heads) => {
                let part_len = num_rows / 3;
                let head_dim = part_len / num_heads;
                let (head, within) = (row / (3 * head_dim), row % (3 * head_dim));
                within / head_dim * part_len + head * head_dim + within % head_dim
            }
        }
    }

    /// The values in the module's order; `shape` is that of the file.
    pub(crate) fn restore(self, stored: Vec<f32>, shape: &[usize]) -> Vec<f32> {
        match *shape {
            [num_rows, num_columns] if self.transposed => {
                self.transpose(&stored, num_rows, num_columns)
            }
            [num_rows, ..] if self.rows != RowOrder::Same => {
                let row_len = stored.len() / num_rows;
                (0..num_rows)
                    .flat_map(|row| &stored[self.stored_row(row, num_rows) * row_len..][..row_len])
                    .copied()
                    .collect()
            }
            _ if self.one_less => stored.into_iter().map(|value| value + 1.0).collect(),
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
    fn queries_keys_and_values_go_to_their_heads() {
        // Two heads of two rows: four queries, four keys, four values.
        let stored: Vec<f32> = [0., 1., 2., 3.]
            .into_iter()
            .flat_map(|row| [row, row + 10., row + 20.])
            .collect();
        let by_part: Vec<f32> = (0..3)
            .flat_map(|part| stored.iter().skip(part).step_by(3).copied())
            .collect();
        let layout = StoredLayout::new(Layout::ByHead, Container::Gguf, 2);
        let expected = [0., 1., 10., 11., 20., 21., 2., 3., 12., 13., 22., 23.];
        assert_eq!(layout.restore(by_part.clone(), &[12]), expected);
        assert_eq!(layout.restore(by_part, &[12, 1]), expected);
        assert_eq!(layout.shape(&[10]), None);
    }

    #[test]
    fn what_is_stored_less_one_is_raised() {
        let layout = |container| StoredLayout::new(Layout::OneLess, container, 0);
        let restored = |container| layout(container).restore(vec![0.5, -1.], &[2]);
        assert_eq!(restored(Container::HuggingFace), [1.5, 0.]);
        assert_eq!(restored(Container::Gguf), [0.5, -1.]);
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
