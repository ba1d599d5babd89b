//! Work that keeps a core busy, away from the threads that talk to clients.

use std::sync::Arc;

use super::{error::ApiError, state::Server};

/// Runs `work` on a thread of its own, no more at once than there are cores. A panic in it ends this request only.
pub(crate) async fn compute<T: Send + 'static>(
    server: &Arc<Server>,
    work: impl FnOnce(&Server) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let place = Arc::clone(&server.cores)
        .acquire_owned()
        .await
        .map_err(|_| ApiError::internal())?;
    let server = Arc::clone(server);
    let done = tokio::task::spawn_blocking(move || {
        // Work goes on when its client is gone; its place is free only after that.
        let _place = place;
        work(&server)
    });
    // The panic hook has reported what happened.
    done.await.unwrap_or_else(|_| Err(ApiError::internal()))
}
