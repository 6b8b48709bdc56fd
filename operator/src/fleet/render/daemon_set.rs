//! Settings in, the agents' `DaemonSet` out.
//!
//! Nothing here depends on pipelines, tenants or credentials: these reach running agents, which keep their pods.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetSpec, DaemonSetUpdateStrategy, RollingUpdateDaemonSet};
use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, EmptyDirVolumeSource, EnvVar, EnvVarSource, HTTPGetAction,
    HostPathVolumeSource, ObjectFieldSelector, PodSecurityContext, PodSpec, PodTemplateSpec, Probe,
    ProjectedVolumeSource, SeccompProfile, SecretProjection, SecretVolumeSource, SecurityContext, Volume,
    VolumeMount, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use sluice_engine::document::content_hash;
use sluice_engine::well_known::{
    AGENT, AGENT_PORT, AGENT_STATUS_PORT, CREDENTIALS_DIR, CREDENTIALS_PREFIX, STATUS_SECRET, STATUS_TLS_DIR,
};

use crate::cluster::names::{COMPONENT, NAME, Owner, labels, metadata};
use crate::settings::{AgentSettings, Settings};

/// Environment that the operator sets; settings may not.
pub const ENVIRONMENT: [&str; 4] = ["NODE_NAME", "POD_NAMESPACE", "POD_UID", "MALLOC_ARENA_MAX"];
/// User and group of agents that read no files of their node.
const NOBODY: i64 = 65532;
/// Annotation with the hash of what was rendered: a field that we stop writing shows in it.
const RENDERED: &str = "sluice.dev/rendered";

/// Labels by which the `DaemonSet` and the operator find the agents' pods; they can never change.
pub fn selector() -> BTreeMap<String, String> {
    [(NAME, AGENT), (COMPONENT, "agent")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

/// Renders the `DaemonSet`.
pub fn render(settings: &Settings, owner: &Owner) -> DaemonSet {
    let spec = DaemonSetSpec {
        selector: LabelSelector {
            match_labels: Some(selector()),
            match_expressions: None,
        },
        template: template(settings),
        update_strategy: Some(DaemonSetUpdateStrategy {
            type_: Some("RollingUpdate".into()),
            rolling_update: Some(RollingUpdateDaemonSet {
                max_unavailable: Some(IntOrString::String("10%".into())),
                max_surge: Some(IntOrString::Int(0)),
            }),
        }),
        ..DaemonSetSpec::default()
    };
    let mut metadata = metadata(&settings.namespace, AGENT, "agent", owner);
    let hash = content_hash(&serde_json::to_vec(&spec).unwrap_or_default());
    metadata.annotations = Some(BTreeMap::from([(RENDERED.into(), hash)]));
    DaemonSet {
        metadata,
        spec: Some(spec),
        status: None,
    }
}

fn template(settings: &Settings) -> PodTemplateSpec {
    let agent = &settings.agent;
    let mut pod_labels = agent.pod_labels.clone();
    pod_labels.extend(labels("agent"));
    let mut node_selector = agent.node_selector.clone();
    node_selector.insert("kubernetes.io/os".into(), "linux".into());
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(pod_labels),
            annotations: (!agent.pod_annotations.is_empty()).then(|| agent.pod_annotations.clone()),
            ..ObjectMeta::default()
        }),
        spec: Some(PodSpec {
            service_account_name: Some(AGENT.into()),
            enable_service_links: Some(false),
            dns_policy: Some("ClusterFirst".into()),
            termination_grace_period_seconds: Some(30),
            node_selector: Some(node_selector),
            tolerations: (!agent.tolerations.is_empty()).then(|| agent.tolerations.clone()),
            affinity: agent.affinity.clone(),
            priority_class_name: agent.priority_class_name.clone().filter(|name| !name.is_empty()),
            image_pull_secrets: (!agent.image_pull_secrets.is_empty())
                .then(|| agent.image_pull_secrets.clone()),
            security_context: Some(PodSecurityContext {
                seccomp_profile: Some(SeccompProfile {
                    type_: "RuntimeDefault".into(),
                    localhost_profile: None,
                }),
                se_linux_options: agent.se_linux_options.clone(),
                run_as_non_root: (!agent.host_paths).then_some(true),
                // the volumes are root's, and readable for this group
                fs_group: (!agent.host_paths).then_some(NOBODY),
                ..PodSecurityContext::default()
            }),
            containers: vec![container(settings)],
            volumes: Some(volumes(agent)),
            ..PodSpec::default()
        }),
    }
}

fn container(settings: &Settings) -> Container {
    let agent = &settings.agent;
    let user = if agent.host_paths { 0 } else { NOBODY };
    Container {
        name: "agent".into(),
        image: Some(agent.image.clone()),
        image_pull_policy: Some(agent.image_pull_policy.clone()),
        args: Some(arguments(settings)),
        env: Some(environment(agent)),
        ports: Some(vec![
            port("metrics", AGENT_PORT),
            port("status", AGENT_STATUS_PORT),
        ]),
        resources: Some(agent.resources.clone()),
        liveness_probe: Some(probe("/healthz", 10)),
        readiness_probe: Some(probe("/readyz", 5)),
        // root only to read what root alone may read: kubelet's files are its own, so no capability is needed
        security_context: Some(SecurityContext {
            run_as_user: Some(user),
            run_as_group: Some(user),
            privileged: Some(false),
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities {
                drop: Some(vec!["ALL".into()]),
                add: None,
            }),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(mounts(agent)),
        ..Container::default()
    }
}

/// Flags of the agent; only what is not its default.
fn arguments(settings: &Settings) -> Vec<String> {
    let paths = &settings.agent.paths;
    let log_root = if settings.agent.host_paths {
        format!("--log-root={}", paths.log_root)
    } else {
        "--no-log-root".into()
    };
    let mut arguments = vec![
        log_root,
        format!("--state-dir={}", paths.state_dir),
        format!("--log-level={}", settings.log_level),
    ];
    if settings.allow_local_addresses {
        arguments.push("--allow-local-addresses".into());
    }
    arguments
}

fn environment(agent: &AgentSettings) -> Vec<EnvVar> {
    let field = |name: &str, path: &str| EnvVar {
        name: name.into(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                api_version: Some("v1".into()),
                field_path: path.into(),
            }),
            ..EnvVarSource::default()
        }),
        value: None,
    };
    let [node_name, pod_namespace, pod_uid, arenas] = ENVIRONMENT;
    let mut environment = vec![
        field(node_name, "spec.nodeName"),
        field(pod_namespace, "metadata.namespace"),
        field(pod_uid, "metadata.uid"),
        EnvVar {
            name: arenas.into(),
            value: Some("1".into()),
            value_from: None,
        },
    ];
    environment.extend(agent.env.iter().cloned());
    environment
}

fn port(name: &str, port: u16) -> ContainerPort {
    ContainerPort {
        name: Some(name.into()),
        container_port: port.into(),
        protocol: Some("TCP".into()),
        ..ContainerPort::default()
    }
}

fn probe(path: &str, period: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.into()),
            port: IntOrString::String("metrics".into()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        timeout_seconds: Some(5),
        failure_threshold: Some(3),
        ..Probe::default()
    }
}

fn mounts(agent: &AgentSettings) -> Vec<VolumeMount> {
    let mount = |name: &str, path: &str, read_only: bool| VolumeMount {
        name: name.into(),
        mount_path: path.into(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    };
    let paths = &agent.paths;
    let mut mounts = vec![
        mount("state", &paths.state_dir, false),
        mount("credentials", CREDENTIALS_DIR, true),
        mount("status", STATUS_TLS_DIR, true),
    ];
    if agent.host_paths {
        mounts.insert(0, mount("logs", &paths.log_root, true));
        mounts.extend(
            (0..)
                .zip(&paths.extra)
                .map(|(index, path)| mount(&extra(index), path, true)),
        );
    }
    mounts
}

fn volumes(agent: &AgentSettings) -> Vec<Volume> {
    let host = |name: &str, path: &str, kind: &str| Volume {
        name: name.into(),
        host_path: Some(HostPathVolumeSource {
            path: path.into(),
            type_: Some(kind.into()),
        }),
        ..Volume::default()
    };
    let paths = &agent.paths;
    let status = Volume {
        name: "status".into(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(STATUS_SECRET.into()),
            default_mode: Some(0o400),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    };
    if !agent.host_paths {
        // bounded by the agent itself: a limit here would have the pod evicted, and what it holds lost
        let state = Volume {
            name: "state".into(),
            empty_dir: Some(EmptyDirVolumeSource::default()),
            ..Volume::default()
        };
        return vec![state, credentials(), status];
    }
    let mut volumes = vec![
        host("logs", &paths.log_root, "Directory"),
        host("state", &paths.state_dir, "DirectoryOrCreate"),
        credentials(),
        status,
    ];
    // a runtime's folder need not exist on every node
    volumes.extend(
        (0..)
            .zip(&paths.extra)
            .map(|(index, path)| host(&extra(index), path, "DirectoryOrCreate")),
    );
    volumes
}

fn extra(index: usize) -> String {
    format!("extra-{index}")
}

/// All 16 Secrets in one folder; none needs to exist, so that their coming and going changes no pod.
fn credentials() -> Volume {
    let sources = "0123456789abcdef"
        .chars()
        .map(|shard| VolumeProjection {
            secret: Some(SecretProjection {
                name: format!("{CREDENTIALS_PREFIX}{shard}"),
                optional: Some(true),
                items: None,
            }),
            ..VolumeProjection::default()
        })
        .collect();
    Volume {
        name: "credentials".into(),
        projected: Some(ProjectedVolumeSource {
            sources: Some(sources),
            default_mode: Some(0o400),
        }),
        ..Volume::default()
    }
}
