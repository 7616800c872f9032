//! Serving the admin listener: accept, HTTP/1.1 or HTTP/2, an orderly end.

use std::{convert::Infallible, io, pin::Pin, sync::Arc, time::Duration};

use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{AdminListener, AdminState, router};

/// Most connections at once: scrapers, probes and a few people.
const MAX_CONNECTIONS: usize = 64;

/// Time a connection may take to send a request's header.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause after a failed accept: out of descriptors must not become a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Time for requests that run when the listener is stopped.
const DRAIN: Duration = Duration::from_secs(2);

/// Serves until `stop`, then lets running requests end for up to two seconds.
///
/// # Cancel safety
/// Dropping the future stops accepting; connections that are open run on until the runtime ends.
pub async fn serve(listener: AdminListener, state: AdminState, stop: CancellationToken) {
    let app = router(state, listener.host_check());
    let server = Server {
        app,
        permits: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
        graceful: GracefulShutdown::new(),
        tasks: TaskTracker::new(),
    };
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = server.accept(&listener) => accepted,
        };
        match accepted {
            Ok((stream, permit)) => server.spawn(stream, permit),
            Err(error) => {
                tracing::warn!(%error, "the admin listener cannot accept a connection");
                tokio::select! {
                    biased;
                    () = stop.cancelled() => break,
                    () = sleep(ACCEPT_PAUSE) => {}
                }
            }
        }
    }
    drop(listener);
    server.drain().await;
}

/// A connection of either kind.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}
type AnyStream = Pin<Box<dyn Stream>>;

struct Server {
    app: Router,
    permits: Arc<Semaphore>,
    graceful: GracefulShutdown,
    tasks: TaskTracker,
}

impl Server {
    /// The next connection. The permit comes first: at the limit the kernel's queue holds the rest.
    async fn accept(&self, listener: &AdminListener) -> io::Result<(AnyStream, OwnedSemaphorePermit)> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(io::Error::other)?;
        let stream: AnyStream = match listener {
            AdminListener::Tcp(listener) => Box::pin(listener.accept().await?.0),
            AdminListener::Unix(listener) => Box::pin(listener.accept().await?.0),
        };
        Ok((stream, permit))
    }

    fn spawn(&self, stream: AnyStream, permit: OwnedSemaphorePermit) {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
        builder.http2().timer(TokioTimer::new()).max_concurrent_streams(64).max_header_list_size(16 * 1024);
        let service = TowerToHyperService::new(self.app.clone());
        let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
        let connection = self.graceful.watch(connection);
        self.tasks.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "an admin connection ended badly");
            }
            drop(permit);
        });
    }

    async fn drain(self) {
        self.tasks.close();
        // Whatever has not ended by then is cut with the runtime: nothing here changes state.
        let drained = async {
            self.graceful.shutdown().await;
            self.tasks.wait().await;
            Ok::<(), Infallible>(())
        };
        if timeout(DRAIN, drained).await.is_err() {
            tracing::info!(open = self.tasks.len(), "admin connections were cut at the stop");
        }
    }
}

#[cfg(test)]
mod tests;
