//! What the API shows no more is told, with what stands around it.
use std::sync::Arc;
use std::time::Duration;

use super::rig::{Around, Rig, around, at, lines, wait};
use crate::api_double::BEGIN;
use crate::files_rig::{FakeSink, in_force, pipeline, tenant};
use sluice_agent::follow::record::PIECE;
use sluice_agent::worker::Core;
use sluice_engine::document::ReadFrom;
use sluice_engine::report::GapCause;

#[tokio::test]
async fn what_was_rotated_away_meanwhile_is_a_gap() {
    let mut rig = Rig::new().await;
    let mut pipeline = pipeline("p", &["ops", "audit"]);
    pipeline.pods.read_from = ReadFrom::Api;
    let tenants = ["ops", "audit"].map(|name| tenant(name, 1 << 18));
    rig.in_force
        .send_replace(Arc::new(in_force(vec![pipeline], tenants.to_vec())));
    rig.api.create("web", "1");
    rig.api.write("web", 0, 1, "read");
    rig.start();
    rig.until("1", 1).await;
    rig.api
        .model(|model| model.refuse = Some((503, "kubelet is away")));
    rig.api.cut(true);
    rig.api.write("web", 1, 1, "rotated away");
    rig.api.write("web", 2, 1, "left");
    rig.api.pod("web", |pod| pod.instances[0].rotated = 2);
    rig.api.model(|model| model.refuse = None);
    // An agent that ends before anybody took it down has not read on, so that the next one finds it again.
    let gap = (GapCause::ApiLogsGone, Some(at(0, 1)), Some(at(2, 1)));
    assert_eq!(rig.vanished().await, gap);
    assert_eq!(rig.spool("1").len(), 1);
    rig.start();
    let mut core = rig.core();
    rig.until_told(&mut core).await;
    rig.until("1", 2).await;
    let told = |rig: &Rig, core: &mut Core<FakeSink>| -> Vec<Vec<Around>> {
        let gaps = rig.gaps(core);
        gaps.iter()
            .map(|gaps| gaps.iter().map(around).collect())
            .collect()
    };
    assert_eq!(told(&rig, &mut core), [[gap], [gap]], "each output misses it");
    // It is told once, whoever begins anew.
    drop(core);
    let mut core = rig.core();
    assert_eq!(told(&rig, &mut core), [[gap], [gap]]);
    rig.api.write("web", 3, 1, "read on");
    rig.start();
    rig.until("1", 3).await;
    assert_eq!(told(&rig, &mut core), [[gap], [gap]]);
}

#[tokio::test]
async fn what_comes_behind_a_gap_is_not_joined_to_a_line_whose_end_is_gone() {
    for killed in [false, true] {
        let mut rig = Rig::new().await;
        rig.api.create("web", "1");
        rig.api.write("web", 0, 1, "read");
        rig.start();
        rig.until("1", 1).await;
        // The connection breaks in the middle of a long line.
        let long = "x".repeat(3 * PIECE);
        rig.api.model(|model| {
            model.refuse = Some((503, "kubelet is away"));
            (model.clean, model.cut) = (true, model.cut + 1);
            let lines = &mut model.pods.get_mut("web").unwrap().instances[0].lines;
            lines.push((BEGIN + 1, 1, long));
        });
        assert!(rig.until("1", 2).await[1].contains(" stdout P x"));
        if killed {
            rig.start();
        }
        rig.api.write("web", 2, 1, "left");
        rig.api.pod("web", |pod| pod.instances[0].rotated = 2);
        rig.api.model(|model| model.refuse = None);
        let mut core = rig.core();
        let mut sent = Vec::new();
        wait(|| {
            let _heard = rig.gaps(&mut core);
            sent.extend(rig.turn(&mut core).into_iter().map(|entry| entry.line));
            sent.iter().any(|line| line.ends_with("left")).then_some(())
        })
        .await;
        let lengths: Vec<usize> = sent.iter().map(String::len).collect();
        assert_eq!(lengths, ["read".len(), PIECE, "left".len()]);
        let told: Vec<Around> = rig.gaps(&mut core)[0].iter().map(around).collect();
        assert_eq!(told, [(GapCause::ApiLogsGone, Some(at(1, 1)), Some(at(2, 1)))]);
    }
}

#[tokio::test]
async fn whole_instances_that_nobody_saw_are_a_gap() {
    let mut rig = Rig::new().await;
    rig.api.create("web", "1");
    rig.api.write("web", 0, 1, "zero");
    rig.start();
    rig.until("1", 1).await;
    rig.stop();
    for (second, line) in [(10, "one"), (20, "two"), (30, "three")] {
        rig.api.restart("web", second);
        rig.api.write("web", second, 1, line);
    }
    rig.api.pod("web", |pod| pod.told = 4);
    rig.start();
    let mut core = rig.core();
    rig.until_told(&mut core).await;
    let found = rig.until("1", 3).await;
    let contents: Vec<&str> = found
        .iter()
        .map(|line| line.rsplit(' ').next().unwrap())
        .collect();
    assert_eq!(contents, ["zero", "two", "three"]);
    let told: Vec<Around> = rig.gaps(&mut core)[0].iter().map(around).collect();
    assert_eq!(told, [(GapCause::ApiLogsGone, Some(at(0, 1)), Some(at(20, 1)))]);
}

#[tokio::test]
async fn the_end_of_an_instance_that_kubelet_has_no_more_is_a_gap() {
    let mut rig = Rig::new().await;
    rig.api.create("web", "1");
    rig.api.write("web", 0, 1, "zero");
    rig.start();
    rig.until("1", 1).await;
    rig.stop();
    rig.api.restart("web", 10);
    rig.api.pod("web", |pod| pod.told = 2);
    rig.api.write("web", 10, 1, "one");
    // The pod's status has the previous instance, kubelet has its log no more.
    rig.api.model(|model| model.forgotten = true);
    rig.start();
    let gap = (GapCause::ApiLogsGone, Some(at(0, 1)), Some(at(10, 1)));
    assert_eq!(rig.vanished().await, gap);
}

#[tokio::test]
async fn what_a_deleted_pod_takes_with_it_is_a_gap() {
    let mut rig = Rig::new().await;
    for name in ["web", "x"] {
        rig.api.create(name, "1");
        rig.api.write(name, 0, 1, "read");
    }
    rig.start();
    rig.until("1", 1).await;
    let other = rig.settings.root.join("a_x_1_uid-p/main");
    wait(|| Some(()).filter(|()| lines(&other).len() == 1)).await;
    // Its request is under way and comes to its end: nothing is missing.
    rig.api.pod("x", |pod| pod.gone = true);
    rig.tell("x");
    wait(|| rig.api.model(|model| (model.streams == 1).then_some(()))).await;
    // This one cannot be asked for when it is deleted.
    rig.api
        .model(|model| model.refuse = Some((403, "pods is forbidden")));
    let asked = rig.api.model(|model| model.asked.len());
    rig.api.cut(true);
    wait(|| rig.api.model(|model| (model.asked.len() > asked).then_some(()))).await;
    rig.api.pod("web", |pod| pod.gone = true);
    rig.tell("web");
    let mut core = rig.core();
    rig.until_told(&mut core).await;
    // Told again after a restart, when nobody knows the pods, it is the same gap; the other one is known to be whole.
    rig.start();
    let gap = (GapCause::ApiLogsGone, Some(at(0, 1)), None);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let told: Vec<Around> = rig.gaps(&mut core)[0].iter().map(around).collect();
    assert_eq!(told, [gap]);
}

#[tokio::test]
async fn a_pod_that_was_deleted_while_the_agent_was_down_may_have_written_more() {
    let mut rig = Rig::new().await;
    rig.api.create("web", "1");
    rig.api.write("web", 0, 1, "read");
    rig.start();
    rig.until("1", 1).await;
    rig.stop();
    rig.api.pod("web", |pod| pod.gone = true);
    rig.start();
    let gap = (GapCause::PodDeletedMeanwhile, Some(at(0, 1)), None);
    assert_eq!(rig.vanished().await, gap);
}
