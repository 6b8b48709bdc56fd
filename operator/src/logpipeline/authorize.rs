//! A valid pipeline and what is known of namespaces and rights in; the namespaces that it may read out. Pure:
//! a missing fact means pending, and what is pending is not collected.

use std::collections::{BTreeMap, BTreeSet};

use sluice_engine::document::Namespace;

use super::validate::{Selection, Validated};
use crate::api::conditions::reasons;
use crate::api::logpipeline::NamespaceCounts;
use crate::api::verdict::Verdict;

/// The cluster role that users bind to let an account read logs; the chart ships it.
pub const READER_ROLE: &str = "sluice-log-reader";

/// A namespace as the watch shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamespaceFact {
    /// UID of the object.
    pub uid: String,
    /// Creation in seconds since 1970.
    pub created_at: Option<i64>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// What is known.
pub struct Facts<'a> {
    /// Namespaces that exist.
    pub namespaces: &'a BTreeMap<String, NamespaceFact>,
    /// Whether the `ServiceAccount` exists.
    pub account: bool,
    /// The answers of reviews.
    pub allowed: &'a dyn Fn(&str) -> Option<bool>,
}

/// A pipeline with the namespaces that it may read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorized {
    /// The pipeline.
    pub validated: Validated,
    /// What it may read, sorted by name, with the labels that it uses.
    pub granted: Vec<Namespace>,
    /// Named by the author, and denied or not known.
    pub withheld: Vec<String>,
    /// For the status.
    pub counts: NamespaceCounts,
    /// The condition.
    pub verdict: Verdict,
    /// Some answers are not known yet.
    pub pending: bool,
}

/// Every namespace that a selection selects; named ones whether they exist or not.
pub fn selected(selection: &Selection, namespaces: &BTreeMap<String, NamespaceFact>) -> BTreeSet<String> {
    let by_label = namespaces.iter().filter(|(_, fact)| {
        selection.all
            || selection
                .selector
                .as_ref()
                .is_some_and(|selector| selector.matches(&fact.labels))
    });
    let mut names: BTreeSet<String> = by_label.map(|(name, _)| name.clone()).collect();
    names.extend(selection.names.iter().cloned());
    names.difference(&selection.exclude).cloned().collect()
}

/// Decides which of the selected namespaces a pipeline may read.
pub fn authorize(validated: Validated, facts: &Facts<'_>) -> Authorized {
    let selected = selected(&validated.selection, facts.namespaces);
    let named = &validated.selection.names;
    let mut sorted = Sorted::default();
    for name in &selected {
        match (facts.allowed)(name).filter(|_| facts.account) {
            Some(true) => match facts.namespaces.get(name) {
                Some(fact) => sorted.granted.push(entry(name, fact, &validated)),
                None => sorted.absent.push(name.clone()),
            },
            Some(false) => sorted.denied.push(name.clone()),
            None => sorted.pending.push(name.clone()),
        }
    }
    let of_author = |names: &[String]| {
        names
            .iter()
            .filter(|name| named.contains(*name))
            .cloned()
            .collect::<Vec<_>>()
    };
    let granted: Vec<String> = sorted
        .granted
        .iter()
        .map(|namespace| namespace.name.clone())
        .collect();
    let counts = NamespaceCounts {
        granted: of_author(&granted),
        denied: of_author(&sorted.denied),
        granted_count: count(&granted),
        denied_count: count(&sorted.denied),
    };
    let withheld = [of_author(&sorted.denied), of_author(&sorted.pending)].concat();
    let verdict = sorted.verdict(&validated, facts.account, &counts);
    let pending = facts.account && !sorted.pending.is_empty();
    Authorized {
        validated,
        granted: sorted.granted,
        withheld,
        counts,
        verdict,
        pending,
    }
}

#[derive(Default)]
struct Sorted {
    granted: Vec<Namespace>,
    denied: Vec<String>,
    pending: Vec<String>,
    absent: Vec<String>,
}

impl Sorted {
    fn verdict(&self, validated: &Validated, account_exists: bool, counts: &NamespaceCounts) -> Verdict {
        let account = &validated.account;
        if !account_exists {
            return Verdict::no(
                reasons::SERVICE_ACCOUNT_NOT_FOUND,
                format!(
                    "the ServiceAccount {} does not exist in namespace {}: create it, or change serviceAccountName",
                    account.name, account.namespace
                ),
            );
        }
        if self.denied.is_empty() && !self.pending.is_empty() {
            return Verdict::pending(format!(
                "the permission for {} of the selected namespaces is being asked for, which are left out until it is known: when this lasts, look at the API server's authorizer and the operator's log",
                self.pending.len()
            ));
        }
        if let Some(denied) = counts.denied.first() {
            let others = match counts.denied.len() {
                1 => String::new(),
                _ => format!(
                    " (likewise in {})",
                    counts
                        .denied
                        .iter()
                        .skip(1)
                        .cloned()
                        .collect::<Vec<_>>()
                        .join(", ")
                ),
            };
            return Verdict::no(
                reasons::NOT_AUTHORIZED,
                format!("{}{others}", refusal(validated, denied)),
            );
        }
        if self.granted.is_empty() && self.denied.is_empty() {
            let message = match self.absent.first() {
                Some(absent) => format!(
                    "namespace {absent} does not exist yet: create it, or change sources.pods.namespaces"
                ),
                None => {
                    "no namespace is selected: change sources.pods.namespaces, or label a namespace".into()
                }
            };
            return Verdict::no(reasons::NO_NAMESPACES, message);
        }
        if self.denied.is_empty() {
            return Verdict::yes(
                reasons::AUTHORIZED,
                "the ServiceAccount may read every selected namespace",
            );
        }
        let message = refusal(validated, "<namespace>");
        if self.granted.is_empty() {
            Verdict::no(reasons::NOT_AUTHORIZED, message)
        } else {
            Verdict::yes(
                reasons::PARTIALLY_AUTHORIZED,
                format!("some selected namespaces are left out: {message}"),
            )
        }
    }
}

fn refusal(validated: &Validated, namespace: &str) -> String {
    let account = &validated.account;
    format!(
        "the ServiceAccount {account} may not read pod logs in {namespace}: run `kubectl create rolebinding {READER_ROLE} -n {namespace} --clusterrole={READER_ROLE} --serviceaccount={}:{}`",
        account.namespace, account.name
    )
}

fn entry(name: &str, fact: &NamespaceFact, validated: &Validated) -> Namespace {
    let used = validated
        .entry
        .labels
        .from_namespace_labels
        .iter()
        .map(|rule| &rule.namespace_label);
    Namespace {
        name: name.to_owned(),
        uid: Some(fact.uid.clone()),
        created_at: fact.created_at,
        labels: used
            .filter_map(|label| Some((label.clone(), fact.labels.get(label)?.clone())))
            .collect(),
    }
}

fn count(names: &[String]) -> u32 {
    u32::try_from(names.len()).unwrap_or(u32::MAX)
}
