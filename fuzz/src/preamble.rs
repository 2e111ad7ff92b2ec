//! `proxy::preamble`: whoever a load balancer names is read as the PROXY protocol's text has it, and not a byte after it is taken.

use std::future::Future as _;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use requestrocket_edge::proxy::preamble;

use super::shown;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// The input is the first bytes of a connection.
pub fn check(input: &[u8]) {
    let (found, taken) = read(input);
    let expected = if input.starts_with(SIGNATURE) { version_2(input) } else { version_1(input) };
    match (found, expected) {
        (Err(_), None) => {}
        (Ok(client), Some((expected, length))) => {
            assert_eq!(client, expected, "{}", shown(input));
            assert_eq!(taken, length, "{}", shown(input));
            // Nothing that follows changes what was read.
            let (again, taken) = read(&[&input[..length], b"\r\nPROXY \0"].concat());
            assert_eq!((again.ok(), taken), (Some(client), length), "{}", shown(input));
        }
        (found, expected) => panic!("{}: {found:?}, not {expected:?}", shown(input)),
    }
    assert!(taken <= 16 + 2048, "{}", shown(input));
}

/// What is read, and how many bytes that takes.
fn read(input: &[u8]) -> (io::Result<Option<IpAddr>>, usize) {
    let mut rest = input;
    let found = {
        let reading = pin!(preamble::read(&mut rest));
        match reading.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(found) => found,
            Poll::Pending => panic!("bytes in memory are never waited for: {}", shown(input)),
        }
    };
    (found, input.len() - rest.len())
}

/// `PROXY TCP4 source destination port port`, or `PROXY UNKNOWN` and anything. Nobody looks at the ports; `+80` will do.
fn version_1(input: &[u8]) -> Option<(Option<IpAddr>, usize)> {
    let end = input.windows(2).position(|end| end == b"\r\n").filter(|end| end + 2 <= 107)?;
    let line = &input[..end];
    if line == b"PROXY UNKNOWN" || line.starts_with(b"PROXY UNKNOWN ") {
        return Some((None, end + 2));
    }
    let parts: Vec<&str> = std::str::from_utf8(line).ok()?.split(' ').collect();
    let port = |text: &str| text.parse::<u16>().is_ok() && (text == "0" || !text.starts_with('0'));
    let client: IpAddr = match parts.as_slice() {
        ["PROXY", "TCP4", source, destination, from, to] if port(from) && port(to) => {
            destination.parse::<Ipv4Addr>().ok()?;
            source.parse::<Ipv4Addr>().ok()?.into()
        }
        ["PROXY", "TCP6", source, destination, from, to] if port(from) && port(to) => {
            destination.parse::<Ipv6Addr>().ok()?;
            source.parse::<Ipv6Addr>().ok()?.into()
        }
        _ => return None,
    };
    Some((Some(client), end + 2))
}

/// Signature, version and command, family and protocol, length, addresses, extensions.
fn version_2(input: &[u8]) -> Option<(Option<IpAddr>, usize)> {
    let (&[command, family, high, low], body) = input[12..].split_first_chunk()?;
    let length = usize::from(high) << 8 | usize::from(low);
    let body = body.get(..length).filter(|_| length <= 2048)?;
    let needed = match family >> 4 {
        0 => 0,
        1 => 12,
        2 => 36,
        3 => 216,
        _ => return None,
    };
    if command >> 4 != 2 || command & 0xf > 1 || family & 0xf > 2 || body.len() < needed {
        return None;
    }
    let client = match (command & 0xf, family >> 4) {
        (1, 1) => Some(IpAddr::from(<[u8; 4]>::try_from(&body[..4]).expect("four bytes"))),
        (1, 2) => Some(IpAddr::from(<[u8; 16]>::try_from(&body[..16]).expect("sixteen bytes"))),
        _ => None,
    };
    Some((client, 16 + length))
}
