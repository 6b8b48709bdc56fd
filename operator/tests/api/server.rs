//! A real API server on free ports, shared by all tests of this binary, stopped when the binary ends.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, ResourceExt as _};

struct Server {
    url: String,
    // The shell waits for the end of its input, then kills what it started, by pid.
    _shell: Child,
    _folder: tempfile::TempDir,
}

static SERVER: OnceLock<Server> = OnceLock::new();

/// The folder with `etcd` and `kube-apiserver`.
fn binaries() -> PathBuf {
    if let Some(kube) = std::env::var_os("SLUICE_KUBE") {
        let kube = PathBuf::from(kube);
        return if kube.is_dir() {
            kube
        } else {
            kube.parent().unwrap().to_owned()
        };
    }
    let home = PathBuf::from(std::env::var_os("HOME").unwrap());
    let cache = std::env::var_os("SLUICE_CACHE").map_or_else(|| home.join(".cache/sluice"), PathBuf::from);
    let mut found: Vec<PathBuf> = std::fs::read_dir(&cache)
        .unwrap_or_else(|error| panic!("{}: {error}: run make tools, or set SLUICE_KUBE", cache.display()))
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("kube-"))
        })
        .filter(|path| path.join("kube-apiserver").exists())
        .collect();
    found.sort();
    found
        .pop()
        .expect("no kube-*/kube-apiserver in the cache: run make tools, or set SLUICE_KUBE")
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

fn start() -> Server {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let key = rcgen::KeyPair::generate().unwrap();
    std::fs::write(path.join("sa.key"), key.serialize_pem()).unwrap();
    std::fs::write(path.join("sa.pub"), key.public_key_pem()).unwrap();
    std::fs::write(path.join("tokens.csv"), "admin,admin,admin,\"system:masters\"\n").unwrap();
    let (client, peer, secure) = (free_port(), free_port(), free_port());
    let bin = binaries();
    let script = format!(
        "{bin}/etcd --data-dir etcd --listen-client-urls http://127.0.0.1:{client} --advertise-client-urls http://127.0.0.1:{client} \
           --listen-peer-urls http://127.0.0.1:{peer} --unsafe-no-fsync >etcd.log 2>&1 & etcd=$!\n\
         {bin}/kube-apiserver --etcd-servers=http://127.0.0.1:{client} --bind-address=127.0.0.1 --secure-port={secure} --cert-dir=certs \
           --token-auth-file=tokens.csv --authorization-mode=RBAC --service-cluster-ip-range=10.97.0.0/16 \
           --service-account-key-file=sa.pub --service-account-signing-key-file=sa.key \
           --service-account-issuer=https://kubernetes.default.svc >apiserver.log 2>&1 & api=$!\n\
         read end; kill $api $etcd; wait",
        bin = bin.display()
    );
    let shell = Command::new("sh")
        .args(["-c", &script])
        .current_dir(path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    Server {
        url: format!("https://127.0.0.1:{secure}"),
        _shell: shell,
        _folder: folder,
    }
}

/// A client of the shared server, as its administrator, with the definitions installed.
pub(crate) async fn client() -> Client {
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .ok();
    let server = tokio::task::spawn_blocking(|| SERVER.get_or_init(start))
        .await
        .unwrap();
    let text = format!(
        "{{clusters: [{{name: c, cluster: {{server: '{}', insecure-skip-tls-verify: true}}}}], users: [{{name: u, user: {{token: admin}}}}], contexts: [{{name: x, context: {{cluster: c, user: u}}}}], current-context: x}}",
        server.url
    );
    let kubeconfig: Kubeconfig = serde_saphyr::from_str(&text).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .unwrap();
    let client = Client::try_from(config).unwrap();
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for definition in sluice_operator::api::definitions().unwrap() {
        let apply = PatchParams::apply("test").force();
        // RBAC's own roles come a moment after the first answer.
        eventually("the API server takes definitions", 60, async || {
            api.patch(&definition.name_any(), &apply, &Patch::Apply(&definition))
                .await
                .ok()
        })
        .await;
        eventually("the definition is served", 20, async || {
            let status = api.get(&definition.name_any()).await.ok()?.status?;
            status
                .conditions?
                .iter()
                .any(|c| c.type_ == "Established" && c.status == "True")
                .then_some(())
        })
        .await;
    }
    client
}

/// Asks until there is an answer, and says how long that took; panics after `seconds`.
pub(crate) async fn eventually<T>(what: &str, seconds: u64, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let began = std::time::Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(
            began.elapsed() < Duration::from_secs(seconds),
            "not within {seconds} s: {what}"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
