//! Mistakes and what is said about them: `tests/config/{name}.yaml`, or a folder `{name}` with an `edge.yaml` and fragments,
//! beside `{name}.stderr` with every line that the mistake must give. `UPDATE_EXPECTED=1` writes what is given now.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use requestrocket_edge::config;

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
