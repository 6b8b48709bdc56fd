//! Shares in, the bindings that let agents read through the API out: one in each namespace where a pipeline does.

use std::collections::BTreeSet;

use k8s_openapi::api::rbac::v1::{RoleBinding, RoleRef, Subject};
use sluice_engine::document::ReadFrom;
use sluice_engine::well_known::AGENT;

use crate::cluster::names::{Owner, metadata};
use crate::fleet::desired::Shares;

/// The chart's `ClusterRole` that lets its holder `get pods/log`, and the name of each binding to it.
pub const NAME: &str = "sluice-agent-podlogs";

/// Namespaces that some pipeline reads through the API and may: a suspended or withdrawn one reads nothing.
fn namespaces(shares: &Shares) -> BTreeSet<&str> {
    let readers = shares.pipelines.values().filter_map(|share| {
        let pipeline = share.pipeline.as_ref()?;
        (pipeline.pods.read_from == ReadFrom::Api).then_some((share, pipeline))
    });
    readers
        .flat_map(|(share, pipeline)| {
            let denied = |name: &str| {
                let mut all = share.deny.iter();
                all.any(|denial| denial.namespace.as_ref().is_none_or(|denied| denied == name))
            };
            let names = pipeline
                .pods
                .namespaces
                .iter()
                .map(|namespace| namespace.name.as_str());
            names.filter(move |name| !denied(name))
        })
        .collect()
}

/// Renders the bindings of the agents' account in `own`.
pub fn render(shares: &Shares, own: &str, owner: &Owner) -> Vec<RoleBinding> {
    let binding = |namespace: &str| RoleBinding {
        metadata: metadata(namespace, NAME, "pod-logs", owner),
        role_ref: RoleRef {
            api_group: "rbac.authorization.k8s.io".into(),
            kind: "ClusterRole".into(),
            name: NAME.into(),
        },
        subjects: Some(vec![Subject {
            kind: "ServiceAccount".into(),
            name: AGENT.into(),
            namespace: Some(own.to_owned()),
            api_group: None,
        }]),
    };
    namespaces(shares).into_iter().map(binding).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::render::tests::{key, shares};
    use sluice_engine::pointer::Denial;

    fn bound(shares: &Shares) -> Vec<String> {
        let bindings = render(shares, "own", &Owner { uid: "1".into() });
        bindings
            .into_iter()
            .filter_map(|binding| binding.metadata.namespace)
            .collect()
    }

    #[test]
    fn pods_log_is_bound_exactly_where_a_pipeline_reads_through_the_api() {
        let mut shares = shares();
        assert!(bound(&shares).is_empty());
        let app = shares.pipelines.get_mut(&key("team-a/app")).unwrap();
        app.pipeline.as_mut().unwrap().pods.read_from = ReadFrom::Api;
        assert_eq!(bound(&shares), ["team-a"]);
        let denied = |namespace: Option<&str>| Denial {
            pipeline: key("team-a/app"),
            namespace: namespace.map(str::to_owned),
        };
        for (namespace, rest) in [(Some("team-a"), 0), (None, 0), (Some("team-c"), 1)] {
            shares.pipelines.get_mut(&key("team-a/app")).unwrap().deny = vec![denied(namespace)];
            assert_eq!(bound(&shares).len(), rest, "{namespace:?}");
        }
    }
}
