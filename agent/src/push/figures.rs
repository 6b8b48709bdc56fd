//! Attempts in, counters out: what the pushers did since the process began.

use std::collections::BTreeMap;
use std::time::Duration;

use sluice_engine::key::Key;

/// Counters of all tenants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// By tenant.
    pub tenants: BTreeMap<Key, TenantFigures>,
}

/// Counters of one tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TenantFigures {
    /// Attempts by class of answer: `2xx`, `3xx`, `4xx`, `429`, `5xx`, or `failed` where none came.
    pub requests: BTreeMap<&'static str, u64>,
    /// Bytes of bodies, each as often as it was sent.
    pub sent_bytes: u64,
    /// Attempts to send what was sent before.
    pub retries: u64,
    /// Requests that were sent in smaller ones.
    pub splits: u64,
    /// Time that all attempts took.
    pub duration: Duration,
}

impl TenantFigures {
    /// Counts an attempt; `status` is `None` when no answer came.
    pub(super) fn attempt(&mut self, status: Option<u16>, bytes: usize, took: Duration, again: bool) {
        let class = match status {
            None => "failed",
            Some(429) => "429",
            Some(200..300) => "2xx",
            Some(300..400) => "3xx",
            Some(400..500) => "4xx",
            Some(_) => "5xx",
        };
        *self.requests.entry(class).or_default() += 1;
        self.sent_bytes += bytes as u64;
        self.retries += u64::from(again);
        self.duration += took;
    }
}
