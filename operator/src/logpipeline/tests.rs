//! A pipeline and facts in, through every pure step, its share and its status out.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use sluice_engine::key::Key;
use sluice_engine::report::{Lost, OutputReport, PipelineReport, Rejected, TenantReport, Warning};

use super::authorize::{self, Facts, NamespaceFact, authorize};
use super::nodes::next_silence;
use super::resolve::{Resolved, resolve};
use super::status;
use super::totals::Totals;
use super::touched::{Touched, touched};
use super::validate::validate;
use crate::api::logpipeline::LogPipelineStatus;
use crate::api::lokitenant::{AllowedNamespaces, From};
use crate::api::verdict::Moment;
use crate::fleet::observed::{Agent, Node, Observed};
use crate::tenant::book;

struct World {
    namespaces: BTreeMap<String, NamespaceFact>,
    account: bool,
    allowed: BTreeMap<&'static str, bool>,
    tenant: Option<book::Facts>,
}

fn world() -> World {
    let fact = |team: &str| NamespaceFact {
        uid: format!("uid-{team}"),
        created_at: Some(1),
        labels: [
            ("team".to_owned(), team.to_owned()),
            ("secret".to_owned(), "x".to_owned()),
        ]
        .into(),
    };
    let allowed = AllowedNamespaces {
        from: Some(From::All),
        selector: None,
    };
    World {
        namespaces: [("a".to_owned(), fact("a")), ("b".to_owned(), fact("b"))].into(),
        account: true,
        allowed: [("a", true), ("b", true)].into(),
        tenant: Some(book::Facts {
            allowed,
            hash: Some("t1".into()),
            trouble: None,
        }),
    }
}

fn steps(world: &World, pods: &str, more: &str) -> Resolved {
    let text = format!(
        "{{apiVersion: sluice.dev/v1alpha1, kind: LogPipeline, metadata: {{name: web, namespace: a, uid: u, generation: 3}}, spec: {{tenantRefs: [{{name: ops, namespace: logging}}], sources: {{pods: {pods}}}{more}}}}}"
    );
    let validated = validate(&serde_saphyr::from_str(&text).unwrap(), true).unwrap();
    let allowed = |namespace: &str| world.allowed.get(namespace).copied();
    let facts = Facts {
        namespaces: &world.namespaces,
        account: world.account,
        allowed: &allowed,
    };
    resolve(authorize(validated, &facts), &world.namespaces, &|_| {
        world.tenant.clone()
    })
}

fn node(resolved: &Resolved, change: impl FnOnce(&mut PipelineReport)) -> Node {
    let pipeline = resolved.share.pipeline.as_ref().unwrap();
    let ops = Key::new("logging", "ops");
    let mut report = PipelineReport {
        name: pipeline.name.clone(),
        uid: "u".into(),
        hash: pipeline.hash.clone(),
        generation: 3,
        refused: None,
        containers: 1,
        unread: None,
        outputs: vec![OutputReport {
            tenant: ops.clone(),
            lag_seconds: 0,
            rejected: Vec::new(),
            lost: Vec::new(),
            gap_count: 0,
            gaps: Vec::new(),
        }],
        warnings: Vec::new(),
    };
    change(&mut report);
    let tenant = TenantReport {
        name: ops.clone(),
        hash: "t1".into(),
        credentials: String::new(),
        problem: None,
    };
    let agent = Agent {
        epoch: 1,
        document: "d".into(),
        pipelines: [report].into_iter().collect(),
        tenants: [tenant].into_iter().collect(),
        warnings: Vec::new(),
    };
    Node {
        excused: false,
        agent: Some(Arc::new(agent)),
        silent_since: None,
    }
}

fn seen(resolved: &Resolved, nodes: Vec<Node>) -> LogPipelineStatus {
    let old = LogPipelineStatus::default();
    let nodes = nodes
        .into_iter()
        .enumerate()
        .map(|(index, node)| (format!("n{index}"), node))
        .collect();
    let observed = Observed {
        nodes,
        document: "d".into(),
        ..Observed::default()
    };
    let moment = Moment {
        old: &[],
        generation: 3,
        now: Timestamp::from_second(1_000).unwrap(),
    };
    status(resolved, &observed, &old, &moment)
}

fn status(
    resolved: &Resolved,
    observed: &Observed,
    old: &LogPipelineStatus,
    moment: &Moment<'_>,
) -> LogPipelineStatus {
    let mut totals = Totals::begin(old);
    for (name, node) in &observed.nodes {
        let agent = node.agent.as_ref();
        if let Some((agent, report)) = agent.and_then(|agent| {
            let key = &resolved.share.pipeline.as_ref()?.name;
            Some((agent, agent.pipelines.get(key)?))
        }) {
            totals.take(name, agent.epoch, report);
        }
    }
    status::status(resolved, observed, totals.total(), old, moment)
}

fn reason(status: &LogPipelineStatus, kind: &str) -> (String, String) {
    let found = status
        .conditions
        .iter()
        .find(|condition| condition.type_ == kind)
        .unwrap();
    (found.status.clone(), found.reason.clone())
}

fn is(status: &LogPipelineStatus, kind: &str, expected: &str, why: &str) {
    assert_eq!(
        reason(status, kind),
        (expected.to_owned(), why.to_owned()),
        "{kind}: {status:#?}"
    );
}

#[test]
fn granted_namespaces_carry_only_the_labels_that_are_used() {
    let labels = ", labels: {fromNamespaceLabels: [{label: team, namespaceLabel: team}]}";
    let resolved = steps(&world(), "{namespaces: {all: true, excludeNames: [b]}}", labels);
    let namespaces = &resolved.share.pipeline.as_ref().unwrap().pods.namespaces;
    assert_eq!(namespaces.len(), 1);
    assert_eq!(namespaces[0].uid.as_deref(), Some("uid-a"));
    assert_eq!(namespaces[0].labels, [("team".to_owned(), "a".to_owned())].into());
    assert!(resolved.share.deny.is_empty());
}

#[test]
fn a_named_denied_namespace_is_left_out_denied_and_named() {
    let mut world = world();
    world.allowed.insert("b", false);
    let resolved = steps(&world, "{namespaces: {names: [a, b]}}", "");
    assert_eq!(resolved.share.pipeline.as_ref().unwrap().pods.namespaces.len(), 1);
    assert_eq!(resolved.share.deny[0].namespace.as_deref(), Some("b"));
    let status = seen(&resolved, vec![node(&resolved, |_| {})]);
    is(&status, "Authorized", "False", "NotAuthorized");
    is(&status, "Stalled", "True", "NotAuthorized");
    let namespaces = status.namespaces.unwrap();
    assert_eq!(
        (namespaces.granted, namespaces.denied),
        (vec!["a".to_owned()], vec!["b".to_owned()])
    );
    let command = "kubectl create rolebinding sluice-log-reader -n b --clusterrole=sluice-log-reader --serviceaccount=a:default";
    assert!(status.diagnosis.unwrap().contains(command));
}

#[test]
fn a_namespace_denied_by_selector_is_counted_and_not_named() {
    let mut world = world();
    world.allowed.insert("b", false);
    let resolved = steps(&world, "{namespaces: {all: true}}", "");
    let status = seen(&resolved, vec![node(&resolved, |_| {})]);
    is(&status, "Authorized", "True", "PartiallyAuthorized");
    is(&status, "Ready", "True", "Ready");
    let namespaces = status.namespaces.unwrap();
    assert_eq!(
        (
            namespaces.denied.len(),
            namespaces.denied_count,
            namespaces.granted_count
        ),
        (0, 1, 1)
    );
    assert!(!status.diagnosis.unwrap().contains("-n b"));
}

#[test]
fn what_is_not_known_is_not_collected() {
    let mut world = world();
    world.allowed.clear();
    let resolved = steps(&world, "{}", "");
    assert!(resolved.authorized.pending);
    assert_eq!(resolved.share.pipeline, None);
    world.account = false;
    let resolved = steps(&world, "{}", "");
    assert_eq!(resolved.authorized.verdict.reason, "ServiceAccountNotFound");
    assert!(!resolved.share.deny.is_empty());
}

#[test]
fn what_is_not_known_of_one_namespace_is_not_called_authorized() {
    let mut world = world();
    world.allowed.remove("b");
    let resolved = steps(&world, "{namespaces: {names: [a, b]}}", "");
    let status = seen(&resolved, vec![node(&resolved, |_| {})]);
    is(&status, "Authorized", "Unknown", "Pending");
    assert_ne!(reason(&status, "Ready").0, "True");
    assert_eq!(resolved.share.deny[0].namespace.as_deref(), Some("b"));
}

#[test]
fn a_foreign_tenant_that_is_missing_or_does_not_consent_looks_the_same() {
    let mut without = world();
    without.tenant = None;
    let mut refusing = world();
    refusing.tenant = Some(book::Facts {
        hash: Some("t1".into()),
        ..book::Facts::default()
    });
    let (a, b) = (steps(&without, "{}", ""), steps(&refusing, "{}", ""));
    assert_eq!(a.verdict, b.verdict);
    assert_eq!(a.verdict.reason, "RefNotPermitted");
    assert_eq!(a.share.pipeline, None);
}

#[test]
fn ready_follows_the_nodes() {
    let resolved = steps(&world(), "{}", "");
    let good = || node(&resolved, |_| {});
    let ready = |nodes| seen(&resolved, nodes);
    is(&ready(vec![good(), good()]), "Ready", "True", "Ready");
    assert_eq!(ready(vec![good()]).display.unwrap().nodes, "1/1");
    let behind = node(&resolved, |report| report.hash = "old".into());
    let status = ready(vec![good(), behind.clone()]);
    is(&status, "Ready", "False", "RollingOut");
    is(&status, "Reconciling", "True", "RollingOut");
    let refused = node(&resolved, |report| {
        report.hash = "old".into();
        report.refused = Some("no".into());
    });
    let status = ready(vec![good(), refused]);
    is(&status, "Programmed", "False", "RefusedByAgent");
    assert_eq!(status.worst_nodes[0].last_error.as_deref(), Some("no"));
    let silent = Node {
        excused: false,
        agent: None,
        silent_since: Some(900),
    };
    is(
        &ready(vec![good(), silent.clone()]),
        "Ready",
        "False",
        "AgentUnreachable",
    );
    let excused = Node {
        excused: true,
        ..silent
    };
    is(&ready(vec![good(), excused]), "Ready", "True", "Ready");
    let late = node(&resolved, |report| report.outputs[0].lag_seconds = 60);
    is(&ready(vec![good(), late]), "Delivering", "False", "Lagging");
    is(&ready(Vec::new()), "Ready", "False", "NoNodes");
    let blind = node(&resolved, |report| {
        report.unread = Some("a/web/main cannot be read".into());
    });
    let status = ready(vec![good(), blind]);
    is(&status, "Delivering", "False", "ApiReadFailing");
    assert_eq!(
        status.worst_nodes[0].last_error.as_deref(),
        Some("a/web/main cannot be read")
    );
}

/// The same node, with an agent that warns of this.
fn warning(mut node: Node, reason: &str) -> Node {
    let mut agent = (**node.agent.as_ref().unwrap()).clone();
    agent.warnings.push(Warning {
        reason: reason.into(),
        message: format!("{reason} is so."),
    });
    node.agent = Some(Arc::new(agent));
    node
}

#[test]
fn what_agents_warn_of_is_told_with_its_node() {
    let resolved = steps(&world(), "{}", "");
    let good = || node(&resolved, |_| {});
    let of_pipeline = |reason: &str| {
        node(&resolved, |report| {
            report.warnings.push(Warning {
                reason: reason.into(),
                message: format!("{reason} is so."),
            });
        })
    };
    let own = || of_pipeline("LabelsCurtailed");
    let (files, through_api) = (Warning::LOG_FILES_NOT_READ, Warning::API_READ_FAILING);
    let (watches, root) = ("WatchesExhausted", Warning::LOG_ROOT_UNREADABLE);
    for (nodes, ready, told) in [
        (vec![good()], "Ready", None),
        (
            vec![good(), warning(good(), watches)],
            "Ready",
            Some("on n1: WatchesExhausted is so."),
        ),
        (
            vec![own(), good()],
            "Ready",
            Some("on n0: LabelsCurtailed is so."),
        ),
        // The pipeline's own goes first, and first of all that nothing arrives from a node.
        (
            vec![warning(good(), watches), own()],
            "Ready",
            Some("on n1: LabelsCurtailed is so."),
        ),
        (
            vec![warning(own(), watches)],
            "Ready",
            Some("on n0: LabelsCurtailed is so."),
        ),
        // What the pipelines that it concerns tell is nothing to the others.
        (vec![warning(warning(good(), files), through_api)], "Ready", None),
        (
            vec![warning(of_pipeline(files), files)],
            "Ready",
            Some("on n0: LogFilesNotRead is so."),
        ),
        (
            vec![own(), warning(good(), root)],
            "LogsUnreadable",
            Some("on n1: LogRootUnreadable is so."),
        ),
    ] {
        let status = seen(&resolved, nodes);
        is(
            &status,
            "Ready",
            if ready == "Ready" { "True" } else { "False" },
            ready,
        );
        assert_eq!(status.diagnosis.as_deref(), told);
        let delivering = status
            .conditions
            .iter()
            .find(|condition| condition.type_ == "Delivering");
        assert!(delivering.unwrap().message.ends_with(told.unwrap_or("in time")));
    }
    // An agent that does not count is not heard.
    let excused = Node {
        excused: true,
        ..node(&resolved, |report| report.hash = "old".into())
    };
    assert_eq!(
        seen(&resolved, vec![good(), warning(excused, root)]).diagnosis,
        None
    );
}

#[test]
fn a_new_warning_of_an_agent_touches_every_pipeline() {
    let resolved = steps(&world(), "{}", "");
    let observed = |node: Node| Observed {
        nodes: [("n0".to_owned(), node)].into(),
        document: "d".into(),
        ..Observed::default()
    };
    let good = observed(node(&resolved, |_| {}));
    let warned = observed(warning(node(&resolved, |_| {}), "WatchesExhausted"));
    assert_eq!(touched(&good, &warned), Touched::All);
    assert_eq!(touched(&warned, &good), Touched::All);
}

#[test]
fn a_change_of_leader_changes_no_status() {
    let resolved = steps(&world(), "{}", "");
    for (lag, warned) in [
        (0, None),
        (30, None),
        (60, None),
        (0, Some("WatchesExhausted")),
        (60, Some("WatchesExhausted")),
        (0, Some(Warning::LOG_ROOT_UNREADABLE)),
    ] {
        let lagging = node(&resolved, |report| report.outputs[0].lag_seconds = lag);
        let lagging = match warned {
            Some(reason) => warning(lagging, reason),
            None => lagging,
        };
        let known = seen(&resolved, vec![lagging]);
        let unheard = Node {
            excused: false,
            agent: None,
            silent_since: Some(995),
        };
        let observed = Observed {
            nodes: [("n0".to_owned(), unheard)].into(),
            document: "d".into(),
            ..Observed::default()
        };
        let at = |second| {
            let moment = Moment {
                old: &known.conditions,
                generation: 3,
                now: Timestamp::from_second(second).unwrap(),
            };
            status(&resolved, &observed, &known, &moment)
        };
        let mut bare = known.clone();
        bare.worst_nodes.clear();
        assert_eq!(at(1_000), bare, "lag {lag}, {warned:?}");
        // what lasts is told, and looked at when it is due
        assert_eq!(reason(&at(1_010), "Ready").1, "AgentUnreachable");
        let next = |now| next_silence(&observed, now).map(|next| next.as_secs());
        assert_eq!((next(1_000), next(1_009), next(1_010)), (Some(10), Some(1), None));
    }
}

#[test]
fn trouble_of_a_tenant_is_named_and_a_suspended_pipeline_is_not_stalled() {
    let mut troubled = world();
    troubled.tenant.as_mut().unwrap().trouble = Some("Unauthorized");
    let resolved = steps(&troubled, "{}", "");
    let status = seen(&resolved, vec![node(&resolved, |_| {})]);
    is(&status, "Ready", "False", "TenantNotReady");
    assert!(status.diagnosis.unwrap().contains("Unauthorized"));

    let resolved = steps(&world(), "{}", ", suspend: true");
    let status = seen(&resolved, vec![node(&resolved, |_| {})]);
    is(&status, "Ready", "False", "Suspended");
    assert!(
        status
            .conditions
            .iter()
            .all(|condition| condition.type_ != "Stalled")
    );
    assert_eq!(resolved.share.deny.len(), 1);
}

#[test]
fn rejected_lines_are_summed_and_do_not_fall() {
    let resolved = steps(&world(), "{}", "");
    let rejecting = |lines| {
        node(&resolved, |report| {
            report.outputs[0].rejected = vec![Rejected {
                reason: "line_too_long".into(),
                lines,
            }];
        })
    };
    let old = seen(&resolved, vec![rejecting(2), rejecting(3)]);
    assert_eq!(old.rejected[0].lines, 5);
    let observed = Observed {
        nodes: [("n".to_owned(), rejecting(3))].into(),
        ..Observed::default()
    };
    let moment = Moment {
        old: &old.conditions,
        generation: 3,
        now: Timestamp::from_second(1_000).unwrap(),
    };
    assert_eq!(status(&resolved, &observed, &old, &moment).rejected[0].lines, 5);
}

#[test]
fn named_namespaces_are_asked_for_whether_they_exist_or_not() {
    let resolved = steps(&world(), "{namespaces: {names: [zzz]}}", "");
    let selection = &resolved.authorized.validated.selection;
    assert!(authorize::selected(selection, &world().namespaces).contains("zzz"));
}

#[test]
fn lines_that_were_given_up_are_told_while_all_is_well() {
    let resolved = steps(&world(), "{}", "");
    let lost = |lines| {
        let lost = Lost {
            reason: "no_space".into(),
            lines,
            bytes: 10 * lines,
        };
        node(&resolved, |report| report.outputs[0].lost.push(lost))
    };
    let status = seen(&resolved, vec![lost(2), lost(3), node(&resolved, |_| ())]);
    is(&status, "Ready", "True", "Ready");
    let diagnosis = status.diagnosis.unwrap();
    assert!(
        diagnosis.starts_with("5 lines (50 bytes) were read and given up"),
        "{diagnosis}"
    );
    assert_eq!(status.lost.unwrap().bytes, 50);
    assert_eq!(seen(&resolved, vec![node(&resolved, |_| ())]).diagnosis, None);
}
