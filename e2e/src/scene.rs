//! A test's name and its steps in; a world of its own to run them in, evidence when they fail, and nothing left of it out.

use std::future::Future;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use futures::FutureExt as _;
use k8s_openapi::ByteString;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::evidence;
use crate::figures::show;
use crate::loki::Loki;
use crate::objects::{Reference, apply, delete, until_condition, until_object};
use crate::sluice::{self, TENANTS};
use crate::wait::PATIENCE;

/// Label of all that one test makes.
const SCENE: &str = "e2e.sluice.dev/scene";

/// One test's world.
pub struct Scene {
    /// The cluster.
    pub cluster: Cluster,
    /// Its Loki.
    pub loki: Loki,
    name: String,
    made: Mutex<Made>,
}

#[derive(Default)]
struct Made {
    namespaces: Vec<String>,
    others: Vec<Reference>,
}

/// Runs a test against an installed Sluice.
pub fn play(name: &str, steps: impl AsyncFnOnce(&Scene)) {
    run(async {
        let scene = Scene::new(name).await;
        let installed = async |scene: &Scene| {
            sluice::ensure_installed(&scene.cluster).await;
            steps(scene).await;
        };
        scene.perform(installed).await;
    });
}

/// Runs a test that installs and removes by itself.
pub fn play_bare(name: &str, steps: impl AsyncFnOnce(&Scene)) {
    run(async { Scene::new(name).await.perform(steps).await });
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(test);
}

impl Scene {
    async fn new(name: &str) -> Self {
        let cluster = Cluster::connect().await;
        let loki = Loki::new(cluster.variable("SLUICE_LOKI_URL"));
        // Loki keeps what earlier runs wrote, so no two runs may share a name.
        let unique = jiff::Timestamp::now().as_second() % 1_000_000;
        Self {
            cluster,
            loki,
            name: format!("{name}-{unique}"),
            made: Mutex::default(),
        }
    }

    async fn perform(&self, steps: impl AsyncFnOnce(&Self)) {
        let start = Instant::now();
        show(&format!("{}: begins", self.name));
        let outcome = AssertUnwindSafe(steps(self)).catch_unwind().await;
        let (namespaces, others) = {
            let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
            (made.namespaces.clone(), made.others.clone())
        };
        if outcome.is_err() {
            let mut shown = namespaces.clone();
            shown.push(TENANTS.to_owned());
            evidence::show_all(&self.cluster, &shown).await;
        }
        for reference in others.iter().rev() {
            delete(&self.cluster, reference).await;
        }
        for namespace in &namespaces {
            delete(&self.cluster, &Reference::new("v1", "Namespace", None, namespace)).await;
        }
        show(&format!("{}: {} s", self.name, start.elapsed().as_secs()));
        if let Err(panic) = outcome {
            resume_unwind(panic);
        }
    }

    /// A name that no other test and no other run has.
    pub fn unique(&self, role: &str) -> String {
        format!("{}-{role}", self.name)
    }

    /// A namespace, with labels; its name.
    pub async fn namespace(&self, role: &str, labels: Value) -> String {
        let name = self.unique(role);
        let mut object =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}});
        object["metadata"]["labels"][SCENE] = json!(self.name);
        apply(&self.cluster, &object).await;
        self.remember(|made| made.namespaces.push(name.clone()));
        // No pod is admitted before the namespace's own account is there.
        let account = Reference::new("v1", "ServiceAccount", Some(&name), "default");
        until_object(&self.cluster, &account, "to be made", PATIENCE, |_| Ok(())).await;
        name
    }

    /// Any object outside of the test's own namespaces; it goes at the end.
    pub async fn apply_shared(&self, object: Value, reference: Reference) {
        apply(&self.cluster, &object).await;
        self.remember(|made| made.others.push(reference));
    }

    /// A `LokiTenant` that everybody may use, straight at Loki; its name, which is its tenant ID.
    pub async fn tenant(&self, role: &str) -> String {
        self.tenant_with(role, json!({})).await
    }

    /// As [`Scene::tenant`], with these fields of the spec instead of the usual ones; null takes one away.
    pub async fn tenant_with(&self, role: &str, changes: Value) -> String {
        let name = self.unique(role);
        let mut spec = json!({
            "url": "http://loki.loki.svc.cluster.local:3100",
            "tenantID": name,
            "allowedNamespaces": {"from": "All"},
            "limits": {"perStreamRateBytesPerSecond": 67_108_864, "perStreamBurstBytes": 134_217_728, "rateBytesPerSecond": 67_108_864, "burstBytes": 134_217_728},
        });
        merge(&mut spec, changes);
        let object = json!({
            "apiVersion": "sluice.dev/v1alpha1", "kind": "LokiTenant",
            "metadata": {"name": name, "namespace": TENANTS, "labels": {SCENE: self.name}},
            "spec": spec,
        });
        self.apply_shared(object, Reference::tenant(TENANTS, &name)).await;
        name
    }

    /// A Secret with credentials beside the tenants; its name.
    pub async fn credentials(&self, role: &str, data: Value) -> String {
        let label = sluice_engine::well_known::CREDENTIALS_LABEL;
        self.secret(role, data, json!({label: "true"})).await
    }

    /// A Secret beside the tenants that lacks the label of credentials; its name.
    pub async fn unlabelled_secret(&self, role: &str, data: Value) -> String {
        self.secret(role, data, json!({})).await
    }

    async fn secret(&self, role: &str, data: Value, labels: Value) -> String {
        let name = self.unique(role);
        let object = json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": name, "namespace": TENANTS, "labels": labels},
            "data": encoded(data),
        });
        let reference = Reference::new("v1", "Secret", Some(TENANTS), &name);
        self.apply_shared(object, reference).await;
        name
    }

    /// The ServiceAccount `log-reader` in a namespace, with the right to read the namespace's logs.
    pub async fn reader(&self, namespace: &str) {
        self.account(namespace).await;
        self.grant(namespace, namespace).await;
    }

    /// The ServiceAccount `log-reader`, without any right.
    pub async fn account(&self, namespace: &str) {
        let object = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "log-reader", "namespace": namespace}});
        apply(&self.cluster, &object).await;
    }

    /// The right to read the logs of `namespace` for the `log-reader` of namespace `of`.
    pub async fn grant(&self, namespace: &str, of: &str) {
        let group = "rbac.authorization.k8s.io";
        let role = json!({
            "apiVersion": format!("{group}/v1"), "kind": "Role", "metadata": {"name": "log-reader", "namespace": namespace},
            "rules": [{"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]}],
        });
        let binding = json!({
            "apiVersion": format!("{group}/v1"), "kind": "RoleBinding", "metadata": {"name": "log-reader", "namespace": namespace},
            "roleRef": {"apiGroup": group, "kind": "Role", "name": "log-reader"},
            "subjects": [{"kind": "ServiceAccount", "name": "log-reader", "namespace": of}],
        });
        apply(&self.cluster, &role).await;
        apply(&self.cluster, &binding).await;
    }

    /// Takes back what [`Scene::grant`] gave.
    pub async fn revoke(&self, namespace: &str) {
        let binding = Reference::new(
            "rbac.authorization.k8s.io/v1",
            "RoleBinding",
            Some(namespace),
            "log-reader",
        );
        delete(&self.cluster, &binding).await;
    }

    /// A `LogPipeline` of every pod of its namespace, as `log-reader`, to one tenant; these fields of the spec instead of the usual ones.
    pub async fn pipeline(&self, namespace: &str, name: &str, tenant: &str, changes: Value) -> Reference {
        let mut spec = json!({
            "serviceAccountName": "log-reader",
            "tenantRefs": [{"name": tenant, "namespace": TENANTS}],
            "sources": {"pods": {}},
        });
        merge(&mut spec, changes);
        let object = json!({"apiVersion": "sluice.dev/v1alpha1", "kind": "LogPipeline", "metadata": {"name": name, "namespace": namespace}, "spec": spec});
        apply(&self.cluster, &object).await;
        Reference::pipeline(namespace, name)
    }

    /// The usual: a namespace with a reader, a tenant, and a pipeline `app` between them that is Ready. Namespace and tenant.
    pub async fn ready_team(&self, role: &str) -> (String, String) {
        let namespace = self.namespace(role, json!({})).await;
        self.reader(&namespace).await;
        let tenant = self.tenant(role).await;
        let pipeline = self.pipeline(&namespace, "app", &tenant, json!({})).await;
        until_condition(&self.cluster, &pipeline, "Ready", "True", None, PATIENCE).await;
        (namespace, tenant)
    }

    fn remember(&self, note: impl FnOnce(&mut Made)) {
        note(&mut self.made.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// The fields of `changes` into `object`; null takes a field away.
fn merge(object: &mut Value, changes: Value) {
    let (Some(object), Value::Object(changes)) = (object.as_object_mut(), changes) else {
        return;
    };
    for (key, value) in changes {
        if value.is_null() {
            object.remove(&key);
        } else {
            object.insert(key, value);
        }
    }
}

/// Texts as a Secret's `data`. Server-side apply of `stringData` would not see a changed value as a change of ours.
fn encoded(texts: Value) -> Value {
    let Value::Object(texts) = texts else {
        return texts;
    };
    let encode = |text: Value| json!(ByteString(text.as_str().unwrap_or_default().into()));
    texts.into_iter().map(|(key, text)| (key, encode(text))).collect()
}
