//! Due questions in, `SubjectAccessReview`s out to the API server, answers recorded.

use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::Instant;

use super::{Pair, Reviews};
use crate::admin::Metrics;

/// Questions asked at the same time.
const CONCURRENCY: usize = 8;
/// Between two questions that are merely old: 20 per second.
const BACKGROUND: Duration = Duration::from_millis(50);
/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Asks what is due, for ever.
pub async fn run(client: Client, reviews: Reviews, metrics: Metrics) {
    let api: Api<SubjectAccessReview> = Api::all(client);
    let mut background = Instant::now();
    loop {
        let now = Instant::now();
        let (due, next) = reviews.schedule().take(CONCURRENCY * 4, background <= now, now);
        if due.is_empty() {
            let wake = next
                .unwrap_or(now + Duration::from_mins(1))
                .max(now + Duration::from_millis(1));
            let wake = if wake <= background { background } else { wake };
            tokio::select! {
                () = tokio::time::sleep_until(wake) => {}
                () = reviews.due.notified() => {}
            }
            continue;
        }
        background = now + BACKGROUND;
        futures::stream::iter(due)
            .for_each_concurrent(CONCURRENCY, |pair| {
                let (api, reviews, metrics) = (&api, &reviews, &metrics);
                async move {
                    let answer = ask(api, &pair).await;
                    metrics.review(answer);
                    reviews.record(&pair, answer);
                }
            })
            .await;
    }
}

async fn ask(api: &Api<SubjectAccessReview>, pair: &Pair) -> Option<bool> {
    let review = SubjectAccessReview {
        spec: question(pair),
        ..SubjectAccessReview::default()
    };
    match tokio::time::timeout(TIMEOUT, api.create(&PostParams::default(), &review)).await {
        Ok(Ok(answer)) => answer.status.map(|status| status.allowed),
        Ok(Err(error)) => {
            tracing::warn!(%error, account = %pair.account, namespace = ?pair.namespace, "a review failed");
            None
        }
        Err(_) => {
            tracing::warn!(account = %pair.account, namespace = ?pair.namespace, "a review got no answer in time");
            None
        }
    }
}

fn question(pair: &Pair) -> SubjectAccessReviewSpec {
    let account = &pair.account;
    SubjectAccessReviewSpec {
        user: Some(format!(
            "system:serviceaccount:{}:{}",
            account.namespace, account.name
        )),
        groups: Some(vec![
            "system:serviceaccounts".into(),
            format!("system:serviceaccounts:{}", account.namespace),
            "system:authenticated".into(),
        ]),
        resource_attributes: Some(ResourceAttributes {
            verb: Some("get".into()),
            resource: Some("pods".into()),
            subresource: Some("log".into()),
            group: Some(String::new()),
            namespace: pair.namespace.clone(),
            ..ResourceAttributes::default()
        }),
        ..SubjectAccessReviewSpec::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_engine::key::Key;

    #[test]
    fn the_question_is_about_the_account_and_its_groups() {
        let spec = question(&Pair {
            account: Key::new("team-a", "log-reader"),
            namespace: None,
        });
        assert_eq!(
            spec.user.as_deref(),
            Some("system:serviceaccount:team-a:log-reader")
        );
        assert_eq!(spec.groups.unwrap()[1], "system:serviceaccounts:team-a");
        assert_eq!(
            spec.resource_attributes.unwrap().subresource.as_deref(),
            Some("log")
        );
    }
}
