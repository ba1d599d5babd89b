//! Rows of numbers packed to eight bits in blocks of 32, which share one scale.

use super::kernel::BLOCK;

/// Packed rows.
#[derive(Debug)]
pub(super) struct PackedRows {
    /// The bits of whole numbers from -127 to 127, `[rows, blocks]`.
    pub(super) values: Vec<[u8; BLOCK]>,
    /// One for each block, zeros up to a multiple of eight: `[rows, padded blocks]`
    pub(super) scales: Vec<f32>,
    /// The sum of each block, the scale multiplied in: `[rows, padded blocks]`
    pub(super) sums: Vec<f32>,
}

/// Numbers of blocks are filled up to a multiple of this.
pub(super) const PADDED: usize = 8;

impl PackedRows {
    /// Packs `rows`, `[rows, inner]`; a block of zeros stays one.
    pub(super) fn new(rows: &[f32], inner: usize) -> Self {
        let num_padded = (inner / BLOCK).next_multiple_of(PADDED);
        let (blocks, _) = rows.as_chunks::<BLOCK>();
        let num_rows = rows.len() / inner;
        let mut packed = Self {
            values: Vec::with_capacity(blocks.len()),
            scales: vec![0.0; num_rows * num_padded],
            sums: vec![0.0; num_rows * num_padded],
        };
        for (row_idx, blocks) in blocks.chunks_exact(inner / BLOCK).enumerate() {
            for (block_idx, block) in blocks.iter().enumerate() {
                let largest = block.iter().fold(0.0_f32, |a, &b| a.max(b.abs()));
                let scale = largest / 127.0;
                let inverse = if scale > 0.0 { scale.recip() } else { 0.0 };
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "no quotient is larger than 127; one that is no number becomes zero"
                )]
                let values = block.map(|value| (value * inverse).round_ties_even() as i8);
                let sum: i32 = values.iter().map(|&value| i32::from(value)).sum();
                packed.values.push(values.map(i8::cast_unsigned));
                packed.scales[row_idx * num_padded + block_idx] = scale;
                packed.sums[row_idx * num_padded + block_idx] = scale * sum as f32;
            }
        }
        packed
    }
}
