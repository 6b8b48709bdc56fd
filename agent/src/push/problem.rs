//! A class of trouble in, one sentence with the host and the remedy out.
//!
//! The sentence holds nothing that the server wrote, and nothing of the credentials.

use sluice_engine::report::{Problem, ProblemReason};

/// What is wrong with a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cause {
    /// The class.
    pub(super) reason: ProblemReason,
    /// The answer's status, when there was one.
    pub(super) status: Option<u16>,
    /// More about it, in our words or words of Loki that are known; may be empty.
    pub(super) detail: &'static str,
}

/// The same of lines that do not get through while others of the tenant do.
pub(super) fn of_content(mut problem: Problem) -> Problem {
    problem.message += "; other lines of the tenant get through, so a firewall before Loki or a policy of Loki may refuse what is in these, or their labels";
    problem
}

/// The problem that people see.
pub(super) fn problem(cause: Cause, host: &str) -> Problem {
    let status = cause
        .status
        .map_or_else(String::new, |status| format!(" ({status})"));
    let detail = if cause.detail.is_empty() {
        String::new()
    } else {
        format!(": {}", cause.detail)
    };
    let message = match cause.reason {
        ProblemReason::AddressNotFound => {
            format!("the name {host} does not resolve on this node: correct spec.url of the LokiTenant")
        }
        ProblemReason::AddressNotAllowed => format!(
            "{host} is a loopback, link-local or multicast address, which a tenant may not have: correct spec.url of the LokiTenant"
        ),
        ProblemReason::Unreachable => format!(
            "{host} cannot be reached{detail}: check that Loki runs and that network policies let nodes reach it"
        ),
        ProblemReason::TlsFailed => {
            format!(
                "TLS with {host} failed{detail}: correct spec.tls of the LokiTenant or the server's certificate"
            )
        }
        ProblemReason::Unauthorized => format!(
            "{host} refuses the credentials{status}: correct the Secret that spec.auth of the LokiTenant names, or spec.tenantID"
        ),
        ProblemReason::WrongPath => format!(
            "{host} does not take pushes at this path{status}: write Loki's push path into spec.url of the LokiTenant"
        ),
        ProblemReason::RateLimited => format!(
            "{host} limits the rate{status}{detail}: lines are delayed, raise the tenant's limits in Loki or collect less"
        ),
        ProblemReason::IngestionBlocked => format!(
            "{host} blocks this tenant's ingestion{status}: lines wait until block_ingestion_until is over or lifted in Loki"
        ),
        ProblemReason::ServerError => {
            format!(
                "{host} answers with a server error{status}: lines wait, look at the logs of Loki and its gateway"
            )
        }
        ProblemReason::CredentialsMissing => format!(
            "the credentials for {host} are missing on this node{detail}: create the Secret that the LokiTenant names"
        ),
        ProblemReason::UnexpectedAnswer => format!(
            "{host} gives an answer that Loki does not give{status}: check that spec.url of the LokiTenant is a Loki and what stands before it"
        ),
    };
    Problem {
        reason: cause.reason,
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_host_status_and_detail() {
        let cause = Cause {
            reason: ProblemReason::RateLimited,
            status: Some(429),
            detail: "per stream rate limit exceeded",
        };
        let problem = problem(cause, "loki:3100");
        assert_eq!(problem.reason, ProblemReason::RateLimited);
        assert!(
            problem
                .message
                .starts_with("loki:3100 limits the rate (429): per stream rate limit exceeded: ")
        );
    }
}
