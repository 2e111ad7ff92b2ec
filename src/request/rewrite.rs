//! The request as the target sees it: its path, its host, its credential, and nothing of the client's credential.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Version, header};
use memchr::memchr;
use pingora::http::RequestHeader;
use pingora_core::Result;

use super::query;
use crate::config::model::{Injection, Target};
use crate::fields::{self, Fields};
use crate::refusal::{GRANTED, GRANTED_MESSAGE, PROXY_CODE, PROXY_MESSAGE, REQUEST_ID};
use crate::response::headers::via;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// How the names begin by which only the edge speaks.
const SPOKEN_BY_US: &str = "requestrocket-proxy-";
/// About how many fields a request gets on its way.
const MORE_FIELDS: usize = 8;

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
pub fn request_target(target: &Target, injection: &Injection, target_path: &[u8], query: Option<&[u8]>) -> Bytes {
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
    line.into()
}

/// Rewrites `head` for `target`. Pingora has taken the hop-by-hop fields off already, but for `Upgrade` and `Connection`, which
/// stay where the request is for a `tunnel`.
///
/// # Errors
/// When `line` is no request target: never for one of [`request_target`].
pub fn rewrite(
    head: &mut RequestHeader,
    line: &Bytes,
    target: &Target,
    injection: &Injection,
    origin: &Origin<'_>,
    tunnel: bool,
) -> Result<()> {
    let version = head.version;
    fields::edit_request(head, line, MORE_FIELDS, |fields| {
        let unwanted = |name: &HeaderName| {
            matches!(*name, header::PROXY_AUTHORIZATION)
                // Pingora keeps an `Upgrade` that nobody meant for this connection.
                || (!tunnel && matches!(*name, header::UPGRADE | header::CONNECTION))
                // Of a stranger, these would tell the target another story than `X-Forwarded-For` does.
                || (!origin.trusted && (*name == header::FORWARDED || *name == REAL_IP || *name == FORWARDED_PORT))
        };
        fields::remove_all(fields, |name| unwanted(name) || is_not_for_clients(name, injection));
        forward_origin(fields, origin)?;
        fields.set(header::HOST, target.host_header.clone())?;
        if version != Version::HTTP_2 {
            join_cookies(fields)?;
        }
        fields.set(PROXY_CODE, GRANTED)?;
        fields.set(PROXY_MESSAGE, GRANTED_MESSAGE)?;
        fields.set(REQUEST_ID, origin.request_id.clone())?;
        // The client's own credential must not reach the target. Last, so that nothing above can put it back.
        fields.remove(&header::AUTHORIZATION);
        for (name, value) in &injection.headers {
            fields.set(name.clone(), value.clone())?;
        }
        Ok(())
    })
}

/// `X-Forwarded-*` and `Via`: from a trusted proxy they are continued, from anybody else they are replaced.
fn forward_origin(fields: &mut dyn Fields, origin: &Origin<'_>) -> Result<()> {
    let asked_host = fields.map().get(header::HOST).cloned();
    let chain = if origin.trusted { forwarded_chain(fields.map(), origin.peer) } else { None };
    fields.set(FORWARDED_FOR, chain.unwrap_or_else(|| origin.peer.clone()))?;
    if !(origin.trusted && fields.map().contains_key(FORWARDED_PROTO)) {
        fields.set(FORWARDED_PROTO, HeaderValue::from_static(if origin.tls { "https" } else { "http" }))?;
    }
    if !(origin.trusted && fields.map().contains_key(FORWARDED_HOST)) {
        match asked_host {
            Some(host) => fields.set(FORWARDED_HOST, host)?,
            None => fields.remove(&FORWARDED_HOST),
        }
    }
    fields.add(header::VIA, via(origin.version))
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

/// Whether a field is one by which only the edge speaks to the target, or one that a target behind CGI, PHP or WSGI cannot tell
/// from one that the edge sets or removes: `_` for `-`, and beside a credential whose own name has a `_`, `-` for that.
fn is_not_for_clients(name: &HeaderName, injection: &Injection) -> bool {
    let name = name.as_str();
    if memchr(b'_', name.as_bytes()).is_some() {
        return is_ours(&name.replace('_', "-"), injection);
    }
    let mut underscored = injection.headers.iter().map(|(name, _)| name.as_str()).filter(|name| name.contains('_'));
    name.starts_with(SPOKEN_BY_US) || underscored.any(|injected| injected.replace('_', "-") == name)
}

/// Whether the edge sets or removes a field of this name, or Pingora frames by it.
fn is_ours(name: &str, injection: &Injection) -> bool {
    let fixed = ["authorization", "proxy-authorization", "host", "via", "forwarded", "x-request-id", "x-real-ip"];
    let framing = ["content-length", "transfer-encoding", "connection"];
    fixed.contains(&name)
        || framing.contains(&name)
        || name.starts_with(SPOKEN_BY_US)
        || name.starts_with("x-forwarded-")
        || injection.headers.iter().any(|(injected, _)| injected.as_str().replace('_', "-") == name)
}

/// One `Cookie` field of the several that HTTP/2 allows (RFC 9113 section 8.2.3).
fn join_cookies(fields: &mut dyn Fields) -> Result<()> {
    let crumbs = fields.map().get_all(header::COOKIE);
    if crumbs.iter().nth(1).is_none() {
        return Ok(());
    }
    let crumbs: Vec<&[u8]> = crumbs.iter().map(HeaderValue::as_bytes).collect();
    match HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        Ok(joined) => fields.set(header::COOKIE, joined),
        Err(_) => Ok(()), // values that were valid by themselves are together, too
    }
}

/// `TE: trailers` is for the next hop, but gRPC servers insist on it and an HTTP/2 client that sent it means it end to end.
///
/// # Errors
/// Never in practice.
pub fn keep_trailers(head: &mut RequestHeader, sent: &RequestHeader) -> Result<()> {
    let asked = || sent.headers.get(header::TE).is_some_and(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers"));
    if head.version == Version::HTTP_2 && asked() {
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
    fn what_is_not_for_clients_to_say_is_found() {
        let mut injection = Injection::default();
        injection.headers.push((HeaderName::from_static("x-api-key"), HeaderValue::from_static("k")));
        let head = request(&[
            ("x_api_key", "1"),
            ("X_Forwarded_For", "1"),
            ("requestrocket_proxy_code", "1"),
            ("requestrocket-proxy-code", "1"),
            ("my_own", "1"),
            ("x-api-key", "1"),
        ]);
        let mut found: Vec<String> =
            head.headers.keys().filter(|name| is_not_for_clients(name, &injection)).map(ToString::to_string).collect();
        found.sort();
        assert_eq!(found, ["requestrocket-proxy-code", "requestrocket_proxy_code", "x_api_key", "x_forwarded_for"]);

        injection.headers[0].0 = HeaderName::from_static("my_key");
        let head = request(&[("my-key", "1"), ("my_key", "1"), ("my-own-key", "1")]);
        let mut found: Vec<String> =
            head.headers.keys().filter(|name| is_not_for_clients(name, &injection)).map(ToString::to_string).collect();
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
