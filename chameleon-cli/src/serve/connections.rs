//! Connections: their number, their timeouts and the shutdown.

use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_io_timeout::TimeoutWriter;

use super::state::Server;

/// From the opening of a connection, or the last response, to the end of the next head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest head in bytes.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// Pause after a connection could not be accepted, as when the system is out of sockets.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A socket that listens.
#[derive(Debug)]
pub(crate) struct Listening {
    listener: TcpListener,
}

/// How a server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    AllAnswered,
    /// Some answers took longer than the drain timeout.
    SomeCutOff,
}

impl Listening {
    pub(crate) async fn open(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        Ok(Self { listener })
    }

    /// Where clients find it.
    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop` resolves, then finishes the requests that run.
    pub(crate) async fn serve(
        self,
        server: Arc<Server>,
        router: Router,
        stop: impl Future<Output = ()>,
    ) -> Ended {
        let connections = GracefulShutdown::new();
        let places = Arc::new(Semaphore::new(server.limits.max_connections));
        tokio::pin!(stop);
        loop {
            let accepted = tokio::select! {
                accepted = accept(&self.listener, &places) => accepted,
                () = &mut stop => break,
            };
            let Some((stream, place)) = accepted else {
                continue;
            };
            let mut builder = http1::Builder::new();
            builder
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .max_buf_size(MAX_HEAD_BYTES);
            let service = TowerToHyperService::new(router.clone());
            // A client that reads nothing for too long loses its connection.
            let mut stream = TimeoutWriter::new(stream);
            stream.set_timeout(Some(server.limits.write_timeout));
            let io = TokioIo::new(Box::pin(stream));
            let connection = connections.watch(builder.serve_connection(io, service));
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!("a connection ended early: {error}");
                }
                drop(place);
            });
        }
        drop(self.listener);
        server.drain();
        match timeout(server.limits.drain_timeout, connections.shutdown()).await {
            Ok(()) => Ended::AllAnswered,
            Err(_) => Ended::SomeCutOff,
        }
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => {
            // Tokens are small and are sent at once; if this fails, they are only delayed.
            let _ = stream.set_nodelay(true);
            Some((stream, place))
        }
        Err(error) => {
            tracing::warn!("a connection could not be accepted: {error}");
            sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}
