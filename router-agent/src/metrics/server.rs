//! Answers scrapes by HTTP. Who scrapes can cost the agent little: few at once, each for a bounded
//! time.

use std::{convert::Infallible, fmt, net::SocketAddr, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CONTENT_TYPE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::{JoinSet, spawn_blocking},
    time::{sleep, timeout},
};

use super::text;
use crate::control::server::SharedSource;

/// Connections at once; further ones wait in the listen backlog.
const CONNECTIONS: usize = 8;
/// For a whole connection: one request and its answer.
const LONGEST: Duration = Duration::from_secs(10);
/// After a failed accept, most likely for want of file descriptors.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// OpenMetrics 1.0, "Overall Structure".
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Listens at `address`. Must be called within a tokio runtime.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Serves until dropped; open connections end with it.
pub async fn serve(listener: TcpListener, source: SharedSource) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let source = Arc::clone(&source);
                connections.spawn(hold(stream, source, Arc::new(slot)));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a scrape");
                sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}

/// The slot is free when the connection has ended and nothing is written for it any more.
async fn hold(stream: TcpStream, source: SharedSource, slot: Arc<OwnedSemaphorePermit>) {
    let service = service_fn(|request: Request<Incoming>| {
        let (source, slot) = (Arc::clone(&source), Arc::clone(&slot));
        async move {
            let write = move || {
                let _slot = slot;
                text(&*source)
            };
            let response = answer(request.method(), request.uri().path(), write).await;
            Ok::<_, Infallible>(response)
        }
    });
    let connection = http1::Builder::new()
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(LONGEST, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a scrape went wrong"),
        Err(_) => tracing::debug!("a scrape took too long"),
    }
}

/// `write` goes on to its end, whoever waits for it.
async fn answer<W>(method: &Method, path: &str, write: W) -> Response<Full<Bytes>>
where
    W: FnOnce() -> Result<String, fmt::Error> + Send + 'static,
{
    if path != "/metrics" {
        return plain(StatusCode::NOT_FOUND, "the metrics are at /metrics\n");
    }
    if method != Method::GET && method != Method::HEAD {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "");
        let allowed = hyper::header::HeaderValue::from_static("GET, HEAD");
        response.headers_mut().insert(ALLOW, allowed);
        return response;
    }
    // Of ten thousand tunnels it takes its time, in which the runtime has other things to do.
    let Ok(Ok(text)) = spawn_blocking(write).await else {
        return plain(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the metrics cannot be written\n",
        );
    };
    let mut response = Response::new(Full::from(text));
    let of = hyper::header::HeaderValue::from_static(OPEN_METRICS);
    response.headers_mut().insert(CONTENT_TYPE, of);
    response
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response
}
