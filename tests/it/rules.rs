//! Authorization rules: four scopes, what they look at, who wins.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use crate::harness::edge::EdgeBuilder;
use crate::harness::{Answer, Edge, Origin};

const SECRET: &str = "an-hmac-secret-of-more-than-32-bytes";

#[track_caller]
fn expect_denied_by(answer: &Answer, rule: &str) {
    let message = format!("Denied by authorization rule {rule}");
    answer.expect_refusal(403, "proxy-access-granted", &message, "http_request_denied").expect_reusable();
}

#[tokio::test]
async fn a_rule_stands_in_any_of_four_scopes() {
    const RULES: &str = "rules: [{ id: no-deletes, effect: deny, methods: [DELETE] }]";
    let places: [fn(EdgeBuilder) -> EdgeBuilder; 4] = [
        |edge| edge.proxy(RULES),
        |edge| edge.client(RULES),
        |edge| edge.target(RULES),
        |edge| edge.target_credential(RULES),
    ];
    for place in places {
        let origin = Origin::replying(200).await;
        let edge = place(Edge::to(&origin)).start().await;
        edge.get("/api/demo/users").bearer("k1").await.expect_granted(200);
        expect_denied_by(&edge.request("DELETE", "/api/demo/users").bearer("k1").await, "no-deletes");
        assert_eq!(origin.request().method, "GET");
    }
}

#[tokio::test]
async fn every_scope_must_allow() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin)
        .proxy("default_effect: deny, rules: [{ id: reads, effect: allow, methods: [GET] }]")
        .client("default_effect: deny, rules: [{ id: users, effect: allow, path: '^/users' }]")
        .start()
        .await;
    edge.get("/api/demo/users").bearer("k1").await.expect_granted(200);
    for request in [edge.post("/api/demo/users"), edge.get("/api/demo/orders"), edge.post("/api/demo/orders")] {
        let answer = request.bearer("k1").await;
        answer.expect_status(403).expect_header("requestrocket-proxy-code", "proxy-access-granted");
        let message = answer.header("requestrocket-proxy-message").expect("a message");
        assert!(message.starts_with("Denied by authorization rule"), "{message}");
    }
}

#[tokio::test]
async fn a_denial_wins_over_any_allowance_of_its_scope() {
    let origin = Origin::replying(200).await;
    for rules in [
        "{ id: all, effect: allow }, { id: no-admin, effect: deny, path: '^/admin' }",
        "{ id: no-admin, effect: deny, path: '^/admin' }, { id: all, effect: allow }",
    ] {
        let edge = Edge::to(&origin).proxy(&format!("default_effect: deny, rules: [{rules}]")).start().await;
        edge.get("/api/demo/users").bearer("k1").await.expect_granted(200);
        expect_denied_by(&edge.get("/api/demo/admin/x").bearer("k1").await, "no-admin");
    }
}

#[tokio::test]
async fn a_rule_matches_when_all_it_names_matches() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin)
        .proxy(
            "rules: [{ id: narrow, effect: deny, methods: [POST, PUT], path: '^/users/\\d+$', \
             headers: [{ name: X-Role, value: '^guest$' }], query: [{ name: force, presence: present }] }]",
        )
        .start()
        .await;
    let put = |path: &str| edge.request("PUT", path).bearer("k1");
    expect_denied_by(&put("/api/demo/users/7?force").header("x-role", "guest").await, "narrow");
    expect_denied_by(
        &edge.post("/api/demo/users/7?a=1&force=no").bearer("k1").header("X-ROLE", "guest").await,
        "narrow",
    );
    for near in [
        edge.get("/api/demo/users/7?force").bearer("k1").header("x-role", "guest"),
        put("/api/demo/users/x?force").header("x-role", "guest"),
        put("/api/demo/users/7/?force").header("x-role", "guest"),
        put("/api/demo/users/7").header("x-role", "guest"),
        put("/api/demo/users/7?Force").header("x-role", "guest"),
        put("/api/demo/users/7?force"),
        put("/api/demo/users/7?force").header("x-role", "guests"),
    ] {
        near.await.expect_granted(200);
    }
}

#[tokio::test]
async fn a_path_cannot_be_spelled_around_a_rule() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(format!("http://{}/v1", origin.address()))
        .proxy("rules: [{ id: no-admin, effect: deny, path: '^/+admin' }]")
        .start()
        .await;
    for path in
        ["/admin", "/admin/x", "/%61dmin", "/a%64min", "/%61%64%6D%69%6e/x", "//admin", "/admin?x=/users", "/admin%2Fx"]
    {
        expect_denied_by(&edge.get(&format!("/api/demo{path}")).bearer("k1").await, "no-admin");
    }
    for path in ["/users/../admin", "/./admin", "/users/%2e%2e/admin", "/users\\..\\admin"] {
        edge.get(&format!("/api/demo{path}")).bearer("k1").await.expect_status(400);
    }
    edge.get("/api/demo/users/admin").bearer("k1").await.expect_granted(200);
}

#[tokio::test]
async fn a_value_may_be_wanted_absent() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin)
        .proxy("rules: [{ id: tagged-only, effect: deny, headers: [{ name: X-Tag, presence: absent }] }]")
        .start()
        .await;
    edge.get("/api/demo/x").bearer("k1").header("x-tag", "").await.expect_granted(200);
    expect_denied_by(&edge.get("/api/demo/x").bearer("k1").await, "tagged-only");
}

#[tokio::test]
async fn one_of_several_values_is_enough() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin)
        .proxy("rules: [{ id: no-root, effect: deny, query: [{ name: role, value: '^root$' }] }, { id: no-evil, effect: deny, headers: [{ name: x-a, value: evil }] }]")
        .start()
        .await;
    expect_denied_by(&edge.get("/api/demo/x?role=guest&role=root").bearer("k1").await, "no-root");
    expect_denied_by(&edge.get("/api/demo/x?role=ro%6ft").bearer("k1").await, "no-root");
    let answer = edge.get("/api/demo/x").bearer("k1").header("x-a", "good").header("x-a", "evil").await;
    expect_denied_by(&answer, "no-evil");
}

#[tokio::test]
async fn claims_of_a_verified_token_are_looked_at() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin)
        .client(&format!(
            "type: jwt_verify, jwt: {{ algorithms: [HS256], secret: {{ value: {SECRET} }} }}, default_effect: deny, \
             rules: [{{ id: readers, effect: allow, claims: [{{ name: role, value: '^reader$' }}, {{ name: banned, presence: absent }}] }}]"
        ))
        .start()
        .await;
    for (claims, status) in [
        (json!({ "role": "reader" }), 200),
        (json!({ "role": ["writer", "reader"] }), 200),
        (json!({ "role": "readers" }), 403),
        (json!({ "role": "reader", "banned": false }), 403),
        (json!({}), 403),
    ] {
        let answer = edge.get("/api/demo/x").bearer(&token(claims.clone())).await;
        assert_eq!(answer.status, status, "{claims}");
        answer.expect_header("requestrocket-proxy-code", "proxy-access-granted");
    }
}

#[tokio::test]
async fn claims_of_an_unverified_token_are_nothing() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin)
        .proxy("default_effect: deny, rules: [{ id: readers, effect: allow, claims: [{ name: role, value: '^reader$' }] }]")
        .start()
        .await;
    let payload = URL_SAFE_NO_PAD.encode(json!({ "role": "reader" }).to_string());
    edge.get("/api/demo/x").bearer("k1").header("X-Token", &format!("e30.{payload}.")).await.expect_status(403);
    assert!(origin.requests().is_empty());
}

#[tokio::test]
async fn rules_see_the_clients_request_and_not_our_credential() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin)
        .proxy("rules: [{ id: seen, effect: deny, headers: [{ name: authorization, value: t1 }] }]")
        .start()
        .await;
    edge.get("/api/demo/x").bearer("k1").await.expect_granted(200);
}

fn token(mut claims: Value) -> String {
    claims["exp"] = json!(4_000_000_000_u64);
    encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(SECRET.as_bytes())).expect("a token")
}
