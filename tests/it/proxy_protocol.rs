//! The PROXY protocol: who the client is, as a trusted load balancer tells it.

use std::time::Instant;

use tokio::net::TcpStream;

use crate::harness::edge::EdgeBuilder;
use crate::harness::tls::Authority;
use crate::harness::{Connection, Edge, H2Connection, Origin, ms};

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

/// A header of version 2.
fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = SIGNATURE.to_vec();
    bytes.extend([0x20 | command, family]);
    bytes.extend((body.len() as u16).to_be_bytes());
    bytes.extend(body);
    bytes
}

/// Every way to say it, and the client that is meant.
fn preambles() -> Vec<(Vec<u8>, &'static str)> {
    let four = [192, 0, 2, 7, 10, 0, 0, 1, 0x30, 0x39, 0, 80];
    let mut six = vec![0x20, 0x01, 0x0d, 0xb8];
    six.resize(32, 0);
    six[15] = 7;
    six.extend([0x30, 0x39, 0, 80]);
    // Extensions: a unique id of the connection, and one that nobody knows.
    let extended = [&four[..], &[5, 0, 3, 1, 2, 3], &[0xe7, 0, 100], &[0; 100]].concat();
    vec![
        (b"PROXY TCP4 192.0.2.7 10.0.0.1 12345 80\r\n".to_vec(), "192.0.2.7"),
        (b"PROXY TCP6 2001:db8::7 2001:db8::1 12345 80\r\n".to_vec(), "2001:db8::7"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n".to_vec(), "127.0.0.1"),
        (v2(1, TCP4, &four), "192.0.2.7"),
        (v2(1, TCP4, &extended), "192.0.2.7"),
        (v2(1, TCP6, &six), "2001:db8::7"),
        (v2(0, 0, &[]), "127.0.0.1"),
        (v2(0, TCP4, &four), "127.0.0.1"), // LOCAL: what follows does not count
    ]
}

fn behind_balancers(origin: &Origin) -> EdgeBuilder {
    Edge::to(origin)
        .unhurried()
        .listener("proxy_protocol: true")
        .edge("trusted_proxies: [127.0.0.1]\nlimits: { header_timeout: 500ms }")
}

#[tokio::test]
async fn the_client_that_a_balancer_names_is_the_client() {
    let origin = Origin::replying(200).await;
    let edge = behind_balancers(&origin).listener("http2: cleartext").start().await;
    let request = edge.get("/api/demo/x").bearer("k1").header("X-Forwarded-For", "198.51.100.9");
    let preambles = preambles();
    for (preamble, client) in &preambles {
        for http2 in [false, true] {
            let answer = if http2 {
                let mut stream = TcpStream::connect(edge.address()).await.expect("the edge listens");
                tokio::io::AsyncWriteExt::write_all(&mut stream, preamble).await.expect("a socket with room");
                H2Connection::over(stream).await.exchange(&request).await
            } else {
                let mut connection = edge.connect().await;
                connection.send(preamble).await.exchange(&request).await
            };
            answer.expect_granted(200);
            let seen = origin.requests().pop().expect("a request");
            // A client that speaks for itself is no trusted proxy; a balancer that does is one.
            let forwarded = if *client == "127.0.0.1" { "198.51.100.9, 127.0.0.1" } else { client };
            assert_eq!(seen.header("x-forwarded-for"), Some(forwarded), "{preamble:?}");
            assert_eq!(seen.header("x-forwarded-proto"), Some("http"));
        }
    }
    for (at, line) in edge.access_log(2 * preambles.len()).await.iter().enumerate() {
        let client = match preambles[at / 2].1 {
            "127.0.0.1" => "198.51.100.9", // a trusted proxy's word
            client => client,
        };
        assert_eq!(line["client"], client, "{line}");
    }
}

#[tokio::test]
async fn it_comes_before_tls() {
    let (authority, origin) = (Authority::new(), Origin::replying(200).await);
    let identity = authority.certify("127.0.0.1");
    let edge = behind_balancers(&origin)
        .listener("tls: { certificates: [{ chain: own.pem, key: own.key }] }")
        .file("own.pem", identity.pem.clone())
        .file("own.key", identity.key_pem())
        .start()
        .await;
    let request = edge.get("/api/demo/x").bearer("k1");
    for (preamble, client) in preambles() {
        for protocol in ["http/1.1", "h2"] {
            let mut stream = TcpStream::connect(edge.address()).await.expect("the edge listens");
            tokio::io::AsyncWriteExt::write_all(&mut stream, &preamble).await.expect("a socket with room");
            let tls = authority.client(None).offering(&[protocol]);
            let stream = tls.handshake(stream, "127.0.0.1").await.expect("a handshake");
            let answer = match protocol {
                "h2" => H2Connection::over(stream).await.exchange(&request).await,
                _ => Connection::over(stream).exchange(&request).await,
            };
            answer.expect_granted(200);
            let seen = origin.requests().pop().expect("a request");
            assert_eq!(seen.header("x-forwarded-for"), Some(client), "{preamble:?}");
            assert_eq!(seen.header("x-forwarded-proto"), Some("https"));
        }
    }
    // Within TLS it is only an HTTP request that makes no sense.
    let mut stream = TcpStream::connect(edge.address()).await.expect("the edge listens");
    tokio::io::AsyncWriteExt::write_all(&mut stream, b"PROXY UNKNOWN\r\n").await.expect("a socket with room");
    let stream = authority.client(None).handshake(stream, "127.0.0.1").await.expect("a handshake");
    let mut client = Connection::over(stream);
    client.send("PROXY TCP4 192.0.2.7 10.0.0.1 12345 80\r\n").await.exchange(&request).await.expect_status(400);
}

#[tokio::test]
async fn a_preamble_may_come_in_pieces() {
    let origin = Origin::replying(200).await;
    let edge = behind_balancers(&origin).start().await;
    for (preamble, _) in preambles() {
        let mut client = edge.connect().await;
        for piece in preamble.chunks(preamble.len().div_ceil(4)) {
            client.send(piece).await;
            tokio::time::sleep(ms(10)).await;
        }
        client.exchange(&edge.get("/api/demo/x").bearer("k1")).await.expect_granted(200);
    }
}

#[tokio::test]
async fn what_is_no_preamble_is_not_answered() {
    let origin = Origin::replying(200).await;
    let edge = behind_balancers(&origin).start().await;
    let request = edge.get("/api/demo/x").bearer("k1").head();
    let endless = [&b"PROXY TCP4 "[..], &vec![b'1'; 10_000]].concat();
    let mut too_long = v2(1, TCP4, &[0; 12]);
    too_long[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
    let mut of_another_version = v2(1, TCP4, &[0; 12]);
    of_another_version[12] = 0x31;
    for nonsense in [
        &request[..],
        &b"PROXY TCP4 192.0.2.7\r\n"[..],
        b"PROXY TCP4 999.0.2.7 10.0.0.1 1 2\r\n",
        b"PROXY TCP4 2001:db8::7 10.0.0.1 1 2\r\n",
        b"PROXY TCP4 192.0.2.7 10.0.0.1 1 99999\r\n",
        b"proxy TCP4 192.0.2.7 10.0.0.1 1 2\r\n",
        b"PROXY TCP4 192.0.2.7 10.0.0.1 1 2\n",
        b"PROXY \r\n",
        b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        &endless,
        &v2(1, TCP4, &[1, 2]),
        &too_long,
        &of_another_version,
    ] {
        let mut client = edge.connect().await;
        let since = Instant::now();
        client.send(nonsense).await.send(&request).await;
        let said = client.rest().await;
        assert!(said.is_empty(), "{:?} got {:?}", nonsense, String::from_utf8_lossy(&said));
        assert!(since.elapsed() < ms(2500), "{nonsense:?}: {:?}", since.elapsed());
    }
    // Nor is who says nothing, or stops on the way.
    for beginning in [&b""[..], b"PROXY TCP4 192", &SIGNATURE[..], &v2(1, TCP4, &[0; 12])[..20]] {
        let mut client = edge.connect().await;
        let since = Instant::now();
        client.send(beginning).await;
        assert!(client.rest().await.is_empty());
        assert!(since.elapsed() >= ms(400) && since.elapsed() < ms(2500), "{beginning:?}: {:?}", since.elapsed());
    }
    assert!(origin.requests().is_empty());
}

#[tokio::test]
async fn only_trusted_proxies_may_speak_for_others() {
    let origin = Origin::replying(200).await;
    let edge = behind_balancers(&origin).start().await;
    let request = edge.get("/api/demo/x").bearer("k1").head();
    for preamble in [&b""[..], b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n", b"PROXY UNKNOWN\r\n"] {
        let mut stranger = Connection::from("127.0.0.2", edge.address()).await;
        let said = stranger.send(preamble).await.send(&request).await.rest().await;
        assert!(said.is_empty(), "{:?}", String::from_utf8_lossy(&said));
    }
    assert!(origin.requests().is_empty());
}

#[tokio::test]
async fn without_the_setting_a_preamble_is_a_bad_request() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).unhurried().edge("trusted_proxies: [127.0.0.1]").start().await;
    for (preamble, client) in preambles() {
        if client == "127.0.0.1" {
            continue;
        }
        let mut client = edge.connect().await;
        client.send(&preamble).await.send(edge.get("/api/demo/x").bearer("k1").head()).await;
        let said = client.rest().await;
        let said = String::from_utf8_lossy(&said);
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 400"), "{said}");
    }
    assert!(origin.requests().is_empty());
}
