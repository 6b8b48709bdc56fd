//! Figures, problems and what is in force in, the answer of `/status` out. Pure but for the clock given.

use std::collections::{BTreeMap, VecDeque};

use sluice_engine::key::Key;
use sluice_engine::report::{
    Lost, OutputReport, PipelineReport, Problem, Rejected, Report, TenantReport, VERSION, Warning, lag_step,
};

use super::figures::{Figures, OutputFigures};
use crate::config::InForce;

/// How many removals are remembered: who asks for older changes gets everything.
const REMOVALS: usize = 1_024;

/// Who answers.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// Random, chosen at the process's start.
    pub process: u64,
    /// The agent's pod.
    pub pod_uid: String,
    /// The agent's node.
    pub node: String,
}

/// The report, and for each entry the sequence number of its last change.
#[derive(Debug)]
pub struct Reporter {
    identity: Identity,
    sequence: u64,
    epoch: u64,
    document: String,
    warnings: Vec<Warning>,
    pipelines: Entries<PipelineReport>,
    tenants: Entries<TenantReport>,
}

impl Reporter {
    /// An empty report.
    pub fn new(identity: Identity) -> Self {
        Self {
            identity,
            sequence: 1,
            epoch: 0,
            document: String::new(),
            warnings: Vec::new(),
            pipelines: Entries::default(),
            tenants: Entries::default(),
        }
    }

    /// The number that the next call passes as `since`.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Takes what is known now; `now` in seconds since 1970. Says whether the report changed.
    pub fn update(
        &mut self,
        in_force: &InForce,
        figures: &Figures,
        problems: &BTreeMap<Key, Problem>,
        now: i64,
    ) -> bool {
        let next = self.sequence + 1;
        let mut changed = self.pipelines.replace(pipelines(in_force, figures, now), next);
        changed |= self.tenants.replace(tenants(in_force, problems), next);
        if self.epoch != figures.epoch {
            self.epoch = figures.epoch;
            changed = true;
        }
        if self.document != figures.document {
            self.document.clone_from(&figures.document);
            changed = true;
        }
        if self.warnings != figures.warnings {
            self.warnings.clone_from(&figures.warnings);
            changed = true;
        }
        if changed {
            self.sequence = next;
        }
        changed
    }

    /// Whether a caller who knows `process` up to `since` knows everything.
    pub fn is_known(&self, since: Option<u64>, process: Option<u64>) -> bool {
        process == Some(self.identity.process) && since == Some(self.sequence)
    }

    /// The changes after `since`; everything for a caller who knows another process or too little.
    pub fn answer(&self, since: Option<u64>, process: Option<u64>) -> Report {
        let oldest = self.pipelines.forgotten.max(self.tenants.forgotten);
        let since = since.filter(|since| {
            process == Some(self.identity.process) && (oldest..=self.sequence).contains(since) && *since > 0
        });
        let from = since.unwrap_or(0);
        let removed = |gone: &VecDeque<(u64, Key)>| {
            let gone = gone.iter().filter(|(at, _)| since.is_some() && *at > from);
            gone.map(|(_, name)| name.clone()).collect()
        };
        Report {
            version: VERSION,
            process: self.identity.process,
            sequence: self.sequence,
            full: since.is_none(),
            pod_uid: self.identity.pod_uid.clone(),
            node: self.identity.node.clone(),
            agent: env!("CARGO_PKG_VERSION").to_owned(),
            epoch: self.epoch,
            document: self.document.clone(),
            pipelines: self.pipelines.after(from),
            removed: removed(&self.pipelines.removed),
            tenants: self.tenants.after(from),
            removed_tenants: removed(&self.tenants.removed),
            warnings: self.warnings.clone(),
        }
    }
}

#[derive(Debug)]
struct Entries<T> {
    current: BTreeMap<Key, (u64, T)>,
    removed: VecDeque<(u64, Key)>,
    /// The sequence number of the newest removal that is no longer remembered.
    forgotten: u64,
}

impl<T> Default for Entries<T> {
    fn default() -> Self {
        Self {
            current: BTreeMap::new(),
            removed: VecDeque::new(),
            forgotten: 0,
        }
    }
}

impl<T: PartialEq + Clone> Entries<T> {
    /// Replaces everything, and numbers what changed; says whether anything did.
    fn replace(&mut self, new: BTreeMap<Key, T>, sequence: u64) -> bool {
        let mut changed = false;
        for name in self.current.keys().filter(|name| !new.contains_key(name)) {
            self.removed.push_back((sequence, name.clone()));
            changed = true;
        }
        self.current.retain(|name, _| new.contains_key(name));
        for (name, entry) in new {
            if self.current.get(&name).is_some_and(|(_, old)| *old == entry) {
                continue;
            }
            self.removed.retain(|(_, gone)| *gone != name);
            self.current.insert(name, (sequence, entry));
            changed = true;
        }
        while self.removed.len() > REMOVALS {
            self.forgotten = self.removed.pop_front().map_or(self.forgotten, |(at, _)| at);
        }
        changed
    }

    fn after(&self, since: u64) -> Vec<T> {
        self.current
            .values()
            .filter(|(at, _)| *at > since)
            .map(|(_, entry)| entry.clone())
            .collect()
    }
}

/// Pipelines as the worker runs them, and those that are refused.
fn pipelines(in_force: &InForce, figures: &Figures, now: i64) -> BTreeMap<Key, PipelineReport> {
    let mut reports: BTreeMap<Key, PipelineReport> = figures
        .pipelines
        .iter()
        .map(|(name, pipeline)| {
            let report = PipelineReport {
                name: name.clone(),
                uid: pipeline.uid.clone(),
                hash: pipeline.hash.clone(),
                generation: pipeline.generation,
                refused: None,
                containers: pipeline.containers,
                unread: pipeline.unread.clone(),
                outputs: pipeline
                    .outputs
                    .iter()
                    .map(|(tenant, figures)| output(tenant, figures, now))
                    .collect(),
                warnings: pipeline.warnings.clone(),
            };
            (name.clone(), report)
        })
        .collect();
    for (name, error) in &in_force.refused {
        let report = reports.entry(name.clone()).or_insert_with(|| PipelineReport {
            name: name.clone(),
            uid: String::new(),
            hash: String::new(),
            generation: 0,
            refused: None,
            containers: 0,
            unread: None,
            outputs: Vec::new(),
            warnings: Vec::new(),
        });
        report.refused = Some(error.clone());
    }
    reports
}

fn output(tenant: &Key, figures: &OutputFigures, now: i64) -> OutputReport {
    OutputReport {
        tenant: tenant.clone(),
        lag_seconds: lag_step(lag(figures, now)),
        rejected: figures
            .rejected
            .iter()
            .map(|(reason, lines)| Rejected {
                reason: reason.clone(),
                lines: *lines,
            })
            .collect(),
        lost: figures
            .lost
            .iter()
            .map(|(reason, (lines, bytes))| Lost {
                reason: reason.clone(),
                lines: *lines,
                bytes: *bytes,
            })
            .collect(),
        gap_count: figures.gap_count,
        gaps: figures.gaps.clone(),
    }
}

/// Age in seconds of the oldest line that is not acknowledged; 0 when there is none, or when its clock runs
/// ahead of ours.
pub fn lag(figures: &OutputFigures, now: i64) -> u64 {
    figures
        .oldest_unacknowledged
        .map_or(0, |oldest| u64::try_from(now.saturating_sub(oldest)).unwrap_or(0))
}

fn tenants(in_force: &InForce, problems: &BTreeMap<Key, Problem>) -> BTreeMap<Key, TenantReport> {
    let report = |tenant: &crate::config::TenantInForce| {
        let name = tenant.tenant.name.clone();
        let report = TenantReport {
            name: name.clone(),
            hash: tenant.tenant.hash.clone(),
            credentials: tenant.version.clone(),
            problem: problems.get(&name).cloned(),
        };
        (name, report)
    };
    in_force.tenants.iter().map(report).collect()
}

#[cfg(test)]
mod tests {
    use sluice_engine::report::{Gap, GapCause};

    use super::super::figures::PipelineFigures;
    use super::*;

    fn figures(pipelines: &[(&str, &str, Option<i64>)]) -> Figures {
        let pipelines = pipelines.iter().map(|(name, hash, oldest)| {
            let output = OutputFigures {
                oldest_unacknowledged: *oldest,
                ..OutputFigures::default()
            };
            let outputs = BTreeMap::from([(Key::new("logging", "ops"), output)]);
            let figures = PipelineFigures {
                hash: (*hash).to_owned(),
                outputs,
                ..PipelineFigures::default()
            };
            (Key::new("team", *name), figures)
        });
        Figures {
            document: "d".into(),
            pipelines: pipelines.collect(),
            ..Figures::default()
        }
    }

    fn reporter() -> Reporter {
        Reporter::new(Identity {
            process: 42,
            pod_uid: "p".into(),
            node: "n".into(),
        })
    }

    fn update(reporter: &mut Reporter, figures: &Figures, now: i64) -> bool {
        reporter.update(&InForce::default(), figures, &BTreeMap::new(), now)
    }

    fn names(report: &Report) -> Vec<&str> {
        report
            .pipelines
            .iter()
            .map(|pipeline| pipeline.name.name.as_str())
            .collect()
    }

    #[test]
    fn only_what_changed_is_answered() {
        let mut reporter = reporter();
        assert!(update(
            &mut reporter,
            &figures(&[("a", "1", None), ("b", "1", None)]),
            0
        ));
        let first = reporter.answer(None, None);
        assert!(first.full);
        assert_eq!(names(&first), ["a", "b"]);
        assert!(!update(
            &mut reporter,
            &figures(&[("a", "1", None), ("b", "1", None)]),
            1_000
        ));
        assert!(reporter.is_known(Some(first.sequence), Some(42)));
        assert!(update(
            &mut reporter,
            &figures(&[("a", "1", None), ("b", "2", None)]),
            0
        ));
        assert!(!reporter.is_known(Some(first.sequence), Some(42)));
        let second = reporter.answer(Some(first.sequence), Some(42));
        assert!(!second.full);
        assert_eq!(names(&second), ["b"]);
        assert!(second.sequence > first.sequence);
        // Another process, no process, a number from the future: everything.
        for (since, process) in [
            (Some(first.sequence), Some(43)),
            (Some(first.sequence), None),
            (Some(99), Some(42)),
        ] {
            assert!(reporter.answer(since, process).full);
        }
    }

    #[test]
    fn removals_are_told_until_they_are_forgotten() {
        let mut reporter = reporter();
        update(&mut reporter, &figures(&[("a", "1", None)]), 0);
        let known = reporter.sequence();
        update(&mut reporter, &figures(&[]), 0);
        let report = reporter.answer(Some(known), Some(42));
        assert_eq!(report.removed, [Key::new("team", "a")]);
        assert!(reporter.answer(None, None).removed.is_empty());
        assert!(
            reporter
                .answer(Some(reporter.sequence()), Some(42))
                .removed
                .is_empty()
        );
        update(&mut reporter, &figures(&[("a", "1", None)]), 0);
        assert!(reporter.answer(Some(known), Some(42)).removed.is_empty());
        for index in 0..=REMOVALS {
            update(&mut reporter, &figures(&[(&format!("x{index}"), "1", None)]), 0);
        }
        update(&mut reporter, &figures(&[]), 0);
        assert!(reporter.answer(Some(known), Some(42)).full);
        assert!(!reporter.answer(Some(reporter.sequence() - 1), Some(42)).full);
    }

    #[test]
    fn lag_moves_the_report_by_its_steps_only() {
        let mut reporter = reporter();
        update(&mut reporter, &figures(&[("a", "1", Some(100))]), 100);
        assert!(!update(&mut reporter, &figures(&[("a", "1", Some(100))]), 104));
        assert!(update(&mut reporter, &figures(&[("a", "1", Some(100))]), 105));
        assert_eq!(reporter.answer(None, None).pipelines[0].outputs[0].lag_seconds, 5);
        assert!(
            update(&mut reporter, &figures(&[("a", "1", Some(200))]), 105),
            "a clock ahead of ours"
        );
        assert_eq!(reporter.answer(None, None).pipelines[0].outputs[0].lag_seconds, 0);
    }

    #[test]
    fn what_did_not_arrive_and_what_is_warned_of_is_told_of_each_pipeline() {
        let gap = |pod: &str, cause| Gap {
            namespace: "shop".into(),
            pod: pod.into(),
            container: "main".into(),
            cause,
            after: Some(17),
            before: Some(19),
            noticed: 21,
        };
        let gaps = vec![
            gap("web-1", GapCause::ApiLogsGone),
            gap("web-0", GapCause::NoSpace),
        ];
        let warning = |reason: &str| Warning {
            reason: reason.into(),
            message: format!("{reason} is so."),
        };
        let ops = Key::new("logging", "ops");
        let mut figures = figures(&[("a", "1", None), ("b", "1", None)]);
        figures.warnings = vec![warning("WatchesExhausted")];
        let pipeline = figures.pipelines.get_mut(&Key::new("team", "a")).unwrap();
        pipeline.warnings = vec![warning("LabelsCurtailed")];
        pipeline.unread = Some("why".into());
        let output = pipeline.outputs.get_mut(&ops).unwrap();
        output.rejected = BTreeMap::from([("line_too_long".into(), 2)]);
        output.lost = BTreeMap::from([("no_space".into(), (3, 30)), ("other".into(), (4, 50))]);
        (output.gap_count, output.gaps) = (12, gaps.clone());
        let mut reporter = reporter();
        update(&mut reporter, &figures, 0);
        let report = reporter.answer(None, None);
        let [a, b] = &report.pipelines[..] else {
            panic!("{report:?}");
        };
        let lost = |reason: &str, lines, bytes| Lost {
            reason: reason.into(),
            lines,
            bytes,
        };
        let expected = OutputReport {
            tenant: ops.clone(),
            lag_seconds: 0,
            rejected: vec![Rejected {
                reason: "line_too_long".into(),
                lines: 2,
            }],
            lost: vec![lost("no_space", 3, 30), lost("other", 4, 50)],
            gap_count: 12,
            gaps,
        };
        assert_eq!(a.outputs, [expected]);
        assert_eq!(
            (a.unread.as_deref(), &a.warnings[..]),
            (Some("why"), &[warning("LabelsCurtailed")][..])
        );
        let nothing = OutputReport {
            tenant: ops,
            lag_seconds: 0,
            rejected: Vec::new(),
            lost: Vec::new(),
            gap_count: 0,
            gaps: Vec::new(),
        };
        assert_eq!(
            (&b.outputs[..], b.warnings.len(), b.unread.as_deref()),
            (&[nothing][..], 0, None)
        );
        assert_eq!(report.warnings, [warning("WatchesExhausted")]);
        // What changes of it alone is a change.
        let known = reporter.sequence();
        let pipeline = figures.pipelines.get_mut(&Key::new("team", "b")).unwrap();
        pipeline.warnings = vec![warning("LogFilesNotRead")];
        assert!(update(&mut reporter, &figures, 0));
        assert_eq!(names(&reporter.answer(Some(known), Some(42))), ["b"]);
    }

    #[test]
    fn refusals_stand_with_the_content_in_force_or_alone() {
        let mut reporter = reporter();
        let refused = vec![
            (Key::new("team", "a"), "why".to_owned()),
            (Key::new("team", "z"), "how".to_owned()),
        ];
        let in_force = InForce {
            refused,
            ..InForce::default()
        };
        reporter.update(&in_force, &figures(&[("a", "1", None)]), &BTreeMap::new(), 0);
        let report = reporter.answer(None, None);
        let shown: Vec<_> = report
            .pipelines
            .iter()
            .map(|p| (p.hash.as_str(), p.refused.as_deref()))
            .collect();
        assert_eq!(shown, [("1", Some("why")), ("", Some("how"))]);
    }
}
