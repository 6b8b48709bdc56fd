//! A Lease as it stands in, what to do about it and how it should stand next out. Pure: told the time.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

/// How long a Lease holds without being renewed.
pub const DURATION: Duration = Duration::from_secs(10);

/// What to do about a Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nobody holds it: take it.
    Acquire,
    /// It is ours: keep it.
    Renew,
    /// Somebody else holds it: look again after this long at the latest.
    Wait(Duration),
}

/// Decides about a Lease, given when we last saw it change.
pub fn decide(lease: Option<&LeaseSpec>, me: &str, observed_at: Instant, now: Instant) -> Decision {
    let holder = lease
        .and_then(|spec| spec.holder_identity.as_deref())
        .unwrap_or_default();
    if holder.is_empty() {
        return Decision::Acquire;
    }
    if holder == me {
        return Decision::Renew;
    }
    let seconds = lease
        .and_then(|spec| spec.lease_duration_seconds)
        .and_then(|seconds| u64::try_from(seconds).ok());
    let duration = seconds.map_or(DURATION, Duration::from_secs);
    let left = duration.saturating_sub(now.saturating_duration_since(observed_at));
    if left.is_zero() {
        Decision::Acquire
    } else {
        Decision::Wait(left)
    }
}

/// The Lease as `me` wants it next.
///
/// A Lease made anew begins to count at the minutes since 1970 instead of 0: nodes remember the highest number
/// that they have seen, also from an installation before this one, and refuse a lower one.
pub fn next(current: Option<&Lease>, me: &str, decision: Decision, now: MicroTime) -> Lease {
    let mut lease = current.cloned().unwrap_or_default();
    let spec = lease.spec.get_or_insert_default();
    if decision == Decision::Acquire {
        let fresh = i32::try_from(now.0.as_second() / 60).unwrap_or(0);
        let transitions = current.and(spec.lease_transitions);
        spec.lease_transitions = Some(transitions.map_or(fresh, |count| count.saturating_add(1)));
        spec.acquire_time = Some(now.clone());
    }
    spec.holder_identity = Some(me.to_owned());
    spec.lease_duration_seconds = i32::try_from(DURATION.as_secs()).ok();
    spec.renew_time = Some(now);
    lease
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held_by(holder: &str, seconds: i32) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.into()),
            lease_duration_seconds: Some(seconds),
            lease_transitions: Some(3),
            ..LeaseSpec::default()
        }
    }

    #[test]
    fn nobodys_lease_is_taken() {
        let now = Instant::now();
        assert_eq!(decide(None, "me", now, now), Decision::Acquire);
        assert_eq!(
            decide(Some(&LeaseSpec::default()), "me", now, now),
            Decision::Acquire
        );
        assert_eq!(decide(Some(&held_by("", 10)), "me", now, now), Decision::Acquire);
    }

    #[test]
    fn our_lease_is_renewed_however_old() {
        let now = Instant::now();
        assert_eq!(
            decide(Some(&held_by("me", 10)), "me", now, now + DURATION * 9),
            Decision::Renew
        );
    }

    #[test]
    fn anothers_lease_is_respected_until_we_saw_no_change_for_its_duration() {
        let seen = Instant::now();
        let lease = held_by("other", 10);
        let after = |seconds| seen + Duration::from_secs(seconds);
        assert_eq!(decide(Some(&lease), "me", seen, seen), Decision::Wait(DURATION));
        assert_eq!(
            decide(Some(&lease), "me", seen, after(9)),
            Decision::Wait(Duration::from_secs(1))
        );
        assert_eq!(decide(Some(&lease), "me", seen, after(10)), Decision::Acquire);
    }

    #[test]
    fn the_holders_clock_does_not_matter() {
        let now = Instant::now();
        let lease = LeaseSpec {
            renew_time: Some(MicroTime(jiff::Timestamp::UNIX_EPOCH)),
            ..held_by("other", 10)
        };
        assert_eq!(decide(Some(&lease), "me", now, now), Decision::Wait(DURATION));
    }

    #[test]
    fn a_take_over_counts_as_a_transition_and_a_renewal_does_not() {
        let time = MicroTime(jiff::Timestamp::UNIX_EPOCH);
        let current = Lease {
            spec: Some(held_by("other", 10)),
            ..Lease::default()
        };
        let taken = next(Some(&current), "me", Decision::Acquire, time.clone());
        let spec = taken.spec.clone().unwrap();
        assert_eq!(
            (spec.lease_transitions, spec.holder_identity.as_deref()),
            (Some(4), Some("me"))
        );
        let renewed = next(Some(&taken), "me", Decision::Renew, time);
        assert_eq!(renewed.spec.unwrap().lease_transitions, Some(4));
    }

    #[test]
    fn a_lease_made_anew_counts_on_from_where_no_node_has_been() {
        let at = |second| MicroTime(jiff::Timestamp::from_second(second).unwrap());
        let count = |lease: Lease| lease.spec.unwrap().lease_transitions.unwrap();
        let before = next(None, "me", Decision::Acquire, at(1_790_000_000));
        let anew = next(None, "me", Decision::Acquire, at(1_790_000_600));
        assert_eq!(count(anew) - count(before), 10);
    }
}
