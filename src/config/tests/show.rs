//! What `check --show` prints: the same configuration again, whole, and without its secrets.

use super::super::model::{Config, Edge, Proxy, ProxyCredential};
use super::samples::{all_samples, folder_of_samples};
use super::*;

/// What the model holds, but for secrets and files.
fn facts(config: &Config) -> String {
    let edge: &Edge = &config.edge;
    let (limits, defaults) = (&edge.limits, (&edge.shutdown, edge.held_responses_memory, edge.allow_private_targets));
    let times = [limits.header_timeout, limits.keepalive_timeout, limits.body_timeout, limits.write_timeout];
    let counts = (limits.requests_per_connection, limits.max_headers, limits.max_requests_in_flight);
    let bytes = (limits.max_header_bytes, limits.http2_max_streams, edge.threads, &edge.region);
    let kept = (edge.pool.idle_timeout, edge.pool.max_idle, edge.dns.max_stale, &edge.dns.servers);
    let listeners: Vec<_> =
        edge.listeners.iter().map(|of| (of.address, of.http2_cleartext, of.proxy_protocol, of.tls.is_some())).collect();
    let log = (edge.access_log == AccessLog::Stdout, &edge.trusted_proxies, edge.admin);
    let edge = format!("{times:?} {counts:?} {bytes:?} {kept:?} {listeners:?} {defaults:?} {log:?}\n");
    config.proxies.iter().fold(edge, |text, proxy| text + &of_proxy(proxy))
}

fn of_proxy(proxy: &Proxy) -> String {
    let Proxy { id, active, timeout, connect_timeout, response, stream_idle_timeout, rate_limit_headers, .. } = proxy;
    let sizes = (proxy.max_response_body, proxy.max_request_body);
    let target = (&proxy.target.id, &proxy.target.host_header, &proxy.target.base_path, proxy.target.http);
    let credential: &model::TargetCredential = &proxy.target_credential;
    let headers: Vec<_> = credential.injection.headers.iter().map(|(name, value)| (name, value.len())).collect();
    let query = credential.injection.query.as_ref().map(|query| (&query.name, query.pair.expose().len()));
    let clients: String = proxy.proxy_credentials.iter().map(|client| of_client(client)).collect();
    let scopes =
        [&proxy.scope, &proxy.target.scope, &credential.scope].map(|scope| (scope.default_effect, scope.rules.len()));
    format!(
        "{id} {active} {timeout:?} {connect_timeout:?} {response:?} {stream_idle_timeout:?} {rate_limit_headers} {sizes:?} \
         {target:?} {} {headers:?} {query:?} {scopes:?}\n{clients}",
        credential.id
    )
}

fn of_client(client: &ProxyCredential) -> String {
    let ProxyCredential { id, active, expires_at, billing, account, rate_limit, proof, scope } = client;
    let proof = match proof {
        Proof::ApiKey(_) => "api_key".to_owned(),
        Proof::Bearer(_) => "bearer".to_owned(),
        Proof::Basic { username, .. } => format!("basic {username}"),
        Proof::Jwt(_) => "jwt".to_owned(),
        Proof::JwtVerify(jwt) => {
            format!("{:?} {} {:?} {:?} {:?}", jwt.algorithms, jwt.keys.len(), jwt.issuer, jwt.audience, jwt.leeway)
        }
    };
    let scope = (scope.default_effect, scope.rules.len());
    format!("  {id} {active} {expires_at:?} {billing:?} {account:?} {rate_limit:?} {proof} {scope:?}\n")
}

#[test]
fn what_is_shown_is_the_same_configuration() {
    let folder = folder_of_samples();
    let samples = serde_yaml::to_string(&all_samples()).unwrap();
    let bare = "region: r1\nlisteners: [{ address: '127.0.0.1:8080' }]\n";
    for text in [&*samples, bare] {
        fs::write(folder.path("edge.yaml"), text).unwrap();
        let loaded = facts(&folder.load().config);
        let shown = folder.loader().show().unwrap_or_else(|problems| panic!("{problems}"));
        // A digest is all that it takes to load what is shown.
        let unmasked = shown.replace("sha256: '***'", &format!("sha256: {DIGEST}"));
        fs::write(folder.path("edge.yaml"), &unmasked).unwrap();
        assert_eq!(facts(&folder.load().config), loaded);
        assert_eq!(folder.loader().show().unwrap_or_else(|problems| panic!("{problems}")), shown);
    }
}

#[test]
fn fragments_are_merged_in_order_and_named() {
    let folder = Folder::new()
        .write("edge.yaml", "region: r1\nlisteners: [{ address: '127.0.0.1:1' }]\ninclude: proxies.d\ndefaults: { timeout: 9s }\ntargets: [{ id: own, base_url: 'http://h' }]\n")
        .write("proxies.d/b.yaml", &fragment("b", 1))
        .write("proxies.d/a.yaml", &fragment("a", 2));
    let shown = folder.loader().show().unwrap_or_else(|problems| panic!("{problems}"));
    let value: serde_yaml::Value = serde_yaml::from_str(&shown).unwrap();
    let ids: Vec<&str> =
        value["targets"].as_sequence().unwrap().iter().map(|target| target["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["own", "a-t0", "a-t1", "b-t0"]);
    assert!(value["proxies"].as_sequence().unwrap().iter().all(|proxy| proxy["timeout"] == "9s"), "{shown}");
    assert_eq!(value["proxy_credentials"][0]["rate_limit"]["requests_per_minute"], 100);
    assert!(value.get("include").is_none() && value["accounts"].as_sequence().is_some_and(Vec::is_empty));
    assert!(shown.contains("# of `edge.yaml`\n- id: own\n") && shown.contains("# of `proxies.d/b.yaml`\n- id: b-t0\n"));
}

#[test]
fn a_bad_configuration_is_not_shown() {
    let folder = Folder::new().write("proxies.d/a.yaml", "targets: [{ id: t, base_url: 'http://user:hunter2@h' }]\n");
    let problems = folder.loader().show().unwrap_err().to_string();
    assert!(problems.contains("targets[0].base_url") && !problems.contains("hunter2"), "{problems}");
}
