//! The PROXY protocol, versions 1 and 2: a load balancer tells who its client is, before the first byte of TLS or HTTP.
//!
//! Taken only on listeners with `proxy_protocol: true` and only from `trusted_proxies`; there it is required, since a
//! listener that takes both lets everybody choose an address.

use std::io;
use std::net::IpAddr;

use ppp::{v1, v2};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The longest header of version 1, line break included.
const V1_LONGEST: usize = 107;
/// Signature, version, family and length of version 2.
const V2_FIXED: usize = 16;
/// Addresses take 216 bytes at most; extensions that nobody here reads get some room.
const V2_LONGEST: usize = 2048;
const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Reads the preamble, and nothing beyond it. `None`: the load balancer speaks for itself (a health check).
///
/// # Errors
/// When what comes is no preamble.
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<IpAddr>> {
    let mut head = vec![0; V2_SIGNATURE.len()];
    stream.read_exact(&mut head).await?;
    if head == V2_SIGNATURE { version_2(stream, head).await } else { version_1(stream, head).await }
}

async fn version_1(stream: &mut (impl AsyncRead + Unpin), mut line: Vec<u8>) -> io::Result<Option<IpAddr>> {
    if !line.starts_with(b"PROXY ") {
        return Err(malformed());
    }
    while !line.ends_with(b"\r\n") {
        if line.len() >= V1_LONGEST {
            return Err(malformed());
        }
        // Byte by byte: what follows the line is TLS's or HTTP's. The stream below reads ahead (`listen`).
        line.push(stream.read_u8().await?);
    }
    // Whatever else stands in such a line is to be ignored (section 2.1 of the protocol's text).
    if line.starts_with(b"PROXY UNKNOWN ") {
        return Ok(None);
    }
    match v1::Header::try_from(line.as_slice()).map_err(|_| malformed())?.addresses {
        v1::Addresses::Tcp4(addresses) => Ok(Some(addresses.source_address.into())),
        v1::Addresses::Tcp6(addresses) => Ok(Some(addresses.source_address.into())),
        v1::Addresses::Unknown => Ok(None),
    }
}

async fn version_2(stream: &mut (impl AsyncRead + Unpin), mut head: Vec<u8>) -> io::Result<Option<IpAddr>> {
    head.resize(V2_FIXED, 0);
    stream.read_exact(&mut head[V2_SIGNATURE.len()..]).await?;
    let length = usize::from(u16::from_be_bytes([head[14], head[15]]));
    if length > V2_LONGEST {
        return Err(malformed());
    }
    head.resize(V2_FIXED + length, 0);
    stream.read_exact(&mut head[V2_FIXED..]).await?;
    let header = v2::Header::try_from(head.as_slice()).map_err(|_| malformed())?;
    match (header.command, header.addresses) {
        (v2::Command::Local, _) | (_, v2::Addresses::Unspecified | v2::Addresses::Unix(_)) => Ok(None),
        (_, v2::Addresses::IPv4(addresses)) => Ok(Some(addresses.source_address.into())),
        (_, v2::Addresses::IPv6(addresses)) => Ok(Some(addresses.source_address.into())),
    }
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "no PROXY protocol header")
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn parse(bytes: &[u8]) -> (io::Result<Option<IpAddr>>, Vec<u8>) {
        let mut rest = bytes;
        let found = read(&mut rest).await;
        (found, rest.to_vec())
    }

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = V2_SIGNATURE.to_vec();
        bytes.extend([0x20 | command, family]);
        bytes.extend(u16::try_from(body.len()).expect("short").to_be_bytes());
        bytes.extend(body);
        bytes
    }

    #[tokio::test]
    async fn both_versions_name_the_client_and_leave_the_rest() {
        let v4 = [192, 0, 2, 7, 10, 0, 0, 1, 0x30, 0x39, 0, 80];
        let mut v6 = [0; 36];
        v6[15] = 9;
        for (bytes, client) in [
            (b"PROXY TCP4 192.0.2.7 10.0.0.1 12345 80\r\n".to_vec(), Some("192.0.2.7")),
            (b"PROXY TCP6 2001:db8::7 ::1 12345 80\r\n".to_vec(), Some("2001:db8::7")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN what is not known, or \xff\r\n".to_vec(), None),
            (v2(1, 0x11, &v4), Some("192.0.2.7")),
            (v2(1, 0x21, &v6), Some("::9")),
            (v2(0, 0, &[]), None),
        ] {
            let (found, rest) = parse(&[&bytes[..], b"GET / HTTP/1.1"].concat()).await;
            let client = client.map(|client| client.parse().expect("an address"));
            assert_eq!(found.expect("a preamble"), client, "{bytes:?}");
            assert_eq!(rest, b"GET / HTTP/1.1");
        }
    }

    #[tokio::test]
    async fn anything_else_is_refused() {
        let endless = [b"PROXY TCP4 ".to_vec(), vec![b'1'; 500]].concat();
        for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"PROXY TCP4 no\r\n", b"PROXY ", &endless, &v2(1, 0x11, &[1, 2])]
        {
            assert!(parse(bytes).await.0.is_err(), "{bytes:?}");
        }
    }
}
