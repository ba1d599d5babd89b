//! The crate from outside: agreement with scikit-learn and linfa, laws, and hostile input.

mod agreement;
mod determinism;
mod hostile;
mod properties;
mod support;
