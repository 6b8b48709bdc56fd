//! What kubelet, runtimes and attackers do to log files, case by case.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod files_rig;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::time::Duration;

use files_rig::{POD, Rig, cri, gzip, in_force, pipeline, tenant};
use sluice_agent::metadata::{PodChange, PodFacts};
use sluice_agent::worker::Command;
use sluice_engine::document::StartAt;
use sluice_engine::key::Key;
use sluice_engine::pointer::Denial;

fn facts(labels: &[(&str, &str)]) -> Command {
    Command::Pod(PodChange::Applied(Box::new(PodFacts {
        uid: "uid-1".into(),
        namespace: "a".into(),
        name: "web-0".into(),
        labels: labels
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect(),
        controller: None,
    })))
}

#[test]
fn lines_arrive_with_labels_and_a_clean_restart_sends_nothing_twice() {
    let mut rig = Rig::new();
    rig.log("0.log", &["one", "two"]);
    rig.write("0.log", cri("stderr", "F", "three"));
    rig.run(1500);
    assert_eq!(rig.lines(), ["one", "two", "three"]);
    assert_eq!(
        rig.acked[0].labels,
        r#"{container="c", namespace="a", node_name="node1"}"#
    );
    assert_eq!(rig.acked[2].metadata, "pod=web-0;stream=stderr;");
    let figures = rig.core().figures();
    let output = &figures.pipelines[&Key::new("a", "p")].outputs[&Key::new("logging", "t")];
    assert_eq!(
        (
            output.delivered_lines,
            output.delivered_bytes,
            output.oldest_unacknowledged
        ),
        (3, 11, None)
    );
    assert_eq!(figures.open_files, 1);
    rig.crash();
    rig.log("0.log", &["four"]);
    rig.run(1500);
    assert_eq!(rig.lines(), ["one", "two", "three", "four"]);
}

#[test]
fn generations_missed_while_down_are_read_in_order_compressed_or_not() {
    let mut rig = Rig::new();
    rig.log("0.log", &["1", "2"]);
    rig.run(1500);
    rig.log("0.log", &["3"]);
    rig.core = None;
    let folder = rig.folder();
    for (stamp, line) in [
        ("20261120-175001", "4"),
        ("20261120-175011", "5"),
        ("20261120-175021", "6"),
    ] {
        fs::rename(folder.join("0.log"), folder.join(format!("0.log.{stamp}"))).unwrap();
        rig.log("0.log", &[line]);
    }
    gzip(&folder.join("0.log.20261120-175001"));
    gzip(&folder.join("0.log.20261120-175011"));
    rig.start();
    rig.run(3000);
    assert_eq!(rig.lines(), ["1", "2", "3", "4", "5", "6"]);
}

#[test]
fn a_rotated_file_is_drained_though_it_grows_after_the_rename_and_is_deleted() {
    let mut rig = Rig::new();
    rig.log("0.log", &["1"]);
    rig.run(300);
    let folder = rig.folder();
    let mut old = fs::OpenOptions::new()
        .append(true)
        .open(folder.join("0.log"))
        .unwrap();
    fs::rename(folder.join("0.log"), folder.join("0.log.20261120-175001")).unwrap();
    rig.run(300);
    rig.log("0.log", &["3"]);
    rig.run(300);
    std::io::Write::write_all(&mut old, cri("stdout", "F", "2").as_bytes()).unwrap();
    fs::remove_file(folder.join("0.log.20261120-175001")).unwrap();
    rig.run(3000);
    assert_eq!(rig.lines(), ["1", "2", "3"]);
    assert_eq!(rig.core().figures().open_files, 1);
}

#[test]
fn a_deleted_pod_is_drained_and_then_forgotten() {
    let mut rig = Rig::new();
    rig.core().sink().window = 0;
    rig.log("0.log", &["1", "2"]);
    rig.write(
        "0.log",
        "2026-11-20T17:50:02Z stdout P no end\n2026-11-20T17:50:03Z stdout F no lf",
    );
    rig.turn();
    fs::remove_dir_all(rig.dir.path().join("pods").join(POD)).unwrap();
    rig.turn();
    rig.core().sink().window = 10;
    rig.run(3000);
    assert_eq!(rig.lines(), ["1", "2", "no endno lf"]);
    assert_eq!(rig.core().figures().open_files, 0);
    rig.core().save();
    let journal = fs::read(rig.dir.path().join("state/journal")).unwrap();
    let (ledger, _) = sluice_agent::checkpoint::ledger::Ledger::decode(&journal);
    assert!(ledger.cursors.is_empty());
}

#[test]
fn a_pod_that_lives_for_a_moment_while_its_labels_are_awaited_is_collected() {
    let mut selective = pipeline("p", &["t"]);
    selective.pods.selector.match_labels = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
    let mut rig = Rig::with(in_force(vec![selective], vec![tenant("t", 4096)]));
    rig.facts_wait = Duration::from_secs(5);
    rig.crash();
    rig.log("0.log", &["1"]);
    rig.turn();
    fs::remove_dir_all(rig.dir.path().join("pods").join(POD)).unwrap();
    rig.run(1000);
    assert!(rig.lines().is_empty());
    let now = rig.now;
    rig.core().command(facts(&[("app", "web")]), now);
    rig.run(1000);
    assert_eq!(rig.lines(), ["1"]);
}

#[test]
fn unknown_pods_are_not_collected_by_selectors_but_drained_if_they_were_before() {
    let mut selective = pipeline("p", &["t"]);
    selective.pods.selector.match_labels = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
    let mut rig = Rig::with(in_force(vec![selective], vec![tenant("t", 4096)]));
    rig.log("0.log", &["1"]);
    rig.run(1000);
    assert!(rig.lines().is_empty());
    let now = rig.now;
    rig.core().command(facts(&[("app", "web")]), now);
    rig.run(1500);
    rig.log("0.log", &["2"]);
    rig.crash();
    rig.run(1500);
    assert_eq!(rig.lines(), ["1", "2"]);
    let now = rig.now;
    rig.core().command(facts(&[("app", "other")]), now);
    rig.log("0.log", &["3"]);
    rig.run(1500);
    assert_eq!(rig.lines(), ["1", "2"]);
}

#[test]
fn withdrawn_rights_end_the_collection_at_once_and_suspending_keeps_the_position() {
    let mut rig = Rig::new();
    rig.log("0.log", &["1"]);
    rig.run(1500);
    let granted = rig.config.clone();
    let mut denied = granted.clone();
    denied.deny = vec![Denial {
        pipeline: Key::new("a", "p"),
        namespace: Some("a".into()),
    }];
    rig.log("0.log", &["2"]);
    rig.apply(denied);
    rig.run(1500);
    assert_eq!(rig.lines(), ["1"]);
    rig.apply(granted.clone());
    rig.run(1500);
    assert_eq!(rig.lines(), ["1", "2"]);
    rig.apply(in_force(Vec::new(), Vec::new()));
    rig.log("0.log", &["3"]);
    rig.run(1500);
    rig.crash();
    rig.run(1500);
    rig.apply(granted);
    rig.run(1500);
    assert_eq!(rig.lines(), ["1", "2", "3"]);
}

#[test]
fn start_at_now_skips_what_exists_once() {
    let mut now = pipeline("p", &["t"]);
    now.pods.start_at = StartAt::Now;
    let mut rig = Rig::with(in_force(vec![now], vec![tenant("t", 4096)]));
    rig.log("0.log", &["old"]);
    rig.write("0.log", "2026-11-20T17:50:01Z stdout F hal");
    rig.turn();
    rig.write("0.log", "f\n");
    rig.log("0.log", &["1"]);
    rig.run(1500);
    rig.core = None;
    let other = rig.dir.path().join("pods/a_web-1_uid-2/c");
    fs::create_dir_all(&other).unwrap();
    fs::write(other.join("0.log"), cri("stdout", "F", "2")).unwrap();
    rig.start();
    rig.run(1500);
    assert_eq!(rig.lines(), ["half", "1", "2"]);
}

#[test]
fn lines_older_than_the_namespace_are_skipped() {
    let mut young = pipeline("p", &["t"]);
    young.pods.namespaces[0].created_at = Some(1_795_197_001);
    let mut rig = Rig::with(in_force(vec![young], vec![tenant("t", 4096)]));
    rig.write("0.log", "2026-11-20T17:50:00.9Z stdout F somebody else's\n");
    rig.log("0.log", &["mine"]);
    rig.run(1500);
    assert_eq!(rig.lines(), ["mine"]);
}

#[test]
fn torn_lines_are_sent_as_they_are() {
    let mut rig = Rig::new();
    let torn = "2026-11-20T17:50:01Z stdout 2026-11-20T17:50:01Z stdout F x";
    rig.write("0.log", format!("{torn}\n"));
    rig.log("0.log", &["good"]);
    rig.write("0.log", "\nx\n");
    rig.run(1500);
    assert_eq!(rig.lines(), [torn, "good", "", "x"]);
    assert!(
        rig.acked
            .iter()
            .all(|sent| (sent.seconds, sent.nanos) == (1_795_197_001, 500_000_000))
    );
    assert_eq!(rig.core().figures().malformed_lines, 3);
}

#[test]
fn a_line_of_50_mib_takes_no_more_memory_than_the_buffer() {
    let mut rig = Rig::new();
    rig.core().sink().room = 1000;
    rig.write("0.log", "2026-11-20T17:50:01.5Z stdout F ");
    let block = "x".repeat(1 << 20);
    for _ in 0..50 {
        rig.write("0.log", &block);
    }
    rig.run(500);
    rig.write("0.log", "\n");
    rig.log("0.log", &["after"]);
    rig.run(2500);
    let lines = rig.lines();
    let (last, parts) = lines.split_last().unwrap();
    assert_eq!(*last, "after");
    let mut bytes = 0;
    for (index, part) in parts.iter().enumerate() {
        assert!(part.len() <= 4096);
        bytes += part
            .strip_suffix(&format!(" [sluice: part {}]", index + 1))
            .unwrap()
            .len();
    }
    assert_eq!(bytes, 50 << 20);
}

#[test]
fn files_that_shrink_or_are_rewritten_are_read_anew() {
    let mut rig = Rig::new();
    rig.log("0.log", &["1", "2", "3"]);
    rig.run(1500);
    fs::write(rig.folder().join("0.log"), cri("stdout", "F", "4")).unwrap();
    rig.run(1500);
    fs::write(
        rig.folder().join("0.log"),
        cri("stdout", "F", "5 is longer than 4 was"),
    )
    .unwrap();
    rig.run(1500);
    assert_eq!(rig.lines(), ["1", "2", "3", "4", "5 is longer than 4 was"]);
    assert_eq!(rig.core().figures().resets["file_rewritten"], 2);
}

#[test]
fn hostile_names_are_left_alone() {
    let mut rig = Rig::new();
    fs::write(rig.dir.path().join("secret"), cri("stdout", "F", "secret")).unwrap();
    let folder = rig.folder();
    symlink(rig.dir.path().join("secret"), folder.join("0.log")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        folder.join("1.log"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    fs::create_dir(folder.join("2.log")).unwrap();
    let pods = rig.dir.path().join("pods");
    fs::create_dir(pods.join("lost+found")).unwrap();
    fs::write(pods.join("a_file_x"), "").unwrap();
    symlink(rig.dir.path(), pods.join("a_link_y")).unwrap();
    symlink(rig.dir.path(), pods.join(POD).join("link")).unwrap();
    let own = pods.join("a_agent_own/c");
    fs::create_dir_all(&own).unwrap();
    fs::write(own.join("0.log"), cri("stdout", "F", "own")).unwrap();
    rig.log("3.log", &["good"]);
    rig.run(1500);
    assert_eq!(rig.lines(), ["good"]);
}

#[test]
fn an_unfinished_line_is_ended_by_the_clock_and_a_replay_ends_it_there_too() {
    let mut rig = Rig::new();
    rig.write("0.log", cri("stdout", "P", "prompt> "));
    rig.run(29_000);
    assert!(rig.lines().is_empty());
    rig.turn();
    for _ in 0..30 {
        rig.now += Duration::from_millis(100);
        rig.turn();
    }
    assert_eq!(rig.under_way.len(), 1);
    rig.write("0.log", cri("stdout", "F", "answer"));
    rig.crash();
    rig.run(500);
    assert_eq!(rig.lines(), ["prompt> ", "answer"]);
}

#[test]
fn a_container_that_starts_anew_ends_its_unfinished_lines() {
    let mut rig = Rig::new();
    rig.write("0.log", cri("stdout", "P", "no end"));
    rig.run(500);
    rig.log("1.log", &["again"]);
    rig.run(2000);
    assert_eq!(rig.lines(), ["no end", "again"]);
}

#[test]
fn one_tenants_trouble_is_its_own() {
    let config = in_force(
        vec![pipeline("p", &["t", "u"])],
        vec![tenant("t", 4096), tenant("u", 4096)],
    );
    let mut rig = Rig::with(config);
    rig.core().sink().blocked = vec![Key::new("logging", "t")];
    rig.log("0.log", &["1", "2"]);
    rig.run(1500);
    assert_eq!(rig.lines(), ["1", "2"]);
    let figures = rig.core().figures();
    let outputs = &figures.pipelines[&Key::new("a", "p")].outputs;
    assert!(outputs[&Key::new("logging", "u")].oldest_unacknowledged.is_none());
    rig.core().sink().blocked.clear();
    rig.run(1500);
    assert_eq!(rig.lines(), ["1", "2", "1", "2"]);
}

#[test]
fn new_label_rules_count_from_where_they_came_and_a_replay_uses_the_old_before() {
    let mut rig = Rig::new();
    rig.log("0.log", &["1"]);
    rig.turn();
    rig.turn();
    let mut changed = pipeline("p", &["t"]);
    changed.labels.fixed.insert("cluster".into(), "ops".into());
    rig.apply(in_force(vec![changed], vec![tenant("t", 4096)]));
    rig.log("0.log", &["2"]);
    rig.turn();
    rig.crash();
    rig.run(1500);
    assert_eq!(rig.lines(), ["1", "2"]);
    assert!(!rig.acked[0].labels.contains("cluster") && rig.acked[1].labels.contains("cluster"));
}

#[test]
fn without_watches_files_are_read_every_second_and_it_is_said() {
    let mut rig = Rig::new();
    rig.core().without_watches();
    rig.log("0.log", &["1"]);
    rig.run(8_000);
    rig.log("0.log", &["2"]);
    rig.run(1_200);
    assert_eq!(rig.lines(), ["1", "2"]);
    let warnings = rig.core().figures().warnings;
    assert_eq!(warnings[0].reason, "WatchesExhausted");
}

#[test]
fn a_damaged_file_does_not_stop_the_others() {
    let mut rig = Rig::new();
    let folder = rig.folder();
    fs::write(folder.join("0.log.20261120-175001.gz"), "no gzip at all").unwrap();
    rig.log("0.log.20261120-175011", &["1"]);
    gzip(&folder.join("0.log.20261120-175011"));
    let whole = fs::read(folder.join("0.log.20261120-175011.gz")).unwrap();
    fs::write(folder.join("0.log.20261120-175011.gz"), &whole[..whole.len() - 8]).unwrap();
    rig.log("0.log", &["2"]);
    rig.run(1_500);
    assert_eq!(rig.lines(), ["1", "2"]);
}

#[test]
fn refused_lines_are_counted_and_not_sent_again() {
    let mut rig = Rig::new();
    rig.log("0.log", &["1", "2", "3"]);
    rig.turn();
    let now = rig.now;
    let request = rig.under_way.remove(0);
    let outcome = sluice_agent::batch::Outcome {
        id: request.id,
        tenant: Arc::new(request.tenant),
        stream: None,
        fate: sluice_agent::batch::Fate::Ended(vec![("line_too_long", 2)]),
        body: Vec::new(),
    };
    rig.core().command(Command::Outcome(outcome), now);
    let figures = rig.core().figures();
    let output = &figures.pipelines[&Key::new("a", "p")].outputs[&Key::new("logging", "t")];
    assert_eq!((output.delivered_lines, output.rejected["line_too_long"]), (1, 2));
    rig.core().save();
    rig.crash();
    rig.run(1_500);
    assert!(rig.lines().is_empty());
}

#[test]
fn a_second_pipeline_gets_files_that_the_first_has_finished() {
    let mut rig = Rig::new();
    let folder = rig.folder();
    rig.log("0.log", &["1"]);
    rig.run(500);
    fs::rename(folder.join("0.log"), folder.join("0.log.20261120-175001")).unwrap();
    rig.log("0.log", &["2"]);
    rig.run(4_000);
    assert_eq!(rig.core().figures().open_files, 1);
    let both = vec![pipeline("p", &["t"]), pipeline("q", &["t"])];
    rig.apply(in_force(both, vec![tenant("t", 4096)]));
    rig.run(1_500);
    assert_eq!(rig.lines(), ["1", "2", "1", "2"]);
}

#[test]
fn the_thread_sends_saves_and_ends() {
    let mut rig = Rig::new();
    rig.core = None;
    rig.log("0.log", &["1"]);
    let (to, from) = std::sync::mpsc::channel();
    let (figures, seen) = tokio::sync::watch::channel(Arc::default());
    let send = Box::new(move |batch| to.send(batch).unwrap());
    let sink = files_rig::FakeSink::default();
    let (mailbox, thread) = sluice_agent::worker::spawn(rig.settings(), sink, send, figures).unwrap();
    mailbox.send(Command::Config(Arc::new(rig.config.clone())));
    for line in ["1", "2"] {
        let request: files_rig::Request = from.recv_timeout(Duration::from_secs(5)).unwrap();
        assert_eq!(request.entries[0].line, line);
        let outcome = sluice_agent::batch::Outcome {
            id: request.id,
            tenant: Arc::new(request.tenant),
            stream: None,
            fate: sluice_agent::batch::Fate::Ended(vec![]),
            body: vec![],
        };
        mailbox.send(Command::Outcome(outcome));
        rig.log("0.log", &["2"]);
    }
    mailbox.send(Command::Drain(Duration::from_secs(5)));
    thread.join().unwrap();
    assert_eq!(seen.borrow().document, "d");
    assert!(!mailbox.send(Command::Drain(Duration::ZERO)));
    let again = sluice_agent::checkpoint::journal::Journal::open(&rig.dir.path().join("state")).unwrap();
    assert!(
        again
            .ledger()
            .cursors
            .values()
            .next()
            .unwrap()
            .watermark
            .is_some()
    );
}

#[test]
fn a_pod_that_becomes_known_late_gets_its_labels_from_there_on() {
    let mut with_app = pipeline("p", &["t"]);
    with_app.labels.drop.clear();
    let mut rig = Rig::with(in_force(vec![with_app], vec![tenant("t", 4096)]));
    rig.facts_wait = Duration::from_secs(10);
    rig.crash();
    rig.log("0.log", &["1"]);
    // The API server is away.
    rig.run(12_000);
    let now = rig.now;
    rig.core().command(facts(&[("app", "web")]), now);
    rig.log("0.log", &["2"]);
    rig.turn();
    rig.turn();
    // Sent again, each line has the labels that it had before; without the pod's facts what was chosen stays.
    rig.crash();
    rig.log("0.log", &["3"]);
    rig.run(12_000);
    let of: Vec<_> = rig
        .acked
        .iter()
        .map(|sent| (sent.line.as_str(), sent.labels.contains(r#"app="web""#)))
        .collect();
    assert_eq!(of, [("1", false), ("2", true), ("3", true)]);
    // A pod that is labelled anew later keeps the ones that it began with.
    let now = rig.now;
    rig.core().command(facts(&[("app", "other")]), now);
    rig.log("0.log", &["4"]);
    rig.run(1_500);
    assert!(rig.acked[3].labels.contains(r#"app="web""#));
}
