//! A watch of a controller's own objects, and keys that are due, in; what drives the controller out.

use std::collections::BTreeSet;
use std::fmt::Debug;

use futures::{Stream, StreamExt as _};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use sluice_engine::key::Key;
use tokio::sync::{mpsc, watch};

use crate::tenant::key_of;

/// The stream of a controller's own objects; kube's own hides deletions, here `gone` learns of each. `read`
/// says when all are listed: the store's own signal has one listener only, which is the controller.
pub(super) fn main_stream<K>(
    api: Api<K>,
    writer: reflector::store::Writer<K>,
    store: Store<K>,
    read: watch::Sender<bool>,
    gone: impl Fn(&Key) + Send + 'static,
) -> impl Stream<Item = Result<K, watcher::Error>> + Send + 'static
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let mut known = BTreeSet::new();
    watcher(api, watcher::Config::default())
        .default_backoff()
        .modify(|object| object.managed_fields_mut().clear())
        .reflect(writer)
        .inspect(move |event| match event {
            Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => {
                known.insert(key_of(object));
            }
            Ok(watcher::Event::Delete(object)) => {
                known.remove(&key_of(object));
                gone(&key_of(object));
            }
            Ok(watcher::Event::InitDone) => {
                let present: BTreeSet<Key> = store
                    .state()
                    .iter()
                    .map(|object| key_of(object.as_ref()))
                    .collect();
                known.difference(&present).for_each(&gone);
                known = present;
                read.send_replace(true);
            }
            Ok(watcher::Event::Init) | Err(_) => {}
        })
        .applied_objects()
}

/// Objects that are due, as the controller wants them.
pub(super) fn references<K>(
    mut due: mpsc::UnboundedReceiver<Key>,
) -> impl Stream<Item = ObjectRef<K>> + Send + 'static
where
    K: Resource<DynamicType = ()> + 'static,
{
    futures::stream::poll_fn(move |context| due.poll_recv(context))
        .map(|key| ObjectRef::new(&key.name).within(&key.namespace))
}
