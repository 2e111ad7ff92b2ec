//! `jwt_verify`: which tokens are believed. The keys in `keys/` were made for these tests and open nothing else.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use crate::harness::{Edge, Origin};

const SECRET: &str = "an-hmac-secret-of-more-than-32-bytes";
const RSA: &[u8] = include_bytes!("keys/rsa.pem");
const RSA_PUBLIC: &[u8] = include_bytes!("keys/rsa.pub.pem");
const EC: &[u8] = include_bytes!("keys/ec.pem");
const EC_PUBLIC: &[u8] = include_bytes!("keys/ec.pub.pem");
const ED: &[u8] = include_bytes!("keys/ed.pem");
const ED_PUBLIC: &[u8] = include_bytes!("keys/ed.pub.pem");
const JWKS: &[u8] = include_bytes!("keys/jwks.json");

#[tokio::test]
async fn a_signed_token_opens_the_proxy_with_or_without_its_scheme() {
    let origin = Origin::replying(200).await;
    let edge = hmac(&origin, "").await;
    let token = signed(claims(json!({})));
    edge.get("/api/demo/x").authorization(&token).await.expect_granted(200);
    edge.get("/api/demo/x").bearer(&token).await.expect_granted(200);
    edge.get("/api/demo/x").authorization(&format!("bearer  {token}")).await.expect_granted(200);
    edge.get(&format!("/api/demo/x?Authorization={token}")).await.expect_granted(200);
    edge.get(&format!("/api/demo/x?authorization=Bearer%20{token}")).await.expect_granted(200);
    assert!(!format!("{:?}", origin.requests()).contains(&token), "the token stays here");
}

#[tokio::test]
async fn each_kind_of_key_verifies_its_own_algorithms() {
    let cases = [
        ("RS256", Algorithm::RS256, EncodingKey::from_rsa_pem(RSA).unwrap(), RSA_PUBLIC),
        ("PS384", Algorithm::PS384, EncodingKey::from_rsa_pem(RSA).unwrap(), RSA_PUBLIC),
        ("ES256", Algorithm::ES256, EncodingKey::from_ec_pem(EC).unwrap(), EC_PUBLIC),
        ("EdDSA", Algorithm::EdDSA, EncodingKey::from_ed_pem(ED).unwrap(), ED_PUBLIC),
    ];
    for (name, algorithm, key, public) in cases {
        let origin = Origin::replying(200).await;
        let edge = Edge::to(&origin)
            .client(&format!("type: jwt_verify, jwt: {{ algorithms: [{name}], public_key_file: key.pem }}"))
            .file("proxies.d/key.pem", public)
            .start()
            .await;
        let token = encode(&Header::new(algorithm), &claims(json!({})), &key).unwrap();
        edge.get("/api/demo/x").bearer(&token).await.expect_granted(200);
        edge.get("/api/demo/x").bearer(&tampered(&token)).await.expect_denied();
    }
}

#[tokio::test]
async fn only_pinned_algorithms_are_believed() {
    let origin = Origin::replying(200).await;
    let edge = hmac(&origin, "").await; // pins HS256
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    for algorithm in [Algorithm::HS384, Algorithm::HS512] {
        let token = encode(&Header::new(algorithm), &claims(json!({})), &key).unwrap();
        edge.get("/api/demo/x").bearer(&token).await.expect_denied();
    }
}

#[tokio::test]
async fn a_token_without_a_signature_proves_nothing() {
    let origin = Origin::replying(200).await;
    let edge = hmac(&origin, "").await;
    for algorithm in ["none", "None", "NONE", "nOnE", ""] {
        for signature in ["", "AAAA"] {
            edge.get("/api/demo/x").bearer(&unsigned(algorithm, signature)).await.expect_denied();
        }
    }
}

#[tokio::test]
async fn a_public_key_is_never_taken_for_a_shared_secret() {
    for (name, public) in [("RS256", RSA_PUBLIC), ("ES256", EC_PUBLIC), ("EdDSA", ED_PUBLIC)] {
        let origin = Origin::replying(200).await;
        let edge = Edge::to(&origin)
            .client(&format!("type: jwt_verify, jwt: {{ algorithms: [{name}], public_key_file: key.pem }}"))
            .file("proxies.d/key.pem", public)
            .start()
            .await;
        let trimmed = String::from_utf8_lossy(public).trim().to_owned();
        for secret in [public, trimmed.as_bytes()] {
            let key = EncodingKey::from_secret(secret);
            for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
                let token = encode(&Header::new(algorithm), &claims(json!({})), &key).unwrap();
                edge.get("/api/demo/x").bearer(&token).await.expect_denied();
            }
        }
    }
}

#[tokio::test]
async fn a_token_must_expire_and_not_have_expired() {
    let origin = Origin::replying(200).await;
    let edge = hmac(&origin, "").await;
    for (claims, status) in [
        (json!({ "exp": now() + 600 }), 200),
        (json!({ "exp": now() - 30 }), 200), // within the leeway of 60 s
        (json!({ "exp": now() - 90 }), 403),
        (json!({ "exp": 0 }), 403),
        (json!({ "exp": -1 }), 403),
        (json!({}), 403),
        (json!({ "exp": null }), 403),
        (json!({ "exp": "tomorrow" }), 403),
        (json!({ "exp": [now() + 600] }), 403),
        (json!({ "exp": now() + 600, "nbf": now() - 5 }), 200),
        (json!({ "exp": now() + 600, "nbf": now() + 30 }), 200), // clocks differ
        (json!({ "exp": now() + 600, "nbf": now() + 90 }), 403),
        (json!({ "exp": now() + 600, "nbf": "soon" }), 403),
        (json!({ "exp": now() + 600, "iat": now() + 3600 }), 200), // RFC 7519 gives it no such meaning
    ] {
        expect_status(&edge, claims, status).await;
    }
}

#[tokio::test]
async fn the_leeway_can_be_narrowed() {
    let origin = Origin::replying(200).await;
    let edge = hmac(&origin, ", leeway: 0s").await;
    edge.get("/api/demo/x").bearer(&signed(json!({ "exp": now() - 5 }))).await.expect_denied();
    edge.get("/api/demo/x").bearer(&signed(json!({ "exp": now() + 600 }))).await.expect_granted(200);
}

#[tokio::test]
async fn the_issuer_must_be_the_one_configured() {
    let origin = Origin::replying(200).await;
    let edge = hmac(&origin, ", issuer: 'https://id.test/'").await;
    for (extra, status) in [
        (json!({ "iss": "https://id.test/" }), 200),
        (json!({ "iss": "https://id.test" }), 403),
        (json!({ "iss": "https://evil.test/" }), 403),
        (json!({ "iss": ["https://evil.test/"] }), 403),
        (json!({}), 403),
    ] {
        expect_status(&edge, claims(extra), status).await;
    }
}

#[tokio::test]
async fn the_audience_is_a_string_or_a_list() {
    let origin = Origin::replying(200).await;
    let edge = hmac(&origin, ", audience: [orders, users]").await;
    for (extra, status) in [
        (json!({ "aud": "orders" }), 200),
        (json!({ "aud": ["users"] }), 200),
        (json!({ "aud": ["else", "orders"] }), 200),
        (json!({ "aud": "else" }), 403),
        (json!({ "aud": [] }), 403),
        (json!({ "aud": "" }), 403),
        (json!({ "aud": { "orders": true } }), 403),
        (json!({}), 403),
    ] {
        expect_status(&edge, claims(extra), status).await;
    }
}

#[tokio::test]
async fn a_key_set_is_searched_by_key_id() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin)
        .client("type: jwt_verify, jwt: { algorithms: [RS256, ES256], jwks_file: jwks.json }")
        .file("proxies.d/jwks.json", JWKS)
        .start()
        .await;
    let rsa = EncodingKey::from_rsa_pem(RSA).unwrap();
    let ec = EncodingKey::from_ec_pem(EC).unwrap();
    let token = |algorithm, kid: Option<&str>, key| {
        let header = Header { kid: kid.map(str::to_owned), ..Header::new(algorithm) };
        encode(&header, &claims(json!({})), key).unwrap()
    };
    edge.get("/api/demo/x").bearer(&token(Algorithm::RS256, Some("rsa-1"), &rsa)).await.expect_granted(200);
    edge.get("/api/demo/x").bearer(&token(Algorithm::ES256, Some("ec-1"), &ec)).await.expect_granted(200);
    for (algorithm, kid, key) in [
        (Algorithm::RS256, Some("unknown"), &rsa),
        (Algorithm::RS256, Some("ec-1"), &rsa),
        (Algorithm::ES256, Some("rsa-1"), &ec),
        (Algorithm::RS256, Some(""), &rsa),
    ] {
        edge.get("/api/demo/x").bearer(&token(algorithm, kid, key)).await.expect_denied();
    }
}

#[tokio::test]
async fn what_is_no_token_is_denied() {
    let origin = Origin::replying(200).await;
    let edge = hmac(&origin, "").await;
    let good = signed(claims(json!({})));
    let [header, payload, signature] = good.split('.').collect::<Vec<_>>()[..] else { unreachable!("three parts") };
    for token in [
        String::new(),
        ".".into(),
        "..".into(),
        "...".into(),
        "a.b.c".into(),
        header.into(),
        format!("{header}.{payload}"),
        format!("{header}.{payload}."),
        format!("{header}..{signature}"),
        format!(".{payload}.{signature}"),
        format!("{good}."),
        format!("{good}.{signature}"),
        format!("{header}=.{payload}.{signature}"),
        tampered(&good),
        "x".repeat(4000),
        ".".repeat(4000),
    ] {
        edge.get("/api/demo/x").bearer(&token).await.expect_denied();
    }
    assert!(origin.requests().is_empty());
}

#[tokio::test]
async fn another_key_of_the_same_kind_is_denied() {
    let origin = Origin::replying(200).await;
    let edge = hmac(&origin, "").await;
    let key = EncodingKey::from_secret(b"another-secret-of-more-than-32-bytes");
    let token = encode(&Header::new(Algorithm::HS256), &claims(json!({})), &key).unwrap();
    edge.get("/api/demo/x").bearer(&token).await.expect_denied();
}

#[tokio::test]
async fn a_key_that_the_token_brings_along_is_not_used() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin)
        .client("type: jwt_verify, jwt: { algorithms: [RS256, ES256], jwks_file: jwks.json }")
        .file("proxies.d/jwks.json", JWKS)
        .start()
        .await;
    let header =
        json!({ "alg": "HS256", "kid": "rsa-1", "jwk": { "kty": "oct", "k": URL_SAFE_NO_PAD.encode(SECRET) } });
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(&header), part(&claims(json!({}))));
    let signature =
        jsonwebtoken::crypto::sign(message.as_bytes(), &EncodingKey::from_secret(SECRET.as_bytes()), Algorithm::HS256);
    edge.get("/api/demo/x").bearer(&format!("{message}.{}", signature.unwrap())).await.expect_denied();
}

/// An edge whose client shows HS256 tokens, with more fields of `jwt`.
async fn hmac(origin: &Origin, more: &str) -> Edge {
    Edge::to(origin)
        .client(&format!("type: jwt_verify, jwt: {{ algorithms: [HS256], secret: {{ value: {SECRET} }}{more} }}"))
        .start()
        .await
}

/// What a token with these claims is answered.
async fn expect_status(edge: &Edge, claims: Value, status: u16) {
    let answer = edge.get("/api/demo/x").bearer(&signed(claims.clone())).await;
    assert_eq!(answer.status, status, "{claims}");
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() as i64
}

/// Claims that are still good for a while, and more.
fn claims(more: Value) -> Value {
    let mut claims = json!({ "sub": "ada", "exp": now() + 600 });
    for (name, value) in more.as_object().expect("an object") {
        claims[name] = value.clone();
    }
    claims
}

fn signed(claims: Value) -> String {
    encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(SECRET.as_bytes())).expect("a token")
}

fn unsigned(algorithm: &str, signature: &str) -> String {
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.{signature}", part(json!({ "alg": algorithm, "typ": "JWT" })), part(claims(json!({}))))
}

/// The same token with another payload under the old signature.
fn tampered(token: &str) -> String {
    let parts: Vec<&str> = token.split('.').collect();
    let payload = claims(json!({ "sub": "root" })).to_string();
    format!("{}.{}.{}", parts[0], URL_SAFE_NO_PAD.encode(payload), parts[2])
}
