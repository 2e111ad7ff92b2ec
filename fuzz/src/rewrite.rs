//! `request::rewrite`: the target gets what the contract says it gets, field by field, and nothing of the client's credential.
//!
//! The input is lines: words that choose the setting; the request target; then a field of the request each, `name: value`.

use std::collections::BTreeMap;

use http::{HeaderName, HeaderValue, Version};
use pingora::http::RequestHeader;
use requestrocket_edge::config::model::{Injection, QueryInjection, Scope, Target, TargetHost, TargetHttp};
use requestrocket_edge::request::rewrite::{self, Origin};
use requestrocket_edge::request::{query, route};
use requestrocket_edge::secret::Secret;

use super::{shown, unescape};

/// What only the target may see, and the client cannot know.
const CREDENTIAL: &str = "credential-of-the-target";
const HOST: &str = "api.example.com";
const PEER: &str = "192.0.2.7";
const REQUEST_ID: &str = "the-id-of-this-request";

/// Fields of one connection (RFC 9110 section 7.6.1), which Pingora takes off before it asks what to send.
const HOP_BY_HOP: [&str; 10] = [
    "connection",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// The fields of a message, in the order of their names.
type Fields = BTreeMap<String, Vec<Vec<u8>>>;

struct Setting {
    version: Version,
    trusted: bool,
    tls: bool,
    base_path: &'static str,
    /// Where the target's credential goes.
    header: Option<&'static str>,
    parameter: Option<&'static str>,
}

impl Setting {
    fn of(words: &[u8]) -> Self {
        let has = |word: &str| words.split(|byte| *byte == b' ').any(|other| other == word.as_bytes());
        let choose = |words: &[&'static str]| words.iter().copied().find(|word| has(word));
        let version = if has("http1.0") { Version::HTTP_10 } else { Version::HTTP_11 };
        Self {
            version: if has("http2") { Version::HTTP_2 } else { version },
            trusted: has("trusted"),
            tls: has("tls"),
            base_path: if has("base") { "/v1" } else { "" },
            header: choose(&["authorization", "x-api-key", "x_api_key"]),
            parameter: choose(&["key", "a+b"]),
        }
    }

    fn injection(&self) -> Injection {
        let header = |name| (HeaderName::from_static(name), HeaderValue::from_static(CREDENTIAL));
        let pair = |name: &str| format!("{}={CREDENTIAL}", name.replace('+', "%2B")).into_bytes();
        Injection {
            headers: self.header.map(header).into_iter().collect(),
            query: self.parameter.map(|name| QueryInjection { name: name.into(), pair: Secret::new(pair(name)) }),
        }
    }
}

/// The input is a setting and a request.
pub fn check(input: &[u8]) {
    let mut lines = input.split(|byte| *byte == b'\n');
    let setting = Setting::of(lines.next().unwrap_or_default());
    let raw = lines.next().unwrap_or_default();
    let Ok(route) = route::parse(raw) else { return };
    let Some(mut head) = request(raw, lines, setting.version) else { return };
    let sent = head.clone();
    let target = Target {
        id: "target".into(),
        tls: None,
        host: TargetHost::Name(HOST.into()),
        port: 443,
        host_header: HeaderValue::from_static(HOST),
        base_path: setting.base_path.into(),
        http: TargetHttp::Auto,
        scope: Scope::default(),
    };
    let injection = setting.injection();
    let query = query::split(route.query).query;
    let line = rewrite::request_target(&target, &injection, route.target_path, query.as_deref());
    assert_eq!(line, expected_line(&setting, raw), "{}", shown(input));

    for name in HOP_BY_HOP {
        head.remove_header(name);
    }
    let peer = HeaderValue::from_static(PEER);
    let request_id = HeaderValue::from_static(REQUEST_ID);
    let (trusted, tls, version) = (setting.trusted, setting.tls, setting.version);
    let origin = Origin { peer: &peer, trusted, tls, request_id: &request_id, version };
    rewrite::rewrite(&mut head, &line, &target, &injection, &origin, false).expect("a line of `request_target` is one");
    rewrite::keep_trailers(&mut head, &sent).expect("never fails");

    assert_eq!(head.raw_path(), line, "{}", shown(input));
    let expected = expected_fields(&setting, &fields_of(&sent));
    assert_eq!(fields_of(&head), expected, "{}", shown(input));
    if version != Version::HTTP_2 {
        let mut wire = Vec::new();
        head.header_to_h1_wire(&mut wire);
        assert_eq!(fields_on(&wire), expected, "on the wire: {}", shown(input));
    }
}

/// A request as it may come out of a parser. `None`: no parser lets it through.
fn request<'i>(target: &[u8], lines: impl Iterator<Item = &'i [u8]>, version: Version) -> Option<RequestHeader> {
    let mut head = RequestHeader::build("GET", target, None).ok()?;
    head.set_version(version);
    for line in lines {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = std::str::from_utf8(&line[..colon]).ok()?.to_owned();
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?;
        HeaderName::from_bytes(name.as_bytes()).ok()?;
        head.append_header(name, value).ok()?;
    }
    Some(head)
}

/// Base path, path and query as they came, but for the client's credential and what stands where the target's goes.
fn expected_line(setting: &Setting, raw: &[u8]) -> Vec<u8> {
    let text = raw.strip_prefix(b"/api/").expect("a routed path");
    let (path, query) = match text.iter().position(|byte| *byte == b'?') {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let path = path.iter().position(|byte| *byte == b'/').map_or(&b"/"[..], |at| &path[at..]);
    let mut line = [setting.base_path.as_bytes(), path].concat();
    let pieces: Vec<&[u8]> = query.into_iter().flat_map(|query| query.split(|byte| *byte == b'&')).collect();
    let name = |piece: &[u8]| {
        let name = piece.split(|byte| *byte == b'=').next().unwrap_or_default();
        unescape(&String::from_utf8_lossy(name).replace('+', " ").into_bytes()).0
    };
    let is_authorization = |piece: &&[u8]| name(piece).eq_ignore_ascii_case(b"authorization");
    let is_parameter = |piece: &&[u8]| setting.parameter.is_some_and(|parameter| name(piece) == parameter.as_bytes());
    // Twice, and each time nothing is nothing: of `Authorization=x&` and no more, no query is left.
    let without = |pieces: Vec<&'_ [u8]>, drop: &dyn Fn(&&[u8]) -> bool| -> Option<Vec<u8>> {
        let kept: Vec<&[u8]> = pieces.iter().copied().filter(|piece| !drop(piece)).collect();
        let rest = kept.join(&b'&');
        (!rest.is_empty() || kept.len() == pieces.len()).then_some(rest)
    };
    let query = query.and_then(|_| without(pieces, &is_authorization));
    let query = query.and_then(|query| without(query.split(|byte| *byte == b'&').collect(), &is_parameter));
    let pair = setting.parameter.map(|name| format!("{}={CREDENTIAL}", name.replace('+', "%2B")).into_bytes());
    let queries: Vec<Vec<u8>> = query.into_iter().chain(pair).collect();
    if !queries.is_empty() {
        line.push(b'?');
        line.extend(queries.join(&b'&'));
    }
    line
}

/// The fields that the target gets of a request that came with `sent`.
fn expected_fields(setting: &Setting, sent: &Fields) -> Fields {
    let mut fields = sent.clone();
    let first = |name: &str| sent.get(name).map(|values| values[0].clone());
    let injected = setting.header.map(|name| name.replace('_', "-"));
    let fixed = ["authorization", "proxy-authorization", "host", "via", "forwarded", "x-request-id", "x-real-ip"];
    fields.retain(|name, _| {
        let dashed = name.replace('_', "-");
        let ours = fixed.contains(&&*dashed)
            || ["content-length", "transfer-encoding", "connection"].contains(&&*dashed)
            || dashed.starts_with("x-forwarded-")
            || dashed.starts_with("requestrocket-proxy-");
        // Servers that turn `-` into `_` cannot tell these from ours; nor, the other way round, from the credential.
        let is_twin = (ours && name.contains('_')) || Some(&dashed) == injected.as_ref();
        !is_twin && !HOP_BY_HOP.contains(&&**name) && !name.starts_with("requestrocket-proxy-")
    });
    fields.remove("authorization");
    if let Some(cookies) = fields.get_mut("cookie")
        && setting.version != Version::HTTP_2
    {
        *cookies = vec![cookies.join(&b"; "[..])];
    }
    let mut set = |name: &str, value: &[u8]| fields.insert(name.to_owned(), vec![value.to_vec()]);
    let chain = sent.get("x-forwarded-for").filter(|_| setting.trusted).map(|chain| chain.join(&b", "[..]));
    let chain: Vec<Vec<u8>> = chain.into_iter().chain([PEER.into()]).collect();
    set("x-forwarded-for", &chain.join(&b", "[..]));
    if !setting.trusted || !sent.contains_key("x-forwarded-proto") {
        set("x-forwarded-proto", if setting.tls { b"https" } else { b"http" });
    }
    set("requestrocket-proxy-code", b"proxy-access-granted");
    set("requestrocket-proxy-message", b"Proxy authentication successful");
    set("x-request-id", REQUEST_ID.as_bytes());
    set("host", HOST.as_bytes());
    if let Some(name) = setting.header {
        set(name, CREDENTIAL.as_bytes());
    }
    if !setting.trusted || !sent.contains_key("x-forwarded-host") {
        match first("host") {
            Some(host) => drop(set("x-forwarded-host", &host)),
            None => drop(fields.remove("x-forwarded-host")),
        }
    }
    if !setting.trusted {
        for name in ["forwarded", "x-real-ip", "x-forwarded-port"] {
            fields.remove(name);
        }
    }
    let hop = match setting.version {
        Version::HTTP_2 => "2 requestrocket-edge",
        Version::HTTP_10 => "1.0 requestrocket-edge",
        _ => "1.1 requestrocket-edge",
    };
    fields.entry("via".to_owned()).or_default().push(hop.into());
    if setting.version == Version::HTTP_2 && first("te").is_some_and(|te| te.eq_ignore_ascii_case(b"trailers")) {
        fields.insert("te".to_owned(), vec![b"trailers".to_vec()]);
    }
    fields
}

fn fields_of(head: &RequestHeader) -> Fields {
    let mut fields = Fields::new();
    for (name, value) in &head.headers {
        fields.entry(name.as_str().to_owned()).or_default().push(value.as_bytes().to_vec());
    }
    fields
}

/// The fields of a header as it is sent.
fn fields_on(wire: &[u8]) -> Fields {
    let mut fields = Fields::new();
    for line in wire.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let line = line.strip_suffix(b"\r").expect("lines end in CR LF");
        let colon = line.iter().position(|byte| *byte == b':').expect("a field");
        let name = String::from_utf8_lossy(&line[..colon]).to_ascii_lowercase();
        fields.entry(name).or_default().push(line[colon..].strip_prefix(b": ").expect("a space").to_vec());
    }
    fields
}
