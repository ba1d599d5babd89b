//! `chameleon serve` over HTTP: routes, requests, responses, limits and metrics.
//!
//! Owns everything between a socket and the engine. The engine belongs to the library and is independent of HTTP; it
//! decodes on its own thread and sends events through channels, so that no thread of the runtime computes.

mod adapter_folder;
mod adapter_record;
mod adapters;
mod answer;
mod auth;
mod blocking;
mod body;
mod chat;
mod clusters;
mod completions;
mod connections;
mod drafts;
mod embeddings;
mod error;
mod feedback;
mod groups;
mod health;
mod logprobs;
mod metrics;
mod models;
mod observe;
mod openapi;
mod page;
mod prompts;
mod recent_answers;
mod reply;
mod routes;
mod settings;
mod state;
mod strict;
#[cfg(test)]
mod tests;
mod tokens;
mod unsupported;
mod wire;

pub(crate) use auth::Access;
pub(crate) use connections::{Ended, Listening};
pub(crate) use routes::router;
pub(crate) use state::{Server, ServerParts};
