//! An empty crate that makes `cargo test -p chameleon-core` and `cargo test --workspace` share one build of Burn.
//!
//! Cargo unifies features over the packages it was asked to build. Without this crate, testing one library
//! alone would see, say, `half` without its default features, which is another `half`, hence another Burn:
//! ten minutes. The four libraries name this crate as a dev-dependency; it is never published.
