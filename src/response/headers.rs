//! The header of a target's answer: hop-by-hop fields off, the edge's labels on, everything else the target's.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header};
use memchr::memmem;
use pingora::http::ResponseHeader;
use pingora_core::Result;

use crate::config::model::Injection;
use crate::fields::{self, Fields};
use crate::refusal::{
    GRANTED, GRANTED_MESSAGE, NAME, PROXY_CODE, PROXY_MESSAGE, PROXY_STATUS, PROXY_WARNING, REQUEST_ID,
};

/// Fields that belong to one connection (RFC 9110 section 7.6.1) and that Pingora does not strip from responses.
/// `Transfer-Encoding` and `Connection` are not here: Pingora frames by the one and overwrites the other.
const HOP_BY_HOP: [HeaderName; 6] = [
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    HeaderName::from_static("proxy-authentication-info"),
    header::TE,
    header::TRAILER,
];

/// How many fields an answer gets on its way.
const MORE_FIELDS: usize = 5;

/// What the edge adds to an answer.
pub struct Labels<'a> {
    pub request_id: &'a HeaderValue,
    pub warning: Option<&'a HeaderValue>,
}

/// Strips and labels. Call once per final header, not for `1xx` (but for `101`).
///
/// # Errors
/// Never in practice: all names and values are valid already.
pub fn label(head: &mut ResponseHeader, labels: &Labels<'_>) -> Result<()> {
    let (status, version) = (head.status, head.version);
    fields::edit_response(head, MORE_FIELDS, |fields| {
        strip(fields, status);
        fields.add(header::VIA, via(version))?;
        fields.set(PROXY_CODE, GRANTED)?;
        fields.set(PROXY_MESSAGE, GRANTED_MESSAGE)?;
        match labels.warning {
            Some(warning) => fields.set(PROXY_WARNING, warning.clone())?,
            // A target does not speak in our name.
            None => fields.remove(&PROXY_WARNING),
        }
        fields.set(REQUEST_ID, labels.request_id.clone())
    })
}

const VIA_1_1: HeaderValue = HeaderValue::from_static("1.1 requestrocket-edge");
const VIA_2: HeaderValue = HeaderValue::from_static("2 requestrocket-edge");

/// The `Via` value for a message received with `version`.
pub fn via(version: Version) -> HeaderValue {
    match version {
        Version::HTTP_2 => VIA_2,
        Version::HTTP_10 => HeaderValue::from_static("1.0 requestrocket-edge"),
        _ => VIA_1_1,
    }
}

/// Takes the target's credential off an answer whose target sends it back: under the name that it came under, or in the
/// address of a redirect.
///
/// # Errors
/// Never in practice: what is left of a valid value is valid.
pub fn conceal(head: &mut ResponseHeader, injection: &Injection) -> Result<()> {
    for name in echoed(&head.headers, injection) {
        head.remove_header(name);
    }
    let Some(query) = &injection.query else { return Ok(()) };
    for name in [header::LOCATION, header::CONTENT_LOCATION] {
        let clean = head.headers.get(&name).and_then(|value| without_pair(value.as_bytes(), query.pair.expose()));
        if let Some(clean) = clean {
            head.insert_header(name, clean)?;
        }
    }
    Ok(())
}

/// The same for trailers.
pub fn conceal_in_trailers(trailers: &mut HeaderMap, injection: &Injection) {
    for name in echoed(trailers, injection) {
        trailers.remove(name);
    }
}

/// The names under which credentials came and come back. Nothing but a look for each name where none does.
fn echoed<'a>(headers: &HeaderMap, injection: &'a Injection) -> Vec<&'a HeaderName> {
    let comes_back = |(name, value): &&'a (HeaderName, HeaderValue)| {
        let mut echoes = headers.get_all(name).iter();
        // The scheme before it may be written in another way, or left out.
        let secret = value.as_bytes().rsplit(|byte| *byte == b' ').next().unwrap_or_default();
        echoes.any(|echo| memmem::find(echo.as_bytes(), secret).is_some())
    };
    injection.headers.iter().filter(comes_back).map(|(name, _)| name).collect()
}

/// An address without the parameter `pair`, where it has one.
fn without_pair(address: &[u8], pair: &[u8]) -> Option<HeaderValue> {
    let found = memmem::find(address, pair)?;
    let (before, after) = (&address[..found], &address[found + pair.len()..]);
    let whole = matches!(before.last(), Some(b'?' | b'&')) && matches!(after.first(), None | Some(b'&' | b'#'));
    if !whole {
        return None;
    }
    // With one of the two signs that set it apart, and with both where it was all of the query.
    let clean = match after.strip_prefix(b"&") {
        Some(rest) => [before, rest].concat(),
        None => [&before[..before.len() - 1], after].concat(),
    };
    HeaderValue::from_bytes(&clean).ok()
}

/// One `Content-Length` of several equal ones (RFC 9110 section 8.6).
///
/// # Errors
/// Never in practice: the value is there already.
pub fn collapse_length(head: &mut ResponseHeader) -> Result<()> {
    let mut lengths = head.headers.get_all(header::CONTENT_LENGTH).iter();
    match (lengths.next(), lengths.next()) {
        (Some(length), Some(_)) => {
            let length = length.clone();
            head.insert_header(header::CONTENT_LENGTH, length)
        }
        _ => Ok(()),
    }
}

/// Cleans an interim answer (1xx): it frames nothing (RFC 9110 section 8.6, RFC 9112 section 6.1), and says nothing in our
/// name.
pub fn strip_interim(head: &mut ResponseHeader) {
    let status = head.status;
    strip(head, status);
    for name in [header::CONNECTION, header::CONTENT_LENGTH, header::TRANSFER_ENCODING] {
        head.remove_header(&name);
    }
    for name in [PROXY_CODE, PROXY_MESSAGE, PROXY_WARNING, PROXY_STATUS, REQUEST_ID] {
        head.remove_header(&name);
    }
}

fn strip(fields: &mut dyn Fields, status: StatusCode) {
    if fields.map().contains_key(header::CONNECTION) {
        for name in nominated(fields.map()) {
            fields.remove(&name);
        }
    }
    let bodiless = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    // What other proxies on the way say stays; what is said under our name is not ours.
    let forged = |value: &HeaderValue| memmem::find(value.as_bytes(), NAME.as_bytes()).is_some();
    let is_forged = fields.map().get_all(PROXY_STATUS).iter().any(forged);
    fields::remove_all(fields, |name| match *name {
        header::UPGRADE => status != StatusCode::SWITCHING_PROTOCOLS,
        // A 204 has no body, and announces none (RFC 9110 section 8.6, RFC 9112 section 6.1).
        header::CONTENT_LENGTH => status == StatusCode::NO_CONTENT,
        header::TRANSFER_ENCODING => bodiless,
        _ => HOP_BY_HOP.contains(name) || (is_forged && *name == PROXY_STATUS),
    });
}

/// Fields that `Connection` names, less those that frame the message or that are handled by name.
fn nominated(headers: &HeaderMap) -> Vec<HeaderName> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(',').map(str::trim))
        // What nearly every target says, and names no field that is still there.
        .filter(|token| !token.eq_ignore_ascii_case("keep-alive") && !token.eq_ignore_ascii_case("close"))
        .filter_map(|token| token.parse::<HeaderName>().ok())
        .filter(|name| {
            ![header::TRANSFER_ENCODING, header::CONTENT_LENGTH, header::UPGRADE, header::CONNECTION].contains(name)
        })
        .filter(|name| headers.contains_key(name))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::QueryInjection;
    use crate::secret::Secret;

    fn answer(fields: &[(&'static str, &'static str)]) -> ResponseHeader {
        let mut head = ResponseHeader::build(200, None).expect("200 is a status");
        for (name, value) in fields {
            head.append_header(*name, *value).expect("valid in these tests");
        }
        head
    }

    #[test]
    fn a_target_does_not_speak_in_our_name() {
        let mut head = answer(&[
            ("requestrocket-proxy-code", "billing-suspended"),
            ("requestrocket-proxy-warning", "pay me"),
            ("via", "1.1 cdn"),
        ]);
        let id = HeaderValue::from_static("r1");
        label(&mut head, &Labels { request_id: &id, warning: None }).expect("labels are valid");
        assert_eq!(head.headers["requestrocket-proxy-code"], "proxy-access-granted");
        assert!(!head.headers.contains_key("requestrocket-proxy-warning"));
        let via: Vec<_> = head.headers.get_all("via").iter().collect();
        assert_eq!(via, ["1.1 cdn", "1.1 requestrocket-edge"]);
    }

    #[test]
    fn a_credential_that_comes_back_is_taken_off() {
        let credential = (HeaderName::from_static("x-key"), HeaderValue::from_static("Token s3cret"));
        let query = QueryInjection { name: "key".into(), pair: Secret::new(b"key=s3cret".to_vec()) };
        let injection = Injection { headers: vec![credential], query: Some(query) };
        for (name, value, left) in [
            ("x-key", "Token s3cret", None),
            ("x-key", "s3cret", None),
            ("x-key", "you sent <s3cret>", None),
            ("x-key", "another", Some("another")),
            ("x-other", "s3cret", Some("s3cret")),
            ("location", "/a?key=s3cret", Some("/a")),
            ("location", "/a?key=s3cret#top", Some("/a#top")),
            ("location", "https://b/a?x=1&key=s3cret", Some("https://b/a?x=1")),
            ("location", "/a?key=s3cret&x=1", Some("/a?x=1")),
            ("location", "/a?x=1&key=s3cret&y=2", Some("/a?x=1&y=2")),
            ("location", "/a?key=s3cret-of-another", Some("/a?key=s3cret-of-another")),
            ("location", "/a?monkey=s3cret", Some("/a?monkey=s3cret")),
        ] {
            let mut head = answer(&[(name, value)]);
            conceal(&mut head, &injection).expect("what is left is valid");
            assert_eq!(head.headers.get(name).and_then(|value| value.to_str().ok()), left, "{name}: {value}");
        }
    }

    #[test]
    fn what_belongs_to_the_targets_connection_stays_there() {
        let mut head = answer(&[
            ("connection", "close, x-hop, content-length"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("content-length", "3"),
            ("x-kept", "1"),
        ]);
        strip(&mut head, StatusCode::OK);
        assert!(!head.headers.contains_key("x-hop") && !head.headers.contains_key("keep-alive"));
        assert!(head.headers.contains_key("content-length") && head.headers.contains_key("x-kept"));
    }
}
