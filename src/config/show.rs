//! The configuration as it takes effect: fragments merged, defaults filled in, references kept by their ids, secrets masked.
//!
//! What is printed is a valid main file but for the masks. Names of files, and of variables, are shown as they are written.

use std::collections::HashMap;
use std::sync::Arc;

use serde_yaml::{Mapping, Sequence, Value};

use super::edge::DEFAULTS_KEYS;
use super::file::{Account, Defaults, Written};
use super::lists::{self, PROXY_KEYS};
use super::problem::quoted;
use super::schema::edge::main;
use super::schema::{Key, Object, Shape};
use super::validate;

const MASK: &str = "***";

/// A file of a configuration that has been checked.
pub(super) struct Checked<'a> {
    pub name: &'a Arc<str>,
    pub value: &'a Value,
    pub written: &'a Written,
}

/// The text of what `files` say together; the main file is the first.
pub(super) fn effective(files: &[Checked<'_>]) -> String {
    let object = main();
    let edge = files.first().and_then(|file| file.value.as_mapping()).cloned().unwrap_or_default();
    let mut edge = fill(&object, &edge);
    edge.retain(|key, _| key != "include" && lists::KEYS.iter().all(|list| key != *list));
    let mut text = print(&edge);
    let inherited = edge.get("defaults").and_then(Value::as_mapping).cloned().unwrap_or_default();
    let limits = Limits::of(files);
    for key in object.keys.iter().filter(|key| lists::KEYS.contains(&key.name)) {
        let entries: Vec<(&Arc<str>, Sequence)> = files
            .iter()
            .map(|file| (file.name, entries(key, file, &inherited, &limits)))
            .filter(|(_, entries)| !entries.is_empty())
            .collect();
        if entries.is_empty() {
            text += &format!("{}: []\n", key.name);
            continue;
        }
        text += &format!("{}:\n", key.name);
        for (file, entries) in entries {
            text += &format!("# of {}\n{}", quoted(file), print(&entries));
        }
    }
    text
}

fn print(value: &impl serde::Serialize) -> String {
    serde_yaml::to_string(value).expect("what was read from YAML can be written as such")
}

/// The entries of one list of one file.
fn entries(key: &Key, file: &Checked<'_>, inherited: &Mapping, limits: &Limits<'_>) -> Sequence {
    let Shape::Entries(object) = &key.shape else { return Sequence::new() };
    let written = file.value.get(key.name).and_then(Value::as_sequence);
    let entries = written.into_iter().flatten().filter_map(Value::as_mapping).enumerate();
    let complete = |(index, entry): (usize, &Mapping)| {
        let mut entry = entry.clone();
        match key.name {
            "proxies" => inherit(&mut entry, inherited),
            "proxy_credentials" => drop(entry.insert("rate_limit".into(), limits.of_credential(file, index).into())),
            _ => {}
        }
        fill(object, &entry).into()
    };
    entries.map(complete).collect()
}

/// What `defaults` says goes for a proxy that does not.
fn inherit(proxy: &mut Mapping, defaults: &Mapping) {
    for key in
        DEFAULTS_KEYS.into_iter().filter(|key| PROXY_KEYS.contains(key) && !proxy.contains_key(key)).collect::<Vec<_>>()
    {
        if let Some(default) = defaults.get(key) {
            proxy.insert(key.into(), default.clone());
        }
    }
}

/// What rate limits come from.
struct Limits<'a> {
    accounts: HashMap<&'a str, &'a Account>,
    defaults: Defaults,
}

impl<'a> Limits<'a> {
    fn of(files: &[Checked<'a>]) -> Self {
        let accounts = files.iter().flat_map(|file| &file.written.accounts);
        let accounts = accounts.filter_map(|entry| Some((&*entry.id, entry.item.as_ref()?))).collect();
        let main = files.first().and_then(|file| file.written.main.as_ref());
        Self { accounts, defaults: main.map(|main| main.defaults).unwrap_or_default() }
    }

    fn of_credential(&self, file: &Checked<'_>, index: usize) -> Mapping {
        let entry = file.written.proxy_credentials.get(index).and_then(|entry| entry.item.as_ref());
        let account = entry.and_then(|entry| entry.account.as_ref()).and_then(|id| self.accounts.get(&**id));
        let own = entry.map(|entry| entry.rate_limit).unwrap_or_default();
        let limit = validate::rate_limit(own, account.copied(), self.defaults);
        let per_day = limit.per_day.map(|per_day| ("requests_per_day".into(), per_day.into()));
        [("requests_per_minute".into(), limit.per_minute.into())].into_iter().chain(per_day).collect()
    }
}

/// `written` with its keys in their order, and what is absent filled in.
fn fill(object: &Object, written: &Mapping) -> Mapping {
    let word = written.get("type").and_then(Value::as_str);
    let of = object.types.iter().find(|of| Some(of.word) == word);
    let default = |key: &Key| {
        let typed =
            of.filter(|of| !written.contains_key(of.unless)).map(|of| of.defaults.as_slice()).unwrap_or_default();
        let typed = typed.iter().find(|(name, _)| *name == key.name).map(|(_, default)| default.clone());
        typed.or_else(|| key.default.clone())
    };
    let filled = |key: &Key| {
        let value = written.get(key.name).cloned().or_else(|| default(key))?;
        Some((key.name.into(), shown(&key.shape, &value)))
    };
    object.keys.iter().filter_map(filled).collect()
}

fn shown(shape: &Shape, value: &Value) -> Value {
    match (shape, value) {
        (Shape::Secret(_), value) => masked(value),
        (Shape::Headers, Value::Mapping(headers)) => {
            headers.iter().map(|(name, secret)| (name.clone(), masked(secret))).collect::<Mapping>().into()
        }
        (Shape::Headers, _) => MASK.into(),
        (Shape::Object(object), Value::Mapping(written)) => fill(object, written).into(),
        (Shape::List(items, _), Value::Sequence(values)) => {
            values.iter().map(|value| shown(items, value)).collect::<Sequence>().into()
        }
        (_, value) => value.clone(),
    }
}

/// Where a secret is, without the secret. A digest is masked too: a short secret can be guessed from it.
fn masked(secret: &Value) -> Value {
    let Some(source) = secret.as_mapping() else { return MASK.into() };
    let shown = |(source, value): (&Value, &Value)| match source.as_str() {
        Some("env" | "file") => (source.clone(), value.clone()),
        _ => (source.clone(), MASK.into()),
    };
    source.iter().map(shown).collect::<Mapping>().into()
}
