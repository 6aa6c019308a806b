//! Connections: how many, how slow, how long. Knows nothing of what is asked.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::stall::Stall;
use super::{Shared, live, routes};
use crate::error::{Error, Result};

/// Open at the same time; further clients wait to be accepted.
pub const CONNECTIONS_MOST: usize = 512;
/// A client may take so long to send a request's head, and so long to take any part of an answer.
pub const CLIENT_WITHIN: Duration = Duration::from_secs(5);
/// A request's head.
pub const HEAD_BYTES_MOST: usize = 16 * 1024;
pub const HEADERS_MOST: usize = 64;
/// Answers under way when the service stops are finished within this.
const FINISH_WITHIN: Duration = Duration::from_secs(2);
/// After an accept failed for want of file descriptors, say.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Serves until `stop` ends, then finishes the answers under way.
pub async fn serve(
    listener: TcpListener,
    shared: Arc<Shared>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let live = Arc::clone(&shared.live);
    let figures = tokio::spawn(live::keep_figures(Arc::clone(&shared)));
    let router = routes::router(shared);
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MOST));
    let (stopping, stopped) = watch::channel(false);
    let mut open = JoinSet::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut stop => break,
            Some(_) = open.join_next() => continue,
            accepted = accept(&listener, &slots) => accepted?,
        };
        let (stream, slot) = accepted;
        let connection = converse(stream, router.clone(), stopped.clone());
        open.spawn(async move {
            connection.await;
            drop(slot);
        });
    }
    drop(listener);
    figures.abort();
    live.close();
    // Fails only when no connection is open.
    let _ = stopping.send(true);
    let finish = async { while open.join_next().await.is_some() {} };
    // What is still open after that is cut off when `open` is dropped.
    let _ = tokio::time::timeout(FINISH_WITHIN, finish).await;
    Ok(())
}

/// The next client, once there is room for one.
async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.map_err(|e| Error::world(format!("http: {e}")))?;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return Ok((stream, slot)),
            Err(error) => {
                if !is_of_one_client(&error) {
                    tracing::warn!(%error, "no connection can be accepted just now");
                    tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
                }
            }
        }
    }
}

/// Whether only the client that was about to be accepted is concerned.
fn is_of_one_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// One client, request after request.
async fn converse(stream: TcpStream, router: Router, mut stopped: watch::Receiver<bool>) {
    // Answers are small and written at once; without it the last packet may wait for an acknowledgement.
    let _ = stream.set_nodelay(true);
    let io = TokioIo::new(Stall::new(stream, CLIENT_WITHIN));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(CLIENT_WITHIN)
        .max_buf_size(HEAD_BYTES_MOST)
        .max_headers(HEADERS_MOST)
        .serve_connection(io, TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        _ = stopped.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an HTTP connection ended early");
    }
}
