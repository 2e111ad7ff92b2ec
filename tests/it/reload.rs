//! Reload: whole or not at all, while requests go on.

use crate::harness::{Edge, Origin, eventually, ms, origin, within};

const SECOND: &str =
    "proxies:\n  - { id: second, target: origin, target_credential: origin-key, proxy_credentials: [client] }\n";

#[tokio::test]
async fn hup_serves_a_new_proxy() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).unhurried().start().await;
    edge.get("/api/second/x").bearer("k1").await.expect_denied();
    edge.write("proxies.d/more.yaml", SECOND);
    edge.signal("HUP");
    eventually("the new proxy", async || edge.get("/api/second/x").bearer("k1").await.status == 200).await;
    edge.get("/api/demo/x").bearer("k1").await.expect_granted(200);
}

#[tokio::test]
async fn a_changed_file_is_noticed_without_a_signal() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).unhurried().start().await;
    edge.write("proxies.d/more.yaml", SECOND);
    eventually("the new proxy", async || edge.get("/api/second/x").bearer("k1").await.status == 200).await;
    std::fs::remove_file(edge.folder().join("proxies.d/more.yaml")).expect("just written");
    eventually("it is gone", async || edge.get("/api/second/x").bearer("k1").await.status == 403).await;
}

#[tokio::test]
async fn a_bad_file_keeps_what_is_running() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).unhurried().start().await;
    let third =
        SECOND.replace("proxies:\n", "").replace("second", "third").replace("target: origin,", "target: nowhere,");
    let fourth =
        SECOND.replace("proxies:\n", "").replace("second", "fourth").replace("[client]", "[client], timeout: 5x");
    edge.write("proxies.d/more.yaml", format!("{SECOND}{third}{fourth}"));
    edge.signal("HUP");
    eventually("the problems are logged", async || {
        let log = edge.stderr();
        log.contains("nowhere") && log.contains("5x") && log.contains("more.yaml")
    })
    .await;
    edge.get("/api/demo/x").bearer("k1").await.expect_granted(200);
    edge.get("/api/second/x").bearer("k1").await.expect_denied();

    edge.write("proxies.d/more.yaml", SECOND);
    edge.signal("HUP");
    eventually("the repaired file", async || edge.get("/api/second/x").bearer("k1").await.status == 200).await;
}

#[tokio::test]
async fn how_the_last_reload_went_is_a_metric() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).unhurried().start().await;
    for (content, successful) in [("proxies: 1\n", 0), (SECOND, 1), ("nonsense: 1\n", 0)] {
        edge.write("proxies.d/more.yaml", content);
        edge.signal("HUP");
        let line = format!("requestrocket_config_last_reload_successful {successful}");
        eventually(&line, async || edge.admin("/metrics").await.text().contains(&line)).await;
    }
}

#[tokio::test]
async fn a_credential_is_exchanged_by_a_reload() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).unhurried().start().await;
    edge.get("/api/demo/x").bearer("k1").await.expect_granted(200);
    let text = edge.read("proxies.d/demo.yaml").replace("value: k1", "value: k2").replace("value: t1", "value: t2");
    assert!(text.contains("k2") || text.contains("bearer"));
    edge.write("proxies.d/demo.yaml", text);
    edge.signal("HUP");
    eventually("the new credential", async || edge.get("/api/demo/x").bearer("k2").await.status == 200).await;
    edge.get("/api/demo/x").bearer("k1").await.expect_denied();
    assert_eq!(origin.requests().last().expect("a request").header("authorization"), Some("Bearer t2"));
}

#[tokio::test]
async fn requests_in_flight_and_connections_survive_a_reload() {
    let (origin, finish) = Origin::patient(origin::OK).await;
    let edge = Edge::to(&origin).unhurried().start().await;
    let mut idle = edge.connect().await;
    idle.exchange(&edge.get("/api/demo/x").bearer("k1")).await.expect_granted(200);
    let mut slow = edge.connect().await;
    slow.send(edge.get("/api/demo/slow").bearer("k1").head()).await;
    origin.until("the slow request", |events| events.requests.len() == 2).await;
    // The proxy that the slow request is on goes away.
    let text = edge.read("proxies.d/demo.yaml").replace("id: demo", "id: renamed");
    edge.write("proxies.d/demo.yaml", text);
    edge.signal("HUP");
    eventually("the new name", async || edge.get("/api/renamed/x").bearer("k1").await.status == 200).await;
    finish.send_replace(true);
    slow.answer().await.expect_granted(200).expect_body("ok");
    idle.exchange(&edge.get("/api/renamed/x").bearer("k1")).await.expect_granted(200);
}

#[tokio::test]
async fn no_request_fails_while_reloads_rain_down() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).unhurried().start().await;
    let stop = std::sync::atomic::AtomicBool::new(false);
    let requests = async {
        let mut client = edge.connect().await;
        let mut count = 0;
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            let answer = client.exchange(&edge.get("/api/demo/x").bearer("k1")).await;
            answer.expect_granted(200);
            if !answer.reusable {
                client = edge.connect().await;
            }
            count += 1;
        }
        count
    };
    let reloads = async {
        for round in 0..10 {
            edge.write("proxies.d/more.yaml", SECOND.replace("second", &format!("round-{round}")));
            edge.signal("HUP");
            let path = format!("/api/round-{round}/x");
            eventually("the round's proxy", async || edge.get(&path).bearer("k1").await.status == 200).await;
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    };
    let (count, ()) = tokio::join!(requests, reloads);
    assert!(count > 10, "{count} requests");
}

#[tokio::test]
async fn what_needs_a_restart_says_so() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).unhurried().start().await;
    let text = edge.read("edge.yaml").replace("threads: 2", "threads: 3");
    edge.write("edge.yaml", text);
    edge.signal("HUP");
    let hint = eventually("a hint about the restart", async || {
        let log = edge.stderr();
        log.contains("threads") && log.contains("restart")
    });
    within(ms(10_000), "a hint", hint).await;
    edge.get("/api/demo/x").bearer("k1").await.expect_granted(200);
}

#[tokio::test]
async fn a_listener_that_is_taken_out_serves_on_until_the_restart() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).unhurried().start().await;
    // Never bound: only the next start would.
    let text = edge.read("edge.yaml").replacen(
        "listeners:\n  - { address: 127.0.0.1:",
        "listeners:\n  - { address: 127.0.0.2:",
        1,
    );
    assert!(text.contains("127.0.0.2:"), "{text}");
    edge.write("edge.yaml", text);
    edge.signal("HUP");
    let hint = eventually("a hint about the restart", async || edge.stderr().contains("listeners"));
    within(ms(10_000), "a hint", hint).await;
    edge.get("/api/demo/x").bearer("k1").await.expect_granted(200);
}
