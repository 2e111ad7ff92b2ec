//! The description as a JSON Schema of draft 2020-12.
//!
//! Conditions are told by `if`/`then` on a mapping that lists all its keys: editors then name the key that is wrong, where
//! with `oneOf` they would only say that none of several shapes fits.

use serde_json::json;
use serde_yaml::{Mapping, Value};

use super::{Document, Key, Object, Shape, Sources, Type, edge, entries, value, words};
use crate::config::secrets::SOURCES;

/// The schema of a file.
pub(in crate::config) fn document(of: Document) -> Mapping {
    let (object, title) = match of {
        Document::Main => (edge::main(), "Configuration of requestrocket-edge"),
        Document::Fragment => (entries::fragment(), "Fragment of a configuration of requestrocket-edge"),
    };
    let mut defs = Mapping::new();
    let mut schema = Mapping::new();
    schema.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
    schema.insert("title".into(), title.into());
    schema.extend(mapping(&object, &mut defs));
    if of == Document::Fragment {
        schema.insert("type".into(), vec![Value::from("object"), "null".into()].into()); // of nothing but comments
    }
    schema.insert("$defs".into(), defs.into());
    schema
}

fn mapping(object: &Object, defs: &mut Mapping) -> Mapping {
    debug_assert!(object.is_complete(), "`{}` and its reader know different keys", object.name);
    let mut schema = Mapping::new();
    schema.insert("type".into(), "object".into());
    let properties: Mapping = object.keys.iter().map(|key| (key.name.into(), property(key, defs).into())).collect();
    schema.insert("properties".into(), properties.into());
    let required: Vec<Value> = object.keys.iter().filter(|key| key.required).map(|key| key.name.into()).collect();
    if !required.is_empty() {
        schema.insert("required".into(), required.into());
    }
    schema.insert("additionalProperties".into(), false.into());
    let more: Vec<Value> =
        object.types.iter().map(|of| of_type(object, of)).chain(object.more.iter().cloned()).collect();
    if !more.is_empty() {
        schema.insert("allOf".into(), more.into());
    }
    schema
}

/// What holds for a credential of one type.
fn of_type(object: &Object, of: &Type) -> Value {
    let goes: Vec<&str> = object
        .keys
        .iter()
        .map(|key| key.name)
        .filter(|name| object.common().any(|key| key == *name) || of.takes.contains(name))
        .collect();
    let defaults: serde_json::Map<String, serde_json::Value> =
        of.defaults.iter().map(|(key, default)| ((*key).to_owned(), json!({ "default": default }))).collect();
    value(&json!({
        "if": { "required": ["type"], "properties": { "type": { "const": of.word } } },
        "then": { "required": of.requires, "propertyNames": { "enum": goes }, "properties": defaults },
    }))
}

fn property(key: &Key, defs: &mut Mapping) -> Mapping {
    let mut schema = Mapping::new();
    schema.insert("description".into(), key.about.into());
    schema.extend(shape(&key.shape, defs));
    if let Some(default) = &key.default {
        schema.insert("default".into(), default.clone());
    }
    if !key.examples.is_empty() {
        schema.insert("examples".into(), key.examples.clone().into());
    }
    schema
}

fn shape(of: &Shape, defs: &mut Mapping) -> Mapping {
    match of {
        Shape::Scalar(schema) => schema.as_mapping().cloned().expect("a schema is a mapping"),
        Shape::List(items, least) => list(shape(items, defs), *least),
        Shape::Entries(object) => {
            let mut schema = list(definition(object, defs), 0);
            // A key above nothing but comments is an empty list.
            schema.insert("type".into(), vec![Value::from("array"), "null".into()].into());
            schema
        }
        Shape::Object(object) => definition(object, defs),
        Shape::Secret(sources) => secret(*sources, defs),
        Shape::Headers => {
            let mut schema = Mapping::new();
            schema.insert("type".into(), "object".into());
            schema.insert("minProperties".into(), 1.into());
            schema.insert("propertyNames".into(), value(&words::credential_header()));
            schema.insert("additionalProperties".into(), secret(Sources::Plain, defs).into());
            schema
        }
    }
}

fn definition(object: &Object, defs: &mut Mapping) -> Mapping {
    if !defs.contains_key(object.name) {
        let schema = mapping(object, defs);
        defs.insert(object.name.into(), schema.into());
    }
    reference(object.name)
}

fn list(items: Mapping, least: usize) -> Mapping {
    let mut schema = Mapping::new();
    schema.insert("type".into(), "array".into());
    if least > 0 {
        schema.insert("minItems".into(), (least as u64).into());
    }
    schema.insert("items".into(), items.into());
    schema
}

fn secret(sources: Sources, defs: &mut Mapping) -> Mapping {
    let name = match sources {
        Sources::Any => "secretOrDigest",
        Sources::Plain => "secret",
    };
    if !defs.contains_key(name) {
        let goes: Vec<&str> =
            SOURCES.into_iter().filter(|source| sources == Sources::Any || *source != "sha256").collect();
        let properties = goes.iter().map(|source| (Value::from(*source), source_schema(source))).collect::<Mapping>();
        let one: Vec<_> = goes.iter().map(|source| json!({ "required": [source] })).collect();
        let mut schema = Mapping::new();
        schema.insert("description".into(), "Where the secret is: exactly one of these".into());
        schema.insert("type".into(), "object".into());
        schema.insert("properties".into(), properties.into());
        schema.insert("additionalProperties".into(), false.into());
        schema.insert("oneOf".into(), value(&json!(one)));
        defs.insert(name.into(), schema.into());
    }
    reference(name)
}

fn source_schema(source: &str) -> Value {
    value(&match source {
        "sha256" => json!({
            "description": "The SHA-256 digest of the secret, as `requestrocket-edge digest` prints it",
            "type": "string", "pattern": "^[0-9A-Fa-f]{64}$",
            "patternErrorMessage": "Write the 64 hexadecimal digits that `requestrocket-edge digest` prints",
            "examples": ["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"],
        }),
        "env" => json!({
            "description": "The name of the environment variable that holds the secret",
            "type": "string", "pattern": "^[^=\\u0000]+$",
            "patternErrorMessage": "Write the name of an environment variable, like `ACME_KEY`",
            "examples": ["ACME_KEY"],
        }),
        "file" => json!({
            "description": "The name of the file that holds the secret: looked up in $CREDENTIALS_DIRECTORY, then beside this file; one line break at its end is trimmed",
            "type": "string", "minLength": 1, "examples": ["secrets/acme-key"],
        }),
        _ => json!({
            "description": "The secret itself. Not advised: backups and diffs show it",
            "type": "string", "minLength": 1,
        }),
    })
}

fn reference(name: &str) -> Mapping {
    Mapping::from_iter([("$ref".into(), format!("#/$defs/{name}").into())])
}
