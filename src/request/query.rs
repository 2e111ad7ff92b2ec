//! In: a raw query. Out: the same query without the client's credential, byte for byte otherwise, and that credential; or its
//! parameters, decoded, for rules. Refuses nothing: a broken escape in a query is the target's business.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

use zeroize::Zeroizing;

use super::route::{decode, split_once};

/// The parameter that may carry a client's credential, in any case.
const CREDENTIAL: &[u8] = b"authorization";

/// A query with the client's credential taken out.
#[derive(Debug)]
pub struct Stripped<'a> {
    /// What is forwarded, logged by key, and seen by rules. `None`: no query, or nothing is left of it.
    pub query: Option<Cow<'a, [u8]>>,
    /// What was taken out.
    pub credential: Found<'a>,
}

/// The credential parameters of a query.
#[derive(Debug)]
pub enum Found<'a> {
    None,
    /// Exactly one, decoded.
    One(Decoded<'a>),
    /// More than one: whichever we took, another reader might take the other.
    Many,
}

/// A decoded credential: borrowed where decoding changes nothing, otherwise overwritten when dropped.
pub struct Decoded<'a>(Repr<'a>);

enum Repr<'a> {
    Raw(&'a [u8]),
    Copy(Zeroizing<Vec<u8>>),
}

impl Deref for Decoded<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Repr::Raw(bytes) => bytes,
            Repr::Copy(bytes) => bytes,
        }
    }
}

impl<'a> From<&'a [u8]> for Decoded<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self(Repr::Raw(bytes))
    }
}

impl fmt::Debug for Decoded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Decoded(..)")
    }
}

/// Takes every `Authorization` parameter out of a query. It never reaches the target, whichever credential is used in the end.
pub fn split(query: Option<&[u8]>) -> Stripped<'_> {
    let Some(query) = query else {
        return Stripped { query: None, credential: Found::None };
    };
    let mut credential = Found::None;
    let query = retain(query, |name, value| {
        // A literal `+` is a space, which the name has not, so that only escapes matter here.
        let ours = equal(name, CREDENTIAL, |byte| byte.to_ascii_lowercase());
        if ours {
            credential = match credential {
                Found::None => Found::One(decode_credential(value.unwrap_or_default())),
                _ => Found::Many,
            };
        }
        !ours
    });
    Stripped { query, credential }
}

/// A query without the parameters whose decoded name is exactly `name`: what the client sent where a target credential goes.
pub fn without<'a>(query: &'a [u8], name: &str) -> Option<Cow<'a, [u8]>> {
    retain(query, |candidate, _| !equal(candidate, name.as_bytes(), |byte| byte))
}

/// The parameters of a query, decoded as `application/x-www-form-urlencoded`: for rules. Empty pieces are no parameters.
pub fn pairs(query: &[u8]) -> impl Iterator<Item = (Cow<'_, [u8]>, Cow<'_, [u8]>)> {
    pieces(query).filter(|piece| !piece.is_empty()).map(|piece| {
        let (name, value) = split_once(piece, b'=');
        (decode_form(name), decode_form(value.unwrap_or_default()))
    })
}

fn pieces(query: &[u8]) -> impl Iterator<Item = &[u8]> {
    query.split(|&byte| byte == b'&')
}

/// The query without the pieces that `keep` refuses; borrowed when it refuses none, `None` when nothing is left.
fn retain<'a>(query: &'a [u8], mut keep: impl FnMut(&'a [u8], Option<&'a [u8]>) -> bool) -> Option<Cow<'a, [u8]>> {
    // `Some` from the first refused piece on: what was kept, each piece followed by `&`.
    let mut rest: Option<Vec<u8>> = None;
    let mut before = 0; // bytes of the query in front of this piece
    for piece in pieces(query) {
        let (name, value) = split_once(piece, b'=');
        match (keep(name, value), &mut rest) {
            (true, None) => {}
            (true, Some(rest)) => {
                rest.extend_from_slice(piece);
                rest.push(b'&');
            }
            (false, Some(_)) => {}
            (false, None) => {
                let mut kept = Vec::with_capacity(query.len());
                kept.extend_from_slice(&query[..before]);
                rest = Some(kept);
            }
        }
        before += piece.len() + 1;
    }
    match rest {
        None => Some(Cow::Borrowed(query)),
        Some(mut rest) => {
            rest.pop(); // the last `&` separates nothing
            (!rest.is_empty()).then_some(Cow::Owned(rest))
        }
    }
}

/// Whether a raw name is `expected` once decoded and `fold`ed, without a copy of it.
fn equal(raw: &[u8], expected: &[u8], fold: impl Fn(u8) -> u8) -> bool {
    Bytes { rest: raw, plus: b' ' }.map(fold).eq(expected.iter().copied())
}

fn decode_form(raw: &[u8]) -> Cow<'_, [u8]> {
    if raw.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        Bytes { rest: raw, plus: b' ' }.collect::<Vec<u8>>().into()
    } else {
        raw.into()
    }
}

/// Decodes a credential. Base64 has `+` among its digits and most clients do not escape it, so that it stays what it is; only the
/// one directly behind a scheme, where no `+` can be meant, is the space of `Bearer+token`.
fn decode_credential(raw: &[u8]) -> Decoded<'_> {
    let (word, token) = split_once(raw, b'+');
    let is_scheme =
        [&b"bearer"[..], b"basic"].iter().any(|scheme| equal(word, scheme, |byte| byte.to_ascii_lowercase()));
    match token {
        Some(token) if is_scheme => {
            let mut bytes = Zeroizing::new(Vec::with_capacity(raw.len()));
            bytes.extend(Bytes { rest: word, plus: b'+' });
            bytes.push(b' ');
            bytes.extend(Bytes { rest: token, plus: b'+' });
            Decoded(Repr::Copy(bytes))
        }
        _ if raw.contains(&b'%') => {
            // Room for all of it from the start: a vector that grows leaves copies behind.
            let mut bytes = Zeroizing::new(Vec::with_capacity(raw.len()));
            bytes.extend(Bytes { rest: raw, plus: b'+' });
            Decoded(Repr::Copy(bytes))
        }
        _ => Decoded(Repr::Raw(raw)),
    }
}

/// Decoded bytes; an escape that is not whole stands for itself, as in the WHATWG URL standard.
struct Bytes<'a> {
    rest: &'a [u8],
    plus: u8,
}

impl Iterator for Bytes<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        let (&first, tail) = self.rest.split_first()?;
        self.rest = tail;
        match (first, tail) {
            (b'+', _) => Some(self.plus),
            (b'%', [high, low, after @ ..]) => match decode(*high, *low) {
                Some(byte) => {
                    self.rest = after;
                    Some(byte)
                }
                None => Some(b'%'),
            },
            _ => Some(first),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(query: Option<Cow<'_, [u8]>>) -> Option<String> {
        query.map(|query| String::from_utf8(query.into_owned()).unwrap())
    }

    #[test]
    fn the_credential_is_taken_out_and_the_rest_is_kept_byte_for_byte() {
        for (query, rest) in [
            ("", Some("")),
            ("a=1&&b", Some("a=1&&b")),
            ("&", Some("&")),
            ("Authorization=k", None),
            ("Authorization", None),
            ("Authorization=", None),
            ("Authorization=k&", None),
            ("&Authorization=k", None),
            ("Authorization=k&&", Some("&")),
            ("a=1&Authorization=k", Some("a=1")),
            ("Authorization=k&a=1", Some("a=1")),
            ("a=1&Authorization=k&b=%zz", Some("a=1&b=%zz")),
            ("a=1&&Authorization=k&&b", Some("a=1&&&b")),
            ("AUTHORIZATION=k&authorization=l&a", Some("a")),
            ("%41uthorizatio%6e=k&a", Some("a")),
            ("%61%75%74%68%6F%72%69%7A%61%74%69%6F%6E=k", None),
            ("Authorization=a=b=c&x", Some("x")),
            ("Authorization+=k", Some("Authorization+=k")),
            ("Authorization2=k", Some("Authorization2=k")),
            ("x=Authorization=k", Some("x=Authorization=k")),
            ("authorizatio=k", Some("authorizatio=k")),
            ("=Authorization", Some("=Authorization")),
            ("%2541uthorization=k", Some("%2541uthorization=k")),
        ] {
            assert_eq!(text(split(Some(query.as_bytes())).query).as_deref(), rest, "{query}");
        }
        assert!(split(None).query.is_none());
        assert!(matches!(split(Some(b"a=1&b")).query, Some(Cow::Borrowed(b"a=1&b"))));
    }

    #[test]
    fn a_credential_is_decoded_once() {
        for (query, credential) in [
            ("a&Authorization=key", "key"),
            ("Authorization", ""),
            ("Authorization=a%2Bb%3D", "a+b="),
            ("Authorization=a+b/c==", "a+b/c=="),
            ("Authorization=Bearer%20tok", "Bearer tok"),
            ("Authorization=Bearer+tok+en", "Bearer tok+en"),
            ("Authorization=bEARER+tok%2Ben", "bEARER tok+en"),
            ("Authorization=Basic+Kz8+", "Basic Kz8+"),
            ("Authorization=%42asic+Kz8%2B", "Basic Kz8+"),
            ("Authorization=Bearer++tok", "Bearer +tok"),
            ("Authorization=Bearer%2Btok", "Bearer+tok"),
            ("Authorization=Bearer%20+tok", "Bearer +tok"),
            ("Authorization=Digest+tok", "Digest+tok"),
            ("Authorization=+Bearer", "+Bearer"),
            ("Authorization=100%", "100%"),
            ("Authorization=%zz%2", "%zz%2"),
        ] {
            match split(Some(query.as_bytes())).credential {
                Found::One(decoded) => assert_eq!(&*decoded, credential.as_bytes(), "{query}"),
                other => panic!("{query}: {other:?}"),
            }
        }
    }

    #[test]
    fn credentials_are_counted() {
        for (query, many) in [("a=1", false), ("x=Authorization", false), ("Authorization=a&%61uthorization=a", true)] {
            match split(Some(query.as_bytes())).credential {
                Found::None => assert!(!many, "{query}"),
                Found::Many => assert!(many, "{query}"),
                Found::One(_) => panic!("{query}"),
            }
        }
    }

    #[test]
    fn a_named_parameter_is_removed_by_its_exact_decoded_name() {
        for (query, name, rest) in [
            ("key=1&a=2", "key", Some("a=2")),
            ("k%65y=1&a=2&key", "key", Some("a=2")),
            ("KEY=1&a=2", "key", Some("KEY=1&a=2")),
            ("my+key=1&my%20key=2&my%2Bkey=3", "my key", Some("my%2Bkey=3")),
            ("my+key=1&my%2Bkey=3", "my+key", Some("my+key=1")),
            ("key=1", "key", None),
            ("a&&b", "key", Some("a&&b")),
        ] {
            assert_eq!(text(without(query.as_bytes(), name)).as_deref(), rest, "{query}");
        }
    }

    #[test]
    fn rules_read_parameters_as_forms_are_read() {
        let pairs: Vec<_> = pairs(b"a=1&&b+c=d%20e+f&g&=h&a=%ff%2")
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
            .collect();
        let expected: [(&[u8], &[u8]); 5] =
            [(b"a", b"1"), (b"b c", b"d e f"), (b"g", b""), (b"", b"h"), (b"a", b"\xff%2")];
        assert_eq!(pairs, expected.map(|(name, value)| (name.to_vec(), value.to_vec())));
    }

    #[test]
    fn a_credential_is_not_printed() {
        let stripped = split(Some(b"Authorization=canary%31"));
        assert_eq!(format!("{stripped:?}"), "Stripped { query: None, credential: One(Decoded(..)) }");
    }

    /// `authorization`, each letter in a case or escape of its own.
    fn any_spelling() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(0..4_u8, CREDENTIAL.len()).prop_map(|styles| {
            let spell = |(&letter, style): (&u8, u8)| match style {
                0 => vec![letter],
                1 => vec![letter.to_ascii_uppercase()],
                2 => format!("%{letter:02x}").into_bytes(),
                _ => format!("%{:02X}", letter.to_ascii_uppercase()).into_bytes(),
            };
            CREDENTIAL.iter().zip(styles).flat_map(spell).collect()
        })
    }

    fn is_credential(piece: &[u8]) -> bool {
        let name = piece.split(|&byte| byte == b'=').next().unwrap();
        let decoded: Vec<u8> = percent_encoding::percent_decode(name).collect();
        decoded.eq_ignore_ascii_case(CREDENTIAL)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn no_spelling_lets_the_credential_through(
            name in any_spelling(),
            before in proptest::collection::vec("[a-c=%+&]{0,4}", 0..4),
            after in proptest::collection::vec("[a-c=%+&]{0,4}", 0..4),
        ) {
            let mut query: Vec<Vec<u8>> = before.iter().map(|piece| piece.clone().into_bytes()).collect();
            query.push([&name[..], b"=canary"].concat());
            query.extend(after.iter().map(|piece| piece.clone().into_bytes()));
            let query = query.join(&b'&');
            let stripped = split(Some(&query));
            let rest = stripped.query.unwrap_or_default();
            prop_assert!(!rest.windows(6).any(|window| window == b"canary"));
            prop_assert!(matches!(&stripped.credential, Found::One(value) if **value == *b"canary"));
        }

        #[test]
        fn whatever_is_no_credential_stays_as_it_is(query in proptest::collection::vec(
            prop_oneof![any::<u8>(), proptest::sample::select(b"&=%+aA".to_vec())], 0..48
        ), credentials in 0..3_usize) {
            let query = [&query[..], &b"&AuThorization=k".repeat(credentials)].concat();
            let expected: Vec<&[u8]> = query.split(|&byte| byte == b'&').filter(|piece| !is_credential(piece)).collect();
            let expected = expected.join(&b'&');
            let stripped = split(Some(&query));
            prop_assert_eq!(&*stripped.query.unwrap_or_default(), &expected[..]);
        }
    }
}
