//! Commands in from any thread; the worker wakes up and takes them out.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::EventfdFlags;

use super::Command;

/// Sends commands to the worker.
#[derive(Clone, Debug)]
pub struct Mailbox {
    sender: Arc<Mutex<mpsc::Sender<Command>>>,
    bell: Arc<OwnedFd>,
}

/// The worker's end.
#[derive(Debug)]
pub struct Post {
    receiver: mpsc::Receiver<Command>,
    bell: Arc<OwnedFd>,
}

/// Both ends.
///
/// # Errors
/// When no descriptor is left.
pub fn mailbox() -> std::io::Result<(Mailbox, Post)> {
    let bell = Arc::new(rustix::event::eventfd(
        0,
        EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK,
    )?);
    let (sender, receiver) = mpsc::channel();
    let mailbox = Mailbox {
        sender: Arc::new(Mutex::new(sender)),
        bell: Arc::clone(&bell),
    };
    Ok((mailbox, Post { receiver, bell }))
}

impl Mailbox {
    /// Sends a command; false when the worker has ended.
    pub fn send(&self, command: Command) -> bool {
        let sent = self
            .sender
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .send(command)
            .is_ok();
        // A full counter rings as well.
        let _rung = rustix::io::write(&*self.bell, &1_u64.to_ne_bytes());
        sent
    }
}

impl Post {
    /// What to sleep on.
    pub fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// Silences the bell; to be called before the commands are taken.
    pub fn hear(&self) {
        let _silent = rustix::io::read(&*self.bell, &mut [0_u8; 8]);
    }

    /// The next command.
    pub fn take(&self) -> Option<Command> {
        self.receiver.try_recv().ok()
    }
}
