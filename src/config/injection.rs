//! Target credentials: what takes the place of the client's, built into headers or a query parameter that are ready to send.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use zeroize::Zeroizing;

use super::credentials::username;
use super::model::{Injection, QueryInjection, TargetCredential};
use super::node::{Fields, Node};
use super::problem::quoted;
use super::{rules, secrets};
use crate::secret::Secret;

pub(super) const KEYS: [&str; 11] =
    ["id", "type", "secret", "prefix", "header", "query", "username", "headers", "expose", "default_effect", "rules"];

/// The keys that go with some types only.
const TYPED_KEYS: [&str; 7] = ["secret", "prefix", "header", "query", "username", "headers", "expose"];

/// All but the unreserved characters of RFC 3986: what a query parameter needs to arrive as it is.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Headers that the edge itself sets or that belong to one connection: a credential there would break requests.
pub(super) const OURS: [&str; 16] = [
    "connection",
    "content-length",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-request-id",
];

#[derive(Clone, Copy)]
pub(super) enum Kind {
    Bearer,
    ApiKey,
    Basic,
    Jwt,
    Oauth2,
    Custom,
    None,
}

pub(super) const KINDS: [(&str, Kind); 7] = [
    ("bearer", Kind::Bearer),
    ("api_key", Kind::ApiKey),
    ("basic", Kind::Basic),
    ("jwt", Kind::Jwt),
    ("oauth2", Kind::Oauth2),
    ("custom", Kind::Custom),
    ("none", Kind::None),
];

pub(super) fn target_credential(fields: &Fields<'_>, id: Option<Box<str>>) -> Option<TargetCredential> {
    let advice = "write `bearer`, `api_key`, `basic`, `jwt`, `custom` or `none`";
    let kind = fields.required("type", advice, |node| node.choice(&KINDS));
    if matches!(kind, Some(Kind::Oauth2)) {
        let node = fields.get("type")?;
        return node.problem("`oauth2` is not supported yet; write `bearer` with a token of the target");
    }
    refuse_stray_keys(fields, kind);
    let injection = kind.and_then(|kind| injection(fields, kind));
    let expose = fields.or("expose", false, Node::flag);
    let scope = rules::scope(fields);
    Some(TargetCredential { id: id?, injection: injection?, expose: expose?, scope: scope? })
}

/// Notes the keys that do not go with the type: a forgotten `header` would send a secret where it is not expected.
fn refuse_stray_keys(fields: &Fields<'_>, kind: Option<Kind>) {
    fields.refuse_unknown();
    let goes: &[&str] = match kind {
        Some(Kind::Bearer | Kind::Jwt) => &["secret", "prefix", "expose"],
        Some(Kind::ApiKey) => &["secret", "prefix", "header", "query", "expose"],
        Some(Kind::Basic) => &["secret", "username", "expose"],
        Some(Kind::Custom) => &["headers", "expose"],
        Some(Kind::Oauth2 | Kind::None) => &[],
        None => return,
    };
    for key in fields.keys().filter(|key| TYPED_KEYS.contains(key) && !goes.contains(key)) {
        let takes = match goes {
            [] => "no secret".to_owned(),
            goes => super::problem::listed(goes),
        };
        let message = format!("`{key}` does not go with this type, which takes {takes}; remove it, or change the type");
        fields.node.problem::<()>(message);
    }
}

fn injection(fields: &Fields<'_>, kind: Kind) -> Option<Injection> {
    match kind {
        Kind::Bearer | Kind::Jwt => {
            let prefix = fields.or("prefix", "Bearer ".to_owned(), prefix);
            in_header(AUTHORIZATION, fields, prefix)
        }
        Kind::ApiKey => match (fields.get("header"), fields.get("query")) {
            (Some(_), Some(_)) => fields.node.problem("gives both `header` and `query`; keep one of them"),
            (None, Some(query)) => in_query(fields, query),
            (header, None) => {
                let header = header.map_or(Some(AUTHORIZATION), header_name);
                let prefix = fields.or("prefix", String::new(), prefix);
                header.and_then(|header| in_header(header, fields, prefix))
            }
        },
        Kind::Basic => {
            let username = fields.required("username", "write the user name that goes with the password", username);
            let password = secret(fields);
            let (username, password) = (username?, password?);
            let mut pair = Zeroizing::new(Vec::with_capacity(username.len() + 1 + password.expose().len()));
            pair.extend_from_slice(username.as_bytes());
            pair.push(b':');
            pair.extend_from_slice(password.expose());
            let encoded = Secret::new(STANDARD.encode(&*pair).into_bytes());
            let value = encoded.header_value("Basic ").expect("base64 is fit for a header");
            Some(Injection { headers: vec![(AUTHORIZATION, value)], query: None })
        }
        Kind::Custom => {
            let headers = fields.required("headers", "write `headers: { X-Key: { file: NAME } }`", custom_headers)?;
            Some(Injection { headers, query: None })
        }
        Kind::Oauth2 | Kind::None => Some(Injection::default()),
    }
}

fn secret(fields: &Fields<'_>) -> Option<Secret> {
    fields.required("secret", "write where it is: `secret: { file: NAME }` or `secret: { env: NAME }`", clear)
}

/// A secret as the target is to see it.
fn clear(node: Node<'_>) -> Option<Secret> {
    let secret = secrets::plain_secret(node, "the target needs the secret itself")?;
    if secret.expose().iter().any(u8::is_ascii_control) {
        return node.problem(
            "the secret holds a line break or another control character, which no request may carry; remove it",
        );
    }
    Some(secret)
}

fn in_header(name: HeaderName, fields: &Fields<'_>, prefix: Option<String>) -> Option<Injection> {
    let secret = secret(fields);
    let (secret, prefix) = (secret?, prefix?);
    let value = header_value(fields.get("secret")?, &secret, &prefix)?;
    Some(Injection { headers: vec![(name, value)], query: None })
}

fn header_value(node: Node<'_>, secret: &Secret, prefix: &str) -> Option<HeaderValue> {
    if secret.expose().trim_ascii().len() != secret.expose().len() {
        return node.problem("the secret starts or ends with white space, which headers lose on the way; remove it");
    }
    Some(secret.header_value(prefix).expect("`clear` and `prefix` refuse control characters"))
}

fn in_query(fields: &Fields<'_>, node: Node<'_>) -> Option<Injection> {
    let fits = match fields.get("prefix") {
        Some(node) => node.problem("goes with `header` only; remove it"),
        None => Some(()),
    };
    let name: Option<Box<str>> = node.text().map(Into::into);
    let secret = secret(fields);
    let (name, secret, ()) = (name?, secret?, fits?);
    let mut pair = percent_encode(name.as_bytes(), QUERY).to_string().into_bytes();
    // Three bytes for each at most: a buffer that grows would leave copies of the secret behind.
    pair.reserve_exact(1 + 3 * secret.expose().len());
    pair.push(b'=');
    for piece in percent_encode(secret.expose(), QUERY) {
        pair.extend_from_slice(piece.as_bytes());
    }
    Some(Injection { headers: Vec::new(), query: Some(QueryInjection { name, pair: Secret::new(pair) }) })
}

fn custom_headers(node: Node<'_>) -> Option<Vec<(HeaderName, HeaderValue)>> {
    let Some(entries) = node.entries() else {
        return node.hidden().wrong("is not a mapping; write `{ X-Key: { file: NAME } }`");
    };
    let mut headers: Vec<(HeaderName, HeaderValue)> = Vec::new();
    let mut complete = true;
    let mut empty = true;
    for (key, node) in entries {
        empty = false;
        let name = permitted(node.hidden(), key);
        let value = clear(node).and_then(|secret| header_value(node, &secret, ""));
        let (Some(name), Some(value)) = (name, value) else {
            complete = false;
            continue;
        };
        if headers.iter().any(|(known, _)| *known == name) {
            node.problem::<()>("names a header that is already in this mapping; remove one of them");
            complete = false;
        }
        headers.push((name, value));
    }
    if empty {
        return node.problem("names no header; write `{ X-Key: { file: NAME } }`, or `type: none`");
    }
    complete.then_some(headers)
}

fn header_name(node: Node<'_>) -> Option<HeaderName> {
    permitted(node, node.text()?)
}

/// A header that may carry a credential.
fn permitted(node: Node<'_>, name: &str) -> Option<HeaderName> {
    let shown = quoted(name);
    let Ok(header) = HeaderName::from_bytes(name.as_bytes()) else {
        return node.problem(format!("{shown} is not the name of a header; write one like `X-API-Key`"));
    };
    let text = header.as_str();
    if OURS.contains(&text) || text.starts_with("x-forwarded-") || text.starts_with("requestrocket-proxy-") {
        return node
            .problem(format!("{shown} is a header that the edge itself looks after; write another, like `X-API-Key`"));
    }
    Some(header)
}

/// What stands before the secret, with the space that parts them.
fn prefix(node: Node<'_>) -> Option<String> {
    let prefix = node.any_text()?.trim_end();
    if prefix.bytes().any(|byte| !(b' '..=b'~').contains(&byte)) || prefix.starts_with(' ') {
        return node.wrong("is not possible before a secret; write a scheme like `Bearer`, or `\"\"` for none");
    }
    Some(if prefix.is_empty() { String::new() } else { format!("{prefix} ") })
}
