//! What kubelet does to containers' files, whether an agent lives or not: it rotates, compresses and deletes as its
//! `container_log_manager.go` does with the default `containerLogMaxFiles`, and deletes what the container before the
//! last left.
//!
//! It puts a deletion off for one reason only: no agent lived long enough to copy what would be gone, so it would be
//! beyond every promise of docs/adr/0015. How often is counted.

use std::fs;
use std::io::Write;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::agents::{Agents, Deed};
use super::ledger::Ledger;
use super::runtime::Container;

/// Rotated files that are left before the last one joins them: of five, besides that and the one that is written.
const KEPT: usize = 3;

/// A file that is not written any more.
struct Rotated {
    path: PathBuf,
    lines: RangeInclusive<u64>,
    /// Since when the agent can know that it may be deleted next.
    at_risk: Option<Instant>,
    /// Since when Loki has got all of it.
    delivered: Option<Instant>,
    /// An agent had the time to copy it, or to note that Loki has got it.
    is_safe: bool,
    put_off: bool,
}

impl Rotated {
    fn is_compressed(&self) -> bool {
        self.path.extension().is_some_and(|extension| extension == "gz")
    }
}

/// One container's files.
pub(super) struct Files {
    pub(super) container: Arc<Container>,
    begun: Instant,
    pub(super) restart: u32,
    /// Of the container that runs, oldest first.
    rotated: Vec<Rotated>,
    /// Of the one before.
    left: Vec<Rotated>,
}

/// How often what happened.
#[derive(Debug, Default)]
pub(super) struct Deeds {
    pub(super) rotations: u32,
    pub(super) restarts: u32,
    pub(super) pods: u32,
    /// Files that were deleted, by rotations and by deaths, and how many of each while no agent lived.
    pub(super) rotated_away: u32,
    pub(super) rotated_away_unseen: u32,
    pub(super) of_dead: u32,
    pub(super) of_dead_unseen: u32,
    /// Files that were deleted later than kubelet would.
    pub(super) put_off: u32,
}

pub(super) struct Kubelet<'a> {
    pods: PathBuf,
    padding: usize,
    agents: &'a Agents,
    ledger: &'a Mutex<Ledger>,
    /// Those that run, for who writes their lines.
    running: &'a Mutex<Vec<Arc<Container>>>,
    pub(super) files: Vec<Files>,
    pub(super) deeds: Deeds,
    /// Names of containers whose pods are gone, and how many lines they wrote.
    pub(super) gone: Vec<(String, u64)>,
}

impl<'a> Kubelet<'a> {
    pub(super) fn new(
        pods: &Path,
        padding: usize,
        agents: &'a Agents,
        ledger: &'a Mutex<Ledger>,
        running: &'a Mutex<Vec<Arc<Container>>>,
    ) -> Self {
        Self {
            pods: pods.to_owned(),
            padding,
            agents,
            ledger,
            running,
            files: Vec::new(),
            deeds: Deeds::default(),
            gone: Vec::new(),
        }
    }

    pub(super) fn run(&mut self, pod: &str) {
        let container = Arc::new(Container::new(&self.pods, pod, self.padding));
        self.running.lock().unwrap().push(Arc::clone(&container));
        self.files.push(Files {
            container,
            begun: Instant::now(),
            restart: 0,
            rotated: Vec::new(),
            left: Vec::new(),
        });
    }

    /// Looks which files an agent had the time to copy by now.
    pub(super) fn look(&mut self) {
        let ledger = self.ledger.lock().unwrap();
        for files in &mut self.files {
            let behind = ledger
                .stored
                .map_or(files.begun, |stored| stored.max(files.begun));
            let oldest = files.rotated.first_mut().filter(|oldest| oldest.is_compressed());
            let at_risk = files.left.iter_mut().chain(oldest).filter(|file| !file.is_safe);
            for file in at_risk {
                let since = *file.at_risk.get_or_insert_with(Instant::now);
                let missing = || ledger.missing(&files.container.name, file.lines.clone());
                if file.delivered.is_none() && ledger.stored.is_some() && missing().is_empty() {
                    file.delivered = Some(Instant::now());
                }
                let is_noted = |delivered| self.agents.worked(delivered);
                file.is_safe = file.delivered.is_some_and(is_noted) || self.agents.saw(since, behind);
            }
        }
    }

    /// One rotation; false when it is put off. The runtime goes on in the renamed file for so long.
    pub(super) fn rotate(&mut self, at: usize, reopening: Duration) -> bool {
        let files = &mut self.files[at];
        if files.rotated.len() > KEPT {
            let Some(oldest) = files.rotated.first_mut().filter(|oldest| !oldest.is_safe) else {
                self.agents.about_to(Deed::Rotation);
                fs::remove_file(files.rotated.remove(0).path).unwrap();
                self.deeds.rotated_away += 1;
                self.deeds.rotated_away_unseen += u32::from(!self.agents.is_alive());
                return self.rotate(at, reopening);
            };
            self.deeds.put_off += u32::from(!std::mem::replace(&mut oldest.put_off, true));
            return false;
        }
        for rotated in files
            .rotated
            .iter_mut()
            .filter(|rotated| !rotated.is_compressed())
        {
            rotated.path = compress(&rotated.path);
        }
        self.deeds.rotations += 1;
        let tip = files.container.tip(files.restart);
        let stamp = format!("{}.20261120-{:06}", tip.display(), self.deeds.rotations);
        let path = PathBuf::from(stamp);
        fs::rename(tip, &path).unwrap();
        std::thread::sleep(reopening);
        let lines = files.container.start(files.restart);
        files.rotated.push(Rotated {
            path,
            lines,
            at_risk: None,
            delivered: None,
            is_safe: false,
            put_off: false,
        });
        true
    }

    /// A container dies and is started again; the files of the one before it are deleted before that or after it.
    /// False when that is put off.
    pub(super) fn restart(&mut self, at: usize, deletes_first: bool) -> bool {
        let files = &mut self.files[at];
        if let Some(left) = files.left.iter_mut().find(|left| !left.is_safe) {
            self.deeds.put_off += u32::from(!std::mem::replace(&mut left.put_off, true));
            return false;
        }
        if !files.left.is_empty() {
            self.agents.about_to(Deed::Death);
        }
        files.container.end();
        let tip = files.container.tip(files.restart);
        let left = std::mem::take(&mut files.left);
        let count = u32::try_from(left.len()).unwrap();
        let delete = || left.iter().for_each(|left| fs::remove_file(&left.path).unwrap());
        if deletes_first {
            delete();
        }
        files.restart += 1;
        let lines = files.container.start(files.restart);
        if !deletes_first {
            delete();
        }
        self.deeds.restarts += 1;
        self.deeds.of_dead += count;
        if !self.agents.is_alive() {
            self.deeds.of_dead_unseen += count;
        }
        files.left = std::mem::take(&mut files.rotated);
        files.left.push(Rotated {
            path: tip,
            lines,
            at_risk: None,
            delivered: None,
            is_safe: false,
            put_off: false,
        });
        for left in &mut files.left {
            // That it is a dead one's is known from now on.
            left.at_risk = Some(Instant::now());
        }
        true
    }

    /// A pod is deleted. What it wrote last has a name until then only, so an agent has to be there.
    pub(super) fn delete_pod(&mut self, at: usize, patience: Duration) {
        let mut running = self.running.lock().unwrap();
        let files = self.files.swap_remove(at);
        running.retain(|one| !Arc::ptr_eq(one, &files.container));
        drop(running);
        files.container.end();
        // A file that no agent has come to see is beyond every promise, on a busy machine too.
        std::thread::sleep(patience);
        while !self.agents.truce(super::agents::LOOK) {
            self.agents.look();
            std::thread::sleep(Duration::from_millis(20));
        }
        fs::remove_dir_all(files.container.folder.parent().unwrap()).unwrap();
        self.gone
            .push((files.container.name.clone(), files.container.written()));
        self.deeds.pods += 1;
        self.run(&format!("new-{}", self.deeds.pods));
    }
}

fn compress(path: &Path) -> PathBuf {
    let bytes = fs::read(path).unwrap();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&bytes).unwrap();
    let unfinished = PathBuf::from(format!("{}.tmp", path.display()));
    let whole = PathBuf::from(format!("{}.gz", path.display()));
    fs::write(&unfinished, encoder.finish().unwrap()).unwrap();
    fs::rename(unfinished, &whole).unwrap();
    fs::remove_file(path).unwrap();
    whole
}
