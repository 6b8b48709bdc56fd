//! What reading through the API comes to: plain numbers, and what a person has to know of them. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use sluice_engine::report::Warning;

use crate::status::figures as worker;

/// A snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Containers that are read.
    pub containers: u64,
    /// Requests under way.
    pub streams: u64,
    /// Bytes in the spool.
    pub spool_bytes: u64,
    /// Containers that wait for room in it.
    pub full: u64,
    /// Containers that cannot be read, by class of trouble.
    pub troubled: BTreeMap<&'static str, u64>,
    /// Lines read since the process began.
    pub lines: u64,
    /// What is wrong.
    pub warnings: Vec<Warning>,
    /// Why containers cannot be read, by the UID of their pipeline.
    pub unread: BTreeMap<String, String>,
}

impl Figures {
    /// Counts a container of a pipeline that cannot be read, and tells the first of each pipeline.
    pub fn add_trouble(&mut self, pipeline: String, class: &'static str, container: &str, said: &str) {
        *self.troubled.entry(class).or_default() += 1;
        self.unread.entry(pipeline).or_insert_with(|| {
            let remedy = remedy(class);
            format!("{container} cannot be read through the API: {said}: {remedy}")
        });
    }

    /// Says what a person has to know. `shared`: how many requests are shared, in which turns. Every pipeline's author
    /// may read it: it names no container.
    pub fn warn(&mut self, shared: Option<(usize, Duration)>) {
        let mut warnings = Vec::new();
        let mut warn = |reason: &str, message: String| {
            warnings.push(Warning {
                reason: reason.to_owned(),
                message,
            });
        };
        let troubled: u64 = self.troubled.values().sum();
        if troubled > 0 {
            warn(
                Warning::API_READ_FAILING,
                format!(
                    "{troubled} containers on this node cannot be read through the API: the pipelines that read them say which and why."
                ),
            );
        }
        if self.full > 0 {
            warn(
                "SpoolFull",
                format!(
                    "{} containers on this node are not read on until what was read of them is delivered, or the file system of the state folder has 15 % free: what kubelet rotates meanwhile cannot be read through the API.",
                    self.full
                ),
            );
        }
        if let Some((streams, turn)) = shared {
            warn(
                "ApiStreamsShared",
                format!(
                    "{} containers on this node share {streams} requests for their logs, in turns of {} s: lines come later, and what kubelet rotates meanwhile cannot be read.",
                    self.containers,
                    turn.as_secs()
                ),
            );
        }
        self.warnings = warnings;
    }

    /// Adds what a person has to know to what the worker says.
    pub fn tell(&self, figures: &mut worker::Figures) {
        figures.warnings.extend(self.warnings.iter().cloned());
        for pipeline in figures.pipelines.values_mut() {
            pipeline.unread = self.unread.get(&pipeline.uid).cloned();
        }
    }
}

/// What to do about a class of trouble.
fn remedy(class: &str) -> &'static str {
    match class {
        "forbidden" => {
            "the operator binds sluice-agent-podlogs in each namespace that a pipeline reads through the API: look at its log"
        }
        "spool" => "free or mend the file system of the agent's state folder",
        _ => "look at kubelet and at the API server's connection to it",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::figures::PipelineFigures;
    use sluice_engine::key::Key;

    #[test]
    fn trouble_is_told_of_the_pipeline_that_has_it() {
        let mut figures = Figures::default();
        figures.add_trouble("p".into(), "forbidden", "a/web/main", "pods is forbidden");
        figures.add_trouble("p".into(), "no_log", "a/web/side", "kubelet has no log of it");
        figures.warn(None);
        let pipeline = |uid: &str| PipelineFigures {
            uid: uid.into(),
            ..PipelineFigures::default()
        };
        let mut told = worker::Figures {
            pipelines: BTreeMap::from([
                (Key::new("a", "p"), pipeline("p")),
                (Key::new("a", "q"), pipeline("q")),
            ]),
            ..worker::Figures::default()
        };
        figures.tell(&mut told);
        let unread: Vec<_> = told.pipelines.values().map(|one| one.unread.as_deref()).collect();
        let first = "a/web/main cannot be read through the API: pods is forbidden: the operator binds";
        assert!(unread[0].unwrap().starts_with(first) && unread[1].is_none());
        assert_eq!(told.warnings.len(), 1);
        let all = &told.warnings[0].message;
        assert!(all.starts_with("2 containers") && !all.contains("web"), "{all}");
    }
}
