//! Pointers and what was fetched in, what is in force and what to fetch next out. Pure: the order of what may
//! happen to a node, without the API server.

use std::collections::BTreeMap;

use sluice_engine::document::{Document, ReadError, content_hash};
use sluice_engine::pointer::{self, DocumentRef, Pointer};

use super::InForce;
use super::cache::Snapshot;
use super::credentials::Store;
use super::merge::Merged;

/// A pointer that is not followed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ignored {
    /// Written by a leader that lost its office.
    #[error(
        "the pointer has transitions {found}, {seen} were seen before: it was written by an earlier leader"
    )]
    Stale {
        /// The pointer's.
        found: i32,
        /// The highest seen by this process.
        seen: i32,
    },
    /// A version that this build does not know.
    #[error(
        "the pointer has version {found}, this agent reads version {}: update the agent",
        pointer::VERSION
    )]
    Version {
        /// The version found.
        found: u32,
    },
    /// Not a pointer.
    #[error("the pointer is not valid: {0}")]
    Invalid(String),
}

/// What the pointer names and the node does not have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// The document.
    pub document: Option<DocumentRef>,
    /// Secrets, by name.
    pub secrets: BTreeMap<String, String>,
}

impl Missing {
    /// Whether the node has everything.
    pub fn is_empty(&self) -> bool {
        self.document.is_none() && self.secrets.is_empty()
    }
}

/// What the node knows: the newest pointer, the content in force, the credentials.
#[derive(Debug, Default)]
pub struct Keeper {
    merged: Merged,
    credentials: Store,
    seen: Option<i32>,
    wanted: Option<Pointer>,
    /// The pointer's version of each Secret when it was fetched: the Secret may have been newer then.
    asked: BTreeMap<String, String>,
    /// Hash of the last document read by this process. One that came from the cache with refusals is read
    /// again, since an updated agent may take what its predecessor refused.
    read: String,
}

impl Keeper {
    /// Begins with what an earlier process left on disk.
    pub fn new(credentials: Store, snapshot: Option<Snapshot>) -> Self {
        let Some(Snapshot {
            hash,
            content,
            refused,
            deny,
        }) = snapshot
        else {
            return Self {
                credentials,
                ..Self::default()
            };
        };
        let read = if refused.is_empty() {
            hash.clone()
        } else {
            String::new()
        };
        let merged = Merged::restored(hash, content, refused.into_iter().collect(), deny);
        Self {
            merged,
            credentials,
            read,
            ..Self::default()
        }
    }

    /// Takes the pointer's JSON. What it withdraws is in force at once; says whether that changed anything.
    ///
    /// # Errors
    /// When the pointer is not followed.
    pub fn pointer(&mut self, json: &str) -> Result<bool, Ignored> {
        let pointer: Pointer =
            serde_json::from_str(json).map_err(|error| Ignored::Invalid(error.to_string()))?;
        if pointer.version != pointer::VERSION {
            return Err(Ignored::Version {
                found: pointer.version,
            });
        }
        let seen = self.seen.unwrap_or(pointer.transitions);
        if pointer.transitions < seen {
            return Err(Ignored::Stale {
                found: pointer.transitions,
                seen,
            });
        }
        self.seen = Some(pointer.transitions);
        let changed = self.merged.set_deny(pointer.deny.clone());
        self.wanted = Some(pointer);
        Ok(changed)
    }

    /// What has to be fetched for the newest pointer.
    pub fn missing(&self) -> Missing {
        let Some(wanted) = &self.wanted else {
            return Missing::default();
        };
        let secrets = wanted.credentials.iter().filter(|(name, version)| {
            self.asked.get(*name) != Some(version)
                && self.credentials.secret_version(name) != version.as_str()
        });
        Missing {
            document: (wanted.document.hash != self.read).then(|| wanted.document.clone()),
            secrets: secrets
                .map(|(name, version)| (name.clone(), version.clone()))
                .collect(),
        }
    }

    /// Takes a document's bytes. The result lists what is to be logged.
    ///
    /// # Errors
    /// When nothing of it can be read; every pipeline is reported as refused then, and stays as it is.
    pub fn document(&mut self, json: &[u8]) -> Result<Vec<String>, ReadError> {
        let hash = content_hash(json);
        // Content under a hash never changes, so one that cannot be read is not fetched again either.
        self.read.clone_from(&hash);
        match Document::read(json) {
            Ok((document, refused)) => Ok(self.merged.apply(&hash, document, refused)),
            Err(error) => {
                self.merged.refuse_all(&error.to_string());
                Err(error)
            }
        }
    }

    /// Takes a Secret that was fetched because the pointer names it with version `asked`.
    pub fn secret<'a>(
        &mut self,
        name: &str,
        asked: &str,
        version: &str,
        data: impl Iterator<Item = (&'a str, &'a [u8])>,
    ) -> Vec<String> {
        self.asked.insert(name.to_owned(), asked.to_owned());
        self.credentials.apply_secret(name, version, data)
    }

    /// What is in force.
    pub fn in_force(&self) -> InForce {
        self.merged.in_force(&self.credentials)
    }

    /// What the next process needs to begin without the API server.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            hash: self.merged.document().to_owned(),
            content: self.merged.content(),
            refused: self
                .merged
                .refused()
                .iter()
                .map(|(name, error)| (name.clone(), error.clone()))
                .collect(),
            deny: self.merged.deny().to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(hash: &str) -> Vec<u8> {
        serde_json::json!({"version": 1,
            "pipelines": [{"name": "team/a", "uid": "u", "hash": hash, "tenants": ["logging/ops"],
                "pods": {"namespaces": [{"name": "team"}]}}],
            "tenants": [{"name": "logging/ops", "uid": "t", "pushUrl": "http://loki/loki/api/v1/push", "auth": "Bearer"}]})
        .to_string()
        .into_bytes()
    }

    fn pointer(transitions: i32, hash: &str, deny: bool, version: &str) -> String {
        let secret = sluice_engine::well_known::credentials_secret("t");
        let deny = if deny {
            serde_json::json!([{"pipeline": "team/a"}])
        } else {
            serde_json::json!([])
        };
        serde_json::json!({"version": 1, "transitions": transitions, "document": {"hash": hash, "parts": 1},
            "deny": deny, "credentials": {secret: version}})
        .to_string()
    }

    #[test]
    fn a_pointer_is_followed_step_by_step() {
        let mut keeper = Keeper::default();
        assert!(keeper.missing().is_empty());
        let first = document("h1");
        let hash = content_hash(&first);
        assert!(!keeper.pointer(&pointer(3, &hash, false, "7")).unwrap());
        let missing = keeper.missing();
        assert_eq!(
            missing.document,
            Some(DocumentRef {
                hash: hash.clone(),
                parts: 1
            })
        );
        let (secret, _) = missing.secrets.first_key_value().unwrap();
        // The Secret was newer than the pointer said: it is not fetched again for this pointer.
        keeper.secret(secret, "7", "9", [("t", &br#"{"bearer":"x"}"#[..])].into_iter());
        keeper.document(&first).unwrap();
        assert!(keeper.missing().is_empty());
        let in_force = keeper.in_force();
        assert_eq!(
            (in_force.document.as_str(), in_force.tenants[0].version.as_str()),
            (hash.as_str(), "9")
        );
        assert!(in_force.tenants[0].credentials.is_some());
        // Nor for the pointer that catches up; but for the one after.
        keeper.pointer(&pointer(3, &hash, false, "9")).unwrap();
        assert!(keeper.missing().is_empty());
        keeper.pointer(&pointer(3, &hash, false, "10")).unwrap();
        assert_eq!(keeper.missing().secrets.len(), 1);
    }

    #[test]
    fn withdrawals_act_before_the_document_is_there() {
        let mut keeper = Keeper::default();
        keeper.document(&document("h1")).unwrap();
        assert!(keeper.pointer(&pointer(1, "unknown", true, "7")).unwrap());
        let in_force = keeper.in_force();
        assert_eq!((in_force.deny.len(), in_force.pipelines.len()), (1, 1));
        assert!(!keeper.pointer(&pointer(1, "unknown", true, "7")).unwrap());
    }

    #[test]
    fn an_earlier_leader_is_not_followed() {
        let mut keeper = Keeper::default();
        keeper.pointer(&pointer(5, "new", true, "7")).unwrap();
        let ignored = keeper.pointer(&pointer(4, "old", false, "6"));
        assert_eq!(ignored, Err(Ignored::Stale { found: 4, seen: 5 }));
        assert_eq!(keeper.in_force().deny.len(), 1);
        assert_eq!(keeper.missing().document.unwrap().hash, "new");
        assert!(keeper.pointer("{").is_err());
        assert!(
            keeper
                .pointer(&pointer(6, "x", false, "7").replace("\"version\":1", "\"version\":2"))
                .is_err()
        );
    }

    #[test]
    fn an_unreadable_document_is_reported_and_not_fetched_again() {
        let mut keeper = Keeper::default();
        keeper.document(&document("h1")).unwrap();
        let future = br#"{"version": 2}"#;
        keeper
            .pointer(&pointer(1, &content_hash(future), false, "7"))
            .unwrap();
        keeper.document(future).unwrap_err();
        assert_eq!(keeper.missing().document, None);
        let in_force = keeper.in_force();
        assert_eq!(in_force.document, content_hash(&document("h1")));
        assert!(in_force.refused[0].1.contains("update the agent"));
        assert_eq!(in_force.pipelines.len(), 1);
    }

    #[test]
    fn a_snapshot_begins_where_the_process_ended() {
        let mut keeper = Keeper::default();
        keeper.document(&document("h1")).unwrap();
        let hash = content_hash(&document("h1"));
        keeper.pointer(&pointer(5, &hash, true, "7")).unwrap();
        let mut next = Keeper::new(Store::default(), Some(keeper.snapshot()));
        let in_force = next.in_force();
        assert_eq!(
            (
                in_force.document.as_str(),
                in_force.pipelines.len(),
                in_force.deny.len()
            ),
            (hash.as_str(), 1, 1)
        );
        // A lower number of transitions is followed: the Lease may have been made anew meanwhile.
        next.pointer(&pointer(0, &hash, false, "7")).unwrap();
        assert_eq!(next.missing().document, None);
        keeper
            .document(br#"{"version":1,"pipelines":[{"name":"team/a","future":1}]}"#)
            .unwrap();
        let next = Keeper::new(Store::default(), Some(keeper.snapshot()));
        assert_eq!(next.in_force().refused.len(), 1);
        assert_eq!(next.in_force().pipelines[0].hash, "h1");
        assert!(next.read.is_empty(), "content with refusals is read again");
    }
}
