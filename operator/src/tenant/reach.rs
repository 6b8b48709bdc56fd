//! A resolved tenant in; what is wrong with its Loki out: one authenticated GET of the labels API, under the
//! agent's rules for clients, so that a tenant is judged before any line flows.

use std::error::Error as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use reqwest::header::{HOST, HeaderName, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Identity, RequestBuilder, StatusCode, Url};
use sluice_engine::loki;
use sluice_engine::report::{Problem, ProblemReason};

use super::resolve::Resolved;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Asks a tenant's Loki for its labels.
pub async fn reach(tenant: &Resolved, allow_local: bool) -> Option<Problem> {
    attempt(tenant, allow_local).await.err()
}

fn problem(reason: ProblemReason, message: impl Into<String>) -> Problem {
    Problem {
        reason,
        message: message.into(),
    }
}

async fn attempt(tenant: &Resolved, allow_local: bool) -> Result<(), Problem> {
    let text = loki::labels_url(&tenant.entry.push_url);
    let url = Url::parse(&text).map_err(|_| {
        problem(
            ProblemReason::AddressNotFound,
            format!("{text} is no URL: correct url"),
        )
    })?;
    let host = url
        .host_str()
        .unwrap_or_default()
        .trim_matches(['[', ']'])
        .to_owned();
    let port = url.port_or_known_default().unwrap_or(80);
    let addresses = addresses(&host, port, allow_local).await?;
    let response = request(tenant, url, &host, &addresses)?
        .send()
        .await
        .map_err(|error| failed(&host, &error))?;
    judge(response.status())?;
    is_loki(response).await
}

async fn addresses(host: &str, port: u16, allow_local: bool) -> Result<Vec<SocketAddr>, Problem> {
    let found: Vec<SocketAddr> = match host.parse::<IpAddr>() {
        Ok(address) => vec![SocketAddr::new(address, port)],
        Err(_) => match tokio::time::timeout(TIMEOUT, tokio::net::lookup_host((host, port))).await {
            Ok(Ok(found)) => found.collect(),
            Ok(Err(_)) | Err(_) => Vec::new(),
        },
    };
    if found.is_empty() {
        let message = format!("the host {host} does not resolve: correct url, or create the Service");
        return Err(problem(ProblemReason::AddressNotFound, message));
    }
    if let Some(refused) = found
        .iter()
        .find(|address| !allow_local && !loki::is_allowed_address(address.ip()))
    {
        let message = format!(
            "the host {host} resolves to {}, which tenants may not use: use an address that is not loopback or link-local, or start the operator with --allow-local-addresses",
            refused.ip()
        );
        return Err(problem(ProblemReason::AddressNotAllowed, message));
    }
    Ok(found)
}

fn request(
    tenant: &Resolved,
    mut url: Url,
    host: &str,
    addresses: &[SocketAddr],
) -> Result<RequestBuilder, Problem> {
    let tls = &tenant.entry.tls;
    let credentials = tenant.credentials.clone().unwrap_or_default();
    let refused = |what: &str| problem(ProblemReason::TlsFailed, format!("{what}: correct the Secret"));
    let mut client = Client::builder()
        .redirect(Policy::none())
        .no_proxy()
        .timeout(TIMEOUT)
        .pool_max_idle_per_host(0)
        .tls_danger_accept_invalid_certs(tls.insecure_skip_verify);
    if url.scheme() == "http" {
        // An image without CAs must not fail for what needs none.
        client = client.tls_certs_only([]);
    } else if let Some(ca) = &credentials.ca {
        let bundle =
            Certificate::from_pem_bundle(ca.as_bytes()).map_err(|_| refused("the CA bundle is no PEM"))?;
        client = client.tls_certs_only(bundle);
    }
    if let (Some(certificate), Some(key)) = (&credentials.client_certificate, &credentials.client_key) {
        let identity = Identity::from_pem(format!("{certificate}\n{key}").as_bytes())
            .map_err(|_| refused("the client certificate or its key is no PEM"))?;
        client = client.identity(identity);
    }
    let mut authority = None;
    let mut name = host;
    if let Some(server_name) = tls.server_name.as_deref().filter(|_| url.scheme() == "https") {
        // The certificate is checked against the URL's host, so that becomes the server's name.
        authority = Some(
            url.port()
                .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")),
        );
        url.set_host(Some(server_name))
            .map_err(|_| refused("tls.serverName is no host name"))?;
        name = server_name;
    }
    let client = client
        .resolve_to_addrs(name, addresses)
        .build()
        .map_err(|_| refused("the TLS settings cannot be used"))?;
    let mut request = client.get(url);
    if let Some(authority) = authority {
        request = request.header(HOST, authority);
    }
    if let Some(id) = &tenant.entry.tenant_id {
        request = request.header("X-Scope-OrgID", id);
    }
    for header in &tenant.entry.headers {
        if let (Ok(name), Ok(value)) = (
            header.name.parse::<HeaderName>(),
            HeaderValue::from_str(&header.value),
        ) {
            request = request.header(name, value);
        }
    }
    if let Some(basic) = &credentials.basic {
        request = request.basic_auth(&basic.username, Some(&basic.password));
    }
    if let Some(token) = &credentials.bearer {
        request = request.bearer_auth(token);
    }
    Ok(request)
}

fn failed(host: &str, error: &reqwest::Error) -> Problem {
    if error.is_timeout() {
        return problem(
            ProblemReason::Unreachable,
            format!(
                "{host} does not answer within {} s: check that Loki runs and that network policies allow it",
                TIMEOUT.as_secs()
            ),
        );
    }
    if let Some(tls) = tls_failure(error) {
        return problem(
            ProblemReason::TlsFailed,
            format!("the TLS handshake with {host} failed ({tls}): set tls.caSecretRef or tls.serverName"),
        );
    }
    problem(
        ProblemReason::Unreachable,
        format!("no connection to {host}: check that Loki runs and that network policies allow it"),
    )
}

/// The TLS error among an error's causes. It is wrapped in I/O errors, which pass over what they wrap when they are
/// asked for their source.
fn tls_failure(error: &reqwest::Error) -> Option<&rustls::Error> {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(tls) = cause.downcast_ref() {
            return Some(tls);
        }
        let wrapped = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        source = match wrapped {
            Some(inner) => Some(inner),
            None => cause.source(),
        };
    }
    None
}

fn judge(status: StatusCode) -> Result<(), Problem> {
    let code = status.as_u16();
    match code {
        // 429: it answers; the agents adapt to it.
        200 | 429 => Ok(()),
        401 | 403 | 407 => Err(problem(
            ProblemReason::Unauthorized,
            format!(
                "Loki, or the gateway before it, answers {code}: correct the Secret of auth, or tenantID"
            ),
        )),
        300..=399 | 404 | 405 => Err(problem(
            ProblemReason::WrongPath,
            format!("the server answers {code} where Loki's API should be: correct the path of url"),
        )),
        408 | 500..=599 => Err(problem(
            ProblemReason::ServerError,
            format!("Loki answers {code}: look at Loki's own logs"),
        )),
        _ => Err(problem(
            ProblemReason::UnexpectedAnswer,
            format!("the server answers {code}, which Loki does not: check url"),
        )),
    }
}

/// Loki's answer is a JSON object with a `status`; a web server that answers everything with a page is no Loki.
async fn is_loki(mut response: reqwest::Response) -> Result<(), Problem> {
    if response.status() != StatusCode::OK {
        return Ok(());
    }
    let start = response.chunk().await.ok().flatten().unwrap_or_default();
    let text = String::from_utf8_lossy(&start);
    if text.trim_start().starts_with('{') && text.contains("\"status\"") {
        Ok(())
    } else {
        let message = "the server answers, but not as Loki does: check url";
        Err(problem(ProblemReason::UnexpectedAnswer, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_has_its_reason() {
        for (code, expected) in [
            (200, None),
            (401, Some(ProblemReason::Unauthorized)),
            (301, Some(ProblemReason::WrongPath)),
            (404, Some(ProblemReason::WrongPath)),
            (503, Some(ProblemReason::ServerError)),
            (418, Some(ProblemReason::UnexpectedAnswer)),
        ] {
            let found = judge(StatusCode::from_u16(code).unwrap())
                .err()
                .map(|problem| problem.reason);
            assert_eq!(found, expected, "{code}");
        }
    }

    #[tokio::test]
    async fn local_addresses_are_refused_unless_allowed() {
        for host in ["127.0.0.1", "::1", "169.254.169.254"] {
            let refused = addresses(host, 80, false).await.unwrap_err();
            assert_eq!(refused.reason, ProblemReason::AddressNotAllowed, "{host}");
            assert!(addresses(host, 80, true).await.is_ok(), "{host}");
        }
    }
}
