//! A kind of logs in, a push request full of it out, to be compressed: lines of several forms and lengths as services
//! write them, and bytes that hardly compress.

use jiff::Timestamp;
use sluice_engine::cri;

use crate::request::{Request, Stamp, metadata};
use crate::shape::{Random, Shape, Writer};

/// A kind's name, and what makes its next line.
pub type Kind = (&'static str, fn(&mut Random, u64) -> Vec<u8>);

/// Kinds of logs beside the [shapes](Shape) of the bench.
pub const KINDS: [Kind; 5] = [
    ("JSON, five forms", json),
    ("access log", access),
    ("klog", klog),
    ("base64, 400 bytes", base64),
    ("random bytes, 400", bytes),
];

const PATHS: [&str; 5] = [
    "/api/v1/cart",
    "/api/v1/items",
    "/api/v1/users/login",
    "/healthz",
    "/api/v2/search?q=red+shoes&limit=20",
];
const AGENTS: [&str; 4] = [
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36",
    "curl/8.5.0",
    "kube-probe/1.33",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
];
const MESSAGES: [&str; 4] = [
    "Started container",
    "Syncing deployment",
    "\"Observed pod startup duration\" pod=\"team-a/web-5d4f7c9b8-x2x9z\" podStartSLOduration=",
    "Event occurred object=\"kube-system/coredns\" kind=\"Deployment\" reason=\"ScalingReplicaSet\" message=",
];

/// A request of about so many bytes with lines of a kind.
pub fn request_of(kind: Kind, bytes: usize) -> Vec<u8> {
    let mut random = Random::new(1);
    filled(bytes, |number| (kind.1)(&mut random, number))
}

/// The same with lines of a shape.
pub fn request_of_shape(shape: Shape, bytes: usize) -> Vec<u8> {
    let mut writer = Writer::new(shape, 1);
    let mut parser = cri::Parser::default();
    filled(bytes, |number| {
        let mut line = Vec::new();
        let written = writer.append(number, Timestamp::UNIX_EPOCH, &mut line).is_ok();
        debug_assert!(written, "memory is written");
        let line = line.strip_suffix(b"\n").unwrap_or(&line);
        parser
            .parse(line)
            .map(|line| line.content.to_vec())
            .unwrap_or_default()
    })
}

fn filled(bytes: usize, mut line: impl FnMut(u64) -> Vec<u8>) -> Vec<u8> {
    let mut request = Request::new(bytes);
    let labels = r#"{app="web",container="main",namespace="bench",node_name="bench"}"#;
    let metadata = metadata(&[("pod", "web-0"), ("stream", "stdout")]);
    let mut clock = Random::new(2);
    let mut nanos = 1_800_000_000_000_000_000_u64;
    let mut number = 0;
    let mut has_room = request.begin_stream(labels);
    while has_room {
        nanos += 2_500_000 + clock.below(2_500_000);
        let stamp = Stamp::new(cri::Timestamp {
            seconds: (nanos / 1_000_000_000).cast_signed(),
            nanos: u32::try_from(nanos % 1_000_000_000).unwrap_or(0),
        });
        has_room = request.push(&stamp, &line(number), &metadata);
        number += 1;
    }
    request.finish().to_vec()
}

/// Minutes and seconds that go on with a line's number.
fn clock(number: u64) -> String {
    format!("{:02}:{:02}", number / 60 % 60, number % 60)
}

fn json(random: &mut Random, number: u64) -> Vec<u8> {
    let mut line = format!(
        r#"{{"ts":"2026-11-20T17:{}.{:06}Z","level":"{}","caller":"server/handler.go:{}","msg":"#,
        clock(number),
        random.below(1_000_000),
        random.one_of(&["info", "info", "info", "warn", "debug", "error"]),
        40 + random.below(400),
    );
    let took = random.below(20_000);
    let more = match random.below(5) {
        0 => format!(
            r#""request completed","path":"{}","duration_ms":{}.{},"request_id":"{:08x}-{:04x}-4{:03x}-{:016x}"}}"#,
            random.one_of(&PATHS),
            took / 10,
            took % 10,
            random.below(1 << 32),
            random.below(1 << 16),
            random.below(1 << 12),
            random.number(),
        ),
        1 => format!(
            r#""cache miss, loading from the database","path":"{}","key":"item:{}"}}"#,
            random.one_of(&PATHS),
            random.below(100_000)
        ),
        2 => format!(
            r#""user logged in","user_id":{},"session":"{:016x}"}}"#,
            random.below(100_000),
            random.number()
        ),
        3 => format!(r#""payment accepted","order":{number},"amount":{took}}}"#),
        _ => format!(
            r#""retrying after a timeout","attempt":{},"error":"dial tcp 10.{}.{}.{}:5432: i/o timeout"}}"#,
            random.below(5),
            random.below(4),
            random.below(256),
            random.below(256)
        ),
    };
    line.push_str(&more);
    line.into_bytes()
}

fn access(random: &mut Random, number: u64) -> Vec<u8> {
    format!(
        r#"10.{}.{}.{} - - [20/Nov/2026:17:{} +0000] "GET {} HTTP/1.1" {} {} "-" "{}""#,
        random.below(4),
        random.below(256),
        random.below(256),
        clock(number),
        random.one_of(&PATHS),
        random.one_of(&[200, 200, 200, 304, 404, 500]),
        random.below(100_000),
        random.one_of(&AGENTS),
    )
    .into_bytes()
}

fn klog(random: &mut Random, number: u64) -> Vec<u8> {
    format!(
        "I1120 17:{}.{:06} {:7} {}:{}] {}{}",
        clock(number),
        random.below(1_000_000),
        1 + random.below(3),
        random.one_of(&["controller.go", "kubelet.go", "event.go", "reflector.go"]),
        100 + random.below(900),
        random.one_of(&MESSAGES),
        random.below(1 << 20),
    )
    .into_bytes()
}

fn base64(random: &mut Random, _number: u64) -> Vec<u8> {
    let digits: Vec<u8> = (b'A'..=b'Z')
        .chain(b'a'..=b'z')
        .chain(b'0'..=b'9')
        .chain(*b"+/")
        .collect();
    (0..400).map(|_| random.one_of(&digits)).collect()
}

fn bytes(random: &mut Random, _number: u64) -> Vec<u8> {
    (0..50).flat_map(|_| random.number().to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::count::PushRequest;

    #[test]
    fn requests_are_full_and_can_be_read() {
        let shapes = [Shape::Short, Shape::Json, Shape::Random].map(|shape| request_of_shape(shape, 100_000));
        for request in KINDS.map(|kind| request_of(kind, 100_000)).iter().chain(&shapes) {
            assert!((98_000..=100_000).contains(&request.len()), "{}", request.len());
            let read = PushRequest::decode(request.as_slice()).unwrap();
            assert!(read.streams[0].entries.iter().all(|entry| !entry.line.is_empty()));
        }
    }
}
