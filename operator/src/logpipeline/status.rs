//! What the steps and the nodes found in, a `LogPipeline`'s status out. Pure.

use super::gaps;
use super::nodes::{self, Folded, Wanted, Warned};
use super::resolve::Resolved;
use super::totals::Counts;
use crate::api::conditions::{reasons, types};
use crate::api::logpipeline::{Display, LogPipelineStatus, LostLines, NodeCounts};
use crate::api::verdict::{Moment, Verdict, clip};
use crate::fleet::observed::Observed;
use crate::tenant::validate::Rejection;

/// The status of a pipeline whose spec is refused.
pub fn rejected(rejection: &Rejection, moment: &Moment<'_>) -> LogPipelineStatus {
    let accepted = Verdict::no(rejection.reason, rejection.message.clone());
    LogPipelineStatus {
        observed_generation: Some(moment.generation),
        conditions: moment.conditions(&accepted, &[(types::ACCEPTED, &accepted)]),
        display: Some(Display {
            nodes: "-".into(),
            tenants: "-".into(),
            lag: "-".into(),
        }),
        diagnosis: Some(clip(&accepted.message, 2048)),
        ..LogPipelineStatus::default()
    }
}

/// The status of a pipeline that went through all steps.
pub fn status(
    resolved: &Resolved,
    observed: &Observed,
    totals: &Counts,
    old: &LogPipelineStatus,
    moment: &Moment<'_>,
) -> LogPipelineStatus {
    let authorized = &resolved.authorized;
    let folded = resolved.share.pipeline.as_ref().map(|pipeline| {
        let wanted = Wanted {
            key: &pipeline.name,
            hash: &pipeline.hash,
            tenants: &resolved.tenants,
        };
        let folded = nodes::fold(observed, &wanted, moment.now.as_second());
        steady(folded, &wanted, old, moment)
    });
    let accepted = match authorized.validated.remark {
        Some(remark) => Verdict::yes(reasons::ACCEPTED, format!("the spec is valid; {remark}")),
        None => Verdict::yes(reasons::ACCEPTED, "the spec is valid"),
    };
    let nothing = Verdict::pending("nothing may be collected");
    let (programmed, delivering) = folded.as_ref().map_or((&nothing, &nothing), |folded| {
        (&folded.programmed, &folded.delivering)
    });
    let suspended = authorized.validated.suspend.then(|| {
        Verdict::no(
            reasons::SUSPENDED,
            "suspend is true: set it to false to collect again",
        )
    });
    let ready = ready(
        &[&resolved.verdict, &authorized.verdict, programmed],
        delivering,
        suspended,
    );
    let conditions = moment.conditions(
        &ready,
        &[
            (types::ACCEPTED, &accepted),
            (types::RESOLVED_REFS, &resolved.verdict),
            (types::AUTHORIZED, &authorized.verdict),
            (types::PROGRAMMED, programmed),
            (types::DELIVERING, delivering),
        ],
    );
    let told_now = folded.as_ref().map_or(&[][..], |folded| &folded.gaps);
    let told = gaps::merge(&old.gaps, told_now, moment.now);
    let diagnosis = if !ready.holds() {
        Some(clip(&ready.message, 2048))
    } else if authorized.verdict.reason == reasons::PARTIALLY_AUTHORIZED {
        Some(clip(&authorized.verdict.message, 2048))
    } else {
        // Lines arrive; something is to be known nevertheless.
        let warned = folded.as_ref().and_then(|folded| folded.warned.as_ref());
        let told = gaps::sentence(&told)
            .or_else(|| warned.map(|warned| warned.message.clone()))
            .or_else(|| totals.lost().as_ref().map(given_up));
        told.map(|sentence| clip(&sentence, 2048))
    };
    let counts = folded
        .as_ref()
        .map_or_else(NodeCounts::default, |folded| folded.counts);
    LogPipelineStatus {
        observed_generation: Some(moment.generation),
        conditions,
        nodes: Some(counts),
        worst_nodes: folded
            .as_ref()
            .map(|folded| folded.worst.clone())
            .unwrap_or_default(),
        namespaces: Some(authorized.counts.clone()),
        rejected: totals.rejected(),
        lost: totals.lost(),
        gaps: told,
        gap_count: totals.gaps(),
        display: Some(display(resolved, folded.as_ref(), counts)),
        diagnosis,
    }
}

fn given_up(lost: &LostLines) -> String {
    format!(
        "{} lines ({} bytes) were read and given up since this pipeline was made, for want of room on their nodes' disks: see status.lost",
        lost.lines, lost.bytes
    )
}

fn ready(steps: &[&Verdict], delivering: &Verdict, suspended: Option<Verdict>) -> Verdict {
    if let Some(suspended) = suspended {
        return suspended;
    }
    if let Some(verdict) = steps.iter().find(|verdict| !verdict.holds()) {
        return (*verdict).clone();
    }
    if !delivering.holds() {
        return delivering.clone();
    }
    Verdict::yes(reasons::READY, "lines arrive")
}

/// While an agent is silent for a moment, such as after a change of leader, what was known of it holds.
fn steady(mut folded: Folded, wanted: &Wanted<'_>, old: &LogPipelineStatus, moment: &Moment<'_>) -> Folded {
    let known = moment.find(types::PROGRAMMED).is_some_and(|condition| {
        condition.status == "True" && condition.observed_generation == Some(moment.generation)
    });
    if folded.doubtful && known {
        folded.programmed = Verdict::yes(reasons::PROGRAMMED, "every node runs this generation");
        folded.counts.applied = folded.counts.matched - folded.counts.excused;
        let told = moment.find(types::DELIVERING).and_then(Warned::told);
        if told.is_some() {
            folded.warned = told;
            folded.delivering = nodes::delivering(folded.lag, wanted, folded.warned.as_ref());
        }
        if folded.lag.is_none() {
            let shown = old.display.as_ref().and_then(|shown| shown.lag.strip_suffix('s'));
            folded.lag = shown.and_then(|seconds| seconds.parse().ok());
            folded.delivering = nodes::delivering(folded.lag, wanted, folded.warned.as_ref());
        }
    }
    folded
}

fn display(resolved: &Resolved, folded: Option<&Folded>, counts: NodeCounts) -> Display {
    let own = &resolved.authorized.validated.entry.name.namespace;
    let mentioned = resolved.authorized.validated.entry.tenants.iter();
    let tenants = mentioned.map(|t| {
        if t.namespace == *own {
            t.name.clone()
        } else {
            t.to_string()
        }
    });
    Display {
        nodes: format!("{}/{}", counts.applied, counts.matched),
        tenants: clip(&tenants.collect::<Vec<_>>().join(","), 1400),
        lag: folded
            .and_then(|folded| folded.lag)
            .map_or_else(|| "-".into(), |lag| format!("{lag}s")),
    }
}
