//! No secret leaves through a log, a metric, an answer, or towards the wrong side.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::harness::{Edge, Origin, eventually};

const PROXY_SECRET: &str = "canary-proxy-5f1e";
const TARGET_SECRET: &str = "canary-target-77ab";
const QUERY_SECRET: &str = "canary-query-c0de";

#[tokio::test]
async fn no_secret_is_ever_written_down() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin)
        .client(&format!("type: basic, username: ada, secret: {{ value: {PROXY_SECRET} }}"))
        .target_credential(&format!("type: bearer, secret: {{ value: {TARGET_SECRET} }}"))
        .fragment(&format!(
            "target_credentials:\n  - {{ id: in-query, type: api_key, query: key, secret: {{ value: {QUERY_SECRET} }} }}\n\
             targets:\n  - {{ id: nowhere, base_url: 'http://127.0.0.1:1' }}\n\
             proxies:\n  - {{ id: query, target: origin, target_credential: in-query, proxy_credentials: [client] }}\n  \
             - {{ id: broken, target: nowhere, target_credential: in-query, proxy_credentials: [client] }}\n"
        ))
        .environment("RUST_LOG", "trace")
        .start()
        .await;
    let encoded = STANDARD.encode(format!("ada:{PROXY_SECRET}"));
    let bearer_guess = "canary-guess-1234";
    let mut answers = Vec::new();
    for path in [
        "/api/demo/x",
        "/api/query/x?key=canary-own-9999",
        "/api/broken/x",
        "/api/none/x",
        "/api/demo/%zz",
        "/elsewhere",
    ] {
        answers.push(edge.get(path).basic("ada", PROXY_SECRET).await);
        answers.push(edge.get(path).bearer(bearer_guess).await);
        answers.push(
            edge.get(&format!("{path}{}Authorization=Basic%20{encoded}", if path.contains('?') { '&' } else { '?' }))
                .await,
        );
        answers.push(edge.get(path).basic("ada", PROXY_SECRET).basic("ada", PROXY_SECRET).await);
    }
    answers.push(edge.request("BREW", "/api/demo/x").basic("ada", PROXY_SECRET).await);
    edge.write("proxies.d/broken.yaml", format!("proxies: [{{ id: x, secret: {PROXY_SECRET} }}"));
    edge.signal("HUP");
    edge.write(
        "proxies.d/broken.yaml",
        "proxy_credentials: [{ id: y, type: bearer, secret: { value: '' } }, { id: client, type: jwt, secret: { value: z } }]",
    );
    edge.signal("HUP");
    eventually("the reload is logged", async || edge.stderr().contains("broken.yaml")).await;
    eventually("the access log", async || edge.stdout().lines().count() >= answers.len() - 1).await;

    let written = [("stdout", edge.stdout()), ("stderr", edge.stderr())];
    let answered = answers.iter().map(|answer| ("an answer", format!("{answer:?}{}", answer.text())));
    for (place, text) in written.into_iter().chain(answered) {
        for secret in [PROXY_SECRET, TARGET_SECRET, QUERY_SECRET, bearer_guess, "canary-own-9999", &encoded] {
            if let Some(line) = text.lines().find(|line| line.contains(secret)) {
                panic!("`{secret}` in {place}: {line}");
            }
        }
    }
    for request in origin.requests() {
        let seen = format!("{request:?}");
        assert!(!seen.contains(PROXY_SECRET) && !seen.contains(&encoded) && !seen.contains(bearer_guess), "{seen}");
    }
}

#[tokio::test]
async fn no_secret_is_on_the_operators_pages() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin)
        .client(&format!("type: bearer, secret: {{ value: {PROXY_SECRET} }}"))
        .target_credential(&format!("type: bearer, secret: {{ value: {TARGET_SECRET} }}"))
        .start()
        .await;
    edge.get(&format!("/api/demo/x?plain={QUERY_SECRET}")).bearer(PROXY_SECRET).await.expect_granted(200);
    edge.get(&format!("/api/{QUERY_SECRET}/x")).bearer(PROXY_SECRET).await.expect_denied();
    for page in ["/metrics", "/status", "/readyz", "/livez"] {
        let text = edge.admin(page).await.text();
        for secret in [PROXY_SECRET, TARGET_SECRET, QUERY_SECRET] {
            assert!(!text.contains(secret), "`{secret}` on {page}: {text}");
        }
    }
}

#[tokio::test]
async fn answers_of_ours_do_not_tell_where_the_target_is() {
    let origin = Origin::scripted(|mut peer| async move {
        peer.request().await;
        peer.send("garbage that nobody should see\r\n\r\n").await;
    })
    .await;
    let edge = Edge::to(format!("http://{}/secret-base", origin.address())).start().await;
    let answer = edge.get("/api/demo/x").bearer("k1").await;
    answer.expect_status(502);
    let seen = format!("{answer:?}{}", answer.text());
    for hidden in
        ["127.0.0.1", &origin.port().to_string(), "secret-base", "garbage", "origin-key", "pingora", "Pingora"]
    {
        assert!(!seen.contains(hidden), "`{hidden}`: {seen}");
    }
}

#[tokio::test]
async fn the_access_log_names_keys_and_never_values() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).start().await;
    edge.get("/api/demo/users?plain=canary-value&Authorization=Bearer%20k1").await.expect_granted(200);
    edge.get("/api/demo/users?plain=canary-value").bearer("nope").await.expect_denied();
    eventually("two lines", async || edge.stdout().lines().count() >= 2).await;
    let log = edge.stdout();
    assert!(!log.contains("canary-value"), "{log}");
    let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let granted = &lines[0];
    for (field, value) in [
        ("proxy", "demo"),
        ("credential", "client"),
        ("method", "GET"),
        ("path", "/users"),
        ("proxy_code", "proxy-access-granted"),
        ("client", "127.0.0.1"),
        ("region", "test-1"),
    ] {
        assert_eq!(granted[field], value, "{field}: {granted}");
    }
    assert_eq!(granted["status"], 200);
    assert!(granted["query_keys"].to_string().contains("plain"), "{granted}");
    assert!(!granted["query_keys"].to_string().to_lowercase().contains("authorization"), "{granted}");
    assert_eq!(lines[1]["status"], 403);
    assert_eq!(lines[1]["proxy_code"], "proxy-access-denied");
    assert!(lines[1]["refusal"].is_string(), "{}", lines[1]);
}

#[tokio::test]
async fn operators_pages_are_not_on_the_clients_listener() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).start().await;
    for page in ["/livez", "/readyz", "/metrics", "/status"] {
        edge.get(page).await.expect_status(404);
        edge.admin(page).await.expect_status(200);
    }
}
