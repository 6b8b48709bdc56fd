//! Everything that was seen in, the snapshot for status out. Pure but for its memory of who fell silent when.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use sluice_engine::key::Key;

use super::agents::Answers;
use super::nodes::State;
use crate::fleet::observed::{Agent, Node, Observed, Obstacle};

/// How long an agent may be quiet before it counts as silent: its last words stand until then.
const PATIENCE: SignedDuration = SignedDuration::from_secs(5);

/// What every pointer names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// Hash of the document; empty before the first pass.
    pub document: String,
    /// Content hashes of its pipelines.
    pub pipelines: BTreeMap<Key, String>,
    /// Content hashes of its tenants.
    pub tenants: BTreeMap<Key, String>,
    /// `resourceVersion`s of the credential Secrets.
    pub credentials: BTreeMap<String, String>,
}

/// By node: since when its agent is quiet, and what it said last.
#[derive(Debug, Default)]
pub struct Silence {
    nodes: BTreeMap<String, (Option<Timestamp>, Option<Arc<Agent>>)>,
}

/// Puts the snapshot together.
pub fn assemble(
    target: &Target,
    nodes: BTreeMap<String, State>,
    answers: &Answers,
    silence: &mut Silence,
    obstacle: Option<Obstacle>,
    now: Timestamp,
) -> Observed {
    silence.nodes.retain(|name, _| nodes.contains_key(name));
    let nodes = nodes
        .into_iter()
        .map(|(name, state)| {
            let (since, last) = silence.nodes.entry(name.clone()).or_default();
            if let Some(agent) = answers.get(&name) {
                (*since, *last) = (None, Some(Arc::clone(agent)));
            } else {
                let since = *since.get_or_insert(now);
                // one that was never heard has no last words to stand
                if now.duration_since(since) >= PATIENCE {
                    *last = None;
                }
            }
            let agent = last.clone();
            let silent_since = since.filter(|_| agent.is_none()).map(Timestamp::as_second);
            let excused = match state {
                State::Expected => false,
                State::New => agent.is_none(),
                State::Excused => true,
            };
            (
                name,
                Node {
                    excused,
                    agent,
                    silent_since,
                },
            )
        })
        .collect();
    let Target {
        document,
        pipelines,
        tenants,
        credentials,
    } = target.clone();
    Observed {
        nodes,
        document,
        pipelines,
        tenants,
        credentials,
        obstacle,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scene {
        silence: Silence,
    }

    impl Scene {
        fn at(&mut self, second: i64, state: State, answers: bool) -> Node {
            let now = Timestamp::from_second(1_000 + second).unwrap();
            let nodes = BTreeMap::from([("n".to_owned(), state)]);
            let answers = answers
                .then(|| ("n".to_owned(), Arc::new(Agent::default())))
                .into_iter()
                .collect();
            let mut observed = assemble(&Target::default(), nodes, &answers, &mut self.silence, None, now);
            observed.nodes.remove("n").unwrap()
        }
    }

    #[test]
    fn an_agent_is_silent_after_five_seconds_and_speaks_at_once() {
        let mut scene = Scene {
            silence: Silence::default(),
        };
        assert!(scene.at(0, State::Expected, true).agent.is_some());
        assert!(
            scene.at(1, State::Expected, false).agent.is_some(),
            "a short silence is none"
        );
        let silent = scene.at(6, State::Expected, false);
        assert_eq!((silent.agent, silent.silent_since), (None, Some(1_001)));
        let speaking = scene.at(7, State::Expected, true);
        assert_eq!((speaking.agent.is_some(), speaking.silent_since), (true, None));
    }

    #[test]
    fn a_new_node_is_excused_until_its_agent_answers() {
        let mut scene = Scene {
            silence: Silence::default(),
        };
        assert!(scene.at(0, State::New, false).excused);
        assert!(!scene.at(1, State::New, true).excused);
        assert!(scene.at(2, State::Excused, true).excused);
    }
}
