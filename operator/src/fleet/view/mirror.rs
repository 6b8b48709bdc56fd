//! A watch in, a cache without what nobody reads out, and a signal per change.

use std::fmt::Debug;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, PodSpec};
use kube::runtime::reflector::Store;
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// Keeps a cache of what a watch shows, and tells of every change.
pub(super) fn mirror<K>(
    api: Api<K>,
    config: watcher::Config,
    signals: &[&watch::Sender<()>],
    trim: fn(&mut K),
    tasks: &mut Vec<AbortOnDropHandle<()>>,
) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let (store, writer) = reflector::store();
    let signals: Vec<_> = signals.iter().map(|&signal| signal.clone()).collect();
    let stream = watcher(api, config).default_backoff().modify(move |object| {
        object.meta_mut().managed_fields = None;
        trim(object);
    });
    let mut stream = Box::pin(stream.reflect(writer));
    tasks.push(AbortOnDropHandle::new(tokio::spawn(async move {
        while let Some(event) = stream.next().await {
            match event {
                Ok(watcher::Event::Init | watcher::Event::InitApply(_)) => {}
                Ok(_) => signals.iter().for_each(|signal| signal.send_replace(())),
                Err(error) => {
                    tracing::warn!(kind = %K::kind(&()), %error, "a watch failed and is begun again");
                }
            }
        }
    })));
    store
}

/// Documents are never compared by content: their name says it.
pub(super) fn trim_config_map(config_map: &mut ConfigMap) {
    config_map.binary_data = None;
}

pub(super) fn trim_node(node: &mut Node) {
    node.metadata.annotations = None;
    if let Some(status) = &mut node.status {
        status.images = None;
        status.volumes_attached = None;
        status.volumes_in_use = None;
    }
}

pub(super) fn trim_pod(pod: &mut Pod) {
    pod.metadata.annotations = None;
    let node_name = pod.spec.take().and_then(|spec| spec.node_name);
    pod.spec = Some(PodSpec {
        node_name,
        ..PodSpec::default()
    });
}
