//! Watches in; a cache of what passed and one call per change out.

use std::fmt::Debug;
use std::hash::Hash;

use futures::StreamExt as _;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::store::Writer;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;

use super::Reviews;

/// A change that a watch saw.
#[derive(Debug)]
pub enum Change<'a, K> {
    /// An object is there, or gone.
    Object(&'a K),
    /// A list was read anew: changes may have been missed.
    All,
}

/// Follows a watch for ever: keeps `writer`'s cache, without managed fields, and calls `changed`.
pub async fn follow<K>(
    api: Api<K>,
    config: watcher::Config,
    mut writer: Option<Writer<K>>,
    changed: impl Fn(Change<'_, K>),
) where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    K::DynamicType: Hash + Eq + Clone,
{
    let stream = watcher(api, config)
        .default_backoff()
        .modify(|object| object.managed_fields_mut().clear());
    let mut stream = std::pin::pin!(stream);
    while let Some(event) = stream.next().await {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                tracing::warn!(%error, kind = %K::kind(&()), "a watch broke and begins again");
                continue;
            }
        };
        if let Some(writer) = &mut writer {
            writer.apply_watcher_event(&event);
        }
        match &event {
            watcher::Event::Apply(object) | watcher::Event::Delete(object) => changed(Change::Object(object)),
            watcher::Event::InitDone => changed(Change::All),
            watcher::Event::Init | watcher::Event::InitApply(_) => {}
        }
    }
}

/// Follows Roles and bindings for ever, so that changed rights are asked for anew.
pub async fn rights(client: Client, reviews: Reviews) {
    tokio::join!(
        namespaced::<Role>(&client, &reviews),
        namespaced::<RoleBinding>(&client, &reviews),
        everywhere::<ClusterRole>(&client, &reviews),
        everywhere::<ClusterRoleBinding>(&client, &reviews),
    );
}

async fn namespaced<K>(client: &Client, reviews: &Reviews)
where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static,
    PartialObjectMeta<K>: Resource<DynamicType = ()> + DeserializeOwned,
{
    let api: Api<PartialObjectMeta<K>> = Api::all(client.clone());
    follow(api, watcher::Config::default(), None, |change| match change {
        Change::Object(object) => reviews.touched(&object.namespace().unwrap_or_default()),
        Change::All => reviews.touched_everywhere(),
    })
    .await;
}

async fn everywhere<K>(client: &Client, reviews: &Reviews)
where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static,
    PartialObjectMeta<K>: Resource<DynamicType = ()> + DeserializeOwned,
{
    let api: Api<PartialObjectMeta<K>> = Api::all(client.clone());
    follow(api, watcher::Config::default(), None, |_| {
        reviews.touched_everywhere();
    })
    .await;
}
