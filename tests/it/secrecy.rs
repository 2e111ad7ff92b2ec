//! No secret leaves through a log, a metric, an answer, or towards the wrong side.

use std::os::unix::fs::MetadataExt;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::{EncodingKey, Header, encode};

use crate::harness::edge::BINARY;
use crate::harness::tls::Authority;
use crate::harness::{Edge, Origin, eventually};

const PROXY_SECRET: &str = "canary-proxy-5f1e";
const TARGET_SECRET: &str = "canary-target-77ab";
const QUERY_SECRET: &str = "canary-query-c0de";

#[tokio::test]
async fn no_secret_is_ever_written_down() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin)
        .client(&format!("type: basic, username: ada, secret: {{ value: {PROXY_SECRET} }}"))
        .target_credential(&format!("type: bearer, secret: {{ value: {TARGET_SECRET} }}"))
        .fragment(&format!(
            "target_credentials:\n  - {{ id: in-query, type: api_key, query: key, secret: {{ value: {QUERY_SECRET} }} }}\n\
             targets:\n  - {{ id: nowhere, base_url: 'http://127.0.0.1:1' }}\n\
             proxies:\n  - {{ id: query, target: origin, target_credential: in-query, proxy_credentials: [client] }}\n  \
             - {{ id: broken, target: nowhere, target_credential: in-query, proxy_credentials: [client] }}\n"
        ))
        .environment("RUST_LOG", "trace")
        .start()
        .await;
    let encoded = STANDARD.encode(format!("ada:{PROXY_SECRET}"));
    let bearer_guess = "canary-guess-1234";
    let mut answers = Vec::new();
    for path in [
        "/api/demo/x",
        "/api/query/x?key=canary-own-9999",
        "/api/broken/x",
        "/api/none/x",
        "/api/demo/%zz",
        "/elsewhere",
    ] {
        answers.push(edge.get(path).basic("ada", PROXY_SECRET).await);
        answers.push(edge.get(path).bearer(bearer_guess).await);
        answers.push(
            edge.get(&format!("{path}{}Authorization=Basic%20{encoded}", if path.contains('?') { '&' } else { '?' }))
                .await,
        );
        answers.push(edge.get(path).basic("ada", PROXY_SECRET).basic("ada", PROXY_SECRET).await);
    }
    answers.push(edge.request("BREW", "/api/demo/x").basic("ada", PROXY_SECRET).await);
    edge.write("proxies.d/broken.yaml", format!("proxies: [{{ id: x, secret: {PROXY_SECRET} }}"));
    edge.signal("HUP");
    edge.write(
        "proxies.d/broken.yaml",
        "proxy_credentials: [{ id: y, type: bearer, secret: { value: '' } }, { id: client, type: jwt, secret: { value: z } }]",
    );
    edge.signal("HUP");
    eventually("the reload is logged", async || edge.stderr().contains("broken.yaml")).await;
    eventually("the access log", async || edge.stdout().lines().count() >= answers.len() - 1).await;

    let written = [("stdout", edge.stdout()), ("stderr", edge.stderr())];
    let answered = answers.iter().map(|answer| ("an answer", format!("{answer:?}{}", answer.text())));
    for (place, text) in written.into_iter().chain(answered) {
        for secret in [PROXY_SECRET, TARGET_SECRET, QUERY_SECRET, bearer_guess, "canary-own-9999", &encoded] {
            if let Some(line) = text.lines().find(|line| line.contains(secret)) {
                panic!("`{secret}` in {place}: {line}");
            }
        }
    }
    for request in origin.requests() {
        let seen = format!("{request:?}");
        assert!(!seen.contains(PROXY_SECRET) && !seen.contains(&encoded) && !seen.contains(bearer_guess), "{seen}");
    }
}

#[tokio::test]
async fn no_secret_is_on_the_operators_pages() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin)
        .client(&format!("type: bearer, secret: {{ value: {PROXY_SECRET} }}"))
        .target_credential(&format!("type: bearer, secret: {{ value: {TARGET_SECRET} }}"))
        .start()
        .await;
    edge.get(&format!("/api/demo/x?plain={QUERY_SECRET}")).bearer(PROXY_SECRET).await.expect_granted(200);
    edge.get(&format!("/api/{QUERY_SECRET}/x")).bearer(PROXY_SECRET).await.expect_denied();
    for page in ["/metrics", "/status", "/readyz", "/livez"] {
        let text = edge.admin(page).await.text();
        for secret in [PROXY_SECRET, TARGET_SECRET, QUERY_SECRET] {
            assert!(!text.contains(secret), "`{secret}` on {page}: {text}");
        }
    }
}

#[tokio::test]
async fn answers_of_ours_do_not_tell_where_the_target_is() {
    let origin = Origin::scripted(|mut peer| async move {
        peer.request().await;
        peer.send("garbage that nobody should see\r\n\r\n").await;
    })
    .await;
    let edge = Edge::to(format!("http://{}/secret-base", origin.address())).start().await;
    let answer = edge.get("/api/demo/x").bearer("k1").await;
    answer.expect_status(502);
    let seen = format!("{answer:?}{}", answer.text());
    for hidden in
        ["127.0.0.1", &origin.port().to_string(), "secret-base", "garbage", "origin-key", "pingora", "Pingora"]
    {
        assert!(!seen.contains(hidden), "`{hidden}`: {seen}");
    }
}

#[tokio::test]
async fn the_access_log_names_keys_and_never_values() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).start().await;
    edge.get("/api/demo/users?plain=canary-value&Authorization=Bearer%20k1").await.expect_granted(200);
    edge.get("/api/demo/users?plain=canary-value").bearer("nope").await.expect_denied();
    eventually("two lines", async || edge.stdout().lines().count() >= 2).await;
    let log = edge.stdout();
    assert!(!log.contains("canary-value"), "{log}");
    let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let granted = &lines[0];
    for (field, value) in [
        ("proxy", "demo"),
        ("credential", "client"),
        ("method", "GET"),
        ("path", "/users"),
        ("proxy_code", "proxy-access-granted"),
        ("client", "127.0.0.1"),
        ("region", "test-1"),
    ] {
        assert_eq!(granted[field], value, "{field}: {granted}");
    }
    assert_eq!(granted["status"], 200);
    assert!(granted["query_keys"].to_string().contains("plain"), "{granted}");
    assert!(!granted["query_keys"].to_string().to_lowercase().contains("authorization"), "{granted}");
    assert_eq!(lines[1]["status"], 403);
    assert_eq!(lines[1]["proxy_code"], "proxy-access-denied");
    assert!(lines[1]["refusal"].is_string(), "{}", lines[1]);
}

#[tokio::test]
async fn operators_pages_are_not_on_the_clients_listener() {
    let origin = Origin::replying(200).await;
    let edge = Edge::to(&origin).start().await;
    for page in ["/livez", "/readyz", "/metrics", "/status"] {
        edge.get(page).await.expect_status(404);
        edge.admin(page).await.expect_status(200);
    }
}

#[tokio::test]
async fn the_memory_of_a_running_daemon_is_not_for_others() {
    let origin = Origin::replying(200).await;
    let mut edge = Edge::to(&origin)
        .target_credential("type: bearer, secret: { env: CANARY }")
        .environment("CANARY", TARGET_SECRET)
        .start()
        .await;
    edge.get("/api/demo/x").bearer("k1").await.expect_granted(200);
    let proc = |name: &str| format!("/proc/{}/{name}", edge.pid());
    let limits = std::fs::read_to_string(proc("limits")).expect("everybody may read it");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("a line of its own");
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
    // What the kernel gives to root for good, other processes of the same user cannot read: memory, environment.
    for name in ["environ", "mem", "maps"] {
        let owner = std::fs::metadata(proc(name)).expect("the process runs").uid();
        assert_eq!(owner, 0, "{name}");
    }
    let command_line = std::fs::read_to_string(proc("cmdline")).expect("everybody may read it");
    let title = std::fs::read_to_string(proc("comm")).expect("everybody may read it");
    assert!(!command_line.contains("canary") && !title.contains("canary"), "{command_line} {title}");
    // The daemon itself can still read what it reports.
    for series in ["process_open_fds", "process_max_fds", "process_resident_memory_bytes", "process_start_time_seconds"]
    {
        let value = edge.metric(series).await;
        assert!(value.is_some_and(|value| value > 0.0), "{series}: {value:?}");
    }
    edge.signal("ABRT");
    assert_eq!(edge.exited().await, None, "ended by the signal");
    let left =
        std::fs::read_dir(edge.folder()).expect("the folder is ours").chain(std::fs::read_dir(".").expect("ours"));
    for file in left.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()) {
        assert!(file != "core" && !file.starts_with("core."), "{file}");
    }
}

#[tokio::test]
async fn a_target_does_not_hand_its_credential_on() {
    let echo = async || {
        Origin::scripted(|mut peer| async move {
            while let Some(request) = peer.request().await {
                let seen = request.header("authorization").unwrap_or("none").to_owned();
                let bare = seen.rsplit(' ').next().unwrap_or_default();
                peer.send(format!(
                    "HTTP/1.1 103 Early Hints\r\nAuthorization: {seen}\r\nLink: </a>\r\n\r\n\
                     HTTP/1.1 302 Found\r\nLocation: {}\r\nAuthorization: {seen}\r\nauthorization: <{bare}>\r\n\
                     X-Other: kept\r\nContent-Length: 0\r\n\r\n",
                    request.target
                ))
                .await;
            }
        })
        .await
    };
    let origin = echo().await;
    let edge = Edge::to(&origin)
        .http2()
        .target_credential(&format!("type: bearer, secret: {{ value: {TARGET_SECRET} }}"))
        .fragment(&format!(
            "target_credentials:\n  - {{ id: in-query, type: api_key, query: key, secret: {{ value: {QUERY_SECRET} }} }}\n  \
             - {{ id: exposed, type: bearer, expose: true, secret: {{ value: shown }} }}\n\
             proxies:\n  - {{ id: query, target: origin, target_credential: in-query, proxy_credentials: [client] }}\n  \
             - {{ id: exposed, target: origin, target_credential: exposed, proxy_credentials: [client] }}\n"
        ))
        .start()
        .await;
    for http2 in [false, true] {
        let answer = edge.get("/api/demo/x").bearer("k1").http2(http2).await;
        answer.expect_granted(302).expect_no_header("authorization").expect_header("x-other", "kept");
        let answer = edge.get("/api/query/x?a=1").bearer("k1").http2(http2).await;
        answer.expect_granted(302).expect_header("location", "/x?a=1");
        let answer = edge.get("/api/exposed/x").bearer("k1").http2(http2).await;
        assert_eq!(answer.expect_granted(302).all("authorization"), ["Bearer shown", "<shown>"]);
    }
    let mut client = edge.connect().await;
    client.send(edge.get("/api/demo/x").bearer("k1").head()).await;
    let interim = client.head().await;
    assert!(interim.status == 103 && !String::from_utf8_lossy(&interim.raw).contains(TARGET_SECRET));
}

#[tokio::test]
async fn an_http_2_target_does_not_hand_it_on_in_its_trailers() {
    let origin = Origin::http2_cleartext(|mut stream| async move {
        stream.read().await;
        let seen = stream.head.headers["authorization"].clone();
        let mut body = stream.answer(200, &[("content-type", "application/grpc")], false);
        let names = ["authorization", "grpc-status"].map(http::HeaderName::from_static);
        let _ = body.send_trailers(names.into_iter().zip([seen, "0".parse().unwrap()]).collect());
    })
    .await;
    let edge = Edge::to(&origin).target("http: 2").http2().start().await;
    let answer = edge.post("/api/demo/grpc").bearer("k1").header("te", "trailers").body("x").http2(true).await;
    assert_eq!(answer.expect_status(200).trailers, [("grpc-status".to_owned(), "0".to_owned())]);
}

/// Secrets from every source and for every purpose, good ones and malformed ones, while everything is logged.
#[tokio::test]
async fn no_secret_of_any_kind_is_ever_written_down() {
    const JWT: &str = "canary-jwt-0123456789abcdef0123456789abcdef";
    const FILE: &str = "canary-file-41c2";
    const ENV: &str = "canary-env-9d07";
    const HEADER: &str = "canary-header-b33f";
    const BAD: [&str; 4] = ["canary-bad-one", "canary-bad-two", "canary-bad-three", "canary-bad-four"];
    let origin = Origin::replying(200).await;
    let authority = Authority::new();
    let identity = authority.certify("127.0.0.1");
    let key = identity.key_pem();
    let builder = Edge::to(format!("https://{}", origin.address()))
            .client(&format!("type: jwt_verify, jwt: {{ algorithms: [HS256], secret: {{ value: {JWT} }} }}"))
            .target_credential("type: bearer, secret: { env: CANARY }")
            .environment("CANARY", ENV)
            .environment("RUST_LOG", "trace")
            .target("tls: { ca: ca.pem, client_certificate: { chain: own.pem, key: own.key } }")
            .file("proxies.d/ca.pem", authority.pem())
            .file("proxies.d/own.pem", identity.pem.clone())
            .file("proxies.d/own.key", key.clone())
            .file("proxies.d/canary", format!("{FILE}\n"))
            .fragment(&format!(
                "target_credentials:\n  - {{ id: from-file, type: basic, username: ada, secret: {{ file: canary }} }}\n  \
                 - {{ id: headers, type: custom, headers: {{ X-One: {{ value: {HEADER} }}, X-Two: {{ file: canary }} }} }}\n\
                 targets:\n  - {{ id: plain, base_url: 'http://{address}' }}\n\
                 proxy_credentials:\n  - {{ id: simple, type: bearer, secret: {{ value: {PROXY_SECRET} }} }}\n\
                 proxies:\n  - {{ id: plain, target: plain, target_credential: origin-key, proxy_credentials: [simple, client] }}\n  \
                 - {{ id: file, target: plain, target_credential: from-file, proxy_credentials: [simple] }}\n  \
                 - {{ id: headers, target: plain, target_credential: headers, proxy_credentials: [simple] }}\n",
                address = origin.address()
            ));
    let edge = builder.start().await;
    let claims = serde_json::json!({ "exp": 4_000_000_000_u64 });
    let token = encode(&Header::default(), &claims, &EncodingKey::from_secret(JWT.as_bytes())).expect("HS256");
    let mut written = Vec::new();
    for path in ["/api/plain/x", "/api/file/x", "/api/headers/x", "/api/demo/x"] {
        for credential in [PROXY_SECRET, &token, "canary-guess.canary.guess"] {
            let answer = edge.get(path).bearer(credential).await;
            written.push((path.to_owned(), format!("{answer:?}{}", answer.text())));
        }
    }
    let check = Command::new(BINARY)
        .args(["check", "--show", "-c"])
        .arg(edge.folder().join("edge.yaml"))
        .env("CANARY", ENV)
        .output()
        .expect("the binary runs");
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
    written.push(("check --show".into(), String::from_utf8_lossy(&[check.stdout, check.stderr].concat()).into_owned()));
    // Malformed in every way, to be complained about.
    edge.write("proxies.d/canary-bad", format!("{}\nand another line\n", BAD[0]));
    edge.write(
        "proxies.d/bad.yaml",
        format!(
            "target_credentials:\n  - {{ id: b1, type: bearer, secret: {{ file: canary-bad }} }}\n  \
             - {{ id: b2, type: bearer, secret: {} }}\n  - {{ id: b3, type: bearer, secret: {{ {}: x }} }}\n\
             proxy_credentials:\n  - {{ id: b4, type: bearer, secret: {{ sha256: {} }} }}\n  \
             - {{ id: b5, type: jwt_verify, jwt: {{ algorithms: [HS256], secret: {{ value: {} }} }} }}\n",
            BAD[1], BAD[2], BAD[3], BAD[3]
        ),
    );
    edge.signal("HUP");
    eventually("the complaints", async || edge.stderr().contains("bad.yaml")).await;
    for page in ["/metrics", "/status", "/readyz", "/livez", "/"] {
        written.push((page.into(), edge.admin(page).await.text()));
    }
    written.push(("stdout".into(), edge.stdout()));
    written.push(("stderr".into(), edge.stderr()));
    let secret_key: String = key.lines().skip(1).take(1).collect();
    let encoded = STANDARD.encode(format!("ada:{FILE}"));
    let secrets = [JWT, FILE, ENV, HEADER, PROXY_SECRET, &token, &encoded, &secret_key, "canary-guess"];
    for (place, text) in &written {
        for secret in secrets.into_iter().chain(BAD) {
            if let Some(line) = text.lines().find(|line| line.contains(secret)) {
                panic!("`{secret}` in {place}: {line}");
            }
        }
    }
    let seen = origin.requests();
    assert!(seen.iter().any(|request| request.header("x-one") == Some(HEADER)), "{seen:?}");
    assert!(
        seen.iter().any(|request| request.header("authorization") == Some(&format!("Basic {encoded}"))),
        "{seen:?}"
    );
    assert!(seen.iter().all(|request| !format!("{request:?}").contains(&token)), "{seen:?}");
}
