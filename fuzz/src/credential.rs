//! `request::credential`: a client is who it says it is when a second reading of the contract says so too, and never else.
//!
//! The input is lines: each that begins with `:` is the value of one `Authorization` header, the last that begins with `?` is
//! the query.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, crypto};
use requestrocket_edge::config::model::{Billing, JwtKey, JwtPolicy, Proof, ProxyCredential, RateLimit, Scope};
use requestrocket_edge::request::credential::{Keyring, Presented, verify};
use requestrocket_edge::request::query;
use requestrocket_edge::secret::Digest;

use super::jwt::{NOW, now};
use super::{shown, unescape};

const FIXED_TOKEN: &str = "e30.eyJzdWIiOiJhZGEifQ.c2ln";
const SECRET: &[u8] = b"a secret of sufficient length ...";
const HEADER: &str = "eyJhbGciOiJIUzI1NiJ9"; // {"alg":"HS256"}

/// One credential of each kind, and some that are not to be used: their ids begin with `no-`.
static KEYRING: LazyLock<Keyring> = LazyLock::new(|| {
    let digest = |secret: &str| Digest::of(secret.as_bytes());
    let signed = JwtPolicy {
        algorithms: vec![Algorithm::HS256],
        keys: vec![JwtKey { kid: None, algorithms: vec![Algorithm::HS256], key: DecodingKey::from_secret(SECRET) }],
        issuer: None,
        audience: Vec::new(),
        leeway: Duration::ZERO,
    };
    let basic = |username: &str, password| Proof::Basic { username: username.into(), password: digest(password) };
    let mut credentials = vec![
        credential("api_key", Proof::ApiKey(digest("key"))),
        credential("bearer", Proof::Bearer(digest("token"))),
        credential("basic", basic("ada", "pass:word")),
        credential("jwt", Proof::Jwt(digest(FIXED_TOKEN))),
        credential("signed", Proof::JwtVerify(Arc::new(signed))),
        credential("no-expired", Proof::ApiKey(digest("old"))),
        credential("no-inactive", Proof::Bearer(digest("off"))),
        // One secret of two credentials, of which only the second can be used.
        credential("no-first", Proof::Bearer(digest("twice"))),
        credential("second", Proof::Bearer(digest("twice"))),
        credential("nobody", basic("", "")),
    ];
    for credential in &mut credentials {
        match &*credential.id {
            "no-expired" | "no-first" => credential.expires_at = Some(now()),
            "no-inactive" => credential.active = false,
            _ => credential.expires_at = Some(now() + Duration::from_nanos(1)),
        }
    }
    Keyring::new(&credentials.into_iter().map(Arc::new).collect::<Vec<_>>())
});

fn credential(id: &str, proof: Proof) -> ProxyCredential {
    ProxyCredential {
        id: id.into(),
        active: true,
        expires_at: None,
        billing: Billing::Active,
        account: None,
        rate_limit: RateLimit { per_minute: 100, per_day: None },
        proof,
        scope: Scope::default(),
    }
}

/// The input is the headers and the query of a request.
pub fn check(input: &[u8]) {
    let lines = || input.split(|byte| *byte == b'\n');
    let headers: Vec<&[u8]> = lines().filter_map(|line| line.strip_prefix(b":")).collect();
    let query = lines().filter_map(|line| line.strip_prefix(b"?")).next_back();
    let presented = Presented::from_request(headers.iter().copied(), query::split(query).credential);
    let verified = verify(Some(&KEYRING), &presented, now());

    let parameters: Vec<Vec<u8>> = query.map(parameters).unwrap_or_default();
    let value = match (headers.as_slice(), parameters.as_slice()) {
        ([header], _) => Some(header.to_vec()),
        ([], [parameter]) => Some(parameter.clone()),
        _ => None,
    };
    let expected = value.as_deref().and_then(who);
    let found = verified.as_ref().map(|verified| &*verified.credential.id);
    assert_eq!(found, expected, "{}", shown(input));
    let claims = verified.and_then(|verified| verified.claims);
    assert_eq!(claims.is_some(), matches!(expected, Some("jwt" | "signed")), "{}", shown(input));

    assert!(verify(None, &presented, now()).is_none(), "an unknown proxy lets nobody in: {}", shown(input));
    assert_eq!(format!("{presented:?}"), "Presented(..)");
}

/// The values of the `Authorization` parameters, as base64 needs them: `+` stays, but for the one behind a scheme.
fn parameters(query: &[u8]) -> Vec<Vec<u8>> {
    let mut values = Vec::new();
    for piece in query.split(|byte| *byte == b'&') {
        let (name, value) = piece.split_at(piece.iter().position(|byte| *byte == b'=').unwrap_or(piece.len()));
        if !unescape(name).0.eq_ignore_ascii_case(b"authorization") {
            continue;
        }
        let mut value = value.strip_prefix(b"=").unwrap_or(value).to_vec();
        let plus = value.iter().position(|byte| *byte == b'+');
        let scheme = plus.map(|plus| unescape(&value[..plus]).0.to_ascii_lowercase());
        if matches!(scheme.as_deref(), Some(b"bearer" | b"basic")) {
            value[plus.expect("there is one")] = b' ';
        }
        values.push(unescape(&value).0);
    }
    values
}

/// Whose `Authorization` this is.
fn who(value: &[u8]) -> Option<&'static str> {
    // What is not text is not among these secrets.
    let value = std::str::from_utf8(value).ok()?.trim_matches([' ', '\t']);
    let (scheme, rest) = value.split_once(' ').map(|(scheme, rest)| (scheme.to_ascii_lowercase(), rest)).unzip();
    let rest = rest.map(|rest| rest.trim_start_matches(' '));
    match (value, scheme.as_deref(), rest) {
        ("key", ..) => Some("api_key"),
        (FIXED_TOKEN, ..) => Some("jwt"),
        (_, Some("bearer"), Some(token)) => match token {
            "token" => Some("bearer"),
            FIXED_TOKEN => Some("jwt"),
            "twice" => Some("second"),
            token => is_signed(token).then_some("signed"),
        },
        (_, Some("basic"), Some(pair)) => [("ada:pass:word", "basic"), (":", "nobody")]
            .into_iter()
            .find_map(|(known, id)| (pair == STANDARD.encode(known)).then_some(id)),
        (token, ..) => is_signed(token).then_some("signed"),
    }
}

/// Whether a token is what the secret makes of its payload, and its time has not come.
fn is_signed(token: &str) -> bool {
    let mut parts = token.split('.');
    let (Some(HEADER), Some(payload), Some(signature), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let claims = [NOW + 1, NOW + 60].map(|end| format!(r#"{{"exp":{end}}}"#));
    let signed = |message: &str| {
        crypto::sign(message.as_bytes(), &EncodingKey::from_secret(SECRET), Algorithm::HS256).expect("signed")
    };
    let encoded = |claims: &String| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(claims) == payload;
    claims.iter().any(encoded) && signed(&format!("{HEADER}.{payload}")) == signature
}
