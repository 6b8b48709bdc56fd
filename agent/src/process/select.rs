//! A container, a pipeline and what is known of the pod in, whether it is collected out.

use sluice_engine::document::{Pipeline, ReadFrom};
use sluice_engine::pointer::Denial;

use crate::discover::names::PodFolder;
use crate::metadata::PodFacts;

/// Whether a pipeline collects a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selected {
    /// Yes.
    Yes,
    /// No, or no longer.
    No,
    /// It depends on facts of the pod that have not arrived.
    Unknown,
}

/// What is known of a container's pod.
#[derive(Clone, Copy, Debug)]
pub enum Knowledge<'a> {
    /// Its facts.
    Facts(&'a PodFacts),
    /// They may still arrive.
    Awaited,
    /// They were waited for long enough.
    Missing {
        /// The journal says that it was collected before.
        collected: bool,
    },
}

/// Whether `pipeline` collects a container.
pub fn select(
    pipeline: &Pipeline,
    deny: &[Denial],
    pod: &PodFolder,
    container: &str,
    known: Knowledge<'_>,
) -> Selected {
    let source = &pipeline.pods;
    // What was read through the API for one pipeline is for no other, and what it reads there not in files.
    let reader = (source.read_from == ReadFrom::Api).then_some(&pipeline.uid);
    if pod.reader.as_ref() != reader {
        return Selected::No;
    }
    let granted = source
        .namespaces
        .iter()
        .any(|namespace| namespace.name == pod.namespace)
        && !deny.iter().any(|denial| {
            denial.pipeline == pipeline.name
                && denial
                    .namespace
                    .as_ref()
                    .is_none_or(|namespace| *namespace == pod.namespace)
        });
    if !granted || !source.containers.matches(container) {
        return Selected::No;
    }
    let chosen = |yes: bool| if yes { Selected::Yes } else { Selected::No };
    match known {
        // A folder's name could lie; what the API says of this UID cannot.
        Knowledge::Facts(facts) => {
            chosen(facts.namespace == pod.namespace && source.selector.matches(&facts.labels))
        }
        Knowledge::Awaited if source.selector.is_empty() && !pipeline.labels.need_pod() => Selected::Yes,
        Knowledge::Awaited => Selected::Unknown,
        Knowledge::Missing { collected } => chosen(source.selector.is_empty() || collected),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use sluice_engine::document::{Namespace, PodSource};
    use sluice_engine::key::Key;
    use sluice_engine::labels::LabelRules;
    use sluice_engine::selector::{ContainerSelector, LabelSelector};

    use super::*;

    fn pipeline(selector: &[(&str, &str)]) -> Pipeline {
        let match_labels = selector
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        Pipeline {
            name: Key::new("a", "p"),
            uid: "u".into(),
            generation: 1,
            hash: String::new(),
            tenants: Vec::new(),
            pods: PodSource {
                namespaces: vec![Namespace {
                    name: "a".into(),
                    uid: None,
                    created_at: None,
                    labels: BTreeMap::new(),
                }],
                selector: LabelSelector {
                    match_labels,
                    match_expressions: Vec::new(),
                },
                containers: ContainerSelector {
                    include: Vec::new(),
                    exclude: vec!["istio-*".into()],
                },
                ..PodSource::default()
            },
            labels: LabelRules::default(),
        }
    }

    fn facts(namespace: &str, labels: &[(&str, &str)]) -> PodFacts {
        PodFacts {
            uid: "x".into(),
            namespace: namespace.into(),
            name: "web".into(),
            labels: labels
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
            controller: None,
        }
    }

    #[test]
    fn rights_come_first_then_names_then_labels() {
        let pod = PodFolder::parse("a_web_x").unwrap();
        let web = pipeline(&[("app", "web")]);
        let labelled = facts("a", &[("app", "web")]);
        let deny = |namespace: Option<&str>| {
            [Denial {
                pipeline: Key::new("a", "p"),
                namespace: namespace.map(str::to_owned),
            }]
        };
        let yes = Knowledge::Facts(&labelled);
        assert_eq!(select(&web, &[], &pod, "c", yes), Selected::Yes);
        assert_eq!(select(&web, &deny(None), &pod, "c", yes), Selected::No);
        assert_eq!(select(&web, &deny(Some("a")), &pod, "c", yes), Selected::No);
        assert_eq!(select(&web, &deny(Some("b")), &pod, "c", yes), Selected::Yes);
        assert_eq!(select(&web, &[], &pod, "istio-proxy", yes), Selected::No);
        assert_eq!(
            select(&web, &[], &PodFolder::parse("b_web_x").unwrap(), "c", yes),
            Selected::No
        );
        assert_eq!(
            select(&web, &[], &pod, "c", Knowledge::Facts(&facts("a", &[]))),
            Selected::No
        );
        assert_eq!(
            select(
                &web,
                &[],
                &pod,
                "c",
                Knowledge::Facts(&facts("b", &[("app", "web")]))
            ),
            Selected::No
        );
        assert_eq!(
            select(&web, &[], &pod, "c", Knowledge::Awaited),
            Selected::Unknown
        );
        assert_eq!(
            select(&web, &[], &pod, "c", Knowledge::Missing { collected: false }),
            Selected::No
        );
        assert_eq!(
            select(&web, &[], &pod, "c", Knowledge::Missing { collected: true }),
            Selected::Yes
        );
        let all = pipeline(&[]);
        let spooled = PodFolder::parse("a_web_x_u").unwrap();
        assert_eq!(select(&all, &[], &spooled, "c", yes), Selected::No);
        let mut api = all.clone();
        api.pods.read_from = ReadFrom::Api;
        assert_eq!(select(&api, &[], &spooled, "c", yes), Selected::Yes);
        assert_eq!(select(&api, &[], &pod, "c", yes), Selected::No);
        let other = PodFolder::parse("a_web_x_other").unwrap();
        assert_eq!(select(&api, &[], &other, "c", yes), Selected::No);
        assert_eq!(
            select(&all, &[], &pod, "c", Knowledge::Awaited),
            Selected::Unknown
        );
        assert_eq!(
            select(&all, &[], &pod, "c", Knowledge::Missing { collected: false }),
            Selected::Yes
        );
    }
}
