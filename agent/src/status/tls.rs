//! A folder with certificate, key and token in, what the status port needs out. The operator rotates the
//! files; they are looked at once a second while somebody calls, and read again when one changed.

use std::fs;
use std::hint::black_box;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const TOKEN: &str = "token";
const LOOK: Duration = Duration::from_secs(1);

/// The files, and what was read of them last.
#[derive(Debug)]
pub struct TlsFiles {
    dir: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    looked: Option<Instant>,
    stamps: Vec<(i64, i64, u64, u64)>,
    acceptor: Option<TlsAcceptor>,
    token: Vec<u8>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("looked", &self.looked)
            .finish_non_exhaustive()
    }
}

impl TlsFiles {
    /// The files of a folder, which may appear later: the port answers nobody until then.
    pub fn new(dir: PathBuf) -> Self {
        let files = Self {
            dir,
            state: Mutex::default(),
        };
        if files.acceptor().is_none() {
            tracing::warn!(
                "/status answers nobody until {} holds {CERTIFICATE}, {KEY} and {TOKEN}",
                files.dir.display()
            );
        }
        files
    }

    /// What takes a connection; `None` while there is no certificate.
    pub fn acceptor(&self) -> Option<TlsAcceptor> {
        self.current(|state| state.acceptor.clone())
    }

    /// Whether the value of a header `Authorization` carries the token.
    pub fn admits(&self, authorization: &[u8]) -> bool {
        let Some(given) = authorization.strip_prefix(b"Bearer ") else {
            return false;
        };
        self.current(|state| !state.token.is_empty() && equal(given, &state.token))
    }

    fn current<T>(&self, view: impl FnOnce(&State) -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked.is_none_or(|at| at.elapsed() >= LOOK) {
            state.looked = Some(Instant::now());
            let stamps = self.stamps();
            if stamps != state.stamps {
                match self.read() {
                    Ok((acceptor, token)) => (state.acceptor, state.token) = (Some(acceptor), token),
                    Err(error) => tracing::warn!("cannot use {}: {error}", self.dir.display()),
                }
                state.stamps = stamps;
            }
        }
        view(&state)
    }

    fn stamps(&self) -> Vec<(i64, i64, u64, u64)> {
        let known = [CERTIFICATE, KEY, TOKEN]
            .iter()
            .filter_map(|name| fs::metadata(self.dir.join(name)).ok());
        known
            .map(|known| (known.mtime(), known.mtime_nsec(), known.ino(), known.len()))
            .collect()
    }

    fn read(&self) -> Result<(TlsAcceptor, Vec<u8>), String> {
        let file = |name: &str| fs::read(self.dir.join(name)).map_err(|error| format!("{name}: {error}"));
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&file(CERTIFICATE)?)
            .collect::<Result<_, _>>()
            .map_err(|error| format!("{CERTIFICATE}: {error}"))?;
        let key = PrivateKeyDer::from_pem_slice(&file(KEY)?).map_err(|error| format!("{KEY}: {error}"))?;
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|error| error.to_string())?;
        let token = file(TOKEN)?.trim_ascii().to_vec();
        if token.is_empty() {
            return Err(format!("{TOKEN}: it is empty"));
        }
        Ok((TlsAcceptor::from(Arc::new(config)), token))
    }
}

/// Takes the same time wherever two texts of one length differ.
fn equal(left: &[u8], right: &[u8]) -> bool {
    let differences = left
        .iter()
        .zip(right)
        .fold(0, |sum, (a, b)| black_box(sum | (a ^ b)));
    left.len() == right.len() && differences == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparison() {
        assert!(equal(b"abc", b"abc"));
        for other in [&b"abd"[..], b"ab", b"abcd", b""] {
            assert!(!equal(b"abc", other));
        }
    }

    #[test]
    fn without_files_nobody_is_admitted() {
        let dir = tempfile::tempdir().unwrap();
        let files = TlsFiles::new(dir.path().to_owned());
        assert!(files.acceptor().is_none());
        assert!(!files.admits(b"Bearer ") && !files.admits(b"") && !files.admits(b"Bearer x"));
    }
}
