//! Clients side by side: no answer crosses, no memory is taken in their name.

use crate::harness::request::chunked;
use crate::harness::{Answer, Edge, Origin, eventually, pattern};

const MIB: usize = 1024 * 1024;

/// Answers with what it was asked for, sized or in chunks, at times over the limit, at times not at all.
async fn echoing() -> Origin {
    Origin::scripted(|mut peer| async move {
        while let Some(request) = peer.request().await {
            let name = request.target.split('/').nth(1).unwrap_or_default().to_owned();
            let body = format!("{name} ").repeat(500);
            if request.target.ends_with("/sized") {
                peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())).await;
            } else if request.target.ends_with("/chunked") {
                peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
                peer.send(chunked(&body.as_bytes().chunks(333).collect::<Vec<_>>())).await;
            } else if request.target.ends_with("/large") {
                peer.send(format!("HTTP/1.1 200 OK\r\nX-Name: {name}\r\nTransfer-Encoding: chunked\r\n\r\n")).await;
                peer.send(chunked(&[body.repeat(20)])).await;
            } else {
                peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{name}")).await;
                return peer.reset();
            }
        }
    })
    .await
}

#[track_caller]
fn check(answer: &Answer, name: &str, kind: &str) {
    let body = format!("{name} ").repeat(500);
    match kind {
        "sized" | "chunked" => {
            answer.expect_granted(200).expect_body(body);
        }
        "large" => {
            answer.expect_status(413).expect_whole().expect_header("requestrocket-proxy-code", "response-too-large");
        }
        // A visibly cut answer may hold what its own target has sent, and nothing else.
        _ if answer.status == 200 => {
            answer.expect_cut();
            assert!(name.as_bytes().starts_with(&answer.body), "{answer:?}");
        }
        _ => {
            answer.expect_status(502).expect_whole();
        }
    }
}

#[tokio::test]
async fn no_answer_crosses_between_clients() {
    let origin = echoing().await;
    let edge = Edge::to(&origin).http2().unhurried().proxy("max_response_body: 50KiB").start().await;
    let shared = edge.connect_http2().await;
    let client = async |number: usize| {
        let mut own = edge.connect().await;
        for round in 0..15 {
            let name = format!("client-{number}-{round}");
            let kind = ["sized", "chunked", "large", "sized", "chunked", "broken"][(number + round) % 6];
            let request = edge.get(&format!("/api/demo/{name}/{kind}")).bearer("k1");
            if number.is_multiple_of(3) {
                check(&shared.exchange(&request).await, &name, kind);
                continue;
            }
            let answer = own.exchange(&request).await;
            check(&answer, &name, kind);
            if !answer.reusable {
                own = edge.connect().await;
            }
        }
    };
    futures::future::join_all((0..30).map(client)).await;
}

#[tokio::test]
async fn uploads_are_not_collected_in_memory() {
    let origin = Origin::scripted(|mut peer| async move {
        peer.head().await;
        peer.stop_reading().await;
    })
    .await;
    let edge = Edge::to(&origin).unhurried().start().await;
    edge.get("/api/demo/x").bearer("no").await.expect_denied();
    let before = edge.resident();
    let uploads = (0..20).map(async |_| {
        let mut client = edge.connect().await;
        client.exchange(&edge.post("/api/demo/x").bearer("k1").body(pattern(10 * MIB))).await
    });
    let watch = async {
        origin.until("20 uploads", |events| events.requests.len() == 20).await;
        tokio::time::sleep(std::time::Duration::from_secs(1)).await; // all that the edge would take, it has taken by now
    };
    tokio::select! {
        () = watch => {}
        answers = futures::future::join_all(uploads) => panic!("nobody answers: {answers:?}"),
    }
    let grown = edge.resident().saturating_sub(before);
    assert!(grown < 60 * MIB, "200 MiB are offered, and {grown} bytes were taken");
}

#[tokio::test]
async fn answers_that_nobody_reads_are_not_collected_in_memory() {
    let origin = Origin::saying(
        [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 6 * MIB).as_bytes(), &pattern(6 * MIB)].concat(),
    )
    .await;
    let edge = Edge::to(&origin).unhurried().start().await;
    edge.get("/api/demo/x").bearer("no").await.expect_denied();
    let before = edge.resident();
    let mut clients = Vec::new();
    for _ in 0..30 {
        let mut client = edge.connect().await;
        client.send(edge.get("/api/demo/x").bearer("k1").head()).await;
        clients.push(client);
    }
    origin.until("30 requests", |events| events.requests.len() == 30).await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let grown = edge.resident().saturating_sub(before);
    assert!(grown < 60 * MIB, "180 MiB are offered, and {grown} bytes were taken");
    drop(clients);
    eventually("all are let go", async || edge.get("/api/demo/x").bearer("k1").await.status == 200).await;
}
