//! Why a pass over the fleet failed.

use kube::{Resource, ResourceExt};
use sluice_engine::well_known::AGENT;

/// Why a pass over the fleet failed. All but [`Error::Deposed`] are tried again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The chart's `ClusterRole` is not there, so there is nothing that could own our objects.
    #[error(
        "the ClusterRole {AGENT} is missing: install the chart or config/rbac; nothing is written without it"
    )]
    OwnerMissing,
    /// A pointer was written by a leader after us.
    #[error("a pointer carries transition {theirs}, this leader has {ours}: another one has taken over")]
    Deposed {
        /// What the pointer carries.
        theirs: i32,
        /// What this leader has.
        ours: i32,
    },
    /// A key or certificate could not be made.
    #[error("the certificates of the agents' status port could not be made: {0}")]
    Certificates(#[from] rcgen::Error),
    /// The API server refused a write or did not answer.
    #[error("{kind} {name} could not be written: {source}")]
    Apply {
        /// The object's kind.
        kind: String,
        /// Its name.
        name: String,
        /// Why.
        source: Box<kube::Error>,
    },
}

impl Error {
    /// Names the object that a write was about.
    pub(super) fn apply<K: Resource<DynamicType = ()>>(
        object: &K,
    ) -> impl FnOnce(kube::Error) -> Self + use<K> {
        let (kind, name) = (K::kind(&()).into_owned(), object.name_any());
        move |source| Self::Apply {
            kind,
            name,
            source: Box::new(source),
        }
    }
}
