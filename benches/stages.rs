//! What the stages of a request cost, each by itself: `cargo bench --bench stages`. For finding out what to look at; what the
//! whole costs beside others is measured by `make bench`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark fails by panicking")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use divan::Bencher;
use http::{HeaderValue, Version};
use pingora::http::{RequestHeader, ResponseHeader};
use requestrocket_edge::config::Loader;
use requestrocket_edge::proxy::admission;
use requestrocket_edge::request::credential::{self, Presented};
use requestrocket_edge::request::query::{self, Found};
use requestrocket_edge::request::rate_limit::Clock;
use requestrocket_edge::request::rewrite::{self, Origin};
use requestrocket_edge::request::{framing, route};
use requestrocket_edge::response::budget::Budget;
use requestrocket_edge::response::headers::{self, Labels};
use requestrocket_edge::snapshot::{Lasting, Snapshot};
use requestrocket_edge::upstream::dns::Resolver;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PATH: &[u8] = b"/api/bearer/v1/users/42?expand=roles&page=2";
const HEADER: &[u8] = b"GET /api/bearer/v1/users/42 HTTP/1.1\r\nHost: edge.example.com\r\nUser-Agent: bench/1.0\r\n\
    Accept: application/json\r\nAuthorization: Bearer client-token\r\nContent-Type: application/json\r\n\r\n";
const JWT_SECRET: &[u8] = b"a secret of at least thirty-two bytes";

/// One proxy for each type of credential, named by it.
const CONFIG: &str = r#"
region: bench-1
listeners: [{ address: "127.0.0.1:1" }]
allow_private_targets: true
proxy_credentials:
  - { id: bearer, type: bearer, secret: { value: client-token }, rate_limit: { requests_per_minute: 1000000 } }
  - { id: api_key, type: api_key, secret: { value: client-token }, rate_limit: { requests_per_minute: 1000000 } }
  - { id: basic, type: basic, username: ada, secret: { value: client-token }, rate_limit: { requests_per_minute: 1000000 } }
  - { id: jwt_verify, type: jwt_verify, jwt: { algorithms: [HS256], secret: { value: "a secret of at least thirty-two bytes" } } }
targets: [{ id: target, base_url: "http://127.0.0.1:1/v1" }]
target_credentials: [{ id: key, type: bearer, secret: { value: target-secret } }]
proxies:
  - { id: bearer, target: target, target_credential: key, proxy_credentials: [bearer] }
  - { id: api_key, target: target, target_credential: key, proxy_credentials: [api_key] }
  - { id: basic, target: target, target_credential: key, proxy_credentials: [basic] }
  - { id: jwt_verify, target: target, target_credential: key, proxy_credentials: [jwt_verify] }
  - id: rules
    target: target
    target_credential: key
    proxy_credentials: [bearer]
    rules:
      - { id: no-deletes, effect: deny, methods: [DELETE] }
      - { id: no-admin, effect: deny, path: "^/admin" }
      - { id: no-dumps, effect: deny, query: [{ name: format, value: "^dump$" }] }
"#;

fn main() {
    divan::main();
}

fn snapshot() -> Snapshot {
    let Ok(loaded) = Loader::of_text("bench.yaml", CONFIG).load() else { panic!("the configuration is valid") };
    let lasting = Lasting {
        limiters: Default::default(),
        guesses: Default::default(),
        resolver: Arc::new(Resolver::new(&loaded.config.edge.dns).expect("a resolver")),
        held: Arc::new(Budget::new(0)),
    };
    Snapshot::build(loaded.config, None, &lasting)
}

fn authorization(kind: &str) -> String {
    match kind {
        "api_key" => "client-token".to_owned(),
        "basic" => format!("Basic {}", STANDARD.encode("ada:client-token")),
        "jwt_verify" => {
            let part = |json: &str| URL_SAFE_NO_PAD.encode(json);
            let message = format!("{}.{}", part(r#"{"alg":"HS256"}"#), part(r#"{"sub":"ada","exp":4102444800}"#));
            let key = jsonwebtoken::EncodingKey::from_secret(JWT_SECRET);
            let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, jsonwebtoken::Algorithm::HS256);
            format!("Bearer {message}.{}", signature.expect("a key for HS256"))
        }
        _ => "Bearer client-token".to_owned(),
    }
}

fn request(path: &[u8], authorization: &str) -> RequestHeader {
    let mut head = RequestHeader::build("GET", path, Some(8)).expect("a request");
    for (name, value) in [
        ("Host", "edge.example.com"),
        ("User-Agent", "bench/1.0"),
        ("Accept", "application/json"),
        ("Authorization", authorization),
    ] {
        head.append_header(name, value).expect("a field");
    }
    head
}

#[divan::bench]
fn check_framing() {
    assert!(framing::check(black_box(HEADER)).is_ok());
}

#[divan::bench]
fn read_route() {
    assert!(black_box(route::parse(black_box(PATH))).is_ok());
}

#[divan::bench]
fn strip_query() {
    black_box(query::split(black_box(Some(b"expand=roles&page=2&sort=name"))));
}

#[divan::bench(args = ["api_key", "bearer", "basic", "jwt_verify"])]
fn verify_credential(bencher: Bencher<'_, '_>, kind: &str) {
    let (snapshot, value, now) = (snapshot(), authorization(kind), SystemTime::now());
    let entry = snapshot.proxy(kind.as_bytes()).expect("a proxy of this name");
    bencher.bench_local(|| {
        let presented = Presented::from_request([black_box(value.as_bytes())], Found::None);
        assert!(credential::verify(Some(&entry.keyring), &presented, now).is_some());
    });
}

/// Path, credential, account, rules, size, limit: `rules` with three rules, the others with none.
#[divan::bench(args = ["bearer", "rules"])]
fn admit(bencher: Bencher<'_, '_>, proxy: &str) {
    let snapshot = snapshot();
    let request = request(format!("/api/{proxy}/v1/users/42?expand=roles").as_bytes(), &authorization("bearer"));
    let mut now = Duration::from_secs(1);
    bencher.bench_local(|| {
        now += Duration::from_micros(100); // 600,000 a minute
        let wall = SystemTime::UNIX_EPOCH + now;
        assert!(admission::admit(&snapshot, black_box(&request), Clock::at(now, wall), wall).is_ok());
    });
}

#[divan::bench]
fn rewrite_request(bencher: Bencher<'_, '_>) {
    let snapshot = snapshot();
    let proxy = &snapshot.proxy(b"bearer").expect("a proxy of this name").proxy;
    let (peer, request_id) = (HeaderValue::from_static("192.0.2.1"), HeaderValue::from_static("r1"));
    let origin = Origin { peer: &peer, trusted: false, tls: true, request_id: &request_id, version: Version::HTTP_11 };
    let injection = &proxy.target_credential.injection;
    bencher.with_inputs(|| request(PATH, &authorization("bearer"))).bench_local_values(|mut head| {
        let line = rewrite::request_target(&proxy.target, injection, b"/users/42", Some(b"expand=roles"));
        rewrite::rewrite(&mut head, &line, &proxy.target, injection, &origin, false).expect("rewritten");
        head
    });
}

#[divan::bench]
fn label_answer(bencher: Bencher<'_, '_>) {
    let request_id = HeaderValue::from_static("r1");
    let answer = || {
        let mut head = ResponseHeader::build(200, Some(8)).expect("an answer");
        for (name, value) in [("Server", "target"), ("Content-Type", "application/json"), ("Content-Length", "80")] {
            head.append_header(name, value).expect("a field");
        }
        head
    };
    bencher.with_inputs(answer).bench_local_values(|mut head| {
        headers::label(&mut head, &Labels { request_id: &request_id, warning: None }).expect("labelled");
        head
    });
}
