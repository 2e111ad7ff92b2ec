//! Reads all files of a configuration, each only when it has changed, several at a time.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use regex::bytes::Regex;
use serde_yaml::Value;

use super::file::Written;
use super::files::{self, Fingerprints};
use super::node::{Node, Notes, Shared, Source};
use super::problem::{Problem, Problems, quoted};
use super::show::{self, Checked};
use super::validate::{self, File};
use super::{Loaded, edge, lists};

/// No file of a hundred thousand proxies comes near; a name that leads to something endless is noticed.
const LARGEST_FILE: u64 = 1 << 30;

/// Loads a configuration again and again. Keeps every file it has parsed, and parses again only what has changed.
pub struct Loader {
    path: PathBuf,
    /// The main file's text, where it is no file.
    text: Option<String>,
    /// Where systemd puts the credentials of the service.
    credentials: Option<PathBuf>,
    fingerprints: Fingerprints,
    /// Whether files are kept as they are written too, to be shown.
    keeps_values: bool,
    kept: HashMap<PathBuf, Arc<Parsed>>,
    files: BTreeSet<PathBuf>,
}

/// One file, parsed, with all that it took to parse it.
struct Parsed {
    name: Arc<str>,
    fingerprint: u64,
    /// Whether it is YAML at all: if not, what it would have declared is unknown.
    readable: bool,
    written: Written,
    /// What the file holds, where the loader keeps it.
    value: Option<Value>,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
    /// Files it refers to, with what was found.
    files: HashMap<PathBuf, Option<u64>>,
    regexes: HashMap<String, Arc<Regex>>,
}

/// What is known about a file before it is read.
struct Origin {
    path: PathBuf,
    name: Arc<str>,
    is_main: bool,
}

/// What the main file takes in.
#[derive(Default)]
struct Included {
    folder: Option<PathBuf>,
    fragments: Vec<Origin>,
    warnings: Vec<Problem>,
    /// The folder cannot be read.
    problem: Option<Problem>,
}

impl Loader {
    /// A loader of the configuration whose main file is at `path`. Reads nothing yet.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            text: None,
            credentials: std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from),
            fingerprints: Fingerprints::default(),
            keeps_values: false,
            kept: HashMap::new(),
            files: BTreeSet::new(),
        }
    }

    /// A loader of a configuration that is all in `text`; `name` stands for it in messages.
    pub fn of_text(name: &str, text: &str) -> Self {
        Self { text: Some(text.to_owned()), ..Self::new(Path::new(name)) }
    }

    #[cfg(test)]
    pub(super) fn with_credentials(self, folder: &Path) -> Self {
        Self { credentials: Some(folder.to_owned()), ..self }
    }

    /// What the last load looked at, whether it succeeded or not: the files to watch.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(PathBuf::as_path)
    }

    /// Loads the configuration as it is now.
    ///
    /// # Errors
    /// Every problem of all files, in the order of the files.
    pub fn load(&mut self) -> Result<Loaded, Problems> {
        let regexes = self.kept.values().flat_map(|parsed| parsed.regexes.clone()).collect();
        let shared = Shared {
            credentials: self.credentials.as_deref(),
            fingerprints: &self.fingerprints,
            regexes: Mutex::new(regexes),
        };
        let (main, _) = self.read(&self.main_origin(), &shared);
        let included = self.include(&main);
        let read = self.read_all(&included.fragments, &shared);
        let fragments_kept = read.iter().filter(|(_, kept)| *kept).count();
        let fragments_parsed = read.len() - fragments_kept;
        let parsed: Vec<Arc<Parsed>> =
            std::iter::once(main).chain(read.into_iter().map(|(parsed, _)| parsed)).collect();
        self.remember(&included, &parsed);

        let sources: Vec<File<'_>> =
            parsed.iter().map(|parsed| File { name: &parsed.name, written: &parsed.written }).collect();
        let complete = included.problem.is_none() && parsed.iter().all(|parsed| parsed.readable);
        let linked = match &parsed[0].written.main {
            Some(main) => validate::link(main, &sources, complete),
            None => Err(Vec::new()),
        };
        let mut problems: Vec<(usize, Problem)> = included.problem.into_iter().map(|problem| (0, problem)).collect();
        for (index, parsed) in parsed.iter().enumerate() {
            problems.extend(parsed.problems.iter().map(|problem| (index, problem.clone())));
        }
        match linked {
            Ok(config) if problems.is_empty() => {
                let warnings = parsed.iter().flat_map(|parsed| parsed.warnings.iter().cloned());
                Ok(Loaded {
                    config,
                    warnings: included.warnings.into_iter().chain(warnings).collect(),
                    files: self.files.iter().cloned().collect(),
                    fragments_parsed,
                    fragments_kept,
                })
            }
            linked => {
                problems.extend(linked.err().into_iter().flatten());
                problems.sort_by_key(|(file, _)| *file); // stable: within a file as they were found
                Err(Problems(problems.into_iter().map(|(_, problem)| problem).collect()))
            }
        }
    }

    /// The configuration as it takes effect, in YAML, with secrets masked.
    ///
    /// # Errors
    /// Every problem of all files, as for [`load`](Self::load).
    pub fn show(mut self) -> Result<String, Problems> {
        self.keeps_values = true;
        self.load()?;
        let mut files: Vec<(&PathBuf, &Arc<Parsed>)> = self.kept.iter().collect();
        files.sort_unstable_by_key(|(path, _)| (**path != self.path, *path));
        let checked: Vec<Checked<'_>> = files
            .iter()
            .filter_map(|(_, parsed)| {
                Some(Checked { name: &parsed.name, value: parsed.value.as_ref()?, written: &parsed.written })
            })
            .collect();
        Ok(show::effective(&checked))
    }

    /// Takes note of what was read, for the next load and for whoever watches the files.
    fn remember(&mut self, included: &Included, parsed: &[Arc<Parsed>]) {
        let paths = std::iter::once(&self.path).chain(included.fragments.iter().map(|origin| &origin.path));
        let files = paths.clone().chain(&included.folder).chain(parsed.iter().flat_map(|parsed| parsed.files.keys()));
        let files = files.cloned().collect();
        // What has problems is read again: they may be cured by something that is not in its files.
        let kept =
            paths.cloned().zip(parsed.iter().cloned()).filter(|(_, parsed)| parsed.problems.is_empty()).collect();
        (self.files, self.kept) = (files, kept);
    }

    /// The fragments that the main file takes in.
    fn include(&self, main: &Parsed) -> Included {
        let mut included = Included::default();
        let Some(include) = main.written.main.as_ref().and_then(|main| main.include.as_ref()) else { return included };
        included.folder = Some(include.folder.clone());
        let note = |message| Problem { file: Arc::clone(&main.name), path: "include".to_owned(), message };
        match self.fragments(&include.folder) {
            Ok((fragments, ignored)) => {
                included.fragments = fragments;
                included.warnings = ignored.into_iter().map(note).collect();
            }
            Err(reason) => {
                let name = quoted(&include.name);
                included.problem = Some(note(format!("{name} cannot be read: {reason}; write the name of a folder")));
            }
        }
        included
    }

    fn main_origin(&self) -> Origin {
        let name = self.path.file_name().unwrap_or(self.path.as_os_str());
        Origin { path: self.path.clone(), name: name.to_string_lossy().into(), is_main: true }
    }

    /// The fragments in `folder`, sorted, and a word on each file that looks like one but is not.
    fn fragments(&self, folder: &Path) -> Result<(Vec<Origin>, Vec<String>), String> {
        let entries = std::fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let mut names: Vec<OsString> =
            entries.map_err(|error| files::reason(&error))?.iter().map(std::fs::DirEntry::file_name).collect();
        names.sort_unstable();
        let shown = folder.strip_prefix(folder_of(&self.path)).unwrap_or(folder);
        let mut fragments = Vec::new();
        let mut ignored = Vec::new();
        for name in names {
            let path = folder.join(&name);
            let name = shown.join(&name).to_string_lossy().into_owned();
            let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            if hidden || path == self.path {
                continue; // editors keep their half-written files under hidden names
            }
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("yaml") => fragments.push(Origin { path, name: name.into(), is_main: false }),
                Some("yml") => ignored.push(format!("{} is not read; end its name in `.yaml`", quoted(&name))),
                _ => {}
            }
        }
        Ok((fragments, ignored))
    }

    /// Reads all fragments, on as many threads as there are cores. Tells which were kept.
    fn read_all(&self, fragments: &[Origin], shared: &Shared<'_>) -> Vec<(Arc<Parsed>, bool)> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(fragments.len());
        let next = AtomicUsize::new(0);
        let work = || {
            let mut read = Vec::new();
            while let Some((index, origin)) = {
                let index = next.fetch_add(1, Ordering::Relaxed);
                fragments.get(index).map(|origin| (index, origin))
            } {
                read.push((index, self.read(origin, shared)));
            }
            read
        };
        let mut read: Vec<_> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            workers.into_iter().flat_map(|worker| worker.join().expect("reading a file does not panic")).collect()
        });
        read.sort_unstable_by_key(|(index, _)| *index);
        read.into_iter().map(|(_, read)| read).collect()
    }

    /// Reads one file, unless neither it nor a file it refers to has changed since it was last read.
    fn read(&self, origin: &Origin, shared: &Shared<'_>) -> (Arc<Parsed>, bool) {
        let text = self.text.as_ref().filter(|_| origin.is_main);
        let bytes =
            text.map_or_else(|| files::read(&origin.path, LARGEST_FILE), |text| Ok(text.clone().into_bytes().into()));
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(error) => {
                let advice = if origin.is_main {
                    "write it, or name another with `-c`"
                } else {
                    "correct that, or move it away"
                };
                let message = format!("cannot be read: {}; {advice}", files::reason(&error));
                return (Arc::new(Parsed::failed(origin, String::new(), message)), false);
            }
        };
        let fingerprint = self.fingerprints.of(&bytes);
        let current = |parsed: &&Arc<Parsed>| {
            let same = |(path, found): (&PathBuf, &Option<u64>)| self.fingerprints.on_disk(path) == *found;
            parsed.fingerprint == fingerprint && parsed.files.iter().all(same)
        };
        if let Some(kept) = self.kept.get(&origin.path).filter(current) {
            return (Arc::clone(kept), true);
        }
        let parsed = match yaml(&bytes) {
            Ok(value) => {
                let parsed = decode(origin, fingerprint, &value, shared);
                Parsed { value: self.keeps_values.then_some(value), ..parsed }
            }
            Err((path, message)) => Parsed::failed(origin, path, message),
        };
        (Arc::new(parsed), false)
    }
}

impl Parsed {
    fn failed(origin: &Origin, path: String, message: String) -> Self {
        Self {
            name: Arc::clone(&origin.name),
            fingerprint: 0,
            readable: false,
            written: Written::default(),
            value: None,
            problems: vec![Problem { file: Arc::clone(&origin.name), path, message }],
            warnings: Vec::new(),
            files: HashMap::new(),
            regexes: HashMap::new(),
        }
    }
}

fn decode(origin: &Origin, fingerprint: u64, value: &Value, shared: &Shared<'_>) -> Parsed {
    let folder = folder_of(&origin.path);
    let source = Source { name: Arc::clone(&origin.name), folder, shared, notes: RefCell::default() };
    let root = Node::root(&source, value);
    let mut written = Written::default();
    // A file of nothing but comments is an empty fragment.
    if origin.is_main || !root.is_empty() {
        let known: &[&str] = if origin.is_main { &edge::KEYS } else { &lists::KEYS };
        if root.is_empty() {
            root.problem::<()>("is empty; write at least `region` and `listeners`");
        } else if let Some(fields) = root.loose_fields(known) {
            for key in fields.keys().filter(|key| !known.contains(key)) {
                match edge::KEYS.contains(&key) {
                    true => fields.misplaced(key, "this key goes into the main file; move it there"),
                    false => fields.unknown(key),
                }
            }
            written.main = origin.is_main.then(|| edge::main(&fields));
            lists::read(&fields, &mut written);
        }
    }
    let Notes { problems, warnings, files, regexes, .. } = source.notes.into_inner();
    Parsed { name: source.name, fingerprint, readable: true, written, value: None, problems, warnings, files, regexes }
}

/// The value of a YAML text; or where it breaks off, and why.
fn yaml(bytes: &[u8]) -> Result<Value, (String, String)> {
    let whole = |message: &str| (String::new(), message.to_owned());
    let text = std::str::from_utf8(bytes).map_err(|_| whole("is not UTF-8 text; save it as such"))?;
    let mut value: Value = serde_yaml::from_str(text).map_err(|error| {
        let path = error.location().map(|at| format!("line {}, column {}", at.line(), at.column())).unwrap_or_default();
        (path, yaml_reason(&error.to_string()))
    })?;
    if text.contains("<<") {
        value
            .apply_merge()
            .map_err(|_| whole("`<<` takes mappings only; write `<<: *anchor` with the anchor of one"))?;
    }
    Ok(value)
}

/// What the parser says, in this program's words where it is short of advice.
fn yaml_reason(text: &str) -> String {
    let reason = text.split(" at line ").next().unwrap_or_default();
    if let Some(key) = reason.strip_prefix("duplicate entry with key ") {
        let key = quoted(key.trim_matches('"'));
        return format!("the mapping that starts here holds {key} twice; remove one of them");
    }
    if reason.contains("more than one document") {
        return "holds several documents; write each into a file of its own, or remove the `---` between them"
            .to_owned();
    }
    if reason == "unknown anchor" {
        return "no such anchor; write `&name` at a value above, and `*name` here".to_owned();
    }
    format!("not YAML: {reason}; look at the indentation, quotes and brackets here and before")
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}
