//! Push requests in, 204 out: a stand-in for Loki that costs next to nothing, so that its senders are what is measured.
//!
//! It neither decompresses nor parses unless `--count` is given. `GET /figures` answers with what has come,
//! lines of `name value`; after `GET /refuse` it answers with 503 until `GET /accept`.
#![allow(clippy::print_stdout, reason = "a program, not a service")]

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::SystemTime;

use clap::Parser as _;
use memchr::memmem;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use sluice_bench::count::Counts;

/// Bytes read at once; bodies are about this long.
const READ: usize = 1 << 20;

/// Answers every push request with 204.
#[derive(clap::Parser)]
struct Args {
    /// Address and port.
    #[arg(long)]
    listen: String,
    /// Decode the requests and count lines by their numbers.
    #[arg(long)]
    count: bool,
    /// Speak TLS with `server.pem` and `server.key` of this folder.
    #[arg(long)]
    tls: Option<PathBuf>,
}

/// What has come, on all connections.
#[derive(Default)]
struct Figures {
    requests: AtomicU64,
    bytes: AtomicU64,
    refusing: AtomicBool,
    counts: Option<Mutex<Counts>>,
}

fn main() -> io::Result<()> {
    let args = Args::parse();
    let listener = TcpListener::bind(&args.listen)?;
    let tls = args.tls.as_deref().map(tls_config).transpose()?;
    println!("listening on {}", listener.local_addr()?);
    let figures = Arc::new(Figures {
        counts: args.count.then(Mutex::default),
        ..Figures::default()
    });
    for connection in listener.incoming() {
        let (connection, figures, tls) = (connection?, Arc::clone(&figures), tls.clone());
        thread::spawn(move || {
            if let Err(error) = welcome(connection, tls, &figures) {
                println!("a connection ended: {error}");
            }
        });
    }
    Ok(())
}

fn tls_config(folder: &Path) -> io::Result<Arc<ServerConfig>> {
    let certificate = CertificateDer::from_pem_file(folder.join("server.pem")).map_err(io::Error::other)?;
    let key = PrivateKeyDer::from_pem_file(folder.join("server.key")).map_err(io::Error::other)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .map_err(io::Error::other)?;
    Ok(Arc::new(config))
}

fn welcome(connection: TcpStream, tls: Option<Arc<ServerConfig>>, figures: &Figures) -> io::Result<()> {
    connection.set_nodelay(true)?;
    match tls {
        None => serve(connection, figures),
        Some(config) => {
            let session = ServerConnection::new(config).map_err(io::Error::other)?;
            serve(StreamOwned::new(session, connection), figures)
        }
    }
}

/// Answers the requests of one connection, one after the other, until the client hangs up.
fn serve(mut connection: impl Read + Write, figures: &Figures) -> io::Result<()> {
    let mut buffer = vec![0; READ];
    while let Some((head, filled)) = read_head(&mut connection, &mut buffer)? {
        let (text, begun) = buffer
            .get(..filled)
            .and_then(|got| got.split_at_checked(head))
            .unwrap_or_default();
        if text.starts_with(b"GET ") {
            for (path, refuse) in [("GET /refuse", true), ("GET /accept", false)] {
                if text.starts_with(path.as_bytes()) {
                    figures.refusing.store(refuse, Ordering::Relaxed);
                }
            }
            connection.write_all(figures.answer().as_bytes())?;
            continue;
        }
        let length = content_length(text)?;
        let mut missing = length
            .checked_sub(begun.len())
            .ok_or_else(|| io::Error::other("a request before the answer to the last one"))?;
        let mut kept = figures.counts.as_ref().map(|_| begun.to_vec());
        while missing > 0 {
            let room = buffer.get_mut(..missing.min(READ)).unwrap_or_default();
            let read = connection.read(room)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(body) = &mut kept {
                body.extend_from_slice(buffer.get(..read).unwrap_or_default());
            }
            missing -= read;
        }
        if figures.refusing.load(Ordering::Relaxed) {
            figures.requests.fetch_add(1, Ordering::Relaxed);
            connection.write_all(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")?;
            continue;
        }
        figures.add(length, kept.as_deref())?;
        connection.write_all(b"HTTP/1.1 204 No Content\r\n\r\n")?;
    }
    Ok(())
}

/// Reads until a head is whole: its length, and how much was read; `None` when the client hung up.
fn read_head(connection: &mut impl Read, buffer: &mut [u8]) -> io::Result<Option<(usize, usize)>> {
    let mut filled = 0;
    loop {
        let read = connection.read(buffer.get_mut(filled..).unwrap_or_default())?;
        if read == 0 {
            return Ok(None);
        }
        filled += read;
        if let Some(end) = memmem::find(buffer.get(..filled).unwrap_or_default(), b"\r\n\r\n") {
            return Ok(Some((end + 4, filled)));
        }
    }
}

fn content_length(head: &[u8]) -> io::Result<usize> {
    String::from_utf8_lossy(head)
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse().ok())
        .ok_or_else(|| io::Error::other("a request without Content-Length"))
}

impl Figures {
    fn add(&self, length: usize, body: Option<&[u8]>) -> io::Result<()> {
        if let (Some(counts), Some(body)) = (&self.counts, body) {
            // A body that cannot be decoded is not acknowledged: the connection ends, the bench fails.
            let now = SystemTime::UNIX_EPOCH.elapsed().map_err(io::Error::other)?;
            counts
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .add(body, now)
                .map_err(|error| io::Error::other(error.to_string()))?;
        }
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(length as u64, Ordering::Relaxed);
        Ok(())
    }

    fn answer(&self) -> String {
        let mut body = format!(
            "requests {}\nbytes {}\n",
            self.requests.load(Ordering::Relaxed),
            self.bytes.load(Ordering::Relaxed)
        );
        if let Some(counts) = &self.counts {
            body += &counts.lock().unwrap_or_else(PoisonError::into_inner).to_string();
        }
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    }
}
