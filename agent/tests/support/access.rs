//! Addresses, TLS, credentials and headers of a tenant in, what reaches its server out.

use std::sync::Arc;
use std::time::Duration;

use sluice_agent::config::TenantInForce;
use sluice_agent::push::Timing;
use sluice_engine::credentials::{Basic, Credentials};
use sluice_engine::document::{Auth, Header, Tls};
use sluice_engine::report::ProblemReason;

use super::double::{Double, Reply};
use super::rig::{A, B, Rig, TIMING, batch, changed, in_force, key, status, url};

#[tokio::test]
async fn rotated_credentials_act_at_once_on_a_held_request() {
    let double = Double::deciding(|asked| {
        let good = asked
            .headers
            .get("authorization")
            .is_some_and(|value| value == "Basic b3BzOm5ldw==");
        if good {
            Reply::Stored
        } else {
            status(401, "<html>secret words</html>")
        }
    })
    .await;
    let hour = Duration::from_hours(1);
    let mut rig = Rig::new(
        Timing {
            refused: (hour, hour),
            ..TIMING
        },
        true,
    );
    let basic = |password: &str| {
        let basic = Basic {
            username: "ops".to_owned(),
            password: password.to_owned(),
        };
        Some(Arc::new(Credentials {
            basic: Some(basic),
            ..Credentials::default()
        }))
    };
    let tenant = changed(&in_force("ops", url(&double)), |tenant| tenant.auth = Auth::Basic);
    rig.pushers.set_tenant(&tenant);
    let message = rig.problem(&key("ops"), ProblemReason::CredentialsMissing).await;
    assert!(message.contains("no user name and password"), "{message}");
    rig.send(&key("ops"), &[(A, &["a1"])]);
    rig.pushers.set_tenant(&TenantInForce {
        credentials: basic("old"),
        version: "1".to_owned(),
        ..tenant.clone()
    });
    let message = rig.problem(&key("ops"), ProblemReason::Unauthorized).await;
    assert!(
        message.contains("(401)") && message.contains(&double.address.to_string()),
        "{message}"
    );
    assert!(
        !message.contains("secret") && !message.contains("old"),
        "{message}"
    );
    rig.send(&key("ops"), &[(B, &["b1"])]);
    rig.pushers.set_tenant(&TenantInForce {
        credentials: basic("new"),
        version: "2".to_owned(),
        ..tenant
    });
    rig.outcome().await;
    rig.outcome().await;
    assert_eq!(double.lines(), ["a1", "b1"]);
    assert!(rig.pushers.problems().is_empty());
    assert!(!format!("{:?}", rig.pushers).contains("new"));
}

#[tokio::test]
async fn a_request_carries_what_loki_wants() {
    let double = Double::scripted([]).await;
    let mut rig = Rig::new(TIMING, true);
    let tenant = changed(&in_force("ops", url(&double)), |tenant| {
        tenant.auth = Auth::Bearer;
        tenant.headers = vec![Header {
            name: "X-Team".to_owned(),
            value: "a".to_owned(),
        }];
    });
    let credentials = Some(Arc::new(Credentials {
        bearer: Some("token".to_owned()),
        ..Credentials::default()
    }));
    rig.pushers.send(batch(7, &key("ops"), &[(A, &["a1"])]));
    rig.pushers.set_tenant(&TenantInForce {
        credentials,
        ..tenant
    });
    assert_eq!(rig.outcome().await.id, 7);
    let asked = double.asked().remove(0);
    assert_eq!(asked.path, "/loki/api/v1/push");
    for (name, value) in [
        ("content-type", "application/x-protobuf"),
        ("x-scope-orgid", "ops"),
        ("user-agent", concat!("sluice-agent/", env!("CARGO_PKG_VERSION"))),
        ("authorization", "Bearer token"),
        ("x-team", "a"),
    ] {
        assert_eq!(asked.headers[name], value);
    }
    assert!(!asked.headers.contains_key("content-encoding"));
}

#[tokio::test]
async fn addresses_are_judged() {
    let double = Double::scripted([]).await;
    let port = double.address.port();
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    for (url, allow, reason) in [
        (
            format!("http://127.0.0.1:{port}/p"),
            false,
            ProblemReason::AddressNotAllowed,
        ),
        (
            format!("http://[::1]:{port}/p"),
            false,
            ProblemReason::AddressNotAllowed,
        ),
        (
            format!("http://localhost:{port}/p"),
            false,
            ProblemReason::AddressNotAllowed,
        ),
        (
            format!("http://loki.invalid:{port}/p"),
            true,
            ProblemReason::AddressNotFound,
        ),
        (format!("http://{closed}/p"), true, ProblemReason::Unreachable),
        (
            format!("https://127.0.0.1:{port}/p"),
            true,
            ProblemReason::TlsFailed,
        ),
    ] {
        let mut rig = Rig::new(TIMING, allow);
        let tenant = changed(&in_force("ops", url.clone()), |tenant| {
            tenant.tls.insecure_skip_verify = true;
        });
        rig.pushers.set_tenant(&tenant);
        rig.send(&key("ops"), &[(A, &["a1"])]);
        let message = rig.problem(&key("ops"), reason).await;
        assert!(
            message.contains(&format!(":{port}")) || message.contains(&closed.to_string()),
            "{url}: {message}"
        );
    }
    assert!(double.asked().is_empty());
}

#[tokio::test]
async fn tls_is_verified_as_the_tenant_wants_it() {
    let ca = include_str!("tls/ca.pem").to_owned();
    let credentials = |client: bool| Credentials {
        ca: Some(ca.clone()),
        client_certificate: client.then(|| include_str!("tls/client.pem").to_owned()),
        client_key: client.then(|| include_str!("tls/client.key").to_owned()),
        ..Credentials::default()
    };
    let open = Double::with_tls(false).await;
    let closed = Double::with_tls(true).await;
    let named = Some("loki.test".to_owned());
    let tls = |ca: bool, server_name: &Option<String>| Tls {
        ca,
        server_name: server_name.clone(),
        ..Tls::default()
    };
    let insecure = Tls {
        insecure_skip_verify: true,
        ..Tls::default()
    };
    let with_client = Tls {
        client_certificate: true,
        ..tls(true, &named)
    };
    let rows = [
        (&open, tls(true, &named), credentials(false), None),
        (&open, insecure.clone(), Credentials::default(), None),
        (&closed, with_client.clone(), credentials(true), None),
        (
            &open,
            tls(true, &None),
            credentials(false),
            Some((ProblemReason::TlsFailed, "is for another name")),
        ),
        (
            &closed,
            tls(true, &named),
            credentials(false),
            Some((ProblemReason::TlsFailed, "refuses the client certificate")),
        ),
        (
            &closed,
            with_client,
            credentials(false),
            Some((ProblemReason::CredentialsMissing, "no client certificate")),
        ),
        (
            &open,
            tls(true, &Some("127.0.0.1".to_owned())),
            credentials(false),
            Some((ProblemReason::TlsFailed, "not a DNS name")),
        ),
    ];
    for (double, tls, credentials, expected) in rows {
        let context = format!("{tls:?}");
        let mut rig = Rig::new(TIMING, true);
        let url = format!("https://localhost:{}/loki/api/v1/push", double.address.port());
        let tenant = changed(&in_force("ops", url), |tenant| tenant.tls = tls);
        rig.pushers.set_tenant(&TenantInForce {
            credentials: Some(Arc::new(credentials)),
            ..tenant
        });
        rig.send(&key("ops"), &[(A, &["a1"])]);
        match expected {
            None => {
                rig.outcome().await;
                let host = double.asked().pop().unwrap().headers["host"].clone();
                assert_eq!(host, format!("localhost:{}", double.address.port()), "{context}");
            }
            Some((reason, words)) => {
                let message = rig.problem(&key("ops"), reason).await;
                assert!(message.contains(words), "{context}: {message}");
            }
        }
    }
}
