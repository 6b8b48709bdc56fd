//! A tenant's document entry and credentials in, a client out; a compressed body in, the answer out.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Url, redirect};
use sluice_engine::credentials::Credentials;
use sluice_engine::document::{Auth, Tenant};
use sluice_engine::report::{Problem, ProblemReason};

use super::problem::{Cause, problem};
use super::resolve::{Resolver, is_allowed};
use super::{PushSettings, failure, tls};
use crate::batch::MOST_UNDER_WAY;
use crate::config::TenantInForce;

/// Connecting takes no longer than this, however long an answer may take.
const CONNECT: Duration = Duration::from_secs(10);
/// Bytes of an answer that are read to judge it.
const BODY: usize = 4 << 10;
/// The same of a 400: Loki lists refused lines one by one, and each that is read is counted.
const BODY_OF_400: usize = 256 << 10;

/// Pushes to one tenant.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    url: Url,
    headers: HeaderMap,
    auth: Auth,
    credentials: Option<Arc<Credentials>>,
    host: String,
}

/// What came back.
#[derive(Debug)]
pub(super) enum Answer {
    /// An answer.
    Response {
        /// Its status.
        status: u16,
        /// What `Retry-After` asks for.
        retry_after: Option<Duration>,
        /// The body's beginning.
        body: Vec<u8>,
    },
    /// None.
    Failed(Cause),
}

/// Host and port of a push URL, for people.
pub(super) fn host_of(url: &str) -> String {
    let Ok(url) = Url::parse(url) else {
        return "the LokiTenant's URL".to_owned();
    };
    let host = url.host_str().unwrap_or_default();
    url.port()
        .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

impl Client {
    /// A client; or what keeps it from being one.
    pub(super) fn new(in_force: &TenantInForce, settings: &PushSettings) -> Result<Self, Problem> {
        let tenant = &in_force.tenant;
        let host = host_of(&tenant.push_url);
        let fail = |reason, detail| {
            problem(
                Cause {
                    reason,
                    status: None,
                    detail,
                },
                &host,
            )
        };
        if let Some(missing) = missing(tenant, in_force.credentials.as_deref()) {
            return Err(fail(ProblemReason::CredentialsMissing, missing));
        }
        let mut url = Url::parse(&tenant.push_url).map_err(|_| fail(ProblemReason::AddressNotFound, ""))?;
        let name = url
            .host_str()
            .unwrap_or_default()
            .trim_matches(['[', ']'])
            .to_owned();
        // An address in the URL is never resolved, so it is checked here.
        if name
            .parse::<IpAddr>()
            .is_ok_and(|ip| !is_allowed(ip, settings.allow_local_addresses))
        {
            return Err(fail(ProblemReason::AddressNotAllowed, ""));
        }
        let https = url.scheme() == "https";
        let mut headers = headers(tenant).ok_or_else(|| fail(ProblemReason::UnexpectedAnswer, ""))?;
        if let Some(server_name) = tenant.tls.server_name.as_deref().filter(|_| https) {
            // TLS shows and verifies the URL's host, so that is the server's name; the resolver looks up the
            // real one, and the Host header says it.
            let authority =
                HeaderValue::from_str(&host).map_err(|_| fail(ProblemReason::AddressNotFound, ""))?;
            if server_name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
                || url.set_host(Some(server_name)).is_err()
            {
                return Err(fail(
                    ProblemReason::TlsFailed,
                    "spec.tls.serverName is not a DNS name",
                ));
            }
            headers.insert(header::HOST, authority);
        }
        let tls = tls::config(&tenant.tls, in_force.credentials.as_deref(), https)
            .map_err(|detail| fail(ProblemReason::TlsFailed, detail))?;
        let timeout = Duration::from_millis(tenant.delivery.request_timeout_ms);
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .dns_resolver(Resolver {
                allow_local: settings.allow_local_addresses,
                host: name,
            })
            .user_agent(&settings.user_agent)
            .redirect(redirect::Policy::none())
            .referer(false)
            .no_proxy()
            .http1_only()
            .pool_max_idle_per_host(MOST_UNDER_WAY)
            .connect_timeout(CONNECT.min(timeout))
            .timeout(timeout)
            .build()
            .map_err(|_| fail(ProblemReason::TlsFailed, "the client cannot be made"))?;
        Ok(Self {
            http,
            url,
            headers,
            auth: tenant.auth,
            credentials: in_force.credentials.clone(),
            host,
        })
    }

    /// Host and port, for people.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// One attempt.
    pub(super) async fn push(&self, body: Bytes) -> Answer {
        let mut request = self
            .http
            .request(Method::POST, self.url.clone())
            .headers(self.headers.clone())
            .body(body);
        let credentials = self.credentials.as_deref();
        match self.auth {
            Auth::None => {}
            Auth::Basic => {
                if let Some(basic) = credentials.and_then(|credentials| credentials.basic.as_ref()) {
                    request = request.basic_auth(&basic.username, Some(&basic.password));
                }
            }
            Auth::Bearer => {
                if let Some(token) = credentials.and_then(|credentials| credentials.bearer.as_ref()) {
                    request = request.bearer_auth(token);
                }
            }
        }
        match request.send().await {
            Ok(response) => read(response).await,
            Err(error) => Answer::Failed(failure::cause(&error)),
        }
    }
}

async fn read(mut response: reqwest::Response) -> Answer {
    let status = response.status().as_u16();
    let retry_after = response
        .headers()
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok());
    // The other form, a date, is rare, and clocks differ: the back-off is enough then.
    let retry_after = retry_after
        .and_then(|text| text.trim().parse().ok())
        .map(Duration::from_secs);
    let limit = match status {
        204 => 0,
        400 => BODY_OF_400,
        _ => BODY,
    };
    let mut body = Vec::new();
    while body.len() < limit {
        match response.chunk().await {
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            // Where the text decides what is stored, half a text decides nothing: the rest may be a login page,
            // or more refused lines. The same request once more gets the whole of it.
            Err(error) if matches!(status, 200 | 400) => return Answer::Failed(failure::cause(&error)),
            // Elsewhere the status says enough.
            Ok(None) | Err(_) => break,
        }
    }
    body.truncate(limit);
    Answer::Response {
        status,
        retry_after,
        body,
    }
}

/// The part of the credentials that the tenant wants and the node does not have.
fn missing(tenant: &Tenant, credentials: Option<&Credentials>) -> Option<&'static str> {
    let lacks = |has: fn(&Credentials) -> bool| !credentials.is_some_and(has);
    if tenant.auth == Auth::Basic && lacks(|credentials| credentials.basic.is_some()) {
        Some("no user name and password")
    } else if tenant.auth == Auth::Bearer && lacks(|credentials| credentials.bearer.is_some()) {
        Some("no bearer token")
    } else if tenant.tls.ca && lacks(|credentials| credentials.ca.is_some()) {
        Some("no CA bundle")
    } else if tenant.tls.client_certificate
        && lacks(|credentials| credentials.client_certificate.is_some() && credentials.client_key.is_some())
    {
        Some("no client certificate with its key")
    } else {
        None
    }
}

fn headers(tenant: &Tenant) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for header in &tenant.headers {
        let name = HeaderName::from_bytes(header.name.as_bytes()).ok()?;
        headers.append(name, HeaderValue::from_str(&header.value).ok()?);
    }
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/x-protobuf"),
    );
    if let Some(id) = &tenant.tenant_id {
        headers.insert(
            HeaderName::from_static("x-scope-orgid"),
            HeaderValue::from_str(id).ok()?,
        );
    }
    Some(headers)
}
