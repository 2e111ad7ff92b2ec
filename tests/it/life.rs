//! How the process leaves, and what a running one notices.

use std::os::unix::fs::symlink;
use std::time::Instant;

use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::harness::edge::EdgeBuilder;
use crate::harness::{Edge, Origin, eventually, h2, ms, within};

const SECOND: &str =
    "proxies:\n  - { id: second, target: origin, target_credential: origin-key, proxy_credentials: [client] }\n";

/// A target that answers `/slow` when it is told to, and everything else at once.
async fn patient() -> (Origin, watch::Sender<bool>) {
    // Without a length: held until it ends.
    Origin::patient("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nslow\r\n0\r\n\r\n").await
}

fn generation(edge: &Edge) -> usize {
    edge.stderr().matches("configuration taken").count()
}

#[tokio::test]
async fn term_takes_readiness_first_and_goes_on_accepting_for_the_lead() {
    let origin = Origin::replying(200).await;
    let mut edge = Edge::to(&origin).unhurried().edge("shutdown: { lead: 1s, drain: 5s }").start().await;
    edge.admin("/readyz").await.expect_status(200).expect_body("ready\n");
    let asked = Instant::now();
    edge.signal("TERM");
    eventually("not ready", async || edge.admin("/readyz").await.status == 503).await;
    assert!(asked.elapsed() < ms(700), "{:?}", asked.elapsed());
    edge.admin("/livez").await.expect_status(200);
    // A balancer that has not looked yet sends more clients.
    let answer = edge.get("/api/demo/x").bearer("k1").await;
    answer.expect_granted(200).expect_header("connection", "close");
    assert_eq!(edge.exited().await, Some(0));
    assert!(asked.elapsed() >= ms(1000), "left after {:?}", asked.elapsed());
    assert!(asked.elapsed() < ms(3000), "left after {:?}", asked.elapsed());
}

#[tokio::test]
async fn term_ends_busy_keep_alive_connections_with_their_next_answer() {
    let (origin, finish) = patient().await;
    let mut edge = Edge::to(&origin).unhurried().edge("shutdown: { lead: 500ms, drain: 10s }").start().await;
    let mut used = edge.connect().await;
    used.exchange(&edge.get("/api/demo/x").bearer("k1")).await.expect_granted(200).expect_reusable();
    let mut slow = edge.connect().await;
    slow.send(edge.get("/api/demo/slow").bearer("k1").head()).await;
    origin.until("the slow request", |events| events.requests.len() == 2).await;
    edge.signal("TERM");
    eventually("leaving", async || edge.stderr().contains("leaving: ")).await;
    let answer = used.exchange(&edge.get("/api/demo/x").bearer("k1")).await;
    answer.expect_granted(200).expect_header("connection", "close");
    assert!(used.rest().await.is_empty());
    finish.send_replace(true);
    slow.answer().await.expect_granted(200).expect_body("slow").expect_header("connection", "close");
    assert_eq!(edge.exited().await, Some(0));
}

#[tokio::test]
async fn term_finishes_requests_of_both_versions_and_leaves_the_moment_they_are_done() {
    let (origin, finish) = patient().await;
    let mut edge = Edge::to(&origin).unhurried().http2().edge("shutdown: { drain: 60s }").start().await;
    // Idle ones do not hold it up.
    let mut idle = edge.connect().await;
    idle.exchange(&edge.get("/api/demo/x").bearer("k1")).await.expect_granted(200);
    let silent = edge.connect_http2().await;
    silent.exchange(&edge.get("/api/demo/x").bearer("k1")).await.expect_granted(200);
    let mut one = edge.connect().await;
    one.send(edge.get("/api/demo/slow").bearer("k1").head()).await;
    let two = edge.connect_http2().await;
    let (first, _) = two.open(&edge.get("/api/demo/slow").bearer("k1"), true).await;
    let (second, _) = two.open(&edge.get("/api/demo/slow").bearer("k1"), true).await;
    origin.until("three slow requests", |events| events.requests.len() == 5).await;
    edge.signal("TERM");
    eventually("nobody new is accepted", async || TcpStream::connect(edge.address()).await.is_err()).await;
    finish.send_replace(true);
    one.answer().await.expect_granted(200).expect_body("slow");
    for answer in [first, second] {
        h2::receive(answer).await.expect_granted(200).expect_body("slow");
    }
    let done = Instant::now();
    assert_eq!(edge.exited().await, Some(0));
    assert!(done.elapsed() < ms(2000), "left {:?} after the last answer", done.elapsed());
}

#[tokio::test]
async fn term_with_nothing_to_do_leaves_at_once() {
    let mut edge = Edge::to("http://127.0.0.1:1").http2().start().await;
    let _silent = edge.connect().await;
    let asked = Instant::now();
    edge.signal("TERM");
    assert_eq!(edge.exited().await, Some(0));
    assert!(asked.elapsed() < ms(2000), "{:?}", asked.elapsed());
}

#[tokio::test]
async fn term_does_not_wait_longer_than_its_bound() {
    let origin = Origin::silent().await;
    let mut edge = Edge::to(&origin).edge("shutdown: { drain: 1s }").start().await;
    let mut client = edge.connect().await;
    client.send(edge.get("/api/demo/x").bearer("k1").head()).await;
    origin.until("the request", |events| events.requests.len() == 1).await;
    let asked = Instant::now();
    edge.signal("TERM");
    assert_eq!(edge.exited().await, Some(0));
    assert!(asked.elapsed() >= ms(900) && asked.elapsed() < ms(3000), "{:?}", asked.elapsed());
    assert!(edge.stderr().contains("1 clients are still connected"), "{}", edge.stderr());
}

#[tokio::test]
async fn int_cuts_a_drain_short() {
    let origin = Origin::silent().await;
    let mut edge = Edge::to(&origin).edge("shutdown: { drain: 60s }").start().await;
    let mut client = edge.connect().await;
    client.send(edge.get("/api/demo/x").bearer("k1").head()).await;
    origin.until("the request", |events| events.requests.len() == 1).await;
    edge.signal("TERM");
    eventually("leaving", async || edge.stderr().contains("leaving: ")).await;
    let asked = Instant::now();
    edge.signal("INT");
    edge.exited().await;
    assert!(asked.elapsed() < ms(2000), "{:?}", asked.elapsed());
}

#[tokio::test]
async fn other_signals_do_not_disturb_a_drain() {
    let (origin, finish) = patient().await;
    let mut edge = Edge::to(&origin).unhurried().edge("shutdown: { drain: 60s }").start().await;
    let mut slow = edge.connect().await;
    slow.send(edge.get("/api/demo/slow").bearer("k1").head()).await;
    origin.until("the slow request", |events| events.requests.len() == 1).await;
    edge.signal("TERM");
    eventually("nobody new is accepted", async || TcpStream::connect(edge.address()).await.is_err()).await;
    for signal in ["TERM", "HUP", "QUIT", "TERM"] {
        edge.signal(signal);
    }
    finish.send_replace(true);
    slow.answer().await.expect_granted(200).expect_body("slow");
    assert_eq!(edge.exited().await, Some(0));
    assert!(edge.successors().is_empty());
}

#[tokio::test]
async fn a_request_sees_one_generation_from_start_to_end() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).unhurried().start().await;
    let mut slow = edge.connect().await;
    let request = edge.post("/api/demo/upload").bearer("k1").header("Content-Length", "6");
    slow.send([&request.head()[..], b"abc"].concat()).await;
    origin.until("its header", |events| events.requests.len() == 1).await;
    let text = edge.read("proxies.d/demo.yaml").replace("id: demo", "id: other").replace("value: t1", "value: t2");
    edge.write("proxies.d/demo.yaml", text);
    edge.signal("HUP");
    eventually("demo is gone", async || edge.get("/api/demo/x").bearer("k1").await.status == 403).await;
    slow.send("def").await;
    slow.answer().await.expect_granted(200);
    let upload = origin.requests().remove(0);
    assert_eq!((upload.body.as_slice(), upload.header("authorization")), (&b"abcdef"[..], Some("Bearer t1")));
    // The next one on the same connection sees the next generation.
    slow.exchange(&edge.get("/api/demo/x").bearer("k1")).await.expect_denied();
}

/// A volume as Kubernetes mounts it: files are links into `..data`, which is a link to the folder of a version.
fn volume(edge: EdgeBuilder) -> EdgeBuilder {
    edge.edge("access_log: { path: off }")
}

#[tokio::test]
async fn a_swapped_link_to_a_folder_is_noticed() {
    let origin = Origin::replying(200).await;
    let edge = volume(Edge::to(&origin).unhurried()).start().await;
    let fragments = edge.folder().join("proxies.d");
    for (version, id) in [("..v1", "second"), ("..v2", "third")] {
        std::fs::create_dir(fragments.join(version)).expect("the folder is ours");
        std::fs::write(fragments.join(version).join("more.yaml"), SECOND.replace("second", id)).expect("ours");
    }
    symlink("..v1", fragments.join("..data")).expect("the folder is ours");
    symlink("..data/more.yaml", fragments.join("more.yaml")).expect("the folder is ours");
    eventually("the first version", async || edge.get("/api/second/x").bearer("k1").await.status == 200).await;
    symlink("..v2", fragments.join("..data_tmp")).expect("the folder is ours");
    std::fs::rename(fragments.join("..data_tmp"), fragments.join("..data")).expect("the folder is ours");
    eventually("the second version", async || edge.get("/api/third/x").bearer("k1").await.status == 200).await;
    edge.get("/api/second/x").bearer("k1").await.expect_denied();
}

#[tokio::test]
async fn a_changed_secret_file_is_noticed() {
    let origin = Origin::replying(200).await;
    let credential = "type: bearer, secret: { file: token }";
    let edge = Edge::to(&origin).unhurried().target_credential(credential).file("proxies.d/token", "old").start().await;
    edge.get("/api/demo/x").bearer("k1").await.expect_granted(200);
    edge.write("proxies.d/token", "new\n");
    eventually("the new token", async || {
        edge.get("/api/demo/x").bearer("k1").await.expect_granted(200);
        origin.requests().last().is_some_and(|request| request.header("authorization") == Some("Bearer new"))
    })
    .await;
}

#[tokio::test]
async fn an_access_log_among_the_configuration_reloads_nothing() {
    for log in ["access.log", "proxies.d/access.log"] {
        reloads_nothing(log).await;
    }
}

async fn reloads_nothing(log: &str) {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).unhurried().edge(&format!("access_log: {{ path: {log} }}")).start().await;
    let mut client = edge.connect().await;
    // Longer than the time that changed files are given to settle.
    let until = Instant::now() + ms(1000);
    while Instant::now() < until {
        client.exchange(&edge.get("/api/demo/x").bearer("k1")).await.expect_granted(200);
        tokio::time::sleep(ms(20)).await;
    }
    assert!(edge.read(log).lines().count() > 5);
    assert_eq!(generation(&edge), 0, "{}", edge.stderr());
    edge.signal("HUP");
    let once = eventually("one reload", async || generation(&edge) == 1);
    within(ms(5000), "one reload", once).await;
}
