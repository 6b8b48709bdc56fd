//! The agents' pods in, one poll per pod running, their answers out by node.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::{Notify, watch};
use tokio_util::task::AbortOnDropHandle;

use super::Told;
use super::poll::{Peer, Pools, poll};
use crate::fleet::observed::Agent;

/// What the agents say, by node; a node whose agent does not answer is not in it.
pub type Answers = BTreeMap<String, Arc<Agent>>;

/// An agent's node and its answer, by the UID of its pod.
type ByPod = BTreeMap<String, (String, Arc<Agent>)>;

/// All polls.
pub struct Agents {
    told: watch::Receiver<Told>,
    polls: BTreeMap<String, (Peer, AbortOnDropHandle<()>)>,
    /// By pod, so that an old pod's end takes nothing from a new one on the same node.
    answers: Arc<Mutex<ByPod>>,
    changed: Arc<Notify>,
    pools: Arc<Pools>,
}

impl Agents {
    /// Without any poll yet.
    pub fn new(told: watch::Receiver<Told>) -> Self {
        Self {
            told,
            polls: BTreeMap::new(),
            answers: Arc::default(),
            changed: Arc::default(),
            pools: Arc::default(),
        }
    }

    /// Begins and ends polls, so that there is one for each pod that runs.
    pub fn follow(&mut self, pods: &[Arc<Pod>]) {
        let peers: BTreeMap<String, Peer> = pods
            .iter()
            .filter_map(|pod| peer(pod))
            .map(|peer| (peer.pod_uid.clone(), peer))
            .collect();
        self.polls.retain(|uid, (peer, _)| peers.get(uid) == Some(peer));
        self.lock().retain(|uid, _| peers.contains_key(uid));
        for (uid, peer) in peers {
            if !self.polls.contains_key(&uid) {
                let (told, pools) = (self.told.clone(), Arc::clone(&self.pools));
                let task = tokio::spawn(poll(peer.clone(), told, pools, self.teller(&peer)));
                self.polls.insert(uid, (peer, AbortOnDropHandle::new(task)));
            }
        }
    }

    /// What is known now.
    pub fn answers(&self) -> Answers {
        self.lock()
            .values()
            .map(|(node, agent)| (node.clone(), Arc::clone(agent)))
            .collect()
    }

    /// Waits for the next answer, or the next missing one.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, ByPod> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn teller(&self, peer: &Peer) -> impl Fn(Option<Arc<Agent>>) + Send + 'static + use<> {
        let (answers, changed, peer) = (Arc::clone(&self.answers), Arc::clone(&self.changed), peer.clone());
        move |agent| {
            let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
            let told = match agent {
                Some(agent) => {
                    let before =
                        answers.insert(peer.pod_uid.clone(), (peer.node.clone(), Arc::clone(&agent)));
                    before.is_none_or(|(_, before)| before != agent)
                }
                None => answers.remove(&peer.pod_uid).is_some(),
            };
            if told {
                changed.notify_one();
            }
        }
    }
}

/// Whom to ask about a pod; nobody while it does not run.
fn peer(pod: &Pod) -> Option<Peer> {
    let status = pod.status.as_ref()?;
    if status.phase.as_deref() != Some("Running") || pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    Some(Peer {
        node: pod.spec.as_ref()?.node_name.clone()?,
        pod_uid: pod.metadata.uid.clone()?,
        address: status.pod_ip.as_deref()?.parse().ok()?,
    })
}
