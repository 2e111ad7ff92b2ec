//! Where secrets come from: exactly one of a digest, an environment variable, a file, or (not advised) the text itself.
//!
//! No message of this file shows what it found: a secret is easily written where its name should be.

use std::path::PathBuf;

use crate::secret::{Digest, Secret};

use super::node::{Fields, Node};
use super::problem::{closest, quoted};

pub(super) const SOURCES: [&str; 4] = ["sha256", "env", "file", "value"];

/// What a `secret:` of a proxy credential gives.
pub(super) enum ProxySecret {
    Digest(Digest),
    /// The secret itself, to be checked and then digested.
    Plain(Secret),
}

/// Reads the secret of a proxy credential.
pub(super) fn proxy_secret(node: Node<'_>) -> Option<ProxySecret> {
    let fields = sources(node, &SOURCES)?;
    match fields.get("sha256") {
        Some(node) => digest(node).map(ProxySecret::Digest),
        None => plain(&fields).map(ProxySecret::Plain),
    }
}

/// Reads a secret that is needed in the clear. `reason` says why a digest of it would not do.
pub(super) fn plain_secret(node: Node<'_>, reason: &str) -> Option<Secret> {
    let fields = sources(node, &SOURCES)?;
    match fields.get("sha256") {
        Some(node) => node.problem(format!("a digest will not do here: {reason}; write `file: NAME` or `env: NAME`")),
        None => plain(&fields),
    }
}

/// The mapping of a secret, with exactly one source.
fn sources<'a>(node: Node<'a>, known: &'a [&'a str]) -> Option<Fields<'a>> {
    let node = node.hidden();
    if !node.is_mapping() {
        return node
            .problem("a secret does not stand here itself; write where it is: `{ file: NAME }` or `{ env: NAME }`");
    }
    let fields = node.loose_fields(known)?;
    if let Some(key) = fields.keys().find(|key| !known.contains(key)) {
        // The key may be the secret, as in `secret: { hunter2 }`: it is not shown, nor is the path of it.
        return match closest(key, known.iter().copied()) {
            Some(guess) => node.problem(format!("holds a key that is not known here; did you mean `{guess}`?")),
            None => node.problem("holds a key that is not known here; write `{ file: NAME }` or `{ env: NAME }`"),
        };
    }
    let given: Vec<&str> = known.iter().copied().filter(|key| fields.has(key)).collect();
    match given.as_slice() {
        [] => node.problem("says nowhere where the secret is; write `{ file: NAME }` or `{ env: NAME }`"),
        [_] => Some(fields),
        [first, second, ..] => node.problem(format!("gives both `{first}` and `{second}`; keep one of them")),
    }
}

fn digest(node: Node<'_>) -> Option<Digest> {
    let advice = "is not a SHA-256 digest; write the 64 hexadecimal digits that `requestrocket-edge digest` prints";
    let bytes: Option<[u8; 32]> = node.parse(|text| unhex(text).ok_or_else(|| advice.to_owned()));
    bytes.map(Digest::from_bytes)
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digit = |index: usize| char::from(pair[index]).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        *byte = digit(0)? << 4 | digit(1)?;
    }
    Some(bytes)
}

fn plain(fields: &Fields<'_>) -> Option<Secret> {
    if let Some(node) = fields.get("env") {
        return from_environment(node);
    }
    if let Some(node) = fields.get("file") {
        return from_file(node);
    }
    let node = fields.get("value")?;
    let secret = Secret::new(node.text()?.as_bytes().to_vec());
    node.warn("the secret stands in the configuration, where backups and diffs show it; move it to a `file`");
    Some(secret)
}

fn from_environment(node: Node<'_>) -> Option<Secret> {
    let name = node.text()?;
    // Only what looks like a variable's name is shown as one.
    let conventional = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    let shown = if name.chars().all(conventional) { quoted(name) } else { "of this name".to_owned() };
    if name.contains(['=', '\0']) {
        return node.problem("is not the name of an environment variable; write one like `ACME_KEY`");
    }
    match std::env::var_os(name).map(std::ffi::OsString::into_encoded_bytes) {
        None => {
            node.problem(format!("the environment variable {shown} is not set; set it for the daemon, or use `file`"))
        }
        Some(bytes) if bytes.is_empty() => {
            node.problem(format!("the environment variable {shown} is empty; put the secret into it"))
        }
        Some(bytes) => Some(Secret::new(bytes)),
    }
}

fn from_file(node: Node<'_>) -> Option<Secret> {
    let name = node.text()?;
    let mut places: Vec<PathBuf> = node.source.shared.credentials.iter().map(|folder| folder.join(name)).collect();
    places.push(node.source.resolve(name));
    places.dedup(); // an absolute name is the same place from everywhere
    let mut failure = String::new();
    for place in places {
        match node.source.read(&place) {
            Ok(bytes) => {
                let secret = trim_newline(&bytes);
                if secret.is_empty() {
                    return node.problem(format!("{} is empty; put the secret into it", quoted(name)));
                }
                return Some(Secret::new(secret.to_vec()));
            }
            Err(reason) => failure = reason,
        }
    }
    let looked = "names are looked up in $CREDENTIALS_DIRECTORY, then beside this file";
    node.problem(format!("{} cannot be read: {failure}; {looked}", quoted(name)))
}

/// Editors and `echo` end a file with a line break that is no part of the secret. One, or it may be.
fn trim_newline(bytes: &[u8]) -> &[u8] {
    bytes.strip_suffix(b"\r\n").or_else(|| bytes.strip_suffix(b"\n")).unwrap_or(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_break_is_trimmed() {
        for (bytes, secret) in [("k", "k"), ("k\n", "k"), ("k\r\n", "k"), ("k\n\n", "k\n"), (" k ", " k "), ("\n", "")]
        {
            assert_eq!(trim_newline(bytes.as_bytes()), secret.as_bytes(), "{bytes:?}");
        }
    }

    #[test]
    fn digests_are_sixty_four_hexadecimal_digits() {
        assert_eq!(unhex(&"0aF0".repeat(16)), Some([0x0a, 0xf0].repeat(16).try_into().unwrap()));
        for text in ["", "00", &"0g".repeat(32), &"é".repeat(32), &"0".repeat(65)] {
            assert!(unhex(text).is_none(), "{text}");
        }
    }
}
