//! Floats without blocks.

#[inline(always)]
pub(super) fn from_f32(bytes: [u8; 4]) -> f32 {
    f32::from_le_bytes(bytes)
}

#[inline(always)]
pub(super) fn from_bf16(bytes: [u8; 2]) -> f32 {
    f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16)
}

/// A 16-bit float, without a branch and without a subnormal operand, which would take a processor a hundred cycles.
#[inline(always)]
pub(super) fn from_f16(bytes: [u8; 2]) -> f32 {
    /// The difference of the exponents' offsets.
    const OFFSET: u32 = 112 << 23;
    const LOWEST: u32 = OFFSET + (1 << 23);
    let bits = u32::from(u16::from_le_bytes(bytes));
    let magnitude = (bits & 0x7fff) << 13;
    let subnormal = f32::from_bits(magnitude + LOWEST) - f32::from_bits(LOWEST);
    let finite = if magnitude < 1 << 23 {
        subnormal.to_bits()
    } else {
        magnitude + OFFSET
    };
    let special = if magnitude >= 31 << 23 { OFFSET } else { 0 };
    f32::from_bits((finite + special) | (bits & 0x8000) << 16)
}
