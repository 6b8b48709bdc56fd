//! Two snapshots of the nodes in; whose status may differ between them out. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use sluice_engine::key::Key;

use crate::fleet::observed::{Node, Observed};

/// Whose status may differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Touched {
    /// Everybody's.
    All,
    /// These pipelines' and tenants'.
    Some(BTreeSet<Key>, BTreeSet<Key>),
}

/// Compares two snapshots.
pub fn touched(old: &Observed, new: &Observed) -> Touched {
    let same_nodes = old.nodes.len() == new.nodes.len()
        && old
            .nodes
            .iter()
            .zip(&new.nodes)
            .all(|((a, x), (b, y))| a == b && is_alike(x, y));
    if !same_nodes || old.document.is_empty() != new.document.is_empty() || old.obstacle != new.obstacle {
        return Touched::All;
    }
    let (mut pipelines, mut tenants) = (BTreeSet::new(), BTreeSet::new());
    for (before, after) in old.nodes.values().zip(new.nodes.values()) {
        let (Some(before), Some(after)) = (&before.agent, &after.agent) else {
            continue;
        };
        // answers are shared: what is the same was not answered anew
        if Arc::ptr_eq(before, after) {
            continue;
        }
        // what is wrong with an agent concerns every pipeline
        if before.warnings != after.warnings {
            return Touched::All;
        }
        pipelines.extend(before.pipelines.differences(&after.pipelines).cloned());
        tenants.extend(before.tenants.differences(&after.tenants).cloned());
    }
    if tenants.is_empty() {
        Touched::Some(pipelines, tenants)
    } else {
        Touched::All
    }
}

fn is_alike(a: &Node, b: &Node) -> bool {
    a.excused == b.excused && a.silent_since == b.silent_since && a.agent.is_some() == b.agent.is_some()
}
