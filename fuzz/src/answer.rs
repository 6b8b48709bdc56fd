//! Status, streams, lines and a body in: lines end only by a success without a page, or in Loki's own words.

use arbitrary::{Result, Unstructured};
use sluice_agent::push::fuzz::{Judged, judge};

pub(crate) fn check(data: &[u8]) {
    // An input that is too short is no case.
    let _short = any_answer(&mut Unstructured::new(data));
}

fn any_answer(from: &mut Unstructured<'_>) -> Result<()> {
    // Half of them are the statuses whose body decides.
    let decisive = [200, 204, 260, 400, 413, 422, 429, 500];
    let status = match from.arbitrary::<u8>()? {
        at @ 0..=127 => decisive[usize::from(at) % decisive.len()],
        _ => from.int_in_range(100..=999)?,
    };
    let (streams, lines) = (from.int_in_range(1..=3)?, from.int_in_range(1..=100)?);
    let lines = u32::max(streams, lines);
    // The client reads no body of a 204.
    let body: &[u8] = if status == 204 {
        &[]
    } else {
        from.bytes(from.len())?
    };
    let text = String::from_utf8_lossy(body);
    match judge(status, body, streams, lines) {
        Judged::Acknowledged => assert!(
            status == 204 || status == 200 && matches!(text.trim(), "" | "ok"),
            "{status} {text:?}"
        ),
        Judged::Rejected(refused) => {
            assert_eq!((status, streams), (400, 1));
            assert!(!text.trim_start().starts_with('<'));
            let sum: u64 = refused.iter().map(|(_, lines)| lines).sum();
            assert!((1..=u64::from(lines)).contains(&sum), "{refused:?} of {lines}");
            let mut reasons: Vec<&str> = refused.iter().map(|(reason, _)| *reason).collect();
            reasons.sort_unstable();
            reasons.dedup();
            assert_eq!(reasons.len(), refused.len(), "{refused:?}");
        }
        Judged::Apart => assert!(matches!(status, 400 | 429) && streams > 1),
        Judged::Halved => assert!(status == 413 || status >= 500 || status == 400 && streams == 1),
        Judged::Kept => assert_ne!(status, 204),
    }
    Ok(())
}
