//! The crate as its users see it, against PyTorch, finite differences, files and an optimiser.
#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails should fail the test"
)]

mod finite_differences;
mod storage;
mod support;
mod torch;
mod training;
