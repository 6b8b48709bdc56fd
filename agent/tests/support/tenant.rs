//! A name and limits in, a tenant as documents hold it out, for a batcher that nobody sends for.

use sluice_engine::document::{Auth, Delivery, Limits, Tenant, Tls};
use sluice_engine::key::Key;

pub(crate) fn tenant(name: &Key, limits: Limits, delivery: Delivery) -> Tenant {
    Tenant {
        name: name.clone(),
        uid: "u".to_owned(),
        generation: 1,
        hash: String::new(),
        push_url: "http://loki/loki/api/v1/push".to_owned(),
        tenant_id: None,
        auth: Auth::None,
        tls: Tls::default(),
        headers: Vec::new(),
        limits,
        delivery,
    }
}

/// Limits that are never reached.
pub(crate) fn wide() -> Limits {
    Limits {
        rate_bytes_per_second: 1 << 40,
        burst_bytes: 1 << 40,
        per_stream_rate_bytes_per_second: 1 << 40,
        per_stream_burst_bytes: 1 << 40,
        ..Limits::default()
    }
}
