//! The server as clients see it: real sockets, the tiny model, and requests of every kind.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot run the program fails"
)]

mod answers;
mod client;
mod clients;
mod groups;
mod hostile;
mod life;
mod openapi;
