//! A process's calls in, as strace writes them; what a power cut could take from under it out.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// What changes files, or tells others.
const CALLS: &str = "write,writev,pwrite64,fsync,fdatasync,rename,renameat,renameat2,link,linkat,mkdir,mkdirat,\
    unlink,unlinkat,sendto,sendmsg";

/// So many microseconds pass before a journal is synced: who does not wait for it is ahead of it.
const DELAY: &str = "inject=fdatasync:delay_enter=100000";

/// Runs a command with its calls written to a file. The child is the command itself, so what ends it ends both.
pub(super) fn traced(trace: &Path, program: &Path) -> Command {
    let mut command = Command::new("strace");
    command
        .args(["-D", "-f", "--seccomp-bpf", "-y", "-s", "0", "-e"])
        .arg(format!("trace={CALLS}"))
        .args(["-e", DELAY])
        .arg("-o")
        .arg(trace)
        .arg(program);
    command
}

/// What strace wrote, once it knows that the process is gone.
pub(super) fn read(trace: &Path, child: &Child) -> String {
    let id = child.id().to_string();
    let is_end = |line: &str| {
        let rest = line.strip_prefix(&id).map(str::trim_start);
        rest.is_some_and(|rest| rest.starts_with("+++ "))
    };
    let begun = Instant::now();
    loop {
        let text = std::fs::read_to_string(trace).unwrap_or_default();
        if text.lines().any(is_end) {
            return text;
        }
        assert!(begun.elapsed() < Duration::from_mins(1), "strace did not end");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// One call that is over and went well.
struct Call<'a> {
    thread: &'a str,
    name: &'a str,
    arguments: String,
}

impl Call<'_> {
    /// The file of the descriptor that it is given.
    fn file(&self) -> Option<PathBuf> {
        let (_, rest) = self.arguments.split_once('<')?;
        Some(PathBuf::from(rest.split_once('>')?.0))
    }

    /// The paths that it is given.
    fn paths(&self) -> Vec<PathBuf> {
        let quoted = self.arguments.split('"').skip(1).step_by(2);
        quoted.map(PathBuf::from).collect()
    }
}

/// A thread's call may be written in two pieces, with others' between them.
fn calls(trace: &str) -> Vec<Call<'_>> {
    let (mut begun, mut calls) = (HashMap::new(), Vec::new());
    for line in trace.lines() {
        let Some((thread, call)) = line.split_once(char::is_whitespace) else {
            continue;
        };
        let call = call.trim_start();
        if let Some(start) = call.strip_suffix("<unfinished ...>") {
            begun.insert(thread, start);
            continue;
        }
        let whole = match call.strip_prefix("<... ") {
            Some(resumed) => {
                let start = begun.remove(thread).unwrap_or_default();
                let end = resumed.split_once("resumed>").map_or("", |(_, end)| end);
                format!("{start}{end}")
            }
            None => call.to_owned(),
        };
        let Some((arguments, result)) = whole.rsplit_once(" = ") else {
            continue;
        };
        let Some(name) = CALLS.split(',').find(|name| {
            let rest = arguments.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with('('))
        }) else {
            continue;
        };
        if !result.starts_with('-') {
            calls.push(Call {
                thread,
                name,
                arguments: arguments.to_owned(),
            });
        }
    }
    calls
}

/// What was done in a state folder, and what would not outlive a power cut though something follows that needs it.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// How often what was done, by the call and the file's name.
    pub(super) done: BTreeMap<(String, String), usize>,
    pub(super) faults: Vec<String>,
    /// Written and not synced.
    files: BTreeSet<PathBuf>,
    /// Folders with names that are not synced, by the thread that has to do it.
    folders: HashMap<String, PathBuf>,
    /// The same of files that have to be synced at once.
    urgent: HashMap<String, PathBuf>,
    /// What was synced last of a journal is newer than all that was sent.
    noted: bool,
    /// Writes to sockets.
    pub(super) requests: usize,
}

impl Findings {
    pub(super) fn of(trace: &str, state: &Path) -> Self {
        let mut findings = Self::default();
        for call in calls(trace) {
            findings.take(&call, state);
        }
        findings
    }

    /// How often a call was made for a file of this name.
    pub(super) fn count(&self, call: &str, name: &str) -> usize {
        let key = (call.to_owned(), name.to_owned());
        self.done.get(&key).copied().unwrap_or_default()
    }

    fn take(&mut self, call: &Call<'_>, state: &Path) {
        let is_ours = |path: &PathBuf| path.starts_with(state);
        let file = call.file().filter(is_ours);
        let paths: Vec<PathBuf> = call.paths().into_iter().filter(is_ours).collect();
        let is_sync = matches!(call.name, "fsync" | "fdatasync");
        let is_socket = |file: PathBuf| file.to_string_lossy().starts_with("socket:");
        if call.file().is_some_and(is_socket) {
            self.requests += 1;
            self.noted = false;
        }
        if let Some(folder) = self.folders.remove(call.thread)
            && !(is_sync && file.as_ref() == Some(&folder))
        {
            self.fault(call, &folder, "has a new name that is not synced");
        }
        if let Some(urgent) = self.urgent.get(call.thread).cloned()
            && file.as_ref() != Some(&urgent)
        {
            self.fault(call, &urgent, "is not synced");
            self.urgent.remove(call.thread);
        }
        let subject = file.as_ref().or_else(|| paths.last());
        if let Some(name) = subject.and_then(|path| path.file_name()) {
            let key = (call.name.to_owned(), name.to_string_lossy().into_owned());
            *self.done.entry(key).or_default() += 1;
        }
        match (call.name, file, paths.as_slice()) {
            ("write" | "writev" | "pwrite64", Some(file), _) => {
                // A copy is written in pieces between other work; nobody knows of it before it has its name.
                if !is_in_spill(&file) {
                    self.urgent.insert(call.thread.to_owned(), file.clone());
                }
                self.files.insert(file);
            }
            ("fsync" | "fdatasync", Some(file), _) => {
                self.noted |= file.ends_with("journal");
                self.files.remove(&file);
                self.urgent.remove(call.thread);
            }
            ("rename" | "renameat" | "renameat2" | "link" | "linkat", _, [from, to]) => {
                if self.files.contains(from) {
                    self.fault(call, from, "is not synced");
                }
                self.name(call, to);
            }
            ("mkdir" | "mkdirat", _, [made]) => self.name(call, made),
            ("unlink" | "unlinkat", _, [gone]) if is_copy(gone) && !self.noted => {
                self.fault(call, gone, "is needed until the position behind it is on disk,");
            }
            _ => {}
        }
    }

    fn name(&mut self, call: &Call<'_>, path: &Path) {
        if let Some(folder) = path.parent() {
            self.folders.insert(call.thread.to_owned(), folder.to_owned());
        }
    }

    fn fault(&mut self, call: &Call<'_>, path: &Path, what: &str) {
        self.faults
            .push(format!("{} {what} before {}", path.display(), call.arguments));
    }
}

fn is_in_spill(path: &Path) -> bool {
    path.parent().is_some_and(|folder| folder.ends_with("spill"))
}

fn is_copy(path: &Path) -> bool {
    is_in_spill(path) && path.extension().is_none()
}
