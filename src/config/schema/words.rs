//! Scalars of the configuration in the words of JSON Schema. Each takes all that its reader takes, and little more.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::units;
use super::Shape;

/// Patterns here keep to what ECMAScript, Python and Rust read the same way.
const HEADER_NAME: &str = "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$";

/// An IPv6 address, by its two colons or more.
const V6: &str = "[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*";

pub(super) fn scalar(json: &Value) -> Shape {
    Shape::Scalar(super::value(json))
}

pub(super) fn text() -> Shape {
    scalar(&json!({ "type": "string", "minLength": 1 }))
}

/// A text of a form that `advice` explains.
pub(super) fn form(pattern: &str, advice: &str) -> Shape {
    // `patternErrorMessage` is what editors show in place of the pattern.
    scalar(&json!({ "type": "string", "pattern": pattern, "patternErrorMessage": advice }))
}

pub(super) fn flag() -> Shape {
    scalar(&json!({ "type": "boolean" }))
}

pub(super) fn whole(least: u64, most: u64) -> Shape {
    scalar(&json!({ "type": "integer", "minimum": least, "maximum": most }))
}

/// One of the words of a reader's table. Those that YAML takes for numbers may be written as such.
pub(super) fn words<T>(table: &[(&'static str, T)]) -> Shape {
    one_of(table.iter().map(|(word, _)| *word))
}

pub(super) fn one_of(words: impl IntoIterator<Item = &'static str>) -> Shape {
    let words: Vec<&str> = words.into_iter().collect();
    let numbers = words.iter().filter_map(|word| word.parse::<u64>().ok()).map(Value::from);
    let all: Vec<Value> = words.iter().map(|word| Value::from(*word)).chain(numbers).collect();
    scalar(&json!({ "enum": all }))
}

pub(super) fn duration(least: Duration, most: Duration) -> Shape {
    let (least, most) = (milliseconds(least), milliseconds(most));
    let units = units::TIME.iter().filter_map(|(unit, size)| {
        let (first, last) = (least.div_ceil(*size), most / size);
        (first <= last).then(|| format!("{}{unit}", between(first, last)))
    });
    let pattern = format!("^0*(?:{})$", units.collect::<Vec<_>>().join("|"));
    let bounds = [least, most].map(|bound| units::show_duration(Duration::from_millis(bound)));
    form(&pattern, &format!("Write a number and a unit, like `500ms` or `5s`, from {} to {}", bounds[0], bounds[1]))
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).expect("bounds of durations are days at most")
}

pub(super) fn size() -> Shape {
    let units: Vec<&str> = units::BINARY.iter().chain(&units::DECIMAL).map(|(unit, _)| *unit).collect();
    scalar(&json!({
        "type": ["string", "integer"], "minimum": 0,
        "pattern": format!("^[0-9]+(?:{})?$", units.join("|")),
        "patternErrorMessage": "Write a number and a unit, like `64KiB` or `10MiB`",
    }))
}

pub(super) fn id() -> Shape {
    form("^[^\\s\\u0000-\\u001f\\u007f-\\u009f]+$", "Write an id without spaces and control characters")
}

/// `{address}:{port}`; for readers who know a port by themselves, the address alone.
pub(super) fn socket_address(port_required: bool) -> Shape {
    let port = format!(":0*{}", between(1, 65_535));
    let (v4, v6) = (v4(), "[0-9A-Fa-f:.]+(?:%[0-9]+)?");
    let pattern = match port_required {
        true => format!("^(?:{v4}|\\[{v6}\\]){port}$"),
        false => format!("^(?:(?:{v4}|\\[{v6}\\]){port}|{v4}|{V6})$"),
    };
    form(&pattern, "Write an address with a port, like `127.0.0.1:8080` or `[::1]:8080`")
}

pub(super) fn network() -> Shape {
    let pattern = format!("^(?:{}(?:/{})?|{V6}(?:/{})?)$", v4(), between(0, 32), between(0, 128));
    form(&pattern, "Write a network like `10.0.0.0/8`, or an address")
}

fn v4() -> String {
    let octet = between(0, 255);
    format!("{octet}(?:\\.{octet}){{3}}")
}

pub(super) fn base_url() -> Shape {
    let host = "(?:\\[[0-9A-Fa-f:.]+\\]|[A-Za-z0-9_-]+(?:\\.[A-Za-z0-9_-]+)*\\.?)";
    let port = between(1, 65_535);
    let pattern =
        format!("^[Hh][Tt][Tt][Pp][Ss]?://{host}(?::0*{port})?(?:/(?:%[0-9A-Fa-f]{{2}}|[!$&-;=A-Z\\[\\]_a-z~])*)?$");
    form(&pattern, "Write a URL of scheme, host, port and path, like `https://api.example.com/v1`")
}

pub(super) fn header_name() -> Shape {
    form(HEADER_NAME, "Write the name of a header, like `X-Tenant`")
}

/// A header that may carry a credential: none of the edge's own.
pub(super) fn credential_header() -> Value {
    let own: Vec<String> = super::super::injection::OURS.iter().map(|name| any_case(name)).collect();
    let starts = ["x-forwarded-", "requestrocket-proxy-"].map(any_case).join("|");
    json!({
        "type": "string",
        "pattern": HEADER_NAME,
        "patternErrorMessage": "Write the name of a header, like `X-API-Key`",
        "not": { "pattern": format!("^(?:(?:{})$|{starts})", own.join("|")) },
    })
}

/// A pattern that matches `word` in upper and lower case.
fn any_case(word: &str) -> String {
    let either = |letter: char| match letter.is_ascii_alphabetic() {
        true => format!("[{}{letter}]", letter.to_ascii_uppercase()),
        false => letter.to_string(),
    };
    word.chars().map(either).collect()
}

/// A pattern of the decimal numbers from `least` to `most`, without zeros before them.
fn between(least: u64, most: u64) -> String {
    let mut parts = Vec::new();
    let mut first = least;
    while first <= most {
        let longest = 10_u64.checked_pow(first.checked_ilog10().unwrap_or(0) + 1).map_or(u64::MAX, |next| next - 1);
        let last = longest.min(most);
        parts.push(same_length(&first.to_string(), &last.to_string()));
        let Some(next) = last.checked_add(1) else { break };
        first = next;
    }
    format!("(?:{})", parts.join("|"))
}

/// The same for two numbers of as many digits.
fn same_length(least: &str, most: &str) -> String {
    let (Some((a, least)), Some((b, most))) = (split(least), split(most)) else { return String::new() };
    let rest = least.len();
    if a == b {
        return format!("{a}{}", same_length(least, most));
    }
    let whole_range = least.bytes().all(|digit| digit == b'0') && most.bytes().all(|digit| digit == b'9');
    if whole_range {
        return format!("[{a}-{b}]{}", digits(rest));
    }
    let mut parts = vec![format!("{a}{}", same_length(least, &"9".repeat(rest)))];
    let inner = (char::from(a as u8 + 1), char::from(b as u8 - 1));
    if inner.0 <= inner.1 {
        parts.push(format!("[{}-{}]{}", inner.0, inner.1, digits(rest)));
    }
    parts.push(format!("{b}{}", same_length(&"0".repeat(rest), most)));
    format!("(?:{})", parts.join("|"))
}

fn split(digits: &str) -> Option<(char, &str)> {
    digits.chars().next().map(|first| (first, &digits[1..]))
}

fn digits(count: usize) -> String {
    match count {
        0 => String::new(),
        count => format!("[0-9]{{{count}}}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_numbers_are_exact() {
        for (least, most) in [(0, 0), (0, 255), (1, 60), (1, 65_535), (0, 128), (7, 7), (99, 101), (1_000, 6_000)] {
            let regex = regex::Regex::new(&format!("^{}$", between(least, most))).unwrap();
            for number in 0..70_000_u64 {
                let within = (least..=most).contains(&number);
                assert_eq!(regex.is_match(&number.to_string()), within, "{number} in {least}..={most}");
            }
        }
    }
}
