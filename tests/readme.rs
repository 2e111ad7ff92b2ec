//! The README tells the truth: its examples are the files that the tests run, and its configurations load.
//!
//! A block whose info string has a title (```` ```sh title=src/demo.txt ````) is the text of that file. A YAML block is a file
//! of a configuration: each `edge.yaml` begins a new one, blocks of other titles are files beside it.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use requestrocket_edge::config::{Document, schema};
use tempfile::TempDir;

const README: &str = include_str!("../README.md");

/// The secrets that the README's configurations take from the environment.
const ENVIRONMENT: [(&str, &str); 3] = [
    ("USERS_KEY", "users-key-of-the-target"),
    ("ORDERS_PASSWORD", "orders-password-of-the-target"),
    ("PARTNER_SECRET", "a-shared-secret-of-64-bytes-is-long-enough-for-each-hmac-algorithm"),
];

#[test]
fn its_examples_are_the_files_that_are_tested() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut shown = BTreeSet::new();
    for block in blocks().iter().filter(|block| block.language != "yaml") {
        let Some(title) = block.title else { continue };
        let file = fs::read_to_string(root.join(title)).unwrap_or_else(|error| panic!("{title}: {error}"));
        assert_eq!(block.text, file, "the README's block and {title} differ");
        shown.insert(title.to_owned());
    }

    let clients = fs::read_dir(root.join("tests/clients")).expect("the examples");
    let mut expected: BTreeSet<_> = clients
        .map(|entry| format!("tests/clients/{}", entry.expect("an example").file_name().to_string_lossy()))
        .collect();
    expected.insert("src/demo.txt".to_owned());
    assert_eq!(shown, expected);
}

#[test]
fn its_configurations_load_without_a_word() {
    let configurations = configurations();
    assert!(configurations.len() > 3, "the configuration grows in {} steps", configurations.len());
    for files in &configurations {
        let directory = TempDir::new().expect("a temporary directory");
        for file in files {
            let path = directory.path().join(file.title.expect("`configurations` checks it"));
            fs::create_dir_all(path.parent().expect("it is in the directory")).expect("a folder");
            fs::write(path, &file.text).expect("a file");
        }
        let checked = edge(&["check", "-c", &directory.path().join("edge.yaml").to_string_lossy()], "");
        let said = [checked.stdout, checked.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(checked.status.success() && said.is_empty(), "{}\n{said}\nof\n{}", checked.status, files[0].text);
    }
}

#[test]
fn its_configurations_are_valid_by_the_schema() {
    for files in configurations() {
        for (index, file) in files.iter().enumerate() {
            let document = if index == 0 { Document::Main } else { Document::Fragment };
            let schema = serde_json::from_str(&schema(document)).expect("the schema is JSON");
            let validator = jsonschema::draft202012::new(&schema).expect("the schema is one of draft 2020-12");
            let value: serde_json::Value = serde_yaml::from_str(&file.text).expect("YAML");
            let errors: Vec<_> = validator.iter_errors(&value).map(|error| error.to_string()).collect();
            assert!(errors.is_empty(), "{errors:?}\nof\n{}", file.text);
        }
    }
}

#[test]
fn its_digest_is_the_digest_of_its_token() {
    let digest = edge(&["digest"], "my-token");
    assert!(digest.status.success());
    let digest = String::from_utf8(digest.stdout).expect("hexadecimal digits");
    assert_eq!(digest.trim().len(), 64, "{digest}");
    assert!(README.contains(digest.trim()), "the README does not hold {digest}");
}

/// A fenced block of the README.
struct Block {
    language: &'static str,
    title: Option<&'static str>,
    text: String,
}

/// The README's fenced blocks, in order.
fn blocks() -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = README.lines();
    while let Some(line) = lines.next() {
        let Some(info) = line.strip_prefix("```") else { continue };
        let mut words = info.split(' ');
        let language = words.next().unwrap_or_default();
        let title = words.find_map(|word| word.strip_prefix("title="));
        let text = lines.by_ref().take_while(|line| *line != "```").map(|line| format!("{line}\n")).collect();
        blocks.push(Block { language, title, text });
    }
    blocks
}

/// The README's configurations, each with its `edge.yaml` first.
fn configurations() -> Vec<Vec<Block>> {
    let mut configurations: Vec<Vec<Block>> = Vec::new();
    for block in blocks().into_iter().filter(|block| block.language == "yaml") {
        match block.title {
            Some("edge.yaml") => configurations.push(vec![block]),
            Some(_) => configurations.last_mut().expect("`edge.yaml` comes first").push(block),
            None => panic!("a YAML block without a title, which nobody checks:\n{}", block.text),
        }
    }
    configurations
}

/// Runs the real binary to its end.
fn edge(arguments: &[&str], input: &str) -> Output {
    let mut process = Command::new(env!("CARGO_BIN_EXE_requestrocket-edge"))
        .args(arguments)
        .envs(ENVIRONMENT)
        .env_remove("RUST_LOG")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("cargo built the binary");
    // `check` may be gone before it is told anything.
    let _ = process.stdin.take().expect("a pipe").write_all(input.as_bytes());
    process.wait_with_output().expect("a child of ours")
}
