//! Work that keeps a core busy, outside the threads of the runtime.

use std::sync::Arc;

use super::{error::ApiError, state::Server};

/// Runs `work` on a blocking thread, at most as many at once as there are cores. A panic in it ends this request only.
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
        // The work continues when its client disconnects; only then is its permit released.
        let _place = place;
        work(&server)
    });
    // The panic hook has reported what happened.
    done.await.unwrap_or_else(|_| Err(ApiError::internal()))
}
