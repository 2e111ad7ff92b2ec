//! Mistakes and what is said about them: `tests/config/{name}.yaml`, or a folder `{name}` with an `edge.yaml` and fragments,
//! beside `{name}.stderr` with every line that the mistake must give. `UPDATE_EXPECTED=1` writes what is given now.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use jsonschema::Validator;
use requestrocket_edge::config::{self, Document};

/// What is printed about the configuration at `path`: a line for each problem, or for each warning when it is valid.
fn said(path: &Path) -> String {
    let lines: Vec<String> = match config::load(path) {
        Ok(loaded) => loaded.warnings.iter().map(|warning| format!("warning: {warning}")).collect(),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    };
    lines.into_iter().fold(String::new(), |text, line| text + &line + "\n")
}

fn cases() -> Vec<(PathBuf, PathBuf)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config");
    let mut cases: Vec<_> = std::fs::read_dir(folder)
        .expect("readable")
        .map(|entry| entry.expect("readable").path())
        .filter_map(|path| match path.extension().and_then(|extension| extension.to_str()) {
            Some("yaml") => Some((path.clone(), path.with_extension("stderr"))),
            None if path.join("edge.yaml").is_file() => Some((path.join("edge.yaml"), path.with_extension("stderr"))),
            _ => None,
        })
        .collect();
    cases.sort();
    cases
}

#[test]
fn every_mistake_is_explained() {
    let update = std::env::var_os("UPDATE_EXPECTED").is_some();
    let mut differences = String::new();
    for (config, expected) in cases() {
        let said = said(&config);
        if update {
            std::fs::write(&expected, said).expect("readable");
            continue;
        }
        let expected_text = std::fs::read_to_string(&expected).unwrap_or_default();
        if said != expected_text {
            let name = expected.file_stem().expect("readable").to_string_lossy();
            writeln!(differences, "{name}:").expect("readable");
            let added = said.lines().filter(|line| !expected_text.lines().any(|expected| expected == *line));
            let missing = expected_text.lines().filter(|line| !said.lines().any(|said| said == *line));
            missing.for_each(|line| writeln!(differences, "  - {line}").expect("readable"));
            added.for_each(|line| writeln!(differences, "  + {line}").expect("readable"));
        }
    }
    assert!(differences.is_empty(), "expected -, said +; UPDATE_EXPECTED=1 accepts what is said\n{differences}");
}

/// Mistakes end the binary with `EX_CONFIG` and the expected lines; what is merely warned about leaves `check` silent.
#[test]
fn the_binary_says_it_too() {
    for (config, expected) in cases() {
        let expected_text = std::fs::read_to_string(&expected).expect("readable");
        let warned = expected_text.starts_with("warning: ");
        let output = Command::new(env!("CARGO_BIN_EXE_requestrocket-edge"))
            .args(["check", "--config"])
            .arg(&config)
            .env_remove("CREDENTIALS_DIRECTORY")
            .output()
            .expect("cargo built the binary");
        let (code, stderr) = if warned { (0, "") } else { (78, expected_text.as_str()) };
        assert_eq!(String::from_utf8_lossy(&output.stderr), stderr, "{}", config.display());
        assert_eq!(output.status.code(), Some(code), "{}", config.display());
        assert!(output.stdout.is_empty(), "{}", config.display());
    }
}

/// Mistakes that no schema can express: the name of the case, the paths (all that start so), and why.
const BEYOND_A_SCHEMA: [(&str, &str, &str); 33] = [
    ("account-reference", "", REFERENCE),
    ("admin", "admin", "two values that must differ"),
    ("base-url", "targets[6]", "a dot segment, in any encoding"),
    ("base-url", "targets[11]", "half an address looks like a name"),
    ("duplicate-ids", "", REFERENCE),
    ("include", "include", FILE),
    ("jwt-keys", "", FILE),
    ("listener-address", "listeners[5]", "two values that must differ"),
    ("listener-client-ca", "listeners[1]", FILE),
    ("listener-client-ca", "listeners[2]", FILE),
    ("listener-tls", "listeners[0].tls.certificates[0]", FILE),
    ("listener-tls", "listeners[0].tls.certificates[1]", FILE),
    ("listener-tls", "listeners[0].tls.certificates[2]", FILE),
    ("references", "", REFERENCE),
    ("rule-conditions", "proxies[0].rules[4]", PATTERN),
    ("rules", "proxies[0].rules[3]", "two values that must differ"),
    ("rules", "proxies[0].rules[7]", PATTERN),
    ("rules", "proxies[0].rules[8]", PATTERN),
    ("same-credential-twice", "", REFERENCE),
    ("secret-env", "proxy_credentials[0]", FILE),
    ("secret-env", "proxy_credentials[1]", FILE),
    ("secret-file", "", FILE),
    ("secret-unsendable", "", "the secret is what it is"),
    ("sizes", "defaults.max_request_body", "a size of any number of digits"),
    ("sizes", "limits.max_header_bytes", "a size between two others, in ten units"),
    ("target-credential-header", "target_credentials[3]", "header names that differ in case"),
    ("target-tls", "targets[1]", FILE),
    ("target-tls", "targets[2]", FILE),
    ("target-tls", "targets[3]", FILE),
    ("duplicate-key", "", TWICE),
    ("indentation", "", TWICE),
    ("listener-proxy-protocol", "listeners[0]", "refused, but at `trusted_proxies`"),
    ("merge", "", "refused, but at `pool`"),
];
const REFERENCE: &str = "ids of other entries, in other files";
const FILE: &str = "what is in a file, or in the environment";
const PATTERN: &str = "regular expressions are written in many dialects";
const TWICE: &str = "a key that stands there twice is gone before the schema sees it";

#[test]
fn the_schema_refuses_what_it_can() {
    let main = validator(Document::Main);
    let fragment = validator(Document::Fragment);
    let mut used = vec![false; BEYOND_A_SCHEMA.len()];
    let mut missed = String::new();
    for (config, expected) in cases() {
        let case = expected.file_stem().expect("readable").to_string_lossy();
        let folder = config.parent().expect("readable");
        for line in std::fs::read_to_string(&expected).expect("readable").lines() {
            let (file, rest) = line.split_once(": ").expect("a line starts with its file");
            let path = rest.split_once(": ").map_or("", |(path, _)| path);
            let path = if path.contains('`') { "" } else { path }; // about the file as a whole
            let validator = if file.contains('/') { &fragment } else { &main };
            let text = std::fs::read(folder.join(file)).unwrap_or_default();
            let Ok(value) = serde_yaml::from_slice::<serde_json::Value>(&text) else { continue }; // not even YAML
            if file == "warning" || refuses(validator, &value, path) {
                continue;
            }
            let exception = BEYOND_A_SCHEMA.iter().position(|(of, start, _)| *of == case && path.starts_with(start));
            match exception {
                Some(index) => used[index] = true,
                None => writeln!(missed, "{case}: {line}").expect("readable"),
            }
        }
    }
    assert!(missed.is_empty(), "the schema takes:\n{missed}");
    let unused: Vec<_> = BEYOND_A_SCHEMA.iter().zip(used).filter(|(_, used)| !used).map(|(of, _)| of).collect();
    assert!(unused.is_empty(), "the schema refuses these after all: {unused:?}");
}

/// Whether the schema finds fault with `path`, or with the mapping that it is a key of, or with a key of its mapping.
fn refuses(validator: &Validator, value: &serde_json::Value, path: &str) -> bool {
    let pointer = match path {
        "" => String::new(),
        path => format!("/{}", path.replace('[', "/").replace("].", "/").replace(']', "").replace('.', "/")),
    };
    let (parent, key) = pointer.rsplit_once('/').unwrap_or_default();
    validator.iter_errors(value).any(|error| {
        let at = error.instance_path().as_str();
        let below = at.strip_prefix(&pointer).and_then(|rest| rest.strip_prefix('/'));
        // A key that does not belong into its mapping is a fault of the mapping, which names the key.
        at == pointer
            || (at == parent && error.to_string().contains(key))
            || below.is_some_and(|rest| !pointer.is_empty() && !rest.contains('/'))
    })
}

fn validator(document: Document) -> Validator {
    let schema = serde_json::from_str(&config::schema(document)).expect("the schema is JSON");
    jsonschema::draft202012::new(&schema).expect("the schema is one of draft 2020-12")
}

#[test]
fn the_samples_are_valid_by_the_schema() {
    let conf = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf");
    let (main, fragment) = (validator(Document::Main), validator(Document::Fragment));
    let fragments = std::fs::read_dir(conf.join("proxies.d")).expect("readable");
    let fragments = fragments.map(|entry| (entry.expect("readable").path(), &fragment));
    for (file, validator) in std::iter::once((conf.join("edge.yaml"), &main)).chain(fragments) {
        if file.extension().is_some_and(|extension| extension == "yaml") {
            let text = std::fs::read_to_string(&file).expect("readable");
            let value: serde_json::Value = serde_yaml::from_str(&text).expect("YAML");
            let errors: Vec<_> = validator.iter_errors(&value).map(|error| error.to_string()).collect();
            assert!(errors.is_empty(), "{}: {errors:?}", file.display());
        }
    }
}

#[test]
fn every_mistake_has_an_answer() {
    let cases = cases();
    assert!(cases.len() >= 45, "{} cases", cases.len());
    for (config, expected) in cases {
        assert!(
            std::fs::read_to_string(&expected).is_ok_and(|text| !text.is_empty()),
            "{} says nothing",
            config.display()
        );
    }
}
