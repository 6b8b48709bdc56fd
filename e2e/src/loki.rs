//! A tenant and a selector in; exactly what Loki holds of them out.
//!
//! A read-back goes page by page, forward in time. A full page may end between entries of one timestamp, so that timestamp
//! is left to the next page as a whole: no entry is lost or read twice.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use crate::wait::until;

/// Entries of one page; the cluster's Loki would return twice as many.
const PAGE: usize = 500_000;
/// How far back a query looks; every test has namespaces of its own, so it need not be exact.
const HOURS: i64 = 3;

/// The cluster's Loki.
#[derive(Clone)]
pub struct Loki {
    http: reqwest::Client,
    url: String,
}

/// One entry as Loki returns it.
#[derive(Clone, Debug)]
pub struct Line {
    /// Labels of its stream, and structured metadata beside them.
    pub labels: Arc<BTreeMap<String, String>>,
    /// Its timestamp, in nanoseconds since 1970.
    pub nanoseconds: i64,
    /// Its text.
    pub text: String,
}

impl Line {
    /// A label's value, or nothing.
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

impl Loki {
    /// The Loki at this base URL.
    pub fn new(url: &str) -> Self {
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_mins(2))
            .build()
            .expect("an HTTP client");
        Self {
            http,
            url: url.to_owned(),
        }
    }

    /// How many entries a tenant has for a selector such as `{namespace="a"}`. `Err` while Loki does not answer.
    pub async fn count(&self, tenant: &str, selector: &str) -> Result<u64, String> {
        let query = format!("sum(count_over_time({selector}[{HOURS}h]))");
        let answer = self.get(tenant, "query", &[("query", query)]).await?;
        // No entry at all is an empty vector, not a zero.
        let value = &answer["data"]["result"][0]["value"][1];
        Ok(value
            .as_str()
            .map_or(0, |number| number.parse().expect("a count is a number")))
    }

    /// Waits until at least `count` entries are there. An entry that was sent twice may be counted twice
    /// (docs/adr/0023): for what is judged afterwards there is [`Loki::until_lines`].
    pub async fn until_count(&self, tenant: &str, selector: &str, count: u64, limit: Duration) {
        until(
            &format!("{count} entries of {selector} in tenant {tenant}"),
            limit,
            async || match self.count(tenant, selector).await? {
                found if found >= count => Ok(()),
                found => Err(format!("{found} entries")),
            },
        )
        .await;
    }

    /// Every entry of a selector, as [`Loki::lines`] gives them, once at least `count` different ones are there.
    pub async fn until_lines(&self, tenant: &str, selector: &str, count: u64, limit: Duration) -> Vec<Line> {
        self.until_count(tenant, selector, count, limit).await;
        until(
            &format!("{count} lines of {selector} in tenant {tenant}"),
            limit,
            async || {
                let lines = self.lines(tenant, selector).await;
                let different: HashSet<_> = lines.iter().map(|line| (line.nanoseconds, &line.text)).collect();
                match different.len() as u64 {
                    found if found >= count => Ok(lines),
                    found => Err(format!("{found} lines")),
                }
            },
        )
        .await
    }

    /// Timestamp of the newest entry of a selector in nanoseconds since 1970, 0 where there is none.
    pub async fn newest(&self, tenant: &str, selector: &str) -> Result<i64, String> {
        let parameters = [
            ("query", selector.to_owned()),
            ("limit", "1".to_owned()),
            ("since", "1h".to_owned()),
            ("direction", "backward".to_owned()),
        ];
        let answer = self.get(tenant, "query_range", &parameters).await?;
        let newest = streams(&answer).iter().map(|line| line.nanoseconds).max();
        Ok(newest.unwrap_or(0))
    }

    /// Every entry of a selector, by stream and in each stream by time.
    pub async fn lines(&self, tenant: &str, selector: &str) -> Vec<Line> {
        let now = Timestamp::now().as_second();
        let mut start = (now - HOURS * 3600) * 1_000_000_000;
        let end = (now + 60) * 1_000_000_000;
        let mut lines = Vec::new();
        loop {
            let mut page = self.page(tenant, selector, start, end).await;
            if page.len() < PAGE {
                lines.append(&mut page);
                return lines;
            }
            let last = page.iter().map(|line| line.nanoseconds).max().unwrap_or(end);
            assert!(
                last > start,
                "{PAGE} entries of {selector} in tenant {tenant} share one timestamp"
            );
            page.retain(|line| line.nanoseconds < last);
            lines.append(&mut page);
            start = last;
        }
    }

    async fn page(&self, tenant: &str, selector: &str, start: i64, end: i64) -> Vec<Line> {
        let parameters = [
            ("query", selector.to_owned()),
            ("start", start.to_string()),
            ("end", end.to_string()),
            ("limit", PAGE.to_string()),
            ("direction", "forward".to_owned()),
        ];
        let answer = self.get(tenant, "query_range", &parameters).await;
        let answer =
            answer.unwrap_or_else(|error| panic!("read back {selector} of tenant {tenant}: {error}"));
        streams(&answer)
    }

    async fn get(&self, tenant: &str, api: &str, parameters: &[(&str, String)]) -> Result<Value, String> {
        let url = reqwest::Url::parse_with_params(&format!("{}/loki/api/v1/{api}", self.url), parameters)
            .map_err(|error| error.to_string())?;
        let request = self.http.get(url).header("X-Scope-OrgID", tenant).send();
        let response = request.await.map_err(|error| format!("Loki: {error}"))?;
        let status = response.status();
        let body = response.bytes().await.map_err(|error| format!("Loki: {error}"))?;
        if status.is_success() {
            serde_json::from_slice(&body).map_err(|error| format!("Loki's answer: {error}"))
        } else {
            Err(format!("Loki: {status}: {}", String::from_utf8_lossy(&body)))
        }
    }
}

fn streams(answer: &Value) -> Vec<Line> {
    let results = answer["data"]["result"]
        .as_array()
        .expect("a query returns streams");
    let lines = results.iter().flat_map(|result| {
        let labels: BTreeMap<String, String> =
            serde_json::from_value(result["stream"].clone()).expect("labels are texts");
        let labels = Arc::new(labels);
        let values = result["values"].as_array().expect("a stream has values");
        values.iter().map(move |value| Line {
            labels: Arc::clone(&labels),
            nanoseconds: value[0]
                .as_str()
                .and_then(|text| text.parse().ok())
                .expect("a timestamp is a number"),
            text: value[1].as_str().expect("a line is a text").to_owned(),
        })
    });
    lines.collect()
}
