//! Changing the fields of a header at the price of one map.
//!
//! Pingora keeps how field names were spelled in a second map beside the fields. Each change goes through both, and parses and
//! copies the name for it, at several times the cost of the change. Most messages need none of that: their names are
//! registered ones, or in small letters already. Such a header leaves its spelling behind before it is changed. One with a
//! capital in a name of somebody's own keeps all of it: names are case-insensitive (RFC 9110 section 5.1), but who spells one
//! so may have a peer that is not.

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header, request, response};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora_core::{Error, ErrorType, Result};

/// The fields of a header, with or without their spelling.
pub trait Fields {
    fn map(&self) -> &HeaderMap;
    /// Sets a field in the place of all of its name.
    ///
    /// # Errors
    /// When a header has more fields than there may be: 24,576 (`http::HeaderMap`).
    fn set(&mut self, name: HeaderName, value: HeaderValue) -> Result<()>;
    /// Adds a field to those of its name.
    ///
    /// # Errors
    /// As with [`Self::set`].
    fn add(&mut self, name: HeaderName, value: HeaderValue) -> Result<()>;
    /// Removes all fields of a name.
    fn remove(&mut self, name: &HeaderName);
}

impl Fields for HeaderMap {
    fn map(&self) -> &HeaderMap {
        self
    }
    fn set(&mut self, name: HeaderName, value: HeaderValue) -> Result<()> {
        self.try_insert(name, value).map(drop).map_err(|_| too_many())
    }
    fn add(&mut self, name: HeaderName, value: HeaderValue) -> Result<()> {
        self.try_append(name, value).map(drop).map_err(|_| too_many())
    }
    fn remove(&mut self, name: &HeaderName) {
        Self::remove(self, name);
    }
}

impl Fields for RequestHeader {
    fn map(&self) -> &HeaderMap {
        &self.headers
    }
    fn set(&mut self, name: HeaderName, value: HeaderValue) -> Result<()> {
        self.insert_header(name, value)
    }
    fn add(&mut self, name: HeaderName, value: HeaderValue) -> Result<()> {
        self.append_header(name, value).map(drop)
    }
    fn remove(&mut self, name: &HeaderName) {
        self.remove_header(name);
    }
}

impl Fields for ResponseHeader {
    fn map(&self) -> &HeaderMap {
        &self.headers
    }
    fn set(&mut self, name: HeaderName, value: HeaderValue) -> Result<()> {
        self.insert_header(name, value)
    }
    fn add(&mut self, name: HeaderName, value: HeaderValue) -> Result<()> {
        self.append_header(name, value).map(drop)
    }
    fn remove(&mut self, name: &HeaderName) {
        self.remove_header(name);
    }
}

/// Changes the fields of a request, about `more` of which are new, and gives it the request target `line`.
///
/// # Errors
/// Those of `edit`, and when `line` is no request target.
pub fn edit_request(
    head: &mut RequestHeader,
    line: &Bytes,
    more: usize,
    edit: impl FnOnce(&mut dyn Fields) -> Result<()>,
) -> Result<()> {
    if must_keep_spelling(head) {
        edit(head)?;
        return head.set_raw_path(line);
    }
    let mut parts = take_parts(head);
    parts.headers.reserve(more);
    let edited = edit(&mut parts.headers);
    match ordinary_target(line) {
        Some(target) => {
            parts.uri = target;
            *head = parts.into();
            edited
        }
        // Pingora has its own ways with all others.
        None => {
            *head = parts.into();
            edited?;
            head.set_raw_path(line)
        }
    }
}

/// A request target in plain origin form, without a copy of it.
fn ordinary_target(line: &Bytes) -> Option<Uri> {
    if line.first() != Some(&b'/') || !line.is_ascii() {
        return None;
    }
    let target = PathAndQuery::from_maybe_shared(line.clone()).ok()?;
    (target.as_str().as_bytes() == line).then(|| target.into())
}

/// Drops the spelling of a request's fields where nobody needs it: what is copied from it for each attempt is less by that.
pub fn forget_spelling(head: &mut RequestHeader) {
    // A target in another form than this one is not among the parts.
    let is_plain = head.raw_path().first() == Some(&b'/') && head.raw_path_is_utf8();
    if is_plain && head.has_case() && !must_keep_spelling(head) {
        *head = take_parts(head).into();
    }
}

fn take_parts(head: &mut RequestHeader) -> request::Parts {
    let nothing = RequestHeader::from(http::Request::new(()).into_parts().0);
    std::mem::replace(head, nothing).into()
}

/// Removes the fields of all names that are `unwanted`.
pub fn remove_all(fields: &mut dyn Fields, unwanted: impl Fn(&HeaderName) -> bool) {
    // One look at each that is there is less than one for each that could be.
    let found: Vec<HeaderName> = fields.map().keys().filter(|name| unwanted(name)).cloned().collect();
    for name in &found {
        fields.remove(name);
    }
}

/// Changes the fields of an answer, about `more` of which are new.
///
/// # Errors
/// Those of `edit`.
pub fn edit_response(
    head: &mut ResponseHeader,
    more: usize,
    edit: impl FnOnce(&mut dyn Fields) -> Result<()>,
) -> Result<()> {
    if is_spelling_worth_it(head.case_header_iter().map(|(name, _)| name.as_slice()), &head.headers) {
        return edit(head);
    }
    // A reason phrase of the target's own is not among the parts.
    let own = head.get_reason_phrase().filter(|reason| head.status.canonical_reason() != Some(reason));
    let own = own.map(str::to_owned);
    let nothing = ResponseHeader::from(http::Response::new(()).into_parts().0);
    let mut parts = response::Parts::from(std::mem::replace(head, nothing));
    parts.headers.reserve(more);
    let edited = edit(&mut parts.headers);
    *head = parts.into();
    if own.is_some() {
        head.set_reason_phrase(own.as_deref())?;
    }
    edited
}

fn must_keep_spelling(head: &RequestHeader) -> bool {
    head.has_case() && is_spelling_worth_it(head.case_header_iter().map(|(name, _)| name.as_slice()), &head.headers)
}

/// Whether a field's name is worth its spelling. `spelled` goes through the fields in the order of `fields`.
fn is_spelling_worth_it<'a>(spelled: impl Iterator<Item = &'a [u8]>, fields: &HeaderMap) -> bool {
    fields
        .iter()
        .map(|(name, _)| name)
        .zip(spelled)
        .any(|(name, spelling)| !is_registered(name) && spelling != name.as_str().as_bytes())
}

/// Whether a name is one of those that everybody knows, in whatever letters.
fn is_registered(name: &HeaderName) -> bool {
    matches!(
        *name,
        header::ACCEPT
            | header::ACCEPT_CHARSET
            | header::ACCEPT_ENCODING
            | header::ACCEPT_LANGUAGE
            | header::ACCEPT_RANGES
            | header::AGE
            | header::ALLOW
            | header::ALT_SVC
            | header::AUTHORIZATION
            | header::CACHE_CONTROL
            | header::CONNECTION
            | header::CONTENT_DISPOSITION
            | header::CONTENT_ENCODING
            | header::CONTENT_LANGUAGE
            | header::CONTENT_LENGTH
            | header::CONTENT_LOCATION
            | header::CONTENT_RANGE
            | header::CONTENT_SECURITY_POLICY
            | header::CONTENT_TYPE
            | header::COOKIE
            | header::DATE
            | header::ETAG
            | header::EXPECT
            | header::EXPIRES
            | header::FORWARDED
            | header::FROM
            | header::HOST
            | header::IF_MATCH
            | header::IF_MODIFIED_SINCE
            | header::IF_NONE_MATCH
            | header::IF_RANGE
            | header::IF_UNMODIFIED_SINCE
            | header::LAST_MODIFIED
            | header::LINK
            | header::LOCATION
            | header::ORIGIN
            | header::PRAGMA
            | header::RANGE
            | header::REFERER
            | header::RETRY_AFTER
            | header::SERVER
            | header::SET_COOKIE
            | header::STRICT_TRANSPORT_SECURITY
            | header::TE
            | header::TRAILER
            | header::TRANSFER_ENCODING
            | header::UPGRADE
            | header::USER_AGENT
            | header::VARY
            | header::VIA
            | header::WWW_AUTHENTICATE
    )
}

fn too_many() -> Box<Error> {
    Error::explain(ErrorType::InvalidHTTPHeader, "too many fields")
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: HeaderName = HeaderName::from_static("x-ours");
    const ONE: HeaderValue = HeaderValue::from_static("1");

    fn wire(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut bytes = Vec::new();
        write(&mut bytes);
        String::from_utf8(bytes).expect("ASCII")
    }

    #[test]
    fn a_name_of_somebodys_own_keeps_its_capitals() {
        for (sent, keeps) in [
            (&["Host", "User-Agent", "ETag", "Accept"][..], false),
            (&["host", "x-own", "content-type"], false),
            (&["Host", "X-Own"], true),
            (&["SOAPAction", "Host"], true),
            (&[], false),
        ] {
            let mut request = RequestHeader::build("GET", b"/", None).expect("a request");
            let mut answer = ResponseHeader::build(200, None).expect("an answer");
            for name in sent {
                request.append_header(*name, "v").expect("valid");
                answer.append_header(*name, "v").expect("valid");
            }
            let edit = |fields: &mut dyn Fields| {
                fields.add(OURS, ONE)?;
                fields.set(OURS, ONE)?;
                fields.set(header::VIA, ONE)?;
                fields.remove(&header::VIA);
                Ok(())
            };
            edit_request(&mut request, &Bytes::from_static(b"/"), 1, edit).expect("changed");
            edit_response(&mut answer, 1, edit).expect("changed");
            for text in [wire(|bytes| request.header_to_h1_wire(bytes)), wire(|bytes| answer.header_to_h1_wire(bytes))]
            {
                for name in sent {
                    let line = format!("{name}: v\r\n");
                    assert!(if keeps { text.contains(&line) } else { contains_ignoring_case(&text, &line) }, "{text}");
                }
                assert_eq!(text.lines().count(), sent.len() + 1, "{text}");
                assert!(text.contains("x-ours: 1\r\n"), "{text}");
            }
            assert_eq!((request.has_case(), answer.has_case()), (keeps, keeps), "{sent:?}");
        }
    }

    fn contains_ignoring_case(text: &str, part: &str) -> bool {
        text.to_ascii_lowercase().contains(&part.to_ascii_lowercase())
    }

    #[test]
    fn an_answer_keeps_its_own_reason() {
        for (status, reason) in [(200, "OK"), (200, "Fine"), (599, "Odd"), (404, "Not Found")] {
            let mut answer = ResponseHeader::build(status, None).expect("an answer");
            answer.set_reason_phrase(Some(reason)).expect("a reason");
            edit_response(&mut answer, 0, |_| Ok(())).expect("changed");
            assert_eq!((answer.status.as_u16(), answer.get_reason_phrase()), (status, Some(reason)));
        }
    }
}
