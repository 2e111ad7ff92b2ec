//! Rate limits: exact, per credential, across connections, proxies and reloads.

use std::time::{Duration, Instant};

use crate::harness::{Answer, Edge, Origin, eventually};

const TWO_PROXIES: &str =
    "proxies:\n  - { id: second, target: origin, target_credential: origin-key, proxy_credentials: [client] }\n";

#[tokio::test]
async fn eight_connections_that_hammer_are_admitted_exactly_the_limit() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).client("rate_limit: { requests_per_minute: 50 }").start().await;
    let hammer = async || {
        let mut client = edge.connect().await;
        let mut admitted = 0;
        for _ in 0..20 {
            let answer = client.exchange(&edge.get("/api/demo/x").bearer("k1")).await;
            answer.expect_reusable();
            admitted += usize::from(answer.status == 200);
            assert!([200, 429].contains(&answer.status), "{answer:?}");
        }
        admitted
    };
    let admitted = futures::future::join_all((0..8).map(|_| hammer())).await;
    assert_eq!(admitted.iter().sum::<usize>(), 50);
    assert_eq!(origin.requests().len(), 50);
}

#[tokio::test]
async fn a_credential_has_one_limit_on_all_its_proxies() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).client("rate_limit: { requests_per_minute: 6 }").fragment(TWO_PROXIES).start().await;
    for _ in 0..3 {
        edge.get("/api/demo/x").bearer("k1").await.expect_granted(200);
        edge.get("/api/second/x").bearer("k1").await.expect_granted(200);
    }
    edge.get("/api/demo/x").bearer("k1").await.expect_status(429);
    edge.get("/api/second/x").bearer("k1").await.expect_status(429);
}

#[tokio::test]
async fn each_credential_has_a_limit_of_its_own() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin)
        .client("rate_limit: { requests_per_minute: 1 }")
        .fragment(
            "proxy_credentials:\n  - { id: two, type: bearer, secret: { value: k2 } }\nproxies:\n  \
             - { id: second, target: origin, target_credential: origin-key, proxy_credentials: [client, two] }\n",
        )
        .start()
        .await;
    edge.get("/api/second/x").bearer("k1").await.expect_granted(200);
    edge.get("/api/second/x").bearer("k1").await.expect_status(429);
    edge.get("/api/second/x").bearer("k2").await.expect_granted(200);
}

#[tokio::test]
async fn a_reload_does_not_give_the_limit_back() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).client("rate_limit: { requests_per_minute: 10 }").start().await;
    for _ in 0..5 {
        edge.get("/api/demo/x").bearer("k1").await.expect_granted(200);
    }
    edge.write(
        "proxies.d/more.yaml",
        "proxy_credentials:\n  - { id: two, type: bearer, secret: { value: k2 } }\nproxies:\n  \
         - { id: second, target: origin, target_credential: origin-key, proxy_credentials: [two] }\n",
    );
    edge.signal("HUP");
    eventually("the second proxy", async || edge.get("/api/second/x").bearer("k2").await.status == 200).await;
    for _ in 0..5 {
        edge.get("/api/demo/x").bearer("k1").await.expect_granted(200);
    }
    edge.get("/api/demo/x").bearer("k1").await.expect_status(429);
}

#[tokio::test]
async fn only_admitted_requests_use_up_the_limit() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin)
        .client("rate_limit: { requests_per_minute: 2 }")
        .proxy("rules: [{ id: no-deletes, effect: deny, methods: [DELETE] }]")
        .start()
        .await;
    for _ in 0..5 {
        edge.request("DELETE", "/api/demo/x").bearer("k1").await.expect_status(403);
        edge.get("/api/demo/x").bearer("nope").await.expect_status(403);
        edge.get("/api/demo/%zz").bearer("k1").await.expect_status(400);
        edge.request("TRACE", "/api/demo/x").bearer("k1").await.expect_status(405);
    }
    edge.get("/api/demo/x").bearer("k1").await.expect_granted(200);
    edge.get("/api/demo/x").bearer("k1").await.expect_granted(200);
    edge.get("/api/demo/x").bearer("k1").await.expect_status(429);
}

#[tokio::test]
async fn a_refused_client_learns_when_and_how_much() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).client("rate_limit: { requests_per_minute: 2 }").start().await;
    for _ in 0..2 {
        let answer = edge.get("/api/demo/x").bearer("k1").await;
        answer.expect_granted(200).expect_no_header("ratelimit").expect_no_header("ratelimit-policy");
    }
    let answer = edge.get("/api/demo/x").bearer("k1").await;
    answer.expect_status(429);
    let seconds = retry_after(&answer);
    assert!((55..=61).contains(&seconds), "{seconds}");
    assert_eq!(parameter(&answer, "ratelimit-policy", "q"), 2);
    assert_eq!(parameter(&answer, "ratelimit-policy", "w"), 60);
    assert_eq!(parameter(&answer, "ratelimit", "r"), 0);
    assert_eq!(parameter(&answer, "ratelimit", "t"), seconds);
}

#[tokio::test]
async fn admitted_answers_say_where_the_client_stands_when_asked_to() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin)
        .client("rate_limit: { requests_per_minute: 3 }")
        .proxy("rate_limit_headers: true")
        .start()
        .await;
    for left in [2, 1, 0] {
        let answer = edge.get("/api/demo/x").bearer("k1").await;
        answer.expect_granted(200);
        assert_eq!(parameter(&answer, "ratelimit-policy", "q"), 3);
        assert_eq!(parameter(&answer, "ratelimit", "r"), left);
        assert!(parameter(&answer, "ratelimit", "t") <= 61);
    }
}

#[tokio::test]
async fn a_day_has_a_limit_too() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).client("rate_limit: { requests_per_minute: 100, requests_per_day: 3 }").start().await;
    for _ in 0..3 {
        edge.get("/api/demo/x").bearer("k1").await.expect_granted(200);
    }
    let answer = edge.get("/api/demo/x").bearer("k1").await;
    answer.expect_status(429).expect_header("requestrocket-proxy-code", "proxy-access-granted");
    assert!((1..=86_400).contains(&retry_after(&answer)));
}

#[tokio::test]
async fn a_refused_client_is_admitted_when_it_was_told_and_not_before() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).client("rate_limit: { requests_per_minute: 1 }").start().await;
    edge.get("/api/demo/x").bearer("k1").await.expect_granted(200);
    let refused_at = Instant::now();
    let answer = edge.get("/api/demo/x").bearer("k1").await;
    let told = Duration::from_secs(retry_after(answer.expect_status(429)));
    // The header counts whole seconds: one second earlier must still be too early.
    let early = (told - Duration::from_millis(1100)).saturating_sub(refused_at.elapsed());
    tokio::time::sleep(early).await;
    edge.get("/api/demo/x").bearer("k1").await.expect_status(429);
    tokio::time::sleep((told + Duration::from_millis(20)).saturating_sub(refused_at.elapsed())).await;
    edge.get("/api/demo/x").bearer("k1").await.expect_granted(200);
}

#[track_caller]
fn retry_after(answer: &Answer) -> u64 {
    answer.header("retry-after").expect("Retry-After").parse().expect("seconds")
}

/// A parameter of a structured field (RFC 9651) such as `"minute";q=100;w=60`.
#[track_caller]
fn parameter(answer: &Answer, field: &str, name: &str) -> u64 {
    let value = answer.header(field).unwrap_or_else(|| panic!("no `{field}`: {answer:?}"));
    let prefix = format!("{name}=");
    let found = value.split(';').find_map(|part| part.trim().strip_prefix(&prefix));
    found.unwrap_or_else(|| panic!("no `{name}` in `{field}: {value}`")).parse().expect("an integer")
}
