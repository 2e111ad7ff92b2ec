//! The request as the target sees it, and the answer as the client sees it.

use crate::harness::nginx::Nginx;
use crate::harness::{Edge, Origin, ms, within};

#[tokio::test]
async fn the_target_sees_its_own_host_and_credential() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).start().await;
    edge.get("/api/demo/users").bearer("k1").header("Host", "edge.test:8080").await.expect_granted(200);
    let seen = origin.request();
    assert_eq!(seen.header("host"), Some(origin.address().to_string().as_str()));
    assert_eq!(seen.header("authorization"), Some("Bearer t1"));
    assert_eq!(seen.header("requestrocket-proxy-code"), Some("proxy-access-granted"));
    assert_eq!(seen.header("requestrocket-proxy-message"), Some("Proxy authentication successful"));
}

#[tokio::test]
async fn what_is_the_clients_own_business_is_kept() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).start().await;
    edge.post("/api/demo/users")
        .bearer("k1")
        .header("Content-Type", "application/json; charset=utf-8")
        .header("Accept", "text/*;q=0.5, */*")
        .header("Accept-Encoding", "br, gzip")
        .header("User-Agent", "tests/1")
        .header("Cookie", "a=1; b=2")
        .header("X-Custom", "one")
        .header("X-Custom", "two")
        .header("Range", "bytes=0-1")
        .header("If-None-Match", "\"x\"")
        .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        .body("{}")
        .await
        .expect_granted(200);
    let seen = origin.request();
    for (name, value) in [
        ("content-type", "application/json; charset=utf-8"),
        ("content-length", "2"),
        ("accept", "text/*;q=0.5, */*"),
        ("accept-encoding", "br, gzip"),
        ("user-agent", "tests/1"),
        ("cookie", "a=1; b=2"),
        ("range", "bytes=0-1"),
        ("if-none-match", "\"x\""),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ] {
        assert_eq!(seen.header(name), Some(value), "{name}");
    }
    assert_eq!(seen.all("x-custom"), ["one", "two"]);
    assert_eq!(seen.body, b"{}");
}

#[tokio::test]
async fn hop_by_hop_headers_end_here() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).start().await;
    edge.get("/api/demo/users")
        .bearer("k1")
        .header("Connection", "keep-alive, X-Nominated")
        .header("X-Nominated", "1")
        .header("Keep-Alive", "timeout=5")
        .header("Proxy-Connection", "keep-alive")
        .header("Proxy-Authorization", "Basic c2VjcmV0")
        .header("TE", "gzip")
        .header("Requestrocket-Proxy-Code", "forged")
        .header("requestrocket-proxy-warning", "forged")
        .header("RequestRocket-Proxy-Anything", "forged")
        .await
        .expect_granted(200);
    let seen = origin.request();
    for name in ["x-nominated", "keep-alive", "proxy-connection", "proxy-authorization", "upgrade"] {
        assert_eq!(seen.header(name), None, "{name}");
    }
    assert!(!seen.all("connection").iter().any(|value| value.to_lowercase().contains("nominated")), "{seen:?}");
    assert!(!format!("{seen:?}").contains("forged"), "{seen:?}");
    assert_eq!(seen.header("requestrocket-proxy-code"), Some("proxy-access-granted"));
}

#[tokio::test]
async fn a_client_cannot_nominate_our_headers_away() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).start().await;
    let ours = "close, Authorization, Host, X-Forwarded-For, Via, X-Request-Id, requestrocket-proxy-code";
    let answer = edge.get("/api/demo/users").bearer("k1").header("Connection", ours).await;
    if answer.status == 400 {
        return assert!(origin.requests().is_empty()); // such a request makes no sense, and may be refused as a whole
    }
    answer.expect_granted(200);
    let seen = origin.request();
    assert_eq!(seen.header("authorization"), Some("Bearer t1"));
    for name in ["host", "x-forwarded-for", "via", "x-request-id", "requestrocket-proxy-code"] {
        assert!(seen.header(name).is_some(), "{name}: {seen:?}");
    }
}

#[tokio::test]
async fn a_strangers_forwarding_headers_are_replaced() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).start().await;
    edge.get("/api/demo/users")
        .bearer("k1")
        .header("X-Forwarded-For", "1.2.3.4")
        .header("X-Forwarded-For", "5.6.7.8")
        .header("X-Forwarded-Proto", "https")
        .header("X-Forwarded-Host", "bank.test")
        .await
        .expect_granted(200);
    let seen = origin.request();
    assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.header("x-forwarded-proto"), Some("http"));
    assert_eq!(seen.header("x-forwarded-host"), Some("edge.test"));
    assert!(seen.header("via").is_some_and(|via| via.starts_with("1.1 ")), "{seen:?}");
}

#[tokio::test]
async fn a_trusted_proxys_forwarding_headers_are_appended_to() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).edge("trusted_proxies: [127.0.0.0/8]").start().await;
    edge.get("/api/demo/users").bearer("k1").header("X-Forwarded-For", "1.2.3.4").await.expect_granted(200);
    assert_eq!(origin.request().header("x-forwarded-for"), Some("1.2.3.4, 127.0.0.1"));
}

#[tokio::test]
async fn via_is_added_on_both_ways() {
    let origin = Origin::saying("HTTP/1.1 200 OK\r\nVia: 1.0 inner\r\nContent-Length: 0\r\n\r\n").await;
    let edge = Edge::to(&origin).start().await;
    let answer = edge.get("/api/demo/users").bearer("k1").header("Via", "1.0 outer").await;
    let joined = |values: Vec<&str>| values.join(", ");
    let response = joined(answer.all("via"));
    assert!(response.starts_with("1.0 inner, 1.1 "), "{response}");
    let request = joined(origin.request().all("via"));
    assert!(request.starts_with("1.0 outer, 1.1 "), "{request}");
}

#[tokio::test]
async fn a_well_formed_request_id_is_kept_and_any_other_replaced() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).start().await;
    edge.get("/api/demo/x").bearer("k1").header("X-Request-Id", "abc-123_DEF").await.expect_granted(200);
    assert_eq!(origin.request().header("x-request-id"), Some("abc-123_DEF"));
    edge.get("/api/demo/x")
        .bearer("nope")
        .header("X-Request-Id", "abc-123")
        .await
        .expect_header("x-request-id", "abc-123");
    for odd in ["", "a b", "\"quoted\"", "a\u{e9}", &"x".repeat(1000), "<script>", "a,b"] {
        edge.get("/api/demo/x").bearer("k1").header("X-Request-Id", odd).await.expect_granted(200);
        let requests = origin.requests();
        let id = requests.last().expect("a request").header("x-request-id").expect("an id");
        assert!(id != odd && id.len() >= 8, "{odd:?} became {id:?}");
    }
    edge.get("/api/demo/x").bearer("k1").header("X-Request-Id", "one").header("X-Request-Id", "two").await;
    assert_eq!(origin.requests().last().expect("a request").all("x-request-id").len(), 1);
}

#[tokio::test]
async fn bodies_arrive_with_the_framing_they_were_sent_with() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).start().await;
    edge.post("/api/demo/x").bearer("k1").body("sized").await.expect_granted(200);
    edge.post("/api/demo/x").bearer("k1").pieces(["chun", "ked"]).await.expect_granted(200);
    edge.post("/api/demo/x").bearer("k1").body("").await.expect_granted(200);
    edge.request("DELETE", "/api/demo/x").bearer("k1").body("with a body").await.expect_granted(200);
    let [sized, chunked, empty, delete] = &origin.requests()[..] else { panic!("four requests") };
    assert_eq!((sized.header("content-length"), &sized.body[..]), (Some("5"), &b"sized"[..]));
    assert_eq!((chunked.header("transfer-encoding"), &chunked.body[..]), (Some("chunked"), &b"chunked"[..]));
    assert_eq!(empty.header("content-length"), Some("0"));
    assert_eq!(delete.body, b"with a body");
}

#[tokio::test]
async fn redirects_are_handed_on() {
    let origin = Origin::saying(
        "HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/x\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 0\r\n\r\n",
    )
    .await;
    let edge = Edge::to(&origin).start().await;
    let answer = edge.get("/api/demo/x").bearer("k1").await;
    answer.expect_granted(302).expect_header("location", "http://169.254.169.254/x");
    assert_eq!(answer.all("set-cookie"), ["a=1", "b=2"]);
    assert_eq!(origin.requests().len(), 1);
}

#[tokio::test]
async fn an_answers_hop_by_hop_headers_end_here() {
    let origin = Origin::saying(
        "HTTP/1.1 200 OK\r\nConnection: X-Nominated\r\nX-Nominated: 1\r\nKeep-Alive: timeout=5\r\n\
         Proxy-Authenticate: Basic\r\nServer: odd/1\r\nX-Own: kept\r\nContent-Length: 2\r\n\r\nok",
    )
    .await;
    let edge = Edge::to(&origin).start().await;
    let answer = edge.get("/api/demo/x").bearer("k1").await;
    answer.expect_granted(200).expect_header("server", "odd/1").expect_header("x-own", "kept").expect_body("ok");
    for name in ["x-nominated", "keep-alive", "proxy-authenticate"] {
        answer.expect_no_header(name);
    }
}

#[tokio::test]
async fn answers_without_a_body_stay_without() {
    for (status, extra) in [(204, ""), (304, "ETag: \"x\"\r\n"), (304, "Content-Length: 10\r\n")] {
        let origin = Origin::saying(format!("HTTP/1.1 {status} Status\r\n{extra}\r\n")).await;
        let edge = Edge::to(&origin).start().await;
        let mut client = edge.connect().await;
        for _ in 0..2 {
            let answer = client.exchange(&edge.get("/api/demo/x").bearer("k1")).await;
            answer.expect_granted(status).expect_body("").expect_reusable();
            assert_eq!(answer.header("transfer-encoding"), None);
        }
    }
}

#[tokio::test]
async fn head_keeps_the_length_and_has_no_body() {
    let origin = Origin::saying("HTTP/1.1 200 OK\r\nContent-Length: 123456789\r\n\r\n").await;
    let edge = Edge::to(&origin).start().await;
    let mut client = edge.connect().await;
    for _ in 0..2 {
        let answer = client.exchange(&edge.request("HEAD", "/api/demo/x").bearer("k1")).await;
        answer.expect_granted(200).expect_header("content-length", "123456789").expect_reusable();
    }
}

#[tokio::test]
async fn an_http_1_0_client_gets_an_answer_it_understands() {
    let origin = Origin::saying("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n").await;
    for response in ["held", "streamed"] {
        let edge = Edge::to(&origin).proxy(&format!("response: {response}")).start().await;
        let mut client = edge.connect().await;
        client.send("GET /api/demo/x HTTP/1.0\r\nAuthorization: Bearer k1\r\n\r\n").await;
        let answer = client.answer().await;
        answer.expect_granted(200).expect_no_header("transfer-encoding").expect_body("ok");
    }
}

#[tokio::test]
async fn a_small_http_1_0_request_is_answered_on_a_listener_that_takes_http_2_too() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).http2().start().await;
    let mut client = edge.connect().await;
    client.send("GET / HTTP/1.0\r\n\r\n").await;
    client.answer().await.expect_status(404).expect_within(ms(1000));
}

#[tokio::test]
async fn requests_in_a_row_on_one_connection_keep_apart() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).start().await;
    let mut client = edge.connect().await;
    for number in 0..10 {
        let request = if number % 3 == 0 {
            edge.get("/api/demo/x").bearer("nope")
        } else {
            edge.post("/api/demo/x").bearer("k1").body("b")
        };
        let answer = client.exchange(&request).await;
        answer.expect_status(if number % 3 == 0 { 403 } else { 200 }).expect_reusable();
    }
    assert_eq!(origin.requests().len(), 6);
    assert!(origin.requests().iter().all(|request| request.body == b"b"));
}

#[tokio::test]
async fn target_connections_are_reused() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).start().await;
    for _ in 0..10 {
        edge.get("/api/demo/x").bearer("k1").await.expect_granted(200);
    }
    assert!(origin.connections() <= 2, "{} connections for ten requests in a row", origin.connections());
}

#[tokio::test]
async fn an_ordinary_server_takes_what_we_send() {
    let nginx = Nginx::start().await;
    let edge = Edge::to(&nginx).unhurried().start().await;
    let host = crate::harness::edge::Target::base_url(&&nginx).replace("http://", "");
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        let answer = edge.request(method, "/api/demo/a%2Fb?x=%20+&y").bearer("k1").await;
        answer.expect_granted(200).expect_body(format!("{method} /a%2Fb?x=%20+&y\n{host}\nBearer t1\n"));
    }
    edge.get("/api/demo/moved").bearer("k1").await.expect_granted(302);
    edge.get("/api/demo/empty").bearer("k1").await.expect_granted(204);
    edge.get("/api/demo/files/none").bearer("k1").await.expect_granted(404);
}

#[tokio::test]
async fn compressed_answers_pass_untouched() {
    let nginx = Nginx::start().await;
    let edge = Edge::to(&nginx).start().await;
    let plain = edge.get("/api/demo/files/page.txt").bearer("k1").await;
    plain.expect_granted(200).expect_body("hello ".repeat(1000)).expect_no_header("content-encoding");
    let packed = edge.get("/api/demo/files/page.txt").bearer("k1").header("Accept-Encoding", "gzip").await;
    packed.expect_granted(200).expect_header("content-encoding", "gzip");
    assert!(packed.body.starts_with(&[0x1f, 0x8b]) && packed.body.len() < 1000, "{packed:?}");
}

#[tokio::test]
async fn ranges_and_validators_work_through_the_edge() {
    let nginx = Nginx::start().await;
    let edge = Edge::to(&nginx).start().await;
    let part = edge.get("/api/demo/files/page.txt").bearer("k1").header("Range", "bytes=6-10").await;
    part.expect_granted(206).expect_body("hello");
    let etag = part.header("etag").expect("an ETag").to_owned();
    edge.get("/api/demo/files/page.txt").bearer("k1").header("If-None-Match", &etag).await.expect_granted(304);
    let whole = edge.request("HEAD", "/api/demo/files/page.txt").bearer("k1").await;
    whole.expect_granted(200).expect_header("content-length", "6000");
    edge.request("PUT", "/api/demo/files/new.txt").bearer("k1").body("new").await.expect_granted(201);
    edge.get("/api/demo/files/new.txt").bearer("k1").await.expect_granted(200).expect_body("new");
}

#[tokio::test]
async fn a_client_that_asks_to_close_is_closed() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).start().await;
    for credential in ["k1", "no"] {
        let mut client = edge.connect().await;
        let answer = client.exchange(&edge.get("/api/demo/x").bearer(credential).header("Connection", "close")).await;
        assert!(!answer.reusable, "{answer:?}");
        assert!(within(ms(2000), "the end of the connection", client.rest()).await.is_empty());
    }
}

#[tokio::test]
async fn requests_sent_ahead_are_answered_in_order_or_not_at_all() {
    let origin = Origin::scripted(|mut peer| async move {
        while let Some(request) = peer.request().await {
            peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", request.target)).await;
        }
    })
    .await;
    let edge = Edge::to(&origin).edge("limits: { keepalive_timeout: 1s }").start().await;
    let mut client = edge.connect().await;
    let ahead = [edge.get("/api/demo/1").bearer("k1").head(), edge.get("/api/demo/2").bearer("k1").head()].concat();
    client.send(ahead).await;
    let first = client.answer().await;
    first.expect_granted(200).expect_body("/1");
    if first.reusable {
        client.answer().await.expect_granted(200).expect_body("/2");
    } else {
        assert!(client.rest().await.is_empty());
    }
}

#[tokio::test]
async fn an_http_1_0_target_is_understood() {
    let origin = Origin::scripted(|mut peer| async move {
        peer.request().await;
        peer.send("HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nuntil the end").await;
    })
    .await;
    let edge = Edge::to(&origin).start().await;
    let mut client = edge.connect().await;
    for _ in 0..2 {
        let answer = client.exchange(&edge.get("/api/demo/x").bearer("k1")).await;
        answer.expect_granted(200).expect_header("content-length", "13").expect_body("until the end").expect_reusable();
    }
}

#[tokio::test]
async fn a_target_that_closes_after_each_answer_is_no_trouble() {
    let origin = Origin::scripted(|mut peer| async move {
        peer.request().await;
        peer.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok").await;
    })
    .await;
    let edge = Edge::to(&origin).start().await;
    let mut client = edge.connect().await;
    for _ in 0..5 {
        let answer = client.exchange(&edge.post("/api/demo/x").bearer("k1").body("b")).await;
        answer.expect_granted(200).expect_body("ok").expect_reusable();
    }
    assert_eq!(origin.connections(), 5);
}

#[tokio::test]
async fn interim_answers_do_not_stand_for_the_final_one() {
    let origin = Origin::saying(
        "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    )
    .await;
    let edge = Edge::to(&origin).http2().start().await;
    for http2 in [false, true] {
        let answer = edge.get("/api/demo/x").bearer("k1").http2(http2).await;
        answer.expect_granted(200).expect_body("ok");
        assert!(answer.interim.iter().all(|status| [102, 103].contains(status)), "{:?}", answer.interim);
    }
}

#[tokio::test]
async fn idle_target_connections_are_closed() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).edge("pool: { idle_timeout: 300ms }").start().await;
    edge.get("/api/demo/x").bearer("k1").await.expect_granted(200);
    within(ms(3000), "the target is let go", origin.until("", |events| events.closed.contains(&0))).await;
}
