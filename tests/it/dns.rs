//! Names of targets: resolved by TTL, tried in turn, kept for a while when the name server is gone.

use crate::harness::dns::{NameServer, Record};
use crate::harness::tls::Authority;
use crate::harness::{Edge, Origin, eventually, ms};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn url(origin: &Origin) -> String {
    format!("http://origin.test:{}", origin.port())
}

#[tokio::test]
async fn a_name_is_resolved_and_kept_as_host() {
    let names = NameServer::start().await;
    names.addresses("origin.test", 60, &["127.0.0.1"]);
    let origin = Origin::replying(200).await;
    let edge = Edge::to(url(&origin)).edge(&names.yaml()).start().await;
    for _ in 0..10 {
        edge.get("/api/demo/x").bearer("k1").await.expect_granted(200);
    }
    assert_eq!(origin.requests()[0].header("host"), Some(format!("origin.test:{}", origin.port()).as_str()));
    assert!(names.queries() <= 4, "{} queries for ten requests within the TTL", names.queries());
}

#[tokio::test]
async fn a_name_is_asked_for_again_when_its_time_is_over() {
    let names = NameServer::start().await;
    names.addresses("origin.test", 1, &["127.0.0.1"]);
    let first = Origin::replying(200).await;
    let Some(second) = origin_at(&format!("127.0.0.2:{}", first.port())).await else { return };
    let edge = Edge::to(url(&first)).edge(&names.yaml()).start().await;
    edge.get("/api/demo/x").bearer("k1").await.expect_granted(200);
    names.addresses("origin.test", 1, &["127.0.0.2"]);
    eventually("the new address", async || {
        edge.get("/api/demo/x").bearer("k1").await.expect_granted(200);
        tokio::time::sleep(ms(200)).await;
        !second.requests().is_empty()
    })
    .await;
    let before = first.requests().len();
    edge.get("/api/demo/x").bearer("k1").await.expect_granted(200);
    assert_eq!(first.requests().len(), before, "nothing goes to the old address any more");
}

#[tokio::test]
async fn several_addresses_are_tried_in_turn() {
    let names = NameServer::start().await;
    // Nobody listens on the first two.
    names.addresses("origin.test", 60, &["127.0.0.3", "127.0.0.4", "127.0.0.1"]);
    let origin = Origin::replying(200).await;
    let edge = Edge::to(url(&origin)).edge(&names.yaml()).start().await;
    for _ in 0..6 {
        edge.post("/api/demo/x").bearer("k1").body("b").await.expect_granted(200);
    }
    assert_eq!(origin.requests().len(), 6);
}

#[tokio::test]
async fn an_ipv6_address_is_as_good() {
    let names = NameServer::start().await;
    names.addresses("origin.test", 60, &["::1"]);
    let origin = Origin::start("[::1]:0", None, |peer| peer.keep_saying(OK.to_vec().into())).await;
    let edge = Edge::to(url(&origin)).edge(&names.yaml()).start().await;
    edge.get("/api/demo/x").bearer("k1").await.expect_granted(200);
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_a_502() {
    let names = NameServer::start().await;
    names.set("origin.test", Record::NoSuchName);
    let origin = Origin::replying(200).await;
    let edge = Edge::to(url(&origin)).edge(&names.yaml()).start().await;
    edge.get("/api/demo/x").bearer("k1").await.expect_unreachable("dns", "dns_error");
    // It is looked for again: a name may come into being.
    names.addresses("origin.test", 60, &["127.0.0.1"]);
    eventually("the name exists", async || edge.get("/api/demo/x").bearer("k1").await.status == 200).await;
}

#[tokio::test]
async fn a_silent_name_server_is_a_504() {
    let names = NameServer::start().await;
    names.set("origin.test", Record::Silence);
    let origin = Origin::replying(200).await;
    let edge = Edge::to(url(&origin)).edge(&names.yaml()).proxy("timeout: 500ms").start().await;
    let answer = edge.get("/api/demo/x").bearer("k1").await;
    answer.expect_status(504).expect_whole().expect_within(ms(1000)).expect_proxy_error("dns_timeout");
}

#[tokio::test]
async fn the_last_good_answer_outlives_the_name_server_for_a_while() {
    let names = NameServer::start().await;
    names.addresses("origin.test", 1, &["127.0.0.1"]);
    let origin = Origin::replying(200).await;
    let edge = Edge::to(url(&origin)).edge(&names.yaml()).start().await;
    edge.get("/api/demo/x").bearer("k1").await.expect_granted(200);
    names.set("origin.test", Record::Silence);
    for _ in 0..8 {
        tokio::time::sleep(ms(300)).await; // beyond the TTL of 1 s, within `max_stale` of 5 s
        edge.get("/api/demo/x").bearer("k1").await.expect_granted(200).expect_within(ms(400));
    }
}

#[tokio::test]
async fn the_last_good_answer_does_not_live_for_ever() {
    let names = NameServer::start().await;
    names.addresses("origin.test", 1, &["127.0.0.1"]);
    let origin = Origin::replying(200).await;
    let edge = Edge::to(url(&origin)).edge(&names.yaml_with("max_stale: 1s")).proxy("timeout: 500ms").start().await;
    edge.get("/api/demo/x").bearer("k1").await.expect_granted(200);
    names.set("origin.test", Record::Silence);
    eventually("the answer is too old", async || {
        let answer = edge.get("/api/demo/x").bearer("k1").await;
        tokio::time::sleep(ms(300)).await;
        answer.status == 504 || answer.status == 502
    })
    .await;
}

#[tokio::test]
async fn a_name_that_turns_to_a_private_address_is_refused() {
    let names = NameServer::start().await;
    let origin = Origin::replying(200).await;
    for address in ["127.0.0.1", "10.1.2.3", "169.254.169.254", "::1", "fd00::1"] {
        names.addresses("origin.test", 0, &[address]);
        let edge = Edge::to(url(&origin)).edge(&names.yaml()).edge("allow_private_targets: false").start().await;
        let answer = edge.get("/api/demo/x").bearer("k1").await;
        answer.expect_unreachable("connect", "destination_ip_prohibited");
    }
    assert_eq!(origin.connections(), 0);
}

#[tokio::test]
async fn a_target_proves_the_name_and_not_the_address() {
    let names = NameServer::start().await;
    names.addresses("origin.test", 60, &["127.0.0.1"]);
    names.addresses("other.test", 60, &["127.0.0.1"]);
    let authority = Authority::new();
    let tls = authority.certify("origin.test").acceptor(&[]);
    let origin = Origin::secure(tls, |peer| peer.keep_saying(OK.to_vec().into())).await;
    for (name, status) in [("origin.test", 200), ("other.test", 502)] {
        let edge = Edge::to(format!("https://{name}:{}", origin.port()))
            .edge(&names.yaml())
            .target("tls: { ca: ca.pem }")
            .file("proxies.d/ca.pem", authority.pem())
            .start()
            .await;
        edge.get("/api/demo/x").bearer("k1").await.expect_status(status);
    }
    assert_eq!(origin.server_names()[0].as_deref(), Some("origin.test"));
}

/// An origin on an address that the first one has taken the port of; `None` where that one is taken.
async fn origin_at(address: &str) -> Option<Origin> {
    tokio::net::TcpListener::bind(address).await.ok()?;
    Some(Origin::start(address, None, |peer| peer.keep_saying(OK.to_vec().into())).await)
}
