//! A Loki double: answers as its script says, keeps what it stores and everything it was asked.
//!
//! The keys and certificates beside this file serve nothing but these tests.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::proto::{self, PushRequest};

/// One answer.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// 204, everything stored.
    Stored,
    /// Status, further headers, body; nothing stored.
    Status(u16, &'static str, String),
    /// Status and body; everything stored but entries whose line holds this text.
    StoredBut(&'static str, u16, String),
    /// The connection is cut without an answer, nothing stored.
    Cut,
    /// Nothing is answered for so long, then the connection is cut.
    Silent(Duration),
}

/// What was asked.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
    pub(crate) request: PushRequest,
}

/// The double's memory.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    pub(crate) asked: Vec<Asked>,
    /// Lines by stream, in the order in which they came.
    pub(crate) stored: BTreeMap<String, Vec<String>>,
    pub(crate) connections: usize,
}

type Script = Box<dyn FnMut(&Asked) -> Reply + Send>;

/// A double that listens.
#[derive(Clone)]
pub(crate) struct Double {
    pub(crate) address: SocketAddr,
    memory: Arc<Mutex<Memory>>,
}

impl Double {
    /// A double that answers by a function of what it is asked.
    pub(crate) async fn deciding(script: impl FnMut(&Asked) -> Reply + Send + 'static) -> Self {
        Self::start(Box::new(script), None).await
    }

    /// A double that answers these one after the other and then stores everything.
    pub(crate) async fn scripted(replies: impl IntoIterator<Item = Reply>) -> Self {
        let mut replies: std::collections::VecDeque<Reply> = replies.into_iter().collect();
        Self::deciding(move |_| replies.pop_front().unwrap_or(Reply::Stored)).await
    }

    /// A double that speaks TLS as `loki.test`, with or without asking for a client certificate.
    pub(crate) async fn with_tls(client_certificate: bool) -> Self {
        Self::start(Box::new(|_| Reply::Stored), Some(acceptor(client_certificate))).await
    }

    async fn start(script: Script, tls: Option<tokio_rustls::TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let memory = Arc::new(Mutex::new(Memory::default()));
        let script = Arc::new(Mutex::new(script));
        let double = Self { address, memory };
        let accepting = double.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                accepting.memory(|memory| memory.connections += 1);
                let (double, script, tls) = (accepting.clone(), Arc::clone(&script), tls.clone());
                tokio::spawn(async move {
                    if let Some(tls) = tls {
                        if let Ok(stream) = tls.accept(stream).await {
                            serve(stream, &double, &script).await;
                        }
                    } else {
                        serve(stream, &double, &script).await;
                    }
                });
            }
        });
        double
    }

    pub(crate) fn memory<T>(&self, read: impl FnOnce(&mut Memory) -> T) -> T {
        read(&mut self.memory.lock().unwrap())
    }

    /// Stored lines, sorted.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.memory(|memory| memory.stored.values().flatten().cloned().collect());
        lines.sort();
        lines
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.memory(|memory| memory.asked.clone())
    }
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, double: &Double, script: &Mutex<Script>) {
    let mut buffer = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                return;
            }
            // A TLS handshake, to a double that speaks none.
            if buffer.first() == Some(&0x16) {
                let _gone = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
                return;
            }
        };
        let head = String::from_utf8(buffer[..end].to_vec()).unwrap();
        let mut lines = head.lines();
        let path = lines.next().unwrap().split(' ').nth(1).unwrap().to_owned();
        let headers: BTreeMap<String, String> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let length: usize = headers["content-length"].parse().unwrap();
        while buffer.len() < end + length {
            if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let body = buffer[end..end + length].to_vec();
        buffer.drain(..end + length);
        let asked = Asked { path, headers, request: proto::decode(&body), body };
        let reply = (script.lock().unwrap())(&asked);
        let except = match &reply {
            Reply::Stored => Some(None),
            Reply::StoredBut(text, ..) => Some(Some(*text)),
            Reply::Status(..) | Reply::Cut | Reply::Silent(_) => None,
        };
        double.memory(|memory| {
            for stream in asked.request.streams.iter().filter(|_| except.is_some()) {
                let lines = stream.entries.iter().map(|entry| entry.line.clone());
                let kept = lines.filter(|line| !except.flatten().is_some_and(|text| line.contains(text)));
                memory.stored.entry(stream.labels.clone()).or_default().extend(kept);
            }
            memory.asked.push(asked);
        });
        let answer = match reply {
            Reply::Stored => "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
            Reply::Status(status, headers, body) => answer(status, headers, &body),
            Reply::StoredBut(_, status, body) => answer(status, "", &body),
            Reply::Cut => return,
            Reply::Silent(time) => {
                tokio::time::sleep(time).await;
                return;
            }
        };
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn answer(status: u16, headers: &str, body: &str) -> String {
    if status == 204 {
        return format!("HTTP/1.1 204 No Content\r\n{headers}\r\n");
    }
    format!("HTTP/1.1 {status} Answer\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
}

fn acceptor(client_certificate: bool) -> tokio_rustls::TlsAcceptor {
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};

    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(include_bytes!("tls/ca.pem")).unwrap()).unwrap();
    let builder = if client_certificate {
        let verifier =
            rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        builder.with_client_cert_verifier(verifier)
    } else {
        builder.with_no_client_auth()
    };
    let chain = vec![CertificateDer::from_pem_slice(include_bytes!("tls/server.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("tls/server.key")).unwrap();
    Arc::new(builder.with_single_cert(chain, key).unwrap()).into()
}
