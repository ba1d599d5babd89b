//! Kernels on slices, without tensor types.
//!
//! Loops are written so that the compiler can turn them into vector instructions: sums run in a fixed number of
//! lanes, and nothing calls into a library of mathematics. [`vectorised`] compiles each kernel for several kinds of
//! processors and picks one when running.
#![expect(
    clippy::inline_always,
    reason = "what is not inlined into a kernel is compiled for the oldest processor"
)]

pub(super) mod activation;
pub(super) mod attention;
pub(super) mod cross_entropy;
pub(super) mod grouped;
mod math;
pub(super) mod norm;
pub(super) mod product;
mod scores;
pub(super) mod stored;

use pulp::{Arch, WithSimd};

/// Runs a kernel with the widest vector instructions that the processor has.
#[inline]
fn vectorised<K: WithSimd>(kernel: K) -> K::Output {
    Arch::new().dispatch(kernel)
}
