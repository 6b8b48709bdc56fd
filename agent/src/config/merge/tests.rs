use super::*;

fn tenant(name: &str, url: &str) -> serde_json::Value {
    serde_json::json!({"name": format!("logging/{name}"), "uid": format!("uid-{name}"), "hash": format!("{name}-{url}"),
        "pushUrl": format!("http://{url}/loki/api/v1/push")})
}

fn pipeline(name: &str, tenants: &[&str], hash: &str) -> serde_json::Value {
    let tenants: Vec<_> = tenants.iter().map(|t| format!("logging/{t}")).collect();
    serde_json::json!({"name": format!("team/{name}"), "uid": format!("uid-{name}"), "hash": hash, "tenants": tenants,
        "pods": {"namespaces": [{"name": "team"}]}})
}

fn apply(
    merged: &mut Merged,
    hash: &str,
    pipelines: &[serde_json::Value],
    tenants: &[serde_json::Value],
) -> Vec<String> {
    let json = serde_json::json!({"version": 1, "pipelines": pipelines, "tenants": tenants});
    let (document, refused) = Document::read(json.to_string().as_bytes()).unwrap();
    merged.apply(hash, document, refused)
}

fn hashes(merged: &Merged) -> Vec<String> {
    merged
        .pipelines
        .values()
        .map(|p| format!("{}={}", p.name.name, p.hash))
        .collect()
}

#[test]
fn a_refused_pipeline_keeps_its_last_good_content_and_the_others_go_on() {
    let mut merged = Merged::default();
    apply(
        &mut merged,
        "1",
        &[pipeline("a", &["ops"], "a1"), pipeline("b", &["ops"], "b1")],
        &[tenant("ops", "loki")],
    );
    let mut broken = pipeline("a", &["ops"], "a2");
    broken["labels"] = serde_json::json!({"static": {"9x": "v"}});
    apply(
        &mut merged,
        "2",
        &[broken, pipeline("b", &["ops"], "b2")],
        &[tenant("ops", "loki")],
    );
    assert_eq!(hashes(&merged), ["a=a1", "b=b2"]);
    assert_eq!(merged.document(), "2");
    let error = &merged.refused()[&Key::new("team", "a")];
    assert!(error.starts_with("labels.static[9x]: "), "{error}");
}

#[test]
fn an_unreadable_pipeline_keeps_its_last_good_content_with_the_tenant_that_is_gone_since() {
    let mut merged = Merged::default();
    apply(
        &mut merged,
        "1",
        &[pipeline("a", &["old"], "a1")],
        &[tenant("old", "loki")],
    );
    let mut unknown = pipeline("a", &["ops"], "a2");
    unknown["future"] = true.into();
    apply(&mut merged, "2", &[unknown], &[tenant("ops", "loki")]);
    assert_eq!(hashes(&merged), ["a=a1"]);
    let in_force = merged.in_force(&Store::default());
    let names: Vec<_> = in_force
        .tenants
        .iter()
        .map(|t| t.tenant.name.name.as_str())
        .collect();
    assert_eq!(names, ["old", "ops"]);
    // A document without the pipeline ends it, and the tenant that only it needed.
    apply(&mut merged, "3", &[], &[tenant("ops", "loki")]);
    assert!(hashes(&merged).is_empty() && merged.refused().is_empty());
    assert_eq!(merged.tenants.len(), 1);
}

#[test]
fn a_refused_tenant_keeps_its_last_good_content_or_takes_its_output_away() {
    let mut merged = Merged::default();
    let good = [tenant("ops", "loki"), tenant("dev", "loki")];
    apply(&mut merged, "1", &[pipeline("a", &["ops", "dev"], "a1")], &good);
    let mut ops = tenant("ops", "loki");
    ops["pushUrl"] = "nonsense".into();
    let mut fresh = tenant("fresh", "loki");
    fresh["pushUrl"] = "nonsense".into();
    apply(
        &mut merged,
        "2",
        &[
            pipeline("a", &["ops", "dev"], "a2"),
            pipeline("b", &["fresh", "dev"], "b2"),
            pipeline("c", &["fresh"], "c2"),
        ],
        &[ops, fresh, tenant("dev", "loki")],
    );
    assert_eq!(hashes(&merged), ["a=a2", "b=b2"]);
    assert_eq!(
        merged.pipelines[&Key::new("team", "b")].tenants,
        [Key::new("logging", "dev")]
    );
    let refused = merged.refused();
    assert!(
        refused[&Key::new("team", "a")]
            .starts_with("tenant logging/ops keeps its last good content: pushUrl")
    );
    for name in ["b", "c"] {
        assert!(
            refused[&Key::new("team", name)].starts_with("nothing is sent to tenant logging/fresh: pushUrl")
        );
    }
    for pipeline in merged.in_force(&Store::default()).pipelines {
        assert!(
            pipeline
                .tenants
                .iter()
                .all(|tenant| merged.tenants.contains_key(tenant))
        );
    }
}

#[test]
fn what_is_equal_keeps_its_allocation() {
    let mut merged = Merged::default();
    apply(
        &mut merged,
        "1",
        &[pipeline("a", &["ops"], "a1")],
        &[tenant("ops", "loki")],
    );
    let before = merged.in_force(&Store::default());
    apply(
        &mut merged,
        "2",
        &[pipeline("a", &["ops"], "a1")],
        &[tenant("ops", "loki")],
    );
    let after = merged.in_force(&Store::default());
    assert!(Arc::ptr_eq(&before.pipelines[0], &after.pipelines[0]));
    assert!(Arc::ptr_eq(&before.tenants[0].tenant, &after.tenants[0].tenant));
}

#[test]
fn what_has_no_name_is_listed() {
    let listed = apply(
        &mut Merged::default(),
        "1",
        &[serde_json::json!({"uid": "x"})],
        &[],
    );
    assert_eq!(listed.len(), 1);
    assert!(listed[0].starts_with("pipelines[0]: "), "{listed:?}");
}

#[test]
fn a_name_that_stands_twice_is_refused_and_the_first_stays() {
    let mut merged = Merged::default();
    apply(
        &mut merged,
        "1",
        &[pipeline("a", &["ops"], "1"), pipeline("a", &["ops"], "2")],
        &[tenant("ops", "loki")],
    );
    assert_eq!(hashes(&merged), ["a=1"]);
    assert!(merged.refused()[&Key::new("team", "a")].contains("twice"));
}
