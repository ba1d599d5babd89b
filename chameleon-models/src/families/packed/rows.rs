//! Rows of values quantised to eight bits in blocks of 32, which share one scale.

/// Values that share a scale.
pub(super) const BLOCK: usize = 32;

/// Packed rows.
#[derive(Debug)]
pub(super) struct PackedRows {
    /// The bits of integers from -127 to 127, `[rows, blocks]`.
    pub(super) values: Vec<[u8; BLOCK]>,
    /// One for each block, zeros up to a multiple of eight: `[rows, padded blocks]`
    pub(super) scales: Vec<f32>,
    /// The sum of each block, the scale multiplied in: `[rows, padded blocks]`
    pub(super) sums: Vec<f32>,
}

/// Numbers beside it have no bits behind the point.
const ROUND: f32 = 12_582_912.0;

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
                // Added, it leaves the nearest whole number, of which none is larger than 127, in the lowest bits.
                let values =
                    block.map(|value| (value * inverse + ROUND).to_bits().to_le_bytes()[0]);
                let sum: i32 = values
                    .iter()
                    .map(|&value| i32::from(value.cast_signed()))
                    .sum();
                packed.values.push(values);
                packed.scales[row_idx * num_padded + block_idx] = scale;
                packed.sums[row_idx * num_padded + block_idx] = scale * sum as f32;
            }
        }
        packed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_rounded_to_the_nearest_and_the_largest_becomes_127() {
        let row: Vec<f32> = (0..64).map(|idx| (idx as f32 * 0.7).sin() * 3.0).collect();
        let packed = PackedRows::new(&row, 64);
        for (block_idx, (block, values)) in row.chunks(BLOCK).zip(&packed.values).enumerate() {
            let scale = packed.scales[block_idx];
            for (number, value) in block.iter().zip(values) {
                let rounded = (number / scale).round();
                assert!((rounded - f32::from(value.cast_signed())).abs() <= 1.0);
                assert!((number - scale * f32::from(value.cast_signed())).abs() <= 0.501 * scale);
            }
            let largest = values
                .iter()
                .map(|value| value.cast_signed().unsigned_abs())
                .max();
            assert_eq!(largest, Some(127));
        }
        assert!(packed.scales[2..].iter().all(|&scale| scale == 0.0));
    }

    #[test]
    fn zeros_stay_zeros() {
        let packed = PackedRows::new(&[0.0; 32], 32);
        assert_eq!(packed.values, [[0; 32]]);
        assert!(
            packed
                .sums
                .iter()
                .chain(&packed.scales)
                .all(|&number| number == 0.0)
        );
    }
}
