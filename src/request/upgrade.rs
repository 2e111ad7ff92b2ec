//! In: a request header. Out: whether it asks for a WebSocket, the only protocol that a connection is given up to.

use http::{HeaderMap, HeaderName, Method, Version, header};
use pingora::http::RequestHeader;

/// Whether the request is a WebSocket handshake (RFC 6455 section 4.1, RFC 9110 section 7.8).
///
/// `Upgrade` counts only where `Connection` names it. A proxy in front that takes `Connection` off, as it must, but leaves
/// `Upgrade` on would otherwise have its shared connection turned into a tunnel, and other clients' requests, credentials
/// included, would go through it unread.
pub fn asks_for_websocket(request: &RequestHeader) -> bool {
    let headers = &request.headers;
    request.version == Version::HTTP_11
        && request.method == Method::GET
        && !headers.contains_key(header::TRANSFER_ENCODING)
        && headers.get(header::CONTENT_LENGTH).is_none_or(|length| length.as_bytes() == b"0")
        && lists(headers, header::CONNECTION, b"upgrade")
        && is_websocket(headers)
}

/// Whether `Upgrade` names the WebSocket protocol, and it alone.
pub fn is_websocket(headers: &HeaderMap) -> bool {
    let mut protocols = headers.get_all(header::UPGRADE).iter();
    let first = protocols.next().is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(b"websocket"));
    first && protocols.next().is_none()
}

/// Whether the comma-separated field `name` holds `token`, whatever its case.
fn lists(headers: &HeaderMap, name: HeaderName, token: &[u8]) -> bool {
    let values = headers.get_all(name).iter();
    values
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|part| part.trim_ascii().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_handshake_asks() {
        let asks = |method: &str, fields: &[(&'static str, &'static str)]| {
            let mut head = RequestHeader::build(method, b"/", None).expect("a request");
            head.set_version(Version::HTTP_11);
            for (name, value) in fields {
                head.append_header(*name, *value).expect("valid in these tests");
            }
            asks_for_websocket(&head)
        };
        let (upgrade, connection) = (("upgrade", "WebSocket"), ("connection", "keep-alive, Upgrade"));
        assert!(asks("GET", &[upgrade, connection]));
        assert!(!asks("GET", &[upgrade]));
        assert!(!asks("GET", &[upgrade, ("connection", "keep-alive")]));
        assert!(!asks("GET", &[("upgrade", "h2c"), connection]));
        assert!(!asks("GET", &[("upgrade", "websocket, h2c"), connection]));
        assert!(!asks("GET", &[upgrade, connection, ("content-length", "5")]));
        assert!(!asks("POST", &[upgrade, connection]));
    }
}
