//! YAML in, settings or an error that names the key out.

use super::*;

#[test]
fn nothing_given_means_defaults() {
    let settings = Settings::load(None, "own").unwrap();
    assert_eq!(settings.namespace, "own");
    assert!(settings.tenant_namespaces.is_empty());
    assert!(settings.review_all_namespaces);
    assert_eq!(settings.agent.tolerations.len(), 1);
    assert_eq!(Settings::parse("", "own").unwrap(), settings);
}

#[test]
fn every_key_is_read() {
    let settings = Settings::parse(
        "tenantNamespaces: [logging]\nreviewAllNamespaces: false\nallowLocalAddresses: true\nlogLevel: debug\n\
         agent:\n  image: localhost/sluice-agent:0.1.0\n  imagePullPolicy: Never\n  imagePullSecrets: [{name: a}]\n  \
         resources: {limits: {memory: 64Mi, cpu: 1}}\n  tolerations: [{key: a, operator: Exists, effect: NoSchedule}]\n  \
         nodeSelector: {pool: web}\n  affinity: {nodeAffinity: {}}\n  priorityClassName: high\n  podAnnotations: {a: b}\n  \
         podLabels: {c: d}\n  hostPaths: false\n  paths: {logRoot: /logs, stateDir: /state, extra: [/var/lib/docker/containers]}\n  \
         seLinuxOptions: {type: spc_t}\n  env: [{name: RUST_LOG, value: debug}]\n",
        "own",
    )
    .unwrap();
    assert!(!settings.agent.host_paths);
    assert_eq!(settings.agent.paths.extra, ["/var/lib/docker/containers"]);
    assert_eq!(
        settings.agent.se_linux_options.unwrap().type_.as_deref(),
        Some("spc_t")
    );
    assert_eq!(settings.log_level, "debug");
}

#[test]
fn an_error_names_the_key() {
    for (yaml, named) in [
        ("tenantNamespace: [a]", "tenantNamespace"),
        ("agent: {imagee: a}", "imagee"),
        (
            "agent: {tolerations: [{operater: Exists}]}",
            "agent.tolerations[0].operater",
        ),
        ("agent: {resources: {limit: {cpu: 1}}}", "agent.resources.limit"),
        ("logLevel: loud", "logLevel"),
        ("tenantNamespaces: ['']", "tenantNamespaces"),
        ("tenantNamespaces: [a_b]", "tenantNamespaces"),
        ("agent: {paths: {stateDir: ../state}}", "agent.paths.stateDir"),
        ("agent: {env: [{name: NODE_NAME, value: a}]}", "agent.env"),
    ] {
        let error = Settings::parse(yaml, "own").unwrap_err().to_string();
        assert!(error.contains(named), "{yaml}: {error}");
    }
}
