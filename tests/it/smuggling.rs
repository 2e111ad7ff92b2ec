//! Requests that two parsers could read differently. The target must never see more, or other, than was checked.

use crate::harness::{Edge, Origin, ms, within};

const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n";

#[tokio::test]
async fn a_request_that_hides_another_is_refused_or_read_once() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin)
        .unhurried()
        .edge("limits: { header_timeout: 1s, body_timeout: 1s, keepalive_timeout: 1s }")
        .start()
        .await;
    let lengths = [
        ("two framings", "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("two framings, the other way", "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n"),
        ("two lengths", "Content-Length: 0\r\nContent-Length: 35\r\n\r\n"),
        ("a list of lengths", "Content-Length: 0, 35\r\n\r\n"),
        ("a signed length", "Content-Length: +0\r\n\r\n"),
        ("a negative length", "Content-Length: -1\r\n\r\n"),
        ("a hexadecimal length", "Content-Length: 0x0\r\n\r\n"),
        ("an empty length", "Content-Length: \r\n\r\n"),
        ("an unknown coding", "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
        ("chunked is not last", "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
        ("chunked twice", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("space before the colon", "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
        ("a folded line", "X: a\r\n Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n"),
        ("a bare line feed", "X: a\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n"),
        ("a NUL in a value", "X: a\0b\r\nContent-Length: 0\r\n\r\n"),
        ("a bad chunk size", "Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n"),
        ("a chunk size that wraps", "Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n\r\n"),
        ("a chunk longer than it says", "Transfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n"),
    ];
    for (name, rest) in lengths {
        let mut client = edge.connect().await;
        client
            .send(format!("POST /api/demo/x HTTP/1.1\r\nHost: e\r\nAuthorization: Bearer k1\r\n{rest}{HIDDEN}"))
            .await;
        let answers = within(ms(8000), name, client.rest()).await;
        let text = String::from_utf8_lossy(&answers);
        assert!(text.starts_with("HTTP/1.1 "), "{name}: an answer, not silence: {text:?}");
        for seen in origin.requests() {
            assert_eq!((seen.method.as_str(), seen.target.as_str()), ("POST", "/x"), "{name}: {seen:?}");
            let framings = seen.all("content-length").len() + seen.all("transfer-encoding").len();
            assert!(framings <= 1, "{name}: {seen:?}");
        }
    }
}

#[tokio::test]
async fn a_framing_that_contradicts_itself_is_a_400() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).start().await;
    let mut taken = Vec::new();
    for rest in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Content-Length: 0\r\nContent-Length: 35\r\n\r\n",
        "Content-Length: x\r\n\r\n",
        "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    ] {
        let mut client = edge.connect().await;
        client.send(format!("POST /api/demo/x HTTP/1.1\r\nHost: e\r\nAuthorization: Bearer k1\r\n{rest}")).await;
        let answer = client.answer().await;
        if answer.status != 400 {
            taken.push((rest, answer));
        }
    }
    assert!(taken.is_empty(), "{taken:#?}");
    assert!(origin.requests().is_empty(), "{:?}", origin.requests());
}

#[tokio::test]
async fn a_request_names_one_host() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).start().await;
    let mut taken = Vec::new();
    for hosts in ["", "Host: a\r\nHost: b\r\n", "Host: a, b\r\n", "Host: a/b\r\n", "Host: \r\n", "Host: a@b\r\n"] {
        let mut client = edge.connect().await;
        client.send(format!("GET /api/demo/x HTTP/1.1\r\n{hosts}Authorization: Bearer k1\r\n\r\n")).await;
        let answer = client.answer().await;
        // RFC 9112, 3.2: none, several, or an invalid one. An empty one is valid where there is no authority.
        if answer.status != 400 && !hosts.contains("Host: \r") {
            taken.push((hosts, answer.status));
        }
    }
    assert!(taken.is_empty(), "{taken:?}");
}

#[tokio::test]
async fn an_http_1_0_client_cannot_send_chunks() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).edge("limits: { body_timeout: 1s }").start().await;
    let mut client = edge.connect().await;
    client
        .send("POST /api/demo/x HTTP/1.0\r\nAuthorization: Bearer k1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
        .await
        .send(HIDDEN)
        .await;
    within(ms(8000), "an end", client.rest()).await;
    assert!(
        origin.requests().iter().all(|request| request.target == "/x" && request.all("transfer-encoding").len() <= 1)
    );
}
