//! A server's address and a manner in; an address of this host out that behaves in this manner until it is told another.
//!
//! What a tenant's Loki is like behind a bad network or an overloaded gateway. Pods reach it at the host's address on the
//! cluster's bridge.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Bytes that are passed on at once.
const CHUNK: usize = 16 << 10;

/// How it behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// It passes everything on.
    Pass,
    /// It accepts connections and never reads from them.
    Stall,
    /// It passes on so many bytes per second of what the client sends.
    Slow(u64),
    /// It cuts a connection after so many bytes of the client.
    Cut(u64),
    /// It takes each request and answers with this status.
    Answer(u16),
}

/// A proxy; it ends with its owner.
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    manner: watch::Sender<Manner>,
    passed: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    /// Listens on `host` for `server`, and passes everything on.
    pub async fn start(host: &str, server: SocketAddr) -> Self {
        let listener = TcpListener::bind((host, 0))
            .await
            .unwrap_or_else(|error| panic!("listen on {host}: {error}"));
        let address = listener.local_addr().expect("a listener has an address");
        let (manner, seen) = watch::channel(Manner::Pass);
        let passed = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&passed);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (seen, counter) = (seen.clone(), Arc::clone(&counter));
                tokio::spawn(async move { drop(serve(client, server, seen, &counter).await) });
            }
        });
        Self {
            address,
            manner,
            passed,
            task,
        }
    }

    /// From now on like this. Connections that are open are closed, so that nobody goes on in the old manner.
    pub fn behave(&self, manner: Manner) {
        self.manner.send_replace(manner);
    }

    /// Bytes of clients that were passed on.
    pub fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    client: TcpStream,
    server: SocketAddr,
    mut seen: watch::Receiver<Manner>,
    passed: &AtomicU64,
) -> std::io::Result<()> {
    let manner = *seen.borrow_and_update();
    let work = async {
        match manner {
            Manner::Stall => std::future::pending().await,
            Manner::Answer(status) => answer(client, status).await,
            Manner::Pass => pass(client, server, None, u64::MAX, passed).await,
            Manner::Cut(after) => pass(client, server, None, after, passed).await,
            Manner::Slow(rate) => pass(client, server, Some(rate), u64::MAX, passed).await,
        }
    };
    tokio::select! {
        done = work => done,
        _ = seen.changed() => Ok(()),
    }
}

/// Passes bytes on until one side ends; `rate` bounds the client's bytes per second, `after` their number.
async fn pass(
    client: TcpStream,
    server: SocketAddr,
    rate: Option<u64>,
    mut after: u64,
    passed: &AtomicU64,
) -> std::io::Result<()> {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = TcpStream::connect(server).await?.into_split();
    let there = async {
        // A slow one takes little at a time, so that the client's own buffers fill.
        let mut buffer = vec![0; rate.map_or(CHUNK, |_| 1)];
        while after > 0 {
            let most = usize::try_from(after).unwrap_or(CHUNK).min(buffer.len());
            let read = from_client.read(&mut buffer[..most]).await?;
            if read == 0 {
                break;
            }
            to_server.write_all(&buffer[..read]).await?;
            after -= read as u64;
            passed.fetch_add(read as u64, Ordering::Relaxed);
            if let Some(rate) = rate {
                tokio::time::sleep(Duration::from_secs(1) / u32::try_from(rate.max(1)).unwrap_or(u32::MAX))
                    .await;
            }
        }
        std::io::Result::Ok(())
    };
    let back = async { tokio::io::copy(&mut from_server, &mut to_client).await.map(drop) };
    tokio::select! {
        ended = there => ended,
        ended = back => ended,
    }
}

/// Reads requests with a `Content-Length`, and answers each with a status and no body.
async fn answer(mut client: TcpStream, status: u16) -> std::io::Result<()> {
    let mut received = Vec::new();
    let mut buffer = vec![0; CHUNK];
    loop {
        let read = client.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        received.extend_from_slice(&buffer[..read]);
        while let Some(len) = request_len(&received).filter(|len| *len <= received.len()) {
            received.drain(..len);
            let text = format!("HTTP/1.1 {status} As Asked\r\nContent-Length: 0\r\n\r\n");
            client.write_all(text.as_bytes()).await?;
        }
    }
}

/// Bytes of the first request, once its head is there.
fn request_len(received: &[u8]) -> Option<usize> {
    let head = received.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&received[..head]).to_ascii_lowercase();
    let body = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"))
        .and_then(|value| value.trim().parse::<usize>().ok());
    Some(head + body.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_ends_with_its_body() {
        let request = b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET";
        assert_eq!(request_len(request), Some(request.len() - 3));
        assert_eq!(request_len(b"GET / HTTP/1.1\r\n"), None);
        assert_eq!(request_len(b"GET / HTTP/1.1\r\n\r\n"), Some(18));
    }
}
