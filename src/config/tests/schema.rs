//! The schema and the readers say the same: the same keys, the same words, the same defaults, and of the samples with a
//! mistake in them the schema refuses none that the readers take.

use std::collections::BTreeSet;

use jsonschema::Validator;

use super::super::schema::{self, Key, Object, Shape};
use super::samples::{all_samples, folder_of_samples, mistakes, with_one_mistake};
use super::*;

/// Every mapping that a schema describes.
fn objects(object: &Object, see: &mut dyn FnMut(&Object)) {
    see(object);
    for key in &object.keys {
        of_shape(&key.shape, see);
    }
}

fn of_shape(shape: &Shape, see: &mut dyn FnMut(&Object)) {
    match shape {
        Shape::Object(object) | Shape::Entries(object) => objects(object, see),
        Shape::List(items, _) => of_shape(items, see),
        Shape::Scalar(_) | Shape::Secret(_) | Shape::Headers => {}
    }
}

fn validator(document: Document) -> Validator {
    let schema: serde_json::Value = serde_json::from_str(&schema(document)).unwrap();
    assert!(jsonschema::meta::is_valid(&schema));
    jsonschema::validator_for(&schema).unwrap()
}

#[test]
fn its_keys_are_those_of_the_readers() {
    let mut names = BTreeSet::new();
    let mut see = |object: &Object| {
        names.insert(object.name);
        let described: BTreeSet<&str> = object.keys.iter().map(|key| key.name).chain(object.refused.to_vec()).collect();
        assert_eq!(described, object.known.iter().copied().collect(), "{}", object.name);
        assert!(object.is_complete(), "{}", object.name);
        assert!(object.keys.iter().all(|key| !key.about.is_empty() && key.about.ends_with('.')), "{}", object.name);
    };
    objects(&schema::edge::main(), &mut see);
    objects(&schema::entries::fragment(), &mut see);
    assert_eq!(names.len(), 23, "{names:?}");
}

/// A list given to `fields` in place would be one that the schema does not know of.
#[test]
fn no_reader_keeps_its_keys_to_itself() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config");
    for file in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
        let text = fs::read_to_string(&file).unwrap();
        assert!(!text.contains(".fields(&["), "{}: name the keys, and describe them in `schema`", file.display());
    }
}

#[test]
fn its_types_are_those_of_the_readers() {
    let words = |table: &[&'static str]| table.iter().copied().collect::<BTreeSet<_>>();
    let types = |key: &Key| match &key.shape {
        Shape::Entries(object) => object.types.iter().map(|of| of.word).collect::<BTreeSet<_>>(),
        _ => panic!("{} is not a list", key.name),
    };
    let lists = schema::entries::fragment().keys;
    assert_eq!(types(&lists[1]), words(&credentials::KINDS.map(|(word, _)| word)));
    let mut of_target = types(&lists[2]);
    of_target.insert("oauth2"); // known to the reader only to be refused
    assert_eq!(of_target, words(&injection::KINDS.map(|(word, _)| word)));
}

#[test]
fn it_refuses_nothing_that_the_readers_take() {
    let folder = folder_of_samples();
    let validator = validator(Document::Main);
    let mut loader = folder.loader();
    let (mut refused, mut missed) = (0, 0);
    with_one_mistake(&all_samples(), &mistakes(), &mut |changed| {
        let text = serde_yaml::to_string(changed).unwrap();
        fs::write(folder.path("edge.yaml"), &text).unwrap();
        let valid = validator.is_valid(&serde_json::to_value(changed).unwrap());
        match loader.load() {
            Ok(_) => assert!(valid, "{:?}", validator.iter_errors(&serde_json::to_value(changed).unwrap()).next()),
            Err(_) if valid => missed += 1,
            Err(_) => refused += 1,
        }
    });
    // References and files are beyond a schema.
    assert!(refused > 1_500 && missed * 8 < refused, "{refused} refused, {missed} missed");
}

#[test]
fn its_bounds_are_those_of_the_readers() {
    let validator = validator(Document::Main);
    let bare: serde_yaml::Value =
        serde_yaml::from_str("{ region: r1, listeners: [{ address: '127.0.0.1:8080' }] }").unwrap();
    let values =
        ["0s", "1ms", "999ms", "1s", "60s", "61s", "1m", "2m", "60000ms", "60001ms", "600s", "601s", "10m", "11m"]
            .into_iter()
            .chain(["24h", "25h", "1d", "2d", "0", "007s", "1.5s", "86400001ms", "16GiB", "1B", "5MiB ", "5mb"])
            .map(serde_yaml::Value::from);
    let numbers = [0_u64, 1, 7, 8, 1_000, 1_001, 1_024, 1_025, 10_000, 10_001, 1_000_000, 1_000_001, 10_000_000]
        .into_iter()
        .chain([10_000_001, u32::MAX.into(), u64::from(u32::MAX) + 1, u64::MAX])
        .map(serde_yaml::Value::from);
    let values: Vec<_> = values.chain(numbers).collect();
    let folder = Folder::new();
    for section in schema::edge::main().keys {
        let Shape::Object(object) = &section.shape else { continue };
        for key in object.keys.iter().filter(|key| matches!(key.shape, Shape::Scalar(_))) {
            // A size between two bounds is checked by the reader alone; a log goes to a file of any name.
            if matches!(key.name, "max_header_bytes" | "path") {
                continue;
            }
            for value in &values {
                let mut changed = bare.clone();
                let inner = serde_yaml::Mapping::from_iter([(key.name.into(), value.clone())]);
                changed.as_mapping_mut().unwrap().insert(section.name.into(), inner.into());
                fs::write(folder.path("edge.yaml"), serde_yaml::to_string(&changed).unwrap()).unwrap();
                let taken = folder.loader().load().is_ok();
                let valid = validator.is_valid(&serde_json::to_value(&changed).unwrap());
                assert_eq!(valid, taken, "{}.{}: {value:?}", section.name, key.name);
            }
        }
    }
}
