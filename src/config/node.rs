//! Reads YAML values strictly without stopping at the first mistake: every reader notes what is wrong and goes on.
//!
//! A reader gives `None` once it has noted a problem, so that a value made of several is missing as soon as one of them is.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use regex::bytes::Regex;
use rustls_pki_types::CertificateDer;
use serde_yaml::{Mapping, Value};

use super::files::Fingerprints;
use super::problem::{Problem, alternatives, closest, fit, listed, quoted};
use super::units;

/// Nothing here waits longer: what does is a slip of the hand.
pub(super) const LONGEST_DURATION: Duration = Duration::from_secs(24 * 60 * 60);

/// What the files of one load have in common.
pub(super) struct Shared<'a> {
    /// Where secret files are looked up first.
    pub credentials: Option<&'a Path>,
    pub fingerprints: &'a Fingerprints,
    /// Patterns met so far: thousands of proxies tend to share a few, and a compiled one takes kilobytes.
    pub regexes: Mutex<HashMap<String, Arc<Regex>>>,
}

/// One file while it is read, and what was noted about it.
pub(super) struct Source<'a> {
    pub name: Arc<str>,
    /// Where relative names in this file start.
    pub folder: &'a Path,
    pub shared: &'a Shared<'a>,
    pub notes: RefCell<Notes>,
}

impl Source<'_> {
    /// Whether anything is wrong with the file, as far as it has been read.
    pub fn has_problems(&self) -> bool {
        !self.notes.borrow().problems.is_empty()
    }
}

/// What reading one file brought to light.
#[derive(Default)]
pub(super) struct Notes {
    pub problems: Vec<Problem>,
    pub warnings: Vec<Problem>,
    /// Files looked up for this one, with what was found.
    pub files: HashMap<PathBuf, Option<u64>>,
    /// The distinct patterns of this file.
    pub regexes: HashMap<String, Arc<Regex>>,
    /// Roots read so far: many targets tend to share one file.
    pub roots: HashMap<PathBuf, Arc<[CertificateDer<'static>]>>,
}

/// A value, where it stands, and where to note what is wrong with it.
#[derive(Clone, Copy)]
pub(super) struct Node<'a> {
    pub source: &'a Source<'a>,
    value: &'a Value,
    at: At<'a>,
    /// The value may be, or hold, a secret that was put in the wrong place: no message shows it.
    hidden: bool,
}

#[derive(Clone, Copy)]
enum At<'a> {
    Root,
    Key(&'a At<'a>, &'a str),
    Index(&'a At<'a>, usize),
}

impl<'a> Node<'a> {
    pub fn root(source: &'a Source<'a>, value: &'a Value) -> Self {
        Self { source, value, at: At::Root, hidden: false }
    }

    /// The same value, never shown.
    pub fn hidden(self) -> Self {
        Self { hidden: true, ..self }
    }

    pub fn is_empty(&self) -> bool {
        self.value.is_null()
    }

    pub fn is_mapping(&self) -> bool {
        self.value.is_mapping()
    }

    pub fn is_list(&self) -> bool {
        self.value.is_sequence()
    }

    /// Notes a problem with this value. `None`, for readers to return.
    pub fn problem<T>(&self, message: impl Into<String>) -> Option<T> {
        let problem = self.note(message.into());
        self.source.notes.borrow_mut().problems.push(problem);
        None
    }

    /// Notes that this value is problematic: `message` goes on after the value, as in "`5x` is not a duration; write ...".
    pub fn wrong<T>(&self, message: &str) -> Option<T> {
        self.problem(format!("{} {message}", self.shown()))
    }

    /// Notes something that is allowed, but that the operator should know.
    pub fn warn(&self, message: impl Into<String>) {
        let problem = self.note(message.into());
        self.source.notes.borrow_mut().warnings.push(problem);
    }

    fn note(&self, message: String) -> Problem {
        Problem { file: Arc::clone(&self.source.name), path: self.at.to_string(), message }
    }

    fn shown(&self) -> String {
        match self.value {
            _ if self.hidden => "this".to_owned(),
            Value::Null => "an empty value".to_owned(),
            Value::Sequence(_) => "a list".to_owned(),
            Value::Mapping(_) => "a mapping".to_owned(),
            Value::Tagged(_) => "a tagged value".to_owned(),
            scalar => quoted(&scalar_text(scalar).unwrap_or_default()),
        }
    }

    /// A text. What YAML takes for a number or a boolean is refused: it may have lost zeros or a plus sign on the way.
    pub fn text(self) -> Option<&'a str> {
        match self.value {
            Value::String(text) if text.is_empty() => self.problem("is empty; write a text"),
            Value::String(text) => Some(text),
            Value::Number(_) | Value::Bool(_) => self.wrong("is not a text; put it in quotes"),
            _ => self.wrong("is not a text; write one"),
        }
    }

    /// A text that may be empty.
    pub fn any_text(self) -> Option<&'a str> {
        if self.value.as_str() == Some("") { Some("") } else { self.text() }
    }

    /// What `parse` makes of a text or a number.
    pub fn parse<T>(self, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        match parse(&scalar_text(self.value).unwrap_or_default()) {
            Ok(value) => Some(value),
            Err(message) => self.wrong(&message),
        }
    }

    /// A duration, but not an endless or an absent one.
    pub fn duration(self) -> Option<Duration> {
        self.duration_up_to(LONGEST_DURATION)
    }

    /// A duration of at least a millisecond and at most `most`.
    pub fn duration_up_to(self, most: Duration) -> Option<Duration> {
        self.duration_within(Duration::from_millis(1), most)
    }

    /// A duration of at least `least` and at most `most`.
    pub fn duration_within(self, least: Duration, most: Duration) -> Option<Duration> {
        match self.parse(units::duration)? {
            time if time >= least && time <= most => Some(time),
            Duration::ZERO => self.wrong("is no time at all; write a duration like `5s`"),
            time if time < least => {
                let least = units::show_duration(least);
                self.wrong(&format!("is too short; write at least `{least}`"))
            }
            _ => {
                let most = units::show_duration(most);
                self.wrong(&format!("is too long; write at most `{most}`"))
            }
        }
    }

    pub fn size(self) -> Option<u64> {
        self.parse(units::size)
    }

    /// A whole number between `least` and `most`.
    pub fn number<T: TryFrom<u64> + Copy>(self, least: u64, most: u64) -> Option<T> {
        match self.value.as_u64().filter(|number| (least..=most).contains(number)) {
            Some(number) => Some(T::try_from(number).ok().expect("callers give a range that the type holds")),
            None => self.wrong(&format!("is not possible here; write a whole number from {least} to {most}")),
        }
    }

    /// Whether this is a whole number above `most`: for readers who can say why there is a bound.
    pub fn exceeds(&self, most: u64) -> bool {
        self.value.as_u64().is_some_and(|number| number > most)
    }

    pub fn flag(self) -> Option<bool> {
        match self.value.as_bool() {
            Some(flag) => Some(flag),
            None => self.wrong("is neither `true` nor `false`; write one of them"),
        }
    }

    /// The value that goes with one of a few words.
    pub fn choice<T: Copy>(self, choices: &[(&str, T)]) -> Option<T> {
        let text = scalar_text(self.value).unwrap_or_default();
        if let Some((_, value)) = choices.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let words = || choices.iter().map(|(word, _)| *word);
        match closest(&text, words()).filter(|_| !self.hidden) {
            Some(guess) => self.wrong(&format!("is not known here; did you mean `{guess}`?")),
            None => self.wrong(&format!("is not known here; write {}", alternatives(words()))),
        }
    }

    /// An id: no white space, no control characters.
    pub fn id(self) -> Option<Box<str>> {
        let text = self.text()?;
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return self.wrong("is not an id; write it without spaces and control characters");
        }
        Some(text.into())
    }

    /// Every item of a list, read by `read`; one that cannot be read is left out once its problem is noted.
    pub fn items<'s, T>(&'s self, mut read: impl FnMut(Node<'s>) -> Option<T>) -> Option<Vec<T>> {
        let Value::Sequence(values) = self.value else {
            return self.wrong("is not a list; write `[ ]` around its items, or each on a line that starts with `-`");
        };
        let mut complete = true;
        let mut items = Vec::with_capacity(values.len());
        for (index, value) in values.iter().enumerate() {
            match read(Node { value, at: At::Index(&self.at, index), ..*self }) {
                Some(item) => items.push(item),
                None => complete = false,
            }
        }
        complete.then_some(items)
    }

    /// Like `items`, for lists that say nothing when they are empty.
    pub fn some_items<'s, T>(&'s self, read: impl FnMut(Node<'s>) -> Option<T>) -> Option<Vec<T>> {
        if self.value.as_sequence().is_some_and(Vec::is_empty) {
            return self.problem("is an empty list; write at least one item, or remove the key");
        }
        self.items(read)
    }

    /// The keys of a mapping, of which only `known` ones may be there.
    pub fn fields(self, known: &'a [&'a str]) -> Option<Fields<'a>> {
        let fields = self.loose_fields(known)?;
        fields.refuse_unknown();
        Some(fields)
    }

    /// The keys of a mapping; the caller says what is wrong with those that are not `known`.
    pub fn loose_fields(self, known: &'a [&'a str]) -> Option<Fields<'a>> {
        let Value::Mapping(map) = self.value else {
            return self.wrong(&format!(
                "is not a mapping; write `key: value` lines with {}",
                alternatives(known.iter().copied())
            ));
        };
        if map.keys().any(|key| !key.is_string()) {
            self.problem::<()>("holds a key that is not a text; put it in quotes");
        }
        Some(Fields { node: self, map, known })
    }

    /// Every key of a mapping with its value, whatever the keys are.
    pub fn entries(&self) -> Option<impl Iterator<Item = (&'a str, Node<'_>)>> {
        let map = self.value.as_mapping()?;
        Some(map.iter().filter_map(|(key, value)| {
            let key = key.as_str()?;
            Some((key, Node { value, at: At::Key(&self.at, key), ..*self }))
        }))
    }
}

/// A mapping whose keys are read one by one.
pub(super) struct Fields<'a> {
    pub node: Node<'a>,
    map: &'a Mapping,
    known: &'a [&'a str],
}

impl<'a> Fields<'a> {
    pub fn get(&self, key: &'static str) -> Option<Node<'_>> {
        debug_assert!(self.known.contains(&key), "`{key}` is read but not known");
        let value = self.map.get(key)?;
        Some(Node { value, at: At::Key(&self.node.at, key), ..self.node })
    }

    pub fn has(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    pub fn keys(&self) -> impl Iterator<Item = &'a str> {
        self.map.keys().filter_map(Value::as_str)
    }

    /// The value of a key that must be there; `advice` says what to write when it is not.
    pub fn required<'s, T>(
        &'s self,
        key: &'static str,
        advice: &str,
        read: impl FnOnce(Node<'s>) -> Option<T>,
    ) -> Option<T> {
        match self.get(key) {
            Some(node) => read(node),
            // One mistake, one problem: it is there under a name that is noted as wrong already.
            None if self.keys().any(|other| !self.known.contains(&other) && closest(other, [key]).is_some()) => None,
            None => self.node.problem(format!("`{key}` is missing; {advice}")),
        }
    }

    /// The value of a key that may be absent: `Some(None)` when it is.
    pub fn optional<'s, T>(&'s self, key: &'static str, read: impl FnOnce(Node<'s>) -> Option<T>) -> Option<Option<T>> {
        match self.get(key) {
            Some(node) => read(node).map(Some),
            None => Some(None),
        }
    }

    /// The value of a key, or `default` where it is absent.
    pub fn or<'s, T>(&'s self, key: &'static str, default: T, read: impl FnOnce(Node<'s>) -> Option<T>) -> Option<T> {
        self.get(key).map_or(Some(default), read)
    }

    /// Notes every key that is not known here. What is known can still be read.
    pub fn refuse_unknown(&self) {
        self.keys().filter(|key| !self.known.contains(key)).for_each(|key| self.unknown(key));
    }

    /// Notes what is wrong with there being `key` at all.
    pub fn misplaced(&self, key: &str, message: &str) {
        Node { at: At::Key(&self.node.at, key), ..self.node }.problem::<()>(message);
    }

    /// Notes that `key` is not known here.
    pub fn unknown(&self, key: &str) {
        let absent = || self.known.iter().copied().filter(|candidate| !self.has(candidate));
        match closest(key, absent()) {
            Some(guess) => self.misplaced(key, &format!("no such key; did you mean `{guess}`?")),
            None => self.misplaced(key, &format!("no such key; known here are {}", listed(self.known))),
        }
    }
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Key(Self::Root, key) => f.write_str(&fit(key)),
            Self::Key(parent, key) => write!(f, "{parent}.{}", fit(key)),
            Self::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

fn scalar_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}
