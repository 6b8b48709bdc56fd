//! What the nodes say vanished unread, and what a status says of it, in; the newest of it and one sentence out. Pure.

use std::collections::BTreeSet;

use k8s_openapi::jiff::Timestamp;
use sluice_engine::key::Key;
use sluice_engine::report::{GapCause, PipelineReport};

use crate::api::logpipeline::Gap;
use crate::api::verdict::clip;
use crate::fleet::observed::Observed;

/// How many gaps a status names.
const MOST: usize = 10;
/// For how long it names them, in seconds.
const DAY: i64 = 86_400;

/// The newest gaps that the nodes tell of.
pub fn fold(observed: &Observed, key: &Key) -> Vec<Gap> {
    let reports = observed.nodes.iter().filter_map(|(name, node)| {
        let report = node.agent.as_ref()?.pipelines.get(key)?;
        Some((name.as_str(), report))
    });
    newest(reports.flat_map(|(node, report)| of_node(node, report)))
}

fn of_node<'a>(node: &'a str, report: &'a PipelineReport) -> impl Iterator<Item = Gap> + 'a {
    let gaps = report.outputs.iter().flat_map(|output| &output.gaps);
    gaps.map(move |gap| Gap {
        node: clip(node, 253),
        namespace: clip(&gap.namespace, 63),
        pod: clip(&gap.pod, 253),
        container: clip(&gap.container, 253),
        cause: gap.cause.as_str().to_owned(),
        after: gap.after.and_then(of_nanos),
        before: gap.before.and_then(of_nanos),
        noticed: Timestamp::from_second(gap.noticed)
            .unwrap_or_default()
            .to_string(),
    })
}

fn of_nanos(nanos: i64) -> Option<String> {
    let time = Timestamp::from_nanosecond(nanos.into()).ok()?;
    Some(time.to_string())
}

/// Both tenants of a pipeline miss the same lines, which are told once. What a node that left has told stays.
fn newest(gaps: impl IntoIterator<Item = Gap>) -> Vec<Gap> {
    let mut all: Vec<Gap> = gaps.into_iter().collect();
    all.sort_by(|a, b| {
        let order = |gap: &Gap| {
            (
                gap.node.clone(),
                gap.namespace.clone(),
                gap.pod.clone(),
                gap.container.clone(),
            )
        };
        (&b.noticed, order(a)).cmp(&(&a.noticed, order(b)))
    });
    let mut told = BTreeSet::new();
    all.retain(|gap| {
        told.insert((
            (
                gap.node.clone(),
                gap.namespace.clone(),
                gap.pod.clone(),
                gap.container.clone(),
            ),
            (gap.cause.clone(), gap.after.clone()),
        ))
    });
    all.truncate(MOST);
    all
}

/// What a status says of gaps: those it said and those the nodes tell of now, of the last day.
pub fn merge(old: &[Gap], now_told: &[Gap], now: Timestamp) -> Vec<Gap> {
    let is_recent = |gap: &&Gap| {
        let noticed: Option<Timestamp> = gap.noticed.parse().ok();
        noticed.is_some_and(|noticed| now.as_second() - noticed.as_second() < DAY)
    };
    // Told anew they may say more, such as what follows behind them.
    newest(now_told.iter().chain(old).filter(is_recent).cloned())
}

/// The newest gap in one sentence. Where nothing was known to wait it is no news.
pub fn sentence(gaps: &[Gap]) -> Option<String> {
    let gap = gaps
        .iter()
        .find(|gap| gap.cause != GapCause::PodDeletedMeanwhile.as_str())?;
    let after = gap.after.as_deref().map(|after| format!(" after {after}"));
    let before = gap.before.as_deref().map(|before| format!(" before {before}"));
    let found = GapCause::ALL.iter().find(|cause| cause.as_str() == gap.cause);
    let why = found.map_or("see docs/losses.md", |cause| remedy(*cause));
    Some(format!(
        "lines of {}/{} {} on {}{}{} vanished before they were read: {why}; see status.gaps",
        gap.namespace,
        gap.pod,
        gap.container,
        gap.node,
        after.unwrap_or_default(),
        before.unwrap_or_default(),
    ))
}

fn remedy(cause: GapCause) -> &'static str {
    match cause {
        GapCause::FilesDeleted => {
            "kubelet deleted files while the agent was down, so keep it running or raise the kubelet's containerLogMaxFiles"
        }
        GapCause::PodDeleted | GapCause::PodDeletedMeanwhile => {
            "the pod was deleted while the agent was down, so keep the agent running"
        }
        GapCause::FileRewritten => "somebody cut or rewrote the file, so let only the kubelet rotate it",
        GapCause::CheckpointDamaged => "the agent's journal was damaged, so check the node's disk",
        GapCause::NoSpace => {
            "the node's disk had no room to keep them, so free space or let the tenant take its lines"
        }
        GapCause::FileUnreadable => "the file could not be read, so check the node's disk",
        GapCause::SpillDamaged => "a spilled copy was damaged, so check the node's disk",
        GapCause::ApiLogsGone => {
            "the API showed them no more when they were asked for, so keep the agent running, raise the kubelet's containerLogMaxSize, or read files"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(node: &str, second: i64, after: Option<&str>, before: Option<&str>) -> Gap {
        Gap {
            node: node.into(),
            namespace: "a".into(),
            pod: "web-0".into(),
            container: "main".into(),
            cause: "FilesDeleted".into(),
            after: after.map(str::to_owned),
            before: before.map(str::to_owned),
            noticed: Timestamp::from_second(second).unwrap().to_string(),
        }
    }

    fn now(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_newest_of_the_last_day_are_told_once_each() {
        let old = [gap("n1", 100, Some("x"), None), gap("n2", 50, None, None)];
        let told = [gap("n1", 100, Some("x"), Some("y")), gap("n3", 120, None, None)];
        let merged = merge(&old, &told, now(200));
        let shown: Vec<_> = merged
            .iter()
            .map(|gap| (gap.node.as_str(), gap.before.as_deref()))
            .collect();
        assert_eq!(shown, [("n3", None), ("n1", Some("y")), ("n2", None)]);
        assert_eq!(merge(&old, &told, now(110 + DAY)).len(), 1);
        let many: Vec<_> = (0..30)
            .map(|second| gap(&format!("n{second}"), second, None, None))
            .collect();
        let merged = merge(&[], &many, now(30));
        assert_eq!((merged.len(), merged[0].node.as_str()), (10, "n29"));
        assert_eq!(
            merge(&merged, &many, now(31)),
            merged,
            "told again it says the same"
        );
    }

    #[test]
    fn one_sentence_names_container_times_and_remedy() {
        let told = sentence(&[gap("n1", 1, Some("t1"), Some("t2"))]).unwrap();
        assert!(told.starts_with("lines of a/web-0 main on n1 after t1 before t2 vanished before they were read: kubelet deleted files"));
        assert_eq!(sentence(&[]), None);
        let through_api = Gap {
            cause: GapCause::ApiLogsGone.as_str().into(),
            ..gap("n1", 1, Some("t1"), Some("t2"))
        };
        let told = sentence(&[through_api]).unwrap();
        assert!(
            told.contains("vanished before they were read: the API showed them no more"),
            "{told}"
        );
    }
}
