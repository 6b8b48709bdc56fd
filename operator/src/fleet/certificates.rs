//! The two Secrets as they are in, certificates and token that hold for the next month out.
//!
//! The authority signs one server certificate that all agents share; its key stays with the operator.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use k8s_openapi::api::core::v1::Secret;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sluice_engine::well_known::AGENT;

use super::render::{authority, status_secret};

/// Annotation with the time at which a Secret's certificate ends.
pub const EXPIRES: &str = "sluice.dev/expires";

const DAY: SignedDuration = SignedDuration::from_hours(24);
const AUTHORITY_DAYS: i32 = 3650;
const SERVER_DAYS: i32 = 365;
const RENEW_DAYS: i32 = 30;

/// What secures the agents' `/status` port.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificates {
    /// Signs the server certificate.
    pub authority: Authority,
    /// What agents show.
    pub server: Server,
    /// What the operator shows.
    pub token: String,
}

/// A certificate authority.
#[derive(Clone, PartialEq, Eq)]
pub struct Authority {
    /// PEM certificate.
    pub certificate: String,
    /// PEM key.
    pub key: String,
    /// When the certificate ends.
    pub expires: Timestamp,
}

/// A server certificate.
#[derive(Clone, PartialEq, Eq)]
pub struct Server {
    /// PEM certificate.
    pub certificate: String,
    /// PEM key.
    pub key: String,
    /// When the certificate ends.
    pub expires: Timestamp,
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates")
            .field("authority_expires", &self.authority.expires)
            .field("server_expires", &self.server.expires)
            .finish_non_exhaustive()
    }
}

/// Whether something has to be renewed.
pub fn due(certificates: &Certificates, now: Timestamp) -> bool {
    !lasts(certificates.authority.expires, now) || !lasts(certificates.server.expires, now)
}

fn lasts(expires: Timestamp, now: Timestamp) -> bool {
    expires.duration_since(now) > DAY * RENEW_DAYS
}

/// Keeps what the Secrets hold and what lasts for another month, and makes the rest anew.
///
/// # Errors
/// When a key cannot be made.
pub fn ensure(
    authority_secret: Option<&Secret>,
    status_secret: Option<&Secret>,
    now: Timestamp,
) -> Result<Certificates, rcgen::Error> {
    let kept = authority_secret
        .and_then(read_authority)
        .filter(|authority| lasts(authority.expires, now))
        // one that somebody broke is made anew: it must not stop what has nothing to do with it
        .filter(|authority| KeyPair::from_pem(&authority.key).is_ok())
        .filter(|authority| CertificateDer::from_pem_slice(authority.certificate.as_bytes()).is_ok());
    let authority = kept.map_or_else(|| make_authority(now), Ok)?;
    let kept = status_secret.and_then(|secret| read_server(secret, &authority));
    let server = kept
        .filter(|server| lasts(server.expires, now))
        .map_or_else(|| make_server(&authority, now), Ok)?;
    let token = status_secret
        .and_then(|secret| text(secret, status_secret::TOKEN))
        .unwrap_or_else(make_token);
    Ok(Certificates {
        authority,
        server,
        token,
    })
}

fn text(secret: &Secret, key: &str) -> Option<String> {
    let value = secret.data.as_ref()?.get(key)?;
    String::from_utf8(value.0.clone())
        .ok()
        .filter(|text| !text.is_empty())
}

fn expires(secret: &Secret) -> Option<Timestamp> {
    secret.metadata.annotations.as_ref()?.get(EXPIRES)?.parse().ok()
}

fn read_authority(secret: &Secret) -> Option<Authority> {
    Some(Authority {
        certificate: text(secret, authority::CERTIFICATE)?,
        key: text(secret, authority::KEY)?,
        expires: expires(secret)?,
    })
}

fn read_server(secret: &Secret, authority: &Authority) -> Option<Server> {
    if text(secret, status_secret::AUTHORITY)? != authority.certificate {
        return None;
    }
    Some(Server {
        certificate: text(secret, status_secret::CERTIFICATE)?,
        key: text(secret, status_secret::KEY)?,
        expires: expires(secret)?,
    })
}

fn make_authority(now: Timestamp) -> Result<Authority, rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = authority_params()?;
    let expires = valid(&mut params, now, AUTHORITY_DAYS);
    let certificate = params.self_signed(&key)?.pem();
    Ok(Authority {
        certificate,
        key: key.serialize_pem(),
        expires,
    })
}

fn authority_params() -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.distinguished_name.push(DnType::CommonName, "sluice");
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn make_server(authority: &Authority, now: Timestamp) -> Result<Server, rcgen::Error> {
    let issuer = Issuer::new(authority_params()?, KeyPair::from_pem(&authority.key)?);
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec![AGENT.to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, AGENT);
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let expires = valid(&mut params, now, SERVER_DAYS);
    let certificate = params.signed_by(&key, &issuer)?.pem();
    Ok(Server {
        certificate,
        key: key.serialize_pem(),
        expires,
    })
}

/// Sets the validity, a day into the past for clocks that are late; returns its end.
fn valid(params: &mut CertificateParams, now: Timestamp, days: i32) -> Timestamp {
    let expires = now.saturating_add(DAY * days).unwrap_or(now);
    // rcgen takes dates without a crate of its own to name them
    let [from, to] = [now.saturating_sub(DAY).unwrap_or(now), expires].map(|time| {
        let date = time.to_zoned(TimeZone::UTC).date();
        rcgen::date_time_ymd(
            date.year().into(),
            date.month().unsigned_abs(),
            date.day().unsigned_abs(),
        )
    });
    params.not_before = from;
    params.not_after = to;
    expires.saturating_sub(DAY).unwrap_or(expires)
}

fn make_token() -> String {
    URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::names::Owner;

    fn stored(certificates: &Certificates) -> (Secret, Secret) {
        let owner = Owner { uid: "1".into() };
        (
            authority::render(certificates, "own", &owner),
            status_secret::render(certificates, "own", &owner),
        )
    }

    fn at(time: &str) -> Timestamp {
        time.parse().unwrap()
    }

    #[test]
    fn what_lasts_is_kept() {
        let made = ensure(None, None, at("2026-11-20T12:00:00Z")).unwrap();
        let (authority, status) = stored(&made);
        let later = at("2027-08-01T00:00:00Z");
        assert!(ensure(Some(&authority), Some(&status), later).unwrap() == made);
        assert!(!due(&made, later));
    }

    #[test]
    fn a_certificate_is_renewed_a_month_before_its_end_and_the_rest_stays() {
        let made = ensure(None, None, at("2026-11-20T12:00:00Z")).unwrap();
        let (authority, status) = stored(&made);
        let later = at("2027-11-01T00:00:00Z");
        assert!(due(&made, later));
        let renewed = ensure(Some(&authority), Some(&status), later).unwrap();
        assert!(renewed.authority == made.authority && renewed.token == made.token);
        assert!(renewed.server.certificate != made.server.certificate && !due(&renewed, later));
    }

    #[test]
    fn another_authority_means_another_certificate() {
        let now = at("2026-11-20T12:00:00Z");
        let made = ensure(None, None, now).unwrap();
        let (_, status) = stored(&made);
        let anew = ensure(None, Some(&status), now).unwrap();
        assert!(anew.server.certificate != made.server.certificate);
    }

    #[test]
    fn a_broken_authority_is_made_anew() {
        let now = at("2026-11-20T12:00:00Z");
        let made = ensure(None, None, now).unwrap();
        for broken in [authority::KEY, authority::CERTIFICATE] {
            let (mut authority, status) = stored(&made);
            let data = authority.data.as_mut().unwrap();
            data.insert(broken.to_owned(), k8s_openapi::ByteString(b"broken".to_vec()));
            let anew = ensure(Some(&authority), Some(&status), now).unwrap();
            assert!(anew.authority != made.authority && anew.token == made.token);
        }
    }

    #[test]
    fn debug_shows_no_key() {
        let made = ensure(None, None, at("2026-11-20T12:00:00Z")).unwrap();
        let shown = format!("{made:?}");
        assert!(!shown.contains("KEY") && !shown.contains(&made.token), "{shown}");
    }
}
