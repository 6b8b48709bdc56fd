//! Golden tests: shares in, objects out.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::ConfigMap;
use sluice_engine::credentials::{Basic, Credentials};
use sluice_engine::document::{Auth, Delivery, Limits, Namespace, Pipeline, PodSource, Tenant, Tls};
use sluice_engine::key::Key;
use sluice_engine::labels::LabelRules;
use sluice_engine::pointer::Denial;
use sluice_engine::selector::{ContainerSelector, LabelSelector};

use super::*;
use crate::fleet::certificates::{Authority, Server};
use crate::fleet::desired::{PipelineShare, TenantShare};

pub(crate) fn key(text: &str) -> Key {
    text.parse().unwrap()
}

fn pipeline(name: &str, tenants: &[&str]) -> PipelineShare {
    let name = key(name);
    PipelineShare {
        pipeline: Some(Pipeline {
            uid: format!("uid-{name}"),
            generation: 1,
            hash: String::new(),
            tenants: tenants.iter().map(|tenant| key(tenant)).collect(),
            pods: PodSource {
                namespaces: vec![Namespace {
                    name: name.namespace.clone(),
                    uid: Some("1".into()),
                    created_at: Some(2),
                    labels: BTreeMap::new(),
                }],
                selector: LabelSelector::default(),
                containers: ContainerSelector::default(),
                ..PodSource::default()
            },
            labels: LabelRules::default(),
            name,
        }),
        deny: Vec::new(),
    }
}

fn tenant(name: &str, uid: &str, credentials: Option<Credentials>) -> TenantShare {
    TenantShare {
        tenant: Tenant {
            name: key(name),
            uid: uid.into(),
            generation: 1,
            hash: String::new(),
            push_url: "http://loki:3100/loki/api/v1/push".into(),
            tenant_id: Some(key(name).name),
            auth: if credentials.is_some() {
                Auth::Basic
            } else {
                Auth::None
            },
            tls: Tls::default(),
            headers: Vec::new(),
            limits: Limits::default(),
            delivery: Delivery::default(),
        },
        credentials,
    }
}

/// Two teams, two tenants that are used and one that is not, and something withdrawn.
pub(crate) fn shares() -> Shares {
    let basic = |name: &str| Credentials {
        basic: Some(Basic {
            username: name.into(),
            password: "word".into(),
        }),
        ..Credentials::default()
    };
    let mut app = pipeline("team-a/app", &["logging/ops", "logging/dev"]);
    app.deny = vec![Denial {
        pipeline: key("team-a/app"),
        namespace: Some("team-b".into()),
    }];
    Shares {
        pipelines: BTreeMap::from([
            (key("team-a/app"), app),
            (key("team-b/app"), pipeline("team-b/app", &["logging/dev"])),
            (
                key("team-b/none"),
                PipelineShare {
                    pipeline: None,
                    deny: vec![Denial {
                        pipeline: key("team-b/none"),
                        namespace: None,
                    }],
                },
            ),
        ]),
        tenants: BTreeMap::from([
            (
                key("logging/ops"),
                tenant("logging/ops", "uid-ops", Some(basic("ops"))),
            ),
            (key("logging/dev"), tenant("logging/dev", "uid-dev", None)),
            (
                key("logging/unused"),
                tenant("logging/unused", "uid-unused", Some(basic("unused"))),
            ),
        ]),
    }
}

fn certificates() -> Certificates {
    Certificates {
        authority: Authority {
            certificate: "CA".into(),
            key: "CA KEY".into(),
            expires: "2036-01-01T00:00:00Z".parse().unwrap(),
        },
        server: Server {
            certificate: "CERTIFICATE".into(),
            key: "KEY".into(),
            expires: "2027-01-01T00:00:00Z".parse().unwrap(),
        },
        token: "token".into(),
    }
}

fn rendered_with(settings: &Settings, shares: &Shares) -> Rendered {
    render(
        &document::render(shares),
        Inputs {
            shares,
            nodes: &BTreeSet::from(["node1".to_owned(), "node2".to_owned()]),
            settings,
            owner: &Owner { uid: "owner".into() },
            transitions: 3,
            certificates: &certificates(),
        },
    )
}

pub(crate) fn rendered() -> Rendered {
    rendered_with(&Settings::default(), &shares())
}

fn pointers(rendered: &Rendered) -> Vec<ConfigMap> {
    let versions = rendered
        .pointers
        .needed
        .iter()
        .map(|name| (name.clone(), "17".to_owned()))
        .collect();
    rendered
        .pointers
        .nodes
        .iter()
        .map(|node| rendered.pointers.render(node, &versions, None))
        .collect()
}

#[test]
fn service_account() {
    insta::assert_yaml_snapshot!(rendered().service_account);
}

#[test]
fn secrets() {
    let Rendered {
        authority,
        status_secret,
        credentials,
        ..
    } = rendered();
    insta::assert_yaml_snapshot!((authority, status_secret, credentials));
}

#[test]
fn documents_and_pointers() {
    let mut rendered = rendered();
    // the compressed bytes are the compressor's; what they hold is tested in `document`
    for document in &mut rendered.documents {
        let data = document.binary_data.as_mut().unwrap();
        for bytes in data.values_mut() {
            bytes.0 = b"gzip".to_vec();
        }
    }
    insta::assert_yaml_snapshot!((&rendered.documents, pointers(&rendered)));
}

#[test]
fn daemon_set() {
    insta::assert_yaml_snapshot!(rendered().daemon_set);
}

#[test]
fn daemon_set_with_every_setting() {
    let settings = Settings::parse(
        "logLevel: debug\nallowLocalAddresses: true\nagent: {image: 'localhost/sluice-agent:0.1.0', imagePullPolicy: Never, \
         imagePullSecrets: [{name: pull}], tolerations: [{key: a, operator: Exists}], nodeSelector: {pool: web}, \
         affinity: {nodeAffinity: {}}, priorityClassName: high, podAnnotations: {a: b}, \
         podLabels: {c: d, app.kubernetes.io/name: other}, paths: {extra: [/var/lib/docker/containers]}, \
         seLinuxOptions: {type: spc_t}, env: [{name: HTTPS_PROXY, value: 'http://proxy:3128'}]}",
        "own",
    )
    .unwrap();
    insta::assert_yaml_snapshot!(rendered_with(&settings, &shares()).daemon_set);
}

#[test]
fn without_host_paths_a_restricted_namespace_will_do() {
    let settings = Settings::parse("agent: {hostPaths: false, paths: {extra: [/x]}}", "own").unwrap();
    let rendered = rendered_with(&settings, &shares());
    let spec = rendered.daemon_set.spec.unwrap().template.spec.unwrap();
    let volumes: Vec<_> = spec.volumes.unwrap();
    assert!(volumes.iter().all(|volume| volume.host_path.is_none()));
    let names: Vec<_> = volumes.iter().map(|volume| volume.name.as_str()).collect();
    assert_eq!(names, ["state", "credentials", "status"]);
    let container = &spec.containers[0];
    assert_eq!(container.args.as_ref().unwrap()[0], "--no-log-root");
    assert_eq!(container.volume_mounts.as_ref().unwrap().len(), 3);
    assert_eq!(spec.security_context.unwrap().run_as_non_root, Some(true));
    assert_ne!(container.security_context.as_ref().unwrap().run_as_user, Some(0));
}

#[test]
fn nothing_about_pipelines_tenants_or_credentials_reaches_the_daemon_set() {
    assert_eq!(
        rendered().daemon_set,
        rendered_with(&Settings::default(), &Shares::default()).daemon_set
    );
}

#[test]
fn credentials_stand_only_in_credential_secrets() {
    let rendered = rendered();
    let elsewhere =
        serde_json::to_string(&(&rendered.documents, pointers(&rendered), &rendered.daemon_set)).unwrap();
    assert!(!elsewhere.contains("word"));
    assert_eq!(
        rendered.credentials.len(),
        1,
        "a tenant that nobody uses is on no node"
    );
}

#[test]
fn everything_has_our_labels_and_our_owner_and_no_instance() {
    let rendered = rendered();
    let mut all = vec![
        rendered.service_account.metadata.clone(),
        rendered.authority.metadata.clone(),
        rendered.status_secret.metadata.clone(),
        rendered.daemon_set.metadata.clone(),
    ];
    all.extend(rendered.credentials.iter().map(|secret| secret.metadata.clone()));
    all.extend(
        rendered
            .documents
            .iter()
            .chain(&pointers(&rendered))
            .map(|map| map.metadata.clone()),
    );
    for metadata in all {
        let labels = metadata.labels.unwrap();
        assert_eq!(labels["app.kubernetes.io/managed-by"], "sluice-operator");
        assert!(!labels.contains_key("app.kubernetes.io/instance"));
        let owners = metadata.owner_references.unwrap();
        assert_eq!(
            (
                owners.len(),
                owners[0].kind.as_str(),
                owners[0].block_owner_deletion
            ),
            (1, "ClusterRole", None)
        );
    }
}
