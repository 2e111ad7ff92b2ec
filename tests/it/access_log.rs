//! The access log: one line a request, which never slows one down.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::edge::BINARY;
use crate::harness::port::Port;
use crate::harness::{Edge, Origin, eventually, ms};

/// The fields in their order, with a type for each: s(tring), n(umber), b(oolean), l(ist).
const FIELDS: [(&str, char); 23] = [
    ("time", 's'),
    ("request_id", 's'),
    ("region", 's'),
    ("proxy", 's'),
    ("credential", 's'),
    ("client", 's'),
    ("method", 's'),
    ("path", 's'),
    ("query_keys", 'l'),
    ("status", 'n'),
    ("proxy_code", 's'),
    ("refusal", '-'),
    ("error", '-'),
    ("duration_ms", 'n'),
    ("target_ms", 'n'),
    ("target", 's'),
    ("reused", 'b'),
    ("bytes_in", 'n'),
    ("bytes_out", 'n'),
    ("http", 's'),
    ("tls", 'b'),
    ("user_agent", 's'),
    ("traceparent", 's'),
];

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[tokio::test]
async fn a_line_has_the_documented_fields_in_their_order() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).start().await;
    let answer = edge
        .post("/api/demo/users?page=2&q=canary-value&Authorization=Bearer%20canary-guess")
        .bearer("k1")
        .header("User-Agent", "test/1.0 \"quoted\"")
        .header("traceparent", TRACEPARENT)
        .header("X-Request-Id", "from-the-client-1")
        .body("hello")
        .await;
    answer.expect_granted(200);
    let line = edge.access_log(1).await.remove(0);
    let text = edge.stdout();
    let mut at = 0;
    for (field, kind) in FIELDS {
        let found = text.find(&format!("\"{field}\":")).unwrap_or_else(|| panic!("{field} is missing: {text}"));
        assert!(found > at || at == 0, "{field} is out of order: {text}");
        at = found;
        let value = &line[field];
        let right = match kind {
            's' => value.is_string(),
            'n' => value.is_number(),
            'b' => value.is_boolean(),
            'l' => value.is_array(),
            _ => value.is_null(),
        };
        assert!(right, "{field}: {value}");
    }
    assert_eq!(line.as_object().map(serde_json::Map::len), Some(FIELDS.len()), "{line}");
    for (field, value) in [
        ("request_id", json!("from-the-client-1")),
        ("region", json!("test-1")),
        ("proxy", json!("demo")),
        ("credential", json!("client")),
        ("client", json!("127.0.0.1")),
        ("method", json!("POST")),
        ("path", json!("/users")),
        ("query_keys", json!(["page", "q"])),
        ("status", json!(200)),
        ("proxy_code", json!("proxy-access-granted")),
        ("target", json!(origin.address().to_string())),
        ("reused", json!(false)),
        ("bytes_in", json!(5)),
        ("bytes_out", json!(2)),
        ("http", json!("1.1")),
        ("tls", json!(false)),
        ("user_agent", json!("test/1.0 \"quoted\"")),
        ("traceparent", json!(TRACEPARENT)),
    ] {
        assert_eq!(line[field], value, "{field}: {line}");
    }
    let (all, target) = (line["duration_ms"].as_f64(), line["target_ms"].as_f64());
    assert!(target > Some(0.0) && all >= target, "{line}");
    let time = line["time"].as_str().expect("a string");
    assert!(time.len() == 24 && time.starts_with("20") && time.ends_with('Z'), "{time}");
    assert!(!text.contains("canary"), "{text}");
}

/// One line a request, whose interesting part is as expected.
fn expect(line: &Value, what: &str, expected: Value) {
    for (field, value) in expected.as_object().expect("fields") {
        assert_eq!(&line[field], value, "{what}, {field}: {line}");
    }
}

#[tokio::test]
async fn a_line_tells_how_the_request_ended() {
    let origin = Origin::scripted(|mut peer| async move {
        while let Some(request) = peer.request().await {
            match request.target.as_str() {
                "/large" => drop(peer.send("HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n").await),
                "/silent" => return peer.silence().await,
                _ => drop(peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await),
            }
        }
    })
    .await;
    let edge = Edge::to(&origin)
        .client("rate_limit: { requests_per_minute: 6 }")
        .proxy("timeout: 300ms, max_response_body: 1KiB, max_request_body: 8")
        .fragment(
            "targets:\n  - { id: nowhere, base_url: 'http://127.0.0.1:1' }\n\
             proxies:\n  - { id: broken, target: nowhere, target_credential: origin-key, proxy_credentials: [client] }\n",
        )
        .start()
        .await;
    let mut lines = 0;
    for (request, expected) in [
        (
            edge.get("/api/demo/x").bearer("k1"),
            json!({ "status": 200, "bytes_in": 0, "bytes_out": 2, "refusal": null }),
        ),
        (edge.request("HEAD", "/api/demo/x").bearer("k1"), json!({ "status": 200, "bytes_out": 0, "method": "HEAD" })),
        (
            edge.get("/api/demo/x").bearer("no"),
            json!({ "status": 403, "refusal": "credential_denied", "proxy": "demo", "credential": null, "target": null,
                "reused": null, "target_ms": null, "proxy_code": "proxy-access-denied", "error": "http_request_denied" }),
        ),
        (
            edge.get("/elsewhere?a=1"),
            json!({ "status": 404, "proxy": null, "path": null, "query_keys": [], "error": "http_request_error" }),
        ),
        (
            edge.post("/api/demo/x").bearer("k1").body("123456789"),
            json!({ "status": 413, "error": "http_request_error", "target": null }),
        ),
        (
            edge.get("/api/demo/large").bearer("k1"),
            json!({ "status": 413, "proxy_code": "response-too-large", "error": "http_response_body_size" }),
        ),
        (
            edge.get("/api/broken/x").bearer("k1"),
            json!({ "status": 502, "error": "connection_refused", "target": "127.0.0.1:1" }),
        ),
        (edge.get("/api/demo/silent").bearer("k1"), json!({ "status": 504, "error": "http_response_timeout" })),
        (
            edge.get("/api/demo/x").bearer("k1"),
            json!({ "status": 200, "credential": "client", "proxy_code": "proxy-access-granted" }),
        ),
        (
            edge.get("/api/demo/x").bearer("k1"),
            json!({ "status": 429, "credential": "client", "target": null, "error": "http_request_denied" }),
        ),
    ] {
        let what = format!("{} {}", request.method, request.target);
        let answer = request.await;
        lines += 1;
        let line = edge.access_log(lines).await.pop().expect("counted");
        assert_eq!(line["status"], answer.status, "{what}: {line}");
        assert_eq!(line["bytes_out"], answer.body.len(), "{what}: {line}");
        assert_eq!(line["request_id"].as_str(), answer.header("x-request-id"), "{what}: {line}");
        assert_eq!(line["proxy_code"].as_str(), answer.header("requestrocket-proxy-code"), "{what}: {line}");
        assert_eq!(line["refusal"].is_null(), answer.status == 200, "{what}: {line}");
        expect(&line, &what, expected);
    }
}

#[tokio::test]
async fn a_client_that_goes_away_is_a_line_without_a_status() {
    let origin = Origin::silent().await;
    let edge = Edge::to(&origin).unhurried().start().await;
    let mut client = edge.connect().await;
    client.send(edge.get("/api/demo/x").bearer("k1").head()).await;
    origin.until("the request", |events| events.requests.len() == 1).await;
    drop(client);
    let line = edge.access_log(1).await.remove(0);
    expect(&line, "gone", json!({ "status": null, "bytes_out": 0, "proxy": "demo", "credential": "client" }));

    let mut client = edge.connect().await;
    let request = edge.post("/api/demo/x").bearer("k1").header("Content-Length", "10").head();
    client.send([&request[..], b"abc"].concat()).await;
    origin.until("the upload", |events| events.requests.len() == 2).await;
    drop(client);
    let line = edge.access_log(2).await.remove(1);
    expect(&line, "gone while sending", json!({ "status": null, "bytes_in": 3, "bytes_out": 0 }));
}

#[tokio::test]
async fn what_is_no_traceparent_is_not_logged_as_one() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).unhurried().start().await;
    for nonsense in ["1", "00-xyz-1-01", &TRACEPARENT.replace("4bf", "zzz"), &format!("{TRACEPARENT}-more")] {
        edge.get("/api/demo/x").bearer("k1").header("traceparent", nonsense).await.expect_granted(200);
    }
    for line in edge.access_log(4).await {
        assert_eq!(line["traceparent"], Value::Null, "{line}");
        assert_eq!(line["request_id"].as_str().map(str::len), Some(32), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipe_that_nobody_reads_stalls_no_request() {
    // More than what may wait, what the writer holds and the pipe's own buffer together.
    const LINES: usize = 20_000;
    let mut edge = Edge::to("http://127.0.0.1:1").unread_stdout().start().await;
    let request = edge.get("/elsewhere");
    let mut longest = Duration::ZERO;
    let mut client = edge.connect().await;
    for _ in 0..LINES {
        let answer = client.exchange(&request).await;
        answer.expect_status(404);
        longest = longest.max(answer.took);
        if !answer.reusable {
            client = edge.connect().await;
        }
    }
    assert!(longest < ms(1000), "a request took {longest:?}");
    let dropped = edge.metric("requestrocket_access_log_dropped_total").await.expect("a counter");
    assert!(dropped > 0.0 && dropped < LINES as f64, "{dropped}");
    drop(client);
    let asked = Instant::now();
    edge.signal("TERM");
    assert_eq!(edge.exited().await, Some(0));
    assert!(asked.elapsed() < ms(5000), "left after {:?}", asked.elapsed());
}

#[tokio::test]
async fn a_file_that_cannot_be_opened_is_said_at_once() {
    let (port, admin) = (Port::claim(), Port::claim());
    let edge = Edge::to("http://127.0.0.1:1").edge("access_log: { path: missing/access.log }");
    let folder = edge.written(port.address(), admin.address());
    let output = Command::new(BINARY)
        .args(["serve", "-c"])
        .arg(folder.path().join("edge.yaml"))
        .stdin(Stdio::null())
        .output()
        .expect("the binary runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("access log") && said.contains("missing/access.log"), "{said}");
}

#[tokio::test]
async fn a_rotated_file_is_left_and_a_new_one_begun() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).unhurried().edge("access_log: { path: access.log }").start().await;
    let (log, rotated) = (edge.folder().join("access.log"), edge.folder().join("access.log.1"));
    let count = |path: &std::path::Path| std::fs::read_to_string(path).map_or(0, |text| text.lines().count());
    edge.get("/api/demo/1").bearer("k1").await.expect_granted(200);
    eventually("the first line", async || count(&log) == 1).await;
    std::fs::rename(&log, &rotated).expect("the folder is ours");
    edge.get("/api/demo/2").bearer("k1").await.expect_granted(200);
    eventually("a line in the old file, which is still open", async || count(&rotated) == 2).await;
    edge.signal("HUP");
    eventually("a new file", async || log.exists()).await;
    edge.get("/api/demo/3").bearer("k1").await.expect_granted(200);
    eventually("a line in it", async || count(&log) == 1).await;
    assert_eq!(count(&rotated), 2);
    // A folder that is gone costs no line: the old file goes on.
    std::fs::rename(&log, edge.folder().join("access.log.2")).expect("the folder is ours");
    std::fs::create_dir(&log).expect("the folder is ours");
    edge.signal("HUP");
    eventually("a complaint", async || edge.stderr().contains("cannot be reopened")).await;
    edge.get("/api/demo/4").bearer("k1").await.expect_granted(200);
    eventually("a line", async || count(&edge.folder().join("access.log.2")) == 2).await;
    assert_eq!(edge.metric("requestrocket_access_log_dropped_total").await, Some(0.0));
}

#[tokio::test]
async fn the_last_lines_are_written_before_the_process_ends() {
    const REQUESTS: usize = 300;
    let origin = Origin::replying(200).await;
    for place in ["stdout", "access.log"] {
        for signal in ["TERM", "INT"] {
            let edge = Edge::to(&origin).edge(&format!("access_log: {{ path: {place} }}"));
            let mut edge = edge.client("rate_limit: { requests_per_minute: 1000 }").start().await;
            let mut client = edge.connect().await;
            for _ in 0..REQUESTS {
                client.exchange(&edge.get("/api/demo/x").bearer("k1")).await.expect_granted(200);
            }
            edge.signal(signal);
            assert_eq!(edge.exited().await, Some(0));
            match place {
                "stdout" => drop(edge.access_log(REQUESTS).await),
                file => assert_eq!(edge.read(file).lines().count(), REQUESTS, "{signal}"),
            }
        }
    }
}

#[tokio::test]
async fn off_is_off() {
    let origin = Origin::replying(200).await;
    let mut edge = Edge::to(&origin).unhurried().edge("access_log: { path: off }").start().await;
    edge.get("/api/demo/x").bearer("k1").await.expect_granted(200);
    edge.signal("TERM");
    assert_eq!(edge.exited().await, Some(0));
    assert_eq!(edge.stdout(), "");
    assert!(!edge.folder().join("off").exists());
}
