//! In: a request header as it came over the wire. Out: nothing, or that two readers could understand it differently.
//!
//! Pingora repairs what RFC 9112 lets it repair. A proxy that holds other people's keys had better not: where a header can
//! be read in two ways, the reader behind us may take the other one (request smuggling).

use http::{HeaderMap, HeaderValue};
use memchr::memchr;

/// The header says something about itself that cannot be, or that a second reader could read otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ambiguous;

/// Checks a whole header, from the request line to the empty line.
///
/// # Errors
/// [`Ambiguous`]: a fragment in the target; a line that is folded or ends in a bare line feed; white space before a colon; both
/// `Content-Length` and `Transfer-Encoding`, or one of them twice; a length that is no number; a `Transfer-Encoding` other than
/// `chunked`; no `Host`, two of them, or one that is no host; no empty line at the end (RFC 9112 sections 2.2, 3.2, 5 and 6).
pub fn check(header: &[u8]) -> Result<(), Ambiguous> {
    // Empty lines before the request line are ignored (RFC 9112 section 2.2).
    let mut lines = Lines(header.strip_prefix(b"\r\n").unwrap_or(header));
    let (target, is_http_1_0) = request_line(lines.next().ok_or(Ambiguous)??)?;
    if memchr(b'#', target).is_some() {
        return Err(Ambiguous);
    }
    let (mut hosts, mut lengths, mut codings) = (0, 0, 0);
    loop {
        let line = lines.next().ok_or(Ambiguous)??;
        if line.is_empty() {
            break;
        }
        // A line that begins with white space continues the one before to some, and is a field of its own to others.
        let (name, value) = split(line).filter(|(name, _)| is_token(name)).ok_or(Ambiguous)?;
        if name.eq_ignore_ascii_case(b"host") {
            hosts += 1;
            if !is_host(value) {
                return Err(Ambiguous);
            }
        } else if name.eq_ignore_ascii_case(b"content-length") {
            lengths += 1;
            // Not a list either: `1, 1` is 1 to some, and nothing at all to others.
            if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
                return Err(Ambiguous);
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            codings += 1;
            if !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Ambiguous);
            }
        }
    }
    let host_is_there = hosts == 1 || (hosts == 0 && is_http_1_0);
    if host_is_there && lengths + codings <= 1 { Ok(()) } else { Err(Ambiguous) }
}

/// Checks the values of an HTTP/2 header, which arrive with any white space around them.
///
/// A target of HTTP/1 takes that off: it would read `admin` where a rule had seen ` admin` and let it pass.
///
/// # Errors
/// [`Ambiguous`]: a value that begins or ends with white space (RFC 9113 section 8.2.1).
pub fn check_values(headers: &HeaderMap) -> Result<(), Ambiguous> {
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let padded = |value: &HeaderValue| blank(value.as_bytes().first()) || blank(value.as_bytes().last());
    if headers.values().any(padded) { Err(Ambiguous) } else { Ok(()) }
}

/// Lines without their ends.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = Result<&'a [u8], Ambiguous>;

    fn next(&mut self) -> Option<Self::Item> {
        let end = memchr(b'\n', self.0)?;
        let (line, rest) = (&self.0[..end], &self.0[end + 1..]);
        self.0 = rest;
        // A bare LF ends a line to some, and is a part of it to others.
        Some(line.strip_suffix(b"\r").filter(|line| memchr(b'\r', line).is_none()).ok_or(Ambiguous))
    }
}

/// The target of a request line, and whether the line is one of HTTP/1.0.
fn request_line(line: &[u8]) -> Result<(&[u8], bool), Ambiguous> {
    let mut parts = line.split(|byte| *byte == b' ');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(_method), Some(target), Some(version), None) => Ok((target, version == b"HTTP/1.0")),
        _ => Err(Ambiguous),
    }
}

fn split(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = memchr(b':', line)?;
    let mut value = &line[colon + 1..];
    // White space is these two (RFC 9110 section 5.6.3); a form feed is one more to some.
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    Some((&line[..colon], value))
}

fn is_token(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|byte| TOKEN[usize::from(*byte)])
}

/// `uri-host [ ":" port ]` (RFC 9110 section 7.2), and nothing that could be a path, a user, a second host or a second port.
/// Empty where there is none to name.
fn is_host(value: &[u8]) -> bool {
    let (host, port) = match value {
        [b'[', rest @ ..] => {
            let Some(end) = memchr(b']', rest) else { return false };
            let (literal, port) = (&rest[..end], &rest[end + 1..]);
            let is_address =
                !literal.is_empty() && literal.iter().all(|byte| byte.is_ascii_hexdigit() || b":.".contains(byte));
            return is_address && (port.is_empty() || port.strip_prefix(b":").is_some_and(is_port));
        }
        _ => value.split_at(memchr(b':', value).unwrap_or(value.len())),
    };
    host.iter().all(|byte| HOST[usize::from(*byte)]) && port.strip_prefix(b":").is_none_or(is_port)
}

/// Digits of a port number; none at all mean the scheme's own.
fn is_port(digits: &[u8]) -> bool {
    let number = std::str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    number.is_some_and(|number| number.is_empty() || number.parse::<u16>().is_ok())
}

/// RFC 9110 section 5.6.2.
const TOKEN: [bool; 256] = alphanumeric_and(b"!#$%&'*+-.^_`|~");
/// `reg-name` without escapes (RFC 3986 section 3.2.2).
const HOST: [bool; 256] = alphanumeric_and(b"-._~!$&'()*+;=");

const fn alphanumeric_and(more: &[u8]) -> [bool; 256] {
    let mut allowed = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        allowed[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let mut at = 0;
    while at < more.len() {
        allowed[more[at] as usize] = true;
        at += 1;
    }
    allowed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(rest: &str) -> Result<(), Ambiguous> {
        check(format!("GET /api/a HTTP/1.1\r\n{rest}\r\n").as_bytes())
    }

    #[test]
    fn ordinary_headers_pass() {
        for rest in [
            "Host: a\r\n",
            "host: a:80\r\nContent-Length: 3\r\n",
            "Host: a:\r\n",
            "Host: [::ffff:192.0.2.1]\r\n",
            "Host: [::1]:80\r\ntransfer-encoding:  Chunked \r\n",
            "Host:\r\n",
            "Host: a\r\nX-Empty:\r\nX-Utf8: \u{e4}\r\n",
        ] {
            assert_eq!(with(rest), Ok(()), "{rest}");
        }
        assert_eq!(check(b"GET / HTTP/1.0\r\n\r\n"), Ok(()));
        assert_eq!(check(b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), Ok(()));
    }

    #[test]
    fn what_can_be_read_in_two_ways_does_not() {
        for rest in [
            "",
            "Host: a\r\nHost: a\r\n",
            "Host: a, b\r\n",
            "Host: a/b\r\n",
            "Host: u@a\r\n",
            "Host: a b\r\n",
            "Host: a:b\r\n",
            "Host: a:80:80\r\n",
            "Host: a:-1\r\n",
            "Host: a:65536\r\n",
            "Host: a%zz\r\n",
            "Host: a%2fb\r\n",
            "Host: [::1\r\n",
            "Host: [::1]80\r\n",
            "Host: [::1]:x\r\n",
            "Host: []\r\n",
            "Host: a]\r\n",
            "Host: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            "Host: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n",
            "Host: a\r\nContent-Length: 1, 1\r\n",
            "Host: a\r\nContent-Length: +1\r\n",
            "Host: a\r\nContent-Length:\r\n",
            "Host: a\r\nContent-Length: \x0c1\r\n",
            "Host: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Host: a\r\nTransfer-Encoding: gzip, chunked\r\n",
            "Host: a\r\nTransfer-Encoding: xchunked\r\n",
            "Host: a\r\nTransfer-Encoding : chunked\r\n",
            "Host: a\r\n folded\r\n",
            "Host: a\nX: b\r\n",
            "Host: a\r\nX: b\rc\r\n",
            "Host: a\r\nno colon\r\n",
        ] {
            assert_eq!(with(rest), Err(Ambiguous), "{rest:?}");
        }
        for cut in ["GET / HTTP/1.1\r\nHost: a\r\n", "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1"] {
            assert_eq!(check(cut.as_bytes()), Err(Ambiguous), "{cut:?}");
        }
        for line in ["GET /a#b HTTP/1.1", "GET /a  HTTP/1.1", "GET /a b HTTP/1.1", "GET /a"] {
            assert_eq!(check(format!("{line}\r\nHost: a\r\n\r\n").as_bytes()), Err(Ambiguous), "{line}");
        }
    }

    #[test]
    fn values_stand_without_white_space_around_them() {
        for (value, verdict) in [
            ("a", Ok(())),
            ("", Ok(())),
            ("a b\tc", Ok(())),
            (" a", Err(Ambiguous)),
            ("\ta", Err(Ambiguous)),
            ("a ", Err(Ambiguous)),
            ("a\t", Err(Ambiguous)),
            (" ", Err(Ambiguous)),
        ] {
            let mut headers = HeaderMap::new();
            headers.append("x", HeaderValue::from_static("first"));
            headers.append("x", HeaderValue::from_static(value));
            assert_eq!(check_values(&headers), verdict, "{value:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(bytes: Vec<u8>) {
            let _ = check(&bytes);
        }
    }
}
