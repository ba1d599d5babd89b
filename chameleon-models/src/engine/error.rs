//! Errors of requests and adapters.

use std::time::Duration;

use chameleon_cluster::ClusterError;

use crate::adapter::exemplar_store::ExemplarStoreError;

/// An error of a request or an adapter. It leaves the engine unchanged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The queue holds as many requests or tokens as it may.
    #[error("the queue is full: {num_requests} requests with {num_tokens} tokens wait")]
    QueueFull {
        /// Requests that wait.
        num_requests: usize,
        /// Tokens of these, prompts and answers together.
        num_tokens: usize,
        /// When to retry.
        retry_after: Duration,
    },
    /// The prompt is longer than the model's context.
    #[error("the prompt has {found} tokens, the model takes {max_seq_len}")]
    PromptTooLong {
        /// Tokens of the prompt.
        found: usize,
        /// The longest sequence the model takes.
        max_seq_len: usize,
    },
    /// Prompt and answer together exceed the KV cache.
    #[error("prompt and answer have up to {found} tokens, this engine keeps {max_cached_tokens}")]
    TooManyTokens {
        /// Tokens of the prompt and of the longest answer that was requested.
        found: usize,
        /// The largest number.
        max_cached_tokens: usize,
    },
    /// The prompt, or its part for grouping, has no token.
    #[error("the prompt is empty")]
    EmptyPrompt,
    /// The prompt holds a token for which the model has no embedding.
    #[error("the prompt holds token id {token_id}, the model knows {vocab_size}")]
    UnknownToken {
        /// The token.
        token_id: u32,
        /// Rows of the model's embedding.
        vocab_size: usize,
    },
    /// A value of the request is out of range.
    #[error("{name} is {found}, expected {expected}")]
    Value {
        /// The name of the value.
        name: &'static str,
        /// Its value.
        found: f64,
        /// The allowed values.
        expected: &'static str,
    },
    /// A stop text is empty: every answer would end at once.
    #[error("a stop text is empty")]
    EmptyStop,
    /// A condition was given that does not fit the adapter.
    #[error(
        "the condition has {found} values for group {cluster_idx}, the adapter expects {expected} for one of {num_clusters} groups"
    )]
    GivenCondition {
        /// Values of the condition.
        found: usize,
        /// Its group.
        cluster_idx: usize,
        /// Values of a prompt embedding.
        expected: usize,
        /// Groups of the adapter.
        num_clusters: usize,
    },
    /// No adapter of this name is loaded.
    #[error("there is no adapter `{name}`; loaded are: {known}")]
    UnknownAdapter {
        /// The name.
        name: String,
        /// The names that exist, comma-separated.
        known: String,
    },
    /// An adapter of this name is loaded already.
    #[error("an adapter `{name}` is loaded already")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// The name is empty, too long, or holds characters that do not belong in one.
    #[error("`{name}` is not a name for an adapter: 1 to 64 letters, digits, `-`, `_` and `.`")]
    AdapterName {
        /// The name.
        name: String,
    },
    /// The adapter was trained on another model.
    #[error("the adapter was trained on {expected}, this model is {found}")]
    WrongBase {
        /// The model it was trained on, with its fingerprint.
        expected: String,
        /// The model that runs, with its fingerprint.
        found: String,
    },
    /// The engine finishes its active requests and accepts no new ones.
    #[error("the engine is shutting down")]
    Draining,
    /// A bound of the engine is zero.
    #[error("{name} is 0, expected at least 1")]
    Option {
        /// The bound.
        name: &'static str,
    },
    /// The prompt could not be grouped.
    #[error("the prompt could not be grouped")]
    Grouping {
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The centroids of an adapter are not valid.
    #[error("the adapter's centroids cannot be used")]
    Centroids {
        /// The cause.
        source: ClusterError,
    },
    /// The adapter uses no exemplars.
    #[error("adapter `{adapter}` was trained without exemplars, so it cannot use any")]
    NoExemplarUse {
        /// The adapter.
        adapter: String,
    },
    /// The adapter was loaded without a folder for exemplars.
    #[error("adapter `{adapter}` was loaded without exemplars")]
    NoGroups {
        /// The adapter.
        adapter: String,
    },
    /// The exemplars were loaded for reading only.
    #[error("exemplars that were loaded for reading only cannot be changed")]
    ReadOnlyGroups,
    /// The key of a group is empty or too long.
    #[error("a group's key has {found} bytes, expected 1 to 256")]
    GroupKey {
        /// Its length.
        found: usize,
    },
    /// Exemplars cannot be read or written.
    #[error(transparent)]
    Exemplars {
        /// The cause.
        #[from]
        source: ExemplarStoreError,
    },
    /// The worker thread could not be started.
    #[error("the engine's thread could not be started")]
    Thread {
        /// The error of the system.
        source: std::io::Error,
    },
}
