//! Each row of the table of answers, and what holds for all of them.

use crate::harness::port::Port;
use crate::harness::{Answer, Edge, Origin, ms, pattern};

/// A second credential with a proxy of its own, and proxies that are switched off.
const MORE: &str = r"
proxy_credentials:
  - { id: other-client, type: bearer, secret: { value: k2 } }
  - { id: inactive-client, type: bearer, secret: { value: k3 }, active: false }
  - { id: expired-client, type: bearer, secret: { value: k4 }, expires_at: '2020-01-01T00:00:00Z' }
  - { id: keyed-client, type: api_key, secret: { value: k5 } }
proxies:
  - { id: other, target: origin, target_credential: origin-key, proxy_credentials: [other-client] }
  - { id: dormant, target: origin, target_credential: origin-key, proxy_credentials: [client], active: false }
  - id: both
    target: origin
    target_credential: origin-key
    proxy_credentials: [inactive-client, expired-client, keyed-client]
";

#[tokio::test]
async fn the_targets_answer_is_labelled_as_granted() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).start().await;
    let answer = edge.get("/api/demo/users").bearer("k1").await;
    answer.expect_granted(200).expect_body("ok").expect_no_header("requestrocket-proxy-warning");
    assert!(answer.header("x-request-id").is_none_or(|id| !id.is_empty()));
}

#[tokio::test]
async fn an_error_of_the_target_is_still_the_targets() {
    for status in [400, 401, 403, 404, 413, 429, 500, 502, 503, 504] {
        let origin = Origin::replying(status).await;
        let edge = Edge::to(&origin).start().await;
        edge.get("/api/demo/users").bearer("k1").await.expect_granted(status).expect_body("ok");
    }
}

#[tokio::test]
async fn a_targets_own_labels_are_overwritten() {
    let origin = Origin::saying(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nRequestRocket-Proxy-Code: forged\r\n\
         requestrocket-proxy-message: forged\r\nRequestrocket-Proxy-Warning: forged\r\n\r\nok",
    )
    .await;
    let edge = Edge::to(&origin).start().await;
    let answer = edge.get("/api/demo/users").bearer("k1").await;
    answer.expect_granted(200).expect_no_header("requestrocket-proxy-warning");
}

#[tokio::test]
async fn nobody_can_tell_an_unknown_proxy_from_a_wrong_credential() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).fragment(MORE).start().await;
    let refused: Vec<(&str, Answer)> = vec![
        ("wrong", edge.get("/api/demo/users").bearer("nope").await),
        ("none", edge.get("/api/demo/users").await),
        ("unknown proxy", edge.get("/api/nowhere/users").bearer("k1").await),
        ("unknown proxy, nothing shown", edge.get("/api/nowhere").await),
        ("inactive proxy", edge.get("/api/dormant/users").bearer("k1").await),
        ("another proxy's credential", edge.get("/api/demo/users").bearer("k2").await),
        ("another proxy's credential, the other way", edge.get("/api/other/users").bearer("k1").await),
        ("inactive credential", edge.get("/api/both/users").bearer("k3").await),
        ("expired credential", edge.get("/api/both/users").bearer("k4").await),
        ("twice", edge.get("/api/demo/users").bearer("k1").bearer("k1").await),
        ("wrong kind", edge.get("/api/both/users").bearer("k5").await),
        ("wrong parameter", edge.get("/api/demo/users?Authorization=Bearer%20nope").await),
    ];
    let expected = anonymous(&refused[0].1);
    for (name, answer) in &refused {
        answer.expect_denied().expect_reusable();
        assert_eq!(anonymous(answer), expected, "{name}");
    }
    assert!(origin.requests().is_empty(), "nothing of it reaches the target");
}

#[tokio::test]
async fn a_suspended_account_is_asked_to_pay() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).account("plan: team, billing: suspended").start().await;
    edge.get("/api/demo/users").bearer("k1").await.expect_refusal(
        402,
        "billing-suspended",
        "Payment Required - Account suspended due to insufficient budget",
        "http_request_denied",
    );
    edge.get("/api/demo/users").bearer("nope").await.expect_denied();
    assert!(origin.requests().is_empty());
}

#[tokio::test]
async fn a_rule_that_denies_is_named() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).proxy("rules: [{ id: no-deletes, effect: deny, methods: [DELETE] }]").start().await;
    edge.request("DELETE", "/api/demo/users/1").bearer("k1").await.expect_refusal(
        403,
        "proxy-access-granted",
        "Denied by authorization rule no-deletes",
        "http_request_denied",
    );
    assert!(origin.requests().is_empty());
}

#[tokio::test]
async fn over_the_rate_limit_is_a_429() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).client("rate_limit: { requests_per_minute: 1 }").start().await;
    edge.get("/api/demo/users").bearer("k1").await.expect_granted(200);
    edge.get("/api/demo/users").bearer("k1").await.expect_refusal(
        429,
        "proxy-access-granted",
        "Rate limit exceeded: 1 requests per minute",
        "http_request_denied",
    );
    assert_eq!(origin.requests().len(), 1);
}

#[tokio::test]
async fn a_response_over_the_limit_is_a_413() {
    let origin =
        Origin::saying([&b"HTTP/1.1 200 OK\r\nContent-Length: 6291457\r\n\r\n"[..], &pattern(6_291_457)].concat())
            .await;
    let edge = Edge::to(&origin).start().await;
    edge.get("/api/demo/big").bearer("k1").await.expect_refusal(
        413,
        "response-too-large",
        "Response payload exceeds 6MB limit",
        "http_response_body_size",
    );
}

#[tokio::test]
async fn a_request_over_the_limit_is_a_413() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).start().await;
    let answer = edge.post("/api/demo/big").bearer("k1").body(pattern(10 * 1024 * 1024 + 1)).await;
    answer.expect_refusal(413, "proxy-access-granted", "Request payload exceeds 10MB limit", "http_request_error");
}

#[tokio::test]
async fn a_client_that_stops_sending_is_a_408() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).edge("limits: { body_timeout: 300ms }").start().await;
    let mut client = edge.connect().await;
    client
        .send("POST /api/demo/users HTTP/1.1\r\nHost: e\r\nAuthorization: Bearer k1\r\nContent-Length: 10\r\n\r\nhalf")
        .await;
    client.answer().await.expect_within(ms(1300)).expect_refusal(
        408,
        "proxy-access-granted",
        "Request body was not received in time",
        "http_request_error",
    );
}

#[tokio::test]
async fn a_silent_target_is_a_504() {
    let origin = Origin::silent().await;
    let edge = Edge::to(&origin).proxy("timeout: 1s").start().await;
    edge.get("/api/demo/users").bearer("k1").await.expect_within(ms(1500)).expect_refusal(
        504,
        "proxy-access-granted",
        "Target did not respond within 1 seconds",
        "http_response_timeout",
    );
}

#[tokio::test]
async fn a_target_that_refuses_is_a_502() {
    let nobody = Port::claim();
    let edge = Edge::to(format!("http://{}", nobody.address())).start().await;
    edge.get("/api/demo/users").bearer("k1").await.expect_unreachable("connect", "connection_refused");
}

#[tokio::test]
async fn at_capacity_is_a_503_that_says_when_to_return() {
    let origin = Origin::silent().await;
    let edge = Edge::to(&origin).edge("limits: { max_requests_in_flight: 1 }").start().await;
    let mut first = edge.connect().await;
    first.send(edge.get("/api/demo/users").bearer("k1").head()).await;
    origin.until("the first request", |events| events.requests.len() == 1).await;
    let answer = edge.get("/api/demo/users").bearer("k1").await;
    answer.expect_refusal(503, "proxy-access-granted", "Proxy is at capacity", "connection_limit_reached");
    let seconds: u64 = answer.header("retry-after").expect("a Retry-After").parse().expect("seconds");
    assert!((1..=60).contains(&seconds));
}

#[tokio::test]
async fn other_methods_are_told_which_there_are() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).start().await;
    for method in ["TRACE", "PROPFIND", "get", "BREW"] {
        let answer = edge.request(method, "/api/demo/users").bearer("k1").await;
        answer.expect_status(405).expect_whole().expect_header("content-type", "application/problem+json");
        let mut allowed: Vec<&str> = answer.header("allow").expect("Allow").split(", ").collect();
        allowed.sort_unstable();
        assert_eq!(allowed, ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"]);
    }
    assert!(origin.requests().is_empty());
}

#[tokio::test]
async fn all_seven_methods_reach_the_target() {
    let origin = Origin::saying("HTTP/1.1 204 No Content\r\n\r\n").await;
    let edge = Edge::to(&origin).start().await;
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"] {
        edge.request(method, "/api/demo/users").bearer("k1").await.expect_granted(204);
        assert_eq!(origin.requests().last().expect("a request").method, method);
    }
}

#[tokio::test]
async fn head_gets_the_headers_of_a_refusal_alone() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).start().await;
    let mut client = edge.connect().await;
    let denied = edge.request("HEAD", "/api/demo/users").bearer("nope");
    let answer = client.exchange(&denied).await;
    answer
        .expect_refusal_head(403, "proxy-access-denied", "Invalid proxy credential", "http_request_denied")
        .expect_reusable();
    // Were there a body, the next answer would not start where this one ended.
    client.exchange(&edge.get("/api/demo/users").bearer("k1")).await.expect_granted(200);
}

#[tokio::test]
async fn a_refusal_never_repeats_what_the_client_sent() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).start().await;
    for request in [
        edge.get("/api/demo/users").bearer("canary-7f3a"),
        edge.get("/api/demo/users?Authorization=canary-7f3a"),
        edge.get("/api/canary-7f3a/users").bearer("k1"),
        edge.get("/canary-7f3a").bearer("k1"),
        edge.get("/api/demo/%zz/canary-7f3a").bearer("k1"),
    ] {
        let answer = request.await;
        assert!(answer.status >= 400);
        assert!(!format!("{answer:?}").contains("canary-7f3a"), "{answer:?}");
    }
}

/// The bytes of an answer without its request id and date.
fn anonymous(answer: &Answer) -> String {
    let id = answer.header("x-request-id").expect("a request id");
    let date = answer.header("date").expect("a date");
    let whole = format!("{}{}", String::from_utf8_lossy(&answer.raw_head), answer.text());
    whole.replace(id, "ID").replace(date, "DATE")
}
