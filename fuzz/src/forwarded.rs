//! `proxy::exchange`: behind trusted proxies the client is the last address that none of them has; a client cannot choose it.
//!
//! The input is lines, each the value of one `X-Forwarded-For` field.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderValue};
use requestrocket_edge::proxy::exchange::client_behind;

use super::shown;

const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

fn trusts(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(address) if address.octets()[0] == 10)
}

/// The input is what came in `X-Forwarded-For`.
pub fn check(input: &[u8]) {
    let mut headers = HeaderMap::new();
    for value in input.split(|byte| *byte == b'\n').filter_map(|line| HeaderValue::from_bytes(line).ok()) {
        headers.append("x-forwarded-for", value);
    }
    let client = client_behind(PEER, &headers, trusts);
    assert_eq!(client, expected(&headers), "{}", shown(input));

    // Whatever stands before it, what the trusted proxy wrote last counts.
    headers.append("x-forwarded-for", HeaderValue::from_static("198.51.100.9, 10.1.2.3"));
    assert_eq!(client_behind(PEER, &headers, trusts), IpAddr::from([198, 51, 100, 9]), "{}", shown(input));
    assert_eq!(client_behind(client, &headers, |_| false), client, "{}", shown(input));
}

/// All entries in one line, from the right, for as long as they are trusted.
fn expected(headers: &HeaderMap) -> IpAddr {
    let mut entries = Vec::new();
    for value in headers.get_all("x-forwarded-for") {
        // A field that is not plain text is one entry that nobody can read.
        entries.extend(value.to_str().unwrap_or_default().split(',').map(|entry| entry.trim().to_owned()));
    }
    let mut client = PEER;
    while let Some(entry) = entries.pop()
        && trusts(client)
    {
        match address(&entry) {
            Some(address) => client = address,
            None => break,
        }
    }
    client
}

/// `address`, `[address]`, `address:port` or `[address]:port`; `::ffff:10.0.0.1` is `10.0.0.1`.
fn address(entry: &str) -> Option<IpAddr> {
    let in_brackets = entry.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address: Option<IpAddr> = entry.parse().ok().or_else(|| in_brackets?.parse().ok());
    match address.or_else(|| Some(entry.parse::<SocketAddr>().ok()?.ip()))? {
        IpAddr::V6(address) => Some(address.to_ipv4_mapped().map_or(address.into(), IpAddr::from)),
        address => Some(address),
    }
}
