//! Connections: how many, how slow, how long. Knows nothing of what is asked.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use super::stall::Stall;
use super::{Shared, live, routes};
use crate::error::Result;

/// Open at the same time. One more client and another must go; see [`Clients`].
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
    let (stopping, stopped) = watch::channel(false);
    let mut open = JoinSet::new();
    let mut clients = Clients::default();
    let mut stop = std::pin::pin!(stop);
    loop {
        let stream = tokio::select! {
            biased;
            () = &mut stop => break,
            Some(_) = open.join_next() => continue,
            stream = accept(&listener) => stream,
        };
        // Answers are small and written at once; without it the last packet may wait for an acknowledgement.
        let _ = stream.set_nodelay(true);
        clients.make_room();
        let has_asked = Arc::new(AtomicBool::new(false));
        let connection = converse(stream, router.clone(), Arc::clone(&has_asked), stopped.clone());
        clients.add(has_asked, open.spawn(connection));
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

/// One client on a connection of any kind, for as long as it stays.
pub async fn converse_with(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    shared: Arc<Shared>,
) {
    let (_stopping, stopped) = watch::channel(false);
    converse(stream, routes::router(shared), Arc::default(), stopped).await;
}

/// The open connections, the oldest first.
///
/// A flood of clients that connect and say nothing must not keep out the one who asks: were newcomers to wait, it
/// would be for as long as all before them may be silent. So the one that has been silent longest makes room, and
/// where all have asked, the oldest.
#[derive(Default)]
struct Clients(VecDeque<(Arc<AtomicBool>, AbortHandle)>);

impl Clients {
    fn make_room(&mut self) {
        self.0.retain(|(_, connection)| !connection.is_finished());
        while self.0.len() >= CONNECTIONS_MOST {
            let silent = self.0.iter().position(|(has_asked, _)| !has_asked.load(Ordering::Relaxed));
            match self.0.remove(silent.unwrap_or(0)) {
                Some((_, connection)) => connection.abort(),
                None => return,
            }
        }
    }

    fn add(&mut self, has_asked: Arc<AtomicBool>, connection: AbortHandle) {
        self.0.push_back((has_asked, connection));
    }
}

/// The next client.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
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
async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    has_asked: Arc<AtomicBool>,
    mut stopped: watch::Receiver<bool>,
) {
    let service = TowerToHyperService::new(router);
    let service = service_fn(move |request| {
        has_asked.store(true, Ordering::Relaxed);
        service.call(request)
    });
    let io = TokioIo::new(Stall::new(stream, CLIENT_WITHIN));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(CLIENT_WITHIN)
        .max_buf_size(HEAD_BYTES_MOST)
        .max_headers(HEADERS_MOST)
        .serve_connection(io, service);
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
