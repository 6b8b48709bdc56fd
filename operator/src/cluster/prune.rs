//! A live object in, its deletion out: exactly the one that was seen, and only if it did not change since.

use std::fmt::Debug;

use kube::api::{DeleteParams, Preconditions};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

/// Deletes `live`; false when it is gone or has changed since it was seen, and another look is due.
///
/// # Errors
/// When the API server refuses or does not answer.
pub async fn delete<K>(api: &Api<K>, live: &K) -> Result<bool, kube::Error>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let metadata = live.meta();
    let Some(name) = metadata.name.as_deref() else {
        return Ok(false);
    };
    let preconditions = Preconditions {
        uid: metadata.uid.clone(),
        resource_version: metadata.resource_version.clone(),
    };
    match api
        .delete(name, &DeleteParams::default().preconditions(preconditions))
        .await
    {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(false),
        Err(error) => Err(error),
    }
}
