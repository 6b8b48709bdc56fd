//! What the steps and the agents found in, a `LokiTenant`'s status out. Pure.

use std::collections::BTreeMap;

use sluice_engine::key::Key;
use sluice_engine::report::{Problem, ProblemReason};

use crate::api::conditions::{reasons, types};
use crate::api::lokitenant::LokiTenantStatus;
use crate::api::verdict::{Moment, Verdict, clip};
use crate::fleet::observed::Observed;

/// What is known of a tenant.
#[derive(Clone, Debug)]
pub struct Findings {
    /// Whether its spec is valid, and counts here.
    pub accepted: Verdict,
    /// Whether its Secrets are there.
    pub resolved: Verdict,
    /// Whether its Loki answers.
    pub reachable: Verdict,
    /// Where lines are pushed.
    pub push_url: Option<String>,
    /// How many pipelines it serves; unknown while the operator starts.
    pub pipelines: Option<u32>,
}

impl Findings {
    /// The first of the verdicts that does not hold, or that all is well.
    pub fn ready(&self) -> Verdict {
        [&self.accepted, &self.resolved, &self.reachable]
            .into_iter()
            .find(|verdict| !verdict.holds())
            .cloned()
            .unwrap_or_else(|| Verdict::yes(reasons::READY, "Loki answers"))
    }
}

/// The status.
pub fn status(findings: &Findings, moment: &Moment<'_>) -> LokiTenantStatus {
    let ready = findings.ready();
    let conditions = moment.conditions(
        &ready,
        &[
            (types::ACCEPTED, &findings.accepted),
            (types::RESOLVED_REFS, &findings.resolved),
            (types::REACHABLE, &findings.reachable),
        ],
    );
    LokiTenantStatus {
        observed_generation: Some(moment.generation),
        conditions,
        push_url: findings.push_url.clone(),
        pipelines: findings.pipelines,
        diagnosis: (!ready.holds()).then(|| clip(&ready.message, 2048)),
    }
}

/// A problem as a verdict.
pub fn unreachable(problem: &Problem) -> Verdict {
    Verdict::no(reason(problem.reason), problem.message.clone())
}

/// What most agents say of a tenant of this content, when any of them is in trouble with it.
pub fn reported(observed: &Observed, tenant: &Key, hash: &str) -> Option<Problem> {
    let mut said: BTreeMap<(ProblemReason, &str), usize> = BTreeMap::new();
    let agents = observed.nodes.values().filter_map(|node| node.agent.as_ref());
    let reports = agents
        .filter_map(|agent| agent.tenants.get(tenant))
        .filter(|report| report.hash == hash);
    for problem in reports.filter_map(|report| report.problem.as_ref()) {
        *said
            .entry((problem.reason, problem.message.as_str()))
            .or_default() += 1;
    }
    let ((reason, message), _) = said.into_iter().rev().max_by_key(|(_, count)| *count)?;
    Some(Problem {
        reason,
        message: format!("agents report: {message}"),
    })
}

/// The condition reason of a class of trouble.
pub fn reason(problem: ProblemReason) -> &'static str {
    match problem {
        ProblemReason::AddressNotFound => reasons::ADDRESS_NOT_FOUND,
        ProblemReason::AddressNotAllowed => reasons::ADDRESS_NOT_ALLOWED,
        ProblemReason::Unreachable => reasons::UNREACHABLE,
        ProblemReason::TlsFailed => reasons::TLS_FAILED,
        ProblemReason::Unauthorized => reasons::UNAUTHORIZED,
        ProblemReason::WrongPath => reasons::WRONG_PATH,
        ProblemReason::RateLimited => reasons::RATE_LIMITED,
        ProblemReason::IngestionBlocked => reasons::INGESTION_BLOCKED,
        ProblemReason::ServerError => reasons::SERVER_ERROR,
        ProblemReason::CredentialsMissing => reasons::CREDENTIALS_MISSING,
        ProblemReason::UnexpectedAnswer => reasons::UNEXPECTED_ANSWER,
    }
}
