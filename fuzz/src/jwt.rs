//! `request::jwt`: a token is accepted when one of the policy's keys signed these very bytes and its claims hold, and never else.
//!
//! Random bytes are never signed, so that most inputs are a recipe, a line each: who signs and which policy judges; the header;
//! the claims; then, if at all, which bytes are changed afterwards. `raw` in the first line: the second one is a token as it is.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, crypto};
use requestrocket_edge::config::model::{JwtKey, JwtPolicy};
use requestrocket_edge::request::jwt::{self, Claims, Token};
use serde_json::Value;

use super::shown;

pub const NOW: u64 = 1_800_000_000;
const LEEWAY: u64 = 60;
const ISSUER: &str = "https://id.example.com/";
const AUDIENCE: [&str; 2] = ["orders", "billing"];

const SECRET: &[u8] = b"a secret of the tests, of sixty-four bytes, since HS512 wants it";
// Keys made for the tests, that open nothing else.
const RSA: &[u8] = include_bytes!("../../tests/it/keys/rsa.pem");
const RSA_PUBLIC: &[u8] = include_bytes!("../../tests/it/keys/rsa.pub.pem");
const EC: &[u8] = include_bytes!("../../tests/it/keys/ec.pem");
const EC_PUBLIC: &[u8] = include_bytes!("../../tests/it/keys/ec.pub.pem");
const ED: &[u8] = include_bytes!("../../tests/it/keys/ed.pem");
const ED_PUBLIC: &[u8] = include_bytes!("../../tests/it/keys/ed.pub.pem");

/// Somebody who signs.
struct Signer {
    name: &'static str,
    algorithm: Algorithm,
    private: EncodingKey,
    /// Whether the policies have this key for this algorithm, and under which name.
    known: Option<Option<&'static str>>,
}

static SIGNERS: LazyLock<Vec<Signer>> = LazyLock::new(|| {
    let signer =
        |name, algorithm, private: &EncodingKey, known| Signer { name, algorithm, private: private.clone(), known };
    let mac = EncodingKey::from_secret(SECRET);
    let rsa = EncodingKey::from_rsa_pem(RSA).expect("an RSA key");
    let ec = EncodingKey::from_ec_pem(EC).expect("an EC key");
    let ed = EncodingKey::from_ed_pem(ED).expect("an Ed25519 key");
    vec![
        signer("HS256", Algorithm::HS256, &mac, Some(None)),
        signer("EdDSA", Algorithm::EdDSA, &ed, Some(Some("ed"))),
        signer("ES256", Algorithm::ES256, &ec, Some(Some("ec"))),
        signer("RS256", Algorithm::RS256, &rsa, Some(Some("rsa"))),
        signer("PS384", Algorithm::PS384, &rsa, Some(Some("rsa"))),
        // Not pinned, for a key that there is.
        signer("HS384", Algorithm::HS384, &mac, None),
        signer("RS512", Algorithm::RS512, &rsa, None),
        // Anybody can take a public key for a secret.
        signer("public", Algorithm::HS256, &EncodingKey::from_secret(RSA_PUBLIC), None),
        signer("stranger", Algorithm::HS256, &EncodingKey::from_secret(b""), None),
    ]
});

/// The policies: of any issuer and audience, and of one issuer and two audiences.
static POLICIES: LazyLock<[JwtPolicy; 2]> = LazyLock::new(|| [policy(false), policy(true)]);

fn policy(strict: bool) -> JwtPolicy {
    let key = |kid: Option<&str>, algorithms: &[Algorithm], key| JwtKey {
        kid: kid.map(str::to_owned),
        algorithms: algorithms.to_vec(),
        key,
    };
    use Algorithm::*;
    JwtPolicy {
        algorithms: vec![HS256, EdDSA, ES256, RS256, PS384],
        keys: vec![
            key(
                None,
                &[HS256],
                DecodingKey::from_secret(b"another secret, which nobody signs with, but which is tried first"),
            ),
            key(None, &[HS256], DecodingKey::from_secret(SECRET)),
            key(Some("rsa"), &[RS256, PS384], DecodingKey::from_rsa_pem(RSA_PUBLIC).expect("an RSA key")),
            key(Some("ec"), &[ES256], DecodingKey::from_ec_pem(EC_PUBLIC).expect("an EC key")),
            key(Some("ed"), &[EdDSA], DecodingKey::from_ed_pem(ED_PUBLIC).expect("an Ed25519 key")),
        ],
        issuer: strict.then(|| ISSUER.to_owned()),
        audience: if strict { AUDIENCE.map(str::to_owned).to_vec() } else { Vec::new() },
        leeway: Duration::from_secs(LEEWAY),
    }
}

/// The input is a recipe, or a token.
pub fn check(input: &[u8]) {
    let mut lines = input.split(|byte| *byte == b'\n');
    let mut next = || lines.next().unwrap_or_default();
    let (first, header) = (next(), next());
    if first == b"raw" {
        return as_it_is(header);
    }
    let (name, strict) = match first.strip_suffix(b" strict") {
        Some(name) => (name, true),
        None => (first, false),
    };
    let Some(signer) = SIGNERS.iter().find(|signer| signer.name.as_bytes() == name) else { return };
    let claims = next();
    let token = sign(signer, header, claims);
    let mut changed = token.clone().into_bytes();
    for change in lines.flat_map(|line| line.chunks_exact(3)) {
        let at = usize::from(u16::from_be_bytes([change[0], change[1]])) % changed.len();
        changed[at] ^= change[2];
    }
    let verdict = accepts(&changed, strict);
    if changed != token.as_bytes() {
        assert!(verdict.is_none(), "changed after it was signed: {}", shown(&changed));
        return;
    }
    match (verdict, should_be_accepted(header, claims, strict, signer)) {
        (_, None) => {}
        (Some(read), Some(true)) => assert_eq!(Some(read), object(claims), "{}", shown(input)),
        (None, Some(false)) => {}
        (verdict, _) => panic!("{}: accepted: {}", shown(input), verdict.is_some()),
    }
}

/// A token of whatever origin: accepted only when it is, byte for byte, what a known signer makes of the same message.
fn as_it_is(token: &[u8]) {
    let Some(claims) = accepts(token, true) else { return };
    let text = std::str::from_utf8(token).expect("an accepted token is plain ASCII");
    let (message, signature) = text.rsplit_once('.').expect("an accepted token has parts");
    let (header, payload) = message.split_once('.').expect("an accepted token has parts");
    let [header, payload] = [header, payload].map(|part| URL_SAFE_NO_PAD.decode(part).expect("it was read"));
    let signed = SIGNERS.iter().filter(|signer| match signer.algorithm {
        // Another signature each time; those of tokens that were changed are looked at in `check`.
        Algorithm::ES256 | Algorithm::PS384 => signer.known.is_some(),
        algorithm => {
            signer.known.is_some()
                && crypto::sign(message.as_bytes(), &signer.private, algorithm).expect("signed") == signature
        }
    });
    let valid = signed.map(|signer| should_be_accepted(&header, &payload, true, signer));
    assert!(valid.into_iter().any(|valid| valid != Some(false)), "{}", shown(token));
    assert_eq!(Some(claims), object(&payload), "{}", shown(token));
}

fn sign(signer: &Signer, header: &[u8], claims: &[u8]) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = crypto::sign(message.as_bytes(), &signer.private, signer.algorithm).expect("signed");
    format!("{message}.{signature}")
}

fn accepts(token: &[u8], strict: bool) -> Option<Claims> {
    let now = now();
    let token = Token::parse(token).ok()?;
    jwt::verify(&token, &POLICIES[usize::from(strict)], now).ok()?;
    Some(token.into_claims())
}

pub fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW)
}

fn object(text: &[u8]) -> Option<Claims> {
    serde_json::from_slice(text).ok()
}

/// Whether a token with this header and these claims, signed by `signer`, is one to believe. `None`: too close to the moment.
fn should_be_accepted(header: &[u8], claims: &[u8], strict: bool, signer: &Signer) -> Option<bool> {
    let (Some(header), Some(claims)) = (object(header), object(claims)) else { return Some(false) };
    let named = |name: &str| header.get(name);
    let selected = match (named("kid"), signer.known) {
        (_, None) => false,
        (None, _) => true,
        // A key without a name is tried for whatever name.
        (Some(Value::String(_)), Some(None)) => true,
        (Some(Value::String(kid)), Some(Some(name))) => kid == name,
        (Some(_), _) => false,
    };
    let algorithm = named("alg").and_then(Value::as_str) == Some(signer.name);
    if !selected || !algorithm || named("crit").is_some() {
        return Some(false);
    }
    if strict {
        let ours = |name: &Value| AUDIENCE.iter().any(|audience| name == audience);
        let audience = match claims.get("aud") {
            Some(Value::Array(names)) => names.iter().any(ours),
            Some(name) => ours(name),
            None => false,
        };
        if !audience || claims.get("iss") != Some(&Value::from(ISSUER)) {
            return Some(false);
        }
    }
    match (claims.get("exp"), claims.get("nbf")) {
        (None, _) => Some(false),
        (Some(end), None) => is_before(NOW - LEEWAY, end),
        (Some(end), Some(start)) => match (is_before(NOW - LEEWAY, end)?, is_before(NOW + LEEWAY, start)?) {
            (true, is_early) => Some(start.is_number() && !is_early),
            (false, _) => Some(false),
        },
    }
}

/// Whether `moment` lies before a date that a token names. `None`: it is so close that a fraction decides.
fn is_before(moment: u64, date: &Value) -> Option<bool> {
    if let Some(date) = date.as_i64() {
        return Some(i64::try_from(moment).expect("this century") < date);
    }
    let Some(date) = date.as_f64() else { return Some(false) };
    let apart = date - moment as f64;
    (apart.abs() > 0.001).then_some(apart > 0.0)
}
