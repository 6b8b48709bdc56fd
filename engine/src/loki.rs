//! Names, quoting and addresses as Loki judges them: texts in, the same texts checked or rendered out.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv6Addr};

use url::Url;

/// Path of the push API.
pub const PUSH_PATH: &str = "/loki/api/v1/push";
/// Path that lists a tenant's labels; asked to judge a tenant before any line flows.
pub const LABELS_PATH: &str = "/loki/api/v1/labels";
/// Uncompressed bytes of a request at most: Loki's distributor hands it to ingesters by gRPC, whose
/// messages end at 4 MiB, and answers larger ones with a 500 that never succeeds.
pub const MAX_REQUEST_BYTES: u64 = 3_670_016;

/// Request headers that a tenant may not set: Sluice or the connection sets them.
pub const RESERVED_HEADERS: [&str; 8] = [
    "x-scope-orgid",
    "authorization",
    "host",
    "transfer-encoding",
    "connection",
    "proxy-authorization",
    "te",
    "upgrade",
];
/// Labels that are evidence of a line's origin; neither spec nor line may set them.
pub const RESERVED_LABELS: [&str; 4] = ["namespace", "pod", "container", "node_name"];

/// An address that cannot be a Loki's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// No URL at all.
    #[error("{0:?} is not a URL: write http(s)://host[:port][/path]")]
    Malformed(String),
    /// Another scheme.
    #[error("the scheme {0:?} is not supported: use http or https")]
    Scheme(String),
    /// User name or password in the URL.
    #[error("the URL holds credentials: put them into a Secret and name it in auth.basic.secretRef")]
    Userinfo,
    /// A query or fragment.
    #[error("the URL has a query or a fragment: leave it out")]
    Query,
}

/// The full push URL of a tenant: [`PUSH_PATH`] is added where the path is empty or `/`.
///
/// # Errors
/// When the text is not an http or https URL without credentials, query and fragment.
pub fn push_url(text: &str) -> Result<String, UrlError> {
    let mut url = Url::parse(text).map_err(|_| UrlError::Malformed(text.to_owned()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(UrlError::Scheme(url.scheme().to_owned()));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(UrlError::Malformed(text.to_owned()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(UrlError::Userinfo);
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(UrlError::Query);
    }
    if url.path() == "/" {
        url.set_path(PUSH_PATH);
    }
    Ok(url.into())
}

/// The URL of the labels API beside a push URL; a push URL of another path gets its last parts replaced.
pub fn labels_url(push_url: &str) -> String {
    let base = push_url.strip_suffix("/push").unwrap_or(push_url);
    format!("{}/labels", base.trim_end_matches('/'))
}

/// Whether a tenant ID is one that Loki takes: 1 to 150 bytes of letters, digits and ``!-_.*'()``, neither
/// `.` nor `..` (dskit `tenant.ValidTenantID`).
pub fn is_tenant_id(id: &str) -> bool {
    (1..=150).contains(&id.len())
        && id != "."
        && id != ".."
        && id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"!-_.*'()".contains(&b))
}

/// Whether a label name is one that a user may set: `[a-zA-Z_][a-zA-Z0-9_]*`, not beginning with `__`,
/// which Loki keeps for itself, and not one of [`RESERVED_LABELS`].
pub fn is_label_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !name.starts_with("__")
        && name.len() <= 1024
        && !RESERVED_LABELS.contains(&name)
}

/// Whether a header may be set by a tenant: an RFC 9110 token that is not reserved.
pub fn is_header_name(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
        && !RESERVED_HEADERS.contains(&lower.as_str())
        && !lower.starts_with("content-")
}

/// Whether an address may be a tenant's: not loopback, link-local, unspecified or multicast.
pub fn is_allowed_address(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            !(v4.is_loopback()
                || v4.is_link_local()
                || v4.is_unspecified()
                || v4.is_multicast()
                || v4.is_broadcast())
        }
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => is_allowed_address(IpAddr::V4(v4)),
            None => !(v6.is_loopback() || is_link_local(v6) || v6.is_unspecified() || v6.is_multicast()),
        },
    }
}

fn is_link_local(v6: Ipv6Addr) -> bool {
    v6.segments()
        .first()
        .is_some_and(|first| first & 0xffc0 == 0xfe80)
}

/// Appends `value` in double quotes: Go's `strconv.Unquote` and Loki's label parser (Prometheus
/// `promql/parser/lex.go`) read it back. Invalid UTF-8 cannot get here, as it can with `strconv.Quote`: what is
/// not text never becomes a `str`.
pub fn quote(value: &str, out: &mut String) {
    out.push('"');
    for character in value.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            c if c.is_ascii() && c.is_ascii_control() => {
                // Writing to a String cannot fail.
                let _infallible = write!(out, "\\x{:02x}", u32::from(c));
            }
            // The parser takes this character for a sign of invalid UTF-8; `labels::choose` lets none get here.
            char::REPLACEMENT_CHARACTER => out.push_str("\\ufffd"),
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn push_path_is_added_only_to_an_empty_path() {
        for (given, expected) in [
            ("http://loki:3100", "http://loki:3100/loki/api/v1/push"),
            ("http://loki:3100/", "http://loki:3100/loki/api/v1/push"),
            ("https://loki/loki/api/v1/push", "https://loki/loki/api/v1/push"),
            ("https://gw/team-a/push", "https://gw/team-a/push"),
        ] {
            assert_eq!(push_url(given).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn urls_that_cannot_be_a_lokis_are_refused() {
        assert!(matches!(
            push_url("loki:3100"),
            Err(UrlError::Scheme(_) | UrlError::Malformed(_))
        ));
        assert!(matches!(push_url("ftp://loki"), Err(UrlError::Scheme(_))));
        assert!(matches!(push_url("http://u:p@loki"), Err(UrlError::Userinfo)));
        assert!(matches!(push_url("http://loki/?a=b"), Err(UrlError::Query)));
        assert!(matches!(push_url("http://"), Err(UrlError::Malformed(_))));
    }

    #[test]
    fn labels_url_stands_beside_push() {
        assert_eq!(
            labels_url("http://l/loki/api/v1/push"),
            "http://l/loki/api/v1/labels"
        );
    }

    #[test]
    fn tenant_ids() {
        assert!(is_tenant_id("ops") && is_tenant_id("a!-_.*'()9") && is_tenant_id(&"x".repeat(150)));
        for id in ["", ".", "..", "a/b", "a|b", "a b", "ä", &"x".repeat(151)] {
            assert!(!is_tenant_id(id), "{id:?}");
        }
    }

    #[test]
    fn label_and_header_names() {
        assert!(is_label_name("team") && is_label_name("_x9"));
        for name in ["", "9a", "a-b", "__x", "namespace", "node_name"] {
            assert!(!is_label_name(name), "{name:?}");
        }
        assert!(is_header_name("X-Team"));
        for name in [
            "",
            "Host",
            "content-length",
            "X-Scope-OrgID",
            "a b",
            "Authorization",
        ] {
            assert!(!is_header_name(name), "{name:?}");
        }
    }

    #[test]
    fn addresses_of_the_node_itself_are_refused() {
        for address in [
            "127.0.0.1",
            "169.254.169.254",
            "::1",
            "fe80::1",
            "0.0.0.0",
            "::ffff:127.0.0.1",
        ] {
            assert!(!is_allowed_address(address.parse().unwrap()), "{address}");
        }
        for address in ["10.1.2.3", "192.168.1.1", "fd00::1"] {
            assert!(is_allowed_address(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn quoting_follows_strconv() {
        for (value, quoted) in [
            ("", ""),
            ("plain", "plain"),
            ("\"", r#"\""#),
            ("\\", r"\\"),
            ("'`", "'`"),
            ("\u{7}\u{8}\u{c}\n\r\t\u{b}", r"\a\b\f\n\r\t\v"),
            ("\0\u{1}\u{1b}\u{1f}\u{7f}", r"\x00\x01\x1b\x1f\x7f"),
            // Go writes what does not print as an escape, and reads both.
            (
                "ä€😀\u{80}\u{a0}\u{feff}\u{10ffff}",
                "ä€😀\u{80}\u{a0}\u{feff}\u{10ffff}",
            ),
            ("a\u{fffd}b", r"a\ufffdb"),
        ] {
            let mut out = String::new();
            quote(value, &mut out);
            assert_eq!(out, format!("\"{quoted}\""), "{value:?}");
        }
    }
}
