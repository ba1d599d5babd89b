//! The crate as its users see it, against PyTorch, finite differences, files and an optimiser.

mod finite_differences;
mod storage;
mod support;
mod torch;
mod training;
