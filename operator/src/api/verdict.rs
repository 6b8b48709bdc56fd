//! Verdicts in, an object's conditions out; transition times move only with the status.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use super::conditions::{reasons, types};

/// How long an outage lasts before an object is stalled, in seconds.
pub const OUTAGE_SECONDS: i64 = 300;

/// The status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It holds.
    True,
    /// It does not.
    False,
    /// Not known yet.
    Unknown,
}

impl Standing {
    /// As the API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// One condition's status, reason and message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it holds.
    pub standing: Standing,
    /// One of [`reasons`].
    pub reason: &'static str,
    /// One sentence: what is wrong and what to do.
    pub message: String,
}

impl Verdict {
    /// It holds.
    pub fn yes(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            standing: Standing::True,
            reason,
            message: message.into(),
        }
    }

    /// It does not hold.
    pub fn no(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            standing: Standing::False,
            reason,
            message: message.into(),
        }
    }

    /// Not known yet.
    pub fn pending(message: impl Into<String>) -> Self {
        Self {
            standing: Standing::Unknown,
            reason: reasons::PENDING,
            message: message.into(),
        }
    }

    /// Whether it holds.
    pub fn holds(&self) -> bool {
        self.standing == Standing::True
    }
}

/// Whether a reason needs a human at once: spec, reference, credentials, permission.
pub fn needs_human(reason: &str) -> bool {
    [
        reasons::INVALID,
        reasons::HOST_PATHS_NOT_ALLOWED,
        reasons::NAMESPACE_NOT_ALLOWED,
        reasons::SECRET_NOT_FOUND,
        reasons::SECRET_NOT_LABELLED,
        reasons::SECRET_KEY_MISSING,
        reasons::TENANT_NOT_FOUND,
        reasons::REF_NOT_PERMITTED,
        reasons::NOT_AUTHORIZED,
        reasons::SERVICE_ACCOUNT_NOT_FOUND,
        reasons::REFUSED_BY_AGENT,
        reasons::ADDRESS_NOT_ALLOWED,
        reasons::TLS_FAILED,
        reasons::UNAUTHORIZED,
        reasons::WRONG_PATH,
        reasons::INGESTION_BLOCKED,
        reasons::AGENT_PODS_REFUSED,
    ]
    .contains(&reason)
}

/// What an object's conditions are made from.
#[derive(Clone, Copy, Debug)]
pub struct Moment<'a> {
    /// The object's conditions as they stand.
    pub old: &'a [Condition],
    /// The object's generation.
    pub generation: i64,
    /// Now.
    pub now: Timestamp,
}

impl Moment<'_> {
    /// Conditions of these verdicts, with the kstatus ones that follow from `Ready`.
    pub fn conditions(&self, ready: &Verdict, rest: &[(&str, &Verdict)]) -> Vec<Condition> {
        let mut conditions = vec![self.condition(types::READY, ready)];
        let cause = rest
            .iter()
            .find(|(_, verdict)| *verdict == ready)
            .map_or(types::READY, |(kind, _)| kind);
        if self.is_stalled(ready, cause) {
            conditions
                .push(self.condition(types::STALLED, &Verdict::yes(ready.reason, ready.message.clone())));
        } else if is_progress(ready) {
            let verdict = Verdict::yes(ready.reason, ready.message.clone());
            conditions.push(self.condition(types::RECONCILING, &verdict));
        }
        conditions.extend(rest.iter().map(|(kind, verdict)| self.condition(kind, verdict)));
        conditions
    }

    /// Whether a human is needed, or an outage has lasted. `cause` is the condition that `Ready` follows: `Ready`
    /// itself may have been False for other reasons before, from which this one is only just recovering.
    fn is_stalled(&self, ready: &Verdict, cause: &str) -> bool {
        if ready.standing != Standing::False || ready.reason == reasons::SUSPENDED {
            return false;
        }
        if needs_human(ready.reason) {
            return true;
        }
        let now = self.now.as_second();
        let lasts = |condition: &Condition| {
            condition.observed_generation == Some(self.generation)
                && now - condition.last_transition_time.0.as_second() >= OUTAGE_SECONDS
        };
        if ready.reason == reasons::ROLLING_OUT {
            // `Programmed` may be False since long before this generation: what counts is the rollout
            let stalled = self.find(types::STALLED).is_some_and(|stalled| {
                stalled.reason == ready.reason && stalled.observed_generation == Some(self.generation)
            });
            return stalled || self.find(types::RECONCILING).is_some_and(lasts);
        }
        self.find(cause)
            .is_some_and(|condition| condition.status == Standing::False.as_str() && lasts(condition))
    }

    /// A condition as it stands.
    pub fn find(&self, kind: &str) -> Option<&Condition> {
        self.old.iter().find(|condition| condition.type_ == kind)
    }

    fn condition(&self, kind: &str, verdict: &Verdict) -> Condition {
        let status = verdict.standing.as_str();
        // a new generation's rollout begins anew
        let same = |old: &&Condition| {
            old.status == status
                && (kind != types::RECONCILING || old.observed_generation == Some(self.generation))
        };
        let since = self.find(kind).filter(same).map_or_else(
            || Time(whole_seconds(self.now)),
            |old| old.last_transition_time.clone(),
        );
        Condition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: verdict.reason.to_owned(),
            message: clip(&verdict.message, 2048),
            observed_generation: Some(self.generation),
            last_transition_time: since,
        }
    }
}

fn is_progress(ready: &Verdict) -> bool {
    match ready.standing {
        Standing::True => false,
        Standing::False => ready.reason == reasons::ROLLING_OUT,
        Standing::Unknown => true,
    }
}

/// The API server keeps whole seconds; more would differ from what it gives back.
fn whole_seconds(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

/// At most `most` bytes of a text, cut at a character.
pub fn clip(text: &str, most: usize) -> String {
    let end = (0..=most.min(text.len()))
        .rev()
        .find(|&end| text.is_char_boundary(end))
        .unwrap_or(0);
    text.split_at_checked(end)
        .map_or_else(String::new, |(start, _)| start.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn transition_times_move_only_with_the_status() {
        let verdict = Verdict::no(reasons::UNREACHABLE, "a");
        let first = Moment {
            old: &[],
            generation: 1,
            now: at(100),
        }
        .conditions(&verdict, &[]);
        let verdict = Verdict::no(reasons::SERVER_ERROR, "b");
        let second = Moment {
            old: &first,
            generation: 1,
            now: at(200),
        }
        .conditions(&verdict, &[]);
        assert_eq!(second[0].last_transition_time.0, at(100));
        assert_eq!(second[0].reason, "ServerError");
        let third = Moment {
            old: &second,
            generation: 1,
            now: at(300),
        }
        .conditions(&Verdict::yes(reasons::READY, ""), &[]);
        assert_eq!(third[0].last_transition_time.0, at(300));
    }

    #[test]
    fn an_outage_stalls_after_five_minutes_and_a_human_is_called_at_once() {
        let outage = Verdict::no(reasons::UNREACHABLE, "");
        let old = Moment {
            old: &[],
            generation: 1,
            now: at(0),
        }
        .conditions(&outage, &[]);
        assert_eq!(old.len(), 1);
        let stalled = |now| {
            Moment {
                old: &old,
                generation: 1,
                now: at(now),
            }
            .is_stalled(&outage, types::READY)
        };
        assert!(!stalled(299));
        assert!(stalled(300));
        let moment = Moment {
            old: &[],
            generation: 1,
            now: at(0),
        };
        assert!(moment.is_stalled(&Verdict::no(reasons::INVALID, ""), types::READY));
        assert!(!moment.is_stalled(&Verdict::no(reasons::SUSPENDED, ""), types::READY));
    }

    #[test]
    fn what_recovers_from_a_long_failure_is_reconciling_and_not_stalled() {
        for before in [
            Verdict::no(reasons::NOT_AUTHORIZED, ""),
            Verdict::no(reasons::SUSPENDED, ""),
            Verdict::no(reasons::AGENT_UNREACHABLE, ""),
        ] {
            let mut conditions = Moment {
                old: &[],
                generation: 1,
                now: at(0),
            }
            .conditions(&before, &[(types::PROGRAMMED, &before)]);
            let rolling = Verdict::no(reasons::ROLLING_OUT, "");
            for (now, expected) in [
                (9_000, types::RECONCILING),
                (9_020, types::RECONCILING),
                (9_299, types::RECONCILING),
                (9_300, types::STALLED),
                (9_320, types::STALLED),
            ] {
                let moment = Moment {
                    old: &conditions,
                    generation: 1,
                    now: at(now),
                };
                conditions = moment.conditions(&rolling, &[(types::PROGRAMMED, &rolling)]);
                assert_eq!(conditions[1].type_, expected, "{before:?} at {now}");
            }
            // a new generation is a new rollout
            let moment = Moment {
                old: &conditions,
                generation: 2,
                now: at(9_400),
            };
            conditions = moment.conditions(&rolling, &[(types::PROGRAMMED, &rolling)]);
            assert_eq!(conditions[1].type_, types::RECONCILING);
            assert_eq!(conditions[1].last_transition_time.0, at(9_400));
        }
    }

    #[test]
    fn reconciling_is_there_only_while_rolling_out() {
        let moment = Moment {
            old: &[],
            generation: 1,
            now: at(0),
        };
        let kinds = |verdict| -> Vec<String> {
            moment
                .conditions(&verdict, &[])
                .into_iter()
                .map(|condition| condition.type_)
                .collect()
        };
        assert_eq!(
            kinds(Verdict::no(reasons::ROLLING_OUT, "")),
            ["Ready", "Reconciling"]
        );
        assert_eq!(kinds(Verdict::yes(reasons::READY, "")), ["Ready"]);
        assert_eq!(kinds(Verdict::no(reasons::SUSPENDED, "")), ["Ready"]);
        assert_eq!(kinds(Verdict::no(reasons::INVALID, "")), ["Ready", "Stalled"]);
    }

    #[test]
    fn texts_are_cut_at_characters() {
        assert_eq!(clip("aäb", 2), "a");
        assert_eq!(clip("aäb", 9), "aäb");
    }
}
