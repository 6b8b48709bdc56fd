//! A document's file in, what is in force out, without a cluster.
//!
//! The file is read again when it changes and on SIGHUP, and so is the folder of credentials. At the start
//! every error ends the process; later the last good content stays, pipeline by pipeline.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sluice_engine::document::{Document, Pipeline, ReadFrom, Refused, content_hash};
use sluice_engine::validate;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::InForce;
use super::credentials::Store;
use super::fetch::MAX_DOCUMENT_BYTES;
use super::merge::Merged;

/// How often the files are looked at.
const POLL: Duration = Duration::from_secs(2);

/// Where a configuration without a cluster comes from.
#[derive(Debug)]
pub struct Files {
    document: PathBuf,
    credentials_dir: PathBuf,
    merged: Merged,
    credentials: Store,
    seen: Vec<Stamp>,
}

/// What tells that a file changed: name, modification time, inode, length.
type Stamp = (PathBuf, i64, i64, u64, u64);

impl Files {
    /// Reads both for the first time.
    ///
    /// # Errors
    /// One line that names everything that is wrong with the document.
    pub fn open(document: PathBuf, credentials_dir: PathBuf) -> Result<Self, String> {
        let seen = stamps(&document, &credentials_dir);
        let (hash, content, refused) = read(&document)?;
        let errors = errors_of(&content, &refused);
        if !errors.is_empty() {
            return Err(errors.join("; "));
        }
        let mut files = Self {
            document,
            credentials_dir,
            merged: Merged::default(),
            credentials: Store::default(),
            seen,
        };
        files.merged.apply(&hash, content, refused);
        if let Some((pipeline, error)) = files.merged.refused().first_key_value() {
            return Err(format!("pipeline {pipeline}: {error}"));
        }
        files.read_credentials();
        Ok(files)
    }

    /// What is in force.
    pub fn in_force(&self) -> InForce {
        self.merged.in_force(&self.credentials)
    }

    /// Follows the files and publishes what is in force; ends only with the process.
    pub async fn run(mut self, out: watch::Sender<Arc<InForce>>) {
        // Without the signal the poll finds every change all the same.
        let mut hangups = signal(SignalKind::hangup()).ok();
        loop {
            let forced = tokio::select! {
                () = tokio::time::sleep(POLL) => false,
                Some(()) = async { hangups.as_mut()?.recv().await } => true,
            };
            let seen = stamps(&self.document, &self.credentials_dir);
            if forced || seen != self.seen {
                self.seen = seen;
                self.reread();
                out.send_replace(Arc::new(self.in_force()));
            }
        }
    }

    fn reread(&mut self) {
        self.read_credentials();
        match read(&self.document) {
            Ok((hash, mut content, mut refused)) => {
                refuse_what_needs_pods(&mut content, &mut refused);
                for error in self.merged.apply(&hash, content, refused) {
                    tracing::warn!("{}: {error}", self.document.display());
                }
                for (pipeline, error) in self.merged.refused() {
                    tracing::warn!(
                        "{}: pipeline {pipeline} is refused: {error}",
                        self.document.display()
                    );
                }
                tracing::info!("{} is in force with hash {hash}", self.document.display());
            }
            Err(error) => tracing::warn!("{error}; what is in force stays"),
        }
    }

    fn read_credentials(&mut self) {
        match self.credentials.read_dir(&self.credentials_dir) {
            Ok(errors) => errors.iter().for_each(|error| tracing::warn!("{error}")),
            Err(error) => tracing::warn!("cannot read {}: {error}", self.credentials_dir.display()),
        }
    }
}

fn read(path: &Path) -> Result<(String, Document, Vec<Refused>), String> {
    let shown = path.display();
    let mut json = Vec::new();
    let file = fs::File::open(path).map_err(|error| format!("cannot open {shown}: {error}"))?;
    file.take(MAX_DOCUMENT_BYTES)
        .read_to_end(&mut json)
        .map_err(|error| format!("cannot read {shown}: {error}"))?;
    let (mut document, refused) = Document::read(&json).map_err(|error| format!("{shown}: {error}"))?;
    // Nobody writes hashes by hand, and the worker tells new content by them.
    document.pipelines.iter_mut().for_each(Pipeline::seal);
    document
        .tenants
        .iter_mut()
        .for_each(sluice_engine::document::Tenant::seal);
    Ok((content_hash(&json), document, refused))
}

/// Everything that is wrong with a document, for a start.
fn errors_of(document: &Document, refused: &[Refused]) -> Vec<String> {
    let mut errors: Vec<_> = refused
        .iter()
        .map(|refused| match &refused.name {
            Some(name) => format!("{} ({name}): {}", refused.path, refused.error),
            None => format!("{}: {}", refused.path, refused.error),
        })
        .collect();
    for pipeline in &document.pipelines {
        errors.extend(
            validate::pipeline(pipeline)
                .iter()
                .map(|v| format!("pipeline {}: {v}", pipeline.name)),
        );
        errors.extend(needs_pods(pipeline).map(|error| format!("pipeline {}: {error}", pipeline.name)));
    }
    for tenant in &document.tenants {
        errors.extend(
            validate::tenant(tenant)
                .iter()
                .map(|v| format!("tenant {}: {v}", tenant.name)),
        );
    }
    errors
}

/// The field of a pipeline that needs the pods' labels, which nobody knows without a cluster.
fn needs_pods(pipeline: &Pipeline) -> Option<String> {
    let remedy = "needs the pods' labels, which are not known without a cluster: remove it, and choose by \
                  pods.namespaces and pods.containers";
    let selector = &pipeline.pods.selector;
    if pipeline.pods.read_from == ReadFrom::Api {
        return Some("pods.readFrom: API needs a cluster: remove it, the node's files are read".to_owned());
    }
    let field = if !selector.match_labels.is_empty() {
        "pods.selector.matchLabels"
    } else if !selector.match_expressions.is_empty() {
        "pods.selector.matchExpressions"
    } else if !pipeline.labels.from_pod_labels.is_empty() {
        return Some(
            "labels.fromPodLabels: needs the pods' labels, which are not known without a cluster: \
                     remove it, or use labels.static"
                .to_owned(),
        );
    } else {
        return None;
    };
    Some(format!("{field}: {remedy}"))
}

fn refuse_what_needs_pods(document: &mut Document, refused: &mut Vec<Refused>) {
    document.pipelines.retain(|pipeline| match needs_pods(pipeline) {
        Some(error) => {
            let name = Some(pipeline.name.clone());
            refused.push(Refused {
                path: "pipelines".to_owned(),
                name,
                error,
            });
            false
        }
        None => true,
    });
}

fn stamps(document: &Path, credentials_dir: &Path) -> Vec<Stamp> {
    let files = fs::read_dir(credentials_dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    let mut stamps: Vec<_> = std::iter::once(document.to_owned())
        .chain(files)
        .filter_map(|path| {
            let known = fs::metadata(&path).ok()?;
            Some((path, known.mtime(), known.mtime_nsec(), known.ino(), known.len()))
        })
        .collect();
    stamps.sort();
    stamps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(selector: &str) -> String {
        format!(
            r#"{{"version": 1, "pipelines": [{{"name": "team/a", "uid": "u", "tenants": ["logging/ops"],
            "pods": {{"namespaces": [{{"name": "team"}}]{selector}}}}}],
            "tenants": [{{"name": "logging/ops", "uid": "t", "pushUrl": "http://loki/loki/api/v1/push"}}]}}"#
        )
    }

    fn open(dir: &Path, content: &str) -> Result<Files, String> {
        Files::open(write(dir, content), dir.join("credentials"))
    }

    fn write(dir: &Path, content: &str) -> PathBuf {
        let path = dir.join("document.json");
        fs::write(&path, content).unwrap();
        path
    }

    #[test]
    fn a_document_by_hand_is_sealed() {
        let dir = tempfile::tempdir().unwrap();
        let in_force = open(dir.path(), &document("")).unwrap().in_force();
        assert_eq!(in_force.document.len(), 32);
        assert_eq!(in_force.pipelines[0].hash.len(), 32);
        assert_eq!(in_force.tenants[0].tenant.hash.len(), 32);
    }

    #[test]
    fn pod_selectors_are_refused_and_the_message_names_pipeline_and_field() {
        let dir = tempfile::tempdir().unwrap();
        for (selector, field) in [
            (r#", "selector": {"matchLabels": {"app": "web"}}"#, "matchLabels"),
            (
                r#", "selector": {"matchExpressions": [{"key": "app", "operator": "Exists"}]}"#,
                "matchExpressions",
            ),
        ] {
            let error = open(dir.path(), &document(selector)).unwrap_err();
            assert!(
                error.starts_with(&format!("pipeline team/a: pods.selector.{field}: ")),
                "{error}"
            );
        }
    }

    #[test]
    fn reading_through_the_api_needs_a_cluster() {
        let dir = tempfile::tempdir().unwrap();
        let error = open(dir.path(), &document(r#", "readFrom": "API""#)).unwrap_err();
        assert!(error.starts_with("pipeline team/a: pods.readFrom: "), "{error}");
    }

    #[test]
    fn all_errors_are_named_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let broken = document("")
            .replace("http://loki/loki/api/v1/push", "loki")
            .replace("logging/ops\"]", "x\"]");
        let error = open(dir.path(), &broken).unwrap_err();
        assert!(
            error.contains("pipelines[0] (team/a): ") && error.contains("tenant logging/ops: pushUrl"),
            "{error}"
        );
        assert!(open(dir.path(), "{").unwrap_err().contains("document.json"));
        let dangling = document("").replace("logging/ops\"]", "logging/other\"]");
        assert!(open(dir.path(), &dangling).unwrap_err().contains("logging/other"));
    }

    #[test]
    fn later_errors_leave_the_last_good_content() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = open(dir.path(), &document("")).unwrap();
        let before = files.in_force();
        fs::write(
            dir.path().join("document.json"),
            document(r#", "selector": {"matchLabels": {"a": "b"}}"#),
        )
        .unwrap();
        assert_ne!(files.seen, stamps(&files.document, &files.credentials_dir));
        files.reread();
        let after = files.in_force();
        assert_eq!(before.pipelines, after.pipelines);
        assert!(after.refused[0].1.starts_with("pods.selector.matchLabels"));
        fs::write(dir.path().join("document.json"), "{").unwrap();
        files.reread();
        assert_eq!(before.pipelines, files.in_force().pipelines);
    }
}
