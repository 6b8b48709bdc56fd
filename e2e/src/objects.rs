//! Kubernetes objects as JSON, as a user writes them: applied, read, waited for, deleted.

use std::time::Duration;

use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams,
};
use serde_json::Value;

use crate::cluster::Cluster;
use crate::wait::until;

/// One object's address.
#[derive(Clone, Debug)]
pub struct Reference {
    /// Such as `sluice.dev/v1alpha1`.
    pub api_version: String,
    /// Such as `LogPipeline`.
    pub kind: String,
    /// Absent where the kind has none.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

impl Reference {
    /// A `LogPipeline`.
    pub fn pipeline(namespace: &str, name: &str) -> Self {
        Self::new("sluice.dev/v1alpha1", "LogPipeline", Some(namespace), name)
    }

    /// A `LokiTenant`.
    pub fn tenant(namespace: &str, name: &str) -> Self {
        Self::new("sluice.dev/v1alpha1", "LokiTenant", Some(namespace), name)
    }

    /// Any object.
    pub fn new(api_version: &str, kind: &str, namespace: Option<&str>, name: &str) -> Self {
        Self {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            namespace: namespace.map(str::to_owned),
            name: name.to_owned(),
        }
    }

    fn of(object: &Value) -> Self {
        let text = |pointer| object.pointer(pointer).and_then(Value::as_str);
        Self::new(
            text("/apiVersion").expect("an object has an apiVersion"),
            text("/kind").expect("an object has a kind"),
            text("/metadata/namespace"),
            text("/metadata/name").expect("an object has a name"),
        )
    }

    fn api(&self, cluster: &Cluster) -> Api<DynamicObject> {
        let client = cluster.client.clone();
        let resource = resource(&self.api_version, &self.kind);
        match &self.namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, &resource),
            None => Api::all_with(client, &resource),
        }
    }
}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} {}/{}",
            self.kind,
            self.namespace.as_deref().unwrap_or(""),
            self.name
        )
    }
}

/// Server-side apply with strict validation, as `kubectl apply --server-side` does it.
pub async fn apply(cluster: &Cluster, object: &Value) -> Value {
    try_apply(cluster, object)
        .await
        .unwrap_or_else(|error| panic!("{}: {error}", Reference::of(object)))
}

/// As [`apply`], with the API server's refusal as `Err`.
pub async fn try_apply(cluster: &Cluster, object: &Value) -> Result<Value, String> {
    let reference = Reference::of(object);
    let parameters = PatchParams::apply("sluice-e2e").force().validation_strict();
    reference
        .api(cluster)
        .patch(&reference.name, &parameters, &Patch::Apply(object))
        .await
        .map(|object| serde_json::to_value(object).expect("an object is JSON"))
        .map_err(|error| {
            if let kube::Error::Api(status) = error {
                status.message
            } else {
                error.to_string()
            }
        })
}

/// The object as it is now.
pub async fn read(cluster: &Cluster, reference: &Reference) -> Result<Value, String> {
    match reference.api(cluster).get_opt(&reference.name).await {
        Ok(Some(object)) => Ok(serde_json::to_value(object).expect("an object is JSON")),
        Ok(None) => Err(format!("{reference} does not exist")),
        Err(error) => Err(format!("{reference}: {error}")),
    }
}

/// All objects of a kind, in one namespace or in all, with a label selector or an empty one.
pub async fn list(
    cluster: &Cluster,
    api_version: &str,
    kind: &str,
    namespace: Option<&str>,
    labels: &str,
) -> Vec<Value> {
    Reference::new(api_version, kind, namespace, "")
        .api(cluster)
        .list(&ListParams::default().labels(labels))
        .await
        .unwrap_or_else(|error| panic!("list of {kind}: {error}"))
        .items
        .into_iter()
        .map(|object| serde_json::to_value(object).expect("an object is JSON"))
        .collect()
}

/// Deletes at once; an object that is not there is fine.
pub async fn delete(cluster: &Cluster, reference: &Reference) {
    let parameters = DeleteParams::background().grace_period(0);
    match reference.api(cluster).delete(&reference.name, &parameters).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.is_not_found() => {}
        Err(error) => panic!("delete {reference}: {error}"),
    }
}

/// Reads until `judge` is content; it answers `Err` with what it misses.
pub async fn until_object<T>(
    cluster: &Cluster,
    reference: &Reference,
    what: &str,
    limit: Duration,
    mut judge: impl FnMut(&Value) -> Result<T, String>,
) -> T {
    until(&format!("{reference}: {what}"), limit, async || {
        judge(&read(cluster, reference).await?)
    })
    .await
}

/// Waits for a condition with this status, and reason where one is given, that speaks of the object's present generation;
/// its message.
pub async fn until_condition(
    cluster: &Cluster,
    reference: &Reference,
    kind: &str,
    status: &str,
    reason: Option<&str>,
    limit: Duration,
) -> String {
    let what = format!("{kind} {status} {}", reason.unwrap_or(""));
    until_object(cluster, reference, &what, limit, |object| {
        let condition = condition(object, kind);
        let met = condition["status"] == status
            && reason.is_none_or(|reason| condition["reason"] == reason)
            && condition["observedGeneration"] == object["metadata"]["generation"];
        if met {
            Ok(condition["message"].as_str().unwrap_or_default().to_owned())
        } else {
            Err(format!(
                "generation {}, status {}",
                object["metadata"]["generation"], object["status"]
            ))
        }
    })
    .await
}

/// The condition of this type; null where there is none.
pub fn condition<'a>(object: &'a Value, kind: &str) -> &'a Value {
    const NONE: &Value = &Value::Null;
    object["status"]["conditions"]
        .as_array()
        .and_then(|all| all.iter().find(|condition| condition["type"] == kind))
        .unwrap_or(NONE)
}

fn resource(api_version: &str, kind: &str) -> ApiResource {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
}
