//! Sizes, budgets, and what one client may take.

use std::sync::Arc;

use crate::harness::edge::Target;
use crate::harness::request::chunked;
use crate::harness::{Answer, Edge, Origin, PATIENCE, ms, pattern, within};

const LIMIT: usize = 6 * 1024 * 1024;
const MIB: usize = 1024 * 1024;

fn sized(size: usize) -> Vec<u8> {
    [format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n").as_bytes(), &pattern(size)].concat()
}

fn in_chunks(size: usize) -> Vec<u8> {
    let body = pattern(size);
    let pieces: Vec<&[u8]> = body.chunks(60_000).collect();
    [&b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"[..], &chunked(&pieces)].concat()
}

fn until_close(size: usize) -> Vec<u8> {
    [&b"HTTP/1.1 200 OK\r\n\r\n"[..], &pattern(size)].concat()
}

#[track_caller]
fn expect_too_large(answer: &Answer) {
    answer.expect_refusal(413, "response-too-large", "Response payload exceeds 6MB limit", "http_response_body_size");
}

/// From one target to a client of either HTTP version: `LIMIT` bytes pass, one more does not.
async fn decide(target: impl Target, target_http: &str, size: usize) {
    let edge = Edge::to(target).target(target_http).http2().start().await;
    for http2 in [false, true] {
        let answer = edge.get("/api/demo/big").bearer("k1").http2(http2).await;
        if size <= LIMIT {
            answer.expect_granted(200).expect_header("content-length", &size.to_string()).expect_body(pattern(size));
        } else {
            expect_too_large(&answer);
        }
    }
}

#[tokio::test]
async fn a_response_of_six_mib_passes_and_one_byte_more_does_not() {
    for framing in [sized, in_chunks] {
        for size in [LIMIT, LIMIT + 1] {
            let origin = Origin::saying(framing(size)).await;
            decide(&origin, "http: 1", size).await;
        }
    }
}

#[tokio::test]
async fn a_response_that_ends_with_its_connection_is_measured_too() {
    for size in [LIMIT, LIMIT + 1] {
        let answer = Arc::new(until_close(size));
        let origin = Origin::scripted(move |mut peer| {
            let answer = answer.clone();
            async move {
                peer.request().await;
                peer.send(&*answer).await;
                peer.half_close().await;
                peer.silence().await;
            }
        })
        .await;
        decide(&origin, "http: 1", size).await;
    }
}

#[tokio::test]
async fn a_response_from_an_http_2_target_is_measured_too() {
    for announced in [true, false] {
        for size in [LIMIT, LIMIT + 1] {
            let origin = Origin::http2_cleartext(move |mut stream| async move {
                let length = size.to_string();
                let headers = [("content-length", length.as_str())];
                stream.reply(200, if announced { &headers } else { &[] }, pattern(size)).await;
            })
            .await;
            decide(&origin, "http: 2", size).await;
        }
    }
}

#[tokio::test]
async fn a_connection_survives_a_413() {
    let origin = Origin::saying(in_chunks(2000)).await;
    let edge = Edge::to(&origin).proxy("max_response_body: 1000").start().await;
    let mut client = edge.connect().await;
    let answer = client.exchange(&edge.get("/api/demo/big").bearer("k1")).await;
    answer.expect_status(413).expect_reusable();
    client.exchange(&edge.get("/api/demo/big").bearer("no")).await.expect_denied();
}

#[tokio::test]
async fn a_request_body_of_ten_mib_passes_and_one_byte_more_does_not() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).http2().start().await;
    let body = pattern(10 * MIB);
    let one_more = pattern(10 * MIB + 1);
    for http2 in [false, true] {
        let post = || edge.post("/api/demo/upload").bearer("k1").http2(http2);
        for request in [post().body(body.clone()), post().pieces(body.chunks(65_000))] {
            request.await.expect_granted(200);
            assert!(origin.requests().last().expect("a request").body == body);
        }
        for request in [post().body(one_more.clone()), post().pieces(one_more.chunks(65_000))] {
            request.await.expect_refusal(
                413,
                "proxy-access-granted",
                "Request payload exceeds 10MB limit",
                "http_request_error",
            );
        }
    }
    assert!(origin.requests().iter().filter(|request| request.complete).count() == 4, "no cut upload looks whole");
}

#[tokio::test]
async fn an_announced_upload_over_the_limit_never_reaches_the_target() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).proxy("max_request_body: 1000").start().await;
    let mut client = edge.connect().await;
    client
        .send("POST /api/demo/x HTTP/1.1\r\nHost: e\r\nAuthorization: Bearer k1\r\nContent-Length: 1001\r\n\r\n")
        .await;
    client.answer().await.expect_status(413);
    assert_eq!(origin.connections(), 0);
}

#[tokio::test]
async fn held_responses_share_one_budget() {
    let answer = Arc::new(in_chunks(5 * MIB));
    let origin = Origin::scripted(move |peer| peer.keep_saying(answer.clone())).await;
    let edge = Edge::to(&origin).unhurried().edge("held_responses_memory: 30MiB").start().await;
    let expected = pattern(5 * MIB);
    let at_once = async |count: usize| {
        let request = |_| edge.get("/api/demo/big").bearer("k1").into_future();
        within(PATIENCE * 3, "all answers", futures::future::join_all((0..count).map(request))).await
    };
    for answer in at_once(6).await {
        answer.expect_granted(200);
        assert!(answer.body == expected, "a wrong body: {answer:?}");
    }
    let answers = at_once(200).await;
    let mut whole = 0;
    for answer in &answers {
        if answer.status == 200 {
            assert!(answer.body == expected, "a wrong body: {answer:?}");
            answer.expect_granted(200);
            whole += 1;
        } else {
            answer.expect_refusal(503, "proxy-access-granted", "Proxy is at capacity", "connection_limit_reached");
            assert!(answer.header("retry-after").is_some(), "{answer:?}");
        }
    }
    // Those that are refused late have held a part of it: how many of six pass then is chance.
    assert!(whole >= 1, "nobody passed");
    assert!(whole < 200, "1000 MiB fit into 30 MiB");
    // All of it is given back.
    edge.get("/api/demo/big").bearer("k1").await.expect_granted(200);
}

#[tokio::test]
async fn a_header_that_is_too_large_or_too_long_in_coming_is_refused() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin)
        .edge("limits: { max_header_bytes: 8KiB, max_headers: 30, header_timeout: 300ms }")
        .start()
        .await;
    let status = edge.get("/api/demo/x").bearer("k1").header("X-Large", &"x".repeat(9000)).await.status;
    assert!([400, 431].contains(&status), "{status}");
    let many = (0..40).fold(edge.get("/api/demo/x").bearer("k1"), |request, n| request.header(&format!("X-{n}"), "1"));
    let status = many.await.status;
    assert!([400, 431].contains(&status), "{status}");
    assert!(origin.requests().is_empty());

    let mut client = edge.connect().await;
    client.send("GET /api/demo/x HTTP/1.1\r\nHost: e\r\n").await;
    within(ms(2000), "the end of a header that does not come", client.rest()).await;
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).edge("limits: { keepalive_timeout: 1s }").start().await;
    let mut client = edge.connect().await;
    client.exchange(&edge.get("/api/demo/x").bearer("k1")).await.expect_granted(200).expect_reusable();
    let rest = within(ms(3000), "the end of an idle connection", client.rest()).await;
    assert!(rest.is_empty(), "{rest:?}");
}

#[tokio::test]
async fn a_connection_takes_a_bounded_number_of_requests() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).edge("limits: { requests_per_connection: 3 }").start().await;
    let mut client = edge.connect().await;
    let mut taken = 0;
    loop {
        let answer = client.exchange(&edge.get("/api/demo/x").bearer("k1")).await;
        answer.expect_granted(200);
        taken += 1;
        if !answer.reusable || taken == 10 {
            break;
        }
    }
    assert_eq!(taken, 3);
    assert!(client.rest().await.is_empty());
}

#[tokio::test]
async fn a_client_that_does_not_read_is_let_go() {
    let origin = Origin::saying(sized(5 * MIB)).await;
    let edge = Edge::to(&origin).edge("limits: { write_timeout: 500ms }").start().await;
    let mut client = edge.connect().await;
    // Many answers, of which not one is read: more than all buffers between here and there.
    for _ in 0..10 {
        client.send(edge.get("/api/demo/big").bearer("k1").head()).await;
    }
    origin.until("a request", |events| !events.requests.is_empty()).await;
    tokio::time::sleep(ms(2500)).await;
    let read = within(PATIENCE, "the end of the connection", client.rest()).await;
    assert!(read.len() < 20 * MIB, "{} bytes were still to be had", read.len());
}

#[tokio::test]
async fn a_refusal_leaves_the_connection_usable_after_a_small_body() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).start().await;
    let post = || edge.post("/api/demo/x").bearer("no");
    let mut closed = Vec::new();
    for (name, request) in [
        ("empty", post().body("")),
        ("sized", post().body(pattern(2000))),
        ("no chunks", post().pieces([""])),
        ("chunked", post().pieces([pattern(1000), pattern(1000)])),
    ] {
        let mut client = edge.connect().await;
        let answer = client.exchange(&request).await;
        answer.expect_denied();
        if !answer.reusable {
            closed.push(name);
            continue;
        }
        client.exchange(&edge.post("/api/demo/x").bearer("k1").body("b")).await.expect_granted(200).expect_reusable();
    }
    assert!(closed.is_empty(), "closed after {closed:?}");
    assert!(origin.requests().iter().all(|request| request.body == b"b"));
}

#[tokio::test]
async fn a_refusal_of_a_large_upload_still_arrives() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).start().await;
    for request in [
        edge.post("/api/demo/x").bearer("no").body(pattern(5 * MIB)),
        edge.post("/api/demo/x").bearer("no").pieces(pattern(5 * MIB).chunks(50_000)),
    ] {
        request.await.expect_denied();
    }
}
