//! How a container is and how far its spool is in, what to read next out. Pure.

use crate::metadata::{ContainerState, Log};

/// How far a container was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The newest instance of which something was read, or tried to be.
    pub instance: Option<u32>,
    /// Nothing more comes of it.
    pub complete: bool,
}

/// What to read next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Number of the instance.
    pub instance: u32,
    /// It is the one before the newest.
    pub previous: bool,
    /// It is still written.
    pub growing: bool,
    /// Whole instances, or the end of one, cannot be read any more.
    pub missed: bool,
}

/// The next read; `None` while there is nothing. `from_beginning` when nothing was read yet and what came before
/// the newest instance is wanted too.
pub fn next(state: &ContainerState, progress: Progress, from_beginning: bool) -> Option<Step> {
    let newest = state.restarts;
    let growing = state.log == Log::Growing;
    if state.log == Log::None {
        return None;
    }
    let step = |instance, previous, missed| Step {
        instance,
        previous,
        growing: growing && !previous,
        missed,
    };
    let before = state.previous.then(|| newest.checked_sub(1)).flatten();
    let Some(read) = progress.instance else {
        return Some(match before.filter(|_| from_beginning) {
            Some(before) => step(before, true, false),
            None => step(newest, false, false),
        });
    };
    // Numbers begin anew only where kubelet forgot the container: its lines are younger all the same.
    if newest <= read {
        return (growing || !progress.complete).then(|| step(read, false, false));
    }
    let next = if progress.complete { read + 1 } else { read };
    match before {
        Some(before) if next <= before => Some(step(before, true, next < before)),
        _ => Some(step(newest, false, next < newest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(restarts: u32, log: Log, previous: bool) -> ContainerState {
        ContainerState {
            name: "main".into(),
            restarts,
            log,
            previous,
            started_at: None,
        }
    }

    fn after(instance: u32, complete: bool) -> Progress {
        Progress {
            instance: Some(instance),
            complete,
        }
    }

    /// Instance, previous, growing, missed.
    fn shown(step: Option<Step>) -> Option<(u32, bool, bool, bool)> {
        step.map(|step| (step.instance, step.previous, step.growing, step.missed))
    }

    #[test]
    fn a_container_is_read_from_what_there_is() {
        let none = Progress::default();
        let begin = |state: &ContainerState| shown(next(state, none, true));
        assert_eq!(begin(&state(0, Log::None, false)), None);
        assert_eq!(
            begin(&state(0, Log::Growing, false)),
            Some((0, false, true, false))
        );
        assert_eq!(
            begin(&state(4, Log::Growing, true)),
            Some((3, true, false, false))
        );
        assert_eq!(
            begin(&state(4, Log::Ended, false)),
            Some((4, false, false, false))
        );
        assert_eq!(
            shown(next(&state(4, Log::Growing, true), none, false)),
            Some((4, false, true, false))
        );
    }

    #[test]
    fn restarts_are_followed_one_by_one() {
        let running = state(4, Log::Growing, true);
        let go = |progress| shown(next(&running, progress, true));
        assert_eq!(go(after(4, false)), Some((4, false, true, false)));
        assert_eq!(go(after(3, false)), Some((3, true, false, false)));
        assert_eq!(go(after(3, true)), Some((4, false, true, false)));
        assert_eq!(go(after(2, true)), Some((3, true, false, false)));
        assert_eq!(
            go(after(2, false)),
            Some((3, true, false, true)),
            "the end of 2 is gone"
        );
        assert_eq!(go(after(1, true)), Some((3, true, false, true)), "2 is gone");
        let alone = state(4, Log::Growing, false);
        assert_eq!(
            shown(next(&alone, after(3, false), true)),
            Some((4, false, true, true))
        );
        assert_eq!(
            shown(next(&alone, after(3, true), true)),
            Some((4, false, true, false))
        );
    }

    #[test]
    fn an_ended_one_is_read_until_it_is_complete() {
        let ended = state(4, Log::Ended, true);
        assert_eq!(
            shown(next(&ended, after(4, false), true)),
            Some((4, false, false, false))
        );
        assert_eq!(next(&ended, after(4, true), true), None);
        let anew = state(0, Log::Growing, false);
        assert_eq!(
            shown(next(&anew, after(4, true), true)),
            Some((4, false, true, false))
        );
    }
}
