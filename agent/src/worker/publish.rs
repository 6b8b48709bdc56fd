//! The worker's state in, its figures out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sluice_engine::key::Key;
use sluice_engine::labels::Curtailed;
use sluice_engine::report::{GAPS, Warning};

use super::Sink;
use super::core::Core;
use crate::checkpoint::record::Output;
use crate::discover::names::ContainerKey;
use crate::status::figures::{Figures, OutputFigures, PipelineFigures, SpoolPlace};

impl<S: Sink> Core<S> {
    /// What is known about the worker's progress.
    pub fn figures(&self) -> Figures {
        let mut figures = Figures {
            epoch: self.journal.ledger().epoch,
            document: self.config.document.clone(),
            open_files: self
                .containers
                .values()
                .map(|container| container.chain.open_files() as u64)
                .sum(),
            spilled_bytes: self
                .containers
                .values()
                .map(|container| container.chain.spilled_bytes())
                .sum(),
            pool_bytes: self.sink.held_bytes(),
            ..self.figures.clone()
        };
        for pipeline in &self.config.pipelines {
            let mut found = PipelineFigures {
                uid: pipeline.uid.clone(),
                hash: pipeline.hash.clone(),
                generation: pipeline.generation,
                ..PipelineFigures::default()
            };
            for tenant in &pipeline.tenants {
                found
                    .outputs
                    .insert(tenant.clone(), self.counted(&pipeline.uid, tenant));
            }
            figures.pipelines.insert(pipeline.name.clone(), found);
        }
        let mut curtailed: BTreeMap<(&Key, &Key), Curtailed> = BTreeMap::new();
        for cursor in self.cursors.values() {
            if let Some(choice) = cursor.outlet.choices.last()
                && !choice.chosen.curtailed.is_empty()
            {
                let all = curtailed.entry((&cursor.pipeline.name, &*cursor.tenant));
                all.or_default().merge(&choice.chosen.curtailed);
            }
            let Some(pipeline) = figures.pipelines.get_mut(&cursor.pipeline.name) else {
                continue;
            };
            // Each container once, however many tenants get it.
            pipeline.containers += u32::from(cursor.pipeline.tenants.first() == Some(&*cursor.tenant));
            if let Some(output) = pipeline.outputs.get_mut(&*cursor.tenant)
                && let Some(oldest) = cursor.oldest()
            {
                let oldest = oldest.seconds;
                output.oldest_unacknowledged =
                    Some(output.oldest_unacknowledged.map_or(oldest, |o| o.min(oldest)));
            }
        }
        // A gap whose end is not known yet is one all the same.
        for cursor in self.cursors.values() {
            if let Some(gap) = &cursor.gap
                && let Some(pipeline) = figures.pipelines.get_mut(&cursor.pipeline.name)
                && let Some(output) = pipeline.outputs.get_mut(&*cursor.tenant)
            {
                output.gap_count += 1;
                output.gaps.insert(0, gap.clone());
                output.gaps.truncate(GAPS);
            }
        }
        figures.spooled = self.spooled();
        for ((pipeline, tenant), what) in curtailed {
            if let Some(found) = figures.pipelines.get_mut(pipeline) {
                found.warnings.push(Warning {
                    reason: Warning::LABELS_CURTAILED.to_owned(),
                    message: format!(
                        "The limits of LokiTenant {tenant} do not let every label through: {what}. Choose fewer or shorter labels, or raise spec.limits.maxLabelNames, maxLabelValueBytes or structuredMetadata with Loki's own limits."
                    ),
                });
            }
        }
        self.warn_of_unreadable(&mut figures);
        figures.warnings = self.warnings();
        figures
    }

    /// Tells each pipeline of how many of its containers not all files can be read, and the first of them.
    fn warn_of_unreadable(&self, figures: &mut Figures) {
        let mut found: BTreeMap<&Key, (usize, String)> = BTreeMap::new();
        for container in self.containers.values().filter(|one| one.chain.has_refused()) {
            let cursors = container.cursors.iter().filter_map(|id| self.cursors.get(id));
            let readers: BTreeSet<&Key> = cursors.map(|cursor| &cursor.pipeline.name).collect();
            let (pod, name) = (&container.pod, &container.key.container);
            for reader in readers {
                let first = || (0, format!("{}/{}/{name}", pod.namespace, pod.pod));
                found.entry(reader).or_insert_with(first).0 += 1;
            }
        }
        for (pipeline, (containers, first)) in found {
            if let Some(pipeline) = figures.pipelines.get_mut(pipeline) {
                pipeline.warnings.push(Warning {
                    reason: Warning::LOG_FILES_NOT_READ.to_owned(),
                    message: format!(
                        "Log files of {containers} containers cannot be read, such as of {first}: the agent's log says which and why."
                    ),
                });
            }
        }
    }

    /// What was counted of one output.
    fn counted(&self, pipeline: &str, tenant: &Key) -> OutputFigures {
        let delivered = self.delivered.get(&(pipeline.to_owned(), tenant.clone()));
        let (delivered_lines, delivered_bytes) = delivered.copied().unwrap_or_default();
        let mut figures = OutputFigures {
            delivered_lines,
            delivered_bytes,
            ..OutputFigures::default()
        };
        let output = Output {
            pipeline: pipeline.to_owned(),
            tenant: tenant.to_string(),
        };
        if let Some(counts) = self.journal.ledger().counts.get(&output) {
            figures.rejected.clone_from(&counts.rejected);
            figures.lost.clone_from(&counts.lost);
            figures.gap_count = counts.gap_count;
            figures.gaps = counts.gaps.iter().rev().cloned().collect();
        }
        figures
    }

    /// Up to where everything is journaled of each container that is read through the API and delivered to
    /// somebody.
    fn spooled(&self) -> BTreeMap<Arc<ContainerKey>, Option<SpoolPlace>> {
        let read = self
            .containers
            .iter()
            .filter(|(key, container)| key.is_spooled() && !container.cursors.is_empty());
        read.map(|(key, container)| {
            let cursors = container.cursors.iter().filter_map(|id| self.cursors.get(id));
            // One that has journaled nothing comes first.
            let oldest = cursors
                .map(|cursor| cursor.journaled.map(|mark| mark.position))
                .min();
            let place = oldest.flatten().and_then(|position| {
                let name = container.chain.name(position.generation)?;
                Some(SpoolPlace {
                    name: name.to_string(),
                    offset: position.offset,
                })
            });
            (Arc::clone(key), place)
        })
        .collect()
    }

    /// What is wrong with the agent itself.
    fn warnings(&self) -> Vec<Warning> {
        let mut warnings = Vec::new();
        let mut warn = |reason: &str, message: String| {
            warnings.push(Warning {
                reason: reason.to_owned(),
                message,
            });
        };
        if self.discovery.is_exhausted() {
            warn(
                "WatchesExhausted",
                "No inotify watch is left on this node, so folders are listed every second: raise fs.inotify.max_user_watches or fs.inotify.max_user_instances.".to_owned(),
            );
        }
        let budget = self.discovery.budget();
        if budget.is_spent() || self.discovery.is_starved() {
            warn(
                "DescriptorsExhausted",
                format!(
                    "The agent may hold {} log files open at a time and needs more: the others are opened for each read, and one that is deleted before it was read is lost. Raise the hard limit of open files (LimitNOFILE) of the node's container runtime, or the node's fs.file-max.",
                    budget.limit()
                ),
            );
        }
        let containers = self.containers.values();
        let refused = containers
            .filter(|container| container.chain.has_refused())
            .count();
        if refused > 0 {
            // Every pipeline's author may read this: which they are is for those who read them.
            warn(
                Warning::LOG_FILES_NOT_READ,
                format!(
                    "Log files of {refused} containers on this node cannot be read: the agent's log says which and why."
                ),
            );
        }
        if let Some(error) = &self.journal.failure {
            warn(
                "CheckpointNotWritable",
                format!(
                    "Positions cannot be written to {}: {error}. Lines are sent, and sent again after a restart.",
                    self.settings.state_dir.display()
                ),
            );
        }
        if let Some((why, _)) = &self.spilling.stopped {
            warn(
                "SpillStopped",
                format!(
                    "Log files that vanish before Loki has taken them are not copied to {}: {why}. They are held open while their own file system has 15 % free, then given up and counted as lost: free space, or let the tenant take its lines.",
                    self.settings.state_dir.display()
                ),
            );
        }
        if let Some(aside) = &self.journal.set_aside {
            warn(
                "CheckpointDamaged",
                format!(
                    "The journal of positions was damaged and is now {}: what is on disk of containers that it no longer told of was sent from its beginning. Check the disk.",
                    aside.display()
                ),
            );
        }
        for (root, error) in self.discovery.unreadable() {
            warn(
                Warning::LOG_ROOT_UNREADABLE,
                format!("{} cannot be read: {error}.", root.display()),
            );
        }
        warnings
    }
}
