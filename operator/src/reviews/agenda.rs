//! Questions and times in, the questions that are due out; each stands here a few times at most. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::Pair;

/// When an event's questions are asked: the authorizer reads caches too, so once is not enough.
pub(super) const AFTER_EVENT: [Duration; 3] =
    [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(4)];

/// When which question is due. A storm of events, such as an installation that makes fifty `ClusterRole`s, moves
/// a question's times instead of adding to them: otherwise the last withdrawal would wait behind thousands.
#[derive(Debug, Default)]
pub struct Agenda {
    urgent: BTreeSet<(Instant, Pair)>,
    background: BTreeSet<(Instant, Pair)>,
    times: BTreeMap<Pair, Times>,
}

/// When a question stands in the two sets.
#[derive(Clone, Copy, Debug, Default)]
struct Times {
    urgent: [Option<Instant>; AFTER_EVENT.len()],
    background: Option<Instant>,
}

impl Agenda {
    /// Makes a question due, as one of the times that [`AFTER_EVENT`] lists. The first stays where it is due
    /// already, so that a question which waits is not pushed back; the later ones move behind the newest event.
    pub fn hurry(&mut self, pair: &Pair, slot: usize, at: Instant) {
        let times = self.times.entry(pair.clone()).or_default();
        let Some(place) = times.urgent.get_mut(slot) else {
            return;
        };
        let before = *place;
        if slot == 0 && before.is_some_and(|before| before <= at) {
            return;
        }
        *place = Some(at);
        // two slots may share an instant, and with it an entry
        if let Some(before) = before.filter(|before| !times.urgent.contains(&Some(*before))) {
            self.urgent.remove(&(before, pair.clone()));
        }
        self.urgent.insert((at, pair.clone()));
    }

    /// Makes a question due when nothing else is.
    pub fn again(&mut self, pair: &Pair, at: Instant) {
        let times = self.times.entry(pair.clone()).or_default();
        if let Some(before) = times.background.replace(at) {
            self.background.remove(&(before, pair.clone()));
        }
        self.background.insert((at, pair.clone()));
    }

    /// A question that nobody asks any more.
    pub fn forget(&mut self, pair: &Pair) {
        let Some(times) = self.times.remove(pair) else {
            return;
        };
        for at in times.urgent.into_iter().flatten() {
            self.urgent.remove(&(at, pair.clone()));
        }
        if let Some(at) = times.background {
            self.background.remove(&(at, pair.clone()));
        }
    }

    /// Takes at most `most` urgent questions that are due; where there is none and `background` allows, one that
    /// is merely old.
    pub fn take(&mut self, most: usize, background: bool, now: Instant) -> BTreeSet<Pair> {
        let mut taken = BTreeSet::new();
        while taken.len() < most && self.urgent.first().is_some_and(|(at, _)| *at <= now) {
            let Some((at, pair)) = self.urgent.pop_first() else {
                break;
            };
            let slots = self.times.get_mut(&pair).into_iter();
            for slot in slots.flat_map(|times| &mut times.urgent) {
                *slot = slot.filter(|due| *due != at);
            }
            taken.insert(pair);
        }
        if background
            && taken.is_empty()
            && self.background.first().is_some_and(|(at, _)| *at <= now)
            && let Some((_, pair)) = self.background.pop_first()
        {
            if let Some(times) = self.times.get_mut(&pair) {
                times.background = None;
            }
            taken.insert(pair);
        }
        taken
    }

    /// When the next question is due.
    pub fn next(&self) -> Option<Instant> {
        let firsts = [self.urgent.first(), self.background.first()];
        firsts.into_iter().flatten().map(|(at, _)| *at).min()
    }

    /// How many entries there are.
    #[cfg(test)]
    pub fn entries(&self) -> usize {
        self.urgent.len() + self.background.len() + self.times.len()
    }
}
