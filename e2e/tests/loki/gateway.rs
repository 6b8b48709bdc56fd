//! Fifty agents behind a gateway whose passwords are bcrypt hashes, so that each request costs it some 50 ms of CPU:
//! how long its answers take once the agents have settled.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use sluice_e2e::figures::show;
use sluice_e2e::wait::until;

use crate::MACHINE;
use crate::agent::{Agent, document};
use crate::lines::{Fate, Writer, now};
use crate::server::{Server, folder, free_port};

const AGENTS: usize = 50;
/// Until when answers may be slow, and how long they are measured then.
const SETTLE: Duration = Duration::from_secs(30);
const MEASURE: Duration = Duration::from_secs(30);
const PASSWORD: &str = "fifty-agents";
/// Its hashes with a cost of 10 and of 9: the first that takes no longer than a gateway's does.
const HASHES: [&str; 2] = [
    "$2b$10$FDDipJI96dlOBgVuX4psT.9CqVo7ZOqGTsNbHCk6iamMzV5PYObAO",
    "$2b$09$9RqWx7kbureL7xv8VyNss.S8k.1KbPN5/E6io7t/xvloxD67wvP7u",
];
/// What one request may cost.
const COST: Duration = Duration::from_millis(65);

/// An nginx with one worker before a Loki; ended when dropped.
struct Gateway {
    url: String,
    process: Child,
    folder: PathBuf,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Asked to end, the master takes its worker along.
        let _asked = Command::new("kill").arg(self.process.id().to_string()).status();
        let _gone = self.process.wait();
    }
}

impl Gateway {
    fn start(folder: &Path, upstream: &str, hash: &str) -> Self {
        fs::create_dir_all(folder).unwrap();
        // Its worker is another user.
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(folder.join("htpasswd"), format!("agent:{hash}\n")).unwrap();
        let (at, port) = (folder.display(), free_port());
        let settings = format!(
            "daemon off; worker_processes 1; pid {at}/pid; error_log {at}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; client_body_temp_path {at}/body; proxy_temp_path {at}/proxy; fastcgi_temp_path {at}/fastcgi;
  uwsgi_temp_path {at}/uwsgi; scgi_temp_path {at}/scgi; client_max_body_size 16m; keepalive_timeout 75s;
  upstream loki {{ server {upstream}; keepalive 16; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      auth_basic loki; auth_basic_user_file {at}/htpasswd;
      proxy_pass http://loki; proxy_http_version 1.1; proxy_set_header Connection \"\";
    }}
  }}
}}
"
        );
        let file = folder.join("nginx.conf");
        fs::write(&file, settings).unwrap();
        let process = Command::new("nginx")
            .arg("-c")
            .arg(file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            url: format!("http://127.0.0.1:{port}"),
            process,
            folder: folder.to_owned(),
        }
    }

    /// How long one answer takes, in the same queue as the agents'.
    async fn ask(&self, client: &reqwest::Client) -> Duration {
        let begun = Instant::now();
        let request = client.get(format!("{}/ready", self.url));
        let answer = request.basic_auth("agent", Some(PASSWORD)).send().await;
        let answer = answer.unwrap_or_else(|error| panic!("{error}: {}", self.errors()));
        assert!(
            answer.status().is_success(),
            "{}: {}",
            answer.status(),
            self.errors()
        );
        begun.elapsed()
    }

    fn errors(&self) -> String {
        fs::read_to_string(self.folder.join("error.log")).unwrap_or_default()
    }

    async fn until_ready(&self, client: &reqwest::Client) {
        until("the gateway answers", Duration::from_mins(1), async || {
            let answer = client.get(&self.url).send().await;
            answer
                .map(drop)
                .map_err(|error| format!("{error}: {}", self.errors()))
        })
        .await;
    }
}

/// A client that connects anew for nothing.
fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// The gateway, with the hash whose check costs about what it does in the field; and what a request costs.
async fn gateway(root: &Path, upstream: &str, client: &reqwest::Client) -> (Gateway, Duration) {
    let mut found = None;
    for (n, hash) in HASHES.iter().enumerate() {
        let gateway = Gateway::start(&root.join(format!("nginx-{n}")), upstream, hash);
        gateway.until_ready(client).await;
        let mut costs = Vec::new();
        for _ in 0..7 {
            costs.push(gateway.ask(client).await);
        }
        costs.sort_unstable();
        let cost = costs[3];
        found = Some((gateway, cost));
        if cost <= COST {
            break;
        }
    }
    found.unwrap()
}

#[tokio::test]
#[ignore = "a minute: make test-loki names it"]
async fn fifty_agents_settle_behind_a_slow_gateway() {
    let _alone = MACHINE.write().await;
    let server = Server::start("gateway", "ingestion_rate_mb: 64").await;
    let root = folder("gateway-agents");
    let client = client();
    let upstream = server.url.trim_start_matches("http://");
    let (gateway, cost) = gateway(&root, upstream, &client).await;

    let mut document = document(&gateway.url, "agent", &json!({}));
    document["tenants"][0]["auth"] = json!("Basic");
    document["tenants"][0]["delivery"] = json!({});
    let credentials = json!({"basic": {"username": "agent", "password": PASSWORD}}).to_string();
    let (mut agents, mut writers) = (Vec::new(), Vec::new());
    for n in 0..AGENTS {
        let of_agent = root.join(n.to_string());
        let file = of_agent.join("credentials/t");
        fs::create_dir_all(of_agent.join("credentials")).unwrap();
        fs::write(&file, &credentials).unwrap();
        fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
        writers.push(Writer::new(&of_agent, &format!("pod-{n}"), "c"));
        agents.push(Agent::start(&of_agent, &format!("node-{n}"), &document));
    }
    let begun = Instant::now();
    let mut answers = Vec::new();
    while begun.elapsed() < SETTLE + MEASURE {
        for writer in &mut writers {
            writer.write((0..5).map(|line| now() + line), 120);
        }
        let took = gateway.ask(&client).await;
        if begun.elapsed() >= SETTLE {
            answers.push(took);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    answers.sort_unstable();
    let at = |percent: usize| answers[(answers.len() - 1) * percent / 100];

    let written: Vec<_> = writers
        .iter()
        .map(|writer| (writer.name.clone(), writer.written))
        .collect();
    let all: u64 = written.iter().map(|(_, lines)| lines).sum();
    let reader = server.reader();
    let selector = "{container=\"c\"}";
    let lines = reader.until_lines("agent", selector, all, Duration::from_mins(2));
    let fate = Fate::of(&written, &lines.await);
    show(&format!(
        "{AGENTS} agents behind a gateway of {} ms a request: {} answers after {} s take {} ms, p95 {} ms; of {all} lines {} lost, {} twice",
        cost.as_millis(),
        answers.len(),
        SETTLE.as_secs(),
        at(50).as_millis(),
        at(95).as_millis(),
        fate.lost,
        fate.doubled,
    ));
    drop(agents);
    drop(gateway);
    fs::remove_dir_all(root).unwrap();
    assert_eq!((fate.lost, fate.doubled, fate.reordered), (0, 0, 0));
    assert!(at(95) < Duration::from_secs(1), "{answers:?}");
}
