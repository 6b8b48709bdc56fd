//! The API server's pods of one node in, changes out, for as long as the process lives.

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, watcher};

use super::PodChange;
use super::backoff::Backoff;
use super::convert::Known;

/// Watches the metadata of a node's pods and hands out every change. Lists come from the API server's cache
/// (`resourceVersion=0`): a list that is a little old is made good by the watch that follows.
pub async fn pods(client: kube::Client, node: String, mut out: impl FnMut(PodChange) + Send) {
    let api: Api<PartialObjectMeta<Pod>> = Api::all(client);
    let config = watcher::Config::default()
        .fields(&format!("spec.nodeName={node}"))
        .any_semantic();
    let mut events = watcher(api, config).backoff(Backoff::default()).boxed();
    let mut known = Known::default();
    let mut away = false;
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                // The beginning of a list says nothing: it comes before the request.
                away &= matches!(event, watcher::Event::Init);
                known
                    .changes(event_of_metadata(event))
                    .into_iter()
                    .for_each(&mut out);
            }
            Err(error) if !away => {
                away = true;
                tracing::warn!("cannot watch the node's pods, their last labels stay: {error}");
            }
            Err(error) => tracing::debug!("cannot watch the node's pods: {error}"),
        }
    }
}

fn event_of_metadata(
    event: watcher::Event<PartialObjectMeta<Pod>>,
) -> watcher::Event<k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta> {
    use watcher::Event;
    match event {
        Event::Apply(pod) => Event::Apply(pod.metadata),
        Event::Delete(pod) => Event::Delete(pod.metadata),
        Event::Init => Event::Init,
        Event::InitApply(pod) => Event::InitApply(pod.metadata),
        Event::InitDone => Event::InitDone,
    }
}
