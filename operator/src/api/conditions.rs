//! Condition types and reasons: the only place that spells them. Causes and remedies: `docs/conditions.md`.

/// Types of conditions.
pub mod types {
    /// The object does what it should.
    pub const READY: &str = "Ready";
    /// A change is on its way to the nodes.
    pub const RECONCILING: &str = "Reconciling";
    /// A human is needed, or an outage lasts.
    pub const STALLED: &str = "Stalled";
    /// The spec is valid and allowed here.
    pub const ACCEPTED: &str = "Accepted";
    /// Everything it refers to exists and consents.
    pub const RESOLVED_REFS: &str = "ResolvedRefs";
    /// The ServiceAccount may read the logs.
    pub const AUTHORIZED: &str = "Authorized";
    /// The nodes run this generation.
    pub const PROGRAMMED: &str = "Programmed";
    /// Lines arrive in time.
    pub const DELIVERING: &str = "Delivering";
    /// Loki answers.
    pub const REACHABLE: &str = "Reachable";
    /// All of them.
    pub const ALL: [&str; 9] = [
        READY,
        RECONCILING,
        STALLED,
        ACCEPTED,
        RESOLVED_REFS,
        AUTHORIZED,
        PROGRAMMED,
        DELIVERING,
        REACHABLE,
    ];
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        /// Reasons of conditions.
        pub mod reasons {
            $($(#[$doc])* pub const $name: &str = $text;)*
            /// All of them.
            pub const ALL: &[&str] = &[$($name),*];
        }
    };
}

reasons! {
    /// All is well.
    READY = "Ready";
    /// The spec is valid.
    ACCEPTED = "Accepted";
    /// The spec breaks a rule.
    INVALID = "Invalid";
    /// Agents see no files of their nodes.
    HOST_PATHS_NOT_ALLOWED = "HostPathsNotAllowed";
    /// The namespace is none for tenants.
    NAMESPACE_NOT_ALLOWED = "NamespaceNotAllowed";
    /// References are resolved.
    RESOLVED_REFS = "ResolvedRefs";
    /// A Secret does not exist.
    SECRET_NOT_FOUND = "SecretNotFound";
    /// A Secret lacks the label.
    SECRET_NOT_LABELLED = "SecretNotLabelled";
    /// A Secret lacks a key.
    SECRET_KEY_MISSING = "SecretKeyMissing";
    /// A tenant of the pipeline's own namespace does not exist.
    TENANT_NOT_FOUND = "TenantNotFound";
    /// A tenant of another namespace is missing or does not consent.
    REF_NOT_PERMITTED = "RefNotPermitted";
    /// A tenant is in trouble.
    TENANT_NOT_READY = "TenantNotReady";
    /// The answer is not known yet.
    PENDING = "Pending";
    /// Every selected namespace may be read.
    AUTHORIZED = "Authorized";
    /// Some selected namespaces may be read.
    PARTIALLY_AUTHORIZED = "PartiallyAuthorized";
    /// A named namespace, or every selected one, may not be read.
    NOT_AUTHORIZED = "NotAuthorized";
    /// The ServiceAccount does not exist.
    SERVICE_ACCOUNT_NOT_FOUND = "ServiceAccountNotFound";
    /// No namespace is selected.
    NO_NAMESPACES = "NoNamespaces";
    /// Every node runs this generation.
    PROGRAMMED = "Programmed";
    /// Nodes do not run this generation yet.
    ROLLING_OUT = "RollingOut";
    /// An agent refused this generation.
    REFUSED_BY_AGENT = "RefusedByAgent";
    /// An agent does not answer.
    AGENT_UNREACHABLE = "AgentUnreachable";
    /// The API server refuses the agents' pods.
    AGENT_PODS_REFUSED = "AgentPodsRefused";
    /// No node for agents.
    NO_NODES = "NoNodes";
    /// Lines arrive in time.
    DELIVERING = "Delivering";
    /// Lines arrive late.
    LAGGING = "Lagging";
    /// Containers cannot be read through the API.
    API_READ_FAILING = "ApiReadFailing";
    /// An agent can read no log of its node.
    LOGS_UNREADABLE = "LogsUnreadable";
    /// The author stopped it.
    SUSPENDED = "Suspended";
    /// Loki answers.
    REACHABLE = "Reachable";
    /// The address does not resolve.
    ADDRESS_NOT_FOUND = "AddressNotFound";
    /// The address is not allowed.
    ADDRESS_NOT_ALLOWED = "AddressNotAllowed";
    /// No connection.
    UNREACHABLE = "Unreachable";
    /// The certificate or the handshake failed.
    TLS_FAILED = "TlsFailed";
    /// Loki, or its gateway, refuses the credentials.
    UNAUTHORIZED = "Unauthorized";
    /// The URL is not Loki's.
    WRONG_PATH = "WrongPath";
    /// Loki limits the rate.
    RATE_LIMITED = "RateLimited";
    /// Loki blocks the tenant.
    INGESTION_BLOCKED = "IngestionBlocked";
    /// Loki fails.
    SERVER_ERROR = "ServerError";
    /// A node lacks the credentials.
    CREDENTIALS_MISSING = "CredentialsMissing";
    /// An answer that no rule covers.
    UNEXPECTED_ANSWER = "UnexpectedAnswer";
}

#[cfg(test)]
mod tests {
    use super::{reasons, types};

    #[test]
    fn every_type_and_reason_is_documented() {
        let page = include_str!("../../../docs/conditions.md");
        for word in types::ALL.iter().chain(reasons::ALL) {
            assert!(
                page.contains(&format!("`{word}`")),
                "docs/conditions.md lacks {word}"
            );
        }
    }
}
