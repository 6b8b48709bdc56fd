//! A request in, what became of each of its streams out, as soon as that is known.
//!
//! Nearly always one answer is about the whole request. Where it is not, the request is sent in parts, and each stream
//! ends with its own last part: one that is refused or has to wait holds nobody's positions but its own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use sluice_engine::key::Key;

use super::lock;
use super::split::{self, Part};
use super::tenant::{Settled, Tenant};
use crate::batch::{Batch, Fate, Feedback, Limit, Outcome};

/// A request of which parts are under way.
struct Delivery {
    tenant: Arc<Tenant>,
    id: u64,
    key: Arc<Key>,
    feedback: Arc<Feedback>,
    streams: Mutex<Vec<Left>>,
}

/// What is left of a stream.
#[derive(Clone, Default)]
struct Left {
    /// Parts that have not ended.
    parts: u32,
    refused: BTreeMap<&'static str, u64>,
}

/// Sends a request until it is acknowledged or refused for good, and says so; silent when the tenant goes.
pub(super) async fn deliver(tenant: Arc<Tenant>, batch: Batch) {
    let Batch {
        id,
        tenant: key,
        body,
        streams,
        lines,
        feedback,
        bytes: _,
    } = batch;
    let gone = tenant.gone.clone();
    let work = async {
        let whole = Part {
            body: Bytes::from(body),
            streams,
            lines,
            first: 0,
        };
        let one = Left {
            parts: 1,
            ..Left::default()
        };
        let delivery = Arc::new(Delivery {
            tenant,
            id,
            key,
            feedback,
            streams: Mutex::new(vec![one; streams as usize]),
        });
        // A closed semaphore lets everything through; it is never closed.
        let _permit = delivery.tenant.window.acquire().await.ok();
        let settled = delivery.tenant.settle(&whole, &delivery.feedback, None).await;
        if let Settled::Done(refused) = settled {
            delivery.end_whole(whole, refused);
        } else {
            let parts = delivery.take(whole, settled);
            delivery.send(parts, None).await;
        }
    };
    tokio::select! {
        () = gone.cancelled() => {}
        () = work => {}
    }
}

/// Sends what has to wait for a limit of its own stream, beside everything else.
async fn wait(delivery: Arc<Delivery>, part: Part, limit: Limit) {
    let gone = delivery.tenant.gone.clone();
    tokio::select! {
        () = gone.cancelled() => {}
        () = delivery.send(vec![part], Some(limit)) => {}
    }
}

impl Delivery {
    /// Sends parts, the last first, and what they come apart into.
    async fn send(self: &Arc<Self>, mut parts: Vec<Part>, waits: Option<Limit>) {
        while let Some(part) = parts.pop() {
            let settled = self.tenant.settle(&part, &self.feedback, waits).await;
            parts.extend(self.take(part, settled));
        }
    }

    /// Takes in what became of a part; returns what it comes apart into, last first.
    fn take(self: &Arc<Self>, part: Part, settled: Settled) -> Vec<Part> {
        let (smaller, reason) = match settled {
            Settled::Done(refused) => {
                self.end(&part, &refused);
                return Vec::new();
            }
            Settled::Waits(limit) => {
                self.set_aside(part, limit);
                return Vec::new();
            }
            Settled::Refused => {
                let alone = if part.streams > 1 {
                    split::apart(&part)
                } else {
                    None
                };
                for part in alone.unwrap_or_else(|| vec![part]) {
                    self.set_aside(part, Limit::Content);
                }
                return Vec::new();
            }
            Settled::Apart => (split::apart(&part), "unparsable"),
            Settled::Halve(reason) => (split::halves(&part).map(Vec::from), reason),
        };
        let Some(mut smaller) = smaller else {
            self.tenant.give_up(reason);
            // It was the server's last word: what was wrong before it is over.
            self.tenant.flows();
            self.end(&part, &[(reason, u64::from(part.lines))]);
            return Vec::new();
        };
        self.tenant.count_split();
        if part.streams == 1
            && let Some(left) = lock(&self.streams).get_mut(part.first as usize)
        {
            left.parts += u32::try_from(smaller.len()).unwrap_or(u32::MAX) - 1;
        }
        // The last is taken first, and a stream's lines keep their order.
        smaller.reverse();
        smaller
    }

    /// A stream's part is sent beside everything else.
    fn set_aside(self: &Arc<Self>, part: Part, limit: Limit) {
        self.tell(Some(part.first), Fate::Waits(limit), Vec::new());
        drop(tokio::spawn(wait(Arc::clone(self), part, limit)));
    }

    /// The server has decided about a part.
    fn end(&self, part: &Part, refused: &[(&'static str, u64)]) {
        let mut over = Vec::new();
        let mut streams = lock(&self.streams);
        for (place, left) in (0_u32..).zip(streams.iter_mut()) {
            if place < part.first || place >= part.first + part.streams {
                continue;
            }
            left.parts = left.parts.saturating_sub(1);
            // Loki names lines only where the stream was alone.
            for (reason, lines) in refused.iter().filter(|_| place == part.first) {
                *left.refused.entry(reason).or_default() += lines;
            }
            if left.parts == 0 {
                over.push((place, std::mem::take(&mut left.refused)));
            }
        }
        drop(streams);
        for (place, refused) in over {
            self.tell(
                Some(place),
                Fate::Ended(refused.into_iter().collect()),
                Vec::new(),
            );
        }
    }

    /// The server has decided about all of it at once.
    fn end_whole(&self, whole: Part, refused: Vec<(&'static str, u64)>) {
        // The connection may still hold a copy for a moment; then the memory is not worth a wait.
        let body = whole.body;
        let body = if body.is_unique() {
            Vec::from(body)
        } else {
            Vec::new()
        };
        self.tell(None, Fate::Ended(refused), body);
    }

    fn tell(&self, stream: Option<u32>, fate: Fate, body: Vec<u8>) {
        (self.tenant.shared.outcomes)(Outcome {
            id: self.id,
            tenant: Arc::clone(&self.key),
            stream,
            fate,
            body,
        });
    }
}
