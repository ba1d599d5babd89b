//! Blocks of 256 values, whose parts have scales of their own.

use super::small_blocks::{NON_LINEAR, from_table};
use super::{half_at, part, values_at};

const LEN: usize = 256;

#[inline(always)]
pub(super) fn q2_k(block: &[u8; 84], values: &mut [f32; LEN]) {
    let scales: &[u8; 16] = part(block, 0);
    let (scale, min) = (half_at(block, 80), half_at(block, 82));
    let quants = pairs(part(block, 16));
    for (sixteenth, &both) in scales.iter().enumerate() {
        let scale = scale * f32::from(both & 15);
        let min = min * f32::from(both >> 4);
        let quants: &[u8; 16] = part(&quants, 16 * sixteenth);
        for (value, &quant) in values_at::<16>(values, 16 * sixteenth)
            .iter_mut()
            .zip(quants)
        {
            *value = scale * f32::from(quant) - min;
        }
    }
}

#[inline(always)]
pub(super) fn q3_k(block: &[u8; 110], values: &mut [f32; LEN]) {
    let upper: &[u8; 32] = part(block, 0);
    let scales: &[u8; 12] = part(block, 96);
    let scale = half_at(block, 108);
    let mut quants = pairs(part(block, 32));
    for (bit, quants) in quants.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        for (quant, &upper) in quants.iter_mut().zip(upper) {
            *quant |= (upper >> bit & 1) << 2;
        }
    }
    for sixteenth in 0..16 {
        let low = scales[sixteenth % 8] >> (4 * (sixteenth / 8)) & 15;
        let high = scales[8 + sixteenth % 4] >> (2 * (sixteenth / 4)) & 3;
        let scale = scale * f32::from((low | high << 4).cast_signed() - 32);
        let quants: &[u8; 16] = part(&quants, 16 * sixteenth);
        for (value, &quant) in values_at::<16>(values, 16 * sixteenth)
            .iter_mut()
            .zip(quants)
        {
            *value = scale * f32::from(quant.cast_signed() - 4);
        }
    }
}

#[inline(always)]
pub(super) fn q4_k(block: &[u8; 144], values: &mut [f32; LEN]) {
    let quants = halves(part(block, 16));
    with_scales_and_mins(part(block, 0), &quants, values);
}

#[inline(always)]
pub(super) fn q5_k(block: &[u8; 176], values: &mut [f32; LEN]) {
    let mut quants = halves(part(block, 48));
    let upper: &[u8; 32] = part(block, 16);
    for (bit, quants) in quants.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        for (quant, &upper) in quants.iter_mut().zip(upper) {
            *quant |= (upper >> bit & 1) << 4;
        }
    }
    with_scales_and_mins(part(block, 0), &quants, values);
}

/// The eight scales and offsets of Q4_K and Q5_K, in six bits each.
#[inline(always)]
fn with_scales_and_mins(header: &[u8; 16], quants: &[u8; LEN], values: &mut [f32; LEN]) {
    let (scale, min) = (half_at(header, 0), half_at(header, 2));
    let packed: &[u8; 12] = part(header, 4);
    for eighth in 0..8 {
        let (low, high) = (packed[eighth % 4], packed[4 + eighth % 4]);
        let [own_scale, own_min] = if eighth < 4 {
            [low & 63, high & 63]
        } else {
            let both = packed[4 + eighth];
            [both & 15 | low >> 2 & 48, both >> 4 | high >> 2 & 48]
        };
        let scale = scale * f32::from(own_scale);
        let min = min * f32::from(own_min);
        let quants: &[u8; 32] = part(quants, 32 * eighth);
        for (value, &quant) in values_at::<32>(values, 32 * eighth).iter_mut().zip(quants) {
            *value = scale * f32::from(quant) - min;
        }
    }
}

#[inline(always)]
pub(super) fn q6_k(block: &[u8; 210], values: &mut [f32; LEN]) {
    let scales: &[u8; 16] = part(block, 192);
    let scale = half_at(block, 208);
    let mut quants = pairs(part(block, 128));
    for half in 0..2 {
        let lower: &[u8; 64] = part(block, 64 * half);
        let quants: &mut [u8; 128] = quants[128 * half..]
            .first_chunk_mut()
            .expect("a half of the block");
        for (idx, &lower) in lower.iter().enumerate() {
            quants[idx] = quants[idx] << 4 | lower & 15;
            quants[64 + idx] = quants[64 + idx] << 4 | lower >> 4;
        }
    }
    for (sixteenth, &own) in scales.iter().enumerate() {
        let scale = scale * f32::from(own.cast_signed());
        let quants: &[u8; 16] = part(&quants, 16 * sixteenth);
        for (value, &quant) in values_at::<16>(values, 16 * sixteenth)
            .iter_mut()
            .zip(quants)
        {
            *value = scale * f32::from(quant.cast_signed() - 32);
        }
    }
}

#[inline(always)]
pub(super) fn iq4_xs(block: &[u8; 136], values: &mut [f32; LEN]) {
    let scale = half_at(block, 0);
    let high = u16::from_le_bytes([block[2], block[3]]);
    for eighth in 0..8 {
        let low = block[4 + eighth / 2] >> (4 * (eighth % 2)) & 15;
        let [high, _] = (high >> (2 * eighth) & 3).to_le_bytes();
        let scale = scale * f32::from((low | high << 4).cast_signed() - 32);
        let packed = part(block, 8 + 16 * eighth);
        from_table(packed, values_at(values, 32 * eighth), &NON_LINEAR, scale);
    }
}

#[inline(always)]
pub(super) fn tq1_0(block: &[u8; 54], values: &mut [f32; LEN]) {
    const POWERS: [u8; 5] = [1, 3, 9, 27, 81];
    let scale = half_at(block, 52);
    // Each digit of each byte; the bytes are fractions in base three.
    let digit = |byte: u8, power: u8| {
        let [_, digit] = (u16::from(byte.wrapping_mul(power)) * 3).to_le_bytes();
        scale * f32::from(digit.cast_signed() - 1)
    };
    let bytes = |start: usize, len: usize| &block[start..start + len];
    let parts = [(bytes(0, 32), 5), (bytes(32, 16), 5), (bytes(48, 4), 4)];
    let mut rest = values.iter_mut();
    for (bytes, num_digits) in parts {
        for &power in &POWERS[..num_digits] {
            for (&byte, value) in bytes.iter().zip(rest.by_ref()) {
                *value = digit(byte, power);
            }
        }
    }
}

#[inline(always)]
pub(super) fn tq2_0(block: &[u8; 66], values: &mut [f32; LEN]) {
    let scale = half_at(block, 64);
    let quants = pairs(part(block, 0));
    for (value, quant) in values.iter_mut().zip(quants) {
        *value = scale * f32::from(quant.cast_signed() - 1);
    }
}

/// Four pairs of bits of each byte: of 32 bytes the lowest first.
#[inline(always)]
fn pairs(packed: &[u8; LEN / 4]) -> [u8; LEN] {
    fields::<{ LEN / 4 }, 2>(packed)
}

/// Two halves of each byte: of 32 bytes the lower first.
#[inline(always)]
fn halves(packed: &[u8; LEN / 2]) -> [u8; LEN] {
    fields::<{ LEN / 2 }, 4>(packed)
}

#[inline(always)]
fn fields<const BYTES: usize, const BITS: usize>(packed: &[u8; BYTES]) -> [u8; LEN] {
    let mut quants = [0; LEN];
    let (quants_of, _) = quants.as_chunks_mut::<32>();
    let (packed, _) = packed.as_chunks::<32>();
    for (idx, quants) in quants_of.iter_mut().enumerate() {
        let shift = BITS * (idx % (8 / BITS));
        for (quant, &byte) in quants.iter_mut().zip(&packed[idx / (8 / BITS)]) {
            *quant = byte >> shift & ((1 << BITS) - 1);
        }
    }
    quants
}
