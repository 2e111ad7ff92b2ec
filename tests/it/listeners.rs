//! TLS towards clients.

use std::net::SocketAddr;
use std::time::Instant;

use rustls::HandshakeKind;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::harness::edge::EdgeBuilder;
use crate::harness::tls::{Authority, Client, Identity};
use crate::harness::{Answer, Connection, Edge, H2Connection, Origin, PATIENCE, eventually, ms, within};

/// A listener with these certificates, `0.pem` and `0.key`, `1.pem` ...
fn with_tls(edge: EdgeBuilder, certificates: &[&Identity], more: &str) -> EdgeBuilder {
    let pairs: Vec<String> =
        (0..certificates.len()).map(|at| format!("{{ chain: {at}.pem, key: {at}.key }}")).collect();
    let edge = edge.unhurried().listener(&format!("tls: {{ certificates: [{}]{more} }}", pairs.join(", ")));
    certificates.iter().enumerate().fold(edge, |edge, (at, identity)| {
        edge.file(&format!("{at}.pem"), identity.pem.clone()).file(&format!("{at}.key"), identity.key_pem())
    })
}

/// Sends a request over TLS, and reads its answer.
async fn ask(edge: &Edge, client: &Client, name: &str) -> Answer {
    let stream = client.connect(edge.address(), name).await.expect("a handshake");
    Connection::over(stream).exchange(&edge.get("/api/demo/x").bearer("k1")).await
}

fn certificate(stream: &TlsStream<TcpStream>) -> Vec<u8> {
    stream.get_ref().1.peer_certificates().expect("a certificate")[0].to_vec()
}

/// The certificate that the next client is shown.
async fn shown(edge: &Edge, client: &Client, name: &str) -> Vec<u8> {
    certificate(&client.connect(edge.address(), name).await.expect("a handshake"))
}

#[tokio::test]
async fn the_http_version_is_agreed_on_in_the_handshake() {
    let (authority, origin) = (Authority::new(), Origin::replying(200).await);
    let edge = with_tls(Edge::to(&origin), &[&authority.certify("127.0.0.1")], "").start().await;
    for (offered, chosen) in [
        (&["h2", "http/1.1"][..], Some(&b"h2"[..])),
        (&["h2"], Some(b"h2")),
        (&["http/1.1"], Some(b"http/1.1")),
        (&[], None),
    ] {
        let client = authority.client(None).offering(offered);
        let stream = client.connect(edge.address(), "127.0.0.1").await.expect("a handshake");
        assert_eq!(stream.get_ref().1.alpn_protocol(), chosen);
        let request = edge.get("/api/demo/x").bearer("k1");
        let answer = match chosen {
            Some(b"h2") => H2Connection::over(stream).await.exchange(&request).await,
            _ => Connection::over(stream).exchange(&request).await,
        };
        answer.expect_granted(200).expect_body("ok");
        let seen = origin.requests().pop().expect("a request");
        assert_eq!(seen.header("x-forwarded-proto"), Some("https"));
        assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
    }
    let nobody = authority.client(None).offering(&["spdy/3"]).connect(edge.address(), "127.0.0.1").await;
    assert!(nobody.is_err(), "a client without a protocol in common");
    let lines = edge.access_log(4).await;
    let versions: Vec<_> = lines.iter().map(|line| (line["http"].as_str(), line["tls"].as_bool())).collect();
    assert_eq!(versions, ["2", "2", "1.1", "1.1"].map(|version| (Some(version), Some(true))));
}

#[tokio::test]
async fn the_name_that_a_client_asks_for_chooses_the_certificate() {
    let (authority, origin) = (Authority::new(), Origin::replying(200).await);
    let (first, named, wild) =
        (authority.certify("127.0.0.1"), authority.certify("api.one.test"), authority.certify("*.two.test"));
    let edge = with_tls(Edge::to(&origin), &[&first, &named, &wild], "").start().await;
    let client = authority.client(None);
    for (name, identity) in [
        ("127.0.0.1", &first), // an address: no name is sent
        ("api.one.test", &named),
        ("API.One.Test", &named),
        ("a.two.test", &wild),
        ("b.two.test", &wild),
    ] {
        assert_eq!(shown(&edge, &client, name).await, identity.der(), "{name}");
    }
    // The first one for everybody else, who does not believe it.
    for name in ["two.test", "a.b.two.test", "one.test"] {
        assert!(client.connect(edge.address(), name).await.is_err(), "{name}");
    }
    ask(&edge, &client, "a.two.test").await.expect_granted(200);
}

#[tokio::test]
async fn who_must_show_a_certificate_is_not_served_without() {
    let (authority, strangers, origin) = (Authority::new(), Authority::new(), Origin::replying(200).await);
    let edge = with_tls(Edge::to(&origin), &[&authority.certify("127.0.0.1")], ", client_ca: ca.pem")
        .file("ca.pem", authority.pem())
        .start()
        .await;
    let (ours, theirs) = (authority.certify("client.test"), strangers.certify("client.test"));
    ask(&edge, &authority.client(Some(&ours)), "127.0.0.1").await.expect_granted(200);
    let expired = authority.certify_expired("client.test");
    for identity in [None, Some(&theirs), Some(&expired), Some(&Identity::self_signed("client.test"))] {
        // In TLS 1.3 the client learns of it after its own side of the handshake.
        if let Ok(stream) = authority.client(identity).connect(edge.address(), "127.0.0.1").await {
            let mut client = Connection::over(stream);
            client.send(edge.get("/api/demo/x").bearer("k1").head()).await;
            assert!(client.rest().await.is_empty());
        }
    }
    assert_eq!(origin.requests().len(), 1);
    assert_eq!(edge.access_log(1).await.len(), 1, "who is not let in is no request");
}

/// A ClientHello that offers `version` and nothing newer: SSL 3.0 is 0x0300, TLS 1.2 0x0303.
fn hello(version: u16) -> Vec<u8> {
    let mut body = version.to_be_bytes().to_vec();
    body.extend([7; 32]); // the random bytes
    body.push(0); // no session
    body.extend([0, 8, 0xc0, 0x2b, 0xc0, 0x2f, 0xc0, 0x13, 0x00, 0x2f]); // cipher suites of every age
    body.extend([1, 0]); // no compression
    let extensions = [
        &[0, 10, 0, 4, 0, 2, 0, 23][..],        // P-256
        &[0, 11, 0, 2, 1, 0],                   // uncompressed points
        &[0, 13, 0, 8, 0, 6, 4, 3, 8, 4, 4, 1], // ECDSA, RSA-PSS, RSA with SHA-256
    ]
    .concat();
    body.extend((extensions.len() as u16).to_be_bytes());
    body.extend(extensions);
    let mut message = vec![1, 0];
    message.extend((body.len() as u16).to_be_bytes());
    message.extend(body);
    let mut record = vec![22, 3, 1];
    record.extend((message.len() as u16).to_be_bytes());
    record.extend(message);
    record
}

#[tokio::test]
async fn nothing_below_tls_1_2_is_spoken() {
    const HANDSHAKE: u8 = 22;
    const PROTOCOL_VERSION: [u8; 7] = [21, 3, 3, 0, 2, 2, 70];
    let (authority, origin) = (Authority::new(), Origin::replying(200).await);
    let edge = with_tls(Edge::to(&origin), &[&authority.certify("127.0.0.1")], "").start().await;
    for version in [0x0300, 0x0301, 0x0302] {
        let mut client = edge.connect().await;
        let refused = client.send(hello(version)).await.rest().await;
        assert_eq!(refused, PROTOCOL_VERSION, "{version:x}");
    }
    assert_eq!(edge.connect().await.send(hello(0x0303)).await.bytes(1).await, [HANDSHAKE]);
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        ask(&edge, &authority.client_of(version), "127.0.0.1").await.expect_granted(200);
    }
}

#[tokio::test]
async fn a_client_resumes_its_session_and_a_reload_does_not_make_it_forgotten() {
    let (authority, origin) = (Authority::new(), Origin::replying(200).await);
    let edge = with_tls(Edge::to(&origin), &[&authority.certify("127.0.0.1")], "").start().await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let client = authority.client_of(version);
        for (attempt, kind) in [HandshakeKind::Full, HandshakeKind::Resumed, HandshakeKind::Resumed].iter().enumerate()
        {
            let stream = client.connect(edge.address(), "127.0.0.1").await.expect("a handshake");
            assert_eq!(stream.get_ref().1.handshake_kind().as_ref(), Some(kind), "{version:?}, attempt {attempt}");
            // The ticket of TLS 1.3 comes with what is read first.
            let answer = Connection::over(stream).exchange(&edge.get("/api/demo/x").bearer("k1")).await;
            answer.expect_granted(200);
            let generation = edge.metric("requestrocket_config_generation").await.expect("a gauge");
            edge.signal("HUP");
            eventually("a reload", async || {
                edge.metric("requestrocket_config_generation").await.is_some_and(|now| now > generation)
            })
            .await;
        }
    }
}

fn expiry_series(edge: &Edge) -> String {
    let listener = edge.address();
    format!("requestrocket_certificate_expiry_timestamp_seconds{{certificate=\"0.pem\",listener=\"{listener}\"}}")
}

#[tokio::test]
async fn a_renewed_certificate_serves_the_next_connection() {
    const END_OF_2029: f64 = 1_893_456_000.0;
    const END_OF_2030: f64 = 1_924_992_000.0;
    let (authority, origin) = (Authority::new(), Origin::replying(200).await);
    let (old, new) = (authority.certify_until("127.0.0.1", 2030), authority.certify_until("127.0.0.1", 2031));
    let edge = with_tls(Edge::to(&origin), &[&old], "").start().await;
    let client = authority.client(None);
    let stream = client.connect(edge.address(), "127.0.0.1").await.expect("a handshake");
    assert_eq!(certificate(&stream), old.der());
    let mut open = Connection::over(stream);
    let request = edge.get("/api/demo/x").bearer("k1");
    open.exchange(&request).await.expect_granted(200).expect_reusable();
    let http2 = authority.client(None).offering(&["h2"]).connect(edge.address(), "127.0.0.1").await.expect("h2");
    let http2 = H2Connection::over(http2).await;
    http2.exchange(&request).await.expect_granted(200);
    assert_eq!(edge.metric(&expiry_series(&edge)).await, Some(END_OF_2029));

    edge.write("0.key", new.key_pem());
    edge.write("0.pem", &new.pem);
    eventually("the new certificate", async || shown(&edge, &client, "127.0.0.1").await == new.der()).await;
    assert_eq!(edge.metric(&expiry_series(&edge)).await, Some(END_OF_2030));
    let certificate = &edge.admin("/status").await.json()["listeners"][0]["certificates"][0];
    assert_eq!(certificate["expires"], "2031-01-01T00:00:00Z");
    // Connections that were open go on.
    open.exchange(&request).await.expect_granted(200).expect_reusable();
    http2.exchange(&request).await.expect_granted(200);
    ask(&edge, &client, "127.0.0.1").await.expect_granted(200);
}

#[tokio::test]
async fn a_certificate_without_its_key_changes_nothing_and_is_said() {
    let (authority, origin) = (Authority::new(), Origin::replying(200).await);
    let (old, new) = (authority.certify("127.0.0.1"), authority.certify("127.0.0.1"));
    let edge = with_tls(Edge::to(&origin), &[&old], "").start().await;
    let client = authority.client(None);
    edge.write("0.pem", &new.pem);
    edge.signal("HUP");
    eventually("the problem", async || edge.metric("requestrocket_config_last_reload_successful").await == Some(0.0))
        .await;
    assert!(edge.stderr().contains("0.key"), "{}", edge.stderr());
    assert_eq!(shown(&edge, &client, "127.0.0.1").await, old.der());
    ask(&edge, &client, "127.0.0.1").await.expect_granted(200);
    for nonsense in ["no certificate\n", ""] {
        edge.write("0.pem", nonsense);
        edge.signal("HUP");
        eventually("the problem", async || edge.stderr().contains("holds no certificate")).await;
        assert_eq!(shown(&edge, &client, "127.0.0.1").await, old.der());
    }
    // With the key it belongs together.
    edge.write("0.pem", &new.pem);
    edge.write("0.key", new.key_pem());
    edge.signal("HUP");
    eventually("the new certificate", async || shown(&edge, &client, "127.0.0.1").await == new.der()).await;
    assert_eq!(edge.metric("requestrocket_config_last_reload_successful").await, Some(1.0));
}

/// Waits until the edge closes, which must be about `header_timeout` (500 ms) after `since`.
async fn dropped(what: &str, mut client: Connection, since: Instant) {
    within(PATIENCE, what, client.rest()).await;
    let took = since.elapsed();
    assert!(took >= ms(400) && took < ms(2500), "{what}: dropped after {took:?}");
}

#[tokio::test]
async fn a_client_that_falls_silent_is_dropped() {
    let (authority, origin) = (Authority::new(), Origin::replying(200).await);
    let edge = with_tls(Edge::to(&origin), &[&authority.certify("127.0.0.1")], "")
        .edge("limits: { header_timeout: 500ms }")
        .start()
        .await;
    let address: SocketAddr = edge.address();
    let (http1, http2) = (authority.client(None).offering(&["http/1.1"]), authority.client(None).offering(&["h2"]));
    let since = Instant::now();

    let connected = edge.connect().await;
    let mut half_way = edge.connect().await;
    half_way.send(&hello(0x0303)[..40]).await;
    let mut no_key = edge.connect().await;
    no_key.send(hello(0x0303)).await;
    let without_request = Connection::over(http1.connect(address, "127.0.0.1").await.expect("a handshake"));
    let without_preface = Connection::over(http2.connect(address, "127.0.0.1").await.expect("a handshake"));
    let mut without_stream = Connection::over(http2.connect(address, "127.0.0.1").await.expect("a handshake"));
    without_stream.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    let mut half_a_header = Connection::over(http1.connect(address, "127.0.0.1").await.expect("a handshake"));
    half_a_header.send("GET /api/demo/x HTTP/1.1\r\nHost: edge").await;

    tokio::join!(
        dropped("after connecting", connected, since),
        dropped("within its first message", half_way, since),
        dropped("within the handshake", no_key, since),
        dropped("before a request", without_request, since),
        dropped("before the preface", without_preface, since),
        dropped("before a stream", without_stream, since),
        dropped("within a header", half_a_header, since),
    );
    ask(&edge, &http1, "127.0.0.1").await.expect_granted(200);
    eventually("nobody is connected", async || edge.metric("requestrocket_client_connections").await == Some(0.0))
        .await;
}

#[tokio::test]
async fn a_handshake_that_drips_is_dropped() {
    let (authority, origin) = (Authority::new(), Origin::replying(200).await);
    let edge = with_tls(Edge::to(&origin), &[&authority.certify("127.0.0.1")], "")
        .edge("limits: { header_timeout: 500ms }")
        .start()
        .await;
    let mut client = edge.connect().await;
    let since = Instant::now();
    for byte in hello(0x0303).chunks(1).take(8) {
        client.send(byte).await;
        tokio::time::sleep(ms(100)).await;
    }
    dropped("drip by drip", client, since).await;
}

#[tokio::test]
async fn plain_text_is_not_served_on_a_tls_listener() {
    let (authority, origin) = (Authority::new(), Origin::replying(200).await);
    let edge = with_tls(Edge::to(&origin), &[&authority.certify("127.0.0.1")], "").start().await;
    let mut client = edge.connect().await;
    let said = client.send(edge.get("/api/demo/x").bearer("k1").head()).await.rest().await;
    assert!(!said.starts_with(b"HTTP/"), "{:?}", String::from_utf8_lossy(&said));
    assert!(origin.requests().is_empty());
}
