//! Names, ports and paths that operator and agent both rely on (DESIGN 10).

/// Namespace of an installation, unless the chart is installed elsewhere.
pub const NAMESPACE: &str = "sluice-system";
/// API group of the custom resources and prefix of labels and annotations.
pub const GROUP: &str = "sluice.dev";

/// Name of the agent's `DaemonSet` and `ServiceAccount`, of the `ClusterRole` that owns what the operator
/// creates, and the certificate name of the agents' `/status` port.
pub const AGENT: &str = "sluice-agent";
/// The agent's plain port: `/metrics`, `/healthz`, `/readyz`.
pub const AGENT_PORT: u16 = 9880;
/// The agent's port with TLS and a token: `/status`.
pub const AGENT_STATUS_PORT: u16 = 9881;
/// The operator's port: `/metrics`, `/healthz`, `/readyz`.
pub const OPERATOR_PORT: u16 = 8080;

/// Where kubelet and runtime write container logs.
pub const LOG_ROOT: &str = "/var/log/pods";
/// The agent's state on the node; it stays after uninstall.
pub const STATE_DIR: &str = "/var/lib/sluice";
/// Where the projected credential Secrets are mounted: one folder, one file per tenant UID.
pub const CREDENTIALS_DIR: &str = "/etc/sluice/credentials";
/// Where the agent's certificate, key and token for `/status` are mounted.
pub const STATUS_TLS_DIR: &str = "/etc/sluice/status";

/// Name of the Secret with the agents' serving certificate (`tls.crt`, `tls.key`), the CA's certificate
/// (`ca.crt`) and the bearer token (`token`) of `/status`.
pub const STATUS_SECRET: &str = "sluice-status";
/// Name prefix of the 16 credential Secrets; the shard, a hex digit, follows.
pub const CREDENTIALS_PREFIX: &str = "sluice-credentials-";
/// Name prefix of document `ConfigMap`s; the content hash follows.
pub const DOCUMENT_PREFIX: &str = "sluice-doc-";
/// Name prefix of pointer `ConfigMap`s; the node's name follows.
pub const NODE_PREFIX: &str = "sluice-node-";
/// Key of a document's gzip-compressed bytes in `binaryData`.
pub const DOCUMENT_KEY: &str = "document.json.gz";
/// Key of the pointer's JSON in `data`.
pub const POINTER_KEY: &str = "pointer.json";

/// Label that a Secret needs before it is read as a tenant's credentials; value `"true"`.
pub const CREDENTIALS_LABEL: &str = "sluice.dev/credentials";

/// Name of a node's pointer: the node's name, or its hash where the name would be too long (253 bytes).
pub fn pointer_name(node: &str) -> String {
    if NODE_PREFIX.len() + node.len() <= 253 {
        format!("{NODE_PREFIX}{node}")
    } else {
        format!("{NODE_PREFIX}{}", crate::document::sha256_hex(node.as_bytes()))
    }
}

/// Name of the credential Secret that holds a tenant: shard = first hex digit of SHA-256 of its UID.
pub fn credentials_secret(tenant_uid: &str) -> String {
    let digest = crate::document::sha256_hex(tenant_uid.as_bytes());
    format!("{CREDENTIALS_PREFIX}{}", digest.chars().next().unwrap_or('0'))
}

/// Name of one part of a document: the first has no number.
pub fn document_name(hash: &str, part: u32) -> String {
    match part {
        0 => format!("{DOCUMENT_PREFIX}{hash}"),
        _ => format!("{DOCUMENT_PREFIX}{hash}-{part}"),
    }
}
