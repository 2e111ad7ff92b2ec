//! What fresh eyes found: each was an answer that was wrong, or a way in.

use crate::harness::{Edge, Origin, eventually, ms, pattern, within};

const MIB: usize = 1 << 20;

const CHUNKED: &str = "HTTP/1.1\r\nHost: e\r\nTransfer-Encoding: chunked\r\n";

#[tokio::test]
async fn what_follows_a_broken_body_is_no_request() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).proxy("timeout: 2s").start().await;
    for (id, credential) in [("nosuch", ""), ("demo", "Authorization: Bearer k1\r\n"), ("demo", "")] {
        for body in ["zz\r\n", "5\nabcde\n", "3\r\nabcXX", "0\r\nbad trailer\n"] {
            let mut client = edge.connect().await;
            client.send(format!("POST /api/{id}/x {CHUNKED}{credential}\r\n{body}")).await;
            let answer = client.answer().await;
            assert!([400, 403].contains(&answer.status), "{body:?}: {answer:?}");
            let smuggled = "GET /api/demo/smuggled HTTP/1.1\r\nHost: e\r\nAuthorization: Bearer k1\r\n\r\n";
            client.send(smuggled).await;
            let rest = within(ms(5000), "the end of the connection", client.rest()).await;
            assert!(!rest.starts_with(b"HTTP/1.1 200"), "{id} {body:?}: {}", String::from_utf8_lossy(&rest));
        }
    }
    assert!(origin.requests().iter().all(|request| request.target != "/smuggled"), "{:?}", origin.requests());
}

#[tokio::test]
async fn a_101_that_nobody_asked_for_is_a_502() {
    let origin =
        Origin::saying("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\nHELLO").await;
    let edge = Edge::to(&origin).http2().proxy("timeout: 2s").start().await;
    for http2 in [false, true] {
        let answer = edge.get("/api/demo/x").bearer("k1").http2(http2).await;
        answer.expect_status(502).expect_whole().expect_unreachable("protocol", "http_protocol_error");
    }
}

#[tokio::test]
async fn an_interim_answer_says_nothing_in_our_name() {
    let origin = Origin::saying(
        "HTTP/1.1 103 Early Hints\r\nrequestrocket-proxy-code: proxy-access-denied\r\nTransfer-Encoding: chunked\r\n\
         Content-Length: 9\r\nConnection: close\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    )
    .await;
    let edge = Edge::to(&origin).start().await;
    let mut client = edge.connect().await;
    client.send(edge.get("/api/demo/x").bearer("k1").head()).await;
    let answers = String::from_utf8(client.until_end_or(60).await).expect("text");
    assert!(answers.starts_with("HTTP/1.1 103"), "{answers}");
    let interim = answers.split("\r\n\r\n").next().expect("a header").to_ascii_lowercase();
    assert!(!interim.contains("requestrocket") && !interim.contains("chunked"), "{interim}");
    assert!(!interim.contains("content-length") && !interim.contains("connection"), "{interim}");
}

#[tokio::test]
async fn a_flood_of_interim_answers_is_a_502() {
    let flood = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(200) + "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let origin = Origin::saying(flood).await;
    let edge = Edge::to(&origin).http2().start().await;
    edge.get("/api/demo/x").bearer("k1").http2(true).await.expect_status(502);
}

#[tokio::test]
async fn a_coding_that_would_have_to_be_undone_is_a_502() {
    for framing in ["Transfer-Encoding: gzip, chunked", "Transfer-Encoding: xchunked"] {
        let origin = Origin::saying(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n2\r\nok\r\n0\r\n\r\n")).await;
        let edge = Edge::to(&origin).proxy("timeout: 3s").start().await;
        let answer = edge.get("/api/demo/x").bearer("k1").await;
        answer.expect_status(502).expect_whole().expect_within(ms(1500));
    }
}

#[tokio::test]
async fn a_slow_client_is_not_the_targets_fault() {
    let body = pattern(6 * MIB);
    let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    answer.extend(&body);
    let origin = Origin::saying(answer).await;
    let edge = Edge::to(&origin).proxy("timeout: 1s").start().await;
    let mut client = edge.connect().await;
    client.send(edge.get("/api/demo/x").bearer("k1").head()).await;
    assert_eq!(client.head().await.status, 200);
    // More than the buffers between here and there hold is still to come after the target's time.
    for piece in body.chunks(MIB) {
        tokio::time::sleep(ms(400)).await;
        assert_eq!(client.until_end_or(piece.len()).await, piece);
    }
}

#[tokio::test]
async fn a_client_behind_a_balancer_cannot_choose_its_address() {
    let origin = Origin::replying(200).await;
    let limits = "limits: { invalid_credentials_per_minute: 3 }\ntrusted_proxies: [127.0.0.1]";
    let edge = Edge::to(&origin).edge(limits).start().await;
    let mut statuses = Vec::new();
    for guess in 0..5 {
        let request = edge.get("/api/demo/x").bearer("wrong");
        let chain = format!("9.9.9.{guess}, 203.0.113.7:4711");
        statuses.push(request.header("X-Forwarded-For", &chain).await.status);
    }
    assert_eq!(statuses, [403, 403, 403, 429, 429]);
}

#[tokio::test]
async fn an_http_2_cookie_is_one_to_an_http_1_target() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).http2().start().await;
    let request = edge.get("/api/demo/x").bearer("k1").http2(true);
    request.header("cookie", "a=1").header("cookie", "b=2").header("x_forwarded_for", "evil").await.expect_granted(200);
    let seen = origin.request();
    assert_eq!(seen.all("cookie"), ["a=1; b=2"]);
    assert!(seen.all("x_forwarded_for").is_empty(), "{seen:?}");
}

#[tokio::test]
async fn what_a_target_says_is_in_no_log() {
    let origin = Origin::saying("HTTP/1.1 200 OK\r\nSet-Cookie: CANARY-SESSION\r\nBad Header: x\r\n\r\n").await;
    let edge = Edge::to(&origin).environment("RUST_LOG", "trace").start().await;
    edge.get("/api/demo/x").bearer("k1").await;
    let log = edge.stderr();
    assert!(log.contains("InvalidHTTPHeader") || log.contains("target"), "{log}");
    assert!(!log.contains("CANARY"), "{log}");
}

#[tokio::test]
async fn an_upgrade_that_its_connection_does_not_name_is_none() {
    let origin = Origin::scripted(|mut peer| async move {
        let Some(head) = peer.head().await else { return };
        assert!(head.header("upgrade").is_none() && head.header("connection").is_none(), "{head:?}");
        peer.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n").await;
        peer.echo().await;
    })
    .await;
    let edge = Edge::to(&origin).proxy("timeout: 2s").start().await;
    let answer = edge.get("/api/demo/x").bearer("k1").header("Upgrade", "websocket").await;
    answer.expect_status(502).expect_unreachable("protocol", "http_protocol_error");
}

#[tokio::test]
async fn who_is_refused_takes_no_place() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).edge("limits: { max_requests_in_flight: 3 }").start().await;
    let mut refused = Vec::new();
    for _ in 0..10 {
        let mut client = edge.connect().await;
        client.send("POST /api/zz/x HTTP/1.1\r\nHost: e\r\nContent-Length: 10\r\n\r\n").await;
        assert_eq!(client.head().await.status, 403);
        refused.push(client); // still owes its body
    }
    edge.get("/api/demo/x").bearer("k1").await.expect_granted(200);
}

#[tokio::test]
async fn a_post_without_a_body_says_so() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).http2().start().await;
    edge.post("/api/demo/x").bearer("k1").http2(true).await.expect_granted(200);
    assert_eq!(origin.request().header("content-length"), Some("0"));
    assert!(origin.request().header("via").is_some_and(|via| via.starts_with("2 ")), "{:?}", origin.request());
}

#[tokio::test]
async fn connections_are_bounded_in_all_and_by_client() {
    let origin = Origin::replying(200).await;
    for (limits, limit) in [("max_connections: 5", "total"), ("max_connections_per_client: 5", "client")] {
        let edge = Edge::to(&origin).edge(&format!("limits: {{ {limits} }}")).start().await;
        let mut taken = Vec::new();
        for _ in 0..5 {
            let mut client = edge.connect().await;
            client.exchange(&edge.get("/api/demo/x").bearer("k1")).await.expect_granted(200);
            taken.push(client);
        }
        let mut one_more = edge.connect().await;
        assert!(within(ms(3000), "its end", one_more.rest()).await.is_empty(), "{limit}");
        let line = format!("requestrocket_client_connections_refused_total{{limit=\"{limit}\"}} 1");
        assert!(edge.admin("/metrics").await.text().contains(&line), "{limit}");
        drop(taken);
        eventually("a place", async || {
            let mut client = edge.connect().await;
            client.send(edge.get("/api/demo/x").bearer("k1").head()).await;
            client.until_end_or(12).await == b"HTTP/1.1 200"
        })
        .await;
    }
}
