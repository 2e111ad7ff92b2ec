//! Clients side by side: no answer crosses, no memory is taken in their name.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use tokio_rustls::TlsAcceptor;

use crate::harness::request::chunked;
use crate::harness::tls::Authority;
use crate::harness::{Answer, Edge, End, Origin, eventually, pattern};

const MIB: usize = 1024 * 1024;

/// Answers with what it was asked for, sized or in chunks, at times over the limit, at times not at all.
async fn echoing() -> Origin {
    Origin::scripted(|mut peer| async move {
        while let Some(request) = peer.request().await {
            let name = request.target.split('/').nth(1).unwrap_or_default().to_owned();
            let body = format!("{name} ").repeat(500);
            if request.target.ends_with("/sized") {
                peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())).await;
            } else if request.target.ends_with("/chunked") {
                peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
                peer.send(chunked(&body.as_bytes().chunks(333).collect::<Vec<_>>())).await;
            } else if request.target.ends_with("/large") {
                peer.send(format!("HTTP/1.1 200 OK\r\nX-Name: {name}\r\nTransfer-Encoding: chunked\r\n\r\n")).await;
                peer.send(chunked(&[body.repeat(20)])).await;
            } else {
                peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{name}")).await;
                return peer.reset();
            }
        }
    })
    .await
}

#[track_caller]
fn check(answer: &Answer, name: &str, kind: &str) {
    let body = format!("{name} ").repeat(500);
    match kind {
        "sized" | "chunked" => {
            answer.expect_granted(200).expect_body(body);
        }
        "large" => {
            answer.expect_status(413).expect_whole().expect_header("requestrocket-proxy-code", "response-too-large");
        }
        // A visibly cut answer may hold what its own target has sent, and nothing else.
        _ if answer.status == 200 => {
            answer.expect_cut();
            assert!(name.as_bytes().starts_with(&answer.body), "{answer:?}");
        }
        _ => {
            answer.expect_status(502).expect_whole();
        }
    }
}

#[tokio::test]
async fn no_answer_crosses_between_clients() {
    let origin = echoing().await;
    let edge = Edge::to(&origin).http2().unhurried().proxy("max_response_body: 50KiB").start().await;
    let shared = edge.connect_http2().await;
    let client = async |number: usize| {
        let mut own = edge.connect().await;
        for round in 0..15 {
            let name = format!("client-{number}-{round}");
            let kind = ["sized", "chunked", "large", "sized", "chunked", "broken"][(number + round) % 6];
            let request = edge.get(&format!("/api/demo/{name}/{kind}")).bearer("k1");
            if number.is_multiple_of(3) {
                check(&shared.exchange(&request).await, &name, kind);
                continue;
            }
            let answer = own.exchange(&request).await;
            check(&answer, &name, kind);
            if !answer.reusable {
                own = edge.connect().await;
            }
        }
    };
    futures::future::join_all((0..30).map(client)).await;
}

#[tokio::test]
async fn uploads_are_not_collected_in_memory() {
    let origin = Origin::scripted(|mut peer| async move {
        peer.head().await;
        peer.stop_reading().await;
    })
    .await;
    let edge = Edge::to(&origin).unhurried().start().await;
    edge.get("/api/demo/x").bearer("no").await.expect_denied();
    let before = edge.resident();
    let uploads = (0..20).map(async |_| {
        let mut client = edge.connect().await;
        client.exchange(&edge.post("/api/demo/x").bearer("k1").body(pattern(10 * MIB))).await
    });
    let watch = async {
        origin.until("20 uploads", |events| events.requests.len() == 20).await;
        tokio::time::sleep(std::time::Duration::from_secs(1)).await; // all that the edge would take, it has taken by now
    };
    tokio::select! {
        () = watch => {}
        answers = futures::future::join_all(uploads) => panic!("nobody answers: {answers:?}"),
    }
    let grown = edge.resident().saturating_sub(before);
    assert!(grown < 60 * MIB, "200 MiB are offered, and {grown} bytes were taken");
}

#[tokio::test]
async fn answers_that_nobody_reads_are_not_collected_in_memory() {
    let origin = Origin::saying(
        [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 6 * MIB).as_bytes(), &pattern(6 * MIB)].concat(),
    )
    .await;
    let edge = Edge::to(&origin).unhurried().start().await;
    edge.get("/api/demo/x").bearer("no").await.expect_denied();
    let before = edge.resident();
    let mut clients = Vec::new();
    for _ in 0..30 {
        let mut client = edge.connect().await;
        client.send(edge.get("/api/demo/x").bearer("k1").head()).await;
        clients.push(client);
    }
    origin.until("30 requests", |events| events.requests.len() == 30).await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let grown = edge.resident().saturating_sub(before);
    assert!(grown < 60 * MIB, "180 MiB are offered, and {grown} bytes were taken");
    drop(clients);
    eventually("all are let go", async || edge.get("/api/demo/x").bearer("k1").await.status == 200).await;
}

/// A target that knows a client by its connection, as NTLM does: whoever came first on it is who it answers to.
async fn bound_to_connections(tls: Option<TlsAcceptor>) -> Origin {
    Origin::start("127.0.0.1:0", tls, |mut peer| async move {
        let mut known = None;
        while let Some(request) = peer.request().await {
            let credential = request.header("authorization").unwrap_or("nobody").to_owned();
            let known = known.get_or_insert(credential);
            peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{known}", known.len())).await;
        }
    })
    .await
}

#[tokio::test]
async fn a_connection_belongs_to_one_target_and_one_secret() {
    let origin = bound_to_connections(None).await;
    let url = format!("http://{}", origin.address());
    let more = |secret: &str| {
        format!(
            "targets:\n  - {{ id: twin, base_url: '{url}' }}\n\
             target_credentials:\n  - {{ id: other-key, type: bearer, secret: {{ value: {secret} }} }}\n\
             proxies:\n  - {{ id: other, target: origin, target_credential: other-key, proxy_credentials: [client] }}\n  \
             - {{ id: none, target: origin, proxy_credentials: [client] }}\n  \
             - {{ id: twin, target: twin, target_credential: origin-key, proxy_credentials: [client] }}\n"
        )
    };
    let edge = Edge::to(&origin).unhurried().http2().fragment(&more("t2")).start().await;
    let round = async |other: &str, count: usize| {
        for at in 0..count {
            for (proxy, known) in [("demo", "Bearer t1"), ("other", other), ("none", "nobody"), ("twin", "Bearer t1")] {
                let request = edge.get(&format!("/api/{proxy}/{proxy}")).bearer("k1").http2(at % 2 == 0);
                request.await.expect_granted(200).expect_body(known);
            }
        }
    };
    round("Bearer t2", 10).await;
    // A renewed secret under the same name: what the old one has opened is not used any more.
    edge.write("proxies.d/more.yaml", more("t3"));
    edge.signal("HUP");
    eventually("the new secret", async || {
        edge.get("/api/other/x").bearer("k1").await.expect_granted(200).text() == "Bearer t3"
    })
    .await;
    round("Bearer t3", 10).await;

    let mut owners: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
    for request in origin.requests() {
        owners.entry(request.connection).or_default().insert(request.target);
    }
    assert!(owners.len() < origin.requests().len() / 4, "connections are used again: {owners:?}");
    for (connection, owners) in &owners {
        let proxies: BTreeSet<&str> =
            owners.iter().map(|path| if path == "/x" { "/other" } else { path.as_str() }).collect();
        assert_eq!(proxies.len(), 1, "connection {connection}: {owners:?}");
    }
}

#[tokio::test]
async fn a_connection_belongs_to_one_set_of_tls_settings() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let origin = bound_to_connections(Some(authority.demand_certificate(&authority.certify("127.0.0.1")))).await;
    let url = format!("https://{}", origin.address());
    let settings = [
        ("one", "ca: ca.pem, client_certificate: { chain: one.pem, key: one.key }"),
        ("two", "ca: ca.pem, client_certificate: { chain: two.pem, key: two.key }"),
        ("more", "ca: more.pem, client_certificate: { chain: one.pem, key: one.key }"),
        // These must not get through on a connection that another one has opened.
        ("wrong", "ca: wrong.pem, client_certificate: { chain: one.pem, key: one.key }"),
        ("bare", "ca: ca.pem"),
    ];
    let (mut targets, mut proxies) = (String::from("targets:\n"), String::from("proxies:\n"));
    for (name, tls) in settings {
        targets += &format!("  - {{ id: {name}, base_url: '{url}', tls: {{ {tls} }} }}\n");
        proxies += &format!(
            "  - {{ id: {name}, target: {name}, target_credential: origin-key, proxy_credentials: [client] }}\n"
        );
    }
    let (one, two) = (authority.certify("one.test"), authority.certify("two.test"));
    let edge = Edge::to("http://127.0.0.1:1")
        .unhurried()
        .file("proxies.d/ca.pem", authority.pem())
        .file("proxies.d/more.pem", authority.pem() + &stranger.pem())
        .file("proxies.d/wrong.pem", stranger.pem())
        .file("proxies.d/one.pem", one.pem.clone())
        .file("proxies.d/one.key", one.key_pem())
        .file("proxies.d/two.pem", two.pem.clone())
        .file("proxies.d/two.key", two.key_pem())
        .fragment(&(targets + &proxies))
        .start()
        .await;
    for _ in 0..6 {
        for (name, _) in settings {
            let answer = edge.get(&format!("/api/{name}/{name}")).bearer("k1").await;
            answer.expect_status(if name == "wrong" || name == "bare" { 502 } else { 200 }).expect_whole();
        }
    }
    let mut owners: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
    for request in origin.requests() {
        owners.entry(request.connection).or_default().insert(request.target);
    }
    assert!(owners.len() < 18, "connections are used again: {owners:?}");
    assert!(owners.values().all(|paths| paths.len() == 1), "{owners:?}");
}

/// Many clients with a credential, a proxy and a target credential each, over either version, with answers that break off,
/// clients that hang up, and reloads. `ISOLATION_CLIENTS=1000 ISOLATION_SECONDS=60` is the large one.
#[tokio::test]
async fn no_answer_crosses_under_load() {
    let setting =
        |name: &str, default: usize| std::env::var(name).map_or(default, |text| text.parse().expect("a number"));
    let (clients, seconds) = (setting("ISOLATION_CLIENTS", 200), setting("ISOLATION_SECONDS", 3));
    let origin = Origin::scripted(|mut peer| async move {
        let mut known: Option<String> = None;
        while let Some(request) = peer.request().await {
            let credential = request.header("authorization").unwrap_or("nobody").to_owned();
            let first = known.get_or_insert(credential.clone()).clone();
            let body = format!("{first} {credential} {} ", request.target).repeat(40);
            match request.target.rsplit('/').next() {
                Some("sized") => {
                    peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())).await;
                }
                Some("chunked") => {
                    let chunks = chunked(&body.as_bytes().chunks(333).collect::<Vec<_>>());
                    peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
                    peer.send(chunks).await;
                }
                _ => {
                    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                    peer.send(head + &body[..body.len() / 2]).await;
                    return peer.reset();
                }
            }
        }
    })
    .await;
    let lists = |timeout: &str| {
        let mut lists = ["proxy_credentials:\n", "target_credentials:\n", "proxies:\n"].map(str::to_owned);
        for n in 0..clients {
            lists[0] += &format!(
                "  - {{ id: client-{n}, type: bearer, secret: {{ value: k-{n} }}, rate_limit: {{ requests_per_minute: 100000 }} }}\n"
            );
            lists[1] += &format!("  - {{ id: key-{n}, type: bearer, secret: {{ value: t-{n} }} }}\n");
            lists[2] += &format!(
                "  - {{ id: p{n}, target: origin, target_credential: key-{n}, proxy_credentials: [client-{n}], timeout: {timeout} }}\n"
            );
        }
        lists.concat()
    };
    let edge = Edge::to(&origin)
        .http2()
        .edge("limits: { max_connections_per_client: 0 }\naccess_log: { path: off }")
        .fragment(&lists("30s"))
        .start()
        .await;
    let until = Instant::now() + Duration::from_secs(seconds as u64);
    let (whole, cut, gone) = (Cell::new(0), Cell::new(0), Cell::new(0));
    let judge = |n: usize, path: &str, answer: &Answer| {
        let credential = format!("Bearer t-{n}");
        let body = format!("{credential} {credential} {path} ").repeat(40);
        if answer.status == 200 && answer.end == End::Whole {
            assert!(!path.ends_with("broken"), "{path}: {answer:?}");
            answer.expect_granted(200).expect_body(body);
            whole.set(whole.get() + 1);
        } else {
            assert!(path.ends_with("broken"), "{path}: {answer:?}");
            match answer.status {
                200 => assert!(body.as_bytes().starts_with(&answer.body), "{path}: {answer:?}"),
                _ => drop(answer.expect_unreachable("protocol", "http_response_incomplete")),
            }
            cut.set(cut.get() + 1);
        }
    };
    let asked = |n: usize, round: usize| {
        let kind = ["sized", "chunked", "sized", "broken", "chunked"][(n + round) % 5];
        let path = format!("/{n}-{round}/{kind}");
        (edge.get(&format!("/api/p{n}{path}")).bearer(&format!("k-{n}")), path)
    };
    let http1 = async |n: usize| {
        let mut connection = edge.connect().await;
        let mut round = 0;
        while Instant::now() < until {
            round += 1;
            let (request, path) = asked(n, round);
            if round % 11 == 0 {
                connection.send(request.head()).await;
                connection.until_end_or(20 * (round % 3)).await;
                gone.set(gone.get() + 1);
                connection = edge.connect().await;
                continue;
            }
            let answer = connection.exchange(&request).await;
            judge(n, &path, &answer);
            if !answer.reusable {
                connection = edge.connect().await;
            }
        }
    };
    // Four clients share each connection.
    let http2 = async |first: usize| {
        let mut connection = edge.connect_http2().await;
        let mut round = 0;
        while Instant::now() < until {
            round += 1;
            let streams = (first..(first + 4).min(clients)).map(async |n| {
                let (request, path) = asked(n, round);
                if (n + round) % 11 == 0 {
                    let (response, mut stream) = connection.open(&request, true).await;
                    tokio::task::yield_now().await;
                    stream.send_reset(h2::Reason::CANCEL);
                    drop(response);
                    gone.set(gone.get() + 1);
                    return true;
                }
                let answer = connection.attempt(&request).await;
                answer.inspect(|answer| judge(n, &path, answer)).is_some()
            });
            if futures::future::join_all(streams).await.contains(&false) {
                connection = edge.connect_http2().await;
            }
        }
    };
    let reloads = async {
        for timeout in ["20s", "30s"].into_iter().cycle() {
            tokio::time::sleep(Duration::from_millis(900)).await; // a reload now and then, while all the others go on
            if Instant::now() >= until {
                return;
            }
            edge.write("proxies.d/more.yaml", lists(timeout));
            edge.signal("HUP");
        }
    };
    let over_http1 = futures::future::join_all((0..clients).filter(|n| n % 8 < 4).map(http1));
    let over_http2 = futures::future::join_all((0..clients).filter(|n| n % 8 == 4).map(http2));
    futures::join!(over_http1, over_http2, reloads);
    let (whole, cut, gone) = (whole.get(), cut.get(), gone.get());
    println!("{clients} clients, {seconds} s: {whole} answers whole, {cut} cut or 502, {gone} given up, 0 crossed");
    assert!(whole > clients && cut > 0 && gone > 0, "{whole} {cut} {gone}");
    let generation = edge.metric("requestrocket_config_generation").await;
    assert!(generation.is_some_and(|generation| generation > 1.0), "{generation:?}");
}
