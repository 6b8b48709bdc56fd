//! What the nodes did with one pipeline in; counts, the worst nodes and two verdicts out. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use sluice_engine::key::Key;
use sluice_engine::report::{PipelineReport, Warning};

use super::gaps;
use super::resolve::{Served, troubled};
use crate::api::conditions::reasons;
use crate::api::logpipeline::{Gap, NodeCounts, WorstNode};
use crate::api::verdict::{Verdict, clip};
use crate::fleet::observed::{Node, Observed};

/// How long an agent may be silent before it counts as unreachable, in seconds.
pub const SILENCE: i64 = 15;
/// From which lag on lines do not arrive in time, in seconds.
pub const LATE: u32 = 60;
/// What stands between a verdict and what agents warn of.
const ALSO: &str = "; also ";
/// How many nodes a status names.
const WORST: usize = 10;

/// The content that every node should run.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The pipeline.
    pub key: &'a Key,
    /// Its content hash.
    pub hash: &'a str,
    /// Its tenants.
    pub tenants: &'a [Served],
}

/// What the nodes did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folded {
    /// How many run the content.
    pub counts: NodeCounts,
    /// The worst, at most ten.
    pub worst: Vec<WorstNode>,
    /// Where lines vanished, the newest first, at most ten.
    pub gaps: Vec<Gap>,
    /// The largest lag; absent while no agent says.
    pub lag: Option<u32>,
    /// Whether every node runs the content.
    pub programmed: Verdict,
    /// Whether lines arrive in time.
    pub delivering: Verdict,
    /// An agent fell silent a moment ago: what was known of it may still hold.
    pub doubtful: bool,
    /// The weightiest of what agents warn of, with its node.
    pub warned: Option<Warned>,
}

/// What an agent warns of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warned {
    /// No line arrives from the node.
    pub blind: bool,
    /// One sentence with the node's name.
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    Refused,
    Silent,
    Behind,
    JustSilent,
    Applied,
}

/// Folds what the nodes say.
pub fn fold(observed: &Observed, wanted: &Wanted<'_>, now: i64) -> Folded {
    let mut counts = NodeCounts {
        matched: 0,
        applied: 0,
        excused: 0,
    };
    let mut worst: Vec<(Standing, u32, WorstNode)> = Vec::new();
    let mut lag = None;
    let mut standings: BTreeMap<Standing, &str> = BTreeMap::new();
    let mut unread = None;
    let mut warning: Option<(Weight, &str, &Warning)> = None;
    for (name, node) in &observed.nodes {
        counts.matched += 1;
        let standing = stand(node, wanted, now);
        let report = report(node, wanted);
        let own_lag = report.map(|report| {
            report
                .outputs
                .iter()
                .map(|output| output.lag_seconds)
                .max()
                .unwrap_or(0)
        });
        lag = lag.max(own_lag);
        if standing == Standing::Applied {
            counts.applied += 1;
        } else if node.excused {
            counts.excused += 1;
            continue;
        }
        standings.entry(standing).or_insert(name);
        let heavier = |(weight, ..): &(Weight, &Warning)| warning.is_none_or(|(most, ..)| *weight < most);
        if let Some((weight, found)) = weightiest(node, report).filter(heavier) {
            warning = Some((weight, name.as_str(), found));
        }
        let late = own_lag.unwrap_or(0);
        let blind = report.and_then(|report| report.unread.as_deref());
        unread = unread.or_else(|| blind.map(|why| (name.as_str(), why)));
        if matches!(standing, Standing::Refused | Standing::Silent) || late >= LATE || blind.is_some() {
            worst.push((standing, late, describe(name, node, report, own_lag)));
        }
    }
    worst.sort_by(|a, b| {
        (a.0, std::cmp::Reverse(a.1), &a.2.name).cmp(&(b.0, std::cmp::Reverse(b.1), &b.2.name))
    });
    let warned = warning.map(|(weight, node, warning)| Warned {
        blind: weight == Weight::Blind,
        message: clip(&format!("on {node}: {}", warning.message), 1024),
    });
    Folded {
        counts,
        worst: worst.into_iter().take(WORST).map(|(_, _, node)| node).collect(),
        gaps: gaps::fold(observed, wanted.key),
        lag,
        programmed: programmed(&standings, counts, observed),
        delivering: match unread {
            Some((node, why)) => Verdict::no(reasons::API_READ_FAILING, format!("on {node} {why}")),
            None => delivering(lag, wanted, warned.as_ref()),
        },
        doubtful: standings.keys().next() == Some(&Standing::JustSilent),
        warned,
    }
}

impl Warned {
    /// What a status tells already, by its condition `Delivering`.
    pub fn told(delivering: &Condition) -> Option<Self> {
        let blind = delivering.reason == reasons::LOGS_UNREADABLE;
        let message = if blind {
            &delivering.message
        } else {
            delivering.message.split_once(ALSO)?.1
        };
        Some(Self {
            blind,
            message: message.to_owned(),
        })
    }
}

/// How much a warning tells about this pipeline, the weightiest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Weight {
    /// None of its lines arrive from the node.
    Blind,
    /// It is about this pipeline.
    Own,
    /// It is about the agent.
    Agent,
}

/// The weightiest warning of a node.
fn weightiest<'a>(node: &'a Node, report: Option<&'a PipelineReport>) -> Option<(Weight, &'a Warning)> {
    let agents = node
        .agent
        .iter()
        .flat_map(|agent| &agent.warnings)
        .filter(|warning| !warning.is_told_by_pipelines())
        .map(|warning| {
            let blind = warning.reason == Warning::LOG_ROOT_UNREADABLE;
            (if blind { Weight::Blind } else { Weight::Agent }, warning)
        });
    let own = report.into_iter().flat_map(|report| &report.warnings);
    agents
        .chain(own.map(|warning| (Weight::Own, warning)))
        .min_by_key(|(weight, _)| *weight)
}

/// How long until a quiet agent counts as silent; nothing else says when that is.
pub fn next_silence(observed: &Observed, now: i64) -> Option<Duration> {
    let ends = observed.nodes.values().filter_map(|node| node.silent_since);
    let left = ends.filter_map(|since| u64::try_from(since + SILENCE - now).ok());
    left.filter(|&left| left > 0).min().map(Duration::from_secs)
}

fn report<'a>(node: &'a Node, wanted: &Wanted<'_>) -> Option<&'a PipelineReport> {
    node.agent.as_ref()?.pipelines.get(wanted.key)
}

fn stand(node: &Node, wanted: &Wanted<'_>, now: i64) -> Standing {
    let Some(agent) = &node.agent else {
        let silent = node.silent_since.is_some_and(|since| now - since >= SILENCE);
        return if silent {
            Standing::Silent
        } else {
            Standing::JustSilent
        };
    };
    let Some(report) = agent.pipelines.get(wanted.key) else {
        return Standing::Behind;
    };
    // Also with the right hash: a tenant that the agent refuses leaves the pipeline without that output.
    if report.refused.is_some() {
        return Standing::Refused;
    }
    if report.hash != wanted.hash {
        return Standing::Behind;
    }
    let usable = wanted
        .tenants
        .iter()
        .filter_map(|tenant| Some((&tenant.key, tenant.hash.as_ref()?)));
    let mut behind =
        usable.filter(|(key, hash)| agent.tenants.get(key).is_none_or(|tenant| tenant.hash != **hash));
    if behind.next().is_some() {
        Standing::Behind
    } else {
        Standing::Applied
    }
}

fn describe(name: &str, node: &Node, report: Option<&PipelineReport>, lag: Option<u32>) -> WorstNode {
    let last_error = match (&node.agent, report.and_then(|report| report.refused.as_deref())) {
        (None, _) => Some("the agent does not answer".to_owned()),
        (Some(_), refused) => {
            let unread = report.and_then(|report| report.unread.as_deref());
            refused.or(unread).map(|text| clip(text, 1024))
        }
    };
    WorstNode {
        name: name.to_owned(),
        applied_generation: report
            .filter(|report| !report.hash.is_empty())
            .map(|report| report.generation),
        lag_seconds: lag,
        last_error,
    }
}

fn programmed(standings: &BTreeMap<Standing, &str>, counts: NodeCounts, observed: &Observed) -> Verdict {
    if let Some(obstacle) = &observed.obstacle {
        return Verdict::no(obstacle.reason, obstacle.message.clone());
    }
    match standings.first_key_value() {
        Some((Standing::Refused, node)) => Verdict::no(
            reasons::REFUSED_BY_AGENT,
            format!(
                "the agent on {node} refuses this generation and runs the last good one: see status.worstNodes, update the agents"
            ),
        ),
        Some((Standing::Silent, node)) => Verdict::no(
            reasons::AGENT_UNREACHABLE,
            format!("the agent on {node} does not answer: look at the pod sluice-agent of that node"),
        ),
        Some((Standing::Behind | Standing::JustSilent, _)) => {
            Verdict::no(reasons::ROLLING_OUT, "not every node runs this generation yet")
        }
        Some((Standing::Applied, _)) => Verdict::yes(reasons::PROGRAMMED, "every node runs this generation"),
        None if counts.excused > 0 => Verdict::no(
            reasons::NO_NODES,
            "every node is new, not Ready or being deleted: wait for one that is Ready",
        ),
        None if observed.document.is_empty() => Verdict::pending("the nodes are not known yet"),
        None => Verdict::no(
            reasons::NO_NODES,
            "no node takes an agent: change the agent's affinity and tolerations in the chart's values",
        ),
    }
}

/// Whether lines arrive in time, given the largest lag; what agents warn of is told with it.
pub fn delivering(lag: Option<u32>, wanted: &Wanted<'_>, warned: Option<&Warned>) -> Verdict {
    if let Some(tenant) = wanted.tenants.iter().find(|tenant| tenant.trouble.is_some()) {
        return troubled(tenant);
    }
    if let Some(blind) = warned.filter(|warned| warned.blind) {
        return Verdict::no(reasons::LOGS_UNREADABLE, blind.message.clone());
    }
    let also = |text: &str| match warned {
        Some(warned) => format!("{text}{ALSO}{}", warned.message),
        None => text.to_owned(),
    };
    match lag {
        Some(lag) if lag >= LATE => Verdict::no(
            reasons::LAGGING,
            also(
                "lines wait for a minute or more: see status.worstNodes, raise the tenant's rate limit in Loki and in limits",
            ),
        ),
        Some(_) => Verdict::yes(reasons::DELIVERING, also("lines arrive in time")),
        None => Verdict::pending("no agent has reported yet"),
    }
}
