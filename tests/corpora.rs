//! What fuzzing found worth keeping, held to the same properties at every `cargo test`: each input of `fuzz/corpus`, and
//! mutations of it, the same ones every time. `fuzz/README.md` tells where they come from.
#![allow(clippy::needless_pass_by_value, reason = "a sentence reads better without `&` before every literal")]

#[path = "../fuzz/src/lib.rs"]
mod properties;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use requestrocket_edge::config::{self, Document};

/// Inputs are no longer than this while they mutate, as in fuzzing.
const LONGEST: usize = 4096;

/// Checks the corpus of a target, and that many mutations of it: for a few seconds at most, unoptimised.
fn holds(target: &str, mutations: usize) {
    let (_, check) = properties::TARGETS.into_iter().find(|(name, _)| *name == target).expect("a target");
    holds_for(target, mutations, check);
}

fn holds_for(target: &str, mutations: usize, check: impl Fn(&[u8])) {
    let corpus = corpus(target);
    assert!(!corpus.is_empty(), "{target} has a corpus");
    let check = |input: &[u8], from: usize| {
        let checked = catch_unwind(AssertUnwindSafe(|| check(input)));
        assert!(
            checked.is_ok(),
            "line {} of fuzz/corpus/{target}.txt, or a mutation of it: {}",
            from + 1,
            input.escape_ascii()
        );
    };
    for (line, input) in corpus.iter().enumerate() {
        check(input, line);
    }
    let mut chance = fastrand::Rng::with_seed(1);
    for round in 0..mutations {
        let line = round % corpus.len();
        let mut input = corpus[line].clone();
        for _ in 0..chance.usize(1..=4) {
            mutate(&mut input, &corpus[chance.usize(..corpus.len())], &mut chance);
        }
        check(&input, line);
    }
}

/// The inputs of `fuzz/corpus/{target}.txt`, one a line, escaped as Rust escapes bytes.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target).with_extension("txt");
    let text = std::fs::read_to_string(file).expect("a corpus");
    text.lines().map(|line| unescaped(line).expect("an escaped line")).collect()
}

fn unescaped(line: &str) -> Option<Vec<u8>> {
    let mut rest = line.bytes();
    let mut bytes = Vec::new();
    while let Some(byte) = rest.next() {
        bytes.push(match (byte, byte == b'\\') {
            (byte, false) => byte,
            (_, true) => match rest.next()? {
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'x' => {
                    let digits = [rest.next()?, rest.next()?];
                    u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
                }
                other => other,
            },
        });
    }
    Some(bytes)
}

/// Changes an input as a fuzzer does: a byte, a piece, or a piece of `other` in it.
fn mutate(input: &mut Vec<u8>, other: &[u8], chance: &mut fastrand::Rng) {
    const TELLING: &[u8] = b"\0\t\n\r \"#%&'+,-./0:;<=?@AZ[\\]_az{}~\x7f\x80\xff";
    let piece = |of: &[u8], chance: &mut fastrand::Rng| {
        let from = chance.usize(..=of.len());
        from..of.len().min(from + chance.usize(..=16))
    };
    let at = chance.usize(..=input.len());
    match chance.u8(..6) {
        0 => input.insert(at, TELLING[chance.usize(..TELLING.len())]),
        1 if at < input.len() => input[at] = chance.u8(..),
        2 if at < input.len() => input[at] ^= 1 << chance.u8(..8),
        3 => drop(input.drain(piece(input, chance))),
        4 => drop(input.splice(at..at, input[piece(input, chance)].to_vec())),
        _ => drop(input.splice(at..at, other[piece(other, chance)].to_vec())),
    }
    input.truncate(LONGEST);
}

#[test]
fn paths() {
    holds("path", 20_000);
}

#[test]
fn queries() {
    holds("query", 10_000);
}

#[test]
fn headers_of_http_1() {
    holds("framing", 10_000);
}

#[test]
fn preambles() {
    holds("preamble", 20_000);
}

#[test]
fn chains_of_proxies() {
    holds("forwarded", 20_000);
}

#[test]
fn credentials() {
    holds("credential", 5_000);
}

#[test]
fn tokens() {
    holds("jwt", 2_000);
}

#[test]
fn rewritten_requests() {
    holds("rewrite", 5_000);
}

#[test]
fn configurations() {
    holds("configuration", 500);
}

/// What the daemon takes, an editor that has the schema must not underline.
#[test]
fn what_loads_is_valid_by_the_schema() {
    let schema = serde_json::from_str(&config::schema(Document::Main)).expect("the schema is JSON");
    let schema = jsonschema::draft202012::new(&schema).expect("the schema is one of draft 2020-12");
    let loaded = Cell::new(0);
    holds_for("configuration", 200, |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        if properties::configuration::loads(text) {
            loaded.set(loaded.get() + 1);
            let value: serde_json::Value = serde_yaml::from_str(text).expect("YAML");
            let errors: Vec<_> = schema.iter_errors(&value).map(|error| error.to_string()).collect();
            assert!(errors.is_empty(), "{errors:?}");
        }
    });
    assert!(loaded.get() > 0, "not one of them loads");
}
