//! Twenty agents on one tenant of 4 MiB/s: how much of it they use, how often they are refused, how even their shares are.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::json;
use sluice_e2e::figures::show;

use crate::MACHINE;
use crate::agent::{Agent, document};
use crate::lines::{Writer, now};
use crate::server::{Server, folder};

const AGENTS: usize = 20;
/// Seconds until agents that began together have parted, and seconds that are measured then, unless
/// `SLUICE_SHARED_SECONDS` says more.
const SETTLE: u64 = 60;
const MEASURE: u64 = 60;
/// So long it takes until shares have become even: an agent is refused two or three times a minute.
const EVEN: u64 = 480;
/// Bytes that an agent has to send, in each second: three times its part.
const PLENTY: u64 = 3 * (4 << 20) / AGENTS as u64;
const LINE: usize = 500;
const STREAMS: u64 = 4;

/// The value of a counter in Loki's metrics, of one tenant, by another label.
async fn counter(server: &Server, name: &str, label: &str) -> BTreeMap<String, f64> {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let text = http
        .get(format!("{}/metrics", server.url))
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    let mut found = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with(name)) {
        let key = line
            .split_once(&format!("{label}=\""))
            .and_then(|(_, rest)| rest.split_once('"'))
            .map_or("", |(value, _)| value);
        let value: f64 = line.rsplit(' ').next().unwrap().parse().unwrap();
        *found.entry(key.to_owned()).or_default() += value;
    }
    found
}

/// Requests answered with 204 and with 429, and bytes that Loki took: those that it received, which it counts before it asks
/// whether the tenant may send them, without those that it refused.
async fn figures(server: &Server) -> (f64, f64, f64) {
    let codes = counter(server, "loki_request_duration_seconds_count", "status_code").await;
    let pushes = |code: &str| codes.get(code).copied().unwrap_or_default();
    let bytes = async |name| {
        let of_tenants = counter(server, name, "tenant").await;
        of_tenants.get("agent").copied().unwrap_or_default()
    };
    let received = bytes("loki_distributor_bytes_received_total").await;
    let refused = bytes("loki_discarded_bytes_total").await;
    (pushes("204"), pushes("429"), received - refused)
}

#[tokio::test]
#[ignore = "two minutes: make test-loki names it"]
async fn twenty_agents_share_a_tenant() {
    let _beside = MACHINE.read().await;
    let measure = std::env::var("SLUICE_SHARED_SECONDS").map_or(MEASURE, |text| text.parse().unwrap());
    let settle = SETTLE.max(measure / 4);
    let lines = i64::try_from((settle + measure) * PLENTY / STREAMS / LINE as u64).unwrap();
    let server = Server::start(
        "shared",
        "ingestion_rate_mb: 4\ningestion_burst_size_mb: 6\nper_stream_rate_limit: 64MB\nper_stream_rate_limit_burst: 64MB",
    )
    .await;
    let root = folder("shared-agents");
    let mut agents = Vec::new();
    for n in 0..AGENTS {
        let of_agent = root.join(n.to_string());
        std::fs::create_dir_all(&of_agent).unwrap();
        // More than anybody's share of the time, in streams of their own.
        for stream in 0..STREAMS {
            let mut writer = Writer::new(&of_agent, &format!("pod-{n}"), &format!("c{stream}"));
            let begin = now();
            writer.write((0..lines).map(|line| begin + line / 100), LINE);
        }
        let limits = json!({"perStreamRateBytesPerSecond": 64 << 20, "perStreamBurstBytes": 64 << 20});
        agents.push(Agent::start(
            &of_agent,
            &format!("node-{n}"),
            &document(&server.url, "agent", &limits),
        ));
    }
    let begun = Instant::now();
    tokio::time::sleep(Duration::from_secs(settle)).await;
    let (taken, refused, bytes) = figures(&server).await;
    let shares = shares(&server, "before").await;
    let measured = Instant::now();
    tokio::time::sleep(Duration::from_secs(measure)).await;
    let (taken_after, refused_after, bytes_after) = figures(&server).await;
    let after = self::shares(&server, "after").await;
    let seconds = measured.elapsed().as_secs_f64();
    let used = (bytes_after - bytes) / seconds / f64::from(4 << 20);
    let refusals = (refused_after - refused) / (refused_after - refused + taken_after - taken);
    let of_agent: Vec<f64> = (0..AGENTS)
        .map(|n| {
            let node = format!("node-{n}");
            after.get(&node).copied().unwrap_or_default() - shares.get(&node).copied().unwrap_or_default()
        })
        .collect();
    let (most, least) = (
        of_agent.iter().copied().fold(0.0, f64::max),
        of_agent.iter().copied().fold(f64::MAX, f64::min),
    );
    show(&format!(
        "{AGENTS} agents after {} s: {:.1} % of 4 MiB/s used, {:.1} % of {} requests answered 429, shares {least:.0} to {most:.0} lines ({:.2})",
        begun.elapsed().as_secs(),
        used * 100.0,
        refusals * 100.0,
        refused_after - refused + taken_after - taken,
        most / least
    ));
    drop(agents);
    std::fs::remove_dir_all(root).unwrap();
    // More than the limit and its burst would not be what Loki took.
    assert!((0.9..1.03).contains(&used), "{used}");
    assert!(refusals < 0.05, "{refusals}");
    let uneven = if measure < EVEN { f64::INFINITY } else { 2.0 };
    assert!(least > 0.0 && most / least < uneven, "{of_agent:?}");
}

/// Lines that Loki has of each node.
async fn shares(server: &Server, when: &str) -> BTreeMap<String, f64> {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = reqwest::Url::parse_with_params(
        &format!("{}/loki/api/v1/query", server.url),
        [(
            "query",
            "sum by (node_name) (count_over_time({container=~\".+\"}[1h]))",
        )],
    )
    .unwrap();
    let answer = http
        .get(url)
        .header("X-Scope-OrgID", "agent")
        .send()
        .await
        .unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    let results = answer["data"]["result"]
        .as_array()
        .unwrap_or_else(|| panic!("{when}: {answer}"));
    results
        .iter()
        .map(|result| {
            let node = result["metric"]["node_name"].as_str().unwrap().to_owned();
            (node, result["value"][1].as_str().unwrap().parse().unwrap())
        })
        .collect()
}
