//! The limit program: log files in, acknowledged push requests out, with the least work that does it honestly.
//!
//! One thread, no async runtime, no positions, no rotation, no retries: it reads 256 KiB at a time, splits
//! lines, takes the header off, writes protobuf, compresses, posts, and waits for each 204. Labels and
//! structured metadata are those of the agent's default profile, chosen by the engine.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;

use clap::Parser as _;
use sluice_bench::header::Parser;
use sluice_bench::layout::{self, Container};
use sluice_bench::request::{Request, metadata};
use sluice_engine::cri::Stream;
use sluice_engine::document::Limits;
use sluice_engine::labels::{Chosen, ContainerFacts, LabelRules, choose};
use sluice_engine::loki::PUSH_PATH;

type Error = Box<dyn std::error::Error>;

/// Bytes read at once.
const READ: usize = 256 << 10;
/// Uncompressed bytes of a request, the default of `delivery.batchBytes`.
const BATCH: usize = 1 << 20;
/// Bytes kept in front of a body, so that head and body are written at once.
const HEAD: usize = 256;

/// Sends every line of a log root, once, as fast as can be.
#[derive(clap::Parser)]
struct Args {
    /// Folder of the pods' log folders.
    #[arg(long)]
    log_root: PathBuf,
    /// Host and port of the sink.
    #[arg(long)]
    sink: String,
    /// Value of the label `node_name`.
    #[arg(long)]
    node_name: String,
}

fn main() -> Result<(), Error> {
    let args = Args::parse();
    let mut sender = Sender::connect(&args.sink)?;
    let mut request = Request::new(BATCH);
    let mut buffer = vec![0; READ];
    for container in layout::containers(&args.log_root)? {
        let source = Source::new(&container, &args.node_name);
        source.open_stream(&mut request, &mut sender)?;
        source.send_all(
            File::open(&container.file)?,
            &mut buffer,
            &mut request,
            &mut sender,
        )?;
    }
    sender.send(&mut request)
}

/// What is the same for every line of a container.
struct Source {
    labels: String,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Source {
    fn new(container: &Container, node: &str) -> Self {
        let unknown = std::collections::BTreeMap::new();
        let facts = ContainerFacts {
            namespace: &container.namespace,
            namespace_labels: &unknown,
            pod: &container.pod,
            pod_labels: &unknown,
            controller: None,
            container: &container.container,
            node,
        };
        let chosen = choose(&LabelRules::default(), &facts, &Limits::default());
        let with_output = |chosen: &Chosen, output| {
            let mut pairs: Vec<(&str, &str)> = chosen
                .metadata
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .collect();
            if chosen.stream {
                pairs.push(("stream", output));
            }
            metadata(&pairs)
        };
        Self {
            stdout: with_output(&chosen, "stdout"),
            stderr: with_output(&chosen, "stderr"),
            labels: chosen.labels,
        }
    }

    fn send_all(
        &self,
        mut file: File,
        buffer: &mut [u8],
        request: &mut Request,
        sender: &mut Sender,
    ) -> Result<(), Error> {
        let mut parser = Parser::default();
        // The end of the last read that is no whole line yet stands at the front of the buffer.
        let mut carried = 0;
        loop {
            let room = buffer.get_mut(carried..).unwrap_or_default();
            let read = file.read(room)?;
            let filled = carried + read;
            let bytes = buffer.get(..filled).unwrap_or_default();
            let mut begin = 0;
            for end in memchr::memchr_iter(b'\n', bytes) {
                self.add(
                    bytes.get(begin..end).unwrap_or_default(),
                    &mut parser,
                    request,
                    sender,
                )?;
                begin = end + 1;
            }
            if read == 0 || begin == 0 {
                return if filled == 0 {
                    Ok(())
                } else {
                    Err("a line does not end, or is longer than the buffer".into())
                };
            }
            buffer.copy_within(begin..filled, 0);
            carried = filled - begin;
        }
    }

    #[inline]
    fn add(
        &self,
        line: &[u8],
        parser: &mut Parser,
        request: &mut Request,
        sender: &mut Sender,
    ) -> Result<(), Error> {
        let line = parser.parse(line)?;
        let metadata = match line.stream {
            Stream::Stdout => &self.stdout,
            Stream::Stderr => &self.stderr,
        };
        if !request.push(&line.stamp, line.content, metadata) {
            sender.send(request)?;
            self.open_stream(request, sender)?;
            if !request.push(&line.stamp, line.content, metadata) {
                return Err("a line is longer than a request".into());
            }
        }
        Ok(())
    }

    fn open_stream(&self, request: &mut Request, sender: &mut Sender) -> Result<(), Error> {
        if !request.begin_stream(&self.labels) {
            sender.send(request)?;
            if !request.begin_stream(&self.labels) {
                return Err("labels are longer than a request".into());
            }
        }
        Ok(())
    }
}

/// A connection and the memory for one request on it.
struct Sender {
    connection: TcpStream,
    sink: String,
    encoder: snap::raw::Encoder,
    /// [`HEAD`] bytes whose end is the head, then the body.
    wire: Vec<u8>,
}

impl Sender {
    fn connect(sink: &str) -> Result<Self, Error> {
        let connection = TcpStream::connect(sink)?;
        connection.set_nodelay(true)?;
        Ok(Self {
            connection,
            sink: sink.to_owned(),
            encoder: snap::raw::Encoder::new(),
            wire: vec![0; HEAD + snap::raw::max_compress_len(BATCH)],
        })
    }

    /// Compresses and posts a request, waits until it is acknowledged, and empties it.
    fn send(&mut self, request: &mut Request) -> Result<(), Error> {
        let raw = request.finish();
        if raw.is_empty() {
            return Ok(());
        }
        let (front, body) = self.wire.split_at_mut_checked(HEAD).ok_or("no memory")?;
        let length = self.encoder.compress(raw, body)?;
        let head = format!(
            "POST {PUSH_PATH} HTTP/1.1\r\nHost: {}\r\nX-Scope-OrgID: bench\r\nContent-Type: application/x-protobuf\r\nContent-Length: {length}\r\n\r\n",
            self.sink
        );
        let start = HEAD
            .checked_sub(head.len())
            .ok_or("the head is longer than kept for it")?;
        front
            .get_mut(start..)
            .unwrap_or_default()
            .copy_from_slice(head.as_bytes());
        self.connection
            .write_all(self.wire.get(start..HEAD + length).unwrap_or_default())?;
        self.acknowledged()?;
        request.clear();
        Ok(())
    }

    fn acknowledged(&mut self) -> Result<(), Error> {
        let mut answer = [0; 512];
        let mut filled = 0;
        loop {
            let read = self
                .connection
                .read(answer.get_mut(filled..).unwrap_or_default())?;
            filled += read;
            let text = answer.get(..filled).unwrap_or_default();
            if text.ends_with(b"\r\n\r\n") {
                return if text.starts_with(b"HTTP/1.1 204 ") {
                    Ok(())
                } else {
                    Err(format!("the sink answered {}", String::from_utf8_lossy(text)).into())
                };
            }
            if read == 0 {
                return Err("the sink hung up".into());
            }
        }
    }
}
