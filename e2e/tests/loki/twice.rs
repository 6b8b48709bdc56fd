//! Lines that Loki gets twice in, what it makes of them out: each is there once, unless Loki cannot see that it is the same
//! (docs/adr/0023).

use std::collections::HashSet;
use std::ops::Range;
use std::time::Duration;

use sluice_e2e::figures::show;
use sluice_e2e::loki::Line;
use sluice_e2e::tally::SHARD;
use sluice_e2e::wait::until;

use crate::MACHINE;
use crate::lines::now;
use crate::naive::{self, Batch, Told};
use crate::server::Server;

const RATE: &str = "per_stream_rate_limit: 64MB\nper_stream_rate_limit_burst: 64MB";
const TENANT: &str = "twice";
const SELECTOR: &str = "{container=\"c\"}";

/// One stream of a Loki of its own.
struct Stream {
    server: Server,
    begin: i64,
}

impl Stream {
    async fn new(name: &str, sharding: &str) -> Self {
        let server = Server::start(name, &format!("{RATE}\nshard_streams: {{{sharding}}}")).await;
        Self {
            server,
            begin: now() - 60_000,
        }
    }

    /// Sends lines of 100 bytes, one of each millisecond.
    async fn send(&self, numbers: Range<i64>) {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let line = |n| (self.begin + n, format!("n={n:<97}"));
        let batch = Batch::from([("c".to_owned(), numbers.map(line).collect())]);
        let mut told = Told::default();
        naive::send(&http, &self.server.url, TENANT, &batch, &mut told).await;
        assert_eq!((told.success, told.dropped), (1, 0));
    }

    /// What a count says, how many lines a query returns, and how many different ones.
    async fn held(&self) -> (u64, usize, usize) {
        let reader = self.server.reader();
        let counted = reader.count(TENANT, SELECTOR).await.unwrap();
        let lines = reader.lines(TENANT, SELECTOR).await;
        let different: HashSet<_> = lines.iter().map(|line| &line.text).collect();
        let held = (counted, lines.len(), different.len());
        show(&format!("counted, returned, different: {held:?}"));
        held
    }
}

#[tokio::test]
async fn a_line_that_comes_again_is_counted_twice_when_its_block_has_ended() {
    let _beside = MACHINE.read().await;
    let stream = Stream::new("blocks", "enabled: false").await;
    stream.send(0..1_000).await;
    stream.send(900..1_000).await;
    assert_eq!(stream.held().await, (1_000, 1_000, 1_000));
    // A block of a chunk ends at 256 KiB, and is not compared with those before.
    stream.send(1_000..4_000).await;
    stream.send(0..100).await;
    assert_eq!(stream.held().await, (4_100, 4_000, 4_000));
}

#[tokio::test]
async fn a_line_that_comes_again_is_there_twice_when_it_goes_to_another_shard() {
    let _beside = MACHINE.read().await;
    let stream = Stream::new("shards", "enabled: true, desired_rate: 5KB").await;
    let mut sent = 0;
    // It shards what it knows the rate of, which it asks its ingesters for each second.
    until("a shard", Duration::from_mins(1), async || {
        stream.send(sent..sent + 100).await;
        sent += 100;
        let lines = stream.server.reader().lines(TENANT, SELECTOR).await;
        let is_shard = |line: &Line| !line.label(SHARD).is_empty();
        lines
            .iter()
            .any(is_shard)
            .then_some(())
            .ok_or_else(|| "none".to_owned())
    })
    .await;
    stream.send(0..100).await;
    let all = usize::try_from(sent).unwrap();
    let (counted, returned, different) = stream.held().await;
    assert_eq!((returned, different), (all + 100, all));
    assert_eq!(counted, returned as u64);
}
