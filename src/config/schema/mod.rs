//! The shape of the configuration, told twice from one description: as a JSON Schema for editors, and as the defaults that
//! `show` fills in.
//!
//! The description stands on what the readers use: their lists of keys, their tables of words, their bounds and defaults.
//! `tests::schema` holds the two to each other. What takes more than one file, or the files that are named, is for the readers.

pub(super) mod edge;
pub(super) mod entries;
pub(super) mod json;
pub(super) mod words;

use serde_yaml::Value;

/// Which file a schema is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Document {
    /// `edge.yaml`.
    Main,
    /// A file of the `include` folder.
    Fragment,
}

/// A JSON Schema (draft 2020-12) of a file of the configuration, for editors and checkers.
pub fn schema(document: Document) -> String {
    let mut text = serde_json::to_string_pretty(&json::document(document)).expect("keys of a schema are texts");
    text.push('\n');
    text
}

/// A mapping of the configuration.
pub(super) struct Object {
    /// Its name among the definitions of the schema.
    pub name: &'static str,
    /// What the reader knows: the list that it gives to `fields`.
    pub known: &'static [&'static str],
    /// Those that it knows only to refuse them in its own words.
    pub refused: &'static [&'static str],
    /// In the order in which they are shown.
    pub keys: Vec<Key>,
    /// What depends on its `type`.
    pub types: Vec<Type>,
    /// What else holds, in the words of JSON Schema.
    pub more: Vec<Value>,
}

/// A key of a mapping.
pub(super) struct Key {
    pub name: &'static str,
    /// One sentence or two, as an editor shows them.
    pub about: &'static str,
    pub shape: Shape,
    pub required: bool,
    /// What holds when it is absent, where that is always the same.
    pub default: Option<Value>,
    pub examples: Vec<Value>,
}

/// What a value may be.
pub(super) enum Shape {
    /// Text, number or flag, in the words of JSON Schema.
    Scalar(Value),
    /// A list of at least so many items.
    List(Box<Self>, usize),
    /// One of the five lists.
    Entries(Object),
    Object(Object),
    /// Where a secret is.
    Secret(Sources),
    /// Secrets by the names of the headers that carry them.
    Headers,
}

/// Where a secret may come from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sources {
    /// Anywhere; a digest of it will do.
    Any,
    /// Not from its digest.
    Plain,
}

/// What goes with one `type` of a credential.
pub(super) struct Type {
    pub word: &'static str,
    /// The keys that go with it, of those that do not go with all.
    pub takes: &'static [&'static str],
    pub requires: &'static [&'static str],
    /// Defaults of its own. They do not hold beside the key `unless`.
    pub defaults: Vec<(&'static str, Value)>,
    pub unless: &'static str,
}

impl Object {
    fn new(name: &'static str, known: &'static [&'static str], keys: Vec<Key>) -> Self {
        Self { name, known, refused: &[], keys, types: Vec::new(), more: Vec::new() }
    }

    fn refusing(self, refused: &'static [&'static str]) -> Self {
        Self { refused, ..self }
    }

    fn typed(self, types: Vec<Type>) -> Self {
        Self { types, ..self }
    }

    /// Adds a condition; `json` is made by `serde_json::json!`.
    fn and(mut self, json: &serde_json::Value) -> Self {
        self.more.push(value(json));
        self
    }

    /// Whether the keys are those that the reader knows.
    pub fn is_complete(&self) -> bool {
        let described = |name: &&str| self.refused.contains(name) || self.keys.iter().any(|key| key.name == *name);
        self.known.iter().all(described) && self.known.len() == self.keys.len() + self.refused.len()
    }

    /// The keys that do not depend on the type.
    pub fn common(&self) -> impl Iterator<Item = &'static str> + '_ {
        let depends = |name: &&str| self.types.iter().any(|of| of.takes.contains(name));
        self.keys.iter().map(|key| key.name).filter(move |name| !depends(name))
    }
}

impl Key {
    fn new(name: &'static str, shape: Shape, about: &'static str) -> Self {
        Self { name, about, shape, required: false, default: None, examples: Vec::new() }
    }

    fn required(self) -> Self {
        Self { required: true, ..self }
    }

    fn or(self, default: impl Into<Value>) -> Self {
        Self { default: Some(default.into()), ..self }
    }

    /// A mapping whose keys all have defaults.
    fn or_empty(self) -> Self {
        self.or(serde_yaml::Mapping::new())
    }

    fn like(self, examples: &serde_json::Value) -> Self {
        let examples = value(examples).as_sequence().cloned().expect("examples are given as a list");
        Self { examples, ..self }
    }
}

impl Shape {
    fn list(items: Self) -> Self {
        Self::List(Box::new(items), 0)
    }

    fn some(items: Self) -> Self {
        Self::List(Box::new(items), 1)
    }
}

/// JSON as the value type that keeps keys in their order.
fn value(json: &serde_json::Value) -> Value {
    serde_yaml::to_value(json).expect("JSON is YAML")
}
