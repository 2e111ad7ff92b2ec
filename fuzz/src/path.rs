//! `request::route::parse`: a request target is either taken apart without a byte lost, or could be read in two ways.

use requestrocket_edge::request::route::{self, Malformed};

use super::{shown, unescape};

/// The input is a request target.
pub fn check(target: &[u8]) {
    let (path, query) = match target.iter().position(|byte| *byte == b'?') {
        Some(at) => (&target[..at], Some(&target[at + 1..])),
        None => (target, None),
    };
    let (decoded, whole) = unescape(path);
    let dots = |segment: &[u8]| {
        let name = segment.split(|byte| *byte == b';').next().unwrap_or_default();
        name == b"." || name == b".."
    };
    let odd = |byte: &u8| byte.is_ascii_control() || *byte == b'\\';
    let ambiguous = !whole
        || target.contains(&b'#')
        || target.iter().any(|byte| byte.is_ascii_control() || *byte == b' ')
        || decoded.iter().any(odd)
        || decoded.split(|byte| *byte == b'/').any(dots);
    let rest = path.strip_prefix(b"/api/").filter(|rest| !rest.is_empty() && rest[0] != b'/');

    match (route::parse(target), ambiguous, rest) {
        (Ok(route), false, Some(rest)) => {
            assert!(!route.proxy_id.contains(&b'/'), "{}", shown(target));
            let sent = &rest[route.proxy_id.len()..];
            assert_eq!(&rest[..route.proxy_id.len()], route.proxy_id, "{}", shown(target));
            assert_eq!(route.target_path, if sent.is_empty() { b"/" } else { sent }, "{}", shown(target));
            assert_eq!(route.target_path[0], b'/', "{}", shown(target));
            assert_eq!(*route.decoded_path, *unescape(route.target_path).0, "{}", shown(target));
            assert_eq!(route.query, query, "{}", shown(target));
        }
        (Err(Malformed::NotApi), false, None) => {}
        (Err(reason), true, _) if reason != Malformed::NotApi => {}
        (result, ..) => panic!("{}: ambiguous: {ambiguous}, but {result:?}", shown(target)),
    }
}
