//! `config`: one YAML text, as a main file and as a fragment, gives a configuration or problems; twice the same ones, each of a
//! known file and on one line. No word of it shows a secret, and what `check --show` prints is a configuration again.

use std::path::Path;

use requestrocket_edge::config::{Loaded, Loader, Problem, Problems};
use serde_yaml::Value;
use tempfile::TempDir;

use super::shown;

/// Part of every secret. Where it also stands somewhere else, nothing is said about secrets.
const CANARY: &str = "hunter";

const MAIN: &str = "edge.yaml";
const FRAGMENT: &str = "proxies.d/fragment.yaml";

/// A main file whose only doubtful part is its fragment.
const AROUND_FRAGMENT: &str = "
region: here
listeners: [{ address: 127.0.0.1:8080 }]
include: proxies.d
accounts: [{ id: main-account, plan: team }]
proxy_credentials: [{ id: main-client, type: api_key, secret: { file: secret } }]
targets: [{ id: main-target, base_url: 'https://api.example.com' }]
target_credentials: [{ id: main-key, type: none }]
";

/// Files that a configuration may name.
const FILES: [(&str, &[u8]); 6] = [
    ("secret", b"hunter-in-a-file\n"),
    ("rsa.pem", include_bytes!("../../tests/it/keys/rsa.pub.pem")),
    ("jwks.json", include_bytes!("../../tests/it/keys/jwks.json")),
    ("edge.pem", include_bytes!("../../tests/config/tls/edge.pem")),
    ("edge.key", include_bytes!("../../tests/config/tls/edge.key")),
    ("proxies.d/secret", b"hunter-in-a-file\n"),
];

thread_local! {
    static FOLDER: TempDir = {
        let folder = TempDir::new().expect("a folder");
        std::fs::create_dir(folder.path().join("proxies.d")).expect("a folder");
        for (name, content) in FILES {
            std::fs::write(folder.path().join(name), content).expect("a file");
        }
        folder
    };
}

/// The input is a YAML text, or one that is not quite.
pub fn check(input: &[u8]) {
    // The files of this machine are nobody's business, and as large or slow as they happen to be.
    if input.windows(2).any(|pair| pair == b".." || pair == b": /") || input.contains(&b'~') {
        return;
    }
    FOLDER.with(|folder| {
        let path = folder.path();
        std::fs::write(path.join(FRAGMENT), input).expect("a file");
        loads_alike(&|| Loader::of_text(&name(path), AROUND_FRAGMENT), input);
        std::fs::remove_file(path.join(FRAGMENT)).expect("a file");
        if let Ok(text) = std::str::from_utf8(input) {
            loads_alike(&|| Loader::of_text(&name(path), text), input);
        }
    });
}

/// Whether the text is a whole configuration.
pub fn loads(text: &str) -> bool {
    FOLDER.with(|folder| Loader::of_text(&name(folder.path()), text).load().is_ok())
}

fn name(folder: &Path) -> String {
    folder.join(MAIN).to_str().expect("plain text").to_owned()
}

fn loads_alike(loader: &dyn Fn() -> Loader, input: &[u8]) {
    let mut first = loader();
    let said = said(&first.load());
    assert_eq!(said, self::said(&first.load()), "the second time: {}", shown(input));
    assert_eq!(said, self::said(&loader().load()), "another loader: {}", shown(input));
    let secrets = are_apart(input);
    for line in said.as_ref().unwrap_or_else(|problems| problems) {
        assert!(!(secrets && line.contains(CANARY)), "{line}: {}", shown(input));
        assert!(!line.chars().any(char::is_control), "{line:?}: {}", shown(input));
    }
    let effective = loader().show();
    assert_eq!(effective.is_ok(), said.is_ok(), "{}", shown(input));
    if let Ok(effective) = effective {
        assert!(!(secrets && effective.contains(CANARY)), "{effective}: {}", shown(input));
        is_a_configuration(&effective, input);
    }
}

/// Once something stands behind its masks, what was printed loads, and is printed as the same.
fn is_a_configuration(effective: &str, input: &[u8]) {
    const MASK: &str = "'***'";
    if input.windows(3).any(|window| window == b"***") {
        return; // a mask of its own
    }
    let digest = format!("sha256: {}", "0".repeat(64));
    let secret = "a-secret-of-thirty-two-bytes-or-so";
    let unmasked = effective.replace(&format!("sha256: {MASK}"), &digest).replace(MASK, secret);
    let path = FOLDER.with(|folder| name(folder.path()));
    match Loader::of_text(&path, &unmasked).show() {
        Ok(again) => {
            let fragments =
                |text: &str| text.lines().filter(|line| !line.starts_with("# of ")).collect::<Vec<_>>().join("\n");
            assert_eq!(fragments(&again), fragments(effective), "{}", shown(input));
        }
        // A fragment may name a file that is beside it alone.
        Err(problems) if problems.iter().all(|problem| problem.message.contains("cannot be read")) => {}
        Err(problems) => panic!("{problems}\n{effective}\n{}", shown(input)),
    }
}

/// The warnings of a configuration, or the problems of what is none.
fn said(result: &Result<Loaded, Problems>) -> Result<Vec<String>, Vec<String>> {
    let line = |problem: &Problem| {
        let known = [MAIN, FRAGMENT].contains(&&*problem.file);
        assert!(known && !problem.message.is_empty(), "{problem:?}");
        problem.to_string()
    };
    match result {
        Ok(loaded) => {
            let edge = &loaded.config.edge;
            assert!(!edge.region.is_empty() && !edge.listeners.is_empty() && edge.threads > 0);
            assert!(loaded.files.iter().any(|file| file.ends_with(MAIN)));
            for proxy in &loaded.config.proxies {
                assert!(!proxy.id.is_empty() && proxy.target.base_path.chars().all(|c| !c.is_control()));
                assert!(proxy.timeout <= std::time::Duration::from_secs(60) && !proxy.timeout.is_zero());
                assert!(proxy.proxy_credentials.iter().all(|credential| credential.rate_limit.per_minute > 0));
            }
            Ok(loaded.warnings.iter().map(line).collect())
        }
        Err(problems) => {
            assert!(problems.len() > 0, "neither a configuration nor a problem");
            Err(problems.iter().map(line).collect())
        }
    }
}

/// Whether the canary stands where only secrets stand.
fn are_apart(input: &[u8]) -> bool {
    let Ok(mut value) = serde_yaml::from_slice::<Value>(input) else { return false };
    // What a merge brings along stands there twice.
    value.apply_merge().is_ok() && !is_shown(&value, false)
}

/// Whether the canary stands where it may be shown. `hidden`: below `secret`, but for names of files.
fn is_shown(value: &Value, hidden: bool) -> bool {
    match value {
        Value::String(text) => !hidden && text.contains(CANARY),
        Value::Sequence(items) => items.iter().any(|item| is_shown(item, hidden)),
        Value::Mapping(map) => map.iter().any(|(key, value)| {
            let below = (hidden && key != "file") || key == "secret";
            is_shown(key, hidden) || is_shown(value, below)
        }),
        Value::Tagged(tagged) => tagged.tag.to_string().contains(CANARY) || is_shown(&tagged.value, hidden),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}
