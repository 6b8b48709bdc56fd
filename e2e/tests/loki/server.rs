//! A Loki on loopback: settings in, its address out; a folder of its own, gone with it.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use sluice_e2e::loki::Loki;
use sluice_e2e::wait::until;

/// A running Loki.
pub(crate) struct Server {
    pub(crate) url: String,
    process: Child,
    folder: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        // A Loki that is gone already is as good.
        let _gone = self.process.kill();
        let _gone = self.process.wait();
        let _kept = fs::remove_dir_all(&self.folder);
    }
}

/// The binary that `make tools` builds.
fn binary() -> PathBuf {
    let cache = std::env::var_os("SLUICE_CACHE").map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| Path::new(&std::env::var_os("HOME").unwrap()).join(".cache/sluice"));
    let versions = concat!(env!("CARGO_MANIFEST_DIR"), "/cluster/tools/versions.sh");
    let versions = fs::read_to_string(versions).unwrap();
    let version = versions
        .lines()
        .find_map(|line| line.strip_prefix("LOKI_VERSION="))
        .unwrap();
    let path = cache.join(format!("loki-{version}/loki"));
    assert!(path.exists(), "{} is missing: make tools", path.display());
    path
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// A folder in memory where there is one: what is tested is not the disk.
pub(crate) fn folder(name: &str) -> PathBuf {
    let root = if Path::new("/dev/shm").is_dir() {
        PathBuf::from("/dev/shm")
    } else {
        std::env::temp_dir()
    };
    let folder = root.join(format!("sluice-loki-{}-{name}", std::process::id()));
    let _fresh = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn run(folder: &Path) -> Child {
    let log = fs::File::create(folder.join("loki.log")).unwrap();
    Command::new(binary())
        .arg(format!("-config.file={}/loki.yaml", folder.display()))
        .arg("-target=all")
        .env("GOMAXPROCS", "2")
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

impl Server {
    /// Starts a Loki with these lines in its `limits_config`; lines of a stream may lie a minute apart.
    pub(crate) async fn start(name: &str, limits: &str) -> Self {
        let folder = folder(name);
        let (http, grpc) = (free_port(), free_port());
        let at = folder.display();
        let limits = limits
            .lines()
            .map(|line| format!("  {}", line.trim()))
            .collect::<Vec<_>>()
            .join("\n");
        let settings = format!(
            "auth_enabled: true
analytics: {{reporting_enabled: false}}
server: {{http_listen_address: 127.0.0.1, http_listen_port: {http}, grpc_listen_address: 127.0.0.1, grpc_listen_port: {grpc}, log_level: error}}
common:
  path_prefix: {at}
  instance_addr: 127.0.0.1
  replication_factor: 1
  ring: {{instance_addr: 127.0.0.1, kvstore: {{store: inmemory}}}}
  storage: {{filesystem: {{chunks_directory: {at}/chunks, rules_directory: {at}/rules}}}}
schema_config:
  configs: [{{from: 2024-04-01, store: tsdb, object_store: filesystem, schema: v13, index: {{prefix: index_, period: 24h}}}}]
ingester:
  max_chunk_age: 2m
  lifecycler: {{min_ready_duration: 0s, final_sleep: 0s}}
query_range: {{cache_results: false, cache_index_stats_results: false, parallelise_shardable_queries: false}}
runtime_config: {{file: {at}/overrides.yaml, period: 1s}}
limits_config:
  max_entries_limit_per_query: 1000000
  max_query_series: 100000
  split_queries_by_interval: 0
{limits}
"
        );
        fs::write(folder.join("loki.yaml"), settings).unwrap();
        // With a file that names no tenant Loki shards nothing (`ratestore.go`, anyShardingEnabled).
        fs::write(folder.join("overrides.yaml"), "overrides: {somebody: {}}\n").unwrap();
        let server = Self {
            url: format!("http://127.0.0.1:{http}"),
            process: run(&folder),
            folder,
        };
        server.ready().await;
        server
    }

    /// Kills it; what it had acknowledged is in its log.
    pub(crate) fn stop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts it again.
    pub(crate) async fn resume(&mut self) {
        self.process = run(&self.folder);
        self.ready().await;
    }

    async fn ready(&self) {
        let ask = reqwest::Client::builder().no_proxy().build().unwrap();
        until("Loki is ready", Duration::from_mins(2), async || {
            let answer = ask.get(format!("{}/ready", self.url)).send().await;
            match answer {
                Ok(answer) if answer.status().is_success() => Ok(()),
                Ok(answer) => Err(answer.text().await.unwrap_or_default()),
                Err(_) => Err(fs::read_to_string(self.folder.join("loki.log")).unwrap_or_default()),
            }
        })
        .await;
    }

    /// Other limits for a tenant, within a second or two.
    pub(crate) fn override_limits(&self, tenant: &str, limits: &str) {
        let fresh = self.folder.join("overrides.new");
        fs::write(&fresh, format!("overrides: {{{tenant}: {{{limits}}}}}\n")).unwrap();
        fs::rename(fresh, self.folder.join("overrides.yaml")).unwrap();
    }

    /// What it holds.
    pub(crate) fn reader(&self) -> Loki {
        Loki::new(&self.url)
    }
}
