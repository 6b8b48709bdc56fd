//! A file system that a test can fill, empty and set read-only.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "each test binary uses its part"
)]

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

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

    fn free(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.0).unwrap();
        stat.f_bavail * stat.f_frsize
    }

    /// Leaves so much free.
    pub fn fill(&self, leave: u64) {
        let ballast = self.free().saturating_sub(leave);
        let written = fs::write(self.0.join("ballast"), vec![0; usize::try_from(ballast).unwrap()]);
        // Who writes meanwhile takes some of it.
        assert!(written.map_or_else(|error| error.kind() == ErrorKind::StorageFull, |()| true));
    }

    pub fn remount(&self, how: &str) {
        let options = format!("remount,{how}");
        let done = std::process::Command::new("mount")
            .args(["-o", &options])
            .arg(&self.0)
            .status();
        assert!(done.is_ok_and(|status| status.success()));
    }

    /// Takes the ballast away.
    pub fn empty(&self) {
        let (ballast, before) = (self.0.join("ballast"), self.free());
        let len = fs::metadata(&ballast).unwrap().len();
        fs::remove_file(ballast).unwrap();
        for _ in 0..500 {
            if self.free() > before + len / 2 {
                return;
            }
            // A program that another test has just begun holds it open until it is loaded.
            std::thread::sleep(Duration::from_millis(10));
        }
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
