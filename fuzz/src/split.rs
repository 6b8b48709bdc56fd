//! Bytes in: a body of any bytes is split or not; what prost reads in the parts is what it reads in the whole, in order.

use prost::Message as _;
use sluice_agent::push::fuzz::{Part, apart, halves};

#[derive(Clone, PartialEq, prost::Message)]
struct Request {
    #[prost(message, repeated, tag = "1")]
    streams: Vec<Stream>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Stream {
    #[prost(bytes = "vec", tag = "1")]
    labels: Vec<u8>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    entries: Vec<Vec<u8>>,
}

pub(crate) fn check(data: &[u8]) {
    // Not even snappy, mostly.
    let _either = (apart(data), halves(data));
    let body = snap::raw::Encoder::new().compress_vec(data).unwrap();
    let parts = apart(&body);
    let Ok(whole) = Request::decode(data) else {
        return;
    };
    if let Some(parts) = parts {
        let found = read(&parts);
        assert!(found.iter().all(|request| request.streams.len() == 1));
        let streams: Vec<Stream> = found.into_iter().flat_map(|request| request.streams).collect();
        assert_eq!(streams, whole.streams);
    }
    if let Some([first, second]) = halves(&body) {
        let [first, second] = [&read(&[first])[0], &read(&[second])[0]];
        if let [lone] = whole.streams.as_slice() {
            let ([one], [other]) = (first.streams.as_slice(), second.streams.as_slice()) else {
                panic!("a lone stream is halved by its entries");
            };
            assert_eq!((&one.labels, &other.labels), (&lone.labels, &lone.labels));
            assert!(!one.entries.is_empty() && !other.entries.is_empty());
            assert_eq!([&one.entries[..], &other.entries[..]].concat(), lone.entries);
        } else {
            assert!(!first.streams.is_empty() && !second.streams.is_empty());
            assert_eq!([&first.streams[..], &second.streams[..]].concat(), whole.streams);
        }
    }
}

fn read(parts: &[Part]) -> Vec<Request> {
    let read = |(body, streams, lines): &Part| {
        let raw = snap::raw::Decoder::new().decompress_vec(body).unwrap();
        let request = Request::decode(raw.as_slice()).unwrap();
        assert_eq!(request.streams.len(), *streams as usize);
        let entries: usize = request.streams.iter().map(|stream| stream.entries.len()).sum();
        assert_eq!(entries, *lines as usize);
        request
    };
    parts.iter().map(read).collect()
}
