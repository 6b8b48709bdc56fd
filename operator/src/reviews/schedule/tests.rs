//! Interests, answers, events and times in, the questions that are due out.

use super::*;

fn pair(namespace: Option<&str>) -> Pair {
    Pair {
        account: Key::new("a", "sa"),
        namespace: namespace.map(Into::into),
    }
}

fn wanting(everywhere_first: bool, names: &[&str], now: Instant) -> Schedule {
    let mut schedule = Schedule::new(everywhere_first);
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    assert!(schedule.want(&Key::new("a", "web"), &Key::new("a", "sa"), &names, now));
    schedule
}

#[test]
fn one_wide_answer_spares_the_others() {
    let now = Instant::now();
    let mut schedule = wanting(true, &["x", "y"], now);
    assert_eq!(schedule.take(9, true, now).0, [pair(None)]);
    assert_eq!(schedule.record(&pair(None), Some(true), now).len(), 1);
    assert_eq!(schedule.allowed(&Key::new("a", "sa"), "x"), Some(true));
    assert_eq!(schedule.take(9, true, now).0, []);
    // It is withdrawn: nothing is known until each is asked.
    assert_eq!(schedule.record(&pair(None), Some(false), now).len(), 1);
    assert_eq!(schedule.allowed(&Key::new("a", "sa"), "x"), None);
    assert_eq!(schedule.take(9, true, now).0, [pair(Some("x")), pair(Some("y"))]);
}

#[test]
fn an_event_asks_at_once_and_twice_more() {
    let now = Instant::now();
    let mut schedule = wanting(false, &["x"], now);
    schedule.take(9, true, now);
    schedule.record(&pair(Some("x")), Some(true), now);
    schedule.touched("x", now);
    for (after, expected) in [(0, 1), (0, 0), (1, 1), (3, 0), (4, 1), (5, 0)] {
        let (due, _) = schedule.take(9, false, now + Duration::from_secs(after));
        assert_eq!(due.len(), expected, "after {after} s");
    }
    schedule.touched("other", now);
    assert!(schedule.take(9, false, now).0.is_empty());
}

#[test]
fn many_events_ask_no_more_than_a_few() {
    let now = Instant::now();
    let names: Vec<String> = (0..100).map(|name| format!("n{name}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut schedule = wanting(false, &names, now);
    for event in 0..1_000 {
        schedule.touched_everywhere(now + Duration::from_millis(event));
    }
    assert!(schedule.agenda.entries() <= 400, "{}", schedule.agenda.entries());
    let last = now + Duration::from_millis(999);
    let mut asked = Vec::new();
    for after in [0, 1_002, 4_002] {
        asked.push(
            schedule
                .take(1_000, false, last + Duration::from_millis(after))
                .0
                .len(),
        );
    }
    assert_eq!(asked, [100, 100, 100], "at once, after 1 s and after 4 s");
    schedule.forget(&Key::new("a", "web"));
    assert_eq!(schedule.agenda.entries(), 0);
}

#[test]
fn a_failing_question_keeps_its_answer_for_a_minute_only() {
    let now = Instant::now();
    let mut schedule = wanting(false, &["x"], now);
    schedule.record(&pair(Some("x")), Some(true), now);
    let allowed = |schedule: &Schedule| schedule.allowed(&Key::new("a", "sa"), "x");
    assert!(schedule.record(&pair(Some("x")), None, now).is_empty());
    assert!(
        schedule
            .record(&pair(Some("x")), None, now + Duration::from_secs(59))
            .is_empty()
    );
    assert_eq!(allowed(&schedule), Some(true));
    assert_eq!(
        schedule
            .record(&pair(Some("x")), None, now + Duration::from_mins(1))
            .len(),
        1
    );
    assert_eq!(allowed(&schedule), None);
}

#[test]
fn answers_are_forgotten_with_their_last_user_and_grow_old() {
    let now = Instant::now();
    let mut schedule = wanting(false, &["x"], now);
    schedule.take(9, true, now);
    schedule.record(&pair(Some("x")), Some(false), now);
    let later = now + AGAIN;
    assert_eq!(schedule.take(9, true, later).0, [pair(Some("x"))]);
    schedule.forget(&Key::new("a", "web"));
    assert_eq!(schedule.allowed(&Key::new("a", "sa"), "x"), None);
    assert_eq!(schedule.take(9, true, later + AGAIN).1, None);
}
