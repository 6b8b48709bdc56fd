//! An error of the HTTP client in, a class of trouble in our own words out.

use std::error::Error;
use std::io;

use rustls::{AlertDescription, CertificateError};
use sluice_engine::report::ProblemReason;

use super::problem::Cause;
use super::resolve::ResolveError;

/// What an attempt without an answer failed of.
pub(super) fn cause(error: &reqwest::Error) -> Cause {
    let unreachable = |detail| Cause { reason: ProblemReason::Unreachable, status: None, detail };
    let mut source: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(link) = source {
        if let Some(found) = known(link) {
            return found;
        }
        // An io::Error's `source` skips the error that it wraps.
        source = match link.downcast_ref::<io::Error>() {
            Some(io) => match io.get_ref() {
                Some(inner) => Some(inner as &(dyn Error + 'static)),
                None => return unreachable(io_detail(io.kind())),
            },
            None => link.source(),
        };
    }
    if error.is_timeout() {
        unreachable("no answer within the time-out")
    } else if error.is_connect() {
        unreachable("no connection")
    } else {
        unreachable("the connection broke")
    }
}

fn known(link: &(dyn Error + 'static)) -> Option<Cause> {
    if let Some(resolve) = link.downcast_ref::<ResolveError>() {
        let reason = match resolve {
            ResolveError::NotFound => ProblemReason::AddressNotFound,
            ResolveError::NotAllowed => ProblemReason::AddressNotAllowed,
        };
        return Some(Cause { reason, status: None, detail: "" });
    }
    link.downcast_ref::<rustls::Error>().map(|tls| Cause {
        reason: ProblemReason::TlsFailed,
        status: None,
        detail: tls_detail(tls),
    })
}

#[expect(clippy::wildcard_enum_match_arm, reason = "only some kinds need words of their own")]
fn io_detail(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::ConnectionRefused => "the connection is refused",
        io::ErrorKind::TimedOut => "no answer within the time-out",
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => "there is no route",
        _ => "the connection broke",
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "only some errors need words of their own")]
fn tls_detail(error: &rustls::Error) -> &'static str {
    match error {
        rustls::Error::InvalidCertificate(certificate) => match certificate {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => "the certificate has expired",
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "the certificate is not valid yet"
            }
            CertificateError::UnknownIssuer => "the certificate is of an unknown issuer",
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "the certificate is for another name"
            }
            _ => "the certificate is not valid",
        },
        rustls::Error::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired
            | AlertDescription::AccessDenied,
        ) => "the server refuses the client certificate",
        rustls::Error::InvalidMessage(_) => "the server does not speak TLS",
        _ => "the handshake failed",
    }
}
