//! A wanted and a live object in; nothing out when the live one already holds all that is wanted, otherwise
//! one server-side apply.

use std::fmt::Debug;

use kube::api::{Patch, PatchParams};
use kube::{Api, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::names::FIELD_MANAGER;

/// Fields that must be equal, not only contain what is wanted: a key that we stop writing has to go.
const EXACT: [&str; 2] = ["data", "binaryData"];

/// Whether `live` holds everything that `wanted` says. What others or the server's defaults added does not
/// count, but for [`EXACT`] fields.
pub fn settled<K: Serialize>(wanted: &K, live: &K) -> bool {
    match (serde_json::to_value(wanted), serde_json::to_value(live)) {
        (Ok(Value::Object(wanted)), Ok(Value::Object(live))) => {
            wanted.iter().all(|(key, value)| match live.get(key) {
                Some(found) if EXACT.contains(&key.as_str()) => value == found,
                Some(found) => holds(key, value, found),
                None => is_empty(value),
            })
        }
        _ => false,
    }
}

fn holds(key: &str, wanted: &Value, live: &Value) -> bool {
    match (wanted, live) {
        (Value::Object(wanted), Value::Object(live)) => wanted.iter().all(|(key, value)| {
            live.get(key)
                .map_or_else(|| is_empty(value), |found| holds(key, value, found))
        }),
        // owners are a set: somebody else may have added theirs
        (Value::Array(wanted), Value::Array(live)) if key == "ownerReferences" => wanted
            .iter()
            .all(|owner| live.iter().any(|found| holds("", owner, found))),
        (Value::Array(wanted), Value::Array(live)) => {
            wanted.len() == live.len() && wanted.iter().zip(live).all(|(one, other)| holds("", one, other))
        }
        _ => wanted == live,
    }
}

/// The server leaves out what is empty, so that its absence is no difference.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Bool(flag) => !flag,
        Value::String(text) => text.is_empty(),
        Value::Number(_) => false,
    }
}

/// Applies `wanted` and returns what the server stored.
///
/// `seen` is the `resourceVersion` that the decision rests on: with it a stale write is refused with 409.
///
/// # Errors
/// When the API server refuses or does not answer.
pub async fn apply<K>(api: &Api<K>, wanted: &K, seen: Option<&str>) -> Result<K, kube::Error>
where
    K: Resource + Clone + Serialize + DeserializeOwned + Debug,
{
    let mut wanted = wanted.clone();
    wanted.meta_mut().resource_version = seen.map(str::to_owned);
    let name = wanted.meta().name.clone().unwrap_or_default();
    api.patch(
        &name,
        &PatchParams::apply(FIELD_MANAGER).force(),
        &Patch::Apply(&wanted),
    )
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn defaults_of_the_server_are_no_difference() {
        let wanted = json!({"spec": {"a": 1, "list": [{"name": "x"}], "none": [], "off": false}});
        let live =
            json!({"spec": {"a": 1, "list": [{"name": "x", "policy": "Always"}], "more": 2}, "status": 1});
        assert!(settled(&wanted, &live));
    }

    #[test]
    fn another_value_a_missing_one_and_another_length_are_differences() {
        let live = json!({"spec": {"a": 1, "list": [1, 2]}});
        for wanted in [
            json!({"spec": {"a": 2}}),
            json!({"spec": {"b": 1}}),
            json!({"spec": {"list": [1]}}),
        ] {
            assert!(!settled(&wanted, &live), "{wanted}");
        }
    }

    #[test]
    fn data_must_be_equal() {
        assert!(!settled(
            &json!({"data": {"a": "1"}}),
            &json!({"data": {"a": "1", "b": "2"}})
        ));
    }

    #[test]
    fn further_owners_are_no_difference() {
        let wanted = json!({"metadata": {"ownerReferences": [{"uid": "1"}]}});
        assert!(settled(
            &wanted,
            &json!({"metadata": {"ownerReferences": [{"uid": "2"}, {"uid": "1"}]}})
        ));
        assert!(!settled(
            &wanted,
            &json!({"metadata": {"ownerReferences": [{"uid": "2"}]}})
        ));
    }
}
