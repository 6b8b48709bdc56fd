//! Interests, answers and events in; the questions that are due now out. Pure: time is an argument.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sluice_engine::key::Key;
use tokio::time::Instant;

use super::agenda::{AFTER_EVENT, Agenda};
use super::{Account, Pair};

/// When every answer is asked again without an event.
const AGAIN: Duration = Duration::from_mins(5);
/// When a failed question is asked again.
const RETRY: Duration = Duration::from_secs(2);
/// How long an answer is kept while its question fails; then it is unknown, and nothing is collected for it.
const KEEP: Duration = Duration::from_mins(1);

#[derive(Clone, Copy, Debug)]
struct Answer {
    allowed: bool,
    failing_since: Option<Instant>,
}

/// What is known, what is wanted, and what is due.
#[derive(Debug)]
pub struct Schedule {
    everywhere_first: bool,
    wanted: BTreeMap<Key, (Account, BTreeSet<String>)>,
    users: BTreeMap<Pair, BTreeSet<Key>>,
    answers: BTreeMap<Pair, Answer>,
    agenda: Agenda,
}

impl Schedule {
    /// Nothing known, nothing wanted.
    pub fn new(everywhere_first: bool) -> Self {
        Self {
            everywhere_first,
            wanted: BTreeMap::new(),
            users: BTreeMap::new(),
            answers: BTreeMap::new(),
            agenda: Agenda::default(),
        }
    }

    /// Declares what a pipeline needs. Returns whether a question became due.
    pub fn want(
        &mut self,
        pipeline: &Key,
        account: &Account,
        names: &BTreeSet<String>,
        now: Instant,
    ) -> bool {
        let wanted = (account.clone(), names.clone());
        if self.wanted.get(pipeline) == Some(&wanted) {
            return false;
        }
        let before: BTreeSet<Pair> = self
            .wanted
            .get(pipeline)
            .map(|w| self.pairs(w))
            .unwrap_or_default();
        let after = self.pairs(&wanted);
        self.wanted.insert(pipeline.clone(), wanted);
        let mut asked = false;
        for pair in after.difference(&before) {
            let first = self
                .users
                .entry(pair.clone())
                .or_default()
                .insert(pipeline.clone());
            if first && !self.answers.contains_key(pair) && !self.covered(pair) {
                self.agenda.hurry(pair, 0, now);
                asked = true;
            }
        }
        for pair in before.difference(&after) {
            self.release(pair, pipeline);
        }
        asked
    }

    /// A pipeline needs no answers any more.
    pub fn forget(&mut self, pipeline: &Key) {
        if let Some(wanted) = self.wanted.remove(pipeline) {
            for pair in self.pairs(&wanted) {
                self.release(&pair, pipeline);
            }
        }
    }

    /// The answer, when it is known.
    pub fn allowed(&self, account: &Account, namespace: &str) -> Option<bool> {
        let answer = |namespace: Option<&str>| {
            let pair = Pair {
                account: account.clone(),
                namespace: namespace.map(ToOwned::to_owned),
            };
            self.answers.get(&pair).map(|answer| answer.allowed)
        };
        if self.everywhere_first && answer(None) == Some(true) {
            Some(true)
        } else {
            answer(Some(namespace))
        }
    }

    /// A namespace's rights changed: its questions are due at once, and twice more.
    pub fn touched(&mut self, namespace: &str, now: Instant) {
        let pairs: Vec<Pair> = self
            .users
            .keys()
            .filter(|pair| pair.namespace.as_deref() == Some(namespace))
            .cloned()
            .collect();
        self.ask_thrice(pairs, now);
    }

    /// Cluster-wide rights changed: every question is due, allowed ones first.
    pub fn touched_everywhere(&mut self, now: Instant) {
        let is_allowed = |pair: &&Pair| self.answers.get(pair).is_some_and(|answer| answer.allowed);
        let (allowed, rest): (Vec<&Pair>, Vec<&Pair>) = self.users.keys().partition(is_allowed);
        let (allowed, rest): (Vec<Pair>, Vec<Pair>) = (
            allowed.into_iter().cloned().collect(),
            rest.into_iter().cloned().collect(),
        );
        self.ask_thrice(allowed, now);
        self.ask_thrice(rest, now + Duration::from_millis(1));
    }

    /// Takes at most `most` urgent questions and, where `background` allows, one that is merely old.
    /// Returns them and when the next is due.
    pub fn take(&mut self, most: usize, background: bool, now: Instant) -> (Vec<Pair>, Option<Instant>) {
        let mut taken = self.agenda.take(most, background, now);
        taken.retain(|pair| self.users.contains_key(pair));
        (taken.into_iter().collect(), self.agenda.next())
    }

    /// Records an answer, or with `None` a failure. Returns the pipelines for which something changed.
    pub fn record(&mut self, pair: &Pair, answer: Option<bool>, now: Instant) -> BTreeSet<Key> {
        let Some(users) = self.users.get(pair).cloned() else {
            return BTreeSet::new();
        };
        let old = self.answers.get(pair).copied();
        let Some(allowed) = answer else {
            self.agenda.hurry(pair, 1, now + RETRY);
            let Some(old) = old else { return BTreeSet::new() };
            let since = old.failing_since.unwrap_or(now);
            if now.saturating_duration_since(since) >= KEEP {
                self.answers.remove(pair);
                return users;
            }
            self.answers.insert(
                pair.clone(),
                Answer {
                    failing_since: Some(since),
                    ..old
                },
            );
            return BTreeSet::new();
        };
        self.answers.insert(
            pair.clone(),
            Answer {
                allowed,
                failing_since: None,
            },
        );
        self.agenda.again(pair, now + AGAIN);
        if old.map(|old| old.allowed) == Some(allowed) {
            return BTreeSet::new();
        }
        if pair.namespace.is_none() && !allowed {
            // What the wide answer covered must be asked one by one.
            let covered: Vec<Pair> = self
                .users
                .keys()
                .filter(|p| p.account == pair.account)
                .cloned()
                .collect();
            for pair in covered {
                if pair.namespace.is_some() && !self.answers.contains_key(&pair) {
                    self.agenda.hurry(&pair, 0, now);
                }
            }
        }
        users
    }

    fn pairs(&self, (account, names): &(Account, BTreeSet<String>)) -> BTreeSet<Pair> {
        let everywhere = self.everywhere_first.then_some(None);
        let each = names.iter().cloned().map(Some);
        everywhere
            .into_iter()
            .chain(each)
            .map(|namespace| Pair {
                account: account.clone(),
                namespace,
            })
            .collect()
    }

    /// Whether the wide question has to be answered first, or already covers this one.
    fn covered(&self, pair: &Pair) -> bool {
        let wide = Pair {
            account: pair.account.clone(),
            namespace: None,
        };
        self.everywhere_first
            && pair.namespace.is_some()
            && self.answers.get(&wide).is_none_or(|answer| answer.allowed)
    }

    fn release(&mut self, pair: &Pair, pipeline: &Key) {
        if let Some(users) = self.users.get_mut(pair) {
            users.remove(pipeline);
            if users.is_empty() {
                self.users.remove(pair);
                self.answers.remove(pair);
                self.agenda.forget(pair);
            }
        }
    }

    fn ask_thrice(&mut self, pairs: Vec<Pair>, now: Instant) {
        for pair in pairs {
            if !self.answers.contains_key(&pair) && self.covered(&pair) {
                continue;
            }
            for (slot, delay) in AFTER_EVENT.into_iter().enumerate() {
                self.agenda.hurry(&pair, slot, now + delay);
            }
        }
    }
}

#[cfg(test)]
mod tests;
