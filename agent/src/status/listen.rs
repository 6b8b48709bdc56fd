//! A port and a router in, answers out; with TLS or without.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::tls::TlsFiles;

/// Connections at once on one port: probes, a scraper or two, the leader and its predecessor.
const CONNECTIONS: usize = 32;
/// For a TLS handshake and for each request's head.
const PATIENCE: Duration = Duration::from_secs(10);
/// What hyper may buffer of a request: no request of ours has a body.
const BUFFER: usize = 16 << 10;

/// Binds an address. `[::]` takes IPv4 as well; where IPv6 is off, `0.0.0.0` takes its place.
///
/// # Errors
/// Of the system, such as an address in use.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let bound = TcpListener::bind(address).await;
    match &bound {
        Err(error) if address.is_ipv6() && address.ip().is_unspecified() && is_no_ipv6(error) => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        _ => bound,
    }
}

fn is_no_ipv6(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}

/// Answers requests; ends only with the process. With TLS, a connection is closed while there is no
/// certificate.
pub async fn serve(listener: TcpListener, tls: Option<Arc<TlsFiles>>, router: Router) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, or the client is gone already.
                tracing::debug!("cannot accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (router, tls) = (router.clone(), tls.clone());
        tokio::spawn(async move {
            let _slot = slot;
            let Some(tls) = tls else {
                return connection(stream, router).await;
            };
            let Some(acceptor) = tls.acceptor() else { return };
            match tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => connection(stream, router).await,
                Ok(Err(error)) => tracing::debug!("TLS handshake on the status port: {error}"),
                Err(_) => tracing::debug!("TLS handshake on the status port: timed out"),
            }
        });
    }
}

async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin, router: Router) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    if let Err(error) = served.await {
        tracing::debug!("connection: {error}");
    }
}
