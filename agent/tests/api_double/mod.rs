//! An API server's double that shows pods and, as kubelet does, their containers' logs: with timestamps, from a
//! whole second on, the newest file of one instance only. Connections are cut wherever a test says.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test uses its part")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::stream;
use serde_json::{Value, json};
use sluice_agent::metadata::convert::{Change, Known, Seen, Statuses};

/// 2026-11-20T17:50:00Z.
pub const BEGIN: i64 = 1_795_197_000;
pub const NAMESPACE: &str = "a";
pub const CONTAINER: &str = "main";

/// One instance of the container.
#[derive(Clone, Debug, Default)]
pub struct Instance {
    /// Second, nanosecond, content.
    pub lines: Vec<(i64, u32, String)>,
    /// Lines before this one are in rotated files.
    pub rotated: usize,
    pub over: bool,
    pub began: i64,
}

/// One pod with one container.
#[derive(Clone, Debug, Default)]
pub struct PodModel {
    pub uid: String,
    pub instances: Vec<Instance>,
    /// How many of them the API server has heard of; kubelet knows all.
    pub told: usize,
    pub gone: bool,
}

#[derive(Debug, Default)]
pub struct Model {
    pub pods: BTreeMap<String, PodModel>,
    pub asked: Vec<String>,
    /// Grows when every connection is to be cut.
    pub cut: u64,
    /// A cut looks like a log's end.
    pub clean: bool,
    /// kubelet has no log of previous instances, whatever the pods' status says.
    pub forgotten: bool,
    /// Status and message of every answer.
    pub refuse: Option<(u16, &'static str)>,
    pub streams: usize,
    pub most_streams: usize,
}

#[derive(Clone)]
pub struct ApiDouble {
    pub model: Arc<Mutex<Model>>,
    pub client: kube::Client,
}

impl ApiDouble {
    pub async fn start() -> Self {
        let _already = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let model: Arc<Mutex<Model>> = Arc::default();
        let router = Router::new()
            .route("/api/v1/namespaces/{namespace}/pods", get(list))
            .route("/api/v1/namespaces/{namespace}/pods/{name}/log", get(log))
            .with_state(Arc::clone(&model));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        let config = kube::Config::new(format!("http://{address}").parse().unwrap());
        Self {
            model,
            client: kube::Client::try_from(config).unwrap(),
        }
    }

    pub fn model<T>(&self, change: impl FnOnce(&mut Model) -> T) -> T {
        change(&mut self.model.lock().unwrap())
    }

    pub fn pod<T>(&self, name: &str, change: impl FnOnce(&mut PodModel) -> T) -> T {
        self.model(|model| change(model.pods.get_mut(name).unwrap()))
    }

    /// A pod whose container has just begun.
    pub fn create(&self, name: &str, uid: &str) {
        let pod = PodModel {
            uid: uid.to_owned(),
            instances: vec![Instance {
                began: BEGIN,
                ..Instance::default()
            }],
            told: 1,
            gone: false,
        };
        self.model(|model| model.pods.insert(name.to_owned(), pod));
    }

    /// The container's newest instance writes.
    pub fn write(&self, name: &str, second: i64, nanos: u32, line: &str) {
        let line = (BEGIN + second, nanos, line.to_owned());
        self.pod(name, |pod| pod.instances.last_mut().unwrap().lines.push(line));
    }

    /// The container ends, and another instance begins.
    pub fn restart(&self, name: &str, second: i64) {
        self.pod(name, |pod| {
            pod.instances.last_mut().unwrap().over = true;
            pod.instances.push(Instance {
                began: BEGIN + second,
                ..Instance::default()
            });
        });
    }

    pub fn cut(&self, clean: bool) {
        self.model(|model| {
            model.clean = clean;
            model.cut += 1;
        });
    }

    /// What the watch of pods would tell now.
    pub fn change(&self, name: &str) -> Vec<Change> {
        let (pod, gone) = self.model(|model| {
            let pod = &model.pods[name];
            (object(name, pod), pod.gone)
        });
        let seen = Seen::from(serde_json::from_value::<Statuses>(pod).unwrap());
        Known::default().changes(if gone {
            kube::runtime::watcher::Event::Delete(seen)
        } else {
            kube::runtime::watcher::Event::Apply(seen)
        })
    }

    /// Everything that a pod's container has written, in the runtime's format.
    pub fn written(&self, name: &str) -> Vec<String> {
        let lines = |instance: &Instance| instance.lines.iter().map(text).collect::<Vec<_>>();
        let all: Vec<String> = self.pod(name, |pod| pod.instances.iter().flat_map(lines).collect());
        all.iter()
            .map(|line| line.replacen(' ', " stdout F ", 1))
            .collect()
    }
}

fn text((second, nanos, line): &(i64, u32, String)) -> String {
    let time = jiff::Timestamp::from_second(*second).unwrap();
    format!("{}.{nanos:09}Z {line}", time.strftime("%Y-%m-%dT%H:%M:%S"))
}

fn object(name: &str, pod: &PodModel) -> Value {
    let time = |second: i64| jiff::Timestamp::from_second(second).unwrap().to_string();
    let ended = |number: usize| {
        let id = format!("containerd://{number}");
        json!({"terminated": {"exitCode": 0, "containerID": id, "startedAt": time(pod.instances[number].began)}})
    };
    let newest = pod.told - 1;
    let instance = &pod.instances[newest];
    let state = if instance.over && pod.told == pod.instances.len() {
        ended(newest)
    } else {
        json!({"running": {"startedAt": time(instance.began)}})
    };
    let last = if newest > 0 { ended(newest - 1) } else { json!({}) };
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "uid": pod.uid}, "spec": {},
        "status": {"containerStatuses": [{"name": CONTAINER, "image": "i", "imageID": "i", "ready": true,
            "restartCount": newest, "state": state, "lastState": last}]}})
}

async fn list(
    State(model): State<Arc<Mutex<Model>>>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Response {
    let name = query["fieldSelector"]
        .strip_prefix("metadata.name=")
        .unwrap()
        .to_owned();
    let model = model.lock().unwrap();
    let found: Vec<Value> = model
        .pods
        .get(&name)
        .filter(|pod| !pod.gone)
        .map(|pod| object(&name, pod))
        .into_iter()
        .collect();
    answer(
        200,
        &json!({"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": found}),
    )
}

fn answer(code: u16, body: &Value) -> Response {
    let code = axum::http::StatusCode::from_u16(code).unwrap();
    (code, [("content-type", "application/json")], body.to_string()).into_response()
}

fn refusal(code: u16, message: &str) -> Response {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
        "reason": "BadRequest", "message": message, "metadata": {}});
    answer(code, &status)
}

async fn log(
    State(shared): State<Arc<Mutex<Model>>>,
    Path((_, name)): Path<(String, String)>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Response {
    assert_eq!(
        (query["container"].as_str(), query["timestamps"].as_str()),
        (CONTAINER, "true")
    );
    let is = |flag: &str| query.get(flag).is_some_and(|value| value == "true");
    let (follow, previous) = (is("follow"), is("previous"));
    let since = query.get("sinceTime").map_or(i64::MIN, |time| {
        time.parse::<jiff::Timestamp>().unwrap().as_second()
    });
    let (number, uid, cut, from) = {
        let mut model = shared.lock().unwrap();
        let asked = format!(
            "{name} follow={follow} previous={previous} since={}",
            since.saturating_sub(BEGIN)
        );
        model.asked.push(asked);
        if let Some((code, message)) = model.refuse {
            return refusal(code, message);
        }
        let Some(pod) = model.pods.get(&name).filter(|pod| !pod.gone) else {
            return refusal(404, "pods \"web\" not found");
        };
        let number = pod.instances.len().checked_sub(1 + usize::from(previous));
        let Some(number) = number.filter(|_| !(previous && model.forgotten)) else {
            return refusal(
                400,
                "previous terminated container \"main\" in pod \"web\" not found",
            );
        };
        let (uid, from) = (pod.uid.clone(), pod.instances[number].rotated);
        model.streams += 1;
        model.most_streams = model.most_streams.max(model.streams);
        (number, uid, model.cut, from)
    };
    let open = Arc::new(Counted(Arc::clone(&shared)));
    let chunks = stream::unfold((from, false), move |(mut at, ended)| {
        let (shared, name, uid, open) = (Arc::clone(&shared), name.clone(), uid.clone(), Arc::clone(&open));
        async move {
            let _open = open;
            if ended {
                return None;
            }
            loop {
                let found = {
                    let model = shared.lock().unwrap();
                    let pod = model.pods.get(&name).filter(|pod| pod.uid == uid && !pod.gone);
                    let instance = pod.and_then(|pod| pod.instances.get(number));
                    let lines = instance.map_or(&[][..], |instance| &instance.lines);
                    while lines.get(at).is_some_and(|line| line.0 < since) {
                        at += 1;
                    }
                    let next = lines.get(at).map(|line| text(line) + "\n");
                    if model.cut != cut {
                        Err((model.clean, next))
                    } else if next.is_some() {
                        Ok(next)
                    } else if !follow || instance.is_none_or(|instance| instance.over) {
                        return None;
                    } else {
                        Ok(None)
                    }
                };
                match found {
                    Ok(Some(line)) => return Some((Ok(Bytes::from(line)), (at + 1, false))),
                    Ok(None) => tokio::time::sleep(Duration::from_millis(5)).await,
                    // In the middle of a line, if there is one.
                    Err((true, next)) => {
                        let mut line = next.unwrap_or_default().into_bytes();
                        line.truncate(line.len() / 2);
                        return Some((Ok(Bytes::from(line)), (at, true)));
                    }
                    Err((false, _)) => return Some((Err(std::io::Error::other("cut")), (at, true))),
                }
            }
        }
    });
    Response::new(Body::from_stream(chunks))
}

/// Counts the answers that are under way.
struct Counted(Arc<Mutex<Model>>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.lock().unwrap().streams -= 1;
    }
}
