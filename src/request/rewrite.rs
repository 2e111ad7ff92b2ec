//! The request as the target sees it: its path, its host, its credential, and nothing of the client's credential.

use http::{HeaderMap, HeaderName, HeaderValue, Version, header};
use pingora::http::RequestHeader;

use super::query;
use crate::config::model::{Injection, Target};
use crate::refusal::{GRANTED, GRANTED_MESSAGE, PROXY_CODE, PROXY_MESSAGE, REQUEST_ID};
use crate::response::headers::via;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// What the edge knows of the client and passes on.
pub struct Origin<'a> {
    /// The TCP peer.
    pub peer: &'a HeaderValue,
    /// Whether its own `X-Forwarded-*` are believed.
    pub trusted: bool,
    pub tls: bool,
    pub request_id: &'a HeaderValue,
    /// The HTTP version that the client spoke.
    pub version: Version,
}

/// The request target to send: base path, target path and query, byte for byte but for credentials. `query` is without
/// the client's credential already.
pub fn request_target(target: &Target, injection: &Injection, target_path: &[u8], query: Option<&[u8]>) -> Vec<u8> {
    let pair = injection.query.as_ref();
    let query = match (query, pair) {
        // Whatever the client sent under the credential's name must not stand beside it.
        (Some(query), Some(pair)) => query::without(query, &pair.name),
        (query, _) => query.map(Into::into),
    };
    let pair = pair.map(|pair| pair.pair.expose());
    let length = target.base_path.len() + target_path.len() + query.as_ref().map_or(0, |query| query.len() + 1);
    let mut line = Vec::with_capacity(length + pair.map_or(0, |pair| pair.len() + 1));
    line.extend_from_slice(target.base_path.as_bytes());
    line.extend_from_slice(target_path);
    if let Some(query) = &query {
        line.push(b'?');
        line.extend_from_slice(query);
    }
    if let Some(pair) = pair {
        line.push(if query.is_some() { b'&' } else { b'?' });
        line.extend_from_slice(pair);
    }
    line
}

/// Rewrites `head` for `target`. Pingora has taken the hop-by-hop fields off already.
///
/// # Errors
/// When `line` is no request target: never for one of [`request_target`].
pub fn rewrite(
    head: &mut RequestHeader,
    line: &[u8],
    target: &Target,
    injection: &Injection,
    origin: &Origin<'_>,
) -> pingora_core::Result<()> {
    head.set_raw_path(line)?;
    forward_origin(head, origin)?;
    head.insert_header(header::HOST, target.host_header.clone())?;
    for name in twins(&head.headers, injection) {
        head.remove_header(&name);
    }
    if head.version != Version::HTTP_2 {
        join_cookies(head)?;
    }
    for name in spoken_in_our_name(&head.headers) {
        head.remove_header(&name);
    }
    head.insert_header(PROXY_CODE, GRANTED)?;
    head.insert_header(PROXY_MESSAGE, GRANTED_MESSAGE)?;
    head.insert_header(REQUEST_ID, origin.request_id.clone())?;
    head.remove_header(&header::PROXY_AUTHORIZATION);
    // The client's own credential must not reach the target. Last, so that nothing above can put it back.
    head.remove_header(&header::AUTHORIZATION);
    for (name, value) in &injection.headers {
        head.insert_header(name.clone(), value.clone())?;
    }
    Ok(())
}

/// `X-Forwarded-*` and `Via`: from a trusted proxy they are continued, from anybody else they are replaced.
fn forward_origin(head: &mut RequestHeader, origin: &Origin<'_>) -> pingora_core::Result<()> {
    let asked_host = head.headers.get(header::HOST).cloned();
    let chain = if origin.trusted { forwarded_chain(&head.headers, origin.peer) } else { None };
    head.insert_header(FORWARDED_FOR, chain.unwrap_or_else(|| origin.peer.clone()))?;
    if !(origin.trusted && head.headers.contains_key(FORWARDED_PROTO)) {
        head.insert_header(FORWARDED_PROTO, HeaderValue::from_static(if origin.tls { "https" } else { "http" }))?;
    }
    if !(origin.trusted && head.headers.contains_key(FORWARDED_HOST)) {
        match asked_host {
            Some(host) => head.insert_header(FORWARDED_HOST, host)?,
            None => drop(head.remove_header(&FORWARDED_HOST)),
        }
    }
    // Of a stranger, these would tell the target another story than the fields above.
    if !origin.trusted {
        for name in [header::FORWARDED, REAL_IP, FORWARDED_PORT] {
            head.remove_header(&name);
        }
    }
    head.append_header(header::VIA, via(origin.version)).map(drop)
}

/// The incoming `X-Forwarded-For` with the peer at its end.
fn forwarded_chain(headers: &HeaderMap, peer: &HeaderValue) -> Option<HeaderValue> {
    let mut chain = Vec::new();
    for value in headers.get_all(FORWARDED_FOR) {
        chain.extend_from_slice(value.as_bytes());
        chain.extend_from_slice(b", ");
    }
    if chain.is_empty() {
        return None;
    }
    chain.extend_from_slice(peer.as_bytes());
    HeaderValue::from_bytes(&chain).ok()
}

/// Fields that a target behind CGI, PHP or WSGI cannot tell from one that the edge sets or removes: `_` for `-`, and beside a
/// credential whose own name has a `_`, `-` for that.
fn twins(headers: &HeaderMap, injection: &Injection) -> Vec<HeaderName> {
    let injected = || injection.headers.iter().map(|(name, _)| name.as_str());
    let ours = |name: &str| {
        let fixed = ["authorization", "proxy-authorization", "host", "via", "forwarded", "x-request-id", "x-real-ip"];
        let framing = ["content-length", "transfer-encoding", "connection"];
        fixed.contains(&name)
            || framing.contains(&name)
            || name.starts_with("requestrocket-proxy-")
            || name.starts_with("x-forwarded-")
            || injected().any(|injected| injected.replace('_', "-") == name)
    };
    let is_twin = |name: &&HeaderName| match name.as_str() {
        name if name.contains('_') => ours(&name.replace('_', "-")),
        name => injected().any(|injected| injected.contains('_') && injected.replace('_', "-") == name),
    };
    headers.keys().filter(is_twin).cloned().collect()
}

/// One `Cookie` field of the several that HTTP/2 allows (RFC 9113 section 8.2.3).
fn join_cookies(head: &mut RequestHeader) -> pingora_core::Result<()> {
    let mut crumbs = head.headers.get_all(header::COOKIE).iter();
    if crumbs.next().is_none() || crumbs.next().is_none() {
        return Ok(());
    }
    let crumbs: Vec<&[u8]> = head.headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    match HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        Ok(joined) => head.insert_header(header::COOKIE, joined),
        Err(_) => Ok(()), // values that were valid by themselves are together, too
    }
}

/// Fields by which only the edge speaks to the target.
fn spoken_in_our_name(headers: &HeaderMap) -> Vec<HeaderName> {
    headers.keys().filter(|name| name.as_str().starts_with("requestrocket-proxy-")).cloned().collect()
}

/// `TE: trailers` is for the next hop, but gRPC servers insist on it and an HTTP/2 client that sent it means it end to end.
///
/// # Errors
/// Never in practice.
pub fn keep_trailers(head: &mut RequestHeader, sent: &RequestHeader) -> pingora_core::Result<()> {
    let asked = sent.headers.get(header::TE).is_some_and(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers"));
    if asked && head.version == Version::HTTP_2 {
        head.insert_header(header::TE, HeaderValue::from_static("trailers"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(fields: &[(&'static str, &'static str)]) -> RequestHeader {
        let mut head = RequestHeader::build("GET", b"/", None).expect("a request");
        for (name, value) in fields {
            head.append_header(*name, *value).expect("valid in these tests");
        }
        head
    }

    #[test]
    fn twins_of_our_fields_are_found() {
        let mut injection = Injection::default();
        injection.headers.push((HeaderName::from_static("x-api-key"), HeaderValue::from_static("k")));
        let head = request(&[
            ("x_api_key", "1"),
            ("X_Forwarded_For", "1"),
            ("requestrocket_proxy_code", "1"),
            ("my_own", "1"),
            ("x-api-key", "1"),
        ]);
        let mut found: Vec<String> = twins(&head.headers, &injection).iter().map(ToString::to_string).collect();
        found.sort();
        assert_eq!(found, ["requestrocket_proxy_code", "x_api_key", "x_forwarded_for"]);

        injection.headers[0].0 = HeaderName::from_static("my_key");
        let head = request(&[("my-key", "1"), ("my_key", "1"), ("my-own-key", "1")]);
        let mut found: Vec<String> = twins(&head.headers, &injection).iter().map(ToString::to_string).collect();
        found.sort();
        assert_eq!(found, ["my-key", "my_key"], "the other way round");
    }

    #[test]
    fn crumbs_become_one_cookie() {
        let mut head = request(&[("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3")]);
        join_cookies(&mut head).expect("joined");
        let cookies: Vec<_> = head.headers.get_all("cookie").iter().collect();
        assert_eq!(cookies, ["a=1; b=2; c=3"]);
    }
}
