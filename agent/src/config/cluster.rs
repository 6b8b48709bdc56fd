//! The node's pointer watched, what is in force out, for as long as the process lives.
//!
//! The API server may be away for any time: what is in force stays, and the watch comes back by itself.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::{BoxFuture, OptionFuture};
use futures::{FutureExt as _, StreamExt as _};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use sluice_engine::well_known::{POINTER_KEY, pointer_name};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::credentials::Store;
use super::fetch::{self, Answer};
use super::keeper::Keeper;
use super::{InForce, cache};
use crate::metadata::backoff::Backoff;

/// The server ends the watch after this time and the client begins a new one: a connection that died without
/// a word must not keep a withdrawal from the node for long. Costs one request a minute and node.
const WATCH_SECONDS: u32 = 60;

/// Where a node's configuration comes from.
#[derive(Debug)]
pub struct Source {
    /// The namespace of pointer, documents and credential Secrets.
    pub namespace: String,
    /// This node.
    pub node: String,
    /// Where the cache is.
    pub state_dir: PathBuf,
    /// Where the credential Secrets are mounted.
    pub credentials_dir: PathBuf,
}

/// What the node begins with before it has reached the API server: the cache and the mounted credentials.
pub fn begin(source: &Source) -> Keeper {
    let mut credentials = Store::default();
    match credentials.read_dir(&source.credentials_dir) {
        Ok(errors) => errors.iter().for_each(|error| tracing::warn!("{error}")),
        Err(error) => tracing::warn!("cannot read {}: {error}", source.credentials_dir.display()),
    }
    Keeper::new(credentials, cache::load(&source.state_dir))
}

/// Follows the pointer and publishes what is in force; ends only with the process.
pub async fn run(client: kube::Client, source: Source, mut keeper: Keeper, out: watch::Sender<Arc<InForce>>) {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), &source.namespace);
    let name = pointer_name(&source.node);
    let config = watcher::Config::default()
        .fields(&format!("metadata.name={name}"))
        .timeout(WATCH_SECONDS);
    let mut events = watcher(api, config).backoff(Backoff::default()).boxed();
    let newest = Arc::new(Newest::default());
    tokio::spawn(save_newest(source.state_dir.clone(), Arc::clone(&newest)));

    let mut fetching: Option<BoxFuture<'static, Answer>> = None;
    let mut retry: Option<Instant> = None;
    let mut delays = Backoff::default();
    let mut away = false;
    let mut told = String::new();
    let publish = |keeper: &Keeper| {
        out.send_replace(Arc::new(keeper.in_force()));
        newest.put(keeper.snapshot().to_bytes());
    };
    loop {
        let wake = retry.unwrap_or_else(Instant::now);
        tokio::select! {
            event = events.next() => {
                let Some(event) = event else { return };
                if !matches!(event, Ok(Event::Init) | Err(_)) && std::mem::take(&mut away) {
                    tracing::info!("the API server is back");
                }
                match event {
                    Ok(Event::Apply(object) | Event::InitApply(object)) => {
                        let json = object.data.as_ref().and_then(|data| data.get(POINTER_KEY));
                        match keeper.pointer(json.map_or("", String::as_str)) {
                            Ok(changed) => {
                                if changed {
                                    publish(&keeper);
                                }
                                // What an older pointer named is of no use any more.
                                delays = Backoff::default();
                                (fetching, retry) = (start(&client, &source, &keeper), None);
                            }
                            Err(ignored) => tracing::warn!("ConfigMap {name}: {ignored}"),
                        }
                    }
                    Ok(Event::Delete(_)) => {
                        tracing::warn!("ConfigMap {name} is gone: what is in force stays");
                    }
                    Ok(Event::Init | Event::InitDone) => {}
                    Err(error) if !away => {
                        away = true;
                        tracing::warn!("cannot watch ConfigMap {name}, what is in force stays: {error}");
                    }
                    Err(error) => tracing::debug!("cannot watch ConfigMap {name}: {error}"),
                }
            }
            Some(answer) = OptionFuture::from(fetching.as_mut()) => {
                fetching = None;
                told = tell(&answer, &told);
                retry = (!answer.errors.is_empty()).then(|| Instant::now() + delays.delay());
                if take(&mut keeper, answer) {
                    publish(&keeper);
                }
            }
            () = tokio::time::sleep_until(wake), if retry.is_some() => {
                (fetching, retry) = (start(&client, &source, &keeper), None);
            }
        }
    }
}

fn start(client: &kube::Client, source: &Source, keeper: &Keeper) -> Option<BoxFuture<'static, Answer>> {
    let missing = keeper.missing();
    (!missing.is_empty()).then(|| fetch::all(client.clone(), source.namespace.clone(), missing).boxed())
}

/// Says what could not be fetched, once for as long as it is the same.
fn tell(answer: &Answer, told: &str) -> String {
    let errors: Vec<_> = answer.errors.iter().map(ToString::to_string).collect();
    let errors = errors.join("; ");
    if !errors.is_empty() && errors != told {
        tracing::warn!("cannot fetch what the node's pointer names, it is tried again: {errors}");
    }
    errors
}

/// Puts what was fetched into force; says whether there was anything.
fn take(keeper: &mut Keeper, answer: Answer) -> bool {
    let fetched = answer.document.is_some() || !answer.secrets.is_empty();
    for secret in answer.secrets {
        let data: BTreeMap<_, _> = secret.data;
        let entries = data.iter().map(|(uid, bytes)| (uid.as_str(), bytes.0.as_slice()));
        for error in keeper.secret(&secret.name, &secret.asked, &secret.version, entries) {
            tracing::warn!("Secret {}: {error}", secret.name);
        }
    }
    if let Some(json) = answer.document {
        match keeper.document(&json) {
            Ok(errors) => errors
                .iter()
                .for_each(|error| tracing::warn!("the document's {error}")),
            Err(error) => tracing::error!("{error}; what is in force stays"),
        }
        for (pipeline, error) in keeper.in_force().refused {
            tracing::warn!("pipeline {pipeline} is refused: {error}");
        }
    }
    fetched
}

/// The snapshot that is to be written next; one that is overtaken is never written.
#[derive(Debug, Default)]
struct Newest {
    bytes: Mutex<Option<Vec<u8>>>,
    changed: Notify,
}

impl Newest {
    fn put(&self, bytes: Vec<u8>) {
        *self.bytes.lock().unwrap_or_else(PoisonError::into_inner) = Some(bytes);
        self.changed.notify_one();
    }

    async fn take(&self) -> Vec<u8> {
        loop {
            let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(bytes) = bytes {
                return bytes;
            }
            self.changed.notified().await;
        }
    }
}

/// Writes the newest snapshot whenever the one before is on disk: a slow disk holds up nobody.
async fn save_newest(state_dir: PathBuf, newest: Arc<Newest>) {
    loop {
        let bytes = newest.take().await;
        let dir = state_dir.clone();
        let saved = tokio::task::spawn_blocking(move || cache::save(&dir, &bytes)).await;
        if let Ok(Err(error)) = saved {
            tracing::warn!(
                "cannot cache the configuration in {}: {error}",
                state_dir.display()
            );
        }
    }
}
