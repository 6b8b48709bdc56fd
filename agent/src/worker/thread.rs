//! Runs the core on a thread of its own: sleeps until something changed or is due.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::watch;

use super::{Command, Core, Mailbox, Post, Sink, WorkerSettings, mailbox};
use crate::checkpoint::journal::StartError;
use crate::status::figures::Figures;

/// How often figures are published at most, while something happens.
const PUBLISH: Duration = Duration::from_millis(500);
/// And how often at least: a disk that is full may be so no more.
const PUBLISH_IDLE: Duration = Duration::from_secs(5);

/// Starts the worker. Requests go to `send`, which must not block.
///
/// # Errors
/// When the state folder cannot be used, or no thread or descriptor is left.
pub fn spawn<S>(
    settings: WorkerSettings,
    sink: S,
    send: Box<dyn Fn(S::Batch) + Send>,
    figures: watch::Sender<Arc<Figures>>,
) -> Result<(Mailbox, JoinHandle<()>), StartError>
where
    S: Sink + Send + 'static,
{
    let core = Core::new(settings, sink)?;
    let (mailbox, post) = mailbox().map_err(StartError::Worker)?;
    let thread = std::thread::Builder::new()
        .name("worker".to_owned())
        .spawn(move || run(core, &post, &*send, &figures))
        .map_err(StartError::Worker)?;
    Ok((mailbox, thread))
}

fn run<S: Sink>(
    mut core: Core<S>,
    post: &Post,
    send: &dyn Fn(S::Batch),
    figures: &watch::Sender<Arc<Figures>>,
) {
    let mut deadline: Option<Instant> = None;
    let mut published: Option<Instant> = None;
    let mut stale = false;
    loop {
        post.hear();
        let mut now = Instant::now();
        while let Some(command) = post.take() {
            if let Command::Drain(patience) = &command {
                deadline.get_or_insert(now + *patience);
            }
            core.command(command, now);
        }
        now = Instant::now();
        let mut due = core.turn(now, send);
        let ending = deadline.is_some_and(|deadline| core.is_settled() || deadline <= now);
        if ending {
            core.save();
        }
        stale |= core.was_busy();
        let pause = if stale { PUBLISH } else { PUBLISH_IDLE };
        if ending || published.is_none_or(|last| now >= last + pause) {
            let fresh = core.figures();
            figures.send_if_modified(|old| {
                let changed = **old != fresh;
                if changed {
                    *old = Arc::new(fresh);
                }
                changed
            });
            published = Some(now);
            stale = false;
        }
        if ending {
            return;
        }
        if let Some(deadline) = deadline {
            due = due.min(deadline);
        }
        sleep(&core, post, due.saturating_duration_since(Instant::now()));
    }
}

/// Sleeps until a command, a changed folder, or the time is up.
fn sleep<S: Sink>(core: &Core<S>, post: &Post, time: Duration) {
    if time.is_zero() {
        return;
    }
    let bell = post.bell();
    let folders: Vec<_> = core.descriptors().collect();
    let heard = std::iter::once(&bell).chain(&folders);
    let mut descriptors: Vec<_> = heard.map(|one| PollFd::new(one, PollFlags::IN)).collect();
    // Rounded up: a wake-up just before the time would find nothing due.
    let time = Timespec::try_from(time + Duration::from_micros(50)).ok();
    // An interrupted sleep is a short one.
    let _woken = poll(&mut descriptors, time.as_ref());
}
