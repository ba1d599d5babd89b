//! The exponential; maxima, sums and sums of products in lanes.
//!
//! Everything is inlined into kernels, so that it is compiled for the processor that they are compiled for.

/// Numbers that are added or compared side by side: enough for two of the widest registers to overlap.
pub(super) const LANES: usize = 32;

/// `exp(x)` to two units in the last place; zero below -87, where f32 has only subnormal values, and huge, but
/// finite, above 88.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    const LOWEST: f32 = -87.0;
    const HIGHEST: f32 = 88.0;
    /// Added and subtracted, it rounds to a whole number, which then stands in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts, of which the first has zeros at the end: products with integers are exact.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;

    let held = if x > HIGHEST { HIGHEST } else { x };
    let rounded = held * std::f32::consts::LOG2_E + ROUND;
    let power = rounded - ROUND;
    let rest = held - power * LN_2_HIGH - power * LN_2_LOW;
    // The minimax polynomial of Cephes' expf for |rest| <= ln(2) / 2.
    let mut sum = 1.987_569_1e-4;
    for coefficient in [
        1.398_199_9e-3,
        8.333_452e-3,
        4.166_579_6e-2,
        1.666_666_5e-1,
        0.5,
    ] {
        sum = sum * rest + coefficient;
    }
    let mantissa = sum * rest * rest + rest + 1.0;
    let exponent = rounded.to_bits().wrapping_add(127) << 23;
    let value = mantissa * f32::from_bits(exponent);
    if x < LOWEST { 0.0 } else { value }
}

/// `tanh(x)` to `2e-7`.
#[inline(always)]
pub(super) fn tanh(x: f32) -> f32 {
    1.0 - 2.0 / (exp(2.0 * x) + 1.0)
}

/// The largest number; minus infinity of none.
#[inline(always)]
pub(super) fn max(values: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = values.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane = larger(*lane, value);
        }
    }
    let largest = rest.iter().fold(f32::NEG_INFINITY, |a, &b| larger(a, b));
    lanes.iter().fold(largest, |a, &b| larger(a, b))
}

#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
}

/// The sum of the lanes, always in the same order.
#[inline(always)]
pub(super) fn sum_lanes(lanes: [f32; LANES]) -> f32 {
    lanes.iter().sum()
}

/// Sum of products, always in the same order.
#[inline(always)]
pub(super) fn dot(left: &[f32], right: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    let (lefts, rights) = (left.chunks_exact(LANES), right.chunks_exact(LANES));
    let rest = lefts.remainder().iter().zip(rights.remainder());
    for (left, right) in lefts.zip(rights) {
        for ((lane, &left), &right) in lanes.iter_mut().zip(left).zip(right) {
            *lane += left * right;
        }
    }
    for (lane, (&left, &right)) in lanes.iter_mut().zip(rest) {
        *lane += left * right;
    }
    sum_lanes(lanes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponential_is_as_exact_as_f32_allows() {
        for step in -86_999..88_000 {
            let x = step as f32 * 1e-3;
            let expected = f64::from(x).exp();
            let error = (f64::from(exp(x)) - expected).abs() / expected;
            assert!(error < 2.5e-7, "exp({x}) is off by {error:e}");
        }
    }

    #[test]
    fn the_exponential_has_no_holes_far_out() {
        let same = |found: f32, expected: f32| assert_eq!(found.to_bits(), expected.to_bits());
        same(exp(f32::NEG_INFINITY), 0.0);
        same(exp(-100.0), 0.0);
        assert!(exp(f32::INFINITY).is_finite());
        assert!(exp(f32::NAN).is_nan());
        same(exp(0.0), 1.0);
    }

    #[test]
    fn the_largest_is_found_in_every_lane_and_in_the_rest() {
        for len in 0..100 {
            for place in 0..len {
                let mut values = vec![-3.0; len];
                values[place] = -1.5;
                assert_eq!(max(&values).to_bits(), (-1.5f32).to_bits());
            }
        }
    }
}
