//! A file system that a test can fill, empty and set read-only.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "each test binary uses its part"
)]

use std::fs;
use std::path::{Path, PathBuf};

/// A file system of its own, gone at the end.
pub struct Mounted(pub PathBuf);

impl Mounted {
    pub fn new(at: &Path, bytes: u64) -> Self {
        fs::create_dir_all(at).unwrap();
        let options = format!("size={bytes}");
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(at)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&mounted.stderr);
        assert!(
            mounted.status.success(),
            "no file system can be mounted, which needs root: {said}"
        );
        Self(at.to_owned())
    }

    /// Leaves so much free.
    pub fn fill(&self, leave: u64) {
        let stat = rustix::fs::statvfs(&self.0).unwrap();
        let free = stat.f_bavail * stat.f_frsize;
        let ballast = vec![0; usize::try_from(free.saturating_sub(leave)).unwrap()];
        fs::write(self.0.join("ballast"), ballast).unwrap();
    }

    pub fn remount(&self, how: &str) {
        let options = format!("remount,{how}");
        let done = std::process::Command::new("mount")
            .args(["-o", &options])
            .arg(&self.0)
            .status();
        assert!(done.is_ok_and(|status| status.success()));
    }

    pub fn empty(&self) {
        fs::remove_file(self.0.join("ballast")).unwrap();
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmounted = std::process::Command::new("umount")
            .arg("-l")
            .arg(&self.0)
            .status();
        assert!(unmounted.is_ok_and(|status| status.success()));
    }
}
