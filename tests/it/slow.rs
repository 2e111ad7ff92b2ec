//! Clients that are slow on purpose, or idle: each is ended in its time, costs little, and keeps nobody else waiting.

use std::time::Instant;

use tokio::net::TcpSocket;

use crate::harness::request::chunked;
use crate::harness::{Connection, Edge, Origin, PATIENCE, eventually, ms, pattern, within};

const GET: &str = "GET /api/demo/x HTTP/1.1\r\nHost: e\r\nAuthorization: Bearer k1\r\n\r\n";

/// An HTTP/2 frame.
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
}

/// An HTTP/2 client that lets so much through at first (SETTINGS_INITIAL_WINDOW_SIZE), and its request.
fn request_with_window(size: u16) -> Vec<u8> {
    let window = [&[0, 4, 0, 0][..], &size.to_be_bytes()].concat();
    let mut block = vec![0x82, 0x86]; // GET, http
    for (name, value) in [(&[0x04][..], "/api/demo/big"), (&[0x01], "edge.test"), (&[0x0f, 0x08], "Bearer k1")] {
        block.extend(name);
        block.push(u8::try_from(value.len()).expect("short"));
        block.extend(value.as_bytes());
    }
    [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(4, 0, 0, &window), &frame(1, 5, 1, &block)].concat()
}

#[tokio::test]
async fn many_headers_that_drip_are_ended_and_nobody_waits_for_them() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).unhurried().edge("limits: { header_timeout: 1s }").start().await;
    let mut slow = Vec::new();
    for _ in 0..50 {
        slow.push(edge.connect().await);
    }
    let since = Instant::now();
    for byte in GET.as_bytes().chunks(1).take(8) {
        for client in &mut slow {
            client.send(byte).await;
        }
        edge.get("/api/demo/x").bearer("k1").await.expect_granted(200);
        tokio::time::sleep(ms(100)).await;
    }
    for mut client in slow {
        assert!(client.rest().await.is_empty());
    }
    assert!(since.elapsed() < ms(4000), "ended after {:?}", since.elapsed());
    assert_eq!(edge.metric("requestrocket_client_connections").await, Some(0.0));
}

#[tokio::test]
async fn the_next_header_on_a_connection_has_a_headers_time_from_its_first_byte_on() {
    let origin = Origin::replying(200).await;
    let limits = "limits: { header_timeout: 500ms, keepalive_timeout: 30s }";
    let edge = Edge::to(&origin).unhurried().http2().edge(limits).start().await;
    let mut client = edge.connect().await;
    for _ in 0..3 {
        client.exchange(&edge.get("/api/demo/x").bearer("k1")).await.expect_granted(200).expect_reusable();
        tokio::time::sleep(ms(800)).await; // idle for longer than a header may take
    }
    let since = Instant::now();
    client.send(&GET[..20]).await;
    assert!(client.rest().await.is_empty());
    assert!(since.elapsed() >= ms(400) && since.elapsed() < ms(5000), "ended after {:?}", since.elapsed());
}

#[tokio::test]
async fn an_http2_client_that_lets_nothing_through_is_ended_and_frees_the_target() {
    let origin =
        Origin::saying(format!("HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n{}", "x".repeat(3_000_000))).await;
    let edge = Edge::to(&origin).unhurried().http2().edge("limits: { write_timeout: 500ms }").start().await;
    let mut shut = Vec::new();
    for _ in 0..5 {
        let mut client = edge.connect().await;
        client.send(request_with_window(0)).await;
        shut.push(client);
    }
    origin.until("their requests", |events| events.requests.len() == 5).await;
    edge.get("/api/demo/big").bearer("k1").await.expect_granted(200);
    eventually("nothing is under way", async || {
        edge.metric("requestrocket_requests_in_flight").await == Some(0.0)
            && edge.metric("requestrocket_held_bytes").await == Some(0.0)
    })
    .await;
    edge.get("/api/demo/big").bearer("k1").await.expect_granted(200);
}

#[tokio::test]
async fn a_client_that_does_not_read_leaves_little_with_the_kernel() {
    const SIZE: usize = 5 << 20;
    let origin = Origin::saying(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n{}", "x".repeat(SIZE))).await;
    let edge = Edge::to(&origin).edge("limits: { write_timeout: 500ms }").start().await;
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(10_000).expect("a TCP socket");
    let mut client = Connection::over(socket.connect(edge.address()).await.expect("the edge listens"));
    client.send(edge.get("/api/demo/big").bearer("k1").head()).await;
    origin.until("the request", |events| events.requests.len() == 1).await;
    eventually("the client is let go", async || edge.metric("requestrocket_client_connections").await == Some(0.0))
        .await;
    // What was on its way is still to be had. Left to itself the kernel would take some 3 MB of it.
    let left = client.rest().await.len();
    assert!(left < 1_000_000, "{left} bytes");
}

#[tokio::test]
async fn an_http2_client_that_takes_no_notice_does_not_hold_up_a_drain() {
    let origin = Origin::replying(200).await;
    let yaml = "limits: { write_timeout: 1s }\nshutdown: { drain: 60s }";
    let mut edge = Edge::to(&origin).http2().edge(yaml).start().await;
    let mut mute = edge.connect().await;
    mute.send(request_with_window(1000)).await;
    origin.until("its request", |events| events.requests.len() == 1).await;
    let mut silent = edge.connect().await;
    silent.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.send(frame(4, 0, 0, &[])).await;
    silent.bytes(9).await;
    let asked = Instant::now();
    edge.signal("TERM");
    // Neither answers the PING that comes with GOAWAY.
    assert_eq!(edge.exited().await, Some(0));
    assert!(asked.elapsed() < ms(15_000), "left after {:?}", asked.elapsed());
    assert!(!edge.stderr().contains("still connected"), "{}", edge.stderr());
}

#[tokio::test]
async fn requests_behind_one_another_are_answered_in_turn_however_they_arrive() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).unhurried().http2().edge("limits: { keepalive_timeout: 2s }").start().await;
    let post = |framing: &str| {
        format!("POST /api/demo/x HTTP/1.1\r\nHost: e\r\nAuthorization: Bearer k1\r\n{framing}\r\n\r\n").into_bytes()
    };
    let sized = [post("Content-Length: 5000"), pattern(5000)].concat();
    let in_chunks = [post("Transfer-Encoding: chunked"), chunked(&[pattern(5000)])].concat();
    let bare = GET.replace("\r\n", "\n").into_bytes();
    let get = GET.as_bytes().to_vec();
    for requests in [
        vec![get.clone(), get.clone(), get.clone()],
        vec![sized.clone(), get.clone(), sized],
        vec![in_chunks.clone(), in_chunks, get.clone()],
        vec![[b"\r\n", &get[..]].concat(), get, bare.clone()],
    ] {
        let bytes = requests.concat();
        // All in one, cut after the first byte of the second, and before the last byte of the first.
        for cut in [bytes.len(), requests[0].len() + 1, requests[0].len() - 1] {
            let mut client = edge.connect().await;
            let (start, rest) = bytes.split_at(cut);
            client.send(start).await;
            if cut != bytes.len() {
                tokio::time::sleep(ms(50)).await;
                client.send(rest).await;
            }
            for (number, request) in requests.iter().enumerate() {
                let answer = client.answer().await;
                // Bare line feeds are refused, and what comes behind them is nobody's request.
                let expected = if *request == bare { 400 } else { 200 };
                assert_eq!(answer.status, expected, "request {number}, cut at {cut}: {answer:?}");
                answer.expect_whole();
                if *request != bare {
                    answer.expect_reusable();
                }
            }
            if requests.contains(&bare) {
                assert!(
                    within(PATIENCE, "the end of a connection with bare line feeds", client.rest()).await.is_empty()
                );
                continue;
            }
            // And once it has been idle.
            tokio::time::sleep(ms(50)).await;
            client.exchange(&edge.get("/api/demo/x").bearer("k1")).await.expect_granted(200).expect_reusable();
            assert!(within(PATIENCE, "the end of an idle connection", client.rest()).await.is_empty());
        }
    }
}

#[tokio::test]
async fn an_idle_client_costs_little() {
    const CLIENTS: usize = 500;
    const MOST: usize = 30_000; // optimised, it is a good deal less; Pingora alone takes 110 KB
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).unhurried().start().await;
    let mut idle = Vec::new();
    let mut before = 0;
    for number in 0..CLIENTS + 100 {
        if number == 100 {
            before = edge.resident(); // what comes with the first of them does not come with each
        }
        let mut client = Connection::from("127.0.0.2", edge.address()).await;
        client.exchange(&edge.get("/api/demo/x").bearer("k1")).await.expect_granted(200).expect_reusable();
        idle.push(client);
    }
    let each = edge.resident().saturating_sub(before) / CLIENTS;
    assert!(each < MOST, "{each} bytes for each");
    assert_eq!(edge.metric("requestrocket_client_connections").await, Some((CLIENTS + 100) as f64));
}
