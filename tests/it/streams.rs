//! What does not end after one answer: 100-continue, upgrades, event streams, trailers, early answers.

use crate::harness::request::chunked;
use crate::harness::{Edge, Origin, Peer, eventually, ms, pattern, within};

const UPGRADE: &str = "GET /api/demo/socket HTTP/1.1\r\nHost: edge.test\r\nAuthorization: Bearer k1\r\nConnection: Upgrade\r\n\
     Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// Accepts an upgrade and echoes from then on.
async fn echo_after_upgrade(mut peer: Peer) {
    let Some(request) = peer.request().await else { return };
    assert_eq!(request.header("upgrade"), Some("websocket"), "{request:?}");
    assert!(request.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("upgrade")), "{request:?}");
    peer.send(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
    )
    .await;
    peer.echo().await;
}

#[tokio::test]
async fn a_client_that_waits_for_100_continue_is_not_kept_waiting() {
    let origin = Origin::scripted(|mut peer| async move {
        while let Some(head) = peer.head().await {
            if head.header("expect").is_some() {
                peer.send("HTTP/1.1 100 Continue\r\n\r\n").await;
            }
            let Some(body) = peer.exactly(5).await else { return };
            assert_eq!(body, b"hello");
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        }
    })
    .await;
    let edge = Edge::to(&origin).start().await;
    let mut client = edge.connect().await;
    client
        .send("POST /api/demo/x HTTP/1.1\r\nHost: e\r\nAuthorization: Bearer k1\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        .await;
    assert_eq!(client.head().await.status, 100);
    client.send("hello").await;
    client.answer().await.expect_granted(200).expect_reusable();
}

#[tokio::test]
async fn a_refused_client_is_not_asked_for_its_body() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).start().await;
    let mut client = edge.connect().await;
    client
        .send("POST /api/demo/x HTTP/1.1\r\nHost: e\r\nAuthorization: Bearer no\r\nExpect: 100-continue\r\nContent-Length: 5000000\r\n\r\n")
        .await;
    let answer = client.answer().await;
    answer.expect_denied();
    assert!(answer.interim.is_empty(), "{answer:?}");
}

#[tokio::test]
async fn a_target_may_refuse_instead_of_saying_continue() {
    let origin = Origin::scripted(|mut peer| async move {
        peer.head().await;
        peer.send("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n").await;
        peer.silence().await;
    })
    .await;
    let edge = Edge::to(&origin).start().await;
    let mut client = edge.connect().await;
    client
        .send("POST /api/demo/x HTTP/1.1\r\nHost: e\r\nAuthorization: Bearer k1\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        .await;
    client.answer().await.expect_status(417).expect_within(ms(2000));
}

#[tokio::test]
async fn whoever_is_silent_before_an_expected_body_is_the_one_to_blame() {
    const HEAD: &str = "POST /api/demo/x HTTP/1.1\r\nHost: e\r\nAuthorization: Bearer k1\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    let silent = Origin::silent().await;
    let continues = Origin::scripted(|mut peer| async move {
        peer.head().await;
        peer.send("HTTP/1.1 100 Continue\r\n\r\n").await;
        peer.silence().await;
    })
    .await;
    // The target neither asks for the body nor answers. It has its time, however little the client would have.
    let edge = Edge::to(&silent).proxy("timeout: 1s").edge("limits: { body_timeout: 300ms }").start().await;
    let mut client = edge.connect().await;
    client.send(HEAD).await;
    let answer = client.answer().await;
    let message = "Target did not respond within 1 seconds";
    answer.expect_refusal(504, "proxy-access-granted", message, "http_response_timeout");
    // The client does not wait, and stops; or it is asked to go on, and does not.
    let asked = Edge::to(&continues).proxy("timeout: 10s").edge("limits: { body_timeout: 300ms }").start().await;
    for (edge, part) in [(&edge, "he"), (&asked, "")] {
        let mut client = edge.connect().await;
        client.send(HEAD).await.send(part).await;
        let answer = client.answer().await;
        let message = "Request body was not received in time";
        answer.expect_refusal(408, "proxy-access-granted", message, "http_request_error").expect_within(ms(5000));
    }
}

#[tokio::test]
async fn a_websocket_is_a_tunnel_after_101() {
    let origin = Origin::scripted(echo_after_upgrade).await;
    let edge = Edge::to(&origin).proxy("timeout: 300ms").start().await;
    let mut client = edge.connect().await;
    client.send(UPGRADE).await;
    let head = client.head().await;
    assert_eq!(head.status, 101);
    let header = |name: &str| head.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
    assert_eq!(header("upgrade"), Some("websocket"));
    assert_eq!(header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(header("requestrocket-proxy-code"), Some("proxy-access-granted"));
    for round in 0..4_u8 {
        let sent = [round; 1000];
        client.send(sent).await;
        assert_eq!(client.bytes(1000).await, sent);
        tokio::time::sleep(ms(150)).await; // together longer than the proxy's `timeout`, which a tunnel does not have
    }
    drop(client);
    origin.until("the end of the tunnel", |events| events.closed.contains(&0)).await;
}

#[tokio::test]
async fn a_tunnel_has_no_size_limit() {
    let origin = Origin::scripted(echo_after_upgrade).await;
    let edge = Edge::to(&origin).proxy("max_response_body: 1KiB, max_request_body: 1KiB").start().await;
    let mut client = edge.connect().await;
    client.send(UPGRADE).await;
    assert_eq!(client.head().await.status, 101);
    let sent = pattern(20_000);
    client.send(&sent).await;
    assert_eq!(client.bytes(20_000).await, sent);
}

#[tokio::test]
async fn no_tunnel_ends_before_it_has_begun() {
    // The target says 101 in the moment it has the request: sooner than the edge notes that a GET has no body.
    let origin = Origin::scripted(echo_after_upgrade).await;
    let edge = Edge::to(&origin).unhurried().start().await;
    let mut ended = 0;
    for _ in 0..100 {
        let mut client = edge.connect().await;
        client.send(UPGRADE).await;
        assert_eq!(client.head().await.status, 101);
        client.send("ping").await;
        ended += usize::from(client.until_end_or(4).await != b"ping");
    }
    assert_eq!(ended, 0, "of 100 tunnels");
}

#[tokio::test]
async fn an_idle_tunnel_is_closed() {
    let origin = Origin::scripted(echo_after_upgrade).await;
    let edge = Edge::to(&origin).proxy("stream_idle_timeout: 300ms").start().await;
    let mut client = edge.connect().await;
    client.send(UPGRADE).await;
    assert_eq!(client.head().await.status, 101);
    within(ms(3000), "the end of an idle tunnel", client.rest()).await;
    origin.until("the end of the tunnel", |events| events.closed.contains(&0)).await;
}

#[tokio::test]
async fn an_upgrade_with_a_bad_credential_never_reaches_the_target() {
    let origin = Origin::scripted(echo_after_upgrade).await;
    let edge = Edge::to(&origin).start().await;
    let mut client = edge.connect().await;
    // What follows the head at once must not be taken for a tunnel, CVE-2026-2833.
    client.send(UPGRADE.replace("Bearer k1", "Bearer no")).await.send("GET /admin HTTP/1.1\r\nHost: x\r\n\r\n").await;
    client.answer().await.expect_denied();
    assert_eq!(origin.connections(), 0);
}

#[tokio::test]
async fn bytes_after_an_upgrade_wait_for_the_101() {
    let origin = Origin::scripted(|mut peer| async move {
        peer.request().await;
        let smuggled = tokio::time::timeout(ms(300), peer.read()).await;
        assert!(smuggled.is_err(), "bytes before the 101 reached the target");
        peer.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno").await;
        let smuggled = tokio::time::timeout(ms(300), peer.read()).await;
        if let Ok(Some(_)) = smuggled {
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled").await;
        }
    })
    .await;
    let edge = Edge::to(&origin).edge("limits: { keepalive_timeout: 1s }").start().await;
    let mut client = edge.connect().await;
    client.send(UPGRADE).await.send("DELETE /admin HTTP/1.1\r\nHost: x\r\n\r\n").await;
    client.answer().await.expect_status(403).expect_body("no");
    let rest = client.rest().await;
    assert!(!String::from_utf8_lossy(&rest).contains("smuggled"));
    assert!(!String::from_utf8_lossy(&rest).contains("200 OK"));
}

#[tokio::test]
async fn a_refused_upgrade_is_an_ordinary_answer() {
    let origin = Origin::saying("HTTP/1.1 426 Upgrade Required\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nno").await;
    let edge = Edge::to(&origin).start().await;
    let mut client = edge.connect().await;
    client.send(UPGRADE).await;
    client.answer().await.expect_granted(426).expect_body("no");
}

#[tokio::test]
async fn events_arrive_one_by_one() {
    let (next, turn) = tokio::sync::watch::channel(0);
    let origin = Origin::scripted(move |mut peer| {
        let mut turn = turn.clone();
        async move {
            peer.request().await;
            peer.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n").await;
            for event in 1..=3 {
                let _ = turn.wait_for(|turn| *turn >= event).await;
                peer.send(format!("9\r\ndata: {event}\n\n\r\n")).await;
            }
            peer.send("0\r\n\r\n").await;
            peer.silence().await;
        }
    })
    .await;
    let edge = Edge::to(&origin).proxy("timeout: 300ms").start().await;
    let mut client = edge.connect().await;
    client.send(edge.get("/api/demo/events").bearer("k1").head()).await;
    let head = client.head().await;
    assert_eq!(head.status, 200);
    assert!(head.headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked"));
    for event in 1..=3 {
        tokio::time::sleep(ms(150)).await; // the target's pace: together longer than `timeout`, which ends with the header
        next.send_replace(event);
        let expected = format!("9\r\ndata: {event}\n\n\r\n");
        assert_eq!(client.bytes(expected.len()).await, expected.as_bytes());
    }
    assert_eq!(client.bytes(5).await, b"0\r\n\r\n");
}

#[tokio::test]
async fn a_silent_event_stream_is_cut() {
    let origin = Origin::scripted(|mut peer| async move {
        peer.request().await;
        peer.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
            .await;
        peer.silence().await;
    })
    .await;
    let edge = Edge::to(&origin).proxy("stream_idle_timeout: 300ms").start().await;
    edge.get("/api/demo/events").bearer("k1").await.expect_status(200).expect_cut().expect_within(ms(1500));
    origin.until("the target is let go", |events| events.closed.contains(&0)).await;
}

#[tokio::test]
async fn a_streamed_answer_is_cut_at_the_limit() {
    let (next, turn) = tokio::sync::watch::channel(0);
    let origin = Origin::scripted(move |mut peer| {
        let mut turn = turn.clone();
        async move {
            peer.request().await;
            let round = *turn.borrow();
            peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
            peer.send(&chunked(&[pattern(600)])[..607]).await;
            let _ = turn.wait_for(|turn| *turn > round).await;
            peer.send(chunked(&[pattern(600)])).await;
            peer.silence().await;
        }
    })
    .await;
    for (limit, passes) in [(1000, false), (1199, false), (1200, true)] {
        let edge = Edge::to(&origin).proxy(&format!("response: streamed, max_response_body: {limit}")).start().await;
        let mut client = edge.connect().await;
        client.send(edge.get("/api/demo/x").bearer("k1").head()).await;
        assert_eq!(client.head().await.status, 200, "the header is passed on before the body ends");
        let first = chunked(&[pattern(600)]);
        assert_eq!(client.bytes(607).await, first[..607]);
        next.send_modify(|turn| *turn += 1);
        if passes {
            assert_eq!(client.bytes(first.len()).await, first);
        } else {
            let rest = client.rest().await;
            assert!(rest.len() < 600 && !rest.ends_with(b"0\r\n\r\n"), "{rest:?}");
        }
    }
}

#[tokio::test]
async fn a_target_that_answers_early_releases_the_client() {
    for body in ["Content-Length: 2\r\n\r\nno", "Transfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n"] {
        let origin = Origin::scripted(move |mut peer| async move {
            peer.head().await;
            peer.send(format!("HTTP/1.1 401 Unauthorized\r\n{body}")).await;
            peer.stop_reading().await;
        })
        .await;
        let edge = Edge::to(&origin).proxy("timeout: 10s").start().await;
        let answer = edge.post("/api/demo/upload").bearer("k1").body(pattern(9_000_000)).await;
        answer.expect_granted(401).expect_body("no").expect_within(ms(3000));
    }
}

#[tokio::test]
async fn an_upload_is_passed_on_as_it_comes() {
    let (report, mut half) = tokio::sync::watch::channel(false);
    let origin = Origin::scripted(move |mut peer| {
        let report = report.clone();
        async move {
            peer.head().await;
            peer.exactly(1000).await;
            report.send_replace(true);
            peer.exactly(1000).await;
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            peer.silence().await;
        }
    })
    .await;
    let edge = Edge::to(&origin).start().await;
    let mut client = edge.connect().await;
    client
        .send("POST /api/demo/x HTTP/1.1\r\nHost: e\r\nAuthorization: Bearer k1\r\nContent-Length: 2000\r\n\r\n")
        .await;
    client.send(pattern(1000)).await;
    let _ = within(ms(5000), "the first half at the target", half.wait_for(|half| *half)).await;
    client.send(pattern(1000)).await;
    client.answer().await.expect_granted(200);
}

#[tokio::test]
async fn an_upload_that_stops_does_not_look_whole_to_the_target() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).edge("limits: { body_timeout: 300ms }").start().await;
    for framing in ["Content-Length: 10\r\n\r\nhalf", "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"] {
        let mut client = edge.connect().await;
        client.send(format!("POST /api/demo/x HTTP/1.1\r\nHost: e\r\nAuthorization: Bearer k1\r\n{framing}")).await;
        client.answer().await.expect_status(408).expect_within(ms(1300)).expect_proxy_error("http_request_error");
        drop(client);
        // And one whose sender goes away.
        let mut client = edge.connect().await;
        client.send(format!("POST /api/demo/x HTTP/1.1\r\nHost: e\r\nAuthorization: Bearer k1\r\n{framing}")).await;
        let so_far = origin.requests().len();
        drop(client);
        origin.until("the target is let go", |events| events.closed.len() >= so_far.min(events.connections)).await;
    }
    assert!(origin.requests().iter().all(|request| !request.complete), "{:?}", origin.requests());
}

#[tokio::test]
async fn a_client_that_goes_away_frees_the_target() {
    for head in ["", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n"] {
        let origin = Origin::scripted(move |mut peer| async move {
            peer.request().await;
            peer.send(head).await;
            peer.silence().await;
        })
        .await;
        let edge = Edge::to(&origin).proxy("timeout: 30s").start().await;
        let mut client = edge.connect().await;
        client.send(edge.get("/api/demo/x").bearer("k1").head()).await;
        origin.until("the request", |events| events.requests.len() == 1).await;
        drop(client);
        within(ms(3000), "the target is let go", origin.until("", |events| events.closed.contains(&0))).await;
    }
}

#[tokio::test]
async fn trailers_of_a_chunked_answer_do_no_harm() {
    let origin = Origin::saying(
        "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\nAuthorization: x\r\n\r\n",
    )
    .await;
    let edge = Edge::to(&origin).start().await;
    let mut client = edge.connect().await;
    for _ in 0..2 {
        client
            .exchange(&edge.get("/api/demo/x").bearer("k1"))
            .await
            .expect_granted(200)
            .expect_body("ok")
            .expect_reusable();
    }
}

#[tokio::test]
async fn a_streamed_answer_leaves_the_connection_usable() {
    let origin = Origin::saying("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n").await;
    let edge = Edge::to(&origin).proxy("response: streamed").start().await;
    let mut client = edge.connect().await;
    for _ in 0..3 {
        client
            .exchange(&edge.get("/api/demo/x").bearer("k1"))
            .await
            .expect_granted(200)
            .expect_body("ok")
            .expect_reusable();
    }
    eventually("the requests", async || origin.requests().len() == 3).await;
}
