//! HTTP/2 on either side.

use std::future::poll_fn;

use bytes::Bytes;
use h2::Reason;

use crate::harness::h2::receive;
use crate::harness::tls::Authority;
use crate::harness::{Answer, Edge, Origin, ms, pattern, within};

#[tokio::test]
async fn an_http_2_client_is_served_from_an_http_1_target() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).http2().start().await;
    let client = edge.connect_http2().await;
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        let request = edge.request(method, "/api/demo/a%2Fb?x=%20+&y").bearer("k1");
        client.exchange(&request).await.expect_granted(200).expect_body("ok");
        let seen = origin.requests().pop().expect("a request");
        assert_eq!((seen.method.as_str(), seen.target.as_str()), (method, "/a%2Fb?x=%20+&y"));
        assert_eq!(seen.header("host"), Some(origin.address().to_string().as_str()));
        assert_eq!(seen.header("authorization"), Some("Bearer t1"));
        assert_eq!(seen.header("x-forwarded-host"), Some("edge.test"));
    }
}

#[tokio::test]
async fn refusals_look_the_same_in_http_2() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).http2().client("rate_limit: { requests_per_minute: 1 }").start().await;
    let client = edge.connect_http2().await;
    client.exchange(&edge.get("/api/demo/x").bearer("no")).await.expect_denied();
    client.exchange(&edge.get("/api/none/x").bearer("k1")).await.expect_denied();
    client.exchange(&edge.post("/api/demo/x").bearer("no").body(pattern(100_000))).await.expect_denied();
    client.exchange(&edge.get("/other").bearer("k1")).await.expect_status(404);
    client.exchange(&edge.get("/api/demo/%2e%2e/x").bearer("k1")).await.expect_status(400);
    client.exchange(&edge.get("/api/demo/x").bearer("k1").bearer("k1")).await.expect_denied();
    client.exchange(&edge.get("/api/demo/x").bearer("k1")).await.expect_granted(200);
    client.exchange(&edge.get("/api/demo/x").bearer("k1")).await.expect_status(429);
    let head = client.exchange(&edge.request("HEAD", "/api/demo/x").bearer("no")).await;
    head.expect_refusal_head(403, "proxy-access-denied", "Invalid proxy credential", "http_request_denied");
    assert!(head.body.is_empty());
}

#[tokio::test]
async fn answers_of_ours_are_whole_for_an_http_2_client_too() {
    let silent = Origin::silent().await;
    let edge = Edge::to(&silent).http2().proxy("timeout: 300ms").start().await;
    let answer = edge.get("/api/demo/x").bearer("k1").http2(true).await;
    answer.expect_status(504).expect_whole().expect_within(ms(800)).expect_proxy_error("http_response_timeout");

    let cut = Origin::scripted(|mut peer| async move {
        peer.request().await;
        peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n").await;
    })
    .await;
    let edge = Edge::to(&cut).http2().start().await;
    edge.get("/api/demo/x").bearer("k1").http2(true).await.expect_status(502).expect_whole();

    let sized = Origin::scripted(|mut peer| async move {
        peer.request().await;
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome").await;
    })
    .await;
    let edge = Edge::to(&sized).http2().start().await;
    let answer = edge.get("/api/demo/x").bearer("k1").http2(true).await;
    if answer.status != 502 {
        answer.expect_status(200).expect_cut();
    }
}

#[tokio::test]
async fn a_client_whose_upload_nobody_wants_is_released() {
    let origin = Origin::scripted(|mut peer| async move {
        peer.head().await;
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        peer.stop_reading().await;
    })
    .await;
    let edge = Edge::to(&origin).http2().proxy("timeout: 15s").start().await;
    let client = edge.connect_http2().await;
    let answer = client.exchange(&edge.post("/api/demo/x").bearer("k1").body(pattern(9_000_000))).await;
    answer.expect_granted(200).expect_body("ok").expect_within(ms(3000));
    assert_eq!(answer.upload_stopped, Some(Reason::NO_ERROR), "the stream must end on both sides");
    client.exchange(&edge.get("/api/demo/x").bearer("no")).await.expect_denied();
}

#[tokio::test]
async fn an_http_2_client_that_resets_frees_the_target() {
    let origin = Origin::scripted(|mut peer| async move {
        peer.request().await;
        peer.silence().await;
    })
    .await;
    let edge = Edge::to(&origin).http2().start().await;
    let client = edge.connect_http2().await;
    let (response, mut stream) = client.open(&edge.get("/api/demo/x").bearer("k1"), true).await;
    origin.until("the request", |events| events.requests.len() == 1).await;
    stream.send_reset(Reason::CANCEL);
    drop(response);
    within(ms(3000), "the target is let go", origin.until("", |events| events.closed.contains(&0))).await;
}

#[tokio::test]
async fn many_streams_of_one_connection_do_not_mix() {
    let origin = Origin::scripted(|mut peer| async move {
        while let Some(request) = peer.request().await {
            let body = request.target.repeat(1000);
            peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())).await;
        }
    })
    .await;
    let edge = Edge::to(&origin).http2().unhurried().start().await;
    let client = edge.connect_http2().await;
    let requests: Vec<_> = (0..50).map(|n| edge.get(&format!("/api/demo/{n}")).bearer("k1")).collect();
    let answers = futures::future::join_all(requests.iter().map(|request| client.exchange(request))).await;
    for (n, answer) in answers.iter().enumerate() {
        answer.expect_granted(200).expect_body(format!("/{n}").repeat(1000));
    }
}

#[tokio::test]
async fn an_http_2_target_sees_what_an_http_1_target_would() {
    let origin = Origin::http2_cleartext(|mut stream| async move {
        stream.read().await;
        stream.reply(200, &[("x-own", "kept"), ("requestrocket-proxy-code", "forged")], "ok").await;
    })
    .await;
    let edge = Edge::to(&origin).target("http: 2").http2().start().await;
    for http2 in [false, true] {
        let answer = edge
            .post("/api/demo/a%2Fb?x=1&Authorization=no")
            .http2(http2)
            .bearer("k1")
            .header("Proxy-Authorization", "Basic x")
            .header("requestrocket-proxy-warning", "forged")
            .header("X-Custom", "1")
            .body("hello")
            .await;
        answer.expect_granted(200).expect_header("x-own", "kept").expect_body("ok");
    }
    for seen in origin.requests() {
        assert_eq!((seen.method.as_str(), seen.target.as_str()), ("POST", "/a%2Fb?x=1"));
        assert_eq!(
            seen.header(":authority"),
            Some(crate::harness::edge::Target::base_url(&&origin).trim_start_matches("http://"))
        );
        assert_eq!(seen.header("authorization"), Some("Bearer t1"));
        assert_eq!(seen.header("x-custom"), Some("1"));
        assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
        assert_eq!(seen.body, b"hello");
        for name in ["proxy-authorization", "requestrocket-proxy-warning", "connection", "transfer-encoding"] {
            assert_eq!(seen.header(name), None, "{name}");
        }
        assert!(seen.header("host").is_none_or(|host| Some(host) == seen.header(":authority")), "{seen:?}");
    }
}

#[tokio::test]
async fn http_2_is_agreed_on_by_tls() {
    let authority = Authority::new();
    let tls = authority.certify("127.0.0.1").acceptor(&["h2", "http/1.1"]);
    let origin = Origin::http2(Some(tls), |mut stream| async move {
        stream.read().await;
        stream.reply(200, &[], "ok").await;
    })
    .await;
    for http in ["auto", "2"] {
        let edge = Edge::to(&origin)
            .target(&format!("http: {http}, tls: {{ ca: ca.pem }}"))
            .file("proxies.d/ca.pem", authority.pem())
            .start()
            .await;
        edge.get("/api/demo/x").bearer("k1").await.expect_granted(200).expect_body("ok");
        edge.post("/api/demo/x").bearer("k1").body(pattern(200_000)).await.expect_granted(200).expect_body("ok");
    }
    assert_eq!(origin.requests().len(), 4);
}

#[tokio::test]
async fn trailers_pass_from_http_2_to_http_2() {
    let origin = Origin::http2_cleartext(|mut stream| async move {
        stream.read().await;
        let mut body = stream.answer(200, &[("content-type", "application/grpc")], false);
        let _ = body.send_data(Bytes::from_static(b"ok"), false);
        let trailers =
            http::HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), "0".parse().unwrap())]);
        let _ = body.send_trailers(trailers);
    })
    .await;
    let edge = Edge::to(&origin).target("http: 2").http2().start().await;
    let answer = edge.post("/api/demo/grpc").bearer("k1").header("te", "trailers").body("x").http2(true).await;
    answer.expect_status(200).expect_body("ok");
    assert_eq!(answer.trailers, [("grpc-status".to_owned(), "0".to_owned())]);
    assert_eq!(origin.request().header("te"), Some("trailers"));
}

#[tokio::test]
async fn an_http_2_target_that_resets_a_stream_is_a_502() {
    for reason in [Reason::INTERNAL_ERROR, Reason::CANCEL, Reason::ENHANCE_YOUR_CALM] {
        let origin = Origin::http2_cleartext(move |stream| async move { stream.reset(reason) }).await;
        let edge = Edge::to(&origin).target("http: 2").start().await;
        let answer = edge.post("/api/demo/x").bearer("k1").body("b").await;
        expect_protocol_failure(&answer);
        assert_eq!(origin.requests().len(), 1, "a POST that arrived is not sent again");
    }
}

#[tokio::test]
async fn a_reset_in_an_unannounced_body_is_a_whole_502() {
    let origin = Origin::http2_cleartext(|mut stream| async move {
        let mut body = stream.answer(200, &[], false);
        let _ = body.send_data(Bytes::from_static(b"part"), false);
        body.send_reset(Reason::INTERNAL_ERROR);
    })
    .await;
    let edge = Edge::to(&origin).target("http: 2").http2().start().await;
    for http2 in [false, true] {
        expect_protocol_failure(&edge.get("/api/demo/x").bearer("k1").http2(http2).await);
    }
}

#[tokio::test]
async fn a_refused_stream_is_tried_again() {
    let origin = Origin::http2_cleartext(|mut stream| async move {
        // RFC 9113, 8.7: REFUSED_STREAM says that nothing of it was processed.
        if stream.head.headers.get("x-again").is_none() && FIRST.swap(false, std::sync::atomic::Ordering::SeqCst) {
            return stream.reset(Reason::REFUSED_STREAM);
        }
        stream.reply(200, &[], "ok").await;
    })
    .await;
    let edge = Edge::to(&origin).target("http: 2").start().await;
    edge.get("/api/demo/x").bearer("k1").await.expect_granted(200).expect_body("ok");
    assert_eq!(origin.requests().len(), 2);
}

static FIRST: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(true);

#[tokio::test]
async fn a_target_that_says_goaway_is_connected_to_anew() {
    let origin = Origin::http2_cleartext(|mut stream| async move {
        stream.go_away();
        stream.reply(200, &[], "ok").await;
    })
    .await;
    let edge = Edge::to(&origin).target("http: 2").start().await;
    for _ in 0..5 {
        edge.get("/api/demo/x").bearer("k1").await.expect_granted(200).expect_body("ok");
    }
    assert!(origin.connections() >= 2, "{}", origin.connections());
}

#[tokio::test]
async fn a_silent_http_2_target_is_a_504_and_is_told_to_stop() {
    let origin = Origin::http2_cleartext(|stream| async move {
        stream.silence().await;
    })
    .await;
    let edge = Edge::to(&origin).target("http: 2").http2().proxy("timeout: 400ms").start().await;
    for http2 in [false, true] {
        let answer = edge.get("/api/demo/x").bearer("k1").http2(http2).await;
        answer.expect_status(504).expect_whole().expect_within(ms(900)).expect_proxy_error("http_response_timeout");
    }
    origin.until("the stream is given up", |events| !events.closed.is_empty()).await;
}

#[tokio::test]
async fn an_early_answer_of_an_http_2_target_releases_the_client() {
    let origin = Origin::http2_cleartext(|mut stream| async move {
        stream.reply(413, &[], "enough").await;
        // Dropped here, with which it says that it wants no more of the request (NO_ERROR, RFC 9113 section 8.1).
    })
    .await;
    let edge = Edge::to(&origin).target("http: 2").http2().proxy("timeout: 15s").start().await;
    for http2 in [false, true] {
        let answer = edge.post("/api/demo/x").bearer("k1").body(pattern(9_000_000)).http2(http2).await;
        answer.expect_granted(413).expect_body("enough").expect_within(ms(3000));
        if http2 {
            assert_eq!(answer.upload_stopped, Some(Reason::NO_ERROR));
        }
    }
}

#[tokio::test]
async fn a_target_that_speaks_no_http_2_after_all_is_a_502() {
    let origin = Origin::scripted(|mut peer| async move {
        peer.read().await;
        peer.send("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
    })
    .await;
    let edge = Edge::to(&origin).target("http: 2").proxy("timeout: 5s").start().await;
    edge.get("/api/demo/x").bearer("k1").await.expect_status(502).expect_whole().expect_within(ms(2000));
}

#[tokio::test]
async fn an_http_2_client_that_stops_sending_is_a_408() {
    let origin = Origin::scripted(|mut peer| async move {
        peer.request().await;
        peer.silence().await;
    })
    .await;
    let edge = Edge::to(&origin).http2().edge("limits: { body_timeout: 300ms }").start().await;
    let client = edge.connect_http2().await;
    let (response, mut stream) =
        client.open(&edge.post("/api/demo/x").bearer("k1").header("content-length", "10"), false).await;
    stream.reserve_capacity(4);
    let _ = within(ms(1000), "room for four bytes", poll_fn(|cx| stream.poll_capacity(cx))).await;
    stream.send_data(Bytes::from_static(b"half"), false).expect("an open stream");
    let answer = within(ms(2000), "a 408", receive(response)).await;
    answer.expect_refusal(408, "proxy-access-granted", "Request body was not received in time", "http_request_error");
}

#[tokio::test]
async fn an_http_2_client_is_told_how_many_streams_it_may_open() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).http2().edge("limits: { http2_max_streams: 3 }").start().await;
    let client = edge.connect_http2().await;
    client.exchange(&edge.get("/api/demo/x").bearer("k1")).await.expect_granted(200);
    assert_eq!(client.max_streams(), 3);
}

#[tokio::test]
async fn http_2_is_not_taken_where_it_is_not_enabled() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).start().await;
    let mut client = edge.connect().await;
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    let rest = within(ms(5000), "the end of the connection", client.rest()).await;
    assert!(!rest.starts_with(b"\0"), "no HTTP/2 SETTINGS: {rest:?}");
    assert!(origin.requests().is_empty());
}

#[track_caller]
fn expect_protocol_failure(answer: &Answer) {
    answer
        .expect_status(502)
        .expect_whole()
        .expect_header("requestrocket-proxy-message", "Target could not be reached: protocol")
        .expect_header("requestrocket-proxy-code", "proxy-access-granted");
}
