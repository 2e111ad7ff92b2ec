//! In: the raw request target. Out: which proxy is meant and the target's path, with the one reading of it that serves rules and
//! forwarding alike. Refuses every path that two readers could understand differently.
//!
//! Proxies have been bypassed through paths that the proxy matched in one form and the target decoded into another. Here a path is
//! either free of dot segments, backslashes, control bytes and broken escapes after decoding, or it is refused; what passes is
//! forwarded byte for byte.

use std::borrow::Cow;

use memchr::memchr3;
use percent_encoding::percent_decode;

const PREFIX: &[u8] = b"/api/";

/// A request target, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub struct Route<'a> {
    /// The segment after `/api/`, as sent: an escape in it is not decoded, so such an id is simply unknown. Not empty.
    pub proxy_id: &'a [u8],
    /// Everything after the id up to `?`, byte for byte; starts with `/`, and is `/` where nothing was sent.
    pub target_path: &'a [u8],
    /// `target_path` with its escapes decoded once: what rules see.
    pub decoded_path: Cow<'a, [u8]>,
    /// Everything after the first `?`, byte for byte.
    pub query: Option<&'a [u8]>,
}

/// Why a request target is not routed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Well formed, but not `/api/{proxyId}...`. The only one that is "not found" rather than "bad request".
    NotApi,
    /// A `.` or `..` segment, plain, percent-encoded, behind `%2F`, or with `;` parameters.
    DotSegment,
    /// `\`, raw or encoded: a separator to some targets.
    Backslash,
    /// NUL, another control byte, raw or encoded; or an unencoded space.
    ControlByte,
    /// A `%` without two hexadecimal digits.
    PercentEscape,
    /// A `#`: never part of a request target (RFC 9112 3.2), and the end of it to some targets.
    Fragment,
}

impl Malformed {
    /// What the client is told.
    pub fn public_text(self) -> &'static str {
        match self {
            Self::NotApi => "Path must be /api/{proxyId}, optionally followed by a path of the target",
            Self::DotSegment => "Path must not contain dot segments, plain or percent-encoded",
            Self::Backslash => "Path must not contain a backslash, plain or percent-encoded",
            Self::ControlByte => "Path must not contain control characters or unencoded spaces",
            Self::PercentEscape => "Path contains a percent sign that is not followed by two hexadecimal digits",
            Self::Fragment => "Request target must not contain a fragment",
        }
    }
}

/// Reads a request target in origin form (RFC 9112 3.2.1).
///
/// # Errors
/// [`Malformed`]: a path outside `/api/{proxyId}`, or one that can be read in more than one way, wherever in it that is.
pub fn parse(path_and_query: &[u8]) -> Result<Route<'_>, Malformed> {
    check_raw(path_and_query)?;
    let (path, query) = split_once(path_and_query, b'?');
    check_decoded(path)?;
    let rest = path.strip_prefix(PREFIX).ok_or(Malformed::NotApi)?;
    let id_end = rest.iter().position(|&byte| byte == b'/').unwrap_or(rest.len());
    let (proxy_id, target_path) = rest.split_at(id_end);
    if proxy_id.is_empty() {
        return Err(Malformed::NotApi);
    }
    let target_path = if target_path.is_empty() { b"/" } else { target_path };
    // Every escape is known to be whole, so that this decodes exactly what `check_decoded` saw.
    Ok(Route { proxy_id, target_path, decoded_path: percent_decode(target_path).into(), query })
}

/// The query included: a raw space or line break in it would end the request line that goes to an HTTP/1.1 target.
fn check_raw(path_and_query: &[u8]) -> Result<(), Malformed> {
    let suspicious = |byte: u8| matches!(byte, b'#' | 0..=b' ' | 0x7f);
    // Without a branch for each byte: nearly always there is none.
    if !path_and_query.iter().fold(false, |found, &byte| found | suspicious(byte)) {
        return Ok(());
    }
    for &byte in path_and_query {
        match byte {
            b'#' => return Err(Malformed::Fragment),
            0..=b' ' | 0x7f => return Err(Malformed::ControlByte),
            _ => {}
        }
    }
    Ok(())
}

/// Walks the path as a target will read it.
fn check_decoded(path: &[u8]) -> Result<(), Malformed> {
    // `check_raw` has refused control bytes as they are; everything else that is refused has one of these in it.
    if memchr3(b'%', b'.', b'\\', path).is_none() {
        return Ok(());
    }
    // `Some(n)`: the segment so far is n dots and nothing else. `None`: it is no dot segment any more.
    let mut dots = Some(0_usize);
    let mut rest = path;
    while let [first, tail @ ..] = rest {
        let byte = match (first, tail) {
            (b'%', [high, low, after @ ..]) => {
                rest = after;
                decode(*high, *low).ok_or(Malformed::PercentEscape)?
            }
            (b'%', _) => return Err(Malformed::PercentEscape),
            (byte, _) => {
                rest = tail;
                *byte
            }
        };
        match byte {
            b'\\' => return Err(Malformed::Backslash),
            0..b' ' | 0x7f => return Err(Malformed::ControlByte),
            b'.' => dots = dots.map(|n| n + 1),
            // Servlet containers cut `;x` off a segment before they resolve it, so `..;x` is `..` there. What follows `;` is
            // a parameter and cannot become a dot segment.
            b'/' | b';' => {
                refuse_dots(dots)?;
                dots = (byte == b'/').then_some(0);
            }
            _ => dots = None,
        }
    }
    refuse_dots(dots)
}

fn refuse_dots(dots: Option<usize>) -> Result<(), Malformed> {
    match dots {
        Some(1 | 2) => Err(Malformed::DotSegment),
        _ => Ok(()),
    }
}

/// The byte that two hexadecimal digits stand for.
pub(super) fn decode(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(high)? << 4 | digit(low)?)
}

/// What is before and after the first `separator`.
pub(super) fn split_once(bytes: &[u8], separator: u8) -> (&[u8], Option<&[u8]>) {
    match bytes.iter().position(|&byte| byte == separator) {
        Some(at) => (&bytes[..at], Some(&bytes[at + 1..])),
        None => (bytes, None),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_target_is_taken_apart_byte_for_byte() {
        for (raw, id, path, decoded, query) in [
            ("/api/abc123", "abc123", "/", "/", None),
            ("/api/abc123?", "abc123", "/", "/", Some("")),
            ("/api/abc123/", "abc123", "/", "/", None),
            ("/api/abc123?a=1?b", "abc123", "/", "/", Some("a=1?b")),
            ("/api/abc123/v1/users?x=/../y", "abc123", "/v1/users", "/v1/users", Some("x=/../y")),
            ("/api/abc123//a//", "abc123", "//a//", "//a//", None),
            ("/api/abc123/a%2Fb%2f", "abc123", "/a%2Fb%2f", "/a/b/", None),
            ("/api/abc123/a%20b", "abc123", "/a%20b", "/a b", None),
            ("/api/abc123/%252e%252e/x", "abc123", "/%252e%252e/x", "/%2e%2e/x", None),
            ("/api/abc123/.../..a/a../.a", "abc123", "/.../..a/a../.a", "/.../..a/a../.a", None),
            ("/api/abc123/a;..;b/c", "abc123", "/a;..;b/c", "/a;..;b/c", None),
            ("/api/abc123/a%3Fb", "abc123", "/a%3Fb", "/a?b", None),
            ("/api/abc123/a?b=100%", "abc123", "/a", "/a", Some("b=100%")),
            ("/api/abc%31/x", "abc%31", "/x", "/x", None),
            ("/api/abc%2Fusers", "abc%2Fusers", "/", "/", None),
            ("/api/ü/é", "ü", "/é", "/é", None),
        ] {
            let route = parse(raw.as_bytes()).unwrap_or_else(|error| panic!("{raw}: {error:?}"));
            assert_eq!(route.proxy_id, id.as_bytes(), "{raw}");
            assert_eq!(route.target_path, path.as_bytes(), "{raw}");
            assert_eq!(&*route.decoded_path, decoded.as_bytes(), "{raw}");
            assert_eq!(route.query, query.map(str::as_bytes), "{raw}");
            assert_eq!(matches!(route.decoded_path, Cow::Borrowed(_)), !path.contains('%'), "{raw}");
        }
    }

    #[test]
    fn a_path_with_two_readings_is_refused() {
        use Malformed::*;
        for (raw, refusal) in [
            ("", NotApi),
            ("*", NotApi),
            ("/", NotApi),
            ("/api", NotApi),
            ("/api/", NotApi),
            ("/api//x", NotApi),
            ("/api?x", NotApi),
            ("/api/?x", NotApi),
            ("//api/abc", NotApi),
            ("/API/abc", NotApi),
            ("/%61pi/abc", NotApi),
            ("/apis/abc", NotApi),
            ("api/abc", NotApi),
            ("http://host/api/abc", NotApi),
            ("/api/../x", DotSegment),
            ("/api/..", DotSegment),
            ("/api/.", DotSegment),
            ("/../api/abc", DotSegment),
            ("/x/%2e%2E/y", DotSegment),
            ("/api/abc/..", DotSegment),
            ("/api/abc/.", DotSegment),
            ("/api/abc/./x", DotSegment),
            ("/api/abc/../x", DotSegment),
            ("/api/abc/..?x", DotSegment),
            ("/api/abc/%2e./x", DotSegment),
            ("/api/abc/%2E%2e", DotSegment),
            ("/api/abc/a%2F..%2Fb", DotSegment),
            ("/api/abc/a%2f%2e%2e", DotSegment),
            ("/api/abc%2F../x", DotSegment),
            ("/api/abc/..;x", DotSegment),
            ("/api/abc/..;/x", DotSegment),
            ("/api/abc/.;x/y", DotSegment),
            ("/api/abc/..%3Bx", DotSegment),
            ("/api/abc/a;b/../x", DotSegment),
            ("/api/abc/a\\b", Backslash),
            ("/api/abc/..\\x", Backslash),
            ("/api/abc/%5c..%5Cx", Backslash),
            ("/api/abc/a\0", ControlByte),
            ("/api/abc/a%00.png", ControlByte),
            ("/api/abc/a%0d%0aHost:%20x", ControlByte),
            ("/api/abc/a%7F", ControlByte),
            ("/api/abc/a\r\nb", ControlByte),
            ("/api/abc/a b", ControlByte),
            ("/api/abc/a?b=\x01", ControlByte),
            ("/api/abc/a?b HTTP/1.1", ControlByte),
            ("/api/abc/%", PercentEscape),
            ("/api/abc/%4", PercentEscape),
            ("/api/abc/%4?1", PercentEscape),
            ("/api/abc/%g1", PercentEscape),
            ("/api/abc/%+1", PercentEscape),
            ("/api/abc/%u002e", PercentEscape),
            ("/api/a%zz", PercentEscape),
            ("/api/abc#x", Fragment),
            ("/api/abc/x?y#z", Fragment),
        ] {
            assert_eq!(parse(raw.as_bytes()), Err(refusal), "{raw:?}");
            assert!(!refusal.public_text().is_empty());
        }
    }

    /// Any byte, but mostly those that paths are attacked with.
    fn hostile_path() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            4 => proptest::sample::select(vec![
                "/", ".", "..", "%2e", "%2E", "%2F", "%2f", "%5c", "\\", ";", "%3b", "%", "%00", "?", "#", "a", "b", "%61",
                "%25", "//", "%ff", "é", " ", "%20", "+",
            ]).prop_map(|piece| piece.as_bytes().to_vec()),
            1 => any::<u8>().prop_map(|byte| vec![byte]),
        ];
        proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    /// Decoding as a careful target would write it, on its own terms.
    fn target_decodes(path: &[u8]) -> Vec<u8> {
        let mut decoded = Vec::new();
        let mut at = 0;
        while at < path.len() {
            if path[at] == b'%' {
                let digits = std::str::from_utf8(&path[at + 1..at + 3]).unwrap();
                decoded.push(u8::from_str_radix(digits, 16).unwrap());
                at += 3;
            } else {
                decoded.push(path[at]);
                at += 1;
            }
        }
        decoded
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn rules_see_what_the_target_decodes_and_forwarding_keeps_every_byte(tail in hostile_path()) {
            let raw = [b"/api/abc123/", &tail[..]].concat();
            if let Ok(route) = parse(&raw) {
                prop_assert_eq!(&*route.decoded_path, &target_decodes(route.target_path)[..]);
                let mut forwarded = [b"/api/abc123", route.target_path].concat();
                if let Some(query) = route.query {
                    forwarded.push(b'?');
                    forwarded.extend_from_slice(query);
                }
                prop_assert_eq!(&forwarded, &raw);
            }
        }

        #[test]
        fn no_accepted_path_climbs_or_hides(tail in hostile_path()) {
            if let Ok(route) = parse(&[b"/api/abc123/", &tail[..]].concat()) {
                for segment in route.decoded_path.split(|&byte| byte == b'/') {
                    let name = segment.split(|&byte| byte == b';').next().unwrap();
                    prop_assert!(name != b"." && name != b"..");
                }
                prop_assert!(!route.decoded_path.iter().any(|&byte| byte == b'\\' || byte < b' ' || byte == 0x7f));
            }
        }

        #[test]
        fn nothing_panics(raw in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = parse(&raw);
        }
    }
}
