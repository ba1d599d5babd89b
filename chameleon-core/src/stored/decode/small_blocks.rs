//! Blocks of 32 values. Of two values in a byte, the lower halves of all bytes come first.
#![cfg_attr(
    target_arch = "x86_64",
    expect(
        unsafe_code,
        reason = "looking values up has an instruction that the compiler does not find"
    )
)]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{__m128i, _mm_shuffle_epi8};
#[cfg(target_arch = "x86_64")]
use std::mem::transmute;

use super::{half_at, part};

const LEN: usize = 32;

/// The values of `IQ4_NL` and `IQ4_XS`.
pub(super) const NON_LINEAR: [i8; 16] = [
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
];

/// Twice the floats of one sign, two exponent and one mantissa bit.
const FLOATS: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

#[inline(always)]
pub(super) fn q8_0(block: &[u8; 34], values: &mut [f32; LEN]) {
    *values = signed(part(block, 2), half_at(block, 0), 0);
}

#[inline(always)]
pub(super) fn q4_0(block: &[u8; 18], values: &mut [f32; LEN]) {
    *values = signed(&nibbles(part(block, 2)), half_at(block, 0), 8);
}

#[inline(always)]
pub(super) fn q4_1(block: &[u8; 20], values: &mut [f32; LEN]) {
    *values = unsigned(
        &nibbles(part(block, 4)),
        half_at(block, 0),
        half_at(block, 2),
    );
}

#[inline(always)]
pub(super) fn q5_0(block: &[u8; 22], values: &mut [f32; LEN]) {
    let quants = fives(part(block, 2), part(block, 6));
    *values = signed(&quants, half_at(block, 0), 16);
}

#[inline(always)]
pub(super) fn q5_1(block: &[u8; 24], values: &mut [f32; LEN]) {
    let quants = fives(part(block, 4), part(block, 8));
    *values = unsigned(&quants, half_at(block, 0), half_at(block, 2));
}

#[inline(always)]
pub(super) fn iq4_nl(block: &[u8; 18], values: &mut [f32; LEN]) {
    *values = from_table(part(block, 2), &NON_LINEAR, half_at(block, 0));
}

#[inline(always)]
pub(super) fn mxfp4(block: &[u8; 17], values: &mut [f32; LEN]) {
    // Half of the power of two, as the values are doubled; the two lowest powers are subnormal.
    let exponent = u32::from(block[0]);
    let scale = match exponent {
        0 | 1 => 0x0020_0000 << exponent,
        _ => (exponent - 1) << 23,
    };
    *values = from_table(part(block, 1), &FLOATS, f32::from_bits(scale));
}

/// Values of a table, each multiplied with a scale.
#[inline(always)]
pub(super) fn from_table(packed: &[u8; LEN / 2], table: &[i8; 16], scale: f32) -> [f32; LEN] {
    signed(&look_up(&nibbles(packed), table), scale, 0)
}

/// The values of nibbles.
#[inline(always)]
fn look_up(nibbles: &[u8; LEN], table: &[i8; 16]) -> [u8; LEN] {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("ssse3") {
        // SAFETY: the processor has what it is compiled for.
        return unsafe { shuffled(nibbles, table) };
    }
    look_up_each(nibbles, table)
}

#[inline(always)]
fn look_up_each(nibbles: &[u8; LEN], table: &[i8; 16]) -> [u8; LEN] {
    nibbles.map(|nibble| table[usize::from(nibble & 15)].cast_unsigned())
}

/// The same, sixteen at a time.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "ssse3")]
#[inline]
fn shuffled(nibbles: &[u8; LEN], table: &[i8; 16]) -> [u8; LEN] {
    // SAFETY: arrays and vectors of the same size, for which every byte is valid.
    unsafe {
        let [low, high] = transmute::<[u8; LEN], [__m128i; 2]>(*nibbles);
        let table = transmute::<[i8; 16], __m128i>(*table);
        transmute([_mm_shuffle_epi8(table, low), _mm_shuffle_epi8(table, high)])
    }
}

/// `scale * (quant - zero)` of signed integers.
#[inline(always)]
pub(super) fn signed<const SIZE: usize>(quants: &[u8; SIZE], scale: f32, zero: i8) -> [f32; SIZE] {
    let mut values = [0.0; SIZE];
    for (value, &quant) in values.iter_mut().zip(quants) {
        *value = scale * f32::from(quant.cast_signed().wrapping_sub(zero));
    }
    values
}

/// `scale * quant + min`.
#[inline(always)]
pub(super) fn unsigned<const SIZE: usize>(
    quants: &[u8; SIZE],
    scale: f32,
    min: f32,
) -> [f32; SIZE] {
    let mut values = [0.0; SIZE];
    for (value, &quant) in values.iter_mut().zip(quants) {
        *value = scale * f32::from(quant) + min;
    }
    values
}

/// The lower halves of all bytes, then the upper ones.
#[inline(always)]
fn nibbles(packed: &[u8; LEN / 2]) -> [u8; LEN] {
    let mut quants = [0; LEN];
    for idx in 0..LEN / 2 {
        quants[idx] = packed[idx] & 15;
    }
    for idx in 0..LEN / 2 {
        quants[LEN / 2 + idx] = packed[idx] >> 4;
    }
    quants
}

/// Nibbles with a fifth bit each, which stand in four bytes of their own.
#[inline(always)]
fn fives(fifths: &[u8; 4], packed: &[u8; LEN / 2]) -> [u8; LEN] {
    let mut quants = nibbles(packed);
    for (idx, quant) in quants.iter_mut().enumerate() {
        let own_bit = fifths[idx / 8] & (1 << (idx % 8));
        *quant |= if own_bit == 0 { 0 } else { 16 };
    }
    quants
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_looked_up_alike_one_by_one_and_together() {
        for table in [NON_LINEAR, FLOATS] {
            let nibbles = std::array::from_fn(|idx| u8::try_from(idx * 7 % 16).unwrap());
            assert_eq!(look_up(&nibbles, &table), look_up_each(&nibbles, &table));
        }
    }
}
