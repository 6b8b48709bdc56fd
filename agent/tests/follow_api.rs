//! Reading through the API against a double of the API server: cuts, restarts, other pods of the same name, too
//! little room, too few requests; and the way from there through the worker.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod api_double;
mod files_rig;
#[path = "support/mounted.rs"]
mod mounted;

mod follow_api {
    mod gaps;
    pub(crate) mod rig;
    mod room;
}

use std::sync::Arc;
use std::time::{Duration, Instant};

use api_double::Instance;
use files_rig::{in_force, tenant};
use follow_api::rig::{LONG, Rig, files, lines, through_api, wait};
use sluice_agent::config::InForce;
use sluice_engine::document::Pipeline;
use sluice_engine::pointer::Denial;

#[tokio::test]
async fn nothing_is_lost_or_doubled_however_connections_and_agents_end() {
    let mut rig = Rig::new().await;
    rig.api.create("web", "1");
    rig.settings.bounds.file = 4_000;
    rig.start();
    // Many lines of a second are equal, their timestamps included.
    for number in 0..3_000_u32 {
        // The runtime reads the two outputs apart: one of them may lag behind by up to two seconds.
        let late = [0, 0, 0, 1, 0, 2, 0][number as usize % 7];
        let second = i64::from(number / 400) - late;
        let (nanos, text) = (number / 7 % 5, format!("line {}", number / 7 % 3));
        rig.api.write("web", second, nanos, &text);
        let asked = rig.api.model(|model| model.asked.len());
        match number % 300 {
            99 => rig.api.cut(true),
            199 => rig.api.cut(false),
            299 => rig.start(),
            _ => continue,
        }
        // Some more are written while nobody listens, and the next cut comes in the middle of them.
        wait(|| rig.api.model(|model| (model.asked.len() > asked).then_some(()))).await;
    }
    rig.until("1", 3_000).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (mut found, mut written) = (rig.spool("1"), rig.api.written("web"));
    let asked = rig.api.model(|model| model.asked.len());
    println!(
        "{} lines in {asked} requests: {} in the spool",
        written.len(),
        found.len()
    );
    assert_eq!(found.len(), written.len());
    found.sort();
    written.sort();
    assert!(found == written);
    assert!(asked > 20 && rig.post.take().is_none(), "no gap is told");
}

#[tokio::test]
async fn restarts_are_followed_and_what_came_before_is_read_first() {
    let mut rig = Rig::new().await;
    rig.api.create("web", "1");
    rig.api.write("web", 0, 1, "zero, before the agent");
    rig.api.restart("web", 10);
    rig.api.pod("web", |pod| pod.told = 2);
    rig.api.write("web", 10, 1, "one");
    rig.start();
    rig.until("1", 2).await;
    // The connection breaks, the container goes on, ends and begins anew before it is asked for again.
    rig.api
        .model(|model| model.refuse = Some((503, "kubelet is away")));
    rig.api.cut(false);
    rig.api.write("web", 11, 1, "one, its last words");
    rig.api.restart("web", 12);
    rig.api.write("web", 12, 1, "two");
    rig.api.pod("web", |pod| pod.told = 3);
    rig.tell("web");
    tokio::time::sleep(Duration::from_millis(100)).await;
    rig.api.model(|model| model.refuse = None);
    assert_eq!(rig.until("1", 4).await, rig.api.written("web"));
    let folder = rig.settings.root.join("a_web_1_uid-p/main");
    let restarts: Vec<u32> = files(&folder).iter().map(|name| name.restart).collect();
    assert_eq!(restarts, [0, 1, 2]);
    // Its end, a new agent, and nothing is read twice.
    rig.api.write("web", 13, 1, "two, its last words");
    rig.api
        .pod("web", |pod| pod.instances.last_mut().unwrap().over = true);
    rig.tell("web");
    rig.until("1", 5).await;
    rig.start();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(rig.spool("1"), rig.api.written("web"));
    assert!(rig.post.take().is_none(), "no gap is told");
}

#[tokio::test]
async fn a_pods_status_that_lags_behind_kubelet_loses_nothing() {
    let mut rig = Rig::new().await;
    rig.api.create("web", "1");
    rig.api.write("web", 0, 1, "zero");
    rig.start();
    rig.until("1", 1).await;
    // kubelet knows of the next instance, the API server does not, when the agent asks again.
    rig.api
        .model(|model| model.refuse = Some((503, "kubelet is away")));
    rig.api.cut(false);
    for number in 0..50 {
        rig.api.write("web", 1, number, "zero, not read yet");
    }
    rig.api.restart("web", 2);
    rig.api.write("web", 2, 1, "one, not known as such");
    rig.api.model(|model| model.refuse = None);
    // kubelet shows what was read last as the previous instance's, so this is not zero's log with a gap.
    let previous = |asked: &String| asked.contains("previous=true");
    wait(|| {
        rig.api
            .model(|model| model.asked.iter().any(previous).then_some(()))
    })
    .await;
    rig.api.write("web", 3, 1, "one, as well");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(rig.spool("1").len(), 1);
    rig.api.pod("web", |pod| pod.told = 2);
    rig.tell("web");
    rig.until("1", 53).await;
    rig.api.write("web", 4, 1, "one, known as such");
    assert_eq!(rig.until("1", 54).await, rig.api.written("web"));
    assert!(rig.post.take().is_none(), "no gap is told");
}

#[tokio::test]
async fn another_pod_of_the_same_name_is_not_read_in_its_place() {
    let mut rig = Rig::new().await;
    rig.api.create("web", "1");
    rig.start();
    wait(|| rig.api.model(|model| (model.streams == 1).then_some(()))).await;
    rig.api.cut(false);
    rig.api.create("web", "2");
    rig.api.write("web", 0, 1, "of the second");
    let asked = rig.api.model(|model| model.asked.len());
    wait(|| {
        rig.api
            .model(|model| (model.asked.len() > asked + 1).then_some(()))
    })
    .await;
    assert!(rig.spool("1").is_empty());
    rig.tell("web");
    assert_eq!(rig.until("2", 1).await, rig.api.written("web"));
    assert!(rig.spool("1").is_empty());
}

#[tokio::test]
async fn what_is_withdrawn_is_not_read_and_what_nobody_may_have_is_deleted() {
    let mut rig = Rig::new().await;
    rig.api.create("web", "1");
    rig.api.write("web", 0, 1, "allowed");
    rig.start();
    rig.until("1", 1).await;
    let mut config = InForce::clone(&rig.in_force.borrow());
    config.deny = vec![Denial {
        pipeline: config.pipelines[0].name.clone(),
        namespace: None,
    }];
    rig.in_force.send_replace(Arc::new(config.clone()));
    wait(|| rig.api.model(|model| (model.streams == 0).then_some(()))).await;
    rig.api.write("web", 1, 1, "suspended");
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(rig.spool("1").len(), 1);
    config.deny.clear();
    rig.in_force.send_replace(Arc::new(config.clone()));
    rig.until("1", 2).await;
    let mut pipeline = Pipeline::clone(&config.pipelines[0]);
    pipeline.pods.namespaces[0].name = "other".into();
    config.pipelines = vec![Arc::new(pipeline)];
    rig.in_force.send_replace(Arc::new(config));
    let folder = rig.settings.root.join("a_web_1_uid-p");
    wait(|| (!folder.exists()).then_some(())).await;
    wait(|| rig.api.model(|model| (model.streams == 0).then_some(()))).await;
}

#[tokio::test]
async fn containers_that_are_older_than_a_pipeline_that_begins_now() {
    let mut rig = Rig::new().await;
    let mut pipeline = through_api("p");
    pipeline.pods.since = Some(api_double::BEGIN + 100);
    rig.in_force
        .send_replace(Arc::new(in_force(vec![pipeline], vec![tenant("ops", 1 << 18)])));
    for (name, began) in [("web", 0), ("young", 101)] {
        rig.api.create(name, "1");
        rig.api.pod(name, |pod| {
            pod.instances = vec![Instance {
                began: api_double::BEGIN + began,
                ..Instance::default()
            }];
        });
    }
    rig.api.write("web", 99, 1, "before");
    rig.api.write("web", 100, 1, "after");
    rig.api.write("young", 102, 1, "all");
    rig.start();
    assert!(rig.until("1", 1).await[0].ends_with("after"));
    let young = rig.settings.root.join("a_young_1_uid-p/main");
    wait(|| Some(()).filter(|()| lines(&young).len() == 1)).await;
}

/// The whole way: the double's lines through the spool and a worker to a sink, the spool deleted at the end.
#[tokio::test]
async fn the_worker_delivers_what_is_spooled_and_the_spool_goes_with_its_pod() {
    let mut rig = Rig::new().await;
    rig.api.create("web", "1");
    rig.settings.bounds.file = 2_000;
    rig.start();
    let mut core = rig.core();
    let mut got: Vec<String> = Vec::new();
    let begun = Instant::now();
    let mut written = 0;
    let folder = rig.settings.root.join("a_web_1_uid-p");
    while got.len() < 500 || folder.exists() {
        assert!(
            begun.elapsed() < LONG,
            "{} of 500, {:?}",
            got.len(),
            files(&folder.join("main"))
        );
        if written < 500 {
            rig.api.write(
                "web",
                written / 20,
                u32::try_from(written).unwrap(),
                &format!("line {written}"),
            );
            written += 1;
        } else if got.len() == 500 && !rig.api.pod("web", |pod| pod.gone) {
            rig.api.pod("web", |pod| pod.gone = true);
            rig.tell("web");
        }
        for entry in rig.turn(&mut core) {
            assert_eq!(entry.metadata, "pod=web;", "the output's name is not known");
            got.push(entry.line);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let expected: Vec<String> = (0..500).map(|number| format!("line {number}")).collect();
    assert_eq!(got, expected);
}
