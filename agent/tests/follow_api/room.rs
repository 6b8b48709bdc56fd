//! Too little room and too few requests: what is read waits, is said, and nothing of it is lost.
use std::collections::BTreeSet;
use std::ops::Range;
use std::time::{Duration, Instant};

use super::rig::{LONG, Rig, files, lines, wait};
use crate::mounted::Mounted;

#[tokio::test]
async fn a_disk_without_room_is_said_of_the_pipeline() {
    let mut rig = Rig::new().await;
    // More than any file system has free.
    rig.settings.bounds.free = 101;
    rig.api.create("web", "1");
    rig.api.write("web", 0, 0, "nobody reads this");
    rig.start();
    let said = wait(|| rig.figures.borrow().unread.values().next().cloned()).await;
    assert!(said.contains("web") && said.contains("free"), "{said}");
    assert!(rig.spool("1").is_empty());
}

/// Where a page begins the disk takes a part of a record only.
#[tokio::test]
async fn a_disk_that_runs_full_while_lines_come_tears_and_doubles_none() {
    // Without a reserve the disk is tried again and again, with one it is waited for.
    for free in [0, 1] {
        let mut rig = Rig::new().await;
        let disk = Mounted::new(&rig.settings.root, 1 << 20);
        rig.settings.bounds.free = free;
        rig.api.create("web", "1");
        let mut numbers = 0..300_u32;
        let write = |rig: &Rig, numbers: &mut Range<u32>, count: usize| {
            for number in numbers.take(count) {
                // Records of one odd length end with no page.
                let text = format!("line {number:05}");
                rig.api.write("web", i64::from(number / 100), number, &text);
            }
        };
        write(&rig, &mut numbers, 100);
        rig.start();
        let (mut core, mut sent) = (rig.core(), Vec::new());
        let mut delivered = |rig: &Rig| -> usize {
            sent.extend(rig.turn(&mut core).into_iter().map(|entry| entry.line));
            sent.len()
        };
        wait(|| (delivered(&rig) >= 50).then_some(())).await;
        disk.fill(0);
        write(&rig, &mut numbers, 100);
        let asked = rig.api.model(|model| model.asked.len());
        wait(|| {
            delivered(&rig);
            let tries = rig.api.model(|model| model.asked.len()) - asked;
            let said = rig.figures.borrow().unread.values().next().cloned();
            let is_said = said.is_some_and(|said| said.contains("free"));
            (is_said || free == 0 && tries >= 3).then_some(())
        })
        .await;
        assert!(delivered(&rig) < 200, "the disk is not full");

        disk.empty();
        write(&rig, &mut numbers, 100);
        wait(|| (delivered(&rig) >= 300).then_some(())).await;
        wait(|| {
            let figures = rig.figures.borrow();
            (figures.warnings.is_empty() && figures.unread.is_empty()).then_some(())
        })
        .await;
        assert_eq!(delivered(&rig), 300);
        let expected: Vec<String> = (0..300).map(|number| format!("line {number:05}")).collect();
        assert!(sent == expected, "{sent:?}");
        assert!(rig.spool("1") == rig.api.written("web"));
        assert!(rig.post.take().is_none(), "no gap is told");
        rig.stop();
        drop(disk);
    }
}

#[tokio::test]
async fn a_full_spool_is_not_read_into_until_something_is_delivered() {
    let mut rig = Rig::new().await;
    rig.settings.bounds.file = 1_000;
    rig.settings.bounds.container = 10_000;
    rig.api.create("web", "1");
    for number in 0..1_000_u32 {
        rig.api
            .write("web", i64::from(number / 10), number, "some words of a line");
    }
    rig.start();
    wait(|| Some(()).filter(|()| rig.figures.borrow().full == 1)).await;
    let before = rig.spool("1").len();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(rig.spool("1").len(), before);
    assert!((100..400).contains(&before), "{before}");
    assert!(
        rig.figures
            .borrow()
            .warnings
            .iter()
            .any(|warning| warning.reason == "SpoolFull")
    );
    let folder = rig.settings.root.join("a_web_1_uid-p/main");
    let mut seen: BTreeSet<String> = BTreeSet::new();
    let begun = Instant::now();
    while seen.len() < 1_000 {
        assert!(begun.elapsed() < LONG, "{}", seen.len());
        seen.extend(rig.spool("1"));
        let last = files(&folder).pop().unwrap().to_string();
        rig.deliver("1", Some((&last, 0)));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(seen, rig.api.written("web").into_iter().collect());
    // What is delivered is deleted, but for what may come again.
    assert!(rig.spool("1").len() < 200);
}

#[tokio::test]
async fn more_containers_than_requests_take_turns() {
    let mut rig = Rig::new().await;
    rig.settings.streams = 2;
    let names = ["web", "x", "y", "z", "zz"];
    for name in names {
        rig.api.create(name, "1");
    }
    rig.start();
    let folder = |name: &str| rig.settings.root.join(format!("a_{name}_1_uid-p/main"));
    for round in 0..20 {
        for name in names {
            rig.api.write(name, round, 1, &format!("{name} {round}"));
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    for name in names {
        let found = wait(|| Some(lines(&folder(name))).filter(|lines| lines.len() >= 20)).await;
        assert_eq!(found, rig.api.written(name));
    }
    assert_eq!(rig.api.model(|model| model.most_streams.min(3)), 2);
    assert!(
        rig.figures
            .borrow()
            .warnings
            .iter()
            .any(|warning| warning.reason == "ApiStreamsShared")
    );
}
