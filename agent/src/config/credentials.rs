//! Files and Secrets in, each tenant's credentials out. Nothing of a value reaches an error or a log.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use sluice_engine::credentials::Credentials;
use sluice_engine::document::{Auth, Tenant};
use sluice_engine::well_known::credentials_secret;

/// No entry is larger: certificates take a few KiB.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The credentials that this node has, by the tenant's UID.
#[derive(Debug, Default)]
pub struct Store {
    entries: BTreeMap<String, Arc<Credentials>>,
    /// `resourceVersion` fetched, by the Secret's name.
    versions: BTreeMap<String, String>,
}

impl Store {
    /// What a tenant's requests carry; `None` when it wants nothing, or when a part it wants is missing.
    pub fn of(&self, tenant: &Tenant) -> Option<Arc<Credentials>> {
        if !wants_any(tenant) {
            return None;
        }
        self.entries
            .get(&tenant.uid)
            .filter(|found| has_all(tenant, found))
            .cloned()
    }

    /// The version of a tenant's Secret; empty for a tenant without credentials and for a folder's files.
    pub fn version(&self, tenant: &Tenant) -> String {
        if wants_any(tenant) {
            self.secret_version(&credentials_secret(&tenant.uid)).to_owned()
        } else {
            String::new()
        }
    }

    /// The version of a Secret that was fetched last; empty before.
    pub fn secret_version(&self, secret: &str) -> &str {
        self.versions.get(secret).map_or("", String::as_str)
    }

    /// Replaces all that a Secret held. The result lists entries that cannot be read; those keep their last
    /// good content.
    pub fn apply_secret<'a>(
        &mut self,
        secret: &str,
        version: &str,
        data: impl Iterator<Item = (&'a str, &'a [u8])>,
    ) -> Vec<String> {
        let (new, errors, unreadable) = parse_all(data);
        self.entries
            .retain(|uid, _| credentials_secret(uid) != secret || unreadable.contains(uid));
        self.entries.extend(new);
        self.versions.insert(secret.to_owned(), version.to_owned());
        errors
    }

    /// Replaces everything by a folder's files, each named by a tenant's UID. The result lists files that
    /// cannot be read; those keep their last good content. A folder that does not exist is empty.
    pub fn read_dir(&mut self, dir: &Path) -> io::Result<Vec<String>> {
        let mut files = Vec::new();
        let listed = match fs::read_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.entries.clear();
                return Ok(Vec::new());
            }
            listed => listed?,
        };
        for entry in listed {
            // A mounted Secret's own bookkeeping begins with a dot.
            let Ok(name) = entry?.file_name().into_string() else {
                continue;
            };
            if name.starts_with('.') {
                continue;
            }
            let path = dir.join(&name);
            let known = fs::metadata(&path)?;
            if known.is_file() && known.len() <= MAX_FILE_BYTES {
                files.push((name, fs::read(&path)?));
            }
        }
        let (new, errors, unreadable) = parse_all(
            files
                .iter()
                .map(|(name, bytes)| (name.as_str(), bytes.as_slice())),
        );
        self.entries.retain(|uid, _| unreadable.contains(uid));
        self.entries.extend(new);
        Ok(errors)
    }
}

type Parsed = (BTreeMap<String, Arc<Credentials>>, Vec<String>, Vec<String>);

fn parse_all<'a>(data: impl Iterator<Item = (&'a str, &'a [u8])>) -> Parsed {
    let (mut new, mut errors, mut unreadable) = (BTreeMap::new(), Vec::new(), Vec::new());
    for (uid, bytes) in data {
        match serde_json::from_slice::<Credentials>(bytes) {
            Ok(credentials) => _ = new.insert(uid.to_owned(), Arc::new(credentials)),
            Err(error) => {
                // serde_json's own text quotes values, so only the place is told.
                let (line, column) = (error.line(), error.column());
                errors.push(format!(
                    "the credentials of tenant UID {uid} are not valid at line {line} column {column}"
                ));
                unreadable.push(uid.to_owned());
            }
        }
    }
    (new, errors, unreadable)
}

fn wants_any(tenant: &Tenant) -> bool {
    tenant.auth != Auth::None || tenant.tls.ca || tenant.tls.client_certificate
}

fn has_all(tenant: &Tenant, found: &Credentials) -> bool {
    let auth = match tenant.auth {
        Auth::None => true,
        Auth::Basic => found.basic.is_some(),
        Auth::Bearer => found.bearer.is_some(),
    };
    let certificate = found.client_certificate.is_some() && found.client_key.is_some();
    auth && (!tenant.tls.ca || found.ca.is_some()) && (!tenant.tls.client_certificate || certificate)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(uid: &str, auth: Auth) -> Tenant {
        let json =
            serde_json::json!({"name": "logging/ops", "uid": uid, "pushUrl": "http://loki/loki/api/v1/push"});
        Tenant {
            auth,
            ..serde_json::from_value(json).unwrap()
        }
    }

    const BASIC: &[u8] = br#"{"basic":{"username":"u","password":"hunter2"}}"#;

    #[test]
    fn a_secret_replaces_its_shard_and_an_unreadable_entry_keeps_its_last_content() {
        let mut store = Store::default();
        let secret = credentials_secret("uid-1");
        assert!(store.of(&tenant("uid-1", Auth::Basic)).is_none());
        assert!(
            store
                .apply_secret(&secret, "7", [("uid-1", BASIC)].into_iter())
                .is_empty()
        );
        assert!(store.of(&tenant("uid-1", Auth::Basic)).is_some());
        assert_eq!(store.version(&tenant("uid-1", Auth::Basic)), "7");
        let errors = store.apply_secret(
            &secret,
            "8",
            [("uid-1", &br#"{"basic":"hunter2"}"#[..])].into_iter(),
        );
        assert_eq!(errors.len(), 1);
        assert!(!errors[0].contains("hunter2"), "{errors:?}");
        assert!(store.of(&tenant("uid-1", Auth::Basic)).is_some());
        store.apply_secret(&secret, "9", std::iter::empty());
        assert!(store.of(&tenant("uid-1", Auth::Basic)).is_none());
        assert_eq!(store.version(&tenant("uid-1", Auth::Basic)), "9");
    }

    #[test]
    fn a_tenant_gets_nothing_unless_every_part_is_there() {
        let mut store = Store::default();
        store.apply_secret(&credentials_secret("uid-1"), "7", [("uid-1", BASIC)].into_iter());
        assert!(store.of(&tenant("uid-1", Auth::None)).is_none());
        assert_eq!(store.version(&tenant("uid-1", Auth::None)), "");
        assert!(store.of(&tenant("uid-1", Auth::Bearer)).is_none());
        let mut with_ca = tenant("uid-1", Auth::Basic);
        with_ca.tls.ca = true;
        assert!(store.of(&with_ca).is_none());
    }

    #[test]
    fn a_folder_as_kubelet_mounts_it() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("..data")).unwrap();
        fs::write(dir.path().join("..data/uid-1"), BASIC).unwrap();
        std::os::unix::fs::symlink("..data/uid-1", dir.path().join("uid-1")).unwrap();
        fs::write(dir.path().join("uid-2"), "{").unwrap();
        let mut store = Store::default();
        assert_eq!(store.read_dir(dir.path()).unwrap().len(), 1);
        assert!(store.of(&tenant("uid-1", Auth::Basic)).is_some());
        assert_eq!(store.version(&tenant("uid-1", Auth::Basic)), "");
        store.read_dir(&dir.path().join("none")).unwrap();
        assert!(store.of(&tenant("uid-1", Auth::Basic)).is_none());
    }
}
