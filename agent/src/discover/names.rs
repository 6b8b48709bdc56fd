//! Names below the log root in, what they say out: `<namespace>_<pod>_<uid>/<container>/<n>.log[.<time>][.gz]`.
//!
//! In the [spool](crate::follow) a pod's folder ends with `_<uid of the pipeline>`: each has its own.

use std::cmp::Ordering;
use std::fmt;

/// A pod's folder, taken apart. `_` cannot occur in the names of namespaces and pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodFolder {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub pod: String,
    /// UID, or a static pod's config hash.
    pub uid: String,
    /// UID of the one pipeline that this is for; none in the log root, which is for all.
    pub reader: Option<String>,
}

impl PodFolder {
    /// Takes a folder's name apart; `None` when it is no pod's.
    pub fn parse(name: &str) -> Option<Self> {
        let mut parts = name.split('_');
        let (namespace, pod, uid) = (parts.next()?, parts.next()?, parts.next()?);
        let reader = parts.next();
        let named = [namespace, pod, uid, reader.unwrap_or("none")];
        let whole = parts.next().is_none() && named.iter().all(|part| !part.is_empty());
        whole.then(|| Self {
            namespace: namespace.to_owned(),
            pod: pod.to_owned(),
            uid: uid.to_owned(),
            reader: reader.map(str::to_owned),
        })
    }
}

/// One container of one pod, by its folders' names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerKey {
    /// Name of the pod's folder.
    pub folder: String,
    /// Name of the container.
    pub container: String,
}

impl ContainerKey {
    /// The name of its pod's folder in the log root, by which the pod's facts are known.
    pub fn pod_folder(&self) -> &str {
        let reader = self.folder.match_indices('_').nth(2);
        reader
            .and_then(|(at, _)| self.folder.get(..at))
            .unwrap_or(&self.folder)
    }

    /// Whether it stands in the spool of what was read through the API.
    pub fn is_spooled(&self) -> bool {
        self.pod_folder().len() < self.folder.len()
    }
}

impl fmt::Display for ContainerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.folder, self.container)
    }
}

/// A log file's name; ordered as the container wrote: by restart, then rotation, the tip last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogName {
    /// The container's restart count.
    pub restart: u32,
    /// When kubelet rotated it, `YYYYMMDD-HHMMSS`; `None` for the tip.
    pub rotated: Option<String>,
    /// Compressed.
    pub gz: bool,
}

impl LogName {
    /// Reads a name; `None` for any other, `.tmp` leftovers included.
    pub fn parse(name: &str) -> Option<Self> {
        let (restart, rest) = name.split_once(".log")?;
        let (rest, gz) = match rest.strip_suffix(".gz") {
            Some(rest) => (rest, true),
            None => (rest, false),
        };
        let rotated = match rest {
            "" => None,
            _ => Some(rest.strip_prefix('.')?),
        };
        if rotated.is_some_and(|stamp| !is_stamp(stamp)) || (gz && rotated.is_none()) {
            return None;
        }
        let parsed = Self {
            restart: restart.parse().ok()?,
            rotated: rotated.map(str::to_owned),
            gz,
        };
        // `007.log` and `+7.log` parse as numbers; kubelet writes neither.
        (parsed.to_string() == name).then_some(parsed)
    }

    /// Whether both name the same data, compressed or not.
    pub fn is_twin(&self, other: &Self) -> bool {
        self.restart == other.restart && self.rotated == other.rotated
    }
}

/// Whether a text is `YYYYMMDD-HHMMSS`.
fn is_stamp(text: &str) -> bool {
    text.len() == 15
        && text.bytes().enumerate().all(|(at, byte)| {
            if at == 8 {
                byte == b'-'
            } else {
                byte.is_ascii_digit()
            }
        })
}

impl fmt::Display for LogName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.log", self.restart)?;
        if let Some(rotated) = &self.rotated {
            write!(f, ".{rotated}")?;
        }
        if self.gz { f.write_str(".gz") } else { Ok(()) }
    }
}

impl Ord for LogName {
    fn cmp(&self, other: &Self) -> Ordering {
        let tip = |name: &Self| name.rotated.is_none();
        self.restart
            .cmp(&other.restart)
            .then_with(|| tip(self).cmp(&tip(other)))
            .then_with(|| self.rotated.cmp(&other.rotated))
            .then_with(|| self.gz.cmp(&other.gz))
    }
}

impl PartialOrd for LogName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Sorts names oldest first and drops a compressed one whose plain twin is there.
pub fn arrange(names: &mut Vec<LogName>) {
    names.sort();
    names.dedup_by(|later, earlier| later.is_twin(earlier));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_pods_and_others() {
        let folder = PodFolder::parse("team-a_web-0_0f3c-11").unwrap();
        assert_eq!(
            (
                folder.namespace.as_str(),
                folder.pod.as_str(),
                folder.uid.as_str()
            ),
            ("team-a", "web-0", "0f3c-11")
        );
        assert_eq!(folder.reader, None);
        let spooled = PodFolder::parse("team-a_web-0_0f3c-11_77-e").unwrap();
        assert_eq!(spooled.reader.as_deref(), Some("77-e"));
        for name in [
            "",
            "a",
            "a_b",
            "a_b_",
            "_b_c",
            "a_b_c_",
            "a_b_c_d_e",
            "lost+found",
        ] {
            assert_eq!(PodFolder::parse(name), None, "{name}");
        }
    }

    #[test]
    fn a_spooled_containers_pod_is_known_by_its_own_folder() {
        let key = |folder: &str| ContainerKey {
            folder: folder.to_owned(),
            container: "main".to_owned(),
        };
        let (plain, spooled) = (key("a_b_c"), key("a_b_c_p"));
        assert_eq!((plain.pod_folder(), plain.is_spooled()), ("a_b_c", false));
        assert_eq!((spooled.pod_folder(), spooled.is_spooled()), ("a_b_c", true));
    }

    #[test]
    fn names_order_as_the_container_wrote() {
        let order = [
            "0.log.20261120-175001.gz",
            "0.log.20261120-175011",
            "0.log",
            "1.log.20261120-175000.gz",
            "1.log",
            "10.log",
        ];
        let mut names: Vec<_> = order
            .iter()
            .rev()
            .map(|name| LogName::parse(name).unwrap())
            .collect();
        arrange(&mut names);
        assert_eq!(names.iter().map(ToString::to_string).collect::<Vec<_>>(), order);
    }

    #[test]
    fn the_plain_twin_is_preferred() {
        let mut names = ["0.log.20261120-175001.gz", "0.log.20261120-175001"]
            .map(|n| LogName::parse(n).unwrap())
            .to_vec();
        arrange(&mut names);
        assert_eq!(
            names.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["0.log.20261120-175001"]
        );
    }

    #[test]
    fn other_names_are_ignored() {
        for name in [
            "",
            ".log",
            "a.log",
            "007.log",
            "+1.log",
            "0.log.gz",
            "0.log.20261120-175001.tmp",
            "0.log.20261120-175001.gz.tmp",
            "0.log.2026112-0175001",
            "0.log.20261120-175001.gz.gz",
            "99999999999.log",
        ] {
            assert_eq!(LogName::parse(name), None, "{name}");
        }
    }
}
