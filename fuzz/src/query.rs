//! `request::query`: no spelling of `Authorization` survives, and nothing else changes.

use std::borrow::Cow;

use requestrocket_edge::request::query::{self, Found};

use super::{shown, unescape};

/// The input is a query.
pub fn check(query: &[u8]) {
    credential_is_taken_out(query);
    parameters_are_read_as_forms_are(query);
    let first = name_of(query.split(|byte| *byte == b'&').next().unwrap_or_default());
    for name in ["key", "my key", "my+key", "Authorization", &String::from_utf8_lossy(&first)] {
        let kept = kept(query, |candidate| candidate != name.as_bytes());
        assert_same(query::without(query, name), &kept, query);
    }
}

fn credential_is_taken_out(query: &[u8]) {
    let is_credential = |name: &[u8]| name.eq_ignore_ascii_case(b"authorization");
    let kept = kept(query, |name| !is_credential(name));
    let stripped = query::split(Some(query));
    let rest = stripped.query.as_deref().unwrap_or_default();
    assert!(!rest.split(|byte| *byte == b'&').any(|piece| is_credential(&name_of(piece))), "{}", shown(query));
    let again = query::split(Some(rest));
    assert!(matches!(again.credential, Found::None), "{}", shown(query));
    assert_eq!(again.query.as_deref(), Some(rest), "{}", shown(query));

    let credentials: Vec<&[u8]> =
        query.split(|byte| *byte == b'&').filter(|piece| is_credential(&name_of(piece))).collect();
    match (&stripped.credential, credentials.as_slice()) {
        (Found::None, []) | (Found::Many, [_, _, ..]) => {}
        (Found::One(credential), [piece]) => {
            assert_eq!(**credential, *credential_of(piece), "{}", shown(query));
        }
        (found, pieces) => panic!("{}: {} times, but {found:?}", shown(query), pieces.len()),
    }
    assert_same(stripped.query, &kept, query);
}

/// The value of a credential parameter: `+` is a digit of base64, but for the one that stands for the space behind a scheme.
fn credential_of(piece: &[u8]) -> Vec<u8> {
    let value = match piece.iter().position(|byte| *byte == b'=') {
        Some(at) => &piece[at + 1..],
        None => b"",
    };
    if let Some(plus) = value.iter().position(|byte| *byte == b'+') {
        let (scheme, token) = (unescape(&value[..plus]).0, unescape(&value[plus + 1..]).0);
        if scheme.eq_ignore_ascii_case(b"bearer") || scheme.eq_ignore_ascii_case(b"basic") {
            return [scheme, b" ".to_vec(), token].concat();
        }
    }
    unescape(value).0
}

fn parameters_are_read_as_forms_are(query: &[u8]) {
    let pieces = query.split(|byte| *byte == b'&').filter(|piece| !piece.is_empty());
    let expected: Vec<(Vec<u8>, Vec<u8>)> = pieces
        .map(|piece| {
            let value = &piece[piece.iter().position(|byte| *byte == b'=').map_or(piece.len(), |at| at + 1)..];
            (name_of(piece), form(value))
        })
        .collect();
    let read: Vec<_> = query::pairs(query).map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
    assert_eq!(read, expected, "{}", shown(query));
}

/// The decoded name of a parameter.
fn name_of(piece: &[u8]) -> Vec<u8> {
    form(piece.split(|byte| *byte == b'=').next().unwrap_or_default())
}

fn form(raw: &[u8]) -> Vec<u8> {
    let spaced: Vec<u8> = raw.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    unescape(&spaced).0
}

/// The pieces whose decoded name `keep` wants; `None`: all of them.
fn kept(query: &[u8], keep: impl Fn(&[u8]) -> bool) -> Option<Vec<&[u8]>> {
    let pieces: Vec<&[u8]> = query.split(|byte| *byte == b'&').filter(|piece| keep(&name_of(piece))).collect();
    (pieces.len() != query.split(|byte| *byte == b'&').count()).then_some(pieces)
}

fn assert_same(found: Option<Cow<'_, [u8]>>, kept: &Option<Vec<&[u8]>>, query: &[u8]) {
    match kept {
        None => assert!(matches!(found, Some(Cow::Borrowed(same)) if same == query), "{}", shown(query)),
        Some(pieces) => {
            let rest = pieces.join(&b'&');
            assert_eq!(found.as_deref(), Some(&*rest).filter(|rest| !rest.is_empty()), "{}", shown(query));
        }
    }
}
