//! What must hold for every input, one module a target: `check` panics where it does not.
//!
//! The fuzz targets call these, and so does `tests/corpora.rs`, with what fuzzing has found worth keeping. Each compares what the
//! daemon says with a second reading that shares no code with it; slow, naive, and easy to check by eye.

pub mod configuration;
pub mod credential;
pub mod forwarded;
pub mod framing;
pub mod jwt;
pub mod path;
pub mod preamble;
pub mod query;
pub mod rewrite;

/// Panics where something does not hold for the input.
pub type Check = fn(&[u8]);

/// Every target, by its name.
pub const TARGETS: [(&str, Check); 9] = [
    ("configuration", configuration::check),
    ("credential", credential::check),
    ("forwarded", forwarded::check),
    ("framing", framing::check),
    ("jwt", jwt::check),
    ("path", path::check),
    ("preamble", preamble::check),
    ("query", query::check),
    ("rewrite", rewrite::check),
];

/// Input as it is shown when something does not hold.
fn shown(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// The bytes that `%xx` stands for, everything else as it is; and whether every `%` began such an escape.
fn unescape(raw: &[u8]) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    let mut whole = true;
    let mut at = 0;
    while at < raw.len() {
        let digits = raw.get(at + 1..at + 3).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        match digits.and_then(|digits| std::str::from_utf8(digits).ok()) {
            Some(digits) if raw[at] == b'%' => {
                bytes.push(u8::from_str_radix(digits, 16).expect("two hexadecimal digits"));
                at += 3;
            }
            _ => {
                whole &= raw[at] != b'%';
                bytes.push(raw[at]);
                at += 1;
            }
        }
    }
    (bytes, whole)
}
