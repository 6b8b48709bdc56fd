//! Agents' reports in, one shared copy of each out: a thousand agents that say the same of a thousand pipelines
//! cost a thousand reports, and a pointer per agent and pipeline.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use sluice_engine::key::Key;
use sluice_engine::report::{PipelineReport, TenantReport};

/// A report about an object.
pub trait Named {
    /// The object.
    fn name(&self) -> &Key;
}

impl Named for PipelineReport {
    fn name(&self) -> &Key {
        &self.name
    }
}

impl Named for TenantReport {
    fn name(&self) -> &Key {
        &self.name
    }
}

/// One agent's reports, sorted by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reports<T>(Vec<Arc<T>>);

impl<T> Default for Reports<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Named + Eq> Reports<T> {
    /// The report about an object.
    pub fn get(&self, key: &Key) -> Option<&T> {
        let found = self.place(key).ok()?;
        self.0.get(found).map(Arc::as_ref)
    }

    /// Adds a report, in place of an older one about the same object.
    pub fn insert(&mut self, report: Arc<T>) {
        match self.place(report.name()) {
            Ok(found) => {
                if let Some(old) = self.0.get_mut(found) {
                    *old = report;
                }
            }
            Err(place) => self.0.insert(place, report),
        }
    }

    /// Takes the report about an object away.
    pub fn remove(&mut self, key: &Key) {
        if let Ok(found) = self.place(key) {
            self.0.remove(found);
        }
    }

    /// Objects about which two agents, or one at two times, say different things.
    pub fn differences<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a Key> {
        let unlike = |(mine, theirs): (&'a Self, &'a Self)| {
            let reports = mine.0.iter();
            reports
                .filter(|report| theirs.get(report.name()) != Some(report.as_ref()))
                .map(|report| report.name())
        };
        unlike((self, other)).chain(unlike((other, self)))
    }

    fn place(&self, key: &Key) -> Result<usize, usize> {
        self.0.binary_search_by(|report| report.name().cmp(key))
    }
}

impl<T: Named + Eq> FromIterator<T> for Reports<T> {
    fn from_iter<I: IntoIterator<Item = T>>(reports: I) -> Self {
        let mut all = Self::default();
        for report in reports {
            all.insert(Arc::new(report));
        }
        all
    }
}

/// Every report that is in use, to be shared by those who say the same.
#[derive(Debug)]
pub struct Pool<T>(Mutex<Known<T>>);

#[derive(Debug)]
struct Known<T> {
    reports: BTreeMap<Key, Vec<Weak<T>>>,
    /// Reports that were added since those that nobody uses were last thrown away.
    added: usize,
    /// How many may be added before that is done again.
    most: usize,
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self(Mutex::new(Known {
            reports: BTreeMap::new(),
            added: 0,
            most: 1024,
        }))
    }
}

impl<T: Named + Eq> Pool<T> {
    /// The copy that is shared by all who say this.
    pub fn share(&self, report: T) -> Arc<T> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(alike) = known.reports.get(report.name()) {
            let found = alike
                .iter()
                .filter_map(Weak::upgrade)
                .find(|other| **other == report);
            if let Some(found) = found {
                return found;
            }
        }
        if known.added >= known.most {
            known.sweep();
        }
        known.added += 1;
        let report = Arc::new(report);
        let alike = known.reports.entry(report.name().clone()).or_default();
        alike.retain(|other| other.strong_count() > 0);
        alike.push(Arc::downgrade(&report));
        report
    }
}

impl<T> Known<T> {
    /// Deleted objects are not spoken of again, so their reports go here.
    fn sweep(&mut self) {
        self.reports.retain(|_, alike| {
            alike.retain(|report| report.strong_count() > 0);
            !alike.is_empty()
        });
        self.added = 0;
        self.most = self.reports.values().map(Vec::len).sum::<usize>().max(1024);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_engine::report::OutputReport;

    fn report(pipeline: usize, containers: u32) -> PipelineReport {
        PipelineReport {
            name: Key::new(format!("team-{}", pipeline % 50), format!("pipeline-{pipeline}")),
            uid: format!("{pipeline:036}"),
            hash: format!("{pipeline:032}"),
            generation: 1,
            refused: None,
            containers,
            unread: None,
            outputs: vec![OutputReport {
                tenant: Key::new("logging", "ops"),
                lag_seconds: 0,
                rejected: Vec::new(),
                lost: Vec::new(),
                gap_count: 0,
                gaps: Vec::new(),
            }],
            warnings: Vec::new(),
        }
    }

    /// DESIGN 6: 1,000 pipelines on 1,000 nodes in 256 MiB. One such report takes about 400 bytes.
    #[test]
    fn a_thousand_agents_that_say_the_same_cost_a_pointer_each() {
        let pool = Pool::default();
        let agents: Vec<Reports<PipelineReport>> = (0..50)
            .map(|agent| {
                let mut reports = Reports::default();
                for pipeline in 0..1_000 {
                    reports.insert(pool.share(report(pipeline, agent % 4)));
                }
                reports
            })
            .collect();
        let mut distinct: Vec<_> = agents
            .iter()
            .flat_map(|agent| &agent.0)
            .map(Arc::as_ptr)
            .collect();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), 4_000, "one copy per thing that is said");
        let pointers: usize = agents
            .iter()
            .map(|agent| agent.0.capacity() * size_of::<usize>())
            .sum();
        let per_agent = pointers / agents.len();
        assert!(per_agent <= 8 * 1_024, "{per_agent} bytes per agent");
        // the poll and the snapshot hold one list each
        let bytes = 2 * 1_000 * per_agent + distinct.len() * 500;
        assert!(bytes < 20 << 20, "{bytes} bytes for a thousand agents");
    }

    #[test]
    fn what_nobody_says_any_more_is_forgotten() {
        let pool = Pool::default();
        for pipeline in 0..5_000 {
            drop(pool.share(report(pipeline, 0)));
        }
        assert!(pool.0.lock().unwrap().reports.len() <= 1_025);
    }

    #[test]
    fn differences_are_what_one_of_two_does_not_say() {
        let one: Reports<_> = [report(1, 0), report(2, 0), report(3, 0)].into_iter().collect();
        let mut other = one.clone();
        other.insert(Arc::new(report(2, 1)));
        other.remove(&report(3, 0).name);
        other.insert(Arc::new(report(4, 0)));
        let mut names: Vec<_> = one.differences(&other).map(|key| key.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names, ["pipeline-2", "pipeline-3", "pipeline-4"]);
        assert_eq!(one.differences(&one).count(), 0);
    }
}
