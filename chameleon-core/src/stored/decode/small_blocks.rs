//! Blocks of 32 values. Of two values in a byte, the lower halves of all bytes come first.

use super::{from_half, half_at, part, values_at};

const LEN: usize = 32;

/// The values of IQ4_NL and IQ4_XS.
pub(super) const NON_LINEAR: [f32; 16] = [
    -127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0, 1.0, 13.0, 25.0, 38.0, 53.0, 69.0,
    89.0, 113.0,
];

/// Twice the floats of one sign, two exponent and one mantissa bit.
const FLOATS: [f32; 16] = [
    0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 0.0, -1.0, -2.0, -3.0, -4.0, -6.0, -8.0, -12.0,
];

#[inline(always)]
pub(super) fn q8_0(block: &[u8; 34], values: &mut [f32; LEN]) {
    let scale = half_at(block, 0);
    for (value, &byte) in values.iter_mut().zip(part::<LEN>(block, 2)) {
        *value = scale * f32::from(byte.cast_signed());
    }
}

#[inline(always)]
pub(super) fn q4_0(block: &[u8; 18], values: &mut [f32; LEN]) {
    let scale = half_at(block, 0);
    nibbles(part(block, 2), values, |nibble| {
        scale * f32::from(nibble.cast_signed() - 8)
    });
}

#[inline(always)]
pub(super) fn q4_1(block: &[u8; 20], values: &mut [f32; LEN]) {
    let (scale, min) = (half_at(block, 0), half_at(block, 2));
    nibbles(part(block, 4), values, |nibble| {
        scale * f32::from(nibble) + min
    });
}

#[inline(always)]
pub(super) fn q5_0(block: &[u8; 22], values: &mut [f32; LEN]) {
    let scale = half_at(block, 0);
    fives(part(block, 2), part(block, 6), values, |five| {
        scale * f32::from(five.cast_signed() - 16)
    });
}

#[inline(always)]
pub(super) fn q5_1(block: &[u8; 24], values: &mut [f32; LEN]) {
    let (scale, min) = (half_at(block, 0), half_at(block, 2));
    fives(part(block, 4), part(block, 8), values, |five| {
        scale * f32::from(five) + min
    });
}

#[inline(always)]
pub(super) fn iq4_nl(block: &[u8; 18], values: &mut [f32; LEN]) {
    let scale = from_half([block[0], block[1]]);
    from_table(part(block, 2), values, &NON_LINEAR, scale);
}

#[inline(always)]
pub(super) fn mxfp4(block: &[u8; 17], values: &mut [f32; LEN]) {
    // Half of the power of two, as the values are doubled; the two lowest powers are subnormal.
    let exponent = u32::from(block[0]);
    let scale = match exponent {
        0 | 1 => 0x0020_0000 << exponent,
        _ => (exponent - 1) << 23,
    };
    from_table(part(block, 1), values, &FLOATS, f32::from_bits(scale));
}

/// Values of a table, each multiplied with a scale.
#[inline(always)]
pub(super) fn from_table(
    packed: &[u8; LEN / 2],
    values: &mut [f32; LEN],
    table: &[f32; 16],
    scale: f32,
) {
    let scaled = table.map(|value| scale * value);
    nibbles(packed, values, |nibble| scaled[usize::from(nibble)]);
}

/// The lower halves of all bytes, then the upper ones.
#[inline(always)]
fn nibbles(packed: &[u8; LEN / 2], values: &mut [f32; LEN], value: impl Fn(u8) -> f32) {
    let low = values_at::<{ LEN / 2 }>(values, 0);
    for (found, &byte) in low.iter_mut().zip(packed) {
        *found = value(byte & 15);
    }
    let high = values_at::<{ LEN / 2 }>(values, LEN / 2);
    for (found, &byte) in high.iter_mut().zip(packed) {
        *found = value(byte >> 4);
    }
}

/// Nibbles with a fifth bit each, which stand in four bytes of their own.
#[inline(always)]
fn fives(
    fifths: &[u8; 4],
    packed: &[u8; LEN / 2],
    values: &mut [f32; LEN],
    value: impl Fn(u8) -> f32,
) {
    let fifths = u32::from_le_bytes(*fifths);
    let mut wide = [0; LEN];
    for (idx, wide) in wide.iter_mut().enumerate() {
        *wide = if fifths >> idx & 1 == 1 { 16 } else { 0 };
    }
    for (idx, &byte) in packed.iter().enumerate() {
        wide[idx] |= byte & 15;
        wide[idx + LEN / 2] |= byte >> 4;
    }
    for (found, wide) in values.iter_mut().zip(wide) {
        *found = value(wide);
    }
}
