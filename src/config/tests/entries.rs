//! Single entries of the lists: what becomes of secrets, keys, certificates and patterns.

use super::*;

#[test]
fn secrets_become_digests_and_sensitive_headers() {
    let text = "
proxy_credentials:
  - { id: c, type: bearer, secret: { file: client } }
target_credentials:
  - { id: bearer, type: bearer, secret: { file: target } }
  - { id: bare, type: jwt, prefix: '', secret: { file: target } }
  - { id: token, type: api_key, prefix: Token, secret: { file: target } }
  - { id: key, type: api_key, header: X-Key, secret: { file: target } }
  - { id: query, type: api_key, query: 'a key', secret: { file: target } }
  - { id: basic, type: basic, username: ada, secret: { file: target } }
  - { id: custom, type: custom, headers: { X-One: { file: target }, X-Two: { file: target } } }
targets: [{ id: t, base_url: 'http://h' }]
proxies:
";
    let names = ["bearer", "bare", "token", "key", "query", "basic", "custom"];
    let proxies: String = names
        .iter()
        .map(|name| format!("  - {{ id: {name}, target: t, target_credential: {name}, proxy_credentials: [c] }}\n"))
        .collect();
    let folder = Folder::new()
        .write("proxies.d/a.yaml", &format!("{text}{proxies}"))
        .write("proxies.d/client", "test\n")
        .write("proxies.d/target", "s+1 é\r\n");
    let config = folder.load().config;
    let Proof::Bearer(digest) = &config.proxies[0].proxy_credentials[0].proof else { panic!("not a bearer") };
    assert_eq!(digest.to_hex(), DIGEST);
    let sent: Vec<Vec<String>> = config
        .proxies
        .iter()
        .map(|proxy| {
            let injection = &proxy.target_credential.injection;
            assert!(injection.headers.iter().all(|(_, value)| value.is_sensitive()));
            let headers = injection.headers.iter();
            let headers = headers.map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())));
            let query = injection.query.iter().map(|query| String::from_utf8_lossy(query.pair.expose()).into_owned());
            headers.chain(query).collect()
        })
        .collect();
    assert_eq!(
        sent,
        [
            vec!["authorization: Bearer s+1 é"],
            vec!["authorization: s+1 é"],
            vec!["authorization: Token s+1 é"],
            vec!["x-key: s+1 é"],
            vec!["a%20key=s%2B1%20%C3%A9"],
            vec!["authorization: Basic YWRhOnMrMSDDqQ=="],
            vec!["x-one: s+1 é", "x-two: s+1 é"],
        ]
    );
}

#[test]
fn conditions_name_headers_in_lower_case() {
    let text = fragment("a", 1).replace(
        "path: \"^/users\"",
        "headers: [{ name: X-Tenant }, { name: X-A, value: '^a' }], query: [{ name: Q, presence: absent }]",
    );
    let config = Folder::new().write("proxies.d/a.yaml", &text).load().config;
    let rule = &config.proxies[0].scope.rules[0];
    assert!(matches!(&rule.headers[..], [one, two]
        if &*one.name == "x-tenant" && matches!(one.expect, Expect::Present) && matches!(two.expect, Expect::Value(_))));
    assert!(&*rule.query[0].name == "Q" && matches!(rule.query[0].expect, Expect::Absent));
}

#[test]
fn a_line_break_does_not_escape_a_pattern() {
    let text =
        fragment("a", 1).replace("path: \"^/users\"", "path: '^/admin/.+$', query: [{ name: q, value: '^x.y$' }]");
    let config = Folder::new().write("proxies.d/a.yaml", &text).load().config;
    let rule = &config.proxies[0].scope.rules[0];
    assert!(rule.path.as_ref().is_some_and(|path| path.is_match(b"/admin/\n") && path.is_match(b"/admin/a\nb")));
    let Expect::Value(value) = &rule.query[0].expect else { panic!("no pattern") };
    assert!(value.is_match(b"x\ny") && !value.is_match(b"x\ny\n"));
}

#[test]
fn a_key_serves_only_the_algorithms_of_its_kind() {
    use jsonwebtoken::Algorithm::{self, EdDSA, RS256};
    let keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/proxies.d/keys/identity-jwks.json");
    let load = |algorithms: &str| {
        let jwt = format!("jwt: {{ algorithms: [{algorithms}], jwks_file: '{}' }}", keys.display());
        let text =
            fragment("a", 1).replace("type: bearer, secret: { sha256: ", &format!("type: jwt_verify, {jwt} }} # "));
        Folder::new().write("proxies.d/a.yaml", &text).loader().load()
    };
    let config = load("RS256, EdDSA").unwrap_or_else(|problems| panic!("{problems}")).config;
    let Proof::JwtVerify(policy) = &config.proxies[0].proxy_credentials[0].proof else { panic!("not verified") };
    let served: Vec<&[Algorithm]> = policy.keys.iter().map(|key| &*key.algorithms).collect();
    assert_eq!(served, [&[RS256], &[EdDSA]]);
    // No public key serves HMAC; the RSA key's own `alg` rules out PS256.
    assert!(load("RS256, EdDSA, HS256").is_err());
    assert!(load("RS256, EdDSA, PS256").is_err());
}

#[test]
fn tls_settings_are_read_and_told_apart() {
    let tls = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config/tls");
    let (chain, key) = (tls.join("edge.pem").display().to_string(), tls.join("edge.key").display().to_string());
    let pair = format!("{{ chain: '{chain}', key: '{key}' }}");
    let settings = ["{}".to_owned(), format!("{{ ca: '{chain}' }}"), format!("{{ client_certificate: {pair} }}")];
    let text = settings.iter().enumerate().fold(fragment("a", 4), |text, (n, settings)| {
        text.replace(&format!("//t{n}.a.example.com/v1\""), &format!("//t{n}.a.example.com/v1\", tls: {settings}"))
    });
    let text = text.replace("//t3.a.example.com/v1\"", &format!("//192.0.2.1\", tls: {}", settings[1]));
    let folder = Folder::new().write("proxies.d/a.yaml", &text);
    let listener = format!("{{ address: '[::1]:8443', tls: {{ certificates: [{pair}] }} }}");
    let config =
        folder.write("edge.yaml", &format!("region: r1\nlisteners: [{listener}]\ninclude: proxies.d\n")).load().config;
    let [none, ca, client, address] = [0, 1, 2, 3].map(|n| config.proxies[n].target.tls.as_ref().unwrap());
    assert!(none.fingerprint != ca.fingerprint && ca.fingerprint != client.fingerprint);
    assert_eq!(
        (address.fingerprint, &*address.server_name, &*ca.server_name),
        (ca.fingerprint, "192.0.2.1", "t1.a.example.com")
    );
    assert!(std::sync::Arc::ptr_eq(ca.ca.as_ref().unwrap(), address.ca.as_ref().unwrap()));
    assert_eq!(client.client_certificate.as_ref().unwrap().chain.len(), 1);
    assert_eq!(config.edge.listeners[0].tls.as_ref().unwrap().certificates.len(), 1);
}
