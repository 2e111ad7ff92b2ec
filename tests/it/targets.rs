//! Targets that misbehave: every one gets its clean answer, in time.

use std::time::Duration;

use crate::harness::port::Port;
use crate::harness::{Answer, Edge, Origin, ms, within};

const TIMEOUT: Duration = ms(500);

#[track_caller]
fn expect_too_late(answer: &Answer, error: &str) {
    assert!(answer.took >= TIMEOUT - ms(20), "gave up too early: {answer:?}");
    answer.expect_within(TIMEOUT + ms(500)).expect_refusal(
        504,
        "proxy-access-granted",
        "Target did not respond within 0.5 seconds",
        error,
    );
}

#[tokio::test]
async fn a_target_that_drips_its_header_is_a_504() {
    let origin = Origin::scripted(|mut peer| async move {
        peer.request().await;
        peer.drip("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Slow: yes, and for a long time\r\n\r\nok", ms(60)).await;
    })
    .await;
    let edge = Edge::to(&origin).proxy("timeout: 500ms").start().await;
    expect_too_late(&edge.get("/api/demo/x").bearer("k1").await, "http_response_timeout");
    origin.until("the target is let go", |events| events.closed.contains(&0)).await;
}

#[tokio::test]
async fn a_target_that_drips_a_chunked_body_is_a_504() {
    let origin = Origin::scripted(|mut peer| async move {
        peer.request().await;
        peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        for _ in 0..100 {
            if !peer.send("1\r\nx\r\n").await {
                return;
            }
            tokio::time::sleep(ms(60)).await;
        }
        peer.silence().await;
    })
    .await;
    let edge = Edge::to(&origin).proxy("timeout: 500ms").start().await;
    let mut client = edge.connect().await;
    let answer = client.exchange(&edge.get("/api/demo/x").bearer("k1")).await;
    expect_too_late(&answer, "http_response_timeout");
}

#[tokio::test]
async fn a_target_that_is_silent_after_its_header_is_a_504() {
    let origin = Origin::scripted(|mut peer| async move {
        peer.request().await;
        peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        peer.silence().await;
    })
    .await;
    let edge = Edge::to(&origin).proxy("timeout: 500ms").start().await;
    expect_too_late(&edge.get("/api/demo/x").bearer("k1").await, "http_response_timeout");
}

#[tokio::test]
async fn a_timeout_after_a_body_has_begun_cuts_the_connection() {
    let origin = Origin::scripted(|mut peer| async move {
        peer.request().await;
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome").await;
        peer.drip("x".repeat(90), ms(60)).await;
        peer.silence().await;
    })
    .await;
    let edge = Edge::to(&origin).proxy("timeout: 500ms").start().await;
    let answer = edge.get("/api/demo/x").bearer("k1").await;
    // A sized answer is either passed on at once and then visibly cut, or held and replaced whole.
    if answer.status == 200 {
        answer.expect_cut().expect_within(TIMEOUT + ms(500));
    } else {
        expect_too_late(&answer, "http_response_timeout");
    }
}

#[tokio::test]
async fn a_timeout_counts_from_the_whole_request() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).proxy("timeout: 500ms").start().await;
    let mut client = edge.connect().await;
    client.send("POST /api/demo/x HTTP/1.1\r\nHost: e\r\nAuthorization: Bearer k1\r\nContent-Length: 4\r\n\r\n").await;
    for byte in ["s", "l", "o", "w"] {
        tokio::time::sleep(ms(250)).await; // together longer than the target's time, which has not begun
        client.send(byte).await;
    }
    client.answer().await.expect_granted(200);
}

#[tokio::test]
async fn a_target_that_takes_no_connections_is_a_504() {
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a loopback address");
    let listener = socket.listen(1).expect("a bound socket");
    let address = listener.local_addr().expect("a bound socket");
    // Once the queue of a listener that accepts nothing is full, the kernel drops what comes.
    let mut queued = Vec::new();
    while let Ok(Ok(stream)) = tokio::time::timeout(ms(200), tokio::net::TcpStream::connect(address)).await {
        queued.push(stream);
    }
    for limit in ["timeout: 500ms", "timeout: 5s, connect_timeout: 500ms"] {
        let edge = Edge::to(format!("http://{address}")).proxy(limit).start().await;
        let answer = edge.get("/api/demo/x").bearer("k1").await;
        answer.expect_status(504).expect_whole().expect_within(ms(1000)).expect_proxy_error("connection_timeout");
    }
}

#[tokio::test]
async fn a_target_that_resets_is_a_502() {
    let origin = Origin::scripted(|mut peer| async move {
        peer.request().await;
        peer.reset();
    })
    .await;
    let edge = Edge::to(&origin).start().await;
    let mut client = edge.connect().await;
    let answer = client.exchange(&edge.get("/api/demo/x").bearer("k1")).await;
    answer.expect_unreachable("protocol", "connection_terminated");
}

#[tokio::test]
async fn a_target_that_closes_without_a_word_is_a_502() {
    let origin = Origin::scripted(|mut peer| async move {
        peer.request().await;
    })
    .await;
    let edge = Edge::to(&origin).start().await;
    edge.get("/api/demo/x").bearer("k1").await.expect_unreachable("protocol", "connection_terminated");
    assert_eq!(origin.requests().len(), 1, "on a fresh connection nothing is sent again");
}

#[tokio::test]
async fn a_target_that_breaks_off_in_its_header_is_a_502() {
    let origin = Origin::scripted(|mut peer| async move {
        peer.request().await;
        peer.send("HTTP/1.1 200 OK\r\nContent-Le").await;
    })
    .await;
    let edge = Edge::to(&origin).start().await;
    edge.get("/api/demo/x").bearer("k1").await.expect_unreachable("protocol", "connection_terminated");
}

#[tokio::test]
async fn a_cut_chunked_body_is_a_502() {
    for end in ["", "5\r\nhal", "2\r\nok\r\n", "2\r\nok\r\n0\r\n"] {
        let origin = Origin::scripted(move |mut peer| async move {
            peer.request().await;
            peer.send(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{end}")).await;
        })
        .await;
        let edge = Edge::to(&origin).start().await;
        let mut client = edge.connect().await;
        let answer = client.exchange(&edge.get("/api/demo/x").bearer("k1")).await;
        answer.expect_status(502).expect_whole();
        let error = answer.header("proxy-status").expect("Proxy-Status").to_owned();
        assert!(
            error.contains("connection_terminated") || error.contains("http_response_incomplete"),
            "{end:?}: {answer:?}"
        );
    }
}

#[tokio::test]
async fn a_cut_sized_body_is_never_taken_for_a_whole_one() {
    for reset in [false, true] {
        let origin = Origin::scripted(move |mut peer| async move {
            peer.request().await;
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome").await;
            if reset {
                peer.reset();
            }
        })
        .await;
        let edge = Edge::to(&origin).start().await;
        let answer = edge.get("/api/demo/x").bearer("k1").await;
        assert!(answer.status == 502 || (answer.status == 200 && answer.body.len() < 100), "{answer:?}");
        if answer.status == 200 {
            answer.expect_cut();
        }
    }
}

#[tokio::test]
async fn a_target_that_talks_nonsense_is_a_502() {
    let mut wrong = Vec::new();
    for nonsense in [
        "garbage\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n",
        "HTTP/1.1 abc OK\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nokay\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nok",
    ] {
        let origin = Origin::saying(nonsense).await;
        let edge = Edge::to(&origin).proxy("timeout: 5s").start().await;
        let answer = edge.get("/api/demo/x").bearer("k1").await;
        answer.expect_status(502).expect_whole().expect_within(ms(2000));
        let error = answer.header("proxy-status").unwrap_or_default();
        if error.ends_with("=http_protocol_error") {
            answer.expect_unreachable("protocol", "http_protocol_error");
        } else {
            wrong.push((nonsense, error.to_owned()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn a_header_of_a_target_without_end_is_a_502() {
    let origin = Origin::scripted(|mut peer| async move {
        peer.request().await;
        peer.send("HTTP/1.1 200 OK\r\n").await;
        while peer.send(format!("X-More: {}\r\n", "x".repeat(1000))).await {}
    })
    .await;
    let edge = Edge::to(&origin).proxy("timeout: 5s").start().await;
    edge.get("/api/demo/x").bearer("k1").await.expect_status(502).expect_whole().expect_within(ms(3000));
}

#[tokio::test]
async fn private_targets_are_refused_unless_allowed() {
    let origin = Origin::replying(200).await;
    for url in [
        format!("http://{}", origin.address()),
        "http://10.0.0.1".into(),
        "http://169.254.169.254/latest".into(),
        "http://192.168.0.1".into(),
        "http://100.64.0.1".into(),
        "http://[::1]:80".into(),
        "http://[fd00::1]".into(),
        "http://[::ffff:127.0.0.1]".into(),
        "http://0.0.0.0:80".into(),
    ] {
        // An address that can never be allowed may already be refused as a configuration.
        let port = Port::claim();
        let admin = Port::claim();
        let builder = || Edge::to(url.as_str()).edge("allow_private_targets: false");
        let folder = builder().written(port.address(), admin.address());
        let check = std::process::Command::new(crate::harness::edge::BINARY)
            .args(["check", "-c"])
            .arg(folder.path().join("edge.yaml"))
            .output()
            .expect("the binary runs");
        if check.status.code() == Some(78) {
            continue;
        }
        let edge = builder().start().await;
        let answer = edge.get("/api/demo/x").bearer("k1").await;
        assert_eq!(answer.status, 502, "{url}: {answer:?}");
        answer.expect_unreachable("connect", "destination_ip_prohibited");
        assert!(!answer.text().contains("127.0.0.1"), "{answer:?}");
    }
    assert_eq!(origin.connections(), 0);
}

#[tokio::test]
async fn a_dead_target_does_not_slow_its_neighbours() {
    let (dead, alive) = (Origin::silent().await, Origin::replying(200).await);
    let edge = Edge::to(&alive)
        .fragment(&format!(
            "targets:\n  - {{ id: dead, base_url: 'http://{}' }}\nproxies:\n  - {{ id: dead, target: dead, \
             target_credential: origin-key, proxy_credentials: [client], timeout: 10s }}\n",
            dead.address()
        ))
        .start()
        .await;
    let mut waiting = Vec::new();
    for _ in 0..20 {
        let mut client = edge.connect().await;
        client.send(edge.get("/api/dead/x").bearer("k1").head()).await;
        waiting.push(client);
    }
    within(ms(5000), "20 requests wait", dead.until("", |events| events.requests.len() == 20)).await;
    edge.get("/api/demo/x").bearer("k1").await.expect_granted(200).expect_within(ms(500));
}
