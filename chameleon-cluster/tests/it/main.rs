//! The crate from outside: agreement with scikit-learn and linfa, laws, and hostile input.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot read its input fails"
)]

mod agreement;
mod determinism;
mod hostile;
mod properties;
mod support;
