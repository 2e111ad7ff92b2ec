//! One reading of the path and the query, for rules and for the target.

use crate::harness::{Edge, Origin};

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
