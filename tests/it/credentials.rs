//! The credential of the client: five types, header or parameter, every spelling that is allowed and some that are not.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::harness::{Connection, Edge, Origin, Request, eventually};

/// `(spelling of the Authorization header, whether it is let in)` for each type.
const SPELLINGS: &[(&str, &[(&str, bool)])] = &[
    (
        "type: api_key, secret: { value: 'k1' }",
        &[
            ("k1", true),
            ("  k1  ", true), // white space around a field value is not part of it
            ("K1", false),
            ("k1x", false),
            ("k", false),
            ("Bearer k1", false),
            ("", false),
        ],
    ),
    (
        "type: bearer, secret: { value: 'k1' }",
        &[
            ("Bearer k1", true),
            ("bearer k1", true),
            ("BEARER k1", true),
            ("Bearer  k1", true), // RFC 9110: 1*SP
            ("k1", false),
            ("Bearer", false),
            ("Bearer ", false),
            ("Bearer k1 k1", false),
            ("Bearerk1", false),
            ("Bearer\tk1", false),
            ("Bearer K1", false),
            ("Basic k1", false),
            ("Token k1", false),
            ("Bearer k1, Bearer k1", false),
        ],
    ),
    (
        "type: basic, username: ada, secret: { value: 'p:w' }",
        &[
            ("Basic YWRhOnA6dw==", true),
            ("basic YWRhOnA6dw==", true),
            ("BASIC  YWRhOnA6dw==", true),
            ("Basic YWRhOnB3", false),     // ada:pw
            ("Basic QURBOnA6dw==", false), // ADA:p:w
            ("Basic YWRh", false),         // ada
            ("Basic YWRhOg==", false),     // ada:
            ("Basic OnA6dw==", false),     // :p:w
            ("Basic !!!!", false),
            ("Basic YWRhOnA6dw", false), // its padding is missing
            ("Basic", false),
            ("Basic ", false),
            ("Bearer YWRhOnA6dw==", false),
            ("YWRhOnA6dw==", false),
        ],
    ),
    (
        "type: jwt, secret: { value: 'aa.bb.cc' }",
        &[
            ("aa.bb.cc", true),
            ("Bearer aa.bb.cc", true),
            ("bearer aa.bb.cc", true),
            ("BEARER  aa.bb.cc", true),
            ("aa.bb.cd", false),
            ("Bearer", false),
            ("Bearer Bearer aa.bb.cc", false),
            ("Basic aa.bb.cc", false),
            ("", false),
        ],
    ),
];

#[tokio::test]
async fn a_header_is_read_in_every_spelling_that_is_allowed_and_no_other() {
    for (client, spellings) in SPELLINGS {
        let origin = Origin::replying(200).await;
        let edge = Edge::to(&origin).client(client).start().await;
        for (spelling, allowed) in *spellings {
            let answer = edge.get("/api/demo/users").authorization(spelling).await;
            assert_eq!(answer.status, if *allowed { 200 } else { 403 }, "{client}: `{spelling}`");
        }
        for request in origin.requests() {
            assert_eq!(request.header("authorization"), Some("Bearer t1"));
        }
    }
}

#[tokio::test]
async fn a_parameter_is_read_like_the_header() {
    for (client, spellings) in SPELLINGS {
        let origin = Origin::replying(200).await;
        let edge = Edge::to(&origin).client(client).start().await;
        for (spelling, allowed) in spellings.iter().filter(|(spelling, _)| spelling.trim() == *spelling) {
            let answer = edge.get(&format!("/api/demo/users?a=1&Authorization={}&b=2", encoded(spelling))).await;
            assert_eq!(answer.status, if *allowed { 200 } else { 403 }, "{client}: `{spelling}`");
        }
        for request in origin.requests() {
            assert_eq!(request.target, "/users?a=1&b=2");
            assert_eq!(request.header("authorization"), Some("Bearer t1"));
        }
    }
}

#[tokio::test]
async fn the_parameters_name_is_read_in_any_case_and_its_space_as_plus() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).start().await;
    for query in ["authorization=Bearer%20k1", "AUTHORIZATION=bearer+k1", "Authorization=Bearer+k1"] {
        edge.get(&format!("/api/demo/users?{query}")).await.expect_granted(200);
    }
    assert!(origin.requests().iter().all(|request| request.target == "/users"));
}

#[tokio::test]
async fn the_parameter_is_removed_even_when_the_header_is_used() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).start().await;
    for (query, left) in [
        ("authorization=Bearer%20k1", "/users"),
        ("a=1&Authorization=nope", "/users?a=1"),
        ("Authorization=&a=1", "/users?a=1"),
        ("AUTHORIZATION&a=1", "/users?a=1"),
        ("a=1&aUTHORIZATION=x&b=2", "/users?a=1&b=2"),
        ("%41uthorization=x&b=2", "/users?b=2"),
        (
            "a=Authorization=x&xAuthorization=1&Authorizations=2",
            "/users?a=Authorization=x&xAuthorization=1&Authorizations=2",
        ),
    ] {
        edge.get(&format!("/api/demo/users?{query}")).bearer("k1").await.expect_granted(200);
        assert_eq!(origin.requests().last().expect("a request").target, left, "{query}");
    }
}

#[tokio::test]
async fn the_header_wins_over_the_parameter() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).start().await;
    edge.get("/api/demo/users?Authorization=Bearer%20k1").bearer("nope").await.expect_denied();
    edge.get("/api/demo/users?Authorization=Bearer%20nope").bearer("k1").await.expect_granted(200);
}

#[tokio::test]
async fn twice_is_denied_even_when_both_are_right() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).start().await;
    edge.get("/api/demo/users").bearer("k1").bearer("k1").await.expect_denied();
    edge.get("/api/demo/users").bearer("k1").header("authorization", "Bearer nope").await.expect_denied();
    edge.get("/api/demo/users?Authorization=Bearer%20k1&Authorization=Bearer%20k1").await.expect_denied();
    edge.get("/api/demo/users?Authorization=Bearer%20k1&authorization=Bearer%20k1").await.expect_denied();
    assert!(origin.requests().is_empty());
}

#[tokio::test]
async fn other_headers_carry_no_credential() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).start().await;
    for name in ["Proxy-Authorization", "X-Authorization", "X-Api-Key", "Cookie"] {
        edge.get("/api/demo/users").header(name, "Bearer k1").await.expect_denied();
    }
}

#[tokio::test]
async fn bytes_beyond_ascii_are_denied_not_decoded() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).start().await;
    for value in ["Bearer \u{e9}", "Bearer k1\u{200b}", "B\u{e9}arer k1"] {
        edge.get("/api/demo/users").authorization(value).await.expect_denied();
    }
    edge.get("/api/demo/users?Authorization=Bearer%20%ff%fe").await.expect_denied();
    edge.get("/api/demo/users?Authorization=Bearer%20k1%00").await.expect_denied();
}

#[tokio::test]
async fn a_secret_may_hold_any_utf8_in_a_basic_credential() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).client("type: basic, username: 'ädä', secret: { value: 'pässwörd' }").start().await;
    edge.get("/api/demo/users").basic("ädä", "pässwörd").await.expect_granted(200);
}

#[tokio::test]
async fn a_token_of_64_kib_is_turned_away() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).edge("limits: { max_header_bytes: 128KiB }").start().await;
    edge.get("/api/demo/users").bearer(&"x".repeat(64 * 1024)).await.expect_denied();
    let edge = Edge::to(&origin).start().await;
    let status = edge.get("/api/demo/users").bearer(&"x".repeat(64 * 1024)).await.status;
    assert!([403, 431].contains(&status), "{status}");
    assert!(origin.requests().is_empty());
}

#[tokio::test]
async fn a_configured_digest_is_as_good_as_the_secret() {
    use sha2::Digest as _;
    let digest: String = sha2::Sha256::digest("k9").iter().map(|byte| format!("{byte:02x}")).collect();
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).client(&format!("type: bearer, secret: {{ sha256: '{digest}' }}")).start().await;
    edge.get("/api/demo/users").bearer("k9").await.expect_granted(200);
    edge.get("/api/demo/users").bearer(&digest).await.expect_denied();
}

#[tokio::test]
async fn a_secret_comes_from_the_environment_or_a_file() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin)
        .client("type: api_key, secret: { env: EDGE_TEST_CLIENT }")
        .target_credential("type: bearer, secret: { file: origin-token }")
        .environment("EDGE_TEST_CLIENT", "from-env")
        .file("proxies.d/origin-token", "from-file\n")
        .start()
        .await;
    edge.get("/api/demo/users").authorization("from-env").await.expect_granted(200);
    assert_eq!(origin.request().header("authorization"), Some("Bearer from-file"));
}

#[tokio::test]
async fn each_of_several_credentials_opens_the_proxy() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin)
        .fragment(
            "proxy_credentials:
  - { id: b, type: basic, username: ada, secret: { value: pw } }
  - { id: k, type: api_key, secret: { value: key } }
proxies:
  - { id: many, target: origin, target_credential: origin-key, proxy_credentials: [client, b, k] }
",
        )
        .start()
        .await;
    let get = || edge.get("/api/many/x");
    let right: [Request; 3] = [get().bearer("k1"), get().basic("ada", "pw"), get().authorization("key")];
    for request in right {
        request.await.expect_granted(200);
    }
    for request in [get().bearer("key"), get().authorization("k1"), get().basic("ada", "k1"), get().basic("", "pw")] {
        request.await.expect_denied();
    }
}

#[tokio::test]
async fn guessing_is_slowed_down() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).edge("limits: { invalid_credentials_per_minute: 20 }").start().await;
    let mut client = edge.connect().await;
    for guess in 0..20 {
        let answer = client.exchange(&edge.get("/api/demo/users").bearer(&format!("guess-{guess}"))).await;
        answer.expect_denied().expect_reusable();
    }
    let answer = client.exchange(&edge.get("/api/demo/users").bearer("guess-20")).await;
    answer.expect_status(429).expect_whole().expect_reusable().expect_proxy_error("http_request_denied");
    let seconds: u64 = answer.header("retry-after").expect("Retry-After").parse().expect("seconds");
    assert!((1..=60).contains(&seconds), "{answer:?}");
    // A connection of its own does not help, an address of its own does.
    edge.get("/api/demo/users").bearer("guess-21").await.expect_status(429);
    let mut neighbour = Connection::from("127.0.0.2", edge.address()).await;
    neighbour.exchange(&edge.get("/api/demo/users").bearer("guess-22")).await.expect_denied();
    neighbour.exchange(&edge.get("/api/demo/users").bearer("k1")).await.expect_granted(200);
    // One line, for whoever bans addresses.
    eventually("a warning", async || edge.stderr().matches("client 127.0.0.1: ").count() == 1).await;
}

#[tokio::test]
async fn the_target_credential_goes_where_it_is_told() {
    let cases = [
        ("type: bearer, secret: { value: t1 }", ("authorization", Some("Bearer t1")), "/users?a=1&key=mine"),
        (
            "type: bearer, prefix: Token, secret: { value: t1 }",
            ("authorization", Some("Token t1")),
            "/users?a=1&key=mine",
        ),
        (
            "type: basic, username: bob, secret: { value: pw }",
            ("authorization", Some("Basic Ym9iOnB3")),
            "/users?a=1&key=mine",
        ),
        ("type: api_key, header: X-API-Key, secret: { value: t1 }", ("x-api-key", Some("t1")), "/users?a=1&key=mine"),
        ("type: api_key, query: key, secret: { value: 't 1&' }", ("authorization", None), "/users?a=1&key=t%201%26"),
        ("type: jwt, secret: { value: a.b.c }", ("authorization", Some("Bearer a.b.c")), "/users?a=1&key=mine"),
        ("type: none", ("authorization", None), "/users?a=1&key=mine"),
    ];
    for (credential, (name, value), target) in cases {
        let origin = Origin::replying(200).await;
        let edge = Edge::to(&origin).target_credential(credential).start().await;
        // Whatever the client sends in the credential's place is overwritten.
        edge.get("/api/demo/users?a=1&key=mine").bearer("k1").header("x-api-key", "mine").await.expect_granted(200);
        let seen = origin.request();
        assert_eq!(seen.header(name), value, "{credential}");
        assert_eq!(seen.target, target, "{credential}");
        if name != "authorization" {
            assert_eq!(seen.header("authorization"), None, "{credential}");
        }
        assert!(!format!("{seen:?}").contains("k1"), "{seen:?}");
    }
}

#[tokio::test]
async fn a_custom_target_credential_sets_its_headers() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin)
        .target_credential("type: custom, headers: { X-Account: { value: acme }, X-Signature: { value: s3cret } }")
        .start()
        .await;
    edge.get("/api/demo/users")
        .bearer("k1")
        .header("X-Account", "mine")
        .header("x-account", "mine")
        .await
        .expect_granted(200);
    let seen = origin.request();
    assert_eq!(seen.header("x-account"), Some("acme"));
    assert_eq!(seen.header("x-signature"), Some("s3cret"));
    assert_eq!(seen.header("authorization"), None);
}

/// Percent-encodes everything but letters and digits.
fn encoded(text: &str) -> String {
    text.bytes()
        .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

#[test]
fn the_table_above_encodes_what_it_says() {
    assert_eq!(STANDARD.encode("ada:p:w"), "YWRhOnA6dw==");
    assert_eq!(STANDARD.encode("ADA:p:w"), "QURBOnA6dw==");
    assert_eq!(STANDARD.encode(":p:w"), "OnA6dw==");
}
