//! A server that breaks in a chosen way, before a Loki double: requests in, raw bytes or a cut connection out;
//! once mended, everything passes.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::double::Double;

/// What happens on each connection.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Closed as soon as it is there.
    Refuses,
    /// The whole request is read, these bytes are answered, and the connection is closed.
    Closes(Vec<u8>),
    /// The same, but the connection stays open.
    Stays(Vec<u8>),
    /// The same, a byte at a time.
    Drips(Vec<u8>, Duration),
    /// The first bytes, and then the second again and again.
    Endless(Vec<u8>, Vec<u8>),
    /// The request is read a byte at a time.
    ReadsSlowly(Duration),
    /// So many bytes of the request reach the double, then the connection is cut, both ways.
    CutsRequest(usize),
    /// So many bytes of the double's answer come back, then the connection is cut, both ways.
    CutsAnswer(usize),
}

/// How many connections break.
#[derive(Clone, Debug)]
enum Mood {
    Broken(Fault),
    BrokenOnce(Fault),
    Mended,
}

#[derive(Debug)]
struct State {
    mood: Mood,
    /// Connections that broke.
    broken: usize,
    /// Bytes written to the one that took most of them.
    most_written: u64,
}

/// A broken server that listens.
#[derive(Clone)]
pub(crate) struct Broken {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
    /// Changes when all connections are to be closed.
    closing: watch::Sender<()>,
}

impl Broken {
    /// Stands before `double`.
    pub(crate) async fn before(double: &Double) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let broken = Self {
            address: listener.local_addr().unwrap(),
            state: Arc::new(Mutex::new(State {
                mood: Mood::Mended,
                broken: 0,
                most_written: 0,
            })),
            closing: watch::Sender::new(()),
        };
        let (accepting, behind) = (broken.clone(), double.address);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (broken, mut closing) = (accepting.clone(), accepting.closing.subscribe());
                tokio::spawn(async move {
                    tokio::select! {
                        () = broken.serve(stream, behind) => {}
                        _ = closing.changed() => {}
                    }
                });
            }
        });
        broken
    }

    /// Every connection breaks from now on.
    pub(crate) fn breaks(&self, fault: Fault) {
        let mut state = self.state.lock().unwrap();
        state.mood = Mood::Broken(fault);
        state.most_written = 0;
        drop(state);
        self.close();
    }

    /// The next connection breaks.
    pub(crate) fn breaks_once(&self, fault: Fault) {
        self.state.lock().unwrap().mood = Mood::BrokenOnce(fault);
        self.close();
    }

    /// Everything passes from now on.
    pub(crate) fn mend(&self) {
        self.state.lock().unwrap().mood = Mood::Mended;
        self.close();
    }

    /// Closes all connections, idle or not.
    pub(crate) fn close(&self) {
        self.closing.send_replace(());
    }

    /// How many connections broke.
    pub(crate) fn broken(&self) -> usize {
        self.state.lock().unwrap().broken
    }

    /// Bytes that the client took on one connection at most.
    pub(crate) fn most_written(&self) -> u64 {
        self.state.lock().unwrap().most_written
    }

    fn count(&self, written: u64) {
        let mut state = self.state.lock().unwrap();
        state.most_written = state.most_written.max(written);
    }

    fn next(&self) -> Option<Fault> {
        let mut state = self.state.lock().unwrap();
        let fault = match state.mood.clone() {
            Mood::Mended => return None,
            Mood::Broken(fault) => fault,
            Mood::BrokenOnce(fault) => {
                state.mood = Mood::Mended;
                fault
            }
        };
        state.broken += 1;
        Some(fault)
    }

    async fn serve(&self, mut stream: TcpStream, behind: SocketAddr) {
        match self.next() {
            None => {
                let mut double = TcpStream::connect(behind).await.unwrap();
                let _cut = tokio::io::copy_bidirectional(&mut stream, &mut double).await;
            }
            Some(Fault::Refuses) => {}
            Some(Fault::Closes(bytes)) => {
                read_request(&mut stream).await;
                let _gone = stream.write_all(&bytes).await;
            }
            Some(Fault::Stays(bytes)) => {
                read_request(&mut stream).await;
                let _gone = stream.write_all(&bytes).await;
                until_closed(&mut stream).await;
            }
            Some(Fault::Drips(bytes, pause)) => {
                read_request(&mut stream).await;
                for byte in bytes {
                    tokio::time::sleep(pause).await;
                    if stream.write_all(&[byte]).await.is_err() {
                        return;
                    }
                }
                until_closed(&mut stream).await;
            }
            Some(Fault::Endless(first, again)) => {
                read_request(&mut stream).await;
                let mut written = 0;
                let mut next = first;
                while stream.write_all(&next).await.is_ok() {
                    written += next.len() as u64;
                    self.count(written);
                    next.clone_from(&again);
                    // Small pieces take the client's time, not its memory.
                    if next.len() < 1024 {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                }
            }
            Some(Fault::ReadsSlowly(pause)) => {
                let mut byte = [0];
                while stream.read(&mut byte).await.is_ok_and(|read| read > 0) {
                    tokio::time::sleep(pause).await;
                }
            }
            Some(Fault::CutsRequest(bytes)) => relay(stream, behind, Some(bytes), None).await,
            Some(Fault::CutsAnswer(bytes)) => relay(stream, behind, None, Some(bytes)).await,
        }
    }
}

/// Passes bytes between client and double until so many went one way.
async fn relay(stream: TcpStream, behind: SocketAddr, request: Option<usize>, answer: Option<usize>) {
    let double = TcpStream::connect(behind).await.unwrap();
    let (mut from_client, mut to_client) = stream.into_split();
    let (mut from_double, mut to_double) = double.into_split();
    let limit = |bytes: Option<usize>| bytes.map_or(u64::MAX, |bytes| bytes as u64);
    let forth = async {
        let mut from_client = (&mut from_client).take(limit(request));
        let _cut = tokio::io::copy(&mut from_client, &mut to_double).await;
    };
    let back = async {
        let mut from_double = (&mut from_double).take(limit(answer));
        let _cut = tokio::io::copy(&mut from_double, &mut to_client).await;
    };
    tokio::select! {
        () = forth => {}
        () = back => {}
    }
}

/// Reads until a whole request is there, or the client gives up.
async fn read_request(stream: &mut TcpStream) {
    let mut request = Vec::new();
    loop {
        let head = request.windows(4).position(|window| window == b"\r\n\r\n");
        if let Some(end) = head {
            let text = String::from_utf8_lossy(&request[..end]).to_ascii_lowercase();
            let (_, length) = text.split_once("content-length: ").unwrap();
            let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
            if request.len() >= end + 4 + length {
                return;
            }
        }
        if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
            return;
        }
    }
}

async fn until_closed(stream: &mut TcpStream) {
    let mut rest = [0; 64];
    while stream.read(&mut rest).await.is_ok_and(|read| read > 0) {}
}
