//! What is sent again, what never is, and on which connection.

use crate::harness::{Edge, Origin, eventually};

#[tokio::test]
async fn a_post_reaches_the_target_at_most_once() {
    for reset in [false, true] {
        // The first request on a connection is answered; the second one is read and then dropped.
        let origin = Origin::scripted(move |mut peer| async move {
            peer.request().await;
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            if peer.request().await.is_some() && reset {
                peer.reset();
            }
        })
        .await;
        let edge = Edge::to(&origin).start().await;
        let mut dropped = 0;
        for number in 0..20 {
            let body = format!("number {number}");
            let answer = edge.post("/api/demo/x").bearer("k1").body(body.as_str()).await;
            let arrived = origin.requests().iter().filter(|request| request.body == body.as_bytes()).count();
            assert_eq!(arrived, 1, "{answer:?} {:?}", origin.requests());
            if answer.status != 200 {
                answer.expect_unreachable("protocol", "connection_terminated");
                dropped += 1;
            }
        }
        assert!(dropped > 0, "no connection was used twice");
    }
}

#[tokio::test]
async fn a_connection_that_died_while_idle_is_noticed() {
    let (kill, killed) = tokio::sync::watch::channel(0);
    let origin = Origin::scripted(move |mut peer| {
        let mut killed = killed.clone();
        async move {
            let born = *killed.borrow();
            let dying = async {
                let _ = killed.wait_for(|round| *round > born).await;
            };
            tokio::pin!(dying);
            loop {
                tokio::select! {
                    request = peer.request() => match request {
                        Some(_) => peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await,
                        None => return,
                    },
                    () = &mut dying => return peer.reset(),
                };
            }
        }
    })
    .await;
    let edge = Edge::to(&origin).start().await;
    for round in 1..=5 {
        edge.get("/api/demo/x").bearer("k1").await.expect_granted(200);
        let before = origin.connections();
        kill.send_replace(round);
        // A GET may be sent again when it meets the corpse; it opens a connection that a POST can use.
        edge.get("/api/demo/x").bearer("k1").await.expect_granted(200);
        eventually("a new connection", async || origin.connections() > before).await;
        edge.post("/api/demo/x").bearer("k1").body("b").await.expect_granted(200);
    }
}

#[tokio::test]
async fn a_get_survives_a_stale_connection() {
    // Closes, without a word, when the second request comes: what a target does whose idle time is over.
    let origin = Origin::scripted(|mut peer| async move {
        peer.request().await;
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        peer.head().await;
    })
    .await;
    let edge = Edge::to(&origin).start().await;
    for _ in 0..4 {
        edge.get("/api/demo/x").bearer("k1").await.expect_granted(200);
    }
}

#[tokio::test]
async fn a_failure_of_the_target_leaves_the_clients_connection_usable() {
    let mut closed = Vec::new();
    let scripts: [(&str, &str, u16); 4] = [
        ("reset", "", 502),
        ("cut chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", 502),
        ("nonsense", "nonsense\r\n\r\n", 502),
        ("silence", "", 504),
    ];
    for (name, bytes, status) in scripts {
        let origin = Origin::scripted(move |mut peer| async move {
            peer.request().await;
            peer.send(bytes).await;
            match name {
                "silence" => peer.silence().await,
                "reset" => peer.reset(),
                _ => {}
            }
        })
        .await;
        let edge = Edge::to(&origin).proxy("timeout: 300ms").start().await;
        let mut client = edge.connect().await;
        let answer = client.exchange(&edge.get("/api/demo/x").bearer("k1")).await;
        assert_eq!(answer.status, status, "{name}: {answer:?}");
        if answer.reusable {
            let post = edge.post("/api/demo/x").bearer("k1").body("b");
            client.exchange(&post).await.expect_status(status).expect_reusable();
        } else {
            closed.push(name);
        }
    }
    assert!(closed.is_empty(), "closed after {closed:?}");
}
