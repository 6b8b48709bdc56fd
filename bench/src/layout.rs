//! A log root in, the containers' files in the kubelet's layout out: `<namespace>_<pod>_<uid>/<container>/0.log`.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// Namespace of every pod that `lines` writes for.
pub const NAMESPACE: &str = "bench";

/// One container's log file and what its path tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// Name of the container.
    pub container: String,
    /// The log file.
    pub file: PathBuf,
}

/// Path of the log file of the pod with this number.
pub fn log_file(root: &Path, number: usize) -> PathBuf {
    root.join(format!(
        "{NAMESPACE}_web-{number}_00000000-0000-4000-8000-{number:012}"
    ))
    .join("main")
    .join("0.log")
}

/// Every container with a log file below a root, in the order of their names.
///
/// # Errors
/// When a folder cannot be read or is not named as the kubelet names them.
pub fn containers(root: &Path) -> io::Result<Vec<Container>> {
    let mut found = Vec::new();
    for folder in children(root)? {
        let name = file_name(&folder);
        let (namespace, pod) = name
            .split_once('_')
            .and_then(|(namespace, rest)| Some((namespace, rest.split_once('_')?.0)))
            .ok_or_else(|| io::Error::other(format!("{name} is not <namespace>_<pod>_<uid>")))?;
        for container in children(&folder)? {
            found.push(Container {
                namespace: namespace.to_owned(),
                pod: pod.to_owned(),
                container: file_name(&container),
                file: container.join("0.log"),
            });
        }
    }
    found.sort_by(|a, b| a.file.cmp(&b.file));
    Ok(found)
}

fn children(folder: &Path) -> io::Result<Vec<PathBuf>> {
    fs::read_dir(folder)?
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<_>>()
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_found() {
        let root = tempfile::tempdir().unwrap();
        let file = log_file(root.path(), 7);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        assert_eq!(
            containers(root.path()).unwrap(),
            [Container {
                namespace: NAMESPACE.into(),
                pod: "web-7".into(),
                container: "main".into(),
                file,
            }]
        );
    }
}
