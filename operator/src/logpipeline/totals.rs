//! Each node's counters in, totals that never fall out: a node that leaves takes nothing with it, and one whose
//! counters begin anew adds to what was. Pure.

use std::collections::BTreeMap;

use sluice_engine::report::PipelineReport;

use crate::api::logpipeline::{LogPipelineStatus, LostLines, RejectedLines};

/// Reasons that a status names, at most.
const REASONS: usize = 32;

/// What is counted, by name: refused lines by reason, lost lines, their bytes, gaps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(BTreeMap<Count, u64>);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Count {
    Rejected(String),
    LostLines,
    LostBytes,
    Gaps,
}

impl Counts {
    /// Of a status.
    pub fn of_status(status: &LogPipelineStatus) -> Self {
        let mut counts = Self::default();
        for rejected in &status.rejected {
            counts.add(Count::Rejected(rejected.reason.clone()), rejected.lines);
        }
        let lost = status.lost.unwrap_or_default();
        counts.add(Count::LostLines, lost.lines);
        counts.add(Count::LostBytes, lost.bytes);
        counts.add(Count::Gaps, status.gap_count.unwrap_or(0));
        counts
    }

    /// Of one node.
    pub fn of_report(report: &PipelineReport) -> Self {
        let mut counts = Self::default();
        for output in &report.outputs {
            for rejected in &output.rejected {
                counts.add(Count::Rejected(rejected.reason.clone()), rejected.lines);
            }
            for lost in &output.lost {
                counts.add(Count::LostLines, lost.lines);
                counts.add(Count::LostBytes, lost.bytes);
            }
            counts.add(Count::Gaps, output.gap_count);
        }
        counts
    }

    /// Refused lines by reason.
    pub fn rejected(&self) -> Vec<RejectedLines> {
        let rejected = self.0.iter().filter_map(|(count, lines)| match count {
            Count::Rejected(reason) => Some(RejectedLines {
                reason: crate::api::verdict::clip(reason, 128),
                lines: *lines,
            }),
            Count::LostLines | Count::LostBytes | Count::Gaps => None,
        });
        rejected.take(REASONS).collect()
    }

    /// Lines read and given up, if there are any.
    pub fn lost(&self) -> Option<LostLines> {
        let (lines, bytes) = (self.get(&Count::LostLines), self.get(&Count::LostBytes));
        (lines > 0).then_some(LostLines { lines, bytes })
    }

    /// How often lines vanished unread, if they did.
    pub fn gaps(&self) -> Option<u64> {
        Some(self.get(&Count::Gaps)).filter(|count| *count > 0)
    }

    fn get(&self, count: &Count) -> u64 {
        self.0.get(count).copied().unwrap_or(0)
    }

    fn add(&mut self, count: Count, number: u64) {
        if number > 0 {
            let total = self.0.entry(count).or_default();
            *total = total.saturating_add(number);
        }
    }
}

/// The totals of one pipeline, and what they were made of.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    total: Counts,
    /// What the status said when this began and no node has accounted for.
    unclaimed: Counts,
    /// Each node's epoch and counters, as they were last.
    nodes: BTreeMap<String, (u64, Counts)>,
}

impl Totals {
    /// Totals that go on from what a status says.
    pub fn begin(status: &LogPipelineStatus) -> Self {
        let total = Counts::of_status(status);
        Self {
            unclaimed: total.clone(),
            total,
            nodes: BTreeMap::new(),
        }
    }

    /// What the totals are now.
    pub fn total(&self) -> &Counts {
        &self.total
    }

    /// Takes what a node says.
    pub fn take(&mut self, node: &str, epoch: u64, report: &PipelineReport) {
        let now = Counts::of_report(report);
        let known = self.nodes.get(node);
        if known.is_none() && now.0.is_empty() {
            // Nearly every node of nearly every pipeline, which costs nothing.
            return;
        }
        if known.is_some_and(|(known_epoch, last)| *known_epoch == epoch && *last == now) {
            return;
        }
        for (count, number) in &now.0 {
            let grown = match known {
                Some((known_epoch, last)) if *known_epoch == epoch => number.saturating_sub(last.get(count)),
                Some(_) => *number,
                None => {
                    // Seen for the first time by this process: the status may hold it already.
                    let unclaimed = self.unclaimed.0.entry(count.clone()).or_default();
                    let claimed = (*unclaimed).min(*number);
                    *unclaimed -= claimed;
                    number - claimed
                }
            };
            self.total.add(count.clone(), grown);
        }
        self.nodes.insert(node.to_owned(), (epoch, now));
    }

    /// Every node has spoken: what none of them accounts for is of nodes that left.
    pub fn all_spoke(&mut self) {
        self.unclaimed = Counts::default();
    }
}

#[cfg(test)]
mod tests {
    use sluice_engine::key::Key;
    use sluice_engine::report::{Lost, OutputReport, Rejected};

    use super::*;

    fn report(refused: u64, lost: u64, gaps: u64) -> PipelineReport {
        PipelineReport {
            name: Key::new("a", "p"),
            uid: "u".into(),
            hash: String::new(),
            generation: 1,
            refused: None,
            unread: None,
            containers: 1,
            outputs: vec![OutputReport {
                tenant: Key::new("logging", "ops"),
                lag_seconds: 0,
                rejected: vec![Rejected {
                    reason: "line_too_long".into(),
                    lines: refused,
                }],
                lost: vec![Lost {
                    reason: "no_space".into(),
                    lines: lost,
                    bytes: 10 * lost,
                }],
                gap_count: gaps,
                gaps: Vec::new(),
            }],
            warnings: Vec::new(),
        }
    }

    fn figures(totals: &Totals) -> (u64, u64, u64, u64) {
        let total = totals.total();
        let rejected = total.rejected().first().map_or(0, |rejected| rejected.lines);
        let lost = total.lost().unwrap_or_default();
        (rejected, lost.lines, lost.bytes, total.gaps().unwrap_or(0))
    }

    fn status(totals: &Totals) -> LogPipelineStatus {
        LogPipelineStatus {
            rejected: totals.total().rejected(),
            lost: totals.total().lost(),
            gap_count: totals.total().gaps(),
            ..LogPipelineStatus::default()
        }
    }

    #[test]
    fn a_node_that_leaves_takes_nothing_with_it_though_another_counts_on() {
        let mut totals = Totals::begin(&LogPipelineStatus::default());
        totals.take("n1", 1, &report(10, 2, 1));
        totals.take("n2", 2, &report(1, 0, 0));
        totals.all_spoke();
        assert_eq!(figures(&totals), (11, 2, 20, 1));
        totals.take("n2", 2, &report(5, 0, 1));
        assert_eq!(figures(&totals), (15, 2, 20, 2));
        // A new one adds, also one of the old name whose state was lost.
        totals.take("n1", 3, &report(4, 0, 0));
        totals.take("n3", 4, &report(2, 0, 0));
        assert_eq!(figures(&totals), (21, 2, 20, 2));
        totals.take("n3", 4, &report(2, 0, 0));
        assert_eq!(figures(&totals), (21, 2, 20, 2));
    }

    #[test]
    fn another_operator_goes_on_from_the_status() {
        let mut first = Totals::begin(&LogPipelineStatus::default());
        first.take("n1", 1, &report(10, 3, 1));
        first.take("n2", 2, &report(7, 0, 0));
        first.all_spoke();
        // While nobody led, n1 left and n2 counted on.
        let mut second = Totals::begin(&status(&first));
        second.take("n2", 2, &report(7, 0, 0));
        assert_eq!(figures(&second), (17, 3, 30, 1));
        second.all_spoke();
        second.take("n2", 2, &report(9, 0, 0));
        second.take("n3", 3, &report(1, 1, 1));
        assert_eq!(figures(&second), (20, 4, 40, 2));
    }

    #[test]
    fn growth_while_nobody_led_is_added() {
        let mut first = Totals::begin(&LogPipelineStatus::default());
        first.take("n1", 1, &report(10, 0, 0));
        let mut second = Totals::begin(&status(&first));
        second.take("n1", 1, &report(12, 0, 0));
        assert_eq!(figures(&second).0, 12);
    }
}
