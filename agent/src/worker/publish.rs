//! The worker's state in, its figures out.

use sluice_engine::report::Warning;

use super::Sink;
use super::core::Core;
use crate::status::figures::{Figures, PipelineFigures};

impl<S: Sink> Core<S> {
    /// What is known about the worker's progress.
    pub fn figures(&self) -> Figures {
        let mut figures = Figures {
            document: self.config.document.clone(),
            open_files: self
                .containers
                .values()
                .map(|container| container.chain.open_files() as u64)
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
                let total = self
                    .totals
                    .get(&(pipeline.uid.clone(), tenant.clone()))
                    .cloned()
                    .unwrap_or_default();
                found.outputs.insert(tenant.clone(), total);
            }
            figures.pipelines.insert(pipeline.name.clone(), found);
        }
        for cursor in self.cursors.values() {
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
        figures.warnings = self.warnings();
        figures
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
        if self.discovery.watcher.exhausted {
            warn(
                "WatchesExhausted",
                "No inotify watch is left on this node, so folders are listed every second: raise fs.inotify.max_user_watches or fs.inotify.max_user_instances.".to_owned(),
            );
        }
        let mut refused = self
            .containers
            .values()
            .filter(|container| container.chain.has_refused());
        if let Some(first) = refused.next() {
            warn(
                "LogFilesNotRead",
                format!(
                    "Log files of {} containers on this node cannot be read, such as of {}: the agent's log says which and why.",
                    1 + refused.count(),
                    first.key
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
        if let Some(error) = &self.discovery.unreadable {
            warn(
                "LogRootUnreadable",
                format!("{} cannot be read: {error}.", self.settings.log_root.display()),
            );
        }
        warnings
    }
}
