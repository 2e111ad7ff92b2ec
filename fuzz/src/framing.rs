//! `request::framing`: what passes is read alike by a strict and by a careless reader.

use requestrocket_edge::request::framing;

use super::shown;

/// The fields by which a request ends, and by which it finds its server.
const FIELDS: [&[u8]; 3] = [b"host", b"content-length", b"transfer-encoding"];

/// The input is the header of an HTTP/1 request.
pub fn check(header: &[u8]) {
    if framing::check(header).is_err() {
        return;
    }
    let (strict, careless) = (strict(header), careless(header));
    assert_eq!(strict, careless, "{}", shown(header));
    let of = |name: &[u8]| strict.iter().filter(|(field, _)| field == name).map(|(_, value)| value).collect::<Vec<_>>();
    let (lengths, codings) = (of(b"content-length"), of(b"transfer-encoding"));
    assert!(lengths.len() + codings.len() <= 1, "{}", shown(header));
    assert!(
        lengths.iter().all(|length| !length.is_empty() && length.iter().all(u8::is_ascii_digit)),
        "{}",
        shown(header)
    );
    assert!(codings.iter().all(|coding| coding.as_slice() == b"chunked"), "{}", shown(header));
    let hosts = of(b"host");
    let line = header.strip_prefix(b"\r\n").unwrap_or(header).split(|byte| *byte == b'\r').next().unwrap_or_default();
    assert!(hosts.len() == 1 || (hosts.is_empty() && line.ends_with(b" HTTP/1.0")), "{}", shown(header));
    assert!(hosts.iter().all(|host| !host.iter().any(|byte| b"/@, \t?#\\".contains(byte))), "{}", shown(header));
    let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    assert!(words.len() == 3 && !words[1].contains(&b'#'), "{}", shown(header));
}

/// Lines end in CR LF, names in the colon; the first empty line is the end.
fn strict(header: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let text = header.strip_prefix(b"\r\n").unwrap_or(header);
    let mut lines: Vec<&[u8]> = Vec::new();
    let mut start = 0;
    for end in 0..text.len() {
        if text[end..].starts_with(b"\r\n") {
            lines.push(&text[start..end]);
            start = end + 2;
        }
    }
    let fields = lines.into_iter().skip(1).take_while(|line| !line.is_empty());
    fields.filter_map(|line| field(line, b"", b" \t")).collect()
}

/// Lines end in CR, LF or both, and may be folded; names and values have any white space around them.
fn careless(header: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let text = String::from_utf8_lossy(header.strip_prefix(b"\r\n").unwrap_or(header));
    let mut lines: Vec<String> = Vec::new();
    for line in text.replace("\r\n", "\n").replace('\r', "\n").split('\n').skip(1) {
        if line.trim().is_empty() {
            break;
        }
        match lines.last_mut() {
            Some(last) if line.starts_with([' ', '\t']) => last.push_str(line),
            _ => lines.push(line.to_owned()),
        }
    }
    let space = b" \t\x0b\x0c\0";
    lines.iter().filter_map(|line| field(line.as_bytes(), space, space)).collect()
}

fn field(line: &[u8], space_in_name: &[u8], space_in_value: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let name = trim(&line[..colon], space_in_name).to_ascii_lowercase();
    let value = trim(&line[colon + 1..], space_in_value).to_ascii_lowercase();
    FIELDS.contains(&&*name).then_some((name, value))
}

fn trim<'t>(text: &'t [u8], space: &[u8]) -> &'t [u8] {
    let is_text = |byte: &u8| !space.contains(byte);
    let start = text.iter().position(is_text).unwrap_or(text.len());
    let end = text.iter().rposition(is_text).map_or(start, |last| last + 1);
    &text[start..end]
}
