//! The node's log root and the spool of what is read through the API in, one view of both out.

use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use super::beneath::LogRoot;
use super::held::Budget;
use super::names::ContainerKey;
use super::watch::Watcher;
use super::{Discovery, Found};

/// Up to two roots; a container belongs to one of them by its folder's name.
#[derive(Debug)]
pub struct Roots {
    /// Kubelet's files, where the agent sees any.
    files: Option<Root>,
    /// What was read through the API.
    spool: Option<Root>,
    /// How many log files of both may be held open.
    budget: Budget,
}

#[derive(Debug)]
struct Root {
    path: PathBuf,
    discovery: Discovery,
    swept: bool,
}

impl Root {
    fn new(path: PathBuf, make: impl FnOnce(PathBuf) -> Discovery) -> Self {
        Self {
            discovery: make(path.clone()),
            path,
            swept: false,
        }
    }
}

impl Roots {
    /// Discovers below both; symbolic links below `files` may lead into `links`.
    pub fn new(files: Option<PathBuf>, links: &[PathBuf], spool: Option<PathBuf>) -> Self {
        let budget = Budget::of_process();
        Self {
            files: files
                .map(|path| Root::new(path, |path| Discovery::new(path, links.to_vec(), budget.clone()))),
            spool: spool.map(|path| Root::new(path, |path| Discovery::spool(path, budget.clone()))),
            budget,
        }
    }

    fn all(&self) -> impl Iterator<Item = &Root> {
        self.files.iter().chain(&self.spool)
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut Root> {
        self.files.iter_mut().chain(&mut self.spool)
    }

    /// Goes on as where the kernel has no watches left.
    pub fn without_watches(&mut self) {
        for root in self.all_mut() {
            root.discovery.watcher = Watcher::none();
            root.discovery.sweep_soon();
        }
    }

    /// What changed since the last turn. [`Found::Swept`] comes when everything of all roots has been listed.
    pub fn turn(&mut self, now: Instant) -> Vec<Found> {
        let mut found = Vec::new();
        let mut swept = false;
        for root in self.all_mut() {
            for one in root.discovery.turn(now) {
                if matches!(one, Found::Swept) {
                    root.swept = true;
                    swept = true;
                } else {
                    found.push(one);
                }
            }
        }
        if swept && self.all().all(|root| root.swept) {
            found.push(Found::Swept);
        }
        found
    }

    /// Lists one container's folder now.
    pub fn list(&mut self, key: &ContainerKey, found: &mut Vec<Found>) {
        if let Some(discovery) = self.of(key) {
            discovery.list(key, found);
        }
    }

    /// Whether a container's folder is certain to be gone: without its root nothing is certain.
    pub fn is_gone(&self, key: &ContainerKey) -> bool {
        let root = if key.is_spooled() {
            &self.spool
        } else {
            &self.files
        };
        root.as_ref().is_some_and(|root| {
            let path = root.path.join(&key.folder).join(&key.container);
            path.symlink_metadata()
                .is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
        })
    }

    /// What opens a container's files.
    pub fn root(&self, key: &ContainerKey) -> Option<&Arc<LogRoot>> {
        let root = if key.is_spooled() {
            &self.spool
        } else {
            &self.files
        };
        root.as_ref().map(|root| &root.discovery.root)
    }

    /// What watches a container's files.
    pub fn watcher(&mut self, key: &ContainerKey) -> Option<&mut Watcher> {
        self.of(key).map(|discovery| &mut discovery.watcher)
    }

    fn of(&mut self, key: &ContainerKey) -> Option<&mut Discovery> {
        let root = if key.is_spooled() {
            &mut self.spool
        } else {
            &mut self.files
        };
        root.as_mut().map(|root| &mut root.discovery)
    }

    /// When to come again at the latest.
    pub fn next_due(&self) -> Option<Instant> {
        self.all().filter_map(|root| root.discovery.next_due()).min()
    }

    /// The descriptors that tell of changes.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.all().filter_map(|root| root.discovery.watcher.descriptor())
    }

    /// How many log files may be held open.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Whether the process or the node has no descriptor left, as far as is known.
    pub fn is_starved(&self) -> bool {
        self.all().any(|root| root.discovery.root.is_starved())
    }

    /// Whether the kernel has no watch left.
    pub fn is_exhausted(&self) -> bool {
        self.all().any(|root| root.discovery.watcher.exhausted)
    }

    /// Roots that cannot be read, and why.
    pub fn unreadable(&self) -> impl Iterator<Item = (&PathBuf, &String)> {
        self.all()
            .filter_map(|root| Some((&root.path, root.discovery.unreadable.as_ref()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(found: &[Found]) -> Vec<String> {
        let name = |found: &Found| match found {
            Found::Listing(key, ..) => key.folder.clone(),
            Found::Grown(_) => "grown".to_owned(),
            Found::Gone(_) => "gone".to_owned(),
            Found::Swept => "swept".to_owned(),
        };
        found.iter().map(name).collect()
    }

    #[test]
    fn each_root_gives_only_what_belongs_there_and_both_are_swept_together() {
        let dir = tempfile::tempdir().unwrap();
        let (files, spool) = (dir.path().join("pods"), dir.path().join("follow"));
        for root in [&files, &spool] {
            std::fs::create_dir_all(root.join("a_b_c/main")).unwrap();
            std::fs::create_dir_all(root.join("a_b_c_p/main")).unwrap();
        }
        let hidden = dir.path().join("hidden");
        std::fs::rename(&spool, &hidden).unwrap();
        let mut roots = Roots::new(Some(files), &[], Some(spool.clone()));
        let now = Instant::now();
        assert_eq!(
            names(&roots.turn(now)),
            ["a_b_c"],
            "the other root is not listed yet"
        );
        assert_eq!(roots.unreadable().count(), 1);
        std::fs::rename(&hidden, &spool).unwrap();
        let later = now + std::time::Duration::from_secs(1);
        assert_eq!(names(&roots.turn(later)), ["a_b_c_p", "swept"]);
        let key = |folder: &str| ContainerKey {
            folder: folder.to_owned(),
            container: "main".to_owned(),
        };
        assert!(!roots.is_gone(&key("a_b_c_p")) && roots.is_gone(&key("a_b_c_q")));
        assert!(!Roots::new(None, &[], Some(spool)).is_gone(&key("a_b_x")));
    }
}
