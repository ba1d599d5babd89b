//! `chameleon serve` over HTTP: routes, wire types, limits and what is told about them.
//!
//! Owns everything between a socket and the engine. The engine is the library's and knows no HTTP; it decodes on a
//! thread of its own, and its events come over by channels, so nothing here ever computes on a thread of the runtime.

mod adapters;
mod answer;
mod auth;
mod blocking;
mod body;
mod chat;
mod clusters;
mod completions;
mod connections;
mod embeddings;
mod error;
mod health;
mod logprobs;
mod metrics;
mod models;
mod observe;
mod openapi;
mod page;
mod prompts;
mod routes;
mod settings;
mod state;
mod stream;
mod strict;
#[cfg(test)]
mod tests;
mod tokens;

pub(crate) use auth::Access;
pub(crate) use connections::{Ended, Listening};
pub(crate) use routes::router;
pub(crate) use state::{Server, ServerParts};
