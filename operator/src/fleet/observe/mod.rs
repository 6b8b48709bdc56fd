//! Nodes, agents' pods and agents' answers in, [`Observed`] out, whenever its meaning changed.
//!
//! - [`nodes`]: where agents should run, and which nodes are excused
//! - [`affinity`]: node selector terms, as the scheduler reads them
//! - [`access`]: how agents are reached: one client, our authority, the token
//! - [`poll`]: one agent: long-polls in, its whole report out
//! - [`agents`]: one poll per pod, begun and ended as pods come and go
//! - [`obstacle`]: why the `DaemonSet` cannot make pods
//! - [`assemble`]: all that put together

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::Client;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use super::observed::Observed;
use super::view::View;
use crate::settings::Settings;
use access::Access;
use agents::Agents;
use assemble::Target;

pub mod access;
pub mod affinity;
pub mod agents;
pub mod assemble;
pub mod nodes;
pub mod obstacle;
pub mod poll;

/// Changes are gathered for this long before they are published.
const DEBOUNCE: Duration = Duration::from_millis(200);
/// How often time itself is looked at: agents fall silent, excuses end.
const TICK: Duration = Duration::from_secs(1);
/// How long pods must be lacking before it is asked why: each new node lacks one for a moment.
const LACKING: Duration = Duration::from_secs(5);
/// How often events are read while the `DaemonSet` lacks pods.
const OBSTACLE_PERIOD: Duration = Duration::from_secs(5);

/// What the fleet's task tells the observer after each pass.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// What the pointers name.
    pub target: Arc<Target>,
    /// How agents are reached; absent before the first pass.
    pub access: Option<Arc<Access>>,
}

/// Observes for as long as it is polled.
pub async fn observe(
    client: Client,
    settings: Settings,
    view: Arc<View>,
    mut told: watch::Receiver<Told>,
    observed: watch::Sender<Arc<Observed>>,
) {
    let mut agents_changed = view.agents_changed.subscribe();
    let mut nodes_changed = view.nodes_changed.subscribe();
    let mut agents = Agents::new(told.clone());
    let mut silence = assemble::Silence::default();
    let mut obstacle = None;
    let mut obstacle_read: Option<Instant> = None;
    let mut lacking: Option<Instant> = None;
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        agents.follow(&view.pods());
        if obstacle::lacks_pods(view.daemon_set().as_deref()) {
            let lasts = lacking.get_or_insert_with(Instant::now).elapsed() >= LACKING;
            if lasts && obstacle_read.is_none_or(|at| at.elapsed() >= OBSTACLE_PERIOD) {
                obstacle_read = Some(Instant::now());
                match obstacle::read(&client, &settings.namespace).await {
                    Ok(found) => obstacle = found,
                    Err(error) => tracing::warn!(%error, "the DaemonSet's events could not be read"),
                }
            }
        } else {
            (obstacle, obstacle_read, lacking) = (None, None, None);
        }
        let now = Timestamp::now();
        let nodes = nodes::targets(view.nodes().iter().map(Arc::as_ref), &settings.agent, now);
        let target = Arc::clone(&told.borrow_and_update().target);
        let next = assemble::assemble(
            &target,
            nodes,
            &agents.answers(),
            &mut silence,
            obstacle.clone(),
            now,
        );
        observed.send_if_modified(|current| {
            let changed = **current != next;
            if changed {
                *current = Arc::new(next);
            }
            changed
        });
        tokio::select! {
            _ = tick.tick() => continue,
            () = agents.changed() => {}
            _ = agents_changed.changed() => {}
            _ = nodes_changed.changed() => {}
            told = told.changed() => if told.is_err() { return },
        }
        tokio::time::sleep(DEBOUNCE).await;
    }
}
