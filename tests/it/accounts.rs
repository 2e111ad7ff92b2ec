//! Accounts: plans, billing, warnings.

use crate::harness::{Edge, Origin};

const LOW_BUDGET: &str = "Low budget - please add a valid payment method to continue using the API";
const NEAR_LIMIT: &str = "Approaching rate limit threshold";

/// The quota that the edge announces.
async fn announced(account: Option<&str>, client: &str, edge: &str) -> String {
    let origin = Origin::replying(200).await;
    let mut builder = Edge::to(&origin).proxy("rate_limit_headers: true").edge(edge);
    if let Some(account) = account {
        builder = builder.account(account);
    }
    if !client.is_empty() {
        builder = builder.client(client);
    }
    let edge = builder.start().await;
    let answer = edge.get("/api/demo/x").bearer("k1").await;
    answer.expect_granted(200);
    let policy = answer.header("ratelimit-policy").expect("RateLimit-Policy").to_owned();
    policy.split(';').find_map(|part| part.trim().strip_prefix("q=").map(str::to_owned)).expect("a quota")
}

#[tokio::test]
async fn a_plan_sets_the_limit() {
    assert_eq!(announced(Some("plan: basic, billing: active"), "", "").await, "100");
    assert_eq!(announced(Some("plan: team, billing: active"), "", "").await, "1000");
    let business = "plan: business, billing: active, rate_limit: { requests_per_minute: 777 }";
    assert_eq!(announced(Some(business), "", "").await, "777");
}

#[tokio::test]
async fn a_credentials_own_limit_goes_before_its_plan() {
    let own = "rate_limit: { requests_per_minute: 42 }";
    assert_eq!(announced(Some("plan: team, billing: active"), own, "").await, "42");
    assert_eq!(announced(None, own, "").await, "42");
}

#[tokio::test]
async fn without_account_and_limit_the_default_plan_holds() {
    assert_eq!(announced(None, "", "").await, "100");
    assert_eq!(announced(None, "", "defaults: { plan: team }").await, "1000");
}

#[tokio::test]
async fn a_low_budget_is_a_warning_and_no_refusal() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).account("plan: team, billing: low_budget").start().await;
    let answer = edge.get("/api/demo/x").bearer("k1").await;
    answer.expect_granted(200).expect_header("requestrocket-proxy-warning", LOW_BUDGET);
}

#[tokio::test]
async fn from_four_fifths_of_the_limit_on_a_client_is_warned() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).client("rate_limit: { requests_per_minute: 10 }").start().await;
    for request in 1..=10 {
        let answer = edge.get("/api/demo/x").bearer("k1").await;
        let expected = (request >= 8).then_some(NEAR_LIMIT);
        assert_eq!(answer.expect_granted(200).header("requestrocket-proxy-warning"), expected, "request {request}");
    }
}

#[tokio::test]
async fn two_warnings_are_joined() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin)
        .account("plan: team, billing: low_budget")
        .client("rate_limit: { requests_per_minute: 1 }")
        .start()
        .await;
    let answer = edge.get("/api/demo/x").bearer("k1").await;
    answer.expect_granted(200).expect_header("requestrocket-proxy-warning", &format!("{LOW_BUDGET}; {NEAR_LIMIT}"));
}

#[tokio::test]
async fn the_account_is_asked_before_rules_and_limit() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin)
        .account("plan: team, billing: suspended")
        .client("rate_limit: { requests_per_minute: 1 }")
        .proxy("default_effect: deny, rules: [{ id: nothing, effect: deny }]")
        .start()
        .await;
    for _ in 0..3 {
        edge.get("/api/demo/x").bearer("k1").await.expect_status(402);
    }
}
