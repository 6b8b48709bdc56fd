//! The control: a sender as agents are. It puts what it has of all streams into one request a second, sends it again
//! after a 429 or a 5xx, drops it after a 400, and takes 204 for what it says.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

/// What it was told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) requests: u64,
    pub(crate) success: u64,
    pub(crate) refused: u64,
    /// Lines of requests that were answered 204.
    pub(crate) acknowledged: u64,
    /// Lines that it dropped after a 400.
    pub(crate) dropped: usize,
}

/// A stream's label and its lines with their times in milliseconds.
pub(crate) type Batch = BTreeMap<String, Vec<(i64, String)>>;

/// Sends a batch.
pub(crate) async fn send(http: &reqwest::Client, url: &str, tenant: &str, batch: &Batch, told: &mut Told) {
    let streams: Vec<Value> = batch
        .iter()
        .map(|(container, lines)| {
            let values: Vec<Value> = lines
                .iter()
                .map(|(time, line)| json!([format!("{time}000000"), line]))
                .collect();
            json!({"stream": {"container": container, "sender": "naive"}, "values": values})
        })
        .collect();
    let lines: usize = batch.values().map(Vec::len).sum();
    let body = serde_json::to_vec(&json!({"streams": streams})).unwrap();
    let mut pause = Duration::from_millis(500);
    loop {
        told.requests += 1;
        let answer = http
            .post(format!("{url}/loki/api/v1/push"))
            .header("Content-Type", "application/json")
            .header("X-Scope-OrgID", tenant)
            .body(body.clone())
            .send()
            .await
            .unwrap();
        match answer.status().as_u16() {
            204 => {
                told.success += 1;
                told.acknowledged += lines as u64;
                return;
            }
            429 | 500.. => {
                told.refused += 1;
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(5));
            }
            _ => {
                told.dropped += lines;
                return;
            }
        }
    }
}
