//! Descriptors in, changes out: one inotify instance for folders and for files that are idle.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;

use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask};

use super::names::ContainerKey;

/// What a watch is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The log root.
    Root,
    /// A pod's folder.
    Pod(String),
    /// A container's folder.
    Container(Arc<ContainerKey>),
    /// A file of a container.
    File(Arc<ContainerKey>),
}

/// Watches; without inotify every call says that there is none left.
#[derive(Debug)]
pub struct Watcher {
    inotify: Option<Inotify>,
    /// Without an instance, one is asked for again and again.
    tries: bool,
    targets: HashMap<WatchDescriptor, Target>,
    buffer: Vec<u8>,
    /// The kernel gave no watch when it was last asked.
    pub exhausted: bool,
}

impl Watcher {
    /// An instance, if the kernel has one left.
    pub fn begin() -> Self {
        let inotify = Inotify::init()
            .inspect_err(|error| tracing::warn!(%error, "no inotify instance is left"))
            .ok();
        Self {
            exhausted: inotify.is_none(),
            inotify,
            tries: true,
            targets: HashMap::new(),
            buffer: vec![0; 16 << 10],
        }
    }

    /// None at all, and none later.
    pub fn none() -> Self {
        Self {
            inotify: None,
            tries: false,
            targets: HashMap::new(),
            buffer: Vec::new(),
            exhausted: true,
        }
    }

    /// Before everything is watched anew: the kernel may have an instance and watches again.
    pub fn begin_again(&mut self) {
        if self.inotify.is_none() && self.tries {
            self.inotify = Inotify::init().ok();
            if self.inotify.is_some() {
                tracing::info!("an inotify instance is free: folders are watched again");
            }
        }
        self.exhausted = self.inotify.is_none();
    }

    /// The descriptor to sleep on.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.inotify.as_ref().map(AsFd::as_fd)
    }

    /// Watches an open folder; `None` when no watch is left.
    pub fn folder(&mut self, folder: &impl AsFd, target: Target) -> Option<WatchDescriptor> {
        let mask = WatchMask::CREATE
            | WatchMask::MOVED_TO
            | WatchMask::MOVED_FROM
            | WatchMask::DELETE
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF
            | WatchMask::ONLYDIR;
        self.add(folder, mask, target)
    }

    /// Waits for the next write to an open file, once.
    pub fn file(&mut self, file: &impl AsFd, target: Target) -> bool {
        self.add(file, WatchMask::MODIFY | WatchMask::ONESHOT, target)
            .is_some()
    }

    fn add(&mut self, on: &impl AsFd, mask: WatchMask, target: Target) -> Option<WatchDescriptor> {
        // By descriptor: the name could lead elsewhere by now, or be gone.
        let path = format!("/proc/self/fd/{}", on.as_fd().as_raw_fd());
        let added = self.inotify.as_ref()?.watches().add(path, mask);
        match added {
            Ok(descriptor) => {
                self.targets.insert(descriptor.clone(), target);
                Some(descriptor)
            }
            Err(error) => {
                if !self.exhausted {
                    tracing::warn!(%error, "no inotify watch is left: folders are listed every second instead");
                }
                self.exhausted = true;
                None
            }
        }
    }

    /// Gives up a folder's watch.
    pub fn remove(&mut self, descriptor: WatchDescriptor) {
        if self.targets.remove(&descriptor).is_some()
            && let Some(inotify) = &self.inotify
        {
            // Fails when the folder is gone, and its watch with it.
            let _gone = inotify.watches().remove(descriptor);
        }
    }

    /// What changed since, into `changed`; true when the kernel's queue overflowed.
    pub fn changes(&mut self, changed: &mut Vec<Target>) -> bool {
        let mut overflow = false;
        let Some(inotify) = &mut self.inotify else {
            return false;
        };
        loop {
            let events = match inotify.read_events(&mut self.buffer) {
                Ok(events) => events,
                Err(error) => {
                    if error.kind() != io::ErrorKind::WouldBlock {
                        overflow = true;
                    }
                    return overflow;
                }
            };
            for event in events {
                if event.mask.contains(EventMask::Q_OVERFLOW) {
                    overflow = true;
                } else if event.mask.contains(EventMask::IGNORED) {
                    self.targets.remove(&event.wd);
                } else if let Some(target) = self.targets.get(&event.wd)
                    && changed.last() != Some(target)
                {
                    changed.push(target.clone());
                }
            }
        }
    }
}
