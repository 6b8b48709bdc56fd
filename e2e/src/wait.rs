//! A question in, its answer out as soon as there is one; a sentence with the last state when the time is over.

use std::time::{Duration, Instant};

/// How long anything may take for which no promise names a time: pods start, images load, caches fill.
pub const PATIENCE: Duration = Duration::from_mins(2);

/// Asks until `look` answers `Ok`; `Err` is the state as it is now. Ten times a second, or as often as leaves the machine
/// half of its time for what is waited for.
pub async fn until<T>(what: &str, limit: Duration, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        let asked = Instant::now();
        let state = match look().await {
            Ok(found) => return found,
            Err(state) => state,
        };
        assert!(
            start.elapsed() < limit,
            "{what}: not within {} s; last seen: {state}",
            limit.as_secs()
        );
        tokio::time::sleep(asked.elapsed().max(Duration::from_millis(100))).await;
    }
}
