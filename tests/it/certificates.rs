//! Targets behind TLS: who they are is always verified.

use crate::harness::tls::{Authority, Identity};
use crate::harness::{Edge, Origin, ms};

#[tokio::test]
async fn a_tls_handshake_that_never_ends_is_a_504() {
    let origin = Origin::silent().await;
    let url = format!("https://{}", origin.address());
    for limit in ["timeout: 500ms", "timeout: 5s, connect_timeout: 500ms"] {
        let edge = Edge::to(url.as_str()).proxy(limit).start().await;
        let answer = edge.get("/api/demo/x").bearer("k1").await;
        answer.expect_status(504).expect_within(ms(1000)).expect_proxy_error("connection_timeout");
    }
}

#[tokio::test]
async fn a_verified_target_is_reached_by_tls() {
    let authority = Authority::new();
    let tls = authority.certify("127.0.0.1").acceptor(&[]);
    let origin =
        Origin::secure(tls, |peer| peer.keep_saying(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec().into()))
            .await;
    let edge = Edge::to(&origin).target("tls: { ca: ca.pem }").file("proxies.d/ca.pem", authority.pem()).start().await;
    edge.get("/api/demo/x").bearer("k1").await.expect_granted(200).expect_body("ok");
    assert_eq!(origin.request().header("authorization"), Some("Bearer t1"));
}

#[tokio::test]
async fn a_target_that_cannot_prove_its_name_is_a_502() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    for (name, identity) in [
        ("wrong name", authority.certify("127.0.0.2")),
        ("expired", authority.certify_expired("127.0.0.1")),
        ("self-signed", Identity::self_signed("127.0.0.1")),
        ("another authority's", stranger.certify("127.0.0.1")),
    ] {
        let origin = Origin::secure(identity.acceptor(&[]), |peer| peer.silence()).await;
        let edge =
            Edge::to(&origin).target("tls: { ca: ca.pem }").file("proxies.d/ca.pem", authority.pem()).start().await;
        let answer = edge.get("/api/demo/x").bearer("k1").await;
        assert_eq!(answer.status, 502, "{name}: {answer:?}");
        answer.expect_unreachable("tls", "tls_certificate_error");
        assert!(origin.requests().is_empty(), "{name}");
    }
}

#[tokio::test]
async fn the_systems_roots_do_not_vouch_for_a_private_authority() {
    let authority = Authority::new();
    let origin = Origin::secure(authority.certify("127.0.0.1").acceptor(&[]), |peer| peer.silence()).await;
    let edge = Edge::to(&origin).start().await;
    edge.get("/api/demo/x").bearer("k1").await.expect_unreachable("tls", "tls_certificate_error");
}

#[tokio::test]
async fn a_client_certificate_is_shown_where_one_is_configured() {
    let authority = Authority::new();
    let tls = authority.demand_certificate(&authority.certify("127.0.0.1"));
    let origin =
        Origin::secure(tls, |peer| peer.keep_saying(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec().into()))
            .await;
    let ours = authority.certify("edge.test");
    let edge = Edge::to(&origin)
        .target("tls: { ca: ca.pem, client_certificate: { chain: edge.pem, key: edge.key } }")
        .file("proxies.d/ca.pem", authority.pem())
        .file("proxies.d/edge.pem", ours.pem.clone())
        .file("proxies.d/edge.key", ours.key_pem())
        .start()
        .await;
    edge.get("/api/demo/x").bearer("k1").await.expect_granted(200);

    let edge = Edge::to(&origin).target("tls: { ca: ca.pem }").file("proxies.d/ca.pem", authority.pem()).start().await;
    edge.get("/api/demo/x").bearer("k1").await.expect_status(502).expect_whole();
    assert_eq!(origin.requests().len(), 1);
}

#[tokio::test]
async fn tls_spoken_to_a_plain_target_is_a_502() {
    let origin = Origin::scripted(|mut peer| async move {
        peer.read().await;
        peer.send("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
    })
    .await;
    let edge = Edge::to(format!("https://{}", origin.address())).start().await;
    let answer = edge.get("/api/demo/x").bearer("k1").await;
    answer.expect_status(502).expect_header("requestrocket-proxy-message", "Target could not be reached: tls");
}
