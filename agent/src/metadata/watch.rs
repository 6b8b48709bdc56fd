//! The API server's pods of one node in, changes out, for as long as the process lives.

use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::core::{ApiResource, PartialObjectMeta};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use tokio::sync::watch;

use super::backoff::Backoff;
use super::convert::{Change, Known, Seen, Statuses};

/// Watches a node's pods and hands out every change: their metadata, and while `whole` is true their containers
/// too. Lists come from the API server's cache (`resourceVersion=0`): a list that is a little old is made good by
/// the watch that follows.
pub async fn pods(
    client: kube::Client,
    node: String,
    mut whole: watch::Receiver<bool>,
    mut out: impl FnMut(Change) + Send,
) {
    let mut known = Known::default();
    let mut away = false;
    loop {
        let mut events = events(client.clone(), &node, *whole.borrow_and_update());
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                // Who no longer asks for more than now never will.
                Ok(()) = whole.changed() => break,
            };
            match event {
                Some(Ok(event)) => {
                    // The beginning of a list says nothing: it comes before the request.
                    away &= matches!(event, Event::Init);
                    known.changes(event).into_iter().for_each(&mut out);
                }
                Some(Err(error)) if !away => {
                    away = true;
                    tracing::warn!("cannot watch the node's pods, their last labels stay: {error}");
                }
                Some(Err(error)) => tracing::debug!("cannot watch the node's pods: {error}"),
                None => return,
            }
        }
    }
}

fn events(
    client: kube::Client,
    node: &str,
    whole: bool,
) -> BoxStream<'static, Result<Event<Seen>, watcher::Error>> {
    let config = watcher::Config::default()
        .fields(&format!("spec.nodeName={node}"))
        .any_semantic();
    if whole {
        let pods: Api<Statuses> = Api::all_with(client, &ApiResource::erase::<Pod>(&()));
        let events = watcher(pods, config).backoff(Backoff::default());
        events.map_ok(|event| map(event, Seen::from)).boxed()
    } else {
        let pods: Api<PartialObjectMeta<Pod>> = Api::all(client);
        let events = watcher(pods, config).backoff(Backoff::default());
        events
            .map_ok(|event| map(event, |pod| Seen::from(pod.metadata)))
            .boxed()
    }
}

fn map<K>(event: Event<K>, seen: impl FnOnce(K) -> Seen) -> Event<Seen> {
    match event {
        Event::Apply(pod) => Event::Apply(seen(pod)),
        Event::Delete(pod) => Event::Delete(seen(pod)),
        Event::Init => Event::Init,
        Event::InitApply(pod) => Event::InitApply(seen(pod)),
        Event::InitDone => Event::InitDone,
    }
}
