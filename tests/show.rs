//! `check --show` and `schema`, run as people run them. No secret of any kind is in what they print.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

/// Secrets from every source and of every type of credential, each with `canary` in it.
const CONFIG: &str = r#"
region: r1
listeners: [{ address: "127.0.0.1:8080" }, { address: "127.0.0.1:8443", tls: { certificates: [{ chain: edge.pem, key: edge.key }] } }]
proxy_credentials:
  - { id: c1, type: bearer, secret: { value: canary-value } }
  - { id: c2, type: api_key, secret: { file: a-file } }
  - { id: c3, type: basic, username: ada, secret: { env: EDGE_TEST_SECRET } }
  - { id: c4, type: jwt, secret: { sha256: "DIGEST" } }
  - { id: c5, type: jwt_verify, jwt: { algorithms: [HS256], secret: { value: canary-of-32-bytes-for-an-hmac-key } } }
target_credentials:
  - { id: t1, type: bearer, secret: { value: canary-value } }
  - { id: t2, type: api_key, query: key, secret: { file: a-file } }
  - { id: t3, type: basic, username: edge, secret: { env: EDGE_TEST_SECRET } }
  - { id: t4, type: custom, headers: { X-One: { value: canary-value }, X-Two: { env: EDGE_TEST_SECRET }, X-Three: { file: a-file } } }
  - { id: t5, type: jwt, prefix: "", secret: { value: &anchor canary-value } }
targets: [{ id: t, base_url: "http://h", rules: [{ id: r, effect: deny, path: "^/x" }] }]
proxies: [{ id: p, target: t, target_credential: t4, proxy_credentials: [c1, c2, c3, c4, c5] }]
"#;

const DIGEST: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

fn edge(arguments: &[&str], folder: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_requestrocket-edge"))
        .args(arguments)
        .current_dir(folder)
        .env("EDGE_TEST_SECRET", "canary-of-the-environment")
        .env_remove("CREDENTIALS_DIRECTORY")
        .output()
        .expect("cargo built the binary")
}

fn folder(config: &str) -> TempDir {
    let folder = TempDir::new().expect("a temporary directory");
    let tls = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config/tls");
    for file in ["edge.pem", "edge.key"] {
        fs::copy(tls.join(file), folder.path().join(file)).expect("a file");
    }
    fs::write(folder.path().join("a-file"), "canary-of-a-file\n").expect("a file");
    fs::write(folder.path().join("edge.yaml"), config.replace("DIGEST", DIGEST)).expect("a file");
    folder
}

#[test]
fn no_secret_is_shown() {
    let folder = folder(CONFIG);
    let output = edge(&["check", "--show", "-c", "edge.yaml"], folder.path());
    let shown = String::from_utf8(output.stdout).expect("YAML is text");
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!shown.contains("canary"), "{shown}");
    let key = fs::read_to_string(folder.path().join("edge.key")).expect("a key");
    let digests = ["canary-value", "canary-of-a-file", "canary-of-the-environment"]
        .map(|secret| requestrocket_edge::secret::Digest::of(secret.as_bytes()).to_hex());
    let lines = key.lines().filter(|line| !line.starts_with("---"));
    for secret in lines.chain([DIGEST]).chain(digests.iter().map(String::as_str)) {
        // Nor the beginning of one.
        assert!(!shown.contains(&secret[..12]), "{shown}");
    }

    // What tells an operator where to look is there, and all of it is YAML.
    let value: serde_yaml::Value = serde_yaml::from_str(&shown).expect("YAML");
    assert_eq!(value["proxy_credentials"][0]["secret"]["value"], "***");
    assert_eq!(value["proxy_credentials"][1]["secret"]["file"], "a-file");
    assert_eq!(value["proxy_credentials"][2]["secret"]["env"], "EDGE_TEST_SECRET");
    assert_eq!(value["proxy_credentials"][3]["secret"]["sha256"], "***");
    assert_eq!(value["proxy_credentials"][4]["jwt"]["secret"]["value"], "***");
    assert_eq!(value["target_credentials"][3]["headers"]["X-One"]["value"], "***");
    assert_eq!(value["listeners"][1]["tls"]["certificates"][0]["key"], "edge.key");
    assert_eq!(value["proxies"][0]["target_credential"], "t4");
}

#[test]
fn what_is_shown_is_always_the_same() {
    let folder = folder(CONFIG);
    let show = || edge(&["check", "--show", "-c", "edge.yaml"], folder.path()).stdout;
    assert_eq!(show(), show());
}

#[test]
fn check_by_itself_is_silent_and_a_mistake_is_not_shown() {
    let good = folder(CONFIG);
    let output = edge(&["check", "-c", "edge.yaml"], good.path());
    assert!(output.status.success() && output.stdout.is_empty() && output.stderr.is_empty());
    let bad = folder(&CONFIG.replace("region: r1", "region: r 1"));
    let output = edge(&["check", "--show", "-c", "edge.yaml"], bad.path());
    assert_eq!((output.status.code(), output.stdout.len()), (Some(78), 0));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.starts_with("edge.yaml: region: ") && said.ends_with('\n') && !said.contains("canary"), "{said}");
}

#[test]
fn schemas_are_printed_without_a_configuration() {
    let empty = TempDir::new().expect("a temporary directory");
    let schema = |arguments: &[&str]| -> serde_json::Value {
        let output = edge(arguments, empty.path());
        assert!(output.status.success() && output.stderr.is_empty());
        serde_json::from_slice(&output.stdout).expect("JSON")
    };
    let (main, fragment) = (schema(&["schema"]), schema(&["schema", "--fragment"]));
    let keys = |schema: &serde_json::Value| schema["properties"].as_object().map_or(0, serde_json::Map::len);
    assert_eq!(keys(&fragment), 5);
    assert!(keys(&main) > keys(&fragment) && main["$schema"] == "https://json-schema.org/draft/2020-12/schema");
}
