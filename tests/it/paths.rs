//! One reading of the path and the query, for rules and for the target.

use percent_encoding::percent_decode;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use regex::bytes::Regex;

use crate::harness::frames::{END_HEADERS, END_STREAM, HEADERS, block};
use crate::harness::{Edge, Frames, Llhttp, Origin, Outcome};

#[tokio::test]
async fn the_path_reaches_the_target_byte_for_byte() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).start().await;
    for (path, seen) in [
        ("/api/demo", "/"),
        ("/api/demo/", "/"),
        ("/api/demo/users", "/users"),
        ("/api/demo/users/", "/users/"),
        ("/api/demo//users//1", "//users//1"),
        ("/api/demo/a%2Fb", "/a%2Fb"),
        ("/api/demo/a%2fb", "/a%2fb"),
        ("/api/demo/%41%20%C3%A9%c3%a9", "/%41%20%C3%A9%c3%a9"),
        ("/api/demo/a;v=1/b:c@d!$&'()*+,=~-._", "/a;v=1/b:c@d!$&'()*+,=~-._"),
        ("/api/demo/...", "/..."),
        ("/api/demo/.hidden/..x/x..", "/.hidden/..x/x.."),
        ("/api/demo/api/demo/x", "/api/demo/x"),
        ("/api/demo/%3F%23", "/%3F%23"),
    ] {
        edge.get(path).bearer("k1").await.expect_granted(200);
        assert_eq!(origin.requests().last().expect("a request").target, seen, "{path}");
    }
}

#[tokio::test]
async fn the_base_path_of_the_target_comes_first() {
    for base in ["/v1", "/v1/"] {
        let origin = Origin::replying(200).await;
        let edge = Edge::to(format!("http://{}{base}", origin.address())).start().await;
        for (path, seen) in [
            ("/api/demo", "/v1/"),
            ("/api/demo/", "/v1/"),
            ("/api/demo/users", "/v1/users"),
            ("/api/demo//x", "/v1//x"),
            ("/api/demo?a=1", "/v1/?a=1"),
        ] {
            edge.get(path).bearer("k1").await.expect_granted(200);
            assert_eq!(origin.requests().last().expect("a request").target, seen, "{base} {path}");
        }
    }
}

#[tokio::test]
async fn the_query_reaches_the_target_byte_for_byte() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).start().await;
    for query in [
        "?a=1&b=2",
        "?",
        "?a",
        "?&&a==&=&",
        "?a=%20+%2B&a=1&A=2",
        "?q=%zz%",
        "?path=../../etc/passwd&x=%2e%2e",
        "?a=1?b=2/c",
        "?a;b|c",
        "?json={%22a%22:[1]}",
    ] {
        edge.get(&format!("/api/demo/x{query}")).bearer("k1").await.expect_granted(200);
        assert_eq!(origin.requests().last().expect("a request").target, format!("/x{query}"));
    }
}

#[tokio::test]
async fn an_ambiguous_path_is_a_400() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).start().await;
    for path in [
        "/api/demo/..",
        "/api/demo/.",
        "/api/demo/../other",
        "/api/demo/a/../b",
        "/api/demo/a/./b",
        "/api/demo/%2e%2e/b",
        "/api/demo/%2E",
        "/api/demo/.%2e/b",
        "/api/demo/%2e./b",
        "/api/../api/demo/x",
        "/api/demo/a\\b",
        "/api/demo/..\\b",
        "/api/demo/%00",
        "/api/demo/a%00b",
        "/api/demo/%",
        "/api/demo/%4",
        "/api/demo/%zz",
        "/api/demo/%-1",
        "/api/demo/x%",
    ] {
        let answer = edge.get(path).bearer("k1").await;
        let message = answer.header("requestrocket-proxy-message").unwrap_or_default().to_owned();
        assert!(!message.is_empty(), "{path}: {answer:?}");
        answer.expect_refusal(400, "proxy-access-denied", &message, "http_request_error").expect_reusable();
    }
    assert!(origin.requests().is_empty());
}

#[tokio::test]
async fn bytes_that_no_path_may_hold_are_a_400() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).start().await;
    let mut taken = Vec::new();
    for path in ["/api/demo/a\0b", "/api/demo/a#b", "/api/demo/a\tb", "/api/demo/a\x7fb"] {
        let answer = edge.get(path).bearer("k1").await;
        if answer.status != 400 {
            taken.push((path, answer.status, origin.requests().pop().map(|request| request.target)));
        }
    }
    assert!(taken.is_empty(), "{taken:?}");
    assert!(origin.requests().is_empty());
}

#[tokio::test]
async fn a_path_outside_of_the_api_is_a_404() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).start().await;
    for path in [
        "/",
        "/api",
        "/api/",
        "/api//demo/x",
        "/apis/demo/x",
        "/API/demo/x",
        "/demo/x",
        "/x/api/demo",
        "/livez",
        "/metrics",
    ] {
        let answer = edge.get(path).bearer("k1").await;
        let message = answer.header("requestrocket-proxy-message").unwrap_or_default().to_owned();
        assert!(!message.is_empty(), "{path}: {answer:?}");
        answer.expect_refusal(404, "proxy-access-denied", &message, "http_request_error").expect_reusable();
    }
    assert!(origin.requests().is_empty());
}

#[tokio::test]
async fn a_proxy_id_is_taken_literally() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).start().await;
    for path in ["/api/DEMO/x", "/api/dem/x", "/api/demo1/x", "/api/demo;a/x"] {
        edge.get(path).bearer("k1").await.expect_denied();
    }
    let status = edge.get("/api/%64emo/x").bearer("k1").await.status;
    assert!([400, 403].contains(&status), "{status}");
    assert!(origin.requests().is_empty());
}

#[tokio::test]
async fn a_whole_uri_as_target_is_read_like_its_path() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).start().await;
    edge.get("http://edge.test/api/demo/users?a=1").bearer("k1").await.expect_granted(200);
    assert_eq!(origin.request().target, "/users?a=1");
}

#[tokio::test]
async fn options_for_everything_belongs_to_no_proxy() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).start().await;
    let status = edge.request("OPTIONS", "*").bearer("k1").await.status;
    assert!([400, 404].contains(&status), "{status}");
}

#[tokio::test]
async fn raw_bytes_above_ascii_are_left_to_the_target() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).start().await;
    edge.get("/api/demo/caf\u{e9}?q=\u{e9}").bearer("k1").await.expect_granted(200);
    assert_eq!(origin.request().target, "/caf\u{e9}?q=\u{e9}");

    // Some refuse them (RFC 3986 section 2.1), and are heard.
    let strict = Llhttp::start().await;
    let edge = Edge::to(&strict).start().await;
    edge.get("/api/demo/caf\u{e9}").bearer("k1").await.expect_granted(400);
    edge.get("/api/demo/caf%C3%A9").bearer("k1").await.expect_granted(200);
    assert_eq!(strict.requests().len(), 1, "{:?}", strict.requests());
}

/// Paths as attackers write them, around a place that a rule denies.
fn hostile_path() -> impl Strategy<Value = Vec<u8>> {
    let pieces = [
        "/",
        "/",
        "//",
        "admin",
        "admin",
        "Admin",
        "%61dmin",
        "adm%69n",
        "%61%64%6d%69%6e",
        ".",
        "..",
        "%2e",
        "%2E%2e",
        ".%2e",
        "%2F",
        "%2f",
        "%5c",
        "\\",
        ";",
        "%3b",
        ";x=",
        "%",
        "%%",
        "%00",
        "%0a",
        "%0d%0a",
        "%09",
        "%20",
        " ",
        "\t",
        "?",
        "%3f",
        "#",
        "%23",
        "%25",
        "%2561",
        "%252e",
        "%u0061",
        "%c0%ae",
        "%c0%af",
        "%ef%bc%8f",
        "%ff",
        "\u{ff0f}",
        "\u{e9}",
        "a",
        "x",
        "+",
        ":",
        "@",
    ];
    let piece = prop_oneof![
        9 => proptest::sample::select(pieces.to_vec()).prop_map(|piece| piece.as_bytes().to_vec()),
        // A line feed ends the request line in HTTP/1.1, and there is another test for that.
        1 => any::<u8>().prop_filter("no line end", |byte| !b"\r\n".contains(byte)).prop_map(|byte| vec![byte]),
    ];
    proptest::collection::vec(piece, 0..8).prop_map(|pieces| [&b"/"[..], &pieces.concat()].concat())
}

#[tokio::test]
async fn no_reading_of_a_path_that_arrives_is_one_that_a_rule_denies() {
    const PATHS: usize = 1500;
    const RULE: &str = "^/+admin";
    let origin = Llhttp::start().await;
    let rule = format!("rules: [{{ id: no-admin, effect: deny, path: {RULE} }}]");
    let edge = Edge::to(&origin).proxy(&rule).unhurried().http2().start().await;
    let mut runner = TestRunner::default();
    let strategy = hostile_path();
    let paths: Vec<Vec<u8>> =
        (0..PATHS).map(|_| strategy.new_tree(&mut runner).expect("nothing is rejected").current()).collect();

    // By turns over HTTP/1.1 and HTTP/2; each request is known by its id.
    let (mut granted, mut denied) = (0, 0);
    for (at, path) in paths.iter().enumerate() {
        let target = [b"/api/demo", &path[..]].concat();
        let status = if at % 2 == 0 {
            let mut client = edge.connect().await;
            let rest = format!(" HTTP/1.1\r\nHost: e\r\nAuthorization: Bearer k1\r\nX-Request-Id: {at}\r\n\r\n");
            client.send([b"GET ", &target[..], rest.as_bytes()].concat()).await;
            client.head().await.status
        } else {
            let mut client = Frames::to(edge.address()).await;
            let id = at.to_string();
            let fields: [(&str, &[u8]); 6] = [
                (":method", b"GET"),
                (":scheme", b"http"),
                (":authority", b"e"),
                (":path", &target),
                ("authorization", b"Bearer k1"),
                ("x-request-id", id.as_bytes()),
            ];
            client.send(HEADERS, END_HEADERS | END_STREAM, 1, block(fields)).await;
            match client.outcome(1).await {
                Outcome::Status(status) => status,
                Outcome::Reset(_) | Outcome::GoAway(_) => 400,
                Outcome::Closed => panic!("no word on {}", path.escape_ascii()),
            }
        };
        granted += usize::from(status == 200);
        denied += usize::from(status == 403);
        assert!([200, 400, 403].contains(&status), "{}: {status}", path.escape_ascii());
    }
    assert!(granted > PATHS / 20 && denied > PATHS / 50, "of {PATHS}: {granted} granted, {denied} denied");

    let rule = Regex::new(RULE).expect("a regular expression");
    let seen = origin.requests();
    assert_eq!(seen.len(), granted, "what arrived was granted, and what was granted arrived");
    for seen in &seen {
        let id: usize = std::str::from_utf8(seen.all("x-request-id")[0]).expect("ours").parse().expect("ours");
        let sent = paths[id].split(|byte| b"?#".contains(byte)).next().expect("a piece");
        let decoded: Vec<u8> = percent_decode(sent).collect();
        let told = format!("`{}` arrived as {seen:?}", paths[id].escape_ascii());
        assert_eq!(seen.readings[0].0, decoded, "the target decodes what the rule was asked about: {told}");
        for reading in &seen.readings {
            assert!(!rule.is_match(&reading.0), "{told}");
        }
    }
}
