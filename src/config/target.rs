//! Targets: a base URL taken apart into what a connection and a request need.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::HeaderValue;

use super::model::{Target, TargetHost, TargetHttp};
use super::node::Fields;
use super::{rules, tls};

pub(super) const KEYS: [&str; 6] = ["id", "base_url", "tls", "http", "default_effect", "rules"];

pub(super) const HTTP: [(&str, TargetHttp); 3] =
    [("auto", TargetHttp::Auto), ("1", TargetHttp::Http1), ("2", TargetHttp::Http2)];

pub(super) fn target(fields: &Fields<'_>, id: Option<Box<str>>) -> Option<Target> {
    fields.refuse_unknown();
    let url = fields.required("base_url", "write one like `https://api.example.com/v1`", |node| {
        // A part that does not belong there (a user, a query) may be a secret.
        let secretive = node.text()?.contains(['@', '?', '#']);
        if secretive { node.hidden() } else { node }.parse(base_url)
    });
    let http = fields.or("http", TargetHttp::Auto, |node| node.choice(&HTTP));
    let scope = rules::scope(fields);
    let url = url?;
    let tls = match fields.get("tls") {
        Some(node) if !url.https => {
            return node.problem("goes with `https` only; write `base_url: https://...`, or remove it");
        }
        node if url.https => Some(tls::target(node, server_name(&url.host))?),
        _ => None,
    };
    Some(Target {
        id: id?,
        tls,
        host_header: url.host_header(),
        host: url.host,
        port: url.port,
        base_path: url.base_path,
        http: http?,
        scope: scope?,
    })
}

struct BaseUrl {
    https: bool,
    host: TargetHost,
    port: u16,
    base_path: Box<str>,
}

impl BaseUrl {
    fn host_header(&self) -> HeaderValue {
        let host = match &self.host {
            TargetHost::Name(name) => name.to_string(),
            TargetHost::Address(IpAddr::V4(address)) => address.to_string(),
            TargetHost::Address(IpAddr::V6(address)) => format!("[{address}]"),
        };
        let own_port = if self.https { 443 } else { 80 };
        let text = if self.port == own_port { host } else { format!("{host}:{}", self.port) };
        HeaderValue::try_from(text).expect("a host is letters, digits and punctuation: `base_url` refuses all else")
    }
}

fn server_name(host: &TargetHost) -> Box<str> {
    match host {
        TargetHost::Name(name) => name.clone(),
        TargetHost::Address(address) => address.to_string().into(),
    }
}

fn base_url(text: &str) -> Result<BaseUrl, String> {
    let (scheme, rest) =
        text.split_once("://").ok_or("is not a URL; write one with its scheme, like `https://api.example.com`")?;
    let https = match scheme.to_ascii_lowercase().as_str() {
        "https" => true,
        "http" => false,
        _ => return Err("has a scheme that cannot be spoken; write `https://` or `http://`".to_owned()),
    };
    // First of all: behind any of these, what looks like a host or a path need not be one.
    for (character, part) in [('?', "a query"), ('#', "a fragment"), ('@', "a user or password")] {
        if rest.contains(character) {
            return Err(format!(
                "holds {part}; write only scheme, host, port and path (secrets go into `target_credentials`)"
            ));
        }
    }
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (host, port) = authority_parts(authority)?;
    let port = match port {
        None if https => 443,
        None => 80,
        Some(port) => port
            .parse()
            .ok()
            .filter(|number: &u16| *number > 0 && port.bytes().all(|byte| byte.is_ascii_digit()))
            .ok_or("has an impossible port; write one from 1 to 65535, or none")?,
    };
    Ok(BaseUrl { https, host: target_host(host)?, port, base_path: base_path(path)? })
}

fn authority_parts(authority: &str) -> Result<(&str, Option<&str>), String> {
    if authority.starts_with('[') {
        let end = authority.find(']').ok_or("has a `[` without its `]`; write an IPv6 host like `[2001:db8::1]`")?;
        let (host, rest) = authority.split_at(end + 1);
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err("has something between host and path; write a port as `:8443`".to_owned()),
        };
    }
    match authority.split_once(':') {
        Some((_, port)) if port.contains(':') => {
            Err("has more than one colon in its host; write an IPv6 host in brackets, like `[2001:db8::1]`".to_owned())
        }
        Some((host, port)) => Ok((host, Some(port))),
        None => Ok((authority, None)),
    }
}

fn target_host(host: &str) -> Result<TargetHost, String> {
    if let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        let address: Ipv6Addr =
            address.parse().map_err(|_| "has no IPv6 address in its brackets; write one like `[2001:db8::1]`")?;
        return Ok(TargetHost::Address(address.into()));
    }
    if let Ok(address) = host.parse::<Ipv4Addr>() {
        return Ok(TargetHost::Address(address.into()));
    }
    if !host.is_ascii() {
        return Err("has a host beyond ASCII; write it as the DNS has it, like `xn--bcher-kva.example`".to_owned());
    }
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let label = |label: &str| {
        let letters = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        letters && (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')
    };
    if name.len() > 253 || !name.split('.').all(label) {
        return Err("has an impossible host; write a name like `api.example.com` or an address".to_owned());
    }
    // `127.1` and `0x7f000001` are addresses to some resolvers: what is checked must be what is dialled.
    let last = name.rsplit('.').next().unwrap_or_default();
    if last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x") {
        return Err("has a host that is half an address; write all four numbers, like `127.0.0.1`".to_owned());
    }
    Ok(TargetHost::Name(name.into()))
}

/// The path that goes before every request's own. Held to the same rules, so that the two together are still one reading.
fn base_path(path: &str) -> Result<Box<str>, String> {
    let bytes = path.as_bytes();
    if let Some(byte) = bytes.iter().find(|byte| !byte.is_ascii_graphic() || b"\\\"<>^`{|}".contains(byte)) {
        return Err(format!(
            "has a path with a character that URLs do not hold; write it percent-encoded, like `%{byte:02X}`"
        ));
    }
    let hex = |index: usize| bytes.get(index).is_some_and(u8::is_ascii_hexdigit);
    if (0..bytes.len()).any(|index| bytes[index] == b'%' && !(hex(index + 1) && hex(index + 2))) {
        return Err("has a `%` without two hexadecimal digits; write `%25` for the character itself".to_owned());
    }
    let lower = path.to_ascii_lowercase();
    if lower.contains("%00") || lower.contains("%5c") {
        return Err("has an encoded NUL or backslash in its path; remove it".to_owned());
    }
    if lower.replace("%2e", ".").split('/').any(|segment| segment == "." || segment == "..") {
        return Err("has a dot segment in its path; write the path that is meant".to_owned());
    }
    Ok(path.trim_end_matches('/').into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_base_url_is_taken_apart() {
        for (text, tls, host, port, path) in [
            ("https://api.example.com", true, "api.example.com", 443, ""),
            ("https://API.Example.com./v1/", true, "api.example.com", 443, "/v1"),
            ("http://127.0.0.1:8081/a%20b//c", false, "127.0.0.1:8081", 8081, "/a%20b//c"),
            ("http://[2001:DB8::1]:8081", false, "[2001:db8::1]:8081", 8081, ""),
            ("https://[::1]/", true, "[::1]", 443, ""),
            ("HTTPS://h:443/", true, "h", 443, ""),
            ("http://h:443/", false, "h:443", 443, ""),
        ] {
            let url = base_url(text).unwrap();
            let header = url.host_header();
            assert_eq!(
                (url.https, header.to_str().unwrap(), url.port, &*url.base_path),
                (tls, host, port, path),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_not_a_base_url_is_refused() {
        for text in [
            "",
            "api.example.com",
            "ftp://h",
            "://h",
            "https://",
            "https://:443",
            "https://h:",
            "https://h:0",
            "https://h:+1",
            "https://h:65536",
            "https://h?key=x",
            "https://h/#x",
            "https://u:p@h/",
            "https://h/..",
            "https://h/a/%2E%2e/b",
            "https://h/.",
            "https://h/a b",
            "https://h/a\\b",
            "https://h/%zz",
            "https://h/%",
            "https://h/%00",
            "https://h/%5C",
            "https://bücher.example",
            "https://h/é",
            "https://a..b",
            "https://-a.b",
            "https://a_b/\u{7f}",
            "https://::1",
            "https://[::1",
            "https://[::1]x",
            "https://[x]",
            "https://127.1",
            "https://0x7f000001",
            "https://h h",
        ] {
            assert!(base_url(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_input_panics(text in ".*") {
            let _ = base_url(&format!("https://{text}")).map(|url| url.host_header());
        }

        #[test]
        fn no_base_path_hides_a_dot_segment(path in "(/(\\.|%2e|%2E|a|%2f){0,3}){0,4}") {
            if let Ok(url) = base_url(&format!("https://h{path}")) {
                let decoded = url.base_path.to_ascii_lowercase().replace("%2e", ".");
                prop_assert!(!decoded.split('/').any(|segment| segment == "." || segment == ".."));
            }
        }
    }
}
