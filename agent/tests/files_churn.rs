//! Containers and files that come and go fast.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod files_rig;

use std::fs;

use files_rig::{POD, Rig, cri, gzip};

#[test]
fn a_container_that_is_restarted_all_the_time_loses_nothing() {
    let mut rig = Rig::new();
    let mut expected = Vec::new();
    for restart in 0..60_u32 {
        let name = format!("{restart}.log");
        for line in 0..3 {
            let text = format!("{restart}/{line}");
            rig.log(&name, &[&text]);
            expected.push(text);
        }
        rig.turn();
        // Kubelet keeps the last dead container only.
        if restart >= 2 {
            fs::remove_file(rig.folder().join(format!("{}.log", restart - 2))).unwrap();
        }
        if restart == 30 {
            rig.ack(usize::MAX);
            rig.core().save();
            rig.crash();
        }
    }
    rig.run(3_000);
    assert_eq!(rig.lines(), expected);
    assert!(rig.core().figures().open_files <= 2);
}

#[test]
fn files_that_vanish_before_they_are_opened_keep_nobody_back_or_busy() {
    let mut rig = Rig::new();
    for n in 0..30 {
        let name = format!("0.log.20261120-1750{n:02}");
        rig.log(&name, &["gone"]);
        fs::remove_file(rig.folder().join(name)).unwrap();
        let pod = rig.dir.path().join(format!("pods/a_short-{n}_uid-{n}/c"));
        fs::create_dir_all(&pod).unwrap();
        fs::write(pod.join("0.log"), cri("stdout", "F", "gone")).unwrap();
        fs::remove_dir_all(pod.parent().unwrap()).unwrap();
        rig.log("0.log", &[&n.to_string()]);
        rig.run(200);
    }
    let numbers: Vec<_> = (0..30).map(|n| n.to_string()).collect();
    assert_eq!(rig.lines(), numbers);
    rig.run(7_000);
    assert!(rig.turn() > rig.now + std::time::Duration::from_millis(150));
    let figures = rig.core().figures();
    assert_eq!((figures.open_files, figures.warnings.len()), (1, 0));
}

#[test]
fn a_folder_gone_before_the_first_look_is_forgotten() {
    let mut rig = Rig::new();
    rig.log("0.log", &["1"]);
    rig.run(1_500);
    rig.core = None;
    fs::remove_dir_all(rig.dir.path().join("pods").join(POD)).unwrap();
    rig.start();
    rig.run(1_500);
    rig.core().save();
    let journal = fs::read(rig.dir.path().join("state/journal")).unwrap();
    let (ledger, _) = sluice_agent::checkpoint::ledger::Ledger::decode(&journal);
    assert!(ledger.cursors.is_empty());
}

/// A static pod's folder is named after its manifest, so it comes back when that does.
#[test]
fn a_static_pods_folder_that_comes_back_at_once_is_read_and_watched() {
    let mut rig = Rig::new();
    rig.log("3.log", &["1"]);
    rig.write("3.log", cri("stdout", "P", "no end"));
    rig.run(1_500);
    let pod = rig.dir.path().join("pods").join(POD);
    fs::remove_dir_all(&pod).unwrap();
    rig.log("0.log", &["2"]);
    rig.run(500);
    assert_eq!(rig.lines(), ["1", "no end", "2"]);
    // A container that is seen by its pod's watch only.
    let other = pod.join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("0.log"), cri("stdout", "F", "3")).unwrap();
    rig.run(500);
    assert_eq!(rig.lines(), ["1", "no end", "2", "3"]);
    assert!(rig.core().figures().warnings.is_empty());
}

#[test]
fn thousands_of_files_of_a_crash_loop_are_read_in_order_with_few_open() {
    let mut rig = Rig::new();
    rig.core = None;
    let mut expected = Vec::new();
    for n in 0..2_000_u32 {
        let name = format!("{}.log.20261120-{:06}", n / 10, n);
        rig.log(&name, &[&n.to_string()]);
        expected.push(n.to_string());
    }
    rig.start();
    rig.turn();
    assert!(rig.core().figures().open_files <= 32);
    rig.run(10_000);
    assert_eq!(rig.lines(), expected);
    assert!(rig.core().figures().resets.is_empty());
}

/// Descriptors of files below the rig's folder, those of other tests left out.
fn descriptors(rig: &Rig) -> usize {
    let all = fs::read_dir("/proc/self/fd").unwrap();
    all.filter(|entry| {
        let link = entry.as_ref().unwrap().path().read_link();
        link.is_ok_and(|link| link.starts_with(rig.dir.path()) && link.to_string_lossy().contains(".gz"))
    })
    .count()
}

#[test]
fn a_backlog_of_compressed_files_is_read_with_few_decompressors() {
    let mut rig = Rig::new();
    rig.core = None;
    let pods = 60;
    for n in 0..pods {
        let folder = rig.dir.path().join(format!("pods/a_web-{n}_uid-{n}/c"));
        fs::create_dir_all(&folder).unwrap();
        let lines: String = (0..2_000)
            .map(|line| cri("stdout", "F", &format!("{n}/{line}")))
            .collect();
        fs::write(folder.join("0.log.20261120-175001"), lines).unwrap();
        gzip(&folder.join("0.log.20261120-175001"));
    }
    rig.start();
    rig.core().sink().room = 3_000;
    rig.core().sink().window = 2;
    let mut most = 0;
    while rig.acked.len() < pods * 2_000 {
        rig.turn();
        most = most.max(descriptors(&rig));
        rig.ack(1);
        rig.now += std::time::Duration::from_millis(100);
    }
    // Each is held open, and few are decompressed at a time.
    assert!(most <= pods + 16, "{most}");
    assert_eq!(rig.acked.len(), pods * 2_000);
}
