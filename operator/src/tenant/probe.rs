//! A resolved tenant in, what its Loki said last out; it is asked when that is old.

use std::sync::PoisonError;
use std::time::Duration;

use sluice_engine::key::Key;
use sluice_engine::report::{Problem, ProblemReason};
use tokio::time::Instant;

use super::resolve::Resolved;
use super::{Context, reach};

/// How often a Loki is asked.
pub(super) const EVERY: Duration = Duration::from_secs(15);
/// How soon it is asked again when it did not answer once.
const AGAIN: Duration = Duration::from_secs(3);

/// What a Loki said last.
#[derive(Clone, Debug)]
pub struct Probe {
    asked: Resolved,
    at: Instant,
    problem: Option<Problem>,
    failures: u32,
}

/// What a Loki says, asked anew when the last answer is old or was given to other credentials. One failure
/// after a success is not believed at once.
pub(super) async fn probe(key: &Key, context: &Context, resolved: &Resolved) -> (Option<Problem>, Duration) {
    let last = context
        .probes
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .get(key)
        .cloned();
    let last = last.filter(|last| last.asked == *resolved);
    if let Some(last) = &last {
        let rest = next(last).saturating_sub(last.at.elapsed());
        if !rest.is_zero() {
            return (last.problem.clone(), rest);
        }
    }
    let _turn = context.turns.acquire().await;
    let said = reach::reach(resolved, context.allow_local).await;
    let failures = said
        .as_ref()
        .map_or(0, |_| last.as_ref().map_or(0, |last| last.failures) + 1);
    let doubtful = failures == 1
        && last.as_ref().is_some_and(|last| last.problem.is_none())
        && said.as_ref().is_some_and(|problem| is_passing(problem.reason));
    let problem = if doubtful { None } else { said };
    let probe = Probe {
        asked: resolved.clone(),
        at: Instant::now(),
        problem: problem.clone(),
        failures,
    };
    let again = next(&probe);
    context
        .probes
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(key.clone(), probe);
    (problem, again)
}

fn next(probe: &Probe) -> Duration {
    if probe.failures == 1 { AGAIN } else { EVERY }
}

fn is_passing(reason: ProblemReason) -> bool {
    matches!(
        reason,
        ProblemReason::AddressNotFound | ProblemReason::Unreachable | ProblemReason::ServerError
    )
}
