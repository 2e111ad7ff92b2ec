//! The operators' listener.

use std::collections::BTreeSet;

use crate::harness::tls::Authority;
use crate::harness::{Edge, Origin, Request, eventually};

const PAGES: [(&str, &str); 5] = [
    ("/livez", "text/plain; charset=utf-8"),
    ("/readyz", "text/plain; charset=utf-8"),
    ("/metrics", "text/plain; version=0.0.4; charset=utf-8"),
    ("/status", "application/json"),
    ("/", "text/html; charset=utf-8"),
];

#[tokio::test]
async fn every_page_is_here_and_only_here() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).start().await;
    let mut scraper = crate::harness::Connection::to(edge.admin_address()).await;
    for (page, kind) in PAGES {
        let answer = scraper.exchange(&edge.admin(page)).await;
        answer.expect_status(200).expect_header("content-type", kind).expect_reusable();
        answer.expect_header("cache-control", "no-store").expect_header("x-content-type-options", "nosniff");
        assert!(answer.header("content-security-policy").is_some_and(|policy| policy.contains("default-src 'none'")));
        assert!(!answer.body.is_empty());
        let mut head = edge.admin(page);
        head.method = "HEAD".to_owned();
        let head = scraper.exchange(&head).await;
        head.expect_status(200).expect_header("content-type", kind).expect_body("").expect_reusable();
        edge.get(page).await.expect_status(404);
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "BREW"] {
        let mut request = edge.admin("/status");
        request.method = method.to_owned();
        request.await.expect_status(405).expect_header("allow", "GET, HEAD");
    }
    for unknown in ["/nothing", "/status/", "//", "/livez/x", "/api/demo/x"] {
        edge.admin(unknown).await.expect_status(404);
    }
    assert!(origin.requests().is_empty());
}

#[tokio::test]
async fn other_host_names_get_nothing() {
    let edge = Edge::to("http://127.0.0.1:1").admin("hosts: [edge-1.test]").start().await;
    let address = edge.admin_address();
    let ask = |host: &str| Request::new(address, "GET", "/status").header("Host", host);
    for host in ["127.0.0.1", "localhost", "localhost:9091", "[::1]:9091", "edge-1.test", "EDGE-1.test:80"] {
        ask(host).await.expect_status(200);
    }
    // A page of somebody else's that has pointed its own name here.
    for host in ["evil.test", "evil.test:9091", "127.0.0.1.evil.test", "localhost.evil.test", "edge-1.test.evil.test"] {
        let refused = ask(host).await;
        refused.expect_status(403);
        assert!(!refused.text().contains("demo"), "{refused:?}");
    }
    // Whichever place names it.
    for (host, status) in [("evil.test", 403), ("127.0.0.1", 400)] {
        Request::new(address, "GET", "http://evil.test/status").header("Host", host).await.expect_status(status);
    }
}

#[tokio::test]
async fn the_status_tells_what_an_operator_asks_first() {
    let (authority, origin) = (Authority::new(), Origin::replying(200).await);
    let identity = authority.certify_until("127.0.0.1", 2040);
    let plain = Edge::to(&origin)
        .client("rate_limit: { requests_per_minute: 20, requests_per_day: 50 }")
        .proxy("max_request_body: 8")
        .fragment(
            "targets:\n  - { id: nowhere, base_url: 'http://127.0.0.1:1' }\n\
             proxies:\n  - { id: broken, target: nowhere, target_credential: origin-key, proxy_credentials: [client] }\n",
        )
        .start()
        .await;
    for _ in 0..3 {
        plain.get("/api/demo/x").bearer("k1").await.expect_granted(200);
    }
    plain.post("/api/demo/x").bearer("k1").body("123456789").await.expect_status(413);
    // Strangers are nobody's traffic.
    plain.get("/api/demo/x").bearer("no").await.expect_denied();
    plain.get("/api/broken/x").bearer("k1").await.expect_status(502);
    plain.write("proxies.d/bad.yaml", "nonsense: 1\n");
    let status = || async { plain.admin("/status").await.json() };
    eventually("the failed reload", async || status().await["configuration"][0]["taken"] == false).await;
    let status = status().await;
    for (pointer, value) in [
        ("/region", serde_json::json!("test-1")),
        ("/ready", true.into()),
        ("/generation", 1.into()),
        ("/proxies_total", 2.into()),
        ("/listeners/0/address", plain.address().to_string().into()),
        ("/listeners/0/tls", false.into()),
        ("/proxies/0/id", "demo".into()),
        ("/proxies/0/target", "origin".into()),
        ("/proxies/0/requests", 4.into()),
        ("/proxies/0/refused", 1.into()),
        ("/proxies/0/failed", 0.into()),
        ("/proxies/0/credentials/0/id", "client".into()),
        ("/proxies/0/credentials/0/per_minute", 20.into()),
        ("/proxies/0/credentials/0/minute_left", 16.into()),
        ("/proxies/0/credentials/0/day_left", 46.into()),
        ("/proxies/1/id", "broken".into()),
        ("/proxies/1/failed", 1.into()),
        ("/proxies/1/last_failure/error", "connection_refused".into()),
        ("/targets/0/host", origin.address().to_string().into()),
        ("/targets/0/addresses/0", "127.0.0.1".into()),
        ("/targets/0/health", "ok".into()),
    ] {
        assert_eq!(status.pointer(pointer), Some(&value), "{pointer}: {status:#}");
    }
    assert!(status["uptime_seconds"].as_u64().is_some_and(|seconds| seconds < 60), "{status:#}");
    let (all, target) = (&status["proxies"][0]["mean_ms"], &status["proxies"][0]["mean_target_ms"]);
    assert!(all.as_f64() > Some(0.0) && target.as_f64() > Some(0.0), "{status:#}");
    let notes = status["configuration"][0]["notes"].to_string();
    assert!(notes.contains("bad.yaml") && notes.contains("nonsense"), "{notes}");
    assert_eq!(status["configuration"][1]["taken"], true, "the start");

    let secure = Edge::to(&origin)
        .listener("tls: { certificates: [{ chain: own.pem, key: own.key }], client_ca: ca.pem }")
        .file("own.pem", identity.pem.clone())
        .file("own.key", identity.key_pem())
        .file("ca.pem", authority.pem())
        .start()
        .await;
    let listener = &secure.admin("/status").await.json()["listeners"][0];
    assert_eq!((&listener["tls"], &listener["http2"]), (&true.into(), &true.into()), "{listener}");
    assert_eq!(listener["client_certificates"], true);
    assert_eq!(listener["certificates"][0]["file"], "own.pem");
    assert_eq!(listener["certificates"][0]["expires"], "2040-01-01T00:00:00Z");
    assert!(listener["certificates"][0]["days_left"].as_i64() > Some(1000), "{listener}");
}

#[tokio::test]
async fn what_a_configuration_holds_cannot_act_on_the_page() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin)
        .fragment(
            "targets:\n  - { id: \"<script>alert(1)</script>\", base_url: 'http://127.0.0.1:1' }\n\
             proxy_credentials:\n  - { id: \"'onload='alert(2)\", type: bearer, secret: { value: k9 } }\n\
             proxies:\n  - { id: hostile, target: \"<script>alert(1)</script>\",\n      \
             target_credential: origin-key, proxy_credentials: [\"'onload='alert(2)\"] }\n",
        )
        .start()
        .await;
    edge.write("proxies.d/bad.yaml", "\"<script>alert(4)</script>\": 1\n");
    eventually("the problem is shown", async || edge.admin("/").await.text().contains("alert(4)")).await;
    let page = edge.admin("/").await.text();
    for (hostile, shown) in [
        ("<script", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("'onload=", "&#39;onload=&#39;alert(2)"),
        ("<script", "&lt;script&gt;alert(4)"),
    ] {
        assert!(!page.contains(hostile), "{hostile}: {page}");
        assert!(page.contains(shown), "{shown}: {page}");
    }
    assert_eq!(edge.admin("/status").await.json()["proxies_total"], 2);
}

/// The names of all series, without their values.
async fn series(edge: &Edge) -> BTreeSet<String> {
    let text = edge.admin("/metrics").await.text();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect()
}

#[tokio::test]
async fn clients_and_targets_cannot_make_up_series() {
    // Answers with the status that the path asks for.
    let origin = Origin::scripted(|mut peer| async move {
        while let Some(request) = peer.request().await {
            let status = request.target.trim_start_matches('/').split('/').next().unwrap_or_default().to_owned();
            peer.send(format!("HTTP/1.1 {status} Odd\r\nContent-Length: 0\r\n\r\n")).await;
        }
    })
    .await;
    let edge =
        Edge::to(&origin).unhurried().http2().edge("limits: { invalid_credentials_per_minute: 0 }").start().await;
    // The same kinds of oddity each time, never the same text.
    let round = async |round: u16| {
        for at in 0..40 {
            let number = round * 40 + at;
            let odd = format!("{number}-{}", "x".repeat(usize::from(at)));
            let requests = [
                edge.request(&format!("BREW{number}"), "/api/demo/x").bearer("k1"),
                edge.get(&format!("/api/{odd}/x?{odd}={odd}")).bearer("k1"),
                edge.get(&format!("/{odd}")).header("User-Agent", &odd).header("X-Request-Id", &odd),
                edge.get(&format!("/api/demo/200/{odd}")).bearer(&odd).header("X-Forwarded-For", &odd),
                // Neither registered nor ever seen.
                edge.get(&format!("/api/demo/{}/{odd}", 600 + number)).bearer("k1").header(&format!("X-{odd}"), &odd),
                edge.get(&format!("/api/demo/{}", 600 + number)).bearer("k1").http2(true),
            ];
            for request in requests {
                request.await;
            }
        }
    };
    round(0).await;
    let before = series(&edge).await;
    round(1).await;
    round(2).await;
    let after = series(&edge).await;
    let new: Vec<_> = after.difference(&before).collect();
    assert!(new.is_empty(), "{new:#?}");
    assert!(after.len() < 200, "{} series", after.len());
    assert!(after.iter().any(|series| series.contains("method=\"OTHER\"")), "{after:#?}");
    assert!(after.iter().any(|series| series.contains("status=\"other\"")), "{after:#?}");
}
