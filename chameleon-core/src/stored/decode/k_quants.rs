//! Blocks of 256 values, whose parts have scales of their own.

use std::hint::black_box;

use super::small_blocks::{NON_LINEAR, from_table, signed, unsigned};
use super::{half_at, part};

const LEN: usize = 256;

#[inline(always)]
pub(super) fn q2_k(block: &[u8; 84], values: &mut [f32; LEN]) {
    let scales: &[u8; 16] = part(block, 0);
    let (scale, min) = (half_at(block, 80), half_at(block, 82));
    let quants = black_box(pairs(part(block, 16)));
    for (sixteenth, values) in values.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let sixteenth = black_box(sixteenth);
        let both = scales[sixteenth];
        let scale = scale * f32::from(both & 15);
        let min = min * f32::from(both >> 4);
        *values = unsigned(part(&quants, 16 * sixteenth), scale, -min);
    }
}

#[inline(always)]
pub(super) fn q3_k(block: &[u8; 110], values: &mut [f32; LEN]) {
    let scales: &[u8; 12] = part(block, 96);
    let scale = half_at(block, 108);
    let mut quants = pairs(part(block, 32));
    add_bits::<4>(&mut quants, part(block, 0));
    let quants = black_box(quants);
    for (sixteenth, values) in values.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let sixteenth = black_box(sixteenth);
        let low = scales[sixteenth % 8] >> (4 * (sixteenth / 8)) & 15;
        let high = scales[8 + sixteenth % 4] >> (2 * (sixteenth / 4)) & 3;
        let scale = scale * f32::from((low | high << 4).cast_signed() - 32);
        *values = signed(part(&quants, 16 * sixteenth), scale, 4);
    }
}

#[inline(always)]
pub(super) fn q4_k(block: &[u8; 144], values: &mut [f32; LEN]) {
    with_scales_and_mins(part(block, 0), &halves(part(block, 16)), values);
}

#[inline(always)]
pub(super) fn q5_k(block: &[u8; 176], values: &mut [f32; LEN]) {
    let mut quants = halves(part(block, 48));
    add_bits::<16>(&mut quants, part(block, 16));
    let quants = black_box(quants);
    with_scales_and_mins(part(block, 0), &quants, values);
}

/// The eight scales and offsets of `Q4_K` and `Q5_K`, in six bits each.
#[inline(always)]
fn with_scales_and_mins(header: &[u8; 16], quants: &[u8; LEN], values: &mut [f32; LEN]) {
    let (scale, min) = (half_at(header, 0), half_at(header, 2));
    let packed: &[u8; 12] = part(header, 4);
    for (eighth, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let eighth = black_box(eighth);
        let (low, high) = (packed[eighth % 4], packed[4 + eighth % 4]);
        let [own_scale, own_min] = if eighth < 4 {
            [low & 0x3f, high & 0x3f]
        } else {
            let both = packed[4 + eighth];
            [both & 0xf | low >> 2 & 0x30, both >> 4 | high >> 2 & 0x30]
        };
        let scale = scale * f32::from(own_scale);
        let min = min * f32::from(own_min);
        *values = unsigned(part(quants, 32 * eighth), scale, -min);
    }
}

#[inline(always)]
pub(super) fn q6_k(block: &[u8; 210], values: &mut [f32; LEN]) {
    let scales: &[u8; 16] = part(block, 192);
    let scale = half_at(block, 208);
    let mut quants = pairs(part(block, 128));
    for (half, quants) in quants.as_chunks_mut::<128>().0.iter_mut().enumerate() {
        let lower: &[u8; 64] = part(block, 64 * half);
        for idx in 0..64 {
            quants[idx] = quants[idx] << 4 | lower[idx] & 15;
        }
        for idx in 0..64 {
            quants[64 + idx] = quants[64 + idx] << 4 | lower[idx] >> 4;
        }
    }
    let quants = black_box(quants);
    for (sixteenth, values) in values.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let sixteenth = black_box(sixteenth);
        let scale = scale * f32::from(scales[sixteenth].cast_signed());
        *values = signed(part(&quants, 16 * sixteenth), scale, 32);
    }
}

#[inline(always)]
pub(super) fn iq4_xs(block: &[u8; 136], values: &mut [f32; LEN]) {
    let scale = half_at(block, 0);
    let high = u16::from_le_bytes([block[2], block[3]]);
    for (eighth, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let eighth = black_box(eighth);
        let low = block[4 + eighth / 2] >> (4 * (eighth % 2)) & 15;
        let [high, _] = (high >> (2 * eighth) & 3).to_le_bytes();
        let scale = scale * f32::from((low | high << 4).cast_signed() - 32);
        *values = from_table(part(block, 8 + 16 * eighth), &NON_LINEAR, scale);
    }
}

#[inline(always)]
pub(super) fn tq1_0(block: &[u8; 54], values: &mut [f32; LEN]) {
    const POWERS: [u8; 5] = [1, 3, 9, 27, 81];
    // Bytes are fractions in base three: of each part, the first digit of all bytes, then the second one.
    let parts = [(0..32, 5), (32..48, 5), (48..52, 4)];
    let mut quants = [0; LEN];
    let mut first = 0;
    for (bytes, num_digits) in parts {
        for &power in &POWERS[..num_digits] {
            for (idx, &byte) in block[bytes.clone()].iter().enumerate() {
                let [_, digit] = (u16::from(byte.wrapping_mul(power)) * 3).to_le_bytes();
                quants[first + idx] = digit;
            }
            first += bytes.len();
        }
    }
    *values = signed(&quants, half_at(block, 52), 1);
}

#[inline(always)]
pub(super) fn tq2_0(block: &[u8; 66], values: &mut [f32; LEN]) {
    *values = signed(&pairs(part(block, 0)), half_at(block, 64), 1);
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
        let packed = packed[idx / (8 / BITS)];
        for (quant, byte) in quants.iter_mut().zip(packed) {
            *quant = byte >> shift & ((1 << BITS) - 1);
        }
    }
    quants
}

/// Adds `VALUE` to each value whose bit is set: of 32 bytes the lowest bits first.
#[inline(always)]
fn add_bits<const VALUE: u8>(quants: &mut [u8; LEN], bits: &[u8; 32]) {
    let bits = black_box(*bits);
    for (bit, quants) in quants.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        for (quant, byte) in quants.iter_mut().zip(bits) {
            *quant |= if byte & (1 << bit) == 0 { 0 } else { VALUE };
        }
    }
}
