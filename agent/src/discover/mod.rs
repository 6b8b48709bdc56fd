//! The log root in, containers and their files out.
//!
//! Folders are watched. Those with more than one file are listed every 10 s, since an older one may have grown; since
//! watches can be missed the root is too, and every five minutes all are; every second while watches or descriptors are short.

pub mod beneath;
pub mod held;
pub mod names;
pub mod roots;
pub mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use inotify::WatchDescriptor;

use beneath::LogRoot;
use held::Budget;
use names::{ContainerKey, LogName, PodFolder};
use watch::{Target, Watcher};

const SWEEP: Duration = Duration::from_secs(10);
const SWEEP_WHEN_POOR: Duration = Duration::from_secs(1);
/// One of so many sweeps lists what is watched and has nothing that grows unseen, too.
const WHOLE: u32 = 30;

/// What the log root has, or has no more.
#[derive(Debug)]
pub enum Found {
    /// A container's folder, listed just now, oldest file first.
    Listing(Arc<ContainerKey>, Vec<LogName>),
    /// A file of the container grew after it had been idle.
    Grown(Arc<ContainerKey>),
    /// The container's folder is gone.
    Gone(Arc<ContainerKey>),
    /// Everything there was has been listed.
    Swept,
}

/// The folders known.
#[derive(Debug)]
pub struct Discovery {
    /// Opens what is found.
    pub root: Arc<LogRoot>,
    /// Tells of changes.
    pub watcher: Watcher,
    root_watch: Option<WatchDescriptor>,
    pods: BTreeMap<String, Pod>,
    ignored: BTreeSet<String>,
    next_sweep: Option<Instant>,
    /// Sweeps that passed over what was unchanged, since the last one that did not.
    partial: u32,
    /// The log root cannot be read, and why.
    pub unreadable: Option<String>,
    /// Its folders are for one pipeline each.
    spool: bool,
}

#[derive(Debug, Default)]
struct Pod {
    watch: Option<WatchDescriptor>,
    containers: BTreeMap<String, Container>,
}

#[derive(Debug)]
struct Container {
    key: Arc<ContainerKey>,
    watch: Option<WatchDescriptor>,
    /// It has more than one file, or could not be listed.
    unsettled: bool,
}

/// Which of the folders that are known already are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// None.
    Skip,
    /// Those that may have changed unseen.
    Unsettled,
    /// All.
    All,
}

impl Discovery {
    /// Discovers below `root`; symbolic links may lead into `links`, and `budget` says how many files may be held.
    pub fn new(root: PathBuf, links: Vec<PathBuf>, budget: Budget) -> Self {
        Self {
            root: Arc::new(LogRoot::new(root, links).with_budget(budget)),
            watcher: Watcher::begin(),
            root_watch: None,
            pods: BTreeMap::new(),
            ignored: BTreeSet::new(),
            next_sweep: None,
            partial: 0,
            unreadable: None,
            spool: false,
        }
    }

    /// Discovers what was read through the API; no link leads out of there.
    pub fn spool(root: PathBuf, budget: Budget) -> Self {
        Self {
            spool: true,
            ..Self::new(root, Vec::new(), budget)
        }
    }

    /// When to come again at the latest.
    pub fn next_due(&self) -> Option<Instant> {
        self.next_sweep
    }

    /// Lists everything at the next turn.
    pub fn sweep_soon(&mut self) {
        self.next_sweep = None;
    }

    /// What changed since the last turn.
    pub fn turn(&mut self, now: Instant) -> Vec<Found> {
        let mut found = Vec::new();
        let mut changed = Vec::new();
        let overflow = self.watcher.changes(&mut changed);
        let due = overflow || self.next_sweep.is_none_or(|due| due <= now);
        let doubtful = overflow || self.next_sweep.is_none() || self.unreadable.is_some() || self.is_poor();
        let whole = due && (doubtful || self.partial + 1 >= WHOLE);
        if due {
            self.watcher.begin_again();
            self.root.take_starved();
            self.partial = if whole { 0 } else { self.partial + 1 };
            let known = if whole { Known::All } else { Known::Unsettled };
            if self.list_root(&mut found, known) {
                found.push(Found::Swept);
            }
            let poor = self.is_poor() || self.unreadable.is_some();
            let pause = if poor { SWEEP_WHEN_POOR } else { SWEEP };
            self.next_sweep = Some(now + pause);
        }
        if !whole {
            let mut seen: Vec<Target> = Vec::new();
            for target in changed {
                if !seen.contains(&target) {
                    self.change(&target, &mut found);
                    seen.push(target);
                }
            }
            // The sweep that lists in place of watches must not wait for the last one's pause.
            if self.is_poor() {
                self.next_sweep = self.next_sweep.map(|due| due.min(now + SWEEP_WHEN_POOR));
            }
        }
        found
    }

    /// Whether watches or descriptors ran out, so that folders have to be listed often.
    fn is_poor(&self) -> bool {
        self.watcher.exhausted || self.root.is_starved()
    }

    /// Lists one container's folder now.
    pub fn list(&mut self, key: &ContainerKey, found: &mut Vec<Found>) {
        if let Ok(root) = self.root.open() {
            self.list_container(&root, &key.folder, &key.container, found);
        }
    }

    fn change(&mut self, target: &Target, found: &mut Vec<Found>) {
        match target {
            Target::File(key) => found.push(Found::Grown(Arc::clone(key))),
            Target::Root => {
                self.list_root(found, Known::Skip);
            }
            Target::Pod(folder) => {
                if let Ok(root) = self.root.open() {
                    self.list_pod(&root, folder, found, Known::Skip);
                }
            }
            Target::Container(key) => self.list(key, found),
        }
    }

    /// Lists the root, what is new in it and what of the rest is asked for; false when it cannot be read, which says
    /// nothing of the pods.
    fn list_root(&mut self, found: &mut Vec<Found>, known: Known) -> bool {
        let listed = self.root.open().and_then(|root| {
            // Again on each listing, since it may be another folder of the same name; so with pods. The kernel
            // knows a folder that it watches already.
            renew(&mut self.watcher, &mut self.root_watch, &root, Target::Root);
            Ok((self.root.list(&root)?, root))
        });
        let (names, root) = match listed {
            Ok(listed) => listed,
            Err(error) => {
                if self.unreadable.is_none() {
                    tracing::warn!(%error, "the log root cannot be read");
                }
                self.unreadable = Some(error.to_string());
                self.root_watch = None;
                return false;
            }
        };
        self.unreadable = None;
        let names: BTreeSet<String> = names.into_iter().collect();
        self.ignored.retain(|name| names.contains(name));
        for folder in self
            .pods
            .keys()
            .filter(|folder| !names.contains(*folder))
            .cloned()
            .collect::<Vec<_>>()
        {
            self.pod_gone(&folder, found);
        }
        for folder in names {
            if PodFolder::parse(&folder).is_none_or(|pod| pod.reader.is_some() != self.spool) {
                if self.ignored.insert(folder.clone()) {
                    tracing::debug!(folder, "no pod's folder, ignored");
                }
            } else if known != Known::Skip || !self.pods.contains_key(&folder) {
                self.list_pod(&root, &folder, found, known);
            }
        }
        true
    }

    fn list_pod(&mut self, root: &OwnedFd, folder: &str, found: &mut Vec<Found>, known: Known) {
        if known == Known::Unsettled
            && let Some(pod) = self.pods.get(folder).filter(|pod| pod.watch.is_some())
        {
            let containers = pod.containers.iter();
            let unsettled = containers.filter(|(_, found)| found.unsettled || found.watch.is_none());
            for name in unsettled.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
                self.list_container(root, folder, &name, found);
            }
            return;
        }
        let opened = match self.root.folder(root, folder) {
            Ok(opened) => opened,
            Err(error) => {
                // Gone, or no folder: a file's or link's name may look like a pod's.
                tracing::debug!(folder, %error, "not listed");
                if error.kind() == std::io::ErrorKind::NotFound {
                    self.pod_gone(folder, found);
                }
                return;
            }
        };
        let pod = self.pods.entry(folder.to_owned()).or_default();
        renew(
            &mut self.watcher,
            &mut pod.watch,
            &opened,
            Target::Pod(folder.to_owned()),
        );
        let Ok(names) = self.root.list(&opened) else {
            return;
        };
        let gone: Vec<String> = pod
            .containers
            .keys()
            .filter(|name| !names.contains(name))
            .cloned()
            .collect();
        let pass_over = |name: &String| known == Known::Skip && pod.containers.contains_key(name);
        let listed: Vec<String> = names.into_iter().filter(|name| !pass_over(name)).collect();
        for name in gone {
            self.container_gone(folder, &name, found);
        }
        for name in listed {
            self.list_container(root, folder, &name, found);
        }
    }

    fn list_container(&mut self, root: &OwnedFd, folder: &str, name: &str, found: &mut Vec<Found>) {
        let path = format!("{folder}/{name}");
        let opened = match self.root.folder(root, &path) {
            Ok(opened) => opened,
            Err(error) => {
                tracing::debug!(folder, container = name, %error, "not listed");
                if error.kind() == std::io::ErrorKind::NotFound {
                    self.container_gone(folder, name, found);
                }
                return;
            }
        };
        let Some(pod) = self.pods.get_mut(folder) else {
            return;
        };
        let container = pod
            .containers
            .entry(name.to_owned())
            .or_insert_with(|| Container {
                key: Arc::new(ContainerKey {
                    folder: folder.to_owned(),
                    container: name.to_owned(),
                }),
                watch: None,
                unsettled: true,
            });
        // Before the listing, so that nothing falls between.
        let target = Target::Container(Arc::clone(&container.key));
        renew(&mut self.watcher, &mut container.watch, &opened, target);
        let Ok(names) = self.root.log_names(&opened) else {
            container.unsettled = true;
            return;
        };
        container.unsettled = names.len() > 1;
        found.push(Found::Listing(Arc::clone(&container.key), names));
    }

    fn pod_gone(&mut self, folder: &str, found: &mut Vec<Found>) {
        let Some(pod) = self.pods.remove(folder) else {
            return;
        };
        for container in pod.containers.into_values() {
            if let Some(watch) = container.watch {
                self.watcher.remove(watch);
            }
            found.push(Found::Gone(container.key));
        }
        if let Some(watch) = pod.watch {
            self.watcher.remove(watch);
        }
    }

    fn container_gone(&mut self, folder: &str, name: &str, found: &mut Vec<Found>) {
        let Some(container) = self
            .pods
            .get_mut(folder)
            .and_then(|pod| pod.containers.remove(name))
        else {
            return;
        };
        if let Some(watch) = container.watch {
            self.watcher.remove(watch);
        }
        found.push(Found::Gone(container.key));
    }
}

/// Watches a folder, and no longer the one that had its name before.
fn renew(watcher: &mut Watcher, watch: &mut Option<WatchDescriptor>, folder: &OwnedFd, target: Target) {
    let fresh = watcher.folder(folder, target);
    if *watch != fresh
        && let Some(old) = std::mem::replace(watch, fresh)
    {
        watcher.remove(old);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listings(found: &[Found]) -> Vec<(String, usize)> {
        let listing = |found: &Found| match found {
            Found::Listing(key, names) => Some((key.container.clone(), names.len())),
            Found::Grown(_) | Found::Gone(_) | Found::Swept => None,
        };
        found.iter().filter_map(listing).collect()
    }

    #[test]
    fn watches_tell_at_once_of_pods_containers_and_files() {
        let dir = tempfile::tempdir().unwrap();
        let mut discovery = Discovery::new(dir.path().to_owned(), Vec::new(), Budget::of_process());
        let now = Instant::now();
        assert!(matches!(discovery.turn(now)[..], [Found::Swept]));
        let pod = dir.path().join("a_b_c");
        std::fs::create_dir(&pod).unwrap();
        assert!(discovery.turn(now).is_empty());
        std::fs::create_dir(pod.join("main")).unwrap();
        assert_eq!(listings(&discovery.turn(now)), [("main".to_owned(), 0)]);
        std::fs::write(pod.join("main/0.log"), "").unwrap();
        assert_eq!(listings(&discovery.turn(now)), [("main".to_owned(), 1)]);
        assert!(discovery.turn(now).is_empty());
        std::fs::remove_dir_all(&pod).unwrap();
        let found = discovery.turn(now);
        assert!(
            found
                .iter()
                .any(|found| matches!(found, Found::Gone(key) if key.container == "main"))
        );
        std::fs::create_dir_all(pod.join("main")).unwrap();
        std::fs::write(pod.join("main/0.log"), "").unwrap();
        assert_eq!(listings(&discovery.turn(now)), [("main".to_owned(), 1)]);
    }

    #[test]
    fn folders_in_which_nothing_grows_unseen_are_listed_seldom() {
        let dir = tempfile::tempdir().unwrap();
        let main = dir.path().join("a_b_c/main");
        std::fs::create_dir_all(&main).unwrap();
        std::fs::write(main.join("0.log"), "").unwrap();
        let mut discovery = Discovery::new(dir.path().to_owned(), Vec::new(), Budget::of_process());
        let begin = Instant::now();
        let mut sweep = |step: u32| {
            // What the watches told is forgotten.
            discovery.watcher.changes(&mut Vec::new());
            let found = discovery.turn(begin + step * SWEEP);
            assert!(matches!(found.last(), Some(Found::Swept)));
            listings(&found)
        };
        let main_with = |files: usize| vec![("main".to_owned(), files)];
        assert_eq!(sweep(0), main_with(1));
        assert!(sweep(1).is_empty());
        std::fs::write(main.join("0.log.20261120-175001"), "").unwrap();
        for step in 2..WHOLE {
            assert!(sweep(step).is_empty());
        }
        assert_eq!(sweep(WHOLE), main_with(2));
        assert_eq!(sweep(WHOLE + 1), main_with(2), "the older one may have grown");
        std::fs::remove_file(main.join("0.log.20261120-175001")).unwrap();
        assert_eq!(sweep(WHOLE + 2), main_with(1));
        assert!(sweep(WHOLE + 3).is_empty());
        // A new pod's folder is found by the root's listing.
        std::fs::create_dir_all(dir.path().join("a_d_e/other")).unwrap();
        assert_eq!(sweep(WHOLE + 4), [("other".to_owned(), 0)]);
    }

    #[test]
    fn without_watches_folders_are_listed_every_second() {
        let dir = tempfile::tempdir().unwrap();
        let mut discovery = Discovery::new(dir.path().to_owned(), Vec::new(), Budget::of_process());
        discovery.watcher = Watcher::none();
        let now = Instant::now();
        discovery.turn(now);
        std::fs::create_dir_all(dir.path().join("a_b_c/main")).unwrap();
        assert!(discovery.turn(now + Duration::from_millis(900)).is_empty());
        assert_eq!(
            listings(&discovery.turn(now + Duration::from_secs(1))),
            [("main".to_owned(), 0)]
        );
        assert!(discovery.watcher.exhausted);
    }

    #[test]
    fn a_log_root_that_cannot_be_read_says_nothing_of_the_pods() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("pods");
        std::fs::create_dir_all(root.join("a_b_c/main")).unwrap();
        let mut discovery = Discovery::new(root.clone(), Vec::new(), Budget::of_process());
        let now = Instant::now();
        assert_eq!(discovery.turn(now).len(), 2);
        std::fs::rename(&root, dir.path().join("away")).unwrap();
        assert!(discovery.turn(now + Duration::from_secs(10)).is_empty());
        assert!(discovery.unreadable.is_some());
        std::fs::rename(dir.path().join("away"), &root).unwrap();
        assert_eq!(
            listings(&discovery.turn(now + Duration::from_secs(11))),
            [("main".to_owned(), 0)]
        );
    }
}
