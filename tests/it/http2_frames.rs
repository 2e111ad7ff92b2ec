//! HTTP/2 as no library writes it: requests that RFC 9113 calls malformed, and floods. Nothing of the former reaches an
//! HTTP/1.1 target, none of the latter costs more than its own connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::harness::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, HEADERS, PING, PRIORITY, PROTOCOL_ERROR,
    RST_STREAM, SETTINGS, WINDOW_UPDATE, block, frame, literal,
};
use crate::harness::{Edge, Frames, Llhttp, Origin, Outcome, eventually, ms};

type Fields = Vec<(Vec<u8>, Vec<u8>)>;
/// The frame that is wrong on a stream.
type Wrong = fn(u32) -> Vec<u8>;

fn request(method: &str, path: &str) -> Fields {
    fields(&[
        (":method", method),
        (":scheme", "http"),
        (":authority", "edge.test"),
        (":path", path),
        ("authorization", "Bearer k1"),
    ])
}

fn fields(fields: &[(&str, &str)]) -> Fields {
    fields.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
}

/// A good request but for one field, which takes the place of those of its name or stands at the end.
fn but(name: &str, value: &str) -> Fields {
    let mut fields = request("GET", "/api/demo/x");
    match fields.iter_mut().find(|(n, _)| n == name.as_bytes()) {
        Some(field) => field.1 = value.as_bytes().to_vec(),
        None => fields.push((name.into(), value.into())),
    }
    fields
}

/// A good request and one field more.
fn and(name: &str, value: &str) -> Fields {
    [request("GET", "/api/demo/x"), self::fields(&[(name, value)])].concat()
}

/// A good request without one of its fields.
fn without(name: &str) -> Fields {
    let mut fields = request("GET", "/api/demo/x");
    fields.retain(|(n, _)| n != name.as_bytes());
    fields
}

#[tokio::test]
async fn a_malformed_header_reaches_no_target() {
    let origin = Llhttp::start().await;
    let edge = Edge::to(&origin).unhurried().http2().start().await;
    let mut late = request("GET", "/api/demo/x");
    late.rotate_left(1);
    let cases: Vec<(&str, Fields)> = vec![
        ("no method", without(":method")),
        ("no scheme", without(":scheme")),
        ("no path", without(":path")),
        ("no authority", without(":authority")),
        ("a method twice", and(":method", "GET")),
        ("a path twice", and(":path", "/api/demo/x")),
        ("a pseudo-header that comes late", late),
        ("an unknown pseudo-header", [fields(&[(":target", "x")]), request("GET", "/api/demo/x")].concat()),
        ("a pseudo-header of answers", [fields(&[(":status", "200")]), request("GET", "/api/demo/x")].concat()),
        ("a protocol", [fields(&[(":protocol", "websocket")]), request("CONNECT", "/api/demo/x")].concat()),
        ("a method of nothing", but(":method", "")),
        ("a method of two", but(":method", "GET /hidden HTTP/1.1\r\nX:")),
        ("a method with a space", but(":method", "GET /hidden")),
        ("a method with a NUL", but(":method", "GET\0")),
        ("a path of nothing", but(":path", "")),
        ("a path of an asterisk", but(":path", "*")),
        ("a path without a slash", but(":path", "api/demo/x")),
        ("a path that is a URI", but(":path", "http://evil.test/api/demo/x")),
        ("a path with a space", but(":path", "/api/demo/x HTTP/1.1")),
        ("a path with a tab", but(":path", "/api/demo/x\ty")),
        ("a path with a NUL", but(":path", "/api/demo/x\0y")),
        ("a path with a DEL", but(":path", "/api/demo/x\x7fy")),
        ("a path with a line feed", but(":path", "/api/demo/x\ny")),
        ("a path with a request behind it", but(":path", "/api/demo/x HTTP/1.1\r\nHost: x\r\n\r\nGET /hidden")),
        ("a path with a dot segment", but(":path", "/api/demo/%2e%2e/x")),
        ("an authority of nothing", but(":authority", "")),
        ("an authority with a user", but(":authority", "user@edge.test")),
        ("an authority with a space", but(":authority", "edge.test evil.test")),
        ("an authority with a path", but(":authority", "edge.test/x")),
        ("an authority with a line break", but(":authority", "edge.test\r\nX: 1")),
        ("a Host that differs", and("host", "evil.test")),
        ("two Hosts", [without(":authority"), fields(&[("host", "edge.test"), ("host", "evil.test")])].concat()),
        ("a scheme with a line break", but(":scheme", "http\r\nX: 1")),
        ("a scheme that is a URI", but(":scheme", "http://evil.test/?")),
        ("CONNECT with a path", request("CONNECT", "/api/demo/x")),
        ("CONNECT", fields(&[(":method", "CONNECT"), (":authority", "edge.test:80"), ("authorization", "Bearer k1")])),
        ("a name of nothing", and("", "1")),
        ("a name in capitals", and("X-A", "1")),
        ("a name with a space", and("x a", "1")),
        ("a name with a colon", and("x:a", "1")),
        ("a name with a NUL", and("x\0a", "1")),
        ("a name with a line break", and("x: 1\r\ntransfer-encoding", "chunked")),
        ("a name with a bare line feed", and("x\na", "1")),
        ("a name that is not ASCII", and("x-\u{e9}", "1")),
        ("a value with a line break", and("x", "1\r\nTransfer-Encoding: chunked")),
        ("a value with a bare line feed", and("x", "1\nX: 2")),
        ("a value with a bare carriage return", and("x", "1\rX: 2")),
        ("a value with a NUL", and("x", "1\0")),
        ("a value with a DEL", and("x", "1\x7f")),
        ("Connection", and("connection", "close")),
        ("Keep-Alive", and("keep-alive", "1")),
        ("Proxy-Connection", and("proxy-connection", "keep-alive")),
        ("Transfer-Encoding", and("transfer-encoding", "chunked")),
        ("Upgrade", and("upgrade", "websocket")),
        ("TE of a coding", and("te", "gzip")),
        ("TE of a coding and trailers", and("te", "trailers, gzip")),
        ("a length that is none", and("content-length", "x")),
        ("a length of something", and("content-length", "5")),
        (
            "two lengths",
            [request("GET", "/api/demo/x"), fields(&[("content-length", "0"), ("content-length", "5")])].concat(),
        ),
        ("a list of lengths", and("content-length", "0, 5")),
        ("a negative length", and("content-length", "-1")),
        ("two credentials", and("authorization", "Bearer k1")),
        ("a value that begins with a space", and("x", " 1")),
        ("a value that ends in a tab", and("x", "1\t")),
    ];
    let mut taken = Vec::new();
    for (name, fields) in &cases {
        let mut client = Frames::to(edge.address()).await;
        client.send(HEADERS, END_HEADERS | END_STREAM, 1, block(fields.iter().map(|(n, v)| (n, v)))).await;
        let outcome = client.outcome(1).await;
        if !matches!(outcome, Outcome::Reset(_) | Outcome::GoAway(_) | Outcome::Status(400..=499)) {
            taken.push((name, outcome));
        }
    }
    let mut client = Frames::to(edge.address()).await;
    client.send(HEADERS, END_HEADERS | END_STREAM, 1, block(request("GET", "/api/demo/good"))).await;
    assert_eq!(client.outcome(1).await, Outcome::Status(200));
    eventually("the good one", async || origin.requests().iter().any(|seen| seen.target.0 == b"/good")).await;
    assert!(taken.is_empty(), "{taken:?}");
    assert_eq!(origin.requests().len(), 1, "{:#?}", origin.requests());
    assert!(origin.errors().is_empty(), "{:?}", origin.errors());
}

#[tokio::test]
async fn what_is_only_odd_is_read_in_one_way() {
    let origin = Llhttp::start().await;
    let edge = Edge::to(&origin).unhurried().http2().start().await;
    let cases = [
        ("a path with a fragment, which ends before it", but(":path", "/api/demo/x?a#y"), "/x?a"),
        ("a scheme of nothing", but(":scheme", ""), "/x"),
        ("another scheme", but(":scheme", "https"), "/x"),
        ("a Host that agrees", and("host", "edge.test"), "/x"),
        ("TE of trailers", and("te", "trailers"), "/x"),
        ("a name with an underscore", and("content_length", "5"), "/x"),
        ("an empty value", and("x", ""), "/x"),
        ("a length of nothing", and("content-length", "0"), "/x"),
    ];
    for (name, fields, target) in &cases {
        let mut client = Frames::to(edge.address()).await;
        client.send(HEADERS, END_HEADERS | END_STREAM, 1, block(fields.iter().map(|(n, v)| (n, v)))).await;
        assert_eq!(client.outcome(1).await, Outcome::Status(200), "{name}");
        let seen = origin.requests().pop().expect("just answered");
        assert_eq!(seen.target.0, target.as_bytes(), "{name}");
        assert_eq!(seen.all("x-forwarded-proto"), [b"http"], "{name}");
        assert_eq!(seen.all("authorization"), [b"Bearer t1"], "{name}");
        for gone in ["te", "content_length"] {
            assert!(seen.all(gone).is_empty(), "{name}: {seen:?}");
        }
    }
    assert_eq!(origin.requests().len(), cases.len());
    assert!(origin.errors().is_empty(), "{:?}", origin.errors());
}

#[tokio::test]
async fn a_rule_sees_the_value_that_the_target_reads() {
    let origin = Llhttp::start().await;
    let rule = "rules: [{ id: no-admin, effect: deny, headers: [{ name: x-role, value: ^admin$ }] }]";
    let edge = Edge::to(&origin).proxy(rule).http2().start().await;
    for (value, status) in [("admin", 403), (" admin", 400), ("admin ", 400), ("\tadmin", 400), ("user", 200)] {
        let mut client = Frames::to(edge.address()).await;
        client.send(HEADERS, END_HEADERS | END_STREAM, 1, block(and("x-role", value))).await;
        assert_eq!(client.outcome(1).await, Outcome::Status(status), "{value:?}");
    }
    assert_eq!(origin.requests().len(), 1);
}

#[tokio::test]
async fn a_body_that_contradicts_its_header_never_ends_at_the_target() {
    let origin = Llhttp::start().await;
    let edge = Edge::to(&origin).unhurried().http2().start().await;
    let post = |length: &str| [request("POST", "/api/demo/x"), fields(&[("content-length", length)])].concat();
    let data = |flags: u8, data: &str| frame(DATA, flags, 1, data);
    let trailers = |flags: u8, trailers: Fields| frame(HEADERS, END_HEADERS | flags, 1, block(trailers));
    let cases: Vec<(&str, Fields, Vec<u8>)> = vec![
        ("more than its length", post("5"), data(END_STREAM, "helloGET /hidden")),
        ("more than its length, in two frames", post("5"), [data(0, "hello"), data(END_STREAM, "!")].concat()),
        ("less than its length", post("9"), data(END_STREAM, "hello")),
        (
            "less than its length, and trailers",
            post("9"),
            [data(0, "hello"), trailers(END_STREAM, fields(&[("x", "1")]))].concat(),
        ),
        ("nothing of its length", post("5"), data(END_STREAM, "")),
        (
            "a second header that does not end it",
            post("5"),
            [data(0, "he"), trailers(0, request("POST", "/api/demo/y"))].concat(),
        ),
        (
            "trailers with a name in capitals",
            post("5"),
            [data(0, "hello"), trailers(END_STREAM, fields(&[("X", "1")]))].concat(),
        ),
        (
            "trailers with a line break",
            post("5"),
            [data(0, "hello"), trailers(END_STREAM, fields(&[("x", "1\r\n\r\nGET /hidden")]))].concat(),
        ),
        ("padding longer than its frame", post("5"), frame(DATA, END_STREAM | 8, 1, b"\x20hello")),
        ("DATA of the connection", post("5"), frame(DATA, END_STREAM, 0, "hello")),
    ];
    for (name, header, rest) in &cases {
        let mut client = Frames::to(edge.address()).await;
        client
            .write([frame(HEADERS, END_HEADERS, 1, block(header.iter().map(|(n, v)| (n, v)))), rest.clone()].concat())
            .await;
        let outcome = client.outcome(1).await;
        assert!(
            matches!(outcome, Outcome::Reset(_) | Outcome::GoAway(_) | Outcome::Status(400)),
            "{name}: {outcome:?}"
        );
    }
    let mut client = Frames::to(edge.address()).await;
    let good = [post("5"), fields(&[("x", "1")])].concat();
    client.write([frame(HEADERS, END_HEADERS, 1, block(good)), data(END_STREAM, "hello")].concat()).await;
    assert_eq!(client.outcome(1).await, Outcome::Status(200));
    eventually("no request is left", async || edge.metric("requestrocket_requests_in_flight").await == Some(0.0)).await;
    let whole: Vec<_> = origin.requests().into_iter().filter(|seen| !seen.cut).collect();
    assert_eq!(whole.len(), 1, "{whole:#?}");
    assert_eq!(whole[0].body.0, b"hello");
    assert!(origin.errors().is_empty(), "{:?}", origin.errors());
}

/// Memory that a flood may cost the edge, however long it lasts.
const COST: usize = 48 << 20;

/// Floods the edge while others are served, on connections of their own. How the flooded connection ended, where it did.
async fn flood(name: &str, edge: &Edge, flood: impl AsyncFnOnce(&mut Frames)) -> Option<Outcome> {
    let before = edge.resident();
    let over = Arc::new(AtomicBool::new(false));
    let neighbours = {
        let (over, request) = (over.clone(), edge.get("/api/demo/neighbour").bearer("k1"));
        let (mut http1, http2) = (edge.connect().await, edge.connect_http2().await);
        tokio::spawn(async move {
            loop {
                let last = over.load(Ordering::Relaxed);
                http1.exchange(&request).await.expect_granted(200);
                http2.exchange(&request).await.expect_granted(200);
                if last {
                    return; // one round began after the flood
                }
            }
        })
    };
    let mut client = Frames::to(edge.address()).await;
    flood(&mut client).await;
    let cost = edge.resident().saturating_sub(before);
    over.store(true, Ordering::Relaxed);
    neighbours.await.unwrap_or_else(|error| panic!("{name}: a neighbour was not served: {error}"));
    assert!(cost < COST, "{name}: costs {cost} bytes");
    if client.has_ended() { Some(client.end().await) } else { None }
}

/// Writes the frames that `make` gives for each number until the edge takes no more of them; how many it took.
async fn pour(client: &mut Frames, count: u32, mut make: impl FnMut(u32) -> Vec<u8>) -> u32 {
    for batch in 0..count / 100 {
        let frames: Vec<u8> = (batch * 100..(batch + 1) * 100).flat_map(&mut make).collect();
        if client.has_ended() || !client.write(frames).await {
            return batch * 100;
        }
    }
    count
}

#[tokio::test]
async fn streams_that_are_opened_and_reset_end_their_connection() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).unhurried().http2().start().await;
    let good = block(request("GET", "/api/demo/x"));
    let bad = block(but("authorization", "Bearer no"));
    for (name, header) in [("rapid reset", &good), ("rapid reset without a credential", &bad)] {
        let end = flood(name, &edge, async |client| {
            let took = pour(client, 100_000, |at| {
                let stream = at * 2 + 1;
                let reset = frame(RST_STREAM, 0, stream, 8_u32.to_be_bytes());
                [frame(HEADERS, END_HEADERS | END_STREAM, stream, header), reset].concat()
            })
            .await;
            assert!(took < 100_000, "{name}: all of them");
            client.end().await;
        })
        .await;
        assert!(matches!(end, Some(Outcome::GoAway(ENHANCE_YOUR_CALM) | Outcome::Closed)), "{name}: {end:?}");
    }
    eventually("no request is left", async || edge.metric("requestrocket_requests_in_flight").await == Some(0.0)).await;
}

#[tokio::test]
async fn streams_that_the_edge_is_made_to_reset_end_their_connection() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).unhurried().http2().start().await;
    let header = block([request("POST", "/api/demo/x"), fields(&[("content-length", "5")])].concat());
    let frames: [(&str, Wrong); 3] = [
        ("a window of nothing", |stream| frame(WINDOW_UPDATE, 0, stream, 0_u32.to_be_bytes())),
        ("a window that overflows", |stream| frame(WINDOW_UPDATE, 0, stream, 0x7fff_ffff_u32.to_be_bytes())),
        ("too much data", |stream| frame(DATA, END_STREAM, stream, "too long")),
    ];
    for (name, wrong) in frames {
        let end = flood(name, &edge, async |client| {
            let took = pour(client, 100_000, |at| {
                let stream = at * 2 + 1;
                [frame(HEADERS, END_HEADERS, stream, &header), wrong(stream)].concat()
            })
            .await;
            assert!(took < 100_000, "{name}: all of them");
            client.end().await;
        })
        .await;
        assert!(matches!(end, Some(Outcome::GoAway(_) | Outcome::Closed)), "{name}: {end:?}");
    }
    eventually("no request is left", async || edge.metric("requestrocket_requests_in_flight").await == Some(0.0)).await;
}

#[tokio::test]
async fn a_header_that_never_ends_ends_its_connection() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).unhurried().http2().start().await;
    let start = block(request("GET", "/api/demo/x"));
    let line = block([("x", "1")]);
    for (name, piece) in [("CONTINUATION of nothing", Vec::new()), ("CONTINUATION of a field each", line)] {
        let end = flood(name, &edge, async |client| {
            client.send(HEADERS, 0, 1, &start).await;
            let took = pour(client, 1_000_000, |_| frame(CONTINUATION, 0, 1, &piece)).await;
            assert!(took < 1_000_000, "{name}: all of them");
            client.end().await;
        })
        .await;
        assert!(matches!(end, Some(Outcome::GoAway(_) | Outcome::Closed)), "{name}: {end:?}");
    }
    assert!(origin.requests().iter().all(|request| request.target == "/neighbour"));
}

#[tokio::test]
async fn a_header_that_is_too_large_is_refused() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).unhurried().http2().start().await;
    // A field that the table remembers (RFC 7541 section 6.2.1), and one byte for each time that it is meant.
    let mut bomb = block(request("GET", "/api/demo/x"));
    bomb.push(0x40);
    literal(&mut bomb, b"x");
    literal(&mut bomb, &[b'a'; 4000]);
    bomb.extend([0x80 | 62; 11_000]);
    let long = block(and("x", &"a".repeat(66_000)));
    let many = block([request("GET", "/api/demo/x"), fields(&[("x", "1"); 140])].concat());
    for (name, header) in [("an HPACK bomb", bomb), ("a long field", long), ("many fields", many)] {
        flood(name, &edge, async |client| {
            for stream in (1..40).step_by(2) {
                let mut pieces = header.chunks(16_000).peekable();
                client.send(HEADERS, END_STREAM, stream, pieces.next().expect("a header")).await;
                while let Some(piece) = pieces.next() {
                    let flags = if pieces.peek().is_none() { END_HEADERS } else { 0 };
                    client.send(CONTINUATION, flags, stream, piece).await;
                }
                if header.len() <= 16_000 {
                    client.send(CONTINUATION, END_HEADERS, stream, "").await;
                }
                let outcome = client.outcome(stream).await;
                assert!(
                    matches!(outcome, Outcome::Status(431) | Outcome::Reset(_) | Outcome::GoAway(_)),
                    "{name}: {outcome:?}"
                );
                if !matches!(outcome, Outcome::Status(_)) {
                    return;
                }
            }
        })
        .await;
    }
    assert!(origin.requests().iter().all(|request| request.target == "/neighbour"));
}

#[tokio::test]
async fn frames_that_say_nothing_cost_nothing() {
    let (origin, finish) = Origin::patient("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let edge = Edge::to(&origin).unhurried().http2().start().await;
    let upload = block([request("POST", "/api/demo/slow"), fields(&[("content-length", "5")])].concat());
    let settings: Vec<u8> = (1..=6_u8).flat_map(|id| [0, id, 0, 0, 0x40, 0]).collect();
    let settings = [&settings[..6], &settings[12..18], &settings[24..]].concat(); // without those that may not be 0x4000
    let floods: [(&str, Vec<u8>); 7] = [
        ("SETTINGS", frame(SETTINGS, 0, 0, settings)),
        ("SETTINGS of nothing", frame(SETTINGS, 0, 0, [])),
        ("PING", frame(PING, 0, 0, [7; 8])),
        ("WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, 1, 1_u32.to_be_bytes())),
        ("PRIORITY", frame(PRIORITY, 0, 3, [0, 0, 0, 0, 9])),
        ("an unknown frame", frame(0xfa, 0, 1, "x")),
        ("DATA of nothing", frame(DATA, 0, 1, [])),
    ];
    for (name, piece) in floods {
        flood(name, &edge, async |client| {
            client.send(HEADERS, END_HEADERS, 1, &upload).await;
            pour(client, 500_000, |_| piece.clone()).await;
        })
        .await;
    }
    // Nor do they where nobody reads the answers to them: then the edge reads no more of the questions.
    for (name, piece) in [
        ("SETTINGS to one who is deaf", frame(SETTINGS, 0, 0, [])),
        ("PING of one who is deaf", frame(PING, 0, 0, [7; 8])),
    ] {
        flood(name, &edge, async |_| {
            let mut deaf = Frames::deaf_to(edge.address()).await;
            let stuck = tokio::time::timeout(ms(2000), pour(&mut deaf, 10_000_000, |_| piece.clone())).await;
            assert!(
                stuck.is_err() || deaf.has_ended() || stuck.is_ok_and(|took| took < 10_000_000),
                "{name}: took it all"
            );
        })
        .await;
    }
    finish.send_replace(true);
    eventually("no request is left", async || edge.metric("requestrocket_requests_in_flight").await == Some(0.0)).await;
}

#[tokio::test]
async fn a_refused_upload_ends_in_peace() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).http2().start().await;
    let header = block([but("authorization", "Bearer no"), fields(&[("content-length", "5")])].concat());
    for (body, end) in [("hello", None), ("no", Some(Outcome::Reset(PROTOCOL_ERROR)))] {
        let mut client = Frames::to(edge.address()).await;
        client.send(HEADERS, END_HEADERS, 1, &header).await;
        assert_eq!(client.outcome(1).await, Outcome::Status(403));
        client.send(DATA, END_STREAM, 1, body).await;
        // What the edge says to the next stream, it says after all that it has to say to this one.
        client.send(HEADERS, END_HEADERS | END_STREAM, 3, block(request("GET", "/other"))).await;
        assert_eq!(client.outcome(3).await, Outcome::Status(404));
        assert_eq!(client.then(1), end, "{body}");
    }
}
