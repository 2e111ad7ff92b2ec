//! Targets at their worst. Whatever they do, and whenever: the client gets one whole answer of the contract, or one that is
//! visibly cut, in time and never another client's; a POST arrives at most once; the client's connection, where it is kept,
//! serves its next request.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::join_all;

use crate::harness::edge::Target;
use crate::harness::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PUSH_PROMISE, SETTINGS, WINDOW_UPDATE, block,
};
use crate::harness::h2_target::settings;
use crate::harness::request::chunked;
use crate::harness::{Answer, Connection, Edge, End, H2Connection, Origin, Peer, Request, ms, pattern};

const MIB: usize = 1024 * 1024;
/// Of every proxy here.
const TIMEOUT: Duration = ms(1000);
/// What an answer may take beyond that where a hundred of them are under way in one small machine. A clock that does not
/// run would take another minute.
const SLACK: Duration = ms(8000);
/// What an attacker at the target wants another client to read.
const EVIL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL";

const GARBAGE: &str = "\0\x01 garbage\r\n\r\n";
/// Without and with a body.
const EITHER: [(&str, Option<&[u8]>); 2] = [("GET", None), ("POST", Some(b"b"))];

/// What a target does on a connection, in this order. Then it closes.
#[derive(Clone)]
enum Step {
    /// Reads a request's header.
    Head,
    /// Reads a request to its end.
    Request,
    Say(Vec<u8>),
    Reset,
    HalfClose,
    /// Reads, and says nothing more.
    Silence,
    /// Not even that.
    Freeze,
    /// Begins anew with the next request on the connection.
    Again,
}

use Step::{Again, Freeze, HalfClose, Head, Request as Whole, Reset, Silence};

fn say(bytes: impl AsRef<[u8]>) -> Step {
    Step::Say(bytes.as_ref().to_vec())
}

async fn perform(mut peer: Peer, steps: Arc<[Step]>) {
    let mut left = steps.iter();
    while let Some(step) = left.next() {
        let going = match step {
            Head => peer.head().await.is_some(),
            Whole => peer.request().await.is_some(),
            Step::Say(bytes) => peer.send(bytes).await,
            Reset => return peer.reset(),
            HalfClose => {
                peer.half_close().await;
                true
            }
            Silence => return peer.silence().await,
            Freeze => return peer.stop_reading().await,
            Again => {
                left = steps.iter();
                true
            }
        };
        if !going {
            return;
        }
    }
}

/// What a client may see of it.
#[derive(Clone, Copy, Debug)]
enum Expect {
    /// The target's own answer.
    Answer(u16, &'static str),
    /// A 502: nothing that was sent is an answer.
    Broken,
    /// The same, or the connection was gone before it was of use.
    Unreached,
    /// A 504: nor will it become one.
    Late,
    /// The target's status with a visibly cut beginning of its body, or a whole 502 or 504.
    Cut(&'static str),
    /// Any of the two: the target's kernel may take the answer back before the edge has read it.
    AnswerOrBroken(u16, &'static str),
}

impl Expect {
    #[track_caller]
    fn check(self, name: &str, answer: &Answer) {
        println!("{name}: {} {:?}", answer.status, answer.header("proxy-status"));
        answer.expect_within(TIMEOUT + SLACK);
        match self {
            Self::Answer(status, body) => drop(answer.expect_granted(status).expect_body(body)),
            Self::Broken => broken(answer),
            Self::Unreached if answer.header("proxy-status").is_some_and(|status| status.ends_with("unavailable")) => {
                answer.expect_unreachable("connect", "destination_unavailable");
            }
            Self::Unreached => broken(answer),
            Self::Late => late(answer),
            Self::Cut(whole) if answer.status == 200 => {
                assert!(answer.end == End::Cut && whole.as_bytes().starts_with(&answer.body), "{name}: {answer:?}");
            }
            Self::Cut(_) if answer.status == 504 => late(answer),
            Self::Cut(_) => broken(answer),
            Self::AnswerOrBroken(status, body) if answer.status == status => {
                answer.expect_granted(status).expect_body(body);
            }
            Self::AnswerOrBroken(..) => broken(answer),
        }
    }
}

#[track_caller]
fn broken(answer: &Answer) {
    let status = answer.header("proxy-status").unwrap_or_default().to_owned();
    let error = status.rsplit('=').next().unwrap_or_default();
    assert!(
        ["connection_terminated", "http_response_incomplete", "http_protocol_error"].contains(&error),
        "{error}: {answer:?}"
    );
    answer.expect_unreachable("protocol", error);
}

#[track_caller]
fn late(answer: &Answer) {
    let message = "Target did not respond within 1 seconds";
    answer.expect_refusal(504, "proxy-access-granted", message, "http_response_timeout");
}

/// A target that misbehaves in one way.
struct Case {
    name: String,
    origin: Origin,
    expect: Expect,
}

impl Case {
    async fn new(name: impl Into<String>, steps: impl IntoIterator<Item = Step>, expect: Expect) -> Self {
        let steps: Arc<[Step]> = steps.into_iter().collect();
        Self { name: name.into(), origin: Origin::scripted(move |peer| perform(peer, steps.clone())).await, expect }
    }
}

/// An edge with a proxy for each case, beside a good one, `demo`, that answers with the path it was asked for.
struct Stage {
    edge: Edge,
    _good: Origin,
}

impl Stage {
    async fn with<'a>(targets: impl IntoIterator<Item = (&'a Origin, &'a str)>) -> Self {
        let good = echoing_paths().await;
        let (mut list, mut proxies) = (String::from("targets:\n"), String::from("proxies:\n"));
        for (at, (origin, fields)) in targets.into_iter().enumerate() {
            list += &format!("  - {{ id: t{at}, base_url: '{}'{fields} }}\n", origin.base_url());
            proxies += &format!(
                "  - {{ id: p{at}, target: t{at}, target_credential: origin-key, proxy_credentials: [client], timeout: 1s }}\n"
            );
        }
        let edge = Edge::to(&good).http2().unhurried().fragment(&(list + &proxies)).start().await;
        Self { edge, _good: good }
    }

    /// Sends a request to the misbehaving target `at` over either version, and another one to the good target after it.
    async fn try_out(&self, at: usize, case: &Case, method: &str, http2: bool, body: Option<&[u8]>) {
        let version = if http2 { "HTTP/2" } else { "HTTP/1" };
        let name = format!("{}: {method} over {version} with {:?} bytes", case.name, body.map(<[u8]>::len));
        let before = case.origin.requests().len();
        let mut request = self.edge.request(method, &format!("/api/p{at}/x")).bearer("k1");
        if let Some(body) = body {
            request = request.body(body);
        }
        let after = self.edge.get(&format!("/api/demo/after-{at}")).bearer("k1");
        let mut client = Client::to(&self.edge, http2).await;
        let answer = client.exchange(&request).await;
        case.expect.check(&name, &answer);
        let arrived = case.origin.requests().len() - before;
        assert!(arrived <= if method == "POST" { 1 } else { 8 }, "{name}: arrived {arrived} times");
        if answer.reusable {
            client.exchange(&after).await.expect_granted(200).expect_body(format!("/after-{at}"));
        }
    }

    /// Every case over either version, with each of the requests, and only then reports which ones failed.
    async fn try_all(&self, cases: &[Case], requests: &[(&str, Option<&[u8]>)]) {
        let outcomes = join_all(cases.iter().enumerate().map(async |(at, case)| {
            let mut failed = Vec::new();
            for http2 in [false, true] {
                for (method, body) in requests {
                    let tried = AssertUnwindSafe(self.try_out(at, case, method, http2, *body)).catch_unwind().await;
                    failed.extend(tried.err().map(|_| format!("{}: {method}, HTTP/2: {http2}", case.name)));
                }
            }
            failed
        }));
        let failed = outcomes.await.concat();
        assert!(failed.is_empty(), "{failed:#?}");
    }
}

/// A client of either version, on one connection.
enum Client {
    Http1(Connection),
    Http2(H2Connection),
}

impl Client {
    async fn to(edge: &Edge, http2: bool) -> Self {
        if http2 { Self::Http2(edge.connect_http2().await) } else { Self::Http1(edge.connect().await) }
    }

    async fn exchange(&mut self, request: &Request) -> Answer {
        match self {
            Self::Http1(connection) => connection.exchange(request).await,
            Self::Http2(connection) => connection.exchange(request).await,
        }
    }
}

async fn echoing_paths() -> Origin {
    Origin::scripted(|mut peer| async move {
        while let Some(request) = peer.request().await {
            peer.send(sized(&request.target)).await;
        }
    })
    .await
}

fn sized(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn a_target_may_break_off_at_any_moment_and_in_any_way() {
    const SIZED: &str = "HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n";
    const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let moments = [
        ("before the request", None, ""),
        ("after the header", Some(Head), ""),
        ("after the request", Some(Whole), ""),
        ("in the status line", Some(Whole), "HTTP/1.1 20"),
        ("in the header", Some(Whole), "HTTP/1.1 200 OK\r\nContent-Le"),
        ("after a 100", Some(Head), "HTTP/1.1 100 Continue\r\n\r\n"),
        ("after a 103", Some(Whole), "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
        ("before a sized body", Some(Whole), SIZED),
        ("in a sized body", Some(Whole), "HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\nhalf"),
        ("before the chunks", Some(Whole), CHUNKED),
        ("in a chunk size", Some(Whole), "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2"),
        ("in a chunk", Some(Whole), "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhal"),
        ("between chunks", Some(Whole), "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n"),
        ("in the last chunk", Some(Whole), "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n"),
    ];
    let ways: [(&str, Vec<Step>); 5] = [
        ("closed", vec![]),
        ("reset", vec![Reset]),
        ("half-closed", vec![HalfClose, Silence]),
        ("garbage", vec![say(GARBAGE), Silence]),
        ("silence", vec![Silence]),
    ];
    let mut cases = Vec::new();
    for (moment, read, said) in &moments {
        for (way, steps) in &ways {
            let expect = match (*moment, *way) {
                // Within a body, anything is body.
                ("before a sized body", _) => Expect::Cut(GARBAGE),
                ("in a sized body", _) => Expect::Cut("half\0\x01 garbage\r\n\r\n"),
                // The chunks are whole, and trailers of HTTP/1.1 are dropped unread.
                ("in the last chunk", "garbage") => Expect::Answer(200, "ok"),
                (_, "silence") => Expect::Late,
                ("before the request", "reset") => Expect::Unreached,
                _ => Expect::Broken,
            };
            let steps = if matches!(expect, Expect::Answer(..)) { &[say(GARBAGE), Again][..] } else { steps };
            let steps = read.iter().cloned().chain((!said.is_empty()).then(|| say(said))).chain(steps.iter().cloned());
            cases.push(Case::new(format!("{moment}, {way}"), steps, expect).await);
        }
    }
    let stage = Stage::with(cases.iter().map(|case| (&case.origin, ""))).await;
    stage.try_all(&cases, &EITHER).await;
}

#[tokio::test]
async fn a_target_may_frame_its_answers_as_badly_as_it_likes() {
    use Expect::{Answer, Broken, Cut, Late};
    let ok = |fields: &str, body: &str| say(format!("HTTP/1.1 200 OK\r\n{fields}\r\n{body}"));
    let many =
        |count: usize| (0..count).map(|n| format!("X-{n}: {n}\r\n")).collect::<String>() + "Content-Length: 2\r\n";
    let long = |size: usize| format!("X-Long: {}\r\nContent-Length: 2\r\n", "x".repeat(size));
    let interim = |count: usize| "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(count);
    let chunks = "Transfer-Encoding: chunked\r\n";
    let table: Vec<(&str, Vec<Step>, Expect)> = vec![
        ("a length that is too long", vec![ok("Content-Length: 5\r\n", "ok")], Cut("ok")),
        ("a length that is too short", vec![ok("Content-Length: 2\r\n", "ok and more"), Again], Answer(200, "ok")),
        ("no length, closed", vec![ok("", "ok")], Answer(200, "ok")),
        ("no length, reset", vec![ok("", "ok"), Reset], Broken),
        ("no length, silent", vec![ok("", "ok"), Silence], Late),
        ("two equal lengths", vec![ok("Content-Length: 2\r\nContent-Length: 2\r\n", "ok"), Again], Answer(200, "ok")),
        ("a list of lengths", vec![ok("Content-Length: 2, 2\r\n", "ok"), Silence], Broken),
        ("a signed length", vec![ok("Content-Length: +2\r\n", "ok"), Silence], Broken),
        ("a length beyond all numbers", vec![ok("Content-Length: 99999999999999999999\r\n", "ok"), Silence], Broken),
        (
            "a length and chunks",
            vec![ok("Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", "2\r\nok\r\n0\r\n\r\n"), Again],
            Answer(200, "ok"),
        ),
        (
            "a wrong length and chunks",
            vec![ok("Transfer-Encoding: chunked\r\nContent-Length: 40\r\n", "2\r\nok\r\n0\r\n\r\n"), Again],
            Answer(200, "ok"),
        ),
        (
            "chunked twice",
            vec![ok("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "2\r\nok\r\n0\r\n\r\n"), Silence],
            Broken,
        ),
        ("an unknown coding", vec![ok("Transfer-Encoding: br, chunked\r\n", "2\r\nok\r\n0\r\n\r\n"), Silence], Broken),
        ("a negative chunk", vec![ok(chunks, "-2\r\nok\r\n0\r\n\r\n"), Silence], Broken),
        ("a hexadecimal prefix", vec![ok(chunks, "0x2\r\nok\r\n0\r\n\r\n"), Silence], Broken),
        ("a chunk size that wraps", vec![ok(chunks, "10000000000000002\r\nok\r\n0\r\n\r\n"), Silence], Broken),
        ("a chunk longer than it says", vec![ok(chunks, "1\r\nok\r\n0\r\n\r\n"), Silence], Broken),
        ("a chunk size without end", vec![ok(chunks, &"0".repeat(100_000)), Silence], Broken),
        ("chunk extensions", vec![ok(chunks, "2;a=b;c=\"d\"\r\nok\r\n0;e\r\n\r\n"), Again], Answer(200, "ok")),
        ("a last chunk of many zeros", vec![ok(chunks, "2\r\nok\r\n0000\r\n\r\n"), Again], Answer(200, "ok")),
        ("no HTTP at all", vec![say("<html>hello</html>")], Broken),
        ("HTTP/0.9, silent", vec![say("<html>hello</html>\r\n"), Silence], Broken),
        ("HTTP/1.0, closed", vec![say("HTTP/1.0 200 OK\r\n\r\nok")], Answer(200, "ok")),
        ("HTTP/2.0 in words", vec![say("HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok"), Silence], Broken),
        ("HTTP/3.0 in words", vec![say("HTTP/3.0 200 OK\r\nContent-Length: 2\r\n\r\nok"), Silence], Broken),
        ("a status beyond 999", vec![say("HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok"), Silence], Broken),
        ("a folded line", vec![ok("X: a\r\n b\r\nContent-Length: 2\r\n", "ok"), Again], Answer(200, "ok")),
        ("a NUL in a value", vec![ok("X: a\0b\r\nContent-Length: 2\r\n", "ok"), Silence], Broken),
        ("a space before the colon", vec![ok("Content-Length : 2\r\n", "ok"), Again], Answer(200, "ok")),
        ("a value of 64 KiB", vec![ok(&long(64 * 1024), "ok"), Again], Answer(200, "ok")),
        ("a value of 2 MiB", vec![ok(&long(2 * MIB), "ok"), Silence], Broken),
        ("200 fields", vec![ok(&many(200), "ok"), Again], Answer(200, "ok")),
        ("10,000 fields", vec![ok(&many(10_000), "ok"), Silence], Broken),
        ("a line without end", vec![say(format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(3 * MIB))), Silence], Broken),
        ("32 interim answers", vec![say(interim(32)), ok("Content-Length: 2\r\n", "ok"), Again], Answer(200, "ok")),
        ("interim answers without end", vec![say(interim(10_000)), Silence], Broken),
        (
            "an interim answer with a body",
            vec![
                say("HTTP/1.1 103 Early Hints\r\nContent-Length: 4\r\n\r\n"),
                ok("Content-Length: 2\r\n", "ok"),
                Again,
            ],
            Answer(200, "ok"),
        ),
        (
            "a 101 that nobody asked for",
            vec![say("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"), Silence],
            Broken,
        ),
        (
            "a 204 with a body",
            vec![say("HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nEVIL"), Again],
            Answer(204, ""),
        ),
        (
            "a 204 with chunks",
            vec![say("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nEVIL\r\n0\r\n\r\n"), Again],
            Answer(204, ""),
        ),
        (
            "a 304 with a body",
            vec![say("HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nEVIL"), Again],
            Answer(304, ""),
        ),
        ("whole, then reset", vec![ok("Content-Length: 2\r\n", "ok"), Reset], Expect::AnswerOrBroken(200, "ok")),
        (
            "whole, then garbage",
            vec![ok("Content-Length: 2\r\n", "ok"), say("\0\x01 garbage"), Again],
            Answer(200, "ok"),
        ),
    ];
    let mut cases = Vec::new();
    for (name, steps, expect) in table {
        cases.push(Case::new(name, std::iter::once(Whole).chain(steps), expect).await);
    }
    let stage = Stage::with(cases.iter().map(|case| (&case.origin, ""))).await;
    stage.try_all(&cases, &EITHER).await;
}

#[tokio::test]
async fn an_upload_ends_well_whatever_the_target_makes_of_it() {
    use Expect::{AnswerOrBroken, Broken, Late};
    let no = || say("HTTP/1.1 401 Unauthorized\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno");
    let chunked_no = || {
        say("HTTP/1.1 401 Unauthorized\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n")
    };
    let table: Vec<(&str, Vec<Step>, Expect)> = vec![
        ("answered early, read on", vec![Head, no(), Silence], Expect::Answer(401, "no")),
        ("answered early in chunks, read on", vec![Head, chunked_no(), Silence], Expect::Answer(401, "no")),
        ("answered early, frozen", vec![Head, no(), Freeze], Expect::Answer(401, "no")),
        ("answered early in chunks, frozen", vec![Head, chunked_no(), Freeze], Expect::Answer(401, "no")),
        ("answered early, closed", vec![Head, no()], AnswerOrBroken(401, "no")),
        ("answered early, half-closed", vec![Head, no(), HalfClose, Silence], Expect::Answer(401, "no")),
        ("answered early, reset", vec![Head, no(), Reset], AnswerOrBroken(401, "no")),
        ("asked for more, then frozen", vec![Head, say("HTTP/1.1 100 Continue\r\n\r\n"), Freeze], Late),
        ("closed", vec![Head], Broken),
        ("reset", vec![Head, Reset], Broken),
        ("frozen", vec![Head, Freeze], Late),
        ("garbage, read on", vec![Head, say(GARBAGE), Silence], Broken),
        ("read, then silent", vec![Whole, Silence], Late),
    ];
    let mut cases = Vec::new();
    for (name, steps, expect) in table {
        cases.push(Case::new(name, steps, expect).await);
    }
    let stage = Stage::with(cases.iter().map(|case| (&case.origin, ""))).await;
    let large = pattern(9 * MIB);
    stage.try_all(&cases, &[("POST", Some(b"small")), ("POST", Some(&large))]).await;
}

/// What is said to a request for a path.
type Answering = fn(&str) -> String;

/// What a target leaves on a connection that looks reusable, in the same packet as its answer.
#[tokio::test]
async fn what_is_left_on_a_connection_reaches_no_other_client() {
    let leftovers: [(&str, &str, Answering); 7] = [
        ("a second answer", "GET", |path| sized(path) + EVIL),
        ("a second answer after chunks", "GET", |path| {
            let chunks = String::from_utf8(chunked(&[path])).expect("a path");
            format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}{EVIL}")
        }),
        ("a second answer after a 404", "GET", |path| sized(path).replace("200 OK", "404 Not Found") + EVIL),
        ("an interim answer", "GET", |path| sized(path) + "HTTP/1.1 103 Early Hints\r\n\r\n" + EVIL),
        ("the body of a HEAD", "HEAD", |_| sized(EVIL)),
        ("the body of a 204", "GET", |_| {
            format!("HTTP/1.1 204 No Content\r\nContent-Length: {}\r\n\r\n{EVIL}", EVIL.len())
        }),
        ("the body of a 304", "GET", |_| {
            format!("HTTP/1.1 304 Not Modified\r\nContent-Length: {}\r\n\r\n{EVIL}", EVIL.len())
        }),
    ];
    for (name, method, answer) in leftovers {
        let origin = Origin::scripted(move |mut peer| async move {
            while let Some(request) = peer.request().await {
                // Every second client asks in a way that the leftover does not go with.
                let said =
                    if request.target.contains("plain") { sized(&request.target) } else { answer(&request.target) };
                peer.send(said).await;
            }
        })
        .await;
        let edge = Edge::to(&origin).http2().unhurried().start().await;
        for http2 in [false, true] {
            for round in 0..10 {
                let client = async |target: &str, method: &str| {
                    let mut client = Client::to(&edge, http2).await;
                    client.exchange(&edge.request(method, &format!("/api/demo/{target}")).bearer("k1")).await
                };
                let first = client(&format!("first-{round}"), method).await;
                assert!(!first.text().contains("EVIL"), "{name}: {first:?}");
                first.expect_header("requestrocket-proxy-message", "Proxy authentication successful").expect_whole();
                let next = client(&format!("plain-{round}"), "GET").await;
                next.expect_granted(200).expect_body(format!("/plain-{round}"));
            }
        }
    }
}

/// The same, said while the connection waits for its next request.
#[tokio::test]
async fn an_answer_that_nobody_asked_for_reaches_nobody() {
    let (say_it, told) = tokio::sync::watch::channel(0);
    let said = tokio::sync::watch::Sender::new(0);
    let report = said.clone();
    let origin = Origin::scripted(move |mut peer| {
        let (mut told, report) = (told.clone(), report.clone());
        async move {
            told.mark_unchanged();
            loop {
                tokio::select! {
                    request = peer.request() => match request {
                        Some(request) => drop(peer.send(sized(&request.target)).await),
                        None => return,
                    },
                    changed = told.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        peer.send(EVIL).await;
                        report.send_modify(|count| *count += 1);
                    }
                }
            }
        }
    })
    .await;
    let edge = Edge::to(&origin).http2().unhurried().start().await;
    let mut said = said.subscribe();
    for round in 0..20 {
        let http2 = round % 2 == 1;
        let mut client = Client::to(&edge, http2).await;
        for kind in ["first", "next"] {
            let path = format!("/{kind}-{round}");
            let answer = client.exchange(&edge.get(&format!("/api/demo{path}")).bearer("k1")).await;
            answer.expect_granted(200).expect_body(path);
            if kind == "first" {
                let before = *said.borrow();
                say_it.send_replace(round + 1);
                let _ = said.wait_for(|count| *count > before).await;
            }
        }
    }
}

/// Pingora stops looking at the client, and with it at the clock, where the last piece of an upload fills its queue.
#[tokio::test]
async fn the_clock_runs_however_many_pieces_an_upload_comes_in() {
    let case = Case::new("read, then silent", [Whole, Silence], Expect::Late).await;
    let stage = Stage::with([(&case.origin, "")]).await;
    join_all((1..=12).flat_map(|count| [(count, false), (count, true)]).map(async |(count, http2)| {
        let request = stage.edge.post("/api/p0/x").bearer("k1");
        let small = request.clone().pieces(vec![pattern(10); count]);
        let large = request.body(pattern(count * 64 * 1024));
        for request in [small, large] {
            let answer = Client::to(&stage.edge, http2).await.exchange(&request).await;
            case.expect.check(&format!("{count} pieces, HTTP/2: {http2}"), &answer);
        }
    }))
    .await;
    let arrived = case.origin.requests();
    assert!(arrived.len() == 48 && arrived.iter().all(|request| request.complete), "{arrived:?}");
}

/// A target that speaks HTTP/2 frame by frame.
struct FrameCase(&'static str, Origin, Expect);

macro_rules! frames {
    ($name:expr, $expect:expr, |$frames:ident| $script:expr) => {
        FrameCase(
            $name,
            Origin::frames(|mut $frames| async move {
                $frames.send(SETTINGS, 0, 0, []).await;
                $script
            })
            .await,
            $expect,
        )
    };
}

#[tokio::test]
async fn an_http_2_target_may_break_every_rule() {
    use Expect::{Answer, Broken, Cut, Late};
    const OK: [(&str, &str); 2] = [(":status", "200"), ("content-length", "2")];
    const OPEN: [(&str, &str); 1] = [(":status", "200")];
    let mut cases = vec![
        // What is allowed, if unusual.
        frames!("unknown frames", Answer(200, "ok"), |frames| while let Some(stream) = frames.request().await {
            frames.send(0xbb, 0xff, stream, "whatever").await;
            frames.answer(stream, &OK, false).await;
            frames.send(0xbb, 0xff, 0, "whatever").await;
            frames.data(stream, "ok", true).await;
        }),
        frames!("interim answers", Answer(200, "ok"), |frames| while let Some(stream) = frames.request().await {
            for _ in 0..20 {
                frames.answer(stream, &[(":status", "103"), ("link", "</a>")], false).await;
            }
            frames.answer(stream, &OK, false).await;
            frames.data(stream, "ok", true).await;
        }),
        frames!("empty frames", Answer(200, "ok"), |frames| while let Some(stream) = frames.request().await {
            frames.answer(stream, &OPEN, false).await;
            for piece in ["", "o", "", "", "k", ""] {
                frames.data(stream, piece, false).await;
            }
            frames.data(stream, "", true).await;
        }),
        frames!("a GOAWAY with the answer", Answer(200, "ok"), |frames| if let Some(stream) = frames.request().await {
            frames.go_away(stream, 0).await;
            frames.answer(stream, &OK, false).await;
            frames.data(stream, "ok", true).await;
            frames.silence().await;
        }),
        frames!(
            "a reset after the answer",
            Answer(200, "ok"),
            |frames| while let Some(stream) = frames.request().await {
                frames.answer(stream, &OK, false).await;
                frames.data(stream, "ok", true).await;
                frames.reset(stream, 0).await;
            }
        ),
        frames!("windows of one byte", Answer(200, "ok"), |frames| {
            frames.send(SETTINGS, 0, 0, settings(&[(4, 1)])).await;
            while let Some((stream, mut ended)) = frames.head().await {
                while !ended {
                    let Some(frame) = frames.next().await else { return };
                    if frame.kind == DATA {
                        ended = frame.flags & END_STREAM != 0;
                        frames.send(WINDOW_UPDATE, 0, stream, 1u32.to_be_bytes()).await;
                    }
                }
                frames.answer(stream, &OK, false).await;
                frames.data(stream, "ok", true).await;
            }
        }),
        // What is not.
        frames!("a push", Broken, |frames| if let Some(stream) = frames.request().await {
            let promise = [
                &2u32.to_be_bytes()[..],
                &block([(":method", "GET"), (":path", "/evil"), (":scheme", "http"), (":authority", "a")]),
            ]
            .concat();
            frames.send(PUSH_PROMISE, END_HEADERS, stream, promise).await;
            frames.answer(2, &OK, false).await;
            frames.data(2, "no", true).await;
            frames.silence().await;
        }),
        frames!("an answer on another stream", Broken, |frames| if let Some(stream) = frames.request().await {
            frames.answer(stream + 2, &OK, false).await;
            frames.data(stream + 2, "no", true).await;
            frames.silence().await;
        }),
        frames!("data before a header", Broken, |frames| if let Some(stream) = frames.request().await {
            frames.data(stream, "ok", true).await;
            frames.silence().await;
        }),
        frames!("no status", Broken, |frames| while let Some(stream) = frames.request().await {
            frames.answer(stream, &[("content-length", "2")], false).await;
            frames.data(stream, "ok", true).await;
        }),
        frames!("a header in capitals", Broken, |frames| if let Some(stream) = frames.request().await {
            frames.answer(stream, &[(":status", "200"), ("X-Loud", "yes")], true).await;
            frames.silence().await;
        }),
        frames!("a line break in a value", Broken, |frames| if let Some(stream) = frames.request().await {
            frames.answer(stream, &[(":status", "200"), ("x", "a\r\nset-cookie: evil")], true).await;
            frames.silence().await;
        }),
        frames!("a 101", Late, |frames| if let Some(stream) = frames.request().await {
            frames.answer(stream, &[(":status", "101")], false).await;
            frames.silence().await;
        }),
        frames!("a length that is too long", Cut("ok"), |frames| if let Some(stream) = frames.request().await {
            frames.answer(stream, &[(":status", "200"), ("content-length", "5")], false).await;
            frames.data(stream, "ok", true).await;
            frames.silence().await;
        }),
        frames!("a length that is too short", Cut("ok"), |frames| if let Some(stream) = frames.request().await {
            frames.answer(stream, &[(":status", "200"), ("content-length", "2")], false).await;
            frames.data(stream, "ok and more", true).await;
            frames.silence().await;
        }),
        frames!("a frame beyond the size that was agreed on", Broken, |frames| if let Some(stream) =
            frames.request().await
        {
            frames.answer(stream, &OPEN, false).await;
            frames.data(stream, pattern(5 * MIB), true).await;
            frames.silence().await;
        }),
        frames!("a header without end", Cut(""), |frames| if let Some(stream) = frames.request().await {
            frames.send(HEADERS, 0, stream, block(OPEN)).await;
            let more = block([("x-more", "x".repeat(15_000).as_str())]);
            for _ in 0..2000 {
                if !frames.send(CONTINUATION, 0, stream, &more).await {
                    return;
                }
            }
            frames.silence().await;
        }),
        frames!("a small header that unfolds to megabytes", Broken, |frames| while let Some(stream) =
            frames.request().await
        {
            // One entry of 4,000 bytes goes into the table (RFC 7541 section 6.2.1), and is then named in one byte each.
            let mut bomb = block(OPEN);
            let entry = block([("x-bomb", "x".repeat(4000).as_str())]);
            bomb.push(0x40);
            bomb.extend_from_slice(&entry[1..]);
            bomb.extend(vec![0x80 | 62; 12_000]);
            frames.send(HEADERS, END_HEADERS | END_STREAM, stream, bomb).await;
        }),
        frames!("a window beyond all numbers", Broken, |frames| if let Some(stream) = frames.request().await {
            frames.send(WINDOW_UPDATE, 0, 0, 0x7fff_ffffu32.to_be_bytes()).await;
            frames.answer(stream, &OK, false).await;
            frames.silence().await;
        }),
        frames!("a window setting beyond all numbers", Broken, |frames| {
            frames.send(SETTINGS, 0, 0, settings(&[(4, 0x8000_0000)])).await;
            frames.silence().await;
        }),
        frames!("HTTP/1.1 after all", Broken, |frames| if frames.request().await.is_some() {
            frames.peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            frames.silence().await;
        }),
        // What never ends.
        frames!("pings instead of an answer", Late, |frames| if frames.request().await.is_some() {
            while frames.send(PING, 0, 0, [0; 8]).await {
                tokio::time::sleep(ms(50)).await;
            }
        }),
        frames!("interim answers instead of one", Late, |frames| if let Some(stream) = frames.request().await {
            while frames.answer(stream, &[(":status", "103")], false).await {
                tokio::time::sleep(ms(50)).await;
            }
        }),
        frames!("a dripping body", Late, |frames| if let Some(stream) = frames.request().await {
            frames.answer(stream, &OPEN, false).await;
            while frames.data(stream, "x", false).await {
                tokio::time::sleep(ms(50)).await;
            }
        }),
        FrameCase("silent after the preface", Origin::frames(|frames| frames.silence()).await, Late),
        FrameCase("closed after the preface", Origin::frames(|_| async {}).await, Broken),
        FrameCase("reset after the preface", Origin::frames(|frames| async { frames.peer.reset() }).await, Broken),
        frames!("closed in a frame", Broken, |frames| if frames.request().await.is_some() {
            frames.peer.send([0, 0, 20, HEADERS, END_HEADERS]).await;
        }),
        frames!("closed in a body", Broken, |frames| if let Some(stream) = frames.request().await {
            frames.answer(stream, &OPEN, false).await;
            frames.data(stream, "ok", false).await;
        }),
        frames!("closed in a sized body", Cut("ok"), |frames| if let Some(stream) = frames.request().await {
            frames.answer(stream, &[(":status", "200"), ("content-length", "5")], false).await;
            frames.data(stream, "ok", false).await;
        }),
        // Goodbyes. Nothing is ever processed by the first two: a GET is tried elsewhere, as long as there is time.
        frames!("a GOAWAY before any stream", Cut(""), |frames| {
            frames.go_away(0, 0).await;
            frames.request().await;
        }),
        frames!("a GOAWAY that counts the stream out", Cut(""), |frames| if frames.request().await.is_some() {
            frames.go_away(0, 0).await;
        }),
        frames!(
            "a GOAWAY that counts it in, and the end",
            Broken,
            |frames| if let Some(stream) = frames.request().await {
                frames.go_away(stream, 0).await;
            }
        ),
        frames!(
            "a GOAWAY that counts it in, and silence",
            Late,
            |frames| if let Some(stream) = frames.request().await {
                frames.go_away(stream, 0).await;
                frames.silence().await;
            }
        ),
        frames!("a GOAWAY with an error", Broken, |frames| if let Some(stream) = frames.request().await {
            frames.go_away(stream, 2).await;
        }),
        frames!("a GOAWAY with an error in a body", Broken, |frames| if let Some(stream) = frames.request().await {
            frames.answer(stream, &OPEN, false).await;
            frames.data(stream, "ok", false).await;
            frames.go_away(stream, 11).await;
        }),
    ];
    // NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, REFUSED_STREAM, CANCEL, ENHANCE_YOUR_CALM, HTTP_1_1_REQUIRED, unknown.
    for code in [0u32, 1, 2, 7, 8, 11, 13, 0xbeef] {
        let resetting = async |name, expect, head: &'static [(&str, &str)], body: &'static str| {
            let origin = Origin::frames(move |mut frames| async move {
                frames.send(SETTINGS, 0, 0, []).await;
                while let Some(stream) = frames.request().await {
                    if !head.is_empty() {
                        frames.answer(stream, head, false).await;
                        frames.data(stream, body, false).await;
                    }
                    frames.reset(stream, code).await;
                }
            })
            .await;
            FrameCase(name, origin, expect)
        };
        // One that was refused (7), or is to be sent over HTTP/1.1 (13), is tried again for as long as there is time.
        let before = if code == 7 || code == 13 { Cut("") } else { Broken };
        cases.push(resetting("a reset before the answer", before, &[], "").await);
        cases.push(resetting("a reset in a body", Broken, &OPEN, "ok").await);
        cases.push(resetting("a reset in a sized body", Cut("o"), &OK, "o").await);
        cases.push(resetting("a reset before a sized body", Cut(""), &OK, "").await);
    }
    let cases: Vec<Case> = cases
        .into_iter()
        .enumerate()
        .map(|(at, FrameCase(name, origin, expect))| Case { name: format!("{at}: {name}"), origin, expect })
        .collect();
    let stage = Stage::with(cases.iter().map(|case| (&case.origin, ", http: 2"))).await;
    stage.try_all(&cases, &EITHER).await;
}

#[tokio::test]
async fn an_upload_over_the_limit_is_a_413_over_http_2_too() {
    let origin = Origin::http2_cleartext(|mut stream| async move {
        stream.read().await;
        stream.silence().await;
    })
    .await;
    let edge = Edge::to(&origin).target("http: 2").http2().proxy("max_request_body: 100KiB").start().await;
    for http2 in [false, true] {
        let upload = edge.post("/api/demo/x").bearer("k1").pieces(vec![pattern(10_000); 20]).http2(http2);
        let answer = upload.await;
        answer.expect_refusal(413, "proxy-access-granted", "Request payload exceeds 100KB limit", "http_request_error");
        answer.expect_within(SLACK);
    }
    assert!(origin.requests().iter().all(|request| !request.complete), "{:?}", origin.requests());
}
